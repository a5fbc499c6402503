"""What a module that draws something else seems to do, told from what it drew."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

__all__ = ["USUAL_CAUSES", "likely_causes"]

USUAL_CAUSES = (
    "an activation, scaling or reordering after nn.Linear; a latent that enters at every step, "
    "changed, or as the initial state; outputs fed back; other layers or hooks between"
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
    exact = [*_after(theirs, ours), *_within(tensors, z, min(ours.shape[1], _MOST_STEPS))]
    for candidates in (exact, [_scaled(theirs, ours)]):
        found = tuple(
            name
            for name, drawn in candidates
            if (drawn - theirs[:, : drawn.shape[1]]).abs().max() <= _CLOSE * scale
        )
        if found:
            return found
    return ()


def _after(theirs: Tensor, ours: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What may follow nn.Linear."""
    for name in ("tanh", "sigmoid", "relu", "exp"):
        yield f"{name} after nn.Linear", getattr(torch, name)(ours)
    yield "softplus after nn.Linear", softplus(ours)
    yield "softmax over the channels after nn.Linear", ours.softmax(dim=-1)
    yield "values cut off after nn.Linear", ours.clamp(theirs.min(), theirs.max())
    yield "outputs added up over time", ours.cumsum(dim=1)
    yield "outputs in reverse order", ours.flip(1)


def _scaled(theirs: Tensor, ours: Tensor) -> tuple[str, Tensor]:
    """The best line through the points, channel by channel."""
    x, y = ours - ours.mean((0, 1)), theirs - theirs.mean((0, 1))
    slope = (x * y).sum((0, 1)) / x.square().sum((0, 1)).clamp(min=1e-30)
    return "outputs scaled or shifted after nn.Linear", theirs.mean((0, 1)) + slope * x


def _within(weights: list[Tensor], z: Tensor, n_steps: int) -> Iterator[tuple[str, Tensor]]:
    """What may be fed to nn.LSTM."""
    H, K, O = weights[1].shape[1], weights[0].shape[1], weights[3].shape[0]
    nothing = z.new_zeros(len(z), H)
    later = _draw(weights, z, nothing, n_steps + 1)
    yield "the first output left out", later[:, 1:]
    yield "every second output only", _draw(weights, z, nothing, 2 * n_steps)[:, ::2]
    every = _draw(weights, z, nothing, n_steps, every_step=True)
    yield "the latent as input of every step", every
    soft = _draw(weights, z.softmax(-1), nothing, n_steps)
    yield "softmax of the latent", soft
    unit = _draw(weights, normalize(z, dim=-1), nothing, n_steps)
    yield "the latent normalised to length 1", unit
    limited = _draw(weights, torch.tanh(z), nothing, n_steps)
    yield "tanh of the latent", limited
    if K == O:
        fed = _draw(weights, z, nothing, n_steps, feed_back=True)
        yield "its own output as the next input (autoregressive)", fed
    if K == H:
        initial = _draw(weights, torch.zeros_like(z), z, n_steps)
        yield "the latent as initial state h_0", initial


def _draw(
    weights: list[Tensor],
    z: Tensor,
    h: Tensor,
    n_steps: int,
    every_step: bool = False,
    feed_back: bool = False,
) -> Tensor:
    W_ih, W_hh, b, W_out, b_out = weights
    x, c, outputs = z, torch.zeros_like(h), []
    for _ in range(n_steps):
        gate_i, gate_f, gate_g, gate_o = (x @ W_ih.T + h @ W_hh.T + b).chunk(4, dim=-1)
        c = gate_f.sigmoid() * c + gate_i.sigmoid() * gate_g.tanh()
        h = gate_o.sigmoid() * c.tanh()
        y = h @ W_out.T + b_out
        outputs.append(y)
        if feed_back:
            x = y
        elif not every_step:
            x = torch.zeros_like(z)
    return torch.stack(outputs, dim=1)
