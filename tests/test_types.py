"""Selection of types: clustering, distances, draws and the cache."""

import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micfast.data import load_characters
from micfast.training import types as types_module
from micfast.training.distances import squared_dtw, squared_euclidean
from micfast.training.selections import SELECTIONS, TypeSelection
from micfast.training.selections.kmeans import DTWKMeans, KMeans
from micfast.training.types import select_types, select_types_per_class

CLUSTERED = ["kmeans", "dtw-kmeans"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for computed types."""
    monkeypatch.setenv("MICFAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "types"


@pytest.fixture(scope="module")
def letters():
    folder = os.environ.get("MICFAST_DATA")
    if not folder:
        pytest.skip("real data: set MICFAST_DATA to the folder with the data files")
    return load_characters(data_dir=Path(folder))


def blobs(n_per_blob=6, n_blobs=4, n_timesteps=15, seed=0, dtype=np.float64):
    """Random walks around `n_blobs` far-apart curves, shuffled, with their blob numbers."""
    rng = np.random.default_rng(seed)
    blob = rng.permutation(np.repeat(np.arange(n_blobs), n_per_blob))
    curves = 10 * rng.normal(0, 1, (n_blobs, n_timesteps, 2)).cumsum(1)
    X = curves[blob] + 0.1 * rng.normal(0, 1, (len(blob), n_timesteps, 2))
    return X.astype(dtype), blob


def clustering(name, *, radius=None, **settings):
    """A K-means of that name; the radius is for warping alone."""
    if name == "dtw-kmeans":
        settings["radius"] = radius
    return SELECTIONS[name](**settings)


def same(one, other):
    """Whether two lists of infos are equal."""
    return len(one) == len(other) and all(
        np.array_equal(a.labels, b.labels)
        and np.array_equal(a.index, b.index)
        and np.array_equal(a.inertia, b.inertia, equal_nan=True)
        and a.n_iter == b.n_iter
        for a, b in zip(one, other, strict=True)
    )


# --------------------------------------------------------------------------------------------
# Distances


@pytest.mark.slow  # tslearn compiles for seconds
@pytest.mark.parametrize(
    ("n", "k", "T", "C", "radius"),
    [(5, 3, 12, 2, 3), (1, 1, 1, 1, 1), (3, 2, 7, 1, 1), (4, 4, 9, 3, 8), (140, 18, 6, 2, 100)],
)
def test_dtw_equals_tslearn(n, k, T, C, radius):
    from tslearn.metrics import cdist_dtw

    rng = np.random.default_rng(n)
    X, Y = rng.normal(0, 1, (n, T, C)), rng.normal(0, 1, (k, T, C))
    expected = cdist_dtw(X, Y, global_constraint="sakoe_chiba", sakoe_chiba_radius=radius)
    # Worst relative error seen 4e-7: float32 sums.
    np.testing.assert_allclose(np.sqrt(squared_dtw(X, Y, radius)), expected, rtol=5e-6)


@given(st.integers(1, 12), st.integers(1, 14), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_dtw_by_the_definition(T, radius, seed):
    X, Y = np.random.default_rng(seed).normal(0, 1, (2, T, 2))
    D = np.full((T + 1, T + 1), np.inf)
    D[0, 0] = 0
    for i in range(T):
        for j in range(max(0, i - radius), min(T, i + radius + 1)):
            cost = ((X[i] - Y[j]) ** 2).sum()
            D[i + 1, j + 1] = cost + min(D[i, j], D[i, j + 1], D[i + 1, j])
    assert squared_dtw(X[None], Y[None], radius)[0, 0] == pytest.approx(D[T, T], rel=1e-5)


def test_euclidean_distance():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(0, 1, (6, 5, 2)), rng.normal(0, 1, (3, 5, 2))
    expected = ((X[:, None] - Y) ** 2).sum((2, 3))
    np.testing.assert_allclose(squared_euclidean(X, Y), expected)
    assert (squared_euclidean(X, X) >= 0).all()


# --------------------------------------------------------------------------------------------
# One class


@pytest.mark.parametrize("selection", CLUSTERED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_separate_blobs_are_found_and_centroids_are_means(selection, dtype):
    X, blob = blobs(dtype=dtype)
    types, info = select_types(X, selection=selection, random_state=0)
    assert types.dtype == dtype
    assert types.shape == (4, 15, 2)
    assert len({(a, b) for a, b in zip(blob, info.labels, strict=True)}) == 4
    for j in range(4):
        mean = X[info.labels == j].mean(axis=0, dtype=np.float64)
        # The order of summation may differ; one rounding to the dtype.
        np.testing.assert_allclose(types[j], mean, rtol=2 * np.finfo(dtype).eps, atol=1e-12)
    assert info.index.tolist() == [-1] * 4


@pytest.mark.parametrize("selection", CLUSTERED)
def test_medoid_is_the_member_nearest_to_the_others(selection):
    X, _ = blobs(n_per_blob=7)
    types, info = select_types(
        X, selection=clustering(selection, representative="medoid", radius=14), random_state=0
    )
    np.testing.assert_array_equal(types, X[info.index])
    for j in range(4):
        members = np.flatnonzero(info.labels == j)
        assert info.index[j] in members
        M = X[members]
        if selection == "kmeans":
            d = np.sqrt(((M[:, None] - M) ** 2).sum((2, 3)))
        else:
            d = np.sqrt(squared_dtw(M, M, 14))
        assert d[members == info.index[j]].sum() == pytest.approx(d.sum(1).min())


def test_kmeans_is_as_good_as_scikit_learns():
    from sklearn.cluster import KMeans as ReferenceKMeans

    X = np.random.default_rng(0).normal(0, 1, (80, 6, 2)).cumsum(1)
    _, info = select_types(X, selection=KMeans(n_init=10), random_state=0)
    expected = ReferenceKMeans(4, n_init=10, random_state=0).fit(X.reshape(80, -1)).inertia_
    assert info.inertia == pytest.approx(expected, rel=0.02)
    means = np.stack([X[info.labels == j].mean(0) for j in range(4)])
    assert info.inertia == pytest.approx(((X - means[info.labels]) ** 2).sum())


def test_kmeans_does_not_depend_on_the_unit():
    X = np.random.default_rng(0).normal(0, 1, (80, 6, 2)).cumsum(1)
    _, info = select_types(X, random_state=0)
    _, tiny = select_types(X * 2.0**-20, random_state=0)
    np.testing.assert_array_equal(tiny.labels, info.labels)


def test_dtw_sees_through_shifts_where_euclid_does_not():
    steps = np.arange(60)
    up, down = (
        np.stack([sign * np.exp(-(((steps - at) / 3) ** 2)) for at in range(20, 41, 2)])[..., None]
        for sign in (1.0, -0.6)
    )
    X = np.concatenate([up, down])
    truth = np.repeat([0, 1], 11)
    _, dtw = select_types(X, 2, selection=DTWKMeans(radius=25), random_state=0)
    assert len(set(zip(truth, dtw.labels, strict=True))) == 2
    _, narrow = select_types(X, 2, selection=DTWKMeans(radius=1), random_state=0)
    assert narrow.inertia > dtw.inertia


def test_clusters_are_ordered_by_size():
    X, _ = blobs(n_blobs=3, n_per_blob=8)
    _, info = select_types(X[3:], 3, random_state=0)
    sizes = np.bincount(info.labels)
    assert (np.diff(sizes) <= 0).all()


def test_random_draws_members_without_replacement():
    X, _ = blobs()
    types, info = select_types(X, selection="random", random_state=3)
    assert len(set(info.index.tolist())) == 4
    np.testing.assert_array_equal(types, X[info.index])
    np.testing.assert_array_equal(info.labels[info.index], np.arange(4))
    assert (info.labels == -1).sum() == len(X) - 4
    assert np.isnan(info.inertia)
    draws = {tuple(select_types(X, selection="random", random_state=s)[1].index) for s in range(9)}
    assert len(draws) > 1


def test_first_takes_the_first():
    X, _ = blobs()
    types, info = select_types(X, 3, selection="first")
    np.testing.assert_array_equal(types, X[:3])
    assert info.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("selection", CLUSTERED)
@pytest.mark.parametrize("representative", ["centroid", "medoid"])
def test_equal_samples_leave_no_cluster_empty(selection, representative):
    X = np.tile(np.random.default_rng(0).normal(0, 1, (1, 9, 2)), (7, 1, 1))
    types, info = select_types(X, selection=clustering(selection, representative=representative))
    assert (np.bincount(info.labels, minlength=4) > 0).all()
    np.testing.assert_allclose(types, X[:4])
    assert info.inertia == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
@given(st.integers(4, 12), st.integers(1, 3), st.integers(0, 50), st.sampled_from(CLUSTERED))
@settings(max_examples=40, deadline=None)
def test_no_cluster_is_empty_with_duplicates(n, n_distinct, seed, selection):
    rng = np.random.default_rng(seed)
    X = rng.normal(0, 1, (n_distinct, 5, 2))[rng.integers(n_distinct, size=n)]
    types, info = select_types(X, selection=selection, random_state=seed)
    assert (np.bincount(info.labels, minlength=4) > 0).all()
    assert np.isfinite(types).all()


@pytest.mark.parametrize("selection", [*CLUSTERED, "random", "first"])
def test_as_many_samples_as_types(selection):
    X, _ = blobs(n_per_blob=1)
    types, _ = select_types(X, selection=selection, random_state=0)
    assert sorted(map(bytes, types)) == sorted(map(bytes, X))


@pytest.mark.parametrize("selection", [*CLUSTERED, "random", "first"])
def test_fewer_samples_than_types_are_repeated_with_a_warning(selection):
    X, _ = blobs(n_blobs=1, n_per_blob=3)
    with pytest.warns(UserWarning, match=r"has 3 sample\(s\), fewer than n_types=5"):
        types, info = select_types(X, 5, selection=selection)
    np.testing.assert_array_equal(types, X[[0, 1, 2, 0, 1]])
    assert info.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("selection", [*CLUSTERED, "random"])
def test_same_seed_same_types_whatever_n_jobs(selection):
    X = np.random.default_rng(1).normal(0, 1, (60, 12, 2)).cumsum(1)
    one = select_types(X, selection=selection, random_state=5)
    for n_jobs in (1, 2, -1):
        types, info = select_types(X, selection=selection, random_state=5, n_jobs=n_jobs)
        np.testing.assert_array_equal(types, one[0])
        assert same([info], [one[1]])
    sequence = np.random.SeedSequence(5)
    for _ in range(2):  # a sequence isn't used up
        types, _ = select_types(X, selection=selection, random_state=sequence)
        np.testing.assert_array_equal(types, one[0])


def test_integers_become_float64():
    X = np.arange(48).reshape(8, 3, 2)
    assert select_types(X, 2, random_state=0)[0].dtype == np.float64


GOOD = np.zeros((5, 3, 2))


@pytest.mark.parametrize(
    ("X", "arguments", "error", "message"),
    [
        (GOOD, {"n_types": 0}, ValueError, "n_types must be an integer of at least 1, got 0"),
        (GOOD, {"n_types": 2.0}, TypeError, "n_types must be an integer"),
        (GOOD, {"n_types": True}, TypeError, "n_types must be an integer"),
        (GOOD, {"n_types": 10**9}, ValueError, "n_types is too large: .* GiB at most are allowed"),
        (GOOD, {"selection": "dtw"}, ValueError, "selection must be one of .*, got 'dtw'"),
        (GOOD, {"selection": 3}, TypeError, "selection must be a selection object or one of"),
        (GOOD, {"n_jobs": 0}, ValueError, "n_jobs must be"),
        (
            GOOD,
            {"random_state": -1},
            ValueError,
            "random_state must be an integer of at least 0, got -1",
        ),
        (GOOD, {"random_state": "0"}, TypeError, "random_state must be an integer .* got '0'"),
        (GOOD[0, 0], {}, ValueError, r"must have shape .* got \[2\]. .* X\[None\]"),
        (GOOD[:0], {}, ValueError, "must hold at least one sequence, got none"),
        (GOOD * np.nan, {}, ValueError, r"Input X contains NaN: X\[0\] has no other value"),
        (GOOD + np.inf, {}, ValueError, "must be finite"),
        (GOOD.astype(str), {}, TypeError, "must hold real numbers"),
        (GOOD * 1j, {}, ValueError, "must hold real numbers"),
    ],
)
def test_wrong_arguments(X, arguments, error, message):
    with pytest.raises(error, match=message):
        select_types(X, **arguments)
    with pytest.raises(error, match=message):
        select_types_per_class(X, np.zeros(len(X)), **arguments)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: KMeans("mean"), ValueError, "representative must be 'centroid' or 'medoid'"),
        (lambda: KMeans(n_init=0), ValueError, "KMeans: n_init must be .* at least 1, got 0"),
        (lambda: KMeans(max_iter=0), ValueError, "KMeans: max_iter must be"),
        (lambda: DTWKMeans(radius=0), ValueError, "DTWKMeans: radius must be"),
        (lambda: DTWKMeans(stride=-1), ValueError, "DTWKMeans: stride must be"),
        (lambda: DTWKMeans(stride=1.5), TypeError, "DTWKMeans: stride must be"),
    ],
)
def test_selections_check_themselves(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_max_iter_stops():
    X = np.random.default_rng(0).normal(0, 1, (60, 5, 2))
    assert select_types(X, selection=KMeans(max_iter=1), random_state=0)[1].n_iter == 1


# --------------------------------------------------------------------------------------------
# All classes


def two_classes():
    X = np.random.default_rng(2).normal(0, 1, (50, 12, 2)).cumsum(1)
    return X, np.array(["b", "a"] * 25)


@pytest.mark.parametrize("selection", [*CLUSTERED, "random", "first"])
def test_classes_do_not_depend_on_each_other(selection):
    X, y = two_classes()
    types, classes, infos = select_types_per_class(X, y, selection=selection, random_state=0)
    assert types.shape == (2, 4, 12, 2)
    assert classes.tolist() == ["a", "b"]
    assert [len(info.labels) for info in infos] == [25, 25]
    changed = X.copy()
    changed[y == "a"] += 1 + np.arange(12)[:, None] ** 2
    other, _, other_infos = select_types_per_class(changed, y, selection=selection, random_state=0)
    np.testing.assert_array_equal(other[1], types[1])
    assert same(other_infos[1:], infos[1:])
    for n_jobs in (1, 2):
        again, _, again_infos = select_types_per_class(
            X, y, selection=selection, random_state=0, n_jobs=n_jobs, cache=False
        )
        np.testing.assert_array_equal(again, types)
        assert same(again_infos, infos)


def test_classes_draw_from_different_streams():
    X, _ = two_classes()
    _, _, infos = select_types_per_class(
        np.concatenate([X, X]), np.repeat([0, 1], 50), selection="random", random_state=0
    )
    assert infos[0].index.tolist() != infos[1].index.tolist()


def test_a_small_class_is_named():
    X, y = two_classes()
    y = y.astype("<U5")
    y[:2] = "small"
    with pytest.warns(UserWarning, match="class small has 2"):
        types, _, _ = select_types_per_class(X, y, random_state=0)
    np.testing.assert_array_equal(types[2], X[[0, 1, 0, 1]])


def test_labels_must_fit():
    X, y = two_classes()
    with pytest.raises(ValueError, match=r"y must have shape \[n_samples\] = \[50\], got \[49\]"):
        select_types_per_class(X, y[:49])


def test_progress_bar(capsys):
    X, y = two_classes()
    select_types_per_class(X, y, random_state=0, progress=True)
    assert "2/2" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------
# Cache


def cached_call(**changed):
    X, y = two_classes()
    arguments = {"selection": DTWKMeans(n_init=2), "random_state": 0} | changed
    return select_types_per_class(arguments.pop("X", X), arguments.pop("y", y), **arguments)


def no_clustering(*args):
    raise AssertionError("clustered although the result is cached")


@pytest.mark.parametrize("representative", ["centroid", "medoid"])
def test_cache_hit(cache, monkeypatch, representative):
    selection = DTWKMeans(representative, n_init=2)
    first = cached_call(selection=selection)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(types_module, "_select", no_clustering)
    again = cached_call(selection=selection, n_jobs=1)
    np.testing.assert_array_equal(again[0], first[0])
    np.testing.assert_array_equal(again[1], first[1])
    assert same(again[2], first[2])
    assert all(isinstance(info, TypeSelection) for info in again[2])
    assert [type(info.inertia) for info in again[2]] == [float, float]


@pytest.mark.parametrize(
    "changed",
    [
        {"random_state": 1},
        {"n_types": 3},
        {"selection": DTWKMeans(n_init=3)},
        {"selection": DTWKMeans(n_init=2, max_iter=5)},
        {"selection": DTWKMeans(n_init=2, radius=3)},
        {"selection": DTWKMeans(n_init=2, stride=2)},
        {"selection": DTWKMeans("medoid", n_init=2)},
        {"X": two_classes()[0] + 1e-9},
        {"X": two_classes()[0].astype(np.float32)},
        {"y": np.array(["b"] * 25 + ["a"] * 25)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_cache_miss(cache, changed):
    cached_call()
    cached_call(**changed)
    assert len(list(cache.iterdir())) == 2


def test_cache_miss_after_a_new_version(cache, monkeypatch):
    cached_call()
    monkeypatch.setattr(types_module, "_CACHE_VERSION", -1)
    cached_call()
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "arguments",
    [{"cache": False}, {"random_state": None}, {"selection": "kmeans"}],
    ids=["off", "no seed", "fast selection"],
)
def test_not_cached(cache, arguments):
    cached_call(**arguments)
    assert not cache.exists()


def save_other(path):
    np.savez(path, types=np.zeros((2, 4, 12, 2)), labels=np.zeros(3))


def save_other_shape(path):
    np.savez(
        path,
        types=np.zeros((2, 4, 11, 2)),
        labels=np.zeros(50),
        index=np.zeros((2, 4)),
        inertia=np.zeros(2),
        n_iter=np.zeros(2),
    )


def save_pickle(path):
    np.savez(path, types=np.array([{}], dtype=object), allow_pickle=True)


def flip_middle(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no npz"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        flip_middle,
        save_other,
        save_other_shape,
        save_pickle,
    ],
    ids=["empty", "foreign", "truncated", "flipped", "fields", "shape", "pickle"],
)
def test_a_damaged_cache_file_is_replaced(cache, damage):
    first = cached_call()
    (path,) = cache.iterdir()
    good = path.read_bytes()
    damage(path)
    again = cached_call()
    np.testing.assert_array_equal(again[0], first[0])
    assert same(again[2], first[2])
    assert [p.name for p in cache.iterdir()] == [path.name]
    with np.load(path) as file:
        assert file["types"].shape == (2, 4, 12, 2)
    assert len(path.read_bytes()) == len(good)


def test_a_cache_that_cannot_be_written_is_only_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MICFAST_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set MICFAST_CACHE") as caught:
        types, _, _ = cached_call()
    assert types.shape == (2, 4, 12, 2)
    assert caught[0].filename == __file__


# --------------------------------------------------------------------------------------------
# Letters


@pytest.mark.slow
def test_letters(letters):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        types, classes, infos = select_types_per_class(
            letters.X_train, letters.y_train, selection="dtw-kmeans", random_state=0
        )
    assert types.shape == (20, 4, 205, 2)
    assert types.dtype == np.float32
    assert classes.tolist() == letters.classes.tolist()
    start = time.perf_counter()
    again, _, _ = select_types_per_class(
        letters.X_train, letters.y_train, selection="dtw-kmeans", random_state=0
    )
    assert time.perf_counter() - start < 1
    np.testing.assert_array_equal(again, types)
    # The nearest type's class is right for 0.94 of the test letters; chance is 0.05.
    d = squared_euclidean(letters.X_test, types.reshape(80, 205, 2))
    assert (classes[d.argmin(1) // 4] == letters.y_test).mean() > 0.9
    assert min(np.bincount(info.labels, minlength=4).min() for info in infos) > 0


@pytest.mark.slow
def test_stride_and_band_cost_little_on_letters(letters):
    def cost(X, labels):
        means = np.stack([X[labels == j].mean(0) for j in range(4)])
        return squared_dtw(X, means, 204)[np.arange(len(X)), labels].sum()

    fast = exact = 0.0
    for label in "as":
        X = letters.X_train[letters.y_train == label]
        _, info = select_types(X, selection="dtw-kmeans", random_state=0, n_jobs=2)
        fast += cost(X, info.labels)
        exactly = DTWKMeans(radius=204, stride=1)
        _, info = select_types(X, selection=exactly, random_state=0, n_jobs=2)
        exact += cost(X, info.labels)
    assert fast < 1.05 * exact
