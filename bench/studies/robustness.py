"""Does generative classification resist attack? Accuracy under noise, gaps, shifts and gradients.

``python -m bench.studies.robustness --seeds 5 --out robustness/`` trains, on the same four types
per class, the modules (with the paper's settings, and for the plain search, which was the default
until poses and views were), the forward LSTM and a nearest neighbour, disturbs test sequences in
the same way for each, and attacks each through its own gradient with the same budgets and steps.
Every (data set, seed) is one file, so a run that was killed continues where it was.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.studies.attacks import (
    Codes,
    Floats,
    Forward,
    Modules,
    Neighbour,
    Victim,
    attack,
    disturb,
    random_attack,
)
from bench.studies.study import PLAIN, make_parser, markdown, resume, with_interval
from micfast import ModularInverseClassifier, Training
from micfast.data import Standardizer
from micfast.experiments.paper.baselines import fit_torch
from micfast.experiments.paper.settings import DATA_SETS, N_TYPES, DataSpec, derive_seed
from micfast.experiments.paper.statistics import Interval, mean_interval
from micfast.io import write_text
from micfast.plotting import save_figure
from micfast.training.types import select_types_per_class

__all__ = [
    "Plan",
    "differences",
    "draw",
    "evaluate",
    "format_table",
    "main",
    "summarise",
    "survivors",
]

PAPER, SEARCH = "MIC, the paper's settings", "MIC, plain search"
HIDDEN_FORWARD = 200
# k-means over all 60,000 images would take longer than everything else.
N_TRAIN = 10_000


@dataclass(frozen=True)
class Plan:
    """What is measured; levels are in standard deviations of the training data or parts of T.

    Attributes
    ----------
    n_disturbed, n_attacked : int
        Test sequences that are disturbed, and the first of them, which are attacked.
    n_steps : int
        Gradient steps of an attack, and draws of a random one.
    noise, dropout, shift : tuple of float
        Standard deviation of Gaussian noise; parts of the length set to the mean; parts of the
        length by which a sequence is shifted.
    l2, linf : tuple of float
        Budgets of the attacks. ``l2`` is a root mean square over all values of a sequence, so
        that it is as large as Gaussian noise of that standard deviation; ``linf`` bounds each one.
    """

    n_disturbed: int = 200
    n_attacked: int = 60
    n_steps: int = 10
    noise: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    dropout: tuple[float, ...] = (0.1, 0.2, 0.4)
    shift: tuple[float, ...] = (0.036, 0.072, 0.143)
    l2: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    linf: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)


# -- one seed ------------------------------------------------------------------------------------


def evaluate(
    spec: DataSpec, seed: int, plan: Plan | None = None, n_threads: int | None = None
) -> dict[str, Any]:
    """Train all victims once, disturb and attack them.

    Parameters
    ----------
    spec : DataSpec
    seed : int
        Of the split, the types, the weights and the disturbances.
    plan : Plan, optional
    n_threads : int, optional
        Default ``torch.get_num_threads()``; without influence on the result.

    Returns
    -------
    dict
        JSON-able. ``rows``: accuracies by victim, kind of disturbance and level. ``masking``: the
        largest share of zero gradients that an attack on a victim met. ``unlearned``: how many
        modules have not learned their types.
    """
    plan = plan or Plan()
    X, codes, victims = _prepare(spec, seed, plan, n_threads)
    rows: list[dict[str, Any]] = []
    for victim in victims:
        rows.append(_row(victim, "none", 0, victim.margins(X, codes)[0] > 0))
        for kind in ("noise", "dropout", "shift"):
            for level in getattr(plan, kind):
                # The same disturbance for every victim.
                rng = np.random.default_rng(derive_seed(seed, spec.name, kind, level))
                right = victim.margins(disturb(kind, level, X, rng), codes)[0] > 0
                rows.append(_row(victim, kind, level, right))

    X, codes = X[: plan.n_attacked], codes[: plan.n_attacked]
    masking, transferred = {}, {}
    for victim in victims:
        masking[victim.name] = 0.0
        rows.append(_row(victim, "none, attacked", 0, victim.margins(X, codes)[0] > 0))
        for norm in ("l2", "linf"):
            for budget in getattr(plan, norm):
                fooled, attacked, blind = attack(victim, X, codes, norm, budget, plan.n_steps)
                masking[victim.name] = max(masking[victim.name], blind)
                rows.append(_row(victim, norm, budget, ~fooled))
                transferred[victim.name, norm, budget] = attacked
    for victim in victims:
        for budget in plan.l2:
            rng = np.random.default_rng(derive_seed(seed, spec.name, "random", budget))
            fooled = random_attack(victim, X, codes, budget, plan.n_steps, rng)
            rows.append(_row(victim, "random", budget, ~fooled))
            for source in (Forward.name, Neighbour.name):
                if source != victim.name:
                    theirs = transferred[source, "l2", budget]
                    right = victim.margins(theirs, codes)[0] > 0
                    rows.append(_row(victim, f"l2 from {source}", budget, right))
    return {
        "data": spec.name,
        "seed": seed,
        "plan": json.loads(json.dumps(asdict(plan))),
        "rows": rows,
        "masking": masking,
        "unlearned": {
            victim.name: sum(not report["learned"] for report in victim.model.training_report_)
            for victim in victims
            if isinstance(victim, Modules)
        },
    }


def _row(victim: Victim, kind: str, level: float, right: NDArray[np.bool_]) -> dict[str, Any]:
    return {"victim": victim.name, "kind": kind, "level": level, "accuracy": float(right.mean())}


def _prepare(
    spec: DataSpec, seed: int, plan: Plan, n_threads: int | None
) -> tuple[Floats, Codes, list[Victim]]:
    """Test sequences, their classes as numbers, and the victims; all in standardised units."""
    data = spec.load(seed, spec.n_test)
    train, y_train = data.X_train[:N_TRAIN], data.y_train[:N_TRAIN]
    standardizer = Standardizer("global").fit(train)
    types, classes, _ = select_types_per_class(
        standardizer.transform(train),
        y_train,
        N_TYPES,
        selection=spec.clustering,
        random_state=derive_seed(seed, spec.name, "robustness", "types"),
        n_jobs=n_threads or -1,
    )
    draw = np.random.default_rng(derive_seed(seed, spec.name, "robustness", "test"))
    chosen = draw.permutation(len(data.y_test))[: plan.n_disturbed]
    X = standardizer.transform(data.X_test[chosen]).astype(np.float64)
    codes = np.searchsorted(classes, data.y_test[chosen])

    shown = types.reshape(-1, *types.shape[2:]).astype(np.float32)
    shown_codes = np.repeat(np.arange(len(classes)), N_TYPES)
    common: dict[str, Any] = {
        "type_selection": "first",
        "standardize": None,
        "hidden_size": spec.hidden_size,
        "random_state": derive_seed(seed, spec.name, "robustness", "modules") % 2**32,
        "n_jobs": n_threads,
    }
    training = Training.paper(n_episodes=spec.n_episodes)
    models = {
        PAPER: ModularInverseClassifier.paper(
            training__method__n_episodes=spec.n_episodes, **common
        ),
        SEARCH: ModularInverseClassifier(training=training, **PLAIN, **common),
    }
    forward = fit_torch(
        shown,
        np.eye(len(classes), dtype=np.float32)[shown_codes],
        HIDDEN_FORWARD,
        spec.forward["default"].epochs_types,
        spec.batch_size,
        derive_seed(seed, spec.name, "robustness", "forward") % 2**32,
    )
    victims: list[Victim] = [
        *(Modules(name, model.fit(shown, shown_codes)) for name, model in models.items()),
        Forward(forward),
        Neighbour(types),
    ]
    return X, codes, victims


# -- all seeds -----------------------------------------------------------------------------------


def summarise(units: list[dict[str, Any]]) -> pd.DataFrame:
    """Mean and 95 % interval over seeds.

    Parameters
    ----------
    units : list of dict
        As :func:`evaluate` returns them.

    Returns
    -------
    pandas.DataFrame
        Columns data, kind, level, victim, seeds, accuracy, low, high; in the order in which they
        were measured.
    """
    lines = []
    for keys, values in _rows(units).groupby(_KEYS, sort=False)["accuracy"]:
        mean = mean_interval(values)
        lines.append((*keys, mean.n, mean.estimate, mean.low, mean.high))
    return pd.DataFrame(lines, columns=[*_KEYS, "seeds", "accuracy", "low", "high"])


_KEYS = ["data", "kind", "level", "victim"]


def _rows(units: list[dict[str, Any]]) -> pd.DataFrame:
    """All rows with their data set and seed."""
    return pd.DataFrame(
        {"data": unit["data"], "seed": unit["seed"], **row}
        for unit in units
        for row in unit["rows"]
    )


def _by_victim(units: list[dict[str, Any]], data: str, kind: str) -> pd.DataFrame:
    """Accuracies under one kind of disturbance: a row per level and seed, a column per victim."""
    rows = _rows(units).query("data == @data and kind == @kind")
    wide = rows.pivot_table("accuracy", ["level", "seed"], "victim", sort=False)
    return wide[list(dict.fromkeys(rows["victim"]))]


_TITLES = {
    "none": "undisturbed",
    "noise": "Gaussian noise, sd",
    "dropout": "part of the length missing",
    "shift": "shifted by a part of the length",
    "none, attacked": "undisturbed, those attacked",
    "l2": "own gradient, L2, RMS",
    "linf": "own gradient, Linf",
    "random": "best of 10 random, RMS",
    f"l2 from {Forward.name}": f"transferred from the {Forward.name}, RMS",
    f"l2 from {Neighbour.name}": f"transferred from {Neighbour.name}, RMS",
}


def format_table(frame: pd.DataFrame) -> str:
    """What :func:`summarise` returned as Markdown: one table per data set, a column per victim."""
    parts = []
    for data, group in frame.groupby("data", sort=False):
        victims, rows = list(dict.fromkeys(group["victim"])), []
        cells = {
            (row.kind, row.level, row.victim): _cell(
                Interval(row.accuracy, row.low, row.high, row.seeds)
            )
            for row in group.itertuples()
        }
        for kind, title in _TITLES.items():
            for level in dict.fromkeys(group.loc[group["kind"] == kind, "level"]):
                name = f"{title} {level:g}" if level else title
                rows.append([name, *(cells.get((kind, level, victim), "") for victim in victims)])
        title = f"### {data} ({group['seeds'].max()} seeds)"
        parts.append(f"{title}\n\n{markdown(['disturbance', *victims], rows)}")
    return "\n".join(parts)


def differences(units: list[dict[str, Any]]) -> str:
    """How much more accurate the plain search is than each other victim, as Markdown.

    Per data set and kind of disturbance: the difference, paired by seed, of the mean accuracy over
    the levels, with its 95 % interval.
    """
    rows, names = [], []
    for data in dict.fromkeys(unit["data"] for unit in units):
        for kind in ("none", "noise", "dropout", "shift", "l2", "linf"):
            means = _by_victim(units, data, kind).groupby("seed").mean()
            gaps = means.drop(columns=SEARCH).rsub(means[SEARCH], axis=0)
            names = list(gaps)
            rows.append(
                [
                    f"{data}: {_TITLES[kind].partition(',')[0]}{_NORMS.get(kind, '')}",
                    *(with_interval(mean_interval(gaps[name]), "+.2f") for name in names),
                ]
            )
    return markdown([f"{SEARCH} against", *names], rows)


def survivors(units: list[dict[str, Any]]) -> str:
    """What part of each victim's right decisions an attack leaves right, as Markdown.

    So that a victim which starts low is not held to be robust for having little to lose, nor
    fragile for having started low. Per data set, norm and budget, with 95 % intervals over seeds.
    """
    rows, names = [], []
    for data in dict.fromkeys(unit["data"] for unit in units):
        start = _by_victim(units, data, "none, attacked").droplevel("level")
        for norm in ("l2", "linf"):
            for budget, right in _by_victim(units, data, norm).groupby("level", sort=False):
                # None right at first: none that could survive.
                parts = right.droplevel("level") / start.clip(lower=1e-9)
                names = list(right)
                cells = [_cell(mean_interval(parts[name])) for name in names]
                rows.append([f"{data}{_NORMS[norm]} {budget:g}", *cells])
    return markdown(["right decisions that survive", *names], rows)


def _cell(accuracy: Interval) -> str:
    return with_interval(accuracy, ".2f", 0, 1)


_NORMS = {"l2": ", L2", "linf": ", Linf"}
_PANELS = (
    ("noise", "Gaussian noise", "standard deviation"),
    ("dropout", "A stretch missing", "part of the length"),
    ("shift", "Shifted in time", "part of the length"),
    ("l2", "Own gradient, L2", "root mean square"),
    ("linf", "Own gradient, Linf", "bound on each value"),
)
_COLOURS = {
    PAPER: "#E69F00",
    SEARCH: "#0072B2",
    Forward.name: "#D55E00",
    Neighbour.name: "#555555",
}
_WAYS = (
    ("l2", "own gradient", "-"),
    (f"l2 from {Forward.name}", "from the forward LSTM", "--"),
    (f"l2 from {Neighbour.name}", "from 1-NN", "-."),
    ("random", "best of 10 random", ":"),
)


def draw(frame: pd.DataFrame) -> Figure:
    """Accuracy against level: a panel per disturbance, and attacks on the plain search."""
    names = list(dict.fromkeys(frame["data"]))
    fig = Figure(figsize=(10, 5.4 * len(names)), layout="constrained")
    for part, data in zip(fig.subfigures(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        group = frame[frame["data"] == data]
        part.suptitle(f"{data}, {group['seeds'].max()} seeds", fontweight="bold")
        axes = part.subplots(2, 3, sharey=True)
        for ax, (kind, title, label) in zip(axes.flat, _PANELS, strict=False):
            for victim, colour in _COLOURS.items():
                # Dashed: it mostly lies on the plain search's line.
                style = "--" if victim == Neighbour.name else "-"
                _line(ax, group, kind, victim, colour, style, victim)
            ax.set(title=title, xlabel=label)
        for kind, label, style in _WAYS:
            _line(axes[1, 2], group, kind, SEARCH, _COLOURS[SEARCH], style, label)
        axes[1, 2].set(title=f"{SEARCH}: L2, four ways", xlabel="root mean square")
        axes[1, 2].legend(frameon=False, fontsize=8)
        for ax in axes.flat:
            ax.set_ylim(-0.02, 1.02)
            ax.spines[["top", "right"]].set_visible(False)
            ax.grid(color="#E3E7EB", linewidth=0.6)
        for ax in axes[:, 0]:
            ax.set_ylabel("accuracy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return fig


def _line(
    ax: Any, group: pd.DataFrame, kind: str, victim: str, colour: str, style: str, label: str
) -> None:
    """One victim's accuracy from level 0 on, with its interval."""
    attacked = kind in ("l2", "linf", "random") or kind.startswith("l2 ")
    start = "none, attacked" if attacked else "none"
    mine = group[(group["victim"] == victim) & group["kind"].isin([start, kind])]
    mine = mine.sort_values("level")
    ax.plot(mine["level"], mine["accuracy"], style, color=colour, marker="o", ms=3, label=label)
    low, high = mine["low"].clip(lower=0), mine["high"].clip(upper=1)
    ax.fill_between(mine["level"], low, high, color=colour, alpha=0.12, lw=0)
    ax.set_xticks(mine["level"], [f"{level:g}" for level in mine["level"]], fontsize=8)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = make_parser("robustness", __doc__, seeds=5)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    plan = Plan()
    units = []
    for seed in range(options.seeds):
        for data in options.data or DATA_SETS:
            file = options.out / f"{data}-{seed:04d}.json"
            unit = resume(file, partial(evaluate, DATA_SETS[data], seed, plan, options.threads))
            if unit["plan"] != json.loads(json.dumps(asdict(plan))):
                parser.error(f"{file} was made by another plan: choose another --out, or delete it")
            units.append(unit)
    frame = summarise(units)
    text = "\n".join((survivors(units), differences(units), format_table(frame)))
    write_text(options.out / "robustness.csv", frame.to_csv(index=False))
    write_text(options.out / "robustness.md", text)
    save_figure(draw(frame), options.out / "robustness.png")
    print(text)
    masking = {name: max(unit["masking"][name] for unit in units) for name in units[0]["masking"]}
    print("zero gradients met, largest share:", json.dumps(masking))
    return 0


if __name__ == "__main__":
    sys.exit(main())
