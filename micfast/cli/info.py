"""``micfast info``."""

from __future__ import annotations

import click

from micfast.cli import common

__all__ = ["info"]


@click.command(cls=common.Command)
@click.argument("model", metavar="[MODEL]", required=False, type=common.FILE)
def info(model: str | None) -> None:
    """Show available kernels and backends, or what a model file contains.

    MODEL is a file that `micfast fit`, ModularInverseClassifier.save or GeneratorBank.save wrote.
    """
    if model is None:
        import micfast

        micfast.show_config()
    else:
        common.say(describe(model))


def describe(path: str) -> str:
    """What a model file contains, as text."""
    import json
    import os

    from tabulate import tabulate

    from micfast.generators.files import read_parts

    weights, classes, metadata, _, estimator = read_parts(path)
    kind = "bank of modules" if estimator is None else "ModularInverseClassifier"
    n_banks = 1 if estimator is None else estimator["n_banks"]
    n_weights = n_banks * sum(weight.numel() for weight in weights)
    rows = {
        "file": f"{path} ({os.path.getsize(path):,} bytes)",
        "content": kind,
        "modules": f"{n_banks * weights.n_modules}, {n_weights:,} weights in all, {weights.dtype}",
        "sizes": f"{weights.hidden_size} hidden, {weights.input_size} inputs (types), "
        f"{weights.output_size} outputs (channels)",
        "classes": " ".join(map(str, classes)),
    }
    if metadata:
        rows["metadata"] = json.dumps(metadata)
    if estimator is None:
        return tabulate(rows.items(), tablefmt="plain", disable_numparse=True)

    from micfast import ModularInverseClassifier
    from micfast.cli.report import parameters

    classifier = ModularInverseClassifier.load(path)
    rows["steps"] = f"{classifier.n_timesteps_in_} in training"
    rows["parameters"] = ", ".join(f"{k}={v!r}" for k, v in parameters(classifier).items())
    table = tabulate(rows.items(), tablefmt="plain", disable_numparse=True)
    return f"{table}\n\n{classifier.training_report_!r}"
