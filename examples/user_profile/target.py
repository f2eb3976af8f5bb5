"""What is predicted: a column made into yes and no, 1 and 0, and a refusal that says what to do where it is neither."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from . import amounts, dates
from .columns import PreprocessError

YES = {
    *(
        "yes",
        "y",
        "true",
        "t",
        "1",
        "on",
        "+",
        "si",
        "sí",
        "ja",
        "j",
        "oui",
        "o",
        "da",
        "да",
        "sim",
        "s",
        "tak",
        "evet",
        "igen",
    ),
    *("ano", "vrai", "wahr", "vero", "verdadero", "是", "有", "はい", "예", "네"),
}
NO = {
    *(
        "no",
        "n",
        "false",
        "f",
        "0",
        "off",
        "-",
        "-1",
        "none",
        "nein",
        "non",
        "nee",
        "нет",
        "não",
        "nao",
        "nie",
        "hayır",
        "hayir",
    ),
    *("nem", "ne", "faux", "falsch", "falso", "否", "无", "いいえ", "아니오", "아니요"),
}


def target(
    text: pd.Series, name: str, positive: str | None, *, blank_is_no: bool = False, decimal: str = ""
) -> tuple[np.ndarray, str, pd.Series, str]:
    """Return 0 and 1 of the records that are known, what 1 is, which those are, and what is worth saying.

    1 is what ``positive`` asks for, a value or a comparison such as ">500"; else the yes of yes and no, or the rarer of two.
    """
    if blank_is_no and positive is not None and re.match(r"[<>]=?", positive.strip()):
        y, positive, told, note = _compared(text.dropna(), text.notna(), name, positive.strip(), decimal)
        full = pd.Series(0, text.index).where(~told, pd.Series(y, text.index[told.to_numpy()]).reindex(text.index))
        return (
            full.to_numpy(int),
            positive,
            pd.Series(True, text.index),
            "; ".join(filter(None, (note, "a blank counts as no"))),
        )
    if blank_is_no:
        some = text.notna() if positive is None else as_one_value(text) == as_one_value(pd.Series([positive]))[0]
        if positive is None and (counts := as_one_value(text.dropna()).value_counts()).size == 2:
            raise PreprocessError(
                f"the target {name!r} has two values and blanks, {list(counts.index)}: name the yes, --positive"
            )
        _both(some.to_numpy(), name)
        return some.to_numpy(int), positive or f"{name}: given", pd.Series(True, text.index), "a blank counts as no"
    known = text.notna()
    present = text[known]
    folded = as_one_value(present)
    if positive is not None and re.match(r"[<>]=?", positive.strip()) and not (present == positive).any():
        return _compared(present, known, name, positive.strip(), decimal)
    spelled = present.groupby(folded).agg(lambda some: some.value_counts().index[0]).to_dict() if len(present) else {}
    counts = folded.value_counts()
    shown = ", ".join(f"{spelled[value]!r} ({n})" for value, n in counts[:5].items()) + (
        ", ..." if len(counts) > 5 else ""
    )
    note = ""
    if positive is not None:
        wanted = as_one_value(pd.Series([positive]))[0]
        if wanted not in counts.index:
            raise PreprocessError(f"the target {name!r} is never {positive!r}; it is {shown}")
        if len(counts) > 2:
            note = f"{spelled[wanted]!r} against all others: {shown}"
    elif len(counts) == 2:
        yes, no = ([value for value in counts.index if value in some] for some in (YES, NO))
        denied = [
            a
            for a in counts.index
            for b in counts.index
            if b in (f"not {a}", f"no {a}", f"un{a}", f"non-{a}", f"non {a}")
        ]
        plain = yes if len(yes) == 1 and len(no) == 1 else denied
        wanted = plain[0] if plain else counts.index[-1]
        if not plain:
            note = f"the yes is taken to be {spelled[wanted]!r}, the rarer of the two; --positive says otherwise"
    else:
        raise PreprocessError(
            f"the target {name!r} must have two values, got {len(counts)}: {shown}. {_advice(present, known, counts, decimal)}"
        )
    if len(counts) < 2:
        raise PreprocessError(
            f"the target {name!r} must have two values, got 1: {shown}. {_advice(present, known, counts, decimal)}"
        )
    if present.nunique() > len(counts):
        note = "; ".join(filter(None, (note, "spellings that differ in case, or as 1 and 1.0, are one value")))
    return (folded == wanted).to_numpy(int), spelled[wanted], known, note


def as_one_value(text: pd.Series) -> pd.Series:
    """Return the values without case, and without a .0."""
    return text.str.normalize("NFC").str.casefold().str.replace(r"^([-+]?\d+)\.0+$", r"\1", regex=True)


def _both(some: np.ndarray, name: str) -> None:
    if some.all() or not some.any():
        raise PreprocessError(
            f"the target {name!r} is {'always' if some.all() else 'never'} a yes: there is nothing to tell apart"
        )


def _advice(present: pd.Series, known: pd.Series, counts: pd.Series, decimal: str) -> str:
    """Say what to do with a target that has not two values."""
    if len(counts) == 1 and not known.all():
        return f"If the {int((~known).sum())} blanks are the no, say so: --blank-is-no"
    if len(counts) < 2:
        return "Is it the right column?"
    texts = present.value_counts().to_dict()
    if len(counts) > 10 and dates.dates(texts)[0]:
        return "They are dates: if a blank means that it has not happened, --blank-is-no makes every date a yes"
    number = amounts.numbers(texts, decimal)
    if len(counts) > 5 and number:
        numbers = present.map(number[0]).dropna()
        low, middle, high = numbers.min(), numbers.median(), numbers.max()
        return f"They are numbers from {low:g} to {high:g}: say from where on it is a yes, --positive '>{middle:g}'"
    return "Name the yes, --positive VALUE: all other values are the no"


def _compared(
    present: pd.Series, known: pd.Series, name: str, positive: str, decimal: str
) -> tuple[np.ndarray, str, pd.Series, str]:
    found = re.fullmatch(r"([<>]=?)\s*(.+)", positive)
    way = amounts.numbers(present.value_counts().to_dict(), decimal)
    if found is None or way is None or np.isnan(limit := way[0](found[2])):
        raise PreprocessError(
            f"--positive {positive!r} compares numbers, and nine in ten values of the target {name!r}, or what follows, "
            "are none; a word that means none is named by --missing"
        )
    numbers = present.map(way[0])
    compare = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}[found[1]]
    some = compare(numbers, limit)[numbers.notna()]
    _both(some.to_numpy(), name)
    known = known & numbers.reindex(known.index).notna()
    return some.to_numpy(int), f"{name} {positive}", known, "; ".join(way[1])
