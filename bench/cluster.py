"""Dask beside the in-memory call, and a long stream from a Zarr store on two workers.

Suite ``dask`` measures the first, ``python -m bench.cluster --sequences 10_000_000`` the second.
Both need ``pip install 'micfast[dask]' zarr``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

import micfast
from bench.cases import CHARACTERS, InversionCase
from bench.figures import in_seconds
from bench.load import anonymous
from micfast.experiments.threads import torch_threads

Row = dict[str, Any]

_CHUNK, _N_CHUNKS, _SAMPLES = 10_000, 2, 3
_LETTERS = replace(CHARACTERS, id="dask-characters", N=_CHUNK * _N_CHUNKS, I=4)
# Short sequences and small modules: the work is in moving them.
_STREAM = InversionCase("dask-stream", M=2, N=0, H=4, K=4, O=2, T=20, I=2)
_CHECKED = 50
_SAMPLE_S = 0.1
_MB = 1e6


@contextmanager
def _cluster(n_workers: int, n_threads: int) -> Iterator[Any]:
    """Worker processes on this machine; what is computed within runs on them."""
    from distributed import Client, LocalCluster

    settings = {"threads_per_worker": n_threads, "processes": True, "dashboard_address": ":0"}
    with LocalCluster(n_workers=n_workers, **settings) as cluster, Client(cluster) as client:
        yield client


def _bank(case: InversionCase) -> micfast.GeneratorBank:
    sizes = {"hidden_size": case.H, "input_size": case.K, "output_size": case.O}
    return micfast.GeneratorBank.random(case.M, seeds=range(case.M), **sizes)


def _store(path: Path, case: InversionCase, chunk: int) -> Any:
    """Random targets as a Zarr array in chunks of whole sequences."""
    import zarr

    shape = (case.N, case.T, case.O)
    store = zarr.create_array(str(path), shape=shape, chunks=(chunk, *shape[1:]), dtype="f4")
    rng = np.random.default_rng(0)
    for begin in range(0, case.N, chunk):
        n = min(chunk, case.N - begin)
        store[begin : begin + n] = rng.standard_normal((n, case.T, case.O), np.float32)
    return store


def measure_dask(n_threads: int, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of the suite: seconds for the same letters, in memory and on workers.

    Parameters
    ----------
    n_threads : int
        Threads in all: of one process, of one worker, and of as many workers.
    quick : bool
        Toy sizes.
    say : callable
        Gets a line for every way.
    """
    import dask.array as da

    case = replace(_LETTERS, N=40, T=20) if quick else _LETTERS
    bank, solver = _bank(case), micfast.LevenbergMarquardt(n_iter=case.I)
    ways = [(0, 1), (1, 1)]
    if n_threads > 1:
        ways += [(0, n_threads), (1, n_threads), (n_threads, 1)]
    samples: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    expected, wrong = None, set()
    with tempfile.TemporaryDirectory(prefix="micfast-bench-") as folder, ExitStack() as opened:
        store = _store(Path(folder) / "X.zarr", case, case.N // _N_CHUNKS)
        X = np.asarray(store[:])
        clients = {way: opened.enter_context(_cluster(*way)) for way in ways if way[0]}
        # One after the other in every round, so that a busy spell of the machine meets all; idle
        # workers take no time. The first round is warm-up.
        for i in range(1 + _SAMPLES):
            for way in ways:
                say(f"dask: round {i} of {_SAMPLES}, {_label(way[0])}, {way[1]} threads each")
                start = time.perf_counter()
                if way[0] == 0:
                    execution = micfast.Execution(n_threads=way[1])
                    with torch_threads(way[1]):  # a worker's are its own, too
                        errors = micfast.invert(bank, X, solver=solver, execution=execution).errors
                else:
                    lazy = micfast.invert(bank, da.from_zarr(store), solver=solver)
                    errors = clients[way].compute(lazy.errors).result()
                if i > 0:
                    samples[way].append(time.perf_counter() - start)
                expected = errors if expected is None else expected
                if not np.array_equal(errors, expected):
                    wrong.add(way)
    return [
        {
            "case": asdict(case),
            "peer": "micfast",
            "label": _label(n_workers),
            "n_workers": n_workers,
            "threads": threads,
            "chunk": case.N // _N_CHUNKS,
            "status": "failed" if (n_workers, threads) in wrong else "ok",
            "samples_s": samples[n_workers, threads],
        }
        for n_workers, threads in ways
    ]


def _label(n_workers: int) -> str:
    return f"{n_workers} worker{'s' * (n_workers > 1)}" if n_workers else "in memory"


def dask_table(rows: list[Row]) -> list[str]:
    """Throughput, and time beside the in-memory call on as many threads."""
    case = rows[0]["case"]
    alone = {row["threads"]: row["samples_s"] for row in rows if row["n_workers"] == 0}
    lines = [
        f"{case['N']:,} sequences of {case['T']} steps and {case['O']} channels by {case['M']} "
        f"modules of {case['H']} hidden units, {case['I']} Levenberg–Marquardt steps; workers read "
        f"them from a Zarr store in chunks of {rows[0]['chunk']:,}. Medians of {_SAMPLES} rounds "
        "after a warm one; extra time is over the in-memory call on as many threads in the same "
        "round. All rows have the same bits.",
        "",
        "| | threads each | time | sequences/s | extra time |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        seconds = float(np.median(row["samples_s"]))
        same = alone[max(1, row["n_workers"]) * row["threads"]]
        extra = float(np.median(np.divide(row["samples_s"], same))) - 1
        lines.append(
            f"| {row['label']} | {row['threads']} | {in_seconds(seconds)} "
            f"| {case['N'] / seconds:,.0f} | {f'{extra:+.1%}' if row['n_workers'] else ''} "
            f"{'' if row['status'] == 'ok' else 'WRONG BITS'}|"
        )
    return lines


# -- a long stream -------------------------------------------------------------------------------


def measure_stream(n: int, chunk: int, n_workers: int, folder: Path) -> Row:
    """Invert sequences from one Zarr store into another, and watch the memory of all processes.

    Returns
    -------
    dict
        ``memory_mb``: for client and each worker, the memory that no file backs, beyond that
        before, as the highest of each tenth of the run.
    """
    import dask.array as da

    case = replace(_STREAM, N=n)
    bank, solver = _bank(case), micfast.Adam(n_iter=case.I)
    store = _store(folder / "X.zarr", case, chunk)
    X = da.from_zarr(store)
    with _cluster(n_workers, 1) as client:
        micfast.invert(bank, X[: 2 * chunk * n_workers], solver=solver).errors.compute()
        samples: list[tuple[float, dict[str, int]]] = []
        over = threading.Event()

        def sample() -> None:
            while not over.wait(_SAMPLE_S):
                memory = client.run(anonymous) | {"client": anonymous()}
                samples.append((time.perf_counter(), memory))

        before = client.run(anonymous) | {"client": anonymous()}
        watch = threading.Thread(target=sample)
        start = time.perf_counter()
        watch.start()
        try:
            found = micfast.invert(bank, X, solver=solver)
            da.to_zarr(found.errors, str(folder / "errors.zarr"))
        finally:
            over.set()
            watch.join()
        seconds = time.perf_counter() - start
    errors = da.from_zarr(str(folder / "errors.zarr"))
    some = np.sort(np.random.default_rng(1).choice(n, _CHECKED, replace=False))
    direct = micfast.invert(bank, store.oindex[some], solver=solver).errors
    equal = np.array_equal(direct, errors[some].compute())
    tenths: dict[str, list[float]] = {name: [0.0] * 10 for name in before}
    for at, memory in samples:
        tenth = min(9, int(10 * (at - start) / seconds))
        for name in before:
            extra = (memory[name] - before[name]) / _MB
            tenths[name][tenth] = max(tenths[name][tenth], round(extra, 1))
    return {
        "case": asdict(case),
        "chunk": chunk,
        "chunk_mb": X[:chunk].nbytes / _MB,
        "stored_mb": X.nbytes / _MB,
        "seconds": seconds,
        "status": "ok" if equal else "failed",
        "memory_mb": tenths,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--sequences", type=int, default=10_000_000)
    parser.add_argument("--chunk", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the stores; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="micfast-bench-", dir=options.folder) as name:
        row = measure_stream(options.sequences, options.chunk, options.workers, Path(name))
    print(json.dumps(row, indent=1))
    return int(row["status"] != "ok")


if __name__ == "__main__":
    sys.exit(main())
