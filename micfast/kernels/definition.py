"""What every operator's definition needs: its registration, the checks of its arguments, and where
values are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "NOTHING_MISSING",
    "WEIGHTS",
    "check_adam",
    "check_shape",
    "extents",
    "extents_in_order",
    "operator",
    "require",
]

WEIGHTS = "Tensor W_ih, Tensor W_hh, Tensor b, Tensor W_out, Tensor b_out"
# What the kernels are told where no value is missing: no lengths, counts and order.
NOTHING_MISSING = [0, 0, 0]


def operator(
    name: str, schema: str, fake: Callable[..., Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Define an operator whose CPU and CUDA kernel is the decorated function.

    define() and impl() rather than custom_op(): the first call through the latter imports torch's
    compiler, which takes a second or two.
    """

    def add(kernel: Callable[..., Any]) -> Callable[..., Any]:
        torch.library.define(f"micfast::{name}", schema, tags=torch.Tag.pt2_compliant_tag)
        torch.library.impl(f"micfast::{name}", ["cpu", "cuda"])(kernel)
        torch.library.register_fake(f"micfast::{name}")(fake)
        return kernel

    return add


# -- checks --------------------------------------------------------------------------------------


def check_shape(
    where: str, name: str, tensor: Tensor, like: Tensor, shape: str, *sizes: int | None
) -> None:
    """Require the weights' dtype and device, and the sizes given; None allows any."""
    if tensor.dtype != like.dtype:
        raise TypeError(
            f"{where}: {name} must have the dtype of the weights, {like.dtype}, got {tensor.dtype}"
        )
    if tensor.device != like.device:
        raise ValueError(
            f"{where}: {name} must be on the device of the weights, {like.device}, "
            f"got {tensor.device}"
        )
    fits = len(tensor.shape) == len(sizes)
    for size, got in zip(sizes, tensor.shape, strict=False):
        fits = fits and size in (None, got)
    if not fits:
        expected = ", ".join("any" if s is None else str(s) for s in sizes)
        raise ValueError(
            f"{where}: {name} must have shape {shape} = ({expected}), got {tuple(tensor.shape)}"
        )


def require(condition: bool, where: str, name: str, rule: str, value: object) -> None:
    """Require a condition of an argument's value."""
    if not condition:
        raise ValueError(f"{where}: {name} must be {rule}, got {value}")


def check_adam(where: str, lr: float, beta1: float, beta2: float, eps: float) -> None:
    """Check Adam's settings."""
    require(lr >= 0, where, "lr", "at least 0", lr)
    require(0 <= beta1 < 1, where, "beta1", "from 0 to below 1", beta1)
    require(0 <= beta2 < 1, where, "beta2", "from 0 to below 1", beta2)
    require(eps >= 0, where, "eps", "at least 0", eps)


# -- missing values --------------------------------------------------------------------------------


def extents(sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths of sequences (..., T, O) up to the last value that is not NaN; numbers of values.

    Both int64 of shape (...).
    """
    T, O = sequences.shape[-2:]
    n_missing = sequences.isnan().sum(dim=-1, dtype=torch.int32)
    steps = torch.arange(1, T + 1, dtype=torch.int32, device=sequences.device)
    lengths = ((n_missing < O) * steps).amax(dim=-1).long()
    return lengths, T * O - n_missing.sum(dim=-1)


def extents_in_order(
    sequences: Tensor, work_of: Callable[[Tensor], Tensor] = lambda lengths: lengths
) -> list[Tensor]:
    """Lengths and counts of values, and the order in which the kernel works.

    Items of similar length share a block, longest first, so that the threads end together;
    ``work_of`` derives an item's work from the lengths. Empty if no value is missing; on a GPU,
    where that answer would cost a synchronisation, never.
    """
    lengths, counts = extents(sequences)
    if not counts.is_cuda and bool((counts == sequences.shape[-2] * sequences.shape[-1]).all()):
        return []
    return [lengths, counts, work_of(lengths).argsort(descending=True, stable=True)]
