"""Views: what of a sequence modules learn to draw. One file each, registered by name.

A view maps sequences to sequences. Each has modules of its own; what they say is multiplied, see
:mod:`micfast.classify.experts`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from micfast.registry import Registry

__all__ = ["VIEWS", "View", "view_of", "views_of", "voting_of"]

Floats = NDArray[Any]
# The views of `views="auto"` and `hull="auto"`: those that hold under noise (docs/answers.md).
_AUTO = ("raw", "difference")
_AUTO_HULL = ("smooth", "difference", "shape", "envelope")


class View:
    """A map from sequences to sequences.

    Attributes
    ----------
    name : str
    takes_missing : bool
        Whether NaN in a sequence is a missing value, which only affects what is near it.
    gains : bool
        Whether a sequence twice as large looks twice as large.
    """

    name: str
    takes_missing: ClassVar[bool] = True
    gains: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """Look at sequences, each for itself.

        Parameters
        ----------
        Z : ndarray of shape (n, T, C)
            Standardised; NaN after the end of shorter ones.
        n_steps : int
            Steps of the longest training sequence, by which windows are chosen.

        Returns
        -------
        ndarray of shape (n, T', C')
        """


VIEWS: Registry[type[View]] = Registry(__name__, "view", View)


class OfFunction(View):
    """A user's function as a view."""

    takes_missing = False

    def __init__(self, function: Callable[[Floats], Floats]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def __call__(self, Z: Floats, n_steps: int) -> Floats:
        """See :meth:`View.__call__`."""
        seen = np.asarray(self.function(Z))
        if seen.ndim != 3 or len(seen) != len(Z) or 0 in seen.shape[1:] or seen.dtype.kind != "f":
            raise ValueError(
                f"view {self.name}: must return floats of shape (n_samples, n_timesteps, "
                f"n_channels) = ({len(Z)}, *, *), got {seen.dtype} of shape {seen.shape}"
            )
        return seen


def view_of(value: Any) -> View:
    """The view a user asked for: by name, or a function of sequences (n, T, C).

    Raises
    ------
    TypeError, ValueError
        If it is neither.
    """
    if isinstance(value, View | str):
        return VIEWS.resolve(value)
    if callable(value):
        return OfFunction(value)
    raise TypeError(
        f"a view must be a function or one of {', '.join(map(repr, VIEWS))}, got {value!r}"
    )


def views_of(value: Any) -> tuple[View, ...]:
    """The views a user asked for: "auto", a name, or several names and functions.

    Raises
    ------
    TypeError, ValueError
        If there is no such view, one occurs twice, or "raw" is missing.
    """
    views = _several("views", value, _AUTO)
    names = [view.name for view in views]
    if "raw" not in names:
        raise ValueError(f"views must include 'raw', which draws reconstructions, got {names}")
    return tuple(sorted(views, key=lambda view: view.name != "raw"))


def voting_of(value: Any, views: tuple[View, ...]) -> tuple[View, ...]:
    """Those in which the mixtures of the types vote: all of `views` (True), none, or others.

    Raises
    ------
    TypeError, ValueError
        If there is no such view, or one occurs twice.
    """
    if isinstance(value, bool | np.bool_):
        return views if value else ()
    return _several("hull", value, _AUTO_HULL)


def _several(name: str, value: Any, automatic: tuple[str, ...]) -> tuple[View, ...]:
    if isinstance(value, str):
        value = automatic if value == "auto" else (value,)
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be 'auto', a name or a tuple of views, got {value!r}")
    views = tuple(map(view_of, value))
    names = [view.name for view in views]
    if len(set(names)) < len(names):
        raise ValueError(f"{name} must differ from each other, got {names}")
    return views
