"""How a class's types are selected: settings objects, one file each, registered by name."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from micfast.registry import Registry
from micfast.settings import Settings

__all__ = ["SELECTIONS", "Selection", "TypeSelection", "take_samples"]


@dataclass(frozen=True)
class TypeSelection:
    """How the types of one class came about.

    Attributes
    ----------
    labels : ndarray of shape (n_samples,), int64
        The type each sample belongs to; -1 for a sample that belongs to none (``"random"`` and
        ``"first"`` leave the samples they do not take unassigned).
    index : ndarray of shape (n_types,), int64
        The sample that each type is; -1 for a centroid, which is no sample.
    inertia : float
        Sum over the samples of the squared distance (of the selection's metric) to the mean of
        their cluster; NaN where nothing was clustered.
    n_iter : int
        Lloyd iterations of the restart that was kept; 0 where nothing was clustered.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.training.types import select_types
    >>> select_types(np.eye(3), n_types=2, selection="first")[1]
    TypeSelection(labels=array([ 0,  1, -1]), index=array([0, 1]), inertia=nan, n_iter=0)
    """

    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    inertia: float
    n_iter: int


class Selection(Settings):
    """A way to select types. Subclasses are frozen dataclasses, registered by name.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from micfast.training.selections import Selection, take_samples
    >>> from micfast.training.types import select_types
    >>> @dataclass(frozen=True)
    ... class Last(Selection):
    ...     def select(self, X, n_types, seed, threads):
    ...         return take_samples(X, np.arange(len(X) - n_types, len(X)))
    >>> select_types(np.eye(9), n_types=2, selection=Last())[1].index.tolist()
    [7, 8]
    """

    # Whether results are worth keeping on disk.
    is_slow: ClassVar[bool] = False

    @abstractmethod
    def select(
        self, X: NDArray[Any], n_types: int, seed: np.random.SeedSequence, threads: int
    ) -> tuple[NDArray[Any], TypeSelection]:
        """Select the types of one class.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_timesteps, n_channels)
            At least n_types samples; NaN where a value is missing or a sequence has ended.
        n_types : int
        seed : SeedSequence
        threads : int

        Returns
        -------
        types : ndarray of shape (n_types, n_timesteps, n_channels)
        info : TypeSelection
        """


SELECTIONS: Registry[type[Selection]] = Registry(__name__, "type_selection", Selection)


def take_samples(X: NDArray[Any], index: NDArray[np.int64]) -> tuple[NDArray[Any], TypeSelection]:
    """Types that are the samples at `index`."""
    labels = np.full(len(X), -1)
    # Backwards, so that a repeated sample is labelled with its first type.
    labels[index[::-1]] = np.arange(len(index))[::-1]
    return X[index], TypeSelection(labels, index, float("nan"), 0)
