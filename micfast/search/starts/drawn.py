"""Random starts: near the even mixture, as the paper's code draws them, or all over the simplex."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.search.starts import STARTS, Start, StartMaker
from micfast.settings import check_count

__all__ = ["Dirichlet", "Paper"]


@dataclass(frozen=True)
class _Drawn(Start):
    """Starts drawn target by target, so that the chunk size has no effect."""

    n_starts: int = 1
    random_state: Any = None

    def __post_init__(self) -> None:
        where = type(self).__name__
        self.set("n_starts", check_count(where, "n_starts", self.n_starts, 1))
        self._random_generator()

    @abstractmethod
    def draw(self, rng: Any, n: int, M: int, K: int) -> np.ndarray:
        """Draw (n, M, S, K) latents."""

    def prepare(
        self, bank: GeneratorBank, n_targets: int, omit_nan: bool, execution: Execution
    ) -> tuple[int, StartMaker]:
        """See :meth:`Start.prepare`."""
        rng, M, K = self._random_generator(), bank.n_modules, bank.input_size

        def make(begin: int, targets: Tensor) -> Tensor:
            z = self.draw(rng, len(targets), M, K)
            return torch.from_numpy(z).transpose(0, 1).contiguous()

        return self.n_starts, make

    def _random_generator(self) -> Any:
        if isinstance(self.random_state, np.random.RandomState):
            return self.random_state
        try:
            return np.random.default_rng(self.random_state)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{type(self).__name__}: random_state must be a non-negative int, a NumPy "
                f"SeedSequence, Generator or RandomState, or None, got {self.random_state!r}"
            ) from error


@STARTS.register("paper")
@dataclass(frozen=True)
class Paper(_Drawn):
    """Draw each component from U(1/K - 0.005, 1/K + 0.005), as the paper's code does.

    Parameters
    ----------
    n_starts : int
        Starts of each search.
    random_state : int, SeedSequence, numpy Generator, RandomState or None
    """

    name: ClassVar[str] = "paper"

    def draw(self, rng: Any, n: int, M: int, K: int) -> np.ndarray:
        """Draw (n, M, S, K) latents."""
        return rng.uniform(1 / K - 0.005, 1 / K + 0.005, (n, M, self.n_starts, K))


@STARTS.register("dirichlet")
@dataclass(frozen=True)
class Dirichlet(_Drawn):
    """Draw evenly from the simplex.

    Parameters
    ----------
    n_starts : int
        Starts of each search.
    random_state : int, SeedSequence, numpy Generator, RandomState or None
    """

    name: ClassVar[str] = "dirichlet"

    def draw(self, rng: Any, n: int, M: int, K: int) -> np.ndarray:
        """Draw (n, M, S, K) latents."""
        return rng.dirichlet(np.ones(K), (n, M, self.n_starts))
