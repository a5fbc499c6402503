"""How errors decide: distances of drawings, scales and thresholds of classes, temperature.

Works on arrays alone; the estimator trains, inverts and keeps what is found here.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from micfast._parallel import parallel_map
from micfast._ragged import ends
from micfast.types import _import_lock, _squared_dtw

__all__ = [
    "DISTANCES",
    "ERROR_SCALES",
    "best_temperature",
    "calibration_samples",
    "class_scale",
    "comparable",
    "threshold",
    "warped_distances",
]

Distance = Literal["mse", "dtw", "soft-dtw"]
ErrorScale = Literal["types", "samples"]
DISTANCES = get_args(Distance)
ERROR_SCALES = (None, *get_args(ErrorScale))

Floats = NDArray[np.float64]

# What a module that draws NaN or infinity is given as its error.
_WORST = float(np.finfo(np.float32).max)
# Softness of soft-DTW, in standardised units squared: about what a step of a good drawing costs.
_GAMMA = 0.1
# A class's own errors are at least this where others are divided by them.
_LEAST_SCALE = 1e-8
# So many training samples that aren't types are enough to judge a class without its types.
_ENOUGH = 8


# -- distances -----------------------------------------------------------------------------------


def warped_distances(
    targets: NDArray[Any],
    drawn: NDArray[Any],
    distance: Literal["dtw", "soft-dtw"],
    n_threads: int = 1,
) -> Floats:
    """Distances under time warping between each target and what each module made of it.

    Parameters
    ----------
    targets : ndarray of shape (N, T, C)
        Those that end in NaN are shorter.
    drawn : ndarray of shape (N, M, T, C)
        What follows a target's end doesn't matter.
    distance : {"dtw", "soft-dtw"}
        The squared cost of the best alignment, or the soft-DTW divergence with gamma 0.1: soft-DTW
        less the mean of the soft-DTW of both sequences to themselves, which is 0 for equal
        sequences and never below (plain soft-DTW is: it falls with the number of alignments).
    n_threads : int
        Threads over the targets; without influence on the result.

    Returns
    -------
    ndarray of shape (N, M), float64
        Divided by T C (T the target's own), so that a distance without warping is the mean squared
        error; NaN where target or drawing holds NaN or infinity.
    """
    N, M, _, C = drawn.shape
    lengths = ends(targets)

    def of_target(n: int) -> Floats:
        result, T = np.full(M, np.nan), int(lengths[n])
        target, of_modules = targets[n : n + 1, :T], drawn[n, :, :T]
        known = np.isfinite(of_modules).all(axis=(1, 2)) & (T > 0) & np.isfinite(target).all()
        if known.any():
            pairs = target, of_modules[known]
            measured = _squared_dtw(*pairs, T) if distance == "dtw" else _soft_dtw(*pairs)
            # Rounding can take the divergence of equal sequences below zero.
            result[known] = np.maximum(measured[0], 0) / (T * C)
        return result

    if N == 0:
        return np.empty((0, M))
    return np.stack(list(parallel_map(of_target, range(N), n_threads)))


def _soft_dtw(X: NDArray[Any], Y: NDArray[Any]) -> Floats:
    """Soft-DTW divergences (n, k) between (n, T, C) and (k, T, C)."""
    # Only here: the import takes seconds (numba); warnings and lock as in micfast.types.
    with _import_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="h5py not installed")
        from tslearn.metrics import cdist_soft_dtw_normalized

    return cdist_soft_dtw_normalized(X.astype(np.float64), Y.astype(np.float64), gamma=_GAMMA)


# -- errors --------------------------------------------------------------------------------------


def comparable(errors: NDArray[Any]) -> Floats:
    """Errors in float64; a module that draws NaN or infinity is worse than any other."""
    return np.nan_to_num(errors.astype(np.float64), nan=_WORST, posinf=_WORST)


def class_scale(errors: Floats) -> float:
    """Mean of a class's own errors, as a divisor: never zero; 1 for a module that diverged."""
    if (errors >= _WORST).any():
        return 1.0
    return max(float(errors.mean()), _LEAST_SCALE)


def threshold(errors: Floats, reject: float) -> float:
    """What the share `reject` of a class's own errors exceeds."""
    return float(np.quantile(errors, 1 - reject))


def calibration_samples(
    Z: NDArray[Any], types: NDArray[Any], limit: int, rng: np.random.Generator
) -> NDArray[Any]:
    """Draw training samples of a class by which its module is judged.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, T, C)
        All samples of the class.
    types : ndarray of shape (K, T, C)
        What its module has learned. Samples that are types are drawn too well to tell how new ones
        will be drawn, so they are left out if 8 others remain.
    limit : int
        Most samples to take.
    rng : numpy Generator

    Returns
    -------
    ndarray of shape (at most limit, T, C)
    """
    is_type = np.zeros(len(Z), dtype=bool)
    for one in types:
        is_type |= ((one == Z) | (np.isnan(one) & np.isnan(Z))).all(axis=(1, 2))
    others = np.flatnonzero(~is_type)
    pool = others if len(others) >= _ENOUGH else np.arange(len(Z))
    return Z[rng.permutation(pool)[:limit]]


def best_temperature(errors: Floats, codes: NDArray[Any]) -> float:
    """Temperature of the lowest log loss, within a factor 1000 of the errors' median."""
    scale = float(np.median(errors))
    if scale <= 0:
        return 1.0

    def log_loss(log_temperature: float) -> float:
        logits = -errors / math.exp(log_temperature)
        return float((logsumexp(logits, axis=1) - logits[np.arange(len(codes)), codes]).mean())

    span = math.log(1000)
    bounds = (math.log(scale) - span, math.log(scale) + span)
    return math.exp(minimize_scalar(log_loss, bounds=bounds, method="bounded").x)
