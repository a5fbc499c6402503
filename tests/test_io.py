"""Atomic writes, outputs that are inputs, and arrays that may be damaged."""

import os
import zipfile

import numpy as np
import pytest

from micfast.io import (
    array_names,
    atomic_path,
    check_not_input,
    check_output_path,
    load_arrays,
    write_text,
)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_output_paths(tmp_path):
    check_output_path(tmp_path / "new.txt")
    check_output_path(os.devnull)
    with pytest.raises(FileNotFoundError, match="folder does not exist"):
        check_output_path(tmp_path / "nowhere" / "new.txt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_output_path(tmp_path)


def test_an_output_is_no_input(tmp_path, monkeypatch):
    source = tmp_path / "data.npz"
    source.write_bytes(b"data")
    (tmp_path / "soft.npz").symlink_to(source)
    os.link(source, tmp_path / "hard.npz")
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("data.npz", source, "./data.npz", "soft.npz", "hard.npz", "folder/data.npz"):
        with pytest.raises(ValueError, match=r"would overwrite .*data\.npz"):
            check_not_input(name, "other.npz", None, source)
    # Two outputs that do not exist yet may not be one file either.
    with pytest.raises(ValueError, match="would overwrite"):
        check_not_input("new.txt", tmp_path / "folder" / "new.txt")
    check_not_input("new.txt", source, None)
    check_not_input(os.devnull, os.devnull)


def test_arrays_are_read_as_numpy_reads_them(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.ones((2, 3), ">f4")),
        "c": np.array(["x", "yz"]),
        "d": np.zeros((0, 4)),
        "e": np.array(5),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = load_arrays(tmp_path / "x.npz")
        assert list(found) == array_names(tmp_path / "x.npz") == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    np.save(tmp_path / "y.npy", arrays["a"])
    np.testing.assert_array_equal(load_arrays(tmp_path / "y.npy")[""], arrays["a"])
    assert array_names(tmp_path / "y.npy") == [""]
    with pytest.raises(ValueError, match="single array"):
        load_arrays(tmp_path / "y.npy", ["a"])


def test_only_the_named_arrays_are_read(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez(path, X=np.ones(3), meta=np.array([None, "x"], dtype=object))
    assert list(load_arrays(path, ["X"])) == ["X"]
    with pytest.raises(ValueError, match=r"'meta'.*Python objects.*array.astype\(str\)"):
        load_arrays(path)
    with pytest.raises(ValueError, match="no array 'y'; it has X, meta"):
        load_arrays(path, ["y"])
    monkeypatch.setattr("micfast.io._UNPACKED_BYTES", 1000)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", bytes(2**20))
    assert list(load_arrays(path, ["X"])) == ["X"]
    with pytest.raises(ValueError, match="more than the limit"):
        load_arrays(path, ["bomb"])


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"\x93NUMPY\x01\x00"])
def test_foreign_files(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    for read in (load_arrays, array_names):
        if read is array_names and not content.startswith(b"PK"):
            continue
        with pytest.raises(ValueError, match=r"damaged|truncated|not a \.npz|EOF"):
            read(tmp_path / "x.npz")


def test_sizes_are_checked_before_they_are_believed(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 4)))
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b"(3, 4)", b"(3, 9)"))
    with pytest.raises(ValueError, match=r"header announces shape \[3, 9\]"):
        load_arrays(tmp_path / "x.npy")
