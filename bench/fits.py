"""Seconds of whole fits: types, training, calibration; of one class; and of training alone in JAX.

The plain search by three modules a class, on one data set of short and one of middling
sequences, and on noisy sums of sinusoids of T = 427; beside the paper's training
(`Training.paper()`), and the same projected Adam in JAX, where installed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from bench import sets
from bench.learning import short, sums_of_sinusoids
from bench.peers.projected import jax_projected
from micfast import ModularInverseClassifier, Training
from micfast.training.methods.projected import ProjectedAdam

__all__ = ["fits_table", "measure_fits"]

Row = dict[str, Any]

_SETS = ("letters", "GunPoint")
_WAYS = {"default": Training(), "paper": Training.paper()}


def measure_fits(n_threads: int, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of the table."""
    rows: list[Row] = []
    for name in ("GunPoint",) if quick else _SETS:
        data = sets.load_or_say(name, say)
        if data is not None:
            rows += _fits(name, data.X_train, data.y_train, quick, n_threads, say)
    X, y = _long_set(60 if quick else 427)
    rows += _fits(f"made, T = {X.shape[1]}", X, y, quick, n_threads, say)
    return rows


def _long_set(n_steps: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Six classes of noisy sums of five sinusoids, 20 samples each: 18 modules."""
    types = sums_of_sinusoids(6, n_steps, 5, seed=1)
    rng = np.random.default_rng(0)
    X = np.repeat(types, 5, axis=1).reshape(-1, n_steps, 1)
    return X + 0.05 * rng.standard_normal(X.shape).astype(np.float32), np.repeat(np.arange(6), 20)


def _fits(
    name: str,
    X: NDArray[Any],
    y: NDArray[Any],
    quick: bool,
    n_threads: int,
    say: Callable[[str], None],
) -> Iterator[Row]:
    for way, training in _WAYS.items():
        say(f"fits: {name}, {way}")
        model = ModularInverseClassifier(
            training=short(training, quick),
            views="raw",
            pose=None,
            hull=False,
            n_modules_per_class=3,
            random_state=0,
            n_jobs=n_threads,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            times = []
            for _ in range(1 if quick or way == "paper" else 3):
                begin = time.perf_counter()
                model.fit(X, y)
                times.append(time.perf_counter() - begin)
            reports = model.training_report_
            begin = time.perf_counter()
            model.refit_class(X[y == y[0]], y[0])
            one_class = time.perf_counter() - begin
        yield {
            "set": name,
            "way": way,
            "modules": len(reports),
            "T": X.shape[1],
            "seconds": min(times),
            "training_seconds": max(one["seconds"] for one in reports),
            "one_class_seconds": one_class,
            "learned": sum(one["learned"] for one in reports),
        }
    types = np.nan_to_num(np.repeat(model.types_, 3, axis=0))
    n_hidden = model.banks_[0].hidden_size
    seconds = jax_projected(types, n_hidden, 5 if quick else ProjectedAdam().n_steps, n_threads)
    if seconds is None:
        say("fits: JAX is not installed")
        return
    compiling, training_seconds = seconds
    yield {
        "set": name,
        "way": "projected Adam in JAX, training alone",
        "modules": len(types),
        "T": X.shape[1],
        "training_seconds": training_seconds,
        "compile_seconds": compiling,
    }


def fits_table(rows: list[Row]) -> list[str]:
    """The rows as a Markdown table."""
    lines = [
        "Seconds of a whole fit of the plain search, three modules a class (types, training, "
        "calibration), of the training in it, and of `refit_class`.",
        "",
        "| set | modules | T | way | fit | training | one class | learned |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = [
            f"{row[key]:.2f}" if key in row else ""
            for key in ("seconds", "training_seconds", "one_class_seconds")
        ]
        more = f" (compiling: {row['compile_seconds']:.1f})" if "compile_seconds" in row else ""
        lines.append(
            f"| {row['set']} | {row['modules']} | {row['T']} | {row['way']}{more} "
            f"| {' | '.join(cells)} | {row.get('learned', '')} |"
        )
    return lines
