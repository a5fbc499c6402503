"""The estimator's work on Dask arrays and clusters: chunks of samples, and classes, dealt out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.classify.decision import Decision
from micfast.classify.fitting import FittedClass
from micfast.distributed.chunks import Answers, Chunk, answers
from micfast.distributed.fleet import check_client, deal
from micfast.search.lazily import probing, settled
from micfast.sequences import Sequences

if TYPE_CHECKING:
    from micfast.classify.estimator import ModularInverseClassifier

__all__ = ["LazyDecision", "decide", "fit_classes", "in_memory"]


def _lazy(name: str, axis: int = 0) -> Any:
    def get(self: LazyDecision) -> Any:
        return self.answers.part(attrgetter(name), getattr(self.example, name), axis)

    return property(get, doc=f"``{name}`` of :class:`micfast.Decision`, as a Dask array.")


@dataclass(frozen=True, eq=False, repr=False)
class LazyDecision:
    """A :class:`micfast.Decision` of Dask arrays, chunked as the sequences.

    Arrays that are computed together (``dask.compute(a, b)``) come from one search.
    """

    answers: Answers
    example: Decision
    n_samples: int

    errors = _lazy("errors")
    module_errors = _lazy("module_errors", axis=1)
    best = _lazy("best")
    labels = _lazy("labels")
    rejected = _lazy("rejected")
    novelty = _lazy("novelty")
    probabilities = _lazy("probabilities")
    scores = _lazy("scores")
    features = _lazy("features")

    @property
    def classes(self) -> np.ndarray:
        """The labels, sorted."""
        return self.example.classes

    def __len__(self) -> int:
        return self.n_samples

    def __repr__(self) -> str:
        return f"LazyDecision({self.n_samples} sequences, {len(self.classes)} classes)"

    def reconstructions(self, label: Any = None, *, module: int = 0) -> Any:
        """As of :class:`micfast.Decision`, of arrays of numbers."""
        take = partial(_reconstructions, label=label, module=module)
        return self.answers.part(take, take(self.example))


def _reconstructions(decision: Decision, label: Any, module: int) -> np.ndarray:
    return decision.reconstructions(label, module=module)


def decide(estimator: ModularInverseClassifier, X: Any) -> LazyDecision:
    """See :meth:`ModularInverseClassifier.decide`; X is a Dask array, or ``Sequences`` of one."""
    name = f"{type(estimator).__name__}: X"
    solver: Any = estimator.resolved_settings()["solver"]
    n_samples = len(X)  # Dask says what to do where it is unknown
    if getattr(solver.start, "random_state", 0) is not None:  # else the estimator seeds it
        solver = settled(solver, estimator.bank_, n_samples)
    values = X.values if isinstance(X, Sequences) else X
    one: Any = np.zeros((1, *values.shape[1:]))
    if values.dtype == object:
        one = [np.zeros((estimator.n_timesteps_in_, estimator.n_channels_in_))]
    # On the CPU: the client need not have a GPU.
    example = _copy(estimator, solver=probing(solver), backend="auto").decide(one)
    # After it, which fills the estimator's cache: equal models are one task, and share searches.
    found = answers(X, _decide_chunk, _copy(estimator, solver=solver), name)
    return LazyDecision(found, example, n_samples)


def _decide_chunk(model: ModularInverseClassifier, chunk: Chunk) -> Decision:
    solver: Any = model.solver
    start = solver.start.rows(chunk.begin, chunk.end)
    own = _copy(model, solver=solver.replace(start=start), n_jobs=chunk.n_threads)
    return own.decide(chunk.samples)


def in_memory(X: Any, y: Any, client: Any) -> tuple[Any, Any, Any]:
    """Training data of Dask arrays in memory, and the client given or the current one, if any."""
    import dask

    if client is None:
        try:
            from distributed import default_client

            client = default_client()
        except (ImportError, ValueError):
            client = None
    X, y = dask.compute(X, y)
    return X, y, client


def fit_classes(
    client: Any,
    estimator: ModularInverseClassifier,
    labels: Sequence[Any],
    parts: Sequence[np.ndarray],
) -> list[FittedClass]:
    """Deal classes to the workers; see :func:`micfast.classify.fitting.fit_classes`."""
    check_client(f"{type(estimator).__name__}.fit", client)
    return deal(client, _fit_some, _copy(estimator), labels, parts)


def _fit_some(
    model: ModularInverseClassifier,
    n_threads: int | None,
    labels: Sequence[Any],
    parts: Sequence[np.ndarray],
) -> list[FittedClass]:
    return _copy(model, n_jobs=n_threads).fit_standardized(labels, parts)


def _copy(estimator: ModularInverseClassifier, **params: Any) -> ModularInverseClassifier:
    """A copy that shares all that was fitted, with other parameters, and shows no progress."""
    own = copy.copy(estimator)
    own.__dict__.update(params, verbose=0)
    return own
