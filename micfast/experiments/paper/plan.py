"""How long it will take: rates measured on this machine, and the plan that is made of them.

Also what the original's way, one module and one sequence at a time, would take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.experiments.paper.settings import N_CROSS, N_ITER, N_TYPES, DataSpec, Settings
from micfast.experiments.paper.units import Unit

if TYPE_CHECKING:
    from micfast.data import Dataset

__all__ = ["Plan", "Rates", "format_seconds", "make_plan", "measure_rates"]

# One measurement goes on for about this long.
_SECONDS = 0.4
# Rough, as seen on one core of a 2026 server: clustering, per training sequence; a baseline.
_CLUSTERING_SECONDS, _BASELINE_SECONDS = 1e-3, {"1nn-euclidean": 0.1, "1nn-dtw": 5.0}


@dataclass(frozen=True)
class Rates:
    """How fast one data set's work is done here.

    Attributes
    ----------
    n_modules : int
        In the fleet of one grid unit, with which the first two were measured.
    episodes, inversions : float
        Per second: training episodes of one module; inversions of one sequence by one module.
    original_episodes, original_inversions : float
        The same by ``nn.LSTM`` and autograd, one at a time, on one thread.
    forward_steps : float or None
        Steps of Adam per second of the forward LSTM in torch; None if it wasn't measured.
    n_train, n_test, n_classes : int
        Sizes of the data set.
    """

    n_modules: int
    episodes: float
    inversions: float
    original_episodes: float
    original_inversions: float
    forward_steps: float | None
    n_train: int
    n_test: int
    n_classes: int


def measure_rates(
    spec: DataSpec, dataset: Dataset, *, forward: bool, n_threads: int | None = None
) -> Rates:
    """Measure for some seconds.

    Parameters
    ----------
    spec : DataSpec
    dataset : Dataset
        Its data; what they hold doesn't matter.
    forward : bool
        Whether to measure the forward LSTM, too.
    n_threads : int or None
        For micfast; None: torch's number.

    Returns
    -------
    Rates
    """
    import torch

    from micfast import ops
    from micfast.bank import GeneratorBank
    from micfast.inversion import invert

    n_classes, n_channels = len(dataset.classes), dataset.X_train.shape[2]
    levels = torch.tensor(spec.noise_levels("clustered"), dtype=torch.float64)
    M = len(levels) * n_classes
    bank = GeneratorBank.random(
        M,
        hidden_size=spec.hidden_size,
        input_size=N_TYPES,
        output_size=n_channels,
        seeds=range(M),
    )
    types = torch.from_numpy(dataset.X_train[np.arange(N_TYPES) % len(dataset.X_train)])
    noise_in, noise_out = levels.repeat_interleave(n_classes, 0).T.contiguous()
    fleet = (types[None], torch.zeros(M, dtype=torch.int64), noise_in, noise_out, torch.arange(M))
    X = dataset.X_test
    return Rates(
        M,
        M * _rate(lambda n: ops.train(*bank.weights, *fleet, n, n_threads=n_threads)),
        M * _rate(lambda n: invert(bank, X[:n], n_iter=N_ITER, n_threads=n_threads), len(X)),
        *_original_rates(spec, types, X),
        _rate(_forward_work(spec, dataset)) if forward else None,
        len(dataset.X_train),
        len(X),
        n_classes,
    )


def _rate(work: Callable[[int], object], most: int | None = None) -> float:
    """How often per second `work`, which takes how often, is done; `most` at once."""
    work(1)  # pays for the preparations
    n = 1
    while True:
        begin = time.perf_counter()
        work(n)
        seconds = max(time.perf_counter() - begin, 1e-9)
        if seconds > _SECONDS / 2 or n == most:
            return n / seconds
        n = min(int(n * _SECONDS / seconds) + 1, 20 * n, most or 10**9)


def _original_rates(spec: DataSpec, types: Any, X: np.ndarray) -> tuple[float, float]:
    """Episodes and inversions per second of a plain loop over ``nn.LSTM``."""
    import torch

    from micfast.bank import Generator
    from micfast.experiments.demo import _threads

    n_steps, n_channels = types.shape[1:]
    eye = torch.eye(len(types))

    def loss(z: Any, target: Any) -> Any:
        return (module(z[None], n_steps)[0] - target).square().mean()

    def train(n: int) -> None:
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(n):
            i = int(torch.randint(len(types), ()))
            z = (eye[i] + 0.1 * torch.randn(len(types))).clamp(0, 1)
            target = types[i] + 0.1 * torch.randn(types[i].shape)
            optimizer.zero_grad()
            loss(z, target).backward()
            optimizer.step()

    def invert(n: int) -> None:
        for i in range(n):
            target = torch.from_numpy(X[i % len(X)])
            z = torch.full((len(types),), 1 / len(types))
            m, v = torch.zeros_like(z), torch.zeros_like(z)
            for _ in range(N_ITER):
                z = z.clamp(0, 1)
                z = (z / z.sum()).requires_grad_(True)
                (g,) = torch.autograd.grad(loss(z, target), z)
                m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g.square()
                z = z.detach() - 0.05 * m / (v.sqrt() + 1e-8)

    # One thread: at batch size 1 more of them only wait for each other.
    with torch.random.fork_rng(devices=[]), _threads(1):
        torch.manual_seed(0)
        module = Generator(len(types), spec.hidden_size, n_channels)
        episodes = _rate(train)
        module.requires_grad_(False)
        return episodes, _rate(invert)


def _forward_work(spec: DataSpec, dataset: Dataset) -> Callable[[int], object]:
    """Training of the forward LSTM for n steps of Adam."""
    from micfast.experiments.paper.baselines import forward_torch

    n = spec.batch_size
    index = np.arange(n) % len(dataset.X_train)
    codes, C = np.arange(n), len(dataset.classes)

    def work(n_steps: int) -> int:
        # One batch is one epoch.
        return forward_torch(
            dataset.X_train[index],
            codes % max(2, min(C, n)),
            dataset.X_test[:1],
            [0],
            hidden_size=spec.hidden_size * C,
            epochs=n_steps,
            batch_size=n,
            seed=0,
        )

    return work


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes
    ----------
    units : list of Unit
        All of the run.
    pending : list of Unit
        Those whose results aren't there yet.
    seconds : dict of Unit to float
        Expected time of each.
    rows : list of dict
        For each kind of pending work: what, units, modules, inversions, seconds.
    skipped : list of dict
        What can't be done here, and why.
    original_seconds : float
        What training and inverting all modules of the run would take the original's way.
    """

    units: list[Unit]
    pending: list[Unit]
    seconds: dict[Unit, float]
    rows: list[dict[str, Any]]
    skipped: list[dict[str, str]]
    original_seconds: float

    @property
    def pending_seconds(self) -> float:
        """Expected time of what is to be done."""
        return sum(self.seconds[unit] for unit in self.pending)

    def __str__(self) -> str:
        rows = [
            (row["what"], f"{row['units']:,}", *(f"{row[k]:,}" if row[k] else "" for k in _COUNTS),
             format_seconds(row["seconds"]))
            for row in self.rows
        ]  # fmt: skip
        sums = (f"{sum(row[key] for row in self.rows):,}" for key in _COUNTS)
        total = format_seconds(self.pending_seconds)
        rows.append(("in all", f"{len(self.pending):,}", *sums, total))
        head = ("what", "units", "modules", "inversions", "about")
        width = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  "
            + "   ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, width, strict=True))
            ).rstrip()
            for row in (head, *rows)
        ]
        done = len(self.units) - len(self.pending)
        lines.insert(0, f"{done} of {len(self.units)} units are done already; to do:")
        if not done:
            lines[0] = f"{len(self.units)} units of work:"
        if self.original_seconds:
            lines.append(
                "The same modules and inversions the original's way, one at a time in PyTorch, "
                f"would take {format_seconds(self.original_seconds)}."
            )
        lines += [f"Skipped: {item['what']} ({item['why']})" for item in self.skipped]
        return "\n".join(lines)


_COUNTS = ("modules", "inversions")


def make_plan(
    settings: Settings,
    units: Sequence[Unit],
    done: Iterable[Unit],
    skipped: list[dict[str, str]],
    rates: Mapping[str, Rates],
    n_threads: int,
) -> Plan:
    """Count and add up.

    Parameters
    ----------
    settings : Settings
    units : sequence of Unit
        All of the run, in the order of work.
    done : iterable of Unit
        Those among them that are done.
    skipped : list of dict
        As :func:`units.list_units` gives it.
    rates : mapping of str to Rates
        For each data set.
    n_threads : int
        Threads of the clustering.

    Returns
    -------
    Plan
    """
    finished = set(done)
    seconds: dict[Unit, float] = {}
    rows: dict[str, dict[str, Any]] = {}
    original_seconds = 0.0
    with_modules: dict[bool, set[str]] = {True: set(), False: set()}
    for unit in units:
        spec, rate = settings.spec(unit.data), rates[unit.data]
        pending = unit not in finished
        # The figures' modules are trained once for all figures of a data set.
        trained = with_modules[pending]
        modules, inversions = _counts(unit, spec, rate, unit.data not in trained)
        if unit.kind in ("cross", "reconstruction", "decision"):
            trained.add(unit.data)
        episodes = modules * spec.n_episodes
        original_seconds += episodes / rate.original_episodes
        original_seconds += inversions / rate.original_inversions
        seconds[unit] = episodes / rate.episodes + inversions / rate.inversions
        seconds[unit] += _other_seconds(unit, settings, rate, n_threads)
        if pending:
            what = f"{_WORDS[unit.kind]}, {unit.method + ', ' if unit.method else ''}{unit.data}"
            row = rows.setdefault(
                what, {"what": what, "units": 0, "modules": 0, "inversions": 0, "seconds": 0.0}
            )
            row["units"] += 1
            row["modules"] += modules
            row["inversions"] += inversions
            row["seconds"] += seconds[unit]
    left = [unit for unit in units if unit not in finished]
    return Plan(list(units), left, seconds, list(rows.values()), skipped, original_seconds)


_WORDS = {
    "types": "types",
    "grid": "noise grid",
    "cross": "figures",
    "reconstruction": "figures",
    "decision": "figures",
    "forward": "forward LSTM",
    "baseline": "baseline",
}


def _counts(unit: Unit, spec: DataSpec, rate: Rates, train_figures: bool) -> tuple[int, int]:
    """Modules that a unit trains, and inversions of 50 iterations that it makes."""
    C = rate.n_classes
    if unit.kind == "grid":
        modules = len(spec.noise_levels(unit.subset)) * C
        return modules, modules * rate.n_test
    if unit.kind in ("types", "forward", "baseline"):
        return 0, 0
    targets = {"cross": 2 * N_CROSS * C * C, "reconstruction": N_TYPES, "decision": C}[unit.kind]
    return C * train_figures, targets


def _other_seconds(unit: Unit, settings: Settings, rate: Rates, n_threads: int) -> float:
    """Expected time of what isn't training and inverting modules."""
    if unit.kind == "types":
        return _CLUSTERING_SECONDS * rate.n_train / n_threads * (unit.subset == "clustered")
    if unit.kind == "baseline":
        return _BASELINE_SECONDS.get(unit.method, 5.0)
    if unit.kind != "forward" or rate.forward_steps is None:
        return 0.0
    spec = settings.spec(unit.data)
    budget = spec.forward[settings.budget]
    n, epochs = N_TYPES * rate.n_classes, budget.epochs_types
    if unit.subset == "full":
        n, epochs = min(budget.n_full or rate.n_train, rate.n_train), budget.epochs_full
    # Keras' rate is taken to be torch's.
    return epochs * -(-n // spec.batch_size) / rate.forward_steps


def format_seconds(seconds: float) -> str:
    """A time in two digits and the unit that suits it.

    Examples
    --------
    >>> [format_seconds(s) for s in (0.4, 59, 200, 9000, 200000)]
    ['1 s', '59 s', '3.3 min', '2.5 h', '2.3 days']
    """
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= (2 * size if size == 86400 else size):
            value = seconds / size
            return f"{value:.1f} {name}" if value < 10 else f"{value:,.0f} {name}"
    return f"{max(1, round(seconds))} s"
