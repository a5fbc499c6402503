"""Sequences as users have them, of one length or many, with or without gaps: read only here.

A list, or any other container of sequences, always means sequences, one item each; an array has
one sequence per row. Inside micfast a missing value is NaN, and so is what follows a sequence's
end.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from micfast.arrays import Array, as_array, as_tensor, is_dask, is_tensor, to_numpy
from micfast.settings import check_choice

__all__ = [
    "NAN_POLICIES",
    "NanPolicy",
    "Sequences",
    "ends",
    "is_lazy",
    "is_table",
    "pad",
    "require_values",
]

NanPolicy = Literal["propagate", "omit", "raise"]
NAN_POLICIES = get_args(NanPolicy)

_NUMPY_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True, eq=False, repr=False)
class Sequences:
    """N sequences of at most T steps and O channels, read in chunks; made by :meth:`read`.

    Attributes
    ----------
    values : array of shape (N, T, O), or list of N arrays (T_i, O)
        Of any real dtype; a memory-mapped array stays on disk. A Dask array stays one, whose
        lengths, mask and values are checked where a chunk is read; of objects, (N,), it tells
        neither T nor O (both are 0).
    lengths : int64 ndarray of shape (N,), or None
        Number of steps of each sequence, as given or of a list's items.
    mask : bool array of shape (N, T) or (N, T, O), or None
        True where a value counts.
    nan_policy : {"propagate", "omit", "raise"}
        What NaN among the values means, see :meth:`read`.
    channel_names : tuple of str, or None
        Column names, if the sequences were data frames.
    is_table : bool
        Whether they came as a two-dimensional array, of one channel.
    name : str
        The argument's name in messages.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import Sequences
    >>> Sequences.read([np.zeros((20, 2)), np.zeros((7, 2))])
    Sequences(2 of 7 to 20 steps x 2 channels)
    >>> Sequences.read(np.zeros((2, 20, 3)), lengths=[20, 12]).lengths.tolist()
    [20, 12]
    """

    values: Array
    lengths: NDArray[np.int64] | None
    mask: Array | None
    nan_policy: NanPolicy
    channel_names: tuple[str, ...] | None
    is_table: bool
    n_steps: int
    n_channels: int
    name: str

    @classmethod
    def read(
        cls,
        X: Any,
        *,
        lengths: Any = None,
        mask: Any = None,
        nan_policy: NanPolicy = "propagate",
        n_channels: int | None = None,
        name: str = "X",
    ) -> Sequences:
        """Read sequences.

        Parameters
        ----------
        X : array of shape (N, T, O), or (N, T) for one channel; or a container of sequences
            NumPy array (``np.memmap`` included), tensor, or whatever ``np.asarray`` or
            ``torch.from_dlpack`` reads. Containers are lists, tuples, generators, pandas Series
            of arrays, nested data frames (one cell a sequence) and those with an index of instance
            and time, polars list columns, awkward arrays, object arrays (cells of ``.mat`` files),
            nested tensors and torch's ``PackedSequence``; their items have shape (T_i, O), or
            (T_i,) for one channel. Data frames among the items are matched by column name.
        lengths : int array of shape (N,), optional
            Number of steps of each sequence of an array; what follows them is ignored.
        mask : bool array of shape (N, T) or (N, T, O), optional
            True where a value counts. A NumPy masked array brings its own.
        nan_policy : {"propagate", "omit", "raise"}
            NaN makes its sequence's result NaN; is a missing value; is an error. With "omit", an
            array padded with NaN holds sequences of unequal lengths.
        n_channels : int, optional
            The number of channels required.
        name : str
            The argument's name in messages.

        Returns
        -------
        Sequences
            X itself, if it was read before.

        Raises
        ------
        TypeError
            If X holds anything but real numbers, or is no container of sequences.
        ValueError
            If shapes do not fit, or NaN occurs with ``nan_policy="raise"``.

        Examples
        --------
        >>> from micfast import Sequences
        >>> Sequences.read([[1.0, 2.0, 3.0], [4.0, 5.0]])
        Sequences(2 of 2 to 3 steps x 1 channel)
        """
        if isinstance(X, Sequences):
            _check_channels(X, n_channels, name)
            return X
        check_choice(name, "nan_policy", nan_policy, NAN_POLICIES)
        if not isinstance(X, np.ndarray) and is_dask(X):
            of_objects = X.dtype == object and X.ndim == 1
            values, is_table = (X, False) if of_objects else _three_dimensional(X, n_channels, name)
            n_steps, n_read = (0, 0) if of_objects else values.shape[1:]
            lazy = cls(values, lengths, mask, nan_policy, None, is_table, n_steps, n_read, name)
            _check_channels(lazy, n_channels if n_read else None, name)
            return lazy
        known: Array | None = None
        if isinstance(X, np.ma.MaskedArray):
            known, X = ~np.ma.getmaskarray(X), X.data
        items = None if type(X) is np.ndarray and X.dtype != object else _items(X, name)
        names: tuple[str, ...] | None = None
        is_table = False
        if items is None:
            values, is_table = _three_dimensional(as_array(X, name), n_channels, name)
            N, n_steps, n_read = values.shape
        else:
            if lengths is not None:
                raise ValueError(f"{name}: lengths must be None for a list of sequences")
            values, names = _read_items(items, name)
            N, n_read = len(values), values[0].shape[1]
            lengths = np.array([len(item) for item in values], dtype=np.int64)
            n_steps = int(lengths.max())
        if lengths is not None:
            lengths = _checked_lengths(lengths, N, n_steps, name)
        if known is not None:
            known = _checked_mask(known, N, n_steps, n_read, name)
        if mask is not None:
            mask = _checked_mask(mask, N, n_steps, n_read, name)
            known = mask if known is None else as_tensor(known, name) & as_tensor(mask, name)
        sequences = cls(values, lengths, known, nan_policy, names, is_table, n_steps, n_read, name)
        _check_channels(sequences, n_channels, name)
        return sequences

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        if is_dask(self.values):
            return f"Sequences({self.values!r})"
        shortest = self.n_steps if self.lengths is None else self.lengths.min(initial=self.n_steps)
        steps = f"{shortest} to {self.n_steps}" if shortest < self.n_steps else f"{self.n_steps}"
        plural = "s" * (self.n_channels != 1)
        return f"Sequences({len(self)} of {steps} steps x {self.n_channels} channel{plural})"

    @classmethod
    def of_array(
        cls, Z: NDArray[Any], lengths: NDArray[np.int64] | None, nan_policy: NanPolicy
    ) -> Sequences:
        """Sequences (N, T, O) of a checked array, of the given lengths."""
        return cls(Z, lengths, None, nan_policy, None, False, Z.shape[1], Z.shape[2], "X")

    @property
    def omits_nan(self) -> bool:
        """Whether NaN in what :meth:`chunk` gives are missing values."""
        if self.mask is not None or self.nan_policy == "omit":
            return True
        if self.lengths is None or is_dask(self.values):
            return self.lengths is not None
        return bool((self.lengths < self.n_steps).any())

    @property
    def is_tensor(self) -> bool:
        """Whether the sequences came as tensors."""
        return is_tensor(self.values[0] if isinstance(self.values, list) else self.values)

    @property
    def device(self) -> torch.device:
        """The tensors' device; the CPU for anything else."""
        if not self.is_tensor:
            return torch.device("cpu")
        return (self.values[0] if isinstance(self.values, list) else self.values).device

    def chunk(
        self, begin: int, end: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Sequences `begin` to `end`: contiguous, (n, T, O), NaN where a value is missing.

        Raises
        ------
        ValueError
            With ``nan_policy="raise"``, if one of the values is NaN.
        """
        values = _to_tensor(self.values[begin:end], self.n_steps, dtype, device)
        omits = self.omits_nan
        if not omits and self.nan_policy == "propagate":
            return values
        counts = self._counts(begin, end, values)
        unexpected = values.isnan() & counts
        if self.nan_policy == "raise" and bool(unexpected.any()):
            first = begin + int(unexpected.flatten(1).any(dim=1).int().argmax())
            raise ValueError(
                f"{self.name} must not contain NaN with nan_policy='raise', but "
                f"{_own_name(self.name)}[{first}] does"
            )
        if omits and self.nan_policy == "propagate":
            # NaN that is no missing value must still make its sequence's error NaN; infinity does.
            values = values.masked_fill(unexpected, torch.inf)
        return values.masked_fill(~counts, torch.nan) if omits else values

    def _counts(self, begin: int, end: int, values: Tensor) -> Tensor:
        """Where lengths and mask let a value count, to be broadcast to (n, T, O)."""
        counts = torch.ones(1, 1, 1, dtype=torch.bool, device=values.device)
        if self.lengths is not None:
            lengths = torch.from_numpy(self.lengths[begin:end]).to(values.device)
            steps = torch.arange(self.n_steps, device=values.device)
            counts = (steps < lengths[:, None])[..., None]
        if self.mask is not None:
            mask = as_tensor(self.mask[begin:end], self.name).to(values.device)
            counts = counts & (mask if mask.dim() == 3 else mask[..., None])
        return counts

    def padded(self) -> NDArray[Any]:
        """All sequences as one NumPy array (N, T, O), NaN after their ends and where masked.

        float32 if all values are, else float64.
        """
        if isinstance(self.values, list):
            arrays = [to_numpy(item) for item in self.values]
            single = all(array.dtype == np.float32 for array in arrays)
            values = pad(arrays, self.n_steps, np.float32 if single else np.float64)
        else:
            values = to_numpy(self.values)
            if values.dtype != np.float32:
                values = np.asarray(values, dtype=np.float64)
        if self.mask is not None or (
            self.lengths is not None and not isinstance(self.values, list)
        ):
            counts = self._counts(0, len(self), torch.empty(0, device="cpu"))
            values = np.where(counts.numpy(), values, values.dtype.type(np.nan))
        return values


def is_lazy(X: Any) -> bool:
    """Whether X is a Dask array, or sequences read from one."""
    return "dask.array" in sys.modules and is_dask(X.values if isinstance(X, Sequences) else X)


def is_table(X: Any) -> bool:
    """Whether X is an array or data frame of two dimensions, no container of sequences."""
    if isinstance(X, Sequences | list | tuple):
        return False
    if not hasattr(X, "ndim"):
        if not hasattr(X, "__array__"):
            return False
        return np.asarray(X).ndim == 2
    return X.ndim == 2 and ((type(X) is np.ndarray and X.dtype != object) or _items(X, "X") is None)


def pad(items: Sequence[NDArray[Any]], n_steps: int, dtype: DTypeLike) -> NDArray[Any]:
    """Sequences (T_i, C) as one array (N, T, C), with NaN after their ends."""
    array = np.full((len(items), n_steps, items[0].shape[1]), np.nan, dtype=dtype)
    with np.errstate(all="ignore"):
        for row, item in zip(array, items, strict=True):
            row[: len(item)] = item
    return array


def ends(X: NDArray[Any]) -> NDArray[np.int64]:
    """Steps up to the last that is not NaN in all channels, of sequences (..., T, C)."""
    known = ~np.isnan(X).all(axis=-1)
    last = X.shape[-2] - known[..., ::-1].argmax(axis=-1)
    return np.where(known.any(axis=-1), last, 0).astype(np.int64)


def require_values(where: str, name: str, X: NDArray[Any], nan_policy: str) -> None:
    """Require a value in each of the sequences (N, T, C), and NaN only where it is allowed.

    That is after a sequence's end; with ``nan_policy="omit"``, everywhere.

    Raises
    ------
    ValueError
        If a sequence holds nothing but NaN, or NaN occurs elsewhere.
    """
    missing = np.isnan(X)
    if not missing.any():
        return
    lengths = ends(X)
    if (lengths == 0).any():
        raise ValueError(
            f"{where}: Input {name} contains NaN: {name}[{lengths.argmin()}] has no other value"
        )
    if nan_policy == "omit":
        return
    within = missing & (np.arange(X.shape[1]) < lengths[:, None])[..., None]
    if within.any():
        raise ValueError(
            f"{where}: Input {name} contains NaN before the last step of "
            f"{name}[{within.any(axis=(1, 2)).argmax()}]; with nan_policy='omit', NaN is a missing "
            "value"
        )


# -- arrays --------------------------------------------------------------------------------------


def _three_dimensional(array: Array, n_channels: int | None, name: str) -> tuple[Array, bool]:
    """An array (N, T, O), and whether it was a table (N, T) of one channel."""
    shape = list(array.shape)
    if is_tensor(array):
        array = array.detach()
    is_table = len(shape) == 2 and n_channels in (None, 1)
    if is_table:
        array = array[..., None]
    if array.ndim != 3:
        wanted = f"[n_samples, n_timesteps, {n_channels or 'n_channels'}]"
        own, hint = _own_name(name), ""
        if len(shape) == 1:
            # scikit-learn's words come first: its checks look for them.
            hint = f". Reshape your data: a single sequence is {own}[None], of shape {[1, *shape]}"
        elif len(shape) == 2:
            hint = f"; a single sequence is {own}[None], of shape {[1, *shape]}"
        raise ValueError(
            f"{name} must have shape {wanted}"
            f"{' or [n_samples, n_timesteps]' * (n_channels in (None, 1))}, got {shape}{hint}"
        )
    if 0 in array.shape[1:]:
        raise ValueError(
            f"{name} must have at least one time step and one channel, got shape {shape}"
        )
    return array, is_table


def _own_name(name: str) -> str:
    """The argument's name alone, without the function's."""
    return name.rpartition(" ")[2]


def _check_channels(sequences: Sequences, n_channels: int | None, name: str) -> None:
    if n_channels is not None and sequences.n_channels != n_channels:
        raise ValueError(
            f"{name} must have n_channels = {n_channels}, as the modules' output, "
            f"got {sequences.n_channels}: its shape is [n_samples, n_timesteps, n_channels]"
        )


def _checked_lengths(lengths: Any, N: int, n_steps: int, name: str) -> NDArray[np.int64]:
    array = to_numpy(lengths)
    if array.shape != (N,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: lengths must be {N} integers, one per sequence, "
            f"got dtype {array.dtype} and shape {list(array.shape)}"
        )
    if N and (array.min() < 1 or array.max() > n_steps):
        raise ValueError(
            f"{name}: lengths must be from 1 to n_timesteps = {n_steps}, "
            f"got {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def _checked_mask(mask: Any, N: int, n_steps: int, n_channels: int, name: str) -> Array:
    if not is_tensor(mask):
        mask = np.asarray(mask)
    shapes = ([N, n_steps], [N, n_steps, n_channels])
    if list(mask.shape) not in shapes or mask.dtype not in (np.bool_, torch.bool):
        raise ValueError(
            f"{name}: mask must be boolean, of shape [n_samples, n_timesteps] or "
            f"[n_samples, n_timesteps, n_channels] = {shapes[0]} or {shapes[1]}, "
            f"got dtype {mask.dtype} and shape {list(mask.shape)}"
        )
    return mask


def _to_tensor(chunk: Any, n_steps: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """One chunk as a contiguous tensor (n, T, O), NaN after the ends of a list's items."""
    if isinstance(chunk, list) and is_tensor(chunk[0]):
        shape = (len(chunk), n_steps, chunk[0].shape[1])
        values = torch.full(shape, torch.nan, dtype=dtype, device=device)
        for row, item in zip(values, chunk, strict=True):
            row[: len(item)] = item
        return values
    if isinstance(chunk, list):
        return torch.from_numpy(pad(chunk, n_steps, _NUMPY_DTYPES[dtype])).to(device)
    if not is_tensor(chunk):
        # NumPy converts first: torch knows neither foreign byte orders nor read-only memory.
        with np.errstate(all="ignore"):
            chunk = torch.from_numpy(np.array(chunk, dtype=_NUMPY_DTYPES[dtype], order="C"))
    return chunk.to(dtype=dtype, device=device).contiguous()


# -- containers ----------------------------------------------------------------------------------


def _items(X: Any, name: str) -> list[Any] | None:
    """The items of a container of sequences; None for a plain array."""
    library = type(X).__module__.partition(".")[0]
    if is_tensor(X):
        return list(X.detach().unbind()) if X.is_nested else None
    if isinstance(X, torch.nn.utils.rnn.PackedSequence):
        return list(torch.nn.utils.rnn.unpack_sequence(X))
    if isinstance(X, np.ndarray):
        return _items_of_objects(X)
    if library == "scipy":
        # Before Mapping, which one of the sparse formats is.
        raise TypeError(f"{name} must be dense, sparse data was passed: use X.toarray()")
    if library == "pandas":
        return _items_of_pandas(X)
    if library == "polars":
        return _items_of_polars(X)
    if library == "awkward":
        return list(X.to_list())
    if isinstance(X, str | bytes | Mapping | set):
        raise TypeError(f"{name} must be an array or a list of arrays, got {type(X).__name__}")
    is_array = hasattr(X, "__array__") or hasattr(X, "__dlpack__")
    if isinstance(X, list | tuple | deque) or (hasattr(X, "__iter__") and not is_array):
        return list(X)
    return None


def _is_sequence(cell: Any) -> bool:
    return hasattr(cell, "__len__") and not isinstance(cell, str | bytes | Mapping)


def _items_of_objects(X: NDArray[Any]) -> list[Any] | None:
    """Cells that hold sequences: a row each, or a row and a channel each."""
    if X.dtype != object or X.size == 0 or not _is_sequence(X.flat[0]):
        return None
    if X.ndim == 1 or (X.ndim == 2 and 1 in X.shape):  # loadmat turns (n,) into (1, n)
        return list(X.ravel())
    return _stack_channels(X) if X.ndim == 2 else None


def _stack_channels(rows: Any) -> list[Any]:
    return [np.stack([np.asarray(cell) for cell in row], axis=1) for row in rows]


def _items_of_pandas(X: Any) -> list[Any] | None:
    if X.ndim == 2 and X.index.nlevels == 2:  # instance and time
        return [group for _, group in X.groupby(level=0, sort=False)]
    cells = X.to_numpy() if X.ndim == 1 else X
    if X.ndim == 1:
        return _items_of_objects(cells) if cells.dtype == object else None
    if (
        len(X)
        and any(d.kind == "O" for d in X.dtypes if hasattr(d, "kind"))
        and _is_sequence(X.iloc[0, 0])
    ):
        return _stack_channels(X.to_numpy())
    return None


def _items_of_polars(X: Any) -> list[Any] | None:
    columns = X.get_columns() if hasattr(X, "get_columns") else [X]
    if not columns or "List" not in str(columns[0].dtype):
        return None
    rows = list(zip(*(column.to_list() for column in columns), strict=True))
    return [row[0] for row in rows] if hasattr(X, "to_list") else _stack_channels(rows)


def _read_items(items: list[Any], name: str) -> tuple[list[Array], tuple[str, ...] | None]:
    """Sequences (T_i, O), all NumPy arrays or all tensors, and the names of their channels."""
    if not items:
        raise ValueError(f"{name} must hold at least one sequence: Found array with 0 sample(s)")
    names = _column_names(items[0])
    arrays = []
    for i, item in enumerate(items):
        if _column_names(item) != names:
            item = _by_name(item, names, f"{name}[{i}]")
        array = as_array(item, f"{name}[{i}]")
        if array.ndim == 0:
            raise ValueError(
                f"{name} must hold sequences, got a number at {_own_name(name)}[{i}]: Expected 2D "
                "array, got 1D array instead. Reshape your data: a single sequence is "
                f"{_own_name(name)}[None], or [{_own_name(name)}] for a list"
            )
        arrays.append(array[:, None] if array.ndim == 1 else array)
    if not all(map(is_tensor, arrays)):
        arrays = [to_numpy(array) for array in arrays]
    else:
        arrays = [array.detach() for array in arrays]
    for i, array in enumerate(arrays):
        if array.ndim != 2 or 0 in array.shape or array.shape[1] != arrays[0].shape[-1]:
            raise ValueError(
                f"{name}[{i}] must have shape [n_timesteps, n_channels], as "
                f"{_own_name(name)}[0] has, with "
                f"equal n_channels and none of them 0, got {list(array.shape)} beside "
                f"{list(arrays[0].shape)}"
            )
    return arrays, names


def _column_names(item: Any) -> tuple[str, ...] | None:
    """Names of a data frame's columns, if they are names."""
    columns = getattr(item, "columns", None)
    if columns is None or not hasattr(item, "shape"):
        return None
    names = tuple(columns)
    return names if all(isinstance(column, str) for column in names) else None


def _by_name(item: Any, names: tuple[str, ...] | None, where: str) -> Any:
    """A data frame with its columns in the order of the first one's."""
    own = _column_names(item)
    if names is None or own is None or sorted(own) != sorted(names):
        raise ValueError(
            f"{where} must have the columns {names and [*names]} of the first sequence, "
            f"got {own and [*own]}"
        )
    return item[list(names)]
