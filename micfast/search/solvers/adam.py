"""Projected Adam, the paper's solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from micfast.kernels import calls
from micfast.kernels.execution import Execution
from micfast.kernels.reference import InvertResult
from micfast.kernels.weights import Weights
from micfast.progress import Report
from micfast.search.solvers import SOLVERS, Solver
from micfast.search.starts import start_of
from micfast.settings import check_count, check_flag, check_number

__all__ = ["Adam"]


@SOLVERS.register("adam")
@dataclass(frozen=True)
class Adam(Solver):
    """Adam without bias correction; each iteration first projects the latent onto the simplex.

    The algorithm of the paper, whose defaults these are; equations in ``docs/conventions.md``.

    Parameters
    ----------
    n_iter : int
        Iterations; 0 measures the error at the start.
    learning_rate : float
        Step size, relative to latents that sum to 1; above 0.
    betas : tuple of float
        Decay rates of the two moments, each from 0 to below 1.
    eps : float
        Added to the root of the second moment; above 0.
    tol : float
        If positive, a search ends when five iterations have lowered its error by no more than this
        fraction of it.
    unprojected_error : bool
        Measure the final error before the last projection, as the paper's code does.
    start : str, Start or array of shape (K,), (N, K), (N, M, K) or (N, M, S, K)
        Where searches start, see :mod:`micfast.search.starts`. With several starts, the one with
        the lowest final error is kept.

    Raises
    ------
    TypeError, ValueError
        For values that are not as described.
    """

    name: ClassVar[str] = "adam"
    n_iter: int = 50
    learning_rate: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    tol: float = 0.0
    unprojected_error: bool = False
    start: Any = "uniform"

    def __post_init__(self) -> None:
        self.set("n_iter", check_count("Adam", "n_iter", self.n_iter))
        rate = check_number("Adam", "learning_rate", self.learning_rate, positive=True)
        self.set("learning_rate", rate)
        try:
            beta1, beta2 = self.betas
        except (TypeError, ValueError):
            raise ValueError(f"Adam: betas must be two numbers, got {self.betas!r}") from None
        betas = [check_number("Adam", "betas", beta, below=1) for beta in (beta1, beta2)]
        self.set("betas", tuple(betas))
        self.set("eps", check_number("Adam", "eps", self.eps, positive=True))
        self.set("tol", check_number("Adam", "tol", self.tol))
        flag = check_flag("Adam", "unprojected_error", self.unprojected_error)
        self.set("unprojected_error", flag)
        self.set("start", start_of(self.start))

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
        """See :meth:`Solver.search`."""
        adam = (self.learning_rate, *self.betas, self.eps)
        settings = (self.n_iter, *adam, self.unprojected_error, history, self.tol, omit_nan)
        return calls.search("invert", weights, targets, starts, settings, execution, report)
