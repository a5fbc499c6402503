"""Pictures: what is marked, how values are shown, that files are whole; tiny untrained modules."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from micfast import GeneratorBank, invert
from micfast.data import Standardizer
from micfast.plots import choose_examples, plot_reconstructions, save_figure


def make(n_modules=3, n_channels=2, n_steps=20, n=4, classes=None):
    bank = GeneratorBank.random(
        n_modules,
        hidden_size=5,
        input_size=4,
        output_size=n_channels,
        seeds=range(n_modules),
        classes=classes,
    )
    targets = np.random.default_rng(0).normal(size=(n, n_steps, n_channels)).cumsum(axis=1)
    return targets, invert(bank, targets, n_iter=3)


def texts(fig):
    return [text.get_text() for text in fig.axes[0].texts]


def frames(fig, gid):
    return [patch for patch in fig.axes[0].patches if patch.get_gid() == gid]


def n_frames(fig):
    gids = ("panel", "winner-right", "winner-wrong", "truth-missed")
    return tuple(len(frames(fig, gid)) for gid in gids)


def rendered(fig, tmp_path):
    save_figure(fig, tmp_path / "picture.png")
    pixels = imread(tmp_path / "picture.png")[..., :3]
    width, height = fig.get_size_inches() * fig.dpi
    assert pixels.shape[:2] == (int(height), int(width))
    return pixels


def overlaps(fig):
    """Pairs of texts whose boxes on the page overlap, and texts that leave the page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(fig).get_renderer()
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in fig.axes[0].texts]
    page = fig.bbox
    found = [
        text
        for text, box in boxes
        if box.x0 < 0 or box.y0 < 0 or box.x1 > page.x1 or box.y1 > page.y1
    ]
    for i, (text, a) in enumerate(boxes):
        for other, b in boxes[:i]:
            across = min(a.x1, b.x1) - max(a.x0, b.x0)
            if across > 0 and min(a.y1, b.y1) > max(a.y0, b.y0):
                found.append((text, other))
    return found


@pytest.mark.parametrize(
    ("n_modules", "n_channels", "width"),
    [(20, 2, 1600), (10, 28, 1600), (10, 8, 1600), (12, 1, 1600), (26, 2, 1600), (2, 3, 1111)],
)
def test_size_and_content(n_modules, n_channels, width, tmp_path):
    targets, inversion = make(n_modules, n_channels)
    fig = plot_reconstructions(targets, inversion, y_true=[0, 1, 0, 1], title="A title")
    pixels = rendered(fig, tmp_path)
    assert abs(pixels.shape[1] - width) <= 1
    assert pixels.mean() > 0.8  # a light page
    assert (pixels.min(axis=-1) < 0.5).mean() > 0.002  # with ink on it
    assert sum(n_frames(fig)) == 4 * n_modules
    assert overlaps(fig) == []


def test_right_and_wrong_decisions_are_marked():
    targets, inversion = make(classes=["a", "b", "c"])
    best = inversion.predictions
    wrong = "a" if best[1] != "a" else "b"
    fig = plot_reconstructions(
        targets, inversion, indices=[0, 1], y_true=[best[0], wrong, "a", "a"]
    )
    assert n_frames(fig) == (3, 1, 1, 1)
    assert frames(fig, "winner-right")[0].get_edgecolor() == (
        frames(fig, "truth-missed")[0].get_edgecolor()
    )
    assert frames(fig, "winner-wrong")[0].get_edgecolor() != (
        frames(fig, "winner-right")[0].get_edgecolor()
    )
    assert frames(fig, "truth-missed")[0].get_linestyle() != "solid"
    shown = texts(fig)
    assert f"target: {best[0]}" in shown
    assert f"target: {wrong}" in shown
    assert f"\N{CHECK MARK} decided: {best[0]}" in shown
    assert f"\N{BALLOT X} decided: {best[1]}" in shown


def test_errors_are_those_of_the_inversion_and_the_winner_stands_where_its_error_is():
    targets, inversion = make()
    fig = plot_reconstructions(targets, inversion, indices=[2])
    values = [float(t) for t in texts(fig) if t.replace(".", "", 1).isdigit() and "." in t]
    np.testing.assert_allclose(values, inversion.errors[2], rtol=0.01, atol=5e-4)
    (winner,) = frames(fig, "winner-right")
    lowest = next(t for t in fig.axes[0].texts if t.get_text() == f"{values[inversion.best[2]]}")
    assert winner.get_x() < lowest.get_position()[0] < winner.get_x() + winner.get_width()


def test_unknown_true_class_and_no_decision():
    targets, inversion = make()
    targets[1, 3] = np.nan
    inversion = invert(inversion.bank, targets, n_iter=3)
    fig = plot_reconstructions(targets, inversion, y_true=[7, 7, 7, 7], max_targets=2)
    assert n_frames(fig) == (5, 0, 1, 0)
    assert texts(fig).count("invalid") == 3
    assert "no decision" in texts(fig)
    assert "target: 7" in texts(fig)


def test_without_truth_nothing_is_called_right_or_wrong():
    targets, inversion = make()
    shown = " ".join(texts(plot_reconstructions(targets, inversion)))
    assert "right" not in shown
    assert "wrong" not in shown


def test_images_are_drawn_as_images_on_one_scale():
    targets, inversion = make(n_channels=8, n_steps=8)
    images = plot_reconstructions(targets, inversion).axes[0].images
    assert len(images) == 4 * (3 + 1)
    assert {image.get_clim() for image in images} == {(targets.min(), targets.max())}
    np.testing.assert_array_equal(images[0].get_array(), targets[0])


def test_paths_keep_their_shape_and_start_with_a_dot():
    targets, inversion = make()
    fig = plot_reconstructions(targets, inversion, max_targets=1)
    line, dot = fig.axes[0].lines[:2]
    page, start = np.stack(line.get_data(), axis=1), np.stack(dot.get_data(), axis=1)
    np.testing.assert_allclose(page[0], start[0])
    scale = np.ptp(page, axis=0) / np.ptp(targets[0], axis=0)
    np.testing.assert_allclose(scale[0], scale[1])  # equal aspect
    np.testing.assert_allclose(np.diff(page, axis=0), np.diff(targets[0], axis=0) * scale[0])


def test_series_have_the_target_dashed_behind():
    targets, inversion = make(n_channels=1)
    lines = plot_reconstructions(targets[..., 0], inversion, max_targets=1).axes[0].lines
    assert len(lines) == 1 + 2 * 3
    assert [line.is_dashed() for line in lines] == [False] + [True, False] * 3


def test_standardizer_is_undone():
    targets, _ = make()
    standardizer = Standardizer("channel").fit(targets * [1.0, 10.0])
    Z = standardizer.transform(targets * [1.0, 10.0])
    bank = GeneratorBank.random(2, hidden_size=3, input_size=4, output_size=2, seeds=[0, 1])
    inversion = invert(bank, Z, n_iter=1)
    fig = plot_reconstructions(Z, inversion, standardizer=standardizer, max_targets=1)
    page = np.stack(fig.axes[0].lines[0].get_data(), axis=1)
    expected = np.ptp(targets[0] * [1.0, 10.0], axis=0)
    ratio = np.ptp(page, axis=0) / expected
    np.testing.assert_allclose(ratio[0], ratio[1])


def test_tensors_and_names():
    targets, inversion = make()
    tensors = torch.from_numpy(targets)
    fig = plot_reconstructions(tensors, invert(inversion.bank, tensors), classes=["x", "$y", "z_"])
    assert {"x", "$y", "z_"} <= set(texts(fig))


def test_long_names_are_cut_to_their_room(tmp_path):
    name = "a class with an exceedingly long name "
    classes = [name + str(i) for i in range(10)]
    targets, inversion = make(10, 2, classes=classes)
    fig = plot_reconstructions(targets, inversion, y_true=[classes[0]] * 4, title="T " * 100)
    assert overlaps(fig) == []
    assert all(text.endswith("\N{HORIZONTAL ELLIPSIS}") for text in texts(fig) if "class w" in text)


def test_flat_and_infinite_reconstructions(tmp_path):
    targets, inversion = make()
    flat = np.zeros_like(targets)
    rendered(plot_reconstructions(flat, invert(inversion.bank, flat)), tmp_path)
    weights = [weight.clone() for weight in inversion.bank.weights]
    weights[4][0] = torch.inf
    bank = GeneratorBank(*weights)
    for kind in ("path", "image", "series"):
        rendered(plot_reconstructions(targets, invert(bank, targets), kind=kind), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "film"}, "kind must be one of auto, path, image, series, got 'film'"),
        ({"y_true": [0, 1]}, r"y_true must have shape \(4,\), got \(2,\)"),
        ({"indices": [4]}, r"indices must lie below n_samples = 4"),
        ({"indices": []}, "indices must name at least one target"),
        ({"classes": ["a"]}, "classes must name 3 modules, got 1"),
        ({"max_targets": 0}, "max_targets must be at least 1, got 0"),
        ({"panels_per_line": 0}, "panels_per_line must be at least 1, got 0"),
        ({"targets": np.zeros((3, 20, 2))}, r"targets must have shape .* = 4, got \(3, 20, 2\)"),
    ],
)
def test_errors(change, message):
    targets, inversion = make()
    with pytest.raises(ValueError, match=message):
        plot_reconstructions(**{"targets": targets, "inversion": inversion, **change})


def test_path_needs_two_channels():
    targets, inversion = make(n_channels=3)
    with pytest.raises(ValueError, match="kind 'path' must have 2 channels"):
        plot_reconstructions(targets, inversion, kind="path")


def test_choose_examples_takes_many_classes_and_a_mistake():
    rng = np.random.default_rng(1)
    y_true = rng.integers(0, 10, 200)
    y_pred = y_true.copy()
    y_pred[:9] = (y_true[:9] + 1) % 10
    for seed in range(20):
        chosen = choose_examples(y_true, y_pred, 6, seed)
        wrong = y_true[chosen] != y_pred[chosen]
        assert wrong.tolist() == [False] * 5 + [True]
        assert len(set(y_true[chosen[:5]])) == 5
        assert (np.diff(y_true[chosen[:5]]) > 0).all()
        np.testing.assert_array_equal(chosen, choose_examples(y_true, y_pred, 6, seed))
    assert len({tuple(choose_examples(y_true, y_pred, 6, s)) for s in range(20)}) > 10


def test_choose_examples_at_the_borders():
    right, wrong = ["a", "b", "c"], ["b", "c", "a"]
    assert sorted(choose_examples(right, right, 3)) == [0, 1, 2]
    assert sorted(choose_examples(right, wrong, 2)) in ([0, 1], [0, 2], [1, 2])
    assert len(choose_examples(right, right, 10)) == 3
    assert choose_examples(right, ["a", "b", "a"], 1).tolist() != [2]
    assert choose_examples([], [], 3).tolist() == []
    with pytest.raises(ValueError, match="one and the same length"):
        choose_examples(right, ["a"], 1)
    with pytest.raises(ValueError, match="n must not be negative, got -1"):
        choose_examples(right, right, -1)


def test_save_figure_leaves_nothing_behind_when_it_fails(tmp_path):
    targets, inversion = make()
    fig = plot_reconstructions(targets, inversion, max_targets=1)
    path = tmp_path / "picture.png"
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
    with pytest.raises(ValueError, match="xyz"):
        save_figure(fig, tmp_path / "picture.xyz")
    assert len(list(tmp_path.iterdir())) == 2


def test_importing_plots_loads_no_matplotlib_and_drawing_no_pyplot():
    code = (
        "import sys, numpy as np, micfast.plots as p; assert 'matplotlib' not in sys.modules;"
        "from micfast import GeneratorBank, invert;"
        "b = GeneratorBank.random(2, hidden_size=2, input_size=2, output_size=1, seeds=[0, 1]);"
        "X = np.zeros((1, 5, 1)); p.plot_reconstructions(X, invert(b, X));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
