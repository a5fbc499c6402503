"""``micfast show``."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from micfast.cli import common
from micfast.cli.data import Source, data_options, sequences_of
from micfast.cli.predict import load_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micfast import Decision

__all__ = ["show"]

result = functools.partial(common.option, heading="Result")


@click.command(cls=common.Command)
@click.argument("model", metavar="MODEL", type=common.FILE)
@data_options
@result(
    "-o",
    "--output",
    type=common.File(".png", ".svg", ".pdf"),
    metavar="PICTURE",
    required=True,
    help="Picture to draw (.png, .svg or .pdf).",
)
@result("-n", "--number", type=common.COUNT, default=6, help="Draw the first N sequences.")
@result(
    "--id",
    "wanted",
    metavar="ID",
    multiple=True,
    help="Draw the sequence with this id, or with this number (from 0) if DATA has no ids; may be "
    "repeated.",
)
@result("--truth", is_flag=True, help="Compare the decisions with the labels in DATA.")
@common.run_options
def show(
    model: str,
    source: Source,
    output: str,
    number: int,
    wanted: tuple[str, ...],
    truth: bool,
    **options: Any,
) -> None:
    """Draw sequences from a file and their reconstructions.

    Each row of the picture shows one sequence next to every class's reconstruction of it: the class
    with the lowest error decides. MODEL and DATA are those of `micfast predict`.

    For example:
      micfast show model.safetensors new.csv -o why.png
      micfast show model.safetensors new.csv --id trial7 --id trial9 -o why.svg
      micfast show model.safetensors test.npz --truth -n 10 -o why.pdf
    """
    common.check_outputs(output, inputs=(model, *source.paths))
    recordings = source.read(labels=truth)
    classifier = load_model(model, **options)
    X = sequences_of(recordings, classifier.channel_names_in_)
    ids = range(len(X)) if recordings.ids is None else recordings.ids.tolist()
    indices = choose(ids, wanted) if wanted else list(range(len(X)))[:number]
    shown = [X[i] for i in indices] if isinstance(X, list) else X[indices]
    decision = classifier.decide(shown)

    from dataclasses import replace

    from micfast.plotting import plot_reconstructions, save_figure
    from micfast.sequences import Sequences

    targets = Sequences.read(shown).padded()
    standardizer = classifier.standardizer_
    figure = plot_reconstructions(
        targets if standardizer is None else standardizer.transform(targets),
        # The first module of each class is drawn; the errors are those that decide.
        replace(decision.inversion(), errors=decision.errors),
        y_true=None if recordings.labels is None else recordings.labels[indices],
        standardizer=standardizer,
        max_targets=len(indices),
    )
    save_figure(figure, output)
    if not options["quiet"]:
        common.say(decision_table(decision, [ids[i] for i in indices]))
        common.say(f"\npicture: {output}")


def choose(ids: Sequence[Any], wanted: Sequence[str]) -> list[int]:
    """Positions of the sequences with these ids."""
    known = [str(name) for name in ids]
    for name in wanted:
        if name not in known:
            some = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
            raise click.UsageError(f"No sequence has the id {name!r}; there are {some}.")
    return [known.index(name) for name in wanted]


def decision_table(decision: Decision, ids: Sequence[Any]) -> str:
    """A row per sequence: the decision, and the two lowest errors."""
    from tabulate import tabulate

    rows = []
    for i, name in enumerate(ids):
        row = [name, "none" if decision.labels[i] is None else decision.labels[i]]
        for c in decision.errors[i].argsort(kind="stable")[:2]:
            row += [decision.classes[c], f"{decision.errors[i, c]:.3g}"]
        rows.append(list(map(str, row)))
    headers = ["sequence", "decision", "best", "error", "second", "error"][: len(rows[0])]
    return tabulate(rows, headers, disable_numparse=True)
