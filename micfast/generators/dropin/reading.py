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
from micfast.generators.dropin.undisturbed import undisturbed

__all__ = ["current_weights", "fresh_weights"]

# Norms that recompute a weight before each forward. In evaluation mode none changes its buffers.
_NORMS = (WeightNorm, SpectralNorm, BasePruningMethod)


def fresh_weights(parts: Parts) -> tuple[Tensor, ...]:
    """The five weights of a module, recomputed where they are derived; the module stays as it is.

    Old-style ``weight_norm``, ``spectral_norm`` and ``torch.nn.utils.prune`` recompute their
    weight in a hook before ``forward``: after ``load_state_dict`` or an optimiser step, the
    attribute is out of date. Parametrizations compute at each access, which in training mode may
    change buffers. Both run here in evaluation mode, on a module that is put back afterwards.
    """
    layers: tuple[nn.Module, ...] = (parts.lstm, parts.linear)
    derived = any(_norms(layer) or parametrize.is_parametrized(layer) for layer in layers)
    with undisturbed(parts.module) if derived else contextlib.nullcontext():
        return current_weights(parts, copy=derived)


@torch.no_grad()
def current_weights(parts: Parts, copy: bool = True) -> tuple[Tensor, ...]:
    """The five weights; known norms are recomputed in place, so call it on an undisturbed module.

    Parameters
    ----------
    parts : Parts
    copy : bool
        Whether to copy them, for what is put back afterwards.
    """
    lstm: Any = parts.lstm
    linear = parts.linear
    for layer in (lstm, linear):
        for hook in _norms(layer):
            hook(layer, ())
    W_ih, W_hh, W_out = lstm.weight_ih_l0, lstm.weight_hh_l0, linear.weight
    b, b_out = W_hh.new_zeros(W_hh.shape[0]), W_out.new_zeros(W_out.shape[0])
    if lstm.bias:
        b = lstm.bias_ih_l0 + lstm.bias_hh_l0
    if linear.bias is not None:
        b_out = linear.bias
    weights = tuple(tensor.detach() for tensor in (W_ih, W_hh, b, W_out, b_out))
    return tuple(tensor.clone() for tensor in weights) if copy else weights


def _norms(layer: nn.Module) -> list[Any]:
    return [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, _NORMS)]
