"""The classifier as an aeon estimator. Needs aeon: ``pip install 'micfast[aeon]'``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from micfast.adapters.base import TEST_PARAMS, Adapter

try:
    from aeon.classification.base import BaseClassifier
    from aeon.utils.validation import check_n_jobs
except ImportError as error:
    raise ImportError(
        f"micfast.adapters.aeon needs aeon, which cannot be imported ({error}): "
        "pip install 'micfast[aeon]'"
    ) from error

__all__ = ["AeonModularInverseClassifier"]


class AeonModularInverseClassifier(Adapter, BaseClassifier):
    """:class:`micfast.ModularInverseClassifier` for aeon's collections of time series.

    Collections are what aeon takes: arrays of shape (n_cases, n_channels, n_timepoints), lists of
    arrays (n_channels, n_timepoints) of one length or many, and all that it converts to them, with
    the channels before the time steps.

    Parameters
    ----------
    n_types, type_selection, ..., verbose
        Those of :class:`micfast.ModularInverseClassifier`.
    nan_policy : {"raise", "omit"}, default="omit"
        Whether NaN is an error or a missing value; the latter only with ``distance="mse"``.
    n_jobs : int or None, default=1
        Threads, as aeon counts them: None is 1, -1 is one per core. Results do not depend
        on it.

    Attributes
    ----------
    estimator_ : micfast.ModularInverseClassifier
        The fitted estimator and its further methods (``reconstruct``, ``add_class``, ``save``);
        its sequences have shape (n_samples, n_timesteps, n_channels).
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    n_classes_ : int
        Their number.

    Examples
    --------
    >>> from aeon.testing.data_generation import make_example_3d_numpy
    >>> X, y = make_example_3d_numpy(n_cases=12, n_channels=2, n_timepoints=20, random_state=0)
    >>> clf = AeonModularInverseClassifier(n_types=2, random_state=0)
    >>> clf.fit(X, y).predict(X).shape
    (12,)
    """

    _tags: ClassVar[dict[str, Any]] = {
        "X_inner_type": ["numpy3D", "np-list"],
        "capability:multivariate": True,
        "capability:multithreading": True,
        "capability:unequal_length": True,
        "capability:missing_values": True,
    }

    def _fit(self, X: Any, y: np.ndarray) -> AeonModularInverseClassifier:
        self._n_jobs = check_n_jobs(self.n_jobs)
        return super()._fit(X, y)

    @staticmethod
    def _sequences(X: Any) -> Any:
        if isinstance(X, list):
            return [sequence.T for sequence in X]
        return X.swapaxes(1, 2)

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Parameters for aeon's checks."""
        return [dict(params) for params in TEST_PARAMS]
