"""Class labels and JSON values: what a bank stores beside its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from micfast.arrays import is_tensor

__all__ = ["Label", "as_label", "check_labels", "json_value", "label_array", "shortened"]

Label: TypeAlias = str | int | float | bool


def as_label(label: Any) -> Label:
    """A label as the Python scalar it stands for.

    Raises
    ------
    TypeError
        If it is not a str, int, float or bool.
    ValueError
        If it is NaN or infinite.
    """
    if isinstance(label, np.generic) or (
        (isinstance(label, np.ndarray) or is_tensor(label)) and not label.ndim
    ):
        label = label.item()
    if isinstance(label, float) and not math.isfinite(label):
        raise ValueError(f"a label must be finite, got {label!r}")
    for kind in (bool, str, int, float):
        if isinstance(label, kind):
            return kind(label)
    raise TypeError(f"a label must be a str, int, float or bool, got {type(label).__name__}")


def check_labels(where: str, classes: Iterable[Any], n_modules: int) -> tuple[Label, ...]:
    """One label per module, all different.

    Raises
    ------
    TypeError, ValueError
        If they are not.
    """
    if isinstance(classes, str):
        raise TypeError(f"{where}: classes must be a sequence of labels, got the str {classes!r}")
    labels = tuple(as_label(label) for label in classes)
    if len(labels) != n_modules:
        raise ValueError(
            f"{where}: classes must have length n_modules = {n_modules}, got {len(labels)}"
        )
    seen: set[Label] = set()
    for label in labels:
        # True == 1 == 1.0 in Python: side by side they could not be told apart.
        if label in seen:
            raise ValueError(f"{where}: classes must be unique, got {label!r} twice")
        seen.add(label)
    return labels


def label_array(classes: Sequence[Label]) -> np.ndarray:
    """Labels as an array that keeps their types: mixed ones become an object array."""
    if len({type(label) for label in classes}) == 1:
        return np.array(classes)
    array = np.empty(len(classes), dtype=object)
    array[:] = classes
    return array


def shortened(classes: Sequence[Label], limit: int = 12) -> str:
    """Labels for a message, without the middle when there are many."""
    if len(classes) <= limit:
        return repr(tuple(classes))
    return f"({', '.join(map(repr, classes[: limit - 2]))}, ..., {classes[-1]!r})"


def json_value(value: Any, where: str) -> Any:
    """A copy of a value as JSON would give it back.

    Raises
    ------
    TypeError, ValueError
        If JSON would change it.
    """
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"keys of {where} must be str, got {key!r}")
        return {str(key): json_value(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be finite, got {value!r}")
    for kind in (bool, str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(
        f"{where} must be made of dict, list, str, numbers, bool and None, "
        f"got {type(value).__name__}"
    )
