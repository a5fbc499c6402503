"""Settings objects: immutable dataclasses that check themselves, and the checks they share."""

from __future__ import annotations

import dataclasses
import math
from numbers import Integral, Real
from typing import Any, ClassVar, Self

__all__ = ["Settings", "check_choice", "check_count", "check_flag", "check_number", "is_number"]


class Settings:
    """Base of the frozen dataclasses that hold settings.

    A subclass checks its fields in ``__post_init__`` and may be known by a ``name``. Settings are
    never changed: :meth:`replace` returns a new object.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from micfast.settings import Settings, check_count
    >>> @dataclass(frozen=True)
    ... class Repeats(Settings):
    ...     n: int = 1
    ...
    ...     def __post_init__(self):
    ...         self.set("n", check_count("Repeats", "n", self.n, lowest=1))
    >>> Repeats().replace(n=3)
    Repeats(n=3)
    >>> Repeats(0)
    Traceback (most recent call last):
    ValueError: Repeats: n must be an integer of at least 1, got 0
    """

    name: ClassVar[str] = ""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values.

        Raises
        ------
        ValueError
            If there is no such setting.
        """
        known = self.as_dict()
        for key in changes:
            if key not in known:
                raise ValueError(f"{type(self).__name__}: {key!r} must be one of {[*known]}")
        return type(self)(**(known | changes))

    def as_dict(self) -> dict[str, Any]:
        """Field names and values; nested settings stay objects."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}

    def set(self, field: str, value: Any) -> None:
        """Store a checked value; for ``__post_init__`` alone."""
        object.__setattr__(self, field, value)


def is_number(value: Any, kind: type = Real) -> bool:
    """Whether the value is a number of that kind, and no bool."""
    # type() covers np.bool_ without importing NumPy.
    return isinstance(value, kind) and type(value).__name__ not in ("bool", "bool_")


def check_count(
    where: str, name: str, value: Any, lowest: int = 0, highest: int | None = None
) -> int:
    """Require an integer within bounds.

    Raises
    ------
    TypeError
        If it is no integer.
    ValueError
        If it is out of bounds.
    """
    if not is_number(value, Integral):
        raise TypeError(f"{where}: {name} must be an integer of at least {lowest}, got {value!r}")
    if value < lowest or (highest is not None and value > highest):
        bounds = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"
        raise ValueError(f"{where}: {name} must be an integer {bounds}, got {value!r}")
    return int(value)


def check_number(
    where: str, name: str, value: Any, *, positive: bool = False, below: float = math.inf
) -> float:
    """Require a finite number of at least 0 (or above 0) and below a bound.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is out of bounds.
    """
    rule = f"a finite number {'above 0' if positive else 'of at least 0'}"
    if below < math.inf:
        rule += f" and below {below:g}"
    if not is_number(value):
        raise TypeError(f"{where}: {name} must be {rule}, got {value!r}")
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    # A single comparison that NaN fails, too.
    if not (0 < value < below if positive else 0 <= value < below):
        raise ValueError(f"{where}: {name} must be {rule}, got {value!r}")
    return value


def check_choice(where: str, name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Require one of a few values.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    if not (value is None or isinstance(value, str)) or value not in choices:
        *most, last = map(repr, choices)
        raise ValueError(f"{where}: {name} must be {', '.join(most)} or {last}, got {value!r}")


def check_flag(where: str, name: str, value: Any) -> bool:
    """Require True or False.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{where}: {name} must be True or False, got {value!r}")
    return bool(value)
