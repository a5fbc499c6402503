"""Times on a GPU: micfast's jobs, and its peers on the same GPU in the same process.

Data is moved before the clock starts. A step that fails is a row that says so, and the process
fails at its end.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench import cases
from bench.gpu_stages import Device, search
from bench.peers import base, pytorch, xla
from micfast import Adam, Execution, LevenbergMarquardt
from micfast.kernels import calls

# The paper's grid: 20 letters, clustered and random types, 9 settings of noise.
GRID_MODULES, GRID_EPISODES = 360, 40000
MANY = 100_000
FEW = (1, 8, 64)

Add = Callable[..., None]


def measure(device: Device, add: Add) -> None:
    """Measure everything; raises at the end if a step failed."""
    failed = []

    def step(name: str, run: Callable[[], tuple[str, list[float]]], **numbers: Any) -> None:
        try:
            result, times = run()
            add(name, f"{spread(times)}; {result}", seconds=times, **numbers)
        except Exception as error:
            traceback.print_exc()
            failed.append(name)
            add(name, f"FAILED: {type(error).__name__}: {error}")

    peak = peak_of_matmul(device)
    add("float32 peak reached", f"{peak / 1e12:.2f} TFLOP/s in a matrix product", flops=peak)
    jobs = [cases.CHARACTERS, cases.MNIST]
    jobs += [replace(case, id=f"{case.id}-N{n}", N=n) for case in jobs for n in (*FEW, MANY)]
    for case in map(small, jobs) if device.rehearse else jobs:
        step(f"{case.id}: Adam", inversions(device, case, Adam(case.I), peak))
        step(f"{case.id}: LM of 8 steps", inversions(device, case, LevenbergMarquardt(8), None))
        if case.N in (cases.CHARACTERS.N, cases.MNIST.N) or device.rehearse:
            for name, peer in peers(device, case):
                step(f"{case.id}: {name}", peer)
    double = replace(cases.CHARACTERS, id="inversion-characters-float64", M=4)
    case = small(double) if device.rehearse else double
    step(f"{case.id}: Adam", inversions(device, case, Adam(case.I), None, torch.float64))
    for fleet in (cases.CHARACTERS_FLEET, cases.MNIST_FLEET):
        step(f"{fleet.id}", training(device, fleet))
    for case in map(small, jobs[:2]) if device.rehearse else jobs[:2]:
        step(f"{case.id}: generate and its gradients", generation(device, case))
    if failed:
        raise RuntimeError(f"failed: {', '.join(failed)}")


def small(case: cases.InversionCase) -> cases.InversionCase:
    """For a rehearsal; the numbers of units stay, which choose the kernel."""
    return replace(case, id=f"{case.id}-rehearsal", M=1, N=min(case.N, 9), T=4, I=2)


def spread(times: list[float]) -> str:
    """Median, and from the fastest to the slowest."""
    median = statistics.median(times)
    return f"{1e3 * median:.3g} ms ({1e3 * times[0]:.3g} to {1e3 * times[-1]:.3g})"


def peak_of_matmul(device: Device) -> float:
    """Reached float32 FMA rate, without tensor cores, in flop/s."""
    torch.backends.cuda.matmul.allow_tf32 = False
    n = 256 if device.rehearse else 8192
    a = torch.rand(n, n, device=device.name)
    return 2 * n**3 / statistics.median(device.seconds(lambda: a @ a, 3))


def problem_on(
    device: Device, case: cases.InversionCase, dtype: torch.dtype = torch.float32
) -> cases.InversionProblem:
    """The case's problem, moved."""
    problem = cases.make_problem(case)
    assert isinstance(problem, cases.InversionProblem)
    return cases.InversionProblem(
        case,
        problem.weights.to(device=device.name, dtype=dtype),
        problem.targets.to(device.name, dtype),
        problem.init.to(device.name, dtype),
    )


def inversions(
    device: Device,
    case: cases.InversionCase,
    solver: Any,
    peak: float | None,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], tuple[str, list[float]]]:
    """A search for all targets in all modules."""

    def run() -> tuple[str, list[float]]:
        p = problem_on(device, case, dtype)
        times = device.seconds(lambda: search(solver, p.weights, p.targets, p.init))
        taken = statistics.median(times)
        result = f"{case.amount / taken / 1e6:.4f} million inversions/s"
        if peak is not None:
            rate = case.flop / taken
            result += f", {rate / 1e12:.3f} TFLOP/s, {rate / peak:.1%} of the peak"
        return result, times

    return run


def peers(
    device: Device, case: cases.InversionCase
) -> list[tuple[str, Callable[[], tuple[str, list[float]]]]]:
    """The same job by others; of ``nn.LSTM`` one module, and the time for all is said."""

    def lstm(captured: bool) -> tuple[str, list[float]]:
        p = problem_on(device, case)
        module = pytorch.TorchModule(p.weights, 0).to(device.name).requires_grad_(False)

        def invert() -> Tensor:
            loss = pytorch.squared_error
            return pytorch.invert_batch(module, p.targets, p.init, case.I, loss)

        run: Callable[[], object] = invert
        if captured:
            graph = capture(invert)
            run = graph.replay
        times = device.seconds(run, 3)
        whole = statistics.median(times) * case.M
        return f"1 of {case.M} modules; {whole:.3f} s for all", times

    def jax() -> tuple[str, list[float]]:
        import jax

        if not device.rehearse and jax.default_backend() != "gpu":
            raise RuntimeError("JAX has no GPU here")
        problem = cases.make_problem(case)
        assert isinstance(problem, cases.InversionProblem)
        program, arguments = xla.Jax().inversion(problem)
        arguments = jax.device_put(arguments)
        times = device.seconds(lambda: program(*arguments).block_until_ready(), 3)
        return f"{case.M} modules", times

    result = [("nn.LSTM (cuDNN)", lambda: lstm(False))]
    if not device.rehearse:
        result.append(("nn.LSTM (cuDNN), captured in a graph", lambda: lstm(True)))
    if xla.Jax().available() is None:
        result.append(("JAX", jax))
    return result


def capture(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """A job as a CUDA graph, after the warm-up that torch asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def training(device: Device, fleet: cases.TrainingCase) -> Callable[[], tuple[str, list[float]]]:
    """A fleet; the paper's grid at that rate."""

    def run() -> tuple[str, list[float]]:
        case = (
            cases.shrink(replace(fleet, M=GRID_MODULES))
            if device.rehearse
            else replace(fleet, M=GRID_MODULES, E=1000)
        )
        p = cases.make_problem(case)
        assert isinstance(p, cases.TrainingProblem)
        weights = p.weights.to(device=device.name)
        on_device = tuple(t.to(device.name) for t in p.fleet)
        adam = (base.TRAIN_LR, base.TRAIN_BETA1, base.TRAIN_BETA2, base.EPS)
        settings = (p.case.E, *adam, 100, False)
        times = device.seconds(
            lambda: calls.train(weights, on_device, settings, Execution(), None), 3
        )
        rate = p.case.amount / statistics.median(times)
        grid = GRID_MODULES * GRID_EPISODES / rate
        return f"{rate / 1e3:.0f} thousand model-episodes/s; the grid in {grid:.0f} s", times

    return run


def generation(device: Device, case: cases.InversionCase) -> Callable[[], tuple[str, list[float]]]:
    """All targets drawn once, forward and backward."""

    def run() -> tuple[str, list[float]]:
        p = problem_on(device, case)
        leaves = [w.clone().requires_grad_(True) for w in p.weights]
        latents = torch.full((case.M, case.N, case.K), 1 / case.K, device=device.name)

        def both() -> None:
            drawn = torch.ops.micfast.generate(*leaves, latents, case.T)
            torch.autograd.grad(drawn.sum(), leaves)

        times = device.seconds(both)
        return f"{case.amount / statistics.median(times) / 1e6:.4f} million sequences/s", times

    return run
