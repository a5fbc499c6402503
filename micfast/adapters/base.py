"""What the adapters to other time series libraries share: parameters, axis order, the work itself.

Imports none of those libraries; ``aeon`` and ``sktime`` in this folder do.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from micfast.classify.estimator import ModularInverseClassifier
from micfast.classify.parameters import SettingsParameters
from micfast.generators.labels import Label
from micfast.search.pose import Pose
from micfast.search.solvers import Solver
from micfast.search.solvers.adam import Adam
from micfast.search.solvers.levenberg_marquardt import LevenbergMarquardt
from micfast.settings import Settings
from micfast.training.selections import Selection
from micfast.training.settings import Training

__all__ = ["TEST_PARAMS", "Adapter"]

# Small settings for the libraries' own test suites, which fit an estimator many dozen times.
_SMALL: dict[str, Any] = {
    "n_types": 2,
    "type_selection": "random",
    "hidden_size": 4,
    "training": Training.paper(n_episodes=200, max_retries=0, learned_tol=100.0),
    "n_modules_per_class": 1,
    "solver": LevenbergMarquardt(n_iter=3),
}
TEST_PARAMS: list[dict[str, Any]] = [
    _SMALL,
    _SMALL
    | {
        "type_selection": "first",
        "n_modules_per_class": 2,
        "solver": Adam(n_iter=3, start="types"),
        "standardize": "channel",
    },
]


class Adapter(SettingsParameters):
    """Constructor and work of an adapter: (n, channels, steps) outside, our axis order inside.

    The parameters are those of :class:`micfast.ModularInverseClassifier`; by default ``n_jobs=1``,
    as aeon requires it, and ``nan_policy="omit"``, as the tag for missing values promises.
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
        nan_policy: Literal["raise", "omit"] = "omit",
        backend: str = "auto",
        random_state: Any = None,
        n_jobs: int | None = 1,
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
        super().__init__()

    # Set by _fit.
    estimator_: ModularInverseClassifier

    def resolved_settings(self) -> dict[str, Settings]:
        """The settings objects that are used, by parameter name."""
        return self._classifier().resolved_settings()

    def _classifier(self) -> ModularInverseClassifier:
        names = ModularInverseClassifier().get_params(deep=False)
        return ModularInverseClassifier(**{name: getattr(self, name) for name in names})

    def _fit(self, X: Any, y: np.ndarray) -> Any:
        """Fit the estimator to sequences as the library hands them over."""
        self.estimator_ = self._classifier().fit(self._sequences(X), y)
        return self

    def _predict(self, X: Any) -> np.ndarray:
        return self.estimator_.predict(self._sequences(X))

    def _predict_proba(self, X: Any) -> np.ndarray:
        return self.estimator_.predict_proba(self._sequences(X))

    @staticmethod
    def _sequences(X: Any) -> Any:
        """Sequences (n, T, C), or a list of (T_i, C), of the library's own."""
        raise NotImplementedError
