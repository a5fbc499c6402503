"""The course of a sequence, whatever the level and size of its channels."""

from __future__ import annotations

from micfast.classify.views import VIEWS, Floats, View
from micfast.classify.views.smooth import Smooth
from micfast.classify.views.znorm import ZNorm

__all__ = ["Shape"]


@VIEWS.register("shape")
class Shape(View):
    """The moving mean, over a tenth of the length, of every channel in standard deviations."""

    name = "shape"

    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """See :meth:`View.__call__`."""
        return Smooth()(ZNorm()(Z, n_steps), n_steps)
