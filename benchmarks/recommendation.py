"""How long recommendations take, and how much memory: on The Complete Journey, and for a million made-up customers.

python -m benchmarks.recommendation                      the former
python -m benchmarks.recommendation --customers 1000000  and the latter: 8,000 items, some 20 purchases a customer
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from examples.recommendation import collect, recommend
from examples.recommendation.events import Events
from examples.recommendation.recommend import Recommender

from .harness import versions

N_ITEMS, N_DAYS, N_TASTES = 8000, 240, 40


def made(n_customers: int, seed: int = 0) -> Events:
    """Return made-up purchases: each customer has a taste, half of whose purchases are of it, and favourites."""
    rng = np.random.default_rng(seed)
    n = rng.poisson(20, n_customers) + 1
    customer = np.repeat(np.arange(n_customers), n)
    taste = rng.integers(N_TASTES, size=n_customers)[customer]
    rank = np.minimum((N_ITEMS / N_TASTES) ** rng.random(len(customer)), N_ITEMS / N_TASTES - 1).astype(int)  # Zipf
    popular = np.minimum(N_ITEMS ** rng.random(len(customer)), N_ITEMS - 1).astype(int)
    item = np.where(rng.random(len(customer)) < 0.5, rank * N_TASTES + taste, popular)
    again = rng.random(len(customer)) < 0.3
    item[1:][again[1:]] = item[:-1][again[1:]]
    day = rng.integers(N_DAYS, size=len(customer))
    keys = np.unique((customer * N_ITEMS + item) * N_DAYS + day)
    pair, day = np.divmod(keys, N_DAYS)
    customer, item = np.divmod(pair, N_ITEMS)
    names = (
        np.array([f"{letter}{k}" for k in range(many)], object) for letter, many in (("c", n_customers), ("i", N_ITEMS))
    )
    return Events(*names, *(a.astype(np.int32) for a in (customer, item, day)), pd.Timestamp("2024-01-01"))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # GB


def _median(what: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        what()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def journey() -> None:
    """Time a recommender of The Complete Journey."""
    purchases = collect.journey()
    log = Events.of(purchases.frame)
    started = time.perf_counter()
    shop = Recommender.fit(log, texts=purchases.texts)
    print(f"fit: {time.perf_counter() - started:.1f} s; {len(log.customers):,} customers, {len(shop.items):,} items")
    names = log.customers[:2000].tolist()
    basket = ["FLUID MILK WHITE ONLY", "BANANAS"]
    late = purchases.frame[purchases.frame["date"] >= purchases.frame["date"].max() - pd.Timedelta(days=1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shop.npz"
        shop.save(path)
        for what, run in {
            "2,000 customers, ten new items each": lambda: shop.recommend(names),
            "2,000 customers, the next trip": lambda: shop.recommend(names, task="next"),
            "2,000 customers, diversity 0.2": lambda: shop.recommend(names, diversity=0.2),
            "one customer": lambda: shop.recommend(names[:1]),
            "somebody never seen": lambda: shop.for_items(basket),
            "why": lambda: shop.why("YOGURT NOT MULTI-PACKS", bought=basket),
            "update by two days' purchases": lambda: shop.update(late),
            "load": lambda: Recommender.load(path),
        }.items():
            run()
            print(f"{what:40} {1000 * _median(run):10,.1f} ms")


def many(n_customers: int) -> None:
    """Time everyone's ten best of made-up customers, and say how much memory it takes."""
    started = time.perf_counter()
    log = made(n_customers)
    print(
        f"{len(log):,} purchases of {N_ITEMS:,} items by {n_customers:,} customers: {time.perf_counter() - started:.0f} s"
    )
    before, started = _peak(), time.perf_counter()
    shop = Recommender.fit(log)
    kind = "EASE" if isinstance(shop.learned.weights[0], np.ndarray) else "item-kNN"
    print(
        f"fit ({kind} of {len(shop.items):,} items): {time.perf_counter() - started:.0f} s, peak {before:.1f} to {_peak():.1f} GB"
    )
    with tempfile.TemporaryDirectory() as folder:
        shop.save(Path(folder) / "shop.npz")
        del log, shop
        shop = Recommender.load(Path(folder) / "shop.npz")
    before, started, first = _peak(), time.perf_counter(), 0
    for done, _ in enumerate(shop.everyone()):
        if done + 1 == recommend.CHUNK and n_customers > recommend.CHUNK:  # what is made once is made
            before, started, first = _peak(), time.perf_counter(), done + 1
    seconds = time.perf_counter() - started
    rate = (done + 1 - first) / seconds
    print(
        f"everyone's ten best: {seconds:.0f} s, {rate:,.0f} customers a second, peak {before:.1f} to {_peak():.1f} GB"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recommendation", description=__doc__)
    parser.add_argument("--customers", type=int, default=0, metavar="N")
    options = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in versions().items()))
    with threadpool_limits(1):
        journey()
        if options.customers:
            many(options.customers)
