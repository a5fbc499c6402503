"""A million targets from a file: is memory flat, is the pace? ``python -m bench.load JOB``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import micfast
from bench.cases import InversionCase
from micfast.search.solvers import Solver

# Small in everything but N: a minute's work on two cores.
_CASE = InversionCase("load", M=5, N=1_000_000, H=10, K=4, O=2, T=30, I=10)
_QUICK_N = 20_000
# Targets per chunk of one call, or per call, are this part of all.
_PORTIONS = 100
_SAMPLE_S = 0.05
_DECILES = 10
_MB = 1e6
_CHECKED = 50

# The solvers, and where the results go.
_WAYS: dict[str, Solver] = {
    "Adam, 10 iterations": micfast.Adam(n_iter=10),
    "LM, 4 steps, nearest start": micfast.LevenbergMarquardt(n_iter=4, start="nearest"),
}
_SINKS = ("one call, results in memory", "portions, results in files")
# What counts as flat. One copy of the results kept by mistake would be some 100 MB.
FLAT_PACE, FLAT_MB = 0.10, 16.0


def measure_load(n_threads: int, quick: bool) -> list[dict[str, Any]]:
    """Rows of the load suite, each from a process of its own.

    Parameters
    ----------
    n_threads : int
    quick : bool
        A fiftieth of the targets, and not every way into every sink.

    Returns
    -------
    list of dict
        ``targets_per_s`` in each tenth of the run and ``pace``, the largest part by which one is
        off their median; ``memory_mb``, the median in each tenth of the resident memory that no
        file backs, less that before the call and less the results so far, always at the end of a
        chunk; ``growth_mb`` of it from the second tenth (by then every buffer has been used) to
        its highest; ``peak_mb``, the highest at any time; what is ``flat``.
    """
    folders = (Path(micfast.__file__).parents[1], Path(__file__).parents[1])
    path = os.pathsep.join(map(str, folders))
    rows = []
    pairs = list(product(_WAYS, _SINKS))
    for way, sink in pairs[::3] if quick else pairs:  # every way and every sink once
        n = _QUICK_N if quick else _CASE.N
        job = {"way": way, "sink": sink, "n": n, "threads": n_threads}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "bench.load", json.dumps(job)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise OSError(f"the job {job} failed: {done.stderr.strip()[-2000:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def anonymous() -> int:
    """Bytes resident that no file backs: what a leak would add to (0 where it can't be known)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next(
        (1024 * int(line.split()[1]) for line in status.splitlines() if "RssAnon" in line), 0
    )


@contextmanager
def _peak_of(peak: list[int]) -> Iterator[None]:
    """Put the highest of many samples into the list."""
    over = threading.Event()

    def sample() -> None:
        while not over.wait(_SAMPLE_S):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Log:
    """When, how much of the work was done, and how much memory it then held."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, int]] = []

    def __call__(self, part: float) -> None:
        # At the ends of chunks alone: in their midst buffers come and go.
        portions = part * _PORTIONS
        if abs(portions - round(portions)) < 1e-9:
            self.rows.append((time.perf_counter(), part, anonymous()))


def _run(job: dict[str, Any]) -> dict[str, Any]:
    case = replace(_CASE, id=f"load-N{job['n']}", N=job["n"])
    bank = micfast.GeneratorBank.random(
        case.M, hidden_size=case.H, input_size=case.K, output_size=case.O, seeds=range(case.M)
    )
    portion = case.N // _PORTIONS
    execution = micfast.Execution(n_threads=job["threads"], chunk_size=portion)
    settings: dict[str, Any] = {"solver": _WAYS[job["way"]], "execution": execution}
    with tempfile.TemporaryDirectory(prefix="micfast-bench-") as name:
        folder = Path(name)
        targets = _targets(folder / "targets.npy", case)
        micfast.invert(bank, np.array(targets[:portion]), **settings)  # warm
        log = _Log()
        before = anonymous()
        peak = [before]
        with _peak_of(peak):
            log(0.0)
            if job["sink"] == _SINKS[0]:
                logged = settings | {"execution": execution.replace(progress=log)}
                result = micfast.invert(bank, targets, **logged)
                errors, latents = result.errors, result.latents
                held = sum(
                    getattr(result, array).nbytes
                    for array in ("errors", "latents", "n_iter_used", "converged")
                )
            else:
                errors, latents = _in_portions(bank, targets, folder, settings, log)
                held = 0
        some = np.random.default_rng(1).choice(case.N, _CHECKED, replace=False)
        direct = micfast.invert(bank, np.array(targets[some]), **settings)
        equal = np.array_equal(direct.errors, errors[some])
        equal &= np.array_equal(direct.latents, latents[some])
        row = {
            "case": asdict(case),
            "peer": "micfast",
            "label": job["way"],
            "sink": job["sink"],
            "status": "ok" if equal else "failed",
            "note": f"{_CHECKED} rows equal to their direct inversion, bit for bit"
            if equal
            else "rows differ from their direct inversion",
            "peak_mb": (peak[0] - before - held) / _MB,
            **evaluate(case.N, log.rows, held),
        }
        del targets, errors, latents
    return row


def _targets(path: Path, case: InversionCase) -> np.ndarray:
    """Random targets in a file, mapped read-only."""
    shape = (case.N, case.T, case.O)
    file = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    rng = np.random.default_rng(0)
    for begin in range(0, case.N, 10_000):
        part = file[begin : begin + 10_000]
        part[:] = rng.standard_normal(part.shape, np.float32)
    file.flush()
    del file
    return np.load(path, mmap_mode="r")


def _in_portions(
    bank: micfast.GeneratorBank,
    targets: np.ndarray,
    folder: Path,
    settings: dict[str, Any],
    log: _Log,
) -> tuple[np.ndarray, np.ndarray]:
    """As one would where not even the results fit into memory."""
    N, M, K = len(targets), bank.n_modules, bank.input_size
    errors = np.lib.format.open_memmap(folder / "errors.npy", "w+", np.float32, (N, M))
    latents = np.lib.format.open_memmap(folder / "latents.npy", "w+", np.float32, (N, M, K))
    for i in range(_PORTIONS):
        part = slice(i * N // _PORTIONS, (i + 1) * N // _PORTIONS)
        result = micfast.invert(bank, targets[part], **settings)
        errors[part], latents[part] = result.errors, result.latents
        log((i + 1) / _PORTIONS)
    return errors, latents


def evaluate(n: int, rows: list[tuple[float, float, int]], held: int) -> dict[str, Any]:
    """Pace and memory of each tenth of a run."""
    times, parts, resident = np.array(rows, dtype=np.float64).T
    ends = np.interp(np.arange(_DECILES + 1) / _DECILES, parts, times)
    pace = n / _DECILES / np.diff(ends)
    extra = (resident - resident[0] - held * parts) / _MB
    # Part 0.1 belongs to the first tenth.
    tenth = np.ceil(parts * _DECILES - 1e-9).astype(int) - 1
    memory = [float(np.median(extra[tenth == i])) for i in range(_DECILES)]
    off = float(np.abs(pace / median(pace) - 1).max())
    growth = max(memory[1:]) - memory[1]
    return {
        "seconds": float(ends[-1] - ends[0]),
        "targets_per_s": pace.tolist(),
        "pace": off,
        "memory_mb": memory,
        "growth_mb": growth,
        "results_mb": held / _MB,
        "flat": {"pace": off <= FLAT_PACE, "memory": growth <= FLAT_MB},
    }


def main() -> None:
    print(json.dumps(_run(json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
