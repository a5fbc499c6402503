"""Pictures: what they draw is what one decision or inversion holds; nothing overlaps."""

import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from estimators import PLAIN
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.figure import Figure
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from micfast import Adam, GeneratorBank, LevenbergMarquardt, ModularInverseClassifier, Training
from micfast import invert as micfast_invert
from micfast.data import Standardizer
from micfast.plotting import (
    CrossErrorDisplay,
    LatentPathDisplay,
    ReconstructionDisplay,
    TrainingDisplay,
    choose_examples,
    plot_reconstructions,
    save_figure,
)
from micfast.search.pose import Fit

T = 12
BLUE, ORANGE = to_rgba("#0072B2"), to_rgba("#D55E00")
SETTINGS = PLAIN | {
    "n_types": 3,
    "hidden_size": 5,
    "n_modules_per_class": 2,
    "training": Training.paper(n_episodes=150, max_retries=0, learned_tol=1e6),
    "solver": LevenbergMarquardt(n_iter=4),
    "random_state": 0,
}


def curves(n_channels=2, seed=0):
    """Three classes of noisy curves, far from standard units."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, T)
    shapes = {"arch": [t, np.sin(np.pi * t)], "line": [t, t], "wave": [-t, np.sin(6 * t)]}
    mix = np.random.default_rng(9).normal(size=(2, n_channels))
    X = np.concatenate([[np.stack(s, axis=-1) @ mix] * 5 for s in shapes.values()])
    return 50 + 4 * X + 0.1 * rng.standard_normal(X.shape), np.repeat(list(shapes), 5)


@pytest.fixture(scope="module")
def fitted():
    found = {}

    def fit(n_channels=2, **settings):
        key = (n_channels, *sorted(settings.items()))
        if key not in found:
            found[key] = ModularInverseClassifier(**SETTINGS | settings).fit(*curves(n_channels))
        return found[key]

    return fit


@pytest.fixture
def ax():
    return Figure(layout="constrained").subplots()


@pytest.fixture(autouse=True, scope="module")
def no_windows():
    matplotlib.use("Agg")


def make(n_modules=3, n_channels=2, n_steps=T, n=4, n_types=3, classes=None, **settings):
    """Targets, and their inversion by untrained modules."""
    classes = list("abcdefghijklmnopqrstuvwxyz"[:n_modules]) if classes is None else classes
    sizes = {"hidden_size": 4, "input_size": n_types, "output_size": n_channels}
    bank = GeneratorBank.random(n_modules, seeds=range(n_modules), classes=classes, **sizes)
    X = np.random.default_rng(0).normal(size=(n, n_steps, n_channels)).cumsum(axis=1)
    return X, micfast_invert(bank, X, **({"solver": Adam(n_iter=3)} | settings))


def points(line):
    return np.stack(line.get_data(), axis=-1)


def texts(fig):
    """All but tick labels, of which matplotlib keeps some that it doesn't draw."""
    ticks = fig.findobj(matplotlib.axis.Tick)
    unsure = {label for tick in ticks for label in (tick.label1, tick.label2)}
    found = fig.findobj(lambda a: isinstance(a, matplotlib.text.Text) and a not in unsure)
    return [text for text in found if text.get_text().strip()]


def words(fig):
    return [text.get_text() for text in texts(fig)]


def panels(fig, gid):
    return [ax for ax in fig.findobj(matplotlib.axes.Axes) if ax.get_gid() == gid]


def overlaps(fig):
    """Pairs of visible texts that overlap when drawn, and texts that leave the page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(fig).draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in dict.fromkeys(texts(fig))]
    page = fig.bbox
    found = [t for t, b in boxes if min(*b.p0, *(page.p1 - b.p1)) < -0.5]
    for i, (text, a) in enumerate(boxes):
        for other, b in boxes[:i]:
            shared = np.minimum(a.p1, b.p1) - np.maximum(a.p0, b.p0)
            if shared.min() > 0.5:
                found.append((text, other))
    return found


# -- all displays --------------------------------------------------------------------------------


DISPLAYS = [ReconstructionDisplay, CrossErrorDisplay, LatentPathDisplay]
each_display = pytest.mark.parametrize("display_type", DISPLAYS)


@each_display
def test_given_axes_are_used_and_pyplot_only_without(display_type, fitted, ax):
    import matplotlib.pyplot as plt

    X, y = curves(seed=1)
    rc = dict(matplotlib.rcParams)
    display = display_type.from_estimator(fitted(), X, y, ax=ax)
    assert dict(matplotlib.rcParams) == rc
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert plt.get_fignums() == []
    assert overlaps(ax.figure) == []
    assert display.plot() is display
    assert len(plt.get_fignums()) == 1
    assert plt.gcf() is display.figure_
    with pytest.raises(TypeError, match=r"plot: ax must be a matplotlib Axes, got Figure"):
        display.plot(Figure())
    plt.close("all")


@each_display
def test_the_estimator_is_asked_once(display_type, fitted, ax, monkeypatch):
    X, y = curves(seed=1)
    estimator, searches = fitted(), []

    def counted(name):
        method = getattr(ModularInverseClassifier, name)

        def call(self, *args, **kwargs):
            searches.append(name)
            return method(self, *args, **kwargs)

        return call

    for name in ("decide", "invert", "predict", "transform", "reconstruct"):
        monkeypatch.setattr(ModularInverseClassifier, name, counted(name))
    display_type.from_estimator(estimator, X, y, ax=ax)
    assert searches == ["invert" if display_type is LatentPathDisplay else "decide"]


@each_display
def test_estimator_and_labels_must_fit(display_type, fitted):
    X, y = curves()
    with pytest.raises(TypeError, match=r"from_estimator: estimator must be .*, got LogisticReg"):
        display_type.from_estimator(LogisticRegression(), X, y)
    with pytest.raises(NotFittedError):
        display_type.from_estimator(ModularInverseClassifier(), X, y)
    with pytest.raises(ValueError, match=r"must have shape \(15,\), got \(14,\)"):
        display_type.from_estimator(fitted(), X, y[1:])


@each_display
def test_tensors_frames_pipelines_and_searches(display_type, fitted, ax):
    X, y = curves(n_channels=1)
    estimator, flat = fitted(1), X[..., 0]

    def drawn(given, values):
        display = display_type.from_estimator(given, values, y, ax=ax)
        return getattr(display, "latents" if hasattr(display, "latents") else "errors")

    expected = drawn(estimator, X)
    search = GridSearchCV(estimator, {})
    search.best_estimator_ = estimator
    behind = make_pipeline(FunctionTransformer(lambda X: X / 2).fit(flat), estimator)
    for given, values in (
        (estimator, torch.from_numpy(X)),
        (estimator, flat),
        (estimator, list(X)),
        (estimator, pd.DataFrame(flat)),
        (make_pipeline(estimator), flat),
        (search, flat),
        (behind, 2 * flat),
    ):
        np.testing.assert_array_equal(drawn(given, values), expected)


@pytest.mark.parametrize("display_type", [ReconstructionDisplay, LatentPathDisplay])
def test_index(display_type, fitted, ax):
    X, y = curves(seed=1)
    with pytest.raises(ValueError, match=r"index must be an integer from -15 to 14, got 15"):
        display_type.from_estimator(fitted(), X, y, index=15)
    assert display_type.from_estimator(fitted(), X, y, index=-1, ax=ax).true_label == y[-1]


@pytest.mark.slow
def test_importing_loads_no_matplotlib_and_pages_no_pyplot():
    code = (
        "import sys, numpy as np, micfast, micfast.plotting as p;"
        "assert 'matplotlib' not in sys.modules;"
        "sizes = dict(hidden_size=2, input_size=2, output_size=1);"
        "b = micfast.GeneratorBank.random(2, seeds=[0, 1], **sizes);"
        "X = np.zeros((1, 5, 1)); p.plot_reconstructions(X, micfast.invert(b, X));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- reconstructions -----------------------------------------------------------------------------


def test_stroke_is_the_winners(fitted, ax):
    X, y = curves(seed=1)
    decision = fitted().decide(X[7:8])
    best = int(decision.best[0])
    module = int(decision.module_errors[:, 0, best].argmin())
    display = ReconstructionDisplay.from_estimator(fitted(), X, y, index=7, ax=ax)
    assert display.axes_.tolist() == [ax]
    ((target,),), ((drawn,),) = display.target_artists_, display.reconstruction_artists_
    np.testing.assert_array_equal(points(target), X[7])
    np.testing.assert_array_equal(points(drawn), decision.reconstructions(module=module)[0])
    assert display.errors.tolist() == [decision.errors[0, best]]
    assert display.labels == [display.predicted_label] == decision.labels.tolist()
    assert (display.true_label, ax.get_aspect()) == ("line", 1.0)


def test_every_module_of_some_classes(fitted, ax):
    X, y = curves(seed=1)
    decision = fitted().decide(X[3:4])
    settings = {"labels": ["wave", "arch"], "module": "all"}
    display = ReconstructionDisplay.from_estimator(fitted(), X, y, index=3, ax=ax, **settings)
    assert display.names == ["wave (0)", "wave (1)", "arch (0)", "arch (1)"]
    for i, (label, r) in enumerate([("wave", 0), ("wave", 1), ("arch", 0), ("arch", 1)]):
        (line,) = display.reconstruction_artists_[i]
        expected = decision.reconstructions(label, module=r)[0]
        np.testing.assert_array_equal(points(line), expected)
        c = decision.classes.tolist().index(label)
        assert display.errors[i] == decision.module_errors[r, 0, c]
        assert display.axes_[i].get_title() == f"{label} ({r})"
        assert display.axes_[i].get_xlabel() == f"{display.errors[i]:.3g}"[:5]
    assert overlaps(ax.figure) == []


def test_best_classes_are_those_of_the_decision(fitted, ax):
    X, y = curves(seed=1)
    decision = fitted().decide(X[12:13])
    display = ReconstructionDisplay.from_estimator(fitted(), X, y, index=12, n_best=3, ax=ax)
    order = decision.errors[0].argsort()
    assert display.labels == decision.classes[order].tolist()
    np.testing.assert_array_equal(display.errors, decision.errors[0, order])
    one = ReconstructionDisplay.from_estimator(fitted(), X, index=12, module=1, ax=ax)
    assert one.errors.tolist() == [decision.module_errors[1, 0, order[0]]]
    assert one.true_label is None


@pytest.mark.slow
@pytest.mark.parametrize(("label", "shown"), [(None, "rejected"), ("none", "decided: none")])
def test_rejected_sequence(label, shown, fitted, ax):
    X, y = curves()
    estimator = fitted(reject=0.5, reject_label=label)
    display = ReconstructionDisplay.from_estimator(estimator, X + 1000, y, n_best=3, ax=ax)
    assert display.predicted_label == label
    assert f"target: arch, {shown}, grey: target" in words(ax.figure)
    gids = sorted(panel.get_gid() for panel in display.axes_)
    assert gids == ["missed", "plain", "plain"]


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_series_over_time(n_channels, fitted, ax):
    X, y = curves(n_channels, seed=1)
    display = ReconstructionDisplay.from_estimator(
        fitted(n_channels), X, y, index=2, n_best=2, ax=ax, kind="series"
    )
    artists = zip(display.target_artists_, display.reconstruction_artists_, strict=True)
    for (behind, front), drawn in zip(artists, display.reconstructions, strict=True):
        assert len(behind) == len(front) == n_channels
        for c in range(n_channels):
            expected = np.stack([np.arange(T), X[2, :, c]], axis=1)
            np.testing.assert_array_equal(points(behind[c]), expected)
            np.testing.assert_array_equal(front[c].get_ydata(), drawn[:, c])
            assert behind[c].is_dashed()
    assert len({panel.get_ylim() for panel in display.axes_}) == 1
    assert overlaps(ax.figure) == []


def test_images_are_beside_the_target_on_one_scale(fitted, ax):
    X, y = curves(9, seed=1)
    display = ReconstructionDisplay.from_estimator(fitted(9), X, y, index=2, n_best=2, ax=ax)
    assert len(display.axes_) == 3
    ((target,),), drawn = display.target_artists_, display.reconstruction_artists_
    np.testing.assert_array_equal(target.get_array(), X[2])
    for (image,), expected in zip(drawn, display.reconstructions, strict=True):
        np.testing.assert_array_equal(image.get_array(), expected)
        assert image.get_clim() == target.get_clim() == (X[2].min(), X[2].max())


def test_frames_show_right_and_wrong():
    def looks(**labels):
        display = ReconstructionDisplay(
            np.zeros((5, 2)), np.ones((3, 5, 2)), labels="abc", **labels
        )
        display.plot(Figure().subplots())
        spines = [panel.spines["top"] for panel in display.axes_]
        return [(s.get_edgecolor(), s.get_linestyle() == "-") for s in spines]

    plain = looks()[0]
    assert looks(predicted_label="b") == [plain, (BLUE, True), plain]
    assert looks(predicted_label="b", true_label="b") == [plain, (BLUE, True), plain]
    assert looks(predicted_label="b", true_label="c")[1:] == [(ORANGE, True), (BLUE, False)]


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(("which", "modules"), [("all", [0, 1, 2]), (1, [1]), ([2, 0], [2, 0])])
def test_from_inversion(which, modules, as_tensor, ax):
    X, found = make()
    standardizer = Standardizer("global").fit(X)
    Z = standardizer.transform(X).astype(np.float32)
    Z = torch.from_numpy(Z) if as_tensor else Z
    found = micfast_invert(found.bank, Z, solver=Adam(n_iter=3))
    display = ReconstructionDisplay.from_inversion(
        Z, found, index=-2, which=which, y_true=list("abca"), standardizer=standardizer, ax=ax
    )
    assert display.labels == [found.classes[m] for m in modules]
    np.testing.assert_array_equal(display.errors, np.asarray(found.errors)[2, modules])
    expected = standardizer.inverse_transform(np.asarray(found.reconstructions("all"))[2])
    np.testing.assert_allclose(display.reconstructions, expected[modules], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(display.target, X[2], rtol=1e-5, atol=1e-6)
    assert (display.predicted_label, display.true_label) == (found.predictions[2], "c")


@pytest.mark.slow
def test_unequal_lengths_end_where_they_end(fitted, ax):
    X, found = make()
    sequences = [X[0], X[1, :5], X[2, :8]]
    found = micfast_invert(found.bank, sequences)
    display = ReconstructionDisplay.from_inversion(sequences, found, index=1, which="all", ax=ax)
    assert display.target.shape == (5, 2)
    assert np.isfinite(display.reconstructions).all()
    fig = plot_reconstructions(sequences, found)
    assert [len(ax.lines[0].get_xdata()) for ax in panels(fig, "target")] == [T, 5, 8]
    padded, y = curves(seed=1)
    padded[4, 7:] = np.nan
    display = ReconstructionDisplay.from_estimator(fitted(), padded, y, index=4, ax=ax)
    expected = fitted().decide([padded[4, :7]])
    assert display.reconstructions.shape == (1, 7, 2)
    assert display.errors[0] == expected.errors[0].min()


def test_nan_is_drawn_as_invalid(ax):
    X, found = make()
    X[1, 3] = np.nan
    found = micfast_invert(found.bank, X)
    display = ReconstructionDisplay.from_inversion(X, found, index=1, which="all", ax=ax)
    assert display.predicted_label is None
    assert display.axes_[0].get_xlabel() == "invalid"
    assert overlaps(ax.figure) == []
    with pytest.raises(ValueError, match="which must not be 'best' for target 1"):
        ReconstructionDisplay.from_inversion(X, found, index=1)


@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_module_that_draws_far_out_leaves_the_target_large(n_channels, ax):
    target = np.repeat(np.linspace(0, 1, 10)[:, None], n_channels, axis=1)
    ReconstructionDisplay(target, 1e6 * target[None]).plot(ax)
    low, high = ax.get_ylim()
    assert 1 < high - low < 5
    assert low < 0.5 < high


def test_settings_of_the_plot(ax):
    display = ReconstructionDisplay(np.zeros((5, 1)), np.ones((4, 5, 1)))
    display.plot(ax, n_columns=2, line_kw={"linewidth": 7})
    assert {line.get_linewidth() for (line,) in display.reconstruction_artists_} == {7}
    assert len({panel.get_position().x0 for panel in display.axes_}) == 2
    display = ReconstructionDisplay(np.zeros((5, 9)), np.ones((1, 5, 9)))
    display.plot(ax, im_kw={"cmap": "magma"})
    assert display.target_artists_[0][0].get_cmap().name == "magma"
    with pytest.raises(ValueError, match="ax must have a place in a grid"):
        display.plot(Figure().add_axes((0, 0, 1, 1)))
    with pytest.raises(ValueError, match="kind 'path' must have 2 channels"):
        display.plot(ax, kind="path")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": np.zeros((2, 3, 4))}, r"target must have shape .*, got \(2, 3, 4\)"),
        ({"reconstructions": np.zeros((2, 4, 2))}, r"reconstructions must .*\(\*, 5, 2\)"),
        ({"reconstructions": np.zeros((0, 5, 2))}, r"reconstructions must have shape"),
        ({"errors": [1.0]}, r"errors must have length 2, got 1"),
        ({"labels": "abc"}, r"labels must have length 2, got 3"),
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
        ({"n_best": 4}, r"n_best must be an integer from 1 to 3, got 4"),
        ({"module": 2}, r"module must be an integer from 0 to 1, got 2"),
        ({"kind": "images"}, r"kind must be 'auto', 'path', 'image' or 'series', got 'images'"),
        ({"n_columns": 0}, r"n_columns must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_settings(arguments, message, fitted):
    with pytest.raises(ValueError, match=f"ReconstructionDisplay.*: {message}"):
        ReconstructionDisplay.from_estimator(fitted(), *curves(), **arguments)


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
    X, found = make()
    with pytest.raises(ValueError, match=message):
        ReconstructionDisplay.from_inversion(**{"targets": X, "inversion": found} | arguments)


# -- cross errors --------------------------------------------------------------------------------


def test_cross_errors_are_means_of_the_decisions(fitted, ax):
    X, y = curves(seed=1)
    decision = fitted().decide(X)
    display = CrossErrorDisplay.from_estimator(fitted(), X, y, ax=ax)
    expected = np.stack([decision.errors[y == c].mean(axis=0) for c in decision.classes], axis=1)
    np.testing.assert_array_equal(display.errors, expected)
    np.testing.assert_array_equal(display.im_.get_array(), expected)
    shown = [[text.get_text() for text in row] for row in display.text_]
    assert shown == [[f"{value:.2g}" for value in row] for row in expected]
    assert isinstance(display.im_.norm, LogNorm)
    for axis in (ax.xaxis, ax.yaxis):
        assert [t.get_text() for t in axis.get_ticklabels()] == decision.classes.tolist()
    assert display.colorbar_.mappable is display.im_


def test_minima_are_marked(ax):
    errors = np.array([[3.0, 1.0, 9.0], [2.0, 4.0, 0.5], [np.nan, np.nan, np.nan]])
    display = CrossErrorDisplay(errors).plot(ax, include_values=False)
    assert points(display.row_minima_).tolist() == [[1, 0], [2, 1]]
    assert points(display.column_minima_).tolist() == [[0, 1], [1, 0], [2, 1]]
    assert display.text_ is None
    shifted = CrossErrorDisplay(errors).plot(Figure().subplots())
    moved = points(shifted.row_minima_) - points(display.row_minima_)
    np.testing.assert_allclose(moved, [[0.34, -0.34]] * 2)
    assert shifted.text_[2, 0].get_text() == "invalid"


def test_cross_errors_of_predictions_and_inversions(ax):
    errors = [[0.1, 0.9], [0.8, 0.2], [0.5, 0.6], [0.7, 0.4]]
    y = ["b", "a", "new", "new"]
    display = CrossErrorDisplay.from_predictions(y, errors, labels=["a", "b"], ax=ax)
    assert display.class_labels == ["a", "b", "new"]
    np.testing.assert_allclose(display.errors, [[0.8, 0.1, 0.6], [0.2, 0.9, 0.5]])
    _, found = make()
    display = CrossErrorDisplay.from_inversion(found, list("cabc"), ax=ax)
    assert (display.module_labels, display.class_labels) == (list("abc"), list("abc"))
    np.testing.assert_allclose(display.errors[:, 2], found.errors[[0, 3]].mean(axis=0), rtol=1e-6)


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
    text = display.text_[0, 0]
    assert (text.get_text(), text.get_color()) == ("1.0", "red")
    assert display.row_minima_ is display.column_minima_ is display.colorbar_ is None
    assert (display.im_.get_clim(), display.im_.get_cmap().name) == ((-1, 4), "magma")
    assert ax.get_xticklabels()[0].get_rotation() == 90
    assert CrossErrorDisplay(np.ones((13, 13))).plot(ax).text_ is None  # many classes


@pytest.mark.parametrize("errors", [[[0.0, 1.0]], [[np.nan, np.inf]], [[2.0, 2.0]]])
def test_awkward_errors_are_drawn(errors, ax):
    display = CrossErrorDisplay(errors).plot(ax)
    ax.figure.canvas.draw()
    assert isinstance(display.im_.norm, LogNorm) == (errors == [[2.0, 2.0]])


def test_wrong_cross_errors():
    with pytest.raises(ValueError, match=r"CrossErrorDisplay: errors must have shape .*got \(3,\)"):
        CrossErrorDisplay(np.ones(3))
    with pytest.raises(ValueError, match=r"module_labels must have length 2, got 1"):
        CrossErrorDisplay(np.ones((2, 2)), module_labels=["a"])
    with pytest.raises(ValueError, match=r"from_predictions: y_true must have shape \(4,\)"):
        CrossErrorDisplay.from_predictions(list("abc"), np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"labels must have length 2, got 3"):
        CrossErrorDisplay.from_predictions(list("abca"), np.ones((4, 2)))


# -- latent paths --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"label": "wave", "module": 1, "solver": LevenbergMarquardt(n_iter=9)}]
)
def test_lines_are_the_history(settings, fitted, ax):
    X, y = curves(seed=1)
    display = LatentPathDisplay.from_estimator(fitted(), X, y, index=6, ax=ax, **settings)
    module, solver = settings.get("module", 0), settings.get("solver")
    found = fitted().invert(X[6:7], bank=module, solver=solver, history=True)
    label = settings.get("label", found.predictions[0])
    expected = found.latent_history[:, 0, found.classes.index(label)]
    assert (display.module_label, display.true_label) == (label, "line")
    for k, line in enumerate(display.lines_):
        steps = np.arange(len(expected))
        np.testing.assert_array_equal(points(line), np.stack([steps, expected[:, k]], axis=1))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["type 0", "type 1", "type 2"]


def test_ternary_path(ax):
    _, found = make(history=True)
    display = LatentPathDisplay.from_inversion(found, index=1, which=2, ax=ax, kind="ternary")
    z = found.latent_history[:, 1, 2].astype(float)
    expected = np.stack([z[:, 1] + z[:, 2] / 2, z[:, 2] * np.sqrt(3) / 2], axis=1)
    (line,) = display.lines_
    np.testing.assert_allclose(points(line), expected, atol=1e-7)
    np.testing.assert_array_equal(points(display.start_), points(line)[:1])
    np.testing.assert_array_equal(points(display.end_), points(line)[-1:])
    assert {"type 0", "type 1", "type 2"} <= set(words(ax.figure))


def test_many_components_and_settings(ax):
    _, found = make(n_types=9, history=True)
    display = LatentPathDisplay.from_inversion(found, index=3, y_true=list("abcd"), ax=ax)
    assert (display.module_label, display.true_label) == (found.predictions[3], "d")
    assert len({(line.get_color(), str(line.get_linestyle())) for line in display.lines_}) == 9
    display = LatentPathDisplay(np.full((3, 2), 0.5), component_labels=["A", "B"])
    display.plot(ax, line_kw={"linewidth": 5})
    assert [(line.get_label(), line.get_linewidth()) for line in display.lines_] == [
        ("A", 5),
        ("B", 5),
    ]


def test_wrong_latent_paths(fitted, ax):
    _, found = make()
    with pytest.raises(ValueError, match=r"inversion must hold its history: .*history=True"):
        LatentPathDisplay.from_inversion(found)
    _, found = make(history=True)
    with pytest.raises((TypeError, ValueError), match=r"which must be"):
        LatentPathDisplay.from_inversion(found, which="all")
    with pytest.raises(ValueError, match=r"index must be an integer from -4 to 3"):
        LatentPathDisplay.from_inversion(found, index=9)
    with pytest.raises(ValueError, match=r"LatentPathDisplay: latents must have shape .*\(4,\)"):
        LatentPathDisplay(np.ones(4))
    with pytest.raises(ValueError, match=r"component_labels must have length 2, got 1"):
        LatentPathDisplay(np.ones((4, 2)), component_labels=["a"])
    for latents, kind, message in (
        (np.ones((4, 2)), "line", "kind must be 'lines' or 'ternary', got 'line'"),
        (np.ones((4, 2)), "ternary", "kind 'ternary' must have 3 types, got 2"),
        (np.ones((4, 3)), "ternary", "latents of at least 0 with sum 1, got sums from 3"),
    ):
        with pytest.raises(ValueError, match=message):
            LatentPathDisplay(latents).plot(ax, kind=kind)
    with pytest.raises(ValueError, match=r"label must be among the classes .*, got 'x'"):
        LatentPathDisplay.from_estimator(fitted(), *curves(), label="x")
    with pytest.raises(ValueError, match=r"bank must be an integer from 0 to 1, got 2"):
        LatentPathDisplay.from_estimator(fitted(), *curves(), module=2)


# -- pages ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_modules", "n_channels", "width", "n"),
    [(20, 2, 8.0, 1), (10, 9, 8.0, 1), (12, 1, 8.0, 1), (2, 3, 5.5, 12)],
)
def test_pages_hold_all_panels_without_overlaps(n_modules, n_channels, width, n):
    X, found = make(n_modules, n_channels, n=n)
    fig = plot_reconstructions(X, found, y_true=["a"] * n, max_targets=12, title="A title")
    assert fig.get_size_inches()[0] == pytest.approx(width)
    n_panels = [len(panels(fig, g)) for g in ("plain", "decided", "mistaken", "missed", "target")]
    assert sum(n_panels) == n * (n_modules + 1)
    assert n_panels[-1] == n == sum(n_panels[1:3])
    assert overlaps(fig) == []


@pytest.mark.slow
def test_right_and_wrong_decisions_are_marked():
    X, found = make()
    best = found.predictions
    wrong = "a" if best[1] != "a" else "b"
    y = [best[0], wrong, "a", "a"]
    fig = plot_reconstructions(X, found, indices=[0, 1], y_true=y)
    n_panels = [len(panels(fig, g)) for g in ("plain", "decided", "mistaken", "missed")]
    assert n_panels == [3, 1, 1, 1]
    (decided,), (mistaken,), (missed,) = (
        panels(fig, gid) for gid in ("decided", "mistaken", "missed")
    )
    assert [ax.get_title() for ax in (decided, mistaken, missed)] == [best[0], best[1], wrong]
    spines = [ax.spines["left"] for ax in (decided, mistaken, missed)]
    assert [s.get_edgecolor() for s in spines] == [BLUE, ORANGE, BLUE]
    first, second = panels(fig, "target")
    assert first.get_title() == f"target: {best[0]}"
    assert first.get_xlabel() == f"\N{CHECK MARK} decided: {best[0]}"
    assert second.get_xlabel() == f"\N{BALLOT X} decided: {best[1]}"
    shown = " ".join(words(plot_reconstructions(X, found)))  # without the truth
    assert "right" not in shown
    assert "wrong" not in shown


def test_panels_show_the_inversion():
    X, found = make()
    fig = plot_reconstructions(X, found, indices=[-2])
    drawn = found.reconstructions("all")[2]
    by_name = {ax.get_title(): ax for gid in ("plain", "decided") for ax in panels(fig, gid)}
    for m, label in enumerate(found.classes):
        ax = by_name[label]
        np.testing.assert_array_equal(points(ax.lines[-1]), drawn[m])
        assert float(ax.get_xlabel()) == pytest.approx(found.errors[2, m], rel=0.01, abs=5e-4)
        assert ax.get_aspect() == 1.0
    (winner,) = panels(fig, "decided")
    np.testing.assert_array_equal(points(winner.lines[0]), X[2])  # in grey behind it
    (target,) = panels(fig, "target")
    np.testing.assert_array_equal(points(target.lines[0]), X[2])
    assert target.lines[0].get_markevery() == [0]  # a dot at the start alone


def test_standardizer_is_undone():
    X, found = make(n_channels=1)
    standardizer = Standardizer("channel").fit(X * 10 + 3)
    Z = standardizer.transform(X * 10 + 3)
    found = micfast_invert(found.bank, Z)
    fig = plot_reconstructions(Z[..., 0], found, standardizer=standardizer, max_targets=1)
    (target,) = panels(fig, "target")
    np.testing.assert_allclose(target.lines[0].get_ydata(), X[0, :, 0] * 10 + 3, rtol=1e-5)
    (winner,) = panels(fig, "decided")
    assert [line.is_dashed() for line in winner.lines] == [True, False]


def test_images_on_one_scale():
    X, found = make(n_channels=8, n_steps=8)
    images = plot_reconstructions(X, found).findobj(matplotlib.image.AxesImage)
    images = list(dict.fromkeys(images))
    assert len(images) == 4 * (3 + 1)
    assert {image.get_clim() for image in images} == {(X.min(), X.max())}


def test_unknown_true_class_and_no_decision():
    X, found = make()
    X[1, 3] = np.nan
    found = micfast_invert(found.bank, X)
    fig = plot_reconstructions(torch.from_numpy(X), found, y_true=[7] * 4, max_targets=2)
    assert [len(panels(fig, g)) for g in ("plain", "decided", "mistaken", "missed")] == [5, 0, 1, 0]
    assert words(fig).count("invalid") == 3
    assert {"no decision", "target: 7"} <= set(words(fig))


@pytest.mark.slow
def test_long_names_are_cut_to_their_room():
    classes = [f"a $class$ with an exceedingly long name {i}" for i in range(10)]
    X, found = make(10, 2, classes=classes, n=1)
    fig = plot_reconstructions(X, found, y_true=[classes[0]], title="T " * 100)
    assert overlaps(fig) == []
    assert all(text.endswith("\N{HORIZONTAL ELLIPSIS}") for text in words(fig) if "a $" in text)


@pytest.mark.slow
@pytest.mark.parametrize("n_channels", [1, 2, 9])
def test_words_of_a_pose_are_whole(n_channels):
    X, found = make(10, n_channels, n=2)
    ones = torch.ones(found.errors.T.shape)
    offset = torch.zeros(*ones.shape, n_channels)
    found = replace(found, fit=Fit(ones, -12 * ones, 1.14 * ones, 0.85 * ones, offset))
    fig = plot_reconstructions(X, found)
    shown = " ".join(panels(fig, "target")[1].get_xlabel().split())
    assert shown.endswith("12 steps early 14 % faster 15 % smaller")
    assert overlaps(fig) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["path", "image", "series"])
def test_flat_and_infinite_reconstructions(kind):
    X, found = make(n=1)
    flat = np.zeros_like(X)
    plot_reconstructions(flat, micfast_invert(found.bank, flat), kind=kind)
    weights = [weight.clone() for weight in found.bank.weights]
    weights[4][0] = torch.inf
    infinite = micfast_invert(GeneratorBank(type(found.bank.weights)(*weights)), X)
    assert overlaps(plot_reconstructions(X, infinite, kind=kind)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "film"}, "kind must be 'auto', 'path', 'image' or 'series', got 'film'"),
        ({"y_true": [0, 1]}, r"y_true must have shape \(4,\), got \(2,\)"),
        ({"indices": [4]}, r"index must be an integer from -4 to 3, got 4"),
        ({"indices": []}, "indices must name at least one target"),
        ({"max_targets": 0}, "max_targets must be an integer of at least 1, got 0"),
        ({"panels_per_line": 0}, "panels_per_line must be an integer of at least 1, got 0"),
        ({"targets": np.zeros((3, T, 2))}, r"targets must have shape .*, got \(3, 12, 2\)"),
    ],
)
def test_wrong_page_settings(change, message):
    X, found = make()
    with pytest.raises(ValueError, match=message):
        plot_reconstructions(**{"targets": X, "inversion": found, **change})


def test_choose_examples_takes_many_classes_and_a_mistake():
    rng = np.random.default_rng(1)
    y_true = rng.integers(0, 10, 200)
    y_pred = y_true.copy()
    y_pred[:9] = (y_true[:9] + 1) % 10
    for seed in range(20):
        chosen = choose_examples(y_true, y_pred, 6, seed)
        assert (y_true[chosen] != y_pred[chosen]).tolist() == [False] * 5 + [True]
        assert len(set(y_true[chosen[:5]])) == 5
        assert (np.diff(y_true[chosen[:5]]) > 0).all()
        np.testing.assert_array_equal(chosen, choose_examples(y_true, y_pred, 6, seed))
    assert len({tuple(choose_examples(y_true, y_pred, 6, s)) for s in range(20)}) > 10


def test_choose_examples_at_the_borders():
    right, wrong = ["a", "b", "c"], ["b", "c", "a"]
    assert sorted(choose_examples(right, right, 3)) == [0, 1, 2]
    assert len(choose_examples(right, wrong, 2)) == 2
    assert len(choose_examples(right, right, 10)) == 3
    assert choose_examples(right, ["a", "b", "a"], 1).tolist() != [2]
    assert choose_examples([], [], 3).tolist() == []
    with pytest.raises(ValueError, match="must have the same length"):
        choose_examples(right, ["a"], 1)
    with pytest.raises(ValueError, match="n must not be negative, got -1"):
        choose_examples(right, right, -1)


def test_save_figure_leaves_nothing_behind_when_it_fails(tmp_path):
    fig, path = Figure(), tmp_path / "picture.png"
    path.write_text("before")

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    fig.savefig, savefig = fail, fig.savefig
    with pytest.raises(KeyboardInterrupt):
        save_figure(fig, path)
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
    assert path.read_text() == "before"
    fig.savefig = savefig
    save_figure(fig, path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    save_figure(fig, tmp_path / "picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()
    save_figure(fig, tmp_path / "picture.pdf")
    assert (tmp_path / "picture.pdf").read_bytes()[:4] == b"%PDF"
    with pytest.raises(ValueError, match="xyz"):
        save_figure(fig, tmp_path / "picture.xyz")
    assert len(list(tmp_path.iterdir())) == 3


# -- training ------------------------------------------------------------------------------------


def test_training_of_the_worst_module(fitted, ax):
    clf = fitted()
    reports = clf.training_report_[1::2]
    worst = max(reports, key=lambda one: one["relative_mse"])
    display = TrainingDisplay.from_estimator(clf, module=1, ax=ax)
    assert (display.label, display.report) == (worst["label"], worst)
    np.testing.assert_array_equal(display.line_.get_ydata(), worst["loss_curve"])
    assert len(display.ax_) == 4
    # The drawings are in the units of X: their error is that of the report.
    scaled = (display.drawings - display.types) / clf.standardizer_.scale_
    assert np.square(scaled).mean() == pytest.approx(worst["mse"], rel=1e-4)
    own = TrainingDisplay.from_estimator(clf, label="wave", ax=Figure().subplots())
    assert own.label == "wave"
    assert "class wave" in own._title()


def test_training_of_shorter_types(ax):
    types = np.ones((2, 6, 1))
    types[1, 4:] = np.nan
    display = TrainingDisplay([1.0, 0.1], types, types + 0.5).plot(ax=ax, kind="series")
    assert [panel.get_xlabel() for panel in display.ax_[1:]] == ["0.250", "0.250"]
    with pytest.raises(ValueError, match="types and drawings the same shape"):
        TrainingDisplay([1.0], types, types[:1])
