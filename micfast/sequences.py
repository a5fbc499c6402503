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

from micfast._arrays import as_array
from micfast._ragged import one_by_one, padded_array, to_numpy

__all__ = ["NAN_POLICIES", "NanPolicy", "Sequences", "padded"]

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
    return torch.from_numpy(padded_array(items, n_steps, _NUMPY_DTYPES[dtype])).to(device)


def _to_tensor(chunk: Array, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """One chunk as a contiguous tensor."""
    if not isinstance(chunk, Tensor):
        # NumPy converts first: torch knows neither foreign byte orders nor read-only memory.
        with np.errstate(over="ignore"):
            chunk = torch.from_numpy(np.array(chunk, dtype=_NUMPY_DTYPES[dtype], order="C"))
    return chunk.to(dtype=dtype, device=device).contiguous()
