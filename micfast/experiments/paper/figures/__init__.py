"""The figures of the reproduction, drawn from the raw files and the paper's printed numbers."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from micfast.experiments.paper.raw import load_raw, read_arrays
from micfast.io import atomic_path

if TYPE_CHECKING:
    from micfast.experiments.paper.figures.common import Drawing
    from micfast.experiments.paper.raw import RawResults

__all__ = ["FIGURES", "FigureFile", "draw_figures"]

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
_CROSS = ("labels", "train", "test")
_DECISION = ("label", "target", "labels", "drawn", "errors", "error_history")
_RECONSTRUCTION = (
    "label", "types", "types_drawn", "types_errors",
    "targets", "targets_drawn", "targets_errors", "targets_latents",
)  # fmt: skip


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
        Names of figures or of experiments (``"figure7"``, ``"table13"``): draw only what belongs to
        them. An experiment without a figure is no error.

    Returns
    -------
    list of FigureFile
        In the order of :data:`FIGURES`; figures without raw files are left out.

    Examples
    --------
    >>> files = draw_figures("results/raw", "results/figures", only=["figure7"])  # doctest: +SKIP
    """
    import matplotlib.style

    from micfast.experiments.paper.figures.common import STYLE

    raw, folder = Path(raw), Path(folder)
    results = load_raw(raw)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with matplotlib.style.context(["default", STYLE]):
        for name, experiments in FIGURES.items():
            if only is None or {name, *experiments} & set(only):
                drawing = draw(name, raw, results)
                if drawing is not None:
                    files.append(_write(name, drawing, folder))
    return files


def draw(name: str, raw: Path, results: RawResults) -> Drawing | None:
    """One figure; None if its raw files aren't there."""
    from micfast.experiments.paper.figures import accuracy, cross, sequences

    if name == "figure7":
        paths = {data: raw / f"cross-{data}.npz" for data in ("mnist", "characters")}
        found = {data: read_arrays(p, *_CROSS) for data, p in paths.items() if p.is_file()}
        return cross.draw_cross(found) if found else None
    if name.startswith("figure"):
        data = {"figure5": "mnist", "figure6": "characters"}.get(name) or name.split("-")[1]
        kind = "decision" if name.startswith("figure3") else "reconstruction"
        path = raw / f"{kind}-{data}.npz"
        if not path.is_file():
            return None
        if kind == "decision":
            return sequences.draw_decision(read_arrays(path, *_DECISION), data)
        return sequences.draw_reconstruction(read_arrays(path, *_RECONSTRUCTION), data)
    if name.startswith("classes-"):
        return accuracy.draw_classes(results, name.removeprefix("classes-"))
    return {
        "noise-accuracy": accuracy.draw_noise,
        "iterations": accuracy.draw_iterations,
        "comparison": accuracy.draw_comparison,
    }[name](results)


def _write(name: str, drawing: Drawing, folder: Path) -> FigureFile:
    png, svg = (folder / f"{name}.{suffix}" for suffix in ("png", "svg"))
    # Arranged once; what is saved then keeps the places.
    drawing.fig.draw_without_rendering()
    drawing.fig.set_layout_engine("none")
    for path, metadata in ((png, None), (svg, {"Date": None})):
        with atomic_path(path) as temporary:
            drawing.fig.savefig(temporary, dpi=drawing.fig.dpi, metadata=metadata)
    return FigureFile(name, drawing.title, drawing.caption, drawing.alt, png, svg)
