"""Targets of unequal lengths and with missing values, in every form `invert` takes."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from helpers import needs_kernel
from torch.nn.utils import rnn

from micfast import _backend
from micfast.bank import GeneratorBank
from micfast.inversion import invert
from micfast.sequences import padded

M, N, T, H, K, O = 3, 11, 9, 4, 3, 2
BACKENDS = ["torch", pytest.param("cpu", marks=needs_kernel)]
SETTINGS = {"n_iter": 6, "return_history": True}


@pytest.fixture(scope="module")
def bank():
    weights = GeneratorBank.random(
        M, hidden_size=H, input_size=K, output_size=O, seeds=range(M)
    ).weights
    return GeneratorBank(*[3 * w.double() for w in weights], classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def lengths():
    return np.array([9, 1, 4, 4, 7, 2, 9, 5, 3, 8, 6])


@pytest.fixture(scope="module")
def ragged(lengths):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, O)) for length in lengths]


@pytest.fixture(scope="module")
def array(ragged):
    return padded(ragged, T, O, torch.float64).numpy()


def assert_same(got, expected, backend="auto"):
    """Equal to the bit; where PyTorch does the work its matrix products may round differently."""
    if backend == "torch" or _backend.extension is None:
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-12)
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"solver": "lm"}, {"init": "nearest", "n_starts": 2}, {"init": "types", "tol": 0.1}],
    ids=str,
)
def test_each_target_is_as_if_cut_and_alone(bank, ragged, backend, settings):
    settings = SETTINGS | {"backend": backend} | settings
    together = invert(bank, ragged, **settings)
    for n, target in enumerate(ragged):
        alone = invert(bank, target[None], **settings)
        assert alone.lengths is None
        for name in ("errors", "latents", "n_iter_used", "converged"):
            assert_same(getattr(together, name)[n], getattr(alone, name)[0], backend)
        assert_same(together.error_history[:, n], alone.error_history[:, 0], backend)
        drawn = together.reconstructions("all")[n]
        assert_same(drawn[:, : len(target)], alone.reconstructions("all")[0], backend)
        assert np.isnan(drawn[:, len(target) :]).all()
        error = np.square(drawn[:, : len(target)] - target).mean(axis=(1, 2))
        np.testing.assert_allclose(together.errors[n], error, rtol=1e-9)
    best = together.reconstructions()
    np.testing.assert_array_equal(np.isnan(best).any(axis=2).sum(axis=1), T - together.lengths)


def forms(ragged, array, lengths):
    tensors = [torch.from_numpy(one) for one in ragged]
    steps = np.arange(T) < lengths[:, None]
    filled = np.where(steps[..., None], array, 1e6)
    dirty = np.where(steps[..., None], array, np.inf)
    objects = np.empty(N, dtype=object)
    objects[:] = ragged
    return {
        "tuple": (tuple(ragged), {}),
        "nested lists": ([one.tolist() for one in ragged], {}),
        "object array": (objects, {}),
        "tensors": (tensors, {}),
        "nested tensor": (torch.nested.nested_tensor(tensors), {}),
        "jagged tensor": (torch.nested.nested_tensor(tensors, layout=torch.jagged), {}),
        "packed": (rnn.pack_sequence(tensors, enforce_sorted=False), {}),
        "padded with NaN": (array, {"nan_policy": "omit"}),
        "tensor padded with NaN": (
            rnn.pad_sequence(tensors, batch_first=True, padding_value=np.nan),
            {"nan_policy": "omit"},
        ),
        "lengths": (filled, {"lengths": lengths}),
        "lengths, NaN": (array, {"lengths": torch.from_numpy(lengths), "nan_policy": "raise"}),
        "lengths, infinity": (torch.from_numpy(dirty), {"lengths": lengths.tolist()}),
        "mask": (dirty, {"mask": steps}),
        "mask of values": (array, {"mask": np.repeat(steps[..., None], O, axis=2)}),
        "mask tensor": (torch.from_numpy(filled), {"mask": torch.from_numpy(steps)}),
        "masked array": (np.ma.array(filled, mask=np.repeat(~steps[..., None], O, axis=2)), {}),
        "lengths and mask": (filled, {"lengths": lengths, "mask": np.ones((N, T), bool)}),
    }


NAMES = list(forms([np.zeros((1, O))] * N, np.zeros((N, T, O)), np.ones(N, dtype=int)))


@pytest.mark.parametrize("name", NAMES)
def test_all_forms_give_the_same(bank, ragged, array, lengths, name):
    expected = invert(bank, ragged, **SETTINGS)
    targets, settings = forms(ragged, array, lengths)[name]
    got = invert(bank, targets, **SETTINGS, **settings)
    tensors = any(word in name for word in ("tensor", "packed", "infinity"))
    assert isinstance(got.errors, torch.Tensor) == tensors
    assert isinstance(got.lengths, torch.Tensor) == tensors
    for field in ("errors", "latents", "error_history", "latent_history", "lengths"):
        assert_same(getattr(got, field), getattr(expected, field))
    assert_same(got.reconstructions(), expected.reconstructions())
    assert got.n_steps == T
    assert got.predictions.tolist() == expected.predictions.tolist()


def test_tslearn_s_arrays(bank, ragged):
    from tslearn.utils import to_time_series_dataset

    got = invert(bank, to_time_series_dataset(ragged), nan_policy="omit", **SETTINGS)
    expected = invert(bank, ragged, **SETTINGS)
    assert_same(got.errors, expected.errors)
    np.testing.assert_array_equal(got.lengths, expected.lengths)


def test_one_channel():
    bank = GeneratorBank.random(2, hidden_size=3, input_size=2, output_size=1, seeds=[0, 1])
    sequences = [[0.5, 1.0, 0.0], [0.25], [1.0, 1.0]]
    result = invert(bank, sequences)
    padding = np.array([[0.5, 1, 0], [0.25, 9, 9], [1, 1, 9]])
    for n in range(3):
        assert_same(result.errors[n], invert(bank, [sequences[n]]).errors[0])
    assert_same(result.errors, invert(bank, padding, lengths=[3, 1, 2]).errors)
    assert_same(result.errors, invert(bank, padding, mask=padding < 9).errors)
    assert result.reconstructions().shape == (3, 3, 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("init", ["uniform", "nearest"])
def test_gaps(bank, backend, init):
    """NaN omitted, a mask and a masked array are one; the error is the mean over what is known."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal((N, T, O))
    known = rng.random((N, T, O)) < 0.6
    known[:, 0] = True
    settings = SETTINGS | {"backend": backend, "init": init, "solver": "lm"}
    result = invert(bank, np.where(known, values, np.nan), nan_policy="omit", **settings)
    for other in (
        invert(bank, values, mask=known, **settings),
        invert(bank, np.ma.array(values, mask=~known), **settings),
    ):
        assert_same(other.errors, result.errors, backend)
        assert_same(other.latents, result.latents, backend)
    drawn = bank.generate(torch.from_numpy(result.latents).transpose(0, 1), T).transpose(0, 1)
    squares = np.square(drawn.numpy() - values[:, None])
    expected = (squares * known[:, None]).sum(axis=(2, 3)) / known.sum(axis=(1, 2))[:, None]
    np.testing.assert_allclose(result.errors, expected, rtol=1e-9)
    last = T - known.any(axis=2)[:, ::-1].argmax(axis=1)
    np.testing.assert_array_equal(result.lengths, last)
    np.testing.assert_array_equal(
        np.isnan(result.reconstructions()).any(axis=2).sum(axis=1), T - last
    )


def test_nearest_start_is_that_of_the_lowest_error(bank, ragged):
    """Against the definition: the error of every candidate, measured by an inversion of 0 steps."""
    from micfast.starts import lattice

    result = invert(bank, ragged, init="nearest", n_iter=0)
    candidates = lattice(K).numpy()
    every = np.broadcast_to(candidates, (N, M, *candidates.shape)).copy()
    expected = invert(bank, ragged, init=every, n_iter=0)
    np.testing.assert_allclose(result.errors, expected.errors, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_change_nothing(bank, ragged, array, lengths, chunk_size, tmp_path):
    expected = invert(bank, ragged, **SETTINGS)
    np.save(tmp_path / "targets.npy", array)
    mapped = np.load(tmp_path / "targets.npy", mmap_mode="r")
    for targets, settings in (
        (ragged, {}),
        (mapped, {"nan_policy": "omit"}),
        (mapped, {"lengths": lengths}),
        (mapped, {"mask": ~np.isnan(array)}),
    ):
        got = invert(bank, targets, chunk_size=chunk_size, **SETTINGS, **settings)
        assert_same(got.error_history, expected.error_history)
        np.testing.assert_array_equal(got.lengths, expected.lengths)


def test_nan_that_is_not_missing_spoils_its_target(bank, ragged, array, lengths):
    clean = invert(bank, ragged)
    dirty = [one.copy() for one in ragged]
    dirty[4][2, 1], dirty[6][0, 0] = np.nan, np.inf
    bad = np.isin(np.arange(N), [4, 6])
    padding = array.copy()
    padding[4, 2, 1], padding[6, 0, 0] = np.nan, np.inf
    for targets, settings in ((dirty, {}), (padding, {"lengths": lengths})):
        result = invert(bank, targets, **settings)
        assert np.isnan(result.errors[bad]).all()
        assert_same(result.errors[~bad], clean.errors[~bad])
        with pytest.raises(ValueError, match=r"invert: targets must not hold NaN .* targets\[4\]"):
            invert(bank, targets, nan_policy="raise", chunk_size=2, **settings)
        omitted = invert(bank, targets, nan_policy="omit", **settings)
        assert np.isfinite(omitted.errors[4]).all()
        assert np.isnan(omitted.errors[6]).all()


def test_of_one_length(bank, array):
    """A list of equal arrays is an array, and lengths that cut nothing change nothing."""
    whole = np.nan_to_num(array)
    expected = invert(bank, whole)
    for targets, settings in ((list(whole), {}), (whole, {"lengths": np.full(N, T)})):
        got = invert(bank, targets, **settings)
        np.testing.assert_array_equal(got.errors, expected.errors)
        assert got.lengths is None


@pytest.mark.parametrize(
    ("targets", "settings", "error", "message"),
    [
        (
            [np.zeros((3, 2)), np.zeros((2, 3))],
            {},
            ValueError,
            r"targets\[1\] must .*, got \[2, 3\]",
        ),
        ([np.zeros((3, 2)), np.zeros((0, 2))], {}, ValueError, r"targets\[1\] .*one time step"),
        ([[1.0], [1.0, 2.0]], {}, ValueError, r"targets\[0\] must have shape .* got \[1\]"),
        ([np.zeros((3, 2)), np.zeros((2, 2), complex)], {}, TypeError, r"targets\[1\] must hold"),
        ([np.zeros((3, 2)), np.zeros((2, 2))], {"lengths": [3, 2]}, ValueError, "must be None"),
        (np.zeros((4, 3, 2)), {"lengths": [3, 2]}, ValueError, "lengths must be 4 integers"),
        (np.zeros((2, 3, 2)), {"lengths": [3.0, 2]}, ValueError, "lengths must be 2 integers"),
        (np.zeros((2, 3, 2)), {"lengths": [3, 0]}, ValueError, "from 1 to n_timesteps = 3, got 0"),
        (np.zeros((2, 3, 2)), {"lengths": [3, 4]}, ValueError, "got 3 to 4"),
        (np.zeros((2, 3, 2)), {"mask": np.ones((2, 3))}, ValueError, "mask must be boolean"),
        (np.zeros((2, 3, 2)), {"mask": np.ones((2, 2), bool)}, ValueError, r"\[2, 3, 2\], got"),
        (
            np.zeros((2, 3, 2)),
            {"mask": np.zeros((2, 3), bool)},
            ValueError,
            r"none in targets\[0\]",
        ),
        (np.full((2, 3, 2), np.nan), {"nan_policy": "omit"}, ValueError, r"none in targets\[0\]"),
        (np.zeros((2, 3, 2)), {"nan_policy": "drop"}, ValueError, "nan_policy must be 'propagate'"),
    ],
)
def test_messages(bank, targets, settings, error, message):
    with pytest.raises(error, match=f"invert: .*{message}"):
        invert(bank, targets, **settings)


PEAK = """
    import re, torch
    from micfast import _backend, ops

    def peak():  # not ru_maxrss, which a process inherits
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

    def weights(H, K, O):
        return [torch.randn(1, *s) / 4 for s in ((4*H, K), (4*H, H), (4*H,), (O, H), (O,))]

    def run(job, T, H, K, O):
        w, targets = weights(H, K, O), torch.zeros(1, T, O)
        if job == "train":
            zero, noise = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
            types = torch.zeros(1, K, T, O)
            ops.train(*w, types, zero, noise, noise, zero, 2, n_threads=1)
        else:
            getattr(ops, job)(*w, targets, torch.full((1, 1, K), 1 / K), 2, n_threads=1)

    R = 4 * _backend.extension.lanes()[0]
    for job in ("invert", "invert_lm", "train"):
        run(job, 3, 2, 2, 1)
        for T, H, K, O in ((10_000, 5, 2, 1), (10_000, 4, 2, 128)):
            P = 4 * H * (2 * H + 2 * K + 1) + O * (2 * H + 1)
            G = 4 * H * (H + K + 1) + O * (H + 1)
            numbers = {
                "invert": T * (6*H + 2*O) + P + 13*H + 5*K + 8,
                "invert_lm": T * O + P + (1 + K) * (3*H + K + O) + 4 * K**2 + 10*K + 100,
                "train": T * (6*H + 2*O) + P + 3*G + 50*H + 2*K + 10,
            }[job]
            own = 4 * T * O * (2 * K + 1)  # targets or types, and a copy
            open("/proc/self/clear_refs", "w").write("5")  # the peak becomes what is in use
            before = peak()
            run(job, T, H, K, O)
            print(job, peak() - before, R * numbers, own)
"""


@needs_kernel
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_as_stated():
    """Ten thousand steps and 128 outputs, within the formula of docs/conventions.md."""
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MICFAST_ISA": "baseline", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    rows = [line.split() for line in process.stdout.splitlines()]
    assert len(rows) == 6
    for job, grown, stated, own in rows:
        slack = int(own) + 4 * 2**20  # the allocator's own
        assert int(grown) <= int(stated) + slack, (job, grown, stated)
        assert int(grown) >= 0.8 * int(stated) - 2**20, (job, grown, stated)
