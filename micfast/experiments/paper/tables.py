"""The paper's tables, ours beside its own, from the raw results of ``micfast reproduce``.

Decides what is compared with what; numbers of the paper come from ``published``, intervals and fits
from ``statistics``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.experiments.paper import published, statistics
from micfast.experiments.paper.raw import (
    NOISE,
    RawResults,
    forward_method,
    held_out_best,
    no_runs,
)
from micfast.experiments.paper.settings import DEFAULT_TRAINING
from micfast.io import write_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "build_tables", "glm_runs", "joint_test_texts", "markdown", "write_tables"]

# The paper prints three digits: its value is anywhere within half of the last one.
_ROUNDING = 0.0005
_ACCURACY, _MSE, _ANY = (0.0, 1.0), (0.0, np.inf), (-np.inf, np.inf)
_SUBSETS = ("clustered", "random")
_FACTORS = {"noise_in": "input noise", "noise_out": "output noise"}

_NOTES = (
    "Ours: mean over seeds with its 95 % t interval; the paper: one run.",
    "* marks a value of the paper outside the 95 % prediction interval of one run (one more seed "
    "of ours, t distribution; where all our seeds agree, the Wilson interval of one run). By "
    "chance alone about one in twenty is marked.",
)
_ONE_SEED = "Some cells rest on one seed: they have no interval, and nothing in them is marked."


@dataclass(frozen=True)
class Table:
    """One table, as numbers and as it is shown.

    Attributes
    ----------
    name : str
        "table1" to "table13", or "beyond".
    title, caption : str
    frame : pandas.DataFrame
        The numbers, one row per value compared; what the CSV file holds.
    notes : list of str
        How to read it, slips of the paper, what is missing.
    shown : pandas.DataFrame
        The same for readers: strings, laid out as the paper has them; the Markdown file.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    notes: list[str]
    shown: pd.DataFrame


# -- comparing ---------------------------------------------------------------------------------


def _beside(
    values: Iterable[float],
    paper: float,
    bounds: tuple[float, float],
    n_test: float = np.nan,
    rounding: float = _ROUNDING,
) -> dict[str, Any]:
    """Our values, one per seed, beside the paper's one run."""
    x = np.asarray(list(values), dtype=np.float64)
    x = x[np.isfinite(x)]  # a module that diverged has no MSE
    if not len(x):
        blank = dict.fromkeys(("ours", "ci_low", "ci_high", "run_low", "run_high"), np.nan)
        return {"paper": paper, **blank, "n_seeds": 0, "percentile": np.nan, "outside": None}
    mean = statistics.mean_interval(x)
    run = statistics.prediction_interval(x)
    if len(x) > 1 and np.ptp(x) == 0 and bounds == _ACCURACY and n_test >= 1:
        run = statistics.wilson_interval(x[0] * int(n_test), int(n_test))
    run_low, run_high, ci_low, ci_high = np.clip((run.low, run.high, mean.low, mean.high), *bounds)
    outside = None
    if len(x) > 1 and np.isfinite(paper):
        outside = bool(paper + rounding < run_low or paper - rounding > run_high)
    return {
        "paper": paper,
        "ours": mean.estimate,
        "ci_low": ci_low,
        "ci_high": ci_high,
        "run_low": run_low,
        "run_high": run_high,
        "n_seeds": len(x),
        "percentile": statistics.prediction_percentile(x, paper),
        "outside": outside,
    }


def _lookup(frame: pd.DataFrame, keys: Sequence[str], value: str) -> dict[tuple[Any, ...], float]:
    """The paper's values by their keys."""
    return frame.set_index(list(keys))[value].to_dict()


# -- showing -----------------------------------------------------------------------------------


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def _interval(low: float, high: float, digits: int = 3) -> str:
    if not np.isfinite([low, high]).all():
        return ""
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def _cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with noise levels as text, and columns ``shown`` (ours) and ``printed``."""
    level = {name: frame[name].map("{:g}".format) for name in NOISE if name in frame}
    limits = zip(frame["ours"], frame["ci_low"], frame["ci_high"], strict=True)
    marks = frame["outside"].map({True: " *", False: ""}).fillna("")
    return frame.assign(
        **level,
        shown=[f"{_number(ours)} {_interval(low, high)}".strip() for ours, low, high in limits],
        printed=frame["paper"].map(_number) + marks.astype(str),
    )


def _show_rows(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One line per value: keys, ours, interval of one run, the paper's and its percentile."""
    cells = _cells(frame)
    runs = zip(frame["run_low"], frame["run_high"], strict=True)
    return cells[list(keys)].assign(
        ours=cells["shown"],
        **{"one run": [_interval(low, high) for low, high in runs]},
        paper=cells["printed"],
        percentile=[_number(value, 0) for value in frame["percentile"]],
        seeds=frame["n_seeds"].astype(str),
    )


def _show_wide(frame: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Two columns, ours and the paper's, for each value of ``column``."""
    cells = _cells(frame)
    cells[list(keys)] = cells[list(keys)].astype(str)
    wide = cells.pivot_table(
        index=list(keys), columns=column, values=["shown", "printed"], aggfunc="first", sort=False
    )
    columns = {}
    for name in frame[column].unique():
        columns[name], columns[f"{name}, paper"] = wide["shown", name], wide["printed", name]
    return wide.iloc[:, :0].droplevel(0, axis=1).assign(**columns).fillna("").reset_index()


def _show_grid(frame: pd.DataFrame) -> pd.DataFrame:
    """Three lines per noise setting: ours, the interval, the paper's."""
    import pandas as pd

    limits = zip(frame["ci_low"], frame["ci_high"], strict=True)
    cells = _cells(frame).assign(
        ours=frame["ours"].map(_number),
        interval=[_interval(low, high, 2) for low, high in limits],
    )
    cells.loc[frame["paper"].isna(), "printed"] = ""
    lines = []
    for setting, group in cells.groupby(NOISE, sort=False):
        rows = zip(
            [dict(zip(NOISE, setting, strict=True)), *[dict.fromkeys(NOISE, "")] * 2],
            ("ours", "95 %", "paper"),
            ("ours", "interval", "printed"),
            strict=True,
        )
        lines += [
            keys | {"": name} | dict(zip(group["label"], group[column], strict=True))
            for keys, name, column in rows
        ]
    return pd.DataFrame(lines).fillna("")


def markdown(frame: pd.DataFrame) -> str:
    """A frame of strings as a Markdown table, without a line break at its end."""
    return frame.to_markdown(index=False, disable_numparse=True)


# -- the tables --------------------------------------------------------------------------------


def build_tables(results: RawResults) -> dict[str, Table]:
    """Build every table that the raw results allow.

    Returns
    -------
    dict of str to Table
        By name, in the paper's order. The tables of a noise grid need two noise settings or more.
    """
    built = [build(results) for build in (_table_1, _table_4, _table_5, _table_6, _table_13)]
    for cell in published.CELLS:
        built += [_grid_table(results, *cell), _glm_table(results, *cell)]
    built.append(_beyond(results))
    tables = [table for table in built if table is not None]
    tables.sort(key=lambda table: int(table.name[5:]) if table.name.startswith("table") else 99)
    return {table.name: table for table in tables}


def write_tables(tables: Mapping[str, Table], folder: str | os.PathLike[str]) -> None:
    """Write each table as CSV (the numbers) and Markdown (as shown, with caption and notes)."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        numbers = table.frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_text(target / f"{name}.csv", numbers)
        notes = "".join(f"- {note}\n" for note in table.notes)
        text = f"# {table.title}\n\n{table.caption}\n\n{markdown(table.shown)}\n\n{notes}"
        write_text(target / f"{name}.md", text)


def _table(
    number: int,
    title: str,
    caption: str,
    rows: list[dict[str, Any]],
    show: Callable[[pd.DataFrame], pd.DataFrame],
    notes: Sequence[str] = (),
) -> Table | None:
    import pandas as pd

    if not rows:
        return None
    frame = pd.DataFrame(rows).astype({"outside": "boolean"})
    one_seed = [_ONE_SEED] if (frame["n_seeds"] == 1).any() else []
    every = [*_NOTES, *notes, *one_seed, *published.slips(number)]
    return Table(f"table{number}", f"Table {number}: {title}", caption, frame, every, show(frame))


def _table_1(results: RawResults) -> Table | None:
    paper = _lookup(published.accuracy_by_types(), ["data", "subset"], "accuracy")
    rows = []
    for data, subset in published.CELLS:
        values = results.base(data, subset)
        if len(values):
            beside = _beside(values, paper[data, subset], _ACCURACY, _n_test(results, data))
            rows.append({"data": data, "subset": subset, **beside})
    return _table(
        1,
        "clustered and random types",
        "Accuracy without noise (section 4.1).",
        rows,
        lambda frame: _show_rows(frame, ["data", "subset"]),
    )


def _n_test(results: RawResults, data: str) -> float:
    n_test = results.runs.loc[results.runs["data"] == data, "n_test"]
    return float(n_test.median()) if len(n_test) else np.nan


def _grid_table(results: RawResults, data: str, subset: str) -> Table | None:
    overall = results.grid(data, subset)
    if overall.shape[1] < 2:
        return None
    classes = results.classes.query("data == @data and subset == @subset")
    n_test = {"overall": _n_test(results, data)}
    n_test |= classes.groupby("label")["n_test"].median().to_dict()
    grids = {"overall": overall} | results.class_grids(data, subset)
    printed = published.noise_grid(data, subset)
    paper = {label: _lookup(printed, NOISE, label) for label in grids if label in printed}
    rows = []
    for setting in overall.columns:
        keys = {"data": data, "subset": subset, **dict(zip(NOISE, setting, strict=True))}
        for label, grid in grids.items():
            theirs = paper.get(label, {}).get(setting, np.nan)
            beside = _beside(grid.get(setting, []), theirs, _ACCURACY, n_test[label])
            rows.append({**keys, "label": label, **beside})
    return _table(
        published.GRID_TABLES[data, subset],
        f"noise, {data}, {subset} types",
        f"Accuracy, overall and per class, after {results.n_iter} iterations (section 4.2).",
        rows,
        _show_grid,
        ["95 %: interval of our mean. Beside the paper's value stands no interval: it is one run."],
    )


def _glm_table(results: RawResults, data: str, subset: str) -> Table | None:
    import pandas as pd

    grid = results.grid(data, subset).dropna()
    # As many settings as terms leave nothing over that the fit could be measured by.
    if not len(grid) or grid.shape[1] <= _n_terms(grid):
        return None
    number, paper = published.GLM_TABLES[data, subset], published.noise_glm(data, subset)
    refit = statistics.accuracy_glm(published.noise_grid(data, subset), "overall")
    settings = grid.columns.to_frame(index=False)
    mean = statistics.accuracy_glm(settings.assign(accuracy=grid.mean().to_numpy()))
    each = pd.DataFrame(
        [
            statistics.accuracy_glm(settings.assign(accuracy=row)).table.set_index("term")["coef"]
            for row in grid.to_numpy()
        ]
    )
    counts = statistics.count_glm(glm_runs(results, data, subset))
    frame = pd.concat(
        [
            paper.assign(fit="paper", **_goodness(refit, with_dispersion=False)),
            mean.table.assign(fit="ours, accuracies", **_goodness(mean, with_dispersion=False)),
            counts.table.assign(fit="ours, counts", **_goodness(counts)),
        ],
        ignore_index=True,
    )
    # The paper's coefficient among those of our single runs, each fitted its way.
    for i in frame.index[frame["fit"] == "paper"]:
        term = frame.loc[i, "term"]
        if term in each:
            beside = _beside(each[term], frame.loc[i, "coef"], _ANY, rounding=5e-5)
            for name in ("run_low", "run_high", "n_seeds", "percentile", "outside"):
                frame.loc[i, name] = beside[name]
    frame.insert(0, "data", data)
    frame.insert(1, "subset", subset)
    frame.insert(2, "fit", frame.pop("fit"))
    frame = frame.astype({"outside": "boolean"})
    notes = [
        "Paper: as printed; its nine accuracies, refitted here, give these figures, and the "
        "deviance.",
        f"Ours, accuracies: the paper's way, on the means over {_seeds(len(grid))}. Each "
        "accuracy counts as a single trial there: no difference of this size can be significant.",
        "Ours, counts: successes out of all test sequences, a row per seed and setting. Robust: "
        "clustered by seed.",
        "* marks a coefficient of the paper outside the 95 % prediction interval of one run of "
        "ours, fitted the paper's way.",
        f"Deviance: paper {refit.deviance:.4f}, ours {mean.deviance:.4f} (df {mean.df_resid}); "
        f"counts {counts.deviance:.1f} (df {counts.df_resid}, null {counts.null_deviance:.1f}), "
        f"dispersion {counts.dispersion:.2f}.",
        *(f"Counts: {text}." for text in joint_test_texts(counts)),
        *published.slips(number),
    ]
    return Table(
        f"table{number}",
        f"Table {number}: GLM of noise, {data}, {subset} types",
        "Binomial GLM with logit link of accuracy on indicators of the noise levels (section 4.2).",
        frame,
        notes,
        _show_glm(frame),
    )


def glm_runs(results: RawResults, data: str, subset: str) -> pd.DataFrame:
    """The rows that :func:`statistics.count_glm` fits: full inversions, seeds with all settings."""
    runs, complete = results.runs, results.grid(data, subset).dropna().index
    return runs[
        (runs["data"] == data)
        & (runs["subset"] == subset)
        & (runs["n_iter"] == results.n_iter)
        & runs["seed"].isin(complete)
    ]


def joint_test_texts(fit: statistics.BinomialFit) -> list[str]:
    """Tell the joint tests of input and output noise in words."""
    texts = []
    for row in fit.tests.to_dict("records"):
        robust = np.isfinite(row["df_denom"])
        degrees = f"({row['df']}, {row['df_denom']:.0f})" if robust else f"({row['df']})"
        name, errors = ("F", "robust errors") if robust else ("chi2", "model-based errors")
        p = "p not known with so few seeds" if np.isnan(row["p"]) else _p(row["p"])
        texts.append(
            f"{_FACTORS[row['factor']]}, all levels at once: {name}{degrees} = "
            f"{row['statistic']:.2f}, {p} ({errors})"
        )
    return texts


def _seeds(n: int) -> str:
    return f"{n} seed{'' if n == 1 else 's'}"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _n_terms(grid: pd.DataFrame) -> int:
    levels = grid.columns.to_frame(index=False)
    return int(1 + sum(levels[name].nunique() - 1 for name in NOISE))


def _goodness(fit: statistics.BinomialFit, *, with_dispersion: bool = True) -> dict[str, float]:
    dispersion = fit.dispersion if with_dispersion else np.nan
    return {"deviance": fit.deviance, "df_resid": fit.df_resid, "dispersion": dispersion}


def _show_glm(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    marks = frame["outside"].map({True: " *", False: ""}).fillna("").astype(str)
    shown = {
        "fit": frame["fit"].where(frame["fit"].ne(frame["fit"].shift()), ""),
        "term": frame["term"],
        "coef": frame["coef"].map(lambda value: _number(value, 4)) + marks,
        "std err": frame["std_err"].map(_number),
        "z": frame["z"].map(_number),
        "p": frame["p"].map(_number),
        "95 %": map(_interval, frame["ci_low"], frame["ci_high"]),
        "robust std err": frame["robust_std_err"].map(_number),
        "robust p": frame["robust_p"].map(_number),
        "robust 95 %": map(_interval, frame["robust_low"], frame["robust_high"]),
    }
    return pd.DataFrame(shown).replace("-", "")


def _table_4(results: RawResults) -> Table | None:
    paper = published.iterations_summary()
    rows = []
    for data, subset in published.CELLS:
        after = {value: results.grid(data, subset, value=value) for value in ("accuracy", "mse")}
        if after["accuracy"].empty:
            continue
        # As in the paper: of one run, the setting that is best after all iterations.
        best = {
            "accuracy": after["accuracy"].dropna().idxmax(axis=1),
            "mse": after["mse"].dropna().idxmin(axis=1),
        }
        for n_iter in (0, results.n_iter):
            keys = {"data": data, "subset": subset, "n_iter": n_iter}
            for value, bounds in (("accuracy", _ACCURACY), ("mse", _MSE)):
                grid = results.grid(data, subset, n_iter=n_iter, value=value)
                base = results.base(data, subset, n_iter=n_iter, value=value)
                chosen = [
                    grid.loc[seed, setting]
                    for seed, setting in best[value].items()
                    if seed in grid.index
                ]
                for name, values in ((value, base), (f"{value}_best", chosen)):
                    theirs = _lookup(paper, list(keys), name).get((data, subset, n_iter), np.nan)
                    beside = _beside(values, theirs, bounds, _n_test(results, data))
                    rows.append({**keys, "quantity": name, **beside})
    return _table(
        4,
        "0 against 50 iterations",
        "Accuracy and MSE of the true class's module without noise and at the best noise setting "
        "(section 4.2.1).",
        rows,
        lambda frame: _show_wide(frame, ["data", "subset", "n_iter"], "quantity"),
        [
            "Best, as in the paper: of the nine settings of one run the one with the highest "
            "accuracy (lowest MSE) after 50 iterations, chosen on the test sequences themselves."
        ],
    )


def _table_5(results: RawResults) -> Table | None:
    paper = _lookup(published.forward(), ["data", "subset"], "accuracy")
    rows = []
    for method in sorted(results.forward["method"].unique()):
        for data in ("mnist", "characters"):
            for subset in (*_SUBSETS, "full"):
                runs = results.method(method, data, subset)
                if len(runs):
                    theirs, n_test = paper[data, subset], runs["n_test"].median()
                    beside = _beside(runs["accuracy"], theirs, _ACCURACY, n_test)
                    keys = {"method": method, "data": data, "subset": subset}
                    n_train, n_epochs = (int(runs[name].max()) for name in ("n_train", "epochs"))
                    rows.append({**keys, "n_train": n_train, "epochs": n_epochs, **beside})
    return _table(
        5,
        "forward classification",
        "Accuracy of one LSTM with as many cells as all modules together (section 4.2.2).",
        rows,
        lambda frame: _show_rows(frame, ["method", "data", "subset", "n_train", "epochs"]),
    )


def _table_6(results: RawResults) -> Table | None:
    paper = _lookup(published.comparison(), ["method", "data"], "accuracy")
    rows = []
    forward = forward_method(results)
    for data in ("mnist", "characters"):
        for subset in _SUBSETS:
            grid = results.grid(data, subset).dropna()
            best = grid.max(axis=1) if grid.shape[1] > 1 else no_runs()
            for name, values in (
                (f"{subset} (MIC base)", results.base(data, subset)),
                (f"{subset} (MIC best)", best),
                (f"{subset} (forward)", results.method(forward, data, subset)["accuracy"]),
            ):
                if len(values):
                    rows.append((name, data, values))
        full = results.method(forward, data, "full")["accuracy"]
        if len(full):
            rows.append(("full dataset", data, full))
    return _table(
        6,
        "all methods",
        "Accuracy of MIC without noise, at its best noise setting, and of forward classification.",
        [
            {"method": name, "data": data}
            | _beside(values, paper[name, data], _ACCURACY, _n_test(results, data))
            for name, data, values in rows
        ],
        lambda frame: _show_wide(frame, ["method"], "data"),
        [
            "MIC best, as in the paper: the highest of the nine accuracies of one run, chosen on "
            "the test sequences themselves.",
            f"Forward: {forward}.",
        ],
    )


def _table_13(results: RawResults) -> Table | None:
    printed, rows = published.iterations(), []
    for data, subset in published.CELLS:
        settings = results.grid(data, subset).columns
        if len(settings) < 2:
            continue
        grids = {
            f"{value}_{n_iter}": results.grid(data, subset, n_iter=n_iter, value=value)
            for value in ("accuracy", "mse")
            for n_iter in (0, results.n_iter)
        }
        paper = {
            name: _lookup(printed, ["data", "subset", *NOISE], name)
            for name in grids
            if name in printed
        }
        n_test = _n_test(results, data)
        for setting in settings:
            keys = {"data": data, "subset": subset, **dict(zip(NOISE, setting, strict=True))}
            for name, grid in grids.items():
                theirs = paper.get(name, {}).get((data, subset, *setting), np.nan)
                bounds = _MSE if name.startswith("mse") else _ACCURACY
                beside = _beside(grid.get(setting, []), theirs, bounds, n_test)
                rows.append({**keys, "quantity": name, **beside})
    return _table(
        13,
        "0 against 50 iterations, all settings",
        "Accuracy and MSE of the true class's module (section 4.2.1).",
        rows,
        lambda frame: _show_wide(frame, ["data", "subset", *NOISE], "quantity"),
    )


def _beyond(results: RawResults) -> Table | None:
    """Other classifiers on the same folds, and by how much they differ from MIC without noise."""
    import pandas as pd

    rows, others = [], results.baselines
    for data, subset in [*published.CELLS, ("mnist", "full"), ("characters", "full")]:
        names = sorted(others.query("data == @data and subset == @subset")["method"].unique())
        if not names:
            continue
        base = results.base(data, subset)
        values = {
            "MIC, no noise": base,
            "MIC, best noise (held out)": held_out_best(results.grid(data, subset)),
        }
        for name in [*names, forward_method(results)]:
            shown = "MIC, default training" if name == DEFAULT_TRAINING else name
            values[shown] = results.method(name, data, subset)["accuracy"]
        for name, accuracy in values.items():
            if len(accuracy):
                difference = statistics.paired_difference(accuracy, base)[:3]
                if name == "MIC, no noise":
                    difference = (np.nan, np.nan, np.nan)
                mean = statistics.mean_interval(accuracy)
                mic = "" if name.startswith("MIC") else _wins(*difference[1:])
                rows.append((data, subset, name, *mean, *difference, mic))
    if not rows:
        return None
    frame = pd.DataFrame(
        rows,
        columns=[
            "data",
            "subset",
            "method",
            "accuracy",
            "ci_low",
            "ci_high",
            "n_seeds",
            "minus_mic",
            "minus_mic_low",
            "minus_mic_high",
            "mic",
        ],
    )
    shown = frame[["data", "subset", "method"]].assign(
        accuracy=[
            f"{_number(a)} {_interval(low, high)}".strip()
            for a, low, high in frame[["accuracy", "ci_low", "ci_high"]].to_numpy()
        ],
        difference=[
            "" if np.isnan(d) else f"{d:+.3f} {_interval(low, high)}".strip()
            for d, low, high in frame[["minus_mic", "minus_mic_low", "minus_mic_high"]].to_numpy()
        ],
        MIC=frame["mic"],
        seeds=frame["n_seeds"].astype(str),
    )
    return Table(
        "beyond",
        "Beyond the paper: what else the same sequences can do",
        "Other classifiers on the same sequences and the same test part.",
        frame,
        [
            "Accuracy: mean over seeds with its 95 % t interval.",
            "Difference: to MIC without noise, paired by seed, with its 95 % t interval; MIC wins, "
            "loses, or the interval holds 0 (open).",
            "MIC, best noise (held out): the setting is chosen on the other seeds.",
            "MIC, default training: modules that micfast's default training has trained, not the "
            "paper's, inverted as in the paper.",
            "Clustered types are cluster means: every method sees means, not recorded sequences.",
        ],
        shown,
    )


def _wins(low: float, high: float) -> str:
    """MIC's standing, given the interval of the other method's lead."""
    if high < 0:
        return "wins"
    return "loses" if low > 0 else "open"
