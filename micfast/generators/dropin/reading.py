"""The weights that a module would use now, even where ``.weight`` is what a forward left behind."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from micfast.generators.dropin.parts import Parts
from micfast.generators.dropin.structures import Layers, as_one_layer
from micfast.generators.dropin.undisturbed import undisturbed

__all__ = ["current_layers", "fresh_layers"]

# Norms that recompute a weight before each forward. In evaluation mode none changes its buffers.
_NORMS = (WeightNorm, SpectralNorm, BasePruningMethod)


def fresh_layers(parts: Parts) -> Layers:
    """The tensors of a module's layers, recomputed where they are derived; the module is unchanged.

    Old-style ``weight_norm``, ``spectral_norm`` and ``torch.nn.utils.prune`` recompute their
    weight in a hook before ``forward``: after ``load_state_dict`` or an optimiser step, the
    attribute is out of date. Parametrizations compute at each access, which in training mode may
    change buffers. Both run here in evaluation mode, on a module that is put back afterwards.
    """
    derived = any(_norms(layer) or parametrize.is_parametrized(layer) for layer in parts.layers)
    with undisturbed(parts.module) if derived else contextlib.nullcontext():
        return current_layers(parts, copy=derived)


@torch.no_grad()
def current_layers(parts: Parts, copy: bool = True) -> Layers:
    """The tensors; known norms are recomputed in place, so call it on an undisturbed module.

    Parameters
    ----------
    parts : Parts
    copy : bool
        Whether to copy them, for what is put back afterwards.
    """
    for layer in parts.layers:
        for hook in _norms(layer):
            hook(layer, ())

    def own(tensor: Tensor) -> Tensor:
        return tensor.detach().clone() if copy else tensor.detach()

    names = ["weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if parts.rnn.bias else ())]
    recurrent: list[tuple[Tensor, Tensor, Tensor]] = []
    for i in range(parts.n_layers):
        W_ih, W_hh, *biases = (own(parts.tensor(name, i)) for name in names)
        b_ih, b_hh = biases or 2 * [W_hh.new_zeros(len(W_hh))]
        as_four = _four_blocks(W_ih, W_hh, b_ih, b_hh) if parts.cell == "gru" else None
        recurrent.append(as_four or (W_ih, W_hh, b_ih + b_hh))
    linear: list[tuple[Tensor, Tensor]] = []
    for layer in (parts.linear, *parts.entries):
        weight = own(layer.weight)
        bias = weight.new_zeros(len(weight)) if layer.bias is None else own(layer.bias)
        linear.append((weight, bias))
    layers = Layers(*recurrent[0], *linear[0], tuple(linear[1:]), parts.cell)
    return layers if len(recurrent) == 1 else as_one_layer(layers, *recurrent[1])


def _four_blocks(
    W_ih: Tensor, W_hh: Tensor, b_ih: Tensor, b_hh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """W_ih, W_hh and b of a GRU whose n has a block for the input and one for the state."""
    n_rows = 2 * (len(W_ih) // 3)  # of r and z
    x, h = (t.new_zeros(len(t) - n_rows, t.shape[1]) for t in (W_ih, W_hh))
    b = torch.cat([b_ih[:n_rows] + b_hh[:n_rows], b_ih[n_rows:], b_hh[n_rows:]])
    return torch.cat([W_ih, x]), torch.cat([W_hh[:n_rows], h, W_hh[n_rows:]]), b


def _norms(layer: nn.Module) -> list[Any]:
    return [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, _NORMS)]
