"""Calls of an operator or of its reference, as the execution asks; the layers above call these.

Arguments are trusted here: value types have checked themselves, and the operators check shapes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from micfast.kernels import launch, operators, reference, reference_training
from micfast.kernels.backend import resolve_backend
from micfast.kernels.execution import Execution
from micfast.kernels.reference import InvertResult
from micfast.kernels.reference_training import TrainResult
from micfast.kernels.weights import Weights
from micfast.progress import Report

__all__ = ["generate", "search", "train"]

_REFERENCES: dict[str, Callable[..., InvertResult]] = {
    "invert": reference.invert,
    "invert_lm": reference.invert_lm,
}


@contextlib.contextmanager
def _plain_torch() -> Iterator[None]:
    """Keep the caller's inference mode and autocast out of the reference."""
    with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        yield


def _usable(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Autograd refuses tensors that were made in inference mode."""
    return [tensor.clone() if tensor.is_inference() else tensor for tensor in tensors]


def generate(weights: Weights, latents: Tensor, n_steps: int, execution: Execution) -> Tensor:
    """Draw sequences (M, N, T, O) from latents (M, N, K); differentiable in every tensor."""
    backend = resolve_backend(execution.backend, latents.device)
    tensors = (weights.W_ih, weights.W_hh, weights.b, weights.W_out, weights.b_out)
    if backend != "torch" and _has_tangent(*tensors, latents):
        # The kernels have no forward mode and would silently drop the tangents.
        if execution.backend != "auto":
            raise RuntimeError(
                f"generate: backend {execution.backend!r} has no forward-mode derivatives; "
                "use 'auto' or 'torch'"
            )
        backend = "torch"
    if backend == "torch":
        with torch.autocast(latents.device.type, enabled=False):
            return reference.generate(tensors, latents, n_steps)
    if torch.compiler.is_compiling():  # cannot trace context variables
        return operators.differentiable_generate(*tensors, latents, n_steps)
    with launch.running(execution.n_threads, None):
        return operators.differentiable_generate(*tensors, latents, n_steps)


def _has_tangent(*tensors: Tensor) -> bool:
    return any(torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def search(
    name: str,
    weights: Weights,
    targets: Tensor,
    starts: Tensor,
    settings: tuple,
    execution: Execution,
    report: Report,
) -> InvertResult:
    """Run the operator ``invert`` or ``invert_lm`` with its settings, in the schema's order."""
    if resolve_backend(execution.backend, targets.device) == "torch":
        with _plain_torch():
            *tensors, targets, starts = _usable([*weights, targets, starts])
            return _REFERENCES[name](tensors, targets, starts, *settings)
    with launch.running(execution.n_threads, report):
        operator = getattr(torch.ops.micfast, name)
        return InvertResult(*operator(*weights, targets, starts, *settings))


def train(
    weights: Weights,
    fleet: tuple[Tensor, ...],
    settings: tuple,
    execution: Execution,
    report: Report,
) -> TrainResult:
    """Run the operator ``train``: ``fleet`` and ``settings`` in the schema's order."""
    if resolve_backend(execution.backend, weights.device) == "torch":
        *numbers, omit_nan = settings
        operators.check_train([*weights], fleet, numbers[0], numbers[-1], omit_nan)

        def episodes_done(n_done: int) -> None:
            if report is not None:
                report(n_done / numbers[0])

        with _plain_torch():
            tensors: Any = _usable([*weights, *fleet])
            reference: Callable[..., TrainResult] = reference_training.train
            return reference(tensors[:5], *tensors[5:], *numbers, episodes_done, omit_nan)
    with launch.running(execution.n_threads, report):
        return TrainResult(*torch.ops.micfast.train(*weights, *fleet, *settings))
