"""The estimator's X and y: as scikit-learn expects of tables, as `sequences` reads all else."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data

from micfast.arrays import as_array, is_tensor, to_numpy
from micfast.sequences import Sequences, ends, is_table, require_values

__all__ = ["as_sequences", "once", "read", "require_labels"]


def once(X: Any) -> tuple[Any, bool]:
    """X itself, with generators turned into lists; whether it is a table of two dimensions."""
    if is_table(X):
        return X, True
    return (X if hasattr(X, "__array__") or is_tensor(X) else Sequences.read(X)), False


def read(
    estimator: Any, X: Any, *, reset: bool = False, allow_nonfinite: bool = False
) -> np.ndarray:
    """Read X as a float array (n, T, C), NaN after the sequences' ends.

    Parameters
    ----------
    estimator : ModularInverseClassifier
    X : object
    reset : bool
        Whether its sizes and names become the fitted ones, or are checked against them.
    allow_nonfinite : bool
        Whether NaN and infinity are allowed anywhere.

    Raises
    ------
    TypeError, ValueError
        If X cannot be read, or does not fit.
    """
    where = type(estimator).__name__
    names = None
    if is_table(X):
        values = _read_table(estimator, X, reset, allow_nonfinite)[..., None]
    else:
        sequences = Sequences.read(X, name=f"{where}: X")
        values, names = _by_fitted_names(estimator, sequences, reset)
        if reset and hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
        if len(values) == 0:
            raise ValueError(
                f"{where}: Found array with 0 sample(s) (shape={values.shape}) while a minimum of "
                "1 is required"
            )
    if not allow_nonfinite:
        if np.isinf(values).any():
            raise ValueError(f"{where}: Input X contains infinity")
        require_values(where, "X", values, estimator.nan_policy)
    if reset:
        _, estimator.n_timesteps_in_, estimator.n_channels_in_ = values.shape
        estimator.n_features_in_ = estimator.n_timesteps_in_ * estimator.n_channels_in_
        estimator.channel_names_in_ = names
    elif values.shape[2] != estimator.n_channels_in_:
        raise ValueError(
            f"{where}: X must have n_channels = {estimator.n_channels_in_} as in fit, "
            f"got {values.shape[2]}"
        )
    return values


def _read_table(estimator: Any, X: Any, reset: bool, allow_nonfinite: bool) -> np.ndarray:
    """X of two dimensions, with scikit-learn's checks of features and their names."""
    where = type(estimator).__name__
    # Refuses text and dates, which scikit-learn would convert.
    array = as_array(X, f"{where}: X")
    hint = f"; a single sequence is X[None], of shape {[1, *array.shape]}"
    if not reset and estimator.n_channels_in_ != 1:
        raise ValueError(
            f"{where}: X must have shape [n_samples, n_timesteps, {estimator.n_channels_in_}] "
            f"as in fit, got 2 dimensions{hint}"
        )
    if is_tensor(array) or not hasattr(X, "columns"):
        X = to_numpy(array)
    try:
        # NaN may follow a sequence's end; require_values looks where it is.
        return validate_data(
            estimator,
            X,
            reset=reset,
            dtype=[np.float64, np.float32],
            ensure_all_finite=False if allow_nonfinite else "allow-nan",
        )
    except ValueError as error:
        if "features" in str(error) and not reset:
            raise ValueError(f"{error}{hint}") from None
        raise


def _by_fitted_names(
    estimator: Any, sequences: Sequences, reset: bool
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Values with their channels in the order of fit, if both are named; and the names."""
    values, names = sequences.padded(), sequences.channel_names
    fitted = None if reset else estimator.channel_names_in_
    if fitted is None or names is None or names == fitted:
        return values, names
    if sorted(names) != sorted(fitted):
        raise ValueError(
            f"{type(estimator).__name__}: X must have the columns {[*fitted]} of fit, "
            f"got {[*names]}"
        )
    return values[..., [names.index(name) for name in fitted]], fitted


def as_sequences(Z: np.ndarray, nan_policy: str) -> Sequences:
    """Standardised sequences (n, T, C) for the search, with their lengths if any is shorter."""
    lengths = None
    if np.isnan(Z).any():
        lengths = ends(Z)
        # Nothing but NaN is no short sequence.
        lengths[lengths == 0] = Z.shape[1]
    return Sequences.of_array(Z, lengths, "omit" if nan_policy == "omit" else "propagate")


def require_labels(y: np.ndarray, name: str) -> None:
    """Refuse missing labels: None, NaN and pandas' NA.

    Raises
    ------
    ValueError
        If one is missing; the message names the first.
    """
    if y.dtype.kind == "f":
        missing = np.isnan(y)
    elif y.dtype == object:
        missing = np.array([_is_missing(label) for label in y], dtype=bool)
    else:
        return
    if missing.any():
        first = int(missing.argmax())
        raise ValueError(
            f"{name} must not contain missing labels, but {name.rpartition(' ')[2]}[{first}] is "
            f"{y[first]!r} (Input y contains NaN)"
        )


def _is_missing(label: Any) -> bool:
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(label, float | np.floating) and math.isnan(label)
