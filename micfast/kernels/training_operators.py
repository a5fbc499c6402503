"""The torch operators ``train_projected`` and ``train_lm``: training with an exact read-out.

As in ``operators.py``. Their definitions: ``reference_projected.py`` and ``reference_lm.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from micfast.kernels import launch, reference_projected
from micfast.kernels.definition import WEIGHTS, check_adam, check_shape, extents, operator, require
from micfast.kernels.reference import Structure
from micfast.kernels.weights import check_weights

__all__ = ["check_train_lm", "check_train_projected"]

_FLEET = "Tensor type_sets, Tensor variances, Tensor set_index"
_WEIGHTS_AND = "Tensor, Tensor, Tensor, Tensor, Tensor"
_NO_MORE = [0, 0]  # no biases beside those of the five tensors


def _check_types(
    where: str, weights: Sequence[Tensor], fleet: Sequence[Tensor], omit_nan: bool
) -> tuple[int, int, int, int, int, int]:
    """Check type sets, variances and set index; return M, 0, T, H, K, O."""
    type_sets, variances, set_index = fleet[:3]
    M, H, K, O = check_weights(where, weights)
    check_shape(where, "type_sets", type_sets, weights[0], "(S, K, T, O)", None, K, None, O)
    n_sets, _, T, _ = type_sets.shape
    require(T >= 1, where, "the number of steps of type_sets", "at least 1", T)
    integers = weights[0].new_empty(0, dtype=torch.int64)
    numbers = weights[0].new_empty(0, dtype=torch.float64)
    check_shape(where, "variances", variances, numbers, "(S,)", n_sets)
    require(bool((variances > 0).all()), where, "variances", "above 0", variances.tolist())
    check_shape(where, "set_index", set_index, integers, "(M,)", M)
    inside = bool(((set_index >= 0) & (set_index < n_sets)).all())
    require(inside, where, "set_index", f"from 0 to {n_sets - 1}", set_index.tolist())
    if omit_nan and bool(type_sets.isnan().flatten(-2).all(dim=-1).any()):
        raise ValueError(f"{where}: every type in type_sets must hold a value that is not NaN")
    return M, 0, T, H, K, O


def _refuse_cuda(where: str, tensor: Tensor) -> None:
    if tensor.is_cuda:
        raise RuntimeError(f"{where}: has no CUDA kernel; move the tensors to the CPU")


def _missing(types: Tensor, set_index: Tensor, omit_nan: bool) -> tuple[list[Tensor], int]:
    """Lengths of the types (S, K) and the order of the modules, and the number of Gram matrices.

    Empty if no value is missing. Channels share a Gram matrix unless some step misses a part of
    its values.
    """
    known = ~types.isnan()
    if not omit_nan or bool(known.all()):
        return [], 1
    lengths, _ = extents(types)
    order = lengths.amax(dim=1)[set_index].argsort(descending=True, stable=True)
    whole = bool((known.any(dim=-1) == known.all(dim=-1)).all())
    return [lengths, order], 1 if whole else types.shape[-1]


# -- projected Adam --------------------------------------------------------------------------------


def check_train_projected(
    weights: Sequence[Tensor], fleet: Sequence[Tensor], settings: Sequence[Any]
) -> tuple[int, int, int, int, int, int]:
    """Check the arguments of ``train_projected``; return M, 0, T, H, K, O.

    Raises
    ------
    TypeError, ValueError
        If a shape, dtype or value is not as the operator needs it, or all values of a type are
        missing.
    """
    where = "train_projected"
    n_steps, lr, beta1, beta2, eps, clip_norm, ridge, n_curve, *rest = settings
    sizes = _check_types(where, weights, fleet, bool(rest and rest[0]))
    _, variances, set_index, noise_in, noise_out, seeds = fleet
    check_shape(where, "seeds", seeds, set_index, "(M,)", sizes[0])
    for name, noise in (("noise_in", noise_in), ("noise_out", noise_out)):
        check_shape(where, name, noise, variances, "(M,)", sizes[0])
        valid = bool(((noise >= 0) & torch.isfinite(noise)).all())
        require(valid, where, name, "finite and at least 0", noise.tolist())
    check_adam(where, lr, beta1, beta2, eps)
    require(n_steps >= 0, where, "n_steps", "at least 0", n_steps)
    require(clip_norm > 0, where, "clip_norm", "above 0", clip_norm)
    require(0 <= ridge < float("inf"), where, "ridge", "finite and at least 0", ridge)
    require(n_curve >= 1, where, "n_curve", "at least 1", n_curve)
    return sizes


def _fake_train_projected(*arguments: Any) -> tuple[Tensor, ...]:
    W_ih, n_steps, n_curve = arguments[0], arguments[11], arguments[18]
    trained = [t.new_empty(t.shape) for t in arguments[:5]]
    M = W_ih.shape[0]
    return (*trained, W_ih.new_empty(M, min(n_curve, n_steps)), W_ih.new_empty(M))


@operator(
    "train_projected",
    f"({WEIGHTS}, {_FLEET}, Tensor noise_in, Tensor noise_out, Tensor seeds, SymInt n_steps, "
    "float lr, float beta1, float beta2, float eps, float clip_norm, float ridge, SymInt n_curve, "
    f"bool omit_nan=False) -> ({_WEIGHTS_AND}, Tensor, Tensor)",
    fake=_fake_train_projected,
)
def _train_projected(*arguments: Any) -> tuple[Tensor, ...]:
    weights, fleet, settings = arguments[:5], arguments[5:11], arguments[11:]
    sizes = check_train_projected(weights, fleet, settings)
    _refuse_cuda("train_projected", weights[0])
    n_steps, *adam, clip_norm, ridge, n_curve, omit_nan = (*settings, False)[:9]
    *initial, type_sets, variances, set_index, noise_in, noise_out, seeds = launch.dense(
        *weights, *fleet
    )
    row_weights = reference_projected.row_weights(type_sets, variances, omit_nan)
    missing, n_grams = _missing(type_sets, set_index, omit_nan)
    outputs = _fake_train_projected(*arguments)
    tensors = (type_sets, row_weights, set_index, noise_in, noise_out, seeds, *outputs[5:])
    launch.run(
        "train_projected",
        type_sets,
        sizes,
        launch.weight_arguments(initial, Structure()),
        launch.addresses(tensors),
        (n_steps, min(n_curve, n_steps), n_grams),
        adam,
        (clip_norm, ridge),
        [*launch.addresses(outputs[:5]), *_NO_MORE],
        launch.addresses(missing) or [0, 0],
    )
    return outputs


# -- Levenberg-Marquardt ---------------------------------------------------------------------------


def check_train_lm(
    weights: Sequence[Tensor], fleet: Sequence[Tensor], settings: Sequence[Any]
) -> tuple[int, int, int, int, int, int]:
    """Check the arguments of ``train_lm``; return M, L, T, H, K, O.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_train_projected`.
    """
    where = "train_lm"
    goal, max_jacobians, damping, ridge, _, *rest = settings
    M, _, T, H, K, O = _check_types(where, weights, fleet, bool(rest and rest[0]))
    _, _, set_index, latents, shown = fleet
    check_shape(where, "latents", latents, weights[0], "(M, L, K)", M, None, K)
    L = latents.shape[1]
    require(L >= 1, where, "the number of latents", "at least 1", L)
    check_shape(where, "shown", shown, set_index, "(L,)", L)
    inside = bool(((shown >= 0) & (shown < K)).all())
    require(inside, where, "shown", f"from 0 to {K - 1}", shown.tolist())
    require(goal >= 0, where, "goal", "at least 0", goal)
    require(max_jacobians >= 0, where, "max_jacobians", "at least 0", max_jacobians)
    require(0 < damping < float("inf"), where, "damping", "finite and above 0", damping)
    require(0 <= ridge < float("inf"), where, "ridge", "finite and at least 0", ridge)
    return M, L, T, H, K, O


def _fake_train_lm(*arguments: Any) -> tuple[Tensor, ...]:
    W_ih, max_jacobians = arguments[0], arguments[11]
    trained = [t.new_empty(t.shape) for t in arguments[:5]]
    M = W_ih.shape[0]
    counts = [W_ih.new_empty(M, dtype=torch.int32) for _ in range(2)]
    return (*trained, W_ih.new_empty(M), *counts, W_ih.new_empty(M, max_jacobians + 1))


@operator(
    "train_lm",
    f"({WEIGHTS}, {_FLEET}, Tensor latents, Tensor shown, float goal, SymInt max_jacobians, "
    "float damping, float ridge, bool acceleration, bool omit_nan=False) "
    f"-> ({_WEIGHTS_AND}, Tensor, Tensor, Tensor, Tensor)",
    fake=_fake_train_lm,
)
def _train_lm(*arguments: Any) -> tuple[Tensor, ...]:
    weights, fleet, settings = arguments[:5], arguments[5:10], arguments[10:]
    sizes = check_train_lm(weights, fleet, settings)
    _refuse_cuda("train_lm", weights[0])
    goal, max_jacobians, damping, ridge, acceleration, omit_nan = (*settings, False)[:6]
    *initial, type_sets, variances, set_index, latents, shown = launch.dense(*weights, *fleet)
    row_weights = reference_projected.row_weights(type_sets[:, shown], variances, omit_nan)
    missing, n_grams = _missing(type_sets, set_index, omit_nan)
    outputs = _fake_train_lm(*arguments)
    errors, n_jacobians, stops, error_curve = outputs[5:]
    tensors = (type_sets, row_weights, set_index, latents, shown)
    launch.run(
        "train_lm",
        type_sets,
        sizes,
        launch.weight_arguments(initial, Structure()),
        launch.addresses((*tensors, errors, error_curve, n_jacobians, stops)),
        (goal, damping, ridge),
        acceleration,
        (max_jacobians, n_grams),
        [*launch.addresses(outputs[:5]), *_NO_MORE],
        missing[0].data_ptr() if missing else 0,
    )
    return outputs
