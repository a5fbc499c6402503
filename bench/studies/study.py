"""What studies over data sets and seeds share: command line, resumable results, intervals."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micfast.experiments.paper.settings import DATA_SETS
from micfast.experiments.paper.statistics import Interval
from micfast.io import write_text

__all__ = ["PLAIN", "comparable", "make_parser", "markdown", "resume", "with_interval"]

# The plain search, which was the default until poses and views were.
PLAIN: dict[str, Any] = {"views": "raw", "pose": None, "hull": False, "n_modules_per_class": 3}


def make_parser(name: str, doc: str | None, seeds: int) -> argparse.ArgumentParser:
    """Parser of a study's options; ``seeds`` is the default number of them."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.studies.{name}", description=(doc or "").split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--data", choices=list(DATA_SETS), action="append")
    parser.add_argument("--threads", type=int)
    return parser


def resume(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The unit of work in this file; made and kept there first, if there is none."""
    if not file.exists():
        write_text(file, json.dumps(make(), indent=1) + "\n")
        print(file.name, file=sys.stderr, flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def comparable(errors: NDArray[Any]) -> NDArray[np.float64]:
    """Errors in float64; a module that diverged (NaN or infinity) is worse than any other."""
    worst = float(np.finfo(np.float32).max)
    return np.nan_to_num(errors.astype(np.float64), nan=worst, posinf=worst)


def with_interval(mean: Interval, form: str, low: float = -np.inf, high: float = np.inf) -> str:
    """A mean with its interval, cut at ``low`` and ``high``; an empty text for NaN."""
    if np.isnan(mean.estimate):
        return ""
    text = format(mean.estimate, form)
    if np.isnan(mean.low):
        return text
    return f"{text} [{max(mean.low, low):{form}}, {min(mean.high, high):{form}}]"


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    head = list(head)
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"
