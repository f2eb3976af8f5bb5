"""Step 2, preprocess: decide what each column is, and make text into numbers, dates and categories.

Nothing is learned from the data here but types; statistics come later, from training rows only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from . import values
from .collect import Raw
from .values import MISSING, NO_NUMBER, Column

YES = {
    *("yes", "y", "true", "t", "1", "si", "sí", "ja", "oui", "da", "да", "sim", "tak", "evet"),
    "是",
    "有",
    "はい",
    "예",
    "네",
}
NO = {
    *("no", "n", "false", "f", "0", "nein", "non", "nee", "нет", "não", "nao", "nie", "hayır"),
    "否",
    "无",
    "いいえ",
    "아니오",
}
N_CODES = 20  # an integer column with no more values than this may be a code
IDENTIFIER = 0.95  # of the values distinct: a number or name of the record, not a trait
FEW = 30  # values say nothing yet of what is distinct
REPEATS = 1.5  # records an identifier, on average: it says whom they are about
NAMES = 0.2  # of the values of a text distinct: names, more likely than a trait
LEADING_ZEROS = 0.02  # of the values with one: not a slip, but postcodes and the like
RARE = 5  # records with a value, at least, that it is a category of its own

_ID = re.compile(
    r"(?<![a-z])(?:ids?|uuid|guid|no|nr|num|number|key|code|ref|idx|index)(?![a-z])|编号|编码|номер|番号|番號|번호|(?:用户|客户|会员)id"
)
_PEOPLE = re.compile(
    r"^ids?$|(?<![a-z])(?:cust|customer|user|client|member|person|account|household|visitor|guest|patient|employee|subscriber|buyer|"
    r"shopper|kunden?|client|cliente|klient)(?![a-z])|клиент|покупател|客户|用户|会员|顧客|会員|고객"
)
_PERSON = re.compile(
    r"(?<![a-z])(?:sur ?name|(?:last|first|full|middle|customer|user|client) ?name|name|e ?mail|phone|mobile|telephone|address|"
    r"street|nachname|vorname|strasse|straße|adresse|nom|prenom|prénom|apellidos?|nombre|calle)(?![a-z])|"
    r"фамилия|имя|отчество|телефон|адрес|姓名|名字|电话|手机|邮箱|地址|氏名|住所|電話"
)
_POSTCODE = re.compile(
    r"(?<![a-z])(?:zip|zip ?code|post ?code|postal ?code|postal|plz|postleitzahl|cep|code postal|cap)(?![a-z])|индекс|邮编|郵便"
)
_PAIR = re.compile(r"\(?-?\d+\.\d+\s*[,; ]\s*-?\d+\.\d+\)?")
_MARK = frozenset(("train", "test", "valid", "validation", "val", "dev", "holdout", "training", "testing"))


class PreprocessError(ValueError):
    """The records cannot be made into a yes-or-no table; the message says why, and what to do."""


@dataclass(frozen=True)
class Types:
    """What the user says of columns, where looking at them is not enough."""

    keep: Sequence[str] = ()
    drop: Sequence[str] = ()
    number: Sequence[str] = ()
    category: Sequence[str] = ()
    date: Sequence[str] = ()  # "COLUMN", "COLUMN=dmy" or "COLUMN=mdy"
    missing: Sequence[str] = ()  # words
    decimal: str = ""
    group: str = ""
    time: str = ""
    blank_is_no: bool = False

    def orders(self) -> dict[str, str]:
        """Return the date columns, each with its order."""
        pairs = [name.rpartition("=") if name.endswith(("=dmy", "=mdy")) else (name, "", "") for name in self.date]
        return {name: order for name, _, order in pairs}

    def named(self) -> set[str]:
        """Return all columns that are named."""
        return {*self.keep, *self.drop, *self.number, *self.category, *self.orders(), *filter(None, (self.time,))}


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
    group: str = ""  # the identifier that repeats: its rows are about the same person
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
    absent = types.named() - set(raw.frame.columns.drop(raw.target))
    absent |= {types.group} - {"", "none"} - set(raw.frame.columns)
    if absent:
        raise PreprocessError(f"{raw.name} has no columns {sorted(absent)} to keep, to type or to split by")
    text = raw.frame.apply(lambda column: column.astype(str).str.strip())
    words = MISSING | {word.lower() for word in types.missing}
    text = text.mask(text.apply(lambda column: column.str.lower().isin(words)))
    notes = {"(file)": "; ".join(raw.notes)} if raw.notes else {}
    y, positive, known, said = target(text[raw.target], raw.target, raw.positive, blank_is_no=types.blank_is_no)
    if said:
        notes["(target)"] = said
    if not known.all():
        notes["(rows)"] = f"{int((~known).sum())} without {raw.target!r} are left out"
    text = text[known]
    columns, found, identifiers, group = _columns(text.drop(columns=raw.target), types, raw.decimal)
    notes |= found
    if types.group:
        group = "" if types.group == "none" else types.group
        if group and group not in identifiers and group not in types.keep:
            identifiers.append(group)
            columns = [column for column in columns if column.name != group]
            notes[group] = "rows of one value stay together (--group), and it is not used as a trait"
    frame = pd.DataFrame(
        {name: series for column in columns for name, series in column.read(text[column.name]).items()}
    )
    if not columns:
        raise PreprocessError(f"no column of {raw.name} can be learned from: {notes}")
    index = pd.RangeIndex(1, len(raw.frame) + 1, name="record")[known.to_numpy()]
    frame.index = index
    kinds = {name: kind for column in columns for name, kind in column.features().items()}
    named = [*identifiers, *({group} - {""} - set(identifiers))]
    when = _time(text[types.time], types.time, types, raw.decimal) if types.time else None
    return Table(
        *(raw.name, frame, y, kinds, positive, raw.about, notes, tuple(columns)),
        identifiers=text[named].set_axis(index) if named else pd.DataFrame(index=index),
        group=group,
        when=when,
    )


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


# -- the target


def target(
    text: pd.Series, name: str, positive: str | None, *, blank_is_no: bool = False
) -> tuple[np.ndarray, str, pd.Series, str]:
    """Return 0 and 1 of the records that are known, what 1 is, which those are, and what is worth saying.

    1 is what ``positive`` asks for, a value or a comparison such as ">500"; else the yes of yes and no, or the rarer of two.
    """
    if blank_is_no:
        some = text.notna() if positive is None else _folded(text) == _folded(pd.Series([positive]))[0]
        if positive is None and (counts := _folded(text.dropna()).value_counts()).size == 2:
            raise PreprocessError(
                f"the target {name!r} has two values and blanks, {list(counts.index)}: name the yes, --positive"
            )
        _both(some.to_numpy(), name)
        return some.to_numpy(int), positive or f"{name}: given", pd.Series(True, text.index), "a blank counts as no"
    known = text.notna()
    present = text[known]
    folded = _folded(present)
    if positive is not None and re.match(r"[<>]=?", positive.strip()) and not (present == positive).any():
        return _compared(present, known, name, positive.strip())
    spelled = present.groupby(folded).agg(lambda some: some.value_counts().index[0]).to_dict() if len(present) else {}
    counts = folded.value_counts()
    shown = ", ".join(f"{spelled[value]!r} ({n})" for value, n in counts[:5].items()) + (
        ", ..." if len(counts) > 5 else ""
    )
    note = ""
    if positive is not None:
        wanted = _folded(pd.Series([positive]))[0]
        if wanted not in counts.index:
            raise PreprocessError(f"the target {name!r} is never {positive!r}; it is {shown}")
        if len(counts) > 2:
            note = f"{spelled[wanted]!r} against all others: {shown}"
    elif len(counts) == 2:
        yes, no = ([value for value in counts.index if value in some] for some in (YES, NO))
        wanted = yes[0] if len(yes) == 1 and len(no) == 1 else counts.index[-1]
    else:
        raise PreprocessError(
            f"the target {name!r} must have two values, got {len(counts)}: {shown}. {_advice(present, known, counts)}"
        )
    if len(counts) < 2:
        raise PreprocessError(
            f"the target {name!r} must have two values, got 1: {shown}. {_advice(present, known, counts)}"
        )
    if present.nunique() > len(counts):
        note = "; ".join(filter(None, (note, "spellings that differ in case, or as 1 and 1.0, are one value")))
    return (folded == wanted).to_numpy(int), spelled[wanted], known, note


def _folded(text: pd.Series) -> pd.Series:
    """Return the values without case, and without a .0."""
    return text.str.casefold().str.replace(r"^([-+]?\d+)\.0+$", r"\1", regex=True)


def _both(some: np.ndarray, name: str) -> None:
    if some.all() or not some.any():
        raise PreprocessError(
            f"the target {name!r} is {'always' if some.all() else 'never'} a yes: there is nothing to tell apart"
        )


def _advice(present: pd.Series, known: pd.Series, counts: pd.Series) -> str:
    """Say what to do with a target that has not two values."""
    if len(counts) == 1 and not known.all():
        return f"If the {int((~known).sum())} blanks are the no, say so: --blank-is-no"
    if len(counts) < 2:
        return "Is it the right column?"
    texts = present.value_counts().to_dict()
    if len(counts) > 10 and values.dates("", texts)[0]:
        return "They are dates: if a blank means that it has not happened, --blank-is-no makes every date a yes"
    number = values.numbers(texts)
    if len(counts) > 5 and number:
        numbers = present.map(number[0]).dropna()
        low, middle, high = numbers.min(), numbers.median(), numbers.max()
        return f"They are numbers from {low:g} to {high:g}: say from where on it is a yes, --positive '>{middle:g}'"
    return "Name the yes, --positive VALUE: all other values are the no"


def _compared(present: pd.Series, known: pd.Series, name: str, positive: str) -> tuple[np.ndarray, str, pd.Series, str]:
    found = re.fullmatch(r"([<>]=?)\s*(.+)", positive)
    way = values.numbers(present.value_counts().to_dict())
    if found is None or way is None or np.isnan(limit := way[0](found[2])):
        raise PreprocessError(
            f"--positive {positive!r} compares numbers, and the target {name!r}, or what follows, is none"
        )
    numbers = present.map(way[0])
    compare = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}[found[1]]
    some = compare(numbers, limit)[numbers.notna()]
    _both(some.to_numpy(), name)
    known = known & numbers.reindex(known.index).notna()
    return some.to_numpy(int), f"{name} {positive}", known, ""


# -- the columns


def _columns(text: pd.DataFrame, types: Types, decimal: str) -> tuple[list[Column], dict[str, str], list[str], str]:
    """Return how each column is read, notes, those that name the record, and the one of them whose values repeat."""
    texts = {name: text[name].dropna().value_counts().to_dict() for name in text}
    mark = types.decimal or decimal or _common_mark(texts)
    order = _common_order(texts)
    columns, notes, identifiers, group = [], {}, [], ""
    for name in text:
        column, note, role = _typed(name, texts[name], len(text), types, mark, order)
        if column:
            columns.append(column)
        if role:
            identifiers.append(name)
        if role == "group" and not group:
            group = name
        if note:
            notes[name] = note
    latest = [column.as_of for column in columns if column.kind == "date" and column.dates.form != "duration"]
    columns = [
        replace(column, as_of=max(latest)) if column.kind == "date" and column.dates.form != "duration" else column
        for column in columns
    ]
    return columns, notes, identifiers, group


def _common_mark(texts: dict[str, dict[str, int]]) -> str:
    """Return the decimal mark that the numbers of the file show, if they all show the same."""
    shown = Counter(mark for counts in texts.values() for mark in values.shown_marks(counts))
    return next(iter(shown)) if len(shown) == 1 else ""


def _common_order(texts: dict[str, dict[str, int]]) -> str:
    """Return the order of day and month that the dates of the file show."""
    found = [values.dates(name, counts) for name, counts in texts.items() if len(counts) > 1]
    orders = {way.order for way, notes in found if way and way.order and not notes}
    return orders.pop() if len(orders) == 1 else ""


def _spaced(name: str) -> str:
    """Return a column's name in lower case, with spaces between its words: "CustomerID" is "customer id"."""
    return re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).lower().strip()


def _typed(
    name: str, texts: dict[str, int], n_rows: int, types: Types, decimal: str, order: str
) -> tuple[Column | None, str, str]:
    """Return how a column is read (None: left out), a note on what is not obvious, and "id" or "group" if it names records."""
    n, spaced = sum(texts.values()), _spaced(name)
    if name in types.drop:
        return None, "left out (--drop)", ""
    if not texts:
        return None, "left out: empty in every record", ""
    if len(texts) == 1 and n == n_rows:
        return None, "left out: the same in every record", ""
    kept = name in types.keep
    if name in types.category:
        return Column(name, "category"), "", ""
    words = {text: count for text, count in texts.items() if text.lower() not in NO_NUMBER}
    words = words or texts
    none = sorted(texts.keys() - words.keys())
    missing = (*(text.lower() for text in none), *(word.lower() for word in types.missing))
    said = (
        [f"{n - sum(words.values())} values that mean none ({', '.join(map(repr, none))}) count as missing"]
        if none
        else []
    )
    if name in types.date or name in types.orders():
        return _of_dates(name, words, types.orders().get(name) or order, missing, said, must=True)
    if len(texts) == 1:
        return Column(name, "category"), "", ""  # there or not there
    if name not in types.number:
        column, note, role = _of_dates(name, words, order, missing, said)
        if column:
            return column, note, role
        if note:
            said.append(note)
        if _PERSON.search(spaced) and len(texts) > N_CODES and not kept:
            return None, "left out: personal, such as names and addresses (--category uses it)", "id"
        if set(map(str.lower, texts)) <= _MARK:
            return None, "left out: marks the rows to train and to test with", ""
    distinct = len(texts) > IDENTIFIER * n and n >= FEW and not kept
    named = bool(_ID.search(spaced)) and not kept
    repeated = (
        bool(_PEOPLE.search(spaced))
        and not kept
        and n >= REPEATS * len(texts)
        and len(texts) >= FEW
        and n > 0.5 * n_rows
    )
    if _POSTCODE.search(spaced) and len(texts) > N_CODES and name not in types.number:
        return Column(name, "category", prefix=2), "a postcode: used by its first two characters", ""
    zeros = sum(count for text, count in texts.items() if re.fullmatch(r"0\d+", text)) >= LEADING_ZEROS * n
    if zeros and not (distinct or repeated) and name not in types.number:
        return Column(name, "category"), "kept as text: numbers with leading zeros, such as postcodes, are names", ""
    found = values.numbers(words, decimal)
    if name in types.number and not found:
        raise PreprocessError(
            f"--number {name}: fewer than nine in ten of its values are numbers, such as {next(iter(texts))!r}"
        )
    if found:
        return _of_numbers(
            name, words, found, distinct, named, repeated, missing, said, forced=name in types.number or kept
        )
    if sum(count for text, count in texts.items() if _PAIR.fullmatch(text)) > 0.9 * n:
        return None, "left out: pairs of numbers, such as coordinates: give each a column of its own", ""
    if repeated:
        return None, _about_a_group(n / len(texts)), "group"
    if distinct:
        n_numbers = sum(count for text, count in words.items() if values.numbers({text: 1}))
        some = f", {n - n_numbers} of {n} not numbers" if n_numbers else ""
        return (
            None,
            "; ".join(
                [*said, f"left out: looks like an identifier: text, nearly all distinct{some} (--category uses it)"]
            ),
            "id",
        )
    if len(texts) > NAMES * n and len(texts) > FEW and not kept:
        return (
            None,
            "; ".join(
                [*said, f"left out: {len(texts)} different texts, names more likely than a trait (--category uses it)"]
            ),
            "id",
        )
    rare = sum(count for count in texts.values() if count < RARE)
    if rare > 0.2 * n and n >= FEW:
        said.append(f"{rare} records have values that fewer than {RARE} share: they count as “other”")
        return Column(name, "category"), "; ".join(said), ""
    return Column(name, "category"), "", ""


def _about_a_group(mean: float) -> str:
    return (
        f"says whom a row is about, {mean:.1f} rows each: rows of one stay on the same side of every split, and it is no trait "
        "(--group names another column, or none)"
    )


def _of_dates(
    name: str, texts: dict[str, int], order: str, missing: tuple[str, ...], said: list[str], *, must: bool = False
) -> tuple[Column | None, str, str]:
    way, notes = values.dates(name, texts, order)
    if way is None:
        if must:
            raise PreprocessError(f"--date {name}: its values are not read as dates, such as {next(iter(texts))!r}")
        return None, "; ".join(notes), ""
    days = {text: way(text) for text in texts}
    slips = sum(texts[text] for text, day in days.items() if np.isnan(day))
    said = [*said, *notes] + ([f"{slips} values that are no dates count as missing"] if slips else [])
    if way.form == "duration":
        return Column(name, "date", dates=way, missing=missing), "; ".join(said), ""
    known = np.array([day for day in days.values() if not np.isnan(day)])
    parts = ()
    if way.form != "month" and np.unique(np.floor(known)).size >= 14:
        parts += ("weekday",)
    if np.ptp(known) >= 365:
        parts += ("month",)
    if (known % 1).any():
        parts += ("hour",)
    what = ", ".join(("days before the file's latest date", *parts))
    return (
        Column(name, "date", dates=way, as_of=float(np.floor(known.max())), parts=parts, missing=missing),
        "; ".join([f"a date: {what}", *said]),
        "",
    )


def _of_numbers(
    name: str,
    texts: dict[str, int],
    found: tuple[values.Numbers, list[str]],
    distinct: bool,
    named: bool,
    repeated: bool,
    missing: tuple[str, ...],
    said: list[str],
    *,
    forced: bool,
) -> tuple[Column | None, str, str]:
    way, notes = found
    n = sum(texts.values())
    read = {text: way(text) for text in texts}
    slips = sum(texts[text] for text, value in read.items() if np.isnan(value))
    if slips > (1 - values.MOST) * n and not forced:
        return (
            Column(name, "category"),
            "; ".join([*said, f"{slips} of {n} values are no numbers: used as text (--number makes them missing)"]),
            "",
        )
    whole = all(re.fullmatch(r"[+-]?\d+", text) for text, value in read.items() if not np.isnan(value))
    if whole and not forced:
        if repeated:
            return None, _about_a_group(n / len(texts)), "group"
        if distinct and (named or _counts_records(np.array([v for v in read.values() if not np.isnan(v)]))):
            return (
                None,
                "left out: looks like an identifier: whole numbers, nearly all distinct (--keep keeps it)",
                "id",
            )
    notes = [*said, *([f"{slips} values that are not numbers count as missing"] if slips else []), *notes]
    notes += _sentinels(read, texts)
    counts = all(value == round(value) for value in read.values() if not np.isnan(value))
    kind = "code" if counts and 2 < len(texts) <= N_CODES else "number"
    return Column(name, kind, numbers=way, missing=missing), "; ".join(notes), ""


def _counts_records(numbers: np.ndarray) -> bool:
    """Tell whether distinct whole numbers are those of records: in steps, or all of one length of seven digits and more."""
    spread = np.ptp(numbers) + 1
    steps = np.diff(np.sort(numbers))
    even = bool(len(steps) and steps.min() > 0 and np.quantile(steps, 0.9) <= 1.5 * np.median(steps))
    return bool(
        spread <= 2 * len(numbers)
        or even
        or (numbers.min() >= 1e6 and len(str(int(numbers.min()))) == len(str(int(numbers.max()))))
    )


def _sentinels(read: dict[str, float], texts: dict[str, int]) -> list[str]:
    """Say which values may stand for "not known": -999 among ages."""
    known = np.array([value for value in read.values() if not np.isnan(value)])
    found = []
    for text, value in read.items():
        odd = re.fullmatch(r"-9|-99|-999|-9999|999|9999|99999|-99999", text) and texts[text] >= 3
        others = known[known != value]
        if (
            odd
            and len(others)
            and (
                value < others.min() - np.ptp(others)
                or value > others.max() + np.ptp(others)
                or (value < 0 <= others.min())
            )
        ):
            found.append(
                f"{text} in {texts[text]} records is taken as a number; if it means not known: --missing {text}"
            )
    return found


def _time(text: pd.Series, name: str, types: Types, decimal: str) -> np.ndarray:
    """Return when each record was made; raises if some are not known."""
    texts = text.dropna().value_counts().to_dict()
    way, _ = values.dates(name, texts, types.orders().get(name, ""))
    number = values.numbers(texts, types.decimal or decimal)
    when = text.map(way or (number[0] if number else lambda _: np.nan), na_action="ignore").astype(float)
    if when.isna().any():
        raise PreprocessError(f"--time {name}: {int(when.isna().sum())} records have no date or number there")
    return when.to_numpy()
