"""Registries: a folder of modules, each of which registers what it defines under a name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

__all__ = ["Registry"]

_Entry = TypeVar("_Entry")
_Object = TypeVar("_Object")


class Registry(Generic[_Entry]):
    """Names and what they stand for. A new entry is one new file in the package's folder.

    Parameters
    ----------
    package : str
        The package whose modules register their entries. They are imported on first lookup.
    kind : str
        What an entry is, for messages.
    base : type
        The class that all entries derive from, if they are classes.

    Examples
    --------
    >>> from micfast.search.starts import STARTS
    >>> STARTS["uniform"].__name__
    'Uniform'
    """

    def __init__(self, package: str, kind: str, base: Any = object) -> None:
        self._package, self.kind, self._base = package, kind, base
        self._entries: dict[str, _Entry] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[_Entry], _Entry]:
        """Register the decorated class or function under a name."""

        def add(entry: _Entry) -> _Entry:
            if name in self._entries:
                raise ValueError(f"the {self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        if not self._complete:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            self._complete = True
        return tuple(sorted(self._entries))

    def __getitem__(self, name: str) -> _Entry:
        """Look an entry up.

        Raises
        ------
        ValueError
            If the name is unknown; the message lists those that exist.
        """
        if not (isinstance(name, str) and name in self.names()):
            raise ValueError(
                f"{self.kind} must be one of {', '.join(map(repr, self.names()))}, got {name!r}"
            )
        return self._entries[name]

    def resolve(self: Registry[type[_Object]], value: Any) -> _Object:
        """Give the object that a user asked for: by name, or as given.

        Raises
        ------
        TypeError, ValueError
            If it is neither.
        """
        if isinstance(value, self._base):
            return value
        if isinstance(value, str):
            return self[value]()
        noun = self._base.__name__.lower()
        article = "an" if noun[0] in "aeiou" else "a"
        raise TypeError(
            f"{self.kind} must be {article} {noun} object or one of "
            f"{', '.join(map(repr, self))}, got {value!r}"
        )

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())
