"""Loads the compiled extensions once, and records why one is not available."""

from __future__ import annotations

from functools import lru_cache
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


@lru_cache(maxsize=1)
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


def cuda_extension() -> ModuleType:
    """The CUDA kernels.

    Raises
    ------
    RuntimeError
        If they are not available; the message says why.
    """
    loaded, reason = _load_cuda()
    if loaded is None:
        raise RuntimeError(f"backend 'cuda' is not available: {reason}")
    return loaded


def why_missing(backend: str) -> str | None:
    """Why a backend is not available; None if it is."""
    if backend == "cuda":
        return _load_cuda()[1]
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
    kind = torch.device(device).type
    if backend == "auto":
        return kind if kind in ("cpu", "cuda") and why_missing(kind) is None else "torch"
    reason = why_missing(backend)
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} is not available: {reason}")
    if backend in ("cpu", "cuda") and kind != backend:
        where = "on the CPU" if backend == "cpu" else "on a CUDA device"
        raise ValueError(f"backend {backend!r} needs tensors {where}, got device {device}")
    return backend
