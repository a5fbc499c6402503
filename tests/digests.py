"""Digests of what the kernels compute, per instruction set: refactoring must not change one bit.

``python tests/digests.py`` prints those of the installed package as JSON;
``tests/data/digests.json`` holds those of commit 482234b, and ``test_digests.py`` compares. (Five
of "invert starts", which stops early by `tol`, are newer: there, the last bit at 482234b depended
on when the other lanes of a block stopped.)
Inputs are exact binary fractions from NumPy's legacy generator, so no library's rounding enters.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

import micfast.kernels.operators  # noqa: F401 - registers them

# Modules, targets, steps, hidden units, inputs, outputs; odd sizes leave partly filled lanes.
SIZES = ((3, 21, 17, 10, 4, 2), (2, 5, 9, 20, 4, 7), (5, 1, 12, 7, 3, 1))


def _drawn(rng: np.random.RandomState, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.from_numpy(rng.randint(-512, 513, shape) / 1024).to(dtype)


def _weights(
    rng: np.random.RandomState, dtype: torch.dtype, M: int, H: int, K: int, O: int
) -> list[Tensor]:
    shapes = [(M, 4 * H, K), (M, 4 * H, H), (M, 4 * H), (M, O, H), (M, O)]
    return [_drawn(rng, dtype, *shape) for shape in shapes]


def cases() -> Iterator[tuple[str, Callable[[], list[Tensor]]]]:
    """Names of the cases, and what computes the tensors of each."""
    ops = torch.ops.micfast
    for number, (M, N, T, H, K, O) in enumerate(SIZES):
        for dtype in (torch.float32, torch.float64):
            rng = np.random.RandomState(number)
            weights = _weights(rng, dtype, M, H, K, O)
            targets, d_outputs = _drawn(rng, dtype, N, T, O), _drawn(rng, dtype, M, N, T, O)
            latents = _drawn(rng, dtype, M, N, K)
            even = torch.full((1, 1, 1, K), 1 / K, dtype=dtype)
            starts = torch.stack([even[0, 0], torch.eye(K, dtype=dtype)[:1]], dim=1)[None]
            gaps = targets.clone()
            gaps[0, T // 2 :] = torch.nan
            gaps[-1, 1, 0] = torch.nan
            types = _drawn(rng, dtype, M, K, 1, T, O)
            fleet = (types, torch.arange(M), torch.full((M,), 0.125, dtype=torch.float64))
            fleet += (torch.full((M,), 0.0625, dtype=torch.float64), torch.arange(M) + 7)
            short = types.clone()
            short[0, 0, 0, T // 2 :] = torch.nan
            adam, lm, training = (0.05, 0.9, 0.99, 1e-8), (0.1, True), (0.01, 0.9, 0.999, 1e-8)
            # Bound as defaults, since the loop goes on before they are called.
            w, run = weights, f"{M}x{N}x{T}x{H}x{K}x{O} {str(dtype).removeprefix('torch.')}"
            computed: dict[str, Callable[..., object]] = {
                "generate": lambda w=w, z=latents, T=T: [ops.generate(*w, z, T)],
                # Without the empty gradients of biases that these modules lack.
                "generate_backward": lambda w=w, z=latents, d=d_outputs: ops.generate_backward(
                    *w, z, d
                )[:6],
                "invert": lambda w=w, x=targets, z=even, a=adam: ops.invert(
                    *w, x, z, 12, *a, False, True, 0.0, False
                ),
                "invert starts": lambda w=w, x=targets, z=starts, a=adam: ops.invert(
                    *w, x, z, 12, *a, True, False, 0.01, False
                ),
                "invert gaps": lambda w=w, x=gaps, z=even, a=adam: ops.invert(
                    *w, x, z, 12, *a, False, False, 0.0, True
                ),
                "invert_lm": lambda w=w, x=targets, z=even, a=lm: ops.invert_lm(
                    *w, x, z, 4, *a, True, 0.0, False
                ),
                "invert_lm free": lambda w=w, x=targets, z=starts: ops.invert_lm(
                    *w, x, z, 4, 0.1, False, False, 0.01, False
                ),
                "invert_lm gaps": lambda w=w, x=gaps, z=even, a=lm: ops.invert_lm(
                    *w, x, z, 4, *a, False, 0.0, True
                ),
                "train": lambda w=w, f=fleet, a=training: ops.train(*w, *f, 30, *a, 10, False)[:6],
                "train gaps": lambda w=w, f=fleet, s=short, a=training: ops.train(
                    *w, s, *f[1:], 30, *a, 10, True
                )[:6],
            }
            for name, compute in computed.items():
                yield f"{name} {run}", compute  # type: ignore[misc]


def digest(tensors: list[Tensor]) -> str:
    """One hash of all bits; NaN of any kind counts as the same."""
    sha = hashlib.sha256()
    for tensor in tensors:
        array = tensor.numpy().copy()
        if array.dtype.kind == "f":
            array[np.isnan(array)] = np.nan
        sha.update(f"{array.dtype.str} {array.shape}".encode() + array.tobytes())
    return sha.hexdigest()[:16]


def digests() -> dict[str, str]:
    """Digests of all cases under the instruction set in use (``MICFAST_ISA``)."""
    return {name: digest(list(compute())) for name, compute in cases()}


if __name__ == "__main__":
    json.dump(digests(), sys.stdout, indent=1)
