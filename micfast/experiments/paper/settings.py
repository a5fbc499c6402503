"""What is run: the data sets with the paper's settings, the experiments, the choices of one run.

Loads and computes nothing; everything here is a plain value that the manifest can hold.
"""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micfast.data import Dataset

__all__ = [
    "BASELINES",
    "DATA_SETS",
    "DEFAULT_TRAINING",
    "EXPERIMENTS",
    "FORWARD_METHODS",
    "N_CROSS",
    "N_ITER",
    "N_TYPES",
    "SUBSETS",
    "DataSpec",
    "ForwardBudget",
    "Settings",
    "derive_seed",
]

SUBSETS = ("clustered", "random")
FORWARD_METHODS = ("keras-lstm", "torch-lstm")
# The paper's way with modules that micfast's default training has trained, and other classifiers.
DEFAULT_TRAINING = "mic-default-training"
BASELINES = (DEFAULT_TRAINING, "1nn-euclidean", "1nn-dtw", "minirocket")
BUDGETS = ("default", "full")
N_TYPES, N_ITER = 4, 50
# Sequences per class and part of the cross-reconstructions (Figure 7).
N_CROSS = 20

# Experiment -> the data set it is about (None: all) and the kinds of work it needs.
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
class ForwardBudget:
    """How long the forward LSTM (Tables 5 and 6) is trained.

    Attributes
    ----------
    epochs_types, epochs_full : int
        Epochs on the 4 types per class, and on the full training part.
    n_full : int or None
        Training sequences of the full part that are used, drawn by seed; None: all.
    seeds_types, seeds_full : int or None
        How many of the run's seeds are trained; None: all.
    """

    epochs_types: int
    epochs_full: int
    n_full: int | None = None
    seeds_types: int | None = None
    seeds_full: int | None = None


# A step of Adam takes about 31 ms (torch) or 45 ms (Keras) for characters and 16 ms for MNIST, on
# one core with AVX-512. MNIST types are memorised after 100 epochs, and the accuracy stays; 10000
# images give 0.94 after 4 epochs. Characters train unsteadily over 205 steps: on their types the
# training accuracy still moves between 0.4 and 0.7 after 500 epochs, on the full set it is 0.5 to
# 0.6 after 10. Their budgets are what time allows, not where training has converged.
FORWARD_BUDGETS = {
    "mnist": {
        "default": ForwardBudget(150, 10, n_full=10000, seeds_full=3),
        "full": ForwardBudget(150, 20, seeds_full=3),
    },
    "characters": {
        "default": ForwardBudget(200, 20, seeds_types=3, seeds_full=1),
        "full": ForwardBudget(1000, 100, seeds_full=3),
    },
}


# eq=False: two specifications are the same if they are one object, so they can be cache keys.
@dataclass(frozen=True, eq=False)
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
        Selection of the clustered types (centroids).
    hidden_size, n_episodes : int
        Of one module.
    noise_in : tuple of float
        Noise levels on the inputs.
    noise_out : mapping of str to tuple of float
        Noise levels on the targets, for each of :data:`SUBSETS`.
    target : tuple
        Default target of Figure 3, whose class is that of Figures 5 and 6: its label, and its
        index among the test sequences of the class.
    batch_size : int
        Of the forward LSTM.
    forward : mapping of str to ForwardBudget
        Budgets ``default`` and ``full``.
    """

    name: str
    load: Callable[[int, int | None], Dataset]
    n_test: int | None
    split_by_seed: bool
    clustering: str
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

    def identity(self, budget: str) -> dict[str, Any]:
        """What results depend on (the data themselves are compared by their checksums)."""
        names = ("n_test", "clustering", "hidden_size", "n_episodes", "noise_in", "batch_size")
        return {name: getattr(self, name) for name in names} | {
            "noise_out": {subset: self.noise_out[subset] for subset in SUBSETS},
            "forward": asdict(self.forward[budget]),
        }


def _characters(seed: int, n_test: int | None) -> Dataset:
    from micfast.data import load_characters

    return load_characters(n_test=n_test, random_state=seed)


def _mnist(seed: int, n_test: int | None) -> Dataset:
    from micfast.data import load_mnist

    # Figure 7 needs no more than 20 per class, which the paper's 1000 have.
    return load_mnist(n_test=1000 if n_test is None else n_test)


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
            noise_out=dict.fromkeys(SUBSETS, (0.0, 0.0001, 0.0002)),
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
        specs: Iterable[DataSpec] | None = None,
    ) -> Settings:
        """Check the choices and fill in the defaults; arguments as those of ``reproduce``."""
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
        if isinstance(seeds, bool) or not isinstance(seeds, numbers.Integral) or seeds < 1:
            raise ValueError(f"reproduce: seeds must be an integer of at least 1, got {seeds!r}")
        if budget not in BUDGETS:
            raise ValueError(
                f"reproduce: budget must be one of {', '.join(BUDGETS)}, got {budget!r}"
            )
        if len(noise) != 2 or not all(math.isfinite(x) and x >= 0 for x in noise):
            raise ValueError(
                f"reproduce: noise must be two finite numbers of at least 0, got {noise!r}"
            )
        return cls(
            tuple(known[name] for name in names),
            tuple(experiments),
            int(seeds),
            budget,
            (float(noise[0]), float(noise[1])),
            {name: known[name].target for name in names},
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
        """All that the raw results depend on except data and programs; as JSON has it."""
        content = {
            "experiments": self.experiments,
            "seeds": self.n_seeds,
            "budget": self.budget,
            "noise": self.noise,
            "targets": self.targets,
            "n_types": N_TYPES,
            "n_iter": N_ITER,
            "data": {spec.name: spec.identity(self.budget) for spec in self.specs},
        }
        return json.loads(json.dumps(content))


def _chosen(argument: str, chosen: Iterable[str] | None, known: Iterable[str]) -> list[str]:
    """The known names that are chosen, in their own order."""
    if isinstance(chosen, str):
        raise TypeError(f"reproduce: {argument} must be a sequence of names, got {chosen!r}")
    names = list(known if chosen is None else chosen)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"reproduce: {argument} must be of {', '.join(known)}, "
            f"got {', '.join(map(repr, unknown)) or 'nothing'}"
        )
    return [name for name in known if name in names]


def derive_seed(*parts: str | float) -> int:
    """A 63-bit seed that depends on all the parts (seed of the run, data set, purpose) alone.

    Examples
    --------
    >>> derive_seed(0, "mnist", "types") == derive_seed(0, "mnist", "types")
    True
    >>> derive_seed(0, "mnist", "types") == derive_seed(1, "mnist", "types")
    False
    """
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
