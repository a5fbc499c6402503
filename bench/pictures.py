"""Pictures of result files."""

from __future__ import annotations

from typing import Any

from bench.figures import (
    Row,
    grouped_rows,
    in_ratio,
    in_seconds,
    in_threads,
    measured_rows,
    rate,
    seconds,
)
from bench.learning import plot_sinusoids
from bench.ways import GOAL_TIME, solver_findings

# Okabe and Ito's colours: told apart by colour-blind readers. One peer, one colour, everywhere.
_STYLES = {
    "micfast": ("#0072B2", "o"),
    "jax": ("#D55E00", "s"),
    "nn_lstm": ("#009E73", "^"),
    "compile": ("#CC79A7", "D"),
    "unrolled": ("#56B4E9", "P"),
    "original": ("#5A6572", "X"),
}
_OTHER_STYLE = ("#7FB8D8", "o")  # micfast on another instruction set
_INK, _GRID = "#1C2733", "#DDE2E7"
_LINE_WIDTH = 1.8


def plot(result: dict[str, Any]) -> Any:
    """A matplotlib Figure of the suite; None where there is nothing to draw."""
    if result["suite"] == "sinusoids":
        return plot_sinusoids(result["rows"])
    if result["suite"] in (
        "memory",
        "load",
        "drop-in",
        "dask",
        "learning",
        "fits",
    ) or not measured_rows(result["rows"]):
        return None
    if result["suite"] == "solvers":
        return _plot_solvers(result)
    if result["suite"] == "latency":
        return _plot_lines(result, ["N"])
    if result["suite"] == "scaling":
        return _plot_lines(result, ["N", "H", "T"])
    return _plot_dots(result)


_AXES = {"N": "targets N", "H": "hidden units H", "T": "time steps T"}


def _plot_lines(result: dict[str, Any], letters: list[str]) -> Any:
    """Time against a size, log axes; a line for each peer."""
    from matplotlib.figure import Figure

    per_target = result["suite"] == "latency"
    figure = Figure(figsize=(3.4 * len(letters) + 0.6 if len(letters) > 1 else 6, 3.9))
    axes = figure.subplots(1, len(letters), squeeze=False)[0]
    handles: dict[str, Any] = {}
    for ax, letter in zip(axes, letters, strict=True):
        rows = [
            row
            for row in measured_rows(result["rows"])
            if f"-{letter}" in row["case"]["id"]
            and row["threads"] == result["threads"]
            and row.get("kind") != "solver"
        ]
        sizes = sorted({row["case"][letter] for row in rows})
        for peer in dict.fromkeys(row["peer"] for row in rows):
            own = sorted((r for r in rows if r["peer"] == peer), key=lambda r: r["case"][letter])
            colour, marker = _STYLES.get(peer, _OTHER_STYLE)
            divisor = [r["case"]["N"] if per_target else 1 for r in own]
            times = [[value / d for value in seconds(r)] for r, d in zip(own, divisor, strict=True)]
            x = [r["case"][letter] for r in own]
            (line,) = ax.plot(
                x,
                [t[1] for t in times],
                color=colour,
                marker=marker,
                markersize=5,
                linewidth=2.4 if peer == "micfast" else _LINE_WIDTH,
                zorder=4 if peer == "micfast" else 3,
            )
            ax.fill_between(
                x, [t[0] for t in times], [t[2] for t in times], color=colour, alpha=0.15, lw=0
            )
            handles.setdefault(own[0]["label"], line)
        _log_axis(ax, sizes)
        ax.set_xlabel(_fixed_sizes(rows, letter))
    axes[0].set_ylabel("time per target" if per_target else "time")
    _finish(figure, result, list(handles.values()), list(handles))
    return figure


def _fixed_sizes(rows: list[Row], letter: str) -> str:
    case = rows[0]["case"] if rows else {}
    fixed = " ".join(f"{k}={case[k]}" for k in "MNHKOTI" if k in case and k != letter)
    return f"{_AXES[letter]}\n({fixed})"


def _log_axis(ax: Any, sizes: list[int]) -> None:
    from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, NullLocator

    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sizes))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(sizes, [str(size) for size in sizes])
    # 1, 2 and 5 in every decade: a narrow range shows numbers, too.
    ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    ax.yaxis.set_major_formatter(EngFormatter("s"))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.grid(True, color=_GRID, linewidth=0.7)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, colors=_INK)


_FAMILIES = {
    "adam": ("#1C2733", "*"),
    "lm": ("#0072B2", "o"),
    "lm-types": ("#009E73", "^"),
    "nearest-lm": ("#D55E00", "s"),
    "nearest3-lm": ("#CC79A7", "D"),
    "nearest-adam": ("#5A6572", "X"),
}


def _plot_solvers(result: dict[str, Any]) -> Any:
    """Error of the true class against time; a panel for each set of modules, a line a family."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, NullLocator

    groups = [rows for rows in map(measured_rows, grouped_rows(result["rows"])) if rows]
    n_columns = min(2, len(groups))
    n_lines = -(-len(groups) // n_columns)
    figure = Figure(figsize=(5.4 * n_columns + 0.4, 3.7 * n_lines + 0.9))
    axes = figure.subplots(n_lines, n_columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for ax, rows in zip(axes, groups, strict=False):
        for family in dict.fromkeys(row["family"] for row in rows):
            own = sorted((r for r in rows if r["family"] == family), key=lambda r: r["n_iter"])
            colour, marker = _FAMILIES.get(family, _OTHER_STYLE)
            times = [seconds(row)[1] for row in own]
            errors = [row["error_true"] for row in own]
            (line,) = ax.plot(
                times,
                errors,
                color=colour,
                marker=marker,
                markersize=13 if family == "adam" else 6,
                linewidth=_LINE_WIDTH,
                zorder=4 if family == "adam" else 3,
            )
            handles.setdefault(own[0]["family_label"], line)
            for row, x, y in zip(own, times, errors, strict=True):
                ax.annotate(
                    str(row["n_iter"]),
                    (x, y),
                    xytext=(5, 5),
                    textcoords="offset points",
                    fontsize=7.5,
                    color=colour,
                )
        adam = solver_findings(rows)["adam"]
        if adam:
            quarter = GOAL_TIME * seconds(adam)[1]
            ax.axhline(adam["error_true"], color="#66727F", linewidth=0.9, linestyle=(0, (4, 3)))
            ax.axvline(quarter, color="#66727F", linewidth=0.9, linestyle=(0, (4, 3)))
            ax.annotate(
                "1/4 of Adam-50's time",
                (quarter, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -3),
                textcoords="offset points",
                fontsize=7.5,
                color="#66727F",
                va="top",
            )
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
        ax.xaxis.set_major_formatter(EngFormatter("s"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.margins(x=0.08, y=0.12)
        ax.grid(True, color=_GRID, linewidth=0.7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=_INK)
        case = rows[0]["case"]
        ax.set_title(
            f"{case['data']}, noise {case['noise_in']:g} / {case['noise_out']:g}  "
            f"(M={case['M']} N={case['N']} T={case['T']})",
            fontsize=9.5,
            loc="left",
            color=_INK,
        )
        ax.set_ylabel("mean error of the true class", fontsize=9)
        ax.set_xlabel("time of all inversions", fontsize=9)
    for ax in axes[len(groups) :]:
        ax.remove()
    caption = "1 thread; numbers: iterations or steps; medians"
    _finish(figure, result, list(handles.values()), list(handles), caption)
    return figure


def _plot_dots(result: dict[str, Any]) -> Any:
    """One panel a case with a dot for each peer, log axis, and how much faster micfast is."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    groups = [
        measured
        for rows in grouped_rows(result["rows"])
        if len(measured := measured_rows(rows)) > 1 or len(rows) > 1
    ]
    groups = [rows for rows in groups if rows] or [measured_rows(result["rows"])]
    training = result["suite"] == "training"
    n_rows = max(len(rows) for rows in groups)
    figure = Figure(figsize=(5.2 * len(groups) + 0.4, 1.5 + 0.36 * n_rows))
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    for ax, rows in zip(axes, groups, strict=True):
        reference = next((r for r in rows if r["peer"] == "micfast"), None)
        values = [rate(r) if training else seconds(r)[1] for r in rows]
        for y, (row, value) in enumerate(zip(rows, values, strict=True)):
            colour, marker = _STYLES.get(row["peer"], _OTHER_STYLE)
            ax.plot([value], [y], marker=marker, color=colour, markersize=8, zorder=3)
            text = f"{value:,.0f}/s" if training else in_seconds(value)
            if reference is not None and row is not reference:
                text += f"  ({in_ratio(row, reference)})"
            ax.annotate(
                text,
                (value, y),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=_INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            )
        ax.set_xscale("log")
        # Room on the right for the longest text of the rightmost dot.
        span = max(max(values) / min(values), 10)
        ax.set_xlim(min(values) / span**0.08, max(values) * span**0.55)
        ax.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_yticks(range(len(rows)), [row["label"] for row in rows], fontsize=9)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.grid(True, axis="x", color=_GRID, linewidth=0.7)
        ax.set_axisbelow(True)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", labelsize=8)
        case = rows[0]["case"]
        sizes = " ".join(f"{k}={case[k]}" for k in "MNHOTI" if k in case)
        ax.set_title(f"{case['id']}\n{sizes}", fontsize=9.5, loc="left", color=_INK)
        ax.set_xlabel("model-episodes per second" if training else "seconds for the whole job")
    _finish(figure, result, [], [])
    return figure


def _finish(
    figure: Any,
    result: dict[str, Any],
    handles: list[Any],
    labels: list[str],
    what: str | None = None,
) -> None:
    """Legend above, the machine below, nothing overlapping."""
    height = figure.get_size_inches()[1]
    machine = result["machine"]
    if what is None:
        what = f"{in_threads(result['threads'])}; " + (
            "medians, quartiles shaded"
            if handles
            else "medians; in brackets: how much slower than micfast"
        )
    commit = f"commit {result['git']['commit'][:12]}, {result['date'][:10]}"
    caption = f"{machine['cpu']}, {result['isa']}, {what}; {commit}"
    if result["quick"]:
        caption = f"TOY SIZES (--quick). {caption}"
    figure.text(0.01, 0.1 / height, caption, fontsize=7, color="#66727F", va="bottom")
    top = 1.0
    if handles:
        n_columns = min(len(labels), 3)
        n_lines = -(-len(labels) // n_columns)
        figure.legend(
            handles, labels, loc="upper center", ncols=n_columns, frameon=False, fontsize=9
        )
        top -= (0.1 + 0.24 * n_lines) / height
    figure.tight_layout(rect=(0, 0.25 / height, 1, top))
