"""Every channel of a sequence with mean 0 and standard deviation 1."""

from __future__ import annotations

import numpy as np

from micfast.classify.views import VIEWS, Floats, View

__all__ = ["ZNorm", "centred", "whole_deviation"]

# Standard deviations are at least this (in those of the training values).
_LEAST_DEVIATION = 1e-3


@VIEWS.register("znorm")
class ZNorm(View):
    """Every channel with mean 0 and standard deviation 1: level and size do not count."""

    name = "znorm"

    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """See :meth:`View.__call__`."""
        X = centred(Z)
        return X / deviation(X, n_values(X))


def n_values(X: Floats) -> Floats:
    """Values (n, 1, C) of each channel that are not NaN, at least 1."""
    return np.maximum((~np.isnan(X)).sum(axis=1, keepdims=True), 1)


def _sum(X: Floats) -> Floats:
    """Sums (n, 1, C) over the steps, in an order that does not depend on what follows the end."""
    return np.nan_to_num(X).cumsum(axis=1)[:, -1:]


def centred(Z: Floats) -> Floats:
    """Sequences (n, T, C) less their channels' means, float64."""
    X = Z.astype(np.float64)
    return X - _sum(X) / n_values(X)


def deviation(X: Floats, n: Floats) -> Floats:
    """Standard deviations (n, 1, C) of centred channels."""
    return np.maximum(np.sqrt(_sum(X * X) / n), _LEAST_DEVIATION)


def whole_deviation(X: Floats) -> Floats:
    """Standard deviations (n, 1, 1) of centred sequences, one for all channels."""
    n = n_values(X)
    channels = deviation(X, n)
    return np.sqrt((channels**2 * n).sum(axis=2, keepdims=True) / n.sum(axis=2, keepdims=True))
