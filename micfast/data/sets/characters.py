"""UCI Character Trajectories: pen strokes of 20 letters as sequences of positions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from micfast.data.dataset import Dataset
from micfast.data.fetch import RemoteFile, locate
from micfast.data.preprocess import cumulate, pad_with_last, stratified_split
from micfast.data.sets import registry
from micfast.data.standardize import Standardizer

__all__ = ["load_characters"]

FILE = RemoteFile(
    "mixoutALL_shifted.mat",
    "https://archive.ics.uci.edu/static/public/175/character+trajectories.zip",
    in_archive=True,
)
CLASS_COUNTS = {
    "a": 171, "b": 141, "c": 142, "d": 157, "e": 186, "g": 138, "h": 127, "l": 174, "m": 125,
    "n": 130, "o": 141, "p": 131, "q": 124, "r": 119, "s": 133, "u": 131, "v": 155, "w": 125,
    "y": 137, "z": 171,
}  # fmt: skip
_MIN_LENGTH, _MAX_LENGTH = 109, 205


@registry.register("characters")
def load_characters(
    *,
    standardize: Literal["train", "all"] | None = "train",
    axis: Literal["channel", "global"] = "channel",
    test_size: float = 0.2,
    n_test: int | None = None,
    random_state: int | None = 0,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load the UCI Character Trajectories as pen positions.

    The 2858 samples are the velocity and force of a pen at 200 Hz (5 ms a step), normalised by the
    publisher and therefore without units. The force is dropped, the velocities are summed to
    positions, and each sequence is padded to 205 steps with its last position.

    Parameters
    ----------
    standardize : {"train", "all"} or None, default="train"
        Samples that give the mean and standard deviation, padding included: the training part, or
        all samples (as in the paper, where test samples take part). None: no standardisation.
    axis : {"channel", "global"}, default="channel"
        Whether x and y each have a mean and standard deviation (as in the arrays published with
        the paper) or share one (as in the paper's text).
    test_size : float, default=0.2
        Share of the test part. The split is stratified by class; the paper's is not.
    n_test : int or None, default=None
        Number of test samples to keep, drawn at random (the paper evaluates 400). A smaller draw
        is a subset of a larger one with the same seed. None keeps all.
    random_state : int or None, default=0
        Seed of the split and the draw.
    data_dir : path-like or None, default=None
        Folder with ``mixoutALL_shifted.mat``. None means ``MICFAST_DATA``; if that is not set
        either, the file is downloaded from the UCI archive into pooch's cache.

    Returns
    -------
    dataset : Dataset
        Sequences of shape (n, 205, 2), float32: x and y (upwards); labels ``<U1``.

    Raises
    ------
    ValueError
        If an argument is invalid, or the content of the file is not the data set.
    FileNotFoundError
        If a data folder is set and the file is not there.
    DownloadError
        If the file cannot be downloaded.

    Notes
    -----
    Source: Ben H. Williams, *Character Trajectories*, UCI Machine Learning Repository,
    DOI 10.24432/C58G7V, CC BY 4.0.

    What is trusted: a file in a data folder of yours is read by :func:`scipy.io.loadmat` as it is,
    and a malicious ``.mat`` file can crash that reader (it runs no code from the file). The
    publisher gives no checksum, so the first download over HTTPS is read and its content checked
    (2858 samples, the known number per letter, shapes, finite values); its sha256 is then
    recorded, and any other file is rejected before it is read.

    Examples
    --------
    >>> from micfast.data import load_characters
    >>> load_characters(n_test=400).X_test.shape  # doctest: +SKIP
    (400, 205, 2)
    """
    if standardize not in ("train", "all", None):
        raise ValueError(
            f"load_characters: standardize must be 'train', 'all' or None, got {standardize!r}"
        )
    standardizer = None if standardize is None else Standardizer(axis)
    samples, labels = _read(locate(FILE, data_dir, verify=_read))
    X = pad_with_last([cumulate(sample[:, :2]) for sample in samples], _MAX_LENGTH)
    train, test = stratified_split(labels, test_size, random_state)
    if n_test is not None:
        if not 1 <= n_test <= len(test):
            raise ValueError(
                f"load_characters: n_test must be 1 to {len(test)}, the size of the test part, "
                f"or None, got {n_test}"
            )
        draw = np.random.default_rng(random_state).permutation(len(test))[:n_test]
        test = np.sort(test[draw])
    if standardizer is not None:
        X = standardizer.fit(X[train] if standardize == "train" else X).transform(X)
    X = X.astype(np.float32)
    return Dataset(
        "characters",
        X[train],
        labels[train],
        X[test],
        labels[test],
        np.array(list(CLASS_COUNTS)),
        standardizer,
    )


def _read(path: Path) -> tuple[list[NDArray[np.float64]], NDArray[Any]]:
    """Read and check samples (length, 3), in the order of the file, and labels."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=("mixout", "consts"))
        # A struct is an array of records.
        consts = content["consts"].reshape(-1)[0]
        cells = content["mixout"].ravel()
        numbers = consts["charlabels"].ravel()
        key = np.array([str(letter.item()) for letter in consts["key"].ravel()])
        known = np.isin(numbers, np.arange(1, len(key) + 1)).all()
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    # Damage and other content make scipy and these lines raise almost anything.
    except Exception as error:
        raise ValueError(
            f"{path} is not a readable MATLAB file with mixout and consts of the UCI Character "
            f"Trajectories ({type(error).__name__}: {error})"
        ) from error

    n_samples = sum(CLASS_COUNTS.values())
    if len(cells) != n_samples or len(numbers) != n_samples:
        raise ValueError(
            f"{path}: expected {n_samples} samples and labels, got {len(cells)} and {len(numbers)}"
        )
    if not known:
        raise ValueError(f"{path}: consts.charlabels must be 1 to {len(key)}")
    labels = key[numbers.astype(np.int64) - 1]
    letters, found = np.unique(labels, return_counts=True)
    counts = dict(zip(letters.tolist(), found.tolist(), strict=True))
    if counts != CLASS_COUNTS:
        raise ValueError(f"{path}: expected samples per class {CLASS_COUNTS}, got {counts}")
    for i, cell in enumerate(cells):
        if (
            not isinstance(cell, np.ndarray)
            or cell.dtype.kind != "f"
            or cell.ndim != 2
            or cell.shape[0] != 3
            or not _MIN_LENGTH <= cell.shape[1] <= _MAX_LENGTH
            or not np.isfinite(cell).all()
        ):
            raise ValueError(
                f"{path}: sample {i} must be finite numbers of shape [3, {_MIN_LENGTH} to "
                f"{_MAX_LENGTH}], got {getattr(cell, 'dtype', type(cell).__name__)} "
                f"{list(np.shape(cell))}"
            )
    return [np.asarray(cell.T, dtype=np.float64) for cell in cells], labels
