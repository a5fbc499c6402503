"""micfast's operators as the tests call them: kernel and reference under one signature.

``backend="torch"`` is the reference, ``"cpu"`` the compiled kernels and ``"auto"`` whichever is
there. Starts may come without their axis of several starts, types without that of variants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from micfast import Execution, Weights
from micfast.kernels import calls
from micfast.kernels.reference import InvertResult
from micfast.kernels.reference_training import TrainResult

Report = Callable[[float], object] | None


def as_weights(weights: Iterable[Tensor]) -> Weights:
    """Five tensors, checked."""
    return weights if isinstance(weights, Weights) else Weights(*weights)


def generate(
    weights: Iterable[Tensor],
    latents: Tensor,
    n_steps: int,
    *,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Tensor:
    """Draw (M, N, T, O)."""
    return calls.generate(as_weights(weights), latents, n_steps, Execution(backend, n_threads))


def _search(
    name: str,
    weights: Iterable[Tensor],
    targets: Tensor,
    init: Tensor,
    settings: tuple[Any, ...],
    execution: Execution,
    progress: Report,
    **loop: Any,
) -> InvertResult:
    single = init.dim() == 3
    starts = init.unsqueeze(2) if single else init
    arguments = (name, as_weights(weights), targets, starts, settings, execution, progress)
    found = calls.search(*arguments, **loop)
    if not single:
        return found
    return InvertResult(*(t.squeeze(2 if i < 4 else 3) for i, t in enumerate(found)))


def invert(
    weights: Iterable[Tensor],
    targets: Tensor,
    init: Tensor,
    n_iter: int = 50,
    lr: float = 0.05,
    beta1: float = 0.9,
    beta2: float = 0.99,
    eps: float = 1e-8,
    unprojected_error: bool = False,
    return_history: bool = False,
    tol: float = 0.0,
    omit_nan: bool = False,
    *,
    backend: str = "auto",
    n_threads: int | None = None,
    progress: Report = None,
    **loop: Any,
) -> InvertResult:
    """Search by Adam."""
    settings = (n_iter, lr, beta1, beta2, eps, unprojected_error, return_history, tol, omit_nan)
    execution = Execution(backend, n_threads)
    return _search("invert", weights, targets, init, settings, execution, progress, **loop)


def invert_lm(
    weights: Iterable[Tensor],
    targets: Tensor,
    init: Tensor,
    n_iter: int = 8,
    damping: float = 0.1,
    simplex: bool = True,
    return_history: bool = False,
    tol: float = 0.0,
    omit_nan: bool = False,
    *,
    backend: str = "auto",
    n_threads: int | None = None,
    progress: Report = None,
    **loop: Any,
) -> InvertResult:
    """Search by Levenberg–Marquardt."""
    settings = (n_iter, damping, simplex, return_history, tol, omit_nan)
    execution = Execution(backend, n_threads)
    return _search("invert_lm", weights, targets, init, settings, execution, progress, **loop)


def train(
    weights: Iterable[Tensor],
    type_sets: Tensor,
    set_index: Tensor,
    noise_in: Tensor,
    noise_out: Tensor,
    seeds: Tensor,
    n_episodes: int,
    lr: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    n_curve: int = 100,
    omit_nan: bool = False,
    *,
    backend: str = "auto",
    n_threads: int | None = None,
    progress: Report = None,
) -> TrainResult:
    """Train a fleet on type sets (S, K, T, O) or (S, K, V, T, O)."""
    variants = type_sets.unsqueeze(2) if type_sets.dim() == 4 else type_sets
    fleet = (variants, set_index, noise_in, noise_out, seeds)
    settings = (n_episodes, lr, beta1, beta2, eps, n_curve, omit_nan)
    execution = Execution(backend, n_threads)
    return calls.train(as_weights(weights), fleet, settings, execution, progress)
