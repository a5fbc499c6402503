"""Launches of the CUDA kernels: workspace from torch's allocator, on torch's current stream."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch

from micfast import _backend

__all__ = ["run"]

# Parts a training is cut into, so that it can report and be stopped in between.
_TRAIN_PARTS = 64


def run(
    name: str,
    arguments: tuple,
    device: torch.device,
    n_threads: int,
    progress: Callable[[float], object] | None,
) -> None:
    """Launch the kernel of that name; returns before it has run, as torch's own operators do."""
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device)
        capturing = torch.cuda.is_current_stream_capturing()
        launch(
            _backend.cuda_extension(),
            name,
            arguments,
            device,
            stream.cuda_stream,
            None if capturing else progress,
        )


def launch(
    extension: ModuleType,
    name: str,
    arguments: tuple,
    device: torch.device,
    stream: int,
    progress: Callable[[float], object] | None,
) -> None:
    """Allocate the workspace that the kernel wants, and launch it on a stream."""
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


def _workspace(n_bytes: int, device: torch.device) -> torch.Tensor:
    # The allocator keeps the memory for this stream after the tensor is gone, so that nothing
    # needs to wait. On a GPU its blocks are aligned to 512 bytes.
    return torch.empty(max(1, n_bytes), dtype=torch.uint8, device=device)
