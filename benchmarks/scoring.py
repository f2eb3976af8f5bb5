"""Time the example's scoring: a file of 100,000 customers, and single records: python benchmarks/scoring.py."""

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

from examples.user_profile import collect, deploy, preprocess, profiles, splits, train

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
    frame["left"] = np.where(rng.random(n) < 0.2 + 0.05 * (frame["number 0"] - 3).clip(0, 10), "yes", "no")
    return frame


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
        print(
            f"Python {platform.python_version()}, numpy {np.__version__}, pandas {pd.__version__}, {platform.machine()}"
        )


if __name__ == "__main__":
    main()
