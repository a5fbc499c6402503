"""Inversion of targets of any size: checks, chunks, starts and results; ``ops`` does the work."""

from __future__ import annotations

import contextlib
import math
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from micfast import ops
from micfast._ragged import to_numpy
from micfast.bank import GeneratorBank, Label
from micfast.sequences import NanPolicy, Sequences
from micfast.starts import make_starts

__all__ = ["Inversion", "invert"]

Array: TypeAlias = Any  # numpy.ndarray or Tensor, as the targets were

# Iterations that are enough, as far as the experiments in docs/better.md tell.
_N_ITER = {"adam": 50, "lm": 8}
# Extra memory of one chunk, in bytes. The kernels store nothing per target but inputs and results;
# autograd keeps about ten numbers per module, target, step and hidden unit.
_CHUNK_BYTES = 32 * 2**20
_AUTOGRAD_BYTES = 256 * 2**20
_AUTOGRAD_NUMBERS = 10


@dataclass(frozen=True, eq=False, repr=False)
class Inversion:
    """What :func:`invert` found: for every target and module, the best input and its error.

    Arrays are NumPy's or torch's, as the targets were (tensors on the targets' device), in the
    bank's dtype.

    Attributes
    ----------
    errors : array of shape (N, M)
        Mean over steps and channels of the squared difference between target and reconstruction,
        over the values that aren't missing; NaN for a target that holds infinity or, where NaN
        doesn't stand for a missing value, NaN.
    latents : array of shape (N, M, K)
        Input vectors found; each sums to 1.
    classes : tuple
        The modules' labels.
    bank : GeneratorBank
        The modules.
    n_steps : int
        Length T of the targets, of the longest.
    n_iter_used : array of shape (N, M), int32
        Iterations until ``tol`` stopped the search, else all of them.
    converged : array of shape (N, M), bool
        Whether ``tol`` stopped it.
    error_history : array of shape (I + 1, N, M) or None
        Error before each step (with "lm", the lowest so far), and at the end.
    latent_history : array of shape (I + 1, N, M, K) or None
        Projected input before each step, and at the end.
    lengths : array of shape (N,), int64, or None
        Each target's number of steps, as given or up to its last value; None if no value could be
        missing.
    """

    errors: Array
    latents: Array
    classes: tuple[Label, ...]
    bank: GeneratorBank = field(repr=False)
    n_steps: int
    n_iter_used: Array | None = None
    converged: Array | None = None
    error_history: Array | None = None
    latent_history: Array | None = None
    lengths: Array | None = None

    def __repr__(self) -> str:
        N, M, K = self.latents.shape
        parts = [f"n_samples={N}, n_modules={M}, n_types={K}, n_steps={self.n_steps}"]
        errors = to_numpy(self.errors)
        known = ~np.isnan(errors).all(axis=1)
        if known.any():
            parts.append(f"mean of the best errors {np.nanmin(errors[known], axis=1).mean():.4g}")
        if not known.all():
            parts.append(f"{(~known).sum()} without an error")
        if self.error_history is not None:
            parts.append(f"history of {len(self.error_history) - 1} iterations")
        return f"Inversion({', '.join(parts)})"

    @property
    def best(self) -> Array:
        """Index (N,) of the module with the lowest error; -1 where all errors are NaN. int64."""
        errors = to_numpy(self.errors)
        missing = np.isnan(errors)
        best = np.where(missing, np.inf, errors).argmin(axis=1)
        # An infinite error is still better than none.
        first_known = (~missing).argmax(axis=1)
        best = np.where(missing[np.arange(len(best)), best], first_known, best)
        return self._like_errors(np.where(missing.all(axis=1), -1, best))

    @property
    def predictions(self) -> np.ndarray:
        """Label (N,) of the best module; None (in an object array) where all errors are NaN."""
        labels = _label_array(self.classes)
        best = to_numpy(self.best)
        predictions = labels[best]
        if (best < 0).any():
            predictions = predictions.astype(object)
            predictions[best < 0] = None
        return predictions

    def reconstructions(
        self,
        which: Literal["best", "all"] | int | Array = "best",
        *,
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> Array:
        """Draw what the modules made of the targets; computed from the latents at each call.

        Parameters
        ----------
        which : {"best", "all"}, int or int array of shape (N,)
            Each target's best module, all modules, or the module at this index: one for all
            targets, or one for each. -1 gives NaN, as where no module is the best.
        backend, n_threads
            As in :func:`invert`.

        Returns
        -------
        array of shape (N, T, O), or (N, M, T, O) for "all"
            NaN after a target's end, see ``lengths``.

        Raises
        ------
        ValueError
            If ``which`` is something else or an index is out of range.
        """
        z = torch.as_tensor(self.latents).to(device=self.bank.device)
        weights = self.bank.weights
        N, M, _ = z.shape
        run: dict[str, Any] = {"backend": backend, "n_threads": n_threads}
        if isinstance(which, str) and which == "all":
            latents = z.transpose(0, 1).contiguous()
            drawn = ops.generate(*weights, latents, self.n_steps, **run)
            return self._like_errors(self._cut(drawn.transpose(0, 1).contiguous()))
        index = self._module_index(which, N, M)
        drawn = z.new_full((N, self.n_steps, self.bank.output_size), torch.nan)
        for m in np.unique(index[index >= 0]).tolist():
            rows = torch.from_numpy(np.flatnonzero(index == m)).to(z.device)
            module = self.bank.select(indices=m).weights
            latents = z[rows, m][None].contiguous()
            drawn[rows] = ops.generate(*module, latents, self.n_steps, **run)[0]
        return self._like_errors(self._cut(drawn))

    def _cut(self, drawn: Tensor) -> Tensor:
        """Drawings (N, ..., T, O) with NaN after the targets' ends."""
        if self.lengths is None:
            return drawn
        lengths = torch.as_tensor(self.lengths).to(drawn.device)
        after = torch.arange(self.n_steps, device=drawn.device) >= lengths[:, None]
        shape = (len(after), *[1] * (drawn.dim() - 3), self.n_steps, 1)
        return drawn.masked_fill_(after.reshape(shape), torch.nan)

    def _module_index(self, which: Any, N: int, M: int) -> np.ndarray:
        """Checked module index (N,) of ``which``."""
        if isinstance(which, str):
            if which != "best":
                raise ValueError(
                    "Inversion.reconstructions: which must be 'best', 'all' or module indices, "
                    f"got {which!r}"
                )
            return to_numpy(self.best)
        index = to_numpy(which)
        if index.dtype.kind not in "iu" or index.ndim > 1 or (index.ndim and len(index) != N):
            raise ValueError(
                f"Inversion.reconstructions: which must be an integer or {N} of them, one per "
                f"target, got dtype {index.dtype} and shape {list(index.shape)}"
            )
        if ((index < -1) | (index >= M)).any():
            raise ValueError(
                f"Inversion.reconstructions: indices must be from -1 to {M - 1}, "
                f"got {index.min()} to {index.max()}"
            )
        return np.broadcast_to(index, (N,))

    def _like_errors(self, value: Array) -> Array:
        """An array of the errors' kind, on their device."""
        if isinstance(self.errors, Tensor):
            return torch.as_tensor(value).to(self.errors.device)
        return to_numpy(value)


def invert(
    modules: GeneratorBank | nn.Module | Iterable[nn.Module],
    targets: Any,
    *,
    lengths: Any = None,
    mask: Any = None,
    nan_policy: NanPolicy = "propagate",
    solver: Literal["adam", "lm"] = "adam",
    n_iter: int | None = None,
    lr: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-8,
    damping: float = 0.1,
    constraint: Literal["simplex"] | None = "simplex",
    init: Any = "uniform",
    n_starts: int | None = None,
    tol: float = 0.0,
    unprojected_error: bool = False,
    return_history: bool = False,
    chunk_size: int | None = None,
    backend: str = "auto",
    devices: Iterable[torch.device | str] | None = None,
    n_threads: int | None = None,
    random_state: Any = None,
    progress: bool | Callable[[float], object] = False,
) -> Inversion:
    """Find the input with which each module draws each target best.

    Projected Adam on the inputs as in the paper, or Levenberg and Marquardt's method, which takes a
    few steps where Adam takes dozens; the weights are frozen. The equations are in
    ``docs/conventions.md``. Targets are worked through in chunks, so a memory-mapped array of any
    length needs no more memory than its results.

    Parameters
    ----------
    modules : GeneratorBank, nn.Module or iterable of nn.Module
        The M modules; torch modules as
        :meth:`micfast.GeneratorBank.from_modules` takes them.
    targets : array of shape (N, T, O), or (N, T) if the modules have one output; or a list
        Tensor, NumPy array (``np.memmap`` included), or what ``np.asarray`` or
        ``torch.from_dlpack`` reads (data frames, JAX arrays); any real dtype, converted to the
        bank's. Of unequal lengths: a list of N arrays (T_i, O) or (T_i,), a nested tensor, a
        ``PackedSequence`` of torch. A target with NaN (but see `nan_policy`) or infinity gets error
        NaN and changes no other. N may be 0.
    lengths : int array of shape (N,), optional
        Number of steps of each target of an array; what follows them doesn't matter.
    mask : bool array of shape (N, T) or (N, T, O), optional
        True where a value counts; what the others hold doesn't matter. A NumPy masked array brings
        its own. Not streamed: it is held in memory.
    nan_policy : {"propagate", "omit", "raise"}
        What NaN among the targets' values is, as in scipy.stats: a value that spoils its target; a
        value that is missing; an error. With "omit", an array padded with NaN, as tslearn's
        ``to_time_series_dataset`` makes it, is one of unequal lengths.
    solver : {"adam", "lm"}
        Projected Adam, or Levenberg and Marquardt's method (damped Gauss-Newton steps).
    n_iter : int, optional
        Iterations I, by default 50 of Adam and 8 of Levenberg and Marquardt; 0 measures the error
        at the start.
    lr : float
        Adam's step size, relative to inputs that sum to 1.
    betas : tuple of float
        Decay of Adam's two moments, each from 0 to below 1.
    eps : float
        Added to the root of Adam's second moment, above 0.
    damping : float
        Of Levenberg and Marquardt's first step, relative to the mean curvature; above 0.
    constraint : {"simplex"} or None
        Whether inputs are non-negative with sum 1. None, free inputs, is for ``solver="lm"``.
    init : str, or array of shape (K,), (N, K), (N, M, K) or (N, M, S, K)
        Where the inputs start:

        - "uniform": at 1/K;
        - "paper": drawn per component from U(1/K - 0.005, 1/K + 0.005), as the paper's code does;
        - "types": at 1/K and at each of the types, K + 1 starts;
        - "dirichlet": drawn evenly from the simplex, ``n_starts`` times;
        - "nearest": at the ``n_starts`` mixtures of the types, of up to 129, whose drawings are
          nearest to the target (:func:`micfast.starts.nearest`);
        - or as given.
    n_starts : int, optional
        Starts S of each search. All are followed, and the one with the lowest error counts.
    tol : float
        Where positive, a search ends when it gains less than this part of its error: Adam's in
        five iterations, Levenberg and Marquardt's in one.
    unprojected_error : bool
        Measure Adam's final error before the last projection, as the paper's code does.
    return_history : bool
        Keep error and input of every iteration.
    chunk_size : int, optional
        Targets per chunk; it changes memory and not results. Default: from the sizes, for some
        32 MB (256 MB where autograd does the work, ``backend="torch"``).
    backend : {"auto", "cpu", "cuda", "torch"}
        Which implementation; the work is done on the bank's device.
    devices : iterable of torch.device or str, optional
        Devices to work on instead, such as ``["cuda:0", "cuda:1"]``: chunks of targets are dealt to
        them, and the results come in the targets' order.
    n_threads : int, optional
        Default ``torch.get_num_threads()``. Results don't depend on it.
    random_state : int, numpy Generator, RandomState or None
        For ``init="paper"`` and ``init="dirichlet"``.
    progress : bool or callable
        True shows a bar; a callable gets the fraction done, from 0 to 1.

    Returns
    -------
    Inversion
        Tensors on the targets' device for tensors (and what only DLPack reads), without gradient;
        NumPy arrays for all else.

    Raises
    ------
    TypeError
        If targets hold no real numbers, or an argument is of another type.
    ValueError
        If a shape or value isn't as described, or all values of a target are missing.

    Notes
    -----
    The error of a target of which values are missing is the mean over the others. Its result is
    the same, bit for bit, as if it were cut after its last value and inverted alone. Targets of
    like length are worked on together, so that a short one costs what its own steps cost.

    Examples
    --------
    >>> import numpy as np
    >>> bank = GeneratorBank.random(3, hidden_size=5, input_size=4, output_size=2, seeds=range(3))
    >>> result = invert(bank, np.zeros((6, 20, 2)))
    >>> result.errors.shape, result.latents.shape, result.best.shape
    ((6, 3), (6, 3, 4), (6,))
    >>> result = invert(bank, [np.zeros((20, 2)), np.ones((7, 2))])
    >>> result.lengths.tolist(), result.reconstructions().shape
    ([20, 7], (2, 20, 2))
    """
    bank = modules if isinstance(modules, GeneratorBank) else GeneratorBank.from_modules(modules)
    sequences = Sequences("invert", targets, bank.output_size, lengths, mask, nan_policy)
    search, settings = _check_solver(
        solver, n_iter, lr, betas, eps, damping, constraint, unprojected_error, tol
    )
    n_iter = settings["n_iter"]
    banks = _banks_on(bank, devices)
    N, T = len(sequences), sequences.n_steps
    M, K = bank.n_modules, bank.input_size
    run: dict[str, Any] = {"backend": backend, "n_threads": n_threads}
    omit_nan = sequences.omit_nan
    S, make = make_starts(init, n_starts, bank, N, random_state, omit_nan=omit_nan, **run)
    if chunk_size is None:
        resolved = ops.resolve_backend(backend, banks[0].device)
        chunk_size = _default_chunk_size(bank, T, n_iter if return_history else 0, resolved, S)
        chunk_size = min(chunk_size, max(1, math.ceil(N / len(banks))))
    else:
        chunk_size = _check_count("chunk_size", chunk_size, 1)

    device = sequences.device
    rows = n_iter + 1 if return_history else 0
    shapes = {
        "errors": (bank.dtype, (N, M)),
        "latents": (bank.dtype, (N, M, K)),
        "n_iter_used": (torch.int32, (N, M)),
        "converged": (torch.bool, (N, M)),
        "error_history": (bank.dtype, (rows, N, M)),
        "latent_history": (bank.dtype, (rows, N, M, K)),
        "lengths": (torch.int64, (N,)),
    }
    results = {
        name: torch.empty(shape, dtype=dtype, device=device)
        for name, (dtype, shape) in shapes.items()
    }

    def work(begin: int, chunk: Tensor, start: Tensor, bank: GeneratorBank, report: Any) -> None:
        """Invert one chunk with the modules of this bank."""
        end = begin + len(chunk)
        result = search(
            *bank.weights,
            chunk.to(bank.device),
            start.to(dtype=bank.dtype, device=bank.device),
            **settings,
            return_history=return_history,
            omit_nan=omit_nan,
            progress=report,
            **run,
        )
        errors, latents, n_used, converged, error_history, latent_history = _best_start(result)
        results["errors"][begin:end] = errors.mT
        results["latents"][begin:end] = latents.transpose(0, 1)
        results["n_iter_used"][begin:end] = n_used.mT
        results["converged"][begin:end] = converged.mT
        if return_history:
            results["error_history"][:, begin:end] = error_history.mT
            results["latent_history"][:, begin:end] = latent_history.transpose(1, 2)

    def chunks() -> Iterator[tuple[int, Tensor, Tensor]]:
        for begin in range(0, N, chunk_size):
            end = min(begin + chunk_size, N)
            chunk = sequences.read(begin, end, bank.dtype, bank.device)
            if omit_nan:
                results["lengths"][begin:end] = _lengths(chunk, begin)
            yield begin, chunk, make(begin, end, chunk)

    with progress_reporter(progress, "inversion", total=N, unit="target") as report:
        if len(banks) == 1:
            for begin, chunk, start in chunks():
                end = begin + len(chunk)
                work(begin, chunk, start, banks[0], _part_of(report, begin / N, end / N))
                if report is not None:
                    report(end / N)
        else:
            for n_done in _deal(work, chunks(), banks):
                if report is not None:
                    report(n_done / N)

    if sequences.lengths is not None:
        results["lengths"] = torch.from_numpy(sequences.lengths).to(device)
    arrays: dict[str, Array] = {
        name: t if sequences.wants_tensor else t.numpy() for name, t in results.items()
    }
    if not return_history:
        arrays |= {"error_history": None, "latent_history": None}
    if not omit_nan:
        arrays["lengths"] = None
    return Inversion(classes=bank.classes, bank=bank, n_steps=T, **arrays)


def _lengths(chunk: Tensor, begin: int) -> Tensor:
    """Steps up to each target's last value; there must be one."""
    lengths, counts = ops.extents(chunk)
    if bool((counts == 0).any()):
        empty = begin + int((counts == 0).int().argmax())
        raise ValueError(
            "invert: every target must have a value that isn't missing, "
            f"got none in targets[{empty}]"
        )
    return lengths


def _banks_on(
    bank: GeneratorBank, devices: Iterable[torch.device | str] | None
) -> list[GeneratorBank]:
    """The bank on each of the devices."""
    if devices is None:
        return [bank]
    if isinstance(devices, str | torch.device):
        raise TypeError(f"invert: devices must be a list of devices, got {devices!r}")
    banks = [bank.to(device=device) for device in devices]
    if not banks:
        raise ValueError("invert: devices must name at least one device, got none")
    return banks


def _deal(
    work: Callable[..., None],
    chunks: Iterator[tuple[int, Tensor, Tensor]],
    banks: list[GeneratorBank],
) -> Iterator[int]:
    """Work on the chunks with all banks at once; yields how many targets are done.

    A thread for each bank takes the next chunk when it has done its last. Chunks are read here, in
    order, one ahead of the threads.
    """
    free: queue.SimpleQueue[GeneratorBank] = queue.SimpleQueue()
    for bank in banks:
        free.put(bank)

    def run(bank: GeneratorBank, begin: int, chunk: Tensor, start: Tensor) -> int:
        try:
            work(begin, chunk, start, bank, None)
            return len(chunk)
        finally:
            free.put(bank)

    n_done = 0
    with ThreadPoolExecutor(len(banks)) as pool:
        waiting: set[Future[int]] = set()
        for begin, chunk, start in chunks:
            waiting.add(pool.submit(run, free.get(), begin, chunk, start))
            done = {future for future in waiting if future.done()}
            waiting -= done
            for future in done:
                n_done += future.result()
                yield n_done
        for future in as_completed(waiting):
            n_done += future.result()
            yield n_done


def _best_start(result: ops.InvertResult) -> tuple[Tensor, ...]:
    """The result without the axis of starts: each search's start of the lowest error."""
    best = torch.nan_to_num(result.errors, nan=math.inf).argmin(dim=2)[:, :, None]

    def take(tensor: Tensor, first: int) -> Tensor:
        # `best` between the iterations, if that is the first axis, and the inputs, if the last.
        trailing = tensor.dim() - first - best.dim()
        index = best[(None,) * first + (...,) + (None,) * trailing]
        return tensor.take_along_dim(index, dim=first + 2).squeeze(first + 2)

    return tuple(take(tensor, i // 4) for i, tensor in enumerate(result))


@contextlib.contextmanager
def progress_reporter(
    progress: bool | Callable[[float], object], description: str, *, total: int, unit: str
) -> Iterator[Callable[[float], object] | None]:
    """Give a function that takes the fraction done: the caller's own, a bar's, or None."""
    if callable(progress):
        yield progress
    elif not progress:
        yield None
    else:
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=description, unit=unit) as bar:
            yield lambda fraction: bar.update(round(fraction * total) - bar.n)


def _part_of(
    report: Callable[[float], object] | None, begin: float, end: float
) -> Callable[[float], None] | None:
    """What reports the progress of one chunk as part of the whole."""
    if report is None:
        return None

    def report_part(fraction: float) -> None:
        report(begin + fraction * (end - begin))

    return report_part


# -- settings ------------------------------------------------------------------------------------


def _default_chunk_size(
    bank: GeneratorBank, T: int, n_history: int, backend: str, n_starts: int = 1
) -> int:
    """Targets per chunk that keep the extra memory near the limits above."""
    M, K, H = bank.n_modules, bank.input_size, bank.hidden_size
    # The chunk itself; starts, latents and errors, and their histories.
    per_start = M * (2 * K + 1) + n_history * M * (K + 1)
    numbers = T * bank.output_size + n_starts * per_start
    size = bank.W_ih.element_size()
    chunk_size = _CHUNK_BYTES // (size * numbers)
    if backend == "torch":
        per_target = _AUTOGRAD_NUMBERS * T * M * H * n_starts
        chunk_size = min(chunk_size, _AUTOGRAD_BYTES // (size * per_target))
    return max(1, chunk_size)


def _check_solver(
    solver: Any,
    n_iter: Any,
    lr: Any,
    betas: Any,
    eps: Any,
    damping: Any,
    constraint: Any,
    unprojected_error: bool,
    tol: Any,
) -> tuple[Callable[..., ops.InvertResult], dict[str, Any]]:
    """The operator that searches, and its settings under their names there."""
    if solver not in _N_ITER:
        raise ValueError(f"invert: solver must be 'adam' or 'lm', got {solver!r}")
    if constraint not in ("simplex", None):
        raise ValueError(f"invert: constraint must be 'simplex' or None, got {constraint!r}")
    n_iter = _N_ITER[solver] if n_iter is None else _check_count("n_iter", n_iter, 0)
    common = {"n_iter": n_iter, "tol": _check_number("tol", tol, zero=True)}
    adam = _check_adam(lr, betas, eps)
    damping = _check_number("damping", damping)
    if solver == "adam":
        if constraint is None:
            raise ValueError("invert: constraint must be 'simplex' for solver='adam', got None")
        return ops.invert, common | adam | {"unprojected_error": unprojected_error}
    if unprojected_error:
        raise ValueError("invert: unprojected_error must be False for solver='lm', got True")
    return ops.invert_lm, common | {"damping": damping, "simplex": constraint is not None}


def _check_adam(lr: Any, betas: Any, eps: Any) -> dict[str, float]:
    try:
        beta1, beta2 = betas
    except (TypeError, ValueError):
        raise ValueError(f"invert: betas must be two numbers, got {betas!r}") from None
    return {
        "lr": _check_number("lr", lr),
        "beta1": _check_number("betas[0]", beta1, zero=True, below=1),
        "beta2": _check_number("betas[1]", beta2, zero=True, below=1),
        "eps": _check_number("eps", eps),
    }


def _check_number(name: str, value: Any, *, zero: bool = False, below: float = math.inf) -> float:
    """A finite number above 0 (or 0, if allowed) and below a bound."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"invert: {name} must be a number, got {type(value).__name__}")
    if not (0 <= value < below if zero else 0 < value < below):
        rule = ("from 0" if zero else "finite and above 0") + (
            f" to below {below:g}" if below < math.inf else " up and finite" if zero else ""
        )
        raise ValueError(f"invert: {name} must be {rule}, got {value}")
    return float(value)


def _check_count(name: str, value: Any, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"invert: {name} must be an integer, got {type(value).__name__}")
    if value < lowest:
        raise ValueError(f"invert: {name} must be at least {lowest}, got {value}")
    return int(value)


# -- arrays --------------------------------------------------------------------------------------


def _label_array(classes: tuple[Label, ...]) -> np.ndarray:
    """Labels as an array that keeps their types: mixed ones become an object array."""
    if len({type(label) for label in classes}) == 1:
        return np.array(classes)
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array
