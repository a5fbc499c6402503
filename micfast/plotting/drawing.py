"""What all pictures share: colours, one way to draw a sequence, new axes, and saving."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from micfast.io import atomic_path
from micfast.settings import check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["auto", "path", "image", "series"]

# Okabe and Ito's colours, which colour-blind readers can tell apart; yellow is too pale on white.
BLUE, ORANGE = "#0072B2", "#D55E00"
INK, STROKE, MUTED, GHOST, FRAME = "#1C2733", "#4A5765", "#66727F", "#C4CCD5", "#D9DEE4"
CARD = "#F5F7F9"
CHANNELS = (STROKE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHED: Any = (0, (2.4, 1.6))

# A panel's scale follows its target: a module that draws far out must not make it tiny.
_ROOM = 0.13
_USUAL = 0.95


@dataclass(frozen=True)
class Style:
    """Colours of one panel."""

    name: str
    text: str
    stroke: str
    frame: str
    fill: str = "white"
    width: float = 0.6
    dashes: Any = "-"
    bold: bool = False


PLAIN = Style("plain", MUTED, STROKE, FRAME)
TARGET = Style("target", INK, INK, FRAME, bold=True)
DECIDED = Style("decided", BLUE, BLUE, BLUE, "#EAF3F9", 1.6, bold=True)
MISTAKEN = Style("mistaken", ORANGE, ORANGE, ORANGE, "#FCF0E8", 1.6, bold=True)
MISSED = Style("missed", BLUE, BLUE, BLUE, width=1.3, dashes=DASHED, bold=True)
# Of a heading over several axes.
HEADING: dict[str, Any] = {"x": 0.01, "ha": "left", "fontsize": "medium", "parse_math": False}


def style_of(label: Any, predicted_label: Any, true_label: Any) -> Style:
    """Style of a panel of this class; None stands for no decision, or an unknown truth."""
    if predicted_label is not None and label == predicted_label:
        return DECIDED if true_label is None or label == true_label else MISTAKEN
    return MISSED if true_label is not None and label == true_label else PLAIN


def resolve_kind(where: str, kind: str, n_channels: int) -> str:
    """Return "path", "image" or "series", the one that ``kind`` means for so many channels."""
    check_choice(where, "kind", kind, get_args(Kind))
    if kind == "path" and n_channels != 2:
        raise ValueError(f"{where}: kind 'path' must have 2 channels (x, y), got {n_channels}")
    if kind != "auto":
        return kind
    return "path" if n_channels == 2 else "image" if n_channels >= 8 else "series"


@dataclass(frozen=True)
class Brush:
    """Draws sequences in one way and on one scale, so that panels can be compared.

    Attributes
    ----------
    kind : {"path", "image", "series"}
    aspect : float
        Height of a panel over its width.
    low, high : float
        Range of values; for a path (width, height) of a panel is ``size`` instead.
    size : tuple of float
    weight : float
        Of lines and dots; 1 for panels of an inch and a half.
    sparing : bool
        Whether targets are drawn only behind strokes that are marked.
    """

    kind: str
    aspect: float
    low: float = 0.0
    high: float = 1.0
    size: tuple[float, float] = (1.0, 1.0)
    weight: float = 1.0
    sparing: bool = False

    @classmethod
    def of(cls, kind: str, rows: Sequence[tuple[NDArray[Any], NDArray[Any]]], **look: Any) -> Brush:
        """Choose the scale for some targets (T, O), each with reconstructions (M, T, O)."""
        values = np.concatenate([target for target, _ in rows])
        pairs = [(target, drawn) for target, several in rows for drawn in several]
        if kind == "image":
            height = max(len(target) for target, _ in rows)
            aspect = float(np.clip(height / values.shape[1], 0.4, 2.5))
            return cls(kind, aspect, *_range(values), **look)
        if kind == "series":
            low, high = _range(values, _ROOM)
            lows, highs = np.transpose([_joint_range(*pair) for pair in pairs])
            low = min(low, float(np.quantile(lows, 1 - _USUAL)))
            return cls(kind, 0.72, low, max(high, float(np.quantile(highs, _USUAL))), **look)
        least = np.max([_extent(target, target) for target, _ in rows], axis=0)
        usual = np.quantile([_extent(*pair) for pair in pairs], _USUAL, axis=0)
        width, height = np.maximum(usual, least).tolist()
        aspect = float(np.clip(height / width, 0.75, 1.2))
        size = max(width, height / aspect), max(height, width * aspect)
        return cls(kind, aspect, size=size, **look)

    def draw(
        self,
        ax: Axes,
        target: NDArray[Any] | None,
        drawn: NDArray[Any],
        style: Style,
        line_kw: dict[str, Any] | None = None,
        im_kw: dict[str, Any] | None = None,
    ) -> tuple[list[Any], list[Any]]:
        """Draw a sequence (T, O) into axes, over its target unless it is an image.

        Returns
        -------
        tuple of two lists
            The target's artists and the sequence's.
        """
        if self.kind == "image":
            return [], [self._image(ax, drawn, style, im_kw or {})]
        paint = self._path if self.kind == "path" else self._series
        behind = [] if target is None else paint(ax, target, style, True, {})
        front = paint(ax, drawn, style, False, line_kw or {})
        if self.kind == "series":
            ax.set_ylim(self.low, self.high)
            return behind, front
        # Strokes start at the same point and would lie in different corners: centre each panel.
        known = drawn if target is None else target
        middles = [np.mean(_joint_range(known[:, c], drawn[:, c])) for c in (0, 1)]
        limits = [(m - size / 2, m + size / 2) for m, size in zip(middles, self.size, strict=True)]
        ax.set(xlim=limits[0], ylim=limits[1])
        ax.set_aspect("equal")
        return behind, front

    def _path(
        self, ax: Axes, points: NDArray[Any], style: Style, behind: bool, more: dict[str, Any]
    ) -> list[Any]:
        look: dict[str, Any] = {
            "color": GHOST if behind else style.stroke,
            "linewidth": 1.8 * self.weight,
            "solid_capstyle": "round",
            "solid_joinstyle": "round",
            # The dot where the stroke starts.
            "marker": "o",
            "markersize": 4.5 * self.weight,
            "markevery": [0],
            "markeredgewidth": 0,
        }
        return ax.plot(*points.T, **(look | more))

    def _series(
        self, ax: Axes, values: NDArray[Any], style: Style, behind: bool, more: dict[str, Any]
    ) -> list[Any]:
        lines: list[Any] = []
        for c in range(values.shape[1]):
            # Several channels are told apart by colour, a single one shows the decision.
            one = MUTED if behind else style.stroke
            look: dict[str, Any] = {
                "color": one if values.shape[1] == 1 else CHANNELS[c % len(CHANNELS)],
                "linewidth": (1.0 if behind else 1.6) * self.weight,
                "linestyle": DASHED if behind else "-",
            }
            lines += ax.plot(np.arange(len(values)), values[:, c], **(look | more))
        return lines

    def _image(self, ax: Axes, values: NDArray[Any], style: Style, more: dict[str, Any]) -> Any:
        from matplotlib.colors import LinearSegmentedColormap

        look: dict[str, Any] = {
            "cmap": LinearSegmentedColormap.from_list("ink", [style.fill, style.stroke]),
            "interpolation": "nearest",
            "vmin": self.low,
            "vmax": self.high,
        }
        return ax.imshow(values, **(look | more))


def finish_panel(
    ax: Axes, brush: Brush, style: Style, above: str, below: str = "", size: float = 7.2
) -> None:
    """Give one of several panels its shape, frame and words; ``size`` is the words' in points."""
    look: dict[str, Any] = {
        "color": style.text,
        "fontweight": "bold" if style.bold else "normal",
        "parse_math": False,
    }
    if brush.kind == "series":  # the others have the shape of what they show
        ax.set_box_aspect(brush.aspect)
    ax.set(xticks=[], yticks=[], facecolor=style.fill, gid=style.name)
    ax.set_title(above, fontsize=size, pad=3, **look)
    ax.set_xlabel(below, fontsize=0.9 * size, labelpad=3, **look)
    for spine in ax.spines.values():
        spine.set(edgecolor=style.frame, linewidth=style.width, linestyle=style.dashes)


def n_letters(width: float, size: float) -> int:
    """Count the letters of this font size that fit into so many points, by their usual width."""
    return max(int(width / (0.68 * size)), 2)


def shortened(text: str, width: float, size: float) -> str:
    """Cut a text to so many points at this font size."""
    room = n_letters(width, size)
    return text if len(text) <= room else text[: room - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def format_error(error: float) -> str:
    """Format an error with about three digits, in at most seven characters."""
    if not np.isfinite(error):
        return "invalid"
    if error != 0 and not 5e-4 <= error < 1e4:
        return f"{error:.0e}"
    decimals = 3 if error < 1 else 2 if error < 10 else 1 if error < 100 else 0
    return f"{error:.{decimals}f}"


def new_axes(where: str, ax: Any, size: tuple[float, float]) -> Any:
    """Return the axes given, or those of a new pyplot figure, as scikit-learn's displays do."""
    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=size, layout="constrained")[1]
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"{where}: ax must be a matplotlib Axes, got {type(ax).__name__}")
    return ax


def divide(where: str, ax: Any, n_panels: int, n_columns: int) -> NDArray[Any]:
    """Put several axes into the place of one, in a subfigure; returns them, shape (n_panels,)."""
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError(
            f"{where}: ax must have a place in a grid, as Figure.subplots and add_subplot give it, "
            f"to hold {n_panels} panels"
        )
    ax.set_axis_off()
    part = ax.figure.add_subfigure(place)
    # Room for the words where no layout engine makes it.
    room = {"left": 0.08, "right": 0.98, "bottom": 0.1, "top": 0.82, "hspace": 0.6}
    grid = part.add_gridspec(
        math.ceil(n_panels / n_columns),
        n_columns,
        **(room if part.get_layout_engine() is None else {}),
    )
    panels = np.empty(n_panels, dtype=object)
    panels[:] = [part.add_subplot(grid[divmod(i, n_columns)]) for i in range(n_panels)]
    return panels


def save_figure(fig: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure atomically: the file is either complete or as it was before.

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
    >>> import numpy as np
    >>> from micfast import GeneratorBank, invert
    >>> from micfast.plotting import plot_reconstructions, save_figure
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> X = np.ones((2, 20))
    >>> inversion = invert(bank, X)
    >>> save_figure(plot_reconstructions(X, inversion), "picture.png")
    """
    with atomic_path(path) as temporary:
        fig.savefig(temporary, dpi=fig.dpi, facecolor=fig.get_facecolor())


def _range(values: NDArray[Any], room: float = 0.0) -> tuple[float, float]:
    """Lowest and highest finite value with some room around them; never of width 0."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    space = room * (high - low) if high > low else 0.5
    return low - space, high + space


def _joint_range(target: NDArray[Any], drawn: NDArray[Any]) -> tuple[float, float]:
    """Range of both with some room around them, at most three times the target's."""
    low, high = _range(target, _ROOM)
    least, most = _range(np.append(target, drawn), _ROOM)
    return max(least, 2 * low - high), min(most, 2 * high - low)


def _extent(target: NDArray[Any], drawn: NDArray[Any]) -> tuple[float, float]:
    """Width and height that two strokes (T, 2) take up together."""
    x, y = (_joint_range(target[:, c], drawn[:, c]) for c in (0, 1))
    return x[1] - x[0], y[1] - y[0]
