"""The structures a module may have, and its weights in micfast's model for each of them.

With one recurrent layer and a linear read-out many structures are the same model in other weights:
a latent embedded by ``nn.Linear`` and the module's own output fed back are folded into the weights,
exactly. Equations: ``docs/conventions.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from micfast.kernels.decoder import OUTPUTS, Decoder
from micfast.kernels.weights import Weights

# A gate's bias that shuts it.
_SHUT = -1e4

__all__ = ["Layers", "Structure", "as_one_layer", "replace_weights", "structures", "with_affine"]


class Layers(NamedTuple):
    """The tensors of a module's layers, those of a GRU in four blocks as in :class:`Weights`.

    ``entries`` are layers before the recurrent one, (weight, bias). ``b_first`` is what two layers
    that are expressed as one add in the first step.
    """

    W_ih: Tensor
    W_hh: Tensor
    b: Tensor
    W_out: Tensor
    b_out: Tensor
    entries: tuple[tuple[Tensor, Tensor], ...] = ()
    cell: str = "lstm"
    b_first: Tensor | None = None


@dataclass(frozen=True)
class Structure:
    """One way in which a module may use its layers.

    Attributes
    ----------
    decoder : Decoder
    n_latents : int
        Values of a latent.
    states : tuple of two (int or None)
        Which part of what the latent becomes is h_0, and which is c_0; with two layers, which part
        is h_0 of either.
    latent_last : bool
        Where a step's input is the latent and the output before: whether the latent comes last.
    starts_from_output : bool
        Where outputs are fed back: whether the first input is the read-out of h_0, not zero.
    """

    decoder: Decoder
    n_latents: int
    states: tuple[int | None, int | None] = (None, None)
    latent_last: bool = False
    starts_from_output: bool = False

    def weights(self, layers: Layers) -> Weights:
        """The module's weights in micfast's model, those of one module."""
        dtype = layers.W_ih.dtype
        plain = self.decoder.replace(latent="first", feeds_back=False)
        if self == Structure(plain, self.n_latents) and not layers.entries:
            tensors = (t[None] for t in layers[:5])
            first = None if layers.b_first is None else layers.b_first[None]
            return Weights(*tensors, decoder=self.decoder, b_first=first)
        W_ih, W_hh, b, W_out, b_out = (tensor.double() for tensor in layers[:5])
        entries = [(L.double(), bias.double()) for L, bias in layers.entries]
        b_first = torch.zeros_like(b) if layers.b_first is None else layers.b_first.double()
        b_state = None
        decoder = self.decoder.replace(feeds_back=False)
        O, W_hh_first = len(W_out), W_hh
        W_z = W_y = W_ih
        if self.decoder.latent == "every" and self.decoder.feeds_back:
            K = W_ih.shape[1] - O
            W_z, W_y = (W_ih[:, O:], W_ih[:, :O]) if self.latent_last else W_ih.split([K, O], dim=1)
        if self.decoder.feeds_back:
            W_hh, b = W_hh + W_y @ W_out, b + W_y @ b_out
            if not self.starts_from_output:
                b_first = b_first - W_y @ b_out
        if decoder.sets_state:
            H = len(W_hh) // 4 // decoder.n_layers
            W_z, b_state = self._state(entries, H, W_hh)
            if self.decoder.feeds_back and not self.starts_from_output:
                # The read-out of h_0 is not fed back: the first step's recurrent weights differ.
                if decoder == Decoder("state", decoder.output) and self.states == (0, None):
                    b_first = b_first + W_hh_first @ b_state
                    W_z, b_state = W_hh_first @ W_z, None
                    decoder = decoder.replace(latent="first")
                elif self.states[0] is not None:
                    new = _without_first_output(W_z, b_state, W_hh, b, b_first, W_out, W_y, decoder)
                    W_z, b_state, W_hh, b, b_first, W_out = new
        elif entries:
            ((L, bias),) = entries
            constant = W_z @ bias
            W_z = W_z @ L
            if self.decoder.latent == "every":
                b = b + constant
            else:
                b_first = b_first + constant
        more = {"b_first": b_first if b_first.any() else None, "b_state": b_state}
        given = {n: t[None].to(dtype) for n, t in more.items() if t is not None}
        tensors = (t[None].to(dtype) for t in (W_z, W_hh, b, W_out, b_out))
        return Weights(
            *tensors,
            decoder=decoder,
            b_first=given.get("b_first"),
            b_state=given.get("b_state"),
        )

    def _state(
        self, entries: list[tuple[Tensor, Tensor]], H: int, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The affine map from a latent to h_0, or to h_0 and c_0."""
        if not entries:
            unit = torch.eye(self.n_latents, dtype=like.dtype, device=like.device)
            entries = [(unit, like.new_zeros(self.n_latents))]
        L = torch.cat([weight for weight, _ in entries]).split(H)
        bias = torch.cat([bias for _, bias in entries]).split(H)
        h, c = self.states
        chosen = [h] if c is None else [h, c]
        maps = [torch.zeros_like(L[0]) if i is None else L[i] for i in chosen]
        biases = [torch.zeros_like(bias[0]) if i is None else bias[i] for i in chosen]
        return torch.cat(maps), torch.cat(biases)


def _without_first_output(
    W_z: Tensor,
    b_state: Tensor,
    W_hh: Tensor,
    b: Tensor,
    b_first: Tensor,
    W_out: Tensor,
    W_y: Tensor,
    decoder: Decoder,
) -> tuple[Tensor, ...]:
    """Weights with further units that take the read-out of h_0 from the gates of the first step.

    They start as that read-out (through tanh: as h_0), and are zero ever after, since their input
    and output gates are shut; in a GRU they become their n, which is zero.
    """
    O, H = W_out.shape
    by_h = decoder.latent == "tanh_state"
    start, bias = (W_z[:H], b_state[:H]) if by_h else (W_out @ W_z[:H], W_out @ b_state[:H])
    taken = W_y @ W_out if by_h else W_y
    n = len(start)

    def gates(old: Tensor, new: Tensor) -> Tensor:
        """Gate rows of all units."""
        pairs = zip(old.chunk(4), new.chunk(4), strict=True)
        return torch.cat([rows for pair in pairs for rows in pair])

    def states(old: Tensor, new: Tensor) -> Tensor:
        """Rows of h_0, and of c_0 if it is set, of all units."""
        return torch.cat([old[:H], new, old[H:], torch.zeros_like(new[: len(old[H:]) and n])])

    shut = W_hh.new_zeros(4, n)
    shut[[1] if decoder.cell == "gru" else [0, 3]] = _SHUT
    return (
        states(W_z, start),
        states(b_state, bias),
        gates(torch.cat([W_hh, -taken], dim=1), W_hh.new_zeros(4 * n, H + n)),
        gates(b, shut.flatten()),
        gates(b_first, W_hh.new_zeros(4 * n)),
        torch.cat([W_out, W_out.new_zeros(O, n)], dim=1),
    )


def as_one_layer(layers: Layers, W_ih: Tensor, W_hh: Tensor, b: Tensor) -> Layers:
    """Two layers as one of all their units, where the second layer, of these tensors, comes late.

    At each step its units do what they should have done at the step before, from the states before.
    In the first they keep the initial state: an LSTM's is zero, and its input gates are shut.
    """
    H = W_hh.shape[1]
    keeps = b.new_zeros(4, H)
    keeps[1 if layers.cell == "gru" else 0] = -_SHUT if layers.cell == "gru" else _SHUT

    def rows(first: Tensor, second: Tensor) -> Tensor:
        """Gate rows of all units."""
        pairs = zip(first.chunk(4), second.chunk(4), strict=True)
        return torch.cat([part for pair in pairs for part in pair])

    first = torch.cat([layers.W_hh, torch.zeros_like(layers.W_hh)], dim=1)
    return layers._replace(
        W_ih=rows(layers.W_ih, layers.W_ih.new_zeros(4 * H, layers.W_ih.shape[1])),
        W_hh=rows(first, torch.cat([W_ih, W_hh], dim=1)),
        b=rows(layers.b, b),
        W_out=torch.cat([torch.zeros_like(layers.W_out), layers.W_out], dim=1),
        b_first=rows(torch.zeros_like(b), keeps.flatten()),
    )


def with_affine(weights: Weights, scale: Tensor, shift: Tensor) -> Weights:
    """Weights of one module whose outputs are scaled and shifted, by constants (O,) in float64."""
    dtype = weights.dtype
    if weights.decoder.output == "identity":
        W_out = weights.W_out.double() * scale[:, None]
        b_out = weights.b_out.double() * scale + shift
        return replace_weights(weights, W_out=W_out.to(dtype), b_out=b_out.to(dtype))
    return replace_weights(weights, scale=scale[None].to(dtype), shift=shift[None].to(dtype))


def replace_weights(weights: Weights, **changes: Tensor | Decoder) -> Weights:
    """Weights with some tensors, or the decoder, replaced."""
    values: dict = dict(weights.named()) | {"decoder": weights.decoder} | changes
    return Weights(**values)


@functools.lru_cache(maxsize=64)
def structures(
    n_inputs: int,
    n_hidden: int,
    n_outputs: int,
    entries: tuple[tuple[int, int], ...],
    cell: str = "lstm",
    n_layers: int = 1,
) -> tuple[Structure, ...]:
    """The structures that layers of these sizes allow, the simplest first.

    Parameters
    ----------
    n_inputs, n_hidden, n_outputs : int
        Of the recurrent layer, or each of them, and the read-out.
    entries : tuple of (int, int)
        Inputs and outputs of the ``nn.Linear`` that read the latent.
    cell : {"lstm", "gru"}
    n_layers : {1, 2}
    """
    found = []
    for entry in _entries(n_inputs, n_hidden, n_outputs, entries):
        if not _can_be(entry, cell, n_layers):
            continue
        for output in OUTPUTS:
            decoder = entry.decoder.replace(output=output, cell=cell, n_layers=n_layers)
            found.append(replace(entry, decoder=decoder))
    return tuple(found)


def _can_be(entry: Structure, cell: str, n_layers: int) -> bool:
    """Whether that cell and so many layers can be expressed."""
    sets_state = entry.decoder.sets_state
    if n_layers == 1:
        return cell == "lstm" or not sets_state or entry.states == (0, None)  # a GRU has no c
    # What is fed back would come a step late; an LSTM's h can't be kept for a step.
    return not entry.decoder.feeds_back and (
        not sets_state or (cell == "gru" and entry.states in ((0, 0), (0, 1)))
    )


def _entries(D: int, H: int, O: int, entries: tuple[tuple[int, int], ...]) -> Iterator[Structure]:
    if len({n_in for n_in, _ in entries}) > 1:
        return
    size = sum(n_out for _, n_out in entries)  # of what becomes of the latent
    K = entries[0][0] if entries else 0
    feeds = Decoder("every", feeds_back=True)
    # As an input.
    if len(entries) <= 1 and size in (0, D):
        yield Structure(Decoder("first"), K or D)
        yield Structure(Decoder("every"), K or D)
        if D == O:
            yield Structure(Decoder("first", feeds_back=True), K or D)
    if len(entries) <= 1 and D > O and size in (0, D - O):
        yield Structure(feeds, K or D - O)
        yield Structure(feeds, K or D - O, latent_last=True)
    # As the initial state.
    ways: list[tuple[int, tuple[int | None, int | None]]] = []
    if all(n_out in (H, 2 * H) for _, n_out in entries):
        if size in (0, H):
            ways += [(K or H, states) for states in ((0, None), (0, 0), (None, 0))]
        if size in (0, 2 * H):
            ways += [(K or 2 * H, states) for states in ((0, 1), (1, 0))]
    for latent in ("state", "tanh_state"):
        for n_latents, states in ways:
            yield Structure(Decoder(latent), n_latents, states)
        for n_latents, states in ways if D == O else []:
            fed = Decoder(latent, feeds_back=True)
            yield Structure(fed, n_latents, states)
            yield Structure(fed, n_latents, states, starts_from_output=True)
