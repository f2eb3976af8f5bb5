"""The flow chart: collect -> events -> candidates, pairs -> train -> evaluate -> recommend, at days whose future is known.

python -m examples.recommendation [--log FILE --customer C --date D --amount A --product P] [--out DIR]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from ..user_profile.collect import CollectError, Log, log_file
from ..user_profile.columns import PreprocessError
from . import candidates, collect, evaluate, train
from .events import Events
from .pairs import Pairs
from .recommend import Recommender

CUTOFFS = (91, 61, 31)  # days before the end, each a test of its own
TASKS = {"next": "what is in the next trip", "new": "what is bought within 30 days and never was before"}
ACTIVITY = ((train.FEWEST_TRIPS, 15), (16, 39), (40, 10**9))  # trips


def scores(events: Events, day: int, answers: train.Answers, *, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Return, for each task, the scores of each method, made from what happened before ``day``."""
    history, pairs, rows = events.before(day), Pairs.of(events, day), answers.rows
    ranker = train.train(events, day, seed=seed)
    network: dict[str, list[np.ndarray]] = {task: [] for task in TASKS}
    for _, some in train.blocks(rows):
        features, bought = pairs.features(some), pairs.bought(some)
        for task, parts in network.items():
            parts.append(ranker.logits(task, features, bought))
    bought = pairs.bought(rows)
    popular = np.broadcast_to(candidates.popularity(history, day), bought.shape)
    lately = np.broadcast_to(candidates.popularity(history, day, candidates.LATELY), bought.shape)
    own = candidates.frequency(history, day)[rows].toarray()
    neighbours = candidates.interactions(history, "log")[rows] @ candidates.item_knn(history)
    found = {
        "network": None,
        "frequency": own + popular * (1e-9 / max(popular.max(), 1)),  # popularity decides among what was never bought
        "popularity": popular,
        "popularity lately": lately,
        "item-kNN": neighbours.toarray(),
        **{
            f"EASE, {kind}": x[rows] @ w
            for kind, x, w in zip(candidates.PENALTY, pairs.known, pairs.weights, strict=True)
        },
    }
    unbought = {
        name: np.where(bought, -np.inf, s) for name, s in found.items() if s is not None and name != "frequency"
    }
    return {
        "next": {**found, "network": np.concatenate(network["next"])},
        "new": {"network": np.concatenate(network["new"]), **unbought},
    }


def report(events: Events, days: list[int], *, seed: int = 0) -> list[str]:
    """Measure every method at these days, and return the tables, as lines."""
    rankings: dict[tuple[str, str], list[evaluate.Ranking]] = {}
    trips = []
    for day in days:
        answers = train.Answers.of(events, day)
        trips.append(events.before(day).n_trips()[answers.rows])
        relevant = {"next": answers.next, "new": answers.new}
        for task, methods in scores(events, day, answers, seed=seed).items():
            for name, s in methods.items():
                rankings.setdefault((task, name), []).append(evaluate.rank(s, relevant[task]))
    lines = []
    for task, what in TASKS.items():
        lines += ["", f"{task}: {what} (mean over {len(days)} cut-offs)"]
        lines.append(f"{'':20}" + "".join(f"{metric:>9}" for metric in evaluate.METRICS) + f"{'items in tops':>15}")
        own = {name: found for (t, name), found in rankings.items() if t == task}
        for name, found in own.items():
            cells = "".join(f"{np.mean([np.nanmean(r.values[m]) for r in found]):9.4f}" for m in evaluate.METRICS)
            lines.append(f"{name:20}{cells}{np.mean([r.coverage() for r in found]):15.0f}")
        best = max((name for name in own if name != "network"), key=lambda name: _ndcg(own[name]).mean())
        ours, theirs = (np.concatenate([r.values["ndcg"] for r in own[name]]) for name in ("network", best))
        mean, error = evaluate.difference(ours, theirs)
        lines.append(f"NDCG of the network minus {best}: {mean:+.4f} ± {error:.4f} over customers")
        activity = np.concatenate(trips)
        for low, high in ACTIVITY:
            which = (activity >= low) & (activity <= high)
            if which.sum() > 1:
                mean, error = evaluate.difference(ours[which], theirs[which])
                span = f"{low} to {high}" if high < 10**9 else f"{low} and more"
                lines.append(f"  customers with {span} trips: {mean:+.4f} ± {error:.4f}")
    return lines


def _ndcg(found: list[evaluate.Ranking]) -> np.ndarray:
    return np.array([np.nanmean(r.values["ndcg"]) for r in found])


def main(arguments: list[str] | None = None) -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.recommendation", description=__doc__)
    parser.add_argument("--log", type=Path, metavar="FILE", help="orders of your own, a line an article")
    for name in ("customer", "date", "amount", "product"):
        parser.add_argument(f"--{name}", metavar="COLUMN", default="")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("out"))
    options = parser.parse_args(arguments)
    columns = {name: getattr(options, name) for name in ("customer", "date", "amount", "product")}
    if (options.log is not None) != all(columns.values()) or (options.log is None and any(columns.values())):
        parser.error("--log, --customer, --date, --amount and --product go together")
    started = time.perf_counter()
    try:
        purchases = collect.of_log(log_file(options.log, Log(**columns))) if options.log else collect.journey()
        print(f"{purchases.name}: {purchases.about}")
        for line in purchases.notes:
            print(f"  {line}")
        events = Events.of(purchases)
        end = int(events.day.max()) + 1
        print(
            f"  {len(events):,} purchases of {len(events.items):,} items by {len(events.customers):,} customers in {end} days"
        )
        days = [end - before for before in CUTOFFS if end - before > max(train.EARLIER) + train.AHEAD]
        if not days:
            raise PreprocessError(
                f"{end} days are too short: {max(train.EARLIER) + train.AHEAD + min(CUTOFFS) + 1} are needed"
            )
        with threadpool_limits(1):
            for line in report(events, days, seed=options.seed):
                print(line)
            recommender = Recommender.fit(events, seed=options.seed)
        path = options.out / f"{purchases.name}.recommender.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        recommender.save(path)
        print(f"\nmodel of all days: {path} ({time.perf_counter() - started:.0f} seconds in all)")
    except (CollectError, PreprocessError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
