"""GeneratorBank: the weights of many generators, their labels and metadata."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from micfast.arrays import as_tensor
from micfast.generators import modules as torch_modules
from micfast.generators.files import BankFileError, read_parts, write_parts
from micfast.generators.labels import Label, as_label, check_labels, json_value, shortened
from micfast.generators.modules import Generator
from micfast.kernels import calls
from micfast.kernels.decoder import Decoder
from micfast.kernels.execution import Execution
from micfast.kernels.weights import ALIKE, DTYPES, Weights
from micfast.settings import check_count

__all__ = ["GeneratorBank", "check_memory", "generate"]

_N_CACHED = 2
# Most memory that the weights of new modules may take.
_MOST_BYTES = 2**36
_Cached = TypeVar("_Cached")


class GeneratorBank:
    """Weights of M generators with one label each.

    Immutable: methods return a modified copy. The tensors are copies of those passed in, without
    gradient, contiguous; do not write to them.

    Parameters
    ----------
    weights : Weights
    classes : sequence of str, int, float or bool, optional
        One label per module, all different; default ``range(M)``. NumPy scalars become Python's.
    metadata : dict, optional
        Anything JSON can hold: str keys, finite numbers; tuples become lists.

    Attributes
    ----------
    weights : Weights
    classes : tuple of labels
    metadata : dict
        A fresh copy at each access.

    Raises
    ------
    TypeError
        If ``weights`` is something else, or a label or the metadata cannot be stored.
    ValueError
        If the number of labels is wrong, or a label occurs twice.

    Examples
    --------
    >>> from micfast import GeneratorBank
    >>> bank = GeneratorBank.random(
    ...     2, hidden_size=10, input_size=4, output_size=2, seeds=[0, 1], classes=["a", "b"]
    ... )
    >>> bank
    GeneratorBank(n_modules=2, hidden_size=10, input_size=4, output_size=2, classes=('a', 'b'))
    >>> bank.select("b") == bank.without("a")
    True
    """

    __slots__ = ("_cache", "_metadata", "classes", "weights")

    weights: Weights
    classes: tuple[Label, ...]
    _metadata: dict[str, Any]
    _cache: dict[Any, Any]

    def __init__(
        self,
        weights: Weights,
        classes: Iterable[Label] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(weights, Weights):
            raise TypeError(f"GeneratorBank: weights must be Weights, got {type(weights).__name__}")
        labels = range(len(weights)) if classes is None else classes
        checked = json_value({} if metadata is None else metadata, "metadata")
        if not isinstance(checked, dict):
            raise TypeError(
                f"GeneratorBank: metadata must be a dict, got {type(metadata).__name__}"
            )
        object.__setattr__(self, "weights", weights.copy())
        object.__setattr__(self, "classes", check_labels("GeneratorBank", labels, len(weights)))
        object.__setattr__(self, "_metadata", checked)
        object.__setattr__(self, "_cache", {})

    # -- constructors --------------------------------------------------------------------------

    @classmethod
    def from_modules(
        cls,
        modules: nn.Module | Iterable[nn.Module] | Mapping[str, nn.Module],
        classes: Iterable[Label] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        check: Literal["auto", "raise", "warn", False] = "auto",
        n_steps: int | None = None,
        decoder: Decoder | None = None,
    ) -> GeneratorBank:
        """Stack the weights of torch modules, after checking that they draw what the bank draws.

        Where the latent enters, and what follows the read-out, is found by trying the structures of
        :class:`Decoder`, the simplest first: ``bank.weights.decoder`` is the first that agrees.
        Latents embedded by ``nn.Linear``, outputs fed back and scaled or shifted outputs are
        expressed by other weights.

        The weights are those that ``forward`` would use now in evaluation mode, also with weight
        norm, spectral norm or pruning. The modules themselves do not change.

        Parameters
        ----------
        modules : nn.Module, iterable of nn.Module, or mapping of str to nn.Module
            One module, or several (``nn.ModuleList`` included; the keys of a ``nn.ModuleDict`` or
            dict are the classes). Each contains exactly one ``nn.LSTM`` or ``nn.GRU`` (one or
            two layers, one direction, no projection; with or without bias; either ``batch_first``)
            or cell, one ``nn.Linear`` that reads its hidden state, at most two that turn the latent
            into its input or initial state, and no other parameter.
        classes, metadata
            As in :class:`GeneratorBank`.
        check : {"auto", "raise", "warn", False}
            Each module is called once with a few latents, in evaluation mode. One that draws
            something else is an error; one that cannot be called (a bare ``nn.Sequential`` of the
            two layers, for example) gives a warning. "raise" makes both an error, "warn" both a
            warning; False takes the two layers, whatever ``forward`` does.
        n_steps : int, optional
            Steps that the check draws, 128 at most. Default: 24, or the modules' own number.
        decoder : Decoder, optional
            The modules' structure, tried alone. With ``check=False`` the default is
            ``Decoder()``.

        Raises
        ------
        TypeError
            If something is not an ``nn.Module``, or not float32 or float64.
        ValueError
            If a module has another structure or draws something else, or the modules differ in
            size, dtype or device; the message names the module's index.

        Notes
        -----
        The check compares at most 128 steps, and cannot see what your loop passes to a
        ``forward`` that takes the inputs of all steps: see :func:`micfast.check`.
        """
        weights, names = torch_modules.weights_of_modules(modules, check, n_steps, decoder)
        return cls(weights, names if classes is None else classes, metadata)

    @classmethod
    def from_state_dicts(
        cls,
        state_dicts: Iterable[Mapping[str, Tensor]],
        classes: Iterable[Label] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> GeneratorBank:
        """Stack state dicts, such as those of :class:`Generator` (with the paper's keys).

        A state dict does not tell how its module draws: nothing is checked but its shapes.

        Parameters
        ----------
        state_dicts : iterable of dict
            Each holds the tensors of one ``nn.LSTM`` and one ``nn.Linear``, under any names, and
            no others. Prefixes ``module.`` and ``_orig_mod.`` are ignored, and checkpoints that
            hold the tensors under ``"state_dict"`` or ``"model_state_dict"`` are taken as well.
        classes, metadata
            As in :class:`GeneratorBank`.

        Raises
        ------
        TypeError, ValueError
            If an entry is not such a dict, or they differ in size, dtype or device; the message
            names the entry's index.
        """
        return cls(torch_modules.weights_of_state_dicts(state_dicts), classes, metadata)

    @classmethod
    def from_checkpoints(
        cls,
        paths: Iterable[str | os.PathLike[str]],
        classes: Iterable[Label] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> GeneratorBank:
        """Read ``.pth`` files such as the paper's code writes, one state dict each.

        What a state dict may be is described at :meth:`from_state_dicts`.

        They are read with ``torch.load(weights_only=True)``, which runs no code from the file.

        Parameters
        ----------
        paths : iterable of path-like
            One file per module.
        classes, metadata
            As in :class:`GeneratorBank`.

        Raises
        ------
        OSError
            If a file cannot be read.
        BankFileError
            If a file is not such a checkpoint; the message names it.
        ValueError
            If the checkpoints differ in size or dtype.
        """
        return cls(torch_modules.weights_of_checkpoints(paths), classes, metadata)

    @classmethod
    def random(
        cls,
        n_modules: int,
        *,
        hidden_size: int,
        input_size: int,
        output_size: int,
        seeds: Sequence[int] | None = None,
        classes: Iterable[Label] | None = None,
        metadata: Mapping[str, Any] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> GeneratorBank:
        """Create randomly initialised generators, using PyTorch's defaults.

        Weights are drawn from U(-1/sqrt(H), 1/sqrt(H)), as ``nn.LSTM`` and ``nn.Linear`` do.

        Parameters
        ----------
        n_modules, hidden_size, input_size, output_size : int
            M, H, K and O, each at least 1.
        seeds : sequence of int, optional
            One per module, from -2**63 to 2**64 - 1. A module depends on its own seed alone: it
            equals ``torch.manual_seed(seed)`` followed by ``Generator(K, H, O)``. Default: drawn
            from torch's global generator.
        classes, metadata
            As in :class:`GeneratorBank`.
        dtype : torch.dtype
            float32 or float64; the numbers are drawn in float32 in both cases.

        Raises
        ------
        TypeError, ValueError
            If a size is not a positive integer or ``seeds`` has another length.
        """
        where = "GeneratorBank.random"
        M = check_count(where, "n_modules", n_modules, 1)
        H = check_count(where, "hidden_size", hidden_size, 1)
        K = check_count(where, "input_size", input_size, 1)
        O = check_count(where, "output_size", output_size, 1)
        if dtype not in DTYPES:
            raise ValueError(f"{where}: dtype must be float32 or float64, got {dtype}")
        check_memory(where, M, H, K, O, dtype.itemsize)
        if seeds is None:
            seeds = torch.randint(2**63 - 1, (M,), device="cpu").tolist()
        if len(seeds) != M:
            raise ValueError(f"{where}: seeds must have length n_modules = {M}, got {len(seeds)}")
        numbers = [operator.index(seed) for seed in seeds]
        for number in numbers:
            if not -(2**63) <= number < 2**64:
                raise ValueError(f"{where}: seeds must be from -2**63 to 2**64 - 1, got {number}")
        return cls(torch_modules.random_weights(numbers, H, K, O, dtype), classes, metadata)

    @classmethod
    def concat(
        cls, banks: Iterable[GeneratorBank], *, metadata: Mapping[str, Any] | None = None
    ) -> GeneratorBank:
        """Concatenate banks of equal sizes, dtype and device.

        Parameters
        ----------
        banks : iterable of GeneratorBank
            At least one; no label may occur in two of them.
        metadata : dict, optional
            The new bank's; that of the parts is dropped.

        Raises
        ------
        TypeError
            If something is not a bank.
        ValueError
            If the banks do not fit together or share a label.
        """
        banks = list(banks)
        for bank in banks:
            _require_bank("GeneratorBank.concat", "each of banks", bank)
        try:
            weights = Weights.concat(bank.weights for bank in banks)
        except ValueError as error:
            raise ValueError(f"GeneratorBank.concat: {error}") from error
        return cls(weights, [label for bank in banks for label in bank.classes], metadata)

    # -- attributes ----------------------------------------------------------------------------

    @property
    def metadata(self) -> dict[str, Any]:
        """A copy of the metadata."""
        return json.loads(json.dumps(self._metadata))

    @property
    def n_modules(self) -> int:
        """Number of modules M."""
        return self.weights.n_modules

    @property
    def hidden_size(self) -> int:
        """Number of hidden units H."""
        return self.weights.hidden_size

    @property
    def input_size(self) -> int:
        """Number of input values K."""
        return self.weights.input_size

    @property
    def output_size(self) -> int:
        """Number of values per step O."""
        return self.weights.output_size

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.weights.dtype

    @property
    def device(self) -> torch.device:
        """The weights' device."""
        return self.weights.device

    def __len__(self) -> int:
        return self.n_modules

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"GeneratorBank is immutable: {name} cannot be set; see with_module, replace, to, ..."
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"GeneratorBank is immutable: {name} cannot be deleted")

    # NumPy arrays instead of tensors: pickles depend on no torch version, and skops can read them.
    def __getstate__(self) -> dict[str, Any]:
        return {
            "weights": self.weights.numpy(),
            "decoder": self.weights.decoder.as_dict(),
            "classes": list(self.classes),
            "metadata": self._metadata,
            "device": str(self.device),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        device = state["device"]
        arrays = state["weights"].items()
        tensors = {name: torch.from_numpy(np.array(array)).to(device) for name, array in arrays}
        weights = Weights.from_mapping(tensors, decoder=Decoder(**state["decoder"]))
        GeneratorBank.__init__(self, weights, state["classes"], state["metadata"])

    def __repr__(self) -> str:
        sizes = ("n_modules", "hidden_size", "input_size", "output_size")
        parts = [f"{name}={getattr(self, name)}" for name in sizes]
        parts.append(f"classes={shortened(self.classes)}")
        if self.weights.decoder != Decoder():
            parts.append(f"decoder={self.weights.decoder}")
        if self.dtype != torch.float32:
            parts.append(f"dtype={self.dtype}")
        if self.device.type != "cpu":
            parts.append(f"device={str(self.device)!r}")
        return f"GeneratorBank({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        """Equal bits of the weights (NaN included), equal labels of equal types, equal metadata."""
        if not isinstance(other, GeneratorBank):
            return NotImplemented
        return (
            self.classes == other.classes
            and [type(label) for label in self.classes] == [type(label) for label in other.classes]
            and self._metadata == other._metadata
            and self.dtype == other.dtype
            and self.weights.decoder == other.weights.decoder
            and [name for name, _ in self.weights.named()]
            == [name for name, _ in other.weights.named()]
            and all(
                _same_bits(a, b)
                for (_, a), (_, b) in zip(self.weights.named(), other.weights.named(), strict=True)
            )
        )

    __hash__ = None  # type: ignore[assignment]

    # -- new banks from this one ---------------------------------------------------------------

    def index(self, label: Label) -> int:
        """Position of a label.

        Raises
        ------
        KeyError
            If no module has it.
        """
        try:
            return self.classes.index(as_label(label))
        except ValueError:
            raise KeyError(
                f"GeneratorBank: label must be one of {shortened(self.classes)}, got {label!r}"
            ) from None

    def select(
        self, classes: Label | Iterable[Label] | None = None, *, indices: Any = None
    ) -> GeneratorBank:
        """Choose modules, in the order asked for.

        Parameters
        ----------
        classes : label or iterable of labels
            Which to take, by label.
        indices : int, sequence of int or slice
            Which to take, by position. A keyword, since labels may be integers too.

        Returns
        -------
        GeneratorBank
            With this bank's metadata.

        Raises
        ------
        KeyError, IndexError
            If there is no such label or position.
        ValueError
            If nothing is chosen, one module is chosen twice, or not exactly one argument is given.
        """
        if (classes is None) == (indices is None):
            raise ValueError("GeneratorBank.select: give either classes or indices")
        if classes is not None:
            labels = [classes] if isinstance(classes, Label | np.generic) else classes
            chosen = [self.index(label) for label in labels]
        else:
            # NumPy checks range and type; negative positions count from the end.
            chosen = np.atleast_1d(np.arange(self.n_modules)[_as_index(indices)]).tolist()
        if not chosen:
            raise ValueError("GeneratorBank.select: at least one module must be chosen, got none")
        return self._with(self.weights[chosen], [self.classes[i] for i in chosen])

    def without(self, label: Label) -> GeneratorBank:
        """Leave one module out.

        Raises
        ------
        KeyError
            If no module has that label.
        ValueError
            If it is the only one.
        """
        left_out = self.index(label)
        if self.n_modules == 1:
            raise ValueError("GeneratorBank.without: the last module cannot be left out")
        return self.select(indices=[i for i in range(self.n_modules) if i != left_out])

    def with_module(self, label: Label, module: GeneratorBank) -> GeneratorBank:
        """Append a module.

        Parameters
        ----------
        label : str, int, float or bool
            Label of the new module; its label in ``module`` is ignored.
        module : GeneratorBank
            A bank of one, of this bank's sizes, dtype and device.

        Raises
        ------
        TypeError, ValueError
            If the label exists (see :meth:`replace`) or the module does not fit.
        """
        label = as_label(label)
        if label in self.classes:
            raise ValueError(f"GeneratorBank.with_module: label {label!r} exists already")
        self._check_one("GeneratorBank.with_module", module)
        weights = Weights.concat([self.weights, module.weights])
        return self._with(weights, (*self.classes, label))

    def replace(self, label: Label, module: GeneratorBank) -> GeneratorBank:
        """Put another module in the place of the one with this label.

        Parameters
        ----------
        label : str, int, float or bool
        module : GeneratorBank
            A bank of one, of this bank's sizes, dtype and device.

        Raises
        ------
        KeyError
            If no module has that label.
        TypeError, ValueError
            If the module does not fit.
        """
        position = self.index(label)
        self._check_one("GeneratorBank.replace", module)
        order = [*range(position), self.n_modules, *range(position + 1, self.n_modules)]
        weights = Weights.concat([self.weights, module.weights])[order]
        return self._with(weights, self.classes)

    def with_classes(self, classes: Iterable[Label]) -> GeneratorBank:
        """Give all modules new labels."""
        return self._with(self.weights, classes)

    def with_metadata(self, metadata: Mapping[str, Any]) -> GeneratorBank:
        """Replace the metadata."""
        return GeneratorBank(self.weights, self.classes, metadata)

    def to(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> GeneratorBank:
        """Convert to another dtype or device (this bank itself if nothing changes)."""
        weights = self.weights.to(dtype=dtype, device=device)
        return self if weights is self.weights else self._with(weights, self.classes)

    def to_modules(self) -> list[Generator]:
        """Copy each module into an ``nn.Module`` with the state-dict keys of the paper's code.

        Returns
        -------
        list of Generator
            ``lstm.bias_ih_l0`` holds all of ``b`` and ``lstm.bias_hh_l0`` is zero.

        Raises
        ------
        ValueError
            If the modules have another structure than :class:`Generator`.
        """
        if not self.weights.structure.is_plain:
            raise ValueError(
                "GeneratorBank.to_modules: micfast.Generator is an LSTM with the latent as first "
                f"input and nothing after the read-out, which {self!r} is not"
            )
        return torch_modules.modules_of_weights(self.weights)

    def _with(self, weights: Weights, classes: Iterable[Label]) -> GeneratorBank:
        return GeneratorBank(weights, classes, self._metadata)

    def _check_one(self, where: str, module: GeneratorBank) -> None:
        _require_bank(where, "module", module)
        if module.n_modules != 1:
            raise ValueError(f"{where}: module must be a bank of one, got {module.n_modules}")
        for attribute in ALIKE:
            expected = getattr(self.weights, attribute)
            got = getattr(module.weights, attribute)
            if expected != got:
                raise ValueError(f"{where}: module must have {attribute} {expected}, got {got}")

    # -- use -----------------------------------------------------------------------------------

    def generate(
        self, latents: Any, n_steps: int, *, execution: Execution | str | None = None
    ) -> Tensor:
        """Draw sequences with every module, see :func:`micfast.generate`."""
        return generate(self, latents, n_steps, execution=execution)

    def cached(self, key: Any, compute: Callable[[], _Cached]) -> _Cached:
        """Compute something that depends on the modules alone once, and keep the newest few.

        Parameters
        ----------
        key : hashable
            Identifies it.
        compute : callable
            Computes it.

        Returns
        -------
        object
            Shared with later callers: not to be changed.
        """
        if key not in self._cache:
            value = compute()
            while len(self._cache) >= _N_CACHED:
                self._cache.pop(next(iter(self._cache)), None)
            self._cache[key] = value
            return value
        return self._cache[key]

    # -- files ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, atomically.

        Parameters
        ----------
        path : path-like
            An existing file is replaced.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_parts(path, self.weights, self.classes, self._metadata)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu"
    ) -> GeneratorBank:
        """Read a bank; also accepts files saved by ``ModularInverseClassifier``.

        Parameters
        ----------
        path : path-like
        device : torch.device or str
            Where the tensors go.

        Raises
        ------
        OSError
            If the file cannot be read.
        BankFileError
            If it is damaged, of another format or version, or its parts contradict each other.
        """
        weights, classes, metadata, *_ = read_parts(path)
        try:
            return cls(weights, classes, metadata).to(device=device)
        except (TypeError, ValueError) as error:
            raise BankFileError(path, f"inconsistent: {error}") from error


def generate(
    bank: GeneratorBank | Weights,
    latents: Any,
    n_steps: int,
    *,
    execution: Execution | str | None = None,
) -> Tensor:
    """Draw one sequence per module and latent.

    Differentiable in the latents, and in the weights where ``bank`` is a :class:`Weights` whose
    tensors require gradients. Works under ``torch.compile`` and with ``torch.func.grad``, ``vjp``,
    ``jacrev``, ``jvp`` and ``vmap``: first gradients come from the kernel, second ones and those in
    forward mode from PyTorch through the reference.

    Parameters
    ----------
    bank : GeneratorBank or Weights
        M modules.
    latents : Tensor or array-like of shape (N, K) or (M, N, K)
        Where they enter is the decoder's matter; the same for all modules or each module's own; of
        any real dtype, converted to the bank's.
    n_steps : int
        Length T, at least 1.
    execution : Execution or str, optional
        Where and how the work is done, or the name of a backend.

    Returns
    -------
    Tensor of shape (M, N, T, O)
        In the bank's dtype, on its device.

    Raises
    ------
    TypeError
        If ``latents`` is no array of real numbers, or ``bank`` is something else.
    ValueError
        If ``latents`` has another shape, or ``n_steps`` is below 1.
    RuntimeError
        For a backend that is not available, and for forward mode with a compiled backend.

    Examples
    --------
    >>> from micfast import GeneratorBank, generate
    >>> bank = GeneratorBank.random(3, hidden_size=5, input_size=4, output_size=2, seeds=range(3))
    >>> generate(bank, [[1, 0, 0, 0], [0, 1, 0, 0]], n_steps=7).shape
    torch.Size([3, 2, 7, 2])
    """
    weights = bank.weights if isinstance(bank, GeneratorBank) else bank
    if not isinstance(weights, Weights):
        raise TypeError(
            f"generate: bank must be a GeneratorBank or Weights, got {type(bank).__name__}"
        )
    if not isinstance(latents, Tensor):
        latents = as_tensor(latents, "generate: latents")
    if latents.layout != torch.strided or latents.is_complex() or latents.is_meta:
        raise TypeError(
            "generate: latents must be a dense tensor of real numbers, got layout "
            f"{latents.layout}, dtype {latents.dtype} and device {latents.device}"
        )
    z = latents.to(dtype=weights.dtype, device=weights.device)
    M, K = weights.n_modules, weights.input_size
    if z.ndim not in (2, 3) or z.shape[-1] != K or (z.ndim == 3 and z.shape[0] != M):
        raise ValueError(
            "generate: latents must have shape [n_samples, n_types] = [*, "
            f"{K}] or [n_modules, n_samples, n_types] = [{M}, *, {K}], got {list(z.shape)}"
        )
    n_steps = check_count("generate", "n_steps", n_steps, 1, 2**31 - 1)
    z = z.expand(M, -1, -1)
    return calls.generate(weights, z, n_steps, Execution.of(execution))


# -- small things --------------------------------------------------------------------------------


def check_memory(
    where: str, n_modules: int, hidden_size: int, input_size: int, output_size: int, itemsize: int
) -> None:
    """Refuse sizes that only a mistake can explain, before they take the memory.

    Raises
    ------
    ValueError
    """
    M, H, K, O = n_modules, hidden_size, input_size, output_size
    n_bytes = M * (4 * H * (K + H + 1) + O * (H + 1)) * itemsize
    if n_bytes > _MOST_BYTES:
        raise ValueError(
            f"{where}: the weights of {M} modules with hidden_size {H}, input_size {K} and "
            f"output_size {O} would take {n_bytes / 2**30:,.0f} GiB, "
            f"{_MOST_BYTES / 2**30:.0f} GiB at most are allowed"
        )


def _require_bank(where: str, name: str, bank: Any) -> None:
    if not isinstance(bank, GeneratorBank):
        raise TypeError(
            f"{where}: {name} must be a GeneratorBank, got {type(bank).__name__}; "
            "GeneratorBank.from_modules makes one of nn.Modules"
        )


def _as_index(indices: Any) -> Any:
    """A NumPy index of integers; a boolean mask or an empty list would mean something else."""
    if isinstance(indices, slice):
        return indices
    array = np.asarray(indices)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"GeneratorBank.select: indices must be integers, got {array.dtype}")
    return array


def _same_bits(a: Tensor, b: Tensor) -> bool:
    a, b = a.cpu(), b.cpu()
    integer = torch.int32 if a.dtype == torch.float32 else torch.int64
    return torch.equal(a.view(integer), b.view(integer))
