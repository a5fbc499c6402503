"""micfast itself: on each instruction set, and by other algorithms."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from typing_extensions import override

import micfast
from bench.cases import InversionProblem, TrainingProblem
from bench.machine import torch_threads
from bench.peers.base import (
    BETA1,
    BETA2,
    DAMPING,
    EPS,
    LR,
    TRAIN_BETA1,
    TRAIN_BETA2,
    TRAIN_LR,
    Drawn,
    Peer,
)
from micfast import Execution, GeneratorBank, LevenbergMarquardt, Weights
from micfast.kernels import calls, reference
from micfast.search.starts.nearest import lattice


class Micfast(Peer):
    """The compiled kernel, on the best instruction set or on one forced."""

    def __init__(self, isa: str | None = None) -> None:
        self.isa = isa
        self.id = f"micfast-{isa}" if isa else "micfast"
        self.kind = "isa" if isa else "peer"
        self.label = f"micfast ({isa} forced)" if isa else "micfast"

    @override
    def available(self) -> str | None:
        return micfast.config()["missing"].get("cpu")

    @override
    @contextmanager
    def running(self, n_threads: int) -> Iterator[None]:
        before = os.environ.get("MICFAST_ISA")
        with torch_threads(n_threads):
            if self.isa:
                os.environ["MICFAST_ISA"] = self.isa
            try:
                yield
            finally:
                if self.isa and before is None:
                    del os.environ["MICFAST_ISA"]
                elif self.isa and before is not None:
                    os.environ["MICFAST_ISA"] = before

    @override
    def invert(self, problem: InversionProblem) -> Tensor:
        settings = (problem.case.I, LR, BETA1, BETA2, EPS, False, False, 0.0, False)
        starts = problem.init[:, :, None]
        found = calls.search(
            "invert", problem.weights, problem.targets, starts, settings, Execution("cpu"), None
        )
        return found.errors[:, :, 0]

    @override
    def train(self, problem: TrainingProblem, drawn: Drawn | None = None) -> Tensor:
        # Its generator is the one that drew the episodes: `drawn` holds what it shows anyway.
        n_curve = 100 if drawn is None else problem.case.E
        settings = (problem.case.E, TRAIN_LR, TRAIN_BETA1, TRAIN_BETA2, EPS, n_curve, False)
        trained = calls.train(problem.weights, problem.fleet, settings, Execution("cpu"), None)
        return trained.loss_curve


class OtherSolver(Micfast):
    """micfast by the Levenberg–Marquardt method, as a user calls it: :func:`micfast.invert`."""

    def __init__(self, start: str, n_steps: int) -> None:
        super().__init__()
        self.kind = "solver"
        self.start, self.n_steps = start, n_steps
        self.solver = LevenbergMarquardt(n_iter=n_steps, damping=DAMPING, start=start)
        name = "lm" if start == "uniform" else f"{start}-lm"
        self.id = f"micfast-{name}-{n_steps}"
        self.label = f"micfast, another algorithm: LM from {start}, {n_steps} steps"
        # A bank remembers the drawings among which "nearest" chooses.
        self._banks: WeakKeyDictionary[InversionProblem, GeneratorBank] = WeakKeyDictionary()

    @override
    def invert(self, problem: InversionProblem) -> Tensor:
        if problem not in self._banks:
            self._banks[problem] = GeneratorBank(problem.weights)
        found = micfast.invert(
            self._banks[problem], problem.targets, solver=self.solver, execution="cpu"
        )
        return found.errors.mT

    @override
    def expect(self, problem: InversionProblem) -> Tensor:
        p = problem.double()
        starts = plain_starts(p.weights, p.targets, self.start, 1)
        result = reference.invert_lm(p.weights, p.targets, starts, self.n_steps, DAMPING)
        return result.errors[:, :, 0]

    @override
    def note(self) -> str:
        note = "not Adam's errors: held against its own reference"
        if self.start == "nearest":
            note += "; the drawings to choose among are made once, not counted"
        return note


def plain_starts(weights: Weights, targets: Tensor, start: str, n_starts: int) -> Tensor:
    """Starts (M or 1, N or 1, S, K) that :func:`micfast.invert` documents, found plainly."""
    M, K = weights.n_modules, weights.input_size
    even = torch.full((1, 1, 1, K), 1 / K, dtype=targets.dtype)
    if start == "uniform":
        return even
    if start == "types":
        return torch.cat([even, torch.eye(K, dtype=targets.dtype)[None, None]], dim=2)
    if start != "nearest":
        raise ValueError(f"start must be uniform, types or nearest, got {start!r}")
    candidates = lattice(K).to(targets.dtype)
    latents = candidates.expand(M, -1, -1)
    drawn = reference.generate(weights, latents, targets.shape[1])
    distance = (drawn[:, None] - targets[None, :, None]).square().sum(dim=(-2, -1))
    return candidates[distance.topk(n_starts, dim=2, largest=False).indices]
