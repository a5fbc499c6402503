"""``micfast fit``."""

from __future__ import annotations

import functools
from typing import Any

import click

from micfast.cli import common
from micfast.cli.data import Source, data_options, sequences_of

__all__ = ["fit"]

result = functools.partial(common.option, heading="Result")
model = functools.partial(common.option, heading="Model")


@click.command(cls=common.Command)
@data_options
@result("-o", "--output", type=common.FILE, metavar="MODEL", required=True, help="Model to write.")
@result("--json", "json_path", type=common.FILE, help="Write the training report as JSON.")
@common.model_options(defaults=True)
@model(
    "--modules-per-class",
    type=common.COUNT,
    default=1,
    help="Modules per class, trained from different seeds; their mean error decides.",
)
@model(
    "--views",
    default="auto",
    help="What modules learn to draw: auto, or names with commas, raw among them.",
)
@model("--pose/--no-pose", default=True, help="Allow for shifts, tempo and size.")
@model("--hull/--no-hull", default=True, help="Let mixtures of the types vote, too.")
@model(
    "--standardize",
    type=click.Choice(("global", "channel", "none")),
    default="global",
    help="Standardise all values together, each channel, or nothing.",
)
@model(
    "--nan-policy",
    type=click.Choice(("raise", "omit")),
    default="raise",
    help="Whether NaN within a sequence is an error or a missing value.",
)
@model(
    "--initialization",
    type=click.Choice(("matched", "chrono", "torch")),
    help="What modules start from. [default: matched, and torch with --episodes]",
)
@model(
    "--inversion-learning-rate",
    type=common.Number(),
    help="Learning rate of --solver adam. [default: 0.05]",
)
@model(
    "--max-retries",
    type=common.Whole(min=0),
    default=3,
    help="Retraining attempts for modules that failed to learn.",
)
@model(
    "--learned-tol",
    type=common.Number(),
    default=0.1,
    help="Maximum error, as a fraction of the types' variance, for a module to count as learned.",
)
@common.seed_option
@common.run_options
def fit(source: Source, output: str, json_path: str | None, quiet: bool, **options: Any) -> None:
    """Train on labelled sequences from a file.

    DATA is one of:
      .csv, .tsv   a table: long, a row per time step with columns for the sequence's id, the time,
                   the channels and the label; or wide, a row per sequence
      .ts          a file of the UCR and UEA archives
      .npz, .mat   arrays X of shape (sequences, steps, channels) or (sequences, steps), and y
      .npy         X alone; the labels come from --y

    Columns are guessed unless given; what was guessed is printed. Sequences may differ in length;
    in arrays, the shorter ones end in NaN.

    For example:
      micfast fit recordings.csv -o model.safetensors
      micfast fit log.csv --id-column trial --channels x,y --label-column gesture -o m.safetensors
      micfast fit --X X.npy --y y.npy -o m.safetensors --hidden-size 16 --episodes 40000
    """
    if options["representative"] and "kmeans" not in options["type_selection"]:
        raise click.UsageError("--representative needs --type-selection kmeans or dtw-kmeans.")
    if options["inversion_learning_rate"] and options["solver"] != "adam":
        raise click.UsageError("--inversion-learning-rate needs --solver adam.")
    common.check_outputs(output, json_path, inputs=source.paths)
    recordings = source.read(labels=True)
    classifier = unfitted(**options).set_params(verbose=int(common.shows_progress(quiet)))
    classifier.fit(sequences_of(recordings), recordings.labels)
    classifier.save(output)

    from micfast.cli.report import training_json, training_text, write_json

    if json_path is not None:
        write_json(json_path, training_json(classifier))
    if not quiet:
        common.say(training_text(classifier))
        common.say(f"model: {output}")


def unfitted(
    *,
    modules_per_class: int,
    views: str,
    pose: bool,
    hull: bool,
    standardize: Any,
    seed: int,
    threads: int | None,
    representative: str | None,
    n_iter: int | None,
    inversion_learning_rate: float | None,
    n_episodes: int | None,
    **options: Any,
) -> Any:
    """The estimator that the options describe."""
    from dataclasses import fields

    from micfast import ModularInverseClassifier, Training

    names = {field.name for field in fields(Training)} & options.keys()
    given = {name: options.pop(name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    classifier = ModularInverseClassifier(
        training=Training.paper(n_episodes, **given) if n_episodes else Training(**given),
        n_modules_per_class=modules_per_class,
        views=tuple(views.split(",")) if "," in views else views,
        pose="auto" if pose else None,
        hull="auto" if hull else False,
        standardize=None if standardize == "none" else standardize,
        random_state=seed,
        n_jobs=threads,
        **options,
    )
    nested = {
        "type_selection__representative": representative,
        "solver__n_iter": n_iter,
        "solver__learning_rate": inversion_learning_rate,
    }
    # None was not given: the defaults of the selection and of the solver hold.
    return classifier.set_params(**{k: v for k, v in nested.items() if v is not None})
