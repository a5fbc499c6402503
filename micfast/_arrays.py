"""Arrays of other libraries, as NumPy arrays or tensors.

Anything goes that has numbers in a row: NumPy (memory-mapped, read-only, masked, of any byte
order), torch, what ``np.asarray`` reads (lists, data frames, JAX arrays), what only DLPack reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_array", "as_tensor", "for_sklearn", "tensor_to_numpy"]

# torch has them, NumPy only by the package ml_dtypes, as JAX's arrays.
_SMALL_FLOATS = ("bfloat16", "float8_", "float6_", "float4_")


def as_array(values: Any, name: str) -> np.ndarray | Tensor:
    """Give a tensor as it is, anything else as a NumPy array (a tensor, if only DLPack reads it).

    Parameters
    ----------
    values
        Array, tensor, (nested) sequence of them or of numbers. Masked values become NaN.
    name : str
        For messages: ``function: argument``.

    Raises
    ------
    TypeError
        If it is sparse, or no array.
    """
    if isinstance(values, Tensor):
        if "sparse" in str(values.layout):
            raise TypeError(f"{name} must be dense, got a tensor of layout {values.layout}")
        if values.is_meta:
            raise TypeError(f"{name} must have data, got a tensor on device meta")
        return values
    if isinstance(values, list | tuple):
        values = [_elements(value) for value in values]
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
    except Exception as error:
        # CuPy, say, refuses to leave its device unasked.
        if not hasattr(values, "__dlpack__"):
            raise TypeError(f"{name} must be an array of numbers ({error})") from error
        return torch.from_dlpack(values)
    if array.dtype == object and array is not values and hasattr(values, "__dlpack__"):
        return torch.from_dlpack(values)
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            return np.ma.filled(array.astype(np.result_type(array.dtype, np.float16)), np.nan)
        return array.data
    if array.dtype.name.startswith(_SMALL_FLOATS):
        return array.astype(np.float32)
    return array


def _elements(value: Any) -> Any:
    """An element of a sequence, tensors in it as NumPy arrays."""
    if isinstance(value, list | tuple):
        return [_elements(v) for v in value]
    return tensor_to_numpy(value) if isinstance(value, Tensor) else value


def tensor_to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor's numbers; float32 for the types that NumPy lacks."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = str(tensor.dtype).removeprefix("torch.")
    return (tensor.float() if name.startswith(_SMALL_FLOATS) else tensor).numpy()


def as_tensor(values: Any, name: str) -> Tensor:
    """Give a tensor as it is, with its gradient; a copy of anything else.

    Raises
    ------
    TypeError
        As :func:`as_array`; also if there are no real numbers in it.
    """
    array = as_array(values, name)
    if isinstance(array, Tensor):
        if array.is_complex():
            raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
        return array
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    # torch knows neither foreign byte orders nor extended precision, and warns of read-only memory.
    dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))


def for_sklearn(values: Any, name: str) -> Any:
    """Tensors and what only DLPack reads as NumPy arrays; scikit-learn's checks take the rest."""
    if isinstance(values, list | tuple):
        return [_elements(value) for value in values]
    known = isinstance(values, Tensor | np.ndarray)
    if not known and (not hasattr(values, "__dlpack__") or hasattr(values, "__array__")):
        return values
    array = as_array(values, name)
    return tensor_to_numpy(array) if isinstance(array, Tensor) else array
