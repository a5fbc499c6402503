"""Unequal lengths and missing values in the operators, on every instruction set."""

import operators
import pytest
import torch
from helpers import (
    assert_same_lm_searches,
    needs_kernel,
    random_fleet,
    random_weights,
    relative_difference,
)
from hypothesis import given
from hypothesis import strategies as st

from micfast.kernels import reference

DTYPES = [torch.float32, torch.float64]
BACKENDS = ["torch", pytest.param("cpu", marks=needs_kernel)]
sizes = st.tuples(
    st.sampled_from([1, 2, 3, 17]),  # M
    st.sampled_from([1, 3, 8, 15, 17, 35]),  # N
    st.sampled_from([1, 2, 8, 9, 17]),  # T
    st.sampled_from([1, 3, 6, 10, 13]),  # H
    st.sampled_from([1, 2, 4, 5]),  # K
    st.sampled_from([1, 2, 3, 21]),  # O
)
# Whether targets are cut, hold gaps, or both.
kinds = st.sampled_from(["lengths", "gaps", "both"])


def with_missing(values, kind, seed=0):
    """A copy of sequences (..., T, O) with NaN at their ends or within; each keeps a value."""
    generator = torch.Generator().manual_seed(seed)
    values, T = values.clone(), values.shape[-2]
    flat = values.view(-1, *values.shape[-2:])
    for i, one in enumerate(flat):
        if kind != "gaps":
            one[int(torch.randint(1, T + 1, (), generator=generator)) :] = torch.nan
        if kind != "lengths":
            one[torch.rand(one.shape, generator=generator) < 0.4] = torch.nan
        one[i % T if kind == "gaps" else 0, 0] = 0.5
    return values


def uniform_starts(K, dtype=torch.float32):
    return torch.full((1, 1, K), 1 / K, dtype=dtype)


@given(size=sizes, kind=kinds, n_iter=st.integers(0, 4), S=st.integers(1, 3))
def test_invert_float64(isa, size, kind, n_iter, S):
    M, N, T, H, K, O = size
    weights = random_weights(M, H, K, O, torch.float64)
    targets = with_missing(torch.randn(N, T, O, dtype=torch.float64), kind)
    init = torch.rand(M if T % 2 else 1, N if H % 2 else 1, S, K, dtype=torch.float64)
    arguments = (weights, targets, init, n_iter, 0.05, 0.9, 0.99, 1e-8, False, True, 0.0, True)
    kernel = operators.invert(*arguments, backend="cpu")
    expected = operators.invert(*arguments, backend="torch")
    assert not expected.errors.isnan().any()
    for got, want in zip(kernel, expected, strict=True):
        assert relative_difference(got, want) < 1e-7


@given(size=sizes, kind=kinds, n_iter=st.integers(0, 3), simplex=st.booleans())
def test_invert_lm_float64(isa, size, kind, n_iter, simplex):
    M, N, T, H, K, O = size
    weights = random_weights(M, H, K, O, torch.float64)
    targets = with_missing(torch.randn(N, T, O, dtype=torch.float64), kind)
    init = torch.rand(M if T % 2 else 1, N if H % 2 else 1, 2, K, dtype=torch.float64)
    arguments = (weights, targets, init, n_iter, 0.1, simplex, True, 0.0, True)
    kernel = operators.invert_lm(*arguments, backend="cpu")
    expected = operators.invert_lm(*arguments, backend="torch")
    assert_same_lm_searches(kernel, expected, weights, targets, omit_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@given(size=sizes, kind=kinds, noise=st.sampled_from([0.0, 0.2]))
def test_train(isa, dtype, size, kind, noise):
    M, _, T, H, K, O = size
    weights = random_weights(M, H, K, O, dtype)
    types, *fleet = random_fleet(M, K, T, O, dtype, noise=noise)
    types = with_missing(types, kind)
    arguments = (weights, types, *fleet, 5, 0.01, 0.9, 0.999, 1e-3, 4)
    kernel = operators.train(*arguments, omit_nan=True, backend="cpu")
    expected = operators.train(*arguments, omit_nan=True, backend="torch")
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    for got, want in zip(kernel, expected, strict=True):
        assert relative_difference(got, want) < tolerance


def searches(solver, *arguments, **options):
    return solver(*arguments, return_history=True, omit_nan=True, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", [operators.invert, operators.invert_lm])
def test_a_short_target_is_as_if_cut_and_alone(isa, solver, dtype):
    """Bit for bit, whatever its neighbours, their order and the threads."""
    weights = random_weights(3, 7, 4, 2, dtype)
    targets = with_missing(torch.randn(37, 19, 2, dtype=dtype), "lengths")
    starts = torch.rand(3, 37, 2, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))
    for tol in (0.0, 1e-2):
        together = searches(solver, weights, targets, starts, 6, tol=tol, n_threads=2)
        for n in range(0, 37, 5):
            length = int((~targets[n].isnan()).any(-1).sum())
            cut = targets[n : n + 1, :length]
            alone = solver(
                weights, cut, starts[:, n : n + 1], 6, return_history=True, tol=tol, n_threads=1
            )
            for i, (got, want) in enumerate(zip(together, alone, strict=True)):
                assert torch.equal(
                    got.select(1 if i < 4 else 2, n), want.squeeze(1 if i < 4 else 2)
                )
        order = torch.randperm(37, generator=torch.Generator().manual_seed(2))
        shuffled = searches(solver, weights, targets[order], starts[:, order], 6, tol=tol)
        for got, want in zip(shuffled[:4], together[:4], strict=True):
            assert torch.equal(got, want[:, order])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", [operators.invert, operators.invert_lm])
def test_gaps_do_not_depend_on_neighbours(isa, solver, dtype):
    weights = random_weights(3, 7, 4, 2, dtype)
    targets = with_missing(torch.randn(37, 19, 2, dtype=dtype), "both")
    targets[5] = 1.0  # nothing missing: as if nothing were anywhere
    together = searches(solver, weights, targets, uniform_starts(4, dtype), 6, n_threads=2)
    for n in range(0, 37, 5):
        one = targets[n : n + 1]
        alone = searches(solver, weights, one, uniform_starts(4, dtype), 6)
        assert torch.equal(together.latent_history[:, :, n], alone.latent_history[:, :, 0])
        assert torch.equal(together.error_history[:, :, n], alone.error_history[:, :, 0])
    whole = solver(weights, targets[5:6], uniform_starts(4, dtype), 6)
    assert torch.equal(together.errors[:, 5], whole.errors[:, 0])
    assert torch.equal(together.latents[:, 5], whole.latents[:, 0])


@pytest.mark.parametrize("solver", [operators.invert, operators.invert_lm])
@pytest.mark.parametrize("backend", BACKENDS)
def test_without_missing_values_nothing_changes(solver, backend):
    weights = random_weights(3, 6, 4, 2)
    problem = (weights, torch.randn(20, 9, 2), uniform_starts(4), 5)
    plain = solver(*problem, return_history=True, backend=backend)
    asked = solver(*problem, return_history=True, omit_nan=True, backend=backend)
    for got, want in zip(asked, plain, strict=True):
        if backend == "cpu":
            assert torch.equal(got, want)
        else:  # a sum over a count, not a mean
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solver", [operators.invert, operators.invert_lm])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_be_measured_has_error_nan(solver, backend):
    """Infinity, a target without a value, and NaN where missing values were not asked for."""
    weights = random_weights(2, 6, 4, 2)
    targets = with_missing(torch.randn(20, 9, 2), "both")
    dirty = targets.clone()
    dirty[3, 0, 0], dirty[7], dirty[19, 0, 0] = torch.inf, torch.nan, -torch.inf
    bad = torch.zeros(20, dtype=torch.bool)
    bad[[3, 7, 19]] = True
    clean = solver(weights, targets, uniform_starts(4), 4, omit_nan=True, backend=backend)
    result = solver(weights, dirty, uniform_starts(4), 4, omit_nan=True, backend=backend)
    assert result.errors[:, bad].isnan().all()
    assert torch.equal(result.errors[:, ~bad], clean.errors[:, ~bad])
    assert torch.equal(result.latents[:, ~bad], clean.latents[:, ~bad])
    plain = solver(weights, targets, uniform_starts(4), 4, backend=backend)
    has_nan = targets.isnan().any(-1).any(-1)
    assert torch.equal(plain.errors.isnan(), has_nan.expand(2, -1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_module_s_training_does_not_depend_on_the_fleet(isa, dtype):
    """Nor on how long the others' types are; one whose types are all short is as if cut."""
    M, K, T, O = 35, 3, 21, 2
    weights = random_weights(M, 7, K, O, dtype)
    types, _, *per_module = random_fleet(M, K, T, O, dtype, n_sets=M)
    types = with_missing(types, "both")
    types[4] = 0.25  # nothing missing
    types[11, :, 9:] = torch.nan
    types[11, :, :9] = 0.5
    own = torch.arange(M)
    whole = operators.train(weights, types, own, *per_module, 30, omit_nan=True, n_threads=2)

    def alone(m, sets, omit_nan):
        arguments = (weights[m : m + 1], [x[m : m + 1] for x in per_module])
        zero = torch.zeros(1, dtype=torch.int64)
        return operators.train(arguments[0], sets, zero, *arguments[1], 30, omit_nan=omit_nan)

    for m in range(0, M, 6):
        for got, want in zip(whole, alone(m, types[m : m + 1], True), strict=True):
            assert torch.equal(got[m : m + 1], want)
    for m, sets in ((4, types[4:5]), (11, types[11:12, :, :9])):
        for got, want in zip(whole, alone(m, sets, False), strict=True):
            assert torch.equal(got[m : m + 1], want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_type_without_a_value_is_refused(backend):
    weights = random_weights(2, 3, 4, 2)
    types, *fleet = random_fleet(2, 4, 6, 2, torch.float32)
    types[1, 2] = torch.nan
    with pytest.raises(ValueError, match="train: every type in type_sets must hold a value"):
        operators.train(weights, types, *fleet, 3, omit_nan=True, backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lengths", "both"])
def test_gradient_of_the_reference_s_masked_error(kind):
    weights = [w.requires_grad_(True) for w in random_weights(2, 3, 2, 2, torch.float64)]
    latents = torch.rand(2, 3, 2, dtype=torch.float64).requires_grad_(True)
    targets = with_missing(torch.randn(3, 8, 2, dtype=torch.float64), kind)

    def error(*tensors):
        return reference.mean_squared_error(
            reference.generate(tensors[:5], tensors[5], 8), targets, True
        )

    assert torch.autograd.gradcheck(error, (*weights, latents), eps=1e-6, atol=1e-8)
    by_hand = [
        (reference.generate(weights, latents, 8)[0, n] - targets[n])[~targets[n].isnan()]
        for n in range(3)
    ]
    expected = torch.stack([r.square().mean() for r in by_hand])
    torch.testing.assert_close(error(*weights, latents)[0], expected)


@needs_kernel
@pytest.mark.slow
def test_opcheck():
    weights = random_weights(2, 3, 4, 2, torch.float64)
    targets = with_missing(torch.randn(5, 6, 2, dtype=torch.float64), "both")
    starts = uniform_starts(4, torch.float64).unsqueeze(2).repeat(1, 1, 3, 1)
    torch.library.opcheck(
        torch.ops.micfast.invert.default,
        (*weights, targets, starts, 3, 0.05, 0.9, 0.99, 1e-8, False, True, 1e-3, True),
    )
    torch.library.opcheck(
        torch.ops.micfast.invert_lm.default,
        (*weights, targets, starts, 3, 0.1, True, True, 0.0, True),
    )
    types, *fleet = random_fleet(2, 4, 6, 2, torch.float64)
    types = with_missing(types, "both").unsqueeze(2)
    torch.library.opcheck(
        torch.ops.micfast.train.default,
        (*weights, types, *fleet, 5, 0.01, 0.9, 0.999, 1e-8, 3, True),
    )


@needs_kernel
@pytest.mark.parametrize(
    ("T", "O", "n_iter"), [pytest.param(10_000, 1, 0, marks=pytest.mark.slow), (30, 128, 1)]
)
def test_long_sequences_and_many_channels(T, O, n_iter):
    """Autograd over ten thousand steps takes its time: there, gradients are only seen to be."""
    weights = random_weights(2, 3, 2, O, torch.float64)
    targets = torch.randn(3, T, O, dtype=torch.float64)
    targets[1, T // 2 :] = torch.nan
    problem = (weights, targets, uniform_starts(2, torch.float64))
    for solver in (operators.invert, operators.invert_lm):
        kernel = solver(*problem, n_iter, omit_nan=True, backend="cpu")
        expected = solver(*problem, n_iter, omit_nan=True, backend="torch")
        assert relative_difference(kernel.errors, expected.errors) < 1e-9
        assert relative_difference(kernel.latents, expected.latents) < 1e-7
        longer = solver(*problem, 4, omit_nan=True, return_history=True)
        assert longer.latents.isfinite().all()
        assert not torch.equal(longer.latent_history[0], longer.latent_history[1])
    types, *fleet = random_fleet(2, 2, T, O, torch.float64)
    types[0, 1, T // 3 :] = torch.nan
    trained = operators.train(weights, types, *fleet, 20, omit_nan=True, n_curve=2)
    assert all(w.isfinite().all() for w in trained)
    assert (trained.loss_curve[:, 1] < trained.loss_curve[:, 0]).all()
    if O > 1:
        arguments = (weights, types, *fleet, 2, 0.01, 0.9, 0.999, 1e-3)
        kernel = operators.train(*arguments, omit_nan=True, backend="cpu")
        expected = operators.train(*arguments, omit_nan=True, backend="torch")
        for got, want in zip(kernel, expected, strict=True):
            assert relative_difference(got, want) < 1e-7
