"""scikit-learn's digits as sequences of 8 pixel rows: no download needed."""

from __future__ import annotations

import numpy as np

from micfast.data.dataset import Dataset
from micfast.data.preprocess import images_to_rows, stratified_split
from micfast.data.sets import registry

__all__ = ["load_digits_sequences"]


@registry.register("digits")
def load_digits_sequences(*, test_size: float = 0.5, random_state: int | None = 0) -> Dataset:
    """Load scikit-learn's 8 x 8 digits as sequences of pixel rows.

    Parameters
    ----------
    test_size : float, default=0.5
        Share of the test part; the split is stratified by class.
    random_state : int or None, default=0
        Seed of the split; None gives a different split at each call.

    Returns
    -------
    dataset : Dataset
        1797 sequences of shape (n, 8, 8), float32 in [0, 1] (the source's 0 to 16 divided by 16):
        step t is row t from the top; labels int64 0 to 9.

    Raises
    ------
    ValueError
        If `test_size` is not between 0 and 1.

    Notes
    -----
    Source: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine
    Learning Repository, DOI 10.24432/C50P49; the copy that scikit-learn ships.

    Examples
    --------
    >>> from micfast.data import load_digits_sequences
    >>> load_digits_sequences().X_train.shape
    (898, 8, 8)
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    X = images_to_rows((source.images / 16).astype(np.float32))
    y = source.target.astype(np.int64)
    train, test = stratified_split(y, test_size, random_state)
    return Dataset("digits", X[train], y[train], X[test], y[test], np.arange(10))
