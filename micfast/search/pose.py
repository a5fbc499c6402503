"""Pose: a drawing may be a little early or late, fast or slow, large or small.

A drawing y of a module is held against a sequence x as ``a y(tempo (t - shift)) + b``; see
:mod:`micfast.search.posed` for the search.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from micfast.settings import Settings, check_choice, check_number

__all__ = ["MOST_GAIN", "Bounds", "Fit", "Pose", "bounds_of", "grid", "pose_of", "warp"]

# Gains are at most this, and at least one over this.
MOST_GAIN = 1.2
# Offsets are at most this, in standard deviations of the training values.
MOST_OFFSET = 0.3
# Shifts and tempos of the coarse search, in units of their bounds; first the pose of no change.
_SHIFTS, _TEMPOS = (0.0, -1.0, -0.5, 0.5, 1.0), (0.0, -1.0, 1.0)


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
        by_shift, by_tempo = self.stiffness(n_steps)
        return 1 + (by_shift * shift**2 + by_tempo * (tempo - 1) ** 2)

    def stiffness(self, n_steps: int) -> tuple[float, float]:
        """The penalty of a shift by one step, and of a change of tempo by one."""
        if self.penalty == "auto":
            raise ValueError("Pose: penalty must be decided")
        steps, change = max(self.shift * n_steps, 1e-12), max(self.tempo, 1e-12)
        return self.penalty / steps**2, self.penalty / change**2


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

    def at(self, index: Any) -> Fit:
        """That of some modules, or of one for each sequence."""
        return Fit(*(one[index] for one in self))

    def lay(self, drawn: Tensor, last: Tensor | int | None = None) -> Tensor:
        """Drawings (..., T, O), whose ends are held from step ``last`` on, over the sequences."""
        shift, tempo, gain = (
            one[..., None].to(drawn) for one in (self.shift, self.tempo, self.gain)
        )
        t = torch.arange(drawn.shape[-2], device=drawn.device, dtype=drawn.dtype)
        posed = warp(drawn, tempo * (t - shift), last)[0]
        return posed.mul_(gain[..., None]).add_(self.offset[..., None, :].to(drawn))

    def where(self, better: Tensor, other: Fit) -> Fit:
        """The other's where it is better."""
        at = [better] * 4 + [better[..., None]]
        return Fit(*(torch.where(c, b, a) for c, a, b in zip(at, self, other, strict=True)))


class Bounds(NamedTuple):
    """Largest shift in steps, change of tempo, gain and offset (V, 1, 1); see :class:`Pose`."""

    shift: float
    tempo: float
    gain: Tensor
    offset: Tensor
    has_offsets: bool
    stiffness: tuple[float, float]
    factor: Callable[[Tensor, Tensor], Tensor]


def bounds_of(pose: Pose, n_steps: int, gains: Tensor) -> Bounds:
    """The bounds in each view; ``gains`` (V,), bool: where size and level can change."""
    free = gains[:, None, None]
    none = torch.zeros(free.shape, dtype=torch.float64, device=free.device)
    return Bounds(
        pose.shift * n_steps,
        pose.tempo,
        torch.where(free, MOST_GAIN if pose.gain is True else 1.0, none + 1),
        torch.where(free, MOST_OFFSET if pose.offset is True else 0.0, none),
        pose.offset is True and bool(gains.any()),
        pose.stiffness(n_steps),
        functools.partial(pose.factor, n_steps=n_steps),
    )


def grid(pose: Pose, n_steps: int) -> list[tuple[float, float]]:
    """Shifts in steps and tempos of the coarse search; the first pair changes nothing."""
    shifts = dict.fromkeys(pose.shift * n_steps * s for s in _SHIFTS)
    tempos = dict.fromkeys(1 + pose.tempo * s for s in _TEMPOS)
    return list(itertools.product(shifts, tempos))


def warp(
    y: Tensor, u: Tensor, last: Tensor | int | None = None, with_slope: bool = False
) -> tuple[Tensor, Tensor]:
    """Sequences (..., T, O) at times u (..., T'), by linear interpolation; the ends are held.

    Every number comes from single operations, so that its last bit does not depend on its place.

    Parameters
    ----------
    y, u : Tensor
        Their leading dimensions are broadcast.
    last : Tensor of shape (..., 1) or int, optional
        The step from which on the value is held; default T - 1.
    with_slope : bool

    Returns
    -------
    tuple of Tensor of shape (..., T', O)
        The values; and the slopes, 0 beyond the ends (empty unless asked for).
    """
    T, O = y.shape[-2:]
    last = torch.as_tensor(T - 1 if last is None else last, dtype=u.dtype, device=u.device)
    inside = torch.minimum(u.clamp_min(0), last)
    low = inside.floor()
    share = inside - low
    # Rows of all sequences: whole steps are copied, where gather would take value by value.
    first = torch.arange(0, y.shape[:-2].numel() * T, T, device=y.device)
    index = low.long() + first.view(*y.shape[:-2], 1)
    flat = y.reshape(-1, O)
    # Beside a missing value, a share of 0 is none of it; slopes are of drawings, which miss none.
    step = ((low < last) if with_slope else (share > 0)).long()
    before = flat.index_select(0, index.flatten()).view(*index.shape, O)
    after = flat.index_select(0, (index + step).flatten()).view(*index.shape, O)
    after.sub_(before)
    if not with_slope:
        return before.add_(after.mul_(share[..., None])), before[:0]
    values = before.add_(after * share[..., None])
    return values, after.mul_(((u >= 0) & (u <= last))[..., None])
