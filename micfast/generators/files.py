"""The file format of banks and estimators: safetensors with a format number and a checksum.

Nothing in a file is trusted: the checksum finds accidental changes, safetensors checks offsets and
lengths, and this module and the constructors check names, dtypes, JSON and how the parts fit.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micfast.generators.labels import Label, json_value
from micfast.io import atomic_path
from micfast.kernels.decoder import Decoder
from micfast.kernels.weights import Weights
from micfast.version import __version__

__all__ = ["BankFileError", "BankParts", "read_parts", "write_parts"]

_FORMAT = "micfast-bank"
_FORMAT_VERSION = 3
# Of banks with another structure than the paper's, which readers of version 3 don't know.
_DECODER_VERSION = 4
# Tensors and metadata with this prefix are another layer's (the estimator's): a bank skips them.
_EXTRA = "extra."
_DIGITS = 64
_CHECKSUM = re.compile(rb'"checksum":"([0-9a-f]{64})"')


class BankFileError(ValueError):
    """A file that should hold a bank (or an estimator) does not, or is damaged.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from micfast import BankFileError, GeneratorBank
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "letters.safetensors"
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> bank.save(path)
    >>> _ = path.write_bytes(path.read_bytes()[:-1] + b"!")
    >>> try:
    ...     GeneratorBank.load(path)
    ... except BankFileError as error:
    ...     print(error.reason)
    the file is damaged: its checksum does not match its content
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


# Weights, classes, metadata; extra tensors and an extra JSON value (None if absent).
BankParts = tuple[Weights, list[Label], dict[str, Any], dict[str, Tensor], Any]


def write_parts(
    path: str | os.PathLike[str],
    weights: Weights,
    classes: Iterable[Label],
    metadata: Mapping[str, Any],
    extra_tensors: Mapping[str, Tensor] | None = None,
    extra: Any = None,
) -> None:
    """Write a bank atomically, with tensors and a JSON value that loading a bank alone skips.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: tensor.cpu() for name, tensor in weights.named()}
    for name, tensor in (extra_tensors or {}).items():
        tensors[_EXTRA + name] = tensor.detach().cpu().contiguous()
    header = {
        "format": _FORMAT,
        "format_version": str(_FORMAT_VERSION),
        "micfast_version": __version__,
        "checksum": "0" * _DIGITS,
        "classes": json.dumps(list(classes), allow_nan=False),
        "metadata": json.dumps(metadata, allow_nan=False),
    }
    if not weights.structure.is_plain:
        header["format_version"] = str(_DECODER_VERSION)
        header["decoder"] = json.dumps(weights.decoder.as_dict())
    if extra is not None:
        header[_EXTRA + "json"] = json.dumps(json_value(extra, "extra"), allow_nan=False)
    data = bytearray(save(tensors, metadata=header))
    place = _checksum_place(data)
    assert place is not None
    data[place : place + _DIGITS] = _checksum(data, place).encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _checksum_place(data: bytes | bytearray) -> int | None:
    """Where the checksum's digits stand: in the header, whose other texts have escaped quotes."""
    n_header = int.from_bytes(data[:8], "little")
    found = _CHECKSUM.search(data, 8, 8 + n_header)
    return None if found is None else found.start(1)


def _checksum(data: bytes | bytearray, place: int) -> str:
    """SHA-256 of all bytes, with zeros for the checksum's own digits."""
    sha = hashlib.sha256(data[:place])
    sha.update(b"0" * _DIGITS)
    sha.update(data[place + _DIGITS :])
    return sha.hexdigest()


def read_parts(path: str | os.PathLike[str]) -> BankParts:
    """Read what :func:`write_parts` wrote.

    Raises
    ------
    OSError
        If the file cannot be read.
    BankFileError
        If it is damaged, of another format or version, or its parts contradict each other.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    # Read once: another process may replace the file meanwhile.
    with open(path, "rb") as file:
        data = file.read()
    if not data:
        raise BankFileError(path, "the file is empty")
    try:
        arrays = load(data)
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy lacks
        raise BankFileError(path, f"not a safetensors file, or a damaged one ({error})") from error
    n_header = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n_header]).get("__metadata__", {})
    _check_header(path, header, data)
    tensors = {}
    for name, array in arrays.items():
        if array.dtype.name not in ("float32", "float64"):
            raise BankFileError(
                path, f"tensor {name!r} must be float32 or float64, got {array.dtype}"
            )
        tensors[name] = torch.from_numpy(np.array(array))
    extra_tensors = {
        name.removeprefix(_EXTRA): tensors.pop(name)
        for name in sorted(tensors)
        if name.startswith(_EXTRA)
    }
    classes, metadata = _read_json(path, header, "classes"), _read_json(path, header, "metadata")
    if not isinstance(classes, list) or not isinstance(metadata, dict):
        raise BankFileError(path, "classes must be a JSON list and metadata a JSON object")
    extra = _read_json(path, header, _EXTRA + "json") if _EXTRA + "json" in header else None
    try:
        decoder = Decoder(**_read_json(path, header, "decoder")) if "decoder" in header else None
        weights = Weights.from_mapping(tensors, decoder=decoder)
    except (KeyError, TypeError, ValueError) as error:
        raise BankFileError(path, f"the weights are inconsistent: {error}") from error
    if tensors:
        raise BankFileError(path, f"unknown tensors {sorted(tensors)}")
    return weights, classes, metadata, extra_tensors, extra


def _check_header(path: str | os.PathLike[str], header: Mapping[str, str], data: bytes) -> None:
    if header.get("format") != _FORMAT:
        raise BankFileError(
            path, f"a safetensors file, but of another format: {header.get('format')!r}"
        )
    text = header.get("format_version", "")
    # Ten digits: int() refuses thousands of them with an error of its own.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) >= 1):
        raise BankFileError(path, f"format_version must be a positive integer, got {text[:40]!r}")
    if int(text) not in (_FORMAT_VERSION, _DECODER_VERSION):
        writer = header.get("micfast_version", "")[:40] or "of unknown version"
        cure = (
            "update micfast"
            if int(text) > _DECODER_VERSION
            else "fit the model again (`micfast fit DATA -o MODEL`); formats from before 0.2.0 are "
            "not read"
        )
        raise BankFileError(
            path,
            f"written by micfast {writer} in format {text}, while this one, {__version__}, reads "
            f"formats {_FORMAT_VERSION} and {_DECODER_VERSION}: {cure}",
        )
    place = _checksum_place(data)
    expected = header.get("checksum")
    if place is None or _checksum(data, place) != expected:
        raise BankFileError(path, "the file is damaged: its checksum does not match its content")


def _read_json(path: str | os.PathLike[str], header: Mapping[str, str], key: str) -> Any:
    if key not in header:
        raise BankFileError(path, f"the header has no {key!r}")
    try:
        return json_value(json.loads(header[key]), key)
    except (TypeError, ValueError, RecursionError) as error:
        raise BankFileError(path, f"{key!r} in the header is not valid JSON ({error})") from error
