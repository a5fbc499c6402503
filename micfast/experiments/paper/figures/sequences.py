"""Figures 3, 5 and 6: what modules draw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from micfast.experiments.paper.figures.common import (
    DATA,
    OURS,
    PAPER,
    Drawing,
    how_trained,
    new_figure,
    number,
    numbers,
    plain_log,
)
from micfast.plotting import drawing

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

__all__ = ["draw_decision", "draw_reconstruction"]

_WORDS = 9.0  # points; the numbers below a panel are a tenth smaller
_PER_LINE = 5


def _brush(rows: list[tuple[np.ndarray, np.ndarray]]) -> drawing.Brush:
    """One way of drawing and one scale for targets (T, O), each with reconstructions (M, T, O)."""
    kind = drawing.resolve_kind("draw_figures", "auto", rows[0][0].shape[1])
    return drawing.Brush.of(kind, rows, weight=0.7)


# -- Figures 5 and 6 -----------------------------------------------------------------------------


def draw_reconstruction(arrays: dict[str, np.ndarray], data: str) -> Drawing:
    """A class's types and unseen sequences, each above what its module draws."""
    label = str(arrays["label"])
    types, targets = arrays["types"], arrays["targets"]
    brush = _brush(
        [
            (target, drawn[None])
            for part in ("types", "targets")
            for target, drawn in zip(arrays[part], arrays[f"{part}_drawn"], strict=True)
        ]
    )
    n, behind = max(len(types), len(targets)), brush.kind == "path"
    fig = new_figure(1.55 + 4 * 1.12 * brush.aspect)
    row_heights = [1.0, 1.0, 0.35 / brush.aspect]
    blocks: Any = fig.subfigures(2, 1, height_ratios=[sum(row_heights[:2]), sum(row_heights)])
    for block, part, heading, titles in (
        (
            blocks[0],
            "types",
            f"Module of class {label}: the {len(types)} sequences it was trained on",
            ("Training types", "Reproduction\nfrom each type's\none-hot vector"),
        ),
        (
            blocks[1],
            "targets",
            "Sequences that it never saw",
            ("Unseen targets", "Reconstruction\nfrom the type vector\nfound by inversion"),
        ),
    ):
        block.suptitle(heading, x=0.01, ha="left")
        block.set_facecolor(drawing.CARD)
        n_rows = 3 if part == "targets" else 2
        axes = block.subplots(
            n_rows, n, squeeze=False, gridspec_kw={"height_ratios": row_heights[:n_rows]}
        )
        for i in range(n):
            if i >= len(arrays[part]):
                for ax in axes[:, i]:
                    ax.set_visible(False)
                continue
            target, drawn = arrays[part][i], arrays[f"{part}_drawn"][i]
            error = f"MSE {number(arrays[f'{part}_errors'][i])}"
            brush.draw(axes[0, i], None, target, drawing.TARGET)
            drawing.finish_panel(axes[0, i], brush, drawing.TARGET, "", "", _WORDS)
            style = drawing.Style("drawn", drawing.INK, OURS, drawing.FRAME)
            brush.draw(axes[1, i], target if behind else None, drawn, style)
            drawing.finish_panel(axes[1, i], brush, style, "", error, _WORDS)
            if part == "targets":
                _draw_bars(axes[2, i], arrays["targets_latents"][i])
        for ax, title in zip(axes[:, 0], titles, strict=False):
            ax.set_ylabel(title, rotation=0, ha="right", va="center")
    seen, unseen = (np.asarray(arrays[f"{part}_errors"], float) for part in ("types", "targets"))
    number_of = "Figure 5" if data == "mnist" else "Figure 6"
    what = "images, a row of pixels per time step" if data == "mnist" else "pen strokes, dot: start"
    caption = (
        f"{DATA[data]} ({what}), class {label}. Top: the {len(types)} training types of "
        "the module and what it draws for their one-hot vectors "
        f"(mean squared error {_range(seen)}). Bottom: {len(targets)} test sequences and the "
        f"reconstructions from the final type vectors z (mean squared error {_range(unseen)}); the "
        f"bars are the {arrays['targets_latents'].shape[1]} parts of z, which add up to 1."
        f"{' Grey: the type or target.' if behind else ''}{how_trained(arrays)}"
    )
    alt = (
        f"Two blocks of small pictures for class {label} of {DATA[data]}. Training types above "
        f"their reproductions, with errors {numbers(seen)}; unseen targets above their "
        f"reconstructions, with errors {numbers(unseen)}, and a bar chart of each type vector."
    )
    title = f"{number_of}. Reconstruction of unseen sequences: {DATA[data]}"
    return Drawing(fig, title, caption, alt)


def _draw_bars(ax: Any, latent: np.ndarray) -> None:
    """Parts of a type vector as bars between 0 and 1, with their numbers above."""
    bars = ax.bar(range(len(latent)), np.nan_to_num(latent), width=0.7, color=OURS)
    # No leading zero: four numbers of readable size must stand side by side.
    ax.bar_label(bars, [f"{value:.2f}".removeprefix("0") for value in latent], padding=1)
    ax.set(ylim=(0, 1.45), xticks=[], yticks=[], facecolor="none")
    ax.spines[["top", "left", "right"]].set_visible(False)


def _range(values: np.ndarray) -> str:
    low, high = number(values.min()), number(values.max())
    return low if low == high else f"{low} to {high}"


# -- Figure 3 ------------------------------------------------------------------------------------


def draw_decision(arrays: dict[str, np.ndarray], data: str) -> Drawing:
    """One target, what every module draws for it, and all errors over the iterations."""
    label, labels = str(arrays["label"]), [str(name) for name in arrays["labels"]]
    target, drawn, history = arrays["target"], arrays["drawn"], arrays["error_history"]
    errors = np.where(np.isnan(arrays["errors"]), np.inf, arrays["errors"].astype(float))
    order = np.argsort(errors, kind="stable")
    best, truth = int(order[0]), labels.index(label) if label in labels else -1
    right = best == truth
    brush = _brush([(target, drawn)])

    n_lines = math.ceil(len(labels) / _PER_LINE)
    height = n_lines * (0.85 * brush.aspect + 0.42) + 0.3
    fig = new_figure(height + 2.7)
    upper, lower = cast(
        "tuple[SubFigure, SubFigure]", fig.subfigures(2, 1, height_ratios=[height, 2.7])
    )
    upper.set_facecolor(drawing.CARD)
    cells = upper.add_gridspec(n_lines, _PER_LINE + 1, width_ratios=[1.8, *[1] * _PER_LINE])
    ax = upper.add_subplot(cells[:, 0])
    brush.draw(ax, None, target, drawing.TARGET)
    mark, colour = ("\N{CHECK MARK}", OURS) if right else ("\N{BALLOT X}", PAPER)
    drawing.finish_panel(
        ax, brush, drawing.TARGET, f"target: {label}", f"{mark} decided: {labels[best]}", _WORDS
    )
    ax.xaxis.label.set_color(colour)
    for module, name in enumerate(labels):
        line, column = divmod(module, _PER_LINE)
        ax = upper.add_subplot(cells[line, column + 1])
        style = drawing.style_of(module, best, truth)
        brush.draw(ax, target if brush.kind == "path" else None, drawn[module], style)
        drawing.finish_panel(ax, brush, style, name, number(arrays["errors"][module]), _WORDS)
    notes = ["thick frame: smallest error, the decision"]
    notes += ["dashed frame: true class"] * (not right and truth >= 0)
    notes += ["grey: target; dot: start"] * (brush.kind == "path")
    notes.append("numbers: mean squared error")
    upper.supxlabel("   ".join(notes), color=drawing.MUTED)
    _draw_history(lower.subplots(), history, labels, order, truth, right)

    second = f", before {labels[order[1]]} ({numbers(errors[order[1:2]])})" * (len(order) > 1)
    verdict = "the true class" if right else f"a wrong decision: the true class is {label}"
    caption = (
        f"The decision for one {DATA[data]} test sequence of class {label}. Above: what each of "
        f"the {len(labels)} modules draws after inversion, with its error; module {labels[best]} "
        f"has the smallest ({number(errors[best])}){second}: {verdict}. Below: every module's "
        f"error over the {len(history) - 1} iterations (logarithmic scale).{how_trained(arrays)}"
    )
    alt = (
        f"Left the target of class {label}; right a grid of {len(labels)} reconstructions, that of "
        f"module {labels[best]} framed as the winner. Below, one falling line per module; the "
        f"winner's ends lowest at {number(errors[best])}."
    )
    title = f"Figure 3. The decision for a target: {DATA[data]}, class {label}"
    return Drawing(fig, title, caption, alt)


def _draw_history(
    ax: Any, history: np.ndarray, labels: list[str], order: np.ndarray, truth: int, right: bool
) -> None:
    """Errors over iterations: the winner, the next best and the true class by name, others grey."""
    named = {int(module): {"color": drawing.INK, "linewidth": 1.0} for module in order[:3]}
    if truth >= 0:
        named[truth] = {"color": OURS, "linewidth": 1.8, "linestyle": "--"}
    named[int(order[0])] = {"color": OURS if right else PAPER, "linewidth": 2.0}
    for module in range(history.shape[1]):
        grey: dict[str, Any] = {"color": "#AEB8C2", "linewidth": 0.8}
        ax.plot(history[:, module], zorder=2 + (module in named), **named.get(module, grey))
    ax.set(
        yscale="log", xlabel="iteration", ylabel="mean squared error", xlim=(0, len(history) - 1)
    )
    ax.grid(axis="y")
    ax.spines[["top", "right"]].set_visible(False)
    plain_log(ax.yaxis, *ax.get_ylim())
    ranked = sorted(named, key=lambda module: list(order).index(module), reverse=True)
    ax.legend(
        [ax.lines[module] for module in ranked],
        [labels[module] + " (true)" * (module == truth) for module in ranked],
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
