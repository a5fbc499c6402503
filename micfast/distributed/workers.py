"""What a task may use of the worker it runs on, and how it reports what went wrong."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["named", "threads_of_task"]


def threads_of_task() -> int | None:
    """Kernel threads of the running task; None for as many as outside of Dask.

    A worker's tasks share its ``nthreads``: many chunks take one each, a chunk alone takes all. In
    the pool of the threaded scheduler, which runs one task per processor, it is one.
    """
    worker = _worker()
    if worker is not None:
        state = worker.state
        return max(1, state.nthreads // max(1, state.executing_count))
    return None if threading.current_thread() is threading.main_thread() else 1


def _worker() -> Any:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None


@contextmanager
def named(what: str) -> Iterator[None]:
    """Put the name of a part of the work before the message of what it raises."""
    try:
        yield
    except Exception as error:
        # Types whose constructor takes a message, so that they reach the client as they are.
        known = (TypeError, ValueError, MemoryError)
        kind = next((one for one in known if isinstance(error, one)), RuntimeError)
        raise kind(f"{what}: {error}") from error
