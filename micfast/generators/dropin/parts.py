"""The layers of each module that micfast knows, or a refusal that says what is there instead."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from micfast.generators.dropin.structures import Structure, structures
from micfast.kernels.weights import DTYPES

__all__ = ["Fleet", "Parts", "read_fleet"]

_ACCEPTED = (
    "an nn.Module with one nn.LSTM or nn.GRU and one nn.Linear, or a list or dict of such modules"
)
_MOST_ENTRIES = 2
_CELLS = (nn.RNNBase, nn.RNNCellBase)
# What can be inverted.
_KNOWN = (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell)


@dataclass(frozen=True)
class Parts:
    """One module and the layers of it that micfast knows.

    ``rnn`` is the recurrent layer or cell, ``linear`` the read-out; ``entries`` are layers that
    read the latent, two at most.
    """

    module: nn.Module
    rnn: Any
    linear: nn.Linear
    where: str
    entries: tuple[nn.Linear, ...] = ()

    @property
    def layers(self) -> tuple[Any, ...]:
        """All of them."""
        return self.rnn, self.linear, *self.entries

    @property
    def cell(self) -> str:
        """Of ``Decoder``: lstm or gru."""
        return "gru" if isinstance(self.rnn, nn.GRU | nn.GRUCell) else "lstm"

    @property
    def n_layers(self) -> int:
        """Recurrent layers."""
        return getattr(self.rnn, "num_layers", 1)

    def tensor(self, name: str, layer: int = 0) -> Any:
        """A weight or bias of a recurrent layer, by its name in a cell."""
        is_cell = isinstance(self.rnn, nn.RNNCellBase)
        return getattr(self.rnn, name if is_cell else f"{name}_l{layer}")

    @property
    def rnn_name(self) -> str:
        """The recurrent layer's kind, for messages."""
        return _layer_name(self.rnn)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """What these layers can be, the simplest first."""
        sizes = self.rnn.input_size, self.rnn.hidden_size, self.linear.out_features
        entries = tuple((layer.in_features, layer.out_features) for layer in self.entries)
        return structures(*sizes, entries, self.cell, self.n_layers)

    @property
    def device(self) -> torch.device:
        """The parameters' device."""
        return self._parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return self._parameter.dtype

    @property
    def _parameter(self) -> Tensor:
        # A derived weight would be computed at each access.
        parameter = next(self.rnn.parameters(), None)
        return torch.as_tensor(self.tensor("weight_ih")) if parameter is None else parameter


@dataclass(frozen=True)
class Fleet:
    """Modules that can be stacked; `names` are the keys if they came as a dict."""

    parts: list[Parts]
    names: list[str] | None
    where: str

    @property
    def output_size(self) -> int:
        """Values per step O of the first module."""
        return self.parts[0].linear.out_features


def read_fleet(modules: Any, where: str) -> Fleet:
    """Find the layers of every module.

    Parameters
    ----------
    modules : nn.Module, iterable of nn.Module, or mapping of str to nn.Module
        ``nn.ModuleList`` and ``nn.ModuleDict`` are several modules.
    where : str
        For messages.

    Raises
    ------
    TypeError
        If something is not an ``nn.Module``, or of another dtype than float32 and float64.
    ValueError
        If there is no module, or one has another structure; the message names it.
    """
    names: list[str] | None = None
    if isinstance(modules, Fleet):
        return modules
    if isinstance(modules, nn.ModuleDict | Mapping):
        _refuse_state_dict(modules, f"{where}: modules")
        names = [*modules.keys()]
        listed: Iterable[Any] = [*modules.values()]
    elif isinstance(modules, nn.Module) and not isinstance(modules, nn.ModuleList):
        listed = [modules]
    elif isinstance(modules, type) or not hasattr(modules, "__iter__") or _is_path(modules):
        raise TypeError(f"{where}: modules must be {_ACCEPTED}, got {_kind(modules)}")
    else:
        listed = modules
    parts = []
    for i, module in enumerate(listed):
        label = f"module {i}" + (f" ({names[i]!r})" if names else "")
        parts.append(_parts(module, f"{where}: {label}"))
    if not parts:
        raise ValueError(f"{where}: at least one module is needed, got none")
    return Fleet(parts, names, where)


def _parts(module: Any, where: str) -> Parts:
    _require_module(module, where)
    rnns = _named(module, _KNOWN)
    linears: list[Any] = [layer for _, layer in _named(module, nn.Linear)]
    if len(rnns) != 1 or not linears or len(linears) > 1 + _MOST_ENTRIES:
        raise ValueError(
            f"{where} must contain exactly one nn.LSTM or nn.GRU and one nn.Linear (or up to "
            f"{_MOST_ENTRIES} more that read the latent), got {len(rnns)} and {len(linears)}"
            f"{_what_is_there(module)}{_way_out(module)}"
        )
    rnn: Any = rnns[0][1]
    name = _layer_name(rnn)
    if getattr(rnn, "num_layers", 1) > 2:
        raise ValueError(f"{where}: {name} must have num_layers of 1 or 2, got {rnn.num_layers}")
    for attribute, expected in (("bidirectional", False), ("proj_size", 0)):
        got = getattr(rnn, attribute, expected)
        if got != expected:
            raise ValueError(f"{where}: {name} must have {attribute}={expected}, got {got}")
    for name, p in module.named_parameters():
        if nn.parameter.is_lazy(p):
            raise ValueError(f"{where}: {name} is not initialised yet; call the module once")
    found = _readout(module, rnn, linears, where)
    if len(linears) == 1 and linears[0].in_features != rnn.hidden_size:
        raise ValueError(
            f"{where}: nn.Linear must have in_features = hidden_size = {rnn.hidden_size}, "
            f"got {linears[0].in_features}"
        )
    if found is None:
        H, D = rnn.hidden_size, rnn.input_size
        n_layers = getattr(rnn, "num_layers", 1)
        note = "" if n_layers == 1 else f" (num_layers={n_layers}: of an nn.LSTM its input alone)"
        sizes = f"{H} or {D}" if isinstance(rnn, nn.GRU | nn.GRUCell) else f"{H}, {2 * H} or {D}"
        raise ValueError(
            f"{where} must contain exactly one {_layer_name(rnn)} and one nn.Linear that reads its "
            f"hidden state; others may turn the latent into its input or initial state, by {sizes} "
            f"outputs{note}, got {len(linears)} nn.Linear{_what_is_there(module)}{_way_out(module)}"
        )
    known = {id(p) for part in found.layers for p in part.parameters()}
    others = [name for name, p in module.named_parameters() if id(p) not in known]
    if others:
        raise ValueError(
            f"{where} must have no parameters except those of its {found.rnn_name} and nn.Linear, "
            f"got {others}{_way_out(module)}"
        )
    _check_tensors(module, where)
    return found


def _readout(module: Any, rnn: Any, linears: list[Any], where: str) -> Parts | None:
    """Tell the read-out from the layers that read the latent: the last one that it can be."""
    for linear in reversed(linears):
        entries = tuple(layer for layer in linears if layer is not linear)
        parts = Parts(module, rnn, linear, where, entries)
        if linear.in_features == rnn.hidden_size and parts.structures:
            return parts
    return None


def _check_tensors(module: nn.Module, where: str) -> None:
    """Require weights that can be read: with data, of one dtype, on one device."""
    first: tuple[str, Tensor] | None = None
    for name, p in module.named_parameters():
        if p.is_meta:
            raise ValueError(
                f"{where} is on the meta device, it holds no weights ({name}); create it on a real "
                "device, or call to_empty(device='cpu') and load_state_dict"
            )
        if p.dtype not in DTYPES:
            raise TypeError(
                f"{where}: {name} must be float32 or float64, got {p.dtype}; "
                "convert the module with module.float()"
            )
        first = first or (name, p)
        for attribute, cure in (("dtype", "module.float()"), ("device", "module.to(device)")):
            got, expected = getattr(p, attribute), getattr(first[1], attribute)
            if got != expected:
                raise ValueError(
                    f"{where}: all parameters must have one {attribute}, got {expected} "
                    f"({first[0]}) and {got} ({name}); convert the module with {cure}"
                )


# -- refusals ------------------------------------------------------------------------------------


def _require_module(module: Any, where: str) -> None:
    """Refuse what is no module that can be read, and say what to pass instead."""
    _refuse_state_dict(module, where)
    if not isinstance(module, nn.Module):
        raise TypeError(f"{where} must be an nn.Module, got {_kind(module)}")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"{where} must be an eager nn.Module, got a TorchScript module (torch.jit.script or "
            "trace); pass the module it was made from, or read its weights with "
            "GeneratorBank.from_state_dicts([module.state_dict()])"
        )


def _refuse_state_dict(value: Any, where: str) -> None:
    if isinstance(value, Mapping) and (
        any(isinstance(item, Tensor) for item in value.values())
        or any(isinstance(value.get(key), Mapping) for key in ("state_dict", "model_state_dict"))
    ):
        raise TypeError(
            f"{where} must be {_ACCEPTED}, got a state dict; read state dicts with "
            "GeneratorBank.from_state_dicts([...]), or load it into your module and pass that"
        )


def _is_path(value: Any) -> bool:
    return isinstance(value, str | bytes | os.PathLike)


def _kind(value: Any) -> str:
    """What something is that stands in a module's place, and the way to a module."""
    name = type(value).__name__
    if value is None:
        return "None"
    if _is_path(value):
        return (
            f"{name} {value!r}; read checkpoints with GeneratorBank.from_checkpoints([path, ...]), "
            "a bank with GeneratorBank.load(path)"
        )
    if isinstance(value, type):
        return f"the class {value.__name__}; pass an instance of it"
    if inspect.ismethod(value) and isinstance(value.__self__, nn.Module):
        return (
            f"the method {value.__name__} of a {type(value.__self__).__name__}; "
            "pass the nn.Module itself"
        )
    if inspect.isroutine(value):
        return f"{name} {getattr(value, '__name__', '')}; pass the nn.Module that it calls"
    if name == "ExportedProgram":
        return f"{name}; pass the nn.Module that was exported"
    if name == "GeneratorBank":
        return f"{name}; join banks with GeneratorBank.concat"
    if isinstance(value, list | tuple | dict):
        return f"{name}; pass one flat list of modules"
    return name


def _named(module: nn.Module, kind: Any) -> list[tuple[str, nn.Module]]:
    return [(name, m) for name, m in module.named_modules() if isinstance(m, kind)]


def _what_is_there(module: nn.Module) -> str:
    """The layers of a module that matter here, as ``: nn.GRU 'rnn', 2 x nn.Linear ('a', 'b')``."""
    found = [
        (_layer_name(m), name)
        for name, m in module.named_modules()
        if isinstance(m, (*_CELLS, nn.Linear)) or _quantized(m)
    ]
    # What is within a quantized layer says nothing.
    quantized = [f"{name}." for layer, name in found if layer.startswith("quantized ")]
    found = [item for item in found if not any(item[1].startswith(name) for name in quantized)]
    if not found:
        return f": a {type(module).__name__} without recurrent layer"
    texts = []
    for layer, n in Counter(layer for layer, _ in found).items():
        names = ", ".join(repr(name) for other, name in found if other == layer)
        texts.append(f"{layer} {names}" if n == 1 else f"{n} x {layer} ({names})")
    return ": " + ", ".join(texts)


def _layer_name(layer: nn.Module) -> str:
    for kind in (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell, nn.Linear):
        if isinstance(layer, kind):
            return f"nn.{kind.__name__}"
    quantized = "quantized " if _quantized(layer) else ""
    return f"{quantized}{type(layer).__name__}"


def _quantized(layer: nn.Module) -> bool:
    return ".quantized" in type(layer).__module__


def _fits(module: nn.Module) -> bool:
    return len(_named(module, _KNOWN)) == len(_named(module, nn.Linear)) == 1


def _way_out(module: nn.Module) -> str:
    """What to do with a module that does not fit, as the end of a message."""
    inner = [name for name, m in module.named_modules() if name and _fits(m)]
    outermost = [name for name in inner if not any(name.startswith(f"{other}.") for other in inner)]
    if isinstance(module, nn.ModuleList | nn.ModuleDict) and outermost:
        return "; modules must not be nested: pass one flat list, or make one call per list"
    if len(outermost) == 1:
        return f"; pass module.{outermost[0]}, which has one of each"
    if outermost:
        return f"; pass one of {', '.join(f'module.{name}' for name in outermost)}"
    if any(map(_quantized, module.modules())):
        return "; pass the module as it was before it was quantized"
    if _named(module, _CELLS) and not _named(module, _KNOWN):
        return "; only the LSTM and the GRU can be inverted"
    if isinstance(module, (*_KNOWN, nn.Linear)):
        return "; pass a module that holds both layers, such as nn.Sequential(lstm, linear)"
    return ""
