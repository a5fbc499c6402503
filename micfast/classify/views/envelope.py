"""When a sequence moves, whatever its size."""

from __future__ import annotations

from micfast.classify.views import VIEWS, Floats, View
from micfast.classify.views.energy import energy
from micfast.classify.views.znorm import centred, whole_deviation

__all__ = ["Envelope"]


@VIEWS.register("envelope")
class Envelope(View):
    """The energy of a sequence in its own standard deviations, one for all channels.

    Noise adds to the energy, and to the standard deviation by which it is divided here.
    """

    name = "envelope"

    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """See :meth:`View.__call__`."""
        X = centred(Z)
        return energy(X / whole_deviation(X), n_steps)
