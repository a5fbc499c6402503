"""Inversion of whole data sets: equality with a loop over targets, chunks, inputs, results."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import micfast
from micfast import Adam, Execution, GeneratorBank, Inversion, LevenbergMarquardt, Weights, invert
from micfast.kernels import backend as backend_module
from micfast.kernels import calls, reference
from micfast.search import inversion as inversion_module
from micfast.search.starts import nearest as nearest_module
from micfast.search.starts.drawn import Dirichlet, Paper
from micfast.search.starts.nearest import Nearest, lattice, nearest

M, N, T, H, K, O = 3, 11, 9, 4, 3, 2
SOLVERS = {"adam": Adam, "lm": LevenbergMarquardt}


def assert_same(got, expected, backend="auto"):
    """Equal to the bit; where PyTorch does the work its matrix products may round differently."""
    if backend == "torch" or backend_module.extension is None:
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
    result = invert(bank, targets, solver=Adam(n_iter=12), history=True)
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
    start = np.random.default_rng(1).random((N, M, K))
    solver = Adam(
        n_iter=7, learning_rate=0.1, betas=(0.5, 0.7), eps=1e-3, unprojected_error=True, start=start
    )
    result = invert(bank, targets, solver=solver)
    expected = reference.invert(
        list(bank.weights),
        torch.tensor(targets),
        torch.tensor(start).transpose(0, 1).unsqueeze(2),
        7, 0.1, 0.5, 0.7, 1e-3, True, False, 0.0, False,
    )  # fmt: skip
    np.testing.assert_allclose(result.errors, expected.errors[..., 0].T, rtol=1e-8)
    np.testing.assert_allclose(result.latents, expected.latents[:, :, 0].transpose(0, 1), atol=1e-8)


def test_no_iteration_measures_the_start(bank, targets):
    result = invert(bank, targets, solver=Adam(n_iter=0), history=True)
    drawn = bank.generate(np.full((N, K), 1 / K), T).numpy()
    np.testing.assert_allclose(result.errors.T, ((drawn - targets) ** 2).mean(axis=(2, 3)))
    assert result.error_history.shape == (1, N, M)


# -- chunks --------------------------------------------------------------------------------------


STARTS = (Paper(random_state=3), "types", Dirichlet(random_state=3), "nearest", (N, M, 2, K))


@pytest.mark.parametrize("solver", ["adam", "lm"])
@pytest.mark.parametrize(
    ("start", "backend"),
    [
        *((start, "auto") for start in ("uniform", *STARTS, (K,), (N, K), (N, M, K))),
        *((start, "torch") for start in STARTS),
    ],
    ids=str,
)
def test_chunks_change_nothing(bank, targets, start, backend, solver):
    names = ["errors", "latents", "error_history", "latent_history"]
    if isinstance(start, tuple):
        if backend == "torch" and len(start) == 4:
            names = names[:1]  # which of two starts that end alike is the best, a rounding decides
        start = np.random.default_rng(2).random(start)
    # PyTorch takes a hundred times longer.
    n_iter, sizes = (2, (4,)) if backend == "torch" else (5, (1, 4, N, 100))
    arguments = {"solver": SOLVERS[solver](n_iter=n_iter, start=start), "history": True}
    whole = invert(bank, targets, **arguments, execution=backend)
    for chunk_size in sizes:
        execution = Execution(backend, chunk_size=chunk_size)
        parts = invert(bank, targets, **arguments, execution=execution)
        for name in names:
            assert_same(getattr(parts, name), getattr(whole, name), backend)


def test_threads_change_nothing(bank, targets):
    one, two = (invert(bank, targets, execution=Execution(n_threads=n)) for n in (1, 2))
    np.testing.assert_array_equal(one.errors, two.errors)
    np.testing.assert_array_equal(one.latents, two.latents)


def test_memmap_is_streamed(bank, targets, tmp_path, monkeypatch):
    path = tmp_path / "targets.dat"
    np.asarray(targets, dtype=">f4").tofile(path)
    mapped = np.memmap(path, dtype=">f4", mode="r", shape=(N, T, O))
    sizes = []
    original = calls.search

    def watch(name, weights, targets, *rest):
        sizes.append(len(targets))
        return original(name, weights, targets, *rest)

    monkeypatch.setattr(calls, "search", watch)
    result = invert(bank, mapped, execution=Execution(chunk_size=4))
    assert sizes == [4, 4, 3]
    assert_same(result.errors, invert(bank, targets.astype("f4")).errors)


def test_default_chunks_bound_the_memory(bank):
    def size(n_steps, n_history, backend):
        return inversion_module._chunk_size(bank, n_steps, n_history, 1, Execution(backend))

    assert size(100, 0, "torch") * 8 * 10 * 100 * M * H <= 256 * 2**20
    assert size(10**9, 0, "torch") == 1
    if backend_module.extension is not None:
        assert 8 * size(100, 0, "cpu") * 100 * O <= 32 * 2**20
        assert size(100, 0, "cpu") > size(100, 1000, "cpu") > 100
        assert size(10**9, 0, "cpu") == 1


# -- starts --------------------------------------------------------------------------------------


def starts_of(bank, targets, start):
    """Latents before the first iteration."""
    return invert(bank, targets, solver=Adam(n_iter=0, start=start)).latents


def test_paper_starts(bank, targets):
    starts = starts_of(bank, targets, Paper(random_state=1))
    # Projected to sum 1, they stay within about 0.01 / K of the even mixture.
    assert np.abs(starts - 1 / K).max() < 0.01
    assert len(np.unique(starts[..., 0])) == N * M
    again = starts_of(bank, targets, Paper(random_state=np.random.default_rng(1)))
    np.testing.assert_array_equal(starts, again)
    assert (starts != starts_of(bank, targets, Paper(random_state=2))).all()
    old = [starts_of(bank, targets, Paper(random_state=np.random.RandomState(5))) for _ in range(2)]
    np.testing.assert_array_equal(*old)


def test_array_starts_broadcast(bank, targets):
    def errors(start):
        return invert(bank, targets, solver=Adam(n_iter=3, start=start)).errors

    z = np.random.default_rng(4).random((N, K))
    per_target = errors(z)
    np.testing.assert_array_equal(per_target, errors(np.repeat(z[:, None], M, axis=1)))
    one = errors(torch.tensor(z[0]))
    assert_same(one[0], per_target[0])
    np.testing.assert_array_equal(one, errors(z[0]))


def random_starts(shape, seed=6):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


@pytest.mark.parametrize("solver", ["adam", "lm"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_of_several_starts_the_best_is_kept(bank, targets, solver, backend):
    starts = random_starts((N, M, 4, K))

    def search(start):
        used = SOLVERS[solver](n_iter=4, start=start)
        return invert(bank, targets, solver=used, history=True, execution=backend)

    together = search(starts)
    alone = [search(starts[:, :, s]) for s in range(4)]
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
    def errors(start):
        return invert(bank, targets, solver=Adam(n_iter=0, start=start)).errors

    found, each = errors("types"), [errors(z) for z in [np.full(K, 1 / K), *np.eye(K)]]
    assert_same(found, np.min(each, axis=0))
    assert (found < 0.99 * each[0]).any()


def test_dirichlet_starts(bank, targets):
    starts = starts_of(bank, targets, Dirichlet(random_state=3))
    assert len(np.unique(starts[..., 0])) == N * M
    assert starts.min() > 0
    np.testing.assert_allclose(starts.sum(-1), 1)
    solver = Adam(n_iter=0, start=Dirichlet(n_starts=20, random_state=3))
    many, even = invert(bank, targets, solver=solver), invert(bank, targets, solver=Adam(n_iter=0))
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
        monkeypatch.setattr(nearest_module, name, numbers)
    points = lattice(K)
    drawn = bank.generate(points, T).numpy()
    distance = ((drawn[:, None] - targets[None, :, None]) ** 2).sum(axis=(3, 4))
    expected = points[torch.from_numpy(distance.argsort(axis=2)[..., :n_starts])]
    found = nearest(bank, torch.from_numpy(targets), n_starts)
    assert torch.equal(found, expected)
    solver = LevenbergMarquardt(n_iter=0, start=Nearest(n_starts=n_starts))
    result = invert(bank, targets, solver=solver)
    np.testing.assert_allclose(result.errors.T, distance.min(axis=2) / (T * O))


def test_of_equally_near_starts_the_first_is_taken(targets):
    """Modules that ignore their input: no rounding may decide."""
    blind = GeneratorBank.random(M, hidden_size=H, input_size=K, output_size=O, seeds=range(M))
    W_ih, *others = blind.weights
    blind = GeneratorBank(Weights(torch.zeros_like(W_ih), *others))
    found = nearest(blind, torch.from_numpy(targets).float(), 4)
    assert torch.equal(found, lattice(K)[:4].expand(M, N, 4, K))


def test_nearest_start_of_a_bad_target(bank, targets):
    dirty = targets.copy()
    dirty[2, 1, 0] = np.nan
    clean, result = (invert(bank, x, solver=LevenbergMarquardt(n_iter=3)) for x in (targets, dirty))
    assert np.isnan(result.errors[2]).all()
    rest = np.arange(N) != 2
    np.testing.assert_array_equal(result.errors[rest], clean.errors[rest])


def test_what_a_bank_caches_is_bounded_and_left_out_of_copies(bank, targets):
    for n_steps in range(3, 9):
        invert(bank, targets[:, :n_steps], solver=LevenbergMarquardt(n_iter=0))
    assert 0 < len(bank._cache) <= 2
    assert pickle.loads(pickle.dumps(bank))._cache == {}


# -- solvers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_lm_reaches_the_operator_and_beats_adam(bank, targets, backend):
    def search(**settings):
        solver = LevenbergMarquardt(start="uniform", **settings)
        return invert(bank, targets, solver=solver, execution=backend)

    start = torch.full((1, 1, 1, K), 1 / K, dtype=torch.float64)
    arguments = (list(bank.weights), torch.from_numpy(targets), start)
    result = search()
    expected = reference.invert_lm(*arguments, 8)
    np.testing.assert_allclose(result.errors, expected.errors[..., 0].T, rtol=1e-6)
    assert result.errors.mean() < invert(bank, targets).errors.mean()
    other = search(n_iter=3, damping=5.0, constraint=None)
    expected = reference.invert_lm(*arguments, 3, 5.0, False)
    np.testing.assert_allclose(other.errors, expected.errors[..., 0].T, rtol=1e-6)
    assert (other.latents < 0).any()


@pytest.mark.parametrize("solver", ["adam", "lm"])
def test_tol_ends_searches_early(bank, targets, solver):
    whole = invert(bank, targets, solver=SOLVERS[solver](n_iter=40, start="uniform"))
    early = invert(bank, targets, solver=SOLVERS[solver](n_iter=40, tol=1e-2, start="uniform"))
    assert (whole.n_iter_used == 40).all()
    assert not whole.converged.any()
    assert whole.n_iter_used.dtype == np.int32
    assert early.converged.any()
    np.testing.assert_array_equal(early.converged, early.n_iter_used < 40)


def test_solvers_by_name_are_the_default_objects(bank, targets):
    assert_same(invert(bank, targets).errors, invert(bank, targets, solver=Adam()).errors)
    found = invert(bank, targets, solver="lm").errors
    assert_same(found, invert(bank, targets, solver=LevenbergMarquardt()).errors)


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
    expected = invert(bank, converted.astype("f8"), solver=Adam(n_iter=3))
    result = invert(bank, converted, solver=Adam(n_iter=3))
    np.testing.assert_array_equal(result.errors, expected.errors)
    assert result.errors.dtype == np.float64
    if dtype != "longdouble":
        again = invert(bank, torch.tensor(converted), solver=Adam(n_iter=3))
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
    for start in ("uniform", "paper", np.zeros((0, M, K))):
        result = invert(bank, empty, solver=Adam(n_iter=2, start=start), history=True)
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
    result, clean = (invert(bank, x, solver=Adam(n_iter=5)) for x in (broken, targets))
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
            r"2\], got \[9, 2\]; a single sequence is targets\[None\], of shape \[1, 9, 2\]$",
        ),
        (np.zeros((N, T)), ValueError, r"got \[11, 9\]; a single"),
        (np.zeros((N, T, 3)), ValueError, "have n_channels = 2, .*, got 3"),
        (np.zeros((N, T, O, 1)), ValueError, r"got \[11, 9, 2, 1\]"),
        (np.float64(1), ValueError, r"got \[\]"),
        (np.zeros((N, 0, O)), ValueError, "at least one time step"),
        (np.zeros((N, T, O), dtype=complex), ValueError, "real numbers. Complex .*: complex128"),
        (torch.zeros(N, T, O, dtype=torch.complex64), TypeError, "got dtype torch.complex64"),
        (np.full((N, T, O), 1j, dtype=object), ValueError, "Complex data not supported"),
        (np.full((N, T, O), "1", dtype=object), TypeError, "got str '1' at"),
        (np.full((N, T, O), "2020", dtype="M8[s]"), TypeError, "got dtype datetime64"),
        (np.zeros((N, T)).tolist(), ValueError, r"\[0\] must have shape|n_channels = 2"),
        (np.full((N, T, O), "a"), TypeError, "got dtype <U1"),
        (None, ValueError, r"got \[\]"),
        ("text", TypeError, "be an array or a list of arrays, got str"),
    ],
)
def test_wrong_targets(bank, wrong, error, message):
    with pytest.raises(error, match=f"invert: targets must .*{message}"):
        invert(bank, wrong)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Adam(n_iter=-1), ValueError, "n_iter must be an integer of at least 0, got -1"),
        (lambda: Adam(n_iter=2.0), TypeError, r"n_iter must be an integer .*, got 2\.0"),
        (lambda: Adam(learning_rate=0), ValueError, "learning_rate must be .* above 0, got 0"),
        (lambda: Adam(learning_rate=np.nan), ValueError, "learning_rate must be .* got nan"),
        (lambda: Adam(learning_rate="1"), TypeError, "learning_rate must be .* got '1'"),
        (lambda: Adam(eps=0.0), ValueError, "eps must be a finite number above 0"),
        (lambda: Adam(betas=0.9), ValueError, r"betas must be two numbers, got 0\.9"),
        (lambda: Adam(betas=(0.9, 1.0)), ValueError, r"betas must be .* below 1, got 1\.0"),
        (lambda: Adam(unprojected_error=1), TypeError, "unprojected_error must be True or False"),
        (lambda: Adam(tol=np.inf), ValueError, "tol must be .* got inf"),
        (lambda: Adam(start="zero"), ValueError, "start must be one of .*'uniform', got 'zero'"),
        (lambda: Adam(start=np.full(K, np.inf)), ValueError, "start must hold finite numbers"),
        (lambda: Adam(start=3), ValueError, "start must hold finite numbers in 1 to 4 dimensions"),
        (lambda: Adam(start=None), ValueError, "start must hold finite numbers"),
        (lambda: LevenbergMarquardt(damping=0), ValueError, "damping must be .* got 0"),
        (lambda: LevenbergMarquardt(damping="1"), TypeError, "damping must be .* got '1'"),
        (lambda: LevenbergMarquardt(tol=-0.1), ValueError, r"tol must be .* got -0\.1"),
        (lambda: Adam().replace(lr=1), ValueError, "Adam: 'lr' must be one of .*'learning_rate'"),
        (lambda: Paper(random_state="x"), TypeError, "Paper: random_state must be"),
        (lambda: Paper(random_state=-1), ValueError, "Paper: random_state must be"),
        (lambda: Dirichlet(random_state="x"), TypeError, "random_state must be"),
        (lambda: Nearest(n_starts=0), ValueError, "n_starts must be .* at least 1, got 0"),
        (lambda: Nearest(n_starts=1.0), TypeError, "n_starts must be an integer"),
        (lambda: Execution(chunk_size=0), ValueError, "chunk_size must be .* got 0"),
        (lambda: Execution(chunk_size=True), TypeError, "chunk_size must be .* got True"),
        (lambda: Execution(n_threads=0), ValueError, "n_threads must be an integer from 1"),
        (lambda: Execution("tpu"), ValueError, "backend must be 'auto', .* got 'tpu'"),
    ],
)
def test_settings_check_themselves(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ({"solver": "newton"}, ValueError, "solver must be one of 'adam', 'lm', got 'newton'"),
        ({"solver": Adam}, TypeError, "solver must be a solver object or one of 'adam', 'lm'"),
        ({"solver": None}, TypeError, "solver must be a solver object .* got None"),
        ({"execution": "tpu"}, ValueError, "backend must be"),
        ({"execution": 3}, TypeError, "execution must be an Execution or the name of a backend"),
        ({"nan_policy": "drop"}, ValueError, "nan_policy must be 'propagate', .* got 'drop'"),
        (
            {"solver": Adam(start=np.zeros(4))},
            ValueError,
            r"start must have .* \[3\], \[11, 3\], \[11, 3, 3\] or \[11, 3, \*, 3\], got \[4\]",
        ),
        ({"solver": Adam(start=np.zeros((M, K)))}, ValueError, r"got \[3, 3\]"),
        ({"solver": Adam(start=np.zeros((1, 1, 1, K)))}, ValueError, r"got \[1, 1, 1, 3\]"),
        (
            {"solver": LevenbergMarquardt(start=Nearest(n_starts=999))},
            ValueError,
            "n_starts must be at most 121 with 3 types, got 999",
        ),
    ],
)
def test_wrong_arguments(bank, targets, argument, error, message):
    with pytest.raises(error, match=message):
        invert(bank, targets, **argument)


def test_wrong_modules(targets):
    with pytest.raises(ValueError, match="module 0 must contain exactly one"):
        invert([nn.Linear(2, 2)], targets)
    with pytest.raises(TypeError, match="module 0 must be an nn"):
        invert(["module"], targets)


# -- progress ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_progress_callable(bank, targets, backend):
    seen = []
    execution = Execution(backend, chunk_size=3, progress=seen.append)
    invert(bank, targets, execution=execution)
    assert seen == sorted(seen)
    assert {3 / N, 6 / N, 9 / N, 1.0} <= set(seen)
    assert all(0 <= fraction <= 1 for fraction in seen)


def test_progress_bar(bank, targets, capsys):
    invert(bank, targets, execution=Execution(chunk_size=3, progress=True))
    shown = capsys.readouterr().err
    assert "inversion: 100%" in shown
    assert f"{N}/{N}" in shown
    invert(bank, targets)
    assert capsys.readouterr().err == ""


def test_an_error_in_the_callable_comes_through(bank, targets):
    def stop(_):
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        invert(bank, targets, execution=Execution(progress=stop))


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
    result = invert(bank, targets, solver=Adam(n_iter=0))
    with pytest.raises(ValueError, match=message):
        result.reconstructions(which)


def test_repr_and_pickle(bank, targets):
    broken = targets.copy()
    broken[0] = np.nan
    result = invert(bank, broken, solver=Adam(n_iter=4), history=True)
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
