"""How many types and hidden units: what sequences that had no part in them say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micfast.classify import calibration, fitting, judging
from micfast.classify.experts import fit_experts
from micfast.classify.panel import Panel
from micfast.classify.seeds import seed_sequence
from micfast.generators.bank import GeneratorBank
from micfast.generators.labels import Label
from micfast.training.errors import held_share

__all__ = ["HIDDEN_SIZES", "N_TYPES", "decided"]

Floats = NDArray[np.float64]

N_TYPES = (2, 3, 4, 6, 8, 12, 16)
HIDDEN_SIZES = (6, 10, 16, 24, 32)
# Each class's samples are cut into so many parts, of which one after the other is held out, until
# so many sequences have been.
_N_FOLDS, _ENOUGH = 4, 128


@dataclass(frozen=True, eq=False)
class _Fold:
    """Each class's samples but for those held out; these, without noise and with; their classes."""

    kept: list[NDArray[Any]]
    levels: list[NDArray[Any]]
    codes: NDArray[np.int64]


def _folds(
    labels: Sequence[Label], parts: Sequence[NDArray[Any]], entropy: NDArray[np.uint32]
) -> list[_Fold]:
    n_folds = min(_N_FOLDS, *map(len, parts))
    if n_folds < 2:
        raise ValueError(
            "ModularInverseClassifier.fit: n_types and hidden_size can only be 'auto' with at "
            "least two samples of each class"
        )
    orders = [
        np.random.default_rng(seed_sequence(entropy, label, "sizes")).permutation(len(part))
        for label, part in zip(labels, parts, strict=True)
    ]
    folds: list[_Fold] = []
    for f in range(n_folds):
        held = [order[f::n_folds][: max(1, _ENOUGH // len(parts))] for order in orders]
        kept = [np.delete(part, own, axis=0) for part, own in zip(parts, held, strict=True)]
        Z = np.concatenate([part[own] for part, own in zip(parts, held, strict=True)])
        codes = np.repeat(np.arange(len(parts)), [*map(len, held)])
        folds.append(_Fold(kept, judging.with_noise(Z, entropy)[:2], codes))
        if sum(len(fold.codes) for fold in folds) >= _ENOUGH:
            break
    return folds


def _log_loss(
    names: tuple[str, ...], folds: list[_Fold], asked: Sequence[Sequence[Floats]]
) -> float:
    """Log loss on all that is held out, of the errors (E, n, C) of each fold and level."""
    errors = [np.concatenate(level, axis=1) for level in zip(*asked, strict=True)]
    codes = np.concatenate([fold.codes for fold in folds])
    _, expected = fit_experts(names, errors, codes, "held out")
    return np.inf if expected is None else expected.log_loss


def decided(
    plan: fitting.Plan,
    automatic: Sequence[str],
    panel: Panel,
    labels: Sequence[Label],
    parts: Sequence[NDArray[Any]],
    search: fitting.Search,
) -> fitting.Plan:
    """The plan with the best ``n_types``, ``hidden_size``, or both, in this order.

    A number of types is as good as the log loss on samples that are held out of their selection,
    by the errors of the types' hulls: no module is trained. There are at most as many types as the
    smallest class has samples, and, with a given ``hidden_size``, as modules of that size can hold.
    For each number of hidden units, modules are trained, one a class and view, and they are asked.

    Parameters
    ----------
    plan : Plan
        Its values of what is to be decided count for nothing.
    automatic : sequence of {"n_types", "hidden_size"}
    panel : Panel
        The views and pose with which the hulls are asked.
    labels : sequence of labels
    parts : sequence of ndarray, each of shape (n_samples, T, O), float32
        Each class's samples, standardised.
    search : callable
        See :data:`micfast.classify.fitting.Search`.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If a class has a single sample.
    """
    folds = _folds(labels, parts, plan.entropy)
    if "n_types" in automatic:
        limit = None if "hidden_size" in automatic else plan.hidden_size
        most = min(map(len, parts))
        n_types = _best_n_types(plan, panel, labels, folds, most, limit)
        plan = dataclasses.replace(plan, n_types=n_types)
    if "hidden_size" in automatic:
        plan = dataclasses.replace(plan, hidden_size=_best_hidden_size(plan, labels, folds, search))
    return plan


def _types(plan: fitting.Plan, labels: Sequence[Label], fold: _Fold, n_types: int) -> NDArray[Any]:
    """Types (C, K, T, O) of what is kept; all of it if that is fewer."""
    few = dataclasses.replace(plan, n_types=min(n_types, *map(len, fold.kept)))
    return fitting.class_types(labels, fold.kept, few)[0]


def _best_n_types(
    plan: fitting.Plan,
    panel: Panel,
    labels: Sequence[Label],
    folds: list[_Fold],
    most: int,
    hidden_size: int | None,
) -> int:
    losses: dict[int, float] = {}
    for n_types in [n for n in N_TYPES if n <= most] or [most]:
        types = [_types(plan, labels, fold, n_types).astype(np.float64) for fold in folds]
        held = [1.0 if hidden_size is None else held_share(one, hidden_size) for one in types[0]]
        if losses and np.median(held) < 1 - plan.training.learned_tol:
            break
        asked = []
        for own, fold in zip(types, folds, strict=True):
            hulls = panel.hulls(own)
            asked.append([panel.hull_errors(hulls, Z) for Z in fold.levels])
        losses[n_types] = _log_loss(panel.views.names, folds, asked)
    # The most of those that are equal: all that is kept may be fewer than either.
    return min(losses, key=lambda n: (losses[n], -n))


def _best_hidden_size(
    plan: fitting.Plan, labels: Sequence[Label], folds: list[_Fold], search: fitting.Search
) -> int:
    once = plan.training.replace(max_retries=0)
    plan = dataclasses.replace(plan, n_modules_per_class=1, training=once)
    names = ("raw",) if plan.panel is None else plan.panel.names
    types = [_types(plan, labels, fold, plan.n_types) for fold in folds]

    def log_loss(size: int) -> float:
        sized, asked = dataclasses.replace(plan, hidden_size=size), []
        for own, fold in zip(types, folds, strict=True):
            trained = fitting.train_views(own, labels, sized)
            banks = [GeneratorBank(weights).to(device=plan.device) for weights, _ in trained]
            asked.append([_errors(sized, banks, own, Z, search) for Z in fold.levels])
        return _log_loss(names, folds, asked)

    return min(HIDDEN_SIZES, key=log_loss)


def _errors(
    plan: fitting.Plan,
    banks: list[GeneratorBank],
    types: NDArray[Any],
    Z: NDArray[Any],
    search: fitting.Search,
) -> Floats:
    """Errors (E, n, C) of the experts of a class's one module in each view."""
    if plan.ask is None:
        return calibration.class_errors(search(banks[0], Z, 1))[None]
    return plan.ask([(banks, types.astype(np.float64), Z)])[0].errors
