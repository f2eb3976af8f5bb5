"""Numbers as people write them: currencies, units, percent, and marks between thousands and before decimals.

The way is found once, from all values of a column, and kept: later files and single records are read in the same way.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

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
    """Return (digits and marks, exponent, unit, sign) of a number with what stands beside it; None if it is not a number."""
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
        """Return the number; NaN for anything else."""
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
