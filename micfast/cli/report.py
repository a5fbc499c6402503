"""What commands say of a training: text, and JSON."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import click

from micfast.io import write_text

if TYPE_CHECKING:
    from micfast import ModularInverseClassifier

__all__ = ["parameters", "training_json", "training_text", "write_json"]

_MAX_CLASSES = 12


def training_text(classifier: ModularInverseClassifier) -> str:
    """Samples and classes, what was learned, and the accuracy to expect; with colours."""
    report = classifier.training_report_
    samples = {str(one["label"]): one["n_samples"] for one in report}
    classes = [f"{label} ({n})" for label, n in samples.items()]
    shown = classes if len(classes) <= _MAX_CLASSES else [*classes[: _MAX_CLASSES - 1], "..."]
    table = re.sub(
        r"(?m)(?<=  )(yes|no: .*)$",
        lambda found: click.style(found[0], fg="green" if found[0] == "yes" else "red"),
        report.table(),
    )
    parts = [
        f"{sum(samples.values())} samples of {len(classes)} classes: {', '.join(shown)}\n",
        f"{table}\n\n{report.summary}",
    ]
    if classifier.expectation_ is not None:
        parts.append(click.style(str(classifier.expectation_), bold=True))
    return "\n".join(parts)


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
