"""What is known of each module's training, and as a table."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ModuleReport", "TrainingReport"]

_HEADERS = (
    "class",
    "module",
    "relative error",
    "method",
    "steps",
    "attempts",
    "seconds",
    "learned",
)


@dataclass
class ModuleReport:
    """How one module's training went.

    Attributes
    ----------
    attempts : int
        Trainings, the first one included.
    seeds : list of int
        One per attempt.
    mse : float
        Noise-free mean squared error of the types, of the best attempt.
    relative_mse : float
        That over the types' variance.
    learned : bool
    reason : str
        Why it was not learned; empty if it was.
    steps : dict
        Steps (episodes, Jacobians) of the best attempt by method, in their order.
    seconds : float
        Time of the training runs it took part in.
    loss_curve : ndarray
        Of the best attempt.
    """

    attempts: int = 0
    seeds: list[int] = field(default_factory=list)
    mse: float = math.nan
    relative_mse: float = math.nan
    learned: bool = False
    reason: str = ""
    steps: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    loss_curve: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=np.float32))


class TrainingReport(list[dict[str, Any]]):
    """A list of dicts, one per module, that prints as a table.

    Examples
    --------
    >>> from micfast.training.report import ModuleReport, TrainingReport
    >>> facts = {"label": "a", "module": 0, "n_samples": 9, "n_types_found": 4}
    >>> steps = {"projected": 500}
    >>> done = ModuleReport(1, [7], 0.01, 0.02, True, "", steps, 0.5)
    >>> TrainingReport([facts | vars(done)])
    class      module    relative error  method       steps    attempts    seconds  learned
    -------  --------  ----------------  ---------  -------  ----------  ---------  ---------
    a               1             2.00%  projected      500           1       0.50  yes
    <BLANKLINE>
    1 of 1 modules learned their types in 0.50 s
    """

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table's rows, as text."""
        for one in self:
            yield (
                str(one["label"]),
                f"{one.get('view', 'raw')} {one['module'] + 1}".removeprefix("raw "),
                f"{one['relative_mse']:.2%}",
                ", ".join(one["steps"]),
                ", ".join(map(str, one["steps"].values())),
                str(one["attempts"]),
                f"{one['seconds']:.2f}",
                "yes" if one["learned"] else f"no: {one['reason']}",
            )

    @property
    def summary(self) -> str:
        """How many modules learned, in what time."""
        learned = sum(one["learned"] for one in self)
        # A report counts the runs in which its module took part: the most retried one saw them all.
        seconds = max((one["seconds"] for one in self), default=0.0)
        return f"{learned} of {len(self)} modules learned their types in {seconds:.2f} s"

    def table(self, form: str = "simple") -> str:
        """The table in one of tabulate's formats."""
        from tabulate import tabulate

        align = ("left", "right", "right", "left", "right", "right", "right", "left")
        rows = list(self.rows())
        return tabulate(
            rows, _HEADERS, form, disable_numparse=True, colalign=align if rows else None
        )

    def __repr__(self) -> str:
        return f"{self.table()}\n\n{self.summary}"

    def _repr_html_(self) -> str:
        return f"{self.table('html')}<p>{html.escape(self.summary)}</p>"
