"""Types that are samples: drawn at random, or the first ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from micfast.training.selections import SELECTIONS, Selection, TypeSelection, take_samples

__all__ = ["First", "Random"]


@SELECTIONS.register("random")
@dataclass(frozen=True)
class Random(Selection):
    """Samples drawn without replacement.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.training.types import select_types
    >>> types, info = select_types(np.eye(9), n_types=4, selection="random", random_state=0)
    >>> len({*info.index.tolist()}), bool((types[..., 0] == np.eye(9)[info.index]).all())
    (4, True)
    """

    name: ClassVar[str] = "random"

    def select(
        self, X: NDArray[Any], n_types: int, seed: np.random.SeedSequence, threads: int
    ) -> tuple[NDArray[Any], TypeSelection]:
        """See :meth:`Selection.select`."""
        return take_samples(X, np.random.default_rng(seed).choice(len(X), n_types, replace=False))


@SELECTIONS.register("first")
@dataclass(frozen=True)
class First(Selection):
    """The first samples.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast.training.types import select_types
    >>> select_types(np.eye(9), n_types=4, selection="first")[1].index.tolist()
    [0, 1, 2, 3]
    """

    name: ClassVar[str] = "first"

    def select(
        self, X: NDArray[Any], n_types: int, seed: np.random.SeedSequence, threads: int
    ) -> tuple[NDArray[Any], TypeSelection]:
        """See :meth:`Selection.select`."""
        return take_samples(X, np.arange(n_types))
