"""The command line: reports, files, messages, exit codes, Ctrl-C; tiny settings."""

import csv
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

import micfast
from micfast import GeneratorBank, ModularInverseClassifier, _backend
from micfast._io import atomic_path, check_output_path
from micfast.cli import main
from micfast.experiments import demo

HAS_KERNEL = _backend.extension is not None

DEMO = ["demo", "--episodes", "5000", "--n-test", "40", "--iterations", "10", "--hidden-size", "9"]
FIT = ["--episodes", "300", "--n-types", "2", "--hidden-size", "5", "--iterations", "10"]
FIT += ["--modules-per-class", "2", "--noise-in", "0.1"]


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data():
    """Rising and flat sequences, (24, 10, 1), with text labels."""
    rng = np.random.default_rng(0)
    rising = np.outer(rng.uniform(0.5, 1.5, 12), np.linspace(0, 1, 10))
    X = np.concatenate([rising, np.ones((12, 10))])[..., None]
    return X, np.array(["rise"] * 12 + ["flat"] * 12)


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    np.savez(folder / "train.npz", X=data[0], y=data[1])
    path = folder / "model.safetensors"
    assert main(["fit", str(folder / "train.npz"), "-o", str(path), "--quiet", *FIT]) == 0
    return path


def files():
    return sorted(path.name for path in Path().iterdir())


def fails(argv, capsys, code=1):
    """Run; the one line of the error."""
    assert main(argv) == code
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("micfast: error: ")
    return captured.err.removeprefix("micfast: error: ").rstrip("\n")


# -- demo ----------------------------------------------------------------------------------------


def test_demo_reports_writes_and_draws(capsys):
    assert main([*DEMO, "--json", "result.json", "--seed", "3", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""  # no terminal, so no bars
    assert files() == ["micfast-demo-digits.png", "result.json"]
    pixels = imread("micfast-demo-digits.png")
    assert pixels.shape[1] == 1600
    assert 0.5 < pixels[..., :3].mean() < 0.999

    result = json.loads(Path("result.json").read_text())
    for key in (
        "accuracy",
        "accuracy_0_iterations",
        "mse_true_class",
        "mse_true_class_0_iterations",
        "type_seconds",
        "train_seconds",
        "invert_seconds",
        "inversions_per_second",
        "total_seconds",
        # Compared with the fallback, where that isn't what ran.
        *(["torch_seconds_per_inversion", "speedup_over_torch"] if HAS_KERNEL else []),
    ):
        assert isinstance(result[key], float), key
        assert result[key] > 0, key
    assert (result["n_train"], result["n_test"], result["seed"]) == (898, 40, 3)
    assert result["n_inversions"] == 400
    assert isinstance(result["retrained"], int)
    assert set(result["versions"]) == {"micfast", "torch", "numpy", "python"}
    assert result["versions"]["micfast"] == micfast.__version__
    assert result["threads"] == 1
    settings = result["settings"]
    assert (settings["n_episodes"], settings["n_iter"], settings["hidden_size"]) == (5000, 10, 9)
    assert (settings["type_selection"], settings["representative"]) == ("kmeans", "centroid")
    assert [row["label"] for row in result["per_class"]] == list(range(10))
    assert sum(row["n_test"] for row in result["per_class"]) == 40
    right = sum(row["n_right"] for row in result["per_class"])
    assert result["accuracy"] == pytest.approx(right / 40)
    comparison = result["torch_comparison"]
    assert comparison["n_targets"] == (40 if HAS_KERNEL else 0)
    if HAS_KERNEL:
        assert comparison["median_relative_difference"] < 1e-4
        assert comparison["n_equal_decisions"] >= 39

    assert f"{result['accuracy']:.1%}" in captured.out
    assert "0 iterations" in captured.out
    assert "picture: micfast-demo-digits.png" in captured.out
    assert max(map(len, captured.out.splitlines())) < 125


def test_demo_is_repeatable_and_without_comparison_has_none(capsys):
    results = []
    for name in ("a.json", "b.json"):
        argv = [*DEMO, "--no-compare", "--no-picture", "--quiet", "--json", name]
        assert main(argv) == 0
        results.append(json.loads(Path(name).read_text()))
    assert capsys.readouterr().out == ""
    assert files() == ["a.json", "b.json"]
    a, b = results
    for key in ("accuracy", "mse_true_class", "mse_true_class_0_iterations", "per_class"):
        assert a[key] == b[key], key
    assert a["torch_seconds_per_inversion"] is None
    assert a["speedup_over_torch"] is None


def test_demo_by_the_fallback_itself(capsys):
    argv = [*DEMO, "--backend", "torch", "--iterations", "2", "--no-picture", "--episodes", "5"]
    assert main([*argv, "--n-test", "5", "--json", "r.json"]) == 0
    result = json.loads(Path("r.json").read_text())
    assert result["backend"] == "torch"
    assert result["speedup_over_torch"] is None
    assert "fallback" not in capsys.readouterr().out.split("\n", 3)[3]


def test_demo_writes_a_result_with_nan(monkeypatch):
    result = {"accuracy": float("nan"), "rows": [{"x": float("inf")}, (1.5, "a")]}
    run = demo.DemoRun(None, None, None, None, result)
    monkeypatch.setattr(demo, "run_demo", lambda config, progress: run)
    assert main([*DEMO, "--no-picture", "--quiet", "--json", "r.json"]) == 0
    text = Path("r.json").read_text()
    assert json.loads(text) == {"accuracy": None, "rows": [{"x": None}, [1.5, "a"]]}


def test_each_data_set_has_settings():
    assert set(demo.DATA_SETS) == {"digits", "characters", "mnist"}
    config = demo.DemoConfig.for_data("mnist", noise_in=0.0, hidden_size=None)
    assert (config.noise_in, config.noise_out, config.hidden_size) == (0.0, 0.1, 20)
    assert (config.solver, config.init, config.n_iter) == ("lm", "nearest", 8)
    paper = demo.DemoConfig.for_data("digits", solver="adam")
    assert (paper.solver, paper.init, paper.n_iter) == ("adam", "uniform", 50)
    assert demo.DemoConfig.for_data("digits", solver="adam", n_iter=3).n_iter == 3
    letters = demo.DemoConfig.for_data("characters")
    assert (letters.n_episodes, letters.type_selection) == (40000, "dtw-kmeans")
    assert (letters.n_test, letters.hidden_size) == (400, 10)
    mnist = demo.DemoConfig.for_data("mnist")
    assert (mnist.hidden_size, mnist.n_episodes, mnist.noise_out) == (20, 20000, 0.1)
    with pytest.raises(ValueError, match="data must be one of digits, characters, mnist"):
        demo.DemoConfig.for_data("cats")
    with pytest.raises(ValueError, match="n_rows must be at least 1, got 0"):
        demo.DemoConfig.for_data("digits", n_rows=0)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--n-test", "5000"], "demo: n_test must be at most 899, got 5000"),
        (["--json", "nowhere/x.json"], "nowhere: folder doesn't exist"),
        (["--picture", "nowhere/x.png"], "nowhere: folder doesn't exist"),
        (["--json", "."], ": a file must be named, not a folder"),
    ],
)
def test_demo_errors(argv, message, capsys):
    assert fails([*DEMO, *argv], capsys).endswith(message)
    assert files() == []


def test_demo_data_that_is_not_there(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MICFAST_DATA", str(tmp_path))
    assert "mixoutALL_shifted.mat" in fails(["demo", "--data", "characters"], capsys)
    assert files() == []


# -- fit and predict -----------------------------------------------------------------------------


def test_fit_reports(data, capsys):
    np.savez("train.npz", A=data[0], b=data[1])
    argv = ["fit", "train.npz", "--X-key", "A", "--y-key", "b", "-o", "m.safetensors", *FIT]
    assert main([*argv, "--json", "report.json", "--standardize", "none", "--seed", "7"]) == 0
    out = capsys.readouterr().out
    assert "4 of 4 modules learned" in out or "NO" in out
    assert "model: m.safetensors" in out
    report = json.loads(Path("report.json").read_text())
    modules = [(row["label"], row["module"]) for row in report["classes"]]
    assert modules == [("flat", 0), ("flat", 1), ("rise", 0), ("rise", 1)]
    assert [row["n_samples"] for row in report["classes"]] == [12] * 4
    assert report["parameters"]["random_state"] == 7
    classifier = ModularInverseClassifier.load("m.safetensors")
    assert classifier.standardize is None
    assert (classifier.n_types, classifier.n_episodes, classifier.n_iter) == (2, 300, 10)


def test_fit_from_two_files_gives_the_same_model(data, model):
    np.save("X.npy", data[0][..., 0])
    np.save("y.npy", data[1])
    argv = ["fit", "--X", "X.npy", "--y", "y.npy", "-o", "m.safetensors", "--quiet", *FIT]
    assert main(argv) == 0
    assert GeneratorBank.load("m.safetensors") == GeneratorBank.load(model)


def test_predict_to_npz(data, model, capsys):
    X, y = data
    np.savez("test.npz", X=X, y=y)
    argv = ["predict", str(model), "test.npz", "-o", "p.npz", "--proba", "--reconstructions"]
    assert main([*argv, "--score"]) == 0
    classifier = ModularInverseClassifier.load(model)
    with np.load("p.npz", allow_pickle=False) as found:
        assert set(found) == {
            "predictions", "errors", "classes", "probabilities", "reconstructions"
        }  # fmt: skip
        np.testing.assert_array_equal(found["predictions"], classifier.predict(X))
        errors = classifier.reconstruction_errors(X)  # float32
        np.testing.assert_array_equal(found["errors"].astype(np.float32), errors)
        np.testing.assert_array_equal(found["classes"], ["flat", "rise"])
        np.testing.assert_allclose(found["probabilities"], classifier.predict_proba(X))
        np.testing.assert_allclose(found["reconstructions"], classifier.reconstruct(X), rtol=1e-6)
    assert capsys.readouterr().out == f"accuracy {classifier.score(X, y):.4f}\n"


def test_predict_to_csv(data, model):
    X = data[0][..., 0]
    np.save("X.npy", X)
    assert main(["predict", str(model), "X.npy", "-o", "p.csv", "--proba"]) == 0
    with open("p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    classifier = ModularInverseClassifier.load(model)
    errors = classifier.reconstruction_errors(X)
    assert [row["prediction"] for row in rows] == classifier.predict(X).tolist()
    for c, label in enumerate(classifier.classes_):
        found = np.array([row[f"error_{label}"] for row in rows], dtype=np.float32)
        np.testing.assert_array_equal(found, errors[:, c])  # to the last bit
        found = [float(row[f"probability_{label}"]) for row in rows]
        np.testing.assert_allclose(found, classifier.predict_proba(X)[:, c])
    lowest = np.array([row["lowest_error"] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(lowest, errors.min(axis=1))


def test_predict_prints_labels_and_scores_from_a_second_file(data, model, capsys):
    X, y = data
    np.save("X.npy", X)
    np.save("y.npy", y)
    argv = ["predict", str(model), "--X", "X.npy", "--y", "y.npy", "--score", "--iterations", "3"]
    assert main(argv) == 0
    *labels, score = capsys.readouterr().out.splitlines()
    classifier = ModularInverseClassifier.load(model).set_params(n_iter=3)
    assert labels == classifier.predict(X).tolist()
    assert score == f"accuracy {classifier.score(X, y):.4f}"


def test_predict_decides_as_the_model_does(data, model, tmp_path):
    """Rejection and scaled errors come from the model file, not from the command."""
    X = np.concatenate([data[0], np.cumsum(np.ones_like(data[0][:2]), axis=1)])
    classifier = ModularInverseClassifier.load(model)
    classifier.set_params(reject=0.05, error_scale="samples")
    classifier.save(tmp_path / "strict.safetensors")
    expected = classifier.predict(X)
    assert None in expected.tolist()
    np.save("X.npy", X)
    assert main(["predict", str(tmp_path / "strict.safetensors"), "X.npy", "-o", "p.npz"]) == 0
    with np.load("p.npz", allow_pickle=False) as found:
        answers = ["" if label is None else label for label in expected]
        assert found["predictions"].tolist() == answers
        difference = found["errors"][:, 0] - found["errors"][:, 1]
        np.testing.assert_allclose(difference, classifier.decision_function(X))


def test_labels_of_another_type_score_nothing(data, model, capsys):
    np.savez("test.npz", X=data[0], y=np.arange(24))
    assert main(["predict", str(model), "test.npz", "--score", "-o", "p.csv"]) == 0
    assert capsys.readouterr().out == "accuracy 0.0000\n"


@pytest.mark.parametrize(
    ("arrays", "argv", "message"),
    [
        ({"Z": np.zeros(3)}, [], "data.npz: holds no array 'X' but Z: choose by --X-key"),
        ({}, [], "data.npz: holds no array 'X' but nothing: choose by --X-key"),
        ({"X": np.zeros(3)}, [], "X must have shape [samples, steps] or"),
        ({"X": np.zeros((0, 5))}, [], "X must have shape [samples, steps] or"),
        ({"X": np.array([["a"]])}, [], "X must hold real numbers, got dtype <U1"),
        ({"X": np.zeros((3, 10, 2))}, [], "X must have n_channels = 1"),
        ({"X": np.full((3, 10), np.nan)}, [], "X must be finite, but 3 of 3 samples hold NaN"),
        ({"X": np.zeros((3, 10))}, ["--score"], "data.npz: holds no array 'y'"),
        ({"X": np.zeros((3, 10)), "y": np.zeros(2)}, ["--score"], "y must have shape [3], one"),
        ({"X": np.array([None])}, [], "data.npz: must be a .npz or .npy file"),
        ({"X": np.zeros((3, 10))}, ["--backend", "cuda"], "backend 'cuda' is not available"),
    ],
)
def test_predict_errors(arrays, argv, message, model, capsys):
    np.savez("data.npz", **arrays)
    if "cuda" in argv and "cuda" in micfast.config()["backends"]:
        pytest.skip("there is a CUDA backend here")
    found = fails(["predict", str(model), "data.npz", "-o", "p.csv", *argv], capsys)
    assert message in found
    assert files() == ["data.npz"]


def test_files_that_are_none(capsys, data):
    Path("text.npz").write_text("no array")
    np.save("X.npy", data[0])
    for name in ("text.npz", "empty.npz", "missing.npz"):
        if name == "empty.npz":
            Path(name).touch()
        assert fails(["fit", name, "-o", "m"], capsys).startswith(name)
        assert fails(["predict", name, "X.npy"], capsys).startswith(name)
        assert fails(["info", name], capsys).startswith(name)
    assert fails(["fit", "X.npy", "-o", "m"], capsys).startswith("y is missing")
    assert "m" not in files()


def test_a_bank_is_no_classifier(capsys, data):
    GeneratorBank.random(2, hidden_size=3, input_size=2, output_size=1).save("bank.safetensors")
    np.save("X.npy", data[0])
    assert "no estimator" in fails(["predict", "bank.safetensors", "X.npy"], capsys)


def test_options_that_do_not_fit_each_other(capsys, model):
    for argv in (
        ["fit", "-o", "m"],
        ["fit", "a.npz", "--X", "b.npy", "-o", "m"],
        ["predict", str(model), "a.npz", "--proba"],
        ["predict", str(model), "a.npz", "--reconstructions", "-o", "p.csv"],
    ):
        fails(argv, capsys, code=2)


def test_warnings_are_one_line(data, capsys):
    np.savez("few.npz", X=data[0][10:14], y=data[1][10:14])
    argv = ["fit", "few.npz", "-o", "m.safetensors", *FIT, "--n-types", "3", "--max-retries", "0"]
    assert main([*argv, "--episodes", "1", "--quiet"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("micfast: warning: ") for line in lines)


# -- info, help, usage ---------------------------------------------------------------------------


def test_info(model, capsys):
    assert main(["info"]) == 0
    assert f"micfast {micfast.__version__}" in capsys.readouterr().out
    assert main(["info", str(model)]) == 0
    out = capsys.readouterr().out
    for text in ("ModularInverseClassifier", "flat rise", "5 hidden, 2 inputs", "n_episodes=300"):
        assert text in out
    bank = GeneratorBank.random(2, hidden_size=3, input_size=2, output_size=1)
    bank.with_metadata({"made by": "me"}).save("bank.safetensors")
    assert main(["info", "bank.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "bank of modules" in out
    assert '{"made by": "me"}' in out


@pytest.mark.parametrize("command", [[], ["demo"], ["fit"], ["predict"], ["info"]])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "usage: micfast" in out
    assert command == ["info"] or "examples:" in out


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["dance"],
        ["fit", "a.npz"],
        ["demo", "--data", "cats"],
        ["demo", "--n-test", "0"],
        ["demo", "--n-types", "x"],
        ["demo", "--noise-in", "-1"],
        ["demo", "--noise-in", "nan"],
        ["demo", "--seed", str(2**32)],
        ["demo", "--picture", "x.txt"],
        ["predict", "m", "a.npz", "-o", "p.txt"],
        ["fit", "a.npz", "-o", "m", "--learning-rate", "0"],
    ],
)
def test_usage(argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"micfast {micfast.__version__}\n"


def test_debug_shows_where(capsys):
    with pytest.raises(FileNotFoundError):
        main(["info", "missing", "--debug"])


def test_module_runs_and_help_imports_nothing_slow():
    code = (
        "import sys\nfrom micfast.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "slow = {'torch', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    run = subprocess.run([sys.executable, "-m", "micfast", "--version"], capture_output=True)
    assert (run.returncode, run.stdout.split()[0]) == (0, b"micfast")


# -- interruption --------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_ends_training_and_leaves_nothing(data, tmp_path):
    np.savez("train.npz", X=np.repeat(data[0], 20, axis=1), y=data[1])
    Path("report.json").write_text("before")
    argv = ["fit", "train.npz", "-o", "m.safetensors", "--json", "report.json"]
    argv += ["--episodes", "100000000", "--n-types", "2"]
    # Says when the training itself begins, so that the signal comes in its midst.
    code = (
        "import sys, micfast.ops as ops; from micfast.cli import main; train = ops.train\n"
        "def begin(*args, **kwargs):\n"
        "    print('training', flush=True); return train(*args, **kwargs)\n"
        "ops.train = begin\n"
        f"sys.exit(main({argv!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # pytest's own runner may have SIGINT ignored, which a child inherits.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout.readline() == "training\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - begin < 10
    assert process.returncode == 130
    assert err == "micfast: interrupted, nothing half-written is left\n"
    assert files() == ["report.json", "train.npz"]
    assert Path("report.json").read_text() == "before"


def test_ctrl_c_while_writing_leaves_the_old_file(model, data, monkeypatch, capsys):
    np.save("X.npy", data[0])
    Path("p.npz").write_text("before")

    def stop(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stop)
    assert main(["predict", str(model), "X.npy", "-o", "p.npz"]) == 130
    assert files() == ["X.npy", "p.npz"]
    assert Path("p.npz").read_text() == "before"


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_reader_that_closes_early(model, data):
    np.save("X.npy", np.repeat(data[0], 2000, axis=0))
    argv = [sys.executable, "-m", "micfast", "predict", str(model), "X.npy", "--iterations", "1"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 1
    assert err == b""


# -- atomic_path ---------------------------------------------------------------------------------


def test_atomic_path_replaces_whole_files_only():
    Path("a.txt").write_text("before")
    Path("a.txt").chmod(0o640)

    def write_half():
        with atomic_path("a.txt") as temporary:
            temporary.write_text("half")
            assert temporary.suffix == ".txt"
            assert Path("a.txt").read_text() == "before"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert files() == ["a.txt"]
    assert Path("a.txt").read_text() == "before"
    with atomic_path("a.txt") as temporary:
        temporary.write_text("after")
    assert files() == ["a.txt"]
    assert Path("a.txt").read_text() == "after"
    assert stat.S_IMODE(Path("a.txt").stat().st_mode) == 0o640


def test_atomic_path_gives_the_usual_mode():
    before = os.umask(0o022)
    try:
        with atomic_path("new.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("new.txt").stat().st_mode) == 0o644


def test_atomic_path_follows_links_and_leaves_devices():
    Path("real.txt").write_text("before")
    Path("link.txt").symlink_to("real.txt")
    with atomic_path("link.txt") as temporary:
        temporary.write_text("after")
    assert Path("link.txt").is_symlink()
    assert Path("real.txt").read_text() == "after"
    if os.path.exists("/dev/null"):
        with atomic_path("/dev/null") as device:
            assert device == Path("/dev/null")
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(("path", "number"), [("nowhere/a.txt", errno.ENOENT), (".", errno.EISDIR)])
def test_atomic_path_and_its_check_fail_alike(path, number):
    with pytest.raises(OSError, match=r".") as first, atomic_path(path):
        pass
    with pytest.raises(OSError, match=r".") as second:
        check_output_path(path)
    assert first.value.errno == second.value.errno == number
    assert str(first.value) == str(second.value)


def test_atomic_path_whose_temporary_file_is_lost():
    with pytest.raises(FileNotFoundError), atomic_path("a.txt") as temporary:
        temporary.unlink()
    assert files() == []
