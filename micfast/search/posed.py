"""The search of latent and pose: solver iterations in turns with Gauss-Newton steps of the pose.

It starts from the pose and the mixture of the types that are nearest in closed form
(:mod:`micfast.search.hull`). Gain and offset are solved in closed form throughout. Sums over a
sequence are exact (:mod:`micfast.search.exact`) and all else is computed number by number, so what
is found for a sequence does not depend, to the bit, on those beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from micfast.generators.bank import GeneratorBank
from micfast.kernels.definition import extents
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.search.exact import Scale, inner, ordered_sum, power_above
from micfast.search.hull import Mixtures
from micfast.search.loss import MEAN_SQUARED_ERROR
from micfast.search.pose import Bounds, Fit, Pose, bounds_of, warp
from micfast.search.solvers import Solver
from micfast.search.starts.nearest import lattice

__all__ = ["PosedResult", "search_posed"]

# Steps and groups of channels by which a pose is improved, about.
_N_STEPS, _N_CHANNELS = 48, 8
# Numbers of drawings at work at a time.
_NUMBERS = 2**20
# Latents whose drawings are compared for a start, at most.
_N_LATENTS = 40
# Turns of the solver and of the pose, the part of its iterations that the solver does in each (from
# so good a start, as good as half of them), and the damping of the pose's step.
_TURNS, _PART, _DAMPING = 2, 3 / 8, 1e-3


class PosedResult(NamedTuple):
    """Latents (M, N, K), and how the drawings from them lie over the sequences."""

    latents: Tensor
    fit: Fit


class _Drawings(NamedTuple):
    """Latents (G, K) and what M modules draw from them: integers (M, G, T O), and quanta (M,).

    ``squares`` (M, T, G) are the sums of the integers' squares up to each step.
    """

    latents: Tensor
    fixed: Tensor
    quantum: Tensor
    squares: Tensor


class _Targets(NamedTuple):
    """Sequences in V views, with what is summed over them; ``known`` is None where all is.

    ``gaps``: whether values are missing before a sequence's end.
    """

    x: Tensor  # (V, 1, N, T, O)
    last: Tensor  # (V, 1, N, 1), the last step
    known: Tensor | None
    gaps: bool
    scale: Scale  # (V, 1, N)
    fixed: Tensor  # as x, in units of the scale, 0 where a value is missing
    squares: Tensor  # (V, 1, N)
    per_channel: Tensor  # (V, 1, N, O), at least 1
    n_known: Tensor  # (V, 1, N), at least 1

    @classmethod
    def of(cls, targets: Tensor) -> _Targets:
        lengths, counts = extents(targets)
        lengths = lengths.clamp_min(1)
        x, known = targets[:, None], ~targets[:, None].isnan()
        scale = Scale.of(x.nan_to_num(0).abs().flatten(-2).amax(dim=-1), counts[:, None])
        fixed = scale.integers(scale.in_units(x)).nan_to_num_(0)
        return cls(
            x=x,
            last=(lengths - 1)[:, None, :, None].to(x),
            known=None if bool(known.all()) else known,
            gaps=bool((counts != lengths * x.shape[-1]).any()),
            scale=scale,
            fixed=fixed,
            squares=inner(fixed, fixed),
            per_channel=known.sum(dim=-2).clamp_min(1).double(),
            n_known=counts[:, None].clamp_min(1).double(),
        )


def _steps(x: Tensor) -> Tensor:
    return torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)


def _times(t: Tensor, shift: Tensor, tempo: Tensor) -> Tensor:
    """The drawings' times (V, M, N, T) at the sequences' steps."""
    return tempo[..., None].to(t) * (t - shift[..., None].to(t))


def _lay(own: _Targets, y: Tensor, shift: Tensor, tempo: Tensor, bounds: Bounds) -> Fit:
    """Gain, offset and error of drawings (V, M, N, T, O) in a pose (V, M, N)."""
    posed = warp(own.scale.in_units(y), _times(_steps(y), shift, tempo), own.last)[0]
    posed, quantum = own.scale.integers(posed), own.scale.quantum
    if own.known is not None:
        posed.masked_fill_(~own.known, 0)
    yy, xy = inner(posed, posed), inner(posed, own.fixed)
    most, limit = bounds.gain, bounds.offset[..., None] / quantum[..., None]
    offset = torch.zeros_like(posed[..., 0, :])
    if not bounds.has_offsets:
        gain = (xy / yy.clamp_min(1)).clamp(1 / most, most)
        error = own.squares - gain * (2 * xy - gain * yy)
    else:
        n, sx, sy = own.per_channel, own.fixed.sum(dim=-2), posed.sum(dim=-2)
        free = bounds.offset > 0
        xyc = torch.where(free, xy - ordered_sum(sx * sy / n, -1), xy)
        yyc = torch.where(free, yy - ordered_sum(sy * sy / n, -1), yy)
        gain = (xyc / yyc.clamp_min(1)).clamp(1 / most, most)
        rest = sx - gain[..., None] * sy
        offset = torch.minimum(torch.maximum(rest / n, -limit), limit)
        error = own.squares - gain * (2 * xy - gain * yy)
        error = error - ordered_sum(offset * (2 * rest - n * offset), -1)
        offset = offset * quantum[..., None]
    error = error.clamp_min(0) * quantum.square() / own.n_known
    return Fit(error * bounds.factor(shift, tempo), shift, tempo, gain, offset)


def _grouped(x: Tensor) -> Tensor:
    """At most 8 sums of neighbouring channels (..., G)."""
    size = -(-x.shape[-1] // _N_CHANNELS)
    if size == 1:
        return x
    groups = x[..., ::size].clone()
    for i in range(1, size):
        part = x[..., i::size]
        groups[..., : part.shape[-1]] += part
    return groups


class _Sketch:
    """Sequences at every few steps and in a few channels: enough to tell a pose by."""

    def __init__(self, own: _Targets, bounds: Bounds) -> None:
        step = ((own.last + 1) / _N_STEPS).floor().clamp_min(1)
        first = (step / 2).floor()
        n_steps = int((((own.last - first) / step).floor() + 1).max())
        t = first + step * torch.arange(n_steps, device=step.device, dtype=step.dtype)
        x = _grouped(own.x.take_along_dim(t.minimum(own.last).long()[..., None], dim=-2))
        known = (t <= own.last)[..., None] & ~x.isnan()
        x = torch.where(known, x, 0)
        counts = known.flatten(-2).sum(dim=-1)
        scale = Scale.of(x.abs().flatten(-2).amax(dim=-1), counts)
        self.t, self.last, self.bounds = t, own.last, bounds
        self.known = None if bool(known.all()) else known.to(x)
        self.scale, self.fixed = scale, scale.integers(scale.in_units(x))
        # Of slopes, these times t, drawings and sequences.
        span = power_above(own.last[..., 0])
        self.levels = torch.stack([scale.levels, scale.levels / span] + 2 * [scale.levels], dim=-1)
        self.n = known.sum(dim=-2).clamp_min(1).double()[:, :, :, None, None]

    def products(
        self, y: Tensor, shift: Tensor, tempo: Tensor, with_slopes: bool = False
    ) -> Tensor:
        """Inner products (V, M, N, 2, 2) of drawings and sequences.

        Of shape (V, M, N, 4, 4) with slopes, before them those and those times t.
        """
        posed, slope = warp(y, _times(self.t, shift, tempo), self.last, with_slopes)
        rows = [slope, slope * self.t[..., None], posed] if with_slopes else [posed]
        levels = self.levels[..., -1 - len(rows) :]
        F = self.fixed.new_empty(*posed.shape[:3], len(rows) + 1, *posed.shape[3:])
        for i, row in enumerate(rows):
            row.mul_(levels[..., i, None, None].to(row)).round_()
            F[:, :, :, i] = row if self.known is None else row.mul_(self.known)
        F[:, :, :, -1] = self.fixed
        flat = F.flatten(-2)
        products = flat @ flat.mT
        if self.bounds.has_offsets:
            sums = F.sum(dim=-2)
            centred = products - ordered_sum(
                sums[..., :, None, :] * sums[..., None, :, :] / self.n, -1
            )
            free = self.bounds.offset[..., None, None] > 0
            products = torch.where(free, centred, products)
        quanta = self.scale.unit[..., None] / levels
        return products * (quanta[..., :, None] * quanta[..., None, :])

    def gain_and_error(self, G: Tensor) -> tuple[Tensor, Tensor]:
        """The best gain, and the sum of squares that is left."""
        most, yy, xy = self.bounds.gain, G[..., -2, -2], G[..., -2, -1]
        gain = (xy / yy.clamp_min(1e-300)).clamp(1 / most, most)
        return gain, G[..., -1, -1] + gain * (gain * yy - 2 * xy)

    def step(self, G: Tensor, shift: Tensor, tempo: Tensor) -> tuple[Tensor, Tensor]:
        """A damped Gauss-Newton step, kept within the bounds."""
        a, error = self.gain_and_error(G)
        r = [G[..., k, 3] - a * G[..., k, 2] for k in range(3)]
        # Against a free gain, only what no gain explains is left of the derivatives.
        most = self.bounds.gain
        free = ((a > 1 / most) & (a < most)) / G[..., 2, 2].clamp_min(1e-300)
        D = G[..., :2, :2] - free[..., None, None] * G[..., :2, 2, None] * G[..., 2, None, :2]
        r0, r1 = (r[k] - free * r[2] * G[..., k, 2] for k in range(2))
        moment = D[..., 0, 1] - shift * D[..., 0, 0]
        # As if the error of the penalty's factor were constant: springs.
        springs = error / self.bounds.factor(shift, tempo)
        by_shift, by_tempo = (springs * k for k in self.bounds.stiffness)
        ss = ((a * tempo).square() * D[..., 0, 0] + by_shift) * (1 + _DAMPING)
        st = -a.square() * tempo * moment
        tt = D[..., 1, 1] - shift * (D[..., 0, 1] + moment)
        tt = (a.square() * tt + by_tempo) * (1 + _DAMPING)
        gs = -a * tempo * r0 - by_shift * shift
        gt = a * (r1 - shift * r0) - by_tempo * (tempo - 1)
        determinant = (ss * tt - st * st).clamp_min(1e-20)
        shift = shift + (tt * gs - st * gt) / determinant
        tempo = tempo + (ss * gt - st * gs) / determinant
        most_shift, most_tempo = self.bounds.shift, self.bounds.tempo
        return (
            shift.clamp(-most_shift, most_shift).nan_to_num(0),
            tempo.clamp(1 - most_tempo, 1 + most_tempo).nan_to_num(1),
        )

    def improve(self, y: Tensor, shift: Tensor, tempo: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and tempo (V, M, N) after a step, where that lowers the error, of drawings y."""
        y = self.scale.in_units(_grouped(y))
        G = self.products(y, shift, tempo, with_slopes=True)
        other = self.step(G, shift, tempo)
        before, after = (
            self.gain_and_error(products)[1] * self.bounds.factor(*pose)
            for products, pose in ((G, (shift, tempo)), (self.products(y, *other), other))
        )
        better = after < before
        return torch.where(better, other[0], shift), torch.where(better, other[1], tempo)


def _untouched(own: _Targets, fit: Fit, bounds: Bounds) -> Tensor:
    """Sequences (V, M, N, T, O) taken back to the drawings' time and size."""
    t = _steps(own.x)
    back = t / fit.tempo[..., None].to(t) + fit.shift[..., None].to(t)
    x = warp(own.x, back, own.last)[0]
    if bounds.has_offsets:
        x.sub_(fit.offset[..., None, :].to(x))
    x.div_(fit.gain[..., None, None].to(x))
    return x if own.known is None else x.masked_fill_((t > own.last)[..., None], torch.nan)


def _drawings(bank: GeneratorBank, T: int, n_steps: int, execution: Execution) -> _Drawings:
    """Drawings of a lattice of latents by each of M modules, to start from."""
    length = max(T, n_steps)

    def draw() -> _Drawings:
        latents = lattice(bank.input_size, _N_LATENTS).to(bank.device)
        drawn = bank.generate(latents, length, execution=execution).nan_to_num(0)
        # By the steps of training alone: others come with longer sequences.
        some = drawn[:, :, :n_steps].flatten(1)
        scale = Scale.of(some.abs().amax(dim=1), some.shape[1] // len(latents))
        each = Scale(*(one[:, None] for one in scale))
        fixed = each.integers(each.in_units(drawn))
        squares = fixed.square().sum(dim=-1).cumsum(dim=-1).mT.contiguous()
        return _Drawings(latents.to(drawn), fixed, scale.quantum, squares)

    found = bank.cached(("lattice", length, n_steps, execution.backend), draw)
    return found._replace(fixed=found.fixed[:, :, :T].flatten(2))


def _nearest(drawings: Sequence[_Drawings], own: _Targets, x: Tensor) -> Tensor:
    """The latents (V, M, N, K) whose drawings are nearest to sequences x (V, M, N, T, O)."""
    known = ~x.isnan() if own.gaps else None
    shown = x if own.known is None else x.nan_to_num(0)
    n_known = own.n_known if known is None else known.flatten(-2).sum(dim=-1)
    scale = Scale.of(shown.abs().flatten(-2).amax(dim=-1), n_known)
    fixed = scale.integers(scale.in_units(shown)).flatten(-2)
    found = []
    for v, drawn in enumerate(drawings):
        if known is None:
            squares = drawn.squares[:, own.last[v, 0, :, 0].long()]
        else:
            squares = known[v].flatten(-2).double() @ drawn.fixed.square().mT
        products = (fixed[v] @ drawn.fixed.mT) * scale.quantum[v, ..., None]
        distance = drawn.quantum[:, None, None] * squares - 2 * products
        found.append(drawn.latents[distance.argmin(dim=-1)])
    return torch.stack(found)


def search_posed(
    banks: Sequence[GeneratorBank],
    targets: Tensor,
    starts: Sequence[Mixtures],
    solver: Solver,
    pose: Pose,
    n_steps: int,
    gains: Sequence[bool],
    execution: Execution,
) -> PosedResult:
    """Search latent and pose of every module for every sequence, in all views at once.

    Parameters
    ----------
    banks : sequence of V GeneratorBank
        R C modules of C classes in each view.
    targets : Tensor of shape (V, N, T, O)
        The same sequences in each view; NaN is a missing value.
    starts : sequence of V Mixtures
        The nearest mixture of each class's types.
    solver : Solver
        It does three eighths of its iterations twice, and after each time the pose is improved.
    pose : Pose
        Decided: nothing "auto".
    n_steps : int
        Length of which ``pose.shift`` is a part.
    gains : sequence of V bool
        Whether size and level of a view can change.
    execution : Execution

    Returns
    -------
    PosedResult
        For the modules of all views, view by view.

    Raises
    ------
    ValueError
        If the solver minimises something else than the mean squared error, or has a schedule.
    """
    if solver.loss != MEAN_SQUARED_ERROR or getattr(solver, "schedule", None) is not None:
        raise ValueError(
            "pose: a search of poses needs a solver with the plain Loss() and no schedule, got "
            f"{solver!r}"
        )
    weights = Weights.concat(bank.weights for bank in banks)
    bounds = bounds_of(pose, n_steps, torch.tensor(gains, device=targets.device))
    V, N, T, O = targets.shape
    M = len(weights) // V
    R = M // len(starts[0].errors)
    first = Mixtures(
        *(
            torch.stack([one.repeat(R, *[1] * (one.dim() - 1)) for one in field]).to(targets.device)
            for field in zip(*starts, strict=True)
        )
    )
    size = max(1, _NUMBERS // (V * M * T * O))
    drawings = [_drawings(bank, T, n_steps, execution) for bank in banks]
    parts = [
        _search(
            weights,
            drawings,
            _Targets.of(targets[:, begin : begin + size]),
            Mixtures(*(one[:, :, begin : begin + size] for one in first)),
            solver,
            bounds,
            execution,
        )
        for begin in range(0, N, size)
    ]
    latents = torch.cat([latents for latents, _ in parts], dim=1)
    fits = zip(*(fit for _, fit in parts), strict=True)
    return PosedResult(latents, Fit(*(torch.cat(one, dim=1) for one in fits)))


def _search(
    weights: Weights,
    drawings: Sequence[_Drawings],
    own: _Targets,
    starts: Mixtures,
    solver: Solver,
    bounds: Bounds,
    execution: Execution,
) -> tuple[Tensor, Fit]:
    """Latents (V M, N, K) and their fits, from mixtures (V, M, N)."""
    T, O = own.x.shape[-2:]
    V, M, N, K = starts.shares.shape
    bank, sketch = GeneratorBank(weights), _Sketch(own, bounds)
    omit_nan = own.known is not None
    how: Any = {"history": False, "omit_nan": omit_nan, "execution": execution, "report": None}
    gain = ordered_sum(starts.shares, -1).clamp(1 / bounds.gain, bounds.gain)
    offset = gain.new_zeros(V, M, N, O)
    infinite = torch.full_like(gain, torch.inf)
    best = fit = Fit(infinite, starts.shifts, starts.tempos, gain, offset)
    latents = torch.empty(0)
    for turn in range(_TURNS):
        turned = solver.replace(n_iter=math.ceil(_PART * solver.n_iter))
        x = _untouched(own, best, bounds)
        if turn == 0:
            latents = _nearest(drawings, own, x)
        z = latents.reshape(V * M, N, 1, K)
        found = turned.search(weights, x.reshape(V * M, N, T, O), z, **how).latents
        z = torch.where(found.isfinite(), found, z)[:, :, 0]
        y = bank.generate(z, T, execution=execution).view(V, M, N, T, O)
        pose = sketch.improve(y, best.shift, best.tempo)
        fit = _lay(own, y, *pose, bounds)
        better = fit.error < best.error
        latents = torch.where(better[..., None], z.view(V, M, N, K), latents)
        best = best.where(better, fit)
    return latents.flatten(0, 1), Fit(*(one.flatten(0, 1) for one in best))
