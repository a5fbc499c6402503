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
from micfast.data.ts import TsError, load_ts, load_ucr, save_ts

__all__ = [
    "Dataset",
    "DownloadError",
    "Standardizer",
    "TsError",
    "cumulate",
    "images_to_rows",
    "load_characters",
    "load_digits_sequences",
    "load_mnist",
    "load_ts",
    "load_ucr",
    "pad_with_last",
    "save_ts",
    "scale_pixels",
    "stratified_split",
]
