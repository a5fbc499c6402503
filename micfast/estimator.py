"""The scikit-learn classifier: one generator per class, a sequence belongs to the best drawer.

Owns validation, seeds, retries and persistence; types, training and inversion are done elsewhere.
"""

from __future__ import annotations

import hashlib
import math
import numbers
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils import (
    Tags,
    check_array,
    check_consistent_length,
    check_random_state,
    column_or_1d,
)
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from micfast import decision, inversion, ops, reference, starts
from micfast._arrays import for_sklearn
from micfast._parallel import n_threads, parallel_map
from micfast._ragged import check_missing, ends, ragged_to_padded, unequal
from micfast.augment import augment_types
from micfast.bank import BankFileError, GeneratorBank, Label, as_label, read_bank, write_bank
from micfast.data.preprocess import Standardizer
from micfast.decision import comparable as _comparable
from micfast.inversion import Inversion, progress_reporter
from micfast.types import TypeSelection, select_types_per_class

__all__ = ["ModularInverseClassifier"]

_NAME = "ModularInverseClassifier"
_WEIGHTS = ("W_ih", "W_hh", "b", "W_out", "b_out")
_FILE_VERSION = 2
# Below this variance (standardised units) types count as constant: with the default learned_tol a
# module that draws them must then reach a mean squared error of 1e-4.
_LEAST_VARIANCE = 1e-3
_TEMPERATURE_SAMPLES = 256
_CALIBRATION_SAMPLES = 64
# The share that novelty_score leaves above 1 where `reject` gives none.
_NOVELTY_REJECT = 0.05
# Thresholds are at least this where errors are divided by them.
_LEAST_THRESHOLD = 1e-12
# Numbers of the drawings that are compared under time warping at a time.
_DRAWN_NUMBERS = 2**22
# How estimators of file version 1 searched and decided.
_VERSION_1_PARAMS: dict[str, Any] = {
    "augmentation": None,
    "n_modules_per_class": 1,
    "solver": "adam",
    "init": "uniform",
    "n_starts": None,
    "tol": 0.0,
    "distance": "mse",
    "error_scale": None,
    "reject": None,
    "reject_label": None,
}
_PAPER_PARAMS: dict[str, Any] = _VERSION_1_PARAMS | {
    "n_types": 4,
    "type_selection": "kmeans",
    "type_representative": "centroid",
    "hidden_size": 10,
    "noise_in": 0.0,
    "noise_out": 0.0,
    "n_episodes": 20000,
    "learning_rate": 0.01,
    "n_iter": 50,
    "inversion_learning_rate": 0.05,
    "max_retries": 0,
}
_PAPER_DATA: dict[str | None, dict[str, Any]] = {
    None: {},
    "characters": {"type_selection": "dtw-kmeans", "hidden_size": 10, "n_episodes": 40000},
    "mnist": {"type_selection": "kmeans", "hidden_size": 20, "n_episodes": 20000},
}
_CLASS_DTYPES = {
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(f"float{bits}" for bits in (16, 32, 64)),
}

_Item = TypeVar("_Item")


class ModularInverseClassifier(ClassifierMixin, TransformerMixin, BaseEstimator):
    """Classifier of sequences by inversion of one small generative LSTM per class.

    Each class's module learns to draw the class's few types. A new sequence is given to every
    module, which looks for the input that draws it best; the module with the lowest error names
    the class. Classes can be added, removed and trained anew without touching the others.
    The defaults are those of the setting that decided best on training sequences held out
    (``docs/better.md``); :meth:`paper` gives the settings of the paper.

    Parameters
    ----------
    n_types : int, default=4
        Types per class: the sequences a module learns.
    type_selection : {"kmeans", "dtw-kmeans", "random", "first"}, default="kmeans"
        How a class's types are found, see :func:`micfast.types.select_types`.
    type_representative : {"centroid", "medoid"}, default="centroid"
        What stands for a cluster.
    hidden_size : int, default=10
        Hidden units of each module's LSTM.
    noise_in : float, default=0.0
        Standard deviation of the training noise on the modules' inputs, which lie in [0, 1].
    noise_out : float, default=0.0
        Standard deviation of the training noise on the types, in standardised units.
    augmentation : dict or None, default=None
        Show variants of the types in training: arguments ``n_variants``, ``warp`` and ``affine`` of
        :func:`micfast.augment.augment_types`, ``{}`` for its own.
    n_episodes : int, default=20000
        Training episodes of each module; one type per episode.
    learning_rate : float, default=0.01
        Adam's step size in training.
    n_modules_per_class : int, default=3
        Modules R of each class, trained on the same types from different seeds; the mean of their
        errors is the class's.
    solver : {"adam", "lm"}, default="lm"
        How an inversion searches: projected Adam, as in the paper, or Levenberg and Marquardt's
        method, which needs a few steps where Adam needs dozens.
    n_iter : int or None, default=None
        Iterations of the inversion; None is the solver's own number (50 for "adam", 8 for "lm"),
        0 measures the error at the start.
    inversion_learning_rate : float, default=0.05
        Step size of the inversion with ``solver="adam"``.
    init : {"uniform", "paper", "types", "dirichlet", "nearest"}, default="nearest"
        Where inversions start, see :func:`micfast.invert`.
    n_starts : int or None, default=None
        Starts of each inversion, for "dirichlet" and "nearest"; None is 1.
    tol : float, default=0.0
        Where positive, an inversion ends when it gains less than this part of its error.
    distance : {"mse", "dtw", "soft-dtw"}, default="mse"
        What an error is: the mean squared difference between the sequence and a module's drawing of
        it, or one that forgives shifts in time, divided by T C as the former is: the squared cost
        of dynamic time warping without a band, or the soft-DTW divergence
        (:func:`micfast.decision.warped_distances`). The search minimises the mean squared
        difference in all cases; warping costs several times as much again, soft-DTW far more, and
        on the data of ``docs/better.md`` it decides no better.
    error_scale : {"types", "samples"} or None, default=None
        Divide each class's errors by the mean error that its own modules make on its types or on
        its training samples (those of ``calibration_``).
    reject : float or None, default=None
        Between 0 and 1: :meth:`predict` answers ``reject_label`` where the winning class's error
        exceeds the class's threshold, which this share of its own training samples exceeds. May be
        changed after :meth:`fit`.
    reject_label : str, int, float, bool or None, default=None
        The answer for "none of these": of the type of the labels, but none of them. With None,
        :meth:`predict` gives an object array that holds None there.
    standardize : {"global", "channel"} or None, default="global"
        Shift and scale X to mean 0 and standard deviation 1 over all training values, or over
        those of each channel.
    nan_policy : {"raise", "omit"}, default="raise"
        Whether NaN in X before a sequence's end is an error or a missing value, which no error
        counts. "omit" goes with ``distance="mse"`` alone.
    max_retries : int, default=3
        How often modules that did not learn their types are trained again from other weights.
    learned_tol : float, default=0.1
        A module has learned its types when its noise-free mean squared error is at most this
        fraction of the types' variance.
    backend : {"auto", "cpu", "cuda", "torch"}, default="auto"
        Which implementation does the work; "cuda" needs a GPU.
    random_state : int, RandomState or None, default=None
        An int makes the results repeatable.
    n_jobs : int or None, default=None
        Threads; -1 is one per core, None torch's number (one for the choice of types). Without
        influence on the results.
    verbose : int, default=0
        1 shows progress bars.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    banks_ : list of GeneratorBank
        ``n_modules_per_class`` banks of one module per class, in the order of ``classes_``;
        float32, on the CPU.
    bank_ : GeneratorBank
        The first of them.
    types_ : ndarray of shape (n_classes, n_types, n_timesteps, n_channels), float64
        The types in the units of X; NaN after their ends.
    type_info_ : list of TypeSelection
        How each class's types came about.
    training_report_ : list of dict
        Per module, class by class: ``label``; ``module``, its bank's number; ``n_samples``;
        ``n_types_found`` (different types); ``attempts``; ``seeds``, one per attempt; ``mse``, the
        noise-free mean squared error with which the module draws its types (standardised units);
        ``relative_mse``, that over the types' variance; ``learned``; ``seconds``, the time of the
        training runs it took part in; ``loss_curve``, the mean training loss of consecutive
        stretches of episodes.
    calibration_ : list of dict
        Per class, the errors that its own modules make (before ``error_scale``): ``types``, on
        each of its types; ``samples``, on at most 64 of its training samples, sorted. Samples that
        are types are left out if 8 others remain. None for a class from a file of version 1,
        until :meth:`refit_class`.
    scales_ : ndarray of shape (n_classes,)
        What ``error_scale`` divides each class's errors by (1 if it is None).
    thresholds_ : ndarray of shape (n_classes,)
        Errors (after ``error_scale``) above which a sequence that a class wins is like none of its
        training samples: their quantile ``1 - reject``, 0.95 where ``reject`` is None.
    standardizer_ : micfast.data.Standardizer or None
        None if ``standardize`` is None.
    temperature_ : float
        Divides the errors in :meth:`predict_proba`.
    n_timesteps_in_, n_channels_in_ : int
        T (of the longest) and C of the training sequences.
    n_features_in_ : int
        ``n_timesteps_in_ * n_channels_in_``.
    feature_names_in_ : ndarray of shape (n_features,)
        Only if X was a data frame with str column names.

    Notes
    -----
    X has shape (n_samples, n_timesteps, n_channels), or (n_samples, n_timesteps) for one channel.
    Sequences of unequal lengths are a list of arrays (n_timesteps, n_channels) or an array of three
    dimensions padded with NaN, as tslearn's ``to_time_series_dataset`` makes it; errors are then
    means over each one's own values, and reconstructions end in NaN. How types are found among
    them, :func:`micfast.types.select_types` tells.

    Sequences of another length than in training are accepted in three dimensions, since a module
    can draw any length; in two they are an error, as everywhere in scikit-learn. Errors are in
    standardised units; types and reconstructions are in the units of X.

    A module depends on ``random_state``, its label, its bank's number and its class's samples in
    their order, and on the standardisation; not on the other classes, the number of classes or of
    modules per class, or ``n_jobs``. So with ``standardize=None`` (or data standardised before),
    fitting a, b and c is the same as fitting a and b and adding c, but for ``temperature_``.

    Predictions are repeatable. With ``init="paper"`` or ``"dirichlet"`` the starts are drawn for
    one sequence after the other, with a seed from ``random_state``: what a sequence gets then
    depends on its place in X and on the number of classes.

    Where the training samples are themselves the types (few samples per class), they are drawn
    better than new ones will be: thresholds are then too low and probabilities too sure. After a
    change of the parameters of the search, ``distance`` or ``error_scale``, call :meth:`fit`
    again: temperature and thresholds were measured with the old ones.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> t = np.linspace(0, 1, 12)
    >>> X = np.concatenate([np.outer(rng.uniform(0.5, 1.5, 8), t), np.ones((8, 12))])
    >>> y = ["rise"] * 8 + ["flat"] * 8
    >>> clf = ModularInverseClassifier(n_types=2, n_episodes=200, n_iter=10, random_state=0)
    >>> clf.fit(X, y).score(X, y)
    1.0
    """

    def __init__(
        self,
        n_types: int = 4,
        *,
        type_selection: Literal["kmeans", "dtw-kmeans", "random", "first"] = "kmeans",
        type_representative: Literal["centroid", "medoid"] = "centroid",
        hidden_size: int = 10,
        noise_in: float = 0.0,
        noise_out: float = 0.0,
        augmentation: dict[str, Any] | None = None,
        n_episodes: int = 20000,
        learning_rate: float = 0.01,
        n_modules_per_class: int = 3,
        solver: Literal["adam", "lm"] = "lm",
        n_iter: int | None = None,
        inversion_learning_rate: float = 0.05,
        init: Literal["uniform", "paper", "types", "dirichlet", "nearest"] = "nearest",
        n_starts: int | None = None,
        tol: float = 0.0,
        distance: Literal["mse", "dtw", "soft-dtw"] = "mse",
        error_scale: Literal["types", "samples"] | None = None,
        reject: float | None = None,
        reject_label: Label | None = None,
        standardize: Literal["global", "channel"] | None = "global",
        nan_policy: Literal["raise", "omit"] = "raise",
        max_retries: int = 3,
        learned_tol: float = 0.1,
        backend: str = "auto",
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_types = n_types
        self.type_selection = type_selection
        self.type_representative = type_representative
        self.hidden_size = hidden_size
        self.noise_in = noise_in
        self.noise_out = noise_out
        self.augmentation = augmentation
        self.n_episodes = n_episodes
        self.learning_rate = learning_rate
        self.n_modules_per_class = n_modules_per_class
        self.solver = solver
        self.n_iter = n_iter
        self.inversion_learning_rate = inversion_learning_rate
        self.init = init
        self.n_starts = n_starts
        self.tol = tol
        self.distance = distance
        self.error_scale = error_scale
        self.reject = reject
        self.reject_label = reject_label
        self.standardize = standardize
        self.nan_policy = nan_policy
        self.max_retries = max_retries
        self.learned_tol = learned_tol
        self.backend = backend
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    # Set by fit.
    banks_: list[GeneratorBank]
    calibration_: list[dict[str, NDArray[np.float64]] | None]
    n_channels_in_: int

    @classmethod
    def paper(
        cls, data: Literal["characters", "mnist"] | None = None, **overrides: Any
    ) -> ModularInverseClassifier:
        """Build an estimator with the settings of the paper.

        One module per class, trained once and without noise; 50 steps of Adam from the even
        mixture; the mean squared error decides.

        Parameters
        ----------
        data : {"characters", "mnist"} or None
            Type selection, hidden units and training episodes as the paper has them for its pen
            strokes ("dtw-kmeans", 10 and 40000) or its digits ("kmeans", 20 and 20000). None:
            "kmeans", 10 and 20000.
        **overrides
            Parameters of the constructor with other values.

        Returns
        -------
        ModularInverseClassifier

        Raises
        ------
        ValueError
            If ``data`` is something else.

        Notes
        -----
        ``standardize`` stays on: the paper's sequences are standardised, which the loaders of
        :mod:`micfast.data` do, and standardising them again changes next to nothing.

        Examples
        --------
        >>> clf = ModularInverseClassifier.paper("mnist", noise_in=0.2, noise_out=0.1)
        >>> clf.solver, clf.hidden_size, clf.noise_in
        ('adam', 20, 0.2)
        """
        if data not in _PAPER_DATA:
            raise ValueError(
                f"{_NAME}.paper: data must be 'characters', 'mnist' or None, got {data!r}"
            )
        return cls(**(_PAPER_PARAMS | _PAPER_DATA[data] | overrides))

    @property
    def bank_(self) -> GeneratorBank:
        """The modules of the first bank."""
        return self.banks_[0]

    @property
    def scales_(self) -> NDArray[np.float64]:
        """What each class's errors are divided by."""
        if self.error_scale is None:
            return np.ones(len(self.classes_))
        calibration = self._known_calibration("error_scale")
        return np.array([decision.class_scale(own[self.error_scale]) for own in calibration])

    @property
    def thresholds_(self) -> NDArray[np.float64]:
        """Error of each class above which a sequence is like none of its training samples."""
        calibration = self._known_calibration("thresholds")
        reject = _NOVELTY_REJECT if self.reject is None else self.reject
        quantiles = [decision.threshold(own["samples"], reject) for own in calibration]
        return np.array(quantiles) / self.scales_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.nan_policy == "omit"
        return tags

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> ModularInverseClassifier:
        """Select each class's types and train one module per class, all in one run.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels]), or list
            Training sequences, finite; also what has ``__dlpack__``. See the notes on unequal
            lengths.
        y : array-like of shape (n_samples,)
            Their labels: str, int, bool, or float with integral values; two classes at least.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X, y or a parameter isn't as described.

        Warns
        -----
        UserWarning
            If a class has fewer samples than ``n_types``.
        ConvergenceWarning
            If a module has not learned its types after all retries.
        """
        before = self.__dict__.copy()
        try:
            self._check_params()
            X = self._check_sequences(X, reset=True)
            y = _check_y(y, X)
            classes, codes = np.unique(y, return_inverse=True)
            if len(classes) < 2:
                raise ValueError(
                    f"{_NAME}.fit: y must hold at least two classes, got 1 class: {classes[0]!r}"
                )
            labels = [as_label(label) for label in classes]
            self._check_reject_label(labels)
            # By class, so that not even a sum's rounding depends on how classes interleave.
            order = np.argsort(codes, kind="stable")
            X, codes = X[order], codes[order]

            self._entropy = check_random_state(self.random_state).randint(
                2**32, size=4, dtype=np.uint32
            )
            self.standardizer_ = (
                None if self.standardize is None else Standardizer(self.standardize).fit(X)
            )
            Z = self._standardized(X)
            parts = [Z[codes == c] for c in range(len(classes))]
            types, self.type_info_ = self._select_types(labels, parts)
            self.banks_, self.training_report_ = self._train(labels, types, list(map(len, parts)))
            self._warn_unlearned(self.training_report_, stacklevel=3)
            self.types_ = self._unstandardized(types)
            self.classes_ = classes
            self.calibration_ = [*self._calibrate(labels, parts, types, self.banks_)]
            self.temperature_ = self._fit_temperature(labels, parts)
        except BaseException:
            # Ctrl-C in a second fit: better the old model than old modules in new units.
            self.__dict__ = before
            raise
        return self

    def add_class(self, X: Any, label: Label) -> ModularInverseClassifier:
        """Train a new class's modules; the others stay as they are.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels])
            Sequences of the class, as long as those of :meth:`fit`.
        label : str, int, float or bool
            Of the type of the other labels.

        Returns
        -------
        self
            ``standardizer_`` and ``temperature_`` are those of :meth:`fit`.

        Raises
        ------
        TypeError
            If the label is of another type than the others.
        ValueError
            If the label exists, or X isn't as described.

        Warns
        -----
        UserWarning, ConvergenceWarning
            As :meth:`fit`.
        """
        check_is_fitted(self)
        label = self._check_label("add_class", label, exists=False)
        classes = _append_label(self.classes_, label)
        banks, types, info, reports, own = self._fit_one("add_class", X, label)
        order = np.argsort(classes)
        all_reports = [*self._reports_by_class(), reports]
        # All in one step, as in the next two methods: Ctrl-C never comes between them.
        self.__dict__.update(
            banks_=[
                bank.with_module(label, new).select(indices=order)
                for bank, new in zip(self.banks_, banks, strict=True)
            ],
            types_=np.concatenate([self.types_, types])[order],
            type_info_=[[*self.type_info_, info][i] for i in order],
            calibration_=[[*self.calibration_, own][i] for i in order],
            training_report_=_flat(all_reports[i] for i in order),
            classes_=classes[order],
        )
        return self

    def refit_class(self, X: Any, label: Label) -> ModularInverseClassifier:
        """Train a class's modules anew from other samples; the others stay as they are.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels])
            All samples of the class, as long as those of :meth:`fit`.
        label : str, int, float or bool
            A label of ``classes_``.

        Returns
        -------
        self
            ``standardizer_`` and ``temperature_`` are those of :meth:`fit`.

        Raises
        ------
        TypeError, ValueError
            If there is no such label, or X isn't as described.

        Warns
        -----
        UserWarning, ConvergenceWarning
            As :meth:`fit`.
        """
        check_is_fitted(self)
        label = self._check_label("refit_class", label, exists=True)
        banks, types, info, reports, own = self._fit_one("refit_class", X, label)
        position = self.bank_.index(label)
        all_types = self.types_.copy()
        all_types[position] = types[0]
        self.__dict__.update(
            banks_=[bank.replace(label, new) for bank, new in zip(self.banks_, banks, strict=True)],
            types_=all_types,
            type_info_=_replaced(self.type_info_, position, info),
            calibration_=_replaced(self.calibration_, position, own),
            training_report_=_flat(_replaced(self._reports_by_class(), position, reports)),
        )
        return self

    def remove_class(self, label: Label) -> ModularInverseClassifier:
        """Forget a class; the other modules stay as they are.

        Parameters
        ----------
        label : str, int, float or bool
            A label of ``classes_``.

        Returns
        -------
        self
            ``standardizer_`` and ``temperature_`` are those of :meth:`fit`.

        Raises
        ------
        TypeError, ValueError
            If there is no such label, or only two classes are left.
        """
        check_is_fitted(self)
        label = self._check_label("remove_class", label, exists=True)
        if len(self.classes_) == 2:
            raise ValueError(f"{_NAME}.remove_class: two classes must remain at least")
        position = self.bank_.index(label)
        kept = [i for i in range(len(self.classes_)) if i != position]
        reports = self._reports_by_class()
        self.__dict__.update(
            banks_=[bank.without(label) for bank in self.banks_],
            types_=self.types_[kept],
            classes_=self.classes_[kept],
            type_info_=[self.type_info_[i] for i in kept],
            calibration_=[self.calibration_[i] for i in kept],
            training_report_=_flat(reports[i] for i in kept),
        )
        return self

    # -- use -----------------------------------------------------------------------------------

    def predict(self, X: Any) -> np.ndarray:
        """Label of the class that draws each sequence with the lowest error.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels]), or list
            Finite sequences; in three dimensions of any length; see the notes on unequal lengths.

        Returns
        -------
        ndarray of shape (n_samples,)
            Where ``reject`` is set, ``reject_label`` for sequences that no class draws well enough.

        Raises
        ------
        ValueError
            If X has another number of channels than in training (in two dimensions: of features),
            or holds NaN or infinity; :meth:`reconstruction_errors` allows those.
        """
        check_is_fitted(self)
        self._check_decision()
        return self._labels(self._decide(self._check_sequences(X))[1])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy of :meth:`predict`.

        Parameters
        ----------
        X
            As in :meth:`predict`.
        y : array-like of shape (n_samples,)
            True labels. A rejected sequence counts as wrong, unless its label is ``reject_label``.
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        float
        """
        y = for_sklearn(y, f"{_NAME}.score: y")
        if self.reject is None:
            return super().score(X, y, sample_weight)
        predictions = self.predict(X)
        # scikit-learn's accuracy refuses the None among the labels.
        check_consistent_length(predictions, y, sample_weight)
        right = predictions == column_or_1d(y, dtype=object)
        return float(np.average(right, weights=sample_weight))

    def decision_function(self, X: Any) -> np.ndarray:
        """Negative errors of the classes.

        Parameters
        ----------
        X
            As in :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Standardised units, squared, or multiples of ``scales_``. For two classes: the error of
            the first minus that of the second, which is positive where the second is predicted.
        """
        errors = self._comparable_errors(X)
        return errors[:, 0] - errors[:, 1] if errors.shape[1] == 2 else -errors

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes: softmax of ``-errors / temperature_``.

        Parameters
        ----------
        X
            As in :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Given that it is one of the classes: ``reject`` has no influence.

        Notes
        -----
        ``temperature_`` is the one of the lowest log loss on at most 256 training samples. That
        one number is all the calibration there is. Where the training samples are themselves the
        types (few samples per class), they are drawn better than new ones will be, and the
        probabilities are too sure.
        """
        return self._probabilities(self._comparable_errors(X))

    def novelty_score(self, X: Any) -> np.ndarray:
        """How little each sequence is like any class: the lowest error over its class's threshold.

        Parameters
        ----------
        X
            As in :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Above 1 where the error exceeds the class's entry in ``thresholds_``; with ``reject``
            set, those are the sequences that :meth:`predict` rejects.

        Raises
        ------
        ValueError
            As :meth:`predict`; also if a class was read from a file of version 1, which has none.
        """
        errors = self._comparable_errors(X)
        return self._novelty(errors)[0]

    def transform(self, X: Any) -> np.ndarray:
        """Errors and inputs that the modules find for each sequence, as features.

        Parameters
        ----------
        X
            As in :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float64
            The errors of all modules, bank by bank, as they enter the decision (``distance``,
            ``error_scale``); then the inputs found, n_types for each module in the same order. See
            :meth:`get_feature_names_out`.
        """
        check_is_fitted(self)
        self._check_decision()
        Z = self._check_sequences(X)
        inversions, errors = self._search(self._standardized(Z), self.banks_)
        features = [_comparable(e / self.scales_) for e in errors]
        # What a module that diverged has found says nothing: the even mixture.
        even = 1 / self.bank_.input_size
        for found in inversions:
            latents = found.latents.reshape(len(Z), -1).astype(np.float64)
            features.append(np.nan_to_num(latents, nan=even, posinf=even, neginf=even))
        return np.concatenate(features, axis=1)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of :meth:`transform`.

        Parameters
        ----------
        input_features : array-like of str or None
            Checked against ``feature_names_in_`` and not used.

        Returns
        -------
        ndarray of str objects
            ``modularinverseclassifier_error0_a`` for class a in the first bank,
            ``modularinverseclassifier_latent0_a_2`` for its third input.
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        prefix = type(self).__name__.lower()
        modules = [(r, label) for r in range(len(self.banks_)) for label in self.bank_.classes]
        names = [f"{prefix}_error{r}_{label}" for r, label in modules]
        K = self.bank_.input_size
        names += [f"{prefix}_latent{r}_{label}_{k}" for r, label in modules for k in range(K)]
        return np.array(names, dtype=object)

    def reconstruction_errors(self, X: Any, n_iter: int | None = None) -> np.ndarray:
        """Mean squared error, in standardised units, with which each class draws each sequence.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels])
            As in :meth:`predict`, but NaN and infinity are allowed: such a sequence has error NaN.
        n_iter : int, optional
            Iterations; default the estimator's.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float32
            The mean over each class's modules, whatever ``distance`` and ``error_scale`` are.
        """
        check_is_fitted(self)
        settings = {} if n_iter is None else {"n_iter": n_iter}
        Z = self._standardized(self._check_sequences(X, allow_nonfinite=True))
        found = [
            self._invert(bank, Z, self._start_seed(r), **settings).errors
            for r, bank in enumerate(self.banks_)
        ]
        return np.stack(found).mean(axis=0, dtype=np.float64).astype(np.float32)

    def invert(self, X: Any, *, bank: int = 0, **settings: Any) -> Inversion:
        """Invert one module of each class for each sequence.

        Parameters
        ----------
        X
            As in :meth:`reconstruction_errors`.
        bank : int
            Which of ``banks_``.
        **settings
            Arguments of :func:`micfast.invert` instead of the estimator's.

        Returns
        -------
        Inversion
            NumPy arrays; errors (mean squared) and reconstructions in standardised units.

        Raises
        ------
        ValueError
            If there is no such bank, or X or a setting isn't as described.
        """
        check_is_fitted(self)
        r = self._check_bank("invert", bank)
        Z = self._standardized(self._check_sequences(X, allow_nonfinite=True))
        return self._invert(self.banks_[r], Z, self._start_seed(r), **settings)

    def reconstruct(self, X: Any, label: Label | None = None, *, bank: int = 0) -> np.ndarray:
        """What a module makes of each sequence.

        Parameters
        ----------
        X
            As in :meth:`predict`.
        label : str, int, float or bool, optional
            Whose module; default that of the class with the lowest error (also where
            :meth:`predict` rejects).
        bank : int
            Which of the class's modules: its bank's number in ``banks_``.

        Returns
        -------
        ndarray of the shape of X, float64
            In the units of X.

        Raises
        ------
        TypeError, ValueError
            If there is no such label or bank, or X isn't as for :meth:`predict`.
        """
        check_is_fitted(self)
        self._check_decision()
        r = self._check_bank("reconstruct", bank)
        sequences = self._check_sequences(X)
        which: Any
        if label is None:
            inversions, errors = self._decide(sequences)
            result, which = inversions[r], errors.argmin(axis=1)
        else:
            which = self.bank_.index(self._check_label("reconstruct", label, exists=True))
            Z = self._standardized(sequences)
            result = self._invert(self.banks_[r], Z, self._start_seed(r))
        drawn = result.reconstructions(which, backend=self.backend, n_threads=self._n_threads())
        drawn = self._unstandardized(drawn)
        has_channels = unequal(X) is not None or _n_dims(for_sklearn(X, f"{_NAME}: X")) == 3
        return drawn if has_channels else drawn[..., 0]

    # -- files ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator as one safetensors file, without pickle.

        :meth:`GeneratorBank.load` reads its modules, too (those of the first bank). The file
        appears whole or not at all.

        Parameters
        ----------
        path : path-like
            An existing file is replaced.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator isn't fitted.
        OSError
            If it can't be written.

        Notes
        -----
        A ``random_state`` that is a ``RandomState`` is stored as None. What later
        :meth:`add_class` calls draw stays the same in both cases.
        """
        check_is_fitted(self)
        params = self.get_params()
        if isinstance(self.random_state, np.random.RandomState):
            params["random_state"] = None
        kind = self.classes_.dtype.kind
        document = {
            "kind": _NAME,
            "version": _FILE_VERSION,
            "params": params,
            "class_dtype": {"U": "str", "O": "object"}.get(kind, self.classes_.dtype.name),
            "n_timesteps_in": self.n_timesteps_in_,
            "feature_names_in": getattr(self, "feature_names_in_", np.array([])).tolist(),
            "temperature": self.temperature_,
            "entropy": self._entropy.tolist(),
            "type_info": [_info_to_json(info) for info in self.type_info_],
            "training_report": [_report_to_json(report) for report in self.training_report_],
            "calibration": [
                None if own is None else {name: values.tolist() for name, values in own.items()}
                for own in self.calibration_
            ],
        }
        tensors = {"types": torch.from_numpy(self.types_)}
        for r, bank in enumerate(self.banks_[1:], start=1):
            tensors |= {f"bank{r}.{name}": getattr(bank, name) for name in _WEIGHTS}
        if self.standardizer_ is not None:
            document["standardizer_axis"] = self.standardizer_.axis
            tensors["standardizer_mean"] = torch.from_numpy(self.standardizer_.mean_)
            tensors["standardizer_scale"] = torch.from_numpy(self.standardizer_.scale_)
        write_bank(path, self.bank_, tensors, document)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ModularInverseClassifier:
        """Read an estimator that :meth:`save` wrote; it predicts as the saved one did.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        ModularInverseClassifier

        Raises
        ------
        OSError
            If the file can't be read.
        micfast.bank.BankFileError
            If it is damaged, of another format, too new, a bank without an estimator, or its parts
            contradict each other.
        """
        bank, tensors, document = read_bank(path)
        if not isinstance(document, dict) or document.get("kind") != _NAME:
            raise BankFileError(
                path, "holds a bank but no estimator: read it with GeneratorBank.load"
            )
        version = document.get("version")
        if type(version) is not int or version < 1:
            raise BankFileError(
                path, f"the estimator's version must be at least 1, got {version!r}"
            )
        if version > _FILE_VERSION:
            raise BankFileError(
                path,
                f"written by a newer micfast (estimator version {version}, this one reads up to "
                f"{_FILE_VERSION}): update micfast",
            )
        try:
            return cls._from_parts(bank, tensors, document)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise BankFileError(path, f"the estimator's part is inconsistent ({reason})") from error

    @classmethod
    def _from_parts(
        cls, bank: GeneratorBank, tensors: dict[str, torch.Tensor], document: dict[str, Any]
    ) -> ModularInverseClassifier:
        """Build an estimator from a file's parts; any error means a damaged file."""
        params = document["params"]
        if document["version"] == 1:
            params = _VERSION_1_PARAMS | params
        estimator = cls(**params)
        estimator._check_params()
        M, T = bank.n_modules, document["n_timesteps_in"]
        banks = [bank]
        for r in range(1, estimator.n_modules_per_class):
            weights = [tensors.pop(f"bank{r}.{name}") for name in _WEIGHTS]
            banks.append(GeneratorBank(*weights, classes=bank.classes))
        # An error if they differ in sizes or dtype.
        GeneratorBank.concat(b.with_classes(range(r * M, r * M + M)) for r, b in enumerate(banks))
        arrays = {name: tensor.double().numpy() for name, tensor in tensors.items()}
        expected: dict[str, tuple[int, ...]] = {"types": (M, bank.input_size, T, bank.output_size)}
        axis = document.get("standardizer_axis")
        if axis is not None:
            n_scales = (bank.output_size,) if axis == "channel" else (1,)
            expected |= {"standardizer_mean": n_scales, "standardizer_scale": n_scales}
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != expected or type(T) is not int or bank.dtype != torch.float32:
            raise ValueError(f"its float32 tensors must have shapes {expected}, got {shapes}")
        if not all(
            np.isfinite(array).all() for name, array in arrays.items() if name != "types"
        ) or bool(np.isinf(arrays["types"]).any()):
            raise ValueError("its tensors must be finite")
        flat_types = arrays["types"].reshape(-1, T, bank.output_size)
        check_missing(_NAME, "types", flat_types, estimator.nan_policy)
        if axis is None:
            estimator.standardizer_ = None
        else:
            mean, scale = arrays["standardizer_mean"], arrays["standardizer_scale"]
            if not (scale > 0).all():
                raise ValueError("the standardizer's scale must be positive")
            estimator.standardizer_ = Standardizer(axis, mean, scale)
        estimator.types_ = arrays["types"]
        estimator.classes_ = _labels_from_json(bank.classes, document["class_dtype"])
        estimator.banks_ = banks
        estimator._check_reject_label(bank.classes)
        estimator.temperature_ = float(document["temperature"])
        if not (math.isfinite(estimator.temperature_) and estimator.temperature_ > 0):
            raise ValueError("temperature must be finite and above 0")
        estimator._entropy = np.array(document["entropy"], dtype=np.uint32)
        if estimator._entropy.shape != (4,):
            raise ValueError("entropy must be 4 numbers")
        estimator.type_info_ = [_info_from_json(info) for info in document["type_info"]]
        modules = [(label, r) for label in bank.classes for r in range(len(banks))]
        estimator.training_report_ = [
            _report_from_json(report, label, r)
            for report, (label, r) in zip(document["training_report"], modules, strict=True)
        ]
        calibration = [None] * M if document["version"] == 1 else document["calibration"]
        estimator.calibration_ = [
            None if own is None else _own_errors_from_json(own, bank.input_size)
            for own in calibration
        ]
        for name in ("type_info_", "calibration_"):
            if len(getattr(estimator, name)) != M:
                raise ValueError(f"{name[:-1]} must have {M} entries")
        estimator.n_timesteps_in_, estimator.n_channels_in_ = T, bank.output_size
        estimator.n_features_in_ = T * bank.output_size
        names = document["feature_names_in"]
        if names:
            estimator.feature_names_in_ = np.array(names, dtype=object)
            if len(names) != estimator.n_features_in_ or set(map(type, names)) != {str}:
                raise ValueError("feature_names_in must be one str per feature")
        return estimator

    # -- steps of fitting ----------------------------------------------------------------------

    def _fit_one(
        self, method: str, X: Any, label: Label
    ) -> tuple[
        list[GeneratorBank],
        np.ndarray,
        TypeSelection,
        list[dict[str, Any]],
        dict[str, NDArray[np.float64]],
    ]:
        """Modules, types (1, K, T, C) in units of X, reports and own errors of one class."""
        self._check_params()
        self._check_reject_label([*self.bank_.classes, label])
        for name, expected in (
            ("n_types", self.bank_.input_size),
            ("hidden_size", self.bank_.hidden_size),
            ("n_modules_per_class", len(self.banks_)),
        ):
            if getattr(self, name) != expected:
                raise ValueError(
                    f"{_NAME}.{method}: {name} must be {expected} as in fit, "
                    f"got {getattr(self, name)}; call fit to change it"
                )
        Z = self._standardized(self._check_sequences(X))
        n_missing = self.n_timesteps_in_ - Z.shape[1]
        # Of unequal lengths before or now: the longest need not be as long as the longest in fit.
        if n_missing > 0 and (np.isnan(Z).any() or np.isnan(self.types_).any()):
            Z = np.pad(Z, ((0, 0), (0, n_missing), (0, 0)), constant_values=np.nan)
        if Z.shape[1] != self.n_timesteps_in_:
            raise ValueError(
                f"{_NAME}.{method}: X must have n_timesteps = {self.n_timesteps_in_} as in fit, "
                f"got {Z.shape[1]}"
            )
        types, infos = self._select_types([label], [Z])
        banks, reports = self._train([label], types, [len(Z)])
        self._warn_unlearned(reports, stacklevel=4)
        own = self._calibrate([label], [Z], types, banks)
        return banks, self._unstandardized(types), infos[0], reports, own[0]

    def _select_types(
        self, labels: Sequence[Label], parts: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[TypeSelection]]:
        """Types (M, K, T, C) of each class, standardised, in float32."""

        def select(part: tuple[Label, np.ndarray]) -> tuple[np.ndarray, TypeSelection]:
            label, Z = part
            # One class at a time: its seed, and so its cache entry, must not depend on the others.
            types, _, infos = select_types_per_class(
                Z,
                [label] * len(Z),
                self.n_types,
                selection=self.type_selection,
                representative=self.type_representative,
                random_state=self._seed_sequence(label, "types"),
                n_jobs=1,
                nan_policy="omit",
            )
            return types[0], infos[0]

        all_types, infos = [], []
        found = parallel_map(select, zip(labels, parts, strict=True), n_threads(self.n_jobs))
        with self._progress("types", len(labels), "class") as report:
            for types, info in found:
                all_types.append(types)
                infos.append(info)
                if report is not None:
                    report(len(infos) / len(labels))
        return np.stack(all_types), infos

    def _train(
        self, labels: Sequence[Label], types: np.ndarray, n_samples: Sequence[int]
    ) -> tuple[list[GeneratorBank], list[dict[str, Any]]]:
        """Train a fleet; retry those that didn't learn, keep each module's best attempt."""
        device = self._device()
        R = self.n_modules_per_class
        # Module m is that of class m // R in bank m % R.
        type_sets = torch.from_numpy(self._augmented(labels, types)).to(device)
        type_sets = type_sets.repeat_interleave(R, dim=0)
        variance = _variance(types)
        reports: list[dict[str, Any]] = [
            {
                "label": label,
                "module": r,
                "n_samples": n,
                # Any number for NaN, which is not equal to itself.
                "n_types_found": len(
                    np.unique(np.nan_to_num(sets, nan=np.inf).reshape(len(sets), -1), axis=0)
                ),
                "attempts": 0,
                "seeds": [],
                "mse": math.nan,
                "relative_mse": math.nan,
                "learned": False,
                "seconds": 0.0,
                "loss_curve": np.empty(0, dtype=np.float32),
            }
            for label, n, sets in zip(labels, n_samples, types, strict=True)
            for r in range(R)
        ]
        best: list[GeneratorBank | None] = [None] * len(reports)
        pending = list(range(len(reports)))
        for attempt in range(self.max_retries + 1):
            seeds = [self._module_seed(reports[i], attempt) for i in pending]
            begin = time.perf_counter()
            bank, mse, curves = self._train_once(type_sets[pending], seeds, attempt)
            seconds = time.perf_counter() - begin
            for j, i in enumerate(pending):
                report = reports[i]
                report["attempts"] += 1
                report["seeds"].append(seeds[j])
                report["seconds"] += seconds
                # NaN (it diverged) counts as the highest error.
                if best[i] is None or np.nan_to_num(mse[j], nan=math.inf) < np.nan_to_num(
                    report["mse"], nan=math.inf
                ):
                    best[i] = bank.select(indices=j)
                    relative_mse = float(mse[j] / max(variance[i // R], _LEAST_VARIANCE))
                    report["mse"], report["relative_mse"] = float(mse[j]), relative_mse
                    report["learned"] = relative_mse <= self.learned_tol
                    report["loss_curve"] = curves[j]
            pending = [i for i in pending if not reports[i]["learned"]]
            if not pending:
                break
        banks = []
        for r in range(R):
            modules = zip(best[r::R], labels, strict=True)
            banks.append(
                GeneratorBank.concat(
                    bank.with_classes([label])  # type: ignore[union-attr]
                    for bank, label in modules
                )
            )
        return banks, reports

    def _module_seed(self, report: dict[str, Any], attempt: int) -> int:
        """Seed of one training: a function of random_state, label, bank and attempt alone."""
        purpose = f"training {attempt}"
        if report["module"]:
            purpose += f" of module {report['module']}"
        return self._seed(report["label"], purpose)

    def _augmented(self, labels: Sequence[Label], types: np.ndarray) -> np.ndarray:
        """The variants (M, K, V, T, C) of the types that are shown in training."""
        if self.augmentation is None:
            return types[:, :, None]
        lengths = ends(types)
        whole = np.arange(types.shape[2]) < lengths[..., None]
        if np.isnan(types[whole]).any():
            raise ValueError(
                f"{_NAME}: augmentation must be None where values of the types are missing"
            )
        variants = []
        for c, label in enumerate(labels):
            rng = np.random.default_rng(self._seed_sequence(label, "augmentation"))
            for one, length in zip(types[c], lengths[c], strict=True):
                drawn = augment_types(one[:length], **self.augmentation, random_state=rng)
                padding = ((0, 0), (0, len(one) - length), (0, 0))
                variants.append(np.pad(drawn, padding, constant_values=np.nan))
        return np.stack(variants).reshape(*types.shape[:2], -1, *types.shape[2:])

    def _train_once(
        self, type_sets: torch.Tensor, seeds: Sequence[int], attempt: int
    ) -> tuple[GeneratorBank, np.ndarray, np.ndarray]:
        """One run of a fleet: modules, noise-free mean squared errors, loss curves."""
        M, K, _, T, C = type_sets.shape
        start = GeneratorBank.random(
            M, hidden_size=self.hidden_size, input_size=K, output_size=C, seeds=seeds
        ).to(device=type_sets.device)
        omit_nan = bool(type_sets.isnan().any())
        numbers64: Any = {"dtype": torch.float64, "device": type_sets.device}
        description = "training" if attempt == 0 else f"training again ({attempt})"
        with self._progress(description, M * self.n_episodes, "episode") as report:
            result = ops.train(
                *start.weights,
                type_sets,
                torch.arange(M, device=type_sets.device),
                torch.full((M,), self.noise_in, **numbers64),
                torch.full((M,), self.noise_out, **numbers64),
                torch.tensor(seeds, device=type_sets.device),
                self.n_episodes,
                lr=float(self.learning_rate),
                omit_nan=omit_nan,
                backend=self.backend,
                n_threads=self._n_threads(),
                progress=report,
            )
            if report is not None:
                report(1.0)
        bank = GeneratorBank(*result[:5])
        drawn = bank.generate(torch.eye(K), T, backend=self.backend, n_threads=self._n_threads())
        # The first variant is the type itself.
        types = type_sets[:, :, 0]
        if omit_nan:
            mse = reference.mean_squared_error(drawn.double(), types.double(), True).mean(dim=1)
        else:
            mse = (drawn - types).double().square().mean(dim=(1, 2, 3))
        return bank.to(device="cpu"), mse.cpu().numpy(), result.loss_curve.cpu().numpy()

    def _warn_unlearned(self, reports: Sequence[dict[str, Any]], stacklevel: int) -> None:
        failed = [
            f"{report['label']!r} (relative error {report['relative_mse']:.2g})"
            for report in reports
            if not report["learned"]
        ]
        if failed:
            warnings.warn(
                f"{_NAME}: the modules of these classes have not learned their types to within "
                f"learned_tol={self.learned_tol} after {self.max_retries + 1} attempts: "
                f"{', '.join(failed)}; more n_episodes, a larger hidden_size or less noise may "
                "help",
                ConvergenceWarning,
                stacklevel=stacklevel,
            )

    def _calibrate(
        self,
        labels: Sequence[Label],
        parts: Sequence[np.ndarray],
        types: np.ndarray,
        banks: Sequence[GeneratorBank],
    ) -> list[dict[str, NDArray[np.float64]]]:
        """Each class's own errors on its types and on some of its samples: ``calibration_``."""
        calibration = []
        with self._progress("calibration", len(labels), "class") as report:
            for c, (label, Z) in enumerate(zip(labels, parts, strict=True)):
                rng = np.random.default_rng(self._seed_sequence(label, "calibration"))
                samples = decision.calibration_samples(Z, types[c], _CALIBRATION_SAMPLES, rng)
                own = [bank.select(indices=c) for bank in banks]
                Z = np.concatenate([types[c], samples])
                _, errors = self._search(Z, own, progress=False)
                means = _comparable(errors.mean(axis=0)[:, 0])
                K = len(types[c])
                calibration.append({"types": means[:K], "samples": np.sort(means[K:])})
                if report is not None:
                    report((c + 1) / len(labels))
        return calibration

    def _fit_temperature(self, labels: Sequence[Label], parts: Sequence[np.ndarray]) -> float:
        """Temperature of the lowest log loss on at most 256 training samples of all classes."""
        n_samples = sum(map(len, parts))
        chosen, codes = [], []
        for c, (label, Z) in enumerate(zip(labels, parts, strict=True)):
            if n_samples > _TEMPERATURE_SAMPLES:
                quota = max(1, _TEMPERATURE_SAMPLES // len(labels))
                rng = np.random.default_rng(self._seed_sequence(label, "temperature"))
                Z = Z[rng.permutation(len(Z))[:quota]]
            chosen.append(Z)
            codes += [c] * len(Z)
        Z = np.concatenate(chosen)[:_TEMPERATURE_SAMPLES]
        errors = self._class_errors(self._search(Z, self.banks_)[1])
        return decision.best_temperature(errors, np.array(codes[:_TEMPERATURE_SAMPLES]))

    def _seed_sequence(self, label: Label | None, purpose: str) -> np.random.SeedSequence:
        """Seed of one purpose of a class (or all): of random_state, label and purpose alone."""
        text = f"{purpose}|{type(label).__name__}|{label!r}"
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        words = np.frombuffer(digest, dtype="<u4")
        return np.random.SeedSequence([int(word) for word in (*self._entropy, *words)])

    def _seed(self, label: Label, purpose: str) -> int:
        """63-bit seed for a kernel."""
        return int(self._seed_sequence(label, purpose).generate_state(1, np.uint64)[0] >> 1)

    # -- steps of use --------------------------------------------------------------------------

    def _comparable_errors(self, X: Any) -> np.ndarray:
        """Errors of finite sequences, without NaN: what all kinds of prediction rest on."""
        check_is_fitted(self)
        self._check_decision()
        return self._decide(self._check_sequences(X))[1]

    def _decide(self, X: np.ndarray, **settings: Any) -> tuple[list[Inversion], np.ndarray]:
        """Invert all modules for checked sequences; the inversions and the classes' errors."""
        inversions, errors = self._search(self._standardized(X), self.banks_, **settings)
        return inversions, self._class_errors(errors)

    def _class_errors(self, errors: np.ndarray) -> np.ndarray:
        """Errors (n, C) that decide, of the modules' (R, n, C)."""
        return _comparable(errors.mean(axis=0) / self.scales_)

    def _labels(self, errors: np.ndarray) -> np.ndarray:
        """Answers of :meth:`predict` to such errors."""
        best = errors.argmin(axis=1)
        if self.reject is None:
            return self.classes_[best]
        rejected = self._novelty(errors)[1]
        label = self._check_reject_label(self.bank_.classes)
        if label is None:
            answers = self.classes_[best].astype(object)
            answers[rejected] = None
            return answers
        return _append_label(self.classes_, label)[np.where(rejected, len(self.classes_), best)]

    def _probabilities(self, errors: np.ndarray) -> np.ndarray:
        """Answers of :meth:`predict_proba` to such errors."""
        return softmax(-errors / self.temperature_, axis=1)

    def _novelty(self, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The winners' errors over their thresholds, and whether they are above."""
        best = errors.argmin(axis=1)
        lowest, thresholds = errors[np.arange(len(best)), best], self.thresholds_[best]
        return lowest / np.maximum(thresholds, _LEAST_THRESHOLD), lowest > thresholds

    def _search(
        self, Z: np.ndarray, banks: Sequence[GeneratorBank], **settings: Any
    ) -> tuple[list[Inversion], np.ndarray]:
        """Invert banks for standardised sequences; the modules' errors are (R, n, M), unscaled."""
        inversions = [
            self._invert(bank, Z, self._start_seed(r), **settings) for r, bank in enumerate(banks)
        ]
        return inversions, np.stack([self._distances(Z, found) for found in inversions])

    def _invert(
        self, bank: GeneratorBank, Z: np.ndarray, seed: np.random.SeedSequence, **settings: Any
    ) -> Inversion:
        defaults = self._search_settings() | {
            "backend": self.backend,
            "n_threads": self._n_threads(),
            "random_state": np.random.default_rng(seed),
            "progress": bool(self.verbose),
        }
        lengths = ends(Z)
        # Nothing but NaN is no short sequence.
        lengths[lengths == 0] = Z.shape[1]
        if (lengths < Z.shape[1]).any():
            defaults["lengths"] = lengths
        if self.nan_policy == "omit":
            defaults["nan_policy"] = "omit"
        return inversion.invert(bank.to(device=self._device()), Z, **(defaults | settings))

    def _search_settings(self) -> dict[str, Any]:
        """The parameters of the search under the names of :func:`micfast.invert`."""
        return {
            "solver": self.solver,
            "n_iter": self.n_iter,
            "lr": self.inversion_learning_rate,
            "init": self.init,
            "n_starts": self.n_starts,
            "tol": self.tol,
        }

    def _start_seed(self, r: int) -> np.random.SeedSequence:
        """Seed of the random starts of a bank."""
        return self._seed_sequence(None, f"starts {r}")

    def _distances(self, Z: np.ndarray, found: Inversion) -> np.ndarray:
        """Distances (n, M) between sequences and drawings, float64; NaN where there is none."""
        if self.distance == "mse":
            return found.errors.astype(np.float64)
        N, M, _ = found.latents.shape
        T, C = Z.shape[1:]
        step = max(1, _DRAWN_NUMBERS // (M * T * C))
        parts = [np.empty((0, M))]
        for begin in range(0, N, step):
            here = slice(begin, begin + step)
            z = torch.from_numpy(found.latents[here]).transpose(0, 1)
            drawn = found.bank.generate(z, T, backend=self.backend, n_threads=self._n_threads())
            pairs = Z[here], drawn.transpose(0, 1).cpu().numpy()
            parts.append(decision.warped_distances(*pairs, self.distance, n_threads(self.n_jobs)))
        return np.concatenate(parts)

    def _known_calibration(self, what: str) -> list[dict[str, NDArray[np.float64]]]:
        """``calibration_``, or an error where a class has none."""
        check_is_fitted(self)
        missing = [
            label
            for label, own in zip(self.bank_.classes, self.calibration_, strict=True)
            if own is None
        ]
        if missing:
            # Both a ValueError and, for hasattr and displays, an AttributeError.
            raise NotFittedError(
                f"{_NAME}: {what} can't be had for the classes {missing}: they were read from a "
                "file of version 1, which keeps no errors of training samples; call fit or "
                "refit_class"
            )
        return [own for own in self.calibration_ if own is not None]

    def _reports_by_class(self) -> list[list[dict[str, Any]]]:
        R = len(self.banks_)
        reports = self.training_report_
        return [reports[i : i + R] for i in range(0, len(reports), R)]

    def _standardized(self, X: np.ndarray) -> np.ndarray:
        """X in standardised units, float32."""
        Z = X if self.standardizer_ is None else self.standardizer_.transform(X)
        with np.errstate(over="ignore"):
            Z32 = Z.astype(np.float32)
        if np.isinf(Z32).any() and not np.isinf(X).any():
            raise ValueError(f"{_NAME}: X must not exceed float32 once standardised")
        return Z32

    def _unstandardized(self, Z: np.ndarray) -> np.ndarray:
        """Undo the standardisation, in float64; of sequences or of sets of them."""
        Z = Z.astype(np.float64)
        if self.standardizer_ is None:
            return Z
        shape = Z.shape
        return self.standardizer_.inverse_transform(Z.reshape(-1, *shape[-2:])).reshape(shape)

    def _device(self) -> str:
        """Where the work is done; raises if the backend isn't there."""
        device = "cuda" if self.backend == "cuda" else "cpu"
        ops.resolve_backend(self.backend, device)
        return device

    def _n_threads(self) -> int | None:
        return None if self.n_jobs is None else n_threads(self.n_jobs)

    def _progress(self, description: str, total: int, unit: str) -> Any:
        return progress_reporter(bool(self.verbose), description, total=total, unit=unit)

    # -- checks --------------------------------------------------------------------------------

    def _check_params(self) -> None:
        """Check the parameters that no function below checks under its own name."""
        whole = {
            "n_types": 1,
            "hidden_size": 1,
            "n_modules_per_class": 1,
            "n_episodes": 1,
            "n_iter": 0,
            "n_starts": 1,
            "max_retries": 0,
        }
        for name, lowest in whole.items():
            value = getattr(self, name)
            if value is None and name in ("n_iter", "n_starts"):
                continue
            if not _is_number(value, numbers.Integral) or value < lowest:
                raise ValueError(
                    f"{_NAME}: {name} must be an integer of at least {lowest}, got {value!r}"
                )
        for name in ("noise_in", "noise_out", "tol"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < math.inf:
                raise ValueError(f"{_NAME}: {name} must be finite and at least 0, got {value!r}")
        for name in ("learning_rate", "inversion_learning_rate", "learned_tol"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf:
                raise ValueError(f"{_NAME}: {name} must be finite and above 0, got {value!r}")
        if self.augmentation is not None:
            if not isinstance(self.augmentation, dict) or "random_state" in self.augmentation:
                raise ValueError(
                    f"{_NAME}: augmentation must be None or a dict of n_variants, warp and affine, "
                    f"got {self.augmentation!r}"
                )
            augment_types(np.zeros((1, 1)), **self.augmentation)
        self._check_decision()
        # Here, before the training: the inversions follow long after it.
        tiny = GeneratorBank.random(
            1, hidden_size=1, input_size=self.n_types, output_size=1, seeds=[0]
        )
        inversion.invert(tiny, np.empty((0, 1, 1)), backend="torch", **self._search_settings())
        self._device()

    def _check_decision(self) -> None:
        """Check the parameters of search and decision, which may be changed after fit."""
        choices: dict[str, tuple[str | None, ...]] = {
            "standardize": ("global", "channel", None),
            "solver": ("adam", "lm"),
            "init": starts.NAMES,
            "distance": decision.DISTANCES,
            "error_scale": decision.ERROR_SCALES,
            "nan_policy": ("raise", "omit"),
        }
        for name, allowed in choices.items():
            value = getattr(self, name)
            if not (value is None or isinstance(value, str)) or value not in allowed:
                *most, last = map(repr, allowed)
                raise ValueError(
                    f"{_NAME}: {name} must be {', '.join(most)} or {last}, got {value!r}"
                )
        if self.nan_policy == "omit" and self.distance != "mse":
            raise ValueError(
                f"{_NAME}: distance must be 'mse' with nan_policy='omit', got {self.distance!r}"
            )
        if self.reject is not None and not (_is_number(self.reject) and 0 < self.reject < 1):
            raise ValueError(
                f"{_NAME}: reject must be None or a number above 0 and below 1, got {self.reject!r}"
            )

    def _check_sequences(
        self, X: Any, *, reset: bool = False, allow_nonfinite: bool = False
    ) -> np.ndarray:
        """X as a float array (n, T, C); with ``reset`` its sizes become the fitted ones."""
        ragged = ragged_to_padded(_NAME, "X", X)
        X = ragged if ragged is not None else for_sklearn(X, f"{_NAME}: X")
        n_dims = _n_dims(X)
        # In three dimensions NaN may follow a sequence's end; check_missing looks where it is.
        nan_allowed = n_dims == 3 or self.nan_policy == "omit"
        rules = {
            "dtype": [np.float64, np.float32],
            "ensure_all_finite": False if allow_nonfinite else "allow-nan" if nan_allowed else True,
        }
        if n_dims > 3:
            raise ValueError(
                f"{_NAME}: X must have shape [n_samples, n_timesteps] or [n_samples, n_timesteps, "
                f"n_channels], got {n_dims} dimensions"
            )
        if n_dims == 3:
            X = check_array(X, allow_nd=True, input_name="X", estimator=self, **rules)
            if 0 in X.shape:
                raise ValueError(f"{_NAME}: X must not be empty, got shape {list(X.shape)}")
            if reset and hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        else:
            if not reset and n_dims == 2 and self.n_channels_in_ != 1:
                raise ValueError(
                    f"{_NAME}: X must have shape [n_samples, n_timesteps, {self.n_channels_in_}] "
                    "as in fit, got 2 dimensions"
                )
            X = validate_data(self, X, reset=reset, **rules)[..., None]
        if not allow_nonfinite:
            check_missing(_NAME, "X", X, self.nan_policy)
        if reset:
            _, self.n_timesteps_in_, self.n_channels_in_ = X.shape
            self.n_features_in_ = self.n_timesteps_in_ * self.n_channels_in_
        elif X.shape[2] != self.n_channels_in_:
            raise ValueError(
                f"{_NAME}: X must have n_channels = {self.n_channels_in_} as in fit, "
                f"got {X.shape[2]}"
            )
        return X

    def _check_bank(self, method: str, bank: Any) -> int:
        if not _is_number(bank, numbers.Integral) or not 0 <= bank < len(self.banks_):
            raise ValueError(
                f"{_NAME}.{method}: bank must be an integer from 0 to {len(self.banks_) - 1}, "
                f"got {bank!r}"
            )
        return int(bank)

    def _check_reject_label(self, classes: Sequence[Label]) -> Label | None:
        """``reject_label`` with the Python type of the labels, None if it is None."""
        if self.reject_label is None:
            return None
        label = _like_labels(f"{_NAME}: reject_label", self.reject_label, classes)
        if label in classes:
            raise ValueError(
                f"{_NAME}: reject_label must not be one of the classes {list(classes)}, "
                f"got {label!r}"
            )
        return label

    def _check_label(self, method: str, label: Any, *, exists: bool) -> Label:
        """The label with the Python type of the other labels, known or new as required."""
        label = _like_labels(f"{_NAME}.{method}: label", label, self.bank_.classes)
        if (label in self.bank_.classes) != exists:
            rule = "be one of the classes" if exists else "not be one of the classes"
            raise ValueError(
                f"{_NAME}.{method}: label must {rule} {list(self.bank_.classes)}, got {label!r}"
            )
        return label


def _n_dims(X: Any) -> int:
    """Number of dimensions of an array, data frame, sparse matrix or nested list of numbers."""
    if hasattr(X, "ndim"):
        return X.ndim
    try:
        return np.asarray(X).ndim
    except ValueError as error:
        raise ValueError(
            f"{_NAME}: X must hold sequences of shape [n_timesteps] or [n_timesteps, n_channels], "
            f"got a list ragged within them ({error})"
        ) from error


def _variance(types: np.ndarray) -> np.ndarray:
    """Variance (M,) of types (M, K, T, C) around each channel's mean, over their values."""
    if np.isnan(types).any():
        known = np.ma.masked_invalid(types)
        return np.ma.filled(known.var(axis=(1, 2), dtype=np.float64).mean(axis=-1), 0)
    return types.var(axis=(1, 2), dtype=np.float64).mean(axis=-1)


# -- labels --------------------------------------------------------------------------------------


def _check_y(y: Any, X: np.ndarray) -> np.ndarray:
    """Labels as a 1-D array, one per sample."""
    if y is None:
        raise ValueError(f"{_NAME}.fit requires y to be passed, but the target y is None")
    y = for_sklearn(y, f"{_NAME}.fit: y")
    y = column_or_1d(y, warn=True)
    check_consistent_length(X, y)
    check_classification_targets(y)
    return y


def _like_labels(name: str, label: Any, classes: Sequence[Label]) -> Label:
    """The label with the Python type of the others."""
    label = as_label(label)
    kinds = {type(known) for known in classes}
    if kinds == {float} and type(label) is int:
        label = float(label)
    if type(label) not in kinds:
        names = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(
            f"{name} must be of type {names} as the other labels are, "
            f"got {type(label).__name__} {label!r}"
        )
    return label


def _append_label(classes: np.ndarray, label: Label) -> np.ndarray:
    """One label more, in a dtype that holds it uncut."""
    if classes.dtype.kind == "O":
        return np.array([*classes, label], dtype=object)
    new = np.concatenate([classes, np.array([label])])
    # NumPy would fall back on object, or on float64 for uint64 beside a negative integer.
    kinds = {classes.dtype.kind, new.dtype.kind}
    if len(kinds) > 1 and kinds != {"i", "u"}:
        raise ValueError(f"{_NAME}: label {label!r} doesn't fit the other labels' {classes.dtype}")
    return new


def _labels_from_json(labels: Sequence[Label], dtype: str) -> np.ndarray:
    """classes_ of a file; the width of str comes from the labels, not from the file's word."""
    if dtype == "object":
        classes = np.array(labels, dtype=object)
    elif dtype == "str":
        classes = np.array(labels)
    elif dtype in _CLASS_DTYPES:
        classes = np.array(labels).astype(dtype)
    else:
        raise ValueError(f"class_dtype must be a NumPy type of labels, got {dtype!r}")
    if classes.tolist() != list(labels) or np.unique(classes).tolist() != list(labels):
        raise ValueError(f"the classes must be sorted and of dtype {dtype}")
    return classes


# -- small things --------------------------------------------------------------------------------


def _flat(lists: Iterable[list[_Item]]) -> list[_Item]:
    return [item for items in lists for item in items]


def _replaced(items: Sequence[_Item], position: int, item: _Item) -> list[_Item]:
    """A copy with another item at that position."""
    return [*items[:position], item, *items[position + 1 :]]


def _is_number(value: Any, kind: type = numbers.Real) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


# -- JSON of the fitted lists --------------------------------------------------------------------


def _float_to_json(value: float) -> float | None:
    """A number, or None for one that JSON lacks (a module that diverged has error NaN)."""
    return float(value) if math.isfinite(value) else None


def _float_from_json(value: Any) -> float:
    return math.nan if value is None else float(value)


def _report_to_json(report: dict[str, Any]) -> dict[str, Any]:
    return report | {
        "mse": _float_to_json(report["mse"]),
        "relative_mse": _float_to_json(report["relative_mse"]),
        "loss_curve": [_float_to_json(loss) for loss in report["loss_curve"].tolist()],
    }


def _report_from_json(report: dict[str, Any], label: Label, module: int) -> dict[str, Any]:
    return {
        "label": label,
        "module": module,
        "n_samples": int(report["n_samples"]),
        "n_types_found": int(report["n_types_found"]),
        "attempts": int(report["attempts"]),
        "seeds": [int(seed) for seed in report["seeds"]],
        "mse": _float_from_json(report["mse"]),
        "relative_mse": _float_from_json(report["relative_mse"]),
        "learned": bool(report["learned"]),
        "seconds": float(report["seconds"]),
        "loss_curve": np.array(
            [_float_from_json(loss) for loss in report["loss_curve"]], dtype=np.float32
        ),
    }


def _own_errors_from_json(own: dict[str, Any], n_types: int) -> dict[str, NDArray[np.float64]]:
    errors = {name: np.array(own[name], dtype=np.float64) for name in ("types", "samples")}
    for name, values in errors.items():
        if values.ndim != 1 or not len(values) or not (values >= 0).all():
            raise ValueError(f"calibration must hold errors of at least 0 on {name}")
    if len(errors["types"]) != n_types or not np.isfinite(np.concatenate([*errors.values()])).all():
        raise ValueError(f"calibration must hold {n_types} finite errors on types")
    return {"types": errors["types"], "samples": np.sort(errors["samples"])}


def _info_to_json(info: TypeSelection) -> dict[str, Any]:
    return {
        "labels": info.labels.tolist(),
        "index": info.index.tolist(),
        "inertia": _float_to_json(info.inertia),
        "n_iter": info.n_iter,
    }


def _info_from_json(info: dict[str, Any]) -> TypeSelection:
    return TypeSelection(
        labels=np.array(info["labels"], dtype=np.int64),
        index=np.array(info["index"], dtype=np.int64),
        inertia=_float_from_json(info["inertia"]),
        n_iter=int(info["n_iter"]),
    )
