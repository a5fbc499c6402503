"""Starts given as an array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from micfast.arrays import as_tensor
from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.search.starts import Start, StartMaker

__all__ = ["Given"]


@dataclass(frozen=True, eq=False)
class Given(Start):
    """Start at given latents.

    Parameters
    ----------
    latents : array of shape (K,), (N, K), (N, M, K) or (N, M, S, K)
        The same for all searches, one per target, one per target and module, or S of them.

    Raises
    ------
    TypeError, ValueError
        If it holds anything but finite real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import Adam, GeneratorBank, invert
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> solver = Adam(n_iter=0, start=[0.5, 0.25, 0.25])  # an array becomes a Given
    >>> invert(bank, np.ones((4, 20)), solver=solver).latents[3, 1].tolist()
    [0.5, 0.25, 0.25]
    """

    latents: Any

    def __post_init__(self) -> None:
        z = as_tensor(self.latents, "start").detach()
        if not 1 <= z.ndim <= 4 or 0 in z.shape[1:] or not bool(torch.isfinite(z).all()):
            raise ValueError(
                "start must hold finite numbers in 1 to 4 dimensions, "
                f"got an array of shape {list(z.shape)}"
            )
        self.set("latents", z)

    def prepare(
        self, bank: GeneratorBank, n_targets: int, omit_nan: bool, execution: Execution
    ) -> tuple[int, StartMaker]:
        """See :meth:`Start.prepare`."""
        z: Tensor = self.latents
        N, M, K = n_targets, bank.n_modules, bank.input_size
        S = z.shape[2] if z.ndim == 4 else 1
        shapes = {1: (K,), 2: (N, K), 3: (N, M, K), 4: (N, M, S, K)}
        if tuple(z.shape) != shapes[z.ndim]:
            raise ValueError(
                "start must have shape [n_types], [n_samples, n_types], [n_samples, n_modules, "
                "n_types] or [n_samples, n_modules, n_starts, n_types] = "
                f"{list(shapes[1])}, {list(shapes[2])}, {list(shapes[3])} or [{N}, {M}, *, {K}], "
                f"got {list(z.shape)}"
            )
        if z.ndim == 1:
            return S, lambda begin, targets: z[None, None, None]
        if z.ndim == 2:
            z = z[:, None]
        if z.ndim == 3:
            z = z.unsqueeze(2)
        return S, lambda begin, targets: z[begin : begin + len(targets)].transpose(0, 1)

    def rows(self, begin: int, end: int) -> Self:
        """See :meth:`Start.rows`."""
        return self if self.latents.ndim == 1 else self.replace(latents=self.latents[begin:end])
