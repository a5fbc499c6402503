"""How modules are trained: settings objects that train a fleet, registered by name."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor

from micfast.arrays import to_numpy
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.progress import Report
from micfast.registry import Registry
from micfast.settings import Settings
from micfast.training.errors import held_share

__all__ = ["METHODS", "Fleet", "Learned", "Method"]


@dataclass(frozen=True, eq=False)
class Fleet:
    """M modules and what each is to learn.

    Attributes
    ----------
    weights : Weights
        To start from; they stay as they are.
    types : Tensor of shape (M, K, T, O)
        In the weights' dtype, on their device; NaN is a missing value.
    variance : float64 Tensor of shape (M,)
        By which a module's mean squared error is divided to give its relative error.
    noise_in, noise_out : float64 Tensor of shape (M,)
    seeds : int64 Tensor of shape (M,)
    goal : float
        Relative error with which a module is good enough.
    learned_tol : float
        Relative error with which it counts as learned.
    omit_nan : bool
        Whether values are missing.
    """

    weights: Weights
    types: Tensor
    variance: Tensor
    noise_in: Tensor
    noise_out: Tensor
    seeds: Tensor
    goal: float
    learned_tol: float
    omit_nan: bool

    def __getitem__(self, index: Any) -> Fleet:
        """Some of the modules."""
        names = ("weights", "types", "variance", "noise_in", "noise_out", "seeds")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def can_hold(self, module: int) -> bool:
        """Whether modules of this size hold as much of that one's types as counts as learned."""
        types = to_numpy(self.types[module])
        return held_share(types, self.weights.hidden_size) >= 1 - self.learned_tol

    def starting_at(self, weights: Weights) -> Fleet:
        """The same modules with other weights."""
        return replace(self, weights=weights)


@dataclass(frozen=True, eq=False)
class Learned:
    """What a method made of a fleet.

    Attributes
    ----------
    weights : Weights
    steps : list of dict
        Of each module: how many steps (episodes, Jacobians) by the name of each method, in order.
    curves : list of ndarray
        Each module's training losses, in the order of the training.
    """

    weights: Weights
    steps: list[dict[str, int]]
    curves: list[NDArray[Any]]


class Method(Settings):
    """A way to train. Subclasses are frozen dataclasses, registered by name."""

    # Whether a module whose types are too rich for its size is tried again from other seeds.
    tries_rich_types: ClassVar[bool] = False

    def again(self) -> Method:
        """The method by which a module that did not learn by this one is tried again."""
        return self

    @abstractmethod
    def train(self, fleet: Fleet, execution: Execution, report: Report) -> Learned:
        """Train a fleet; a module's result depends on its own start, types, noise and seed alone.

        Parameters
        ----------
        fleet : Fleet
        execution : Execution
        report : callable or None
            To be called with the fraction done, now and then.

        Returns
        -------
        Learned
        """


METHODS: Registry[type[Method]] = Registry(__name__, "method", Method)
