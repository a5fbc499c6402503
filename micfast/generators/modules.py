"""Generators as torch modules: from ``nn.Module``, state dicts and checkpoints, and back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from micfast.generators.dropin.parts import read_fleet
from micfast.generators.dropin.verdict import check_argument, checked_weights
from micfast.generators.files import BankFileError
from micfast.generators.state_dicts import STATE_KEYS, read_state_dict
from micfast.kernels.weights import Weights

__all__ = [
    "Generator",
    "modules_of_weights",
    "random_weights",
    "weights_of_checkpoints",
    "weights_of_modules",
    "weights_of_state_dicts",
]


class Generator(nn.Module):
    """One generator as a torch module: an LSTM that sees its input once, and a linear read-out.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        K, H and O of ``docs/conventions.md``.

    Examples
    --------
    >>> import torch
    >>> from micfast import Generator
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


def weights_of_modules(
    modules: Any, check: Any = "auto", n_steps: int | None = None, decoder: Any = None
) -> tuple[Weights, list[str] | None]:
    """Stack the weights of torch modules, see :meth:`micfast.GeneratorBank.from_modules`.

    Returns
    -------
    weights : Weights
    names : list of str, or None
        The modules' names, if they came as a dict.
    """
    where = "GeneratorBank.from_modules"
    check_argument(where, check)
    fleet = read_fleet(modules, where)
    return checked_weights(fleet, check, n_steps, decoder=decoder), fleet.names


def _stack(where: str, modules: list[tuple[Tensor, ...]]) -> Weights:
    try:
        return Weights.stack(modules)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from error


def weights_of_state_dicts(state_dicts: Iterable[Mapping[str, Tensor]]) -> Weights:
    """Stack state dicts, see :meth:`micfast.GeneratorBank.from_state_dicts`."""
    where = "GeneratorBank.from_state_dicts"
    if isinstance(state_dicts, Mapping):
        raise TypeError(f"{where}: state_dicts must be a list of state dicts, got a single one")
    entries = enumerate(state_dicts)
    return _stack(where, [read_state_dict(s, f"{where}: entry {i}") for i, s in entries])


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
            module = read_state_dict(state, "checkpoint")
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
        state = {key: v.clone() for key, v in zip(STATE_KEYS, values, strict=True)}
        module.load_state_dict(state, assign=True)
        modules.append(module.requires_grad_(True))
    return modules
