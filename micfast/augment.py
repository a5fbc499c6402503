"""Variants of the types, so that a module learns to draw what lies around its examples, too."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["augment_types"]

_MAX_AFFINE_CHANNELS = 3
# Places between which a time warp is smooth.
_N_KNOTS = 4


def augment_types(
    types: ArrayLike,
    n_variants: int = 16,
    *,
    warp: float = 0.05,
    affine: float = 0.05,
    random_state: Any = None,
) -> NDArray[Any]:
    """Variants of sequences by smooth time warps and small affine changes of the channels.

    Parameters
    ----------
    types : array-like of shape (..., T, C)
        Sequences, finite.
    n_variants : int
        V; the first variant is the sequence itself.
    warp : float
        Standard deviation of the warp: how far, in units of the whole duration, the middle of a
        sequence moves in time. Both ends stay. 0: none.
    affine : float
        Standard deviation of the change of each coefficient: values are multiplied by a matrix near
        1 around the sequence's mean (with more than 3 channels, by one factor near 1). 0: none.
    random_state : int, numpy Generator or None

    Returns
    -------
    ndarray of shape (..., V, T, C), in the dtype of ``types``

    Raises
    ------
    ValueError
        If a number is out of range or ``types`` has fewer than two dimensions.

    Examples
    --------
    >>> augment_types(np.zeros((4, 30, 2)), 8, random_state=0).shape
    (4, 8, 30, 2)
    """
    X = np.asarray(types)
    if X.ndim < 2 or X.shape[-2] < 1 or not np.isfinite(X).all():
        raise ValueError(
            f"augment_types: types must be finite and have shape (..., T, C), got {X.shape}"
        )
    if isinstance(n_variants, bool) or not isinstance(n_variants, int | np.integer):
        raise TypeError(
            f"augment_types: n_variants must be an integer, got {type(n_variants).__name__}"
        )
    if n_variants < 1:
        raise ValueError(f"augment_types: n_variants must be at least 1, got {n_variants}")
    for name, value in (("warp", warp), ("affine", affine)):
        if not 0 <= value < 1:
            raise ValueError(f"augment_types: {name} must be from 0 to below 1, got {value}")
    rng = np.random.default_rng(random_state)
    T, C = X.shape[-2:]
    flat = X.reshape(-1, T, C).astype(np.float64)
    out = np.empty((len(flat), n_variants, T, C))
    for i, sequence in enumerate(flat):
        out[i, 0] = sequence
        for v in range(1, n_variants):
            out[i, v] = _change(_warp(sequence, warp, rng), affine, rng)
    return out.reshape(*X.shape[:-2], n_variants, T, C).astype(X.dtype, copy=False)


def _warp(x: NDArray[Any], strength: float, rng: np.random.Generator) -> NDArray[Any]:
    """The sequence at times that run faster and slower, but never back."""
    from scipy.interpolate import PchipInterpolator

    if strength == 0 or len(x) < 3:
        return x
    # Speeds between the knots; the middle of a sum of n of them strays by their spread / 2 sqrt(n).
    speed = np.exp(2 * np.sqrt(_N_KNOTS) * strength * rng.standard_normal(_N_KNOTS))
    places = np.concatenate([[0], np.cumsum(speed)]) / speed.sum()
    # Monotone between monotone points, and smooth.
    time = PchipInterpolator(np.linspace(0, 1, _N_KNOTS + 1), places)(np.linspace(0, 1, len(x)))
    steps = np.linspace(0, 1, len(x))
    return np.stack([np.interp(time, steps, channel) for channel in x.T], axis=1)


def _change(x: NDArray[Any], strength: float, rng: np.random.Generator) -> NDArray[Any]:
    """The sequence, sheared, turned and scaled a little around its mean."""
    C = x.shape[1]
    if strength == 0:
        return x
    if C > _MAX_AFFINE_CHANNELS:
        matrix = np.eye(C) * (1 + strength * rng.standard_normal())
    else:
        matrix = np.eye(C) + strength * rng.standard_normal((C, C))
    middle = x.mean(axis=0)
    return (x - middle) @ matrix.T + middle
