"""Training of whole fleets of modules: one run, or runs until each module has learned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from micfast.arrays import as_tensor, to_numpy
from micfast.generators.bank import GeneratorBank, check_memory
from micfast.kernels.execution import Execution
from micfast.kernels.weights import Weights
from micfast.progress import reporter
from micfast.training.errors import errors_on_types, held_share, hidden_size_for, variance
from micfast.training.methods import Fleet
from micfast.training.report import ModuleReport
from micfast.training.settings import Training

__all__ = ["Trained", "n_different", "train", "train_until_learned"]


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of :func:`train`.

    Attributes
    ----------
    bank : GeneratorBank
        The trained modules, with the labels and metadata of the bank they started from.
    loss_curves : list of ndarray
        Each module's training losses: mean squared errors with ``method="adam"``, else relative
        errors. Means over consecutive runs of steps, at most 100; with "lm" one per Jacobian.
    errors : ndarray of shape (M,), float64
        Noise-free mean squared error of each module's drawings of its types.
    steps : list of dict
        Of each module: how many steps (episodes, Jacobians) by the name of each method, in order.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import GeneratorBank, Training, train
    >>> bank = GeneratorBank.random(1, hidden_size=6, input_size=2, output_size=1, seeds=[0])
    >>> types = np.stack([np.sin(np.linspace(0, 6, 30)), np.cos(np.linspace(0, 6, 30))])[..., None]
    >>> trained = train(bank, types, Training(noise_in=0), seeds=[0])
    >>> trained.bank.n_modules, bool(trained.errors[0] < 0.01), [*trained.steps[0]]
    (1, True, ['projected'])
    """

    bank: GeneratorBank
    loss_curves: list[NDArray[Any]]
    errors: NDArray[np.float64]
    steps: list[dict[str, int]]


def train(
    bank: GeneratorBank,
    types: Any,
    training: Training | None = None,
    *,
    seeds: Iterable[int],
    execution: Execution | str | None = None,
) -> Trained:
    """Train a fleet of modules in one run, each on its own types, with its own noise and seed.

    A module learns to draw type k from the k-th one-hot code. Its result does not depend on the
    fleet around it, bit for bit.

    Parameters
    ----------
    bank : GeneratorBank
        The modules to start from; they stay as they are.
    types : array of shape (M, K, T, O), or (K, T, O) for the same types in all modules
        NaN is a missing value; a shorter type ends in NaN.
    training : Training, optional
    seeds : iterable of int
        One per module, from -2**63 to 2**63 - 1.
    execution : Execution or str, optional
        Where and how the work is done, or the name of a backend.

    Returns
    -------
    Trained

    Raises
    ------
    TypeError
        If ``types`` holds anything but real numbers, or an argument is of another type.
    ValueError
        If shapes do not fit the bank.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import GeneratorBank, Training, train
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> types = np.linspace(-1, 1, 2 * 3 * 8).reshape(2, 3, 8, 1)
    >>> trained = train(bank, types, Training.paper(n_episodes=50), seeds=[2, 3])
    >>> trained.bank.n_modules, trained.errors.shape
    (2, (2,))
    """
    training = Training() if training is None else training
    if not isinstance(training, Training):
        raise TypeError(f"train: training must be a Training, got {training!r}")
    if not isinstance(bank, GeneratorBank):
        raise TypeError(f"train: bank must be a GeneratorBank, got {type(bank).__name__}")
    execution = Execution.of(execution)
    method: Any = training.method
    M, _, K, O = bank.weights.sizes
    device = bank.device
    sets = as_tensor(types, "train: types").detach().to(dtype=bank.dtype, device=device)
    if sets.ndim == 3:
        sets = sets[None].expand(M, -1, -1, -1)
    T = sets.shape[2] if sets.ndim == 4 else 0
    if tuple(sets.shape) != (M, K, T, O) or T == 0:
        raise ValueError(
            "train: types must have shape [n_modules, n_types, n_timesteps, n_channels] = "
            f"[{M}, {K}, *, {O}] or [{K}, *, {O}], got {list(sets.shape)}"
        )
    numbers = [int(seed) for seed in seeds]
    if len(numbers) != M:
        raise ValueError(f"train: seeds must hold one integer per module, {M}, got {len(numbers)}")
    fleet = Fleet(
        weights=bank.weights,
        types=sets,
        variance=torch.from_numpy(variance(to_numpy(sets))).to(device),
        noise_in=_per_module("noise_in", training.noise_in, M, device),
        noise_out=_per_module("noise_out", training.noise_out, M, device),
        seeds=torch.tensor(numbers, dtype=torch.int64, device=device),
        goal=training.goal,
        learned_tol=training.learned_tol,
        omit_nan=bool(sets.isnan().any()),
    )
    with reporter(execution.progress, "training", total=M, unit="module") as report:
        found = method.train(fleet, execution, report)
        if report is not None:
            report(1.0)
    trained = GeneratorBank(found.weights, bank.classes, bank.metadata)
    errors = errors_on_types(found.weights, sets, execution)
    return Trained(trained, found.curves, errors, found.steps)


def _per_module(name: str, value: Any, M: int, device: torch.device) -> Tensor:
    levels = [value] * M if isinstance(value, float) else list(value)
    if len(levels) != M:
        raise ValueError(f"train: {name} must be one number or {M}, got {len(levels)}")
    return torch.tensor(levels, dtype=torch.float64, device=device)


# -- until learned -------------------------------------------------------------------------------


def train_until_learned(
    types: NDArray[np.float32],
    training: Training,
    *,
    hidden_size: int,
    seed_of: Callable[[int, int], int],
    device: torch.device | str,
    execution: Execution,
) -> tuple[Weights, list[ModuleReport]]:
    """Train new modules; retrain those that failed to learn, and keep each one's best attempt.

    Parameters
    ----------
    types : ndarray of shape (M, K, T, C)
        Each module's types, in standardised units.
    training : Training
    hidden_size : int
    seed_of : callable
        Gives the seed of a module's attempt: its initial weights and its training.
    device : torch.device or str
        Where to train.
    execution : Execution

    Returns
    -------
    weights : Weights
        Of M modules, on the CPU.
    reports : list of ModuleReport
    """
    initialization: Any = training.initialization
    method: Any = training.method
    M, K, _, C = types.shape
    check_memory("train", M, hidden_size, K, C, types.itemsize)
    scale = variance(types)
    reports = [ModuleReport() for _ in range(M)]
    best: list[Weights | None] = [None] * M
    pending, again = list(range(M)), training.replace(method=method.again())
    for attempt in range(training.max_retries + 1):
        seeds = [seed_of(m, attempt) for m in pending]
        began = time.perf_counter()
        start = initialization.weights(types[pending], hidden_size, seeds)
        bank = GeneratorBank(start).to(device=device)
        own = training if attempt == 0 else again
        trained = train(bank, types[pending], own, seeds=seeds, execution=execution)
        seconds = time.perf_counter() - began
        weights = trained.bank.weights.to(device="cpu")
        for j, m in enumerate(pending):
            report, mse = reports[m], float(trained.errors[j])
            report.attempts += 1
            report.seeds.append(seeds[j])
            report.seconds += seconds
            # NaN (it diverged) counts as the highest error.
            if best[m] is None or _or_infinite(mse) < _or_infinite(report.mse):
                best[m] = weights[j : j + 1]
                report.mse = mse
                report.relative_mse = mse / float(scale[m])
                report.learned = report.relative_mse <= training.learned_tol
                report.steps = trained.steps[j]
                report.loss_curve = trained.loss_curves[j]
        pending = [m for m in pending if not reports[m].learned]
        if attempt == 0 and not method.tries_rich_types:
            enough = 1 - training.learned_tol
            pending = [m for m in pending if held_share(types[m], hidden_size) >= enough]
        if not pending:
            break
    for m, report in enumerate(reports):
        if not report.learned:
            report.reason = _reason(types[m], training, hidden_size)
    return Weights.concat(w for w in best if w is not None), reports


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _reason(types: NDArray[Any], training: Training, hidden_size: int) -> str:
    """Why a module may have failed to learn types (K, T, C), in words."""
    share, wanted = held_share(types, hidden_size), 1 - training.learned_tol
    if share < wanted:
        return (
            f"hidden_size={hidden_size} holds about {share:.0%} of the variance of such types, "
            f"{wanted:.0%} need about {hidden_size_for(types, wanted)}"
        )
    if training.noise_in or training.noise_out:
        return "more steps, less noise or a larger hidden_size may help"
    return "more steps or a larger hidden_size may help"


def n_different(types: Sequence[NDArray[Any]]) -> int:
    """How many of the types differ from each other."""
    # Any number for NaN, which is not equal to itself.
    flat = np.nan_to_num(np.asarray(types), nan=np.inf).reshape(len(types), -1)
    return len(np.unique(flat, axis=0))
