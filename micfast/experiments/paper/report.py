"""The report of a reproduction: one HTML file that needs no other file and no network.

Owns what stands on the page and in which order; looks are in ``report.html.jinja``.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from micfast.io import write_text

if TYPE_CHECKING:
    import os

    import pandas as pd

    from micfast.experiments.paper.claims import Claim
    from micfast.experiments.paper.figures import FigureFile
    from micfast.experiments.paper.tables import Table

__all__ = ["write_report"]

_TEMPLATE = "report.html.jinja"
# How tables.py marks a value of the paper outside the interval.
_MARK = " *"
_NUMBER = re.compile(r"[-+[]*[\d.]|-$")
# More columns than this are set small in print.
_WIDE = 9


def write_report(
    out: str | os.PathLike[str],
    tables: Mapping[str, Table],
    figures: Sequence[FigureFile],
    claims: Sequence[Claim],
    manifest: Mapping[str, Any],
) -> Path:
    """Write ``report.html``: summary, claims, tables and figures, self-contained.

    Parameters
    ----------
    out : path-like
        Results folder.
    tables : mapping of str to Table
        As :func:`micfast.experiments.paper.tables.build_tables` gives them.
    figures : sequence of FigureFile
        As :func:`micfast.experiments.paper.figures.draw_figures` gives them; their SVG files are
        embedded.
    claims : sequence of Claim
        As :func:`micfast.experiments.paper.claims.check_claims` gives them.
    manifest : mapping
        Content of ``manifest.json``; what it lacks is left out of the report.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    OSError
        If a picture can't be read or the folder can't be written.

    Examples
    --------
    >>> write_report("results", tables, figures, claims, manifest)          # doctest: +SKIP
    PosixPath('results/report.html')
    """
    import jinja2

    from micfast.experiments.paper import published
    from micfast.experiments.paper.claims import luck

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        source=published.SOURCE,
        finished=manifest.get("finished", True),
        began=_began(manifest),
        summary=_summary(manifest),
        claims=_grouped(claims),
        verdicts=_verdicts(claims),
        tables=[_show_table(table) for table in tables.values()],
        n_outside=sum(_n_outside(table.frame) for table in tables.values()),
        luck=_show_luck(luck(tables)),
        figures=[_show_figure(figure) for figure in figures],
        skipped=_skipped(manifest),
        slips=published.slips(),
        command=_command(manifest),
        details=_details(manifest),
    )
    path = Path(out) / "report.html"
    write_text(path, page)
    return path


# -- the run -------------------------------------------------------------------------------------


def _began(manifest: Mapping[str, Any]) -> str:
    sessions = manifest.get("sessions") or []
    return str(sessions[0].get("began", ""))[:10] if sessions else ""


def _summary(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run, on what, and how long it took; in words."""
    from micfast.experiments.paper.plan import format_seconds

    settings, machine = manifest.get("settings", {}), manifest.get("machine", {})
    rows: list[tuple[str, str]] = []
    if settings.get("data"):
        rows.append(("data sets", ", ".join(settings["data"])))
    if settings.get("experiments"):
        rows.append(("experiments", ", ".join(settings["experiments"])))
    if seeds := manifest.get("seeds"):
        span = f" ({seeds[0]} to {seeds[-1]})" if len(seeds) > 1 else f" ({seeds[0]})"
        rows.append(("seeds", f"{len(seeds)}{span}"))
    if manifest.get("n_modules"):
        text = f"{manifest['n_modules']:,}"
        if manifest.get("n_not_learned"):
            text += f", of which {manifest['n_not_learned']:,} did not learn their types"
        rows.append(("modules of the grid", text))
    if machine:
        cores, threads = (
            f"{machine[name]} {name if machine[name] > 1 else name[:-1]}"
            if machine.get(name)
            else ""
            for name in ("cores", "threads")
        )
        isa = f"instructions {machine['isa']}" if machine.get("isa") else ""
        parts = (machine.get("cpu"), cores, threads, isa, machine.get("system"))
        rows.append(("machine", ", ".join(str(part) for part in parts if part)))
    if "seconds" in manifest:
        n = len(manifest.get("sessions") or [0])
        text = format_seconds(manifest["seconds"]) + (f" in {n} sessions" if n > 1 else "")
        rows.append(("time taken", text))
    if original := manifest.get("plan", {}).get("original_seconds"):
        text = (
            f"{format_seconds(original)}: the same modules and inversions one at a time in "
            "PyTorch, from rates measured on this machine"
        )
        rows.append(("the original's way", text))
    if version := manifest.get("versions", {}).get("micfast"):
        commit = f", commit {manifest['commit'][:12]}" if manifest.get("commit") else ""
        changes = " with uncommitted changes" if manifest.get("uncommitted_changes") else ""
        rows.append(("micfast", f"{version}{commit}{changes}"))
    return rows


def _skipped(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(item["what"]), str(item["why"])) for item in manifest.get("skipped", [])]


def _command(manifest: Mapping[str, Any]) -> str:
    """The command line that runs the same again."""
    from micfast.experiments.paper.settings import DATA_SETS, EXPERIMENTS

    settings = manifest.get("settings", {})
    words = ["micfast", "reproduce", "--out", "results"]
    experiments, data = settings.get("experiments"), settings.get("data")
    about = {EXPERIMENTS[name][0] for name in EXPERIMENTS if name in (experiments or EXPERIMENTS)}
    if experiments and set(experiments) != {
        name for name in EXPERIMENTS if EXPERIMENTS[name][0] in {None, *(data or DATA_SETS)}
    }:
        words += ["--only", ",".join(experiments)]
    if data and set(data) != set(DATA_SETS) and about != set(data):
        words += ["--data", ",".join(data)]
    words += ["--seeds", str(settings.get("seeds", 10))]
    if settings.get("budget", "default") != "default":
        words += ["--budget", settings["budget"]]
    for name, target in settings.get("targets", {}).items():
        if name not in DATA_SETS or tuple(target) != DATA_SETS[name].target:
            words += ["--target", ":".join(map(str, target))]
    if any(settings.get("noise", ())):
        words += ["--noise", *(f"{level:g}" for level in settings["noise"])]
    return shlex.join(words)


def _details(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Versions, data, rates and sessions as named lists; nothing else of the manifest."""
    from micfast.experiments.paper.plan import format_seconds

    found: list[tuple[str, list[tuple[str, str]]]] = []
    if versions := manifest.get("versions"):
        rows = [(name, str(version)) for name, version in versions.items() if version is not None]
        found.append(("Versions", rows))
    for name, data in manifest.get("data", {}).items():
        shapes = data.get("shapes", {})
        rows = [
            (part, f"{tuple(shapes[part])}, sha256 {digest}" if part in shapes else digest)
            for part, digest in data.get("sha256", {}).items()
        ]
        found.append((f"Data {name} (seed 0)", rows))
    for name, rates in manifest.get("rates", {}).items():
        rows = [
            (key.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
            for key, value in rates.items()
            if value is not None
        ]
        found.append((f"Rates per second {name}", rows))
    sessions = manifest.get("sessions") or []
    rows = [
        (str(s.get("began")), f"{s.get('n_units')} units, {format_seconds(s.get('seconds', 0))}")
        for s in sessions
    ]
    if rows:
        found.append(("Sessions", rows))
    return [(title, rows) for title, rows in found if rows]


# -- results -------------------------------------------------------------------------------------


def _styles() -> dict[str, str]:
    """CSS class of each verdict."""
    from micfast.experiments.paper.claims import HOLDS, NOT, OPEN

    return {HOLDS: "yes", NOT: "no", OPEN: "open"}


def _verdicts(claims: Iterable[Claim]) -> list[tuple[str, str, int]]:
    """Verdict, its CSS class, and how many claims have it."""
    verdicts = [claim.verdict for claim in claims]
    return [(name, style, verdicts.count(name)) for name, style in _styles().items()]


def _grouped(claims: Iterable[Claim]) -> list[tuple[str, list[tuple[Claim, str]]]]:
    """Claims by their text, each with the CSS class of its verdict."""
    styles = _styles()
    groups: dict[str, list[tuple[Claim, str]]] = {}
    for claim in claims:
        groups.setdefault(claim.text, []).append((claim, styles[claim.verdict]))
    return list(groups.items())


def _show_table(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "notes": table.notes,
        "n_outside": _n_outside(table.frame),
        "wide": table.shown.shape[1] > _WIDE,
        **_cells(table.shown),
    }


def _n_outside(frame: pd.DataFrame) -> int:
    """How many values of the paper lie outside our interval."""
    return int(frame["outside"].fillna(False).sum()) if "outside" in frame else 0


def _cells(shown: pd.DataFrame) -> dict[str, Any]:
    """Head and rows; of each cell its text without the mark, its CSS classes, and if it has one."""
    rows = [
        [(text.removesuffix(_MARK), text.endswith(_MARK)) for text in values]
        for values in shown.astype(str).to_numpy().tolist()
    ]
    columns = list(zip(*rows, strict=True))
    numeric = [all(_NUMBER.match(text) for text, _ in cells if text) for cells in columns]
    return {
        "head": [
            {"text": str(name), "classes": "number" * number}
            for name, number in zip(shown.columns, numeric, strict=True)
        ],
        "rows": [
            [
                {
                    "text": text,
                    "classes": " ".join(["number"] * number + ["outside"] * outside),
                    "outside": outside,
                }
                for (text, outside), number in zip(cells, numeric, strict=True)
            ]
            for cells in rows
        ],
    }


def _show_luck(frame: pd.DataFrame) -> dict[str, Any] | None:
    """The paper's overall accuracies among runs of ours, None without intervals."""
    if frame.empty:
        return None
    marks = frame["luck"].map({"as expected": ""}).fillna(_MARK)
    limits = zip(frame["run_low"], frame["run_high"], strict=True)
    settings = zip(frame["noise_in"], frame["noise_out"], strict=True)
    shown = frame[["data", "subset"]].rename(columns={"subset": "types"})
    shown = shown.assign(
        **{"noise in / out": [f"{i:g} / {o:g}" for i, o in settings]},
        ours=frame["ours"].map("{:.3f}".format),
        **{"one run of ours": [f"[{low:.3f}, {high:.3f}]" for low, high in limits]},
        paper=frame["paper"].map("{:.3f}".format) + marks,
        **{"the paper's run": frame["luck"]},
    )
    counts = frame["luck"].value_counts()
    above, below = int(counts.get("lucky", 0)), int(counts.get("unlucky", 0))
    return {"n": len(frame), "above": above, "below": below} | _cells(shown)


def _show_figure(figure: FigureFile) -> dict[str, str]:
    image = base64.b64encode(figure.svg.read_bytes()).decode("ascii")
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "alt": figure.alt,
        "source": f"data:image/svg+xml;base64,{image}",
    }
