"""Sequences as users have them, of one length or many, whole or with gaps; read in one form.

Inside micfast a value that is missing is NaN, and so is what follows a sequence's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, unpack_sequence

from micfast._arrays import as_array, tensor_to_numpy

__all__ = [
    "NAN_POLICIES",
    "NanPolicy",
    "Sequences",
    "check_missing",
    "ends",
    "one_by_one",
    "padded",
    "ragged_to_padded",
    "to_numpy",
    "unequal",
]

Array: TypeAlias = Any  # numpy.ndarray or Tensor
NanPolicy = Literal["propagate", "omit", "raise"]
NAN_POLICIES = get_args(NanPolicy)

_NUMPY_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


class Sequences:
    """N sequences of at most T steps, read in stretches; a memory-mapped array stays on disk.

    Parameters
    ----------
    where : str
        The function named in messages.
    targets, lengths, mask, nan_policy
        As in :func:`micfast.invert`.
    n_channels : int
        O

    Attributes
    ----------
    n_steps : int
        T, the number of steps of the longest.
    lengths : int64 ndarray of shape (N,) or None
        As given, or of the sequences of a list; None for an array that came without.
    omit_nan : bool
        Whether NaN in what :meth:`read` gives are missing values.
    wants_tensor : bool
        Whether the sequences are tensors, on `device`.
    """

    def __init__(
        self,
        where: str,
        targets: Any,
        n_channels: int,
        lengths: Any = None,
        mask: Any = None,
        nan_policy: NanPolicy = "propagate",
    ) -> None:
        if nan_policy not in NAN_POLICIES:
            raise ValueError(
                f"{where}: nan_policy must be 'propagate', 'omit' or 'raise', got {nan_policy!r}"
            )
        self._where, self._nan_policy, self.n_channels = where, nan_policy, n_channels
        self._list: list[Array] | None = None
        self._array: Array = None
        self.lengths: NDArray[np.int64] | None = None
        known: Array = None
        if isinstance(targets, np.ma.MaskedArray):
            known, targets = ~np.ma.getmaskarray(targets), targets.data
        items = one_by_one(targets)
        if items is not None and len({tuple(item.shape) for item in items}) == 1:
            # Of one shape: an array like any other.
            stack: Any = torch.stack if isinstance(items[0], Tensor) else np.stack
            items, targets = None, stack(items)
        if items is None:
            self._array = self._checked_array(targets)
            shape = tuple(self._array.shape)
            self.wants_tensor = isinstance(self._array, Tensor)
            self.device = self._array.device if self.wants_tensor else torch.device("cpu")
        else:
            self._list = self._checked_list(items)
            self.lengths = np.array([len(item) for item in items], dtype=np.int64)
            shape = (len(items), int(self.lengths.max()), n_channels)
            self.wants_tensor = isinstance(items[0], Tensor)
            self.device = items[0].device if self.wants_tensor else torch.device("cpu")
            if lengths is not None:
                raise ValueError(f"{where}: lengths must be None for a list of targets")
        self._n, self.n_steps = shape[:2]
        if lengths is not None:
            self.lengths = self._checked_lengths(lengths)
        if known is not None:
            known = self._checked_mask(known)
        if mask is not None:
            mask = self._checked_mask(mask)
            known = mask if known is None else torch.as_tensor(known) & torch.as_tensor(mask)
        self._mask = known
        limited = self.lengths is not None and bool((self.lengths < self.n_steps).any())
        self.omit_nan = limited or known is not None or nan_policy == "omit"

    def __len__(self) -> int:
        return self._n

    def read(self, begin: int, end: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
        """Sequences `begin` to `end`: contiguous, (n, T, O), NaN where a value is missing.

        Raises
        ------
        ValueError
            With ``nan_policy="raise"``, if one of the values is NaN.
        """
        if self._list is not None:
            values = padded(self._list[begin:end], self.n_steps, self.n_channels, dtype, device)
        else:
            values = _to_tensor(self._array[begin:end], dtype, device)
        known = self._known(begin, end, values)
        if self._nan_policy == "raise" and bool((values.isnan() & known).any()):
            first = begin + int((values.isnan() & known).flatten(1).any(dim=1).int().argmax())
            raise ValueError(
                f"{self._where}: targets must not hold NaN with nan_policy='raise', "
                f"got some in targets[{first}]"
            )
        if self.omit_nan and self._nan_policy == "propagate":
            # NaN that isn't missing must still spoil its target, which infinity does.
            values = values.masked_fill(values.isnan() & known, torch.inf)
        return values.masked_fill(~known, torch.nan) if self.omit_nan else values

    def _known(self, begin: int, end: int, values: Tensor) -> Tensor:
        """What lengths and mask let count, to be broadcast to (n, T, O)."""
        known = torch.ones(1, 1, 1, dtype=torch.bool, device=values.device)
        if self.lengths is not None:
            lengths = torch.from_numpy(self.lengths[begin:end]).to(values.device)
            steps = torch.arange(self.n_steps, device=values.device)
            known = (steps < lengths[:, None])[..., None]
        if self._mask is not None:
            mask = torch.as_tensor(self._mask[begin:end]).to(values.device)
            known = known & (mask if mask.dim() == 3 else mask[..., None])
        return known

    # -- checks ----------------------------------------------------------------------------------

    def _checked_array(self, targets: Any) -> Array:
        """Targets (N, T, O) as a NumPy array or a tensor."""
        targets = self._checked_numbers(as_array(targets, f"{self._where}: targets"), "targets")
        shape, O = list(targets.shape), self.n_channels
        if len(shape) == 2 and O == 1:
            targets, shape = targets[..., None], [*shape, 1]
        if len(shape) != 3 or shape[2] != O:
            hint = (
                f"; a single target is targets[None], of shape {[1, *shape]}"
                if len(shape) == 2 and shape[1] == O
                else ""
            )
            raise ValueError(
                f"{self._where}: targets must have shape [n_samples, n_timesteps, n_channels] = "
                f"[*, *, {O}], got {shape}{hint}"
            )
        if shape[1] == 0:
            raise ValueError(
                f"{self._where}: targets must have at least one time step, got shape {shape}"
            )
        return targets

    def _checked_list(self, items: list[Array]) -> list[Array]:
        """Sequences (T_i, O) of a list."""
        O, checked = self.n_channels, []
        for i, item in enumerate(items):
            item = self._checked_numbers(item, f"targets[{i}]")
            if item.ndim == 1 and O == 1:
                item = item[:, None]
            if item.ndim != 2 or item.shape[1] != O or item.shape[0] == 0:
                raise ValueError(
                    f"{self._where}: targets[{i}] must have shape [n_timesteps, n_channels] = "
                    f"[*, {O}] with at least one time step, got {list(item.shape)}"
                )
            checked.append(item)
        return checked

    def _checked_numbers(self, array: Array, name: str) -> Array:
        if isinstance(array, Tensor):
            array, real = array.detach(), not array.is_complex()
        else:
            real = array.dtype.kind in "fiub"
        if not real:
            raise TypeError(
                f"{self._where}: {name} must hold real numbers, got dtype {array.dtype}"
            )
        return array

    def _checked_lengths(self, lengths: Any) -> NDArray[np.int64]:
        array = to_numpy(lengths)
        if array.shape != (self._n,) or array.dtype.kind not in "iu":
            raise ValueError(
                f"{self._where}: lengths must be {self._n} integers, one per target, "
                f"got dtype {array.dtype} and shape {list(array.shape)}"
            )
        if self._n and (array.min() < 1 or array.max() > self.n_steps):
            raise ValueError(
                f"{self._where}: lengths must be from 1 to n_timesteps = {self.n_steps}, "
                f"got {array.min()} to {array.max()}"
            )
        return array.astype(np.int64)

    def _checked_mask(self, mask: Any) -> Array:
        if not isinstance(mask, Tensor):
            mask = np.asarray(mask)
        shapes = ([self._n, self.n_steps], [self._n, self.n_steps, self.n_channels])
        if list(mask.shape) not in shapes or mask.dtype not in (np.bool_, torch.bool):
            raise ValueError(
                f"{self._where}: mask must be boolean, of shape [n_samples, n_timesteps] or "
                f"[n_samples, n_timesteps, n_channels] = {shapes[0]} or {shapes[1]}, "
                f"got dtype {mask.dtype} and shape {list(mask.shape)}"
            )
        return mask


def one_by_one(value: Any) -> list[Array] | None:
    """The sequences of a list, a nested tensor or a packed sequence; None for anything else.

    NumPy arrays, or tensors if all of them are.
    """
    if isinstance(value, PackedSequence):
        return list(unpack_sequence(value))
    if isinstance(value, Tensor):
        return list(value.detach().unbind()) if value.is_nested else None
    if isinstance(value, np.ndarray):
        if value.dtype != object or value.ndim != 1:
            return None
    elif not isinstance(value, list | tuple):
        return None
    if len(value) == 0:
        return None
    if all(isinstance(item, Tensor) for item in value):
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
    is_list = isinstance(value, list | tuple) and not isinstance(value, PackedSequence)
    if items is None or (is_list and len({tuple(item.shape) for item in items}) == 1):
        return None
    return items


def padded(
    items: Sequence[Array],
    n_steps: int,
    n_channels: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Sequences (T_i, O) as one tensor (N, T, O), with NaN after their ends."""
    shape = (len(items), n_steps, n_channels)
    if len(items) and isinstance(items[0], Tensor):
        values = torch.full(shape, torch.nan, dtype=dtype, device=device)
        for row, item in zip(values, items, strict=True):
            row[: len(item)] = item
        return values
    array = np.full(shape, np.nan, dtype=_NUMPY_DTYPES[dtype])
    with np.errstate(over="ignore"):
        for row, item in zip(array, items, strict=True):
            row[: len(item)] = item
    return torch.from_numpy(array).to(device)


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
    longest, dtype = max(map(len, arrays)), torch.float32 if single else torch.float64
    return padded(arrays, longest, arrays[0].shape[1], dtype).numpy()


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


def _to_tensor(chunk: Array, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """One chunk as a contiguous tensor."""
    if not isinstance(chunk, Tensor):
        # NumPy converts first: torch knows neither foreign byte orders nor read-only memory.
        with np.errstate(over="ignore"):
            chunk = torch.from_numpy(np.array(chunk, dtype=_NUMPY_DTYPES[dtype], order="C"))
    return chunk.to(dtype=dtype, device=device).contiguous()


def to_numpy(value: Any) -> NDArray[Any]:
    """A tensor or an array as NumPy's."""
    return tensor_to_numpy(value) if isinstance(value, Tensor) else np.asarray(value)
