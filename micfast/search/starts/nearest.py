"""The mixtures of the types whose drawings are nearest to the target."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import ClassVar

import torch
from torch import Tensor

from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.search.starts import STARTS, Start, StartMaker
from micfast.settings import check_count

__all__ = ["Nearest", "lattice", "nearest"]

# At most this many mixtures of the types are drawn (and the even one).
_MAX_CANDIDATES = 128
# Numbers (float64) that the search for the nearest may hold: drawings, also those cached with a
# bank; and distances at a time, few enough for a CPU's cache and enough to keep a GPU busy.
_DRAWN_NUMBERS = 4 * 2**20
_CPU_DISTANCES, _DISTANCES = 2**17, 4 * 2**20
# Candidates whose distances differ by less than this fraction count as equally near, and the first
# one is taken, so that the rounding of a matrix product does not decide.
_TIE = 1e-9


@STARTS.register("nearest")
@dataclass(frozen=True)
class Nearest(Start):
    """Start at the mixtures, out of at most 129, whose drawings are nearest to the target.

    Parameters
    ----------
    n_starts : int
        How many, the nearest first.

    Examples
    --------
    >>> from micfast import LevenbergMarquardt
    >>> from micfast.search.starts.nearest import Nearest
    >>> LevenbergMarquardt().start == Nearest()
    True
    >>> LevenbergMarquardt(start=Nearest(n_starts=3)).start  # three searches, the best one counts
    Nearest(n_starts=3)
    """

    name: ClassVar[str] = "nearest"
    n_starts: int = 1

    def __post_init__(self) -> None:
        self.set("n_starts", check_count("Nearest", "n_starts", self.n_starts, 1))

    def prepare(
        self, bank: GeneratorBank, n_targets: int, omit_nan: bool, execution: Execution
    ) -> tuple[int, StartMaker]:
        """See :meth:`Start.prepare`."""
        n_candidates = len(lattice(bank.input_size))
        if n_candidates < self.n_starts:
            raise ValueError(
                f"Nearest: n_starts must be at most {n_candidates} with {bank.input_size} types, "
                f"got {self.n_starts}"
            )
        return self.n_starts, lambda begin, targets: nearest(
            bank, targets, self.n_starts, omit_nan=omit_nan, execution=execution
        )


@functools.cache
def lattice(n_inputs: int, most: int = _MAX_CANDIDATES) -> Tensor:
    """Mixtures of the types, evenly spaced over the simplex.

    Parameters
    ----------
    n_inputs : int
        Number of types K.
    most : int
        How many there may be, the even mixture left out.

    Returns
    -------
    Tensor of shape (G, K), float64
        The even mixture; then all multiples of 1/r that sum to 1, with the largest r that keeps
        their number at ``most`` or below (1, the types themselves, if none does).

    Examples
    --------
    >>> lattice(3)[:3].tolist(), len(lattice(4)), len(lattice(1))
    ([[0.3333333333333333, 0.3333333333333333, 0.3333333333333333], [1.0, 0.0, 0.0], \
[0.9285714285714286, 0.07142857142857142, 0.0]], 121, 1)
    """
    K, resolution = n_inputs, 1
    while K > 1 and math.comb(resolution + K, K - 1) <= most:
        resolution += 1
    shares = itertools.combinations_with_replacement(range(K), resolution)
    points = (
        torch.nn.functional.one_hot(torch.tensor(list(shares), device="cpu"), K).sum(dim=1).double()
    )
    points /= resolution
    even = torch.full((1, K), 1 / K, dtype=torch.float64, device="cpu")
    return torch.cat([even, points[~torch.isclose(points, even).all(dim=1)]])


def nearest(
    bank: GeneratorBank,
    targets: Tensor,
    n_starts: int = 1,
    *,
    omit_nan: bool = False,
    execution: Execution | None = None,
) -> Tensor:
    """Find, for every module and target, the mixtures whose drawings are nearest to the target.

    Costs one drawing per module and candidate (:func:`lattice`), kept with the bank, and a matrix
    product: far less than an iteration of the inversion.

    Parameters
    ----------
    bank : GeneratorBank
    targets : Tensor of shape (N, T, O)
        In the bank's dtype, on its device.
    n_starts : int
        How many, the nearest first; at most the number of candidates.
    omit_nan : bool
        Measure where the targets aren't NaN.
    execution : Execution, optional

    Returns
    -------
    Tensor of shape (M, N, S, K), float64
        For a target that is not finite, the first candidates.
    """
    candidates = lattice(bank.input_size).to(bank.device)
    x = targets.flatten(1).double()
    known = ~x.isnan()
    omit_nan = omit_nan and not bool(known.all())
    if omit_nan:
        x = torch.where(known, x, 0)
    M, N, G, length = bank.n_modules, len(x), len(candidates), max(x.shape[1], 1)
    found = x.new_empty(M, N, n_starts, bank.input_size)
    # Modules, and candidates if need be, are drawn in portions.
    n_modules = max(1, _DRAWN_NUMBERS // (length * G))
    portions = candidates.split(max(1, _DRAWN_NUMBERS // length))
    n_pairs = max(1, (_CPU_DISTANCES if x.device.type == "cpu" else _DISTANCES) // G)
    for first in range(0, M, n_modules):
        chosen = list(range(first, min(first + n_modules, M)))
        part = bank if len(chosen) == M else bank.select(indices=chosen)
        draw = functools.partial(
            _drawings, part, n_steps=targets.shape[1], execution=Execution.of(execution)
        )
        whole = draw(candidates) if len(portions) == 1 else None
        for modules, rows in _blocks(len(chosen), N, n_pairs):
            drawn = (
                map(draw, portions) if whole is None else [tuple(map(itemgetter(modules), whole))]
            )
            index = _least_distant(drawn, x[rows], known[rows] if omit_nan else None, n_starts)
            found[first : first + len(chosen)][modules, rows] = candidates[index]
    return found


def _blocks(n_modules: int, n_targets: int, n_pairs: int) -> Iterator[tuple[slice, slice]]:
    """Cut modules and targets into blocks of at most so many pairs, targets first."""
    rows = max(1, min(n_targets, n_pairs))
    modules = max(1, n_pairs // rows)
    for m, n in itertools.product(range(0, n_modules, modules), range(0, n_targets, rows)):
        yield slice(m, m + modules), slice(n, n + rows)


def _least_distant(
    drawn: Iterable[Iterable[Tensor]], x: Tensor, known: Tensor | None, n_starts: int
) -> Tensor:
    """Indices (m, n, S) of the drawings nearest to x (n, T O), among (m, g, T O) in portions."""
    distances, scales = [], []
    for y, y_squares in drawn:
        if known is not None:  # (m, n, g) instead of (m, 1, g): as far as the targets are known
            y_squares = known.double() @ y.square().mT
        distances.append((x @ y.mT).mul_(-2).add_(y_squares))
        scales.append(y_squares.amax(dim=2))
    x_squares = x.square().sum(dim=1)[:, None]
    tie = _TIE * (x_squares + torch.stack(scales).amax(dim=0)[..., None])
    # In place, as each is as large as all distances: fresh memory costs as much as the arithmetic.
    distance = distances[0] if len(distances) == 1 else torch.cat(distances, dim=2)
    steps = distance.add_(x_squares).div_(tie).round_()
    if n_starts > 1:
        return steps.sort(dim=2, stable=True).indices[..., :n_starts]
    return steps.argmin(dim=2, keepdim=True)  # the first of the least, or of NaN


def _drawings(
    bank: GeneratorBank, points: Tensor, n_steps: int, execution: Execution
) -> tuple[Tensor, Tensor]:
    """The modules' drawings (M, G, T O) from the points and their sums of squares (M, 1, G)."""

    def draw() -> tuple[Tensor, Tensor]:
        drawn = bank.generate(points, n_steps, execution=execution).flatten(2).double()
        return drawn, drawn.square().sum(dim=2)[:, None]

    # Only the whole lattice is cached: portions of it would evict each other.
    whole = len(points) == len(lattice(bank.input_size))
    if not whole or bank.n_modules * len(points) * n_steps * bank.output_size > _DRAWN_NUMBERS:
        return draw()
    return bank.cached(("drawings", n_steps, execution.backend), draw)
