"""What commands say and write besides models and predictions: tables and JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click
from tabulate import tabulate

from micfast.io import write_text

if TYPE_CHECKING:
    from micfast import ModularInverseClassifier

__all__ = ["training_json", "training_table", "write_json"]


def training_table(classifier: ModularInverseClassifier) -> str:
    """The training report as a table with a row per module, and a summary."""
    reports = classifier.training_report_
    headers = (
        "class", "module", "samples", "types", "attempts", "MSE of types", "relative", "learned"
    )  # fmt: skip
    rows = [
        (
            str(report["label"]),
            report["module"] + 1,
            report["n_samples"],
            report["n_types_found"],
            report["attempts"],
            f"{report['mse']:.3g}",
            f"{report['relative_mse']:.2%}",
            "yes" if report["learned"] else click.style("NO", fg="red", bold=True),
        )
        for report in reports
    ]
    table = tabulate(
        rows, headers, disable_numparse=True, colalign=("left", *["right"] * 6, "left")
    )
    learned = sum(report["learned"] for report in reports)
    # A report counts the runs in which its module took part: the most retried one saw them all.
    seconds = max(report["seconds"] for report in reports)
    summary = f"{learned} of {len(reports)} modules learned their types in {seconds:.2f} s"
    return f"{table}\n\n{summary}"


def training_json(classifier: ModularInverseClassifier) -> dict[str, Any]:
    """The parameters and the training report in JSON's types."""
    from micfast import __version__

    return {
        "micfast": __version__,
        "parameters": parameters(classifier),
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
