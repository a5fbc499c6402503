"""The paper's tables, ours beside its own, from the raw results of ``micfast reproduce``.

Owns what is compared with what; numbers of the paper come from ``published``, intervals and fits
from ``statistics``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from micfast._io import load_arrays, write_text
from micfast.experiments.paper import published, statistics

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CrossErrors",
    "RawResults",
    "Table",
    "build_tables",
    "forward_method",
    "glm_runs",
    "held_out_best",
    "joint_test_texts",
    "load_raw",
    "markdown",
    "write_tables",
]

# What a file must have; more is left alone.
_COLUMNS = {
    "runs": "data subset noise_in noise_out seed n_iter n_test n_correct accuracy mse",
    "classes": "data subset noise_in noise_out seed n_iter label n_test n_correct accuracy mse",
    "forward": "method data subset seed epochs n_train n_test n_correct accuracy",
    "baselines": "method data subset seed n_train n_test n_correct accuracy",
}
_VALUES = {"n_train", "n_test", "n_correct", "accuracy", "mse"}
_NOISE = ["noise_in", "noise_out"]
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


class CrossErrors(NamedTuple):
    """Mean errors of every module on every class (Figure 7).

    Attributes
    ----------
    labels : list of str
    train, test : numpy.ndarray, (C, C) float64
        [module, class].
    """

    labels: list[str]
    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class RawResults:
    """The raw results of a run; what is missing is empty.

    Attributes
    ----------
    runs, classes, forward, baselines : pandas.DataFrame
        The CSV files; without rows where there is none. Of ``forward`` the longest training per
        method, data, subset and seed.
    cross : dict of str to CrossErrors
    """

    runs: pd.DataFrame
    classes: pd.DataFrame
    forward: pd.DataFrame
    baselines: pd.DataFrame
    cross: dict[str, CrossErrors] = field(default_factory=dict)
    _grids: dict[tuple[Any, ...], pd.DataFrame] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def n_iter(self) -> int:
        """Iterations of a full inversion, 50 in the paper."""
        return int(self.runs["n_iter"].max()) if len(self.runs) else 50

    def grid(
        self,
        data: str,
        subset: str,
        *,
        n_iter: int | None = None,
        value: str = "accuracy",
        label: str | None = None,
    ) -> pd.DataFrame:
        """One value of every run of a data set.

        Parameters
        ----------
        data, subset : str
        n_iter : int, optional
            None: the full inversion.
        value : str
            Column of ``runs``.
        label : str, optional
            A class; None: overall.

        Returns
        -------
        pandas.DataFrame
            Index seed; columns (noise_in, noise_out), sorted; NaN where a run is missing.
        """
        n_iter = self.n_iter if n_iter is None else n_iter
        key = (data, subset, n_iter, value, label is None)
        if key not in self._grids:
            frame = self.runs if label is None else self.classes
            here = (frame["data"] == data) & (frame["subset"] == subset)
            frame = frame[here & (frame["n_iter"] == n_iter)]
            columns = _NOISE if label is None else ["label", *_NOISE]
            grid = frame.pivot(index="seed", columns=columns, values=value)
            self._grids[key] = grid.sort_index(axis=1)
        grid = self._grids[key]
        return grid if label is None else grid[label]

    def base(self, data: str, subset: str, **options: Any) -> pd.Series:
        """One value of the runs without noise, indexed by seed; options as :meth:`grid`'s."""
        grid = self.grid(data, subset, **options)
        return grid[(0.0, 0.0)].dropna() if (0.0, 0.0) in grid else _no_runs()

    def method(self, method: str, data: str, subset: str) -> pd.DataFrame:
        """Runs of a forward model or baseline, indexed by seed."""
        for frame in (self.forward, self.baselines):
            chosen = (
                (frame["method"] == method) & (frame["data"] == data) & (frame["subset"] == subset)
            )
            if chosen.any():
                return frame[chosen].set_index("seed").sort_index()
        return self.forward.iloc[:0].set_index("seed")


def _no_runs() -> pd.Series:
    import pandas as pd

    return pd.Series(dtype="float64")


def load_raw(raw: str | os.PathLike[str]) -> RawResults:
    """Read the raw results.

    Parameters
    ----------
    raw : path-like
        Folder with runs.csv, classes.csv, forward.csv, baselines.csv, cross-<data>.npz; each may
        be missing.

    Returns
    -------
    RawResults

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If a file can't be read, lacks a column or has two rows for one run.
    """
    folder = Path(raw)
    if not folder.is_dir():
        raise FileNotFoundError(f"load_raw: raw must be a folder, got {folder}")
    frames = {name: _read_csv(folder / f"{name}.csv", name) for name in _COLUMNS}
    forward = frames["forward"].sort_values("epochs", kind="stable")
    frames["forward"] = forward.drop_duplicates(["method", "data", "subset", "seed"], keep="last")
    cross = {}
    for path in sorted(folder.glob("cross-*.npz")):
        cross[path.stem.removeprefix("cross-")] = _read_cross_errors(path)
    return RawResults(**frames, cross=cross)


def _read_cross_errors(path: Path) -> CrossErrors:
    """The cross errors of one file; a ValueError for anything else."""
    try:
        arrays = load_arrays(path)
    except ValueError as error:
        raise ValueError(f"load_raw: {path.name} can't be read: {error}") from error
    missing = [name for name in ("labels", "train", "test") if name not in arrays]
    if missing:
        raise ValueError(f"load_raw: {path.name} lacks {', '.join(missing)}")
    if arrays["labels"].ndim != 1:
        raise ValueError(
            f"load_raw: {path.name}: labels must be of shape (n,), got {arrays['labels'].shape}"
        )
    labels = [str(label) for label in arrays["labels"]]
    for name in ("train", "test"):
        if arrays[name].shape != (len(labels), len(labels)):
            raise ValueError(
                f"load_raw: {path.name}: {name} must be of shape "
                f"({len(labels)}, {len(labels)}), got {arrays[name].shape}"
            )
    return CrossErrors(labels, arrays["train"], arrays["test"])


def _read_csv(path: Path, name: str) -> pd.DataFrame:
    import pandas as pd

    columns = _COLUMNS[name].split()
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    # Only the empty field is missing: a class may be called NA.
    frame = pd.read_csv(path, dtype={"label": str}, keep_default_na=False, na_values=[""])
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"load_raw: {path.name} lacks column {', '.join(missing)}")
    keys = [column for column in columns if column not in _VALUES]
    twice = frame.duplicated(keys)
    if twice.any():
        first = ", ".join(f"{key}={frame.loc[twice.idxmax(), key]}" for key in keys)
        raise ValueError(f"load_raw: {path.name} has two rows for {first}")
    return frame


def held_out_best(grid: pd.DataFrame) -> pd.Series:
    """Accuracy at the best noise setting, the setting chosen on the other seeds.

    The paper's "best" is the highest of nine accuracies on the test set itself, which is too good
    by the luck of the draw. Here no seed takes part in the choice made for it.

    Parameters
    ----------
    grid : pandas.DataFrame
        Accuracies, index seed, one column per setting.

    Returns
    -------
    pandas.Series
        Indexed by seed, only those that have all settings; empty for fewer than two.
    """
    grid = grid.dropna()
    if len(grid) < 2:
        return _no_runs()
    others = (grid.sum() - grid) / (len(grid) - 1)
    return grid.where(others.eq(others.max(axis=1), axis=0)).bfill(axis=1).iloc[:, 0]


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


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows).astype({"outside": "boolean"})


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


def _ours(row: Mapping[str, Any]) -> str:
    return f"{_number(row['ours'])} {_interval(row['ci_low'], row['ci_high'])}".strip()


def _paper(row: Mapping[str, Any]) -> str:
    return _number(row["paper"]) + (" *" if row["outside"] is True else "")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values: of the three-valued column True, False or None."""
    import pandas as pd

    rows = frame.to_dict("records")
    for row in rows:
        row["outside"] = None if pd.isna(row["outside"]) else bool(row["outside"])
    return rows


def _noise_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Noise levels as text, without superfluous digits."""
    level = {name: frame[name].map("{:g}".format) for name in _NOISE if name in frame}
    return frame.assign(**level)


def _show_rows(frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One line per value: keys, ours, interval of one run, the paper's and its percentile."""
    import pandas as pd

    shown = _noise_names(frame)[list(keys)].reset_index(drop=True)
    cells = [
        {
            "ours": _ours(row),
            "one run": _interval(row["run_low"], row["run_high"]),
            "paper": _paper(row),
            "percentile": _number(row["percentile"], 0),
            "seeds": str(row["n_seeds"]),
        }
        for row in _records(frame)
    ]
    return pd.concat([shown, pd.DataFrame(cells)], axis=1)


def _show_wide(frame: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """Two columns, ours and the paper's, for each value of ``column``."""
    import pandas as pd

    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in _records(_noise_names(frame)):
        line = lines.setdefault(tuple(row[key] for key in keys), {})
        line[row[column]] = _ours(row)
        line[f"{row[column]}, paper"] = _paper(row)
    rows = [dict(zip(keys, map(str, line), strict=True)) | cells for line, cells in lines.items()]
    return pd.DataFrame(rows).fillna("")


def _show_grid(frame: pd.DataFrame) -> pd.DataFrame:
    """Three lines per noise setting: ours, the interval, the paper's."""
    import pandas as pd

    lines: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _records(_noise_names(frame)):
        key = (row["noise_in"], row["noise_out"])
        if key not in lines:
            first = {"noise_in": key[0], "noise_out": key[1]}
            blank = dict.fromkeys(_NOISE, "")
            lines[key] = [
                first | {"": "ours"},
                blank | {"": "95 %"},
                blank | {"": "paper"},
            ]
        interval = _interval(row["ci_low"], row["ci_high"], 2)
        cells = (_number(row["ours"]), interval, _paper(row) if np.isfinite(row["paper"]) else "")
        for line, cell in zip(lines[key], cells, strict=True):
            line[row["label"]] = cell
    return pd.DataFrame([line for three in lines.values() for line in three]).fillna("")


def markdown(frame: pd.DataFrame) -> str:
    """A frame of strings as a Markdown table.

    Parameters
    ----------
    frame : pandas.DataFrame
        As ``Table.shown``.

    Returns
    -------
    str
        Ends without a line break.
    """
    return frame.to_markdown(index=False, disable_numparse=True)


# -- the tables --------------------------------------------------------------------------------


def build_tables(raw: str | os.PathLike[str] | RawResults) -> dict[str, Table]:
    """Build every table that the raw results allow.

    Parameters
    ----------
    raw : path-like or RawResults
        The folder ``raw`` of a run, or its content.

    Returns
    -------
    dict of str to Table
        By name, in the paper's order. The tables of a noise grid need two noise settings or more.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_raw`.
    """
    results = raw if isinstance(raw, RawResults) else load_raw(raw)
    built = [build(results) for build in (_table_1, _table_4, _table_5, _table_6, _table_13)]
    for cell in published.CELLS:
        built += [_grid_table(results, *cell), _glm_table(results, *cell)]
    built.append(_beyond(results))
    tables = [table for table in built if table is not None]
    tables.sort(key=lambda table: int(table.name[5:]) if table.name.startswith("table") else 99)
    return {table.name: table for table in tables}


def write_tables(
    tables: Mapping[str, Table] | Iterable[Table], folder: str | os.PathLike[str]
) -> list[Path]:
    """Write each table as CSV (the numbers) and Markdown (as shown, with caption and notes).

    Parameters
    ----------
    tables : mapping of str to Table, or iterable of Table
    folder : path-like
        Made if it doesn't exist.

    Returns
    -------
    list of pathlib.Path
        The files written.

    Raises
    ------
    OSError
        If the folder can't be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables.values() if isinstance(tables, Mapping) else tables:
        notes = "".join(f"- {note}\n" for note in table.notes)
        texts = {
            ".csv": table.frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
            ".md": f"# {table.title}\n\n{table.caption}\n\n{markdown(table.shown)}\n\n{notes}",
        }
        for suffix, text in texts.items():
            path = target / f"{table.name}{suffix}"
            write_text(path, text)
            written.append(path)
    return written


def _table(
    number: int,
    title: str,
    caption: str,
    rows: list[dict[str, Any]],
    show: Callable[[pd.DataFrame], pd.DataFrame],
    notes: Sequence[str] = (),
) -> Table | None:
    if not rows:
        return None
    frame = _frame(rows)
    one_seed = [_ONE_SEED] if (frame["n_seeds"] == 1).any() else []
    every = [*_NOTES, *notes, *one_seed, *published.slips_of(number)]
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
    classes = results.classes
    mine = (classes["data"] == data) & (classes["subset"] == subset)
    n_test = {"overall": _n_test(results, data)}
    n_test |= classes[mine].groupby("label")["n_test"].median().to_dict()
    grids = {"overall": overall} | {
        label: results.grid(data, subset, label=label) for label in n_test if label != "overall"
    }
    printed = published.noise_grid(data, subset)
    paper = {label: _lookup(printed, _NOISE, label) for label in grids if label in printed}
    rows = []
    for setting in overall.columns:
        keys = {"data": data, "subset": subset, **dict(zip(_NOISE, setting, strict=True))}
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
        *published.slips_of(number),
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
    return int(1 + sum(levels[name].nunique() - 1 for name in _NOISE))


def _goodness(fit: statistics.BinomialFit, *, with_dispersion: bool = True) -> dict[str, float]:
    dispersion = fit.dispersion if with_dispersion else np.nan
    return {"deviance": fit.deviance, "df_resid": fit.df_resid, "dispersion": dispersion}


def _show_glm(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    lines: list[dict[str, str]] = []
    for row in _records(frame):
        first = not lines or row["fit"] != lines[-1]["_fit"]
        lines.append(
            {
                "_fit": row["fit"],
                "fit": row["fit"] if first else "",
                "term": row["term"],
                "coef": _number(row["coef"], 4) + (" *" if row["outside"] is True else ""),
                "std err": _number(row["std_err"]),
                "z": _number(row["z"]),
                "p": _number(row["p"]),
                "95 %": _interval(row["ci_low"], row["ci_high"]),
                "robust std err": _number(row["robust_std_err"]),
                "robust p": _number(row["robust_p"]),
                "robust 95 %": _interval(row["robust_low"], row["robust_high"]),
            }
        )
    return pd.DataFrame(lines).drop(columns="_fit").replace("-", "")


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


def forward_method(results: RawResults) -> str:
    """The forward model of Table 6: Keras as in the paper, else what there is."""
    methods = sorted(results.forward["method"].unique())
    return methods[0] if methods else "keras-lstm"


def _table_6(results: RawResults) -> Table | None:
    paper = _lookup(published.comparison(), ["method", "data"], "accuracy")
    rows = []
    forward = forward_method(results)
    for data in ("mnist", "characters"):
        for subset in _SUBSETS:
            grid = results.grid(data, subset).dropna()
            best = grid.max(axis=1) if grid.shape[1] > 1 else _no_runs()
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
            name: _lookup(printed, ["data", "subset", *_NOISE], name)
            for name in grids
            if name in printed
        }
        n_test = _n_test(results, data)
        for setting in settings:
            keys = {"data": data, "subset": subset, **dict(zip(_NOISE, setting, strict=True))}
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
        lambda frame: _show_wide(frame, ["data", "subset", *_NOISE], "quantity"),
    )


def _beyond(results: RawResults) -> Table | None:
    """Other classifiers on the same folds, and by how much they differ from MIC without noise."""
    import pandas as pd

    rows = []
    for data, subset in [*published.CELLS, ("mnist", "full"), ("characters", "full")]:
        others = results.baselines
        here = others[(others["data"] == data) & (others["subset"] == subset)]
        names = sorted(here["method"].unique())
        if not names:
            continue
        base = results.base(data, subset)
        values = {
            "MIC, no noise": base,
            "MIC, best noise (held out)": held_out_best(results.grid(data, subset)),
        }
        values |= {
            name: results.method(name, data, subset)["accuracy"]
            for name in [*names, forward_method(results)]
        }
        for name, accuracy in values.items():
            if not len(accuracy):
                continue
            mean = statistics.mean_interval(accuracy)
            difference = statistics.paired_difference(accuracy, base)
            rows.append(
                {
                    "data": data,
                    "subset": subset,
                    "method": name,
                    "accuracy": mean.estimate,
                    "ci_low": mean.low,
                    "ci_high": mean.high,
                    "n_seeds": mean.n,
                    "minus_mic": difference.estimate,
                    "minus_mic_low": difference.low,
                    "minus_mic_high": difference.high,
                }
            )
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    mic = frame["method"].str.startswith("MIC")
    base_rows = frame["method"] == "MIC, no noise"
    frame.loc[base_rows, ["minus_mic", "minus_mic_low", "minus_mic_high"]] = np.nan
    frame["mic"] = [
        "" if is_mic else _wins(low, high)
        for is_mic, low, high in zip(
            mic, frame["minus_mic_low"], frame["minus_mic_high"], strict=True
        )
    ]
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
            "Clustered types are cluster means: every method sees means, not recorded sequences.",
        ],
        shown,
    )


def _wins(low: float, high: float) -> str:
    """MIC's standing, given the interval of the other method's lead."""
    if high < 0:
        return "wins"
    return "loses" if low > 0 else "open"
