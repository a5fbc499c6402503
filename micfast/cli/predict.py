"""``micfast predict``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from micfast.cli import common
from micfast.cli.data import Source, data_options, sequences_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from micfast import ModularInverseClassifier

__all__ = ["load_model", "predict"]

result = functools.partial(common.option, heading="Result")


@click.command(cls=common.Command)
@click.argument("model", metavar="MODEL", type=common.FILE)
@data_options
@result(
    "-o",
    "--output",
    type=common.File(".npz", ".csv"),
    metavar="OUT",
    help="File to write (.npz or .csv).",
)
@result("--proba", is_flag=True, help="Write the probabilities as well.")
@result(
    "--reconstructions",
    is_flag=True,
    help="Write the winning modules' reconstructions as well (.npz only).",
)
@result("--score", is_flag=True, help="Print the accuracy (needs labels).")
@common.running(
    "--iterations", type=common.Whole(min=0), help="Of the solver. [default: as in training]"
)
@common.running(
    "--nan-policy",
    type=click.Choice(("raise", "omit")),
    help="Whether NaN within a sequence is an error or a missing value. [default: as in training]",
)
@common.run_options
def predict(
    model: str,
    source: Source,
    output: str | None,
    proba: bool,
    reconstructions: bool,
    score: bool,
    iterations: int | None,
    **options: Any,
) -> None:
    """Classify sequences from a file.

    MODEL is a file that `micfast fit` wrote. DATA has the formats that `micfast fit` reads; labels
    are needed for --score only.

    What is written:
      .csv  a row per sequence: id (if DATA has ids), prediction, lowest error, error of each class
            (with --proba: probability of each class)
      .npz  ids (N,), predictions (N,), errors (N, M), classes (M,)
            (with --proba: probabilities (N, M); with --reconstructions: reconstructions (N, T, C))

    Without -o, predictions are printed, one per line, after the sequence's id if DATA has ids.

    For example:
      micfast predict model.safetensors new.csv -o predictions.csv
      micfast predict model.safetensors test.npz --score
      micfast predict model.safetensors X.npy -o result.npz --proba --reconstructions
    """
    if reconstructions and not (output or "").lower().endswith(".npz"):
        raise click.UsageError("--reconstructions needs -o with a name that ends in .npz.")
    if proba and output is None:
        raise click.UsageError("--proba needs -o.")
    common.check_outputs(output, inputs=(model, *source.paths))
    recordings = source.read(labels=score)
    classifier = load_model(model, solver__n_iter=iterations, **options)
    decision = classifier.decide(sequences_of(recordings, classifier.channel_names_in_))
    arrays = {
        "ids": recordings.ids,
        "predictions": decision.labels,
        "errors": decision.errors,
        "classes": decision.classes,
        "probabilities": decision.probabilities if proba else None,
        "reconstructions": decision.reconstructions() if reconstructions else None,
    }
    found = {name: array for name, array in arrays.items() if array is not None}
    if output is None:
        print_predictions(found)
    elif output.lower().endswith(".npz"):
        write_npz(output, found)
    else:
        write_csv(output, found)
    if score:
        print(f"accuracy {accuracy(decision.labels, recordings.labels):.4f}")


def load_model(
    path: str, *, backend: str, threads: int | None, quiet: bool, **parameters: Any
) -> ModularInverseClassifier:
    """Load an estimator; other parameters that are None stay as they were saved."""
    from micfast import ModularInverseClassifier

    changed = {name: value for name, value in parameters.items() if value is not None}
    verbose = int(common.shows_progress(quiet))
    classifier = ModularInverseClassifier.load(path)
    return classifier.set_params(backend=backend, n_jobs=threads, verbose=verbose, **changed)


def print_predictions(arrays: dict[str, NDArray[Any]]) -> None:
    """Print a line per sequence: its label, after its id if it has one."""
    columns = [arrays[name] for name in ("ids", "predictions") if name in arrays]
    for row in zip(*columns, strict=True):
        print(*row, sep="\t")


def accuracy(predictions: NDArray[Any], y: Any) -> float:
    """The share of equal labels."""
    # Not ==, which for labels of another type is one False and not an array.
    pairs = zip(predictions.tolist(), list(y), strict=True)
    return sum(a == b for a, b in pairs) / max(len(predictions), 1)


def write_npz(path: str, arrays: dict[str, NDArray[Any]]) -> None:
    """Write all arrays; those of objects as text, since anything else would need pickle."""
    import numpy as np

    from micfast.io import atomic_path

    def plain(array: Any) -> NDArray[Any]:
        array = np.asarray(array)
        if array.dtype != object:
            return array
        return np.array(["" if value is None else str(value) for value in array])

    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{name: plain(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def write_csv(path: str, arrays: dict[str, NDArray[Any]]) -> None:
    """Write a row per sequence."""
    import csv

    from micfast.io import atomic_path

    errors, classes = arrays["errors"], arrays["classes"]
    columns = {
        "id": arrays.get("ids"),
        "prediction": arrays["predictions"],
        "lowest_error": errors.min(axis=1),
        **{f"error_{label}": errors[:, c] for c, label in enumerate(classes)},
    }
    if "probabilities" in arrays:
        for c, label in enumerate(classes):
            columns[f"probability_{label}"] = arrays["probabilities"][:, c]
    columns = {name: column for name, column in columns.items() if column is not None}
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(columns)
        # str of a NumPy number has all the digits that are needed to read the same number back.
        writer.writerows(zip(*columns.values(), strict=True))
