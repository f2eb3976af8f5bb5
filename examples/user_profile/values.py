"""What a column of text holds: numbers as people write them, dates, or categories, and how each value is read.

The way is found once, from all values of a column, and kept: later files and single records are read in the same way.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

MISSING = frozenset(("", "?", "na", "n/a", "nan", "null", "<na>", "#n/a", "#na", "nat", "n.a.", "(null)"))
# Words that are values of their own among words, and stand for nothing among numbers or dates.
NO_NUMBER = frozenset(
    (
        *(
            "none",
            "-",
            "--",
            "---",
            ".",
            "..",
            "missing",
            "unknown",
            "not available",
            "not known",
            "nil",
            "(blank)",
            "blank",
        ),
        *(
            "k.a.",
            "keine angabe",
            "unbekannt",
            "inconnu",
            "desconocido",
            "нет",
            "нет данных",
            "н/д",
            "无",
            "未知",
            "不明",
            "없음",
        ),
    )
)
LARGEST = 1e30  # float32, in which all models compute, ends at 3e38
MOST = 0.9  # of the values are numbers, or dates: the others are slips, and count as missing

_PLAIN = {ord(a): b for a, b in zip("\u3000\u00a0\u2009\u202f\u2007−–’ʼ´", "     --'''", strict=True)}
_PLAIN |= {c: chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}  # full width
_PLAIN |= {ord(a): b for a, b in zip("￥￡￦￠", "¥£₩¢", strict=True)}


def plain(text: str) -> str:
    """Return the text without the variants of space, minus, apostrophe and full width."""
    return text.translate(_PLAIN).strip()


# -- numbers

_CURRENCIES = (
    *("$", "€", "£", "¥", "₽", "₹", "₩", "₺", "₴", "₪", "฿", "us$", "a$", "c$", "hk$", "nt$", "r$", "rs", "kr", "fr"),
    *(
        "usd",
        "eur",
        "gbp",
        "jpy",
        "cny",
        "rmb",
        "chf",
        "rub",
        "inr",
        "krw",
        "sek",
        "nok",
        "dkk",
        "pln",
        "czk",
        "huf",
        "try",
        "brl",
    ),
    *(
        "aud",
        "cad",
        "nzd",
        "sgd",
        "hkd",
        "zar",
        "mxn",
        "idr",
        "ngn",
        "thb",
        "php",
        "s$",
        "c$",
        "rp",
        "₦",
        "₫",
        "₱",
        "₵",
        "лв",
        "din",
    ),
    *("元", "円", "圆", "원", "zł", "руб", "р", "kč", "ft", "tl"),
)
_TIMES = {
    **{"k": 1e3, "tsd": 1e3, "thousand": 1e3, "тыс": 1e3, "千": 1e3, "lakh": 1e5, "lac": 1e5, "crore": 1e7},
    **{"mio": 1e6, "mln": 1e6, "mn": 1e6, "million": 1e6, "млн": 1e6, "万": 1e4, "萬": 1e4, "億": 1e8, "亿": 1e8},
    **{"bn": 1e9, "mrd": 1e9, "billion": 1e9, "млрд": 1e9},
}
_LETTERS = {"m": 1e6, "b": 1e9}  # million and billion, beside a currency or a k
_FAMILIES: tuple[dict[str, float], ...] = (  # units of one kind: several in a column are brought to the commonest
    {
        **dict.fromkeys(("s", "sec", "second", "сек", "秒"), 1 / 86400),
        **dict.fromkeys(("min", "minute", "мин", "分钟"), 1 / 1440),
        **dict.fromkeys(("h", "hr", "hour", "std", "stunde", "час", "小时"), 1 / 24),
        **dict.fromkeys(("d", "day", "tag", "tage", "jour", "день", "дней", "天", "日"), 1.0),
        **dict.fromkeys(("w", "wk", "week", "woche", "wochen", "周"), 7.0),
        **dict.fromkeys(("mo", "mth", "month", "monat", "monate", "mois", "mes", "мес", "个月", "月"), 30.4375),
        **dict.fromkeys(("y", "yr", "year", "jahr", "jahre", "ans", "год", "лет", "年"), 365.25),
    },
    {"mg": 1e-3, "g": 1.0, "kg": 1e3, "t": 1e6},
    {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3},
    {"ml": 1e-3, "cl": 1e-2, "l": 1.0},
    {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12},
)
_WRITTEN = re.compile(
    r"(?P<open>\()?\s*(?P<sign>[-+])?\s*(?P<before>[^\d\s.,()'+-]{1,4}\.?)?\s*(?P<sign2>[-+])?\s*"
    r"(?P<core>\d[\d.,' ]*\d|\d|[.,]\d+|\d[.,])(?P<exp>[eE][-+]?\d+)?"
    r"\s*(?P<after>[^\d\s().,+-][^\d()+]{0,14}?)?\s*(?P<sign3>-)?\s*(?P<close>\))?"
)
_GROUPS = {  # digits with marks between thousands, Indian ones too
    mark: re.compile(
        rf"\d{{1,3}}(?:{re.escape(mark)}\d{{3}})+|\d{{1,2}}(?:{re.escape(mark)}\d{{2}})+{re.escape(mark)}\d{{3}}"
    )
    for mark in (",", ".", " ", "'")
}
_SIMPLE = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def _split(text: str) -> tuple[str, str, str, float] | None:
    """Return (digits and marks, exponent, unit, sign) of a number with what stands beside it; None if it is none."""
    found = _WRITTEN.fullmatch(plain(text))
    if found is None or bool(found["open"]) != bool(found["close"]):
        return None
    before, after = (_bare(found[name] or "") for name in ("before", "after"))
    if before and before not in _CURRENCIES:
        return None
    negative = "-" in (found["sign"], found["sign2"], found["sign3"]) or bool(found["open"])
    return found["core"], found["exp"] or "", f"{before} {after}".strip(), -1.0 if negative else 1.0


def _bare(unit: str) -> str:
    unit = " ".join(unit.lower().split()).rstrip(".")
    return "$" if unit == "us$" else unit


def is_number(text: str) -> bool:
    """Tell whether a text has the form of a number with what may stand beside it."""
    return _split(text) is not None


def currencies(texts: Mapping[str, int]) -> list[str]:
    """Return the currencies that stand beside these numbers."""
    units = {part[2] for part in map(_split, texts) if part}
    return sorted({word for unit in units for word in unit.split() if word in _CURRENCIES})


def _digits(core: str, decimal: str) -> float:
    """Return the number that digits with marks are; NaN if they are none with this decimal mark."""
    if len(decimal) > 1:  # either may be the decimal mark, where it stands alone
        mark = _mark(core)
        if mark not in ("", ".", ",", f"?{decimal[0]}"):
            return math.nan
        decimal = mark[-1:] or decimal[0]
    whole, mark, rest = core.rpartition(decimal)
    if not mark:
        whole, rest = core, ""
    if rest and not rest.isdigit():
        return math.nan
    if whole and not whole.isdigit():
        for group in (",.".replace(decimal, ""), " ", "'"):
            if group in whole:
                if not _GROUPS[group].fullmatch(whole):
                    return math.nan
                whole = whole.replace(group, "")
        if not whole.isdigit():
            return math.nan
    return float(f"{whole or '0'}.{rest or '0'}")


def _mark(core: str) -> str:
    """Return the decimal mark that a number shows: "." or ","; "!," where 1.234.567 tells; "?." in doubt; "" without."""
    marks = [c for c in core if c in ".,"]
    if not marks:
        return ""
    last = marks[-1]
    other = "," if last == "." else "."
    if len(set(marks)) == 2:
        return last if marks.count(last) == 1 else "!"
    if len(marks) > 1:  # 1.234.567
        return f"!{other}" if _GROUPS[last].fullmatch(core.replace(" ", "")) else "!"
    whole, _, rest = core.partition(last)
    if len(rest) == 3 and 1 <= len(whole) <= 3 and whole.strip("0"):
        return f"?{last}"
    return last


@dataclass(frozen=True)
class Numbers:
    """How the numbers of a column are written: the decimal mark, and what each unit beside them counts.

    ".," and ",." mean that both are decimal marks, mostly the first.
    """

    decimal: str = "."
    factors: Mapping[str, float] = field(default_factory=lambda: {"": 1.0})

    def __call__(self, text: str) -> float:
        """Return the number; NaN for what is none."""
        if _SIMPLE.fullmatch(text) or (self.decimal == "." and _FLOAT.fullmatch(text)):
            value = float(text) * self.factors.get("", math.nan)
        else:
            parts = _split(text)
            if parts is None or parts[2] not in self.factors:
                return math.nan
            core, exponent, unit, sign = parts
            value = sign * _digits(core, self.decimal) * self.factors[unit]
            if exponent:
                value *= float(f"1{exponent}")
        return value if abs(value) < LARGEST else math.nan


def numbers(texts: Mapping[str, int], decimal: str = "", *, most: float = MOST) -> tuple[Numbers, list[str]] | None:
    """Find how these texts, each with how often it comes, are numbers; also what is worth saying. None: they are none.

    ``decimal`` is the mark that the other columns of the file show, or that the user has named.
    """
    parts = {text: _split(text) for text in texts}
    n, n_numbers = sum(texts.values()), sum(count for text, count in texts.items() if parts[text])
    if n_numbers < most * n:
        return None
    found = {text: part for text, part in parts.items() if part}
    units = Counter[str]()
    for text, part in found.items():
        units[part[2]] += texts[text]
    long = any(not part[2] and part[0].isdigit() and len(part[0]) > 3 for part in found.values())
    factors, notes = _factors(units, long=long)
    if factors is None:
        return None
    cores = Counter[str]()
    for text, part in found.items():
        cores[part[0]] += texts[text]
    mark, said = _decimal(cores, decimal)
    way = Numbers(mark, factors)
    readable = sum(count for text, count in texts.items() if not math.isnan(way(text)))
    return (way, notes + said) if readable > n / 2 else None


def _factors(units: Counter[str], *, long: bool) -> tuple[dict[str, float] | None, list[str]]:
    """Return what each unit counts in the commonest one; None if they cannot be compared.

    M and B are million and billion beside a currency, a K, each other, or bare numbers of four digits and more.
    """
    main = max((unit for unit in units if unit), key=lambda unit: units[unit], default="")
    if not main:
        return {"": 1.0}, []
    notes: list[str] = []
    has_k = any(_multiple(unit, letters=False)[0] == 1e3 for unit in units)
    money = any(_multiple(unit, letters=False)[1] in _CURRENCIES for unit in units)
    both = {"m", "b"} <= set(units) or (long and bool({"m", "b"} & set(units)))
    parts = {unit: _multiple(unit, letters=has_k or money or both) for unit in units}
    bare = Counter[str]()
    for unit, count in units.items():
        if unit and parts[unit][1]:
            bare[_singular(parts[unit][1])] += count
    factors: dict[str, float] = {}
    base = bare.most_common(1)[0][0] if bare else ""
    family = next((f for f in _FAMILIES if base in f), {base: 1.0})
    strange = [unit for unit in bare if unit not in family]
    if sum(bare[unit] for unit in strange) > (1 - MOST) * units.total():
        return None, []
    for unit in units:
        times, own = parts[unit]
        own = _singular(own) or base
        if own in family:
            factors[unit] = times * family[own] / family[base]
    factors.setdefault("", 1.0)
    if base:
        notes.append(f"read as numbers of {base!r}")
    if units[""] and base:
        notes.append(f"{units['']} values without it count as such")
    several = sorted({_singular(parts[unit][1]) for unit in units if _singular(parts[unit][1]) in family})
    if len(several) > 1:
        notes.append(f"{', '.join(map(repr, several))} are brought to {base!r}")
    times = sorted({unit for unit in units if parts[unit][0] != 1})
    if times:
        notes.append(", ".join(f"{unit!r} counts {parts[unit][0]:,.0f}" for unit in times))
    return factors, notes


def _multiple(unit: str, *, letters: bool) -> tuple[float, str]:
    """Return (what a unit multiplies by, the rest of it): "k €" is (1000, "€"), "months" (1, "months")."""
    words = unit.split()
    known = _TIMES | (_LETTERS if letters else {})
    times, rest = 1.0, []
    for word in words:
        if word.rstrip(".") in known:
            times *= known[word.rstrip(".")]
        elif word[:1] in ("千", "万", "萬", "億", "亿") or (word[:1] in known and word[1:] in _CURRENCIES):
            times *= known[word[:1]]
            rest.append(word[1:])
        else:
            rest.append(word)
    return times, " ".join(rest).strip()


def _singular(unit: str) -> str:
    return unit[:-1] if len(unit) > 2 and unit.endswith("s") and unit not in _CURRENCIES and unit != "ans" else unit


def _decimal(cores: Counter[str], hint: str) -> tuple[str, list[str]]:
    """Return the decimal mark of a column, and what is worth saying: never is a value changed by 1,000 in silence."""
    marks = {core: _mark(core) for core in cores}
    shown, grouped = Counter[str](), {mark[1] for mark in marks.values() if mark in ("!.", "!,")}
    for core, mark in marks.items():
        if mark in (".", ","):
            shown[mark] += cores[core]
    if len(grouped) == 1 and set(shown) <= grouped:  # 1.234.567 tells what the mark in 586.133 is
        mark = grouped.pop()
        other = "," if mark == "." else "."
        doubt = next((core for core, found in marks.items() if found == f"?{other}"), None)
        return mark, [_example(doubt, other, mark)] if doubt else ["',' is the decimal mark"] if "," in shown else []
    unclear = [core for core, mark in marks.items() if mark.startswith("?")]
    if len(shown) == 2:
        if hint:
            return hint, []
        most, few = (",", ".") if shown[","] > shown["."] else (".", ",")
        notes = [f"'.' and ',' both stand as decimal marks, {few!r} {shown[few]} times: read so where it is plain"]
        for mark in {marks[core] for core in unclear}:
            some = [core for core in unclear if marks[core] == mark]
            if mark[1] == most:
                notes.append(_example(some[0], most, most))
            else:
                n = sum(cores[core] for core in some)
                notes.append(
                    f"{n} values, such as {some[0]!r}, may be either: they count as missing; --decimal says which"
                )
        return most + few, notes
    if not unclear:
        mark = next(iter(shown), hint or ".")
        return mark, ["',' is the decimal mark"] if "," in shown else []
    if len(shown) == 1:
        mark = next(iter(shown))
        doubt = [core for core in unclear if marks[core] != f"?{mark}"]
        if not doubt:
            return mark, ["',' is the decimal mark"] if mark == "," else []
        inside = marks[doubt[0]][1]
        often = shown[mark] >= SURE * (shown[mark] + sum(cores[core] for core in doubt))
        if hint or inside == "," or (often and not _has_long_ones(cores)):
            mark = hint or mark
            return mark, [_example(doubt[0], inside, mark)]
        return inside + mark, [f"{_example(doubt[0], inside, inside)}; {mark!r} is one too, in {shown[mark]} others"]
    seen = {marks[core][1] for core in unclear}
    if len(seen) == 2:
        return hint or ".", [
            f"'.' and ',' both stand before three digits: {_example(unclear[0], marks[unclear[0]][1], hint or '.')}"
        ]
    inside = seen.pop()
    other = "," if inside == "." else "."
    mark = hint or (other if inside == "," else inside)
    return mark, [_example(unclear[0], inside, mark)]


def shown_marks(texts: Mapping[str, int]) -> set[str]:
    """Return the marks that are plainly decimal ones in these texts, if they are numbers."""
    parts = [part for part in map(_split, list(texts)[:2000]) if part]
    return (
        {mark for part in parts if (mark := _mark(part[0])) in (".", ",")}
        if len(parts) >= MOST * min(len(texts), 2000)
        else set()
    )


SURE = 0.05  # of the values with a mark show which it is


def _has_long_ones(cores: Iterable[str]) -> bool:
    """Tell whether numbers from 1000 on stand without a mark between thousands."""
    return any(len(re.split(r"[.,]", core)[0]) > 3 for core in cores if " " not in core and "'" not in core)


def _example(core: str, inside: str, decimal: str) -> str:
    what = "is the decimal mark" if inside == decimal else "stands between thousands"
    return f"{inside!r} {what}: {core!r} is {_digits(core, decimal):,.12g}; --decimal says otherwise"


# -- dates

_MONTHS = {
    name: k + 1
    for names in (
        "jan feb mar apr may jun jul aug sep oct nov dec",
        "januar februar märz april mai juni juli august september oktober november dezember",
        "january february march april may june july august september october november december",
        "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
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
_EPOCH = date(1970, 1, 1)
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
        """Return the days since 1970, or the minutes of a duration; NaN for what is none."""
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
    return float((date(year, month, day) - _EPOCH).days)


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
    found = [m for m in (_DATE.fullmatch(plain(text)) for text in texts) if m]
    if len(found) < MOST_DATES * len(texts):
        return None, []
    pivot = _BORN if born else _PIVOT
    unclear = [m for m in found if m["a"].isdigit() and m["b"].isdigit() and len(m["a"]) < 3]
    notes: list[str] = []
    way = Dates("date", pivot=pivot)
    if unclear:
        chosen, said = (order, []) if forced and order else _order(unclear, order)
        if not chosen:
            return None, said
        way = Dates("date", chosen, pivot)
        notes += [text.format(values_as=_as_date(way(unclear[0][0]))) for text in said]
    short = [m for m in unclear if len(m["a"] if way.order == "ymd" else m["c"]) == 2]
    if short:
        notes.append(f"two digits mean the years {pivot - 99} to {pivot}")
    return (way, notes) if share(way) >= (0.5 if forced else MOST_DATES) else (None, [])


def _order(found: list[re.Match[str]], hint: str) -> tuple[str, list[str]]:
    """Return "dmy", "mdy" or "ymd" for dates of numbers alone, "" if they contradict each other, and what is worth saying."""
    a, b, c = (np.array([int(m[name]) for m in found]) for name in "abc")
    short = all(len(m["c"]) == 2 for m in found)
    if short and b.max() <= 12 and c.max() <= 31 and 2 * len(set(a)) < len(set(c)) and b.min() > 0:
        return "ymd", [f"{found[0][0]!r} is taken for {{values_as}}: the first number differs least"]
    day_first, month_first = int((a > 12).sum()), int((b > 12).sum())
    if day_first and month_first and min(day_first, month_first) > (1 - MOST) * len(found):
        return "", ["dates with the day first and with the month first: --date says which ('COLUMN=dmy')"]
    if day_first or month_first:
        return ("dmy" if day_first > month_first else "mdy"), []
    if hint:
        return hint, []
    chosen = "dmy" if "." in found[0][0] else "mdy"
    return chosen, [
        f"{found[0][0]!r} is taken for {{values_as}}, as no date tells; --date says otherwise ('COLUMN=dmy')"
    ]


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


def _as_date(days: float) -> str:
    return str(_EPOCH + timedelta(days=math.floor(days))) if not math.isnan(days) else "no date"


def as_date(days: float) -> str:
    """Return the day that so many days since 1970 are, as YYYY-MM-DD."""
    return _as_date(days)


# -- columns


@dataclass(frozen=True)
class Column:
    """A column of the file, and what becomes of its text: ``kind`` is "number", "code", "category" or "date".

    A date becomes the days before ``as_of``, and what else its ``parts`` name: weekday, month, hour.
    """

    name: str
    kind: str
    numbers: Numbers = Numbers()
    dates: Dates = Dates()
    as_of: float = 0.0
    parts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # words that count as missing, in lower case, beside those of MISSING
    prefix: int = 0  # a postcode is used by its first characters
    pad: int = 0  # and given back the zeros in front that it has lost
    all_words: bool = False  # whether only what is empty is missing
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
        found: list[Any] = [self.as_of - days]
        for part in self.parts:
            if part == "hour":
                found.append(round((days - day) * 24, 6))
            elif part == "weekday":
                found.append(DAY_NAMES[(day + 3) % 7])  # 1970 began on a Thursday
            else:
                found.append(MONTH_NAMES[(_EPOCH + timedelta(days=day)).month - 1])
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
        said, column = [], self
        if self.kind in ("number", "code") and known:
            found = numbers(known, decimal or self.numbers.decimal, most=0.5)
            if found and found[0].decimal != self.numbers.decimal and any(c in ".," for text in known for c in text):
                column = replace(self, numbers=Numbers(found[0].decimal, self.numbers.factors))
                said.append(
                    f"{found[0].decimal!r} is the decimal mark here, and was {self.numbers.decimal!r} in training"
                )
        elif self.kind == "date" and self.dates.order in ("dmy", "mdy") and known:
            way, notes = dates(known, self.dates.order)
            if way and way.form == "date" and way.order not in ("", self.dates.order) and not notes:
                column = replace(self, dates=replace(self.dates, order=way.order))
                said.append(f"dates are {way.order} here, and were {self.dates.order} in training")
        if self.kind == "category" or not known:
            return column, "; ".join(said)
        unread = [text for text in known if (value := column.value(text)[0]) != value]
        n, all_of_them = sum(known[text] for text in unread), sum(known.values())
        if n > (1 - MOST) * all_of_them:
            raise ValueError(f"{n} of {all_of_them} values, such as {unread[0]!r}, are not written as in training")
        if n:
            said.append(f"{n} values, such as {unread[0]!r}, cannot be read, and count as missing")
        return column, "; ".join(said)

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
