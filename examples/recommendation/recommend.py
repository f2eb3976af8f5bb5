"""Step 7, recommend: the best items for customers, known or never seen, with probabilities; one file holds all of it.

A recommendation is of two kinds: "next", what will be in the next trip, and "new", what was never bought and will be within
a month.

python -m examples.recommendation.recommend FILE --everyone top.csv
python -m examples.recommendation.recommend FILE --customer C | --bought ITEM... [--task next] [--why ITEM]
"""

from __future__ import annotations

import argparse
import csv
import difflib
import io
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, eye_array, vstack

import nnprofile as nn
from nnprofile.validation import check_number, check_size

from .candidates import KINDS, N_CANDIDATES, interactions, item_knn
from .diversity import top
from .events import RARE, Events
from .files import whole
from .pairs import NAMES, Learned, Pairs
from .reasons import Why, why
from .texts import nearest
from .train import LOSS, N_NETWORKS, TASKS, Ranker, blocks, train

VERSION = 2
SPARSE = ("data", "indices", "indptr")
CHUNK = 4096  # customers at a time


class RecommendationError(ValueError):
    """What was asked for cannot be recommended; the message says why."""


class Wishes(NamedTuple):
    """What is asked for, checked."""

    k: int
    task: str
    exclude_bought: bool
    able: np.ndarray  # bool, shape (n_items,): whether an item may be recommended
    diversity: float


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
            If no item was bought on ``rare`` days of customers, or there is too little to teach the networks by.
        """
        day = events.end if day is None else check_size(day, "day")
        check_size(n_networks, "n_networks")
        log = events if day >= events.end else Events.of(events.before(day).frame())  # without the names of later ones
        known, said = log.common(rare), _texts(texts)
        ranker = train(known, day, seed=seed, n_networks=n_networks)
        return cls(*_learned(log, said, day, rare), ranker, rare)

    def update(self, purchases: pd.DataFrame, texts: Mapping[str, str] | None = None) -> Recommender:
        """Return the recommender that has seen these purchases too, of the columns customer, item and date.

        Everything but the networks is as if it had been learned from all purchases at once, to the last digit: counts, days,
        popularity, the weights of others' purchases, customers and items that are new. What was there already counts once.

        Raises
        ------
        RecommendationError
            If a column is not there, something is missing in it, or there are now too many items for EASE, by which the networks
            were taught.
        """
        if missing := [name for name in ("customer", "item", "date") if name not in purchases]:
            raise RecommendationError(f"purchases have the columns customer, item and date; {missing} are not there")
        frames = [self.log.frame()]
        if len(purchases):
            try:
                frames.append(Events.of(purchases).frame())
            except (TypeError, ValueError) as error:
                raise RecommendationError(f"these purchases cannot be read: {error}") from error
        log = Events.of(pd.concat(frames, ignore_index=True))
        day = max(self.day + (self.log.first - log.first).days, log.end)
        said = {**self.texts, **_texts(texts)}
        try:
            learned = _learned(log, said, day, self.rare, exact=self.learned.exact)
        except ValueError as error:
            raise RecommendationError(f"the networks have to be taught anew, by fit: {error}") from error
        return type(self)(*learned, self.ranker, self.rare)

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
        if isinstance(customers, str):
            raise RecommendationError(f"customers are a list of names; got {customers!r}")
        wanted = self._wishes(k, **wishes)
        return [found for _, some in self._of_rows(self._rows(list(customers)), wanted) for found in some]

    def everyone(self, k: int = 10, **wishes: Any) -> Iterator[tuple[str, list[Item]]]:
        """Return each customer with the ``k`` best items, one after the other: memory does not grow with their number."""
        wanted = self._wishes(k, **wishes)
        for rows, some in self._of_rows(np.arange(len(self.log.customers)), wanted):
            yield from zip(self.log.customers[rows].tolist(), some, strict=True)

    def for_items(self, items: Sequence[str], k: int = 10, **wishes: Any) -> list[Item]:
        """Return the best items for a customer never seen, who has just bought these, all in one trip."""
        return next(self._best(self.once(items), self._wishes(k, **wishes)))[0]

    def why(self, item: str, *, customer: str | None = None, bought: Sequence[str] = (), task: str = "new") -> Why:
        """Return what speaks for an item, for a customer who is known, or for one who has just bought these.

        Raises
        ------
        RecommendationError
            If a name or the task is not known, both a customer and purchases are given, or an item is no longer "new".
        """
        self._wishes(1, task=task)
        if customer is not None and len(bought):
            raise RecommendationError("why takes a customer who is known, or what somebody has bought, and not both")
        pairs = self.once(bought) if customer is None else self.pairs(self._rows([customer]))
        place = int(np.flatnonzero(self._mask([item]))[0])
        if task == "new" and pairs.block(np.zeros(1, int)).bought[0, place]:
            raise RecommendationError(f"{item!r} was bought before, so it is not new: ask with task='next'")
        return why(pairs, self.ranker, self.items, 0, place, task)

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
        place = self._places["customers"]
        if unknown := [name for name in customers if not isinstance(name, str) or name not in place]:
            hint = _close(unknown[0], place)
            raise RecommendationError(
                f"customers {unknown[:3]} are not known{hint}; for those never seen there is for_items, and --bought"
            )
        return np.array([place[name] for name in customers], int)

    @cached_property
    def _places(self) -> dict[str, dict[str, int]]:
        names = {"customers": self.log.customers, "items": self.items}
        return {of: {name: i for i, name in enumerate(found)} for of, found in names.items()}

    def _of_rows(self, rows: np.ndarray, wanted: Wishes) -> Iterator[tuple[np.ndarray, list[list[Item]]]]:
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            yield some, [found for block in self._best(self.pairs(some), wanted) for found in block]

    def _best(self, pairs: Pairs, wanted: Wishes) -> Iterator[list[list[Item]]]:
        alike = self.alike if wanted.diversity else None
        for rows in blocks(np.arange(len(pairs.trips))):
            some = pairs.block(rows)
            able = wanted.able & ~(some.bought & wanted.exclude_bought)
            z = self.ranker.scores(wanted.task, pairs, some, able, max(wanted.k, N_CANDIDATES))
            yield [
                [Item(str(self.items[i]), float(1 / (1 + np.exp(-logits[i])))) for i in tops if np.isfinite(logits[i])]
                for logits, tops in zip(z, top(z, alike, wanted.k, wanted.diversity), strict=True)
            ]

    def _wishes(
        self,
        k: int,
        task: str = "new",
        exclude_bought: bool = False,
        allow: Collection[str] | None = None,
        block: Collection[str] | None = None,
        diversity: float = 0.0,
    ) -> Wishes:
        try:
            k = check_size(k, "k")
            diversity = check_number(diversity, "diversity", below=1.0)
        except ValueError as error:
            raise RecommendationError(str(error)) from None
        if task not in TASKS:
            raise RecommendationError(f"task must be one of {tuple(TASKS)}, got {task!r}")
        if not isinstance(exclude_bought, bool):
            raise RecommendationError(f"exclude_bought must be True or False, got {exclude_bought!r}")
        able = np.ones(len(self.items), bool) if allow is None else self._mask(allow)
        return Wishes(k, task, exclude_bought, able & ~self._mask(block or (), strict=False), diversity)

    @cached_property
    def alike(self) -> csr_array:
        """How alike two items are, from 0 to 1: the cosine of who bought how much of them, for each item's nearest."""
        n = self.learned.n_known
        likes = item_knn(interactions(self.history.known(n), "log"))
        if n < len(
            self.items
        ):  # an item known by its text is like those it is a mixture of, and like what they are like
            mixed = csr_array(vstack([eye_array(n), _near(self.items, n, self.texts)]))
            likes = csr_array(mixed @ (likes + eye_array(n)) @ mixed.T)
            likes.setdiag(0)
        return likes

    def _mask(self, items: Collection[str], *, strict: bool = True) -> np.ndarray:
        """Return which items these are; those that are not known are an error, or, unless ``strict``, none."""
        if isinstance(items, str) or not isinstance(items, Iterable):
            raise RecommendationError(f"items are a list of names; got {items!r}")
        items, place = list(items), self._places["items"]
        if strict and (unknown := [name for name in items if name not in place]):
            rare = (
                f"; it was bought on fewer than {self.rare} days of customers, and has no text"
                if unknown[0] in set(self.log.items)
                else _close(unknown[0], place)
            )
            raise RecommendationError(f"items {unknown[:3]} are not known{rare}")
        mask = np.zeros(len(place), bool)
        mask[[place[name] for name in items if name in place]] = True
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
        with whole(Path(path)) as scratch, scratch.open("wb") as file:
            np.savez(file, **arrays)

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
        except Exception as error:  # what a damaged file makes NumPy, zip and JSON raise has no end
            said = "" if "pickle" in str(error) else f": {error}"
            raise RecommendationError(f"{path} is no file of a recommender{said}") from error

    @classmethod
    def _of(cls, arrays: dict[str, np.ndarray]) -> Recommender:
        about = json.loads(arrays["about"].tobytes())
        if about["version"] != VERSION:
            raise ValueError(f"it is of version {about['version']}, and {VERSION} is read")
        customers, items, catalogue = (_names(about[of]) for of in ("customers", "items", "catalogue"))
        day, rare, texts = (about[of] for of in ("day", "rare", "texts"))
        numbers = [arrays[of] for of in ("customer", "item", "day")]
        log = Events(customers, items, *numbers, pd.Timestamp(about["first"]))
        n, weights = len(catalogue), []
        for kind in KINDS:
            dense = arrays.get(f"weights {kind}")
            if dense is None:
                data, indices, indptr = (arrays[f"weights {kind} {part}"] for part in SPARSE)
                dense = csr_array((data, indices, indptr), shape=(len(indptr) - 1, n))
                dense.check_format(full_check=True)
            weights.append(dense)
        learned = Learned(arrays["learned"], tuple(weights))
        nets = {task: nn.load(arrays[f"network {task}"].tobytes()).net for task in TASKS}
        ranker = Ranker(arrays["mean"], arrays["scale"], nets)
        spans = zip(numbers, (len(customers), len(items), day), strict=True)
        order = (log.customer.astype(np.int64) * len(items) + log.item) * (day + 1) + log.day
        shape, width = (learned.n_known, n), (len(NAMES),)
        floats = [learned.items, ranker.mean, *(w if isinstance(w, np.ndarray) else w.data for w in weights)]
        right = {
            "day": type(day) is int and type(rare) is int and 0 < day < 10**6 and rare > 0 and not pd.isna(log.first),
            "texts": isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values()),
            "purchases": all(a.dtype == np.int32 and a.shape == numbers[0].shape for a in numbers)
            and all(not len(a) or 0 <= a.min() <= a.max() < size for a, size in spans)
            and bool((np.diff(order) > 0).all()),
            "weights": 0 < shape[0] <= n and learned.items.shape == (n, 3) and {w.shape for w in weights} == {shape},
            "numbers": all(a.dtype.kind == "f" and bool(np.isfinite(a).all()) for a in floats),
            "features": ranker.mean.shape == ranker.scale.shape == width and bool((ranker.scale > 0).all()),
            "networks": all((net.in_features, net.out_features) == (*width, 1) for net in nets.values()),
        }
        if wrong := [what for what, fits in right.items() if not fits]:
            raise ValueError(f"its {', '.join(wrong)} are not what save writes")
        return cls(log, texts, day, catalogue, learned, ranker, rare)


def _names(names: list[str]) -> np.ndarray:
    found = np.empty(len(names), object)
    found[:] = names
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError("its names are not texts, each once")
    return found


def _close(name: object, names: Collection[str]) -> str:
    found = difflib.get_close_matches(str(name), names, 1, 0.7) if len(names) <= 20_000 else []  # it looks at each
    return f" (did you mean {found[0]!r}?)" if found else ""


def _texts(texts: Mapping[str, str] | None) -> dict[str, str]:
    """Return what is said of items, without those of whom nothing is."""
    return {str(name): text for name, text in (texts or {}).items() if isinstance(text, str) and text.strip()}


def _near(items: np.ndarray, n_known: int, texts: Mapping[str, str]) -> csr_array:
    """Return how the items behind the first ``n_known`` are like these, by their texts."""
    return nearest([texts[name] for name in items[n_known:]], [texts.get(name, "") for name in items[:n_known]])


def _learned(
    log: Events, texts: Mapping[str, str], day: int, rare: int, *, exact: bool | None = None
) -> tuple[Events, Mapping[str, str], int, np.ndarray, Learned]:
    """Return what a recommender is made of, but for its networks."""
    known = log.common(rare).items
    items = np.concatenate([known, np.array(sorted(set(texts) - set(known)), object)])
    near = _near(items, len(known), texts) if len(items) > len(known) else None
    return log, texts, day, items, Learned.of(log.of_items(items), day, near, exact=exact)


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
                raise RecommendationError("--why is for one customer: --customer or --bought")
            _print_why(shop.why(options.why, customer=options.customer, bought=options.bought or (), task=options.task))
            return 0
        wishes = {
            "task": options.task,
            "exclude_bought": options.exclude_bought,
            "diversity": options.diversity,
            **{of: _lines(path) for of in ("allow", "block") if (path := getattr(options, of))},
        }
        if options.everyone and options.everyone.resolve() == options.model.resolve():
            raise RecommendationError(f"--everyone would write over the model, {options.model}")
        if options.everyone:
            write_everyone(shop, options.everyone, options.k, **wishes)
        else:
            found = (
                shop.recommend([options.customer], options.k, **wishes)[0]
                if options.customer is not None
                else shop.for_items(options.bought, options.k, **wishes)
            )
            for item in found:
                print(f"{item.probability:7.1%}  {' '.join(item.name.split())}")
            if not found:
                print("nothing is left to recommend", file=sys.stderr)
    except (RecommendationError, OSError, UnicodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _lines(path: Path) -> list[str]:
    """Return the names in a file, a line each."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RecommendationError(f"{path} is not a text in UTF-8: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def write_everyone(shop: Recommender, path: Path, k: int = 10, **wishes: Any) -> None:
    """Write a line for each customer and item: customer, place, item, probability."""
    with whole(path) as scratch, scratch.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["customer", "place", "item", "probability"])
        for customer, found in shop.everyone(k, **wishes):
            lines.writerows((customer, i + 1, item.name, f"{item.probability:.6f}") for i, item in enumerate(found))


def _print_why(found: Why) -> None:
    print(f"log-odds {found.log_odds:+.3f}, probability {1 / (1 + np.exp(-found.log_odds)):.1%}")
    print(f"{found.base:+.3f}  someone of usual trips, and an item of usual popularity that they never bought")
    for share, what in (
        (found.itself, "having bought it before, or never"),
        (found.popularity, "how popular it is"),
        (found.trips, "how often they come, and how much they take"),
        *((share, f"having bought {' '.join(name.split())}") for name, share in list(found.purchases.items())[:8]),
        (sum(list(found.purchases.values())[8:]), f"the other {max(len(found.purchases) - 8, 0)} items they bought"),
    ):
        print(f"{share:+.3f}  {what}")


if __name__ == "__main__":
    sys.exit(main())
