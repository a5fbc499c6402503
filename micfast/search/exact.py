"""Sums that are exact, so that their order, and with it threads and company, cannot matter.

Values become integers of so few bits that float64 holds every product and every sum of a sequence's
products: some 19 for sequences of a thousand values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Scale", "inner", "ordered_sum", "power_above"]

# Values may be this many times the largest that a scale was made for, and are cut there.
_MOST = 4
# With two bits for these, and one for differences, float64's 53 hold the square of so many.
_BITS = 23


def power_above(values: Tensor) -> Tensor:
    """The least powers of two above positive values; 1 for zero and what is not finite."""
    exponents = values.double().view(torch.int64) & 0x7FF0000000000000
    powers = 2 * exponents.view(torch.float64)
    return torch.where((powers > 0) & powers.isfinite(), powers, 1)


class Scale(NamedTuple):
    """A power of two that is a sequence's unit, and into how many levels it is divided."""

    unit: Tensor
    levels: Tensor

    @classmethod
    def of(cls, largest: Tensor, n_values: Tensor | int) -> Scale:
        """For sequences (...) of some largest magnitude and number of values."""
        n = torch.as_tensor(n_values, dtype=torch.float64, device=largest.device)
        levels = 2**_BITS / power_above(n.sqrt())
        return cls(power_above(largest), levels.expand_as(largest))

    @property
    def quantum(self) -> Tensor:
        """What one level is worth."""
        return self.unit / self.levels

    def in_units(self, values: Tensor) -> Tensor:
        """Values (..., T, O) in units, as far as these are divided; NaN stays."""
        return (values / self.unit[..., None, None].to(values)).clamp_(-_MOST, _MOST)

    def integers(self, values: Tensor) -> Tensor:
        """Values (..., T, O) in units, in whole levels; float64."""
        # Exact in any precision: there are so few levels, and they are powers of two.
        return (values * self.levels[..., None, None].to(values)).round_().double()


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Exact inner products (...) of integer sequences (..., T, O)."""
    return (a * b).flatten(-2).sum(dim=-1)


def ordered_sum(values: Tensor, dim: int) -> Tensor:
    """A sum of numbers that are no integers, one after the other: for short dimensions."""
    first, *others = values.unbind(dim)
    for other in others:
        first = first + other
    return first
