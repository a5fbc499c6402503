"""Better than the paper? Solvers, starts, several modules per class and other decisions, compared.

``python -m micfast.experiments.better --seeds 10 --out better/`` trains modules on clustered and on
random types of both data sets, classifies the test part in many ways, and writes every one of them
to a table, also those that do not help. What a row needs to be chosen (noise, decision) is chosen
on training sequences alone. Every (data set, subset, seed) is one file, so that a run killed goes
on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from micfast._io import write_text
from micfast.experiments._study import make_parser, resume
from micfast.experiments.paper.settings import DATA_SETS, N_TYPES, SUBSETS, DataSpec, derive_seed

if TYPE_CHECKING:
    import pandas as pd

    from micfast.bank import GeneratorBank

__all__ = ["compare", "format_comparison", "main", "summarise"]

Errors = NDArray[np.float64]

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
        Default ``torch.get_num_threads()``; without influence on the result.

    Returns
    -------
    dict
        ``rows``: per row its name, accuracy on the test part and on the validation sequences, mean
        error of the true class on the test part, and the area under the curve by which sequences of
        a class held out are told from those of the others.
    """
    from micfast.experiments.paper.baselines import nearest_neighbour
    from micfast.types import select_types_per_class

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
    banks = _train(spec, subset, seed, types.astype(np.float32), classes, n_threads)
    rows: list[dict[str, Any]] = []

    labelled = types.reshape(-1, *types.shape[2:]), np.repeat(classes, N_TYPES)
    for metric in ("euclidean", "dtw"):
        accuracy = {
            name: float((nearest_neighbour(*labelled, X, metric=metric) == classes[codes]).mean())
            for name, (X, codes) in parts.items()
        }
        rows.append({"row": f"1-NN {metric}, same types"} | accuracy)

    errors = {name: dict(_all_errors(banks, X, n_threads)) for name, (X, _) in parts.items()}
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
    X: NDArray[Any],
    y: NDArray[Any],
    classes: NDArray[Any],
    used: list[NDArray[np.int64]],
    seed: int,
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
    n_threads: int | None,
) -> dict[float, list[GeneratorBank]]:
    """Modules by noise level: as many banks of all classes as there are modules per class."""
    import torch

    from micfast import ops
    from micfast.bank import GeneratorBank

    C, K, _, O = types.shape
    fleet = [(noise, r, c) for noise in NOISE_IN for r in range(N_MODULES) for c in range(C)]
    seeds = [
        derive_seed(seed, spec.name, subset, "better", noise, r, str(classes[c]))
        for noise, r, c in fleet
    ]
    start = GeneratorBank.random(
        len(fleet), hidden_size=spec.hidden_size, input_size=K, output_size=O, seeds=seeds
    )
    noise_in = torch.tensor([noise for noise, _, _ in fleet], dtype=torch.float64)
    trained = ops.train(
        *start.weights,
        torch.from_numpy(types),
        torch.tensor([c for _, _, c in fleet]),
        noise_in,
        torch.zeros_like(noise_in),
        torch.tensor(seeds),
        spec.n_episodes,
        n_threads=n_threads,
    )
    bank = GeneratorBank(*trained[:5])
    parts = [bank.select(indices=range(i, i + C)) for i in range(0, len(fleet), C)]
    return {noise: parts[i * N_MODULES : (i + 1) * N_MODULES] for i, noise in enumerate(NOISE_IN)}


def _all_errors(
    banks: dict[float, list[GeneratorBank]], X: NDArray[Any], n_threads: int | None
) -> Iterator[tuple[str, Errors]]:
    """Errors (N, C) of every row."""
    from micfast.decision import comparable, warped_distances
    from micfast.inversion import invert

    for noise, members in banks.items():
        first = members[0]
        run: dict[str, Any] = {"n_threads": n_threads}
        adam = comparable(invert(first, X, **run).errors)
        yield f"Adam 50, uniform start (the paper's), noise {noise:g}", adam
        uniform = invert(first, X, solver="lm", n_iter=LM_STEPS, **run).errors
        yield f"LM {LM_STEPS}, uniform start, noise {noise:g}", comparable(uniform)
        corners = [invert(bank, X, n_iter=0, init="types", **run).errors for bank in members]
        found = [
            invert(bank, X, solver="lm", init="nearest", n_iter=LM_STEPS, **run) for bank in members
        ]
        own = [comparable(result.errors) for result in found]
        name = f"nearest start, noise {noise:g}"
        yield f"LM {LM_STEPS}, {name}", own[0]
        mean = np.mean(own, axis=0)
        yield f"LM {LM_STEPS}, {name}, {N_MODULES} modules per class", mean
        at_types = np.mean([comparable(errors) for errors in corners], axis=0)
        yield f"nearest drawn type, noise {noise:g}, {N_MODULES} modules per class", at_types
        yield (
            f"LM {LM_STEPS}, {name}, {N_MODULES} modules per class, mean with nearest drawn type",
            (mean + at_types) / 2,
        )
        if noise == NOISE_IN[1]:
            warped = [
                warped_distances(X, result.reconstructions("all"), "dtw", n_threads or 1)
                for result in found
            ]
            yield (
                f"LM {LM_STEPS}, {name}, {N_MODULES} modules per class, DTW decides",
                np.mean([comparable(distances) for distances in warped], axis=0),
            )


def _accuracy(errors: Errors, codes: NDArray[np.int64]) -> float:
    return float((errors.argmin(axis=1) == codes).mean())


def _open_set(
    errors: Errors, codes: NDArray[np.int64], of_val: Errors, codes_val: NDArray[np.int64]
) -> float:
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
        One line per row, data set and subset, in the order in which they were computed.
    """
    import pandas as pd

    from micfast.experiments.paper.statistics import mean_interval

    table: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for unit in units:
        for row in unit["rows"]:
            table.setdefault((unit["data"], unit["subset"], row["row"]), []).append(row)
    lines = []
    for (data, subset, name), rows in table.items():
        line: dict[str, Any] = {"data": data, "subset": subset, "row": name, "seeds": len(rows)}
        for key in ("test", "mse", "auroc"):
            values = [row[key] for row in rows if key in row]
            if values:
                line[key] = float(np.mean(values))
                if len(values) > 1:
                    interval = mean_interval(values)
                    line[f"{key}_low"], line[f"{key}_high"] = interval.low, interval.high
        lines.append(line)
    return pd.DataFrame(lines)


def format_comparison(frame: pd.DataFrame) -> str:
    """Markdown: one table per data set and subset.

    Parameters
    ----------
    frame : pandas.DataFrame
        As :func:`summarise` returns it.

    Returns
    -------
    str
    """
    parts = []
    for (data, subset), group in frame.groupby(["data", "subset"], sort=False):
        lines = [
            f"### {data}, {subset} types ({group['seeds'].max()} seeds)",
            "",
            "| decision | test accuracy | MSE of the true class | AUROC of a class held out |",
            "| --- | ---: | ---: | ---: |",
        ]
        for _, row in group.iterrows():
            cells = [
                _cell(row, "test", ".3f"),
                _cell(row, "mse", ".4f"),
                _cell(row, "auroc", ".3f"),
            ]
            lines.append(f"| {row['row']} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(row: Any, key: str, form: str) -> str:
    value = row.get(key)
    if value is None or value != value:
        return ""
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    text = format(value, form)
    if low is None or low != low:
        return text
    return f"{text} [{low:{form}}, {high:{form}}]"


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
