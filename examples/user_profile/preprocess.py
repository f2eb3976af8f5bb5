"""Step 2, preprocess: decide what each column is, make text into numbers and categories, and set test rows aside.

Nothing is learned from the data here but types; statistics come later, from training rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from .collect import Raw

MISSING = {"", "?", "na", "n/a", "nan", "null"}
YES = {"yes", "y", "true", "t", "1", "1.0"}
NO = {"no", "n", "false", "f", "0", "0.0"}
N_CODES = 20  # an integer column with no more values than this may be a code
IDENTIFIER = 0.95  # of the values distinct: a number or name of the record, not a trait
FEW = 30  # values say nothing yet of what is distinct
LEADING_ZEROS = 0.02  # of the values with one: not a slip, but postcodes and the like
NUMERIC = 0.9  # of the values numbers: the others are slips, and count as missing
LARGEST = 1e30  # float32, in which all models compute, ends at 3e38
THOUSANDS = {".": r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", ",": r"[+-]?\d{1,3}(\.\d{3})+(,\d+)?"}
N_SPLITS = 5
LARGE = 0.1  # of all rows are equal: no accident, and half a test set


class PreprocessError(ValueError):
    """The records cannot be made into a yes-or-no table; the message says why."""


@dataclass(frozen=True)
class Table:
    """Typed records: float columns with NaN, and text columns with None, for what is missing."""

    name: str
    frame: pd.DataFrame  # its index says whom a row is about: the record's number in the file, from 1, or the customer
    y: np.ndarray
    kinds: dict[str, str]  # column -> "number", "code" (a number that may be a name) or "category"
    positive: str
    about: str
    notes: dict[str, str] = field(default_factory=dict)  # what was left out, or changed, and why


def clean(raw: Raw, keep: Sequence[str] = ()) -> Table:
    """Return the typed table of one-record-a-row data; the columns ``keep`` are kept even if they look like identifiers.

    Raises
    ------
    PreprocessError
        If the target does not have two values, no column is left, or one to keep does not exist.
    """
    absent = set(keep) - set(raw.frame.columns.drop(raw.target))
    if absent:
        raise PreprocessError(f"{raw.name} has no columns {sorted(absent)} to keep")
    text = raw.frame.apply(lambda column: column.astype(str).str.strip())
    text = text.mask(text.apply(lambda column: column.str.lower().isin(MISSING)))
    known = text[raw.target].notna()
    y, positive = _yes_or_no(text.loc[known, raw.target], raw.target, raw.positive)
    columns, kinds, notes = {}, {}, {}
    if not known.all():
        notes["(rows)"] = f"{int((~known).sum())} without {raw.target!r} are left out"
    for name in text.columns.drop(raw.target):
        values, kind, note = _typed(text.loc[known, name], raw.decimal, keep=name in keep)
        if kind:
            columns[name], kinds[name] = values, kind
        if note:
            notes[name] = note
    if not columns:
        raise PreprocessError(f"no column of {raw.name} can be learned from: {notes}")
    frame = pd.DataFrame(columns)
    frame.index = pd.RangeIndex(1, len(text) + 1, name="record")[known.to_numpy()]
    return Table(raw.name, frame, y, kinds, positive, raw.about, notes)


def clean_log(raw: Raw) -> pd.DataFrame:
    """Return the purchase log with typed columns: customer, date, discs, dollars; in order of time."""
    log = pd.DataFrame(
        {
            "customer": raw.frame["customer_id"],
            "date": pd.to_datetime(raw.frame["date"], format="%Y%m%d"),
            "discs": raw.frame["number_of_cds"].astype(float),
            "dollars": raw.frame["dollar_value"].astype(float),
        }
    )
    return log.sort_values("date", kind="stable", ignore_index=True)


def splits(table: Table) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return 5 splits into rows to fit, to validate and to test: 69, 11 and 20 %; rows of equal content stay together.

    Where there are hardly any different rows (two or three columns with a few values each), or one row makes up a large
    share, equal rows are different people, and are split as such.
    """
    content = pd.util.hash_pandas_object(table.frame, index=False).to_numpy()
    _, first, group = np.unique(content, return_index=True, return_inverse=True)
    least = 2 * N_SPLITS
    if min(np.bincount(table.y[first], minlength=2)) < least or np.bincount(group).max() > LARGE * len(table.y):
        first = group = np.arange(len(table.y))
    label = table.y[first]
    if min(np.bincount(label, minlength=2)) < least:
        counts = np.bincount(table.y, minlength=2)
        raise PreprocessError(f"{table.name} has {counts} records of no and yes: too few, {least} of each are needed")
    found = []
    for k, (learn, test) in enumerate(StratifiedKFold(N_SPLITS, shuffle=True, random_state=0).split(first, label)):
        fit, validate = next(StratifiedKFold(7, shuffle=True, random_state=k).split(learn, label[learn]))
        found.append(tuple(np.flatnonzero(np.isin(group, part)) for part in (learn[fit], learn[validate], test)))
    return found


def _typed(text: pd.Series, decimal: str, *, keep: bool) -> tuple[pd.Series, str, str]:
    """Return a column's values, its kind ("" if it is left out), and a note on what is not obvious."""
    present = text.dropna()
    n_distinct = present.nunique()
    if n_distinct == 0:
        return text, "", "left out: empty in every record"
    if n_distinct == 1 and len(present) == len(text):
        return text, "", "left out: the same in every record"
    category = text.astype(object).where(text.notna(), None)
    if n_distinct == 1:
        return category, "category", ""  # there or not there
    nearly_all_distinct = n_distinct > IDENTIFIER * len(present) and len(present) >= FEW and not keep
    if present.str.fullmatch(r"0\d+").mean() >= LEADING_ZEROS and not nearly_all_distinct:
        return category, "category", "kept as text: numbers with leading zeros, such as postcodes, are names"
    numbers = _numbers(present, decimal)
    n_slips = int(numbers.isna().sum())
    if n_slips <= (1 - NUMERIC) * len(present):
        whole = present[numbers.notna()].str.fullmatch(r"[+-]?\d+").all()
        if whole and nearly_all_distinct:
            return text, "", "left out: looks like an identifier: whole numbers, nearly all distinct (--keep keeps it)"
        notes = [f"{n_slips} values that are not numbers count as missing"] if n_slips else []
        if pd.to_numeric(present, errors="coerce").isna().sum() > n_slips:
            marks = "a decimal comma" if decimal == "," else "commas between thousands"
            notes.append(f"read as numbers with {marks}")
        kind = "code" if whole and 2 < n_distinct <= N_CODES else "number"
        return numbers.reindex(text.index), kind, "; ".join(notes)
    if nearly_all_distinct:
        some = f", {n_slips} of {len(present)} not numbers" if n_slips < len(present) else ""
        return text, "", f"left out: looks like an identifier: text, nearly all distinct{some} (--keep keeps it)"
    return category, "category", ""


def _numbers(present: pd.Series, decimal: str) -> pd.Series:
    """Return floats, NaN for what is none; 1,234.5 and, with a decimal comma, 1.234,5 and 1234,5 are understood."""
    grouped = present.str.fullmatch(THOUSANDS[decimal])
    if grouped.any() and (decimal == "." or present.str.contains(",").any()):
        present = present.where(~grouped, present.str.replace("," if decimal == "." else ".", ""))
    if decimal == ",":
        present = present.where(~present.str.fullmatch(r"[+-]?\d*,\d+"), present.str.replace(",", "."))
    numbers = pd.to_numeric(present, errors="coerce").astype(float)
    return numbers.where(numbers.abs() < LARGEST)


def _yes_or_no(text: pd.Series, name: str, positive: str | None) -> tuple[np.ndarray, str]:
    """Return 0 and 1, and which value is 1: as asked, or the yes of yes and no, or the rarer of two others."""
    counts = text.value_counts()
    if len(counts) != 2:
        shown = ", ".join(map(repr, counts.index[:5])) + (", ..." if len(counts) > 5 else "")
        raise PreprocessError(f"the target {name!r} must have two values, got {len(counts)}: {shown}")
    if positive is None:
        lower = {value.lower(): value for value in counts.index}
        yes = [value for key, value in lower.items() if key in YES]
        no = [value for key, value in lower.items() if key in NO]
        positive = yes[0] if len(yes) == 1 and len(no) == 1 else counts.index[-1]
    elif positive not in counts.index:
        raise PreprocessError(f"the target {name!r} is never {positive!r}; it is {', '.join(map(repr, counts.index))}")
    return (text == positive).to_numpy(int), positive
