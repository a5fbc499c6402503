"""The definition of training with an exact read-out, in plain PyTorch: projected Adam.

The outputs are linear in ``W_out`` and ``b_out``, so the best read-out of given hidden states is a
small linear system. Solving it at every step ("variable projection", Golub and Pereyra, SIAM J.
Numer. Anal. 10, 1973) leaves the LSTM's own weights to the gradient. ``reference_lm.py`` builds on
this file. Letters: ``docs/conventions.md``; L latents, each of which shows one of the K types.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from micfast.kernels.reference import generate
from micfast.kernels.reference_training import INPUT_STREAM, TARGET_STREAM, philox_normal

__all__ = [
    "LEAST_BIAS_CURVATURE",
    "ReadOut",
    "TrainProjectedResult",
    "hidden_states",
    "row_weights",
    "solve_read_out",
    "train_projected",
]

_WARM_UP_STEPS = 100
# Keeps the system of a channel without any value solvable; too small to be seen otherwise.
LEAST_BIAS_CURVATURE = 1e-30


class TrainProjectedResult(NamedTuple):
    """What :func:`train_projected` returns."""

    W_ih: Tensor  # (M, 4H, K)
    W_hh: Tensor  # (M, 4H, H)
    b: Tensor  # (M, 4H)
    W_out: Tensor  # (M, O, H)
    b_out: Tensor  # (M, O)
    loss_curve: Tensor  # (M, n_curve), mean relative error of consecutive runs of steps
    errors: Tensor  # (M,), relative error without noise


class ReadOut(NamedTuple):
    """The best read-out of hidden states, and what is left of the targets."""

    W_out: Tensor  # (M, O, H)
    b_out: Tensor  # (M, O)
    residuals: Tensor  # (M, L, T, O), output - target, 0 where a value is missing
    errors: Tensor  # (M,), sum of row weight * residual^2; in the states' graph


def hidden_states(weights: Sequence[Tensor], latents: Tensor, n_steps: int) -> Tensor:
    """States h (M, L, T, H) of the LSTM for latents (M, L, K)."""
    W_ih, W_hh, b = weights[:3]
    M, H = W_hh.shape[0], W_hh.shape[-1]
    eye = torch.eye(H, dtype=W_hh.dtype, device=W_hh.device).expand(M, H, H)
    return generate((W_ih, W_hh, b, eye, W_hh.new_zeros(M, H)), latents, n_steps)


def row_weights(targets: Tensor, variances: Tensor, omit_nan: bool) -> Tensor:
    """What a squared residual of targets (M, L, T, O) counts (M, L), float64.

    ``1 / (L n variance)`` with n the number of a target's values, so that the weighted sum of
    squares is the mean over the L targets of their mean squared error over the variance.
    """
    n_values = (~targets.isnan() if omit_nan else torch.ones_like(targets)).sum(dim=(-2, -1))
    return 1 / (targets.shape[1] * n_values.double() * variances.double()[:, None])


def solve_read_out(
    h: Tensor, targets: Tensor, row_weight: Tensor, ridge: float, omit_nan: bool
) -> ReadOut:
    """Solve the read-out that draws the targets best, by the normal equations in float64.

    With phi = (h, 1), G = sum of w phi phi' and R = sum of w phi y' over latents and steps,
    ``(W_out, b_out)' = (G + ridge diag(1, ..., 1, 0))^-1 R``; each channel sums over its own
    known values.

    Parameters
    ----------
    h : Tensor of shape (M, L, T, H)
    targets : Tensor of shape (M, L, T, O)
        With ``omit_nan``, NaN is a missing value.
    row_weight : float64 Tensor of shape (M, L)
        See :func:`row_weights`.
    ridge : float
    omit_nan : bool

    Returns
    -------
    ReadOut
    """
    H = h.shape[-1]
    missing = targets.isnan() if omit_nan else torch.zeros_like(targets, dtype=torch.bool)
    y = torch.where(missing, 0, targets)
    with torch.no_grad():
        phi = torch.cat([h, torch.ones_like(h[..., :1])], dim=-1).double().flatten(1, 2)
        w = (row_weight[..., None, None] * ~missing).flatten(1, 2)  # (M, L T, O)
        shared = w if omit_nan else w[..., :1]
        G = torch.einsum("mno,mnp,mnq->mopq", shared, phi, phi)
        R = torch.einsum("mno,mnp,mno->mop", w, phi, y.double().flatten(1, 2))
        diagonal = phi.new_full((H + 1,), ridge)
        diagonal[H] = LEAST_BIAS_CURVATURE
        factor, _ = torch.linalg.cholesky_ex(G + torch.diag(diagonal))
        solved = torch.cholesky_solve(R[..., None], factor)[..., 0].to(h.dtype)
        W_out, b_out = solved[..., :H].contiguous(), solved[..., H].contiguous()
    residuals = h @ W_out[:, None].mT + b_out[:, None, None] - y
    residuals = torch.where(missing, 0, residuals)
    errors = (row_weight.to(h.dtype) * residuals.square().sum(dim=(-2, -1))).sum(dim=-1)
    return ReadOut(W_out, b_out, residuals, errors)


def _noisy_step(
    step: int, types: Tensor, fleet: Sequence[tuple[float, float, int]]
) -> tuple[Tensor, Tensor]:
    """Latents (M, K, K) and targets (M, K, T, O) of a step; type k's noise is that of an episode.

    Its number, for the random generator, is ``step * K + k``.
    """
    K, size = types.shape[1], types[0, 0].numel()
    latents, noise = np.zeros((len(fleet), K, K)), np.zeros((len(fleet), K, size))
    for m, (noise_in, noise_out, seed) in enumerate(fleet):
        for k in range(K):
            latents[m, k, k] = 1
            episode = step * K + k
            if noise_in:
                latents[m, k] += noise_in * philox_normal(seed, episode, INPUT_STREAM, K)
            if noise_out:
                noise[m, k] = noise_out * philox_normal(seed, episode, TARGET_STREAM, size)
    x, moved = (torch.as_tensor(a).to(types) for a in (latents.clip(0, 1), noise))
    return x, types + moved.view_as(types)


def train_projected(
    weights: Sequence[Tensor],
    type_sets: Tensor,
    variances: Tensor,
    set_index: Tensor,
    noise_in: Tensor,
    noise_out: Tensor,
    seeds: Tensor,
    n_steps: int,
    lr: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    clip_norm: float = 1.0,
    ridge: float = 1e-6,
    n_curve: int = 100,
    omit_nan: bool = False,
    progress: Callable[[float], object] | None = None,
) -> TrainProjectedResult:
    """Train a fleet of M modules by projected Adam: the read-out is solved at every step.

    Each of the S steps draws all K types from their one-hot codes (plus noise, clipped to [0, 1]),
    solves the read-out (:func:`solve_read_out`), and takes an Adam step (with bias correction) of
    ``W_ih``, ``W_hh`` and ``b`` against the gradient of the relative error, whose norm is clipped.
    The read-out is held fixed in that gradient, which is exact but for the ridge. The learning
    rate of step s is ``lr * min(1, s / 100 + 0.01) * (1 + cos(pi s / S)) / 2``. At the end the
    read-out is solved for the one-hot codes and types without noise.

    Parameters
    ----------
    weights : five Tensors
        Initial weights; of ``W_out`` and ``b_out`` only the shapes matter.
    type_sets : Tensor of shape (S, K, T, O)
    variances : float64 Tensor of shape (S,)
        Variance of each set's types, by which errors are divided; above 0.
    set_index : int64 Tensor of shape (M,)
        Which type set a module learns.
    noise_in, noise_out : float64 Tensor of shape (M,)
        Standard deviations of the noise on latents and targets.
    seeds : int64 Tensor of shape (M,)
    n_steps : int
        0 solves the read-out alone.
    lr, beta1, beta2, eps : float
        Adam's settings.
    clip_norm : float
        Largest norm of a module's gradient; infinity for any.
    ridge : float
        See :func:`solve_read_out`.
    n_curve : int
        Length of the loss curve; at most ``n_steps`` points are returned.
    omit_nan : bool
        Treat NaN in ``type_sets`` as missing values. A shorter type is one that ends in NaN.
    progress : callable, optional
        Called with the fraction of the steps done, after each one.

    Returns
    -------
    TrainProjectedResult
    """
    trained = [w.detach().clone().requires_grad_(True) for w in weights[:3]]
    types = type_sets.detach()[set_index]
    row_weight = row_weights(types, variances[set_index], omit_nan)
    m, v = ([torch.zeros_like(w) for w in trained] for _ in range(2))
    n_curve = min(n_curve, n_steps)
    curve = row_weight.new_zeros(len(types), n_curve)
    counts = row_weight.new_zeros(n_curve)
    fleet = list(zip(noise_in.tolist(), noise_out.tolist(), seeds.tolist(), strict=True))
    for step in range(n_steps):
        latents, targets = _noisy_step(step, types, fleet)
        with torch.enable_grad():
            h = hidden_states(trained, latents, types.shape[2])
            losses = solve_read_out(h, targets, row_weight, ridge, omit_nan).errors
            gradients = torch.autograd.grad(losses.sum(), trained)
        with torch.no_grad():
            squares = [g.square().flatten(1).sum(dim=1) for g in gradients]
            norm = torch.stack(squares).sum(dim=0).sqrt()
            clip = (clip_norm / norm).clamp_max(1)
            rate = lr * min(1, step / _WARM_UP_STEPS + 0.01)
            rate *= (1 + math.cos(math.pi * step / n_steps)) / 2
            correction1, correction2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
            for j, g in enumerate(gradients):
                g = g * clip.view(-1, *[1] * (g.ndim - 1))
                m[j] = beta1 * m[j] + (1 - beta1) * g
                v[j] = beta2 * v[j] + (1 - beta2) * g.square()
                trained[j] -= rate / correction1 * m[j] / (v[j].sqrt() / correction2**0.5 + eps)
        point = step * n_curve // n_steps
        curve[:, point] += losses.detach().double()
        counts[point] += 1
        if progress is not None:
            progress((step + 1) / n_steps)
    trained = [w.detach() for w in trained]
    one_hot = torch.eye(types.shape[1], dtype=types.dtype, device=types.device)
    h = hidden_states(trained, one_hot.expand(len(types), -1, -1), types.shape[2])
    W_out, b_out, _, errors = solve_read_out(h, types, row_weight, ridge, omit_nan)
    loss_curve = (curve / counts).to(types.dtype)
    return TrainProjectedResult(
        trained[0], trained[1], trained[2], W_out, b_out, loss_curve, errors
    )
