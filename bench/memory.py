"""Peak extra memory of a job, each in a process of its own: ``python -m bench.memory JOB``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import micfast
from bench.cases import CHARACTERS, InversionCase, InversionProblem, make_problem
from bench.peers import PEERS
from bench.peers.base import PeerError

# Small in everything but N.
_STREAM = InversionCase("memory-stream", M=2, N=0, H=4, K=4, O=1, T=8, I=5)
_STREAM_SIZES = (10_000, 100_000, 1_000_000)
_MB = 1e6


def measure_memory(peers: list[str], n_threads: int, quick: bool) -> list[dict[str, Any]]:
    """Rows of the memory suite: whole jobs of every peer, then streams of growing length."""
    rows = []
    jobs: list[dict[str, Any]] = []
    for n in (40,) if quick else (400, 4000):
        case = replace(CHARACTERS, id=f"memory-characters-N{n}", N=n, I=2)
        # One pair after the other needs next to nothing; torch.compile runs what nn_lstm runs.
        for peer in ("micfast", "jax", "nn_lstm"):
            if peer in peers:
                jobs.append({"kind": "invert", "peer": peer, "case": asdict(case)})
    if "micfast" in peers:
        jobs += [
            {"kind": "stream", "peer": "micfast", "n": n}
            for n in (_STREAM_SIZES[:1] if quick else _STREAM_SIZES)
        ]
    # The micfast that runs here, not a source folder without its extension that lies beside bench.
    folders = (Path(micfast.__file__).parents[1], Path(__file__).parents[1])
    path = os.pathsep.join(map(str, folders))
    for job in jobs:
        job["threads"] = n_threads
        done = subprocess.run(
            [sys.executable, "-P", "-m", "bench.memory", json.dumps(job)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def _run_invert(job: dict[str, Any]) -> dict[str, Any]:
    case = InversionCase(**job["case"])
    peer = PEERS[job["peer"]]()
    row = {"case": asdict(case), "peer": peer.id, "label": peer.label, "status": "ok", "note": ""}
    reason = peer.available()
    if reason is not None:
        return {**row, "status": "missing", "note": reason}
    problem = make_problem(case)
    assert isinstance(problem, InversionProblem)
    try:
        with peer.running(job["threads"]):
            peer.prepare(problem, job["threads"])
    except PeerError as error:
        return {**row, "status": error.status, "note": str(error)}
    with peer.running(job["threads"]):
        peer.invert(problem.part(2, 4))
        before = _reset_peak()
        start = time.perf_counter()
        errors = peer.invert(problem)
        seconds = time.perf_counter() - start
        peak = _peak()
    results = errors.nbytes * (1 + case.K)
    return {
        **row,
        "seconds": seconds,
        "peak_extra_mb": (peak - before) / _MB,
        "results_mb": results / _MB,
        "file_mb": 0.0,
    }


def _run_stream(job: dict[str, Any]) -> dict[str, Any]:
    case = replace(_STREAM, id=f"memory-stream-N{job['n']}", N=job["n"])
    bank = micfast.GeneratorBank.random(
        case.M,
        hidden_size=case.H,
        input_size=case.K,
        output_size=case.O,
        seeds=range(case.M),
    )
    execution = micfast.Execution("cpu", n_threads=job["threads"])
    settings: dict[str, Any] = {"solver": micfast.Adam(n_iter=case.I), "execution": execution}
    with tempfile.TemporaryDirectory(prefix="micfast-bench-") as folder:
        path = Path(folder) / "targets.npy"
        shape = (case.N, case.T, case.O)
        file = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        rng = np.random.default_rng(0)
        for begin in range(0, case.N, 10_000):
            end = min(begin + 10_000, case.N)
            file[begin:end] = rng.standard_normal((end - begin, case.T, case.O), np.float32)
        file.flush()
        del file
        targets = np.load(path, mmap_mode="r")
        micfast.invert(bank, np.array(targets[:100]), **settings)
        before = _reset_peak()
        start = time.perf_counter()
        result = micfast.invert(bank, targets, **settings)
        seconds = time.perf_counter() - start
        peak = _peak()
        some = rng.choice(case.N, 20, replace=False)
        direct = micfast.invert(bank, np.array(targets[some]), **settings)
        equal = np.array_equal(direct.errors, result.errors[some])
        equal &= np.array_equal(direct.latents, result.latents[some])
        file_size = path.stat().st_size
        del targets
    note = "20 rows equal to their direct inversion, bit for bit" if equal else "rows differ"
    return {
        "case": asdict(case),
        "peer": "micfast",
        "label": "micfast, streamed from a file",
        "status": "ok" if equal else "failed",
        "note": note,
        "seconds": seconds,
        "peak_extra_mb": (peak - before) / _MB,
        "results_mb": (result.errors.nbytes + result.latents.nbytes) / _MB,
        "file_mb": file_size / _MB,
    }


def _reset_peak() -> int:
    """Bytes resident now; the peak counts from here where the system allows it (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    return _max_rss()


def _peak() -> int:
    with suppress(OSError):
        return _status("VmHWM")
    return _max_rss()


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")


def _max_rss() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    job = json.loads(sys.argv[1])
    row = _run_stream(job) if job["kind"] == "stream" else _run_invert(job)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
