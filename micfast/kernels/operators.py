"""The torch operators ``torch.ops.micfast.*``: schemas, one check of shapes, fakes, autograd.

Each operator takes the five weight tensors first, and last what :class:`Weights` has beside them.
Names, shapes and letters: ``docs/conventions.md``. Use :func:`micfast.generate`,
:func:`micfast.invert` and :func:`micfast.train` unless you need an operator for ``torch.compile``
or ``torch.export``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from micfast.kernels import launch, reference
from micfast.kernels.definition import (
    NOTHING_MISSING,
    WEIGHTS,
    check_adam,
    check_shape,
    extents_in_order,
    operator,
    require,
)
from micfast.kernels.reference import Objective, Structure
from micfast.kernels.weights import check_weights

__all__ = ["check_train", "differentiable_generate", "require_lstm"]

_SIX_TENSORS = "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
_EIGHT_TENSORS = _SIX_TENSORS.replace(")", ", Tensor, Tensor)")
# Where the latent enters, what follows the read-out, and further weights. The affine map by
# constants after `generate` is torch's.
_KIND = 'str latent="first", str output="identity", str cell="lstm"'
_DRAWN = f"{_KIND}, Tensor? b_first=None, Tensor? b_state=None"
_STRUCTURE = f"{_DRAWN}, Tensor? scale=None, Tensor? shift=None"


def _dense(structure: Structure, *tensors: Tensor) -> tuple[Structure, list[Tensor]]:
    more = [None if t is None else launch.dense(t)[0] for t in structure[3:]]
    return Structure(*structure[:3], *more), launch.dense(*tensors)


def _like(structure: Structure, W_ih: Tensor) -> tuple[Tensor, ...]:
    """Tensors for what belongs to b_first and b_state; (M, 0) where there is none."""
    more = (structure.b_first, structure.b_state)
    return tuple(W_ih.new_empty((len(W_ih), 0) if t is None else t.shape) for t in more)


def _given(tensors: Sequence[Tensor]) -> list[int]:
    """Addresses; 0 for an empty tensor."""
    return [tensor.data_ptr() if tensor.numel() else 0 for tensor in tensors]


# -- generate ------------------------------------------------------------------------------------


def _check_generate(
    where: str, weights: Sequence[Tensor], latents: Tensor, n_steps: int, structure: Structure
) -> tuple[int, int, int, int, int, int]:
    M, H, K, O = check_weights(where, weights, structure)
    check_shape(where, "latents", latents, weights[0], "(M, N, K)", M, None, K)
    require(n_steps >= 1, where, "n_steps", "at least 1", n_steps)
    return M, latents.shape[1], n_steps, H, K, O


def _fake_generate(*arguments: Any) -> Tensor:
    W_out, latents, n_steps = arguments[3], arguments[5], arguments[6]
    return latents.new_empty(latents.shape[0], latents.shape[1], n_steps, W_out.shape[1])


@operator(
    "generate",
    f"({WEIGHTS}, Tensor latents, SymInt n_steps, {_DRAWN}) -> Tensor",
    fake=_fake_generate,
)
def _generate(*arguments: Any) -> Tensor:
    *weights, latents, n_steps = arguments[:7]
    structure = Structure(*arguments[7:])
    sizes = _check_generate("generate", weights, latents, n_steps, structure)
    structure, (*weights, latents) = _dense(structure, *weights, latents)
    outputs = latents.new_empty(*sizes[:3], sizes[5])
    launch.run(
        "generate",
        outputs,
        sizes,
        launch.weight_arguments(weights, structure),
        launch.addresses([latents, outputs]),
    )
    return outputs


def _fake_generate_backward(*arguments: Any) -> tuple[Tensor, ...]:
    like = [tensor.new_empty(tensor.shape) for tensor in arguments[:6]]
    return (*like, *_like(Structure(*arguments[7:]), arguments[0]))


@operator(
    "generate_backward",
    f"({WEIGHTS}, Tensor latents, Tensor d_outputs, {_DRAWN}) -> {_EIGHT_TENSORS}",
    fake=_fake_generate_backward,
)
def _generate_backward(*arguments: Any) -> tuple[Tensor, ...]:
    *weights, latents, d_outputs = arguments[:7]
    structure = Structure(*arguments[7:])
    where = "generate_backward"
    sizes = _check_generate(where, weights, latents, d_outputs.shape[2], structure)
    M, N, T, _, _, O = sizes
    check_shape(where, "d_outputs", d_outputs, latents, "(M, N, T, O)", M, N, T, O)
    structure, (*weights, latents, d_outputs) = _dense(structure, *weights, latents, d_outputs)
    d_weights = [torch.empty_like(w) for w in weights]
    d_latents = torch.empty_like(latents)
    more = _like(structure, weights[0])
    launch.run(
        where,
        latents,
        sizes,
        launch.weight_arguments(weights, structure),
        launch.addresses([latents, d_outputs, d_latents]),
        _given([*d_weights, *more]),
    )
    return (*d_weights, d_latents, *more)


# -- derivatives of generate -----------------------------------------------------------------------
# `inputs` of an operator are six tensors, the number of steps or d_outputs, latent, output and cell
# (its kind), b_first and b_state; `tensors` are those of them that can be differentiated and are
# there.


def _generate_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *kind, b_first, b_state = _drawn(inputs[7:])
    ctx.save_for_backward(*inputs[:6], b_first, b_state)
    ctx.save_for_forward(*inputs[:6], b_first, b_state)
    ctx.n_steps, ctx.kind = output.shape[2], tuple(kind)


def _drawn(rest: Sequence[Any]) -> tuple[Any, ...]:
    """Latent, output, cell, b_first, b_state, with their defaults."""
    return tuple(Structure(*rest)[:5])


def _generate_vjp(ctx: Any, d_outputs: Tensor) -> tuple:
    *tensors, b_first, b_state = ctx.saved_tensors
    operator = torch.ops.micfast.generate_backward
    return _gradients(operator(*tensors, d_outputs, *ctx.kind, b_first, b_state))


def _gradients(found: Sequence[Tensor]) -> tuple:
    """Gradients of the inputs of ``generate``."""
    more = [tensor if tensor.numel() else None for tensor in found[6:]]
    return (*found[:6], None, None, None, None, *more)


torch.library.register_autograd("micfast::generate", _generate_vjp, setup_context=_generate_setup)


def _present(tensors: Sequence[Tensor | None]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor is not None]


def _reference_of(
    n_steps: int, kind: tuple[str, str, str], more: Sequence[Tensor | None]
) -> Callable[..., Tensor]:
    """The reference as a function of the tensors that are there; ``more`` says which."""

    def draw(*tensors: Tensor) -> Tensor:
        left = iter(tensors[6:])
        present = [None if tensor is None else next(left) for tensor in more]
        return reference.generate(tensors[:5], tensors[5], n_steps, Structure(*kind, *present))

    return draw


def _vjp(function: Callable[..., Any], primals: Sequence[Tensor], cotangents: Any) -> Any:
    """Reverse-mode derivative of a function of tensors."""
    vjp: Any = torch.func.vjp(function, *primals)[1]
    return vjp(cotangents)


def _jvp(
    function: Callable[..., Any], primals: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> Any:
    """Forward-mode derivative of a function of tensors."""
    known = tuple(
        torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True)
    )
    return torch.func.jvp(function, tuple(primals), known)[1]


def _reference_vjp(
    kind: tuple[str, str, str], more: Sequence[Tensor | None]
) -> Callable[..., tuple[Tensor, ...]]:
    """``generate_backward`` in PyTorch, which can be differentiated once more.

    A function of the tensors that are there, and then d_outputs.
    """

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        *primals, d_outputs = tensors
        draw = _reference_of(d_outputs.shape[2], kind, more)
        found = iter(_vjp(draw, primals, d_outputs))
        first = [next(found) for _ in range(6)]
        empty = first[0].new_empty(len(first[0]), 0)
        return (*first, *(empty if tensor is None else next(found) for tensor in more))

    return gradients


def _backward_setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    *kind, b_first, b_state = _drawn(inputs[7:])
    tensors = (*inputs[:6], b_first, b_state, inputs[6])
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.kind = tuple(kind)


def _backward_vjp(ctx: Any, *d_gradients: Tensor) -> tuple:
    saved = ctx.saved_tensors
    function = _reference_vjp(ctx.kind, saved[6:8])
    found = iter(_vjp(function, _present(saved), d_gradients))
    aligned = [None if tensor is None else next(found) for tensor in saved]
    return (*aligned[:6], aligned[8], None, None, None, *aligned[6:8])


torch.library.register_autograd(
    "micfast::generate_backward", _backward_vjp, setup_context=_backward_setup
)


def _modules_of_batch(
    batch_size: int, in_dims: Sequence[int | None], tensors: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Tensors (B M, ...): the modules of all batch members, one after the other."""

    def merged(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        if tensor is None:
            return None
        if dim is None:
            return tensor.unsqueeze(0).expand(batch_size, *tensor.shape).flatten(0, 1)
        return tensor.movedim(dim, 0).flatten(0, 1)

    return [merged(t, dim) for t, dim in zip(tensors, in_dims, strict=True)]


# torch.func cannot see through an operator's autograd formula, so eager calls go through these two
# functions around the operators; torch.compile uses the operators themselves.


class _Generate(torch.autograd.Function):
    """``generate`` for eager autograd, ``torch.func.grad`` and ``torch.func.vmap``."""

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        return torch.ops.micfast.generate(*arguments)

    setup_context = staticmethod(_generate_setup)

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor) -> tuple:
        *tensors, b_first, b_state = ctx.saved_tensors
        found = _GenerateBackward.apply(*tensors, d_outputs, *ctx.kind, b_first, b_state)
        return _gradients(found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        saved, all_tangents = ctx.saved_tensors, (*tangents[:6], *tangents[10:])
        there = [i for i, tensor in enumerate(saved) if tensor is not None]
        return _jvp(
            _reference_of(ctx.n_steps, ctx.kind, saved[6:]),
            [saved[i] for i in there],
            [all_tangents[i] for i in there],
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *arguments: Any) -> tuple[Tensor, int]:
        tensors, n_steps, kind = arguments[:6], arguments[6], arguments[7:10]
        more, dims = arguments[10:], (*in_dims[:5], *in_dims[10:])
        if all(dim is None for dim in dims):  # more latents for the same modules
            *weights, latents = tensors
            latents = latents.movedim(in_dims[5], 1)
            outputs = _Generate.apply(*weights, latents.flatten(1, 2), n_steps, *kind, *more)
            return outputs.unflatten(1, latents.shape[1:3]), 1
        dims = (*in_dims[:6], *in_dims[10:])
        merged = _modules_of_batch(info.batch_size, dims, (*tensors, *more))
        outputs = _Generate.apply(*merged[:6], n_steps, *kind, *merged[6:])
        return outputs.unflatten(0, (info.batch_size, -1)), 0


class _GenerateBackward(torch.autograd.Function):
    """``generate_backward`` for the same."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return torch.ops.micfast.generate_backward(*arguments)

    setup_context = staticmethod(_backward_setup)
    backward = staticmethod(_backward_vjp)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        saved = ctx.saved_tensors
        all_tangents = (*tangents[:6], *tangents[10:], tangents[6])
        there = [i for i, tensor in enumerate(saved) if tensor is not None]
        return _jvp(
            _reference_vjp(ctx.kind, saved[6:8]),
            [saved[i] for i in there],
            [all_tangents[i] for i in there],
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, *arguments: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        # Always as further modules: latents of one module would have their gradients summed.
        merged = _modules_of_batch(
            info.batch_size, (*in_dims[:7], *in_dims[10:]), (*arguments[:7], *arguments[10:])
        )
        gradients = _GenerateBackward.apply(*merged[:7], *arguments[7:10], *merged[7:])
        split = [g.unflatten(0, (info.batch_size, -1)) if g.numel() else g for g in gradients]
        return tuple(split), tuple(0 if g.numel() else None for g in gradients)


def differentiable_generate(*arguments: Any) -> Tensor:
    """The operator ``generate`` with all its derivatives, eager or compiled; all its arguments."""
    if torch.compiler.is_compiling():
        return torch.ops.micfast.generate(*arguments)
    return _Generate.apply(*arguments)


def _longest(lengths: Tensor) -> Tensor:
    """The longest (N,) of the modules' targets, of lengths (N,) or (M, N)."""
    return lengths if lengths.dim() == 1 else lengths.amax(dim=0)


# -- searches --------------------------------------------------------------------------------------


def _search_outputs(
    W_ih: Tensor, targets: Tensor, init: Tensor, n_iter: int, return_history: bool
) -> tuple[Tensor, ...]:
    """Tensors for the results of a search, in the order of ``reference.InvertResult``."""
    shape = (W_ih.shape[0], targets.shape[-3], init.shape[2])
    K, n_rows = W_ih.shape[2], n_iter + 1 if return_history else 0
    return (
        targets.new_empty(shape),
        targets.new_empty(*shape, K),
        targets.new_empty(shape, dtype=torch.int32),
        targets.new_empty(shape, dtype=torch.bool),
        targets.new_empty(n_rows, *shape),
        targets.new_empty(n_rows, *shape, K),
    )


def _run_search(
    where: str,
    tensors: Sequence[Tensor],
    n_iter: int,
    return_history: bool,
    tol: float,
    omit_nan: bool,
    structure: Structure,
    objective: Objective,
    *settings: object,
) -> tuple[Tensor, ...]:
    """Check the arguments and run a kernel; ``settings`` are the kernel's own."""
    *weights, targets, init = tensors
    M, H, K, O = check_weights(where, weights, structure)
    if targets.dim() == 4:  # each module's own
        check_shape(where, "targets", targets, weights[0], "(M, N, T, O)", M, None, None, O)
    else:
        check_shape(where, "targets", targets, weights[0], "(N, T, O)", None, None, O)
    N, T, _ = targets.shape[-3:]
    require(T >= 1, where, "the number of steps of targets", "at least 1", T)
    check_shape(where, "init", init, weights[0], "(M or 1, N or 1, S, K)", None, None, None, K)
    n_starts = init.shape[2]
    if init.shape[0] not in (1, M) or init.shape[1] not in (1, N) or n_starts < 1:
        raise ValueError(
            f"{where}: init must have shape ({M} or 1, {N} or 1, S, {K}) with S >= 1, "
            f"got {tuple(init.shape)}"
        )
    require(n_iter >= 0, where, "n_iter", "at least 0", n_iter)
    require(tol >= 0, where, "tol", "at least 0", tol)
    is_plain = objective.is_plain
    if not is_plain:
        objective = _check_objective(where, objective, weights[0], T, K, O)
    structure, (*weights, targets, init) = _dense(structure, *weights, targets, init)
    outputs = _search_outputs(weights[0], targets, init, n_iter, return_history)
    addresses = launch.addresses(outputs)
    if not return_history:
        addresses[-2:] = [0, 0]
    missing = extents_in_order(targets, _longest) if omit_nan else []
    strides = [0 if n == 1 else step for n, step in zip(init.shape, init.stride(), strict=True)]
    search = (
        (M, N * n_starts, T, H, K, O),
        launch.weight_arguments(weights, structure),
        launch.addresses([targets, init]),
        [*strides[:3], N * (targets.dim() - 3)],
        (n_starts, n_iter),
        tol,
        addresses,
        launch.addresses(missing) or NOTHING_MISSING,
        _PLAIN_OBJECTIVE if is_plain else _objective_arguments(objective),
    )
    launch.run(where, targets, search, *settings)
    return outputs


def _check_objective(
    where: str, objective: Objective, like: Tensor, T: int, K: int, O: int
) -> Objective:
    """Check an objective, and give it as the kernels take it."""
    bounds, loss_weights, prior_weight, prior_mean, radius, huber = objective
    if like.is_cuda:
        raise RuntimeError(f"{where}: {launch.PLAIN_LOOPS_ALONE}")
    if bounds is not None:
        check_shape(where, "bounds", bounds, like, "(2, K)", 2, K)
        rule = "lowest and highest latents, in this order"
        require(bool((bounds[0] <= bounds[1]).all()), where, "bounds", rule, bounds.tolist())
        bounds = bounds.double().contiguous()
        require(radius is None, where, "bounds", "None where there is a radius", bounds.tolist())
    for name, value in (("radius", radius), ("huber", huber)):
        require(value is None or 0 < value < math.inf, where, name, "finite and above 0", value)
    if loss_weights is not None:
        check_shape(where, "loss_weights", loss_weights, like, "(T, O)", T, O)
        valid = bool(((loss_weights >= 0) & loss_weights.isfinite()).all())
        require(valid, where, "loss_weights", "finite and at least 0", loss_weights.tolist())
        loss_weights = loss_weights.contiguous()
    require(0 <= prior_weight < math.inf, where, "prior_weight", "finite and >= 0", prior_weight)
    if prior_mean is None:
        prior_mean = like.new_zeros(K)
    check_shape(where, "prior_mean", prior_mean, like, "(K,)", K)
    prior_mean = prior_mean.double().contiguous()
    return Objective(bounds, loss_weights, prior_weight, prior_mean, radius, huber)


_PLAIN_OBJECTIVE = [0, 0, 0], [0.0, 0.0, 0.0]


def _objective_arguments(objective: Objective) -> tuple[list[int], list[float]]:
    tensors = (objective.bounds, objective.weights, objective.prior_mean)
    numbers = (objective.prior_weight, objective.radius, objective.huber)
    return [0 if t is None else t.data_ptr() for t in tensors], [n or 0.0 for n in numbers]


def _require_simplex_alone(where: str, simplex: bool, objective: Objective) -> None:
    for name in ("bounds", "radius"):
        if simplex and getattr(objective, name) is not None:
            raise ValueError(f"{where}: {name} must be None where simplex is true")


def _adam_steps(
    n_iter: int,
    adam: tuple[float, float, float, float],
    bias_correction: bool,
    schedule: Tensor | None,
) -> Tensor | None:
    """Rate and eps (I, 2) of every iteration; None where all have those of ``adam``.

    With bias correction ``lr m' / (sqrt(v') + eps)``, m' and v' the moments over 1 - beta^i, is
    ``rate m / (sqrt(v) + eps_i)`` with both numbers multiplied by sqrt(1 - beta2^i).
    """
    if not bias_correction and schedule is None:
        return None
    lr, beta1, beta2, eps = adam
    steps = torch.tensor([[lr, eps]], dtype=torch.float64, device="cpu").repeat(n_iter, 1)
    if schedule is not None:
        steps[:, 0] *= schedule
    if bias_correction:
        i = torch.arange(1, n_iter + 1, dtype=torch.float64, device="cpu")
        steps *= (1 - beta2**i).sqrt()[:, None]
        steps[:, 0] /= 1 - beta1**i
    return steps


_SEARCH = f"({WEIGHTS}, Tensor targets, Tensor init, SymInt n_iter"
_OBJECTIVE = (
    "Tensor? bounds=None, Tensor? loss_weights=None, float prior_weight=0.0, "
    "Tensor? prior_mean=None, float? radius=None, float? huber=None"
)


def _optional(
    arguments: Sequence[Any], defaults: tuple[Any, ...]
) -> tuple[bool, Structure, Objective, list[Any]]:
    """The arguments from omit_nan on, some of which may be left out; the last have `defaults`."""
    omit_nan = bool(arguments and arguments[0])
    structure, objective = Structure(*arguments[1:8]), Objective(*arguments[8:14])
    return omit_nan, structure, objective, [*arguments[14:], *defaults[len(arguments[14:]) :]]


@operator(
    "invert",
    f"{_SEARCH}, float lr, float beta1, float beta2, float eps, bool unprojected_error, "
    f"bool return_history, float tol, bool omit_nan=False, {_STRUCTURE}, {_OBJECTIVE}, "
    f"bool simplex=True, bool bias_correction=False, Tensor? schedule=None) -> {_SIX_TENSORS}",
    fake=lambda *a: _search_outputs(a[0], a[5], a[6], a[7], a[13]),
)
def _invert(*arguments: Any) -> tuple[Tensor, ...]:
    n_iter, lr, beta1, beta2, eps, unprojected_error, return_history, tol, *rest = arguments[7:]
    where, adam = "invert", (lr, beta1, beta2, eps)
    check_adam(where, *adam)
    omit_nan, structure, objective, loop = _optional(rest, (True, False, None))
    simplex, bias_correction, schedule = loop
    _require_simplex_alone(where, simplex, objective)
    if schedule is not None:
        valid = schedule.dtype == torch.float64 and schedule.shape == (n_iter,)
        rule = f"{n_iter} numbers (n_iter), float64 and on the CPU"
        require(valid and not schedule.is_cuda, where, "schedule", rule, schedule)
    if arguments[5].is_cuda and loop != [True, False, None]:
        raise RuntimeError(f"{where}: {launch.PLAIN_LOOPS_ALONE}")
    steps = _adam_steps(n_iter, adam, bias_correction, schedule)
    search = (n_iter, return_history, tol, omit_nan, structure, objective)
    flags = [unprojected_error, simplex]
    address = 0 if steps is None else steps.data_ptr()
    return _run_search(where, arguments[:7], *search, adam, flags, address)


@operator(
    "invert_lm",
    f"{_SEARCH}, float damping, bool simplex, bool return_history, float tol, "
    f"bool omit_nan=False, {_STRUCTURE}, {_OBJECTIVE}) -> {_SIX_TENSORS}",
    fake=lambda *a: _search_outputs(a[0], a[5], a[6], a[7], a[10]),
)
def _invert_lm(*arguments: Any) -> tuple[Tensor, ...]:
    n_iter, damping, simplex, return_history, tol, *rest = arguments[7:]
    require(0 < damping < math.inf, "invert_lm", "damping", "finite and above 0", damping)
    omit_nan, structure, objective, _ = _optional(rest, ())
    _require_simplex_alone("invert_lm", simplex, objective)
    if objective.huber is not None or objective.radius is not None:
        raise ValueError(
            "invert_lm: huber and radius must be None: Huber loss is no sum of squares, and damped "
            "steps would leave a sphere"
        )
    search = (n_iter, return_history, tol, omit_nan, structure, objective)
    return _run_search("invert_lm", arguments[:7], *search, damping, simplex)


# -- training --------------------------------------------------------------------------------------


def _fake_train(*arguments: Any) -> tuple[Tensor, ...]:
    W_ih, n_episodes, n_curve = arguments[0], arguments[10], arguments[15]
    trained = [t.new_empty(t.shape) for t in arguments[:5]]
    curve = W_ih.new_empty(W_ih.shape[0], min(n_curve, n_episodes))
    return (*trained, curve, *_like(Structure(*arguments[17:]), W_ih))


@operator(
    "train",
    f"({WEIGHTS}, Tensor type_sets, Tensor set_index, Tensor noise_in, Tensor noise_out, "
    "Tensor seeds, SymInt n_episodes, float lr, float beta1, float beta2, float eps, "
    f"SymInt n_curve, bool omit_nan=False, {_STRUCTURE}) -> {_EIGHT_TENSORS}",
    fake=_fake_train,
)
def _train(*arguments: Any) -> tuple[Tensor, ...]:
    weights, fleet = arguments[:5], arguments[5:10]
    n_episodes, lr, beta1, beta2, eps, n_curve, *rest = arguments[10:]
    adam, omit_nan = (lr, beta1, beta2, eps), bool(rest and rest[0])
    structure = Structure(*rest[1:])
    sizes = check_train(weights, fleet, n_episodes, n_curve, omit_nan, structure)
    check_adam("train", *adam)
    n_curve = min(n_curve, n_episodes)
    structure, (*initial, type_sets, set_index, noise_in, noise_out, seeds) = _dense(
        structure, *weights, *fleet
    )
    trained = [torch.empty_like(w) for w in initial]
    more = _like(structure, initial[0])
    loss_curve = type_sets.new_empty(sizes[0], n_curve)
    if type_sets.is_cuda:  # what check_train() has not looked at
        valid = _has_valid_fleet_values(type_sets, set_index, noise_in, noise_out)
        set_index = set_index.where(valid, -1)
    missing = []
    if omit_nan:
        index = set_index.clamp(min=0)
        missing = extents_in_order(type_sets, lambda lengths: lengths.sum(dim=(1, 2))[index])
    launch.run(
        "train",
        type_sets,
        sizes,
        launch.weight_arguments(initial, structure),
        launch.addresses([type_sets, set_index, noise_in, noise_out, seeds, loss_curve]),
        (type_sets.shape[2], n_episodes, n_curve),
        adam,
        _given([*trained, *more]),
        launch.addresses(missing) or NOTHING_MISSING,
    )
    return (*trained, loss_curve, *more)


def require_lstm(where: str, structure: Structure) -> None:
    """Refuse to train another cell.

    Raises
    ------
    ValueError
    """
    if structure.cell != "lstm":
        raise ValueError(
            f"{where}: modules to train must have the cell 'lstm', got {structure.cell!r}; train "
            "others in PyTorch, and pass them to GeneratorBank.from_modules"
        )


def check_train(
    weights: Sequence[Tensor],
    fleet: Sequence[Tensor],
    n_episodes: int,
    n_curve: int,
    omit_nan: bool,
    structure: Structure,
) -> tuple[int, int, int, int, int, int]:
    """Check a fleet against its weights; return M, 0, T, H, K, O.

    Values of tensors on a GPU are not looked at, which would wait for it and could not be captured
    in a graph: there, a module whose values are not valid gets NaN for its weights and curve.

    Raises
    ------
    TypeError, ValueError
        If a shape, dtype or value is not as the operator ``train`` needs it, or all values of a
        type are missing.
    """
    type_sets, set_index, noise_in, noise_out, seeds = fleet
    require_lstm("train", structure)
    M, H, K, O = check_weights("train", weights, structure)
    shape = "(S, K, V, T, O)"
    check_shape("train", "type_sets", type_sets, weights[0], shape, None, K, None, None, O)
    n_variants, T = type_sets.shape[2:4]
    require(n_variants >= 1, "train", "the number of variants in type_sets", ">= 1", n_variants)
    require(T >= 1, "train", "the number of steps of type_sets", "at least 1", T)
    integers = weights[0].new_empty(0, dtype=torch.int64)
    numbers = weights[0].new_empty(0, dtype=torch.float64)
    check_shape("train", "set_index", set_index, integers, "(M,)", M)
    check_shape("train", "seeds", seeds, integers, "(M,)", M)
    check_shape("train", "noise_in", noise_in, numbers, "(M,)", M)
    check_shape("train", "noise_out", noise_out, numbers, "(M,)", M)
    require(n_episodes >= 0, "train", "n_episodes", "at least 0", n_episodes)
    require(n_curve >= 1, "train", "n_curve", "at least 1", n_curve)
    if not type_sets.is_cuda:
        _check_fleet_values(type_sets, set_index, noise_in, noise_out, omit_nan)
    return M, 0, T, H, K, O


def _has_valid_fleet_values(
    type_sets: Tensor, set_index: Tensor, noise_in: Tensor, noise_out: Tensor
) -> Tensor:
    """For each module, bool (M,)."""
    inside = (set_index >= 0) & (set_index < type_sets.shape[0])
    noise = torch.stack((noise_in, noise_out))
    return inside & ((noise >= 0) & noise.isfinite()).all(dim=0)


def _check_fleet_values(
    type_sets: Tensor, set_index: Tensor, noise_in: Tensor, noise_out: Tensor, omit_nan: bool
) -> None:
    n_sets = type_sets.shape[0]
    inside = bool(((set_index >= 0) & (set_index < n_sets)).all())
    require(inside, "train", "set_index", f"from 0 to {n_sets - 1}", set_index.tolist())
    for name, noise in (("noise_in", noise_in), ("noise_out", noise_out)):
        valid = bool(((noise >= 0) & torch.isfinite(noise)).all())
        require(valid, "train", name, "finite and at least 0", noise.tolist())
    if omit_nan and bool(type_sets.isnan().flatten(-2).all(dim=-1).any()):
        raise ValueError("train: every type in type_sets must hold a value that is not NaN")
