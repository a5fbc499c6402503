"""The demonstration: train on one data set, classify its test part, time it, report the result."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.experiments.threads import torch_threads

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from micfast import Adam, Inversion, LevenbergMarquardt, ModularInverseClassifier
    from micfast.data import Dataset

__all__ = ["DATA_SETS", "DemoConfig", "DemoRun", "draw_demo", "format_demo", "run_demo"]


@dataclass(frozen=True)
class DemoConfig:
    """Settings of one demonstration; :meth:`for_data` fills in those that suit a data set.

    Attributes
    ----------
    data : {"digits", "characters", "mnist"}
    type_selection, representative, n_types, hidden_size, noise_in, noise_out, n_episodes
        As :class:`micfast.ModularInverseClassifier`, its type selection and its training have them.
    solver : {"lm", "adam"}
    init : str
        Start of the solver.
    n_iter : int
    n_test : int or None
        Test sequences; None takes the whole test part.
    n_compare : int
        Test sequences that the PyTorch fallback inverts, too, for comparison; 0 for none.
    n_rows : int
        Test sequences in the picture.
    seed : int
        Seed of the split, the choice of types, the training, and the picture's rows.
    backend : {"auto", "cpu", "cuda", "torch"}
    threads : int or None
        None: torch's number.
    """

    data: str
    type_selection: str
    hidden_size: int
    n_episodes: int
    noise_in: float
    noise_out: float
    n_test: int | None
    n_compare: int
    n_rows: int
    representative: str = "centroid"
    n_types: int = 4
    solver: str = "lm"
    init: str = "nearest"
    n_iter: int = 8
    seed: int = 0
    backend: str = "auto"
    threads: int | None = None

    @classmethod
    def for_data(cls, data: str, **settings: Any) -> DemoConfig:
        """A data set's own settings, except for those given and not None.

        With ``solver="adam"`` the default inversion is the paper's: 50 iterations from the even
        mixture.
        """
        if data not in DATA_SETS:
            raise ValueError(f"demo: data must be one of {', '.join(DATA_SETS)}, got {data!r}")
        given = {name: value for name, value in settings.items() if value is not None}
        if given.get("solver") == "adam":
            given = {"init": "uniform", "n_iter": 50} | given
        config = replace(DATA_SETS[data], **given)
        for name, lowest in (("n_test", 1), ("n_compare", 0), ("n_rows", 1), ("threads", 1)):
            value = getattr(config, name)
            if value is not None and value < lowest:
                raise ValueError(f"demo: {name} must be at least {lowest}, got {value}")
        return config

    def make_solver(self) -> Adam | LevenbergMarquardt:
        """The solver with its start and iterations."""
        from micfast import Adam, LevenbergMarquardt

        solver = {"adam": Adam, "lm": LevenbergMarquardt}[self.solver]
        return solver(n_iter=self.n_iter, start=self.init)


# Characters and MNIST: the paper's settings; of its nine noise levels, ones that did best over ten
# seeds (docs/reproduction.md).
# n_compare gives the fallback a batch that suits it.
DATA_SETS = {
    config.data: config
    for config in (
        DemoConfig("digits", "kmeans", 16, 20000, 0.2, 0.1, n_test=None, n_compare=256, n_rows=6),
        DemoConfig(
            "characters", "dtw-kmeans", 10, 40000, 0.1, 0.0, n_test=400, n_compare=32, n_rows=4
        ),
        DemoConfig("mnist", "kmeans", 20, 20000, 0.2, 0.1, n_test=1000, n_compare=64, n_rows=6),
    )
}

# What the fallback may take in all, in how many runs.
_COMPARE_SECONDS, _COMPARE_REPEATS = 6.0, 3
# A short inversion is timed several times, and the median counts.
_REPEATS, _REPEAT_SECONDS = 5, 1.0


@dataclass(frozen=True)
class DemoRun:
    """What :func:`run_demo` made.

    Attributes
    ----------
    result : dict
        Everything that was measured, as JSON has it.
    dataset, classifier, inversion
        The data, the fitted estimator, and its inversion of the test part.
    """

    config: DemoConfig
    dataset: Dataset
    classifier: ModularInverseClassifier
    inversion: Inversion
    result: dict[str, Any]


def run_demo(config: DemoConfig, *, progress: bool = False) -> DemoRun:
    """Load, train, classify and measure; ``progress`` shows bars on the standard error stream.

    Examples
    --------
    >>> run = run_demo(DemoConfig.for_data("digits", n_episodes=5000, n_test=20, n_compare=0))
    >>> run.result["n_test"], len(run.result["per_class"])
    (20, 10)
    """
    import micfast

    begin = time.perf_counter()
    with torch_threads(config.threads):
        machine = micfast.config()
        dataset = _load(config)
        load_seconds = time.perf_counter() - begin
        classifier = _make_classifier(config, verbose=int(progress))
        fit_seconds = _timed(lambda: classifier.fit(dataset.X_train, dataset.y_train))[1]
        X, y = dataset.X_test, dataset.y_test
        decision, decide_seconds = _timed(lambda: classifier.decide(X))
        seconds: list[float] = []
        while len(seconds) < _REPEATS and sum(seconds) < _REPEAT_SECONDS:
            seconds.append(_timed(lambda: classifier.invert(X))[1])
        invert_seconds = float(np.median(seconds))
        # The paper's control: no search, every module draws the even mixture of its types.
        errors_0 = classifier.invert(X, solver=micfast.Adam(n_iter=0)).errors
        backend = config.backend
        if backend == "auto":
            backend = "cpu" if "cpu" in machine["backends"] else "torch"
        comparison = _compare(classifier, X[: config.n_compare], backend, config)

    inversion, reports = decision.inversion(), classifier.training_report_
    # A report counts the training runs that its module took part in: the unluckiest saw them all.
    train_seconds = max(report["seconds"] for report in reports)
    codes = np.searchsorted(classifier.classes_, y)
    own = np.arange(len(y)), codes
    chosen_0 = errors_0.argmin(axis=1)
    n_inversions = inversion.errors.size
    torch_seconds = comparison["seconds_per_inversion"]
    result = {
        "data": config.data,
        "accuracy": float((decision.best == codes).mean()),
        "accuracy_0_iterations": float((chosen_0 == codes).mean()),
        "mse_true_class": float(inversion.errors[own].mean()),
        "mse_true_class_0_iterations": float(errors_0[own].mean()),
        "per_class": _per_class(classifier.bank_.classes, codes, decision.best, inversion.errors),
        "retrained": sum(report["attempts"] > 1 for report in reports),
        "not_learned": [report["label"] for report in reports if not report["learned"]],
        "n_classes": len(classifier.classes_),
        "n_train": len(dataset.X_train),
        "n_test": len(y),
        "n_timesteps": X.shape[1],
        "n_channels": X.shape[2],
        "n_inversions": n_inversions,
        "seed": config.seed,
        "load_seconds": load_seconds,
        # With the fit of the temperature, which is a small part of it.
        "type_seconds": fit_seconds - train_seconds,
        "train_seconds": train_seconds,
        "decide_seconds": decide_seconds,
        "invert_seconds": invert_seconds,
        "invert_runs": len(seconds),
        "inversions_per_second": n_inversions / invert_seconds,
        "torch_seconds_per_inversion": torch_seconds,
        "speedup_over_torch": torch_seconds and torch_seconds * n_inversions / invert_seconds,
        "torch_comparison": comparison,
        "total_seconds": time.perf_counter() - begin,
        "settings": asdict(config),
        "backend": backend,
        "threads": machine["threads"],
        "isa": machine.get("isa"),
        "versions": {name: machine[name] for name in ("micfast", "torch", "numpy", "python")},
    }
    return DemoRun(config, dataset, classifier, inversion, result)


def _make_classifier(config: DemoConfig, verbose: int) -> ModularInverseClassifier:
    from micfast import ModularInverseClassifier, Training

    training = Training.paper(
        n_episodes=config.n_episodes, noise_in=config.noise_in, noise_out=config.noise_out
    )
    classifier = ModularInverseClassifier(
        config.n_types,
        type_selection=config.type_selection,
        hidden_size=config.hidden_size,
        training=training,
        views="raw",  # the picture shows what one module per class draws
        hull=False,
        solver=config.make_solver(),
        standardize=None,  # the loaders did it
        backend=config.backend,
        random_state=config.seed,
        n_jobs=config.threads,
        verbose=verbose,
    )
    if config.type_selection.endswith("kmeans"):
        classifier.set_params(type_selection__representative=config.representative)
    return classifier


def _load(config: DemoConfig) -> Dataset:
    from micfast.data import load_characters, load_digits_sequences, load_mnist

    if config.data == "characters":
        return load_characters(n_test=config.n_test, random_state=config.seed)
    if config.data == "mnist":
        return load_mnist(n_test=config.n_test)
    dataset = load_digits_sequences(random_state=config.seed)
    n_test = len(dataset.y_test) if config.n_test is None else config.n_test
    if n_test > len(dataset.y_test):
        raise ValueError(f"demo: n_test must be at most {len(dataset.y_test)}, got {n_test}")
    return replace(dataset, X_test=dataset.X_test[:n_test], y_test=dataset.y_test[:n_test])


def _timed(work: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begin


def _compare(
    classifier: ModularInverseClassifier, X: np.ndarray, backend: str, config: DemoConfig
) -> dict[str, Any]:
    """Invert a sample with the PyTorch fallback as well: its time, and how far the results differ.

    The fallback does as many iterations as a few seconds allow, its fastest run counts, and the
    iterations left out are added at that rate. The kernel does as many, and errors are compared.
    """
    import micfast

    names = (
        "n_iter",
        "seconds_per_inversion",
        "n_equal_decisions",
        "median_relative_difference",
        "largest_relative_difference",
    )
    if not len(X) or backend == "torch" or not config.n_iter:
        return {"n_targets": 0, **dict.fromkeys(names)}

    def search(n_iter: int, backend: str) -> tuple[Inversion, float]:
        solver = replace(config.make_solver(), n_iter=n_iter)
        execution = micfast.Execution(backend, n_threads=config.threads)
        return _timed(
            lambda: micfast.invert(classifier.bank_, X, solver=solver, execution=execution)
        )

    search(1, "torch")  # pays for torch's own preparations
    affordable = int(_COMPARE_SECONDS / _COMPARE_REPEATS / search(1, "torch")[1])
    n_iter = min(max(affordable, 1), config.n_iter)
    runs = [search(n_iter, "torch") for _ in range(_COMPARE_REPEATS)]
    fallback, seconds = min(runs, key=lambda run: run[1])
    # The last error costs a forward pass; as a whole iteration it makes the fallback look faster.
    seconds *= (config.n_iter + 1) / (n_iter + 1)
    kernel = search(n_iter, config.backend)[0]
    difference = np.abs(kernel.errors - fallback.errors) / fallback.errors
    values = (
        n_iter,
        seconds / kernel.errors.size,
        int((fallback.best == kernel.best).sum()),
        float(np.median(difference)),
        float(difference.max()),
    )
    return {"n_targets": len(X), **dict(zip(names, values, strict=True))}


def _per_class(
    labels: tuple[Any, ...], codes: np.ndarray, chosen: np.ndarray, errors: np.ndarray
) -> list[dict[str, Any]]:
    """Per class: how many test sequences, how many right, their error, the commonest mistake."""
    rows = []
    for c, label in enumerate(labels):
        mine = codes == c
        n_test, n_right = int(mine.sum()), int((chosen[mine] == c).sum())
        mistakes = np.bincount(chosen[mine & (chosen != c)], minlength=len(labels))
        rows.append(
            {
                "label": label,
                "n_test": n_test,
                "n_right": n_right,
                "accuracy": n_right / n_test if n_test else None,
                "mse_true_class": float(errors[mine, c].mean()) if n_test else None,
                "mistaken_for": labels[int(mistakes.argmax())] if n_right < n_test else None,
                "n_mistaken_for": int(mistakes.max()),
            }
        )
    return rows


def format_demo(result: dict[str, Any]) -> str:
    """``DemoRun.result`` in words and tables, several lines."""
    settings = result["settings"]
    kernel = f"kernel {result['isa']}" if result["backend"] == "cpu" else result["backend"]
    return "\n".join(
        [
            f"{result['data']}: {result['n_train']} training and {result['n_test']} test sequences "
            f"of {result['n_timesteps']} steps x {result['n_channels']} channels, "
            f"{result['n_classes']} classes",
            f"one LSTM of {settings['hidden_size']} units per class, {settings['n_types']} types "
            f"each ({settings['type_selection']}, {settings['representative']}), "
            f"{settings['n_episodes']} episodes; seed {result['seed']}; {kernel}, "
            f"{_count(result['threads'], 'thread')}",
            "",
            *_class_lines(result),
            "",
            *_accuracy_lines(result),
            "",
            *_time_lines(result),
        ]
    )


def _class_lines(result: dict[str, Any]) -> list[str]:
    width = max(5, *(len(str(row["label"])) for row in result["per_class"]))
    lines = [f"  {'class':<{width}}   tests   right   accuracy     MSE   most often mistaken for"]
    for row in result["per_class"]:
        line = f"  {row['label']!s:<{width}}   {row['n_test']:5d}   {row['n_right']:5d}"
        if row["n_test"]:
            line += f"    {row['accuracy']:7.1%}   {_mse(row['mse_true_class'])}"
        if row["mistaken_for"] is not None:
            line += f"   {row['mistaken_for']} ({row['n_mistaken_for']})"
        lines.append(line)
    return lines


def _accuracy_lines(result: dict[str, Any]) -> list[str]:
    settings = result["settings"]
    name = f"{_count(settings['n_iter'], 'iteration')} of {settings['solver']}"
    lines = [f"  {'':<32}{name:>22}{'0 iterations':>15}"]
    for name, key, show in (
        ("accuracy", "accuracy", "{:.1%}".format),
        ("mean MSE of the true class", "mse_true_class", _mse),
    ):
        after, before = (show(result[key + end]) for end in ("", "_0_iterations"))
        lines.append(f"  {name:<32}{after:>22}{before:>15}")
    return lines


def _time_lines(result: dict[str, Any]) -> list[str]:
    trained = _count(result["n_classes"], "module") + f", {result['retrained']} trained again"
    if result["not_learned"]:
        names = ", ".join(map(str, result["not_learned"]))
        trained += f"; types not learned by: {names}"
    rate = result["inversions_per_second"]
    rows = [
        ("data", result["load_seconds"], ""),
        ("types and calibration", result["type_seconds"], ""),
        ("training", result["train_seconds"], trained),
        (
            "inversion",
            result["invert_seconds"],
            f"{result['n_inversions']:,} inversions, {rate:,.0f} per second",
        ),
        ("decision", result["decide_seconds"], "inversion, and poses"),
        ("everything", result["total_seconds"], ""),
    ]
    lines = [f"  {name:<22}{value:8.2f} s   {note}".rstrip() for name, value, note in rows]
    comparison = result["torch_comparison"]
    if comparison["n_targets"]:
        n_targets = comparison["n_targets"]
        n_iter, n_equal = comparison["n_iter"], comparison["n_equal_decisions"]
        lines += [
            "",
            f"  PyTorch fallback: {1e3 * result['torch_seconds_per_inversion']:.3g} ms per "
            f"inversion, the kernel {1e3 / rate:.3g} ms: {result['speedup_over_torch']:.0f} times "
            "as fast",
            f"  compared on {n_targets} test sequences over {_count(n_iter, 'iteration')}: "
            f"{n_equal} decisions equal, errors differ relatively",
            f"  by {comparison['median_relative_difference']:.0e} in the median, "
            f"{comparison['largest_relative_difference']:.0e} at most (roundings can lead the "
            "descent elsewhere)",
        ]
    return lines


def _mse(value: float) -> str:
    return f"{value:.4f}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def draw_demo(run: DemoRun) -> Figure:
    """Draw some test sequences beside what every module made of them."""
    from micfast.plotting import choose_examples, plot_reconstructions

    y = run.dataset.y_test
    chosen = choose_examples(y, run.inversion.predictions, run.config.n_rows, run.config.seed)
    return plot_reconstructions(
        run.dataset.X_test,
        run.inversion,
        indices=chosen,
        y_true=y,
        standardizer=run.dataset.standardizer,
        title="Every module redraws the target; the smallest error decides",
    )
