"""Command line: ``python -m bench run`` measures, ``python -m bench report`` draws."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import report as report_module
from bench.machine import refuse_checkout
from bench.peers import DEFAULT_PEERS, PEERS
from bench.run import ALL, SUITES, run_suite, save
from bench.studies import answers


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 where micfast gave a wrong result."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "report":
            print(report_module.report(options.files))
            return 0
        refuse_checkout()
        return _run(options)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    if options.suite == "answers":
        arguments = ["--out", str(options.out / "answers")]
        return answers.main([*arguments, *(["--seeds", "1"] if options.quick else [])])
    wrong = False
    for suite in ALL if options.suite == "all" else (options.suite,):
        result = run_suite(
            suite, peers=options.peers, n_threads=options.threads, quick=options.quick
        )
        path = save(result, options.out)
        print(report_module.report([path]), flush=True)
        wrong |= any(
            row.get("status") == "failed" and row["peer"].startswith("micfast")
            for row in result["rows"]
        )
    return int(wrong)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, write JSON, table and picture")
    run.add_argument(
        "--suite",
        choices=[*SUITES, "answers", "all"],
        default="all",
        help=f"all: {', '.join(ALL)} (default); answers: accuracy, as bench.studies.answers",
    )
    run.add_argument(
        "--out", type=Path, default=Path("bench/results"), help="folder of the results"
    )
    run.add_argument("--quick", action="store_true", help="toy sizes: does it work?")
    run.add_argument(
        "--peers",
        type=lambda text: text.split(","),
        help=f"among {', '.join(PEERS)}; default {','.join(DEFAULT_PEERS)}",
    )
    run.add_argument("--threads", type=_positive, help="default: the CPUs of this process")
    report = commands.add_parser("report", help="tables and pictures from result files")
    report.add_argument("files", type=Path, nargs="+")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
