"""The drop-in beside the loop it replaces, by sizes: few targets, wide modules and all between.

CPU and wall time of ``micfast.invert`` and of a batched ``nn.LSTM`` or ``nn.GRU`` loop, both on one
thread and on all, each at its better thread count, in one run. Beside them what the machine allows:
the peak of FMA, and for one target of a wide module, whose steps wait for the weights, the speed of
reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from bench.cases import DecoderCase, InversionCase, InversionProblem, make_problem, shrink
from bench.figures import peak
from bench.machine import torch_threads
from bench.peers.base import Peer
from bench.peers.ours import Micfast
from bench.peers.pytorch import NnLstm

__all__ = ["CASES", "DECODER_CASES", "dropin_table", "measure_dropin"]

Row = dict[str, Any]

# Modules, targets, steps, hidden units, outputs; K = 4.
_SIZES = (
    (1, 1, 50, 10, 2),
    (1, 1000, 100, 32, 3),
    (20, 400, 205, 10, 2),
    (20, 1, 205, 10, 2),
    (100, 10, 60, 20, 6),
    (5, 200, 1000, 64, 8),
    (1, 1, 300, 64, 6),
    (1, 20, 300, 96, 6),
    (1, 1, 300, 128, 12),
    (1, 4, 300, 128, 12),
    (1, 16, 300, 128, 12),
    (1, 50, 300, 128, 12),
    (3, 50, 300, 128, 12),
    (1, 1, 100, 256, 6),
    (1, 50, 100, 256, 6),
    (1, 1, 50, 384, 6),
    (1, 16, 50, 384, 6),
    (1, 64, 50, 384, 6),
    (1, 1, 50, 512, 6),
    (1, 64, 50, 512, 6),
)
CASES = tuple(
    InversionCase(f"drop-in-{M}x{N}x{T}x{H}x{O}", M=M, N=N, H=H, K=4, O=O, T=T, I=10)
    for M, N, T, H, O in _SIZES
)
# Each place where the latent enters, and each map of the outputs: as a batch, and one target. Then
# GRUs, and two layers.
DECODER_CASES = tuple(
    DecoderCase(
        f"drop-in-{'two-' * (n - 1)}{'gru-' * (cell == 'gru')}{latent}-{output}-{N}x{H}",
        M=1,
        N=N,
        H=H,
        K=4,
        O=2,
        T=100,
        I=10,
        latent=latent,
        output=output,
        cell=cell,
        n_layers=n,
    )
    for n, cell, latent, output in (
        (1, "lstm", "every", "identity"),
        (1, "lstm", "state", "identity"),
        (1, "lstm", "tanh_state", "identity"),
        (1, "lstm", "first", "tanh"),
        (1, "lstm", "first", "sigmoid"),
        (1, "lstm", "first", "exp"),
        (1, "lstm", "first", "softplus"),
        (1, "lstm", "every", "tanh"),
        (1, "gru", "first", "identity"),
        (1, "gru", "every", "tanh"),
        (1, "gru", "tanh_state", "identity"),
        (2, "lstm", "first", "identity"),
        (2, "gru", "every", "identity"),
    )
    for N, H in ((1, 10), (200, 10), (200, 32))
)
# The loop runs at most this many modules: more cost it the same each.
_LOOP_MODULES = 2
_LEAST_SECONDS, _MOST_RUNS = 0.3, 7
# From here on one target's weights no longer fit into a core's own cache.
_WIDE = 128


def measure_dropin(n_threads: int, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of the suite: seconds of CPU and wall time, by peer and thread count."""
    quick_cases = (*map(shrink, CASES[1:2]), *map(shrink, DECODER_CASES[::8]))
    rows = []
    for case in quick_cases if quick else (*CASES, *DECODER_CASES):
        say(f"drop-in: {case.id}")
        problem = make_problem(case)
        assert isinstance(problem, InversionProblem)
        part = min(case.M, _LOOP_MODULES)
        times = {
            "micfast": _times(Micfast(), problem, n_threads, 1.0),
            "nn_lstm": _times(_Loop(), problem.part(part, case.N), n_threads, case.M / part),
        }
        row = {"case": {**asdict(case), "flop": case.flop}, "times": times}
        if case.N == 1 and case.H >= _WIDE:
            row["read_bytes_per_s"] = _reading(2 * _gate_bytes(case.H))
        rows.append(row)
    return rows


def _gate_bytes(H: int) -> int:
    """The recurrent weights of a module; forward and backward each read their own order of them."""
    return 4 * 4 * H**2


def _reading(n_bytes: int) -> float:
    """Bytes that one thread reads a second, again and again, of so much memory."""
    x = torch.ones(n_bytes // 4)
    taken = []
    with torch_threads(1):
        for _ in range(50):
            began = time.perf_counter()
            x.sum()
            taken.append(time.perf_counter() - began)
    return n_bytes / min(taken)


class _Loop(NnLstm):
    """The loop on as many threads as it is told."""

    def _choose_threads(self, problem: Any, n_threads: int) -> None:
        self.n_threads = n_threads


def _times(
    peer: Peer, problem: InversionProblem, n_threads: int, factor: float
) -> dict[str, dict[str, float]]:
    """The least CPU and wall seconds of some runs, by number of threads."""
    found = {}
    for threads in sorted({1, n_threads}):
        peer.prepare(problem, threads)
        with peer.running(threads):
            peer.invert(_with_iterations(problem, 1))  # warm
            cpu, wall = [], []
            while len(wall) < 3 or (sum(wall) < _LEAST_SECONDS and len(wall) < _MOST_RUNS):
                began = time.process_time(), time.perf_counter()
                peer.invert(problem)
                cpu.append(time.process_time() - began[0])
                wall.append(time.perf_counter() - began[1])
                if sum(wall) > 30:
                    break
        found[str(threads)] = {"cpu": factor * min(cpu), "wall": factor * min(wall)}
    return found


def _with_iterations(problem: InversionProblem, n_iter: int) -> InversionProblem:
    """The same problem with another number of iterations."""
    return replace(problem, case=replace(problem.case, I=n_iter))


def dropin_table(result: dict[str, Any]) -> list[str]:
    """The rows as a Markdown table; what is slower than the loop is named below it."""
    lines = [
        "Modules x targets x steps x hidden units x outputs, ten iterations of Adam, K = 4. "
        "Ratios: the loop's time over micfast's, each at its better number of threads. Share: of "
        "the FMA peak, micfast on one thread; with R, of the speed at which a thread reads as many "
        "bytes as the module's recurrent weights.",
        "",
        "| case | micfast CPU | loop CPU | CPU ratio | micfast wall | loop wall | wall ratio "
        "| share |",
        f"| ---{7 * ' | ---:'} |",
    ]
    losses = []
    for row in result["rows"]:
        cells = []
        for kind in ("cpu", "wall"):
            ours, loop = (
                min(times[kind] for times in row["times"][peer].values())
                for peer in ("micfast", "nn_lstm")
            )
            cells += [f"{1e3 * ours:.1f} ms", f"{1e3 * loop:.1f} ms", f"{loop / ours:.2f}"]
            if loop < ours:
                losses.append(f"{_name(row)} ({kind}: {loop / ours:.2f})")
        lines.append(f"| {_name(row)} | {' | '.join(cells)} | {_shares(row, result)} |")
    lost = ", ".join(losses) if losses else "none"
    return [*lines, "", f"Slower than the loop: {lost}."]


def _shares(row: Row, result: dict[str, Any]) -> str:
    """What of the machine's limits micfast reaches on one thread."""
    case, seconds = row["case"], row["times"]["micfast"]["1"]["wall"]
    limit = peak(result, 1)
    shares = [f"{case['flop'] / seconds / limit:.0%}"] if limit else []
    if "read_bytes_per_s" in row:
        read = 2 * _gate_bytes(case["H"]) * case["T"] * case["I"] / seconds
        shares.append(f"{read / row['read_bytes_per_s']:.0%} R")
    return ", ".join(shares)


def _name(row: Row) -> str:
    case = row["case"]
    kind = f"{case['latent']} {case['output']} " if "latent" in case else ""
    kind = "gru " * (case.get("cell") == "gru") + kind
    kind = "two layers, " * (case.get("n_layers", 1) == 2) + kind
    return kind + "x".join(str(case[letter]) for letter in "MNTHO")
