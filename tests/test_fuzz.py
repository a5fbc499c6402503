"""What fuzzing found stays found; and bombs: small files that announce, or unpack to, huge ones."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import fuzz
import fuzz_files
import numpy as np
import pytest
import torch
from fuzz_inputs import Draws
from hypothesis import given
from hypothesis import strategies as st

from micfast import (
    Adam,
    BankFileError,
    GeneratorBank,
    LevenbergMarquardt,
    Weights,
    generate,
    invert,
)
from micfast.data import fetch
from micfast.experiments.paper import raw, results
from micfast.io import load_arrays

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_inputs_that_were_found_and_the_first_ones(name):
    run, seeds, _, _ = fuzz.TARGETS[name]
    kept = [path.read_bytes() for path in sorted((fuzz.CORPUS / name).glob("*"))]
    for data in kept + seeds()[:6]:
        run(data)


@pytest.mark.slow
def test_changed_inputs():
    """In a process of its own, which may take 1 GiB more than it starts with, and 5 s an input."""
    n_mutants = 100
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
    }
    result = subprocess.run(
        [sys.executable, HERE / "fuzz.py", "--replay", str(n_mutants)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    n_inputs = int(result.stdout.split()[0])
    assert n_inputs > n_mutants * len(fuzz.TARGETS)


def test_replay_ends_with_an_input_that_breaks_the_rules(monkeypatch):
    def broken(data):
        raise KeyError(data)

    monkeypatch.setattr(fuzz, "TARGETS", {"x": (broken, lambda: [b"seed"], "", 1.0)})
    monkeypatch.setattr(fuzz, "limit_memory", lambda: None)
    with pytest.raises(KeyError, match="seed"):
        fuzz.replay(1)


@pytest.mark.parametrize("name", ["sequences", "operators", "invert"])
@given(st.binary(max_size=120))
def test_drawn_arguments(name, data):
    fuzz.TARGETS[name][0](data)


def test_the_fuzzer_s_bank_files_are_read_to_their_content():
    """The checksum does not stop what is changed on purpose."""
    example = fuzz_files.example_bank()
    changed = [
        fuzz_files.bank_like(seed, example, ["classes", "metadata"])
        for seed in fuzz_files.bank_seeds(fuzz_files.example_bank)[2:]
    ]
    messages = set()
    for content in changed:
        path = fuzz_files.written(content, "some.safetensors")
        try:
            GeneratorBank.load(path)
        except BankFileError as error:
            messages.add(error.reason)
    assert messages
    assert not any("checksum" in message for message in messages)


def test_draws_end_with_the_first_choice():
    draws = Draws(b"\x05")
    assert [draws.choice("abc"), draws.choice("abc"), draws.rarely()] == ["c", "a", False]


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


@pytest.mark.parametrize("case", [*BAD_ARRAYS, pytest.param("bomb", marks=pytest.mark.slow)])
def test_bad_archives_of_arrays(tmp_path, request, case):
    content = request.getfixturevalue("npz_bomb") if case == "bomb" else BAD_ARRAYS[case]
    if not content.startswith(b"PK"):
        single = tmp_path / "some.npy"
        single.write_bytes(content)
        with pytest.raises(ValueError, match=r"."):
            load_arrays(single)
        content = zipped("labels.npy", content)
    path = tmp_path / "some.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"array 'labels'|unpacks to"):
        load_arrays(path)
    with pytest.raises(results.ResultsError, match="damaged"):
        results.read(path)
    with pytest.raises(ValueError, match=r"some\.npz can't be read"):
        raw.read_arrays(path, "labels")


def test_damaged_downloads(tmp_path, monkeypatch):
    archive = zipped("x.mat", b"content")
    monkeypatch.setattr(
        "pooch.HTTPDownloader",
        lambda **_options: lambda url, output, _: output.write_bytes(archive),
    )
    download = fetch.download_member("x.mat")
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
    "content", ["5", "[]", '{"runs": 3}', '{"runs": [{"other": 1}]}', "[" * 10**5]
)
def test_unit_files_of_something_else(tmp_path, content):
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "one.json").write_text(content)
    with pytest.raises(results.ResultsError, match="damaged"):
        results.assemble(tmp_path)


def test_bank_file_error_is_documented_for_checkpoints(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(zipped("archive/data.pkl", b"\x80\x02."))
    with pytest.raises(BankFileError, match="not a torch checkpoint"):
        GeneratorBank.from_checkpoints([path])


# -- arguments of the public functions -----------------------------------------------------------


def test_odd_latents():
    bank = GeneratorBank.random(2, hidden_size=3, input_size=4, output_size=1)
    odd = (None, "x", torch.zeros(1, 4, device="meta"), torch.zeros(1, 4).to_sparse())
    for latents in (*odd, torch.zeros(1, 4, dtype=torch.complex64)):
        with pytest.raises((TypeError, ValueError), match="generate: latents must"):
            bank.generate(latents, 3)
    for latents in (torch.zeros(4), torch.zeros(3, 1, 4), torch.zeros(1, 3)):
        with pytest.raises(ValueError, match="generate: latents must have shape"):
            bank.generate(latents, 3)
    for n_steps in (1.5, "3", None, True):
        with pytest.raises(TypeError, match="generate: n_steps must be an integer"):
            bank.generate(torch.zeros(1, 4), n_steps)
    for n_steps in (0, -1, 2**40):
        with pytest.raises(ValueError, match="generate: n_steps must be an integer from 1 to"):
            bank.generate(torch.zeros(1, 4), n_steps)
    with pytest.raises(TypeError, match="generate: bank must be a GeneratorBank or Weights, got"):
        generate(tuple(bank.weights), torch.zeros(1, 4), 3)


@pytest.mark.parametrize(
    "targets", [torch.zeros(1, 2, 1, device="meta"), torch.zeros(1, 2, 1).to_sparse(), 5, {}, "x"]
)
def test_odd_targets(targets):
    bank = GeneratorBank.random(2, hidden_size=3, input_size=4, output_size=1)
    with pytest.raises((TypeError, ValueError), match="invert: targets must"):
        invert(bank, targets)


@pytest.mark.parametrize(
    "start",
    [None, torch.zeros(4, device="meta"), torch.zeros(4).to_sparse(), [["a"]], 0.5, [np.nan] * 4],
)
def test_odd_starts(start):
    for solver in (Adam, LevenbergMarquardt):
        with pytest.raises((TypeError, ValueError), match="start must"):
            solver(start=start)


@pytest.mark.parametrize(
    ("solver", "settings", "error"),
    [
        (Adam, {"n_iter": "3"}, TypeError),
        (Adam, {"n_iter": True}, TypeError),
        (Adam, {"n_iter": -1}, ValueError),
        (Adam, {"learning_rate": 0.0}, ValueError),
        (Adam, {"learning_rate": float("inf")}, ValueError),
        (Adam, {"betas": 0.9}, ValueError),
        (Adam, {"betas": (0.9, 1.0)}, ValueError),
        (Adam, {"eps": "x"}, TypeError),
        (Adam, {"tol": float("nan")}, ValueError),
        (Adam, {"unprojected_error": 1}, TypeError),
        (LevenbergMarquardt, {"n_iter": 2.0}, TypeError),
        (LevenbergMarquardt, {"damping": 0}, ValueError),
        (LevenbergMarquardt, {"damping": None}, TypeError),
        (LevenbergMarquardt, {"constraint": "sphere"}, ValueError),
        (LevenbergMarquardt, {"tol": -1e-3}, ValueError),
    ],
)
def test_solvers_check_themselves(solver, settings, error):
    (name,) = settings
    with pytest.raises(error, match=f"{solver.__name__}: {name} must be"):
        solver(**settings)


def test_a_start_that_fits_no_bank():
    bank = GeneratorBank.random(2, hidden_size=3, input_size=4, output_size=1)
    for shape in ((3,), (2, 4), (1, 3, 4), (1, 2, 4, 3)):
        with pytest.raises(ValueError, match="start must have shape"):
            invert(bank, np.zeros((1, 2, 1)), solver=Adam(start=np.full(shape, 0.25)))
    with pytest.raises(TypeError, match="Weights: W_ih must be a tensor, got NoneType"):
        Weights(None, *list(bank.weights)[1:])
