"""Step 7, recommend: the best items for customers, known or never seen, with probabilities; one file holds all of it.

A recommendation is of two kinds: "next", what will be in the next trip, and "new", what was never bought and will be within
a month.

python -m examples.recommendation.recommend FILE --everyone top.csv
python -m examples.recommendation.recommend FILE --customer C | --bought ITEM... [--task next] [--why ITEM]
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

import nnprofile as nn

from .candidates import KINDS, N_CANDIDATES, interactions, item_knn
from .diversity import top
from .events import RARE, Events
from .pairs import NAMES, Learned, Pairs
from .reasons import Why, why
from .texts import nearest
from .train import LOSS, N_NETWORKS, TASKS, Ranker, blocks, train

VERSION = 2
SPARSE = ("data", "indices", "indptr")
CHUNK = 4096  # customers at a time


class RecommendationError(ValueError):
    """What was asked for cannot be recommended; the message says why."""


class Item(NamedTuple):
    """An item, and how probable it is to be bought."""

    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class Recommender:
    """What was bought until a day, what is learned from it, and the networks that rank by it."""

    log: Events  # all of it, rare items too
    texts: Mapping[str, str]  # of items
    day: int  # the first of which nothing is known
    items: np.ndarray  # the catalogue: first those of which something is learned, then those known by their texts alone
    learned: Learned
    ranker: Ranker
    rare: int = RARE

    @classmethod
    def fit(
        cls,
        events: Events,
        day: int | None = None,
        *,
        texts: Mapping[str, str] | None = None,
        rare: int = RARE,
        seed: int = 0,
        n_networks: int = N_NETWORKS,
    ) -> Recommender:
        """Learn from all events before ``day``, by default from all; ``texts`` say something of items, bought or not.

        Raises
        ------
        ValueError
            If no item was bought on ``rare`` days of customers, or nobody made enough trips to teach the networks by.
        """
        day = events.end if day is None else day
        log = events.before(day)
        ranker = train(log.common(rare), day, seed=seed, n_networks=n_networks)
        return cls(*_learned(log, texts or {}, day, rare), ranker, rare)

    def update(self, purchases: pd.DataFrame, texts: Mapping[str, str] | None = None) -> Recommender:
        """Return the recommender that has seen these purchases too, of the columns customer, item and date.

        Everything but the networks is as if it had been learned from all purchases at once, to the last digit: counts, days,
        popularity, the weights of others' purchases, customers and items that are new. What was there already counts once.

        Raises
        ------
        RecommendationError
            If a column is not there, or something is missing in it.
        """
        if missing := [name for name in ("customer", "item", "date") if name not in purchases]:
            raise RecommendationError(f"purchases have the columns customer, item and date; {missing} are not there")
        try:
            more = Events.of(purchases)
        except (TypeError, ValueError) as error:
            raise RecommendationError(f"these purchases cannot be read: {error}") from error
        log = Events.of(pd.concat([self.log.frame(), more.frame()], ignore_index=True))
        day = max(self.day + (self.log.first - log.first).days, log.end)
        return type(self)(*_learned(log, {**self.texts, **(texts or {})}, day, self.rare), self.ranker, self.rare)

    @cached_property
    def history(self) -> Events:
        """What was bought of the catalogue."""
        return self.log.of_items(self.items)

    def recommend(self, customers: Sequence[str], k: int = 10, **wishes: Any) -> list[list[Item]]:
        """Return the ``k`` best items of each customer, the best first, with their probabilities.

        Parameters
        ----------
        task
            "new": what they never bought, and will within 30 days of which they visit at least once; or "next": what will be
            in the next trip.
        exclude_bought
            Whether "next" leaves out what was bought before.
        allow, block
            Items: nothing but these; none of these.
        diversity
            From 0 up to 1: how much an item that is like one above it is moved down, see ``diversity.py``.

        Raises
        ------
        RecommendationError
            If a customer, an item or a wish is not known.
        """
        return [found for _, some in self._of_rows(self._rows(customers), k, wishes) for found in some]

    def everyone(self, k: int = 10, **wishes: Any) -> Iterator[tuple[str, list[Item]]]:
        """Return each customer with the ``k`` best items, one after the other: memory does not grow with their number."""
        for rows, some in self._of_rows(np.arange(len(self.log.customers)), k, wishes):
            yield from zip(self.log.customers[rows].tolist(), some, strict=True)

    def for_items(self, items: Sequence[str], k: int = 10, **wishes: Any) -> list[Item]:
        """Return the best items for a customer never seen, who has just bought these, all in one trip."""
        return next(self._best(self.once(items), k, **wishes))[0]

    def why(self, item: str, *, customer: str | None = None, bought: Sequence[str] = (), task: str = "new") -> Why:
        """Return what speaks for an item, for a customer who is known, or for one who has just bought these."""
        pairs = self.once(bought) if customer is None else self.pairs(self._rows([customer]))
        return why(pairs, self.ranker, self.items, 0, int(np.flatnonzero(self._mask([item]))[0]), task)

    def once(self, items: Sequence[str]) -> Pairs:
        """Return the description of a customer never seen, who has just bought these, all in one trip."""
        bought = np.flatnonzero(self._mask(items))
        day = np.full(len(bought), self.day - 1)
        name = np.array(["(new)"], object)
        once = Events.sorted(name, self.items, np.zeros(len(bought), int), bought, day, self.log.first)
        return Pairs.of(once, self.day, self.learned)

    def pairs(self, rows: np.ndarray) -> Pairs:
        """Return the description of some customers, by number."""
        return Pairs.of(self.history.of_customers(rows), self.day, self.learned)

    def _rows(self, customers: Sequence[str]) -> np.ndarray:
        if isinstance(customers, str):
            raise RecommendationError(f"customers are a list of names; got {customers!r}")
        if unknown := [name for name in customers if name not in self._places["customers"]]:
            raise RecommendationError(f"customers {unknown[:3]} are not known; for_items takes what they bought")
        return np.array([self._places["customers"][name] for name in customers], int)

    @cached_property
    def _places(self) -> dict[str, dict[str, int]]:
        names = {"customers": self.log.customers, "items": self.items}
        return {of: {name: i for i, name in enumerate(found)} for of, found in names.items()}

    def _of_rows(
        self, rows: np.ndarray, k: int, wishes: dict[str, Any]
    ) -> Iterator[tuple[np.ndarray, list[list[Item]]]]:
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            yield some, [found for block in self._best(self.pairs(some), k, **wishes) for found in block]

    def _best(
        self,
        pairs: Pairs,
        k: int,
        task: str = "new",
        exclude_bought: bool = False,
        allow: Collection[str] | None = None,
        block: Collection[str] = (),
        diversity: float = 0.0,
    ) -> Iterator[list[list[Item]]]:
        if task not in TASKS or k < 1 or not 0 <= diversity < 1:
            wanted = f"task must be one of {tuple(TASKS)}, k at least 1, and diversity from 0 to below 1"
            raise RecommendationError(f"{wanted}; got {task!r}, {k} and {diversity}")
        able = ~self._mask(block)
        if allow is not None:
            able &= self._mask(allow)
        for rows in blocks(np.arange(len(pairs.trips))):
            some = pairs.block(rows)
            z = self.ranker.scores(task, pairs, some, able & ~(some.bought & exclude_bought), max(k, N_CANDIDATES))
            best = top(z, self.alike if diversity else None, k, diversity)
            yield [
                [Item(str(self.items[i]), float(1 / (1 + np.exp(-logits[i])))) for i in tops if np.isfinite(logits[i])]
                for logits, tops in zip(z, best, strict=True)
            ]

    @cached_property
    def alike(self) -> csr_array:
        """How alike two items are, from 0 to 1: the cosine of who bought how much of them, for each item's nearest."""
        return item_knn(interactions(self.history, "log"))

    def _mask(self, items: Collection[str]) -> np.ndarray:
        if isinstance(items, str):
            raise RecommendationError(f"items are a list of names; got {items!r}")
        place = self._places["items"]
        if unknown := [name for name in items if name not in place]:
            rare = f"; they were bought on fewer than {RARE} days of customers, and have no text" * (
                unknown[0] in set(self.log.items)
            )
            raise RecommendationError(f"items {unknown[:3]} are not known{rare}")
        mask = np.zeros(len(place), bool)
        mask[[place[name] for name in items]] = True
        return mask

    def save(self, path: Path | str) -> None:
        """Write everything into one file, without pickle: names, purchases, weights and networks."""
        log, ranker = self.log, self.ranker
        names = {"customers": log.customers, "items": log.items, "catalogue": self.items, "first": str(log.first)}
        about = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in names.items()}
        about |= {"version": VERSION, "day": self.day, "rare": self.rare, "texts": dict(self.texts)}
        arrays = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
        arrays |= {"customer": log.customer, "item": log.item, "day": log.day}
        arrays |= {"learned": self.learned.items, "mean": ranker.mean, "scale": ranker.scale}
        for kind, weights in zip(KINDS, self.learned.weights, strict=True):
            if isinstance(weights, np.ndarray):
                arrays[f"weights {kind}"] = weights
            else:
                arrays |= {f"weights {kind} {part}": getattr(weights, part) for part in SPARSE}
        for task, net in ranker.nets.items():
            buffer = io.BytesIO()
            nn.save(net, buffer, loss=LOSS)
            arrays[f"network {task}"] = np.frombuffer(buffer.getvalue(), np.uint8)
        path = Path(path)
        scratch = path.with_name(f"{path.name}.tmp")
        with scratch.open("wb") as file:
            np.savez(file, **arrays)
        scratch.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> Recommender:
        """Read what ``save`` wrote.

        Raises
        ------
        RecommendationError
            If it is not such a file.
        """
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as arrays:
                return cls._of(dict(arrays))
        except (OSError, KeyError, TypeError, AttributeError, ValueError, EOFError, BadZipFile) as error:
            raise RecommendationError(f"{path} is no file of a recommender: {error}") from error

    @classmethod
    def _of(cls, arrays: dict[str, np.ndarray]) -> Recommender:
        about = json.loads(arrays["about"].tobytes())
        if about["version"] != VERSION:
            raise ValueError(f"it is of version {about['version']}, and {VERSION} is read")
        customers, items, catalogue = (np.array(about[of], object) for of in ("customers", "items", "catalogue"))
        log = Events(
            customers, items, *(arrays[of] for of in ("customer", "item", "day")), pd.Timestamp(about["first"])
        )
        n, weights = len(catalogue), []
        for kind in KINDS:
            dense = arrays.get(f"weights {kind}")
            parts = dense is None and tuple(arrays[f"weights {kind} {part}"] for part in SPARSE)
            weights.append(csr_array(parts, shape=(n, n)) if parts else dense)
        nets = {task: nn.load(arrays[f"network {task}"].tobytes()).net for task in TASKS}
        n_features = len(arrays["mean"])
        for what, found, wanted in (
            ("customer", log.customer, len(customers)),
            ("item", log.item, len(items)),
        ):
            if len(found) != len(log.day) or (len(found) and not 0 <= found.min() <= found.max() < wanted):
                raise ValueError(f"the numbers of {what} do not fit")
        shapes = [arrays["learned"].shape, *(w.shape for w in weights), arrays["scale"].shape]
        if shapes != [(n, 3), (n, n), (n, n), (n_features,)] or n_features != len(NAMES):
            raise ValueError(f"the shapes {shapes} do not fit {n} items")
        learned = Learned(arrays["learned"], tuple(weights))
        ranker = Ranker(arrays["mean"], arrays["scale"], nets)
        return cls(log, about["texts"], int(about["day"]), catalogue, learned, ranker, int(about["rare"]))


def _learned(
    log: Events, texts: Mapping[str, str], day: int, rare: int
) -> tuple[Events, Mapping[str, str], int, np.ndarray, Learned]:
    """Return what a recommender is made of, but for its networks."""
    known = log.common(rare)
    learned = Learned.of(known, day)
    cold = np.array(sorted(set(texts) - set(known.items)), object)
    if len(cold):
        learned = learned.extended(
            nearest([texts[name] for name in cold], [texts.get(name, "") for name in known.items])
        )
    return log, texts, day, np.concatenate([known.items, cold]), learned


def main(arguments: list[str] | None = None) -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.recommendation.recommend",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
    )
    parser.add_argument("model", type=Path, metavar="FILE", help="what the example, or save, wrote")
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--everyone", type=Path, metavar="CSV", help="write the best items of every customer")
    whom.add_argument("--customer", metavar="NAME", help="a customer of the log")
    whom.add_argument(
        "--bought", nargs="+", metavar="ITEM", help="for a customer never seen, who has just bought these"
    )
    parser.add_argument(
        "--task", choices=tuple(TASKS), default="new", help="; ".join(f"{k}: {v}" for k, v in TASKS.items())
    )
    parser.add_argument("-k", type=int, default=10, metavar="N", help="how many (10)")
    parser.add_argument("--exclude-bought", action="store_true")
    parser.add_argument("--diversity", type=float, default=0.0, metavar="D", help="from 0 to below 1")
    parser.add_argument("--allow", type=Path, metavar="FILE", help="nothing but these items, a line each")
    parser.add_argument("--block", type=Path, metavar="FILE", help="none of these items, a line each")
    parser.add_argument("--why", metavar="ITEM", help="share the log-odds of this item out, instead")
    options = parser.parse_args(arguments)
    try:
        shop = Recommender.load(options.model)
        if options.why is not None:
            if options.everyone:
                parser.error("--why is for one customer: --customer or --bought")
            _print_why(shop.why(options.why, customer=options.customer, bought=options.bought or (), task=options.task))
            return 0
        wishes = {
            "task": options.task,
            "exclude_bought": options.exclude_bought,
            "diversity": options.diversity,
            **{
                of: path.read_text(encoding="utf-8").splitlines()
                for of in ("allow", "block")
                if (path := getattr(options, of))
            },
        }
        if options.everyone:
            write_everyone(shop, options.everyone, options.k, **wishes)
        else:
            found = (
                shop.recommend([options.customer], options.k, **wishes)[0]
                if options.customer is not None
                else shop.for_items(options.bought, options.k, **wishes)
            )
            for item in found:
                print(f"{item.probability:7.1%}  {item.name}")
    except (RecommendationError, OSError, UnicodeDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_everyone(shop: Recommender, path: Path, k: int = 10, **wishes: Any) -> None:
    """Write a line for each customer and item: customer, place, item, probability."""
    scratch = path.with_name(f"{path.name}.tmp")
    with scratch.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["customer", "place", "item", "probability"])
        for customer, found in shop.everyone(k, **wishes):
            lines.writerows((customer, i + 1, item.name, f"{item.probability:.6f}") for i, item in enumerate(found))
    scratch.replace(path)


def _print_why(found: Why) -> None:
    print(f"log-odds {found.log_odds:+.3f}, probability {1 / (1 + np.exp(-found.log_odds)):.1%}")
    print(f"{found.base:+.3f}  someone of usual trips, and an item of usual popularity that they never bought")
    for share, what in (
        (found.itself, "having bought it before, or never"),
        (found.popularity, "how popular it is"),
        (found.trips, "how often they come, and how much they take"),
        *((share, f"having bought {name}") for name, share in list(found.purchases.items())[:8]),
        (sum(list(found.purchases.values())[8:]), f"the other {max(len(found.purchases) - 8, 0)} items they bought"),
    ):
        print(f"{share:+.3f}  {what}")


if __name__ == "__main__":
    sys.exit(main())
