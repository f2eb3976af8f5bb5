"""Step 2, preprocess: decide what each column is, make text into numbers and categories, and set test rows aside.

Nothing is learned from the data here but types; statistics come later, from training rows only.
"""

from __future__ import annotations

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
N_SPLITS = 5


class PreprocessError(ValueError):
    """The records cannot be made into a yes-or-no table; the message says why."""


@dataclass(frozen=True)
class Table:
    """Typed records: float columns with NaN, and text columns with None, for what is missing."""

    name: str
    frame: pd.DataFrame
    y: np.ndarray
    kinds: dict[str, str]  # column -> "number", "code" (a number that may be a name) or "category"
    positive: str
    about: str
    left_out: dict[str, str] = field(default_factory=dict)


def clean(raw: Raw) -> Table:
    """Return the typed table of one-record-a-row data.

    Raises
    ------
    PreprocessError
        If the target does not have two values, or no column is left.
    """
    text = raw.frame.apply(lambda column: column.astype(str).str.strip())
    text = text.mask(text.apply(lambda column: column.str.lower().isin(MISSING)))
    known = text[raw.target].notna()
    y, positive = _yes_or_no(text.loc[known, raw.target], raw.target, raw.positive)
    columns, kinds, left_out = {}, {}, {}
    if not known.all():
        left_out["(rows)"] = f"{int((~known).sum())} without {raw.target!r}"
    for name in text.columns.drop(raw.target):
        values, kind = _typed(text.loc[known, name])
        if kind in ("number", "code", "category"):
            columns[name], kinds[name] = values, kind
        else:
            left_out[name] = kind
    if not columns:
        raise PreprocessError(f"no column of {raw.name} can be learned from: {left_out}")
    frame = pd.DataFrame(columns).reset_index(drop=True)
    return Table(raw.name, frame, y, kinds, positive, raw.about, left_out)


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
    """Return 5 splits into rows to fit, to validate and to test: 68, 12 and 20 %; rows of equal content stay together."""
    content = pd.util.hash_pandas_object(table.frame, index=False).to_numpy()
    _, first, group = np.unique(content, return_index=True, return_inverse=True)
    label = table.y[first]
    if min(np.bincount(label, minlength=2)) < 2 * N_SPLITS:
        raise PreprocessError(
            f"{table.name} has {np.bincount(table.y, minlength=2)} records of the two classes: too few"
        )
    found = []
    for k, (learn, test) in enumerate(StratifiedKFold(N_SPLITS, shuffle=True, random_state=0).split(first, label)):
        folds = StratifiedKFold(7, shuffle=True, random_state=k) if min(np.bincount(label[learn])) >= 7 else None
        fit, validate = next(folds.split(learn, label[learn])) if folds else (slice(0, None, 2), slice(1, None, 2))
        found.append(tuple(np.flatnonzero(np.isin(group, part)) for part in (learn[fit], learn[validate], test)))
    return found


def _typed(text: pd.Series) -> tuple[pd.Series, str]:
    """Return a column's values and its kind, or why it is left out."""
    present = text.dropna()
    n_distinct = present.nunique()
    if n_distinct < 2:
        return text, "the same in every record"
    numbers = pd.to_numeric(present, errors="coerce")
    if numbers.isna().any() and present.str.fullmatch(r"[+-]?\d+(,\d+)?").all():  # 3,14 as much of Europe writes it
        numbers = pd.to_numeric(present.str.replace(",", "."))
    nearly_all_distinct = n_distinct > IDENTIFIER * len(present)
    if np.isfinite(numbers).all():
        whole = (numbers == np.floor(numbers)).all() and not present.str.contains(r"[.,eE]", regex=True).any()
        if whole and nearly_all_distinct:
            return text, "looks like an identifier: whole numbers, nearly all distinct"
        return numbers.astype(float).reindex(text.index), "code" if whole and 2 < n_distinct <= N_CODES else "number"
    if nearly_all_distinct:
        return text, "looks like an identifier: text, nearly all distinct"
    return text.where(text.notna(), None).astype(object), "category"


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
