"""The command line: files, reports, messages, exit codes, Ctrl-C; tiny settings."""

import csv
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.image import imread

import micfast
from micfast import GeneratorBank, ModularInverseClassifier
from micfast.cli import commands, main
from micfast.cli.report import training_text
from micfast.io import atomic_path
from micfast.training.initializations.drawn import Chrono

FIT = ["--episodes", "300", "--n-types", "2", "--hidden-size", "5", "--iterations", "10"]
FIT += ["--modules-per-class", "2", "--noise-in", "0.1", "--views", "raw", "--no-pose"]
FIT += ["--no-hull"]
TINY = ["--episodes", "30", "--n-types", "1", "--modules-per-class", "1", "--max-retries", "0"]
TINY += ["--type-selection", "first", "--quiet"]


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
    return str(path)


@pytest.fixture(scope="module")
def strokes():
    """A long table of 12 strokes of unequal lengths, in mixed order of rows, and its labels."""
    rows, labels = [], {}
    for i in range(12):
        labels[f"s{i}"] = "arch" if i % 2 else "wave"
        for k in range(14 + i % 3):
            u = 3 * k / 16
            rows.append(f"s{i},{k},{u:.4f},{np.sin(u) if i % 2 else np.cos(2 * u):.4f}")
            rows[-1] += f",{labels[f's{i}']}"
    np.random.default_rng(0).shuffle(rows)
    return "\n".join(["trial,t,x,y,gesture", *rows]) + "\n", labels


def files():
    return sorted(path.name for path in Path().iterdir())


def fails(argv, capsys, code=1):
    """Run a command that fails; return the last line of its error."""
    assert main(list(map(str, argv))) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    start = "Error: " if code == 2 else "micfast: error: "
    assert last.startswith(start)
    return last.removeprefix(start)


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- demo ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo_reports_writes_and_draws(capsys):
    argv = ["demo", "--episodes", "3000", "--n-test", "30", "--iterations", "5", "--no-compare"]
    argv += ["--hidden-size", "9", "--seed", "3", "--threads", "1", "--noise-in", "0.15"]
    assert main([*argv, "--json", "result.json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""  # no terminal, so no bars
    assert files() == ["micfast-demo-digits.png", "result.json"]
    assert 0.5 < imread("micfast-demo-digits.png")[..., :3].mean() < 0.999
    result = json.loads(Path("result.json").read_text())
    assert (result["n_test"], result["seed"], result["threads"]) == (30, 3, 1)
    assert result["speedup_over_torch"] is None
    settings = json.dumps(result["settings"])
    for setting in ('"n_episodes": 3000', '"hidden_size": 9', '"noise_in": 0.15', '"n_iter": 5'):
        assert setting in settings
    assert f"{result['accuracy']:.1%}" in captured.out
    assert "picture: micfast-demo-digits.png" in captured.out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--n-test", "5000"], "n_test must be at most 899, got 5000"),
        (["--json", "nowhere/x.json"], "nowhere: folder does"),
        (["--picture", "nowhere/x.png"], "nowhere: folder does"),
        (["--json", "."], ": is a folder, not a file"),
        (["--json", "a.png", "--picture", "a.png"], "a.png would overwrite a.png"),
        (["--data", "characters"], "mixoutALL_shifted.mat"),
    ],
)
def test_demo_errors(argv, message, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MICFAST_DATA", str(tmp_path))
    assert message in fails(["demo", *argv], capsys)
    assert files() == []


# -- fit -----------------------------------------------------------------------------------------


def test_fit_reports(data, capsys):
    np.savez("train.npz", A=data[0], b=data[1], objects=np.array([None]))
    argv = ["fit", "train.npz", "--X-key", "A", "--y-key", "b", "-o", "m.safetensors", *FIT]
    assert main([*argv, "--json", "report.json", "--standardize", "none", "--seed", "7"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" or "warning" in captured.err
    first, *lines = captured.out.splitlines()[:1] + captured.out.splitlines()[2:]
    assert first == "24 samples of 2 classes: flat (12), rise (12)"
    assert "\x1b" not in captured.out  # no terminal, no colours
    assert lines[0].split()[:5] == ["class", "module", "relative", "error", "method"]
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["flat", "1"], ["flat", "2"], ["rise", "1"], ["rise", "2"]
    ]  # fmt: skip
    assert "of 4 modules learned" in captured.out
    assert lines[-1] == "model: m.safetensors"

    report = json.loads(Path("report.json").read_text())
    modules = [(row["label"], row["module"]) for row in report["classes"]]
    assert modules == [("flat", 0), ("flat", 1), ("rise", 0), ("rise", 1)]
    assert report["parameters"]["random_state"] == 7
    assert report["parameters"]["training__method__n_episodes"] == 300
    classifier = ModularInverseClassifier.load("m.safetensors")
    assert len(re.findall(r"\x1b\[3(?:2myes|1mno: )", training_text(classifier))) == 4
    assert classifier.standardize is None
    parameters = classifier.get_params()
    assert (classifier.n_types, parameters["solver__n_iter"]) == (2, 10)
    assert parameters["training__noise_in"] == 0.1


def test_options_reach_the_estimator(data):
    np.savez("train.npz", X=data[0], y=data[1])
    argv = ["fit", "train.npz", "-o", "m.safetensors", *TINY[:-3], "--quiet", "--noise-out", "0.01"]
    argv += ["--types-selection", "dtw-kmeans", "--representative", "medoid", "--solver", "adam"]
    argv += ["--iterations", "7", "--inversion-learning-rate", "0.02", "--initialization", "chrono"]
    argv += ["--learned-tol", "0.5", "--nan-policy", "omit", "--standardize", "channel"]
    assert main(argv) == 0
    found = ModularInverseClassifier.load("m.safetensors").get_params()
    expected = {
        "type_selection__representative": "medoid",
        "solver__n_iter": 7,
        "solver__learning_rate": 0.02,
        "training__method__n_episodes": 30,
        "training__initialization": Chrono(),
        "training__noise_out": 0.01,
        "training__max_retries": 0,
        "training__learned_tol": 0.5,
        "nan_policy": "omit",
        "standardize": "channel",
    }
    assert {name: found[name] for name in expected} == expected


def test_fit_from_two_files_gives_the_same_model(data, model):
    np.save("X.npy", data[0][..., 0])
    np.save("y.npy", data[1])
    for first in (["--X", "X.npy"], ["X.npy"]):
        assert main(["fit", *first, "--y", "y.npy", "-o", "m", "--quiet", *FIT]) == 0
        assert GeneratorBank.load("m") == GeneratorBank.load(model)


def test_warnings_are_one_line(data, capsys):
    np.savez("few.npz", X=data[0][10:14], y=data[1][10:14])
    argv = ["fit", "few.npz", "-o", "m.safetensors", *FIT, "--n-types", "3", "--max-retries", "0"]
    assert main([*argv, "--episodes", "1", "--quiet"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("micfast: warning: ") for line in lines)


# -- predict -------------------------------------------------------------------------------------


def test_predict_to_npz(data, model, capsys):
    X, y = data
    np.savez("test.npz", X=X, y=y)
    argv = ["predict", model, "test.npz", "-o", "p.npz", "--proba", "--reconstructions"]
    assert main([*argv, "--score"]) == 0
    decision = ModularInverseClassifier.load(model).decide(X)
    expected = {
        "predictions": decision.labels,
        "errors": decision.errors,
        "classes": np.array(["flat", "rise"]),
        "probabilities": decision.probabilities,
        "reconstructions": decision.reconstructions(),
    }
    with np.load("p.npz", allow_pickle=False) as found:
        assert set(found) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)
    accuracy = np.mean(decision.labels == y)
    assert capsys.readouterr().out == f"accuracy {accuracy:.4f}\n"


def test_predict_to_csv(data, model):
    np.save("X.npy", data[0][..., 0])
    assert main(["predict", model, "X.npy", "-o", "p.csv", "--proba", "--iterations", "3"]) == 0
    rows = read_csv("p.csv")
    classifier = ModularInverseClassifier.load(model).set_params(solver__n_iter=3)
    decision = classifier.decide(data[0])
    assert [row["prediction"] for row in rows] == decision.labels.tolist()
    for c, label in enumerate(["flat", "rise"]):
        assert [float(row[f"error_{label}"]) for row in rows] == decision.errors[:, c].tolist()
        found = [float(row[f"probability_{label}"]) for row in rows]
        assert found == decision.probabilities[:, c].tolist()
    lowest = [float(row["lowest_error"]) for row in rows]
    assert lowest == decision.errors.min(axis=1).tolist()


def test_predict_prints_labels_and_scores_from_a_second_file(data, model, capsys):
    np.save("X.npy", data[0])
    np.savez("y.npz", y=data[1])
    assert main(["predict", model, "--X", "X.npy", "--y", "y.npz", "--score"]) == 0
    *labels, score = capsys.readouterr().out.splitlines()
    classifier = ModularInverseClassifier.load(model)
    assert labels == classifier.predict(data[0]).tolist()
    assert score == f"accuracy {classifier.score(*data):.4f}"


def test_rejected_sequences_have_no_prediction(data, model):
    X = np.concatenate([data[0], np.cumsum(np.ones_like(data[0][:2]), axis=1)])
    classifier = ModularInverseClassifier.load(model).set_params(reject=0.05)
    classifier.save("strict.safetensors")
    expected = ["" if label is None else label for label in classifier.predict(X)]
    assert "" in expected
    np.save("X.npy", X)
    for name in ("p.npz", "p.csv"):
        assert main(["predict", "strict.safetensors", "X.npy", "-o", name]) == 0
    with np.load("p.npz", allow_pickle=False) as found:
        assert found["predictions"].tolist() == expected
    assert [row["prediction"] for row in read_csv("p.csv")] == expected


def test_labels_of_another_type_score_nothing(data, model, capsys):
    np.savez("test.npz", X=data[0], y=np.arange(24))
    assert main(["predict", model, "test.npz", "--score", "-o", "p.csv"]) == 0
    assert capsys.readouterr().out == "accuracy 0.0000\n"


def test_sequences_of_a_table(strokes, capsys):
    """From a table of unequal recordings to predictions under their ids, and a picture."""
    table, labels = strokes
    Path("strokes.csv").write_text(table)
    assert main(["fit", "strokes.csv", "-o", "m.safetensors", *FIT, "--quiet"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("micfast: ")
    for name in ("trial", "gesture"):
        assert name in said
    assert main(["predict", "m.safetensors", "strokes.csv", "-o", "p.csv", "--score"]) == 0
    assert capsys.readouterr().out == "accuracy 1.0000\n"
    assert {row["id"]: row["prediction"] for row in read_csv("p.csv")} == labels
    assert main(["predict", "m.safetensors", "strokes.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert dict(line.split("\t") for line in lines) == labels
    assert main(["predict", "m.safetensors", "strokes.csv", "-o", "p.npz"]) == 0
    with np.load("p.npz", allow_pickle=False) as found:
        assert dict(zip(found["ids"], found["predictions"], strict=True)) == labels

    argv = ["show", "m.safetensors", "strokes.csv", "--truth", "-o", "why.png"]
    assert main([*argv, "--id", "s3", "--id", "s10"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in out[2:4]] == [
        ["s3", "arch", "arch"], ["s10", "wave", "wave"]
    ]  # fmt: skip
    assert 0.5 < imread("why.png")[..., :3].mean() < 0.999
    assert "'s99'" in fails([*argv, "--id", "s99"], capsys, code=2)


def test_columns_can_be_named(strokes, capsys):
    Path("strokes.csv").write_text(strokes[0].replace("trial,t,x,y,gesture", "a,b,c,d,e"))
    argv = ["strokes.csv", "--id-column", "a", "--time-column", "b", "--channels", "d, c"]
    assert main(["fit", *argv, "--label-column", "e", "-o", "m.safetensors", *TINY]) == 0
    assert main(["predict", "m.safetensors", *argv, "--label-column", "e", "--score"]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert "'z'" in fails(["predict", "m.safetensors", "strokes.csv", "--id-column", "z"], capsys)
    # The model knows its columns.
    head, *rows = Path("strokes.csv").read_text().splitlines()
    Path("more.csv").write_text("\n".join([f"{head},f", *(f"{row},9" for row in rows)]))
    argv[0] = "more.csv"
    assert main(["predict", "m.safetensors", *argv[:5]]) == 0
    assert "the model takes d, c of these" in capsys.readouterr().err


def test_predict_takes_the_padded_file_that_fit_took(strokes, capsys):
    rng = np.random.default_rng(0)
    X = np.full((12, 20, 2), np.nan)
    for i in range(12):
        t = np.linspace(0, 3, int(rng.integers(12, 21)))
        X[i, : len(t)] = np.stack([t, np.sin(t) if i % 2 else np.cos(2 * t)], axis=1)
    np.savez("padded.npz", X=X, y=np.array(["arch", "wave"] * 6))
    assert main(["fit", "padded.npz", "-o", "m.safetensors", *TINY]) == 0
    assert main(["predict", "m.safetensors", "padded.npz"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 12
    assert main(["show", "m.safetensors", "padded.npz", "-o", "why.svg", "-n", "2", "--quiet"]) == 0
    X[0, 5] = np.nan
    np.savez("gaps.npz", X=X)
    assert "NaN" in fails(["predict", "m.safetensors", "gaps.npz"], capsys)
    assert main(["predict", "m.safetensors", "gaps.npz", "--nan-policy", "omit"]) == 0


@pytest.mark.parametrize("command", ["fit", "predict", "show"])
def test_no_input_is_overwritten(command, data, model, capsys):
    np.savez("data.npz", X=data[0], y=data[1])
    Path("model.png").write_bytes(Path(model).read_bytes())
    os.symlink("data.npz", "link.npz")
    os.symlink("data.npz", "link.png")
    before = Path("data.npz").read_bytes()
    argv = {
        "fit": ["fit", "data.npz", "-o", "link.npz"],
        "predict": ["predict", model, "data.npz", "-o", "link.npz"],
        "show": ["show", model, "data.npz", "-o", "link.png"],
    }[command]
    assert "would overwrite data.npz" in fails(argv, capsys)
    assert "would overwrite" in fails(["show", "model.png", "data.npz", "-o", "model.png"], capsys)
    assert Path("data.npz").read_bytes() == before


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_labels_beyond_the_encoding_of_the_output(encoding, data, monkeypatch):
    labels = np.where(data[1] == "rise", "\u4e0a", "na\u00efve")
    np.savez("train.npz", X=data[0], y=labels)
    for argv in (
        ["fit", "train.npz", "-o", "m.safetensors", *TINY[:-1]],
        ["predict", "m.safetensors", "train.npz"],
        ["info", "m.safetensors"],
    ):
        output = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding))
        assert main(argv) == 0
        assert rb"\u4e0a" in output.getvalue()
        assert output.getvalue().count(b"\n") > (23 if argv[0] == "predict" else 3)


@pytest.mark.parametrize(
    ("arrays", "argv", "message"),
    [
        ({"Z": np.zeros(3)}, [], "data.npz"),
        ({"X": np.zeros(3)}, [], "must have shape"),
        ({"X": np.array([["a"]])}, [], "must hold real numbers, got text"),
        ({"X": np.zeros((3, 10, 2))}, [], "channels"),
        ({"X": np.full((3, 10), np.nan)}, [], "NaN"),
        ({"X": np.zeros((3, 10))}, ["--score"], "'y'"),
        ({"X": np.zeros((3, 10)), "y": np.zeros(2)}, ["--score"], "labels must have shape [3]"),
        ({"X": np.array([None])}, [], "data.npz"),
        ({"X": np.zeros((3, 10))}, ["--backend", "cuda"], "backend 'cuda' is not available"),
        ({"X": np.zeros((3, 10))}, ["--channels", "a"], "tables"),
    ],
)
def test_predict_errors(arrays, argv, message, model, capsys):
    np.savez("data.npz", **arrays)
    if "cuda" in argv and "cuda" in micfast.config()["backends"]:
        pytest.skip("there is a CUDA backend here")
    assert message in fails(["predict", model, "data.npz", "-o", "p.csv", *argv], capsys)
    assert files() == ["data.npz"]


def test_files_of_another_kind(capsys, data):
    Path("text.npz").write_text("no array")
    Path("empty.npz").touch()
    np.save("X.npy", data[0])
    for name in ("text.npz", "empty.npz", "missing.npz"):
        assert fails(["fit", name, "-o", "m"], capsys).startswith(name)
        assert fails(["predict", name, "X.npy"], capsys).startswith(name)
        assert fails(["info", name], capsys).startswith(name)
    assert "labels" in fails(["fit", "X.npy", "-o", "m"], capsys)
    GeneratorBank.random(2, hidden_size=3, input_size=2, output_size=1).save("bank.safetensors")
    assert "bank.safetensors" in fails(["predict", "bank.safetensors", "X.npy"], capsys)
    assert "m" not in files()


# -- info, help, usage ---------------------------------------------------------------------------


def test_info(model, capsys):
    assert main(["info"]) == 0
    assert f"micfast {micfast.__version__}" in capsys.readouterr().out
    assert main(["info", model]) == 0
    out = capsys.readouterr().out
    for text in ("ModularInverseClassifier", "flat rise", "5 hidden, 2 inputs", "n_episodes=300"):
        assert text in out
    bank = GeneratorBank.random(2, hidden_size=3, input_size=2, output_size=1)
    bank.with_metadata({"made by": "me"}).save("bank.safetensors")
    assert main(["info", "bank.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "bank of modules" in out
    assert '{"made by": "me"}' in out


@pytest.mark.parametrize("name", [None, "demo", "fit", "predict", "show", "reproduce", "info"])
def test_help(name):
    run = CliRunner().invoke(commands, [*filter(None, [name]), "--help"])
    assert run.exit_code == 0
    assert run.output.startswith("Usage: ")
    assert name == "info" or "For example:\n" in run.output
    assert max(map(len, run.output.splitlines())) <= 102


@pytest.mark.parametrize(
    "argv",
    [
        ["dance"],
        ["fit", "a.npz"],
        ["fit", "-o", "m"],
        ["fit", "a.npz", "--X", "b.npy", "-o", "m"],
        ["fit", "a.npz", "-o", "m", "--learning-rate", "0"],
        ["fit", "a.npz", "-o", "m", "--type-selection", "first", "--representative", "medoid"],
        ["fit", "a.npz", "-o", "m", "--inversion-learning-rate", "0.1"],
        ["demo", "--data", "cats"],
        ["demo", "--n-test", "0"],
        ["demo", "--n-types", "x"],
        ["demo", "--noise-in", "-1"],
        ["demo", "--noise-in", "nan"],
        ["demo", "--seed", str(2**32)],
        ["demo", "--picture", "x.txt"],
        ["predict", "m", "a.npz", "-o", "p.txt"],
        ["predict", "m", "a.npz", "--proba"],
        ["predict", "m", "a.npz", "--reconstructions", "-o", "p.csv"],
        ["show", "m", "a.npz"],
        ["reproduce", "--dry-run", "--report-only"],
    ],
)
def test_usage(argv, capsys):
    fails(argv, capsys, code=2)
    assert files() == []


def test_without_a_command_help_is_shown(capsys):
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"micfast {micfast.__version__}\n"


def test_debug_shows_where():
    with pytest.raises(FileNotFoundError):
        main(["info", "missing", "--debug"])


def test_module_runs_and_help_imports_nothing_slow():
    code = (
        "import sys\nfrom micfast.cli import main\n"
        "assert main(['fit', '--help']) == 0\n"
        "slow = {'torch', 'numpy', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    run = subprocess.run([sys.executable, "-m", "micfast", "--version"], capture_output=True)
    assert (run.returncode, run.stdout.split()[0]) == (0, b"micfast")


def test_shells_complete_commands_and_options():
    environment = {"_MICFAST_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    argv = [sys.executable, "-m", "micfast"]
    for words, expected in (("micfast fit --ep", "--episodes"), ("micfast fit --sol", "--solver")):
        variables = os.environ | environment | {"COMP_WORDS": words}
        run = subprocess.run(argv, env=variables, capture_output=True, text=True)
        assert expected in run.stdout


# -- interruption --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_ends_training_and_leaves_nothing(data):
    np.savez("train.npz", X=np.repeat(data[0], 20, axis=1), y=data[1])
    Path("report.json").write_text("before")
    argv = ["fit", "train.npz", "-o", "m.safetensors", "--json", "report.json"]
    argv += ["--episodes", "100000000", "--n-types", "2"]
    # Prints when training is about to begin, so that the signal arrives during it.
    code = (
        "import sys; from micfast import ModularInverseClassifier as Classifier\n"
        "from micfast.cli import main; fit = Classifier.fit\n"
        "def begin(*args, **kwargs):\n"
        "    print('training', flush=True); return fit(*args, **kwargs)\n"
        "Classifier.fit = begin\n"
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
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - begin < 10
    assert process.returncode == 130
    assert err.strip() == "micfast: interrupted, no incomplete files were left"
    assert files() == ["report.json", "train.npz"]
    assert Path("report.json").read_text() == "before"


def test_ctrl_c_while_writing_leaves_the_old_file(model, data, monkeypatch):
    np.save("X.npy", data[0])
    Path("p.npz").write_text("before")

    def stop(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stop)
    assert main(["predict", model, "X.npy", "-o", "p.npz"]) == 130
    assert files() == ["X.npy", "p.npz"]
    assert Path("p.npz").read_text() == "before"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_reader_that_closes_early(model, data):
    np.save("X.npy", np.repeat(data[0], 100, axis=0))
    argv = [sys.executable, "-m", "micfast", "predict", model, "X.npy", "--iterations", "1"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 1
    assert err == b""


# -- files are replaced as they were -------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes and links")
def test_written_files_keep_their_mode_and_links(data, model):
    np.save("X.npy", data[0])
    Path("old.npz").write_text("before")
    Path("old.npz").chmod(0o640)
    Path("link.npz").symlink_to("old.npz")
    mask = os.umask(0o022)
    try:
        for name in ("link.npz", "new.npz"):
            assert main(["predict", model, "X.npy", "-o", name]) == 0
    finally:
        os.umask(mask)
    assert files() == ["X.npy", "link.npz", "new.npz", "old.npz"]
    assert Path("link.npz").is_symlink()
    modes = [stat.S_IMODE(Path(name).stat().st_mode) for name in ("old.npz", "new.npz")]
    assert modes == [0o640, 0o644]
    with atomic_path("/dev/null") as device:  # a device is written to, not replaced
        assert device == Path("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_lost_temporary_file_is_an_error():
    with pytest.raises(FileNotFoundError), atomic_path("a.txt") as temporary:
        temporary.unlink()
    assert files() == []
