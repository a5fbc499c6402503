"""Every container in which users hold sequences, made from a list of arrays (T_i, O)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.utils import rnn

Items = Sequence[np.ndarray]


def object_array(items: Items, *shape: int) -> np.ndarray:
    """Cells, as ``loadmat`` and ``np.load`` give them."""
    cells = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        cells[i] = item
    return cells.reshape(shape or -1)


def names(items: Items) -> list[str]:
    """Column names of data frames."""
    return [f"channel {c}" for c in range(items[0].shape[1])]


def frames(items: Items) -> list[pd.DataFrame]:
    """Data frames, every other with its columns the other way round."""
    found = [pd.DataFrame(item, columns=names(items)) for item in items]
    return [frame if i % 2 == 0 else frame[names(items)[::-1]] for i, frame in enumerate(found)]


def nested_frame(items: Items) -> pd.DataFrame:
    """A row a sequence and a column a channel, as sktime has it."""
    columns = {
        name: [pd.Series(item[:, c]) for item in items] for c, name in enumerate(names(items))
    }
    return pd.DataFrame(columns)


def indexed_frame(items: Items) -> pd.DataFrame:
    """A row a step, with an index of instance and time."""
    whole = dict(enumerate(pd.DataFrame(item, columns=names(items)) for item in items))
    return pd.concat(whole, names=["instance", "time"])


def polars_frame(items: Items) -> Any:
    """A list column a channel."""
    import polars

    columns = {name: [item[:, c].tolist() for item in items] for c, name in enumerate(names(items))}
    return polars.DataFrame(columns)


def awkward_array(items: Items) -> Any:
    """Sequences of any lengths in one array."""
    import awkward

    return awkward.Array([item.tolist() for item in items])


def tensors(items: Items) -> list[torch.Tensor]:
    """Copies, in a byte order that torch knows."""
    return [torch.from_numpy(item.astype(item.dtype.newbyteorder("="))) for item in items]


CONTAINERS: dict[str, Callable[[Items], Any]] = {
    "list": list,
    "tuple": tuple,
    "deque": deque,
    "generator": lambda items: (item for item in items),
    "nested lists": lambda items: [item.tolist() for item in items],
    "object array": object_array,
    "row of cells": lambda items: object_array(items, 1, len(items)),
    "column of cells": lambda items: object_array(items, len(items), 1),
    "Series of arrays": lambda items: pd.Series(list(items), index=range(5, 5 + len(items))),
    "list of frames": frames,
    "tuple of frames": lambda items: tuple(frames(items)),
    "nested frame": nested_frame,
    "frame of instance and time": indexed_frame,
    "polars": polars_frame,
    "awkward": awkward_array,
    "tensors": tensors,
    "arrays and tensors": lambda items: [*items[:1], *tensors(items[1:])],
    "nested tensor": lambda items: torch.nested.nested_tensor(tensors(items)),
    "jagged tensor": lambda items: torch.nested.nested_tensor(
        tensors(items), layout=torch.jagged
    ),
    "packed": lambda items: rnn.pack_sequence(tensors(items), enforce_sorted=False),
}  # fmt: skip
