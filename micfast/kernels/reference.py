"""The definition of micfast's algorithm in plain PyTorch: generate and invert.

Every kernel is tested against this file. It is written to be read, and runs on any torch device in
float32 and float64. The cells are in ``reference_cells.py``, what is minimised is in
``reference_objective.py``, the only imports from micfast; training is defined in
``reference_training.py``. Shapes and equations: ``docs/conventions.md``. Letters: M modules, N
targets, T time steps, H hidden units, K inputs (types), O outputs, I iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from micfast.kernels.reference_cells import CELLS
from micfast.kernels.reference_objective import (
    Objective,
    mean_squared_error,
    missing_values,
    project,
    total_weight,
)

__all__ = [
    "OUTPUT_MAPS",
    "InvertResult",
    "Objective",
    "Structure",
    "generate",
    "generate_with_derivatives",
    "invert",
    "invert_lm",
    "mean_squared_error",
    "project",
]

# Adam's error may rise for a few iterations: `tol` looks this many back.
_PATIENCE = 5
# Bounds of Levenberg–Marquardt's relative damping, and of the curvature.
_LEAST_DAMPING, _MOST_DAMPING, _LEAST_CURVATURE = 1e-9, 1e9, 1e-30


class InvertResult(NamedTuple):
    """What :func:`invert` and :func:`invert_lm` return; the histories are empty unless asked for.

    With several starts, N is followed by an axis of length S everywhere.

    Examples
    --------
    >>> import torch
    >>> from micfast import GeneratorBank
    >>> from micfast.kernels import reference
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> starts = torch.eye(3).reshape(1, 1, 3, 3)  # each type is a start
    >>> found = reference.invert(bank.weights, torch.ones(4, 20, 1), starts, n_iter=0)
    >>> found.errors.shape, found.latents.shape
    (torch.Size([2, 4, 3]), torch.Size([2, 4, 3, 3]))
    """

    errors: Tensor  # (M, N)
    latents: Tensor  # (M, N, K)
    n_iter_used: Tensor  # (M, N) int32
    converged: Tensor  # (M, N) bool, whether ``tol`` stopped it
    error_history: Tensor  # (I + 1, M, N)
    latent_history: Tensor  # (I + 1, M, N, K)


class Structure(NamedTuple):
    """What a decoder has beside its five weights.

    ``latent`` says where the latent enters: "first" and "every" (input of that step, through
    W_ih), "state" and "tanh_state" (the initial state is W_ih z + b_state, or its tanh: h_0 alone,
    or h_0 and then c_0). ``output`` is the map that follows the read-out; ``cell`` one of
    ``reference_cells.CELLS``.
    """

    latent: str = "first"
    output: str = "identity"
    cell: str = "lstm"
    b_first: Tensor | None = None  # (M, 4H), added to b in the first step
    b_state: Tensor | None = None  # (M, H) or (M, 2H)
    scale: Tensor | None = None  # (M, O), of the mapped outputs
    shift: Tensor | None = None  # (M, O)

    @property
    def sets_state(self) -> bool:
        """Whether the latent sets the initial state."""
        return self.latent in ("state", "tanh_state")

    @property
    def is_plain(self) -> bool:
        """Whether this is the paper's decoder."""
        return self[:3] == ("first", "identity", "lstm") and all(t is None for t in self[3:])


_PLAIN = Structure()
_MEAN_SQUARED_ERROR = Objective()
OUTPUT_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
    "softplus": torch.nn.functional.softplus,
}
# Their derivatives as functions of (x, map(x)).
_SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda x, y: torch.ones_like(x),
    "tanh": lambda x, y: 1 - y.square(),
    "sigmoid": lambda x, y: y * (1 - y),
    "exp": lambda x, y: y,
    "softplus": lambda x, y: torch.sigmoid(x),
}


def _initial_state(
    W_ih: Tensor, latents: Tensor, hidden_size: int, structure: Structure
) -> tuple[Tensor, Tensor]:
    """h_0 and c_0 (M, N, H)."""
    zero = latents.new_zeros(*latents.shape[:2], hidden_size)
    if not structure.sets_state:
        return zero, zero
    state = latents @ W_ih.mT
    if structure.b_state is not None:
        state = state + structure.b_state[:, None, :]
    if structure.latent == "tanh_state":
        state = torch.tanh(state)
    h, c = state[..., :hidden_size], state[..., hidden_size:]
    return h, h if structure.cell == "gru" else c if c.shape[-1] else zero


def _constants(structure: Structure) -> tuple[Tensor | float, Tensor | float]:
    scale, shift = structure.scale, structure.shift
    return (
        1.0 if scale is None else scale[:, None, None, :],
        0.0 if shift is None else shift[:, None, None, :],
    )


def generate(
    weights: Iterable[Tensor],
    latents: Tensor,
    n_steps: int,
    structure: Structure = _PLAIN,
) -> Tensor:
    """Draw one sequence per module and latent.

    Parameters
    ----------
    weights : five Tensors
        W_ih (M, 4H, K), W_hh (M, 4H, H), b (M, 4H), W_out (M, O, H), b_out (M, O) of M modules;
        gate blocks in the order i, f, g, o; ``b`` is the sum of torch's two bias vectors. Of a GRU
        r, z, and the two parts of n: what the input adds, and what the state adds and r scales.
    latents : Tensor of shape (M, N, K)
        Input at the first time step; the input of every later step is zero (or see `structure`).
    n_steps : int
        Length T of the sequences.
    structure : Structure
        Where the latent enters instead, and what follows the read-out. Where the latent sets the
        initial state, W_ih has shape (M, H, K) or (M, 2H, K).

    Returns
    -------
    Tensor of shape (M, N, T, O)
        Differentiable by autograd in every tensor argument.

    Examples
    --------
    >>> import torch
    >>> from micfast import GeneratorBank
    >>> from micfast.kernels import reference
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> drawn = reference.generate(bank.weights, torch.eye(3).expand(2, 3, 3), n_steps=20)
    >>> drawn.shape, bool(torch.allclose(drawn, bank.generate(torch.eye(3), 20), atol=1e-5))
    (torch.Size([2, 3, 20, 1]), True)
    """
    W_ih, W_hh, b, W_out, b_out = weights
    h, c = _initial_state(W_ih, latents, W_hh.shape[-1], structure)
    outputs = []
    for t in range(n_steps):
        a = h @ W_hh.mT + b[:, None, :]
        if t == 0 and structure.b_first is not None:
            a = a + structure.b_first[:, None, :]
        if structure.latent == "every" or (t == 0 and structure.latent == "first"):
            a = a + latents @ W_ih.mT
        h, c = CELLS[structure.cell].step(a, c)
        outputs.append(h @ W_out.mT + b_out[:, None, :])
    drawn = torch.stack(outputs, dim=2)
    if structure.output != "identity":
        drawn = OUTPUT_MAPS[structure.output](drawn)
    if structure.scale is not None or structure.shift is not None:
        scale, shift = _constants(structure)
        drawn = scale * drawn + shift
    return drawn


def generate_with_derivatives(
    weights: Iterable[Tensor],
    latents: Tensor,
    n_steps: int,
    structure: Structure = _PLAIN,
) -> tuple[Tensor, Tensor]:
    """As :func:`generate`, with the derivatives of the outputs by the latents, in forward mode.

    Returns
    -------
    outputs : Tensor of shape (M, N, T, O)
    derivatives : Tensor of shape (M, N, T, O, K)
    """
    W_ih, W_hh, b, W_out, b_out = weights
    H = W_hh.shape[-1]
    h, c = _initial_state(W_ih, latents, H, structure)
    # A leading axis of the K directions: dh[k] is the derivative of h by latents[..., k].
    from_latent = W_ih.permute(2, 0, 1)[:, :, None, :]
    dh = h.new_zeros(latents.shape[-1], *h.shape)
    dc = torch.zeros_like(dh)
    if structure.sets_state:
        dh, dc = dh + from_latent[..., :H], dc + from_latent[..., H:] if W_ih.shape[1] > H else dc
        if structure.latent == "tanh_state":
            dh, dc = dh * (1 - h.square()), dc * (1 - c.square())
        dc = dh if structure.cell == "gru" else dc
    outputs, derivatives = [], []
    for t in range(n_steps):
        a, da = h @ W_hh.mT + b[:, None, :], dh @ W_hh.mT
        if t == 0 and structure.b_first is not None:
            a = a + structure.b_first[:, None, :]
        if structure.latent == "every" or (t == 0 and structure.latent == "first"):
            a = a + latents @ W_ih.mT
            da = da + from_latent
        h, c, dh, dc = CELLS[structure.cell].step_along(a, c, da, dc)
        outputs.append(h @ W_out.mT + b_out[:, None, :])
        derivatives.append(dh @ W_out.mT)
    x, dx = torch.stack(outputs, dim=2), torch.stack(derivatives, dim=3).movedim(0, -1)
    if structure.is_plain:
        return x, dx
    scale, shift = _constants(structure)
    y = OUTPUT_MAPS[structure.output](x)
    return scale * y + shift, (scale * _SLOPES[structure.output](x, y))[..., None] * dx


def invert(
    weights: Iterable[Tensor],
    targets: Tensor,
    init: Tensor,
    n_iter: int = 50,
    lr: float = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.99,
    eps: float = 1e-8,
    unprojected_error: bool = False,
    return_history: bool = False,
    tol: float = 0.0,
    omit_nan: bool = False,
    structure: Structure = _PLAIN,
    objective: Objective = _MEAN_SQUARED_ERROR,
    *,
    simplex: bool = True,
    bias_correction: bool = False,
    schedule: Tensor | None = None,
    draw: Callable[[Tensor], Tensor] | None = None,
) -> InvertResult:
    """Find, for every module and target, the input vector that best reconstructs the target.

    Projected Adam. Each of the ``n_iter`` iterations projects the latent (:func:`project`), takes
    the gradient of the mean squared error there (the projection itself is not differentiated) and
    steps.

    Parameters
    ----------
    weights : five Tensors
        As in :func:`generate`; frozen.
    targets : Tensor of shape (N, T, O), or (M, N, T, O)
        Sequences to reconstruct, or each module's own. One that holds NaN or infinity has error
        NaN.
    init : Tensor of shape (M or 1, N or 1, K) or (M or 1, N or 1, S, K)
        Where the latents start; S starts are searched apart, and every result has their axis.
    n_iter : int
        Iterations; 0 measures the error at the projected start.
    lr, beta1, beta2, eps : float
        Adam's settings.
    unprojected_error : bool
        Measure the final error before the last projection, as the paper's code does; the latents
        returned are projected all the same.
    return_history : bool
        Also return error and (projected) latent before every step and at the end.
    tol : float
        Where positive, a latent is left as it is once five iterations have lowered its lowest
        error by no more than this part of it.
    omit_nan : bool
        Treat NaN in ``targets`` as missing values: errors are means over the others, NaN for a
        target that holds nothing else. A shorter target is one that ends in NaN.
    structure : Structure
        As in :func:`generate`.
    objective : Objective
        What is minimised in place of the mean squared error, and the box of the latents.
    simplex : bool
        Whether to project; if not, latents are where the objective puts them, or free.
    bias_correction : bool
        Divide the moments by ``1 - beta^i`` in iteration i = 1, 2, ..., as ``torch.optim.Adam``.
    schedule : Tensor of shape (n_iter,), optional
        By what ``lr`` is multiplied in each iteration.
    draw : callable, optional
        Draws (M, N, T, O) from latents (M, N, K) in place of :func:`generate`.

    Returns
    -------
    InvertResult
        ``errors`` (M, N): the objective's, by default :func:`mean_squared_error`; ``latents``
        (M, N, K).

    Examples
    --------
    >>> import torch
    >>> from micfast import GeneratorBank
    >>> from micfast.kernels import reference
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> start = torch.full((1, 1, 3), 1 / 3)
    >>> reference.invert(bank.weights, torch.ones(4, 20, 1), start, n_iter=5).errors.shape
    torch.Size([2, 4])
    """
    weights = [w.detach() for w in weights]
    z, targets, shape = _expand_starts(len(weights[0]), targets, init)
    T = targets.shape[-2]

    def error(z: Tensor) -> Tensor:
        outputs = generate(weights, z, T, structure) if draw is None else draw(z)
        return objective.error(outputs, targets, z, omit_nan)

    m, v = torch.zeros_like(z), torch.zeros_like(z)
    moving = torch.ones_like(z[..., 0], dtype=torch.bool)
    n_iter_used = torch.full_like(moving, n_iter, dtype=torch.int32)
    error_history, latent_history = [], []
    for i in range(n_iter):
        with torch.enable_grad():
            z = objective.constrain(z, simplex).requires_grad_(True)
            loss = error(z)
            # Each loss depends on its own latent alone, so the gradient of the sum holds them all.
            (g,) = torch.autograd.grad(loss.sum(), z)
        z, loss = z.detach(), loss.detach()
        if return_history:
            error_history.append(loss)
            latent_history.append(z)
        if tol > 0:
            if i == 0:
                lowest = lowest_before = loss
            lowest = torch.minimum(lowest, loss)
            if i > 0 and i % _PATIENCE == 0:
                stops = moving & ~(lowest_before - lowest > tol * lowest_before)
                n_iter_used[stops] = i
                moving = moving & ~stops
                lowest_before = lowest
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g.square()
        rate = lr if schedule is None else lr * schedule[i]
        step = rate * m / (v.sqrt() + eps)
        if bias_correction:
            v_corrected = v / (1 - beta2 ** (i + 1))
            step = rate * m / (1 - beta1 ** (i + 1)) / (v_corrected.sqrt() + eps)
        z = torch.where(moving[..., None], z - step, z)
    with torch.no_grad():
        latents = objective.constrain(z, simplex)
        errors = error(z if unprojected_error else latents)
    error_history.append(errors)
    latent_history.append(latents)
    converged = ~moving & ~errors.isnan()
    return _pack_result(
        errors,
        latents,
        n_iter_used,
        converged,
        error_history,
        latent_history,
        shape,
        return_history,
    )


def _expand_starts(
    n_modules: int, targets: Tensor, init: Tensor
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Starts (M, N S, K), targets (..., N S, T, O) with them, and the shape of the errors."""
    N = targets.shape[-3]
    S, K = init.shape[2] if init.dim() == 4 else 1, init.shape[-1]
    shape = (n_modules, N, S) if init.dim() == 4 else (n_modules, N)
    z = init.detach().expand(*shape, K).reshape(n_modules, N * S, K).clone()
    return z, targets.repeat_interleave(S, dim=-3), shape


def _pack_result(
    errors: Tensor,
    latents: Tensor,
    n_iter_used: Tensor,
    converged: Tensor,
    error_history: list[Tensor],
    latent_history: list[Tensor],
    shape: tuple[int, ...],
    return_history: bool,
) -> InvertResult:
    K, n_rows = latents.shape[-1], len(error_history) if return_history else 0
    histories = (errors.new_empty(0), errors.new_empty(0))
    if return_history:
        histories = torch.stack(error_history), torch.stack(latent_history)
    return InvertResult(
        errors.reshape(shape),
        latents.reshape(*shape, K),
        n_iter_used.reshape(shape),
        converged.reshape(shape),
        histories[0].reshape(n_rows, *shape),
        histories[1].reshape(n_rows, *shape, K),
    )


def invert_lm(
    weights: Iterable[Tensor],
    targets: Tensor,
    init: Tensor,
    n_iter: int = 8,
    damping: float = 0.1,
    simplex: bool = True,
    return_history: bool = False,
    tol: float = 0.0,
    omit_nan: bool = False,
    structure: Structure = _PLAIN,
    objective: Objective = _MEAN_SQUARED_ERROR,
) -> InvertResult:
    """As :func:`invert`, by the Levenberg–Marquardt method: damped Gauss-Newton steps.

    Around the best latent z so far, with residuals r and their derivatives J, each iteration
    minimises ``|r + J d|^2 + mu |d|^2`` over the step d and measures the error there. A step that
    lowers it is kept. The damping ``mu`` is relative to the mean curvature, and adapts by Nielsen's
    rule (report IMM-REP-1999-05).

    Parameters
    ----------
    weights, targets, init
        As in :func:`invert`.
    n_iter : int
        Steps; each measures one new point. 0 measures the error at the start.
    damping : float
        At the start, relative.
    simplex : bool
        Keep the latents non-negative with sum 1: the start is projected, and of a step that would
        leave, the components that turn negative are set to 0 and the others solved again. Without
        it latents stay within the objective's bounds, in the same way, or are free.
    return_history : bool
        Also return the lowest error so far, and its latent, before every step and at the end.
    tol : float
        Where positive, a search ends with a step that lowers the error by no more than this part of
        it, or fails where its model promises no more.
    omit_nan : bool
        As in :func:`invert`.
    structure : Structure
        As in :func:`generate`.
    objective : Objective
        As in :func:`invert`; the roots of the weights belong to the residuals, and a prior adds
        residuals.

    Returns
    -------
    InvertResult
        The lowest errors and their latents.

    Examples
    --------
    >>> import torch
    >>> from micfast import GeneratorBank
    >>> from micfast.kernels import reference
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> start = torch.full((1, 1, 3), 1 / 3)
    >>> found = reference.invert_lm(
    ...     bank.weights, torch.ones(4, 20, 1), start, n_iter=3, return_history=True
    ... )
    >>> bool((found.error_history[1:] <= found.error_history[:-1]).all())
    True
    """
    weights = [w.detach() for w in weights]
    x, targets, shape = _expand_starts(len(weights[0]), targets, init)
    T = targets.shape[-2]
    missing = missing_values(targets) if omit_nan else torch.zeros_like(targets, dtype=torch.bool)
    total = total_weight(missing, objective.weights)
    roots = None if objective.weights is None else objective.weights.sqrt()
    prior = objective.prior_weight * total.double()
    eye = torch.eye(x.shape[-1], dtype=torch.float64, device=x.device)
    targets = torch.where(missing, 0, targets)
    invalid = ~torch.isfinite(targets).all(dim=-1).all(dim=-1)

    def measure(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Error, J'J and J'r in float64."""
        outputs, derivatives = generate_with_derivatives(weights, x, T, structure)
        if omit_nan:
            outputs = torch.where(missing, 0, outputs)
            derivatives = torch.where(missing[..., None], 0, derivatives)
        residuals = outputs - targets
        if roots is not None:
            residuals, derivatives = roots * residuals, roots[..., None] * derivatives
        r, J = residuals.flatten(2), derivatives.flatten(2, 3)
        error = r.square().sum(dim=-1).double() / total
        A, g = (J.mT @ J).double(), (J.mT @ r[..., None])[..., 0].double()
        if objective.prior_weight:
            from_mean = objective.from_mean(x).double()
            error = error + objective.prior_weight * from_mean.square().sum(dim=-1)
            A, g = A + prior[..., None, None] * eye, g + prior[..., None] * from_mean
        return error.masked_fill(invalid, torch.nan), A, g

    x = objective.constrain(x, simplex)
    z, (error, A, g) = x, measure(x)
    damping_now, growth = torch.full_like(error, damping), torch.full_like(error, 2.0)
    finished, converged = error.isnan(), torch.zeros_like(error, dtype=torch.bool)
    n_iter_used = torch.zeros_like(error, dtype=torch.int32)
    error_history, latent_history = [error], [z]
    for i in range(1, n_iter + 1):
        mu = (damping_now * _mean_curvature(A, simplex)).clamp_min(_LEAST_CURVATURE)
        d = _damped_step(A, g, z.double(), mu, simplex, objective.bounds)
        change = 2 * g * d + d * (A @ d[..., None])[..., 0]
        predicted = -change.sum(dim=-1) / total
        x = z.double() + d
        if simplex:
            x = x.clamp_min(0)
            x = x / x.sum(dim=-1, keepdim=True)
        x = objective.constrain(x, False)
        x = x.to(z.dtype)
        error_x, A_x, g_x = measure(x)

        decrease = error - error_x
        better, worse = ~finished & (decrease > 0), ~finished & ~(decrease > 0)
        factor = (1 - (2 * decrease / predicted - 1) ** 3).clamp_min(1 / 3)
        damping_now = torch.where(
            better, (damping_now * factor).clamp_min(_LEAST_DAMPING), damping_now
        )
        damping_now = torch.where(
            worse, (damping_now * growth).clamp_max(_MOST_DAMPING), damping_now
        )
        growth = torch.where(worse, 2 * growth, torch.where(better, 2.0, growth))
        n_iter_used = torch.where(finished, n_iter_used, i)
        if tol > 0:
            gain = torch.where(better, decrease, predicted)
            converged = converged | (~finished & (gain <= tol * error))
        z = torch.where(better[..., None], x, z)
        error = torch.where(better, error_x, error)
        A = torch.where(better[..., None, None], A_x, A)
        g = torch.where(better[..., None], g_x, g)
        finished = finished | converged
        error_history.append(error)
        latent_history.append(z)
    return _pack_result(
        error.to(z.dtype),
        z,
        n_iter_used,
        converged,
        [e.to(z.dtype) for e in error_history],
        latent_history,
        shape,
        return_history,
    )


def _mean_curvature(A: Tensor, simplex: bool) -> Tensor:
    """Mean eigenvalue of A (..., K, K); on the simplex, of A in the plane of constant sum."""
    K = A.shape[-1]
    trace = A.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    if not simplex:
        return trace / K
    return (trace - A.sum(dim=(-2, -1)) / K) / max(K - 1, 1)


def _damped_step(
    A: Tensor, g: Tensor, z: Tensor, mu: Tensor, simplex: bool, bounds: Tensor | None = None
) -> Tensor:
    """Minimise ``2 g d + d (A + mu) d`` over d (..., K); on the simplex, see :func:`invert_lm`."""
    K = A.shape[-1]
    eye = torch.eye(K, dtype=A.dtype, device=A.device)
    if not simplex and bounds is None:
        return _solve(A + mu[..., None, None] * eye, -g)
    lowest, highest = bounds if bounds is not None else (A.new_zeros(K), A.new_full((K,), math.inf))
    free = torch.ones_like(z, dtype=torch.bool)
    fixed = torch.zeros_like(z)
    for _ in range(K + 1):
        right = -(g + (A @ fixed[..., None])[..., 0])
        # Rows and columns of the fixed ones are those of the unit matrix.
        both = free[..., None] & free[..., None, :]
        B = torch.where(both, A + mu[..., None, None] * eye, eye)
        x = _solve(B, torch.where(free, right, 0))
        if simplex:  # The others take over what the fixed ones give up.
            x2 = _solve(B, free.to(A.dtype))
            shift = (-fixed.sum(dim=-1) - x.sum(dim=-1)) / x2.sum(dim=-1)
            x = x + shift[..., None] * x2
        d = torch.where(free, x, fixed)
        stays = free & ~(z + d < lowest) & ~(z + d > highest)
        if bool((stays == free).all()):
            break
        # Inputs that would leave go to where they may just be.
        fixed = torch.where(free & ~stays, torch.clamp(z + d, lowest, highest) - z, fixed)
        free = stays
    return d


def _solve(B: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve_ex(B, right)[0]
