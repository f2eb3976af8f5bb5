"""The same call of scikit-learn's perceptron and of ours, side by side in one process."""

from __future__ import annotations

import warnings
from statistics import mean, median, stdev
from time import perf_counter
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier as Theirs
from threadpoolctl import threadpool_limits

import nnprofile as nn

from . import adult

ESTIMATORS: dict[str, Any] = {"scikit-learn": Theirs, "nnprofile": nn.MLPClassifier}


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


def measure(*, fast: bool = False) -> tuple[list[dict[str, Any]], str]:
    """Seconds of one ``fit``, and accuracy on other rows: both estimators take turns, each round with another seed."""
    rounds = 1 if fast else 5
    results = []
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # that so few epochs do not converge
        nn.warmup()
        for name, ((x, y, xv, yv), settings) in cases().items():
            if fast:
                settings = settings | {"max_iter": 3}
            found: dict[str, dict[str, list[float]]] = {n: {"seconds": [], "accuracy": []} for n in ESTIMATORS}
            for seed in range(rounds):
                for which, kind in ESTIMATORS.items():
                    model = kind(random_state=seed, **settings)
                    started = perf_counter()
                    model.fit(x, y)
                    found[which]["seconds"].append(perf_counter() - started)
                    found[which]["accuracy"].append(float(np.mean(model.predict(xv) == yv)))
            results.append({"case": name, "found": found})
    lines = [
        "### Estimators: the same call of scikit-learn's MLPClassifier and of ours",
        "",
        f"Seconds of one `fit`, medians of {rounds} rounds; accuracy on other rows, mean and standard deviation over seeds.",
        "",
        "| | scikit-learn | nnprofile | times as fast | accuracy there | here |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        theirs, ours = (result["found"][which] for which in ("scikit-learn", "nnprofile"))
        seconds = [median(found["seconds"]) for found in (theirs, ours)]
        accuracy = [
            f"{mean(found['accuracy']):.4f} ± {stdev(found['accuracy']) if rounds > 1 else 0:.4f}"
            for found in (theirs, ours)
        ]
        cells = [*(f"{s:.2f}" for s in seconds), f"{seconds[0] / seconds[1]:.1f}", *accuracy]
        lines.append(f"| {result['case']} | {' | '.join(cells)} |")
    return results, "\n".join(lines) + "\n"
