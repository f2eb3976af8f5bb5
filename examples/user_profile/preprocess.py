"""Step 2, preprocess: decide what each column is, and make text into numbers, dates and categories.

Nothing is learned from the data here but types; statistics come later, from training rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from . import amounts, dates
from .amounts import MISSING
from .collect import Raw
from .columns import PreprocessError as PreprocessError
from .columns import Types as Types
from .columns import common_mark, decide
from .target import target
from .values import Column


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
    columns: tuple[Column, ...] = ()  # of the file, each with how it is read; none of a purchase log
    identifiers: pd.DataFrame = field(default_factory=pd.DataFrame)  # columns that name the record, as text
    groups: tuple[str, ...] = ()  # identifiers that repeat: rows of one value of any of them are about the same person
    alone: bool = False  # whether the user says that no rows are about the same person
    when: np.ndarray | None = None  # days since 1970, of the column that orders the records in time

    def without(self, names: Sequence[str]) -> Table:
        """Return the table without some columns of the file."""
        gone = {feature for column in self.columns if column.name in names for feature in column.features()}
        return replace(
            self,
            frame=self.frame.drop(columns=list(gone)),
            kinds={name: kind for name, kind in self.kinds.items() if name not in gone},
            columns=tuple(column for column in self.columns if column.name not in names),
        )


def clean(raw: Raw, keep: Sequence[str] = (), types: Types | None = None) -> Table:
    """Return the typed table of one-record-a-row data; the columns ``keep`` are kept even if they look like identifiers.

    Raises
    ------
    PreprocessError
        If the target is not a yes or no, no column is left, or one that is named does not exist.
    """
    types = types or Types()
    types = replace(types, keep=(*types.keep, *keep))
    if raw.target in types.named() | {types.group}:
        raise PreprocessError(f"{raw.target!r} is the target, and cannot be kept, typed, or split by")
    absent = types.named() - set(raw.frame.columns.drop(raw.target))
    absent |= {types.group} - {"", "none"} - set(raw.frame.columns)
    if absent:
        raise PreprocessError(f"{raw.name} has no columns {sorted(absent)} to keep, to type or to split by")
    text = raw.frame.apply(lambda column: column.astype(str).str.strip())
    words = MISSING | {word.lower() for word in types.missing}
    whole = text.apply(lambda column: column.str.lower().str.replace(r"\.0+$", "", regex=True))
    blank = whole.isin(words)
    blank[list(types.category)] = text[list(types.category)] == ""  # where every word is a value
    spoken = {name: text.loc[blank[name] & (text[name] != ""), name].value_counts() for name in text}
    text = text.mask(blank)
    notes = {"(file)": "; ".join(raw.notes)} if raw.notes else {}
    counts = {name: text[name].dropna().value_counts().to_dict() for name in text if name != raw.target}
    decimal = types.decimal or raw.decimal or common_mark(counts)
    y, positive, known, said = target(
        text[raw.target], raw.target, raw.positive, blank_is_no=types.blank_is_no, decimal=decimal
    )
    if said:
        notes["(target)"] = said
    if not known.all():
        notes["(rows)"] = f"{int((~known).sum())} without {raw.target!r} are left out"
    text = text[known]
    columns, found, identifiers, groups = decide(text.drop(columns=raw.target), types, decimal)
    for column in columns:  # "NA" may be a region
        if column.kind == "category" and len(spoken[column.name]):
            words_of = ", ".join(map(repr, spoken[column.name].index[:3]))
            said = f"{spoken[column.name].sum()} values {words_of} count as missing (--category makes them values)"
            found[column.name] = "; ".join(filter(None, (found.get(column.name), said)))
    notes |= found
    if types.group not in ("", "none"):
        groups = [types.group]
        if types.group not in types.keep:
            columns = [column for column in columns if column.name != types.group]
            notes[types.group] = "rows of one value stay together (--group), and it is no trait"
    identifiers += [name for name in groups if name not in identifiers]
    frame = pd.DataFrame(
        {name: series for column in columns for name, series in column.read(text[column.name]).items()}
    )
    if not columns:
        raise PreprocessError(f"no column of {raw.name} can be learned from: {notes}")
    index = pd.RangeIndex(1, len(raw.frame) + 1, name="record")[known.to_numpy()]
    frame.index = index
    kinds = {name: kind for column in columns for name, kind in column.features().items()}
    when = _time(text[types.time], types.time, types, decimal) if types.time else None
    return Table(
        raw.name,
        frame,
        y,
        kinds,
        positive,
        raw.about,
        notes,
        tuple(columns),
        identifiers=text[identifiers].set_axis(index) if identifiers else pd.DataFrame(index=index),
        groups=tuple(groups),
        alone=types.group == "none",
        when=when,
    )


def _time(text: pd.Series, name: str, types: Types, decimal: str) -> np.ndarray:
    """Return when each record was made; raises if some are not known."""
    texts = text.dropna().value_counts().to_dict()
    way, _ = dates.dates(texts, types.orders().get(name, ""))
    number = amounts.numbers(texts, decimal)
    when = text.map(way or (number[0] if number else lambda _: np.nan), na_action="ignore").astype(float)
    if when.isna().any():
        raise PreprocessError(f"--time {name}: {int(when.isna().sum())} records have no date or number there")
    return when.to_numpy()
