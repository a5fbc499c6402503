"""Random starts: near the even mixture, as the paper's code, all over the simplex, or normal."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.search.starts import STARTS, Start, StartMaker
from micfast.settings import check_count, check_number

__all__ = ["Dirichlet", "Normal", "Paper"]


@dataclass(frozen=True)
class _Drawn(Start):
    """Starts drawn target by target, so that the chunk size has no effect."""

    n_starts: int = 1
    random_state: Any = None
    first_row: int = 0

    def __post_init__(self) -> None:
        where = type(self).__name__
        self.set("n_starts", check_count(where, "n_starts", self.n_starts, 1))
        self.set("first_row", check_count(where, "first_row", self.first_row))
        self._random_generator()

    @abstractmethod
    def draw(self, rng: Any, n: int, M: int, K: int) -> np.ndarray:
        """Draw (n, M, S, K) latents.

        A numpy Generator must give one random word of 64 bits for each of the numbers, so that
        others can be skipped.
        """

    def rows(self, begin: int, end: int) -> Self:
        """See :meth:`Start.rows`."""
        if isinstance(self.random_state, np.random.RandomState | np.random.Generator):
            raise TypeError(
                f"{type(self).__name__}: random_state must be a non-negative int, a NumPy "
                "SeedSequence or None if targets come in chunks, which share no state, "
                f"got {self.random_state!r}"
            )
        return self.replace(first_row=self.first_row + begin)

    def prepare(
        self, bank: GeneratorBank, n_targets: int, omit_nan: bool, execution: Execution
    ) -> tuple[int, StartMaker]:
        """See :meth:`Start.prepare`."""
        rng, M, K = self._random_generator(), bank.n_modules, bank.input_size
        if self.first_row:
            rng.bit_generator.advance(self.first_row * M * self.n_starts * K)

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
    first_row : int
        The first target's number among all: it starts as it would there.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import Adam, GeneratorBank, invert
    >>> from micfast.search.starts.drawn import Paper
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> solver = Adam(n_iter=0, start=Paper(random_state=0))  # measures the error there
    >>> bool((abs(invert(bank, np.ones((4, 20)), solver=solver).latents - 1 / 3) < 0.01).all())
    True
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
    first_row : int
        The first target's number among all: it starts as it would there.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import Adam, GeneratorBank, invert
    >>> from micfast.search.starts.drawn import Dirichlet
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> one, ten = (
    ...     invert(bank, np.ones((4, 20)), solver=Adam(start=Dirichlet(n, random_state=0)))
    ...     for n in (1, 10)
    ... )
    >>> bool(ten.errors.mean() <= one.errors.mean())
    True
    """

    name: ClassVar[str] = "dirichlet"

    def draw(self, rng: Any, n: int, M: int, K: int) -> np.ndarray:
        """Draw (n, M, S, K) latents."""
        shape = (n, M, self.n_starts, K)
        if isinstance(rng, np.random.RandomState):
            return rng.dirichlet(np.ones(K), shape[:-1])
        # The ziggurat takes a varying number of words.
        z = rng.standard_exponential(shape, method="inv")
        return z / z.sum(axis=-1, keepdims=True)


@STARTS.register("normal")
@dataclass(frozen=True)
class Normal(_Drawn):
    """Draw each component from a normal distribution around 0, for latents off the simplex.

    Parameters
    ----------
    n_starts : int
        Starts of each search.
    random_state : int, SeedSequence, numpy Generator, RandomState or None
    first_row : int
        The first target's number among all: it starts as it would there.
    scale : float
        Standard deviation; above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import Adam, GeneratorBank, invert
    >>> from micfast.search.starts.drawn import Normal
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> solver = Adam(constraint=None, start=Normal(n_starts=4, random_state=0))
    >>> invert(bank, np.ones((4, 20)), solver=solver).latents.shape
    (4, 2, 3)
    """

    name: ClassVar[str] = "normal"
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set("scale", check_number("Normal", "scale", self.scale, positive=True))

    def draw(self, rng: Any, n: int, M: int, K: int) -> np.ndarray:
        """Draw (n, M, S, K) latents."""
        # By the inverse distribution function, since NumPy's way takes a varying number of words.
        u = torch.from_numpy(rng.uniform(0, 1, (n, M, self.n_starts, K)))
        return self.scale * torch.special.ndtri(u + 2.0**-54).numpy()
