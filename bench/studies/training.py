"""Is the default training at least as accurate as another? Paired over seeds, on seven data sets.

``python -m bench.studies.training --seeds 10 --out training/`` fits the plain search with
each way of training on each development set (:mod:`bench.sets`) and writes accuracies, their paired
differences to the paper's training (the default until 0.1) with 95 % intervals, how many modules
learned, and the seconds of each fit. A seed is that of the estimator, and of the split where the
set has none of its own. Every (data set, seed, way) is one file, so a run that was killed
continues where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from bench import sets
from bench.studies.study import PLAIN, markdown, resume, with_interval
from micfast import ModularInverseClassifier, Training
from micfast.experiments.paper.statistics import mean_interval
from micfast.io import write_text
from micfast.training.initializations.matched import Matched
from micfast.training.methods.projected import ProjectedAdam

__all__ = ["WAYS", "fit_and_score", "main"]

# The first is the one that the others are compared with.
WAYS: dict[str, Training] = {
    "paper": Training.paper(),
    "default": Training(),
    "default, no noise": Training(noise_in=0.0),
    "projected": Training(method="projected", noise_in=0.2),
    "projected, 250 steps": Training(method=ProjectedAdam(250), noise_in=0.2),
    "projected, noise 0.1": Training(method="projected", noise_in=0.1),
    "projected, no noise": Training(method="projected", noise_in=0.0),
    "projected, amplitude 0.2": Training(
        method="projected", noise_in=0.2, initialization=Matched(0.2)
    ),
    "projected, chrono": Training(method="projected", initialization="chrono", noise_in=0.2),
}
N_TEST = 200


def fit_and_score(name: str, seed: int, way: str) -> dict[str, Any]:
    """Fit the plain search with one way of training; its accuracy on the test part."""
    data = sets.load(name, seed)
    kept = np.random.default_rng(seed).permutation(len(data.y_test))[:N_TEST]
    model = ModularInverseClassifier(training=WAYS[way], random_state=seed, **PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        begin = time.perf_counter()
        model.fit(data.X_train, data.y_train)
    seconds = time.perf_counter() - begin
    reports = model.training_report_
    return {
        "accuracy": float((model.predict(data.X_test[kept]) == data.y_test[kept]).mean()),
        "seconds": seconds,
        "training_seconds": max(one["seconds"] for one in reports),
        "learned": sum(one["learned"] for one in reports),
        "modules": len(reports),
        "attempts": sum(one["attempts"] for one in reports),
        "relative_mse": float(np.median([one["relative_mse"] for one in reports])),
    }


def _table(found: dict[str, dict[str, list[dict[str, Any]]]], ways: list[str]) -> str:
    """Of each set and way: accuracy, difference to the first way, learned, seconds of the fit."""
    rows = []
    for name, by_way in found.items():
        base = np.array([one["accuracy"] for one in by_way[ways[0]]])
        for way in ways:
            runs = by_way[way]
            accuracy = np.array([one["accuracy"] for one in runs])
            gain = "" if way == ways[0] else with_interval(mean_interval(accuracy - base), "+.3f")
            learned = [sum(one[key] for one in runs) for key in ("learned", "modules", "attempts")]
            rows.append(
                (
                    f"{name}, {way}",
                    with_interval(mean_interval(accuracy), ".3f", 0, 1),
                    gain,
                    f"{learned[0]}/{learned[1]}",
                    f"{learned[2] / learned[1]:.2f}",
                    f"{np.median([one['relative_mse'] for one in runs]):.4f}",
                    f"{np.median([one['seconds'] for one in runs]):.2f}",
                )
            )
    head = ("set, way", "accuracy", f"difference to {ways[0]}", "learned", "attempts",
            "relative error", "fit, s")  # fmt: skip
    return markdown(head, rows)


def _overall(found: dict[str, dict[str, list[dict[str, Any]]]], ways: list[str]) -> str:
    """The mean over the sets of the paired differences, with the interval over seeds."""
    rows = []
    for way in ways[1:]:
        gains = [
            [a["accuracy"] - b["accuracy"] for a, b in zip(by[way], by[ways[0]], strict=True)]
            for by in found.values()
        ]
        rows.append((way, with_interval(mean_interval(np.mean(gains, axis=0)), "+.4f")))
    return markdown(("way", f"mean difference to {ways[0]}"), rows)


def main(argv: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.training", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", choices=list(sets.SETS), action="append")
    parser.add_argument("--way", choices=list(WAYS), action="append", help="[default: all]")
    options = parser.parse_args(argv)
    (options.out / "raw").mkdir(parents=True, exist_ok=True)
    ways = [next(iter(WAYS)), *(way for way in options.way or WAYS if way != next(iter(WAYS)))]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in options.data or sets.SETS:
        if sets.load_or_say(name, partial(print, file=sys.stderr)) is None:
            continue
        found[name] = {
            way: [
                resume(
                    options.out
                    / "raw"
                    / f"{name}-{seed}-{way.replace(',', '').replace(' ', '-')}.json",
                    lambda name=name, seed=seed, way=way: fit_and_score(name, seed, way),
                )
                for seed in range(options.seeds)
            ]
            for way in ways
        }
    text = f"{_table(found, ways)}\n{_overall(found, ways)}"
    write_text(options.out / "training.md", text)
    print(text)


if __name__ == "__main__":
    main()
