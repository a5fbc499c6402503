"""The classifier: scikit-learn's checks, seeds that don't depend on company, classes, its file."""

import json
import os
import pickle
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from scipy import sparse
from scipy.special import softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError, UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import micfast
from micfast import ModularInverseClassifier, _backend, ops
from micfast.bank import BankFileError, GeneratorBank
from micfast.decision import best_temperature, warped_distances
from micfast.types import select_types

T, C, PER_CLASS = 10, 2, 7
SMALL = {
    "n_modules_per_class": 1,
    "noise_in": 0.1,
    "n_types": 2,
    "hidden_size": 6,
    "n_episodes": 400,
    "n_iter": 8,
    "max_retries": 0,
    "learned_tol": 100.0,
    "random_state": 0,
}

# PyTorch alone trains far slower, and its matrix products round differently for other fleets.
needs_kernel = pytest.mark.skipif(
    _backend.extension is None, reason="many trainings: minutes without the compiled kernel"
)


def small(**kwargs):
    return ModularInverseClassifier(**(SMALL | kwargs))


def curves(seed=0, n_steps=T):
    """Three classes of noisy plane curves, in units far from the standard ones."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, n_steps)
    shapes = {
        "arch": np.stack([t, np.sin(np.pi * t)], axis=-1),
        "line": np.stack([t, t], axis=-1),
        "wave": np.stack([-t, np.sin(2 * np.pi * t)], axis=-1),
    }
    X = np.concatenate([np.repeat(s[None], PER_CLASS, axis=0) for s in shapes.values()])
    X = X * rng.uniform(0.8, 1.2, (len(X), 1, 1)) + 0.03 * rng.standard_normal(X.shape)
    return 100 + 7 * X, np.repeat(list(shapes), PER_CLASS)


X, y = curves()
X_NEW, Y_NEW = curves(seed=1)


@pytest.fixture(scope="module")
def fitted():
    return small().fit(X, y)


@pytest.fixture
def fresh(fitted):
    return pickle.loads(pickle.dumps(fitted))


def same_fit(a, b):
    """Equal to the bit in all that was learned per class."""
    assert a.classes_.tolist() == b.classes_.tolist()
    assert a.banks_ == b.banks_
    for one, other in zip(a.calibration_, b.calibration_, strict=True):
        np.testing.assert_array_equal(one["types"], other["types"])
        np.testing.assert_array_equal(one["samples"], other["samples"])
    np.testing.assert_array_equal(a.types_, b.types_)
    for one, other in zip(a.training_report_, b.training_report_, strict=True):
        for key in set(one) - {"seconds"}:
            np.testing.assert_array_equal(one[key], other[key])
    for one, other in zip(a.type_info_, b.type_info_, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_array_equal([one.inertia, one.n_iter], [other.inertia, other.n_iter])


# -- scikit-learn's conventions ------------------------------------------------------------------

# Checks that fail, each with its reason: none.
EXPECTED_FAILED_CHECKS: dict[str, str] = {}


@needs_kernel
@parametrize_with_checks(
    [
        ModularInverseClassifier(n_episodes=300),
        ModularInverseClassifier(
            n_types=1,
            n_episodes=300,
            n_modules_per_class=2,
            solver="adam",
            n_iter=10,
            init="types",
            error_scale="samples",
            standardize=None,
            n_jobs=2,
        ),
    ],
    expected_failed_checks=lambda _: EXPECTED_FAILED_CHECKS,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:.*fewer than n_types:UserWarning")
def test_sklearn_checks(estimator, check):
    check(estimator)


@needs_kernel
def test_works_inside_sklearn():
    flat, scaled = X.reshape(len(X), -1), FunctionTransformer(lambda A: A / 7)
    pipeline = make_pipeline(scaled, small())
    assert pipeline.fit(flat, y).score(flat, y) > 0.9
    search = GridSearchCV(small(), {"n_iter": [0, 8], "noise_in": [0.0, 0.1]}, cv=2, refit=True)
    search.fit(X, y)
    assert search.best_estimator_.score(X_NEW, Y_NEW) > 0.9
    assert cross_val_score(small(), X, y, cv=3).mean() > 0.9
    assert clone(small(n_types=3)).n_types == 3
    assert small().set_params(n_types=1).fit(X, y).types_.shape[1] == 1


@needs_kernel
def test_works_with_more_of_sklearn():
    model = CalibratedClassifierCV(small(), cv=2).fit(X, y)
    assert (model.predict(X_NEW) == Y_NEW).mean() > 0.9
    voting = VotingClassifier([("a", small()), ("b", small(n_types=1))], voting="soft")
    assert voting.fit(X, y).score(X_NEW, Y_NEW) > 0.9
    scores = cross_validate(small(), X, y, cv=2, scoring=["accuracy", "neg_log_loss"])
    assert scores["test_accuracy"].mean() > 0.9
    assert np.isfinite(scores["test_neg_log_loss"]).all()


def test_set_output():
    pandas = pytest.importorskip("pandas")
    clf = small().set_output(transform="pandas")
    frame = clf.fit_transform(X, y)
    assert isinstance(frame, pandas.DataFrame)
    assert frame.columns.tolist() == clf.get_feature_names_out().tolist()
    np.testing.assert_array_equal(frame, small().fit_transform(X, y))
    pipeline = make_pipeline(small(), LogisticRegression()).set_output(transform="pandas")
    pipeline.fit(X, y)
    assert pipeline[-1].feature_names_in_.tolist() == frame.columns.tolist()
    assert pipeline.score(X_NEW, Y_NEW) > 0.9


def test_weights_of_samples():
    """``fit`` has none, and says so; ``score`` has, also by metadata routing."""
    weights = np.where(y == "arch", 1.0, 0.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sample_weight'"):
        small().fit(X, y, sample_weight=weights)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(small(), {"n_types": [1]}, cv=2, error_score="raise")
        with pytest.raises(UnsetMetadataPassedError, match="set_score_request"):
            search.fit(X, y, sample_weight=weights)
        # Only arches count, and nobody is told that they are something else.
        wrong = np.where(y == "arch", y, "line")
        search.set_params(estimator=small().set_score_request(sample_weight=True))
        assert search.fit(X, wrong, sample_weight=weights).best_score_ > 0.9


def test_sklearn_tags():
    tags = get_tags(small())
    assert tags.estimator_type == "classifier"
    assert tags.input_tags.three_d_array
    assert tags.input_tags.two_d_array
    assert not tags.input_tags.allow_nan
    assert not tags.input_tags.sparse
    assert tags.classifier_tags.multi_class
    assert tags.target_tags.required
    assert not tags.non_deterministic


def test_constructor_only_stores():
    parameters = {name: object() for name in ModularInverseClassifier().get_params()}
    assert ModularInverseClassifier(**parameters).get_params() == parameters


@pytest.mark.parametrize("data", [None, "characters", "mnist"])
def test_paper(data):
    clf = ModularInverseClassifier.paper(data)
    assert (clf.n_types, clf.type_representative, clf.learning_rate) == (4, "centroid", 0.01)
    assert (clf.solver, clf.n_iter, clf.inversion_learning_rate) == ("adam", 50, 0.05)
    assert (clf.init, clf.n_starts, clf.tol) == ("uniform", None, 0.0)
    assert (clf.n_modules_per_class, clf.max_retries) == (1, 0)
    assert (clf.noise_in, clf.noise_out) == (0.0, 0.0)
    assert (clf.distance, clf.error_scale, clf.reject) == ("mse", None, None)
    found = (clf.type_selection, clf.hidden_size, clf.n_episodes)
    if data is None:
        assert found == ("kmeans", 10, 20000)
    else:
        from micfast.experiments.paper.settings import DATA_SETS

        spec = DATA_SETS[data]
        assert found == (spec.clustering, spec.hidden_size, spec.n_episodes)
    other = ModularInverseClassifier.paper(data, noise_in=0.2, n_episodes=7)
    changed = {"noise_in": 0.2, "n_episodes": 7}
    assert other.get_params() == clf.get_params() | changed


def test_paper_errors():
    with pytest.raises(ValueError, match="data must be 'characters', 'mnist' or None, got 'cifar'"):
        ModularInverseClassifier.paper("cifar")
    with pytest.raises(TypeError, match="unheard_of"):
        ModularInverseClassifier.paper("mnist", unheard_of=1)


def test_not_fitted(tmp_path):
    clf = small()
    for use in (
        lambda: clf.predict(X),
        lambda: clf.predict_proba(X),
        lambda: clf.decision_function(X),
        lambda: clf.reconstruct(X),
        lambda: clf.reconstruction_errors(X),
        lambda: clf.invert(X),
        lambda: clf.transform(X),
        lambda: clf.get_feature_names_out(),
        lambda: clf.novelty_score(X),
        lambda: clf.score(X, y),
        lambda: clf.thresholds_,
        lambda: clf.add_class(X, "d"),
        lambda: clf.refit_class(X, "a"),
        lambda: clf.remove_class("a"),
        lambda: clf.save(tmp_path / "no"),
    ):
        with pytest.raises(NotFittedError):
            use()


@needs_kernel
def test_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[..., 0], columns=[f"t{i}" for i in range(T)])
    clf = small().fit(frame, pandas.Series(y))
    assert clf.feature_names_in_.tolist() == list(frame.columns)
    np.testing.assert_array_equal(clf.predict(frame), small().fit(X[..., 0], y).predict(X[..., 0]))
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(frame[frame.columns[::-1]])
    assert not hasattr(clf.fit(X, y), "feature_names_in_")


# -- what is fitted ------------------------------------------------------------------------------


def test_attributes(fitted):
    assert fitted.classes_.tolist() == ["arch", "line", "wave"]
    assert fitted.bank_.classes == ("arch", "line", "wave")
    assert (fitted.bank_.input_size, fitted.bank_.hidden_size, fitted.bank_.output_size) == (
        2,
        6,
        C,
    )
    assert fitted.bank_.dtype == torch.float32
    assert fitted.types_.shape == (3, 2, T, C)
    assert fitted.types_.dtype == np.float64
    assert (fitted.n_timesteps_in_, fitted.n_channels_in_, fitted.n_features_in_) == (T, C, T * C)
    assert fitted.score(X_NEW, Y_NEW) == 1.0


def test_types_are_in_the_units_of_x(fitted):
    for c, info in enumerate(fitted.type_info_):
        members = X[y == fitted.classes_[c]]
        means = [members[info.labels == k].mean(axis=0) for k in range(2)]
        np.testing.assert_allclose(fitted.types_[c], means, rtol=1e-6)
    medoids = small(type_representative="medoid").fit(X, y)
    for c, info in enumerate(medoids.type_info_):
        members = X[y == medoids.classes_[c]]
        np.testing.assert_allclose(medoids.types_[c], members[info.index], rtol=1e-6)


@needs_kernel
@pytest.mark.parametrize("selection", ["first", "random", "dtw-kmeans"])
def test_type_selections(selection, tmp_path, monkeypatch):
    monkeypatch.setenv("MICFAST_CACHE", str(tmp_path))
    clf = small(type_selection=selection).fit(X, y)
    same_fit(clf, small(type_selection=selection, n_jobs=2).fit(X, y))
    assert any(tmp_path.iterdir()) == (selection == "dtw-kmeans")
    if selection == "first":
        expected = [X[y == c][:2] for c in clf.classes_]
        np.testing.assert_allclose(clf.types_, expected, rtol=1e-6)


def test_report_is_what_the_modules_do(fitted):
    for c, (report, module) in enumerate(
        zip(fitted.training_report_, fitted.bank_.to_modules(), strict=True)
    ):
        types = (fitted.types_[c] - X.mean()) / X.std()
        drawn = module(torch.eye(2), T).detach().numpy()
        mse = ((drawn - types) ** 2).mean()
        variance = np.mean([types[..., channel].var() for channel in range(C)])
        assert report["label"] == fitted.classes_[c]
        assert (report["n_samples"], report["n_types_found"]) == (PER_CLASS, 2)
        assert report["attempts"] == len(report["seeds"]) == 1
        assert report["mse"] == pytest.approx(mse, rel=1e-3)
        assert report["relative_mse"] == pytest.approx(mse / variance, rel=1e-3)
        assert report["learned"]
        assert report["seconds"] > 0
        assert report["loss_curve"].shape == (100,)
        assert report["loss_curve"][-1] < report["loss_curve"][0]


@needs_kernel
def test_training_is_one_fleet_of_the_reference():
    """The weights are those that ops.train gives for the seeds in the report."""
    clf = small(noise_out=0.05, standardize=None).fit(X / 100, y)
    seeds = [report["seeds"][0] for report in clf.training_report_]
    start = GeneratorBank.random(3, hidden_size=6, input_size=2, output_size=C, seeds=seeds)
    trained = ops.train(
        *start.weights,
        torch.tensor(clf.types_, dtype=torch.float32),
        torch.arange(3),
        torch.full((3,), 0.1).double(),
        torch.full((3,), 0.05).double(),
        torch.tensor(seeds),
        400,
    )
    assert GeneratorBank(*trained[:5], classes=clf.classes_) == clf.bank_


@needs_kernel
@pytest.mark.parametrize(
    ("standardize", "mean", "scale"),
    [
        ("global", [X.mean()], [X.std()]),
        ("channel", X.mean(axis=(0, 1)), X.std(axis=(0, 1))),
    ],
)
def test_standardize(standardize, mean, scale):
    clf = small(standardize=standardize).fit(X, y)
    np.testing.assert_allclose(clf.standardizer_.mean_, mean)
    np.testing.assert_allclose(clf.standardizer_.scale_, scale)
    before = small(standardize=None).fit((X - mean) / scale, y)
    assert before.standardizer_ is None
    np.testing.assert_allclose(
        clf.reconstruction_errors(X_NEW),
        before.reconstruction_errors((X_NEW - mean) / scale),
        rtol=0.05,
        atol=1e-3,
    )


@needs_kernel
def test_zero_variance_is_no_trouble():
    flat = np.repeat([0.0, 1.0], 5)[:, None] * np.ones(6)
    clf = small(n_types=1, n_episodes=1500, learned_tol=0.1, max_retries=3).fit(flat, flat[:, 0])
    assert [report["learned"] for report in clf.training_report_] == [True, True]
    assert all(report["mse"] <= 1e-4 for report in clf.training_report_)
    assert clf.score(flat, flat[:, 0]) == 1.0
    same = small().fit(np.ones((8, 5)), [0, 1] * 4)
    assert np.isfinite(same.predict_proba(np.ones((3, 5)))).all()


# -- seeds ---------------------------------------------------------------------------------------


@needs_kernel
def test_same_seed_same_result_whatever_the_threads(fitted):
    for n_jobs in (1, 2, -1):
        same_fit(fitted, small(n_jobs=n_jobs).fit(X, y))
    other = small(random_state=1).fit(X, y)
    assert other.bank_ != fitted.bank_
    assert small(random_state=None).fit(X, y).bank_ != small(random_state=None).fit(X, y).bank_
    same_fit(*(small(random_state=np.random.RandomState(3)).fit(X, y) for _ in range(2)))


@needs_kernel
def test_modules_have_seeds_of_their_own(fitted):
    seeds = [report["seeds"][0] for report in fitted.training_report_]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 2**63 for seed in seeds)
    # The label counts with its type: 1 and "1" are different classes.
    numbers = small().fit(X, np.repeat([1, 2, 3], PER_CLASS))
    strings = small().fit(X, np.repeat(["1", "2", "3"], PER_CLASS))
    assert numbers.training_report_[0]["seeds"] != strings.training_report_[0]["seeds"]


@needs_kernel
def test_order_of_classes_changes_nothing(fitted):
    rng = np.random.default_rng(0)
    where = [list(np.flatnonzero(y == c)) for c in fitted.classes_]
    order = [where[c].pop(0) for c in rng.permutation(np.repeat([0, 1, 2], PER_CLASS))]
    shuffled = small().fit(X[order], y[order])
    same_fit(fitted, shuffled)
    assert shuffled.temperature_ == fitted.temperature_
    np.testing.assert_array_equal(shuffled.predict_proba(X_NEW), fitted.predict_proba(X_NEW))


@needs_kernel
def test_object_and_str_labels_are_the_same(fitted):
    same_fit(fitted, small().fit(X, y.astype(object)))


@needs_kernel
def test_fit_is_add_class():
    Z = (X - X.mean()) / X.std()
    arguments = {"standardize": None, "max_retries": 1, "learned_tol": 1e-9}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        at_once = small(**arguments).fit(Z, y)
        for last in at_once.classes_:
            first = y != last
            later = small(**arguments).fit(Z[first], y[first]).add_class(Z[~first], last)
            same_fit(at_once, later)


# -- classes come and go -------------------------------------------------------------------------


@needs_kernel
def test_add_class_touches_no_other(fresh, fitted):
    rng = np.random.default_rng(5)
    new = 100 + rng.standard_normal((5, 1, C)) * np.ones((5, T, 1))
    assert fresh.add_class(new, "a much longer label") is fresh
    assert fresh.classes_.tolist() == ["a much longer label", "arch", "line", "wave"]
    assert fresh.bank_.classes == tuple(fresh.classes_.tolist())
    assert fresh.bank_.without("a much longer label") == fitted.bank_
    np.testing.assert_array_equal(fresh.types_[1:], fitted.types_)
    assert fresh.training_report_[1:] == fresh.training_report_[-3:]
    assert fresh.training_report_[0]["label"] == "a much longer label"
    assert fresh.temperature_ == fitted.temperature_
    assert fresh.predict(new).tolist() == ["a much longer label"] * 5
    assert (fresh.predict(X_NEW) == Y_NEW).mean() > 0.9
    np.testing.assert_array_equal(
        fresh.reconstruction_errors(X_NEW)[:, 1:], fitted.reconstruction_errors(X_NEW)
    )
    same_fit(fresh.remove_class("a much longer label"), fitted)


@needs_kernel
def test_remove_class(fresh, fitted):
    fresh.remove_class("line")
    assert fresh.classes_.tolist() == ["arch", "wave"]
    assert fresh.bank_ == fitted.bank_.without("line")
    assert fresh.types_.shape[0] == len(fresh.type_info_) == len(fresh.training_report_) == 2
    assert set(fresh.predict(X_NEW)) == {"arch", "wave"}
    with pytest.raises(ValueError, match="remove_class: two classes must remain"):
        fresh.remove_class("arch")
    same_fit(fresh.add_class(X[y == "line"], "line"), fitted)


@needs_kernel
def test_refit_class(fresh, fitted):
    same_fit(fresh.refit_class(X[y == "line"], "line"), fitted)
    fresh.refit_class(X[y == "line"][::-1] + 0.5, "line")
    assert fresh.bank_.without("line") == fitted.bank_.without("line")
    assert fresh.bank_.select("line") != fitted.bank_.select("line")
    assert not np.array_equal(fresh.types_[1], fitted.types_[1])
    np.testing.assert_array_equal(fresh.types_[[0, 2]], fitted.types_[[0, 2]])
    assert fresh.bank_.classes == fitted.bank_.classes


@needs_kernel
def test_class_changes_leave_copies_alone(fitted):
    kept = fitted.types_.copy()
    shallow = pickle.loads(pickle.dumps(fitted))
    shallow.__dict__.update(fitted.__dict__)
    shallow.refit_class(X[y == "line"] + 1, "line")
    np.testing.assert_array_equal(fitted.types_, kept)
    assert shallow.training_report_[1] != fitted.training_report_[1]


def test_class_change_errors(fresh):
    new = X[:4]
    with pytest.raises(
        ValueError, match=r"add_class: label must not be one .*\['arch'.*got 'line'"
    ):
        fresh.add_class(new, "line")
    with pytest.raises(ValueError, match=r"remove_class: label must be one .*got 'x'"):
        fresh.remove_class("x")
    with pytest.raises(ValueError, match=r"refit_class: label must be one .*got 'x'"):
        fresh.refit_class(new, "x")
    with pytest.raises(ValueError, match=r"reconstruct: label must be one .*got 'x'"):
        fresh.reconstruct(X, "x")
    with pytest.raises(TypeError, match=r"add_class: label must be of type str .* got int 3"):
        fresh.add_class(new, 3)
    with pytest.raises(ValueError, match="n_channels = 2 as in fit, got 3"):
        fresh.add_class(np.zeros((4, T, 3)), "new")
    with pytest.raises(ValueError, match="n_timesteps = 10 as in fit, got 9"):
        fresh.add_class(new[:, :-1], "new")
    with pytest.raises(ValueError, match="NaN"):
        fresh.add_class(np.full((4, T, C), np.nan), "new")
    with pytest.raises(ValueError, match="n_types must be 2 as in fit, got 3"):
        fresh.set_params(n_types=3).add_class(new, "new")
    with pytest.raises(ValueError, match="hidden_size must be 6 as in fit, got 7"):
        fresh.set_params(n_types=2, hidden_size=7).refit_class(new, "arch")
    with pytest.raises(ValueError, match="n_modules_per_class must be 1 as in fit, got 2"):
        fresh.set_params(hidden_size=6, n_modules_per_class=2).refit_class(new, "arch")


@pytest.mark.parametrize(
    ("labels", "new", "expected"),
    [
        ([1, 2, 3], 0, [0, 1, 2, 3]),
        (np.array([1, 2, 3], dtype=np.int8), np.int64(1000), [1, 2, 3, 1000]),
        ([1.0, 2.0, 3.0], 4, [1.0, 2.0, 3.0, 4.0]),
        (np.array(["b", "c", "d"], dtype=object), "aa", ["aa", "b", "c", "d"]),
        (["b", "c", "d"], np.str_("cc"), ["b", "c", "cc", "d"]),
    ],
)
def test_new_labels_fit_in(labels, new, expected):
    labels = np.asarray(labels)
    clf = small(n_episodes=10).fit(X, np.repeat(labels, PER_CLASS)).add_class(X[:4], new)
    assert clf.classes_.tolist() == expected
    assert clf.classes_.dtype.kind == labels.dtype.kind
    assert [type(label) for label in clf.bank_.classes] == [type(label) for label in expected]
    assert clf.predict(X[:2]).dtype == clf.classes_.dtype


def test_labels_of_other_types():
    numbers = small(n_episodes=10).fit(X, np.repeat([1, 2, 3], PER_CLASS))
    for wrong in ("4", True, 4.5):
        with pytest.raises(TypeError, match="label must be of type int"):
            numbers.add_class(X[:4], wrong)
    with pytest.raises(TypeError, match="a label must be"):
        numbers.add_class(X[:4], None)
    truth = small(n_episodes=10).fit(X, y == "arch")
    assert truth.classes_.dtype == bool
    assert truth.bank_.classes == (False, True)
    with pytest.raises(TypeError, match="label must be of type bool"):
        truth.add_class(X[:4], 1)
    big = small(n_episodes=10).fit(X, np.repeat(np.array([1, 2, 3], dtype=np.uint64), PER_CLASS))
    for wrong in (2**70, -1):
        with pytest.raises(ValueError, match="doesn't fit the other labels' uint64"):
            big.add_class(X[:4], wrong)


# -- retries -------------------------------------------------------------------------------------


def fake_training(monkeypatch, errors):
    """Let each training run give the errors written here; note which classes it was given."""
    calls = []

    def train_once(self, type_sets, seeds, attempt):
        mse = np.array(errors[attempt])
        calls.append(len(seeds))
        assert type_sets.shape[0] == len(seeds) == len(mse)
        bank = GeneratorBank.random(
            len(seeds), hidden_size=6, input_size=2, output_size=C, seeds=seeds
        )
        return bank, mse, np.full((len(seeds), 5), attempt)

    monkeypatch.setattr(ModularInverseClassifier, "_train_once", train_once)
    return calls


def test_only_what_did_not_learn_is_trained_again(monkeypatch):
    nan = np.nan
    calls = fake_training(monkeypatch, [[0.001, 9, nan], [7, nan], [8, 0.001], [6]])
    with pytest.warns(
        ConvergenceWarning, match=r"after 4 attempts: 'line' \(relative error"
    ) as seen:
        clf = small(learned_tol=0.1, max_retries=3).fit(X, y)
    assert calls == [3, 2, 2, 1]
    assert "'arch'" not in str(seen[0].message)
    assert [report["attempts"] for report in clf.training_report_] == [1, 4, 3]
    assert [report["learned"] for report in clf.training_report_] == [True, False, True]
    assert [report["mse"] for report in clf.training_report_] == [0.001, 6, 0.001]
    assert [report["loss_curve"][0] for report in clf.training_report_] == [0, 3, 2]
    assert all(len(set(r["seeds"])) == r["attempts"] for r in clf.training_report_)
    for c, report in enumerate(clf.training_report_):
        kept = report["seeds"][-1]
        start = GeneratorBank.random(1, hidden_size=6, input_size=2, output_size=C, seeds=[kept])
        assert clf.bank_.select(indices=c).with_classes([0]) == start


def test_the_best_attempt_is_kept(monkeypatch):
    fake_training(monkeypatch, [[5, np.nan, np.nan], [4, np.nan, 3], [6, np.nan, np.nan]])
    with pytest.warns(ConvergenceWarning, match="'arch'.*'line'.*'wave'"):
        clf = small(learned_tol=0.01, max_retries=2).fit(X, y)
    assert [report["mse"] for report in clf.training_report_] == pytest.approx(
        [4, np.nan, 3], nan_ok=True
    )
    assert [report["loss_curve"][0] for report in clf.training_report_] == [1, 0, 1]


def test_convergence_warning_of_real_training():
    with pytest.warns(
        ConvergenceWarning, match=r"learned_tol=1e-06 after 2 attempts: 'arch' .*n_episodes"
    ):
        clf = small(n_episodes=5, learned_tol=1e-6, max_retries=1).fit(X, y)
    assert [report["attempts"] for report in clf.training_report_] == [2, 2, 2]
    for change in (
        lambda: clf.add_class(X[:4], "new"),
        lambda: clf.refit_class(X[:4], "new"),
        lambda: clf.fit(X, y),
    ):
        with pytest.warns(ConvergenceWarning) as seen:
            change()
        assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().fit(X, y)


def test_a_diverged_module_is_never_believed(fresh, tmp_path):
    weights = [w.clone() for w in fresh.bank_.weights]
    weights[3][1] = torch.nan
    fresh.banks_ = [GeneratorBank(*weights, classes=fresh.bank_.classes)]
    fresh.training_report_[1] |= {"mse": np.nan, "relative_mse": np.nan}
    assert "line" not in fresh.predict(X_NEW)
    assert np.isfinite(fresh.predict_proba(X_NEW)).all()
    assert (fresh.predict_proba(X_NEW)[:, 1] == 0).all()
    assert np.isnan(fresh.reconstruction_errors(X_NEW)[:, 1]).all()
    fresh.save(tmp_path / "clf")
    loaded = ModularInverseClassifier.load(tmp_path / "clf")
    assert np.isnan(loaded.training_report_[1]["mse"])
    assert loaded.bank_ == fresh.bank_


def test_few_samples_warn():
    with pytest.warns(UserWarning, match=r"class wave has 1 sample\(s\), fewer than n_types=2"):
        clf = small().fit(X[:15], y[:15])
    assert clf.types_.shape == (3, 2, T, C)
    assert [report["n_types_found"] for report in clf.training_report_] == [2, 2, 1]
    np.testing.assert_array_equal(clf.types_[2, 0], clf.types_[2, 1])


# -- prediction ----------------------------------------------------------------------------------


def test_predictions_agree_with_each_other_and_with_invert(fitted):
    standardized = ((X_NEW - X.mean()) / X.std()).astype(np.float32)
    search = {"solver": "lm", "init": "nearest", "n_iter": 8}
    expected = micfast.invert(fitted.bank_, standardized, **search)
    errors = fitted.reconstruction_errors(X_NEW)
    np.testing.assert_allclose(errors, expected.errors, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(fitted.invert(X_NEW).errors, errors)
    assert fitted.predict(X_NEW).tolist() == fitted.classes_[errors.argmin(axis=1)].tolist()
    scores = fitted.decision_function(X_NEW)
    np.testing.assert_allclose(scores, -errors)
    probabilities = fitted.predict_proba(X_NEW)
    expected = softmax(-errors.astype(float) / fitted.temperature_, axis=1)
    np.testing.assert_allclose(probabilities, expected)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), scores.argmax(axis=1))


def test_two_classes():
    first = y != "wave"
    clf = small().fit(X[first], y[first])
    errors, scores = clf.reconstruction_errors(X_NEW), clf.decision_function(X_NEW)
    np.testing.assert_allclose(scores, errors[:, 0] - errors[:, 1], rtol=1e-6)
    assert clf.predict(X_NEW).tolist() == clf.classes_[(scores > 0).astype(int)].tolist()
    assert ((clf.predict_proba(X_NEW)[:, 1] > 0.5) == (scores > 0)).all()


def test_n_iter_and_settings(fitted):
    np.testing.assert_array_equal(
        fitted.reconstruction_errors(X_NEW, n_iter=0), fitted.invert(X_NEW, n_iter=0).errors
    )
    history = fitted.invert(X_NEW, return_history=True).error_history
    assert history.shape == (9, len(X_NEW), 3)
    np.testing.assert_array_equal(history[0], fitted.reconstruction_errors(X_NEW, n_iter=0))


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_backends_agree(backend, fitted):
    clf = small(backend=backend, n_episodes=20).fit(X, y)
    other = small(n_episodes=20).fit(X, y)
    np.testing.assert_allclose(
        clf.reconstruction_errors(X), other.reconstruction_errors(X), rtol=1e-2, atol=1e-4
    )


@needs_kernel
def test_samples_and_their_order_are_independent(fitted):
    errors = fitted.reconstruction_errors(X_NEW)
    np.testing.assert_array_equal(fitted.reconstruction_errors(X_NEW[::-1]), errors[::-1])
    np.testing.assert_array_equal(fitted.reconstruction_errors(X_NEW[3:4]), errors[3:4])


@needs_kernel
def test_tensors_lists_and_other_dtypes(fitted):
    expected = fitted.predict_proba(X_NEW)
    for other in (torch.tensor(X_NEW), X_NEW.tolist(), np.asfortranarray(X_NEW)):
        np.testing.assert_array_equal(fitted.predict_proba(other), expected)
    single = fitted.predict_proba(X_NEW.astype(np.float32))
    np.testing.assert_allclose(single, expected, atol=1e-2)
    tensors = small().fit(torch.tensor(X, requires_grad=True), torch.tensor(y == "arch"))
    same_fit(tensors, small().fit(X, y == "arch"))
    counts = np.round(X).astype(np.int32)
    same_fit(small().fit(counts, y), small().fit(counts.astype(float), y))


@needs_kernel
def test_two_dimensions_are_one_channel():
    flat = small().fit(X[..., 1], y)
    assert (flat.n_features_in_, flat.n_timesteps_in_, flat.n_channels_in_) == (T, T, 1)
    same_fit(flat, small().fit(X[..., 1:], y))
    np.testing.assert_array_equal(flat.predict_proba(X[..., 1]), flat.predict_proba(X[..., 1:]))
    assert flat.reconstruct(X[..., 1]).shape == (len(X), T)
    assert flat.reconstruct(X[..., 1:]).shape == (len(X), T, 1)
    with pytest.raises(ValueError, match=r"X has 9 features, but .* is expecting 10 features"):
        flat.predict(X[:, 1:, 1])
    assert flat.predict(X[:, 1:, 1:]).shape == (len(X),)


def test_other_lengths_are_drawn(fitted):
    for n_steps in (1, 5, 14):
        other, _ = curves(n_steps=n_steps)
        assert fitted.predict(other).shape == (len(other),)
        assert fitted.reconstruct(other).shape == other.shape


def test_reconstruct(fitted):
    best = fitted.reconstruct(X_NEW)
    assert best.shape == X_NEW.shape
    errors = fitted.reconstruction_errors(X_NEW)
    mse = (((best - X_NEW) / X.std()) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(mse, errors.min(axis=1), rtol=1e-2, atol=1e-6)
    line = fitted.reconstruct(X_NEW, "line")
    mse = (((line - X_NEW) / X.std()) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(mse, errors[:, 1], rtol=1e-2, atol=1e-6)


def test_nan_is_an_error_or_a_nan(fitted):
    for bad in (np.nan, np.inf):
        broken = X_NEW.copy()
        broken[2, 3, 1] = bad
        for use in (
            fitted.predict,
            fitted.predict_proba,
            fitted.decision_function,
            fitted.reconstruct,
        ):
            with pytest.raises(ValueError, match=r"NaN|infinity"):
                use(broken)
        errors = fitted.reconstruction_errors(broken)
        assert np.isnan(errors[2]).all()
        others = np.arange(len(X)) != 2
        np.testing.assert_array_equal(errors[others], fitted.reconstruction_errors(X_NEW)[others])
        assert fitted.invert(broken).predictions[2] is None
    with pytest.raises(ValueError, match="must not exceed float32"):
        fitted.predict(np.full((1, T, C), 1e300))


@needs_kernel
def test_temperature_takes_few_samples(monkeypatch):
    from micfast import inversion

    seen = []
    original = inversion.invert
    monkeypatch.setattr(
        inversion,
        "invert",
        # Without the empty set on which the parameters are checked.
        lambda bank, Z, **kw: seen.extend([len(Z)] * (len(Z) > 0)) or original(bank, Z, **kw),
    )
    many = np.concatenate([X] * 20)
    clf = small(n_episodes=50).fit(many, np.tile(y, 20))
    # Each class's types and 64 samples; the temperature's.
    assert seen == [66, 66, 66, 255]
    assert clf.temperature_ == small(n_episodes=50).fit(many, np.tile(y, 20)).temperature_
    many_classes = np.arange(300) % 270
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small(n_episodes=2).fit(np.random.default_rng(0).random((300, 3)), many_classes)
    assert seen[-1] == 256


# -- several modules per class -------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    return small(n_modules_per_class=2).fit(X, y)


@needs_kernel
def test_a_module_depends_on_its_banks_number_alone(pair, fitted):
    assert len(pair.banks_) == 2
    assert pair.banks_[0] == pair.bank_ == fitted.bank_
    assert pair.banks_[1] != pair.banks_[0]
    assert pair.banks_[1].classes == fitted.bank_.classes
    assert small(n_modules_per_class=3, n_jobs=2).fit(X, y).banks_[:2] == pair.banks_
    np.testing.assert_array_equal(pair.types_, fitted.types_)
    modules = [(r["label"], r["module"]) for r in pair.training_report_]
    assert modules == [(label, r) for label in fitted.classes_ for r in range(2)]
    assert len({r["seeds"][0] for r in pair.training_report_}) == 6
    for report in pair.training_report_:
        module = pair.banks_[report["module"]].select(report["label"]).to_modules()[0]
        types = (pair.types_[pair.bank_.index(report["label"])] - X.mean()) / X.std()
        mse = ((module(torch.eye(2), T).detach().numpy() - types) ** 2).mean()
        assert report["mse"] == pytest.approx(mse, rel=1e-3)


def test_errors_of_several_modules_are_their_mean(pair):
    each = np.stack([pair.invert(X_NEW, bank=r).errors for r in range(2)]).astype(float)
    assert not np.array_equal(each[0], each[1])
    np.testing.assert_allclose(pair.reconstruction_errors(X_NEW), each.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(pair.decision_function(X_NEW), -each.mean(axis=0))
    expected = pair.classes_[each.mean(axis=0).argmin(axis=1)]
    np.testing.assert_array_equal(pair.predict(X_NEW), expected)
    np.testing.assert_array_equal(pair.invert(X_NEW).errors, each[0])


def test_reconstruct_of_several_modules(pair):
    inversions = [pair.invert(X_NEW, bank=r) for r in range(2)]
    best = pair.decision_function(X_NEW).argmax(axis=1)
    for r, found in enumerate(inversions):
        expected = found.reconstructions(best) * X.std() + X.mean()
        np.testing.assert_allclose(pair.reconstruct(X_NEW, bank=r), expected, rtol=1e-5)
        expected = found.reconstructions(1) * X.std() + X.mean()
        np.testing.assert_allclose(pair.reconstruct(X_NEW, "line", bank=r), expected, rtol=1e-5)
    # The class that the decision chose, not the module with the lowest error.
    scaled = pickle.loads(pickle.dumps(pair)).set_params(error_scale="types")
    scaled.calibration_[2]["types"] = np.full(2, 1e9)
    assert set(scaled.predict(X_NEW)) == {"wave"}
    np.testing.assert_array_equal(scaled.reconstruct(X_NEW), pair.reconstruct(X_NEW, "wave"))
    for wrong in (2, -1, 1.0, True, None):
        for use in (pair.invert, pair.reconstruct):
            with pytest.raises(
                ValueError, match=f"bank must be an integer from 0 to 1, got {wrong}"
            ):
                use(X_NEW, bank=wrong)


@needs_kernel
@pytest.mark.parametrize("init", ["nearest", "dirichlet"])
def test_several_modules_added_later(init):
    Z = (X - X.mean()) / X.std()
    arguments = {
        "n_modules_per_class": 2,
        "init": init,
        "error_scale": "samples",
        "standardize": None,
        "n_episodes": 100,
    }
    at_once = small(**arguments).fit(Z, y)
    for last in at_once.classes_:
        first = y != last
        later = small(**arguments).fit(Z[first], y[first]).add_class(Z[~first], last)
        same_fit(at_once, later)
        np.testing.assert_array_equal(later.scales_, at_once.scales_)
        np.testing.assert_array_equal(later.thresholds_, at_once.thresholds_)
        if init == "nearest":
            np.testing.assert_array_equal(later.decision_function(Z), at_once.decision_function(Z))


@needs_kernel
def test_classes_of_several_modules_come_and_go(pair):
    fresh = pickle.loads(pickle.dumps(pair))
    fresh.remove_class("line")
    assert [bank.classes for bank in fresh.banks_] == [("arch", "wave")] * 2
    assert [r["label"] for r in fresh.training_report_] == ["arch", "arch", "wave", "wave"]
    assert len(fresh.calibration_) == len(fresh.thresholds_) == 2
    same_fit(fresh.add_class(X[y == "line"], "line"), pair)
    same_fit(fresh.refit_class(X[y == "line"], "line"), pair)
    fresh.refit_class(X[y == "line"] + 0.5, "line")
    changed = [bank.select("line") for bank in fresh.banks_]
    assert all(new != bank.select("line") for new, bank in zip(changed, pair.banks_, strict=True))
    for new, bank in zip(fresh.banks_, pair.banks_, strict=True):
        assert new.without("line") == bank.without("line")
    assert fresh.thresholds_[1] != pair.thresholds_[1]
    np.testing.assert_array_equal(fresh.thresholds_[[0, 2]], pair.thresholds_[[0, 2]])


# -- the search ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "search",
    [
        {"solver": "adam", "n_iter": None, "init": "uniform"},
        {"solver": "adam", "n_iter": 40, "init": "types", "tol": 0.05},
        {"solver": "lm", "n_iter": None, "init": "nearest", "n_starts": 3},
        {"solver": "lm", "n_iter": 1, "init": "types", "n_starts": 3},
    ],
)
def test_search_is_that_of_invert(search, fresh):
    standardized = ((X_NEW - X.mean()) / X.std()).astype(np.float32)
    expected = micfast.invert(fresh.bank_, standardized, **search)
    found = fresh.set_params(**search).invert(X_NEW)
    np.testing.assert_allclose(found.errors, expected.errors, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.n_iter_used, expected.n_iter_used)
    assert expected.converged.any() == ("tol" in search)


@pytest.mark.parametrize("init", ["paper", "dirichlet"])
def test_random_starts_are_repeatable(init, fresh):
    fresh.set_params(init=init, n_iter=0)
    errors = fresh.reconstruction_errors(X_NEW)
    np.testing.assert_array_equal(fresh.reconstruction_errors(X_NEW), errors)
    np.testing.assert_array_equal(fresh.transform(X_NEW)[:, :3], errors)
    other = fresh.invert(X_NEW, random_state=1).errors
    assert not np.array_equal(other, errors)


def test_wrong_search_is_told_before_the_training(monkeypatch):
    monkeypatch.setattr(ModularInverseClassifier, "_train_once", None)
    with pytest.raises(ValueError, match="n_starts must be 1 or None for init='uniform', got 2"):
        small(init="uniform", n_starts=2).fit(X, y)
    with pytest.raises(ValueError, match="n_starts must be 3 or None for init='types', got 2"):
        small(init="types", n_starts=2).fit(X, y)


# -- distances and scales ------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["dtw", "soft-dtw"])
def test_distance_is_between_target_and_drawings(distance, pair):
    clf = pickle.loads(pickle.dumps(pair)).set_params(distance=distance)
    Z = (X_NEW - X.mean()) / X.std()
    expected = np.zeros((len(X), 3))
    for label in pair.classes_:
        for r in range(2):
            drawn = (pair.reconstruct(X_NEW, label, bank=r) - X.mean()) / X.std()
            found = warped_distances(Z, drawn[:, None], distance)[:, 0]
            expected[:, pair.bank_.index(label)] += found / 2
    np.testing.assert_allclose(clf.decision_function(X_NEW), -expected, rtol=1e-3, atol=1e-5)
    assert (clf.predict(X_NEW) == Y_NEW).mean() > 0.9
    # The search, and so what is drawn, stays the same.
    np.testing.assert_array_equal(
        clf.reconstruction_errors(X_NEW), pair.reconstruction_errors(X_NEW)
    )


@needs_kernel
def test_distances_are_measured_in_portions(fresh, monkeypatch):
    fresh.set_params(distance="dtw")
    expected = fresh.decision_function(X_NEW)
    monkeypatch.setattr(micfast.estimator, "_DRAWN_NUMBERS", 3 * 4 * T * C)
    np.testing.assert_array_equal(fresh.decision_function(X_NEW), expected)


@needs_kernel
@pytest.mark.parametrize("settings", [{}, {"distance": "dtw"}, {"error_scale": "types"}])
def test_fit_measures_temperature_and_thresholds_as_the_decision_does(settings):
    # Shifted, so that warping matters.
    shifted = np.stack([np.roll(x, i % 3, axis=0) for i, x in enumerate(X)])
    clf = small(**settings).fit(shifted, y)
    errors = -clf.decision_function(shifted)
    codes = np.searchsorted(clf.classes_, y)
    for c, own in enumerate(clf.calibration_):
        np.testing.assert_allclose(own["samples"] / clf.scales_[c], np.sort(errors[codes == c, c]))
    expected = [np.quantile(errors[codes == c, c], 0.95) for c in range(3)]
    np.testing.assert_allclose(clf.thresholds_, expected)
    assert clf.temperature_ == pytest.approx(best_temperature(errors, codes))
    mse = np.take_along_axis(clf.reconstruction_errors(shifted), codes[:, None], axis=1)
    own_errors = np.take_along_axis(errors, codes[:, None], axis=1)
    assert np.allclose(own_errors, mse, rtol=1e-3) == (settings == {})


@needs_kernel
@pytest.mark.parametrize("scale", ["types", "samples"])
def test_error_scale_divides(scale, pair):
    clf = small(n_modules_per_class=2, error_scale=scale).fit(X, y)
    assert clf.banks_ == pair.banks_
    assert pair.scales_.tolist() == [1, 1, 1]
    Z = ((X - X.mean()) / X.std()).astype(np.float32)
    for c, label in enumerate(clf.classes_):
        types = ((clf.types_[c] - X.mean()) / X.std()).astype(np.float32)
        own = types if scale == "types" else Z[y == label]
        errors = [
            micfast.invert(bank.select(label), own, solver="lm", init="nearest").errors
            for bank in clf.banks_
        ]
        assert clf.scales_[c] == pytest.approx(np.mean(errors), rel=1e-2)
    np.testing.assert_allclose(
        clf.decision_function(X_NEW), pair.decision_function(X_NEW) / clf.scales_, rtol=1e-12
    )
    np.testing.assert_allclose(clf.thresholds_, pair.thresholds_ / clf.scales_, rtol=1e-12)
    assert clf.temperature_ != pair.temperature_
    probabilities = softmax(clf.decision_function(X_NEW) / clf.temperature_, axis=1)
    np.testing.assert_allclose(clf.predict_proba(X_NEW), probabilities)


# -- none of these -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd():
    """More samples per class, all of them used for the thresholds, and what was fitted to them."""
    X_many = np.concatenate([curves(seed=s)[0].reshape(3, PER_CLASS, T, C) for s in range(6)], 1)
    X_many = X_many.reshape(-1, T, C)
    y_many = np.repeat(["arch", "line", "wave"], 6 * PER_CLASS)
    return X_many, y_many, small().fit(X_many, y_many)


OUTLIERS = 100 + 7 * np.stack(
    [np.where(np.arange(T)[:, None] % 2, 3.0, -3.0) * np.ones(C), np.full((T, C), 9.0)]
)


@pytest.mark.parametrize("reject", [0.05, 0.25, 0.5])
def test_share_of_training_samples_rejected(reject, crowd):
    X_many, y_many, clf = crowd
    clf = pickle.loads(pickle.dumps(clf)).set_params(reject=reject)
    assert [len(own["samples"]) for own in clf.calibration_] == [42, 42, 42]
    answers = clf.predict(X_many)
    rejected = np.equal(answers, None)
    assert answers.dtype == object
    for label in clf.classes_:
        assert rejected[y_many == label].mean() == pytest.approx(reject, abs=1.5 / 42)
    assert (answers[~rejected] == y_many[~rejected]).all()
    np.testing.assert_array_equal(rejected, clf.novelty_score(X_many) > 1)
    assert clf.score(X_many, y_many) == pytest.approx((~rejected).mean())
    weights = np.where(rejected, 3.0, 1.0)
    expected = (~rejected).sum() / weights.sum()
    assert clf.score(X_many, y_many, sample_weight=weights) == pytest.approx(expected)
    told = np.where(rejected, None, y_many)
    assert clf.score(X_many, told) == 1.0


def test_outliers_are_rejected(crowd):
    X_many, _, fitted = crowd
    plain = fitted.predict(OUTLIERS)
    assert set(plain) <= set(fitted.classes_)
    clf = pickle.loads(pickle.dumps(fitted)).set_params(reject=0.05)
    assert clf.predict(OUTLIERS).tolist() == [None, None]
    scores = fitted.novelty_score(OUTLIERS)
    assert (scores > 10 * np.quantile(fitted.novelty_score(X_many), 0.9)).all()
    # Without `reject`, one sample in twenty lies above 1.
    np.testing.assert_array_equal(clf.novelty_score(OUTLIERS), scores)
    errors = -fitted.decision_function(OUTLIERS)
    expected = errors.min(axis=1) / fitted.thresholds_[errors.argmin(axis=1)]
    np.testing.assert_allclose(scores, expected)
    np.testing.assert_array_equal(clf.predict_proba(OUTLIERS), fitted.predict_proba(OUTLIERS))
    np.testing.assert_array_equal(clf.reconstruct(OUTLIERS), fitted.reconstruct(OUTLIERS))


@pytest.mark.parametrize(
    ("labels", "reject_label", "expected"),
    [
        (["a", "b", "c"], "none of these", "none of these"),
        (np.array(["a", "b", "c"], dtype=object), "none", "none"),
        (np.array([1, 2, 3], dtype=np.int8), -1, -1),
        ([1.0, 2.0, 3.0], -1, -1.0),
        ([1, 2, 3], None, None),
    ],
)
def test_reject_label(labels, reject_label, expected, tmp_path):
    labels = np.asarray(labels)
    known = np.repeat(labels, PER_CLASS)
    clf = small(reject=0.3, reject_label=reject_label).fit(X, known)
    answers = clf.predict(np.concatenate([X, OUTLIERS]))
    assert answers[-2:].tolist() == [expected] * 2
    assert answers.dtype.kind == ("O" if reject_label is None else labels.dtype.kind)
    assert 0 < (answers[:-2] == known).mean() < 1
    if reject_label is not None:
        assert clf.score(X, known) == np.mean(clf.predict(X) == known)
    loaded = saved(clf, tmp_path / "clf")
    np.testing.assert_array_equal(loaded.predict(OUTLIERS), clf.predict(OUTLIERS))
    assert loaded.get_params() == clf.get_params()


def test_wrong_reject_labels(monkeypatch, fresh):
    fresh.set_params(reject=0.1, reject_label="a new one")
    with pytest.raises(ValueError, match=r"reject_label must not be one .*got 'a new one'"):
        fresh.add_class(X[:4], "a new one")
    fresh.set_params(reject_label="line")
    with pytest.raises(ValueError, match=r"reject_label must not be one .*\['arch'.*got 'line'"):
        fresh.predict(X)
    monkeypatch.setattr(ModularInverseClassifier, "_train_once", None)
    for wrong, error in ((3, TypeError), ("arch", ValueError), ([1], TypeError)):
        with pytest.raises(error, match=r"reject_label must|a label must be"):
            small(reject=0.1, reject_label=wrong).fit(X, y)
    with pytest.raises(TypeError, match="reject_label must be of type bool"):
        small(reject=0.1, reject_label="none").fit(X, y == "arch")


def test_types_among_the_samples_count_less(fitted):
    # Medoids are samples; 7 a class leave too few others, so they count; 9 do not.
    few = small(type_selection="first").fit(X, y)
    assert [len(own["samples"]) for own in few.calibration_] == [7, 7, 7]
    many = np.concatenate([X.reshape(3, PER_CLASS, T, C), X_NEW.reshape(3, PER_CLASS, T, C)], 1)
    labels = np.repeat(fitted.classes_, 2 * PER_CLASS)
    clf = small(type_selection="first").fit(many.reshape(-1, T, C), labels)
    assert [len(own["samples"]) for own in clf.calibration_] == [12, 12, 12]
    assert all(len(own["types"]) == 2 for own in clf.calibration_)


# -- features ------------------------------------------------------------------------------------


def test_transform(pair):
    features = pair.transform(X_NEW)
    names = pair.get_feature_names_out().tolist()
    assert features.shape == (len(X_NEW), len(names)) == (len(X_NEW), 2 * 3 * (1 + 2))
    assert features.dtype == np.float64
    column = dict(zip(names, features.T, strict=True))
    assert names[:4] == [
        f"modularinverseclassifier_error{end}" for end in ("0_arch", "0_line", "0_wave", "1_arch")
    ]
    for r in range(2):
        found = pair.invert(X_NEW, bank=r)
        for c, label in enumerate(pair.classes_):
            error = column[f"modularinverseclassifier_error{r}_{label}"]
            np.testing.assert_array_equal(error, found.errors[:, c])
            for k in range(2):
                latent = column[f"modularinverseclassifier_latent{r}_{label}_{k}"]
                np.testing.assert_array_equal(latent, found.latents[:, c, k])
    mean = features[:, :6].reshape(-1, 2, 3).mean(axis=1)
    np.testing.assert_allclose(-mean, pair.decision_function(X_NEW))


@needs_kernel
def test_transform_inside_sklearn():
    pandas = pytest.importorskip("pandas")
    pipeline = make_pipeline(small(), StandardScaler(), LogisticRegression())
    assert pipeline.fit(X, y).score(X_NEW, Y_NEW) > 0.9
    frame = pandas.DataFrame(X[..., 0], columns=[f"t{i}" for i in range(T)], index=range(5, 26))
    clf = small().set_output(transform="pandas").fit(frame, y)
    features = clf.transform(frame)
    assert features.columns.tolist() == clf.get_feature_names_out().tolist()
    assert features.index.tolist() == frame.index.tolist()
    assert clf.get_feature_names_out(frame.columns).shape == (9,)
    with pytest.raises(ValueError, match="input_features is not equal to feature_names_in_"):
        clf.get_feature_names_out(frame.columns[::-1])


def test_transform_of_diverged_modules_is_finite(fresh):
    weights = [w.clone() for w in fresh.bank_.weights]
    weights[3][1] = torch.nan
    fresh.banks_ = [GeneratorBank(*weights, classes=fresh.bank_.classes)]
    assert np.isfinite(fresh.transform(X_NEW)).all()
    for distance in ("dtw", "soft-dtw"):
        assert np.isfinite(fresh.set_params(distance=distance).transform(X_NEW)).all()
        assert "line" not in fresh.predict(X_NEW)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_class_whose_module_diverged_never_wins(monkeypatch, tmp_path):
    real = ModularInverseClassifier._train_once

    def train_once(self, type_sets, seeds, attempt):
        bank, mse, curves = real(self, type_sets, seeds, attempt)
        weights = [w.clone() for w in bank.weights]
        weights[3][1], mse[1] = torch.nan, np.nan
        return GeneratorBank(*weights), mse, curves

    monkeypatch.setattr(ModularInverseClassifier, "_train_once", train_once)
    for scale in (None, "types", "samples"):
        clf = small(error_scale=scale, reject=0.2).fit(X, y)
        assert "line" not in clf.predict(X_NEW)
        assert np.isfinite(clf.novelty_score(X_NEW)).all()
        assert (clf.predict_proba(X_NEW)[:, 1] == 0).all()
        loaded = saved(clf, tmp_path / "clf")
        np.testing.assert_array_equal(loaded.predict(X_NEW), clf.predict(X_NEW))


# -- wrong arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong_X", "wrong_y", "message"),
    [
        (X, np.full(len(X), "a"), "y must hold at least two classes, got 1 class: .*a"),
        (X, None, "requires y to be passed, but the target y is None"),
        (X, y[:-1], "inconsistent numbers of samples"),
        (X, np.linspace(0, 1, len(X)), "Unknown label type: continuous"),
        (X, np.stack([y, y], axis=1), "y should be a 1d array"),
        (np.where(X[0, 0, 0] == X, np.nan, X), y, "Input X contains NaN"),
        (np.where(X[0, 0, 0] == X, np.inf, X), y, "Input X contains infinity"),
        (X[:0], y[:0], "0 sample"),
        (X[:, :0], y, "must not be empty"),
        (X[:, 0, 0], y, "Expected 2D array, got 1D array"),
        (X[..., None], y, r"X must have shape \[n_samples, n_timesteps\] or .* got 4 dimensions"),
        ([[[1.0], [1.0, 2.0]], [[1.0]]], [0, 1], "sequences of shape .* got a list ragged within"),
        (np.array([np.zeros((0, 1)), np.zeros(3)], dtype=object), [0, 1], r"no 0, got \[0, 1\]"),
        (np.full((4, 3, 2), "x"), [0, 1, 0, 1], "could not convert string to float"),
        (np.full((4, 3, 2), 1j), [0, 1, 0, 1], "Complex data not supported"),
    ],
)
def test_wrong_training_data(wrong_X, wrong_y, message):
    with pytest.raises(ValueError, match=message):
        small().fit(wrong_X, wrong_y)


def test_sparse_and_objects_are_refused():
    with pytest.raises(TypeError, match=r"[Ss]parse data was passed"):
        small().fit(sparse.csr_matrix(np.eye(len(X))), y)
    objects = X.astype(object)
    objects[0, 0, 0] = {"a": 1}
    with pytest.raises(TypeError, match="argument must be a string or a real number"):
        small().fit(objects, y)


def test_wrong_data_to_predict(fitted):
    with pytest.raises(ValueError, match="n_channels = 2 as in fit, got 3"):
        fitted.predict(np.zeros((2, T, 3)))
    with pytest.raises(ValueError, match=r"\[n_samples, n_timesteps, 2\] as in fit, got 2 dim"):
        fitted.predict(np.zeros((2, T)))
    with pytest.raises(ValueError, match="0 sample"):
        fitted.predict(X[:0])


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"n_types": 0}, "n_types must be an integer of at least 1, got 0"),
        ({"n_types": 2.0}, "n_types must be an integer of at least 1, got 2.0"),
        ({"hidden_size": True}, "hidden_size must be an integer"),
        ({"n_episodes": 0}, "n_episodes must be an integer of at least 1"),
        ({"n_iter": -1}, "n_iter must be an integer of at least 0, got -1"),
        ({"max_retries": None}, "max_retries must be an integer"),
        ({"n_modules_per_class": 0}, "n_modules_per_class must be an integer of at least 1, got 0"),
        ({"n_starts": 0}, "n_starts must be an integer of at least 1, got 0"),
        ({"n_starts": 1000}, "n_starts must be at most .* got 1000"),
        ({"solver": "sgd"}, "solver must be 'adam' or 'lm', got 'sgd'"),
        ({"solver": None}, "solver must be 'adam' or 'lm', got None"),
        ({"init": "best"}, "init must be 'uniform', .* or 'nearest', got 'best'"),
        ({"init": np.ones(2)}, "init must be 'uniform', .* or 'nearest', got array"),
        ({"tol": -1}, "tol must be finite and at least 0, got -1"),
        ({"distance": "l1"}, "distance must be 'mse', 'dtw' or 'soft-dtw', got 'l1'"),
        ({"error_scale": True}, "error_scale must be None, 'types' or 'samples', got True"),
        ({"reject": 0}, "reject must be None or a number above 0 and below 1, got 0"),
        ({"reject": 1.0}, "reject must be None or a number above 0 and below 1, got 1.0"),
        ({"reject": True}, "reject must be None or a number above 0 and below 1, got True"),
        ({"reject": np.nan}, "reject must be None or a number above 0 and below 1, got nan"),
        ({"noise_in": -0.1}, "noise_in must be finite and at least 0, got -0.1"),
        ({"noise_out": np.nan}, "noise_out must be finite and at least 0, got nan"),
        ({"learning_rate": 0}, "learning_rate must be finite and above 0, got 0"),
        ({"inversion_learning_rate": np.inf}, "inversion_learning_rate must be finite"),
        ({"learned_tol": "a"}, "learned_tol must be finite and above 0, got 'a'"),
        ({"standardize": "both"}, "standardize must be 'global', 'channel' or None, got 'both'"),
        ({"type_selection": "best"}, "selection must be one of .* got 'best'"),
        ({"type_representative": "mode"}, "representative must be one of .* got 'mode'"),
        ({"backend": "tpu"}, "backend must be one of .* got 'tpu'"),
        ({"n_jobs": 0}, "n_jobs must be"),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
    ],
)
def test_wrong_parameters(parameter, message):
    with pytest.raises(ValueError, match=message):
        small(**parameter).fit(X, y)


# -- progress ------------------------------------------------------------------------------------


@needs_kernel
def test_verbose(capsys):
    small().fit(X, y).predict(X)
    assert capsys.readouterr() == ("", "")
    with pytest.warns(ConvergenceWarning):
        small(verbose=1, learned_tol=1e-9, max_retries=1).fit(X, y)
    shown = capsys.readouterr().err
    bars = ("types", "training", "training again (1)", "calibration", "inversion")
    for bar in bars:
        assert f"{bar}: 100%" in shown


# -- pickle and file -----------------------------------------------------------------------------


def saved(clf, path):
    clf.save(path)
    return ModularInverseClassifier.load(path)


def test_skops(fitted):
    skops_io = pytest.importorskip("skops.io")
    data = skops_io.dumps(fitted)
    untrusted = skops_io.get_untrusted_types(data=data)
    assert untrusted
    assert all(name.startswith("micfast.") for name in untrusted)
    again = skops_io.loads(data, trusted=untrusted)
    np.testing.assert_array_equal(again.predict_proba(X_NEW), fitted.predict_proba(X_NEW))
    same_fit(again, fitted)


def test_pickle(fresh, fitted):
    same_fit(fresh, fitted)
    np.testing.assert_array_equal(fresh.predict_proba(X_NEW), fitted.predict_proba(X_NEW))


@needs_kernel
@pytest.mark.parametrize("standardize", ["global", "channel", None])
def test_save_and_load(standardize, tmp_path):
    Z, Z_new = (X - 100) / 7, (X_NEW - 100) / 7
    clf = small(standardize=standardize, n_jobs=2).fit(Z, y)
    loaded = saved(clf, tmp_path / "clf.safetensors")
    same_fit(loaded, clf)
    assert os.listdir(tmp_path) == ["clf.safetensors"]
    assert loaded.get_params() == clf.get_params()
    assert loaded.temperature_ == clf.temperature_
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert (loaded.n_timesteps_in_, loaded.n_channels_in_, loaded.n_features_in_) == (T, C, T * C)
    assert [r["seconds"] for r in loaded.training_report_] == [
        r["seconds"] for r in clf.training_report_
    ]
    np.testing.assert_array_equal(loaded.predict_proba(Z_new), clf.predict_proba(Z_new))
    np.testing.assert_array_equal(loaded.reconstruct(Z_new), clf.reconstruct(Z_new))
    assert GeneratorBank.load(tmp_path / "clf.safetensors") == clf.bank_
    same_fit(loaded.add_class(Z[:5], "new"), clf.add_class(Z[:5], "new"))


@needs_kernel
def test_file_of_several_modules_and_thresholds(tmp_path):
    settings = {"n_modules_per_class": 3, "error_scale": "types", "reject": 0.2}
    clf = small(**settings, distance="dtw", init="types", tol=0.01).fit(X, y)
    loaded = saved(clf, tmp_path / "clf")
    same_fit(loaded, clf)
    assert loaded.get_params() == clf.get_params()
    np.testing.assert_array_equal(loaded.thresholds_, clf.thresholds_)
    np.testing.assert_array_equal(loaded.scales_, clf.scales_)
    np.testing.assert_array_equal(loaded.predict(X_NEW), clf.predict(X_NEW))
    np.testing.assert_array_equal(loaded.transform(X_NEW), clf.transform(X_NEW))
    assert GeneratorBank.load(tmp_path / "clf") == clf.bank_
    same_fit(loaded.add_class(X[:5], "new"), clf.add_class(X[:5], "new"))


VERSION_1_FILE = Path(__file__).parent / "data" / "estimator-version-1.safetensors"


def test_file_of_version_1(tmp_path):
    """Written by the version before solvers, from this file's curves and settings."""
    clf = ModularInverseClassifier.load(VERSION_1_FILE)
    assert (clf.solver, clf.init, clf.n_iter) == ("adam", "uniform", 8)
    assert (clf.n_modules_per_class, clf.distance, clf.error_scale) == (1, "mse", None)
    # What that version found on X_NEW[::7].
    errors = [
        [9.244903e-03, 3.796022e-01, 3.752064e00],
        [3.325129e-01, 1.879026e-03, 3.743226e00],
        [2.990457e00, 3.485410e00, 1.398753e-02],
    ]
    np.testing.assert_allclose(clf.reconstruction_errors(X_NEW[::7]), errors, rtol=1e-3)
    assert clf.predict(X_NEW).tolist() == Y_NEW.tolist()
    assert clf.temperature_ == pytest.approx(0.0032999045)
    assert [r["module"] for r in clf.training_report_] == [0, 0, 0]
    assert not hasattr(clf, "thresholds_")
    for use in (
        lambda: clf.novelty_score(X),
        lambda: clf.set_params(reject=0.1).predict(X),
        lambda: clf.set_params(reject=None, error_scale="types").predict(X),
    ):
        with pytest.raises(ValueError, match=r"\['arch', 'line', 'wave'\].* file of version 1"):
            use()
    clf.set_params(error_scale=None)
    again = saved(clf, tmp_path / "clf")
    same = again.reconstruction_errors(X_NEW)
    np.testing.assert_array_equal(same, clf.reconstruction_errors(X_NEW))
    again.refit_class(X[y == "line"], "line")
    with pytest.raises(ValueError, match=r"\['arch', 'wave'\]"):
        again.novelty_score(X)
    again.refit_class(X[y == "arch"], "arch").refit_class(X[y == "wave"], "wave")
    assert again.novelty_score(X_NEW).shape == (len(X_NEW),)
    again.save(tmp_path / "again")
    assert ModularInverseClassifier.load(tmp_path / "again").thresholds_.shape == (3,)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1, 2], dtype=np.int8),
        np.array([3.0, 1.0, 2.0], dtype=np.float32),
        np.array(["ä", "b", "a longer one"]),
        np.array(["ä", "b", "a longer one"], dtype=object),
        np.array([True, False, True]),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_file_keeps_the_labels(labels, tmp_path):
    clf = small(n_episodes=10).fit(X, np.repeat(labels, PER_CLASS))
    loaded = saved(clf, tmp_path / "clf")
    assert loaded.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(loaded.predict(X), clf.predict(X))


def test_file_of_random_state_and_numpy_parameters(tmp_path):
    clf = small(random_state=np.random.RandomState(0), n_types=np.int64(2)).fit(X, y)
    loaded = saved(clf, tmp_path / "clf")
    assert loaded.random_state is None
    assert type(loaded.n_types) is int
    same_fit(loaded.add_class(X[:5], "new"), clf.add_class(X[:5], "new"))


def test_file_keeps_feature_names(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[..., 0], columns=[f"t{i}" for i in range(T)])
    clf = small(n_episodes=10).fit(frame, y)
    loaded = saved(clf, tmp_path / "clf")
    np.testing.assert_array_equal(loaded.feature_names_in_, clf.feature_names_in_)
    np.testing.assert_array_equal(loaded.predict(frame), clf.predict(frame))


def rewrite(path, change):
    """Write the file with its estimator part changed."""
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    document = json.loads(header["__metadata__"]["extra.json"])
    change(header, document)
    header["__metadata__"]["extra.json"] = json.dumps(document)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + n :])


def set_in(*keys, value):
    def change(_, document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


def remove(key):
    return lambda _, document: document.pop(key)


def rename_tensor(header, _):
    header["extra.other"] = header.pop("extra.types")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_in("kind", value="other"), "holds a bank but no estimator"),
        (set_in("version", value=3), r"newer micfast \(estimator version 3"),
        (set_in("version", value="1"), "version must be at least 1, got '1'"),
        (remove("params"), "inconsistent .KeyError: 'params'"),
        (set_in("params", value=[1]), "inconsistent .TypeError"),
        (set_in("params", "unheard_of", value=1), "inconsistent .*unheard_of"),
        (set_in("params", "n_iter", value=-1), "inconsistent .*n_iter must be"),
        (set_in("n_timesteps_in", value=9), "inconsistent .*must have shapes"),
        (set_in("n_timesteps_in", value=10.0), "inconsistent .*must have shapes"),
        (set_in("class_dtype", value="int64"), "inconsistent"),
        (set_in("class_dtype", value="U1000000000"), "class_dtype must be a NumPy type"),
        (set_in("class_dtype", value=[]), "inconsistent .TypeError"),
        (set_in("temperature", value=0), "temperature must be finite and above 0"),
        (set_in("temperature", value=None), "inconsistent .TypeError"),
        (set_in("entropy", value=[1, 2]), "entropy must be 4 numbers"),
        (set_in("entropy", value=[-1, 2, 3, 2**40]), "inconsistent .OverflowError"),
        (set_in("type_info", value=[]), "type_info must have 3 entries"),
        (set_in("type_info", 0, value=3), "inconsistent .TypeError"),
        (set_in("training_report", value=[]), "inconsistent .ValueError"),
        (set_in("training_report", 1, "seeds", value=None), "inconsistent .TypeError"),
        (set_in("standardizer_axis", value="other"), "inconsistent .*axis must be"),
        (remove("standardizer_axis"), "inconsistent .*must have shapes"),
        (set_in("feature_names_in", value=["a"]), "feature_names_in must be one str per feature"),
        (rename_tensor, "inconsistent .*must have shapes"),
        (remove("calibration"), "inconsistent .KeyError: 'calibration'"),
        (set_in("calibration", value=[]), "calibration must have 3 entries"),
        (set_in("calibration", 0, value={"types": [0, 0]}), "inconsistent .KeyError: 'samples'"),
        (set_in("calibration", 0, "types", value=[0.1]), "calibration must hold 2 finite errors"),
        (set_in("calibration", 0, "samples", value=[]), "errors of at least 0 on samples"),
        (set_in("calibration", 0, "samples", value=[-1]), "errors of at least 0 on samples"),
        (set_in("calibration", 0, "samples", value=[1e999]), "isn't valid JSON|finite errors"),
        (set_in("params", "n_modules_per_class", value=2), "inconsistent .KeyError: 'bank1.W_ih'"),
        (set_in("params", "reject_label", value="arch"), "reject_label must not be one of"),
        (set_in("params", "solver", value="sgd"), "solver must be"),
    ],
)
def test_damaged_estimator_files(fitted, tmp_path, change, message):
    path = tmp_path / "clf"
    fitted.save(path)
    rewrite(path, change)
    with pytest.raises(BankFileError, match=message) as caught:
        ModularInverseClassifier.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_other_files(fitted, tmp_path):
    fitted.bank_.save(tmp_path / "bank")
    with pytest.raises(BankFileError, match=r"no estimator: read it with GeneratorBank\.load"):
        ModularInverseClassifier.load(tmp_path / "bank")
    (tmp_path / "text").write_text("text")
    with pytest.raises(BankFileError, match="not a safetensors file"):
        ModularInverseClassifier.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        ModularInverseClassifier.load(tmp_path / "absent")
    fitted.types_[0, 0, 0, 0], kept = np.nan, fitted.types_[0, 0, 0, 0]
    fitted.save(tmp_path / "nan")
    fitted.types_[0, 0, 0, 0] = kept
    with pytest.raises(BankFileError, match=r"types contains NaN.*types\[0\] holds some before"):
        ModularInverseClassifier.load(tmp_path / "nan")


# -- real data -----------------------------------------------------------------------------------


@needs_kernel
@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("MICFAST_DATA"), reason="MICFAST_DATA names no data folder")
def test_characters():
    from micfast.data import load_characters

    data = load_characters()
    clf = ModularInverseClassifier(n_episodes=5000, random_state=0, n_jobs=-1)
    clf.fit(data.X_train, data.y_train)
    assert clf.score(data.X_test[:200], data.y_test[:200]) > 0.85
    types, _ = select_types(data.X_train[data.y_train == data.y_train[0]], random_state=0)
    assert types.shape == clf.types_.shape[1:]


def test_a_backend_that_is_not_there_is_named_after_fit_too():
    X, y = np.random.default_rng(0).normal(size=(8, 5, 1)), np.arange(8) % 2
    model = ModularInverseClassifier(n_episodes=20, max_retries=0, learned_tol=2.0).fit(X, y)
    with pytest.raises(RuntimeError, match="backend 'cuda' is not available"):
        model.set_params(backend="cuda").predict(X)


# -- augmentation --------------------------------------------------------------------------------


def test_augmentation_shows_variants_in_training(fitted, tmp_path):
    settings = {"n_variants": 4, "warp": 0.03, "affine": 0.1}
    clf = small(augmentation=settings).fit(X, y)
    np.testing.assert_array_equal(clf.types_, fitted.types_)
    assert clf.bank_ != fitted.bank_
    assert clf.score(X, y) > 0.8
    clf.save(tmp_path / "clf.safetensors")
    loaded = ModularInverseClassifier.load(tmp_path / "clf.safetensors")
    assert loaded.augmentation == settings
    np.testing.assert_array_equal(loaded.predict(X), clf.predict(X))


@needs_kernel
def test_one_variant_is_no_augmentation(fitted):
    assert small(augmentation={"n_variants": 1}).fit(X, y).bank_ == fitted.bank_


@needs_kernel
def test_augmentation_depends_on_the_class_alone():
    settings = {"standardize": None, "augmentation": {"n_variants": 3}}
    both = small(**settings).fit(X, y)
    two = y != "wave"
    grown = small(**settings).fit(X[two], y[two]).add_class(X[~two], "wave")
    assert grown.bank_ == both.bank_


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (5, ValueError, "augmentation must be None or a dict of n_variants, warp and affine"),
        ({"random_state": 0}, ValueError, "augmentation must be None or a dict"),
        ({"warp": -1}, ValueError, "warp must be from 0 to below 1"),
        ({"stretch": 1}, TypeError, "stretch"),
    ],
)
def test_wrong_augmentation(wrong, error, message):
    with pytest.raises(error, match=message):
        small(augmentation=wrong).fit(X, y)
