"""Parameters of the classifier: stored as given, nested as scikit-learn nests them, checked."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from estimators import X_NEW, Y_NEW, X, needs_kernel, same_fit, saved, small, y
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import micfast
from micfast import Adam, LevenbergMarquardt, ModularInverseClassifier, Pose, Training
from micfast.classify.parameters import flattened
from micfast.search.solvers import SOLVERS, Solver
from micfast.search.starts import STARTS, Start
from micfast.search.starts.nearest import Nearest
from micfast.search.starts.types import Types
from micfast.search.starts.uniform import Uniform
from micfast.training import fleet
from micfast.training.initializations.drawn import Torch
from micfast.training.initializations.matched import Matched
from micfast.training.methods.adam import BatchOneAdam
from micfast.training.methods.auto import Auto
from micfast.training.methods.lm import ProjectedLM
from micfast.training.methods.projected import ProjectedAdam
from micfast.training.selections import SELECTIONS, Selection, take_samples
from micfast.training.selections.kmeans import DTWKMeans, KMeans
from micfast.training.types import select_types


def test_constructor_only_stores():
    parameters = {name: object() for name in ModularInverseClassifier().get_params(deep=False)}
    assert ModularInverseClassifier(**parameters).get_params() == parameters
    assert len(parameters) == 18


# -- nested parameters ---------------------------------------------------------------------------


def test_deep_parameters_show_what_will_be_used():
    clf = ModularInverseClassifier(solver="adam")
    flat, deep = clf.get_params(deep=False), clf.get_params()
    assert flat["training"] is None
    assert flat["solver"] == "adam"
    assert deep.items() >= flat.items()
    assert {name: value for name, value in deep.items() if "__" in name} == {
        **flattened("training", Training()),
        **flattened("solver", Adam()),
        **flattened("pose", Pose()),
        **{f"type_selection__{name}": value for name, value in KMeans().as_dict().items()},
    }
    params = ModularInverseClassifier().get_params()
    assert params["solver__start__n_starts"] == 1
    assert params["training__method__first__n_steps"] == ProjectedAdam().n_steps


def test_set_params_replaces_the_settings_object():
    solver, training = LevenbergMarquardt(n_iter=5), Training.paper(n_episodes=7)
    clf = ModularInverseClassifier(solver=solver, training=training)
    clf.set_params(solver__n_iter=3, solver__start__n_starts=2, training__noise_in=0.1, n_types=2)
    assert clf.solver == LevenbergMarquardt(n_iter=3, start=Nearest(n_starts=2))
    assert clf.training == Training.paper(n_episodes=7, noise_in=0.1)
    assert clf.n_types == 2
    assert solver == LevenbergMarquardt(n_iter=5)
    assert training == Training.paper(n_episodes=7)
    # None and names give way to objects.
    clf = ModularInverseClassifier().set_params(
        solver__tol=0.1, type_selection__representative="medoid", training__max_retries=1
    )
    assert clf.solver == LevenbergMarquardt(tol=0.1)
    assert clf.type_selection == KMeans(representative="medoid")
    assert clf.training == Training(max_retries=1)
    # The object first, in whatever order they are given.
    clf.set_params(solver__n_iter=4, solver=Adam())
    assert clf.solver == Adam(n_iter=4)


def test_two_classifiers_share_one_solver():
    solver = LevenbergMarquardt(n_iter=5)
    one, other = (ModularInverseClassifier(solver=solver) for _ in range(2))
    one.set_params(solver__n_iter=2)
    assert (one.solver.n_iter, other.solver.n_iter, solver.n_iter) == (2, 5, 5)
    assert other.solver is solver
    with pytest.raises(AttributeError):
        solver.n_iter = 3


def test_clone():
    clf = small(solver=Adam(n_iter=3, start=Types()), type_selection=DTWKMeans(radius=2))
    again = clone(clf)
    assert again.get_params() == clf.get_params()
    again.set_params(solver__n_iter=9)
    assert clf.solver.n_iter == 3
    start = np.full(2, 0.5)
    given = clone(small(solver=Adam(start=start)))
    assert given.solver.start.latents.tolist() == [0.5, 0.5]
    assert clone(small(solver="adam", training=None)).get_params(deep=False)["solver"] == "adam"


def test_parameters_given_back_leave_names_as_they_are():
    clf = ModularInverseClassifier()
    clf.set_params(**clf.get_params(deep=True))
    assert (clf.pose, clf.training, clf.solver) == ("auto", None, None)


@needs_kernel
def test_grid_search_over_nested_parameters():
    grid = {"solver__n_iter": [0, 8], "training__method__n_episodes": [1, 300]}
    search = GridSearchCV(small(), grid, cv=2).fit(X, y)
    assert search.best_params_["training__method__n_episodes"] == 300
    assert search.best_estimator_.training == Training.paper(
        300, noise_in=0.1, max_retries=0, learned_tol=100.0
    )
    assert search.best_estimator_.score(X_NEW, Y_NEW) > 0.9
    solvers = GridSearchCV(small(), {"solver": ["adam", LevenbergMarquardt(2)]}, cv=2).fit(X, y)
    assert solvers.best_score_ > 0.9
    pipeline = make_pipeline(FunctionTransformer(), small())
    name = "modularinverseclassifier__solver__n_iter"
    assert name in pipeline.get_params()
    pipeline.set_params(**{name: 2})
    assert pipeline[-1].solver.n_iter == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("solver__momentum", "(LevenbergMarquardt|Adam): 'momentum' must be one of"),
        ("solver__start__momentum", "(Nearest|Uniform): 'momentum' must be one of"),
        ("solver__n_iter__deeper", "(LevenbergMarquardt|Adam) has no nested settings 'n_iter'"),
        ("training__lr", "Training: 'lr' must be one of"),
        ("reject__a", "parameter 'reject__a' is unknown; nested parameters start with one of"),
        ("noise_in", "Invalid parameter 'noise_in'"),
        ("error_scale", "Invalid parameter 'error_scale'"),
        ("augmentation", "Invalid parameter 'augmentation'"),
    ],
)
def test_unknown_parameters(name, message):
    with pytest.raises(ValueError, match=message):
        ModularInverseClassifier().set_params(**{name: 1})
    with pytest.raises(ValueError, match=message):
        ModularInverseClassifier.paper(**{name: 1})


# -- the paper's ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "selection", "hidden_size", "n_episodes"),
    [
        (None, "kmeans", 10, 20000),
        ("characters", "dtw-kmeans", 10, 40000),
        ("mnist", "kmeans", 20, 20000),
    ],
)
def test_paper(data, selection, hidden_size, n_episodes):
    clf = ModularInverseClassifier.paper(data)
    settings = clf.resolved_settings()
    assert settings["type_selection"].name == selection
    assert settings["type_selection"].representative == "centroid"
    assert clf.solver == Adam(n_iter=50, learning_rate=0.05, start=Uniform(), tol=0.0)
    assert clf.training == Training.paper(
        n_episodes, learning_rate=0.01, noise_in=0.0, noise_out=0.0, max_retries=0
    )
    assert clf.training.method == BatchOneAdam(n_episodes, 0.01)
    assert clf.training.initialization == Torch()
    assert (clf.n_types, clf.hidden_size, clf.n_modules_per_class) == (4, hidden_size, 1)
    assert (clf.distance, clf.reject, clf.standardize) == ("mse", None, "global")
    changed = {"training__noise_in": 0.2, "training__method__n_episodes": 7, "n_types": 3}
    other = ModularInverseClassifier.paper(data, **changed)
    kept = clf.get_params().keys() - {"training", "training__method"}
    assert {name: other.get_params()[name] for name in kept} == {
        name: (clf.get_params() | changed)[name] for name in kept
    }


def test_paper_of_other_data():
    with pytest.raises(ValueError, match="data must be 'characters', 'mnist' or None, got 'cifar'"):
        ModularInverseClassifier.paper("cifar")


# -- wrong values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "error", "message"),
    [
        ({"n_types": 0}, ValueError, "n_types must be an integer from 1 to 10000, got 0"),
        ({"n_types": 2.0}, TypeError, r"n_types must be an integer .* got 2\.0"),
        ({"n_types": 10**9}, ValueError, "n_types must be an integer from 1 to 10000"),
        ({"hidden_size": True}, TypeError, "hidden_size must be an integer"),
        ({"hidden_size": 10**9}, ValueError, "hidden_size 1000000000, .* would take .* GiB"),
        ({"n_modules_per_class": 0}, ValueError, "n_modules_per_class must be .* got 0"),
        ({"n_modules_per_class": 10**9}, ValueError, "n_modules_per_class must be an integer from"),
        ({"solver": "sgd"}, ValueError, "solver must be one of 'adam', 'lm', got 'sgd'"),
        ({"solver": LevenbergMarquardt}, TypeError, "solver must be a solver object or one of"),
        (
            {"solver": LevenbergMarquardt(start=Nearest(1000))},
            ValueError,
            "n_starts must be at most",
        ),
        ({"solver": Adam(start=np.ones(3))}, ValueError, r"start must have shape .* got \[3\]"),
        ({"training": {"n_episodes": 3}}, TypeError, "training must be a Training or None, got {"),
        ({"training": Training(noise_in=(0.1, 0.2))}, ValueError, "one noise_in for all modules"),
        ({"type_selection": "best"}, ValueError, "type_selection must be one of .* got 'best'"),
        ({"type_selection": 3}, TypeError, "type_selection must be a selection object"),
        ({"distance": "l1"}, ValueError, "distance must be one of 'dtw', 'mse', got 'l1'"),
        ({"distance": "soft-dtw"}, ValueError, "distance must be one of 'dtw', 'mse'"),
        ({"distance": "dtw", "nan_policy": "omit"}, ValueError, "distance must be 'mse' with"),
        ({"reject": 0}, ValueError, "reject must be None or a number above 0 and below 1, got 0"),
        ({"reject": 1.0}, ValueError, r"reject must be None .* got 1\.0"),
        ({"reject": True}, ValueError, "reject must be None .* got True"),
        ({"reject": np.nan}, ValueError, "reject must be None .* got nan"),
        ({"standardize": "both"}, ValueError, "standardize must be 'global', 'channel' or None"),
        ({"nan_policy": "propagate"}, ValueError, "nan_policy must be 'raise' or 'omit'"),
        ({"backend": "tpu"}, ValueError, "backend must be one of .* got 'tpu'"),
        ({"n_jobs": 0}, ValueError, "n_jobs must be"),
        ({"random_state": "seed"}, ValueError, "'seed' cannot be used to seed"),
    ],
)
def test_wrong_parameters(parameter, error, message, monkeypatch):
    """They are told before the training, except what only the data can tell."""
    if "hidden_size" not in parameter and "n_jobs" not in parameter:
        monkeypatch.setattr(fleet, "train", None)
    with pytest.raises(error, match=message):
        small().set_params(**parameter).fit(X, y)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"method": "sgd"}, ValueError, "method must be one of 'adam', 'auto', 'lm', 'projected'"),
        ({"method": ProjectedAdam}, TypeError, "method must be a method object or one of"),
        (
            {"initialization": "zero"},
            ValueError,
            "initialization must be one of 'chrono', 'matched'",
        ),
        ({"initialization": 0}, TypeError, "initialization must be an initialization object or"),
        ({"goal": 0}, ValueError, "goal must be .* above 0, got 0"),
        ({"max_retries": None}, TypeError, "max_retries must be an integer"),
        ({"noise_in": -0.1}, ValueError, r"noise_in must be .* got -0\.1"),
        ({"noise_out": np.nan}, ValueError, "noise_out must be .* got nan"),
        ({"noise_out": [0.1, -1]}, ValueError, "noise_out must be .* got -1"),
        ({"noise_in": "0.1"}, TypeError, "noise_in must be"),
        ({"learned_tol": "a"}, TypeError, "learned_tol must be .* got 'a'"),
    ],
)
def test_training_checks_itself(values, error, message):
    with pytest.raises(error, match=message):
        Training(**values)


@pytest.mark.parametrize(
    ("method", "values", "error", "message"),
    [
        (BatchOneAdam, {"n_episodes": 0}, ValueError, "n_episodes must be an integer from 1"),
        (BatchOneAdam, {"n_episodes": 2.0}, TypeError, "n_episodes must be an integer"),
        (BatchOneAdam, {"learning_rate": 0}, ValueError, "learning_rate must be .* above 0, got 0"),
        (ProjectedAdam, {"n_steps": -1}, ValueError, "n_steps must be an integer from 0"),
        (ProjectedAdam, {"learning_rate": "a"}, TypeError, "learning_rate must be"),
        (ProjectedLM, {"max_jacobians": 0}, ValueError, "max_jacobians must be an integer from 1"),
        (ProjectedLM, {"n_noisy": None}, TypeError, "n_noisy must be an integer"),
        (Auto, {"first": "lm"}, TypeError, "first must be a method, got 'lm'"),
        (Matched, {"amplitude": 1}, ValueError, "amplitude must be .* below 1, got 1"),
    ],
)
def test_methods_check_themselves(method, values, error, message):
    with pytest.raises(error, match=f"{method.__name__}: {message}"):
        method(**values)


# -- registries: what one file adds ---------------------------------------------------------------


@pytest.fixture
def registered():
    """Forgets what a test registers."""
    before = {registry: dict(registry._entries) for registry in (STARTS, SOLVERS, SELECTIONS)}
    for registry in before:
        registry.names()
        before[registry] = dict(registry._entries)
    yield
    for registry, entries in before.items():
        registry._entries.clear()
        registry._entries.update(entries)


@pytest.mark.usefixtures("registered")
def test_a_start_a_solver_and_a_selection_are_one_class_each(tmp_path):
    @STARTS.register("corner")
    @dataclass(frozen=True)
    class Corner(Start):
        name: ClassVar[str] = "corner"
        type_number: int = 0

        def prepare(self, bank, n_targets, omit_nan, execution):
            corner = torch.zeros(1, 1, 1, bank.input_size, dtype=torch.float64)
            corner[..., self.type_number] = 1
            return 1, lambda begin, targets: corner

    @SOLVERS.register("guess")
    @dataclass(frozen=True)
    class Guess(Solver):
        name: ClassVar[str] = "guess"
        n_iter: int = 0
        start: Start = Corner(1)

        def search(self, weights, targets, starts, **options):
            return Adam(self.n_iter).search(weights, targets, starts, **options)

    @SELECTIONS.register("last")
    @dataclass(frozen=True)
    class Last(Selection):
        name: ClassVar[str] = "last"

        def select(self, X, n_types, seed, threads):
            return take_samples(X, np.arange(len(X) - n_types, len(X)))

    types, info = select_types(X, 2, selection="last")
    np.testing.assert_array_equal(types, X[-2:])
    assert info.index.tolist() == [len(X) - 2, len(X) - 1]

    clf = small(type_selection="last", solver="guess", training__method__n_episodes=20).fit(X, y)
    np.testing.assert_allclose(clf.types_, [X[y == c][-2:] for c in clf.classes_], rtol=1e-6)
    found = clf.invert(X_NEW)
    assert (found.latents == [0, 1]).all()
    at_corner = micfast.invert(
        clf.bank_, ((X_NEW - X.mean()) / X.std()).astype("f4"), solver=Adam(0, start=[0.0, 1.0])
    )
    np.testing.assert_allclose(found.errors, at_corner.errors, rtol=1e-3)
    targets = np.zeros((2, 4, 2))
    for solver in ("guess", Adam(0, start=Corner(1))):
        assert (micfast.invert(clf.bank_, targets, solver=solver).latents == [0, 1]).all()
    by_name = micfast.invert(clf.bank_, targets, solver=Adam(0, start="corner"))
    assert (by_name.latents == [1, 0]).all()
    clf.set_params(solver__start__type_number=0)
    assert (clf.invert(X_NEW).latents == [1, 0]).all()
    loaded = saved(clf, tmp_path / "clf")
    same_fit(loaded, clf)
    assert loaded.solver == Guess(start=Corner(0))


def test_registering_twice_or_an_unknown_name():
    with pytest.raises(ValueError, match="the start 'uniform' is registered twice"):
        STARTS.register("uniform")(Uniform)
    with pytest.raises(ValueError, match=r"start must be one of .*'uniform', got \['uniform'\]"):
        STARTS[["uniform"]]
    assert {"adam", "lm"} <= set(SOLVERS)
    assert "sgd" not in SOLVERS
