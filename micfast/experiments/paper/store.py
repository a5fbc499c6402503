"""The results folder: files that are whole or absent, one run at a time, tables from unit files.

Knows names and formats; what is in the files is made by ``units``.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from micfast._io import atomic_path, load_arrays, write_text

__all__ = ["TABLES", "Store", "StoreError"]

_GRID = ("data", "subset", "noise_in", "noise_out", "seed", "n_iter")
_RESULT = ("n_test", "n_correct", "accuracy")
# File in raw/ -> its columns, and by how many of them, the first ones, its rows are sorted.
TABLES: dict[str, tuple[tuple[str, ...], int]] = {
    "runs": ((*_GRID, *_RESULT, "mse"), 6),
    "classes": ((*_GRID, "label", *_RESULT, "mse"), 7),
    "forward": (("method", "data", "subset", "seed", "epochs", "n_train", *_RESULT), 5),
    "baselines": (("method", "data", "subset", "seed", "n_train", *_RESULT), 4),
}
_MANIFEST, _LOCK = "manifest.json", ".lock"


class StoreError(ValueError):
    """A results folder that can't be used as asked; the message says why and what to do."""


class Store:
    """The files of one results folder.

    Parameters
    ----------
    out : path-like
        The folder; it need not exist, its parent has to.

    Attributes
    ----------
    out, raw, units : Path
        The folder, ``raw`` in it, and ``raw/units``.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(out)
        self.raw = self.out / "raw"
        self.units = self.raw / "units"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder, which is made if it isn't there.

        The system holds the lock, so that of a killed run is gone with it.

        Raises
        ------
        StoreError
            If another run is at work in the folder.
        OSError
            If the folder can't be made or written.
        """
        from filelock import FileLock, Timeout

        self.out.mkdir(exist_ok=True)
        lock = FileLock(self.out / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(f"reproduce: another run is at work in {self.out}") from None
        try:
            yield
        finally:
            lock.release()

    def is_new(self) -> bool:
        """Whether nothing of a run, and nothing else, is in the folder."""
        if not self.out.is_dir():
            return True
        return all(path.name == _LOCK or _is_temporary(path) for path in self.out.iterdir())

    def prepare(self) -> None:
        """Make the folders and remove what a killed run left half-written. Call while locked."""
        self.units.mkdir(parents=True, exist_ok=True)
        for folder in (self.out, self.raw, self.units):
            for path in folder.iterdir():
                if _is_temporary(path):
                    path.unlink()

    # -- manifest --------------------------------------------------------------------------------

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest, None if there is none.

        Raises
        ------
        StoreError
            If the file isn't a manifest.
        """
        path = self.out / _MANIFEST
        if not path.is_file():
            return None
        manifest = _read_json(path)
        if not isinstance(manifest, dict) or "settings" not in manifest:
            raise StoreError(f"{path}: not the manifest of `micfast reproduce`")
        return manifest

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Replace the manifest."""
        _write_json(self.out / _MANIFEST, manifest)

    # -- units -----------------------------------------------------------------------------------

    def has(self, file: str) -> bool:
        """Whether a unit's file (its path in ``raw``) is there; then it is whole."""
        return (self.raw / file).is_file()

    def write(self, file: str, content: Mapping[str, Any]) -> None:
        """Write a unit's file: arrays to .npz, anything else to .json.

        Parameters
        ----------
        file : str
            Path in ``raw``.
        content : mapping of str
            Arrays (.npz), or what JSON holds; NaN and infinity become null there.
        """
        path = self.raw / file
        if path.suffix == ".npz":
            # numpy dates the members of a .npz 1980: equal content is equal bytes.
            with atomic_path(path) as temporary, open(temporary, "wb") as target:
                np.savez(target, **content)
        else:
            _write_json(path, content)

    def read(self, file: str) -> dict[str, Any]:
        """The content of a unit's file.

        Raises
        ------
        StoreError
            If the file is damaged.
        """
        path = self.raw / file
        if path.suffix != ".npz":
            return _read_json(path)
        try:
            return load_arrays(path)
        except ValueError as error:
            raise _damaged(path, error) from error

    def assemble(self) -> None:
        """Write the CSV files of ``raw`` anew from all unit files; only those that get rows.

        Their bytes depend on the unit files alone.
        """
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        for path in sorted(self.units.glob("*.json")):
            content = _read_json(path)
            if not isinstance(content, dict):
                raise _damaged(path, TypeError("it must hold a JSON object"))
            for name, (columns, _) in TABLES.items():
                own = content.get(name, [])
                if not isinstance(own, list) or not all(
                    isinstance(row, dict) and set(row) <= set(columns) for row in own
                ):
                    raise _damaged(path, TypeError(f"{name} must be a list of rows of its columns"))
                rows[name] += own
        for name, (columns, n_keys) in TABLES.items():
            path = self.raw / f"{name}.csv"
            if not rows[name]:
                path.unlink(missing_ok=True)
                continue
            rows[name].sort(key=lambda row: tuple(row[column] for column in columns[:n_keys]))
            with (
                atomic_path(path) as temporary,
                open(temporary, "w", newline="", encoding="utf-8") as target,
            ):
                writer = csv.DictWriter(target, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows[name])


def _is_temporary(path: Path) -> bool:
    """Whether this is what `atomic_path` writes to before the file has its name."""
    return path.name.startswith(".") and path.stem.endswith(".tmp")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(_plain(content), indent=1, allow_nan=False)
    write_text(path, text + "\n")


def _plain(value: Any) -> Any:
    """JSON's types for numpy's; null for NaN and infinity, which a diverged module has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path}: damaged ({error}); delete it and run with --resume")
