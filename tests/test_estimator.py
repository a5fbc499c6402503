"""The classifier fitted: scikit-learn's checks, seeds that do not depend on company, classes."""

import contextlib
import os
import pickle
import time
import warnings

import numpy as np
import pytest
import sklearn
import torch
from estimators import PER_CLASS, X_NEW, Y_NEW, C, T, X, curves, needs_kernel, same_fit, small, y
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError, UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, LeaveOneOut, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import micfast
from micfast import (
    Adam,
    GeneratorBank,
    LevenbergMarquardt,
    ModularInverseClassifier,
    Trained,
    Training,
)
from micfast.runtime import n_threads
from micfast.training import fleet
from micfast.training.types import select_types


@pytest.fixture(scope="module")
def fitted():
    return small().fit(X, y)


@pytest.fixture
def fresh(fitted):
    return pickle.loads(pickle.dumps(fitted))


@pytest.fixture(scope="module")
def pair():
    return small(n_modules_per_class=2).fit(X, y)


# -- scikit-learn's conventions ------------------------------------------------------------------

# Checks that fail, each with its reason: none.
EXPECTED_FAILED_CHECKS: dict[str, str] = {}


def expected_failures(_):
    return EXPECTED_FAILED_CHECKS


@needs_kernel
@pytest.mark.slow
@parametrize_with_checks(
    [
        ModularInverseClassifier(training=Training.paper(n_episodes=300)),
        ModularInverseClassifier(
            n_types=1,
            training=Training.paper(n_episodes=300),
            n_modules_per_class=2,
            solver=Adam(n_iter=10, start="types"),
            standardize=None,
            n_jobs=2,
        ),
    ],
    expected_failed_checks=expected_failures,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:.*fewer than n_types:UserWarning")
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@needs_kernel
def test_works_inside_sklearn():
    flat, scaled = X.reshape(len(X), -1), FunctionTransformer(lambda A: A / 7)
    pipeline = make_pipeline(scaled, small())
    assert pipeline.fit(flat, y).score(flat, y) > 0.9
    search = GridSearchCV(
        small(), {"solver__n_iter": [0, 8], "training__noise_in": [0.0, 0.1]}, cv=2, refit=True
    )
    search.fit(X, y)
    assert search.best_estimator_.score(X_NEW, Y_NEW) > 0.9
    assert cross_val_score(small(), X, y, cv=3).mean() > 0.9
    assert clone(small(n_types=3)).n_types == 3
    assert small().set_params(n_types=1).fit(X, y).types_.shape[1] == 1


@pytest.mark.slow
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
    medoids = small(type_selection__representative="medoid").fit(X, y)
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
    clf = small(
        n_types=1,
        training__method__n_episodes=1500,
        training__learned_tol=0.1,
        training__max_retries=3,
    ).fit(flat, flat[:, 0])
    assert [report["learned"] for report in clf.training_report_] == [True, True]
    assert all(report["mse"] <= 1e-4 for report in clf.training_report_)
    assert clf.score(flat, flat[:, 0]) == 1.0
    same = small().fit(np.ones((8, 5)), [0, 1] * 4)
    assert np.isfinite(same.predict_proba(np.ones((3, 5)))).all()


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
    arguments = {"standardize": None, "training__max_retries": 1, "training__learned_tol": 1e-9}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        at_once = small(**arguments).fit(Z, y)
        for last in at_once.classes_:
            first = y != last
            later = small(**arguments).fit(Z[first], y[first]).add_class(Z[~first], last)
            same_fit(at_once, later)


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
    with pytest.raises(ValueError, match="remove_class: at least two classes must remain"):
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
    clf = (
        small(training__method__n_episodes=10)
        .fit(X, np.repeat(labels, PER_CLASS))
        .add_class(X[:4], new)
    )
    assert clf.classes_.tolist() == expected
    assert clf.classes_.dtype.kind == labels.dtype.kind
    assert [type(label) for label in clf.bank_.classes] == [type(label) for label in expected]
    assert clf.predict(X[:2]).dtype == clf.classes_.dtype


def test_labels_of_other_types():
    numbers = small(training__method__n_episodes=10).fit(X, np.repeat([1, 2, 3], PER_CLASS))
    for wrong in ("4", True, 4.5):
        with pytest.raises(TypeError, match="label must be of type int"):
            numbers.add_class(X[:4], wrong)
    with pytest.raises(TypeError, match="a label must be"):
        numbers.add_class(X[:4], None)
    truth = small(training__method__n_episodes=10).fit(X, y == "arch")
    assert truth.classes_.dtype == bool
    assert truth.bank_.classes == (False, True)
    with pytest.raises(TypeError, match="label must be of type bool"):
        truth.add_class(X[:4], 1)
    big = small(training__method__n_episodes=10).fit(
        X, np.repeat(np.array([1, 2, 3], dtype=np.uint64), PER_CLASS)
    )
    for wrong in (2**70, -1):
        with pytest.raises(ValueError, match="does not fit the other labels' dtype uint64"):
            big.add_class(X[:4], wrong)


def fake_training(monkeypatch, errors):
    """Let each training run give the errors written here; note how many modules it was given."""
    calls = []

    def train(bank, types, training, *, seeds, execution):
        mse = np.array(errors[len(calls)], dtype=np.float64)
        assert len(types) == len(seeds) == len(mse) == len(bank)
        calls.append(len(seeds))
        curves = np.full((len(seeds), 5), len(calls) - 1)
        return Trained(bank, [*curves], mse, [{"made up": 1} for _ in seeds])

    monkeypatch.setattr(fleet, "train", train)
    return calls


def test_only_what_did_not_learn_is_trained_again(monkeypatch):
    nan = np.nan
    calls = fake_training(monkeypatch, [[0.001, 9, nan], [7, nan], [8, 0.001], [6]])
    with pytest.warns(ConvergenceWarning, match=r"in 4 attempts: 'line' \(relative error") as seen:
        clf = small(training__learned_tol=0.1, training__max_retries=3).fit(X, y)
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
        clf = small(training__learned_tol=0.01, training__max_retries=2).fit(X, y)
    assert [report["mse"] for report in clf.training_report_] == pytest.approx(
        [4, np.nan, 3], nan_ok=True
    )
    assert [report["loss_curve"][0] for report in clf.training_report_] == [1, 0, 1]


def test_convergence_warning_of_real_training():
    with pytest.warns(
        ConvergenceWarning, match=r"learned_tol=1e-06 in 2 attempts: 'arch' .*more steps"
    ):
        clf = small(
            training__method__n_episodes=5, training__learned_tol=1e-6, training__max_retries=1
        ).fit(X, y)
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


def test_few_samples_warn():
    with pytest.warns(UserWarning, match=r"class wave has 1 sample\(s\), fewer than n_types=2"):
        clf = small().fit(X[:15], y[:15])
    assert clf.types_.shape == (3, 2, T, C)
    assert [report["n_types_found"] for report in clf.training_report_] == [2, 2, 1]
    np.testing.assert_array_equal(clf.types_[2, 0], clf.types_[2, 1])


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


@pytest.mark.parametrize(
    ("wrong_X", "wrong_y", "message"),
    [
        (X, np.full(len(X), "a"), "y must hold at least two classes, got 1 class: .*a"),
        (X, None, "requires y to be passed, but the target y is None"),
        (X, y[:-1], "inconsistent numbers of samples"),
        (X, np.linspace(0, 1, len(X)), "Unknown label type: continuous"),
        (X, np.stack([y, y], axis=1), "y should be a 1d array"),
        (X, [None, *y[1:]], r"must not contain missing labels, but y\[0\] is None"),
        (X, [*y[:-1].astype(object), np.nan], r"y\[20\] is nan"),
        (np.where(X[0, 0, 0] == X, np.nan, X), y, "Input X contains NaN"),
        (np.where(X[0, 0, 0] == X, np.inf, X), y, "Input X contains infinity"),
        (X[:0], y[:0], "0 sample"),
        (X[:, :0], y, "must have at least one time step"),
        (X[:, 0, 0], y, r"Reshape your data: a single sequence is X\[None\]"),
        (X[..., None], y, r"X must have shape .* got \[21, 10, 2, 1\]"),
        ([[[1.0], [1.0, 2.0]], [[1.0]]], [0, 1], r"X\[0\] must be an array of numbers"),
        (
            np.array([np.zeros((0, 1)), np.zeros(3)], dtype=object),
            [0, 1],
            r"of them 0, got \[0, 1\]",
        ),
        (np.full((4, 3, 2), 1j), [0, 1, 0, 1], "Complex data not supported"),
    ],
)
def test_wrong_training_data(wrong_X, wrong_y, message):
    with pytest.raises(ValueError, match=message):
        small().fit(wrong_X, wrong_y)


@pytest.mark.parametrize("kind", ["U", "S", "M8[s]", "m8[s]"])
@pytest.mark.parametrize("unequal", [True, False])
def test_dates_and_text_are_no_numbers(kind, unequal):
    """Not even where each converts to one."""
    values = (np.arange(24) + 2000).astype(str).reshape(4, 6)
    values = values.astype(int).astype(kind) if "8" in kind else values.astype(kind)
    data = [row[: 5 + i % 2] for i, row in enumerate(values)] if unequal else values
    for given in (data, values[..., None].astype(object)):
        with pytest.raises(TypeError, match="must hold real numbers"):
            small().fit(given, [0, 1, 0, 1])


def test_sparse_and_objects_are_refused():
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        small().fit(sparse.csr_matrix(np.eye(len(X))), y)
    objects = X.astype(object)
    objects[0, 0, 0] = {"a": 1}
    with pytest.raises(TypeError, match="must hold real numbers"):
        small().fit(objects, y)


def test_wrong_data_to_predict(fitted):
    with pytest.raises(ValueError, match="n_channels = 2 as in fit, got 3"):
        fitted.predict(np.zeros((2, T, 3)))
    with pytest.raises(
        ValueError, match=r"\[n_samples, n_timesteps, 2\] as in fit, got 2 dim.*X\[None\]"
    ):
        fitted.predict(np.zeros((2, T)))
    with pytest.raises(ValueError, match="0 sample"):
        fitted.predict(X[:0])


@needs_kernel
def test_verbose(capsys):
    small().fit(X, y).predict(X)
    assert capsys.readouterr() == ("", "")
    with pytest.warns(ConvergenceWarning):
        small(verbose=1, training__learned_tol=1e-9, training__max_retries=1).fit(X, y)
    shown = capsys.readouterr().err
    bars = ("types", "training", "calibration", "inversion")
    for bar in bars:
        assert f"{bar}: 100%" in shown


def test_a_backend_that_is_not_there_is_named_after_fit_too(fresh):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(RuntimeError, match="backend 'cuda' is not available"):
        fresh.set_params(backend="cuda").predict(X)


# -- one fleet, one search -----------------------------------------------------------------------


@needs_kernel
def test_training_is_one_run_of_train():
    """The weights are those that train gives for the seeds in the report."""
    clf = small(training__noise_out=0.05, standardize=None).fit(X / 100, y)
    seeds = [report["seeds"][0] for report in clf.training_report_]
    start = GeneratorBank.random(3, hidden_size=6, input_size=2, output_size=C, seeds=seeds)
    trained = micfast.train(start, clf.types_, clf.training, seeds=seeds)
    assert trained.bank.with_classes(clf.classes_) == clf.bank_
    np.testing.assert_array_equal(trained.errors, [r["mse"] for r in clf.training_report_])


# -- lists ---------------------------------------------------------------------------------------

METHODS = (
    "predict", "predict_proba", "decision_function", "novelty_score", "transform",
    "reconstruction_errors",
)  # fmt: skip


@pytest.fixture(scope="module")
def gestures():
    """Sequences of one channel and unequal lengths, as 1-D items, and a model of them."""
    rng = np.random.default_rng(0)
    items, labels = [], []
    for i in range(14):
        t = np.linspace(0, 1, int(rng.integers(8, 15)))
        items.append(
            (np.sin(3 * t) if i % 2 else np.cos(5 * t)) + 0.05 * rng.standard_normal(len(t))
        )
        labels.append("arch" if i % 2 else "wave")
    return items, labels, small().fit(items, labels)


@pytest.mark.parametrize("method", METHODS)
def test_an_item_of_a_list_is_answered_without_its_neighbours(method, gestures):
    items, _, clf = gestures
    answer = getattr(clf, method)
    whole = answer(items)
    for some in ([3], [0, 5], range(13, -1, -1)):
        np.testing.assert_array_equal(answer([items[i] for i in some]), whole[list(some)])
    equal = [item[:8] for item in items]
    np.testing.assert_array_equal(answer(equal[4:5]), answer(equal)[4:5])
    np.testing.assert_array_equal(answer(tuple(equal)), answer(np.stack(equal)[..., None]))


def test_reconstructions_of_a_list_have_one_shape(gestures):
    items, _, clf = gestures
    whole = clf.reconstruct(items)
    assert whole.shape == (14, max(map(len, items)), 1)
    for i, item in enumerate(items):
        alone = clf.reconstruct([item])
        assert alone.shape == (1, len(item), 1)
        np.testing.assert_array_equal(alone[0], whole[i, : len(item)])
        assert np.isnan(whole[i, len(item) :]).all()
    assert clf.reconstruct([item[:8] for item in items]).shape == (14, 8, 1)
    assert clf.reconstruct([item[:8].tolist() for item in items], "wave").shape == (14, 8, 1)


def test_a_list_of_one_length_has_no_length_of_its_own(gestures):
    items, labels, _ = gestures
    clf = small(training__method__n_episodes=20).fit([item[:8] for item in items], labels)
    assert clf.predict([items[0], items[1][:5]]).shape == (2,)
    assert clf.predict([items[0][:5]]).shape == (1,)
    with pytest.raises(ValueError, match="is expecting 8 features"):
        small(training__method__n_episodes=20).fit(
            np.stack([i[:8] for i in items]), labels
        ).predict(items[0][None, :5])


def test_a_class_of_a_list_comes_and_goes_and_may_be_longer(gestures):
    items, _, clf = gestures
    clf = pickle.loads(pickle.dumps(clf))
    before = clf.reconstruction_errors(items)
    long = [np.linspace(-1, 1, n) for n in (20, 17, 19, 20)]
    clf.add_class(long, "long")
    assert clf.types_.shape == (3, 2, 20, 1)
    assert np.isnan(clf.types_[0, :, 14:]).all()
    np.testing.assert_array_equal(clf.reconstruction_errors(items)[:, [0, 2]], before)
    assert set(clf.predict(long)) == {"long"}
    clf.refit_class([item[:6] for item in long], "long").refit_class(long[:1] * 2, "long")
    clf.remove_class("long")
    np.testing.assert_array_equal(clf.reconstruction_errors(items), before)


def test_leave_one_out_of_a_list(gestures):
    items, labels, _ = gestures
    scores = cross_val_score(
        small(training__method__n_episodes=20),
        items[:6],
        labels[:6],
        cv=LeaveOneOut(),
        error_score="raise",
    )
    assert len(scores) == 6


@pytest.mark.parametrize("one", [X[0], X[0, :, :1], X[0, :, 0], list(X[0, :, 0])])
def test_one_sequence_without_its_axis_is_told_the_way(one, fitted):
    narrow = small(training__method__n_episodes=20).fit(X[..., :1], y)
    for clf in (fitted, narrow):
        with pytest.raises(ValueError, match=r"a single sequence is X\[None\]"):
            clf.predict(one)


# -- the caller's state --------------------------------------------------------------------------


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


STATES = {
    "default dtype": default_dtype,
    "default device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "seterr": lambda: np.errstate(all="raise"),
}


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("state", STATES)
def test_the_callers_state_changes_nothing(state, backend):
    """Fit, predict, draw, invert, add a class: the same bits as without it."""
    few = np.r_[0:3, 7:10]

    def work():
        solver = LevenbergMarquardt(2) if backend == "auto" else Adam(1, start="nearest")
        clf = small(
            training__method__n_episodes=3, backend=backend, type_selection="first", solver=solver
        )
        clf.fit(X[few, :3], y[few]).add_class(X[14:17, :3], "new")
        decision = clf.decide(X_NEW[:2, :3])
        found = micfast.invert(
            clf.bank_, X[:1, :3] / 100, solver=LevenbergMarquardt(1), execution=backend
        )
        drawn = micfast.generate(clf.bank_, [[0.5, 0.5]], 4, execution=backend)
        return (
            clf.types_, decision.errors, decision.probabilities, decision.reconstructions(),
            clf.transform(X_NEW[:2, :3]), found.errors, found.latents, drawn.detach().numpy(),
            clf.thresholds_, np.array([clf.temperature_]),
        )  # fmt: skip

    expected = work()
    with STATES[state]():
        found = work()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_all_jobs_are_the_processors_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert [n_threads(n) for n in (-1, -2, -9, None, 2)] == [3, 2, 1, 1, 2]


# -- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10**9, 2**31, 10**18])
@pytest.mark.parametrize("name", ["n_types", "hidden_size", "n_modules_per_class"])
def test_sizes_beyond_all_memory_are_refused_at_once(name, size):
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    with pytest.raises((ValueError, MemoryError), match=name):
        small(**{name: size}).fit(X, y)
    assert time.perf_counter() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 200_000


# -- real data -----------------------------------------------------------------------------------


@needs_kernel
@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("MICFAST_DATA"), reason="MICFAST_DATA names no data folder")
def test_characters():
    from micfast.data import load_characters

    data = load_characters()
    clf = ModularInverseClassifier(random_state=0, n_jobs=-1).fit(data.X_train, data.y_train)
    assert clf.score(data.X_test[:200], data.y_test[:200]) > 0.85
    types, _ = select_types(data.X_train[data.y_train == data.y_train[0]], random_state=0)
    assert types.shape == clf.types_.shape[1:]
