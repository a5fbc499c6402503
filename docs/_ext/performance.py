"""Sphinx extension: performance pages, made from ``bench/results/*.json`` at build time.

All numbers come from the samples in those files, through ``bench.report``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# What each suite measures, in the order of the pages.
QUESTIONS = {
    "inversion": "The paper's two inversion jobs in several implementations",
    "drop-in": "The drop-in beside the loop it replaces, by sizes and structures",
    "training": "Training many modules at batch size 1",
    "latency": "Latency for one target, a few, and many",
    "solvers": "Error against time for every solver and start",
    "learning": "What modules learn, by the default training and the paper's",
    "sinusoids": "Where each training stops: sums of sinusoids, by length and number",
    "fits": "Whole fits: types, training and calibration, beside the paper's training and JAX",
    "scaling": "Time against the numbers of targets, hidden units and steps",
    "memory": "Peak memory of a job; a million targets streamed from a file",
    "dask": "Letters from a Zarr store on Dask's workers, beside the same call in memory",
    "load": "A million targets from a file: pace and memory over the run",
}


def summary(results: dict[str, dict[str, Any]], report: Any) -> list[str]:
    """Tables of the whole jobs: the time of each implementation, and its ratio to micfast's."""
    lines: list[str] = []
    for suite in ("inversion", "training"):
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in results[suite]["rows"]:
            if row["status"] == "ok":
                groups.setdefault(row["case"]["id"], []).append(row)
        for case, rows in groups.items():
            own = next((row for row in rows if row["peer"] == "micfast"), None)
            if own is None or len(rows) < 2:
                continue
            lines += [
                f"| {case} | time of the whole job | relative to micfast |",
                "| --- | ---: | ---: |",
            ]
            for row in sorted(rows, key=lambda row: report.seconds(row)[1]):
                time = report.seconds(row)[1]
                ratio = time / report.seconds(own)[1]
                ratio = f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2g}x"
                seconds = f"{time:.3g}" if time < 1000 else f"{time:.0f}"
                lines.append(f"| {row['label']} | {seconds} s | {ratio} |")
            lines.append("")
    return lines


def write_pages(app: Any) -> None:
    """Write ``performance/*.md`` and their pictures into the source folder."""
    sys.path.insert(0, str(Path(app.srcdir).parent))
    os.environ.setdefault("MPLBACKEND", "agg")
    from bench import report
    from bench.run import load

    folder = Path(app.srcdir) / "performance"
    folder.mkdir(exist_ok=True)
    stored = Path(app.srcdir).parent / "bench" / "results"
    results = {path.stem: load(path) for path in sorted(stored.glob("*.json"))}
    if unknown := set(results) ^ set(QUESTIONS):
        raise RuntimeError(f"bench/results and QUESTIONS differ in {sorted(unknown)}")
    for suite in QUESTIONS:
        page = report.markdown(results[suite])
        figure = report.plot(results[suite])
        if figure is not None:
            figure.savefig(folder / f"{suite}.png", dpi=160)
            title, _, rest = page.partition("\n")
            page = f"{title}\n\n![{QUESTIONS[suite]}]({suite}.png)\n{rest}"
        (folder / f"{suite}.md").write_text(page, encoding="utf-8")
    own = results["inversion"]
    machine = own["machine"]
    parts = [
        "# Performance",
        "",
        "These pages are made from the samples in `bench/results` when the site is built; no "
        "number is typed by hand. "
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}; PyTorch "
        f"{own['versions']['torch']}, JAX {own['versions']['jax']}. Speed was measured on this "
        "kind of CPU only, not on others and not on GPUs. `python -m bench run --suite all` "
        "measures yours.",
        "",
        "All implementations do the same job; each is timed only after its results were compared "
        "with the reference. Times are medians of whole jobs; the pages below have quartiles, "
        "sizes and remarks.",
        "",
        *summary(results, report),
        "```{toctree}",
        ":maxdepth: 1",
        "",
        *(f"{question} <{suite}>" for suite, question in QUESTIONS.items()),
        "```",
    ]
    (folder / "index.md").write_text("\n".join(parts) + "\n", encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
