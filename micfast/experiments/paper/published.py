"""The paper's own numbers: its thirteen tables as printed, and what is known to be wrong in them.

Source: M. Hobbhahn, "Modular Inverse Classification using Generative Models", 2019. Each figure
there is one run with one seed. The CSV files in ``published/`` hold the tables as printed; slips
are listed in :data:`SLIPS` and corrected nowhere but in the noise labels of Table 8.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CELLS",
    "GLM_TABLES",
    "GRID_TABLES",
    "SLIPS",
    "SOURCE",
    "Slip",
    "accuracy_by_types",
    "comparison",
    "forward",
    "iterations",
    "iterations_summary",
    "noise_glm",
    "noise_grid",
    "read_table",
    "slips_of",
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

_FILES = {
    1: "table01_accuracy_no_noise.csv",
    2: "table02_noise_mnist_clustered.csv",
    3: "table03_glm_mnist_clustered.csv",
    4: "table04_iterations_summary.csv",
    5: "table05_forward.csv",
    6: "table06_comparison.csv",
    7: "table07_noise_mnist_random.csv",
    8: "table08_noise_characters_clustered.csv",
    9: "table09_noise_characters_random.csv",
    10: "table10_glm_mnist_random.csv",
    11: "table11_glm_characters_clustered.csv",
    12: "table12_glm_characters_random.csv",
    13: "table13_iterations.csv",
}

# Table 13's names of the data sets.
_TABLE_13 = dict(
    zip(("MNIST clustered", "MNIST random", "Chars clustered", "Chars random"), CELLS, strict=True)
)


class Slip(NamedTuple):
    """A known slip of the paper.

    Attributes
    ----------
    tables : tuple of int
        The tables it concerns.
    text : str
        What is wrong, and how one can tell.
    """

    tables: tuple[int, ...]
    text: str


SLIPS = (
    Slip(
        (8,),
        "Table 8 prints the noise labels 0.1/0.0001 and 0.2/0.0002 twice. Its rows are taken in "
        "the order of all the other tables (0.1/0.0001, 0.1/0.0002, 0.2/0.0001, 0.2/0.0002): with "
        "these labels its accuracies give the paper's GLM (Table 11) to the printed digits.",
    ),
    Slip(
        (8, 9),
        "Tables 8 and 9 print 16 of the 20 letters: v, w, y and z are missing.",
    ),
    Slip(
        (8,),
        "In Table 8 the rows 0/0, 0.1/0 and 0.1/0.0001 hold fractions that the letter counts of "
        "the other rows (a 23, g 15, h 17, l 22, n 17, o 17, ...) can't give: another, smaller "
        "test subset.",
    ),
    Slip(
        (8,),
        "In Table 8 the row 0.2/0.0001 seems shifted by one letter from o on (one value is "
        "missing, the last one belongs to no letter printed), and 0.060 for h in the row "
        "0.2/0.0002 is no fraction of h's 17 test letters.",
    ),
    Slip(
        (2, 3, 13),
        "Table 13 has the accuracies of MNIST clustered 0.2/0.1 and 0.2/0.25 the other way round "
        "than Table 2. Table 2 is right: its per-class accuracies add up to its overall ones, and "
        "it gives the GLM of Table 3.",
    ),
    Slip(
        (8, 11, 13),
        "Table 13 has the accuracies of characters clustered 0.1/0.0002 and 0.2/0.0001 the other "
        "way round than Table 8's order; Table 8's order gives the GLM of Table 11, Table 13's "
        "does not.",
    ),
    Slip(
        (4, 13),
        "Characters clustered without noise: MSE 0.257 after 50 iterations in Table 4, 0.266 in "
        "Table 13; the best MSE after 0 iterations is 0.226 in Table 4, where Table 13 has nothing "
        "below 0.257.",
    ),
    Slip(
        (4, 13),
        "The best MSE of MNIST random, 0.041 (0.2/0.1), is out of line with its neighbours "
        "(0.065 to 0.076).",
    ),
    Slip(
        (5, 6),
        "Forward classification of clustered characters: 0.613 in Table 5, 0.504 (MNIST's figure "
        "for random types) in Table 6.",
    ),
)


def slips_of(number: int) -> list[str]:
    """Texts of the known slips that concern a table.

    Parameters
    ----------
    number : int
        Table, 1 to 13.

    Returns
    -------
    list of str
    """
    return [slip.text for slip in SLIPS if number in slip.tables]


def read_table(number: int) -> pd.DataFrame:
    """Read one table as printed.

    Parameters
    ----------
    number : int
        Table, 1 to 13.

    Returns
    -------
    pandas.DataFrame
        Numbers are float64, names are str.

    Raises
    ------
    ValueError
        If there is no such table.

    Examples
    --------
    >>> read_table(1)
          dataset  random  clustered
    0       mnist   0.562       0.83
    1  characters   0.720       0.88
    """
    import pandas as pd

    if number not in _FILES:
        raise ValueError(f"read_table: number must be 1 to {len(_FILES)}, got {number!r}")
    path = resources.files(__package__) / "published" / _FILES[number]
    with path.open(encoding="utf-8") as file:
        frame = pd.read_csv(file)
    # A column without a decimal point is still one of fractions.
    numeric = frame.select_dtypes("number").columns
    return frame.astype(dict.fromkeys(numeric, "float64"))


def accuracy_by_types() -> pd.DataFrame:
    """Table 1: accuracy without noise, clustered and random types.

    Returns
    -------
    pandas.DataFrame
        Columns data, subset, accuracy.
    """
    return _long(read_table(1), "accuracy")


def forward() -> pd.DataFrame:
    """Table 5: accuracy of forward classification.

    Returns
    -------
    pandas.DataFrame
        Columns data, subset (clustered, random, full), accuracy.
    """
    return _long(read_table(5), "accuracy")


def _long(frame: pd.DataFrame, value: str) -> pd.DataFrame:
    frame = frame.melt("dataset", var_name="subset", value_name=value)
    return frame.rename(columns={"dataset": "data"})


def noise_grid(data: str, subset: str) -> pd.DataFrame:
    """Tables 2, 7, 8, 9: accuracy of the nine noise settings, with the right noise labels.

    Parameters
    ----------
    data : {"mnist", "characters"}
    subset : {"clustered", "random"}

    Returns
    -------
    pandas.DataFrame
        Columns noise_in, noise_out, overall and one per class that the paper prints. In Table 8 the
        labels of the last four rows are corrected (see :data:`SLIPS`); no accuracy is changed.

    Raises
    ------
    ValueError
        If there is no such data set.

    Examples
    --------
    >>> noise_grid("characters", "clustered")[["noise_in", "noise_out", "overall"]].tail(4)
       noise_in  noise_out  overall
    5       0.1     0.0001    0.885
    6       0.1     0.0002    0.910
    7       0.2     0.0001    0.898
    8       0.2     0.0002    0.873
    """
    frame = read_table(GRID_TABLES[_cell("noise_grid", data, subset)])
    if (data, subset) == ("characters", "clustered"):
        labels = ["noise_in", "noise_out"]
        frame[labels] = noise_grid("characters", "random")[labels]
    return frame


def noise_glm(data: str, subset: str) -> pd.DataFrame:
    """Tables 3, 10, 11, 12: the GLM on the nine overall accuracies.

    Parameters
    ----------
    data : {"mnist", "characters"}
    subset : {"clustered", "random"}

    Returns
    -------
    pandas.DataFrame
        Columns term, coef, std_err, z, p, ci_low, ci_high; terms are named as
        :func:`micfast.experiments.paper.statistics.noise_terms` names them.

    Raises
    ------
    ValueError
        If there is no such data set.
    """
    return read_table(GLM_TABLES[_cell("noise_glm", data, subset)])


def iterations() -> pd.DataFrame:
    """Table 13: accuracy and MSE after 0 and 50 iterations, as printed.

    Returns
    -------
    pandas.DataFrame
        Columns data, subset, noise_in, noise_out, accuracy_0, accuracy_50, mse_0, mse_50; 36 rows.
    """
    import pandas as pd

    frame = read_table(13)
    cells = [_TABLE_13[name] for name in frame.pop("dataset")]
    return pd.concat([pd.DataFrame(cells, columns=["data", "subset"]), frame], axis=1)


def iterations_summary() -> pd.DataFrame:
    """Table 4: accuracy and MSE after 0 and 50 iterations, without noise and at best.

    Returns
    -------
    pandas.DataFrame
        Columns data, subset, n_iter, accuracy, accuracy_best, mse, mse_best. The best accuracies
        are those of the noise setting with the highest accuracy after 50 iterations, the best
        MSEs those of the setting with the lowest MSE after 50 iterations.
    """
    frame = read_table(4)
    parts = frame.pop("dataset_iterations").str.extract(r"^(\w+) (\w+) \((\d+)\)$")
    frame.insert(0, "data", parts[1].str.lower())
    frame.insert(1, "subset", parts[0])
    frame.insert(2, "n_iter", parts[2].astype(int))
    return frame


def comparison() -> pd.DataFrame:
    """Table 6: all methods, as printed.

    Returns
    -------
    pandas.DataFrame
        Columns method, data, accuracy.
    """
    return read_table(6).melt("method", var_name="data", value_name="accuracy")


def _cell(function: str, data: str, subset: str) -> tuple[str, str]:
    if (data, subset) not in CELLS:
        allowed = ", ".join("/".join(cell) for cell in CELLS)
        raise ValueError(f"{function}: data/subset must be one of {allowed}, got {data}/{subset}")
    return data, subset
