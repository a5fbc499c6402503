"""Dask arrays: the bits of the in-memory call, lazily; on real workers, also when one is killed.

Skipped, visibly, without Dask; ``.ci/run`` has a step with it.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from estimators import X_NEW, T, X, needs_kernel, same_fit, small, y

import micfast
from micfast import Adam, GeneratorBank, LevenbergMarquardt, Sequences
from micfast.search.starts.drawn import Dirichlet, Paper
from micfast.training.selections import Selection
from micfast.training.selections.samples import First

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")
chunks_of = pytest.importorskip("micfast.distributed.chunks")

METHODS = (
    "predict",
    "predict_proba",
    "decision_function",
    "novelty_score",
    "score_samples",
    "transform",
    "reconstruct",
)
FIELDS = ("errors", "latents", "n_iter_used", "converged", "best", "predictions")
N = len(X_NEW)
UNEVEN = (4, 1, 10, N - 15)


@pytest.fixture(scope="module")
def fitted():
    return small(n_modules_per_class=2).fit(X, y)


@pytest.fixture(scope="module")
def bank(fitted):
    return fitted.bank_


@pytest.fixture(autouse=True)
def _in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def lazy(values, sizes=UNEVEN):
    return da.from_array(values, chunks=(sizes, *((-1,) * (values.ndim - 1))))


def same_inversion(found, expected, fields=FIELDS):
    for name in fields:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


# -- equal bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("classes", [2, 3])
def test_methods(fitted, method, classes):
    clf = fitted
    if classes == 2:
        clf = pickle.loads(pickle.dumps(fitted)).remove_class("wave")
    expected = getattr(clf, method)(X_NEW)
    found = getattr(clf, method)(lazy(X_NEW))
    assert isinstance(found, da.Array)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.chunks[0] == UNEVEN
    assert type(found._meta) is np.ndarray
    np.testing.assert_array_equal(found.compute(), expected)


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("solver", [Adam(n_iter=5), LevenbergMarquardt(n_iter=3)])
def test_invert(bank, solver, history):
    expected = micfast.invert(bank, X_NEW, solver=solver, history=history)
    found = micfast.invert(bank, lazy(X_NEW), solver=solver, history=history)
    histories = ("error_history", "latent_history")
    for name in FIELDS[:4] + histories * history:
        array, wanted = getattr(found, name), getattr(expected, name)
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape), name
    same_inversion(found, expected)
    same_inversion(found.compute(), expected, FIELDS + histories)
    assert found.lengths is None
    assert type(found.compute()) is micfast.Inversion
    for which in ("best", "all", 1, -1):
        np.testing.assert_array_equal(
            found.reconstructions(which).compute(), expected.reconstructions(which)
        )


def test_torch_modules_and_tables():
    bank = GeneratorBank.random(3, hidden_size=5, input_size=2, output_size=1, seeds=range(3))
    table = X_NEW[..., 0]
    expected = micfast.invert(bank.to_modules(), table)
    same_inversion(micfast.invert(bank.to_modules(), lazy(table)), expected)
    clf = small().fit(table, y)
    np.testing.assert_array_equal(clf.reconstruct(lazy(table)), clf.reconstruct(table))
    with pytest.raises(ValueError, match="has 9 features"):
        clf.predict(lazy(table[:, 1:]))


@pytest.mark.parametrize("sizes", [(N,), (1,) * N, (0, 7, 0, N - 7)])
@pytest.mark.parametrize("start", [Paper(random_state=3), Dirichlet(2, random_state=3), "given"])
def test_starts_belong_to_rows(bank, start, sizes):
    if start == "given":
        start = np.random.default_rng(0).dirichlet(np.ones(2), (N, 3, 2))
    solver = Adam(n_iter=2, start=start)
    expected = micfast.invert(bank, X_NEW, solver=solver)
    same_inversion(micfast.invert(bank, lazy(X_NEW, sizes), solver=solver), expected)


def test_rows_skip_what_others_draw(bank):
    for start in (Paper(3, random_state=5), Dirichlet(3, random_state=5)):
        solver = Adam(n_iter=0, start=start)
        some = Adam(n_iter=0, start=start.rows(6, 9))
        expected = micfast.invert(bank, X_NEW, solver=solver).latents[6:9]
        np.testing.assert_array_equal(
            micfast.invert(bank, X_NEW[6:9], solver=some).latents, expected
        )


def test_estimator_with_random_starts(fitted):
    clf = pickle.loads(pickle.dumps(fitted)).set_params(solver=Adam(n_iter=1, start=Paper()))
    np.testing.assert_array_equal(clf.transform(lazy(X_NEW)), clf.transform(X_NEW))


def test_unseeded_starts_are_drawn_once(bank):
    found = micfast.invert(bank, lazy(X_NEW), solver=Adam(n_iter=0, start=Paper()))
    np.testing.assert_array_equal(found.latents.compute(), found.latents.compute())
    other = micfast.invert(bank, lazy(X_NEW), solver=Adam(n_iter=0, start=Paper()))
    assert (found.latents != other.latents).any()


def test_unequal_lengths(fitted, bank):
    lengths = np.random.default_rng(0).integers(3, T + 1, N)
    items = [one[:n] for one, n in zip(X_NEW, lengths, strict=True)]
    objects = np.empty(N, dtype=object)
    objects[:] = items
    padded = np.where(np.arange(T)[:, None] < lengths[:, None, None], X_NEW, np.nan)
    mask = np.arange(T) < lengths[:, None]
    expected = micfast.invert(bank, items)
    everything = (*FIELDS, "lengths", "n_steps")
    for given in (
        lazy(objects),
        Sequences.read(lazy(X_NEW), lengths=lengths),
        Sequences.read(lazy(X_NEW), lengths=da.from_array(lengths, chunks=6)),
        Sequences.read(lazy(X_NEW), mask=lazy(mask, (N,))),
        Sequences.read(lazy(padded), nan_policy="omit"),
    ):
        found = micfast.invert(bank, given)
        same_inversion(found.compute(), expected, everything)
        same_inversion(found, expected, FIELDS)
    for given in (lazy(objects), lazy(padded), Sequences.read(lazy(X_NEW), lengths=lengths)):
        for method in METHODS[:-1]:
            found = getattr(fitted, method)(given)
            np.testing.assert_array_equal(found, getattr(fitted, method)(items))


def test_rejection(fitted):
    clf = pickle.loads(pickle.dumps(fitted)).set_params(reject=0.9)
    for label in (None, "none of these"):
        clf.set_params(reject_label=label)
        expected = clf.predict(X_NEW)
        found = clf.predict(lazy(X_NEW))
        assert found.dtype == expected.dtype
        assert found.compute().tolist() == expected.tolist()
    assert clf.score(lazy(X_NEW), lazy(y)) == clf.score(X_NEW, y)


# -- laziness ------------------------------------------------------------------------------------


def test_nothing_is_computed_before_it_is_asked_for(fitted, bank):
    visits = []

    def visit(block):
        visits.append(len(block))
        return block

    D = lazy(X_NEW).map_blocks(visit, dtype=X_NEW.dtype, meta=X_NEW[:0])
    answers = [getattr(fitted, method)(D) for method in METHODS]
    found = micfast.invert(bank, D)
    repr((found, fitted.decide(D), found.predictions, found.reconstructions()))
    assert visits == []
    answers[0][:3].compute()
    assert visits == [UNEVEN[0]]
    assert len(fitted.decide(D)) == N


def test_parts_computed_together_share_the_search():
    fitted, searched = small().fit(X, y), []
    task = micfast.ModularInverseClassifier._invert

    def counted(self, *args, **kwargs):
        searched.append(1)
        return task(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(micfast.ModularInverseClassifier, "_invert", counted)
        dask.compute(fitted.predict(lazy(X_NEW)), fitted.predict_proba(lazy(X_NEW)))
    assert len(searched) == len(UNEVEN) + 2  # and an example for each of the two


# -- what is refused -----------------------------------------------------------------------------


def test_split_sequences_are_joined_with_a_warning(fitted):
    D = da.from_array(X_NEW, chunks=(UNEVEN, 4, 1))
    with pytest.warns(da.PerformanceWarning, match=r"6 chunks, which are joined first"):
        found = fitted.predict(D)
    assert found.chunks == (UNEVEN,)
    np.testing.assert_array_equal(found, fitted.predict(X_NEW))


def test_refused(fitted, bank):
    D = lazy(X_NEW)
    with pytest.raises(ValueError, match=r"x\.compute_chunk_sizes\(\)"):
        fitted.predict(D[D[:, 0, 0] > 100])
    with pytest.raises(ValueError, match=r"n_channels = 2 as in fit, got 1"):
        fitted.predict(D[..., :1])
    with pytest.raises(ValueError, match=r"must have n_channels = 2, as the modules' output"):
        micfast.invert(bank, D[..., :1])
    with pytest.raises(ValueError, match=r"start must have shape"):
        micfast.invert(bank, D, solver=Adam(start=np.ones((3, 2)) / 2))
    for state in (np.random.RandomState(0), np.random.default_rng(0)):
        with pytest.raises(TypeError, match="if targets come in chunks, which share no state"):
            micfast.invert(bank, D, solver=Adam(start=Paper(random_state=state)))
    with pytest.raises(ValueError, match="must be 'best', 'all' or an integer"):
        micfast.invert(bank, D).reconstructions(np.zeros(N, int))
    with pytest.raises(TypeError, match=r"client must be a synchronous distributed.Client, got 3"):
        small().fit(X, y, client=3)


def test_a_chunk_that_raises_is_named(fitted, bank):
    bad = X_NEW.copy()
    bad[7, 2, 0] = np.inf
    match = r"chunk 2 of 4, X\[5:15\], counted from its first: .*Input X contains infinity"
    with pytest.raises(ValueError, match=match):
        fitted.predict(lazy(bad)).compute()
    bad[7] = np.nan
    with pytest.raises(ValueError, match=r"chunk 2 of 4, targets\[5:15\].*targets\[2\] are miss"):
        micfast.invert(bank, lazy(bad), nan_policy="omit").errors.compute()


# -- two workers ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


@pytest.fixture
def on_workers(client):
    with dask.config.set(scheduler="distributed"):
        yield client


slow = pytest.mark.slow


@slow
def test_methods_on_workers(fitted, bank, on_workers):
    D = lazy(X_NEW)
    answers = dask.compute(*(getattr(fitted, method)(D) for method in METHODS))
    for method, found in zip(METHODS, answers, strict=True):
        np.testing.assert_array_equal(found, getattr(fitted, method)(X_NEW), err_msg=method)
    same_inversion(micfast.invert(bank, D).compute(), micfast.invert(bank, X_NEW))


def kill_once(block, flag, block_info=None):
    """End the worker that reads the third chunk, the first time."""
    if block_info[0]["chunk-location"][0] == 2 and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return block


@slow
def test_a_killed_worker_is_replaced(bank, on_workers, tmp_path):
    before = set(on_workers.scheduler_info()["workers"])
    flag = str(tmp_path / "killed")
    solver = Adam(n_iter=3, start=Paper(random_state=0))
    D = lazy(X_NEW).map_blocks(kill_once, flag=flag, dtype=X_NEW.dtype, meta=X_NEW[:0])
    found = micfast.invert(bank, D, solver=solver).compute()
    assert Path(flag).exists()
    same_inversion(found, micfast.invert(bank, X_NEW, solver=solver))
    on_workers.wait_for_workers(2, timeout=60)
    assert set(on_workers.scheduler_info()["workers"]) != before


@slow
def test_an_error_reaches_the_client_with_its_chunk(fitted, on_workers):
    bad = X_NEW.copy()
    bad[7, 2, 0] = np.inf
    with pytest.raises(ValueError, match=r"chunk 2 of 4, X\[5:15\].*contains infinity"):
        fitted.predict(lazy(bad)).compute()


@dataclass(frozen=True)
class Counted(Adam):
    """Notes each process that unpickles it."""

    log: str = ""

    def __reduce__(self):
        return _unpickled, (self.n_iter, self.start, self.log)


def _unpickled(n_iter, start, log):
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\n")
    return Counted(n_iter=n_iter, start=start, log=log)


@slow
def test_the_model_goes_to_each_worker_once(bank, on_workers, tmp_path):
    log = tmp_path / "log"
    D = lazy(X_NEW, (1,) * N).map_blocks(
        kill_once, flag=str(tmp_path), dtype=X_NEW.dtype, meta=X_NEW[:0]
    )
    micfast.invert(bank, D, solver=Counted(n_iter=2, log=str(log))).errors.compute()
    pids = [int(line) for line in log.read_text().split()]
    assert sorted(pids) == sorted(on_workers.run(os.getpid).values())


def used_threads(model, chunk):
    time.sleep(0.2)
    return np.array([chunk.n_threads])


@slow
def test_threads_follow_the_worker(on_workers):
    alone = chunks_of.answers(lazy(X_NEW, (N,)), used_threads, None, "X")
    assert alone.part(np.asarray, np.zeros(1, int)).compute().tolist() == [2]
    many = chunks_of.answers(lazy(X_NEW, (1,) * N), used_threads, None, "X")
    counts = many.part(np.asarray, np.zeros(1, int)).compute().tolist()
    assert set(counts) <= {1, 2}
    assert counts.count(1) > N // 2


def peak_memory():
    status = Path("/proc/self/status").read_text()
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)


@slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_is_bounded(on_workers, tmp_path):
    zarr = pytest.importorskip("zarr")
    bank = GeneratorBank.random(1, hidden_size=2, input_size=2, output_size=2, seeds=[0])
    shape, size = (1_000_000, 20, 2), 10_000
    store = zarr.create_array(
        str(tmp_path / "X.zarr"), shape=shape, chunks=(size, *shape[1:]), dtype="f8", fill_value=0.5
    )
    D = da.from_zarr(store)
    assert D.nbytes == 320_000_000
    solver = Adam(n_iter=1)
    micfast.invert(bank, D[: 4 * size], solver=solver).errors.compute()
    before = on_workers.run(peak_memory)
    lowest = micfast.invert(bank, D, solver=solver).errors.min(axis=1).max().compute()
    assert lowest == micfast.invert(bank, np.full((1, 20, 2), 0.5), solver=solver).errors[0, 0]
    after = on_workers.run(peak_memory)
    assert max(after[worker] - before[worker] for worker in before) < D.nbytes / 4


# -- classes dealt to workers --------------------------------------------------------------------


@dataclass(frozen=True)
class Noting(Selection):
    """The first samples, which are refused where their mean is below a bound."""

    folder: str = ""
    bound: float = -np.inf

    def select(self, X, n_types, seed, threads):
        Path(self.folder, str(os.getpid())).touch()
        if X.mean() < self.bound:
            raise ValueError("no types here")
        return First().select(X, n_types, seed, threads)


@slow
@needs_kernel
@pytest.mark.parametrize("n_steps", [T, "unequal"])
def test_fit_on_workers(client, n_steps):
    few = X
    if n_steps == "unequal":
        # Two classes of three have shorter sequences.
        few = X.copy()
        few[:7, 6:] = np.nan
        few[8, 9:] = np.nan
    clf = small(n_modules_per_class=2)
    here = pickle.loads(pickle.dumps(clf)).fit(few, y)
    there = pickle.loads(pickle.dumps(clf)).fit(few, y, client=client)
    same_fit(there, here)
    assert there.temperature_ == here.temperature_
    np.testing.assert_array_equal(there.transform(X_NEW), here.transform(X_NEW))
    assert there.get_params() == clf.get_params()


@slow
@needs_kernel
def test_fit_of_dask_arrays_takes_the_current_client(client, tmp_path):
    here = small(type_selection="first").fit(X, y)
    same_fit(small(type_selection=Noting(str(tmp_path))).fit(lazy(X), lazy(y)), here)
    pids = {int(path.name) for path in tmp_path.iterdir()}
    assert pids == set(client.run(os.getpid).values())


@slow
@needs_kernel
def test_a_class_that_raises_is_named(client, tmp_path):
    clf = small(type_selection=Noting(str(tmp_path), 0.0))
    with pytest.raises(ValueError, match=r"classes 'wave': .*no types here"):
        clf.fit(X, y, client=client)


def set_isa(name):
    if name is None:
        del os.environ["MICFAST_ISA"]
    else:
        os.environ["MICFAST_ISA"] = name


@slow
@needs_kernel
def test_workers_of_another_instruction_set_are_named(client):
    isas = micfast.config()["isas"]
    if len(isas) == 1:
        pytest.skip("one instruction set")
    worker = min(client.scheduler_info()["workers"])
    other = next(isa for isa in isas if isa != micfast.config()["isa"])
    client.run(set_isa, other, workers=[worker])
    try:
        with pytest.warns(UserWarning, match=rf"{worker} \({other}\).*MICFAST_ISA"):
            small().fit(X, y, client=client)
    finally:
        client.run(set_isa, None, workers=[worker])


# -- imports -------------------------------------------------------------------------------------


@slow
def test_dask_is_imported_by_its_arrays_alone():
    code = (
        "import sys, numpy as np, micfast\n"
        "sizes = {'hidden_size': 3, 'input_size': 2, 'output_size': 1}\n"
        "bank = micfast.GeneratorBank.random(2, **sizes, seeds=[0, 1])\n"
        "micfast.invert(bank, np.zeros((2, 5, 1)))\n"
        "from micfast.classify import estimator\n"
        "found = {'dask', 'distributed', 'micfast.distributed'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- benchmark -----------------------------------------------------------------------------------


@slow
@needs_kernel
def test_the_suite_compares_bits(tmp_path, capsys):
    pytest.importorskip("zarr")
    from bench.__main__ import main

    arguments = ["run", "--suite", "dask", "--quick", "--threads", "1", "--peers", "micfast"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "dask.json").read_text())["rows"]
    assert [(row["label"], row["status"]) for row in rows] == [
        ("in memory", "ok"),
        ("1 worker", "ok"),
    ]
    table = (tmp_path / "dask.md").read_text()
    assert "| 1 worker | 1 |" in table
    assert "WRONG" not in table
