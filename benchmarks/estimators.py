"""The same call of scikit-learn's perceptron and of ours, side by side: seconds of ``fit``, and accuracy on other rows.

python -m benchmarks.estimators [--rounds 5]
"""

from __future__ import annotations

import argparse
import platform
import warnings
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import scipy
import sklearn
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier as Theirs
from threadpoolctl import threadpool_limits

import nnprofile as nn

from . import adult


def cases() -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return name -> (x, y, other x, other y), the arguments of both."""
    x, y, xv, yv = adult.data()
    people = x, y, xv, yv
    digits = load_digits(return_X_y=True)
    xd, xdv, yd, ydv = train_test_split(digits[0] / 16, digits[1], random_state=0, stratify=digits[1])
    rng = np.random.default_rng(0)
    s = sparse.random_array((6000, 20_000), density=0.0025, format="csr", rng=rng, dtype=np.float32)
    s.data[:] = 1
    label = (np.asarray(s[:, :10_000].sum(axis=1)).ravel() > np.asarray(s[:, 10_000:].sum(axis=1)).ravel()).astype(int)
    texts = s[:5000], label[:5000], s[5000:], label[5000:]
    net = {"hidden_layer_sizes": (64, 32, 16), "tol": 0.0, "n_iter_no_change": 1000}
    return {
        "Adult, Adam, batch 32, float32": (people, net | {"batch_size": 32, "max_iter": 30}),
        "Adult, Adam, batch 256, float32": (people, net | {"batch_size": 256, "max_iter": 60}),
        "Adult, L-BFGS, float64": (
            (x.astype(float), y, xv.astype(float), yv),
            {"hidden_layer_sizes": (64, 32, 16), "solver": "lbfgs", "max_iter": 100},
        ),
        "digits, Adam, batch 32, float64": ((xd, yd, xdv, ydv), net | {"batch_size": 32, "max_iter": 200}),
        "CSR 20,000 features, SGD, batch 32, float32": (
            texts,
            {
                "hidden_layer_sizes": 32,
                "solver": "sgd",
                "batch_size": 32,
                "max_iter": 20,
                "tol": 0.0,
                "learning_rate_init": 0.05,
            },
        ),
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimators", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="each estimator's turns; the medians count")
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")  # that so few epochs do not converge
    print(
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}, "
        f"scikit-learn {sklearn.__version__}, nnprofile {nn.__version__}; one thread; medians of {rounds} rounds\n"
    )
    print("| one `fit` | scikit-learn, s | nnprofile, s | times as fast | accuracy there (over seeds) | here |")
    print("|---|---|---|---|---|---|")
    with threadpool_limits(1):
        nn.warmup()
        for name, ((x, y, xv, yv), settings) in cases().items():
            seconds: dict[type, list[float]] = {Theirs: [], nn.MLPClassifier: []}
            scores: dict[type, list[float]] = {Theirs: [], nn.MLPClassifier: []}
            for seed in range(rounds):
                for kind in seconds:
                    model = kind(random_state=seed, **settings)
                    started = perf_counter()
                    model.fit(x, y)
                    seconds[kind].append(perf_counter() - started)
                    scores[kind].append(float(np.mean(model.predict(xv) == yv)))
            theirs, ours = (median(seconds[kind]) for kind in seconds)
            there, here = (
                f"{np.mean(scores[k]):.4f} ± {np.std(scores[k], ddof=1) if rounds > 1 else 0:.4f}" for k in seconds
            )
            print(f"| {name} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.1f} | {there} | {here} |", flush=True)


if __name__ == "__main__":
    main()
