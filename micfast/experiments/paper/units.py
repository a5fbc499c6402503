"""The units of work: what each computes, and in which file its result lies.

A unit's result depends on its name, the settings and the data alone: neither on the units before
it, nor on threads, nor on the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from micfast.experiments.paper.settings import (
    BASELINES,
    FORWARD_METHODS,
    N_CROSS,
    N_ITER,
    N_TYPES,
    SUBSETS,
    DataSpec,
    Settings,
    derive_seed,
)
from micfast.experiments.paper.store import Store

if TYPE_CHECKING:
    from micfast.bank import GeneratorBank
    from micfast.data import Dataset

__all__ = ["Unit", "Worker", "list_units"]

# As the estimator has it: relative to the variance of the types, which counts as at least this.
_LEARNED, _LEAST_VARIANCE = 0.1, 1e-3
_FIGURES = ("cross", "reconstruction", "decision")

Progress = Callable[[float], object]


@dataclass(frozen=True)
class Unit:
    """One piece of work, done as a whole or not at all.

    Attributes
    ----------
    kind : str
        ``types``: the types of every class. ``grid``: all noise settings, trained and inverted.
        ``cross``, ``reconstruction``, ``decision``: Figures 7, 5 and 6, 3. ``forward``,
        ``baseline``: another method.
    data, subset : str
    seed : int
    method : str
        Of ``forward`` and ``baseline``.

    Examples
    --------
    >>> Unit("grid", "mnist", "random", 3).file
    'units/grid-mnist-random-0003.json'
    """

    kind: str
    data: str
    subset: str = "clustered"
    seed: int = 0
    method: str = ""

    @property
    def id(self) -> str:
        """The unit's name."""
        if self.kind in _FIGURES:
            return f"{self.kind}-{self.data}"
        parts = (self.kind, self.method, self.data, self.subset, f"{self.seed:04d}")
        return "-".join(part for part in parts if part)

    @property
    def file(self) -> str:
        """Path of its result in ``raw``; the unit is done when it is there."""
        if self.kind in _FIGURES:
            return f"{self.id}.npz"
        return f"units/{self.id}{'.npz' if self.kind == 'types' else '.json'}"


def list_units(settings: Settings) -> tuple[list[Unit], list[dict[str, str]]]:
    """All units of a run, in the order of work: figures, then seed by seed, the slow ones last.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    units : list of Unit
        A unit comes behind the types it needs.
    skipped : list of dict
        ``what`` can't be done here, and ``why``.
    """
    from micfast.experiments.paper.baselines import available

    units: list[Unit] = []
    for spec in settings.specs:
        units += [Unit(kind, spec.name) for kind in _FIGURES if settings.needs(spec.name, kind)]
    missing: dict[str, str] = {}
    for seed in range(settings.n_seeds):
        for spec in settings.specs:
            for subset in SUBSETS:
                if settings.needs(spec.name, f"grid-{subset}"):
                    units.append(Unit("grid", spec.name, subset, seed))
                if settings.needs(spec.name, "baseline"):
                    units += [Unit("baseline", spec.name, subset, seed, m) for m in BASELINES]
    for method in FORWARD_METHODS:
        for spec in settings.specs:
            if settings.needs(spec.name, "forward"):
                units += _forward_units(spec, settings, method)
    for method in dict.fromkeys(unit.method for unit in units if unit.method):
        reason = available(method)
        if reason is not None:
            missing[method] = reason
    units = [unit for unit in units if unit.method not in missing]
    skipped = [{"what": method, "why": reason} for method, reason in missing.items()]
    return list(_with_types(units)), skipped


def _forward_units(spec: DataSpec, settings: Settings, method: str) -> Iterator[Unit]:
    budget = spec.forward[settings.budget]
    for subset in (*SUBSETS, "full"):
        n = budget.seeds_full if subset == "full" else budget.seeds_types
        for seed in range(min(settings.n_seeds, n or settings.n_seeds)):
            yield Unit("forward", spec.name, subset, seed, method)


def _with_types(units: list[Unit]) -> Iterator[Unit]:
    """Put a unit of types before the first that needs them."""
    listed = set()
    for unit in units:
        types = Unit("types", unit.data, unit.subset, unit.seed)
        if unit.subset != "full" and types not in listed:
            listed.add(types)
            yield types
        yield unit


@dataclass
class Worker:
    """Does the units.

    Parameters
    ----------
    settings : Settings
    store : Store
        Where the types lie that other units need.
    n_threads : int or None
        For training, inversion and clustering; None: torch's number.
    """

    settings: Settings
    store: Store
    n_threads: int | None = None
    # Data sets and modules used last: units that share them follow each other.
    _loaded: dict[tuple[str, int, int | None], Dataset] = field(default_factory=dict)
    _trained: dict[str, GeneratorBank] = field(default_factory=dict)

    def run(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        """Do one unit.

        Parameters
        ----------
        unit : Unit
        progress : callable
            Called with the fraction done.

        Returns
        -------
        dict
            The content of its file.

        Raises
        ------
        StoreError
            If the types it needs are damaged.
        ValueError, OSError
            If a target isn't in the test part, or the data can't be had.
        """
        work: Callable[[Unit, Progress], dict[str, Any]] = getattr(self, f"_{unit.kind}")
        return work(unit, progress)

    def dataset(self, data: str, seed: int, *, whole_test: bool = False) -> Dataset:
        """A data set as the units of that seed see it; ``whole_test`` as Figure 7 needs it."""
        spec = self.settings.spec(data)
        key = (data, seed if spec.split_by_seed else 0, None if whole_test else spec.n_test)
        if key not in self._loaded:
            # One per data set: MNIST takes 200 MB.
            self._loaded = {k: v for k, v in self._loaded.items() if k[0] != data}
            self._loaded[key] = spec.load(key[1], key[2])
        return self._loaded[key]

    # -- types and modules -----------------------------------------------------------------------

    def _types(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        from micfast.types import select_types_per_class

        dataset, spec = self.dataset(unit.data, unit.seed), self.settings.spec(unit.data)
        types, classes, infos = select_types_per_class(
            dataset.X_train,
            dataset.y_train,
            N_TYPES,
            selection=spec.clustering if unit.subset == "clustered" else "random",
            random_state=derive_seed(unit.seed, unit.data, unit.subset, "types"),
            n_jobs=self.n_threads or -1,
        )
        return {
            "types": types.astype(np.float32),
            "labels": classes.astype(str),
            # Which of the class's training sequences a type is; -1: a mean.
            "index": np.stack([info.index for info in infos]),
        }

    def types(self, data: str, subset: str, seed: int) -> tuple[NDArray[np.float32], list[str]]:
        """Types (C, K, T, O) and labels of all classes, from the file of their unit."""
        content = self.store.read(Unit("types", data, subset, seed).file)
        return content["types"], content["labels"].tolist()

    def train(
        self,
        data: str,
        subset: str,
        seed: int,
        noise: list[tuple[float, float]],
        progress: Progress,
    ) -> GeneratorBank:
        """Train one module per noise setting and class, all in one call.

        A module's seed is made of its own setting and class, so it is the same, bit for bit, in
        whichever company it is trained. The last weights are kept and none is trained again, as in
        the paper.

        Returns
        -------
        GeneratorBank
            Setting by setting, in each the classes; labels are numbers.
        """
        import torch

        from micfast import ops
        from micfast.bank import GeneratorBank

        spec = self.settings.spec(data)
        types, labels = self.types(data, subset, seed)
        seeds = [
            derive_seed(seed, data, subset, "module", noise_in, noise_out, label)
            for noise_in, noise_out in noise
            for label in labels
        ]
        start = GeneratorBank.random(
            len(seeds),
            hidden_size=spec.hidden_size,
            input_size=types.shape[1],
            output_size=types.shape[3],
            seeds=seeds,
        )
        levels = torch.tensor(noise, dtype=torch.float64).repeat_interleave(len(labels), 0)
        result = ops.train(
            *start.weights,
            torch.from_numpy(types),
            torch.arange(len(labels)).repeat(len(noise)),
            levels[:, 0].contiguous(),
            levels[:, 1].contiguous(),
            torch.tensor(seeds),
            spec.n_episodes,
            n_threads=self.n_threads,
            progress=progress,
        )
        return GeneratorBank(*result[:5])

    def _figure_modules(self, data: str, progress: Progress) -> GeneratorBank:
        """The modules that the figures show: clustered types, first seed, the noise chosen."""
        if data not in self._trained:
            bank = self.train(data, "clustered", 0, [self.settings.noise], progress)
            self._trained = {data: bank.with_classes(self.types(data, "clustered", 0)[1])}
        return self._trained[data]

    def _invert(self, bank: GeneratorBank, X: NDArray[Any], **options: Any) -> Any:
        from micfast.inversion import invert

        return invert(bank, X, n_threads=self.n_threads, **options)

    # -- the noise grid --------------------------------------------------------------------------

    def _grid(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        dataset, spec = self.dataset(unit.data, unit.seed), self.settings.spec(unit.data)
        types, labels = self.types(unit.data, unit.subset, unit.seed)
        noise = spec.noise_levels(unit.subset)
        n_trained = len(noise) * len(labels)
        # Shares of the time: on all machines seen, training takes most of it.
        bank = self.train(
            unit.data, unit.subset, unit.seed, noise, lambda done: progress(0.8 * done)
        )
        runs, classes = [], []
        codes = np.searchsorted(labels, dataset.y_test.astype(str))
        for n_iter in (0, N_ITER):
            inversion = self._invert(
                bank,
                dataset.X_test,
                n_iter=n_iter,
                progress=lambda done: progress(0.8 + 0.2 * done),
            )
            all_errors = inversion.errors.reshape(len(codes), len(noise), len(labels))
            for s, (noise_in, noise_out) in enumerate(noise):
                errors = all_errors[:, s].astype(np.float64)
                own = errors[np.arange(len(codes)), codes]
                # A module that diverged has error NaN: never the best.
                right = np.where(np.isnan(errors), np.inf, errors).argmin(axis=1) == codes
                row = {
                    "data": unit.data,
                    "subset": unit.subset,
                    "noise_in": noise_in,
                    "noise_out": noise_out,
                    "seed": unit.seed,
                    "n_iter": n_iter,
                }
                runs.append(row | _result(right) | {"mse": float(own.mean())})
                for c, label in enumerate(labels):
                    mine = codes == c
                    result = _result(right[mine]) | {"mse": _mean(own[mine])}
                    classes.append(row | {"label": label} | result)
        return {
            "runs": runs,
            "classes": classes,
            "n_modules": n_trained,
            "not_learned": self._not_learned(bank, types, labels, noise),
        }

    def _not_learned(
        self,
        bank: GeneratorBank,
        types: NDArray[np.float32],
        labels: list[str],
        noise: list[tuple[float, float]],
    ) -> list[dict[str, Any]]:
        """The modules whose error on their own types is above a tenth of the types' variance."""
        import torch

        eye = torch.eye(types.shape[1])
        drawn = bank.generate(eye, types.shape[2], n_threads=self.n_threads).numpy()
        difference = drawn.astype(np.float64).reshape(len(noise), *types.shape) - types
        variance = types.var(axis=(1, 2), dtype=np.float64).mean(axis=-1)
        relative = np.square(difference).mean(axis=(2, 3, 4)) / np.maximum(
            variance, _LEAST_VARIANCE
        )
        return [
            {
                "noise_in": noise[s][0],
                "noise_out": noise[s][1],
                "label": labels[c],
                "relative_mse": float(relative[s, c]),
            }
            # Not `>`: NaN is not learned either.
            for s, c in np.argwhere(~(relative <= _LEARNED))
        ]

    # -- figures ---------------------------------------------------------------------------------

    def _cross(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        """Every module on up to 20 sequences of every class (Figure 7)."""
        bank = self._figure_modules(unit.data, progress)
        labels = list(bank.classes)
        dataset = self.dataset(unit.data, unit.seed, whole_test=True)
        content: dict[str, Any] = {"labels": np.array(labels)} | self._setting()
        for part, X, y in (
            ("train", dataset.X_train, dataset.y_train.astype(str)),
            ("test", dataset.X_test, dataset.y_test.astype(str)),
        ):
            means, counts = [], []
            for label in labels:
                members = np.flatnonzero(y == label)
                rng = np.random.default_rng(derive_seed(unit.seed, unit.data, part, "cross", label))
                chosen = np.sort(rng.permutation(members)[:N_CROSS])
                errors = self._invert(bank, X[chosen], n_iter=N_ITER).errors
                means.append(errors.astype(np.float64).mean(axis=0))
                counts.append(len(chosen))
            content[part] = np.stack(means, axis=1)
            content[f"n_{part}"] = np.array(counts)
        return content

    def _reconstruction(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        """A class's types and four unseen sequences, as its module draws them (Figures 5, 6)."""
        label, index = self.settings.targets[unit.data]
        all_types, labels = self.types(unit.data, unit.subset, unit.seed)
        targets = self._test_sequences(unit, label, index, N_TYPES)
        module = self._figure_modules(unit.data, progress).select(label)
        types = all_types[labels.index(label)]
        eye = np.eye(len(types), dtype=np.float32)
        # No iteration: a type's own input is known, and its projection is itself.
        of_types = self._invert(module, types, n_iter=0, init=eye)
        of_targets = self._invert(module, targets, n_iter=N_ITER)
        return {
            "label": np.array(label),
            "types": types,
            "types_drawn": of_types.reconstructions(n_threads=self.n_threads),
            "types_errors": of_types.errors[:, 0],
            "targets": targets,
            "targets_drawn": of_targets.reconstructions(n_threads=self.n_threads),
            "targets_latents": of_targets.latents[:, 0],
            "targets_errors": of_targets.errors[:, 0],
        } | self._setting()

    def _decision(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        """One target in every module (Figure 3)."""
        label, index = self.settings.targets[unit.data]
        target = self._test_sequences(unit, label, index, 1)
        bank = self._figure_modules(unit.data, progress)
        found = self._invert(bank, target, n_iter=N_ITER, return_history=True)
        return {
            "label": np.array(label),
            "index": np.array(index),
            "target": target[0],
            "labels": np.array(bank.classes),
            "drawn": found.reconstructions("all", n_threads=self.n_threads)[0],
            "errors": found.errors[0],
            "latents": found.latents[0],
            "error_history": found.error_history[:, 0],
        } | self._setting()

    def _setting(self) -> dict[str, Any]:
        """How the modules of the figures were trained."""
        noise_in, noise_out = self.settings.noise
        return {
            "subset": np.array("clustered"),
            "seed": np.array(0),
            "noise_in": np.array(noise_in),
            "noise_out": np.array(noise_out),
        }

    def _test_sequences(
        self, unit: Unit, label: str, index: int, count: int
    ) -> NDArray[np.float32]:
        """Test sequences of a class, from `index` on and, at the end, from the first on."""
        dataset = self.dataset(unit.data, unit.seed)
        members = np.flatnonzero(dataset.y_test.astype(str) == label)
        if not 0 <= index < len(members):
            raise ValueError(
                f"reproduce: targets must name a test sequence: class {label} of {unit.data} has "
                f"{len(members)}, numbered from 0, got {index}"
            )
        return dataset.X_test[members[np.arange(index, index + count) % len(members)]]

    # -- other methods ---------------------------------------------------------------------------

    def _forward(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        from micfast.experiments.paper import baselines

        dataset, spec = self.dataset(unit.data, unit.seed), self.settings.spec(unit.data)
        budget = spec.forward[self.settings.budget]
        if unit.subset == "full":
            X, y, epochs = dataset.X_train, dataset.y_train.astype(str), budget.epochs_full
            if budget.n_full is not None and budget.n_full < len(X):
                rng = np.random.default_rng(derive_seed(unit.seed, unit.data, "full"))
                chosen = np.sort(rng.permutation(len(X))[: budget.n_full])
                X, y = X[chosen], y[chosen]
        else:
            X, y, epochs = *self._labelled_types(unit), budget.epochs_types
        train = baselines.forward_keras if unit.method == "keras-lstm" else baselines.forward_torch
        n_correct = train(
            X,
            y,
            dataset.X_test,
            dataset.y_test.astype(str),
            hidden_size=spec.hidden_size * len(dataset.classes),
            epochs=epochs,
            batch_size=spec.batch_size,
            # One network, and one order of the sequences, for each set it is trained on.
            seed=derive_seed(unit.seed, unit.data, unit.subset, "forward") % 2**31,
            progress=lambda done, total: progress(done / total),
        )
        n_test = len(dataset.y_test)
        row = _method_row(unit) | {"epochs": epochs, "n_train": len(X)}
        return {"forward": [row | _counted(n_test, n_correct)]}

    def _baseline(self, unit: Unit, progress: Progress) -> dict[str, Any]:
        from micfast.experiments.paper import baselines

        dataset = self.dataset(unit.data, unit.seed)
        X, y = self._labelled_types(unit)
        if unit.method == "minirocket":
            seed = derive_seed(unit.seed, unit.data, unit.subset, "minirocket") % 2**31
            predictions = baselines.minirocket(X, y, dataset.X_test, seed=seed)
        else:
            metric: Any = unit.method.removeprefix("1nn-")
            predictions = baselines.nearest_neighbour(X, y, dataset.X_test, metric=metric)
        right = predictions == dataset.y_test.astype(str)
        return {"baselines": [_method_row(unit) | {"n_train": len(X)} | _result(right)]}

    def _labelled_types(self, unit: Unit) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
        """The types of all classes as a training set (C K, T, O) with its labels."""
        types, labels = self.types(unit.data, unit.subset, unit.seed)
        return types.reshape(-1, *types.shape[2:]), np.repeat(labels, types.shape[1])


def _method_row(unit: Unit) -> dict[str, Any]:
    return {
        "method": unit.method,
        "data": unit.data,
        "subset": unit.subset,
        "seed": unit.seed,
    }


def _result(right: NDArray[np.bool_]) -> dict[str, Any]:
    return _counted(len(right), int(right.sum()))


def _counted(n_test: int, n_correct: int) -> dict[str, Any]:
    accuracy = n_correct / n_test if n_test else None
    return {"n_test": n_test, "n_correct": n_correct, "accuracy": accuracy}


def _mean(values: NDArray[np.float64]) -> float | None:
    """The mean; None of no values (a class that the test part lacks)."""
    return float(values.mean()) if len(values) else None
