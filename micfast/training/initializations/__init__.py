"""Where trainings start: settings objects that give new modules weights, registered by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from micfast.kernels.weights import Weights
from micfast.registry import Registry
from micfast.settings import Settings

__all__ = ["INITIALIZATIONS", "Initialization"]


class Initialization(Settings):
    """A way to initialize modules. Subclasses are frozen dataclasses, registered by name."""

    @abstractmethod
    def weights(self, types: NDArray[Any], hidden_size: int, seeds: Sequence[int]) -> Weights:
        """Initialize one module for each set of types.

        Parameters
        ----------
        types : ndarray of shape (M, K, T, O)
            In standardised units; NaN is a missing value, and a shorter type ends in NaN.
        hidden_size : int
        seeds : sequence of int
            One per module. A module depends on its own types and seed alone.

        Returns
        -------
        Weights
            Of M modules, float32, on the CPU.
        """


INITIALIZATIONS: Registry[type[Initialization]] = Registry(
    __name__, "initialization", Initialization
)
