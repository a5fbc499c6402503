"""A way to do the work, and the settings of the work."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
from torch import Tensor

from bench.cases import InversionProblem, Problem, TrainingProblem
from bench.machine import torch_threads
from micfast.kernels import reference

Drawn = tuple[np.ndarray, np.ndarray]

LR, BETA1, BETA2, EPS = 0.05, 0.9, 0.99, 1e-8
DAMPING = 0.1
TRAIN_LR, TRAIN_BETA1, TRAIN_BETA2 = 0.01, 0.9, 0.999


class PeerError(RuntimeError):
    """A peer that has failed at a case; the message goes into the table."""

    status = "failed"


class NotApplicableError(PeerError):
    """A peer that isn't made for a case."""

    status = "not applicable"


class Peer:
    """One way to invert and train. Subclasses say how."""

    id: str
    label: str
    # "peer"; "isa", micfast on a lesser instruction set; "solver", micfast by another algorithm,
    # which is held against that algorithm's reference and does other work than the case counts.
    kind: str = "peer"
    # How many targets the equality step runs; None: all, for a peer that would compile once more.
    check_targets: int | None = 4

    def available(self) -> str | None:
        """Why the peer is missing here; None if it isn't."""
        return None

    def running(self, n_threads: int) -> AbstractContextManager[None]:
        """The context in which the peer runs on that many threads."""
        return torch_threads(n_threads)

    def part(self, problem: Problem, full: bool) -> Problem:
        """How much of a problem is run; times of a part are extrapolated by its amount of work.

        ``full`` asks for all of it where that takes a minute at most.
        """
        return problem

    def prepare(self, problem: Problem, n_threads: int) -> float | None:
        """Compile for the sizes of a problem; returns the seconds it took, None if nothing to do.

        Called before anything else with a problem, within :meth:`running`.

        Raises
        ------
        PeerError
            If the peer can't do this problem.
        """
        return None

    def invert(self, problem: InversionProblem) -> Tensor:
        """Invert all pairs; returns the errors (M, N)."""
        raise NotImplementedError

    def train(self, problem: TrainingProblem, drawn: Drawn | None = None) -> Tensor:
        """Train all modules.

        Parameters
        ----------
        problem : TrainingProblem
        drawn : tuple of arrays, optional
            Inputs and targets to use instead of the peer's own random numbers.

        Returns
        -------
        Tensor of shape (M, E)
            The loss of every episode; without ``drawn`` a shorter curve will do.
        """
        raise NotImplementedError

    def expect(self, problem: InversionProblem) -> Tensor:
        """What :meth:`invert` must give, by ``micfast.kernels.reference`` in float64."""
        p = problem.double()
        result = reference.invert(p.weights, p.targets, p.init, p.case.I, LR, BETA1, BETA2, EPS)
        return result.errors

    def note(self) -> str:
        """What a reader of the table has to know."""
        return ""
