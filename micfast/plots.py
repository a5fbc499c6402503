"""Pictures of inversions: what each module drew for a target, and which one was believed.

Figures are built with matplotlib's object interface alone: no pyplot, no global state, no display.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from micfast._io import atomic_path
from micfast._ragged import ragged_to_padded, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

__all__ = ["choose_examples", "plot_reconstructions", "save_figure"]

# Okabe and Ito's blue and vermilion: told apart by colour-blind readers, and in print.
_RIGHT, _RIGHT_FILL = "#0072B2", "#EAF3F9"
_WRONG, _WRONG_FILL = "#D55E00", "#FCF0E8"
_INK, _STROKE, _MUTED, _GHOST = "#1C2733", "#4A5765", "#66727F", "#C4CCD5"
_FRAME, _CARD = "#D9DEE4", "#F5F7F9"
_CHANNELS = ("#4A5765", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SMALLEST_FONT = 5.2
_TICK, _CROSS = "\N{CHECK MARK}", "\N{BALLOT X}"
_FONT = "DejaVu Sans"  # ships with matplotlib, so the picture is the same everywhere

# Lengths in points (1/72 inch); the figure is 8 inches at 200 dpi, 1600 pixels wide.
_DPI = 200
_WIDTH = 576.0
_MARGIN, _PAD, _GAP, _TARGET_GAP = 7.0, 8.0, 4.5, 13.0
_HEAD, _FOOT = 11.5, 10.5  # class label above a panel, error below it
_LINE_GAP, _CARD_GAP, _TITLE, _LEGEND = 4.0, 6.0, 20.0, 18.0
_MAX_PANEL = 84.0
_MAX_PER_LINE = 12

Kind = Literal["auto", "path", "image", "series"]


def choose_examples(y_true: Any, y_pred: Any, n: int = 5, random_state: Any = None) -> np.ndarray:
    """Choose the test sequences that a picture shows: right ones of many classes, and mistakes.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted labels.
    n : int
        How many to choose. A quarter of them, but at least one when ``n > 1``, are mistakes if
        there are that many.
    random_state : int, numpy.random.RandomState or None

    Returns
    -------
    int64 array of shape (min(n, n_samples),)
        Indices, the right ones first, by class; all different.

    Raises
    ------
    ValueError
        If the labels differ in length or ``n`` is negative.

    Examples
    --------
    >>> choose_examples(["a", "b", "c", "d"], ["a", "b", "c", "a"], n=3, random_state=0)
    array([1, 2, 3])
    """
    from sklearn.utils import check_random_state

    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.ndim != 1 or y_true.shape != y_pred.shape:
        raise ValueError(
            "choose_examples: y_true and y_pred must have one and the same length, "
            f"got shapes {y_true.shape} and {y_pred.shape}"
        )
    if n < 0:
        raise ValueError(f"choose_examples: n must not be negative, got {n}")
    rng = check_random_state(random_state)
    matches = y_true == y_pred
    right, wrong = (_spread(rng, np.flatnonzero(m), y_true) for m in (matches, ~matches))
    n_wrong = min(len(wrong), max(1, n // 4) if n > 1 else 0)
    n_right = min(len(right), n - n_wrong)
    n_wrong = min(len(wrong), n - n_right)
    parts = [right[:n_right], wrong[:n_wrong]]
    ordered = [p[np.argsort(y_true[p], kind="stable")] for p in parts]
    return np.concatenate(ordered).astype(np.int64)


def _spread(rng: np.random.RandomState, indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Shuffle so that every class has come once before any comes twice, and so on."""
    indices = rng.permutation(indices)
    seen: dict[Any, int] = {}
    turn = []
    for label in labels[indices].tolist():
        turn.append(seen.get(label, 0))
        seen[label] = turn[-1] + 1
    return indices[np.argsort(turn, kind="stable")]


def plot_reconstructions(
    targets: Any,
    inversion: Any,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    y_true: Any = None,
    standardizer: Any = None,
    classes: Sequence[Any] | None = None,
    max_targets: int = 6,
    kind: Kind = "auto",
    title: str | None = None,
    panels_per_line: int | None = None,
) -> Figure:
    """Draw targets beside what every module makes of them, the errors, and the decision.

    One row per target: the target at the left, then each module's reconstruction with its mean
    squared error below. A solid frame marks the module with the lowest error: blue if that is the
    true class (or the truth isn't given), orange if not; then a dashed blue frame marks the true
    class.

    Parameters
    ----------
    targets : array or Tensor of shape (n_samples, n_timesteps, n_channels)
        The sequences that were inverted; (n_samples, n_timesteps) for one channel.
    inversion : micfast.inversion.Inversion
        Result of :func:`micfast.invert` for these targets.
    indices : sequence of int, optional
        Which targets to draw, e.g. from :func:`choose_examples`; the first ones by default.
    y_true : array-like of shape (n_samples,), optional
        True labels, as in ``inversion.classes``.
    standardizer : optional
        Object with ``inverse_transform``; sequences are drawn in the units that it gives back.
        The errors stay those of the inversion.
    classes : sequence, optional
        Names to print instead of ``inversion.classes``, in that order.
    max_targets : int
        Most rows to draw.
    kind : {"auto", "path", "image", "series"}
        ``path`` joins (x, y) points into a stroke, with a dot where it starts, centred in its
        panel, the target in grey behind the framed ones; ``image`` takes a
        time step for a row of pixels; ``series`` draws channels over time, the target dashed.
        ``auto``: path for 2 channels, image for 8 and more, else series.
    title : str, optional
        Heading of the figure.
    panels_per_line : int, optional
        Modules side by side; more are broken into lines. Up to 12 by default.

    Returns
    -------
    matplotlib.figure.Figure
        8 inches wide at 200 dpi (narrower for few modules). :func:`save_figure` writes it.

    Raises
    ------
    ValueError
        If shapes, labels or ``kind`` don't fit.

    Examples
    --------
    >>> inversion = classifier.invert(X_test)                               # doctest: +SKIP
    >>> chosen = choose_examples(y_test, inversion.predictions, n=5)        # doctest: +SKIP
    >>> fig = plot_reconstructions(X_test, inversion, indices=chosen, y_true=y_test)
    ... # doctest: +SKIP
    >>> save_figure(fig, "letters.png")                                     # doctest: +SKIP
    """
    rows = _collect(targets, inversion, indices, y_true, standardizer, classes, max_targets)
    n_modules = len(rows.names)
    if panels_per_line is None:
        panels_per_line = math.ceil(n_modules / math.ceil(n_modules / _MAX_PER_LINE))
    if panels_per_line < 1:
        raise ValueError(
            f"plot_reconstructions: panels_per_line must be at least 1, got {panels_per_line}"
        )
    painter = _painter(_resolve_kind(kind, rows.targets.shape[2]), rows)
    layout = _Layout.of(
        len(rows.targets), n_modules, min(panels_per_line, n_modules), painter.aspect, title
    )
    return _draw(rows, painter, layout, title)


def save_figure(fig: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure so that the file is either whole or as it was before.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
    path : str or path-like
        The suffix chooses the format (``.png``, ``.svg``, ``.pdf``).

    Raises
    ------
    OSError
        If the file can't be written.
    ValueError
        If matplotlib doesn't know the format.

    Examples
    --------
    >>> save_figure(plot_reconstructions(X, inversion), "picture.png")      # doctest: +SKIP
    """
    with atomic_path(path) as temporary:
        fig.savefig(temporary, dpi=fig.dpi, facecolor=fig.get_facecolor())


@dataclass(frozen=True)
class _Rows:
    """What is drawn: n targets, M modules, in the units drawn; errors in those of the inversion."""

    targets: np.ndarray  # (n, T, O)
    reconstructions: np.ndarray  # (n, M, T, O)
    errors: np.ndarray  # (n, M)
    best: np.ndarray  # (n,), -1 where every error is NaN
    truth: np.ndarray | None  # (n,) module index of the true class, -1 where no module has it
    true_names: list[str] | None
    names: list[str]  # M


def _collect(
    targets: Any,
    inversion: Any,
    indices: Sequence[int] | np.ndarray | None,
    y_true: Any,
    standardizer: Any,
    classes: Sequence[Any] | None,
    max_targets: int,
) -> _Rows:
    """Check the arguments and compute the reconstructions of the targets shown, no others."""
    targets = _sequences_to_numpy("plot_reconstructions", "targets", targets)
    errors = to_numpy(inversion.errors)
    if targets.ndim == 2:
        targets = targets[..., None]
    n_targets, n_modules = errors.shape
    if targets.ndim != 3 or len(targets) != n_targets:
        raise ValueError(
            "plot_reconstructions: targets must have shape (n_samples, n_timesteps, n_channels) "
            f"with the inversion's n_samples = {n_targets}, got {targets.shape}"
        )
    labels = list(inversion.classes)
    names = labels if classes is None else list(classes)
    if len(names) != n_modules:
        raise ValueError(
            f"plot_reconstructions: classes must name {n_modules} modules, got {len(names)}"
        )
    if max_targets < 1:
        raise ValueError(f"plot_reconstructions: max_targets must be at least 1, got {max_targets}")
    chosen = np.arange(n_targets) if indices is None else np.asarray(indices, dtype=np.int64)
    chosen = chosen[:max_targets]
    if chosen.ndim != 1 or not len(chosen):
        raise ValueError("plot_reconstructions: indices must name at least one target, got none")
    if chosen.min() < -n_targets or chosen.max() >= n_targets:
        raise ValueError(
            f"plot_reconstructions: indices must lie below n_samples = {n_targets}, got {chosen}"
        )
    truth = true_names = None
    if y_true is not None:
        y_true = np.asarray(to_numpy(y_true))
        if y_true.shape != (n_targets,):
            raise ValueError(
                f"plot_reconstructions: y_true must have shape ({n_targets},), got {y_true.shape}"
            )
        shown = y_true[chosen].tolist()
        truth = np.array([labels.index(y) if y in labels else -1 for y in shown])
        true_names = [
            str(names[t]) if t >= 0 else str(y) for t, y in zip(truth, shown, strict=True)
        ]
    errors = errors[chosen]
    ranked = np.where(np.isnan(errors), np.inf, errors)
    best = np.where(np.isnan(errors).all(axis=1), -1, ranked.argmin(axis=1))
    latents = inversion.latents[chosen].swapaxes(0, 1)
    drawn = to_numpy(inversion.bank.generate(latents, targets.shape[1])).swapaxes(0, 1)
    if inversion.lengths is not None:  # nothing is drawn after a target's end
        after = np.arange(targets.shape[1]) >= to_numpy(inversion.lengths)[chosen, None]
        drawn = np.where(after[:, None, :, None], np.nan, drawn)
    targets = targets[chosen]
    if standardizer is not None:
        drawn = np.stack([to_numpy(standardizer.inverse_transform(d)) for d in drawn])
        targets = to_numpy(standardizer.inverse_transform(targets))
    return _Rows(targets, drawn, errors, best, truth, true_names, [str(name) for name in names])


def _sequences_to_numpy(where: str, name: str, sequences: Any) -> np.ndarray:
    """Sequences as an array; those of unequal lengths with NaN after their ends."""
    ragged = ragged_to_padded(where, name, sequences)
    return to_numpy(sequences) if ragged is None else ragged


def _resolve_kind(kind: str, n_channels: int) -> str:
    known = ("auto", "path", "image", "series")
    if kind not in known:
        raise ValueError(
            f"plot_reconstructions: kind must be one of {', '.join(known)}, got {kind!r}"
        )
    if kind == "path" and n_channels != 2:
        raise ValueError(
            f"plot_reconstructions: kind 'path' must have 2 channels (x, y), got {n_channels}"
        )
    if kind != "auto":
        return kind
    return "path" if n_channels == 2 else "image" if n_channels >= 8 else "series"


@dataclass(frozen=True)
class _Box:
    """A rectangle on the page, in points from the lower left corner."""

    x: float
    y: float
    w: float
    h: float

    @property
    def top(self) -> float:
        return self.y + self.h

    @property
    def middle(self) -> float:
        return self.x + self.w / 2

    def fit(self, width: float, height: float) -> _Box:
        """The largest box of this shape that lies centred in this one."""
        scale = min(self.w / width, self.h / height)
        w, h = width * scale, height * scale
        return _Box(self.middle - w / 2, self.y + (self.h - h) / 2, w, h)


@dataclass(frozen=True)
class _Style:
    """Colours of one panel."""

    text: str
    stroke: str
    frame: str
    fill: str = "white"
    width: float = 0.6
    dashed: bool = False
    bold: bool = False
    with_target: bool = True  # draw the target behind a stroke


_PLAIN = _Style(_MUTED, _STROKE, _FRAME, with_target=False)
_TARGET = _Style(_INK, _INK, _FRAME)
_DECIDED = _Style(_RIGHT, _RIGHT, _RIGHT, _RIGHT_FILL, 1.6, bold=True)
_MISTAKEN = _Style(_WRONG, _WRONG, _WRONG, _WRONG_FILL, 1.6, bold=True)
_MISSED = _Style(_RIGHT, _RIGHT, _RIGHT, "white", 1.3, dashed=True, bold=True)


def _padded_range(values: np.ndarray, padding: float) -> tuple[float, float]:
    """Least and greatest finite value with some room around; never of width 0."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    room = padding * (high - low) if high > low else 0.5
    return low - room, high + room


class _PathPainter:
    """Pen strokes: (x, y) points joined, a dot at the start, one scale for the whole figure.

    Every panel is centred on what it holds: strokes that begin at one point would otherwise lie in
    a corner each. Where the target is drawn behind, the two keep their places to each other.
    """

    note = "dot: start of the stroke   grey: target   "

    def __init__(self, rows: _Rows) -> None:
        shown = [*rows.targets, *rows.reconstructions.reshape(-1, *rows.targets.shape[1:])]
        extents = np.array([[high - low for low, high in _bounds(s)] for s in shown])
        # One module that draws far out must not make all others tiny.
        self.width, self.height = np.quantile(extents, 0.98, axis=0).tolist()
        self.aspect = float(np.clip(self.height / self.width, 0.75, 1.2))

    def paint(
        self,
        ax: Axes,
        clip: Any,
        box: _Box,
        sequence: np.ndarray,
        style: _Style,
        target: np.ndarray | None,
    ) -> None:
        scale = min(box.w / self.width, box.h / self.height)
        size = math.sqrt(box.w / 50)
        strokes = [(sequence, style.stroke)]
        if target is not None and style.with_target:
            strokes.insert(0, (target, _GHOST))
        centre = np.mean(_bounds(np.concatenate([points for points, _ in strokes])), axis=1)
        for points, colour in strokes:
            page = (points - centre) * scale + [box.middle, box.y + box.h / 2]
            ax.plot(
                *page.T,
                color=colour,
                linewidth=1.3 * size,
                solid_capstyle="round",
                solid_joinstyle="round",
                clip_path=clip,
            )
            ax.plot(
                *page[:1].T,
                marker="o",
                markersize=3.0 * size,
                color=colour,
                markeredgewidth=0,
                clip_path=clip,
            )


def _bounds(points: np.ndarray) -> list[tuple[float, float]]:
    """Padded range of x and of y."""
    return [_padded_range(points[:, c], 0.13) for c in (0, 1)]


class _ImagePainter:
    """Images, a time step being a row of pixels; dark is high."""

    note = ""

    def __init__(self, rows: _Rows) -> None:
        self.low, self.high = _padded_range(rows.targets, 0.0)
        self.aspect = float(np.clip(rows.targets.shape[1] / rows.targets.shape[2], 0.4, 2.5))

    def paint(
        self,
        ax: Axes,
        clip: Any,
        box: _Box,
        sequence: np.ndarray,
        style: _Style,
        target: np.ndarray | None,
    ) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        frame = box.fit(sequence.shape[1], sequence.shape[0])
        ax.imshow(
            sequence,
            cmap=LinearSegmentedColormap.from_list("ink", [style.fill, style.stroke]),
            vmin=self.low,
            vmax=self.high,
            extent=(frame.x, frame.x + frame.w, frame.y, frame.top),
            interpolation="nearest",
            aspect="auto",
            clip_path=clip,
            zorder=2,
        )


class _SeriesPainter:
    """Channels over time, the target dashed behind, one scale for the whole figure."""

    aspect = 0.72
    note = "dashed: target   "

    def __init__(self, rows: _Rows) -> None:
        seen = np.concatenate([_believed(rows, i) for i in range(len(rows.targets))])
        self.low, self.high = _padded_range(seen, 0.1)

    def paint(
        self,
        ax: Axes,
        clip: Any,
        box: _Box,
        sequence: np.ndarray,
        style: _Style,
        target: np.ndarray | None,
    ) -> None:
        n_steps, n_channels = sequence.shape
        x = box.x + box.w * (np.arange(n_steps) + 0.5) / n_steps
        for channel in range(n_channels):
            colour = style.stroke if n_channels == 1 else _CHANNELS[channel % len(_CHANNELS)]
            lines: list[tuple[np.ndarray, str, float, Any]] = [(sequence, colour, 1.2, "-")]
            if target is not None:
                lines.insert(0, (target, _MUTED, 0.8, (0, (2.2, 1.6))))
            for values, line_colour, line_width, line_style in lines:
                y = box.y + box.h * (values[:, channel] - self.low) / (self.high - self.low)
                ax.plot(
                    x,
                    y,
                    color=line_colour,
                    linewidth=line_width,
                    linestyle=line_style,
                    clip_path=clip,
                )


_Painter = _PathPainter | _ImagePainter | _SeriesPainter


def _painter(kind: str, rows: _Rows) -> _Painter:
    painters: dict[str, type[_Painter]] = {
        "path": _PathPainter,
        "image": _ImagePainter,
        "series": _SeriesPainter,
    }
    return painters[kind](rows)


def _believed(rows: _Rows, row: int) -> np.ndarray:
    """The target and the winner's reconstruction of it, (2, T, O)."""
    drawn = rows.reconstructions[row, rows.best[row]] if rows.best[row] >= 0 else rows.targets[row]
    return np.stack([rows.targets[row], drawn])


@dataclass(frozen=True)
class _Layout:
    """Where everything goes; computed, so that nothing can overlap."""

    width: float
    height: float
    title_y: float
    cards: list[_Box]
    targets: list[_Box]
    panels: list[list[_Box]]
    legend_y: float

    @classmethod
    def of(
        cls, n_rows: int, n_modules: int, per_line: int, aspect: float, title: str | None
    ) -> _Layout:
        n_lines = math.ceil(n_modules / per_line)
        # Beside several lines of panels there is room for a larger target.
        larger = 1.0 if n_lines == 1 else 1.45
        room = _WIDTH - 2 * (_MARGIN + _PAD) - _TARGET_GAP - (per_line - 1) * _GAP
        w = min(room / (per_line + larger), _MAX_PANEL)
        h, target_w = w * aspect, w * larger
        target_h = target_w * aspect
        inner = target_w + _TARGET_GAP + per_line * w + (per_line - 1) * _GAP
        # The legend needs its width even where there are two modules only.
        width = max(inner + 2 * (_MARGIN + _PAD), 400.0)
        line_h = _HEAD + h + _FOOT
        card_h = n_lines * line_h + (n_lines - 1) * _LINE_GAP + _PAD
        top = _MARGIN + (_TITLE if title else 0.0)
        height = top + n_rows * (card_h + _CARD_GAP) + _LEGEND + _MARGIN / 2
        left = (width - inner) / 2
        cards, targets, panels = [], [], []
        for row in range(n_rows):
            card = _Box(
                _MARGIN,
                height - top - (row + 1) * card_h - row * _CARD_GAP,
                width - 2 * _MARGIN,
                card_h,
            )
            cards.append(card)
            block = _HEAD + target_h + _FOOT
            target_y = card.y + (card_h - block) / 2 + _FOOT
            targets.append(_Box(left, target_y, target_w, target_h))
            start = left + target_w + _TARGET_GAP
            boxes = []
            for module in range(n_modules):
                line, column = divmod(module, per_line)
                y = card.top - _PAD / 2 - line * (line_h + _LINE_GAP) - _HEAD - h
                boxes.append(_Box(start + column * (w + _GAP), y, w, h))
            panels.append(boxes)
        return cls(width, height, height - _MARGIN, cards, targets, panels, _MARGIN + 1.0)


def _draw(rows: _Rows, painter: _Painter, layout: _Layout, title: str | None) -> Figure:
    from matplotlib.figure import Figure

    fig = Figure(figsize=(layout.width / 72, layout.height / 72), dpi=_DPI, facecolor="white")
    ax = fig.add_axes((0.0, 0.0, 1.0, 1.0))
    if title:
        room = layout.width - 2 * _MARGIN - 2
        _write(ax, _MARGIN + 1, layout.title_y, title, 10.5, _INK, True, "left", "top", room)
    for row in range(len(rows.targets)):
        _draw_row(ax, rows, painter, layout, row)
    _draw_legend(ax, layout, rows.truth is not None, painter.note)
    # Last, because drawing changes the limits.
    ax.set(xlim=(0, layout.width), ylim=(0, layout.height), aspect="auto")
    ax.set_axis_off()
    return fig


def _draw_row(ax: Axes, rows: _Rows, painter: _Painter, layout: _Layout, row: int) -> None:
    _frame(ax, layout.cards[row], _Style(_INK, _INK, _CARD, _CARD), radius=5.0)
    best, target, box = int(rows.best[row]), rows.targets[row], layout.targets[row]
    truth = None if rows.truth is None else int(rows.truth[row])
    right = truth is None or truth == best
    painter.paint(ax, _frame(ax, box, _TARGET), box, target, _TARGET, None)
    name = "target" if rows.true_names is None else f"target: {rows.true_names[row]}"
    room = box.w + _TARGET_GAP
    _write(ax, box.middle, box.top + 3, name, 7.2, _INK, bold=True, room=room)
    decided = "no decision" if best < 0 else f"decided: {rows.names[best]}"
    if truth is not None and best >= 0:
        # The mark comes first: a long name is cut at its end.
        decided = f"{_TICK if right else _CROSS} {decided}"
    colour = _MUTED if best < 0 else _RIGHT if right else _WRONG
    _write(ax, box.middle, box.y - 3, decided, 6.4, colour, best >= 0, va="top", room=room)
    for module, panel in enumerate(layout.panels[row]):
        style, gid = _PLAIN, "panel"
        if module == best:
            style, gid = (_DECIDED, "winner-right") if right else (_MISTAKEN, "winner-wrong")
        elif module == truth:
            style, gid = _MISSED, "truth-missed"
        clip = _frame(ax, panel, style, gid=gid)
        drawn = rows.reconstructions[row, module]
        painter.paint(ax, clip, panel, drawn, style, target)
        label, error = rows.names[module], _format_error(rows.errors[row, module])
        look: dict[str, Any] = {"colour": style.text, "bold": style.bold, "room": panel.w + 2}
        _write(ax, panel.middle, panel.top + 3, label, 7.2, **look)
        _write(ax, panel.middle, panel.y - 3, error, 6.4, va="top", **look)


def _draw_legend(ax: Axes, layout: _Layout, with_truth: bool, note: str) -> None:
    entries = [(_DECIDED, "lowest error: the decision")]
    if with_truth:
        entries = [
            (_DECIDED, "right decision"),
            (_MISTAKEN, "wrong decision"),
            (_MISSED, "missed true class"),
        ]
    x, y = _MARGIN + 2, layout.legend_y
    for style, text in entries:
        _frame(ax, _Box(x, y, 9, 7), style, radius=1.2)
        _write(ax, x + 13, y + 3.5, text, 6.4, _MUTED, ha="left", va="center")
        x += 13 + _text_width(text, 6.4) + 10
    right = layout.width - _MARGIN - 2
    note += "numbers: mean squared error"
    _write(ax, right, y + 3.5, note, 6.4, _MUTED, ha="right", va="center", room=right - x)


def _frame(
    ax: Axes, box: _Box, style: _Style, radius: float = 2.5, gid: str | None = None
) -> FancyBboxPatch:
    """A rounded frame; what is drawn into the box is clipped by it."""
    from matplotlib.patches import FancyBboxPatch

    shape = f"round,pad=0,rounding_size={radius}"
    corner = (box.x, box.y)
    fill = FancyBboxPatch(
        corner, box.w, box.h, shape, facecolor=style.fill, edgecolor="none", zorder=1
    )
    edge = FancyBboxPatch(
        corner,
        box.w,
        box.h,
        shape,
        facecolor="none",
        edgecolor=style.frame,
        linewidth=style.width,
        linestyle=(0, (2.4, 1.6)) if style.dashed else "-",
        zorder=4,
    )
    edge.set_gid(gid)
    ax.add_patch(fill)
    ax.add_patch(edge)
    return fill


def _write(
    ax: Axes,
    x: float,
    y: float,
    text: str,
    size: float,
    colour: str,
    bold: bool = False,
    ha: str = "center",
    va: str = "baseline",
    room: float | None = None,
) -> None:
    """Write one line; a text wider than ``room`` points is set smaller, then cut."""
    if room is not None:
        text, size = _fit_text(text, size, bold, room)
    ax.text(
        x,
        y,
        text,
        fontsize=size,
        color=colour,
        fontweight="bold" if bold else "normal",
        fontfamily=_FONT,
        ha=ha,
        va=va,
        parse_math=False,
        zorder=5,
    )


def _fit_text(text: str, size: float, bold: bool, room: float) -> tuple[str, float]:
    width = _text_width(text, size, bold)
    if width <= room:
        return text, size
    smaller = max(size * room / width, min(size, _SMALLEST_FONT))
    kept = len(text)
    while kept > 1 and _text_width(text, smaller, bold) > room:
        kept -= 1
        text = text[:kept].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    return text, smaller


@functools.lru_cache(maxsize=4096)
def _text_width(text: str, size: float, bold: bool = False) -> float:
    """Width in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(family=_FONT, size=size, weight="bold" if bold else "normal")
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0])


def _format_error(error: float) -> str:
    """Three figures or so, in at most seven characters."""
    if not np.isfinite(error):
        return "invalid"
    if error != 0 and not 5e-4 <= error < 1e4:
        return f"{error:.0e}"
    decimals = 3 if error < 1 else 2 if error < 10 else 1 if error < 100 else 0
    return f"{error:.{decimals}f}"
