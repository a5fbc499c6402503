"""``micfast reproduce``: plan, work, manifest, and at the end tables, figures and report."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.experiments.paper import results
from micfast.experiments.paper.plan import Plan, format_seconds, make_plan, measure_rates
from micfast.experiments.paper.results import ResultsError
from micfast.experiments.paper.settings import DataSpec, Settings
from micfast.experiments.paper.work import Context, compute, list_tasks, load_dataset
from micfast.experiments.threads import torch_threads

if TYPE_CHECKING:
    from micfast.data import Dataset

__all__ = ["reproduce"]

_PACKAGES = ("scikit-learn", "scipy")  # what types depend on, besides micfast
_OTHERS = ("pandas", "statsmodels", "matplotlib", "keras", "aeon", "numba")
# Several packages bring this module; the report wants its version under the module's name.
_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-macos")
_REPORT_NEEDS = ("statsmodels", "tabulate", "jinja2")
_MANIFEST = "manifest.json"


def reproduce(
    out: str | os.PathLike[str],
    *,
    only: Iterable[str] | None = None,
    data: Iterable[str] | None = None,
    seeds: int = 10,
    budget: str = "default",
    targets: Iterable[str] = (),
    noise: Sequence[float] = (0.0, 0.0),
    resume: bool = False,
    report_only: bool = False,
    dry_run: bool = False,
    report: bool = True,
    n_threads: int | None = None,
    progress: bool = True,
    specs: Iterable[DataSpec] | None = None,
) -> Path | None:
    """Run the paper's experiments and write all their results into a folder.

    Finished work is kept: after a kill at any moment, the same call with ``resume=True`` continues
    after the last completed unit and ends with the same bytes in ``raw/``.

    Parameters
    ----------
    out : path-like
        Results folder; made if it isn't there. One run at a time.
    only : iterable of str, optional
        Experiments (keys of :data:`settings.EXPERIMENTS`); default: all.
    data : iterable of str, optional
        Data sets; default: all.
    seeds : int
        Runs of every experiment that is repeated: seeds 0 to seeds - 1.
    budget : {"default", "full"}
        How long the forward LSTM is trained, see ``DataSpec.forward``.
    targets : iterable of str
        Targets of Figure 3, ``LABEL`` or ``LABEL:INDEX``, at most one per data set; their classes
        are those of Figures 5 and 6. INDEX counts the test sequences of the class from 0.
    noise : two floats
        Noise levels (in, out) with which the figures' modules are trained.
    resume : bool
        Continue in a folder that a run with the same settings has begun.
    report_only : bool
        Compute nothing; make tables, figures and report of the raw results that are there.
    dry_run : bool
        Only print the plan; nothing is written.
    report : bool
        False: no tables, figures and report.
    n_threads : int, optional
        Default ``torch.get_num_threads()``. Results of the modules don't depend on it.
    progress : bool
        Print the plan, and show progress on the standard error stream.
    specs : iterable of DataSpec, optional
        Other data sets than the paper's.

    Returns
    -------
    Path or None
        The report; None if none was asked for.

    Raises
    ------
    ResultsError
        If the folder holds something else, or the results of other settings, or is in use.

    Examples
    --------
    >>> reproduce("results", only=["table1"], seeds=3)  # doctest: +SKIP
    PosixPath('results/report.html')
    """
    if n_threads is not None and n_threads < 1:
        raise ValueError(f"reproduce: n_threads must be at least 1, got {n_threads}")
    if (report or report_only) and not dry_run:
        _check_report_packages()
    out = Path(out)
    if report_only:
        return _report_again(out)
    settings = Settings.make(
        only=only, data=data, seeds=seeds, budget=budget, noise=noise, specs=specs
    )
    _read_manifest(out, resume)
    with torch_threads(n_threads), contextlib.nullcontext() if dry_run else results.locked(out):
        # Once more: before the lock, another run may have begun here.
        before = _read_manifest(out, resume)
        datasets = {spec.name: load_dataset(spec, 0) for spec in settings.specs}
        settings = replace(settings, targets=_targets(settings, datasets, targets))
        same = {
            "settings": settings.identity(),
            "data": {name: _checksums(dataset) for name, dataset in datasets.items()},
            "computed_with": _computed_with(),
        }
        if before is not None:
            _check_same(out, before, same)
        plan, rates = _plan(settings, out / "raw", datasets, n_threads)
        if progress:
            print(plan)
        if dry_run:
            return None
        results.prepare(out)
        manifest = _begin_manifest(before or {}, same, plan, rates)
        context = Context(settings, lambda file: results.read(out / "raw" / file), n_threads)
        _work(out, plan, context, manifest, progress)
        manifest |= results.assemble(out / "raw") | {"finished": True}
        results.write(out / _MANIFEST, manifest)
        return _write_report(out, manifest) if report else None


# -- checks --------------------------------------------------------------------------------------


def _check_report_packages() -> None:
    missing = [name for name in _REPORT_NEEDS if find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"reproduce: {', '.join(missing)} missing, which the tables and the report need: "
            "pip install 'micfast[reproduce]'"
        )


def _read_manifest(out: Path, resume: bool) -> dict[str, Any] | None:
    """The manifest of the run to resume; None for a new run."""
    if results.is_new(out):
        return None
    if not (out / _MANIFEST).is_file():
        raise ResultsError(
            f"reproduce: {out} is not empty and holds no results of reproduce: give another folder"
        )
    manifest = results.read(out / _MANIFEST)
    if "settings" not in manifest:
        raise ResultsError(f"{out / _MANIFEST}: not the manifest of `micfast reproduce`")
    if not resume:
        raise ResultsError(
            f"reproduce: {out} holds results already: resume them (--resume) or give another folder"
        )
    return manifest


def _check_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to mix results that were made in different ways."""
    differences = [
        line for key, value in now.items() for line in _differences(key, before.get(key), value)
    ]
    if differences:
        raise ResultsError(
            f"reproduce: can't resume {out}, which was begun in another way: "
            f"{'; '.join(differences)}"
        )


def _differences(path: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(f"{path}.{key}", before.get(key), now.get(key))
    elif before != now:
        yield f"{path} was {before}, is now {now}"


def _targets(
    settings: Settings, datasets: Mapping[str, Dataset], given: Iterable[str]
) -> dict[str, tuple[str, int]]:
    """The target of each data set: of those given, or its default."""
    targets = dict(settings.targets)
    chosen: dict[str, str] = {}
    for text in given:
        label, colon, number = text.partition(":")
        if colon and not number.isdecimal():
            raise ValueError(f"reproduce: targets must be LABEL or LABEL:INDEX, got {text!r}")
        names = [n for n, d in datasets.items() if label in d.classes.astype(str)]
        if not names:
            known = (f"{n}: {' '.join(d.classes.astype(str))}" for n, d in datasets.items())
            raise ValueError(
                f"reproduce: targets must name a class ({'; '.join(known)}), got {text!r}"
            )
        for name in names:
            if name in chosen:
                raise ValueError(
                    f"reproduce: targets must be one per data set, got {chosen[name]!r} and "
                    f"{text!r} for {name}"
                )
            chosen[name] = text
            targets[name] = (label, int(number or 0))
    for name, (label, index) in targets.items():
        count = int((datasets[name].y_test.astype(str) == label).sum())
        if index >= count:
            raise ValueError(
                f"reproduce: targets must name a test sequence, but class {label} of {name} has "
                f"{count} of them, numbered from 0, got {index}"
            )
    return targets


# -- plan, work, report --------------------------------------------------------------------------


def _plan(
    settings: Settings, raw: Path, datasets: Mapping[str, Dataset], n_threads: int | None
) -> tuple[Plan, dict[str, Any]]:
    import torch

    tasks, skipped = list_tasks(settings)
    rates = {
        spec.name: measure_rates(
            spec,
            datasets[spec.name],
            forward=any(t.kind == "forward" and t.data == spec.name for t in tasks),
            n_threads=n_threads,
        )
        for spec in settings.specs
    }
    done = {task for task in tasks if (raw / task.file).is_file()}
    threads = n_threads or torch.get_num_threads()
    return make_plan(settings, tasks, done, skipped, rates, threads), rates


def _work(
    out: Path, plan: Plan, context: Context, manifest: dict[str, Any], progress: bool
) -> None:
    """Do the pending tasks; each is in the folder before the next begins."""
    from tqdm.auto import tqdm

    begin, session = time.perf_counter(), manifest["sessions"][-1]
    seconds_before, todo = manifest["seconds"], plan.pending
    expected = todo["seconds"].sum()

    def note() -> None:
        session["seconds"] = time.perf_counter() - begin
        manifest["seconds"] = seconds_before + session["seconds"]
        results.write(out / _MANIFEST, manifest)

    note()
    # In expected seconds, so that a long task counts as long; smoothing=0: the mean rate.
    with tqdm(
        total=expected,
        disable=not (progress and sys.stderr.isatty()),
        smoothing=0,
        bar_format="{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left, {desc}",
    ) as bar:
        finished = 0.0
        for number, (task, seconds) in enumerate(zip(todo["task"], todo["seconds"], strict=True)):
            name, start = f"{number + 1} of {len(todo)}: {task.id}", time.perf_counter()
            bar.set_description_str(name)
            if progress and bar.disable:
                speed = (start - begin) / finished if finished else 1.0
                left = format_seconds(speed * (expected - finished))
                print(f"{name}, about {left} left", file=sys.stderr, flush=True)
            try:
                results.write(out / "raw" / task.file, compute(task, context))
            except KeyboardInterrupt:
                if progress:
                    print(f"{len(manifest['units'])} units are done and kept: resume to go on")
                raise
            manifest["units"][task.id] = time.perf_counter() - start
            session["n_units"] += 1
            note()
            finished += seconds
            bar.update(seconds)


def _report_again(out: Path) -> Path:
    if results.is_new(out):
        raise ResultsError(f"reproduce: {out} holds no results to report")
    manifest = _read_manifest(out, resume=True)
    assert manifest is not None
    with results.locked(out):
        results.prepare(out)
        return _write_report(out, manifest | results.assemble(out / "raw"))


def _write_report(out: Path, manifest: Mapping[str, Any]) -> Path:
    """Tables, figures, report and, for a repository, the claims as Markdown."""
    from micfast.experiments.paper.claims import check_claims, claims_markdown
    from micfast.experiments.paper.figures import draw_figures
    from micfast.experiments.paper.raw import load_raw
    from micfast.experiments.paper.report import write_report
    from micfast.experiments.paper.tables import build_tables, write_tables
    from micfast.io import write_text

    raw = load_raw(out / "raw")
    tables, claims = build_tables(raw), check_claims(raw)
    write_tables(tables, out / "tables")
    figures = draw_figures(out / "raw", out / "figures")
    write_text(out / "reproduction.md", claims_markdown(raw, tables, claims, manifest))
    return write_report(out, tables, figures, claims, manifest)


# -- manifest ------------------------------------------------------------------------------------


def _begin_manifest(
    before: Mapping[str, Any], same: Mapping[str, Any], plan: Plan, rates: Mapping[str, Any]
) -> dict[str, Any]:
    """What is known of a run.

    ``settings``, ``data`` and ``computed_with`` must be equal in a run that resumes it. Times stand
    here alone: those of units whose process was killed before it could note them are null.
    """
    session = {
        "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "n_units": 0,
        **_commit(),
        "machine": _machine(),
    }
    known, frame = before.get("units", {}), plan.frame
    return {
        "format": "micfast-reproduce",
        "finished": False,
        **same,
        "seeds": list(range(same["settings"]["seeds"])),
        **_commit(),
        "versions": _versions(),
        "machine": _machine(),
        "rates": rates,
        "plan": {
            "n_units": len(frame),
            "seconds": float(frame["seconds"].sum()),
            "original_seconds": plan.original_seconds,
        },
        "skipped": plan.skipped,
        "units": {task.id: known.get(task.id) for task in frame["task"][~frame["pending"]]},
        "sessions": [*before.get("sessions", []), session],
        "seconds": before.get("seconds", 0.0),
    }


def _checksums(dataset: Dataset) -> dict[str, Any]:
    """Sizes and sha256 of the arrays, as seed 0 has them."""
    parts = ("X_train", "y_train", "X_test", "y_test")
    arrays = {name: np.ascontiguousarray(getattr(dataset, name)) for name in parts}
    return {
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "sha256": {
            name: hashlib.sha256(array.dtype.str.encode() + array.tobytes()).hexdigest()
            for name, array in arrays.items()
        },
    }


def _computed_with() -> dict[str, Any]:
    """What may change a result's last digits."""
    import micfast

    values = micfast.config()
    return {
        **{name: values[name] for name in ("micfast", "torch", "numpy", "machine")},
        **{name: _version(name) for name in _PACKAGES},
        "backend": "cpu" if "cpu" in values["backends"] else "torch",
        "isa": values.get("isa"),
    }


def _versions() -> dict[str, str | None]:
    import micfast

    values = micfast.config()
    versions = {name: values[name] for name in ("micfast", "python", "torch", "numpy")}
    versions |= {name: _version(name) for name in (*_PACKAGES, *_OTHERS)}
    return versions | {"tensorflow": next(filter(None, map(_version, _TENSORFLOW)), None)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    import micfast

    values = micfast.config()
    has_affinity = hasattr(os, "sched_getaffinity")
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count(),
        "system": platform.system(),
        "architecture": values["machine"],
        "threads": values["threads"],
        "isa": values.get("isa"),
        "compiler": values.get("compiler"),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _commit() -> dict[str, Any]:
    """Commit of the checkout that micfast runs from, and whether it has changes; else None."""
    file = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed package may lie in a checkout of something else.
        git("ls-files", "--error-unmatch", file.name)
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return {"commit": git("rev-parse", "HEAD"), "uncommitted_changes": changed}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "uncommitted_changes": None}
