"""Baselines of the paper's experiments: forward LSTM, nearest neighbour, MiniRocket."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

import micfast.experiments.paper.baselines as baselines
from micfast.experiments.paper.baselines import (
    METHODS,
    available,
    forward_keras,
    forward_torch,
    minirocket,
    nearest_neighbour,
)


def needs(method):
    reason = available(method)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


FORWARD = [
    pytest.param(forward_torch, id="torch"),
    pytest.param(forward_keras, id="keras", marks=needs("keras-lstm")),
]
CLASSIC = [
    pytest.param(lambda *a: nearest_neighbour(*a, metric="euclidean"), id="1nn-euclidean"),
    pytest.param(lambda *a: nearest_neighbour(*a, metric="dtw"), id="1nn-dtw"),
    pytest.param(minirocket, id="minirocket", marks=needs("minirocket")),
]
SMALL = {"hidden_size": 8, "epochs": 60, "batch_size": 4, "seed": 0}


def waves(n_per_class, seed=0, labels=("a", "b", "c"), n_timesteps=20):
    """Three classes that nothing confuses: slow, fast and no oscillation, in two channels."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 2 * np.pi, n_timesteps)[:, None]
    shapes = np.stack([np.hstack([np.sin(f * time), np.cos(f * time) - 1]) + f for f in (0, 1, 3)])
    y = rng.permutation(np.repeat(np.arange(3), n_per_class))
    X = shapes[y] + 0.05 * rng.normal(size=(len(y), n_timesteps, 2))
    return X, np.array(labels)[y]


def set_weights_like_keras(twin, weights):
    """Put Keras' five arrays into the torch twin."""
    kernel, recurrent, bias, dense, dense_bias = (torch.from_numpy(np.array(w)) for w in weights)
    with torch.no_grad():
        twin.lstm.weight_ih_l0.copy_(kernel.T)
        twin.lstm.weight_hh_l0.copy_(recurrent.T)
        twin.lstm.bias_ih_l0.copy_(bias)
        twin.dense.weight.copy_(dense.T)
        twin.dense.bias.copy_(dense_bias)


def weights_like_keras(twin):
    lstm, dense = twin.lstm, twin.dense
    return [
        w.detach().numpy()
        for w in (
            lstm.weight_ih_l0.T,
            lstm.weight_hh_l0.T,
            lstm.bias_ih_l0,
            dense.weight.T,
            dense.bias,
        )
    ]


def global_states():
    return np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


# --------------------------------------------------------------------------------------------
# Forward classification


@pytest.mark.slow
@pytest.mark.parametrize("forward", FORWARD)
def test_forward_learns_what_is_easy_and_counts_right(forward):
    X, y = waves(4)
    X_test, y_test = waves(7, seed=1)
    assert forward(X, y, X_test, y_test, **SMALL) == 21
    # The same predictions, so each falsified label is one less.
    y_test[:5] = [{"a": "b", "b": "c", "c": "a"}[label] for label in y_test[:5]]
    assert forward(X, y, X_test, y_test, **SMALL) == 16


@pytest.mark.parametrize("forward", FORWARD)
def test_forward_repeats_itself_and_touches_no_global_state(forward):
    X, y = waves(4)
    # Noise without pattern: any change of the weights changes the count.
    rng = np.random.default_rng(2)
    X_test, y_test = 2 * rng.normal(size=(300, 20, 2)).cumsum(axis=1), rng.choice(list("abc"), 300)
    settings = SMALL | {"epochs": 3}

    before = global_states()
    counts = [forward(X, y, X_test, y_test, **settings | {"seed": s}) for s in (0, 0, 1, 2, 3)]
    assert global_states() == before
    assert counts[0] == counts[1]
    assert len(set(counts)) > 1

    random.seed(5), torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert forward(X, y, X_test, y_test, **settings) == counts[0]
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_epochs_visit_every_sequence_in_a_new_order():
    orders = list(baselines._orders(50, 4, seed=3))
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert np.array_equal(orders, list(baselines._orders(50, 4, seed=3)))
    assert not np.array_equal(orders, list(baselines._orders(50, 4, seed=4)))
    batches = baselines._batches(orders[0], 20)
    assert [len(batch) for batch in batches] == [20, 20, 10]
    assert np.array_equal(np.concatenate(batches), orders[0])


def test_torch_twin_starts_as_keras_does():
    twin = baselines.TorchForward(n_channels=3, n_classes=5, hidden_size=16, seed=0)
    kernel, recurrent, bias, dense, dense_bias = weights_like_keras(twin)
    assert kernel.shape == (3, 64)
    assert np.abs(kernel).max() <= np.sqrt(6 / (3 + 64))
    assert np.abs(kernel).std() == pytest.approx(np.sqrt(6 / (3 + 64) / 12), rel=0.2)
    assert np.abs(dense).max() <= np.sqrt(6 / (16 + 5))
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(16), atol=1e-5)
    assert bias.reshape(4, 16).tolist() == np.outer([0, 1, 0, 0], np.ones(16)).tolist()
    assert not dense_bias.any()


def test_torch_twin_steps_as_keras_says():
    """Adam as Keras documents it, on torch's gradients, with one bias vector."""
    twin = baselines.TorchForward(n_channels=2, n_classes=3, hidden_size=6, seed=0)
    X, y = waves(4)
    X = torch.from_numpy(X.astype(np.float32))
    targets = torch.eye(3)[torch.from_numpy(np.searchsorted(["a", "b", "c"], y))]

    trained = [p for p in (*twin.lstm.parameters(), *twin.dense.parameters()) if p.requires_grad]
    expected = [p.detach().double().clone() for p in trained]
    m, v = ([torch.zeros_like(p) for p in expected] for _ in range(2))
    for t in range(1, 6):
        loss = (twin.logits(X).softmax(dim=1) - targets).square().mean(dim=1).mean()
        gradients = torch.autograd.grad(loss, trained)
        rate = 0.001 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for i, g in enumerate(gradients):
            m[i] += 0.1 * (g - m[i])
            v[i] += 0.001 * (g.double().square() - v[i])
            expected[i] -= rate * m[i] / (v[i].sqrt() + 1e-7)
        twin.step(X, targets)
        for p, e in zip(trained, expected, strict=True):
            torch.testing.assert_close(p.detach(), e.float(), rtol=0, atol=2e-6)
    assert len(trained) == 5
    assert not twin.lstm.bias_hh_l0.any()


@needs("keras-lstm")
def test_torch_twin_trains_as_keras_does():
    """From Keras' weights, on the same batches (the last one smaller), to the same weights."""
    X, y = waves(4)
    X = X.astype(np.float32)
    one_hot = np.eye(3, dtype=np.float32)[np.searchsorted(["a", "b", "c"], y)]
    model = baselines._keras_model(X.shape[1:], 3, 10, seed=4)
    twin = baselines.TorchForward(2, 3, 10, seed=0)
    first = model.get_weights()
    set_weights_like_keras(twin, first)
    np.testing.assert_allclose(
        twin.logits(torch.from_numpy(X)).softmax(dim=1).detach(),
        model.predict(X, verbose=0),
        atol=2e-6,
    )
    for n_steps, tolerance in ((1, 1e-6), (20, 2e-5)):
        for _ in range(n_steps):
            for batch in baselines._batches(np.arange(12), 5):
                model.train_on_batch(X[batch], one_hot[batch])
                twin.step(torch.from_numpy(X[batch]), torch.from_numpy(one_hot[batch]))
        for ours, keras, start in zip(
            weights_like_keras(twin), model.get_weights(), first, strict=True
        ):
            assert np.abs(keras - start).max() > 100 * tolerance
            np.testing.assert_allclose(ours, keras, rtol=0, atol=tolerance)


@needs("keras-lstm")
def test_keras_model_is_the_papers():
    model = baselines._keras_model((205, 2), 20, 200, seed=0)
    lstm, dense = model.layers
    kernel, recurrent, bias = lstm.get_weights()
    assert (kernel.shape, recurrent.shape, bias.shape) == ((2, 800), (200, 800), (800,))
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(200), atol=1e-4)
    assert bias[200:400].tolist() == [1] * 200
    assert dense.get_config()["activation"] == "softmax"
    optimizer = model.optimizer.get_config()
    assert type(model.optimizer).__name__ == "Adam"
    assert optimizer["learning_rate"] == pytest.approx(1e-3)
    assert optimizer["epsilon"] == 1e-7
    other = baselines._keras_model((205, 2), 20, 200, seed=1)
    assert not np.array_equal(other.layers[0].get_weights()[1], recurrent)


# --------------------------------------------------------------------------------------------
# Classics


def dtw(a, b):
    """Dynamic time warping, as the textbook has it."""
    cost = np.full((len(a) + 1, len(b) + 1), np.inf)
    cost[0, 0] = 0
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            step = min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
            cost[i + 1, j + 1] = np.square(p - q).sum() + step
    return np.sqrt(cost[-1, -1])


@pytest.mark.parametrize("classify", CLASSIC)
@pytest.mark.parametrize("labels", [("a", "b", "c"), (7, 3, 5)])
def test_classics_get_right_what_is_easy(classify, labels):
    X, y = waves(4, labels=labels)
    X_test, y_test = waves(5, seed=1, labels=labels)
    predictions = classify(X, y, X_test)
    assert predictions.tolist() == y_test.tolist()
    assert predictions.dtype == y.dtype


@pytest.mark.parametrize("metric", ["euclidean", pytest.param("dtw", marks=pytest.mark.slow)])
def test_nearest_neighbour_equals_brute_force(metric):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(17, 11, 3)).cumsum(axis=1)
    X_test = rng.normal(size=(40, 11, 3)).cumsum(axis=1)
    y = np.arange(17)[::-1]  # each its own class: nothing hides behind a label
    distance = dtw if metric == "dtw" else lambda a, b: np.linalg.norm(a - b)
    nearest = [min(range(17), key=lambda i: distance(a, X[i])) for a in X_test]
    assert nearest_neighbour(X, y, X_test, metric=metric).tolist() == y[nearest].tolist()


def test_dtw_sees_through_a_shift_of_any_length():
    pulse = np.zeros((2, 40, 1))
    pulse[0, 2:5] = 1
    pulse[1] = 0.1
    late = np.roll(pulse[:1], 33, axis=1)
    assert nearest_neighbour(pulse, ["pulse", "flat"], late, metric="dtw").tolist() == ["pulse"]
    assert nearest_neighbour(pulse, ["pulse", "flat"], late).tolist() == ["flat"]


@needs("minirocket")
def test_minirocket_repeats_itself():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 30, 2)), np.repeat([0, 1], 4)
    X_test = rng.normal(size=(200, 30, 2))
    first, again, other = (minirocket(X, y, X_test, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# --------------------------------------------------------------------------------------------
# Arguments, availability, budgets


def test_bad_arguments_are_named():
    X, y = waves(2)
    with pytest.raises(ValueError, match="y_test must have labels of y_train only"):
        forward_torch(X, y, X, np.where(y == "a", "q", y), **SMALL)
    with pytest.raises(ValueError, match="metric must be 'euclidean' or 'dtw', got 'cosine'"):
        nearest_neighbour(X, y, X, metric="cosine")


def test_available_tells_what_to_install(monkeypatch):
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    assert {method: available(method) is None for method in METHODS} == {
        "keras-lstm": False,
        "torch-lstm": True,
        "mic-default-training": True,
        "1nn-euclidean": True,
        "1nn-dtw": True,
        "minirocket": False,
    }
    assert available("minirocket") == "aeon is not installed: pip install 'micfast[rocket]'"
    X, y = waves(2)
    with pytest.raises(ImportError, match=r"tensorflow is not installed: .*micfast\[keras\]"):
        forward_keras(X, y, X, y, **SMALL)
    with pytest.raises(ImportError, match="aeon is not installed"):
        minirocket(X, y, X)


def test_import_and_available_load_nothing_heavy():
    code = (
        "import sys, micfast.experiments.paper.baselines as b; [b.available(m) for m in b.METHODS];"
        "print({'tensorflow', 'keras', 'aeon', 'sklearn', 'tslearn', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("MICFAST_DATA"),
    reason="real data: set MICFAST_DATA to the folder with the data files",
)
def test_nearest_neighbour_on_four_letters_per_class():
    from micfast.data import load_characters
    from micfast.training.types import select_types_per_class

    data = load_characters(n_test=60)
    types, classes, _ = select_types_per_class(
        data.X_train, data.y_train, selection="random", random_state=0
    )
    X, y = types.reshape(-1, 205, 2), np.repeat(classes, 4)
    accuracy = {
        metric: (nearest_neighbour(X, y, data.X_test, metric=metric) == data.y_test).mean()
        for metric in ("euclidean", "dtw")
    }
    assert min(accuracy.values()) > 0.7, accuracy
