"""Options that several commands share, their types, and how commands end in errors."""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


# -- types of values -----------------------------------------------------------------------------


class Whole(click.IntRange):
    """A whole number."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the placeholder in the help."""
        return "N"


class CountOrAuto(Whole):
    """A whole number of at least 1, or "auto"."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number or the word."""
        return value if value == "auto" else super().convert(value, param, ctx)


class Number(click.FloatRange):
    """A finite number above 0, or from 0."""

    def __init__(self, *, zero: bool = False) -> None:
        super().__init__(min=0, min_open=not zero)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the placeholder in the help."""
        return "X"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read the number; NaN lies in every range."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class File(click.Path):
    """A file to read, or to write under a name that ends in one of some suffixes."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__()
        self.name, self.suffixes = "file", suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the suffix; whether the file can be read or written shows later."""
        if self.suffixes and not str(value).lower().endswith(self.suffixes):
            self.fail(f"{value!r} must end in {' or '.join(self.suffixes)}.", param, ctx)
        return super().convert(value, param, ctx)


COUNT, FROM_0, FILE = Whole(min=1), Number(zero=True), File()


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """Callback: the names in a comma-separated list."""
    if value is None:
        return None
    return [name.strip() for name in value.split(",") if name.strip()]


# -- commands and options ------------------------------------------------------------------------


class Option(click.Option):
    """An option with the heading under which ``--help`` lists it."""

    def __init__(self, *args: Any, heading: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


class Command(click.Command):
    """A command whose help groups options, and whose errors take one line unless ``--debug``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help = keep_layout(self.help)
        debug = Option(["--debug"], is_flag=True, help="Show the traceback of an error.")
        self.params.append(debug)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options under their headings."""
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                headings.setdefault(getattr(param, "heading", "Options"), []).append(record)
        # The general ones (--debug, --help) come last.
        for heading in sorted(headings, key=lambda heading: heading == "Options"):
            with formatter.section(heading):
                formatter.write_dl(headings[heading])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; expected errors become click's."""
        debug = ctx.params.pop("debug")
        try:
            super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()  # so that a closed pipe is noticed here
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError) as error:
            if debug:
                raise
            raise click.ClickException(one_line(error)) from error


def keep_layout(text: str | None) -> str:
    """Mark paragraphs that have indented lines as click wants it, so that they are not wrapped."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(f"\b\n{p}" if "\n " in p else p for p in paragraphs)


def one_line(error: BaseException) -> str:
    """The message of an error, in one line."""
    if isinstance(error, MemoryError) and not str(error):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


# -- options that several commands have ----------------------------------------------------------

option = functools.partial(click.option, cls=Option)


def apply(*decorators: Decorator) -> Decorator:
    """Decorate a command with options that are listed in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def model_options(*, defaults: bool) -> Decorator:
    """Options that ``demo`` shares with ``fit``; without defaults, None means not given."""

    def add(*flags: str, default: Any, **settings: Any) -> Decorator:
        return option(*flags, heading="Model", default=default if defaults else None, **settings)

    size: click.ParamType = CountOrAuto() if defaults else COUNT
    or_auto = ', or "auto"' if defaults else ""
    return apply(
        add(
            "--type-selection",
            "--types-selection",
            default="kmeans",
            type=click.Choice(("kmeans", "dtw-kmeans", "random", "first")),
            help="How the types of a class are selected.",
        ),
        option(
            "--representative",
            heading="Model",
            type=click.Choice(("centroid", "medoid")),
            help="What represents a cluster: its mean or its medoid. [default: centroid]",
        ),
        add("--n-types", default=4, type=size, help=f"Types per class{or_auto}."),
        add("--hidden-size", default=10, type=size, help=f"Hidden units per module{or_auto}."),
        option(
            "--noise-in",
            heading="Model",
            type=FROM_0,
            help="SD of the training noise on inputs. [default: 0.2, and 0 with --episodes]",
        ),
        add("--noise-out", default=0.0, type=FROM_0, help="SD of the training noise on types."),
        option(
            "--episodes",
            "n_episodes",
            heading="Model",
            type=COUNT,
            help="Train as in the paper, for so many episodes (the paper: 20000).",
        ),
        add(
            "--solver",
            default="lm",
            type=click.Choice(("lm", "adam")),
            help="How modules are inverted: Levenberg-Marquardt from the nearest mixture of "
            "types, or the paper's Adam from the uniform one.",
        ),
        option(
            "--iterations",
            "n_iter",
            heading="Model",
            type=Whole(min=0),
            help="Iterations of the solver. [default: 8 for lm, 50 for adam]",
        ),
    )


running = functools.partial(option, heading="Running")

seed_option = running(
    "--seed", type=Whole(0, 2**32 - 1), default=0, help="The same seed gives the same result."
)
run_options = apply(
    running(
        "--backend",
        type=click.Choice(("auto", "cpu", "torch", "cuda")),
        default="auto",
        help="Compute backend.",
    ),
    running("--threads", type=COUNT, help="[default: PyTorch's number, one per core]"),
    running("--quiet", is_flag=True, help="No progress bars and no report."),
)


def say(text: str) -> None:
    """Print a report, without colours unless on a terminal."""
    # Given no file, click would write UTF-8 where the encoding is ASCII.
    click.echo(text, file=sys.stdout)


def shows_progress(quiet: bool) -> bool:
    """Whether progress bars are wanted, and there is a terminal for them."""
    return not quiet and sys.stderr is not None and sys.stderr.isatty()


def check_outputs(*outputs: str | None, inputs: Sequence[str | None] = ()) -> None:
    """Refuse, before the work, a path that cannot be written or that is read by this command."""
    from micfast.io import check_not_input, check_output_path

    paths = [path for path in outputs if path is not None]
    for i, path in enumerate(paths):
        check_output_path(path)
        check_not_input(path, *inputs, *paths[:i])
