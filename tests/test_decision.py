"""What the classifier answers: one search, and all that is read from it."""

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import decisions
import numpy as np
import pytest
import torch
from estimators import (
    PER_CLASS,
    PLAIN,
    X_NEW,
    Y_NEW,
    C,
    T,
    X,
    curves,
    needs_kernel,
    saved,
    small,
    y,
)
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import micfast
from micfast import (
    Adam,
    Decision,
    GeneratorBank,
    LevenbergMarquardt,
    ModularInverseClassifier,
    Training,
)
from micfast.classify.calibration import best_temperature
from micfast.classify.distances import DISTANCES
from micfast.classify.distances import dtw as dtw_module
from micfast.classify.distances.dtw import warped_distances
from micfast.kernels import backend, calls, launch
from micfast.search.starts.drawn import Dirichlet, Paper
from micfast.training import fleet


@pytest.fixture(scope="module")
def fitted():
    return small().fit(X, y)


@pytest.fixture
def fresh(fitted):
    return pickle.loads(pickle.dumps(fitted))


@pytest.fixture(scope="module")
def pair():
    return small(n_modules_per_class=2).fit(X, y)


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


def with_diverged(clf, m):
    """The classifier with weights of NaN in the modules of class m."""
    fitted = clf.fitted_classes()
    weights = fitted[m].weights.copy()
    weights.W_out[:] = torch.nan
    fitted[m] = replace(fitted[m], weights=weights)
    clf.restore(fitted, clf.classes_)
    return clf


# -- one search ----------------------------------------------------------------------------------


@needs_kernel
@pytest.mark.parametrize("reject", [None, 0.2])
def test_all_methods_read_one_decision(reject, pair):
    clf = pickle.loads(pickle.dumps(pair)).set_params(reject=reject)
    decision = clf.decide(X_NEW)
    assert isinstance(decision, Decision)
    assert len(decision) == len(X_NEW)
    assert decision.module_errors.shape == (2, len(X_NEW), 3)
    assert decision.errors.dtype == decision.novelty.dtype == np.float64
    np.testing.assert_array_equal(decision.errors, decision.module_errors.mean(axis=0))
    np.testing.assert_array_equal(decision.classes, clf.classes_)
    np.testing.assert_array_equal(decision.best, decision.errors.argmin(axis=1))
    np.testing.assert_array_equal(decision.labels, clf.predict(X_NEW))
    np.testing.assert_array_equal(decision.probabilities, clf.predict_proba(X_NEW))
    np.testing.assert_array_equal(-decision.errors, clf.decision_function(X_NEW))
    np.testing.assert_array_equal(decision.novelty, clf.novelty_score(X_NEW))
    np.testing.assert_array_equal(
        decision.errors.astype(np.float32), clf.reconstruction_errors(X_NEW)
    )
    assert (decision.rejected == (decision.novelty > 1)).all() == (reject is not None)
    assert ("rejected" in repr(decision)) == (reject is not None)
    for r in range(2):
        found, expected = decision.inversion(r), clf.invert(X_NEW, bank=r)
        np.testing.assert_array_equal(found.errors, expected.errors)
        np.testing.assert_array_equal(found.latents, expected.latents)
        assert (found.classes, found.bank) == (expected.classes, expected.bank)
        np.testing.assert_array_equal(
            decision.reconstructions(module=r), clf.reconstruct(X_NEW, bank=r)
        )
        for c, label in enumerate(clf.classes_):
            drawn = clf.reconstruct(X_NEW, label, bank=r)
            np.testing.assert_array_equal(decision.reconstructions(label, module=r), drawn)
            np.testing.assert_array_equal(decision.reconstructions("all", module=r)[:, c], drawn)
    features = clf.transform(X_NEW)
    np.testing.assert_array_equal(
        features[:, :6], np.concatenate([*decision.module_errors], axis=1)
    )
    np.testing.assert_array_equal(features[:, 6:], decision.search.latents.reshape(len(X), -1))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda d: d.inversion(1), "module must be an integer from 0 to 0, got 1"),
        (lambda d: d.reconstructions(module=-1), "module must be an integer from 0 to 0, got -1"),
        (lambda d: d.reconstructions("none"), r"label must be one of \['arch', .*got 'none'"),
    ],
)
def test_wrong_parts_of_a_decision(use, message, fitted):
    with pytest.raises(ValueError, match=message):
        use(fitted.decide(X_NEW[:1]))


def test_a_decision_keeps_its_rules_when_the_classifier_changes(fresh):
    decision = fresh.decide(X_NEW)
    before = decision.labels.tolist(), decision.probabilities, decision.reconstructions("line")
    fresh.set_params(reject=0.5).remove_class("line")
    assert decision.labels.tolist() == before[0]
    np.testing.assert_array_equal(decision.probabilities, before[1])
    np.testing.assert_array_equal(decision.reconstructions("line"), before[2])


METHODS = (
    "decide", "predict", "predict_proba", "decision_function", "novelty_score", "transform",
    "reconstruction_errors", "reconstruct", "invert",
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_answer_takes_one_search(method, pair, monkeypatch):
    """One call of the operator, of all modules of all banks."""
    seen = []
    original = calls.search

    def count(name, weights, targets, *rest):
        seen.append((name, len(weights), len(targets)))
        return original(name, weights, targets, *rest)

    monkeypatch.setattr(calls, "search", count)
    getattr(pair, method)(X_NEW)
    assert seen == [("invert_lm", 3 if method == "invert" else 6, len(X_NEW))]


@needs_kernel
@pytest.mark.parametrize(
    ("settings", "dimensions", "most"),
    [
        pytest.param(PLAIN | {"n_modules_per_class": 3}, 2, 150, id="plain, table"),
        pytest.param(PLAIN | {"n_modules_per_class": 3}, 3, 150, id="plain"),
        pytest.param({}, 3, 700, id="default"),
    ],
)
def test_a_prediction_of_one_sequence_makes_few_python_calls(settings, dimensions, most):
    """At most 150 calls within the package for the plain search, 700 with views, pose and hull."""
    rng, t = np.random.default_rng(0), np.linspace(0, 1, 12)
    data = np.concatenate([np.outer(rng.uniform(0.5, 1.5, 8), t), np.ones((8, 12))])
    labels = ["rise"] * 8 + ["flat"] * 8
    training = Training.paper(n_episodes=200)
    clf = ModularInverseClassifier(n_types=2, training=training, random_state=0, **settings)
    clf.fit(data, labels)
    one = data[:1] if dimensions == 2 else data[:1, :, None]
    clf.predict(one)
    root, made = str(Path(micfast.__file__).parent), []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            made.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        clf.predict(one)
    finally:
        sys.setprofile(before)
    assert len(made) <= most, sorted(made)


@needs_kernel
def test_the_walk_from_predict_to_the_kernel_is_short(fitted, monkeypatch):
    """At most 12 functions of the package, none twice."""
    walk = []
    original = launch.run

    def look(name, *arguments):
        if name == "invert_lm" and not walk:
            frame, root = sys._getframe(), str(Path(micfast.__file__).parent)
            while frame is not None:
                if frame.f_code.co_filename.startswith(root):
                    walk.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}")
                frame = frame.f_back
        return original(name, *arguments)

    monkeypatch.setattr(launch, "run", look)
    fitted.predict(X_NEW[:1])
    walk.reverse()
    assert walk[0] == "estimator.ModularInverseClassifier.predict"
    assert walk[-1].startswith("operators.")
    assert len(walk) + 1 <= 12  # with launch.run itself
    assert len(set(walk)) == len(walk)


@pytest.fixture
def registered():
    """Registers entries for one test."""
    added = []

    def register(registry, name, entry):
        added.append((registry, name))
        return registry.register(name)(entry)

    yield register
    for registry, name in added:
        del registry._entries[name]


@needs_kernel
def test_a_distance_is_one_function(registered, fitted, tmp_path):
    def largest_difference(inversion, Z, execution, n_threads):
        drawn = inversion.reconstructions("all", execution=execution)
        return np.abs(drawn - Z[:, None]).max(axis=(2, 3)).astype(np.float64)

    registered(DISTANCES, "largest", largest_difference)
    clf = small(distance="largest").fit(X, y)
    assert clf.banks_ == fitted.banks_
    Z = ((X_NEW - X.mean()) / X.std()).astype(np.float32)
    drawn = (clf.decide(X_NEW).reconstructions("all") - X.mean()) / X.std()
    expected = np.abs(drawn - Z[:, None]).max(axis=(2, 3))
    np.testing.assert_allclose(clf.decide(X_NEW).errors, expected, rtol=1e-4)
    assert (saved(clf, tmp_path / "clf").predict(X_NEW) == clf.predict(X_NEW)).all()
    with pytest.raises(ValueError, match="distance must be one of 'dtw', 'largest', 'mse', got"):
        small(distance="smallest").fit(X, y)


# -- predictions ---------------------------------------------------------------------------------


def test_predictions_agree_with_each_other_and_with_invert(fitted):
    standardized = ((X_NEW - X.mean()) / X.std()).astype(np.float32)
    expected = micfast.invert(fitted.bank_, standardized, solver="lm")
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


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_backends_agree(backend, fitted):
    clf = small(backend=backend, training__method__n_episodes=3, solver__n_iter=1).fit(
        X[::3, :4], y[::3]
    )
    other = small(training__method__n_episodes=3, solver__n_iter=1).fit(X[::3, :4], y[::3])
    np.testing.assert_allclose(
        clf.reconstruction_errors(X[:, :4]),
        other.reconstruction_errors(X[:, :4]),
        rtol=1e-2,
        atol=1e-4,
    )


@needs_kernel
def test_samples_and_their_order_are_independent(fitted):
    errors = fitted.reconstruction_errors(X_NEW)
    np.testing.assert_array_equal(fitted.reconstruction_errors(X_NEW[::-1]), errors[::-1])
    np.testing.assert_array_equal(fitted.reconstruction_errors(X_NEW[3:4]), errors[3:4])


def test_reconstruct(fitted):
    best = fitted.reconstruct(X_NEW)
    assert best.shape == X_NEW.shape
    errors = fitted.reconstruction_errors(X_NEW)
    mse = (((best - X_NEW) / X.std()) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(mse, errors.min(axis=1), rtol=1e-2, atol=1e-6)
    line = fitted.reconstruct(X_NEW, "line")
    mse = (((line - X_NEW) / X.std()) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(mse, errors[:, 1], rtol=1e-2, atol=1e-6)


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
    for wrong in (2, -1, 1.0, True, None):
        for use in (pair.invert, pair.reconstruct):
            with pytest.raises((TypeError, ValueError), match=f"bank must be .* got {wrong}"):
                use(X_NEW, bank=wrong)


@pytest.mark.parametrize(
    "solver",
    [
        Adam(start="uniform"),
        Adam(n_iter=40, start="types", tol=0.05),
        LevenbergMarquardt(start=micfast.search.starts.nearest.Nearest(n_starts=3)),
        LevenbergMarquardt(n_iter=1, start="types"),
    ],
    ids=str,
)
def test_search_is_that_of_invert(solver, fresh):
    standardized = ((X_NEW - X.mean()) / X.std()).astype(np.float32)
    expected = micfast.invert(fresh.bank_, standardized, solver=solver)
    for found in (
        fresh.invert(X_NEW, solver=solver),
        fresh.set_params(solver=solver).invert(X_NEW),
    ):
        np.testing.assert_allclose(found.errors, expected.errors, rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(found.n_iter_used, expected.n_iter_used)
    assert expected.converged.any() == (solver.tol > 0)


def test_history_and_other_solvers(fitted):
    at_start = fitted.invert(X_NEW, solver=LevenbergMarquardt(0)).errors
    np.testing.assert_array_equal(
        fitted.reconstruction_errors(X_NEW, solver=LevenbergMarquardt(0)), at_start
    )
    history = fitted.invert(X_NEW, history=True).error_history
    assert history.shape == (9, len(X_NEW), 3)
    np.testing.assert_array_equal(history[0], at_start)


@pytest.mark.parametrize("start", [Paper, Dirichlet])
def test_random_starts_are_repeatable(start, fresh):
    fresh.set_params(solver=Adam(0, start=start()))
    errors = fresh.reconstruction_errors(X_NEW)
    np.testing.assert_array_equal(fresh.reconstruction_errors(X_NEW), errors)
    np.testing.assert_array_equal(fresh.transform(X_NEW)[:, :3], errors)
    other = fresh.invert(X_NEW, solver=Adam(0, start=start(random_state=1))).errors
    assert not np.array_equal(other, errors)


def test_distance_is_between_target_and_drawings(pair):
    clf = pickle.loads(pickle.dumps(pair)).set_params(distance="dtw")
    Z = (X_NEW - X.mean()) / X.std()
    expected = np.zeros((len(X), 3))
    for label in pair.classes_:
        for r in range(2):
            drawn = (pair.reconstruct(X_NEW, label, bank=r) - X.mean()) / X.std()
            found = warped_distances(Z, drawn[:, None])[:, 0]
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
    monkeypatch.setattr(dtw_module, "_DRAWN_NUMBERS", 3 * 4 * T * C)
    np.testing.assert_array_equal(fresh.decision_function(X_NEW), expected)


@needs_kernel
@pytest.mark.parametrize("settings", [{}, {"distance": "dtw"}])
def test_fit_measures_temperature_and_thresholds_as_the_decision_does(settings):
    # Shifted, so that warping matters.
    shifted = np.stack([np.roll(x, i % 3, axis=0) for i, x in enumerate(X)])
    clf = small(**settings).fit(shifted, y)
    errors = -clf.decision_function(shifted)
    codes = np.searchsorted(clf.classes_, y)
    for c, own in enumerate(clf.calibration_):
        np.testing.assert_allclose(own["samples"], np.sort(errors[codes == c, c]))
    expected = [np.quantile(errors[codes == c, c], 0.95) for c in range(3)]
    np.testing.assert_allclose(clf.thresholds_, expected)
    assert clf.temperature_ == pytest.approx(best_temperature(errors, codes))
    mse = np.take_along_axis(clf.reconstruction_errors(shifted), codes[:, None], axis=1)
    own_errors = np.take_along_axis(errors, codes[:, None], axis=1)
    assert np.allclose(own_errors, mse, rtol=1e-3) == (settings == {})


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
    monkeypatch.setattr(fleet, "train", None)
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
    fresh = with_diverged(fresh, 1)
    assert np.isfinite(fresh.transform(X_NEW)).all()
    assert np.isfinite(fresh.set_params(distance="dtw").transform(X_NEW)).all()
    assert "line" not in fresh.predict(X_NEW)


def test_a_diverged_module_is_never_believed(fresh, tmp_path):
    fresh = with_diverged(fresh, 1)
    fresh.training_report_[1] |= {"mse": np.nan, "relative_mse": np.nan}
    assert "line" not in fresh.predict(X_NEW)
    assert np.isfinite(fresh.predict_proba(X_NEW)).all()
    assert (fresh.predict_proba(X_NEW)[:, 1] == 0).all()
    assert np.isnan(fresh.reconstruction_errors(X_NEW)[:, 1]).all()
    fresh.save(tmp_path / "clf")
    loaded = ModularInverseClassifier.load(tmp_path / "clf")
    assert np.isnan(loaded.training_report_[1]["mse"])
    assert loaded.bank_ == fresh.bank_


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_class_whose_module_diverged_never_wins(monkeypatch, tmp_path):
    real = fleet.train

    def train(*arguments, **options):
        trained = real(*arguments, **options)
        weights, errors = trained.bank.weights.copy(), trained.errors.copy()
        weights.W_out[1], errors[1] = torch.nan, np.nan
        return replace(trained, bank=GeneratorBank(weights), errors=errors)

    monkeypatch.setattr(fleet, "train", train)
    for distance in ("mse", "dtw"):
        clf = small(distance=distance, reject=0.2).fit(X, y)
        assert "line" not in clf.predict(X_NEW)
        assert np.isfinite(clf.novelty_score(X_NEW)).all()
        assert (clf.predict_proba(X_NEW)[:, 1] == 0).all()
        loaded = saved(clf, tmp_path / "clf")
        np.testing.assert_array_equal(loaded.predict(X_NEW), clf.predict(X_NEW))


# -- as at 482234b -------------------------------------------------------------------------------

DIGESTS = json.loads((Path(__file__).parent / "data" / "decisions.json").read_text())


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("isa", DIGESTS)
def test_decisions_on_digits_have_not_changed(isa, monkeypatch):
    if isa not in backend.extension.available_isas():
        pytest.skip(f"this machine has no {isa}")
    monkeypatch.setenv("MICFAST_ISA", isa)
    assert decisions.decisions() == DIGESTS[isa]
