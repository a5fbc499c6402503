"""How much a sequence moves, not where."""

from __future__ import annotations

import numpy as np

from micfast.classify.views import VIEWS, Floats, View
from micfast.classify.views.smooth import moving_mean

__all__ = ["Energy", "energy"]


@VIEWS.register("energy")
class Energy(View):
    """Moving mean of the distance to the moving mean, both over a tenth of the length."""

    name = "energy"
    gains = True

    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """See :meth:`View.__call__`."""
        return energy(Z.astype(np.float64), n_steps)


def energy(X: Floats, n_steps: int) -> Floats:
    """Energy (n, T, C) of sequences, see :class:`Energy`."""
    width = max(2, round(n_steps / 10))
    return moving_mean(np.abs(X - moving_mean(X, width)), width)
