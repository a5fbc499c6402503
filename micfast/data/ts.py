"""Reader of ``.ts`` files, the format of the UCR and UEA archives."""

from __future__ import annotations

import os
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_ts"]

_HEADERS = {
    "problemname", "timestamps", "missing", "univariate", "dimension", "dimensions", "equallength",
    "serieslength", "classlabel", "targetlabel",
}  # fmt: skip


def load_ts(
    path: str | os.PathLike[str],
) -> tuple[list[NDArray[np.float64]], NDArray[np.str_] | None]:
    r"""Read a ``.ts`` file of the UCR and UEA archives.

    Parameters
    ----------
    path : str or path-like
        A UTF-8 file without timestamps. Lengths may differ; ``?`` and ``NaN`` are missing values.

    Returns
    -------
    sequences : list of ndarray of shape (length, n_channels), float64
        The sequences; missing values are NaN.
    labels : ndarray of str, or None
        Labels as spelled in ``@classLabel``, or the text of targets; None if there are neither.

    Raises
    ------
    ValueError
        If the file is not valid; the message names the line.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from micfast.data import load_ts
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "toy.ts"
    >>> _ = path.write_text("@classLabel true up down\n@data\n1,2,3:up\n3,?:down\n")
    >>> sequences, labels = load_ts(path)
    >>> [sequence.shape for sequence in sequences], labels.tolist()
    ([(3, 1), (2, 1)], ['up', 'down'])
    """
    headers: dict[str, list[str]] = {}
    sequences: list[NDArray[np.float64]] = []
    labels: list[str] = []
    spellings: dict[str, str] = {}
    in_data = has_labels = False
    with open(path, encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, 1):
                text, where = line.strip(), f"{os.fspath(path)}, line {number}"
                if not text or text.startswith("#"):
                    continue
                if in_data:
                    label = ""
                    if has_labels:
                        text, _, label = text.rpartition(":")
                        label = _label(where, label.strip(), spellings)
                    sequence = _sequence(where, text.removesuffix(":"))  # aeon ends lines in one
                    _check_shape(where, headers, sequence, sequences)
                    sequences.append(sequence)
                    labels.append(label)
                elif text.lower() == "@data":
                    has_labels, spellings = _check_header(where, headers)
                    in_data = True
                elif text.startswith("@"):
                    name, *values = text[1:].split()
                    if name.lower() not in _HEADERS:
                        _fail(where, f"unknown header @{name}")
                    headers[name.lower().replace("dimensions", "dimension")] = values
                elif headers:  # text before the first header is a description
                    _fail(where, f"expected a header or @data, got {text[:40]!r}")
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8 text: convert the file to UTF-8") from None
    if not sequences:
        raise ValueError(f"{path}: no sequence follows @data" if in_data else f"{path}: no @data")
    return sequences, np.array(labels) if has_labels else None


def _fail(where: str, message: str) -> NoReturn:
    raise ValueError(f"{where}: {message}")


def _is_true(headers: dict[str, list[str]], name: str) -> bool:
    return headers.get(name, ["false"])[:1] in (["true"], ["True"], ["TRUE"])


def _check_header(where: str, headers: dict[str, list[str]]) -> tuple[bool, dict[str, str]]:
    """Whether sequences have labels, and the declared labels by their lower-case form."""
    if _is_true(headers, "timestamps"):
        _fail(where, "the file has timestamps; only @timeStamps false can be read")
    if "classlabel" not in headers and "targetlabel" not in headers:
        # Without it, a label cannot be told from a further channel.
        _fail(where, "the header lacks @classLabel (@classLabel false: no labels)")
    declared = headers["classlabel"][1:] if _is_true(headers, "classlabel") else []
    # Labels of which only the case differs must match exactly.
    folded = {label.casefold(): label for label in declared}
    spellings = folded if len(folded) == len(declared) else {label: label for label in declared}
    return bool(declared) or _is_true(headers, "targetlabel"), spellings


def _label(where: str, label: str, spellings: dict[str, str]) -> str:
    if not spellings:
        return label
    found = spellings.get(label) or spellings.get(label.casefold())
    if found is None:
        known = ", ".join(list(spellings.values())[:20])
        _fail(where, f"label {label[:40]!r} is not declared by @classLabel ({known})")
    return found


def _sequence(where: str, text: str) -> NDArray[np.float64]:
    """Values of shape (length, n_channels)."""
    channels = [channel.replace("?", "nan").split(",") for channel in text.split(":")]
    lengths = [len(channel) for channel in channels]
    if len(set(lengths)) > 1:
        _fail(where, f"channels must have equal lengths, got {lengths[:20]}")
    try:
        sequence = np.array(channels).astype(np.float64).T
    except ValueError as error:
        _fail(where, f"values must be numbers or ? ({error})")
    if np.isinf(sequence).any():
        _fail(where, "values must be finite, or ? where they are missing")
    return sequence


def _check_shape(
    where: str,
    headers: dict[str, list[str]],
    sequence: NDArray[np.float64],
    before: list[NDArray[np.float64]],
) -> None:
    """Number of channels and, if lengths are declared equal, length."""
    n_channels = before[0].shape[1] if before else sequence.shape[1]
    if _is_true(headers, "univariate"):
        n_channels = 1
    elif headers.get("dimension"):
        n_channels = int(headers["dimension"][0]) if headers["dimension"][0].isdigit() else 0
    if sequence.shape[1] != n_channels:
        _fail(where, f"expected {n_channels} channels, got {sequence.shape[1]}")
    if before and _is_true(headers, "equallength") and len(sequence) != len(before[0]):
        _fail(where, f"expected {len(before[0])} steps, got {len(sequence)}")
