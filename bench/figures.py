"""Figures of result files and how tables write them."""

from __future__ import annotations

from statistics import median, quantiles
from typing import Any

import numpy as np

Row = dict[str, Any]


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


def grouped_rows(rows: list[Row]) -> list[list[Row]]:
    """Rows of one case and number of threads."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["case"]["id"], row["threads"]), []).append(row)
    return list(groups.values())


def measured_rows(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["status"] == "ok"]


def in_threads(n: int) -> str:
    return f"{n} thread" + ("s" if n > 1 else "")


def in_ratio(row: Row, reference: Row) -> str:
    """How many times the reference's time a row takes."""
    value = seconds(row)[1] / seconds(reference)[1]
    return f"{value:.0f}x" if value >= 100 else f"{value:.3g}x"


def remarks_of(row: Row) -> str:
    remarks = [row["note"]] if row["note"] else []
    measured = row["measured"]
    if measured["amount"] != measured["of"]:
        unit = measured["unit"]
        remarks.append(f"extrapolated from {measured['amount']:,} of {measured['of']:,} {unit}s")
    if row.get("compile_s") is not None:
        remarks.append(f"compiled in {in_seconds(row['compile_s'])}, not counted")
    remarks.append(f"{len(row['samples_s'])} samples")
    return "; ".join(remarks)


def in_seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value:.0f} s"
    return f"{value / 1e-6:.3g} µs"


def in_percent(share: float) -> str:
    """No rounding up to a goal: 94.96 % stays below 95 %."""
    return f"{np.floor(1000 * share + 1e-6) / 10:g} %"


def time_share(row: Row, adam: Row) -> float:
    return seconds(row)[1] / seconds(adam)[1]
