"""MATLAB's level-5 files, as far as the data sets need them: cells, structs, numbers, text.

Not by scipy.io.loadmat: a damaged or malicious file makes it read memory that is not its own (a
segmentation fault in scipy 1.17, `tests/data/fuzz/mat`). Here each size is checked against the
bytes that are there before it is used.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from typing import Any

import numpy as np

__all__ = ["MatError", "read_mat"]

# Data types (mi...) and array classes (mx..._CLASS) of the format.
_DTYPES = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = {
    6: "f8",
    7: "f4",
    8: "i1",
    9: "u1",
    10: "i2",
    11: "u2",
    12: "i4",
    13: "u4",
    14: "i8",
    15: "u8",
}
_COMPLEX = 0x0800
_MAX_DEPTH = 16


class MatError(ValueError):
    """A file is not of this format, damaged, or holds what is not read."""


def read_mat(
    path: str | os.PathLike[str], names: tuple[str, ...], max_bytes: int = 64 * 2**20
) -> dict[str, Any]:
    """Read variables of a MATLAB file of level 5 (version 5 to 7).

    Parameters
    ----------
    path : path-like
        The file.
    names : tuple of str
        Which variables; others are skipped.
    max_bytes : int
        Most bytes of the file and of each variable once unpacked.

    Returns
    -------
    dict of str
        Numbers as arrays; a cell array as an object array; text of one row as str; a struct of one
        element as a dict. Variables that the file lacks are left out.

    Raises
    ------
    MatError
        If the file is no such file, is damaged, or has something else under these names.
    OSError
        If it can't be opened.
    """
    with open(path, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise MatError(f"the file has more than {max_bytes} bytes")
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise MatError("the file does not start with the header of a MATLAB file of level 5")
    order = "<" if content[126:128] == b"IM" else ">"
    file_bytes = _Bytes(content, order, 128)
    found = {}
    while file_bytes.left:
        kind, body = file_bytes.element(padded=False)
        if kind == _COMPRESSED:
            unpacked = _Bytes(_inflate(body.rest(), max_bytes), order)
            kind, body = unpacked.element(padded=False)
        if kind != _MATRIX:
            raise MatError(f"the file has an element of type {kind} where variables stand")
        array = _Array(body)
        if array.name in names:
            found[array.name] = array.value(_MAX_DEPTH)
    return found


def _inflate(packed: bytes, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(packed, max_bytes + 1)
    except zlib.error as error:
        raise MatError(f"a compressed variable is damaged ({error})") from error
    if len(content) > max_bytes:
        raise MatError(f"a variable unpacks to more than {max_bytes} bytes")
    if not inflater.eof:
        raise MatError("a compressed variable is truncated")
    return content


class _Bytes:
    """Bytes that are read from front to end, and never beyond it."""

    def __init__(self, content: bytes | memoryview, order: str, at: int = 0) -> None:
        self.content, self.order, self.at = memoryview(content), order, at

    @property
    def left(self) -> int:
        return len(self.content) - self.at

    def take(self, size: int) -> memoryview:
        if not 0 <= size <= self.left:
            raise MatError(f"{size} bytes are announced, {self.left} follow")
        self.at += size
        return self.content[self.at - size : self.at]

    def rest(self) -> bytes:
        return bytes(self.take(self.left))

    def element(self, *, padded: bool = True) -> tuple[int, _Bytes]:
        """Type and body of the next data element; those inside an array are padded to 8 bytes."""
        tag, size = struct.unpack(self.order + "II", self.take(8))
        if tag >> 16:  # a small element: its size is in the tag, its body in the place of the size
            if tag >> 16 > 4:
                raise MatError(f"a small element of {tag >> 16} bytes; 4 are the most")
            self.at -= 4
            body = self.take(4)[: tag >> 16]
            return tag & 0xFFFF, _Bytes(body, self.order)
        body = self.take(size)
        if padded:
            # The last element of a variable is left unpadded by some writers.
            self.take(min(-size % 8, self.left))
        return tag, _Bytes(body, self.order)

    def numbers(self) -> np.ndarray:
        """The next element, as numbers."""
        kind, body = self.element()
        if kind not in _DTYPES:
            raise MatError(f"numbers are stored as type {kind}, which is not read")
        dtype = np.dtype(self.order + _DTYPES[kind])
        if body.left % dtype.itemsize:
            raise MatError(f"{body.left} bytes hold no whole number of {dtype}")
        return np.frombuffer(body.rest(), dtype)

    def text(self) -> str:
        """The next element, as text."""
        kind, body = self.element()
        if kind not in _ENCODINGS:
            raise MatError(f"text is stored as type {kind}, which is not read")
        encoding = _ENCODINGS[kind]
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self.order == "<" else "-be"
        try:
            return body.rest().decode(encoding)
        except UnicodeDecodeError as error:
            raise MatError(f"text is no {encoding} ({error.reason})") from error


class _Array:
    """An array: its name at once, its value on demand."""

    def __init__(self, body: _Bytes) -> None:
        self.body = body
        flags, shape = body.numbers(), body.numbers()
        if flags.size != 2 or shape.dtype.kind not in "iu" or shape.size < 2 or shape.min() < 0:
            raise MatError("an array has no flags or no shape")
        self.kind, self.is_complex = int(flags[0]) & 0xFF, bool(int(flags[0]) & _COMPLEX)
        self.shape = tuple(int(size) for size in shape)
        self.name = body.text()

    def value(self, depth: int) -> Any:
        body, size = self.body, math.prod(self.shape)
        # Each element takes a byte at the least, so that no shape can ask for more than the file.
        if size > body.left or len(self.shape) > 32 or not depth:
            raise MatError(f"an array of shape {list(self.shape)} has {body.left} bytes")
        if self.kind == _CELL:
            cells = np.empty(size, dtype=object)
            for i in range(size):
                cells[i] = _child(body, depth)
            return cells.reshape(self.shape, order="F")
        if self.kind == _STRUCT:
            if size != 1:
                raise MatError(f"a struct array of shape {list(self.shape)}; one struct is read")
            (length,) = body.numbers()[:1].tolist() or [0]
            if not 1 <= length <= 64:
                raise MatError(f"field names of {length} characters")
            names = body.text()
            fields = [names[i : i + length].split("\0")[0] for i in range(0, len(names), length)]
            return {field: _child(body, depth) for field in fields}
        if self.kind == _CHAR:
            text = body.text()
            if len(self.shape) != 2 or self.shape[0] != 1 or len(text) != size:
                raise MatError(f"text of shape {list(self.shape)} and {len(text)} characters")
            return text
        if self.kind not in _NUMBERS or self.is_complex:
            raise MatError(f"an array of class {self.kind}, or of complex numbers, is not read")
        stored = body.numbers()
        if stored.size != size:
            raise MatError(f"an array of shape {list(self.shape)} has {stored.size} numbers")
        # MATLAB stores numbers in the smallest type that holds them.
        return stored.astype(_NUMBERS[self.kind]).reshape(self.shape, order="F")


def _child(body: _Bytes, depth: int) -> Any:
    """The next array inside a cell array or a struct."""
    kind, inner = body.element()
    if kind != _MATRIX:
        raise MatError(f"an element of type {kind} where an array stands")
    if not inner.left:  # an empty array may have no body at all
        return np.empty((0, 0))
    return _Array(inner).value(depth - 1)
