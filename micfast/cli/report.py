"""What commands write besides models and predictions: JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from micfast.io import write_text

if TYPE_CHECKING:
    from micfast import ModularInverseClassifier

__all__ = ["parameters", "training_json", "write_json"]


def training_json(classifier: ModularInverseClassifier) -> dict[str, Any]:
    """The parameters and the training report in JSON's types."""
    from micfast import __version__

    return {
        "micfast": __version__,
        "parameters": parameters(classifier),
        "expectation": None if classifier.expectation_ is None else vars(classifier.expectation_),
        "classes": [
            {**report, "loss_curve": list(map(float, report["loss_curve"]))}
            for report in classifier.training_report_
        ],
    }


def parameters(classifier: ModularInverseClassifier) -> dict[str, Any]:
    """All parameters, nested ones by their full names; a settings object by its class's name."""
    simple = (bool, int, float, str, tuple, type(None))
    return {
        name: value if isinstance(value, simple) else type(value).__name__
        for name, value in sorted(classifier.get_params(deep=True).items())
    }


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write a JSON file."""
    write_text(path, json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n")


def without_nan(value: Any) -> Any:
    """NaN and infinity, which JSON lacks, as null: a module that diverged has such errors."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
