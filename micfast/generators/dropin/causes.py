"""What a module that draws something else seems to do, told from what it drew."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import normalize

from micfast.kernels import reference

__all__ = ["USUAL_CAUSES", "likely_causes"]

USUAL_CAUSES = (
    "another activation or a reordering after nn.Linear; a latent that is changed, or enters at "
    "other steps; mapped outputs fed back; other layers or hooks between"
)
_CLOSE = 2e-4
# A step costs 0.1 ms for each cause that is tried.
_MOST_STEPS = 32


def likely_causes(
    weights: tuple[Tensor, ...], z: Tensor, theirs: Tensor, ours: Tensor
) -> tuple[str, ...]:
    """Names of changes to micfast's model which draw what the module drew.

    Parameters
    ----------
    weights : five Tensors
        Of one module.
    z : Tensor of shape (n, K)
        The latents.
    theirs, ours : Tensor of shape (n, T, O)
        The module's drawing and micfast's.
    """
    tensors = [tensor.detach().double() for tensor in weights]
    z, theirs, ours = z.double(), theirs.double(), ours.double()
    if not torch.isfinite(theirs).all():
        return ("values that are not finite",)
    scale = theirs.abs().max().clamp(min=1e-30)
    return tuple(
        name
        for name, drawn in chain(
            _after(theirs, ours), _within(tensors, z, min(ours.shape[1], _MOST_STEPS))
        )
        if (drawn - theirs[:, : drawn.shape[1]]).abs().max() <= _CLOSE * scale
    )


def _after(theirs: Tensor, ours: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What may follow nn.Linear."""
    yield "relu after nn.Linear", torch.relu(ours)
    yield "softmax over the channels after nn.Linear", ours.softmax(dim=-1)
    yield "values cut off after nn.Linear", ours.clamp(theirs.min(), theirs.max())
    yield "outputs added up over time", ours.cumsum(dim=1)
    yield "outputs in reverse order", ours.flip(1)


def _within(weights: list[Tensor], z: Tensor, n_steps: int) -> Iterator[tuple[str, Tensor]]:
    """What may be fed to nn.LSTM."""
    later = _draw(weights, z, n_steps + 1)
    yield "the first output left out", later[:, 1:]
    yield "every second output only", _draw(weights, z, 2 * n_steps)[:, ::2]
    yield "softmax of the latent", _draw(weights, z.softmax(-1), n_steps)
    yield "the latent normalised to length 1", _draw(weights, normalize(z, dim=-1), n_steps)
    yield "tanh of the latent", _draw(weights, torch.tanh(z), n_steps)


def _draw(weights: list[Tensor], z: Tensor, n_steps: int) -> Tensor:
    return reference.generate([tensor[None] for tensor in weights], z[None], n_steps)[0]
