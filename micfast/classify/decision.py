"""Decision: all that one search of all modules says about some sequences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from micfast.classify.calibration import comparable
from micfast.classify.poses import Poses
from micfast.data.standardize import Standardizer
from micfast.generators.bank import GeneratorBank
from micfast.generators.labels import Label, as_label
from micfast.kernels.execution import Execution
from micfast.search.inversion import Inversion
from micfast.settings import check_count

__all__ = ["Decision", "Rules", "append_label"]

# Thresholds are at least this where errors are divided by them.
_LEAST_THRESHOLD = 1e-12


@dataclass(frozen=True, eq=False)
class Rules:
    """What turns errors into a decision.

    Attributes
    ----------
    classes : ndarray of shape (C,)
    thresholds : ndarray of shape (C,)
        Errors above which a sequence is unlike the class's training samples.
    temperature : float
        Divides errors in probabilities, or their logarithms.
    rejects : bool
        Whether sequences above their winner's threshold are rejected.
    reject_label : label or None
        The answer for these.
    logarithmic : bool
        Whether errors are products of several views' errors.
    """

    classes: NDArray[Any]
    thresholds: NDArray[np.float64]
    temperature: float
    rejects: bool
    reject_label: Label | None
    logarithmic: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Decision:
    """The answer of :meth:`micfast.ModularInverseClassifier.decide` for n sequences.

    Attributes
    ----------
    errors : ndarray of shape (n, C), float64
        Error of each class: the mean over its modules. With views or pose, the weighted geometric
        mean of the experts' errors.
    module_errors : ndarray of shape (R, n, C), float64
        Error of each module; with views, of the raw one's.
    view_errors : dict of str to ndarray of shape (n, C)
        Error of each class in each view (mean over its modules); empty without views and pose.
    poses : Poses or None
        Pose of each sequence over the reconstruction of the class with the lowest error, by its
        best module; None if pose was not searched.
    best : ndarray of shape (n,), int64
        Position in ``classes`` of the class with the lowest error.
    labels : ndarray of shape (n,)
        The predictions: the winners' labels, ``reject_label`` for rejected sequences (None, in an
        object array, if there is no such label).
    rejected : ndarray of shape (n,), bool
        Whether the winner's error exceeds its threshold and ``reject`` is set.
    novelty : ndarray of shape (n,), float64
        The lowest error divided by that class's threshold.
    classes : ndarray of shape (C,)
        The labels, sorted.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import ModularInverseClassifier
    >>> t = np.linspace(0, 1, 20)
    >>> X, y = np.stack([t**0.5, t**0.6, t**2, t**3]), ["early", "early", "late", "late"]
    >>> decision = ModularInverseClassifier(n_types=2, random_state=0).fit(X, y).decide(X[1:3])
    >>> decision.labels.tolist(), decision.errors.shape
    (['early', 'late'], (2, 2))
    >>> decision.reconstructions().shape, decision.reconstructions("all").shape
    ((2, 20, 1), (2, 2, 20, 1))
    """

    errors: NDArray[np.float64]
    module_errors: NDArray[np.float64]
    best: NDArray[np.int64]
    labels: NDArray[Any]
    rejected: NDArray[np.bool_]
    novelty: NDArray[np.float64]
    classes: NDArray[Any]
    rules: Rules = field(repr=False)
    search: Inversion = field(repr=False)
    standardizer: Standardizer | None = field(repr=False)
    execution: Execution = field(repr=False)
    view_errors: dict[str, NDArray[np.float64]] = field(repr=False, default_factory=dict)

    @classmethod
    def from_errors(
        cls,
        errors: NDArray[np.float64],
        module_errors: NDArray[np.float64],
        rules: Rules,
        search: Inversion,
        standardizer: Standardizer | None,
        execution: Execution,
        view_errors: dict[str, NDArray[np.float64]] | None = None,
    ) -> Decision:
        """Decide by the classes' errors (n, C).

        Parameters
        ----------
        errors, module_errors
            See the attributes.
        rules : Rules
        search : Inversion
            Of R C modules: those of the first bank, then those of the second, ...
        standardizer : Standardizer or None
            Undoes the standardisation of reconstructions.
        execution : Execution
            For drawing.
        view_errors
            See the attributes.
        """
        best = errors.argmin(axis=1)
        lowest = errors[np.arange(len(best)), best]
        thresholds = rules.thresholds[best]
        novelty = lowest / np.maximum(thresholds, _LEAST_THRESHOLD)
        rejected = (lowest > thresholds) & rules.rejects
        labels = rules.classes[best]
        if rules.rejects and rules.reject_label is None:
            labels = labels.astype(object)
            labels[rejected] = None
        elif rules.rejects and rules.reject_label is not None:
            answers = append_label(rules.classes, rules.reject_label)
            labels = answers[np.where(rejected, len(rules.classes), best)]
        return cls(
            errors=errors,
            module_errors=module_errors,
            best=best,
            labels=labels,
            rejected=rejected,
            novelty=novelty,
            classes=rules.classes,
            rules=rules,
            search=search,
            standardizer=standardizer,
            execution=execution,
            view_errors=view_errors or {},
        )

    def __len__(self) -> int:
        return len(self.errors)

    def __repr__(self) -> str:
        R, n, C = self.module_errors.shape
        rejected = f", {int(self.rejected.sum())} rejected" if self.rules.rejects else ""
        return f"Decision({n} sequences, {C} classes, {R} modules per class{rejected})"

    @property
    def scores(self) -> NDArray[np.float64]:
        """Negative errors (n, C); their logarithms with views, pose or hulls, as experts vote."""
        if not self.rules.logarithmic:
            return -self.errors
        return -np.log(np.maximum(self.errors, np.finfo(np.float64).tiny))

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Probabilities (n, C) of the classes, given that it is one of them."""
        with np.errstate(all="ignore"):  # exponentials may well underflow
            return softmax(self.scores / self.rules.temperature, axis=1)

    @property
    def poses(self) -> Poses | None:
        """Pose of each sequence over the winner's reconstruction by its best module."""
        if self.search.fit is None:
            return None
        _, n, C = self.module_errors.shape
        r = self.module_errors[:, np.arange(n), self.best].argmin(axis=0)
        return Poses.of(self.search.fit, r * C + self.best)

    @property
    def features(self) -> NDArray[np.float64]:
        """Errors and latents (n, n_features) of all modules; see the estimator's ``transform``."""
        # The latents of a module that diverged are meaningless; use the even mixture.
        even = 1 / self.search.bank.input_size
        latents = self.search.latents.reshape(len(self), -1).astype(np.float64)
        latents = np.nan_to_num(latents, nan=even, posinf=even, neginf=even)
        return np.concatenate([*map(comparable, self.module_errors), latents], axis=1)

    def inversion(self, module: int = 0) -> Inversion:
        """The search of one module per class.

        Parameters
        ----------
        module : int
            Which of each class's R modules.

        Returns
        -------
        Inversion
            In standardised units, with the classes' labels.

        Raises
        ------
        TypeError, ValueError
            If there is no such module.
        """
        R, _, C = self.module_errors.shape
        r = check_count("Decision.inversion", "module", module, 0, R - 1)
        chosen, found = slice(r * C, r * C + C), self.search
        n_iter_used: Any = found.n_iter_used
        converged: Any = found.converged
        bank = found.bank.select(indices=chosen)
        labels = [as_label(label) for label in self.classes]
        return Inversion(
            errors=found.errors[:, chosen],
            latents=found.latents[:, chosen],
            classes=tuple(labels),
            bank=GeneratorBank(bank.weights, labels),
            n_steps=found.n_steps,
            n_iter_used=n_iter_used[:, chosen],
            converged=converged[:, chosen],
            lengths=found.lengths,
            fit=None if found.fit is None else found.fit.at(chosen),
        )

    def reconstructions(
        self, label: Label | Literal["all"] | None = None, *, module: int = 0
    ) -> NDArray[np.float64]:
        """Draw reconstructions in the units of the sequences, in the pose found.

        Parameters
        ----------
        label : label, "all" or None
            Of which class's module; None is the class with the lowest error, also where the
            sequence was rejected.
        module : int
            Which of each class's R modules.

        Returns
        -------
        ndarray of shape (n, T, channels), or (n, C, T, channels) for "all"
            T is that of the longest of these sequences; NaN after each one's end.

        Raises
        ------
        TypeError, ValueError
            If there is no such label or module.
        """
        R, n, C = self.module_errors.shape
        r = check_count("Decision.reconstructions", "module", module, 0, R - 1)
        if isinstance(label, str) and label == "all" and label not in self.classes.tolist():
            drawn = [self._draw(np.full(n, r * C + c)) for c in range(C)]
            return np.stack(drawn, axis=1)
        if label is None:
            return self._draw(r * C + self.best)
        classes = self.classes.tolist()
        if as_label(label) not in classes:
            raise ValueError(
                f"Decision.reconstructions: label must be one of {classes}, got {label!r}"
            )
        return self._draw(np.full(n, r * C + classes.index(as_label(label))))

    def _draw(self, which: NDArray[np.int64]) -> NDArray[np.float64]:
        drawn = self.search.reconstructions(which, execution=self.execution).astype(np.float64)
        return drawn if self.standardizer is None else self.standardizer.inverse_transform(drawn)


def append_label(classes: NDArray[Any], label: Label) -> NDArray[Any]:
    """One label more, in a dtype that holds it uncut.

    Raises
    ------
    ValueError
        If the dtype of the others has no room for it.
    """
    if classes.dtype.kind == "O":
        return np.array([*classes, label], dtype=object)
    new = np.concatenate([classes, np.array([label])])
    # NumPy would fall back on object, or on float64 for uint64 beside a negative integer.
    kinds = {classes.dtype.kind, new.dtype.kind}
    if len(kinds) > 1 and kinds != {"i", "u"}:
        raise ValueError(f"label {label!r} does not fit the other labels' dtype {classes.dtype}")
    return new
