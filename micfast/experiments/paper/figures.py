"""The figures of the reproduction, drawn from the raw files and the paper's printed numbers.

Owns pictures and their captions. It computes means, minima and intervals, and runs no experiment.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast import plots
from micfast._io import atomic_path, load_arrays

if TYPE_CHECKING:
    import os

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from micfast.experiments.paper.tables import RawResults

__all__ = ["FIGURES", "FigureFile", "draw_figures"]

_DPI = 200
_WIDTH = 504.0  # points: 7 inches, the text width of a page, so that print doesn't shrink the fonts
_FONT, _SMALL = 8.5, 8.0
_OURS, _PAPER = plots._RIGHT, plots._WRONG
_INK, _MUTED, _FRAME = plots._INK, "#55606C", plots._FRAME
_MAP = "cividis"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": _SMALL,
    "axes.titlesize": _FONT,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": _SMALL,
    "xtick.labelsize": _SMALL,
    "ytick.labelsize": _SMALL,
    "legend.fontsize": _SMALL,
    "legend.frameon": False,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "grid.color": "#E3E7EB",
    "grid.linewidth": 0.6,
    # One input, one file: ids and letters must not depend on the day or on installed fonts.
    "svg.hashsalt": "micfast",
    "svg.fonttype": "path",
}

_DATA = {"mnist": "MNIST", "characters": "Characters"}
_SUBSETS = ("clustered", "random")


@dataclass(frozen=True)
class FigureFile:
    """One figure on disk.

    Attributes
    ----------
    name : str
        File name without suffix.
    title : str
    caption : str
        What is drawn and what it shows, in whole sentences.
    alt : str
        What a reader who can't see the picture needs to know.
    png, svg : pathlib.Path
    """

    name: str
    title: str
    caption: str
    alt: str
    png: Path
    svg: Path


@dataclass(frozen=True)
class _Drawing:
    fig: Figure
    title: str
    caption: str
    alt: str


def draw_figures(
    raw: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    only: Collection[str] | None = None,
) -> list[FigureFile]:
    """Draw every figure that the raw files allow, as PNG (200 dpi) and SVG.

    The same raw files give the same bytes, given one version of matplotlib.

    Parameters
    ----------
    raw : path-like
        Folder of the raw results.
    folder : path-like
        Where the pictures go; made if absent.
    only : collection of str, optional
        Names of figures or of experiments (``"figure7"``, ``"table13"``): draw what belongs to
        them alone. An experiment without a figure is no error.

    Returns
    -------
    list of FigureFile
        In the order of :data:`FIGURES`; figures without raw files are left out.

    Raises
    ------
    FileNotFoundError
        If ``raw`` isn't a folder.
    ValueError
        If a raw file can't be read or lacks something.
    TypeError
        If ``only`` is a string.

    Examples
    --------
    >>> files = draw_figures("results/raw", "results/figures", only=["figure7"])  # doctest: +SKIP
    """
    import matplotlib.style

    from micfast.experiments.paper.tables import load_raw

    raw, folder = Path(raw), Path(folder)
    if isinstance(only, str):
        raise TypeError(
            f"draw_figures: only must be a collection of names, got the string {only!r}"
        )
    if not raw.is_dir():
        raise FileNotFoundError(f"draw_figures: raw must be a folder of raw results, got {raw}")
    held = _Raw(raw, load_raw(raw))
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with matplotlib.style.context(["default", _STYLE]):
        for name, experiments in FIGURES.items():
            if only is not None and not {name, *experiments} & set(only):
                continue
            drawing = _DRAW[name](held)
            if drawing is not None:
                files.append(_write(name, drawing, folder))
    return files


def _write(name: str, drawing: _Drawing, folder: Path) -> FigureFile:
    png, svg = (folder / f"{name}.{suffix}" for suffix in ("png", "svg"))
    for path in (png, svg):
        with atomic_path(path) as temporary:
            metadata = {"Date": None} if path is svg else None
            drawing.fig.savefig(temporary, dpi=_DPI, facecolor="white", metadata=metadata)
    return FigureFile(name, drawing.title, drawing.caption, drawing.alt, png, svg)


# Reading raw files


def _arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray] | None:
    """All arrays of an archive, which must have these, None if there is no such file."""
    if not path.is_file():
        return None
    try:
        found = load_arrays(path)
    except ValueError as error:
        raise ValueError(f"draw_figures: {path} can't be read as an archive: {error}") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"draw_figures: {path} lacks {', '.join(missing)}")
    return found


@dataclass(frozen=True)
class _Raw:
    """The folder of raw results, and what its CSV files hold."""

    folder: Path
    results: RawResults

    @property
    def sets(self) -> list[tuple[str, str]]:
        """The pairs of data set and choice of types with full inversions, in the paper's order."""
        pairs = ((data, subset) for data in _DATA for subset in _SUBSETS)
        return [pair for pair in pairs if len(self.results.grid(*pair))]

    @property
    def n_seeds(self) -> int:
        return int(self.results.runs["seed"].nunique())


def _noise_name(setting: tuple[float, float]) -> str:
    return " / ".join(f"{level:g}" for level in setting)


def _training(arrays: dict[str, np.ndarray]) -> str:
    """How the modules of a picture were trained, as far as its file says so."""
    if not {"subset", "seed", "noise_in", "noise_out"} <= set(arrays):
        return ""
    noise = _noise_name((float(arrays["noise_in"]), float(arrays["noise_out"])))
    return (
        f" Modules trained on {arrays['subset']} types with noise {noise} (inputs / targets), "
        f"seed {arrays['seed']}."
    )


# Figures 5 and 6: reconstruction of unseen sequences


def _draw_reconstruction(raw: _Raw, data: str) -> _Drawing | None:
    names = ("types", "types_drawn", "targets", "targets_drawn")
    numbers = ("types_errors", "targets_errors", "targets_latents")
    arrays = _arrays(raw.folder / f"reconstruction-{data}.npz", ("label", *names, *numbers))
    if arrays is None:
        return None
    label = str(arrays["label"])
    sequences = [arrays[name] for name in names]
    painter = _painter(np.concatenate(sequences[::2]), np.concatenate(sequences[1::2]))
    n_columns, n_types = max(map(len, sequences)), arrays["targets_latents"].shape[1]
    names_width, margin, gap = 124.0, 8.0, 8.0
    w = min((_WIDTH - 4 * margin - names_width) / n_columns - gap, 84.0)
    h = w * painter.aspect
    # From the top: heading, two cards of two rows, each row with its number below.
    number, bars, head = 14.0, 50.0, 15.0
    heights = (h + 7, h + number, h + 7, h + number + bars)
    cards = [head + sum(heights[i : i + 2]) + margin for i in (0, 2)]
    page = _Page(sum(cards) + 3 * margin)
    texts = (
        ("Training types", "what the module\nlearned to draw"),
        ("Reproduction", "from each type's\none-hot vector;\ngrey: the type"),
        ("Unseen targets", "test sequences of\nthe same class"),
        (
            "Reconstruction",
            "from the type vector\nfound by inversion\n(bars: its parts);\ngrey: the target",
        ),
    )
    with_target = isinstance(painter, plots._PathPainter)
    errors = (None, arrays["types_errors"], None, arrays["targets_errors"])
    headings = (
        f"Module of class {label}: the {len(sequences[0])} sequences it was trained on",
        "Sequences that it never saw",
    )
    top = page.height - margin
    for row in range(4):
        if row % 2 == 0:
            card = plots._Box(margin, top - cards[row // 2], _WIDTH - 2 * margin, cards[row // 2])
            page.card(card)
            page.text(card.x + margin, top - 12, headings[row // 2], _FONT, bold=True, ha="left")
            top -= head + 3
        title, note = texts[row]
        note = note if with_target else note.split(";\ngrey")[0]
        page.text(2 * margin, top - 14, title, _FONT, bold=True, ha="left")
        page.text(2 * margin, top - 18, note, _SMALL, colour=_MUTED, ha="left", va="top")
        for column, sequence in enumerate(sequences[row]):
            x = 2 * margin + names_width + column * (w + gap)
            box = plots._Box(x, top - h, w, h)
            drawn = row % 2 == 1
            style = plots._Style(_OURS if drawn else _INK, _OURS if drawn else _INK, _FRAME)
            page.panel(painter, box, sequence, style, sequences[row - 1][column] if drawn else None)
            error = errors[row]
            if error is not None:
                text = f"MSE {_number(error[column])}"
                page.text(box.middle, box.y - 10, text, _SMALL)
            if row == 3:
                low = plots._Box(x, box.y - number - bars + 5, w, bars - 8)
                _bars(page, low, arrays["targets_latents"][column])
        top -= heights[row]
        if row % 2:
            top -= margin + margin - 3
    seen, unseen = (np.asarray(arrays[f"{part}_errors"], float) for part in ("types", "targets"))
    number_of = "Figure 5" if data == "mnist" else "Figure 6"
    what = "images, a row of pixels per time step" if data == "mnist" else "pen strokes, dot: start"
    caption = (
        f"{_DATA[data]} ({what}), class {label}. Top: the {len(sequences[0])} training types of "
        "the module and what it draws for their one-hot vectors "
        f"(mean squared error {_range(seen)}). Bottom: {len(sequences[2])} test sequences and the "
        f"reconstructions from the final type vectors z (mean squared error {_range(unseen)}); the "
        f"bars are the {n_types} parts of z, which add up to 1.{_training(arrays)}"
    )
    alt = (
        f"Two blocks of small pictures for class {label} of {_DATA[data]}. Training types above "
        f"their reproductions, with errors {_list(seen)}; unseen targets above their "
        f"reconstructions, with errors {_list(unseen)}, and a bar chart of each type vector."
    )
    title = f"{number_of}. Reconstruction of unseen sequences: {_DATA[data]}"
    return _Drawing(page.finish(), title, caption, alt)


def _bars(page: _Page, box: plots._Box, values: np.ndarray) -> None:
    """Parts of a type vector as bars between 0 and 1, with their numbers above."""
    width, room = box.w / len(values), box.h - 10
    for i, value in enumerate(np.asarray(values, float)):
        middle = box.x + (i + 0.5) * width
        height = room * float(np.clip(np.nan_to_num(value), 0, 1))
        page.bar(plots._Box(middle - 0.36 * width, box.y, 0.72 * width, height))
        # No leading zero: four numbers of readable size must stand side by side.
        text = f"{value:.2f}".removeprefix("0")
        page.text(middle, box.y + height + 2.5, text, _SMALL)
    page.line((box.x, box.x + box.w), (box.y, box.y))


def _range(values: np.ndarray) -> str:
    low, high = _number(values.min()), _number(values.max())
    return low if low == high else f"{low} to {high}"


def _list(values: np.ndarray) -> str:
    return ", ".join(map(_number, values))


def _number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if np.isfinite(value) else "invalid"


# Figure 3: the decision


def _draw_decision(raw: _Raw, data: str) -> _Drawing | None:
    names = ("label", "target", "labels", "drawn", "errors", "error_history")
    arrays = _arrays(raw.folder / f"decision-{data}.npz", names)
    if arrays is None:
        return None
    label, labels = str(arrays["label"]), [str(name) for name in arrays["labels"]]
    target, drawn, history = arrays["target"], arrays["drawn"], arrays["error_history"]
    errors = np.where(np.isnan(arrays["errors"]), np.inf, arrays["errors"].astype(float))
    order = np.argsort(errors, kind="stable")
    best = int(order[0])
    truth = labels.index(label) if label in labels else -1
    painter = _painter(target[None], drawn)

    margin, gap, target_w, head, foot = 8.0, 6.0, 112.0, 11.0, 13.0
    per_line = 5
    n_lines = math.ceil(len(labels) / per_line)
    room = _WIDTH - 4 * margin - target_w - 18
    w = min(room / per_line - gap, 70.0)
    h = w * painter.aspect
    line = head + h + foot + 6
    card_h = max(n_lines * line - 6, target_w * painter.aspect + head + 2 * foot) + 2 * margin
    legend_h, chart_h = 20.0, 205.0
    page = _Page(card_h + legend_h + chart_h + 2 * margin)
    card = plots._Box(margin, page.height - margin - card_h, _WIDTH - 2 * margin, card_h)
    page.card(card)
    th = target_w * painter.aspect
    box = plots._Box(card.x + margin, card.y + (card_h - th) / 2, target_w, th)
    page.panel(painter, box, target, plots._TARGET, None)
    page.text(box.middle, box.top + 4, f"target: {label}", _FONT, bold=True)
    right = best == truth
    mark, colour = (plots._TICK, _OURS) if right else (plots._CROSS, _PAPER)
    page.text(box.middle, box.y - 12, f"{mark} decided: {labels[best]}", _FONT, colour, bold=True)
    left = box.x + box.w + 18
    for module, name in enumerate(labels):
        row, column = divmod(module, per_line)
        y = card.top - margin - row * line - head - h
        style = plots._PLAIN
        if module == best:
            style = plots._DECIDED if right else plots._MISTAKEN
        elif module == truth:
            style = plots._MISSED
        if style is plots._PLAIN:
            style = plots._Style(_MUTED, plots._STROKE, _FRAME, with_target=False)
        panel = plots._Box(left + column * (w + gap), y, w, h)
        page.panel(painter, panel, drawn[module], style, target)
        page.text(panel.middle, panel.top + 2.5, name, _SMALL, style.text, style.bold)
        error = _number(arrays["errors"][module])
        page.text(panel.middle, panel.y - 9.5, error, _SMALL, style.text, style.bold)
    notes = ["solid frame: smallest error, the decision"]
    if not right and truth >= 0:
        notes.append("dashed frame: true class")
    if isinstance(painter, plots._PathPainter):
        notes.append("grey: target; dot: start")
    notes.append("numbers: mean squared error")
    page.text(margin + 2, card.y - 13, "   ".join(notes), _SMALL, _MUTED, ha="left")

    box = plots._Box(58, 36, _WIDTH - 58 - 62, chart_h - 46)
    _history(page.axes(box), box.h, history, labels, order, truth, right)
    second = f", before {labels[order[1]]} ({_list(errors[order[1:2]])})" if len(order) > 1 else ""
    verdict = "the true class" if right else f"a wrong decision: the true class is {label}"
    caption = (
        f"The decision for one {_DATA[data]} test sequence of class {label}. Above: what each of "
        f"the {len(labels)} modules draws after inversion, with its error; module {labels[best]} "
        f"has the smallest ({_list(errors[[best]])}){second}: {verdict}. Below: every module's "
        f"error over the {len(history) - 1} iterations (logarithmic scale).{_training(arrays)}"
    )
    alt = (
        f"Left the target of class {label}; right a grid of {len(labels)} reconstructions, that of "
        f"module {labels[best]} framed as the winner. Below, one falling line per module; the "
        f"winner's ends lowest at {_list(errors[[best]])}."
    )
    title = f"Figure 3. The decision for a target: {_DATA[data]}, class {label}"
    return _Drawing(page.finish(), title, caption, alt)


def _history(
    ax: Axes,
    height: float,
    history: np.ndarray,
    labels: list[str],
    order: np.ndarray,
    truth: int,
    right: bool,
) -> None:
    """Errors over iterations: the winner, the true class and the next best by name, others grey."""
    named = [int(module) for module in order[:3]]
    if truth >= 0 and truth not in named:
        named.append(truth)
    looks: dict[int, dict[str, Any]] = {m: {"color": _INK, "linewidth": 1.0} for m in named}
    if truth >= 0:
        looks[truth] = {"color": _OURS, "linewidth": 1.8, "linestyle": "--"}
    looks[named[0]] = {"color": _OURS if right else _PAPER, "linewidth": 2.0}
    for module in range(history.shape[1]):
        grey = {"color": "#AEB8C2", "linewidth": 0.8}
        ax.plot(history[:, module], **looks.get(module, grey), zorder=3 if module in looks else 2)
    ax.set(
        yscale="log", xlabel="iteration", ylabel="mean squared error", xlim=(0, len(history) - 1)
    )
    ax.grid(axis="y")
    _plain_log(ax.yaxis, *ax.get_ylim())
    low, high = np.log10(ax.get_ylim())
    last = {m: float(history[-1, m]) for m in named if history[-1, m] > 0}
    y = -math.inf
    # Lowest first, each at least a line above the one before.
    for module in sorted(last, key=lambda m: last[m]):
        y = max((math.log10(last[module]) - low) / (high - low), y + 11.0 / height)
        look = looks[module]
        ax.text(
            1.012,
            y,
            f"{labels[module]}" + (" (true)" if module == truth else ""),
            transform=ax.transAxes,
            va="center",
            color=look["color"],
            fontweight="bold" if module in (named[0], truth) else "normal",
            parse_math=False,
        )


def _plain_log(axis: Any, low: float, high: float) -> None:
    """Ticks of a logarithmic axis as plain numbers, several even where it is short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    long = high >= 8 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if long else MaxNLocator(6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


# Figure 7: cross-reconstruction


def _draw_cross(raw: _Raw) -> _Drawing | None:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    found = {}
    for data in _DATA:
        arrays = _arrays(raw.folder / f"cross-{data}.npz", ("labels", "train", "test"))
        if arrays is not None:
            found[data] = arrays
    if not found:
        return None
    size = (_WIDTH / 72, (30 + 262 * len(found)) / 72)
    fig = Figure(figsize=size, dpi=_DPI, facecolor="white", layout="constrained")
    grid = fig.subplots(len(found), 2, squeeze=False)
    captions, alts = [], []
    for row, (data, arrays) in enumerate(found.items()):
        labels = [str(name) for name in arrays["labels"]]
        matrices = {part: np.asarray(arrays[part], float) for part in ("train", "test")}
        values = np.concatenate([m[np.isfinite(m) & (m > 0)] for m in matrices.values()])
        low, high = (float(values.min()), float(values.max())) if values.size else (0.1, 1.0)
        high = high if high > low else 10 * low
        norm = LogNorm(low, high)
        for column, (part, matrix) in enumerate(matrices.items()):
            letter = "abcd"[2 * list(_DATA).index(data) + column]
            ax = grid[row, column]
            mesh = ax.pcolormesh(matrix, norm=norm, cmap=_MAP, edgecolors="none", rasterized=False)
            _mark_minima(ax, matrix)
            ticks = np.arange(len(labels)) + 0.5
            ax.set(
                aspect="equal",
                xlabel="class of the sequences",
                ylabel="module" if column == 0 else "",
                title=f"({letter}) {_DATA[data]}, {part}",
            )
            ax.set_xticks(ticks, labels)
            ax.set_yticks(ticks, labels)
            ax.tick_params(length=0)
            ax.invert_yaxis()
            ax.spines[:].set_visible(False)
            captions.append(
                f"({letter}) {_DATA[data]}, {_part(arrays, part)}: {_minima_text(matrix, labels)}"
            )
            own, others = _own_and_others(matrix)
            alts.append(
                f"({letter}) {_DATA[data]}, {part}: median error {_number(own)} on the "
                f"diagonal and {_number(others)} off it"
            )
        bar = fig.colorbar(mesh, ax=list(grid[row]), shrink=0.82, pad=0.015, aspect=28)
        bar.set_label("mean squared error (log scale)")
        _plain_log(bar.ax.yaxis, low, high)
        bar.outline.set_linewidth(0.5)
    handles = [_mark("o", 6.5), _mark(".", 4.5)]
    names = ["smallest of the row (module)", "smallest of the column (class)"]
    fig.legend(handles, names, loc="outside lower center", ncols=2)
    caption = (
        "Every module reconstructs sequences of every class: mean squared error after inversion, "
        "one colour scale per data set. Rings mark the class that a module redraws best, dots the "
        "module that redraws a class best. "
        + " ".join(captions)
        + _training(*list(found.values())[:1])
    )
    alt = "Heat maps of module by class. " + "; ".join(alts) + "."
    return _Drawing(fig, "Figure 7. Cross-reconstruction", caption, alt)


def _part(arrays: dict[str, np.ndarray], part: str) -> str:
    counts = arrays.get(f"n_{part}")
    if counts is None:
        return part
    least, most = int(counts.min()), int(counts.max())
    number = f"{most}" if least == most else f"{least} to {most}"
    return f"{part} ({number} sequences per class)"


def _mark(marker: str, size: float) -> Any:
    from matplotlib.lines import Line2D

    ring = marker == "o"
    return Line2D(
        [],
        [],
        linestyle="none",
        marker="o",
        markersize=size,
        markerfacecolor="none" if ring else _INK,
        markeredgecolor=_INK,
        markeredgewidth=1.1 if ring else 0,
    )


def _mark_minima(ax: Axes, matrix: np.ndarray) -> None:
    """A ring where a row is smallest, a dot where a column is; white with a dark edge."""
    from matplotlib.patheffects import withStroke

    by_row, by_column = _minima(matrix)
    size = float(np.clip(90 / len(matrix), 4.4, 8.0))
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "zorder": 3}
    rows, columns = (np.flatnonzero(found >= 0) for found in (by_row, by_column))
    (ring,) = ax.plot(
        by_row[rows] + 0.5,
        rows + 0.5,
        markersize=size,
        markerfacecolor="none",
        markeredgecolor="white",
        markeredgewidth=1.0,
        **look,
    )
    ring.set_path_effects([withStroke(linewidth=2.0, foreground="black")])
    ax.plot(
        columns + 0.5,
        by_column[columns] + 0.5,
        markersize=0.42 * size,
        markerfacecolor="white",
        markeredgecolor="black",
        markeredgewidth=0.5,
        **look,
    )


def _minima(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column of each row's minimum, row of each column's; -1 where all is NaN."""
    finite = np.where(np.isfinite(matrix), matrix, np.inf)
    return tuple(
        np.where(np.isinf(finite).all(axis=axis), -1, finite.argmin(axis=axis)) for axis in (1, 0)
    )  # type: ignore[return-value]


def _minima_text(matrix: np.ndarray, labels: list[str]) -> str:
    """How many row and column minima lie on the diagonal, and where the others lie."""
    parts = []
    words = (("row", "module {0} redraws {1} best"), ("column", "{0} is redrawn best by {1}"))
    for (kind, pattern), found in zip(words, _minima(matrix), strict=True):
        away = [
            pattern.format(labels[i], labels[j]) for i, j in enumerate(found) if i != j and j >= 0
        ]
        text = f"{int((found == np.arange(len(found))).sum())} of {len(found)} {kind} minima"
        parts.append(text + (f" ({'; '.join(away)})" if away else ""))
    return " and ".join(parts) + " lie on the diagonal."


def _own_and_others(matrix: np.ndarray) -> tuple[float, float]:
    """Median error on the diagonal and off it."""
    own = np.eye(len(matrix), dtype=bool)
    parts = (matrix[own & np.isfinite(matrix)], matrix[~own & np.isfinite(matrix)])
    own_errors, others = (float(np.median(p)) if p.size else math.nan for p in parts)
    return own_errors, others


# Accuracy over the noise grid


def _draw_noise(raw: _Raw) -> _Drawing | None:
    from matplotlib.figure import Figure

    from micfast.experiments.paper import published
    from micfast.experiments.paper.statistics import prediction_interval

    grids = {pair: raw.results.grid(*pair) for pair in raw.sets}
    if not grids:
        return None
    rows = [data for data in _DATA if any(data == d for d, _ in grids)]
    columns = [subset for subset in _SUBSETS if any(subset == s for _, s in grids)]
    longest = max(grid.shape[1] for grid in grids.values())
    height = len(rows) * (14.0 * longest + 44) + 40
    fig = Figure(figsize=(_WIDTH / 72, height / 72), dpi=_DPI, layout="constrained")
    axes = fig.subplots(len(rows), len(columns), squeeze=False, sharex=True)
    n_outside = n_compared = 0
    for data, subset in [(d, s) for d in rows for s in columns]:
        ax = axes[rows.index(data), columns.index(subset)]
        if (data, subset) not in grids:
            ax.set_visible(False)
            continue
        grid = grids[data, subset]
        paper = _by_setting(published.noise_grid(data, subset), "overall")
        for y, setting in enumerate(grid):
            values = grid[setting].dropna()
            _dots(ax, values, y - 0.13, runs=True)
            printed = paper.get(setting)
            if printed is None or not len(values):
                continue
            _hollow(ax, printed, y + 0.24)
            expected = prediction_interval(values)
            if np.isfinite(expected.low):
                n_compared += 1
                n_outside += not expected.low <= printed <= expected.high
        _name_settings(ax, list(grid), first=columns.index(subset) == 0)
        ax.set_title(f"{_DATA[data]}, {subset} types")
        ax.grid(axis="x")
    for ax in axes[-1]:
        ax.set_xlabel("accuracy")
        ax.tick_params(labelbottom=True)
    _seed_legend(fig, raw.n_seeds)
    caption = (
        "Accuracy after inversion over the noise settings (on inputs / on targets during "
        f"training): ours over {_count(raw.n_seeds, 'seed')} and the paper's single run."
    )
    if n_compared:
        caption += (
            " Thick lines: 95 % interval of the mean; thin lines: where 95 % of single runs are "
            f"expected, which leaves out {n_outside} of the paper's {n_compared} accuracies."
        )
    means = "; ".join(
        f"{_DATA[d]} {s}: {np.nanmean(grid.to_numpy()):.3f}" for (d, s), grid in grids.items()
    )
    alt = f"Dot plots, one per data set and choice of types. Mean accuracy of ours: {means}."
    return _Drawing(fig, "Accuracy over the noise grid", caption, alt)


def _by_setting(frame: pd.DataFrame, column: str) -> dict[tuple[float, float], float]:
    keys = zip(frame["noise_in"], frame["noise_out"], strict=True)
    return dict(zip(keys, frame[column], strict=True))


def _dots(
    ax: Axes,
    values: Sequence[float] | pd.Series,
    y: float,
    colour: str = _OURS,
    *,
    runs: bool = False,
) -> None:
    """Seeds as faint dots, their mean with its interval on top.

    With ``runs`` a thin line shows where another single run would fall.
    """
    from micfast.experiments.paper.statistics import mean_interval, prediction_interval

    if not len(values):
        return
    if len(values) > 1:
        look: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0, "alpha": 0.35}
        ax.plot(values, np.full(len(values), y), marker="o", markersize=3.4, color=colour, **look)
        if runs:
            expected = prediction_interval(values)
            ax.plot([expected.low, expected.high], [y, y], color=colour, linewidth=0.8)
    mean = mean_interval(values)
    ax.plot([mean.low, mean.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
    ax.plot(mean.estimate, y, marker="|", markersize=7.5, color=colour, markeredgewidth=2.0)


def _hollow(ax: Axes, value: float, y: float, colour: str = _PAPER) -> None:
    ax.plot(
        value,
        y,
        marker="D",
        markersize=4.4,
        markerfacecolor="white",
        markeredgecolor=colour,
        markeredgewidth=1.2,
        linestyle="none",
        zorder=4,
    )


def _mean_key(colour: str = _OURS) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=colour, linewidth=2.2, marker="|", markersize=7.5, markeredgewidth=2.0
    )


def _paper_key(colour: str = _PAPER) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        linestyle="none",
        marker="D",
        markersize=4.4,
        markerfacecolor="white",
        markeredgecolor=colour,
        markeredgewidth=1.2,
    )


def _seed_legend(fig: Figure, n_seeds: int) -> None:
    from matplotlib.lines import Line2D

    entries: list[tuple[Any, str]] = [(_paper_key(), "paper (one run)")]
    if n_seeds > 1:
        dot = Line2D([], [], linestyle="none", marker="o", markersize=3.4, color=_OURS, alpha=0.45)
        names = ("ours, one seed", "ours, mean with 95 % interval")
        entries = [*zip((dot, _mean_key()), names, strict=True), *entries]
    else:
        key = Line2D([], [], linestyle="none", marker="|", color=_OURS, markeredgewidth=2.0)
        entries.insert(0, (key, "ours, one seed"))
    fig.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=len(entries))


def _name_settings(ax: Axes, settings: list[tuple[float, float]], first: bool) -> None:
    ax.set_yticks(range(len(settings)), [_noise_name(setting) for setting in settings])
    ax.set_ylim(len(settings) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    if first:
        ax.set_ylabel("noise on inputs / on targets")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


# 0 against 50 iterations


def _draw_iterations(raw: _Raw) -> _Drawing | None:
    from matplotlib.figure import Figure

    from micfast.experiments.paper import published

    n_iter, printed = raw.results.n_iter, published.iterations()
    grids = {
        (*pair, column, n): raw.results.grid(*pair, n_iter=n, value=column)
        for pair in raw.sets
        for column in ("accuracy", "mse")
        for n in (0, n_iter)
    }
    sets = [pair for pair in raw.sets if len(grids[*pair, "accuracy", 0])]
    if not sets or not n_iter:
        return None
    longest = max(grids[*pair, "accuracy", n_iter].shape[1] for pair in sets)
    height = len(sets) * (12.0 * longest + 40) + 50
    fig = Figure(figsize=(_WIDTH / 72, height / 72), dpi=_DPI, layout="constrained")
    axes = fig.subplots(len(sets), 2, squeeze=False)
    sentences = []
    for row, (data, subset) in enumerate(sets):
        paper = printed[(printed["data"] == data) & (printed["subset"] == subset)]
        settings = list(grids[data, subset, "accuracy", n_iter])
        for ax, column in zip(axes[row], ("accuracy", "mse"), strict=True):
            for n, shown, colour in ((0, 0, _MUTED), (n_iter, 50, _OURS)):
                grid = grids[data, subset, column, n]
                values = _by_setting(paper, f"{column}_{shown}")
                for y, setting in enumerate(settings):
                    if setting in grid:
                        _dots(ax, grid[setting].dropna(), y - 0.13, colour)
                    if setting in values:
                        _hollow(ax, values[setting], y + 0.24, colour)
            _name_settings(ax, settings, first=False)
            ax.grid(axis="x")
        axes[row, 0].set_title(f"{_DATA[data]}, {subset} types")
        axes[row, 1].tick_params(labelleft=False)
        a0, a1, m0, m1 = (
            np.nanmean(grids[data, subset, column, n].to_numpy())
            for column in ("accuracy", "mse")
            for n in (0, n_iter)
        )
        sentences.append(
            f"{_DATA[data]} {subset}: accuracy {a0:.3f} to {a1:.3f}, "
            f"error {_number(m0)} to {_number(m1)}"
        )
    axes[-1, 0].set_xlabel("accuracy")
    axes[-1, 1].set_xlabel("mean squared error of the true class's module")
    _share_limits(list(axes[:, 0]))
    for data in _DATA:
        # Errors of the two data sets differ by a factor of five or so.
        _share_limits([ax for ax, (d, _) in zip(axes[:, 1], sets, strict=True) if d == data], 0.0)
    fig.supylabel("noise on inputs / on targets", fontsize=_SMALL)
    fig.legend(
        [_mean_key(_MUTED), _mean_key(), _paper_key(_MUTED), _paper_key(_OURS)],
        ["ours, 0 iterations", f"ours, {n_iter} iterations", "paper, 0", "paper, 50"],
        loc="outside lower center",
        ncols=4,
    )
    caption = (
        f"What inversion adds: accuracy (left) and error (right) before it, with the even type "
        f"vector, and after {n_iter} iterations; ours with the mean of "
        f"{_count(raw.n_seeds, 'seed')} and its 95 % interval, the paper's single run hollow "
        f"(Table 13 as printed). Means over the noise settings: {'; '.join(sentences)}."
    )
    alt = f"Dot plots by data set and noise setting. {'; '.join(sentences)}."
    return _Drawing(fig, f"0 against {n_iter} iterations", caption, alt)


def _share_limits(axes: Sequence[Axes], low: float | None = None) -> None:
    limits = np.array([ax.get_xlim() for ax in axes]).reshape(-1, 2)
    for ax in axes:
        ax.set_xlim(limits[:, 0].min() if low is None else low, limits[:, 1].max())


# Accuracy per class over the noise grid


def _draw_classes(raw: _Raw, data: str) -> _Drawing | None:
    from matplotlib.figure import Figure

    from micfast.experiments.paper import published

    classes = raw.results.classes
    classes = classes[(classes["data"] == data) & (classes["n_iter"] == raw.results.n_iter)]
    if not len(classes) or not raw.results.n_iter:
        return None
    labels = sorted(classes["label"].unique())
    panels: list[tuple[str, list[tuple[float, float]], np.ndarray]] = []
    sentences = []
    for subset in _SUBSETS:
        here = classes[classes["subset"] == subset]
        if not len(here):
            continue
        mean = here.groupby(["noise_in", "noise_out", "label"])["accuracy"].mean().unstack()
        settings, ours = list(mean.index), mean.reindex(columns=labels).to_numpy(float)
        grid = published.noise_grid(data, subset).set_index(["noise_in", "noise_out"])
        theirs = grid.reindex(index=settings, columns=labels).to_numpy(float)
        panels.append((f"{subset} types, ours", settings, ours))
        panels.append((f"{subset} types, paper", settings, theirs))
        overall = np.nanmean(ours, axis=0)
        hardest = ", ".join(
            f"{labels[i]} ({100 * overall[i]:.0f} %)" for i in np.argsort(overall)[:3]
        )
        sentences.append(f"{subset} types: hardest for ours {hardest}")
    n_lines = sum(len(settings) for _, settings, _ in panels)
    size = _WIDTH / 72, (14.5 * n_lines + 34 * len(panels) + 62) / 72
    fig = Figure(figsize=size, dpi=_DPI, layout="constrained")
    ratios = [len(settings) for _, settings, _ in panels]
    axes = fig.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for ax, (title, settings, values) in zip(axes, panels, strict=True):
        mesh = ax.pcolormesh(
            100 * np.ma.masked_invalid(values), cmap=_MAP, vmin=0, vmax=100, edgecolors="none"
        )
        ax.set_facecolor("#E9ECEF")
        for (y, x), value in np.ndenumerate(values):
            if np.isfinite(value):
                ink = "white" if value < 0.48 else "black"
                ax.text(x + 0.5, y + 0.5, f"{100 * value:.0f}", ha="center", va="center", color=ink)
        ax.set_xticks(np.arange(len(labels)) + 0.5, labels)
        ax.set_yticks(np.arange(len(settings)) + 0.5, [_noise_name(s) for s in settings])
        ax.tick_params(length=0)
        ax.invert_yaxis()
        ax.spines[:].set_visible(False)
        ax.set_title(f"{_DATA[data]}, {title}")
    axes[-1].set_xlabel("class")
    fig.supylabel("noise on inputs / on targets", fontsize=_SMALL)
    bar = fig.colorbar(
        mesh, ax=list(axes), orientation="horizontal", aspect=50, pad=0.01, shrink=0.6
    )
    bar.set_label("accuracy in %")
    bar.outline.set_linewidth(0.5)
    unprinted = [label for label in labels if np.isnan(panels[1][2][:, labels.index(label)]).all()]
    missing = f" The paper doesn't print {', '.join(unprinted)} (grey)." if unprinted else ""
    caption = (
        f"Accuracy per class over the noise settings, in %: ours (mean of "
        f"{_count(raw.n_seeds, 'seed')}) above the paper's single run. "
        f"{'; '.join(sentences).capitalize()}.{missing}"
    )
    alt = f"Heat maps, noise setting by class, with numbers. {'; '.join(sentences)}."
    return _Drawing(fig, f"Accuracy per class: {_DATA[data]}", caption, alt)


# All methods beside each other


_FORWARD = {"keras-lstm": "forward LSTM (Keras)", "torch-lstm": "forward LSTM (torch)"}
_BASELINES = {
    "1nn-euclidean": "1-NN, Euclidean",
    "1nn-dtw": "1-NN, DTW",
    "minirocket": "MiniRocket + ridge",
}
# The paper's key -> ours; the last one is not the paper's.
_MIC = {
    "base": "MIC, no noise",
    "best": "MIC, best noise (paper's way)",
    "held": "MIC, best noise (held out)",
}


def _draw_comparison(raw: _Raw) -> _Drawing | None:
    from matplotlib.figure import Figure

    ours = _method_values(raw.results)
    if not any(method not in _MIC.values() for _, _, method in ours):
        # With MIC alone there is nothing to compare.
        return None
    paper = _method_printed()
    datas = [data for data in _DATA if any(data == d for d, _, _ in ours)]
    lines = [
        (subset, method)
        for subset in (*_SUBSETS, "full")
        for method in (*_MIC.values(), *_FORWARD.values(), *_BASELINES.values())
        if any((data, subset, method) in ours for data in datas)
    ]
    titles = {
        "clustered": "4 clustered types per class",
        "random": "4 random types per class",
        "full": "all training sequences",
    }
    positions, headings, y = {}, {}, 0.0
    for subset, method in lines:
        if subset not in headings:
            headings[subset] = y + 0.15
            y += 1.0
        positions[subset, method] = y
        y += 1.0
    height = 15.5 * y + 70
    fig = Figure(figsize=(_WIDTH / 72, height / 72), dpi=_DPI, layout="constrained")
    axes = fig.subplots(1, len(datas), squeeze=False, sharey=True, sharex=True)[0]
    sentences = []
    for column, (ax, data) in enumerate(zip(axes, datas, strict=True)):
        best: dict[str, tuple[float, str]] = {}
        for (subset, method), at in positions.items():
            values = ours.get((data, subset, method))
            if values is not None:
                _dots(ax, values, at - 0.1)
                if method != _MIC["best"]:
                    found = (float(values.mean()), method)
                    best[subset] = max(best.get(subset, found), found)
            printed = paper.get((data, subset, method))
            if printed is not None:
                _hollow(ax, printed, at + 0.24)
        for subset, at in headings.items():
            if at > 1:
                ax.axhline(at - 0.75, color=_FRAME, linewidth=0.8)
            if column == 0:
                # At the names' right edge: a heading for them.
                ax.annotate(
                    titles[subset],
                    (0, at),
                    xycoords=ax.get_yaxis_transform(),
                    xytext=(-4, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontweight="bold",
                )
        ax.set_title(_DATA[data])
        ax.set_xlabel("accuracy")
        ax.grid(axis="x")
        highest = "; ".join(
            f"{method} on {titles[subset]} ({value:.3f})"
            for subset, (value, method) in best.items()
        )
        sentences.append(f"Highest mean, {_DATA[data]}: {highest}")
    axes[0].set_yticks(list(positions.values()), [method for _, method in positions])
    axes[0].set_ylim(y - 0.4, -0.6)
    for ax in axes:
        ax.tick_params(axis="y", length=0)
    n_seeds = max(len(values) for values in ours.values())
    _seed_legend(fig, n_seeds)
    caption = (
        "All methods on the same test sequences; not all have run over the same number of seeds. "
        "“Best noise (paper's way)” is the highest of the nine accuracies of a run, “held out” the "
        f"accuracy at the setting that is best for the other seeds. {'. '.join(sentences)}."
    )
    alt = f"Dot plot of accuracies by method. {'. '.join(sentences)}."
    return _Drawing(fig, "All methods beside each other", caption, alt)


def _method_values(results: RawResults) -> dict[tuple[str, str, str], np.ndarray]:
    """(data, subset, method) -> accuracies of the seeds."""
    from micfast.experiments.paper.tables import held_out_best

    found = {}
    for data in _DATA:
        for subset in (*_SUBSETS, "full"):
            grid = results.grid(data, subset)
            several = grid.dropna() if grid.shape[1] > 1 else grid.iloc[:0]
            values = {
                _MIC["base"]: results.base(data, subset),
                _MIC["best"]: several.max(axis=1),
                _MIC["held"]: held_out_best(several),
            } | {
                name: results.method(method, data, subset)["accuracy"]
                for method, name in (_FORWARD | _BASELINES).items()
            }
            for name, accuracies in values.items():
                if len(accuracies):
                    found[data, subset, name] = accuracies.to_numpy(float)
    return found


def _method_printed() -> dict[tuple[str, str, str], float]:
    """The paper's figures; its forward classification is Keras's, from Table 5."""
    from micfast.experiments.paper import published

    printed = {
        (row.data, row.subset, _FORWARD["keras-lstm"]): row.accuracy
        for row in published.forward().itertuples()
    }
    for row in published.comparison().itertuples():
        for key, name in _MIC.items():
            if row.method.endswith(f"(MIC {key})"):
                printed[row.data, row.method.split()[0], name] = row.accuracy
    return printed


# Pages drawn in points


class _Page:
    """A figure of the text's width; positions are points from the lower left corner."""

    def __init__(self, height: float) -> None:
        from matplotlib.figure import Figure

        self.height = height
        self._fig = Figure(figsize=(_WIDTH / 72, height / 72), dpi=_DPI, facecolor="white")
        self._ax = self._fig.add_axes((0.0, 0.0, 1.0, 1.0))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        colour: str = _INK,
        bold: bool = False,
        ha: str = "center",
        va: str = "baseline",
    ) -> None:
        plots._write(self._ax, x, y, text, size, colour, bold, ha, va)

    def card(self, box: plots._Box) -> None:
        style = plots._Style(_INK, _INK, plots._CARD, plots._CARD)
        plots._frame(self._ax, box, style, radius=5.0)

    def panel(
        self,
        painter: plots._Painter,
        box: plots._Box,
        sequence: np.ndarray,
        style: plots._Style,
        target: np.ndarray | None,
    ) -> None:
        clip = plots._frame(self._ax, box, style)
        painter.paint(self._ax, clip, box, sequence, style, target)

    def bar(self, box: plots._Box) -> None:
        from matplotlib.patches import Rectangle

        self._ax.add_patch(Rectangle((box.x, box.y), box.w, box.h, color=_OURS, linewidth=0))

    def line(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self._ax.plot(x, y, color=_MUTED, linewidth=0.7)

    def axes(self, box: plots._Box) -> Axes:
        """Ordinary axes whose frame is the box."""
        w, h = _WIDTH, self.height
        return self._fig.add_axes((box.x / w, box.y / h, box.w / w, box.h / h))

    def finish(self) -> Figure:
        # Last, because drawing changes the limits.
        self._ax.set(xlim=(0, _WIDTH), ylim=(0, self.height), aspect="auto")
        self._ax.set_axis_off()
        return self._fig


def _painter(targets: np.ndarray, drawn: np.ndarray) -> plots._Painter:
    """The painter of :mod:`micfast.plots` for sequences (n, T, O), one scale for all of them."""
    none = np.zeros(0, dtype=np.int64)
    rows = plots._Rows(targets, drawn[:, None], none, none, None, None, [])
    return plots._painter(plots._resolve_kind("auto", targets.shape[2]), rows)


#: Figure -> experiments that it belongs to.
FIGURES: dict[str, tuple[str, ...]] = {
    "figure3-mnist": ("figure3",),
    "figure3-characters": ("figure3",),
    "figure5": ("figure5",),
    "figure6": ("figure6",),
    "figure7": ("figure7",),
    "noise-accuracy": ("table2", "table7", "table8", "table9"),
    "iterations": ("table4", "table13"),
    "classes-mnist": ("table2", "table7"),
    "classes-characters": ("table8", "table9"),
    "comparison": ("table5", "table6", "beyond"),
}

_DRAW: dict[str, Callable[[_Raw], _Drawing | None]] = {
    "figure3-mnist": functools.partial(_draw_decision, data="mnist"),
    "figure3-characters": functools.partial(_draw_decision, data="characters"),
    "figure5": functools.partial(_draw_reconstruction, data="mnist"),
    "figure6": functools.partial(_draw_reconstruction, data="characters"),
    "figure7": _draw_cross,
    "noise-accuracy": _draw_noise,
    "iterations": _draw_iterations,
    "classes-mnist": functools.partial(_draw_classes, data="mnist"),
    "classes-characters": functools.partial(_draw_classes, data="characters"),
    "comparison": _draw_comparison,
}
