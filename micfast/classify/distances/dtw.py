"""Dynamic time warping between sequence and reconstruction, which ignores shifts in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from micfast.classify.distances import DISTANCES
from micfast.kernels.execution import Execution
from micfast.runtime import parallel_map
from micfast.search.inversion import Inversion
from micfast.sequences import ends
from micfast.training.distances import squared_dtw

__all__ = ["dynamic_time_warping", "warped_distances"]

# Numbers of the drawings that are compared at a time.
_DRAWN_NUMBERS = 2**22


@DISTANCES.register("dtw")
def dynamic_time_warping(
    inversion: Inversion, Z: NDArray[Any], execution: Execution, n_threads: int
) -> NDArray[np.float64]:
    """The squared cost of the best alignment, without a band."""
    N, M, _ = inversion.latents.shape
    T, C = Z.shape[1:]
    step = max(1, _DRAWN_NUMBERS // (M * T * C))
    parts = [np.empty((0, M))]
    for begin in range(0, N, step):
        here = slice(begin, begin + step)
        latents = inversion.latents[here].swapaxes(0, 1)
        drawn = inversion.bank.generate(latents, T, execution=execution).cpu().numpy()
        parts.append(warped_distances(Z[here], drawn.swapaxes(0, 1), n_threads))
    return np.concatenate(parts)


def warped_distances(
    targets: NDArray[Any], drawn: NDArray[Any], n_threads: int = 1
) -> NDArray[np.float64]:
    """Squared DTW distances between each target and each module's reconstruction of it.

    Parameters
    ----------
    targets : ndarray of shape (N, T, C)
        Those that end in NaN are shorter.
    drawn : ndarray of shape (N, M, T, C)
        What follows a target's end is ignored.
    n_threads : int
        Threads over the targets; does not affect the result.

    Returns
    -------
    ndarray of shape (N, M), float64
        Divided by T C (T the target's own), so that a distance without warping is the mean squared
        error; NaN where target or drawing holds NaN or infinity.
    """
    N, M, _, C = drawn.shape
    lengths = ends(targets)

    def of_target(n: int) -> NDArray[np.float64]:
        result, T = np.full(M, np.nan), int(lengths[n])
        target, of_modules = targets[n : n + 1, :T], drawn[n, :, :T]
        known = np.isfinite(of_modules).all(axis=(1, 2)) & (T > 0) & np.isfinite(target).all()
        if known.any():
            result[known] = squared_dtw(target, of_modules[known], T)[0] / (T * C)
        return result

    if N == 0:
        return np.empty((0, M))
    return np.stack(list(parallel_map(of_target, range(N), n_threads)))
