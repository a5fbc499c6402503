"""One search of several banks, each for sequences of its own or its view of the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.search.hull import Mixtures
from micfast.search.inversion import Inversion, best_start
from micfast.search.pose import Fit, Pose
from micfast.search.posed import search_posed
from micfast.search.solvers import Solver
from micfast.sequences import ends

__all__ = ["Sighting", "search_jointly"]

# Numbers of the targets of all modules at a time; and with which banks are searched together.
_NUMBERS, _FEW_NUMBERS = 2**22, 2**20


@dataclass(frozen=True, eq=False)
class Sighting:
    """What the search of a bank found.

    Attributes
    ----------
    errors : Tensor of shape (M, N)
    latents : Tensor of shape (M, N, K)
    fit : Fit or None
        How the drawings lie over the sequences; None where pose was not searched.
    """

    errors: Tensor
    latents: Tensor
    fit: Fit | None = None

    def __getitem__(self, modules: slice) -> Sighting:
        fit = None if self.fit is None else self.fit.at(modules)
        return Sighting(self.errors[modules], self.latents[modules], fit)

    def inversion(self, bank: GeneratorBank, Z: NDArray[Any]) -> Inversion:
        """As the search of sequences Z (N, T, O) by the modules of that bank."""
        errors = self.errors.T.cpu().numpy().astype(np.float32)
        return Inversion(
            errors=errors,
            latents=self.latents.transpose(0, 1).cpu().numpy(),
            classes=bank.classes,
            bank=bank,
            n_steps=Z.shape[1],
            n_iter_used=np.full(errors.shape, -1, dtype=np.int32),
            converged=np.zeros(errors.shape, dtype=bool),
            lengths=ends(Z) if np.isnan(Z).any() else None,
            fit=self.fit,
        )


def search_jointly(
    banks: Sequence[GeneratorBank],
    targets: Sequence[Tensor],
    solver: Solver,
    execution: Execution,
    *,
    pose: Pose | None = None,
    starts: Sequence[Mixtures] = (),
    n_steps: int = 1,
    gains: Sequence[bool] = (),
) -> list[Sighting]:
    """Search all banks; those of few and equally large targets in one call.

    Parameters
    ----------
    banks : sequence of V GeneratorBank
        M modules each, on one device.
    targets : sequence of V Tensor, each of shape (N, T, O)
        Sizes may differ from bank to bank; NaN is a missing value.
    solver : Solver
    execution : Execution
    pose : Pose, optional
        If given, the drawings' pose is searched, too.
    starts : sequence of V Mixtures
        From which that search starts.
    n_steps : int
        Length of which ``pose.shift`` is a part.
    gains : sequence of V bool
        Whether size and level of a view can change.

    Returns
    -------
    list of V Sighting
    """
    found: list[Sighting] = [None] * len(banks)  # type: ignore[list-item]
    for together in _alike(targets, len(banks[0])):
        stacked = torch.stack([targets[v] for v in together])
        own = [banks[v] for v in together]
        if pose is None:
            all_found = _search_plain(own, stacked, solver, execution)
        else:
            free, begin = [gains[v] for v in together], [starts[v] for v in together]
            result = search_posed(own, stacked, begin, solver, pose, n_steps, free, execution)
            all_found = Sighting(result.fit.error, result.latents, result.fit)
        M = len(own[0])
        for i, v in enumerate(together):
            found[v] = all_found[i * M : i * M + M]
    return found


def _alike(targets: Sequence[Tensor], n_modules: int) -> Iterator[list[int]]:
    """The numbers of some banks whose targets have equal sizes."""
    sizes = [one.shape for one in targets]
    for size in dict.fromkeys(sizes):
        alike = [v for v, other in enumerate(sizes) if other == size]
        n = max(1, _FEW_NUMBERS // (n_modules * max(1, size.numel())))
        yield from (alike[first : first + n] for first in range(0, len(alike), n))


def _cut(size: int, begin: int) -> slice:
    return slice(begin, begin + size)


def _search_plain(
    banks: list[GeneratorBank], targets: Tensor, solver: Solver, execution: Execution
) -> Sighting:
    V, N, T, O = targets.shape
    M = len(banks[0])
    weights = Weights.concat(bank.weights for bank in banks)
    omit_nan = bool(targets.isnan().any())
    makers = [solver.start.prepare(bank, N, omit_nan, execution)[1] for bank in banks]
    size = max(1, _NUMBERS // (V * M * T * O))
    parts = []
    for begin in range(0, N, size):
        part = targets[:, _cut(size, begin)]
        starts = [
            make(begin, part[v]).to(part).expand(M, part.shape[1], -1, -1)
            for v, make in enumerate(makers)
        ]
        result = solver.search(
            weights,
            part.repeat_interleave(M, dim=0) if V > 1 else part[0],
            torch.cat(starts),
            history=False,
            omit_nan=omit_nan,
            execution=execution,
            report=None,
        )
        parts.append(best_start(result)[:2])
    errors, latents = (torch.cat(one, dim=1) for one in zip(*parts, strict=True))
    return Sighting(errors, latents)
