"""The nearest mixtures of a class's types, in closed form: kernel and reference, equal to the bit.

On each face of the simplex of shares, the minimum has a closed form; the lowest of those that lie
inside their face is the minimum on the simplex. All is computed number by number, so that a
sequence's company cannot matter.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from micfast.kernels.backend import extension

__all__ = ["Nearest", "nearest", "reference_nearest"]

# At most this many mixtures are enumerated; with more types, only those of fewer types.
_MOST_FACES = 300
_RIDGE, _LEAST_RIDGE = 1e-9, 1e-12
_LEAST_SHARE = -1e-9
# Numbers at work at a time in the reference.
_NUMBERS = 2**20


class Nearest(NamedTuple):
    """Sums of squares (C, n) times the pose's factor, the pose's number, and shares (C, n, K)."""

    errors: Tensor
    poses: Tensor
    shares: Tensor


@functools.cache
def _faces(n_types: int) -> tuple[Tensor, ...]:
    """Which types may have a share in a mixture (S, k): for each size k, small ones first."""
    found: list[Tensor] = []
    for size in range(1, n_types + 1):
        if size > 1 and sum(map(len, found)) + math.comb(n_types, size) > _MOST_FACES:
            break
        found.append(torch.tensor([*itertools.combinations(range(n_types), size)]))
    return tuple(found)


@functools.cache
def _table(n_types: int) -> Tensor:
    """The same as the kernel reads it (S, 1 + K): each face's size, its types, and zeros."""
    rows = [[len(one), *one] for faces in _faces(n_types) for one in faces.tolist()]
    return torch.tensor([row + [0] * (1 + n_types - len(row)) for row in rows])


def nearest(
    grams: Tensor,
    products: Tensor,
    squares: Tensor,
    factors: Tensor,
    *,
    most_gain: float,
    n_kept: int,
    gone: Tensor | None = None,
) -> Nearest:
    """The nearest mixtures of the types of C classes for n sequences, in the best of P poses.

    Parameters
    ----------
    grams : Tensor of shape (C, P, K, K, n), or (C, P, K, K, 1) where sequences share them, float64
        Inner products of the types in each pose.
    products : Tensor of shape (C, P, K, n), float64
        Of types and sequences.
    squares : Tensor of shape (n,), float64
        Of the sequences.
    factors : Tensor of shape (P,), float64
        By which the error in each pose is multiplied.
    most_gain : float
        The shares' sum may be from ``1 / most_gain`` to ``most_gain``.
    n_kept : int
        Mixtures are looked for in so many poses: those that are best where shares may be negative.
    gone : Tensor of shape (C, K, n), bool, optional
        Types that may not be used. The error is infinite where none is left.

    Returns
    -------
    Nearest
    """
    C, P, K, n = products.shape
    if len(_faces(K)) < K:
        n_kept = P
    n_kept = min(n_kept, P)
    if extension is None or products.device.type != "cpu":
        return reference_nearest(grams, products, squares, factors, most_gain, n_kept, gone)
    grams, products, faces = grams.contiguous(), products.contiguous(), _table(K)
    squares, factors = squares.contiguous(), factors.contiguous()
    gone = None if gone is None else gone.contiguous()
    errors, shares = products.new_empty(C, n), products.new_empty(C, n, K)
    poses = products.new_empty(C, n, dtype=torch.int64)
    extension.mixtures(
        (
            (C, P, K, n, grams.shape[-1], len(faces), n_kept),
            (
                grams.data_ptr(),
                products.data_ptr(),
                squares.data_ptr(),
                factors.data_ptr(),
                0 if gone is None else gone.data_ptr(),
                faces.data_ptr(),
            ),
            most_gain,
            (errors.data_ptr(), poses.data_ptr(), shares.data_ptr()),
        ),
        torch.get_num_threads(),
    )
    return Nearest(errors, poses, shares)


def reference_nearest(
    grams: Tensor,
    products: Tensor,
    squares: Tensor,
    factors: Tensor,
    most_gain: float,
    n_kept: int,
    gone: Tensor | None = None,
) -> Nearest:
    """Do the same in plain PyTorch, on any device. Parameters as of :func:`nearest`."""
    C, P, K, n = products.shape
    every = torch.arange(P, device=products.device)
    poses, factor = every[:, None].expand(C, P, n), factors[:, None].expand(C, P, n)
    if n_kept < P:
        every_type = _faces(K)[-1].to(products.device)
        bound, _ = _on_faces(
            grams.flatten(0, 1), products.flatten(0, 1), squares, most_gain, every_type
        )
        bound = bound.view(C, P, n).clamp_min(0) * factor
        poses = bound.sort(dim=1, stable=True).indices[:, :n_kept]
        grams = grams.expand(*grams.shape[:-1], n).take_along_dim(poses[:, :, None, None], dim=1)
        products = products.take_along_dim(poses[:, :, None], dim=1)
        factor = factors[poses]
    errors, shares = _on_simplex(
        grams.flatten(0, 1),
        products.flatten(0, 1),
        squares,
        most_gain,
        None if gone is None else gone.repeat_interleave(n_kept, dim=0),
    )
    errors, shares = errors.view(C, n_kept, n) * factor, shares.view(C, n_kept, n, K)
    best = errors.argmin(dim=1, keepdim=True)
    errors, poses = (one.take_along_dim(best, dim=1)[:, 0] for one in (errors, poses))
    return Nearest(errors, poses, shares.take_along_dim(best[..., None], dim=1)[:, 0])


def _on_simplex(
    G: Tensor, b: Tensor, squares: Tensor, gain: float, gone: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sums of squares (B, n) left by the best mixture, and its shares (B, n, K)."""
    B, K, n = b.shape
    best = b.new_full((B, n), torch.inf)
    shares = b.new_zeros(B, K, n)
    for all_of_size in _faces(K):
        n_parts = min(1 + all_of_size.numel() * b.numel() // (K * _NUMBERS), len(all_of_size))
        for subsets in all_of_size.to(b.device).tensor_split(n_parts):
            error, w = _on_faces(G, b, squares, gain, subsets)
            inside = functools.reduce(torch.minimum, w) >= _LEAST_SHARE
            error = torch.where(inside, error.clamp_min(0), torch.inf)
            if gone is not None:
                error = error.masked_fill(gone[:, subsets].any(dim=2), torch.inf)
            lowest, face = error.min(dim=1)
            better = lowest < best
            best = torch.where(better, lowest, best)
            at = subsets[face].movedim(-1, 1)  # (B, k, n)
            own = torch.stack(w, dim=1).take_along_dim(face[:, None, None], dim=2)[:, :, 0]
            new = torch.zeros_like(shares).scatter_(1, at, own)
            shares = torch.where(better[:, None], new, shares)
    return best, shares.movedim(1, 2)


def _on_faces(
    G: Tensor, b: Tensor, squares: Tensor, gain: float, subsets: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Errors (B, S, n) on what S faces of k types span, and k shares (B, S, n)."""
    at = subsets.unbind(dim=1)
    trace = functools.reduce(torch.add, G.diagonal(dim1=1, dim2=2).unbind(-1))
    ridge = _RIDGE * trace + _LEAST_RIDGE  # (B, 1 or n)
    k = len(at)
    d: list[Tensor] = []
    low: dict[tuple[int, int], Tensor] = {}
    for j in range(k):  # G = L D L^T
        for i in range(j, k):
            value = G[:, at[i], at[j]]
            if i == j:
                value = value + ridge[:, None]
            for m in range(j):
                value = value - low[i, m] * low[j, m] * d[m]
            if i == j:
                d.append(value)
            else:
                low[i, j] = value / d[j]

    def solve(r: list[Tensor]) -> list[Tensor]:
        r = list(r)
        for i in range(k):
            for m in range(i):
                r[i] = r[i] - low[i, m] * r[m]
        w = [r[i] / d[i] for i in range(k)]
        for i in reversed(range(k)):
            for m in range(i + 1, k):
                w[i] = w[i] - low[m, i] * w[m]
        return w

    own = [b[:, one] for one in at]
    free = solve(own)
    ones = solve([torch.ones_like(d[0])] * k)
    total, norm = sum(free[1:], free[0]), sum(ones[1:], ones[0])
    away = total.clamp(1 / gain, gain) - total
    step = away / norm
    w = [one + other * step for one, other in zip(free, ones, strict=True)]
    explained = [one * other for one, other in zip(free, own, strict=True)]
    # The minimum on the face: the free one's, and what leads away from it.
    return squares - sum(explained[1:], explained[0]) + away * step, w
