"""The operators' contract: opcheck, messages, backends, progress, interruption, threads."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import operators
import pytest
import torch
from helpers import needs_kernel, random_fleet, random_weights

import micfast
from micfast import Execution, Weights
from micfast.kernels import backend as backends

BACKENDS = ["torch", pytest.param("cpu", marks=needs_kernel)]
ADAM = (0.05, 0.9, 0.99, 1e-8)


@pytest.fixture
def problem():
    weights = random_weights(2, 3, 4, 2, torch.float64)
    start = torch.full((1, 1, 1, 4), 0.25, dtype=torch.float64)
    return weights, torch.randn(5, 6, 2, dtype=torch.float64), start


@needs_kernel
@pytest.mark.slow
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
    starts = init.repeat(1, 1, 3, 1)
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


@pytest.mark.parametrize("device_backend", BACKENDS)
@pytest.mark.parametrize("omit_nan", [False, True])
@pytest.mark.parametrize("n_targets", [1, 37])
def test_each_modules_own_targets(device_backend, omit_nan, n_targets):
    """As every module searched alone, whatever blocks the pairs share."""
    generator = torch.Generator().manual_seed(0)
    weights = Weights(*random_weights(3, 5, 4, 2, torch.float32))
    targets = torch.randn(3, n_targets, 9, 2, generator=generator)
    if omit_nan:
        targets[0, :, 6:] = torch.nan
        targets[1, ::2, 3, 0] = torch.nan
    starts = torch.rand(3, n_targets, 2, 4, generator=generator)
    execution = Execution(device_backend)
    for solver in (micfast.Adam(n_iter=3), micfast.LevenbergMarquardt(n_iter=3)):
        how = {"history": False, "omit_nan": omit_nan, "execution": execution, "report": None}
        found = solver.search(weights, targets, starts, **how)
        for m in range(3):
            alone = solver.search(weights[m : m + 1], targets[m], starts[m : m + 1], **how)
            for one, other in zip(found[:4], alone[:4], strict=True):
                torch.testing.assert_close(one[m], other[0], rtol=1e-4, atol=1e-5)
            if device_backend == "cpu":
                assert torch.equal(found.errors[m], alone.errors[0])


# -- the check of shapes, dtypes and settings ------------------------------------------------------


def replaced(weights, index, value):
    return [value if i == index else w for i, w in enumerate(weights)]


@needs_kernel
@pytest.mark.parametrize("solver", ["invert", "invert_lm"])
def test_messages_of_the_searches(problem, solver):
    weights, targets, start = problem
    rest = (ADAM, False, False, 0.0) if solver == "invert" else ((0.1, True), False, 0.0)

    def fails(error, match, **changes):
        w, x, z = (
            changes.get(name, usual)
            for name, usual in (("weights", weights), ("targets", targets), ("init", start))
        )
        with pytest.raises(error, match=f"{solver}: {match}"):
            getattr(torch.ops.micfast, solver)(*w, x, z, 3, *rest[0], *rest[1:])

    W_ih, W_hh, b, W_out, b_out = weights
    fails(ValueError, "W_ih, W_hh and W_out must have 3 dim", weights=replaced(weights, 1, W_hh[0]))
    fails(ValueError, "W_hh must have shape", weights=replaced(weights, 1, W_hh[:, :11]))
    fails(ValueError, r"W_hh must have .*= \(1, 12, 3\)", weights=replaced(weights, 0, W_ih[:1]))
    fails(
        ValueError,
        r"b must have .*\(2, 12\), got \(2, 11\)",
        weights=replaced(weights, 2, b[:, 1:]),
    )
    fails(ValueError, "W_out must have shape", weights=replaced(weights, 3, W_out[..., 1:]))
    fails(ValueError, "b_out must have shape", weights=replaced(weights, 4, b_out[:, 1:]))
    fails(TypeError, "b must have the dtype of W_ih", weights=replaced(weights, 2, b.float()))
    fails(
        TypeError,
        "W_ih must be float32 or float64, got torch.int64",
        weights=[w.long() for w in weights],
    )
    fails(
        ValueError,
        r"targets must have shape \(N, T, O\) = \(any, any, 2\), got \(5, 6\)",
        targets=targets[..., 0],
    )
    fails(ValueError, "targets must have shape", targets=targets[..., :1])
    fails(ValueError, "the number of steps of targets must be at least 1", targets=targets[:, :0])
    fails(TypeError, "targets must have the dtype of the weights", targets=targets.float())
    fails(ValueError, "init must have shape", init=start[0])
    fails(ValueError, "init must have shape", init=start[..., :0, :])
    fails(ValueError, r"init must have .*\(2 or 1, 5 or 1, S, 4\)", init=start.expand(3, 1, 1, 4))
    fails(TypeError, "init must have the dtype of the weights", init=start.float())


@needs_kernel
@pytest.mark.parametrize(
    ("position", "value", "match"),
    [
        (0, -1, "n_iter must be at least 0"),
        (1, -0.1, "lr must be at least 0"),
        (1, float("nan"), "lr must be at least 0"),
        (2, 1.0, "beta1 must be from 0 to below 1"),
        (3, -0.5, "beta2 must be from 0 to below 1"),
        (4, -1.0, "eps must be at least 0"),
        (7, -1e-3, "tol must be at least 0"),
        (7, float("nan"), "tol must be at least 0"),
    ],
)
def test_messages_of_adam_s_settings(problem, position, value, match):
    weights, targets, start = problem
    settings = [3, *ADAM, False, False, 0.0]
    settings[position] = value
    with pytest.raises(ValueError, match=f"invert: {match}, got"):
        torch.ops.micfast.invert(*weights, targets, start, *settings)


@needs_kernel
@pytest.mark.parametrize("damping", [0.0, -1.0, float("inf"), float("nan")])
def test_message_of_the_damping(problem, damping):
    weights, targets, start = problem
    with pytest.raises(ValueError, match="invert_lm: damping must be finite and above 0, got"):
        torch.ops.micfast.invert_lm(*weights, targets, start, 3, damping, True, False, 0.0)


@needs_kernel
def test_messages_of_generate(problem):
    weights, *_ = problem
    latents = torch.rand(2, 5, 4, dtype=torch.float64)
    generate = torch.ops.micfast.generate
    with pytest.raises(ValueError, match=r"latents must have shape \(M, N, K\) = \(2, any, 4\)"):
        generate(*weights, latents[..., 1:], 3)
    with pytest.raises(TypeError, match="generate: latents must have the dtype of the weights"):
        generate(*weights, latents.float(), 3)
    with pytest.raises(ValueError, match="generate: n_steps must be at least 1, got 0"):
        generate(*weights, latents, 0)
    cotangent = torch.rand(2, 5, 6, 1, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"d_outputs must have .*\(2, 5, 6, 2\), got \(2, 5, 6, 1\)"
    ):
        torch.ops.micfast.generate_backward(*weights, latents, cotangent)


@needs_kernel
def test_messages_of_training(problem):
    weights, *_ = problem
    fleet = random_fleet(2, 4, 6, 2, torch.float64)

    def fails(error, match, index=None, value=None, n_episodes=3, **settings):
        arguments = list(fleet)
        if index is not None:
            arguments[index] = value
        with pytest.raises(error, match=f"train: {match}"):
            operators.train(weights, *arguments, n_episodes, backend="cpu", **settings)

    types = fleet[0].unsqueeze(2)
    fails(ValueError, "type_sets must have shape", 0, types[:, :3])
    fails(ValueError, "the number of variants in type_sets must be", 0, types[:, :, :0])
    fails(ValueError, "the number of steps of type_sets must be", 0, types[:, :, :, :0])
    fails(ValueError, "set_index must be from 0 to 1", 1, torch.tensor([0, 2]))
    fails(ValueError, "set_index must be from 0 to 1", 1, torch.tensor([-1, 0]))
    fails(ValueError, "noise_in must be finite and at least 0", 2, torch.tensor([0.0, -1]).double())
    fails(ValueError, "noise_out must be finite", 3, torch.tensor([0.0, torch.nan]).double())
    fails(TypeError, r"noise_in must have .* torch.float64, got torch.float32", 2, torch.zeros(2))
    fails(TypeError, r"seeds must have .* torch.int64, got torch.float32", 4, torch.zeros(2))
    fails(ValueError, "seeds must have shape", 4, torch.zeros(3, dtype=torch.int64))
    fails(ValueError, "n_episodes must be at least 0", n_episodes=-1)
    fails(ValueError, "n_curve must be at least 1", n_curve=0)
    fails(ValueError, "beta1 must be from 0 to below 1", beta1=1.0)


@needs_kernel
@pytest.mark.parametrize("name", ["targets", "init"])
def test_devices_must_agree(problem, name):
    tensors = dict(zip(("targets", "init"), problem[1:], strict=True))
    tensors[name] = tensors[name].to("meta")
    # The dispatcher sends what is partly on meta to the fake, so the check is called here.
    from micfast.kernels import operators as package

    with pytest.raises(ValueError, match=f"{name} must be on the device of the weights, cpu, got"):
        package._invert(*problem[0], *tensors.values(), 3, *ADAM, False, False, 0.0)


def test_execution_checks_itself():
    with pytest.raises(ValueError, match="Execution: n_threads must be an integer from 1 to"):
        Execution(n_threads=0)
    with pytest.raises(TypeError, match="Execution: n_threads must be an integer"):
        Execution(n_threads=1.5)
    with pytest.raises(ValueError, match="Execution: backend must be 'auto', 'cpu', 'cuda' or"):
        Execution("gpu")
    with pytest.raises(ValueError, match="Execution: chunk_size must be an integer of at least 1"):
        Execution(chunk_size=0)
    with pytest.raises(TypeError, match="execution must be an Execution or the name of a backend"):
        Execution.of(3)
    assert Execution.of(None) == Execution()
    assert Execution.of("torch") == Execution(backend="torch")


@pytest.mark.parametrize("index", range(5))
def test_weights_check_themselves(problem, index):
    weights = list(problem[0])
    for wrong, error in (
        (None, TypeError),
        (weights[index].numpy(), TypeError),
        (weights[index].to_sparse(), TypeError),
        (weights[index].int(), TypeError),
        (weights[index].to("meta"), ValueError),
        (weights[index][:1], ValueError),
        (weights[index][..., :0], ValueError),
        (weights[index][None], ValueError),
        (torch.zeros((), dtype=torch.float64), ValueError),
    ):
        with pytest.raises(error, match=r"Weights: \w+"):
            Weights(*replaced(weights, index, wrong))


# -- backends, progress, threads -------------------------------------------------------------------


def test_resolve_backend(monkeypatch):
    with pytest.raises(
        ValueError, match="backend must be one of auto, cpu, cuda, torch, got 'gpu'"
    ):
        backends.resolve_backend("gpu")
    if backends.why_missing("cuda") is not None:
        with pytest.raises(RuntimeError, match="backend 'cuda' is not available"):
            backends.resolve_backend("cuda")
    assert backends.resolve_backend("auto", "meta") == "torch"
    monkeypatch.setattr(backends, "extension", None)
    monkeypatch.setattr(backends, "load_error", "no such file")
    assert backends.resolve_backend("auto") == "torch"
    with pytest.raises(RuntimeError, match=r"'cpu' is not available.*no such file"):
        backends.resolve_backend("cpu")


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_jobs(problem, backend):
    weights, targets, init = problem
    result = operators.invert(weights, targets[:0], init, 3, return_history=True, backend=backend)
    assert result.errors.shape == (2, 0, 1)
    assert result.error_history.shape == (4, 2, 0, 1)
    fleet = random_fleet(2, 4, 6, 2, torch.float64)
    trained = operators.train(weights, *fleet, 0, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(trained[:5], weights, strict=True))
    assert trained.loss_curve.shape == (2, 0)


@needs_kernel
def test_progress_is_reported_and_rises():
    weights = random_weights(16, 10, 4, 2)
    fleet = random_fleet(16, 4, 100, 2, torch.float32)
    seen = []
    operators.train(weights, *fleet, 4000, progress=seen.append)
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
        operators.train(weights, *fleet, 10_000_000, progress=fail)
    assert time.monotonic() - start < 20
    assert operators.generate(weights, torch.rand(16, 2, 4), 5).isfinite().all()


@pytest.mark.slow
@needs_kernel
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_ctrl_c_stops_the_kernel_and_leaves_a_working_interpreter():
    program = """
        import signal, torch, helpers, operators
        # A shell's background job has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        weights = helpers.random_weights(16, 10, 4, 2)
        fleet = helpers.random_fleet(16, 4, 100, 2, torch.float32)
        print("ready", flush=True)
        try:
            operators.train(weights, *fleet, 10_000_000)
        except KeyboardInterrupt:
            assert operators.generate(weights, torch.rand(16, 2, 4), 5).isfinite().all()
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


@pytest.mark.slow
@needs_kernel
def test_the_gil_is_released():
    """A Python thread goes on counting while the kernel runs."""
    weights = random_weights(16, 10, 4, 2)
    fleet = random_fleet(16, 4, 100, 2, torch.float32)
    worker = threading.Thread(target=lambda: operators.train(weights, *fleet, 5000, n_threads=1))
    worker.start()
    counted = 0
    while worker.is_alive():
        counted += 1
        time.sleep(0.001)
    assert counted > 5


@needs_kernel
def test_many_threads_call_one_bank_at_once(problem):
    weights, targets, init = problem
    expected = operators.invert(weights, targets, init, 20).errors
    results = [None] * 8

    def call(i):
        results[i] = operators.invert(weights, targets, init, 20, n_threads=2).errors

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
    expected = operators.invert(weights, targets, init, 5).errors
    child = os.fork()
    if child == 0:
        ok = torch.equal(operators.invert(weights, targets, init, 5, n_threads=2).errors, expected)
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_show_config(capsys):
    micfast.show_config()
    text = capsys.readouterr().out
    assert text.startswith(f"micfast {micfast.__version__}")
    assert "backend torch" in text
    assert ("instruction set" in text) == (backends.extension is not None)
    assert micfast.config()["torch"] == torch.__version__
