"""Generators as torch modules: from ``nn.Module``, state dicts and checkpoints, and back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from micfast.generators.files import BankFileError
from micfast.kernels.weights import Weights

__all__ = [
    "Generator",
    "modules_of_weights",
    "random_weights",
    "weights_of_checkpoints",
    "weights_of_modules",
    "weights_of_state_dicts",
]

_STATE_KEYS = (
    "lstm.weight_ih_l0",
    "lstm.weight_hh_l0",
    "lstm.bias_ih_l0",
    "lstm.bias_hh_l0",
    "FC.weight",
    "FC.bias",
)


class Generator(nn.Module):
    """One generator as a torch module: an LSTM that sees its input once, and a linear read-out.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        K, H and O of ``docs/conventions.md``.

    Examples
    --------
    >>> import torch
    >>> Generator(4, 10, 2)(torch.full((3, 4), 0.25), n_steps=7).shape
    torch.Size([3, 7, 2])
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size)
        self.FC = nn.Linear(hidden_size, output_size)

    def forward(self, latents: Tensor, n_steps: int) -> Tensor:
        """Draw one sequence per input vector.

        Parameters
        ----------
        latents : Tensor of shape (N, K)
            Input at the first step; the input of every later step is zero.
        n_steps : int
            Length T, at least 1.

        Returns
        -------
        Tensor of shape (N, T, O)
        """
        rest = latents.new_zeros(n_steps - 1, *latents.shape)
        h, _ = self.lstm(torch.cat([latents[None], rest]))
        return self.FC(h).transpose(0, 1)


def weights_of_modules(modules: nn.Module | Iterable[nn.Module]) -> Weights:
    """Stack the weights of torch modules, see :meth:`micfast.GeneratorBank.from_modules`."""
    if isinstance(modules, nn.Module) and not isinstance(modules, nn.ModuleList):
        modules = [modules]
    where = "GeneratorBank.from_modules"
    listed: Iterable[Any] = modules
    return _stack(where, [_one_module(m, f"{where}: module {i}") for i, m in enumerate(listed)])


def _stack(where: str, modules: list[tuple[Tensor, ...]]) -> Weights:
    try:
        return Weights.stack(modules)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from error


def _one_module(module: Any, where: str) -> tuple[Tensor, ...]:
    """The five weights of one module."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"{where} must be an nn.Module, got {type(module).__name__}")
    lstms = [m for m in module.modules() if isinstance(m, nn.LSTM)]
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    if len(lstms) != 1 or len(linears) != 1:
        raise ValueError(
            f"{where} must contain exactly one nn.LSTM and one nn.Linear, "
            f"got {len(lstms)} and {len(linears)}"
        )
    lstm: Any = lstms[0]
    linear = linears[0]
    for attribute, expected in (("num_layers", 1), ("bidirectional", False), ("proj_size", 0)):
        got = getattr(lstm, attribute)
        if got != expected:
            raise ValueError(f"{where}: nn.LSTM must have {attribute}={expected}, got {got}")
    if linear.in_features != lstm.hidden_size:
        raise ValueError(
            f"{where}: nn.Linear must have in_features = hidden_size = {lstm.hidden_size}, "
            f"got {linear.in_features}"
        )
    known = {id(p) for part in (lstm, linear) for p in part.parameters()}
    others = [name for name, p in module.named_parameters() if id(p) not in known]
    if others:
        raise ValueError(
            f"{where} must have no parameters except those of its nn.LSTM and nn.Linear, "
            f"got {others}"
        )
    W_hh, W_out = lstm.weight_hh_l0.detach(), linear.weight.detach()
    b, b_out = W_hh.new_zeros(W_hh.shape[0]), W_out.new_zeros(W_out.shape[0])
    if lstm.bias:
        b = lstm.bias_ih_l0.detach() + lstm.bias_hh_l0.detach()
    if linear.bias is not None:
        b_out = linear.bias.detach()
    return lstm.weight_ih_l0.detach(), W_hh, b, W_out, b_out


def weights_of_state_dicts(state_dicts: Iterable[Mapping[str, Tensor]]) -> Weights:
    """Stack state dicts, see :meth:`micfast.GeneratorBank.from_state_dicts`."""
    where = "GeneratorBank.from_state_dicts"
    entries = enumerate(state_dicts)
    return _stack(where, [_one_state_dict(s, f"{where}: entry {i}") for i, s in entries])


def _one_state_dict(state: Any, where: str) -> tuple[Tensor, ...]:
    """The five weights of one state dict."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{where} must be a state dict, got {type(state).__name__}")
    missing = [key for key in _STATE_KEYS if key not in state]
    unknown = [key for key in state if key not in _STATE_KEYS]
    if missing or unknown:
        raise ValueError(
            f"{where} must have the keys {', '.join(_STATE_KEYS)}; missing: {missing}, "
            f"unknown: {unknown}"
        )
    for key, n_dims in zip(_STATE_KEYS, (2, 2, 1, 1, 2, 1), strict=True):
        tensor = state[key]
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{where}: {key} must be a tensor, got {type(tensor).__name__}")
        if tensor.ndim != n_dims:
            raise ValueError(f"{where}: {key} must have {n_dims} dimensions, got {tensor.ndim}")
    W_ih, W_hh, b_ih, b_hh, W_out, b_out = (state[key].detach() for key in _STATE_KEYS)
    if b_ih.shape != b_hh.shape:  # the sum would broadcast
        raise ValueError(
            f"{where}: lstm.bias_hh_l0 must have shape {list(b_ih.shape)} as lstm.bias_ih_l0, "
            f"got {list(b_hh.shape)}"
        )
    return W_ih, W_hh, b_ih + b_hh, W_out, b_out


def weights_of_checkpoints(paths: Iterable[str | os.PathLike[str]]) -> Weights:
    """Stack checkpoint files, see :meth:`micfast.GeneratorBank.from_checkpoints`."""
    where = "GeneratorBank.from_checkpoints"
    if isinstance(paths, str | os.PathLike):
        raise TypeError(
            f"{where}: paths must be a sequence of paths, got a single one: {os.fspath(paths)!r}"
        )
    modules = []
    for path in paths:
        with open(path, "rb") as file:
            try:
                state = torch.load(file, map_location="cpu", weights_only=True)
            # A damaged pickle or zip can raise almost any exception.
            except Exception as error:
                raise BankFileError(path, f"not a torch checkpoint ({error})") from error
        try:
            module = _one_state_dict(state, "checkpoint")
            Weights(*(tensor[None] for tensor in module))
        except (TypeError, ValueError) as error:
            raise BankFileError(path, str(error)) from error
        modules.append(module)
    return _stack(where, modules)


def random_weights(
    seeds: Iterable[int], hidden_size: int, input_size: int, output_size: int, dtype: torch.dtype
) -> Weights:
    """Weights of new modules, one per seed, see :meth:`micfast.GeneratorBank.random`."""
    H, K, O = hidden_size, input_size, output_size
    bound = 1 / H**0.5
    # The shapes in the order in which nn.LSTM and nn.Linear draw them.
    shapes = [(4 * H, K), (4 * H, H), (4 * H,), (4 * H,), (O, H), (O,)]
    modules = []
    for seed in seeds:
        rng = torch.Generator("cpu").manual_seed(seed)
        drawn = [torch.empty(s, dtype=torch.float32, device="cpu") for s in shapes]
        W_ih, W_hh, b_ih, b_hh, W_out, b_out = (
            tensor.uniform_(-bound, bound, generator=rng).to(dtype) for tensor in drawn
        )
        modules.append((W_ih, W_hh, b_ih + b_hh, W_out, b_out))
    return Weights.stack(modules)


def modules_of_weights(weights: Weights) -> list[Generator]:
    """Copy each module into a :class:`Generator`."""
    modules = []
    for W_ih, W_hh, b, W_out, b_out in zip(*weights, strict=True):
        # Built without memory, so that none of the caller's random numbers are used up.
        with torch.device("meta"):
            module = Generator(weights.input_size, weights.hidden_size, weights.output_size)
        values = (W_ih, W_hh, b, torch.zeros_like(b), W_out, b_out)
        state = {key: v.clone() for key, v in zip(_STATE_KEYS, values, strict=True)}
        module.load_state_dict(state, assign=True)
        modules.append(module.requires_grad_(True))
    return modules
