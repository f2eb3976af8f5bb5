"""Time the example's scoring, and its live model: python benchmarks/scoring.py.

A file of 100,000 customers, single records; an answer kept on the disk, many in one transaction, and a customer's score.
"""

from __future__ import annotations

import datetime as dt
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd

from examples.user_profile import collect, deploy, live, preprocess, profiles, splits, train

N = 100_000


def customers(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw customers: an identifier, eight numbers, money, two dates, three categories and the target."""
    frame = pd.DataFrame({"customer_no": [f"{i:07}" for i in rng.permutation(n)]})
    for k in range(8):
        frame[f"number {k}"] = rng.poisson(5 + k, n)
    frame["money"] = [f"€{v:,.2f}" for v in rng.gamma(2, 80, n)]
    for name in ("since", "last order"):
        frame[name] = [str(dt.date(2019, 1, 1) + dt.timedelta(int(d))) for d in rng.integers(0, 1500, n)]
    for name, values in (("plan", ["a", "b", "c"]), ("channel", ["web", "shop"]), ("region", list("nesw"))):
        frame[name] = rng.choice(values, n)
    said = [frame[f"number {k}"] / (5 + k) for k in range(8)]  # every column tells something, so that all are used
    said += [frame["money"].str[1:].str.replace(",", "").astype(float) / 160]
    said += [pd.to_datetime(frame[name]).dt.year - 2020.5 for name in ("since", "last order")]
    said += [frame[name].map(frame[name].value_counts(normalize=True).rank()) for name in ("plan", "channel", "region")]
    frame["left"] = np.where(rng.logistic(size=n) < sum(0.4 * (one - one.mean()) for one in said) - 1, "yes", "no")
    return frame


def orders(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the orders of n customers in a year, each on a few days."""
    who = np.repeat(np.arange(n), rng.poisson(5, n) + 1)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 366, len(who)), unit="D")
    frame = pd.DataFrame(
        {"customer": [f"c{k:05}" for k in who], "date": days, "amount": rng.gamma(2, 20, len(who)).round(2)}
    )
    return frame.sort_values("date", kind="stable", ignore_index=True)


def time_live(folder: Path, rng: np.random.Generator) -> None:
    """Time the live model of 4,000 customers."""
    log = orders(4000, rng)
    store = live.Store.create(folder / "live", log)
    last, names = f"{log['date'].max():%Y-%m-%d}", log["customer"].unique()
    told = [{"customer": name, "date": last, "bought": True} for name in names]
    times = []
    for answer in told[:500]:
        started = time.perf_counter()
        store.add_feedback(answer)
        times.append(1e3 * (time.perf_counter() - started))
    print(f"an answer, on the disk: {statistics.median(times):.1f} ms, 99 % within {np.quantile(times, 0.99):.1f} ms")
    started = time.perf_counter()
    store.add_groups([[answer] for answer in told[500:1500]])
    print(f"1,000 answers of as many, in one transaction: {1e3 * (time.perf_counter() - started):.0f} ms")
    times = []
    for name in names[:300]:
        started = time.perf_counter()
        store.score(name)
        times.append(1e3 * (time.perf_counter() - started))
    print(f"the score of a customer: {statistics.median(times):.1f} ms")


def main() -> None:
    """Train on 3,000 of them, then score."""
    with tempfile.TemporaryDirectory() as name:
        folder, frame = Path(name), customers(N, np.random.default_rng(0))
        frame.iloc[:3000].to_csv(folder / "train.csv", index=False)
        frame.drop(columns="left").to_csv(folder / "new.csv", index=False)
        table = preprocess.clean(collect.csv_file(folder / "train.csv", "left", None))
        fit, validate, _ = splits.splits(table)[0]
        model = train.train(table, fit, validate, n_epochs=15)
        edges = profiles.band_edges(model.predict_proba(table.frame.iloc[validate]))
        deploy.save(
            folder / "model", train.Model(model.encoder, model.nets, model.history, model.encoding, bands=edges), table
        )
        started = time.perf_counter()
        deploy.score_file(folder / "model", folder / "new.csv", folder / "scored.csv")
        print(f"{N:,} rows of {frame.shape[1] - 1} columns: {time.perf_counter() - started:.1f} s")
        profiler = deploy.load(folder / "model")
        names = [column.name for column in profiler.columns]
        records = frame[names].head(2000).astype(str).to_dict("records")
        together = profiler.score(records)
        apart = np.array([profiler.score_one(record) for record in records])
        times = []
        for record in records:
            started = time.perf_counter()
            profiler.score_one(record)
            times.append(time.perf_counter() - started)
        print(f"one record of {len(names)} fields: {1e6 * statistics.median(times):.0f} us, median of {len(times)}")
        print(f"largest difference to the table's scores: {np.abs(apart - together).max():.1e}")
        time_live(folder, np.random.default_rng(1))
        print(
            f"Python {platform.python_version()}, numpy {np.__version__}, pandas {pd.__version__}, {platform.machine()}"
        )


if __name__ == "__main__":
    main()
