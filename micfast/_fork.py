"""Lets torch work on in a forked process."""

from __future__ import annotations

import os
import sys

__all__: list[str] = []


def _keep_to_one_thread() -> None:
    """Hold torch to one thread in a forked child.

    The threads of torch's OpenMP and MKL do not outlive a fork, but the libraries in the child
    still wait for them: if the parent ever used two, the child's first large sum or product hangs
    for good. torch's own DataLoader does the same in its workers.
    """
    set_num_threads = getattr(sys.modules.get("torch"), "set_num_threads", None)
    if set_num_threads is not None:
        set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_to_one_thread)
