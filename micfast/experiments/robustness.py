"""Does generative classification resist attack? Accuracy under noise, gaps, shifts and gradients.

``python -m micfast.experiments.robustness --seeds 5 --out robustness/`` trains, on the same four
types per class, the modules (once with the paper's settings, once with the package's), the forward
LSTM and a nearest neighbour, disturbs test sequences in the same way for each, and attacks each
through its own gradient with the same budgets and steps. Every (data set, seed) is one file, so
that a run killed goes on where it was.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from micfast._io import write_text
from micfast.experiments._study import make_parser, resume
from micfast.experiments.paper.settings import DATA_SETS, N_TYPES, DataSpec, derive_seed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from micfast.estimator import ModularInverseClassifier

__all__ = [
    "Forward",
    "Modules",
    "Neighbour",
    "Plan",
    "Victim",
    "attack",
    "differences",
    "disturb",
    "draw",
    "evaluate",
    "format_table",
    "main",
    "summarise",
    "survivors",
]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

PAPER, DEFAULT = "MIC, the paper's settings", "MIC, the default"
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


# -- victims -------------------------------------------------------------------------------------


class Victim(Protocol):
    """A trained classifier that can be attacked."""

    name: str

    def margins(self, X: Floats, codes: Codes) -> tuple[Floats, Floats]:
        """How clearly each sequence is given its true class, and the gradient of that.

        Parameters
        ----------
        X : ndarray of shape (N, T, O)
        codes : ndarray of shape (N,)
            True classes, as numbers.

        Returns
        -------
        margins : ndarray of shape (N,)
            Positive exactly where the decision is right.
        gradient : ndarray of shape (N, T, O)
            Of each margin with respect to its sequence.
        """
        ...


class Modules:
    """Modular inverse classification: the lowest mean error of a class's modules decides.

    The margin is the lowest error of another class less that of the true one. An error is a
    minimum over inputs, so its derivative with respect to the target is that of the error at the
    input found: ``2 (target - drawn) / (T O)``. That is exact where the search has converged, and
    neither backpropagates through the search nor is hidden by it. Every call inverts anew.

    Parameters
    ----------
    name : str
    model : ModularInverseClassifier
        Fitted, without standardisation, on labels 0 to M - 1, deciding by mean squared error.
    """

    def __init__(self, name: str, model: ModularInverseClassifier) -> None:
        self.name = name
        self.model = model

    def margins(self, X: Floats, codes: Codes) -> tuple[Floats, Floats]:
        """See :class:`Victim`."""
        from micfast.decision import comparable

        found = [self.model.invert(X, bank=r) for r in range(len(self.model.banks_))]
        errors = np.mean([comparable(result.errors) for result in found], axis=0)
        margins, others = _against_best_other(-errors, codes)
        towards = [
            result.reconstructions(codes) - result.reconstructions(others) for result in found
        ]
        # The targets themselves cancel between the two errors.
        return margins, 2 / X[0].size * np.mean(towards, axis=0, dtype=np.float64)


class Forward:
    """The forward LSTM; the margin is between its outputs before the softmax.

    After the softmax, gradients of a sure decision would vanish, and the attack with them.

    Parameters
    ----------
    model : object
        With ``logits(X)``, as ``micfast.experiments.paper.baselines`` trains it.
    """

    name = "forward LSTM"

    def __init__(self, model: Any) -> None:
        self.model = model

    def margins(self, X: Floats, codes: Codes) -> tuple[Floats, Floats]:
        """See :class:`Victim`."""
        import torch

        x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
        logits = self.model.logits(x)
        margins, others = _against_best_other(logits.detach().double().numpy(), codes)
        rows = torch.arange(len(codes))
        difference = logits[rows, torch.from_numpy(codes)] - logits[rows, torch.from_numpy(others)]
        (gradient,) = torch.autograd.grad(difference.sum(), x)
        return margins, gradient.double().numpy()


class Neighbour:
    """The nearest type decides; the margin is between mean squared distances.

    Parameters
    ----------
    types : ndarray of shape (C, K, T, O)
    """

    name = "1-NN Euclidean"

    def __init__(self, types: Floats) -> None:
        self.types = types.astype(np.float64)

    def margins(self, X: Floats, codes: Codes) -> tuple[Floats, Floats]:
        """See :class:`Victim`."""
        C, K = self.types.shape[:2]
        flat = self.types.reshape(C * K, -1)
        rows = X.reshape(len(X), -1)
        squares = (rows**2).sum(axis=1)[:, None] + (flat**2).sum(axis=1) - 2 * rows @ flat.T
        distances = (squares / flat.shape[1]).reshape(len(X), C, K)
        nearest, at = distances.argmin(axis=2), np.arange(len(X))
        margins, others = _against_best_other(-distances.min(axis=2), codes)
        own = self.types[codes, nearest[at, codes]]
        other = self.types[others, nearest[at, others]]
        return margins, 2 / X[0].size * (own - other)


def _against_best_other(scores: Floats, codes: Codes) -> tuple[Floats, Codes]:
    """Score of the true class less the best other's, and which that is."""
    at = np.arange(len(codes))
    others = scores.copy()
    others[at, codes] = -np.inf
    best = others.argmax(axis=1)
    return scores[at, codes] - others[at, best], best


# -- disturbances and attacks --------------------------------------------------------------------


def disturb(kind: str, level: float, X: Floats, rng: np.random.Generator) -> Floats:
    """Disturb sequences at random.

    Parameters
    ----------
    kind : {"noise", "dropout", "shift"}
        Gaussian noise; one stretch set to 0, the mean; a shift forwards or backwards in time, the
        first or last value taking the free place.
    level : float
        See :class:`Plan`.
    X : ndarray of shape (N, T, O)
    rng : numpy Generator

    Returns
    -------
    ndarray of shape (N, T, O)

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    N, T, _ = X.shape
    if kind == "noise":
        return X + level * rng.standard_normal(X.shape)
    n = min(T, max(1, round(level * T)))
    steps = np.arange(T)
    if kind == "dropout":
        begin = rng.integers(0, T - n + 1, N)[:, None]
        return np.where(((begin <= steps) & (steps < begin + n))[..., None], 0.0, X)
    if kind == "shift":
        source = np.clip(steps - n * rng.choice([-1, 1], N)[:, None], 0, T - 1)
        return np.take_along_axis(X, source[..., None], axis=1)
    raise ValueError(f"disturb: kind must be 'noise', 'dropout' or 'shift', got {kind!r}")


def attack(
    victim: Victim, X: Floats, codes: Codes, norm: str, budget: float, n_steps: int
) -> tuple[NDArray[np.bool_], Floats, float]:
    """Projected gradient descent on the margin, from the sequence itself.

    Parameters
    ----------
    victim : Victim
    X : ndarray of shape (N, T, O)
    codes : ndarray of shape (N,)
    norm : {"l2", "linf"}
    budget : float
        See :class:`Plan`.
    n_steps : int
        Steps of ``2.5 * budget / n_steps`` each.

    Returns
    -------
    fooled : ndarray of bool, shape (N,)
        Where the decision was wrong at the start or after any step.
    attacked : ndarray of shape (N, T, O)
        The sequences after the last step.
    blind : float
        Share of the gradients that were zero: there a gradient attack tells nothing.

    Raises
    ------
    ValueError
        If there is no such norm.
    """
    if norm not in ("l2", "linf"):
        raise ValueError(f"attack: norm must be 'l2' or 'linf', got {norm!r}")
    attacked, fooled, blind = X.astype(np.float64), np.zeros(len(X), bool), 0
    size = 2.5 * budget / n_steps
    for _ in range(n_steps):
        margins, gradient = victim.margins(attacked, codes)
        fooled |= margins <= 0
        lengths = _rms(gradient)
        blind += int((lengths == 0).sum())
        step = np.sign(gradient) if norm == "linf" else gradient / np.maximum(lengths, 1e-300)
        change = attacked - size * step - X
        if norm == "linf":
            change = np.clip(change, -budget, budget)
        else:
            change *= np.minimum(1, budget / np.maximum(_rms(change), 1e-300))
        attacked = X + change
    fooled |= victim.margins(attacked, codes)[0] <= 0
    return fooled, attacked, blind / (n_steps * len(X))


def _random_attack(
    victim: Victim, X: Floats, codes: Codes, budget: float, n: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Whether any of n random disturbances of just this size changes the decision."""
    fooled = np.zeros(len(X), bool)
    for _ in range(n):
        change = rng.standard_normal(X.shape)
        fooled |= victim.margins(X + budget * change / _rms(change), codes)[0] <= 0
    return fooled


def _rms(x: Floats) -> Floats:
    return np.sqrt((x**2).mean(axis=(1, 2), keepdims=True))


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
            fooled = _random_attack(victim, X, codes, budget, plan.n_steps, rng)
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
    from micfast.data import Standardizer
    from micfast.estimator import ModularInverseClassifier
    from micfast.experiments.paper.baselines import _fit_torch, _one_torch_thread
    from micfast.types import select_types_per_class

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
        "n_episodes": spec.n_episodes,
        "random_state": derive_seed(seed, spec.name, "robustness", "modules") % 2**32,
        "n_jobs": n_threads,
    }
    victims: list[Victim] = [
        Modules(name, model.fit(shown, shown_codes))
        for name, model in (
            (PAPER, ModularInverseClassifier.paper(**common)),
            (DEFAULT, ModularInverseClassifier(**common)),
        )
    ]
    with _one_torch_thread():
        forward = _fit_torch(
            shown,
            np.eye(len(classes), dtype=np.float32)[shown_codes],
            HIDDEN_FORWARD,
            spec.forward["default"].epochs_types,
            spec.batch_size,
            derive_seed(seed, spec.name, "robustness", "forward") % 2**32,
        )
    victims += [Forward(forward), Neighbour(types)]
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
    import pandas as pd

    from micfast.experiments.paper.statistics import mean_interval

    table: dict[tuple[str, str, float, str], list[float]] = {}
    for unit in units:
        for row in unit["rows"]:
            key = (unit["data"], row["kind"], row["level"], row["victim"])
            table.setdefault(key, []).append(row["accuracy"])
    lines = []
    for (data, kind, level, victim), values in table.items():
        mean = mean_interval(values)
        lines.append((data, kind, level, victim, len(values), mean.estimate, mean.low, mean.high))
    columns = ["data", "kind", "level", "victim", "seeds", "accuracy", "low", "high"]
    return pd.DataFrame(lines, columns=columns)


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
    """Markdown: one table per data set, one column per victim.

    Parameters
    ----------
    frame : pandas.DataFrame
        As :func:`summarise` returns it.

    Returns
    -------
    str
    """
    parts = []
    for data, group in frame.groupby("data", sort=False):
        victims = list(dict.fromkeys(group["victim"]))
        lines = [
            f"### {data} ({group['seeds'].max()} seeds)",
            "",
            f"| disturbance | {' | '.join(victims)} |",
            f"| --- |{' ---: |' * len(victims)}",
        ]
        for kind, title in _TITLES.items():
            of_kind = group[group["kind"] == kind]
            for level in dict.fromkeys(of_kind["level"]):
                cells = []
                for victim in victims:
                    found = of_kind[(of_kind["victim"] == victim) & (of_kind["level"] == level)]
                    cells.append(
                        _cell(*found[["accuracy", "low", "high"]].iloc[0]) if len(found) else ""
                    )
                name = f"{title} {level:g}" if level else title
                lines.append(f"| {name} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def differences(units: list[dict[str, Any]]) -> str:
    """How much more accurate the default is than each other victim, as Markdown.

    Parameters
    ----------
    units : list of dict
        As :func:`evaluate` returns them.

    Returns
    -------
    str
        Per data set and kind of disturbance: the difference, paired by seed, of the mean accuracy
        over the levels, with its 95 % interval.
    """
    from micfast.experiments.paper.statistics import mean_interval

    names = list(dict.fromkeys(row["victim"] for row in units[0]["rows"]))
    names.remove(DEFAULT)
    lines = [
        f"| {DEFAULT} against | {' | '.join(names)} |",
        f"| --- |{' ---: |' * len(names)}",
    ]
    for data in dict.fromkeys(unit["data"] for unit in units):
        mine = [unit for unit in units if unit["data"] == data]
        for kind in ("none", "noise", "dropout", "shift", "l2", "linf"):
            cells = []
            for name in names:
                gaps = [_level_mean(u, DEFAULT, kind) - _level_mean(u, name, kind) for u in mine]
                gap = mean_interval(gaps)
                interval = "" if gap.low != gap.low else f" [{gap.low:+.2f}, {gap.high:+.2f}]"
                cells.append(f"{gap.estimate:+.2f}{interval}")
            lines.append(
                f"| {data}: {_TITLES[kind].partition(',')[0]}"
                f"{_NORMS.get(kind, '')} | {' | '.join(cells)} |"
            )
    return "\n".join(lines) + "\n"


def survivors(units: list[dict[str, Any]]) -> str:
    """What part of each victim's right decisions an attack leaves right, as Markdown.

    So that a victim which starts low is not held to be robust for having little to lose, nor
    fragile for having started low.

    Parameters
    ----------
    units : list of dict
        As :func:`evaluate` returns them.

    Returns
    -------
    str
        Per data set, norm and budget, with 95 % intervals over seeds.
    """
    from micfast.experiments.paper.statistics import mean_interval

    names = list(dict.fromkeys(row["victim"] for row in units[0]["rows"]))
    lines = [
        f"| right decisions that survive | {' | '.join(names)} |",
        f"| --- |{' ---: |' * len(names)}",
    ]
    for data in dict.fromkeys(unit["data"] for unit in units):
        mine = [unit for unit in units if unit["data"] == data]
        for norm in ("l2", "linf"):
            for budget in mine[0]["plan"][norm]:
                cells = []
                for name in names:
                    parts = [
                        _accuracy(unit, name, norm, budget)
                        # None right at first: none that could survive.
                        / max(_accuracy(unit, name, "none, attacked", 0), 1e-9)
                        for unit in mine
                    ]
                    interval = mean_interval(parts)
                    cells.append(_cell(interval.estimate, interval.low, interval.high))
                lines.append(f"| {data}{_NORMS[norm]} {budget:g} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _accuracy(unit: dict[str, Any], victim: str, kind: str, level: float) -> float:
    key = (victim, kind, level)
    rows = (row for row in unit["rows"] if (row["victim"], row["kind"], row["level"]) == key)
    return next(rows)["accuracy"]


def _level_mean(unit: dict[str, Any], victim: str, kind: str) -> float:
    rows = [row for row in unit["rows"] if (row["victim"], row["kind"]) == (victim, kind)]
    return float(np.mean([row["accuracy"] for row in rows]))


def _cell(accuracy: float, low: float, high: float) -> str:
    if low != low:
        return f"{accuracy:.2f}"
    return f"{accuracy:.2f} [{max(low, 0):.2f}, {min(high, 1):.2f}]"


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
    DEFAULT: "#0072B2",
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
    """Draw accuracy against level: one panel per disturbance, and how the default can be attacked.

    Parameters
    ----------
    frame : pandas.DataFrame
        As :func:`summarise` returns it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(frame["data"]))
    fig = Figure(figsize=(10, 5.4 * len(names)), layout="constrained")
    for part, data in zip(fig.subfigures(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        group = frame[frame["data"] == data]
        part.suptitle(f"{data}, {group['seeds'].max()} seeds", fontweight="bold")
        axes = part.subplots(2, 3, sharey=True)
        for ax, (kind, title, label) in zip(axes.flat, _PANELS, strict=False):
            for victim, colour in _COLOURS.items():
                # Dashed: it mostly lies on the default's line.
                style = "--" if victim == Neighbour.name else "-"
                _line(ax, group, kind, victim, colour, style, victim)
            ax.set(title=title, xlabel=label)
        for kind, label, style in _WAYS:
            _line(axes[1, 2], group, kind, DEFAULT, _COLOURS[DEFAULT], style, label)
        axes[1, 2].set(title=f"{DEFAULT}: L2, four ways", xlabel="root mean square")
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
    from micfast.plots import save_figure

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
