"""What all figures share: one size and look, and words for numbers and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.plotting import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "DATA",
    "OURS",
    "PAPER",
    "STYLE",
    "Drawing",
    "count",
    "how_trained",
    "new_figure",
    "noise_name",
    "number",
    "numbers",
    "plain_log",
]

DATA = {"mnist": "MNIST", "characters": "Characters"}
OURS, PAPER = drawing.BLUE, drawing.ORANGE
MAP = "cividis"
_WIDTH, _DPI = 7.0, 200  # inches: the text width of a page, so that print doesn't shrink the fonts
SMALL = 8.0
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": SMALL,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": SMALL,
    "figure.labelsize": SMALL,
    "figure.titlesize": 8.5,
    "figure.titleweight": "bold",
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "axes.edgecolor": drawing.MUTED,
    "axes.labelcolor": drawing.INK,
    "text.color": drawing.INK,
    "xtick.color": drawing.INK,
    "ytick.color": drawing.INK,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": True,
    "grid.color": "#E3E7EB",
    "grid.linewidth": 0.6,
    # The same input gives the same file: ids and letters must not depend on the day or on fonts.
    "svg.hashsalt": "micfast",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Drawing:
    """A figure with its title, its caption and what a reader needs who can't see it."""

    fig: Figure
    title: str
    caption: str
    alt: str


def new_figure(height: float) -> Figure:
    """An empty figure of the page's width whose parts matplotlib arranges; height in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    return Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white", layout=layout)


def noise_name(setting: tuple[float, float]) -> str:
    """A noise setting as text."""
    return " / ".join(f"{level:g}" for level in setting)


def how_trained(arrays: Mapping[str, np.ndarray]) -> str:
    """How the modules of a picture were trained, as far as its file says so."""
    if not {"subset", "seed", "noise_in", "noise_out"} <= set(arrays):
        return ""
    noise = noise_name((float(arrays["noise_in"]), float(arrays["noise_out"])))
    return (
        f" Modules trained on {arrays['subset']} types with noise {noise} (inputs / targets), "
        f"seed {arrays['seed']}."
    )


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if np.isfinite(value) else "invalid"


def numbers(values: np.ndarray) -> str:
    """Several numbers in a sentence."""
    return ", ".join(map(number, values))


def count(n: int, noun: str) -> str:
    """A number of things."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def plain_log(axis: Any, low: float, high: float) -> None:
    """Ticks of a logarithmic axis as plain numbers, several even where it is short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    long = high >= 8 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if long else MaxNLocator(6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
