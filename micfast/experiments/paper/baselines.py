"""What else a few training sequences can do: the paper's forward LSTM, and three classics.

Owns the models and how long they train; loads no data, draws no types, writes nothing. TensorFlow,
aeon and torch are imported where they are used.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FORWARD_BUDGETS",
    "METHODS",
    "ForwardBudget",
    "available",
    "forward_keras",
    "forward_torch",
    "minirocket",
    "nearest_neighbour",
]

# Method -> the module it needs beyond micfast's own dependencies, and the extra that brings it.
_NEEDS: dict[str, tuple[str, str] | None] = {
    "keras-lstm": ("tensorflow", "keras"),
    "torch-lstm": None,
    "1nn-euclidean": None,
    "1nn-dtw": None,
    "minirocket": ("aeon", "rocket"),
}
METHODS = tuple(_NEEDS)


@dataclass(frozen=True)
class ForwardBudget:
    """How much the forward LSTM (Tables 5 and 6) is trained.

    Attributes
    ----------
    epochs_types : int
        Epochs on the 4 types per class.
    epochs_full : int
        Epochs on the full training part.
    n_full : int or None
        Training sequences of the full part that are used, drawn by seed; None: all.
    seeds_types, seeds_full : int or None
        How many of the run's seeds are trained; None: all.
    """

    epochs_types: int
    epochs_full: int
    n_full: int | None = None
    seeds_types: int | None = None
    seeds_full: int | None = None


# A step of Adam takes about 31 ms (torch) or 45 ms (Keras) for characters and 16 ms for MNIST, on
# one core with AVX-512. MNIST types are learned by heart after 100 epochs, and the accuracy stays;
# 10000 images give 0.94 after 4 epochs. Characters train unsteadily over 205 steps: on their types
# the training accuracy still moves between 0.4 and 0.7 after 500 epochs, on the full set it is 0.5
# to 0.6 after 10. The budgets below are what time allows there, not where the training is done.
FORWARD_BUDGETS = {
    "mnist": {
        "default": ForwardBudget(150, 10, n_full=10000, seeds_full=3),
        "full": ForwardBudget(150, 20, seeds_full=3),
    },
    "characters": {
        "default": ForwardBudget(200, 20, seeds_types=3, seeds_full=1),
        "full": ForwardBudget(1000, 100, seeds_full=3),
    },
}

Progress = Callable[[int, int], object]


def available(method: str) -> str | None:
    """Say whether a method can run here; cheap, nothing heavy is imported.

    Parameters
    ----------
    method : {"keras-lstm", "torch-lstm", "1nn-euclidean", "1nn-dtw", "minirocket"}

    Returns
    -------
    str or None
        None if it can; else what is missing and how to install it.

    Raises
    ------
    ValueError
        If there is no such method.

    Examples
    --------
    >>> available("1nn-dtw") is None
    True
    """
    if method not in _NEEDS:
        raise ValueError(f"available: method must be one of {', '.join(METHODS)}, got {method!r}")
    need = _NEEDS[method]
    if need is None or find_spec(need[0]) is not None:
        return None
    return f"{need[0]} is not installed: pip install 'micfast[{need[1]}]'"


# --------------------------------------------------------------------------------------------
# Forward classification


def forward_keras(
    X_train: ArrayLike,
    y_train: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    *,
    hidden_size: int,
    epochs: int,
    batch_size: int,
    seed: int,
    progress: Progress | None = None,
) -> int:
    """Train the paper's forward classifier in Keras and count the right test sequences.

    One LSTM layer, its last state, a dense softmax layer over the classes; loss: mean squared error
    to the one-hot label; Adam with Keras' defaults.

    Parameters
    ----------
    X_train : array_like of shape (n_train, n_timesteps, n_channels)
        Training sequences, finite.
    y_train : array_like of shape (n_train,)
        Their labels, at least two classes.
    X_test : array_like of shape (n_test, n_timesteps, n_channels)
        Test sequences, finite.
    y_test : array_like of shape (n_test,)
        Their labels; each one also in `y_train`.
    hidden_size : int
        LSTM cells, at least 1 (the paper: 200).
    epochs : int
        Passes over the training sequences, at least 1; the last weights are kept.
    batch_size : int
        Sequences in a step of Adam, at least 1 (the paper: 10 for characters, 32
        for MNIST).
    seed : int
        At least 0; decides on the first weights and the order of the sequences. The same seed
        gives the same result on one machine and version of TensorFlow.
    progress : callable or None, default=None
        Called after every epoch with the number of epochs done and `epochs`.

    Returns
    -------
    int
        Number of test sequences whose class has the largest output.

    Raises
    ------
    ValueError
        If an argument has a value or shape that it can't have.
    ImportError
        If TensorFlow is not installed (``micfast[keras]``).
    RuntimeError
        If Keras is set to another backend than TensorFlow.

    Notes
    -----
    Where nothing of TensorFlow has run yet in this process, it is held to one thread: these
    networks are too small to gain by more. Keras draws from Python's global random numbers (which
    has no influence on the result); no other global random state is changed.
    """
    name = "forward_keras"
    train, one_hot, test, wanted = _check_forward(
        name, X_train, y_train, X_test, y_test, hidden_size, epochs, batch_size, seed
    )
    reason = available("keras-lstm")
    if reason is not None:
        raise ImportError(f"{name}: {reason}")
    model = _keras_model(train.shape[1:], one_hot.shape[1], hidden_size, seed)
    for done, order in enumerate(_orders(len(train), epochs, seed), start=1):
        # Not model.fit: it shuffles by TensorFlow's global state, and a call for so few batches
        # takes longer to begin than to run.
        for batch in _batches(order, batch_size):
            model.train_on_batch(train[batch], one_hot[batch])
        if progress is not None:
            progress(done, epochs)
    outputs = model.predict(test, batch_size=256, verbose=0)
    return int((outputs.argmax(axis=1) == wanted).sum())


def _keras_model(shape: tuple[int, ...], n_classes: int, hidden_size: int, seed: int) -> Any:
    """The compiled Keras model for sequences of `shape` (n_timesteps, n_channels)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up messages
    import tensorflow as tf
    from tensorflow import keras

    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "forward_keras: Keras must use the backend tensorflow, it uses "
            f"{keras.backend.backend()}; unset KERAS_BACKEND"
        )
    # Refused once TensorFlow has started.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    seeds = [int(s) for s in np.random.SeedSequence([seed, 1]).generate_state(3)]
    # Keras' default initialisers, but with seeds of their own.
    glorot, orthogonal = keras.initializers.GlorotUniform, keras.initializers.Orthogonal
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.LSTM(
                hidden_size,
                kernel_initializer=glorot(seeds[0]),
                recurrent_initializer=orthogonal(seed=seeds[1]),
            ),
            keras.layers.Dense(
                n_classes, activation="softmax", kernel_initializer=glorot(seeds[2])
            ),
        ]
    )
    model.compile(optimizer="adam", loss="mse")
    return model


def forward_torch(
    X_train: ArrayLike,
    y_train: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    *,
    hidden_size: int,
    epochs: int,
    batch_size: int,
    seed: int,
    progress: Progress | None = None,
) -> int:
    """Train the same forward classifier in torch: a check of :func:`forward_keras`.

    Everything is as Keras has it: Glorot-uniform input weights, orthogonal recurrent weights for
    all four gates at once, one bias vector, which is 1 for the forget gate and else 0, and Adam
    with eps 1e-7 beside the uncorrected root.

    Parameters
    ----------
    X_train, y_train, X_test, y_test, hidden_size, epochs, batch_size, progress
        As in :func:`forward_keras`.
    seed : int
        At least 0. The sequences come in the same order as in :func:`forward_keras` with this
        seed; the first weights are others.

    Returns
    -------
    int
        Number of test sequences whose class has the largest output.

    Raises
    ------
    ValueError
        If an argument has a value or shape that it can't have.

    Notes
    -----
    Runs on one thread, so that the result doesn't depend on the number of cores; torch's number of
    threads is restored. No global random state is changed.

    Examples
    --------
    >>> X = np.zeros((4, 5, 1)); X[2:] = 1
    >>> forward_torch(
    ...     X, [0, 0, 1, 1], X, [0, 0, 1, 1], hidden_size=4, epochs=50, batch_size=2, seed=0
    ... )
    4
    """
    import torch

    name = "forward_torch"
    train, one_hot, test, wanted = _check_forward(
        name, X_train, y_train, X_test, y_test, hidden_size, epochs, batch_size, seed
    )
    with _one_torch_thread():
        model = _fit_torch(train, one_hot, hidden_size, epochs, batch_size, seed, progress)
        with torch.no_grad():
            parts = torch.from_numpy(test).split(256)
            chosen = torch.cat([model(part).argmax(dim=1) for part in parts])
    return int((chosen.numpy() == wanted).sum())


def _fit_torch(
    train: NDArray[np.float32],
    one_hot: NDArray[np.float32],
    hidden_size: int,
    epochs: int,
    batch_size: int,
    seed: int,
    progress: Progress | None = None,
) -> _TorchForward:
    """The trained model of :func:`forward_torch`; arguments already checked."""
    import torch

    X, targets = torch.from_numpy(train), torch.from_numpy(one_hot)
    model = _TorchForward(X.shape[2], targets.shape[1], hidden_size, seed)
    for done, order in enumerate(_orders(len(X), epochs, seed), start=1):
        for batch in _batches(order, batch_size):
            model.step(X[batch], targets[batch])
        if progress is not None:
            progress(done, epochs)
    return model


class _TorchForward:
    """Keras' LSTM, softmax and Adam in torch; calling it gives the class probabilities."""

    def __init__(self, n_channels: int, n_classes: int, hidden_size: int, seed: int) -> None:
        import torch
        from torch import nn

        generator = torch.Generator().manual_seed(seed)
        # Made on no device first: torch's own initialisation would draw from its global state.
        self.lstm = nn.LSTM(n_channels, hidden_size, batch_first=True, device="meta")
        self.dense = nn.Linear(hidden_size, n_classes, device="meta")
        weights: list[Any] = []
        for module in (self.lstm.to_empty(device="cpu"), self.dense.to_empty(device="cpu")):
            weights += module.parameters()
        kernel, recurrent, bias, second_bias, dense, dense_bias = weights
        # torch holds the transposed matrices: the same for the Glorot bound, and orthonormal
        # columns for Keras' orthonormal rows.
        nn.init.xavier_uniform_(kernel, generator=generator)
        nn.init.orthogonal_(recurrent, generator=generator)
        nn.init.xavier_uniform_(dense, generator=generator)
        for vector in (bias, second_bias, dense_bias):
            nn.init.zeros_(vector)
        nn.init.ones_(bias[hidden_size : 2 * hidden_size])
        # Keras has one bias vector; two that learn would move twice as fast.
        second_bias.requires_grad_(False)
        trained = [kernel, recurrent, bias, dense, dense_bias]
        self.optimizer = torch.optim.Adam(trained, lr=1e-3, betas=(0.9, 0.999))
        self.n_steps = 0

    def __call__(self, X: Any) -> Any:
        """Probabilities (n, n_classes) of sequences (n, n_timesteps, n_channels)."""
        return self.logits(X).softmax(dim=1)

    def logits(self, X: Any) -> Any:
        """What the softmax is taken of."""
        return self.dense(self.lstm(X)[0][:, -1])

    def step(self, X: Any, targets: Any) -> None:
        """One step of Adam on a batch with one-hot targets."""
        from torch.nn.functional import mse_loss

        self.n_steps += 1
        # Keras adds eps to sqrt(v), torch to the bias-corrected root.
        self.optimizer.param_groups[0]["eps"] = 1e-7 / math.sqrt(1 - 0.999**self.n_steps)
        self.optimizer.zero_grad()
        mse_loss(self(X), targets).backward()
        self.optimizer.step()


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _orders(n: int, epochs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The order of the training sequences in each epoch."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    for _ in range(epochs):
        yield rng.permutation(n)


def _batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """The parts of an epoch; the last may be smaller."""
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


# --------------------------------------------------------------------------------------------
# Classics


def nearest_neighbour(
    X_train: ArrayLike,
    y_train: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike | None = None,
    metric: Literal["euclidean", "dtw"] = "euclidean",
) -> NDArray[Any]:
    """Classify each test sequence as its nearest training sequence is.

    Parameters
    ----------
    X_train : array_like of shape (n_train, n_timesteps, n_channels)
        Training sequences, finite.
    y_train : array_like of shape (n_train,)
        Their labels.
    X_test : array_like of shape (n_test, n_timesteps, n_channels)
        Test sequences, finite.
    y_test : array_like of shape (n_test,) or None, default=None
        Not used but for a check of its shape: there so that all methods can be called alike.
    metric : {"euclidean", "dtw"}, default="euclidean"
        Euclidean distance over all steps and channels, or dynamic time warping of all channels
        together, without a window.

    Returns
    -------
    ndarray of shape (n_test,)
        The predicted labels.

    Raises
    ------
    ValueError
        If an argument has a value or shape that it can't have.

    Examples
    --------
    >>> X = np.array([0.0, 0.1, 5.0]).reshape(3, 1, 1) + np.zeros((3, 8, 2))
    >>> nearest_neighbour(X[[0, 2]], ["low", "high"], X, metric="dtw").tolist()
    ['low', 'low', 'high']
    """
    name = "nearest_neighbour"
    if metric not in ("euclidean", "dtw"):
        raise ValueError(f"{name}: metric must be 'euclidean' or 'dtw', got {metric!r}")
    train, codes, test, classes = _check(name, X_train, y_train, X_test, y_test)
    if metric == "euclidean":
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(n_neighbors=1)
        model.fit(train.reshape(len(train), -1), codes)
        return classes[model.predict(test.reshape(len(test), -1))]
    # The clustering's distance: vectorised over the pairs, and with no compiler to wait for.
    from micfast.types import _squared_dtw

    return classes[codes[_squared_dtw(test, train, radius=train.shape[1]).argmin(axis=1)]]


def minirocket(
    X_train: ArrayLike,
    y_train: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike | None = None,
    seed: int = 0,
) -> NDArray[Any]:
    """Classify by MiniRocket features and a ridge classifier, with aeon's default settings.

    Parameters
    ----------
    X_train : array_like of shape (n_train, n_timesteps, n_channels)
        Training sequences, finite, of at least 9 steps (the length of MiniRocket's kernels).
    y_train : array_like of shape (n_train,)
        Their labels, at least two classes.
    X_test : array_like of shape (n_test, n_timesteps, n_channels)
        Test sequences, finite.
    y_test : array_like of shape (n_test,) or None, default=None
        Not used but for a check of its shape: there so that all methods can be called alike.
    seed : int, default=0
        Seed of the channels and biases that MiniRocket draws; 0 to 2**31 - 1.

    Returns
    -------
    ndarray of shape (n_test,)
        The predicted labels.

    Raises
    ------
    ValueError
        If an argument has a value or shape that it can't have.
    ImportError
        If aeon is not installed (``micfast[rocket]``).

    Notes
    -----
    Dempster, Schmidt and Webb, *MiniRocket: A Very Fast (Almost) Deterministic Transform for Time
    Series Classification*, KDD 2021. The ridge penalty is chosen by leave-one-out on the training
    sequences alone.
    """
    name = "minirocket"
    train, codes, test, classes = _check(name, X_train, y_train, X_test, y_test)
    if len(classes) < 2:
        raise ValueError(f"{name}: y_train must have at least 2 classes, got {len(classes)}")
    if train.shape[1] < 9:
        raise ValueError(f"{name}: X_train must have at least 9 steps, got {train.shape[1]}")
    _check_integer(name, "seed", seed, 0)
    reason = available("minirocket")
    if reason is not None:
        raise ImportError(f"{name}: {reason}")
    from aeon.classification.convolution_based import MiniRocketClassifier

    model = MiniRocketClassifier(random_state=int(seed), n_jobs=1)
    # aeon: (n, n_channels, n_timesteps)
    model.fit(np.ascontiguousarray(train.transpose(0, 2, 1)), codes)
    return classes[model.predict(np.ascontiguousarray(test.transpose(0, 2, 1)))]


# --------------------------------------------------------------------------------------------
# Arguments


def _check(
    name: str, X_train: ArrayLike, y_train: ArrayLike, X_test: ArrayLike, y_test: ArrayLike | None
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[Any]]:
    """Checked sequences, with the training labels as numbers into the sorted classes."""
    train, test = _sequences(name, "X_train", X_train), _sequences(name, "X_test", X_test)
    if train.shape[1:] != test.shape[1:]:
        raise ValueError(
            f"{name}: X_train and X_test must have equal steps and channels, "
            f"got {list(train.shape)} and {list(test.shape)}"
        )
    if y_test is not None:
        _labels(name, "y_test", y_test, len(test))
    classes, codes = np.unique(_labels(name, "y_train", y_train, len(train)), return_inverse=True)
    return train, codes, test, classes


def _check_forward(
    name: str,
    X_train: ArrayLike,
    y_train: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    hidden_size: int,
    epochs: int,
    batch_size: int,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Checked training sequences, their one-hot labels, test sequences, their label numbers."""
    for argument, value in (
        ("hidden_size", hidden_size),
        ("epochs", epochs),
        ("batch_size", batch_size),
    ):
        _check_integer(name, argument, value, 1)
    _check_integer(name, "seed", seed, 0)
    train, codes, test, classes = _check(name, X_train, y_train, X_test, y_test)
    if len(classes) < 2:
        raise ValueError(f"{name}: y_train must have at least 2 classes, got {len(classes)}")
    wanted = np.asarray(y_test)
    unknown = np.setdiff1d(wanted, classes)
    if len(unknown):
        raise ValueError(
            f"{name}: y_test may only have labels of y_train, "
            f"it also has {', '.join(map(str, unknown))}"
        )
    one_hot = np.eye(len(classes), dtype=np.float32)[codes]
    return train, one_hot, test, np.searchsorted(classes, wanted)


def _sequences(name: str, argument: str, X: ArrayLike) -> NDArray[np.float32]:
    """Sequences as a new array: torch warns of those that can't be written to."""
    values = np.array(X, dtype=np.float32, order="C")
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(
            f"{name}: {argument} must have shape [n_samples, n_timesteps, n_channels], none of "
            f"them 0, got {list(values.shape)}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {argument} must be finite, it holds NaN or infinity")
    return values


def _labels(name: str, argument: str, y: ArrayLike, n: int) -> NDArray[Any]:
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise ValueError(
            f"{name}: {argument} must have shape [n_samples] = [{n}], got {list(labels.shape)}"
        )
    return labels


def _check_integer(name: str, argument: str, value: object, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        wanted = f"an integer of at least {lowest}"
        raise ValueError(f"{name}: {argument} must be {wanted}, got {value!r}")
