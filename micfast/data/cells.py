"""Parsing of tables (``.csv``, ``.tsv``) into columns of numbers and text."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Table"]

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)
# What stands for a missing label, id or time. Not "None", which may be a class.
_MISSING = ["", "?", "nan", "NaN", "NAN", "NaT", "<NA>", "NA", "N/A", "#N/A", "null", "NULL"]


class Table:
    """A table whose columns are read as numbers where all of their cells are.

    Parameters
    ----------
    path : Path
        A UTF-8 file. The separator, the decimal point or comma, and whether there is a header
        are guessed; columns without header are named ``1``, ``2``, ...

    Attributes
    ----------
    frame : pandas.DataFrame
        The cells, NaN where they are empty. The index numbers rows as a spreadsheet does.
    has_header : bool
        Whether the first row names the columns.
    notes : list of str
        What was changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        n_blank, line = self._first_line()
        self._separator = _separator(path, line)
        cells = next(csv.reader([line], delimiter=self._separator))
        self.has_header = _is_header(cells)
        names = [cell.strip() for cell in cells]
        if not self.has_header:
            names = [str(number) for number in range(1, len(cells) + 1)]
        doubled = sorted({name for name in names if name and names.count(name) > 1})
        if doubled:
            raise self.error(f"{doubled[0]!r} is the name of several columns", "rename them")
        names = [name or f"column {number}" for number, name in enumerate(names, 1)]
        self._skip = n_blank + self.has_header
        self._names = names
        self._text: dict[str, pd.Series] = {}
        exact: dict[str, Any] = {"na_values": ["?"]}
        # The default of older versions is not exact; later ones deprecate the argument.
        if tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1):
            exact["float_precision"] = "round_trip"
        frame = self._read(**exact)
        words = [name for name in names if frame[name].dtype.kind not in "fiub"]
        if self._separator != "," and any(_has_decimal_comma(frame[name]) for name in words):
            frame = self._read(decimal=",", **exact)
        self.frame = frame[frame.notna().any(axis=1)]
        if not len(self.frame):
            raise self.error("the table has no rows")
        if self.has_header:
            self._drop_unnamed(cells)

    def _first_line(self) -> tuple[int, str]:
        """Number of blank lines at the top, and the line after them."""
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                for number, line in enumerate(file):
                    if line.strip():
                        return number, line
        except UnicodeDecodeError:
            raise self.error("not UTF-8 text", "save the table as UTF-8") from None
        raise self.error("the file is empty")

    def _read(self, **options: Any) -> pd.DataFrame:
        with warnings.catch_warnings():
            # A row with one cell more than the header would lose it.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            try:
                frame = pd.read_csv(
                    self.path, sep=self._separator, header=None, names=self._names,
                    skiprows=self._skip, index_col=False, skip_blank_lines=False,
                    encoding="utf-8-sig", skipinitialspace=True, low_memory=False, **options,
                )  # fmt: skip
            except pd.errors.EmptyDataError:
                raise self.error("the table has no rows") from None
            except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
                reason = "some have more than the first"
                if isinstance(error, pd.errors.ParserError):
                    reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
                raise self.error(
                    f"rows have unequal numbers of cells ({reason})",
                    "end short rows with empty cells, and give every column a name",
                ) from error
            except UnicodeDecodeError:
                raise self.error("not UTF-8 text", "save the table as UTF-8") from None
        frame.index = pd.RangeIndex(self._skip + 1, self._skip + 1 + len(frame))
        return frame

    def _drop_unnamed(self, header: Sequence[str]) -> None:
        """Drop columns without name that are empty, or that count rows (as pandas writes them)."""
        for number, name in enumerate(header, 1):
            if name.strip() and not name.startswith("Unnamed: "):
                continue
            column = name.strip() or f"column {number}"
            values = self.frame[column]
            if values.isna().all():
                why = "is empty"
            elif number == 1 and values.tolist() == list(range(len(values))):
                why = "counts the rows"
            else:
                continue
            self.frame = self.frame.drop(columns=column)
            self.notes.append(f"column {number}, which has no name and {why}, is ignored")

    def error(self, message: str, cure: str = "") -> ValueError:
        """Return an error that names the file."""
        return ValueError(f"{self.path}: {message}" + (f": {cure}" if cure else ""))

    def text(self, column: str) -> pd.Series:
        """Cells of a column as they are spelled, without surrounding spaces; NaN if missing."""
        if column not in self._text:
            found = self._read(
                dtype=str, usecols=[column], keep_default_na=False, na_values=_MISSING
            )[column]
            found = found.loc[self.frame.index].str.strip()
            self._text[column] = found.mask(found == "")
        return self._text[column]

    def holds_text(self, column: str) -> bool:
        """Whether some cells of a column are filled, and none of these is a number."""
        values = self.frame[column]
        if values.dtype.kind in "fiub":
            return False
        return bool(pd.to_numeric(values, errors="coerce").isna().all())

    def check_numbers(self, column: str) -> None:
        """Refuse text, dates and infinity as values."""
        values = self.frame[column]
        if values.dtype.kind not in "fiub":
            wrong = values.notna() & pd.to_numeric(values, errors="coerce").isna()
            rows = values.index[wrong] if wrong.any() else values.index[values.notna()]
        elif values.dtype.kind == "f" and np.isinf(values).any():
            rows = values.index[np.isinf(values)]
        else:
            return
        raise self.error(
            f"column {column!r}, row {rows[0]}: {self.text(column).loc[rows[0]]!r} is not a "
            "finite number",
            "correct it, leave the cell empty if it is missing, or choose the columns to use "
            "with channels (--channels)",
        )

    def check_present(self, column: str, role: str) -> None:
        """Refuse empty cells."""
        missing = self.text(column).isna()
        if missing.any():
            raise self.error(
                f"column {column!r}, row {missing.index[missing][0]}: the {role} is missing "
                f"({int(missing.sum())} such rows)",
                f"fill in the {role}, or leave these rows out",
            )

    def times(self, column: str) -> pd.Series:
        """Times as numbers or as dates without time zone; none is missing."""
        self.check_present(column, "time")
        values = self.frame[column]
        if values.dtype.kind in "iu" or (values.dtype.kind == "f" and values.notna().all()):
            return values
        text = self.text(column)
        times = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
        if times.isna().any():
            row = values.index[times.isna()][0]
            raise self.error(
                f"column {column!r}, row {row}: {text.loc[row]!r} is neither a number nor an ISO "
                "8601 date",
                "write times as 2024-03-31T12:00:00, or keep the order of the rows with time='' "
                "(--time '')",
            )
        return times.dt.tz_localize(None)


def _separator(path: Path, line: str) -> str:
    if path.suffix.lower() == ".tsv" or "\t" in line:
        return "\t"
    # Where the comma is the decimal sign, cells are separated by semicolons.
    return ";" if ";" in line else ","


def _is_header(cells: Sequence[str]) -> bool:
    """Whether the first row names the columns: no numbers, but for one label, or 0, 1, 2, ..."""
    numbers = [cell.strip() for cell in cells if _is_number(cell)]
    if len(numbers) < max(1, len(cells) - 1):
        return True
    counts = [str(step) for step in range(len(numbers) + 1)]
    return len(numbers) > 2 and numbers in (counts[:-1], counts[1:])


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().replace(",", "."))
    except ValueError:
        return cell.strip() in ("", "?")
    return True


def _has_decimal_comma(column: pd.Series) -> bool:
    found = column.dropna()
    return bool(len(found)) and bool(found.astype(str).str.fullmatch(_DECIMAL_COMMA).any())
