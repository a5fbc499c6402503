"""The machine a result comes from, its peak of float32 FMA, and how many threads run on it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import micfast
from micfast.runtime import checkout_problem, n_processors

_SOURCE = Path(__file__).with_name("fma_peak.cpp")
_FLAGS = {
    "avx512": ["-DBYTES=64", "-mavx512f"],
    "avx2": ["-DBYTES=32", "-mavx2", "-mfma"],
    "neon": ["-DBYTES=16"],
    "baseline": ["-DBYTES=16"],
}


def describe() -> dict[str, Any]:
    """CPU, cores, versions, compiler, commit: what a reader needs to judge a time."""
    config = micfast.config()
    versions = {name: config[name] for name in ("micfast", "python", "torch", "numpy")}
    for name in ("jax", "jaxlib"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "machine": {
            "cpu": _cpu_model(),
            "architecture": platform.machine(),
            "system": platform.system(),
            "cores": n_processors(),
            "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        },
        "isa": config.get("isa"),
        "isas": config.get("isas", []),
        "compiler": config.get("compiler"),
        "versions": versions,
        "git": _git_state(),
    }


def refuse_checkout() -> None:
    """Refuse to measure a source checkout without kernels in the place of the installed package.

    Raises
    ------
    RuntimeError
        With the folder's name and what to do.
    """
    problem = checkout_problem()
    if problem is not None:
        raise RuntimeError(problem)


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _git_state() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_SOURCE.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": None}


class FmaPeak:
    """Builds the peak program once per instruction set, and runs it.

    Use as a context manager: the programs lie in a temporary folder that goes at the end.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="micfast-bench-")
        self._programs: dict[str, Path | None] = {}
        self.missing: str | None = None

    def __enter__(self) -> FmaPeak:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def measure(
        self, isa: str, n_threads: int, seconds: float = 0.2, repetitions: int = 5
    ) -> list[float]:
        """FMA throughput in flop/s, one per repetition; empty where it can't be measured."""
        if isa not in self._programs:
            self._programs[isa] = self._build(isa)
        program = self._programs[isa]
        if program is None:
            return []
        command = [str(program), str(n_threads), str(seconds), str(repetitions)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [float(line) for line in done.stdout.split()]

    def _build(self, isa: str) -> Path | None:
        compiler = os.environ.get("CXX") or next(
            (c for c in ("c++", "g++", "clang++") if shutil.which(c)), None
        )
        if compiler is None or isa not in _FLAGS:
            self.missing = "no C++ compiler" if compiler is None else f"unknown ISA {isa}"
            return None
        program = Path(self._folder.name) / isa
        options = ["-O3", "-std=c++17", "-ffp-contract=fast", "-pthread", *_FLAGS[isa]]
        try:
            subprocess.run(
                [*compiler.split(), *options, str(_SOURCE), "-o", str(program)],
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            self.missing = f"the compiler failed: {getattr(error, 'stderr', error)}"
            return None
        return program


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Let torch use this many threads."""
    before = torch.get_num_threads()
    if n_threads == before:  # a call starts threads afresh, which then spin for milliseconds
        yield
        return
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def pinned(n_threads: int) -> Iterator[None]:
    """Keep all threads of the process on the first CPUs: for XLA, whose pool has one fixed size.

    Does nothing where the system can't, see :func:`can_pin`.
    """
    if not can_pin():
        yield
        return
    cpus = sorted(os.sched_getaffinity(0))[:n_threads]
    before = {}
    for task in _tasks():
        with suppress(OSError):  # a thread that has ended meanwhile
            before[task] = os.sched_getaffinity(task)
            os.sched_setaffinity(task, cpus)
    everything = set().union(*before.values())
    try:
        yield
    finally:
        for task in _tasks():
            with suppress(OSError):
                os.sched_setaffinity(task, before.get(task, everything))


def can_pin() -> bool:
    """Whether this system pins threads."""
    return hasattr(os, "sched_setaffinity") and Path("/proc/self/task").is_dir()


def _tasks() -> list[int]:
    return [int(task) for task in os.listdir("/proc/self/task")]
