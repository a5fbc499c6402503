"""Which modules learn, and how well: on development sets, and on sums of sinusoids.

Two suites, each beside the trainer that was the default before (`Training.paper()`): "learning",
what is learned of random training sequences (K = 4, or as many as a class has; H = 10, tolerance
0.1; every module is a row of ``learning.csv`` with its draw and seeds), and "sinusoids", where each
method stops on sums of sinusoids of growing length and number.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import sets
from micfast import Execution, Training
from micfast.training.fleet import train_until_learned
from micfast.training.initializations.matched import Matched
from micfast.training.methods.projected import ProjectedAdam

__all__ = [
    "learning_table",
    "measure_learning",
    "measure_sinusoids",
    "plot_sinusoids",
    "short",
    "sinusoids_table",
    "sums_of_sinusoids",
    "write_csv",
]

Row = dict[str, Any]

_K, _H = 4, 10
_FIRST_DRAW = 100
# Sets, and how many draws of their training sequences: 24 modules or more (GunPoint: 18).
_DRAWS = {
    "GunPoint": 9,
    "Trace": 6,
    "letters": 2,
    "JapaneseVowels": 3,
    "BasicMotions": 6,
    "PigCVP": 1,
}
_MOST_CLASSES = 24
# An attempt of the paper's training takes minutes with more steps: it has one.
_LONG = 1000
_WAYS = {
    "no noise": Training(noise_in=0.0),
    "default": Training(),
    "paper": Training.paper(),
}
_STEPS, _SINUSOIDS = (50, 100, 200, 500, 1000, 2000), (1, 2, 3, 5, 8, 12, 20)
_SYNTHETIC = {
    "start alone": Training(ProjectedAdam(0), Matched(0.2), noise_in=0.0, max_retries=0),
    "projected": Training(method="projected", noise_in=0.0, max_retries=0),
    "auto": Training(noise_in=0.0, max_retries=0),
    "paper": Training.paper(max_retries=0),
}


def measure_learning(n_threads: int, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of the suite "learning": modules."""
    execution = Execution(n_threads=n_threads)
    rows: list[Row] = []
    for name, n_draws in {"JapaneseVowels": 1}.items() if quick else _DRAWS.items():
        data = sets.load_or_say(name, say)
        if data is not None:
            rows += _learned(name, data, n_draws, quick, execution, say)
    return rows


def short(training: Training, quick: bool) -> Training:
    """A training that shows only that it works."""
    if not quick:
        return training
    is_paper = training.method == Training.paper().method
    return Training.paper(50) if is_paper else training.replace(method=ProjectedAdam(5))


# -- what is learned -----------------------------------------------------------------------------


def _learned(
    name: str,
    data: sets.Split,
    n_draws: int,
    quick: bool,
    execution: Execution,
    say: Callable[[str], None],
) -> Iterator[Row]:
    draws = range(_FIRST_DRAW, _FIRST_DRAW + n_draws)
    classes = np.unique(data.y_train)[:_MOST_CLASSES]
    modules = [(label, draw) for draw in draws for label in classes]
    types = np.concatenate([_draw(data, classes, draw) for draw in draws])
    for way, training in _WAYS.items():
        say(f"learning: {name}, {way}, {len(modules)} modules")
        if way == "paper" and types.shape[2] > _LONG:
            training = training.replace(max_retries=0)
        found, seconds = _train(types, short(training, quick), execution)
        for (label, draw), one in zip(modules, found, strict=True):
            yield {
                "set": name,
                "way": way,
                "class": str(label),
                "draw": draw,
                "seeds": one.seeds,
                "T": types.shape[2],
                "relative_error": one.relative_mse,
                "learned": one.learned,
                "attempts": one.attempts,
                "steps": one.steps,
                "reason": one.reason,
                "seconds_of_all": seconds,
            }


def _draw(data: sets.Split, classes: NDArray[Any], seed: int) -> NDArray[np.float32]:
    """K random training sequences of each class (C, K, T, O), standardised globally."""
    rng = np.random.default_rng(seed)
    own = [np.flatnonzero(data.y_train == label) for label in classes]
    K = min(_K, *map(len, own))
    chosen = [data.X_train[rng.choice(rows, K, replace=False)] for rows in own]
    mean, sd = np.nanmean(data.X_train), np.nanstd(data.X_train)
    return ((np.stack(chosen) - mean) / sd).astype(np.float32)


def _train(
    types: NDArray[np.float32], training: Training, execution: Execution
) -> tuple[list[Any], float]:
    """Reports of modules and the seconds of all."""
    begin = time.perf_counter()
    _, reports = train_until_learned(
        types,
        training,
        hidden_size=_H,
        seed_of=lambda m, attempt: 1000 * attempt + m,
        device="cpu",
        execution=execution,
    )
    return reports, time.perf_counter() - begin


# -- sums of sinusoids ---------------------------------------------------------------------------


def sums_of_sinusoids(
    n_modules: int, n_steps: int, n_sinusoids: int, seed: int
) -> NDArray[np.float32]:
    """Types (M, K, T, 1): each module's have the same frequencies, other amplitudes and phases."""
    rng = np.random.default_rng([seed, n_steps, n_sinusoids])
    highest = min(n_steps / 4, 3 * n_sinusoids + 2)
    frequencies = rng.uniform(0.5, highest, (n_modules, 1, 1, n_sinusoids))
    phases = rng.uniform(0, 2 * np.pi, (n_modules, _K, 1, n_sinusoids))
    amplitudes = rng.uniform(0.3, 1, phases.shape)
    t = np.arange(n_steps)[:, None] / n_steps
    waves = amplitudes * np.cos(2 * np.pi * frequencies * t + phases)
    types = waves.sum(axis=-1)
    return (types / types.std(axis=(1, 2), keepdims=True))[..., None].astype(np.float32)


def measure_sinusoids(n_threads: int, quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Rows of the suite "sinusoids": one for each length, number of sinusoids and way."""
    execution, M = Execution(n_threads=n_threads), 2 if quick else 4
    numbers = (1, 2) if quick else _SINUSOIDS
    rows: list[Row] = []
    for n_steps in (20,) if quick else _STEPS:
        types = np.concatenate([sums_of_sinusoids(M, n_steps, n, 0) for n in numbers])
        for way, training in _SYNTHETIC.items():
            say(f"sinusoids: T = {n_steps}, {way}")
            reports, seconds = _train(types, short(training, quick), execution)
            for i, n in enumerate(numbers):
                found = reports[i * M : (i + 1) * M]
                row = {
                    "T": n_steps,
                    "sinusoids": n,
                    "way": way,
                    "modules": M,
                    "learned": sum(one.learned for one in found),
                    "relative_errors": [one.relative_mse for one in found],
                    "seconds_of_all": seconds,
                }
                rows.append(row)
    return rows


# -- tables --------------------------------------------------------------------------------------


def write_csv(rows: list[Row], path: Path) -> None:
    """Every module of the first table with its draw, seeds and error."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            seeds = " ".join(map(str, row["seeds"]))
            steps = " ".join(f"{name}={n}" for name, n in row["steps"].items())
            writer.writerow(row | {"seeds": seeds, "steps": steps})


def learning_table(rows: list[Row]) -> list[str]:
    """Each set and way in a row, in Markdown."""
    lines = [
        f"Learned: relative error at most 0.1, K = {_K} random training sequences of a class "
        f"(PigCVP: 2), H = {_H}, four attempts (paper's training of more than {_LONG} steps: one). "
        "Every module with its draw and seeds: `learning.csv`. Seconds are rough: what is learned "
        "does not depend on the machine's load; see `fits` for times.",
        "",
        "| set | way | learned | at the first attempt | attempts | relative error, median "
        "| 95 % | seconds of all |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["way"]), []).append(row)
    for (name, way), own in groups.items():
        errors = np.nan_to_num([row["relative_error"] for row in own], nan=np.inf)
        first = sum(row["learned"] and row["attempts"] == 1 for row in own)
        lines.append(
            f"| {name} | {way} | {sum(row['learned'] for row in own)}/{len(own)} | {first} "
            f"| {sum(row['attempts'] for row in own)} | {np.median(errors):.4f} "
            f"| {np.quantile(errors, 0.95, method='lower'):.3f} | {own[0]['seconds_of_all']:.2f} |"
        )
    return lines


def sinusoids_table(rows: list[Row]) -> list[str]:
    """Learned modules by length, way and number of sinusoids, in Markdown."""
    lines = [f"Modules that learned (relative error at most 0.1; K = {_K}, H = {_H}, one attempt), "
             "by the number of sinusoids in a type.", ""]  # fmt: skip
    numbers = sorted({row["sinusoids"] for row in rows})
    lines.append(f"| T | way | {' | '.join(map(str, numbers))} |")
    lines.append(f"| ---: | --- |{' ---: |' * len(numbers)}")
    by_way: dict[tuple[int, str], dict[int, Row]] = {}
    for row in rows:
        by_way.setdefault((row["T"], row["way"]), {})[row["sinusoids"]] = row
    for (T, way), own in by_way.items():
        cells = [f"{own[n]['learned']}/{own[n]['modules']}" for n in numbers]
        lines.append(f"| {T} | {way} | {' | '.join(cells)} |")
    return lines


def plot_sinusoids(rows: list[Row]) -> Any:
    """Where each method stops: the share of modules learned, by length and number of sinusoids."""
    from matplotlib.figure import Figure

    ways = list(dict.fromkeys(row["way"] for row in rows))
    numbers, lengths = (sorted({row[key] for row in rows}) for key in ("sinusoids", "T"))
    figure = Figure(figsize=(2.4 * len(ways) + 0.6, 2.6), layout="constrained")
    panels = figure.subplots(1, len(ways), sharey=True, squeeze=False)[0]
    for ax, way in zip(panels, ways, strict=True):
        share = np.full((len(lengths), len(numbers)), np.nan)
        for row in rows:
            if row["way"] == way:
                place = lengths.index(row["T"]), numbers.index(row["sinusoids"])
                share[place] = row["learned"] / row["modules"]
        image = ax.imshow(share, vmin=0, vmax=1, cmap="Blues", origin="lower", aspect="auto")
        ax.set_xticks(range(len(numbers)), numbers)
        ax.set_yticks(range(len(lengths)), lengths)
        ax.set(title=way, xlabel="sinusoids in a type")
    panels[0].set_ylabel("T")
    figure.colorbar(image, ax=panels, label="share of modules learned")
    return figure
