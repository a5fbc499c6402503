"""Inversion of targets of any number: chunks, starts and results; the solver does the work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from micfast.arrays import Array, as_tensor, to_numpy
from micfast.generators.bank import GeneratorBank
from micfast.generators.labels import Label, label_array
from micfast.kernels.backend import resolve_backend
from micfast.kernels.decoder import Decoder
from micfast.kernels.definition import extents
from micfast.kernels.execution import Execution
from micfast.kernels.reference import InvertResult
from micfast.progress import part_of, reporter
from micfast.search.pose import Fit
from micfast.search.problem import read_problem
from micfast.search.solvers import SOLVERS, Solver
from micfast.sequences import NanPolicy, Sequences, is_lazy

__all__ = ["Inversion", "best_module", "best_start", "invert"]

# Extra memory of one chunk, in bytes. The kernels store nothing per target except inputs and
# results; autograd keeps about ten numbers per module, target, step and hidden unit.
_CHUNK_BYTES = 32 * 2**20
_AUTOGRAD_BYTES = 256 * 2**20
_AUTOGRAD_NUMBERS = 10


def best_module(errors: np.ndarray) -> np.ndarray:
    """Index (N,) of the lowest of the errors (N, M); -1 where all are NaN."""
    missing = np.isnan(errors)
    best = np.where(missing, np.inf, errors).argmin(axis=1)
    # An infinite error is still better than none.
    best = np.where(missing[np.arange(len(best)), best], (~missing).argmax(axis=1), best)
    return np.where(missing.all(axis=1), -1, best)


@dataclass(frozen=True, eq=False, repr=False)
class Inversion:
    """The result of :func:`invert`: for every target and module, the best latent and its error.

    Arrays are NumPy's or torch's, as the targets were (tensors on the targets' device), in the
    bank's dtype.

    Attributes
    ----------
    errors : array of shape (N, M)
        Mean over steps and channels of the squared difference between target and reconstruction,
        missing values excluded (with a :class:`micfast.Loss`, what that says); NaN for a target
        that holds infinity or, where NaN is not a missing value, NaN.
    latents : array of shape (N, M, K)
        Latents found; each sums to 1 unless the solver's ``constraint`` is another.
    classes : tuple
        The modules' labels.
    bank : GeneratorBank
        The modules.
    n_steps : int
        Length T of the longest target.
    n_iter_used : array of shape (N, M), int32
        Iterations until ``tol`` stopped the search, else all of them.
    converged : array of shape (N, M), bool
        Whether ``tol`` stopped it.
    error_history : array of shape (I + 1, N, M) or None
        Error before each step (with Levenberg–Marquardt, the lowest so far), and at the end.
    latent_history : array of shape (I + 1, N, M, K) or None
        Projected latent before each step, and at the end.
    lengths : array of shape (N,), int64, or None
        Each target's number of steps, as given or up to its last value; None if no value could be
        missing.
    fit : Fit or None
        How the modules' drawings lie over the targets, where their pose was searched, too; then
        reconstructions are drawn in that pose.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import GeneratorBank, invert
    >>> bank = GeneratorBank.random(
    ...     2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1], classes=["a", "b"]
    ... )
    >>> target = bank.generate([[1, 0, 0]], n_steps=9)[1]  # what "b" draws
    >>> inversion = invert(bank, target.numpy(), solver="lm")
    >>> inversion.predictions, inversion.best
    (array(['b'], dtype='<U1'), array([1]))
    >>> inversion.latents[0, 1].round(3).tolist()
    [1.0, 0.0, 0.0]
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
    fit: Fit | None = None

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
        return self._like_errors(best_module(to_numpy(self.errors)))

    @property
    def predictions(self) -> np.ndarray:
        """Label (N,) of the best module; None (in an object array) where all errors are NaN."""
        best = best_module(to_numpy(self.errors))
        predictions = label_array(self.classes)[best]
        if (best < 0).any():
            predictions = predictions.astype(object)
            predictions[best < 0] = None
        return predictions

    def reconstructions(
        self,
        which: Literal["best", "all"] | int | Array = "best",
        *,
        execution: Execution | str | None = None,
    ) -> Array:
        """Draw the modules' reconstructions of the targets, from the latents.

        Parameters
        ----------
        which : {"best", "all"}, int or int array of shape (N,)
            Each target's best module, all modules, or the module at this index: one for all
            targets, or one for each. -1 gives NaN, as where no module is the best.
        execution : Execution or str, optional

        Returns
        -------
        array of shape (N, T, O), or (N, M, T, O) for "all"
            NaN after a target's end, see ``lengths``.

        Raises
        ------
        TypeError, ValueError
            If ``which`` is something else or an index is out of range.
        """
        z = as_tensor(self.latents, "latents").to(device=self.bank.device)
        N, M, _ = z.shape
        if isinstance(which, str) and which == "all":
            drawn = self.bank.generate(z.transpose(0, 1), self.n_steps, execution=execution)
            drawn = drawn if self.fit is None else self.fit.lay(drawn, self._last())
            return self._like_errors(self._cut(drawn.transpose(0, 1).contiguous()))
        index = self._module_index(which, N, M)
        drawn = z.new_full((N, self.n_steps, self.bank.output_size), torch.nan)
        for m in np.unique(index[index >= 0]).tolist():
            rows = torch.from_numpy(np.flatnonzero(index == m)).to(z.device)
            module = self.bank.select(indices=m)
            own = module.generate(z[rows, m], self.n_steps, execution=execution)[0]
            drawn[rows] = (
                own if self.fit is None else self.fit.at((m, rows)).lay(own, self._last(rows))
            )
        return self._like_errors(self._cut(drawn))

    def _last(self, rows: Any = slice(None)) -> Tensor | None:
        """The last step (n, 1) of some targets."""
        if self.lengths is None:
            return None
        return as_tensor(self.lengths, "lengths")[rows, None].clamp_min(1) - 1

    def _cut(self, drawn: Tensor) -> Tensor:
        """Drawings (N, ..., T, O) with NaN after the targets' ends."""
        if self.lengths is None:
            return drawn
        lengths = as_tensor(self.lengths, "lengths").to(drawn.device)
        after = torch.arange(self.n_steps, device=drawn.device) >= lengths[:, None]
        shape = (len(after), *[1] * (drawn.dim() - 3), self.n_steps, 1)
        return drawn.masked_fill_(after.reshape(shape), torch.nan)

    def _module_index(self, which: Any, N: int, M: int) -> np.ndarray:
        """Checked module index (N,) of ``which``."""
        where = "Inversion.reconstructions"
        if isinstance(which, str):
            if which != "best":
                raise ValueError(
                    f"{where}: which must be 'best', 'all' or module indices, got {which!r}"
                )
            return best_module(to_numpy(self.errors))
        index = to_numpy(which)
        if index.dtype.kind not in "iu" or index.ndim > 1 or (index.ndim and len(index) != N):
            raise ValueError(
                f"{where}: which must be an integer or {N} of them, one per target, "
                f"got dtype {index.dtype} and shape {list(index.shape)}"
            )
        if ((index < -1) | (index >= M)).any():
            raise ValueError(
                f"{where}: indices must be from -1 to {M - 1}, got {index.min()} to {index.max()}"
            )
        return np.broadcast_to(index, (N,))

    def _like_errors(self, value: Array) -> Array:
        """An array of the errors' kind, on their device."""
        if isinstance(self.errors, Tensor):
            return as_tensor(value, "value").to(self.errors.device)
        return to_numpy(value)


def invert(
    modules: GeneratorBank | nn.Module | Iterable[nn.Module] | Mapping[str, nn.Module],
    targets: Any,
    *,
    solver: Solver | str = "adam",
    nan_policy: NanPolicy = "propagate",
    history: bool = False,
    check: Literal["auto", "raise", "warn", False] = "auto",
    decoder: Decoder | None = None,
    execution: Execution | str | None = None,
) -> Inversion:
    """Find the latent from which each module best reconstructs each target.

    The weights are frozen. Targets are processed in chunks, so a memory-mapped array of any length
    needs no more memory than its results.

    Parameters
    ----------
    modules : GeneratorBank, nn.Module, iterable or mapping of nn.Module
        The M modules; torch modules as in :meth:`micfast.GeneratorBank.from_modules`.
    targets : array of shape (N, T, O), or (N, T) if the modules have one output; or sequences
        Tensor, NumPy array (``np.memmap`` included), a list of sequences of any lengths (always
        one target per item), or anything else :meth:`micfast.Sequences.read` takes; any real
        dtype, converted to the bank's. A target with NaN (see `nan_policy`) or infinity gets error
        NaN and affects no other. N may be 0. For modules with one output, an array (T, 1) is one
        target. Arrays (T, N, O) cannot be told from (N, T, O). For lengths or a mask, pass
        ``Sequences.read(targets, lengths=..., mask=...)``. A Dask array (N, T, O), or (N,) of
        arrays, is inverted chunk by chunk when the result is computed.
    solver : {"adam", "lm"} or solver object
        ``"adam"`` is the paper's projected Adam (:class:`micfast.Adam`), ``"lm"`` finds lower
        errors in about a third of the time (:class:`micfast.LevenbergMarquardt`).
    nan_policy : {"propagate", "omit", "raise"}
        NaN makes its target's error NaN; is a missing value; is an error (as in scipy.stats). With
        "omit", an array padded with NaN holds targets of unequal lengths.
    history : bool
        Whether to keep error and latent of every iteration.
    check : {"auto", "raise", "warn", False}
        Torch modules are called once, to check that they draw what micfast draws, see
        :meth:`micfast.GeneratorBank.from_modules`. To check your own loop, see
        :func:`micfast.check`.
    decoder : Decoder, optional
        The structure of torch modules; default what the check finds.
    execution : Execution or str, optional
        Where and how the work is done, or the name of a backend; the work is done on the bank's
        device.

    Returns
    -------
    Inversion
        Tensors on the targets' device for tensors, without gradient; Dask arrays (and a method
        ``compute``) for a Dask array; NumPy arrays for all else.

    Raises
    ------
    TypeError
        If targets hold anything but real numbers, or an argument is of another type.
    ValueError
        If a shape or value is not as described, all values of a target are missing, or a module
        draws something else than its two layers.

    Notes
    -----
    The error of a target with missing values is the mean over the others. Its result is the same,
    bit for bit, as if it were cut after its last value and inverted alone. Targets of similar
    length are processed together, so a short one costs only its own steps.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import GeneratorBank, invert
    >>> bank = GeneratorBank.random(3, hidden_size=5, input_size=4, output_size=2, seeds=range(3))
    >>> result = invert(bank, np.zeros((6, 20, 2)))
    >>> result.errors.shape, result.latents.shape, result.best.shape
    ((6, 3), (6, 3, 4), (6,))
    >>> result = invert(bank, [np.zeros((20, 2)), np.ones((7, 2))], solver="lm")
    >>> result.lengths.tolist(), result.reconstructions().shape
    ([20, 7], (2, 20, 2))
    """
    if is_lazy(targets):
        from micfast.search.lazily import invert_lazily

        return invert_lazily(modules, targets, solver, nan_policy, history, check, execution)
    solver, execution = SOLVERS.resolve(solver), Execution.of(execution)
    bank, sequences = read_problem("invert", modules, targets, nan_policy, check, decoder)
    N, omit_nan = len(sequences), sequences.omits_nan
    n_starts, make_starts = solver.start.prepare(bank, N, omit_nan, execution)
    results = _empty_results(bank, sequences, solver.n_iter + 1 if history else 0)
    dtype, device = bank.dtype, bank.device
    size = _chunk_size(bank, sequences.n_steps, solver.n_iter * history, n_starts, execution)
    with reporter(execution.progress, "inversion", total=N, unit="target") as report:
        for begin in range(0, N, size):
            end = min(begin + size, N)
            chunk = sequences.chunk(begin, end, dtype, device)
            if omit_nan:
                results["lengths"][begin:end] = _lengths(chunk, begin)
            starts = make_starts(begin, chunk).to(dtype=dtype, device=device)
            found = solver.search(
                bank.weights,
                chunk,
                starts,
                history=history,
                omit_nan=omit_nan,
                execution=execution,
                report=part_of(report, begin / N, end / N),
            )
            _store(results, found, begin, end)
            if report is not None:
                report(end / N)
    if sequences.lengths is not None:
        results["lengths"] = torch.from_numpy(sequences.lengths).to(sequences.device)
    arrays: dict[str, Any] = results
    if not sequences.is_tensor:
        arrays = {name: tensor.numpy() for name, tensor in results.items()}
    if not history:
        arrays |= {"error_history": None, "latent_history": None}
    if not omit_nan:
        arrays["lengths"] = None
    return Inversion(classes=bank.classes, bank=bank, n_steps=sequences.n_steps, **arrays)


def _empty_results(bank: GeneratorBank, sequences: Sequences, n_rows: int) -> dict[str, Tensor]:
    """Tensors for the fields of an :class:`Inversion`, on the targets' device."""
    N, M, K, dtype = len(sequences), bank.n_modules, bank.input_size, bank.dtype
    fields: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "errors": (dtype, (N, M)),
        "latents": (dtype, (N, M, K)),
        "n_iter_used": (torch.int32, (N, M)),
        "converged": (torch.bool, (N, M)),
        "error_history": (dtype, (n_rows, N, M)),
        "latent_history": (dtype, (n_rows, N, M, K)),
        "lengths": (torch.int64, (N,)),
    }
    device = sequences.device
    return {n: torch.empty(shape, dtype=d, device=device) for n, (d, shape) in fields.items()}


def _store(results: dict[str, Tensor], found: InvertResult, begin: int, end: int) -> None:
    """Write one chunk's results, for each search from its start of the lowest error."""
    errors, latents, n_iter_used, converged, error_history, latent_history = best_start(found)
    results["errors"][begin:end] = errors.mT
    results["latents"][begin:end] = latents.transpose(0, 1)
    results["n_iter_used"][begin:end] = n_iter_used.mT
    results["converged"][begin:end] = converged.mT
    if len(results["error_history"]):
        results["error_history"][:, begin:end] = error_history.mT
        results["latent_history"][:, begin:end] = latent_history.transpose(1, 2)


def best_start(found: InvertResult) -> list[Tensor]:
    """The result without the axis of starts: each search's start of the lowest error."""
    if found.errors.shape[2] == 1:
        return list(map(torch.squeeze, found, (2, 2, 2, 2, 3, 3)))
    best = torch.nan_to_num(found.errors, nan=math.inf).argmin(dim=2)[:, :, None]

    def take(tensor: Tensor, first: int) -> Tensor:
        # `best` between the iterations, if that is the first axis, and the inputs, if the last.
        trailing = tensor.dim() - first - best.dim()
        index = best[(None,) * first + (...,) + (None,) * trailing]
        return tensor.take_along_dim(index, dim=first + 2).squeeze(first + 2)

    return [take(tensor, i // 4) for i, tensor in enumerate(found)]


def _lengths(chunk: Tensor, begin: int) -> Tensor:
    """Steps up to each target's last value; there must be one."""
    lengths, counts = extents(chunk)
    if bool((counts == 0).any()):
        empty = begin + int((counts == 0).int().argmax())
        raise ValueError(
            f"invert: all values of targets[{empty}] are missing; every target must have one"
        )
    return lengths


def _chunk_size(
    bank: GeneratorBank, T: int, n_history: int, n_starts: int, execution: Execution
) -> int:
    """Targets per chunk: as asked for, or so that the extra memory stays near the limits above."""
    if execution.chunk_size is not None:
        return execution.chunk_size
    M, H, K, O = bank.weights.sizes
    # The chunk itself; starts, latents and errors, and their histories.
    per_start = M * (2 * K + 1) + n_history * M * (K + 1)
    n_bytes = bank.weights.W_ih.element_size()
    size = _CHUNK_BYTES // (n_bytes * (T * O + n_starts * per_start))
    if resolve_backend(execution.backend, bank.device) == "torch":
        per_target = _AUTOGRAD_NUMBERS * T * M * H * n_starts
        size = min(size, _AUTOGRAD_BYTES // (n_bytes * per_target))
    return max(1, size)
