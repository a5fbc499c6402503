"""Data sets of micfast and the steps that prepare them; no model code lives here."""

from micfast.data._dataset import Dataset
from micfast.data._fetch import DownloadError
from micfast.data.characters import load_characters
from micfast.data.digits import load_digits_sequences
from micfast.data.mnist import load_mnist
from micfast.data.preprocess import (
    Standardizer,
    cumulate,
    images_to_rows,
    pad_with_last,
    scale_pixels,
    stratified_split,
)

__all__ = [
    "Dataset",
    "DownloadError",
    "Standardizer",
    "cumulate",
    "images_to_rows",
    "load_characters",
    "load_digits_sequences",
    "load_mnist",
    "pad_with_last",
    "scale_pixels",
    "stratified_split",
]
