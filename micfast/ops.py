"""The torch operators ``torch.ops.micfast.*``: schemas, checks, allocation, autograd.

Only this file calls the compiled extension, which takes raw addresses and checks nothing. Names,
shapes and letters: ``docs/conventions.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from micfast import _backend, _launch, reference
from micfast._arrays import as_tensor
from micfast._backend import resolve_backend
from micfast.reference import InvertResult, TrainResult

__all__ = ["extents", "generate", "invert", "invert_lm", "resolve_backend", "train"]

Progress = Callable[[float], object]
Weights = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

_WEIGHT_NAMES = ("W_ih", "W_hh", "b", "W_out", "b_out")
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}

# How the running call reports progress and on how many threads it runs. An operator's schema holds
# neither: both leave its result as it is.
_progress: ContextVar[Progress | None] = ContextVar("micfast_progress", default=None)
_n_threads: ContextVar[int | None] = ContextVar("micfast_n_threads", default=None)


@contextmanager
def _running(n_threads: int | None, progress: Progress | None) -> Iterator[None]:
    tokens = _n_threads.set(n_threads), _progress.set(progress)
    try:
        yield
    finally:
        _n_threads.reset(tokens[0])
        _progress.reset(tokens[1])


def _threads() -> int:
    return _n_threads.get() or torch.get_num_threads()


# ---------------------------------------------------------------------------------------- checks


def _check_shape(function: str, name: str, tensor: Tensor, shape: str, *sizes: int | None) -> None:
    """Raise unless the tensor has the sizes given; None allows any."""
    if tensor.dim() != len(sizes) or any(
        wanted is not None and got != wanted
        for got, wanted in zip(tensor.shape, sizes, strict=True)
    ):
        expected = ", ".join("any" if s is None else str(s) for s in sizes)
        raise ValueError(
            f"{function}: {name} must have shape {shape} = ({expected}), got {tuple(tensor.shape)}"
        )


def _check_weights(function: str, weights: Weights) -> tuple[int, int, int, int]:
    """Check the weights against each other; return M, H, K, O."""
    W_ih, W_hh, b, W_out, b_out = weights
    for name, w in zip(_WEIGHT_NAMES, weights, strict=True):
        if w.dtype not in _DTYPES:
            raise TypeError(f"{function}: {name} must be float32 or float64, got {w.dtype}")
        _check_like(function, name, w, W_ih, "W_ih")
    _check_shape(function, "W_hh", W_hh, "(M, 4H, H)", None, None, None)
    M, rows, H = W_hh.shape
    if rows != 4 * H or H < 1:
        raise ValueError(
            f"{function}: W_hh must have shape (M, 4H, H) with H >= 1, got {tuple(W_hh.shape)}"
        )
    _check_shape(function, "W_ih", W_ih, "(M, 4H, K)", M, 4 * H, None)
    _check_shape(function, "b", b, "(M, 4H)", M, 4 * H)
    _check_shape(function, "W_out", W_out, "(M, O, H)", M, None, H)
    K, O = W_ih.shape[2], W_out.shape[1]
    _check_shape(function, "b_out", b_out, "(M, O)", M, O)
    if K < 1 or O < 1:
        raise ValueError(f"{function}: W_ih and W_out must have K >= 1 and O >= 1, got {K} and {O}")
    return M, H, K, O


def _check_like(function: str, name: str, tensor: Tensor, like: Tensor, like_name: str) -> None:
    if tensor.dtype != like.dtype:
        raise TypeError(
            f"{function}: {name} must have the dtype of {like_name}, {like.dtype}, "
            f"got {tensor.dtype}"
        )
    if tensor.device != like.device:
        raise ValueError(
            f"{function}: {name} must be on the device of {like_name}, {like.device}, "
            f"got {tensor.device}"
        )


def _check_types(
    function: str,
    tensors: Mapping[str, object],
    integers: Mapping[str, object],
    numbers: Mapping[str, object],
    flags: Mapping[str, object],
) -> None:
    """What torch's dispatcher would refuse with an error of its own, or not at all."""
    device = getattr(tensors.get("W_ih"), "device", None)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{function}: {name} must be a tensor, got {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{function}: {name} must be a dense tensor, got {tensor.layout}")
        if tensor.device != device:
            # Else a tensor on the meta device would lead past all checks.
            raise ValueError(
                f"{function}: {name} must be on the device of W_ih, {device}, got {tensor.device}"
            )
    for name, value in integers.items():
        if isinstance(value, bool) or not isinstance(value, Integral | torch.SymInt):
            raise TypeError(f"{function}: {name} must be an integer, got {type(value).__name__}")
        if not isinstance(value, torch.SymInt) and abs(value) >= 2**63:  # type: ignore[operator]
            raise ValueError(f"{function}: {name} must be less than 2**63, got {value}")
    for name, value in numbers.items():
        if not isinstance(value, Real | torch.SymFloat):
            raise TypeError(f"{function}: {name} must be a number, got {type(value).__name__}")
        if isinstance(value, Integral) and abs(value) >= 2**63:  # type: ignore[operator]
            raise ValueError(f"{function}: {name} must be less than 2**63, got {value}")
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{function}: {name} must be a bool, got {type(value).__name__}")


def _check_threads(function: str, n_threads: int | None) -> None:
    if n_threads is None:
        return
    if isinstance(n_threads, bool) or not isinstance(n_threads, Integral):
        raise TypeError(
            f"{function}: n_threads must be an integer or None, got {type(n_threads).__name__}"
        )
    if n_threads < 1:
        raise ValueError(f"{function}: n_threads must be at least 1, got {n_threads}")
    if n_threads >= 2**31:
        raise ValueError(f"{function}: n_threads must be below 2**31, got {n_threads}")


def _check_steps(function: str, name: str, n_steps: int) -> None:
    if n_steps < 1:
        raise ValueError(f"{function}: {name} must be at least 1, got {n_steps}")


def _check_generate(
    function: str, weights: Weights, latents: Tensor, n_steps: int
) -> tuple[int, int, int, int, int, int]:
    M, H, K, O = _check_weights(function, weights)
    _check_like(function, "latents", latents, weights[0], "W_ih")
    _check_shape(function, "latents", latents, "(M, N, K)", M, None, K)
    _check_steps(function, "n_steps", n_steps)
    return M, latents.shape[1], n_steps, H, K, O


def _check_search(
    function: str, weights: Weights, targets: Tensor, init: Tensor, n_iter: int, tol: float
) -> tuple[int, int, int, int, int, int]:
    M, H, K, O = _check_weights(function, weights)
    _check_like(function, "targets", targets, weights[0], "W_ih")
    _check_shape(function, "targets", targets, "(N, T, O)", None, None, O)
    N, T, _ = targets.shape
    _check_steps(function, "the number of steps of targets", T)
    _check_like(function, "init", init, weights[0], "W_ih")
    _check_shape(function, "init", init, "(M or 1, N or 1, S, K)", None, None, None, K)
    if init.shape[0] not in (1, M) or init.shape[1] not in (1, N) or init.shape[2] < 1:
        raise ValueError(
            f"{function}: init must have shape ({M} or 1, {N} or 1, {K}), or with S >= 1 starts "
            f"({M} or 1, {N} or 1, S, {K}), got {tuple(init.shape)}"
        )
    if n_iter < 0:
        raise ValueError(f"{function}: n_iter must be at least 0, got {n_iter}")
    if not tol >= 0:
        raise ValueError(f"{function}: tol must not be negative, got {tol}")
    return M, N, T, H, K, O


def _with_starts(function: str, init: Tensor) -> Tensor:
    """Starts with their axis: (M or 1, N or 1, S, K)."""
    if init.dim() == 3:
        return init.unsqueeze(2)
    if init.dim() == 4:
        return init
    raise ValueError(
        f"{function}: init must have shape (M or 1, N or 1, K) or (M or 1, N or 1, S, K), "
        f"got {tuple(init.shape)}"
    )


def _check_damping(damping: float) -> None:
    if not 0 < damping < float("inf"):
        raise ValueError(f"invert_lm: damping must be finite and above 0, got {damping}")


def _check_adam(function: str, lr: float, beta1: float, beta2: float, eps: float) -> None:
    if not lr >= 0:
        raise ValueError(f"{function}: lr must not be negative, got {lr}")
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= beta < 1:
            raise ValueError(f"{function}: {name} must be in [0, 1), got {beta}")
    if not eps >= 0:
        raise ValueError(f"{function}: eps must not be negative, got {eps}")


def _check_train(
    weights: Weights,
    type_sets: Tensor,
    set_index: Tensor,
    noise_in: Tensor,
    noise_out: Tensor,
    seeds: Tensor,
    n_episodes: int,
    adam: tuple[float, ...],
    n_curve: int,
) -> tuple[int, int, int, int, int, int]:
    M, H, K, O = _check_weights("train", weights)
    _check_like("train", "type_sets", type_sets, weights[0], "W_ih")
    _check_shape("train", "type_sets", type_sets, "(S, K, V, T, O)", None, K, None, None, O)
    _check_steps("train", "the number of variants in type_sets", type_sets.shape[2])
    _check_steps("train", "the number of steps of type_sets", type_sets.shape[3])
    for name, tensor, dtype in (
        ("set_index", set_index, torch.int64),
        ("noise_in", noise_in, torch.float64),
        ("noise_out", noise_out, torch.float64),
        ("seeds", seeds, torch.int64),
    ):
        _check_shape("train", name, tensor, "(M,)", M)
        if tensor.dtype != dtype:
            raise TypeError(f"train: {name} must have dtype {dtype}, got {tensor.dtype}")
        if tensor.device != weights[0].device:
            raise ValueError(
                f"train: {name} must be on the device of W_ih, {weights[0].device}, "
                f"got {tensor.device}"
            )
    if n_episodes < 0:
        raise ValueError(f"train: n_episodes must be at least 0, got {n_episodes}")
    if n_curve < 1:
        raise ValueError(f"train: n_curve must be at least 1, got {n_curve}")
    _check_adam("train", *adam)
    return M, 0, type_sets.shape[3], H, K, O


def _check_train_values(
    type_sets: Tensor,
    set_index: Tensor,
    noise_in: Tensor,
    noise_out: Tensor,
    omit_nan: bool,
) -> None:
    """The checks that read the tensors, which a fake tensor cannot do."""
    if omit_nan and bool(type_sets.isnan().flatten(-2).all(dim=-1).any()):
        raise ValueError("train: every type in type_sets must hold a value that is not NaN")
    n_sets = type_sets.shape[0]
    if bool(((set_index < 0) | (set_index >= n_sets)).any()):
        raise ValueError(f"train: set_index must be in [0, {n_sets}), got {set_index.tolist()}")
    for name, noise in (("noise_in", noise_in), ("noise_out", noise_out)):
        if not bool(((noise >= 0) & torch.isfinite(noise)).all()):
            raise ValueError(f"train: {name} must be finite and not negative, got {noise.tolist()}")


# ------------------------------------------------------------------------------------- operators
# define() and impl() rather than custom_op(): the first call through the latter imports torch's
# compiler, which takes a second or two.


def _run(name: str, tensor: Tensor, *arguments: object) -> None:
    """Run the kernel of that name on the tensor's device, for its dtype.

    ``arguments`` are sizes and addresses, laid out as in ``csrc/bindings/arguments.h``.
    """
    run = _RUNNERS[tensor.device.type]
    run(f"{name}_{_DTYPES[tensor.dtype]}", arguments, tensor.device, _threads(), _progress.get())


def _run_cpu(
    name: str, arguments: tuple, device: torch.device, n_threads: int, progress: Progress | None
) -> None:
    resolve_backend("cpu")
    getattr(_backend.extension, name)(arguments, n_threads, progress)


# By the type of the tensors' device.
_RUNNERS: dict[str, Callable[[str, tuple, torch.device, int, Progress | None], None]] = {
    "cpu": _run_cpu,
    "cuda": _launch.run,
}


def _dense(*tensors: Tensor) -> list[Tensor]:
    """Contiguous copies where needed; the caller holds them while the kernel runs."""
    return [t.detach().contiguous() for t in tensors]


def _addresses(tensors: list[Tensor]) -> list[int]:
    return [t.data_ptr() for t in tensors]


torch.library.define(
    "micfast::generate",
    "(Tensor W_ih, Tensor W_hh, Tensor b, Tensor W_out, Tensor b_out, "
    "Tensor latents, SymInt n_steps) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl("micfast::generate", ["cpu", "cuda"])
def _generate_kernel(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    latents: Tensor,
    n_steps: int,
) -> Tensor:
    sizes = _check_generate("generate", (W_ih, W_hh, b, W_out, b_out), latents, n_steps)
    M, N, T, _, _, O = sizes
    *weights, latents = _dense(W_ih, W_hh, b, W_out, b_out, latents)
    outputs = latents.new_empty(M, N, T, O)
    _run("generate", outputs, sizes, _addresses(weights), _addresses([latents, outputs]))
    return outputs


@torch.library.register_fake("micfast::generate")
def _(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    latents: Tensor,
    n_steps: int,
) -> Tensor:
    return latents.new_empty(latents.shape[0], latents.shape[1], n_steps, W_out.shape[1])


torch.library.define(
    "micfast::generate_backward",
    "(Tensor W_ih, Tensor W_hh, Tensor b, Tensor W_out, Tensor b_out, "
    "Tensor latents, Tensor d_outputs) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl("micfast::generate_backward", ["cpu", "cuda"])
def _generate_backward_kernel(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    latents: Tensor,
    d_outputs: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    n_steps = d_outputs.shape[2] if d_outputs.dim() == 4 else 0
    sizes = _check_generate("generate_backward", (W_ih, W_hh, b, W_out, b_out), latents, n_steps)
    M, N, T, _, _, O = sizes
    _check_like("generate_backward", "d_outputs", d_outputs, W_ih, "W_ih")
    _check_shape("generate_backward", "d_outputs", d_outputs, "(M, N, T, O)", M, N, T, O)
    *weights, latents, d_outputs = _dense(W_ih, W_hh, b, W_out, b_out, latents, d_outputs)
    d_weights = [torch.empty_like(w) for w in weights]
    d_latents = torch.empty_like(latents)
    _run(
        "generate_backward",
        latents,
        sizes,
        _addresses(weights),
        _addresses([latents, d_outputs, d_latents]),
        _addresses(d_weights),
    )
    d_W_ih, d_W_hh, d_b, d_W_out, d_b_out = d_weights
    return d_W_ih, d_W_hh, d_b, d_W_out, d_b_out, d_latents


@torch.library.register_fake("micfast::generate_backward")
def _(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    latents: Tensor,
    d_outputs: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = (W_ih, W_hh, b, W_out, b_out, latents)
    d = [t.new_empty(t.shape) for t in like]
    return d[0], d[1], d[2], d[3], d[4], d[5]


def _generate_setup(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: Tensor
) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.save_for_forward(*inputs[:6])
    ctx.n_steps = output.shape[2]  # type: ignore[attr-defined]


def _generate_vjp(ctx: torch.autograd.function.FunctionCtx, d_outputs: Tensor) -> tuple:
    return (*torch.ops.micfast.generate_backward(*ctx.saved_tensors, d_outputs), None)  # type: ignore[attr-defined]


torch.library.register_autograd("micfast::generate", _generate_vjp, setup_context=_generate_setup)


def _drawing(n_steps: int) -> Callable[..., Tensor]:
    """The reference as a function of weights and latents alone."""
    return lambda W_ih, W_hh, b, W_out, b_out, latents: reference.generate(
        W_ih, W_hh, b, W_out, b_out, latents, n_steps
    )


def _pull(function: Callable[..., Any], primals: Sequence[Tensor], cotangents: Any) -> Any:
    """Reverse-mode derivative of a function of tensors."""
    vjp: Any = torch.func.vjp(function, *primals)[1]
    return vjp(cotangents)


def _reference_vjp(*arguments: Tensor) -> tuple[Tensor, ...]:
    """What ``generate_backward`` computes, in PyTorch: differentiable once more."""
    *inputs, d_outputs = arguments
    return _pull(_drawing(d_outputs.shape[2]), inputs, d_outputs)


def _backward_setup(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs)
    ctx.save_for_forward(*inputs)


def _backward_vjp(ctx: torch.autograd.function.FunctionCtx, *d_gradients: Tensor) -> tuple:
    arguments = ctx.saved_tensors  # type: ignore[attr-defined]
    return _pull(_reference_vjp, arguments, d_gradients)


torch.library.register_autograd(
    "micfast::generate_backward", _backward_vjp, setup_context=_backward_setup
)


# torch.func cannot see through an operator's autograd formula, so eager calls go through these two
# functions around the operators; torch.compile takes the operators themselves.


def _push(
    function: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...]
) -> Any:
    """Forward-mode derivative of a function of tensors."""
    known = tuple(
        torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True)
    )
    return torch.func.jvp(function, primals, known)[1]


def _modules_of_all(batch_size: int, in_dims: tuple, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """Tensors (B M, ...): the modules of all members of a batch, one after the other."""
    return [
        (t.unsqueeze(0).expand(batch_size, *t.shape) if dim is None else t.movedim(dim, 0)).flatten(
            0, 1
        )
        for t, dim in zip(tensors, in_dims, strict=True)
    ]


class _Generate(torch.autograd.Function):
    """``generate`` for eager autograd, ``torch.func.grad`` and ``torch.func.vmap``."""

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        return torch.ops.micfast.generate(*arguments)

    setup_context = staticmethod(_generate_setup)

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor) -> tuple:
        return (*_GenerateBackward.apply(*ctx.saved_tensors, d_outputs), None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _push(_drawing(ctx.n_steps), ctx.saved_tensors, tangents[:-1])

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *arguments: Any) -> tuple[Tensor, int]:
        *tensors, n_steps = arguments
        *weight_dims, latent_dim, _ = in_dims
        if all(dim is None for dim in weight_dims):  # more inputs for the same modules
            *weights, latents = tensors
            latents = latents.movedim(latent_dim, 1)
            outputs = _Generate.apply(*weights, latents.flatten(1, 2), n_steps)
            return outputs.unflatten(1, latents.shape[1:3]), 1
        merged = _modules_of_all(info.batch_size, in_dims[:-1], tuple(tensors))
        outputs = _Generate.apply(*merged, n_steps)
        return outputs.unflatten(0, (info.batch_size, -1)), 0


class _GenerateBackward(torch.autograd.Function):
    """``generate_backward`` for the same."""

    @staticmethod
    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        return torch.ops.micfast.generate_backward(*tensors)

    setup_context = staticmethod(_backward_setup)
    backward = staticmethod(_backward_vjp)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        return _push(_reference_vjp, ctx.saved_tensors, tangents)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        # Always as further modules: inputs of one module would have their gradients summed.
        merged = _modules_of_all(info.batch_size, in_dims, tensors)
        gradients = _GenerateBackward.apply(*merged)
        return tuple(g.unflatten(0, (info.batch_size, -1)) for g in gradients), (0,) * 6


SearchTensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def extents(sequences: Tensor) -> tuple[Tensor, Tensor]:
    """Of sequences (..., T, O): steps up to the last value that is not NaN, and number of values.

    Both int64 of shape (...).
    """
    known = ~sequences.isnan()
    steps = torch.arange(1, sequences.shape[-2] + 1, dtype=torch.int32, device=known.device)
    lengths = (known.any(dim=-1) * steps).amax(dim=-1).long()
    return lengths, known.sum(dim=(-2, -1))


def _extents_in_order(
    sequences: Tensor, work_of: Callable[[Tensor], Tensor] = lambda lengths: lengths
) -> list[Tensor]:
    """What the kernel wants to know of missing values: lengths, counts, and an order of its work.

    Work of like length shares a block, and the longest goes first, so that the threads end
    together; ``work_of`` tells it from the lengths. Empty where nothing is missing, but for a GPU:
    that answer is not worth waiting for the device.
    """
    lengths, counts = extents(sequences)
    if not counts.is_cuda and bool((counts == sequences.shape[-2] * sequences.shape[-1]).all()):
        return []
    return [lengths, counts, work_of(lengths).argsort(descending=True, stable=True)]


def _search_outputs(
    W_ih: Tensor, targets: Tensor, init: Tensor, n_iter: int, return_history: bool
) -> SearchTensors:
    """Tensors for the results of a search, in the order of :class:`InvertResult`."""
    shape = (W_ih.shape[0], targets.shape[0], init.shape[2])
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
    name: str,
    weights: Weights,
    targets: Tensor,
    init: Tensor,
    n_iter: int,
    return_history: bool,
    tol: float,
    omit_nan: bool,
    *settings: object,
) -> SearchTensors:
    """Check and run the kernel of that name; ``settings`` are its own arguments."""
    M, N, T, H, K, O = _check_search(name, weights, targets, init, n_iter, tol)
    dense = _dense(*weights, targets, init)
    *weight_tensors, targets, init = dense
    outputs = _search_outputs(weights[0], targets, init, n_iter, return_history)
    addresses = _addresses(list(outputs))
    if not return_history:
        addresses[-2:] = [0, 0]
    n_starts = init.shape[2]
    missing = _extents_in_order(targets) if omit_nan else []
    search = (
        (M, N * n_starts, T, H, K, O),
        _addresses(weight_tensors),
        _addresses([targets, init]),
        [0 if init.shape[axis] == 1 else init.stride(axis) for axis in range(3)],
        (n_starts, n_iter),
        tol,
        addresses,
        _addresses(missing) or [0, 0, 0],
    )
    _run(name, targets, search, *settings)
    return outputs


torch.library.define(
    "micfast::invert",
    "(Tensor W_ih, Tensor W_hh, Tensor b, Tensor W_out, Tensor b_out, "
    "Tensor targets, Tensor init, SymInt n_iter, float lr, float beta1, float beta2, float eps, "
    "bool unprojected_error, bool return_history, float tol, bool omit_nan=False) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl("micfast::invert", ["cpu", "cuda"])
def _invert_kernel(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    targets: Tensor,
    init: Tensor,
    n_iter: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    unprojected_error: bool,
    return_history: bool,
    tol: float,
    omit_nan: bool = False,
) -> SearchTensors:
    adam = (lr, beta1, beta2, eps)
    _check_adam("invert", *adam)
    weights = (W_ih, W_hh, b, W_out, b_out)
    return _run_search(
        "invert",
        weights,
        targets,
        init,
        n_iter,
        return_history,
        tol,
        omit_nan,
        adam,
        unprojected_error,
    )


@torch.library.register_fake("micfast::invert")
def _(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    targets: Tensor,
    init: Tensor,
    n_iter: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    unprojected_error: bool,
    return_history: bool,
    tol: float,
    omit_nan: bool = False,
) -> SearchTensors:
    return _search_outputs(W_ih, targets, init, n_iter, return_history)


torch.library.define(
    "micfast::invert_lm",
    "(Tensor W_ih, Tensor W_hh, Tensor b, Tensor W_out, Tensor b_out, "
    "Tensor targets, Tensor init, SymInt n_iter, float damping, bool simplex, "
    "bool return_history, float tol, bool omit_nan=False) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl("micfast::invert_lm", ["cpu", "cuda"])
def _invert_lm_kernel(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    targets: Tensor,
    init: Tensor,
    n_iter: int,
    damping: float,
    simplex: bool,
    return_history: bool,
    tol: float,
    omit_nan: bool = False,
) -> SearchTensors:
    _check_damping(damping)
    weights = (W_ih, W_hh, b, W_out, b_out)
    return _run_search(
        "invert_lm", weights, targets, init, n_iter, return_history, tol, omit_nan, damping, simplex
    )


@torch.library.register_fake("micfast::invert_lm")
def _(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    targets: Tensor,
    init: Tensor,
    n_iter: int,
    damping: float,
    simplex: bool,
    return_history: bool,
    tol: float,
    omit_nan: bool = False,
) -> SearchTensors:
    return _search_outputs(W_ih, targets, init, n_iter, return_history)


torch.library.define(
    "micfast::train",
    "(Tensor W_ih, Tensor W_hh, Tensor b, Tensor W_out, Tensor b_out, "
    "Tensor type_sets, Tensor set_index, Tensor noise_in, Tensor noise_out, Tensor seeds, "
    "SymInt n_episodes, float lr, float beta1, float beta2, float eps, SymInt n_curve, "
    "bool omit_nan=False) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl("micfast::train", ["cpu", "cuda"])
def _train_kernel(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    type_sets: Tensor,
    set_index: Tensor,
    noise_in: Tensor,
    noise_out: Tensor,
    seeds: Tensor,
    n_episodes: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    n_curve: int,
    omit_nan: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    weights: Weights = (W_ih, W_hh, b, W_out, b_out)
    adam = (lr, beta1, beta2, eps)
    sizes = _check_train(
        weights, type_sets, set_index, noise_in, noise_out, seeds, n_episodes, adam, n_curve
    )
    _check_train_values(type_sets, set_index, noise_in, noise_out, omit_nan)
    n_curve = min(n_curve, n_episodes)
    *initial, type_sets, set_index, noise_in, noise_out, seeds = _dense(
        *weights, type_sets, set_index, noise_in, noise_out, seeds
    )
    trained = [torch.empty_like(w) for w in initial]
    loss_curve = type_sets.new_empty(sizes[0], n_curve)
    missing = (
        _extents_in_order(type_sets, lambda lengths: lengths.sum(dim=(1, 2))[set_index])
        if omit_nan
        else []
    )
    _run(
        "train",
        type_sets,
        sizes,
        _addresses(initial),
        _addresses([type_sets, set_index, noise_in, noise_out, seeds, loss_curve]),
        (type_sets.shape[2], n_episodes, n_curve),
        adam,
        _addresses(trained),
        _addresses(missing) or [0, 0, 0],
    )
    return trained[0], trained[1], trained[2], trained[3], trained[4], loss_curve


@torch.library.register_fake("micfast::train")
def _(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    type_sets: Tensor,
    set_index: Tensor,
    noise_in: Tensor,
    noise_out: Tensor,
    seeds: Tensor,
    n_episodes: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    n_curve: int,
    omit_nan: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    w = [t.new_empty(t.shape) for t in (W_ih, W_hh, b, W_out, b_out)]
    return w[0], w[1], w[2], w[3], w[4], W_ih.new_empty(W_ih.shape[0], min(n_curve, n_episodes))


# ----------------------------------------------------------------------------- Python's front door


def generate(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
    latents: Tensor,
    n_steps: int,
    *,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Tensor:
    """Draw one sequence per module and input vector; differentiable in every tensor.

    Arguments and result as :func:`micfast.reference.generate`; arrays of NumPy, JAX and others are
    copied to tensors. Works under ``torch.compile`` and with ``torch.func.grad``, ``vjp``,
    ``jacrev``, ``jvp`` and ``vmap``. First gradients are the kernel's; second ones and those of
    forward mode are PyTorch's, through the reference.

    Parameters
    ----------
    backend : {"auto", "cpu", "cuda", "torch"}
        See :func:`resolve_backend`.
    n_threads : int, optional
        Threads of the CPU kernel; ``torch.get_num_threads()`` by default, and always in the
        backward pass and under ``torch.compile``.

    Raises
    ------
    ValueError, TypeError
        For shapes, devices or dtypes that do not fit.
    RuntimeError
        For a backend that is missing here, a result that memory does not hold, and for forward mode
        with ``backend="cpu"``, whose kernel has none.
    """
    _check_threads("generate", n_threads)
    W_ih, W_hh, b, W_out, b_out, latents = (
        tensor if isinstance(tensor, Tensor) else as_tensor(tensor, f"generate: {name}")
        for name, tensor in (
            ("W_ih", W_ih),
            ("W_hh", W_hh),
            ("b", b),
            ("W_out", W_out),
            ("b_out", b_out),
            ("latents", latents),
        )
    )
    weights = (W_ih, W_hh, b, W_out, b_out)
    tensors = dict(zip(_WEIGHT_NAMES, weights, strict=True)) | {"latents": latents}
    _check_types("generate", tensors, {"n_steps": n_steps}, {}, {})
    resolved = resolve_backend(backend, latents.device)
    if resolved != "torch" and _in_forward_mode(*weights, latents):
        if backend != "auto":
            raise RuntimeError(
                f"generate: backend {backend!r} has no forward-mode derivatives; use 'auto' or "
                "'torch'"
            )
        resolved = "torch"
    if resolved == "torch":
        _check_generate("generate", weights, latents, n_steps)
        return reference.generate(*weights, latents, n_steps)
    if torch.compiler.is_compiling():  # which traces neither context variables nor _Generate
        return torch.ops.micfast.generate(*weights, latents, n_steps)
    with _running(n_threads, None):
        return _Generate.apply(*weights, latents, n_steps)


def _in_forward_mode(*tensors: Tensor) -> bool:
    """Whether a tensor carries a tangent, which the kernel would drop without a word."""
    return any(torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def invert(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
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
    progress: Progress | None = None,
) -> InvertResult:
    """Find, for every module and target, the input vector that draws the target best.

    Arguments and result as :func:`micfast.reference.invert`; not differentiable. A target's result
    is the same, bit for bit, whatever the other targets, their order and the number of threads.

    Parameters
    ----------
    backend : {"auto", "cpu", "cuda", "torch"}
        See :func:`resolve_backend`.
    n_threads : int, optional
        Threads of the CPU kernel; ``torch.get_num_threads()`` by default.
    progress : callable, optional
        Called some ten times a second with the fraction done.

    Raises
    ------
    ValueError, TypeError
        For shapes, devices, dtypes or settings that do not fit.
    RuntimeError
        For a backend that is missing here, or a result that memory does not hold.
    """
    adam = (lr, beta1, beta2, eps)
    numbers = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps}
    flags = {
        "unprojected_error": unprojected_error,
        "return_history": return_history,
        "omit_nan": omit_nan,
    }
    _check_types("invert", {}, {}, numbers, flags)
    _check_adam("invert", *adam)
    weights = (W_ih, W_hh, b, W_out, b_out)
    settings = (n_iter, *adam, unprojected_error, return_history, tol, omit_nan)
    return _search(
        "invert", weights, targets, init, settings, n_iter, tol, backend, n_threads, progress
    )


def invert_lm(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
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
    progress: Progress | None = None,
) -> InvertResult:
    """As :func:`invert`, by Levenberg and Marquardt's method.

    Arguments and result as :func:`micfast.reference.invert_lm`; the others as in :func:`invert`.

    Raises
    ------
    ValueError, TypeError
        For shapes, devices, dtypes or settings that do not fit.
    RuntimeError
        For a backend that is missing here, or a result that memory does not hold.
    """
    flags = {"simplex": simplex, "return_history": return_history, "omit_nan": omit_nan}
    _check_types("invert_lm", {}, {}, {"damping": damping}, flags)
    _check_damping(damping)
    weights = (W_ih, W_hh, b, W_out, b_out)
    settings = (n_iter, damping, simplex, return_history, tol, omit_nan)
    return _search(
        "invert_lm", weights, targets, init, settings, n_iter, tol, backend, n_threads, progress
    )


def _search(
    name: str,
    weights: Weights,
    targets: Tensor,
    init: Tensor,
    settings: tuple,
    n_iter: int,
    tol: float,
    backend: str,
    n_threads: int | None,
    progress: Progress | None,
) -> InvertResult:
    """The operator of that name, or its reference."""
    _check_threads(name, n_threads)
    tensors = dict(zip(_WEIGHT_NAMES, weights, strict=True)) | {"targets": targets, "init": init}
    _check_types(name, tensors, {"n_iter": n_iter}, {"tol": tol}, {})
    # Not differentiable: say so by results without gradient.
    weights = tuple(w.detach() for w in weights)  # type: ignore[assignment]
    targets, init = targets.detach(), init.detach()
    starts = _with_starts(name, init)
    if resolve_backend(backend, targets.device) == "torch":
        _check_search(name, weights, targets, starts, n_iter, tol)
        return getattr(reference, name)(*weights, targets, init, *settings)
    operator = getattr(torch.ops.micfast, name)
    if torch.compiler.is_compiling():
        result = operator(*weights, targets, starts, *settings)
    else:
        with _running(n_threads, progress):
            result = operator(*weights, targets, starts, *settings)
    if init.dim() == 3:  # without the axis of starts, as init came
        axes = (2, 2, 2, 2, 3, 3)
        result = [tensor.squeeze(axis) for tensor, axis in zip(result, axes, strict=True)]
    return InvertResult(*result)


def train(
    W_ih: Tensor,
    W_hh: Tensor,
    b: Tensor,
    W_out: Tensor,
    b_out: Tensor,
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
    *,
    omit_nan: bool = False,
    backend: str = "auto",
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a fleet of modules, each on its own types, with its own noise and seed.

    Arguments and result as :func:`micfast.reference.train` (``noise_in`` and ``noise_out`` float64,
    ``set_index`` and ``seeds`` int64). A module's result does not depend on the fleet around it nor
    on the number of threads, bit for bit.

    Parameters
    ----------
    backend : {"auto", "cpu", "cuda", "torch"}
        See :func:`resolve_backend`.
    n_threads : int, optional
        Threads of the CPU kernel; ``torch.get_num_threads()`` by default.
    progress : callable, optional
        Called some ten times a second with the fraction done.

    Raises
    ------
    ValueError, TypeError
        For shapes, devices, dtypes or settings that do not fit.
    RuntimeError
        For a backend that is missing here, or a result that memory does not hold.
    """
    _check_threads("train", n_threads)
    weights = (W_ih, W_hh, b, W_out, b_out)
    adam = (lr, beta1, beta2, eps)
    per_module = {
        "set_index": set_index,
        "noise_in": noise_in,
        "noise_out": noise_out,
        "seeds": seeds,
    }
    _check_types(
        "train",
        dict(zip(_WEIGHT_NAMES, weights, strict=True)) | {"type_sets": type_sets} | per_module,
        {"n_episodes": n_episodes, "n_curve": n_curve},
        {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps},
        {"omit_nan": omit_nan},
    )
    if type_sets.dim() == 4:  # one variant of each type
        type_sets = type_sets.unsqueeze(2)
    fleet = (type_sets, set_index, noise_in, noise_out, seeds)
    if resolve_backend(backend, W_ih.device) == "torch":
        _check_train(weights, *fleet, n_episodes, adam, n_curve)
        _check_train_values(type_sets, set_index, noise_in, noise_out, omit_nan)

        def report(n_done: int) -> None:
            if progress is not None:
                progress(n_done / n_episodes)

        return reference.train(*weights, *fleet, n_episodes, *adam, n_curve, report, omit_nan)
    with _running(n_threads, progress):
        settings = (n_episodes, *adam, n_curve, omit_nan)
        return TrainResult(*torch.ops.micfast.train(*weights, *fleet, *settings))
