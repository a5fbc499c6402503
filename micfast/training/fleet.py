"""Training of whole fleets of modules: one run, or runs until each module has learned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from micfast.arrays import as_tensor, to_numpy
from micfast.generators.bank import GeneratorBank
from micfast.kernels import calls
from micfast.kernels.execution import Execution
from micfast.kernels.reference import mean_squared_error
from micfast.kernels.weights import Weights
from micfast.progress import reporter
from micfast.training.settings import Training

__all__ = ["ModuleReport", "Trained", "n_different", "train", "train_until_learned"]

# Adam's settings besides the learning rate, as in torch and the paper.
_BETAS_AND_EPS = (0.9, 0.999, 1e-8)
_CURVE_POINTS = 100
# Below this variance (standardised units) types count as constant: with the default learned_tol a
# module must then draw them with a mean squared error of 1e-4.
_LEAST_VARIANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of :func:`train`.

    Attributes
    ----------
    bank : GeneratorBank
        The trained modules, with the labels and metadata of the bank they started from.
    loss_curves : ndarray of shape (M, at most 100)
        Mean training loss over consecutive runs of episodes.
    errors : ndarray of shape (M,), float64
        Noise-free mean squared error of each module's drawings of its types.
    """

    bank: GeneratorBank
    loss_curves: NDArray[Any]
    errors: NDArray[np.float64]


def train(
    bank: GeneratorBank,
    types: Any,
    training: Training | None = None,
    *,
    seeds: Iterable[int],
    execution: Execution | str | None = None,
) -> Trained:
    """Train a fleet of modules in one run, each on its own types, with its own noise and seed.

    An episode shows one of the K types: its one-hot code (plus noise, clipped to [0, 1]) is the
    input, its sequence (plus noise) the target; one Adam step on the mean squared error. A
    module's result does not depend on the fleet around it, bit for bit.

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
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> types = np.linspace(-1, 1, 2 * 3 * 8).reshape(2, 3, 8, 1)
    >>> trained = train(bank, types, Training(n_episodes=50), seeds=[2, 3])
    >>> trained.bank.n_modules, trained.errors.shape
    (2, (2,))
    """
    training = Training() if training is None else training
    if not isinstance(training, Training):
        raise TypeError(f"train: training must be a Training, got {training!r}")
    if not isinstance(bank, GeneratorBank):
        raise TypeError(f"train: bank must be a GeneratorBank, got {type(bank).__name__}")
    execution = Execution.of(execution)
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
    omit_nan = bool(sets.isnan().any())
    fleet = (
        sets[:, :, None],
        torch.arange(M, device=device),
        _per_module("noise_in", training.noise_in, M, device),
        _per_module("noise_out", training.noise_out, M, device),
        torch.tensor(numbers, dtype=torch.int64, device=device),
    )
    rate = training.learning_rate
    settings = (training.n_episodes, rate, *_BETAS_AND_EPS, _CURVE_POINTS, omit_nan)
    total = M * training.n_episodes
    with reporter(execution.progress, "training", total=total, unit="episode") as report:
        result = calls.train(bank.weights, fleet, settings, execution, report)
        if report is not None:
            report(1.0)
    weights, b_first, b_state = bank.weights, result.b_first, result.b_state
    new = Weights(
        *result[:5],
        decoder=weights.decoder,
        b_first=b_first if b_first.numel() else None,
        b_state=b_state if b_state.numel() else None,
        scale=weights.scale,
        shift=weights.shift,
    )
    trained = GeneratorBank(new, bank.classes, bank.metadata)
    errors = _errors_on_types(trained, sets, omit_nan, execution)
    return Trained(trained, to_numpy(result.loss_curve), errors)


def _per_module(name: str, value: Any, M: int, device: torch.device) -> Tensor:
    levels = [value] * M if isinstance(value, float) else list(value)
    if len(levels) != M:
        raise ValueError(f"train: {name} must be one number or {M}, got {len(levels)}")
    return torch.tensor(levels, dtype=torch.float64, device=device)


def _errors_on_types(
    bank: GeneratorBank, types: Tensor, omit_nan: bool, execution: Execution
) -> NDArray[np.float64]:
    """Noise-free mean squared error (M,) on types (M, K, T, O)."""
    one_hot = torch.eye(bank.input_size, dtype=bank.dtype, device=bank.device)
    drawn = bank.generate(one_hot, types.shape[2], execution=execution)
    errors = (drawn - types).double().square().mean(dim=(1, 2, 3))
    if omit_nan:
        # Only where a type has gaps: the last bit must not depend on the rest of the fleet.
        known = mean_squared_error(drawn.double(), types.double(), True).mean(dim=1)
        errors = torch.where(types.flatten(1).isnan().any(dim=1), known, errors)
    return to_numpy(errors)


# -- until learned -------------------------------------------------------------------------------


@dataclass
class ModuleReport:
    """How one module's training went.

    Attributes
    ----------
    attempts : int
        Trainings, the first one included.
    seeds : list of int
        One per attempt.
    mse : float
        Noise-free mean squared error of the types, of the best attempt.
    relative_mse : float
        That over the types' variance.
    learned : bool
    seconds : float
        Time of the training runs it took part in.
    loss_curve : ndarray
        Of the best attempt.
    """

    attempts: int = 0
    seeds: list[int] = field(default_factory=list)
    mse: float = math.nan
    relative_mse: float = math.nan
    learned: bool = False
    seconds: float = 0.0
    loss_curve: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=np.float32))


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
    M, K, _, C = types.shape
    variance = _variance(types)
    reports = [ModuleReport() for _ in range(M)]
    best: list[Weights | None] = [None] * M
    pending = list(range(M))
    sizes = {"hidden_size": hidden_size, "input_size": K, "output_size": C}
    for attempt in range(training.max_retries + 1):
        seeds = [seed_of(m, attempt) for m in pending]
        start = GeneratorBank.random(len(pending), seeds=seeds, **sizes).to(device=device)
        began = time.perf_counter()
        trained = train(start, types[pending], training, seeds=seeds, execution=execution)
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
                report.relative_mse = mse / max(float(variance[m]), _LEAST_VARIANCE)
                report.learned = report.relative_mse <= training.learned_tol
                report.loss_curve = trained.loss_curves[j]
        pending = [m for m in pending if not reports[m].learned]
        if not pending:
            break
    return Weights.concat(w for w in best if w is not None), reports


def _or_infinite(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _variance(types: NDArray[Any]) -> NDArray[np.float64]:
    """Variance (M,) of types (M, K, T, C) around each channel's mean, over their values."""
    if np.isnan(types).any():
        known = np.ma.masked_invalid(types)
        return np.ma.filled(known.var(axis=(1, 2), dtype=np.float64).mean(axis=-1), 0)
    return types.var(axis=(1, 2), dtype=np.float64).mean(axis=-1)


def n_different(types: Sequence[NDArray[Any]]) -> int:
    """How many of the types differ from each other."""
    # Any number for NaN, which is not equal to itself.
    flat = np.nan_to_num(np.asarray(types), nan=np.inf).reshape(len(types), -1)
    return len(np.unique(flat, axis=0))
