"""What a search minimises in place of the mean squared error, and where its latents stay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from micfast.arrays import to_numpy
from micfast.kernels.reference import Objective
from micfast.settings import Settings, check_choice, check_number

__all__ = ["MEAN_SQUARED_ERROR", "Loss", "check_constraint", "check_numbers"]

_CONSTRAINTS = ("simplex", "box", "sphere", None)


def check_numbers(
    where: str, name: str, value: Any, rule: str, n_dimensions: tuple[int, ...]
) -> np.ndarray:
    """Require finite numbers; the float64 array has one of these numbers of dimensions.

    Raises
    ------
    ValueError
        If it does not hold finite numbers, or none at all; says the rule.
    """
    try:
        array = to_numpy(value).astype(np.float64)
    except (TypeError, ValueError):
        array = np.full(1, np.nan)
    if array.ndim not in n_dimensions or not array.size or not np.isfinite(array).all():
        raise ValueError(f"{where}: {name} must be {rule}, got {value!r}")
    return array


def _tuples(array: np.ndarray) -> Any:
    """Nested tuples, which compare and go to JSON; a number for none."""
    return tuple(map(_tuples, array)) if array.ndim else float(array)


@dataclass(frozen=True)
class Loss(Settings):
    """The mean squared error, weighted, or Huber loss, and an L2 prior on the latent.

    The error of a latent z is ``sum(weights * d^2) / sum(weights)``, d = drawn - target, over the
    values that are not missing, plus ``prior_weight * sum((z - prior_mean)^2)``. Huber loss stands
    in place of ``d^2``. All errors that are reported or compared are this error.

    Parameters
    ----------
    weights : array of shape (T, O), (T, 1), (1, O) or (T,), optional
        What each step and channel counts, at least 0 and not all 0; the same for all targets.
        A shorter target has the first of them.
    prior_weight : float
        At least 0.
    prior_mean : float or array of shape (K,)
    huber : float, optional
        Above 0: Huber loss with this delta, as ``torch.nn.functional.huber_loss``: ``d^2 / 2``
        where ``|d| <= huber``, and ``huber * (|d| - huber / 2)`` beyond. For :class:`micfast.Adam`
        only.

    Raises
    ------
    TypeError, ValueError
        For values that are not as described.

    Examples
    --------
    >>> from micfast import Loss
    >>> Loss(weights=[1, 1, 0.5], prior_weight=1e-3)
    Loss(weights=((1.0,), (1.0,), (0.5,)), prior_weight=0.001, prior_mean=0.0, huber=None)
    """

    name: ClassVar[str] = "loss"
    weights: Any = None
    prior_weight: float = 0.0
    prior_mean: Any = 0.0
    huber: float | None = None

    def __post_init__(self) -> None:
        where = "Loss"
        if self.weights is not None:
            rule = "numbers of at least 0, not all 0, of shape (T, O), (T, 1), (1, O) or (T,)"
            weights = check_numbers(where, "weights", self.weights, rule, (1, 2))
            if not (weights >= 0).all() or not 0 < weights.sum() < math.inf:
                raise ValueError(f"{where}: weights must be {rule}, got {self.weights!r}")
            self.set("weights", _tuples(weights[:, None] if weights.ndim == 1 else weights))
        self.set("prior_weight", check_number(where, "prior_weight", self.prior_weight))
        rule = "a finite number or K of them"
        mean = check_numbers(where, "prior_mean", self.prior_mean, rule, (0, 1))
        self.set("prior_mean", _tuples(mean))
        if self.huber is not None:
            self.set("huber", check_number(where, "huber", self.huber, positive=True))

    def objective(
        self, targets: Tensor, n_inputs: int, bounds: Any = None, radius: float | None = None
    ) -> Objective:
        """Give loss, box and sphere as tensors of the targets' (..., T, O) dtype and device.

        Raises
        ------
        ValueError
            If a shape fits neither the targets nor the latents.
        """

        def tensor(name: str, value: Any, *sizes: int) -> Tensor:
            given = targets.new_tensor(value)
            if any(
                size not in (1, wanted) for size, wanted in zip(given.shape, sizes, strict=True)
            ):
                raise ValueError(
                    f"Loss: {name} must have shape {sizes}, or 1 for a size, got {[*given.shape]}"
                )
            return given.expand(sizes).contiguous()

        weights = self.weights
        if weights is not None:
            weights = tensor("weights", weights, *targets.shape[-2:])
        mean = None
        if self.prior_weight:
            values = self.prior_mean if isinstance(self.prior_mean, tuple) else (self.prior_mean,)
            mean = tensor("prior_mean", values, n_inputs)
        if bounds is not None:
            open_sides = ((-math.inf,), (math.inf,))
            sides = [
                side if isinstance(side, tuple) else everywhere if side is None else (side,)
                for side, everywhere in zip(bounds, open_sides, strict=True)
            ]
            bounds = torch.stack([tensor("bounds", side, n_inputs) for side in sides])
        return Objective(bounds, weights, self.prior_weight, mean, radius, self.huber)


# What minimises nothing else.
MEAN_SQUARED_ERROR = Loss()


def check_constraint(where: str, constraint: Any, bounds: Any) -> Any:
    """Check a solver's constraint and bounds; give these as two numbers, tuples or None, or None.

    Raises
    ------
    ValueError
        If they are not as the solvers describe them.
    """
    check_choice(where, "constraint", constraint, _CONSTRAINTS)
    if constraint != "box":
        if bounds is not None:
            raise ValueError(
                f"{where}: bounds must be None unless constraint='box', got {bounds!r}"
            )
        return None
    rule = "the lowest and the highest latents, each a finite number, K of them or None"
    try:
        sides = [
            None if side is None else check_numbers(where, "bounds", side, rule, (0, 1))
            for side in bounds
        ]
        lowest, highest = sides
        ordered = lowest is None or highest is None or bool((lowest <= highest).all())
    except (TypeError, ValueError):
        ordered = False
    if not ordered:
        raise ValueError(f"{where}: bounds must be {rule}, got {bounds!r}")
    return tuple(None if side is None else _tuples(side) for side in sides)
