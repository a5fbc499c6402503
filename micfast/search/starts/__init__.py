"""Where searches start: settings objects that place them. One file each, registered by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self, TypeAlias

from torch import Tensor

from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.registry import Registry
from micfast.settings import Settings

__all__ = ["STARTS", "Start", "StartMaker", "start_of"]

# Gives the starts (M or 1, n or 1, S, K), float64 or in the bank's dtype, of the targets from
# `begin` on, which it receives as they go to the modules, (n, T, O). Called on consecutive chunks.
StartMaker: TypeAlias = Callable[[int, Tensor], Tensor]


class Start(Settings):
    """A rule for starts. Subclasses are frozen dataclasses, registered by name.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np, torch
    >>> from micfast import Adam, GeneratorBank, invert
    >>> from micfast.search.starts import Start
    >>> @dataclass(frozen=True)
    ... class FirstType(Start):
    ...     def prepare(self, bank, n_targets, omit_nan, execution):
    ...         z = torch.eye(bank.input_size, dtype=torch.float64)[:1].reshape(1, 1, 1, -1)
    ...         return 1, lambda begin, targets: z
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> found = invert(bank, np.ones((4, 20)), solver=Adam(n_iter=0, start=FirstType()))
    >>> found.latents[0, 0].tolist()
    [1.0, 0.0, 0.0]
    """

    @abstractmethod
    def prepare(
        self, bank: GeneratorBank, n_targets: int, omit_nan: bool, execution: Execution
    ) -> tuple[int, StartMaker]:
        """Check the rule against a bank.

        Parameters
        ----------
        bank : GeneratorBank
        n_targets : int
            Number of targets in all.
        omit_nan : bool
            Whether NaN in the targets are missing values.
        execution : Execution

        Returns
        -------
        n_starts : int
            Starts S of each search.
        make : callable
            See :data:`StartMaker`.
        """

    def rows(self, begin: int, end: int) -> Self:
        """Give the start for targets `begin` to `end` alone: each starts as among all."""
        return self


STARTS: Registry[type[Start]] = Registry(__name__, "start", Start)


def start_of(value: Any) -> Start:
    """The start a user asked for: by name, as given, or the latents of an array.

    Raises
    ------
    TypeError, ValueError
        If it is none of these.
    """
    if isinstance(value, Start | str):
        return STARTS.resolve(value)
    from micfast.search.starts.given import Given

    return Given(value)
