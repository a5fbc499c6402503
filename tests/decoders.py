"""Random weights of every structure that the kernels draw."""

from __future__ import annotations

import torch
from torch import Tensor

from micfast import Decoder, Weights
from micfast.kernels.decoder import OUTPUTS

# Where the latent enters, and how many states it sets.
ENTRIES = [("first", 0), ("every", 0), ("state", 1), ("state", 2), ("tanh_state", 1)]
ENTRIES += [("tanh_state", 2)]
# Each entry and each output map at least twice, with and without what a structure may lack.
LSTMS = [(*ENTRIES[i % 6], OUTPUTS[i % 5], bool(i % 4), "lstm") for i in range(30)]
GRUS = [(*ENTRIES[(0, 1, 2, 4)[i % 4]], OUTPUTS[i % 5], bool(i % 3), "gru") for i in range(10)]
STRUCTURES = LSTMS + GRUS
FEW_LSTMS, FEW_GRUS = LSTMS[1:12:2] + LSTMS[14:30:5], GRUS[:2] + GRUS[6:8]
FEW = FEW_LSTMS + FEW_GRUS


def name_of(structure: tuple[str, int, str, bool, str]) -> str:
    """For a test's name."""
    latent, n_states, output, more, cell = structure
    return f"{'gru-' * (cell == 'gru')}{latent}{n_states or ''}-{output}{'-more' * more}"


def random_weights(
    structure: tuple[str, int, str, bool, str],
    n_modules: int,
    hidden_size: int,
    input_size: int,
    output_size: int,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Weights:
    """Weights of one structure, from normal numbers."""
    latent, n_states, output, more, cell = structure
    rng = torch.Generator().manual_seed(seed)
    M, H, K, O = n_modules, hidden_size, input_size, output_size

    def drawn(*shape: int) -> Tensor:
        return 0.5 * torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)

    R = n_states * H or 4 * H
    five = (drawn(M, R, K), drawn(M, 4 * H, H), drawn(M, 4 * H), drawn(M, O, H), drawn(M, O))
    decoder = Decoder(latent, output, cell=cell)
    if not more:
        return Weights(*five, decoder=decoder)
    return Weights(
        *five,
        decoder=decoder,
        b_first=drawn(M, 4 * H),
        b_state=drawn(M, R) if n_states else None,
        scale=1 + drawn(M, O),
        shift=drawn(M, O),
    )
