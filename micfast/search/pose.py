"""Pose: a drawing may be a little early or late, fast or slow, large or small.

A drawing y of a module is held against a sequence x as ``a y(tempo (t - shift)) + b``. Gain a and
offset b are solved in closed form, shift and tempo are searched: a coarse grid over the drawings of
a lattice of latents, then Gauss-Newton steps in turns with the solver's on the latent.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.search.loss import MEAN_SQUARED_ERROR
from micfast.search.solvers import Solver
from micfast.search.starts.nearest import lattice
from micfast.settings import Settings, check_choice, check_number

__all__ = ["Fit", "Pose", "PosedResult", "bounds_of", "grid", "pose_of", "search_posed", "warp"]

# Gains are at most this, and at least one over this.
MOST_GAIN = 1.2
# Offsets are at most this, in standard deviations of the training values.
MOST_OFFSET = 0.3
# Shifts and tempos of the coarse search, in units of their bounds; first the pose of no change.
_SHIFTS, _TEMPOS = (0.0, -1.0, -0.5, 0.5, 1.0), (0.0, -1.0, 1.0)
# Latents whose drawings are compared, at most, and steps of these.
_N_COARSE, _N_STEPS = 40, 48
# Channels in which a pose is improved, at most.
_N_CHANNELS = 8
# Numbers of drawings at work at a time.
_NUMBERS = 2**20
_TIE = 1e-6
# Turns of the solver and of the pose, and Gauss-Newton steps of the latter.
_TURNS, _STEPS = 2, 2


@dataclass(frozen=True)
class Pose(Settings):
    """How far a sequence may be from a module's drawing and still be the same.

    Parameters
    ----------
    shift : float
        Earliest and latest start, as a part of the training sequences' length.
    tempo : float
        How much slower or faster, as a part of the tempo; below 0.5.
    gain : bool or "auto"
        Whether size is free, by a factor of at most 1.2. "auto": as leaving out each training
        sequence says.
    offset : bool or "auto"
        Whether each channel's level is free, by at most 0.3 standard deviations.
    penalty : float or "auto"
        Errors are multiplied by one plus this times the squares of shift and tempo, each as a part
        of its bound: an answer with less change is better.

    Raises
    ------
    TypeError, ValueError
        For values that are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import ModularInverseClassifier, Pose
    >>> bump = np.exp(-((np.arange(60) - 30) ** 2) / 50)
    >>> X, y = np.stack([bump, 0.9 * bump, -bump, -0.9 * bump]), [0, 0, 1, 1]
    >>> clf = ModularInverseClassifier(n_types=2, pose=Pose(shift=0.1, gain=False), random_state=0)
    >>> decision = clf.fit(X, y).decide(np.roll(X[:1], 3, axis=1))
    >>> decision.labels.tolist(), round(float(decision.poses.shift[0]))
    ([0], 3)
    """

    name: ClassVar[str] = "pose"
    shift: float = 0.05
    tempo: float = 0.07
    gain: bool | Literal["auto"] = "auto"
    offset: bool | Literal["auto"] = False
    penalty: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        for field, below in (("shift", 1.0), ("tempo", 0.5)):
            self.set(field, check_number("Pose", field, getattr(self, field), below=below))
        for field in ("gain", "offset"):
            if not isinstance(getattr(self, field), bool):
                check_choice("Pose", field, getattr(self, field), ("auto",))
        if self.penalty != "auto":
            self.set("penalty", check_number("Pose", "penalty", self.penalty))

    def factor(self, shift: Any, tempo: Any, n_steps: int) -> Any:
        """By what errors at this shift (in steps) and tempo are multiplied; arrays or tensors."""
        if self.penalty == "auto":
            raise ValueError("Pose: penalty must be decided")
        steps, change = max(self.shift * n_steps, 1e-12), max(self.tempo, 1e-12)
        return 1 + self.penalty * ((shift / steps) ** 2 + ((tempo - 1) / change) ** 2)


def pose_of(value: Any) -> Pose | None:
    """The pose a user asked for: "auto" is ``Pose()``.

    Raises
    ------
    TypeError
        If it is neither that, a Pose, nor None.
    """
    if value is None or isinstance(value, Pose):
        return value
    if isinstance(value, str) and value == "auto":
        return Pose()
    raise TypeError(f"pose must be a Pose, 'auto' or None, got {value!r}")


class Fit(NamedTuple):
    """How drawings (M, N, T, O) lie over sequences: all of shape (M, N), but ``offset``.

    ``shift`` in steps, positive where the sequence is late; ``tempo`` above 1 where it is fast;
    ``offset`` (M, N, O) in standardised units.
    """

    error: Tensor
    shift: Tensor
    tempo: Tensor
    gain: Tensor
    offset: Tensor

    def where(self, better: Tensor, other: Fit) -> Fit:
        """The other's where it is better."""
        at = [better] * 4 + [better[..., None]]
        return Fit(*(torch.where(c, b, a) for c, a, b in zip(at, self, other, strict=True)))


class PosedResult(NamedTuple):
    """Latents (M, N, K), and how the drawings from them lie over the sequences."""

    latents: Tensor
    fit: Fit


class Bounds(NamedTuple):
    """Largest shift in steps, change of tempo, gain and offset (M,); the penalty of a pose."""

    shift: float
    tempo: float
    gain: Tensor
    offset: Tensor
    factor: Callable[[Tensor, Tensor], Tensor]


def bounds_of(pose: Pose, n_steps: int, gains: Tensor) -> Bounds:
    """The bounds for modules; ``gains`` (M,), float, is 1 where size and level can change."""
    return Bounds(
        pose.shift * n_steps,
        pose.tempo,
        MOST_GAIN ** (gains * float(pose.gain is True)),
        MOST_OFFSET * gains * float(pose.offset is True),
        functools.partial(pose.factor, n_steps=n_steps),
    )


def grid(pose: Pose, n_steps: int) -> list[tuple[float, float]]:
    """Shifts in steps and tempos of the coarse search; the first pair changes nothing."""
    shifts = dict.fromkeys(pose.shift * n_steps * s for s in _SHIFTS)
    tempos = dict.fromkeys(1 + pose.tempo * s for s in _TEMPOS)
    return list(itertools.product(shifts, tempos))


def warp(y: Tensor, u: Tensor, with_slope: bool = False) -> tuple[Tensor, Tensor]:
    """Sequences (..., T, O) at times u (..., T'), by linear interpolation; the ends are held.

    Returns
    -------
    tuple of Tensor of shape (..., T', O)
        The values; and the slopes, 0 beyond the ends (empty unless asked for).
    """
    T, O = y.shape[-2:]
    inside = u.clamp(0, T - 1)
    low = inside.floor().clamp_max_(max(T - 2, 0))
    share = (inside - low)[..., None]
    # Rows of all sequences: whole steps are copied, where gather would take value by value.
    first = torch.arange(0, y.shape[:-2].numel() * T, T, device=y.device)
    index = low.long() + first.view(*y.shape[:-2], 1)
    flat = y.reshape(-1, O)
    # Beside a missing value, a share of 0 is none of it; slopes are of drawings, which miss none.
    step = min(T - 1, 1) if with_slope else (share[..., 0] > 0).long()
    before = flat.index_select(0, index.flatten()).view(*u.shape, O)
    after = flat.index_select(0, (index + step).flatten()).view(*u.shape, O)
    values = torch.lerp(before, after, share)
    if not with_slope:
        return values, values[:0]
    return values, after.sub_(before).mul_(((u >= 0) & (u <= T - 1))[..., None])


def _some_channels(x: Tensor) -> Tensor | None:
    """Where there are many channels, the lowest of their cosine transform (O, 8), orthonormal."""
    O = x.shape[-1]
    if O <= _N_CHANNELS:
        return None
    angle = torch.arange(O, device=x.device)[:, None] + 0.5
    angle = angle * torch.arange(_N_CHANNELS, device=x.device) * (torch.pi / O)
    some = (torch.cos(angle) * (2 / O) ** 0.5).to(x.dtype)
    some[:, 0] *= 0.5**0.5
    return some


# -- the coarse search ---------------------------------------------------------------------------


def _coarse(
    bank: GeneratorBank, x: Tensor, poses: list[tuple[float, float]], bounds: Bounds, execution: Any
) -> tuple[Tensor, Tensor]:
    """Each pair's best pose, as its number (m, N), and latent (m, N, K), for targets (N, T, O)."""
    latents = lattice(bank.input_size, _N_COARSE).to(bank.device)
    T = x.shape[1]
    step = max(1, T // _N_STEPS)
    t = torch.arange(step // 2, T, step, device=x.device)

    some = None if bool(x.isnan().any()) else _some_channels(x)

    def draw() -> tuple[Tensor, Tensor]:
        drawn = bank.generate(latents, T, execution=execution)
        drawn = drawn if some is None else drawn @ some
        u = torch.stack([tempo * (t - shift) for shift, tempo in poses]).to(drawn)
        posed = warp(drawn[:, None], u[None, :, None].expand(len(bank), -1, len(latents), -1))[0]
        flat = posed.flatten(3).flatten(1, 2).double()  # (m, poses G, T' O)
        return flat, flat.square().sum(dim=2)

    drawn, sums = bank.cached(("poses", T, some is None, *poses, execution.backend), draw)
    values = x[:, t] if some is None else x[:, t] @ some
    values = values.flatten(1).double()
    known = ~values.isnan()
    values = values.nan_to_num(0)
    squares = sums[:, None] if bool(known.all()) else known.double() @ drawn.square().mT
    size = values.square().sum(dim=1)
    most = bounds.gain.double()[:, None, None]
    # (m, N, poses G): the largest arrays of the search, so in place what can be.
    if bool((most > 1).any()):
        product = values @ drawn.mT
        gain = (product / squares.clamp_min(1e-12)).clamp_(1 / most, most)
        distance = gain * squares
        distance.sub_(product.mul_(2)).mul_(gain)
    else:
        rows = values.expand(len(drawn), -1, -1)
        distance = torch.baddbmm(squares, rows, drawn.mT, alpha=-2)
    shifts, tempos = torch.tensor(poses, dtype=size.dtype, device=size.device).unbind(dim=1)
    factor = bounds.factor(shifts, tempos).repeat_interleave(len(latents))
    scale = size + squares.amax(dim=2)
    distance.add_(size[:, None]).mul_(factor).div_(_TIE * scale[..., None])
    index = distance.round_().argmin(dim=2)
    return index // len(latents), latents[index % len(latents)]


# -- the fine search -----------------------------------------------------------------------------


def _times(fit_shift: Tensor, tempo: Tensor, T: int) -> Tensor:
    """The drawings' times (M, N, T) at the sequences' steps."""
    t = torch.arange(T, device=tempo.device, dtype=tempo.dtype)
    return tempo[..., None] * (t - fit_shift[..., None])


class _Sums(NamedTuple):
    """Targets (M, N, T, O) with 0 where a value is missing, a mask of those there, and counts."""

    x: Tensor
    known: Tensor | None
    per_channel: Tensor | float
    all: Tensor | float

    @classmethod
    def of(cls, x: Tensor) -> _Sums:
        T, O = x.shape[-2:]
        known = ~x.isnan()
        if bool(known.all()):
            return cls(x, None, float(T), float(T * O))
        known = known.to(x.dtype)
        per_channel = known.sum(dim=-2)
        return cls(
            x.nan_to_num(0), known, per_channel.clamp_min(1), per_channel.sum(dim=-1).clamp_min(1)
        )

    def mask(self, values: Tensor) -> Tensor:
        return values if self.known is None else values * self.known

    def centre(self, values: Tensor) -> Tensor:
        """Masked values less their channels' means."""
        mean = (values.sum(dim=-2) / self.per_channel)[..., None, :]
        return self.mask(values - mean)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (M, N) of sequences (M, N, T, O)."""
    return torch.linalg.vecdot(a.flatten(-2), b.flatten(-2))


def _lay(sums: _Sums, y: Tensor, shift: Tensor, tempo: Tensor, bounds: Bounds) -> Fit:
    """Gain, offset and error of drawings already at the sequences' times (M, N, T, O)."""
    y = sums.mask(y)
    offsets = bool((bounds.offset > 0).any())
    free = (bounds.offset > 0)[:, None, None, None]
    yc = torch.where(free, sums.centre(y), y) if offsets else y
    xc = torch.where(free, sums.centre(sums.x), sums.x) if offsets else sums.x
    most = bounds.gain[:, None]
    gain = (_inner(xc, yc) / _inner(yc, yc).clamp_min(1e-12)).clamp(1 / most, most)
    rest = torch.addcmul(sums.x, gain[..., None, None], y, value=-1)
    offset = torch.zeros_like(rest[..., 0, :])
    if offsets:
        limit = bounds.offset[:, None, None]
        offset = torch.minimum(torch.maximum(rest.sum(dim=-2) / sums.per_channel, -limit), limit)
        rest = sums.mask(rest - offset[..., None, :])
    error = _inner(rest, rest) / sums.all * bounds.factor(shift, tempo)
    return Fit(error, shift, tempo, gain, offset)


class _Sketch:
    """Drawings and sequences at every few steps and in a few channels: enough to tell a pose by.

    Parameters
    ----------
    x, y : Tensor of shape (M, N, T, O)
        Sequences, NaN where a value is missing; and the drawings at their own times.
    bounds : Bounds
    """

    def __init__(self, x: Tensor, y: Tensor, bounds: Bounds) -> None:
        T = x.shape[-2]
        step = max(1, T // _N_STEPS)
        self.t = torch.arange(step // 2, T, step, device=x.device, dtype=x.dtype)
        x = x[..., step // 2 :: step, :]
        self.known: Tensor | None = ~x.isnan()
        if bool(self.known.all()):
            self.known = None
            if (some := _some_channels(x)) is not None:
                x, y = x @ some, y @ some
        else:
            x = x.nan_to_num(0)
        self.x, self.y, self.bounds = x, y, bounds
        self.offsets = bool((bounds.offset > 0).any())

    def products(self, shift: Tensor, tempo: Tensor) -> Tensor:
        """Inner products (M, N, 4, 4) of the slopes, these times t, the drawings, the sequences."""
        u = tempo[..., None] * (self.t - shift[..., None])
        posed, slope = warp(self.y, u, with_slope=True)
        F = torch.stack([slope, self.t[:, None] * slope, posed, self.x], dim=2)
        if self.known is not None:
            F = F * self.known[:, :, None]
        if self.offsets:
            n = F.shape[-2] if self.known is None else self.known.sum(dim=-2)[:, :, None, None]
            centred = F - F.sum(dim=-2, keepdim=True) / n
            if self.known is not None:
                centred = centred * self.known[:, :, None]
            F = torch.where((self.bounds.offset > 0)[:, None, None, None, None], centred, F)
        F = F.flatten(-2)
        return F @ F.mT

    def gain_and_error(self, G: Tensor) -> tuple[Tensor, Tensor]:
        """The best gain, and the sum of squares that is left."""
        most = self.bounds.gain[:, None]
        gain = (G[..., 2, 3] / G[..., 2, 2].clamp_min(1e-12)).clamp(1 / most, most)
        return gain, G[..., 3, 3] + gain * (gain * G[..., 2, 2] - 2 * G[..., 2, 3])

    def step(self, G: Tensor, shift: Tensor, tempo: Tensor, damping: Tensor) -> tuple[Tensor, ...]:
        """A damped Gauss-Newton step, kept within the bounds."""
        a, _ = self.gain_and_error(G)
        r = torch.stack([G[..., k, 3] - a * G[..., k, 2] for k in range(3)], dim=-1)
        # Against a free gain, only what no gain explains is left of the derivatives.
        most = self.bounds.gain[:, None]
        free = ((a > 1 / most) & (a < most)) / G[..., 2, 2].clamp_min(1e-12)
        D = G[..., :2, :2] - free[..., None, None] * G[..., :2, 2, None] * G[..., 2, None, :2]
        r = r[..., :2] - (free * r[..., 2])[..., None] * G[..., :2, 2]
        moment = D[..., 0, 1] - shift * D[..., 0, 0]
        ss = (a * tempo).square() * D[..., 0, 0] * (1 + damping)
        st = -a.square() * tempo * moment
        tt = D[..., 1, 1] - shift * (D[..., 0, 1] + moment)
        tt = a.square() * tt * (1 + damping)
        gs, gt = -a * tempo * r[..., 0], a * (r[..., 1] - shift * r[..., 0])
        determinant = (ss * tt - st * st).clamp_min(1e-20)
        shift = shift + (tt * gs - st * gt) / determinant
        tempo = tempo + (ss * gt - st * gs) / determinant
        most_shift, most_tempo = self.bounds.shift, self.bounds.tempo
        return (
            shift.clamp(-most_shift, most_shift).nan_to_num(0),
            tempo.clamp(1 - most_tempo, 1 + most_tempo).nan_to_num(1),
        )

    def improve(self, shift: Tensor, tempo: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
        """Shift and tempo (M, N) of a lower error."""
        G = self.products(shift, tempo)
        error = self.gain_and_error(G)[1]
        damping = torch.full_like(shift, 1e-3)
        for _ in range(n_steps):
            other = self.step(G, shift, tempo, damping)
            H = self.products(*other)
            its_error = self.gain_and_error(H)[1]
            better = its_error < error
            shift, tempo = (
                torch.where(better, other[0], shift),
                torch.where(better, other[1], tempo),
            )
            error = torch.where(better, its_error, error)
            G = torch.where(better[..., None, None], H, G)
            damping = torch.where(better, damping / 10, damping * 100)
        return shift, tempo


def _untouched(x: Tensor, fit: Fit) -> Tensor:
    """Sequences (M, N, T, O) taken back to the drawings' time and size."""
    T = x.shape[-2]
    t = torch.arange(T, device=x.device, dtype=x.dtype)
    back = t / fit.tempo[..., None] + fit.shift[..., None]
    return (warp(x, back)[0] - fit.offset[..., None, :]) / fit.gain[..., None, None]


def search_posed(
    banks: list[GeneratorBank],
    targets: Tensor,
    solver: Solver,
    pose: Pose,
    n_steps: int,
    gains: list[bool],
    execution: Execution,
) -> PosedResult:
    """Search latent and pose of every module for every sequence, in all views at once.

    Parameters
    ----------
    banks : list of V GeneratorBank
        The modules of each view, equally many.
    targets : Tensor of shape (V, N, T, O)
        The same sequences in each view, all of T steps; NaN is a missing value.
    solver : Solver
        Its iterations are split in two halves, between which the pose is improved.
    pose : Pose
        Decided: nothing "auto".
    n_steps : int
        Length of which ``pose.shift`` is a part.
    gains : list of bool
        Whether size and level of a view can change.
    execution : Execution

    Returns
    -------
    PosedResult
        For the V M modules, view by view.

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
    M = len(banks[0])
    weights = Weights.concat(bank.weights for bank in banks)
    free = torch.tensor(gains, dtype=targets.dtype, device=targets.device).repeat_interleave(M)
    bounds = bounds_of(pose, n_steps, free)
    poses = grid(pose, n_steps)
    shifts, tempos = torch.tensor(poses, dtype=targets.dtype, device=targets.device).unbind(dim=1)
    V, N, T, O = targets.shape
    size = max(1, _NUMBERS // (V * M * T * O))
    parts = []
    for begin in range(0, N, size):
        part = targets[:, begin : begin + size]
        found = []
        for v, bank in enumerate(banks):
            own = bounds._replace(gain=bounds.gain[v * M : v * M + M])
            found.append(_coarse(bank, part[v], poses, own, execution))
        which, starts = (torch.cat(one) for one in zip(*found, strict=True))
        x = part.repeat_interleave(M, dim=0)
        parts.append(
            _search(
                weights, x, starts.to(x), shifts[which], tempos[which], solver, bounds, execution
            )
        )
    latents = torch.cat([latents for latents, _ in parts], dim=1)
    fits = zip(*(fit for _, fit in parts), strict=True)
    return PosedResult(latents, Fit(*(torch.cat(one, dim=1) for one in fits)))


def _search(
    weights: Weights,
    x: Tensor,
    starts: Tensor,
    shift: Tensor,
    tempo: Tensor,
    solver: Solver,
    bounds: Bounds,
    execution: Execution,
) -> tuple[Tensor, Fit]:
    """Latents (M, N, K) and their fits for targets (M, N, T, O), from a coarse pose."""
    T, sums = x.shape[-2], _Sums.of(x)
    bank = GeneratorBank(weights)
    omit_nan = sums.known is not None
    how: Any = {"history": False, "omit_nan": omit_nan, "execution": execution, "report": None}
    latents = starts
    y = bank.generate(latents, T, execution=execution)
    best = _lay(sums, warp(y, _times(shift, tempo, T))[0], shift, tempo, bounds)
    for turn in range(_TURNS):
        n_iter = (solver.n_iter * (turn + 1)) // _TURNS - (solver.n_iter * turn) // _TURNS
        turned = solver.replace(n_iter=n_iter)
        found = turned.search(weights, _untouched(x, best), latents[:, :, None], **how)
        z = found.latents[:, :, 0]
        y = bank.generate(z, T, execution=execution)
        pose = _Sketch(x, y, bounds).improve(best.shift, best.tempo, _STEPS)
        fit = _lay(sums, warp(y, _times(*pose, T))[0], *pose, bounds)
        better = fit.error < best.error
        latents = torch.where(better[..., None], z, latents)
        best = best.where(better, fit)
    return latents, best
