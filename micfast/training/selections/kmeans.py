"""K-means with Euclidean distance or dynamic time warping."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from micfast.runtime import parallel_map
from micfast.sequences import ends
from micfast.settings import check_choice, check_count
from micfast.training.clustering import (
    Distance,
    by_falling_size,
    lloyd,
    means,
    shrunk,
    stretched,
)
from micfast.training.distances import squared_dtw, squared_euclidean
from micfast.training.selections import SELECTIONS, Selection, TypeSelection

__all__ = ["DTWKMeans", "KMeans"]

_Clusters = tuple[float, NDArray[np.int64], int]  # inertia, labels, iterations


@dataclass(frozen=True)
class _Clustering(Selection):
    """K-means. Centres are arithmetic means, no cluster of the result is empty, and clusters are
    ordered by decreasing size.
    """

    representative: Literal["centroid", "medoid"] = "centroid"
    n_init: int = 4
    max_iter: int = 100

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_choice(where, "representative", self.representative, ("centroid", "medoid"))
        self.set("n_init", check_count(where, "n_init", self.n_init, 1))
        self.set("max_iter", check_count(where, "max_iter", self.max_iter, 1))

    @abstractmethod
    def distance(self, n_timesteps: int) -> Distance:
        """The squared distance between sequences of that length."""

    def clusters(
        self, X: NDArray[Any], k: int, seed: np.random.SeedSequence, threads: int
    ) -> _Clusters:
        """The restart with the lowest inertia."""

        def restart(numbers: NDArray[np.int64]) -> list[_Clusters]:
            keys = [(*seed.spawn_key, int(i)) for i in numbers]
            children = [np.random.SeedSequence(seed.entropy, spawn_key=key) for key in keys]
            rngs = [np.random.default_rng(child) for child in children]
            return lloyd(X, k, self.distance(X.shape[1]), self.max_iter, rngs)

        shares = np.array_split(np.arange(self.n_init), min(threads, self.n_init))
        found = parallel_map(restart, shares, threads)
        return min(itertools.chain.from_iterable(found), key=lambda result: result[0])

    def select(
        self, X: NDArray[Any], n_types: int, seed: np.random.SeedSequence, threads: int
    ) -> tuple[NDArray[Any], TypeSelection]:
        """See :meth:`Selection.select`.

        Sequences of unequal lengths are clustered after all have been stretched to the longest by
        linear interpolation, also across missing values: K-means then compares shapes, not
        durations. A centroid is the mean of its stretched members, shrunk to the mean of their
        lengths; a medoid is a sample as it is.
        """
        k, samples, lengths = n_types, X, ends(X)
        if np.isnan(X).any():
            X = stretched(X, lengths)
        # An offset that all steps share changes no distance, DTW included; without it the
        # differences keep more digits in float32.
        working = np.float64 if X.dtype.itemsize > 4 else np.float32
        centred = (X - X.mean(axis=(0, 1), dtype=np.float64)).astype(working)
        inertia, labels, n_iter = self.clusters(centred, k, seed, threads)
        labels = by_falling_size(labels, k)
        if self.representative == "centroid":
            index = np.full(k, -1)
            types = means(X.astype(np.float64), labels, k).astype(X.dtype)
            if X is not samples:
                mean_lengths = [round(float(lengths[labels == j].mean())) for j in range(k)]
                types = shrunk(types, mean_lengths, samples.shape[1])
        else:
            distance = self.distance(X.shape[1])
            members = [np.flatnonzero(labels == j) for j in range(k)]
            summed = [np.sqrt(distance(centred[m], centred[m])).sum(axis=1) for m in members]
            index = np.array([m[d.argmin()] for m, d in zip(members, summed, strict=True)])
            types = samples[index]
        return types, TypeSelection(labels, index, inertia, n_iter)


@SELECTIONS.register("kmeans")
@dataclass(frozen=True)
class KMeans(_Clustering):
    """K-means with Euclidean distance, the paper's choice for MNIST.

    Parameters
    ----------
    representative : {"centroid", "medoid"}
        Which sequence represents each cluster: the mean of its members (the paper), or the member
        with the least summed distance to the others.
    n_init : int
        Restarts; the one with the lowest inertia is kept.
    max_iter : int
        Largest number of Lloyd iterations in a restart.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.training.selections.kmeans import KMeans
    >>> from micfast.training.types import select_types
    >>> X = np.repeat([0.0, 0.1, 5.0, 5.2, 5.3], 6).reshape(5, 6)
    >>> types, info = select_types(X, n_types=2, selection=KMeans("medoid"), random_state=0)
    >>> types[:, 0, 0].tolist(), info.index.tolist()  # the larger cluster comes first
    ([5.2, 0.0], [3, 0])
    """

    name: ClassVar[str] = "kmeans"
    n_init: int = 8

    def distance(self, n_timesteps: int) -> Distance:
        """The squared Euclidean distance."""
        return squared_euclidean


@SELECTIONS.register("dtw-kmeans")
@dataclass(frozen=True)
class DTWKMeans(_Clustering):
    """K-means with dynamic time warping, the paper's choice for characters.

    Centres are arithmetic means, as the paper's published centres, not tslearn's barycentre
    averages (DBA).

    Parameters
    ----------
    representative, n_init, max_iter
        As in :class:`KMeans`.
    radius : int or None
        Sakoe-Chiba radius in time steps: step i of one sequence may only be matched with steps
        i - radius to i + radius of the other. None is a fifth of n_timesteps.
    stride : int or None
        Distances are measured on every `stride`-th step; means are always taken of the full
        sequences. None leaves at least 50 steps (every 4th of 205).

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.training.selections.kmeans import DTWKMeans
    >>> from micfast.training.types import select_types
    >>> bump = np.exp(-((np.arange(40) - 20) ** 2) / 8)
    >>> X = np.stack([np.roll(bump, -3), np.roll(bump, 3), -bump, -np.roll(bump, 4)])
    >>> types, info = select_types(X, n_types=2, selection=DTWKMeans(radius=8), random_state=0)
    >>> bool(info.labels[0] == info.labels[1] != info.labels[2] == info.labels[3])
    True
    """

    name: ClassVar[str] = "dtw-kmeans"
    is_slow: ClassVar[bool] = True
    radius: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("radius", "stride"):
            value = getattr(self, name)
            if value is not None:
                self.set(name, check_count("DTWKMeans", name, value, 1))

    def distance(self, n_timesteps: int) -> Distance:
        """The squared DTW distance, close to that over all steps, so inertias can be compared."""
        # On the letters (205 steps at 200 Hz) the defaults reach the within-cluster DTW cost of
        # free warping over all steps (tested): a smooth stroke has no detail below 4 steps.
        stride = self.stride or max(1, n_timesteps // 50)
        radius = max(1, (self.radius or n_timesteps // 5) // stride)

        def distance(A: NDArray[Any], B: NDArray[Any]) -> NDArray[np.float64]:
            return stride * squared_dtw(A[:, ::stride], B[:, ::stride], radius)

        return distance
