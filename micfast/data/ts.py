"""The `.ts` format of the UCR and UEA archives, read and written, and these archives by name.

The format is that of https://www.aeon-toolkit.org/en/stable/api_reference/data_format.html: lines
of comment (``#``), a header (``@``), ``@data``, then one line a sequence. Lines are read one by one
into flat arrays, so that time and memory grow with the file's size and nothing else.
"""

from __future__ import annotations

import codecs
import gzip
import math
import os
import re
import string
import warnings
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Literal, NoReturn, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from micfast._io import atomic_path
from micfast.data._fetch import DownloadError

__all__ = ["TsError", "load_ts", "load_ucr", "save_ts"]

# Most characters of one header line: far above any archive's, and no header can fill the memory.
_MAX_HEADER = 2**20
# Without max_bytes, what a file may unpack or be padded to: so many bytes, so many per byte of the
# file, and never more than the last number. So no file under 1 MiB needs a GiB of memory.
_FEWEST_BYTES, _BYTES_PER_BYTE, _MOST_BYTES = 2**25, 32, 2**30
# Values are cut apart in pieces of so many characters: a Python object each, for one piece only.
_PIECE = 2**16
# Categories in which tslearn says why it gives nothing.
_TOLD = (RuntimeWarning, UserWarning)
_FLAGS = ("timestamps", "missing", "univariate", "equallength", "targetlabel")
_NUMBERS = ("dimensions", "serieslength")
_HEADERS = (
    "@problemName, @timeStamps, @missing, @univariate, @dimensions, @equalLength, @seriesLength, "
    "@classLabel, @targetLabel and @data"
)


class TsError(ValueError):
    """A `.ts` file can't be read; says the file, the line, what is wrong and what is allowed."""


def load_ts(
    path: str | os.PathLike[str],
    *,
    return_labels: bool = True,
    pad: bool = False,
    max_bytes: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """Read a `.ts` file of the UCR and UEA archives, plain or gzipped.

    Parameters
    ----------
    path : str or path-like
        The file. Whether it is gzipped is seen from its first bytes, not from its name.
    return_labels : bool, default=True
        Whether to give the labels; False gives None for `y`. They are checked either way.
    pad : bool, default=False
        Whether a file with sequences of unequal lengths is accepted. They are then filled with
        NaN at the end, to the length of the longest, which is tslearn's convention.
    max_bytes : int, optional
        Most bytes of text, after unpacking, and most bytes of a padded `X` and of `y`. A small
        file that unpacks to a huge one is so refused before it fills the memory. Default: 32 MiB
        and 32 times the file's size, 1 GiB at most.

    Returns
    -------
    X : ndarray of shape (n_samples, n_timesteps, n_channels), float64
        The sequences; a missing value (``?`` or ``NaN``) is NaN.
    y : ndarray of shape (n_samples,) or None
        Class labels as strings, spelt as the header spells them (``@classLabel true``); or
        float64 targets (``@targetLabel true``); None if the file has neither.

    Raises
    ------
    TsError
        If the file is no such file, has timestamps, is too large, or has unequal lengths and
        `pad` is False. A subclass of ValueError.
    OSError
        If the file can't be opened.

    See Also
    --------
    save_ts : Write such a file.
    load_ucr : Fetch a data set of the archives by its name.

    Notes
    -----
    Names and truth values of the header may be in upper or lower case. Blank lines and lines that
    start with ``#`` are skipped everywhere, and so is any text before the first line of the
    header. ``@missing`` is a mere remark: missing values are read whatever it says.
    ``@classLabel`` or ``@targetLabel`` must be there, as without them nobody can tell a label from
    a further dimension. Infinite values are refused.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from micfast.data import load_ts
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "toy.ts"
    >>> _ = path.write_text('''# Two sequences of three steps, two channels
    ... @problemName toy
    ... @univariate false
    ... @dimensions 2
    ... @classLabel true up down
    ... @data
    ... 1,2,3:0.5,?,0.5:up
    ... 3,2,1:0.5,0.5,0.5:down
    ... ''')
    >>> X, y = load_ts(path)
    >>> X.shape
    (2, 3, 2)
    >>> X[0]
    array([[1. , 0.5],
           [2. , nan],
           [3. , 0.5]])
    >>> y
    array(['up', 'down'], dtype='<U4')
    """
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"load_ts: max_bytes must be at least 1, got {max_bytes}")
    with open(path, "rb") as raw:
        if max_bytes is None:
            size = os.fstat(raw.fileno()).st_size
            max_bytes = min(_FEWEST_BYTES + _BYTES_PER_BYTE * size, _MOST_BYTES)
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        file = cast(IO[bytes], gzip.GzipFile(fileobj=raw) if packed else raw)
        reader = _Reader(path, file, max_bytes)
        header = _read_header(reader)
        return _read_data(reader, header, pad, return_labels)


def save_ts(
    path: str | os.PathLike[str],
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    problem_name: str = "data",
    label_type: Literal["classification", "regression"] | None = None,
    classes: ArrayLike | None = None,
    trim: bool = False,
    comment: str | None = None,
) -> None:
    """Write sequences to a `.ts` file, which is then either whole or absent.

    Parameters
    ----------
    path : str or path-like
        The file; gzipped if its name ends in ``.gz``.
    X : array-like of shape (n_samples, n_timesteps, n_channels) or (n_samples, n_timesteps)
        The sequences, real and finite; NaN is written as missing (``?``). Two dimensions are
        one channel.
    y : array-like of shape (n_samples,) or None, default=None
        Labels.
    problem_name : str, default="data"
        Name of the data set, without white space.
    label_type : {"classification", "regression"} or None, default=None
        What `y` is. None: a floating type is a target of regression, all else are classes.
    classes : array-like or None, default=None
        The classes to declare, in this order; None declares those in `y`, sorted. For the parts
        of one data set that shall declare the same.
    trim : bool, default=False
        Whether to leave out the steps at the end of a sequence at which all channels are NaN
        (tslearn's padding), so that the file has unequal lengths. One step is always kept.
    comment : str or None, default=None
        Text at the top of the file.

    Raises
    ------
    ValueError
        If something can't be written in the format.
    OSError
        If the file can't be written.

    See Also
    --------
    load_ts : Read such a file.

    Notes
    -----
    Numbers are written with as many digits as they need: :func:`load_ts` gives back the same
    float64, bit for bit. Classes come back as strings, whatever they were.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from micfast.data import load_ts, save_ts
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "toy.ts.gz"
    >>> save_ts(path, [[0.1, 0.2], [0.3, float("nan")]], [1, 2], problem_name="toy")
    >>> X, y = load_ts(path)
    >>> X[..., 0]
    array([[0.1, 0.2],
           [0.3, nan]])
    >>> y
    array(['1', '2'], dtype='<U1')
    """
    sequences = _checked_sequences(X)
    if label_type not in (None, "classification", "regression"):
        raise ValueError(
            "save_ts: label_type must be 'classification', 'regression' or None, "
            f"got {label_type!r}"
        )
    _check_word("problem_name", problem_name)
    labels, label_header = _checked_labels(y, len(sequences), label_type, classes)
    lengths = np.full(len(sequences), sequences.shape[1])
    if trim:
        steps = np.arange(1, sequences.shape[1] + 1)
        present = np.logical_not(np.isnan(sequences).all(axis=2))
        lengths = np.maximum(np.where(present, steps, 0).max(axis=1), 1)

    n_channels = sequences.shape[2]
    equal = bool((lengths == lengths[0]).all())
    missing = any(
        np.isnan(sequence[:length]).any()
        for sequence, length in zip(sequences, lengths, strict=True)
    )
    lines = [f"# {line}" for line in (comment or "").splitlines()]
    lines += [
        f"@problemName {problem_name}",
        "@timeStamps false",
        f"@missing {str(missing).lower()}",
        f"@univariate {str(n_channels == 1).lower()}",
    ]
    lines += [f"@dimensions {n_channels}"] if n_channels > 1 else []
    lines += [f"@equalLength {str(equal).lower()}"]
    lines += [f"@seriesLength {lengths[0]}"] if equal else []
    lines += [label_header, "@data"]
    head = "".join(f"{line}\n" for line in lines).encode()

    with atomic_path(path) as temporary, open(temporary, "wb") as raw:
        # No name and no time inside: the same data give the same bytes.
        packed = os.fsdecode(path).endswith(".gz")
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if packed else raw as file:
            file.write(head)
            for i, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
                fields = [",".join(map(_shown, values)) for values in sequence[:length].T.tolist()]
                fields += [] if labels is None else [labels[i]]
                file.write((":".join(fields) + "\n").encode())


def load_ucr(
    name: str,
    split: Literal["train", "test"] = "train",
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Load a data set of the UCR and UEA archives by its name, through tslearn.

    Parameters
    ----------
    name : str
        Name of the data set, such as ``"GunPoint"``, spelt as the archive spells it.
    split : {"train", "test"}, default="train"
        Which of its parts.
    data_dir : path-like or None, default=None
        Folder under which tslearn keeps what it has fetched; None means tslearn's own.

    Returns
    -------
    X : ndarray of shape (n_samples, n_timesteps, n_channels), float64
        The sequences; missing values, and the ends of sequences shorter than the longest, are
        NaN.
    y : ndarray of shape (n_samples,)
        Their labels, integers or strings as tslearn gives them.

    Raises
    ------
    ValueError
        If `name` can't be a name, or `split` is neither part.
    DownloadError
        If tslearn can't get the data set: no network, or there is none of this name.

    See Also
    --------
    load_ts : Read a `.ts` file that lies on disk.

    Notes
    -----
    Source: A. Bagnall, J. Lines, W. Vickers, E. Keogh, *The UEA & UCR Time Series Classification
    Repository*, www.timeseriesclassification.com.

    Examples
    --------
    >>> from micfast.data import load_ucr
    >>> X, y = load_ucr("GunPoint", "test")  # doctest: +SKIP
    >>> X.shape  # doctest: +SKIP
    (150, 150, 1)
    """
    # tslearn deletes the folder of this name before it downloads: no "..", no path.
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(
            "load_ucr: name must be the archive's name of a data set (letters, digits, _ and -), "
            f"got {_quoted(name)}"
        )
    if split not in ("train", "test"):
        raise ValueError(f"load_ucr: split must be 'train' or 'test', got {split!r}")
    from tslearn.datasets import UCR_UEA_datasets

    reason = ""
    try:
        # On failure tslearn warns and gives None.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            parts = UCR_UEA_datasets(root_dir=data_dir).load_dataset(name)
        X, y = parts[:2] if split == "train" else parts[2:]
        reason = "; ".join(str(w.message) for w in caught if issubclass(w.category, _TOLD))
        if X is not None and y is not None:
            return np.ascontiguousarray(X, dtype=np.float64), np.asarray(y)
    # A damaged or changed file makes tslearn raise almost anything.
    except Exception as error:
        raise _not_fetched(name, f"{type(error).__name__}: {error}") from error
    raise _not_fetched(name, reason or "tslearn gave nothing")


def _not_fetched(name: str, reason: str) -> DownloadError:
    return DownloadError(
        f"The data set {name} could not be had through tslearn ({reason}). Is the name spelt as at "
        "www.timeseriesclassification.com, and is there a network? A .ts file fetched in another "
        "way can be read with micfast.data.load_ts."
    )


# --------------------------------------------------------------------------------------------
# Reading


class _Reader:
    """Lines of a file that are neither blank nor comment; knows where it is."""

    def __init__(self, path: str | os.PathLike[str], file: IO[bytes], max_bytes: int) -> None:
        self.path = path
        self.file = file
        self.max_bytes = max_bytes
        self.left = max_bytes
        self.line = 0

    def __iter__(self) -> Iterator[str]:
        while True:
            try:
                # Never more than is allowed, however long the line.
                raw = self.file.readline(self.left + 1)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                self.fail(
                    f"the gzipped file is damaged or truncated after this line ({error}); "
                    "it must be whole"
                )
            if not raw:
                return
            self.line += 1
            self.left -= len(raw)
            if self.left < 0:
                self.fail(
                    f"the text is longer than max_bytes={self.max_bytes} allows; "
                    "a larger max_bytes reads it"
                )
            if self.line == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            try:
                text = raw.decode().strip()
            except UnicodeDecodeError as error:
                self.fail(
                    f"byte {error.start + 1} of the line is {hex(raw[error.start])}, "
                    "which is not UTF-8; only UTF-8 is allowed"
                )
            if text and not text.startswith("#"):
                yield text

    def fail(self, message: str) -> NoReturn:
        raise TsError(f"{os.fsdecode(self.path)}, line {max(self.line, 1)}: {message}")


@dataclass
class _Header:
    """What the header of a file says; None where it says nothing."""

    univariate: bool | None = None
    dimensions: int | None = None
    equallength: bool | None = None
    serieslength: int | None = None
    targetlabel: bool | None = None
    # Declared labels under their own spelling; empty if there are none.
    classes: dict[str, str] = field(default_factory=dict)


def _read_header(reader: _Reader) -> _Header:
    """Header of a file; the reader then stands behind ``@data``."""
    header = _Header()
    seen: dict[str, int] = {}
    for text in reader:
        if not text.startswith("@"):
            # Descriptions whose lines were wrapped occur in the archives, before the header.
            if not seen:
                continue
            reader.fail(
                f"{_quoted(text)} stands in the header; there a line must start with @ or #"
            )
        if len(text) > _MAX_HEADER:
            reader.fail(
                f"a header line has {len(text)} characters; at most {_MAX_HEADER} are allowed"
            )
        tag, *values = text.split()
        key = tag[1:].lower()
        key = "dimensions" if key == "dimension" else key
        # A name, which nothing depends on, is given twice in some files of the archives.
        if key in seen and key != "problemname":
            reader.fail(
                f"{_quoted(tag)} stands in line {seen[key]} already; it is allowed only once"
            )
        if key in _FLAGS:
            flag = _flag(reader, tag, values)
            if key == "timestamps" and flag:
                reader.fail(
                    "the file has timestamps, which load_ts doesn't read; only @timeStamps false "
                    "is allowed (values at equal steps, without their times)"
                )
            setattr(header, key, flag)
        elif key in _NUMBERS:
            if len(values) != 1 or not re.fullmatch("0*[1-9][0-9]{0,14}", values[0]):
                reader.fail(f"{tag} must be one whole number above 0, got {_quoted(values)}")
            setattr(header, key, int(values[0]))
        elif key == "classlabel":
            header.classes = _class_labels(reader, tag, values)
        elif key == "data":
            if values:
                reader.fail(f"@data must stand alone in its line, got {_quoted(text)}")
            _check_header(reader, header, seen)
            return header
        elif key != "problemname":
            reader.fail(f"{_quoted(tag)} is no header; allowed are {_HEADERS}")
        seen[key] = reader.line
    reader.fail("the file ends without @data; it must follow the header")


def _flag(reader: _Reader, tag: str, values: list[str]) -> bool:
    if len(values) != 1 or values[0].lower() not in ("true", "false"):
        reader.fail(f"{tag} must be true or false, got {_quoted(values)}")
    return values[0].lower() == "true"


def _class_labels(reader: _Reader, tag: str, values: list[str]) -> dict[str, str]:
    """Declared labels; empty for ``false``."""
    flag = _flag(reader, tag, values[:1])
    if flag != (len(values) > 1):
        reader.fail(
            f"{tag} must be false alone, or true and then the labels, got {_quoted(values)}"
        )
    classes: dict[str, str] = {}
    for label in values[1:]:
        # NumPy drops a NUL at the end of a string.
        if ":" in label or "\0" in label:
            reader.fail(f"the label {_quoted(label)} has a colon or NUL, which is not allowed")
        classes[label] = label
    return classes


def _check_header(reader: _Reader, header: _Header, seen: dict[str, int]) -> None:
    """The parts of a header must fit each other."""
    if "classlabel" not in seen and "targetlabel" not in seen:
        reader.fail(
            "the header has neither @classLabel nor @targetLabel; one must be there "
            "(@classLabel false if the sequences have no labels)"
        )
    if header.classes and header.targetlabel:
        reader.fail("@classLabel and @targetLabel are both true; only one of them may be")
    if header.univariate and (header.dimensions or 1) != 1:
        reader.fail(
            f"@univariate is true, but @dimensions is {header.dimensions}; it must then be 1"
        )


def _read_data(
    reader: _Reader, header: _Header, pad: bool, return_labels: bool
) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """Sequences and labels of a file whose reader stands behind ``@data``."""
    # A spelling that differs only by case is the declared one: other readers ignore case.
    folded = {label.casefold(): label for label in header.classes}
    if len(folded) < len(header.classes):
        folded = {}
    n_channels = 1 if header.univariate else header.dimensions
    fixed = header.serieslength if header.equallength is not False else None
    values, lengths = array("d"), array("q")
    labels: list[str] = []
    targets = array("d")
    first_line = 0
    for text in reader:
        first_line = first_line or reader.line
        label = None
        if header.classes or header.targetlabel:
            text, colon, label = text.rpartition(":")
            if not colon:
                reader.fail("the line has no label; allowed is values, then :label at the end")
            label = label.strip()
        elif text.endswith(":"):
            # aeon ends unlabelled sequences so.
            text = text[:-1]
        found = text.count(":") + 1
        if n_channels is None:
            n_channels = found
        if found != n_channels:
            reader.fail(
                f"the sequence has {found} dimension(s) before its label, if any; "
                f"{n_channels} must be there, as the header or the first sequence has"
            )
        length = _append_sequence(reader, text, values)
        if fixed is None and header.equallength:
            fixed = length
        if fixed is not None and length != fixed:
            reader.fail(
                f"the sequence has {length} steps; {fixed} must be there, as the header says that "
                "all lengths are equal"
            )
        if lengths and length != lengths[0] and not pad:
            reader.fail(
                f"the sequence has {length} steps, that of line {first_line} has {lengths[0]}: "
                "unequal lengths are allowed only with pad=True, which fills them with NaN"
            )
        lengths.append(length)
        if header.targetlabel:
            assert label is not None
            try:
                targets.append(_number(label))
            except ValueError:
                reader.fail(
                    f"the target is {_quoted(label)}; only a finite number, ? or NaN is allowed"
                )
        elif label is not None:
            known = header.classes.get(label) or folded.get(label.casefold())
            if known is None:
                allowed = ", ".join(list(header.classes)[:20])
                reader.fail(
                    f"the label {_quoted(label)} is not declared by @classLabel; allowed are "
                    f"{_quoted(allowed)}{' and more' if len(header.classes) > 20 else ''}"
                )
            labels.append(known)
    if n_channels is None or not lengths:
        reader.fail("no sequence follows @data; at least one must be there")

    X = _stacked(reader, values, lengths, n_channels)
    if header.targetlabel:
        y: NDArray[Any] | None = np.array(targets)
    elif header.classes:
        size = 4 * max(map(len, set(labels))) * len(labels)
        if size > reader.max_bytes:
            reader.fail(
                f"the labels would take {size} bytes as an array; max_bytes="
                f"{reader.max_bytes} are allowed"
            )
        y = np.array(labels)
    else:
        y = None
    return X, y if return_labels else None


def _append_sequence(reader: _Reader, text: str, values: array[float]) -> int:
    """Append the values of all dimensions of a sequence, one after the other; give its length."""
    sequence = array("d")
    length = None
    for dimension, part in enumerate(_fields(text, ":"), 1):
        start = len(sequence)
        try:
            for piece in _pieces(part):
                # float takes 1_0 and digits of other scripts, too; and it is the fast way.
                plain = piece.isascii() and "?" not in piece and "_" not in piece
                sequence.extend(map(float if plain else _number, piece.split(",")))
        except ValueError:
            _fail_at_value(reader, text)
        found = len(sequence) - start
        if length is None:
            length = found
        if found != length:
            reader.fail(
                f"dimension {dimension} has {found} values, dimension 1 has {length}; all "
                "dimensions of a sequence must have equally many"
            )
    if np.isinf(np.frombuffer(sequence)).any():
        _fail_at_value(reader, text)
    values.extend(sequence)
    assert length is not None
    return length


def _fail_at_value(reader: _Reader, text: str) -> NoReturn:
    """Raise the error about the first value of a sequence that is not allowed."""
    for dimension, part in enumerate(_fields(text, ":"), 1):
        for place, value in enumerate(_fields(part, ","), 1):
            try:
                _number(value)
            except ValueError:
                reader.fail(
                    f"value {place} of dimension {dimension} is {_quoted(value.strip())}; only "
                    "finite numbers, ? and NaN are allowed, with commas between them"
                )
    raise AssertionError("all values are allowed")


def _number(text: str) -> float:
    """A finite number, or NaN for a missing one."""
    # The whitespace that float takes around ASCII digits; str.strip() has more (0x1c to 0x1f).
    text = text.strip(string.whitespace)
    if text == "?":
        return math.nan
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


def _fields(text: str, separator: str) -> Iterator[str]:
    """``text.split(separator)``, one field at a time."""
    start = 0
    while (end := text.find(separator, start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _pieces(text: str) -> Iterator[str]:
    """Parts of bounded length, cut at commas (a single value can be longer)."""
    start = 0
    while (end := text.find(",", start + _PIECE)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _stacked(
    reader: _Reader, values: array[float], lengths: array[int], n_channels: int
) -> NDArray[np.float64]:
    """Array (n, T, C) of values that are in the order (n, C, T)."""
    flat = np.frombuffer(values)
    longest = max(lengths)
    if min(lengths) == longest:
        shape = (len(lengths), n_channels, longest)
        return flat.reshape(shape).transpose(0, 2, 1).copy()
    size = 8 * len(lengths) * longest * n_channels
    if size > reader.max_bytes:
        reader.fail(
            f"padded to {longest} steps, {len(lengths)} sequences would take {size} bytes; "
            f"max_bytes={reader.max_bytes} are allowed"
        )
    X = np.full((len(lengths), longest, n_channels), np.nan)
    start = 0
    for padded, length in zip(X, lengths, strict=True):
        end = start + length * n_channels
        padded[:length] = flat[start:end].reshape(n_channels, length).T
        start = end
    return X


def _quoted(value: object) -> str:
    """A value for a message: printable, short and cheap, however long it is."""
    if isinstance(value, list):
        value = " ".join(value[:20])
    return repr(_cut(value) if isinstance(value, str) else value)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


# --------------------------------------------------------------------------------------------
# Writing


def _checked_sequences(X: ArrayLike) -> NDArray[np.float64]:
    """Sequences as (n, T, C) float64."""
    given = np.asarray(X)
    if given.dtype.kind not in "fiub":
        raise ValueError(f"save_ts: X must be of real numbers, got dtype {given.dtype}")
    sequences = given.astype(np.float64, copy=False)
    if sequences.ndim == 2:
        sequences = sequences[..., None]
    if sequences.ndim != 3 or 0 in sequences.shape:
        raise ValueError(
            "save_ts: X must have shape [n, T, C] or [n, T] and not be empty, "
            f"got {list(given.shape)}"
        )
    if np.isinf(sequences).any():
        raise ValueError("save_ts: X must be finite or NaN, it has infinite values")
    return sequences


def _checked_labels(
    y: ArrayLike | None,
    n_samples: int,
    label_type: str | None,
    classes: ArrayLike | None,
) -> tuple[list[str] | None, str]:
    """Labels as they are written, and their line of the header."""
    if y is None:
        if classes is not None or label_type is not None:
            raise ValueError("save_ts: classes and label_type need y, which is None")
        return None, "@classLabel false"
    given = np.asarray(y)
    if given.shape != (n_samples,):
        raise ValueError(f"save_ts: y must have shape [{n_samples}], got {list(given.shape)}")
    regression = given.dtype.kind == "f" if label_type is None else label_type == "regression"
    if regression:
        if classes is not None:
            raise ValueError("save_ts: classes must be None for regression")
        if given.dtype.kind not in "fiu":
            raise ValueError(f"save_ts: targets must be real numbers, got dtype {given.dtype}")
        targets = given.astype(np.float64)
        if np.isinf(targets).any():
            raise ValueError("save_ts: targets must be finite or NaN")
        return [_shown(target) for target in targets.tolist()], "@targetLabel true"

    # Of y sorted as it is, so that 10 comes after 9.
    if given.dtype.kind == "O":
        given = np.array(_words(given))
    declared = _words(np.unique(given) if classes is None else np.asarray(classes).ravel())
    labels = _words(given)
    undeclared = set(labels) - set(declared)
    if undeclared:
        raise ValueError(
            f"save_ts: y has labels that are not in classes, such as {_quoted(min(undeclared))}"
        )
    for label in set(declared):
        _check_word("a label", label)
    if len(set(declared)) != len(declared):
        raise ValueError("save_ts: classes must differ from each other, written as text")
    header = " ".join(["@classLabel true", *declared])
    if len(header) > _MAX_HEADER:
        raise ValueError(
            f"save_ts: the labels take {len(header)} characters in the header; at most "
            f"{_MAX_HEADER} are allowed"
        )
    return labels, header


def _words(labels: NDArray[Any]) -> list[str]:
    if labels.dtype.kind not in "Uiubf" and not all(isinstance(v, str | int) for v in labels):
        raise ValueError(
            f"save_ts: labels must be strings or numbers, got {labels.dtype} with something else"
        )
    return [str(label) for label in labels.tolist()]


def _check_word(what: str, text: object) -> None:
    """A word of a header: not empty, no white space, no colon, no NUL, encodable."""
    if isinstance(text, str) and text.split() == [text] and not {":", "\0"} & {*text}:
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return
    raise ValueError(
        f"save_ts: {what} must be a word without white space, colon and NUL, got {_quoted(text)}"
    )


def _shown(value: float) -> str:
    """The shortest text that reads back as the same float64."""
    return "?" if math.isnan(value) else repr(value)
