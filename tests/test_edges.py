"""Numbers at the edges: kernels on every instruction set against the reference.

The rules that are held here stand in docs/conventions.md, "Edges".
"""

import numpy as np
import operators
import pytest
import torch
from helpers import (
    needs_kernel,
    output_rounding,
    random_fleet,
    random_weights,
    relative_difference,
)

pytestmark = needs_kernel

DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def both(function, *arguments, **settings):
    """What the kernel gives, and the reference."""
    return (
        function(*arguments, **settings, backend="cpu"),
        function(*arguments, **settings, backend="torch"),
    )


def gradients(weights, latents, n_steps, backend):
    leaves = [x.clone().requires_grad_(True) for x in (*weights, latents)]
    drawn = operators.generate(leaves[:5], leaves[5], n_steps, backend=backend)
    return drawn.detach(), torch.autograd.grad(drawn.sum(), leaves)


def same_kind(got, expected):
    """NaN and both infinities in the same places."""
    return all(
        torch.equal(kind(got), kind(expected))
        for kind in (torch.isnan, torch.isposinf, torch.isneginf)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_numbers_count_as_zero(isa, dtype):
    """Within the smallest normal number of the reference, which computes with them."""
    tiny = torch.finfo(dtype).tiny
    subnormal = 0.1 * tiny
    assert subnormal > 0
    weights = random_weights(2, 5, 3, 2, dtype)
    latents = torch.full((2, 4, 3), subnormal, dtype=dtype)
    kernel, expected = both(operators.generate, weights, latents, 6)
    assert relative_difference(kernel, expected) < output_rounding(dtype, 6, 5, 3)
    small = [torch.full_like(w, subnormal) for w in weights]
    kernel, expected = both(operators.generate, small, latents, 6)
    assert (kernel - expected).abs().max() <= tiny
    targets = torch.full((3, 6, 2), subnormal, dtype=dtype)
    start = torch.full((1, 1, 3), 1 / 3, dtype=dtype)
    for solver in (operators.invert, operators.invert_lm):
        kernel, expected = both(solver, weights, targets, start, 3)
        assert relative_difference(kernel.errors, expected.errors) < TOLERANCE[dtype]
        # A start of subnormal numbers sums to zero: 1/K.
        nothing = torch.full((1, 1, 3), subnormal / 8, dtype=dtype)
        found = solver(weights, targets, nothing, 0, backend="cpu")
        torch.testing.assert_close(found.latents, start.expand(2, 3, 3), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_gates(isa, dtype, sign):
    """Biases of +-1e4: open or closed gates, outputs as in the reference, gradients 0 or finite."""
    weights = list(random_weights(2, 6, 4, 2, dtype))
    weights[2] = weights[2] + sign * 1e4
    latents = torch.rand(2, 5, 4, dtype=dtype)
    (kernel, got), (expected, wanted) = (
        gradients(weights, latents, 30, backend) for backend in ("cpu", "torch")
    )
    assert kernel.isfinite().all()
    assert relative_difference(kernel, expected) < TOLERANCE[dtype]
    for a, b in zip(got, wanted, strict=True):
        assert a.isfinite().all()
        assert (a - b).abs().max() <= TOLERANCE[dtype] * max(1.0, float(b.abs().max()))
    targets = torch.randn(3, 30, 2, dtype=dtype)
    start = torch.full((1, 1, 4), 0.25, dtype=dtype)
    for solver in (operators.invert, operators.invert_lm):
        found, reference = both(solver, weights, targets, start, 3)
        assert relative_difference(found.errors, reference.errors) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_1e4(isa, dtype):
    """Finite throughout; outputs as in the reference where a gate's input is not itself lost.

    A recurrence with weights of 1e4 turns one rounding into 1e4: only float64, and few steps, can
    be compared.
    """
    weights = [1e4 * w for w in random_weights(2, 5, 3, 2, dtype)]
    latents = torch.rand(2, 4, 3, dtype=dtype)
    drawn, got = gradients(weights, latents, 20, "cpu")
    assert drawn.isfinite().all()
    assert all(g.isfinite().all() for g in got)
    if dtype == torch.float64:
        expected, _ = gradients(weights, latents, 20, "torch")
        assert relative_difference(drawn, expected) < 1e-6
    targets = 1e4 * torch.randn(3, 20, 2, dtype=dtype)
    start = torch.full((1, 1, 3), 1 / 3, dtype=dtype)
    for solver in (operators.invert, operators.invert_lm):
        found = solver(weights, targets, start, 5, backend="cpu")
        assert found.errors.isfinite().all()
        torch.testing.assert_close(found.latents.sum(-1), torch.ones_like(found.errors))
    fleet = random_fleet(2, 3, 8, 2, dtype)
    trained = operators.train(weights, *fleet, 20, backend="cpu")
    assert all(x.isfinite().all() for x in trained)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ten_thousand_steps(isa, dtype):
    weights = random_weights(1, 4, 3, 2, dtype, scale=1)
    latents = torch.rand(1, 2, 3, dtype=dtype)
    n_steps = 10_000
    drawn = operators.generate(weights, latents, n_steps, backend="cpu")
    assert drawn.isfinite().all()
    with torch.no_grad():
        # The recurrence has long settled: 200 steps of the reference, then its last output.
        expected = operators.generate(weights, latents, 200, backend="torch")
    assert relative_difference(drawn[:, :, :200], expected) < TOLERANCE[dtype]
    assert relative_difference(drawn[:, :, -1], expected[:, :, -1]) < TOLERANCE[dtype]
    targets = drawn[0]
    start = torch.full((1, 1, 3), 1 / 3, dtype=dtype)
    for solver in (operators.invert, operators.invert_lm):
        found = solver(weights, targets, start, 4, backend="cpu", return_history=True)
        assert found.error_history.isfinite().all()
        # The start differs in the first steps alone, by next to nothing over all of them.
        exact = (
            (operators.generate(weights, start.expand(1, 2, 3), n_steps) - targets) ** 2
        ).mean()
        torch.testing.assert_close(
            found.error_history[0].mean(), exact, rtol=1e-3, atol=float(torch.finfo(dtype).eps)
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_constant_targets(isa, dtype, value):
    weights = random_weights(3, 5, 4, 2, dtype)
    targets = torch.full((5, 9, 2), value, dtype=dtype)
    start = torch.full((1, 1, 4), 0.25, dtype=dtype)
    for solver in (operators.invert, operators.invert_lm):
        kernel, expected = both(solver, weights, targets, start, 3)
        assert relative_difference(kernel.errors, expected.errors) < TOLERANCE[dtype]
        assert (kernel.errors == kernel.errors[:, :1]).all(), "equal targets, equal errors"


@pytest.mark.parametrize("dtype", DTYPES)
def test_targets_that_a_module_draws_exactly(isa, dtype):
    """Error 0, gradient 0: the search stays where it is."""
    weights = random_weights(2, 5, 4, 2, dtype)
    weights = [torch.zeros_like(w) for w in weights]
    targets = torch.zeros(3, 7, 2, dtype=dtype)
    start = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]], dtype=dtype)
    for solver in (operators.invert, operators.invert_lm):
        found = solver(weights, targets, start, 5, backend="cpu")
        assert (found.errors == 0).all()
        torch.testing.assert_close(found.latents, start.expand(2, 3, 4))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", [operators.invert, operators.invert_lm])
def test_huge_targets(isa, dtype, solver):
    """A square that overflows gives an infinite error; Adam's gradient that does so, NaN."""
    weights = random_weights(2, 5, 3, 2, dtype)
    largest = torch.finfo(dtype).max
    start = torch.full((1, 1, 3), 1 / 3, dtype=dtype)
    values = [1e15, 1e30, largest, -largest]
    targets = torch.tensor(values, dtype=dtype)[:, None, None].expand(4, 6, 2).contiguous()
    targets = torch.cat([targets, torch.randn(2, 6, 2, dtype=dtype)])
    kernel, expected = both(solver, weights, targets, start, 4)
    assert same_kind(kernel.errors, expected.errors)
    overflown = torch.zeros(6, dtype=torch.bool)
    overflown[2:4] = solver is operators.invert
    assert torch.equal(kernel.errors.isnan(), overflown.expand(2, 6))
    finite = expected.errors.isfinite()
    assert finite.any()
    assert (kernel.errors[:, 2:4] == torch.inf).all() or solver is operators.invert
    difference = (kernel.errors - expected.errors)[finite].abs() / expected.errors[finite]
    assert difference.max() < TOLERANCE[dtype]
    total = kernel.latents[:, ~overflown].sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))
    # The others are what they are without such neighbours.
    alone = solver(weights, targets[4:], start, 4, backend="cpu")
    assert torch.equal(kernel.errors[:, 4:], alone.errors)


@pytest.mark.parametrize("dtype", DTYPES)
def test_training_on_huge_types_spoils_its_module_alone(isa, dtype):
    weights = random_weights(3, 4, 2, 1, dtype)
    sets, index, *fleet = random_fleet(3, 2, 5, 1, dtype, n_sets=3)
    clean = operators.train(weights, sets, index, *fleet, 6, backend="cpu")
    sets[1] = torch.finfo(dtype).max
    dirty, expected = both(operators.train, weights, sets, index, *fleet, 6)
    for got, before, want in zip(dirty, clean, expected, strict=True):
        assert torch.equal(got[0], before[0])
        assert torch.equal(got[2], before[2])
        assert same_kind(got[1], want[1])
    assert not np.isfinite(dirty.loss_curve[1].numpy()).any()
