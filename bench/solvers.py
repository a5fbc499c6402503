"""Ways to search, on modules trained on real data: the error they reach against their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

import micfast
from bench.machine import torch_threads
from bench.measure import take_samples
from bench.peers.base import BETA1, BETA2, DAMPING, EPS, LR
from bench.peers.ours import plain_starts
from micfast import Adam, Execution, GeneratorBank, LevenbergMarquardt, Training, train
from micfast.data import Dataset, load_characters, load_digits_sequences, load_mnist
from micfast.data.fetch import data_dir
from micfast.experiments.paper.settings import derive_seed
from micfast.kernels import reference
from micfast.search.solvers import Solver
from micfast.search.starts import Start
from micfast.search.starts.nearest import Nearest, lattice
from micfast.training.types import select_types_per_class

SEED, K = 0, 4
ADAM = "micfast-adam-50"
# The equality step. Where a search meets a fork, the last bit decides which way it goes, in PyTorch
# as here: so not every search can end as the reference's does in float64. But
# - every error timed must be what the reference measures, in float64, at the input returned;
# - in float64, this share of the searches must end at the reference's error, to this part of it;
# - in float32, which is what is timed, as many as PyTorch's own, less what chance may do to a few
#   dozen of them.
ERROR_TOLERANCE = 1e-4
SAME_SHARE, SAME_DOUBLE = 0.9, 1e-6
SAME_FLOAT, CHANCE = 1e-2, 0.2
# An error counts as noticeably higher from here.
HIGHER = 1e-2
_CHECK_MODULES, _CHECK_TARGETS = 4, 8


@dataclass(frozen=True)
class Way:
    """One way to search.

    ``family`` and ``label`` name the line in the picture, on which ways differ by ``n_iter``.
    """

    family: str
    label: str
    n_iter: int
    solver: str = "lm"
    start: str = "uniform"
    n_starts: int = 1

    @property
    def id(self) -> str:
        """Of the row; never changes its meaning."""
        return f"micfast-{self.family}-{self.n_iter}"

    @property
    def settings(self) -> Solver:
        """With all settings, so that no change of a default changes a row."""
        start: Start | str = Nearest(self.n_starts) if self.start == "nearest" else self.start
        if self.solver == "adam":
            return Adam(self.n_iter, LR, (BETA1, BETA2), EPS, tol=0.0, start=start)
        return LevenbergMarquardt(self.n_iter, DAMPING, tol=0.0, start=start)

    @property
    def step(self) -> str:
        """What ``n_iter`` counts, in words."""
        noun = "iteration" if self.solver == "adam" else "step"
        return f"{self.n_iter} {noun}" + ("" if self.n_iter == 1 else "s")


WAYS = (
    Way("adam", "Adam from uniform (the paper)", 50, "adam"),
    *(Way("lm", "LM from uniform", n) for n in (1, 2, 4, 6, 8, 12)),
    *(Way("lm-types", "LM from uniform and types", n, start="types") for n in (4, 8)),
    *(Way("nearest-lm", "LM from nearest", n, start="nearest") for n in (0, 1, 2, 4, 8)),
    *(Way("nearest3-lm", "LM from 3 nearest", n, start="nearest", n_starts=3) for n in (4, 8)),
    Way("nearest-adam", "Adam from nearest", 50, "adam", "nearest"),
)
assert WAYS[0].id == ADAM


@dataclass(frozen=True)
class Recipe:
    """A data set and how its modules are trained; the paper's settings where it has some."""

    data: str
    load: Callable[[], Dataset]
    selection: str
    hidden_size: int
    n_episodes: int
    noise: dict[str, tuple[float, float]] = field(hash=False)


# `data_dir` is given so that nothing is downloaded in a measurement.
CHARACTERS = Recipe(
    "characters",
    lambda: load_characters(n_test=400, random_state=SEED, data_dir=data_dir()),
    "dtw-kmeans",
    10,
    40000,
    {"clean": (0.0, 0.0), "noise": (0.2, 0.0001)},
)
MNIST = Recipe(
    "mnist",
    lambda: load_mnist(n_test=1000, data_dir=data_dir()),
    "kmeans",
    20,
    20000,
    {"clean": (0.0, 0.0), "noise": (0.2, 0.1)},
)
DIGITS = Recipe(
    "digits",
    lambda: load_digits_sequences(random_state=SEED),
    "kmeans",
    16,
    20000,
    {"clean": (0.0, 0.0), "noise": (0.2, 0.1)},
)
_QUICK_EPISODES, _QUICK_TARGETS = 1500, 40


@dataclass(frozen=True, eq=False)
class SolverProblem:
    """Modules and unseen targets; ``own`` is the index of each target's true module."""

    case: dict[str, Any]
    bank: GeneratorBank
    targets: np.ndarray
    own: np.ndarray

    def invert(self, way: Way) -> micfast.Inversion:
        """What is timed."""
        return micfast.invert(self.bank, self.targets, solver=way.settings, execution="cpu")

    def sample(self) -> SolverProblem:
        """A few modules, and targets from all over the test part."""
        modules = range(min(_CHECK_MODULES, self.bank.n_modules))
        last = len(self.targets) - 1
        rows = np.linspace(0, last, min(_CHECK_TARGETS, last + 1)).astype(int)
        bank = self.bank.select(indices=list(modules))
        return SolverProblem(self.case, bank, self.targets[rows], self.own[rows])

    def double(self) -> SolverProblem:
        """In float64."""
        return replace(
            self, bank=self.bank.to(dtype=torch.float64), targets=self.targets.astype(np.float64)
        )


@dataclass
class SolverContender:
    """A way that has passed the equality step; see :func:`bench.measure.take_samples`."""

    way: Way
    problem: SolverProblem
    row: dict[str, Any]
    errors: np.ndarray | None = None
    n_samples: int = 0

    def run(self, n: int, *, settle: bool) -> list[float]:
        """Seconds of each of n runs; no other library's threads run here that would settle."""
        return [self._run_once() for _ in range(n)]

    def _run_once(self) -> float:
        start = time.perf_counter()
        result = self.problem.invert(self.way)
        seconds = time.perf_counter() - start
        self.errors = result.errors
        return seconds


def measure_solvers(n_threads: int, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The solvers suite.

    Parameters
    ----------
    n_threads : int
        For types and training; everything timed runs on one.
    quick : bool
    say : callable

    Returns
    -------
    dict
        ``rows``; ``training``, how the modules came about; ``n_candidates`` of "nearest".
    """
    rows: list[dict[str, Any]] = []
    training: list[dict[str, Any]] = []
    for recipe, dataset, note in choose_recipes(quick):
        say(f"solvers: training modules of {recipe.data}")
        with torch_threads(n_threads):
            problems, record = _train(recipe, dataset, n_threads, quick)
        training.append({**record, "note": note})
        for problem in problems:
            say(f"solvers: {problem.case['id']}, 1 thread")
            with torch_threads(1):
                problem.case["drawings_s"] = _time_drawings(problem)
                rows += measure_problem(problem, quick=quick)
    return {"rows": rows, "training": training, "n_candidates": len(lattice(K))}


def choose_recipes(quick: bool) -> Iterator[tuple[Recipe, Dataset, str]]:
    """What is trained on which data, and a note where they stand in for others."""
    if quick:
        yield DIGITS, DIGITS.load(), "toy size: digits alone"
        return
    missing = []
    for recipe in (CHARACTERS, MNIST):
        try:
            dataset = recipe.load()
        except FileNotFoundError:
            missing.append(recipe.data)
        else:
            yield recipe, dataset, ""
    if missing:
        note = f"no data of {' and '.join(missing)} here: scikit-learn's digits stand in"
        yield DIGITS, DIGITS.load(), note


def _train(
    recipe: Recipe, dataset: Dataset, n_threads: int, quick: bool
) -> tuple[list[SolverProblem], dict[str, Any]]:
    """Modules for each noise setting, in one call, as ``micfast reproduce`` trains them."""
    n_episodes = _QUICK_EPISODES if quick else recipe.n_episodes
    n_targets = _QUICK_TARGETS if quick else len(dataset.X_test)
    start = time.perf_counter()
    types, labels, _ = select_types_per_class(
        dataset.X_train,
        dataset.y_train,
        K,
        selection=recipe.selection,
        random_state=derive_seed(SEED, recipe.data, "clustered", "types"),
        n_jobs=n_threads,
        cache=False,
    )
    types_s = time.perf_counter() - start
    types = types.astype(np.float32)
    C, _, T, O = types.shape
    settings = list(recipe.noise.values())
    seeds = [
        derive_seed(SEED, recipe.data, "clustered", "module", *noise, str(label))
        for noise in settings
        for label in labels
    ]
    initial = GeneratorBank.random(
        len(seeds), hidden_size=recipe.hidden_size, input_size=K, output_size=O, seeds=seeds
    )
    noise_in, noise_out = np.repeat(settings, C, axis=0).T.tolist()
    training = Training.paper(n_episodes, noise_in=noise_in, noise_out=noise_out)
    fleet_types = np.concatenate([types] * len(settings))
    start = time.perf_counter()
    trained = train(initial, fleet_types, training, seeds=seeds, execution=Execution("cpu"))
    train_s = time.perf_counter() - start
    problems = []
    for s, (name, (noise_in, noise_out)) in enumerate(recipe.noise.items()):
        H = recipe.hidden_size
        case = {
            "id": f"solvers-{recipe.data}-{name}" + ("-quick" if quick else ""),
            **{"data": recipe.data, "M": C, "N": n_targets, "H": H, "K": K, "O": O, "T": T},
            **{"E": n_episodes, "noise_in": noise_in, "noise_out": noise_out},
            **{"unit": "pair", "amount": C * n_targets},
        }
        bank = trained.bank.select(indices=range(s * C, (s + 1) * C))
        own = np.searchsorted(labels, dataset.y_test[:n_targets])
        problems.append(SolverProblem(case, bank, dataset.X_test[:n_targets], own))
    record = {
        "data": recipe.data,
        "selection": recipe.selection,
        "modules": len(seeds),
        "threads": n_threads,
        "types_s": types_s,
        "train_s": train_s,
    }
    return problems, record


def _time_drawings(problem: SolverProblem) -> float:
    """Seconds for the drawings that "nearest" chooses among, made once per bank and length."""
    way = next(w for w in WAYS if w.start == "nearest" and w.n_iter == 0)
    one = replace(problem, targets=problem.targets[:1])
    _ = one.invert(way)
    copies = [GeneratorBank(problem.bank.weights) for _ in range(3)]
    differences = []
    for bank in copies:
        fresh = SolverContender(way, replace(one, bank=bank), {})
        first, again = fresh.run(2, settle=False)
        differences.append(max(first - again, 0.0))
    return float(np.median(differences))


def measure_problem(problem: SolverProblem, *, quick: bool) -> list[dict[str, Any]]:
    """Rows of one problem, one for each of :data:`WAYS`; Adam's is the first."""
    contenders, rows = [], []
    sample = problem.sample()
    for way in WAYS:
        row: dict[str, Any] = {
            "case": problem.case,
            "peer": way.id,
            "family": way.family,
            "family_label": way.label,
            "label": f"{way.label}, {way.step}",
            "n_iter": way.n_iter,
            "threads": 1,
            "status": "ok",
            "note": "",
            "measured": {
                **{"amount": problem.case["amount"], "of": problem.case["amount"]},
                "unit": problem.case["unit"],
            },
            "equality": compare(sample, way),
        }
        rows.append(row)
        if row["equality"]["passed"]:
            contenders.append(SolverContender(way, problem, row))
        else:
            row.update(status="failed", note="its results differ from the reference")
    take_samples(contenders, quick)
    judge(contenders, problem.own)
    return rows


def judge(contenders: list[SolverContender], own: np.ndarray) -> None:
    """Fill in errors and accuracy; Adam's contender, if there, is the first."""
    targets, adam = np.arange(len(own)), None
    for contender in contenders:
        errors, row = contender.errors, contender.row
        assert errors is not None
        if not np.isfinite(errors).all():
            n = int((~np.isfinite(errors)).sum())
            row.update(status="failed", note=f"{n} errors are not finite")
            del row["samples_s"]
            continue
        true = errors[targets, own].astype(np.float64)
        row["error_true"] = float(true.mean())
        row["accuracy"] = float((errors.argmin(axis=1) == own).mean())
        if row["peer"] == ADAM:
            adam = true
        elif adam is not None:
            row["lower_share"] = float((true < adam).mean())
            row["equal_share"] = float((true == adam).mean())
            row["higher_share"] = float((true > (1 + HIGHER) * adam).mean())


# ----------------------------------------------------------------------------------------- equality


def compare(sample: SolverProblem, way: Way) -> dict[str, Any]:
    """Hold a sample's errors against the reference in float64; see the limits above."""
    exact = sample.double()
    expected = _expect(exact, way)
    found = sample.invert(way)
    latents = torch.from_numpy(found.latents).double().transpose(0, 1).contiguous()
    drawn = reference.generate(exact.bank.weights, latents, exact.targets.shape[1])
    measured = (drawn - torch.from_numpy(exact.targets)).square().mean(dim=(-2, -1)).mT.numpy()
    difference = float(np.abs(found.errors - measured).max() / measured.max())

    def share(errors: np.ndarray, limit: float) -> float:
        return float((np.abs(errors - expected) <= limit * expected).mean())

    same_double = share(exact.invert(way).errors, SAME_DOUBLE)
    same_float = share(found.errors, SAME_FLOAT)
    same_torch = share(_expect(sample, way), SAME_FLOAT)
    return {
        "quantity": "errors",
        "compared": expected.size,
        "difference": difference,
        "tolerance": ERROR_TOLERANCE,
        "same_double": same_double,
        "same_float": same_float,
        "same_torch": same_torch,
        # NaN passes none of them.
        "passed": difference <= ERROR_TOLERANCE
        and same_double >= SAME_SHARE
        and same_float >= same_torch - CHANCE,
    }


def _expect(problem: SolverProblem, way: Way) -> np.ndarray:
    """Errors (N, M) by the reference, from starts found in the plainest way."""
    weights, targets = problem.bank.weights, torch.from_numpy(problem.targets)
    starts = plain_starts(weights, targets, way.start, way.n_starts)
    if way.solver == "adam":
        result = reference.invert(weights, targets, starts, way.n_iter, LR, BETA1, BETA2, EPS)
    else:
        result = reference.invert_lm(weights, targets, starts, way.n_iter, DAMPING)
    return result.errors.amin(dim=2).mT.numpy()
