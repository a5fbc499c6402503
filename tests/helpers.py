"""What several test files share: weights, fleets, instruction sets, tolerances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from micfast import Weights
from micfast.kernels import backend, reference

ISAS = backend.extension.available_isas() if backend.extension is not None else []
_MEAN_SQUARED_ERROR = reference.Objective()
needs_kernel = pytest.mark.skipif(
    backend.extension is None, reason=f"no compiled extension: {backend.load_error}"
)


def rounding(dtype: torch.dtype, n_operations: int) -> float:
    """How far two orders of so many operations, one after the other, may lie apart.

    Each rounds by at most half the epsilon, in either order; an exponential function counts as
    several, and a recurrence may magnify what came before: 16 times the operations cover both.
    """
    return 16 * n_operations * torch.finfo(dtype).eps


def output_rounding(dtype: torch.dtype, T: int, H: int, K: int) -> float:
    """As :func:`rounding`, for a drawn sequence: every step sums over the inputs."""
    return rounding(dtype, T + H + K)


def gradient_rounding(dtype: torch.dtype, N: int, T: int, H: int, K: int, O: int) -> float:
    """As :func:`rounding`, for gradients: back through the steps, and summed over all targets."""
    return rounding(dtype, N + 2 * T + H + K + O)


def random_weights(
    M: int,
    H: int,
    K: int,
    O: int,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    scale: float = 2,
) -> Weights:
    """Weights of M modules, `scale` times as wide as torch would start them."""
    generator = torch.Generator().manual_seed(seed)
    bound = scale / H**0.5

    def uniform(*shape: int) -> Tensor:
        values = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return ((2 * values - 1) * bound).to(dtype)

    shapes = ((M, 4 * H, K), (M, 4 * H, H), (M, 4 * H), (M, O, H), (M, O))
    return Weights(*(uniform(*shape) for shape in shapes))


def random_fleet(
    M: int, K: int, T: int, O: int, dtype: torch.dtype, n_sets: int = 2, noise: float = 0.1
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """type_sets, set_index, noise_in, noise_out, seeds of a fleet of M modules."""
    generator = torch.Generator().manual_seed(1)
    levels = noise * (torch.arange(M, dtype=torch.float64) % 3)
    return (
        torch.randn(n_sets, K, T, O, generator=generator, dtype=torch.float64).to(dtype),
        torch.arange(M) % n_sets,
        levels,
        levels.flip(0),
        1000003 * torch.arange(M) - 7,
    )


def with_holes(sequences: Tensor) -> Tensor:
    """The sequences, every one with an end of its own and with values missing before it."""
    generator = torch.Generator().manual_seed(5)
    n, T = sequences[..., 0, 0].numel(), sequences.shape[-2]
    result = sequences.clone().reshape(n, *sequences.shape[-2:])
    result[torch.rand(result.shape, generator=generator) < 0.2] = torch.nan
    for i in range(n):
        result[i, 1 + i % T :] = torch.nan
        result[i, 0, 0] = i  # at least one value
    return result.reshape(sequences.shape)


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest |a - b| relative to the largest |b|; fails on a difference in shape or NaN."""
    assert a.shape == b.shape
    if b.numel() == 0:
        return 0.0
    difference = (a.double() - b.double()).abs().max().item()
    assert difference == difference, "NaN in the difference"
    return difference / max(b.double().abs().max().item(), 1e-30)


def assert_same_lm_searches(
    kernel: reference.InvertResult,
    expected: reference.InvertResult,
    weights: Weights,
    targets: Tensor,
    omit_nan: bool = False,
    objective: reference.Objective = _MEAN_SQUARED_ERROR,
) -> None:
    """Hold a float64 search by Levenberg–Marquardt, with history and no `tol`, to the reference's.

    The activations have an absolute error of some 1e-16, so derivatives below that, of cells deep
    in saturation, are noise; and as the damping is relative, the next step of a free latent then
    is noise, too. The two need not agree after such a point. Measured over 370,000 steps, errors
    differ by more than 1e-7 only after derivatives below 1e-16, and by less than 1e-10 after
    derivatives above 1e-8, the bound used here. Where the two part, the kernel's errors must
    still be those of its own latents, and never rise.
    """
    z, z_kernel = expected.latent_history, kernel.latent_history
    assert z_kernel.shape == z.shape
    n_points, _, N, S, _ = z.shape
    repeated = targets.repeat_interleave(n_points * S, 0)  # N x points x S

    def per_point(x: Tensor) -> Tensor:  # (M, N * points * S, ...) to (points, M, N, S, ...)
        return x.unflatten(1, (N, n_points, S)).movedim(2, 0)

    def flat(latents: Tensor) -> Tensor:
        return latents.permute(1, 2, 0, 3, 4).flatten(1, 3)

    def drawn_from(latents: Tensor) -> tuple[Tensor, Tensor]:
        n_steps, structure = targets.shape[1], weights.structure
        return reference.generate_with_derivatives(weights, flat(latents), n_steps, structure)

    assert kernel.n_iter_used.eq(n_points - 1).all()
    assert kernel.errors.equal(kernel.error_history[-1])
    assert kernel.latents.equal(z_kernel[-1])
    assert (kernel.error_history.diff(dim=0) <= 0).all()
    if N == 0:
        return
    drawn_by_kernel, _ = drawn_from(z_kernel)
    own = per_point(objective.error(drawn_by_kernel, repeated, flat(z_kernel), omit_nan))
    # Pre-activations are rounded in proportion to the latents.
    slack = 1e-12 + 1e-9 * own + 1e-14 * z_kernel.abs().amax(-1)
    assert ((kernel.error_history - own).abs() <= slack).all()

    drawn, derivatives = drawn_from(z)
    known = ~repeated.isnan()[..., None]
    largest = torch.where(known, derivatives, 0).abs().flatten(2).amax(-1)
    # A point is determined by those before it.
    determined = per_point(largest > 1e-8).cummin(dim=0).values.roll(1, 0)
    determined[0] = True
    assert (
        relative_difference(kernel.error_history[determined], expected.error_history[determined])
        < 1e-7
    )
    # Latents less so, where they hardly matter.
    same = per_point(drawn_by_kernel)[determined], per_point(drawn)[determined]
    assert not known.all() or relative_difference(*same) < 1e-4


class TorchModule(nn.Module):
    """What a user of PyTorch would write."""

    def __init__(self, K: int, H: int, O: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(K, H)
        self.FC = nn.Linear(H, O)

    def forward(self, z: Tensor, n_steps: int) -> Tensor:
        """Draw (N, T, O) from inputs (N, K)."""
        x = torch.cat([z[None], z.new_zeros(n_steps - 1, *z.shape)])
        return self.FC(self.lstm(x)[0]).transpose(0, 1)


def torch_modules(
    M: int, K: int, H: int, O: int, dtype: torch.dtype = torch.float64
) -> list[TorchModule]:
    """M modules with torch's own starting weights."""
    torch.manual_seed(0)
    return [TorchModule(K, H, O).to(dtype) for _ in range(M)]


def stacked_weights(modules: list[TorchModule]) -> Weights:
    """The modules' weights as micfast's operators take them."""
    return Weights(
        torch.stack([m.lstm.weight_ih_l0.detach() for m in modules]),
        torch.stack([m.lstm.weight_hh_l0.detach() for m in modules]),
        torch.stack([(m.lstm.bias_ih_l0 + m.lstm.bias_hh_l0).detach() for m in modules]),
        torch.stack([m.FC.weight.detach() for m in modules]),
        torch.stack([m.FC.bias.detach() for m in modules]),
    )
