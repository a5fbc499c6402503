"""Arrays of every kind go into invert, generate and the estimator, and loaders' batches do."""

import datetime
import warnings

import numpy as np
import pytest
import torch
from estimators import PLAIN
from torch.utils.data import DataLoader, Dataset, TensorDataset

import micfast
from micfast import (
    Adam,
    Execution,
    GeneratorBank,
    LevenbergMarquardt,
    ModularInverseClassifier,
    Sequences,
    Training,
)
from micfast.arrays import as_array, as_tensor, to_numpy

M, N, T, O, K, H = 2, 6, 7, 2, 3, 4
SMALL = PLAIN | {
    "n_types": 2,
    "hidden_size": 4,
    "n_modules_per_class": 1,
    "solver": LevenbergMarquardt(n_iter=3),
    "training": Training.paper(n_episodes=150, max_retries=0, learned_tol=100.0),
    "random_state": 0,
}
ADAM = Adam(n_iter=3)
# Small whole numbers and halves: exact in every floating point type below.
NUMBERS = np.random.default_rng(0).integers(-8, 9, (N, T, O)) / 2
LABELS = np.arange(N) % 2


class OnlyDLPack:
    """An array that offers its numbers in one way alone."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **kwargs):
        return self.tensor.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def jax_array(array, dtype=None):
    jnp = pytest.importorskip("jax.numpy")
    return jnp.asarray(array, dtype=dtype)


def negative_view(array):
    """A tensor whose memory holds the numbers with the other sign."""
    numbers = torch.tensor(array)
    view = torch.complex(numbers, -numbers).conj().imag
    assert view.is_neg()
    return view


# What makes an array of NUMBERS, and whether it counts as a tensor.
FORMS = {
    "float64": (lambda a: a, False),
    "float32": (lambda a: a.astype(np.float32), False),
    "float16": (lambda a: a.astype(np.float16), False),
    "longdouble": (lambda a: a.astype(np.longdouble), False),
    "big endian": (lambda a: a.astype(">f4"), False),
    "read-only": (read_only, False),
    "Fortran order": (np.asfortranarray, False),
    "reversed twice": (lambda a: a[::-1].copy()[::-1], False),
    "every other": (lambda a: np.repeat(a, 2, axis=0)[::2], False),
    "masked, nothing hidden": (lambda a: np.ma.masked_array(a), False),
    "nested list": (lambda a: a.tolist(), False),
    "list of arrays": (lambda a: [*a], False),
    "list of tensors": (lambda a: [*torch.tensor(a, requires_grad=True)], True),
    "JAX": (jax_array, False),
    "JAX bfloat16": (lambda a: jax_array(a, "bfloat16"), False),
    "JAX float16": (lambda a: jax_array(a, "float16"), False),
    "tensor": (torch.tensor, True),
    "tensor float16": (lambda a: torch.tensor(a).half(), True),
    "tensor bfloat16": (lambda a: torch.tensor(a).bfloat16(), True),
    "tensor, axes swapped": (lambda a: torch.tensor(a.T.copy()).permute(2, 1, 0), True),
    "tensor with gradient": (lambda a: torch.tensor(a, requires_grad=True), True),
    "tensor, sign not yet applied": (negative_view, True),
    "DLPack alone": (lambda a: OnlyDLPack(torch.tensor(a)), True),
}


@pytest.fixture(params=FORMS)
def form(request):
    """An array, and whether it counts as a tensor; any warning is an error."""
    make, is_tensor = FORMS[request.param]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield make(NUMBERS), is_tensor


@pytest.fixture(scope="module")
def bank():
    return GeneratorBank.random(M, hidden_size=H, input_size=K, output_size=O, seeds=range(M))


@pytest.fixture(scope="module")
def fitted():
    return ModularInverseClassifier(**SMALL).fit(NUMBERS, LABELS)


def test_invert(bank, form):
    targets, is_tensor = form
    expected = micfast.invert(bank, NUMBERS, solver=ADAM)
    result = micfast.invert(bank, targets, solver=ADAM)
    kind = torch.Tensor if is_tensor else np.ndarray
    assert type(result.errors) is kind
    assert type(result.latents) is kind
    np.testing.assert_array_equal(result.errors, expected.errors)
    np.testing.assert_array_equal(result.latents, expected.latents)
    if is_tensor:
        assert not result.errors.requires_grad
        assert result.errors.dtype == bank.dtype


def first_steps(numbers):
    """The first step of every sequence, in the same kind of array."""
    if isinstance(numbers, OnlyDLPack):
        return OnlyDLPack(numbers.tensor[:, 0])
    return [sequence[0] for sequence in numbers] if isinstance(numbers, list) else numbers[:, 0]


def test_generate(form):
    numbers, _ = form
    small = GeneratorBank.random(M, hidden_size=H, input_size=O, output_size=1, seeds=range(M))
    drawn = small.generate(first_steps(numbers), T)
    assert drawn.shape == (M, N, T, 1)
    np.testing.assert_array_equal(drawn.detach(), small.generate(NUMBERS[:, 0], T))


def test_starts(form):
    numbers, _ = form
    small = GeneratorBank.random(M, hidden_size=H, input_size=O, output_size=O, seeds=range(M))
    result = micfast.invert(small, NUMBERS, solver=Adam(2, start=first_steps(numbers)))
    expected = micfast.invert(small, NUMBERS, solver=Adam(2, start=NUMBERS[:, 0]))
    np.testing.assert_array_equal(result.errors, expected.errors)


def test_estimator(fitted, form):
    X, _ = form
    np.testing.assert_array_equal(fitted.predict_proba(X), fitted.predict_proba(NUMBERS))
    np.testing.assert_array_equal(fitted.reconstruct(X), fitted.reconstruct(NUMBERS))
    assert type(fitted.predict(X)) is np.ndarray


@pytest.mark.parametrize("name", ["float16", "read-only", "tensor bfloat16", "DLPack alone", "JAX"])
def test_estimator_fit(fitted, name):
    X = FORMS[name][0](NUMBERS)
    again = ModularInverseClassifier(**SMALL).fit(X, LABELS)
    np.testing.assert_array_equal(again.predict_proba(NUMBERS), fitted.predict_proba(NUMBERS))


@pytest.mark.parametrize(
    "make",
    [
        torch.tensor,
        lambda y: torch.tensor(y).bfloat16(),
        lambda y: [*torch.tensor(y)],
        lambda y: OnlyDLPack(torch.tensor(y)),
        jax_array,
    ],
)
def test_estimator_labels(fitted, make):
    again = ModularInverseClassifier(**SMALL).fit(NUMBERS, make(LABELS))
    assert again.classes_.tolist() == [0, 1]
    assert again.score(NUMBERS, make(LABELS)) == fitted.score(NUMBERS, LABELS)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a,
        torch.tensor,
        lambda a: torch.tensor(a).int(),
        jax_array,
        lambda a: a.tolist(),
        lambda a: a > 0,
    ],
)
def test_whole_numbers(bank, fitted, make):
    whole = make((2 * NUMBERS).astype(np.int64))
    as_floats = np.asarray(whole, dtype=np.float64)
    np.testing.assert_array_equal(
        micfast.invert(bank, whole, solver=ADAM).errors,
        micfast.invert(bank, as_floats, solver=ADAM).errors,
    )
    np.testing.assert_array_equal(fitted.predict_proba(whole), fitted.predict_proba(as_floats))


def test_masked_values_are_missing_values(bank, fitted):
    masked = np.ma.masked_array(NUMBERS, mask=False)
    masked[2, 3, 1] = np.ma.masked
    errors = micfast.invert(bank, masked, solver=ADAM).errors
    expected = micfast.invert(bank, Sequences.read(NUMBERS, mask=~masked.mask), solver=ADAM).errors
    np.testing.assert_array_equal(errors, expected)
    assert np.isfinite(errors[2]).all()
    assert np.isnan(as_array(np.ma.masked_array([1, 2], [True, False]), "f: x")).tolist() == [1, 0]
    with pytest.raises(ValueError, match="NaN"):
        fitted.predict(masked)


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        (torch.eye(3).to_sparse(), TypeError, "must be dense, got a tensor of layout torch.sparse"),
        (torch.zeros(3, device="meta"), TypeError, "must have data, got a tensor on device meta"),
        (torch.zeros(3, dtype=torch.complex64), TypeError, "must hold real numbers, got dtype"),
        ([[1.0], [1.0, 2.0]], ValueError, "must be an array of numbers"),
        (np.array(["a"]), TypeError, "must hold real numbers, got dtype <U1"),
        (np.array(["1.5"], object), TypeError, "must hold real numbers, got str '1.5' at"),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, "must hold real numbers, got dtype"),
        (np.array([datetime.date(2020, 1, 1)]), TypeError, "must hold real numbers, got date"),
        (np.array([1j]), ValueError, "Complex data not supported"),
        (np.array([1j], object), ValueError, "Complex data not supported"),
        (np.array([object()]), TypeError, "must hold real numbers, got object"),
        (np.ma.masked_array(["a"], [True]), TypeError, "must hold real numbers, got dtype <U1"),
        (np.zeros(2, "V4"), TypeError, "must hold real numbers, got dtype"),
    ],
)
def test_what_is_no_array(values, error, match):
    with pytest.raises(error, match=f"f: x .*{match}"):
        as_tensor(values, "f: x")


def test_gradients_and_memory_are_kept():
    tensor = torch.ones(3, requires_grad=True)
    assert as_tensor(tensor, "f: x") is tensor
    array = np.ones(3)
    assert as_array(array, "f: x") is array
    assert to_numpy(array) is array
    as_tensor(array, "f: x")[0] = 7  # a copy
    assert array[0] == 1


# -- loaders -------------------------------------------------------------------------------------


class Judged(Dataset):
    """A data set that asks a bank and an estimator in the loader's processes."""

    def __init__(self, bank, estimator):
        self.bank, self.estimator = bank, estimator

    def __len__(self):
        return N

    def __getitem__(self, n):
        errors = micfast.invert(self.bank, NUMBERS[n : n + 1], solver=ADAM).errors
        drawn = self.bank.generate(np.eye(K)[:1], T)
        return errors[0], drawn[:, 0], self.estimator.predict_proba(NUMBERS[n : n + 1])[0]


@pytest.mark.parametrize(
    ("start", "n_workers"), [("fork", 2), pytest.param("spawn", 1, marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX's; no worker uses it
def test_in_worker_processes(bank, fitted, start, n_workers):
    # Several threads have run here before the fork.
    expected = micfast.invert(bank, NUMBERS, solver=ADAM, execution=Execution(n_threads=2))
    loader = DataLoader(
        Judged(bank, fitted),
        batch_size=2,
        num_workers=n_workers,
        multiprocessing_context=start,
        timeout=120,
    )
    errors, drawn, probabilities = (torch.cat(parts) for parts in zip(*loader, strict=True))
    np.testing.assert_array_equal(errors, expected.errors)
    assert torch.equal(drawn[3], bank.generate(np.eye(K)[:1], T)[:, 0])
    np.testing.assert_array_equal(probabilities, fitted.predict_proba(NUMBERS))


def test_batches_go_straight_into_invert(bank, fitted):
    expected = micfast.invert(bank, NUMBERS, solver=ADAM)
    data = TensorDataset(torch.from_numpy(NUMBERS), torch.from_numpy(LABELS))
    errors = []
    for batch, labels in DataLoader(data, batch_size=4, pin_memory=False):
        result = micfast.invert(bank, batch, solver=ADAM)
        assert result.best.shape == labels.shape
        assert result.reconstructions().shape == batch.shape
        assert 0 <= fitted.score(batch, labels) <= 1
        errors.append(result.errors)
    np.testing.assert_array_equal(torch.cat(errors), expected.errors)
