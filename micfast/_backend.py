"""Loads the compiled extension once, and keeps the reason where it cannot be loaded."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Literal

import torch

extension: ModuleType | None = None
load_error: str | None = None
try:
    extension = import_module("micfast._C")
except ImportError as error:
    load_error = str(error)

Backend = Literal["auto", "cpu", "cuda", "torch"]
BACKENDS = ("auto", "cpu", "cuda", "torch")


def missing_backends() -> dict[str, str]:
    """Why a backend cannot be used here, for those that cannot."""
    missing = {"cuda": "this version of micfast has no CUDA kernels"}
    if extension is None:
        missing["cpu"] = (
            "the compiled extension is not there (built with MICFAST_BUILD_EXT=OFF, or the build "
            f"failed): {load_error}"
        )
    return missing


def resolve_backend(backend: str, device: torch.device | str = "cpu") -> str:
    """Turn ``"auto"`` into the backend that runs, and check the others.

    Parameters
    ----------
    backend : {"auto", "cpu", "cuda", "torch"}
        "cpu" is the compiled kernel, "torch" the PyTorch reference on the tensors' device; "auto"
        takes the kernel where it exists for that device.
    device : torch.device or str
        Where the tensors lie.

    Returns
    -------
    {"cpu", "torch"}

    Raises
    ------
    ValueError
        For an unknown backend, or one that cannot work on ``device``.
    RuntimeError
        For a backend that is missing here; the message says why.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    on_cpu = torch.device(device).type == "cpu"
    missing = missing_backends()
    if backend == "auto":
        return "cpu" if on_cpu and "cpu" not in missing else "torch"
    if backend in missing:
        raise RuntimeError(f"backend {backend!r} is not available: {missing[backend]}")
    if backend == "cpu" and not on_cpu:
        raise ValueError(f"backend 'cpu' needs tensors on the CPU, got device {device}")
    return backend
