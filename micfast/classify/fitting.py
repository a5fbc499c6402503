"""Fitting of classes: their types, their modules, and the errors by which they are judged."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from micfast.classify import calibration
from micfast.classify.judging import own_errors
from micfast.classify.panel import Panel, Panelled
from micfast.classify.seeds import kernel_seed, seed_sequence
from micfast.data.standardize import Standardizer
from micfast.generators.bank import GeneratorBank
from micfast.generators.labels import Label
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.progress import reporter
from micfast.runtime import parallel_map
from micfast.training.fleet import n_different, train_until_learned
from micfast.training.report import ModuleReport
from micfast.training.selections import Selection, TypeSelection
from micfast.training.settings import Training
from micfast.training.types import select_types_per_class

__all__ = [
    "FittedClass",
    "Plan",
    "Search",
    "all_modules",
    "banks",
    "class_types",
    "fit_classes",
    "stack_types",
    "temperature",
    "train_views",
    "warn_unlearned",
]

Floats = NDArray[np.float64]

# Gives the errors (R, n, C) of n sequences, standardised, by R C modules, bank by bank.
Search = Callable[[GeneratorBank, NDArray[Any], int], Floats]
# Gives the errors (R, n, 1) of the sequences of several classes by their own R modules.
SearchEach = Callable[[Sequence[tuple[GeneratorBank, NDArray[Any]]]], list[Floats]]
# Experts of a panel, the R C modules of each view and types (C, K, T, O), and sequences for them.
AskedOf = tuple[Sequence[GeneratorBank], Floats, NDArray[Any]]
AskPanel = Callable[[Sequence[AskedOf]], list[Panelled]]


@dataclass(frozen=True, eq=False)
class Plan:
    """How classes are fitted: the estimator's parameters, resolved and checked."""

    n_types: int
    selection: Selection
    training: Training
    hidden_size: int
    n_modules_per_class: int
    entropy: NDArray[np.uint32]
    device: str
    execution: Execution
    n_threads: int
    verbose: bool
    panel: Panel | None = None
    ask: AskPanel | None = None

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views that have modules."""
        return ("raw",) if self.panel is None else self.panel.views.drawn.names


@dataclass(frozen=True, eq=False)
class FittedClass:
    """One class of a fitted estimator.

    Attributes
    ----------
    weights : Weights
        Of its R modules.
    others : tuple of Weights
        Of the R modules of each further view.
    types : ndarray of shape (K, T, channels), float64
    info : TypeSelection
    reports : list of dict
        One per module, as in ``training_report_``.
    calibration : dict
        As in ``calibration_``.
    """

    weights: Weights
    types: Floats
    info: TypeSelection
    reports: list[dict[str, Any]]
    calibration: dict[str, Floats]
    others: tuple[Weights, ...] = ()

    def in_units(self, standardizer: Standardizer) -> FittedClass:
        """The same with its types in the units of the data."""
        return dataclasses.replace(self, types=standardizer.inverse_transform(self.types))


def fit_classes(
    labels: Sequence[Label], parts: Sequence[NDArray[Any]], plan: Plan, search: SearchEach
) -> list[FittedClass]:
    """Select types, train all modules in one run, calibrate.

    Parameters
    ----------
    labels : sequence of labels
    parts : sequence of ndarray, each of shape (n_samples, T, channels), float32
        Each class's samples, standardised.
    plan : Plan
    search : callable
        See :data:`SearchEach`.

    Returns
    -------
    list of FittedClass
        Types in standardised units.
    """
    R = plan.n_modules_per_class
    types, infos = class_types(labels, parts, plan)
    trained = train_views(types, labels, plan)
    fitted, samples = [], []
    for c, (label, Z) in enumerate(zip(labels, parts, strict=True)):
        own = slice(c * R, c * R + R)
        facts = {"label": label, "n_samples": len(Z), "n_types_found": n_different(types[c])}
        weights = [of_view[own] for of_view, _ in trained]
        rng = np.random.default_rng(seed_sequence(plan.entropy, label, "calibration"))
        samples.append(calibration.calibration_samples(Z, types[c], rng))
        fitted.append(
            FittedClass(
                weights=weights[0],
                types=types[c].astype(np.float64),
                info=infos[c],
                reports=[
                    facts | {"view": name, "module": r} | vars(learned)
                    for name, (_, reports) in zip(plan.views, trained, strict=True)
                    for r, learned in enumerate(reports[own])
                ],
                calibration={},
                others=tuple(weights[1:]),
            )
        )
    with reporter(plan.verbose, "calibration", total=len(labels), unit="class") as report:
        _calibrate(fitted, types, samples, search)
        if plan.panel is not None and plan.ask is not None:
            _calibrate_experts(fitted, samples, plan.panel, plan.ask)
        if report is not None:
            report(1.0)
    return fitted


def class_types(
    labels: Sequence[Label], parts: Sequence[NDArray[Any]], plan: Plan
) -> tuple[NDArray[Any], list[TypeSelection]]:
    """Types (C, K, T, channels) of each class; NaN after the end of shorter ones."""

    def select(part: tuple[Label, NDArray[Any]]) -> tuple[NDArray[Any], TypeSelection]:
        label, Z = part
        # One class at a time: its seed, and so its cache entry, must not depend on the others.
        types, _, infos = select_types_per_class(
            Z,
            [label] * len(Z),
            plan.n_types,
            selection=plan.selection,
            random_state=seed_sequence(plan.entropy, label, "types"),
            n_jobs=1,
            nan_policy="omit",
        )
        return types[0], infos[0]

    all_types, infos = [], []
    found = parallel_map(select, zip(labels, parts, strict=True), plan.n_threads)
    with reporter(plan.verbose, "types", total=len(labels), unit="class") as report:
        for types, info in found:
            all_types.append(types)
            infos.append(info)
            if report is not None:
                report(len(infos) / len(labels))
    return np.stack(all_types), infos


def train_views(
    types: NDArray[Any], labels: Sequence[Label], plan: Plan
) -> list[tuple[Weights, list[ModuleReport]]]:
    """Train the modules (C R) of every view on what it shows of types (C, K, T, channels).

    Views that show as many steps and channels are trained in one run.
    """
    R, names, (C, K) = plan.n_modules_per_class, plan.views, types.shape[:2]
    shown = [types]
    if plan.panel is not None:
        flat = types.reshape(C * K, *types.shape[2:])
        seen = [plan.panel.views.look(v, flat) for v in range(1, len(names))]
        shown += [one.reshape(C, K, *one.shape[1:]) for one in seen]
    trained: list[Any] = [None] * len(names)
    for shape in dict.fromkeys(one.shape for one in shown):
        together = [v for v, one in enumerate(shown) if one.shape == shape]
        modules = [(v, label, r) for v in together for label in labels for r in range(R)]

        def seed_of(m: int, attempt: int, modules: Any = modules) -> int:
            v, label, r = modules[m]
            purpose = f"training {attempt}" + (f" of module {r}" if r else "")
            return kernel_seed(plan.entropy, label, purpose + (f" of {names[v]}" if v else ""))

        weights, reports = train_until_learned(
            np.repeat(np.concatenate([shown[v] for v in together]), R, axis=0),
            plan.training,
            hidden_size=plan.hidden_size,
            seed_of=seed_of,
            device=plan.device,
            execution=plan.execution,
        )
        for i, v in enumerate(together):
            own = slice(i * C * R, (i + 1) * C * R)
            trained[v] = weights[own], reports[own]
    return trained


def _calibrate(
    fitted: Sequence[FittedClass],
    types: NDArray[Any],
    samples: Sequence[NDArray[Any]],
    search: SearchEach,
) -> None:
    """Add each class's errors on its own types and on some of its samples, by its modules."""
    asked = [
        (GeneratorBank(one.weights), np.concatenate(own))
        for one, *own in zip(fitted, types, samples, strict=True)
    ]
    K = types.shape[1]
    for one, module_errors in zip(fitted, search(asked), strict=True):
        errors = calibration.class_errors(module_errors)[:, 0]
        one.calibration.update(types=errors[:K], samples=np.sort(errors[K:]))


def _calibrate_experts(
    fitted: Sequence[FittedClass], samples: Sequence[NDArray[Any]], panel: Panel, ask: AskPanel
) -> None:
    """Add the errors of each class's own experts on some of its samples."""

    def asked(classes: Sequence[int]) -> list[Floats]:
        own: list[AskedOf] = []
        for c in classes:
            banks = [GeneratorBank(one) for one in (fitted[c].weights, *fitted[c].others)]
            own.append((banks, fitted[c].types[None], samples[c]))
        return [one.errors[..., 0] for one in ask(own)]

    errors = own_errors(panel, [one.types for one in fitted], samples, asked)
    for one, own in zip(fitted, errors, strict=True):
        one.calibration["experts"] = own


def temperature(
    modules: GeneratorBank,
    labels: Sequence[Label],
    parts: Sequence[NDArray[Any]],
    search: Search,
    R: int,
    entropy: NDArray[np.uint32],
) -> float:
    """Temperature of the lowest log loss on at most 128 training samples of all classes."""
    seeds = [seed_sequence(entropy, label, "temperature") for label in labels]
    rngs = [np.random.default_rng(seed) for seed in seeds]
    Z, codes = calibration.temperature_samples(parts, rngs)
    errors = calibration.class_errors(search(modules, Z, R))
    return calibration.best_temperature(errors, codes)


# -- many classes --------------------------------------------------------------------------------


def all_modules(fitted: Sequence[FittedClass]) -> list[GeneratorBank]:
    """All modules of all classes, bank by bank, as one for each view."""
    R = len(fitted[0].weights)
    of_classes = [(one.weights, *one.others) for one in fitted]
    return [
        GeneratorBank(Weights.concat(one[v][r : r + 1] for r in range(R) for one in of_classes))
        for v in range(len(of_classes[0]))
    ]


def banks(fitted: Sequence[FittedClass], labels: Sequence[Label]) -> list[GeneratorBank]:
    """R banks of one module per class."""
    R = len(fitted[0].weights)
    return [
        GeneratorBank(Weights.concat(one.weights[r : r + 1] for one in fitted), labels)
        for r in range(R)
    ]


def stack_types(types: Iterable[Floats]) -> Floats:
    """Types (C, K, T, channels) of classes (K, T_c, channels), padded with NaN at their ends."""
    types = list(types)
    T = max(one.shape[1] for one in types)
    return np.stack(
        [
            np.pad(one, ((0, 0), (0, T - one.shape[1]), (0, 0)), constant_values=np.nan)
            for one in types
        ]
    )


def _in_view(report: dict[str, Any]) -> str:
    return "" if report["view"] == "raw" else f" in view {report['view']}"


def warn_unlearned(fitted: Sequence[FittedClass], training: Training, stacklevel: int) -> None:
    """Name the modules that failed to learn their types."""
    reports = [report for one in fitted for report in one.reports]
    failed = [
        f"{report['label']!r} (relative error {report['relative_mse']:.2g}{_in_view(report)}: "
        f"{report['reason']})"
        for report in reports
        if not report["learned"]
    ]
    if failed:
        warnings.warn(
            f"ModularInverseClassifier: {len(failed)} of {len(reports)} modules failed to learn "
            f"their types to within learned_tol={training.learned_tol} in "
            f"{training.max_retries + 1} attempts: {'; '.join(failed)}",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )
