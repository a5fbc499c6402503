"""What repeats within a sequence, wherever it starts."""

from __future__ import annotations

import numpy as np

from micfast.classify.views import VIEWS, Floats, View
from micfast.classify.views.znorm import ZNorm

__all__ = ["Autocorrelation"]


@VIEWS.register("autocorrelation")
class Autocorrelation(View):
    """Autocorrelation of every channel at the lags up to half the length.

    It does not hold under noise: a view for clean recordings of something that repeats.
    """

    name = "autocorrelation"
    takes_missing = False

    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """See :meth:`View.__call__`."""
        from scipy.signal import correlate  # takes a moment to import, and few ask for this view

        X = ZNorm()(Z, n_steps)
        T = X.shape[1]
        n_lags = max(2, min(T, n_steps // 2))
        flat = np.moveaxis(X, 2, 1).reshape(-1, T)
        found = np.stack([correlate(x, x, "full", "fft")[T - 1 : T - 1 + n_lags] for x in flat])
        return np.moveaxis(found.reshape(len(X), X.shape[2], -1) / T, 1, 2)
