"""How well modules draw their types, and how rich these are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from micfast.arrays import to_numpy
from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.kernels.reference import mean_squared_error
from micfast.kernels.weights import Weights

__all__ = ["errors_on_types", "held_share", "hidden_size_for", "variance"]

# Below this variance (standardised units) types count as constant: with the default learned_tol a
# module must then draw them with a mean squared error of 1e-4.
_LEAST_VARIANCE = 1e-3
# A module learned types of about as many complex Fourier coefficients as this share of its weights
# (frequency, damping, amplitude and phase of a sinusoid are four numbers).
_COEFFICIENTS_PER_WEIGHT = 0.25


def errors_on_types(weights: Weights, types: Tensor, execution: Execution) -> NDArray[np.float64]:
    """Noise-free mean squared error (M,) on types (M, K, T, O), the mean over the types."""
    one_hot = torch.eye(weights.input_size, dtype=weights.dtype, device=weights.device)
    drawn = GeneratorBank(weights).generate(one_hot, types.shape[2], execution=execution)
    errors = (drawn - types).double().square().mean(dim=(1, 2, 3))
    gaps = types.flatten(1).isnan().any(dim=1)
    if bool(gaps.any()):
        # Only where a type has gaps: the last bit must not depend on the rest of the fleet.
        known = mean_squared_error(drawn.double(), types.double(), True).mean(dim=1)
        errors = torch.where(gaps, known, errors)
    return to_numpy(errors)


def variance(types: NDArray[Any]) -> NDArray[np.float64]:
    """Variance (M,) of types (M, K, T, C) around each channel's mean, over their values.

    At least 1e-3, which constant types have.
    """
    # One module at a time: the order of a sum must not depend on the others.
    return np.array([max(_variance(one), _LEAST_VARIANCE) for one in types])


def _variance(types: NDArray[Any]) -> float:
    if np.isnan(types).any():
        known = np.ma.masked_invalid(types)
        return float(np.ma.filled(known.var(axis=(0, 1), dtype=np.float64).mean(), 0))
    return float(types.var(axis=(0, 1), dtype=np.float64).mean())


# -- capacity ------------------------------------------------------------------------------------


def _n_weights(hidden_size: int, n_types: int, n_channels: int) -> int:
    """Weights of one module."""
    return 4 * hidden_size * (n_types + hidden_size + 1) + n_channels * (hidden_size + 1)


def _shares(types: NDArray[Any]) -> NDArray[np.float64]:
    """Share of the types' variance that their n largest Fourier coefficients hold, n = 1, 2, ...

    Parameters
    ----------
    types : ndarray of shape (K, T, C)
        Of one module; what is missing counts as the mean.

    Returns
    -------
    ndarray
        Rising to 1, one entry per complex coefficient of all types and channels.
    """
    from scipy.fft import rfft

    mean = np.nanmean(types, axis=1, keepdims=True)
    power = np.square(np.abs(rfft(np.nan_to_num(types - mean), axis=1)[:, 1:])).ravel()
    shares = np.cumsum(np.sort(power)[::-1])
    return shares / max(float(shares[-1]), 1e-30) if len(shares) else np.ones(1)


def held_share(types: NDArray[Any], hidden_size: int) -> float:
    """About how much of the variance of types (K, T, C) a module of that size can hold."""
    K, _, C = types.shape
    n = round(_COEFFICIENTS_PER_WEIGHT * _n_weights(hidden_size, K, C))
    shares = _shares(types)
    return float(shares[min(n, len(shares)) - 1])


def hidden_size_for(types: NDArray[Any], share: float) -> int:
    """About the number of hidden units that hold a share of the variance of types (K, T, C)."""
    K, _, C = types.shape
    needed = (np.searchsorted(_shares(types), share) + 1) / _COEFFICIENTS_PER_WEIGHT
    hidden_size = 1
    while _n_weights(hidden_size, K, C) < needed:
        hidden_size += 1
    return hidden_size
