"""Everything, again and again: ``python -m bench.soak --minutes 60 --out soak.json``.

Each round fits, adds and removes a class, predicts, inverts in every way, draws, trains, saves and
loads, with the same seeds. Every result must be that of the first round, bit for bit, and memory,
threads and open files must not grow. Exit code 1 if one of these fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import micfast
from bench.load import anonymous
from bench.machine import describe, refuse_checkout
from micfast import Adam, LevenbergMarquardt, Training, Weights
from micfast.search.starts.drawn import Paper
from micfast.training.types import select_types_per_class

# The allocator has settled by then.
_WARM_ROUNDS = 10
# More would count as growth themselves.
_SAMPLES = 1000
# Growth from the first to the last tenth of the run that is still noise of the allocator.
LIMIT_MB = 16.0
_MB = 1e6


class Soak:
    """The work of one round.

    Parameters
    ----------
    folder : Path
        For files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        t = np.linspace(0, 1, 40)
        self.y = np.arange(60) % 3
        shapes = np.stack([np.sin(7 * t), t**2, np.cos(9 * t) * t])
        X = shapes[self.y] * rng.uniform(0.7, 1.3, (60, 1)) + 0.05 * rng.standard_normal((60, 40))
        self.X = np.stack([X, X[:, ::-1]], axis=2)
        self.targets = rng.standard_normal((500, 40, 2)).astype(np.float32)
        self.file = folder / "model.safetensors"

    def steps(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Names and calls, in their order; each call gives arrays."""
        model = micfast.ModularInverseClassifier(
            2,
            training=Training.paper(n_episodes=500, max_retries=0),
            n_modules_per_class=2,
            random_state=0,
        )
        known = self.y < 2
        yield "fit", lambda: model.fit(self.X[known], self.y[known]).bank_.weights
        yield "add_class", lambda: model.add_class(self.X[~known], 2).bank_.weights
        yield "predict_proba", lambda: [model.predict_proba(self.X)]
        yield "transform", lambda: [model.transform(self.X)]
        yield "save", lambda: model.save(self.file)
        yield "load", lambda: [micfast.ModularInverseClassifier.load(self.file).predict(self.X)]
        bank = model.bank_
        for name, settings in {
            "adam": {"solver": Adam(10)},
            "adam, history": {"solver": Adam(3), "history": True},
            "adam, paper's start": {"solver": Adam(3, start=Paper(random_state=0))},
            "lm": {"solver": LevenbergMarquardt(3, start="uniform")},
            "lm, nearest": {"solver": LevenbergMarquardt(3, start="nearest")},
            "torch": {"solver": Adam(1), "execution": "torch"},
        }.items():
            yield name, lambda settings=settings: self._invert(bank, settings)
        yield (
            "reconstructions",
            lambda: [self._search(bank, {"solver": Adam(1)}).reconstructions("all")],
        )
        yield "gradient", lambda: self._gradient(bank)
        yield (
            "types",
            lambda: [
                select_types_per_class(
                    self.X, self.y, 2, selection="dtw-kmeans", random_state=0, cache=False
                )[0]
            ],
        )
        yield "remove_class", lambda: model.remove_class(0).bank_.weights
        yield "an error", self._error

    def _invert(self, bank: micfast.GeneratorBank, settings: dict[str, Any]) -> list[Any]:
        found = self._search(bank, settings)
        return [found.errors, found.latents]

    def _search(self, bank: micfast.GeneratorBank, settings: dict[str, Any]) -> micfast.Inversion:
        return micfast.invert(bank, self.targets, **settings)

    def _gradient(self, bank: micfast.GeneratorBank) -> list[Any]:
        weights = [w.clone().requires_grad_() for w in bank.weights]
        latents = torch.full((bank.n_modules, 8, bank.input_size), 0.3, requires_grad=True)
        micfast.generate(Weights(*weights), latents, 30).square().sum().backward()
        return [latents.grad, *(w.grad for w in weights)]

    def _error(self) -> list[Any]:
        """Refusals keep nothing either."""
        self.file.write_bytes(b"damaged")
        try:
            micfast.GeneratorBank.load(self.file)
        except micfast.BankFileError as error:
            return [np.frombuffer(str(error).encode(), np.uint8)]
        raise AssertionError("a damaged file was read")


def _digest(arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays or ():
        values = array.detach().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _held() -> dict[str, float]:
    """What a leak would add to."""
    folder = Path("/proc/self")
    if not folder.is_dir():
        return {"memory_mb": 0.0, "threads": 0, "files": 0}
    return {
        "memory_mb": anonymous() / _MB,
        "threads": len(os.listdir(folder / "task")),
        "files": len(os.listdir(folder / "fd")),
    }


def soak(minutes: float, min_rounds: int = 2, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run rounds for some time.

    Parameters
    ----------
    minutes : float
    min_rounds : int
        Even if they take longer.
    say : callable
        Gets a line a minute.

    Returns
    -------
    dict
        JSON-able: ``rounds``, ``calls``, ``unequal`` (round and step of every result that was not
        the first round's), ``samples`` of what is held after a round, ``growth_mb`` from the first
        to the last tenth of the samples, ``passed``.
    """
    first: dict[str, str] = {}
    unequal: list[tuple[int, str]] = []
    samples: list[dict[str, float]] = []
    begin = said = sampled = time.monotonic()
    rounds = calls = 0
    with tempfile.TemporaryDirectory(prefix="micfast-soak-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so short a training may not have learned its types
        work = Soak(Path(folder))
        while rounds < min_rounds or time.monotonic() - begin < 60 * minutes:
            rounds += 1
            for name, call in work.steps():
                calls += 1
                digest = _digest(call())
                if first.setdefault(name, digest) != digest:
                    unequal.append((rounds, name))
            now = time.monotonic()
            due = rounds > _WARM_ROUNDS and now - sampled >= 60 * minutes / _SAMPLES
            if due or rounds == min_rounds:
                sampled = now
                samples.append({"seconds": now - begin, "calls": calls, **_held()})
            if now - said > 60:
                said = now
                say(f"{(said - begin) / 60:.0f} min, {rounds} rounds, {calls} calls, {_held()}")
    grown = {key: growth(samples, key) for key in ("memory_mb", "threads", "files")}
    return {
        "format": "micfast-soak",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **describe(),
        "minutes": (time.monotonic() - begin) / 60,
        "rounds": rounds,
        "calls": calls,
        "steps": list(first),
        "unequal": unequal,
        "growth": grown,
        "limit_mb": LIMIT_MB,
        "samples": thinned(samples),
        "passed": not unequal
        and grown["memory_mb"] <= LIMIT_MB
        and grown["threads"] <= 0
        and grown["files"] <= 0,
    }


def growth(samples: list[dict[str, float]], key: str) -> float:
    """From the median of the first tenth to that of the last."""
    n = max(1, len(samples) // 10)
    values = [sample[key] for sample in samples]
    return median(values[-n:]) - median(values[:n])


def thinned(samples: list[dict[str, float]], n: int = 200) -> list[dict[str, float]]:
    return [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, n).round().astype(int))]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, help="of torch and micfast")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    try:
        refuse_checkout()
    except RuntimeError as error:
        print(f"bench.soak: {error}", file=sys.stderr)
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
    result = soak(options.minutes, say=lambda line: print(line, flush=True))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{'passed' if result['passed'] else 'FAILED'}: {result['rounds']} rounds, "
        f"{result['calls']} calls in {result['minutes']:.1f} min; "
        f"{len(result['unequal'])} results unlike the first round's; growth "
        f"{result['growth']['memory_mb']:+.2f} MB, {result['growth']['threads']:+g} threads, "
        f"{result['growth']['files']:+g} files"
    )
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
