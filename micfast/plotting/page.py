"""One page of targets with every module's reconstruction, and the choice of what it shows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from micfast.arrays import to_numpy
from micfast.plotting import drawing
from micfast.plotting.reading import read_inversion
from micfast.plotting.reconstruction import ReconstructionDisplay, draw_panel
from micfast.settings import check_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from micfast.search.inversion import Inversion

_WIDTH, _NARROWEST, _DPI = 8.0, 5.5, 200  # inches
_MAX_PER_LINE = 12
_MAX_PANEL = 1.15
_WORDS, _SMALL = 7.2, 6.4  # font sizes in points
_LINE = 1.25 * _SMALL / 72  # inches


def choose_examples(y_true: Any, y_pred: Any, n: int = 5, random_state: Any = None) -> np.ndarray:
    """Choose test sequences for a picture: correct ones of many classes, and some mistakes.

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
        Distinct indices: the correct ones first, then the mistakes, each ordered by class.

    Raises
    ------
    ValueError
        If the labels differ in length or ``n`` is negative.

    Examples
    --------
    >>> from micfast.plotting import choose_examples
    >>> choose_examples(["a", "b", "c", "d"], ["a", "b", "c", "a"], n=3, random_state=0)
    array([1, 2, 3])
    """
    from sklearn.utils import check_random_state

    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.ndim != 1 or y_true.shape != y_pred.shape:
        raise ValueError(
            "choose_examples: y_true and y_pred must have the same length, "
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


def _spread(
    rng: np.random.RandomState, indices: NDArray[np.int64], labels: NDArray[Any]
) -> NDArray[np.int64]:
    """Shuffle so that every class comes once before any comes twice, and so on."""
    indices = rng.permutation(indices)
    seen: dict[Any, int] = {}
    turn = []
    for label in labels[indices].tolist():
        turn.append(seen.get(label, 0))
        seen[label] = turn[-1] + 1
    return indices[np.argsort(turn, kind="stable")]


def plot_reconstructions(
    targets: Any,
    inversion: Inversion,
    *,
    indices: Sequence[int] | np.ndarray | None = None,
    y_true: Any = None,
    standardizer: Any = None,
    max_targets: int = 6,
    kind: drawing.Kind = "auto",
    title: str | None = None,
    panels_per_line: int | None = None,
) -> Figure:
    """Draw targets beside every module's reconstruction, with the errors and the decision.

    One row per target: the target on the left, then each module's reconstruction with its error
    (``inversion.errors``) below. A solid frame marks the module with the lowest error: blue if it
    is the true class (or the truth is unknown), orange if not; then a dashed blue frame marks the
    true class.

    Parameters
    ----------
    targets : array, Tensor or list, of shape (n_samples, n_timesteps, n_channels)
        The sequences that were inverted; (n_samples, n_timesteps) for one channel.
    inversion : Inversion
        Result of :func:`micfast.invert` for these targets. Its modules are drawn: of an estimator
        with several modules per class, one module of each (``estimator.invert(X)`` or
        ``decision.inversion()``).
    indices : sequence of int, optional
        Which targets to draw, e.g. from :func:`choose_examples`; the first ones by default.
    y_true : array-like of shape (n_samples,), optional
        True labels, as in ``inversion.classes``.
    standardizer : optional
        Object with ``inverse_transform``; sequences are drawn in the units that it returns.
        Errors stay those of the inversion.
    max_targets : int
        Maximum number of rows.
    kind : {"auto", "path", "image", "series"}
        ``path`` joins (x, y) points to a pen stroke with a dot at its start, over the target in
        grey; ``image`` draws each time step as a row of pixels; ``series`` draws channels over
        time, the target dashed. ``auto``: path for 2 channels, image for 8 or more, else series.
    title : str, optional
        Heading of the figure.
    panels_per_line : int, optional
        Number of modules side by side; up to 12 by default.

    Returns
    -------
    matplotlib.figure.Figure
        8 inches wide at 200 dpi (narrower for few modules), made without pyplot.
        :func:`save_figure` writes it.

    Raises
    ------
    ValueError
        If shapes, labels or ``kind`` don't fit.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import GeneratorBank, invert
    >>> from micfast.plotting import choose_examples, plot_reconstructions
    >>> bank = GeneratorBank.random(
    ...     3, hidden_size=5, input_size=4, output_size=2, seeds=range(3), classes=list("abc")
    ... )
    >>> X, y = np.random.default_rng(0).normal(size=(6, 20, 2)).cumsum(axis=1), list("abcabc")
    >>> inversion = invert(bank, X)
    >>> chosen = choose_examples(y, inversion.predictions, n=2, random_state=0)
    >>> len(plot_reconstructions(X, inversion, indices=chosen, y_true=y).axes)  # 2 of (1 + 3)
    8
    """
    where = "plot_reconstructions"
    check_count(where, "max_targets", max_targets, 1)
    n_targets, n_modules = inversion.errors.shape
    chosen = range(n_targets) if indices is None else to_numpy(indices).tolist()
    if not len(chosen):
        raise ValueError(f"{where}: indices must name at least one target, got none")
    read = read_inversion(where, targets, inversion, chosen[:max_targets], y_true, standardizer)
    rows = [
        ReconstructionDisplay(
            found.target,
            found.drawn,
            errors=found.errors,
            labels=inversion.classes,
            predicted_label=found.predicted_label,
            true_label=found.true_label,
            pose=found.pose,
        )
        for found in read
    ]
    if panels_per_line is None:
        panels_per_line = math.ceil(n_modules / math.ceil(n_modules / _MAX_PER_LINE))
    check_count(where, "panels_per_line", panels_per_line, 1)
    drawn_as = drawing.resolve_kind(where, kind, rows[0].target.shape[1])
    return _draw(rows, drawn_as, min(panels_per_line, n_modules), title)


def _draw(rows: list[ReconstructionDisplay], kind: str, per_line: int, title: str | None) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    n_lines = math.ceil(len(rows[0].labels) / per_line)
    larger = 1.0 if n_lines == 1 else 1.45  # beside several lines there is room for the target
    n_wide = per_line + larger + 0.1
    width = min(max(_MAX_PANEL * n_wide + 0.2, _NARROWEST), _WIDTH)
    panel = (width - 0.2) / n_wide
    sequences = [(row.target, row.reconstructions) for row in rows]
    weight = 0.72 * math.sqrt(panel / 0.7)
    brush = drawing.Brush.of(kind, sequences, weight=weight, sparing=True)
    decisions = [_decision(row, 72 * panel * larger) for row in rows]
    # Beside one line of panels, each further line of words below the target needs room.
    more = [_LINE * words.count("\n") if n_lines == 1 else 0.0 for words, _ in decisions]
    heights = [n_lines * (panel * brush.aspect + 0.36) + 0.08 + one for one in more]
    height = sum(heights) + (0.55 if title else 0.25)
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.05, wspace=0.0, hspace=0.0)
    fig = Figure(figsize=(width, height), dpi=_DPI, layout=layout, facecolor="white")
    if title:
        look = drawing.HEADING | {"fontsize": 10.5, "fontweight": "bold", "color": drawing.INK}
        fig.suptitle(title, wrap=True, **look)
    cards = fig.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for card, row, decision in zip(cards, rows, decisions, strict=True):
        card.set(facecolor=drawing.CARD, edgecolor="white", linewidth=5)
        cells = card.add_gridspec(n_lines, per_line + 1, width_ratios=[larger] + per_line * [1.0])
        _draw_target(card.add_subplot(cells[:, 0]), brush, row, decision, 72 * panel * larger)
        for i in range(len(row.labels)):
            line, column = divmod(i, per_line)
            ax = card.add_subplot(cells[line, column + 1])
            draw_panel(ax, row, i, brush, (_WORDS, 72 * panel))
    _draw_legend(fig, kind, rows[0].true_label is not None, one_line=width > 7)
    return fig


def _decision(row: ReconstructionDisplay, width: float) -> tuple[str, str]:
    """What was decided, and in which pose, in lines of so many points; and their colour."""
    predicted, true = row.predicted_label, row.true_label
    words, colour = "no decision", drawing.MUTED
    if predicted is not None:
        right = true is None or true == predicted
        mark = "" if true is None else "\N{CHECK MARK} " if right else "\N{BALLOT X} "
        words, colour = f"{mark}decided: {predicted}", drawing.BLUE if right else drawing.ORANGE
        if words != drawing.shortened(words, width, _SMALL):
            words = drawing.shortened(f"{mark}{predicted}", width, _SMALL)
    room = drawing.n_letters(width, _SMALL)
    for part in [] if row.pose is None else row.pose.split(", "):
        words += "\n" + textwrap.fill(part, room, break_long_words=False)
    return words, colour


def _draw_target(
    ax: Any, brush: drawing.Brush, row: ReconstructionDisplay, below: tuple[str, str], width: float
) -> None:
    """Draw the target with its label above and the decision below."""
    brush.draw(ax, None, row.target, drawing.TARGET)
    above = "target" if row.true_label is None else f"target: {row.true_label}"
    words, colour = below
    above = drawing.shortened(above, width, _WORDS)
    drawing.finish_panel(ax, brush, drawing.TARGET, above, words, _WORDS)
    ax.xaxis.label.set(color=colour, fontfamily="DejaVu Sans")  # which has the marks


def _draw_legend(fig: Figure, kind: str, with_truth: bool, one_line: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    frames = {"lowest error: the decision": drawing.DECIDED}
    if with_truth:
        frames = {"right decision": drawing.DECIDED, "wrong decision": drawing.MISTAKEN}
        frames["missed true class"] = drawing.MISSED
    handles: list[Any] = [
        Patch(fill=False, linewidth=1.3, label=label, edgecolor=style.frame, linestyle=style.dashes)
        for label, style in frames.items()
    ]
    looks: dict[str, dict[str, Any]] = {"numbers: errors": {"linestyle": "none"}}
    if kind == "series":
        look = {"color": drawing.MUTED, "linewidth": 1.0, "linestyle": drawing.DASHED}
        looks = {"target": look, **looks}
    elif kind == "path":
        dot = {"linestyle": "none", "marker": "o", "markersize": 3.5, "color": drawing.STROKE}
        line = {"color": drawing.GHOST, "linewidth": 1.6}
        looks = {"target": line, "start of the stroke": dot, **looks}
    handles += [Line2D([], [], label=label, **look) for label, look in looks.items()]
    words = {"fontsize": _SMALL, "labelcolor": drawing.MUTED, "columnspacing": 1.2}
    fig.legend(
        handles=handles,
        loc="outside lower left",
        ncols=len(handles) if one_line else 3,
        frameon=False,
        handlelength=1.4,
        borderpad=0.1,
        **words,
    )
