"""``micfast reproduce``."""

from __future__ import annotations

import functools
from typing import Any

import click

from micfast.cli import common

__all__ = ["reproduce"]

what = functools.partial(common.option, heading="Experiments")
running = functools.partial(common.option, heading="Running")


@click.command(cls=common.Command)
@what("--only", callback=common.names, help="Experiments, separated by commas. [default: all]")
@what(
    "--data",
    callback=common.names,
    help="Data sets (characters, mnist), separated by commas. [default: both]",
)
@what("--seeds", type=common.COUNT, default=10, help="Number of seeds.")
@what(
    "--budget",
    type=click.Choice(("default", "full")),
    default="default",
    help="How long the forward LSTM is trained (full: many hours).",
)
@what(
    "--target",
    "targets",
    metavar="LABEL[:INDEX]",
    multiple=True,
    help="Test sequence for figure3, one per data set; figure5 and figure6 show its class.",
)
@what(
    "--noise",
    type=common.FROM_0,
    nargs=2,
    metavar="IN OUT",
    default=(0.0, 0.0),
    help="Training noise of the modules in the figures.",
)
@running("--out", type=click.Path(), metavar="DIR", default="results", help="Results folder.")
@running("--resume", is_flag=True, help="Continue after the last completed unit of work.")
@running(
    "--report-only",
    is_flag=True,
    help="Only remake tables, figures and report from the raw results in --out.",
)
@running("--dry-run", is_flag=True, help="Print the plan and stop.")
@running("--threads", type=common.COUNT, help="[default: PyTorch's number, one per core]")
@running("--quiet", is_flag=True, help="No plan and no progress bars.")
def reproduce(
    out: str, report_only: bool, dry_run: bool, threads: int | None, quiet: bool, **settings: Any
) -> None:
    """Run the paper's experiments and compare the results with its numbers.

    Experiments (--only):
      figure3                      one target in every module
      figure5, figure6             types and unseen sequences as their module reconstructs them
      figure7                      every module on sequences of every class
      table1, table4, table13      clustered and random types; 0 and 50 iterations
      table2, table3, table7 to table12
                                   nine noise settings: accuracies, per class, and their GLMs
      table5, table6               the forward LSTM (Keras: pip install 'micfast[keras]'; and torch)
      beyond                       1-nearest-neighbour, MiniRocket (pip install 'micfast[rocket]')

    The results folder holds raw/ (every run), tables/, figures/, report.html, reproduction.md (the
    claims) and manifest.json. Stop it at any time: the same command with --resume continues where
    it left off. The data are read from the folder named by MICFAST_DATA, or downloaded if it is not
    set.

    For example:
      micfast reproduce --dry-run                   what there is to do, and how long it takes
      micfast reproduce --out results --resume
      micfast reproduce --only table13,figure7 --data characters --seeds 3 --out letters
      micfast reproduce --only figure3 --target g:5 --target 8 --out figure3
    """
    if dry_run and report_only:
        raise click.UsageError("Give either --dry-run or --report-only.")

    from micfast.experiments.paper.run import reproduce as run

    report = run(
        out,
        report_only=report_only,
        dry_run=dry_run,
        n_threads=threads,
        progress=not quiet,
        **settings,
    )
    if report is not None:
        common.say(f"report: {report}")
