"""Fuzzing of file readers and operators: any input ends in a result or a documented error.

    pip install atheris
    python -m tests.fuzz --runs 1000000

A target is a function of bytes: a file's content, or what arguments are decoded from. Atheris
(libFuzzer) changes the bytes, led by the coverage of micfast's Python code, in a process per target
that may take 5 s for an input and 1 GiB of memory above what it starts with. An input that breaks
this stays in ``tests/data/fuzz/<target>``, where ``tests/test_fuzz.py`` runs it for ever after; the
fuzzer itself is not needed for that.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import gzip
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

CORPUS = Path(__file__).parent / "data" / "fuzz"
SECONDS_PER_INPUT = 5  # of processor time: a busy machine is no input's fault
SECONDS_UNTIL_DEADLOCK = 60  # of waiting
BYTES_ABOVE_START = 2**30

# ------------------------------------------------------------------------------------- the input


class Draws:
    """Choices decoded from bytes; the first of each once the bytes have run out."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def choice(self, options: Any) -> Any:
        return options[self.byte() % len(options)]

    def rarely(self) -> bool:
        return self.byte() % 16 == 15


ODD_VALUES = [
    0, -1, 1, 2, True, None, "", "x", [], {}, [0], {"a": 1}, 0.5, -0.0, 1e308, 2**31, 2**63, 10**30,
    "nan", "\x00", "é", [[]], [None], "auto", "types",
]  # fmt: skip


def altered(value: Any, draws: Draws) -> Any:
    """A JSON value with some of its parts replaced, removed or repeated."""
    value = json.loads(json.dumps(value))
    for _ in range(1 + draws.byte() % 3):
        node, parent, key = value, None, None
        while isinstance(node, dict | list) and node and (parent is None or draws.byte() % 4):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            parent, key = node, draws.choice(keys)
            node = node[key]
        if parent is None:
            return copy.deepcopy(draws.choice(ODD_VALUES))
        action = draws.byte() % 5
        if action < 3:
            parent[key] = copy.deepcopy(draws.choice(ODD_VALUES))
        elif action == 3:
            del parent[key]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(node))
        else:
            parent[draws.choice(["", "x", "version", "kind"])] = copy.deepcopy(node)
    return value


@functools.cache
def folder() -> Path:
    """Where the inputs are written; in memory where there is such a place."""
    shared = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="micfast-fuzz-", dir=shared if shared.is_dir() else None))
    import atexit

    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def written(data: bytes, name: str) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


# --------------------------------------------------------------------------------------- readers


def safetensors_file(header: bytes, payload: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + payload


@functools.cache
def example_bank() -> bytes:
    from micfast import GeneratorBank

    path = folder() / "example.safetensors"
    sizes = {"hidden_size": 2, "input_size": 2, "output_size": 1}
    GeneratorBank.random(2, **sizes, classes=["a", "b"], metadata={"note": [1, {"x": 0.5}]}).save(
        path
    )
    return path.read_bytes()


@functools.cache
def example_estimator() -> bytes:
    from micfast import ModularInverseClassifier

    X = np.random.default_rng(0).normal(size=(8, 3, 1))
    settings = {"n_types": 2, "hidden_size": 2, "n_episodes": 3, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ModularInverseClassifier(**settings).fit(X, [0, 1] * 4)
    path = folder() / "example-estimator.safetensors"
    model.save(path)
    return path.read_bytes()


def parts(file: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    (size,) = struct.unpack("<Q", file[:8])
    return json.loads(file[8 : 8 + size]), file[8 + size :]


def bank_like(data: bytes, example: bytes, documents: list[str]) -> bytes:
    """A file: the bytes themselves, a header and tensors, or the example with altered JSON."""
    kind, rest = data[:1], data[1:]
    if kind < b"\x40":
        return rest
    if kind < b"\x80":
        header, _, payload = rest.partition(b"\xff\xff")
        return safetensors_file(header, payload)
    header, payload = parts(example)
    draws = Draws(rest)
    where = draws.choice([*documents, None])
    if where is None:
        header = altered(header, draws)
    else:
        document = json.loads(header["__metadata__"][where])
        header["__metadata__"][where] = json.dumps(altered(document, draws))
    return safetensors_file(json.dumps(header).encode(), payload)


def read_bank(data: bytes) -> None:
    from micfast import BankFileError, GeneratorBank

    path = written(bank_like(data, example_bank(), ["classes", "metadata"]), "bank.safetensors")
    with contextlib.suppress(BankFileError):
        repr(GeneratorBank.load(path))


def read_estimator(data: bytes) -> None:
    from micfast import BankFileError, ModularInverseClassifier

    file = bank_like(data, example_estimator(), ["extra.json"] * 6 + ["classes", "metadata"])
    path = written(file, "estimator.safetensors")
    with contextlib.suppress(BankFileError):
        model = ModularInverseClassifier.load(path)
        repr(model)
        if max(model.n_iter or 0, model.n_starts or 0) <= 100:  # more would be long, not wrong
            # Parameters are checked where they are used, as scikit-learn has it.
            with contextlib.suppress(ValueError, TypeError):
                shape = (1, model.n_timesteps_in_, model.n_channels_in_)
                model.predict(np.zeros(shape))


@functools.cache
def example_checkpoint() -> bytes:
    from micfast import GeneratorBank

    path = written(example_bank(), "example.safetensors")
    target = io.BytesIO()
    torch.save(GeneratorBank.load(path).to_modules()[0].state_dict(), target)
    return target.getvalue()


def read_checkpoint(data: bytes) -> None:
    from micfast import BankFileError, GeneratorBank

    kind, file = data[:1], data[1:]
    if kind >= b"\x60":  # a sound archive around another pickle
        target = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(example_checkpoint())) as whole,
            zipfile.ZipFile(target, "w") as archive,
        ):
            for name in whole.namelist():
                archive.writestr(name, file if name.endswith("data.pkl") else whole.read(name))
        file = target.getvalue()
    path = written(file, "module.pth")
    with contextlib.suppress(BankFileError):
        GeneratorBank.from_checkpoints([path])


@functools.cache
def example_mat() -> bytes:
    from scipy.io import savemat

    cells = np.empty((1, 3), dtype=object)
    for i in range(3):
        cells[0, i] = np.arange(6.0).reshape(3, 2)
    key = np.empty((1, 2), dtype=object)
    key[0, 0], key[0, 1] = "a", "b"
    path = folder() / "example.mat"
    savemat(path, {"mixout": cells, "consts": {"charlabels": np.array([[1, 1, 2]]), "key": key}})
    return path.read_bytes()


def read_mat(data: bytes) -> None:
    from micfast.data import characters

    kind, file = data[:1], data[1:]
    if kind >= b"\x60":  # compressed after the header, with the right checksum
        packed = zlib.compress(file[128:], 1)
        file = file[:128] + struct.pack("<II", 15, len(packed)) + packed
    path = written(file, "characters.mat")
    # A data set of three samples, so that the input can be one.
    small = {"_CLASS_COUNTS": {"a": 2, "b": 1}, "_MIN_LENGTH": 1, "_MAX_LENGTH": 9}
    with (
        mock.patch.multiple(characters, **small),
        contextlib.suppress(ValueError),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        characters._read(path)


def read_idx(data: bytes) -> None:
    from micfast.data import mnist

    kind, file = data[:1], data[1:]
    path = written(file if kind < b"\x40" else gzip.compress(file, 1, mtime=0), "idx.gz")
    with contextlib.suppress(ValueError):
        mnist._read_idx(path, (2, 2) if kind < b"\xa0" else ())


def read_ts(data: bytes) -> None:
    from micfast.data.ts import TsError, load_ts

    (kind,), file = data[:1] or b"\0", data[1:]
    path = written(gzip.compress(file, 1, mtime=0) if kind & 1 else file, "some.ts")
    with contextlib.suppress(TsError):
        load_ts(path, pad=bool(kind & 2))


def npy(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


def read_arrays(data: bytes) -> None:
    """The four readers of NumPy's files, all of them on the same file."""
    from micfast import types
    from micfast.cli import _CommandError, _load
    from micfast.experiments.paper.figures import _arrays
    from micfast.experiments.paper.store import Store, StoreError
    from micfast.experiments.paper.tables import _read_cross_errors

    (kind,), file = data[:1] or b"\0", data[1:]
    if kind >= 0x60:  # a sound archive around other arrays
        target = io.BytesIO()
        method = zipfile.ZIP_DEFLATED if kind & 1 else zipfile.ZIP_STORED
        with zipfile.ZipFile(target, "w", method) as archive:
            members = file.split(b"\xff\xfe\xfd")
            names = ["types", "labels", "index", "inertia", "n_iter", "train", "test"]
            for name, content in zip(names, members, strict=False):
                archive.writestr(f"{name}.npy", content)
        file = target.getvalue()
    raw = folder() / "raw"
    raw.mkdir(exist_ok=True)
    path = written(file, "raw/some.npz")
    X, counts = np.zeros((3, 2, 1)), np.array([2, 1])
    settings = types._check_settings("fuzz", 2, "random", "medoid", 1, 1, None, None)
    with contextlib.suppress(_CommandError):
        _load(path)
    with contextlib.suppress(StoreError):
        Store(folder()).read("some.npz")
    with contextlib.suppress(ValueError):
        _arrays(path, ["labels", "train"])
    with contextlib.suppress(ValueError):
        _read_cross_errors(path)
    types._read_cache(path, X, counts, settings)


def read_results(data: bytes) -> None:
    """Manifest, unit files and what becomes of them."""
    from micfast.experiments.paper.store import Store, StoreError

    (kind,), file = data[:1] or b"\0", data[1:]
    if kind >= 0x60:
        manifest = {"settings": {"seeds": 1, "data": {"digits": {"a": [1, 2.5, None]}}}}
        file = json.dumps(altered(manifest, Draws(file))).encode()
    store = Store(folder() / "results")
    (store.raw / "units").mkdir(parents=True, exist_ok=True)
    written(file, "results/manifest.json")
    written(file, "results/raw/units/one.json")
    for read in (store.read_manifest, lambda: store.read("units/one.json"), store.assemble):
        with contextlib.suppress(StoreError):
            read()


def read_download(data: bytes) -> None:
    """The archive of a download, and the record of a checksum."""
    import pooch

    from micfast.data import _fetch

    (kind,), file = data[:1] or b"\0", data[1:]
    if kind >= 0x60:
        target = io.BytesIO()
        name = "x.mat" if kind & 1 else "../x.mat"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, file)
        file = bytearray(target.getvalue())
        if kind & 2 and file:  # one byte of the archive's own
            file[(kind * 7) % len(file)] ^= 1 << (kind % 8)
    archive_path = written(bytes(file), "archive.zip")

    def copy(url: str, output: Any, _: object) -> None:
        shutil.copy(archive_path, output)

    with (
        mock.patch.object(pooch, "HTTPDownloader", return_value=copy),
        contextlib.suppress(*_fetch.DOWNLOAD_FAILURES),
    ):
        _fetch._download_member("x.mat")("http://nowhere", folder() / "x.mat", None)
    with contextlib.suppress(_fetch.DownloadError):
        _fetch._read_record(written(bytes(file), "x.mat.sha256"))


# ------------------------------------------------------------------------------------- operators

DTYPES = [torch.float32, torch.float64]
# A backend that is missing here, results too large for the memory.
DOCUMENTED_RUNTIME_ERROR = re.compile(
    "backend '(cuda|cpu)' is not|can't allocate memory|Storage size calculation overflowed"
)
ODD_DTYPES = [
    torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool, torch.complex64,
    torch.uint8,
]  # fmt: skip
SPECIAL = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-40, 1e4, 1e30, -3e38, 5e-324]
ODD_ARGUMENTS = [
    None, "x", [], {}, 1.5, float("nan"), float("inf"), -1, 2**31, 2**40, 2**63, 2**64, True,
    [[1.0]], np.zeros(2), 1j, b"", (), object,
]  # fmt: skip


def some_tensor(draws: Draws, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """A tensor that mostly fits."""
    if draws.rarely():
        if draws.rarely():
            return draws.choice(ODD_ARGUMENTS)
        shape = list(shape)
        action = draws.byte() % 4
        if action == 0 and shape:
            shape[draws.byte() % len(shape)] = draws.choice([0, 1, 2, 3, 5])
        elif action == 1 and shape:
            del shape[draws.byte() % len(shape)]
        else:
            shape.insert(draws.byte() % (len(shape) + 1), draws.choice([0, 1, 2]))
    if draws.rarely():
        dtype = draws.choice(DTYPES + ODD_DTYPES)
    generator = torch.Generator().manual_seed(draws.byte())
    tensor = 2 * torch.rand(tuple(shape), generator=generator, dtype=torch.float64) - 1
    if draws.byte() % 4 == 3:
        tensor = tensor * draws.choice([1e-40, 1e4, 1e30, 1e300])
    for _ in range(draws.byte() % 3 if draws.byte() % 4 == 3 else 0):
        if tensor.numel():
            tensor.view(-1)[draws.byte() % tensor.numel()] = draws.choice(SPECIAL)
    tensor = tensor.to(dtype)
    if draws.rarely():
        layout = draws.byte() % 7
        if layout == 0 and tensor.dim() > 1:
            tensor = tensor.transpose(0, -1).contiguous().transpose(0, -1)
        elif layout == 1:
            tensor = torch.stack([tensor, tensor], -1)[..., 0]
        elif layout == 2 and tensor.dim():
            tensor = tensor[:1].expand_as(tensor) if tensor.shape[0] else tensor
        elif layout == 3 and tensor.is_floating_point():
            tensor = tensor.requires_grad_(True)
        elif layout == 4:
            tensor = tensor.to_sparse() if tensor.dim() else tensor
        elif layout == 5:
            tensor = tensor.to("meta")
        elif layout == 6 and tensor.is_complex():
            tensor = tensor.conj()
    return tensor


def with_gaps(draws: Draws, values: Any) -> Any:
    """A copy with some values missing, also all from a place on."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return with_gaps(draws, torch.from_numpy(values.copy())).numpy()
    if not isinstance(values, torch.Tensor) or values.is_meta or values.is_sparse:
        return values
    if not values.is_floating_point() or not values.numel():
        return values
    flat = values.detach().clone().reshape(-1)
    for _ in range(draws.byte() % 8):
        begin = draws.byte() % len(flat)
        flat[begin : begin + draws.choice([1, 1, 4, len(flat)])] = torch.nan
    return flat.reshape(values.shape)


def some_number(draws: Draws, usual: list[Any]) -> Any:
    return draws.choice(ODD_ARGUMENTS) if draws.rarely() else draws.choice(usual)


def run_operators(data: bytes) -> None:
    from micfast import ops

    draws = Draws(data)
    name = draws.choice(["generate", "invert", "invert_lm", "train", "backward"])
    M, N, T = draws.choice([1, 2, 3]), draws.choice([1, 0, 2, 9]), draws.choice([1, 2, 5])
    H, K, O = draws.choice([1, 3, 8]), draws.choice([1, 2, 4]), draws.choice([1, 2, 3])
    dtype = draws.choice(DTYPES)
    shapes = [(M, 4 * H, K), (M, 4 * H, H), (M, 4 * H), (M, O, H), (M, O)]
    weights = [some_tensor(draws, shape, dtype) for shape in shapes]
    run: dict[str, Any] = {
        "n_threads": some_number(draws, [None, 1, 2]),
        "backend": draws.choice(["auto", "cpu", "cpu", "torch"]),
    }
    if draws.rarely():
        run["backend"] = draws.choice(["cuda", "", None, 3])
    adam = [
        some_number(draws, [0.05, 0.0, 1e30, 0.5]),
        some_number(draws, [0.9, 0.0, 0.999999]),
        some_number(draws, [0.99, 0.0]),
        some_number(draws, [1e-8, 0.0, 1.0]),
    ]
    with contextlib.suppress(ValueError, TypeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if name in ("generate", "backward"):
                latents = some_tensor(draws, (M, N, K), dtype)
                n_steps = some_number(draws, [T, 0])
                if isinstance(n_steps, int) and n_steps > 100:
                    run["backend"] = "cpu"  # the reference would loop for years
                drawn = ops.generate(*weights, latents, n_steps, **run)
                if drawn.requires_grad and not drawn.is_meta:
                    drawn.sum().backward()
            elif name == "train":
                S, V = draws.choice([1, 2]), draws.choice([1, 2])
                sets = some_tensor(draws, (S, K, V, T, O)[draws.byte() % 2 * 0 :], dtype)
                index = torch.arange(M) % S
                noise = torch.zeros(M, dtype=torch.float64)
                fleet = [
                    index if not draws.rarely() else some_tensor(draws, (M,), torch.int64) * 9,
                    noise if not draws.rarely() else some_tensor(draws, (M,), torch.float64),
                    noise if not draws.rarely() else some_tensor(draws, (M,), torch.float64),
                    index if not draws.rarely() else some_tensor(draws, (M,), torch.int64),
                ]
                count, curve = some_number(draws, [3, 0, 1]), some_number(draws, [2, 1, 100])
                run["omit_nan"] = some_number(draws, [False, True])
                if run["omit_nan"] is True:
                    sets = with_gaps(draws, sets)
                if not isinstance(count, int) or count < 100:
                    ops.train(*weights, sets, *fleet, count, *adam, curve, **run)
            else:
                targets = some_tensor(draws, (N, T, O), dtype)
                S = draws.choice([None, 1, 3])
                start = (draws.choice([M, 1]), draws.choice([N, 1]), *([S] if S else []), K)
                init = some_tensor(draws, start, dtype)
                n_iter = some_number(draws, [2, 0, 6])
                history, tol = draws.choice([False, True]), some_number(draws, [0.0, 1e-3])
                if isinstance(n_iter, int) and n_iter > 100:
                    n_iter = 2**63  # less than that is a long search and no fault
                unprojected = draws.choice([False, True])
                damping = some_number(draws, [0.1, 1e-9, 1e9])
                simplex = draws.choice([True, False])
                run["omit_nan"] = some_number(draws, [False, True])
                if run["omit_nan"] is True:
                    targets = with_gaps(draws, targets)
                if name == "invert":
                    ops.invert(
                        *weights, targets, init, n_iter, *adam, unprojected, history, tol, **run
                    )
                else:
                    ops.invert_lm(
                        *weights, targets, init, n_iter, damping, simplex, history, tol, **run
                    )
        except RuntimeError as error:
            if not DOCUMENTED_RUNTIME_ERROR.search(str(error)):
                raise


def run_invert(data: bytes) -> None:
    """micfast.invert and GeneratorBank.generate, the front doors."""
    import micfast

    draws = Draws(data)
    M, K, O = draws.choice([1, 2, 3]), draws.choice([1, 2, 4]), draws.choice([1, 2])
    N, T = draws.choice([1, 0, 3]), draws.choice([1, 2, 5])
    dtype = draws.choice(DTYPES)
    sizes = {"hidden_size": draws.choice([1, 4]), "input_size": K, "output_size": O}
    bank = micfast.GeneratorBank.random(M, **sizes, seeds=range(M), dtype=dtype)
    targets = some_tensor(draws, (N, T, O), draws.choice(DTYPES))
    if isinstance(targets, torch.Tensor) and draws.byte() % 2:
        with contextlib.suppress(TypeError, RuntimeError):
            targets = targets.detach().numpy()
    settings: dict[str, Any] = {
        "solver": "adam", "n_iter": 2, "lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-8,
        "damping": 0.1, "constraint": "simplex", "init": "uniform", "n_starts": 2, "tol": 0.0,
        "unprojected_error": False, "return_history": True, "chunk_size": 2, "backend": "cpu",
        "n_threads": 2, "random_state": 0, "nan_policy": "propagate", "lengths": None, "mask": None,
    }  # fmt: skip
    usual: dict[str, list[Any]] = {
        "solver": ["lm"], "n_iter": [0, 5], "lr": [0.0, 1e30], "betas": [(0.0, 0.0)],
        "eps": [1.0], "damping": [1e-9, 1e9], "constraint": [None],
        "init": ["paper", "types", "dirichlet", "nearest"], "n_starts": [1, 3], "tol": [1e-3],
        "unprojected_error": [True], "return_history": [False], "chunk_size": [1, 100],
        "backend": ["auto", "torch"], "n_threads": [1, None], "random_state": [None, 7],
        "nan_policy": ["omit", "omit", "raise"],
        "lengths": [[1] * N, np.arange(N) % T + 1, torch.full((N,), T)],
        "mask": [np.arange(N * T).reshape(N, T) % 3 > 0, torch.ones(N, T, O, dtype=torch.bool)],
    }  # fmt: skip
    chosen = {}
    for _ in range(draws.byte() % 5):
        key = draws.choice(list(settings))
        chosen[key] = some_number(draws, [settings[key], *usual[key]])
        if key == "init" and draws.byte() % 3 == 0:
            shape = draws.choice([(K,), (N, K), (N, M, K), (N, M, 2, K)])
            chosen[key] = some_tensor(draws, shape, dtype)
    if chosen.get("nan_policy") == "omit":
        targets = with_gaps(draws, targets)
    if draws.byte() % 8 == 7 and hasattr(targets, "shape") and len(targets.shape) > 1:
        # A list of sequences of several lengths.
        targets = [one[: 1 + draws.byte() % T] for one in targets]
    for key in ("n_iter", "n_starts", "n_threads"):
        # Hours of work, or more starts than memory holds, are no fault.
        if isinstance(chosen.get(key), int) and chosen[key] > 100:
            del chosen[key]
    with contextlib.suppress(ValueError, TypeError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = micfast.invert(bank, targets, **chosen)
            repr(result)
            assert len(result.best) == len(result.predictions)
            result.reconstructions(some_number(draws, ["best", "all", 0]))
            latents = some_tensor(draws, (M, N, K), dtype)
            bank.generate(latents, some_number(draws, [1, 3]))
        except RuntimeError as error:
            if not DOCUMENTED_RUNTIME_ERROR.search(str(error)):
                raise


# --------------------------------------------------------------------------------- seeds and runs

TS = b"@problemName t\n@timeStamps false\n@missing false\n@univariate true\n@equalLength true\n"
DICTIONARY = {
    "ts": ["@problemName", "@timeStamps", "@missing", "@univariate", "@dimensions", "@equalLength",
           "@seriesLength", "@classLabel", "@targetLabel", "@data", " true", " false", "NaN", "?",
           ",", ":", "#", "1e308", "-0", "\\xef\\xbb\\xbf", "\\x0a", "\\x00"],
    "json": ["null", "true", "1e999", "NaN", "Infinity", "{}", "[]", "\\\"a\\\":", "\\xff\\xff",
             "__metadata__", "dtype", "F32", "F64", "BF16", "shape", "data_offsets", "format",
             "micfast-bank", "format_version", "classes", "metadata", "settings"],
    "npy": ["\\x93NUMPY\\x01\\x00", "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }",
            "'|O'", "'<U9'", "True", "(1000000000000,)", "\\xff\\xfe\\xfd", "PK\\x03\\x04",
            "PK\\x01\\x02", "PK\\x05\\x06"],
}  # fmt: skip


def bank_seeds(example: Callable[[], bytes]) -> list[bytes]:
    header, payload = parts(example())
    whole = json.dumps(header).encode() + b"\xff\xff" + payload
    altered = [bytes([0xC0, i, *((j * i) % 256 for j in range(40))]) for i in range(1, 12)]
    return [b"\0" + example(), b"\x40" + whole, *altered]


def array_seeds() -> list[bytes]:
    good = {
        "types": np.zeros((2, 2, 2, 1)), "labels": np.array(["a", "b", "c"]),
        "index": np.zeros((2, 2), int), "inertia": np.zeros(2), "n_iter": np.ones(2, int),
        "train": np.eye(3), "test": np.eye(3, dtype=">f4"),
    }  # fmt: skip
    target = io.BytesIO()
    np.savez_compressed(target, **good)
    members = b"\xff\xfe\xfd".join(npy(array) for array in good.values())
    objects = io.BytesIO()
    np.save(objects, np.array([1, "a"], dtype=object), allow_pickle=True)
    whole = [target.getvalue(), npy(good["types"]), objects.getvalue()]
    return [*(b"\0" + file for file in whole), b"\x60" + members, b"\x61" + members]


def ts_seeds() -> list[bytes]:
    files = [
        TS + b"@seriesLength 3\n@classLabel true a b\n@data\n1,2,3:a\n4,?,6.5e-3:b\n",
        TS + b"@targetLabel true\n@data\n1,2:0.5\n3,4:NaN\n",
        b"# c\n@univariate false\n@dimensions 2\n@classLabel false\n@data\n1,2:3,4\n5:6\n",
    ]
    return [bytes([kind]) + file for kind in range(4) for file in files]


def idx_seeds() -> list[bytes]:
    images = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 2, 2) + bytes(range(8))
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes(range(5))
    return [b"\x40" + images, b"\xa0" + labels, b"\0" + gzip.compress(images, mtime=0)]


def draw_seeds() -> list[bytes]:
    generator = np.random.default_rng(0)
    return [bytes(100), *(generator.integers(0, 256, 100, np.uint8).tobytes() for _ in range(60))]


def download_seeds() -> list[bytes]:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x.mat", b"content" * 9)
    return [b"\0" + target.getvalue(), b"\x61content", b"\x63content", b"\0" + b"a1" * 32]


# Per target: what runs, its first inputs, words that it knows, its share of the runs.
TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]], str, float]] = {
    "bank": (read_bank, lambda: bank_seeds(example_bank), "json", 0.08),
    "estimator": (read_estimator, lambda: bank_seeds(example_estimator), "json", 0.005),
    "checkpoint": (
        read_checkpoint,
        lambda: [
            b"\0" + example_checkpoint(),
            b"\x60" + zipfile.ZipFile(io.BytesIO(example_checkpoint())).read("archive/data.pkl"),
        ],
        "",
        0.005,
    ),
    "mat": (read_mat, lambda: [b"\0" + example_mat(), b"\x60" + example_mat()], "", 0.12),
    "idx": (read_idx, idx_seeds, "", 0.34),
    "ts": (read_ts, ts_seeds, "ts", 0.3),
    "arrays": (read_arrays, array_seeds, "npy", 0.02),
    "results": (read_results, lambda: [b'\0{"settings": {}}', b"\x60\3\4"], "json", 0.04),
    "download": (read_download, download_seeds, "npy", 0.04),
    "operators": (run_operators, draw_seeds, "", 0.045),
    "invert": (run_invert, draw_seeds, "", 0.005),
}


def limit_memory() -> None:
    """From here on the process may take 1 GiB more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES_ABOVE_START,) * 2)


def fuzz(name: str, artifact: str, arguments: list[str]) -> None:
    """One target in this process, by libFuzzer; never returns."""
    import atheris

    with atheris.instrument_imports(include=["micfast"]):
        import micfast.bank
        import micfast.cli
        import micfast.data.characters
        import micfast.data.mnist
        import micfast.data.ts
        import micfast.estimator
        import micfast.experiments.paper.figures
        import micfast.experiments.paper.store
        import micfast.experiments.paper.tables  # noqa: F401
    torch.set_num_threads(1)
    run, seeds, _, _ = TARGETS[name]
    run(seeds()[0])  # what is loaded on first use is no input's memory
    limit_memory()

    def one(data: bytes) -> None:
        begin = time.process_time()
        try:
            run(data)
            seconds = time.process_time() - begin
            assert seconds < SECONDS_PER_INPUT, f"{seconds} s"
        except BaseException:
            traceback.print_exc()
            Path(artifact).write_bytes(data)
            os._exit(77)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def replay(n_mutants: int) -> int:
    """Every input that was ever found, the seeds and changed seeds of every target; their number.

    Without Atheris, in this process, under the same limits of memory and time.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    inputs = []
    for name, (run, make_seeds, _, _) in TARGETS.items():
        seeds = make_seeds()
        run(seeds[0])  # what is loaded on first use is no input's memory
        kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
        inputs += [(name, run, data) for data in kept + seeds]
        for _ in range(n_mutants):
            data = bytearray(seeds[rng.integers(len(seeds))])
            for at in rng.integers(0, len(data), rng.integers(1, 8)):
                data[at] = rng.integers(256)
            if rng.random() < 0.3:
                del data[rng.integers(1, len(data)) :]
            inputs.append((name, run, bytes(data)))
    limit_memory()
    for name, run, data in inputs:
        # Neither is caught: they end the process.
        signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_INPUT)
        signal.alarm(SECONDS_UNTIL_DEADLOCK)
        try:
            run(data)
        except BaseException:
            print(f"{name}: {data!r}", file=sys.stderr)
            raise
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    return len(inputs)


def run_target(name: str, n_runs: int, seconds: int, seed: int) -> tuple[int, float, Path | None]:
    """Inputs run, seconds taken, and the input that broke the rules, if one did."""
    _, seeds, words, _ = TARGETS[name]
    found = CORPUS / name
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        (work / "corpus").mkdir()
        for i, content in enumerate(seeds()):
            (work / "corpus" / f"seed{i}").write_bytes(content)
        if words:
            lines = "".join(f'"{word}"\n' for word in DICTIONARY[words])
            (work / "words").write_text(lines, encoding="ascii")
        command = [sys.executable, "-m", "tests.fuzz", "--child", name, f"{work}/found-error"]
        command += [
            f"-runs={n_runs}",
            f"-max_total_time={seconds}",
            f"-timeout={SECONDS_UNTIL_DEADLOCK}",
            f"-seed={seed}",
        ]
        command += ["-rss_limit_mb=0", "-max_len=8192", f"-artifact_prefix={work}/found-"]
        command += [f"-dict={work}/words"] if words else []
        command += [str(work / "corpus")]
        command += [str(found)] if found.is_dir() else []
        begin = time.monotonic()
        environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        elapsed = time.monotonic() - begin
        log = result.stdout.decode(errors="replace")
        counts = [int(n) for n in re.findall(r"(?m)^(?:#|Done )(\d+)", log)]
        artifact = next(iter(sorted(work.glob("found-*"))), None)
        if result.returncode == 0 and artifact is None:
            return max(counts, default=0), elapsed, None
        print(log[-6000:])
        if artifact is None:
            raise RuntimeError(f"{name}: the fuzzer failed with status {result.returncode}")
        found.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(artifact.read_bytes()).hexdigest()[:12]
        kept = found / f"{artifact.name.split('-')[1]}-{digest}"
        shutil.copy(artifact, kept)
        return max(counts, default=0), elapsed, kept


def main() -> int:
    """Run the targets one after the other and print a table of the counts."""
    if sys.argv[1:2] == ["--child"]:
        fuzz(*sys.argv[2:4], sys.argv[4:])
    if sys.argv[1:2] == ["--replay"]:
        print(replay(int(sys.argv[2])), "inputs")
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of all targets")
    parser.add_argument("--seconds", type=int, default=900, help="most for one target")
    parser.add_argument("--seed", type=int, default=1, help="above 0; another one, other inputs")
    parser.add_argument("--targets", default=",".join(TARGETS), help="names, comma-separated")
    arguments = parser.parse_args()
    names = arguments.targets.split(",")
    shares = sum(TARGETS[name][3] for name in names)
    rows, n_found = [], 0
    for name in names:
        n_runs = round(arguments.runs * TARGETS[name][3] / shares)
        count, seconds, artifact = run_target(name, n_runs, arguments.seconds, arguments.seed)
        rows.append((name, count, seconds))
        n_found += artifact is not None
        print(f"{name:12s} {count:9,d} inputs {seconds:6.0f} s {artifact or ''}", flush=True)
    print(f"{'all':12s} {sum(r[1] for r in rows):9,d} inputs {sum(r[2] for r in rows):6.0f} s, ")
    print(f"{n_found} found")
    return 1 if n_found else 0


if __name__ == "__main__":
    sys.exit(main())
