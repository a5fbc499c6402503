"""Users' data files: the options that say how they are read, and the reading."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from micfast.cli import common

if TYPE_CHECKING:
    from micfast.data.recordings import Recordings

__all__ = ["Source", "data_options", "sequences_of"]


class Source(NamedTuple):
    """Where sequences and labels come from, as the options of a command say it."""

    data: str | None
    X: str | None
    y: str | None
    X_key: str
    y_key: str
    id_column: str | None
    time_column: str | None
    label_column: str | None
    channels: list[str] | None

    @property
    def paths(self) -> tuple[str | None, ...]:
        """The files that are read."""
        return self.data, self.X, self.y

    def read(self, *, labels: bool = False) -> Recordings:
        """Read the sequences and, where they are needed, their labels."""
        from micfast.data.recordings import read_recordings

        path = self.X if self.data is None else self.data
        if path is None or (self.data is not None and self.X is not None):
            raise click.UsageError("Give the data either as DATA or with --X.")
        recordings = read_recordings(
            path,
            wants_labels=labels,
            labels_path=self.y,
            X_key=self.X_key,
            y_key=self.y_key,
            id=self.id_column,
            time=self.time_column,
            label=self.label_column,
            channels=self.channels,
        )
        for note in recordings.notes:
            click.echo(f"micfast: {note}", err=True)
        return recordings


def sequences_of(recordings: Recordings, names: tuple[str, ...] | None = None) -> Any:
    """What the estimator takes: where channels have names, data frames, whose columns it checks.

    Of more columns than these ``names``, which a model knows, the others are left out.
    """
    if recordings.channels is None:
        return recordings.sequences
    frames, others = recordings.frames(), {*recordings.channels} - {*(names or ())}
    if names is None or not others or not {*names} <= {*recordings.channels}:
        return frames
    click.echo(f"micfast: the model takes {', '.join(names)} of these", err=True)
    return [frame[[*names]] for frame in frames]


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument DATA and its options; the command gets them as ``source``."""

    @functools.wraps(function)
    def with_source(*args: Any, **kwargs: Any) -> Any:
        source = Source(**{field: kwargs.pop(field) for field in Source._fields})
        return function(*args, source=source, **kwargs)

    return OPTIONS(with_source)


data = functools.partial(common.option, heading="Data")

OPTIONS = common.apply(
    click.argument("data", metavar="[DATA]", required=False, type=common.FILE),
    data("--id-column", metavar="NAME", help="Column of a table with the sequences' ids."),
    data("--time-column", metavar="NAME", help="Column of a long table with the time."),
    data("--label-column", metavar="NAME", help="Column of a table with the labels."),
    data(
        "--channels",
        metavar="NAMES",
        callback=common.names,
        help="Columns of a table with the values, separated by commas.",
    ),
    data("--X", "X", type=common.FILE, help="File with the sequences, instead of DATA."),
    data("--y", "y", type=common.FILE, help=".npy or .npz file with the labels, if not in DATA."),
    data(
        "--X-key",
        "X_key",
        metavar="NAME",
        default="X",
        help="Name of the sequences in a .npz or .mat file.",
    ),
    data(
        "--y-key",
        "y_key",
        metavar="NAME",
        default="y",
        help="Name of the labels in a .npz or .mat file.",
    ),
)
