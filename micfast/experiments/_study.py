"""Studies over data sets and seeds: their command line, and results that a run again takes up."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from micfast._io import write_text
from micfast.experiments.paper.settings import DATA_SETS

__all__ = ["make_parser", "resume"]


def make_parser(name: str, doc: str | None, seeds: int) -> argparse.ArgumentParser:
    """Parser of a study's options; ``seeds`` is the default number of them."""
    parser = argparse.ArgumentParser(
        prog=f"python -m micfast.experiments.{name}", description=(doc or "").split("\n\n")[0]
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
