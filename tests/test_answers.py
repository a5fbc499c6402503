"""Views, pose and the product of experts: what they find, and what they leave as it was."""

import itertools

import numpy as np
import pytest
import torch
from estimators import PLAIN, X_NEW, Y_NEW, X, needs_kernel, saved, small, y

from micfast import (
    Execution,
    GeneratorBank,
    LevenbergMarquardt,
    ModularInverseClassifier,
    Pose,
    Training,
)
from micfast.classify.experts import fit_experts
from micfast.classify.views import VIEWS, views_of, voting_of
from micfast.search import posed
from micfast.search.exact import Scale, inner, power_above
from micfast.search.hull import Hull
from micfast.search.pose import grid, warp

ALL = {"views": ("raw", "difference", "energy"), "pose": "auto", "hull": True}


@pytest.fixture(scope="module")
def panel():
    return small(**ALL).fit(X, y)


# -- views -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIEWS.names())
def test_views_see_each_sequence_alone(name):
    view, rng = VIEWS[name](), np.random.default_rng(0)
    Z = rng.standard_normal((5, 40, 3)).astype(np.float32)
    seen = view(Z, 40)
    assert np.isfinite(seen).all()
    np.testing.assert_array_equal(view(Z[2:3], 40)[0], seen[2])
    if view.takes_missing:
        longer = np.concatenate([Z, np.full((5, 7, 3), np.nan, dtype=np.float32)], axis=1)
        np.testing.assert_array_equal(view(longer, 40)[:, : seen.shape[1]], seen)
        gap = Z.copy()
        gap[:, 20] = np.nan
        assert np.isnan(view(gap, 40)).sum() < 0.2 * gap.size


def test_views_forget_what_they_should():
    Z = np.cumsum(np.random.default_rng(0).standard_normal((4, 50, 2)), axis=1)
    for name in ("difference", "znorm", "autocorrelation", "shape", "envelope"):
        view = VIEWS[name]()
        np.testing.assert_allclose(view(3 * Z + 5, 50), view(Z, 50), atol=1e-9)
    energy = VIEWS["energy"]()
    np.testing.assert_allclose(energy(3 * Z + 5, 50), 3 * energy(Z, 50), atol=1e-9)
    wiggles = np.tile([[1.0], [-1.0]], (25, 2))
    smooth = VIEWS["smooth"]()
    assert np.abs(smooth(Z + wiggles, 50) - smooth(Z, 50)).max() < 0.4  # a third, at the ends


def test_views_are_asked_for():
    assert [view.name for view in views_of("auto")] == ["raw", "difference"]
    assert [view.name for view in views_of((np.sort, "raw"))] == ["raw", "sort"]
    for wrong, message in (
        ("diff", "view must be one of"),
        (("energy",), "must include 'raw'"),
        (("raw", "raw"), "must differ"),
    ):
        with pytest.raises(ValueError, match=message):
            views_of(wrong)
    with pytest.raises(TypeError, match="views must be"):
        views_of(3)


def test_views_of_hulls_are_asked_for():
    views = views_of("auto")
    names = ["smooth", "difference", "shape", "envelope"]
    for value, expected in (
        (True, ["raw", "difference"]),
        (False, []),
        ((), []),
        ("auto", names),
        ("energy", ["energy"]),
        (("smooth", np.sort), ["smooth", "sort"]),
    ):
        assert [view.name for view in voting_of(value, views)] == expected
    with pytest.raises(ValueError, match="hull must differ"):
        voting_of(("smooth", "smooth"), views)
    with pytest.raises(ValueError, match="view must be one of"):
        small(hull="smoothed").fit(X, y)
    with pytest.raises(TypeError, match="hull must be"):
        small(hull=3).fit(X, y)


# -- pose ------------------------------------------------------------------------------------------


def test_warp_is_linear_interpolation():
    y, rng = torch.arange(6.0)[:, None] ** 2, np.random.default_rng(0)
    u = torch.from_numpy(rng.uniform(-2, 8, 20)).float()
    values, slopes = warp(y, u, with_slope=True)
    expected = np.interp(u.numpy(), np.arange(6), y[:, 0].numpy())
    np.testing.assert_allclose(values[:, 0].numpy(), expected, rtol=1e-6)
    assert ((slopes[:, 0] == 0) == ((u < 0) | (u > 5))).all()


@needs_kernel
def test_pose_is_recovered():
    """Copies of what modules draw that are 3 steps late, 6 % slower and a tenth larger."""
    t, rng = np.arange(60), np.random.default_rng(0)
    phase = rng.uniform(0, 6, (4, 3, 1))
    angle = np.array([[[1], [2], [3]]]) * t * np.pi / 30 + phase
    X = np.stack([np.sin(angle).mean(axis=1), np.cos(angle + phase).mean(axis=1)], axis=-1)
    clf = small(
        n_types=1, type_selection="first", standardize=None, pose=Pose(gain=True, penalty=0)
    )
    training = Training.paper(2000, max_retries=0, learned_tol=100)
    clf.set_params(training=training).fit(X, range(4))
    drawn = clf.bank_.generate(torch.ones(1, 1), 60)[:, 0]
    for shift, tempo, gain in ((3, 1 / 1.06, 1.1), (-3, 1.06, 1 / 1.1)):
        u = torch.from_numpy(tempo * (t - shift)).float().expand(4, -1)
        copies = gain * warp(drawn, u)[0].numpy()
        decision = clf.decide(copies)
        found = decision.poses
        np.testing.assert_array_equal(decision.labels, range(4))
        np.testing.assert_allclose(found.shift, shift, atol=1)
        np.testing.assert_allclose(found.tempo, tempo, rtol=0.01)
        np.testing.assert_allclose(found.gain, gain, rtol=0.01)
        lowest = decision.module_errors[0].min(axis=1)
        again = np.square(decision.reconstructions() - copies).mean(axis=(1, 2))
        np.testing.assert_allclose(again, lowest, rtol=1e-3, atol=1e-7)
        words = found.describe(0)
        assert ("3 steps late, 6 % slower" in words) == (shift > 0), words


@pytest.mark.slow
@needs_kernel
def test_pose_lowers_the_error(panel):
    plain = small().fit(X, y)
    posed = small(pose=Pose(gain=True, penalty=0)).fit(X, y)
    assert posed.banks_ == plain.banks_
    errors, before = posed.decide(X_NEW).module_errors, plain.decide(X_NEW).module_errors
    assert np.mean(errors <= before * 1.02 + 1e-4) > 0.95
    fixed = small(pose=Pose(shift=0, tempo=0, gain=False)).fit(X, y).decide(X_NEW)
    np.testing.assert_allclose(fixed.module_errors, before, rtol=0.1, atol=1e-3)
    assert fixed.poses.describe(0) == "no change"


# -- bits ------------------------------------------------------------------------------------------


def test_sums_are_exact():
    rng = np.random.default_rng(0)
    assert power_above(torch.tensor([0.0, 1e-30, 0.75, 1.0, 3.0])).tolist()[2:] == [1, 2, 4]
    values = torch.from_numpy(1e6 * rng.standard_normal((3, 50, 40)) ** 3)
    scale = Scale.of(values.abs().flatten(1).amax(dim=1), 2000)
    integers, quantum = scale.integers(scale.in_units(values)), scale.quantum[:, None, None]
    np.testing.assert_allclose((integers * quantum).numpy(), values.numpy(), atol=quantum.max())
    sums, order = inner(integers, integers), torch.from_numpy(rng.permutation(50))
    assert sums.tolist() == inner(integers[:, order], integers[:, order]).tolist()
    assert sums.tolist() == [sum(int(v) ** 2 for v in one.flatten()) for one in integers]
    n = torch.tensor([1.0, 2.0, 64.0, 999.0, 1e6])
    assert ((8 * Scale.of(torch.ones(5), n).levels) ** 2 * n <= 2**53).all()


@needs_kernel
@pytest.mark.parametrize("gaps", [False, True])
def test_a_search_of_poses_is_the_same_in_any_company(monkeypatch, gaps):
    """To the bit: with other sequences, lengths, portions and threads; modules 2 a class."""
    rng, T, O, K = np.random.default_rng(0), 75, 11, 3
    banks = [
        GeneratorBank.random(4, hidden_size=7, input_size=K, output_size=O, seeds=range(v, v + 4))
        for v in (0, 9)
    ]
    pose = Pose(shift=0.1, gain=True, offset=True, penalty=0.3)
    types = [bank.generate(torch.eye(K), T)[:2].double() for bank in banks]
    hulls = [Hull(one, pose, T, gains=True) for one in types]
    latents = torch.from_numpy(rng.dirichlet(np.ones(K), 23)).float()
    drawn = torch.stack([bank.generate(latents, T)[1] for bank in banks])
    u = 1.05 * (torch.arange(T) - torch.from_numpy(rng.uniform(-6, 6, (1, 23, 1))))
    targets = 1.1 * warp(drawn, u.float())[0] + 0.1 * torch.from_numpy(
        rng.standard_normal(drawn.shape)
    )
    targets = targets.float()
    ends = torch.full((23,), T)
    if gaps:
        ends = torch.from_numpy(rng.integers(20, T, 23))
        targets[:, rng.random((23, T, O)) < 0.05] = torch.nan
        targets[:, torch.arange(T) >= ends[:, None]] = torch.nan

    def search(rows, n_threads=1):
        part = targets[:, rows, : int(ends[rows].max())]
        starts = [hull.nearest(x) for hull, x in zip(hulls, part, strict=True)]
        free, execution = [True, False], Execution(n_threads=n_threads)
        solver = LevenbergMarquardt()
        found = posed.search_posed(banks, part, starts, solver, pose, T, free, execution)
        return [*starts[0], *starts[1], found.latents, *found.fit]

    everyone = list(range(23))
    together = search(everyone)
    assert all(torch.isfinite(one).all() for one in together)
    other = torch.get_num_threads()
    for rows, numbers, n_threads in (
        ([5], 2**20, 2),
        ([22, 3, 17], 2**20, 1),
        (everyone[::-1], 2**14, 3),
    ):
        monkeypatch.setattr(posed, "_NUMBERS", numbers)
        torch.set_num_threads(n_threads)
        alone = search(rows, n_threads)
        torch.set_num_threads(other)
        for one, all_of_them in zip(alone, together, strict=True):
            assert torch.equal(one, all_of_them[:, rows])


# -- the hull --------------------------------------------------------------------------------------


def hull_errors(types, X, *pose, own=None, left_out=None, gains=False):
    hull, X = Hull(torch.from_numpy(types), *pose, gains=gains), torch.from_numpy(X)
    if own is None:
        return hull.nearest(X).errors.T.numpy()
    found = hull.leaving_out(X, torch.from_numpy(own), torch.from_numpy(left_out))
    return hull.errors(found).T.numpy()


def test_hull_against_quadratic_programming():
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    types, sequences = rng.standard_normal((2, 4, 6, 2)), rng.standard_normal((5, 6, 2))
    errors = hull_errors(types, sequences)
    for n, c in itertools.product(range(5), range(2)):

        def error(w, c=c, n=n):
            return np.square(np.tensordot(w, types[c], axes=1) - sequences[n]).mean()

        best = minimize(
            error,
            np.full(4, 0.25),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            tol=1e-10,
        )
        assert errors[n, c] == pytest.approx(best.fun, rel=1e-5)
    inside = np.tensordot([0.1, 0.2, 0.3, 0.4], types[0], axes=1)
    assert hull_errors(types, inside[None])[0, 0] == pytest.approx(0, abs=1e-8)


def test_leaving_out_is_leaving_out():
    rng = np.random.default_rng(0)
    types, pose = rng.standard_normal((3, 4, 20, 1)), Pose(gain=True, penalty=0.3)
    flat, own = types.reshape(12, 20, 1), np.repeat(np.arange(3), 4)
    left_out = np.tile(np.eye(4, dtype=bool), (3, 1))
    errors = hull_errors(types, flat, pose, 20, own=own, left_out=left_out, gains=True)
    for n, (c, k) in enumerate(itertools.product(range(3), range(4))):
        rest = np.delete(types[c : c + 1], k, axis=1)
        alone = hull_errors(rest, flat[n : n + 1], pose, 20, gains=True)
        assert errors[n, c] == pytest.approx(alone[0, 0], rel=1e-6)
        full = hull_errors(types, flat[n : n + 1], pose, 20, gains=True)[0]
        np.testing.assert_allclose(np.delete(errors[n], c), np.delete(full, c), rtol=1e-6)
    late = np.concatenate([flat[:1, :1], flat[:1, :-1]], axis=1)
    assert (1.0, 1.0) in grid(Pose(), 20)
    assert hull_errors(types, late, Pose(gain=False, penalty=0), 20)[0, 0] == pytest.approx(
        0, abs=1e-8
    )


# -- experts ---------------------------------------------------------------------------------------


def test_temperatures_follow_what_experts_know():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 300)
    knows, guesses = rng.uniform(1, 2, (2, 300, 3))
    knows[np.arange(300), codes] *= 0.5
    experts, expected = fit_experts(("a", "b"), [np.stack([knows, guesses])], codes, "held out")
    assert experts.taus[0] > 3 * experts.taus[1]
    assert expected.low < expected.accuracy <= expected.high
    few, _ = fit_experts(("a", "b"), [np.stack([knows, guesses])[:, :6]], codes[:6], "left out")
    assert few.taus[0] / few.taus[1] < experts.taus[0] / experts.taus[1]
    none, nothing = fit_experts(("a", "b"), [np.full((2, 3, 3), np.inf)], codes[:3], "left out")
    assert none.taus.tolist() == [1, 1]
    assert nothing is None


# -- sizes -----------------------------------------------------------------------------------------


def in_clusters(n_clusters, per_cluster, n_steps=8):
    """Two classes of narrow clusters that lie among each other."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2, n_clusters, 1, n_steps, 1))
    near = centres + 0.05 * rng.standard_normal((2, n_clusters, per_cluster, n_steps, 1))
    return near.reshape(-1, n_steps, 1), np.repeat(["a", "b"], n_clusters * per_cluster)


@pytest.mark.slow
@needs_kernel
def test_number_of_types_is_decided(tmp_path):
    X, y = in_clusters(6, 3)
    quick = Training.paper(1, max_retries=0, learned_tol=1e9)
    clf = small(n_types="auto", training=quick).fit(X, y)
    assert clf.n_types_ == clf.bank_.input_size >= 6
    assert clf.hidden_size_ == clf.hidden_size == 6
    again = saved(clf, tmp_path / "sized.safetensors")
    assert (again.n_types, again.n_types_) == ("auto", clf.n_types_)
    again.add_class(X[:20] + 9, "c")
    assert again.types_.shape[:2] == (3, clf.n_types_)
    few = small(n_types="auto", training=quick).fit(X[::6], y[::6])
    assert few.n_types_ <= 3
    with pytest.raises(ValueError, match="at least two samples of each class"):
        small(n_types="auto").fit(X[:19], y[:19])
    with pytest.raises(TypeError, match="n_types must be an integer"):
        small(n_types="many").fit(X, y)


@pytest.mark.slow
@needs_kernel
@pytest.mark.parametrize("ways", [{}, {"views": ("raw", "energy"), "pose": "auto"}])
def test_hidden_size_is_decided(ways):
    """Two classes of one spectrum, but in another order of time: drawn only by enough units."""
    rng, t = np.random.default_rng(0), np.arange(60) / 60
    angle = 2 * np.pi * np.arange(3, 9)[:, None] * t
    waves = np.sin(angle + rng.uniform(0, 6, (2, 4, 6, 1))).sum(axis=2)
    X = waves[:, :, None] * rng.uniform(0.9, 1.1, (2, 4, 5, 1))
    X = X.reshape(-1, 60) + 0.3 * rng.standard_normal((40, 60))
    y = np.repeat([0, 1], 20)
    clf = ModularInverseClassifier(
        n_types=4, hidden_size="auto", n_modules_per_class=1, random_state=0, **ways
    )
    clf.set_params(training__max_retries=0, training__learned_tol=100)
    assert clf.fit(X, y).hidden_size_ > 6
    assert clf.bank_.hidden_size == clf.hidden_size_


# -- the estimator ---------------------------------------------------------------------------------


@needs_kernel
def test_panel_decides_and_comes_back_from_its_file(panel, tmp_path):
    decision = panel.decide(X_NEW)
    assert (decision.labels == Y_NEW).mean() > 0.9
    names = ["raw", "difference", "energy"]
    assert [*decision.view_errors] == names + [f"{name} hull" for name in names]
    np.testing.assert_allclose(decision.probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(decision.probabilities.argmax(axis=1), decision.best)
    again = saved(panel, tmp_path / "panel.safetensors")
    assert str(again.expectation_) == str(panel.expectation_)
    assert again.pose_ == panel.pose_
    other = again.decide(X_NEW)
    np.testing.assert_array_equal(panel.decide(X_NEW[4:6]).errors, decision.errors[4:6])
    for name in ("errors", "module_errors", "novelty", "probabilities"):
        np.testing.assert_array_equal(getattr(other, name), getattr(decision, name))
    np.testing.assert_array_equal(other.reconstructions("all"), decision.reconstructions("all"))


@needs_kernel
def test_picture_says_the_pose(panel):
    from matplotlib.figure import Figure

    from micfast import ReconstructionDisplay

    display = ReconstructionDisplay.from_estimator(panel, X_NEW, index=3, ax=Figure().subplots())
    words = panel.decide(X_NEW[3:4]).poses.describe(0)
    assert words in display.ax_.get_title(loc="left")


@pytest.mark.slow
@needs_kernel
def test_classes_come_and_go(panel, tmp_path):
    clf = saved(panel, tmp_path / "panel.safetensors")
    before = clf.decide(X_NEW).errors
    clf.add_class(X[:7] + 20, "zigzag")
    assert clf.predict(X[:7] + 20).tolist() == ["zigzag"] * 7
    np.testing.assert_array_equal(clf.decide(X_NEW).errors[:, :3], before)
    assert len(clf.training_report_) == 4 * 3
    clf.remove_class("zigzag")
    np.testing.assert_array_equal(clf.decide(X_NEW).errors, before)


@pytest.mark.slow
@needs_kernel
def test_sequences_of_unequal_length_and_with_gaps(panel):
    cut = [one[: 7 + n % 4] for n, one in enumerate(X)]
    clf = small(**ALL, nan_policy="omit").fit(cut, y)
    alone = clf.decide([X_NEW[0][:8]])
    together = clf.decide([X_NEW[0][:8], *X_NEW])
    np.testing.assert_array_equal(together.errors[0], alone.errors[0])
    gaps = X_NEW.copy()
    gaps[:, 4:7] = np.nan
    assert (clf.predict(gaps) == Y_NEW).mean() > 0.8
    gaps[:, ::2] = np.nan  # no difference is left to be seen
    assert np.isfinite(clf.decide(gaps).errors).all()
    with pytest.warns(UserWarning, match=r"\['autocorrelation'\] are left out"):
        left = small(views=("raw", "autocorrelation")).fit(cut, y)
    assert left.panel.names == ("raw",)


def test_what_does_not_go_together():
    with pytest.raises(ValueError, match="distance must be 'mse' with views"):
        small(views="auto", distance="dtw").fit(X, y)
    with pytest.raises(TypeError, match="pose must be"):
        small(pose=3).fit(X, y)
    with pytest.raises(ValueError, match="tempo must be"):
        Pose(tempo=0.6)


@needs_kernel
def test_functions_are_views_but_are_not_saved(tmp_path):
    def halves(Z):
        return Z[:, ::2]

    clf = small(views=("raw", halves)).fit(X, y)
    assert (clf.predict(X_NEW) == Y_NEW).mean() > 0.9
    with pytest.raises(TypeError, match=r"holds no functions; got \['halves'\]"):
        clf.save(tmp_path / "x.safetensors")


@pytest.mark.slow
@needs_kernel
def test_command_line(tmp_path, capsys):
    from micfast.cli import main

    np.savez(tmp_path / "data.npz", X=X, y=y)
    model = str(tmp_path / "model.safetensors")
    options = ["fit", str(tmp_path / "data.npz"), "-o", model, "--views", "raw,energy", "--pose"]
    quick = ["--n-types", "auto", "--episodes", "300", "--max-retries", "0", "--no-hull"]
    assert main([*options, *quick]) == 0
    assert "expected accuracy" in capsys.readouterr().out
    assert ModularInverseClassifier.load(model).panel.names == ("raw", "energy")


def test_study_disturbs_what_it_says():
    from bench.studies.answers import CONDITIONS, disturbed, filled

    X = np.random.default_rng(0).standard_normal((6, 40, 2))
    X[3:, 30:] = np.nan
    for kind, level in CONDITIONS:
        Z = disturbed(X, kind, level, 1.0, seed=0)
        lost = np.isnan(Z).sum() - np.isnan(X).sum()
        assert (lost > 0) == (kind == "missing")
        assert kind == "missing" or (np.isnan(Z) == np.isnan(X)).all()
        assert np.array_equal(Z, X, equal_nan=True) == (kind == "clean")
        assert np.isfinite(filled(Z)).all()


@pytest.mark.slow
def test_study_writes_tables_and_picture(tmp_path, monkeypatch):
    from bench.studies import answers

    rng = np.random.default_rng(0)
    split = answers.sets.Split(X, y, X_NEW, Y_NEW)

    def guess(data, seed):
        return answers.Fitted(None, lambda X: (data.y_test, rng.dirichlet(np.ones(3), len(X))))

    def missing(data, seed):
        raise ImportError("not here")

    monkeypatch.setattr(answers.sets, "load", lambda name, seed: split)
    monkeypatch.setattr(answers, "METHODS", {"a": guess, "b": guess, "c": missing})
    options = ["--out", str(tmp_path), "--seeds", "2", "--data", "digits", "--n-test", "9"]
    assert answers.main(options) == 0
    text = (tmp_path / "answers.md").read_text()
    assert "### mean of sets, 4 examples a class" in text
    assert "Skipped: c: not here" in text
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2
    assert "judged" not in lines[0]
    assert (tmp_path / "reliability.png").stat().st_size > 5000


def test_paper_has_no_views():
    clf = ModularInverseClassifier.paper()
    assert (clf.views, clf.pose, clf.hull) == ("raw", None, False)
    assert clf.get_params().items() >= PLAIN.items()


@needs_kernel
def test_the_default_asks_two_views_and_four_hulls(tmp_path):
    """As it is, and as its file is read."""
    clf = small()
    default = ModularInverseClassifier()
    clf.set_params(**{name: getattr(default, name) for name in (*PLAIN, "n_modules_per_class")})
    decision = clf.fit(X, y).decide(X_NEW)
    hulls = ["smooth hull", "difference hull", "shape hull", "envelope hull"]
    assert [*decision.view_errors] == ["raw", "difference", *hulls]
    again = saved(clf, tmp_path / "default.safetensors")
    np.testing.assert_array_equal(again.decide(X_NEW).errors, decision.errors)
    assert len(clf.training_report_) == 2 * 3
    assert (decision.labels == Y_NEW).mean() > 0.9
    assert decision.poses is not None
