"""Versions, instruction sets and backends of this installation."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from micfast.kernels import backend
from micfast.version import __version__


def config() -> dict[str, Any]:
    """Versions, backends and the instruction set in use, as JSON-able values.

    Examples
    --------
    >>> import micfast
    >>> sorted({"cpu", "cuda", "torch"} - {*micfast.config()["missing"]}) == sorted(
    ...     micfast.config()["backends"]
    ... )
    True
    """
    extension = backend.extension
    missing = backend.missing_backends()
    result: dict[str, Any] = {
        "micfast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "backends": [name for name in ("cpu", "cuda", "torch") if name not in missing],
        "missing": missing,
    }
    if extension is not None:
        result["compiler"] = extension.compiler
        result["isas"] = extension.available_isas()
        try:
            result["isa"] = extension.active_isa()
            result["lanes"] = dict(zip(("float32", "float64"), extension.lanes(), strict=True))
        except ValueError as error:  # MICFAST_ISA names one this machine lacks
            result["isa"] = f"error: {error}"
    return result


def show_config() -> None:
    """Print the kernels available on this machine, and why others are missing.

    The environment variable ``MICFAST_ISA`` forces one of the instruction sets listed.

    Examples
    --------
    >>> import micfast
    >>> micfast.show_config()  # doctest: +ELLIPSIS
    micfast ...
      threads          ...  (torch.set_num_threads)
    ...
    """
    values = config()
    lines = [
        f"micfast {values['micfast']} (torch {values['torch']}, numpy {values['numpy']}, "
        f"Python {values['python']}, {values['machine']})",
        f"  threads          {values['threads']}  (torch.set_num_threads)",
    ]
    if "isa" in values:
        lines += [
            f"  instruction set  {values['isa']}  of {', '.join(values['isas'])}  (MICFAST_ISA)",
            f"  compiler         {values['compiler']}",
        ]
    lines += [f"  backend {name:<8} available" for name in values["backends"]]
    lines += [
        f"  backend {name:<8} missing: {reason}" for name, reason in values["missing"].items()
    ]
    print("\n".join(lines))
