"""Targets of the fuzzer that read files, with their first inputs and dictionaries."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from fuzz_inputs import Draws, altered, folder, written

from micfast.generators import files


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
    from micfast import ModularInverseClassifier, Training

    X = np.random.default_rng(0).normal(size=(8, 3, 1))
    settings = {"n_types": 2, "hidden_size": 2, "random_state": 0, "views": "raw", "pose": None}
    settings |= {"hull": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ModularInverseClassifier(**settings, training=Training.paper(n_episodes=3))
        model.fit(X, [0, 1] * 4)
    path = folder() / "example-estimator.safetensors"
    model.save(path)
    return path.read_bytes()


def sealed(file: bytes) -> bytes:
    """A bank's file with the checksum that belongs to it, so that its content is read at all."""
    place = files._checksum_place(file)
    if place is None:
        return file
    digits = files._checksum(file, place).encode()
    return file[:place] + digits + file[place + len(digits) :]


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
        return sealed(safetensors_file(header, payload))
    header, payload = parts(example)
    draws = Draws(rest)
    where = draws.choice([*documents, None])
    if where is None:
        header = altered(header, draws)
    else:
        document = json.loads(header["__metadata__"][where])
        header["__metadata__"][where] = json.dumps(altered(document, draws))
    # As safetensors writes it: without spaces, which the place of the checksum depends on.
    return sealed(safetensors_file(json.dumps(header, separators=(",", ":")).encode(), payload))


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
        solver = model.get_params()["solver"]
        if getattr(solver, "n_iter", 0) <= 100:  # more would be long, not wrong
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


def read_idx(data: bytes) -> None:
    from micfast.data.sets import mnist

    kind, file = data[:1], data[1:]
    path = written(file if kind < b"\x40" else gzip.compress(file, 1, mtime=0), "idx.gz")
    with contextlib.suppress(ValueError):
        mnist.read_idx(path, (2, 2) if kind < b"\xa0" else ())


def read_ts(data: bytes) -> None:
    from micfast.data.recordings import read_recordings
    from micfast.data.ts import load_ts

    (kind,), file = data[:1] or b"\0", data[1:]
    path = written(file, "some.ts")
    with contextlib.suppress(ValueError):
        load_ts(path)
    with contextlib.suppress(ValueError):
        read_recordings(path, wants_labels=bool(kind & 1))


def read_table(data: bytes) -> None:
    """Tables of sequences, in both layouts."""
    from micfast.data.recordings import read_recordings

    (kind,), file = data[:1] or b"\0", data[1:]
    path = written(file, "some.tsv" if kind & 1 else "some.csv")
    columns = {"id": "id", "time": "t", "label": "y"} if kind & 2 else {}
    with contextlib.suppress(ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        repr(read_recordings(path, wants_labels=bool(kind & 4), **columns))


def npy(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


def read_arrays(data: bytes) -> None:
    """The readers of NumPy's files, all of them on the same file."""
    from micfast.data.recordings import read_recordings
    from micfast.experiments.paper import raw, results
    from micfast.training import types

    (kind,), file = data[:1] or b"\0", data[1:]
    if kind >= 0x60:  # a sound archive around other arrays
        target = io.BytesIO()
        method = zipfile.ZIP_DEFLATED if kind & 1 else zipfile.ZIP_STORED
        with zipfile.ZipFile(target, "w", method) as archive:
            members = file.split(b"\xff\xfe\xfd")
            names = ["types", "labels", "index", "inertia", "n_iter", "train", "ids"]
            for name, content in zip(names, members, strict=False):
                archive.writestr(f"{name}.npy", content)
        file = target.getvalue()
    path = written(file, "some.npz")
    with contextlib.suppress(ValueError):
        read_recordings(path, wants_labels=bool(kind & 2), X_key="types", y_key="labels")
    with contextlib.suppress(results.ResultsError):
        results.read(path)
    with contextlib.suppress(ValueError):
        raw.read_arrays(path, "labels", "train")
    types._read_cache(path, np.zeros((3, 2, 1)), np.array([2, 1]), 2)


def read_results(data: bytes) -> None:
    """Unit files and what becomes of them."""
    from micfast.experiments.paper import raw, results

    (kind,), file = data[:1] or b"\0", data[1:]
    if kind >= 0x60:
        rows = [dict.fromkeys(columns, 0) for columns, _ in results.TABLES.values()]
        unit = {name: [row] for name, row in zip(results.TABLES, rows, strict=True)}
        file = json.dumps(altered({**unit, "n_modules": 3}, Draws(file))).encode()
    place = folder() / "results"
    shutil.rmtree(place, ignore_errors=True)
    (place / "units").mkdir(parents=True)
    written(file, "results/units/one.json")
    with contextlib.suppress(results.ResultsError):
        results.read(place / "units/one.json")
    with contextlib.suppress(results.ResultsError):
        results.assemble(place)
        with contextlib.suppress(ValueError):
            raw.load_raw(place)


def read_download(data: bytes) -> None:
    """The archive of a download, and the record of a checksum."""
    import pooch

    from micfast.data import fetch

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
        contextlib.suppress(*fetch.DOWNLOAD_FAILURES),
    ):
        fetch.download_member("x.mat")("http://nowhere", folder() / "x.mat", None)
    with contextlib.suppress(fetch.DownloadError):
        fetch.read_record(written(bytes(file), "x.mat.sha256"))


# -- first inputs ----------------------------------------------------------------------------------

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
    return [bytes([kind]) + file for kind in range(2) for file in files]


def table_seeds() -> list[bytes]:
    long = b"id,t,x,y\na,0,1.5,u\na,1,2,u\nb,0,-3,v\nb,1,,v\n"
    wide = b"y,0,1,2\nu,1,2,3\nv,4,5,\n"
    channels = b"label;x_0;x_1;y_0;y_1\nu;1,5;2;3;4\n"
    files = [long, wide, channels, long.replace(b",", b"\t"), b"1,2,3\n4,5,6\n"]
    return [bytes([kind]) + file for kind in (0, 2, 4, 7) for file in files]


def idx_seeds() -> list[bytes]:
    images = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 2, 2) + bytes(range(8))
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes(range(5))
    return [b"\x40" + images, b"\xa0" + labels, b"\0" + gzip.compress(images, mtime=0)]


def download_seeds() -> list[bytes]:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x.mat", b"content" * 9)
    return [b"\0" + target.getvalue(), b"\x61content", b"\x63content", b"\0" + b"a1" * 32]
