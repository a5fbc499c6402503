"""The definition of training by the Levenberg-Marquardt method, in plain PyTorch.

Damped Gauss-Newton steps of the LSTM's weights; the read-out is solved exactly
(``reference_projected.py``) and eliminated from the normal equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from micfast.kernels.reference_cells import CELLS
from micfast.kernels.reference_projected import (
    LEAST_BIAS_CURVATURE,
    ReadOut,
    hidden_states,
    row_weights,
    solve_read_out,
)

__all__ = ["Stop", "TrainLMResult", "train_lm"]

_LEAST_DAMPING, _MOST_DAMPING = 1e-9, 1e8
# Curvature that a weight has at least, relative to the mean.
_LEAST_SCALE = 1e-6
# A search has stalled that gains less than this part of its error in so many Jacobians.
_LEAST_GAIN, _PATIENCE = 0.01, 10
# Second derivatives: step of the difference, in units of the step; most that an acceleration may
# be of the step, squared.
_DIFFERENCE, _MOST_ACCELERATION = 0.1, 0.5


class Stop(IntEnum):
    """Why a module's training ended."""

    GOAL = 0  # its error is at most the goal
    JACOBIANS = 1  # their number is used up
    STALLED = 2  # less than 1 % gained in 10 Jacobians
    NO_STEP = 3  # no step lowers the error, however short
    NOT_FINITE = 4  # NaN or infinity at the start


class TrainLMResult(NamedTuple):
    """What :func:`train_lm` returns."""

    W_ih: Tensor  # (M, 4H, K)
    W_hh: Tensor  # (M, 4H, H)
    b: Tensor  # (M, 4H)
    W_out: Tensor  # (M, O, H)
    b_out: Tensor  # (M, O)
    errors: Tensor  # (M,), relative error at the latents
    n_jacobians: Tensor  # (M,) int32
    stops: Tensor  # (M,) int32, a Stop
    error_curve: Tensor  # (M, max_jacobians + 1), before each Jacobian; then constant


class _Point(NamedTuple):
    """One module's LSTM weights, flat and in the order of W_ih, W_hh, b, and what they draw."""

    theta: Tensor
    h: Tensor  # (L, T, H)
    read_out: ReadOut
    error: float


class _Module:
    """One module's data: what its weights are measured on."""

    def __init__(
        self,
        shapes: Sequence[torch.Size],
        latents: Tensor,
        targets: Tensor,
        variance: Tensor,
        ridge: float,
        omit_nan: bool,
    ) -> None:
        self.shapes, self.latents, self.targets = shapes, latents[None], targets[None]
        self.row_weight = row_weights(self.targets, variance[None], omit_nan)
        self.ridge, self.omit_nan = ridge, omit_nan
        known = ~self.targets.isnan() if omit_nan else torch.ones_like(self.targets).bool()
        # Square roots of the weights of single values (L, T, O).
        self.root = (self.row_weight[..., None, None] * known).sqrt()[0]

    def weights(self, theta: Tensor) -> list[Tensor]:
        parts = theta.split([shape.numel() for shape in self.shapes])
        return [part.view(1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def states(self, theta: Tensor) -> Tensor:
        return hidden_states(self.weights(theta), self.latents, self.targets.shape[2])[0]

    def derivatives(self, theta: Tensor) -> Tensor:
        """Derivatives of the states by all weights (L, T, H, P), in forward mode."""
        W_ih, W_hh, b = self.weights(theta)
        x, eye = self.latents[0], torch.eye(len(b[0]), dtype=theta.dtype, device=theta.device)
        h = x.new_zeros(len(x), W_hh.shape[2])
        c, dh = torch.zeros_like(h), h.new_zeros(len(theta), *h.shape)
        dc, by_step = torch.zeros_like(dh), []
        for t in range(self.targets.shape[2]):
            a, da = h @ W_hh[0].T + b[0], dh @ W_hh[0].T
            if t == 0:
                a = a + x @ W_ih[0].T
            # What a pre-activation changes by directly: the input of its own weight.
            inputs = (x if t == 0 else torch.zeros_like(x), h, torch.ones_like(h[:, :1]))
            da += torch.cat([torch.einsum("gr,lj->gjlr", eye, v).flatten(0, 1) for v in inputs])
            h, c, dh, dc = CELLS["lstm"].step_along(a, c, da, dc)
            by_step.append(dh)
        return torch.stack(by_step).permute(2, 0, 3, 1)

    def measure(self, theta: Tensor) -> _Point:
        h = self.states(theta)
        read_out = solve_read_out(h[None], self.targets, self.row_weight, self.ridge, self.omit_nan)
        return _Point(theta, h, read_out, float(read_out.errors))

    def residuals(self, theta: Tensor, W_out: Tensor, b_out: Tensor) -> Tensor:
        """Weighted residuals (L, T, O) of another read-out, float64."""
        r = (self.states(theta) @ W_out.mT + b_out - self.targets[0]).double()
        return torch.where(self.root == 0, 0, r * self.root)


class _NormalEquations:
    """The Gauss-Newton model of |r|^2 around a point, with the read-out eliminated.

    Unknowns are the LSTM's weights (P of them) and, in every channel, the read-out (H + 1).
    """

    def __init__(self, module: _Module, point: _Point) -> None:
        W_out = point.read_out.W_out[0]
        dh = module.derivatives(point.theta)
        J = torch.einsum("oh,lthp->ltop", W_out, dh).double() * module.root[..., None]
        J = torch.where(module.root[..., None] == 0, 0, J)
        phi = torch.cat([point.h, torch.ones_like(point.h[..., :1])], dim=-1).double()
        self.J = J.permute(2, 0, 1, 3).flatten(1, 2)  # (O, L T, P)
        self.phi = (phi[:, :, None] * module.root[..., None]).permute(2, 0, 1, 3).flatten(1, 2)
        G = self.phi.mT @ self.phi
        curvature = G.new_full((G.shape[-1],), module.ridge)
        curvature[-1] = LEAST_BIAS_CURVATURE
        self.B = self.J.mT @ self.phi  # (O, P, H + 1)
        self.factor = torch.linalg.cholesky(G + torch.diag(curvature))
        A = (self.J.mT @ self.J).sum(dim=0)
        self.diagonal = A.diagonal().clone()
        self.A = A - (self.B @ torch.cholesky_solve(self.B.mT, self.factor)).sum(dim=0)
        self.gradient = self.pull_back(module.root * point.read_out.residuals[0].double())

    def pull_back(self, r: Tensor) -> Tensor:
        """J' r (P,) of residuals (L, T, O)."""
        return (self.J.mT @ self._by_channel(r)).sum(dim=0)[:, 0]

    def pull_back_eliminated(self, r: Tensor) -> Tensor:
        """J' r, less what the read-out takes over."""
        onto = self.phi.mT @ self._by_channel(r)
        return (
            self.pull_back(r) - (self.B @ torch.cholesky_solve(onto, self.factor)).sum(dim=0)[:, 0]
        )

    def read_out_step(self, step: Tensor) -> Tensor:
        """How the read-out (O, H + 1) answers a step of the LSTM's weights."""
        return -torch.cholesky_solve(self.B.mT @ step[:, None], self.factor)[..., 0]

    @staticmethod
    def _by_channel(r: Tensor) -> Tensor:
        return r.flatten(0, 1).mT[..., None]


def _acceleration(
    module: _Module, point: _Point, model: _NormalEquations, step: Tensor, solve: Callable
) -> Tensor:
    """Half the second-order correction of a step (Transtrum and Sethna, arXiv:1201.5885)."""
    dtype, W_out, b_out = point.theta.dtype, point.read_out.W_out[0], point.read_out.b_out[0]
    d_out = model.read_out_step(step).to(dtype)
    sides = []
    for t in (_DIFFERENCE, -_DIFFERENCE):
        moved = W_out + t * d_out[:, :-1], b_out + t * d_out[:, -1]
        sides.append(module.residuals(point.theta + t * step.to(dtype), *moved))
    middle = module.root * point.read_out.residuals[0].double()
    curvature = (sides[0] - 2 * middle + sides[1]) / _DIFFERENCE**2
    return solve(-0.5 * model.pull_back_eliminated(curvature))


def _next_point(
    module: _Module,
    point: _Point,
    model: _NormalEquations,
    scale: Tensor,
    damping: float,
    acceleration: bool,
) -> tuple[_Point | None, float]:
    """The point a damped step leads to (None if there is no step), and the next damping."""
    growth = 2.0
    while damping <= _MOST_DAMPING:
        factor, info = torch.linalg.cholesky_ex(model.A + torch.diag(damping * scale))
        if int(info) == 0:

            def solve(right: Tensor, factor: Tensor = factor) -> Tensor:
                return torch.cholesky_solve(right[:, None], factor)[:, 0]

            step = solve(-model.gradient)
            length = float((scale * step.square()).sum())
            predicted = -float(model.gradient @ step) + damping * length
            if acceleration:
                a = _acceleration(module, point, model, step, solve)
                if float((scale * a.square()).sum()) <= _MOST_ACCELERATION * length:
                    step = step + a
            found = module.measure(point.theta + step.to(point.theta.dtype))
            if found.error < point.error:
                ratio = (point.error - found.error) / predicted
                factor_of_damping = 1 / 5 if ratio > 0.75 else 1 / 2 if ratio > 0.25 else 2
                return found, max(damping * factor_of_damping, _LEAST_DAMPING)
        damping *= growth
        growth *= 2
    return None, damping


def train_lm(
    weights: Sequence[Tensor],
    type_sets: Tensor,
    variances: Tensor,
    set_index: Tensor,
    latents: Tensor,
    shown: Tensor,
    goal: float = 1e-2,
    max_jacobians: int = 30,
    damping: float = 0.1,
    ridge: float = 1e-7,
    acceleration: bool = True,
    omit_nan: bool = False,
    progress: Callable[[float], object] | None = None,
) -> TrainLMResult:
    """Train M modules by the Levenberg-Marquardt method until their error is at most the goal.

    With r the weighted residuals at the best read-out and J their derivatives by the LSTM's
    weights, a step solves ``(A + mu D) d = -J' r``. A is J' J less what the read-out takes over
    (Schur complement); D is the largest diagonal of J' J so far, and at least 1e-6 of its mean
    (Marquardt). The read-out is then solved anew. A step that lowers the error is kept: mu becomes
    mu / 5, mu / 2 or 2 mu as it gained over 3/4, over 1/4 or less of what was predicted. Otherwise
    mu grows by 2, 4, 8, ... until one does.

    Parameters
    ----------
    weights, type_sets, variances, set_index, ridge, omit_nan
        As in :func:`~micfast.kernels.reference_projected.train_projected`.
    latents : Tensor of shape (M, L, K)
        Each module's latents: one-hot codes, or a fixed set of noisy ones. Exact zeros save work.
    shown : int64 Tensor of shape (L,)
        The type that each latent is to draw.
    goal : float
        Relative error at which a module is done.
    max_jacobians : int
        Most steps; 0 solves the read-out alone.
    damping : float
        mu at the start.
    acceleration : bool
        Add the second-order correction to a step where it is at most sqrt(1/2) of it in length.
    progress : callable, optional
        Called with the fraction of modules done.

    Returns
    -------
    TrainLMResult
    """
    M, dtype = len(set_index), weights[0].dtype
    shapes = [w.shape[1:] for w in weights[:3]]
    results, curves = [], weights[0].new_empty(M, max_jacobians + 1)
    for m in range(M):
        s = int(set_index[m])
        module = _Module(shapes, latents[m], type_sets[s][shown], variances[s], ridge, omit_nan)
        with torch.no_grad():
            point = module.measure(torch.cat([w[m].detach().flatten() for w in weights[:3]]))
            errors, mu, scale = [point.error], damping, torch.zeros((), dtype=torch.float64)
            stop = _stop(errors, goal, max_jacobians)
            while stop is None:
                model = _NormalEquations(module, point)
                diagonal = model.diagonal
                scale = torch.maximum(scale, diagonal.clamp_min(_LEAST_SCALE * diagonal.mean()))
                found, mu = _next_point(module, point, model, scale, mu, acceleration)
                errors.append((point if found is None else found).error)
                point = point if found is None else found
                stop = Stop.NO_STEP if found is None else _stop(errors, goal, max_jacobians)
        curves[m] = torch.tensor(
            errors + [errors[-1]] * (max_jacobians + 1 - len(errors)), dtype=dtype
        )
        results.append((point, len(errors) - 1, stop))
        if progress is not None:
            progress((m + 1) / M)
    theta = torch.stack([point.theta for point, _, _ in results])
    trained = [
        part.reshape(M, *shape).clone()
        for part, shape in zip(theta.split([s.numel() for s in shapes], 1), shapes, strict=True)
    ]
    counts = torch.tensor(
        [(n, int(stop)) for _, n, stop in results], dtype=torch.int32, device=theta.device
    )
    return TrainLMResult(
        trained[0],
        trained[1],
        trained[2],
        torch.cat([point.read_out.W_out for point, _, _ in results]),
        torch.cat([point.read_out.b_out for point, _, _ in results]),
        torch.cat([point.read_out.errors for point, _, _ in results]),
        counts[:, 0].clone(),
        counts[:, 1].clone(),
        curves,
    )


def _stop(errors: list[float], goal: float, max_jacobians: int) -> Stop | None:
    """Whether, and why, to stop after the errors before each Jacobian and now."""
    n_jacobians, error = len(errors) - 1, errors[-1]
    if error <= goal:
        return Stop.GOAL
    if not error < float("inf"):
        return Stop.NOT_FINITE
    if n_jacobians == max_jacobians:
        return Stop.JACOBIANS
    if n_jacobians >= _PATIENCE and error > (1 - _LEAST_GAIN) * errors[-1 - _PATIENCE]:
        return Stop.STALLED
    return None
