"""Step 5, train: a small Dense network on pairs, taught by earlier days whose answers are known; one for each task.

The pairs are those that it will have to rank: each customer's candidates. Most are a no, of which a share is kept; the odds are
put right afterwards, by the logarithm of that share, so that the outputs are probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

import nnprofile as nn

from ..user_profile.train import average, dense_stack
from .candidates import N_CANDIDATES, choose
from .events import Events
from .pairs import Block, Learned, Pairs

HIDDEN = (32, 16)
AHEAD = 30  # days: a trip, or a purchase, within these counts
EARLIER = (90, 60, 30)  # days before: when the network is taught; the answers are known by then
FEWEST_TRIPS = 5
MOST_CUSTOMERS = 5000  # of each of these days
KEPT = 0.5  # of the no
NEWCOMERS = 0.2  # share of customers who are also shown as if they had never been seen before their last trip
BLOCK = 128  # customers at a time
BATCH = 512
N_NETWORKS = 4  # whose outputs are averaged
LEAST_SPREAD = 1e-3  # standard deviation of a feature
LOSS = nn.SigmoidCrossEntropy()
TASKS = {"next": "what is in the next trip", "new": f"what is bought within {AHEAD} days and never was before"}


class TooLittle(ValueError):
    """There is not enough to learn from, or to measure by; the message says what it takes."""


@dataclass(frozen=True)
class Ranker:
    """The networks: features are standardised, and each task has one."""

    mean: np.ndarray
    scale: np.ndarray
    nets: dict[str, nn.Sequential]

    @cached_property
    def frozen(self) -> dict[str, nn.FrozenNetwork]:
        """The networks, compiled: millions of pairs are scored."""
        return {task: nn.freeze(net) for task, net in self.nets.items()}

    def logits(self, task: str, features: np.ndarray) -> np.ndarray:
        """Return the log-odds of pairs, shape (n_pairs,)."""
        return self.frozen[task]((features - self.mean) / self.scale)[:, 0] + np.log(KEPT)

    def scores(self, task: str, pairs: Pairs, block: Block, able: np.ndarray, n: int = N_CANDIDATES) -> np.ndarray:
        """Return the log-odds of the candidates among the able, -inf elsewhere, shape (n_rows, n_items)."""
        row, item = np.nonzero(chosen(task, pairs, block, able, n))
        z = np.full(block.bought.shape, -np.inf)
        z[row, item] = self.logits(task, pairs.features(block, row, item))
        return z


@dataclass(frozen=True)
class Answers:
    """What customers bought from a day on, of those with enough trips before it and one within ``AHEAD`` days after."""

    rows: np.ndarray  # their numbers
    following: csr_array  # the next trip of each customer
    later: csr_array  # all that each buys within ``AHEAD`` days

    @classmethod
    def of(cls, events: Events, day: int, most: int | None = None, rng: np.random.Generator | None = None) -> Answers:
        """Return the answers of a day, of ``most`` customers drawn at random where there are more."""
        history, later = events.before(day), events.within(day, day + AHEAD)
        rows = np.flatnonzero((history.n_trips() >= FEWEST_TRIPS) & (later.n_trips() > 0))
        if rng is not None and most is not None and len(rows) > most:
            rows = np.sort(rng.choice(rows, most, replace=False))
        return cls(rows, later.first_trip().matrix(), later.matrix())

    def of_block(self, task: str, rows: np.ndarray, bought: np.ndarray) -> np.ndarray:
        """Return what is a yes, bool, shape (n_rows, n_items); ``bought`` is what was bought before."""
        if task == "next":
            return self.following[rows].toarray() > 0
        return (self.later[rows].toarray() > 0) & ~bought


def chosen(task: str, pairs: Pairs, block: Block, able: np.ndarray, n: int = N_CANDIDATES) -> np.ndarray:
    """Return the candidates among the able, bool, shape (n_rows, n_items): "next" adds all that was bought before."""
    new = choose(block.others, pairs.learned.items[:, 1], able & ~block.bought, n)
    return new | (able & block.bought) if task == "next" else new


def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Return the rows in blocks, for bounded memory."""
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def train(
    events: Events,
    day: int,
    *,
    seed: int = 0,
    n_networks: int = N_NETWORKS,
    n_epochs: int = 4,
    earlier: Sequence[int] = EARLIER,
) -> Ranker:
    """Teach the networks by the days ``earlier`` before ``day``; nothing from ``day`` on is seen.

    Raises
    ------
    TooLittle
        If no customer has enough trips by then.
    """
    rng = np.random.default_rng(seed)
    known = events.before(day)
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {task: [] for task in TASKS}
    for before in earlier:
        then, past = day - before, known.before(day - before)
        learned, answers = Learned.of(past, then), Answers.of(known, then, MOST_CUSTOMERS, rng)
        newcomers = rng.choice(answers.rows, int(NEWCOMERS * len(answers.rows)), replace=False)
        strangers = newcomers[: len(newcomers) // 4]  # of whom nothing is known
        for whom, known_of in ((answers.rows, None), (newcomers, Events.last_trip), (strangers, Events.nothing)):
            for rows in blocks(whom):
                own = past.of_customers(rows)
                _add(parts, Pairs.of(known_of(own) if known_of else own, then, learned), answers, rows, rng)
    for task, part in parts.items():
        if not sum(y.sum() for _, y in part) or not sum((~y).sum() for _, y in part):
            n, yes = sum(len(y) for _, y in part), sum(int(y.sum()) for _, y in part)
            raise TooLittle(
                f"too little to learn {task!r} by: {n:,} pairs of a customer and an item, {yes:,} of them a yes. Needed are "
                f"customers who made {FEWEST_TRIPS} trips until {max(earlier)} days before the end, and one within {AHEAD} days "
                "after; and more items than each of them buys"
            )
    both = {task: (np.concatenate([x for x, _ in p]), np.concatenate([y for _, y in p])) for task, p in parts.items()}
    x = both["next"][0].astype(float)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < LEAST_SPREAD] = np.inf  # what does not vary tells nothing, and must not when it does one day
    nets = {}
    for task, (features, y) in both.items():
        x = (features - mean) / scale
        nets[task] = average(tuple(_one(x, y.astype(int), n_epochs, rng) for _ in range(n_networks)))
    return Ranker(mean, scale, nets)


def _add(
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]],
    pairs: Pairs,
    answers: Answers,
    rows: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Add the features and answers of the pairs of some customers that are kept, for each task."""
    block = pairs.block(np.arange(len(rows)))
    drawn = rng.random(block.bought.shape) < KEPT
    for task, part in parts.items():
        y = answers.of_block(task, rows, block.bought)
        row, item = np.nonzero((y | drawn) & chosen(task, pairs, block, np.ones_like(y)))
        part.append((pairs.features(block, row, item), y[row, item]))


def _one(x: np.ndarray, y: np.ndarray, n_epochs: int, rng: np.random.Generator) -> nn.Sequential:
    net = dense_stack(x.shape[1], HIDDEN, rng)
    optimizer = nn.Adam(nn.CosineDecay(0.003, n_steps=n_epochs * -(-len(y) // BATCH)))
    history = nn.fit(net, LOSS, optimizer, x, y, n_epochs=n_epochs, batch_size=BATCH, rng=rng)
    if history.stop_reason == "interrupted":
        raise KeyboardInterrupt
    return net
