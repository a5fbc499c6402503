"""What the fuzzers' targets draw from bytes, and where they write files."""

from __future__ import annotations

import atexit
import copy
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any


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
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def written(data: bytes, name: str) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path
