"""Projected Adam for all modules, then Levenberg-Marquardt for those that need it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from micfast.arrays import to_numpy
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.progress import Report, part_of
from micfast.training.errors import errors_on_types
from micfast.training.methods import METHODS, Fleet, Learned, Method
from micfast.training.methods.lm import ProjectedLM
from micfast.training.methods.projected import ProjectedAdam

__all__ = ["Auto"]


@METHODS.register("auto")
@dataclass(frozen=True)
class Auto(Method):
    """One method for all modules, then a second for those that are not good enough.

    Without noise these are the modules whose relative error is above the training's ``goal``. With
    noise, which holds errors above it by design, they are those that count as not learned, unless
    their types are too rich for them anyway. The better of both results is kept.

    Parameters
    ----------
    first, then : Method
        :class:`ProjectedAdam` and :class:`ProjectedLM`.

    Examples
    --------
    >>> from micfast import Training
    >>> from micfast.training.methods.auto import Auto
    >>> from micfast.training.methods.projected import ProjectedAdam
    >>> Training().method == Auto()
    True
    >>> Training(method=Auto(first=ProjectedAdam(n_steps=250))).method.then
    ProjectedLM(max_jacobians=30, n_noisy=1)
    """

    name: ClassVar[str] = "auto"
    first: Method = field(default_factory=ProjectedAdam)
    then: Method = field(default_factory=ProjectedLM)

    def __post_init__(self) -> None:
        for name in ("first", "then"):
            if not isinstance(getattr(self, name), Method):
                raise TypeError(f"Auto: {name} must be a method, got {getattr(self, name)!r}")

    def again(self) -> Method:
        """See :meth:`Method.again`."""
        return self.replace(first=self.first.again(), then=self.then.again())

    def train(self, fleet: Fleet, execution: Execution, report: Report) -> Learned:
        """See :meth:`Method.train`."""
        found = self.first.train(fleet, execution, part_of(report, 0, 0.5))
        errors = _errors(found.weights, fleet, execution)
        noisy = to_numpy((fleet.noise_in > 0) | (fleet.noise_out > 0))
        # A module that diverged has error NaN, which is above any.
        rest = np.flatnonzero(~(errors <= np.where(noisy, fleet.learned_tol, fleet.goal)))
        rest = np.array([m for m in rest if not noisy[m] or fleet.can_hold(int(m))], dtype=np.intp)
        if len(rest) == 0:
            return found
        some, diverged = fleet[rest], ~np.isfinite(errors[rest])
        some = some.starting_at(_chosen(found.weights[rest], some.weights, diverged))
        more = self.then.train(some, execution, part_of(report, 0.5, 1))
        return _joined(found, errors, more, _errors(more.weights, some, execution), rest)


def _errors(weights: Weights, fleet: Fleet, execution: Execution) -> NDArray[np.float64]:
    """Noise-free relative errors (M,)."""
    return errors_on_types(weights, fleet.types, execution) / to_numpy(fleet.variance)


def _joined(
    found: Learned,
    errors: NDArray[np.float64],
    more: Learned,
    errors_then: NDArray[np.float64],
    rest: NDArray[np.intp],
) -> Learned:
    """What both methods made of a fleet; the second was given the modules `rest`."""
    better = (errors_then < errors[rest]) | np.isnan(errors[rest])
    kept = _chosen(found.weights[rest], more.weights, better)
    place = np.arange(len(errors))
    place[rest] = len(errors) + np.arange(len(rest))
    weights = Weights.concat([found.weights, kept])[place.tolist()]
    steps, curves = list(found.steps), list(found.curves)
    for m, taken, curve in zip(rest, more.steps, more.curves, strict=True):
        steps[m], curves[m] = steps[m] | taken, np.concatenate([curves[m], curve])
    return Learned(weights, steps, curves)


def _chosen(weights: Weights, others: Weights, which: NDArray[np.bool_]) -> Weights:
    """The others' modules where `which` says so."""
    place = np.arange(len(which)) + len(which) * which
    return Weights.concat([weights, others])[place.tolist()]
