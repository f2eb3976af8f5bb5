"""A log of orders: its lines read and brought together, and every customer described by what was known on a day.

A line is an order, or an article of one; lines of one customer at the same moment (the same day, if the log has no times) are one
order. An order of less than nothing is a return: no purchase, and its money is taken off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from .amounts import MISSING, NO_NUMBER, Numbers, numbers
from .collect import Log, Raw
from .columns import PreprocessError, Types, common_mark
from .dates import Dates, as_date, dates

COLUMNS = ("customer", "date", "amount")  # of every log of orders
MORE = ("quantity", "products", "returned")  # of those whose files tell
WINDOWS = (30, 60, 90, 180)
MEANING = {
    "days_since_last": "days since the last purchase",
    "days_since_first": "days since the first purchase",
    "purchases": "purchases so far",
    "days_with_purchase": "days with a purchase",
    "quantity": "pieces bought",
    "products": "different products in all orders",
    "returned": "money of returns",
    "amount": "money spent",
    "amount_mean": "money a purchase",
    "amount_max": "money of the largest purchase",
    "amount_last": "money of the last purchase",
    "gap_mean": "days between purchases, on average",
    "gap_max": "days of the longest gap between purchases",
    "gap_last": "days between the last two purchases",
    **{f"purchases_{days}_days": f"purchases in the last {days} days" for days in WINDOWS},
    **{f"amount_{days}_days": f"money spent in the last {days} days" for days in WINDOWS},
}
HORIZONS = (7, 14, 30, 60, 90, 180, 365)  # days, to choose from
ENOUGH = 0.3  # of the customers buy again within the horizon that is chosen
GAP, LONG_GAP = 92, 400  # days without any order: what is beyond, and little, has a wrong year
LITTLE, SOME = 0.01, 0.1  # of the lines, beyond a gap, and beyond a long one
READABLE = 0.5  # of the lines, or it is not the file that is meant
SLIPS = 0.02  # of the lines of a later file may be unreadable
COPIES = 0.01  # of the lines are copies of others: that is said
TRIES = 5  # month ends: two to launch from, and two after the first that is scored
ENOUGH_CUSTOMERS = 30  # known at a month's end, to learn from


@dataclass(frozen=True)
class Reader:
    """How the lines of a log are read, found once, and kept for the files that follow it."""

    log: Log
    date: Dates
    numbers: Mapping[str, Numbers]
    missing: tuple[str, ...] = ()  # words, beside the usual ones

    @classmethod
    def of(cls, frame: pd.DataFrame, log: Log, types: Types | None = None) -> tuple[Reader, list[str]]:
        """Find how these lines are read; also what is worth saying.

        Raises
        ------
        PreprocessError
            If a column that is named holds no dates, or no numbers.
        """
        types, notes = types or Types(), []
        missing = tuple(word.lower() for word in types.missing)
        names = [name for name in (log.amount, log.price, log.quantity) if name]
        counts = {name: _counts(frame[name], missing) for name in (log.date, *names)}
        order = types.orders().get(log.date, "")
        date, said = dates(counts[log.date], order, forced=bool(order))
        if date is None or date.form == "duration":
            forced = f", or not with the order {order!r}" if order else ""
            raise PreprocessError(
                f"{log.date!r} holds no dates of days{forced}, but {_some(counts[log.date])}. {' '.join(said)}".strip()
            )
        notes += [f"{log.date}: {line}" for line in said]
        decimal, found = types.decimal or common_mark({name: counts[name] for name in names}), {}
        for name in names:
            way = numbers(counts[name], decimal)
            if way is None:
                raise PreprocessError(f"{name!r} holds no numbers, but {_some(counts[name])}")
            found[name] = way[0]
            notes += [f"{name}: {line}" for line in way[1]]
        return cls(log, date, found, missing), notes

    def lines(self, frame: pd.DataFrame, *, later: bool = False) -> tuple[pd.DataFrame, list[str]]:
        """Return customer, moment (days since 1970) and amount of the lines that can be read, and what is worth saying.

        Of a ``later`` file, whose lines are added to others for good, nearly all must be readable, and as the others were.

        Raises
        ------
        PreprocessError
            If most lines cannot be read.
        """
        names, notes = self.log, []
        if later and not self.date.order and self.date.form == "date":
            dmy, mdy = replace(self.date, order="dmy"), replace(self.date, order="mdy")
            for text in frame[names.date].unique():
                if dmy(text) == dmy(text) and dmy(text) != mdy(text):
                    raise PreprocessError(
                        f"{names.date!r}: {text!r} is written in another way than the dates of the log"
                    )
        when = _mapped(frame[names.date], self.date, self.missing)
        amount = self._number(frame, names.amount or names.price)
        if names.price and not names.amount:
            amount = amount * self._number(frame, names.quantity)
        customer = _customers(frame[names.customer], self.missing)
        bad = {
            "without a customer": customer.isna(),
            f"without a date in {names.date!r}": when.isna(),
            f"without an amount in {names.amount or f'{names.price} or {names.quantity}'!r}": amount.isna(),
        }
        good = pd.Series(True, index=frame.index)
        for what, lines in bad.items():
            if n := int((lines & good).sum()):
                first = frame.loc[lines & good].iloc[0]
                shown = ", ".join(repr(first[column]) for column in names.columns().values())
                notes.append(f"{n:,} lines {what} are left out, such as {shown}")
            good &= ~lines
        kept, said = _years(when[good])
        good.loc[kept.index[~kept]] = False
        notes += said
        if good.sum() < (1 - SLIPS if later and len(frame) > 20 else READABLE) * len(frame) or not good.any():
            raise PreprocessError(
                f"only {good.sum():,} of {len(frame):,} lines can be used: {'; '.join(notes) or 'there are none'}"
            )
        lines = pd.DataFrame({"customer": customer[good], "moment": when[good], "amount": amount[good]})
        return lines, notes

    def orders(self, frame: pd.DataFrame, *, later: bool = False) -> tuple[pd.DataFrame, list[str]]:
        """Return the orders that these lines are, in order of time: customer, date, amount, and what else the file tells.

        Also what is worth saying.

        Raises
        ------
        PreprocessError
            If most lines cannot be read.
        """
        names, frame = self.log, frame.reset_index(drop=True)
        lines, notes = self.lines(frame, later=later)
        copies = int(frame.loc[lines.index].duplicated().sum())
        if copies > max(1, COPIES * len(lines)):
            notes.append(f"{copies:,} lines are exact copies of others, and are counted: was something exported twice?")
        if names.quantity:
            lines["quantity"] = self._number(frame, names.quantity)[lines.index].fillna(0.0)
        if names.product:
            lines["products"] = _firsts(lines, frame.loc[lines.index, names.product])
        by = lines.groupby(["moment", "customer"], sort=False)  # in the order of the file, within a moment
        found = by.sum().reset_index().sort_values("moment", kind="stable", ignore_index=True)
        found.insert(0, "date", pd.to_datetime(np.floor(found.pop("moment")), unit="D"))
        found.insert(0, "customer", found.pop("customer"))
        if (found["amount"] < 0).any():
            found["returned"] = np.maximum(-found["amount"], 0.0)
            notes.append(f"{int((found['amount'] < 0).sum()):,} returns: no purchases, and their money is taken off")
        if len(found) < len(lines):
            what = "orders and returns" if "returned" in found else "orders"
            notes.append(f"{len(lines):,} lines are {len(found):,} {what}: those of one customer at one time are one")
        return found, notes

    def _number(self, frame: pd.DataFrame, name: str) -> pd.Series:
        return _mapped(frame[name], self.numbers[name], (*NO_NUMBER, *self.missing))

    def to_json(self) -> dict[str, Any]:
        """Return the state."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Reader:
        """Return what ``to_json`` gave."""
        ways = {name: Numbers(**way) for name, way in state["numbers"].items()}
        return cls(Log(**state["log"]), Dates(**state["date"]), ways, tuple(state["missing"]))


def clean_log(raw: Raw, types: Types | None = None) -> tuple[pd.DataFrame, Reader, list[str]]:
    """Return the orders of a log, how it is read, and what is worth saying."""
    assert raw.log is not None
    reader, notes = Reader.of(raw.frame, raw.log, types)
    found, more = reader.orders(raw.frame)
    return found, reader, [*raw.notes, *notes, *more]


def _counts(text: pd.Series, missing: Sequence[str]) -> dict[str, int]:
    counts = text.value_counts().to_dict()
    return {t: n for t, n in counts.items() if t.lower() not in MISSING | NO_NUMBER | set(missing)}


def _some(counts: Mapping[str, int]) -> str:
    return ", ".join(map(repr, list(counts)[:3])) or "nothing"


def _mapped(text: pd.Series, way: Any, missing: Sequence[str]) -> pd.Series:
    """Return the numbers that texts mean; there are few kinds, and many lines."""
    codes, kinds = pd.factorize(text)
    none = MISSING | set(missing)
    values = [np.nan if kind.lower() in none else way(kind) for kind in kinds]
    return pd.Series(np.array(values, float)[codes], index=text.index)


def _customers(text: pd.Series, missing: Sequence[str]) -> pd.Series:
    """Return the customers' names, missing where there is none; 17850.0, as a table with gaps writes it, is 17850."""
    found = text.mask(text.str.lower().isin(MISSING | set(missing))).astype(object)
    return found.str.replace(r"^(\d+)\.0$", r"\1", regex=True)


def _firsts(lines: pd.DataFrame, product: pd.Series) -> np.ndarray:
    """Return 1.0 for each line whose product stands in its order for the first time: their sum is the number of products."""
    return np.asarray(~lines[["customer", "moment"]].assign(product=product).duplicated(), float)


def _years(when: pd.Series) -> tuple[pd.Series, list[str]]:
    """Tell which lines are of the time of the others: a few, far before or after all others, have a wrong year."""
    kept, notes = pd.Series(True, index=when.index), []
    days = np.sort(when.to_numpy())
    gaps = np.flatnonzero(np.diff(days) > GAP)
    for at in gaps:
        for n, lines in ((at + 1, when <= days[at]), (len(days) - at - 1, when > days[at])):
            if n <= (SOME if days[at + 1] - days[at] > LONG_GAP else LITTLE) * len(days):
                kept &= ~lines
    if gone := int((~kept).sum()):
        example = as_date(float(when[~kept].iloc[0]))
        notes.append(f"{gone:,} lines far from all others in time, such as {example}, are left out: is the year right?")
    elif len(gaps):
        notes.append(
            f"there is no order between {as_date(days[gaps[0]])} and {as_date(days[gaps[0] + 1])}: is each year right?"
        )
    return kept, notes


@dataclass(frozen=True)
class Question:
    """What is asked of a log: who, of the customers known on the day ``cutoff``, buys again within ``horizon``."""

    cutoff: pd.Timestamp
    horizon: pd.Timedelta
    launch: pd.Timestamp | None  # when the first model of the months is trained; None: there are too few months
    notes: list[str]


def question(log: pd.DataFrame, asked: Log) -> Question:
    """Return what is asked, chosen from the log where it is not said.

    The horizon is the shortest within which enough customers buy again, and a quarter of the log at most; the cut-off so long
    before the log's end.

    Raises
    ------
    PreprocessError
        If the log is too short, or has too few customers; the message says what is missing.
    """
    first, last = log["date"].min(), log["date"].max()
    span, notes = (last - first).days, []
    whole = f"the log goes from {first:%Y-%m-%d} to {last:%Y-%m-%d}, {span + 1} days"
    horizon = asked.horizon
    cutoff = pd.Timestamp(asked.cutoff) if asked.cutoff else None
    if cutoff is not None and not first <= cutoff < last:
        raise PreprocessError(f"--cutoff {cutoff:%Y-%m-%d}: {whole}; the cut-off must lie within, before its last day")
    if cutoff is None and not horizon:
        able = [days for days in HORIZONS if 4 * days <= span + 1]
        if not able:
            raise PreprocessError(
                f"{whole}: too short to learn from the past what follows; {4 * HORIZONS[0]} days are needed"
            )
        shares = {days: _share(log, last - pd.Timedelta(days=days)) for days in able}
        horizon = next((days for days in able if shares[days] >= ENOUGH), able[-1])
        notes.append(
            f"horizon {horizon} days, chosen: {shares[horizon]:.0%} of the customers known by then buy within it (--horizon)"
        )
    horizon = horizon or (last - cutoff).days  # type: ignore[operator]
    if cutoff is None:
        cutoff = last - pd.Timedelta(days=horizon)
        notes.append(f"cut-off {cutoff:%Y-%m-%d}, {horizon} days before the log's end (--cutoff)")
    if cutoff < first:
        raise PreprocessError(f"--horizon {horizon}: {whole}; nothing is left to describe the customers by")
    if cutoff + pd.Timedelta(days=horizon) > last:
        raise PreprocessError(
            f"the {horizon} days after {cutoff:%Y-%m-%d} are not over when the log ends, on {last:%Y-%m-%d}: "
            f"choose an earlier --cutoff, or a shorter --horizon"
        )
    y = customers(log, cutoff, pd.Timedelta(days=horizon))[1]
    if min(y.sum(), len(y) - y.sum()) < 10:
        raise PreprocessError(
            f"by {cutoff:%Y-%m-%d} the log knows {len(y)} customers, of whom {y.sum()} buy again within {horizon} days and "
            f"{len(y) - y.sum()} do not: 10 of each are needed, at least. Another --cutoff or --horizon may help, or a longer log"
        )
    if later := log["customer"].nunique() - len(y):
        notes.append(f"{later:,} customers had not bought by the cut-off: what follows is not about them")
    joined = np.sort(log.groupby("customer")["date"].min().to_numpy())
    ends = [end for end in month_ends(log) if np.searchsorted(joined, end.to_datetime64(), "right") >= ENOUGH_CUSTOMERS]
    launch = None
    if asked.launch:
        launch = pd.Timestamp(asked.launch)
    elif len(ends) >= TRIES:
        launch = ends[max(2, len(ends) // 3 - 1)]
    else:
        notes.append(
            f"no months and no live model: they need {TRIES} month ends whose next {MONTH.days} days the log holds, with "
            f"{ENOUGH_CUSTOMERS} customers, after its first month; it has {len(ends)}"
        )
    return Question(cutoff, pd.Timedelta(days=horizon), launch, notes)


MONTH = pd.Timedelta(
    days=30
)  # a month's label, whether a customer buys within it, is known so many days after its date


def month_ends(log: pd.DataFrame) -> list[pd.Timestamp]:
    """Return the last days of the months whose labels the log holds in full, but for the first, when no customer is known."""
    first, last = log["date"].min() + pd.offsets.MonthEnd(1), log["date"].max()
    return [month for month in pd.date_range(first + pd.offsets.MonthEnd(1), last, freq="ME") if month + MONTH <= last]


def _share(log: pd.DataFrame, cutoff: pd.Timestamp) -> float:
    bought = log[log["amount"] >= 0]
    known, later = (
        bought.loc[which, "customer"].unique() for which in (bought["date"] <= cutoff, bought["date"] > cutoff)
    )
    return float(np.isin(known.astype(str), later.astype(str)).mean()) if len(known) else 0.0


def customers(
    log: pd.DataFrame, cutoff: pd.Timestamp, horizon: pd.Timedelta | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return one row a customer known by ``cutoff`` (its last day included), and whether a purchase follows: 0 or 1.

    It counts if it comes within ``horizon``, if one is given: at the latest on the day ``cutoff + horizon``.
    Recency, frequency, money, tenure, gaps between days of purchase, and recent windows; money is net of returns.
    """
    day = log["date"].to_numpy().astype("datetime64[D]").astype(np.int64)
    now = int(np.datetime64(cutoff, "D").astype(np.int64))
    bought = log["amount"].to_numpy() >= 0
    past, future = day <= now, bought & (day > now)
    if horizon is not None:
        future &= day <= now + horizon.days
    name = log["customer"].to_numpy(object)
    known = pd.Index(pd.unique(name[past & bought]), name="customer", dtype=object).sort_values()
    code = known.get_indexer(name)
    y = np.zeros(len(known), int)
    y[code[future & (code >= 0)]] = 1

    past &= code >= 0  # who only returned is no customer
    order = np.flatnonzero(past)[np.argsort(code[past], kind="stable")]  # by customer, then in order of time
    who, when, amount, is_bought = code[order], day[order], log["amount"].to_numpy(float)[order], bought[order]
    n = len(known)

    def total(values: np.ndarray, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        return np.bincount(who[which], values[which], n)

    ones = is_bought.astype(float)
    own, days, money = who[is_bought], when[is_bought], amount[is_bought]
    starts = np.searchsorted(own, np.arange(n))
    last = np.append(starts, len(own))[1:] - 1
    new_day = np.append(True, (np.diff(own) > 0) | (np.diff(days) > 0))[: len(own)]
    of, at = own[new_day], days[new_day]
    gap = np.append(np.nan, np.where(np.diff(of) > 0, np.nan, np.diff(at)))[: len(of)]  # to the day of purchase before
    first_of = np.searchsorted(of, np.arange(n))
    n_days = np.diff(np.append(first_of, len(of)))
    with np.errstate(invalid="ignore"):
        frame: dict[str, np.ndarray] = {
            "days_since_last": now - days[last],
            "days_since_first": now - days[starts],
            "purchases": total(ones),
            "days_with_purchase": n_days,
            **{name: total(log[name].to_numpy(float)[order]) for name in MORE if name in log},
            "amount": total(amount),
            "amount_mean": total(amount * ones) / total(ones),
            "amount_max": np.maximum.reduceat(money, starts) if n else money,
            "amount_last": money[last],
            "gap_mean": (days[last] - days[starts]) / np.where(n_days > 1, n_days - 1, np.nan),
            "gap_max": np.fmax.reduceat(gap, first_of) if n else gap,
            "gap_last": gap[np.append(first_of, len(of))[1:] - 1],
        }
    for window in WINDOWS:
        recent = when > now - window
        frame[f"purchases_{window}_days"] = total(ones, recent)
        frame[f"amount_{window}_days"] = total(amount, recent)
    return pd.DataFrame(frame, index=known).astype(float), y
