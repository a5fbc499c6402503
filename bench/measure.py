"""How it is measured: first equality with the reference, then interleaved times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from bench.cases import Case, InversionProblem, Problem, TrainingProblem, make_problem
from bench.machine import torch_threads
from bench.peers.base import Drawn, Peer, PeerError
from micfast.kernels import reference_training

# Largest difference from the reference in float64, relative to the largest value compared: errors
# after the first few and after all iterations, and losses of the first episodes. All peers compute
# in float32. The search of a random problem lowers its errors by some 1e-3 alone, and often ends at
# a corner of the simplex, where the way that led there no longer shows: hence the first few.
TOLERANCE = {"inversion": 1e-5, "training": 1e-4}

_CHECK_MODULES, _CHECK_TARGETS, _CHECK_ITERATIONS, _CHECK_EPISODES = 2, 4, 3, 6
_ROUNDS = 5
_SETTLE_S = 0.05


@dataclass
class _Contender:
    """A peer that has passed the equality step, and its samples."""

    peer: Peer
    row: dict[str, Any]
    problem: Problem
    n_samples: int = 0

    def run(self, n: int, *, settle: bool) -> list[float]:
        """Seconds of each of n runs in a row.

        ``settle`` first runs untimed until the threads that the peer before has left spinning for
        work, and those that torch starts for a new number of threads, have gone idle.
        """
        with self.peer.running(self.row["threads"]):
            end = time.perf_counter() + (_SETTLE_S if settle else 0)
            while time.perf_counter() < end:
                self._run_once()
            return [self._run_once() for _ in range(n)]

    def _run_once(self) -> float:
        start = time.perf_counter()
        if isinstance(self.problem, InversionProblem):
            self.peer.invert(self.problem)
        else:
            self.peer.train(self.problem)
        return time.perf_counter() - start


# What the reference gives for the part of a problem that the equality step compares: errors (M, N)
# in the order of `_check_iterations`, or losses (M, E) and the episodes drawn for them.
_Expected = tuple[list[Tensor], Drawn | None]


def measure_case(
    case: Case, peers: list[Peer], n_threads: int, *, full: bool, quick: bool
) -> list[dict[str, Any]]:
    """Rows of one case, one for each peer, missing and failed ones included.

    Parameters
    ----------
    case : Case
    peers : list of Peer
    n_threads : int
    full : bool
        Run whole jobs where they take up to a minute, instead of extrapolating from a part.
    quick : bool
        Two samples each.
    """
    problem = make_problem(case)
    # The peers do the same work, but for those of another algorithm.
    shared = expect(problem, Peer())
    rows, contenders = [], []
    for peer in peers:
        row: dict[str, Any] = {
            "case": _case_record(case),
            "peer": peer.id,
            "label": peer.label,
            "kind": peer.kind,
            "threads": n_threads,
            "status": "ok",
            "note": "",
        }
        rows.append(row)
        reason = peer.available()
        if reason is not None:
            row.update(status="missing", note=reason)
            continue
        part = peer.part(problem, full)
        row["measured"] = {"amount": part.case.amount, "of": case.amount, "unit": case.unit}
        try:
            with peer.running(n_threads):
                row["compile_s"] = peer.prepare(part, n_threads)
            expected = expect(problem, peer) if peer.kind == "solver" else shared
            with peer.running(n_threads):
                row["equality"] = compare(peer, problem, expected)
        except PeerError as error:
            row.update(status=error.status, note=str(error))
            continue
        row["note"] = peer.note()
        if not row["equality"]["passed"]:
            row.update(status="failed", note="its results differ from the reference")
            continue
        contenders.append(_Contender(peer, row, part))
    take_samples(contenders, quick)
    return rows


def _case_record(case: Case) -> dict[str, Any]:
    return {**asdict(case), "flop": case.flop, "amount": case.amount, "unit": case.unit}


def expect(problem: Problem, peer: Peer) -> _Expected:
    # Too small for threads, which would only wait for each other.
    with torch_threads(1):
        if isinstance(problem, InversionProblem):
            pairs = problem.part(_CHECK_MODULES, _CHECK_TARGETS)
            return [peer.expect(part) for part in _check_iterations(pairs)], None
        fleet = _check_part(problem).double()
        trained = reference_training.train(
            fleet.weights, *fleet.fleet, fleet.case.E, n_curve=fleet.case.E
        )
        return [trained.loss_curve], fleet.draw_episodes()


def _check_iterations(problem: InversionProblem) -> list[InversionProblem]:
    """The problem with all its iterations, and with the first few."""
    few = min(_CHECK_ITERATIONS, problem.case.I)
    return [problem, replace(problem, case=replace(problem.case, I=few))]


def _check_part(problem: TrainingProblem) -> TrainingProblem:
    """The last modules, which have noise, and the first episodes."""
    last = slice(-_CHECK_MODULES, None)
    return TrainingProblem(
        problem.part(_CHECK_MODULES, _CHECK_EPISODES).case,
        problem.weights[last],
        problem.type_sets,
        problem.set_index[last],
        problem.noise_in[last],
        problem.noise_out[last],
        problem.seeds[last],
    )


def compare(peer: Peer, problem: Problem, expected: _Expected) -> dict[str, Any]:
    exact, drawn = expected
    if isinstance(problem, InversionProblem):
        kind, quantity = "inversion", "errors"
        n_targets = problem.case.N if peer.check_targets is None else peer.check_targets
        pairs = problem.part(_CHECK_MODULES, n_targets)
        parts = _check_iterations(pairs)
        iterations = [part.case.I for part in parts]
        found = [peer.invert(part) for part in parts]
    else:
        kind, quantity, iterations = "training", "losses", []
        found = [peer.train(_check_part(problem), drawn)]
    M, n = exact[0].shape
    largest = max(
        float((values[:M, :n].double() - right).abs().max() / right.abs().max())
        for values, right in zip(found, exact, strict=True)
    )
    return {
        "quantity": quantity,
        "iterations": iterations,
        "compared": sum(right.numel() for right in exact),
        "difference": largest,
        "tolerance": TOLERANCE[kind],
        # NaN does not pass.
        "passed": largest <= TOLERANCE[kind],
    }


def _n_samples(seconds: float, quick: bool) -> int:
    if quick:
        return 2
    if seconds > 15:
        return 2
    return 3 if seconds > 5 else min(30, max(_ROUNDS, int(2 / seconds)))


class Contender(Protocol):
    """What :func:`take_samples` runs; ``row`` gets ``samples_s``, ``n_samples`` is its own."""

    row: dict[str, Any]
    n_samples: int

    def run(self, n: int, *, settle: bool) -> list[float]:
        """Seconds of each of n runs; ``settle`` asks to wait until the machine is quiet."""
        ...


def take_samples(contenders: Sequence[Contender], quick: bool) -> None:
    """Fill in the samples, in rounds over all contenders so that a slow minute hits all alike."""
    for contender in contenders:
        (first,) = contender.run(1, settle=False)
        if first < 1:  # as warm-up; longer runs are their own
            (first,) = contender.run(1, settle=True)
        contender.row["samples_s"] = [first]
        contender.n_samples = _n_samples(first, quick)
    for round_ in range(1, _ROUNDS + 1):
        for contender in contenders:
            samples = contender.row["samples_s"]
            due = -(-contender.n_samples * round_ // _ROUNDS) - len(samples)
            if due > 0:
                samples += contender.run(due, settle=samples[0] < 0.1)
