"""Better than the paper? Solvers, starts, several modules per class and other decisions, compared.

``python -m bench.studies.better --seeds 10 --out better/`` trains modules on clustered and on
random types of both data sets, classifies the test part in many ways, and writes every one of them
to a table, including those that do not help. What a row needs to be chosen (noise, decision) is
chosen on training sequences alone. Every (data set, subset, seed) is one file, so a run that was
killed continues where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.studies.study import comparable, make_parser, markdown, resume, with_interval
from micfast import Adam, Execution, GeneratorBank, LevenbergMarquardt, Training, invert, train
from micfast.classify.distances.dtw import warped_distances
from micfast.experiments.paper.baselines import nearest_neighbour
from micfast.experiments.paper.settings import DATA_SETS, N_TYPES, SUBSETS, DataSpec, derive_seed
from micfast.experiments.paper.statistics import mean_interval
from micfast.io import write_text
from micfast.training.types import select_types_per_class

__all__ = ["compare", "format_comparison", "main", "summarise"]

Errors = NDArray[np.float64]
Codes = NDArray[np.int64]

NOISE_IN = (0.0, 0.1, 0.2)
N_MODULES = 3
# Training sequences of each class on which settings are chosen.
N_VALIDATION = 20
LM_STEPS = 8
# The row whose noise and decision are those that did best on the validation sequences.
CHOSEN = "chosen on training sequences"


def compare(spec: DataSpec, subset: str, seed: int, n_threads: int | None = None) -> dict[str, Any]:
    """Train once and decide in every way.

    Parameters
    ----------
    spec : DataSpec
    subset : {"clustered", "random"}
    seed : int
        Of the split, the types and the modules.
    n_threads : int, optional
        Default ``torch.get_num_threads()``; results do not depend on it.

    Returns
    -------
    dict
        ``rows``: per row its name, accuracy on the test part and on the validation sequences, mean
        error of the true class on the test part, and the area under the curve by which sequences of
        a class held out are told from those of the others.
    """
    data = spec.load(seed, spec.n_test)
    types, classes, infos = select_types_per_class(
        data.X_train,
        data.y_train,
        N_TYPES,
        selection=spec.clustering if subset == "clustered" else "random",
        random_state=derive_seed(seed, spec.name, subset, "types"),
        n_jobs=n_threads or -1,
    )
    used = [np.asarray(info.index) for info in infos]
    X_val, y_val = _validation(data.X_train, data.y_train, classes, used, seed)
    parts = {
        "test": (data.X_test, np.searchsorted(classes, data.y_test)),
        "validation": (X_val, np.searchsorted(classes, y_val)),
    }
    execution = Execution(n_threads=n_threads)
    banks = _train(spec, subset, seed, types.astype(np.float32), classes, execution)
    rows: list[dict[str, Any]] = []

    labelled = types.reshape(-1, *types.shape[2:]), np.repeat(classes, N_TYPES)
    for metric in ("euclidean", "dtw"):
        accuracy = {
            name: float((nearest_neighbour(*labelled, X, metric=metric) == classes[codes]).mean())
            for name, (X, codes) in parts.items()
        }
        rows.append({"row": f"1-NN {metric}, same types"} | accuracy)

    errors = {name: dict(_all_errors(banks, X, execution)) for name, (X, _) in parts.items()}
    codes, codes_val = parts["test"][1], parts["validation"][1]
    for row, of_test in errors["test"].items():
        of_val = errors["validation"][row]
        rows.append(
            {
                "row": row,
                "test": _accuracy(of_test, codes),
                "validation": _accuracy(of_val, codes_val),
                "mse": float(of_test[np.arange(len(codes)), codes].mean()),
                "auroc": _open_set(of_test, codes, of_val, codes_val),
            }
        )
    candidates = [row for row in rows if row["row"].startswith("LM")]
    best = max(candidates, key=lambda row: row["validation"])
    rows.append(best | {"row": CHOSEN, "choice": best["row"]})
    return {"data": spec.name, "subset": subset, "seed": seed, "rows": rows}


def _validation(
    X: NDArray[Any], y: NDArray[Any], classes: NDArray[Any], used: list[Codes], seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Up to 20 training sequences of each class that are not themselves types."""
    chosen = []
    for label, index in zip(classes, used, strict=True):
        members = np.flatnonzero(y == label)
        members = np.delete(members, index[index >= 0])
        rng = np.random.default_rng(derive_seed(seed, "validation", str(label)))
        chosen.append(rng.permutation(members)[:N_VALIDATION])
    index = np.concatenate(chosen)
    return X[index], y[index]


def _train(
    spec: DataSpec,
    subset: str,
    seed: int,
    types: NDArray[np.float32],
    classes: NDArray[Any],
    execution: Execution,
) -> dict[float, list[GeneratorBank]]:
    """Modules by noise level: as many banks of all classes as there are modules per class."""
    C, K, _, O = types.shape
    seeds = [
        derive_seed(seed, spec.name, subset, "better", noise, r, str(label))
        for noise in NOISE_IN
        for r in range(N_MODULES)
        for label in classes
    ]
    start = GeneratorBank.random(
        len(seeds), hidden_size=spec.hidden_size, input_size=K, output_size=O, seeds=seeds
    )
    training = Training.paper(
        n_episodes=spec.n_episodes, noise_in=tuple(np.repeat(NOISE_IN, N_MODULES * C).tolist())
    )
    fleet = np.tile(types, (len(NOISE_IN) * N_MODULES, 1, 1, 1))
    bank = train(start, fleet, training, seeds=seeds, execution=execution).bank
    parts = [bank.select(indices=range(i, i + C)) for i in range(0, len(seeds), C)]
    return {noise: parts[i * N_MODULES : (i + 1) * N_MODULES] for i, noise in enumerate(NOISE_IN)}


def _all_errors(
    banks: dict[float, list[GeneratorBank]], X: NDArray[Any], execution: Execution
) -> Iterator[tuple[str, Errors]]:
    """Errors (N, C) of every row."""
    lm = f"LM {LM_STEPS}"
    uniform, nearest = (LevenbergMarquardt(LM_STEPS, start=s) for s in ("uniform", "nearest"))

    def search(bank: GeneratorBank, solver: Any) -> Any:
        return invert(bank, X, solver=solver, execution=execution)

    for noise, members in banks.items():
        name = f"nearest start, noise {noise:g}"
        several = f"{lm}, {name}, {N_MODULES} modules per class"
        adam = search(members[0], Adam()).errors
        yield f"Adam 50, uniform start (the paper's), noise {noise:g}", comparable(adam)
        errors = search(members[0], uniform).errors
        yield f"{lm}, uniform start, noise {noise:g}", comparable(errors)
        inversions = [search(bank, nearest) for bank in members]
        own = [comparable(inversion.errors) for inversion in inversions]
        mean = np.mean(own, axis=0)
        yield f"{lm}, {name}", own[0]
        yield several, mean
        corners = Adam(n_iter=0, start="types")
        at_types = np.mean([comparable(search(bank, corners).errors) for bank in members], axis=0)
        yield f"nearest drawn type, noise {noise:g}, {N_MODULES} modules per class", at_types
        yield f"{several}, mean with nearest drawn type", (mean + at_types) / 2
        if noise == NOISE_IN[1]:
            warped = [
                comparable(warped_distances(X, i.reconstructions("all"), execution.n_threads or 1))
                for i in inversions
            ]
            yield f"{several}, DTW decides", np.mean(warped, axis=0)


def _accuracy(errors: Errors, codes: Codes) -> float:
    return float((errors.argmin(axis=1) == codes).mean())


def _open_set(errors: Errors, codes: Codes, of_val: Errors, codes_val: Codes) -> float:
    """Mean area under the curve, each class held out in turn.

    A sequence's score is its lowest error among the other classes' modules, each in units of the
    90 % quantile of its errors on its own validation sequences.
    """
    from sklearn.metrics import roc_auc_score

    n_classes = errors.shape[1]
    limits = np.array([np.quantile(of_val[codes_val == c, c], 0.9) for c in range(n_classes)])
    scores = errors / limits
    areas = []
    for c in range(n_classes):
        others = np.delete(scores, c, axis=1).min(axis=1)
        areas.append(roc_auc_score(codes == c, others))
    return float(np.mean(areas))


def summarise(units: list[dict[str, Any]]) -> pd.DataFrame:
    """Mean and 95 % interval over seeds of every row.

    Parameters
    ----------
    units : list of dict
        As :func:`compare` returns them.

    Returns
    -------
    pandas.DataFrame
        Columns data, subset, row, seeds; test, mse, auroc and each of them with _low and _high;
        in the order in which they were computed.
    """
    rows = [
        {"data": unit["data"], "subset": unit["subset"], **row}
        for unit in units
        for row in unit["rows"]
    ]
    lines = []
    for keys, group in pd.DataFrame(rows).groupby(["data", "subset", "row"], sort=False):
        line = dict(zip(("data", "subset", "row"), keys, strict=True)) | {"seeds": len(group)}
        for key in ("test", "mse", "auroc"):
            values = group[key].dropna()
            if len(values):
                line[key], line[f"{key}_low"], line[f"{key}_high"], _ = mean_interval(values)
        lines.append(line)
    return pd.DataFrame(lines)


def format_comparison(frame: pd.DataFrame) -> str:
    """What :func:`summarise` returned as Markdown: one table per data set and subset."""
    head = ("decision", "test accuracy", "MSE of the true class", "AUROC of a class held out")
    forms = {"test": ".3f", "mse": ".4f", "auroc": ".3f"}
    parts = []
    for (data, subset), group in frame.groupby(["data", "subset"], sort=False):
        rows = [
            [row["row"], *(with_interval(_interval(row, key), form) for key, form in forms.items())]
            for _, row in group.iterrows()
        ]
        title = f"### {data}, {subset} types ({group['seeds'].max()} seeds)"
        parts.append(f"{title}\n\n{markdown(head, rows)}")
    return "\n".join(parts)


def _interval(row: Any, key: str) -> Any:
    from micfast.experiments.paper.statistics import Interval

    return Interval(row[key], row[f"{key}_low"], row[f"{key}_high"], row["seeds"])


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = make_parser("better", __doc__, seeds=10).parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    units = []
    for seed in range(options.seeds):
        for data in options.data or DATA_SETS:
            for subset in SUBSETS:
                make = partial(compare, DATA_SETS[data], subset, seed, options.threads)
                units.append(resume(options.out / f"{data}-{subset}-{seed:04d}.json", make))
    frame = summarise(units)
    write_text(options.out / "better.csv", frame.to_csv(index=False))
    write_text(options.out / "better.md", format_comparison(frame))
    print(format_comparison(frame))
    return 0


if __name__ == "__main__":
    sys.exit(main())
