"""``micfast demo``."""

from __future__ import annotations

import functools
from typing import Any

import click

from micfast.cli import common

__all__ = ["demo"]

testing = functools.partial(common.option, heading="Testing")
result = functools.partial(common.option, heading="Result")


@click.command(cls=common.Command)
@common.option(
    "--data",
    heading="Data",
    type=click.Choice(("digits", "characters", "mnist")),
    default="digits",
    help="Data set.",
)
@common.model_options(defaults=False)
@testing("--n-test", type=common.COUNT, help="Number of test sequences.")
@testing("--no-compare", is_flag=True, help="Skip the timing comparison with PyTorch.")
@result("--json", "json_path", type=common.FILE, help="Write the result as JSON.")
@result(
    "--picture",
    type=common.File(".png", ".svg", ".pdf"),
    help="Picture to draw (.png, .svg or .pdf). [default: micfast-demo-DATA.png]",
)
@result("--no-picture", is_flag=True, help="Draw no picture.")
@common.seed_option
@common.run_options
def demo(
    data: str,
    no_compare: bool,
    json_path: str | None,
    picture: str | None,
    no_picture: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train, test and time on a public data set.

    Data sets:
      digits      scikit-learn's 8 x 8 digits; no download
      characters  UCI Character Trajectories: pen strokes of 20 letters
      mnist       MNIST; the first 1000 test images

    The last two are read from the folder named by MICFAST_DATA, or downloaded if it is not set.
    Each data set has its own defaults for the model.

    For example:
      micfast demo
      micfast demo --data mnist --json mnist.json --picture mnist.png
      micfast demo --data characters --noise-in 0 --noise-out 0 --seed 3 --no-picture
    """
    path = None if no_picture else picture or f"micfast-demo-{data}.png"
    common.check_outputs(json_path, path)

    from micfast.cli.report import write_json
    from micfast.experiments.demo import DemoConfig, draw_demo, format_demo, run_demo

    config = DemoConfig.for_data(data, n_compare=0 if no_compare else None, **settings)
    run = run_demo(config, progress=common.shows_progress(quiet))
    if not quiet:
        common.say(format_demo(run.result))
    if json_path is not None:
        write_json(json_path, run.result)
    if path is not None:
        from micfast.plotting import save_figure

        save_figure(draw_demo(run), path)
        if not quiet:
            common.say(f"\n  picture: {path}")
