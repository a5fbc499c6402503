"""Ways to call a module that draws sequences from latents, and ways to read its answer."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Call", "arrangements", "calls_for", "default_steps", "drawings", "own_module"]

_STEPS = re.compile(
    r"[tTnLl]|(n|num|number_of|max|out|output|target|tgt|total|seq|sequence|time|gen)?_?"
    r"(time_?)?(steps?|len|length|lengths?|frames|points|samples|horizon|duration)"
    r"|timesteps|seq_?len(gth)?|max_seq_?len(gth)?|n_?timesteps|num_?timesteps"
)
_ORDERS = tuple(itertools.permutations(range(3)))


@dataclass(frozen=True)
class _Layout:
    """How latents (n, K) go into one call, or into n calls of one latent each."""

    shape: str
    make: Callable[[Tensor, int], Tensor]
    single: bool = False
    sequence: bool = False


def _sequence(z: Tensor, n_steps: int) -> Tensor:
    """Inputs (T, n, K): the latents (n, K) at the first step, zeros after it."""
    return torch.cat([z[None], z.new_zeros(n_steps - 1, *z.shape)])


# Those that are sequences come last: whatever a module does with a latent, it may also take the
# whole sequence that the caller prepared.
_LAYOUTS = (
    _Layout("(n, K)", lambda z, T: z),
    _Layout("(1, n, K)", lambda z, T: z[None]),
    _Layout("(n, 1, K)", lambda z, T: z[:, None]),
    _Layout("(1, K)", lambda z, T: z, single=True),
    _Layout("(K,)", lambda z, T: z[0], single=True),
    _Layout("(1, 1, K)", lambda z, T: z[None], single=True),
    _Layout("(T, n, K)", _sequence, sequence=True),
    _Layout("(n, T, K)", lambda z, T: _sequence(z, T).transpose(0, 1), sequence=True),
    _Layout("(T, 1, K)", _sequence, single=True, sequence=True),
    _Layout("(1, T, K)", lambda z, T: _sequence(z, T)[:, 0][None], single=True, sequence=True),
    _Layout("(T, K)", lambda z, T: _sequence(z, T)[:, 0], single=True, sequence=True),
)


@dataclass(frozen=True)
class Call:
    """One way to call a module: the form of the latents, and how it learns the number of steps.

    `steps` is "" (not at all), "second", "first", or the name of a keyword.
    """

    layout: _Layout
    steps: str

    @property
    def single(self) -> bool:
        """Whether each latent has a call of its own."""
        return self.layout.single

    @property
    def sequence(self) -> bool:
        """Whether the module takes the inputs of all steps."""
        return self.layout.sequence

    def rivals(self, other: Call) -> bool:
        """Whether one of the two calls may be right though the other gave an answer."""
        if self.sequence or other.sequence:
            return self.sequence and other.sequence
        return self.layout is other.layout or (self.single and other.single)

    def text(self, n: int, n_steps: int, n_inputs: int) -> str:
        """The call for a message, with sizes."""
        x = "inputs" if self.sequence else "latents"
        sizes = {"n": n, "T": n_steps, "K": n_inputs}
        shape = re.sub("[nTK]", lambda m: str(sizes[m[0]]), self.layout.shape)
        argument = f"{x} of shape {shape}"
        after = {"": "", "second": f", {n_steps}", "first": ""}.get(
            self.steps, f", {self.steps}={n_steps}"
        )
        return f"module({f'{n_steps}, ' * (self.steps == 'first')}{argument}{after})"

    def __call__(self, module: nn.Module, z: Tensor, n_steps: int) -> list[list[Tensor]]:
        """Floating tensors of the answer, or of each latent's answer."""
        answers = []
        for part in z.split(1) if self.single else (z,):
            # A copy each: forward may write into its argument.
            x = self.layout.make(part, n_steps).clone()
            if self.steps == "first":
                answer = module(n_steps, x)
            elif self.steps == "second":
                answer = module(x, n_steps)
            elif self.steps:
                answer = module(x, **{self.steps: n_steps})
            else:
                answer = module(x)
            answers.append([tensor.detach().to(z.device, copy=True) for tensor in _tensors(answer)])
        return answers


def own_module(module: nn.Module) -> nn.Module:
    """The user's own module within wrappers that compile it or spread it over devices."""
    while True:
        name = type(module).__name__
        if name == "OptimizedModule":
            inner: Any = module._orig_mod
        elif name in ("DataParallel", "DistributedDataParallel"):
            inner = module.module
        else:
            return module
        if module._forward_hooks or module._forward_pre_hooks:
            return module
        module = inner


def _parameters(module: nn.Module) -> list[inspect.Parameter] | None:
    """Of ``forward``, without self; None if they say nothing."""
    if "forward" in vars(module):
        return _signature(module.forward)
    parameters = _signature(type(module).forward)
    return None if parameters is None else parameters[1:]


@functools.lru_cache(maxsize=64)
def _signature(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return None
    kinds = {p.kind for p in parameters}
    return None if inspect.Parameter.VAR_POSITIONAL in kinds else parameters


def default_steps(module: nn.Module) -> int | None:
    """The number of steps that ``forward`` takes if it is not told one, as in ``(z, steps=30)``."""
    for p in _parameters(module) or []:
        if _STEPS.fullmatch(p.name) and type(p.default) is int:
            return p.default
    return None


def calls_for(module: nn.Module) -> list[Call]:
    """The ways worth trying, by the signature of ``forward``; latents before whole sequences."""
    parameters = _parameters(module)
    if parameters is None:
        modes = ["second", ""]
    else:
        positional = [p for p in parameters if p.kind.name.startswith("POSITIONAL")]
        named = [p for p in parameters if _STEPS.fullmatch(p.name)]
        rest = [p for p in named if p not in positional[:1] and p.kind.name != "POSITIONAL_ONLY"]
        if rest:
            optional = rest[0].default is not inspect.Parameter.empty
            modes = [rest[0].name, *([""] * optional)]
        elif named and len(positional) > 1 and positional[0] in named:
            modes = ["first"]
        elif len(positional) > 1 and positional[1].default is inspect.Parameter.empty:
            modes = ["second"]
        else:
            modes = ["", *(["second"] * (len(positional) > 1))]
    # Who takes a number of steps takes no sequence: that would be read as a batch of latents.
    return [
        Call(layout, mode)
        for layout in _LAYOUTS
        for mode in modes
        if not (layout.sequence and mode)
    ]


def _tensors(answer: Any, depth: int = 0) -> Iterator[Tensor]:
    """All floating tensors of an answer, also in tuples, dicts and dataclasses."""
    if isinstance(answer, Tensor):
        if answer.is_floating_point():
            yield answer
        return
    if isinstance(answer, torch.nn.utils.rnn.PackedSequence):
        yield torch.nn.utils.rnn.pad_packed_sequence(answer)[0]
        return
    values: Any = ()
    if isinstance(answer, Mapping):
        values = answer.values()
    elif isinstance(answer, list | tuple):
        values = answer
    elif dataclasses.is_dataclass(answer) or hasattr(answer, "__dict__"):
        values = vars(answer).values() if hasattr(answer, "__dict__") else ()
    if depth < 4:
        for value in values:
            yield from _tensors(value, depth + 1)


def drawings(
    answers: list[list[Tensor]], n: int, n_steps: int, n_outputs: int, n_hidden: int
) -> tuple[list[Tensor], int]:
    """The tensors of an answer that may be drawings of n latents, and their number of steps.

    Those with as many values as were asked for; without any, the first tensor where it holds
    another whole number of steps.
    """
    if not answers or any(len(answer) != len(answers[0]) for answer in answers):
        return [], 0
    tensors = []
    for parts in zip(*answers, strict=True):
        if all(part.shape == parts[0].shape for part in parts):
            tensors.append(torch.stack(parts) if len(parts) > 1 else parts[0])
    full = [t for t in tensors if t.numel() == n * n_steps * n_outputs]
    # The last state (1, n, H) may happen to have that size.
    full = [t for t in full if tuple(t.shape) != (1, n, n_hidden)] or full
    if full:
        return full, n_steps
    if tensors and tensors[0].numel() and tensors[0].numel() % (n * n_outputs) == 0:
        found = tensors[0].numel() // (n * n_outputs)
        # Merged axes could be anything.
        shape = [size for size in tensors[0].shape if size != 1]
        if sorted(shape) == sorted(size for size in (n, found, n_outputs) if size != 1):
            return tensors[:1], found
    return [], 0


def arrangements(tensor: Tensor, n: int, n_steps: int, n_outputs: int) -> Iterator[Tensor]:
    """Every reading (n, T, O) of a tensor whose axes lie in any order, merged or squeezed."""
    sizes = (n, n_steps, n_outputs)
    shape = [size for size in tensor.shape if size != 1]
    for order in _ORDERS:
        expected = [sizes[axis] for axis in order]
        if not _merges([size for size in expected if size != 1], shape):
            continue
        back = sorted(range(3), key=lambda position: order[position])
        yield tensor.reshape(expected).permute(back)


def _merges(sizes: list[int], shape: list[int]) -> bool:
    """Whether neighbouring sizes can be multiplied to give the shape."""
    left = list(sizes)
    for size in shape:
        product = 1
        while left and product < size:
            product *= left.pop(0)
        if product != size:
            return False
    return not left
