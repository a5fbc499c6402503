"""The even mixture and each of the types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.search.starts import STARTS, Start, StartMaker

__all__ = ["Types"]


@STARTS.register("types")
@dataclass(frozen=True)
class Types(Start):
    """Start at 1/K and at each type: K + 1 starts (one if there is one type).

    Examples
    --------
    >>> from micfast import Adam
    >>> from micfast.search.starts.types import Types
    >>> Adam(start="types").start == Types()
    True
    """

    name: ClassVar[str] = "types"

    def prepare(
        self, bank: GeneratorBank, n_targets: int, omit_nan: bool, execution: Execution
    ) -> tuple[int, StartMaker]:
        """See :meth:`Start.prepare`."""
        K = bank.input_size
        starts = torch.full((1, 1, 1, K), 1 / K, dtype=torch.float64, device="cpu")
        if K > 1:
            corners = torch.eye(K, dtype=torch.float64, device="cpu")[None, None]
            starts = torch.cat([starts, corners], dim=2)
        return starts.shape[2], lambda begin, targets: starts
