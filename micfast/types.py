"""Selection of a class's types: the few sequences its generative network learns.

Owns clustering, its distances and the cache of its results; loads no data and trains nothing.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from micfast._io import atomic_path, load_arrays
from micfast._parallel import n_threads, parallel_map
from micfast._ragged import check_missing, ends, ragged_to_padded
from micfast.data._fetch import cache_dir

__all__ = ["TypeSelection", "select_types", "select_types_per_class"]

Selection = Literal["kmeans", "dtw-kmeans", "random", "first"]
Representative = Literal["centroid", "medoid"]
Seed = int | np.random.SeedSequence | None

# Part of every cache key: raise it when the same arguments would select other types than before.
_CACHE_VERSION = 2

_Distance = Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]

_import_lock = threading.Lock()


@dataclass(frozen=True)
class TypeSelection:
    """How the types of one class came about.

    Attributes
    ----------
    labels : ndarray of shape (n_samples,), int64
        The type each sample belongs to; -1 for a sample that belongs to none (``"random"`` and
        ``"first"`` leave the samples that they don't take unassigned).
    index : ndarray of shape (n_types,), int64
        The sample that each type is; -1 for a centroid, which is no sample.
    inertia : float
        Sum over the samples of the squared distance (of the selection's metric) to the mean of
        their cluster; NaN where nothing was clustered.
    n_iter : int
        Lloyd iterations of the restart that was kept; 0 where nothing was clustered.
    """

    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    inertia: float
    n_iter: int


@dataclass(frozen=True)
class _Settings:
    """The checked arguments that both public functions share."""

    n_types: int
    selection: str
    representative: str
    n_init: int
    max_iter: int
    dtw_radius: int | None
    dtw_stride: int | None


def select_types(
    X: ArrayLike,
    n_types: int = 4,
    *,
    selection: Selection = "kmeans",
    representative: Representative = "centroid",
    random_state: Seed = None,
    n_init: int = 4,
    max_iter: int = 100,
    dtw_radius: int | None = None,
    dtw_stride: int | None = None,
    n_jobs: int | None = None,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> tuple[NDArray[Any], TypeSelection]:
    """Select the types of one class.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_timesteps, n_channels), or list of sequences
        The class's training sequences, finite. Floating dtypes are kept; others become float64.
        Sequences of unequal lengths come as a list or padded with NaN at their ends.
    n_types : int, default=4
        Number of types, at least 1 (the paper: 4).
    selection : {"kmeans", "dtw-kmeans", "random", "first"}, default="kmeans"
        K-means with Euclidean distance (the paper's choice for MNIST), K-means with dynamic time
        warping (for characters), `n_types` samples drawn without replacement, or the first
        `n_types` samples.
    representative : {"centroid", "medoid"}, default="centroid"
        What stands for a cluster: the arithmetic mean of its members (the paper), or the member
        with the least summed distance to the other members, in the metric of `selection`.
        Ignored by ``"random"`` and ``"first"``, whose types are samples.
    random_state : int, SeedSequence or None, default=None
        Seed of the initial centres or of the draw. The same seed gives the same types, whatever
        `n_jobs` is; None gives other types at each call.
    n_init : int, default=4
        Number of K-means restarts; the one with the lowest inertia is kept.
    max_iter : int, default=100
        Most Lloyd iterations in a restart.
    dtw_radius : int or None, default=None
        Sakoe-Chiba radius of ``"dtw-kmeans"`` in time steps, at least 1: step i of one sequence
        may only meet steps i - radius to i + radius of the other. None takes a fifth of
        n_timesteps; n_timesteps - 1 or more leaves the warping free.
    dtw_stride : int or None, default=None
        ``"dtw-kmeans"`` measures distances on every `dtw_stride`-th step; means are always taken
        of the full sequences. None leaves at least 50 steps (every 4th of 205); 1 uses all.
    n_jobs : int or None, default=None
        Threads over the restarts of ``"dtw-kmeans"``; None is 1, -1 is one per core.
    nan_policy : {"raise", "omit"}, default="raise"
        Whether NaN before a sequence's end is an error or a missing value.

    Returns
    -------
    types : ndarray of shape (n_types, n_timesteps, n_channels)
        The types, in the dtype of `X`, NaN after their ends; clusters are ordered by falling size.
    info : TypeSelection
        Assignment of the samples, their inertia and the origin of each type.

    Raises
    ------
    ValueError
        If an argument has a value that it can't have, or `X` is empty, not 3-dimensional or not
        finite.
    TypeError
        If `random_state` is none of the types above or `X` isn't numeric.

    Warns
    -----
    UserWarning
        If there are fewer samples than types: they are then repeated in their order.

    Notes
    -----
    Centres are arithmetic means for both metrics, as in the paper's published centres, not the
    barycentre averages (DBA) of tslearn. No cluster of the result is empty.

    Sequences of unequal lengths are clustered, in both metrics, after all have been stretched to
    the longest by linear interpolation, across missing values as well: K-means then sees shapes and
    not durations, and the inertia is that of the stretched ones. A centroid is the mean of its
    stretched members, shrunk to the mean of their lengths; medoids and the types of ``"random"``
    and ``"first"`` are samples as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.types import select_types
    >>> X = np.repeat([0.0, 0.1, 5.0, 5.2], 6).reshape(4, 3, 2)
    >>> types, info = select_types(X, n_types=2, random_state=0)
    >>> types.shape, info.labels.tolist()
    ((2, 3, 2), [0, 0, 1, 1])
    """
    settings = _check_settings(
        "select_types", n_types, selection, representative, n_init, max_iter, dtw_radius, dtw_stride
    )
    X = _check_sequences("select_types", X, nan_policy)
    if len(X) < settings.n_types:
        _warn_few("select_types: the class", len(X), settings.n_types)
    seed = _seed_sequence("select_types", random_state)
    return _select(X, settings, seed, n_threads(n_jobs))


def select_types_per_class(
    X: ArrayLike,
    y: ArrayLike,
    n_types: int = 4,
    *,
    selection: Selection = "kmeans",
    representative: Representative = "centroid",
    random_state: Seed = None,
    n_init: int = 4,
    max_iter: int = 100,
    dtw_radius: int | None = None,
    dtw_stride: int | None = None,
    n_jobs: int | None = -1,
    cache: bool = True,
    progress: bool = False,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> tuple[NDArray[Any], NDArray[Any], list[TypeSelection]]:
    """Select the types of every class.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_timesteps, n_channels), or list of sequences
        Training sequences of all classes, finite; of unequal lengths as in :func:`select_types`.
    y : array_like of shape (n_samples,)
        Their class labels.
    n_types, selection, representative, n_init, max_iter, dtw_radius, dtw_stride
        As in :func:`select_types`.
    random_state : int, SeedSequence or None, default=None
        Each class gets its own seed, derived from this one and the class's position among the
        sorted classes, so that a class's types don't depend on the other classes' samples.
    n_jobs : int or None, default=-1
        Threads over the classes; None is 1, -1 is one per core. Has no influence on the result.
    cache : bool, default=True
        Whether a ``"dtw-kmeans"`` result is kept on disk, in ``MICFAST_CACHE`` or else in pooch's
        cache folder for micfast, and read from there at the next call with equal arguments.
        Other selections, and those without a seed, which nothing repeats, are not kept.
    progress : bool, default=False
        Whether to show a progress bar over the classes.
    nan_policy : {"raise", "omit"}, default="raise"
        As in :func:`select_types`.

    Returns
    -------
    types : ndarray of shape (n_classes, n_types, n_timesteps, n_channels)
        The types of each class, in the dtype of `X`.
    classes : ndarray of shape (n_classes,)
        The classes, sorted.
    infos : list of TypeSelection
        One per class; ``labels`` and ``index`` count the class's samples in their order in `X`.

    Raises
    ------
    ValueError, TypeError
        As :func:`select_types`; also if `y` doesn't have one label per sample.

    Warns
    -----
    UserWarning
        If a class has fewer samples than types (they are then repeated in their order), or if the
        result can't be written to the cache.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.types import select_types_per_class
    >>> X = np.arange(48.0).reshape(8, 3, 2)
    >>> types, classes, infos = select_types_per_class(X, list("abababab"), 2, random_state=0)
    >>> types.shape, classes.tolist(), len(infos)
    ((2, 2, 3, 2), ['a', 'b'], 2)
    """
    name = "select_types_per_class"
    settings = _check_settings(
        name, n_types, selection, representative, n_init, max_iter, dtw_radius, dtw_stride
    )
    X = _check_sequences(name, X, nan_policy)
    y = np.asarray(y)
    if y.shape != (len(X),):
        raise ValueError(f"{name}: y must have shape [n_samples] = [{len(X)}], got {list(y.shape)}")
    seed = _seed_sequence(name, random_state)
    threads = n_threads(n_jobs)
    classes, codes = np.unique(y, return_inverse=True)
    counts = np.bincount(codes)
    for label, count in zip(classes, counts, strict=True):
        if count < settings.n_types:
            _warn_few(f"{name}: class {label!s}", int(count), settings.n_types)

    path = None
    if cache and settings.selection == "dtw-kmeans" and random_state is not None:
        path = cache_dir() / "types" / f"{_cache_key(X, codes, settings, seed)}.npz"
        found = _read_cache(path, X, counts, settings)
        if found is not None:
            return found[0], classes, found[1]

    def select_one(position: int) -> tuple[NDArray[Any], TypeSelection]:
        # Not seed.spawn: that counts how often it was called, so a second call would differ.
        child = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, position))
        return _select(X[codes == position], settings, child, 1)

    results: Iterable[tuple[NDArray[Any], TypeSelection]]
    results = parallel_map(select_one, range(len(classes)), threads)
    if progress:
        from tqdm.auto import tqdm

        results = tqdm(results, total=len(classes), desc="types", unit="class")
    all_types, infos = zip(*results, strict=True)
    types = np.stack(all_types)
    if path is not None:
        _write_cache(path, types, list(infos))
    return types, classes, list(infos)


# --------------------------------------------------------------------------------------------
# One class


def _select(
    X: NDArray[Any], settings: _Settings, seed: np.random.SeedSequence, threads: int
) -> tuple[NDArray[Any], TypeSelection]:
    """Types of one class from checked arguments."""
    n, k = len(X), settings.n_types
    if n < k:
        return _take(X, np.arange(k) % n)
    if settings.selection == "first":
        return _take(X, np.arange(k))
    if settings.selection == "random":
        return _take(X, np.random.default_rng(seed).choice(n, k, replace=False))

    samples, lengths = X, ends(X)
    if np.isnan(X).any():
        X = _stretched(X, lengths)

    distance: _Distance
    if settings.selection == "dtw-kmeans":
        # On the letters (205 steps at 200 Hz) these defaults reach the within-cluster DTW cost of
        # free warping over all steps (tested): a smooth stroke has no detail below 4 steps.
        stride = settings.dtw_stride or max(1, X.shape[1] // 50)
        radius = max(1, (settings.dtw_radius or X.shape[1] // 5) // stride)

        def distance(A: NDArray[Any], B: NDArray[Any]) -> NDArray[np.float64]:
            # Times the stride: near the distance over all steps, so inertias can be compared.
            return stride * _squared_dtw(A[:, ::stride], B[:, ::stride], radius)

    else:
        distance = _squared_euclidean

    # An offset that all steps share changes no distance, DTW included; without it the differences
    # keep more digits in float32.
    working = np.float64 if X.dtype.itemsize > 4 else np.float32
    centred = (X - X.mean(axis=(0, 1), dtype=np.float64)).astype(working)

    def restart(i: int) -> tuple[float, NDArray[np.int64], int]:
        child = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, i))
        return _lloyd(centred, k, distance, settings.max_iter, np.random.default_rng(child))

    found = _tslearn_kmeans(centred, settings, seed) if settings.selection == "kmeans" else None
    inertia, labels, n_iter = found or min(
        parallel_map(restart, range(settings.n_init), threads), key=lambda result: result[0]
    )
    labels = _by_falling_size(labels, k)
    if settings.representative == "centroid":
        index = np.full(k, -1)
        types = _means(X.astype(np.float64), labels, k).astype(X.dtype)
        if X is not samples:
            means = [round(float(lengths[labels == j].mean())) for j in range(k)]
            types = _shrunk(types, means, samples.shape[1])
    else:
        members = [np.flatnonzero(labels == j) for j in range(k)]
        index = np.array(
            [m[np.sqrt(distance(centred[m], centred[m])).sum(axis=1).argmin()] for m in members]
        )
        types = samples[index]
    return types, TypeSelection(labels, index, inertia, n_iter)


def _stretched(X: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[Any]:
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


def _shrunk(types: NDArray[Any], lengths: list[int], n_timesteps: int) -> NDArray[Any]:
    """Types (k, T', C) as sequences of these lengths, NaN after their ends: (k, T, C)."""
    out = np.full((len(types), n_timesteps, types.shape[2]), np.nan, dtype=types.dtype)
    steps = np.arange(types.shape[1])
    for x, length, to in zip(types, lengths, out, strict=True):
        at = np.linspace(0, types.shape[1] - 1, length)
        for c in range(types.shape[2]):
            to[:length, c] = np.interp(at, steps, x[:, c])
    return out


def _take(X: NDArray[Any], index: NDArray[np.int64]) -> tuple[NDArray[Any], TypeSelection]:
    """Types that are the samples at `index`."""
    labels = np.full(len(X), -1)
    # Backwards, so that a repeated sample is labelled with its first type.
    labels[index[::-1]] = np.arange(len(index))[::-1]
    return X[index], TypeSelection(labels, index, float("nan"), 0)


def _tslearn_kmeans(
    X: NDArray[Any], settings: _Settings, seed: np.random.SeedSequence
) -> tuple[float, NDArray[np.int64], int] | None:
    """Euclidean K-means: as :func:`_lloyd`'s result; None where tslearn leaves a cluster empty.

    That is so with fewer distinct samples than clusters; `_lloyd` then fills the clusters.
    """
    # Only here: the import takes seconds (numba). It warns where h5py is missing, which only
    # saving tslearn's own models needs. The lock, since changing the filters isn't thread-safe.
    with _import_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="h5py not installed")
        from tslearn.clustering import EmptyClusterError, TimeSeriesKMeans

    k = settings.n_types
    model = TimeSeriesKMeans(
        k,
        metric="euclidean",
        n_init=settings.n_init,
        max_iter=settings.max_iter,
        tol=np.finfo(np.float64).tiny,  # absolute, in X's units squared: stop where nothing changes
        random_state=int(seed.generate_state(1)[0]),
    )
    try:
        labels = model.fit(X).labels_.astype(np.int64)
    except EmptyClusterError:
        return None
    if np.bincount(labels, minlength=k).min() == 0:
        return None
    deviation = X - _means(X.astype(np.float64), labels, k)[labels]
    return float(np.square(deviation).sum()), labels, model.n_iter_


def _lloyd(
    X: NDArray[Any],
    k: int,
    distance: _Distance,
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
        d = distance(X, _means(X, labels, k))
        inertia = float(d[np.arange(len(X)), labels].sum())
        if inertia < best[0]:
            best = (inertia, labels, iteration)
        new_labels = _assign(d)
        if np.array_equal(new_labels, labels):
            break
        labels = new_labels
    return best


def _plus_plus(
    X: NDArray[Any], k: int, distance: _Distance, rng: np.random.Generator
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


def _means(X: NDArray[Any], labels: NDArray[np.int64], k: int) -> NDArray[Any]:
    """Mean (k, T, C) of each cluster's members, computed in the dtype of X."""
    # As a product with the weights: one pass over X instead of a copy of each cluster.
    weights = (labels == np.arange(k)[:, None]).astype(X.dtype)
    weights /= weights.sum(axis=1, keepdims=True)
    return (weights @ X.reshape(len(X), -1)).reshape(k, *X.shape[1:])


def _by_falling_size(labels: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Renumber the clusters by size, ties by first member: no trace of the draw is left."""
    first = np.array([(labels == j).argmax() for j in range(k)])
    order = np.lexsort((first, -np.bincount(labels, minlength=k)))
    rank = np.empty(k, dtype=np.int64)
    rank[order] = np.arange(k)
    return rank[labels]


# --------------------------------------------------------------------------------------------
# Distances: squared, from each of (n, T, C) to each of (k, T, C)


def _squared_euclidean(X: NDArray[Any], Y: NDArray[Any]) -> NDArray[np.float64]:
    """Squared Euclidean distances (n, k)."""
    from scipy.spatial.distance import cdist

    return cdist(X.reshape(len(X), -1), Y.reshape(len(Y), -1), "sqeuclidean")


def _squared_dtw(X: NDArray[Any], Y: NDArray[Any], radius: int) -> NDArray[np.float64]:
    """Squared DTW distances (n, k) inside a Sakoe-Chiba band.

    Equal to the square of tslearn's cdist_dtw (tested), but vectorised over the pairs instead of
    compiled. The types of all letters, in a fresh process on 2 busy cores, took 2.5 s this way
    and 27 to 47 s with cdist_dtw (import 4 s, compiler 12 s or more, distances 11 s or more),
    with equal inertias.
    float32 is enough: its rounding is far below the spread of the distances.
    """
    out = np.empty((len(X), len(Y)))
    # Blocks keep the working set in the second-level cache.
    for i in range(0, len(X), 128):
        for j in range(0, len(Y), 16):
            out[i : i + 128, j : j + 16] = _squared_dtw_block(X[i : i + 128], Y[j : j + 16], radius)
    return out


def _squared_dtw_block(X: NDArray[Any], Y: NDArray[Any], radius: int) -> NDArray[np.float32]:
    """Squared DTW of all pairs at once, one anti-diagonal i + j = d of the cost matrix a step.

    Arrays are (row i, k, n) with the row first: a diagonal is then one slice, in X by rows and in
    the reversed Y by rows too. The three accumulators hold diagonals d, d - 1, d - 2, row i at
    place i + 1; the places before and after a diagonal's rows are infinite, since the next two
    diagonals may read them.
    """
    n, T, C = X.shape
    k = len(Y)
    A = np.ascontiguousarray(X.transpose(2, 1, 0), dtype=np.float32)[:, :, None, :]
    B = np.ascontiguousarray(Y[:, ::-1].transpose(2, 1, 0), dtype=np.float32)[:, :, :, None]
    before_last, last, current = np.full((3, T + 2, k, n), np.inf, dtype=np.float32)
    before_last[0] = 0  # the corner before (0, 0): where every path starts
    cost_rows, square_rows = np.empty((2, T, k, n), dtype=np.float32)
    for d in range(2 * T - 1):
        lo = max(0, d - T + 1, (d - radius + 1) // 2)
        hi = min(d, T - 1, (d + radius) // 2) + 1
        reverse = T - 1 - d
        cost, square = cost_rows[: hi - lo], square_rows[: hi - lo]
        cost[...] = 0
        for c in range(C):
            np.subtract(A[c, lo:hi], B[c, reverse + lo : reverse + hi], out=square)
            np.multiply(square, square, out=square)
            cost += square
        reached = current[lo + 1 : hi + 1]
        np.minimum(last[lo:hi], last[lo + 1 : hi + 1], out=reached)
        np.minimum(before_last[lo:hi], reached, out=reached)
        reached += cost
        current[lo] = np.inf
        current[hi + 1] = np.inf
        before_last, last, current = last, current, before_last
    return last[T].T


# --------------------------------------------------------------------------------------------
# Cache


def _cache_key(
    X: NDArray[Any], codes: NDArray[np.intp], settings: _Settings, seed: np.random.SeedSequence
) -> str:
    """Hash of all that the types depend on."""
    description = (
        f"{_CACHE_VERSION} {X.dtype.str} {X.shape} {settings} {seed.entropy} {seed.spawn_key}"
    )
    digest = hashlib.sha256(description.encode())
    digest.update(np.ascontiguousarray(X).tobytes())
    digest.update(codes.astype("<i8").tobytes())
    return digest.hexdigest()


def _read_cache(
    path: Path, X: NDArray[Any], counts: NDArray[np.intp], settings: _Settings
) -> tuple[NDArray[Any], list[TypeSelection]] | None:
    """Types and infos of a cache file; None if it is absent, damaged or of another shape."""
    n_classes, k = len(counts), settings.n_types
    try:
        file = load_arrays(path)
        types, labels, index, inertia, n_iter = (
            file[name] for name in ("types", "labels", "index", "inertia", "n_iter")
        )
    except (OSError, ValueError, KeyError):
        return None
    if (
        types.dtype != X.dtype
        or types.shape != (n_classes, k, *X.shape[1:])
        or labels.shape != (len(X),)
        or index.shape != (n_classes, k)
        or inertia.shape != n_iter.shape
        or inertia.shape != (n_classes,)
    ):
        return None
    parts = np.split(labels, np.cumsum(counts)[:-1])
    infos = [
        TypeSelection(parts[c], index[c], float(inertia[c]), int(n_iter[c]))
        for c in range(n_classes)
    ]
    return types, infos


def _write_cache(path: Path, types: NDArray[Any], infos: list[TypeSelection]) -> None:
    """Write a cache file, or warn where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                types=types,
                labels=np.concatenate([info.labels for info in infos]),
                index=np.stack([info.index for info in infos]),
                inertia=np.array([info.inertia for info in infos]),
                n_iter=np.array([info.n_iter for info in infos]),
            )
    except OSError as error:
        warnings.warn(
            f"select_types_per_class: the types could not be cached in {path.parent} ({error}); "
            "set MICFAST_CACHE to a folder that can be written, or pass cache=False",
            stacklevel=3,
        )


# --------------------------------------------------------------------------------------------
# Arguments


def _check_settings(
    name: str,
    n_types: int,
    selection: str,
    representative: str,
    n_init: int,
    max_iter: int,
    dtw_radius: int | None,
    dtw_stride: int | None,
) -> _Settings:
    """Check the arguments that both public functions share."""
    for argument, value in (("n_types", n_types), ("n_init", n_init), ("max_iter", max_iter)):
        _check_count(name, argument, value)
    for argument, optional in (("dtw_radius", dtw_radius), ("dtw_stride", dtw_stride)):
        if optional is not None:
            _check_count(name, argument, optional)
    for argument, choice, allowed in (
        ("selection", selection, get_args(Selection)),
        ("representative", representative, get_args(Representative)),
    ):
        if choice not in allowed:
            raise ValueError(f"{name}: {argument} must be one of {allowed}, got {choice!r}")
    # int(): a numpy integer prints in another way, which would change the cache key.
    return _Settings(
        int(n_types),
        selection,
        representative,
        int(n_init),
        int(max_iter),
        None if dtw_radius is None else int(dtw_radius),
        None if dtw_stride is None else int(dtw_stride),
    )


def _check_count(name: str, argument: str, value: object) -> None:
    """Require an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}: {argument} must be an integer of at least 1, got {value!r}")


def _check_sequences(name: str, X: ArrayLike, nan_policy: str) -> NDArray[Any]:
    """Check the sequences; floating dtypes stay, other numbers become float64."""
    if nan_policy not in ("raise", "omit"):
        raise ValueError(f"{name}: nan_policy must be 'raise' or 'omit', got {nan_policy!r}")
    ragged = ragged_to_padded(name, "X", X)
    X = np.asarray(X) if ragged is None else ragged
    if X.dtype.kind not in "fiub":
        raise TypeError(f"{name}: X must hold real numbers, got dtype {X.dtype}")
    if X.ndim != 3 or 0 in X.shape:
        raise ValueError(
            f"{name}: X must have shape [n_samples, n_timesteps, n_channels], none of them 0, "
            f"got {list(X.shape)}"
        )
    if X.dtype.kind != "f":
        X = X.astype(np.float64)
    if np.isinf(X).any():
        raise ValueError(f"{name}: X must be finite, got {int(np.isinf(X).sum())} infinite values")
    check_missing(name, "X", X, nan_policy)
    return X


def _seed_sequence(name: str, random_state: object) -> np.random.SeedSequence:
    """Seed sequence of a checked seed."""
    if isinstance(random_state, np.random.SeedSequence):
        return random_state
    if random_state is None:
        return np.random.SeedSequence()
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer):
        raise TypeError(
            f"{name}: random_state must be an int, a numpy SeedSequence or None, "
            f"got {type(random_state).__name__}"
        )
    if random_state < 0:
        raise ValueError(f"{name}: random_state must be at least 0, got {random_state}")
    return np.random.SeedSequence(int(random_state))


def _warn_few(who: str, n_samples: int, n_types: int) -> None:
    """Say that samples stand for several types."""
    warnings.warn(
        f"{who} has {n_samples} sample(s), fewer than n_types={n_types}: "
        "they are repeated in their order",
        stacklevel=3,
    )
