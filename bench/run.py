"""The suites: which case is measured with which peers, and the result files."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import cases
from bench.cases import Case
from bench.cluster import measure_dask
from bench.dropin import measure_dropin
from bench.fits import measure_fits
from bench.learning import measure_learning, measure_sinusoids, write_csv
from bench.load import measure_load
from bench.machine import FmaPeak, describe
from bench.measure import TOLERANCE, measure_case
from bench.memory import measure_memory
from bench.peers import make_peers
from bench.peers.base import Peer
from bench.solvers import measure_solvers
from micfast.runtime import n_processors

FORMAT, FORMAT_VERSION = "micfast-bench", 1


@dataclass(frozen=True)
class _Entry:
    """A case of a suite.

    ``kinds`` of peers, see :class:`bench.peers.base.Peer`; none: "micfast" alone.
    """

    case: Case
    kinds: frozenset[str] = frozenset({"peer"})
    full: bool = False
    n_threads: int | None = None

    def choose(self, peers: list[Peer]) -> list[Peer]:
        return [p for p in peers if p.kind in self.kinds or p.id == "micfast"]


_ALONE, _WITH_ISAS = frozenset[str](), frozenset({"peer", "isa"})
_WITH_SOLVERS = frozenset({"peer", "solver"})

_INVERSION = (
    # First: once loaded, other peers' idle threads can take a core from what runs alone.
    _Entry(cases.ODD, _ALONE),
    _Entry(cases.EVEN, _ALONE),
    _Entry(cases.CHARACTERS, _WITH_ISAS, full=True),
    _Entry(cases.MNIST, _WITH_ISAS, full=True),
)
_TRAINING = (_Entry(cases.CHARACTERS_FLEET, _WITH_ISAS), _Entry(cases.MNIST_FLEET, _WITH_ISAS))
_LATENCY = (
    *(_Entry(case, _WITH_SOLVERS, n_threads=1) for case in cases.BATCHES if case.N in (1, 16)),
    # With 4000 targets the others take minutes.
    *(_Entry(case) if case.N <= 400 else _Entry(case, _ALONE) for case in cases.BATCHES),
)
_SCALING = tuple(_Entry(case) for series in cases.SCALING.values() for case in series)

SUITES: dict[str, tuple[_Entry, ...]] = {
    "inversion": _INVERSION,
    "training": _TRAINING,
    "latency": _LATENCY,
    "scaling": _SCALING,
    "memory": (),
    "load": (),
    "solvers": (),
    "drop-in": (),
    "dask": (),
    "learning": (),
    "sinusoids": (),
    "fits": (),
}
ALL = ("inversion", "training", "latency", "scaling")


def run_suite(
    suite: str,
    *,
    peers: list[str] | None = None,
    n_threads: int | None = None,
    quick: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure one suite.

    Parameters
    ----------
    suite : str
        A key of :data:`SUITES`.
    peers : list of str, optional
        Ids of peers, see :func:`bench.peers.make_peers`.
    n_threads : int, optional
        Default: the CPUs of this process.
    quick : bool
        Toy sizes and two samples: to see that it works, not how fast it is.
    say : callable
        Gets a line for every case.

    Returns
    -------
    dict
        JSON-able; ``bench/README.md`` describes it.
    """
    n_threads = n_threads or n_processors()
    contenders = make_peers(peers)
    start = time.perf_counter()
    result: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "suite": suite,
        "quick": quick,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **describe(),
        "threads": n_threads,
        "tolerance": TOLERANCE,
        "fma_peak": [],
        "rows": [],
    }
    if suite == "memory":
        result["rows"] = measure_memory([peer.id for peer in contenders], n_threads, quick)
        result["seconds"] = time.perf_counter() - start
        return result
    if suite == "load":
        if not any(peer.id == "micfast" for peer in contenders):
            raise ValueError("suite load measures micfast alone: peers must include it")
        result["rows"] = measure_load(n_threads, quick)
        result["seconds"] = time.perf_counter() - start
        return result
    own = {
        "drop-in": measure_dropin,
        "dask": measure_dask,
        "learning": measure_learning,
        "sinusoids": measure_sinusoids,
        "fits": measure_fits,
    }
    if suite in own:
        if suite == "drop-in":
            with FmaPeak() as peak:
                result["fma_peak"] = _measure_peak(peak, [1], quick)
                result["fma_peak_missing"] = peak.missing
        result["rows"] = own[suite](n_threads, quick, say)
        result["seconds"] = time.perf_counter() - start
        return result
    if suite == "solvers":
        if not any(peer.id == "micfast" for peer in contenders):
            raise ValueError("suite solvers compares micfast with itself: peers must include it")
        result["threads"] = 1
        result |= measure_solvers(n_threads, quick, say)
        result["seconds"] = time.perf_counter() - start
        return result
    entries = _shrink(SUITES[suite]) if quick else SUITES[suite]
    # On one thread, what asks for one is no longer a case of its own; it stands first.
    measurements: dict[tuple[Case, int], _Entry] = {}
    for entry in entries:
        measurements.setdefault((entry.case, entry.n_threads or n_threads), entry)
    with FmaPeak() as peak:
        # At both ends of the run: the clock may have changed meanwhile.
        thread_counts = sorted({threads for _, threads in measurements})
        result["fma_peak"] += _measure_peak(peak, thread_counts, quick)
        for (case, threads), entry in measurements.items():
            say(f"{suite}: {case.id}, {threads} thread{'s' if threads > 1 else ''}")
            result["rows"] += measure_case(
                case, entry.choose(contenders), threads, full=entry.full, quick=quick
            )
        result["fma_peak"] += _measure_peak(peak, thread_counts, quick)
        result["fma_peak_missing"] = peak.missing
    result["seconds"] = time.perf_counter() - start
    return result


def _shrink(entries: tuple[_Entry, ...]) -> tuple[_Entry, ...]:
    """Entries at toy size; those that no longer differ from another appear once."""
    unique: dict[Any, _Entry] = {}
    for entry in entries:
        case = cases.shrink(entry.case)
        # One series from another, though both may hold the same sizes.
        series = re.sub(r"\d*-quick$", "", case.id)
        key = (replace(case, id=series), entry.n_threads)
        unique.setdefault(key, replace(entry, case=case))
    return tuple(unique.values())


def _measure_peak(peak: FmaPeak, thread_counts: list[int], quick: bool) -> list[dict[str, Any]]:
    seconds, repetitions = (0.02, 2) if quick else (0.2, 5)
    isas = describe()["isas"] or ["baseline"]
    return [
        {
            "isa": isa,
            "threads": n_threads,
            "flops_per_s": peak.measure(isa, n_threads, seconds, repetitions),
        }
        for n_threads in thread_counts
        for isa in isas
    ]


def save(result: dict[str, Any], folder: Path) -> Path:
    """Write ``<folder>/<suite>.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['suite']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    if result["suite"] == "learning":
        write_csv(result["rows"], path.with_suffix(".csv"))
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises
    ------
    ValueError
        If it is no result of this benchmark.
    """
    try:
        result = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no result file: {error}") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ValueError(f"{path} is no result file of bench")
    if result["format_version"] != FORMAT_VERSION:
        raise ValueError(f"{path} has format version {result['format_version']}, not 1")
    return result
