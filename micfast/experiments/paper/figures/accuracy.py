"""Accuracies of ours beside the paper's: noise grid, iterations, classes, all methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.experiments.paper import published
from micfast.experiments.paper.figures.common import (
    DATA,
    MAP,
    OURS,
    PAPER,
    Drawing,
    count,
    new_figure,
    noise_name,
    number,
)
from micfast.experiments.paper.raw import NOISE, RawResults, held_out_best
from micfast.experiments.paper.settings import SUBSETS
from micfast.experiments.paper.statistics import mean_interval, prediction_interval
from micfast.plotting.drawing import FRAME, MUTED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_classes", "draw_comparison", "draw_iterations", "draw_noise"]

Setting = tuple[float, float]
# How the paper's single run, a seed of ours and a mean of ours look.
_HOLLOW: dict[str, Any] = {
    "linestyle": "none",
    "marker": "D",
    "markersize": 4.4,
    "markerfacecolor": "white",
    "markeredgewidth": 1.2,
}
_SEED: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 3.4,
    "markeredgewidth": 0,
    "alpha": 0.35,
}
_MEAN: dict[str, Any] = {"marker": "|", "markersize": 7.5, "markeredgewidth": 2.0, "linewidth": 2.2}


def _sets(results: RawResults) -> list[tuple[str, str]]:
    """The pairs of data set and choice of types with full inversions, in the paper's order."""
    return [cell for cell in published.CELLS if len(results.grid(*cell))]


def _n_seeds(results: RawResults) -> int:
    return int(results.runs["seed"].nunique())


def _dots(
    ax: Axes,
    values: Sequence[float] | pd.Series,
    y: float,
    colour: str = OURS,
    *,
    runs: bool = False,
) -> None:
    """Seeds as faint dots, their mean with its interval on top.

    With ``runs`` a thin line shows where another single run would fall.
    """
    if not len(values):
        return
    if len(values) > 1:
        ax.plot(values, np.full(len(values), y), color=colour, **_SEED)
        if runs:
            expected = prediction_interval(values)
            ax.plot([expected.low, expected.high], [y, y], color=colour, linewidth=0.8)
    mean = mean_interval(values)
    ax.plot([mean.low, mean.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
    ax.plot(mean.estimate, y, color=colour, **_MEAN)


def _hollow(ax: Axes, value: float | None, y: float, colour: str = PAPER) -> None:
    if value is not None:
        ax.plot(value, y, markeredgecolor=colour, zorder=4, **_HOLLOW)


def _legend(fig: Figure, *entries: tuple[str, str, dict[str, Any]]) -> None:
    """Key of marks given by their name, colour and look."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=label, markeredgecolor=colour, **({"color": colour} | look))
        for label, colour, look in entries
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _seed_legend(fig: Figure, n_seeds: int) -> None:
    paper = ("paper (one run)", PAPER, _HOLLOW)
    if n_seeds > 1:
        mean = ("ours, mean with 95 % interval", OURS, _MEAN)
        _legend(fig, ("ours, one seed", OURS, _SEED), mean, paper)
    else:
        _legend(fig, ("ours, one seed", OURS, _MEAN | {"linestyle": "none"}), paper)


def _finish(ax: Axes, names: Iterable[str] = ()) -> None:
    """Rows of a dot plot with their names, the first at the top."""
    names = list(names)
    if names:
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.spines[["top", "right"]].set_visible(False)


def _by_setting(frame: pd.DataFrame, column: str) -> dict[Setting, float]:
    return frame.set_index(NOISE)[column].to_dict()


# -- the noise grid ------------------------------------------------------------------------------


def draw_noise(results: RawResults) -> Drawing | None:
    """Accuracy of every noise setting."""
    grids = {cell: results.grid(*cell) for cell in _sets(results)}
    if not grids:
        return None
    rows = [data for data in DATA if any(data == d for d, _ in grids)]
    columns = [subset for subset in SUBSETS if any(subset == s for _, s in grids)]
    longest = max(grid.shape[1] for grid in grids.values())
    fig = new_figure(len(rows) * (0.2 * longest + 0.6) + 0.55)
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
            values, printed = grid[setting].dropna(), paper.get(setting)
            _dots(ax, values, y - 0.13, runs=True)
            _hollow(ax, printed, y + 0.24)
            if printed is not None and len(values) > 1:
                expected = prediction_interval(values)
                n_compared += 1
                n_outside += not expected.low <= printed <= expected.high
        _finish(ax, map(noise_name, grid))
        ax.set_title(f"{DATA[data]}, {subset} types")
    for ax in axes[-1]:
        ax.set_xlabel("accuracy")
    fig.supylabel("noise on inputs / on targets")
    _seed_legend(fig, _n_seeds(results))
    caption = (
        "Accuracy after inversion over the noise settings (on inputs / on targets during "
        f"training): ours over {count(_n_seeds(results), 'seed')} and the paper's single run."
    )
    if n_compared:
        caption += (
            " Thick lines: 95 % interval of the mean; thin lines: where 95 % of single runs are "
            f"expected, which leaves out {n_outside} of the paper's {n_compared} accuracies."
        )
    means = "; ".join(
        f"{DATA[d]} {s}: {np.nanmean(grid.to_numpy()):.3f}" for (d, s), grid in grids.items()
    )
    alt = f"Dot plots, one per data set and choice of types. Mean accuracy of ours: {means}."
    return Drawing(fig, "Accuracy over the noise grid", caption, alt)


# -- 0 against 50 iterations ---------------------------------------------------------------------


def draw_iterations(results: RawResults) -> Drawing | None:
    """Accuracy and error before and after the inversion."""
    n_iter, printed = results.n_iter, published.iterations()
    sets = [cell for cell in _sets(results) if len(results.grid(*cell, n_iter=0))]
    if not sets or not n_iter:
        return None
    longest = max(results.grid(*cell).shape[1] for cell in sets)
    fig = new_figure(len(sets) * (0.17 * longest + 0.55) + 0.7)
    axes = fig.subplots(len(sets), 2, squeeze=False)
    sentences: list[str] = []
    # Errors of the two data sets differ by a factor of five or so.
    first_row = {data: row for row, (data, _) in reversed(list(enumerate(sets)))}
    for row, (data, subset) in enumerate(sets):
        for column, with_row in ((0, 0), (1, first_row[data])):
            if row != with_row:
                axes[row, column].sharex(axes[with_row, column])
        paper = printed[(printed["data"] == data) & (printed["subset"] == subset)]
        settings, means = list(results.grid(data, subset)), {}
        for ax, value in zip(axes[row], ("accuracy", "mse"), strict=True):
            for n, shown, colour in ((0, 0, MUTED), (n_iter, 50, OURS)):
                grid = results.grid(data, subset, n_iter=n, value=value)
                means[value, n] = np.nanmean(grid.to_numpy())
                printed_values = _by_setting(paper, f"{value}_{shown}")
                for y, setting in enumerate(settings):
                    if setting in grid:
                        _dots(ax, grid[setting].dropna(), y - 0.13, colour)
                    _hollow(ax, printed_values.get(setting), y + 0.24, colour)
            _finish(ax, map(noise_name, settings))
        axes[row, 0].set_title(f"{DATA[data]}, {subset} types")
        axes[row, 1].tick_params(labelleft=False)
        sentences.append(
            f"{DATA[data]} {subset}: accuracy {means['accuracy', 0]:.3f} to "
            f"{means['accuracy', n_iter]:.3f}, error {number(means['mse', 0])} to "
            f"{number(means['mse', n_iter])}"
        )
    axes[-1, 0].set_xlabel("accuracy")
    axes[-1, 1].set_xlabel("mean squared error of the true class's module")
    for row in first_row.values():
        axes[row, 1].set_xlim(left=0)
    fig.supylabel("noise on inputs / on targets")
    _legend(
        fig,
        ("ours, 0 iterations", MUTED, _MEAN),
        (f"ours, {n_iter} iterations", OURS, _MEAN),
        ("paper, 0", MUTED, _HOLLOW),
        ("paper, 50", OURS, _HOLLOW),
    )
    caption = (
        f"What inversion adds: accuracy (left) and error (right) before it, with the even type "
        f"vector, and after {n_iter} iterations; ours with the mean of "
        f"{count(_n_seeds(results), 'seed')} and its 95 % interval, the paper's single run hollow "
        f"(Table 13 as printed). Means over the noise settings: {'; '.join(sentences)}."
    )
    alt = f"Dot plots by data set and noise setting. {'; '.join(sentences)}."
    return Drawing(fig, f"0 against {n_iter} iterations", caption, alt)


# -- classes -------------------------------------------------------------------------------------


def draw_classes(results: RawResults, data: str) -> Drawing | None:
    """Accuracy of every class over the noise settings, ours above the paper's."""
    classes = results.classes
    classes = classes[(classes["data"] == data) & (classes["n_iter"] == results.n_iter)]
    if not len(classes) or not results.n_iter:
        return None
    labels = sorted(classes["label"].unique())
    panels: dict[str, pd.DataFrame] = {}
    sentences = []
    for subset in SUBSETS:
        here = classes[classes["subset"] == subset]
        if not len(here):
            continue
        ours = here.pivot_table(index=NOISE, columns="label", values="accuracy")[labels]
        printed = published.noise_grid(data, subset).set_index(NOISE)
        panels[f"{subset} types, ours"] = ours
        panels[f"{subset} types, paper"] = printed.reindex(index=ours.index, columns=labels)
        hardest = ", ".join(
            f"{name} ({100 * value:.0f} %)" for name, value in ours.mean().nsmallest(3).items()
        )
        sentences.append(f"{subset} types: hardest for ours {hardest}")
    ratios = [len(frame) for frame in panels.values()]
    fig = new_figure(0.2 * sum(ratios) + 0.47 * len(panels) + 0.85)
    axes = fig.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)[:, 0]
    image: Any = None
    for ax, (title, frame) in zip(axes, panels.items(), strict=True):
        values = 100 * frame.to_numpy(float)
        image = ax.imshow(values, cmap=MAP, vmin=0, vmax=100, aspect="auto")
        ax.set_facecolor("#E9ECEF")
        for (y, x), value in np.ndenumerate(values):
            if np.isfinite(value):
                ink = "white" if value < 48 else "black"
                ax.text(x, y, f"{value:.0f}", ha="center", va="center", color=ink)
        ax.set_xticks(range(len(labels)), labels)
        ax.set_yticks(range(len(frame)), list(map(noise_name, frame.index)))
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(f"{DATA[data]}, {title}")
    axes[-1].set_xlabel("class")
    fig.supylabel("noise on inputs / on targets")
    bar = fig.colorbar(
        image, ax=list(axes), orientation="horizontal", aspect=50, pad=0.01, shrink=0.6
    )
    bar.set_label("accuracy in %")
    bar.outline.set_linewidth(0.5)
    unprinted = [label for label in labels if list(panels.values())[1][label].isna().all()]
    missing = f" The paper doesn't print {', '.join(unprinted)} (grey)." if unprinted else ""
    caption = (
        f"Accuracy per class over the noise settings, in %: ours (mean of "
        f"{count(_n_seeds(results), 'seed')}) above the paper's single run. "
        f"{'; '.join(sentences).capitalize()}.{missing}"
    )
    alt = f"Heat maps, noise setting by class, with numbers. {'; '.join(sentences)}."
    return Drawing(fig, f"Accuracy per class: {DATA[data]}", caption, alt)


# -- all methods beside each other ---------------------------------------------------------------

_FORWARD = {"keras-lstm": "forward LSTM (Keras)", "torch-lstm": "forward LSTM (torch)"}
_BASELINES = {
    "mic-default-training": "MIC, default training",
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
_METHODS = (*_MIC.values(), *_FORWARD.values(), *_BASELINES.values())
_TRAINING = {
    "clustered": "4 clustered types per class",
    "random": "4 random types per class",
    "full": "all training sequences",
}


def draw_comparison(results: RawResults) -> Drawing | None:
    """All methods; None where there is MIC alone."""
    ours, paper = _method_values(results), _method_printed()
    if not any(method not in _MIC.values() for _, _, method in ours):
        return None
    datas = [data for data in DATA if any(data == d for d, _, _ in ours)]
    blocks = {
        subset: [m for m in _METHODS if any((data, subset, m) in ours for data in datas)]
        for subset in _TRAINING
    }
    blocks = {subset: methods for subset, methods in blocks.items() if methods}
    ratios = [len(methods) for methods in blocks.values()]
    fig = new_figure(0.215 * sum(ratios) + 0.3 * len(blocks) + 0.75)
    axes = fig.subplots(len(blocks), len(datas), squeeze=False, sharex=True, height_ratios=ratios)
    sentences = []
    for column, data in enumerate(datas):
        highest = []
        for row, (subset, methods) in enumerate(blocks.items()):
            ax = axes[row, column]
            for y, method in enumerate(methods):
                _dots(ax, ours.get((data, subset, method), ()), y - 0.1)
                _hollow(ax, paper.get((data, subset, method)), y + 0.24)
            _finish(ax, methods)
            ax.tick_params(labelleft=column == 0)
            ax.set_title(f"{DATA[data]}, {_TRAINING[subset].removesuffix(' per class')}")
            # What the test sequences themselves chose is not called the highest.
            means = {
                method: ours[data, subset, method].mean()
                for method in methods
                if method != _MIC["best"] and (data, subset, method) in ours
            }
            if means:
                best = max(means, key=lambda method: means[method])
                highest.append(f"{best} on {_TRAINING[subset]} ({means[best]:.3f})")
        axes[-1, column].set_xlabel("accuracy")
        sentences.append(f"Highest mean, {DATA[data]}: {'; '.join(highest)}")
    for ax in axes.flat:
        ax.spines["bottom"].set_edgecolor(FRAME)
    _seed_legend(fig, max(map(len, ours.values())))
    caption = (
        "All methods on the same test sequences; not all have run over the same number of seeds. "
        "“Best noise (paper's way)” is the highest of the nine accuracies of a run, “held out” the "
        f"accuracy at the setting that is best for the other seeds. {'. '.join(sentences)}."
    )
    alt = f"Dot plot of accuracies by method. {'. '.join(sentences)}."
    return Drawing(fig, "All methods beside each other", caption, alt)


def _method_values(results: RawResults) -> dict[tuple[str, str, str], np.ndarray]:
    """(data, subset, method) -> accuracies of the seeds."""
    found = {}
    for data in DATA:
        for subset in _TRAINING:
            grid = results.grid(data, subset)
            several = grid.dropna() if grid.shape[1] > 1 else grid.iloc[:0]
            values = {
                _MIC["base"]: results.base(data, subset),
                _MIC["best"]: several.max(axis=1),
                _MIC["held"]: held_out_best(several),
            }
            for method, name in (_FORWARD | _BASELINES).items():
                values[name] = results.method(method, data, subset)["accuracy"]
            for name, accuracies in values.items():
                if len(accuracies):
                    found[data, subset, name] = accuracies.to_numpy(float)
    return found


def _method_printed() -> dict[tuple[str, str, str], float]:
    """The paper's figures; its forward classification is Keras', from Table 5."""
    forward, mic = published.forward(), published.comparison()
    printed = {
        (row.data, row.subset, _FORWARD["keras-lstm"]): row.accuracy for row in forward.itertuples()
    }
    for row in mic.itertuples():
        for key, name in _MIC.items():
            if row.method.endswith(f"(MIC {key})"):
                printed[row.data, row.method.split()[0], name] = row.accuracy
    return printed
