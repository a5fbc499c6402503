"""Sequences of equal or unequal lengths, with missing values, in every form users have them."""

import datetime
import os
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from containers import CONTAINERS, nested_frame, object_array
from helpers import needs_kernel

from micfast import Adam, Execution, GeneratorBank, LevenbergMarquardt, Sequences, invert
from micfast.kernels import backend as backends
from micfast.search.starts.nearest import Nearest, lattice
from micfast.sequences import ends, is_table

M, N, T, H, K, O = 3, 11, 9, 4, 3, 2
BACKENDS = ["torch", pytest.param("cpu", marks=needs_kernel)]
SETTINGS = {"solver": Adam(n_iter=6), "history": True}


@pytest.fixture(scope="module")
def bank():
    bank = GeneratorBank.random(M, hidden_size=H, input_size=K, output_size=O, seeds=range(M))
    return GeneratorBank(bank.weights.map(lambda w: 3 * w.double()), classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def lengths():
    return np.array([9, 1, 4, 4, 7, 2, 9, 5, 3, 8, 6])


@pytest.fixture(scope="module")
def ragged(lengths):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, O)) for length in lengths]


@pytest.fixture(scope="module")
def array(ragged):
    return Sequences.read(ragged).padded()


def assert_same(got, expected, backend="auto"):
    """Equal to the bit; where PyTorch does the work its matrix products may round differently."""
    if backend == "torch" or backends.extension is None:
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-12)
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "solver",
    [
        Adam(6),
        LevenbergMarquardt(6, start="uniform"),
        Adam(6, start=Nearest(2)),
        Adam(6, start="types", tol=0.1),
    ],
    ids=["adam", "lm", "two nearest", "types, tol"],
)
def test_each_target_is_as_if_cut_and_alone(bank, ragged, backend, solver):
    settings = {"solver": solver, "history": True, "execution": backend}
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


def forms(array, lengths):
    """Arrays of sequences of several lengths: what `read` takes, with what arguments."""
    steps = np.arange(T) < lengths[:, None]
    filled = np.where(steps[..., None], array, 1e6)
    dirty = np.where(steps[..., None], array, np.inf)
    return {
        "padded with NaN": (array, {"nan_policy": "omit"}),
        "tensor padded with NaN": (torch.from_numpy(array), {"nan_policy": "omit"}),
        "lengths": (filled, {"lengths": lengths}),
        "lengths, NaN": (array, {"lengths": torch.from_numpy(lengths), "nan_policy": "raise"}),
        "lengths, tensor with infinity": (torch.from_numpy(dirty), {"lengths": lengths.tolist()}),
        "mask": (dirty, {"mask": steps}),
        "mask of values": (array, {"mask": np.repeat(steps[..., None], O, axis=2)}),
        "mask tensor": (torch.from_numpy(filled), {"mask": torch.from_numpy(steps)}),
        "masked array": (np.ma.array(filled, mask=np.repeat(~steps[..., None], O, axis=2)), {}),
        "lengths and mask": (filled, {"lengths": lengths, "mask": np.ones((N, T), bool)}),
    }


TENSORS = (
    "tensors",
    "nested tensor",
    "jagged tensor",
    "packed",
    "tensor padded with NaN",
    "lengths, tensor with infinity",
    "mask tensor",
)


@pytest.mark.parametrize("name", [*CONTAINERS, *forms(np.zeros((N, T, O)), np.ones(N, dtype=int))])
def test_all_forms_give_the_same(bank, ragged, array, lengths, name):
    expected = invert(bank, ragged, **SETTINGS)
    if name in CONTAINERS:
        library = {"polars": "polars", "awkward": "awkward"}.get(name, "numpy")
        pytest.importorskip(library)
        read = Sequences.read(CONTAINERS[name](ragged))
        np.testing.assert_array_equal(read.padded(), array)
        got = invert(bank, CONTAINERS[name](ragged), **SETTINGS)
    else:
        targets, settings = forms(array, lengths)[name]
        got = invert(bank, Sequences.read(targets, **settings), **SETTINGS)
    tensors = name in TENSORS
    assert isinstance(got.errors, torch.Tensor) == tensors
    assert isinstance(got.lengths, torch.Tensor) == tensors
    for field in ("errors", "latents", "error_history", "latent_history", "lengths"):
        assert_same(getattr(got, field), getattr(expected, field))
    assert_same(got.reconstructions(), expected.reconstructions())
    assert got.n_steps == T
    assert got.predictions.tolist() == expected.predictions.tolist()


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_one_item_means_what_it_means_beside_others(name, n):
    """Whatever the lengths: several, one, or that of an array."""
    pytest.importorskip({"polars": "polars", "awkward": "awkward"}.get(name, "numpy"))
    rng = np.random.default_rng(n)
    for steps in ([3] * n, [1] * n, range(1, n + 1)):
        items = [rng.integers(-9, 9, (t, 2)).astype(float) for t in steps]
        whole = Sequences.read(CONTAINERS[name](items))
        assert (len(whole), whole.n_channels, whole.is_table) == (n, 2, False)
        assert whole.lengths.tolist() == [*steps]
        for i, item in enumerate(items):
            alone = Sequences.read(CONTAINERS[name]([item]))
            np.testing.assert_array_equal(alone.padded()[0], item)
            np.testing.assert_array_equal(whole.padded()[i, : len(item)], item)


@pytest.mark.parametrize("make", [list, tuple, object_array, pd.Series, iter])
def test_items_of_one_dimension_have_one_channel(make):
    for items in ([np.arange(3.0)], [np.arange(3.0), np.arange(2.0)], [np.ones(4), np.zeros(4)]):
        read = Sequences.read(make(items))
        assert read.n_channels == 1
        assert read.lengths.tolist() == [len(item) for item in items]
        for row, item in zip(read.padded(), items, strict=True):
            np.testing.assert_array_equal(row[: len(item), 0], item)


def test_frames_are_matched_by_the_names_of_their_columns():
    """In any order; another name, or none, is an error and no guess."""
    one = pd.DataFrame({"x": [1.0, 2], "y": [3.0, 4]})
    read = Sequences.read([one, one[["y", "x"]] + 10])
    assert read.channel_names == ("x", "y")
    np.testing.assert_array_equal(read.padded()[1], one.to_numpy() + 10)
    assert Sequences.read([one]).channel_names == ("x", "y")
    for other in (
        one.rename(columns={"y": "z"}),
        one[["x"]],
        one.assign(z=0.0),
        one.to_numpy(),
        one.set_axis([0, 1], axis=1),
    ):
        for items in ([one, other], (other, one)):
            with pytest.raises(ValueError, match=r"X\[1\] must have the columns"):
                Sequences.read(items)
    # Numbered columns are no names.
    numbered = one.set_axis([0, 1], axis=1)
    np.testing.assert_array_equal(Sequences.read([numbered]).padded()[0], one)


NO_NUMBERS = {
    "text": ["1.5", "2"],
    "bytes": [b"1", b"2"],
    "a date": [datetime.date(2020, 1, 1), 2.0],
    "times": [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2)],
    "NaT": [np.datetime64("NaT"), 1.0],
    "a duration": [np.timedelta64(1, "s"), 1.0],
    "a complex number": [1j, 2.0],
    "a dict": [{"a": 1}, 2.0],
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_what_is_no_number_is_refused_wherever_it_stands(kind):
    values = NO_NUMBERS[kind]
    cells = np.array([*values, None], dtype=object)[:-1]
    good = np.zeros(2)
    for X in (
        [values],
        [good, values],
        [cells],
        [good[:, None], cells[:, None]],
        object_array([cells, good]),
        pd.Series([good, cells]),
        cells.reshape(1, 2),
        pd.DataFrame([[*values]], dtype=object),
        iter([good, cells]),
    ):
        with pytest.raises((TypeError, ValueError), match=r"X(\[\d\])? must|columns"):
            Sequences.read(X)


@pytest.mark.parametrize(
    "X",
    [
        np.array(["2020-01-01", "2020-01-02"], "M8[D]")[None],
        np.array([1, 2], "m8[s]")[None],
        pd.DataFrame({"a": pd.to_datetime(["2020-01-01"]), "b": 1.0}),
        pd.DataFrame({"a": ["1.0"], "b": ["2.0"]}),
        np.array([["1", "2"]]),
        np.zeros((1, 2), complex),
        "text",
        b"bytes",
        {"a": [1, 2]},
        {1, 2},
        5,
        None,
    ],
    ids=str,
)
def test_what_is_no_container_of_sequences_is_refused(X):
    with pytest.raises((TypeError, ValueError), match="X must"):
        Sequences.read(X)


def test_none_and_na_among_numbers_are_missing_values():
    read = Sequences.read([[1.0, None, 3.0], [pd.NA, 2.0]], nan_policy="omit")
    np.testing.assert_array_equal(read.padded()[..., 0], [[1, np.nan, 3], [np.nan, 2, np.nan]])
    with pytest.raises(ValueError, match=r"nan_policy='raise', but X\[0\] does"):
        Sequences.read([[1.0, None]], nan_policy="raise").chunk(0, 1, torch.float64)


def test_tables():
    """Two dimensions are one channel, unless they are cells of sequences."""
    table = np.arange(6.0).reshape(2, 3)
    for X in (table, pd.DataFrame(table), torch.from_numpy(table)):
        assert is_table(X)
        read = Sequences.read(X)
        assert (read.is_table, read.n_steps, read.n_channels) == (True, 3, 1)
        np.testing.assert_array_equal(read.padded()[..., 0], table)
    for X in (
        [*table],
        tuple(table),
        table[..., None],
        nested_frame([table]),
        Sequences.read(table),
    ):
        assert not is_table(X)
    with pytest.raises(ValueError, match=r"X must have shape .*\[1, 3\]"):
        Sequences.read(table[0])
    with pytest.raises(ValueError, match=r"X must have shape \[n_samples, n_timesteps, 2\], got"):
        Sequences.read(table, n_channels=2)


def test_read_gives_back_what_was_read():
    read = Sequences.read([[1.0, 2.0], [3.0]])
    assert Sequences.read(read) is read
    with pytest.raises(ValueError, match="X must have n_channels = 2"):
        Sequences.read(read, n_channels=2)
    assert repr(read) == "Sequences(2 of 1 to 2 steps x 1 channel)"
    assert repr(Sequences.read(np.zeros((3, 4, 2)))) == "Sequences(3 of 4 steps x 2 channels)"


def test_ends_are_those_of_the_last_value(array, lengths):
    np.testing.assert_array_equal(ends(array), lengths)
    assert ends(np.full((2, 3, 1), np.nan)).tolist() == [0, 0]


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
    assert_same(result.errors, invert(bank, Sequences.read(padding, lengths=[3, 1, 2])).errors)
    assert_same(result.errors, invert(bank, Sequences.read(padding, mask=padding < 9)).errors)
    assert result.reconstructions().shape == (3, 3, 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("start", ["uniform", "nearest"])
def test_gaps(bank, backend, start):
    """NaN omitted, a mask and a masked array are one; the error is the mean over what is known."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal((N, T, O))
    known = rng.random((N, T, O)) < 0.6
    known[:, 0] = True
    settings = {"execution": backend, "solver": LevenbergMarquardt(6, start=start)}
    result = invert(bank, np.where(known, values, np.nan), nan_policy="omit", **settings)
    for other in (
        invert(bank, Sequences.read(values, mask=known), **settings),
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
    result = invert(bank, ragged, solver=Adam(0, start="nearest"))
    candidates = lattice(K).numpy()
    every = np.broadcast_to(candidates, (N, M, *candidates.shape)).copy()
    expected = invert(bank, ragged, solver=Adam(0, start=every))
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
        read = Sequences.read(targets, **settings)
        got = invert(bank, read, execution=Execution(chunk_size=chunk_size), **SETTINGS)
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
        result = invert(bank, Sequences.read(targets, **settings))
        assert np.isnan(result.errors[bad]).all()
        assert_same(result.errors[~bad], clean.errors[~bad])
        raising = Sequences.read(targets, nan_policy="raise", **settings)
        with pytest.raises(ValueError, match=r"X must not contain NaN with .*, but X\[4\] does"):
            invert(bank, raising, execution=Execution(chunk_size=2))
        omitted = invert(bank, Sequences.read(targets, nan_policy="omit", **settings))
        assert np.isfinite(omitted.errors[4]).all()
        assert np.isnan(omitted.errors[6]).all()


def test_of_one_length(bank, array):
    """A list of equal arrays is an array, and lengths that cut nothing change nothing."""
    whole = np.nan_to_num(array)
    expected = invert(bank, whole)
    for targets, settings in ((list(whole), {}), (whole, {"lengths": np.full(N, T)})):
        got = invert(bank, Sequences.read(targets, **settings))
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
        ([np.zeros((3, 2)), np.zeros((0, 2))], {}, ValueError, r"targets\[1\] must .*got \[0, 2\]"),
        ([[1.0], [1.0, 2.0]], {}, ValueError, "targets must have n_channels = 2.* got 1"),
        ([np.zeros((3, 2)), np.zeros((2, 2), complex)], {}, ValueError, r"targets\[1\] must hold"),
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
            r"all values of targets\[0\]",
        ),
        (
            np.full((2, 3, 2), np.nan),
            {"nan_policy": "omit"},
            ValueError,
            r"all values of targets\[0\]",
        ),
        (np.zeros((2, 3, 2)), {"nan_policy": "drop"}, ValueError, "nan_policy must be 'propagate'"),
    ],
)
def test_messages(bank, targets, settings, error, message):
    with pytest.raises(error, match=message):
        invert(bank, Sequences.read(targets, name="invert: targets", **settings))


PEAK = """
    import re, torch, operators
    from micfast.kernels import backend

    def peak():  # not ru_maxrss, which a process inherits
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

    def weights(H, K, O):
        return [torch.randn(1, *s) / 4 for s in ((4*H, K), (4*H, H), (4*H,), (O, H), (O,))]

    def run(job, T, H, K, O):
        w, targets = weights(H, K, O), torch.zeros(1, T, O)
        if job == "train":
            zero, noise = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
            types = torch.zeros(1, K, T, O)
            operators.train(w, types, zero, noise, noise, zero, 2, n_threads=1)
        else:
            getattr(operators, job)(w, targets, torch.full((1, 1, K), 1 / K), 2, n_threads=1)

    R = 4 * backend.extension.lanes()[0]
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
@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_as_stated():
    """Ten thousand steps and 128 outputs, within the formula of docs/conventions.md."""
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK)],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "MICFAST_ISA": "baseline",
            "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
        },
    )
    rows = [line.split() for line in process.stdout.splitlines()]
    assert len(rows) == 6
    for job, grown, stated, own in rows:
        slack = int(own) + 4 * 2**20  # the allocator's own
        assert int(grown) <= int(stated) + slack, (job, grown, stated)
        assert int(grown) >= 0.8 * int(stated) - 2**20, (job, grown, stated)
