"""Comparing a module's drawing with micfast's: the latents, the drawing, the difference."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from micfast.generators.dropin.calls import arrangements
from micfast.kernels import calls, reference
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights

__all__ = [
    "Comparison",
    "affine_map",
    "agrees_at_once",
    "compare",
    "draw",
    "latents_for_probe",
    "relative_difference",
    "resting_output",
]

# Relative to the largest value. Equal modules differ by 1e-6; the mildest of 33 that draw something
# else differed by 1e-2.
_TOLERANCE = 1e-4
# Where roundings of the weights alone move a drawing by this much, nothing can be told.
_MOST_ROUNDING = 1e-2
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Comparison:
    """A drawing beside ours: whether they agree, and if not, how far apart and from which step on.

    `telling` is False where roundings alone could make the difference.
    """

    agrees: bool
    difference: float
    first_step: int
    theirs: Tensor  # (n, T, O)
    telling: bool = True


@functools.lru_cache(maxsize=16)
def latents_for_probe(
    n_inputs: int, dtype: torch.dtype, device: torch.device, avoid: frozenset[int] = frozenset()
) -> Tensor:
    """Latents (n, K) that tell models apart: on the simplex and off it, small and large.

    Their number is none of `avoid`, so that an answer's axes can be told apart. The same at each
    call; not to be changed.
    """
    K = n_inputs
    rng = torch.Generator("cpu").manual_seed(20)
    with torch.device("cpu"):
        uniform = torch.rand(16, K, generator=rng, dtype=torch.float64)
        normal = torch.randn(16, K, generator=rng, dtype=torch.float64)
        corners = torch.eye(K, dtype=torch.float64)
    inside = uniform / uniform.sum(dim=1, keepdim=True)
    rows = [
        torch.full_like(normal[0], 1 / K),
        10 * normal[0],
        2 * normal[1],
        inside[0],
        corners[0],
        100 * normal[2],
        corners[-1],
        normal[3] - normal[3].mean() + 1 / K,
        inside[1],
        corners[K // 2],
        torch.zeros_like(normal[0]),
        inside[2],
        *(5 * normal[4:]),
    ]
    n = next(n for n in (6, 7, 5, 8, 9, 10, 11, 12) if n not in avoid)
    return torch.stack(rows[:n]).to(dtype=dtype, device=device)


def draw(weights: Weights, z: Tensor, n_steps: int) -> Tensor:
    """What micfast draws with one module, (n, T, O)."""
    return calls.generate(weights, z[None], n_steps, Execution())[0]


def resting_output(weights: Weights) -> Tensor:
    """What each module draws where its hidden state is zero, (M, O)."""
    y = reference.OUTPUT_MAPS[weights.decoder.output](weights.b_out)
    y = y if weights.scale is None else weights.scale * y
    return y if weights.shift is None else y + weights.shift


def agrees_at_once(tensors: list[Tensor], ours: Tensor, rest: Tensor) -> bool:
    """Whether one of the tensors of an answer is our drawing (n, T, O), roundings aside.

    ``rest`` (O,) is what we draw where the hidden state is zero.
    """
    # Most structures are further off than any scale of relative_difference() allows, which is told
    # in a fifth of the time. Where something is not finite, the comparison is false.
    floor = 32 * torch.finfo(rest.dtype).eps * rest.abs().amax()
    most = 2 * (_TOLERANCE * ((ours - rest).abs().amax() + _TINY) + floor)
    return any(
        not (theirs - ours).abs().amax() > most
        and relative_difference(theirs, ours, rest).max() <= _TOLERANCE
        for tensor in tensors
        for theirs in arrangements(tensor, *ours.shape)
    )


def affine_map(tensor: Tensor, values: Tensor) -> tuple[Tensor, Tensor] | None:
    """Scale and shift (O,), float64, that turn values (n, T, O) into the tensor; None without."""
    y = values.double().flatten(0, 1)
    if not torch.isfinite(y).all():
        return None
    varying = y - y.mean(dim=0)
    power = varying.square().sum(dim=0)
    for theirs in arrangements(tensor, *values.shape):
        x = theirs.double().flatten(0, 1)
        if not torch.isfinite(x).all():
            continue
        scale = (varying * (x - x.mean(dim=0))).sum(dim=0) / power
        shift = x.mean(dim=0) - scale * y.mean(dim=0)
        apart = (scale * y + shift - x).abs().amax(dim=0)
        # Of what varies, not of an offset; a channel that doesn't vary has no scale.
        if bool((apart <= _TOLERANCE * (scale * varying).abs().amax(dim=0)).all()) and bool(
            (scale != 0).all()
        ):
            return scale, shift
    return None


def compare(weights: Weights, z: Tensor, tensor: Tensor, ours: Tensor) -> Comparison:
    """Compare a tensor of a module's answer, its axes in any order, with our drawing (n, T, O)."""
    best: Comparison | None = None
    rest = resting_output(weights)[0]
    for theirs in arrangements(tensor, *ours.shape):
        relative = relative_difference(theirs, ours, rest)
        largest = float(relative.max())
        if largest <= _TOLERANCE:
            return Comparison(True, largest, 0, theirs)
        comparison = _compare_roundings(weights, z, theirs, ours, relative)
        if best is None or comparison.difference < best.difference or comparison.agrees:
            best = comparison
    if best is None:  # not even the shape fits
        return Comparison(False, float("inf"), 1, torch.full_like(ours, torch.inf))
    return best


def _compare_roundings(
    weights: Weights, z: Tensor, theirs: Tensor, ours: Tensor, relative: NDArray[Any]
) -> Comparison:
    """Whether a difference is no more than what roundings of the weights can do."""
    rng = torch.Generator("cpu").manual_seed(0)
    rest = resting_output(weights)[0]
    shaken = draw(
        weights.map(lambda tensor: _with_roundings(tensor, rng)),
        _with_roundings(z, rng),
        ours.shape[1],
    )
    apart = np.nan_to_num(relative_difference(shaken, ours, rest))
    rounding = 64 * np.maximum.accumulate(apart, axis=1)
    off = relative > _TOLERANCE + rounding
    wrong_steps = np.flatnonzero(off.any(axis=(0, 2)))
    first = int(wrong_steps[0]) + 1 if len(wrong_steps) else 0
    telling = bool((rounding <= _MOST_ROUNDING).all())
    return Comparison(not first, float(relative.max()), first, theirs, telling)


def relative_difference(theirs: Tensor, ours: Tensor, rest: Tensor) -> NDArray[Any]:
    """Differences of drawings (n, T, O) relative to the largest value of each channel.

    A value is what the hidden state adds to the output at rest, or a rounding of that if it is
    more; where a latent's values are small, theirs count, down to a hundredth of the channel's.
    """
    # NumPy: a third of torch's time for arrays as small as these.
    drawn, own, bias = (t.detach().cpu().double().numpy() for t in (theirs, ours, rest))
    eps = torch.finfo(rest.dtype).eps
    with np.errstate(all="ignore"):
        values = np.abs(own - bias)
        values = np.where(np.isfinite(values), values, 0)
        scale = values.max(axis=1, keepdims=True)
        scale = np.maximum(scale, 0.01 * scale.max(axis=0, keepdims=True))
        floor = (32 * eps / _TOLERANCE) * np.abs(bias) + _TINY
        difference = np.abs(drawn - own) / np.maximum(scale, floor)
        if not np.isfinite(difference).all():
            same = (np.isnan(drawn) & np.isnan(own)) | (drawn == own)
            difference = np.where(same, 0, np.nan_to_num(difference, nan=np.inf, posinf=np.inf))
    return difference


def _with_roundings(tensor: Tensor, rng: torch.Generator) -> Tensor:
    """The tensor with each value moved by one unit in its last place, up or down."""
    signs = torch.randint(0, 2, tensor.shape, generator=rng, device="cpu") * 2 - 1
    factors = 1 + torch.finfo(tensor.dtype).eps * signs.to(tensor.device, tensor.dtype)
    return tensor * factors
