"""Solvers: settings objects that run a search. One file each; its name is registered there."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from micfast.kernels.execution import Execution
from micfast.kernels.reference import InvertResult
from micfast.kernels.weights import Weights
from micfast.progress import Report
from micfast.registry import Registry
from micfast.search.loss import Loss
from micfast.search.starts import Start
from micfast.settings import Settings

__all__ = ["SOLVERS", "Solver"]


class Solver(Settings):
    """A way to search for latents. Subclasses are frozen dataclasses, registered by name.

    Examples
    --------
    >>> from dataclasses import dataclass, field
    >>> import numpy as np
    >>> from micfast import GeneratorBank, invert
    >>> from micfast.kernels.reference import invert as reference_invert
    >>> from micfast.search.solvers import Solver
    >>> from micfast.search.starts import Start
    >>> from micfast.search.starts.drawn import Dirichlet
    >>> @dataclass(frozen=True)
    ... class RandomSearch(Solver):
    ...     n_iter: int = 0
    ...     start: Start = field(default_factory=lambda: Dirichlet(100, random_state=0))
    ...
    ...     def search(self, weights, targets, starts, *, history, omit_nan, execution, report):
    ...         return reference_invert(weights, targets, starts, n_iter=0, omit_nan=omit_nan)
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> found = invert(bank, np.ones((4, 20)), solver=RandomSearch())  # the best of 100 draws
    >>> found.errors.shape
    (4, 2)
    """

    n_iter: int
    start: Start
    loss: Loss

    @abstractmethod
    def search(
        self,
        weights: Weights,
        targets: Tensor,
        starts: Tensor,
        *,
        history: bool,
        omit_nan: bool,
        execution: Execution,
        report: Report,
    ) -> InvertResult:
        """Search from every start.

        Parameters
        ----------
        weights : Weights
            M modules, frozen.
        targets : Tensor of shape (N, T, O)
            In the weights' dtype, on their device.
        starts : Tensor of shape (M or 1, N or 1, S, K)
            As the targets.
        history : bool
            Whether to return error and latent of every iteration.
        omit_nan : bool
            Whether NaN in the targets are missing values.
        execution : Execution
        report : callable or None
            To be called with the fraction done, now and then.

        Returns
        -------
        InvertResult
            Tensors (M, N, S, ...), histories (n_iter + 1, M, N, S, ...).
        """


SOLVERS: Registry[type[Solver]] = Registry(__name__, "solver", Solver)
