"""A Dask array of sequences, and what a function answers for each chunk of samples, lazily."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cloudpickle
import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from micfast.distributed.workers import named, threads_of_task
from micfast.sequences import Sequences

__all__ = ["Answers", "Chunk", "answers"]


@dataclass(frozen=True, eq=False)
class Chunk:
    """One chunk of samples, on its worker.

    Attributes
    ----------
    samples : ndarray or Sequences
        Sequences, if lengths or a mask came with the array.
    begin, end : int
        Its rows among all.
    n_threads : int or None
        Threads to work on.
    """

    samples: Any
    begin: int
    end: int
    n_threads: int | None


# Gives the answer for a chunk, by a model.
Worker: TypeAlias = Callable[[Any, Chunk], Any]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of all chunks, which are computed where a part of them is asked for.

    Attributes
    ----------
    of_chunks : dask.array.Array of shape (n_samples,)
        Its chunks are no arrays but the answers.
    """

    of_chunks: Any

    def part(
        self, take: Callable[[Any], NDArray[Any]], example: NDArray[Any], axis: int = 0
    ) -> Any:
        """Give one array of the answers, as a Dask array.

        Parts that are computed together (``dask.compute(a, b)``) share the answers.

        Parameters
        ----------
        take : callable
            Gives the array of one answer.
        example : ndarray
            Such an array: its dtype, and its shape on all axes but that of the samples.
        axis : int
            The axis of the samples.
        """
        axes = tuple(range(example.ndim))
        empty = example[(slice(None),) * axis + (slice(0, 0),)]
        return da.blockwise(
            _part,
            axes,
            self.of_chunks,
            (axis,),
            take=take,
            empty=empty,
            new_axes={i: n for i, n in enumerate(example.shape) if i != axis},
            token="micfast-part",
            dtype=example.dtype,
            meta=example[(slice(0, 0),) * example.ndim],
        )


def answers(X: Any, work: Worker, model: Any, name: str) -> Answers:
    """Let a function answer for each chunk of samples.

    Parameters
    ----------
    X : dask.array.Array, or Sequences of one
        With samples on the first axis.
    work : callable
        Called on a worker with the model and a :class:`Chunk`.
    model : object
        Is a task of its own, which a worker fetches once.
    name : str
        The argument's name in messages.

    Returns
    -------
    Answers

    Warns
    -----
    dask.array.PerformanceWarning
        If sequences are split between chunks.
    """
    sequences = X if isinstance(X, Sequences) else None
    values = _whole_sequences(X if sequences is None else sequences.values, name)
    sizes = values.chunks[0]
    data = cloudpickle.dumps((work, model))
    key = f"micfast-model-{hashlib.sha256(data).hexdigest()[:32]}"
    ends = np.cumsum(sizes)
    places = np.stack([np.arange(len(sizes)), ends - sizes, ends], axis=1)
    arrays = [da.from_array(places, chunks=(1, 3)), "np", values, "ntc"[: values.ndim]]
    for beside in (sequences.lengths, sequences.mask) if sequences is not None else ():
        if beside is None:
            arrays += [None, None]
        else:
            whole = dict.fromkeys(range(1, beside.ndim), -1)
            beside = da.asarray(beside).rechunk({0: sizes, **whole})
            arrays += [beside, "ntc"[: beside.ndim]]
    return Answers(
        da.blockwise(
            _answer,
            "n",
            *arrays,
            task=dask.delayed(cloudpickle.loads)(data, dask_key_name=key),
            n_chunks=len(sizes),
            nan_policy=None if sequences is None else sequences.nan_policy,
            name_of=name,
            adjust_chunks={"n": sizes},
            align_arrays=False,
            concatenate=False,
            token="micfast-answer",
            dtype=object,
            meta=np.empty(0, dtype=object),
        )
    )


def _answer(
    place: Any,
    values: Any,
    lengths: Any = None,
    mask: Any = None,
    *,
    task: tuple[Worker, Any],
    n_chunks: int,
    nan_policy: Any,
    name_of: str,
) -> Any:
    """The answer for one chunk; None for one without samples, which a filter may leave."""
    work, model = task
    i, begin, end = map(int, _only(place)[0])
    samples, lengths, mask = map(_only, (values, lengths, mask))
    if begin == end:
        return None
    own = name_of.rpartition(" ")[2]
    what = f"chunk {i} of {n_chunks}, {own}[{begin}:{end}], counted from its first"
    with named(what):
        if nan_policy is not None:
            samples = Sequences.read(
                samples, lengths=lengths, mask=mask, nan_policy=nan_policy, name=name_of
            )
        return work(model, Chunk(samples, begin, end, threads_of_task()))


def _only(block: Any) -> Any:
    """The block of an array that is not split along its other axes: Dask nests it in lists."""
    while isinstance(block, list):
        (block,) = block
    return block


def _part(answer: Any, *, take: Callable[[Any], Any], empty: NDArray[Any]) -> Any:
    return empty if answer is None else take(answer)


def _whole_sequences(values: Any, name: str) -> Any:
    """The array with each of its sequences in one chunk."""
    split = {axis: -1 for axis in range(1, values.ndim) if values.numblocks[axis] > 1}
    if not split:
        return values
    warnings.warn(
        f"{name}: each sequence is split into {np.prod(values.numblocks[1:])} chunks, which are "
        f"joined first: all {values.nbytes / 1e9:.3g} GB are copied, and move between workers "
        "where they lie apart. Store it with whole sequences in a chunk, or call "
        "X.rechunk({1: -1, 2: -1}) once and keep the result",
        da.PerformanceWarning,
        stacklevel=5,
    )
    return values.rechunk(split)
