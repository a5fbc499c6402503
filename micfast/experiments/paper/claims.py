"""The paper's claims, each put to the test on the raw results of ``micfast reproduce``.

Every verdict is computed from the results. The paper gives one run for each figure; here a claim
holds if the 95 % interval over seeds of the difference it speaks of lies on its side of 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.experiments.paper import published, statistics
from micfast.experiments.paper.raw import RawResults, forward_method, held_out_best, minima
from micfast.experiments.paper.tables import Table, glm_runs, joint_test_texts, markdown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HOLDS", "NOT", "OPEN", "Claim", "check_claims", "claims_markdown", "luck"]

HOLDS, NOT, OPEN = "holds", "does not hold", "not decided"
_SIGNIFICANT = 0.05
_DATA = ("mnist", "characters")
_TYPES = ("clustered", "random")
_FACTORS = {"noise_in": "Input", "noise_out": "Output"}


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what became of it.

    Attributes
    ----------
    name : str
        Short and unique.
    section : str
        Where the paper makes it.
    text : str
    data : str
        Data set and types it is tested on.
    paper, ours : str
        Figures, ours with the interval over seeds.
    verdict : {"holds", "does not hold", "not decided"}
    remark : str
        Where the paper's single run lies among ours, and what else one should know; may be empty.
    estimate, low, high : float
        The difference tested and its 95 % interval; NaN where the claim isn't one of a difference.
    n_seeds : int
    percentile : float
        Of the paper's difference among runs of ours, in per cent; NaN if not known.
    """

    name: str
    section: str
    text: str
    data: str
    paper: str
    ours: str
    verdict: str
    remark: str = ""
    estimate: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n_seeds: int = 0
    percentile: float = np.nan


def check_claims(results: RawResults) -> list[Claim]:
    """Test every claim that the raw results allow, in the paper's order."""
    tests = (_cross, _clustered, _noise, _glm, _best_noise, _iterations, _forward, _full)
    return [claim for test in tests for claim in test(results)]


def _verdict(low: float, high: float) -> str:
    if low > 0:
        return HOLDS
    return NOT if high < 0 else OPEN


def _difference(
    name: str,
    section: str,
    text: str,
    data: str,
    values: pd.Series,
    paper: float,
    remark: str = "",
    as_paper: pd.Series | None = None,
) -> Iterator[Claim]:
    """A claim that a difference is positive; ``values``: ours, one per seed.

    The paper's run is placed among ``as_paper``, where that isn't the same as ``values``.
    """
    if not len(values):
        return
    interval = statistics.mean_interval(values)
    among = values if as_paper is None else as_paper
    percentile = statistics.prediction_percentile(among, paper)
    remarks = [remark] if remark else []
    if interval.n == 1:
        remarks.append("one seed: no interval")
    if np.isfinite(percentile):
        remarks.append(f"the paper's run: {_place(percentile)}")
    yield Claim(
        name,
        section,
        text,
        data,
        f"{paper:+.3f}",
        _signed(interval),
        _verdict(interval.low, interval.high),
        "; ".join(remarks),
        *interval,
        percentile,
    )


def _signed(interval: statistics.Interval) -> str:
    text = f"{interval.estimate:+.3f}"
    if np.isfinite([interval.low, interval.high]).all():
        text += f" [{interval.low:+.3f}, {interval.high:+.3f}]"
    return text


def _place(percentile: float) -> str:
    """Tell where among runs of ours a single run lies."""
    place = f"percentile {percentile:.0f} of ours"
    if percentile > 97.5:
        return f"{place}, outside the 95 % interval of one run (lucky)"
    if percentile < 2.5:
        return f"{place}, outside the 95 % interval of one run (unlucky)"
    return place


# -- 3.4 ---------------------------------------------------------------------------------------


def _cross(results: RawResults) -> Iterator[Claim]:
    for data, cross in results.cross.items():
        for part in ("train", "test"):
            labels, diagonal = np.array(cross.labels), np.arange(len(cross.labels))
            # A column (one class): the module that draws it best; a row (one module): the class
            # that it draws best. Only the first matters to classification.
            misses: list[str] = []
            counts: list[int] = []
            for axis, words in (
                (0, "class {} is drawn best by module {}"),
                (1, "module {} draws class {} best"),
            ):
                best = minima(getattr(cross, part), axis)
                counts.append(int((best == diagonal).sum()))
                away = (best != diagonal) & (best >= 0)
                misses += map(words.format, labels[away], labels[best[away]])
            n = len(diagonal)
            yield Claim(
                f"cross-{part}-{data}",
                "3.4, Figure 7",
                "Each class is reconstructed best by its own module, and each module "
                "reconstructs its own class best",
                f"{data}, {part}",
                "figure only",
                f"{counts[0]} of {n} classes, {counts[1]} of {n} modules",
                HOLDS if counts == [n, n] else NOT,
                "; ".join([*misses, "one seed"]),
                n_seeds=1,
            )


# -- 4.1, 4.2 ----------------------------------------------------------------------------------


def _clustered(results: RawResults) -> Iterator[Claim]:
    paper = published.accuracy_by_types().set_index(["data", "subset"])["accuracy"]
    for data in _DATA:
        clustered, random = (results.base(data, subset) for subset in _TYPES)
        yield from _difference(
            f"clustered-{data}",
            "4.1, Table 1",
            "Clustered types give a higher accuracy than random ones",
            data,
            (clustered - random).dropna(),
            paper[data, "clustered"] - paper[data, "random"],
        )


def _noise(results: RawResults) -> Iterator[Claim]:
    for factor, word in _FACTORS.items():
        for data, subset in published.CELLS:
            grid = results.grid(data, subset).dropna()
            theirs = published.noise_grid(data, subset)
            theirs_noisy = theirs[factor] > 0
            if grid.columns.get_level_values(factor).nunique() < 2:
                continue
            yield from _difference(
                f"{factor.replace('_', '-')}-{data}-{subset}",
                f"4.2, Table {published.GRID_TABLES[data, subset]}",
                f"{word} noise raises the accuracy (mean of the settings with it minus without)",
                f"{data}, {subset}",
                _noise_gain(grid, factor),
                theirs["overall"][theirs_noisy].mean() - theirs["overall"][~theirs_noisy].mean(),
            )


def _noise_gain(grid: pd.DataFrame, factor: str) -> pd.Series:
    noisy = grid.columns.get_level_values(factor) > 0
    return grid.loc[:, noisy].mean(axis=1) - grid.loc[:, ~noisy].mean(axis=1)


def _glm(results: RawResults) -> Iterator[Claim]:
    for data, subset, grid in _glm_grids(results):
        theirs = published.noise_glm(data, subset)
        settings = grid.columns.to_frame(index=False)
        fit = statistics.accuracy_glm(settings.assign(accuracy=grid.mean().to_numpy()))
        p = _smallest_p(fit.table)
        yield Claim(
            f"glm-accuracies-{data}-{subset}",
            f"4.2, Table {published.GLM_TABLES[data, subset]}",
            "A GLM on the nine accuracies finds no significant effect of noise",
            f"{data}, {subset}",
            f"smallest p {_smallest_p(theirs):.3f}",
            f"smallest p {p:.3f}",
            HOLDS if p >= _SIGNIFICANT else NOT,
            "each accuracy counts as one trial, so hardly any effect could be significant",
            n_seeds=len(grid),
        )
    for data, subset, _ in _glm_grids(results):
        fit = statistics.count_glm(glm_runs(results, data, subset))
        # Two tests, one claim: Bonferroni.
        level = _SIGNIFICANT / len(fit.tests)
        significant = fit.n_groups > 1 and bool((fit.tests["p"] < level).any())
        remark = (
            ""
            if significant
            else f"no p below {level:g} (Bonferroni), which is no proof of no effect"
        )
        yield Claim(
            f"glm-counts-{data}-{subset}",
            f"4.2, Table {published.GLM_TABLES[data, subset]}",
            "Noise has no effect (the same GLM on all counts, errors clustered by seed)",
            f"{data}, {subset}",
            f"smallest p {_smallest_p(published.noise_glm(data, subset)):.3f}",
            "; ".join(joint_test_texts(fit)),
            NOT if significant else OPEN,
            "one seed: how seeds differ is not known" if fit.n_groups == 1 else remark,
            n_seeds=fit.n_groups,
        )


def _glm_grids(results: RawResults) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for data, subset in published.CELLS:
        grid = results.grid(data, subset).dropna()
        levels = [grid.columns.get_level_values(name).nunique() for name in _FACTORS]
        # More settings than terms, and two levels or more of both.
        if len(grid) and min(levels) > 1 and grid.shape[1] >= sum(levels):
            yield data, subset, grid


def _smallest_p(table: pd.DataFrame) -> float:
    return float(table.loc[table["term"] != "Intercept", "p"].min())


def _best_noise(results: RawResults) -> Iterator[Claim]:
    for data, subset in published.CELLS:
        grid = results.grid(data, subset).dropna()
        if grid.shape[1] < 2 or (0.0, 0.0) not in grid:
            continue
        theirs = published.noise_grid(data, subset)["overall"]
        base = grid[(0.0, 0.0)]
        values = (held_out_best(grid) - base).dropna()
        if not len(values):
            continue
        as_paper = grid.max(axis=1) - base
        yield from _difference(
            f"best-noise-{data}-{subset}",
            "4.2, Table 6",
            "The best noise setting gives a higher accuracy than none",
            f"{data}, {subset}",
            values,
            theirs.max() - theirs[0],
            "setting chosen on the other seeds; chosen on the test sequences, as in the paper: "
            f"{_signed(statistics.mean_interval(as_paper))}",
            as_paper,
        )


# -- 4.2.1, 4.2.2 ------------------------------------------------------------------------------


def _iterations(results: RawResults) -> Iterator[Claim]:
    paper = published.iterations()
    n_iter = results.n_iter
    for value, text, sign in (
        ("accuracy", "raise the accuracy", 1),
        ("mse", "lower the error of the true class's module", -1),
    ):
        for data, subset in published.CELLS:
            after, before = (results.grid(data, subset, n_iter=n, value=value) for n in (n_iter, 0))
            gains = (sign * (after - before)).dropna()
            theirs = paper[(paper["data"] == data) & (paper["subset"] == subset)]
            each = [statistics.mean_interval(gains[setting]) for setting in gains if len(gains)]
            clear = sum(interval.low > 0 for interval in each)
            yield from _difference(
                f"iterations-{value}-{data}-{subset}",
                "4.2.1, Tables 4 and 13",
                f"{n_iter} iterations {text} against 0 (mean of all noise settings)",
                f"{data}, {subset}",
                gains.mean(axis=1),
                float((sign * (theirs[f"{value}_50"] - theirs[f"{value}_0"])).mean()),
                f"clear in {clear} of {len(each)} settings taken alone" if len(gains) > 1 else "",
            )


def _forward(results: RawResults) -> Iterator[Claim]:
    method = forward_method(results)
    mic = published.accuracy_by_types().set_index(["data", "subset"])["accuracy"]
    theirs = published.forward().set_index(["data", "subset"])["accuracy"]
    for data, subset in published.CELLS:
        ours = results.base(data, subset)
        forward = results.method(method, data, subset)["accuracy"]
        yield from _difference(
            f"forward-{data}-{subset}",
            "4.2.2, Tables 5 and 6",
            "With 4 types per class MIC without noise beats the forward LSTM",
            f"{data}, {subset}",
            (ours - forward).dropna(),
            mic[data, subset] - theirs[data, subset],
            method,
        )


def _full(results: RawResults) -> Iterator[Claim]:
    method = forward_method(results)
    mic = published.accuracy_by_types().set_index(["data", "subset"])["accuracy"]
    theirs = published.forward().set_index(["data", "subset"])["accuracy"]
    for data in _DATA:
        full = results.method(method, data, "full")
        for name, other, paper in (
            ("MIC", results.base(data, "clustered"), mic[data, "clustered"]),
            (
                "the forward LSTM",
                results.method(method, data, "clustered")["accuracy"],
                theirs[data, "clustered"],
            ),
        ):
            name = f"{name} on 4 clustered types per class"
            key = f"full-{'mic' if name.startswith('MIC') else 'forward'}-{data}"
            text = f"The forward LSTM on all training data beats {name}"
            section, gain = "4.2.2, Tables 5 and 6", theirs[data, "full"] - paper
            if len(full) == 1 and len(other) > 1:
                run = full.iloc[0]
                interval = statistics.compare_with_single(other, run["n_correct"], run["n_test"])
                yield Claim(
                    key,
                    section,
                    text,
                    data,
                    f"{gain:+.3f}",
                    _signed(interval),
                    _verdict(interval.low, interval.high),
                    f"{method}; one run on all data (Wilson) against {interval.n} seeds",
                    *interval,
                )
            else:
                difference = (full["accuracy"] - other).dropna()
                yield from _difference(key, section, text, data, difference, gain, method)


# -- the text ----------------------------------------------------------------------------------


def luck(tables: Mapping[str, Table]) -> pd.DataFrame:
    """Where the paper's overall accuracies lie among runs of ours.

    Returns
    -------
    pandas.DataFrame
        One row per noise setting of Tables 2, 7, 8, 9 with two or more seeds: data, subset,
        noise_in, noise_out, paper, ours, run_low, run_high (95 % prediction interval of one run),
        percentile, and ``luck``: "lucky", "unlucky" or "as expected".
    """
    import pandas as pd

    names = [f"table{number}" for number in published.GRID_TABLES.values()]
    frames = [tables[name].frame.query("label == 'overall'") for name in names if name in tables]
    columns = ["data", "subset", "noise_in", "noise_out", "paper", "ours", "run_low", "run_high"]
    columns += ["percentile", "outside"]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    frame = frame.loc[frame["outside"].notna(), columns]
    outside, above = frame.pop("outside").astype(bool), frame["paper"] > frame["run_high"]
    words = np.where(outside, np.where(above, "lucky", "unlucky"), "as expected")
    return frame.assign(luck=words)


def claims_markdown(
    results: RawResults,
    tables: Mapping[str, Table],
    claims: Sequence[Claim],
    manifest: Mapping[str, Any],
) -> str:
    """The text of ``docs/reproduction.md``.

    Parameters
    ----------
    results, tables, claims
        The raw results, and what ``build_tables`` and :func:`check_claims` made of them.
    manifest : mapping
        Content of ``manifest.json``; its commit, versions and machine are named if they are there.
    """
    sections = [
        _introduction(results, manifest),
        _claims_section(claims),
        _luck_section(luck(tables)),
        _beyond_section(tables.get("beyond")),
        _unmatched_section(),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _introduction(results: RawResults, manifest: Mapping[str, Any]) -> str:
    n_seeds = results.runs["seed"].nunique()
    lines = [
        "# The paper, reproduced",
        "",
        f"{published.SOURCE}. Each figure of the paper is one run; ours are means over {n_seeds} "
        f"seed{'' if n_seeds == 1 else 's'} with 95 % intervals. A seed draws types, weights, "
        "training noise and (characters) the split into training and test part anew; the MNIST "
        "test images are the same for all. Made by `micfast reproduce`.",
    ]
    facts: dict[str, Any] = {n: manifest.get(n) for n in ("commit", "versions", "machine")}
    if seconds := manifest.get("seconds"):
        facts["time"] = f"{seconds / 60:.0f} min"
        if original := manifest.get("plan", {}).get("original_seconds"):
            facts["time"] += (
                f"; the same modules and inversions the original's way, from rates measured "
                f"in this run: {original / 86400:.1f} days"
            )
    lines += [
        f"- {name}: {_plain(value)}" if i else f"\n- {name}: {_plain(value)}"
        for i, (name, value) in enumerate((n, v) for n, v in facts.items() if v)
    ]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        known = {key: item for key, item in value.items() if item is not None}
        return ", ".join(f"{key} {_plain(item)}" for key, item in known.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return str(value)


def _claims_section(claims: Sequence[Claim]) -> str:
    import pandas as pd

    if not claims:
        return ""
    counts = ", ".join(
        f"{verdict} {sum(claim.verdict == verdict for claim in claims)}"
        for verdict in (HOLDS, NOT, OPEN)
    )
    columns = ["text", "section", "data", "paper", "ours", "verdict", "remark"]
    frame = pd.DataFrame(claims)[columns].rename(columns={"text": "claim", "section": "where"})
    repeated = frame["claim"].eq(frame["claim"].shift())
    frame.loc[repeated, "claim"] = ""
    return (
        "## Claims\n\n"
        f"Verdicts of {len(claims)} tests: {counts}. A difference holds if its 95 % t interval "
        "over seeds, paired by seed, is above 0, does not hold if below, and is not decided "
        "otherwise. No correction is made for the number of claims.\n\n" + markdown(frame)
    )


def _luck_section(frame: pd.DataFrame) -> str:
    if frame.empty:
        return ""
    settings = zip(frame["noise_in"], frame["noise_out"], strict=True)
    limits = zip(frame["run_low"], frame["run_high"], strict=True)
    shown = frame[["data", "subset"]].rename(columns={"subset": "types"})
    shown = shown.assign(
        **{"noise in/out": [f"{i:g}/{o:g}" for i, o in settings]},
        paper=frame["paper"].map("{:.3f}".format),
        ours=frame["ours"].map("{:.3f}".format),
        **{"one run of ours": [f"[{low:.3f}, {high:.3f}]" for low, high in limits]},
        percentile=[f"{value:.0f}" if value >= 0 else "-" for value in frame["percentile"]],
        **{"": frame["luck"].replace("as expected", "")},
    )
    counts = frame["luck"].value_counts()
    return (
        "## Lucky and unlucky runs\n\n"
        "The paper's overall accuracies against the 95 % prediction interval of one run of ours: "
        f"{counts.get('lucky', 0)} of {len(frame)} above it (lucky), {counts.get('unlucky', 0)} "
        f"below (unlucky); {0.05 * len(frame):.1f} would be outside by chance. Runs that lie "
        "outside together speak of a difference in data or types rather than of luck.\n\n"
        + markdown(shown)
    )


def _beyond_section(table: Table | None) -> str:
    if table is None:
        return ""
    notes = "\n".join(f"- {note}" for note in table.notes)
    return f"## {table.title}\n\n{table.caption}\n\n{markdown(table.shown)}\n\n{notes}"


def _unmatched_section() -> str:
    causes, slips = (
        "\n".join(f"- {text}" for text in texts)
        for texts in (published.unmatched(), published.slips())
    )
    return (
        "## What could not be matched, and the likely cause\n\n"
        f"{causes}\n\n## Slips of the paper\n\n{slips}"
    )
