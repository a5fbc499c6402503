"""Tables and pictures from result files; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from bench.load import FLAT_MB, FLAT_PACE
from bench.run import load
from bench.solvers import ADAM

Row = dict[str, Any]

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


def report(paths: Iterable[Path]) -> str:
    """Write ``.md`` and ``.png`` beside every result file; return the tables' text.

    Raises
    ------
    ValueError
        If a file is no result file.
    """
    texts = []
    for path in paths:
        result = load(path)
        text = markdown(result)
        path.with_suffix(".md").write_text(text)
        figure = plot(result)
        if figure is not None:
            figure.savefig(path.with_suffix(".png"), dpi=200)
        texts.append(text)
    return "\n".join(texts)


# ------------------------------------------------------------------------------------------ figures


def seconds(row: Row) -> list[float]:
    """First quartile, median and third quartile of a row's time for its whole case."""
    samples = sorted(row["samples_s"])
    low, _, high = quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else samples * 3
    scale = _scale(row)
    return [low * scale, median(samples) * scale, high * scale]


def _scale(row: Row) -> float:
    return row["measured"]["of"] / row["measured"]["amount"]


def rate(row: Row) -> float:
    """Units of work (pairs, model-episodes) a second."""
    return row["case"]["amount"] / seconds(row)[1]


def peak(result: dict[str, Any], n_threads: int) -> float | None:
    """The machine's FMA peak in flop/s: the best instruction set's median."""
    samples: dict[str, list[float]] = {}
    for entry in result["fma_peak"]:
        if entry["threads"] == n_threads:
            samples.setdefault(entry["isa"], []).extend(entry["flops_per_s"])
    return max((median(values) for values in samples.values() if values), default=None)


def _groups(rows: list[Row]) -> list[list[Row]]:
    """Rows of one case and number of threads."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["case"]["id"], row["threads"]), []).append(row)
    return list(groups.values())


def _measured(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["status"] == "ok"]


# ------------------------------------------------------------------------------------------- tables


def markdown(result: dict[str, Any]) -> str:
    """Everything a reader needs: the machine, the tables, how to run it again."""
    parts = [f"# {result['suite'].capitalize()}", ""]
    if result["quick"]:
        parts += ["**Toy sizes (`--quick`): these times say nothing about speed.**", ""]
    parts += [*_header(result), ""]
    if result["suite"] == "memory":
        parts += _memory_table(result["rows"])
    elif result["suite"] == "load":
        parts += _load_table(result["rows"])
    elif result["suite"] == "solvers":
        parts += _solver_tables(result)
    else:
        for rows in _groups(result["rows"]):
            parts += [*_case_table(result, rows), ""]
        parts += _footnotes(result)
    return "\n".join(parts).rstrip() + "\n"


def _header(result: dict[str, Any]) -> list[str]:
    machine, git = result["machine"], result["git"]
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    dirty = " with uncommitted changes" if git["dirty"] else ""
    lines = [
        f"- {machine['cpu']}, {machine['cores']} cores ({machine['architecture']}, "
        f"{machine['system']}), {_threads(result['threads'])}, "
        f"load {machine['load_before']} at the start",
        f"- {versions}; kernel built by {result['compiler']}, runs on {result['isa']}",
        f"- commit {git['commit'][:12]}{dirty}, {result['date']}, {result['seconds']:.0f} s",
    ]
    for n_threads in sorted({entry["threads"] for entry in result["fma_peak"]}):
        limit = peak(result, n_threads)
        figure = f"{limit / 1e9:.0f} GFLOP/s" if limit else "not measured"
        if not limit and result.get("fma_peak_missing"):
            figure += f" ({result['fma_peak_missing']})"
        lines.append(f"- float32 FMA peak in this run, {_threads(n_threads)}: {figure}")
    suite = result["suite"]
    lines.append(f"- again: `python -m bench run --suite {suite}{_quick_flag(result)}`")
    return lines


def _quick_flag(result: dict[str, Any]) -> str:
    return " --quick" if result["quick"] else ""


def _threads(n: int) -> str:
    return f"{n} thread" + ("s" if n > 1 else "")


def _case_table(result: dict[str, Any], rows: list[Row]) -> list[str]:
    case = rows[0]["case"]
    sizes = " ".join(f"{key}={case[key]}" for key in "MNHKOTIE" if key in case)
    training = case["unit"] == "model-episode"
    unit = "model-episodes/s" if training else "time per target"
    reference = next((r for r in _measured(rows) if r["peer"] == "micfast"), None)
    limit = peak(result, rows[0]["threads"])
    lines = [
        f"## {case['id']}, {_threads(rows[0]['threads'])}",
        "",
        f"{sizes}; {case['flop'] / 1e9:.3g} GFLOP",
        "",
        f"| | time [quartiles] | {unit} | of micfast's time | GFLOP/s | of FMA peak "
        "| off the reference by | remarks |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        if row["status"] != "ok":
            lines.append(f"| {row['label']} | {row['status']} | | | | | | {row['note']} |")
            continue
        low, middle, high = seconds(row)
        speed = case["flop"] / middle
        # The flop are Adam's.
        counted = row.get("kind") != "solver"
        gflops = f"{speed / 1e9:.3g}" if counted else ""
        work = f"{rate(row):,.0f}" if training else _time(middle / case["N"])
        ratio = _ratio(row, reference) if reference else ""
        share = f"{100 * speed / limit:.3g} %" if limit and counted else ""
        lines.append(
            f"| {row['label']} | {_time(middle)} [{_time(low)}, {_time(high)}] | {work} | {ratio} "
            f"| {gflops} | {share} | {row['equality']['difference']:.0e} "
            f"| {_remarks(row)} |"
        )
    return lines


def _ratio(row: Row, reference: Row) -> str:
    """How many times the reference's time a row takes."""
    value = seconds(row)[1] / seconds(reference)[1]
    return f"{value:.0f}x" if value >= 100 else f"{value:.3g}x"


def _remarks(row: Row) -> str:
    remarks = [row["note"]] if row["note"] else []
    measured = row["measured"]
    if measured["amount"] != measured["of"]:
        unit = measured["unit"]
        remarks.append(f"extrapolated from {measured['amount']:,} of {measured['of']:,} {unit}s")
    if row.get("compile_s") is not None:
        remarks.append(f"compiled in {_time(row['compile_s'])}, not counted")
    remarks.append(f"{len(row['samples_s'])} samples")
    return "; ".join(remarks)


def _time(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value:.0f} s"
    return f"{value / 1e-6:.3g} µs"


def _footnotes(result: dict[str, Any]) -> list[str]:
    tolerance = result["tolerance"]
    # Older results were compared after all iterations only.
    equalities = [row["equality"] for row in result["rows"] if "equality" in row]
    few = next((e["iterations"][-1] for e in equalities if e.get("iterations")), None)
    when = f"after {few} and after all iterations " if few else ""
    lines = [
        f"Before its time is taken, a peer's errors {when}(losses, "
        "in training) are held against the reference in float64 on a sample; the largest "
        "difference, relative to the largest value, must be at most "
        f"{tolerance['inversion']:g} ({tolerance['training']:g}). All compute in "
        "float32. Medians of the samples; peers take turns. GFLOP counts matrix work alone: "
        "4(4HH+OH) for each step, target, module and iteration, 6(4HH+OH) for each step of a "
        "training episode."
    ]
    if any(row.get("kind") == "solver" for row in result["rows"]):
        lines += [
            "",
            "Rows of another algorithm do another job: they end at other errors than Adam's, held "
            "against their own reference, and the GFLOP are not theirs. What errors they reach on "
            "trained modules: suite `solvers`.",
        ]
    peers = {row["peer"] for row in _measured(result["rows"])}
    if "jax" in peers:
        lines += [
            "",
            "JAX is kept to as many CPUs as the others have threads, by pinning. In training it "
            "draws its own random numbers, as micfast and the original do.",
        ]
    return lines


def _memory_table(rows: list[Row]) -> list[str]:
    lines = [
        "Peak of resident memory during the call above what was resident before it, each row in a "
        "process of its own, compiled and warm. `results`: the arrays returned; `file`: the "
        "memory-mapped targets, whose pages count as resident though the system may drop them. "
        "Both are part of the peak.",
        "",
        "| case | N | | peak extra | results | file | the rest | time | remarks |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        start = f"| {row['case']['id']} | {row['case']['N']:,} | {row['label']} |"
        if "peak_extra_mb" not in row:
            lines.append(f"{start} {row['status']} | | | | | {row['note']} |")
            continue
        extra, results, file = (row[f"{name}_mb"] for name in ("peak_extra", "results", "file"))
        rest = max(0.0, extra - results - file)
        numbers = " | ".join(f"{value:.1f} MB" for value in (extra, results, file, rest))
        lines.append(f"{start} {numbers} | {_time(row['seconds'])} | {row['note']} |")
    return lines


def _load_table(rows: list[Row]) -> list[str]:
    case = rows[0]["case"]
    lines = [
        f"{case['N']:,} targets of {case['T']} steps and {case['O']} channels from a file, "
        f"{case['M']} modules of {case['H']} hidden units. Pace: the largest part by which a tenth "
        f"of the run is off the median tenth; flat up to {FLAT_PACE:.0%}. Memory: resident, backed "
        "by no file, beyond what was there before and beyond the results so far: its peak, and how "
        f"it grows after the second tenth, at ends of chunks; flat up to {FLAT_MB:g} MB.",
        "",
        "| search | results | time | targets/s | pace | | peak memory | growth | | remarks |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        flat = {name: "flat" if is_flat else "NOT flat" for name, is_flat in row["flat"].items()}
        lines.append(
            f"| {row['label']} | {row['sink']} ({row['results_mb']:.0f} MB) "
            f"| {_time(row['seconds'])} | {median(row['targets_per_s']):,.0f} "
            f"| {row['pace']:.1%} | {flat['pace']} | {row['peak_mb']:.1f} MB "
            f"| {row['growth_mb']:.1f} MB | {flat['memory']} | {row['note']} |"
        )
    lines += ["", "Targets a second in each tenth:", ""]
    for row in rows:
        tenths = ", ".join(f"{pace:,.0f}" for pace in row["targets_per_s"])
        lines.append(f"- {row['label']}, {row['sink']}: {tenths}")
    return lines


# ----------------------------------------------------------------------------------- ways to search

GOAL_TIME, GOAL_LOWER = 1 / 4, 0.95


def solver_findings(rows: list[Row]) -> dict[str, Any]:
    """What the rows of one case of the solvers suite say.

    Returns
    -------
    dict
        ``adam``: Adam's row, None if it wasn't measured. ``reaches``: the rows of other ways whose
        mean error of the true class is at most Adam's, quickest first. ``lower``: those that lower
        the error on at least 95 % of the pairs; ``not_above``: those that lower it or end at the
        same; quickest first. ``first_of_family``: for each family, its first number of steps that
        reaches, or None.
    """
    measured = _measured(rows)
    adam = next((row for row in measured if row["peer"] == ADAM), None)
    others = [row for row in measured if row is not adam] if adam else []
    others.sort(key=lambda row: seconds(row)[1])
    reaches = [row for row in others if row["error_true"] <= adam["error_true"]] if adam else []
    families = dict.fromkeys(row["family_label"] for row in rows if row["peer"] != ADAM)
    return {
        "adam": adam,
        "reaches": reaches,
        "lower": [row for row in others if row["lower_share"] >= GOAL_LOWER],
        "not_above": [
            row for row in others if row["lower_share"] + row["equal_share"] >= GOAL_LOWER
        ],
        "first_of_family": {
            family: min(
                (row for row in reaches if row["family_label"] == family),
                key=lambda row: row["n_iter"],
                default=None,
            )
            for family in families
        },
    }


def _solver_tables(result: dict[str, Any]) -> list[str]:
    groups = _groups(result["rows"])
    lines = [
        "Each way to search inverts the same unseen targets in the same trained modules, on one "
        "core, in turns. LM: Levenberg and Marquardt's method. *nearest*: starts at those mixtures "
        "of the types whose drawings are nearest to the target, among "
        f"{result['n_candidates']}. *types*: five starts, 1/K and each type.",
        "",
        "| modules | first to reach Adam-50's mean error | of its time | goal 1/4 "
        "| lower on 95 % of pairs |",
        "| --- | --- | ---: | --- | --- |",
    ]
    for rows in groups:
        found = solver_findings(rows)
        name = rows[0]["case"]["id"].removeprefix("solvers-")
        first = found["reaches"][0] if found["reaches"] else None
        share = _share_of(first, found["adam"]) if first else None
        lines.append(
            f"| {name} | {first['label'] if first else 'none'} "
            f"| {'' if share is None else _percent(share)} "
            f"| {'yes' if share is not None and share <= GOAL_TIME else 'no'} "
            f"| {_lower_cell(found, rows)} |"
        )
    lines.append("")
    for record in result["training"]:
        lines.append(
            f"- {record['data']}: {record['modules']} modules of {record['selection']} centroids, "
            f"both noise settings in one call: types {_time(record['types_s'])}, training "
            f"{_time(record['train_s'])} on {_threads(record['threads'])}"
            + (f"; **{record['note']}**" if record["note"] else "")
        )
    lines.append("")
    for rows in groups:
        lines += [*_solver_table(rows), ""]
    lines.append(
        "*Mean error*: of each target in the module of its true class. *Lower*, *equal*, *higher*: "
        "share of these pairs whose error is below Adam-50's, the same to the last bit of float32, "
        "or above it by more than 1 %. *Accuracy*: the module with the lowest error is the true "
        "one. *Off the reference by*: on a sample, each error timed against what "
        "`micfast.reference` measures in float64 at the input returned. *Searches as the "
        "reference's*: share of the sample that ends at the error of the reference in float64, "
        "kernel in float64 (to 1e-6), kernel and PyTorch in float32 (to 1 %): where a search meets "
        "a fork, the last bit decides. *nearest* finds its drawings, made once per bank and "
        "length, ready."
    )
    return lines


def _solver_table(rows: list[Row]) -> list[str]:
    case, found = rows[0]["case"], solver_findings(rows)
    adam_known = found["adam"] is not None
    sizes = " ".join(f"{key}={case[key]}" for key in "MNHKOTE")
    lines = [
        f"## {case['id']}, 1 thread",
        "",
        f"{sizes}; noise {case['noise_in']:g} on inputs, {case['noise_out']:g} on targets in "
        f"training; drawings for *nearest*: {_time(case['drawings_s'])}, once",
        "",
        "| | time [quartiles] | of Adam-50's time | mean error | lower | equal | higher "
        "| accuracy | off the reference by | searches as the reference's | remarks |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        if row["status"] != "ok":
            lines.append(f"| {row['label']} | {row['status']} | | | | | | | | | {row['note']} |")
            continue
        low, middle, high = seconds(row)
        share = _percent(_share_of(row, found["adam"])) if adam_known else ""
        pairs = " | ".join(
            _percent(row[f"{name}_share"]) if adam_known and row is not found["adam"] else ""
            for name in ("lower", "equal", "higher")
        )
        equality = row["equality"]
        lines.append(
            f"| {row['label']} | {_time(middle)} [{_time(low)}, {_time(high)}] | {share} "
            f"| {row['error_true']:.4g} | {pairs} | {row['accuracy']:.3f} "
            f"| {equality['difference']:.0e} "
            f"| {_percent(equality['same_double'])}, {_percent(equality['same_float'])} "
            f"(PyTorch {_percent(equality['same_torch'])}) "
            f"| {_remarks(row)} |"
        )
    if not adam_known:
        return [*lines, "", "Adam-50 was not measured: nothing to compare with."]
    firsts = []
    for family, row in found["first_of_family"].items():
        if row is None:
            firsts.append(f"{family}: none")
        else:
            steps = row["label"].removeprefix(f"{family}, ")
            firsts.append(f"{family}: {steps}, {_percent(_share_of(row, found['adam']))}")
    not_above = [
        f"{row['label']} ({_percent(row['lower_share'] + row['equal_share'])})"
        for row in found["not_above"]
    ]
    lower = [f"{row['label']} ({_percent(row['lower_share'])})" for row in found["lower"]]
    return [
        *lines,
        "",
        f"- First to reach Adam-50's mean error, and its share of the time: {'; '.join(firsts)}.",
        "- Lower error on at least 95 % of the pairs: "
        f"{', '.join(lower) or _lower_cell(found, rows)}.",
        f"- Lower or equal on at least 95 %: {', '.join(not_above) or 'none'}.",
    ]


def _lower_cell(found: dict[str, Any], rows: list[Row]) -> str:
    """The quickest way that lowers enough errors, else the one that lowers most."""
    if found["lower"]:
        row = found["lower"][0]
        return f"{row['label']} ({_percent(row['lower_share'])})"
    others = [row for row in _measured(rows) if "lower_share" in row]
    if not others:
        return "not measured"
    row = max(others, key=lambda row: row["lower_share"])
    return f"none; most: {row['label']}, {_percent(row['lower_share'])}"


def _share_of(row: Row, adam: Row) -> float:
    return seconds(row)[1] / seconds(adam)[1]


def _percent(share: float) -> str:
    """No rounding up to a goal: 94.96 % stays below 95 %."""
    return f"{np.floor(1000 * share + 1e-6) / 10:g} %"


# ----------------------------------------------------------------------------------------- pictures


def plot(result: dict[str, Any]) -> Any:
    """A matplotlib Figure of the suite; None where there is nothing to draw."""
    if result["suite"] in ("memory", "load") or not _measured(result["rows"]):
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
            for row in _measured(result["rows"])
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

    groups = [rows for rows in map(_measured, _groups(result["rows"])) if rows]
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
        for rows in _groups(result["rows"])
        if len(measured := _measured(rows)) > 1 or len(rows) > 1
    ]
    groups = [rows for rows in groups if rows] or [_measured(result["rows"])]
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
            text = f"{value:,.0f}/s" if training else _time(value)
            if reference is not None and row is not reference:
                text += f"  ({_ratio(row, reference)})"
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
        what = f"{_threads(result['threads'])}; " + (
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
