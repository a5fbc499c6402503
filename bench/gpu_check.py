"""Everything that wants a GPU, in one command: build, test, verify, measure, sanitize, profile.

    python -m bench.gpu_check                # nvcc, torch, pybind11, scikit-build-core; no network
    python -m bench.gpu_check --rehearse     # the same script, the CPU playing the GPU

Builds the package with ``MICFAST_CUDA=ON`` into a temporary folder; every step is a process of its
own that takes micfast from there and says so. A step that fails, is cut off or left out, or a test
that is skipped, makes the exit code 1. The table comes last, and all numbers go to
``$OUT/gpu_check.json`` (default: ``results/cuda``).

``--package FOLDER`` takes a package that is installed there already, for a second look within a
short lease. A rehearsal runs every step that can run without a GPU, at toy size, on the emulated
device (tests/cpp/emulated_device.h), and names the others.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STAGES = ROOT / "bench" / "gpu_stages.py"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
# What ncu tells of a launch, by its own names.
PROFILED = (
    "Duration",
    "Compute (SM) Throughput",
    "Memory Throughput",
    "Issue Slots Busy",
    "Executed Ipc Active",
    "Achieved Occupancy",
    "Registers Per Thread",
    "Eligible Warps Per Scheduler",
    "DRAM Throughput",
    "L1/TEX Hit Rate",
    "L2 Hit Rate",
)
# Of the tests, on the emulated device: two; all of them take minutes (pytest -m slow).
REHEARSED_TESTS = "emulated and (stops_by_tol or train_reports)"


class Check:
    """What was done, and what is left of the time."""

    def __init__(self, rehearse: bool, total_seconds: float, folder: Path) -> None:
        self.rehearse, self.total_seconds, self.folder = rehearse, total_seconds, folder
        self.started = time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.failed = False

    def left(self) -> float:
        """Seconds."""
        return self.total_seconds - (time.monotonic() - self.started)

    def say(self, text: str) -> None:
        """Print with the seconds since the start."""
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", flush=True)

    def add(self, step: str, result: str, **numbers: Any) -> None:
        """Record and print a row."""
        self.rows.append({"step": step, "result": result, **numbers})
        self.say(f"{step}: {result}")

    def step(self, name: str, run: Callable[[], str], *, needs: float = 10) -> None:
        """Run a step; a failure, or too little time, is recorded, and others go on."""
        self.say(f"== {name}")
        if self.left() < needs:
            self.failed = True
            self.add(name, f"FAILED: left out, {self.left():.0f} s were left")
            return
        try:
            self.add(name, run())
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            reason = (str(error).splitlines() or [""])[0][:300]
            self.add(name, f"FAILED: {type(error).__name__}: {reason}")

    def only_on_gpu(self, name: str, run: Callable[[], str], *, needs: float = 10) -> None:
        """A step that nothing here can stand in for."""
        if self.rehearse:
            self.add(name, "only on a GPU")
        else:
            self.step(name, run, needs=needs)


def environment(check: Check) -> dict[str, str]:
    """Of a process that takes micfast from the folder built, and from nowhere else."""
    # JAX is to share the GPU, and must not fall back to the CPU.
    jax = {
        "JAX_PLATFORMS": "cpu" if check.rehearse else "cuda",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    return os.environ | jax | {"PYTHONPATH": str(check.folder), "PYTHONSAFEPATH": "1"}


def build(check: Check, emulated: Path | None, package: Path | None = None) -> str:
    """Install this checkout with its CUDA kernels into the folder."""
    begin = time.monotonic()
    if package is not None:
        shutil.copytree(package, check.folder, dirs_exist_ok=True)
        return "taken as it was installed"
    if check.rehearse:
        package = check.folder / "micfast"
        shutil.copytree(ROOT / "micfast", package, ignore=shutil.ignore_patterns("__pycache__"))
        for file in package.glob("_cuda*.so"):
            file.unlink()
        if emulated is not None:
            shutil.copy(emulated, package / "_cuda.so")
        else:
            sys.path.append(str(ROOT / "tests"))
            import emulation

            emulation.compile_module(package / "_cuda.so")
    else:
        options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        target = ["--target", str(check.folder), str(ROOT)]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, *target],
            check=True,
            env=os.environ | {"MICFAST_CUDA": "ON", "CUDAARCHS": os.environ.get("CUDAARCHS", "90")},
            timeout=300,
        )
    return f"built in {time.monotonic() - begin:.0f} s"


def run(check: Check, command: list[str], limit: float, **more: str) -> str:
    """Output of a process that sees the package built; raises unless it ends with 0."""
    allowed = max(10, min(limit, check.left()))
    try:
        finished = subprocess.run(
            command,
            cwd=check.folder,
            env=environment(check) | more,
            capture_output=True,
            text=True,
            timeout=allowed,
        )
    except subprocess.TimeoutExpired as late:
        for output in (late.stdout, late.stderr):
            print((output or b"").decode(errors="replace")[-4000:], flush=True)
        raise RuntimeError(f"cut off after {allowed:.0f} s") from None
    print(finished.stdout[-4000:], flush=True)
    if finished.returncode != 0:
        print(finished.stderr[-4000:], flush=True)
        raise RuntimeError((finished.stderr or finished.stdout).strip().splitlines()[-1])
    return finished.stdout


def stage(
    check: Check, name: str, limit: float, before: list[str] | None = None, **more: str
) -> str:
    """Run a stage of gpu_stages.py; its rows are recorded, also those before a failure."""
    rows = check.folder / f"{name}.jsonl"
    rows.unlink(missing_ok=True)
    command = [*(before or []), sys.executable, "-P", str(STAGES), name, str(check.folder)]
    command += [str(rows), *(["--rehearse"] if check.rehearse else [])]
    try:
        run(check, command, limit, **more)
    finally:
        lines = rows.read_text().splitlines() if rows.exists() else []
        for line in lines:
            check.rows.append(json.loads(line))
    if not lines:
        raise RuntimeError(f"the stage {name} recorded nothing")
    return json.loads(lines[-1])["result"] if len(lines) == 1 else f"{len(lines)} rows"


def tests(check: Check, choice: str) -> str:
    """The CUDA kernels' tests; one that is skipped has not passed."""
    report = check.folder / "tests.xml"
    module = next(check.folder.glob("micfast/_cuda*.so"))
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [str(ROOT / "tests/test_cuda.py"), "-m", "", "-k", choice, f"--junitxml={report}"]
    more = {"MICFAST_EMULATED_MODULE": str(module)} if check.rehearse else {}
    if not check.rehearse and importlib.util.find_spec("xdist") is not None:
        command += ["-n", "8"]
        more["OMP_NUM_THREADS"] = "1"  # of each; the reference runs on the CPU
    run(check, command, 240, **more)
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    n = {key: int(suite.get(key, 0)) for key in ("tests", "skipped", "failures", "errors")}
    if n["tests"] == 0 or n["skipped"] or n["failures"] or n["errors"]:
        raise RuntimeError(f"{n['skipped']} of {n['tests']} tests were skipped: {choice!r}")
    return f"{n['tests']} tests passed, none was skipped"


def sanitize(check: Check, tool: str) -> str:
    """Every kernel under a tool of compute-sanitizer."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise RuntimeError("compute-sanitizer is not installed")
    before = [program, "--tool", tool, "--error-exitcode", "9"]
    if tool != "initcheck":  # it must see torch's kernels write what ours read
        before += ["--kernel-name", "kernel_substring=micfast"]
    # Every tensor an allocation of its own, so that a step past its end shows.
    return stage(check, "everything", 120, before, PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def profile(check: Check) -> str:
    """Serious jobs of few iterations under ncu, where there is one."""
    program = shutil.which("ncu")
    if program is None:
        return "ncu is not installed"
    log = check.folder / "ncu.csv"
    sections = ["SpeedOfLight", "WarpStateStats", "SchedulerStats", "MemoryWorkloadAnalysis"]
    sections += [
        "Occupancy",
        "LaunchStats",
        "ComputeWorkloadAnalysis",
        "MemoryWorkloadAnalysis_Tables",
    ]
    before = [program, "--csv", "--page", "details", "--log-file", str(log)]
    before += ["--clock-control", "none", "--kernel-name", "regex:(search|train|generate).*kernel"]
    before += [word for section in sections for word in ("--section", section)]
    try:
        stage(check, "profile", 150, before)
    finally:
        if log.exists() and os.environ.get("OUT"):
            shutil.copy(log, os.environ["OUT"])
    launches = read_profile(log)
    for name, numbers in launches:
        text = ", ".join(f"{key} {value}" for key, value in numbers.items())
        check.add(f"profile of {name}", text, **{"profile": numbers})
    return f"{len(launches)} launches"


def read_profile(log: Path) -> list[tuple[str, dict[str, str]]]:
    """What ncu wrote of each launch: the kernel's name and grid, and the numbers of PROFILED."""
    lines = [line for line in log.read_text().splitlines() if line.startswith('"')]
    launches: dict[str, tuple[str, dict[str, str]]] = {}
    for row in csv.DictReader(lines):
        name = f"{row['Kernel Name']} {row.get('Grid Size', '')}"
        _, numbers = launches.setdefault(row["ID"], (name, {}))
        if row["Metric Name"] in PROFILED:
            numbers[row["Metric Name"]] = f"{row['Metric Value']} {row['Metric Unit']}".strip()
    if not launches:
        raise RuntimeError("ncu saw no launch")
    return list(launches.values())


def machine(check: Check) -> dict[str, Any]:
    """The GPU with its driver and clocks, as nvidia-smi tells."""
    if check.rehearse:
        return {"rehearsal": True}
    keys = ["name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem"]
    keys += ["power.limit", "temperature.gpu"]
    query = ["nvidia-smi", f"--query-gpu={','.join(keys)}", "--format=csv,noheader"]
    text = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    return dict(zip(keys, (word.strip() for word in text.splitlines()[0].split(",")), strict=True))


def check_everything(
    check: Check, emulated: Path | None = None, package: Path | None = None
) -> None:
    """All steps, in the order of their worth where time runs out: measured before sanitized."""
    limit = 3600.0 if check.rehearse else 240.0
    check.step("build", lambda: build(check, emulated, package), needs=0)
    if check.failed:
        return
    check.step("origin", lambda: stage(check, "origin", limit))
    choice = REHEARSED_TESTS if check.rehearse else "not emulated"
    check.step("tests", lambda: tests(check, choice))
    check.step("verify", lambda: stage(check, "verify", limit))
    check.only_on_gpu("clocks before", lambda: json.dumps(machine(check)))
    check.step("measure", lambda: stage(check, "measure", limit))
    check.only_on_gpu("clocks after", lambda: json.dumps(machine(check)))
    if check.rehearse:
        check.step("every kernel", lambda: stage(check, "everything", limit))
        check.step("orders of threads", lambda: stage(check, "orders", limit))
    for tool in SANITIZERS:
        check.only_on_gpu(tool, lambda tool=tool: sanitize(check, tool), needs=30)
    check.only_on_gpu("profile", lambda: profile(check), needs=30)


def table(rows: list[dict[str, Any]]) -> str:
    """Steps and results."""
    lines = [f"| {row['step']} | {row['result']} |" for row in rows]
    return "\n".join(["| step | result |", "| --- | --- |", *lines])


def main(arguments: list[str] | None = None) -> int:
    """Run everything, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="toy sizes, no GPU")
    parser.add_argument("--seconds", type=float, default=520, help="of a run on a GPU in all")
    parser.add_argument("--emulated", type=Path, help="a compiled emulation, for a rehearsal")
    parser.add_argument("--package", type=Path, help="an installed package, instead of a build")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        seconds = 3600 if options.rehearse else options.seconds
        check = Check(options.rehearse, seconds, Path(temporary))
        check_everything(check, options.emulated, options.package)
    out = Path(os.environ.get("OUT") or ROOT / "bench" / "results" / "cuda")
    if not options.rehearse or os.environ.get("OUT"):
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"rehearsal": check.rehearse, "steps": check.rows}, indent=1)
        (out / "gpu_check.json").write_text(text + "\n")
    print("\n" + table(check.rows))
    return int(check.failed)


if __name__ == "__main__":
    raise SystemExit(main())
