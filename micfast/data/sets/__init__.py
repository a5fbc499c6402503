"""Data sets by name. To add one, add a module here that registers its loader."""

from collections.abc import Callable

from micfast.data.dataset import Dataset
from micfast.registry import Registry

__all__ = ["registry"]

registry: Registry[Callable[..., Dataset]] = Registry("micfast.data.sets", "data set")
