"""Tables and pictures from result files; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from bench.cluster import dask_table
from bench.dropin import dropin_table
from bench.figures import (
    Row,
    grouped_rows,
    in_ratio,
    in_seconds,
    in_threads,
    measured_rows,
    peak,
    rate,
    remarks_of,
    seconds,
)
from bench.fits import fits_table
from bench.learning import learning_table, sinusoids_table
from bench.load import FLAT_MB, FLAT_PACE
from bench.pictures import plot
from bench.run import load
from bench.ways import solver_tables


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
    elif result["suite"] == "drop-in":
        parts += dropin_table(result)
    elif result["suite"] == "dask":
        parts += dask_table(result["rows"])
    elif result["suite"] == "learning":
        parts += learning_table(result["rows"])
    elif result["suite"] == "sinusoids":
        parts += sinusoids_table(result["rows"])
    elif result["suite"] == "fits":
        parts += fits_table(result["rows"])
    elif result["suite"] == "solvers":
        parts += solver_tables(result)
    else:
        for rows in grouped_rows(result["rows"]):
            parts += [*_case_table(result, rows), ""]
        parts += _footnotes(result)
    return "\n".join(parts).rstrip() + "\n"


def _header(result: dict[str, Any]) -> list[str]:
    machine, git = result["machine"], result["git"]
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    dirty = " with uncommitted changes" if git["dirty"] else ""
    lines = [
        f"- {machine['cpu']}, {machine['cores']} cores ({machine['architecture']}, "
        f"{machine['system']}), {in_threads(result['threads'])}, "
        f"load {machine['load_before']} at the start",
        f"- {versions}; kernel built by {result['compiler']}, runs on {result['isa']}",
        f"- commit {git['commit'][:12]}{dirty}, {result['date']}, {result['seconds']:.0f} s",
    ]
    for n_threads in sorted({entry["threads"] for entry in result["fma_peak"]}):
        limit = peak(result, n_threads)
        figure = f"{limit / 1e9:.0f} GFLOP/s" if limit else "not measured"
        if not limit and result.get("fma_peak_missing"):
            figure += f" ({result['fma_peak_missing']})"
        lines.append(f"- float32 FMA peak in this run, {in_threads(n_threads)}: {figure}")
    suite = result["suite"]
    lines.append(f"- again: `python -m bench run --suite {suite}{_quick_flag(result)}`")
    return lines


def _quick_flag(result: dict[str, Any]) -> str:
    return " --quick" if result["quick"] else ""


def _case_table(result: dict[str, Any], rows: list[Row]) -> list[str]:
    case = rows[0]["case"]
    sizes = " ".join(f"{key}={case[key]}" for key in "MNHKOTIE" if key in case)
    training = case["unit"] == "model-episode"
    unit = "model-episodes/s" if training else "time per target"
    reference = next((r for r in measured_rows(rows) if r["peer"] == "micfast"), None)
    limit = peak(result, rows[0]["threads"])
    lines = [
        f"## {case['id']}, {in_threads(rows[0]['threads'])}",
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
        work = f"{rate(row):,.0f}" if training else in_seconds(middle / case["N"])
        ratio = in_ratio(row, reference) if reference else ""
        share = f"{100 * speed / limit:.3g} %" if limit and counted else ""
        lines.append(
            f"| {row['label']} | {in_seconds(middle)} [{in_seconds(low)}, {in_seconds(high)}] "
            f"| {work} | {ratio} | {gflops} | {share} | {row['equality']['difference']:.0e} "
            f"| {remarks_of(row)} |"
        )
    return lines


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
    peers = {row["peer"] for row in measured_rows(result["rows"])}
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
        lines.append(f"{start} {numbers} | {in_seconds(row['seconds'])} | {row['note']} |")
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
            f"| {in_seconds(row['seconds'])} | {median(row['targets_per_s']):,.0f} "
            f"| {row['pace']:.1%} | {flat['pace']} | {row['peak_mb']:.1f} MB "
            f"| {row['growth_mb']:.1f} MB | {flat['memory']} | {row['note']} |"
        )
    lines += ["", "Targets a second in each tenth:", ""]
    for row in rows:
        tenths = ", ".join(f"{pace:,.0f}" for pace in row["targets_per_s"])
        lines.append(f"- {row['label']}, {row['sink']}: {tenths}")
    return lines
