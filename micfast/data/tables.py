"""Tables of sequences: a row per time step (long) or a row per sequence (wide)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from micfast.data.cells import Table

__all__ = ["TableContent", "read_table"]

# Column names that are recognised, most telling first; case, spaces, - and _ are ignored, and units
# in brackets.
_ID_NAMES = (
    "id", "sequenceid", "sampleid", "seriesid", "caseid", "recordingid", "trialid", "gestureid",
    "uniqueid", "sequence", "series", "case", "recording", "trial", "stroke", "instance", "seq",
    "run", "file", "filename", "sample", "index",
)  # fmt: skip
_TIME_NAMES = (
    "time", "t", "timestamp", "timestep", "step", "datetime", "date", "frame", "tick", "seconds",
    "sec", "ms", "timems", "sample", "index",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "labels", "class", "classlabel", "classname", "target", "category", "gesture",
    "letter", "activity", "y",
)  # fmt: skip
# Else a similar name, if there is only one: stroke_id, strokeId, time_ms, Gesture name.
_ID_LIKE = re.compile(r".+[ _\-][iI][dD]|.*[a-z]I[dD]")
_TIME_LIKE = re.compile(r"(?i)time.*|.*[ _\-](time|timestamp|ms|sec|seconds)")
_LABEL_LIKE = re.compile(r"(?i).*(label|class|category|gesture|activity)([ _\-]?name)?")
_FEW_STEPS = 8
_STEP_NAME = re.compile(r"(.*?)[ _.\-]?(\d+)")


class TableContent(NamedTuple):
    """Fields of :class:`micfast.data.Recordings`."""

    sequences: list[NDArray[np.float64]]
    labels: NDArray[Any] | None
    ids: NDArray[Any] | None
    source: str
    channels: tuple[str, ...] | None
    notes: tuple[str, ...]


@dataclass
class _Roles:
    """Columns that hold no values; None if there is no such column."""

    id: str | None = None
    time: str | None = None
    label: str | None = None


class _Sequences(NamedTuple):
    values: list[NDArray[np.float64]]
    rows: list[int]  # first row of each sequence
    channels: tuple[str, ...] | None


def read_table(
    path: Path,
    *,
    id: str | None = None,
    time: str | None = None,
    label: str | None = None,
    channels: Sequence[str] | None = None,
    wants_labels: bool = False,
) -> TableContent:
    """Read a ``.csv`` or ``.tsv`` file; see :func:`micfast.data.read_recordings`."""
    from micfast.data.cells import Table

    table = Table(path)
    roles = _find_roles(table, {"id": id, "time": time, "label": label}, channels, wants_labels)
    names = _value_columns(table, roles, channels)
    ids = None
    if roles.id is not None:
        table.check_present(roles.id, "id")
        ids = table.text(roles.id)
    elif roles.time is not None:
        ids = _ids_of_one_sequence(table, roles.time)
    # Distinct identifiers: each row is a sequence.
    is_long = ids is not None and (roles.id is None or ids.duplicated().any())
    labels = _labels(table, roles, ids if is_long else None) if wants_labels else None
    if is_long:
        assert ids is not None
        found = _long(table, ids, roles.time, names)
    else:
        _check_wide(table, names, channels)
        found = _wide(table, names, keep_order=channels is not None)
    layout = "one row per time step" if is_long else "one row per sequence"
    said = [f"{role} in {column!r}" for role, column in vars(roles).items() if column is not None]
    note = "; ".join([layout, *said, f"values in {_listed(names)}"])
    return TableContent(
        found.values,
        None if labels is None else labels.loc[found.rows].to_numpy(dtype=str),
        None if ids is None or roles.id is None else ids.loc[found.rows].to_numpy(dtype=str),
        f"{path} ({layout})",
        found.channels,
        (note, *table.notes),
    )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names if len(names) <= 8 else [*names[:4], "...", *names[-2:]])


# -- columns -------------------------------------------------------------------------------------


def _find_roles(
    table: Table,
    chosen: dict[str, str | None],
    channels: Sequence[str] | None,
    wants_labels: bool,
) -> _Roles:
    """Columns that the caller chose, or those with a usual name."""
    taken: list[str] = []
    for role, column in [*chosen.items(), *(("channels", name) for name in channels or ())]:
        if not column:
            continue
        if column not in table.frame:
            raise table.error(f"no column {column!r} (for {role}); it has {_listed(table.frame)}")
        if column in taken:
            raise table.error(f"column {column!r} is chosen twice")
        taken.append(column)
    roles = _Roles(*(name or None for name in chosen.values()))
    for role, usual, like in (
        ("id", _ID_NAMES, _ID_LIKE),
        ("time", _TIME_NAMES, _TIME_LIKE),
        ("label", _LABEL_NAMES, _LABEL_LIKE),
    ):
        if chosen[role] is None and table.has_header:
            column = _named(table, usual, like, taken)
            if column is not None:
                setattr(roles, role, column)
                taken.append(column)
    is_plain = roles.id is None and roles.time is None
    words = [name for name in table.frame if name not in taken and table.holds_text(name)]
    one = words[0] if len(words) == 1 else None
    # Among rows that are sequences, text that never repeats names them.
    names_rows = one is not None and is_plain and table.text(one).is_unique
    if names_rows and chosen["id"] is None and not (wants_labels and roles.label is None):
        roles.id = one
    elif chosen["label"] is None and roles.label is None:
        if one is not None and (is_plain or wants_labels):
            roles.label = one
        elif is_plain and not table.has_header and table.path.suffix.lower() == ".tsv":
            roles.label = str(table.frame.columns[0])
            table.notes.append("the first column is taken as label, as in the UCR archive")
    return roles


def _named(
    table: Table, usual: Sequence[str], like: re.Pattern[str], taken: Sequence[str]
) -> str | None:
    """First column that has a usual name, or the only one with a similar name; not one taken."""
    simple = {re.sub(r"[ _\-]|[\[(].*[\])]", "", name).lower(): name for name in table.frame}
    for name in usual:
        column = simple.get(name)
        # Next to an x, y is a coordinate.
        if column is not None and column not in taken and not (name == "y" and "x" in simple):
            return column
    similar = [name for name in table.frame if name not in taken and like.fullmatch(name)]
    return similar[0] if len(similar) == 1 else None


def _value_columns(table: Table, roles: _Roles, channels: Sequence[str] | None) -> list[str]:
    """Columns with values, all of which are numbers."""
    if channels is not None:
        names = list(channels)
    else:
        others = [name for name in table.frame if name not in vars(roles).values()]
        words = [name for name in others if table.holds_text(name)]
        names = [name for name in others if name not in words]
        if words:
            table.notes.append(f"ignored, as they hold text or dates: {_listed(words)}")
    if not names:
        raise table.error(f"no column holds numbers among {_listed(table.frame)}")
    for name in names:
        table.check_numbers(name)
    return names


def _labels(table: Table, roles: _Roles, ids: pd.Series | None) -> pd.Series:
    """Label of each row; the same in all rows of an id."""
    if roles.label is None:
        raise table.error(
            f"no column looks like a label among {_listed(table.frame)}",
            "name it with label (--label-column)",
        )
    table.check_present(roles.label, "label")
    labels = table.text(roles.label)
    if ids is not None:
        first = labels.groupby(ids.to_numpy(), sort=False).transform("first")
        wrong = first != labels
        if wrong.any():
            row = labels.index[wrong][0]
            raise table.error(
                f"column {roles.label!r}, row {row}: sequence {ids.loc[row]!r} has label "
                f"{labels.loc[row]!r} here and {first.loc[row]!r} above",
                "give every sequence its own id, and one label",
            )
    return labels


# -- long tables ---------------------------------------------------------------------------------


def _ids_of_one_sequence(table: Table, time: str) -> pd.Series:
    """Ids of a table with times but without ids, which is one sequence if time never restarts."""
    import pandas as pd

    times = table.times(time)
    if not (times.is_monotonic_increasing and times.is_unique):
        raise table.error(
            f"the time in {time!r} restarts, and no column looks like an id among "
            f"{_listed(table.frame)}",
            "name the column that tells the sequences apart with id (--id-column)",
        )
    table.notes.append("there is no id, so the table is one sequence")
    return pd.Series("0", index=table.frame.index)


def _long(table: Table, ids: pd.Series, time: str | None, names: list[str]) -> _Sequences:
    """Rows of each id, in order of time."""
    codes, _ = ids.factorize()
    if time is None:
        restarts = np.flatnonzero(np.diff(codes) < 0)
        if restarts.size:
            row = ids.index[restarts[0] + 1]
            raise table.error(
                f"row {row}: the rows of id {ids.loc[row]!r} are not next to each other, and there "
                "is no time to sort them by",
                "name the time with time (--time-column), or give every sequence its own id",
            )
        order = np.arange(len(codes))
    else:
        times = table.times(time).to_numpy()
        order = np.lexsort((times, codes))
        same_id = np.diff(codes[order]) == 0
        repeated = np.flatnonzero(same_id & (times[order][1:] == times[order][:-1]))
        if repeated.size:
            first, second = ids.index[order[repeated[0]]], ids.index[order[repeated[0] + 1]]
            raise table.error(
                f"rows {first} and {second} have the same id {ids.loc[first]!r} and the same time "
                f"{table.text(time).loc[first]!r}",
                "give every sequence its own id, and every step its own time",
            )
        moved = codes[order][1:][same_id & (np.diff(order) < 0)]
        if moved.size:
            n_moved = len(np.unique(moved))
            table.notes.append(f"the rows of {n_moved} sequence(s) were sorted by {time!r}")
    values = table.frame[names].to_numpy(dtype=np.float64)[order]
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    firsts = np.unique(codes, return_index=True)[1]
    return _Sequences(np.split(values, ends), ids.index[firsts].tolist(), tuple(names))


# -- wide tables ---------------------------------------------------------------------------------


def _check_wide(table: Table, names: list[str], channels: Sequence[str] | None) -> None:
    """Refuse a few columns such as x, y: they are channels of a long table without id and time."""
    numbered = all(re.search(r"\d", name) for name in names)
    if table.has_header and channels is None and len(names) < _FEW_STEPS and not numbered:
        raise table.error(
            f"no column looks like an id or a time among {_listed(table.frame)}, so that each row "
            f"would be a sequence of {len(names)} steps",
            "name the id with id (--id-column); if each row is a sequence, name its columns with "
            "channels (--channels)",
        )


def _wide(table: Table, names: list[str], *, keep_order: bool) -> _Sequences:
    """Rows without the empty cells at their end."""
    channels, columns = _steps(table, names, keep_order)
    values = table.frame[[name for steps in columns for name in steps]].to_numpy(np.float64)
    values = values.reshape(len(values), len(columns), -1).transpose(0, 2, 1)
    present = np.logical_not(np.isnan(values).all(axis=2))
    lengths = np.where(present, np.arange(1, values.shape[1] + 1), 0).max(axis=1)
    rows = table.frame.index.tolist()
    if not lengths.all():
        raise table.error(f"row {rows[int(lengths.argmin())]}: the sequence has no values")
    cut = [row[:length].copy() for row, length in zip(values, lengths, strict=True)]
    return _Sequences(cut, rows, channels)


def _steps(
    table: Table, names: list[str], keep_order: bool
) -> tuple[tuple[str, ...] | None, list[list[str]]]:
    """Columns of each channel in order of time, from names such as x_0, x_1, ..., y_0, ..."""
    matches = [_STEP_NAME.fullmatch(name) for name in names]
    if keep_order or not table.has_header or not all(matches):
        return None, [names]
    channels: dict[str, dict[int, str]] = {}
    for name, match in zip(names, matches, strict=True):
        assert match is not None
        steps = channels.setdefault(match[1], {})
        if int(match[2]) in steps:
            raise table.error(f"columns {steps[int(match[2])]!r} and {name!r} are the same step")
        steps[int(match[2])] = name
    first = next(iter(channels.values()))
    if any(steps.keys() != first.keys() for steps in channels.values()):
        raise table.error(
            f"the channels {_listed(channels)} have columns of different steps",
            "give every channel the same steps, or choose the columns with channels (--channels)",
        )
    if any(list(steps) != sorted(steps) for steps in channels.values()):
        table.notes.append("columns were sorted by the number in their name")
    columns = [[steps[step] for step in sorted(steps)] for steps in channels.values()]
    if len(channels) == 1:
        return None, columns
    table.notes.append(f"{len(channels)} channels of {len(first)} steps: {_listed(channels)}")
    return tuple(channels), columns
