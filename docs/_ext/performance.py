"""Sphinx extension: the performance pages, made from ``bench/results/*.json`` at build time.

Every figure there comes from the samples in those files, through ``bench.report``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# What one asks of each suite; the order is that of the pages.
QUESTIONS = {
    "inversion": "The two whole inversion jobs of the paper, done in several ways",
    "training": "Fleets of modules at batch size 1",
    "latency": "One target, a few, many",
    "solvers": "How low an error each way to search reaches in what time",
    "scaling": "Time against targets, hidden units and steps",
    "memory": "Peak memory of a job; a million targets streamed from a file",
    "load": "A million targets from a file: pace and memory, tenth by tenth",
}


def summary(results: dict[str, dict[str, Any]], report: Any) -> list[str]:
    """Tables of the whole jobs: each way's time, and how many times of micfast's that is."""
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
            lines += [f"| {case} | time of the whole job | of micfast's |", "| --- | ---: | ---: |"]
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
        "These pages are made from the samples in `bench/results` when the site is built: no "
        "number is typed by hand. "
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}; PyTorch "
        f"{own['versions']['torch']}, JAX {own['versions']['jax']}. Speed was measured on CPUs of "
        "this one kind; nothing is claimed for others, or for GPUs. `python -m bench run --suite "
        "all` measures yours.",
        "",
        "Each way does the same work: its results are held against the reference before it gets a "
        "time. Medians of whole jobs; the pages below have quartiles, sizes and remarks.",
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
