"""The even mixture of the types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.search.starts import STARTS, Start, StartMaker

__all__ = ["Uniform"]


@STARTS.register("uniform")
@dataclass(frozen=True)
class Uniform(Start):
    """Start at 1/K in every component, as the paper describes.

    Examples
    --------
    >>> from micfast import Adam
    >>> from micfast.search.starts.uniform import Uniform
    >>> Adam().start == Adam(start="uniform").start == Uniform()
    True
    """

    name: ClassVar[str] = "uniform"

    def prepare(
        self, bank: GeneratorBank, n_targets: int, omit_nan: bool, execution: Execution
    ) -> tuple[int, StartMaker]:
        """See :meth:`Start.prepare`."""
        K = bank.input_size
        even = torch.full((1, 1, 1, K), 1 / K, dtype=torch.float64, device="cpu")
        return 1, lambda begin, targets: even
