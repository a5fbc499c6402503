"""Inversion of whole data sets: equality with a loop over targets, chunks, inputs, results."""

import pickle

import numpy as np
import pytest
import torch
from helpers import needs_kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import micfast
from micfast import _backend, inversion, ops, reference
from micfast import starts as starts_module
from micfast.bank import GeneratorBank
from micfast.inversion import Inversion, invert
from micfast.starts import lattice, nearest

M, N, T, H, K, O = 3, 11, 9, 4, 3, 2


def assert_same(got, expected, backend="auto"):
    """Equal to the bit; where PyTorch does the work its matrix products may round differently."""
    if backend == "torch" or _backend.extension is None:
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-12)
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.fixture(scope="module")
def bank():
    torch.manual_seed(0)
    modules = [nn.ModuleList([nn.LSTM(K, H), nn.Linear(H, O)]).double() for _ in range(M)]
    # Larger weights than at the start, so that the inputs matter.
    with torch.no_grad():
        for parameter in nn.ModuleList(modules).parameters():
            parameter *= 3
    return GeneratorBank.from_modules(modules, classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def targets(bank):
    rng = np.random.default_rng(0)
    latents = rng.dirichlet(np.ones(K), N)
    drawn = bank.generate(latents, T).numpy()
    return drawn[np.arange(N) % M, np.arange(N)] + 0.01 * rng.standard_normal((N, T, O))


def invert_by_hand(module, target, z, n_iter, lr=0.05, beta1=0.9, beta2=0.99, eps=1e-8):
    """One target, one module, as the specification writes it; through nn.LSTM and autograd."""
    m, v = torch.zeros(K).double(), torch.zeros(K).double()
    errors, latents = [], []
    for step in range(n_iter + 1):
        z = z.clamp(0, 1)
        z = z / z.sum() if z.sum() > 0 else torch.full_like(z, 1 / K)
        z = z.detach().requires_grad_()
        loss = (module(z[None], len(target))[0] - target).square().mean()
        errors.append(loss.item())
        latents.append(z.detach())
        if step < n_iter:
            (g,) = torch.autograd.grad(loss, z)
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            z = z.detach() - lr * m / (v.sqrt() + eps)
    return errors, latents


def test_equals_a_loop_over_targets_and_modules(bank, targets):
    result = invert(bank, targets, n_iter=12, return_history=True)
    for m, module in enumerate(bank.to_modules()):
        for n in range(N):
            start = torch.full((K,), 1 / K).double()
            errors, latents = invert_by_hand(module, torch.tensor(targets[n]), start, 12)
            np.testing.assert_allclose(result.error_history[:, n, m], errors, rtol=1e-8)
            np.testing.assert_allclose(result.latent_history[:, n, m], np.stack(latents), atol=1e-8)
    np.testing.assert_array_equal(result.error_history[-1], result.errors)
    np.testing.assert_array_equal(result.latent_history[-1], result.latents)
    assert result.predictions.tolist() == [["a", "b", "c"][n % M] for n in range(N)]


def test_settings_reach_the_operator(bank, targets):
    init = np.random.default_rng(1).random((N, M, K))
    given_settings = {"n_iter": 7, "lr": 0.1, "eps": 1e-3, "unprojected_error": True}
    result = invert(bank, targets, betas=(0.5, 0.7), init=init, **given_settings)
    expected = reference.invert(
        *bank.weights,
        torch.tensor(targets),
        torch.tensor(init).transpose(0, 1),
        beta1=0.5,
        beta2=0.7,
        **given_settings,
    )
    np.testing.assert_allclose(result.errors, expected.errors.T, rtol=1e-8)
    np.testing.assert_allclose(result.latents, expected.latents.transpose(0, 1), atol=1e-8)


def test_no_iteration_measures_the_start(bank, targets):
    result = invert(bank, targets, n_iter=0, return_history=True)
    drawn = bank.generate(np.full((N, K), 1 / K), T).numpy()
    np.testing.assert_allclose(result.errors.T, ((drawn - targets) ** 2).mean(axis=(2, 3)))
    assert result.error_history.shape == (1, N, M)


# -- chunks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "lm"])
@pytest.mark.parametrize(
    "init",
    ["uniform", "paper", "types", "dirichlet", "nearest", (K,), (N, K), (N, M, K), (N, M, 2, K)],
    ids=str,
)
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_chunks_change_nothing(bank, targets, init, backend, solver):
    if isinstance(init, tuple):
        init = np.random.default_rng(2).random(init)
    arguments = {"n_iter": 5, "init": init, "random_state": 3, "return_history": True}
    arguments["solver"] = solver
    whole = invert(bank, targets, **arguments, backend=backend)
    names = ["errors", "latents", "error_history", "latent_history"]
    if backend == "torch" and not isinstance(init, str) and init.ndim == 4:
        names = names[:1]  # which of two starts that end alike is the best, a rounding decides
    for chunk_size in (1, 4, N, 100):
        parts = invert(bank, targets, **arguments, backend=backend, chunk_size=chunk_size)
        for name in names:
            assert_same(getattr(parts, name), getattr(whole, name), backend)


def test_threads_change_nothing(bank, targets):
    one = invert(bank, targets, n_threads=1)
    two = invert(bank, targets, n_threads=2)
    np.testing.assert_array_equal(one.errors, two.errors)
    np.testing.assert_array_equal(one.latents, two.latents)


def test_memmap_is_streamed(bank, targets, tmp_path, monkeypatch):
    path = tmp_path / "targets.dat"
    np.asarray(targets, dtype=">f4").tofile(path)
    mapped = np.memmap(path, dtype=">f4", mode="r", shape=(N, T, O))
    sizes = []
    original = inversion.ops.invert

    def watch(*arguments, **kwargs):
        sizes.append(arguments[5].shape[0])
        return original(*arguments, **kwargs)

    monkeypatch.setattr(inversion.ops, "invert", watch)
    result = invert(bank, mapped, chunk_size=4)
    assert sizes == [4, 4, 3]
    assert_same(result.errors, invert(bank, targets.astype("f4")).errors)


def test_default_chunks_bound_the_memory(bank):
    size = inversion._default_chunk_size
    assert size(bank, 100, 0, "torch") * 8 * 10 * 100 * M * H <= 256 * 2**20
    assert 8 * size(bank, 100, 0, "cpu") * 100 * O <= 32 * 2**20
    assert size(bank, 100, 0, "cpu") > size(bank, 100, 1000, "cpu") > 100
    assert size(bank, 10**9, 0, "torch") == size(bank, 10**9, 0, "cpu") == 1


# -- starts --------------------------------------------------------------------------------------


def test_paper_starts(bank, targets):
    starts = invert(bank, targets, n_iter=0, init="paper", random_state=1).latents
    # Projected to sum 1, they stay within about 0.01 / K of the even mixture.
    assert np.abs(starts - 1 / K).max() < 0.01
    assert len(np.unique(starts[..., 0])) == N * M
    again = invert(bank, targets, n_iter=0, init="paper", random_state=np.random.default_rng(1))
    np.testing.assert_array_equal(starts, again.latents)
    other = invert(bank, targets, n_iter=0, init="paper", random_state=2)
    assert (starts != other.latents).all()
    old = [
        invert(bank, targets, init="paper", random_state=np.random.RandomState(5)).errors
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*old)


def test_array_starts_broadcast(bank, targets):
    z = np.random.default_rng(4).random((N, K))
    per_target = invert(bank, targets, init=z, n_iter=3)
    full = invert(bank, targets, init=np.repeat(z[:, None], M, axis=1), n_iter=3)
    np.testing.assert_array_equal(per_target.errors, full.errors)
    one = invert(bank, targets, init=torch.tensor(z[0]), n_iter=3)
    assert_same(one.errors[0], per_target.errors[0])
    np.testing.assert_array_equal(one.errors, invert(bank, targets, init=z[0], n_iter=3).errors)


def random_starts(shape, seed=6):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


@pytest.mark.parametrize("solver", ["adam", "lm"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_of_several_starts_the_best_is_kept(bank, targets, solver, backend):
    starts = random_starts((N, M, 4, K))
    options = {"solver": solver, "n_iter": 4, "return_history": True, "backend": backend}
    together = invert(bank, targets, init=starts, **options)
    alone = [invert(bank, targets, init=starts[:, :, s], **options) for s in range(4)]
    errors = np.stack([one.errors for one in alone])
    best = errors.argmin(axis=0)
    assert len(np.unique(best)) > 1
    assert_same(together.errors, errors.min(axis=0), backend)
    for name in ("latents", "error_history", "latent_history", "n_iter_used", "converged"):
        parts = np.stack([getattr(one, name) for one in alone])
        for n in range(N):
            for m in range(M):
                at = (slice(None), n, m) if name.endswith("history") else (n, m)
                assert_same(getattr(together, name)[at], parts[best[n, m]][at], backend)


def test_types_are_starts(bank, targets):
    result = invert(bank, targets, init="types", n_iter=0)
    each = [invert(bank, targets, init=z, n_iter=0).errors for z in [np.full(K, 1 / K), *np.eye(K)]]
    assert_same(result.errors, np.min(each, axis=0))
    assert (result.errors < 0.99 * each[0]).any()


def test_dirichlet_starts(bank, targets):
    starts = invert(bank, targets, init="dirichlet", random_state=3, n_iter=0).latents
    assert len(np.unique(starts[..., 0])) == N * M
    assert starts.min() > 0
    np.testing.assert_allclose(starts.sum(-1), 1)
    many = invert(bank, targets, init="dirichlet", n_starts=20, random_state=3, n_iter=0)
    even = invert(bank, targets, n_iter=0)
    assert (many.errors < even.errors).mean() > 0.9


def test_lattice_covers_the_simplex():
    # For five types the even mixture is one of the multiples of 1/5.
    for n_inputs, n_points in {1: 1, 2: 129, 3: 121, 4: 121, 5: 126, 20: 21, 200: 201}.items():
        points = lattice(n_inputs)
        assert points.shape == (n_points, n_inputs)
        assert len(points.unique(dim=0)) == n_points
        assert points.min() >= 0
        torch.testing.assert_close(points.sum(dim=1), torch.ones(n_points, dtype=torch.float64))
        assert (points[0] == 1 / n_inputs).all()
        for corner in torch.eye(n_inputs, dtype=torch.float64):
            assert (points == corner).all(dim=1).any()


@pytest.mark.parametrize("n_starts", [1, 3])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        # candidate by candidate; two modules, then one
        {"_DRAWN_NUMBERS": 50},
        {"_DRAWN_NUMBERS": 2 * 121 * T * O},
        # one pair, a few targets, all targets of one module, of two modules
        {"_CPU_DISTANCES": 1},
        {"_CPU_DISTANCES": 121 * 4},
        {"_CPU_DISTANCES": 121 * N},
        {"_CPU_DISTANCES": 121 * N * 2},
        {"_DRAWN_NUMBERS": 2 * 121 * T * O, "_CPU_DISTANCES": 121 * 4},
    ],
    ids=str,
)
def test_nearest_starts_are_the_nearest(bank, targets, n_starts, limits, monkeypatch):
    for name, numbers in limits.items():
        monkeypatch.setattr(starts_module, name, numbers)
    points = lattice(K)
    drawn = bank.generate(points, T).numpy()
    distance = ((drawn[:, None] - targets[None, :, None]) ** 2).sum(axis=(3, 4))
    expected = points[torch.from_numpy(distance.argsort(axis=2)[..., :n_starts])]
    found = nearest(bank, torch.from_numpy(targets), n_starts)
    assert torch.equal(found, expected)
    result = invert(bank, targets, init="nearest", n_starts=n_starts, n_iter=0)
    np.testing.assert_allclose(result.errors.T, distance.min(axis=2) / (T * O))


def test_of_equally_near_starts_the_first_is_taken(targets):
    """Modules that ignore their input: no rounding may decide."""
    blind = GeneratorBank.random(M, hidden_size=H, input_size=K, output_size=O, seeds=range(M))
    blind = GeneratorBank(torch.zeros_like(blind.W_ih), *blind.weights[1:])
    found = nearest(blind, torch.from_numpy(targets).float(), 4)
    assert torch.equal(found, lattice(K)[:4].expand(M, N, 4, K))


def test_nearest_start_of_a_bad_target(bank, targets):
    dirty = targets.copy()
    dirty[2, 1, 0] = np.nan
    clean = invert(bank, targets, solver="lm", init="nearest", n_iter=3)
    result = invert(bank, dirty, solver="lm", init="nearest", n_iter=3)
    assert np.isnan(result.errors[2]).all()
    rest = np.arange(N) != 2
    np.testing.assert_array_equal(result.errors[rest], clean.errors[rest])


def test_what_a_bank_remembers_is_bounded_and_forgotten_by_copies(bank, targets):
    for n_steps in range(3, 9):
        invert(bank, targets[:, :n_steps], init="nearest", n_iter=0)
    assert 0 < len(bank._remembered) <= 2
    assert pickle.loads(pickle.dumps(bank))._remembered == {}


# -- solvers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_lm_reaches_the_operator_and_beats_adam(bank, targets, backend):
    result = invert(bank, targets, solver="lm", backend=backend)
    weights = bank.weights
    init = torch.full((1, 1, K), 1 / K, dtype=torch.float64)
    expected = reference.invert_lm(*weights, torch.from_numpy(targets), init, 8)
    np.testing.assert_allclose(result.errors, expected.errors.T, rtol=1e-6)
    assert result.errors.mean() < invert(bank, targets).errors.mean()
    other = invert(bank, targets, solver="lm", n_iter=3, damping=5.0, constraint=None)
    expected = reference.invert_lm(*weights, torch.from_numpy(targets), init, 3, 5.0, False)
    np.testing.assert_allclose(other.errors, expected.errors.T, rtol=1e-6)
    assert (other.latents < 0).any()


@pytest.mark.parametrize("solver", ["adam", "lm"])
def test_tol_ends_searches_early(bank, targets, solver):
    whole = invert(bank, targets, solver=solver, n_iter=40)
    early = invert(bank, targets, solver=solver, n_iter=40, tol=1e-2)
    assert (whole.n_iter_used == 40).all()
    assert not whole.converged.any()
    assert whole.n_iter_used.dtype == np.int32
    assert early.converged.any()
    np.testing.assert_array_equal(early.converged, early.n_iter_used < 40)


# -- kinds of input ------------------------------------------------------------------------------


class OnlyDlpack:
    """An array that refuses NumPy, as one on another device would."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion is not allowed")

    def __dlpack__(self, *args, **kwargs):
        return self.tensor.__dlpack__(*args, **kwargs)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


class OnlyArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_kinds_of_targets(bank, targets):
    expected = invert(bank, targets)
    assert isinstance(expected.errors, np.ndarray)
    assert expected.errors.dtype == np.float64
    for numpy_like in (
        targets.tolist(),
        np.asfortranarray(targets),
        np.repeat(targets, 2, axis=1)[:, ::2],
        targets[::-1].copy()[::-1],
        targets.astype(">f8"),
        OnlyArray(targets),
    ):
        result = invert(bank, numpy_like)
        assert isinstance(result.errors, np.ndarray)
        np.testing.assert_array_equal(result.errors, expected.errors)
    tensor = torch.tensor(targets)
    for torch_like in (
        tensor,
        tensor.clone().requires_grad_(),
        tensor.mT.contiguous().mT,
        OnlyDlpack(tensor),
    ):
        result = invert(bank, torch_like)
        for name in ("errors", "latents"):
            assert isinstance(getattr(result, name), torch.Tensor)
            np.testing.assert_array_equal(getattr(result, name).numpy(), getattr(expected, name))
        assert result.best.dtype == torch.int64
        assert isinstance(result.reconstructions(), torch.Tensor)
        assert result.predictions.tolist() == expected.predictions.tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "bool", "longdouble"])
def test_other_dtypes_are_converted(bank, targets, dtype):
    converted = (10 * np.abs(targets)).astype(dtype)
    expected = invert(bank, converted.astype("f8"), n_iter=3)
    result = invert(bank, converted, n_iter=3)
    np.testing.assert_array_equal(result.errors, expected.errors)
    assert result.errors.dtype == np.float64
    if dtype != "longdouble":
        again = invert(bank, torch.tensor(converted), n_iter=3)
        np.testing.assert_array_equal(again.errors.numpy(), expected.errors)


def test_float32_bank_gives_float32(bank, targets):
    single = bank.to(dtype=torch.float32)
    result = invert(single, targets)
    assert result.errors.dtype == result.latents.dtype == np.float32
    np.testing.assert_allclose(result.errors, invert(bank, targets).errors, rtol=2e-2, atol=1e-5)
    huge = targets.copy()
    huge[0] = 1e300  # infinite in float32
    result = invert(single, huge)
    assert np.isnan(result.errors[0]).all()
    assert np.isfinite(result.errors[1:]).all()


def test_modules_instead_of_a_bank(bank, targets):
    expected = invert(bank, targets).errors
    modules = bank.to_modules()
    for given_modules in (modules, nn.ModuleList(modules), iter(modules)):
        result = invert(given_modules, targets)
        np.testing.assert_array_equal(result.errors, expected)
        assert result.classes == (0, 1, 2)
    assert_same(invert(modules[1], targets).errors, expected[:, 1:2])


def test_two_dimensions_for_one_channel():
    single = GeneratorBank.random(2, hidden_size=3, input_size=4, output_size=1, seeds=[0, 1])
    X = np.random.default_rng(0).random((5, 8))
    np.testing.assert_array_equal(invert(single, X).errors, invert(single, X[..., None]).errors)
    assert invert(single, X).reconstructions().shape == (5, 8, 1)


@pytest.mark.parametrize("tensor", [True, False])
def test_no_targets(bank, tensor):
    empty = torch.zeros(0, T, O) if tensor else np.zeros((0, T, O))
    for init in ("uniform", "paper", np.zeros((0, M, K))):
        result = invert(bank, empty, return_history=True, n_iter=2, init=init)
        assert result.errors.shape == (0, M)
        assert result.latents.shape == (0, M, K)
        assert result.error_history.shape == (3, 0, M)
        assert result.latent_history.shape == (3, 0, M, K)
        assert result.best.shape == result.predictions.shape == (0,)
        assert result.reconstructions().shape == (0, T, O)
        assert result.reconstructions("all").shape == (0, M, T, O)
        assert "n_samples=0" in repr(result)


@settings(max_examples=25, deadline=None)
@given(bad=st.sets(st.integers(0, N - 1)), value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_bad_target_changes_no_other(bank, targets, bad, value):
    broken = targets.copy()
    rows = sorted(bad)
    broken[rows, -1, 1] = value
    good = [n for n in range(N) if n not in bad]
    result, clean = invert(bank, broken, n_iter=5), invert(bank, targets, n_iter=5)
    assert np.isnan(result.errors[rows]).all()
    assert_same(result.errors[good], clean.errors[good])
    assert_same(result.latents[good], clean.latents[good])
    assert (result.best[rows] == -1).all()
    assert result.predictions[rows].tolist() == [None] * len(rows)
    assert result.predictions[good].tolist() == clean.predictions[good].tolist()
    drawn = result.reconstructions()
    assert np.isnan(drawn[rows]).all()
    assert_same(drawn[good], clean.reconstructions()[good])


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (
            np.zeros((T, O)),
            ValueError,
            r"= \[\*, \*, 2\], got \[9, 2\]; a single target is .*\[1, 9",
        ),
        (np.zeros((N, T)), ValueError, r"got \[11, 9\]$"),
        (np.zeros((N, T, 3)), ValueError, r"= \[\*, \*, 2\], got \[11, 9, 3\]"),
        (np.zeros((N, T, O, 1)), ValueError, r"got \[11, 9, 2, 1\]"),
        (np.float64(1), ValueError, r"got \[\]"),
        (np.zeros((N, 0, O)), ValueError, "at least one time step"),
        (np.zeros((N, T, O), dtype=complex), TypeError, "real numbers, got dtype complex128"),
        (torch.zeros(N, T, O, dtype=torch.complex64), TypeError, "got dtype torch.complex64"),
        (np.zeros((N, T, O), dtype=object), TypeError, "got dtype object"),
        (np.full((N, T, O), "a"), TypeError, "got dtype <U1"),
        (None, TypeError, "got dtype object"),
    ],
)
def test_wrong_targets(bank, wrong, error, message):
    with pytest.raises(error, match=f"invert: targets must .*{message}"):
        invert(bank, wrong)


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ({"n_iter": -1}, ValueError, "n_iter must be at least 0, got -1"),
        ({"n_iter": 2.0}, TypeError, "n_iter must be an integer, got float"),
        ({"chunk_size": 0}, ValueError, "chunk_size must be at least 1, got 0"),
        ({"chunk_size": True}, TypeError, "chunk_size must be an integer, got bool"),
        ({"lr": 0}, ValueError, "lr must be finite and above 0, got 0"),
        ({"lr": np.nan}, ValueError, "lr must be finite and above 0, got nan"),
        ({"lr": "1"}, TypeError, "lr must be a number, got str"),
        ({"eps": 0.0}, ValueError, "eps must be finite and above 0"),
        ({"betas": 0.9}, ValueError, "betas must be two numbers, got 0.9"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be from 0 to below 1, got 1.0"),
        ({"init": "zero"}, ValueError, "init must be one of 'uniform', .* or an array, got 'zero'"),
        (
            {"init": np.zeros(4)},
            ValueError,
            r"init must have .* \[3\], \[11, 3\], \[11, 3, 3\] or \[11, 3, \*, 3\], got \[4\]",
        ),
        ({"init": np.zeros((M, K))}, ValueError, r"got \[3, 3\]"),
        ({"init": np.zeros((1, 1, 1, K))}, ValueError, r"got \[1, 1, 1, 3\]"),
        ({"init": np.full(K, np.inf)}, ValueError, "init must hold finite real numbers"),
        ({"init": "paper", "random_state": "x"}, TypeError, "random_state must be"),
        ({"init": "paper", "random_state": -1}, ValueError, "random_state must be"),
        ({"backend": "tpu"}, ValueError, "backend must be one of"),
        ({"solver": "newton"}, ValueError, "solver must be 'adam' or 'lm', got 'newton'"),
        ({"damping": 0}, ValueError, "damping must be finite and above 0, got 0"),
        ({"damping": "1"}, TypeError, "damping must be a number, got str"),
        ({"tol": -0.1}, ValueError, "tol must be from 0 up and finite, got -0.1"),
        ({"tol": np.inf}, ValueError, "tol must be from 0 up and finite, got inf"),
        ({"constraint": "box"}, ValueError, "constraint must be 'simplex' or None, got 'box'"),
        ({"constraint": None}, ValueError, "constraint must be 'simplex' for solver='adam'"),
        (
            {"solver": "lm", "unprojected_error": True},
            ValueError,
            "unprojected_error must be False for solver='lm'",
        ),
        ({"n_starts": 2}, ValueError, "n_starts must be 1 or None for init='uniform', got 2"),
        ({"init": "types", "n_starts": 3}, ValueError, "n_starts must be 4 or None"),
        ({"init": "nearest", "n_starts": 0}, ValueError, "n_starts must be at least 1, got 0"),
        ({"init": "nearest", "n_starts": 1.0}, TypeError, "n_starts must be an integer"),
        ({"init": "nearest", "n_starts": 999}, ValueError, "n_starts must be at most 121 for"),
        ({"init": np.zeros(K), "n_starts": 2}, ValueError, "n_starts must be 1, as init holds"),
        ({"init": "dirichlet", "random_state": "x"}, TypeError, "random_state must be"),
    ],
)
def test_wrong_arguments(bank, targets, argument, error, message):
    with pytest.raises(error, match=message):
        invert(bank, targets, **argument)


@pytest.mark.skipif(_backend.extension is None, reason="the kernel counts threads")
def test_wrong_thread_number(bank, targets):
    with pytest.raises(ValueError, match="n_threads must be at least 1"):
        invert(bank, targets, n_threads=0)


def test_wrong_modules(targets):
    with pytest.raises(ValueError, match="module 0 must hold exactly one"):
        invert([nn.Linear(2, 2)], targets)
    with pytest.raises(TypeError, match="module 0 must be an nn"):
        invert(["module"], targets)


# -- progress ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_progress_callable(bank, targets, backend):
    seen = []
    invert(bank, targets, chunk_size=3, progress=seen.append, backend=backend)
    assert seen == sorted(seen)
    assert {3 / N, 6 / N, 9 / N, 1.0} <= set(seen)
    assert all(0 <= fraction <= 1 for fraction in seen)


def test_progress_bar(bank, targets, capsys):
    invert(bank, targets, chunk_size=3, progress=True)
    shown = capsys.readouterr().err
    assert "inversion: 100%" in shown
    assert f"{N}/{N}" in shown
    invert(bank, targets)
    assert capsys.readouterr().err == ""


def test_an_error_in_the_callable_comes_through(bank, targets):
    def stop(_):
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        invert(bank, targets, progress=stop)


# -- the result ----------------------------------------------------------------------------------


def made_by_hand(bank, errors, classes=None):
    errors = np.asarray(errors, dtype=float)
    latents = np.full((*errors.shape, K), 1 / K)
    return Inversion(errors, latents, bank.classes if classes is None else classes, bank, T)


def test_best_is_nan_safe(bank):
    nan, inf = np.nan, np.inf
    rows = [[3, 1, 2], [nan, 5, 4], [nan, nan, nan], [1, 1, 1], [nan, inf, inf], [nan, inf, 7]]
    result = made_by_hand(bank, rows)
    assert result.best.tolist() == [1, 2, -1, 0, 1, 2]
    assert result.predictions.tolist() == ["b", "c", None, "a", "b", "c"]


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [((1, 2, 3), np.int64), (("a", "bb", "c"), "U2"), ((False, True, 2), object)],
)
def test_predictions_keep_the_labels_type(bank, classes, dtype):
    predictions = made_by_hand(bank, [[0, 1, 2], [2, 1, 0]], classes).predictions
    assert predictions.dtype == dtype
    assert predictions.tolist() == [classes[0], classes[2]]


def test_reconstructions(bank, targets):
    result = invert(bank, targets)
    modules = bank.to_modules()
    everything = result.reconstructions("all")
    assert everything.shape == (N, M, T, O)
    for n in range(N):
        for m in range(M):
            drawn = modules[m](torch.tensor(result.latents[n, m])[None], T)[0].detach()
            np.testing.assert_allclose(everything[n, m], drawn, atol=1e-12)
            error = ((everything[n, m] - targets[n]) ** 2).mean()
            np.testing.assert_allclose(error, result.errors[n, m], rtol=1e-8)
    assert_same(result.reconstructions(), everything[np.arange(N), result.best])
    assert_same(result.reconstructions(2), everything[:, 2])
    which = np.arange(N) % (M + 1) - 1
    chosen = result.reconstructions(which)
    assert np.isnan(chosen[which == -1]).all()
    rows = which >= 0
    assert_same(chosen[rows], everything[np.flatnonzero(rows), which[rows]])
    np.testing.assert_array_equal(result.reconstructions(torch.tensor(which)), chosen)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("worst", "which must be 'best', 'all' or module indices, got 'worst'"),
        (3, "indices must be from -1 to 2, got 3 to 3"),
        (np.full(N, -2), "got -2 to -2"),
        (np.zeros(4, dtype=int), r"an integer or 11 of them, .* shape \[4\]"),
        (0.5, "got dtype float64"),
    ],
)
def test_wrong_reconstructions(bank, targets, which, message):
    result = invert(bank, targets, n_iter=0)
    with pytest.raises(ValueError, match=message):
        result.reconstructions(which)


def test_repr_and_pickle(bank, targets):
    broken = targets.copy()
    broken[0] = np.nan
    result = invert(bank, broken, return_history=True, n_iter=4)
    assert repr(result).startswith(
        "Inversion(n_samples=11, n_modules=3, n_types=3, n_steps=9, mean"
    )
    assert "1 without an error, history of 4 iterations)" in repr(result)
    assert invert(bank, targets).error_history is None
    again = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(again.errors, result.errors)
    assert again.bank == bank
    with pytest.raises(AttributeError):
        result.errors = None


def test_exported():
    assert micfast.invert is invert
    assert micfast.Inversion is Inversion


@needs_kernel  # autograd rounds by the size of its batch
@pytest.mark.parametrize("solver", ["adam", "lm"])
@pytest.mark.parametrize("chunk_size", [None, 3, 100])
def test_devices_share_the_targets(solver, chunk_size):
    bank = GeneratorBank.random(3, hidden_size=5, input_size=4, output_size=2, seeds=range(3))
    targets = np.random.default_rng(0).normal(size=(23, 7, 2))
    targets[4, 5:] = np.nan
    settings = {
        "solver": solver, "n_iter": 4, "init": "dirichlet", "n_starts": 2, "random_state": 1,
        "nan_policy": "omit", "return_history": True,
    }  # fmt: skip
    expected = micfast.invert(bank, targets, **settings)
    seen = []
    result = micfast.invert(
        bank, targets, devices=["cpu"] * 3, chunk_size=chunk_size, progress=seen.append, **settings
    )
    for name in ("errors", "latents", "n_iter_used", "error_history", "latent_history", "lengths"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_devices_bad_input():
    bank = GeneratorBank.random(1, hidden_size=2, input_size=2, output_size=1, seeds=[0])
    with pytest.raises(TypeError, match="devices must be a list of devices, got 'cpu'"):
        micfast.invert(bank, np.zeros((2, 3)), devices="cpu")
    with pytest.raises(ValueError, match="devices must name at least one device, got none"):
        micfast.invert(bank, np.zeros((2, 3)), devices=[])


def test_an_error_on_one_device_reaches_the_caller(monkeypatch):
    bank = GeneratorBank.random(1, hidden_size=2, input_size=2, output_size=1, seeds=[0])
    calls = []

    def fail(*arguments, **options):
        calls.append(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ops, "invert", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        micfast.invert(bank, np.zeros((20, 3)), devices=["cpu", "cpu"], chunk_size=2)
    assert len(calls) < 10  # the rest was not begun
