"""Inversion of targets of any size: checks, chunks, starts and results; ``ops`` does the work."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from micfast import ops
from micfast.bank import GeneratorBank, Label

__all__ = ["Inversion", "invert"]

Array: TypeAlias = Any  # numpy.ndarray or Tensor, as the targets were

_NUMPY_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
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
        Mean over steps and channels of the squared difference between target and reconstruction;
        NaN for a target that holds NaN or infinity.
    latents : array of shape (N, M, K)
        Input vectors found; each sums to 1.
    classes : tuple
        The modules' labels.
    bank : GeneratorBank
        The modules.
    n_steps : int
        Length T of the targets.
    error_history : array of shape (I + 1, N, M) or None
        Error before each step, and at the end.
    latent_history : array of shape (I + 1, N, M, K) or None
        Projected input before each step, and at the end.
    """

    errors: Array
    latents: Array
    classes: tuple[Label, ...]
    bank: GeneratorBank = field(repr=False)
    n_steps: int
    error_history: Array | None = None
    latent_history: Array | None = None

    def __repr__(self) -> str:
        N, M, K = self.latents.shape
        parts = [f"n_samples={N}, n_modules={M}, n_types={K}, n_steps={self.n_steps}"]
        errors = _to_numpy(self.errors)
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
        errors = _to_numpy(self.errors)
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
        best = _to_numpy(self.best)
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
            return self._like_errors(drawn.transpose(0, 1).contiguous())
        index = self._module_index(which, N, M)
        drawn = z.new_full((N, self.n_steps, self.bank.output_size), torch.nan)
        for m in np.unique(index[index >= 0]).tolist():
            rows = torch.from_numpy(np.flatnonzero(index == m)).to(z.device)
            module = self.bank.select(indices=m).weights
            latents = z[rows, m][None].contiguous()
            drawn[rows] = ops.generate(*module, latents, self.n_steps, **run)[0]
        return self._like_errors(drawn)

    def _module_index(self, which: Any, N: int, M: int) -> np.ndarray:
        """Checked module index (N,) of ``which``."""
        if isinstance(which, str):
            if which != "best":
                raise ValueError(
                    "Inversion.reconstructions: which must be 'best', 'all' or module indices, "
                    f"got {which!r}"
                )
            return _to_numpy(self.best)
        index = _to_numpy(which)
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
        return _to_numpy(value)


def invert(
    modules: GeneratorBank | nn.Module | Iterable[nn.Module],
    targets: Any,
    *,
    n_iter: int = 50,
    lr: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.99),
    eps: float = 1e-8,
    init: Any = "uniform",
    unprojected_error: bool = False,
    return_history: bool = False,
    chunk_size: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
    random_state: Any = None,
    progress: bool | Callable[[float], object] = False,
) -> Inversion:
    """Find the input with which each module draws each target best.

    Projected Adam on the inputs, the weights frozen; the equations are in ``docs/conventions.md``.
    Targets are worked through in chunks, so a memory-mapped array of any length needs no more
    memory than its results.

    Parameters
    ----------
    modules : GeneratorBank, nn.Module or iterable of nn.Module
        The M modules; torch modules as :meth:`GeneratorBank.from_modules` takes them.
    targets : array of shape (N, T, O), or (N, T) if the modules have one output
        Tensor, NumPy array (``np.memmap`` included), or what ``np.asarray`` or
        ``torch.from_dlpack`` reads; any real dtype, converted to the bank's. A target with NaN or
        infinity gets error NaN and changes no other. N may be 0.
    n_iter : int
        Iterations I; 0 measures the error at the start.
    lr : float
        Step size, relative to inputs that sum to 1.
    betas : tuple of float
        Decay of Adam's two moments, each from 0 to below 1.
    eps : float
        Added to the root of Adam's second moment, above 0.
    init : {"uniform", "paper"} or array of shape (K,), (N, K) or (N, M, K)
        Where the inputs start: 1/K; drawn per component from U(1/K - 0.005, 1/K + 0.005) with
        ``random_state``, as the paper's code does; or given.
    unprojected_error : bool
        Measure the final error before the last projection, as the paper's code does.
    return_history : bool
        Keep error and input of every iteration.
    chunk_size : int, optional
        Targets per chunk; it changes memory and not results. Default: from the sizes, for some
        32 MB (256 MB where autograd does the work, ``backend="torch"``).
    backend : {"auto", "cpu", "cuda", "torch"}
        Which implementation; the work is done on the bank's device.
    n_threads : int, optional
        Default ``torch.get_num_threads()``. Results don't depend on it.
    random_state : int, numpy Generator, RandomState or None
        For ``init="paper"`` only.
    progress : bool or callable
        True shows a bar; a callable gets the fraction done, from 0 to 1.

    Returns
    -------
    Inversion
        NumPy arrays for NumPy targets; tensors on the targets' device for tensors.

    Raises
    ------
    TypeError
        If targets hold no real numbers, or an argument is of another type.
    ValueError
        If a shape or value isn't as described.

    Examples
    --------
    >>> import numpy as np
    >>> bank = GeneratorBank.random(3, hidden_size=5, input_size=4, output_size=2, seeds=range(3))
    >>> result = invert(bank, np.zeros((6, 20, 2)))
    >>> result.errors.shape, result.latents.shape, result.best.shape
    ((6, 3), (6, 3, 4), (6,))
    """
    bank = modules if isinstance(modules, GeneratorBank) else GeneratorBank.from_modules(modules)
    targets, wants_tensor = _check_targets(targets, bank.output_size)
    n_iter = _check_count("n_iter", n_iter, 0)
    settings = _check_settings(n_iter, lr, betas, eps)
    N, T, _ = targets.shape
    M, K = bank.n_modules, bank.input_size
    if chunk_size is None:
        resolved = ops.resolve_backend(backend, bank.device)
        chunk_size = _default_chunk_size(bank, T, n_iter if return_history else 0, resolved)
    else:
        chunk_size = _check_count("chunk_size", chunk_size, 1)
    start = _start_maker(init, N, M, K, random_state)

    device = targets.device if wants_tensor else torch.device("cpu")
    rows = n_iter + 1 if return_history else 0
    errors, latents, error_history, latent_history = (
        torch.empty(shape, dtype=bank.dtype, device=device)
        for shape in ((N, M), (N, M, K), (rows, N, M), (rows, N, M, K))
    )

    with progress_reporter(progress, "inversion", total=N, unit="target") as report:
        for begin in range(0, N, chunk_size):
            end = min(begin + chunk_size, N)
            result = ops.invert(
                *bank.weights,
                _to_bank(targets[begin:end], bank),
                start(begin, end).to(dtype=bank.dtype, device=bank.device),
                **settings,
                unprojected_error=unprojected_error,
                return_history=return_history,
                backend=backend,
                n_threads=n_threads,
                progress=_part_of(report, begin / N, end / N),
            )
            errors[begin:end] = result.errors.mT
            latents[begin:end] = result.latents.transpose(0, 1)
            if return_history:
                error_history[:, begin:end] = result.error_history.mT
                latent_history[:, begin:end] = result.latent_history.transpose(1, 2)
            if report is not None:
                report(end / N)

    def finish(tensor: Tensor) -> Array:
        return tensor if wants_tensor else tensor.numpy()

    return Inversion(
        errors=finish(errors),
        latents=finish(latents),
        classes=bank.classes,
        bank=bank,
        n_steps=T,
        error_history=finish(error_history) if return_history else None,
        latent_history=finish(latent_history) if return_history else None,
    )


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


# -- targets and starts --------------------------------------------------------------------------


def _check_targets(targets: Any, n_channels: int) -> tuple[Any, bool]:
    """Targets (N, T, O) as a NumPy array or a tensor, and whether tensors are to be returned."""
    if not isinstance(targets, np.ndarray | Tensor):
        targets = _as_array(targets)
    wants_tensor = isinstance(targets, Tensor)
    if wants_tensor:
        real = not targets.is_complex()
        targets = targets.detach()
    else:
        real = targets.dtype.kind in "fiub"
    if not real:
        raise TypeError(f"invert: targets must hold real numbers, got dtype {targets.dtype}")
    shape = list(targets.shape)
    if len(shape) == 2 and n_channels == 1:
        targets, shape = targets[..., None], [*shape, 1]
    if len(shape) != 3 or shape[2] != n_channels:
        hint = (
            f"; a single target is targets[None], of shape {[1, *shape]}"
            if len(shape) == 2 and shape[1] == n_channels
            else ""
        )
        raise ValueError(
            "invert: targets must have shape [n_samples, n_timesteps, n_channels] = "
            f"[*, *, {n_channels}], got {shape}{hint}"
        )
    if shape[1] == 0:
        raise ValueError(f"invert: targets must have at least one time step, got shape {shape}")
    return targets, wants_tensor


def _as_array(targets: Any) -> np.ndarray | Tensor:
    """Other libraries' arrays, by way of NumPy if they allow it, else by DLPack."""
    try:
        array = np.asarray(targets)
    except Exception as error:
        # CuPy, say, refuses to leave its device unasked.
        if not hasattr(targets, "__dlpack__"):
            raise TypeError(f"invert: targets must be an array of numbers ({error})") from error
    else:
        if array.dtype != object or not hasattr(targets, "__dlpack__"):
            return array
    return torch.from_dlpack(targets)


def _to_bank(chunk: Any, bank: GeneratorBank) -> Tensor:
    """One chunk as a contiguous tensor of the bank's dtype and device."""
    if not isinstance(chunk, Tensor):
        # NumPy converts first: torch knows neither foreign byte orders nor read-only memory.
        with np.errstate(over="ignore"):
            chunk = torch.from_numpy(np.array(chunk, dtype=_NUMPY_DTYPES[bank.dtype], order="C"))
    return chunk.to(dtype=bank.dtype, device=bank.device).contiguous()


def _start_maker(
    init: Any, N: int, M: int, K: int, random_state: Any
) -> Callable[[int, int], Tensor]:
    """What gives the starts of targets begin to end, of shape (M or 1, n or 1, K)."""
    if isinstance(init, str):
        if init == "uniform":
            uniform = torch.full((1, 1, K), 1 / K, dtype=torch.float64)
            return lambda begin, end: uniform
        if init == "paper":
            rng = _random_generator(random_state)

            # Drawn target by target from one stream: the chunks' borders don't show.
            def draw(begin: int, end: int) -> Tensor:
                z = rng.uniform(1 / K - 0.005, 1 / K + 0.005, (end - begin, M, K))
                return torch.from_numpy(z).transpose(0, 1).contiguous()

            return draw
        raise ValueError(f"invert: init must be 'uniform', 'paper' or an array, got {init!r}")
    z = torch.as_tensor(init).detach()
    allowed = {1: (K,), 2: (N, K), 3: (N, M, K)}
    if tuple(z.shape) != allowed.get(z.ndim):
        raise ValueError(
            "invert: init must have shape [n_types], [n_samples, n_types] or [n_samples, "
            f"n_modules, n_types] = {list(allowed[1])}, {list(allowed[2])} or {list(allowed[3])}, "
            f"got {list(z.shape)}"
        )
    if z.is_complex() or not torch.isfinite(z).all():
        raise ValueError("invert: init must hold finite real numbers")
    if z.ndim == 1:
        return lambda begin, end: z[None, None]
    if z.ndim == 2:
        return lambda begin, end: z[None, begin:end].contiguous()
    return lambda begin, end: z[begin:end].transpose(0, 1).contiguous()


def _random_generator(random_state: Any) -> Any:
    if isinstance(random_state, np.random.RandomState):
        return random_state
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise type(error)(
            "invert: random_state must be a non-negative int, a NumPy Generator or RandomState, "
            f"or None, got {random_state!r}"
        ) from error


# -- settings ------------------------------------------------------------------------------------


def _default_chunk_size(bank: GeneratorBank, T: int, n_history: int, backend: str) -> int:
    """Targets per chunk that keep the extra memory near the limits above."""
    M, K, H = bank.n_modules, bank.input_size, bank.hidden_size
    # The chunk itself; starts, latents and errors, and their histories.
    numbers = T * bank.output_size + M * (2 * K + 1) + n_history * M * (K + 1)
    size = bank.W_ih.element_size()
    chunk_size = _CHUNK_BYTES // (size * numbers)
    if backend == "torch":
        chunk_size = min(chunk_size, _AUTOGRAD_BYTES // (size * _AUTOGRAD_NUMBERS * T * M * H))
    return max(1, chunk_size)


def _check_settings(n_iter: int, lr: Any, betas: Any, eps: Any) -> dict[str, Any]:
    """Adam's settings under the operators' names."""
    try:
        beta1, beta2 = betas
    except (TypeError, ValueError):
        raise ValueError(f"invert: betas must be two numbers, got {betas!r}") from None
    numbers = {"lr": lr, "betas[0]": beta1, "betas[1]": beta2, "eps": eps}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise TypeError(f"invert: {name} must be a number, got {type(value).__name__}")
        beta = name.startswith("betas")
        if not math.isfinite(value) or (not 0 <= value < 1 if beta else value <= 0):
            rule = "from 0 to below 1" if beta else "finite and above 0"
            raise ValueError(f"invert: {name} must be {rule}, got {value}")
    lr, beta1, beta2, eps = map(float, numbers.values())
    return {"n_iter": n_iter, "lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps}


def _check_count(name: str, value: Any, lowest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"invert: {name} must be an integer, got {type(value).__name__}")
    if value < lowest:
        raise ValueError(f"invert: {name} must be at least {lowest}, got {value}")
    return int(value)


# -- arrays --------------------------------------------------------------------------------------


def _to_numpy(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _label_array(classes: tuple[Label, ...]) -> np.ndarray:
    """Labels as an array that keeps their types: mixed ones become an object array."""
    if len({type(label) for label in classes}) == 1:
        return np.array(classes)
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array
