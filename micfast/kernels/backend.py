"""Loads the compiled extensions once, and records why one is not available."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Literal

import torch

from micfast.runtime import warn_of_checkout

__all__ = [
    "BACKENDS",
    "cuda_extension",
    "extension",
    "load_error",
    "missing_backends",
    "resolve_backend",
    "why_missing",
]

extension: ModuleType | None = None
load_error: str | None = None
try:
    extension = import_module("micfast._C")
except ImportError as error:
    load_error = str(error)
    warn_of_checkout()

Backend = Literal["auto", "cpu", "cuda", "torch"]
BACKENDS = ("auto", "cpu", "cuda", "torch")


@cache
def _load_cuda() -> tuple[ModuleType | None, str | None]:
    """The CUDA extension, loaded on first use, or the reason there is none."""
    if find_spec("micfast._cuda") is None:
        return (
            None,
            "this installation was built without CUDA kernels (no nvcc, or MICFAST_CUDA=OFF)",
        )
    if not torch.cuda.is_available():
        return None, "torch finds no CUDA device (torch.cuda.is_available() is False)"
    try:
        return import_module("micfast._cuda"), None
    except ImportError as error:
        return None, f"micfast._cuda cannot be loaded: {error}"


@cache
def _why_not_on_gpu(index: int) -> str | None:
    """Why a GPU cannot run the CUDA kernels, from loading every one of them there once.

    What has been loaded can be launched while a CUDA graph is captured.
    """
    loaded, reason = _load_cuda()
    if loaded is None:
        return reason
    try:
        with torch.cuda.device(index):
            loaded.prepare(index)
    except RuntimeError as error:
        major, minor = torch.cuda.get_device_capability(index)
        name = torch.cuda.get_device_name(index)
        return f"{error} (cuda:{index} is a {name}, compute capability {major}.{minor})"
    return None


@cache
def _warn_of_fallback(index: int, reason: str) -> None:
    warnings.warn(
        f"micfast: the CUDA kernels do not run on cuda:{index}, so PyTorch does their work there, "
        f"more slowly: {reason}",
        RuntimeWarning,
        stacklevel=2,
    )


def cuda_extension() -> ModuleType:
    """The CUDA kernels.

    Raises
    ------
    RuntimeError
        If they are not available, or not on the current device; the message says why.
    """
    loaded, reason = _load_cuda()
    reason = reason or _why_not_on_gpu(torch.cuda.current_device())
    if loaded is None or reason is not None:
        raise RuntimeError(f"backend 'cuda' is not available: {reason}")
    return loaded


def why_missing(backend: str, device: torch.device | None = None) -> str | None:
    """Why a backend is not available; None if it is.

    ``device``: the GPU for "cuda"; default: the current one.
    """
    if backend == "cuda":
        loaded, reason = _load_cuda()
        if loaded is None:
            return reason
        index = None if device is None else device.index
        return _why_not_on_gpu(torch.cuda.current_device() if index is None else index)
    if backend == "cpu" and extension is None:
        return (
            "this installation has no compiled kernels (built with MICFAST_BUILD_EXT=OFF, or "
            f"imported from a source folder): {load_error}"
        )
    return None


def missing_backends() -> dict[str, str]:
    """The backends that are not available, with the reasons."""
    reasons = {backend: why_missing(backend) for backend in BACKENDS}
    return {backend: reason for backend, reason in reasons.items() if reason is not None}


def resolve_backend(backend: str, device: torch.device | str = "cpu") -> str:
    """Turn ``"auto"`` into the backend that runs, and check the others.

    Where this installation has CUDA kernels that a GPU cannot run (too old a GPU or driver),
    ``"auto"`` is "torch" on that GPU, with one warning that says why.

    Parameters
    ----------
    backend : {"auto", "cpu", "cuda", "torch"}
        As in :class:`micfast.Execution`.
    device : torch.device or str
        The tensors' device.

    Returns
    -------
    {"cpu", "cuda", "torch"}

    Raises
    ------
    ValueError
        For an unknown backend, or one that does not run on ``device``.
    RuntimeError
        For a backend that is not available; the message says why.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    device = torch.device(device)
    kind = device.type
    on_gpu = device if kind == "cuda" else None
    if backend == "auto":
        if kind == "cpu":
            return "torch" if extension is None else "cpu"
        if kind != "cuda":
            return "torch"
        reason = why_missing(kind, on_gpu)
        if reason is not None and _load_cuda()[0] is not None:
            _warn_of_fallback(device.index or 0, reason)
        return kind if reason is None else "torch"
    reason = why_missing(backend, on_gpu)
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} is not available: {reason}")
    if backend in ("cpu", "cuda") and kind != backend:
        where = "on the CPU" if backend == "cpu" else "on a CUDA device"
        raise ValueError(f"backend {backend!r} needs tensors {where}, got device {device}")
    return backend
