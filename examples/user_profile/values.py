"""How a column of text is read, value by value: a number, a date that becomes features, or a category.

The way is found once, from all values of a column, and kept: later files and single records are read in the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from .amounts import LARGEST, MISSING, MOST, Numbers, numbers
from .dates import DAY_NAMES, EPOCH, MONTH_NAMES, Dates, as_date, dates


@dataclass(frozen=True)
class Column:
    """A column of the file, and what becomes of its text: ``kind`` is "number", "code", "category" or "date".

    A date becomes the days before ``as_of``, and what else its ``parts`` name: weekday, month, hour.
    """

    name: str
    kind: str
    numbers: Numbers = field(default_factory=Numbers)
    dates: Dates = field(default_factory=Dates)
    as_of: float = 0.0
    parts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # words that count as missing, in lower case, beside those of MISSING
    prefix: int = 0  # a postcode is used by its first characters
    pad: int = 0  # and given back the zeros in front that it has lost
    all_words: bool = False  # whether only what is empty is missing
    moved: float = 0.0  # days by which another file's latest date is later than as_of
    label: str = ""  # what the features of a date are called by, if not by its name

    def features(self) -> dict[str, str]:
        """Return the columns of the typed table that come of it, each with its kind."""
        if self.kind != "date":
            return {self.name: self.kind}
        if self.dates.form == "duration":
            return {self.name: "number"}
        kinds = {"age": "number", "hour": "number", "weekday": "category", "month": "category"}
        return {self._feature(part): kinds[part] for part in ("age", *self.parts)}

    def _feature(self, part: str) -> str:
        name = self.label or self.name
        return f"{name} (days before {as_date(self.as_of)})" if part == "age" else f"{name} ({part})"

    def has_age(self) -> bool:
        """Tell whether it is a date, which becomes days before another."""
        return self.kind == "date" and self.dates.form != "duration"

    def value(self, text: str | None) -> tuple[Any, ...]:
        """Return the values of ``features`` for one text: numbers with NaN, texts with None, for what is missing."""
        known = text is not None and self._is_known(text)
        if self.kind == "category":
            return (self._category(text) if known and text is not None else None,)
        if self.kind != "date":
            return (self.numbers(text) if known and text is not None else math.nan,)
        days = self.dates(text) if known and text is not None else math.nan
        if self.dates.form == "duration":
            return (days,)
        if math.isnan(days):
            return tuple(math.nan if kind == "number" else None for kind in self.features().values())
        day = math.floor(days)
        found: list[Any] = [self.as_of + self.moved - days]
        for part in self.parts:
            if part == "hour":
                found.append(round((days - day) * 24, 6))
            elif part == "weekday":
                found.append(DAY_NAMES[(day + 3) % 7])  # 1970 began on a Thursday
            else:
                found.append(MONTH_NAMES[(EPOCH + timedelta(days=day)).month - 1])
        return tuple(found)

    def of(self, value: Any) -> tuple[Any, ...]:
        """Return the values of ``features`` for a field of a record: text as in the file, a number, or None.

        Raises
        ------
        ValueError
            If it is of another type, or a text that is not what the column holds.
        """
        if value is None:
            return self.value(None)
        if isinstance(value, str):
            text = value.strip()
            found = self.value(text)
            if self.kind != "category" and found[0] != found[0] and self._is_known(text):
                raise ValueError(f"must be a {'date' if self.kind == 'date' else 'number'} or null, got {value!r}")
            return found
        if self.kind == "date" and isinstance(value, date):
            return self.value(str(value))
        if self.kind == "category":
            raise ValueError(f"must be text or null, got {value!r}")
        is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if self.kind == "date" and self.dates.form != "duration":
            raise ValueError(f"must be a date or null, got {value!r}")
        if not is_number or not abs(value) < LARGEST:
            raise ValueError(f"must be a number or null, got {value!r}")
        if self.kind == "code" and value != int(value):
            raise ValueError(f"must be a whole number or null, got {value!r}")
        return (float(value),)

    def written(self, number: float) -> Any:
        """Return a date whose age is this number of days, or a duration of so many minutes, as the file would have it."""
        if self.dates.form == "duration":
            return f"{int(number) // 60}:{int(number) % 60:02}"
        days = self.as_of - number
        if self.dates.form in ("seconds", "milliseconds"):
            return str(round(days * (86400 if self.dates.form == "seconds" else 86_400_000)))
        text = as_date(days)
        return (
            text.replace("-", "") if self.dates.form == "compact" else text[:7] if self.dates.form == "month" else text
        )

    def _category(self, text: str) -> str:
        if self.pad and re.fullmatch(r"\d+(?:\.0+)?", text):
            text = text.partition(".")[0].zfill(self.pad)
        return text[: self.prefix] if self.prefix else text

    def _is_known(self, text: str) -> bool:
        if self.all_words:
            return text != ""
        return text.lower() not in MISSING and text.lower() not in self.missing

    def for_file(self, texts: Mapping[str, int], decimal: str) -> tuple[Column, str]:
        """Return the column as another file writes it, by the evidence of its values, and what is worth saying.

        Raises
        ------
        ValueError
            If a tenth of the values cannot be read.
        """
        known = {text: count for text, count in texts.items() if self._is_known(text)}
        if self.kind == "category" or not known:
            return self, ""
        column, said = self._numbers_of(known, decimal) if self.kind != "date" else self._dates_of(known)
        unread = [text for text in known if (value := column.value(text)[0]) != value]
        n, all_of_them = sum(known[text] for text in unread), sum(known.values())
        if n > (1 - MOST) * all_of_them:
            raise ValueError(f"{n} of {all_of_them} values, such as {unread[0]!r}, are not written as in training")
        if n:
            said.append(f"{n} values, such as {unread[0]!r}, cannot be read, and count as missing")
        return column, "; ".join(said)

    def _numbers_of(self, known: Mapping[str, int], decimal: str) -> tuple[Column, list[str]]:
        found = numbers(known, decimal or self.numbers.decimal, most=0.5)
        if found is None:
            return self, []
        way, notes = found
        own = set(self.numbers.factors) - {""}
        if "%" in own and "%" not in way.factors:
            raise ValueError("the values have no '%' here, which they had in training: they may be a hundredth")
        marks = any(c in ".," for text in known for c in text)
        said = [note for note in notes if "--decimal" in note]
        if marks and way.decimal != self.numbers.decimal:
            said.append(f"{way.decimal!r} is the decimal mark here, and was {self.numbers.decimal!r} in training")
        factors = self.numbers.factors
        if not own and set(way.factors) != {""} and all(factor == 1 for factor in way.factors.values()):
            factors = way.factors
            said.append(f"the numbers are of {max(factors)!r} here, and were of nothing in training")
        mark = way.decimal if marks else self.numbers.decimal
        return replace(self, numbers=Numbers(mark, factors)), said

    def _dates_of(self, known: Mapping[str, int]) -> tuple[Column, list[str]]:
        if self.dates.form != "date":
            return self, []
        way, notes = dates(known, self.dates.order)
        if way is None or way.form != "date" or way.order in ("", self.dates.order) or notes:
            return self, []
        said = f"dates are {way.order} here, and were {self.dates.order} in training" if self.dates.order else ""
        return replace(self, dates=replace(self.dates, order=way.order)), [said] if said else []

    def latest(self, texts: Mapping[str, int]) -> float:
        """Return the latest date of these texts, in days since 1970; -inf if there is none."""
        days = [day for text in texts if self._is_known(text) and not math.isnan(day := self.dates(text))]
        return math.floor(max(days)) if days else -math.inf

    def read(self, texts: pd.Series) -> dict[str, pd.Series]:
        """Return the typed columns of many texts: each different text is read once."""
        codes, kinds = pd.factorize(texts)
        found = list(zip(*map(self.value, [*kinds, None]), strict=True))  # what is missing has the code -1, the last
        out = {}
        for (name, kind), values in zip(self.features().items(), found, strict=True):
            array = np.array(values, object if kind == "category" else float)
            out[name] = pd.Series(array[codes], index=texts.index, dtype=array.dtype)
        return out

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Column:
        """Return what ``to_json`` returned."""
        made = {"numbers": Numbers(**state["numbers"]), "dates": Dates(**state["dates"])}
        lists = {name: tuple(state[name]) for name in ("parts", "missing")}
        return cls(**{**state, **made, **lists})
