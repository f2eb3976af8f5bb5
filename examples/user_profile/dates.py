"""Dates as people write them: days, months, quarters, times, digits only, and seconds since 1970."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np

from .amounts import MOST, plain

_MONTHS = {
    name: k + 1
    for names in (
        "jan feb mar apr may jun jul aug sep oct nov dec",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "january february march april may june july august september october november december",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        "jan fev mar abr mai jun jul ago set out nov dez",
        "januari februari maart april mei juni juli augustus september oktober november december",
        "jan feb mrt apr maj jun jul aug sep okt nov dec",
        "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
        "gen feb mar apr mag giu lug ago set ott nov dic",
        "янв фев мар апр мая июн июл авг сен окт ноя дек",
        "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    )
    for k, name in enumerate(names.split())
}
_MONTHS |= {
    "sept": 9,
    "mrz": 3,
    "okt": 10,
    "dez": 12,
    "mär": 3,
    "mai": 5,
    "févr": 2,
    "avr": 4,
    "juil": 7,
    "déc": 12,
    "ene": 1,
    "dic": 12,
}
_TIME = (
    r"(?:[T ,]+(?P<H>\d{1,2}):(?P<M>\d\d)(?::(?P<S>\d\d)(?P<f>[.,]\d+)?)?\s*(?P<half>[AaPp]\.?[Mm]\.?)?(?: Uhr)?)?"
    r"\s*(?:Z|[A-Z]{3,4}|[-+]\d\d(?::?\d\d)?)?"  # the time stays local: what counts is the hour of the person
)
_WORD = r"[^\W\d_]{3,10}\.?"
_BETWEEN = r"(?:st|nd|rd|th)?(?: de |[-/. ,年月]+)"
_DAY = r"(?:[^\W\d_]{2,10}\.?,? )?"  # Mon, 01 May 2023
_DATE = re.compile(
    rf"{_DAY}(?P<a>\d{{1,4}}|{_WORD}){_BETWEEN}(?P<b>\d{{1,2}}|{_WORD}){_BETWEEN}(?P<c>\d{{1,4}})(?:日|\.| г\.?)?{_TIME}"
)
_MONTH = re.compile(rf"(?P<a>\d{{1,4}}|{_WORD})[-/. ,年M]+(?P<b>\d{{1,4}}|{_WORD})月?")
_QUARTER = re.compile(r"(?P<y>\d{4})[- /]?[Qq](?P<q>[1-4])|[Qq](?P<q2>[1-4])[- /]?(?P<y2>\d{4})")
_LENGTH = re.compile(
    r"(?:(?P<d>\d+)\s*(?:d|days?)[, ]+)?(?P<h>\d+):(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d)(?:\.\d+)?)?\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d")
MOST_DATES = 0.75  # of the values, where the others are not of another kind
_COMPACT = {8: "%Y%m%d", 14: "%Y%m%d%H%M%S"}
EPOCH = date(1970, 1, 1)
_EARLIEST, _LATEST = 1900, 2089  # 2099-12-31 and 9999-12-31 mean: never
_PIVOT, _BORN = 2035, 2015  # the last years that two digits mean: of anything, and of a birth
MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Dates:
    """How the dates of a column are written; a date is the number of days since 1970, with the time of day as a fraction.

    ``form`` is "date", with ``order`` "dmy", "mdy" or "ymd" where numbers alone do not tell; "month"; "compact", digits only;
    "seconds" or "milliseconds" since 1970; or "duration", H:MM:SS, which becomes minutes. ``pivot`` is the last year that two
    digits mean.
    """

    form: str = "date"
    order: str = ""
    pivot: int = _PIVOT

    def __call__(self, text: str) -> float:
        """Return the days since 1970, or the minutes of a duration; NaN for anything else."""
        try:
            if self.form == "date" and _ISO.fullmatch(text):  # most of them are, and this is ten times as fast
                return _days(int(text[:4]), int(text[5:7]), int(text[8:]))
            return self._read(plain(text))
        except (ValueError, OverflowError):
            return math.nan

    def _read(self, text: str) -> float:
        if self.form == "duration":
            found = _LENGTH.fullmatch(text)
            if found is None:
                return math.nan
            hours = _hour(int(found["h"]), found["half"])
            return 1440.0 * int(found["d"] or 0) + 60.0 * hours + int(found["m"]) + int(found["s"] or 0) / 60
        if self.form in ("seconds", "milliseconds", "compact"):
            text = re.sub(r"\.0+$", "", text)
        if self.form in ("seconds", "milliseconds"):
            return float(text) / (86400 if self.form == "seconds" else 86_400_000)
        if self.form == "compact":
            if len(text) == 6:
                return _days(int(text[:4]), int(text[4:]), 1)
            if self.order:
                a, b, c = int(text[:2]), int(text[2:4]), int(text[4:])
                return _days(c, *((b, a) if self.order == "dmy" else (a, b)))
            when = datetime.strptime(text, _COMPACT.get(len(text), "%Y%m%d"))
            return _days(when.year, when.month, when.day) + (when.hour * 60 + when.minute + when.second / 60) / 1440
        if self.form == "month":
            return _month(text)
        found = _DATE.fullmatch(text)
        if found is None:
            return math.nan
        year, month, day = _ymd(found["a"], found["b"], found["c"], self.order, self.pivot)
        return _days(year, month, day) + _time(found)


def _days(year: int, month: int, day: int) -> float:
    if not _EARLIEST <= year <= _LATEST:
        return math.nan
    return float((date(year, month, day) - EPOCH).days)


def _time(found: re.Match[str]) -> float:
    if found["H"] is None:
        return 0.0
    hour = _hour(int(found["H"]), found["half"])
    seconds = (
        hour * 3600.0 + int(found["M"]) * 60 + int(found["S"] or 0) + float((found["f"] or ".0").replace(",", "."))
    )
    return seconds / 86400


def _hour(hour: int, half: str | None) -> int:
    if half:
        hour = hour % 12 + (12 if half.lower().startswith("p") else 0)
    return hour


def _name(token: str) -> int:
    token = token.lower().rstrip(".")
    return _MONTHS.get(token) or _MONTHS.get(token[:3], 0)


def _ymd(a: str, b: str, c: str, order: str, pivot: int) -> tuple[int, int, int]:
    """Return year, month and day of three tokens."""
    if not a.isdigit():  # Sep 4, 2012
        return _year(c, pivot), _name(a), int(b)
    if not b.isdigit():  # 4-Sep-12, 2012-Sep-04
        return (int(a), _name(b), int(c)) if len(a) == 4 else (_year(c, pivot), _name(b), int(a))
    if len(a) == 4 or order == "ymd":
        return _year(a, pivot), int(b), int(c)
    return (_year(c, pivot), int(b), int(a)) if order == "dmy" else (_year(c, pivot), int(a), int(b))


def _year(token: str, pivot: int) -> int:
    if len(token) == 2:
        year = 2000 + int(token)
        return year if year <= pivot else year - 100
    if len(token) != 4:
        raise ValueError(token)
    return int(token)


def _month(text: str) -> float:
    quarter = _QUARTER.fullmatch(text)
    if quarter:
        return _days(int(quarter["y"] or quarter["y2"]), 3 * int(quarter["q"] or quarter["q2"]) - 2, 1)
    found = _MONTH.fullmatch(text)
    if found is None:
        return math.nan
    a, b = found["a"], found["b"]
    if len(a) == 4 and a.isdigit():
        return _days(int(a), int(b) if b.isdigit() else _name(b), 1)
    if b.isdigit() and (len(b) == 4 or (len(b) == 2 and not a.isdigit())):  # 03/2024, Mar-24
        return _days(_year(b, _PIVOT), int(a) if a.isdigit() else _name(a), 1)
    return math.nan


def is_date(text: str) -> bool:
    """Tell whether a text has the form of a date, a month, a time or a number that may be one."""
    text = plain(text)
    return bool(
        re.fullmatch(r"\d{6,14}(?:\.0+)?", text) or any(p.fullmatch(text) for p in (_DATE, _MONTH, _QUARTER, _LENGTH))
    )


def dates(
    texts: Mapping[str, int], order: str = "", *, forced: bool = False, epoch: bool = True, born: bool = False
) -> tuple[Dates | None, list[str]]:
    """Find how these texts, each with how often it comes, are dates, None if they are none; also what is worth saying.

    ``order`` is that of the file's other dates, "dmy" or "mdy", or "", or, if ``forced``, what the user says; ``epoch``, whether
    long whole numbers may be seconds since 1970; ``born``, whether two digits are the year of a birth.
    """
    n = sum(texts.values())
    if len(texts) < 2:
        return None, []

    def share(way: Dates) -> float:
        return sum(count for text, count in texts.items() if not math.isnan(way(text))) / n

    shapes = [plain(text) for text in list(texts)[:1000]]
    if sum(bool(re.fullmatch(r"\d+(?:\.0+)?", text)) for text in shapes) >= MOST_DATES * len(shapes):
        return _of_digits(texts, n, epoch)
    for form, patterns in (("duration", (_LENGTH,)), ("month", (_MONTH, _QUARTER))):
        if sum(any(p.fullmatch(text) for p in patterns) for text in shapes) >= MOST * len(shapes):
            said = ["a time or a duration: read as minutes"] if form == "duration" else []
            return (Dates(form), said) if share(Dates(form)) >= MOST else (None, [])
    if sum(bool(_DATE.fullmatch(text)) for text in shapes) < MOST_DATES * len(shapes):
        return None, []
    found = [m for m in (_DATE.fullmatch(plain(text)) for text in texts) if m]
    pivot = _BORN if born else _PIVOT
    unclear = [m for m in found if m["a"].isdigit() and m["b"].isdigit() and len(m["a"]) < 3]
    notes: list[str] = []
    way = Dates("date", pivot=pivot)
    if unclear:
        chosen, why = (order, "") if forced and order else _order(unclear, order)
        if not chosen:
            return None, [why]
        way = Dates("date", chosen, pivot)
        if why:
            notes.append(f"{unclear[0][0]!r} is taken for {as_date(way(unclear[0][0]))}{why}")
    short = [m for m in unclear if len(m["a"] if way.order == "ymd" else m["c"]) == 2]
    if short:
        notes.append(f"two digits mean the years {pivot - 99} to {pivot}")
    return (way, notes) if share(way) >= (0.5 if forced else MOST_DATES) else (None, [])


def _order(found: list[re.Match[str]], hint: str) -> tuple[str, str]:
    """Return "dmy", "mdy" or "ymd" for dates of numbers alone, "" if they contradict each other; and why, where it is no fact."""
    a, b, c = (np.array([int(m[name]) for m in found]) for name in "abc")
    short = all(len(m["c"]) == 2 for m in found)
    if short and b.max() <= 12 and c.max() <= 31 and 2 * len(set(a)) < len(set(c)) and b.min() > 0:
        return "ymd", ": the first number differs least"
    day_first, month_first = int((a > 12).sum()), int((b > 12).sum())
    if day_first and month_first and min(day_first, month_first) > (1 - MOST) * len(found):
        return "", "dates with the day first and with the month first: --date says which ('COLUMN=dmy')"
    if day_first or month_first:
        return ("dmy" if day_first > month_first else "mdy"), ""
    if hint:
        return hint, ""
    return ("dmy" if "." in found[0][0] else "mdy"), ", as no date tells; --date says otherwise ('COLUMN=dmy')"


def _of_digits(texts: Mapping[str, int], n: int, epoch: bool) -> tuple[Dates | None, list[str]]:
    """Tell whether whole numbers are dates: 20240305, 05032024, 202403, or seconds since 1970."""
    digits = {text: re.sub(r"\.0+$", "", plain(text)) for text in texts}
    lengths = Counter[int]()
    for text, count in texts.items():
        lengths[len(digits[text])] += count
    length, times = lengths.most_common(1)[0]
    if times < 0.8 * n:
        return None, []
    if length in (6, 8, 14):
        for order in ("", "dmy", "mdy") if length == 8 else ("",):
            way = Dates("compact", order)
            good = [text for text in texts if len(digits[text]) == length and not math.isnan(way(text))]
            years = {digits[text][-4:] if order else digits[text][:4] for text in good}
            share = sum(texts[text] for text in good) / n
            few_years = len(years) <= max(3, len(good) // 2) + 60 and len(good) > 2
            sure = share >= 0.97 or (share >= 0.8 and len(good) >= 10)
            if sure and few_years and (not order or len(good) >= 10):
                return way, [f"whole numbers that are dates, such as {good[0]}"]
    form = {10: "seconds", 13: "milliseconds"}.get(length)
    if form and epoch and times >= 0.97 * n:
        way = Dates(form)
        days = np.array([way(text) for text in texts if len(digits[text]) == length])
        if days.min() >= 10957 and days.max() <= 25568 and np.ptp(days) >= 30:  # 2000 to 2040
            return way, [f"{form} since 1970"]
    return None, []


def as_date(days: float) -> str:
    """Return the day that so many days since 1970 are, as YYYY-MM-DD."""
    return str(EPOCH + timedelta(days=math.floor(days))) if not math.isnan(days) else "no date"
