"""Distances between sequences and their reconstructions. One file each, registered by name."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from micfast.kernels.execution import Execution
from micfast.registry import Registry
from micfast.search.inversion import Inversion

__all__ = ["DISTANCES", "Distance"]


class Distance(Protocol):
    """A function of an inversion and its targets."""

    def __call__(
        self, inversion: Inversion, Z: NDArray[Any], execution: Execution, n_threads: int
    ) -> NDArray[np.float64]:
        """Measure each target's distance to each module's reconstruction.

        Parameters
        ----------
        inversion : Inversion
            With NumPy arrays, of N targets by M modules.
        Z : ndarray of shape (N, T, C)
            The targets; those that end in NaN are shorter.
        execution : Execution
            For drawing reconstructions.
        n_threads : int

        Returns
        -------
        ndarray of shape (N, M), float64
            Divided by T C (T the target's own); NaN where there is no distance.
        """
        ...


DISTANCES: Registry[Distance] = Registry(__name__, "distance")
