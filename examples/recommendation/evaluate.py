"""Step 6, evaluate: rank the full catalogue for every customer at days whose future is known, beside every simple method.

What is next, and what is new, are asked apart: most of a trip was bought before, and a figure that mixes the two measures
shopping lists.
Items of equal score have no order, so each metric is its expectation over all of theirs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array

from . import candidates, diversity
from .events import RARE, Events
from .pairs import Block, Pairs
from .texts import nearest
from .train import AHEAD, FEWEST_TRIPS, N_NETWORKS, TASKS, Answers, Ranker, TooLittle, blocks, train

TOP = 10
METRICS = {"ndcg": "NDCG@10", "recall": "recall@10", "f1": "F1@10", "mrr": "MRR"}
ACTIVITY = {"5 to 15 trips": (FEWEST_TRIPS, 15), "16 to 39 trips": (16, 39), "40 trips and more": (40, 10**9)}
NETWORK, FREQUENCY, EASE = "network on pairs", "own frequency, half-life 120 days", "EASE, whether"
ONE_TRIP = ", from one trip"  # as if the customer had never been seen before their last trip
DIVERSE = (0.2, 0.4, 0.6)
LIMITS = np.array([0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0])  # of probability, for calibration
BELOW = 1e6  # what is not worth ranking by the network stands below what is, in the order of others' purchases


@dataclass(frozen=True)
class Ranking:
    """How well one method ranked, a value a customer (NaN where nothing was to be found), and which items it put on top."""

    values: dict[str, np.ndarray]
    top: np.ndarray  # numbers of items, shape (n_rows, TOP)

    @classmethod
    def joined(cls, parts: Sequence[Ranking]) -> Ranking:
        """Return the ranking of all customers, from those of some."""
        values = {name: np.concatenate([part.values[name] for part in parts]) for name in METRICS}
        return cls(values, np.concatenate([part.top for part in parts]))

    def coverage(self) -> int:
        """Return the number of distinct items in all tops."""
        return len(np.unique(self.top))


@dataclass
class Measured:
    """What was measured: for each task and method a list of cut-offs, each a list of seeds."""

    days: list[int]
    rankings: dict[tuple[str, str], list[list[Ranking]]] = field(default_factory=lambda: defaultdict(list))
    again: list[float] = field(default_factory=list)  # the share of the next trips that was bought before
    n_trips: list[np.ndarray] = field(default_factory=list)  # of each customer who is measured
    counts: dict[str, np.ndarray] = field(default_factory=dict)  # between LIMITS: pairs, sum of probabilities, of yes
    alike: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # two items of one list

    def methods(self, task: str) -> list[str]:
        """Return the methods, the best first after the network."""
        names = [name for t, name in self.rankings if t == task and (name == NETWORK or name not in self.alike)]
        return sorted(names, key=lambda name: (name != NETWORK, -self.mean(task, name, "ndcg")))

    def rival(self, task: str) -> str:
        """Return the best method but the network."""
        return self.methods(task)[1]

    def mean(self, task: str, method: str, metric: str, last: int = 0) -> float:
        """Return the mean over customers, seeds and cut-offs, or the ``last`` ones of these."""
        return float(np.mean([np.nanmean(values) for values in self._values(task, method, metric)[-last:]]))

    def coverage(self, task: str, method: str, last: int = 0) -> float:
        """Return the number of distinct items in everybody's tops, the mean over seeds and cut-offs."""
        return float(np.mean([r.coverage() for seeds in self.rankings[task, method][-last:] for r in seeds]))

    def gain(self, task: str, other: str, activity: str = "", last: int = 0) -> tuple[float, float]:
        """Return the network's NDCG minus another's, the mean over customers and cut-offs, and its standard error."""
        low, high = ACTIVITY.get(activity, (0, 10**9))
        trips = np.concatenate(self.n_trips[-last:])
        which = (trips >= low) & (trips <= high)
        ours, theirs = (np.concatenate(self._values(task, name, "ndcg")[-last:]) for name in (NETWORK, other))
        return difference(ours[which], theirs[which]) if which.sum() > 1 else (float("nan"), float("nan"))

    def _values(self, task: str, method: str, metric: str) -> list[np.ndarray]:
        return [np.mean([r.values[metric] for r in seeds], axis=0) for seeds in self.rankings[task, method]]


@dataclass(frozen=True)
class Simple:
    """The methods without a network, of what is known on a day."""

    popularity: np.ndarray
    lately: np.ndarray
    alike: csr_array
    factors: np.ndarray | None  # of items, by alternating least squares, where the package ``implicit`` is there

    @classmethod
    def of(cls, pairs: Pairs) -> Simple:
        """Learn from all customers."""
        known = pairs.known[candidates.KINDS.index("log")]
        popular, lately = (candidates.popularity(pairs.history, pairs.day, d) for d in (None, candidates.LATELY))
        return cls(popular, lately, candidates.item_knn(known), candidates.least_squares(known))

    def scores(self, task: str, pairs: Pairs, block: Block) -> dict[str, np.ndarray]:
        """Return the score of each item by each method, shape (n_rows, n_items)."""
        shape = block.bought.shape
        popular, lately = np.broadcast_to(self.popularity, shape), np.broadcast_to(self.lately, shape)
        known = pairs.known[candidates.KINDS.index("log")][block.rows]
        found = {
            "popularity": popular,
            "popularity, last 30 days": lately,
            "item-kNN": candidates.foretell(known, self.alike),
            **dict(zip((EASE, "EASE, how often"), block.others, strict=True)),
        }
        if self.factors is not None:
            found["iALS (implicit)"] = candidates.fold_in(known, self.factors) @ self.factors.T
        if task == "next":  # popularity decides among what was never bought
            own = candidates.frequency(pairs.history.of_customers(block.rows), pairs.day).toarray()
            return {FREQUENCY: own + popular * (1e-9 / max(popular.max(), 1)), **found}
        return {name: np.where(block.bought, -np.inf, scores) for name, scores in found.items()}


def measure(
    log: Events, days: list[int], seeds: Sequence[int] = (0,), *, rare: int = RARE, n_networks: int = N_NETWORKS
) -> Measured:
    """Measure every method at these days; of each it is known what happened before, and what items are common by then.

    Raises
    ------
    TooLittle
        If there is not enough to learn from, or no customer to measure by.
    """
    found = Measured(days, counts={task: np.zeros((len(LIMITS) - 1, 3)) for task in TASKS})
    for day in days:
        events = log.of_items(log.before(day).common(rare).items)
        pairs, answers = Pairs.of(events, day), Answers.of(events, day)
        if not len(answers.rows):
            raise TooLittle(
                f"no customer who made {FEWEST_TRIPS} trips by then came within the {AHEAD} days after day {day} of the log: "
                "nothing to measure by"
            )
        rankers, simple = [train(events, day, seed=seed, n_networks=n_networks) for seed in seeds], Simple.of(pairs)
        parts: dict[tuple[str, str], list[list[Ranking]]] = defaultdict(list)
        for rows in blocks(answers.rows):
            last = Pairs.of(pairs.history.of_customers(rows).last_trip(), day, pairs.learned)
            for suffix, known, some in (
                ("", pairs, pairs.block(rows)),
                (ONE_TRIP, last, last.block(np.arange(len(rows)))),
            ):
                for task in TASKS:
                    relevant = answers.of_block(task, rows, some.bought)
                    networks = [network(ranker, task, known, some) for ranker in rankers]
                    parts[task + suffix, NETWORK].append([rank(z, relevant) for z in networks])
                    for name, scores in simple.scores(task, known, some).items():
                        parts[task + suffix, name].append([rank(scores, relevant)])
                    if not suffix:
                        found.counts[task] += sum(_counts(z, relevant) for z in networks)
                    if task == "new" and not suffix:
                        for wanted in DIVERSE:
                            z = [_moved(z, simple.alike, wanted) for z in networks]
                            parts[task, f"{NETWORK}, diversity {wanted}"].append([rank(s, relevant) for s in z])
        following = answers.following[answers.rows].toarray() > 0
        found.again.append(
            float((following & (pairs.cells[answers.rows].toarray() > 0)).sum() / max(following.sum(), 1))
        )
        for key, lists in parts.items():
            found.rankings[key].append([Ranking.joined(same) for same in zip(*lists, strict=True)])
        for task, what in TASKS.items():
            if np.isnan(found.rankings[task, NETWORK][-1][0].values["ndcg"]).all():
                raise TooLittle(
                    f"{task!r} asks for {what}: none of the {len(answers.rows)} customers who came after day {day} has "
                    "any, so there is nothing to measure by"
                )
        for name in (NETWORK, *(f"{NETWORK}, diversity {wanted}" for wanted in DIVERSE)):
            tops = [r.top for r in found.rankings["new", name][-1]]
            found.alike[name].append(float(np.mean([diversity.within(top, simple.alike) for top in tops])))
        found.n_trips.append(pairs.history.n_trips()[answers.rows])
    return found


def hidden(
    log: Events, texts: Mapping[str, str], day: int, *, rare: int = RARE, n_draws: int = 10
) -> dict[str, list[float]]:
    """Return how well the purchases of items are ranked of which the texts alone are known: a tenth of all, hidden.

    The NDCG@10 among the hidden items, a value a draw: by others' purchases of the items with texts like theirs, by how popular
    these are, and at random.
    """
    events = log.of_items(log.before(day).common(rare).items)
    answers, found = Answers.of(events, day), defaultdict(list)
    said = [texts.get(name, "") for name in events.items]
    for draw in range(n_draws):
        away = np.random.default_rng(draw).permutation(len(said))[: max(len(said) // 10, 1)]
        kept = np.setdiff1d(np.arange(len(said)), away)
        history = events.before(day).of_items(events.items[kept])
        near = nearest([said[i] for i in away], [said[i] for i in kept])
        x, popular = candidates.interactions(history, "binary")[answers.rows], candidates.popularity(history, day)
        weights = candidates.neighbours(history, "binary") @ csr_array(near.T)
        relevant = answers.later[answers.rows][:, away].toarray() > 0
        for name, scores in {
            "others' purchases of items with like texts": candidates.foretell(x, weights),
            "popularity of items with like texts": np.broadcast_to(near @ popular, relevant.shape),
            "at random": np.zeros(relevant.shape),
        }.items():
            found[name].append(float(np.nanmean(rank(scores, relevant).values["ndcg"])))
    return dict(found)


def network(ranker: Ranker, task: str, pairs: Pairs, block: Block) -> np.ndarray:
    """Return the network's score of all items: its candidates first."""
    z = ranker.scores(task, pairs, block, np.ones_like(block.bought))
    rest = block.others[0].astype(float) - BELOW
    rest = np.where(block.bought, -np.inf, rest) if task == "new" else rest
    return np.where(np.isfinite(z), z, rest)


def _moved(z: np.ndarray, alike: csr_array, wanted: float) -> np.ndarray:
    """Return scores by which the re-ranked top comes first."""
    top, scores = diversity.top(z, alike, TOP, wanted), z - BELOW
    np.put_along_axis(scores, top, -np.arange(top.shape[1], dtype=float)[None], axis=1)
    return scores


def _counts(z: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return, between LIMITS, the number of pairs that the network ranked, their probabilities' sum, and how many are a yes."""
    ranked = z > -BELOW / 2
    p, y = 1 / (1 + np.exp(-z[ranked])), relevant[ranked]
    place = np.clip(np.searchsorted(LIMITS, p, side="right") - 1, 0, len(LIMITS) - 2)
    return np.stack([np.bincount(place, weights, len(LIMITS) - 1) for weights in (np.ones(len(p)), p, y)], axis=1)


def rank(scores: np.ndarray, relevant: np.ndarray, top: int = TOP) -> Ranking:
    """Measure the ranking by ``scores`` of what is ``relevant``, both of shape (n_rows, n_items); -inf is never recommended."""
    n_items = scores.shape[1]
    top = min(top, n_items)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    found = np.take_along_axis(relevant, order, axis=1) & np.isfinite(ranked)
    expected = _expected(ranked, found)
    n_relevant = (relevant & np.isfinite(scores)).sum(axis=1)
    discount = 1 / np.log2(np.arange(2, n_items + 2))
    ideal = np.append(0, np.cumsum(discount))[np.minimum(n_relevant, top)]
    hits = expected[:, :top].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        none = n_relevant == 0
        values = {
            "ndcg": (expected[:, :top] @ discount[:top]) / ideal,
            "recall": hits / n_relevant,
            "f1": 2 * hits / (top + n_relevant),
            "mrr": np.array([_reciprocal(*row) for row in zip(ranked, found, strict=True)]),
        }
    return Ranking({name: np.where(none, np.nan, value) for name, value in values.items()}, order[:, :top])


def _expected(ranked: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the probability that each place holds something relevant, equal scores in any order."""
    n_rows, n_items = ranked.shape
    starts = np.ones(ranked.shape, bool)
    starts[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    group = np.cumsum(starts.ravel()) - 1
    return (np.bincount(group, found.ravel()) / np.bincount(group))[group].reshape(n_rows, n_items)


def _reciprocal(ranked: np.ndarray, found: np.ndarray) -> float:
    """Return the expectation of 1 / the place of the first that is relevant; it stands among equals, and may be any of them."""
    if not found.any():
        return 0.0
    score = ranked[np.argmax(found)]
    equal = ranked == score
    start, size, hits = int(np.argmax(equal)), int(equal.sum()), int((found & equal).sum())
    value, left = 0.0, 1.0  # left: the probability that none of them came so far
    for k in range(size - hits + 1):
        here = left * hits / (size - k)
        value += here / (start + k + 1)
        left -= here
    return value


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the mean over customers of one minus the other, and its standard error."""
    d = (one - other)[~np.isnan(one) & ~np.isnan(other)]
    return float(d.mean()), float(d.std(ddof=1) / len(d) ** 0.5)
