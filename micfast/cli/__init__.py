"""The command ``micfast``: one file per command, the shared options in ``common``.

A command's file is imported when the command is asked for, and what is slow to import when it runs,
so that ``--help`` and shell completion answer at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, TextIO

import click

from micfast import __version__
from micfast.cli.common import keep_layout

__all__ = ["commands", "main"]

ERROR, INTERRUPTED = 1, 130


COMMANDS = {
    "demo": "Train, test and time on a public data set.",
    "fit": "Train on labelled sequences from a file.",
    "predict": "Classify sequences from a file.",
    "show": "Draw sequences from a file and their reconstructions.",
    "reproduce": "Run the paper's experiments and compare the results.",
    "info": "Show available kernels and backends, or what a model file contains.",
}


def help_width() -> int:
    """Columns for help texts; click would import shutil for this, 5 % of the time of ``--help``."""
    try:
        columns = os.get_terminal_size(1).columns
    except (OSError, ValueError):  # no terminal
        columns = 80
    return max(min(columns, 102) - 2, 40)


SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "terminal_width": help_width(),
    "show_default": True,
}


class Commands(click.Group):
    """The group of all commands, each of which is imported when it is asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = keep_layout(self.help)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"micfast.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="micfast", message="%(prog)s %(version)s")
def commands() -> None:
    """Classify sequences by inverting one small generative LSTM per class.

    For example:
      micfast demo                                  train and test on small digits, draw a picture
      micfast fit recordings.csv -o m.safetensors   train on your own sequences
      micfast predict m.safetensors new.csv         classify others
      micfast show m.safetensors new.csv -o why.png see why
      micfast reproduce --seeds 1                   the paper's tables and figures next to ours
      micfast info                                  available kernels and backends

    `micfast COMMAND --help` describes a command.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. Default: those of the process.

    Returns
    -------
    int
        Exit code: 0 on success, 1 after an error, 2 for wrong arguments, 130 after Ctrl-C.

    Examples
    --------
    >>> main(["--version"])
    micfast 0.2.0
    0
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label that the terminal's encoding lacks is written as \u..., and the output continues.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with plain_warnings():
            return commands.main(argv, prog_name="micfast", standalone_mode=False) or 0
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"micfast: error: {error.format_message()}", err=True)
        return ERROR
    except click.Abort:
        click.echo("micfast: interrupted, no incomplete files were left", err=True)
        return INTERRUPTED


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Show each warning as one line, without the place in the code where it was raised."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        click.echo(f"micfast: warning: {' '.join(str(message).split())}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
