"""Step 2, events: distinct purchases of an item by a customer on a day, numbered, and what is known of them before a day.

A trip is all that a customer bought on one day: a set, without an order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from .collect import Purchases

RARE = 20  # customer-days: items that were bought less often are left out


@dataclass(frozen=True)
class Events:
    """Rows of (customer, item, day), each once, in order of time; customers and items are numbers into their names."""

    customers: np.ndarray
    items: np.ndarray
    customer: np.ndarray
    item: np.ndarray
    day: np.ndarray  # since ``first``
    first: pd.Timestamp

    @classmethod
    def of(cls, purchases: Purchases, rare: int = RARE) -> Events:
        """Return the events of some purchases, without the rare items."""
        frame = purchases.frame.drop_duplicates(["customer", "item", "date"])
        often = frame["item"].map(frame["item"].value_counts()) >= rare
        frame = frame[often].sort_values("date", kind="stable")
        if not len(frame):
            raise ValueError(f"{purchases.name}: no item was bought on {rare} days of customers")
        customer, customers = pd.factorize(frame["customer"], sort=True)
        item, items = pd.factorize(frame["item"], sort=True)
        first = frame["date"].min()
        day = (frame["date"] - first).dt.days.to_numpy()
        return cls(np.asarray(customers, object), np.asarray(items, object), customer, item, day, first)

    def __len__(self) -> int:
        return len(self.day)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of customers, and of items."""
        return len(self.customers), len(self.items)

    def before(self, day: int) -> Events:
        """Return what happened before a day, with the same customers and items."""
        return self._rows(self.day < day)

    def within(self, start: int, end: int) -> Events:
        """Return what happened from the day ``start`` to before the day ``end``."""
        return self._rows((self.day >= start) & (self.day < end))

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

    def n_trips(self) -> np.ndarray:
        """Return each customer's number of trips."""
        trips = np.unique(np.stack([self.customer, self.day]), axis=1)
        return np.bincount(trips[0], minlength=len(self.customers))

    def next_trip(self) -> Events:
        """Return each customer's first trip."""
        start = np.full(len(self.customers), np.iinfo(int).max)
        np.minimum.at(start, self.customer, self.day)
        return self._rows(self.day == start[self.customer])
