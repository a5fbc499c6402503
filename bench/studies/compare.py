"""Why micfast and not something else? It and others on the same draws of the same data.

``python -m bench.studies.compare --seeds 3 --out compare/`` draws 1, 2, 4, 8 or all examples of
each class of the development sets and fits every method to them, on one thread. With four examples
the test sequences also come with noise, shifted, and with a stretch missing
(:func:`bench.studies.answers.disturbed`). A method whose package is missing is skipped, and said
so. Every (data set, examples, seed, method) is one file, so a run that was killed continues.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bench.studies.answers import CONDITIONS, DEVELOPMENT, condition_name, measure
from bench.studies.study import markdown, resume, with_interval
from micfast.experiments.paper.statistics import mean_interval
from micfast.experiments.threads import torch_threads
from micfast.io import write_text

__all__ = ["METHODS", "main", "tables"]

# Of bench.studies.answers, by the names of the tables; the first is what others are compared with.
METHODS = {
    "micfast": "default",
    "micfast, plain search": "plain",
    "1-NN": "1-NN",
    "DTW": "DTW",
    "MiniRocket": "MiniRocket",
    "QUANT": "QUANT",
    "Catch22": "Catch22",
    "forward LSTM": "forward LSTM",
    "$P": "$P",
}
EXAMPLES = ("1", "2", "4", "8", "all")
# The number of examples at which test sequences are disturbed, too.
USUAL = "4"
_UNIT = ["data", "seed"]


def tables(frame: pd.DataFrame) -> str:
    """Accuracy by examples, by condition and by set, gains over others, and what each costs.

    ``frame`` has a row for each (data, examples, seed, method). Means are over the sets that a
    method can take; by examples, over those that were asked at every number.
    """
    conditions = [condition_name(*condition) for condition in CONDITIONS]
    frame = frame.reindex(columns=frame.columns.union(conditions, sort=False))
    usual = frame[frame["examples"] == USUAL]
    numbers = frame.groupby("data", sort=False)["examples"].nunique()
    whole = [*numbers.index[numbers == numbers.max()]]
    by_examples = _wide(frame[frame["data"].isin(whole)], "examples", "clean")
    parts = [
        (f"Accuracy by examples a class ({', '.join(whole)})", by_examples),
        (
            f"Accuracy with {USUAL} examples a class, by what is done to the test sequences",
            usual.groupby("method", sort=False)[conditions].mean(),
        ),
    ]
    for examples in frame["examples"].unique():
        by_set = _wide(_part(frame, examples), "data", "clean")
        parts.append((f"Accuracy by set, examples a class: {examples}", by_set))
    text = "".join(
        f"### {title}\n\n{markdown(['', *table.columns], _cells(table))}\n"
        for title, table in parts
        if len(table)
    )
    return text + _gains(frame) + _costs(frame)


def _part(frame: pd.DataFrame, examples: str) -> pd.DataFrame:
    return frame[frame["examples"] == examples]


def _wide(frame: pd.DataFrame, columns: str, values: str) -> pd.DataFrame:
    return frame.pivot_table(values, "method", columns, sort=False)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [
        [str(name), *("" if pd.isna(value) else f"{value:.3f}" for value in row)]
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]


def _gains(frame: pd.DataFrame) -> str:
    """Paired differences of the first method to the others, with intervals over sets and seeds."""
    first, rows = next(iter(METHODS)), []
    for method in frame["method"].unique():
        cells = []
        for examples in EXAMPLES:
            wide = _part(frame, examples).pivot_table("clean", _UNIT, "method")
            if method == first or not {first, method} <= {*wide.columns}:
                cells.append("")
                continue
            gain = (wide[first] - wide[method]).dropna()
            cells.append(with_interval(mean_interval(gain), "+.3f"))
        if any(cells):
            rows.append([f"against {method}", *cells])
    return f"### What {first} gains, by examples a class\n\n{markdown(['', *EXAMPLES], rows)}\n"


def _costs(frame: pd.DataFrame) -> str:
    """Medians over sets and seeds: the first fit of a method may hold the time of its compiler."""
    rows = []
    for method in frame["method"].unique():
        cells = []
        for examples in (USUAL, "all"):
            own = _part(frame[frame["method"] == method], examples)
            medians = own[["fit_seconds", "milliseconds", "kilobytes"]].median()
            cells += [
                "" if pd.isna(value) else f"{value:.0f}" if value >= 100 else f"{value:.2g}"
                for value in medians
            ]
        rows.append([str(method), *cells])
    head = [
        f"{what}, {examples}"
        for examples in (USUAL, "all")
        for what in ("fit, s", "decision, ms", "model, kB")
    ]
    return f"### CPU time of one thread, and size\n\n{markdown(['', *head], rows)}\n"


def _measured(options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of all units, and why methods were skipped."""
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    units = itertools.product(
        range(options.seeds),
        options.data or DEVELOPMENT,
        options.examples or EXAMPLES,
        options.method or METHODS,
    )
    for seed, data, examples, method in units:
        n = None if examples == "all" else int(examples)
        conditions = CONDITIONS if examples == USUAL else CONDITIONS[:1]
        words = (data, examples, f"{seed:04d}", method.replace(",", "").replace(" ", "_"))
        unit = resume(
            options.out / "raw" / f"{'-'.join(words)}.json",
            partial(measure, data, n, seed, METHODS[method], conditions=conditions),
        )
        if "skipped" in unit:
            skipped.setdefault(method, unit["skipped"])
        else:
            key = {"data": data, "examples": examples, "seed": seed, "method": method}
            rows.append(key | unit)
    return rows, skipped


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.compare", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", choices=DEVELOPMENT, action="append", help="default: all")
    parser.add_argument("--examples", choices=EXAMPLES, action="append", help="default: all")
    parser.add_argument("--method", choices=METHODS, action="append", help="default: all")
    options = parser.parse_args(argv)
    (options.out / "raw").mkdir(parents=True, exist_ok=True)
    with torch_threads(1):
        rows, skipped = _measured(options)
    frame = pd.DataFrame(rows)
    frame = frame[[column for column in frame if not column.startswith("judged")]]
    text = tables(frame)
    text += "".join(f"Skipped: {method}: {reason}\n" for method, reason in skipped.items())
    write_text(options.out / "comparison.csv", frame.to_csv(index=False, float_format="%.5g"))
    write_text(options.out / "comparison.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
