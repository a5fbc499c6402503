"""Threads: joblib's meaning of n_jobs, and an ordered map over a pool."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

__all__ = ["n_threads", "parallel_map"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def n_threads(n_jobs: int | None) -> int:
    """Threads for joblib's meaning of n_jobs."""
    if n_jobs is None:
        return 1
    if n_jobs == 0 or not isinstance(n_jobs, int | np.integer):
        raise ValueError(f"n_jobs must be None, -1 or an integer of at least 1, got {n_jobs!r}")
    cores = os.cpu_count() or 1
    return int(n_jobs) if n_jobs > 0 else max(1, cores + 1 + int(n_jobs))


def parallel_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
    """Results in the items' order; threads suffice, since numpy works outside the GIL."""
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(function, items)
