"""A pair's result is the same bits whichever way its block is worked on (csrc/cpu/blocks.h).

Sizes are chosen so that full blocks, tiles of a few targets, blocks that repeat a target and
blocks of many modules all occur; alone, a pair is a tile or a repeated block.
"""

import itertools

import pytest
import torch
from helpers import needs_kernel

import micfast

# Modules, targets, steps, hidden units, inputs, outputs.
SIZES = [
    (1, 1, 9, 10, 4, 2),
    (1, 3, 9, 33, 4, 2),
    (3, 1, 7, 20, 4, 28),
    (2, 5, 6, 64, 3, 3),
    (1, 18, 5, 65, 4, 1),
    (4, 2, 6, 7, 2, 9),
    (1, 7, 5, 130, 5, 3),
    (2, 16, 5, 48, 1, 2),
    (9, 3, 5, 12, 3, 2),
    (1, 14, 4, 70, 2, 2),
]


def ops():
    assert micfast.generate  # registers the operators
    return torch.ops.micfast


def weights_of(M, H, K, O, dtype):
    bound = 1.5 / H**0.5
    shapes = [(M, 4 * H, K), (M, 4 * H, H), (M, 4 * H), (M, O, H), (M, O)]
    return [(2 * torch.rand(*shape, dtype=dtype) - 1) * bound for shape in shapes]


def searches(weights, targets, init, tol, omit_nan):
    adam = (0.05, 0.9, 0.99, 1e-8)
    return [
        ops().invert(*weights, targets, init, 7, *adam, False, True, tol, omit_nan),
        ops().invert_lm(*weights, targets, init, 4, 0.1, True, True, tol, omit_nan),
    ]


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_pair_alone_equals_the_pair_in_company(sizes, dtype):
    M, N, T, H, K, O = sizes
    weights, targets = weights_of(M, H, K, O, dtype), torch.randn(N, T, O, dtype=dtype)
    init = torch.rand(M, N, 2, K, dtype=dtype)
    gaps = targets.clone()
    gaps[0, T // 2 :] = torch.nan
    pairs = [(0, 0), (M - 1, N - 1), (M - 1, N // 2)]
    for tol, (x, omit_nan) in itertools.product((0.0, 0.02), ((targets, False), (gaps, True))):
        together = searches(weights, x, init, tol, omit_nan)
        for m, n in pairs:
            alone = searches(
                [w[m : m + 1] for w in weights],
                x[n : n + 1],
                init[m : m + 1, n : n + 1],
                tol,
                omit_nan,
            )
            for all_results, own_results in zip(together, alone, strict=True):
                for i, (results, own) in enumerate(zip(all_results, own_results, strict=True)):
                    picked = results[m, n] if i < 4 else results[:, m, n]
                    assert torch.equal(picked, own[0, 0] if i < 4 else own[:, 0, 0])


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_drawing_alone_equals_the_drawing_in_company(sizes, dtype):
    M, N, T, H, K, O = sizes
    weights, latents = weights_of(M, H, K, O, dtype), torch.rand(M, N, K, dtype=dtype)
    together = ops().generate(*weights, latents, T)
    for m, n in itertools.product(range(M), range(N)):
        alone = ops().generate(*[w[m : m + 1] for w in weights], latents[m : m + 1, n : n + 1], T)
        assert torch.equal(together[m, n], alone[0, 0])
