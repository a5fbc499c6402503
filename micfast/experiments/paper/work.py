"""The computations of a reproduction: tasks, and one plain function for each kind of them.

The result of a task depends on its name, the settings and the data alone: neither on the tasks
before it, nor on threads, nor on the time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from micfast.experiments.paper.settings import (
    BASELINES,
    DEFAULT_TRAINING,
    FORWARD_METHODS,
    N_CROSS,
    N_ITER,
    N_TYPES,
    SUBSETS,
    DataSpec,
    Settings,
    derive_seed,
)

if TYPE_CHECKING:
    from micfast import GeneratorBank, Inversion
    from micfast.data import Dataset

__all__ = ["FIGURES", "Context", "Task", "compute", "list_tasks", "load_dataset"]

FIGURES = ("cross", "reconstruction", "decision")
# A module has learned its types if its error is at most this part of their variance.
_LEARNED, _LEAST_VARIANCE = 0.1, 1e-3

Content = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One unit of work, done as a whole or not at all.

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
    >>> Task("grid", "mnist", "random", 3).file
    'units/grid-mnist-random-0003.json'
    """

    kind: str
    data: str
    subset: str = "clustered"
    seed: int = 0
    method: str = ""

    @property
    def id(self) -> str:
        """The task's name."""
        if self.kind in FIGURES:
            return f"{self.kind}-{self.data}"
        parts = (self.kind, self.method, self.data, self.subset, f"{self.seed:04d}")
        return "-".join(part for part in parts if part)

    @property
    def file(self) -> str:
        """Path of its result in ``raw``; the task is done when it is there."""
        if self.kind in FIGURES:
            return f"{self.id}.npz"
        return f"units/{self.id}{'.npz' if self.kind == 'types' else '.json'}"

    @property
    def types(self) -> Task:
        """The task that selects the types it works on."""
        return Task("types", self.data, self.subset, self.seed)


def list_tasks(settings: Settings) -> tuple[list[Task], list[dict[str, str]]]:
    """All tasks of a run, in the order of work: figures, then seed by seed, the slow ones last.

    Returns
    -------
    tasks : list of Task
        A task comes after the types it needs.
    skipped : list of dict
        ``what`` can't be done here, and ``why``.
    """
    from micfast.experiments.paper import baselines

    tasks: list[Task] = []
    for spec in settings.specs:
        tasks += [Task(kind, spec.name) for kind in FIGURES if settings.needs(spec.name, kind)]
    for seed in range(settings.n_seeds):
        for spec in settings.specs:
            for subset in SUBSETS:
                if settings.needs(spec.name, f"grid-{subset}"):
                    tasks.append(Task("grid", spec.name, subset, seed))
                if settings.needs(spec.name, "baseline"):
                    tasks += [Task("baseline", spec.name, subset, seed, m) for m in BASELINES]
    for method in FORWARD_METHODS:
        for spec in settings.specs:
            budget = spec.forward[settings.budget]
            for subset in (*SUBSETS, "full"):
                limit = budget.seeds_full if subset == "full" else budget.seeds_types
                n_seeds = min(settings.n_seeds, limit or settings.n_seeds)
                if settings.needs(spec.name, "forward"):
                    tasks += [
                        Task("forward", spec.name, subset, seed, method) for seed in range(n_seeds)
                    ]
    reasons = {
        method: baselines.available(method)
        for method in dict.fromkeys(task.method for task in tasks if task.method)
    }
    skipped = [{"what": method, "why": why} for method, why in reasons.items() if why is not None]
    return list(_with_types(task for task in tasks if not reasons.get(task.method))), skipped


def _with_types(tasks: Iterator[Task]) -> Iterator[Task]:
    listed = set()
    for task in tasks:
        if task.subset != "full" and task.types not in listed:
            listed.add(task.types)
            yield task.types
        yield task


# eq=False: a key of the cache of the figures' modules.
@dataclass(frozen=True, eq=False)
class Context:
    """What tasks work with.

    Attributes
    ----------
    settings : Settings
    read : callable
        ``read(file)`` gives the content of the result of another task.
    n_threads : int or None
        None: torch's number.
    """

    settings: Settings
    read: Callable[[str], Mapping[str, Any]]
    n_threads: int | None = None

    def types(self, task: Task) -> tuple[NDArray[np.float32], list[str]]:
        """Types (C, K, T, O) and labels of all classes."""
        content = self.read(task.types.file)
        return content["types"], content["labels"].tolist()

    def labelled_types(self, task: Task) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
        """The types of all classes as a training set (C K, T, O) with its labels."""
        types, labels = self.types(task)
        return types.reshape(-1, *types.shape[2:]), np.repeat(labels, types.shape[1])

    def invert(
        self, bank: GeneratorBank, X: NDArray[Any], n_iter: int, **options: Any
    ) -> Inversion:
        """The paper's inversion: ``n_iter`` steps of Adam from the even mixture of types."""
        from micfast import Adam, Execution, invert

        start = options.pop("start", "uniform")
        execution = Execution(n_threads=self.n_threads)
        return invert(
            bank, X, solver=Adam(n_iter=n_iter, start=start), execution=execution, **options
        )


def compute(task: Task, context: Context) -> Content:
    """Do one task; returns the content of its file."""
    return _WORK[task.kind](task, context)


def load_dataset(spec: DataSpec, seed: int, *, whole_test: bool = False) -> Dataset:
    """A data set as the tasks of that seed see it; ``whole_test`` as Figure 7 needs it."""
    return _load(spec, seed if spec.split_by_seed else 0, None if whole_test else spec.n_test)


# One or two: MNIST takes 200 MB.
@functools.lru_cache(maxsize=2)
def _load(spec: DataSpec, seed: int, n_test: int | None) -> Dataset:
    return spec.load(seed, n_test)


# -- types and modules ---------------------------------------------------------------------------


def _types(task: Task, context: Context) -> Content:
    from micfast.training.types import select_types_per_class

    spec = context.settings.spec(task.data)
    dataset = load_dataset(spec, task.seed)
    types, classes, infos = select_types_per_class(
        dataset.X_train,
        dataset.y_train,
        N_TYPES,
        selection=spec.clustering if task.subset == "clustered" else "random",
        random_state=derive_seed(task.seed, task.data, task.subset, "types"),
        n_jobs=context.n_threads or -1,
    )
    return {
        "types": types.astype(np.float32),
        "labels": classes.astype(str),
        # Which of the class's training sequences a type is; -1: a mean.
        "index": np.stack([info.index for info in infos]),
    }


def train_modules(task: Task, context: Context, noise: list[tuple[float, float]]) -> GeneratorBank:
    """Train one module per noise setting and class, all in one fleet.

    A module's seed is derived from its own setting and class, so it is the same, bit for bit, in
    whichever fleet it is trained. The last weights are kept and none is trained again, as in the
    paper.

    Returns
    -------
    GeneratorBank
        Setting by setting, in each the classes.
    """
    from micfast import Execution, GeneratorBank, Training, train

    spec = context.settings.spec(task.data)
    types, labels = context.types(task)
    seeds = [
        derive_seed(task.seed, task.data, task.subset, "module", noise_in, noise_out, label)
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
    noise_in, noise_out = np.repeat(noise, len(labels), axis=0).T.tolist()
    training = Training.paper(
        n_episodes=spec.n_episodes, noise_in=tuple(noise_in), noise_out=tuple(noise_out)
    )
    fleet = np.tile(types, (len(noise), 1, 1, 1))
    execution = Execution(n_threads=context.n_threads)
    return train(start, fleet, training, seeds=seeds, execution=execution).bank


def _with_default_training(
    task: Task, context: Context, X_test: NDArray[np.float32]
) -> NDArray[np.str_]:
    """Labels by the paper's inversion of modules that micfast's default training has trained."""
    from micfast import Execution, GeneratorBank, Training, train

    types, labels = context.types(task)
    spec, training = context.settings.spec(task.data), Training()
    seeds = [
        derive_seed(task.seed, task.data, task.subset, "module", DEFAULT_TRAINING, label)
        for label in labels
    ]
    initialization: Any = training.initialization
    start = GeneratorBank(initialization.weights(types, spec.hidden_size, seeds))
    execution = Execution(n_threads=context.n_threads)
    bank = train(start, types, training, seeds=seeds, execution=execution).bank
    errors = context.invert(bank, X_test, N_ITER).errors
    return np.array(labels)[np.where(np.isnan(errors), np.inf, errors).argmin(axis=1)]


# -- the noise grid ------------------------------------------------------------------------------


def _grid(task: Task, context: Context) -> Content:
    spec = context.settings.spec(task.data)
    dataset = load_dataset(spec, task.seed)
    types, labels = context.types(task)
    noise = spec.noise_levels(task.subset)
    bank = train_modules(task, context, noise)
    codes = np.searchsorted(labels, dataset.y_test.astype(str))
    runs, classes = [], []
    for n_iter in (0, N_ITER):
        inversion = context.invert(bank, dataset.X_test, n_iter)
        all_errors = inversion.errors.reshape(len(codes), len(noise), len(labels))
        for s, (noise_in, noise_out) in enumerate(noise):
            errors = all_errors[:, s].astype(np.float64)
            own = errors[np.arange(len(codes)), codes]
            # A module that diverged has error NaN: never the best.
            right = np.where(np.isnan(errors), np.inf, errors).argmin(axis=1) == codes
            row = {
                "data": task.data,
                "subset": task.subset,
                "noise_in": noise_in,
                "noise_out": noise_out,
                "seed": task.seed,
                "n_iter": n_iter,
            }
            runs.append(row | _result(right) | {"mse": float(own.mean())})
            for c, label in enumerate(labels):
                mine = codes == c
                mse = float(own[mine].mean()) if mine.any() else None
                classes.append(row | {"label": label} | _result(right[mine]) | {"mse": mse})
    return {
        "runs": runs,
        "classes": classes,
        "n_modules": len(noise) * len(labels),
        "not_learned": _not_learned(bank, types, labels, noise, context),
    }


def _not_learned(
    bank: GeneratorBank,
    types: NDArray[np.float32],
    labels: list[str],
    noise: list[tuple[float, float]],
    context: Context,
) -> list[Content]:
    """The modules whose error on their own types is above a tenth of the types' variance."""
    from micfast import Execution

    eye = np.eye(types.shape[1], dtype=np.float32)
    execution = Execution(n_threads=context.n_threads)
    drawn = bank.generate(eye, types.shape[2], execution=execution).numpy()
    difference = drawn.astype(np.float64).reshape(len(noise), *types.shape) - types
    variance = types.var(axis=(1, 2), dtype=np.float64).mean(axis=-1)
    relative = np.square(difference).mean(axis=(2, 3, 4)) / np.maximum(variance, _LEAST_VARIANCE)
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


# -- figures -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _figure_modules(data: str, context: Context) -> GeneratorBank:
    """The modules that the figures show: clustered types, first seed, the noise chosen."""
    task = Task("types", data)
    bank = train_modules(task, context, [context.settings.noise])
    return bank.with_classes(context.types(task)[1])


def _cross(task: Task, context: Context) -> Content:
    """Every module on up to 20 sequences of every class (Figure 7)."""
    bank = _figure_modules(task.data, context)
    labels = list(bank.classes)
    dataset = load_dataset(context.settings.spec(task.data), task.seed, whole_test=True)
    content: Content = {"labels": np.array(labels)} | _how_trained(context)
    for part, X, y in (
        ("train", dataset.X_train, dataset.y_train.astype(str)),
        ("test", dataset.X_test, dataset.y_test.astype(str)),
    ):
        means, counts = [], []
        for label in labels:
            rng = np.random.default_rng(derive_seed(task.seed, task.data, part, "cross", label))
            chosen = np.sort(rng.permutation(np.flatnonzero(y == label))[:N_CROSS])
            errors = context.invert(bank, X[chosen], N_ITER).errors
            means.append(errors.astype(np.float64).mean(axis=0))
            counts.append(len(chosen))
        content[part] = np.stack(means, axis=1)
        content[f"n_{part}"] = np.array(counts)
    return content


def _reconstruction(task: Task, context: Context) -> Content:
    """A class's types and four unseen sequences, as its module draws them (Figures 5, 6)."""
    label, index = context.settings.targets[task.data]
    all_types, labels = context.types(task)
    targets = _test_sequences(task, context, label, index, N_TYPES)
    module = _figure_modules(task.data, context).select(label)
    types = all_types[labels.index(label)]
    eye = np.eye(len(types), dtype=np.float32)
    # No iteration: a type's own input is known, and its projection is itself.
    of_types = context.invert(module, types, 0, start=eye)
    of_targets = context.invert(module, targets, N_ITER)
    return {
        "label": np.array(label),
        "types": types,
        "types_drawn": of_types.reconstructions(),
        "types_errors": of_types.errors[:, 0],
        "targets": targets,
        "targets_drawn": of_targets.reconstructions(),
        "targets_latents": of_targets.latents[:, 0],
        "targets_errors": of_targets.errors[:, 0],
    } | _how_trained(context)


def _decision(task: Task, context: Context) -> Content:
    """One target in every module (Figure 3)."""
    label, index = context.settings.targets[task.data]
    target = _test_sequences(task, context, label, index, 1)
    bank = _figure_modules(task.data, context)
    inversion = context.invert(bank, target, N_ITER, history=True)
    assert inversion.error_history is not None
    return {
        "label": np.array(label),
        "index": np.array(index),
        "target": target[0],
        "labels": np.array(bank.classes),
        "drawn": inversion.reconstructions("all")[0],
        "errors": inversion.errors[0],
        "latents": inversion.latents[0],
        "error_history": inversion.error_history[:, 0],
    } | _how_trained(context)


def _how_trained(context: Context) -> Content:
    noise_in, noise_out = context.settings.noise
    return {
        "subset": np.array("clustered"),
        "seed": np.array(0),
        "noise_in": np.array(noise_in),
        "noise_out": np.array(noise_out),
    }


def _test_sequences(
    task: Task, context: Context, label: str, index: int, count: int
) -> NDArray[np.float32]:
    """Test sequences of a class, from `index` on and, at the end, from the first on."""
    dataset = load_dataset(context.settings.spec(task.data), task.seed)
    members = np.flatnonzero(dataset.y_test.astype(str) == label)
    return dataset.X_test[members[np.arange(index, index + count) % len(members)]]


# -- other methods -------------------------------------------------------------------------------


def _forward(task: Task, context: Context) -> Content:
    from micfast.experiments.paper import baselines

    spec = context.settings.spec(task.data)
    dataset = load_dataset(spec, task.seed)
    budget = spec.forward[context.settings.budget]
    if task.subset == "full":
        X, y, epochs = dataset.X_train, dataset.y_train.astype(str), budget.epochs_full
        if budget.n_full is not None and budget.n_full < len(X):
            rng = np.random.default_rng(derive_seed(task.seed, task.data, "full"))
            chosen = np.sort(rng.permutation(len(X))[: budget.n_full])
            X, y = X[chosen], y[chosen]
    else:
        X, y, epochs = *context.labelled_types(task), budget.epochs_types
    train = baselines.forward_keras if task.method == "keras-lstm" else baselines.forward_torch
    n_correct = train(
        X,
        y,
        dataset.X_test,
        dataset.y_test.astype(str),
        hidden_size=spec.hidden_size * len(dataset.classes),
        epochs=epochs,
        batch_size=spec.batch_size,
        # One network, and one order of the sequences, for each set it is trained on.
        seed=derive_seed(task.seed, task.data, task.subset, "forward") % 2**31,
    )
    row = _method_row(task) | {"epochs": epochs, "n_train": len(X)}
    return {"forward": [row | _counted(len(dataset.y_test), n_correct)]}


def _baseline(task: Task, context: Context) -> Content:
    from micfast.experiments.paper import baselines

    dataset = load_dataset(context.settings.spec(task.data), task.seed)
    X, y = context.labelled_types(task)
    if task.method == DEFAULT_TRAINING:
        predictions = _with_default_training(task, context, dataset.X_test)
    elif task.method == "minirocket":
        seed = derive_seed(task.seed, task.data, task.subset, "minirocket") % 2**31
        predictions = baselines.minirocket(X, y, dataset.X_test, seed=seed)
    else:
        metric = task.method.removeprefix("1nn-")
        predictions = baselines.nearest_neighbour(X, y, dataset.X_test, metric=metric)
    right = predictions == dataset.y_test.astype(str)
    return {"baselines": [_method_row(task) | {"n_train": len(X)} | _result(right)]}


def _method_row(task: Task) -> Content:
    return {name: getattr(task, name) for name in ("method", "data", "subset", "seed")}


def _result(right: NDArray[np.bool_]) -> Content:
    return _counted(len(right), int(right.sum()))


def _counted(n_test: int, n_correct: int) -> Content:
    accuracy = n_correct / n_test if n_test else None
    return {"n_test": n_test, "n_correct": n_correct, "accuracy": accuracy}


_WORK: dict[str, Callable[[Task, Context], Content]] = {
    "types": _types,
    "grid": _grid,
    "cross": _cross,
    "reconstruction": _reconstruction,
    "decision": _decision,
    "forward": _forward,
    "baseline": _baseline,
}
