"""Running a user's module without leaving a trace: state, modes and random numbers are put back."""

from __future__ import annotations

import contextlib
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["quiet", "undisturbed"]

# Types of most attributes of a module; the others are looked at.
_UNCHANGING = frozenset({bool, int, float, str, type(None)})
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run foreign code without gradient, autocast, compilation and warnings.

    The random generators of torch, NumPy and Python give the same numbers afterwards, as if
    nothing had run.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - users' own
        stack.callback(torch.set_rng_state, torch.get_rng_state())
        if torch.cuda.is_initialized():
            stack.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
            stack.enter_context(torch.autocast("cuda", enabled=False))
            _full_precision(stack, torch.backends.cudnn, "allow_tf32", False)
        _full_precision(stack, torch.backends.cuda.matmul, "allow_tf32", False)
        stack.enter_context(torch.autocast("cpu", enabled=False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # Compiling takes seconds; without torch._dynamo nothing is compiled.
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _full_precision(stack: contextlib.ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set a switch of torch's until the stack is left: TF32's roundings look like another model."""
    # Where a user has set the newer switches, torch refuses to read the older ones.
    with contextlib.suppress(RuntimeError):
        before = getattr(owner, name)
        if before != value:
            setattr(owner, name, value)
            stack.callback(setattr, owner, name, before)


@contextlib.contextmanager
def undisturbed(module: nn.Module, evaluation: bool = True) -> Iterator[None]:
    """Put a module into evaluation mode (if asked to), and put back whatever changed, bit for bit.

    That is parameters, buffers, gradients, modes, and the attributes of all submodules (tensors,
    lists, dicts and random generators among them included). Modules that share storage with
    others keep sharing it.
    """
    submodules = [*module.modules()]
    kept = [_Attributes(submodule) for submodule in submodules]
    tensors: dict[int, _Bits] = {}
    for attributes in kept:
        for tensor in attributes.tensors:
            if id(tensor) not in tensors:
                tensors[id(tensor)] = _Bits(tensor)
    copies: dict[int, Tensor] = {}
    try:
        for submodule in submodules:
            # Buffers are for changing: copies keep the version counters of the originals, too.
            buffers = submodule._buffers
            for name, buffer in buffers.items():
                if buffer is not None:
                    buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
            if evaluation:
                submodule.training = False
            # nn.Module.compile would compile for this one call.
            if getattr(submodule, "_compiled_call_impl", None) is not None:
                submodule._compiled_call_impl = None
        yield
    finally:
        for attributes in kept:
            attributes.put_back()
        for bits in tensors.values():
            bits.put_back()


class _Attributes:
    """The attributes of one submodule as they are now; ``tensors`` are all among them."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._values = dict(vars(module))
        self._containers: list[tuple[Any, Any]] = []
        self._generators: list[tuple[Any, Any]] = []
        self.tensors: list[Tensor] = []
        for value in self._values.values():
            if type(value) in _UNCHANGING:
                continue
            if isinstance(value, Tensor):
                self.tensors.append(value)
            elif isinstance(value, (list, dict, set)):
                kind = next(kind for kind in (list, dict, set) if isinstance(value, kind))
                self._containers.append((value, kind(value)))
                values = value.values() if isinstance(value, dict) else value
                self.tensors += [item for item in values if isinstance(item, Tensor)]
            elif isinstance(value, torch.Generator):
                self._generators.append((value.set_state, value.get_state()))
            elif isinstance(value, random.Random):
                self._generators.append((value.setstate, value.getstate()))
            elif isinstance(value, np.random.Generator):
                bits: Any = value.bit_generator
                self._generators.append(
                    (lambda s, bits=bits: setattr(bits, "state", s), bits.state)
                )

    def put_back(self) -> None:
        attributes = vars(self._module)
        for name in [name for name in attributes if name not in self._values]:
            del attributes[name]
        attributes.update(self._values)
        for container, copy in self._containers:
            if _same_objects(container, copy):
                continue
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(copy)
        for set_state, state in self._generators:
            set_state(state)


class _Bits:
    """Data and gradient of a tensor as they are now."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self._data = tensor.detach()  # the same memory
        self._copy = self._data.clone()
        self._requires_grad = tensor.requires_grad
        grad = tensor.grad if tensor.is_leaf else None
        self._grad = None if grad is None else (grad, grad.detach().clone())

    def put_back(self) -> None:
        # Through .data, so that version counters don't rise: a backward pass may be pending.
        tensor = self._tensor
        if tensor.layout == torch.strided and not tensor.is_meta:
            if tensor.data_ptr() != self._data.data_ptr() or tensor.shape != self._data.shape:
                tensor.data = self._data
            if not _same_bits(self._data, self._copy):
                self._data.data.copy_(self._copy)
        if not tensor.is_leaf:
            return
        if tensor.requires_grad != self._requires_grad:
            tensor.requires_grad_(self._requires_grad)
        if self._grad is None:
            if tensor.grad is not None:
                tensor.grad = None
            return
        grad, copy = self._grad
        if tensor.grad is not grad:
            tensor.grad = grad
        if not _same_bits(grad, copy):
            grad.data.copy_(copy)


def _same_objects(container: Any, copy: Any) -> bool:
    if len(container) != len(copy):
        return False
    if not copy:
        return True
    if isinstance(container, dict):
        pairs = zip(container.items(), copy.items(), strict=True)
        return all(a[0] is b[0] and a[1] is b[1] for a, b in pairs)
    return all(a is b for a, b in zip(container, copy, strict=True))


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.is_floating_point():
        integer = _INTEGERS[a.element_size()]
        return torch.equal(a.detach().view(integer), b.view(integer))
    return torch.equal(a, b)
