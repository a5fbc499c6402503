"""Reader of users' recordings: tables, ``.ts``, NumPy and MATLAB files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from micfast.data.tables import read_table
from micfast.data.ts import load_ts
from micfast.io import array_names, load_arrays

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Recordings", "read_recordings"]

_FORMATS = ".csv, .tsv, .ts, .npz, .npy or .mat"


# eq=False: == of arrays is an array, so a generated __eq__ would fail.
@dataclass(frozen=True, eq=False)
class Recordings:
    """Sequences from a file.

    Attributes
    ----------
    sequences : list of ndarray of shape (length, n_channels), or ndarray
        A list from tables, ``.ts`` files and MATLAB cells; an array of shape (n, n_timesteps) or
        (n, n_timesteps, n_channels) as it is in a NumPy file or MATLAB array. NaN is missing.
    labels : ndarray of shape (n,) or None
        Their labels: text from tables and ``.ts`` files. None if not asked for.
    ids : ndarray of shape (n,) or None
        Their identifiers, if the file has any: text from tables.
    source : str
        The file and how it was read, in words.
    channels : tuple of str or None
        Names of the channels, if the file has any.
    notes : tuple of str
        What was guessed or changed, in sentences for the user.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.data import Recordings
    >>> recordings = Recordings([np.zeros((3, 2)), np.ones((1, 2))], channels=("x", "y"))
    >>> len(recordings)
    2
    >>> recordings.frames()[1]
         x    y
    0  1.0  1.0
    """

    sequences: list[NDArray[Any]] | NDArray[Any]
    labels: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None
    source: str = ""
    channels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sequences)

    def frames(self) -> list[pd.DataFrame]:
        """Return the sequences as data frames whose columns are named after the channels."""
        import pandas as pd

        if self.channels is None:
            raise ValueError(f"Recordings.frames: the channels of {self.source} have no names")
        return [pd.DataFrame(sequence, columns=self.channels) for sequence in self.sequences]


def read_recordings(
    path: str | os.PathLike[str],
    *,
    wants_labels: bool = False,
    labels_path: str | os.PathLike[str] | None = None,
    X_key: str = "X",
    y_key: str = "y",
    id: str | None = None,
    time: str | None = None,
    label: str | None = None,
    channels: Sequence[str] | None = None,
) -> Recordings:
    """Read sequences, and labels if wanted, from a file.

    Parameters
    ----------
    path : str or path-like
        A table (``.csv``, ``.tsv``), a ``.ts`` file of the UCR and UEA archives, a NumPy file
        (``.npz``, ``.npy``) or a MATLAB file (``.mat``, version 5 to 7.2).
    wants_labels : bool, default=False
        Whether every sequence must have a label.
    labels_path : str or path-like, optional
        A ``.npy`` or ``.npz`` file with the labels, if they are not in `path`.
    X_key, y_key : str
        Names of the arrays with sequences and labels in ``.npz`` and ``.mat`` files. An array
        ``ids`` or ``id`` is read too, if there is one.
    id, time, label : str, optional
        Column names of a table; the default is to guess them. ``""`` means there is no such
        column. Columns of a table without header are named ``1``, ``2``, ...
    channels : sequence of str, optional
        Columns of a table that hold the values, in this order. Default: all other columns that
        hold numbers.

    Returns
    -------
    recordings : Recordings
        The sequences.

    Raises
    ------
    OSError
        If a file cannot be opened.
    ValueError
        If the file cannot be read as sequences of numbers; the message names the file and, in
        tables, the column and row (numbered as in a spreadsheet).

    Notes
    -----
    Tables have one of two layouts, told apart by whether identifiers repeat:

    - long: one row per time step, with the columns id, time, channels and label. Rows are sorted
      by time, which may hold numbers or ISO 8601 dates.
    - wide: one row per sequence, with an optional label and id and a column per time step. Empty
      cells at the end of a row make a shorter sequence. Columns such as ``x_0, x_1, ..., y_0,
      y_1, ...`` are several channels.

    In MATLAB cells, each cell is one sequence of shape steps x channels; a row vector is one
    channel.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from micfast.data import read_recordings
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "gestures.csv"
    >>> with path.open("w") as file:
    ...     print("id,time,x,y,gesture", file=file)
    ...     print("1,0,0,0,tick", "1,1,1,-1,tick", sep=chr(10), file=file)
    ...     print("2,0,0,0,line", "2,1,1,0,line", sep=chr(10), file=file)
    >>> recordings = read_recordings(path, wants_labels=True)
    >>> recordings.labels.tolist(), recordings.channels, recordings.sequences[0].tolist()
    (['tick', 'line'], ('x', 'y'), [[0.0, 0.0], [1.0, -1.0]])
    """
    path = Path(path)
    suffix = path.suffix.lower()
    own_labels = wants_labels and labels_path is None
    label_key = y_key if own_labels else None
    if suffix in (".csv", ".tsv"):
        roles = {"id": id, "time": time, "label": label}
        found = Recordings(*read_table(path, **roles, channels=channels, wants_labels=own_labels))
    elif (id, time, label, channels) != (None, None, None, None):
        raise ValueError(f"{path}: columns can only be chosen in tables (.csv, .tsv)")
    elif suffix == ".ts":
        sequences, labels = load_ts(path)
        found = Recordings(sequences, labels if own_labels else None, source=f"{path} (.ts file)")
    elif suffix == ".mat":
        found = _read_mat(path, X_key, label_key)
    elif suffix in (".npz", ".npy") or _is_numpy(path):
        found = _read_numpy(path, X_key, label_key)
    else:
        raise ValueError(f"{path}: cannot read files of this kind; give {_FORMATS}")
    if not wants_labels:
        return found
    labels = found.labels if labels_path is None else _one_array(Path(labels_path), y_key)
    return replace(found, labels=_checked_labels(Path(labels_path or path), labels, len(found)))


def _is_numpy(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(200)
    return head.startswith(b"\x93NUMPY") or (head.startswith(b"PK") and b".npy" in head)


def _read_numpy(path: Path, X_key: str, y_key: str | None) -> Recordings:
    names = _guarded(path, array_names)
    if names == [""]:
        if y_key is not None:
            raise ValueError(
                f"{path}: a .npy file has no labels: give them in a second file, or both in a "
                ".npz file"
            )
        return Recordings(_checked_array(path, "X", _one_array(path, X_key)), source=str(path))
    X = _checked_array(path, X_key, _one_array(path, X_key))
    labels = None if y_key is None else _one_array(path, y_key)
    ids = None
    notes: tuple[str, ...] = ()
    name = next((name for name in ("ids", "id") if name in names and name != X_key), None)
    if name is not None:
        try:
            ids = _one_array(path, name)
            if ids.shape != (len(X),):
                raise ValueError(f"array {name!r} has shape {list(ids.shape)}, not [{len(X)}]")
        except ValueError as error:
            ids, notes = None, (f"sequences have no ids, as they cannot be read ({error})",)
    return Recordings(X, labels, ids, f"{path} (array {X_key!r})", notes=notes)


def _guarded(path: Path, function: Any, *args: Any) -> Any:
    """Call a reader of :mod:`micfast.io` and name the file in its errors."""
    try:
        return function(path, *args)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _one_array(path: Path, key: str) -> NDArray[Any]:
    """Array `key` of a .npz file, or the array of a .npy file."""
    names = _guarded(path, array_names)
    if names == [""]:
        return _guarded(path, load_arrays)[""]
    if key not in names:
        raise ValueError(
            f"{path}: it has no array {key!r}; it has {', '.join(names) or 'nothing'}: name the "
            "sequences with X_key (--X-key), the labels with y_key (--y-key)"
        )
    return _guarded(path, load_arrays, [key])[key]


def _checked_array(path: Path, name: str, X: NDArray[Any]) -> NDArray[Any]:
    """Sequences as an array of numbers."""
    if X.dtype.kind not in "fiub":
        kinds = {"M": "dates", "m": "durations", "U": "text", "S": "text", "c": "complex numbers"}
        raise ValueError(
            f"{path}: array {name!r} must hold real numbers, got "
            f"{kinds.get(X.dtype.kind, 'other values')} (dtype {X.dtype})"
        )
    if X.ndim not in (2, 3) or not X.size:
        raise ValueError(
            f"{path}: array {name!r} must have shape [sequences, steps] or [sequences, steps, "
            f"channels] and not be empty, got {list(X.shape)}"
        )
    return X


def _checked_labels(path: Path, labels: NDArray[Any] | None, n: int) -> NDArray[Any]:
    """One label per sequence, none of them missing."""
    if labels is None:
        raise ValueError(f"{path}: has no labels")
    if labels.shape != (n,):
        raise ValueError(
            f"{path}: labels must have shape [{n}], one per sequence, got {list(labels.shape)}"
        )
    if labels.dtype.kind in "SU":
        missing = np.isin(np.char.strip(labels.astype(str)), ["", "?", "nan", "NaN", "NaT"])
    elif labels.dtype.kind in "mM":
        missing = np.isnat(labels)
    else:
        missing = labels != labels  # NaN
    if missing.any():
        raise ValueError(
            f"{path}: {int(missing.sum())} of {n} labels are missing, first that of sequence "
            f"{int(np.flatnonzero(missing)[0])} (counted from 0): leave these sequences out"
        )
    return labels


def _read_mat(path: Path, X_key: str, y_key: str | None) -> Recordings:
    from scipy.io import loadmat, whosmat

    wanted = [X_key] if y_key is None else [X_key, y_key]
    try:
        with open(path, "rb") as file:
            names = [name for name, _, _ in whosmat(file)]
            content = loadmat(file, variable_names=[*wanted, "ids", "id"])
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except NotImplementedError:
        raise ValueError(
            f"{path}: MATLAB's version 7.3 (HDF5) is not supported: save with save(..., '-v7')"
        ) from None
    # Damage makes scipy raise almost anything, OSError included.
    except Exception as error:
        raise ValueError(
            f"{path}: not a readable MATLAB file ({type(error).__name__}: {error})"
        ) from error
    for key in wanted:
        if key not in content:
            raise ValueError(f"{path}: has no variable {key!r}; it has {', '.join(names)}")
    source = f"{path} (variable {X_key!r})"
    labels = None if y_key is None else _mat_vector(path, y_key, content[y_key])
    X = content[X_key]
    sequences: list[NDArray[Any]] | NDArray[Any]
    if X.dtype == object:
        sequences = [_mat_cell(path, X_key, i, cell) for i, cell in enumerate(X.ravel("F"))]
        if not sequences:
            raise ValueError(f"{path}: variable {X_key!r} is empty")
        shapes = sorted({sequence.shape[1] for sequence in sequences})
        if len(shapes) > 1:
            raise ValueError(
                f"{path}: the cells of {X_key!r} must be steps x channels with equally many "
                f"channels, got {shapes[0]} to {shapes[-1]}; if they are channels x steps, "
                f"transpose them: {X_key} = cellfun(@transpose, {X_key}, 'UniformOutput', false)"
            )
    else:
        sequences = _checked_array(path, X_key, X)
    ids = None
    for key in ("ids", "id"):
        if key in content and content[key].size == len(sequences):
            ids = _mat_vector(path, key, content[key])
            break
    return Recordings(sequences, labels, ids, source)


def _mat_cell(path: Path, key: str, number: int, cell: Any) -> NDArray[Any]:
    """Sequence of shape (length, n_channels) in a MATLAB cell."""
    where = f"{path}: cell {number + 1} of {key!r}"
    if not isinstance(cell, np.ndarray) or cell.dtype.kind not in "fiub":
        raise ValueError(f"{where} must hold real numbers, got {getattr(cell, 'dtype', cell)}")
    if cell.ndim != 2 or not cell.size:
        raise ValueError(f"{where} must be steps x channels, got shape {list(cell.shape)}")
    # MATLAB has no vectors: a row of numbers is one channel.
    return cell.T if cell.shape[0] == 1 else cell


def _mat_vector(path: Path, key: str, values: Any) -> NDArray[Any]:
    """Numbers, strings or cells of strings as an array of one dimension."""
    if values.dtype == object:
        values = np.array([_mat_text(path, key, cell) for cell in values.ravel("F")])
    elif values.dtype.kind in "U":
        values = np.char.strip(values.ravel())
    elif values.dtype.kind in "fiub":
        values = values.ravel()
        whole = values.dtype.kind == "f" and np.isfinite(values).all() and (values % 1 == 0).all()
        if whole and (np.abs(values) < 2**53).all():
            values = values.astype(np.int64)  # MATLAB's numbers are doubles
    else:
        raise ValueError(
            f"{path}: variable {key!r} must hold numbers or text, got {values.dtype}: convert "
            f"categories with cellstr({key})"
        )
    return values


def _mat_text(path: Path, key: str, cell: Any) -> str:
    if isinstance(cell, np.ndarray) and cell.dtype.kind == "U" and cell.size <= 1:
        return str(cell.item()).strip() if cell.size else ""
    raise ValueError(f"{path}: each cell of {key!r} must hold text, got {cell!r:.60}")
