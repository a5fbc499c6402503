"""Fuzzing of file readers and operators: any input ends in a result or a documented error.

    pip install atheris
    python tests/fuzz.py --runs 1000000

A target is a function of bytes: a file's content, or what arguments are decoded from. Atheris
(libFuzzer) changes the bytes, led by the coverage of micfast's Python code, in a process per target
that may take 5 s for an input and 1 GiB of memory above what it starts with. An input that breaks
this stays in ``tests/data/fuzz/<target>``, where ``tests/test_fuzz.py`` runs it for ever after; the
fuzzer itself is not needed for that.

MATLAB files are left out: scipy reads them, and a damaged one can end its process.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

instrumented = contextlib.nullcontext()
if "--child" in sys.argv:
    import atheris

    # Of a module that is loaded before, the fuzzer would see no coverage.
    instrumented = atheris.instrument_imports(include=["micfast"])
with instrumented:
    import fuzz_calls as calls
    import fuzz_files as files

    import micfast.classify.estimator
    import micfast.data.recordings
    import micfast.data.sets.characters
    import micfast.data.sets.mnist
    import micfast.experiments.paper.raw
    import micfast.experiments.paper.results
    import micfast.search.inversion
    import micfast.training.types  # noqa: F401

CORPUS = Path(__file__).parent / "data" / "fuzz"
SECONDS_PER_INPUT = 5  # of processor time: a busy machine is no input's fault
SECONDS_UNTIL_DEADLOCK = 60  # of waiting
BYTES_ABOVE_START = 2**30

# Per target: what runs, its first inputs, words that it knows, its share of the runs.
TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]], str, float]] = {
    "bank": (files.read_bank, lambda: files.bank_seeds(files.example_bank), "json", 0.08),
    "estimator": (
        files.read_estimator,
        lambda: files.bank_seeds(files.example_estimator),
        "json",
        0.005,
    ),
    "checkpoint": (
        files.read_checkpoint,
        lambda: [
            b"\0" + files.example_checkpoint(),
            b"\x60"
            + zipfile.ZipFile(io.BytesIO(files.example_checkpoint())).read("archive/data.pkl"),
        ],
        "",
        0.005,
    ),
    "idx": (files.read_idx, files.idx_seeds, "", 0.34),
    "ts": (files.read_ts, files.ts_seeds, "ts", 0.3),
    "table": (files.read_table, files.table_seeds, "", 0.02),
    "arrays": (files.read_arrays, files.array_seeds, "npy", 0.02),
    "results": (files.read_results, lambda: [b'\0{"settings": {}}', b"\x60\3\4"], "json", 0.04),
    "download": (files.read_download, files.download_seeds, "npy", 0.04),
    "operators": (calls.run_operators, calls.draw_seeds, "", 0.045),
    "invert": (calls.run_invert, calls.draw_seeds, "", 0.005),
    "sequences": (calls.run_sequences, calls.draw_seeds, "", 0.05),
}


def limit_memory() -> None:
    """From here on the process may take 1 GiB more than it has."""
    import torch._dynamo  # noqa: F401 - 800 modules that torch loads at some input's error

    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES_ABOVE_START,) * 2)


def fuzz(name: str, artifact: str, arguments: list[str]) -> None:
    """One target in this process, by libFuzzer; never returns."""
    torch.set_num_threads(1)
    run, seeds, _, _ = TARGETS[name]
    run(seeds()[0])  # what is loaded on first use is no input's memory
    limit_memory()

    def one(data: bytes) -> None:
        begin = time.process_time()
        try:
            run(data)
            seconds = time.process_time() - begin
            assert seconds < SECONDS_PER_INPUT, f"{seconds} s"
        except BaseException:
            traceback.print_exc()
            Path(artifact).write_bytes(data)
            os._exit(77)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def replay(n_mutants: int) -> int:
    """Every input that was ever found, the seeds and changed seeds of every target; their number.

    Without Atheris, in this process, under the same limits of memory and time.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    inputs = []
    for name, (run, make_seeds, _, _) in TARGETS.items():
        seeds = make_seeds()
        run(seeds[0])  # what is loaded on first use is no input's memory
        kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
        inputs += [(name, run, data) for data in kept + seeds]
        for _ in range(n_mutants):
            data = bytearray(seeds[rng.integers(len(seeds))])
            for at in rng.integers(0, len(data), rng.integers(1, 8)):
                data[at] = rng.integers(256)
            if rng.random() < 0.3:
                del data[rng.integers(1, len(data)) :]
            inputs.append((name, run, bytes(data)))
    limit_memory()
    for name, run, data in inputs:
        # Neither is caught: they end the process.
        signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_INPUT)
        signal.alarm(SECONDS_UNTIL_DEADLOCK)
        try:
            run(data)
        except BaseException:
            print(f"{name}: {data!r}", file=sys.stderr)
            raise
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    return len(inputs)


def run_target(name: str, n_runs: int, seconds: int, seed: int) -> tuple[int, float, Path | None]:
    """Inputs run, seconds taken, and the input that broke the rules, if one did."""
    _, seeds, words, _ = TARGETS[name]
    found = CORPUS / name
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "corpus").mkdir()
        for i, content in enumerate(seeds()):
            (work / "corpus" / f"seed{i}").write_bytes(content)
        if words:
            lines = "".join(f'"{word}"\n' for word in files.DICTIONARY[words])
            (work / "words").write_text(lines, encoding="ascii")
        command = [sys.executable, __file__, "--child", name, f"{work}/found-error"]
        command += [
            f"-runs={n_runs}",
            f"-max_total_time={seconds}",
            f"-timeout={SECONDS_UNTIL_DEADLOCK}",
            f"-seed={seed}",
        ]
        command += ["-rss_limit_mb=0", "-max_len=8192", f"-artifact_prefix={work}/found-"]
        command += [f"-dict={work}/words"] if words else []
        command += [str(work / "corpus")]
        command += [str(found)] if found.is_dir() else []
        begin = time.monotonic()
        environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        elapsed = time.monotonic() - begin
        log = result.stdout.decode(errors="replace")
        counts = [int(n) for n in re.findall(r"(?m)^(?:#|Done )(\d+)", log)]
        artifact = next(iter(sorted(work.glob("found-*"))), None)
        if result.returncode == 0 and artifact is None:
            return max(counts, default=0), elapsed, None
        print(log[-6000:])
        if artifact is None:
            raise RuntimeError(f"{name}: the fuzzer failed with status {result.returncode}")
        found.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(artifact.read_bytes()).hexdigest()[:12]
        kept = found / f"{artifact.name.split('-')[1]}-{digest}"
        shutil.copy(artifact, kept)
        return max(counts, default=0), elapsed, kept


def main() -> int:
    """Run the targets one after the other and print a table of the counts."""
    if sys.argv[1:2] == ["--child"]:
        fuzz(*sys.argv[2:4], sys.argv[4:])
    if sys.argv[1:2] == ["--replay"]:
        print(replay(int(sys.argv[2])), "inputs")
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of all targets")
    parser.add_argument("--seconds", type=int, default=900, help="most for one target")
    parser.add_argument("--seed", type=int, default=1, help="above 0; another one, other inputs")
    parser.add_argument("--targets", default=",".join(TARGETS), help="names, comma-separated")
    arguments = parser.parse_args()
    names = arguments.targets.split(",")
    shares = sum(TARGETS[name][3] for name in names)
    rows, n_found = [], 0
    for name in names:
        n_runs = round(arguments.runs * TARGETS[name][3] / shares)
        count, seconds, artifact = run_target(name, n_runs, arguments.seconds, arguments.seed)
        rows.append((name, count, seconds))
        n_found += artifact is not None
        print(f"{name:12s} {count:9,d} inputs {seconds:6.0f} s {artifact or ''}", flush=True)
    print(f"{'all':12s} {sum(r[1] for r in rows):9,d} inputs {sum(r[2] for r in rows):6.0f} s, ")
    print(f"{n_found} found")
    return 1 if n_found else 0


if __name__ == "__main__":
    sys.exit(main())
