"""What is in a household's next trip: a GRU over its trips, with and without a path for repetition, beside counts.

python -m benchmarks.trips [--day 304] [--epochs 6]

The Complete Journey, as in examples/recommendation: households with at least five trips before the day and one within thirty days
after, all types of products ranked. A trip is a set of types, and so is the target of each trip: the one after it.
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import Any

import numpy as np
from scipy.sparse import csr_array, hstack, vstack

import nnprofile as nn
from examples.recommendation import candidates, collect, evaluate
from examples.recommendation.events import Events
from examples.recommendation.train import Answers
from nnprofile.contract import Array, Cache, check_filled

WIDTH, LENGTH = 64, 50
HALF_LIVES = (20.0, 90.0, np.inf)  # days, of the counts


class Repeat(nn.Layer):
    """y_nj = sum_k x_n,kj (w_k + u_kj): the counts of each item, by half-life k, weighed for all items and for each.

    So dw_k = sum_nj x_n,kj dy_nj and du_kj = sum_n x_n,kj dy_nj. x is CSR, with the items of each half-life side by side.
    """

    config_names = ("n_items",)

    def __init__(self, n_items: int) -> None:
        self.n_items, self.out_features = n_items, n_items
        self.params = nn.Parameters({"u": (len(HALF_LIVES), n_items), "w": (len(HALF_LIVES),)})

    def forward(self, x: csr_array, rng: Any = None) -> tuple[Array, Cache]:
        """Return y, shape (n_rows, n_items)."""
        check_filled(self)
        weights = (self.params["w"][:, None] + self.params["u"]).ravel()
        row, column = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr)), x.indices
        y = np.zeros((x.shape[0], self.n_items), np.result_type(x.dtype, weights))
        np.add.at(y, (row, column % self.n_items), x.data * weights[column])
        return y, (x, row)

    def backward(self, dy: Array, cache: Cache) -> tuple[None, nn.Parameters]:
        """Return None for dx, and the gradients of u and w."""
        x, row = cache
        both = np.bincount(x.indices, x.data * dy[row, x.indices % self.n_items], minlength=x.shape[1])
        grads = self.params.like(dy.dtype)
        grads["u"] = both.reshape(len(HALF_LIVES), self.n_items)
        grads["w"] = grads["u"].sum(axis=1)
        return None, grads

    def initialize(self, rng: np.random.Generator) -> None:
        """Start u at 0, all items alike, and w at 1: what was bought is bought again."""
        for name in self.params.unfilled():
            self.params[name] = np.full(self.params.layout[name], float(name == "w"))


class Halves(nn.Layer):
    """y_nj = x_nj + x_n,(j + K): the sum of two that stand side by side, so dx is dy twice."""

    def forward(self, x: Array, rng: Any = None) -> tuple[Array, Cache]:
        """Return y, half as wide as x."""
        k = x.shape[1] // 2
        return x[:, :k] + x[:, k:], None

    def backward(self, dy: Array, cache: Cache) -> tuple[Array, nn.Parameters]:
        """Return dx."""
        return np.hstack([dy, dy]), nn.Parameters({})


def histories(events: Events, day: int) -> tuple[nn.Ragged, nn.Ragged, np.ndarray]:
    """Return each household's last trips before a day: baskets, counts so far, and whose they are.

    A basket is its types / sqrt(their number), the days since the trip before and the number of types, as logarithms. Counts are
    log(1 + the sum over trips so far of 2^(-(days ago) / half-life)).
    """
    known = events.before(day)
    customer, trip_day = known.trips()
    n_items, n = len(events.items), len(customer)
    trip = np.searchsorted(
        customer.astype(np.int64) * day + trip_day, known.customer.astype(np.int64) * day + known.day
    )
    size = np.bincount(trip, minlength=n)
    baskets = csr_array((1 / np.sqrt(size[trip]), (trip, known.item)), shape=(n, n_items))
    first = np.r_[True, customer[1:] != customer[:-1]]
    gap = np.where(first, 30, np.diff(trip_day, prepend=0))
    about = np.stack([np.log1p(gap) / 3, np.log1p(size) / 3], axis=1)
    x = csr_array(hstack([baskets, csr_array(about)]), dtype=np.float32)
    starts = np.flatnonzero(first)
    counts, bounds = [], np.append(starts, n)
    for start, end in zip(starts, bounds[1:], strict=True):
        here = baskets[start:end].astype(bool).toarray()
        rows = []
        for half_life in HALF_LIVES:
            fade = 2.0 ** (-np.diff(trip_day[start:end], prepend=trip_day[start]) / half_life)
            total, out = np.zeros(n_items), np.empty(here.shape, np.float32)
            for k in range(end - start):
                total = total * fade[k] + here[k]
                out[k] = total
            rows.append(np.log1p(out))
        kept = np.hstack(rows)[-LENGTH - 1 :]
        counts.append(csr_array(np.where(kept > 1e-3, kept, 0)))
    last = np.concatenate([np.arange(max(s, e - LENGTH - 1), e) for s, e in zip(starts, bounds[1:], strict=True)])
    lengths = np.minimum(np.diff(bounds), LENGTH + 1)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return nn.Ragged(x[last], offsets), nn.Ragged(csr_array(vstack(counts)), offsets), customer[starts]


def without(x: nn.Ragged, *, last: bool) -> nn.Ragged:
    """Return the sequences without their last event, or without their first."""
    kept = np.ones(x.n_events, bool)
    kept[(x.offsets[1:] if last else x.offsets[:-1] + 1) - 1] = False
    return nn.Ragged(x.values[kept], x.offsets - np.arange(len(x.offsets)))


def network(n_items: int, repeats: bool, rng: np.random.Generator) -> nn.Sequential:
    """Return a network whose x is (baskets, counts), or baskets alone."""
    trips = [
        nn.Dense(n_items + 2, WIDTH),
        nn.Dropout(0.2),
        nn.GRU(WIDTH, WIDTH),
        nn.Dropout(0.2),
        nn.Dense(WIDTH, n_items),
    ]
    layers = [nn.Parallel([trips, Repeat(n_items)]), Halves()] if repeats else trips
    return nn.Sequential(layers, rng=rng, dtype=np.float32)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trips", description=__doc__)
    parser.add_argument("--day", type=int, default=304)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    events = Events.of(collect.journey().frame).common()
    answers = Answers.of(events, options.day)
    relevant = answers.of_block("next", answers.rows, np.zeros(0))
    print(f"day {options.day}: {len(answers.rows)} households, {len(events.items)} types\n")
    print("| method | NDCG@10, next trip | seconds |\n|---|---|---|")
    history = events.before(options.day)
    counted = candidates.frequency(history, options.day)[answers.rows].toarray()
    print(
        f"| own frequency, half-life 120 days | {np.nanmean(evaluate.rank(counted, relevant).values['ndcg']):.4f} | |"
    )
    start = perf_counter()
    baskets, counts, whose = histories(events, options.day)
    print(f"(histories: {baskets}; {perf_counter() - start:.0f} s)", flush=True)
    learn = np.flatnonzero(baskets.lengths > 1)
    x, c = (without(part[learn], last=True) for part in (baskets, counts))
    items = csr_array(baskets.values[:, : len(events.items)])
    y = without(
        nn.Ragged(
            csr_array((np.ones_like(items.data), items.indices, items.indptr), shape=items.shape), baskets.offsets
        )[learn],
        last=False,
    )
    asked = np.searchsorted(whose, answers.rows)
    last = tuple(part[asked] for part in (baskets, counts))
    for repeats in (False, True):
        found, spent = [], 0.0
        for seed in range(options.seeds):
            rng = np.random.default_rng(seed)
            net = network(len(events.items), repeats, rng)
            n_steps = options.epochs * -(-len(learn) // 16)
            optimizer = nn.Adam(lambda step, n=n_steps: 0.002 * max(1 - step / n, 0.02))
            start = perf_counter()
            nn.fit(
                net,
                nn.SoftmaxCrossEntropy(),
                optimizer,
                (x, c) if repeats else x,
                y,
                n_epochs=options.epochs,
                batch_size=16,
                rng=rng,
            )
            spent += (perf_counter() - start) / options.epochs
            scores = []
            for rows in np.array_split(np.arange(len(asked)), 40):
                part = tuple(p[rows] for p in last) if repeats else last[0][rows]
                out = net.predict(part)
                scores.append(out.values[out.offsets[1:] - 1])
            found.append(
                float(np.nanmean(evaluate.rank(np.concatenate(scores).astype(float), relevant).values["ndcg"]))
            )
        name = "GRU with a path for repetition" if repeats else "GRU"
        print(f"| {name} | {np.mean(found):.4f} | {spent / options.seeds:.0f} an epoch |", flush=True)


if __name__ == "__main__":
    main()
