"""The estimator, the types and distances on sequences of unequal lengths or with gaps."""

import numpy as np
import pytest
import torch
from estimators import PLAIN
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from micfast import ModularInverseClassifier, Sequences, Training
from micfast.classify.distances.dtw import warped_distances
from micfast.data.standardize import Standardizer
from micfast.training.selections.kmeans import DTWKMeans, KMeans
from micfast.training.types import select_types, select_types_per_class

SMALL = PLAIN | {
    "n_types": 2,
    "hidden_size": 6,
    "training": Training.paper(n_episodes=600, max_retries=0, learned_tol=100.0),
    "n_modules_per_class": 1,
    "random_state": 0,
}
SHORT = Training.paper(n_episodes=100, max_retries=0, learned_tol=100.0)


def curves(seed=0, per_class=8):
    """Three classes of noisy plane curves of 8 to 16 steps, as a list, and their labels."""
    rng = np.random.default_rng(seed)
    sequences, labels = [], []
    for label in ("arch", "line", "wave"):
        for _ in range(per_class):
            t = np.linspace(0, 1, rng.integers(8, 17))
            x, y = {
                "arch": (t, np.sin(np.pi * t)),
                "line": (t, t),
                "wave": (-t, np.sin(2 * np.pi * t)),
            }[label]
            curve = np.stack([x, y], axis=-1) * rng.uniform(0.8, 1.2)
            sequences.append(100 + 7 * (curve + 0.03 * rng.standard_normal(curve.shape)))
            labels.append(label)
    return sequences, np.array(labels)


def pad(sequences, n_steps=None):
    padded = Sequences.read(sequences).padded()
    return np.pad(
        padded,
        [(0, 0), (0, (n_steps or padded.shape[1]) - padded.shape[1]), (0, 0)],
        constant_values=np.nan,
    )


X, y = curves()
X_NEW, Y_NEW = curves(seed=1)


def small(**kwargs):
    return ModularInverseClassifier(**(SMALL | kwargs))


@pytest.fixture(scope="module")
def fitted():
    return small().fit(X, y)


# -- the estimator -------------------------------------------------------------------------------


def test_fit_and_predict(fitted):
    assert fitted.score(X_NEW, Y_NEW) > 0.9
    assert fitted.n_timesteps_in_ == max(map(len, X))
    assert fitted.types_.shape == (3, 2, fitted.n_timesteps_in_, 2)
    assert np.isnan(fitted.types_).any()
    assert fitted.predict_proba(X_NEW).sum(axis=1) == pytest.approx(1)
    assert fitted.transform(X_NEW).shape == (24, 3 + 6)
    relative = [report["relative_mse"] for report in fitted.training_report_]
    assert 0 < max(relative) < 1


def test_all_forms_give_the_same(fitted):
    expected = fitted.decision_function(X_NEW)
    tensors = [torch.from_numpy(x) for x in X_NEW]
    for form in (
        pad(X_NEW),
        pad(X_NEW, 30),
        torch.from_numpy(pad(X_NEW)),
        tensors,
        torch.nn.utils.rnn.pack_sequence(tensors, enforce_sorted=False),
        torch.nested.nested_tensor(tensors, layout=torch.jagged),
        np.array([*X_NEW, None], dtype=object)[:-1],
    ):
        np.testing.assert_allclose(fitted.decision_function(form), expected, rtol=1e-5, atol=1e-6)
    of_one_length = [tensors[0], tensors[0] + 1]
    packed = torch.nn.utils.rnn.pack_sequence(of_one_length)
    np.testing.assert_allclose(
        fitted.decision_function(packed), fitted.decision_function(torch.stack(of_one_length))
    )
    again = small().fit(pad(X), y)
    np.testing.assert_array_equal(again.decision_function(X_NEW), expected)
    # Each sequence is decided by its own steps, alone or not.
    for i in (0, 9, 23):
        alone = fitted.decision_function(X_NEW[i][None])
        np.testing.assert_allclose(alone[0], expected[i], rtol=1e-5, atol=1e-6)


def test_reconstructions_end_where_the_sequences_do(fitted):
    drawn = fitted.reconstruct(X_NEW)
    assert drawn.shape == (24, max(map(len, X_NEW)), 2)
    for one, x in zip(drawn, X_NEW, strict=True):
        assert np.isfinite(one[: len(x)]).all()
        assert np.isnan(one[len(x) :]).all()
    squares = np.square(drawn - pad(X_NEW)) / fitted.standardizer_.scale_**2
    errors = -fitted.decision_function(X_NEW).max(axis=1)
    np.testing.assert_allclose(np.nanmean(squares, axis=(1, 2)), errors, rtol=1e-3)


@pytest.mark.parametrize("selection", ["kmeans", "dtw-kmeans", "random", "first"])
def test_every_selection(selection):
    model = small(type_selection=selection, training=SHORT, distance="dtw").fit(X, y)
    assert np.isfinite(model.decision_function(X_NEW)).all()
    assert [report["n_types_found"] for report in model.training_report_] == [2, 2, 2]


def test_saved_and_loaded(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = ModularInverseClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.types_, fitted.types_)
    np.testing.assert_array_equal(loaded.decision_function(X_NEW), fitted.decision_function(X_NEW))


def test_a_class_is_added(fitted):
    model = clone(fitted).fit(X, y)
    shorter = [x[:-3] + 5 for x in X if len(x) < 14][:5]
    model.add_class(shorter, "zig")
    assert np.isfinite(model.decision_function(X_NEW)).all()
    np.testing.assert_array_equal(model.types_[:3], fitted.types_)
    before = model.predict(X_NEW)
    steps = np.linspace(0, 3, 20)[:, None]
    model.add_class([100 + steps * [7, -9], 100 + steps[:17] * [7, -9]], "long")  # than the others
    assert model.types_.shape[2] == 20
    assert model.predict([100 + steps * [7, -9]]).tolist() == ["long"]
    assert (model.predict(X_NEW) == before).mean() > 0.9


def test_in_cross_validation():
    # Lists of arrays are cut by scikit-learn item by item, padded arrays row by row.
    model = small(training=Training.paper(n_episodes=300, max_retries=0, learned_tol=100.0))
    scores = cross_val_score(model, pad(X), y, cv=2)
    assert scores.min() > 0.5


def test_univariate():
    one = [x[:, 0] for x in X]
    model = small(training=SHORT).fit(one, y)
    assert model.n_channels_in_ == 1
    assert model.reconstruct(one).shape == (24, 16, 1)


def with_gaps(sequences, seed=2):
    rng = np.random.default_rng(seed)
    out = pad(sequences)
    out[rng.random(out.shape) < 0.15] = np.nan
    return out


def test_missing_values():
    model = small(nan_policy="omit").fit(with_gaps(X), y)
    assert model.__sklearn_tags__().input_tags.allow_nan
    assert model.score(with_gaps(X_NEW, seed=3), Y_NEW) > 0.8
    assert model.score(X_NEW, Y_NEW) > 0.8
    errors = model.reconstruction_errors(with_gaps(X_NEW, seed=3))
    assert np.isfinite(errors).all()


def test_missing_values_in_medoids():
    medoids = KMeans(representative="medoid")
    model = small(nan_policy="omit", training=SHORT, type_selection=medoids).fit(with_gaps(X), y)
    assert np.isnan(model.types_[:, :, :3]).any()
    assert np.isfinite(model.decision_function(X_NEW)).all()


@pytest.mark.parametrize(
    ("kwargs", "wrong", "message"),
    [
        (
            {},
            with_gaps(X),
            r"Input X contains NaN before the last step of X\[0\]; with nan_policy='omit'",
        ),
        ({}, np.full((24, 5, 2), np.nan), r"X\[0\] has no other value"),
        ({"nan_policy": "omit"}, np.full((24, 5, 2), np.nan), r"X\[0\] has no other value"),
        ({"nan_policy": "omit"}, np.full((24, 5, 2), np.inf), "infinity"),
        ({}, np.where(np.eye(24, 9), np.nan, 0), "Input X contains NaN"),
        ({}, [np.zeros((4, 2)), np.zeros((3, 1))], r"X\[1\] must have .* got \[3, 1\]"),
        ({"nan_policy": "drop"}, pad(X), "nan_policy must be 'raise' or 'omit', got 'drop'"),
        ({"nan_policy": "omit", "distance": "dtw"}, pad(X), "distance must be 'mse' with nan_pol"),
    ],
)
def test_messages(kwargs, wrong, message):
    with pytest.raises(ValueError, match=message):
        small(**kwargs).fit(wrong, y[: len(wrong)])


def test_errors_of_sequences_that_cannot_be_measured(fitted):
    dirty = pad(X_NEW)
    dirty[2], dirty[5, 1, 0], dirty[7, 0, 0] = np.nan, np.nan, np.inf
    errors = fitted.reconstruction_errors(dirty)
    bad = np.isin(np.arange(24), [2, 5, 7])
    assert np.isnan(errors[bad]).all()
    np.testing.assert_array_equal(errors[~bad], fitted.reconstruction_errors(X_NEW)[~bad])


# -- types, standardisation, distances -----------------------------------------------------------


@pytest.mark.parametrize("selection", [KMeans, DTWKMeans])
def test_types_of_stretched_sequences(selection):
    """One shape at many speeds is one cluster, and its centroid that shape at the mean length."""
    lengths = [5, 9, 13, 7, 11]
    up = [np.linspace(0, 1, n)[:, None] * [1.0, 2.0] for n in lengths]
    down = [3 - one for one in up[:3]]
    types, info = select_types(up + down, 2, selection=selection(), random_state=0)
    assert info.labels.tolist() == [0] * 5 + [1] * 3
    assert types.shape == (2, 13, 2)
    for one, expected in ((types[0], up[1]), (types[1], 3 - up[1])):
        np.testing.assert_allclose(one[:9], expected, atol=1e-6)
        assert np.isnan(one[9:]).all()
    medoids, info = select_types(
        up + down, 2, selection=selection(representative="medoid"), random_state=0
    )
    every = [*up, *down]
    for one, i in zip(medoids, info.index, strict=True):
        np.testing.assert_array_equal(one[: len(every[i])], every[i])


def test_types_that_are_samples_keep_their_gaps():
    whole = with_gaps(X)
    for selection in ("first", "random"):
        types, info = select_types(whole, 3, selection=selection, random_state=0, nan_policy="omit")
        np.testing.assert_array_equal(types, whole[info.index])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        select_types(whole, 3)
    with pytest.raises(ValueError, match="nan_policy must be 'raise' or 'omit', got 'propagate'"):
        select_types(whole, 3, nan_policy="propagate")
    empty_channel = pad(X)
    empty_channel[0, :, 1] = np.nan
    with pytest.raises(ValueError, match="must have a value in every channel"):
        select_types(empty_channel, 3, nan_policy="omit")


def test_padding_makes_no_other_types(tmp_path, monkeypatch):
    monkeypatch.setenv("MICFAST_CACHE", str(tmp_path))
    kwargs = {"n_types": 2, "selection": "dtw-kmeans", "random_state": 0}
    first = select_types_per_class(X, y, **kwargs)[0]
    np.testing.assert_array_equal(first, select_types_per_class(pad(X), y, **kwargs)[0])
    wider = select_types_per_class(pad(X, 20), y, **kwargs)[0]
    np.testing.assert_array_equal(wider[:, :, :16], first)
    assert np.isnan(wider[:, :, 16:]).all()


@pytest.mark.parametrize("axis", ["global", "channel"])
def test_standardizer_counts_values_there_are(axis):
    flat = np.concatenate(X)
    over = 0 if axis == "channel" else None
    fitted = Standardizer(axis).fit(pad(X))
    np.testing.assert_allclose(fitted.mean_, flat.mean(axis=over))
    np.testing.assert_allclose(fitted.scale_, flat.std(axis=over))
    with pytest.raises(ValueError, match="a value in every channel"):
        Standardizer("channel").fit(np.full((2, 3, 1), np.nan))


def test_warped_distances_of_each_one_s_own_steps():
    targets = [x / 7 for x in X_NEW[:6]]
    drawn = np.random.default_rng(0).normal(14, 1, (6, 2, 16, 2))
    together = warped_distances(pad(targets, 16), drawn)
    for n, target in enumerate(targets):
        cut = drawn[n : n + 1, :, : len(target)]
        alone = warped_distances(target[None], cut)
        np.testing.assert_array_equal(together[n], alone[0])
