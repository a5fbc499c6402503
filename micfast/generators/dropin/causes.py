"""What a module that draws something else seems to do, told from what it drew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import normalize

from micfast.generators.dropin.structures import Layers
from micfast.kernels import reference

__all__ = ["USUAL_CAUSES", "likely_causes"]

USUAL_CAUSES = (
    "another activation or a reordering after nn.Linear; a latent that is changed, or enters at "
    "other steps; mapped outputs fed back; other layers or hooks between"
)
_CLOSE = 2e-4
# A step costs 0.1 ms for each cause that is tried.
_MOST_STEPS = 32


def likely_causes(layers: Layers, z: Tensor, theirs: Tensor, ours: Tensor) -> tuple[str, ...]:
    """Names of changes to micfast's model which draw what the module drew.

    Parameters
    ----------
    layers : Layers
        Of one module without entries.
    z : Tensor of shape (n, K)
        The latents.
    theirs, ours : Tensor of shape (n, T, O)
        The module's drawing and micfast's.
    """
    tensors = [tensor.detach().double() for tensor in layers[:5]]
    draw = partial(_draw, tensors, reference.Structure(cell=layers.cell))
    z, theirs, ours = z.double(), theirs.double(), ours.double()
    if not torch.isfinite(theirs).all():
        return ("values that are not finite",)
    scale = theirs.abs().max().clamp(min=1e-30)
    return tuple(
        name
        for name, drawn in chain(
            _after(theirs, ours), _within(draw, z, min(ours.shape[1], _MOST_STEPS))
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


def _within(
    draw: Callable[[Tensor, int], Tensor], z: Tensor, n_steps: int
) -> Iterator[tuple[str, Tensor]]:
    """What may be fed to the recurrent layer."""
    later = draw(z, n_steps + 1)
    yield "the first output left out", later[:, 1:]
    yield "every second output only", draw(z, 2 * n_steps)[:, ::2]
    yield "softmax of the latent", draw(z.softmax(-1), n_steps)
    yield "the latent normalised to length 1", draw(normalize(z, dim=-1), n_steps)
    yield "tanh of the latent", draw(torch.tanh(z), n_steps)


def _draw(weights: list[Tensor], structure: reference.Structure, z: Tensor, n_steps: int) -> Tensor:
    return reference.generate([tensor[None] for tensor in weights], z[None], n_steps, structure)[0]
