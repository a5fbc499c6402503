"""How long a run will take: rates measured on this machine, and the plan made from them.

Also how long the original implementation, one module and one sequence at a time, would take.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.experiments.paper.settings import N_CROSS, N_ITER, N_TYPES, DataSpec, Settings
from micfast.experiments.paper.work import FIGURES, Task
from micfast.experiments.threads import torch_threads

if TYPE_CHECKING:
    import pandas as pd

    from micfast.data import Dataset

__all__ = ["Plan", "format_seconds", "make_plan", "measure_rates"]

# One measurement goes on for about this long.
_SECONDS = 0.4
# Rough, as seen on one core of a 2026 server: clustering, per training sequence; a baseline.
_CLUSTERING_SECONDS, _BASELINE_SECONDS = 1e-3, {"1nn-euclidean": 0.1, "1nn-dtw": 5.0}
_WORDS = {"types": "types", "grid": "noise grid", "forward": "forward LSTM", "baseline": "baseline"}


def measure_rates(
    spec: DataSpec, dataset: Dataset, *, forward: bool, n_threads: int | None = None
) -> dict[str, Any]:
    """Measure for some seconds how fast one data set's work is done.

    Returns
    -------
    dict
        ``episodes``, ``inversions``: training episodes of one module and inversions of one
        sequence by one module, per second, in a fleet of ``n_modules``. ``original_episodes``,
        ``original_inversions``: the same by ``nn.LSTM`` and autograd, one at a time, on one
        thread. ``forward_steps``: steps of Adam of the forward LSTM in torch, None if not
        measured. ``n_train``, ``n_test``, ``n_classes``: sizes of the data set.
    """
    from micfast import Adam, Execution, GeneratorBank, Training, invert, train

    n_classes, n_channels = len(dataset.classes), dataset.X_train.shape[2]
    noise_in, noise_out = np.repeat(spec.noise_levels("clustered"), n_classes, axis=0).T.tolist()
    M, X = len(noise_in), dataset.X_test
    bank = GeneratorBank.random(
        M,
        hidden_size=spec.hidden_size,
        input_size=N_TYPES,
        output_size=n_channels,
        seeds=range(M),
    )
    types = dataset.X_train[np.arange(N_TYPES) % len(dataset.X_train)]
    execution = Execution(n_threads=n_threads)

    def train_fleet(n: int) -> None:
        training = Training.paper(
            n_episodes=n, noise_in=tuple(noise_in), noise_out=tuple(noise_out)
        )
        train(bank, types, training, seeds=range(M), execution=execution)

    def search(n: int) -> None:
        invert(bank, X[:n], solver=Adam(n_iter=N_ITER), execution=execution)

    original_episodes, original_inversions = _original_rates(spec, types, X)
    return {
        "n_modules": M,
        "episodes": M * _rate(train_fleet),
        "inversions": M * _rate(search, len(X)),
        "original_episodes": original_episodes,
        "original_inversions": original_inversions,
        "forward_steps": _rate(_forward_steps(spec, dataset)) if forward else None,
        "n_train": len(dataset.X_train),
        "n_test": len(X),
        "n_classes": n_classes,
    }


def _rate(work: Callable[[int], object], most: int = 10**9) -> float:
    """How often per second `work`, which takes how often, is done; `most` at once."""
    work(1)  # pays for the preparations
    n = 1
    while True:
        begin = time.perf_counter()
        work(n)
        seconds = max(time.perf_counter() - begin, 1e-9)
        if seconds > _SECONDS / 2 or n == most:
            return n / seconds
        n = min(int(n * _SECONDS / seconds) + 1, 20 * n, most)


def _original_rates(spec: DataSpec, types: np.ndarray, X: np.ndarray) -> tuple[float, float]:
    """Episodes and inversions per second of a plain loop over ``nn.LSTM``."""
    import torch

    from micfast import Generator

    K, n_steps, n_channels = types.shape
    eye, targets = torch.eye(K), torch.from_numpy(types)

    def loss(z: Any, target: Any) -> Any:
        return (module(z[None], n_steps)[0] - target).square().mean()

    def train(n: int) -> None:
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(n):
            i = int(torch.randint(K, ()))
            optimizer.zero_grad()
            z = (eye[i] + 0.1 * torch.randn(K)).clamp(0, 1)
            loss(z, targets[i] + 0.1 * torch.randn(targets[i].shape)).backward()
            optimizer.step()

    def search(n: int) -> None:
        for i in range(n):
            z = torch.full((K,), 1 / K, requires_grad=True)
            optimizer = torch.optim.Adam([z], lr=0.05, betas=(0.9, 0.99))
            for _ in range(N_ITER):
                optimizer.zero_grad()
                mixture = z.clamp(0, 1)
                loss(mixture / mixture.sum(), torch.from_numpy(X[i % len(X)])).backward()
                optimizer.step()

    # One thread: at batch size 1 more of them only wait for each other.
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(0)
        module = Generator(K, spec.hidden_size, n_channels)
        episodes = _rate(train)
        module.requires_grad_(False)
        return episodes, _rate(search)


def _forward_steps(spec: DataSpec, dataset: Dataset) -> Callable[[int], object]:
    """Training of the forward LSTM for n steps of Adam: n epochs of one batch."""
    from micfast.experiments.paper.baselines import forward_torch

    n, n_classes = spec.batch_size, len(dataset.classes)
    X = dataset.X_train[np.arange(n) % len(dataset.X_train)]
    y = np.arange(n) % max(2, min(n_classes, n))
    return lambda epochs: forward_torch(
        X,
        y,
        dataset.X_test[:1],
        [0],
        hidden_size=spec.hidden_size * n_classes,
        epochs=epochs,
        batch_size=n,
        seed=0,
    )


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes
    ----------
    frame : pandas.DataFrame
        One row per task of the run, in the order of work: task, what, modules, inversions, seconds
        (expected), pending.
    skipped : list of dict
        What can't be done here, and why.
    original_seconds : float
        How long training and inverting all modules of the run would take the original.
    """

    frame: pd.DataFrame
    skipped: list[dict[str, str]]
    original_seconds: float

    @property
    def pending(self) -> pd.DataFrame:
        """The rows of what is still to be done."""
        return self.frame[self.frame["pending"]]

    def __str__(self) -> str:
        rows = self.pending.groupby("what", sort=False).agg(
            units=("what", "size"),
            modules=("modules", "sum"),
            inversions=("inversions", "sum"),
            about=("seconds", "sum"),
        )
        rows.loc["in all"] = rows.sum()
        about = rows.pop("about").map(format_seconds)
        shown = rows.map(lambda n: f"{n:,.0f}" if n else "").assign(about=about)
        table = shown.rename_axis(index=None, columns="what").to_string()
        total, left = len(self.frame), len(self.pending)
        first = f"{total} units of work:"
        if left < total:
            first = f"{total - left} of {total} units are done already; to do:"
        lines = [first, *(f"  {line}" for line in table.splitlines())]
        if self.original_seconds:
            lines.append(
                "The same modules and inversions the original's way, one at a time in PyTorch, "
                f"would take {format_seconds(self.original_seconds)}."
            )
        lines += [f"Skipped: {item['what']} ({item['why']})" for item in self.skipped]
        return "\n".join(lines)


def make_plan(
    settings: Settings,
    tasks: Sequence[Task],
    done: Collection[Task],
    skipped: list[dict[str, str]],
    rates: Mapping[str, Mapping[str, Any]],
    n_threads: int,
) -> Plan:
    """Estimate every task from the rates of its data set; ``n_threads``: of the clustering."""
    import pandas as pd

    rows, original_seconds, trained = [], 0.0, set()
    for task in tasks:
        spec, rate, pending = settings.spec(task.data), rates[task.data], task not in done
        modules, inversions = _counts(task, spec, rate)
        if task.kind in FIGURES:
            # The figures' modules are trained once for all figures of a data set.
            modules *= (task.data, pending) not in trained
            trained.add((task.data, pending))
        episodes = modules * spec.n_episodes
        original_seconds += episodes / rate["original_episodes"]
        original_seconds += inversions / rate["original_inversions"]
        seconds = episodes / rate["episodes"] + inversions / rate["inversions"]
        seconds += _other_seconds(task, settings, rate, n_threads)
        words = (_WORDS.get(task.kind, "figures"), task.method, task.data)
        what = ", ".join(word for word in words if word)
        rows.append((task, what, modules, inversions, seconds, pending))
    columns = ["task", "what", "modules", "inversions", "seconds", "pending"]
    frame = pd.DataFrame(rows, columns=columns).astype({"pending": bool})
    return Plan(frame, skipped, original_seconds)


def _counts(task: Task, spec: DataSpec, rate: Mapping[str, Any]) -> tuple[int, int]:
    """Modules that a task trains, and inversions of 50 iterations that it makes."""
    C = rate["n_classes"]
    if task.kind == "grid":
        modules = len(spec.noise_levels(task.subset)) * C
        return modules, modules * rate["n_test"]
    if task.kind not in FIGURES:
        return 0, 0
    return C, {"cross": 2 * N_CROSS * C * C, "reconstruction": N_TYPES, "decision": C}[task.kind]


def _other_seconds(
    task: Task, settings: Settings, rate: Mapping[str, Any], n_threads: int
) -> float:
    """Expected time of what isn't training and inverting modules."""
    if task.kind == "types":
        return _CLUSTERING_SECONDS * rate["n_train"] / n_threads * (task.subset == "clustered")
    if task.kind == "baseline":
        return _BASELINE_SECONDS.get(task.method, 5.0)
    if task.kind != "forward" or rate["forward_steps"] is None:
        return 0.0
    spec = settings.spec(task.data)
    budget = spec.forward[settings.budget]
    n, epochs = N_TYPES * rate["n_classes"], budget.epochs_types
    if task.subset == "full":
        n, epochs = min(budget.n_full or rate["n_train"], rate["n_train"]), budget.epochs_full
    # Keras' rate is taken to be torch's.
    return epochs * -(-n // spec.batch_size) / rate["forward_steps"]


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
