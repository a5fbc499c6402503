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
from micfast.generators.dropin.structures import Layers
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
    lstm: Any = parts.lstm
    for layer in parts.layers:
        for hook in _norms(layer):
            hook(layer, ())

    def own(tensor: Tensor) -> Tensor:
        return tensor.detach().clone() if copy else tensor.detach()

    W_hh = own(lstm.weight_hh_l0)
    b = W_hh.new_zeros(W_hh.shape[0])
    if lstm.bias:
        b = own(lstm.bias_ih_l0 + lstm.bias_hh_l0)
    linear: list[tuple[Tensor, Tensor]] = []
    for layer in (parts.linear, *parts.entries):
        weight = own(layer.weight)
        bias = weight.new_zeros(len(weight)) if layer.bias is None else own(layer.bias)
        linear.append((weight, bias))
    return Layers(own(lstm.weight_ih_l0), W_hh, b, *linear[0], tuple(linear[1:]))


def _norms(layer: nn.Module) -> list[Any]:
    return [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, _NORMS)]
