"""The weights of many generators in five stacked tensors, and the file that keeps them.

Owns conversion from and to ``nn.Module`` and ``state_dict``; ``ops`` does the computing.
"""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

import micfast
from micfast._arrays import as_tensor
from micfast._io import atomic_path

__all__ = ["BankFileError", "Generator", "GeneratorBank", "Label"]

Label: TypeAlias = str | int | float | bool

_FORMAT = "micfast-bank"
_FORMAT_VERSION = 1
_WEIGHTS = ("W_ih", "W_hh", "b", "W_out", "b_out")
# Tensors and metadata with this prefix are another layer's (the estimator's): a bank skips them.
_EXTRA = "extra."
_DTYPES = (torch.float32, torch.float64)
_N_REMEMBERED = 2
_STATE_KEYS = (
    "lstm.weight_ih_l0",
    "lstm.weight_hh_l0",
    "lstm.bias_ih_l0",
    "lstm.bias_hh_l0",
    "FC.weight",
    "FC.bias",
)


class BankFileError(ValueError):
    """A file that should hold a bank (or an estimator) doesn't, or holds a damaged one."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


class Generator(nn.Module):
    """One generator as a torch module: an LSTM that sees its input once, and a linear read-out.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        K, H and O of ``docs/conventions.md``.

    Examples
    --------
    >>> import torch
    >>> Generator(4, 10, 2)(torch.full((3, 4), 0.25), n_steps=7).shape
    torch.Size([3, 7, 2])
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size)
        self.FC = nn.Linear(hidden_size, output_size)

    def forward(self, latents: Tensor, n_steps: int) -> Tensor:
        """Draw one sequence per input vector.

        Parameters
        ----------
        latents : Tensor of shape (N, K)
            Input at the first step; the input of every later step is zero.
        n_steps : int
            Length T, at least 1.

        Returns
        -------
        Tensor of shape (N, T, O)
        """
        rest = latents.new_zeros(n_steps - 1, *latents.shape)
        h, _ = self.lstm(torch.cat([latents[None], rest]))
        return self.FC(h).transpose(0, 1)


class GeneratorBank:
    """Weights of M generators, one per class.

    Immutable: the methods that change something give a new bank. The tensors are copies of what
    was passed in, without gradient, contiguous, of one dtype and on one device; don't write to
    them.

    Parameters
    ----------
    W_ih, W_hh, b, W_out, b_out : Tensor
        Shapes (M, 4H, K), (M, 4H, H), (M, 4H), (M, O, H), (M, O); float32 or float64. Gate blocks
        in the order i, f, g, o; ``b`` is the sum of torch's two bias vectors.
    classes : sequence of str, int, float or bool, optional
        One label per module, all different; default ``range(M)``. NumPy scalars become Python's.
    metadata : dict, optional
        Anything JSON can hold: str keys, finite numbers; tuples become lists.

    Attributes
    ----------
    W_ih, W_hh, b, W_out, b_out : Tensor
    classes : tuple of labels
    metadata : dict
        A fresh copy at each access.

    Raises
    ------
    TypeError
        If a weight is no tensor, or a label or the metadata are of a type that can't be stored.
    ValueError
        If shapes, dtypes or devices don't fit together, or a label occurs twice.

    Examples
    --------
    >>> bank = GeneratorBank.random(
    ...     2, hidden_size=10, input_size=4, output_size=2, seeds=[0, 1], classes=["a", "b"]
    ... )
    >>> bank
    GeneratorBank(n_modules=2, hidden_size=10, input_size=4, output_size=2, classes=('a', 'b'))
    >>> bank.select("b") == bank.without("a")
    True
    """

    __slots__ = ("W_hh", "W_ih", "W_out", "_metadata", "_remembered", "b", "b_out", "classes")

    W_ih: Tensor
    W_hh: Tensor
    b: Tensor
    W_out: Tensor
    b_out: Tensor
    classes: tuple[Label, ...]
    _metadata: dict[str, Any]
    _remembered: dict[Any, Tensor]

    def __init__(
        self,
        W_ih: Tensor,
        W_hh: Tensor,
        b: Tensor,
        W_out: Tensor,
        b_out: Tensor,
        *,
        classes: Iterable[Label] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        weights = dict(zip(_WEIGHTS, (W_ih, W_hh, b, W_out, b_out), strict=True))
        _check_weights(weights)
        labels = range(W_ih.shape[0]) if classes is None else classes
        for name, tensor in weights.items():
            copy = tensor.detach().clone(memory_format=torch.contiguous_format)
            object.__setattr__(self, name, copy)
        object.__setattr__(self, "classes", _check_classes(labels, W_ih.shape[0]))
        checked = _json_value({} if metadata is None else metadata, "metadata")
        if not isinstance(checked, dict):
            raise TypeError(
                f"GeneratorBank: metadata must be a dict, got {type(metadata).__name__}"
            )
        object.__setattr__(self, "_metadata", checked)
        object.__setattr__(self, "_remembered", {})

    # -- constructors --------------------------------------------------------------------------

    @classmethod
    def from_modules(
        cls,
        modules: nn.Module | Iterable[nn.Module],
        classes: Iterable[Label] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> GeneratorBank:
        """Stack the weights of torch modules.

        Parameters
        ----------
        modules : nn.Module or iterable of nn.Module
            One module, or several (``nn.ModuleList`` included). Each holds exactly one ``nn.LSTM``
            (one layer, one direction, no projection; with bias or without; either
            ``batch_first``), one ``nn.Linear`` that reads its hidden state, and no other
            parameter. What their ``forward`` does besides isn't seen.
        classes, metadata
            As in :class:`GeneratorBank`.

        Raises
        ------
        TypeError
            If something isn't an ``nn.Module``.
        ValueError
            If a module is of another build, or the modules differ in size, dtype or device; the
            message names the module's index.
        """
        if isinstance(modules, nn.Module) and not isinstance(modules, nn.ModuleList):
            modules = [modules]
        listed: Iterable[Any] = modules
        parts = [_module_weights(module, i) for i, module in enumerate(listed)]
        return cls(*_stack("GeneratorBank.from_modules", parts), classes=classes, metadata=metadata)

    @classmethod
    def from_state_dicts(
        cls,
        state_dicts: Iterable[Mapping[str, Tensor]],
        classes: Iterable[Label] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> GeneratorBank:
        """Stack state dicts with the keys of :class:`Generator` (those of the paper's code).

        Parameters
        ----------
        state_dicts : iterable of dict
            Keys ``lstm.weight_ih_l0``, ``lstm.weight_hh_l0``, ``lstm.bias_ih_l0``,
            ``lstm.bias_hh_l0``, ``FC.weight``, ``FC.bias``, and no others.
        classes, metadata
            As in :class:`GeneratorBank`.

        Raises
        ------
        TypeError, ValueError
            If an entry isn't such a dict, or they differ in size, dtype or device; the message
            names the entry's index.
        """
        name = "GeneratorBank.from_state_dicts"
        parts = [_state_weights(state, f"{name}: entry {i}") for i, state in enumerate(state_dicts)]
        return cls(*_stack(name, parts), classes=classes, metadata=metadata)

    @classmethod
    def from_checkpoints(
        cls,
        paths: Iterable[str | os.PathLike[str]],
        classes: Iterable[Label] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> GeneratorBank:
        """Read ``.pth`` files as the paper's code writes them, one state dict each.

        They are read with ``torch.load(weights_only=True)``, so no code in them runs.

        Parameters
        ----------
        paths : iterable of path-like
            One file per module.
        classes, metadata
            As in :class:`GeneratorBank`.

        Raises
        ------
        OSError
            If a file can't be read.
        BankFileError
            If a file isn't such a checkpoint; the message names it.
        ValueError
            If the checkpoints differ in size or dtype.
        """
        if isinstance(paths, str | os.PathLike):
            raise TypeError(
                "GeneratorBank.from_checkpoints: paths must be a sequence of paths, got a single "
                f"one: {os.fspath(paths)!r}"
            )
        parts = []
        for path in paths:
            with open(path, "rb") as file:
                try:
                    state = torch.load(file, map_location="cpu", weights_only=True)
                # A damaged pickle or zip can raise almost any exception.
                except Exception as error:
                    raise BankFileError(path, f"not a torch checkpoint ({error})") from error
            try:
                parts.append(_state_weights(state, "checkpoint"))
            except (TypeError, ValueError) as error:
                raise BankFileError(path, str(error)) from error
        weights = _stack("GeneratorBank.from_checkpoints", parts)
        return cls(*weights, classes=classes, metadata=metadata)

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
        """Start new generators as ``nn.LSTM`` and ``nn.Linear`` start: U(-1/sqrt(H), 1/sqrt(H)).

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
            If a size isn't a positive integer or ``seeds`` has another length.
        """
        name = "GeneratorBank.random"
        M = _positive(name, "n_modules", n_modules)
        H = _positive(name, "hidden_size", hidden_size)
        K = _positive(name, "input_size", input_size)
        O = _positive(name, "output_size", output_size)
        if dtype not in _DTYPES:
            raise ValueError(f"{name}: dtype must be float32 or float64, got {dtype}")
        if seeds is None:
            seeds = torch.randint(2**63 - 1, (M,)).tolist()
        if len(seeds) != M:
            raise ValueError(f"{name}: seeds must have length n_modules = {M}, got {len(seeds)}")
        bound = 1 / math.sqrt(H)
        # The shapes in the order in which nn.LSTM and nn.Linear draw them.
        shapes = [(4 * H, K), (4 * H, H), (4 * H,), (4 * H,), (O, H), (O,)]
        parts = []
        for seed in seeds:
            number = operator.index(seed)
            if not -(2**63) <= number < 2**64:
                raise ValueError(f"{name}: seeds must be from -2**63 to 2**64 - 1, got {number}")
            rng = torch.Generator().manual_seed(number)
            drawn = [torch.empty(s, dtype=torch.float32) for s in shapes]
            W_ih, W_hh, b_ih, b_hh, W_out, b_out = (
                tensor.uniform_(-bound, bound, generator=rng).to(dtype) for tensor in drawn
            )
            parts.append((W_ih, W_hh, b_ih + b_hh, W_out, b_out))
        return cls(*_stack(name, parts), classes=classes, metadata=metadata)

    @classmethod
    def concat(
        cls, banks: Iterable[GeneratorBank], *, metadata: Mapping[str, Any] | None = None
    ) -> GeneratorBank:
        """Put banks of equal sizes, dtype and device one behind the other.

        Parameters
        ----------
        banks : iterable of GeneratorBank
            At least one; no label may occur in two of them.
        metadata : dict, optional
            The new bank's; that of the parts isn't taken over.

        Raises
        ------
        ValueError
            If the banks don't fit together or share a label.
        """
        banks = list(banks)
        if not banks:
            raise ValueError("GeneratorBank.concat: banks must hold at least one bank, got none")
        for i, bank in enumerate(banks):
            _check_fits("GeneratorBank.concat", f"bank {i}", bank, banks[0])
        weights = [torch.cat(tensors) for tensors in zip(*(b.weights for b in banks), strict=True)]
        labels = [label for bank in banks for label in bank.classes]
        return cls(*weights, classes=labels, metadata=metadata)

    # -- attributes ----------------------------------------------------------------------------

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``(W_ih, W_hh, b, W_out, b_out)``, the first arguments of every operator."""
        return self.W_ih, self.W_hh, self.b, self.W_out, self.b_out

    @property
    def metadata(self) -> dict[str, Any]:
        """A copy of the metadata."""
        return json.loads(json.dumps(self._metadata))

    @property
    def n_modules(self) -> int:
        """Number of modules M."""
        return self.W_ih.shape[0]

    @property
    def hidden_size(self) -> int:
        """Number of hidden units H."""
        return self.W_hh.shape[2]

    @property
    def input_size(self) -> int:
        """Number of input values K."""
        return self.W_ih.shape[2]

    @property
    def output_size(self) -> int:
        """Number of values per step O."""
        return self.W_out.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.W_ih.dtype

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.W_ih.device

    def __len__(self) -> int:
        return self.n_modules

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"GeneratorBank is immutable: {name} can't be set; see with_module, replace, to, ..."
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"GeneratorBank is immutable: {name} can't be deleted")

    # NumPy arrays instead of tensors: pickles depend on no torch version, and skops can read them.
    def __getstate__(self) -> dict[str, Any]:
        return {
            "weights": [tensor.cpu().numpy() for tensor in self.weights],
            "classes": list(self.classes),
            "metadata": self._metadata,
            "device": str(self.device),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = [torch.from_numpy(np.array(w)).to(state["device"]) for w in state["weights"]]
        GeneratorBank.__init__(self, *weights, classes=state["classes"], metadata=state["metadata"])

    def __repr__(self) -> str:
        parts = [
            f"{name}={getattr(self, name)}"
            for name in ("n_modules", "hidden_size", "input_size", "output_size")
        ]
        parts.append(f"classes={_short(self.classes)}")
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
            and all(map(_same_bits, self.weights, other.weights))
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
                f"GeneratorBank: label must be one of {_short(self.classes)}, got {label!r}"
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
        weights = (tensor[chosen] for tensor in self.weights)
        return GeneratorBank(
            *weights, classes=[self.classes[i] for i in chosen], metadata=self._metadata
        )

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
            raise ValueError("GeneratorBank.without: the last module can't be left out")
        return self.select(indices=[i for i in range(self.n_modules) if i != left_out])

    def with_module(self, label: Label, module: GeneratorBank) -> GeneratorBank:
        """Append a module.

        Parameters
        ----------
        label : str, int, float or bool
            Label of the new module; the one it has in ``module`` doesn't count.
        module : GeneratorBank
            A bank of one, of this bank's sizes, dtype and device.

        Raises
        ------
        ValueError
            If the label exists (see :meth:`replace`) or the module doesn't fit.
        """
        label = as_label(label)
        if label in self.classes:
            raise ValueError(f"GeneratorBank.with_module: label {label!r} exists already")
        self._check_one("GeneratorBank.with_module", module)
        weights = (torch.cat(pair) for pair in zip(self.weights, module.weights, strict=True))
        return GeneratorBank(*weights, classes=(*self.classes, label), metadata=self._metadata)

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
        ValueError
            If the module doesn't fit.
        """
        position = self.index(label)
        self._check_one("GeneratorBank.replace", module)
        weights = [tensor.clone() for tensor in self.weights]
        for target, source in zip(weights, module.weights, strict=True):
            target[position] = source[0]
        return GeneratorBank(*weights, classes=self.classes, metadata=self._metadata)

    def with_classes(self, classes: Iterable[Label]) -> GeneratorBank:
        """Give all modules new labels."""
        return GeneratorBank(*self.weights, classes=classes, metadata=self._metadata)

    def with_metadata(self, metadata: Mapping[str, Any]) -> GeneratorBank:
        """Replace the metadata."""
        return GeneratorBank(*self.weights, classes=self.classes, metadata=metadata)

    def to(
        self,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> GeneratorBank:
        """Convert to another dtype or device (this bank itself if nothing changes).

        Parameters
        ----------
        dtype : torch.dtype, optional
            float32 or float64.
        device : torch.device or str, optional
        """
        converted = [tensor.to(device=device, dtype=dtype) for tensor in self.weights]
        if converted[0] is self.W_ih:
            return self
        return GeneratorBank(*converted, classes=self.classes, metadata=self._metadata)

    def to_modules(self) -> list[Generator]:
        """Copy each module into an ``nn.Module`` with the state-dict keys of the paper's code.

        Returns
        -------
        list of Generator
            ``lstm.bias_ih_l0`` holds all of ``b`` and ``lstm.bias_hh_l0`` is zero.
        """
        modules = []
        for W_ih, W_hh, b, W_out, b_out in zip(*self.weights, strict=True):
            # Built without memory, so that no random number of the caller's is used up.
            with torch.device("meta"):
                module = Generator(self.input_size, self.hidden_size, self.output_size)
            values = (W_ih, W_hh, b, torch.zeros_like(b), W_out, b_out)
            state = {key: v.clone() for key, v in zip(_STATE_KEYS, values, strict=True)}
            module.load_state_dict(state, assign=True)
            module.requires_grad_(True)
            modules.append(module)
        return modules

    def _check_one(self, name: str, module: GeneratorBank) -> None:
        if not isinstance(module, GeneratorBank):
            raise TypeError(
                f"{name}: module must be a GeneratorBank, got {type(module).__name__}; "
                "GeneratorBank.from_modules([module]) makes one"
            )
        if module.n_modules != 1:
            raise ValueError(f"{name}: module must be a bank of one, got {module.n_modules}")
        _check_fits(name, "module", module, self)

    # -- use -----------------------------------------------------------------------------------

    def generate(
        self,
        latents: Any,
        n_steps: int,
        *,
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> Tensor:
        """Draw sequences with every module.

        Parameters
        ----------
        latents : Tensor or array-like of shape (N, K) or (M, N, K)
            Inputs at the first step, the same for all modules or each module's own; of any real
            dtype, converted to the bank's.
        n_steps : int
            Length T.
        backend : {"auto", "cpu", "cuda", "torch"}
        n_threads : int, optional
            Default ``torch.get_num_threads()``.

        Returns
        -------
        Tensor of shape (M, N, T, O)
            Differentiable in ``latents`` if that is a tensor which requires a gradient.

        Raises
        ------
        ValueError
            If ``latents`` has another shape.
        TypeError
            If ``latents`` is no array of real numbers.
        """
        from micfast import ops

        z = as_tensor(latents, "GeneratorBank.generate: latents").to(
            dtype=self.dtype, device=self.device
        )
        M, K = self.n_modules, self.input_size
        if z.ndim not in (2, 3) or z.shape[-1] != K or (z.ndim == 3 and z.shape[0] != M):
            raise ValueError(
                "GeneratorBank.generate: latents must have shape [n_samples, n_types] = [*, "
                f"{K}] or [n_modules, n_samples, n_types] = [{M}, *, {K}], got {list(z.shape)}"
            )
        z = z.expand(M, -1, -1).contiguous()
        return ops.generate(*self.weights, z, n_steps, backend=backend, n_threads=n_threads)

    def remember(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """Compute something that depends on the modules alone once, and keep the newest few.

        Parameters
        ----------
        key : hashable
            What it is.
        make : callable
            Computes it.

        Returns
        -------
        Tensor
            Shared with later callers: not to be changed.
        """
        known = self._remembered.get(key)
        if known is None:
            known = make()
            while len(self._remembered) >= _N_REMEMBERED:
                self._remembered.pop(next(iter(self._remembered)), None)
            self._remembered[key] = known
        return known

    # -- files ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file; the file appears whole or not at all.

        Parameters
        ----------
        path : path-like
            An existing file is replaced.

        Raises
        ------
        OSError
            If it can't be written.
        """
        write_bank(path, self)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, device: torch.device | str = "cpu"
    ) -> GeneratorBank:
        """Read a bank; a file that ``ModularInverseClassifier.save`` wrote does too.

        Parameters
        ----------
        path : path-like
        device : torch.device or str
            Where the tensors go.

        Raises
        ------
        OSError
            If the file can't be read.
        BankFileError
            If it is damaged, of another format, too new, or its parts contradict each other.
        """
        return read_bank(path)[0].to(device=device)


# -- files, as the estimator shares them ---------------------------------------------------------


def write_bank(
    path: str | os.PathLike[str],
    bank: GeneratorBank,
    extra_tensors: Mapping[str, Tensor] | None = None,
    extra: Any = None,
) -> None:
    """Write a bank together with tensors and a JSON value that :func:`GeneratorBank.load` skips."""
    from safetensors.torch import save

    tensors = {name: getattr(bank, name).cpu() for name in _WEIGHTS}
    for name, tensor in (extra_tensors or {}).items():
        tensors[_EXTRA + name] = tensor.detach().cpu().contiguous()
    header = {
        "format": _FORMAT,
        "format_version": str(_FORMAT_VERSION),
        "micfast_version": micfast.__version__,
        "classes": json.dumps(list(bank.classes), allow_nan=False),
        "metadata": json.dumps(bank._metadata, allow_nan=False),
    }
    if extra is not None:
        header[_EXTRA + "json"] = json.dumps(_json_value(extra, "extra"), allow_nan=False)
    data = save(tensors, metadata=header)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read_bank(path: str | os.PathLike[str]) -> tuple[GeneratorBank, dict[str, Tensor], Any]:
    """Read what :func:`write_bank` wrote: bank, extra tensors, extra JSON value (None if absent).

    Nothing in the file is believed: safetensors checks offsets and lengths, this function names,
    dtypes, JSON and (through the constructor) how the parts fit together.
    """
    from safetensors import SafetensorError, safe_open

    # Opening it first gives the plain OSError of a file that is absent, a folder or unreadable.
    with open(path, "rb") as file:
        if not file.read(8):
            raise BankFileError(path, "the file is empty")
    try:
        # As NumPy's arrays: of each tensor of torch, safetensors 0.8 keeps some bytes for good.
        with safe_open(os.fspath(Path(path)), framework="numpy") as file:
            header = file.metadata() or {}
            _check_header(path, header)
            tensors = {}
            for name in file.keys():  # noqa: SIM118 - no mapping
                dtype = file.get_slice(name).get_dtype()
                if dtype not in ("F32", "F64"):
                    raise BankFileError(path, f"tensor {name!r} has dtype {dtype}, not F32 or F64")
                tensors[name] = torch.from_numpy(file.get_tensor(name).copy())
    except SafetensorError as error:
        raise BankFileError(path, f"not a safetensors file, or a damaged one ({error})") from error
    extra_tensors = {
        name.removeprefix(_EXTRA): tensors.pop(name)
        for name in sorted(tensors)
        if name.startswith(_EXTRA)
    }
    if set(tensors) != set(_WEIGHTS):
        raise BankFileError(
            path, f"a bank must hold the tensors {sorted(_WEIGHTS)}, got {sorted(tensors)}"
        )
    classes, metadata = _read_json(path, header, "classes"), _read_json(path, header, "metadata")
    if not isinstance(classes, list) or not isinstance(metadata, dict):
        raise BankFileError(path, "classes must be a JSON list and metadata a JSON object")
    extra = _read_json(path, header, _EXTRA + "json") if _EXTRA + "json" in header else None
    try:
        weights = (tensors[name] for name in _WEIGHTS)
        bank = GeneratorBank(*weights, classes=classes, metadata=metadata)
    except (TypeError, ValueError) as error:
        raise BankFileError(path, f"inconsistent: {error}") from error
    return bank, extra_tensors, extra


def _check_header(path: str | os.PathLike[str], header: Mapping[str, str]) -> None:
    if header.get("format") != _FORMAT:
        raise BankFileError(
            path, f"a safetensors file, but of another format: {header.get('format')!r}"
        )
    text = header.get("format_version", "")
    # Ten digits: int() refuses thousands of them with an error of its own.
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) >= 1):
        raise BankFileError(path, f"format_version must be a positive integer, got {text[:40]!r}")
    if int(text) > _FORMAT_VERSION:
        writer = header.get("micfast_version", "")[:40]
        raise BankFileError(
            path,
            f"written by a newer micfast ({f'{writer}, ' * bool(writer)}format version {text}, "
            f"this one, {micfast.__version__}, reads up to {_FORMAT_VERSION}): update micfast",
        )


def _read_json(path: str | os.PathLike[str], header: Mapping[str, str], key: str) -> Any:
    if key not in header:
        raise BankFileError(path, f"the header has no {key!r}")
    try:
        return _json_value(json.loads(header[key]), key)
    except (TypeError, ValueError, RecursionError) as error:
        raise BankFileError(path, f"{key!r} in the header isn't valid JSON ({error})") from error


# -- checks --------------------------------------------------------------------------------------


def _check_weights(weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"GeneratorBank: {name} must be a tensor, got {type(tensor).__name__}")
    W_ih, W_hh, W_out = weights["W_ih"], weights["W_hh"], weights["W_out"]
    if not W_ih.ndim == W_hh.ndim == W_out.ndim == 3:
        raise ValueError(
            "GeneratorBank: W_ih, W_hh and W_out must have 3 dimensions, "
            f"got {list(W_ih.shape)}, {list(W_hh.shape)} and {list(W_out.shape)}"
        )
    M, _, K = W_ih.shape
    H, O = W_hh.shape[2], W_out.shape[1]
    shapes = {
        "W_ih": (M, 4 * H, K),
        "W_hh": (M, 4 * H, H),
        "b": (M, 4 * H),
        "W_out": (M, O, H),
        "b_out": (M, O),
    }
    letters = {
        "W_ih": "[n_modules, 4*hidden_size, input_size]",
        "W_hh": "[n_modules, 4*hidden_size, hidden_size]",
        "b": "[n_modules, 4*hidden_size]",
        "W_out": "[n_modules, output_size, hidden_size]",
        "b_out": "[n_modules, output_size]",
    }
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != shape:
            raise ValueError(
                f"GeneratorBank: {name} must have shape {letters[name]} = {list(shape)}, "
                f"got {list(weights[name].shape)}"
            )
    if 0 in (M, H, K, O):
        raise ValueError(
            "GeneratorBank: n_modules, hidden_size, input_size and output_size must be at least "
            f"1, got {M}, {H}, {K} and {O}"
        )
    for name, tensor in weights.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(
                f"GeneratorBank: {name} must be float32 or float64, got {tensor.dtype}"
            )
        if tensor.dtype != W_ih.dtype or tensor.device != W_ih.device:
            raise ValueError(
                f"GeneratorBank: {name} must be {W_ih.dtype} on {W_ih.device} as W_ih is, "
                f"got {tensor.dtype} on {tensor.device}"
            )


def _check_classes(classes: Iterable[Label], n_modules: int) -> tuple[Label, ...]:
    if isinstance(classes, str):
        raise TypeError(
            f"GeneratorBank: classes must be a sequence of labels, got the str {classes!r}"
        )
    labels = tuple(as_label(label) for label in classes)
    if len(labels) != n_modules:
        raise ValueError(
            f"GeneratorBank: classes must have length n_modules = {n_modules}, got {len(labels)}"
        )
    seen: set[Label] = set()
    for label in labels:
        # True == 1 == 1.0 in Python: side by side they could not be told apart by label.
        if label in seen:
            raise ValueError(f"GeneratorBank: classes must be unique, got {label!r} twice")
        seen.add(label)
    return labels


def as_label(label: Any) -> Label:
    """A label as the Python scalar it stands for."""
    if isinstance(label, np.generic) or (isinstance(label, np.ndarray | Tensor) and not label.ndim):
        label = label.item()
    if isinstance(label, float) and not math.isfinite(label):
        raise ValueError(f"GeneratorBank: a label must be finite, got {label!r}")
    for kind in (bool, str, int, float):
        if isinstance(label, kind):
            return kind(label)
    raise TypeError(
        f"GeneratorBank: a label must be a str, int, float or bool, got {type(label).__name__}"
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


def _json_value(value: Any, where: str) -> Any:
    """A copy of a value as JSON would give it back; an error where JSON would alter it."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"GeneratorBank: keys of {where} must be str, got {key!r}")
        return {str(key): _json_value(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"GeneratorBank: {where} must be finite, got {value!r}")
    for kind in (bool, str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(
        f"GeneratorBank: {where} must be made of dict, list, str, numbers, bool and None, "
        f"got {type(value).__name__}"
    )


def _check_fits(name: str, who: str, bank: GeneratorBank, other: GeneratorBank) -> None:
    if not isinstance(bank, GeneratorBank):
        raise TypeError(f"{name}: {who} must be a GeneratorBank, got {type(bank).__name__}")
    for attribute in ("hidden_size", "input_size", "output_size", "dtype", "device"):
        expected, got = getattr(other, attribute), getattr(bank, attribute)
        if expected != got:
            raise ValueError(f"{name}: {who} must have {attribute} {expected}, got {got}")


def _positive(name: str, argument: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: {argument} must be an integer, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name}: {argument} must be at least 1, got {value}")
    return int(value)


# -- torch modules -------------------------------------------------------------------------------


def _module_weights(module: nn.Module, index: int) -> tuple[Tensor, ...]:
    """The five weights of one module."""
    where = f"GeneratorBank.from_modules: module {index}"
    if not isinstance(module, nn.Module):
        raise TypeError(f"{where} must be an nn.Module, got {type(module).__name__}")
    lstms = [m for m in module.modules() if isinstance(m, nn.LSTM)]
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    if len(lstms) != 1 or len(linears) != 1:
        raise ValueError(
            f"{where} must hold exactly one nn.LSTM and one nn.Linear, "
            f"got {len(lstms)} and {len(linears)}"
        )
    lstm: Any = lstms[0]
    linear = linears[0]
    for attribute, expected in (("num_layers", 1), ("bidirectional", False), ("proj_size", 0)):
        got = getattr(lstm, attribute)
        if got != expected:
            raise ValueError(f"{where}: nn.LSTM must have {attribute}={expected}, got {got}")
    if linear.in_features != lstm.hidden_size:
        raise ValueError(
            f"{where}: nn.Linear must have in_features = hidden_size = {lstm.hidden_size}, "
            f"got {linear.in_features}"
        )
    known = {id(p) for part in (lstm, linear) for p in part.parameters()}
    others = [name for name, p in module.named_parameters() if id(p) not in known]
    if others:
        raise ValueError(
            f"{where} must have no parameters but the nn.LSTM's and the nn.Linear's, got {others}"
        )
    W_hh, W_out = lstm.weight_hh_l0.detach(), linear.weight.detach()
    b, b_out = W_hh.new_zeros(W_hh.shape[0]), W_out.new_zeros(W_out.shape[0])
    if lstm.bias:
        b = lstm.bias_ih_l0.detach() + lstm.bias_hh_l0.detach()
    if linear.bias is not None:
        b_out = linear.bias.detach()
    return lstm.weight_ih_l0.detach(), W_hh, b, W_out, b_out


def _state_weights(state: Any, where: str) -> tuple[Tensor, ...]:
    """The five weights of one state dict."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{where} must be a state dict, got {type(state).__name__}")
    missing = [key for key in _STATE_KEYS if key not in state]
    unknown = [key for key in state if key not in _STATE_KEYS]
    if missing or unknown:
        raise ValueError(
            f"{where} must have the keys {', '.join(_STATE_KEYS)}; missing: {missing}, "
            f"unknown: {unknown}"
        )
    for key in _STATE_KEYS:
        if not isinstance(state[key], Tensor):
            raise TypeError(f"{where}: {key} must be a tensor, got {type(state[key]).__name__}")
    W_ih, W_hh, b_ih, b_hh, W_out, b_out = (state[key].detach() for key in _STATE_KEYS)
    ndims = [t.ndim for t in (W_ih, W_hh, b_ih, b_hh, W_out, b_out)]
    if ndims != [2, 2, 1, 1, 2, 1]:
        raise ValueError(f"{where} must have weights of rank 2 and biases of rank 1")
    H, O = W_hh.shape[1], W_out.shape[0]
    shapes = [(4 * H, W_ih.shape[1]), (4 * H, H), (4 * H,), (4 * H,), (O, H), (O,)]
    for key, shape in zip(_STATE_KEYS, shapes, strict=True):
        if tuple(state[key].shape) != shape:
            raise ValueError(
                f"{where}: {key} must have shape {list(shape)}, got {list(state[key].shape)}"
            )
    return W_ih, W_hh, b_ih + b_hh, W_out, b_out


def _stack(name: str, parts: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Stack the weights of modules that must agree in sizes, dtype and device."""
    if not parts:
        raise ValueError(f"{name}: at least one module is needed, got none")
    first = parts[0]
    for i, part in enumerate(parts):
        for argument, tensor, expected in zip(_WEIGHTS, part, first, strict=True):
            found = (list(tensor.shape), tensor.dtype, tensor.device)
            wanted = (list(expected.shape), expected.dtype, expected.device)
            if found != wanted:
                raise ValueError(
                    f"{name}: module {i} must have the sizes, dtype and device of module 0: "
                    f"{argument} must be {_describe(expected)}, got {_describe(tensor)}"
                )
    return [torch.stack(tensors) for tensors in zip(*parts, strict=True)]


def _describe(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}"


# -- small things --------------------------------------------------------------------------------


def _same_bits(a: Tensor, b: Tensor) -> bool:
    a, b = a.cpu(), b.cpu()
    integer = torch.int32 if a.dtype == torch.float32 else torch.int64
    return torch.equal(a.view(integer), b.view(integer))


def _short(classes: Sequence[Label], limit: int = 12) -> str:
    """Labels for a message, without the middle when there are many."""
    if len(classes) <= limit:
        return repr(tuple(classes))
    return f"({', '.join(map(repr, classes[: limit - 2]))}, ..., {classes[-1]!r})"
