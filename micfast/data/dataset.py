"""The data set that every loader returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micfast.data.standardize import Standardizer


# eq=False: == of arrays is an array, so a generated __eq__ would fail.
@dataclass(frozen=True, repr=False, eq=False)
class Dataset:
    """A data set of sequences, split into a training and a test part.

    Attributes
    ----------
    name : str
        Name of the data set.
    X_train : ndarray of shape (n_train, n_timesteps, n_channels), float32
        Training sequences.
    y_train : ndarray of shape (n_train,)
        Their labels, each one of `classes`.
    X_test : ndarray of shape (n_test, n_timesteps, n_channels), float32
        Test sequences.
    y_test : ndarray of shape (n_test,)
        Their labels.
    classes : ndarray of shape (n_classes,)
        The classes, sorted: ``<U1`` letters or int64 digits, as the labels are.
    standardizer : Standardizer or None
        Standardizer that was applied to the sequences, if any.

    Raises
    ------
    ValueError
        If the parts do not match.

    Examples
    --------
    >>> from micfast.data import load_digits_sequences
    >>> data = load_digits_sequences()
    >>> data.name, data.X_train.shape, data.classes.tolist()
    ('digits', (898, 8, 8), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    name: str
    X_train: NDArray[np.float32]
    y_train: NDArray[Any]
    X_test: NDArray[np.float32]
    y_test: NDArray[Any]
    classes: NDArray[Any]
    standardizer: Standardizer | None = None

    def __post_init__(self) -> None:
        for part, X, y in (
            ("train", self.X_train, self.y_train),
            ("test", self.X_test, self.y_test),
        ):
            if X.ndim != 3 or y.shape != X.shape[:1]:
                raise ValueError(
                    f"Dataset: X_{part} must have shape [n, T, C] and y_{part} shape [n], "
                    f"got {list(X.shape)} and {list(y.shape)}"
                )
            if not np.isin(y, self.classes).all():
                raise ValueError(f"Dataset: y_{part} has labels that are not in classes")
        if self.X_train.shape[1:] != self.X_test.shape[1:]:
            raise ValueError(
                "Dataset: X_train and X_test must have equal steps and channels, "
                f"got {list(self.X_train.shape)} and {list(self.X_test.shape)}"
            )

    def __repr__(self) -> str:
        n_steps, n_channels = self.X_train.shape[1:]
        return (
            f"Dataset({self.name!r}: {len(self.X_train)} training and {len(self.X_test)} test "
            f"sequences of {n_steps} steps x {n_channels} channels, {len(self.classes)} classes "
            f"{' '.join(str(label) for label in self.classes)})"
        )
