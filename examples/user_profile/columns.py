"""What each column of a file is, by its values, its name, and what the user says: a number, a date, a category, or none of these.

Whatever is left out, or read in a way that is not plain, has a note.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from . import amounts, dates
from .amounts import NO_NUMBER
from .values import Column

N_CODES = 20  # an integer column with no more values than this may be a code
IDENTIFIER = 0.95  # of the values distinct: a number or name of the record, not a trait
FEW = 30  # values say nothing yet of what is distinct
REPEATS = 1.02  # records an identifier, on average: it says whom they are about
NAMES = 0.2  # of the values of a text distinct: names, more likely than a trait
LEADING_ZEROS = 0.02  # of the values with one: not a slip, but postcodes and the like
RARE = 5  # records with a value, at least, that it is a category of its own
WORDS = 0.4  # of the values of a number column may be one of a few words that mean none

_ID = r"(?:ids?|uuid|guid|no|nr|num|number|key|code|ref|idx|index|hash|nummer|编号|编码|号码?|番号|番號|コード|번호|номер|код)"
_PEOPLE = (
    r"(?:cust|customer|user|client|member|person|visitor|guest|patient|employee|subscriber|buyer|shopper|household|kunden?|cliente|"
    r"klient|клиент|покупатель|客户|用户|会员|顧客|会員|고객)"
)
_THINGS = (
    r"(?:policy|booking|order|account|contract|invoice|reservation|ticket|transaction|session|device|loyalty|card)"
)
_IS_ID = re.compile(
    rf"(?:.*(?:^| )){_ID}|.*(?:编号|编码|番号|번호|nummer)|.*(?:[^a-z]|kunden?|kd)nr|{_THINGS}s? ?{_ID}|loyalty card|.*卡号|"
    rf"(?:id|codigo|código|numero|número|num|номер|ид) ?(?:de |du |del )?(?:{_PEOPLE}|договор)[а-я]?s?"
)
_IS_GROUP = re.compile(rf"(?:{_PEOPLE}s? ?{_ID}?|{_ID} {_PEOPLE}|account ?{_ID}|ids?)")
_IS_PERSONAL = re.compile(
    r"(?:.* )?(?:sur ?name|(?:last|first|full|middle|customer|user|client|contact|guest|family) ?name|e ?mail(?: address)?|phone|"
    r"mobile|telephone|(?:phone|mobile|telephone) (?:no|nr|number)|address|street|nachname|vorname|strasse|straße|adresse|prenom|"
    r"prénom|apellidos?|фамилия|имя|отчество|телефон|адрес|姓名|名字|电话|手机|手机号|邮箱|地址|氏名|住所|電話|이름)|name|nom|nombre"
)
_IS_POSTCODE = re.compile(
    r"(?:.* )?(?:zip|zip ?codes?|post ?code|postal ?code|plz|postleitzahl|cep|pin ?code|code postal|почтовый индекс|индекс|"
    r"邮编|邮政编码|郵便番号)"
)
_IS_TIME = re.compile(
    r"time|date|stamp|epoch|since|created|updated|seen|login|when|zeit|datum|дата|время|时间|日期|日時|(?:^| )(?:at|ts)$"
)
_IS_BIRTH = re.compile(r"birth|born|\bdob\b|geburt|geboren|naissance|nacimiento|рожд|出生|生日|誕生")
_IS_AMOUNT = re.compile(
    r"income|salary|balance|amount|price|revenue|sales|spen[dt]|turnover|cost|money|total|收入|金额|余额|доход|сумма"
)
_PAIR = re.compile(r"\(?-?\d+\.\d+\s*[,; ]\s*-?\d+\.\d+\)?")
_WHOLE = re.compile(r"[+-]?\d+(?:\.0+)?|\d{1,3}(?: \d{3})+")
_SENTINEL = re.compile(r"(?:-9|-99|-999|-9999|999|9999|99999|-99999)(?:\.0+)?")
_MARKS = frozenset(("train", "test", "valid", "validation", "val", "dev", "holdout", "training", "testing"))


class PreprocessError(ValueError):
    """The records cannot be made into a yes-or-no table; the message says why, and what to do."""


@dataclass(frozen=True)
class Types:
    """What the user says of columns, where looking at them is not enough."""

    keep: Sequence[str] = ()
    drop: Sequence[str] = ()
    number: Sequence[str] = ()
    category: Sequence[str] = ()
    date: Sequence[str] = ()  # "COLUMN", "COLUMN=dmy", "COLUMN=mdy" or "COLUMN=ymd"
    missing: Sequence[str] = ()  # words
    decimal: str = ""
    group: str = ""
    time: str = ""
    blank_is_no: bool = False

    def orders(self) -> dict[str, str]:
        """Return the date columns, each with its order."""
        pairs = [re.fullmatch(r"(.*?)(?:=(dmy|mdy|ymd))?", name) for name in self.date]
        return {found[1]: found[2] or "" for found in pairs if found}

    def named(self) -> set[str]:
        """Return all columns that are named."""
        return {*self.keep, *self.drop, *self.number, *self.category, *self.orders(), *filter(None, (self.time,))}


@dataclass(frozen=True)
class Decision:
    """What becomes of a column: how it is read (None: it is left out), a note, and "id" or "group" if it names records."""

    column: Column | None
    note: str = ""
    role: str = ""


def decide(text: pd.DataFrame, types: Types, decimal: str) -> tuple[list[Column], dict[str, str], list[str], list[str]]:
    """Return how each column is read, notes, those that name the record, and those of them that name persons."""
    texts = {name: text[name].dropna().value_counts().to_dict() for name in text}
    order = _common_order(texts)
    columns, notes, identifiers, groups = [], {}, [], []
    for name, counts in texts.items():
        decision = _Evidence(name, counts, len(text), types, decimal, order).decision()
        if decision.column:
            columns.append(decision.column)
        if decision.role:
            identifiers.append(name)
        if decision.role == "group":
            groups.append(name)
        if decision.note:
            notes[name] = decision.note
    latest = [column.as_of for column in columns if column.has_age()]
    columns = [replace(column, as_of=max(latest)) if column.has_age() else column for column in columns]
    others = {column.name for column in columns}
    columns = [
        replace(column, label=f"{column.name} [date]") if set(column.features()) & (others - {column.name}) else column
        for column in columns
    ]
    return columns, notes, identifiers, groups


def common_mark(texts: dict[str, dict[str, int]]) -> str:
    """Return the decimal mark that the numbers of the file show, if they all show the same."""
    shown = Counter(mark for counts in texts.values() for mark in amounts.shown_marks(counts))
    return next(iter(shown)) if len(shown) == 1 else ""


def _common_order(texts: dict[str, dict[str, int]]) -> str:
    """Return the order of day and month that the dates of the file show."""
    found = [dates.dates(counts) for counts in texts.values() if len(counts) > 1]
    orders = {way.order for way, notes in found if way and way.order in ("dmy", "mdy") and not notes}
    return orders.pop() if len(orders) == 1 else ""


def _spaced(name: str) -> str:
    """Return a column's name in lower case, with spaces between its words: "CustomerID" is "customer id"."""
    return re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).lower().strip()


@dataclass
class _Evidence:
    """A column's different texts with their counts, and what is asked of them, one question after the other."""

    name: str
    texts: dict[str, int]
    n_rows: int
    types: Types
    decimal: str
    order: str
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.n = sum(self.texts.values())
        self.spaced = _spaced(self.name)
        self.kept = self.name in self.types.keep
        self.nearly_all_differ = len(self.texts) > IDENTIFIER * self.n and self.n >= FEW and not self.kept
        several = FEW <= len(self.texts) < self.n / REPEATS
        self.repeats = bool(_IS_GROUP.fullmatch(self.spaced)) and several and self.types.group != "none"
        self.words = tuple(word.lower() for word in self.types.missing)

    def decision(self) -> Decision:
        """Decide: what the user says first, then what is empty, then dates, names, postcodes, numbers, and text."""
        role = "group" if self.repeats else ""  # whatever is said of it as a trait, its rows are about one person
        if self.name in self.types.drop:
            return Decision(None, "left out (--drop)", role)
        if not self.texts:
            return Decision(None, "left out: empty in every record")
        if self.name in self.types.category:
            return Decision(Column(self.name, "category", all_words=True, missing=self.words), "", role)
        if len(self.texts) == 1 and self.n == self.n_rows:
            return Decision(None, "left out: the same in every record")
        if self.name in self.types.orders():
            return self._dates(must=True)
        if len(self.texts) == 1:
            return Decision(self._category())  # there or not there
        if self.name in self.types.number:
            return replace(self._numbers(must=True), role=role)
        if self.kept and role:
            found = self._numbers(must=True) if all(map(amounts.is_number, self.texts)) else Decision(self._category())
            return replace(found, role=role)
        for look in (self._dates, self._personal, self._marks, self._postcode, self._zeros, self._numbers):
            found = look()
            if found.column or found.role or found.note:
                return found
        return self._text()

    def _category(self) -> Column:
        return Column(self.name, "category", missing=self.words)

    def _without_words(self, is_one: Callable[[str], bool]) -> tuple[dict[str, int], tuple[str, ...], list[str]]:
        """Return the texts without the words that mean none among numbers or dates, these words, and what is to be said."""
        known = {text: count for text, count in self.texts.items() if text.lower() not in NO_NUMBER}
        odd = [text for text in known if not is_one(text)]
        few = 0 < len(odd) <= 3 and sum(known[text] for text in odd) <= WORDS * self.n
        if few and len(known) > 10 and not any(c.isdigit() for text in odd for c in text):
            known = {text: count for text, count in known.items() if text not in odd}
        none = sorted(self.texts.keys() - known.keys()) if known else []
        if not none:
            return self.texts, self.words, []
        n = self.n - sum(known.values())
        said = f"{n} values that mean none ({', '.join(map(repr, none[:5]))}) count as missing"
        return known, (*(text.lower() for text in none), *self.words), [said]

    # -- dates

    def _dates(self, *, must: bool = False) -> Decision:
        known, missing, said = self._without_words(dates.is_date)
        asked = self.types.orders().get(self.name, "")
        born = bool(_IS_BIRTH.search(self.spaced))
        way, notes = dates.dates(
            known, asked or self.order, forced=bool(asked), epoch=must or bool(_IS_TIME.search(self.spaced)), born=born
        )
        if way is None:
            if must:
                raise PreprocessError(
                    f"--date {self.name}: three in four of its values are not read as dates, such as {next(iter(known))!r}; "
                    "a word that means none is named by --missing"
                )
            self.said = notes  # of both orders of day and month, say
            return Decision(None)
        days = {text: way(text) for text in known}
        slips = sum(known[text] for text, day in days.items() if np.isnan(day))
        notes = [*notes, *([f"{slips} values that are no dates count as missing"] if slips else [])]
        if way.form == "duration":
            return Decision(Column(self.name, "date", dates=way, missing=missing), "; ".join([*said, *notes]))
        found = np.array([day for day in days.values() if not np.isnan(day)])
        parts: tuple[str, ...] = ()
        if not born and way.form != "month" and np.unique(np.floor(found)).size >= 14:
            parts += ("weekday",)
        if np.ptp(found) >= 365:
            parts += ("month",)
        if (found % 1).any():
            parts += ("hour",)
        what = f"a date: {', '.join(('days before the file’s latest date', *parts))}"
        as_of = float(np.floor(found.max()))
        column = Column(self.name, "date", dates=way, as_of=as_of, parts=parts, missing=missing)
        return Decision(column, "; ".join([what, *said, *notes]))

    # -- names, marks and places

    def _personal(self) -> Decision:
        if not _IS_PERSONAL.fullmatch(self.spaced) or len(self.texts) <= N_CODES or self.kept:
            return Decision(None)
        phone = "phone" in self.spaced or "tele" in self.spaced or "mobile" in self.spaced
        numbers = sum(count for text, count in self.texts.items() if amounts.is_number(text))
        if numbers > 0.5 * self.n and not phone:
            return Decision(None)
        return Decision(None, "left out: personal, such as names and addresses (--category uses it)", "id")

    def _marks(self) -> Decision:
        if set(map(str.lower, self.texts)) <= _MARKS:
            return Decision(None, "left out: marks the rows to train and to test with")
        return Decision(None)

    def _postcode(self) -> Decision:
        if not (_IS_POSTCODE.fullmatch(self.spaced) and len(self.texts) > N_CODES):
            return Decision(None)
        digits = [re.fullmatch(r"(\d+)(?:\.0+)?", text) for text in self.texts]
        lengths = {len(found[1]) for found in digits if found}
        pad = max(lengths) if all(digits) and max(lengths) <= 6 else 0  # Excel takes the zeros in front away
        said = f", with the zeros in front to {pad} digits" if pad and len(lengths) > 1 else ""
        column = Column(self.name, "category", missing=self.words, prefix=2, pad=pad)
        return Decision(column, f"a postcode: used by its first two characters{said}")

    def _zeros(self) -> Decision:
        zeros = sum(count for text, count in self.texts.items() if re.fullmatch(r"0\d+", text))
        if zeros < LEADING_ZEROS * self.n:
            return Decision(None)
        if self.repeats:
            return self._group()
        if self.nearly_all_differ:
            return Decision(
                None, "left out: looks like an identifier: digits with leading zeros (--category uses it)", "id"
            )
        return Decision(self._category(), "kept as text: numbers with leading zeros, such as postcodes, are names")

    def _group(self) -> Decision:
        mean = self.n / len(self.texts)
        note = (
            f"says whom a row is about, {mean:.1f} rows each, and is no trait (--group names another column, or none)"
        )
        return Decision(None, note, "group")

    # -- numbers

    def _numbers(self, *, must: bool = False) -> Decision:
        known, missing, said = self._without_words(amounts.is_number)
        found = amounts.numbers(known, self.types.decimal or self.decimal, most=0.5 if must else amounts.MOST)
        if found is None:
            if must:
                raise PreprocessError(
                    f"--number {self.name}: fewer than half of its values are numbers of one unit, such as "
                    f"{next(iter(known))!r}; a word that means none is named by --missing"
                )
            if (several := amounts.currencies(known)) and len(several) > 1:
                return self._text(f"amounts in several currencies ({', '.join(several)}), which are not compared")
            return Decision(None)
        way, notes = found
        n = sum(known.values())
        read = {text: way(text) for text in known}
        good = {text: value for text, value in read.items() if not np.isnan(value)}
        slips = n - sum(known[text] for text in good)
        if slips > (1 - amounts.MOST) * n and not must:
            return self._text(f"{slips} of {n} values are no numbers (--number makes them missing)")
        whole = all(_WHOLE.fullmatch(text) for text in good)
        if whole and max(len(text) for text in good) > 15 and not must:
            return self._text("whole numbers of more digits than a float holds: names")
        if whole and not must and not self.kept:
            if self.repeats:
                return self._group()
            named = bool(_IS_ID.fullmatch(self.spaced) or _IS_GROUP.fullmatch(self.spaced))
            if self.nearly_all_differ and (named or self._counts_records(good)):
                text = "looks like an identifier: whole numbers, nearly all distinct (--keep keeps it)"
                return Decision(None, f"left out: {text}", "id")
        said += [f"{slips} values that are not numbers count as missing"] if slips else []
        said += [*self.said, *notes, *self._sentinels(good)]
        counts = all(value == round(value) for value in good.values())
        kind = "code" if counts and 2 < len(known) <= N_CODES else "number"
        return Decision(Column(self.name, kind, numbers=way, missing=missing), "; ".join(said))

    def _counts_records(self, good: dict[str, float]) -> bool:
        """Tell whether distinct whole numbers are those of records: one after the other, in steps, or long and of one length."""
        if _IS_AMOUNT.search(self.spaced):
            return False
        numbers = np.array(list(good.values()))
        steps = np.diff(np.sort(numbers))
        even = bool(len(steps) and steps.min() > 0 and np.quantile(steps, 0.9) <= 1.5 * np.median(steps))
        lengths = {len(re.sub(r"\D", "", text.removesuffix(".0"))) for text in good}
        return bool(np.ptp(numbers) < 2 * len(numbers) or even or (len(lengths) == 1 and lengths.pop() >= 9))

    def _sentinels(self, good: dict[str, float]) -> list[str]:
        """Say which values may stand for "not known": -999 among ages."""
        known, found = np.array(list(good.values())), []
        for text in filter(_SENTINEL.fullmatch, good):
            value, others, n = good[text], known[known != good[text]], self.texts[text]
            if n < 3 or not len(others):
                continue
            low, high, width = others.min(), others.max(), np.ptp(others)
            if value < low - width or value > high + width or value < 0 <= low:
                found.append(f"{text} in {n} records is taken as a number; if it means not known: --missing {text}")
        return found

    # -- text

    def _text(self, why: str = "") -> Decision:
        said = [*self.said, *([why] if why else [])]
        if self.repeats:
            return self._group()
        if sum(count for text, count in self.texts.items() if _PAIR.fullmatch(text)) > 0.9 * self.n:
            return Decision(None, "left out: pairs of numbers, such as coordinates: give each a column of its own")
        many = len(self.texts) > NAMES * self.n and len(self.texts) > FEW and not self.kept
        if self.nearly_all_differ or many:
            what = "looks like an identifier: text, nearly all distinct"
            if not self.nearly_all_differ:
                what = f"{len(self.texts)} different texts, names more likely than a trait"
            return Decision(None, "; ".join([*said, f"left out: {what} (--category uses it)"]), "id")
        said += ["used as text"] if why else []
        rare = sum(count for count in self.texts.values() if count < RARE)
        if rare > 0.2 * self.n and self.n >= FEW:
            said.append(f"{rare} records have values that fewer than {RARE} share: they count as “other”")
        return Decision(self._category(), "; ".join(said))
