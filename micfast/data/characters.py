"""UCI Character Trajectories: pen strokes of 20 letters as sequences of positions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from micfast.data._dataset import Dataset
from micfast.data._fetch import RemoteFile, locate
from micfast.data._mat import read_mat
from micfast.data.preprocess import Standardizer, cumulate, pad_with_last, stratified_split

__all__ = ["load_characters"]

_FILE = RemoteFile(
    "mixoutALL_shifted.mat",
    "https://archive.ics.uci.edu/static/public/175/character+trajectories.zip",
    in_archive=True,
)
_CLASS_COUNTS = {
    "a": 171, "b": 141, "c": 142, "d": 157, "e": 186, "g": 138, "h": 127, "l": 174, "m": 125,
    "n": 130, "o": 141, "p": 131, "q": 124, "r": 119, "s": 133, "u": 131, "v": 155, "w": 125,
    "y": 137, "z": 171,
}  # fmt: skip
_MIN_LENGTH, _MAX_LENGTH = 109, 205


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

    The 2858 samples are velocities of a pen at 200 Hz (5 ms a step), normalised by the publisher
    and thus without unit, and its force. The force is dropped, the velocities are summed to
    positions, and each sequence is padded to 205 steps with its last position.

    Parameters
    ----------
    standardize : {"train", "all"} or None, default="train"
        Where mean and standard deviation come from, padding included: the training part only, or
        all samples (the paper, which so lets the test part take part). None: no standardisation.
    axis : {"channel", "global"}, default="channel"
        Whether x and y each have a mean and standard deviation (the arrays published with the
        paper are made so) or share one (the paper's text).
    test_size : float, default=0.2
        Share of the test part. The split is stratified by class; the paper's is plainly random.
    n_test : int or None, default=None
        Keep only so many samples of the test part, drawn at random (the paper evaluates 400).
        A smaller draw is a part of a larger one with the same seed. None keeps all.
    random_state : int or None, default=0
        Seed of the split and the draw.
    data_dir : path-like or None, default=None
        Folder with ``mixoutALL_shifted.mat``. None means ``MICFAST_DATA``, and if that isn't set
        either, the file is downloaded from the UCI archive into pooch's cache. Its checksum isn't
        published: it is trusted on first use after its content was checked, then pinned.

    Returns
    -------
    dataset : Dataset
        Sequences of shape (n, 205, 2), float32: x and y (upwards); labels ``<U1``.

    Raises
    ------
    ValueError
        If an argument has a value that it can't have, or the file's content isn't the data set.
    FileNotFoundError
        If a data folder is set and the file isn't there.
    DownloadError
        If the file can't be downloaded.

    Notes
    -----
    Source: Ben H. Williams, *Character Trajectories*, UCI Machine Learning Repository,
    DOI 10.24432/C58G7V, CC BY 4.0.

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
    samples, labels = _read(locate(_FILE, data_dir, verify=_read))
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
        np.array(list(_CLASS_COUNTS)),
        standardizer,
    )


def _read(path: Path) -> tuple[list[NDArray[np.float64]], NDArray[Any]]:
    """Samples (length, 3), in the file's order, and labels of a file whose content is right."""
    try:
        content = read_mat(path, ("mixout", "consts"))
        consts = content["consts"]
        cells = content["mixout"].ravel()
        numbers = consts["charlabels"].ravel()
        key = np.array([str(letter) for letter in consts["key"].ravel()])
    # An intact file of other content may lack any of these.
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a readable MATLAB file with mixout and consts of the UCI Character "
            f"Trajectories ({type(error).__name__}: {error})"
        ) from error

    n_samples = sum(_CLASS_COUNTS.values())
    if len(cells) != n_samples or len(numbers) != n_samples:
        raise ValueError(
            f"{path}: expected {n_samples} samples and labels, got {len(cells)} and {len(numbers)}"
        )
    if not np.isin(numbers, np.arange(1, len(key) + 1)).all():
        raise ValueError(f"{path}: consts.charlabels must be 1 to {len(key)}")
    labels = key[numbers.astype(np.int64) - 1]
    letters, found = np.unique(labels, return_counts=True)
    counts = dict(zip(letters.tolist(), found.tolist(), strict=True))
    if counts != _CLASS_COUNTS:
        raise ValueError(f"{path}: expected samples per class {_CLASS_COUNTS}, got {counts}")
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
