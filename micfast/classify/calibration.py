"""How errors become decisions: comparable errors, thresholds, temperature; arrays alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

__all__ = [
    "ENOUGH",
    "are_types",
    "best_temperature",
    "calibration_samples",
    "class_errors",
    "comparable",
    "temperature_samples",
    "threshold",
]

Floats = NDArray[np.float64]

# The error given to a module that draws NaN or infinity.
_WORST = float(np.finfo(np.float32).max)
# So many training samples that are not types are enough to judge a class without its types.
ENOUGH = 8
_TEMPERATURE_SAMPLES = 128
_CALIBRATION_SAMPLES = 64


def comparable(errors: NDArray[Any]) -> Floats:
    """Errors in float64; a module that draws NaN or infinity is worse than any other."""
    return np.nan_to_num(errors.astype(np.float64), nan=_WORST, posinf=_WORST)


@np.errstate(all="ignore")
def class_errors(module_errors: Floats) -> Floats:
    """The classes' errors (n, C): means over their modules' (R, n, C)."""
    return comparable(module_errors.mean(axis=0))


def threshold(errors: Floats, reject: float) -> float:
    """The error that a share `reject` of a class's own errors exceeds."""
    return float(np.quantile(errors, 1 - reject))


def calibration_samples(
    Z: NDArray[Any], types: NDArray[Any], rng: np.random.Generator
) -> NDArray[Any]:
    """Draw at most 64 training samples of a class by which its modules are judged.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, T, C)
        All samples of the class.
    types : ndarray of shape (K, T, C)
        The types its modules have learned. Samples that are types are drawn too well to predict
        how new ones will be drawn, so they are left out if 8 others remain.
    rng : numpy Generator

    Returns
    -------
    ndarray of shape (at most 64, T, C)
    """
    others = np.flatnonzero(~are_types(Z, types))
    pool = others if len(others) >= ENOUGH else np.arange(len(Z))
    return Z[rng.permutation(pool)[:_CALIBRATION_SAMPLES]]


def are_types(Z: NDArray[Any], types: NDArray[Any]) -> NDArray[np.bool_]:
    """Which samples (n, T, C) are among a class's types (K, T, C)."""
    found = np.zeros(len(Z), dtype=bool)
    for one in types:
        found |= ((one == Z) | (np.isnan(one) & np.isnan(Z))).all(axis=(1, 2))
    return found


def temperature_samples(
    parts: Sequence[NDArray[Any]], rngs: Sequence[np.random.Generator]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Draw at most 128 training samples of all classes; their classes' numbers."""
    n_samples = sum(map(len, parts))
    chosen, codes = [], []
    for c, (Z, rng) in enumerate(zip(parts, rngs, strict=True)):
        if n_samples > _TEMPERATURE_SAMPLES:
            quota = max(1, _TEMPERATURE_SAMPLES // len(parts))
            Z = Z[rng.permutation(len(Z))[:quota]]
        chosen.append(Z)
        codes += [c] * len(Z)
    limit = slice(_TEMPERATURE_SAMPLES)
    return np.concatenate(chosen)[limit], np.array(codes)[limit]


@np.errstate(all="ignore")  # exponentials may well underflow
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
