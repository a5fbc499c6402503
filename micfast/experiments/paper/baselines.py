"""What else a few training sequences can do: the paper's forward LSTM, and three classics.

TensorFlow, aeon and torch are imported where they are used.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from micfast.experiments.threads import torch_threads

__all__ = [
    "METHODS",
    "TorchForward",
    "available",
    "fit_torch",
    "forward_keras",
    "forward_torch",
    "minirocket",
    "nearest_neighbour",
]

# Method -> the module it needs beyond micfast's own dependencies, and the extra that brings it.
_NEEDS: dict[str, tuple[str, str] | None] = {
    "keras-lstm": ("tensorflow", "keras"),
    "torch-lstm": None,
    "mic-default-training": None,
    "1nn-euclidean": None,
    "1nn-dtw": None,
    "minirocket": ("aeon", "rocket"),
}
METHODS = tuple(_NEEDS)


def available(method: str) -> str | None:
    """None if a method can run here, else what is missing; nothing heavy is imported.

    Examples
    --------
    >>> available("1nn-dtw") is None
    True
    """
    need = _NEEDS[method]
    if need is None or find_spec(need[0]) is not None:
        return None
    return f"{need[0]} is not installed: pip install 'micfast[{need[1]}]'"


# -- forward classification ----------------------------------------------------------------------


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
) -> int:
    """Train the paper's forward classifier in Keras and count the correct test sequences.

    One LSTM layer, its last state, a dense softmax layer over the classes; loss: mean squared error
    to the one-hot label; Adam with Keras' defaults.

    Parameters
    ----------
    X_train, X_test : array_like of shape (n, n_timesteps, n_channels)
        Finite.
    y_train, y_test : array_like of shape (n,)
        At least two classes; each label of `y_test` also in `y_train`.
    hidden_size : int
        LSTM cells (the paper: 200).
    epochs : int
        Passes over the training sequences; the last weights are kept.
    batch_size : int
        The paper: 10 for characters, 32 for MNIST.
    seed : int
        Of the first weights and the order of the sequences. The same seed gives the same result on
        one machine and version of TensorFlow.

    Notes
    -----
    Where nothing of TensorFlow has run yet in this process, it is held to one thread: these
    networks are too small to gain by more. Keras draws from Python's global random numbers (which
    has no influence on the result); no other global random state is changed.
    """
    train, one_hot, test, codes = _prepare(X_train, y_train, X_test, y_test)
    _require("keras-lstm")
    model = _keras_model(train.shape[1:], one_hot.shape[1], hidden_size, seed)
    for order in _orders(len(train), epochs, seed):
        # Not model.fit: it shuffles by TensorFlow's global state, and a call for so few batches
        # takes longer to begin than to run.
        for batch in _batches(order, batch_size):
            model.train_on_batch(train[batch], one_hot[batch])
    outputs = model.predict(test, batch_size=256, verbose=0)
    return int((outputs.argmax(axis=1) == codes).sum())


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
    lstm = keras.layers.LSTM(
        hidden_size,
        kernel_initializer=glorot(seeds[0]),
        recurrent_initializer=orthogonal(seed=seeds[1]),
    )
    dense = keras.layers.Dense(n_classes, activation="softmax", kernel_initializer=glorot(seeds[2]))
    model = keras.Sequential([keras.Input(shape), lstm, dense])
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
) -> int:
    """Train the same forward classifier in torch: a check of :func:`forward_keras`.

    Arguments and result as there. Everything is as Keras has it: Glorot-uniform input weights,
    orthogonal recurrent weights for all four gates at once, one bias vector, which is 1 for the
    forget gate and 0 elsewhere, and Adam with eps 1e-7 added to the uncorrected root. The
    sequences come in the same order; the first weights differ.

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

    train, one_hot, test, codes = _prepare(X_train, y_train, X_test, y_test)
    model = fit_torch(train, one_hot, hidden_size, epochs, batch_size, seed)
    with torch_threads(1), torch.no_grad():
        parts = torch.from_numpy(test).split(256)
        chosen = torch.cat([model.logits(part).argmax(dim=1) for part in parts])
    return int((chosen.numpy() == codes).sum())


def fit_torch(
    train: NDArray[np.float32],
    one_hot: NDArray[np.float32],
    hidden_size: int,
    epochs: int,
    batch_size: int,
    seed: int,
) -> TorchForward:
    """The trained model of :func:`forward_torch`, from one-hot labels; on one thread."""
    import torch

    X, targets = torch.from_numpy(train), torch.from_numpy(one_hot)
    with torch_threads(1):
        model = TorchForward(X.shape[2], targets.shape[1], hidden_size, seed)
        for order in _orders(len(X), epochs, seed):
            for batch in _batches(order, batch_size):
                model.step(X[batch], targets[batch])
    return model


class TorchForward:
    """Keras' LSTM, softmax and Adam in torch."""

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

    def logits(self, X: Any) -> Any:
        """Outputs before the softmax, (n, n_classes), of sequences (n, n_timesteps, n_channels)."""
        return self.dense(self.lstm(X)[0][:, -1])

    def step(self, X: Any, targets: Any) -> None:
        """One step of Adam on a batch with one-hot targets."""
        from torch.nn.functional import mse_loss

        self.n_steps += 1
        # Keras adds eps to sqrt(v), torch to the bias-corrected root.
        self.optimizer.param_groups[0]["eps"] = 1e-7 / math.sqrt(1 - 0.999**self.n_steps)
        self.optimizer.zero_grad()
        mse_loss(self.logits(X).softmax(dim=1), targets).backward()
        self.optimizer.step()


def _orders(n: int, epochs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The order of the training sequences in each epoch."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    for _ in range(epochs):
        yield rng.permutation(n)


def _batches(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """The parts of an epoch; the last may be smaller."""
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


# -- classics ------------------------------------------------------------------------------------


def nearest_neighbour(
    X_train: ArrayLike, y_train: ArrayLike, X_test: ArrayLike, metric: str = "euclidean"
) -> NDArray[Any]:
    """Give each test sequence the label of its nearest training sequence.

    Parameters
    ----------
    X_train, y_train, X_test
        As in :func:`forward_keras`.
    metric : {"euclidean", "dtw"}
        Euclidean distance over all steps and channels, or dynamic time warping of all channels
        together, without a window.

    Examples
    --------
    >>> X = np.array([0.0, 0.1, 5.0]).reshape(3, 1, 1) + np.zeros((3, 8, 2))
    >>> nearest_neighbour(X[[0, 2]], ["low", "high"], X, metric="dtw").tolist()
    ['low', 'low', 'high']
    """
    train, test, labels = _float32(X_train), _float32(X_test), np.asarray(y_train)
    if metric == "euclidean":
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(n_neighbors=1)
        model.fit(train.reshape(len(train), -1), labels)
        return model.predict(test.reshape(len(test), -1))
    if metric != "dtw":
        raise ValueError(f"nearest_neighbour: metric must be 'euclidean' or 'dtw', got {metric!r}")
    # The clustering's distance: vectorised over the pairs, and with no compiler to wait for.
    from micfast.training.distances import squared_dtw

    return labels[squared_dtw(test, train, radius=train.shape[1]).argmin(axis=1)]


def minirocket(
    X_train: ArrayLike, y_train: ArrayLike, X_test: ArrayLike, seed: int = 0
) -> NDArray[Any]:
    """Classify by MiniRocket features and a ridge classifier, with aeon's default settings.

    Arguments as in :func:`forward_keras`, sequences of at least 9 steps (the length of MiniRocket's
    kernels); `seed` draws MiniRocket's channels and biases.

    Notes
    -----
    Dempster, Schmidt and Webb, *MiniRocket: A Very Fast (Almost) Deterministic Transform for Time
    Series Classification*, KDD 2021. The ridge penalty is chosen by leave-one-out on the training
    sequences alone.
    """
    _require("minirocket")
    from aeon.classification.convolution_based import MiniRocketClassifier

    model = MiniRocketClassifier(random_state=int(seed), n_jobs=1)
    # aeon: (n, n_channels, n_timesteps)
    train, test = (np.ascontiguousarray(_float32(X).transpose(0, 2, 1)) for X in (X_train, X_test))
    return model.fit(train, np.asarray(y_train)).predict(test)


# -- arguments -----------------------------------------------------------------------------------


def _require(method: str) -> None:
    reason = available(method)
    if reason is not None:
        raise ImportError(f"{method}: {reason}")


def _float32(X: ArrayLike) -> NDArray[np.float32]:
    """A new array: torch warns of arrays that can't be written to."""
    return np.array(X, dtype=np.float32, order="C")


def _prepare(
    X_train: ArrayLike, y_train: ArrayLike, X_test: ArrayLike, y_test: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Training sequences, their one-hot labels, test sequences, the codes of their labels."""
    classes, codes = np.unique(np.asarray(y_train), return_inverse=True)
    if not np.isin(y_test, classes).all():
        raise ValueError("forward: y_test must have labels of y_train only")
    one_hot = np.eye(len(classes), dtype=np.float32)[codes]
    return _float32(X_train), one_hot, _float32(X_test), np.searchsorted(classes, y_test)
