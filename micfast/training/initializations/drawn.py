"""Initializations that know nothing of the types but their length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from micfast.generators.modules import random_weights
from micfast.kernels.weights import Weights
from micfast.sequences import ends
from micfast.training.initializations import INITIALIZATIONS, Initialization

__all__ = ["Chrono", "Torch"]


@INITIALIZATIONS.register("torch")
@dataclass(frozen=True)
class Torch(Initialization):
    """PyTorch's default, U(-1/sqrt(H), 1/sqrt(H)) for all weights, as in the paper.

    Its cells forget within about ten steps, so later steps of long sequences are hard to learn.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.training.initializations.drawn import Torch
    >>> weights = Torch().weights(np.zeros((1, 4, 30, 2)), hidden_size=16, seeds=[0])
    >>> bool((weights.W_hh.abs() <= 1 / 4).all())
    True
    """

    name: ClassVar[str] = "torch"

    def weights(self, types: NDArray[Any], hidden_size: int, seeds: Sequence[int]) -> Weights:
        """See :meth:`Initialization.weights`."""
        _, K, _, O = types.shape
        return random_weights(seeds, hidden_size, K, O, torch.float32)


@INITIALIZATIONS.register("chrono")
@dataclass(frozen=True)
class Chrono(Torch):
    """The default but for the gates' biases: units remember for 1 to T steps, evenly in log bias.

    ``b_f = log U(1, T - 1)`` and ``b_i = -b_f``, T the length of the module's longest type (Tallec
    and Ollivier, *Can recurrent neural networks warp time?*, ICLR 2018).

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.training.initializations.drawn import Chrono
    >>> weights = Chrono().weights(np.zeros((1, 4, 30, 2)), hidden_size=16, seeds=[0])
    >>> longest = 1 + weights.b[0, 16:32].exp().max()  # in steps
    >>> bool(20 < longest < 30)
    True
    """

    name: ClassVar[str] = "chrono"

    def weights(self, types: NDArray[Any], hidden_size: int, seeds: Sequence[int]) -> Weights:
        """See :meth:`Initialization.weights`."""
        weights, H = super().weights(types, hidden_size, seeds), hidden_size
        for b, own, seed in zip(weights.b, types, seeds, strict=True):
            # Not the generator that drew the other weights: these numbers would repeat.
            rng = np.random.default_rng([seed % 2**64, 1])
            longest = max(2, int(ends(own).max()))
            b[H : 2 * H] = torch.from_numpy(np.log(rng.uniform(1, longest - 1, H)))
            b[:H] = -b[H : 2 * H]
        return weights
