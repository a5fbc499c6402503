"""Tables of the solvers suite."""

from __future__ import annotations

from typing import Any

from bench.figures import (
    Row,
    grouped_rows,
    in_percent,
    in_seconds,
    in_threads,
    measured_rows,
    remarks_of,
    seconds,
    time_share,
)
from bench.solvers import ADAM

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
    measured = measured_rows(rows)
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


def solver_tables(result: dict[str, Any]) -> list[str]:
    groups = grouped_rows(result["rows"])
    lines = [
        "Each way to search inverts the same unseen targets in the same trained modules, on one "
        "core, in turns. LM: the Levenberg–Marquardt method. *nearest*: starts at those mixtures "
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
        share = time_share(first, found["adam"]) if first else None
        lines.append(
            f"| {name} | {first['label'] if first else 'none'} "
            f"| {'' if share is None else in_percent(share)} "
            f"| {'yes' if share is not None and share <= GOAL_TIME else 'no'} "
            f"| {_lower_cell(found, rows)} |"
        )
    lines.append("")
    for record in result["training"]:
        lines.append(
            f"- {record['data']}: {record['modules']} modules of {record['selection']} centroids, "
            f"both noise settings in one call: types {in_seconds(record['types_s'])}, training "
            f"{in_seconds(record['train_s'])} on {in_threads(record['threads'])}"
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
        "`micfast.kernels.reference` measures in float64 at the input returned. *Searches as the "
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
        f"training; drawings for *nearest*: {in_seconds(case['drawings_s'])}, once",
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
        share = in_percent(time_share(row, found["adam"])) if adam_known else ""
        pairs = " | ".join(
            in_percent(row[f"{name}_share"]) if adam_known and row is not found["adam"] else ""
            for name in ("lower", "equal", "higher")
        )
        equality = row["equality"]
        lines.append(
            f"| {row['label']} | {in_seconds(middle)} [{in_seconds(low)}, {in_seconds(high)}] "
            f"| {share} | {row['error_true']:.4g} | {pairs} | {row['accuracy']:.3f} "
            f"| {equality['difference']:.0e} "
            f"| {in_percent(equality['same_double'])}, {in_percent(equality['same_float'])} "
            f"(PyTorch {in_percent(equality['same_torch'])}) "
            f"| {remarks_of(row)} |"
        )
    if not adam_known:
        return [*lines, "", "Adam-50 was not measured: nothing to compare with."]
    firsts = []
    for family, row in found["first_of_family"].items():
        if row is None:
            firsts.append(f"{family}: none")
        else:
            steps = row["label"].removeprefix(f"{family}, ")
            firsts.append(f"{family}: {steps}, {in_percent(time_share(row, found['adam']))}")
    not_above = [
        f"{row['label']} ({in_percent(row['lower_share'] + row['equal_share'])})"
        for row in found["not_above"]
    ]
    lower = [f"{row['label']} ({in_percent(row['lower_share'])})" for row in found["lower"]]
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
        return f"{row['label']} ({in_percent(row['lower_share'])})"
    others = [row for row in measured_rows(rows) if "lower_share" in row]
    if not others:
        return "not measured"
    row = max(others, key=lambda row: row["lower_share"])
    return f"none; most: {row['label']}, {in_percent(row['lower_share'])}"
