"""`micfast reproduce`: tasks, folder, manifest, kill and resume; tiny, made data."""

import csv
import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import needs_kernel

from micfast import Adam, GeneratorBank, Training, invert, train
from micfast.data import Dataset
from micfast.experiments.paper import baselines, plan, results, run, work
from micfast.experiments.paper.results import TABLES, ResultsError
from micfast.experiments.paper.run import reproduce
from micfast.experiments.paper.settings import (
    DATA_SETS,
    EXPERIMENTS,
    DataSpec,
    ForwardBudget,
    Settings,
    derive_seed,
)
from micfast.experiments.paper.work import Context, Task, list_tasks

# -- made data -----------------------------------------------------------------------------------


def _curves(classes, n_per_class, T, O, seed):
    """Noisy sines, a frequency and phase per class and channel."""
    rng = np.random.default_rng(seed)
    steps = np.linspace(0, 1, T)[:, None]
    X, y = [], []
    for c, label in enumerate(classes):
        for _ in range(n_per_class):
            phase = c + np.arange(O) + 0.3 * rng.standard_normal()
            X.append(np.sin((c + 1) * 2 * steps + phase) + 0.05 * rng.standard_normal((T, O)))
            y.append(label)
    order = rng.permutation(len(y))
    return np.array(X, dtype=np.float32)[order], np.array(y)[order]


def _load(name, classes, T, O, seed, n_test):
    X_train, y_train = _curves(classes, 8, T, O, 2 * seed)
    X_test, y_test = _curves(classes, 7, T, O, 2 * seed + 1)
    return Dataset(
        name, X_train, y_train, X_test[:n_test], y_test[:n_test], np.array(sorted(classes))
    )


def load_letters(seed, n_test):
    return _load("letters", ["a", "b", "c"], 24, 2, seed, n_test)


def load_digits(seed, n_test):
    return _load("digits", [0, 1, 2], 12, 3, 0, n_test)


_BUDGETS = {
    "default": ForwardBudget(3, 1, n_full=10, seeds_types=1, seeds_full=1),
    "full": ForwardBudget(4, 2),
}


def tiny_specs(n_episodes=60):
    """Both data sets under the paper's names, small enough for a test."""
    return [
        DataSpec(
            "mnist", load_digits, 15, False, "kmeans", 5, n_episodes, (0.0, 0.1, 0.2),
            {"clustered": (0.0, 0.1, 0.25), "random": (0.0, 0.1, 0.2)}, ("1", 0), 4, _BUDGETS,
        ),
        DataSpec(
            "characters", load_letters, 15, True, "dtw-kmeans", 4, n_episodes, (0.0, 0.1, 0.2),
            dict.fromkeys(("clustered", "random"), (0.0, 0.0001, 0.0002)), ("a", 0), 4, _BUDGETS,
        ),
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def _quick_rates(monkeypatch):
    monkeypatch.setattr(plan, "_SECONDS", 0.002)


@pytest.fixture(autouse=True)
def _no_extras(monkeypatch):
    """As where neither TensorFlow nor aeon is installed: they would take most of the time."""
    real = baselines.available

    def available(method):
        if method in ("keras-lstm", "minirocket"):
            return f"{method} is not installed: pip install 'micfast[extra]'"
        return real(method)

    monkeypatch.setattr(baselines, "available", available)


def go(out, **options):
    settings = {"specs": tiny_specs(), "seeds": 2, "report": False, "progress": False}
    return reproduce(out, **(settings | options))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run of everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_SECONDS", 0.002)
        patch.setattr(
            baselines, "available", lambda m: "no" if m in ("keras-lstm", "minirocket") else None
        )
        out = tmp_path_factory.mktemp("done") / "results"
        go(out)
    return out


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree(folder):
    """Path -> bytes of every file."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# -- settings ------------------------------------------------------------------------------------


def test_the_papers_settings():
    characters, mnist = DATA_SETS["characters"], DATA_SETS["mnist"]
    assert (characters.hidden_size, characters.n_episodes, characters.n_test) == (10, 40000, 400)
    assert (mnist.hidden_size, mnist.n_episodes, mnist.n_test) == (20, 20000, 1000)
    for spec in DATA_SETS.values():
        for subset in ("clustered", "random"):
            assert len(set(spec.noise_levels(subset))) == 9
    assert mnist.noise_levels("clustered")[-1] == (0.2, 0.25)
    assert mnist.noise_levels("random")[-1] == (0.2, 0.2)
    assert characters.noise_levels("random")[1] == (0.0, 0.0001)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_needs_some_work(name):
    settings = Settings.make(only=[name], seeds=1)
    listed, _ = list_tasks(settings)
    assert listed
    about = EXPERIMENTS[name][0]
    assert {unit.data for unit in listed} == ({about} if about else {"mnist", "characters"})


def test_units_of_some_experiments():
    def kinds(*only, **options):
        listed, _ = list_tasks(Settings.make(only=only, seeds=2, **options))
        return [(unit.kind, unit.data, unit.subset, unit.seed) for unit in listed]

    assert kinds("figure5") == [
        ("types", "mnist", "clustered", 0),
        ("reconstruction", "mnist", "clustered", 0),
    ]
    assert kinds("table9") == [
        (kind, "characters", "random", seed) for seed in (0, 1) for kind in ("types", "grid")
    ]
    assert {unit[0] for unit in kinds("table13", "figure7", data=["mnist"])} == {
        "types", "grid", "cross",
    }  # fmt: skip


def test_all_36_cells_are_in_the_plan_and_types_come_first():
    listed, skipped = list_tasks(Settings.make(seeds=10))
    grid = [unit for unit in listed if unit.kind == "grid"]
    assert len(grid) == 2 * 2 * 10
    assert len({unit.file for unit in listed}) == len(listed)
    for unit in listed:
        if unit.subset != "full" and unit.kind != "types":
            assert listed.index(unit.types) < listed.index(unit)
    assert {item["what"] for item in skipped} == {"keras-lstm", "minirocket"}


def test_forward_tasks_follow_the_budget():
    spec = tiny_specs()[0]

    def count(budget):
        settings = Settings.make(only=["table5"], budget=budget, seeds=5, specs=[spec])
        forward = [task for task in list_tasks(settings)[0] if task.kind == "forward"]
        return [sum(t.subset == subset for t in forward) for subset in ("clustered", "full")]

    assert count("default") == [1, 1]
    assert count("full") == [5, 5]
    for spec in DATA_SETS.values():
        default, full = spec.forward["default"], spec.forward["full"]
        assert 1 <= default.epochs_types <= full.epochs_types
        assert 1 <= default.epochs_full <= full.epochs_full
        assert full.n_full is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["table14"]}, "only must be of figure3, .*, got 'table14'"),
        ({"only": []}, "only must be of .*, got nothing"),
        ({"data": ["letters"]}, "data must be of mnist, characters, got 'letters'"),
        (
            {"only": ["table8"], "data": ["mnist"]},
            "leave something to do, but table8 is not about mnist",
        ),
        ({"seeds": 0}, "seeds must be an integer of at least 1, got 0"),
        ({"seeds": 1.5}, "seeds must be an integer of at least 1, got 1.5"),
        ({"budget": "some"}, "budget must be one of default, full, got 'some'"),
        ({"noise": (0.1, -1.0)}, "noise must be two finite numbers"),
        ({"noise": (0.1,)}, "noise must be two finite numbers"),
        ({"n_threads": 0}, "n_threads must be at least 1, got 0"),
        ({"targets": ["a:x"]}, "targets must be LABEL or LABEL:INDEX, got 'a:x'"),
        ({"targets": ["q"]}, r"must name a class \(mnist: 0 1 2; characters: a b c\), got 'q'"),
        ({"targets": ["a", "b:1"]}, "one per data set, got 'a' and 'b:1' for characters"),
        ({"targets": ["2:99"]}, "class 2 of mnist has [0-9]+ of them, numbered from 0, got 99"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        go(tmp_path / "out", **options)


def test_names_in_one_text_are_refused(tmp_path):
    with pytest.raises(TypeError, match="only must be a sequence of names, got 'table1'"):
        go(tmp_path / "out", only="table1")


# -- results -------------------------------------------------------------------------------------


def test_runs_hold_every_cell_once_and_classes_add_up(done):
    runs, classes = rows(done / "raw/runs.csv"), rows(done / "raw/classes.csv")
    assert tuple(runs[0]) == TABLES["runs"][0]
    assert tuple(classes[0]) == TABLES["classes"][0]
    cells = {
        (spec.name, subset, str(noise_in), str(noise_out), str(seed), str(n_iter))
        for spec in tiny_specs()
        for subset in ("clustered", "random")
        for noise_in, noise_out in spec.noise_levels(subset)
        for seed in (0, 1)
        for n_iter in (0, 50)
    }
    key = TABLES["runs"][0][:6]
    assert len(runs) == len(cells) == 2 * 2 * 9 * 2 * 2
    assert {tuple(row[name] for name in key) for row in runs} == cells
    sums = {}
    for row in classes:
        cell = sums.setdefault(tuple(row[name] for name in key), [0, 0, 0.0])
        cell[0] += int(row["n_test"])
        cell[1] += int(row["n_correct"])
        cell[2] += int(row["n_test"]) * float(row["mse"])
    for row in runs:
        n_test, n_correct, total = sums[tuple(row[name] for name in key)]
        assert (n_test, n_correct) == (int(row["n_test"]), int(row["n_correct"]))
        assert n_test == 15
        assert float(row["accuracy"]) == n_correct / n_test
        assert float(row["mse"]) == pytest.approx(total / n_test)


def context(spec, out, **options):
    settings = Settings.make(specs=[spec], **options)
    return Context(settings, lambda file: results.read(out / "raw" / file))


@needs_kernel
def test_a_cell_is_what_training_it_alone_gives(done):
    """The fleet, the derived seeds and both counts of iterations, by another way."""
    spec = tiny_specs()[1]
    types = results.read(done / "raw/units/types-characters-random-0001.npz")["types"]
    dataset = spec.load(1, spec.n_test)
    noise_in, noise_out = 0.2, 0.0001
    training = Training.paper(n_episodes=spec.n_episodes, noise_in=noise_in, noise_out=noise_out)
    errors = {0: [], 50: []}
    for c, label in enumerate("abc"):
        seed = derive_seed(1, "characters", "random", "module", noise_in, noise_out, label)
        bank = GeneratorBank.random(1, hidden_size=4, input_size=4, output_size=2, seeds=[seed])
        bank = train(bank, types[c : c + 1], training, seeds=[seed]).bank
        for n_iter, parts in errors.items():
            parts.append(invert(bank, dataset.X_test, solver=Adam(n_iter=n_iter)).errors[:, 0])
    codes = np.searchsorted(list("abc"), dataset.y_test)
    for n_iter, parts in errors.items():
        table = np.stack(parts, axis=1)
        (row,) = (
            row
            for row in rows(done / "raw/runs.csv")
            if [row[k] for k in TABLES["runs"][0][:6]]
            == ["characters", "random", "0.2", "0.0001", "1", str(n_iter)]
        )
        assert int(row["n_correct"]) == (table.argmin(axis=1) == codes).sum()
        own = table[np.arange(len(codes)), codes].astype(np.float64)
        assert float(row["mse"]) == own.mean()


def test_types_are_centroids_or_members_of_the_training_part(done):
    for spec in tiny_specs():
        for subset in ("clustered", "random"):
            content = results.read(done / f"raw/units/types-{spec.name}-{subset}-0000.npz")
            dataset = spec.load(0, None)
            assert content["types"].shape == (3, 4, *dataset.X_train.shape[1:])
            for c, label in enumerate(content["labels"]):
                members = dataset.X_train[dataset.y_train.astype(str) == label]
                if subset == "clustered":
                    assert (content["index"][c] == -1).all()
                else:
                    np.testing.assert_array_equal(content["types"][c], members[content["index"][c]])
    # Random types of a data set with one fixed split still differ between seeds.
    first, second = (
        results.read(done / f"raw/units/types-mnist-random-000{seed}.npz")["index"]
        for seed in (0, 1)
    )
    assert (first != second).any()


def test_unlearned_modules_are_counted(done):
    manifest = json.loads((done / "manifest.json").read_text())
    contents = [json.loads(p.read_text()) for p in (done / "raw/units").glob("grid-*.json")]
    assert manifest["n_modules"] == sum(c["n_modules"] for c in contents) == 8 * 27
    counted = sum(len(c["not_learned"]) for c in contents)
    assert manifest["n_not_learned"] == counted
    # After 60 episodes nearly none has.
    assert 100 < counted <= 8 * 27
    assert all(
        module["relative_mse"] > 0.1 for content in contents for module in content["not_learned"]
    )


def test_a_module_that_diverged_never_wins_and_has_no_mse(tmp_path, done, monkeypatch):
    spec = tiny_specs()[1]
    train_modules = work.train_modules

    def diverge(*args):
        bank = train_modules(*args)
        bank.weights.W_out[0] = torch.nan
        return bank

    monkeypatch.setattr(work, "train_modules", diverge)
    task = Task("grid", "characters")
    content = work.compute(task, context(spec, done))
    first = [row for row in content["classes"] if (row["noise_in"], row["noise_out"]) == (0, 0)]
    assert [row["n_correct"] for row in first if row["label"] == "a"] == [0, 0]
    assert np.isnan([row["mse"] for row in first if row["label"] == "a"]).all()
    assert any(row["n_correct"] for row in first)
    assert np.isnan(content["not_learned"][0]["relative_mse"])
    results.prepare(tmp_path)
    results.write(tmp_path / "raw" / task.file, content)
    results.assemble(tmp_path / "raw")
    assert rows(tmp_path / "raw/runs.csv")[0]["mse"] == ""


def test_cross_reconstruction(done):
    for spec in tiny_specs():
        content = results.read(done / f"raw/cross-{spec.name}.npz")
        labels = content["labels"].tolist()
        assert labels == [str(label) for label in spec.load(0, None).classes]
        whole = spec.load(0, None)
        assert content["n_train"].tolist() == [8] * 3  # all there are, fewer than 20
        assert content["n_test"].tolist() == [(whole.y_test == c).sum() for c in whole.classes]
        bank = work.train_modules(Task("cross", spec.name), context(spec, done), [(0.0, 0.0)])
        X = whole.X_test[whole.y_test == whole.classes[2]]
        expected = invert(bank, X).errors.mean(axis=0)
        np.testing.assert_allclose(content["test"][:, 2], expected, rtol=1e-5)
        assert content["train"].shape == (3, 3)
        assert (content["noise_in"], content["noise_out"], content["seed"]) == (0, 0, 0)


def test_cross_reconstruction_takes_at_most_20_different_ones(tmp_path, monkeypatch):
    spec = replace(tiny_specs()[1], load=lambda seed, n_test: many)
    X, y = _curves(["a", "b"], 30, 24, 2, 0)
    many = Dataset("many", X, y, X, y, np.array(["a", "b"]))
    seen, search = [], Context.invert

    def spy(self, bank, X, n_iter, **options):
        seen.append(X)
        return search(self, bank, X, n_iter, **options)

    monkeypatch.setattr(Context, "invert", spy)
    go(tmp_path / "out", specs=[spec], only=["figure7"], seeds=1)
    assert [len(np.unique(part, axis=0)) for part in seen] == [20] * 4


def test_reconstruction(done):
    for spec in tiny_specs():
        content = results.read(done / f"raw/reconstruction-{spec.name}.npz")
        dataset = spec.load(0, spec.n_test)
        label = spec.target[0]
        assert content["label"] == label
        members = dataset.X_test[dataset.y_test.astype(str) == label]
        for target in content["targets"]:
            assert (members == target).all(axis=(1, 2)).any()
        for part in ("types", "targets"):
            difference = content[f"{part}_drawn"] - content[part]
            np.testing.assert_allclose(
                np.square(difference).mean(axis=(1, 2)), content[f"{part}_errors"], rtol=1e-4
            )
        assert content["targets_latents"].shape == (4, 4)
        np.testing.assert_allclose(content["targets_latents"].sum(axis=1), 1, rtol=1e-5)
        # A type is drawn from its own one-hot input.
        bank = work.train_modules(Task("cross", spec.name), context(spec, done), [(0.0, 0.0)])
        drawn = bank.generate(torch.eye(4), content["types"].shape[1]).numpy()
        c = [str(label) for label in dataset.classes].index(label)
        np.testing.assert_allclose(content["types_drawn"], drawn[c], rtol=1e-5, atol=1e-6)


def test_decision_for_a_chosen_target_and_noise(tmp_path):
    out = tmp_path / "out"
    go(out, only=["figure3"], targets=["b:1", "2"], noise=(0.1, 0.05), seeds=1)
    for spec, label, index in zip(tiny_specs(), ("2", "b"), (0, 1), strict=True):
        content = results.read(out / f"raw/decision-{spec.name}.npz")
        dataset = spec.load(0, spec.n_test)
        members = dataset.X_test[dataset.y_test.astype(str) == label]
        np.testing.assert_array_equal(content["target"], members[index])
        assert (content["label"], content["noise_in"], content["noise_out"]) == (label, 0.1, 0.05)
        assert content["error_history"].shape == (51, 3)
        np.testing.assert_array_equal(content["error_history"][-1], content["errors"])
        difference = content["drawn"] - content["target"]
        np.testing.assert_allclose(
            np.square(difference).mean(axis=(1, 2)), content["errors"], rtol=1e-4
        )
        assert content["latents"].shape == (3, 4)
    assert not (out / "raw/runs.csv").exists()


def test_forward_and_baselines(done):
    forward, others = rows(done / "raw/forward.csv"), rows(done / "raw/baselines.csv")
    assert [
        (row["method"], row["data"], row["subset"], row["seed"], row["epochs"], row["n_train"])
        for row in forward
    ] == [
        ("torch-lstm", data, subset, "0", epochs, n_train)
        for data in ("characters", "mnist")
        for subset, epochs, n_train in (
            ("clustered", "3", "12"),
            ("full", "1", "10"),
            ("random", "3", "12"),
        )
    ]
    assert len(others) == 3 * 2 * 2 * 2
    names = {"mic-default-training", "1nn-euclidean", "1nn-dtw"}
    assert {row["method"] for row in others} == names
    for row in (*forward, *others):
        assert int(row["n_test"]) == 15
        assert float(row["accuracy"]) == int(row["n_correct"]) / 15
    # The same types as the grid's, by hand.
    content = results.read(done / "raw/units/types-mnist-random-0001.npz")
    dataset = load_digits(1, 15)
    distance = np.square(dataset.X_test[:, None, None] - content["types"]).sum(axis=(3, 4))
    right = (distance.min(axis=2).argmin(axis=1) == dataset.y_test).sum()
    (row,) = (
        row for row in others if list(row.values())[:4] == ["1nn-euclidean", "mnist", "random", "1"]
    )
    assert int(row["n_correct"]) == right


def test_methods_that_are_there_run(tmp_path, monkeypatch):
    """Keras and MiniRocket through stand-ins: what they are called with, and what is kept."""
    calls = []

    def forward(X, y, X_test, y_test, **options):
        calls.append((X.shape, sorted(set(y.tolist())), options))
        return 7

    def rocket(X, y, X_test, *, seed):
        calls.append((X.shape, sorted(set(y.tolist())), {"seed": seed}))
        return np.full(len(X_test), "a")

    monkeypatch.setattr(baselines, "available", lambda method: None)
    monkeypatch.setattr(baselines, "forward_keras", forward)
    monkeypatch.setattr(baselines, "minirocket", rocket)
    out = tmp_path / "out"
    go(out, only=["table5", "beyond"], data=["characters"], seeds=1)
    keras = [row for row in rows(out / "raw/forward.csv") if row["method"] == "keras-lstm"]
    assert [row["n_correct"] for row in keras] == ["7"] * 3
    for shape, labels, options in calls:
        assert shape in ((12, 24, 2), (10, 24, 2))
        assert labels == ["a", "b", "c"]
        assert 0 <= options["seed"] < 2**31
        if "epochs" in options:
            assert (options["hidden_size"], options["batch_size"]) == (12, 4)
    assert len(calls) == 5
    (first, _) = (r for r in rows(out / "raw/baselines.csv") if r["method"] == "minirocket")
    truth = load_letters(0, 15).y_test
    assert int(first["n_correct"]) == (truth == "a").sum()


# -- manifest and plan ---------------------------------------------------------------------------


def test_manifest(done):
    manifest = json.loads((done / "manifest.json").read_text())
    assert manifest["finished"] is True
    assert manifest["seeds"] == [0, 1]
    assert manifest["settings"]["data"]["characters"]["noise_out"]["random"] == [0, 1e-4, 2e-4]
    dataset = load_letters(0, 15)
    expected = hashlib.sha256(b"<f4" + dataset.X_test.tobytes()).hexdigest()
    assert manifest["data"]["characters"]["sha256"]["X_test"] == expected
    assert manifest["data"]["characters"]["shapes"]["X_test"] == [15, 24, 2]
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["machine"]["cores"] >= 1
    assert manifest["machine"]["cpu"]
    seconds = list(manifest["units"].values())
    assert len(seconds) == manifest["plan"]["n_units"]
    assert all(s > 0 for s in seconds)
    assert sum(seconds) < manifest["seconds"]
    for rates in manifest["rates"].values():
        for name in ("episodes", "inversions", "original_episodes", "original_inversions"):
            assert rates[name] > 0
    assert manifest["plan"]["original_seconds"] > 0
    assert {item["what"] for item in manifest["skipped"]} == {"keras-lstm", "minirocket"}
    if (commit := manifest["commit"]) is not None:
        assert re.fullmatch("[0-9a-f]{40}", commit)


def test_raw_results_hold_no_times(done):
    text = b"".join(content for content in tree(done / "raw").values() if content[:2] != b"PK")
    assert b"seconds" not in text
    assert b"time" not in text


def test_dry_run_tells_the_plan_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    assert go(out, dry_run=True, progress=True) is None
    text = capsys.readouterr().out
    assert not out.exists()
    lines = {line.split("  ")[1]: line.split() for line in text.splitlines() if line[:2] == "  "}
    # 2 subsets x 2 seeds of 9 x 3 modules; 15 test sequences each.
    assert lines["noise grid, mnist"][3:6] == ["4", "108", "1,620"]
    assert lines["types, characters"][2] == "4"
    # The modules of the figures are trained once: 3 per data set.
    assert lines["figures, characters"][2:5] == ["3", "3", str(2 * 20 * 9 + 4 + 3)]
    assert lines["in all"][2:4] == ["52", "222"]
    assert "the original's way" in text
    assert "Skipped: keras-lstm (keras-lstm is not installed" in text
    assert "Skipped: minirocket" in text
    assert max(map(len, text.splitlines())) < 125


def test_plan_adds_up_from_rates():
    spec = tiny_specs()[1]
    settings = Settings.make(only=["table8"], seeds=2, specs=[spec])
    tasks, skipped = list_tasks(settings)
    rates = {
        "episodes": 100.0, "inversions": 10.0, "original_episodes": 2.0,
        "original_inversions": 0.5, "forward_steps": None,
        "n_train": 24, "n_test": 15, "n_classes": 3,
    }  # fmt: skip
    made = plan.make_plan(settings, tasks, tasks[:2], skipped, {"characters": rates}, 1)
    seconds = made.frame.set_index("task")["seconds"]
    grid = Task("grid", "characters", "clustered", 1)
    assert seconds[grid] == pytest.approx(27 * 60 / 100 + 27 * 15 / 10)
    assert made.original_seconds == pytest.approx(2 * (27 * 60 / 2 + 27 * 15 / 0.5))
    assert made.pending["task"].tolist() == tasks[2:]
    assert str(made).startswith("2 of 4 units are done already; to do:")


def test_measured_rates_are_those_of_the_work(monkeypatch):
    """A clock that counts 3 s per call: the rate is work over time."""
    monkeypatch.setattr(plan.time, "perf_counter", iter(range(0, 300, 3)).__next__)
    done = []
    assert plan._rate(done.append) == pytest.approx(1 / 3)
    assert done == [1, 1]


def test_rates_leave_torchs_random_numbers_alone():
    spec = tiny_specs()[0]
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    plan.measure_rates(spec, spec.load(0, 15), forward=True)
    assert (torch.rand(2) == expected).all()


@pytest.mark.slow
def test_progress_lines_without_a_terminal(tmp_path, capsys):
    go(tmp_path / "out", only=["table8"], seeds=1, progress=True)
    captured = capsys.readouterr()
    assert captured.out.startswith("2 units of work:")
    first, second = captured.err.splitlines()
    assert first.startswith("1 of 2: types-characters-clustered-0000, about ")
    assert second.startswith("2 of 2: grid-characters-clustered-0000, about ")


def test_bar_on_a_terminal_ends_full(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    go(tmp_path / "out", only=["table8"], seeds=1, progress=True)
    assert "100%|" in capsys.readouterr().err


# -- the folder ----------------------------------------------------------------------------------


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    for resume in (False, True):
        with pytest.raises(ResultsError, match="is not empty and holds no results of reproduce"):
            go(tmp_path, resume=resume)
    assert tree(tmp_path) == {"letter.txt": b"dear"}


def test_a_folder_with_results_needs_resume(done):
    before = tree(done)
    with pytest.raises(ResultsError, match=r"holds results already: resume them \(--resume\)"):
        go(done)
    assert tree(done) == before


def test_a_manifest_of_something_else_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ResultsError, match="not the manifest of `micfast reproduce`"):
        go(tmp_path, resume=True)


def test_resume_of_a_finished_run_does_nothing(done, capsys):
    before = tree(done / "raw")
    go(done, resume=True, progress=True)
    captured = capsys.readouterr()
    assert captured.out.startswith("52 of 52 units are done already")
    assert captured.err == ""
    assert tree(done / "raw") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 3}, r"settings\.seeds was 2, is now 3"),
        ({"only": ["table1"]}, r"settings\.experiments was \[.*\], is now \['table1'\]"),
        ({"targets": ["b"]}, r"settings\.targets\.characters was \['a', 0\], is now \['b', 0\]"),
        ({"specs": tiny_specs(61)}, r"n_episodes was 60, is now 61"),
        (
            {"specs": [replace(s, load=lambda seed, n: load_digits(0, 15)) for s in tiny_specs()],
             "targets": ["1"], "data": ["mnist"]},
            r"settings\.data\.characters was .*, is now None",
        ),
    ],
)  # fmt: skip
def test_resume_with_other_settings_is_refused(done, options, message):
    before = tree(done)
    with pytest.raises(ResultsError, match=f"can't resume .*{message}"):
        go(done, resume=True, **options)
    assert tree(done) == before


def test_resume_with_other_data_or_another_kernel_is_refused(done, monkeypatch):
    def other(seed, n_test):
        dataset = load_letters(seed, n_test)
        return replace(dataset, X_train=dataset.X_train + 1e-6)

    mnist, letters = tiny_specs()
    with pytest.raises(ResultsError, match=r"data\.characters\.sha256\.X_train was"):
        go(done, resume=True, specs=[mnist, replace(letters, load=other)])
    computed_with = run._computed_with()
    monkeypatch.setattr(run, "_computed_with", lambda: computed_with | {"isa": "abacus"})
    with pytest.raises(ResultsError, match=r"computed_with\.isa was .*, is now abacus"):
        go(done, resume=True)


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(tmp_path):
    out = tmp_path / "out"
    with results.locked(out):
        with pytest.raises(ResultsError, match="another run is at work in"):
            go(out)
        assert list(tree(out)) == [".lock"]
    go(out, only=["figure3"], seeds=1)
    assert (out / "raw/decision-mnist.npz").exists()


@pytest.mark.slow
def test_a_damaged_unit_is_named(tmp_path):
    out = tmp_path / "out"
    go(out, only=["table8"], seeds=1)
    for name in ("types-characters-clustered-0000.npz", "grid-characters-clustered-0000.json"):
        path = out / "raw/units" / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        if name.startswith("types"):
            (out / "raw/units/grid-characters-clustered-0000.json").unlink()
        with pytest.raises(
            ResultsError, match=f"{name}: damaged .* delete it and run with --resume"
        ):
            go(out, only=["table8"], seeds=1, resume=True)
        path.unlink()
        go(out, only=["table8"], seeds=1, resume=True)
        assert path.read_bytes() == whole


def test_report_needs_its_packages_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_REPORT_NEEDS", ("jinja2", "no_such_package"))
    with pytest.raises(RuntimeError, match=r"no_such_package missing.*micfast\[reproduce\]"):
        go(tmp_path / "out", report=True)
    assert not (tmp_path / "out").exists()


# -- killed and resumed --------------------------------------------------------------------------

# One data set and some experiments, so that a process imports no scikit-learn: it shall be killed
# at work, not at its start.
_KILLED = {"data": ["characters"], "only": ["table13", "figure3", "figure6", "figure7"]}
_PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import test_reproduce
from micfast.experiments.paper import run
run.measure_rates = lambda *args, **options: dict(
    episodes=1e5, inversions=1e4, original_episodes=1e3, original_inversions=1e2,
    forward_steps=None, n_train=24, n_test=15, n_classes=3)
specs = test_reproduce.tiny_specs(20000)
test_reproduce.go({out!r}, resume={resume}, n_threads={threads}, specs=specs, **{options!r})
"""


def start(out, resume, threads=1):
    program = _PROGRAM.format(
        tests=str(Path(__file__).parent),
        out=str(out),
        resume=resume,
        threads=threads,
        options=_KILLED,
    )
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@needs_kernel
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no SIGKILL")
def test_killed_five_times_and_resumed_gives_the_same_bytes(tmp_path):
    out, uninterrupted = tmp_path / "out", tmp_path / "uninterrupted"
    go(uninterrupted, specs=tiny_specs(20000), **_KILLED)
    everything = tree(uninterrupted / "raw")
    n_units = json.loads((uninterrupted / "manifest.json").read_text())["plan"]["n_units"]

    def finished():
        return len([*(out / "raw").glob("*.npz"), *(out / "raw/units").glob("[!.]*")])

    # Before the first unit, between two of them, and within one.
    for kill, (n_more, delay) in enumerate(((0, 0.0), (1, 0.0), (1, 0.03), (2, 0.0), (1, 0.1))):
        process = start(out, resume=kill > 0)
        try:
            before, deadline = finished(), time.monotonic() + 60
            while finished() < before + n_more or not (out / "manifest.json").exists():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(delay)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert process.returncode == -signal.SIGKILL
        assert finished() < n_units, "too late: it was done before it could be killed"
        assert not (out / "raw/runs.csv").exists()
    # What a kill in the midst of writing leaves.
    (out / "raw/units/.grid-characters.0123456789ab.tmp.json").write_text('{"ru')
    process = start(out, resume=True, threads=2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert tree(out / "raw") == everything
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest["sessions"]) == 6
    assert len(manifest["units"]) == n_units
    assert manifest["n_modules"] == 4 * 27


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def interrupt(task, context):
        if task.kind == "grid":
            raise KeyboardInterrupt
        return work.compute(task, context)

    monkeypatch.setattr(run, "compute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        go(out, only=["table8"], seeds=1, progress=True)
    assert "1 units are done and kept" in capsys.readouterr().out
    monkeypatch.setattr(run, "compute", work.compute)
    go(out, only=["table8"], seeds=1, resume=True)
    assert len(rows(out / "raw/runs.csv")) == 18


# -- command line --------------------------------------------------------------------------------


@pytest.fixture
def _tiny_data_sets(monkeypatch):
    from micfast.experiments.paper import settings

    monkeypatch.setattr(settings, "DATA_SETS", {spec.name: spec for spec in tiny_specs()})


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny_data_sets")
def test_report(tmp_path):
    pytest.importorskip("statsmodels")
    out = tmp_path / "results"
    options = {"only": ["table1", "figure6"], "data": ["characters"], "targets": ["b:1"]}
    report = reproduce(out, seeds=2, n_threads=1, progress=False, **options)
    assert report == out / "report.html"
    assert len(rows(out / "raw/runs.csv")) == 2 * 9 * 2 * 2
    assert results.read(out / "raw/reconstruction-characters.npz")["label"] == "b"
    assert (out / "reproduction.md").read_text(encoding="utf-8").startswith("# The paper")
    assert "<html" in report.read_text(encoding="utf-8")
    assert {"table1.md", "table1.csv"} <= {path.name for path in (out / "tables").iterdir()}
    assert (out / "figures/figure6.svg").exists()

    before = tree(out / "raw")
    report.unlink()
    (out / "raw/runs.csv").unlink()
    assert reproduce(out, report_only=True) == report
    assert report.exists()
    assert tree(out / "raw") == before


def test_nothing_to_report(tmp_path):
    with pytest.raises(ResultsError, match="holds no results to report"):
        reproduce(tmp_path / "results", report_only=True)
    assert not list(tmp_path.iterdir())
