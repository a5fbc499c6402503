"""What a search minimises and where its latents may be, in plain PyTorch; see ``reference.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

__all__ = [
    "Objective",
    "mean_huber_loss",
    "mean_squared_error",
    "missing_values",
    "normalise",
    "project",
    "total_weight",
]


class Objective(NamedTuple):
    """What a search minimises in place of the mean squared error, and where it stays.

    The error is a weighted mean of squared differences, or of :func:`mean_huber_loss`, plus
    ``prior_weight * sum((z - prior_mean)^2)``.
    """

    bounds: Tensor | None = None  # (2, K), lowest and highest latents
    weights: Tensor | None = None  # (T, O)
    prior_weight: float = 0.0
    prior_mean: Tensor | None = None  # (K,), zeros if None
    radius: float | None = None  # of the sphere that latents lie on
    huber: float | None = None  # delta of the Huber loss

    @property
    def is_plain(self) -> bool:
        """Whether it is the mean squared error, without box and sphere."""
        has_domain = self.bounds is not None or self.radius is not None
        has_loss = self.weights is not None or self.huber is not None
        return not has_domain and not has_loss and self.prior_weight == 0

    def map(self, function: Callable[[Tensor], Tensor]) -> Objective:
        """Apply a function to each tensor."""
        tensors = {"bounds": self.bounds, "weights": self.weights, "prior_mean": self.prior_mean}
        given: dict[str, Any] = {n: function(t) for n, t in tensors.items() if t is not None}
        return self._replace(**given)

    def error(
        self, outputs: Tensor, targets: Tensor, latents: Tensor, omit_nan: bool = False
    ) -> Tensor:
        """Errors (...) of outputs (..., T, O), drawn from latents (..., K)."""
        if self.huber is None:
            error = mean_squared_error(outputs, targets, omit_nan, self.weights)
        else:
            error = mean_huber_loss(outputs, targets, self.huber, omit_nan, self.weights)
        if self.prior_weight == 0:
            return error
        return error + self.prior_weight * self.from_mean(latents).square().sum(dim=-1)

    def from_mean(self, latents: Tensor) -> Tensor:
        """Latents (..., K) less the prior's mean."""
        return latents if self.prior_mean is None else latents - self.prior_mean

    def constrain(self, latents: Tensor, simplex: bool) -> Tensor:
        """Put latents (..., K) on the simplex, onto the sphere or into the box; or leave them."""
        if simplex:
            return project(latents)
        if self.radius is not None:
            return normalise(latents, self.radius)
        if self.bounds is None:
            return latents
        return torch.minimum(torch.maximum(latents, self.bounds[0]), self.bounds[1])


def mean_squared_error(
    outputs: Tensor, targets: Tensor, omit_nan: bool = False, weights: Tensor | None = None
) -> Tensor:
    """Mean over T and O of the squared difference.

    Parameters
    ----------
    outputs, targets : Tensor of shape (..., T, O)
    omit_nan : bool
        Treat NaN in ``targets`` as missing values: the mean is that over the others.
    weights : Tensor of shape (T, O), optional
        Of a weighted mean.

    Returns
    -------
    Tensor of shape (...)
        NaN for a target that holds infinity, or NaN (with ``omit_nan``: nothing but NaN).
        Differentiable in ``outputs``.
    """
    if not omit_nan and weights is None:
        invalid = ~torch.isfinite(targets).all(dim=-1).all(dim=-1)
        return (outputs - targets).square().mean(dim=(-2, -1)).masked_fill(invalid, torch.nan)
    return _mean_of(torch.square, outputs, targets, omit_nan, weights)


def mean_huber_loss(
    outputs: Tensor,
    targets: Tensor,
    delta: float,
    omit_nan: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """As :func:`mean_squared_error`, of ``torch.nn.functional.huber_loss``.

    That is half the square of a difference d where ``|d| <= delta``, and
    ``delta (|d| - delta / 2)`` beyond.
    """

    def loss(difference: Tensor) -> Tensor:
        return huber_loss(difference, torch.zeros_like(difference), reduction="none", delta=delta)

    return _mean_of(loss, outputs, targets, omit_nan, weights)


def _mean_of(
    loss: Callable[[Tensor], Tensor],
    outputs: Tensor,
    targets: Tensor,
    omit_nan: bool,
    weights: Tensor | None,
) -> Tensor:
    """Weighted mean of the loss of the differences that are there."""
    missing = missing_values(targets) if omit_nan else torch.zeros_like(targets, dtype=torch.bool)
    known = torch.where(missing, 0, targets)
    # Not 0 * difference: its gradient would be NaN.
    losses = loss(torch.where(missing, 0, outputs - known))
    if weights is not None:
        losses = weights * losses
    mean = losses.sum(dim=(-2, -1)) / total_weight(missing, weights)
    return mean.masked_fill(~torch.isfinite(known).all(dim=-1).all(dim=-1), torch.nan)


def total_weight(missing: Tensor, weights: Tensor | None) -> Tensor:
    """What the values (..., T, O) that are there count together, (...)."""
    return (~missing * (1 if weights is None else weights)).sum(dim=(-2, -1))


def missing_values(targets: Tensor) -> Tensor:
    """Where values are missing (..., T, O). What holds nothing but NaN stays it, and spoils all."""
    missing = targets.isnan()
    return missing & ~missing.flatten(-2).all(dim=-1)[..., None, None]


def project(latents: Tensor) -> Tensor:
    """Clip to [0, 1] and normalise to sum 1 over the last axis; 1/K where the sum is zero."""
    clipped = latents.clamp(0, 1)
    total = clipped.sum(dim=-1, keepdim=True)
    uniform = torch.full_like(clipped, 1 / latents.shape[-1])
    return torch.where(total == 0, uniform, clipped / total)


def normalise(latents: Tensor, radius: float) -> Tensor:
    """Scale to the length ``radius`` over the last axis; equal components where all are zero."""
    size = latents.abs().sum(dim=-1, keepdim=True)
    scaled = latents / size  # the squares of which neither overflow nor all vanish
    uniform = torch.full_like(latents, radius / latents.shape[-1] ** 0.5)
    length = scaled.norm(dim=-1, keepdim=True)
    return torch.where(size == 0, uniform, radius / length * scaled)
