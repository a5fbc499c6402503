"""What fuzzing found stays found; and bombs: small files that announce, or unpack to, huge ones."""

import gzip
import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import fuzz
import numpy as np
import pytest
import torch
from helpers import random_fleet, random_weights

from micfast import BankFileError, GeneratorBank, _io, invert, ops
from micfast.cli import _CommandError, _load
from micfast.data import _fetch, load_ts
from micfast.data._mat import MatError, read_mat
from micfast.data.mnist import _read_idx
from micfast.data.ts import TsError
from micfast.experiments.paper.figures import _arrays
from micfast.experiments.paper.store import Store, StoreError
from micfast.experiments.paper.tables import _read_cross_errors

HERE = Path(__file__).parent


def test_inputs_that_were_found_and_changed_seeds():
    """In a process of its own, which may take 1 GiB more than it starts with, and 5 s an input."""
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, HERE / "fuzz.py", "--replay", "60"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    n_inputs = int(result.stdout.split()[0])
    assert n_inputs > 60 * len(fuzz.TARGETS)


def test_replay_ends_with_an_input_that_breaks_the_rules(monkeypatch):
    def broken(data):
        raise KeyError(data)

    monkeypatch.setattr(fuzz, "TARGETS", {"x": (broken, lambda: [b"seed"], "", 1.0)})
    monkeypatch.setattr(fuzz, "limit_memory", lambda: None)
    with pytest.raises(KeyError, match="seed"):
        fuzz.replay(1)


def npy_header(shape: tuple, dtype: str = "<f8") -> bytes:
    target = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(target, header)
    return target.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return target.getvalue()


@pytest.fixture(scope="module")
def npz_bomb():
    """Less than 1 MiB that unpack to 640 MiB."""
    target = io.BytesIO()
    with (
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("labels.npy", "w") as member,
    ):
        member.write(npy_header((5 * 2**24,)))
        for _ in range(5):
            member.write(bytes(2**27))
    content = target.getvalue()
    assert len(content) < 2**20
    return content


BAD_ARRAYS = {
    "announces much": npy_header((2**40,)),
    "announces more than there is": npy_header((5,)) + bytes(39),
    "product of sizes overflows": npy_header((2**40, 2**40)),
    "negative": npy_header((-1,)) + bytes(8),
    "no bytes an element": npy_header((2**60,), "<U0"),
    "no Unicode": npy_header((1,), "<U1") + b"\xff\xff\xff\x7f",
    "fields": npy_header((1,), "V8") + bytes(8),
    "objects": npy_header((1,), "|O") + bytes(8),
    "another version": b"\x93NUMPY\x03\x00" + bytes(80),
    "encrypted": zipped("labels.npy", npy_header((1,)) + bytes(8)).replace(
        b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
    ),
    "unknown compression": zipped("labels.npy", b"x").replace(b"\x08\x00", b"\x63\x00"),
}


@pytest.mark.parametrize("case", [*BAD_ARRAYS, "bomb"])
def test_bad_archives_of_arrays(tmp_path, npz_bomb, case):
    content = npz_bomb if case == "bomb" else BAD_ARRAYS[case]
    if not content.startswith(b"PK"):
        single = tmp_path / "some.npy"
        single.write_bytes(content)
        with pytest.raises(_CommandError, match=r"must be a \.npz or \.npy file"):
            _load(single)
        content = zipped("labels.npy", content)
    store = Store(tmp_path)
    store.raw.mkdir()
    path = store.raw / "some.npz"
    path.write_bytes(content)
    with pytest.raises(_CommandError, match=r"must be a \.npz or \.npy file"):
        _load(path)
    with pytest.raises(StoreError, match="damaged"):
        store.read("some.npz")
    with pytest.raises(ValueError, match="can't be read as an archive"):
        _arrays(path, ["labels"])
    with pytest.raises(ValueError, match=r"some\.npz can't be read"):
        _read_cross_errors(path)


def test_sound_arrays_are_read_as_numpy_reads_them(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.ones((2, 3), ">f4")),
        "c": np.array(["x", "yz"]),
        "d": np.zeros((0, 4)),
        "e": np.array(5),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = _io.load_arrays(tmp_path / "x.npz")
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    np.save(tmp_path / "y.npy", arrays["a"])
    np.testing.assert_array_equal(_io.load_array_or_arrays(tmp_path / "y.npy"), arrays["a"])
    with pytest.raises(ValueError, match="a single array"):
        _io.load_arrays(tmp_path / "y.npy")


def mat_file(*elements: bytes) -> bytes:
    return b" " * 124 + b"\x00\x01IM" + b"".join(elements)


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def matrix(kind: int, shape: tuple, body: bytes, name: bytes = b"mixout") -> bytes:
    head = element(6, struct.pack("<II", kind, 0)) + element(
        5, struct.pack(f"<{len(shape)}i", *shape)
    )
    return element(14, head + element(1, name) + body)


DEEP = b""
for _ in range(100):
    DEEP = matrix(1, (1, 1), DEEP)
BAD_MATS = {
    "bomb": (
        mat_file(element(15, zlib.compress(bytes(2**27), 9))),
        "unpacks to more than",
    ),
    "many cells": (mat_file(matrix(1, (2**30, 2**30), b"")), "has 0 bytes"),
    "negative size": (mat_file(matrix(6, (-1, -1), element(9, bytes(8)))), "no shape"),
    "short": (mat_file(matrix(6, (3, 2), element(9, bytes(8)))), "has 1 numbers"),
    "nested": (mat_file(DEEP), "has"),
    "beyond the end": (mat_file(struct.pack("<II", 14, 2**31)), "are announced, 0 follow"),
    "small element": (mat_file(matrix(6, (1, 1), struct.pack("<II", 9 << 16, 0))), "4 are the"),
    "sparse": (mat_file(matrix(5, (1, 1), element(9, bytes(8)))), "class 5"),
    "no MATLAB file": (b"hello" * 40, "does not start with the header"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_MATS)
def test_bad_matlab_files(tmp_path, case):
    content, message = BAD_MATS[case]
    assert len(content) < 2**20
    path = tmp_path / "some.mat"
    path.write_bytes(content)
    with pytest.raises(MatError, match=message):
        read_mat(path, ("mixout",))


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, compressed):
    scipy_io = pytest.importorskip("scipy.io")
    cells = np.empty((2, 2), dtype=object)
    cells[:] = [[np.eye(3), np.arange(4, dtype=np.int16)], ["text", np.zeros((0, 2))]]
    content = {"mixout": cells, "other": np.eye(2), "consts": {"a": np.ones((1, 3)), "b": "xy"}}
    path = tmp_path / "some.mat"
    scipy_io.savemat(path, content, do_compression=compressed)
    found, expected = read_mat(path, ("mixout", "consts")), scipy_io.loadmat(path)
    assert set(found) == {"mixout", "consts"}
    assert found["mixout"].shape == (2, 2)
    for got, want in zip(found["mixout"].ravel(), expected["mixout"].ravel(), strict=True):
        np.testing.assert_array_equal(got, want.item() if isinstance(got, str) else want)
    np.testing.assert_array_equal(found["consts"]["a"], expected["consts"]["a"][0, 0])
    assert found["consts"]["b"] == "xy"


def test_gzip_bombs(tmp_path):
    header = b"@classLabel false\n@data\n"
    path = tmp_path / "some.ts"
    path.write_bytes(gzip.compress(header + b"1," * 2**27, 6))
    assert path.stat().st_size < 2**20
    with pytest.raises(TsError, match="longer than max_bytes"):
        load_ts(path)
    idx = struct.pack(">BBBBI", 0, 0, 8, 1, 60000) + bytes(2**27)
    path.write_bytes(gzip.compress(idx, 6))
    with pytest.raises(ValueError, match="announces 60000 bytes, the file has more"):
        _read_idx(path, ())


def test_damaged_downloads(tmp_path, monkeypatch):
    archive = zipped("x.mat", b"content")
    monkeypatch.setattr(
        "pooch.HTTPDownloader",
        lambda **_options: lambda url, output, _: output.write_bytes(archive),
    )
    download = _fetch._download_member("x.mat")
    download("", tmp_path / "x.mat", None)
    assert (tmp_path / "x.mat").read_bytes() == b"content"
    for damaged in (
        archive.replace(b"\x08\x00", b"\x63\x00"),
        archive[:38] + b"\xff" + archive[39:],
    ):
        archive = damaged
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            download("", tmp_path / "x.mat", None)


@pytest.mark.parametrize(
    "content", ["5", "[]", '{"classes": 3}', '{"classes": [{"other": 1}]}', "[" * 10**5]
)
def test_unit_files_of_something_else(tmp_path, content):
    store = Store(tmp_path)
    store.units.mkdir(parents=True)
    (store.units / "one.json").write_text(content)
    with pytest.raises(StoreError, match="damaged"):
        store.assemble()


# --------------------------------------------------------------------------- operators' arguments


@pytest.fixture
def problem():
    names = ("W_ih", "W_hh", "b", "W_out", "b_out")
    return {
        **dict(zip(names, random_weights(2, 3, 4, 2), strict=True)),
        "targets": torch.zeros(5, 6, 2),
        "init": torch.full((1, 1, 4), 0.25),
    }  # fmt: skip


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("W_ih", None, TypeError, "W_ih must be a tensor, got NoneType"),
        ("targets", np.zeros((5, 6, 2)), TypeError, "targets must be a tensor, got ndarray"),
        ("targets", torch.zeros(5, 6, 2).to_sparse(), TypeError, "targets must be a dense tensor"),
        ("init", torch.zeros(1, 1, 4, device="meta"), ValueError, "init must be on the device"),
        ("n_iter", "3", TypeError, "n_iter must be an integer, got str"),
        ("n_iter", True, TypeError, "n_iter must be an integer, got bool"),
        ("n_iter", 2**64, ValueError, "n_iter must be less than"),
        ("tol", "x", TypeError, "tol must be a number, got str"),
        ("tol", 2**2000, ValueError, "tol must be less than"),
        ("n_threads", 1.5, TypeError, "n_threads must be an integer or None, got float"),
        ("n_threads", 2**40, ValueError, "n_threads must be below"),
        ("return_history", b"", TypeError, "return_history must be a bool, got bytes"),
        ("omit_nan", "x", TypeError, "omit_nan must be a bool, got str"),
    ],
)
@pytest.mark.parametrize("solver", ["invert", "invert_lm"])
def test_arguments_of_the_solvers(problem, solver, backend, name, value, error, message):
    with pytest.raises(error, match=f"{solver}: {message}"):
        getattr(ops, solver)(**{**problem, name: value}, backend=backend)


def test_arguments_of_the_others(problem):
    weights = list(problem.values())[:5]
    with pytest.raises(TypeError, match="invert: lr must be a number, got str"):
        ops.invert(**problem, lr="x")
    with pytest.raises(TypeError, match="invert_lm: damping must be a number, got NoneType"):
        ops.invert_lm(**problem, damping=None)
    with pytest.raises(TypeError, match="generate: n_steps must be an integer, got float"):
        ops.generate(*weights, torch.zeros(2, 1, 4), 1.5)
    types, index, *fleet = random_fleet(2, 4, 6, 2, torch.float32)
    with pytest.raises(TypeError, match="train: set_index must be a tensor, got list"):
        ops.train(*weights, types, [0, 0], *fleet, 3)
    with pytest.raises(TypeError, match="train: omit_nan must be a bool, got int"):
        ops.train(*weights, types, index, *fleet, 3, omit_nan=1)
    meta = problem["W_ih"].to("meta")
    with pytest.raises(ValueError, match="train: W_hh must be on the device of W_ih, meta"):
        ops.train(meta, *weights[1:], types, index, *fleet, 3, n_curve=-1)


def test_arguments_of_the_front_doors():
    bank = GeneratorBank.random(2, hidden_size=3, input_size=4, output_size=1)
    for latents in (None, torch.zeros(1, 4, device="meta"), torch.zeros(1, 4).to_sparse()):
        with pytest.raises((TypeError, ValueError), match="latents must"):
            bank.generate(latents, 3)
    for targets in (torch.zeros(1, 2, 1, device="meta"), torch.zeros(1, 2, 1).to_sparse()):
        with pytest.raises(TypeError, match=r"targets must (be dense|have data)"):
            invert(bank, targets)
    for init in (None, torch.zeros(4, device="meta"), torch.zeros(4).to_sparse()):
        with pytest.raises(TypeError, match="init must"):
            invert(bank, np.zeros((1, 2, 1)), init=init)
    with pytest.raises(TypeError, match="return_history must be a bool"):
        invert(bank, np.zeros((1, 2, 1)), return_history=b"")


def test_bank_file_error_is_documented_for_checkpoints(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(zipped("archive/data.pkl", b"\x80\x02."))
    with pytest.raises(BankFileError, match="not a torch checkpoint"):
        GeneratorBank.from_checkpoints([path])
