"""The five weight tensors of M generators, checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["DTYPES", "Weights", "check_weights"]

DTYPES = (torch.float32, torch.float64)

_NAMES = ("W_ih", "W_hh", "b", "W_out", "b_out")
_SIZES = ("n_modules", "hidden_size", "input_size", "output_size")
_LETTERS = {
    "W_ih": "(n_modules, 4*hidden_size, input_size)",
    "W_hh": "(n_modules, 4*hidden_size, hidden_size)",
    "b": "(n_modules, 4*hidden_size)",
    "W_out": "(n_modules, output_size, hidden_size)",
    "b_out": "(n_modules, output_size)",
}


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Weights:
    """Weights of M generators of one size; iterating gives the five tensors.

    Parameters
    ----------
    W_ih, W_hh, b, W_out, b_out : Tensor
        Shapes (M, 4H, K), (M, 4H, H), (M, 4H), (M, O, H), (M, O), all float32 or all float64, on
        one device. Gate blocks in the order i, f, g, o; ``b`` is the sum of torch's two bias
        vectors.

    Attributes
    ----------
    n_modules, hidden_size, input_size, output_size : int
        M, H, K and O.

    Raises
    ------
    TypeError
        If a weight is not a dense float32 or float64 tensor, or dtypes differ.
    ValueError
        If shapes or devices do not fit together.

    Examples
    --------
    >>> import torch
    >>> shapes = [(3, 20, 4), (3, 20, 5), (3, 20), (3, 2, 5), (3, 2)]
    >>> Weights(*map(torch.zeros, shapes))
    Weights(n_modules=3, hidden_size=5, input_size=4, output_size=2)
    """

    W_ih: Tensor
    W_hh: Tensor
    b: Tensor
    W_out: Tensor
    b_out: Tensor
    n_modules: int = field(init=False)
    hidden_size: int = field(init=False)
    input_size: int = field(init=False)
    output_size: int = field(init=False)

    def __post_init__(self) -> None:
        sizes = check_weights("Weights", self.W_ih, self.W_hh, self.b, self.W_out, self.b_out)
        for name, size in zip(_SIZES, sizes, strict=True):
            object.__setattr__(self, name, size)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.W_ih, self.W_hh, self.b, self.W_out, self.b_out))

    def __len__(self) -> int:
        return self.n_modules

    def __repr__(self) -> str:
        return f"Weights({', '.join(f'{name}={getattr(self, name)}' for name in _SIZES)})"

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """M, H, K and O."""
        return self.n_modules, self.hidden_size, self.input_size, self.output_size

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.W_ih.dtype

    @property
    def device(self) -> torch.device:
        """The device of all five tensors."""
        return self.W_ih.device

    # -- new weights from these ------------------------------------------------------------------

    def map(self, function: Callable[[Tensor], Tensor]) -> Weights:
        """Apply a function to each tensor."""
        return Weights(*map(function, self))

    def __getitem__(self, index: Any) -> Weights:
        """Select modules by a slice, a list of positions or an index tensor."""
        return self.map(lambda tensor: tensor[index])

    def detach(self) -> Weights:
        """Share the memory, without gradient."""
        return self.map(Tensor.detach)

    def copy(self) -> Weights:
        """Copy into contiguous memory of their own, without gradient."""
        return self.map(lambda tensor: tensor.detach().clone(memory_format=torch.contiguous_format))

    def to(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Weights:
        """Convert to another dtype or device; these weights themselves if nothing changes."""
        moved = [tensor.to(dtype=dtype, device=device) for tensor in self]
        return self if moved[0] is self.W_ih else Weights(*moved)

    def numpy(self) -> dict[str, Any]:
        """The five tensors as NumPy arrays, by name."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.named()}

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs of name and tensor."""
        return zip(_NAMES, self, strict=True)

    @classmethod
    def concat(cls, parts: Iterable[Weights]) -> Weights:
        """Concatenate weights of equal sizes.

        Raises
        ------
        ValueError
            If there are none, or they differ in sizes, dtype or device.
        """
        parts = list(parts)
        _check_alike(parts)
        return cls(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    @classmethod
    def stack(cls, modules: Sequence[tuple[Tensor, ...]]) -> Weights:
        """Stack the weights (4H, K), (4H, H), (4H,), (O, H), (O,) of single modules.

        Raises
        ------
        TypeError, ValueError
            If there are none, one is inconsistent, or they differ in sizes, dtype or device; the
            message names the first module at fault.
        """
        parts = []
        for m, module in enumerate(modules):
            try:
                parts.append(cls(*(tensor[None] for tensor in module)))
            except (TypeError, ValueError) as error:
                raise type(error)(f"module {m}: {error}") from error
        return cls.concat(parts)

    @classmethod
    def from_mapping(cls, tensors: dict[str, Tensor], prefix: str = "") -> Weights:
        """Take the five tensors out of a mapping by their names."""
        return cls(*(tensors.pop(prefix + name) for name in _NAMES))


def check_weights(
    where: str, W_ih: Tensor, W_hh: Tensor, b: Tensor, W_out: Tensor, b_out: Tensor
) -> tuple[int, int, int, int]:
    """Check five weight tensors against each other; return M, H, K and O.

    Raises
    ------
    TypeError, ValueError
        As :class:`Weights`.
    """
    tensors = (W_ih, W_hh, b, W_out, b_out)
    for name, tensor in zip(_NAMES, tensors, strict=True):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{where}: {name} must be a tensor, got {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise TypeError(f"{where}: {name} must be a dense tensor, got {tensor.layout}")
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{where}: {name} must be float32 or float64, got {tensor.dtype}")
        if tensor.dtype != W_ih.dtype:
            raise TypeError(
                f"{where}: {name} must have the dtype of W_ih, {W_ih.dtype}, got {tensor.dtype}"
            )
        if tensor.device != W_ih.device:
            raise ValueError(
                f"{where}: {name} must be on the device of W_ih, {W_ih.device}, got {tensor.device}"
            )
    if not len(W_ih.shape) == len(W_hh.shape) == len(W_out.shape) == 3:
        raise ValueError(
            f"{where}: W_ih, W_hh and W_out must have 3 dimensions, got shapes "
            f"{tuple(W_ih.shape)}, {tuple(W_hh.shape)} and {tuple(W_out.shape)}"
        )
    M, H, K, O = W_ih.shape[0], W_hh.shape[2], W_ih.shape[2], W_out.shape[1]
    shapes = ((M, 4 * H, K), (M, 4 * H, H), (M, 4 * H), (M, O, H), (M, O))
    for name, tensor, shape in zip(_NAMES, tensors, shapes, strict=True):
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{where}: {name} must have shape {_LETTERS[name]} = {shape}, "
                f"got {tuple(tensor.shape)}"
            )
    if 0 in (M, H, K, O):
        raise ValueError(
            f"{where}: n_modules, hidden_size, input_size and output_size must be at least 1, "
            f"got {M}, {H}, {K} and {O}"
        )
    return M, H, K, O


def _check_alike(parts: Sequence[Weights]) -> None:
    """Require modules that can be computed together."""
    if not parts:
        raise ValueError("at least one module is needed, got none")
    first, n_before = parts[0], 0
    for part in parts:
        for attribute in ("hidden_size", "input_size", "output_size", "dtype", "device"):
            expected, got = getattr(first, attribute), getattr(part, attribute)
            if got != expected:
                raise ValueError(
                    "modules must have equal sizes, dtype and device: module "
                    f"{n_before} has {attribute} {got}, module 0 has {expected}"
                )
        n_before += part.n_modules
