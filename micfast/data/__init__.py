"""Data sets, preparation of sequences, and reading of users' files."""

from typing import Any

from micfast.data.dataset import Dataset
from micfast.data.fetch import DownloadError
from micfast.data.preprocess import (
    cumulate,
    images_to_rows,
    pad_with_last,
    scale_pixels,
    stratified_split,
)
from micfast.data.recordings import Recordings, read_recordings
from micfast.data.sets import registry
from micfast.data.sets.characters import load_characters
from micfast.data.sets.digits import load_digits_sequences
from micfast.data.sets.mnist import load_mnist
from micfast.data.standardize import Standardizer, negligible_channels
from micfast.data.ts import load_ts

__all__ = [
    "Dataset",
    "DownloadError",
    "Recordings",
    "Standardizer",
    "cumulate",
    "dataset_names",
    "images_to_rows",
    "load_characters",
    "load_dataset",
    "load_digits_sequences",
    "load_mnist",
    "load_ts",
    "negligible_channels",
    "pad_with_last",
    "read_recordings",
    "scale_pixels",
    "stratified_split",
]


def dataset_names() -> list[str]:
    """Names that :func:`load_dataset` knows.

    Examples
    --------
    >>> from micfast.data import dataset_names
    >>> dataset_names()
    ['characters', 'digits', 'mnist']
    """
    return list(registry.names())


def load_dataset(name: str, **options: Any) -> Dataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        One of :func:`dataset_names`.
    **options
        Arguments of its loader, such as those of :func:`load_characters`.

    Raises
    ------
    ValueError
        If there is no data set of this name.

    Examples
    --------
    >>> from micfast.data import load_dataset
    >>> load_dataset("digits", test_size=0.2).X_test.shape
    (360, 8, 8)
    """
    return registry[name](**options)
