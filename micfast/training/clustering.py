"""K-means with any distance, and sequences of unequal lengths brought to one."""

from __future__ import annotations

from collections.abc import Callable
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
    rng: np.random.Generator,
) -> tuple[float, NDArray[np.int64], int]:
    """One K-means restart: inertia, labels (no cluster empty) and number of iterations.

    For DTW an own loop and not tslearn's TimeSeriesKMeans: that one averages by DBA, while the
    paper's published centres are arithmetic means of disjoint groups in which each sample lies
    with its nearest centre: the fixed point of this loop. A mean doesn't minimise the DTW cost,
    so the inertia may rise again and the best partition is kept.
    """
    labels = _assign(_plus_plus(X, k, distance, rng))
    best = (np.inf, labels, 0)
    for iteration in range(1, max_iter + 1):
        d = distance(X, means(X, labels, k))
        inertia = float(d[np.arange(len(X)), labels].sum())
        if inertia < best[0]:
            best = (inertia, labels, iteration)
        new_labels = _assign(d)
        if np.array_equal(new_labels, labels):
            break
        labels = new_labels
    return best


def _plus_plus(
    X: NDArray[Any], k: int, distance: Distance, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Squared distances (n, k) to k samples drawn by k-means++."""
    d = np.empty((len(X), k))
    chosen = [int(rng.integers(len(X)))]
    d[:, :1] = distance(X, X[chosen])
    for j in range(1, k):
        weight = d[:, :j].min(axis=1)
        weight[chosen] = 0
        if weight.sum() == 0:  # only duplicates of the chosen samples are left
            weight = np.ones(len(X))
            weight[chosen] = 0
        chosen.append(int(rng.choice(len(X), p=weight / weight.sum())))
        d[:, j : j + 1] = distance(X, X[chosen[-1:]])
    return d


def _assign(d: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nearest centre of each sample; an empty cluster gets the sample that fits its own least."""
    labels = d.argmin(axis=1)
    cost = d.min(axis=1)
    counts = np.bincount(labels, minlength=d.shape[1])
    for j in np.flatnonzero(counts == 0):
        # A sample that is alone stays: taking it would only empty its own cluster instead.
        worst = int(np.where(counts[labels] > 1, cost, -1.0).argmax())
        counts[labels[worst]] -= 1
        counts[j] += 1
        labels[worst] = j
        cost[worst] = 0
    return labels


def means(X: NDArray[Any], labels: NDArray[np.int64], k: int) -> NDArray[Any]:
    """Mean (k, T, C) of each cluster's members, computed in the dtype of X."""
    # As a product with the weights: one pass over X instead of a copy of each cluster.
    weights = (labels == np.arange(k)[:, None]).astype(X.dtype)
    weights /= weights.sum(axis=1, keepdims=True)
    return (weights @ X.reshape(len(X), -1)).reshape(k, *X.shape[1:])


def by_falling_size(labels: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Renumber the clusters by size, ties by first member: no trace of the draw is left."""
    first = np.array([(labels == j).argmax() for j in range(k)])
    order = np.lexsort((first, -np.bincount(labels, minlength=k)))
    rank = np.empty(k, dtype=np.int64)
    rank[order] = np.arange(k)
    return rank[labels]
