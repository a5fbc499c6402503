"""The sequence itself."""

from __future__ import annotations

from micfast.classify.views import VIEWS, Floats, View

__all__ = ["Raw"]


@VIEWS.register("raw")
class Raw(View):
    """The sequence itself."""

    name = "raw"
    gains = True

    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """See :meth:`View.__call__`."""
        return Z
