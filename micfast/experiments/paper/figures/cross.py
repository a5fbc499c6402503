"""Figure 7: every module on sequences of every class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from micfast.experiments.paper.figures.common import (
    DATA,
    Drawing,
    how_trained,
    new_figure,
    number,
    plain_log,
)
from micfast.experiments.paper.raw import minima
from micfast.plotting import CrossErrorDisplay

__all__ = ["draw_cross"]


def draw_cross(found: dict[str, dict[str, np.ndarray]]) -> Drawing:
    """Heat maps of the errors on training and test sequences, a row of them per data set."""
    from matplotlib.colors import LogNorm

    fig = new_figure(0.4 + 3.6 * len(found))
    grid = fig.subplots(len(found), 2, squeeze=False)
    captions, alts = [], []
    display: Any = None
    for row, (data, arrays) in enumerate(found.items()):
        labels = [str(name) for name in arrays["labels"]]
        matrices = {part: np.asarray(arrays[part], float) for part in ("train", "test")}
        values = np.concatenate([m[np.isfinite(m) & (m > 0)] for m in matrices.values()])
        low, high = (float(values.min()), float(values.max())) if values.size else (0.1, 1.0)
        norm = LogNorm(low, high if high > low else 10 * low)
        for column, (part, matrix) in enumerate(matrices.items()):
            letter = "abcd"[2 * list(DATA).index(data) + column]
            ax = grid[row, column]
            display = CrossErrorDisplay(matrix, module_labels=labels).plot(
                ax, include_values=False, colorbar=False, im_kw={"norm": norm}
            )
            if ax.get_legend() is not None:
                ax.get_legend().remove()
            ax.set(title=f"({letter}) {DATA[data]}, {part}", ylabel="module" * (column == 0))
            captions.append(
                f"({letter}) {DATA[data]}, {_part(arrays, part)}: {_minima_text(matrix, labels)}"
            )
            own = np.eye(len(matrix), dtype=bool)
            alts.append(
                f"({letter}) {DATA[data]}, {part}: median error {_median(matrix[own])} on the "
                f"diagonal and {_median(matrix[~own])} off it"
            )
        bar = fig.colorbar(display.im_, ax=list(grid[row]), shrink=0.82, pad=0.015, aspect=28)
        bar.set_label("mean squared error (log scale)")
        plain_log(bar.ax.yaxis, float(norm.inverse(0)), float(norm.inverse(1)))
        bar.outline.set_linewidth(0.5)
    marks = [mark for mark in (display.row_minima_, display.column_minima_) if mark is not None]
    names = ["smallest of the row (module)", "smallest of the column (class)"]
    fig.legend(
        marks, names[: len(marks)], loc="outside lower center", ncols=2, labelcolor="black",
        facecolor="#AEB8C2", frameon=True, edgecolor="none",
    )  # fmt: skip
    caption = (
        "Every module reconstructs sequences of every class: mean squared error after inversion, "
        "one colour scale per data set. Rings mark the class that a module redraws best, dots the "
        f"module that redraws a class best. {' '.join(captions)}"
        f"{how_trained(next(iter(found.values())))}"
    )
    alt = "Heat maps of module by class. " + "; ".join(alts) + "."
    return Drawing(fig, "Figure 7. Cross-reconstruction", caption, alt)


def _part(arrays: dict[str, np.ndarray], part: str) -> str:
    counts = arrays.get(f"n_{part}")
    if counts is None:
        return part
    least, most = int(counts.min()), int(counts.max())
    of = f"{most}" if least == most else f"{least} to {most}"
    return f"{part} ({of} sequences per class)"


def _minima_text(matrix: np.ndarray, labels: list[str]) -> str:
    """How many row and column minima lie on the diagonal, and where the others lie."""
    parts = []
    for axis, kind, pattern in (
        (1, "row", "module {} redraws {} best"),
        (0, "column", "{} is redrawn best by {}"),
    ):
        found = minima(matrix, axis)
        away = [
            pattern.format(labels[i], labels[j]) for i, j in enumerate(found) if i != j and j >= 0
        ]
        text = f"{int((found == np.arange(len(found))).sum())} of {len(found)} {kind} minima"
        parts.append(text + (f" ({'; '.join(away)})" if away else ""))
    return " and ".join(parts) + " lie on the diagonal."


def _median(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    return number(float(np.median(finite)) if finite.size else math.nan)
