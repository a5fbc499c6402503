"""Figures and report of the reproduction, from raw files made here by the contract."""

import base64
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

pd = pytest.importorskip("pandas")
pytest.importorskip("jinja2")
pytest.importorskip("statsmodels")

from micfast.experiments.paper import figures, published  # noqa: E402
from micfast.experiments.paper import report as report_module  # noqa: E402
from micfast.experiments.paper.claims import Claim, check_claims  # noqa: E402
from micfast.experiments.paper.figures import FIGURES, common, cross, draw_figures  # noqa: E402
from micfast.experiments.paper.raw import load_raw, minima  # noqa: E402
from micfast.experiments.paper.report import write_report  # noqa: E402
from micfast.experiments.paper.settings import EXPERIMENTS  # noqa: E402
from micfast.experiments.paper.tables import Table, build_tables  # noqa: E402

# Whole reports are made here; test_reproduce.py has the quick ones.
pytestmark = pytest.mark.slow

LABELS = {"mnist": list("0123456789"), "characters": list("abcdeghlmnopqrsuvwyz")}
FEW = {"mnist": list("013"), "characters": list("abz")}
N_STEPS = {"mnist": 28, "characters": 205}


def stroke(rng, n_steps, wobble=0.0):
    """A smooth closed-up curve, as a pen might draw it; (n_steps, 2)."""
    t = np.linspace(0, 1, n_steps)[:, None]
    waves = [np.sin(np.pi * k * t + p) / k for k, p in enumerate(rng.uniform(0, 6, (4, 2)), 1)]
    return sum(waves) + wobble * np.cumsum(rng.normal(size=(n_steps, 2)), axis=0) / n_steps**0.5


def sequence(data, label, rng, wobble=0.0):
    """A made-up letter or digit; its shape depends on the label alone, its wobble on ``rng``."""
    shape = np.random.default_rng(ord(label))
    if data == "characters":
        return stroke(shape, N_STEPS[data]) + 0.1 * stroke(rng, N_STEPS[data], wobble)
    points = 13.5 + 7 * stroke(shape, 60) / 1.6 + 0.8 * stroke(rng, 60, wobble)
    grid = np.stack(np.meshgrid(range(28), range(28), indexing="ij"), axis=-1)
    distance = ((grid[:, :, None] - points) ** 2).sum(axis=-1).min(axis=-1)
    return np.exp(-distance / 2)


def make_arrays(raw, data, labels, target="a"):
    rng = np.random.default_rng(3)
    near = np.array([[sequence(data, target, rng, 0.1) for _ in range(4)] for _ in range(4)])
    np.savez(
        raw / f"reconstruction-{data}.npz",
        label=np.array(target),
        types=near[0],
        types_drawn=near[0] + 0.02 * rng.normal(size=near[0].shape).cumsum(axis=1) / 5,
        types_errors=np.array([0.0021, 0.0009, 0.0123, 0.0004]),
        targets=near[1],
        targets_drawn=0.8 * near[1] + 0.2 * near[2],
        targets_latents=np.array(
            [[1, 0, 0, 0], [0.25, 0.3, 0.15, 0.3], [0.02, 0.08, 0.9, 0], [0.5, 0.5, 0, 0]]
        ),
        targets_errors=np.array([0.034, 0.12, 0.051, 0.0702]),
    )
    n = len(labels)
    errors = rng.uniform(0.1, 1.5, n)
    errors[labels.index(target)] = 0.021
    decay = np.exp(-np.arange(51) / 9)[:, None]
    np.savez(
        raw / f"decision-{data}.npz",
        label=np.array(target),
        target=sequence(data, target, rng, 0.1),
        labels=np.array(labels),
        drawn=np.array([sequence(data, label, rng, 0.1) for label in labels]),
        errors=errors,
        latents=rng.dirichlet(np.ones(4), n),
        error_history=errors + errors * rng.uniform(0.3, 3, n) * (decay - decay[-1]),
    )
    cross = {}
    for part, scale in (("train", 1.0), ("test", 1.4)):
        matrix = rng.uniform(0.2, 1.6, (n, n))
        np.fill_diagonal(matrix, rng.uniform(0.02, 0.05, n))
        cross[part] = scale * matrix
    cross["test"][1, 0], cross["test"][1, 1] = 0.011, 0.3
    np.savez(raw / f"cross-{data}.npz", labels=np.array(labels), **cross)


def make_grid(data, subset, n_seeds, labels):
    """Rows of runs.csv and of classes.csv: the paper's accuracies, give or take."""
    rng = np.random.default_rng(len(data) + len(subset))
    runs, classes = [], []
    printed = published.iterations()
    printed = printed[(printed.data == data) & (printed.subset == subset)]
    for row in printed.itertuples():
        for seed in range(n_seeds):
            for n_iter in (0, 50):
                key = (data, subset, row.noise_in, row.noise_out, seed, n_iter)
                mse = getattr(row, f"mse_{n_iter}") * rng.uniform(0.8, 1.2)
                mean = getattr(row, f"accuracy_{n_iter}") + rng.normal(0, 0.02)
                right = rng.binomial(20, np.clip(mean, 0, 1), len(labels))
                n_test = 20 * len(labels)
                runs.append((*key, n_test, right.sum(), right.sum() / n_test, mse))
                classes += [
                    (*key, label, 20, r, r / 20, mse)
                    for label, r in zip(labels, right, strict=True)
                ]
    return runs, classes


def make_raw(folder, datas=("mnist", "characters"), n_seeds=3, labels=None, arrays=True):
    """Raw files as `micfast reproduce` writes them, of made-up results."""
    labels = labels or LABELS
    raw = folder / "raw"
    raw.mkdir(parents=True)
    runs, classes, forward, baselines = [], [], [], []
    rng = np.random.default_rng(8)
    for data in datas:
        if arrays:
            make_arrays(raw, data, labels[data], labels[data][0])
        for subset in ("clustered", "random"):
            found = make_grid(data, subset, n_seeds, labels[data])
            runs += found[0]
            classes += found[1]
            for method in ("1nn-euclidean", "1nn-dtw", "minirocket"):
                for seed in range(n_seeds):
                    right = rng.binomial(400, 0.75)
                    n_train = 4 * len(labels[data])
                    baselines.append((method, data, subset, seed, n_train, 400, right, right / 400))
        for subset, accuracy in (("clustered", 0.62), ("random", 0.58), ("full", 0.97)):
            for method in ("keras-lstm", "torch-lstm"):
                for seed in range(1 if subset == "full" else min(3, n_seeds)):
                    right = rng.binomial(400, accuracy)
                    forward.append((method, data, subset, seed, 100, 80, 400, right, right / 400))
    key = ["data", "subset", "noise_in", "noise_out", "seed", "n_iter"]
    result = ["n_test", "n_correct", "accuracy"]
    for name, columns, rows in (
        ("runs", [*key, *result, "mse"], runs),
        ("classes", [*key, "label", *result, "mse"], classes),
        ("forward", ["method", "data", "subset", "seed", "epochs", "n_train", *result], forward),
        ("baselines", ["method", "data", "subset", "seed", "n_train", *result], baselines),
    ):
        pd.DataFrame(rows, columns=columns).to_csv(raw / f"{name}.csv", index=False)
    return raw


def make_manifest(**changes):
    """What `micfast reproduce` notes of a run."""
    digests = dict.fromkeys(("X_train", "y_train"), "0" * 64)
    shapes = {"X_train": [2279, 205, 2], "y_train": [2279]}
    manifest = {
        "format": "micfast-reproduce",
        "finished": True,
        "settings": {
            "experiments": ["figure7", "table13"],
            "seeds": 3,
            "budget": "default",
            "noise": [0.0, 0.0],
            "targets": {"mnist": ["3", 0], "characters": ["g", 5]},
            "data": {"mnist": {}, "characters": {}},
        },
        "data": {"characters": {"shapes": shapes, "sha256": digests}},
        "seeds": [0, 1, 2],
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "uncommitted_changes": True,
        "versions": {"micfast": "0.1.0", "python": "3.11.2", "tensorflow": None},
        "machine": {
            "cpu": "A processor",
            "cores": 2,
            "system": "Linux",
            "threads": 2,
            "isa": "avx2",
        },
        "rates": {"mnist": {"n_modules": 90, "episodes": 123456.7, "forward_steps": None}},
        "plan": {"n_units": 12, "seconds": 300.0, "original_seconds": 200000.0},
        "skipped": [{"what": "keras-lstm", "why": "needs <tensorflow>: micfast[keras]"}],
        "units": {},
        "sessions": [{"began": "2026-11-23T10:00:00+00:00", "seconds": 333.0, "n_units": 12}],
        "seconds": 333.0,
        "n_modules": 2160,
        "n_not_learned": 4,
    }
    return manifest | changes


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Raw files of both data sets with all classes."""
    return make_raw(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The same with three classes each."""
    return make_raw(tmp_path_factory.mktemp("few"), labels=FEW)


@pytest.fixture(scope="module")
def whole(full, tmp_path_factory):
    """All figures of all classes: on disk, and as matplotlib has them, by name."""
    drawn, draw = {}, figures.draw

    def keep(name, raw, results):
        drawn[name] = draw(name, raw, results)
        return drawn[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", keep)
        return draw_figures(full, tmp_path_factory.mktemp("files") / "pictures"), drawn


@pytest.fixture(scope="module")
def files(whole):
    return whole[0]


def drawings(raw, *only):
    """The figures as matplotlib has them, by name."""
    results = load_raw(raw)
    with matplotlib.style.context(["default", common.STYLE]):
        found = {name: figures.draw(name, raw, results) for name in only or FIGURES}
    return {name: drawing for name, drawing in found.items() if drawing is not None}


def shown_texts(fig):
    """Text -> its box, of those that are really drawn; ticks beyond the limits aren't."""
    boxes, draw = {}, Text.draw

    def keep(self, renderer, *args, **kwargs):
        draw(self, renderer, *args, **kwargs)
        if self.get_visible() and self.get_text().strip():
            boxes[self] = self.get_window_extent(renderer).extents

    canvas = FigureCanvasAgg(fig)
    canvas.draw()  # finds the layout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", keep)
        canvas.draw()
    return boxes


def marks(ax, colour, hollow=False):
    """(x, y) of all marks in a colour: the paper's are hollow, means are ticks."""
    marker = "D" if hollow else "|"
    found = [
        line.get_xydata()[0]
        for line in ax.lines
        if line.get_marker() == marker
        and to_hex(line.get_markeredgecolor() if hollow else line.get_color()) == colour.lower()
    ]
    return np.array(found).reshape(-1, 2)


# The whole set


def test_all_figures_are_readable_pictures(files):
    assert [file.name for file in files] == list(FIGURES)
    for file in files:
        assert (file.png.name, file.svg.name) == (f"{file.name}.png", f"{file.name}.svg")
        pixels = imread(file.png)[..., :3]
        assert pixels.shape[1] == 1400  # 7 inches at 200 dpi
        assert pixels.mean() > 0.4
        assert (pixels.min(axis=-1) < 0.5).mean() > 0.002  # with ink on it
        root = ElementTree.parse(file.svg).getroot()
        assert root.get("width") == "504pt"
        assert file.title
        assert file.caption.endswith(".")
        assert len(file.alt) > 40
    assert len(list(files[0].png.parent.iterdir())) == 2 * len(files)


@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_large_enough_and_do_not_overlap(name, whole):
    fig = whole[1][name].fig
    found = shown_texts(fig)
    texts, boxes = list(found), np.array(list(found.values()))
    assert min(text.get_fontsize() for text in texts) >= 8
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, 2:].max(axis=0) <= fig.bbox.extents[2:]).all()
    across = np.minimum(boxes[:, None, 2], boxes[:, 2]) - np.maximum(boxes[:, None, 0], boxes[:, 0])
    upwards = np.minimum(boxes[:, None, 3], boxes[:, 3]) - np.maximum(
        boxes[:, None, 1], boxes[:, 1]
    )
    pairs = np.argwhere(np.triu((across > 0.5) & (upwards > 0.5), 1))
    assert [(texts[i].get_text(), texts[j].get_text()) for i, j in pairs] == []


def test_same_raw_files_same_bytes_whatever_the_users_style(few, tmp_path):
    first = draw_figures(few, tmp_path / "first", ["figure7"])
    with rc_context({"font.size": 20, "axes.grid": True, "svg.fonttype": "none"}):
        again = draw_figures(few, tmp_path / "again", ["figure7"])
    for a, b in zip(first, again, strict=True):
        assert a.png.read_bytes() == b.png.read_bytes(), a.name
        assert a.svg.read_bytes() == b.svg.read_bytes(), a.name
        assert b"<dc:date>" not in a.svg.read_bytes()


def test_svg_is_the_same_in_another_process(few, tmp_path):
    only = ["figure7", "figure6"]
    here = draw_figures(few, tmp_path / "here", only)
    code = (
        "from micfast.experiments.paper.figures import draw_figures;"
        f"draw_figures({str(few)!r}, {str(tmp_path / 'there')!r}, {only!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for file in here:
        assert (tmp_path / "there" / file.svg.name).read_bytes() == file.svg.read_bytes()


# What is drawn of which raw files


def test_only(few, tmp_path):
    assert draw_figures(few, tmp_path, ["table3"]) == []
    assert draw_figures(few, tmp_path, []) == []
    assert [file.name for file in draw_figures(few, tmp_path, ["figure6"])] == ["figure6"]


def test_experiments_of_the_figures_exist():
    assert {name for names in FIGURES.values() for name in names} <= set(EXPERIMENTS)


def test_draws_what_there_is(tmp_path):
    raw = make_raw(tmp_path, ["characters"], n_seeds=1, labels=FEW)
    (raw / "decision-characters.npz").unlink()
    (raw / "forward.csv").unlink()
    found = drawings(raw)
    assert list(found) == [
        "figure6", "figure7", "noise-accuracy", "iterations", "classes-characters", "comparison"
    ]  # fmt: skip
    axes = found["comparison"].fig.axes
    names = {label.get_text() for ax in axes for label in ax.get_yticklabels()}
    assert "1-NN, DTW" in names
    assert not any("forward" in name or "held out" in name for name in names)
    (raw / "baselines.csv").unlink()
    runs = pd.read_csv(raw / "runs.csv")
    runs[runs["n_iter"] == 50].to_csv(raw / "runs.csv", index=False)
    assert list(drawings(raw, "comparison", "iterations", "noise-accuracy")) == ["noise-accuracy"]


def test_one_subset_missing_in_one_data_set(tmp_path):
    raw = make_raw(tmp_path, labels=FEW, arrays=False)
    runs = pd.read_csv(raw / "runs.csv")
    runs = runs[(runs["data"] != "mnist") | (runs["subset"] != "clustered")]
    runs.to_csv(raw / "runs.csv", index=False)
    axes = drawings(raw, "noise-accuracy")["noise-accuracy"].fig.axes
    titles = [ax.get_title(loc="left") for ax in axes if ax.get_visible()]
    assert titles == [
        "MNIST, random types",
        "Characters, clustered types",
        "Characters, random types",
    ]


def test_nothing_to_draw(tmp_path):
    (tmp_path / "raw").mkdir()
    assert draw_figures(tmp_path / "raw", tmp_path / "figures") == []


def test_damaged_raw_files_are_named(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    path = raw / "reconstruction-mnist.npz"
    for content in (b"", b"no archive", b"PK\x03\x04 half of one"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"reconstruction-mnist\.npz can't be read"):
            draw_figures(raw, tmp_path)
    np.savez(path, label="3", types=np.zeros((4, 28, 28)))
    with pytest.raises(
        ValueError, match=r"reconstruction-mnist\.npz lacks types_drawn, types_errors"
    ):
        draw_figures(raw, tmp_path)


# What the figures say


def test_minima_on_and_off_the_diagonal():
    matrix = np.array([[0.1, 2, 3], [0.05, 0.5, 4], [7, 8, np.nan]])
    assert minima(matrix, 1).tolist() == [0, 0, 0]
    assert minima(matrix, 0).tolist() == [1, 1, 0]
    assert cross._minima_text(matrix, ["a", "b", "c"]) == (
        "1 of 3 row minima (module b redraws a best; module c redraws a best) and 1 of 3 column "
        "minima (a is redrawn best by b; c is redrawn best by a) lie on the diagonal."
    )
    assert minima(np.full((2, 2), np.nan), 0).tolist() == [-1, -1]


def test_cross_figure_marks_the_minima(full):
    drawing = drawings(full, "figure7")["figure7"]
    assert "(a) MNIST, train: 10 of 10 row minima and 10 of 10 column minima" in drawing.caption
    assert "9 of 10 row minima (module 1 redraws 0 best)" in drawing.caption
    axes = {ax.get_title(loc="left")[:3]: ax for ax in drawing.fig.axes}
    rings, dots = (line.get_xydata() for line in axes["(b)"].lines)
    with np.load(full / "cross-mnist.npz") as raw:
        test = raw["test"]
    assert rings.tolist() == [[test[m].argmin(), m] for m in range(10)]
    assert dots.tolist() == [[c, test[:, c].argmin()] for c in range(10)]
    images = [axes[f"({x})"].images[0] for x in "abcd"]
    np.testing.assert_array_equal(images[1].get_array(), test)
    assert images[0].norm is images[1].norm  # one scale per data set
    assert images[1].norm is not images[2].norm


def test_a_matrix_without_a_number(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    nothing = np.full((2, 2), np.nan)
    np.savez(raw / "cross-mnist.npz", labels=np.array(["0", "1"]), train=nothing, test=nothing)
    (file,) = draw_figures(raw, tmp_path, ["figure7"])
    assert "0 of 2 row minima and 0 of 2 column minima lie on the diagonal" in file.caption


@pytest.mark.parametrize("right", [True, False])
def test_decision(right, tmp_path):
    raw = make_raw(tmp_path, ["characters"], labels={"characters": list("abcdeghz")})
    path = raw / "decision-characters.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    if not right:
        arrays["errors"][3] = 0.0123  # module d, the target is an a
    arrays["errors"][5] = np.nan
    arrays["error_history"][:, 5] = np.nan
    np.savez(path, **arrays)
    drawing = drawings(raw, "figure3-characters")["figure3-characters"]
    target, *panels, chart = drawing.fig.axes
    winner, mark, error = (
        ("a", "\N{CHECK MARK}", "0.021") if right else ("d", "\N{BALLOT X}", "0.0123")
    )
    colour = common.OURS if right else common.PAPER
    assert target.get_xlabel() == f"{mark} decided: {winner}"
    assert target.xaxis.label.get_color() == colour
    assert [panel.get_title() or panel.get_title(loc="left") for panel in panels] == list(
        "abcdeghz"
    )
    (decided,) = (panel for panel in panels if panel.get_xlabel() == error)
    assert to_hex(decided.spines["left"].get_edgecolor()) == colour.lower()
    assert panels[5].get_xlabel() == "invalid"
    assert chart.get_yscale() == "log"
    assert len(chart.lines) == 8
    assert chart.lines[0].get_ydata()[-1] == arrays["error_history"][-1, 0]
    assert ("the true class is a" in drawing.caption) is not right
    named = [text.get_text() for text in chart.get_legend().get_texts()]
    assert "a (true)" in named
    # One scale for x and y: letters keep their shape.
    assert all(panel.get_aspect() == 1 for panel in [target, *panels])


@pytest.mark.parametrize(("low", "high"), [(0.07, 0.19), (0.5, 0.6), (0.004, 3.0), (1e-5, 40.0)])
def test_logarithmic_axes_have_readable_ticks(low, high):
    ax = Figure().add_subplot(yscale="log", ylim=(low, high))
    common.plain_log(ax.yaxis, low, high)
    labels = [text.get_text() for text in shown_texts(ax.figure) if text in ax.get_yticklabels()]
    values = [float(label) for label in labels]
    assert 3 <= len(values) <= 22
    assert low <= min(values) < max(values) <= high
    np.testing.assert_allclose(values, [v for v in ax.get_yticks() if low <= v <= high])


def test_reconstruction_shows_types_and_vectors(few):
    for name, drawing in drawings(few, "figure5", "figure6").items():
        axes = drawing.fig.axes
        assert [ax.get_xlabel() for ax in axes if ax.get_xlabel().startswith("MSE")] == [
            "MSE 0.0021", "MSE 0.0009", "MSE 0.0123", "MSE 0.0004",
            "MSE 0.034", "MSE 0.12", "MSE 0.051", "MSE 0.0702",
        ]  # fmt: skip
        heights = [[bar.get_height() for bar in ax.patches] for ax in axes if ax.patches]
        shares = [[1, 0, 0, 0], [0.25, 0.3, 0.15, 0.3], [0.02, 0.08, 0.9, 0], [0.5, 0.5, 0, 0]]
        assert heights == shares
        assert sum(len(ax.images) for ax in axes) == (16 if name == "figure5" else 0)


def test_noise_figure_holds_our_runs_and_the_papers(few):
    drawing = drawings(few, "noise-accuracy")["noise-accuracy"]
    axes = {ax.get_title(loc="left"): ax for ax in drawing.fig.axes}
    ax = axes["Characters, clustered types"]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[1:4] == ["0 / 0.0001", "0 / 0.0002", "0.1 / 0"]
    paper = published.noise_grid("characters", "clustered").sort_values(["noise_in", "noise_out"])
    np.testing.assert_allclose(marks(ax, common.PAPER, hollow=True)[:, 0], paper["overall"])
    runs = pd.read_csv(few / "runs.csv").query("data == 'characters' and subset == 'clustered'")
    means = runs.query("n_iter == 50").groupby(["noise_in", "noise_out"])["accuracy"].mean()
    np.testing.assert_allclose(marks(ax, common.OURS)[:, 0], means)
    seeds = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(seeds) == 9
    assert all(len(line.get_xdata()) == 3 for line in seeds)


def test_noise_caption_counts_what_lies_outside(tmp_path):
    raw = make_raw(tmp_path, ["mnist"], labels=FEW, arrays=False)
    runs = pd.read_csv(raw / "runs.csv").query("subset == 'clustered'")
    printed = published.noise_grid("mnist", "clustered").set_index(["noise_in", "noise_out"])
    paper = [printed.loc[key, "overall"] for key in zip(runs.noise_in, runs.noise_out, strict=True)]
    # Two settings far away, seven around the paper's value.
    away = 0.3 * ((runs.noise_in == 0.1) & (runs.noise_out > 0))
    runs.assign(accuracy=np.array(paper) - away + 0.01 * (runs.seed - 1)).to_csv(
        raw / "runs.csv", index=False
    )
    drawing = drawings(raw, "noise-accuracy")["noise-accuracy"]
    assert "which leaves out 2 of the paper's 9 accuracies" in drawing.caption


def test_iterations_figure(few):
    drawing = drawings(few, "iterations")["iterations"]
    runs = pd.read_csv(few / "runs.csv").query("data == 'mnist' and subset == 'random'")
    paper = published.iterations().query("data == 'mnist' and subset == 'random'")
    paper = paper.sort_values(["noise_in", "noise_out"])
    for column, value in enumerate(("accuracy", "mse")):
        ax = drawing.fig.axes[2 + column]
        for n_iter, colour in ((0, common.drawing.MUTED), (50, common.OURS)):
            here = runs[runs["n_iter"] == n_iter]
            means = here.groupby(["noise_in", "noise_out"])[value].mean()
            np.testing.assert_allclose(marks(ax, colour)[:, 0], means)
            hollow = marks(ax, colour, hollow=True)[:, 0]
            np.testing.assert_allclose(hollow, paper[f"{value}_{n_iter}"])
    limits = [ax.get_xlim() for ax in drawing.fig.axes]
    assert len(set(limits[::2])) == 1
    assert limits[1] == limits[3] != limits[5] == limits[7]


def test_classes_figure(full):
    drawing = drawings(full, "classes-characters")["classes-characters"]
    axes = {ax.get_title(loc="left"): ax for ax in drawing.fig.axes}
    classes = pd.read_csv(full / "classes.csv", dtype={"label": str})
    classes = classes.query("data == 'characters' and subset == 'random' and n_iter == 50")
    means = classes.groupby(["noise_in", "noise_out", "label"])["accuracy"].mean().unstack()
    (image,) = axes["Characters, random types, ours"].images
    np.testing.assert_allclose(image.get_array(), 100 * means)
    (image,) = axes["Characters, random types, paper"].images
    values = np.ma.masked_invalid(image.get_array())
    assert values.mask.all(axis=0).tolist() == [letter in "vwyz" for letter in LABELS["characters"]]
    assert values[3, 10] == pytest.approx(23.6)  # o at 0.1 / 0
    assert "doesn't print v, w, y, z (grey)" in drawing.caption
    texts = {t.get_text() for t in axes["Characters, random types, paper"].texts}
    assert {"100", "24", "0"} <= texts


def test_comparison_figure(few):
    drawing = drawings(few, "comparison")["comparison"]
    mnist, characters = drawing.fig.axes[0], drawing.fig.axes[1::2]
    names = [label.get_text() for label in mnist.get_yticklabels()]
    assert names[:4] == [
        "MIC, no noise",
        "MIC, best noise (paper's way)",
        "MIC, best noise (held out)",
        "forward LSTM (Keras)",
    ]
    assert len(names) == 8
    # The paper: two of MIC and one forward model for each choice of types, one on all data.
    expected = [0.88, 0.91, 0.613, 0.72, 0.818, 0.687, 0.973]
    hollow = np.concatenate([marks(ax, common.PAPER, hollow=True)[:, 0] for ax in characters])
    assert hollow.tolist() == expected
    runs = pd.read_csv(few / "runs.csv").query("data == 'mnist' and n_iter == 50")
    runs = runs.query("subset == 'clustered'")
    best = runs.groupby("seed")["accuracy"].max().mean()
    means = marks(mnist, common.OURS)[:, 0]
    assert means[1] == pytest.approx(best)
    assert means[0] == pytest.approx(runs.query("noise_in == 0 and noise_out == 0").accuracy.mean())
    # What the test sequences themselves chose is not called the highest.
    assert "paper's way) on 4" not in drawing.caption


# The report


class Page(HTMLParser):
    """What a test wants to know of a page; fails on tags that don't match."""

    VOID = ("meta", "img", "br", "hr", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.ids = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def claim(verdict, text="Noise helps", **changes):
    values = {
        "name": "c",
        "section": "4.2",
        "data": "mnist",
        "paper": "+0.1",
        "ours": "+0.2 [0, 1]",
    }
    return Claim(text=text, verdict=verdict, **(values | changes))


def table(shown, outside=(), name="table1", **changes):
    shown = pd.DataFrame(shown)
    frame = pd.DataFrame({"outside": pd.array(list(outside), dtype="boolean")})
    values = {"title": "Table 1: a title", "caption": "A caption.", "notes": ["A note."]}
    return Table(name, frame=frame, shown=shown, **(values | changes))


def test_report_of_everything(full, files, tmp_path):
    raw = load_raw(full)
    tables, claims = build_tables(raw), check_claims(raw)
    path = write_report(tmp_path, tables, files, claims, make_manifest())
    assert path == tmp_path / "report.html"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    # One file, no scripts, nothing loaded from elsewhere.
    assert not page.all("script")
    assert not page.all("link")
    assert all(a["href"].startswith("#") and a["href"][1:] in page.ids for a in page.all("a"))
    assert "@import" not in text
    assert "url(" not in text
    assert len(page.ids) == len(set(page.ids))
    pictures = page.all("img")
    assert [picture["alt"] for picture in pictures] == [file.alt for file in files]
    for picture, file in zip(pictures, files, strict=True):
        head, _, image = picture["src"].partition(",")
        assert head == "data:image/svg+xml;base64"
        assert base64.b64decode(image) == file.svg.read_bytes()
        assert file.title in page.text
    for held in tables.values():
        assert held.title in page.text
        assert all(note in page.text for note in map(" ".join, map(str.split, held.notes)))
    n_outside = sum(int(t.frame["outside"].sum()) for t in tables.values() if "outside" in t.frame)
    # The words "key" mark the explanation.
    marked = [a for a in page.all("td") if "outside" in (a.get("class") or "").split()]
    assert len(marked) == n_outside > 0
    verdicts = [a for a in page.all("td") if "verdict" in (a.get("class") or "")]
    assert len(verdicts) == len(claims)
    assert all(slip in page.text for slip in published.slips())
    assert page.all("html")[0]["lang"] == "en"


def test_report_marks_by_text_and_colour(tmp_path):
    shown = {
        "data": ["mnist", "letters"],
        "ours": ["0.8 [0.7, 0.9]", "-"],
        "paper": ["0.5 *", "0.8"],
    }
    path = write_report(tmp_path, {"table1": table(shown, [True, False])}, [], [], {})
    text = path.read_text()
    assert '<td class="number outside">0.5 *</td>' in text
    assert '<td class="number">0.8</td>' in text
    assert "<td>letters</td>" in text
    assert "1 value of the paper outside" in text
    assert "1 marked." in text


def test_report_verdicts(tmp_path):
    claims = [
        claim("holds"), claim("does not hold"), claim("not decided", "Other", remark="one seed")
    ]  # fmt: skip
    page = Page(write_report(tmp_path, {}, [], claims, {}).read_text())
    assert "holds: 1 , does not hold: 1 , not decided: 1" in page.text
    assert "✓ holds" in page.text
    assert "✗ does not hold" in page.text
    assert "? not decided" in page.text
    assert "one seed" in page.text
    assert page.text.count("Noise helps") == 1  # a heading for both tests of it


def test_report_tells_the_run(tmp_path):
    page = Page(write_report(tmp_path, {}, [], [], make_manifest()).read_text())
    for words in (
        "3 (0 to 2)",
        "2,160, of which 4 did not learn their types",
        "A processor, 2 cores, 2 threads, instructions avx2, Linux",
        "5.5 min",
        "2.3 days",
        "0.1.0, commit 0123456789ab with uncommitted changes",
        "keras-lstm : needs <tensorflow>: micfast[keras]",
        "micfast reproduce --out results --only figure7,table13 --seeds 3 --target g:5",
        "begun 2026-11-23",
        "(2279, 205, 2), sha256 0000",
    ):
        assert words in page.text
    assert "isn't finished" not in page.text
    page = Page(write_report(tmp_path, {}, [], [], make_manifest(finished=False)).read_text())
    assert "This run isn't finished." in page.text


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"experiments": list(EXPERIMENTS)}, "--seeds 3 --target g:5"),
        (
            {
                "experiments": [n for n, (about, _) in EXPERIMENTS.items() if about != "mnist"],
                "data": {"characters": {}},
                "targets": {"characters": ["a", 0]},
            },
            "--data characters --seeds 3",
        ),
        (
            {
                "experiments": ["table9", "table10"],
                "budget": "full",
                "noise": [0.1, 0.0001],
                "targets": {},
            },
            "--only table9,table10 --seeds 3 --budget full --noise 0.1 0.0001",
        ),
        (
            {"experiments": ["figure7"], "data": {"mnist": {}}, "targets": {"mnist": ["3", 0]}},
            "--only figure7 --data mnist --seeds 3",
        ),
    ],
)
def test_report_command(changes, command, tmp_path):
    manifest = make_manifest()
    manifest["settings"] |= changes
    page = Page(write_report(tmp_path, {}, [], [], manifest).read_text())
    assert f"micfast reproduce --out results {command} The same seeds" in page.text


def test_report_of_nothing(tmp_path):
    page = Page(write_report(tmp_path, {}, [], [], {}).read_text())
    assert "Nothing that was asked for was left out." in page.text
    assert not {"tables", "figures", "claims", "luck"} & set(page.ids)


def test_report_escapes_what_it_shows(tmp_path):
    evil = "<script>alert('&')</script>"
    shown = {evil: [f"{evil}"], "paper": [f"{evil} *"]}
    held = table(shown, [True], name="t", title=evil, caption=evil, notes=[evil])
    manifest = make_manifest(skipped=[{"what": evil, "why": evil}], versions={"micfast": evil})
    claims = [claim("holds", evil, data=evil, remark=evil)]
    file = figures.FigureFile(
        "f", evil, evil, f'" onload="{evil}', tmp_path / "f.png", tmp_path / "f.svg"
    )
    file.svg.write_text("<svg/>")
    text = write_report(tmp_path, {"t": held}, [file], claims, manifest).read_text()
    page = Page(text)
    assert not page.all("script")
    assert page.text.count(evil) >= 10
    (picture,) = page.all("img")
    assert picture["alt"] == f'" onload="{evil}'
    assert "onload" not in picture


def test_report_is_whole_or_as_before(tmp_path):
    path = write_report(tmp_path, {}, [], [], {})
    before = path.read_bytes()
    missing = figures.FigureFile("f", "t", "c", "a", tmp_path / "f.png", tmp_path / "f.svg")
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path, {}, [missing], [], {})
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="folder"):
        write_report(tmp_path / "nowhere", {}, [], [], {})


def test_luck_is_told(few, tmp_path):
    tables = build_tables(load_raw(few))
    frame = tables["table2"].frame
    row = frame.index[frame["label"] == "overall"][0]
    frame.loc[row, "run_low"], frame.loc[row, "run_high"] = 0.1, 0.9
    for paper, word in ((0.999, "lucky"), (0.001, "unlucky")):
        frame.loc[row, "paper"], frame.loc[row, "outside"] = paper, True
        page = Page(write_report(tmp_path, {"table2": tables["table2"]}, [], [], {}).read_text())
        assert f"{paper:.3f} * {word}" in page.text
    assert "1 below (unlucky)" in page.text


def test_template_is_package_data():
    # Beside the module, so that the wheel, which takes the whole package, takes it along.
    assert Path(report_module.__file__).with_name("report.html.jinja").is_file()
