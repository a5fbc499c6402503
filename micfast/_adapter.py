"""What the adapters to other time series libraries share: parameters, axis order, the work itself.

Imports none of those libraries; ``micfast.aeon`` and ``micfast.sktime`` do.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from micfast.bank import Label
from micfast.estimator import ModularInverseClassifier

# Small settings for the libraries' own test suites, which fit an estimator many dozen times.
_SMALL: dict[str, Any] = {
    "n_types": 2,
    "type_selection": "random",
    "hidden_size": 4,
    "n_episodes": 200,
    "n_modules_per_class": 1,
    "n_iter": 3,
    "max_retries": 0,
    "learned_tol": 100.0,
}
TEST_PARAMS: list[dict[str, Any]] = [
    _SMALL,
    _SMALL
    | {
        "type_selection": "first",
        "n_modules_per_class": 2,
        "solver": "adam",
        "init": "types",
        "standardize": "channel",
        "error_scale": "types",
    },
]


class AdapterMixin:
    """Constructor and work of an adapter: (n, channels, steps) outside, our axis order inside.

    The parameters are those of :class:`micfast.ModularInverseClassifier`; by default ``n_jobs=1``,
    as aeon requires it, and ``nan_policy="omit"``, as the tag for missing values promises.
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
        nan_policy: Literal["raise", "omit"] = "omit",
        max_retries: int = 3,
        learned_tol: float = 0.1,
        backend: str = "auto",
        random_state: Any = None,
        n_jobs: int | None = 1,
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
        super().__init__()

    # Set by _fit.
    estimator_: ModularInverseClassifier

    def _fit(self, X: Any, y: np.ndarray) -> Any:
        """Fit the estimator to sequences as the library hands them over."""
        params = self.get_params(deep=False)  # type: ignore[attr-defined]
        self.estimator_ = ModularInverseClassifier(**params).fit(self._sequences(X), y)
        return self

    def _predict(self, X: Any) -> np.ndarray:
        return self.estimator_.predict(self._sequences(X))

    def _predict_proba(self, X: Any) -> np.ndarray:
        return self.estimator_.predict_proba(self._sequences(X))

    @staticmethod
    def _sequences(X: Any) -> Any:
        """Sequences (n, T, C), or a list of (T_i, C), of the library's own."""
        raise NotImplementedError
