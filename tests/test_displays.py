"""Displays: what they draw is what the estimator and the inversion give; axes, names, messages."""

import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import micfast
from micfast import (
    CrossErrorDisplay,
    GeneratorBank,
    LatentPathDisplay,
    ModularInverseClassifier,
    ReconstructionDisplay,
    displays,
    invert,
)
from micfast.data import Standardizer

T = 12
SETTINGS = {
    "n_types": 3,
    "hidden_size": 5,
    "n_episodes": 150,
    "n_iter": 4,
    "n_modules_per_class": 2,
    "max_retries": 0,
    "learned_tol": 1e6,
    "random_state": 0,
}


def curves(n_channels=2, seed=0):
    """Three classes of noisy curves, far from standard units."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, T)
    shapes = {"arch": [t, np.sin(np.pi * t)], "line": [t, t], "wave": [-t, np.sin(6 * t)]}
    mix = np.random.default_rng(9).normal(size=(2, n_channels))
    X = np.concatenate(
        [np.repeat([np.stack(s, axis=-1) @ mix], 5, axis=0) for s in shapes.values()]
    )
    return 50 + 4 * X + 0.1 * rng.standard_normal(X.shape), np.repeat(list(shapes), 5)


@pytest.fixture(scope="module")
def fitted():
    found = {}

    def fit(n_channels=2, **settings):
        key = (n_channels, *sorted(settings.items()))
        if key not in found:
            estimator = ModularInverseClassifier(**(SETTINGS | settings))
            found[key] = estimator.fit(*curves(n_channels))
        return found[key]

    return fit


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture(autouse=True)
def no_pyplot_leak():
    """Agg, and nothing left open."""
    import matplotlib.pyplot as plt

    backend = matplotlib.get_backend()
    matplotlib.use("Agg")
    rc = dict(matplotlib.rcParams)
    yield
    # `backend` aside, which the fixture itself sets.
    assert {k: v for k, v in rc.items() if matplotlib.rcParams[k] != v} == {}
    plt.close("all")
    matplotlib.use(backend)


def untrained(n_channels=2, n_modules=3, n_types=3, **settings):
    bank = GeneratorBank.random(
        n_modules,
        hidden_size=4,
        input_size=n_types,
        output_size=n_channels,
        seeds=range(n_modules),
        classes=list("abcdefgh"[:n_modules]),
    )
    X = np.random.default_rng(0).normal(size=(4, T, n_channels)).cumsum(axis=1)
    return X, invert(bank, X, **({"n_iter": 3} | settings))


def points(line):
    return np.stack(line.get_data(), axis=-1)


# -- all displays --------------------------------------------------------------------------------


MAKERS = {
    "reconstruction": lambda e, X, y, **k: ReconstructionDisplay.from_estimator(e, X, y, **k),
    "cross": lambda e, X, y, **k: CrossErrorDisplay.from_estimator(e, X, y, **k),
    "latent": lambda e, X, y, **k: LatentPathDisplay.from_estimator(e, X, y, **k),
}
each_display = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@each_display
def test_given_axes_are_used_and_pyplot_is_left_alone(make, fitted, ax):
    import matplotlib.pyplot as plt

    X, y = curves(seed=1)
    before, current = plt.get_fignums(), matplotlib.rcParams.copy()
    display = make(fitted(), X, y, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert plt.get_fignums() == before
    assert matplotlib.rcParams == current
    ax.figure.canvas.draw()


@each_display
def test_without_axes_there_is_one_new_figure(make, fitted):
    import matplotlib.pyplot as plt

    X, y = curves(seed=1)
    before = plt.get_fignums()
    display = make(fitted(), X, y)
    assert len(plt.get_fignums()) == len(before) + 1
    assert plt.gcf() is display.figure_
    display.figure_.canvas.draw()
    again = display.plot()
    assert again is display
    assert len(plt.get_fignums()) == len(before) + 2


@each_display
def test_ax_must_be_axes(make, fitted):
    X, y = curves()
    with pytest.raises(TypeError, match=r"plot: ax must be a matplotlib Axes, got Figure"):
        make(fitted(), X, y, ax=Figure())


@each_display
def test_estimator_must_be_a_fitted_classifier(make):
    X, y = curves()
    with pytest.raises(
        TypeError, match=r"from_estimator: estimator must be .*, got LogisticRegression"
    ):
        make(LogisticRegression(), X, y)
    with pytest.raises(NotFittedError):
        make(ModularInverseClassifier(), X, y)


@each_display
def test_labels_must_fit(make, fitted):
    X, y = curves()
    with pytest.raises(ValueError, match=r"from_estimator: y must have shape \(15,\), got \(14,\)"):
        make(fitted(), X, y[1:])


@each_display
def test_tensors_lists_frames_pipelines_and_searches(make, fitted, ax):
    X, y = curves(n_channels=1)
    estimator = fitted(1)
    flat = X[..., 0]

    def drawn(display):
        for name in ("reconstructions", "errors", "latents"):
            if hasattr(display, name):
                return getattr(display, name)

    expected = drawn(make(estimator, X, y, ax=ax))
    search = GridSearchCV(estimator, {})
    search.best_estimator_ = estimator
    behind = make_pipeline(FunctionTransformer(lambda X: X / 2).fit(flat), estimator)
    for given, values in (
        (estimator, torch.from_numpy(X)),
        (estimator, flat),
        (estimator, flat.tolist()),
        (estimator, pd.DataFrame(flat)),
        (make_pipeline(estimator), flat),
        (search, flat),
        (behind, 2 * flat),
    ):
        np.testing.assert_array_equal(drawn(make(given, values, y, ax=ax)), expected)


@pytest.mark.parametrize("name", ["ReconstructionDisplay", "LatentPathDisplay"])
def test_index(name, fitted, ax):
    X, y = curves(seed=1)
    make = getattr(displays, name).from_estimator
    with pytest.raises(ValueError, match=r"index must be an integer from -15 to 14, got 15"):
        make(fitted(), X, y, index=15)
    with pytest.raises(ValueError, match=r"X must have shape"):
        make(fitted(), X[0, :, 0])
    last = make(fitted(), X, y, index=-1, ax=ax)
    assert last.true_label == y[-1]


def test_importing_displays_imports_no_matplotlib():
    program = (
        "import sys, micfast; from micfast import CrossErrorDisplay, ReconstructionDisplay;"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]
    assert {"CrossErrorDisplay", "LatentPathDisplay", "ReconstructionDisplay"} <= {*micfast.__all__}


# -- reconstructions -----------------------------------------------------------------------------


def test_stroke_is_the_estimators_reconstruction(fitted, ax):
    X, y = curves(seed=1)
    estimator = fitted()
    display = ReconstructionDisplay.from_estimator(estimator, X, y, index=7, ax=ax)
    assert display.axes_.tolist() == [ax]
    ((target,),), ((drawn,),) = display.target_artists_, display.reconstruction_artists_
    np.testing.assert_array_equal(points(target), X[7])
    np.testing.assert_allclose(points(drawn), estimator.reconstruct(X[7:8])[0], rtol=1e-6)
    assert display.labels == [display.predicted_label] == [estimator.predict(X[7:8])[0]]
    error = estimator.invert(X[7:8]).errors[0, estimator.bank_.index(display.labels[0])]
    assert display.errors[0] == pytest.approx(error)
    assert display.true_label == "line"


def test_every_module_of_some_classes(fitted, ax):
    X, y = curves(seed=1)
    estimator = fitted()
    display = ReconstructionDisplay.from_estimator(
        estimator, X, y, index=3, labels=["wave", "arch"], bank=None, ax=ax
    )
    assert display.names == ["wave (0)", "wave (1)", "arch (0)", "arch (1)"]
    assert len(display.axes_) == 4
    for i, (label, bank) in enumerate([("wave", 0), ("wave", 1), ("arch", 0), ("arch", 1)]):
        expected = estimator.reconstruct(X[3:4], label, bank=bank)[0]
        (line,) = display.reconstruction_artists_[i]
        np.testing.assert_allclose(points(line), expected, rtol=1e-6)
        module = estimator.bank_.index(label)
        assert display.errors[i] == estimator.invert(X[3:4], bank=bank).errors[0, module]
        assert display.axes_[i].get_title().startswith(f"{label} ({bank})\n")
    assert not np.array_equal(*display.reconstructions[:2])


@pytest.mark.parametrize("settings", [{}, {"error_scale": "samples"}, {"distance": "dtw"}])
def test_best_classes_are_those_of_the_decision(settings, fitted, ax):
    X, y = curves(seed=1)
    estimator = fitted(**settings)
    display = ReconstructionDisplay.from_estimator(estimator, X, y, index=12, n_best=3, ax=ax)
    order = estimator.decision_function(X[12:13])[0].argsort()[::-1]
    assert display.labels == estimator.classes_[order].tolist()
    assert display.labels[0] == display.predicted_label


def test_two_classes(ax):
    X, y = curves()
    estimator = ModularInverseClassifier(**SETTINGS).fit(X[:10], y[:10])
    for i in (0, 9):
        display = ReconstructionDisplay.from_estimator(estimator, X, index=i, ax=ax)
        assert display.labels == [estimator.predict(X[i : i + 1])[0]]
        assert display.true_label is None


def test_rejected_sequence(fitted, ax):
    X, y = curves()
    estimator = ModularInverseClassifier(**SETTINGS, reject=0.5).fit(X, y)
    display = ReconstructionDisplay.from_estimator(estimator, X + 1000, y, ax=ax)
    assert display.predicted_label is None
    assert "decided" not in ax.get_title(loc="left")


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_series_over_time(n_channels, fitted, ax):
    X, y = curves(n_channels, seed=1)
    estimator = fitted(n_channels)
    display = ReconstructionDisplay.from_estimator(
        estimator, X, y, index=2, n_best=2, ax=ax, kind="series" if n_channels == 2 else "auto"
    )
    for behind, front, drawn in zip(
        display.target_artists_,
        display.reconstruction_artists_,
        display.reconstructions,
        strict=True,
    ):
        assert len(behind) == len(front) == n_channels
        for c in range(n_channels):
            np.testing.assert_array_equal(
                points(behind[c]), np.stack([np.arange(T), X[2, :, c]], 1)
            )
            np.testing.assert_array_equal(front[c].get_ydata(), drawn[:, c])


def test_images_stand_beside_the_target(fitted, ax):
    X, y = curves(9, seed=1)
    display = ReconstructionDisplay.from_estimator(fitted(9), X, y, index=2, n_best=2, ax=ax)
    assert len(display.axes_) == 3
    ((target,),), drawn = display.target_artists_, display.reconstruction_artists_
    np.testing.assert_array_equal(target.get_array(), X[2])
    for (image,), expected in zip(drawn, display.reconstructions, strict=True):
        np.testing.assert_array_equal(image.get_array(), expected)
        assert image.get_clim() == target.get_clim() == (X[2].min(), X[2].max())


def test_frames_tell_right_from_wrong():
    target, drawn = np.zeros((5, 2)), np.ones((3, 5, 2))

    def colours(**labels):
        display = ReconstructionDisplay(target, drawn, labels="abc", **labels)
        display.plot(Figure().subplots())
        spines = [panel.spines["top"] for panel in display.axes_]
        return [(s.get_edgecolor(), s.get_linestyle() == "-") for s in spines]

    blue, orange, plain = (
        matplotlib.colors.to_rgba(c) for c in ("#0072B2", "#D55E00", displays.plots._FRAME)
    )
    assert colours(predicted_label="b") == [(plain, True), (blue, True), (plain, True)]
    assert colours(predicted_label="b", true_label="b")[1] == (blue, True)
    assert colours(predicted_label="b", true_label="c")[1:] == [(orange, True), (blue, False)]


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(("which", "modules"), [("all", [0, 1, 2]), (1, [1]), ([2, 0], [2, 0])])
def test_from_inversion(which, modules, as_tensor, ax):
    X, _ = untrained()
    bank = untrained()[1].bank
    standardizer = Standardizer("global").fit(X)
    Z = standardizer.transform(X).astype(np.float32)
    Z = torch.from_numpy(Z) if as_tensor else Z
    found = invert(bank, Z, n_iter=3)
    display = ReconstructionDisplay.from_inversion(
        Z, found, index=2, which=which, y_true=list("abca"), standardizer=standardizer, ax=ax
    )
    assert display.labels == [found.classes[m] for m in modules]
    np.testing.assert_array_equal(display.errors, np.asarray(found.errors)[2, modules])
    expected = standardizer.inverse_transform(np.asarray(found.reconstructions("all"))[2])
    np.testing.assert_allclose(display.reconstructions, expected[modules], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(display.target, X[2], rtol=1e-5, atol=1e-6)
    assert (display.predicted_label, display.true_label) == (found.predictions[2], "c")


def test_from_inversion_of_one_channel_in_two_dimensions(ax):
    X, found = untrained(1)
    display = ReconstructionDisplay.from_inversion(X[..., 0], found, ax=ax)
    np.testing.assert_array_equal(
        display.reconstruction_artists_[0][0].get_ydata(), found.reconstructions()[0, :, 0]
    )


def test_nan_is_no_obstacle(ax):
    X, found = untrained()
    X[1, 3] = np.nan
    found = invert(found.bank, X, n_iter=2)
    display = ReconstructionDisplay.from_inversion(X, found, index=1, which="all", ax=ax)
    assert display.predicted_label is None
    assert display.axes_[0].get_title() == "a\ninvalid"
    ax.figure.canvas.draw()
    with pytest.raises(ValueError, match="which must not be 'best' for target 1"):
        ReconstructionDisplay.from_inversion(X, found, index=1)


def test_a_module_that_draws_far_out_leaves_the_target_large(ax):
    target = np.linspace(0, 1, 10)
    ReconstructionDisplay(target, 1e6 * target[None]).plot(ax)
    low, high = ax.get_ylim()
    assert high - low < 4


def test_settings_of_the_plot(ax):
    display = ReconstructionDisplay(np.zeros((5, 1)), np.ones((4, 5, 1)))
    display.plot(ax, n_columns=2, line_kw={"linewidth": 7})
    assert {line.get_linewidth() for (line,) in display.reconstruction_artists_} == {7}
    assert len({panel.get_position().x0 for panel in display.axes_}) == 2
    display = ReconstructionDisplay(np.zeros((5, 9)), np.ones((1, 5, 9)))
    display.plot(ax, im_kw={"cmap": "magma"})
    assert display.target_artists_[0][0].get_cmap().name == "magma"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": np.zeros((2, 3, 4))}, r"target must have shape .*, got \(2, 3, 4\)"),
        (
            {"reconstructions": np.zeros((2, 4, 2))},
            r"reconstructions must have shape .*\(\*, 5, 2\)",
        ),
        ({"reconstructions": np.zeros((0, 5, 2))}, r"reconstructions must have shape"),
        ({"errors": [1.0]}, r"errors must have shape \(2,\).*, got \(1,\)"),
        ({"labels": "abc"}, r"labels must have length 2, one per reconstruction, got 3"),
        ({"names": ["a"]}, r"names must have length 2"),
    ],
)
def test_wrong_arrays(arguments, message):
    given = {"target": np.zeros((5, 2)), "reconstructions": np.zeros((2, 5, 2))} | arguments
    with pytest.raises(ValueError, match=f"ReconstructionDisplay: {message}"):
        ReconstructionDisplay(**given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["arch", "x"]}, r"labels must be among the classes .*, got 'x'"),
        ({"labels": "arch"}, r"labels must be a sequence of classes, got 'arch'"),
        ({"labels": []}, r"labels must be a sequence of classes"),
        ({"n_best": 4}, r"n_best must be an integer from 1 to 3, got 4"),
        ({"bank": 2}, r"bank must be an integer from 0 to 1, got 2"),
        ({"kind": "images"}, r"kind must be one of auto, path, image, series, got 'images'"),
        ({"n_columns": 0}, r"n_columns must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_settings(arguments, message, fitted):
    with pytest.raises(ValueError, match=f"ReconstructionDisplay.*: {message}"):
        ReconstructionDisplay.from_estimator(fitted(), *curves(), **arguments)


def test_path_needs_two_channels(ax):
    display = ReconstructionDisplay(np.zeros((5, 3)), np.zeros((1, 5, 3)))
    with pytest.raises(ValueError, match="kind 'path' must have 2 channels"):
        display.plot(ax, kind="path")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"which": "worst"}, r"which must be 'best', 'all' or module indices, got 'worst'"),
        ({"which": [0.5]}, r"which must be 'best', 'all' or module indices"),
        ({"which": [0, 3]}, r"which must hold indices from 0 to 2"),
        ({"index": 4}, r"index must be an integer from -4 to 3, got 4"),
        ({"y_true": "abc"}, r"y_true must have shape \(4,\)"),
        ({"targets": np.zeros((3, T, 2))}, r"targets must have shape .*, got \(3, 12, 2\)"),
    ],
)
def test_wrong_inversion_settings(arguments, message):
    X, found = untrained()
    with pytest.raises(ValueError, match=message):
        ReconstructionDisplay.from_inversion(**({"targets": X, "inversion": found} | arguments))


# -- cross errors --------------------------------------------------------------------------------


def test_cross_errors_are_means_of_the_estimators(fitted, ax):
    X, y = curves(seed=1)
    estimator = fitted()
    display = CrossErrorDisplay.from_estimator(estimator, X, y, ax=ax)
    errors = estimator.reconstruction_errors(X).astype(float)
    expected = np.stack([errors[y == label].mean(axis=0) for label in estimator.classes_], axis=1)
    np.testing.assert_allclose(display.errors, expected)
    np.testing.assert_array_equal(display.im_.get_array(), display.errors)
    assert [[text.get_text() for text in row] for row in display.text_] == [
        [f"{value:.2g}" for value in row] for row in expected
    ]
    assert display.im_.get_cmap().name == "cividis"
    assert isinstance(display.im_.norm, LogNorm)
    for axis in (ax.xaxis, ax.yaxis):
        assert [t.get_text() for t in axis.get_ticklabels()] == estimator.classes_.tolist()
    assert display.colorbar_.mappable is display.im_


def test_minima_are_marked(ax):
    errors = np.array([[3.0, 1.0, 9.0], [2.0, 4.0, 0.5], [np.nan, np.nan, np.nan]])
    display = CrossErrorDisplay(errors).plot(ax, include_values=False)
    assert points(display.row_minima_).tolist() == [[1, 0], [2, 1]]
    assert points(display.column_minima_).tolist() == [[0, 1], [1, 0], [2, 1]]
    assert display.text_ is None
    shifted = CrossErrorDisplay(errors).plot(Figure().subplots())
    np.testing.assert_allclose(
        points(shifted.row_minima_) - points(display.row_minima_), [[0.34, -0.34]] * 2
    )
    assert shifted.text_[2, 0].get_text() == "invalid"


def test_unknown_classes_get_columns(ax):
    errors = [[0.1, 0.9], [0.8, 0.2], [0.5, 0.6], [0.7, 0.4]]
    display = CrossErrorDisplay.from_predictions(
        ["b", "a", "new", "new"], errors, labels=["a", "b"], ax=ax
    )
    assert display.class_labels == ["a", "b", "new"]
    np.testing.assert_allclose(display.errors, [[0.8, 0.1, 0.6], [0.2, 0.9, 0.5]])


def test_cross_errors_of_an_inversion(ax):
    _, found = untrained()
    display = CrossErrorDisplay.from_inversion(found, list("cabc"), ax=ax)
    assert (display.module_labels, display.class_labels) == (list("abc"), list("abc"))
    np.testing.assert_allclose(display.errors[:, 2], found.errors[[0, 3]].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(display.errors[:, 0], found.errors[1], rtol=1e-6)


def test_cross_settings_of_the_plot(ax):
    display = CrossErrorDisplay([[1.0, 2.0], [3.0, 4.0]], module_labels=["a", "b"]).plot(
        ax,
        values_format=".1f",
        mark_minima=False,
        log_scale=False,
        cmap="magma",
        colorbar=False,
        xticks_rotation="vertical",
        im_kw={"vmin": -1},
        text_kw={"color": "red"},
    )
    assert display.text_[0, 0].get_text() == "1.0"
    assert display.text_[0, 0].get_color() == "red"
    assert display.row_minima_ is display.column_minima_ is display.colorbar_ is None
    assert not isinstance(display.im_.norm, LogNorm)
    assert display.im_.get_clim() == (-1, 4)
    assert ax.get_xticklabels()[0].get_rotation() == 90


@pytest.mark.parametrize("errors", [[[0.0, 1.0]], [[np.nan, np.inf]], [[2.0, 2.0]]])
def test_awkward_errors_are_drawn(errors, ax):
    display = CrossErrorDisplay(errors).plot(ax)
    ax.figure.canvas.draw()
    assert isinstance(display.im_.norm, LogNorm) == (errors == [[2.0, 2.0]])


def test_many_classes_have_no_values(ax):
    assert CrossErrorDisplay(np.ones((13, 13))).plot(ax).text_ is None


def test_wrong_cross_errors():
    with pytest.raises(ValueError, match=r"CrossErrorDisplay: errors must have shape .*got \(3,\)"):
        CrossErrorDisplay(np.ones(3))
    with pytest.raises(ValueError, match=r"module_labels must have length 2, got 1"):
        CrossErrorDisplay(np.ones((2, 2)), module_labels=["a"])
    with pytest.raises(ValueError, match=r"class_labels must have length 2, got 3"):
        CrossErrorDisplay(np.ones((2, 2)), class_labels="abc")
    make = CrossErrorDisplay.from_predictions
    with pytest.raises(ValueError, match=r"from_predictions: y_true must have shape \(4,\)"):
        make(list("abc"), np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"labels must name 2 modules, got 3"):
        make(list("abca"), np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"errors must have shape \(n_samples, n_modules\)"):
        make(list("abca"), np.ones(4))


# -- latent paths --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"label": "wave", "bank": 1, "n_iter": 30}])
def test_lines_are_the_history(settings, fitted, ax):
    X, y = curves(seed=1)
    estimator = fitted()
    display = LatentPathDisplay.from_estimator(estimator, X, y, index=6, ax=ax, **settings)
    label = settings.get("label", estimator.predict(X[6:7])[0])
    found = estimator.invert(
        X[6:7],
        bank=settings.get("bank", 0),
        n_iter=settings.get("n_iter", estimator.n_iter),
        return_history=True,
    )
    expected = found.latent_history[:, 0, estimator.bank_.index(label)]
    assert (display.module_label, display.true_label) == (label, "line")
    assert len(display.lines_) == 3
    for k, line in enumerate(display.lines_):
        steps = np.arange(len(expected))
        np.testing.assert_array_equal(points(line), np.stack([steps, expected[:, k]], axis=1))


def test_ternary_path(ax):
    _, found = untrained(n_iter=5, return_history=True)
    display = LatentPathDisplay.from_inversion(found, index=1, which=2, ax=ax, kind="ternary")
    z = found.latent_history[:, 1, 2].astype(float)
    expected = np.stack([z[:, 1] + z[:, 2] / 2, z[:, 2] * np.sqrt(3) / 2], axis=1)
    (line,) = display.lines_
    np.testing.assert_allclose(points(line), expected, atol=1e-7)
    np.testing.assert_array_equal(points(display.start_), points(line)[:1])
    np.testing.assert_array_equal(points(display.end_), points(line)[-1:])
    assert {"type 0", "type 1", "type 2"} <= {text.get_text() for text in ax.texts}


def test_best_module_and_true_label(ax):
    _, found = untrained(n_types=9, return_history=True)
    display = LatentPathDisplay.from_inversion(found, index=3, y_true=list("abcd"), ax=ax)
    assert display.module_label == found.predictions[3]
    assert display.true_label == "d"
    assert len({(line.get_color(), line.get_linestyle()) for line in display.lines_}) == 9


def test_line_settings_and_names(ax):
    display = LatentPathDisplay(np.full((3, 2), 0.5), component_labels=["A", "B"])
    display.plot(ax, line_kw={"linewidth": 5})
    assert [line.get_label() for line in display.lines_] == ["A", "B"]
    assert {line.get_linewidth() for line in display.lines_} == {5}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["A", "B"]


def test_wrong_latent_paths(fitted, ax):
    _, found = untrained()
    with pytest.raises(ValueError, match=r"inversion must hold its history: .*return_history=True"):
        LatentPathDisplay.from_inversion(found)
    _, found = untrained(return_history=True)
    for which in ("all", 3, [0]):
        with pytest.raises(ValueError, match=r"which must be"):
            LatentPathDisplay.from_inversion(found, which=which)
    with pytest.raises(ValueError, match=r"index must be an integer from -4 to 3"):
        LatentPathDisplay.from_inversion(found, index=9)
    with pytest.raises(ValueError, match=r"LatentPathDisplay: latents must have shape .*\(4,\)"):
        LatentPathDisplay(np.ones(4))
    with pytest.raises(ValueError, match=r"component_labels must have length 2, got 1"):
        LatentPathDisplay(np.ones((4, 2)), component_labels=["a"])
    with pytest.raises(ValueError, match=r"kind must be 'lines' or 'ternary', got 'line'"):
        LatentPathDisplay(np.ones((4, 2))).plot(ax, kind="line")
    with pytest.raises(ValueError, match=r"kind 'ternary' must have 3 types, got 2"):
        LatentPathDisplay(np.ones((4, 2))).plot(ax, kind="ternary")
    with pytest.raises(ValueError, match=r"latents of at least 0 with sum 1, got sums from 3"):
        LatentPathDisplay(np.ones((4, 3))).plot(ax, kind="ternary")
    with pytest.raises(ValueError, match=r"label must be among the classes .*, got 'x'"):
        LatentPathDisplay.from_estimator(fitted(), *curves(), label="x")
    with pytest.raises(ValueError, match=r"bank must be an integer from 0 to 1, got None"):
        LatentPathDisplay.from_estimator(fitted(), *curves(), bank=None)
