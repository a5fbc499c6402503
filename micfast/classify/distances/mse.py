"""The mean squared difference, which the search has minimised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from micfast.classify.distances import DISTANCES
from micfast.kernels.execution import Execution
from micfast.search.inversion import Inversion

__all__ = ["mean_squared_error"]


@DISTANCES.register("mse")
def mean_squared_error(
    inversion: Inversion, Z: NDArray[Any], execution: Execution, n_threads: int
) -> NDArray[np.float64]:
    """The errors of the search."""
    return inversion.errors.astype(np.float64)
