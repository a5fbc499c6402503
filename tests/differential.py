"""Kernels against the float64 reference on drawn problems: the distribution of the differences.

    python tests/differential.py --cases 10000

A case is a number. From it are drawn sizes, weights, dtype and one job, which runs on every
instruction set of this machine and, in float32, by PyTorch; both are compared with the reference
in float64 on the same numbers. ``tests/test_differential.py`` bounds the one by the other.

What is compared, relative to the largest value compared:

- ``generate``: the outputs.
- ``gradient``: the gradients by the five weights and the inputs, the worst of the six.
- ``invert``, ``invert_lm``: the errors reached after at most 3 iterations, each relative to itself.
  Not the inputs found: where an input hardly matters it is hardly determined. Not more iterations:
  Adam divides by the root of its own second moment, so a gradient near 0 sends it either way at a
  change of one rounding, in PyTorch as here (tests/test_kernel.py measures that).
- ``train``: weights and losses after at most 4 episodes, with eps = 1e-3 for the same reason.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import operators
import torch
from torch import Tensor

from micfast import Weights
from micfast.kernels import backend as backends

JOBS = ("generate", "gradient", "invert", "invert_lm", "train")
PYTORCH = "PyTorch"


@dataclass(frozen=True)
class Difference:
    """How far one implementation is from the float64 reference in one case."""

    case: int
    job: str
    dtype: str
    implementation: str
    value: float
    description: str


def draw(case: int) -> tuple[str, dict[str, Any], Weights, str]:
    """Job, its arguments by name, weights and a description of the case of this number."""
    rng = np.random.default_rng([20190, case])
    job = JOBS[case % len(JOBS)]
    dtype = torch.float32 if rng.random() < 0.5 else torch.float64
    M, N = int(rng.integers(1, 5)), int(rng.integers(1, 21))
    T = int(rng.choice([rng.integers(1, 9), rng.integers(9, 41)]))
    H, K, O = int(rng.integers(1, 25)), int(rng.integers(1, 9)), int(rng.integers(1, 9))
    scale = float(rng.choice([0.3, 1, 2, 4]))
    bound = scale / H**0.5

    def tensor(values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values)).to(dtype)

    def uniform(*shape: int) -> Tensor:
        return tensor(rng.uniform(-bound, bound, shape))

    shapes = ((M, 4 * H, K), (M, 4 * H, H), (M, 4 * H), (M, O, H), (M, O))
    weights = Weights(*(uniform(*shape) for shape in shapes))
    data: dict[str, Any] = {}
    if job in ("generate", "gradient"):
        data = {"latents": tensor(rng.dirichlet(np.ones(K), (M, N))), "n_steps": T}
        if job == "gradient":
            data["cotangent"] = tensor(rng.normal(size=(M, N, T, O)))
    elif job == "train":
        S, V = int(rng.integers(1, 3)), int(rng.integers(1, 3))
        data = {
            "type_sets": tensor(rng.normal(size=(S, K, V, T, O))),
            "set_index": torch.as_tensor(rng.integers(0, S, M)),
            "noise_in": torch.as_tensor(rng.uniform(0, 0.3, M)),
            "noise_out": torch.as_tensor(rng.uniform(0, 0.3, M)),
            "seeds": torch.as_tensor(rng.integers(-(2**62), 2**62, M)),
            "n_episodes": int(rng.integers(1, 5)),
            "eps": 1e-3,
            "n_curve": 4,
        }
    else:
        starts = (int(rng.choice([1, M])), int(rng.choice([1, N])), int(rng.integers(1, 4)), K)
        data = {
            "targets": tensor(rng.normal(size=(N, T, O))),
            "init": tensor(rng.dirichlet(np.ones(K), starts[:3])),
            "n_iter": int(rng.integers(0, 4)),
        }
        if job == "invert_lm":
            data["simplex"] = bool(rng.random() < 0.5)
    # Unequal lengths and gaps, in sequences long enough for some; half of the steps stay.
    name = {"train": "type_sets"}.get(job, "targets")
    if name in data and T > 3 and rng.random() < 0.3:
        data["omit_nan"] = True
        for sequence in data[name].view(-1, T, O):
            sequence[int(rng.integers((T + 1) // 2, T + 1)) :] = torch.nan
            sequence[1:][torch.as_tensor(rng.random((T - 1, O)) < rng.choice([0, 0.3]))] = torch.nan
    size = f"M={M} N={N} T={T} H={H} K={K} O={O} scale={scale:g}"
    for name in ("n_iter", "simplex", "n_episodes", "omit_nan"):
        size += f" {name}={data[name]}" if name in data else ""
    return job, data, weights, size


def compute(job: str, data: dict[str, Any], weights: Weights, backend: str) -> list[Tensor]:
    """What is compared."""
    run: dict[str, Any] = {"backend": backend, "n_threads": 1}
    if job == "generate":
        return [operators.generate(weights, **data, **run)]
    if job == "gradient":
        leaves = [w.clone().requires_grad_(True) for w in weights]
        latents = data["latents"].clone().requires_grad_(True)
        drawn = operators.generate(leaves, latents, data["n_steps"], **run)
        return list(torch.autograd.grad((drawn * data["cotangent"]).sum(), [*leaves, latents]))
    if job == "train":
        return list(operators.train(weights, **data, **run))
    return [getattr(operators, job)(weights, **data, **run).errors]


def converted(values: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The numbers in another dtype; a training's levels of noise are float64 in any case."""
    return {
        name: v.to(dtype)
        if isinstance(v, Tensor) and v.is_floating_point() and not name.startswith("noise")
        else v
        for name, v in values.items()
    }


def distance(job: str, got: list[Tensor], expected: list[Tensor]) -> float:
    """The measure of the module's text; infinite where one of them is not finite."""
    worst = 0.0
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        if not b.numel():  # what these modules do not have
            continue
        difference = (a.double() - b).abs()
        largest = b.abs() if job.startswith("invert") else b.abs().max()
        relative = float((difference / largest.clamp_min(1e-30)).max())
        worst = max(worst, relative if np.isfinite(relative) else np.inf)
    return worst


def run_case(case: int) -> list[Difference]:
    """The differences of one case, for every instruction set and PyTorch."""
    job, data, weights, description = draw(case)
    dtype = str(weights.dtype).removeprefix("torch.")

    def reference(data: dict[str, Any], weights: Weights, dtype: torch.dtype) -> list[Tensor]:
        return compute(job, converted(data, dtype), weights.to(dtype=dtype), "torch")

    expected = reference(data, weights, torch.float64)
    # PyTorch in float32, on the numbers rounded to it, measures how hard the problem is.
    rounded, rounded_weights = converted(data, torch.float32), weights.to(dtype=torch.float32)
    single = reference(rounded, rounded_weights, torch.float32)
    exact = expected
    if dtype == "float64":
        exact = reference(rounded, rounded_weights, torch.float64)
    value = distance(job, single, exact)
    found = [Difference(case, job, dtype, PYTORCH, value, description)]
    for isa in backends.extension.available_isas():
        with mock.patch.dict(os.environ, {"MICFAST_ISA": isa}):
            value = distance(job, compute(job, data, weights, "cpu"), expected)
        found.append(Difference(case, job, dtype, isa, value, description))
    return found


def run(n_cases: int, first: int = 0) -> list[Difference]:
    """All cases from ``first`` on."""
    return [found for case in range(first, first + n_cases) for found in run_case(case)]


def table(found: list[Difference]) -> str:
    """Median, 99 % and worst per job and dtype: of the kernels, and of PyTorch in float32.

    Of the last, the same three.
    """
    lines = [
        "| job | dtype | cases | median | 99 % | worst | PyTorch's three | worst case |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for job in JOBS:
        for dtype in ("float32", "float64"):
            own = [d for d in found if (d.job, d.dtype) == (job, dtype)]
            kernel = [d for d in own if d.implementation != PYTORCH]
            if not kernel:
                continue
            worst = max(kernel, key=lambda d: d.value)
            cells = [quantiles([d.value for d in kernel])]
            pytorch = [d.value for d in own if d.implementation == PYTORCH]
            cells.append(quantiles(pytorch) if pytorch else ())
            lines.append(
                f"| {job} | {dtype} | {len({d.case for d in kernel})} | "
                + " | ".join(f"{value:.1e}" for value in cells[0])
                + f" | {', '.join(f'{value:.1e}' for value in cells[1])} | "
                + f"{worst.case}, {worst.implementation}: {worst.description} |"
            )
    return "\n".join(lines)


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """Median, 99 % and largest."""
    return float(np.median(values)), float(np.quantile(values, 0.99)), max(values)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(table(run(arguments.cases, arguments.first)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
