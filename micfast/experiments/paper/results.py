"""The files of a results folder: each is whole or absent, and what is there isn't computed again.

The raw results are their own checkpoints: a task is done when its file is in ``raw``. That needs
no cache besides them (joblib's Memory would keep every result twice, the second time as a pickle,
and forget all of them when a function's source changes).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from micfast.io import atomic_path, load_arrays, write_text

__all__ = ["TABLES", "ResultsError", "assemble", "is_new", "locked", "prepare", "read", "write"]

_GRID = ("data", "subset", "noise_in", "noise_out", "seed", "n_iter")
_RESULT = ("n_test", "n_correct", "accuracy")
# File in raw/ -> its columns, and by how many of them, the first ones, its rows are sorted.
TABLES: dict[str, tuple[tuple[str, ...], int]] = {
    "runs": ((*_GRID, *_RESULT, "mse"), 6),
    "classes": ((*_GRID, "label", *_RESULT, "mse"), 7),
    "forward": (("method", "data", "subset", "seed", "epochs", "n_train", *_RESULT), 5),
    "baselines": (("method", "data", "subset", "seed", "n_train", *_RESULT), 4),
}
_LOCK = ".lock"


class ResultsError(ValueError):
    """A results folder that can't be used as asked; the message says why and what to do."""


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other runs out of the folder, which is made if it isn't there.

    The system holds the lock, so that of a killed run is gone with it.
    """
    from filelock import FileLock, Timeout

    out.mkdir(exist_ok=True)
    try:
        with FileLock(out / _LOCK, timeout=0):
            yield
    except Timeout:
        raise ResultsError(f"reproduce: another run is at work in {out}") from None


def is_new(out: Path) -> bool:
    """Whether nothing of a run, and nothing else, is in the folder."""
    if not out.is_dir():
        return True
    return all(path.name == _LOCK or _is_temporary(path) for path in out.iterdir())


def prepare(out: Path) -> None:
    """Make the folders and remove what a killed run left half-written. Call while locked."""
    units = out / "raw" / "units"
    units.mkdir(parents=True, exist_ok=True)
    for folder in (out, out / "raw", units):
        for path in filter(_is_temporary, folder.iterdir()):
            path.unlink()


def _is_temporary(path: Path) -> bool:
    """Whether this is what `atomic_path` writes to before the file has its name."""
    return path.name.startswith(".") and path.stem.endswith(".tmp")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write arrays to .npz, anything else to .json, where NaN and infinity become null."""
    if path.suffix == ".npz":
        # numpy dates the members of a .npz 1980: equal content is equal bytes.
        with atomic_path(path) as temporary, open(temporary, "wb") as target:
            np.savez(target, **content)
    else:
        write_text(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """The content of a file that :func:`write` wrote; a :class:`ResultsError` if it is damaged."""
    try:
        if path.suffix == ".npz":
            return load_arrays(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it must hold a JSON object")
        return content
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: damaged ({error}); delete it and run with --resume") from error


def _plain(value: Any) -> Any:
    """JSON's types for numpy's; null for NaN and infinity, which a diverged module has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def assemble(raw: Path) -> dict[str, int]:
    """Write the CSV files of ``raw`` from all unit files; only those that get rows.

    Their bytes depend on the unit files alone.

    Returns
    -------
    dict
        ``n_modules`` and ``n_not_learned`` of all noise grids.
    """
    import pandas as pd

    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    n_modules = n_not_learned = 0
    for path in sorted((raw / "units").glob("*.json")):
        content = read(path)
        try:
            for name, (columns, _) in TABLES.items():
                found = content.get(name, [])
                if any(set(row) != set(columns) for row in found):
                    raise ValueError(f"{name} must be rows of its columns")
                rows[name] += found
            n_modules += content.get("n_modules", 0)
            n_not_learned += len(content.get("not_learned", []))
        except (TypeError, ValueError) as error:
            raise ResultsError(
                f"{path}: damaged ({error}); delete it and run with --resume"
            ) from error
    for name, (columns, n_keys) in TABLES.items():
        path = raw / f"{name}.csv"
        if rows[name]:
            frame = pd.DataFrame(rows[name], columns=list(columns))
            frame = frame.sort_values(list(columns[:n_keys]), kind="stable")
            write_text(path, frame.to_csv(index=False, lineterminator="\n"))
        else:
            path.unlink(missing_ok=True)
    return {"n_modules": n_modules, "n_not_learned": n_not_learned}
