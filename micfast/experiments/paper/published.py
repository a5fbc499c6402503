"""The paper's own numbers: its thirteen tables as printed, read from ``published/*.csv``.

Each figure there is one run with one seed. Known errors of the paper are listed in :data:`SLIPS`
and corrected nowhere except in the noise labels of Table 8.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CELLS",
    "GLM_TABLES",
    "GRID_TABLES",
    "SOURCE",
    "accuracy_by_types",
    "comparison",
    "forward",
    "iterations",
    "iterations_summary",
    "noise_glm",
    "noise_grid",
    "read_table",
    "slips",
    "unmatched",
]

SOURCE = 'M. Hobbhahn, "Modular Inverse Classification using Generative Models", 2019'

# The four data sets of the noise experiments, in the paper's order.
CELLS = (
    ("mnist", "clustered"),
    ("mnist", "random"),
    ("characters", "clustered"),
    ("characters", "random"),
)
GRID_TABLES = dict(zip(CELLS, (2, 7, 8, 9), strict=True))
GLM_TABLES = dict(zip(CELLS, (3, 10, 11, 12), strict=True))

# Table 13's names of the data sets.
_TABLE_13 = dict(
    zip(("MNIST clustered", "MNIST random", "Chars clustered", "Chars random"), CELLS, strict=True)
)


@functools.cache
def _read(start: str) -> pd.DataFrame:
    import pandas as pd

    folder = resources.files(__package__) / "published"
    (path,) = (path for path in folder.iterdir() if path.name.startswith(start))
    with path.open(encoding="utf-8") as file:
        return pd.read_csv(file)


def read_table(number: int) -> pd.DataFrame:
    """Table 1 to 13 as printed: numbers are float64, names are str.

    Examples
    --------
    >>> read_table(1)
          dataset  random  clustered
    0       mnist   0.562       0.83
    1  characters   0.720       0.88
    """
    frame = _read(f"table{number:02d}_")
    # A column without a decimal point is still one of fractions.
    return frame.astype(dict.fromkeys(frame.select_dtypes("number").columns, "float64"))


def slips(number: int | None = None) -> list[str]:
    """The known errors of the paper that concern a table; None: all of them."""
    frame = _read("slips")
    concerned = [number is None or str(number) in tables.split() for tables in frame["tables"]]
    return frame.loc[concerned, "text"].tolist()


def unmatched() -> list[str]:
    """What of the paper's runs could not be matched, and the likely causes of differences."""
    return _read("unmatched")["text"].tolist()


def accuracy_by_types() -> pd.DataFrame:
    """Table 1, accuracy without noise: data, subset, accuracy."""
    return _long(read_table(1))


def forward() -> pd.DataFrame:
    """Table 5, forward classification: data, subset (clustered, random, full), accuracy."""
    return _long(read_table(5))


def _long(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.melt("dataset", var_name="subset", value_name="accuracy")
    return frame.rename(columns={"dataset": "data"})


def noise_grid(data: str, subset: str) -> pd.DataFrame:
    """Tables 2, 7, 8, 9, accuracy of the nine noise settings, with the right noise labels.

    Returns
    -------
    pandas.DataFrame
        Columns noise_in, noise_out, overall and one per class that the paper prints. In Table 8 the
        labels of the last four rows are corrected (see :func:`slips`); no accuracy is changed.

    Examples
    --------
    >>> noise_grid("characters", "clustered")[["noise_in", "noise_out", "overall"]].tail(4)
       noise_in  noise_out  overall
    5       0.1     0.0001    0.885
    6       0.1     0.0002    0.910
    7       0.2     0.0001    0.898
    8       0.2     0.0002    0.873
    """
    frame = read_table(GRID_TABLES[data, subset])
    if (data, subset) == ("characters", "clustered"):
        labels = ["noise_in", "noise_out"]
        frame[labels] = noise_grid("characters", "random")[labels]
    return frame


def noise_glm(data: str, subset: str) -> pd.DataFrame:
    """Tables 3, 10, 11, 12, the GLM on the nine overall accuracies.

    Columns term (as in :func:`statistics.noise_terms`), coef, std_err, z, p, ci_low, ci_high.
    """
    return read_table(GLM_TABLES[data, subset])


def iterations() -> pd.DataFrame:
    """Table 13, accuracy and MSE after 0 and 50 iterations, as printed; 36 rows.

    Columns data, subset, noise_in, noise_out, accuracy_0, accuracy_50, mse_0, mse_50.
    """
    import pandas as pd

    frame = read_table(13)
    cells = [_TABLE_13[name] for name in frame.pop("dataset")]
    return pd.concat([pd.DataFrame(cells, columns=["data", "subset"]), frame], axis=1)


def iterations_summary() -> pd.DataFrame:
    """Table 4, accuracy and MSE after 0 and 50 iterations, without noise and at best.

    Columns data, subset, n_iter, accuracy, accuracy_best, mse, mse_best. The best accuracies are
    those of the noise setting with the highest accuracy after 50 iterations, the best MSEs those
    of the setting with the lowest MSE after 50 iterations.
    """
    frame = read_table(4)
    parts = frame.pop("dataset_iterations").str.extract(r"^(\w+) (\w+) \((\d+)\)$")
    frame.insert(0, "data", parts[1].str.lower())
    frame.insert(1, "subset", parts[0])
    frame.insert(2, "n_iter", parts[2].astype(int))
    return frame


def comparison() -> pd.DataFrame:
    """Table 6, all methods: method, data, accuracy."""
    return read_table(6).melt("method", var_name="data", value_name="accuracy")
