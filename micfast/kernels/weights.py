"""The weights of M generators and the structure they belong to, checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor

from micfast.kernels.decoder import Decoder
from micfast.kernels.reference import Structure

__all__ = ["ALIKE", "DTYPES", "Weights", "check_weights"]

DTYPES = (torch.float32, torch.float64)

_NAMES = ("W_ih", "W_hh", "b", "W_out", "b_out")
_MORE = ("b_first", "b_state", "scale", "shift")
_SIZES = ("n_modules", "hidden_size", "input_size", "output_size")
# What modules that are computed together have in common; n_states is 0 unless the latent sets them.
ALIKE = ("decoder", "hidden_size", "input_size", "output_size", "n_states", "dtype", "device")
_LETTERS = {
    "W_ih": "(n_modules, 4*hidden_size, input_size)",
    "W_hh": "(n_modules, 4*hidden_size, hidden_size)",
    "b": "(n_modules, 4*hidden_size)",
    "W_out": "(n_modules, output_size, hidden_size)",
    "b_out": "(n_modules, output_size)",
}


# One object, set in __post_init__: torch.compile traces neither its making nor its being a default.
_PLAIN = Decoder()


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Weights:
    """Weights of M generators of one size and structure; iterating gives the five tensors.

    Parameters
    ----------
    W_ih, W_hh, b, W_out, b_out : Tensor
        Shapes (M, 4H, K), (M, 4H, H), (M, 4H), (M, O, H), (M, O), all float32 or all float64, on
        one device. Gate blocks in the order i, f, g, o; ``b`` is the sum of torch's two bias
        vectors. Those of a GRU: r, z, and n twice, what the input adds (so in ``W_hh`` zeros,
        unless outputs are fed back) and what the state adds (so in ``W_ih`` zeros).

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
    >>> from micfast import Weights
    >>> shapes = [(3, 20, 4), (3, 20, 5), (3, 20), (3, 2, 5), (3, 2)]
    >>> Weights(*map(torch.zeros, shapes))
    Weights(n_modules=3, hidden_size=5, input_size=4, output_size=2)
    """

    W_ih: Tensor
    W_hh: Tensor
    b: Tensor
    W_out: Tensor
    b_out: Tensor
    _: KW_ONLY
    decoder: Decoder = None  # type: ignore[assignment]
    b_first: Tensor | None = None
    b_state: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    n_modules: int = field(init=False)
    hidden_size: int = field(init=False)
    input_size: int = field(init=False)
    output_size: int = field(init=False)

    def __post_init__(self) -> None:
        if self.decoder is None:
            object.__setattr__(self, "decoder", _PLAIN)
        if not isinstance(self.decoder, Decoder) or self.decoder.feeds_back:
            raise ValueError(
                "Weights: decoder must be a Decoder without feeds_back, which other weights "
                f"express, got {self.decoder!r}"
            )
        tensors = (self.W_ih, self.W_hh, self.b, self.W_out, self.b_out)
        sizes = check_weights("Weights", tensors, self.structure)
        for name, size in zip(_SIZES, sizes, strict=True):
            object.__setattr__(self, name, size)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.W_ih, self.W_hh, self.b, self.W_out, self.b_out))

    def __len__(self) -> int:
        return self.n_modules

    def __repr__(self) -> str:
        parts = [f"{name}={getattr(self, name)}" for name in _SIZES]
        if self.decoder != _PLAIN:
            parts.append(f"decoder={self.decoder}")
        return f"Weights({', '.join(parts)})"

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """M, H, K and O."""
        return self.n_modules, self.hidden_size, self.input_size, self.output_size

    @property
    def n_states(self) -> int:
        """How many initial states the latent sets: 0, 1 (h_0) or 2 (h_0 and c_0)."""
        return self.W_ih.shape[1] // self.hidden_size if self.decoder.sets_state else 0

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.W_ih.dtype

    @property
    def device(self) -> torch.device:
        """The device of all five tensors."""
        return self.W_ih.device

    @property
    def structure(self) -> Structure:
        """All but the five tensors, as the operators and their reference take it."""
        more = self.b_first, self.b_state, self.scale, self.shift
        return Structure(self.decoder.latent, self.decoder.output, self.decoder.cell, *more)

    @property
    def as_one_layer(self) -> Weights:
        """What draws the same one step later: see ``Decoder.n_layers``."""
        return Weights(**dict(self.named()), decoder=self.decoder.replace(n_layers=1))

    # -- new weights from these ------------------------------------------------------------------

    def map(self, function: Callable[[Tensor], Tensor]) -> Weights:
        """Apply a function to each tensor."""
        changed = {name: function(tensor) for name, tensor in self.named()}
        return Weights(**changed, decoder=self.decoder)

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
        moved = self.W_ih.to(dtype=dtype, device=device)
        if moved is self.W_ih:
            return self
        return self.map(lambda tensor: tensor.to(dtype=dtype, device=device))

    def numpy(self) -> dict[str, Any]:
        """All tensors as NumPy arrays, by name."""
        return {name: tensor.detach().cpu().numpy() for name, tensor in self.named()}

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs of name and tensor, of all there are."""
        for name in (*_NAMES, *_MORE):
            tensor = getattr(self, name)
            if tensor is not None:
                yield name, tensor

    @classmethod
    def concat(cls, parts: Iterable[Weights]) -> Weights:
        """Concatenate weights of equal sizes and structure.

        Raises
        ------
        ValueError
            If there are none, or they differ in sizes, structure, dtype or device.
        """
        parts = list(parts)
        _check_alike(parts)
        if all(part.structure[3:] == (None,) * len(_MORE) for part in parts):
            tensors = zip(*parts, strict=True)
            return cls(*(torch.cat(list(part)) for part in tensors), decoder=parts[0].decoder)
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in _NAMES}
        for name in _MORE:
            given = [part._or_neutral(name) for part in parts]
            if any(getattr(part, name) is not None for part in parts):
                joined[name] = torch.cat(given)
        return cls(**joined, decoder=parts[0].decoder)

    def _or_neutral(self, name: str) -> Tensor:
        """A tensor that these weights may lack, or the one that changes nothing."""
        tensor = getattr(self, name)
        if tensor is not None:
            return tensor
        like = {"b_first": self.b, "b_state": self.W_ih[..., 0]}.get(name, self.b_out)
        return torch.full_like(like, float(name == "scale"))

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
    def from_mapping(
        cls, tensors: dict[str, Tensor], prefix: str = "", decoder: Decoder | None = None
    ) -> Weights:
        """Take the tensors out of a mapping by their names."""
        found = {name: tensors.pop(prefix + name) for name in _NAMES}
        for name in _MORE:
            if prefix + name in tensors:
                found[name] = tensors.pop(prefix + name)
        return cls(**found, decoder=_PLAIN if decoder is None else decoder)


def check_weights(
    where: str, tensors: Sequence[Tensor], structure: Structure | None = None
) -> tuple[int, int, int, int]:
    """Check weight tensors against each other; return M, H, K and O.

    Raises
    ------
    TypeError, ValueError
        As :class:`Weights`.
    """
    structure = Structure() if structure is None else structure
    W_ih, W_hh, _, W_out, _ = tensors
    more = [(n, t) for n, t in zip(_MORE, structure[3:], strict=True) if t is not None]
    for name, tensor in (*zip(_NAMES, tensors, strict=True), *more):
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
    R = 4 * H
    if structure.sets_state:
        R = W_ih.shape[1]
        if R != H and (R != 2 * H or structure.cell == "gru"):
            rows = "hidden_size" if structure.cell == "gru" else "hidden_size or 2*hidden_size"
            raise ValueError(
                f"{where}: W_ih must have shape (n_modules, {rows}, input_size) where the latent "
                f"sets the initial state, got {tuple(W_ih.shape)}"
            )
    elif structure.b_state is not None:
        raise ValueError(f"{where}: b_state must be None unless the latent sets the initial state")
    shapes = ((M, R, K), (M, 4 * H, H), (M, 4 * H), (M, O, H), (M, O))
    others = {"b_first": (M, 4 * H), "b_state": (M, R), "scale": (M, O), "shift": (M, O)}
    expected = [*zip(_NAMES, tensors, shapes, strict=True), *((n, t, others[n]) for n, t in more)]
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            text = f"{_LETTERS[name]} = {shape}" if name in _LETTERS else f"{shape}"
            raise ValueError(f"{where}: {name} must have shape {text}, got {tuple(tensor.shape)}")
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
        for attribute in ALIKE:
            expected, got = getattr(first, attribute), getattr(part, attribute)
            if got != expected:
                raise ValueError(
                    "modules must have equal sizes, structure, dtype and device: module "
                    f"{n_before} has {attribute} {got}, module 0 has {expected}"
                )
        n_before += part.n_modules
