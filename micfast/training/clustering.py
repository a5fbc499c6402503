"""K-means with any distance, and sequences of unequal lengths brought to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Distance", "by_falling_size", "lloyd", "means", "shrunk", "stretched"]

Distance = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]


def stretched(X: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[Any]:
    """Sequences (n, T, C) that end in NaN, all as long as the longest, and no value missing."""
    out = np.empty((len(X), int(lengths.max()), X.shape[2]), dtype=X.dtype)
    for i, (x, length) in enumerate(zip(X, lengths, strict=True)):
        for c in range(X.shape[2]):
            known = np.flatnonzero(~np.isnan(x[:length, c]))
            if len(known) == 0:
                raise ValueError(
                    "select_types: to be clustered, a sequence must have a value in every channel; "
                    "selection='random' and 'first' take others"
                )
            steps = np.linspace(0, length - 1, out.shape[1])
            out[i, :, c] = np.interp(steps, known, x[known, c])
    return out


def shrunk(types: NDArray[Any], lengths: list[int], n_timesteps: int) -> NDArray[Any]:
    """Types (k, T', C) as sequences of these lengths, NaN after their ends: (k, T, C)."""
    out = np.full((len(types), n_timesteps, types.shape[2]), np.nan, dtype=types.dtype)
    steps = np.arange(types.shape[1])
    for x, length, to in zip(types, lengths, out, strict=True):
        at = np.linspace(0, types.shape[1] - 1, length)
        for c in range(types.shape[2]):
            to[:length, c] = np.interp(at, steps, x[:, c])
    return out


def lloyd(
    X: NDArray[Any],
    k: int,
    distance: Distance,
    max_iter: int,
    rngs: Sequence[np.random.Generator],
) -> list[tuple[float, NDArray[np.int64], int]]:
    """K-means restarts: of each, inertia, labels (no cluster empty) and number of iterations.

    They go on together, since many short ones take longer to call than to compute.

    For DTW an own loop and not tslearn's TimeSeriesKMeans: that one averages by DBA, while the
    paper's published centres are arithmetic means of disjoint groups in which each sample lies
    with its nearest centre: the fixed point of this loop. A mean doesn't minimise the DTW cost,
    so the inertia may rise again and the best partition is kept.
    """
    labels = _assign(_plus_plus(X, k, distance, rngs))
    best = [(np.inf, own, 0) for own in labels]
    running = np.arange(len(rngs))
    for iteration in range(1, max_iter + 1):
        centres = means(X, labels, k).reshape(-1, *X.shape[1:])
        d = _by_restart(distance(X, centres), k)
        inertia = np.take_along_axis(d, labels[..., None], axis=2)[..., 0].sum(axis=1)
        for r, value, own in zip(running, inertia, labels, strict=True):
            if value < best[r][0]:
                best[r] = (float(value), own, iteration)
        new_labels = _assign(d)
        moved = (new_labels != labels).any(axis=1)
        running, labels = running[moved], new_labels[moved]
        if len(running) == 0:
            break
    return best


def _by_restart(d: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Distances (n, R k) to the centres of all restarts as (R, n, k)."""
    return np.ascontiguousarray(d.reshape(len(d), -1, k).swapaxes(0, 1))


def _plus_plus(
    X: NDArray[Any], k: int, distance: Distance, rngs: Sequence[np.random.Generator]
) -> NDArray[np.float64]:
    """Squared distances (R, n, k) to k samples drawn by k-means++."""
    d = np.empty((len(rngs), len(X), k))
    chosen = np.empty((len(rngs), k), dtype=np.int64)
    for j in range(k):
        for r, rng in enumerate(rngs):
            chosen[r, j] = _next_centre(d[r, :, :j], chosen[r, :j], rng)
        d[:, :, j] = distance(X, X[chosen[:, j]]).T
    return d


def _next_centre(
    d: NDArray[np.float64], chosen: NDArray[np.int64], rng: np.random.Generator
) -> int:
    """Draw a sample far from those chosen, by its distances (n, j) to them."""
    if len(chosen) == 0:
        return int(rng.integers(len(d)))
    weight = d.min(axis=1)
    weight[chosen] = 0
    if weight.sum() == 0:  # only duplicates of the chosen samples are left
        weight = np.ones(len(d))
        weight[chosen] = 0
    return int(rng.choice(len(d), p=weight / weight.sum()))


def _assign(d: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nearest centre (R, n) of each sample, by distances (R, n, k).

    An empty cluster gets the sample that fits its own least.
    """
    labels, cost = d.argmin(axis=2), d.min(axis=2)
    counts = (labels[..., None] == np.arange(d.shape[2])).sum(axis=1)
    for r, j in np.argwhere(counts == 0):
        # A sample that is alone stays: taking it would only empty its own cluster instead.
        worst = int(np.where(counts[r, labels[r]] > 1, cost[r], -1.0).argmax())
        counts[r, labels[r, worst]] -= 1
        counts[r, j] += 1
        labels[r, worst] = j
        cost[r, worst] = 0
    return labels


def means(X: NDArray[Any], labels: NDArray[np.int64], k: int) -> NDArray[Any]:
    """Mean (..., k, T, C) of each cluster's members, by labels (..., n), in the dtype of X."""
    # As a product with the weights: one pass over X instead of a copy of each cluster.
    weights = (labels[..., None, :] == np.arange(k)[:, None]).astype(X.dtype)
    weights /= weights.sum(axis=-1, keepdims=True)
    return (weights @ X.reshape(len(X), -1)).reshape(*labels.shape[:-1], k, *X.shape[1:])


def by_falling_size(labels: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Renumber the clusters by size, ties by first member: no trace of the draw is left."""
    first = np.array([(labels == j).argmax() for j in range(k)])
    order = np.lexsort((first, -np.bincount(labels, minlength=k)))
    rank = np.empty(k, dtype=np.int64)
    rank[order] = np.arange(k)
    return rank[labels]
