"""What goes wrong outside micfast, made to happen: nothing lost, nothing half-written.

Kills, full and forbidden disks, bad networks, several writers, Ctrl-C, forks and threads. Killing
`micfast reproduce` is in ``test_reproduce.py``, damaged and foreign files are with their readers.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import faulty_disk
import numpy as np
import pytest
import torch
from helpers import needs_kernel

import micfast
from micfast import (
    Adam,
    GeneratorBank,
    LevenbergMarquardt,
    ModularInverseClassifier,
    Training,
    cli,
    train,
)
from micfast.data import DownloadError, fetch
from micfast.data.fetch import RemoteFile, locate
from micfast.generators.files import read_parts
from micfast.kernels import backend, calls
from micfast.training.selections.kmeans import DTWKMeans
from micfast.training.types import select_types_per_class

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
# A child that does not come to an end within this time hangs.
PATIENCE_S = 60


def bank_of(n_modules, seed=0, hidden_size=10):
    return GeneratorBank.random(
        n_modules,
        hidden_size=hidden_size,
        input_size=4,
        output_size=2,
        seeds=range(seed, seed + n_modules),
    )


def temporary(path):
    """Whether this is what `atomic_path` writes to: hidden, and never read by anything."""
    return path.name.startswith(".") and ".tmp" in path.suffixes


def run_program(code, **environment):
    """Run a program with the tests' helpers at hand; its standard output."""
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- kill -9 -------------------------------------------------------------------------------------


@contextmanager
def forked(function):
    """A child that runs the function; killed at the end. Gives its id and a pipe to read from.

    The function gets what tells the parent something: a byte a call.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            function(lambda: os.write(writer, b"."))
        finally:
            os._exit(0)  # whatever happens: two pytests would be one too many
    os.close(writer)
    try:
        yield child, reader
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)


@needs_fork
def test_kill_in_the_midst_of_a_write_leaves_the_old_file(tmp_path):
    path, old, new = tmp_path / "bank.safetensors", bank_of(2), bank_of(5)
    old.save(path)
    write = Path.write_bytes

    def half(tell):
        def write_half(self, data):
            write(self, data[: len(data) // 2])
            tell()
            time.sleep(PATIENCE_S)

        Path.write_bytes = write_half
        new.save(path)

    with forked(half) as (_, reader):
        assert os.read(reader, 1) == b"."
    assert GeneratorBank.load(path) == old
    (litter,) = [p for p in tmp_path.iterdir() if p != path]
    assert temporary(litter)
    new.save(path)  # what is left does not stand in the way
    assert GeneratorBank.load(path) == new


@pytest.mark.slow
@needs_fork
def test_kill_at_any_time_of_a_save_leaves_a_whole_file(tmp_path):
    path = tmp_path / "bank.safetensors"
    banks = [bank_of(40, seed, hidden_size=40) for seed in (0, 100)]
    banks[0].save(path)

    def save_for_ever(tell):
        tell()
        while True:
            for bank in banks:
                bank.save(path)

    rng = np.random.default_rng(0)
    for _ in range(15):
        with forked(save_for_ever) as (_, reader):
            assert os.read(reader, 1) == b"."
            time.sleep(rng.uniform(0, 0.05))
        assert GeneratorBank.load(path) in banks
    assert all(p == path or temporary(p) for p in tmp_path.iterdir())


@needs_fork
def test_kill_during_fit_leaves_the_old_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X = np.random.default_rng(0).standard_normal((16, 30, 2))
    np.savez("train.npz", X=X, y=np.arange(16) % 2)
    Path("model.safetensors").write_bytes(b"the old model")
    run = calls.train

    def fit(tell):
        def begin(*args, **kwargs):
            tell()
            return run(*args, **kwargs)

        calls.train = begin
        argv = ["fit", "train.npz", "-o", "model.safetensors", "--json", "report.json"]
        cli.main([*argv, "--episodes", "100000000"])

    with forked(fit) as (child, reader):
        assert os.read(reader, 1) == b"."
        time.sleep(0.2)
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it should be at work"
    assert sorted(os.listdir()) == ["model.safetensors", "train.npz"]
    assert Path("model.safetensors").read_bytes() == b"the old model"


# -- full, read-only and forbidden folders ---------------------------------------------------------


def in_own_mounts(command):
    """Command in a mount namespace of its own: as root, else as root of a user namespace."""
    return ["unshare", "-m" if os.geteuid() == 0 else "-Urm", "sh", "-c", command]


def why_no_mounts():
    """Why a small file system can't be mounted here; None if it can."""
    if shutil.which("unshare") is None:
        return "no unshare here"
    with tempfile.TemporaryDirectory() as folder:
        command = f"mount -t tmpfs -o size=64k tmpfs {folder}"
        done = subprocess.run(in_own_mounts(command), capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else None


@pytest.fixture(scope="module", params=["full", "readonly", "forbidden"])
def faulty(request):
    """What the program of ``faulty_disk.py`` met, and the kind of fault."""
    if os.name != "posix":
        pytest.skip("POSIX file systems")
    if backend.extension is None:
        pytest.skip("the files are the same without the kernel, and it takes long")
    if request.param != "forbidden":
        reason = why_no_mounts()
        if reason:
            pytest.skip(f"needs a small file system, which can't be mounted here: {reason}")
    # Not pytest's folder, which other users can't enter.
    with tempfile.TemporaryDirectory() as base:
        os.chmod(base, 0o755)
        folder = Path(base) / "disk"
        folder.mkdir()
        command = [sys.executable, faulty_disk.__file__, request.param, str(folder)]
        if request.param != "forbidden":
            mount = f"mount -t tmpfs -o size=2m,mode=755 tmpfs {folder}"
            command = [*in_own_mounts(f'{mount} && exec "$@"'), "sh", *command]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        return request.param, json.loads(done.stdout.splitlines()[-1])


MESSAGES = {
    "full": "No space left on device",
    "readonly": "Read-only file system",
    "forbidden": "Permission denied",
}


@pytest.mark.slow
def test_a_faulty_folder_stays_as_it_was_and_the_error_names_the_file(faulty):
    kind, result = faulty
    assert result["changed"] == []
    assert result["n_files"] >= len(faulty_disk.Cases.ALL)
    for name in faulty_disk.Cases.ALL:
        message = result[name]["message"]
        # Nobody knows the name of a temporary file.
        assert "/disk" in message, name
        assert ".tmp" not in message, name
        assert MESSAGES[kind] in message or "folder is not writable" in message, name
        if not name.startswith("predict"):  # whose line has no number
            assert isinstance(result[name]["errno"], int), name


@pytest.mark.slow
def test_a_faulty_cache_is_only_a_warning(faulty):
    kind, result = faulty
    assert result["cache"]["equal"]
    assert result["cache"]["finite"]
    (text,) = result["cache"]["warnings"]
    assert MESSAGES[kind] in text
    assert "set MICFAST_CACHE to a writable folder" in text


@pytest.mark.slow
def test_a_faulty_download_folder_is_named(faulty):
    kind, result = faulty
    message = result["download"]["message"]
    assert message.startswith("new.bin could not be downloaded from http://127.0.0.1")
    assert MESSAGES[kind] in message
    assert "/disk/downloads/new.bin" in message


@pytest.mark.slow
def test_what_may_not_be_written_is_known_before_the_work(faulty):
    kind, result = faulty
    expected = "" if kind == "full" else "folder is not writable"
    assert expected in result["check_output_path"]["message"]


@pytest.mark.slow
def test_a_private_file_is_refused(faulty):
    kind, result = faulty
    if kind == "forbidden":
        assert result["effective_user"] != 0
        assert "Permission denied" in result["private"]["message"]


# -- downloads -----------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Sends half of the content, then stalls or cuts the line; whole if the path says so."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        whole = self.path == "/whole"
        self.wfile.write(CONTENT if whole else CONTENT[: len(CONTENT) // 2])
        self.wfile.flush()
        self.server.asked.set()
        if self.path == "/stall":
            self.server.released.wait(PATIENCE_S)
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.asked, running.released = threading.Event(), threading.Event()
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("MICFAST_DATA", raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setattr("pooch.os_cache", lambda project: folder)
    return folder


def remote(server, what, sha256=SHA256):
    return RemoteFile("file.bin", f"http://127.0.0.1:{server.server_port}/{what}", sha256)


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_line_cut_halfway_leaves_nothing(cache, server, sha256):
    def whole(path):
        if path.read_bytes() != CONTENT:
            raise ValueError("not whole")

    with pytest.raises(DownloadError, match=r"file\.bin could not be downloaded") as caught:
        locate(remote(server, "cut", sha256), verify=whole)
    assert "MICFAST_DATA" in str(caught.value)
    assert list(cache.iterdir()) == []
    assert locate(remote(server, "whole", sha256), verify=whole).read_bytes() == CONTENT


def test_a_stalled_server_is_left_in_time(cache, server, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.3)
    begin = time.monotonic()
    with pytest.raises(DownloadError, match="timed out"):
        locate(remote(server, "stall"))
    assert time.monotonic() - begin < 10
    assert list(cache.iterdir()) == []


@needs_fork
def test_kill_during_a_download_leaves_no_file_of_that_name(cache, server):
    stalled, whole = remote(server, "stall"), remote(server, "whole")
    with forked(lambda tell: locate(stalled)) as (child, _):
        assert server.asked.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        # pooch writes to a temporary file beside it.
        while not (cache.is_dir() and any(p.stat().st_size for p in cache.iterdir())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it should be at work"
    assert not (cache / "file.bin").exists()
    assert locate(whole).read_bytes() == CONTENT


def test_a_half_file_in_the_cache_is_fetched_anew(cache, server):
    cache.mkdir()
    (cache / "file.bin").write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError):
        locate(remote(server, "cut"))
    assert (cache / "file.bin").read_bytes() == CONTENT[:1000]
    assert locate(remote(server, "whole")).read_bytes() == CONTENT
    assert [p.name for p in cache.iterdir()] == ["file.bin"]


# -- several writers -------------------------------------------------------------------------------


def all_at_once(function, n=4):
    """What n forked processes return, begun at the same moment."""
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(n), context.Queue()

    def work(i):
        barrier.wait(PATIENCE_S)
        queue.put(function(i))

    processes = [context.Process(target=work, args=(i,), daemon=True) for i in range(n)]
    for process in processes:
        process.start()
    try:
        results = [queue.get(timeout=PATIENCE_S) for _ in processes]
        for process in processes:
            process.join(PATIENCE_S)
            assert process.exitcode == 0
        return results
    finally:
        for process in processes:
            process.kill()


@needs_fork
def test_processes_that_fill_one_cache_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MICFAST_CACHE", str(tmp_path / "deep" / "cache"))
    X = np.random.default_rng(0).standard_normal((40, 12, 2))

    def types(i):
        warnings.simplefilter("error")  # a cache that can't be written is a warning
        found, _, _ = select_types_per_class(
            X, np.arange(40) % 2, 3, selection=DTWKMeans(n_init=1), random_state=0
        )
        return found

    results = [*all_at_once(types), types(0)]
    assert all(np.array_equal(found, results[0]) for found in results)
    (path,) = [p for p in tmp_path.rglob("*") if p.is_file()]
    with np.load(path, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["types"], results[0])


@needs_fork
def test_processes_that_download_one_file_at_once(cache, server):
    for sha256 in (SHA256, None):
        file = remote(server, "whole", sha256)
        assert all(all_at_once(lambda i, file=file: locate(file).read_bytes() == CONTENT))
        names = {p.name for p in cache.iterdir()}
        assert names == ({"file.bin"} if sha256 else {"file.bin", "file.bin.sha256"})
        shutil.rmtree(cache)


@needs_fork
def test_processes_that_save_to_one_path(tmp_path):
    path = tmp_path / "bank.safetensors"
    banks = [bank_of(3, seed, hidden_size=20) for seed in (0, 10, 20, 30)]

    def save_and_load(i):
        for _ in range(10):
            banks[i].save(path)
            if GeneratorBank.load(path) not in banks:
                return False
        return True

    assert all(all_at_once(save_and_load))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


# -- Ctrl-C ----------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c():
    """Call a function, send SIGINT into it; the seconds it then took to raise."""
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        pytest.skip("signals are POSIX's and go to the main thread")
    # Some runners have SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(function, after=0.4):
        over, sent = threading.Event(), []

        def send():
            wait = after
            # Again if nothing comes of it: in a finaliser, Python itself ignores an exception.
            while not over.wait(wait):
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)
                wait = 3

        thread = threading.Thread(target=send)
        thread.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                function()
            end = time.monotonic()
        finally:
            over.set()
            thread.join()
        return end - sent[0]

    yield interrupt
    signal.signal(signal.SIGINT, before)


def for_a_long_time(solver):
    targets = np.zeros((20_000, 205, 2), np.float32)
    return lambda: micfast.invert(bank_of(20), targets, solver=solver)


LONG = {
    "adam": for_a_long_time(Adam(n_iter=5000)),
    "lm": for_a_long_time(LevenbergMarquardt(n_iter=50, start="uniform")),
    "lm, nearest": for_a_long_time(LevenbergMarquardt(n_iter=50)),
    "train": lambda: train(
        bank_of(20), np.zeros((4, 205, 2)), Training.paper(n_episodes=100_000_000), seeds=range(20)
    ),
    "one long sequence": lambda: micfast.invert(
        bank_of(1, hidden_size=32), np.zeros((16, 5000, 2)), solver=Adam(n_iter=10_000)
    ),
    "draw": lambda: [bank_of(20).generate(np.eye(4).repeat(1000, 0), 500) for _ in range(1000)],
}


# One of them always, the others among the slow tests.
@needs_kernel
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "adam")) for name in LONG]
)
def test_ctrl_c_in_the_kernel_returns_within_a_second(name, ctrl_c):
    expected = bank_of(2).generate(np.eye(4), 30)
    assert ctrl_c(LONG[name]) < 1
    assert torch.equal(bank_of(2).generate(np.eye(4), 30), expected)


@pytest.mark.slow
def test_ctrl_c_in_the_fallback(ctrl_c):
    # One step of autograd can't be interrupted; a chunk of them takes about a second.
    targets, bank = np.zeros((16, 205, 2), np.float32), bank_of(4)

    def invert(n_iter):
        return micfast.invert(bank, targets, solver=Adam(n_iter=n_iter), execution="torch")

    assert ctrl_c(lambda: invert(100_000)) < 5
    assert np.isfinite(invert(1).errors).all()


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 6)
    X = np.sin(np.linspace(0, 3, 20) * (1 + y[:, None])) + 0.1 * rng.standard_normal((12, 20))
    clf = ModularInverseClassifier(
        2,
        training=Training.paper(n_episodes=300, max_retries=0, learned_tol=10),
        n_modules_per_class=2,
        random_state=0,
    )
    return clf.fit(X, y), X, y


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fit", "add_class", "refit_class"])
def test_ctrl_c_leaves_the_estimator_as_it_was(method, model, ctrl_c, tmp_path):
    clf, X, y = model

    def content(name):
        clf.save(tmp_path / name)
        weights, *others, tensors, document = read_parts(tmp_path / name)
        tensors |= dict(weights.named())
        return {key: tensor.tolist() for key, tensor in tensors.items()}, others, document

    before = content("before.safetensors")
    # Other data, other units: modules of the one with the standardisation of the other would be
    # neither the old model nor the new.
    other = 100 + 50 * X
    arguments = {"fit": (other, y), "add_class": (other, 2), "refit_class": (other, 1)}[method]
    clf.set_params(training__method__n_episodes=100_000_000)
    ctrl_c(lambda: getattr(clf, method)(*arguments))
    clf.set_params(training__method__n_episodes=300)
    assert content("after.safetensors") == before
    getattr(clf, method)(*arguments)  # and it can be done again
    assert clf.predict(X).shape == (12,)


def test_ctrl_c_in_a_first_fit_leaves_it_unfitted(ctrl_c):
    clf = ModularInverseClassifier(
        2, training=Training.paper(n_episodes=100_000_000), random_state=0
    )
    X = np.random.default_rng(0).standard_normal((12, 20))
    ctrl_c(lambda: clf.fit(X, np.arange(12) % 2))
    assert not [name for name in vars(clf) if name.endswith("_")]


# -- fork and threads ------------------------------------------------------------------------------


@pytest.mark.slow
@needs_fork
def test_fork_after_use_with_many_threads():
    """In a process of its own: another test may have held torch to one thread."""
    program = """
        import multiprocessing, warnings
        import numpy as np, torch
        import micfast
        from micfast import Adam, Execution, LevenbergMarquardt
        from test_faults import PATIENCE_S, bank_of

        torch.set_num_threads(2)
        bank = bank_of(5)
        targets = np.random.default_rng(0).standard_normal((300, 60, 2)).astype(np.float32)

        def work(i):
            # torch's own threads, then the kernel's.
            (torch.rand(600, 600) @ torch.rand(600, 600)).sum()
            found = [
                micfast.invert(bank, targets, solver=LevenbergMarquardt(n_iter=2)),
                micfast.invert(
                    bank, targets, solver=Adam(n_iter=3), execution=Execution(n_threads=2)
                ),
            ]
            return [result.errors for result in found]

        expected = work(0)
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
        with multiprocessing.get_context("fork").Pool(2) as pool:
            results = pool.map_async(work, range(4)).get(PATIENCE_S)
        for result in results:
            for got, wanted in zip(result, expected):
                np.testing.assert_array_equal(got, wanted)
        print("equal")
    """
    assert run_program(program, OMP_NUM_THREADS="2") == "equal\n"


@pytest.mark.slow
def test_joblibs_processes(model):
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    clf, X, _ = model
    try:
        results = Parallel(n_jobs=2, backend="loky", timeout=PATIENCE_S)(
            delayed(clf.reconstruction_errors)(X) for _ in range(4)
        )
    finally:
        get_reusable_executor().shutdown(wait=True)
    expected = clf.reconstruction_errors(X)
    assert all(np.array_equal(result, expected) for result in results)


@needs_kernel
def test_many_threads_share_a_bank_and_an_estimator(model):
    clf, X, _ = model
    bank = bank_of(6)
    targets = np.random.default_rng(0).standard_normal((50, 40, 2)).astype(np.float32)

    def work(i):
        # What the bank remembers is made and dropped by all of them at once: two are kept.
        length = 30 + i % 5
        solver = LevenbergMarquardt(n_iter=2)
        found = micfast.invert(bank, targets[:, :length], solver=solver)
        return found.errors, clf.reconstruction_errors(X), clf.predict_proba(X)

    expected = [work(i) for i in range(5)]
    results, failures = {}, []

    def call(i):
        try:
            for repeat in range(5):
                results[i, repeat] = work(i)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not failures
    assert len(results) == 50
    for (i, _), result in results.items():
        for got, wanted in zip(result, expected[i % 5], strict=True):
            np.testing.assert_array_equal(got, wanted)


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_kernel
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_after_many_calls_is_flat(model, tmp_path):
    """Some hundred calls here; ``python -m bench.soak`` makes thousands."""
    clf, X, _ = model
    bank = bank_of(4)
    targets = np.random.default_rng(0).standard_normal((64, 50, 2)).astype(np.float32)
    path = tmp_path / "model.safetensors"

    def round_of_calls():
        micfast.invert(bank, targets, solver=Adam(n_iter=2))
        micfast.invert(bank, targets, solver=LevenbergMarquardt(n_iter=2))
        clf.predict(X)
        clf.save(path)
        ModularInverseClassifier.load(path)
        read_parts(path)

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(10):
        round_of_calls()
    before = resident()
    for _ in range(100):
        round_of_calls()
    # A copy of the targets kept in each round would be 2.6 MB, one of a model's tensors more.
    assert resident() - before < 2e6
