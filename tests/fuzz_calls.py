"""Targets of the fuzzer that call: the operators, the searches, the reader of sequences."""

from __future__ import annotations

import contextlib
import datetime
import re
import warnings
from typing import Any

import numpy as np
import torch
from containers import CONTAINERS
from fuzz_inputs import Draws

import micfast
import micfast.kernels.operators  # registers them

DTYPES = [torch.float32, torch.float64]
# A backend that is missing here, results too large for the memory; and, of torch's own dispatcher,
# arguments that the schema does not know.
DOCUMENTED_RUNTIME_ERROR = re.compile(
    "backend '(cuda|cpu)' is not|can't allocate memory|[Oo]verflow|Expected a value of type|"
    "Could not run 'micfast::|Trying to create tensor with negative dimension"
)
ODD_DTYPES = [
    torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool, torch.complex64,
    torch.uint8,
]  # fmt: skip
SPECIAL = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-40, 1e4, 1e30, -3e38, 5e-324]
ODD_ARGUMENTS = [
    None, "x", [], {}, 1.5, float("nan"), float("inf"), -1, 2**31, 2**40, 2**63, 2**64, True,
    [[1.0]], np.zeros(2), 1j, b"", (), object,
]  # fmt: skip


def some_tensor(draws: Draws, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """A tensor that mostly fits."""
    if draws.rarely():
        if draws.rarely():
            return draws.choice(ODD_ARGUMENTS)
        shape = list(shape)
        action = draws.byte() % 4
        if action == 0 and shape:
            shape[draws.byte() % len(shape)] = draws.choice([0, 1, 2, 3, 5])
        elif action == 1 and shape:
            del shape[draws.byte() % len(shape)]
        else:
            shape.insert(draws.byte() % (len(shape) + 1), draws.choice([0, 1, 2]))
    if draws.rarely():
        dtype = draws.choice(DTYPES + ODD_DTYPES)
    generator = torch.Generator().manual_seed(draws.byte())
    tensor = 2 * torch.rand(tuple(shape), generator=generator, dtype=torch.float64) - 1
    if draws.byte() % 4 == 3:
        tensor = tensor * draws.choice([1e-40, 1e4, 1e30, 1e300])
    for _ in range(draws.byte() % 3 if draws.byte() % 4 == 3 else 0):
        if tensor.numel():
            tensor.view(-1)[draws.byte() % tensor.numel()] = draws.choice(SPECIAL)
    tensor = tensor.to(dtype)
    if draws.rarely():
        layout = draws.byte() % 7
        if layout == 0 and tensor.dim() > 1:
            tensor = tensor.transpose(0, -1).contiguous().transpose(0, -1)
        elif layout == 1:
            tensor = torch.stack([tensor, tensor], -1)[..., 0]
        elif layout == 2 and tensor.dim():
            tensor = tensor[:1].expand_as(tensor) if tensor.shape[0] else tensor
        elif layout == 3 and tensor.is_floating_point():
            tensor = tensor.requires_grad_(True)
        elif layout == 4:
            tensor = tensor.to_sparse() if tensor.dim() else tensor
        elif layout == 5:
            tensor = tensor.to("meta")
        elif layout == 6 and tensor.is_complex():
            tensor = tensor.conj()
    return tensor


def with_gaps(draws: Draws, values: Any) -> Any:
    """A copy with some values missing, also all from a place on."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return with_gaps(draws, torch.from_numpy(values.copy())).numpy()
    if not isinstance(values, torch.Tensor) or values.is_meta or values.is_sparse:
        return values
    if not values.is_floating_point() or not values.numel():
        return values
    flat = values.detach().clone().reshape(-1)
    for _ in range(draws.byte() % 8):
        begin = draws.byte() % len(flat)
        flat[begin : begin + draws.choice([1, 1, 4, len(flat)])] = torch.nan
    return flat.reshape(values.shape)


def some_number(draws: Draws, usual: list[Any]) -> Any:
    return draws.choice(ODD_ARGUMENTS) if draws.rarely() else draws.choice(usual)


@contextlib.contextmanager
def documented_errors() -> Any:
    """Whatever may be raised for bad arguments."""
    # MemoryError: the kernels' own working memory did not fit.
    with contextlib.suppress(ValueError, TypeError, MemoryError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except RuntimeError as error:
            if not DOCUMENTED_RUNTIME_ERROR.search(str(error)):
                raise


def run_operators(data: bytes) -> None:
    """``torch.ops.micfast``, which checks shapes and dtypes itself."""
    draws, ops = Draws(data), torch.ops.micfast
    name = draws.choice(["generate", "invert", "invert_lm", "train", "backward"])
    M, N, T = draws.choice([1, 2, 3]), draws.choice([1, 0, 2, 9]), draws.choice([1, 2, 5])
    H, K, O = draws.choice([1, 3, 8]), draws.choice([1, 2, 4]), draws.choice([1, 2, 3])
    dtype = draws.choice(DTYPES)
    shapes = [(M, 4 * H, K), (M, 4 * H, H), (M, 4 * H), (M, O, H), (M, O)]
    weights = [some_tensor(draws, shape, dtype) for shape in shapes]
    adam = [
        some_number(draws, [0.05, 0.0, 1e30, 0.5]),
        some_number(draws, [0.9, 0.0, 0.999999]),
        some_number(draws, [0.99, 0.0]),
        some_number(draws, [1e-8, 0.0, 1.0]),
    ]
    # On the device meta, torch asks only for the sizes of the results, and nothing is checked.
    on_meta = any(getattr(w, "is_meta", False) for w in weights)
    with contextlib.suppress(IndexError if on_meta else ()), documented_errors():
        if name in ("generate", "backward"):
            latents = some_tensor(draws, (M, N, K), dtype)
            drawn = ops.generate(*weights, latents, some_number(draws, [T, 0]))
            if drawn.requires_grad and not drawn.is_meta:
                drawn.sum().backward()
            if name == "backward":
                ops.generate_backward(*weights, latents, some_tensor(draws, (M, N, T, O), dtype))
            return
        omit_nan = some_number(draws, [False, True])
        if name == "train":
            S, V = draws.choice([1, 2]), draws.choice([1, 2])
            sets = some_tensor(draws, (S, K, V, T, O), dtype)
            index, noise = torch.arange(M) % S, torch.zeros(M, dtype=torch.float64)
            fleet = [
                index if not draws.rarely() else some_tensor(draws, (M,), torch.int64) * 9,
                noise if not draws.rarely() else some_tensor(draws, (M,), torch.float64),
                noise if not draws.rarely() else some_tensor(draws, (M,), torch.float64),
                index if not draws.rarely() else some_tensor(draws, (M,), torch.int64),
            ]
            count, curve = some_number(draws, [3, 0, 1]), some_number(draws, [2, 1, 100])
            if omit_nan is True:
                sets = with_gaps(draws, sets)
            if not isinstance(count, int) or count < 100:
                ops.train(*weights, sets, *fleet, count, *adam, curve, omit_nan)
            return
        targets = some_tensor(draws, (N, T, O), dtype)
        start = (draws.choice([M, 1]), draws.choice([N, 1]), draws.choice([1, 3]), K)
        init = some_tensor(draws, start, dtype)
        n_iter = some_number(draws, [2, 0, 6])
        if isinstance(n_iter, int) and n_iter > 100:
            n_iter = 2**63  # less than that is a long search and no fault
        history, tol = draws.choice([False, True]), some_number(draws, [0.0, 1e-3])
        if omit_nan is True:
            targets = with_gaps(draws, targets)
        if name == "invert":
            settings = (*adam, draws.choice([False, True]))
        else:
            settings = (some_number(draws, [0.1, 1e-9, 1e9]), draws.choice([True, False]))
        solver = getattr(ops, name)
        solver(*weights, targets, init, n_iter, *settings, history, tol, omit_nan)


LOSSES = [micfast.Loss(), micfast.Loss([1, 2], 0.1), micfast.Loss(None, 1, [0])]
LOSSES += [micfast.Loss(huber=0.1)]
SOLVERS = {
    "adam": {
        "n_iter": [2, 0, 5], "learning_rate": [0.05, 1e30], "betas": [(0.9, 0.99), (0.0, 0.0)],
        "eps": [1e-8, 1.0], "tol": [0.0, 1e-3], "unprojected_error": [False, True],
        "constraint": ["simplex", None, "sphere"], "bounds": [None, (0, 1)], "radius": [1.0, 2.0],
        "schedule": [None, "cosine"], "bias_correction": [False, True], "loss": LOSSES,
    },
    "lm": {
        "n_iter": [2, 0, 5], "damping": [0.1, 1e-9, 1e9], "tol": [0.0, 1e-3],
        "constraint": ["simplex", None], "loss": LOSSES,
    },
}  # fmt: skip
STARTS = ["uniform", "paper", "types", "dirichlet", "nearest", "normal"]


def some_solver(draws: Draws, M: int, N: int, K: int, dtype: torch.dtype) -> Any:
    """A solver by name or with settings of its own, some of which do not fit."""
    name = draws.choice(["adam", "lm"])
    if draws.byte() % 4 == 0:
        return some_number(draws, [name])
    usual = SOLVERS[name]
    chosen: dict[str, Any] = {"n_iter": 2}
    for _ in range(draws.byte() % 4):
        key = draws.choice(list(usual))
        chosen[key] = some_number(draws, usual[key])
    if isinstance(chosen["n_iter"], int) and chosen["n_iter"] > 100:
        del chosen["n_iter"]  # hours of work are no fault
    if draws.byte() % 2:
        chosen["start"] = some_number(draws, STARTS)
    elif draws.byte() % 2:
        shape = draws.choice([(K,), (N, K), (N, M, K), (N, M, 2, K)])
        chosen["start"] = some_tensor(draws, shape, dtype)
    return (micfast.Adam if name == "adam" else micfast.LevenbergMarquardt)(**chosen)


def run_invert(data: bytes) -> None:
    """The public functions ``invert`` and ``generate``."""
    draws = Draws(data)
    M, K, O = draws.choice([1, 2, 3]), draws.choice([1, 2, 4]), draws.choice([1, 2])
    N, T = draws.choice([1, 0, 3]), draws.choice([1, 2, 5])
    dtype = draws.choice(DTYPES)
    sizes = {"hidden_size": draws.choice([1, 4]), "input_size": K, "output_size": O}
    bank = micfast.GeneratorBank.random(M, **sizes, seeds=range(M), dtype=dtype)
    targets = some_tensor(draws, (N, T, O), draws.choice(DTYPES))
    if isinstance(targets, torch.Tensor) and draws.byte() % 2:
        with contextlib.suppress(TypeError, RuntimeError):
            targets = targets.detach().numpy()
    with documented_errors():
        policy = some_number(draws, ["propagate", "omit", "omit", "raise"])
        if policy == "omit":
            targets = with_gaps(draws, targets)
        is_dense = str(getattr(targets, "layout", "")) != "torch.sparse_coo"
        if draws.byte() % 8 == 7 and is_dense and len(getattr(targets, "shape", ())) > 1:
            targets = [one[: 1 + draws.byte() % T] for one in targets]  # of several lengths
        elif draws.byte() % 4 == 3:
            given = draws.choice(["lengths", "mask"])
            usual = {
                "lengths": [[1] * N, np.arange(N) % T + 1, torch.full((N,), T)],
                "mask": [
                    np.arange(N * T).reshape(N, T) % 3 > 0,
                    torch.ones(N, T, O, dtype=torch.bool),
                ],
            }
            value = some_number(draws, usual[given])
            targets = micfast.Sequences.read(targets, nan_policy=policy, **{given: value})
        n_threads = some_number(draws, [1, 2, None])
        if isinstance(n_threads, int) and n_threads > 100:
            n_threads = 1
        execution = micfast.Execution(
            some_number(draws, ["auto", "cpu", "torch"]),
            n_threads,
            some_number(draws, [2, 1, 100, None]),
        )
        result = micfast.invert(
            bank,
            targets,
            solver=some_solver(draws, M, N, K, dtype),
            nan_policy=policy,
            history=draws.choice([False, True]),
            execution=execution,
        )
        repr(result)
        assert len(result.best) == len(result.predictions)
        result.reconstructions(some_number(draws, ["best", "all", 0]))
        latents = some_tensor(draws, (M, N, K), dtype)
        n_steps = some_number(draws, [1, 3])
        if not isinstance(n_steps, int) or n_steps < 100:
            bank.generate(latents, n_steps, execution=execution)


# -- sequences -----------------------------------------------------------------------------------

# Exact in every one of these dtypes are small whole numbers.
SEQUENCE_DTYPES = ["f8", "f4", "f2", ">f4", ">f8", "i8", "i2", "u1", "g", "?"]
NO_NUMBERS = [
    "3.5", b"3", datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1), np.datetime64("2020"),
    np.timedelta64(3, "s"), 1j, {"a": 1}, {1}, object(),
]  # fmt: skip
LAYOUTS = [
    lambda a: a,
    np.asfortranarray,
    lambda a: a[::-1].copy()[::-1],
    lambda a: np.repeat(a, 2, axis=0)[::2],
    lambda a: np.lib.stride_tricks.as_strided(a, writeable=False),
]


def run_sequences(data: bytes) -> None:
    """A container is read as the list of its arrays, or refused where it holds no numbers."""
    draws = Draws(data)
    n, O = draws.choice([1, 2, 4]), draws.choice([1, 2, 3])
    shared = draws.choice([None, 1, 2, 5])
    dtype = np.dtype(draws.choice(SEQUENCE_DTYPES))
    items = []
    for _ in range(n):
        shape = (shared or 1 + draws.byte() % 5, O)
        numbers = np.array([draws.byte() % 2 for _ in range(shape[0] * O)], dtype=dtype)
        items.append(draws.choice(LAYOUTS)(numbers.reshape(shape)))
    name = draws.choice(list(CONTAINERS))
    lengths = [len(item) for item in items]
    expected = np.full((n, max(lengths), O), np.nan)
    for row, item in zip(expected, items, strict=True):
        row[: len(item)] = item
    refused = draws.byte() % 4 == 3
    if refused:
        i = draws.byte() % n
        items[i] = items[i].astype(object)
        items[i].flat[draws.byte() % items[i].size] = draws.choice(NO_NUMBERS)
    try:
        container = CONTAINERS[name](items)
    except Exception:
        return  # that library is not here, or does not take them itself
    try:
        read = micfast.Sequences.read(container)
        found = read.padded()
    except (TypeError, ValueError):
        assert refused, (name, dtype)
        return
    assert not refused, (name, items)
    np.testing.assert_array_equal(found, expected, err_msg=name)
    chunk = read.chunk(0, n, torch.float64)
    np.testing.assert_array_equal(chunk.numpy(), expected, err_msg=name)
    for i, item in enumerate(items):  # its meaning does not depend on its neighbours
        alone = micfast.Sequences.read(CONTAINERS[name]([item])).padded()
        np.testing.assert_array_equal(alone[0], expected[i, : len(item)], err_msg=name)


# -- first inputs --------------------------------------------------------------------------------


def draw_seeds() -> list[bytes]:
    """The empty choice everywhere, and arbitrary ones."""
    generator = np.random.default_rng(0)
    return [bytes(100), *(generator.integers(0, 256, 100, np.uint8).tobytes() for _ in range(60))]
