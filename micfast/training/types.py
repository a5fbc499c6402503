"""Selection of the types of one class or of all, and the cache of slow selections."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from micfast.arrays import to_numpy
from micfast.io import atomic_path, cache_dir, load_arrays
from micfast.runtime import n_threads, parallel_map
from micfast.sequences import Sequences, require_values
from micfast.settings import check_choice, check_count
from micfast.training.selections import SELECTIONS, Selection, TypeSelection, take_samples

__all__ = ["TypeSelection", "select_types", "select_types_per_class"]

Seed = int | np.random.SeedSequence | None

# Part of every cache key: raise it when the same arguments would select other types than before.
_CACHE_VERSION = 3
# Most memory that the types of all classes may take.
_MOST_BYTES = 2**33


def select_types(
    X: Any,
    n_types: int = 4,
    *,
    selection: Selection | str = "kmeans",
    random_state: Seed = None,
    n_jobs: int | None = None,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> tuple[NDArray[Any], TypeSelection]:
    """Select the types of one class: the few sequences its generator learns.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_timesteps, n_channels), or list of sequences
        The class's training sequences, finite; of unequal lengths as a list or padded with NaN at
        their ends.
    n_types : int, default=4
        Number of types, at least 1 (the paper: 4).
    selection : {"kmeans", "dtw-kmeans", "random", "first"} or selection object
        K-means with Euclidean distance (:class:`~micfast.training.selections.kmeans.KMeans`) or
        dynamic time warping (:class:`~micfast.training.selections.kmeans.DTWKMeans`), samples
        drawn without replacement, or the first samples.
    random_state : int, SeedSequence or None, default=None
        Seed of the initial centres or of the draw. The same seed gives the same types, whatever
        `n_jobs` is.
    n_jobs : int or None, default=None
        Threads over the restarts of K-means; None is 1, -1 is one per processor.
    nan_policy : {"raise", "omit"}, default="raise"
        Whether NaN before a sequence's end is an error or a missing value.

    Returns
    -------
    types : ndarray of shape (n_types, n_timesteps, n_channels)
        The types, float32 if `X` is, else float64, NaN after their ends.
    info : TypeSelection
        Assignment of the samples, their inertia and the origin of each type.

    Raises
    ------
    TypeError, ValueError
        If `X` is empty or not finite, or an argument is not as described.

    Warns
    -----
    UserWarning
        If there are fewer samples than types: they are then repeated in their order.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.training.types import select_types
    >>> X = np.repeat([0.0, 0.1, 5.0, 5.2], 6).reshape(4, 3, 2)
    >>> types, info = select_types(X, n_types=2, random_state=0)
    >>> types.shape, info.labels.tolist()
    ((2, 3, 2), [0, 0, 1, 1])
    """
    where = "select_types"
    n_types = check_count(where, "n_types", n_types, 1)
    sequences = _read(where, X, nan_policy)
    _check_size(where, n_types, sequences)
    if len(sequences) < n_types:
        _warn_few("select_types: the class", len(sequences), n_types)
    seed = _seed_sequence(where, random_state)
    return _select(sequences, n_types, SELECTIONS.resolve(selection), seed, n_threads(n_jobs))


def select_types_per_class(
    X: Any,
    y: ArrayLike,
    n_types: int = 4,
    *,
    selection: Selection | str = "kmeans",
    random_state: Seed = None,
    n_jobs: int | None = -1,
    cache: bool = True,
    progress: bool = False,
    nan_policy: Literal["raise", "omit"] = "raise",
) -> tuple[NDArray[Any], NDArray[Any], list[TypeSelection]]:
    """Select the types of every class.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_timesteps, n_channels), or list of sequences
        Training sequences of all classes, as in :func:`select_types`.
    y : array_like of shape (n_samples,)
        Their class labels.
    n_types, selection, nan_policy
        As in :func:`select_types`.
    random_state : int, SeedSequence or None, default=None
        Each class gets its own seed, derived from this one and the class's position among the
        sorted classes, so a class's types do not depend on the other classes' samples.
    n_jobs : int or None, default=-1
        Threads over the classes; None is 1, -1 is one per processor. Does not affect the result.
    cache : bool, default=True
        Whether a ``"dtw-kmeans"`` result is kept on disk, in ``MICFAST_CACHE`` or else in pooch's
        cache folder for micfast, and read from there at the next call with equal arguments.
        Other selections, and those without a seed, are not kept.
    progress : bool, default=False
        Whether to show a progress bar over the classes.

    Returns
    -------
    types : ndarray of shape (n_classes, n_types, n_timesteps, n_channels)
        The types of each class.
    classes : ndarray of shape (n_classes,)
        The classes, sorted.
    infos : list of TypeSelection
        One per class; ``labels`` and ``index`` count the class's samples in their order in `X`.

    Raises
    ------
    TypeError, ValueError
        As :func:`select_types`; also if `y` does not have one label per sample.

    Warns
    -----
    UserWarning
        If a class has fewer samples than types (they are then repeated in their order), or if the
        result cannot be written to the cache.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.training.types import select_types_per_class
    >>> X = np.arange(48.0).reshape(8, 3, 2)
    >>> types, classes, infos = select_types_per_class(X, list("abababab"), 2, random_state=0)
    >>> types.shape, classes.tolist(), len(infos)
    ((2, 2, 3, 2), ['a', 'b'], 2)
    """
    where = "select_types_per_class"
    n_types, selection = (
        check_count(where, "n_types", n_types, 1),
        SELECTIONS.resolve(selection),
    )
    sequences = _read(where, X, nan_policy)
    labels = to_numpy(y)
    if labels.shape != (len(sequences),):
        raise ValueError(
            f"{where}: y must have shape [n_samples] = [{len(sequences)}], got {list(labels.shape)}"
        )
    seed, threads = _seed_sequence(where, random_state), n_threads(n_jobs)
    classes, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes)
    _check_size(where, n_types * len(classes), sequences)
    for label, count in zip(classes, counts, strict=True):
        if count < n_types:
            _warn_few(f"{where}: class {label!s}", int(count), n_types)

    path = None
    if cache and selection.is_slow and random_state is not None:
        key = _cache_key(sequences, codes, n_types, selection, seed)
        path = cache_dir() / "types" / f"{key}.npz"
        found = _read_cache(path, sequences, counts, n_types)
        if found is not None:
            return found[0], classes, found[1]

    def select_one(position: int) -> tuple[NDArray[Any], TypeSelection]:
        # Not seed.spawn: that counts how often it was called, so a second call would differ.
        child = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, position))
        return _select(sequences[codes == position], n_types, selection, child, 1)

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


@np.errstate(all="ignore")
def _select(
    X: NDArray[Any],
    n_types: int,
    selection: Selection,
    seed: np.random.SeedSequence,
    threads: int,
) -> tuple[NDArray[Any], TypeSelection]:
    if len(X) < n_types:
        return take_samples(X, np.arange(n_types) % len(X))
    return selection.select(X, n_types, seed, threads)


# -- cache ---------------------------------------------------------------------------------------


def _cache_key(
    X: NDArray[Any],
    codes: NDArray[np.intp],
    n_types: int,
    selection: Selection,
    seed: np.random.SeedSequence,
) -> str:
    """Hash of all that the types depend on."""
    description = (
        f"{_CACHE_VERSION} {X.dtype.str} {X.shape} {n_types} {selection} {seed.entropy} "
        f"{seed.spawn_key}"
    )
    digest = hashlib.sha256(description.encode())
    digest.update(np.ascontiguousarray(X).tobytes())
    digest.update(codes.astype("<i8").tobytes())
    return digest.hexdigest()


def _read_cache(
    path: Path, X: NDArray[Any], counts: NDArray[np.intp], n_types: int
) -> tuple[NDArray[Any], list[TypeSelection]] | None:
    """Types and infos of a cache file; None if it is absent, damaged or of another shape."""
    n_classes = len(counts)
    try:
        file = load_arrays(path)
        types, labels, index, inertia, n_iter = (
            file[name] for name in ("types", "labels", "index", "inertia", "n_iter")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if (
        types.dtype != X.dtype
        or types.shape != (n_classes, n_types, *X.shape[1:])
        or labels.shape != (len(X),)
        or index.shape != (n_classes, n_types)
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
            "set MICFAST_CACHE to a writable folder, or pass cache=False",
            stacklevel=3,
        )


# -- arguments -----------------------------------------------------------------------------------


def _read(where: str, X: Any, nan_policy: str) -> NDArray[Any]:
    """The sequences as a floating array (n, T, C), checked."""
    check_choice(where, "nan_policy", nan_policy, ("raise", "omit"))
    values = Sequences.read(X, name=f"{where}: X").padded()
    if len(values) == 0:
        raise ValueError(f"{where}: X must hold at least one sequence, got none")
    if np.isinf(values).any():
        raise ValueError(
            f"{where}: X must be finite, got {int(np.isinf(values).sum())} infinite values"
        )
    require_values(where, "X", values, nan_policy)
    return values


def _check_size(where: str, n_types: int, X: NDArray[Any]) -> None:
    """Refuse numbers of types that only a mistake can explain, before they take the memory."""
    n_bytes = n_types * X[0].nbytes
    if n_bytes > _MOST_BYTES:
        raise ValueError(
            f"{where}: n_types is too large: all types together would take "
            f"{n_bytes / 2**30:,.0f} GiB, {_MOST_BYTES / 2**30:.0f} GiB at most are allowed"
        )


def _seed_sequence(where: str, random_state: object) -> np.random.SeedSequence:
    if isinstance(random_state, np.random.SeedSequence):
        return random_state
    if random_state is None:
        return np.random.SeedSequence()
    return np.random.SeedSequence(check_count(where, "random_state", random_state))


def _warn_few(who: str, n_samples: int, n_types: int) -> None:
    warnings.warn(
        f"{who} has {n_samples} sample(s), fewer than n_types={n_types}: "
        "they are repeated in their order",
        stacklevel=3,
    )
