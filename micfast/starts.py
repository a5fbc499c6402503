"""Where an inversion starts: evenly, at random, at the types, or near the target."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from micfast._arrays import as_tensor
from micfast.bank import GeneratorBank

__all__ = ["NAMES", "lattice", "make_starts", "nearest"]

NAMES = ("uniform", "paper", "types", "dirichlet", "nearest")
# More mixtures of the types than this are not drawn to find the one nearest to a target.
_MAX_CANDIDATES = 128
# Numbers (float64) that the search for the nearest may hold: drawings, also kept with a bank; and
# distances at a time, as many as a cache holds or as keep another device busy.
_DRAWN_NUMBERS = 4 * 2**20
_CPU_DISTANCES, _DISTANCES = 2**17, 4 * 2**20
# Candidates whose distances differ by less than this part count as equally near: the first one
# is taken, so that the rounding of a matrix product does not decide.
_TIE = 1e-9

# The starts (M or 1, n or 1, S, K) of the targets begin to end, which it is given as (n, T, O).
StartMaker = Callable[[int, int, Tensor], Tensor]


@functools.cache
def lattice(n_inputs: int) -> Tensor:
    """Mixtures of the types, evenly spaced over the simplex.

    Parameters
    ----------
    n_inputs : int
        Number of types K.

    Returns
    -------
    Tensor of shape (G, K), float64
        The even mixture; then all multiples of 1/r that sum to 1, with the largest r that keeps
        their number at 128 or below (1, the types themselves, if none does).

    Examples
    --------
    >>> lattice(3)[:3].tolist(), len(lattice(4)), len(lattice(1))
    ([[0.3333333333333333, 0.3333333333333333, 0.3333333333333333], [1.0, 0.0, 0.0], \
[0.9285714285714286, 0.07142857142857142, 0.0]], 121, 1)
    """
    K, resolution = n_inputs, 1
    while K > 1 and math.comb(resolution + K, K - 1) <= _MAX_CANDIDATES:
        resolution += 1
    shares = itertools.combinations_with_replacement(range(K), resolution)
    points = torch.nn.functional.one_hot(torch.tensor(list(shares)), K).sum(dim=1).double()
    points /= resolution
    even = torch.full((1, K), 1 / K, dtype=torch.float64)
    return torch.cat([even, points[~torch.isclose(points, even).all(dim=1)]])


def nearest(
    bank: GeneratorBank,
    targets: Tensor,
    n_starts: int = 1,
    *,
    omit_nan: bool = False,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Tensor:
    """For every module and target, the mixtures whose drawings are nearest to the target.

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
    backend, n_threads
        As in :func:`micfast.invert`.

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
            _drawings, part, n_steps=targets.shape[1], backend=backend, n_threads=n_threads
        )
        whole = draw(candidates) if len(portions) == 1 else None
        for modules, rows in _blocks(len(chosen), N, n_pairs):
            drawn = map(draw, portions) if whole is None else [whole[modules]]
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
    drawn: Iterable[Tensor], x: Tensor, known: Tensor | None, n_starts: int
) -> Tensor:
    """Numbers (m, n, S) of the drawings nearest to x (n, T O), of (m, g, T O) in portions."""
    distances, scales = [], []
    for y in drawn:
        # (m, n or 1, g): of the drawings, as far as the targets are known
        if known is None:
            y_squares = y.square().sum(dim=2)[:, None]
        else:
            y_squares = known.double() @ y.square().mT
        distances.append(y_squares - 2 * x @ y.mT)
        scales.append(y_squares.amax(dim=2))
    distance = torch.cat(distances, dim=2)
    x_squares = x.square().sum(dim=1)[:, None]
    scale = x_squares + torch.stack(scales).amax(dim=0)[..., None]
    steps = torch.round((distance + x_squares) / (_TIE * scale))
    if n_starts > 1:
        return steps.sort(dim=2, stable=True).indices[..., :n_starts]
    return steps.argmin(dim=2, keepdim=True)  # the first of the least, or of NaN


def _drawings(
    bank: GeneratorBank, points: Tensor, n_steps: int, backend: str, n_threads: int | None
) -> Tensor:
    """What the modules draw from the points: (M, G, T O), float64."""

    def draw() -> Tensor:
        drawn = bank.generate(points, n_steps, backend=backend, n_threads=n_threads)
        return drawn.flatten(2).double()

    # Portions are drawn each time: they would push each other out.
    whole = len(points) == len(lattice(bank.input_size))
    if not whole or bank.n_modules * len(points) * n_steps * bank.output_size > _DRAWN_NUMBERS:
        return draw()
    return bank.remember(("drawings", n_steps, backend), draw)


def make_starts(
    init: Any,
    n_starts: Any,
    bank: GeneratorBank,
    n_targets: int,
    random_state: Any,
    *,
    omit_nan: bool = False,
    backend: str = "auto",
    n_threads: int | None = None,
) -> tuple[int, StartMaker]:
    """Check the choice of starts.

    Parameters
    ----------
    init : str or array
        See :func:`micfast.invert`.
    n_starts : int or None
    bank : GeneratorBank
    n_targets : int
    random_state : int, numpy Generator, RandomState or None
    omit_nan, backend, n_threads
        For "nearest".

    Returns
    -------
    n_starts : int
        S
    make : callable
        Gives the starts (M or 1, n or 1, S, K) of the targets from begin to end, shown to it as
        they go to the modules; to be called on consecutive stretches.

    Raises
    ------
    ValueError, TypeError
        If one of them isn't as described there.
    """
    N, M, K = n_targets, bank.n_modules, bank.input_size
    if n_starts is not None:
        if isinstance(n_starts, bool) or not isinstance(n_starts, int | np.integer):
            raise TypeError(f"invert: n_starts must be an integer, got {type(n_starts).__name__}")
        if n_starts < 1:
            raise ValueError(f"invert: n_starts must be at least 1, got {n_starts}")
    if not isinstance(init, str):
        return _given(init, n_starts, N, M, K)
    if init not in NAMES:
        names = ", ".join(map(repr, NAMES))
        raise ValueError(f"invert: init must be one of {names} or an array, got {init!r}")
    even = torch.full((1, 1, 1, K), 1 / K, dtype=torch.float64)
    if init == "types":
        corners = torch.eye(K, dtype=torch.float64)[None, None]
        starts = torch.cat([even, corners], dim=2) if K > 1 else even
        _check_number(init, n_starts, starts.shape[2])
        return starts.shape[2], lambda begin, end, targets: starts
    if init in ("uniform", "paper"):
        _check_number(init, n_starts, 1)
    S = int(n_starts or 1)
    if init == "uniform":
        return S, lambda begin, end, targets: even
    if init == "nearest":
        n_candidates = len(lattice(K))
        if n_candidates < S:
            raise ValueError(
                f"invert: n_starts must be at most {n_candidates} for init='nearest' with {K} "
                f"types, got {n_starts}"
            )
        return S, lambda begin, end, targets: nearest(
            bank, targets, S, omit_nan=omit_nan, backend=backend, n_threads=n_threads
        )
    rng = _random_generator(random_state)

    # Drawn target by target from one stream: the borders of the stretches don't show.
    def draw(begin: int, end: int, targets: Tensor) -> Tensor:
        if init == "paper":
            z = rng.uniform(1 / K - 0.005, 1 / K + 0.005, (end - begin, M, S, K))
        else:
            z = rng.dirichlet(np.ones(K), (end - begin, M, S))
        return torch.from_numpy(z).transpose(0, 1).contiguous()

    return S, draw


def _check_number(init: str, n_starts: int | None, number: int) -> None:
    if n_starts not in (None, number):
        raise ValueError(
            f"invert: n_starts must be {number} or None for init={init!r}, got {n_starts}; "
            "'dirichlet' and 'nearest' take any number"
        )


def _given(init: Any, n_starts: int | None, N: int, M: int, K: int) -> tuple[int, StartMaker]:
    z = as_tensor(init, "invert: init").detach()
    S = z.shape[2] if z.ndim == 4 else 1
    allowed = {1: (K,), 2: (N, K), 3: (N, M, K), 4: (N, M, S, K)}
    if tuple(z.shape) != allowed.get(z.ndim) or S < 1:
        raise ValueError(
            "invert: init must have shape [n_types], [n_samples, n_types], [n_samples, "
            "n_modules, n_types] or [n_samples, n_modules, n_starts, n_types] = "
            f"{list(allowed[1])}, {list(allowed[2])}, {list(allowed[3])} or [{N}, {M}, *, {K}], "
            f"got {list(z.shape)}"
        )
    if n_starts not in (None, S):
        raise ValueError(f"invert: n_starts must be {S}, as init holds, or None, got {n_starts}")
    if z.is_complex() or not torch.isfinite(z).all():
        raise ValueError("invert: init must hold finite real numbers")
    if z.ndim == 1:
        return S, lambda begin, end, targets: z[None, None, None]
    if z.ndim == 2:
        return S, lambda begin, end, targets: z[None, begin:end, None].contiguous()
    if z.ndim == 3:
        z = z.unsqueeze(2)
    return S, lambda begin, end, targets: z[begin:end].transpose(0, 1).contiguous()


def _random_generator(random_state: Any) -> Any:
    if isinstance(random_state, np.random.RandomState):
        return random_state
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise type(error)(
            "invert: random_state must be a non-negative int, a NumPy Generator or RandomState, "
            f"or None, got {random_state!r}"
        ) from error
