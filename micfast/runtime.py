"""The process micfast runs in: its processors, threads and forks, and the folder it came from."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["checkout_problem", "n_processors", "n_threads", "parallel_map", "warn_of_checkout"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def n_processors() -> int:
    """Processors that this process may use (its affinity mask, where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def n_threads(n_jobs: Any) -> int:
    """Number of threads for joblib's meaning of ``n_jobs``.

    Raises
    ------
    ValueError
        If it is neither None nor an integer other than 0.
    """
    if n_jobs is None:
        return 1
    if isinstance(n_jobs, bool) or not hasattr(n_jobs, "__index__") or n_jobs == 0:
        raise ValueError(f"n_jobs must be None, -1 or an integer of at least 1, got {n_jobs!r}")
    return int(n_jobs) if n_jobs > 0 else max(1, n_processors() + 1 + int(n_jobs))


def parallel_map(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int
) -> Iterator[_Result]:
    """Map in the items' order; threads suffice, since NumPy works outside the GIL."""
    if threads == 1:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(function, items)


# -- forks ---------------------------------------------------------------------------------------


def _limit_torch_to_one_thread() -> None:
    """Keep a forked child from waiting for threads that did not survive the fork.

    torch's OpenMP and MKL threads exist in the parent only, but the libraries in the child still
    wait for them: if the parent ever used two, the child's first large sum or product hangs.
    torch's own DataLoader limits its workers in the same way.
    """
    set_num_threads = getattr(sys.modules.get("torch"), "set_num_threads", None)
    if set_num_threads is not None:
        set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit_torch_to_one_thread)


# -- source checkouts ----------------------------------------------------------------------------


def checkout_problem() -> str | None:
    """What is wrong if Python imported a source checkout in the place of the kernels; else None.

    After ``pip install .``, Python started in the checkout finds the package's sources first, which
    have no kernels. A build that asked for none (``MICFAST_BUILD_EXT=OFF``) is no problem.
    """
    from pathlib import Path

    package = Path(__file__).resolve().parent
    # An editable install finds the kernels elsewhere.
    if not (package.parent / "csrc").is_dir() or _has_kernels(package) or _finds_kernels():
        return None
    installed = _installed(hidden_by=package.parent)
    if installed is None:
        advice = "micfast is not installed: run `pip install .`"
    elif _has_kernels(installed):
        advice = f"the installed package is {installed}: start Python in another folder"
    else:
        return None
    return (
        f"micfast was imported from the source folder {package}, which has no compiled kernels, "
        f"so the PyTorch fallback runs, hundreds of times slower; {advice}"
    )


def warn_of_checkout() -> None:
    """Warn of :func:`checkout_problem`."""
    problem = checkout_problem()
    if problem is not None:
        warnings.warn(problem, RuntimeWarning, stacklevel=2)


def _has_kernels(package: Path) -> bool:
    from importlib.machinery import EXTENSION_SUFFIXES

    return any((package / f"_C{suffix}").exists() for suffix in EXTENSION_SUFFIXES)


def _finds_kernels() -> bool:
    from importlib.util import find_spec

    return find_spec("micfast._C") is not None


def _installed(hidden_by: Path) -> Path | None:
    """The package's folder on the path behind another folder."""
    from importlib.machinery import PathFinder
    from pathlib import Path

    others = [folder for folder in sys.path if Path(folder or ".").resolve() != hidden_by]
    spec = PathFinder.find_spec("micfast", others)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
