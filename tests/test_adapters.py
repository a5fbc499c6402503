"""The aeon and sktime estimators: their libraries' own checks, and equality with the classifier.

Skipped, visibly, where a library is missing; ``.ci/run`` has a step of its own with both.
"""

import importlib.util
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from estimators import PLAIN
from helpers import needs_kernel
from sklearn.base import clone

from micfast import LevenbergMarquardt, ModularInverseClassifier, Training
from micfast.adapters.base import TEST_PARAMS

N, C, T = 24, 3, 12
SMALL = (
    TEST_PARAMS[0]
    | PLAIN
    | {
        "type_selection": "kmeans",
        "training": Training.paper(n_episodes=400, max_retries=0, learned_tol=100.0),
        "solver": LevenbergMarquardt(n_iter=8),
        "random_state": 0,
    }
)

# Checks that fail or are left out, each with its reason; the same as in docs/ecosystem.md: none.
EXCLUDED_AEON: dict[str, str] = {}
EXCLUDED_SKTIME: dict[str, str] = {}


def adapter(library):
    """The adapter's class; skips the test where the library is missing."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    module = importlib.import_module(f"micfast.adapters.{library}")
    return getattr(module, module.__all__[0])


@pytest.fixture(params=["aeon", "sktime"])
def library(request):
    return request.param


@pytest.fixture
def cls(library):
    return adapter(library)


@pytest.fixture(scope="module")
def problem():
    """Collections (n, C, T) of two classes, in the libraries' axis order; channels differ."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, T)
    shapes = {"down": np.stack([1 - t, t**2, 0 * t]), "up": np.stack([t, 0 * t, np.sqrt(t)])}
    X = np.repeat(np.stack([*shapes.values()]), N // 2, axis=0)
    return X + 0.1 * rng.standard_normal(X.shape), np.repeat([*shapes], N // 2)


# -- the libraries' own checks -------------------------------------------------------------------


@pytest.mark.slow
@needs_kernel
@pytest.mark.filterwarnings("ignore:.*fewer than n_types:UserWarning")
def test_aeon_checks(monkeypatch):
    cls = adapter("aeon")
    from aeon.testing.estimator_checking import _yield_multithreading_checks, check_estimator

    # Off by default; on, n_jobs must be obeyed and leave the results as they are.
    monkeypatch.setattr(_yield_multithreading_checks, "MULTITHREAD_TESTING", True)
    results = check_estimator(cls, checks_to_exclude=[*EXCLUDED_AEON])
    assert {name: result for name, result in results.items() if result != "PASSED"} == {}
    names = {name.partition("(")[0] for name in results}
    assert {"check_estimator_multithreading", "check_classifier_output"} <= names
    assert len(results) >= 30


@pytest.mark.slow
@needs_kernel
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_sktime_checks():
    cls = adapter("sktime")
    from sktime.utils.estimator_checks import check_estimator

    results = check_estimator(cls, tests_to_exclude=[*EXCLUDED_SKTIME], verbose=False)
    assert {name: result for name, result in results.items() if result != "PASSED"} == {}
    names = {name.partition("[")[0] for name in results}
    assert {"test_classifier_output", "test_fit_idempotent", "test_random_tags"} <= names
    assert len(results) >= 150


# -- the same as the classifier ------------------------------------------------------------------


def test_equals_the_classifier(cls, problem):
    X, y = problem
    expected = ModularInverseClassifier(**SMALL).fit(X.transpose(0, 2, 1), y)
    clf = cls(**SMALL).fit(X, y)
    probabilities = expected.predict_proba(X.transpose(0, 2, 1))
    np.testing.assert_array_equal(clf.predict_proba(X), probabilities)
    assert clf.predict(X).tolist() == expected.predict(X.transpose(0, 2, 1)).tolist()
    assert clf.score(X, y) == 1.0
    assert clf.classes_.tolist() == ["down", "up"]
    assert clf.estimator_.banks_ == expected.banks_
    assert clf.estimator_.types_.shape == (2, 2, T, C)


def test_parameters_are_those_of_the_classifier(cls):
    ours = inspect.signature(ModularInverseClassifier).parameters
    theirs = inspect.signature(cls).parameters
    changed = {"n_jobs": 1, "nan_policy": "omit"}
    assert [*ours] == [*theirs]
    for name in ours:
        assert theirs[name].default == changed.get(name, ours[name].default), name
        assert theirs[name].kind == ours[name].kind, name
    parameters = {name: object() for name in ours}
    assert cls(**parameters).get_params(deep=False) == parameters


def test_every_parameter_arrives(cls, problem):
    X, y = problem
    changed = {
        **SMALL,
        "n_types": 3,
        "hidden_size": 5,
        "reject": 0.2,
        "reject_label": "neither",
        "distance": "dtw",
        "nan_policy": "raise",
        "n_jobs": 2,
    }
    clf = cls(**changed).fit(X, y)
    params = clf.estimator_.get_params(deep=False)
    assert params == clf.get_params(deep=False)
    assert clf.estimator_.bank_.hidden_size == 5
    assert set(clf.predict(10 * X[:, ::-1])) == {"neither"}


def test_nested_parameters(cls, problem):
    X, y = problem
    clf = cls(**SMALL)
    assert clf.get_params()["solver__n_iter"] == 8
    assert clf.get_params()["training__method__n_episodes"] == 400
    other = clf.clone() if hasattr(clf, "clone") else clone(clf)
    other.set_params(solver__n_iter=2, training__method__n_episodes=100)
    assert (clf.solver.n_iter, other.solver.n_iter) == (8, 2)
    expected = ModularInverseClassifier(**SMALL)
    expected.set_params(solver__n_iter=2, training__method__n_episodes=100).fit(
        X.transpose(0, 2, 1), y
    )
    np.testing.assert_array_equal(
        other.fit(X, y).predict_proba(X), expected.predict_proba(X.transpose(0, 2, 1))
    )


def test_reject_without_a_label(cls, problem):
    X, y = problem
    clf = cls(**SMALL, reject=0.2).fit(X, y)
    assert clf.predict(10 * X[:, ::-1]).tolist() == [None] * N


def test_one_channel(cls, problem):
    X, y = problem
    clf = cls(**SMALL).fit(X[:, 0], y)
    assert clf.estimator_.n_channels_in_ == 1
    np.testing.assert_array_equal(clf.predict_proba(X[:, :1]), clf.predict_proba(X[:, 0]))


def test_tags(cls):
    tags = cls(**SMALL).get_tags()
    assert tags["capability:multivariate"]
    assert tags["capability:multithreading"]
    assert tags["capability:unequal_length"]
    assert tags["capability:missing_values"]


def test_unequal_lengths(library, cls, problem):
    X, y = problem
    ours = [sequence.T[: T - n % 3] for n, sequence in enumerate(X)]
    if library == "aeon":
        theirs = [sequence.T.copy() for sequence in ours]
    else:
        pandas = pytest.importorskip("pandas")
        theirs = [pandas.DataFrame(sequence) for sequence in ours]
    expected = ModularInverseClassifier(**SMALL, nan_policy="omit").fit(ours, y)
    clf = cls(**SMALL).fit(theirs, y)
    np.testing.assert_array_equal(clf.predict_proba(theirs), expected.predict_proba(ours))
    assert clf.score(theirs, y) > 0.9


def test_missing_values(cls, problem):
    X, y = problem
    X = X.copy()
    X[3, 1, 2] = X[7, :, 4] = np.nan
    ours = X.transpose(0, 2, 1)
    expected = ModularInverseClassifier(**SMALL, nan_policy="omit").fit(ours, y)
    clf = cls(**SMALL).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), expected.predict_proba(ours))
    with pytest.raises(ValueError, match="NaN"):
        cls(**SMALL, nan_policy="raise").fit(X, y)


def test_in_a_pipeline(library, cls, problem):
    X, y = problem
    clf = cls(**SMALL)
    if library == "aeon":
        from aeon.pipeline import make_pipeline
        from aeon.transformations.collection import Normalizer

        pipeline = make_pipeline(Normalizer(), clf)
    else:
        from sktime.transformations.exponent import ExponentTransformer

        pipeline = ExponentTransformer(1) * clf
    pipeline.fit(X, y)
    assert (pipeline.predict(X) == y).mean() > 0.9


@needs_kernel
def test_in_a_grid_search(library, cls, problem):
    if library == "aeon":
        from sklearn.model_selection import GridSearchCV
    else:
        # sktime's own: its estimators lack what scikit-learn 1.7 and later asks for.
        from sktime.classification.model_selection import TSCGridSearchCV as GridSearchCV

    X, y = problem
    grid = {"n_types": [1, 2], "solver__n_iter": [1, 8]}
    search = GridSearchCV(cls(**SMALL), grid, scoring="accuracy", cv=2)
    assert search.fit(X, y).best_score_ > 0.9
    assert search.best_estimator_.solver.n_iter in (1, 8)


def test_sktime_panels(problem):
    cls = adapter("sktime")
    from sktime.datatypes import convert_to

    X, y = problem
    expected = cls(**SMALL).fit(X, y).predict_proba(X)
    frame = convert_to(X, "pd-multiindex")
    np.testing.assert_array_equal(cls(**SMALL).fit(frame, y).predict_proba(frame), expected)


def test_aeon_lists(problem):
    X, y = problem
    clf = adapter("aeon")(**SMALL).fit([*X], y)
    np.testing.assert_array_equal(clf.predict_proba([*X]), clf.predict_proba(X))


def test_file_of_the_fitted_estimator(cls, problem, tmp_path):
    X, y = problem
    clf = cls(**SMALL).fit(X, y)
    clf.estimator_.save(tmp_path / "clf.safetensors")
    read = ModularInverseClassifier.load(tmp_path / "clf.safetensors")
    np.testing.assert_array_equal(read.predict_proba(X.transpose(0, 2, 1)), clf.predict_proba(X))


# -- imports -------------------------------------------------------------------------------------


def test_missing_library_is_named(library, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"micfast.adapters.{library}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"pip install 'micfast\[{library}\]'"):
        importlib.import_module(f"micfast.adapters.{library}")


def test_the_extra_exists(library):
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if not project.is_file():
        pytest.skip("pyproject.toml is not beside the tests")
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(requirement.startswith(library) for requirement in extras[library])


@pytest.mark.slow
def test_micfast_imports_no_library():
    code = (
        "import sys, micfast, micfast.cli, micfast.data, micfast.adapters.base\n"
        "found = {'aeon', 'sktime', 'jax', 'skops'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
