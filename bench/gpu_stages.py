"""What ``gpu_check.py`` runs in processes of their own, which see the package it built.

    python -P bench/gpu_stages.py STAGE FOLDER ROWS [--rehearse]

``FOLDER`` holds the package, ``ROWS`` is the file to which rows are appended, a JSON object a line.
In a rehearsal the CPU plays the GPU (tests/cpp/emulated_device.h).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
# A job like those of serious work: several pairs a block, and a tape that only global memory holds.
LEAST_PAIRS, LEAST_STEPS = 4000, 40
LARGE_TARGETS, LARGE_STEPS = 2003, 40
# So many that a thread takes two of them (csrc/cuda/kernels.cu, run_by_threads); on the emulated
# device fewer are enough.
VERY_MANY_TARGETS, VERY_MANY_EMULATED = 60_000, 1100
# Of an error, against the float64 reference: what tests/test_cuda.py allows after 50 iterations.
ABSOLUTE, RELATIVE = 1e-4, 1e-2


def check_origin(folder: Path) -> str:
    """Fail unless micfast and its CUDA kernels come from this folder."""
    import micfast

    _check_file(micfast, folder)
    import micfast._cuda as kernels

    file = _check_file(kernels, folder)
    where = file.relative_to(folder.resolve())
    return f"micfast {micfast.__version__}, kernels by {kernels.compiler}, from {where}"


def _check_file(module: ModuleType, folder: Path) -> Path:
    file = Path(str(module.__file__)).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise RuntimeError(f"{file} is not in {folder}, where the package was built")
    return file


@dataclass
class Device:
    """The GPU, or the CPU that plays it; counts what its kernels ask for."""

    rehearse: bool
    kernels: ModuleType | None = None  # where it is played
    most_wanted: int = 0  # bytes of workspace, since last set to 0

    @property
    def name(self) -> str:
        """Torch's."""
        return "cpu" if self.rehearse else "cuda"

    def __getattr__(self, kernel: str) -> Callable[..., int]:
        """A kernel, watched; this object stands in for the extension."""
        from micfast.kernels import backend

        run = getattr(self.kernels or backend.cuda_extension(), kernel)

        def watched(*arguments: Any) -> int:
            wanted = run(*arguments)
            self.most_wanted = max(self.most_wanted, wanted)
            return wanted

        return watched

    @contextlib.contextmanager
    def running(self, **settings: object) -> Iterator[None]:
        """Let micfast's work run here; ``settings`` are the emulation's."""
        from micfast.kernels import launch

        if self.rehearse:
            from emulation import emulated

            with emulated(self, **settings):  # type: ignore[arg-type]
                yield
            return
        before = launch.launch_cuda
        launch.launch_cuda = lambda _, *arguments: before(self, *arguments)  # type: ignore
        try:
            yield
        finally:
            launch.launch_cuda = before

    def finish(self) -> None:
        """Wait for the GPU."""
        if not self.rehearse:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], samples: int = 7) -> list[float]:
        """Sorted times of a job after a warm-up; by CUDA's events on a GPU. Stops after 20 s."""
        run()
        self.finish()
        times: list[float] = []
        while len(times) < samples and sum(times) < 20:
            if self.rehearse:
                begin = time.perf_counter()
                run()
                times.append(time.perf_counter() - begin)
                continue
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            run()
            events[1].record()
            events[1].synchronize()
            times.append(events[0].elapsed_time(events[1]) / 1000)
        return sorted(times)


def search(solver: Any, weights: Any, targets: Tensor, init: Tensor) -> Any:
    """One search on the device, without a copy from it or to it."""
    from micfast import Execution

    starts = init[:, :, None] if init.dim() == 3 else init
    options = {"history": False, "omit_nan": False, "execution": Execution(), "report": None}
    return solver.search(weights, targets, starts, **options)


def verify(device: Device, H: int, n_iter: int) -> str:
    """Hold large searches to small ones, bit for bit, and to the float64 reference."""
    from micfast import Adam, LevenbergMarquardt

    problem = large_problem(H, LARGE_TARGETS, n_iter)
    case = problem.case
    if case.M * case.N < LEAST_PAIRS or case.T < LEAST_STEPS:
        raise RuntimeError(
            f"verified with {case.M * case.N} pairs of {case.T} steps, which is not how serious "
            f"work runs: at least {LEAST_PAIRS} and {LEAST_STEPS}"
        )
    tape = 4 * case.T * H * (128 // H)  # of one gate, for a block's pairs
    adam = held(device, Adam(n_iter), problem, 4 * tape)
    lm = held(device, LevenbergMarquardt(min(2, n_iter)), problem, 0)
    return (
        f"{case.M * case.N} pairs of {case.T} steps: small N equal bit for bit; largest difference "
        f"of errors to float64: Adam {adam:.1g}, LM {lm:.1g}"
    )


def verify_very_many(device: Device, H: int, n_iter: int) -> str:
    """The same where a thread takes whole targets."""
    from micfast import Adam

    N = VERY_MANY_EMULATED if device.rehearse else VERY_MANY_TARGETS
    problem = large_problem(H, N, n_iter)
    case = problem.case
    difference = held(device, Adam(n_iter), problem, 20 * case.T * H * 128)
    return (
        f"{case.M * case.N} pairs of {case.T} steps by threads: small N equal bit for bit; largest "
        f"difference of errors to float64: {difference:.1g}"
    )


def large_problem(H: int, N: int, n_iter: int) -> Any:
    """Two modules and N targets."""
    from bench import cases

    return cases.make_problem(
        cases.InversionCase("large", M=2, N=N, H=H, K=4, O=3, T=LARGE_STEPS, I=n_iter)
    )


def held(device: Device, solver: Any, problem: Any, least_workspace: int) -> float:
    """Hold a search to small ones and to the reference; the largest difference of errors."""
    from micfast import Adam
    from micfast.kernels import reference

    weights = problem.weights.to(device=device.name)
    targets, init = problem.targets.to(device.name), problem.init.to(device.name)
    chosen = [0, 1, 12, 700, problem.case.N - 1]
    device.most_wanted = 0
    large = search(solver, weights, targets, init)
    if device.most_wanted < least_workspace:
        raise RuntimeError(
            f"the kernel asked for {device.most_wanted} bytes, too few for a tape in global "
            "memory: this is not how serious work runs"
        )
    few = search(solver, weights, targets[chosen], init)
    alone = search(solver, weights[1:], targets[chosen[-1:]], init)
    for name in ("errors", "latents", "n_iter_used"):
        together = getattr(large, name)[:, chosen]
        if not torch.equal(getattr(few, name), together):
            raise RuntimeError(f"{solver}: {name} of a few targets are not those among many")
        if not torch.equal(getattr(alone, name)[0, 0], together[1, -1]):
            raise RuntimeError(f"{solver}: {name} of one target are not those among many")
    got = few.errors[:, :, 0].cpu().double()
    double = problem.double()
    if not isinstance(solver, Adam):  # its way turns at roundings; its errors must be true
        latents = few.latents[:, :, 0].cpu().double()
        drawn = reference.generate(double.weights, latents, problem.case.T)
        want = reference.mean_squared_error(drawn, double.targets[chosen])
    else:
        n_iter = problem.case.I
        found = reference.invert(double.weights, double.targets[chosen], double.init, n_iter)
        want = found.errors.reshape(got.shape)
    difference = (got - want).abs()
    if not bool((difference <= ABSOLUTE + RELATIVE * want).all()):
        raise RuntimeError(
            f"{solver}: errors are up to {float(difference.max()):.2g} from the reference's"
        )
    return float(difference.max())


def orders(device: Device) -> str:
    """Run every kernel with the threads of a block in several orders (rehearsal only)."""
    from emulation import ORDERS

    results = []
    for order in ORDERS:
        with device.running(order=order, blocks=1):
            results.append(run_every_kernel("cpu"))
    for order, result in zip(ORDERS[1:], results[1:], strict=True):
        for a, b in zip(result, results[0], strict=True):
            if not torch.equal(a, b):
                raise RuntimeError(f"threads in the order {order!r} give other bits")
    return f"the same bits in {len(ORDERS)} orders of the threads"


def run_every_kernel(device: str) -> list[Tensor]:
    """Small jobs, one for each kernel: what the sanitizers look at."""
    importlib.import_module("micfast.kernels.calls")  # registers the operators
    torch.manual_seed(0)
    ops, results = torch.ops.micfast, []
    for H, dtype in ((5, torch.float64), (10, torch.float32), (20, torch.float32)):
        kind = {"device": device, "dtype": dtype}
        shapes = ((4 * H, 4), (4 * H, H), (4 * H,), (3, H), (3,))
        weights = [(torch.rand(2, *s, dtype=dtype) - 0.5).to(device) for s in shapes]
        targets = torch.randn(29, 6, 3, dtype=dtype).to(device)
        init = torch.full((1, 1, 1, 4), 0.25, **kind)
        results += ops.invert(*weights, targets, init, 3, 0.05, 0.9, 0.99, 1e-8, False, False, 0.0)
        results += ops.invert_lm(*weights, targets, init, 2, 0.1, True, False, 0.0)
        types = torch.randn(1, 4, 1, 6, 3, dtype=dtype).to(device)
        index = torch.arange(2, device=device)
        noise = torch.full((2, 2), 0.1, dtype=torch.float64, device=device)
        fleet = (types, 0 * index, *noise, index)
        results += ops.train(*weights, *fleet, 3, 0.01, 0.9, 0.999, 1e-8, 100)
        leaves = [w.requires_grad_() for w in weights]
        latents = torch.rand(2, 70, 4, dtype=dtype).to(device)
        drawn = ops.generate(*leaves, latents, 6)
        results += [drawn.detach(), *torch.autograd.grad(drawn.sum(), leaves)]
    return results


def run_for_profile(device: Device) -> None:
    """Jobs of serious size and few iterations, one launch for each kernel and mapping."""
    from bench import cases
    from micfast import Adam, Execution, LevenbergMarquardt
    from micfast.kernels import calls

    for case, many in ((cases.CHARACTERS, 20_000), (cases.MNIST, 20_000)):
        for solver, n in ((Adam(2), case.N), (Adam(2), many), (LevenbergMarquardt(2), case.N)):
            problem = cases.make_problem(replace(case, N=n))
            assert isinstance(problem, cases.InversionProblem)
            weights = problem.weights.to(device=device.name)
            search(solver, weights, problem.targets.to(device.name), problem.init.to(device.name))
    fleet = cases.make_problem(replace(cases.CHARACTERS_FLEET, M=360))
    assert isinstance(fleet, cases.TrainingProblem)
    weights = fleet.weights.to(device=device.name)
    on_device = tuple(t.to(device.name) for t in fleet.fleet)
    settings = (2, 0.01, 0.9, 0.999, 1e-8, 100, False)
    calls.train(weights, on_device, settings, Execution(), None)
    leaves = [w.clone().requires_grad_(True) for w in weights]
    latents = torch.full((360, 20, 4), 0.25, device=device.name)
    drawn = torch.ops.micfast.generate(*leaves, latents, cases.CHARACTERS.T)
    torch.autograd.grad(drawn.sum(), leaves)


def concurrent(device: Device) -> str:
    """Two threads, each on a stream of its own, get what one gets alone."""
    from bench import cases
    from micfast import Adam

    problem = cases.make_problem(replace(cases.shrink(cases.CHARACTERS), N=300, T=9))
    assert isinstance(problem, cases.InversionProblem)
    weights = problem.weights.to(device=device.name)
    targets, init = problem.targets.to(device.name), problem.init.to(device.name)
    solvers = [Adam(2), Adam(3)]
    want = [search(solver, weights, targets, init).errors for solver in solvers]
    got: list[Any] = [None, None]

    def work(i: int) -> None:
        stream = (
            contextlib.nullcontext() if device.rehearse else torch.cuda.stream(torch.cuda.Stream())
        )
        with stream:
            for _ in range(2):
                got[i] = search(solvers[i], weights, targets, init).errors
        device.finish()

    device.finish()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not all(map(torch.equal, got, want)):
        raise RuntimeError("two threads at once do not get what one gets alone")
    return "two threads at once get the same bits as one"


def main() -> int:
    """Run a stage; the last line of a failure is its reason."""
    stage, folder, rows = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    device = Device("--rehearse" in sys.argv)
    origin = check_origin(folder)
    sys.path += [str(ROOT), str(ROOT / "tests")]  # for bench and the emulation, not for micfast
    if device.rehearse:
        from emulation import load_module

        device.kernels = load_module(next(folder.glob("micfast/_cuda*.so")))

    def add(step: str, result: str, **numbers: Any) -> None:
        with rows.open("a") as file:
            file.write(json.dumps({"step": step, "result": result, **numbers}) + "\n")
        print(f"{step}: {result}", flush=True)

    if stage == "origin":
        add(stage, origin)
    elif stage == "orders":
        add(stage, orders(device))
    elif stage == "everything":  # below a sanitizer or a profiler
        with device.running():
            run_every_kernel(device.name)
            device.finish()
        add(stage, "every kernel ran")
    elif stage == "profile":
        run_for_profile(device)
        device.finish()
        add(stage, "serious jobs ran")
    elif stage == "verify":
        n_iter = 1 if device.rehearse else 50
        with device.running(blocks=1000):  # too many for a thread to take whole targets
            for H in (10,) if device.rehearse else (10, 20):
                add(f"verified, H={H}", verify(device, H, n_iter))
        with device.running():
            for H in (10, 20):
                add(f"verified by threads, H={H}", verify_very_many(device, H, n_iter))
            add("concurrent", concurrent(device))
    elif stage == "measure":
        from bench import gpu_measure

        with device.running():
            gpu_measure.measure(device, add)
    else:
        raise ValueError(f"no stage {stage!r}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
