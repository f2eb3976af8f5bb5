"""Step 2, events: distinct purchases of an item by a customer on a day, numbered, and what is known of them before a day.

A trip is all that a customer bought on one day: a set, without an order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

RARE = 20  # customer-days: of items that were bought less often nothing is learned


@dataclass(frozen=True, eq=False)
class Events:
    """Rows of (customer, item, day), each once, sorted by these; customers and items are numbers into their names."""

    customers: np.ndarray
    items: np.ndarray
    customer: np.ndarray
    item: np.ndarray
    day: np.ndarray  # since ``first``
    first: pd.Timestamp

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Events:
        """Return the events of purchases, a row each, of the columns customer, item and date.

        Raises
        ------
        ValueError
            If there is no row, or something is missing in one.
        """
        customer, customers = _numbered(frame["customer"])
        item, items = _numbered(frame["item"])
        if frame["date"].dtype.kind != "M" and frame["date"].notna().any():
            raise ValueError(
                f"purchases' dates must be of a date type, got {frame['date'].dtype}: see pandas.to_datetime"
            )
        date = pd.to_datetime(frame["date"]).dt.tz_localize(None).dt.normalize()  # the local day
        if not len(frame) or customer.min() < 0 or item.min() < 0 or date.isna().any():
            raise ValueError(f"of {len(frame)} purchases some have no customer, no item or no date")
        first = date.min()
        day = (date - first).dt.days.to_numpy()
        once = ~pd.DataFrame({"customer": customer, "item": item, "day": day}).duplicated().to_numpy()
        return cls.sorted(customers, items, customer[once], item[once], day[once], first)

    @classmethod
    def sorted(
        cls,
        customers: np.ndarray,
        items: np.ndarray,
        customer: np.ndarray,
        item: np.ndarray,
        day: np.ndarray,
        first: pd.Timestamp,
    ) -> Events:
        """Return events in any order, sorted."""
        order = np.lexsort((day, item, customer))
        return cls(customers, items, *(np.asarray(rows[order], np.int32) for rows in (customer, item, day)), first)

    def __len__(self) -> int:
        return len(self.day)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of customers, and of items."""
        return len(self.customers), len(self.items)

    @property
    def end(self) -> int:
        """The day after the last."""
        return int(self.day.max()) + 1

    def frame(self) -> pd.DataFrame:
        """Return the purchases that these events are of."""
        date = self.first + pd.to_timedelta(self.day, unit="D")
        return pd.DataFrame({"customer": self.customers[self.customer], "item": self.items[self.item], "date": date})

    def before(self, day: int) -> Events:
        """Return what happened before a day, with the same customers and items."""
        return self._rows(self.day < day)

    def within(self, start: int, end: int) -> Events:
        """Return what happened from the day ``start`` to before the day ``end``."""
        return self._rows((self.day >= start) & (self.day < end))

    def common(self, rare: int = RARE) -> Events:
        """Return the events of the items that were bought on at least ``rare`` days of customers.

        Raises
        ------
        ValueError
            If there is no such item.
        """
        often = np.bincount(self.item, minlength=len(self.items)) >= rare
        if not often.any():
            raise ValueError(f"no item was bought on {rare} days of customers")
        return self.of_items(self.items[often])

    def known(self, n: int) -> Events:
        """Return the events of the first ``n`` items alone."""
        return replace(self._rows(self.item < n), items=self.items[:n])

    def of_items(self, items: np.ndarray) -> Events:
        """Return the events of these items, numbered in their order; an item may have no purchase."""
        place = {name: i for i, name in enumerate(items)}
        number = np.array([place.get(name, -1) for name in self.items], int)[self.item]
        kept = number >= 0
        return self.sorted(self.customers, items, self.customer[kept], number[kept], self.day[kept], self.first)

    def of_customers(self, rows: np.ndarray) -> Events:
        """Return the events of these customers, numbered in their order."""
        start, end = (np.searchsorted(self.customer, rows, side=side) for side in ("left", "right"))
        n = end - start
        customer = np.repeat(np.arange(len(rows), dtype=np.int32), n)
        which = np.arange(n.sum()) + np.repeat(start - (np.cumsum(n) - n), n)
        return replace(
            self, customers=self.customers[rows], customer=customer, item=self.item[which], day=self.day[which]
        )

    def _rows(self, which: np.ndarray) -> Events:
        return replace(self, customer=self.customer[which], item=self.item[which], day=self.day[which])

    def matrix(self, values: np.ndarray | None = None) -> csr_array:
        """Return the sum of ``values``, one an event, for each customer and item; without them the number of events."""
        values = np.ones(len(self)) if values is None else values
        found = csr_array((values, (self.customer, self.item)), shape=self.shape)
        found.sum_duplicates()
        return found

    def decayed(self, day: int, half_life: float) -> csr_array:
        """Return for each customer and item the sum over purchases of 2^(-(days ago) / half_life)."""
        return self.matrix(2.0 ** (-(day - self.day) / half_life))

    def trips(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the customer and the day of each trip, sorted."""
        if not len(self):
            return self.customer, self.day
        days = np.int64(self.day.max()) + 1
        return np.divmod(np.unique(self.customer * days + self.day), days)

    def n_trips(self) -> np.ndarray:
        """Return each customer's number of trips."""
        return np.bincount(self.trips()[0], minlength=len(self.customers))

    def first_trip(self) -> Events:
        """Return each customer's first trip."""
        start = np.full(len(self.customers), np.iinfo(np.int32).max)
        np.minimum.at(start, self.customer, self.day)
        return self._rows(self.day == start[self.customer])

    def last_trip(self) -> Events:
        """Return each customer's last trip."""
        latest = self.latest()
        return self._rows(self.day == latest[self.customer])

    def nothing(self) -> Events:
        """Return no events, of the same customers and items."""
        return self.before(0)

    def latest(self) -> np.ndarray:
        """Return the day of each customer's last trip, -1 where there is none."""
        latest = np.full(len(self.customers), -1)
        np.maximum.at(latest, self.customer, self.day)
        return latest


def _numbered(values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each value, -1 where it is missing, and the names, which are text, in their order."""
    number, found = pd.factorize(values)
    text = [str(int(name)) if isinstance(name, float) and name.is_integer() else str(name) for name in found]
    names, place = np.unique(np.array(text, object), return_inverse=True)
    return np.append(place, -1)[number], names
