"""Progress of long work: a bar, the caller's own function, or nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

__all__ = ["Progress", "Report", "part_of", "reporter"]

# What users pass: whether to show a bar, or a function of the fraction done.
Progress: TypeAlias = "bool | Callable[[float], object]"
# What the work calls with the fraction done, if anything.
Report: TypeAlias = "Callable[[float], object] | None"


@contextlib.contextmanager
def reporter(progress: Progress, description: str, *, total: int, unit: str) -> Iterator[Report]:
    """Yield a function that takes the fraction done, from 0 to 1, or None.

    Parameters
    ----------
    progress : bool or callable
        True shows a bar with the time left; a callable is given back as it is.
    description, unit : str
        Texts of the bar.
    total : int
        How many units there are.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield None
    else:
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=description, unit=unit) as bar:
            yield lambda fraction: bar.update(round(fraction * total) - bar.n)


def part_of(report: Report, begin: float, end: float) -> Report:
    """Progress of one part of the work as progress of the whole."""
    if report is None:
        return None
    return lambda fraction: report(begin + fraction * (end - begin))
