"""The scikit-learn estimator: parameters, checks, and the order of the steps."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils import Tags, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from micfast.arrays import to_numpy
from micfast.classify import calibration, fitting, inputs, judging, persistence, sizes
from micfast.classify.decision import Decision, Rules, append_label
from micfast.classify.distances import DISTANCES
from micfast.classify.experts import Expectation, Experts
from micfast.classify.panel import Asked, Panel, Panelled, Views
from micfast.classify.parameters import SettingsParameters
from micfast.classify.seeds import seed_sequence
from micfast.classify.views import views_of, voting_of
from micfast.data.standardize import Standardizer, negligible_channels
from micfast.generators.bank import GeneratorBank
from micfast.generators.labels import Label, as_label
from micfast.kernels.backend import resolve_backend
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.runtime import n_threads
from micfast.search.inversion import Inversion, invert
from micfast.search.jointly import search_jointly
from micfast.search.pose import Pose, pose_of
from micfast.search.solvers import SOLVERS, Solver
from micfast.search.solvers.adam import Adam
from micfast.search.solvers.levenberg_marquardt import LevenbergMarquardt
from micfast.sequences import is_lazy
from micfast.settings import Settings, check_choice, check_count, is_number
from micfast.training.report import TrainingReport
from micfast.training.selections import SELECTIONS, Selection
from micfast.training.selections.kmeans import DTWKMeans
from micfast.training.settings import Training

__all__ = ["ModularInverseClassifier"]

_NAME = "ModularInverseClassifier"
# The share of training samples above the thresholds where `reject` gives none.
_NOVELTY_REJECT = 0.05
# Sizes that only a mistake can explain. They are refused before memory is taken: the starts of K
# types alone hold K**2 numbers.
_MOST_TYPES, _MOST_MODULES = 10_000, 10_000
_DEFAULT_SOLVER = LevenbergMarquardt()
_PAPER: dict[str, Any] = {
    "n_types": 4,
    "n_modules_per_class": 1,
    "views": "raw",
    "pose": None,
    "hull": False,
}
_PAPER_DATA: dict[str | None, tuple[Selection | str, int, int]] = {
    None: ("kmeans", 10, 20000),
    "characters": (DTWKMeans(), 10, 40000),
    "mnist": ("kmeans", 20, 20000),
}


class ModularInverseClassifier(
    SettingsParameters, ClassifierMixin, TransformerMixin, BaseEstimator
):
    """Classifier of sequences by inversion of small generative LSTMs, some per class.

    Each class's modules learn to draw the class's few types. A new sequence is given to every
    module, which searches for the latent that reconstructs it best; the class with the lowest
    error is predicted. Classes can be added, removed and refitted without touching the others.
    By default modules draw the sequences and their differences, a sequence may be a little early or
    late, fast or slow, large or small, and mixtures of the types vote beside the modules, in four
    views: of what was measured, most often right and least disturbed by noise
    (``docs/answers.md``).
    ``n_modules_per_class=3, views="raw", pose=None, hull=False`` is the plain search;
    :meth:`paper` gives the settings of the paper.

    Parameters
    ----------
    n_types : int or "auto", default=4
        Types per class: the sequences a module learns. "auto": from 2 to 16, as training samples
        held out of their selection say, see ``docs/answers.md``.
    type_selection : {"kmeans", "dtw-kmeans", "random", "first"} or object, default="kmeans"
        How a class's types are selected, see :func:`micfast.training.types.select_types`.
    hidden_size : int or "auto", default=10
        Hidden units of each module's LSTM. "auto": from 6 to 32, as modules trained on a part of
        the samples draw the others.
    training : Training, default=None
        How modules are trained; None is ``Training()``.
    n_modules_per_class : int, default=1
        Modules R of each class, trained on the same types from different seeds; the mean of their
        errors is the class's.
    solver : {"adam", "lm"} or solver object, default=None
        How sequences are inverted; None is ``LevenbergMarquardt()``.
    distance : {"mse", "dtw"}, default="mse"
        Distance between a sequence and its reconstruction, divided by T C: mean squared error, or
        the squared cost of dynamic time warping without a band. The search minimises the mean
        squared error in both cases. "dtw" needs ``views="raw"``, ``pose=None`` and ``hull=False``.
    views : "auto", str, or tuple of str and functions, default="auto"
        What modules learn to draw, see ``docs/answers.md``: "raw", the sequence itself;
        "difference", "smooth", "shape", "envelope", "energy", "autocorrelation", "znorm"; or a
        function of standardised sequences (n, T, C). "auto" is ("raw", "difference"). Each view has
        ``n_modules_per_class`` modules of its own, and their errors are multiplied.
    pose : Pose, "auto" or None, default="auto"
        Whether a sequence may be a little early or late, fast or slow, large or small.
        "auto" is ``Pose()``. The solver's own start is for searches without pose.
    hull : bool, "auto", str, or tuple of str and functions, default="auto"
        The views in which the mixtures of the types themselves vote, too, beside the modules'
        drawings; they take no training. True: in ``views``; False: in none. "auto" is
        ("smooth", "difference", "shape", "envelope").
    reject : float or None, default=None
        Between 0 and 1: :meth:`predict` answers ``reject_label`` if the winning class's error
        exceeds the class's threshold, which this share of its own training samples exceeds. May be
        changed after :meth:`fit`.
    reject_label : str, int, float, bool or None, default=None
        The answer for "none of these": of the type of the labels, but none of them. With None,
        :meth:`predict` gives an object array that holds None there.
    standardize : {"global", "channel"} or None, default="global"
        Shift and scale X to mean 0 and standard deviation 1 over all training values, or over
        those of each channel.
    nan_policy : {"raise", "omit"}, default="raise"
        Whether NaN in X before a sequence's end is an error, or a missing value that is ignored in
        errors. "omit" requires ``distance="mse"``.
    backend : {"auto", "cpu", "cuda", "torch"}, default="auto"
        Compute backend, see :class:`micfast.Execution`; "cuda" needs a GPU.
    random_state : int, RandomState or None, default=None
        An int makes the results repeatable.
    n_jobs : int or None, default=None
        Threads; -1 is one per processor, None torch's thread count (type selection uses one).
        Results do not depend on it.
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
        How each class's types were selected.
    training_report_ : TrainingReport
        A list that prints as a table, with a dict per module, class by class: ``label``;
        ``module``, its bank's number; ``n_samples``; ``n_types_found`` (different types);
        ``attempts``; ``seeds``, one per attempt; ``mse``, the noise-free mean squared error of its
        drawings of the types (standardised units); ``relative_mse``, that over the types' variance;
        ``learned``; ``reason``, why not; ``steps``, by method; ``seconds``, the time of the
        training runs it took part in; ``loss_curve``.
    calibration_ : list of dict
        Per class, the errors of its own modules: ``types``, on each of its types; ``samples``, on
        at most 64 of its training samples, sorted. Samples that are types are left out if 8 others
        remain.
    thresholds_ : ndarray of shape (n_classes,)
        Errors above which a winning sequence is considered unlike the class's training samples:
        their quantile ``1 - reject``, 0.95 where ``reject`` is None.
    standardizer_ : micfast.data.Standardizer or None
        None if ``standardize`` is None.
    temperature_ : float
        Divides the errors in :meth:`predict_proba`; with views or pose, their logarithms.
    experts_ : Experts or None
        How the errors of views are weighed; None without views and pose.
    expectation_ : Expectation or None
        What the training samples say about the accuracy on new ones; None without views and pose,
        or where nothing could be left out.
    n_types_, hidden_size_ : int
        What ``n_types`` and ``hidden_size`` are, or were decided to be.
    n_timesteps_in_, n_channels_in_ : int
        T (of the longest) and C of the training sequences.
    n_features_in_ : int
        ``n_timesteps_in_ * n_channels_in_``.
    feature_names_in_ : ndarray of shape (n_features,)
        Only if X was a data frame with str column names.
    channel_names_in_ : tuple of str or None
        Column names, if the sequences were data frames.

    Notes
    -----
    X has shape (n_samples, n_timesteps, n_channels), or (n_samples, n_timesteps) for one channel;
    a list (or another container, see :meth:`micfast.Sequences.read`) always holds one sequence per
    item, of any length. Arrays padded with NaN hold sequences of unequal lengths, too. Errors are
    means over each sequence's own values, and reconstructions end in NaN.

    Arrays of three dimensions and lists may have another length than in training, since a module
    can draw any length; arrays of two may not, as everywhere in scikit-learn. Errors are in
    standardised units; types and reconstructions are in the units of X.

    A module depends on ``random_state``, its label, its bank's number, its class's samples in
    their order and the standardisation; not on the other classes, their number, the number of
    modules per class, or ``n_jobs``. So with ``standardize=None`` (or data standardised before),
    fitting a, b and c equals fitting a and b and adding c, except for what all classes decide
    together: ``temperature_``, ``experts_`` and ``pose_``.

    Predictions are repeatable. If the solver's start is random, starts are drawn for one sequence
    after the other, with a seed from ``random_state`` unless the start has its own: results then
    depend on a sequence's place in X and on the number of modules.

    If the training samples are themselves the types (few samples per class), they are drawn better
    than new ones will be: thresholds are then too low, and without views and pose, probabilities
    are overconfident. After changing ``solver`` or ``distance``, call :meth:`fit` again:
    temperature and thresholds were measured with the old ones.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import ModularInverseClassifier, Training
    >>> rng = np.random.default_rng(0)
    >>> t = np.linspace(0, 1, 12)
    >>> X = np.outer(rng.uniform(0.5, 1.5, 16), t)
    >>> X[8:] = X[8:, ::-1]
    >>> y = ["rise"] * 8 + ["fall"] * 8
    >>> clf = ModularInverseClassifier(
    ...     n_types=2, training=Training(max_retries=0), random_state=0
    ... )
    >>> clf.fit(X, y).score(X, y)
    1.0
    """

    def __init__(
        self,
        n_types: int | str = 4,
        *,
        type_selection: Selection | str = "kmeans",
        hidden_size: int | str = 10,
        training: Training | None = None,
        n_modules_per_class: int = 1,
        solver: Solver | str | None = None,
        distance: str = "mse",
        views: Any = "auto",
        pose: Pose | str | None = "auto",
        hull: Any = "auto",
        reject: float | None = None,
        reject_label: Label | None = None,
        standardize: Literal["global", "channel"] | None = "global",
        nan_policy: Literal["raise", "omit"] = "raise",
        backend: str = "auto",
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_types = n_types
        self.type_selection = type_selection
        self.hidden_size = hidden_size
        self.training = training
        self.n_modules_per_class = n_modules_per_class
        self.solver = solver
        self.distance = distance
        self.views = views
        self.pose = pose
        self.hull = hull
        self.reject = reject
        self.reject_label = reject_label
        self.standardize = standardize
        self.nan_policy = nan_policy
        self.backend = backend
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    # Set by fit.
    _all_modules: list[GeneratorBank]
    _panel: Panel | None
    _sizes: tuple[int, int]
    _thresholds: tuple[float, NDArray[np.float64]]
    banks_: list[GeneratorBank]
    calibration_: list[dict[str, NDArray[np.float64]]]
    channel_names_in_: tuple[str, ...] | None
    entropy_: NDArray[np.uint32]
    expectation_: Expectation | None
    experts_: Experts | None
    n_channels_in_: int
    standardizer_: Standardizer | None

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
            Type selection, hidden units and training episodes of the paper's pen strokes
            ("dtw-kmeans", 10 and 40000) or digits ("kmeans", 20 and 20000). None: "kmeans", 10
            and 20000.
        **overrides
            Other values for parameters, nested ones included.

        Returns
        -------
        ModularInverseClassifier

        Raises
        ------
        ValueError
            If ``data`` is something else, or there is no such parameter.

        Notes
        -----
        ``standardize`` stays on: the paper's sequences are standardised, which the loaders of
        :mod:`micfast.data` do, and standardising them again changes next to nothing.

        Examples
        --------
        >>> from micfast import ModularInverseClassifier
        >>> clf = ModularInverseClassifier.paper("mnist", training__noise_in=0.2)
        >>> clf.hidden_size, clf.solver.n_iter, clf.training.noise_in
        (20, 50, 0.2)
        """
        if data not in _PAPER_DATA:
            raise ValueError(
                f"{_NAME}.paper: data must be 'characters', 'mnist' or None, got {data!r}"
            )
        selection, hidden_size, n_episodes = _PAPER_DATA[data]
        estimator = cls(
            **_PAPER,
            type_selection=selection,
            hidden_size=hidden_size,
            training=Training.paper(n_episodes, max_retries=0),
            solver=Adam(),
        )
        return estimator.set_params(**overrides)

    def resolved_settings(self) -> dict[str, Settings]:
        """The settings objects that are used, by parameter name."""
        training = Training() if self.training is None else self.training
        if not isinstance(training, Training):
            raise TypeError(f"{_NAME}: training must be a Training or None, got {training!r}")
        settings: dict[str, Settings] = {
            "type_selection": SELECTIONS.resolve(self.type_selection),
            "training": training,
            "solver": self._solver(),
        }
        pose = pose_of(self.pose)
        return settings if pose is None else settings | {"pose": pose}

    def _solver(self) -> Solver:
        return _DEFAULT_SOLVER if self.solver is None else SOLVERS.resolve(self.solver)

    @property
    def bank_(self) -> GeneratorBank:
        """The modules of the first bank."""
        return self.banks_[0]

    @property
    def n_types_(self) -> int:
        """Types per class."""
        return self.bank_.input_size

    @property
    def hidden_size_(self) -> int:
        """Hidden units of each module."""
        return self.bank_.hidden_size

    @property
    def thresholds_(self) -> NDArray[np.float64]:
        """Error of each class above which a sequence is unlike its training samples."""
        reject = _NOVELTY_REJECT if self.reject is None else self.reject
        if "calibration_" not in self.__dict__:
            check_is_fitted(self)  # raises
        # Kept by fit, since the quantiles cost as much as a short search.
        kept_for, kept = self._thresholds
        return kept.copy() if kept_for == reject else self._thresholds_for(reject)

    def _thresholds_for(self, reject: float) -> NDArray[np.float64]:
        samples = [one["samples"] for one in self.calibration_]
        if (experts := self.experts_) is not None:
            samples = [experts.combine(one["experts"]) for one in self.calibration_]
        return np.array([calibration.threshold(one, reject) for one in samples])

    def keep_thresholds(self) -> None:
        """Keep what :attr:`thresholds_` are, once all else is fitted or restored."""
        reject = _NOVELTY_REJECT if self.reject is None else self.reject
        self._thresholds = (reject, self._thresholds_for(reject))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.nan_policy == "omit"
        return tags

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, *, client: Any = None) -> ModularInverseClassifier:
        """Select each class's types, train all modules in one run, and calibrate.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels]), or list
            Training sequences, finite. See the notes on unequal lengths.
        y : array-like of shape (n_samples,)
            Their labels: str, int, bool, or float with integral values; at least two classes.
        client : distributed.Client, optional
            Deals the classes to the workers of a Dask cluster; the model is the same, bit for bit,
            if they run the same instruction set. For Dask arrays X and y, which are brought into
            memory, it is the current client, if there is one.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If X, y or a parameter is not as described.

        Warns
        -----
        UserWarning
            If a class has fewer samples than ``n_types``, or a channel varies so little beside
            the others that it has no influence.
        ConvergenceWarning
            If a module has not learned its types after all retries; it says why.
        """
        before = self.__dict__.copy()
        try:
            self._check_params()
            if is_lazy(X):
                from micfast.classify import lazily

                X, y, client = lazily.in_memory(X, y, client)
            X = inputs.read(self, X, reset=True)
            y = _checked_labels(y, X)
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
            random = check_random_state(self.random_state)
            self.entropy_ = random.randint(2**32, size=4, dtype=np.uint32)
            self._fit_standardizer(X)
            Z = self._standardized(X)
            parts = [Z[codes == c] for c in range(len(classes))]
            self._panel = self._make_panel(Z, parts)
            self._sizes = self._decided_sizes(labels, Z, parts)
            fitted = self._fit_classes(labels, parts, stacklevel=3, client=client)
            self.restore(fitted, classes)
            self._weigh(labels, parts)
            self.keep_thresholds()
        except BaseException:
            # Ctrl-C in a second fit: better the old model than old modules in new units.
            self.__dict__ = before
            raise
        return self

    def add_class(self, X: Any, label: Label) -> ModularInverseClassifier:
        """Train a new class's modules; the others stay as they are.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels]), or list
            Sequences of the class; they may be shorter or longer than those of :meth:`fit`.
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
            If the label exists, or X is not as described.

        Warns
        -----
        UserWarning, ConvergenceWarning
            As :meth:`fit`.
        """
        check_is_fitted(self)
        label = self._check_label("add_class", label, exists=False)
        try:
            classes = append_label(self.classes_, label)
        except ValueError as error:
            raise ValueError(f"{_NAME}.add_class: {error}") from None
        self._set_classes([*self.fitted_classes(), self._fit_one("add_class", X, label)], classes)
        return self

    def refit_class(self, X: Any, label: Label) -> ModularInverseClassifier:
        """Retrain a class's modules on other samples; the others stay as they are.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels]), or list
            All samples of the class.
        label : str, int, float or bool
            A label of ``classes_``.

        Returns
        -------
        self
            ``standardizer_`` and ``temperature_`` are those of :meth:`fit`.

        Raises
        ------
        TypeError, ValueError
            If there is no such label, or X is not as described.

        Warns
        -----
        UserWarning, ConvergenceWarning
            As :meth:`fit`.
        """
        check_is_fitted(self)
        label = self._check_label("refit_class", label, exists=True)
        fitted = self.fitted_classes()
        fitted[self.bank_.index(label)] = self._fit_one("refit_class", X, label)
        self._set_classes(fitted, self.classes_)
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
            raise ValueError(f"{_NAME}.remove_class: at least two classes must remain")
        kept = [c for c in range(len(self.classes_)) if c != self.bank_.index(label)]
        fitted = self.fitted_classes()
        self._set_classes([fitted[c] for c in kept], self.classes_[kept])
        return self

    # -- use -----------------------------------------------------------------------------------

    def decide(self, X: Any) -> Any:
        """Search all modules once for each sequence, and decide.

        Errors, predictions, probabilities, novelty and reconstructions of the same sequences are
        all in the answer; :meth:`predict` and the other methods return one part of it.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels]), or list
            Finite sequences; in three dimensions or a list of any length. A Dask array is searched
            chunk by chunk, when a part of the answer is computed.

        Returns
        -------
        Decision
            Of Dask arrays for a Dask array, and so are the answers of the methods that return one
            part: :meth:`predict`, :meth:`predict_proba`, :meth:`decision_function`,
            :meth:`novelty_score`, :meth:`score_samples`, :meth:`transform`, :meth:`reconstruct`.

        Raises
        ------
        TypeError, ValueError
            If X has another number of channels than in training (in two dimensions: of features),
            or holds NaN or infinity; :meth:`reconstruction_errors` allows those.
        """
        check_is_fitted(self)
        self._check_rules()
        if is_lazy(X):
            from micfast.classify import lazily

            return lazily.decide(self, X)
        Z = self._standardized(inputs.read(self, X))
        execution = self._execution()
        reject_label = None
        if self.reject is not None and self.reject_label is not None:
            reject_label = self._check_reject_label(self.bank_.classes)
        rules = Rules(
            classes=self.classes_,
            thresholds=self.thresholds_,
            temperature=self.temperature_,
            rejects=self.reject is not None,
            reject_label=reject_label,
            logarithmic=self.experts_ is not None,
        )
        if self._panel is None or self.experts_ is None:
            found = self._invert(self._all_modules[0], Z, execution=execution)
            module_errors = self._distances(found, Z, len(self.banks_), execution)
            errors = calibration.class_errors(module_errors)
            return Decision.from_errors(
                errors, module_errors, rules, found, self.standardizer_, execution
            )
        said = self._ask(Z, execution)
        return Decision.from_errors(
            self.experts_.combine(said.errors),
            said.module_errors,
            rules,
            said.raw.inversion(self._all_modules[0], Z),
            self.standardizer_,
            execution,
            dict(zip(self.experts_.names, said.errors, strict=True)),
        )

    def predict(self, X: Any) -> np.ndarray:
        """Label of the class that reconstructs each sequence with the lowest error.

        Parameters
        ----------
        X
            As in :meth:`decide`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Where ``reject`` is set, ``reject_label`` for sequences that no class reconstructs well
            enough.
        """
        return self.decide(X).labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy of :meth:`predict`.

        Parameters
        ----------
        X
            As in :meth:`decide`.
        y : array-like of shape (n_samples,)
            True labels. A rejected sequence counts as wrong, unless its label is ``reject_label``.
        sample_weight : array-like of shape (n_samples,), optional

        Returns
        -------
        float
        """
        y = to_numpy(y)
        if self.reject is None:
            return super().score(X, y, sample_weight)
        predictions = self.predict(X)
        # scikit-learn's accuracy refuses the None among the labels.
        check_consistent_length(predictions, y, sample_weight)
        right = predictions == column_or_1d(y, dtype=object)
        return float(np.average(right, weights=sample_weight))

    def decision_function(self, X: Any) -> np.ndarray:
        """Negative errors of the classes; with views, pose or hulls, of the errors' logarithms.

        Parameters
        ----------
        X
            As in :meth:`decide`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            The largest is that of the class predicted; in standardised units, squared, in the plain
            search. For two classes: that of the second minus that of the first, which is positive
            where the second is predicted.
        """
        scores = self.decide(X).scores
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes: softmax of the decision function over ``temperature_``.

        Parameters
        ----------
        X
            As in :meth:`decide`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Given that it is one of the classes: ``reject`` has no influence.

        Notes
        -----
        With views or pose, each view has a temperature (``experts_``), which training samples that
        no module has learned, or types left out in turn, decide. Without, ``temperature_``
        minimises the log loss on at most 128 training samples: where these are themselves the types
        (few samples per class), probabilities are overconfident.
        """
        return self.decide(X).probabilities

    def novelty_score(self, X: Any) -> np.ndarray:
        """Novelty: lowest error divided by that class's threshold.

        Parameters
        ----------
        X
            As in :meth:`decide`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Above 1 where the error exceeds the class's entry in ``thresholds_``; with ``reject``
            set, those are the sequences that :meth:`predict` rejects.
        """
        return self.decide(X).novelty

    def score_samples(self, X: Any) -> np.ndarray:
        """Negative :meth:`novelty_score`: higher is more normal, as in scikit-learn's detectors.

        Parameters
        ----------
        X
            As in :meth:`decide`.

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return -self.decide(X).novelty

    def transform(self, X: Any) -> np.ndarray:
        """Errors and latents found by all modules for each sequence, as features.

        Parameters
        ----------
        X
            As in :meth:`decide`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float64
            The errors of all modules, bank by bank; then the latents found, n_types for each
            module in the same order. See :meth:`get_feature_names_out`.
        """
        return self.decide(X).features

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
            ``modularinverseclassifier_latent0_a_2`` for its third latent.
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        prefix = type(self).__name__.lower()
        modules = [(r, label) for r in range(len(self.banks_)) for label in self.bank_.classes]
        names = [f"{prefix}_error{r}_{label}" for r, label in modules]
        K = self.bank_.input_size
        names += [f"{prefix}_latent{r}_{label}_{k}" for r, label in modules for k in range(K)]
        return np.array(names, dtype=object)

    def reconstruction_errors(self, X: Any, *, solver: Solver | str | None = None) -> np.ndarray:
        """Mean squared error, in standardised units, of each class's reconstructions.

        Parameters
        ----------
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels]), or list
            As in :meth:`decide`, but NaN and infinity are allowed: such a sequence has error NaN.
        solver : solver, optional
            Default the estimator's.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float32
            The mean over each class's modules, whatever ``distance`` is.
        """
        check_is_fitted(self)
        Z = self._standardized(inputs.read(self, X, allow_nonfinite=True))
        errors = self._invert(self._all_modules[0], Z, solver=solver).errors
        by_bank = errors.reshape(len(Z), len(self.banks_), -1)
        return by_bank.mean(axis=1, dtype=np.float64).astype(np.float32)

    def invert(
        self,
        X: Any,
        *,
        bank: int = 0,
        solver: Solver | str | None = None,
        history: bool = False,
    ) -> Inversion:
        """Invert one module of each class for each sequence.

        Parameters
        ----------
        X
            As in :meth:`reconstruction_errors`.
        bank : int
            Which of ``banks_``.
        solver : solver, optional
            Default the estimator's.
        history : bool
            Whether to keep error and latent of every iteration.

        Returns
        -------
        Inversion
            NumPy arrays; errors (mean squared) and reconstructions in standardised units.

        Raises
        ------
        TypeError, ValueError
            If there is no such bank, or X is not as described.
        """
        check_is_fitted(self)
        r = check_count(f"{_NAME}.invert", "bank", bank, 0, len(self.banks_) - 1)
        Z = self._standardized(inputs.read(self, X, allow_nonfinite=True))
        return self._invert(self.banks_[r], Z, solver=solver, history=history)

    def reconstruct(self, X: Any, label: Label | None = None, *, bank: int = 0) -> np.ndarray:
        """Reconstruct each sequence with a module.

        Parameters
        ----------
        X
            As in :meth:`decide`.
        label : str, int, float or bool, optional
            Whose module; default that of the class with the lowest error (also where
            :meth:`predict` rejects).
        bank : int
            Which of the class's modules: its bank's number in ``banks_``.

        Returns
        -------
        ndarray of shape (n_samples, n_timesteps, n_channels), float64
            In the units of X, as long as the longest of these sequences, NaN after each one's end;
            of shape (n_samples, n_timesteps) if X is an array of two dimensions.

        Raises
        ------
        TypeError, ValueError
            If there is no such label or bank, or X is not as for :meth:`decide`.
        """
        check_is_fitted(self)
        check_count(f"{_NAME}.reconstruct", "bank", bank, 0, len(self.banks_) - 1)
        if label is not None:
            label = self._check_label("reconstruct", label, exists=True)
        X, is_table = inputs.once(X)
        drawn = self.decide(X).reconstructions(label, module=bank)
        return drawn[..., 0] if is_table else drawn

    # -- files ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator as one safetensors file, atomically and without pickle.

        :meth:`GeneratorBank.load` also reads its modules (those of the first bank).

        Parameters
        ----------
        path : path-like
            An existing file is replaced.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        OSError
            If it cannot be written.

        Notes
        -----
        A ``random_state`` that is a ``RandomState`` is stored as None. What later
        :meth:`add_class` calls draw stays the same in both cases.
        """
        check_is_fitted(self)
        self._check_params()
        persistence.save(self, path)

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
            If the file cannot be read.
        micfast.BankFileError
            If it is damaged, of another format or version, a bank without an estimator, or its
            parts contradict each other.
        """
        return persistence.load(cls, path)

    def restore(self, fitted: Sequence[fitting.FittedClass], classes: np.ndarray) -> None:
        """Set the fitted attributes of all classes, in one step.

        Parameters
        ----------
        fitted : sequence of FittedClass
            In the order of ``classes``, which are sorted.
        classes : ndarray of shape (n_classes,)
        """
        labels = [as_label(label) for label in classes]
        _, hidden_size, n_types, _ = fitted[0].weights.sizes
        # One statement: Ctrl-C never comes between the attributes.
        self.__dict__.update(
            banks_=fitting.banks(fitted, labels),
            types_=fitting.stack_types([one.types for one in fitted]),
            type_info_=[one.info for one in fitted],
            training_report_=TrainingReport(report for one in fitted for report in one.reports),
            calibration_=[one.calibration for one in fitted],
            classes_=classes,
            _all_modules=fitting.all_modules(fitted),
            _sizes=(n_types, hidden_size),
            _thresholds=(math.nan, np.empty(0)),
        )

    @property
    def panel(self) -> Panel | None:
        """Views and pose as they are used; None for the plain search."""
        return self._panel

    def restore_panel(
        self, panel: Panel | None, experts: Experts | None, expectation: Expectation | None
    ) -> None:
        """Set what was fitted of views and pose."""
        self.__dict__.update(_panel=panel, experts_=experts, expectation_=expectation)

    def fitted_classes(self) -> list[fitting.FittedClass]:
        """The fitted attributes, class by class."""
        R, C, reports = len(self.banks_), len(self.classes_), self.training_report_
        n = R * len(self._all_modules)
        return [
            fitting.FittedClass(
                weights=Weights.concat(bank.weights[c : c + 1] for bank in self.banks_),
                types=self.types_[c],
                info=self.type_info_[c],
                reports=reports[c * n : c * n + n],
                calibration=self.calibration_[c],
                others=tuple(
                    Weights.concat(view.weights[r * C + c : r * C + c + 1] for r in range(R))
                    for view in self._all_modules[1:]
                ),
            )
            for c in range(C)
        ]

    def _set_classes(self, fitted: list[fitting.FittedClass], classes: np.ndarray) -> None:
        order = np.argsort(classes)
        self.restore([fitted[c] for c in order], classes[order])
        self.keep_thresholds()

    # -- steps of fitting ----------------------------------------------------------------------

    def _fit_standardizer(self, X: np.ndarray) -> None:
        self.standardizer_ = None
        if self.standardize is None:
            return
        self.standardizer_ = Standardizer(self.standardize).fit(X)
        if self.standardize == "global" and (channels := negligible_channels(X)):
            names = self.channel_names_in_
            listed = ", ".join(str(names[c] if names else c) for c in channels)
            warnings.warn(
                f"{_NAME}: the channels {listed} hold a negligible share of the variance of X, so "
                "they will hardly affect the decision; use standardize='channel' if channels have "
                "different units",
                stacklevel=4,
            )

    def _fit_classes(
        self,
        labels: Sequence[Label],
        parts: Sequence[np.ndarray],
        stacklevel: int,
        client: Any = None,
    ) -> list[fitting.FittedClass]:
        """Fit some classes to their standardised samples, here or on the workers of a cluster."""
        if client is None:
            fitted = self.fit_standardized(labels, parts)
        else:
            from micfast.classify import lazily

            fitted = lazily.fit_classes(client, self, labels, parts)
        settings: Any = self.resolved_settings()
        fitting.warn_unlearned(fitted, settings["training"], stacklevel + 1)
        if self.standardizer_ is not None:
            fitted = [one.in_units(self.standardizer_) for one in fitted]
        return fitted

    def fit_standardized(
        self, labels: Sequence[Label], parts: Sequence[np.ndarray]
    ) -> list[fitting.FittedClass]:
        """Fit some classes to their standardised samples; changes nothing here.

        Parameters
        ----------
        labels : sequence of labels
        parts : sequence of ndarray, each of shape (n_samples, n_timesteps, n_channels), float32

        Returns
        -------
        list of FittedClass
            Types in standardised units.
        """
        return fitting.fit_classes(labels, parts, self._plan(*self._sizes), self._search_each)

    def _plan(self, n_types: int, hidden_size: int, quiet: bool = False) -> fitting.Plan:
        settings: Any = self.resolved_settings()
        return fitting.Plan(
            n_types=n_types,
            selection=settings["type_selection"],
            training=settings["training"],
            hidden_size=hidden_size,
            n_modules_per_class=self.n_modules_per_class,
            entropy=self.entropy_,
            device=self._device(),
            execution=self._execution(quiet),
            n_threads=n_threads(self.n_jobs),
            verbose=bool(self.verbose) and not quiet,
            panel=self._panel,
            ask=None if self._panel is None else self._ask_panel,
        )

    def _decided_sizes(
        self, labels: Sequence[Label], Z: np.ndarray, parts: Sequence[np.ndarray]
    ) -> tuple[int, int]:
        """Types per class and hidden units, decided where they are "auto"."""
        given: dict[str, Any] = {"n_types": self.n_types, "hidden_size": self.hidden_size}
        automatic = [name for name, value in given.items() if value == "auto"]
        n_types, hidden_size = (0 if value == "auto" else value for value in given.values())
        plan = self._plan(n_types, hidden_size, quiet=True)
        if automatic:
            raw = Panel(Views.fit(views_of("raw"), (), Z, self.standardize), None, ())
            panel, search = self._panel or raw, self._search(quiet=True)
            plan = sizes.decided(plan, automatic, panel, labels, parts, search)
        return plan.n_types, plan.hidden_size

    def _make_panel(self, Z: np.ndarray, parts: Sequence[np.ndarray]) -> Panel | None:
        """The views and the pose to be searched; None if there is but the plain search."""
        drawn, pose = views_of(self.views), pose_of(self.pose)
        voting = voting_of(self.hull, drawn)
        if len(drawn) == 1 and pose is None and not voting:
            return None
        names = [view.name for view in drawn]
        others = [view for view in voting if view.name not in names]
        views = Views.fit(drawn, others, Z, self.standardize)
        panel = Panel(views, pose, tuple(view.name for view in voting if view.name in views.names))
        return judging.with_decided_pose(panel, parts, self.entropy_)

    @property
    def pose_(self) -> Pose | None:
        """The pose that is searched."""
        check_is_fitted(self)
        return None if self._panel is None else self._panel.pose

    def _weigh(self, labels: Sequence[Label], parts: Sequence[np.ndarray]) -> None:
        """Fit what turns errors into probabilities."""
        self.experts_ = self.expectation_ = None
        if self._panel is None:
            modules, R = self._all_modules[0], self.n_modules_per_class
            self.temperature_ = fitting.temperature(
                modules, labels, parts, self._search(), R, self.entropy_
            )
            return
        types, execution = self._standardized_types(), self._execution(quiet=True)
        self.experts_, self.expectation_ = judging.weigh(
            self._panel, types, labels, parts, lambda Z: self._ask(Z, execution), self.entropy_
        )
        self.temperature_ = self.experts_.temperature

    def _ask(self, Z: np.ndarray, execution: Execution) -> Panelled:
        """What all experts say of standardised sequences."""
        device = self._device()
        # Kept with the modules, which every fit makes anew as it does the types.
        hulls = self._all_modules[0].cached(
            ("hulls", device),
            lambda: self._panel_checked().hulls(self._standardized_types(), device),
        )
        return self._ask_experts([Asked(self._all_modules, hulls, Z)], execution)[0]

    def _ask_panel(self, asked: Sequence[fitting.AskedOf]) -> list[Panelled]:
        """The same, of other modules and types."""
        panel, device = self._panel_checked(), self._device()
        those = [Asked(banks, panel.hulls(types, device), Z) for banks, types, Z in asked]
        return self._ask_experts(those, self._execution(quiet=True))

    def _ask_experts(self, asked: Sequence[Asked], execution: Execution) -> list[Panelled]:
        device = self._device()
        there = [
            one._replace(banks=[bank.to(device=device) for bank in one.banks]) for one in asked
        ]
        return self._panel_checked().ask(there, self._seeded(self._solver()), execution)

    def _panel_checked(self) -> Panel:
        assert self._panel is not None
        return self._panel

    def _standardized_types(self) -> NDArray[np.float64]:
        flat = self._standardized(self.types_.reshape(-1, *self.types_.shape[2:]))
        # Rounded as the samples are, since samples that are types must equal them.
        return flat.reshape(self.types_.shape).astype(np.float64)

    def _search(self, quiet: bool = False) -> fitting.Search:
        """What gives the errors (R, n, C) of sequences by R C modules."""
        execution = self._execution(quiet)

        def search(modules: GeneratorBank, Z: np.ndarray, R: int) -> NDArray[np.float64]:
            return self._distances(self._invert(modules, Z, execution=execution), Z, R, execution)

        return search

    def _search_each(
        self, asked: Sequence[tuple[GeneratorBank, np.ndarray]]
    ) -> list[NDArray[np.float64]]:
        """Errors (R, n, 1) of sequences by the R modules of each bank, all searched together."""
        device, execution = self._device(), self._execution(quiet=True)
        banks = [bank.to(device=device) for bank, _ in asked]
        targets = [torch.from_numpy(Z).to(device) for _, Z in asked]
        found = search_jointly(banks, targets, self._seeded(self._solver()), execution)
        return [
            self._distances(one.inversion(bank, Z), Z, bank.n_modules, execution)
            for one, bank, (_, Z) in zip(found, banks, asked, strict=True)
        ]

    def _fit_one(self, method: str, X: Any, label: Label) -> fitting.FittedClass:
        """Fit one class to its samples."""
        self._check_params()
        self._check_reject_label([*self.bank_.classes, label])
        for name, expected in (
            ("n_types", self.bank_.input_size),
            ("hidden_size", self.bank_.hidden_size),
            ("n_modules_per_class", len(self.banks_)),
        ):
            if getattr(self, name) not in (expected, "auto"):
                raise ValueError(
                    f"{_NAME}.{method}: {name} must be {expected} as in fit, "
                    f"got {getattr(self, name)}; call fit to change it"
                )
        Z = self._standardized(inputs.read(self, X))
        return self._fit_classes([label], [Z], stacklevel=4)[0]

    # -- steps of use --------------------------------------------------------------------------

    def _invert(
        self,
        bank: GeneratorBank,
        Z: np.ndarray,
        *,
        solver: Solver | str | None = None,
        history: bool = False,
        execution: Execution | None = None,
    ) -> Inversion:
        """Invert modules for standardised sequences."""
        return invert(
            bank.to(device=self._device()),
            inputs.as_sequences(Z, self.nan_policy),
            solver=self._seeded(self._solver() if solver is None else SOLVERS.resolve(solver)),
            history=history,
            execution=self._execution() if execution is None else execution,
        )

    def _seeded(self, solver: Any) -> Solver:
        """The solver with a seed for its starts, if these are random."""
        if getattr(solver.start, "random_state", 0) is not None:
            return solver
        seed = seed_sequence(self.entropy_, None, "starts 0")
        return solver.replace(start=solver.start.replace(random_state=seed))

    def _distances(
        self, found: Inversion, Z: np.ndarray, R: int, execution: Execution
    ) -> NDArray[np.float64]:
        """Distances (R, n, C) between sequences and the reconstructions of R C modules."""
        distance = DISTANCES[self.distance]
        errors = distance(found, Z, execution, n_threads(self.n_jobs))
        return np.ascontiguousarray(errors.reshape(len(Z), R, -1).swapaxes(0, 1))

    def _standardized(self, X: np.ndarray) -> np.ndarray:
        """X in standardised units, float32."""
        with np.errstate(all="ignore"):
            Z = X if self.standardizer_ is None else self.standardizer_.transform(X)
            Z32 = Z.astype(np.float32)
        if np.isinf(Z32).any() and not np.isinf(X).any():
            raise ValueError(f"{_NAME}: X must not exceed float32 once standardised")
        return Z32

    def _device(self) -> str:
        """The device to work on; raises if the backend is not available."""
        device = "cuda" if self.backend == "cuda" else "cpu"
        resolve_backend(self.backend, device)
        return device

    def _execution(self, quiet: bool = False) -> Execution:
        threads = None if self.n_jobs is None else n_threads(self.n_jobs)
        progress = bool(self.verbose) and not quiet
        return Execution(self.backend, n_threads=threads, progress=progress)

    # -- checks --------------------------------------------------------------------------------

    def _check_params(self) -> None:
        """Check all parameters before any work."""
        for name, most in (("n_types", _MOST_TYPES), ("hidden_size", None)):
            if getattr(self, name) != "auto":
                check_count(_NAME, name, getattr(self, name), 1, most)
        check_count(_NAME, "n_modules_per_class", self.n_modules_per_class, 1, _MOST_MODULES)
        check_choice(_NAME, "standardize", self.standardize, ("global", "channel", None))
        voting_of(self.hull, views_of(self.views))
        settings = self.resolved_settings()
        for name in ("noise_in", "noise_out"):
            if not isinstance(getattr(settings["training"], name), float):
                raise ValueError(f"{_NAME}: training must have one {name} for all modules")
        self._check_rules()
        self._device()
        # Starts that do not fit.
        tiny = GeneratorBank.random(
            1,
            hidden_size=1,
            input_size=sizes.N_TYPES[0] if self.n_types == "auto" else int(self.n_types),
            output_size=1,
            seeds=[0],
        )
        settings["solver"].start.prepare(tiny, 0, False, Execution("torch"))  # type: ignore[attr-defined]

    def _check_rules(self) -> None:
        """Check the parameters of the decision, which may be changed after fit."""
        check_choice(_NAME, "nan_policy", self.nan_policy, ("raise", "omit"))
        if self.distance != "mse":
            DISTANCES[self.distance]
            if len(views_of(self.views)) > 1 or self.pose is not None or self.hull:
                raise ValueError(
                    f"{_NAME}: distance must be 'mse' with views, pose or hull, "
                    f"got {self.distance!r}; views='raw', pose=None, hull=False has none"
                )
            if self.nan_policy == "omit":
                raise ValueError(
                    f"{_NAME}: distance must be 'mse' with nan_policy='omit', got {self.distance!r}"
                )
        if self.reject is not None and not (is_number(self.reject) and 0 < self.reject < 1):
            raise ValueError(
                f"{_NAME}: reject must be None or a number above 0 and below 1, got {self.reject!r}"
            )

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


def _checked_labels(y: Any, X: np.ndarray) -> np.ndarray:
    """Labels as a 1-D array, one per sample."""
    if y is None:
        raise ValueError(f"{_NAME}.fit requires y to be passed, but the target y is None")
    if isinstance(y, list | tuple):
        # NumPy would turn NaN among text into the text "nan".
        inputs.require_labels(np.array(y, dtype=object), f"{_NAME}.fit: y")
    y = column_or_1d(to_numpy(y), warn=True)
    check_consistent_length(X, y)
    inputs.require_labels(y, f"{_NAME}.fit: y")
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
