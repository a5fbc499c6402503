"""How a sequence changes over a few steps, whatever its level and size."""

from __future__ import annotations

import numpy as np

from micfast.classify.views import VIEWS, Floats, View
from micfast.classify.views.znorm import centred, whole_deviation
from micfast.sequences import ends

__all__ = ["Difference"]


@VIEWS.register("difference")
class Difference(View):
    """Differences over a fiftieth of the length, in standard deviations of the sequence.

    The standard deviation is one for all channels, so their proportions stay. Differences across
    the ends are shorter ones, so as many steps come out as go in.
    """

    name = "difference"

    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """See :meth:`View.__call__`."""
        X = centred(Z)
        width = max(1, round(n_steps / 50))
        t, rows = np.arange(X.shape[1])[None], np.arange(len(X))[:, None]
        last = np.maximum(ends(X), 1)[:, None] - 1
        before = np.minimum(np.maximum(t - width // 2, 0), last)
        after = np.minimum(t + (width + 1) // 2, last)
        change = (X[rows, after] - X[rows, before]) / whole_deviation(X)
        return np.where(np.isnan(X), np.nan, change)
