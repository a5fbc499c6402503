"""The compiled kernel, held against the reference on every instruction set of this machine."""

import ctypes
import functools
import math

import numpy as np
import operators
import pytest
import torch
from helpers import (
    ISAS,
    assert_same_lm_searches,
    gradient_rounding,
    needs_kernel,
    output_rounding,
    random_fleet,
    random_weights,
    relative_difference,
)
from hypothesis import given
from hypothesis import strategies as st

from micfast import Weights
from micfast.kernels import backend, reference, reference_training

pytestmark = needs_kernel

DTYPES = [torch.float32, torch.float64]
# Sizes of one, around the vectors' widths and the row blocks of the kernel, and odd ones.
sizes = st.tuples(
    st.sampled_from([1, 2, 3, 17]),  # M
    st.sampled_from([0, 1, 3, 7, 8, 9, 15, 16, 17, 33]),  # N
    st.sampled_from([1, 2, 7, 8, 9, 17]),  # T
    st.sampled_from([1, 2, 3, 4, 5, 6, 7, 10, 11, 13, 16, 21, 33]),  # H
    st.sampled_from([1, 2, 4, 5, 21]),  # K
    st.sampled_from([1, 2, 3, 5, 21, 28]),  # O
)


@pytest.mark.parametrize("dtype", DTYPES)
@given(size=sizes)
def test_generate_and_its_gradients(isa, dtype, size):
    M, N, T, H, K, O = size
    weights = [w.requires_grad_(True) for w in random_weights(M, H, K, O, dtype)]
    latents = torch.rand(M, N, K, dtype=dtype).requires_grad_(True)
    cotangent = torch.randn(M, N, T, O, dtype=dtype)
    results = []
    for name in ("cpu", "torch"):
        drawn = operators.generate(weights, latents, T, backend=name)
        gradients = torch.autograd.grad((drawn * cotangent).sum(), [*weights, latents])
        results.append((drawn.detach(), gradients))
    (kernel, kernel_gradients), (expected, expected_gradients) = results
    assert relative_difference(kernel, expected) < output_rounding(dtype, T, H, K)
    for got, want in zip(kernel_gradients, expected_gradients, strict=True):
        assert relative_difference(got, want) < gradient_rounding(dtype, N, T, H, K, O)


@given(size=sizes, n_iter=st.integers(0, 5), unprojected=st.booleans())
def test_invert_float64(isa, size, n_iter, unprojected):
    M, N, T, H, K, O = size
    weights = random_weights(M, H, K, O, torch.float64)
    targets = torch.randn(N, T, O, dtype=torch.float64)
    init = torch.rand(M if T % 2 else 1, N if H % 2 else 1, K, dtype=torch.float64)
    arguments = (weights, targets, init, n_iter, 0.05, 0.9, 0.99, 1e-8, unprojected, True)
    kernel = operators.invert(*arguments, backend="cpu")
    expected = operators.invert(*arguments, backend="torch")
    for got, want in zip(kernel, expected, strict=True):
        assert relative_difference(got, want) < 1e-7


@given(size=sizes, n_iter=st.integers(0, 12), tol=st.sampled_from([0.0, 1e-3]), S=st.integers(1, 3))
def test_invert_float64_with_starts_and_early_stopping(isa, size, n_iter, tol, S):
    M, N, T, H, K, O = size
    weights = random_weights(M, H, K, O, torch.float64)
    targets = torch.randn(N, T, O, dtype=torch.float64)
    init = torch.rand(M if T % 2 else 1, N if H % 2 else 1, S, K, dtype=torch.float64)
    arguments = (weights, targets, init, n_iter, 0.05, 0.9, 0.99, 1e-8, False, True, tol)
    kernel = operators.invert(*arguments, backend="cpu")
    expected = operators.invert(*arguments, backend="torch")
    for got, want in zip(kernel, expected, strict=True):
        assert relative_difference(got, want) < 1e-7


@given(size=sizes, n_iter=st.integers(0, 4), simplex=st.booleans(), S=st.integers(1, 3))
def test_invert_lm_float64(isa, size, n_iter, simplex, S):
    M, N, T, H, K, O = size
    weights = random_weights(M, H, K, O, torch.float64)
    targets = torch.randn(N, T, O, dtype=torch.float64)
    init = torch.rand(M if T % 2 else 1, N if H % 2 else 1, S, K, dtype=torch.float64)
    arguments = (weights, targets, init, n_iter, 0.1, simplex, True)
    kernel = operators.invert_lm(*arguments, backend="cpu")
    expected = operators.invert_lm(*arguments, backend="torch")
    assert_same_lm_searches(kernel, expected, weights, targets)


def lm_problem(dtype=torch.float32):
    weights, *rest = trained_problem()[0]
    return weights.to(dtype=dtype), *(x.to(dtype) for x in rest)


@pytest.mark.slow
def test_invert_lm_of_trained_modules(isa):
    """In float32 as near to float64 as PyTorch is, and at lower errors than Adam."""
    problem = lm_problem()
    kernel = operators.invert_lm(*problem, 8, backend="cpu").errors.double()
    expected = operators.invert_lm(*problem, 8, backend="torch").errors.double()
    exact = operators.invert_lm(*lm_problem(torch.float64), 8, backend="torch").errors
    distance = (kernel - exact).abs() / exact
    assert distance.median() <= 3 * ((expected - exact).abs() / exact).median() + 1e-6
    assert (distance <= 1e-3).double().mean() >= 0.95
    own = torch.arange(kernel.shape[1]) % kernel.shape[0], torch.arange(kernel.shape[1])
    assert kernel[own].mean() < operators.invert(*problem, 50).errors.double()[own].mean()


def test_lm_results_do_not_depend_on_neighbours_or_threads(isa):
    weights, targets, init = lm_problem()
    for tol in (0.0, 1e-2):
        whole = operators.invert_lm(weights, targets, init, 7, tol=tol)
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))
        shuffled = operators.invert_lm(weights, targets[order], init, 7, tol=tol, n_threads=3)
        for got, want in zip(shuffled[:4], whole[:4], strict=True):
            assert torch.equal(got, want[:, order])
        part = operators.invert_lm(weights, targets[5:6], init, 7, tol=tol, n_threads=1)
        assert torch.equal(part.errors, whole.errors[:, 5:6])
        one = operators.invert_lm(weights[1:2], targets, init, 7, tol=tol)
        assert torch.equal(one.latents, whole.latents[1:2])


@pytest.mark.parametrize("solver", [operators.invert, operators.invert_lm])
def test_starts_are_searches_of_their_own(isa, solver):
    weights, targets, _ = lm_problem()
    starts = torch.rand(4, len(targets), 3, 4, generator=torch.Generator().manual_seed(5))
    together = solver(weights, targets, starts, 6, return_history=True)
    for s in range(3):
        alone = solver(weights, targets, starts[:, :, s], 6, return_history=True)
        assert torch.equal(together.errors[..., s], alone.errors)
        assert torch.equal(together.latents[:, :, s], alone.latents)
        assert torch.equal(together.error_history[..., s], alone.error_history)
    shared = solver(weights, targets, starts[:1, :1], 6)
    assert torch.equal(
        shared.errors, solver(weights, targets, starts[:1, :1].expand_as(starts), 6).errors
    )


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["torch", *ISAS])
@pytest.mark.parametrize("solver", [operators.invert, operators.invert_lm])
def test_early_stopping_saves_steps_and_says_so(solver, implementation, monkeypatch):
    backend = "torch" if implementation == "torch" else "cpu"
    if backend == "cpu":
        monkeypatch.setenv("MICFAST_ISA", implementation)
    problem = lm_problem()
    whole = solver(*problem, 40, backend=backend)
    early = solver(*problem, 40, tol=1e-2, backend=backend)
    assert (whole.n_iter_used == 40).all()
    assert not whole.converged.any()
    assert torch.equal(early.converged, early.n_iter_used < 40)
    assert early.converged.double().mean() > 0.9
    assert (early.errors <= 1.2 * whole.errors + 1e-4).double().mean() > 0.8
    # A search that went on to the end is not touched by the watch.
    rest = ~early.converged
    assert torch.equal(early.errors[rest], whole.errors[rest])


def test_lm_leaves_targets_that_are_not_finite_alone(isa):
    weights, targets, init = lm_problem()
    dirty = targets.clone()
    dirty[3, 2, 1], dirty[17, 0, 0] = torch.nan, torch.inf
    for tol in (0.0, 1e-3):
        clean = operators.invert_lm(weights, targets, init, 5, tol=tol)
        result = operators.invert_lm(weights, dirty, init, 5, tol=tol)
        bad = torch.zeros(len(targets), dtype=torch.bool)
        bad[[3, 17]] = True
        assert result.errors[:, bad].isnan().all()
        assert not result.converged[:, bad].any()
        assert (result.n_iter_used[:, bad] == 0).all()
        assert torch.equal(result.errors[:, ~bad], clean.errors[:, ~bad])


@functools.cache
def trained_problem():
    """Modules trained for a while, targets between their types, and the reference's errors.

    The use that the kernel is made for. Also tells which pairs are *chaotic*: Adam divides by
    the root of its own second moment, so a component at the edge of the simplex, or a gradient
    near zero, can send the next steps either way at a change of one rounding. They are found in
    float64, by rounding-sized changes of the problem.
    """
    M, N, T, H, K, O = 4, 40, 25, 10, 4, 2
    steps = torch.linspace(0, 6, T)
    phase = torch.rand(M, K, 1, O, generator=torch.Generator().manual_seed(2))
    types = torch.sin(steps[:, None] + 6 * phase)
    _, _, noise_in, _, seeds = random_fleet(M, K, T, O, torch.float32)
    fleet = (types, torch.arange(M), noise_in, torch.zeros_like(noise_in), seeds)
    trained = operators.train(random_weights(M, H, K, O, scale=1), *fleet, 1500)
    weights = Weights(*trained[:5])
    mixture = torch.rand(N, K, generator=torch.Generator().manual_seed(3))
    targets = torch.einsum(
        "nk,nkto->nto", mixture / mixture.sum(1, True), types[torch.arange(N) % M]
    )
    init = torch.full((1, 1, K), 1 / K)

    problem = (weights, targets, init)
    expected = operators.invert(*problem, 50, backend="torch").errors.double()
    double = [weights.to(dtype=torch.float64), targets.double(), init.double()]
    exact = operators.invert(*double, 50).errors
    generator = torch.Generator().manual_seed(4)

    def rounded(x):
        if isinstance(x, Weights):
            return x.map(rounded)
        return x * (1 + 1e-6 * torch.randn(x.shape, generator=generator, dtype=torch.float64))

    runs = [operators.invert(*[rounded(x) for x in double], 50).errors for _ in range(12)]
    chaotic = ((torch.stack(runs) - exact).abs().amax(0) / exact) > 1e-4
    return problem, expected, exact, chaotic


def test_invert_float32_over_fifty_iterations_of_trained_modules(isa):
    """Within 1e-4 of the reference wherever the problem itself determines the result.

    On the chaotic pairs PyTorch in float32 strays from float64 as far as the kernel does.
    """
    problem, expected, exact, chaotic = trained_problem()
    kernel = operators.invert(*problem, 50, backend="cpu").errors.double()
    assert chaotic.double().mean() < 0.25  # 0.14 on the machine this was written on
    assert ((kernel - expected).abs() / expected)[~chaotic].max() <= 1e-4  # 4e-6 there
    strayed = ((kernel - exact).abs() / exact)[chaotic].median()
    assert strayed <= 3 * ((expected - exact).abs() / exact)[chaotic].median() + 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
@given(size=sizes, n_episodes=st.integers(0, 6), noise=st.sampled_from([0.0, 0.2]))
def test_train(isa, dtype, size, n_episodes, noise):
    M, _, T, H, K, O = size
    weights = random_weights(M, H, K, O, dtype)
    fleet = random_fleet(M, K, T, O, dtype, noise=noise)
    arguments = (weights, *fleet, n_episodes, 0.01, 0.9, 0.999, 1e-3, 4)
    kernel = operators.train(*arguments, backend="cpu")
    expected = operators.train(*arguments, backend="torch")
    for got, want in zip(kernel, expected, strict=True):
        assert relative_difference(got, want) < (1e-4 if dtype == torch.float32 else 1e-10)


def test_train_draws_the_reference_s_random_numbers(isa):
    """Noise large enough that any wrong number would show."""
    M, K, T, O = 5, 3, 11, 3
    weights = random_weights(M, 4, K, O, torch.float64)
    fleet = random_fleet(M, K, T, O, torch.float64, noise=3.0)
    kernel = operators.train(weights, *fleet, 40, n_curve=40, backend="cpu")
    expected = operators.train(weights, *fleet, 40, n_curve=40, backend="torch")
    assert relative_difference(kernel.loss_curve, expected.loss_curve) < 1e-10
    single = operators.train(
        weights.to(dtype=torch.float32), fleet[0].float(), *fleet[1:], 1, backend="cpu"
    )
    assert relative_difference(single.loss_curve, expected.loss_curve[:, :1]) < 1e-5


def test_train_shows_the_variants_of_a_type(isa):
    M, K, T, O = 5, 3, 7, 2
    weights = random_weights(M, 4, K, O, torch.float64)
    types, *fleet = random_fleet(M, K, T, O, torch.float64)
    variants = torch.randn(2, K, 6, T, O, dtype=torch.float64)
    kernel = operators.train(weights, variants, *fleet, 30, n_curve=30, backend="cpu")
    expected = operators.train(weights, variants, *fleet, 30, n_curve=30, backend="torch")
    assert relative_difference(kernel.loss_curve, expected.loss_curve) < 1e-10
    one = operators.train(weights, types, *fleet, 30, n_curve=30)
    same = operators.train(weights, types[:, :, None].repeat(1, 1, 6, 1, 1), *fleet, 30, n_curve=30)
    for got, want in zip(same, one, strict=True):
        assert torch.equal(got, want)


def test_every_variant_is_drawn_and_only_with_its_own_type():
    types = np.arange(12.0).reshape(3, 4, 1, 1)
    drawn = [reference_training.sample_episode(9, e, types, 0, 0) for e in range(600)]
    assert all(int(target.item()) // 4 == x.argmax() for x, target in drawn)
    counts = np.bincount([int(target.item()) for _, target in drawn], minlength=12)
    # Four standard deviations.
    assert np.abs(counts - 50).max() < 4 * (600 * 1 / 12 * 11 / 12) ** 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_target_s_result_does_not_depend_on_the_others(isa, dtype):
    """Bit for bit: order, split, threads, and so the lane and the kind of block it lands in."""
    weights = random_weights(3, 10, 4, 2, dtype)
    targets = torch.randn(53, 12, 2, dtype=dtype)
    init = torch.full((1, 1, 4), 0.25, dtype=dtype)
    whole = operators.invert(weights, targets, init, 7)
    order = torch.randperm(53, generator=torch.Generator().manual_seed(0))
    shuffled = operators.invert(weights, targets[order], init, 7, n_threads=3)
    assert torch.equal(shuffled.errors, whole.errors[:, order])
    assert torch.equal(shuffled.latents, whole.latents[:, order])
    for first, last in ((0, 1), (1, 17), (17, 53)):
        part = operators.invert(weights, targets[first:last], init, 7, n_threads=1)
        assert torch.equal(part.errors, whole.errors[:, first:last])
        assert torch.equal(part.latents, whole.latents[:, first:last])
    one = operators.invert(weights[1:2], targets, init, 7)
    assert torch.equal(one.errors, whole.errors[1:2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_module_s_training_does_not_depend_on_the_fleet(isa, dtype):
    M = 35
    weights = random_weights(M, 7, 3, 2, dtype)
    sets, *per_module = random_fleet(M, 3, 9, 2, dtype)
    whole = operators.train(weights, sets, *per_module, 30, n_threads=2)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(0))[:20]
    part = operators.train(weights[order], sets, *[x[order] for x in per_module], 30, n_threads=1)
    for got, want in zip(part, whole, strict=True):
        assert torch.equal(got, want[order])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n_iter", [0, 5])
def test_a_bad_target_spoils_itself_alone(isa, bad, n_iter):
    weights = random_weights(3, 6, 4, 2)
    targets = torch.randn(37, 8, 2)
    init = torch.full((1, 1, 4), 0.25)
    clean = operators.invert(weights, targets, init, n_iter, return_history=True)
    bad_ones = [2, 36]  # one in a full block, one in the rest
    targets[bad_ones, 3, 1] = bad
    dirty = operators.invert(weights, targets, init, n_iter, return_history=True)
    good = [n for n in range(37) if n not in bad_ones]
    assert dirty.errors[:, bad_ones].isnan().all()
    assert dirty.error_history[:, :, bad_ones].isnan().all()
    assert torch.equal(dirty.errors[:, good], clean.errors[:, good])
    assert torch.equal(dirty.latents[:, good], clean.latents[:, good])
    assert torch.equal(dirty.latent_history[:, :, good], clean.latent_history[:, :, good])


def test_a_start_with_nothing_positive_falls_back_to_uniform(isa):
    weights = random_weights(2, 5, 4, 2)
    targets = torch.randn(3, 6, 2)
    negative = operators.invert(
        weights, targets, torch.full((1, 1, 4), -1.0), 3, return_history=True
    )
    uniform = operators.invert(
        weights, targets, torch.full((1, 1, 4), 0.25), 3, return_history=True
    )
    assert (negative.latent_history[0] == 0.25).all()
    assert torch.equal(negative.error_history[0], uniform.error_history[0])
    # A step this large leaves no positive component in some latents.
    arguments = (
        weights.to(dtype=torch.float64),
        targets.double(),
        torch.full((1, 1, 4), 0.25).double(),
        9,
        2.0,
    )
    kernel, expected = (
        operators.invert(*arguments, backend="cpu"),
        operators.invert(*arguments, backend="torch"),
    )
    assert relative_difference(kernel.errors, expected.errors) < 1e-9


def test_non_contiguous_input(isa):
    weights = random_weights(2, 6, 4, 3)
    strided = [torch.stack([w, torch.zeros_like(w)], -1)[..., 0] for w in weights]
    assert not strided[0].is_contiguous()
    targets = torch.randn(3, 7, 21).permute(2, 1, 0)
    init = torch.full((1, 1, 4), 0.25).expand(2, 21, 4)
    got = operators.invert(strided, targets, init, 4)
    want = operators.invert(weights, targets.contiguous(), init.contiguous(), 4)
    assert torch.equal(got.errors, want.errors)
    latents = torch.rand(4, 5, 2).permute(2, 1, 0)
    assert torch.equal(
        operators.generate(strided, latents, 6),
        operators.generate(weights, latents.contiguous(), 6),
    )


def test_gradcheck(isa):
    weights = [w.requires_grad_(True) for w in random_weights(2, 3, 2, 2, torch.float64)]
    latents = torch.rand(2, 3, 2, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda *a: operators.generate(a[:5], a[5], 5, backend="cpu"),
        (*weights, latents),
        eps=1e-6,
        atol=1e-8,
    )


def activation(name, x):
    """The kernel's own sigmoid or tanh of a numpy array."""
    y = np.empty_like(x)
    function = getattr(backend.extension, f"{name}_{x.dtype}")
    function(x.ctypes.data, y.ctypes.data, x.size)
    return y


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_over_the_whole_range(isa, dtype):
    """Within 4 epsilon: the polynomial, the scaling, the sum and the division round once each."""
    info = np.finfo(dtype)
    bound = 4 * info.eps
    small = np.exp(np.linspace(np.log(info.tiny), np.log(1e-3), 5000))
    large = np.exp(np.linspace(np.log(40), np.log(info.max) - 1, 5000))
    positive = np.concatenate([small, np.linspace(0, 40, 400001), large])
    x = np.concatenate([positive, -positive]).astype(dtype)
    wide = x.astype(np.longdouble)
    with np.errstate(over="ignore"):
        sigmoid, tanh = 1 / (1 + np.exp(-wide)), np.tanh(wide)
    assert np.abs(activation("sigmoid", x) - sigmoid).max() <= bound
    assert np.abs(activation("tanh", x) - tanh).max() <= bound
    edges = np.array([0, -0.0, np.inf, -np.inf, np.nan], dtype)
    tiny = 3e-38 if dtype == np.float32 else 1e-307
    np.testing.assert_allclose(
        activation("sigmoid", edges), [0.5, 0.5, 1, 0, np.nan], rtol=0, atol=tiny
    )
    np.testing.assert_array_equal(activation("tanh", edges), [0, 0, 1, -1, np.nan])
    assert np.all((activation("sigmoid", x) >= 0) & (activation("sigmoid", x) <= 1))
    assert np.all(np.abs(activation("tanh", x)) <= 1)


def test_saturated_and_huge_weights(isa):
    weights = random_weights(2, 5, 3, 2, torch.float64).map(lambda w: 1e4 * w)
    latents = torch.rand(2, 4, 3, dtype=torch.float64)
    kernel = operators.generate(weights, latents, 20, backend="cpu")
    assert kernel.isfinite().all()
    assert relative_difference(kernel, reference.generate(weights, latents, 20)) < 1e-6


def test_the_caller_s_floating_point_mode_is_left_alone(isa):
    operators.generate(random_weights(1, 3, 2, 1), torch.rand(1, 3, 2), 4)
    subnormal = ctypes.c_float(1e-40).value
    assert np.float32(subnormal) * np.float32(1) != 0


def test_unknown_instruction_set(monkeypatch):
    monkeypatch.setenv("MICFAST_ISA", "sse9")
    with pytest.raises(ValueError, match=r"MICFAST_ISA must be one of .*baseline.*, got 'sse9'"):
        operators.generate(random_weights(1, 3, 2, 1), torch.rand(1, 3, 2), 4)
