"""Items dealt to the workers of a cluster, each worked on as it would be here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import dask

from micfast.distributed.workers import named, threads_of_task
from micfast.kernels.config import config

__all__ = ["check_client", "deal"]

# Items of a task: enough of them to fill the lanes of the kernels, few enough to be dealt evenly.
_LEAST_ITEMS, _TASKS_PER_THREAD = 16, 4


def check_client(where: str, client: Any) -> None:
    """Require a synchronous client of a cluster.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if not hasattr(client, "submit") or not hasattr(client, "nthreads") or client.asynchronous:
        raise TypeError(f"{where}: client must be a synchronous distributed.Client, got {client!r}")


def deal(
    client: Any, work: Callable[..., Sequence[Any]], model: Any, *columns: Sequence[Any]
) -> list[Any]:
    """Let workers answer for some of the items each.

    Parameters
    ----------
    client : distributed.Client
    work : callable
        Called on a worker with the model, the number of threads to work on and some items of each
        column; gives as many answers.
    model : object
    *columns : sequences of the same length
        The first names the items in messages.

    Returns
    -------
    list
        In the items' order.

    Warns
    -----
    UserWarning
        If workers run another instruction set than this process, which changes the last bits.
    """
    threads = sum(client.nthreads().values())
    if threads == 0:
        raise RuntimeError("the cluster has no workers: see Client.wait_for_workers")
    _warn_of_other_isas(client)
    n_items = len(columns[0])
    n_tasks = max(threads, min(n_items // _LEAST_ITEMS, _TASKS_PER_THREAD * threads))
    groups = [range(first, n_items, n_tasks) for first in range(min(n_tasks, n_items))]
    # The data stay with the scheduler until they are needed, so that no worker's end loses them.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
        futures = [
            client.submit(
                _work, work, model, [[column[i] for i in group] for column in columns], pure=False
            )
            for group in groups
        ]
    answers: list[Any] = [None] * n_items
    for group, found in zip(groups, client.gather(futures), strict=True):
        for i, one in zip(group, found, strict=True):
            answers[i] = one
    return answers


def _work(work: Callable[..., Sequence[Any]], model: Any, columns: list[list[Any]]) -> Any:
    names = ", ".join(map(repr, columns[0][:5])) + ", ..." * (len(columns[0]) > 5)
    with named(f"classes {names}"):
        return work(model, threads_of_task(), *columns)


def _isa() -> str | None:
    return config().get("isa")


def _warn_of_other_isas(client: Any) -> None:
    own = _isa()
    others = {worker: isa for worker, isa in client.run(_isa).items() if isa != own}
    if others:
        listed = ", ".join(f"{worker} ({isa})" for worker, isa in others.items())
        warnings.warn(
            f"workers run another instruction set than this process ({own}): {listed}; the last "
            "bits of what they compute may differ. Set MICFAST_ISA to one that all have, for "
            "workers and client",
            stacklevel=6,
        )
