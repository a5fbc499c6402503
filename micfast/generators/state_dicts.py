"""The weights in a state dict, whatever its module's attributes are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from micfast.kernels.weights import DTYPES

__all__ = ["STATE_KEYS", "read_state_dict"]

STATE_KEYS = (
    "lstm.weight_ih_l0",
    "lstm.weight_hh_l0",
    "lstm.bias_ih_l0",
    "lstm.bias_hh_l0",
    "FC.weight",
    "FC.bias",
)
_LSTM_NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
_N_DIMS = (2, 2, 1, 1, 2, 1)
# Checkpoints that hold more than weights keep them under one of these keys.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module")
_PREFIX = re.compile(r"(^|\.)(module|_orig_mod)\.")
_LOAD = (
    "load it into your module (module.load_state_dict) and use GeneratorBank.from_modules([module])"
)


def read_state_dict(state: Any, where: str) -> tuple[Tensor, ...]:
    """The five weights of the one nn.LSTM and the one nn.Linear in a state dict.

    Raises
    ------
    TypeError
        If it is no state dict, or holds anything but float32 or float64 tensors.
    ValueError
        If it holds other tensors than the two layers'.
    """
    state = _unwrapped(state, where)
    _check_values(state, where)
    lstm, linear = _layers(state, where)
    keys = [lstm + name for name in _LSTM_NAMES] + [linear + "weight", linear + "bias"]
    for key, n_dims in zip(keys, _N_DIMS, strict=True):
        if key in state and state[key].ndim != n_dims:
            raise ValueError(f"{where}: {key} must have {n_dims} dimensions, got {state[key].ndim}")
    W_ih, W_hh = state[keys[0]].detach(), state[keys[1]].detach()
    W_out = state[keys[4]].detach()
    if W_ih.shape[0] == 3 * W_hh.shape[1]:
        raise ValueError(f"{where}: {keys[0]} is that of an nn.GRU; {_LOAD}")
    b, b_out = W_hh.new_zeros(W_hh.shape[0]), W_out.new_zeros(W_out.shape[0])
    if keys[2] in state:
        b_ih, b_hh = state[keys[2]].detach(), state[keys[3]].detach()
        if b_ih.shape != b_hh.shape:  # the sum would broadcast
            raise ValueError(
                f"{where}: {keys[3]} must have shape {list(b_ih.shape)} as {keys[2]}, "
                f"got {list(b_hh.shape)}"
            )
        b = b_ih + b_hh
    if keys[5] in state:
        b_out = state[keys[5]].detach()
    return W_ih, W_hh, b, W_out, b_out


def _unwrapped(state: Any, where: str) -> Mapping[str, Any]:
    """The state dict in a checkpoint, without the prefixes that wrappers of modules add."""
    if not isinstance(state, Mapping):
        hint = ""
        if hasattr(state, "state_dict"):
            hint = "; use GeneratorBank.from_modules, or pass its state_dict()"
        elif isinstance(state, str) or hasattr(state, "__fspath__"):
            hint = "; use GeneratorBank.from_checkpoints"
        raise TypeError(f"{where} must be a state dict, got {type(state).__name__}{hint}")
    for key in _WRAPPERS:
        if isinstance(state.get(key), Mapping):
            return _unwrapped(state[key], where)
    names = {key: key if not isinstance(key, str) else _without_prefixes(key) for key in state}
    if len(set(names.values())) < len(names):
        return state
    return {names[key]: value for key, value in state.items()}


def _without_prefixes(key: str) -> str:
    while (shorter := _PREFIX.sub(r"\1", key)) != key:
        key = shorter
    return key


def _check_values(state: Mapping[str, Any], where: str) -> None:
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{where}: {key} must be a tensor, got {type(tensor).__name__}")
        if tensor.is_meta:
            raise ValueError(f"{where}: {key} is on the meta device, it holds no weights")
        if tensor.is_floating_point() and tensor.dtype not in DTYPES:
            raise TypeError(
                f"{where}: {key} must be float32 or float64, got {tensor.dtype}; convert with "
                "{key: tensor.float() for key, tensor in state.items()}"
            )


def _layers(state: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The prefixes of the one nn.LSTM and the one nn.Linear."""
    lstms = [key.removesuffix("weight_hh_l0") for key in state if key.endswith("weight_hh_l0")]
    if len(lstms) > 1:
        names = ", ".join(repr(name.rstrip(".")) for name in lstms)
        raise ValueError(
            f"{where} must hold one nn.LSTM, got {len(lstms)}: {names}; keep one part: "
            "{key.removeprefix('decoder.'): value for key, value in state.items() "
            "if key.startswith('decoder.')}"
        )
    lstm = lstms[0] if lstms else "lstm."
    known = {lstm + name for name in _LSTM_NAMES}
    linears = [
        key.removesuffix("weight")
        for key, tensor in state.items()
        if key not in known and re.fullmatch(r"(.*\.)?weight", key) and tensor.ndim == 2
    ]
    linear = linears[0] if len(linears) == 1 else "FC."
    expected = [lstm + name for name in _LSTM_NAMES] + [linear + "weight", linear + "bias"]
    missing = [key for key in expected if key not in state]
    # Layers may be without bias, other than the paper's.
    if linear + "weight" in state and linear != "FC.":
        missing = [key for key in missing if key != linear + "bias"]
    biases = expected[2:4]
    if lstm != "lstm." and all(key in missing for key in biases):
        missing = [key for key in missing if key not in biases]
    unknown = [key for key in state if key not in expected]
    if missing or unknown:
        raise ValueError(
            f"{where} must hold one nn.LSTM and one nn.Linear and nothing else, such as the keys "
            f"{', '.join(STATE_KEYS)}; missing: {missing}, unknown: {unknown}{_hint(state)}"
        )
    return lstm, linear


def _hint(state: Mapping[str, Any]) -> str:
    if any(re.search(r"weight_(ih|hh)$", key) for key in state):
        return "; the weights of an nn.LSTMCell have the same names plus '_l0'"
    if any("parametrizations." in key or key.endswith(("_g", "_orig")) for key in state):
        return f"; its weights are derived from others: {_LOAD}"
    return f"; {_LOAD}, or rename its keys"
