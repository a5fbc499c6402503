"""How often is the answer right, and how sure is it? Few examples, noise, shifts and gaps.

``python -m bench.studies.answers --seeds 10 --out answers/`` draws 1, 2, 4, 8 or all examples of
each class of each development set, and gives the same draws to micfast (the plain search, views
and pose, the hull of the examples in the same views, and both), to nearest neighbours with the
Euclidean distance and with dynamic time warping (its window by leaving one out), to a forward
LSTM, to $P, and to MiniRocket, QUANT and Catch22 where aeon is installed. Test sequences come as
they are, with noise, shifted, and with a stretch missing. Every (data set, examples, seed, method)
is one file, so a run that was killed continues. The sets held back for the end are asked for by
``--final``.

The folder gets ``answers.csv``, a row for each file; ``answers.md``, the tables; and
``reliability.png``, how often answers of a given probability are right. Times are those of one
thread's processor.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bench import sets
from bench.studies.dollar import cloud, cloud_distances
from bench.studies.study import PLAIN, markdown, resume, with_interval
from micfast import ModularInverseClassifier, Sequences, Training
from micfast.classify.judging import weigh
from micfast.experiments.paper.baselines import TorchForward
from micfast.experiments.paper.statistics import mean_interval
from micfast.io import write_text
from micfast.sequences import ends

__all__ = [
    "CONDITIONS",
    "DEVELOPMENT",
    "METHODS",
    "Draw",
    "Fitted",
    "condition_name",
    "disturbed",
    "draw",
    "main",
    "measure",
]

DEVELOPMENT = ("letters", "MNIST", "digits", "GunPoint", "BasicMotions", "JapaneseVowels")
FINAL = ("Coffee", "Trace", "watch")
CONDITIONS = (("clean", 0.0), ("noise", 0.2), ("noise", 0.5), ("shift", 0.05), ("missing", 0.3))
# Under which probabilities are held against what was right.
JUDGED = ("clean", "noise 0.5")
N_TEST = 200
N_BATCHES = 300  # of the forward LSTM
Floats = NDArray[Any]


class Draw(NamedTuple):
    """Examples and test sequences (n, T, C), NaN after the end of shorter ones, with labels."""

    X: Floats
    y: NDArray[Any]
    X_test: Floats
    y_test: NDArray[Any]


def draw(name: str, seed: int, n_examples: int | None, n_test: int = N_TEST) -> Draw:
    """Random examples of each class (None: all), and at most `n_test` test sequences."""
    data = sets.load(name, seed)
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in np.unique(data.y_train):
        own = rng.permutation(np.flatnonzero(data.y_train == label))
        chosen += own[:n_examples].tolist()
    kept = rng.permutation(len(data.y_test))[:n_test]
    both = [*data.X_train[chosen], *data.X_test[kept]]
    padded = Sequences.read(both, name=name).padded()
    n = len(chosen)
    return Draw(padded[:n], data.y_train[chosen], padded[n:], data.y_test[kept])


def condition_name(kind: str, level: float) -> str:
    """Name a condition, as the columns of the results do."""
    return f"{kind} {level:g}" if level else kind


def disturbed(X: Floats, kind: str, level: float, scale: float, seed: int) -> Floats:
    """Sequences with noise (in standard deviations), shifted or with a stretch missing (of T)."""
    rng, X = np.random.default_rng(seed), X.astype(np.float64)
    if kind == "noise":
        return X + level * scale * rng.standard_normal(X.shape)
    for one, end in zip(X, ends(X), strict=True):
        steps = max(1, round(level * end))
        if kind == "shift":
            late = steps * rng.choice([-1, 1])
            one[:end] = one[np.clip(np.arange(end) - late, 0, end - 1)]
        elif kind == "missing":
            first = rng.integers(1, max(2, end - steps))
            one[first : first + steps] = np.nan
    return X


def filled(X: Floats, shortest: int = 1) -> Floats:
    """For methods that take neither gaps nor unequal lengths: interpolated, and stretched to T."""
    T = max(X.shape[1], shortest)
    filled = np.empty((len(X), T, X.shape[2]))
    for one, end, out in zip(X, ends(X), filled, strict=True):
        at = np.linspace(0, end - 1, T)
        for c in range(X.shape[2]):
            known = np.flatnonzero(~np.isnan(one[:end, c]))
            out[:, c] = np.interp(at, known, one[known, c]) if len(known) else 0
    return filled


# -- methods ---------------------------------------------------------------------------------------

# Labels and probabilities (or None) for sequences.
Answer = Callable[[Floats], tuple[NDArray[Any], NDArray[Any] | None]]


class Fitted(NamedTuple):
    """What a method keeps of a draw, how it answers, and what was decided in the fit."""

    model: Any
    answer: Answer
    decided: dict[str, Any] | None = None

    def kilobytes(self) -> float:
        """Of the model's file, or of its pickle where it has none of its own."""
        if not hasattr(self.model, "save"):
            return len(pickle.dumps(self.model)) / 1000
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.safetensors"
            self.model.save(file)
            return file.stat().st_size / 1000


def _micfast(data: Draw, seed: int, **params: Any) -> Fitted:
    model = ModularInverseClassifier(random_state=seed, nan_policy="omit", n_jobs=1, **params)
    model.fit(data.X, data.y)

    def answer(X: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
        decision = model.decide(X)
        return decision.labels, decision.probabilities

    decided: dict[str, Any] = {"n_types": model.n_types_, "hidden_size": model.hidden_size_}
    if model.expectation_ is not None:
        decided["expected accuracy"] = model.expectation_.accuracy
    return Fitted(model, answer, decided)


def _hull(data: Draw, seed: int, **params: Any) -> Fitted:
    """The hulls of the types alone: what is left if no module is asked."""
    model = ModularInverseClassifier(
        random_state=seed, nan_policy="omit", n_jobs=1, n_modules_per_class=1, **params
    ).fit(data.X, data.y)
    panel, units = model.panel, model.standardizer_
    assert panel is not None
    assert units is not None
    types = np.stack([units.transform(one) for one in model.types_]).astype(np.float64)
    # As `fit` weighs all experts, where all examples are types; then nobody is asked.
    silent = replace(panel, views=replace(panel.views, n_drawn=0))
    nobody: Any = None
    experts, _ = weigh(silent, types, model.classes_.tolist(), types, nobody, model.entropy_)

    def answer(X: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
        found = model.decide(X).view_errors
        logs = experts.logs(np.stack([found[name] for name in experts.names]))
        scores = -np.einsum("e,enc->nc", experts.taus, logs)
        share = np.exp(scores - scores.max(axis=1, keepdims=True))
        return model.classes_[scores.argmax(axis=1)], share / share.sum(axis=1, keepdims=True)

    return Fitted(model, answer)


def _nearest(data: Draw, seed: int) -> Fitted:
    X = filled(data.X).reshape(len(data.X), -1).astype(np.float32)

    def answer(X_new: Floats) -> tuple[NDArray[Any], None]:
        from scipy.spatial.distance import cdist

        flat = filled(X_new).reshape(len(X_new), -1)
        return data.y[cdist(flat, X).argmin(axis=1)], None

    return Fitted((X, data.y), answer)


def _dtw(data: Draw, seed: int) -> Fitted:
    from tslearn.metrics import cdist_dtw

    X = filled(data.X).astype(np.float32)
    radii = sorted({max(1, round(part * X.shape[1])) for part in (0.02, 0.05, 0.1, 0.2, 1.0)})

    def left_out(radius: int) -> float:
        distances = cdist_dtw(X, sakoe_chiba_radius=radius)
        np.fill_diagonal(distances, np.inf)
        return float((data.y[distances.argmin(axis=1)] == data.y).mean())

    best = max(radii, key=left_out) if len(X) <= 200 else radii[1]

    def answer(X_new: Floats) -> tuple[NDArray[Any], None]:
        distances = cdist_dtw(filled(X_new), X, sakoe_chiba_radius=best)
        return data.y[distances.argmin(axis=1)], None

    return Fitted((X, data.y, best), answer)


def _lstm(data: Draw, seed: int) -> Fitted:
    """64 units, and a linear layer for their last state; cross-entropy, 300 batches, Adam."""
    from torch.nn import functional, utils

    X = filled(data.X)
    mean, sd, classes = X.mean(), X.std(), np.unique(data.y)
    inputs, codes = torch.tensor((X - mean) / sd), torch.tensor(np.searchsorted(classes, data.y))
    model, rng = TorchForward(X.shape[2], len(classes), 64, seed), np.random.default_rng(seed)
    weights = [*model.lstm.parameters(), *model.dense.parameters()]
    adam = torch.optim.Adam(weights, lr=0.01)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, N_BATCHES)
    for _ in range(N_BATCHES):
        batch = rng.choice(len(X), min(32, len(X)), replace=False)
        adam.zero_grad()
        functional.cross_entropy(model.logits(inputs[batch].float()), codes[batch]).backward()
        utils.clip_grad_norm_(weights, 1.0)
        adam.step()
        falling.step()

    @torch.no_grad()
    def answer(X_new: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
        logits = model.logits(torch.tensor((filled(X_new) - mean) / sd).float())
        proba = logits.softmax(dim=1).numpy()
        return classes[proba.argmax(axis=1)], proba

    return Fitted([one.detach().numpy() for one in weights], answer)


def _aeon(data: Draw, seed: int, *, module: str, name: str) -> Fitted:
    from importlib import import_module

    model = getattr(import_module(f"aeon.classification.{module}"), name)(random_state=seed)
    # MiniRocket's kernels are nine steps long.
    model.fit(filled(data.X, 9).swapaxes(1, 2), data.y)

    def answer(X: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
        proba = model.predict_proba(filled(X, 9).swapaxes(1, 2))
        return model.classes_[proba.argmax(axis=1)], proba

    return Fitted(model, answer)


def _dollar(data: Draw, seed: int) -> Fitted:
    if data.X.shape[2] != 2:
        raise NotImplementedError("takes pen strokes only")
    known = np.stack([cloud(one) for one in filled(data.X)])

    def answer(X: Floats) -> tuple[NDArray[Any], None]:
        nearest = [cloud_distances(cloud(one), known).argmin() for one in filled(X)]
        return data.y[nearest], None

    return Fitted((known.astype(np.float32), data.y), answer)


_ENERGY = ("raw", "difference", "energy")
_ONE: dict[str, Any] = {"views": "raw", "pose": None, "hull": False, "n_modules_per_class": 1}
_PANEL: dict[str, Any] = _ONE | {"views": _ENERGY, "pose": "auto"}
METHODS: dict[str, Callable[[Draw, int], Fitted]] = {
    "plain": partial(_micfast, **PLAIN),
    "default": _micfast,
    "plain with the paper's training": partial(_micfast, **PLAIN, training=Training.paper()),
    "two views": partial(_micfast, hull=True),
    "one module": partial(_micfast, **_ONE),
    "types auto": partial(_micfast, **PLAIN, n_types="auto"),
    "types and units auto": partial(_micfast, **PLAIN, n_types="auto", hidden_size="auto"),
    "pose": partial(_micfast, **_ONE | {"pose": "auto"}),
    "pose + hull": partial(_micfast, **_ONE | {"pose": "auto", "hull": True}),
    "three modules, pose": partial(_micfast, **PLAIN | {"pose": "auto"}),
    "views": partial(_micfast, **_ONE | {"views": _ENERGY}),
    "views + pose": partial(_micfast, **_PANEL),
    "views + pose + hull": partial(_micfast, **_PANEL | {"hull": True}),
    "hull": partial(_hull, views="raw", pose=None, hull=True),
    "hull + views + pose": partial(_hull, views=_ENERGY, hull=True),
    "default without modules": _hull,
    "1-NN": _nearest,
    "DTW": _dtw,
    "MiniRocket": partial(_aeon, module="convolution_based", name="MiniRocketClassifier"),
    "QUANT": partial(_aeon, module="interval_based", name="QUANTClassifier"),
    "Catch22": partial(_aeon, module="feature_based", name="Catch22Classifier"),
    "forward LSTM": _lstm,
    "$P": _dollar,
}


def measure(
    name: str,
    n_examples: int | None,
    seed: int,
    method: str,
    n_test: int = N_TEST,
    conditions: Iterable[tuple[str, float]] = CONDITIONS,
) -> dict[str, Any]:
    """Accuracy, log loss, CPU time and size of one method on one draw; or why it was skipped."""
    data = draw(name, seed, n_examples, n_test)
    scale = float(np.nanstd(data.X))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            begin = time.process_time()
            fitted = METHODS[method](data, seed)
            fit_seconds = time.process_time() - begin
        except (ImportError, NotImplementedError) as error:
            return {"skipped": str(error)}
        result: dict[str, Any] = {
            "fit_seconds": fit_seconds,
            "kilobytes": fitted.kilobytes(),
            **(fitted.decided or {}),
        }
        classes, rows = np.unique(data.y), np.arange(len(data.y_test))
        for kind, level in conditions:
            X = disturbed(data.X_test, kind, level, scale, seed)
            begin = time.process_time()
            labels, proba = fitted.answer(X)
            seconds = time.process_time() - begin
            key = condition_name(kind, level)
            right = labels == data.y_test
            result[key] = float(right.mean())
            if kind == "clean":
                result["milliseconds"] = 1000 * seconds / len(X)
            if proba is not None:
                true = proba[rows, np.searchsorted(classes, data.y_test)]
                result[f"log loss, {key}"] = float(-np.log(np.maximum(true, 1e-12)).mean())
                if key in JUDGED:
                    surest = proba.max(axis=1).round(3)
                    judged = {"right": right.tolist(), "probability": surest.tolist()}
                    result[f"judged, {key}"] = judged
    return result


# -- all of them -----------------------------------------------------------------------------------


def _table(frame: pd.DataFrame, n_examples: str, base: str) -> str:
    """Accuracy of each method under each condition, by set and in the mean, and paired gains."""
    parts = []
    part = frame[frame["examples"] == n_examples]
    conditions = [condition_name(*condition) for condition in CONDITIONS]
    for data in [*part["data"].unique(), "mean of sets"]:
        own = part if data == "mean of sets" else part[part["data"] == data]
        by_seed = own.groupby(["method", "seed"], sort=False)[[*conditions, *_COSTS]].mean()
        costs = by_seed[_COSTS].groupby("method", sort=False).mean()
        rows = []
        for method in by_seed.index.get_level_values(0).unique():
            values = by_seed.loc[method]
            gains = (values - by_seed.loc[base]).dropna(subset=["clean"])
            cells = [with_interval(mean_interval(values[c]), ".3f", 0, 1) for c in conditions]
            if method != base:
                cells += [with_interval(mean_interval(gains[c]), "+.3f") for c in JUDGED]
            else:
                cells += [""] * len(JUDGED)
            log_loss, seconds, milliseconds = costs.loc[method]
            cells.append("" if np.isnan(log_loss) else f"{log_loss:.2f}")
            rows.append([method, *cells, f"{seconds:.1f}", f"{milliseconds:.2f}"])
        head = ["method", *conditions, *(f"{c}, against {base}" for c in JUDGED)]
        head += ["log loss", "fit, s", "decision, ms"]
        parts.append(f"### {data}, {n_examples} examples a class\n\n{markdown(head, rows)}")
    return "\n".join(parts)


_COSTS = ["log loss, clean", "fit_seconds", "milliseconds"]


def picture(frame: pd.DataFrame, file: Path) -> None:
    """How often answers of about equal probability are right; all sets and seeds together."""
    from matplotlib.figure import Figure
    from sklearn.calibration import CalibrationDisplay

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, condition in zip(figure.subplots(1, len(JUDGED)), JUDGED, strict=True):
        key = f"judged, {condition}"
        known = frame.dropna(subset=[key]) if key in frame else frame[:0]
        for method, part in known.groupby("method", sort=False):
            right, probability = (
                np.concatenate([one[field] for one in part[key]])
                for field in ("right", "probability")
            )
            CalibrationDisplay.from_predictions(
                right, probability, n_bins=8, strategy="quantile", name=str(method), ax=axes
            )
        axes.set(title=condition, xlabel="probability of the answer", ylabel="share that is right")
        if axes.get_legend() is not None:
            axes.get_legend().remove()
    # Beside both: there is no free corner.
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(file, dpi=110)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.answers", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", choices=(*DEVELOPMENT, *FINAL), action="append")
    parser.add_argument("--examples", default="4", help="among 1,2,4,8,all; default 4")
    parser.add_argument("--methods", default=",".join(METHODS), help="default: all")
    parser.add_argument("--final", action="store_true", help="the sets held back for the end")
    parser.add_argument("--n-test", type=int, default=N_TEST, help="test sequences, at most")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    methods = options.methods.split(",")
    if unknown := [method for method in methods if method not in METHODS]:
        parser.error(f"--methods: unknown {unknown}, there are {[*METHODS]}")
    numbers = [None if n == "all" else int(n) for n in options.examples.split(",")]
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    for seed in range(options.seeds):
        for data in options.data or (FINAL if options.final else DEVELOPMENT):
            for n in numbers:
                for method in methods:
                    name = f"{data}-{n or 'all'}-{seed:04d}-{method}.json".replace(" ", "_")
                    unit = resume(
                        options.out / name,
                        partial(measure, data, n, seed, method, options.n_test),
                    )
                    if "skipped" in unit:
                        skipped[method] = unit["skipped"]
                        continue
                    key = {
                        "data": data,
                        "examples": str(n or "all"),
                        "seed": seed,
                        "method": method,
                    }
                    rows.append(key | unit)
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=frame.columns.union(_COSTS, sort=False))
    base = "plain" if "plain" in methods else methods[0]
    text = "\n".join(_table(frame, str(n or "all"), base) for n in numbers)
    text += "".join(f"\nSkipped: {method}: {reason}\n" for method, reason in skipped.items())
    picture(frame, options.out / "reliability.png")
    judged = [column for column in frame if column.startswith("judged")]
    table = frame.drop(columns=judged).to_csv(index=False, float_format="%.4g")
    write_text(options.out / "answers.csv", table)
    write_text(options.out / "answers.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
