"""The command ``micfast``: arguments, files and messages; the work is done elsewhere.

Whatever is slow to import is imported by the command that needs it, so ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from micfast import __version__
from micfast._io import atomic_path, check_output_path, write_text

if TYPE_CHECKING:
    import numpy as np

    from micfast.estimator import ModularInverseClassifier

__all__ = ["main"]

_OK, _ERROR, _USAGE, _INTERRUPTED = 0, 1, 2, 130
_SELECTIONS = ("kmeans", "dtw-kmeans", "random", "first")
_REPRESENTATIVES = ("centroid", "medoid")
_BACKENDS = ("auto", "cpu", "torch", "cuda")
_PICTURES = (".png", ".svg", ".pdf")

_EPILOG = """\
examples:
  micfast demo                                  train and test on small digits, draw a picture
  micfast demo --data characters                20 handwritten letters (MICFAST_DATA: their folder)
  micfast fit train.npz -o model.safetensors    train on your own sequences
  micfast predict model.safetensors test.npz    one label per line
  micfast reproduce --seeds 1                   the paper's tables and figures, ours beside them
  micfast info                                  which kernel runs here

`micfast COMMAND --help` tells more about a command.
"""
_DEMO_EPILOG = """\
data sets:
  digits      scikit-learn's 8 x 8 digits; no download
  characters  UCI Character Trajectories: pen strokes of 20 letters
  mnist       MNIST; the first 1000 test images
The last two are read from the folder MICFAST_DATA, or downloaded if it isn't set.

examples:
  micfast demo
  micfast demo --data mnist --json mnist.json --picture mnist.png
  micfast demo --data characters --noise-in 0 --noise-out 0 --seed 3 --no-picture
"""
_FIT_EPILOG = """\
X has shape (samples, steps, channels), or (samples, steps) for one channel; y holds one label
(text or whole number) per sample.

examples:
  micfast fit train.npz -o model.safetensors
  micfast fit --X X.npy --y y.npy -o model.safetensors --hidden-size 16 --episodes 40000
"""
_PREDICT_EPILOG = """\
What is written:
  .csv  a line per sample: prediction, lowest error, error of each class (and with --proba the
        probability of each class)
  .npz  predictions (N,), errors (N, M), classes (M,), and with --proba probabilities (N, M), with
        --reconstructions reconstructions (N, T, C), what the winning modules drew
Without -o, the predictions go to the standard output, one per line.

examples:
  micfast predict model.safetensors test.npz --score -o predictions.csv
  micfast predict model.safetensors X.npy -o result.npz --proba --reconstructions
"""
_REPRODUCE_EPILOG = """\
experiments (--only):
  figure3                      one target in every module
  figure5, figure6             types and unseen sequences as their module draws them
  figure7                      every module on sequences of every class
  table1, table4, table13      clustered and random types; 0 and 50 iterations
  table2, table3, table7 to table12
                               nine noise settings: accuracies, per class, and their GLMs
  table5, table6               the forward LSTM (Keras: pip install 'micfast[keras]'; and torch)
  beyond                       1-nearest-neighbour, MiniRocket (pip install 'micfast[rocket]')

In the results folder: raw/ (every run), tables/, figures/, report.html, reproduction.md (the
claims), manifest.json. Killed at any moment, the same command with --resume goes on behind the last
finished unit of work. The data are read from the folder MICFAST_DATA, or downloaded if that isn't
set.

examples:
  micfast reproduce --dry-run                   what there is to do, and how long it takes
  micfast reproduce --out results --resume
  micfast reproduce --only table13,figure7 --data characters --seeds 3 --out letters
  micfast reproduce --only figure3 --target g:5 --target 8 --out figure3
"""


class _CommandError(Exception):
    """An error with a message for the user, and none of its own."""


class _UsageError(_CommandError):
    """Arguments that don't fit each other."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default the process's.

    Returns
    -------
    int
        0 if all went well, 1 after an error, 2 for arguments that don't fit each other, 130 after
        Ctrl-C.

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version`` (0), and for arguments that can't be parsed (2).

    Examples
    --------
    >>> main(["--version"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    args = _parser().parse_args(argv)
    try:
        with _plain_warnings():
            args.run(args)
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("micfast: interrupted, nothing half-written is left", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`); the interpreter must not try once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _ERROR
    except (_CommandError, ValueError, TypeError, OSError, RuntimeError, MemoryError) as error:
        if args.debug:
            raise
        print(f"micfast: error: {_one_line(error)}", file=sys.stderr)
        return _USAGE if isinstance(error, _UsageError) else _ERROR
    return _OK


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as one line each, without the place in the code that they come from."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        print(f"micfast: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


# -- arguments -----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="micfast",
        description="Classify sequences by inverting one small generative LSTM per class.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"micfast {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], None], help: str, epilog: str | None = None
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        sub.add_argument("--debug", action="store_true", help="show where an error comes from")
        return sub

    _demo_arguments(
        command("demo", _demo, "train, test and time on a public data set", _DEMO_EPILOG)
    )
    _fit_arguments(command("fit", _fit, "train on sequences from a file", _FIT_EPILOG))
    _predict_arguments(
        command("predict", _predict, "classify sequences from a file", _PREDICT_EPILOG)
    )
    _reproduce_arguments(
        command(
            "reproduce",
            _reproduce,
            "run the paper's experiments, and report them beside its numbers",
            _REPRODUCE_EPILOG,
        )
    )
    info = command("info", _info, "tell what runs on this machine, or what a model file holds")
    info.add_argument("model", metavar="MODEL", nargs="?", help="file that `micfast fit` wrote")
    return parser


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        choices=("digits", "characters", "mnist"),
        default="digits",
        help="data set (default: digits)",
    )
    own = "each data set has its own defaults"
    _model_arguments(parser.add_argument_group("model", own), defaults=False)
    group = parser.add_argument_group("what is tested")
    group.add_argument("--n-test", type=_whole(1), metavar="N", help="test sequences")
    group.add_argument(
        "--no-compare", action="store_true", help="don't time the PyTorch fallback, too"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    group.add_argument(
        "--picture",
        type=_picture_path,
        metavar="FILE",
        help="where to draw (.png, .svg, .pdf; default: micfast-demo-DATA.png)",
    )
    group.add_argument("--no-picture", action="store_true", help="draw nothing")
    _run_arguments(parser, seed=0)


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", nargs="?", type=Path, help=".npz file with X and y")
    _data_arguments(parser)
    parser.add_argument("--y", type=Path, metavar="FILE", help=".npy file with y, instead of DATA")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="MODEL", required=True, help="model file to write"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the training report as JSON"
    )
    group = parser.add_argument_group("model")
    _model_arguments(group, defaults=True)
    group.add_argument(
        "--modules-per-class",
        type=_whole(1),
        metavar="N",
        default=3,
        help="trained from different seeds; their mean error decides (default: 3)",
    )
    group.add_argument(
        "--standardize",
        choices=("global", "channel", "none"),
        default="global",
        help="over all values, over each channel's, or not at all (default: global)",
    )
    group.add_argument(
        "--learning-rate", type=_number(), metavar="LR", default=0.01, help="(default: 0.01)"
    )
    group.add_argument(
        "--inversion-learning-rate",
        type=_number(),
        metavar="LR",
        default=0.05,
        help="(default: 0.05)",
    )
    group.add_argument(
        "--max-retries",
        type=_whole(0),
        metavar="N",
        default=3,
        help="how often to train again what wasn't learned (default: 3)",
    )
    group.add_argument(
        "--learned-tol",
        type=_number(),
        metavar="F",
        default=0.1,
        help="learned means: error of at most F times the types' variance (default: 0.1)",
    )
    _run_arguments(parser, seed=0)


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=Path, help="file that `micfast fit` wrote")
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        type=Path,
        help=".npz file with X (and y for --score), or .npy file with X",
    )
    _data_arguments(parser)
    parser.add_argument("--y", type=Path, metavar="FILE", help=".npy file with y, for --score")
    parser.add_argument(
        "-o", "--output", type=_table_path, metavar="OUT", help="file to write (.npz or .csv)"
    )
    parser.add_argument("--proba", action="store_true", help="probabilities, too")
    parser.add_argument(
        "--reconstructions", action="store_true", help="what the winners drew, too (.npz only)"
    )
    parser.add_argument("--score", action="store_true", help="print the accuracy (needs y)")
    parser.add_argument(
        "--iterations",
        type=_whole(0),
        metavar="N",
        help="of the inversion (default: as in training)",
    )
    _run_arguments(parser, seed=None)


def _reproduce_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is run")
    group.add_argument(
        "--only", type=_names, metavar="NAMES", help="experiments, by commas (default: all)"
    )
    group.add_argument(
        "--data",
        type=_names,
        metavar="NAMES",
        help="characters, mnist (default: both)",
    )
    group.add_argument(
        "--seeds", type=_whole(1), metavar="N", default=10, help="how many (default: 10)"
    )
    group.add_argument(
        "--budget",
        choices=("default", "full"),
        default="default",
        help="how long the forward LSTM is trained (full: many hours)",
    )
    group.add_argument(
        "--target",
        action="append",
        metavar="LABEL[:INDEX]",
        default=[],
        help="test sequence of figure3, one per data set; its class is that of figure5 and figure6",
    )
    group.add_argument(
        "--noise",
        type=_number(zero=True),
        nargs=2,
        metavar=("IN", "OUT"),
        default=(0.0, 0.0),
        help="training noise of the modules in the figures (default: 0 0)",
    )
    group = parser.add_argument_group("running")
    group.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("results"), help="(default: results)"
    )
    group.add_argument("--resume", action="store_true", help="go on where a run was stopped")
    group.add_argument(
        "--report-only",
        action="store_true",
        help="make tables, figures and report anew of the raw results in --out",
    )
    group.add_argument("--dry-run", action="store_true", help="tell the plan and stop")
    group.add_argument(
        "--threads", type=_whole(1), metavar="N", help="(default: torch's number, one per core)"
    )
    group.add_argument("--quiet", action="store_true", help="no plan, no progress")


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--X", type=Path, metavar="FILE", help=".npy file with X, instead of DATA")
    parser.add_argument(
        "--X-key", metavar="KEY", default="X", help="name of X in DATA (default: X)"
    )
    parser.add_argument(
        "--y-key", metavar="KEY", default="y", help="name of y in DATA (default: y)"
    )


def _model_arguments(group: Any, *, defaults: bool) -> None:
    """The options that a demonstration shares with ``fit``; None where they aren't given."""

    def add(flag: str, value: Any, text: str, **kwargs: Any) -> None:
        if defaults:
            kwargs["default"] = value
            text += f" (default: {value})"
        group.add_argument(flag, help=text, **kwargs)

    # The first of these names is the paper's word for it.
    names = ("--types-selection", "--type-selection")
    group.add_argument(
        *names,
        dest="type_selection",
        choices=_SELECTIONS,
        default="kmeans" if defaults else None,
        help="how a class's types are found" + (" (default: kmeans)" if defaults else ""),
    )
    add("--representative", "centroid", "what stands for a cluster", choices=_REPRESENTATIVES)
    add("--n-types", 4, "types per class", type=_whole(1), metavar="N")
    add("--hidden-size", 10, "hidden units per module", type=_whole(1), metavar="N")
    noise = _number(zero=True)
    add("--noise-in", 0.0, "training noise on the inputs", type=noise, metavar="SD")
    add("--noise-out", 0.0, "training noise on the types", type=noise, metavar="SD")
    add("--episodes", 20000, "training episodes", type=_whole(1), metavar="N")
    group.add_argument(
        "--solver",
        choices=("lm", "adam"),
        default="lm" if defaults else None,
        help="of the inversion: Levenberg-Marquardt from the nearest mixture of types, or the "
        "paper's Adam from the even one (default: lm)",
    )
    group.add_argument(
        "--iterations",
        type=_whole(0),
        metavar="N",
        help="of the inversion (default: 8 with lm, 50 with adam)",
    )


def _run_arguments(parser: argparse.ArgumentParser, *, seed: int | None) -> None:
    group = parser.add_argument_group("running")
    if seed is not None:
        group.add_argument(
            "--seed",
            type=_whole(0, 2**32 - 1),
            metavar="N",
            default=seed,
            help=f"the same seed gives the same result (default: {seed})",
        )
    group.add_argument(
        "--backend", choices=_BACKENDS, default="auto", help="what computes (default: auto)"
    )
    group.add_argument(
        "--threads", type=_whole(1), metavar="N", help="(default: torch's number, one per core)"
    )
    group.add_argument("--quiet", action="store_true", help="no progress bars, no report")


def _whole(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
        if value < lowest or (highest is not None and value > highest):
            bounds = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, got {value}")
        return value

    return parse


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _number(zero: bool = False) -> Callable[[str], float]:
    rule = "a finite number, 0 or more" if zero else "a finite number above 0"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise argparse.ArgumentTypeError(f"must be {rule}, got {text!r}")
        return value

    return parse


def _picture_path(text: str) -> Path:
    return _path_with_suffix(text, _PICTURES)


def _table_path(text: str) -> Path:
    return _path_with_suffix(text, (".npz", ".csv"))


def _path_with_suffix(text: str, suffixes: Sequence[str]) -> Path:
    path = Path(text)
    if path.suffix.lower() not in suffixes:
        raise argparse.ArgumentTypeError(f"must end in {' or '.join(suffixes)}, got {text!r}")
    return path


def _shows_progress(args: argparse.Namespace) -> bool:
    return not args.quiet and sys.stderr.isatty()


# -- commands ------------------------------------------------------------------------------------


def _demo(args: argparse.Namespace) -> None:
    picture = args.picture or Path(f"micfast-demo-{args.data}.png")
    if args.no_picture:
        picture = None
    _check_outputs(args.json, picture)

    from micfast.experiments.demo import DemoConfig, draw_demo, format_demo, run_demo

    config = DemoConfig.for_data(
        args.data,
        type_selection=args.type_selection,
        representative=args.representative,
        n_types=args.n_types,
        hidden_size=args.hidden_size,
        noise_in=args.noise_in,
        noise_out=args.noise_out,
        n_episodes=args.episodes,
        solver=args.solver,
        n_iter=args.iterations,
        n_test=args.n_test,
        n_compare=0 if args.no_compare else None,
        seed=args.seed,
        backend=args.backend,
        threads=args.threads,
    )
    run = run_demo(config, progress=_shows_progress(args))
    if not args.quiet:
        print(format_demo(run.result))
    if args.json is not None:
        _write_json(args.json, run.result)
    if picture is not None:
        from micfast.plots import save_figure

        save_figure(draw_demo(run), picture)
        if not args.quiet:
            print(f"\n  picture: {picture}")


def _fit(args: argparse.Namespace) -> None:
    _check_outputs(args.output, args.json)
    X, y = _read_data(args, wants_y=True)

    from micfast.estimator import ModularInverseClassifier

    classifier = ModularInverseClassifier(
        args.n_types,
        type_selection=args.type_selection,
        type_representative=args.representative,
        hidden_size=args.hidden_size,
        noise_in=args.noise_in,
        noise_out=args.noise_out,
        n_episodes=args.episodes,
        n_modules_per_class=args.modules_per_class,
        learning_rate=args.learning_rate,
        solver=args.solver,
        init="nearest" if args.solver == "lm" else "uniform",
        n_iter=args.iterations,
        inversion_learning_rate=args.inversion_learning_rate,
        standardize=None if args.standardize == "none" else args.standardize,
        max_retries=args.max_retries,
        learned_tol=args.learned_tol,
        backend=args.backend,
        random_state=args.seed,
        n_jobs=args.threads,
        verbose=int(_shows_progress(args)),
    )
    classifier.fit(X, y)
    classifier.save(args.output)
    if args.json is not None:
        _write_json(args.json, _training_report(classifier))
    if not args.quiet:
        print("\n".join(_training_lines(classifier)))
        print(f"\n  model: {args.output}")


def _predict(args: argparse.Namespace) -> None:
    if args.reconstructions and (args.output is None or args.output.suffix.lower() != ".npz"):
        raise _UsageError("--reconstructions needs -o with a name that ends in .npz")
    if args.proba and args.output is None:
        raise _UsageError("--proba needs -o")
    _check_outputs(args.output)
    X, y = _read_data(args, wants_y=args.score)

    import numpy as np

    from micfast.estimator import ModularInverseClassifier
    from micfast.ops import resolve_backend

    # First, because to move the modules there would fail in torch's words.
    resolve_backend(args.backend, "cuda" if args.backend == "cuda" else "cpu")
    classifier = ModularInverseClassifier.load(args.model)
    classifier.set_params(
        backend=args.backend, n_jobs=args.threads, verbose=int(_shows_progress(args))
    )
    broken = np.flatnonzero(~np.isfinite(X).reshape(len(X), -1).all(axis=1))
    if len(broken):
        raise _CommandError(
            f"X must be finite, but {len(broken)} of {len(X)} samples hold NaN or infinity, "
            f"sample {broken[0]} first"
        )
    if args.iterations is not None:
        classifier.set_params(n_iter=args.iterations)
    # One inversion gives it all; predict and predict_proba would each make their own.
    inversions, errors = classifier._decide(classifier._check_sequences(X))
    predictions = classifier._labels(errors)
    arrays = {"predictions": predictions, "errors": errors, "classes": classifier.classes_}
    if predictions.dtype == object:  # "none of these" is no text, and objects would be pickled
        arrays["predictions"] = np.array(["" if p is None else str(p) for p in predictions])
    if args.proba:
        arrays["probabilities"] = classifier._probabilities(errors)
    if args.reconstructions:
        drawn = inversions[0].reconstructions(
            errors.argmin(axis=1), backend=args.backend, n_threads=args.threads
        )
        if classifier.standardizer_ is not None:
            drawn = classifier.standardizer_.inverse_transform(drawn)
        arrays["reconstructions"] = drawn.reshape(X.shape)
    if args.output is None:
        for label in predictions:
            print(label)
    elif args.output.suffix.lower() == ".npz":
        _write_npz(args.output, arrays)
    else:
        _write_csv(args.output, arrays)
    if args.score:
        print(f"accuracy {_accuracy(predictions, y):.4f}")


def _reproduce(args: argparse.Namespace) -> None:
    if args.dry_run and args.report_only:
        raise _UsageError("give either --dry-run or --report-only")

    from micfast.experiments.paper.run import reproduce

    report = reproduce(
        args.out,
        only=args.only,
        data=args.data,
        seeds=args.seeds,
        budget=args.budget,
        targets=args.target,
        noise=args.noise,
        resume=args.resume,
        report_only=args.report_only,
        dry_run=args.dry_run,
        n_threads=args.threads,
        progress=not args.quiet,
    )
    if report is not None:
        print(f"report: {report}")


def _info(args: argparse.Namespace) -> None:
    if args.model is None:
        import micfast

        micfast.show_config()
        return

    from micfast.bank import read_bank
    from micfast.estimator import ModularInverseClassifier

    bank, _, document = read_bank(args.model)
    classifier = None if document is None else ModularInverseClassifier.load(args.model)
    kind = "bank of modules" if classifier is None else "ModularInverseClassifier"
    weights = sum(weight.numel() for weight in bank.weights)
    rows = [
        ("file", f"{args.model} ({os.path.getsize(args.model):,} bytes)"),
        ("holds", kind),
        ("modules", f"{bank.n_modules}, {weights:,} weights in all, {bank.dtype}"),
        ("sizes", f"{bank.hidden_size} hidden, {bank.input_size} inputs (types), "
         f"{bank.output_size} outputs (channels)"),
        ("classes", " ".join(str(label) for label in bank.classes)),
    ]  # fmt: skip
    if bank.metadata:
        rows.append(("metadata", json.dumps(bank.metadata)))
    if classifier is not None:
        rows.append(("steps", f"{classifier.n_timesteps_in_} in training"))
        params = classifier.get_params()
        rows.append(("parameters", ", ".join(f"{k}={v!r}" for k, v in sorted(params.items()))))
    print("\n".join(f"{name:<11} {value}" for name, value in rows))
    if classifier is not None:
        print("\n" + "\n".join(_training_lines(classifier)))


def _training_report(classifier: ModularInverseClassifier) -> dict[str, Any]:
    """The training report in JSON's types."""
    return {
        "micfast": __version__,
        "parameters": classifier.get_params(),
        "classes": [
            {**report, "loss_curve": report["loss_curve"].tolist()}
            for report in classifier.training_report_
        ],
    }


def _training_lines(classifier: ModularInverseClassifier) -> list[str]:
    """The training report as a table."""
    reports = classifier.training_report_
    width = max(5, *(len(str(report["label"])) for report in reports))
    lines = [
        f"  {'class':<{width}}   module   samples   types   attempts   MSE of types   relative   "
        "learned"
    ]
    for r in reports:
        lines.append(
            f"  {r['label']!s:<{width}}   {r['module'] + 1:6d}   {r['n_samples']:7d}   "
            f"{r['n_types_found']:5d}   "
            f"{r['attempts']:8d}   {r['mse']:12.3g}   {r['relative_mse']:8.2%}   "
            f"{'yes' if r['learned'] else 'NO'}"
        )
    seconds = max(report["seconds"] for report in reports)
    n_learned = sum(report["learned"] for report in reports)
    lines += ["", f"  {n_learned} of {len(reports)} modules learned; training took {seconds:.2f} s"]
    return lines


# -- files ---------------------------------------------------------------------------------------


def _check_outputs(*paths: Path | None) -> None:
    """Refuse a path that can't be written before the work, not after it."""
    for path in paths:
        if path is not None:
            check_output_path(path)


def _read_data(args: argparse.Namespace, *, wants_y: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """X, and y if it is wanted, from one .npz file or from .npy files."""
    if (args.data is None) == (args.X is None):
        raise _UsageError("give the data either as DATA or by --X")
    arrays = _load(args.data if args.X is None else args.X)
    if isinstance(arrays, dict):
        X = _pick(arrays, args.X_key, "--X-key", args.data or args.X)
    else:
        X = arrays
    if X.dtype.kind not in "fiub":
        raise _CommandError(f"X must hold real numbers, got dtype {X.dtype}")
    if X.ndim not in (2, 3) or not X.size:
        raise _CommandError(
            "X must have shape [samples, steps] or [samples, steps, channels] and not be empty, "
            f"got {list(X.shape)}"
        )
    if not wants_y:
        return X, None
    if args.y is not None:
        y = _load(args.y)
        if isinstance(y, dict):
            y = _pick(y, args.y_key, "--y-key", args.y)
    elif isinstance(arrays, dict):
        y = _pick(arrays, args.y_key, "--y-key", args.data or args.X)
    else:
        raise _CommandError("y is missing: give it in a .npz file or by --y")
    if y.shape != X.shape[:1]:
        raise _CommandError(
            f"y must have shape [{len(X)}], one label per sample, got {list(y.shape)}"
        )
    return X, y


def _load(path: Path) -> Any:
    """The array of a .npy file, or the arrays of a .npz file by name."""
    from micfast._io import load_array_or_arrays

    try:
        return load_array_or_arrays(path)
    except ValueError as error:
        raise _CommandError(
            f"{path}: must be a .npz or .npy file of numbers or text, without Python objects "
            f"({_one_line(error)})"
        ) from error


def _pick(arrays: dict[str, np.ndarray], key: str, option: str, path: Path) -> np.ndarray:
    if key not in arrays:
        names = ", ".join(arrays) or "nothing"
        raise _CommandError(f"{path}: holds no array {key!r} but {names}: choose by {option}")
    return arrays[key]


def _accuracy(predictions: np.ndarray, y: np.ndarray | None) -> float:
    import numpy as np

    # Not ==: for labels of another type than the predictions it is one False, not an array.
    return float(np.mean([a == b for a, b in zip(predictions.tolist(), y, strict=True)]))  # type: ignore[arg-type]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(_without_nan(content), indent=2, allow_nan=False)
    write_text(path, text + "\n")


def _without_nan(value: Any) -> Any:
    """NaN and infinity, which JSON lacks, become null: a module that diverged has such errors."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    import numpy as np

    if arrays["predictions"].dtype == object:
        # Labels of several types can be stored as text only: anything else would need pickle.
        arrays = {**arrays, **{k: arrays[k].astype(str) for k in ("predictions", "classes")}}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _write_csv(path: Path, arrays: dict[str, np.ndarray]) -> None:
    import csv

    errors, probabilities = arrays["errors"], arrays.get("probabilities")
    header = ["prediction", "lowest_error", *(f"error_{c}" for c in arrays["classes"])]
    if probabilities is not None:
        header += [f"probability_{label}" for label in arrays["classes"]]
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        for i, label in enumerate(arrays["predictions"]):
            # str of a NumPy number has as many digits as bring it back.
            row = [label, errors[i].min(), *errors[i]]
            writer.writerow(row if probabilities is None else [*row, *probabilities[i]])
