"""Intervals over seeds, and the paper's GLMs: as the paper fitted them, and on the actual counts.

Thin layers over scipy and statsmodels. A seed is one full repetition: types, training and (for
characters) the split into training and test part. Intervals over seeds therefore hold for the data
sets at hand, not for other images or other writers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

__all__ = [
    "BinomialFit",
    "Interval",
    "accuracy_glm",
    "compare_with_single",
    "count_glm",
    "mean_interval",
    "noise_terms",
    "paired_difference",
    "prediction_interval",
    "prediction_percentile",
    "wilson_interval",
]

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate and its 95 % interval.

    Attributes
    ----------
    estimate : float
    low, high : float
        NaN where there is no interval (one seed).
    n : int
        Values it rests on.
    """

    estimate: float
    low: float
    high: float
    n: int


def mean_interval(values: ArrayLike) -> Interval:
    """Mean over seeds with its t interval; without limits (NaN) for fewer than two values.

    Examples
    --------
    >>> interval = mean_interval([0.8, 0.9, 1.0])
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.652, 1.148)
    """
    x = _finite("mean_interval", values)
    return _t_interval(x, x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else np.nan)


def prediction_interval(values: ArrayLike) -> Interval:
    """Where one more run (another seed) falls: mean -+ t s sqrt(1 + 1/n).

    The interval that a single run is compared with; without limits (NaN) for fewer than two values.
    """
    x = _finite("prediction_interval", values)
    return _t_interval(x, _prediction_scale(x))


def _t_interval(x: np.ndarray, scale: float) -> Interval:
    from scipy import stats

    n, mean = len(x), float(x.mean())
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * scale) if n > 1 else np.nan
    return Interval(mean, mean - half, mean + half, n)


def prediction_percentile(values: ArrayLike, value: float) -> float:
    """Share of further runs (in per cent) expected below ``value``: was a single run lucky?

    By the t distribution of :func:`prediction_interval`; NaN for fewer than two values or if they
    are all equal.
    """
    from scipy import stats

    x = _finite("prediction_percentile", values)
    if len(x) < 2 or np.ptp(x) == 0:
        return np.nan
    return float(100 * stats.t.cdf((value - x.mean()) / _prediction_scale(x), len(x) - 1))


def _prediction_scale(x: np.ndarray) -> float:
    return float(x.std(ddof=1) * np.sqrt(1 + 1 / len(x))) if len(x) > 1 else np.nan


def wilson_interval(n_correct: float, n_test: int) -> Interval:
    """Accuracy of one run with its Wilson interval (over test sequences, not over seeds).

    Examples
    --------
    >>> interval = wilson_interval(830, 1000)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.805, 0.852)
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(n_correct, n_test, alpha=1 - LEVEL, method="wilson")
    return Interval(n_correct / n_test, float(low), float(high), int(n_test))


def paired_difference(a: pd.Series, b: pd.Series) -> Interval:
    """Mean difference a - b with the interval of the paired t test.

    One value per seed, indexed by seed; seeds that only one of them has are left out. All NaN if
    they share no seed.

    Examples
    --------
    >>> import pandas as pd
    >>> interval = paired_difference(pd.Series([0.8, 0.9]), pd.Series([0.7, 0.7]))
    >>> round(interval.estimate, 2), round(interval.low, 2), interval.n
    (0.15, -0.49, 2)
    """
    shared = a.index.intersection(b.index)
    if shared.empty:
        return Interval(np.nan, np.nan, np.nan, 0)
    return mean_interval(a[shared] - b[shared])


def compare_with_single(values: ArrayLike, n_correct: float, n_test: int) -> Interval:
    """One run of another method minus many runs of ours, both uncertainties in one interval.

    For methods too slow for many seeds. The single run's uncertainty is that of its test sequences
    alone (Wilson); its own seed-to-seed spread is unknown. Wilson's limits and those of
    :func:`prediction_interval` are joined as Newcombe joins two intervals (MOVER). ``n`` is the
    number of our runs.
    """
    ours, single = prediction_interval(values), wilson_interval(n_correct, n_test)
    difference = single.estimate - ours.estimate
    below = np.hypot(single.estimate - single.low, ours.high - ours.estimate)
    above = np.hypot(single.high - single.estimate, ours.estimate - ours.low)
    return Interval(difference, float(difference - below), float(difference + above), ours.n)


def _finite(function: str, values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"{function}: values must be finite numbers, at least one, got {x}")
    return x


@dataclass(frozen=True)
class BinomialFit:
    """A fitted binomial GLM with logit link.

    Attributes
    ----------
    table : pandas.DataFrame
        Columns term, coef, std_err, z, p, ci_low, ci_high (model-based, as statsmodels prints
        them); :func:`count_glm` adds robust_std_err, robust_p, robust_low, robust_high.
    deviance, null_deviance : float
    df_resid : int
    dispersion : float
        Pearson chi2 / df_resid: 1 for binomial counts; more if runs differ by more than the
        chance of the test sequences. NaN without residual degrees of freedom.
    n_groups : int
        Seeds the robust errors rest on, 0 if there are none.
    tests : pandas.DataFrame
        Joint Wald tests of all levels of a factor: columns factor, statistic, df, df_denom, p.
        After :func:`accuracy_glm` chi2 with model-based errors; after :func:`count_glm` with two
        or more seeds F with robust errors (NaN with no more seeds than levels).
    """

    table: pd.DataFrame
    deviance: float
    null_deviance: float
    df_resid: int
    dispersion: float
    n_groups: int
    tests: pd.DataFrame


def noise_terms(noise_in: ArrayLike, noise_out: ArrayLike) -> pd.DataFrame:
    """Design matrix of the paper's GLMs: intercept and an indicator for each level but the lowest.

    Columns Intercept, then in_ and out_ with the level's digits, as the paper has them: in_01 for
    0.1, out_025 for 0.25, out_00001 for 0.0001.

    Examples
    --------
    >>> list(noise_terms([0, 0.1, 0.2], [0, 0.0001, 0]))
    ['Intercept', 'in_01', 'in_02', 'out_00001']
    """
    import pandas as pd

    columns = {"Intercept": np.ones(len(np.asarray(noise_in)))}
    for name, levels in (("in", noise_in), ("out", noise_out)):
        x = np.asarray(levels, dtype=np.float64)
        for level in np.unique(x)[1:]:
            digits = np.format_float_positional(level, trim="-").replace(".", "")
            columns[f"{name}_{digits}"] = (x == level).astype(np.float64)
    return pd.DataFrame(columns)


def accuracy_glm(frame: pd.DataFrame, accuracy: str = "accuracy") -> BinomialFit:
    """The paper's GLM: binomial with logit link on accuracies, each taken as one trial.

    An accuracy over 1000 test sequences enters as if it were one of a single sequence. The
    standard errors are therefore too large by a factor of sqrt(1000), and no difference of a few
    per cent can be significant: :func:`count_glm` is the fit on what was counted.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns noise_in, noise_out and the accuracy, 0 to 1; one row per setting.
    accuracy : str
        Column of the response.

    Examples
    --------
    >>> from micfast.experiments.paper import published
    >>> fit = accuracy_glm(published.noise_grid("mnist", "random"), "overall")
    >>> fit.table["term"][1], round(float(fit.table["coef"][1]), 4)
    ('in_01', 0.1389)
    """
    return _fit(frame[accuracy].to_numpy(np.float64), frame, None)


def count_glm(frame: pd.DataFrame) -> BinomialFit:
    """Binomial GLM on the counts: successes out of test sequences, every seed a row.

    Seeds are repeated measures: besides the model-based errors, which take all test sequences of
    all seeds for independent, the table has cluster-robust ones (clusters: seeds; t with
    n_seeds - 1 degrees of freedom). They need many seeds to be good and are too small with few;
    with one seed they are NaN and the joint tests model-based.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns noise_in, noise_out, n_correct, n_test, seed; one row per run.
    """
    response = np.column_stack([frame["n_correct"], frame["n_test"] - frame["n_correct"]])
    return _fit(response, frame, frame["seed"].to_numpy())


def _fit(response: np.ndarray, frame: pd.DataFrame, seeds: np.ndarray | None) -> BinomialFit:
    import pandas as pd
    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

    design = noise_terms(frame["noise_in"], frame["noise_out"])
    if len(design) < design.shape[1]:
        raise ValueError(
            f"GLM: frame must have at least as many rows as terms, got {len(design)} rows and "
            f"terms {', '.join(design)}"
        )
    n_groups = 0 if seeds is None else len(np.unique(seeds))
    model = sm.GLM(response, design, family=sm.families.Binomial())
    with warnings.catch_warnings():
        # Tiny runs: terms that predict all rows exactly, as coefficients and errors show.
        warnings.simplefilter("ignore", PerfectSeparationWarning)
        plain = best = model.fit()
        if n_groups > 1:
            groups = pd.factorize(seeds)[0]
            best = model.fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    table = pd.DataFrame({"term": list(design), **_columns(plain)})
    if seeds is not None:
        robust = _columns(best) if n_groups > 1 else dict.fromkeys(_columns(plain), np.nan)
        for name in ("std_err", "p", "ci_low", "ci_high"):
            table[f"robust_{name.removeprefix('ci_')}"] = robust[name]
    df_resid = int(plain.df_resid)
    return BinomialFit(
        table=table,
        deviance=float(plain.deviance),
        null_deviance=float(plain.null_deviance),
        df_resid=df_resid,
        dispersion=float(plain.pearson_chi2) / df_resid if df_resid else np.nan,
        n_groups=n_groups,
        tests=_joint_tests(best, list(design), use_f=n_groups > 1),
    )


def _columns(result: Any) -> dict[str, np.ndarray]:
    limits = np.asarray(result.conf_int(1 - LEVEL))
    return {
        "coef": np.asarray(result.params),
        "std_err": np.asarray(result.bse),
        "z": np.asarray(result.tvalues),
        "p": np.asarray(result.pvalues),
        "ci_low": limits[:, 0],
        "ci_high": limits[:, 1],
    }


def _joint_tests(result: Any, terms: list[str], *, use_f: bool) -> pd.DataFrame:
    """Test all levels of input noise, then of output noise, at once."""
    import pandas as pd

    rows = []
    for factor in ("in", "out"):
        chosen = [i for i, term in enumerate(terms) if term.startswith(f"{factor}_")]
        if not chosen:
            continue
        df_denom = float(result.df_resid_inference) if use_f else np.nan
        statistic = p = np.nan
        # Robust errors from no more seeds than levels, or from equal seeds, bear no joint test.
        rank = np.linalg.matrix_rank(np.asarray(result.cov_params())[np.ix_(chosen, chosen)])
        if rank == len(chosen) and not df_denom < len(chosen):
            test = result.wald_test(np.eye(len(terms))[chosen], use_f=use_f, scalar=True)
            statistic, p = float(test.statistic), float(test.pvalue)
        rows.append((f"noise_{factor}", statistic, len(chosen), df_denom, p))
    return pd.DataFrame(rows, columns=["factor", "statistic", "df", "df_denom", "p"])
