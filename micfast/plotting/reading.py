"""What pictures are drawn from: estimators, sequences, inversions; and checks of arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from micfast.arrays import as_tensor, to_numpy
from micfast.classify.poses import Poses
from micfast.sequences import Sequences, ends
from micfast.settings import check_count

if TYPE_CHECKING:
    from micfast.search.inversion import Inversion


def read_values(where: str, name: str, X: Any) -> NDArray[Any]:
    """Sequences in any form as an array (N, T, C), NaN where a value is missing."""
    return Sequences.read(X, name=f"{where}: {name}").padded()


def resolve_estimator(where: str, estimator: Any, X: Any) -> tuple[Any, Any]:
    """Find the classifier in a search or behind a pipeline's steps, and what X is to it."""
    from sklearn.pipeline import Pipeline

    given = estimator
    while not hasattr(estimator, "decide"):
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, Pipeline) and len(estimator):
            if len(estimator) > 1:
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        else:
            raise TypeError(
                f"{where}: estimator must be a ModularInverseClassifier, or a pipeline or fitted "
                f"search that ends in one, got {type(given).__name__}"
            )
    return estimator, X


def read_one(where: str, estimator: Any, X: Any, y: Any, index: int) -> tuple[Any, Any, Any]:
    """Return the classifier, one sequence as X of one sample, and its true label or None."""
    if hasattr(X, "iloc") and X.index.nlevels == 1:
        i = check_index(where, index, len(X))
        x, n = X.iloc[[i]], len(X)  # a frame keeps its columns' names
    else:
        read = Sequences.read(X, name=f"{where}: X")
        i, n = check_index(where, index, len(read)), len(read)
        x = read.padded()[i : i + 1]
        x = x[..., 0] if read.is_table else x[:, : ends(x)[0] or None]
    truth = None if y is None else check_labels(where, "y", y, n).tolist()[i]
    return *resolve_estimator(where, estimator, x), truth


class Redrawn(NamedTuple):
    """One target of an inversion, up to its end, and what all modules make of it."""

    target: NDArray[Any]  # (T, O)
    drawn: NDArray[Any]  # (M, T, O)
    errors: NDArray[Any]  # (M,)
    predicted_label: Any
    true_label: Any
    pose: str | None


def read_inversion(
    where: str,
    targets: Any,
    inversion: Inversion,
    indices: Sequence[int],
    y_true: Any,
    standardizer: Any,
) -> list[Redrawn]:
    """Generate the reconstructions of some targets, no others, in the standardizer's units."""
    X, N = read_values(where, "targets", targets), len(inversion.errors)
    if X.shape[:2] != (N, inversion.n_steps):
        raise ValueError(
            f"{where}: targets must have shape (n_samples, n_timesteps[, n_channels]) = "
            f"({N}, {inversion.n_steps}[, *]) as inverted, got {X.shape}"
        )
    rows = [check_index(where, i, N) for i in indices]
    truth = [None] * N if y_true is None else check_labels(where, "y_true", y_true, N).tolist()
    latents = inversion.latents[rows].swapaxes(0, 1)
    generated, poses = inversion.bank.generate(latents, inversion.n_steps), None
    if inversion.fit is not None:
        lengths, fit = inversion.lengths, inversion.fit.at((slice(None), rows))
        last = None if lengths is None else as_tensor(lengths[rows], "lengths")[:, None] - 1
        generated = fit.lay(generated, last)
        poses = Poses.of(fit, np.maximum(to_numpy(inversion.best)[rows], 0))
    drawn, found = to_numpy(generated), []
    for row, i in enumerate(rows):
        end = None if inversion.lengths is None else int(inversion.lengths[i])
        target, own = X[i, :end], drawn[:, row, :end]
        if standardizer is not None:
            target = to_numpy(standardizer.inverse_transform(target[None]))[0]
            own = to_numpy(standardizer.inverse_transform(own))
        best = int(inversion.best[i])
        predicted = None if best < 0 else inversion.classes[best]
        pose = None if poses is None else poses.describe(row)
        errors = to_numpy(inversion.errors)[i]
        found.append(Redrawn(target, own, errors, predicted, truth[i], pose))
    return found


def chosen_modules(where: str, inversion: Inversion, i: int, which: Any) -> list[int]:
    """Indices of the modules that ``which`` names for target ``i``."""
    n_modules = len(inversion.classes)
    if isinstance(which, str) and which in ("all", "best"):
        best = int(inversion.best[i])
        if which == "best" and best < 0:
            raise ValueError(f"{where}: which must not be 'best' for target {i}: it has no error")
        return [best] if which == "best" else list(range(n_modules))
    modules = np.atleast_1d(to_numpy(which))
    if modules.ndim != 1 or not len(modules) or modules.dtype.kind not in "iu":
        raise ValueError(f"{where}: which must be 'best', 'all' or module indices, got {which!r}")
    if modules.min() < 0 or modules.max() >= n_modules:
        raise ValueError(
            f"{where}: which must hold indices from 0 to {n_modules - 1}, got {which!r}"
        )
    return modules.tolist()


def class_indices(where: str, name: str, classes: Sequence[Any], labels: Any) -> list[int]:
    """Positions of labels among the classes."""
    if isinstance(labels, str) or not len(labels):
        raise ValueError(f"{where}: {name} must be a sequence of classes, got {labels!r}")
    known = list(classes)
    for label in labels:
        if label not in known:
            raise ValueError(f"{where}: {name} must be among the classes {known}, got {label!r}")
    return [known.index(label) for label in labels]


def check_index(where: str, index: Any, n: int) -> int:
    """Return an index into ``n`` samples, counted from the start."""
    return check_count(where, "index", index, -n, n - 1) % n


def check_labels(where: str, name: str, y: Any, n: int) -> NDArray[Any]:
    """Return labels as an array of shape (n,)."""
    y = to_numpy(y)
    if y.shape != (n,):
        raise ValueError(f"{where}: {name} must have shape ({n},), got {y.shape}")
    return y


def named(where: str, name: str, labels: Any, n: int) -> list[Any]:
    """Return ``n`` labels as a list; 0, 1, ... by default."""
    labels = list(range(n) if labels is None else labels)
    if len(labels) != n:
        raise ValueError(f"{where}: {name} must have length {n}, got {len(labels)}")
    return labels


def as_matrix(where: str, name: str, values: Any, shape: str) -> NDArray[np.float64]:
    """Return a matrix of floats that isn't empty; ``shape`` is for the message."""
    array = to_numpy(values).astype(float)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{where}: {name} must have shape {shape}, got {array.shape}")
    return array
