"""Inversion of the targets of a Dask array, chunk by chunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from micfast.arrays import Array
from micfast.distributed.chunks import Answers, Chunk, answers
from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.search.inversion import Inversion, invert
from micfast.search.problem import read_problem
from micfast.search.solvers import SOLVERS, Solver
from micfast.sequences import NanPolicy, Sequences

__all__ = ["LazyInversion", "invert_lazily", "probing", "settled"]

_ARRAYS = {"errors": 0, "latents": 0, "n_iter_used": 0, "converged": 0}
_HISTORIES = {"error_history": 1, "latent_history": 1}


@dataclass(frozen=True, eq=False, repr=False)
class LazyInversion(Inversion):
    """An :class:`micfast.Inversion` of Dask arrays, chunked as the targets.

    ``dask.compute(result.errors, result.latents)`` searches once for both, two calls of
    ``compute()`` search twice. ``n_steps`` is 0 if only the chunks know it (those of objects).
    """

    answers: Answers = field(kw_only=True)
    example: Inversion = field(kw_only=True)

    def __repr__(self) -> str:
        N, M, K = self.latents.shape
        return (
            f"LazyInversion(n_samples={N} in {self.latents.numblocks[0]} chunks, n_modules={M}, "
            f"n_types={K}, n_steps={self.n_steps or 'unknown'})"
        )

    def compute(self, **kwargs: Any) -> Inversion:
        """Search, and give the result in memory; arguments are those of ``dask.compute``."""
        import dask

        names = [one.name for one in dataclasses.fields(Inversion)]
        values = {name: getattr(self, name) for name in names}
        arrays = {name: value for name, value in values.items() if hasattr(value, "dask")}
        (found,) = dask.compute(arrays, **kwargs)
        values |= found
        values["n_steps"] = self.n_steps or int(values["lengths"].max())
        return Inversion(**values)

    @property
    def best(self) -> Array:
        """As in :class:`micfast.Inversion`."""
        return self.answers.part(attrgetter("best"), self.example.best)

    @property
    def predictions(self) -> Array:
        """As in :class:`micfast.Inversion`, but always an object array: any error may be NaN."""
        return self.answers.part(_predictions, _predictions(self.example))

    def reconstructions(
        self,
        which: Literal["best", "all"] | int | Array = "best",
        *,
        execution: Execution | str | None = None,
    ) -> Array:
        """As in :class:`micfast.Inversion`; ``which`` may not be one index per target."""
        where = "Inversion.reconstructions"
        if not isinstance(which, str | int):
            raise ValueError(f"{where}: which must be 'best', 'all' or an integer for a Dask array")
        if not self.n_steps:
            raise ValueError(f"{where}: only an array of numbers tells the length; call compute()")
        take = partial(_reconstructions, which=which, execution=execution)
        return self.answers.part(take, take(self.example))


def _predictions(found: Inversion) -> np.ndarray:
    return found.predictions.astype(object)


def _reconstructions(found: Inversion, which: Any, execution: Any) -> np.ndarray:
    return found.reconstructions(which, execution=execution)


def _lengths(found: Inversion) -> np.ndarray:
    if found.lengths is None:
        return np.full(len(found.errors), found.n_steps, dtype=np.int64)
    return found.lengths


@dataclass(frozen=True, eq=False)
class _Model:
    bank: GeneratorBank  # on the CPU
    device: str  # "cuda" is the worker's own
    solver: Solver
    settings: dict[str, Any]


def invert_lazily(
    modules: Any,
    targets: Any,
    solver: Solver | str,
    nan_policy: NanPolicy,
    history: bool,
    check: Any,
    execution: Execution | str | None,
) -> LazyInversion:
    """See :func:`micfast.invert`; ``targets`` is a Dask array, or ``Sequences`` of one."""
    where = "invert: targets"
    sequences = Sequences.read(targets, nan_policy=nan_policy, name=where)
    execution = Execution.of(execution).replace(progress=False)
    N, T, O = len(sequences), sequences.n_steps, sequences.n_channels
    known = O or getattr(modules, "output_size", 1)
    bank, zeros = read_problem("invert", modules, np.zeros((1, T or 1, known)), "omit", check)
    solver = settled(SOLVERS.resolve(solver), bank, N)
    device, bank = bank.device.type, bank.to(device="cpu")
    settings = {"history": history, "execution": execution}
    model = _Model(bank, device, solver, settings)
    found = answers(sequences, _invert_chunk, model, where)
    example = invert(bank, zeros, solver=probing(solver, history), history=history)
    parts: dict[str, Callable[[Any], Any]] = {
        name: attrgetter(name) for name in [*_ARRAYS, *(_HISTORIES if history else ())]
    }
    axes = _ARRAYS | _HISTORIES
    arrays = {name: found.part(take, take(example), axes[name]) for name, take in parts.items()}
    if not T or sequences.omits_nan:
        arrays["lengths"] = found.part(_lengths, np.zeros(1, dtype=np.int64))
    return LazyInversion(
        classes=bank.classes, bank=bank, n_steps=T, answers=found, example=example, **arrays
    )


def _invert_chunk(model: _Model, chunk: Chunk) -> Inversion:
    start = model.solver.start.rows(chunk.begin, chunk.end)
    execution: Execution = model.settings["execution"].replace(n_threads=chunk.n_threads)
    return invert(
        model.bank.to(device=model.device),
        chunk.samples,
        solver=model.solver.replace(start=start),
        **(model.settings | {"execution": execution}),
    )


def settled(solver: Solver, bank: GeneratorBank, n_targets: int) -> Solver:
    """The solver with its starts checked; random ones have a seed, the same in every chunk."""
    if getattr(solver.start, "random_state", 0) is None:
        solver = solver.replace(start=solver.start.replace(random_state=np.random.SeedSequence()))
    solver.start.prepare(bank, n_targets, False, Execution())
    solver.start.rows(0, n_targets)
    return solver


def probing(solver: Solver, history: bool = False) -> Solver:
    """A solver for an example, of which only the shapes and dtypes matter."""
    quick = {} if history else {"n_iter": 0}
    return solver.replace(start="uniform", **quick)
