"""Lists of sequences of unequal lengths, and arrays padded with NaN; needs no torch.

Inside micfast a value that is missing is NaN, and so is what follows a sequence's end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = Any  # numpy.ndarray or torch.Tensor


def is_tensor(value: Any) -> bool:
    """Whether it is a torch.Tensor; without torch nothing can be."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_packed(value: Any) -> bool:
    """Whether it is torch's PackedSequence."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.utils.rnn.PackedSequence)


def to_numpy(value: Any) -> NDArray[Any]:
    """A tensor or an array as NumPy's."""
    if not is_tensor(value):
        return np.asarray(value)
    from micfast._arrays import tensor_to_numpy

    return tensor_to_numpy(value)


def one_by_one(value: Any) -> list[Array] | None:
    """The sequences of a list, a nested tensor or a packed sequence; None for anything else.

    NumPy arrays, or tensors if all of them are.
    """
    if is_packed(value):
        from torch.nn.utils.rnn import unpack_sequence

        return list(unpack_sequence(value))
    if is_tensor(value):
        return list(value.detach().unbind()) if value.is_nested else None
    if isinstance(value, np.ndarray):
        if value.dtype != object or value.ndim != 1:
            return None
    elif not isinstance(value, list | tuple):
        return None
    if len(value) == 0:
        return None
    if all(map(is_tensor, value)):
        items: list[Any] = list(value)
    else:
        try:
            items = [to_numpy(item) for item in value]
        except ValueError:  # ragged within
            return None
    return items if all(item.ndim > 0 for item in items) else None


def unequal(value: Any) -> list[Array] | None:
    """As :func:`one_by_one`, but None for a list that is as good as an array: all of one shape."""
    items = one_by_one(value)
    is_list = isinstance(value, list | tuple) and not is_packed(value)
    if items is None or (is_list and len({tuple(item.shape) for item in items}) == 1):
        return None
    return items


def padded_array(items: Sequence[NDArray[Any]], n_steps: int, dtype: DTypeLike) -> NDArray[Any]:
    """Sequences (T_i, C) as one array (N, T, C), with NaN after their ends."""
    array = np.full((len(items), n_steps, items[0].shape[1]), np.nan, dtype=dtype)
    with np.errstate(over="ignore"):
        for row, item in zip(array, items, strict=True):
            row[: len(item)] = item
    return array


def ragged_to_padded(where: str, name: str, value: Any) -> NDArray[Any] | None:
    """Sequences of unequal lengths as an array (N, T, C) with NaN after their ends.

    Parameters
    ----------
    where, name : str
        The function and its argument, for messages.
    value : object

    Returns
    -------
    ndarray or None
        float32 if all of them are, else float64; None where :func:`unequal` gives it.

    Raises
    ------
    TypeError, ValueError
        If their numbers of channels differ, one is empty, or they hold no real numbers.
    """
    items = unequal(value)
    if items is None:
        return None
    arrays = [to_numpy(item) for item in items]
    arrays = [array[:, None] if array.ndim == 1 else array for array in arrays]
    for i, array in enumerate(arrays):
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{where}: {name}[{i}] must hold real numbers, got dtype {array.dtype}")
        if array.ndim != 2 or 0 in array.shape or array.shape[1] != arrays[0].shape[-1]:
            raise ValueError(
                f"{where}: sequences of unequal lengths must have shape [n_timesteps, n_channels] "
                f"with one n_channels and no 0, got {list(array.shape)} at {name}[{i}] and "
                f"{list(arrays[0].shape)} at {name}[0]"
            )
    single = all(array.dtype == np.float32 for array in arrays)
    return padded_array(arrays, max(map(len, arrays)), np.float32 if single else np.float64)


def ends(X: NDArray[Any]) -> NDArray[np.int64]:
    """Steps up to the last that isn't NaN in all channels, of sequences (..., T, C)."""
    known = ~np.isnan(X).all(axis=-1)
    last = X.shape[-2] - known[..., ::-1].argmax(axis=-1)
    return np.where(known.any(axis=-1), last, 0).astype(np.int64)


def check_missing(where: str, name: str, X: NDArray[Any], nan_policy: str) -> None:
    """Require a value in each of the sequences (N, T, C), and no NaN but where it may be.

    That is after a sequence's end; with the policy "omit", everywhere.
    """
    missing = np.isnan(X)
    if not missing.any():
        return
    lengths = ends(X)
    if (lengths == 0).any():
        raise ValueError(
            f"{where}: Input {name} contains NaN. {name}[{lengths.argmin()}] holds nothing else"
        )
    if nan_policy == "omit":
        return
    within = missing & (np.arange(X.shape[1]) < lengths[:, None])[..., None]
    if within.any():
        raise ValueError(
            f"{where}: Input {name} contains NaN. It may only follow the last step of a sequence; "
            f"{name}[{within.any(axis=(1, 2)).argmax()}] holds some before. With nan_policy='omit' "
            "these are missing values"
        )
