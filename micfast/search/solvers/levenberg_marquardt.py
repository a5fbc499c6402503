"""The Levenberg–Marquardt method: damped Gauss-Newton steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from micfast.kernels import calls
from micfast.kernels.execution import Execution
from micfast.kernels.reference import InvertResult
from micfast.kernels.weights import Weights
from micfast.progress import Report
from micfast.search.loss import MEAN_SQUARED_ERROR, Loss, check_constraint
from micfast.search.solvers import SOLVERS, Solver
from micfast.search.starts import start_of
from micfast.settings import check_count, check_number

__all__ = ["LevenbergMarquardt"]


@SOLVERS.register("lm")
@dataclass(frozen=True)
class LevenbergMarquardt(Solver):
    """Damped Gauss-Newton steps, which need a few iterations where Adam needs dozens.

    The equations are in ``docs/conventions.md``; Nielsen's rule adapts the damping (report
    IMM-REP-1999-05).

    Parameters
    ----------
    n_iter : int
        Steps; 0 measures the error at the start.
    damping : float
        Initial damping, relative to the mean curvature; above 0.
    tol : float
        If positive, a search ends with a step that lowers its error by no more than this fraction
        of it.
    constraint : {"simplex", "box"} or None
        Where latents are kept: non-negative with sum 1, within ``bounds``, or free.
    start : str, Start or array of shape (K,), (N, K), (N, M, K) or (N, M, S, K)
        Where searches start, see :mod:`micfast.search.starts`. With several starts, the one with
        the lowest final error is kept.
    bounds : pair, optional
        The lowest and the highest latents of the box: each a number, K numbers, or None where there
        is no limit.
    loss : Loss
        Weights of steps and channels, and a prior on the latent; no Huber loss, which is no sum of
        squares.

    Raises
    ------
    TypeError, ValueError
        For values that are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import GeneratorBank, LevenbergMarquardt, invert
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> X = np.ones((4, 20))
    >>> inside, free = (
    ...     invert(bank, X, solver=LevenbergMarquardt(n_iter=20, constraint=constraint))
    ...     for constraint in ("simplex", None)
    ... )
    >>> bool((free.errors <= inside.errors).all())
    True
    """

    name: ClassVar[str] = "lm"
    n_iter: int = 8
    damping: float = 0.1
    tol: float = 0.0
    constraint: Literal["simplex", "box"] | None = "simplex"
    start: Any = "nearest"
    bounds: Any = None
    loss: Loss = MEAN_SQUARED_ERROR

    def __post_init__(self) -> None:
        where = "LevenbergMarquardt"
        self.set("n_iter", check_count(where, "n_iter", self.n_iter))
        self.set("damping", check_number(where, "damping", self.damping, positive=True))
        self.set("tol", check_number(where, "tol", self.tol))
        self.set("start", start_of(self.start))
        self.set("bounds", check_constraint(where, self.constraint, self.bounds))
        if self.constraint == "sphere":
            raise ValueError(
                f"{where}: constraint must be 'simplex', 'box' or None, got 'sphere', which its "
                "steps would leave; use micfast.Adam"
            )
        if not isinstance(self.loss, Loss):
            raise TypeError(f"{where}: loss must be a Loss, got {self.loss!r}")
        if self.loss.huber is not None:
            raise ValueError(
                f"{where}: loss must have huber=None, got {self.loss.huber!r}: Huber loss is no "
                "sum of squares, which this method minimises; use micfast.Adam"
            )

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
        on_simplex = self.constraint == "simplex"
        settings = (self.n_iter, self.damping, on_simplex, history, self.tol, omit_nan)
        objective = self.loss.objective(targets, starts.shape[-1], self.bounds)
        return calls.search(
            "invert_lm", weights, targets, starts, settings, execution, report, objective
        )
