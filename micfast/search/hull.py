"""The hull of a class's types: its mixtures, drawn by no module, and its errors in closed form.

In the poses of a grid, the nearest mixture is where the search of a module starts. And leaving a
type out of its own hull takes no training: what the class would make of a sequence like it if it
had not been an example.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from micfast.kernels import mixtures
from micfast.kernels.definition import extents
from micfast.search.exact import Scale
from micfast.search.pose import MOST_GAIN, Pose, grid, warp

__all__ = ["Hull", "InPoses", "Mixtures"]

# Numbers at work at a time, and those of posed types that are kept.
_NUMBERS, _KEPT_NUMBERS = 2**20, 2**23
# Poses in which the nearest mixture is found, of those of the grid.
_N_POSES = 2
# Pairs of a class in a pose and a sequence at work at a time.
_ROWS = 2**15


class Mixtures(NamedTuple):
    """The nearest mixtures of C classes' types for n sequences.

    Attributes
    ----------
    errors : Tensor of shape (C, n)
        Mean squared errors, with the pose's penalty.
    shifts, tempos : Tensor of shape (C, n)
        Their poses.
    shares : Tensor of shape (C, n, K)
        Not negative up to rounding; their sum is the gain.
    """

    errors: Tensor
    shifts: Tensor
    tempos: Tensor
    shares: Tensor


class InPoses(NamedTuple):
    """Sums of squares (C, P, n) that mixtures leave in P poses, without penalty; values (n,)."""

    sums: Tensor
    n_known: Tensor


class _Posed(NamedTuple):
    """Types of some classes in P poses as integers (C P, K, T O), and their quanta (C P, 1).

    ``products`` (C P, K, K, T) are their inner products up to each step.
    """

    values: Tensor
    quantum: Tensor
    products: Tensor


def _held(types: Tensor) -> Tensor:
    """Types (..., T, O) whose last value is held where they have ended."""
    steps = torch.arange(types.shape[-2], device=types.device)[:, None]
    last = torch.where(types.isnan(), 0, steps).cummax(dim=-2).values
    return types.take_along_dim(last, dim=-2).nan_to_num(0)


class Hull:
    """The types of C classes in one view, in the poses of a grid.

    Parameters
    ----------
    types : Tensor of shape (C, K, T, O), float64
        NaN after the end of shorter ones.
    pose : Pose, optional
    n_steps : int
        Length of which ``pose.shift`` is a part.
    gains : bool
        Whether size can change in this view.
    """

    def __init__(
        self, types: Tensor, pose: Pose | None = None, n_steps: int = 1, gains: bool = False
    ) -> None:
        self.types = types
        poses = [(0.0, 1.0)] if pose is None else grid(pose, n_steps)
        self.shifts, self.tempos = types.new_tensor(poses).unbind(dim=1)
        self.factors = torch.ones_like(self.shifts)
        if pose is not None:
            self.factors = pose.factor(self.shifts, self.tempos, n_steps)
        self.gain = MOST_GAIN if pose is not None and gains and pose.gain is True else 1.0
        self._kept: tuple[int, list[_Posed]] = (0, [])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": (0, [])}

    def _posed(self, length: int) -> Iterator[_Posed]:
        """The types of some classes after others, at the steps of sequences of this length."""
        if self._kept[0] == length:
            yield from self._kept[1]
            return
        C, K, T, O = self.types.shape
        P = len(self.shifts)
        size = max(1, _NUMBERS // (P * K * K * length * O))
        t = torch.arange(length, dtype=torch.float64, device=self.types.device)
        u = self.tempos[:, None] * (t - self.shifts[:, None])
        keeps, kept = C * P * K * length * (K + O) <= _KEPT_NUMBERS, []
        held = _held(self.types)
        scale = Scale.of(held.abs().amax(dim=(1, 2, 3)), T * O)
        for begin in range(0, C, size):
            part = held[begin : begin + size, None]
            each = Scale(*(one[begin : begin + size, None, None] for one in scale))
            at = u[None, :, None].expand(len(part), -1, K, -1)
            values = each.integers(each.in_units(warp(part, at)[0])).flatten(0, 1)
            quantum = each.quantum.expand(-1, P, -1).flatten(0, 1)
            products = (values[:, :, None] * values[:, None]).sum(dim=-1).cumsum(dim=-1)
            posed = _Posed(values.flatten(-2), quantum, products)
            if keeps:
                kept.append(posed)
            yield posed
        if keeps:
            self._kept = (length, kept)

    def nearest(self, X: Tensor) -> Mixtures:
        """The nearest mixtures of each class's types for sequences X (n, T', O); NaN is missing."""
        C, K = self.types.shape[:2]
        errors, shifts, tempos = self.types.new_empty(3, C, len(X))
        found = Mixtures(errors, shifts, tempos, self.types.new_empty(C, len(X), K))
        P, known = len(self.shifts), extents(X)
        for classes, rows, (G, b, squares) in self._blocks(X, *known):
            least, best, shares = mixtures.nearest(
                G.unflatten(0, (-1, P)),
                b.unflatten(0, (-1, P)),
                squares,
                self.factors,
                most_gain=self.gain,
                n_kept=_N_POSES,
            )
            parts = (least, self.shifts[best], self.tempos[best], shares)
            for whole, part in zip(found, parts, strict=True):
                whole[classes, rows] = part
        return found._replace(errors=errors / known[1].clamp_min(1))

    def leaving_out(self, X: Tensor, own: Tensor, left_out: Tensor) -> InPoses:
        """What the nearest mixtures leave of sequences in every pose.

        Parameters
        ----------
        X : Tensor of shape (n, T', O)
            NaN is a missing value.
        own : Tensor of shape (n,)
            The class of each sequence, from which ``left_out`` is left out.
        left_out : Tensor of shape (n, K), bool
            Which of its types count for nothing.
        """
        P, one, known = len(self.shifts), self.types.new_ones(1), extents(X)
        sums = self.types.new_empty(len(self.types), P, len(X))
        for classes, rows, (G, b, squares) in self._blocks(X, *known):
            numbers = torch.arange(classes.start, classes.stop, device=X.device)
            mine = (own[rows] == numbers[:, None]).repeat_interleave(P, dim=0)
            gone = mine[:, None] & left_out[rows].T  # (C P, K, n)
            left = mixtures.nearest(
                G[:, None], b[:, None], squares, one, most_gain=self.gain, n_kept=1, gone=gone
            )
            sums[classes, :, rows] = left.errors.view(-1, P, b.shape[-1])
        return InPoses(sums, known[1])

    def errors(self, found: InPoses) -> Tensor:
        """Errors (C, n) in the best poses, by this hull's penalty; infinite if no type is left."""
        least = (found.sums * self.factors[:, None]).amin(dim=1)
        return least / found.n_known.clamp_min(1)

    def _blocks(
        self, X: Tensor, lengths: Tensor, n_known: Tensor
    ) -> Iterator[tuple[slice, slice, tuple[Tensor, Tensor, Tensor]]]:
        """Some classes and sequences after others, whose extents are known.

        With the inner products of their posed types (C P, K, K, 1 or n), and of these and sequences
        (C P, K, n), and with the sequences' squares (n,).
        """
        n, length, _ = X.shape
        flat = X.flatten(1)
        scale = Scale.of(flat.nan_to_num(0).abs().amax(dim=1), n_known)
        x, quantum = scale.integers(scale.in_units(X)).flatten(1).nan_to_num_(0), scale.quantum
        squares = (x * x).sum(dim=1) * quantum.square()
        masks, which = None, lengths - 1
        if bool((n_known != lengths.clamp_min(1) * X.shape[2]).any()):  # gaps before the ends
            masks, which = (~flat.isnan()).unique(dim=0, return_inverse=True)
        elif bool((lengths == length).all()):
            which = which[:1]
        end = 0
        for posed in self._posed(length):
            A, begin = posed.values, end
            end += len(A) // len(self.shifts)
            G = posed.products if masks is None else _masked_products(A, masks.double())
            b = (A @ x.mT) * (posed.quantum[..., None] * quantum)
            size = max(1, _ROWS // len(A))
            for first in range(0, n, size):
                rows = slice(first, first + size)
                taken = G[..., which if len(which) == 1 else which[rows]]
                grams = taken * posed.quantum.square()[..., None, None]
                yield slice(begin, end), rows, (grams, b[..., rows], squares[rows])


def _masked_products(A: Tensor, masks: Tensor) -> Tensor:
    """Exact inner products (B, K, K, m) of integer rows A (B, K, D), under m masks (m, D)."""
    B, K, _ = A.shape
    first, second = torch.triu_indices(K, K, device=A.device)
    products = (A[:, first] * A[:, second]).flatten(0, 1) @ masks.mT
    G = A.new_empty(B, K, K, len(masks))
    G[:, first, second] = G[:, second, first] = products.view(B, -1, len(masks))
    return G
