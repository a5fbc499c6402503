"""No file that micfast reads runs code or lands elsewhere: the source says so, and files try.

What is claimed stands in ``SECURITY.md``. Damaged files are with their readers' tests.
"""

from __future__ import annotations

import ast
import json
import pickle
import stat
import zipfile
from pathlib import Path
from types import SimpleNamespace

import audit_dependencies
import numpy as np
import pytest
import torch
from scipy.io import savemat

import micfast
from micfast import GeneratorBank, ModularInverseClassifier, cli
from micfast.data import DownloadError, load_characters, load_mnist, load_ts, read_recordings
from micfast.data.fetch import RemoteFile, locate
from micfast.experiments.paper import results
from micfast.experiments.paper.figures import draw_figures
from micfast.training.types import select_types_per_class

PACKAGE = Path(micfast.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# -- what the source may not do ------------------------------------------------------------------

# Modules that run what they read.
FORBIDDEN_MODULES = {
    "cloudpickle",
    "code",
    "codeop",
    "ctypes",
    "dill",
    "joblib",
    "marshal",
    "pickle",
    "runpy",
    "shelve",
    "subprocess",
    "tarfile",
    "yaml",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "input"}
FORBIDDEN_METHODS = {"popen", "extractall", "extract", "unpack_archive", "read_pickle"}
# Calls that read more than data unless told otherwise.
REQUIRED = {
    ("np", "load"): ("allow_pickle", False),
    ("numpy", "load"): ("allow_pickle", False),
    ("torch", "load"): ("weights_only", True),
}
EXEMPT = {
    # What a cluster's scheduler hands over is unpickled, as Dask does with every task itself.
    "cloudpickle": {"distributed/chunks.py"},
    # Other programs are started by a list of words: git, for the manifest of a run.
    "subprocess": {"experiments/paper/run.py"},
}


def findings(tree, where):
    """What a syntax tree does that it may not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        for name in names:
            top = name.partition(".")[0]
            if top in FORBIDDEN_MODULES and where not in EXEMPT.get(top, ()):
                yield f"{where}:{node.lineno} imports {name}"
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
            yield f"{where}:{node.lineno} calls {function.id}"
        if isinstance(function, ast.Attribute):
            # pandas has an .extract for texts.
            of_text = isinstance(function.value, ast.Attribute) and function.value.attr == "str"
            if function.attr in FORBIDDEN_METHODS and not of_text:
                yield f"{where}:{node.lineno} calls .{function.attr}"
            owner = function.value.id if isinstance(function.value, ast.Name) else None
            if owner == "os" and function.attr.startswith(
                ("exec", "spawn", "posix_spawn", "system")
            ):
                yield f"{where}:{node.lineno} calls os.{function.attr}"
            argument, wanted = REQUIRED.get((owner, function.attr), (None, None))
            value = given.get(argument)
            if argument and not (isinstance(value, ast.Constant) and value.value is wanted):
                yield f"{where}:{node.lineno} must pass {argument}={wanted}"
        if "shell" in given:
            yield f"{where}:{node.lineno} passes shell"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_source_runs_nothing_that_it_reads(path):
    where = path.relative_to(PACKAGE).as_posix()
    assert list(findings(ast.parse(path.read_text(encoding="utf-8")), where)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "from numpy.lib import format; import shelve as s",
        "import subprocess",
        "eval('1')",
        "exec('1')",
        "__import__('os')",
        "import os; os.system('true')",
        "os.execv('x', [])",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "torch.load(path, weights_only=False)",
        "run('ls', shell=True)",
        "archive.extractall(folder)",
        "pd.read_pickle(path)",
    ],
)
def test_the_search_finds_it(code):
    assert list(findings(ast.parse(code), "somewhere.py"))


def test_all_sources_were_searched():
    assert len(SOURCES) > 40
    assert not list(PACKAGE.rglob("*.pth"))


# -- files that would run code ---------------------------------------------------------------------


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def evil(tmp_path):
    marker = tmp_path / "it ran"
    yield Evil(marker)
    assert not marker.exists()


def test_the_trap_works(tmp_path):
    trap = Evil(tmp_path / "it ran")
    np.save(tmp_path / "x.npy", np.array([trap], dtype=object), allow_pickle=True)
    np.load(tmp_path / "x.npy", allow_pickle=True)
    assert trap.marker.exists()


def evil_array(evil):
    return np.array([evil], dtype=object)


def test_commands_read_numbers_only(tmp_path, evil, capsys):
    X = tmp_path / "X.npy"
    np.save(X, evil_array(evil), allow_pickle=True)
    archive = tmp_path / "train.npz"
    np.savez(archive, X=np.zeros((4, 5, 1)), y=evil_array(evil))
    model = tmp_path / "model.safetensors"
    for argv in (
        ["fit", str(archive), "-o", str(model)],
        ["fit", "--X", str(X), "--y", str(X), "-o", str(model)],
        ["predict", str(X), str(X)],
        ["predict", str(archive), str(archive)],
        ["info", str(X)],
    ):
        assert cli.main(argv) == 1
        assert "Traceback" not in capsys.readouterr().err
    assert not model.exists()


def test_caches_and_results_read_numbers_only(tmp_path, evil, monkeypatch):
    monkeypatch.setenv("MICFAST_CACHE", str(tmp_path / "cache"))

    def select():
        X = np.random.default_rng(0).standard_normal((8, 5, 1))
        return select_types_per_class(
            X, np.arange(8) % 2, 2, selection="dtw-kmeans", random_state=0
        )[0]

    expected = select()
    (cache,) = (tmp_path / "cache" / "types").iterdir()
    names = ("types", "labels", "index", "inertia", "n_iter")
    np.savez(cache, **{name: evil_array(evil) for name in names})
    np.testing.assert_array_equal(select(), expected)
    out = tmp_path / "out"
    out.mkdir()
    results.prepare(out)
    raw = out / "raw"
    for name in ("cross", "decision", "reconstruction"):
        np.savez(raw / f"{name}-mnist.npz", labels=evil_array(evil))
    with pytest.raises(results.ResultsError, match="damaged"):
        results.read(raw / "cross-mnist.npz")
    (raw / "runs.csv").write_text(
        "data,subset,noise_in,noise_out,seed,n_iter,n_test,n_correct,accuracy,mse\n"
        "mnist,clustered,0,0,0,50,10,5,0.5,0.1\n"
    )
    with pytest.raises(ValueError, match=r"cross-mnist\.npz"):
        draw_figures(raw, tmp_path / "figures")


def test_models_read_tensors_only(tmp_path, evil):
    content = pickle.dumps(evil)
    for name in ("model.safetensors", "model.pth"):
        (tmp_path / name).write_bytes(content)
    torch.save({"lstm.weight_ih_l0": evil}, tmp_path / "checkpoint.pth")
    for read in (GeneratorBank.load, ModularInverseClassifier.load):
        with pytest.raises(micfast.BankFileError):
            read(tmp_path / "model.safetensors")
    for name in ("model.pth", "checkpoint.pth"):
        with pytest.raises(micfast.BankFileError, match="not a torch checkpoint"):
            GeneratorBank.from_checkpoints([tmp_path / name])


def test_data_files_are_parsed_only(tmp_path, evil):
    content = pickle.dumps(evil)
    for name in (
        "mixoutALL_shifted.mat",
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        "data.ts",
    ):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="mixoutALL_shifted"):
        load_characters(data_dir=tmp_path)
    with pytest.raises(ValueError, match="idx"):
        load_mnist(data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"data\.ts"):
        load_ts(tmp_path / "data.ts")
    for name in ("recordings.csv", "recordings.tsv", "recordings.npz", "recordings.npy"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="recordings"):
            read_recordings(tmp_path / name)
    # Text in a MATLAB file stays text.
    savemat(tmp_path / "mixoutALL_shifted.mat", {"mixout": content.hex(), "consts": "eval(1)"})
    with pytest.raises(ValueError, match="mixoutALL_shifted"):
        load_characters(data_dir=tmp_path)


# -- paths -----------------------------------------------------------------------------------------


def link_to(target):
    """An archive member that is a symbolic link."""
    member = zipfile.ZipInfo("data.mat")
    member.create_system = 3
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member, str(target)


@pytest.mark.parametrize("member", ["../../data.mat", "/data.mat", "..\\..\\data.mat", "link"])
def test_an_archive_writes_nowhere_else(member, server, tmp_path, monkeypatch):
    monkeypatch.delenv("MICFAST_DATA", raising=False)
    cache = tmp_path / "deep" / "cache"
    monkeypatch.setattr("pooch.os_cache", lambda project: cache)
    folder, url = server
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        if member == "link":
            archive.writestr(*link_to(secret))
        else:
            archive.writestr(member, "content")
        archive.writestr("../other.txt", "other")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    file = RemoteFile("data.mat", f"{url}/archive.zip", in_archive=True)
    try:
        path = locate(file)
    except DownloadError:  # a name with backslashes is none of ours
        assert member.startswith("..\\")
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
        return
    # The text of the link, not what it points to.
    assert not path.is_symlink()
    assert path.read_text() == (str(secret) if member == "link" else "content")
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert after - before == {cache / "data.mat", cache / "data.mat.sha256"}


def test_labels_never_become_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bank = GeneratorBank.random(
        2, hidden_size=3, input_size=2, output_size=1, classes=["../../a", "/etc/passwd"]
    )
    bank.save("bank.safetensors")
    assert GeneratorBank.load("bank.safetensors") == bank
    assert [path.name for path in tmp_path.iterdir()] == ["bank.safetensors"]


# -- the audit of the dependencies -----------------------------------------------------------------


def audited(*dependencies):
    return json.dumps({"dependencies": list(dependencies), "fixes": []})


FINE = {"name": "numpy", "version": "2.0", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
BAD = {"name": "pooch", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
UNREACHABLE = "requests.exceptions.ConnectionError: Max retries exceeded with url"


@pytest.mark.parametrize(
    ("code", "out", "err", "expected", "text"),
    [
        (0, audited(FINE), "", 0, "1 packages, none with a known vulnerability"),
        (1, audited(FINE, BAD), "", 1, "pooch 1.0: PYSEC-1, fixed in 1.1"),
        (1, "", UNREACHABLE, 0, "not audited: no advisories can be reached"),
        # A source that knows none of the packages is none; one that lacks some is not enough.
        (0, audited(SKIPPED), "", 0, "not audited: no advisories can be reached"),
        (0, audited(FINE, SKIPPED), "", 1, "not audited: torch"),
        (1, "", "TypeError: something else", 1, "TypeError: something else"),
        (0, "no json", "", 1, "no json"),
        # What was found counts, whatever else happened.
        (1, audited(BAD), UNREACHABLE, 1, "PYSEC-1"),
    ],
)
def test_audit_forgives_only_an_unreachable_source(code, out, err, expected, text):
    got, message = audit_dependencies.judge(code, out, err)
    assert got == expected
    assert text in message


@pytest.mark.parametrize(("arguments", "expected"), [([], 0), (["--required"], 1)])
def test_audit_may_be_required(arguments, expected, monkeypatch, capsys):
    unreachable = SimpleNamespace(returncode=1, stdout="", stderr=UNREACHABLE)
    monkeypatch.setattr(audit_dependencies.subprocess, "run", lambda *args, **kwargs: unreachable)
    monkeypatch.setattr("sys.argv", ["audit_dependencies.py", *arguments])
    assert audit_dependencies.main() == expected
    assert audit_dependencies.NOT_AUDITED in capsys.readouterr().out


def test_audit_knows_all_dependencies():
    found = dict(line.split("==") for line in audit_dependencies.installed("micfast"))
    assert {"numpy", "torch", "scipy", "safetensors", "pooch", "urllib3"} <= set(found)
    assert all("+" not in version for version in found.values())
