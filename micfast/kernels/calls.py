"""Calls of an operator or of its reference, as the execution asks; the layers above call these.

Arguments are trusted here: value types have checked themselves, and the operators check shapes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from micfast.kernels import (
    launch,
    operators,
    reference,
    reference_lm,
    reference_projected,
    reference_training,
    training_operators,
)
from micfast.kernels.backend import resolve_backend
from micfast.kernels.execution import Execution
from micfast.kernels.reference import InvertResult, Objective, Structure
from micfast.kernels.reference_lm import TrainLMResult
from micfast.kernels.reference_projected import TrainProjectedResult
from micfast.kernels.reference_training import TrainResult
from micfast.kernels.weights import Weights
from micfast.progress import Report

__all__ = ["generate", "search", "train"]

_REFERENCES: dict[str, Callable[..., InvertResult]] = {
    "invert": reference.invert,
    "invert_lm": reference.invert_lm,
}


_MEAN_SQUARED_ERROR = Objective()


@contextlib.contextmanager
def _plain_torch() -> Iterator[None]:
    """Keep the caller's inference mode and autocast out of the reference."""
    with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        yield


def _usable(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Autograd refuses tensors that were made in inference mode."""
    return [tensor.clone() if tensor.is_inference() else tensor for tensor in tensors]


def _place(
    where: str, weights: Weights, execution: Execution, plain_loop: bool = True
) -> tuple[str, torch.device]:
    """The backend, and the device on which it runs.

    The CUDA kernels draw the paper's structure alone, and search as in the paper alone; with
    "auto", all else runs on the CPU.
    """
    backend, device = resolve_backend(execution.backend, weights.device), weights.device
    if backend == "cuda" and not (weights.structure.is_plain and plain_loop):
        if execution.backend != "auto":
            if weights.structure.is_plain:
                refused = f"{launch.PLAIN_LOOPS_ALONE}; with 'auto' others run"
            else:
                refused = (
                    f"backend 'cuda' draws no {weights.decoder}, nor other biases of the first "
                    "step; with 'auto' it is drawn"
                )
            raise RuntimeError(f"{where}: {refused} on the CPU, with 'torch' by the reference")
        device = torch.device("cpu")
        backend = resolve_backend("auto", device)
    return backend, device


def generate(weights: Weights, latents: Tensor, n_steps: int, execution: Execution) -> Tensor:
    """Draw sequences (M, N, T, O) from latents (M, N, K); differentiable in every tensor."""
    if weights.decoder.n_layers > 1:
        return generate(weights.as_one_layer, latents, n_steps + 1, execution)[:, :, 1:]
    backend, device = _place("generate", weights, execution)
    if device != latents.device:
        moved = generate(weights.to(device=device), latents.to(device), n_steps, execution)
        return moved.to(latents.device)
    structure = weights.structure
    tensors = (weights.W_ih, weights.W_hh, weights.b, weights.W_out, weights.b_out)
    if backend != "torch" and _has_tangent(latents, *tensors, *structure[3:]):
        # The kernels have no forward mode and would silently drop the tangents.
        if execution.backend != "auto":
            raise RuntimeError(
                f"generate: backend {execution.backend!r} has no forward-mode derivatives; "
                "use 'auto' or 'torch'"
            )
        backend = "torch"
    if backend == "torch":
        with torch.autocast(latents.device.type, enabled=False):
            return reference.generate(tensors, latents, n_steps, structure)
    arguments = (*tensors, latents, n_steps, *structure[:5])
    if torch.compiler.is_compiling():  # cannot trace context variables
        drawn = operators.differentiable_generate(*arguments)
    else:
        with launch.running(execution.n_threads, None):
            drawn = operators.differentiable_generate(*arguments)
    if structure.scale is not None:
        drawn = structure.scale[:, None, None, :] * drawn
    if structure.shift is not None:
        drawn = drawn + structure.shift[:, None, None, :]
    return drawn


def _has_tangent(*tensors: Tensor | None) -> bool:
    unpack = torch.autograd.forward_ad.unpack_dual
    return any(t is not None and unpack(t).tangent is not None for t in tensors)


def search(
    name: str,
    weights: Weights,
    targets: Tensor,
    starts: Tensor,
    settings: tuple,
    execution: Execution,
    report: Report,
    objective: Objective = _MEAN_SQUARED_ERROR,
    **loop: Any,
) -> InvertResult:
    """Run the operator ``invert`` or ``invert_lm``.

    ``settings`` are those before the structure, in the schema's order; ``loop`` those after the
    objective, by name, where they are not the defaults.
    """
    if weights.decoder.n_layers > 1:
        weights, (T, O) = weights.as_one_layer, targets.shape[-2:]
        targets = torch.nn.functional.pad(targets, (0, 0, 1, 0))
        counted = targets.new_ones(T, O) if objective.weights is None else objective.weights
        objective = objective._replace(weights=torch.nn.functional.pad(counted, (0, 0, 1, 0)))
    backend, device = _place(name, weights, execution, objective.is_plain and not loop)
    if device != targets.device:
        weights, x, z = weights.to(device=device), targets.to(device), starts.to(device)
        objective = objective.map(lambda tensor: tensor.to(device))
        found = search(name, weights, x, z, settings, execution, report, objective, **loop)
        return InvertResult(*(tensor.to(targets.device) for tensor in found))
    if backend == "torch":
        with _plain_torch():
            *tensors, targets, starts = _usable([*weights, targets, starts])
            structure = _usable_structure(weights)
            objective = objective.map(lambda tensor: _usable([tensor])[0])
            return _REFERENCES[name](
                tensors, targets, starts, *settings, structure, objective, **loop
            )
    with launch.running(execution.n_threads, report):
        operator = getattr(torch.ops.micfast, name)
        arguments = (*weights, targets, starts, *settings, *weights.structure, *objective)
        return InvertResult(*operator(*arguments, **loop))


def _usable_structure(weights: Weights) -> Structure:
    latent, output, cell, *more = weights.structure
    usable = (None if t is None else _usable([t])[0] for t in more)
    return Structure(latent, output, cell, *usable)


def _require_trainable(where: str, weights: Weights) -> None:
    if weights.decoder.n_layers > 1:
        raise ValueError(
            f"{where}: modules to train must have one layer, got {weights.decoder.n_layers}; train "
            "others in PyTorch, and pass them to GeneratorBank.from_modules"
        )
    operators.require_lstm(where, weights.structure)


def train(
    weights: Weights,
    fleet: tuple[Tensor, ...],
    settings: tuple,
    execution: Execution,
    report: Report,
) -> TrainResult:
    """Run the operator ``train``: ``fleet`` and ``settings`` in the schema's order."""
    _require_trainable("train", weights)
    backend, device = _place("train", weights, execution)
    if device != weights.device:
        moved = tuple(tensor.to(device) for tensor in fleet)
        found = train(weights.to(device=device), moved, settings, execution, report)
        return TrainResult(*(tensor.to(weights.device) for tensor in found))
    if backend == "torch":
        *numbers, omit_nan = settings
        structure = _usable_structure(weights)
        operators.check_train([*weights], fleet, numbers[0], numbers[-1], omit_nan, structure)

        def episodes_done(n_done: int) -> None:
            if report is not None:
                report(n_done / numbers[0])

        with _plain_torch():
            tensors: Any = _usable([*weights, *fleet])
            reference: Callable[..., TrainResult] = reference_training.train
            return reference(
                tensors[:5], *tensors[5:], *numbers, episodes_done, omit_nan, structure
            )
    with launch.running(execution.n_threads, report):
        operator = torch.ops.micfast.train
        return TrainResult(*operator(*weights, *fleet, *settings, *weights.structure))


def train_projected(
    weights: Weights,
    fleet: tuple[Tensor, ...],
    settings: tuple,
    execution: Execution,
    report: Report,
) -> TrainProjectedResult:
    """Run the operator ``train_projected``: ``fleet`` and ``settings`` in the schema's order."""
    return TrainProjectedResult(
        *_run_on_cpu("train_projected", weights, fleet, settings, execution, report)
    )


def train_lm(
    weights: Weights,
    fleet: tuple[Tensor, ...],
    settings: tuple,
    execution: Execution,
    report: Report,
) -> TrainLMResult:
    """Run the operator ``train_lm``: ``fleet`` and ``settings`` in the schema's order."""
    return TrainLMResult(*_run_on_cpu("train_lm", weights, fleet, settings, execution, report))


# What the operator checks, and what it computes.
_EXACT_READ_OUT: dict[str, tuple[Callable[..., Any], Callable[..., Sequence[Tensor]]]] = {
    "train_projected": (
        training_operators.check_train_projected,
        reference_projected.train_projected,
    ),
    "train_lm": (training_operators.check_train_lm, reference_lm.train_lm),
}


def _run_on_cpu(
    name: str,
    weights: Weights,
    fleet: tuple[Tensor, ...],
    settings: tuple,
    execution: Execution,
    report: Report,
) -> Sequence[Tensor]:
    """Run an operator that has no CUDA kernel; under "auto", a GPU's tensors visit the CPU."""
    device, tensors = weights.device, [*weights, *fleet]
    _require_trainable(name, weights)
    if not weights.structure.is_plain:
        raise ValueError(
            f"{name}: this training is for modules that see the latent at the first step and have "
            f"linear outputs, these are {weights.decoder}; train them with method='adam'"
        )
    if execution.backend == "torch" or resolve_backend("auto", "cpu") == "torch":
        resolve_backend(execution.backend, device)
        check, definition = _EXACT_READ_OUT[name]
        check([*weights], fleet, settings)
        with _plain_torch():
            usable = _usable(tensors)
            return definition(usable[:5], *usable[5:], *settings, progress=report)
    if execution.backend != "auto":
        resolve_backend(execution.backend, device)
    if execution.backend == "cuda":
        raise RuntimeError(
            f"{name}: backend 'cuda' has no kernel for this training; use 'auto', which takes the "
            "CPU, or 'torch'"
        )
    with launch.running(execution.n_threads, report):
        on_cpu = [tensor.to("cpu") for tensor in tensors]
        found = getattr(torch.ops.micfast, name)(*on_cpu, *settings)
    return [tensor.to(device) for tensor in found]
