"""Step 5, train: a small Dense network on pairs, taught by earlier days whose answers are known; one for each task.

Most pairs are a no. All yes are kept, and a share of the no, larger among what the customer bought before; the odds are put
right afterwards, by the logarithm of that share, so that the outputs are probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import nnprofile as nn

from ..user_profile.train import average
from .events import Events
from .pairs import Pairs

HIDDEN = (32, 16)
AHEAD = 30  # days: a trip, or a purchase, within these counts
EARLIER = (90, 60, 30)  # days before: when the network is taught; the answers are known by then
FEWEST_TRIPS = 5
KEPT = {"bought": 0.5, "unbought": 0.05}  # of the no
BLOCK = 128  # customers at a time
BATCH = 512
N_NETWORKS = 4  # whose outputs are averaged
LOSS = nn.SigmoidCrossEntropy()
TASKS = ("next", "new")


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

    def logits(self, task: str, features: np.ndarray, bought: np.ndarray) -> np.ndarray:
        """Return the log-odds of each pair, shape (n_rows, n_items); for "new", -inf where it was bought before."""
        flat = (features.reshape(-1, features.shape[-1]) - self.mean) / self.scale
        z = self.frozen[task](flat)[:, 0].astype(float).reshape(bought.shape)
        z += np.where(bought, np.log(KEPT["bought"]), np.log(KEPT["unbought"]))
        return np.where(bought, -np.inf, z) if task == "new" else z


@dataclass(frozen=True)
class Answers:
    """What customers bought from a day on, of those with enough trips before it and one within ``AHEAD`` days after."""

    rows: np.ndarray  # their numbers
    next: np.ndarray  # whether each item is in the next trip, shape (n_rows, n_items)
    new: np.ndarray  # whether it is bought within ``AHEAD`` days, and was not before

    @classmethod
    def of(cls, events: Events, day: int) -> Answers:
        """Return the answers of a day."""
        history, later = events.before(day), events.within(day, day + AHEAD)
        rows = np.flatnonzero((history.n_trips() >= FEWEST_TRIPS) & (later.n_trips() > 0))
        following = later.next_trip().matrix()[rows].toarray() > 0
        return cls(rows, following, (later.matrix()[rows].toarray() > 0) & (history.matrix()[rows].toarray() == 0))


def blocks(rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Return the rows in blocks, for bounded memory."""
    for start in range(0, len(rows), BLOCK):
        yield slice(start, start + BLOCK), rows[start : start + BLOCK]


def train(
    events: Events,
    day: int,
    *,
    seed: int = 0,
    n_networks: int = N_NETWORKS,
    n_epochs: int = 6,
    earlier: Sequence[int] = EARLIER,
) -> Ranker:
    """Teach the networks by the days ``earlier`` before ``day``; nothing from ``day`` on is seen.

    Raises
    ------
    ValueError
        If no customer has enough trips by then.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {task: [] for task in TASKS}
    known = events.before(day)
    for before in earlier:
        pairs, answers = Pairs.of(known, day - before), Answers.of(known, day - before)
        for block, rows in blocks(answers.rows):
            features, bought = pairs.features(rows), pairs.bought(rows)
            lot = rng.random(bought.shape)
            drawn = lot < np.where(bought, KEPT["bought"], KEPT["unbought"])
            for task, y in (("next", answers.next[block]), ("new", answers.new[block])):
                chosen = (y | drawn) & (~bought if task == "new" else True)
                parts[task].append((features[chosen], y[chosen]))
    if not parts["next"] or not sum(y.sum() for _, y in parts["next"]):
        raise ValueError(
            f"nobody has {FEWEST_TRIPS} trips {max(earlier)} days before, and one within {AHEAD} days after"
        )
    both = {task: (np.concatenate([x for x, _ in p]), np.concatenate([y for _, y in p])) for task, p in parts.items()}
    x = both["next"][0]
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    nets = {}
    for task, (features, y) in both.items():
        x = (features - mean) / scale
        nets[task] = average(tuple(_one(x, y.astype(int), n_epochs, rng) for _ in range(n_networks)))
    return Ranker(mean, scale, nets)


def _one(x: np.ndarray, y: np.ndarray, n_epochs: int, rng: np.random.Generator) -> nn.Sequential:
    layers: list[nn.Layer] = []
    width = x.shape[1]
    for hidden in HIDDEN:
        layers += [nn.Dense(width, hidden, initializer=nn.initializers.he_normal), nn.ReLU()]
        width = hidden
    net = nn.Sequential([*layers, nn.Dense(width, 1)], rng=rng, dtype=np.float32)
    optimizer = nn.Adam(nn.CosineDecay(0.003, n_steps=n_epochs * -(-len(y) // BATCH)))
    history = nn.fit(net, LOSS, optimizer, x, y, n_epochs=n_epochs, batch_size=BATCH, rng=rng)
    if history.stop_reason == "interrupted":
        raise KeyboardInterrupt
    return net
