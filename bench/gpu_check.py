"""Everything that wants a GPU, in one command: build, verify, measure.

    python bench/gpu_check.py                # nvcc, torch, pybind11, scikit-build-core; no network
    python bench/gpu_check.py --rehearse     # the same at toy size, on the installed CPU kernels

Builds the package with ``MICFAST_CUDA=ON`` into a temporary folder, runs the tests of the CUDA
kernels and, where it is installed, ``compute-sanitizer``; then measures micfast beside cuDNN's
``nn.LSTM`` (all targets of a module as one batch), the same through ``torch.compile`` and JAX.
Every step has a time limit, so that the whole ends within nine minutes; what a limit cut off is
said. The table comes last, and all numbers go to ``$OUT/gpu_check.json`` (default: this folder's
``results``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOTAL_SECONDS = 520
# The paper's grid: 20 letters, clustered and random types, 9 settings of noise.
GRID_MODULES, GRID_EPISODES = 360, 40000
N_LARGE = 100_000


class Check:
    """What was done, and what is left of the time."""

    def __init__(self, rehearse: bool) -> None:
        self.rehearse = rehearse
        self.started = time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.failed = False

    def left(self) -> float:
        """Seconds."""
        return TOTAL_SECONDS - (time.monotonic() - self.started)

    def say(self, text: str) -> None:
        """Print with the seconds since the start."""
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)

    def step(self, name: str, run: Callable[[], str], *, needs: float) -> None:
        """Run a step unless too little time is left; a failure is recorded and others go on."""
        if self.left() < needs:
            self.add(name, f"left out: {self.left():.0f} s were left of {TOTAL_SECONDS}")
            return
        self.say(f"== {name}")
        try:
            self.add(name, run())
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            self.add(name, f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:200]}")

    def add(self, name: str, result: str, **numbers: Any) -> None:
        """Record and print a row."""
        self.rows.append({"step": name, "result": result, **numbers})
        self.say(f"{name}: {result}")


def build(check: Check, folder: Path) -> str:
    """Install this checkout with its CUDA kernels into a folder."""
    if check.rehearse:
        return "left out: the installed package as it is"
    environment = os.environ | {"MICFAST_CUDA": "ON"}
    environment.setdefault("CUDAARCHS", "90")
    begin = time.monotonic()
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--target", str(folder), str(ROOT)),
        ],
        check=True,
        env=environment,
        timeout=240,
    )
    return f"built in {time.monotonic() - begin:.0f} s"


def run_python(check: Check, folder: Path, command: list[str], limit: float) -> str:
    """Output of a program that sees the package built; raises unless it ends with 0."""
    finished = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ if check.rehearse else os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=max(10, min(limit, check.left())),
    )
    print(finished.stdout[-3000:])
    if finished.returncode != 0:
        raise RuntimeError((finished.stdout or finished.stderr).strip().splitlines()[-1])
    return finished.stdout.strip().splitlines()[-1]


def run_tests(check: Check, folder: Path) -> str:
    """The CUDA kernels' tests, on the device where there is one."""
    choice = "emulated and train_reports" if check.rehearse else "not emulated"
    tests = ["tests/test_cuda.py", "-m", "", "-k", choice]
    command = [sys.executable, "-P", "-m", "pytest", "-q", *tests]
    return run_python(check, folder, command, 180)


SANITIZED = """
import torch
from micfast import Weights
from micfast.kernels import calls, operators
ops = torch.ops.micfast
torch.manual_seed(0)
for H in (5, 10, 20):
    w = [torch.randn(2, *s, device="cuda") for s in ((4*H, 4), (4*H, H), (4*H,), (3, H), (3,))]
    x, z = torch.randn(13, 6, 3, device="cuda"), torch.full((1, 1, 1, 4), 0.25, device="cuda")
    ops.invert(*w, x, z, 3, 0.05, 0.9, 0.99, 1e-8, False, False, 0.0)
    ops.invert_lm(*w, x, z, 2, 0.1, True, False, 0.0)
    types, index = torch.randn(1, 4, 1, 6, 3, device="cuda"), torch.arange(2, device="cuda")
    noise = torch.full((2, 2), 0.1, dtype=torch.float64, device="cuda")
    ops.train(*w, types, 0 * index, *noise, index, 3, 0.01, 0.9, 0.999, 1e-8, 100)
    leaf = [t.requires_grad_() for t in w]
    ops.generate(*leaf, torch.rand(2, 70, 4, device="cuda"), 6).sum().backward()
torch.cuda.synchronize()
"""


def sanitize(check: Check, folder: Path, tool: str) -> str:
    """Run small shapes under a tool of compute-sanitizer."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return "compute-sanitizer is not installed"
    command = [
        program,
        "--tool",
        tool,
        "--error-exitcode",
        "9",
        sys.executable,
        "-P",
        "-c",
        SANITIZED,
    ]
    return run_python(check, folder, command, 90)


def measure(check: Check) -> None:
    """Times of whole jobs, beside the peers'. The package built before is on the path by now."""
    import torch

    from bench import cases
    from bench.peers import base, pytorch, xla
    from micfast import Adam, Execution, LevenbergMarquardt, Weights
    from micfast.kernels import calls, reference

    device = "cpu" if check.rehearse else "cuda"

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def seconds(run: Callable[[], object], samples: int = 3) -> float:
        """The median; the first run is a warm-up."""
        times = []
        for _ in range(samples + 1):
            finish()
            begin = time.perf_counter()
            run()
            finish()
            times.append(time.perf_counter() - begin)
            if times[-1] > 20:
                break
        return sorted(times[1:] or times)[len(times[1:]) // 2]

    def move(tensors: Any) -> list[Any]:
        return [t.to(device) for t in tensors]

    def search(solver: Any, weights: Weights, targets: Any, init: Any) -> Any:
        """One search on the device, without a copy from it or to it."""
        starts = init[:, :, None]
        options = {"history": False, "omit_nan": False, "execution": Execution(), "report": None}
        return solver.search(weights, targets, starts, **options)

    def matmul_peak() -> float:
        """Reached float32 FMA rate, without tensor cores, in flop/s."""
        torch.backends.cuda.matmul.allow_tf32 = False
        n = 256 if check.rehearse else 8192
        a = torch.rand(n, n, device=device)
        return 2 * n**3 / seconds(lambda: a @ a)

    peak = 0.0

    def peak_step() -> str:
        nonlocal peak
        peak = matmul_peak()
        return f"{peak / 1e12:.2f} TFLOP/s in a float32 matrix product"

    check.step("float32 peak reached", peak_step, needs=20)
    jobs = [cases.CHARACTERS, cases.MNIST]
    jobs += [replace(case, id=f"{case.id}-N{N_LARGE}", N=N_LARGE) for case in jobs]
    for case in map(cases.shrink, jobs) if check.rehearse else jobs:
        problem = cases.make_problem(case)
        assert isinstance(problem, cases.InversionProblem)
        weights = problem.weights.to(device=device)
        targets, init = move((problem.targets, problem.init))
        ours = 0.0

        def verify(problem: Any = problem) -> str:
            few = problem.part(2, 20)
            found = search(
                Adam(few.case.I), few.weights.to(device=device), *move((few.targets, few.init))
            )
            double = few.double()
            want = reference.invert(double.weights, double.targets, double.init, few.case.I)
            errors = found.errors[:, :, 0].cpu().double()
            difference = float((errors - want.errors).abs().median())
            if not difference < 1e-4:
                raise RuntimeError(f"median difference of errors {difference:.2g}")
            return f"median difference of errors to float64 {difference:.1g}"

        def measure_ours(
            case: Any = case, weights: Any = weights, targets: Any = targets, init: Any = init
        ) -> str:
            nonlocal ours
            ours = seconds(lambda: search(Adam(case.I), weights, targets, init))
            share = case.flop / ours / peak if peak else float("nan")
            lm = seconds(lambda: search(LevenbergMarquardt(8), weights, targets, init))
            return (
                f"{1e3 * ours:.1f} ms, {case.amount / ours / case.M / 1e3:.1f} thousand targets/s "
                f"in {case.M} modules, {case.amount / ours / 1e6:.3f} million inversions/s, "
                f"{case.flop / ours / 1e12:.2f} TFLOP/s, {share:.1%} of the peak; "
                f"LM of 8 steps {1e3 * lm:.1f} ms"
            )

        check.step(f"{case.id}: verified", verify, needs=20)
        check.step(f"{case.id}: micfast", measure_ours, needs=30)
        if case.N > 10_000 or not ours:
            continue

        def peer(run: Callable[[], object], part: int, case: Any, ours: float) -> str:
            time_of_part = seconds(run, 2)
            whole = time_of_part * case.M / part
            return f"{whole:.2f} s (from {part} of {case.M} modules): {whole / ours:.0f} x micfast"

        def lstm(loss: Any, problem: Any = problem) -> object:
            on_device = pytorch.TorchModule(problem.weights, 0).to(device).requires_grad_(False)
            return pytorch.invert_batch(
                on_device, problem.targets.to(device), problem.init.to(device), problem.case.I, loss
            )

        check.step(
            f"{case.id}: nn.LSTM (cuDNN)",
            lambda case=case, ours=ours, lstm=lstm: peer(
                lambda: lstm(pytorch.squared_error), 1, case, ours
            ),
            needs=40,
        )
        if not check.rehearse:
            check.step(
                f"{case.id}: torch.compile of it",
                lambda case=case, ours=ours, lstm=lstm: peer(
                    lambda: lstm(torch.compile(pytorch.squared_error)), 1, case, ours
                ),
                needs=90,
            )

        def jax_step(problem: Any = problem, case: Any = case, ours: float = ours) -> str:
            try:
                import jax
            except ImportError:
                return "JAX is not installed"
            if not check.rehearse and jax.default_backend() != "gpu":
                return "JAX has no GPU here"
            contender = xla.Jax()
            contender.prepare(problem, 1)
            return peer(lambda: contender.invert(problem), case.M, case, ours)

        check.step(f"{case.id}: JAX", jax_step, needs=60)

    def training() -> str:
        case = replace(
            cases.CHARACTERS_FLEET, id="grid", M=GRID_MODULES, E=1000 if device == "cuda" else 4
        )
        problem = cases.make_problem(cases.shrink(case) if check.rehearse else case)
        assert isinstance(problem, cases.TrainingProblem)
        weights, fleet = problem.weights.to(device=device), tuple(move(problem.fleet))
        adam = (base.TRAIN_LR, base.TRAIN_BETA1, base.TRAIN_BETA2, base.EPS)
        settings = (problem.case.E, *adam, 100, False)
        taken = seconds(lambda: calls.train(weights, fleet, settings, Execution(), None), 2)
        rate = problem.case.amount / taken
        return (
            f"{rate / 1e3:.0f} thousand model-episodes/s; the grid of {GRID_MODULES} modules x "
            f"{GRID_EPISODES} episodes in {GRID_MODULES * GRID_EPISODES / rate:.1f} s"
        )

    check.step("training of the characters grid", training, needs=30)


def main() -> int:
    """Run everything, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="toy sizes, no GPU")
    options = parser.parse_args()
    check = Check(options.rehearse)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        check.step("build", lambda: build(check, folder), needs=0)
        if not check.failed:
            sys.path.insert(0, str(folder))
            sys.path.append(str(ROOT))  # for bench; its micfast has no kernels
            check.step("tests", lambda: run_tests(check, folder), needs=30)
            if not options.rehearse:
                for tool in ("memcheck", "racecheck"):
                    check.step(tool, lambda tool=tool: sanitize(check, folder, tool), needs=30)
            measure(check)
    machine: dict[str, Any] = {"rehearsal": options.rehearse}
    if not options.rehearse:
        import torch

        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            machine |= {
                "gpu": properties.name,
                "multiprocessors": properties.multi_processor_count,
                "memory_gib": round(properties.total_memory / 2**30, 1),
            }
        machine |= {"torch": torch.__version__, "cuda": torch.version.cuda}
    out = Path(os.environ.get("OUT") or ROOT / "bench" / "results")
    if not options.rehearse or os.environ.get("OUT"):
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine, "steps": check.rows}, indent=1)
        (out / "gpu_check.json").write_text(text + "\n")
    print(f"\n{json.dumps(machine)}\n\n| step | result |\n| --- | --- |")
    for row in check.rows:
        print(f"| {row['step']} | {row['result']} |")
    return int(check.failed)


if __name__ == "__main__":
    raise SystemExit(main())
