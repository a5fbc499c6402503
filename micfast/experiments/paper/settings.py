"""What is run: the data sets with the paper's settings, the experiments, the choices of one run.

Loads and computes nothing; everything here is a plain value that the manifest can hold.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.experiments.paper.baselines import FORWARD_BUDGETS, ForwardBudget

if TYPE_CHECKING:
    from micfast.data import Dataset
    from micfast.types import Selection

__all__ = [
    "BASELINES",
    "BUDGETS",
    "DATA_SETS",
    "EXPERIMENTS",
    "FORWARD_METHODS",
    "N_CROSS",
    "N_ITER",
    "N_TYPES",
    "SUBSETS",
    "DataSpec",
    "Settings",
    "derive_seed",
]

SUBSETS = ("clustered", "random")
FORWARD_METHODS = ("keras-lstm", "torch-lstm")
BASELINES = ("1nn-euclidean", "1nn-dtw", "minirocket")
BUDGETS = ("default", "full")
N_TYPES, N_ITER = 4, 50
# Sequences per class and part of the cross-reconstructions (Figure 7).
N_CROSS = 20

# Experiment -> data sets it is about (None: all) and the kinds of work it needs.
EXPERIMENTS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "figure3": (None, ("decision",)),
    "figure5": ("mnist", ("reconstruction",)),
    "figure6": ("characters", ("reconstruction",)),
    "figure7": (None, ("cross",)),
    "table1": (None, ("grid",)),
    "table2": ("mnist", ("grid-clustered",)),
    "table3": ("mnist", ("grid-clustered",)),
    "table4": (None, ("grid",)),
    "table5": (None, ("forward",)),
    "table6": (None, ("grid", "forward")),
    "table7": ("mnist", ("grid-random",)),
    "table8": ("characters", ("grid-clustered",)),
    "table9": ("characters", ("grid-random",)),
    "table10": ("mnist", ("grid-random",)),
    "table11": ("characters", ("grid-clustered",)),
    "table12": ("characters", ("grid-random",)),
    "table13": (None, ("grid",)),
    "beyond": (None, ("grid", "baseline")),
}


@dataclass(frozen=True)
class DataSpec:
    """A data set and the paper's settings for it.

    Attributes
    ----------
    name : str
        Used in file names and tables.
    load : callable
        ``load(seed, n_test)`` gives a :class:`micfast.data.Dataset`; ``n_test=None`` asks for the
        whole test part, which only the cross-reconstructions use.
    n_test : int or None
        Test sequences of every other experiment.
    split_by_seed : bool
        Whether `load` depends on the seed.
    clustering : {"kmeans", "dtw-kmeans"}
        How the clustered types are found (centroids).
    hidden_size, n_episodes : int
        Of one module.
    noise_in : tuple of float
        Noise levels on the inputs.
    noise_out : mapping of str to tuple of float
        Noise levels on the targets, for each of :data:`SUBSETS`.
    target : tuple
        Default target of Figure 3, whose class is that of Figures 5 and 6: its label, and its
        place among the test sequences of the class.
    batch_size : int
        Of the forward LSTM.
    forward : mapping of str to ForwardBudget
        For each of :data:`BUDGETS`.
    """

    name: str
    load: Callable[[int, int | None], Dataset]
    n_test: int | None
    split_by_seed: bool
    clustering: Selection
    hidden_size: int
    n_episodes: int
    noise_in: tuple[float, ...]
    noise_out: Mapping[str, tuple[float, ...]]
    target: tuple[str, int]
    batch_size: int
    forward: Mapping[str, ForwardBudget]

    def noise_levels(self, subset: str) -> list[tuple[float, float]]:
        """All pairs of noise_in and noise_out of a subset, the paper's nine."""
        return [(i, o) for i in self.noise_in for o in self.noise_out[subset]]

    def identity(self) -> dict[str, Any]:
        """What results depend on, as JSON has it (the loader stands in the data's checksum)."""
        return {
            "n_test": self.n_test,
            "clustering": self.clustering,
            "hidden_size": self.hidden_size,
            "n_episodes": self.n_episodes,
            "noise_in": list(self.noise_in),
            "noise_out": {subset: list(self.noise_out[subset]) for subset in SUBSETS},
            "batch_size": self.batch_size,
        }


def _characters(seed: int, n_test: int | None) -> Dataset:
    from micfast.data import load_characters

    return load_characters(n_test=n_test, random_state=seed)


def _mnist(seed: int, n_test: int | None) -> Dataset:
    from micfast.data import load_mnist

    # Figure 7 needs no more than 20 per class, which the paper's 1000 have.
    return load_mnist(n_test=1000 if n_test is None else n_test)


_CHARACTERS_OUT = (0.0, 0.0001, 0.0002)

DATA_SETS = {
    spec.name: spec
    for spec in (
        DataSpec(
            name="mnist",
            load=_mnist,
            n_test=1000,
            split_by_seed=False,
            clustering="kmeans",
            hidden_size=20,
            n_episodes=20000,
            noise_in=(0.0, 0.1, 0.2),
            noise_out={"clustered": (0.0, 0.1, 0.25), "random": (0.0, 0.1, 0.2)},
            target=("3", 0),
            batch_size=32,
            forward=FORWARD_BUDGETS["mnist"],
        ),
        DataSpec(
            name="characters",
            load=_characters,
            n_test=400,
            split_by_seed=True,
            clustering="dtw-kmeans",
            hidden_size=10,
            n_episodes=40000,
            noise_in=(0.0, 0.1, 0.2),
            noise_out={"clustered": _CHARACTERS_OUT, "random": _CHARACTERS_OUT},
            target=("a", 0),
            batch_size=10,
            forward=FORWARD_BUDGETS["characters"],
        ),
    )
}


@dataclass(frozen=True)
class Settings:
    """The choices of one run, checked.

    Attributes
    ----------
    specs : tuple of DataSpec
    experiments : tuple of str
        In the order of :data:`EXPERIMENTS`.
    n_seeds : int
        Seeds 0 to n_seeds - 1.
    budget : {"default", "full"}
    noise : tuple of float
        Noise levels (in, out) of the modules in the figures.
    targets : mapping of str to tuple
        Data set -> label and index of its target.

    Examples
    --------
    >>> settings = Settings.make(only=["table13"], data=["characters"], seeds=3)
    >>> settings.needs("characters", "grid-random"), settings.needs("characters", "forward")
    (True, False)
    """

    specs: tuple[DataSpec, ...]
    experiments: tuple[str, ...]
    n_seeds: int
    budget: str
    noise: tuple[float, float]
    targets: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        *,
        only: Iterable[str] | None = None,
        data: Iterable[str] | None = None,
        seeds: int = 10,
        budget: str = "default",
        noise: Sequence[float] = (0.0, 0.0),
        targets: Mapping[str, tuple[str, int]] | None = None,
        specs: Iterable[DataSpec] | None = None,
    ) -> Settings:
        """Check the choices and fill in what isn't chosen; arguments as :func:`run.reproduce`'s.

        Raises
        ------
        ValueError
            If a name is unknown, a number is out of range, or nothing is left to do.
        """
        known = {spec.name: spec for spec in specs or DATA_SETS.values()}
        names = _chosen("data", data, known)
        experiments = [
            name
            for name in _chosen("only", only, EXPERIMENTS)
            if EXPERIMENTS[name][0] in (None, *names)
        ]
        if not experiments:
            raise ValueError(
                f"reproduce: only and data must leave something to do, but {', '.join(only or ())} "
                f"is not about {', '.join(names)}"
            )
        if isinstance(seeds, bool) or not isinstance(seeds, int | np.integer) or seeds < 1:
            raise ValueError(f"reproduce: seeds must be an integer of at least 1, got {seeds!r}")
        if budget not in BUDGETS:
            raise ValueError(
                f"reproduce: budget must be one of {', '.join(BUDGETS)}, got {budget!r}"
            )
        if len(noise) != 2 or not all(math.isfinite(x) and x >= 0 for x in noise):
            raise ValueError(
                f"reproduce: noise must be two finite numbers of at least 0, got {noise!r}"
            )
        targets = targets or {}
        for name in targets:
            if name not in names:
                raise ValueError(
                    f"reproduce: targets must be for {' or '.join(names)}, got {name!r}"
                )
        return cls(
            tuple(known[name] for name in names),
            tuple(experiments),
            int(seeds),
            budget,
            (float(noise[0]), float(noise[1])),
            {name: targets.get(name, known[name].target) for name in names},
        )

    def spec(self, data: str) -> DataSpec:
        """The data set of that name."""
        return next(spec for spec in self.specs if spec.name == data)

    def needs(self, data: str, kind: str) -> bool:
        """Whether an experiment needs a kind of work on a data set; "grid" stands for both."""
        return any(
            about in (None, data) and not {kind, kind.split("-")[0]}.isdisjoint(kinds)
            for about, kinds in (EXPERIMENTS[name] for name in self.experiments)
        )

    def identity(self) -> dict[str, Any]:
        """All that the raw results depend on, but data and programs; as JSON has it."""
        text = {
            "experiments": list(self.experiments),
            "seeds": self.n_seeds,
            "budget": self.budget,
            "noise": list(self.noise),
            "targets": {name: list(target) for name, target in self.targets.items()},
            "n_types": N_TYPES,
            "n_iter": N_ITER,
            "data": {
                spec.name: spec.identity() | {"forward": vars(spec.forward[self.budget])}
                for spec in self.specs
            },
        }
        return json.loads(json.dumps(text))


def _chosen(argument: str, chosen: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    """The known names that are chosen, in their own order."""
    known = list(known)
    if chosen is None:
        return known
    if isinstance(chosen, str):
        raise TypeError(f"reproduce: {argument} must be a sequence of names, got {chosen!r}")
    names = list(chosen)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"reproduce: {argument} must be of {', '.join(known)}, "
            f"got {', '.join(map(repr, unknown)) or 'nothing'}"
        )
    return [name for name in known if name in names]


def derive_seed(*parts: str | float) -> int:
    """A 63-bit seed that depends on all the parts and on nothing else.

    Parameters
    ----------
    *parts : str, int or float
        The run's seed, the data set, the purpose and so on.

    Returns
    -------
    int

    Examples
    --------
    >>> derive_seed(0, "mnist", "types") == derive_seed(0, "mnist", "types")
    True
    >>> derive_seed(0, "mnist", "types") == derive_seed(1, "mnist", "types")
    False
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
