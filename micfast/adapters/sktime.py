"""The classifier as an sktime estimator. Needs sktime: ``pip install 'micfast[sktime]'``."""

from __future__ import annotations

from typing import Any, ClassVar

from micfast.adapters.base import TEST_PARAMS, Adapter

try:
    from sktime.classification.base import BaseClassifier
except ImportError as error:
    raise ImportError(
        f"micfast.adapters.sktime needs sktime, which cannot be imported ({error}): "
        "pip install 'micfast[sktime]'"
    ) from error

__all__ = ["SktimeModularInverseClassifier"]


class SktimeModularInverseClassifier(Adapter, BaseClassifier):
    """:class:`micfast.ModularInverseClassifier` for sktime's panels of time series.

    Panels are what sktime takes: arrays of shape (n_instances, n_channels, n_timepoints), data
    frames with a row index of instance and time, and the other mtypes; of one length or many.

    Parameters
    ----------
    n_types, type_selection, ..., verbose
        Those of :class:`micfast.ModularInverseClassifier`.
    nan_policy : {"raise", "omit"}, default="omit"
        Whether NaN is an error or a missing value; the latter only with ``distance="mse"``.
    n_jobs : int or None, default=1
        Threads; -1 is one per core, None torch's number. Results do not depend on it.

    Attributes
    ----------
    estimator_ : micfast.ModularInverseClassifier
        The fitted estimator and its further methods (``reconstruct``, ``add_class``, ``save``);
        its sequences have shape (n_samples, n_timesteps, n_channels). Missing if y held a single
        class, which sktime handles itself.
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted.
    n_classes_ : int
        Their number.

    Examples
    --------
    >>> from micfast.adapters.sktime import SktimeModularInverseClassifier
    >>> from sktime.utils._testing.panel import make_classification_problem
    >>> X, y = make_classification_problem(n_instances=12, n_columns=2, random_state=0)
    >>> clf = SktimeModularInverseClassifier(n_types=2, random_state=0)
    >>> clf.fit(X, y).predict(X).shape
    (12,)
    """

    _tags: ClassVar[dict[str, Any]] = {
        "X_inner_mtype": "df-list",
        "capability:multivariate": True,
        "capability:multithreading": True,
        "capability:unequal_length": True,
        "capability:missing_values": True,
        "capability:predict_proba": True,
        "capability:categorical_in_X": False,
        "capability:random_state": True,
        "property:randomness": "derandomized",
        "authors": "micfast developers",
        "maintainers": "micfast developers",
        # None besides micfast itself.
        "python_dependencies": None,
    }

    @staticmethod
    def _sequences(X: Any) -> Any:
        return [frame.to_numpy() for frame in X]

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Parameters for sktime's checks.

        Parameters
        ----------
        parameter_set : str, default="default"
            Ignored.

        Returns
        -------
        list of dict
        """
        return [dict(params) for params in TEST_PARAMS]
