"""Launches of the compiled kernels: the only file that calls the extensions.

The extensions take raw addresses and check nothing; ``operators`` checks before it comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType

import torch
from torch import Tensor

from micfast.kernels import backend
from micfast.kernels.decoder import CELLS, LATENTS, OUTPUTS
from micfast.kernels.reference import Structure
from micfast.progress import Report

__all__ = [
    "PLAIN_LOOPS_ALONE",
    "addresses",
    "current_report",
    "dense",
    "launch_cuda",
    "run",
    "running",
    "weight_arguments",
]

PLAIN_LOOPS_ALONE = (
    "the CUDA kernels search with the plain mean squared error, by Adam on the simplex at one rate "
    "and without bias correction, or by Levenberg-Marquardt on the simplex or free"
)
_SUFFIXES = {torch.float32: "float32", torch.float64: "float64"}
# Parts a training on a GPU is cut into, so that it can report and be interrupted in between.
_TRAIN_PARTS = 64

# Progress and threads of the running call. They are no part of an operator's schema, since they
# change nothing in its result.
_progress: ContextVar[Report] = ContextVar("micfast_progress", default=None)
_n_threads: ContextVar[int | None] = ContextVar("micfast_n_threads", default=None)


@contextmanager
def running(n_threads: int | None, progress: Report) -> Iterator[None]:
    """Set the threads and the progress report of the kernels called inside."""
    tokens = _n_threads.set(n_threads), _progress.set(progress)
    try:
        yield
    finally:
        _n_threads.reset(tokens[0])
        _progress.reset(tokens[1])


def current_report() -> Report:
    """The progress report of the running call."""
    return _progress.get()


def dense(*tensors: Tensor) -> list[Tensor]:
    """Contiguous copies where needed; the caller holds them while the kernel runs."""
    return [tensor.detach().contiguous() for tensor in tensors]


def addresses(tensors: Iterable[Tensor]) -> list[int]:
    """Addresses of the tensors' data."""
    return list(map(Tensor.data_ptr, tensors))


def weight_arguments(
    weights: Sequence[Tensor], structure: Structure
) -> tuple[list[int], tuple[int, int, int, int]]:
    """Dense weights and structure as ``WeightArguments`` of ``csrc/bindings/arguments.h``.

    Raises
    ------
    RuntimeError
        For a structure that the kernel of the weights' device lacks.
    """
    if weights[0].is_cuda and not structure.is_plain:
        raise RuntimeError(
            "the CUDA kernels draw an LSTM with the latent as first input and nothing after the "
            f"read-out; got latent={structure.latent!r}, output={structure.output!r}, "
            f"cell={structure.cell!r} or further biases"
        )
    n_states = weights[0].shape[1] // weights[1].shape[2] if structure.sets_state else 1
    latent, output, cell, *further = structure
    more = [0 if tensor is None else tensor.data_ptr() for tensor in further]
    codes = LATENTS.index(latent), OUTPUTS.index(output), n_states, CELLS.index(cell)
    return [*addresses(weights), *more], codes


def run(name: str, tensor: Tensor, *arguments: object) -> None:
    """Run the kernel of that name on the tensor's device, for its dtype.

    ``arguments`` are sizes and addresses, laid out as in ``csrc/bindings/arguments.h``. On a GPU
    the call returns before the kernel has run, as torch's own operators do.
    """
    kernel, device = f"{name}_{_SUFFIXES[tensor.dtype]}", tensor.device
    if device.type == "cuda":
        with torch.cuda.device(device):
            stream = torch.cuda.current_stream(device).cuda_stream
            report = None if torch.cuda.is_current_stream_capturing() else _progress.get()
            launch_cuda(backend.cuda_extension(), kernel, arguments, device, stream, report)
        return
    backend.resolve_backend("cpu")
    n_threads = _n_threads.get() or torch.get_num_threads()
    getattr(backend.extension, kernel)(arguments, n_threads, _progress.get())


def launch_cuda(
    extension: ModuleType,
    name: str,
    arguments: tuple,
    device: torch.device,
    stream: int,
    progress: Callable[[float], object] | None,
) -> None:
    """Allocate the workspace that the kernel asks for, and launch it on a stream."""
    kernel = getattr(extension, name)
    index = device.index or 0
    if not name.startswith("train"):
        workspace = _workspace(kernel(arguments, (index, stream, 0)), device)
        kernel(arguments, (index, stream, workspace.data_ptr()))
        return
    n_episodes = arguments[3][1]
    workspace = _workspace(kernel(arguments, 0, 0, (index, stream, 0)), device)
    ends = [n_episodes * part // _TRAIN_PARTS for part in range(1, _TRAIN_PARTS + 1)]
    begin = 0
    for end in sorted(set(ends)):
        kernel(arguments, begin, end, (index, stream, workspace.data_ptr()))
        begin = end
        if progress is not None:
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()
            progress(end / max(1, n_episodes))


def _workspace(n_bytes: int, device: torch.device) -> Tensor:
    # The allocator keeps the memory for this stream after the tensor is gone, so nothing needs to
    # wait. On a GPU its blocks are aligned to 512 bytes.
    return torch.empty(max(1, n_bytes), dtype=torch.uint8, device=device)
