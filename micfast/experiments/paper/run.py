"""``micfast reproduce``: plan, work, manifest, and at the end tables, figures and report.

Owns the order of things and what the manifest says; the work is done by ``units``.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.experiments.paper.plan import Plan, format_seconds, make_plan, measure_rates
from micfast.experiments.paper.settings import DataSpec, Settings
from micfast.experiments.paper.store import Store, StoreError
from micfast.experiments.paper.units import Unit, Worker, list_units

if TYPE_CHECKING:
    from micfast.data import Dataset

__all__ = ["reproduce"]

_PACKAGES = ("scikit-learn", "scipy", "tslearn")  # what types depend on, beside micfast
_OTHERS = ("pandas", "statsmodels", "matplotlib", "keras", "aeon", "numba")
# Several packages bring this module; the report wants its version under the module's name.
_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-macos")
_REPORT_NEEDS = ("pandas", "statsmodels", "tabulate", "jinja2")


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

    What is done is kept: after a kill at any moment, the same call with ``resume=True`` goes on
    behind the last finished unit and ends with the same bytes in ``raw/``.

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
        Go on in a folder that a run with the same settings has begun; a folder with nothing in it
        is as good.
    report_only : bool
        Do no unit; make tables, figures and report of the raw results that are there.
    dry_run : bool
        Only tell the plan; nothing is written.
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
    StoreError
        If the folder holds something else, or the results of other settings, or is in use.
    ValueError, OSError
        If an argument has a value that it can't have, or the data can't be had.
    RuntimeError
        If a package is missing that the report needs.

    Examples
    --------
    >>> reproduce("results", only=["table1"], seeds=3)  # doctest: +SKIP
    PosixPath('results/report.html')
    """
    if n_threads is not None and n_threads < 1:
        raise ValueError(f"reproduce: n_threads must be at least 1, got {n_threads}")
    if (report or report_only) and not dry_run:
        _check_report_packages()
    say = print if progress else _say_nothing
    store = Store(out)
    if report_only:
        return _report_again(store)
    settings = Settings.make(
        only=only, data=data, seeds=seeds, budget=budget, noise=noise, specs=specs
    )
    _begun(store, resume)
    with _threads(n_threads), contextlib.nullcontext() if dry_run else store.locked():
        # Once more: before the lock, another run may have begun here.
        before = _begun(store, resume)
        worker = Worker(settings, store, n_threads)
        datasets = {spec.name: worker.dataset(spec.name, 0) for spec in settings.specs}
        settings = replace(settings, targets=_targets(settings, datasets, list(targets)))
        worker.settings = settings
        same = {
            "settings": settings.identity(),
            "data": {name: _checksums(dataset) for name, dataset in datasets.items()},
            "computed_with": _computed_with(),
        }
        if before is not None:
            _check_same(store, before, same)
        plan, rates = _plan(settings, store, datasets, n_threads)
        say(plan)
        if dry_run:
            return None
        store.prepare()
        manifest = _Manifest(store, before, same, plan, rates)
        try:
            _work(plan, worker, manifest, progress)
        except KeyboardInterrupt:
            say(f"{manifest.n_done} units are done and kept: resume to go on")
            raise
        store.assemble()
        manifest.finish()
        return _write_report(store, manifest.content) if report else None


def _say_nothing(*args: object) -> None:
    pass


def _threads(n_threads: int | None) -> contextlib.AbstractContextManager[None]:
    from micfast.experiments.demo import _threads

    return _threads(n_threads)


# -- checks --------------------------------------------------------------------------------------


def _check_report_packages() -> None:
    missing = [name for name in _REPORT_NEEDS if find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"reproduce: {', '.join(missing)} missing, which the tables and the report need: "
            "pip install 'micfast[reproduce]'"
        )


def _begun(store: Store, resume: bool) -> dict[str, Any] | None:
    """The manifest of the run to resume; None for a new run."""
    if store.is_new():
        return None
    manifest = store.read_manifest()
    if manifest is None:
        raise StoreError(
            f"reproduce: {store.out} is not empty and holds no results of reproduce: give another "
            "folder"
        )
    if not resume:
        raise StoreError(
            f"reproduce: {store.out} holds results already: resume them (--resume) or give "
            "another folder"
        )
    return manifest


def _check_same(store: Store, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to mix results that were made in different ways."""
    different = [
        line for key, value in now.items() for line in _differences(key, before.get(key), value)
    ]
    if different:
        raise StoreError(
            f"reproduce: can't resume {store.out}, which was begun in another way: "
            f"{'; '.join(different)}"
        )


def _differences(path: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(f"{path}.{key}", before.get(key), now.get(key))
    elif before != now:
        yield f"{path} was {before}, is now {now}"


def _targets(
    settings: Settings, datasets: Mapping[str, Dataset], given: list[str]
) -> dict[str, tuple[str, int]]:
    """The target of each data set, of those given or its own."""
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


# -- plan and work -------------------------------------------------------------------------------


def _plan(
    settings: Settings, store: Store, datasets: Mapping[str, Dataset], n_threads: int | None
) -> tuple[Plan, dict[str, Any]]:
    import torch

    units, skipped = list_units(settings)
    done = [unit for unit in units if store.has(unit.file)]
    rates = {
        spec.name: measure_rates(
            spec,
            datasets[spec.name],
            forward=any(u.kind == "forward" and u.data == spec.name for u in units),
            n_threads=n_threads,
        )
        for spec in settings.specs
    }
    threads = n_threads or torch.get_num_threads()
    plan = make_plan(settings, units, done, skipped, rates, threads)
    return plan, {name: asdict(rate) for name, rate in rates.items()}


def _work(plan: Plan, worker: Worker, manifest: _Manifest, progress: bool) -> None:
    """Do the pending units; each is in the folder before the next begins."""
    with _progress(plan, progress) as show:
        for unit in plan.pending:
            begin = time.perf_counter()
            content = worker.run(unit, show(unit))
            worker.store.write(unit.file, content)
            manifest.add(unit, content, time.perf_counter() - begin)


@contextlib.contextmanager
def _progress(plan: Plan, shown: bool) -> Iterator[Callable[[Unit], Callable[[float], object]]]:
    """Give what is called at the start of a unit; it gives what takes the fraction done.

    A bar on a terminal, a line per unit elsewhere.
    """
    from tqdm.auto import tqdm

    total = plan.pending_seconds
    before, begin, number = 0.0, time.perf_counter(), 0
    current: Unit | None = None
    # In expected seconds, so that a long unit counts as long; smoothing=0: the mean rate.
    with tqdm(
        total=total,
        disable=not (shown and sys.stderr.isatty()),
        smoothing=0,
        bar_format="{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left, {desc}",
    ) as bar:

        def start(unit: Unit) -> Callable[[float], object]:
            nonlocal before, current, number
            if current is not None:
                before += plan.seconds[current]
            current, number = unit, number + 1
            name = f"{number} of {len(plan.pending)}: {unit.id}"
            bar.set_description_str(name, refresh=False)
            if shown and bar.disable:
                seconds = time.perf_counter() - begin
                left = seconds / before * (total - before) if before else total
                print(f"{name}, about {format_seconds(left)} left", file=sys.stderr, flush=True)
            begun = before

            def report(fraction: float) -> None:
                bar.update(begun + fraction * plan.seconds[unit] - bar.n)

            report(0.0)
            return report

        yield start
        bar.update(total - bar.n)


def _report_again(store: Store) -> Path:
    if store.is_new() or (manifest := store.read_manifest()) is None:
        raise StoreError(f"reproduce: {store.out} holds no results to report")
    with store.locked():
        store.prepare()
        store.assemble()
        return _write_report(store, manifest)


def _write_report(store: Store, manifest: Mapping[str, Any]) -> Path:
    """Tables, figures, report and, for a repository, the claims as Markdown."""
    from micfast._io import write_text
    from micfast.experiments.paper.claims import check_claims, claims_markdown
    from micfast.experiments.paper.figures import draw_figures
    from micfast.experiments.paper.report import write_report
    from micfast.experiments.paper.tables import build_tables, write_tables

    folders = store.out / "tables", store.out / "figures"
    for folder in folders:
        folder.mkdir(exist_ok=True)
    tables = build_tables(store.raw)
    write_tables(tables, folders[0])
    figures = draw_figures(store.raw, folders[1])
    claims = check_claims(store.raw)
    text = claims_markdown(store.raw, dict(manifest), claims=claims)
    write_text(store.out / "reproduction.md", text)
    return write_report(store.out, tables, figures, claims, dict(manifest))


# -- manifest ------------------------------------------------------------------------------------


class _Manifest:
    """What is known of a run; written after every unit.

    ``settings``, ``data`` and ``computed_with`` must be equal in a run that resumes it. Times stand
    here alone: those of units whose process was killed before it could note them are null.
    """

    def __init__(
        self,
        store: Store,
        before: Mapping[str, Any] | None,
        same: Mapping[str, Any],
        plan: Plan,
        rates: Mapping[str, Any],
    ) -> None:
        self._store = store
        self._begin = time.perf_counter()
        before = before or {}
        self._session = {
            "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "n_units": 0,
            **_commit(),
            "machine": _machine(),
        }
        self._sessions = [*before.get("sessions", []), self._session]
        noted = before.get("units", {})
        units = {
            unit.id: noted.get(unit.id) or {"seconds": None, **_facts(unit, store.read(unit.file))}
            for unit in plan.units
            if unit not in plan.pending
        }
        self.content: dict[str, Any] = {
            "format": "micfast-reproduce",
            "finished": False,
            **same,
            "seeds": list(range(same["settings"]["seeds"])),
            **_commit(),
            "versions": _versions(),
            "machine": _machine(),
            "rates": dict(rates),
            "plan": {
                "n_units": len(plan.units),
                "seconds": sum(plan.seconds.values()),
                "original_seconds": plan.original_seconds,
            },
            "skipped": plan.skipped,
            "units": units,
            "sessions": self._sessions,
        }
        self._write()

    @property
    def n_done(self) -> int:
        """Units whose results are in the folder."""
        return len(self.content["units"])

    def add(self, unit: Unit, content: Mapping[str, Any], seconds: float) -> None:
        """Note that a unit is done."""
        self.content["units"][unit.id] = {"seconds": seconds, **_facts(unit, content)}
        self._session["n_units"] += 1
        self._write()

    def finish(self) -> None:
        """Note that all units are done."""
        self.content["finished"] = True
        self._write()

    def _write(self) -> None:
        self._session["seconds"] = time.perf_counter() - self._begin
        units = self.content["units"].values()
        self.content["seconds"] = sum(session["seconds"] for session in self._sessions)
        for name in ("n_modules", "n_not_learned"):
            self.content[name] = sum(unit.get(name, 0) for unit in units)
        self._store.write_manifest(self.content)


def _facts(unit: Unit, content: Mapping[str, Any]) -> dict[str, int]:
    """What the manifest tells of a unit's result."""
    if unit.kind != "grid":
        return {}
    return {"n_modules": content["n_modules"], "n_not_learned": len(content["not_learned"])}


def _checksums(dataset: Dataset) -> dict[str, Any]:
    """Sizes and sha256 of the arrays, as seed 0 has them."""
    parts = ("X_train", "y_train", "X_test", "y_test")
    arrays = {name: np.ascontiguousarray(getattr(dataset, name)) for name in parts}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    sums = {
        name: hashlib.sha256(array.dtype.str.encode() + array.tobytes()).hexdigest()
        for name, array in arrays.items()
    }
    return {"shapes": shapes, "sha256": sums}


def _computed_with() -> dict[str, Any]:
    """What may change a result's last digits."""
    from micfast import ops
    from micfast._config import config

    values = config()
    return {
        **{name: values[name] for name in ("micfast", "torch", "numpy")},
        **{name: _version(name) for name in _PACKAGES},
        "backend": ops.resolve_backend("auto", "cpu"),
        "isa": values.get("isa"),
        "machine": values["machine"],
    }


def _versions() -> dict[str, str | None]:
    from micfast._config import config

    values = config()
    versions = {name: values[name] for name in ("micfast", "python", "torch", "numpy")}
    versions |= {name: _version(name) for name in (*_PACKAGES, *_OTHERS)}
    found = [version for name in _TENSORFLOW if (version := _version(name)) is not None]
    return versions | {"tensorflow": found[0] if found else None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    from micfast._config import config

    values = config()
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return {
        "cpu": _cpu_name(),
        "cores": cores,
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
