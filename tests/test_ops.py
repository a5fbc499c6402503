"""The operators' contract: opcheck, messages, backends, progress, interruption, threads."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
from helpers import needs_kernel, random_fleet, random_weights

import micfast
from micfast import _backend, ops

BACKENDS = ["torch", pytest.param("cpu", marks=needs_kernel)]


@pytest.fixture
def problem():
    weights = random_weights(2, 3, 4, 2, torch.float64)
    return weights, torch.randn(5, 6, 2, dtype=torch.float64), torch.full((1, 1, 4), 0.25).double()


@needs_kernel
def test_opcheck(problem):
    weights, targets, init = problem
    latents = torch.rand(2, 5, 4, dtype=torch.float64)
    trainable = [w.clone().requires_grad_(True) for w in weights]
    torch.library.opcheck(
        torch.ops.micfast.generate.default, (*trainable, latents.requires_grad_(True), 6)
    )
    torch.library.opcheck(
        torch.ops.micfast.generate.default, (*weights, latents.detach()[:, :0], 6)
    )
    d_outputs = torch.randn(2, 5, 6, 2, dtype=torch.float64)
    torch.library.opcheck(
        torch.ops.micfast.generate_backward.default, (*weights, latents.detach(), d_outputs)
    )
    starts = init.unsqueeze(2).repeat(1, 1, 3, 1)
    for history in (False, True):
        torch.library.opcheck(
            torch.ops.micfast.invert.default,
            (*weights, targets, starts, 3, 0.05, 0.9, 0.99, 1e-8, False, history, 1e-3),
        )
        torch.library.opcheck(
            torch.ops.micfast.invert_lm.default,
            (*weights, targets, starts, 3, 0.1, True, history, 0.0),
        )
    types, *fleet = random_fleet(2, 4, 6, 2, torch.float64)
    torch.library.opcheck(
        torch.ops.micfast.train.default,
        (*weights, types.unsqueeze(2), *fleet, 5, 0.01, 0.9, 0.999, 1e-8, 3),
    )


@needs_kernel
def test_operators_are_registered():
    for name in ("generate", "generate_backward", "invert", "invert_lm", "train"):
        assert hasattr(torch.ops.micfast, name)


def replaced(weights, index, value):
    return [value if i == index else w for i, w in enumerate(weights)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_weight_messages(problem, backend):
    weights, targets, init = problem

    def fails(error, match, **changes):
        w = changes.get("weights", weights)
        with pytest.raises(error, match=match):
            ops.invert(
                *w, changes.get("targets", targets), changes.get("init", init), backend=backend
            )

    fails(
        ValueError,
        r"W_hh must have shape \(M, 4H, H\)",
        weights=replaced(weights, 1, weights[1][0]),
    )
    fails(ValueError, r"W_hh must have shape", weights=replaced(weights, 1, weights[1][:, :11]))
    fails(
        ValueError,
        r"W_ih must have shape .*\(2, 12, any\)",
        weights=replaced(weights, 0, weights[0][:1]),
    )
    fails(
        ValueError,
        r"b must have shape .*\(2, 12\), got \(2, 11\)",
        weights=replaced(weights, 2, weights[2][:, 1:]),
    )
    fails(ValueError, r"W_out must have shape", weights=replaced(weights, 3, weights[3][..., 1:]))
    fails(ValueError, r"b_out must have shape", weights=replaced(weights, 4, weights[4][:, 1:]))
    fails(
        TypeError,
        r"b must have the dtype of W_ih",
        weights=replaced(weights, 2, weights[2].float()),
    )
    fails(
        TypeError,
        r"W_ih must be float32 or float64, got torch.int64",
        weights=[w.long() for w in weights],
    )
    fails(
        ValueError,
        r"targets must have shape \(N, T, O\) = \(any, any, 2\), got \(5, 6\)",
        targets=targets[..., 0],
    )
    fails(ValueError, r"targets must have shape", targets=targets[..., :1])
    fails(ValueError, r"steps of targets must be at least 1", targets=targets[:, :0])
    fails(TypeError, r"targets must have the dtype of W_ih", targets=targets.float())
    fails(ValueError, r"init must have shape", init=init[0])
    fails(ValueError, r"init must have shape \(2 or 1, 5 or 1, 4\)", init=init.expand(3, 1, 4))
    fails(ValueError, r"device", targets=targets.to("meta"), weights=weights)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"n_iter": -1}, "n_iter must be at least 0"),
        ({"lr": -0.1}, "lr must not be negative"),
        ({"lr": float("nan")}, "lr must not be negative"),
        ({"beta1": 1.0}, r"beta1 must be in \[0, 1\)"),
        ({"beta2": -0.5}, r"beta2 must be in \[0, 1\)"),
        ({"eps": -1.0}, "eps must not be negative"),
    ],
)
def test_setting_messages(problem, backend, setting, match):
    weights, targets, init = problem
    with pytest.raises(ValueError, match=match):
        ops.invert(*weights, targets, init, backend=backend, **setting)


@pytest.mark.parametrize("backend", BACKENDS)
def test_train_messages(problem, backend):
    weights, _, _ = problem
    fleet = random_fleet(2, 4, 6, 2, torch.float64)

    def fails(error, match, index=None, value=None, n_episodes=3, **settings):
        arguments = list(fleet)
        if index is not None:
            arguments[index] = value
        with pytest.raises(error, match=match):
            ops.train(*weights, *arguments, n_episodes, backend=backend, **settings)

    fails(ValueError, r"type_sets must have shape", 0, fleet[0][:, :3])
    fails(ValueError, r"set_index must be in \[0, 2\)", 1, torch.tensor([0, 2]))
    fails(
        ValueError, r"noise_in must be finite and not negative", 2, torch.tensor([0.0, -1]).double()
    )
    fails(ValueError, r"noise_out must be finite", 3, torch.tensor([0.0, torch.nan]).double())
    fails(TypeError, r"noise_in must have dtype torch.float64", 2, torch.zeros(2))
    fails(TypeError, r"seeds must have dtype torch.int64", 4, torch.zeros(2))
    fails(ValueError, r"seeds must have shape", 4, torch.zeros(3, dtype=torch.int64))
    fails(ValueError, r"n_episodes must be at least 0", n_episodes=-1)
    fails(ValueError, r"n_curve must be at least 1", n_curve=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_n_threads_message(problem, backend):
    weights, targets, init = problem
    with pytest.raises(ValueError, match="invert: n_threads must be at least 1, got 0"):
        ops.invert(*weights, targets, init, n_threads=0, backend=backend)


def test_resolve_backend(monkeypatch):
    with pytest.raises(
        ValueError, match="backend must be one of auto, cpu, cuda, torch, got 'gpu'"
    ):
        ops.resolve_backend("gpu")
    with pytest.raises(RuntimeError, match="backend 'cuda' is not available"):
        ops.resolve_backend("cuda")
    assert ops.resolve_backend("auto", "meta") == "torch"
    monkeypatch.setattr(_backend, "extension", None)
    monkeypatch.setattr(_backend, "load_error", "no such file")
    assert ops.resolve_backend("auto") == "torch"
    with pytest.raises(RuntimeError, match=r"'cpu' is not available.*no such file"):
        ops.resolve_backend("cpu")


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_jobs(problem, backend):
    weights, targets, init = problem
    result = ops.invert(*weights, targets[:0], init, 3, return_history=True, backend=backend)
    assert result.errors.shape == (2, 0)
    assert result.error_history.shape == (4, 2, 0)
    fleet = random_fleet(2, 4, 6, 2, torch.float64)
    trained = ops.train(*weights, *fleet, 0, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(trained[:5], weights, strict=True))
    assert trained.loss_curve.shape == (2, 0)


@needs_kernel
def test_progress_is_reported_and_rises():
    weights = random_weights(16, 10, 4, 2)
    fleet = random_fleet(16, 4, 100, 2, torch.float32)
    seen = []
    ops.train(*weights, *fleet, 4000, progress=seen.append)
    assert len(seen) >= 2
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= 1


@needs_kernel
def test_an_exception_in_progress_stops_the_job():
    weights = random_weights(16, 10, 4, 2)
    fleet = random_fleet(16, 4, 100, 2, torch.float32)

    def fail(fraction):
        raise KeyError("enough")

    start = time.monotonic()
    with pytest.raises(KeyError, match="enough"):
        ops.train(*weights, *fleet, 10_000_000, progress=fail)
    assert time.monotonic() - start < 20
    assert ops.generate(*weights, torch.rand(16, 2, 4), 5).isfinite().all()


@needs_kernel
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_stops_the_kernel_and_leaves_a_working_interpreter():
    program = """
        import signal, torch, micfast, helpers
        # A shell's background job has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        weights = helpers.random_weights(16, 10, 4, 2)
        fleet = helpers.random_fleet(16, 4, 100, 2, torch.float32)
        print("ready", flush=True)
        try:
            micfast.train(*weights, *fleet, 10_000_000)
        except KeyboardInterrupt:
            assert micfast.generate(*weights, torch.rand(16, 2, 4), 5).isfinite().all()
            print("stopped")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])},
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "stopped\n"
    assert process.returncode == 0


@needs_kernel
def test_the_gil_is_released():
    """A Python thread goes on counting while the kernel runs."""
    weights = random_weights(16, 10, 4, 2)
    fleet = random_fleet(16, 4, 100, 2, torch.float32)
    worker = threading.Thread(target=lambda: ops.train(*weights, *fleet, 5000, n_threads=1))
    worker.start()
    counted = 0
    while worker.is_alive():
        counted += 1
        time.sleep(0.001)
    assert counted > 5


@needs_kernel
def test_many_threads_call_one_bank_at_once(problem):
    weights, targets, init = problem
    expected = ops.invert(*weights, targets, init, 20).errors
    results = [None] * 8

    def call(i):
        results[i] = ops.invert(*weights, targets, init, 20, n_threads=2).errors

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(r, expected) for r in results)


@needs_kernel
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_after_use(problem):
    weights, targets, init = problem
    expected = ops.invert(*weights, targets, init, 5).errors
    child = os.fork()
    if child == 0:
        ok = torch.equal(ops.invert(*weights, targets, init, 5, n_threads=2).errors, expected)
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_show_config(capsys):
    micfast.show_config()
    text = capsys.readouterr().out
    assert text.startswith(f"micfast {micfast.__version__}")
    assert "backend torch" in text
    assert ("instruction set" in text) == (_backend.extension is not None)
    assert micfast.config()["torch"] == torch.__version__
