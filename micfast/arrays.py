"""Arrays of other libraries as NumPy arrays or tensors of real numbers."""

from __future__ import annotations

import datetime
import sys
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "as_array", "as_tensor", "is_dask", "is_tensor", "to_numpy"]

Array: TypeAlias = Any  # numpy.ndarray or torch.Tensor

# torch has these types, NumPy only through the package ml_dtypes, as JAX's arrays do.
_SMALL_FLOATS = ("bfloat16", "float8_", "float6_", "float4_")
_NO_NUMBERS = (str, bytes, datetime.date, datetime.time, datetime.timedelta)


def is_tensor(value: Any) -> bool:
    """Whether it is a torch.Tensor; does not import torch, without which nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_dask(value: Any) -> bool:
    """Whether it is a dask.array.Array; does not import dask, without which nothing is."""
    dask = sys.modules.get("dask.array")
    return dask is not None and isinstance(value, dask.Array)


def as_array(values: Any, name: str) -> Array:
    """Read an array of real numbers: a tensor as it is, anything else as a NumPy array.

    Takes NumPy arrays (memory-mapped, read-only, masked, of any byte order), tensors, whatever
    ``np.asarray`` reads (nested lists, data frames, JAX arrays) and whatever only DLPack reads.

    Parameters
    ----------
    values : object
    name : str
        For messages, as in ``"invert: X"``.

    Returns
    -------
    ndarray or Tensor
        Masked values, None and pandas' NA become NaN.

    Raises
    ------
    TypeError
        If it is sparse, holds anything but real numbers (dates and text included), or is no array.
    ValueError
        If it is a list that is ragged.
    """
    if is_tensor(values):
        return _checked_tensor(values, name)
    if type(values) is np.ndarray and values.dtype.kind in "fiub":
        return values  # the usual case
    if isinstance(values, list | tuple):
        values = [_without_tensors(value) for value in values]
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
    except Exception as error:
        # CuPy, for instance, does not copy from its device implicitly.
        if not hasattr(values, "__dlpack__"):
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"{name} must be an array of numbers ({error})") from error
        array = np.empty(0, dtype=object)
    if array.dtype == object and array is not values and hasattr(values, "__dlpack__"):
        import torch

        return _checked_tensor(torch.from_dlpack(values), name)
    if isinstance(array, np.ma.MaskedArray):
        if not np.ma.is_masked(array):
            return as_array(array.data, name)
        _check_kind(array.dtype, name)
        return np.ma.filled(array.astype(np.result_type(array.dtype, np.float16)), np.nan)
    if array.dtype.name.startswith(_SMALL_FLOATS):
        return array.astype(np.float32)
    if array.dtype == object:
        return _numbers(array, name)
    _check_kind(array.dtype, name)
    return np.asarray(array)


def _checked_tensor(tensor: Any, name: str) -> Any:
    if "sparse" in str(tensor.layout):
        raise TypeError(f"{name} must be dense, got a tensor of layout {tensor.layout}")
    if tensor.is_meta:
        raise TypeError(f"{name} must have data, got a tensor on device meta")
    if tensor.is_complex():
        raise TypeError(f"{name} must hold real numbers, got dtype {tensor.dtype}")
    return tensor


def _check_kind(dtype: np.dtype, name: str) -> None:
    if dtype.kind == "c":  # scikit-learn's words
        raise ValueError(f"{name} must hold real numbers. Complex data not supported: {dtype}")
    if dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {dtype}")


def _numbers(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Numbers of an object array as float64; text and dates are refused even if they convert."""
    result = np.empty(array.shape, dtype=np.float64)
    for place, value in np.ndenumerate(array):
        if value is None or type(value).__name__ == "NAType":
            result[place] = np.nan
            continue
        if isinstance(value, complex | np.complexfloating):
            raise ValueError(f"{name} must hold real numbers. Complex data not supported")
        try:
            no_number = isinstance(value, (*_NO_NUMBERS, np.datetime64, np.timedelta64))
            if no_number or not isinstance(value, Real | np.number | np.bool_):
                # In Python's own words for what is not a number at all.
                float(None if no_number else value)  # type: ignore[arg-type]
            result[place] = value
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(
                f"{name} must hold real numbers, got {type(value).__name__} {value!r} at "
                f"{list(place)} ({error})"
            ) from error
    return result


def _without_tensors(value: Any) -> Any:
    """An element of a nested list, tensors in it as NumPy arrays."""
    if isinstance(value, list | tuple):
        return [_without_tensors(v) for v in value]
    return to_numpy(value) if is_tensor(value) else value


def to_numpy(value: Any) -> NDArray[Any]:
    """A tensor as a NumPy array (float32 for types that NumPy lacks), or what NumPy makes of it."""
    if not is_tensor(value):
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            import torch

            return to_numpy(torch.from_dlpack(value))
        return np.asarray(value)
    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    name = str(tensor.dtype).removeprefix("torch.")
    return (tensor.float() if name.startswith(_SMALL_FLOATS) else tensor).numpy()


def as_tensor(values: Any, name: str) -> Any:
    """Read real numbers as a tensor: one that is passed in keeps its gradient, others are copied.

    Raises
    ------
    TypeError, ValueError
        As :func:`as_array`.
    """
    import torch

    array = as_array(values, name)
    if is_tensor(array):
        return array
    # torch knows neither foreign byte orders nor extended precision, and warns of read-only memory.
    dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))
