"""Adam: the paper's projected one, and those of other loops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from micfast.kernels import calls
from micfast.kernels.execution import Execution
from micfast.kernels.reference import InvertResult, Objective
from micfast.kernels.weights import Weights
from micfast.progress import Report
from micfast.search.loss import MEAN_SQUARED_ERROR, Loss, check_constraint, check_numbers
from micfast.search.solvers import SOLVERS, Solver
from micfast.search.starts import start_of
from micfast.settings import check_count, check_flag, check_number

__all__ = ["Adam"]


@SOLVERS.register("adam")
@dataclass(frozen=True)
class Adam(Solver):
    """Adam; each iteration first puts the latent where it may be, as by default onto the simplex.

    The defaults are the paper's algorithm; equations in ``docs/conventions.md``.

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
    constraint : {"simplex", "box", "sphere"} or None
        Where latents are kept: non-negative with sum 1 (clipped to [0, 1] and divided by their
        sum), clipped to ``bounds``, scaled to the length ``radius`` (zeros become equal values), or
        free.
    bounds : pair, optional
        The lowest and the highest latents of the box: each a number, K numbers, or None where there
        is no limit.
    radius : float
        Length (L2 norm) of latents on the sphere.
    bias_correction : bool
        Whether the moments are corrected for their start at 0, as in ``torch.optim.Adam``.
    schedule : {"cosine"} or array of shape (n_iter,), optional
        By what ``learning_rate`` is multiplied in each iteration: ``(1 + cos(pi i / n_iter)) / 2``
        for i = 0, 1, ..., or these numbers.
    loss : Loss
        Weights of steps and channels, a prior on the latent, Huber loss.

    Raises
    ------
    TypeError, ValueError
        For values that are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import Adam, GeneratorBank, invert
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> quick = Adam(n_iter=10, learning_rate=0.1)
    >>> invert(bank, np.ones((4, 20)), solver=quick, history=True).error_history.shape
    (11, 4, 2)
    >>> quick.replace(start="types").n_iter
    10
    """

    name: ClassVar[str] = "adam"
    n_iter: int = 50
    learning_rate: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    tol: float = 0.0
    unprojected_error: bool = False
    start: Any = "uniform"
    constraint: Literal["simplex", "box", "sphere"] | None = "simplex"
    bounds: Any = None
    radius: float = 1.0
    bias_correction: bool = False
    schedule: Any = None
    loss: Loss = MEAN_SQUARED_ERROR

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
        self.set("bounds", check_constraint("Adam", self.constraint, self.bounds))
        self.set("radius", check_number("Adam", "radius", self.radius, positive=True))
        if self.radius != 1 and self.constraint != "sphere":
            raise ValueError(
                f"Adam: radius must be 1 unless constraint='sphere', got {self.radius!r}"
            )
        flag = check_flag("Adam", "bias_correction", self.bias_correction)
        self.set("bias_correction", flag)
        if not (self.schedule is None or _is_cosine(self.schedule)):
            rule = f"None, 'cosine' or n_iter = {self.n_iter} numbers of at least 0"
            factors = check_numbers("Adam", "schedule", self.schedule, rule, (1,))
            if len(factors) != self.n_iter or not (factors >= 0).all():
                raise ValueError(f"Adam: schedule must be {rule}, got {self.schedule!r}")
            self.set("schedule", tuple(factors.tolist()))
        if not isinstance(self.loss, Loss):
            raise TypeError(f"Adam: loss must be a Loss, got {self.loss!r}")

    def arguments(
        self, targets: Tensor, n_inputs: int, history: bool, omit_nan: bool
    ) -> tuple[tuple[Any, ...], Objective, dict[str, Any]]:
        """Settings, objective and loop of :func:`micfast.kernels.calls.search`."""
        adam = (self.learning_rate, *self.betas, self.eps)
        settings = (self.n_iter, *adam, self.unprojected_error, history, self.tol, omit_nan)
        loop: dict[str, Any] = {}
        if self.constraint != "simplex":
            loop["simplex"] = False
        if self.bias_correction:
            loop["bias_correction"] = True
        if self.schedule is not None:
            factors = self.schedule
            if _is_cosine(factors):
                n = self.n_iter
                factors = [(1 + math.cos(math.pi * i / n)) / 2 for i in range(n)]
            loop["schedule"] = torch.tensor(factors, dtype=torch.float64, device="cpu")
        radius = self.radius if self.constraint == "sphere" else None
        return settings, self.loss.objective(targets, n_inputs, self.bounds, radius), loop

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
        settings, objective, loop = self.arguments(targets, starts.shape[-1], history, omit_nan)
        return calls.search(
            "invert", weights, targets, starts, settings, execution, report, objective, **loop
        )


def _is_cosine(schedule: Any) -> bool:
    return isinstance(schedule, str) and schedule == "cosine"
