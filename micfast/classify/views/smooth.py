"""The sequence without what changes within a few steps."""

from __future__ import annotations

import numpy as np

from micfast.classify.views import VIEWS, Floats, View

__all__ = ["Smooth", "moving_mean"]


@VIEWS.register("smooth")
class Smooth(View):
    """Moving mean over a tenth of the length."""

    name = "smooth"
    gains = True

    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """See :meth:`View.__call__`."""
        return moving_mean(Z.astype(np.float64), max(1, round(n_steps / 10)))


def moving_mean(X: Floats, width: int) -> Floats:
    """Means (n, T, C) over the steps around each one, as far as there are values; NaN stays."""
    known = ~np.isnan(X)
    t = np.arange(X.shape[1])
    low, high = np.maximum(t - width // 2, 0), np.minimum(t + (width + 1) // 2, len(t))
    zero = np.zeros_like(X[:, :1])
    sums = np.concatenate([zero, np.where(known, X, 0).cumsum(axis=1)], axis=1)
    counts = np.concatenate([zero, known.cumsum(axis=1)], axis=1)
    mean = (sums[:, high] - sums[:, low]) / np.maximum(counts[:, high] - counts[:, low], 1)
    return np.where(known, mean, np.nan)
