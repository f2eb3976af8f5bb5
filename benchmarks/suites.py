"""What is measured: each suite returns its results and a Markdown section. ``fast`` runs a few cases, to try it out."""

from __future__ import annotations

import compileall
import os
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from . import cases
from .harness import BASELINE, CONTROL, OURS, ROOT, TITLES, Pool, environment, number, text

Section = tuple[list[dict[str, Any]], str]
MAIN, SMALL, LARGE = [100, 64, 32, 16, 1], [3, 5, 2], [784, 512, 256, 10]
MEGA = 1_000_000


def name(sizes: list[int]) -> str:
    """Return 100-64-32-16-1."""
    return "-".join(map(str, sizes))


def train(*, fast: bool = False) -> Section:
    """Microseconds per step."""
    peers = [OURS, BASELINE, "sklearn_", "torch_", "torch_compile", "jax_", "keras_"]
    results, parts = [], []
    with Pool(peers) as pool:
        for sizes in [MAIN] if fast else [MAIN, SMALL, LARGE]:
            for dtype in ["float32"] if fast else ["float32", "float64"]:
                for optimizer in ["adam"] if fast else ["adam", "sgd"]:
                    block = []
                    for batch in [32, 256] if fast else [1, 32, 256, 2048]:
                        rows = {1: 1024, 32: 8192, 256: 8192, 2048: 8192}[batch]
                        if sizes == LARGE:
                            rows = {1: 128, 32: 1024, 256: 2048, 2048: 4096}[batch]
                        case = {"sizes": sizes, "dtype": dtype, "optimizer": optimizer, "batch": batch, "rows": rows}
                        main = sizes == MAIN and dtype == "float32" and optimizer == "adam" and batch in (32, 256)
                        only = peers if main else [p for p in peers if p not in ("torch_compile", "keras_")]
                        block.append(pool.compare("train", case, only=tuple(only), rounds=7 if main else 3))
                    results += block
                    title = f"{name(sizes)}, {dtype}, {optimizer}"
                    parts.append(text(title, block, lambda r: f"batch {r['case']['batch']}: {share(r)}"))
    if not fast:
        with Pool([OURS, BASELINE, "torch_", "jax_"], n_threads=2) as pool:
            case = {"sizes": LARGE, "dtype": "float32", "optimizer": "adam", "batch": 256, "rows": 2048, "threads": 2}
            block = [pool.compare("train", case)]
            results += block
            parts.append(text(f"{name(LARGE)}, float32, adam, two threads", block, lambda r: f"batch 256: {share(r)}"))
    return results, "\n".join(parts)


def threads(*, fast: bool = False) -> Section:
    """Microseconds per step of large batches, by one thread and by two."""
    results = []
    whole = {"sizes": [4, 32, 16, 4], "activation": "tanh", "batch": 10_000, "rows": 10_000}
    others = [{"sizes": MAIN, "batch": batch, "rows": 8 * batch} for batch in (1024, 2048, 8192)]
    for n_threads in (1, 2):
        with Pool([OURS, "torch_", "jax_"], n_threads=n_threads) as pool:
            for case in [whole] if fast else [whole, *others]:
                case = case | {"dtype": "float32", "optimizer": "adam", "threads": n_threads}
                results.append(pool.compare("train", case))

    def label(r: dict[str, Any]) -> str:
        case = r["case"]
        activation = ", tanh" if "activation" in case else ""
        return f"{name(case['sizes'])}{activation}, batch {case['batch']:,}, {'two threads' if r['threads'] == 2 else 'one'}"

    return results, text("Large batches, float32, Adam, by one thread and by two", results, label)


def share(result: dict[str, Any]) -> str:
    """Return our share of the core's rate in large products, counting the products of a step alone."""
    case, found = result["case"], result["found"]
    products = [a * b for a, b in zip(case["sizes"][:-1], case["sizes"][1:], strict=True)]
    operations = 2 * case["batch"] * (3 * sum(products) - products[0])
    rate = operations / found[OURS]["median"] / 1e3
    return f"{rate:.0f} GFLOP/s, {rate / found[CONTROL]['median']:.0%}"


def predict(*, fast: bool = False) -> Section:
    """Microseconds per call, with the link applied."""
    peers = [OURS, BASELINE, "sklearn_", "torch_", "jax_", "keras_", "onnx_", "onnx_bound"]
    results = []
    base = {"sizes": MAIN, "dtype": "float32", "optimizer": "adam", "batch": 32}
    with Pool(peers) as pool:
        results += [pool.compare("predict", base | {"rows": rows}) for rows in (1, 64, 4096)]
        if not fast:
            results.append(pool.compare("predict", base | {"rows": MEGA}, rounds=3, only=(OURS, "torch_", "onnx_")))
    if not fast:
        with Pool([OURS, "torch_", "onnx_"], n_threads=2) as pool:
            results.append(pool.compare("predict", base | {"rows": MEGA, "threads": 2}, rounds=3))

    def label(r: dict[str, Any]) -> str:
        return f"{r['case']['rows']:,} rows" + (", two threads" if r["threads"] == 2 else "")

    lines = [text(f"Scoring, {name(MAIN)}, float32", results, label), "99th percentile of the single calls, us:", ""]
    for result in results:
        tails = [f"{TITLES[p]} {number(f['p99'])}" for p, f in result["found"].items() if p in TITLES and "p99" in f]
        lines.append(f"- {label(result)}: " + ", ".join(tails))
    return results, "\n".join(lines) + "\n"


def sparse(*, fast: bool = False) -> Section:
    """Microseconds per step on rows of 50 non-zeros."""
    peers = [OURS, BASELINE, "sklearn_", "torch_", "jax_"]
    blocks: dict[str, list[dict[str, Any]]] = {"sgd": [], "adam": []}
    for optimizer, block in blocks.items():
        for columns in ["uniform"] if fast else ["uniform", "zipf"]:
            for n_features in [10**4, 10**5] if fast else [10**4, 10**5, 10**6]:
                # A gradient of all rows of W takes seconds a step at 10^6 features. New processes: peaks never fall.
                only = peers if n_features <= 10**5 else [OURS, "torch_", "jax_"]
                with Pool([p for p in only if optimizer == "sgd" or p != "jax_"]) as pool:
                    case = {
                        "sizes": [n_features, 64, 32, 16, 1],
                        "dtype": "float32",
                        "optimizer": optimizer,
                        "batch": 32,
                        "rows": 100_000 // 32 * 32,
                        "columns": columns,
                        "lazy": True,
                        "epochs_per_fit": 2,
                    }
                    block.append(pool.compare("sparse", case, rounds=3))

    def label(r: dict[str, Any]) -> str:
        return f"{r['case']['sizes'][0]:,} features, {r['case']['columns']}, {r['found'][OURS]['peak_mb']:,} MB"

    parts = [
        text(f"Sparse rows, N-64-32-16-1, float32, {title}, batch 32", blocks[optimizer], label)
        for optimizer, title in (("sgd", "SGD"), ("adam", "Adam(lazy=True) and PyTorch's SparseAdam"))
    ]
    note = "The MB are the peak of our process, data and libraries included.\n"
    return blocks["sgd"] + blocks["adam"], "\n".join([*parts, note])


_FIT = """
import time; start = time.perf_counter()
import numpy as np, nnprofile as nn
rng = np.random.default_rng(0)
net = nn.Sequential([nn.Dense(100, 64), nn.ReLU(), nn.Dense(64, 1)], rng=rng, dtype=np.float32)
x = rng.normal(size=(320, 100)).astype(np.float32)
begin = time.perf_counter()
nn.fit(net, nn.SigmoidCrossEntropy(), nn.Adam(), x, x[:, 0] > 0, n_epochs=1, rng=rng, engine="numba")
print(time.perf_counter() - begin)
"""
_SCORE = """
import time
import numpy as np, nnprofile as nn
rng = np.random.default_rng(0)
net = nn.Sequential([nn.Dense(100, 64), nn.ReLU(), nn.Dense(64, 1)], rng=rng, dtype=np.float32)
begin = time.perf_counter()
nn.freeze(net)(np.zeros((1, 100), np.float32))
print(time.perf_counter() - begin)
"""
_XOR = """
import time
import numpy as np, nnprofile as nn
rng = np.random.default_rng(0)
net = nn.Sequential([nn.Dense(2, 4), nn.Tanh(), nn.Dense(4, 1)], rng=rng)
begin = time.perf_counter()
nn.fit(net, nn.SigmoidCrossEntropy(), nn.SGD(0.5), [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0],
       n_epochs=1000, batch_size=4, rng=rng)
print(time.perf_counter() - begin)
"""
_IMPORT = "import time; begin = time.perf_counter(); import {}; print(time.perf_counter() - begin)"


def startup(*, fast: bool = False) -> Section:
    """Seconds until the first result, in fresh processes; megabytes on disk."""
    runs = 3 if fast else 7

    def seconds(code: str, runs: int = runs, **more: str) -> float:
        found = [
            float(
                subprocess.run(
                    [sys.executable, "-c", code], cwd=ROOT, env=environment(1) | more, capture_output=True, check=True
                ).stdout
            )
            for _ in range(runs)
        ]
        return statistics.median(found)

    rows: dict[str, float] = {}
    compileall.compile_dir(ROOT / "nnprofile", quiet=2)  # as an installer does
    for module in (
        "numpy",
        "nnprofile",
        "scipy.sparse",
        "numba",
        "onnxruntime",
        "sklearn.neural_network",
        "jax",
        "torch",
        "keras",
    ):
        try:
            rows[f"import {module}"] = seconds(_IMPORT.format(module))
        except subprocess.CalledProcessError:
            continue
    with tempfile.TemporaryDirectory() as folder:
        warm = {"NUMBA_CACHE_DIR": folder}
        rows["first fit, engine compiled from nothing"] = seconds(_FIT, 1, **warm)
        rows["first prediction, compiled from nothing"] = seconds(_SCORE, 1, **warm)
        rows["first fit of a later process"] = seconds(_FIT, **warm)
        rows["first prediction of a later process"] = seconds(_SCORE, **warm)
    with tempfile.TemporaryDirectory() as folder:
        rows["XOR, 1,000 full-batch epochs, engine='auto', empty cache"] = seconds(_XOR, NUMBA_CACHE_DIR=folder)
    lines = ["### Start-up", "", "| in a fresh process | seconds |", "|---|---|"]
    lines += [f"| {what} | {value:.3f} |" for what, value in rows.items()]
    sizes = {what: _megabytes(*needs) for what, needs in _NEEDS.items()}
    lines += ["", "| installed, with what it needs | MB |", "|---|---|"]
    lines += [f"| {what} | {size:,.0f} |" for what, size in sizes.items() if size]
    return [{"task": "startup", "seconds": rows, "megabytes": sizes}], "\n".join(lines) + "\n"


_NUMPY = ("numpy",)
_NEEDS = {
    "nnprofile, NumPy alone": ("numpy",),
    "nnprofile, all": ("numpy", "scipy", "numba", "llvmlite"),
    "scikit-learn": ("numpy", "scipy", "scikit-learn", "joblib", "threadpoolctl"),
    "ONNX Runtime": ("numpy", "onnxruntime"),
    "JAX": ("numpy", "scipy", "jax", "jaxlib", "ml_dtypes", "opt_einsum"),
    "PyTorch": ("numpy", "torch", "sympy", "networkx"),
    "TensorFlow": ("numpy", "tensorflow-cpu", "keras", "grpcio", "h5py"),
}


def _megabytes(*names: str) -> float | None:
    """Return the size of installed distributions, and of this library; None, if one is missing."""
    total = sum(path.stat().st_size for path in (ROOT / "nnprofile").rglob("*.py"))
    try:
        for distribution in names:
            files = metadata.files(distribution) or []
            total += sum(os.path.getsize(path) for file in files if (path := Path(str(file.locate()))).is_file())
    except metadata.PackageNotFoundError:
        return None
    return total / 1e6


def sequences(*, fast: bool = False) -> Section:
    """Microseconds of forward and backward on a batch of 64 sequences."""
    recurrent = [(kind, how, {}) for kind in ("GRU", "LSTM", "RNN") for how in ("equal", "skewed")]
    others = [
        ("attention", "equal", {"heads": 1}),
        ("attention", "skewed", {"heads": 1}),
        ("attention", "equal", {"heads": 2}),
    ]
    others += [("convolution", "equal", {}), ("convolution", "skewed", {})]
    others += [("softmax", "equal", {"items": n}) for n in (1_600, 3_700)]
    results = []
    with Pool([OURS, BASELINE, "torch_", "torch_compile", "jax_"]) as pool:
        for kind, how, more in recurrent[:2] if fast else recurrent + others:
            compiles = kind not in ("GRU", "LSTM", "RNN")
            only = [OURS, BASELINE, "torch_", "jax_", *(["torch_compile"] if compiles else [])]
            case = {"kind": kind, "lengths": how, "dtype": "float32", **more}
            results.append(pool.compare("sequences", case, only=tuple(only)))

    def label(r: dict[str, Any]) -> str:
        case, n = r["case"], sum(cases.lengths(r["case"]))
        name = case["kind"] + "".join(f", {case[k]:,} {k}" for k in ("heads", "items") if k in case)
        return f"{name}, {n:,} events" if case["lengths"] == "equal" else f"{name}, {n:,} events of skewed lengths"

    title = "Sequences: 64 of at most 50 events, 64 numbers wide, float32, forward and backward"
    return results, text(title, results, label)


def adult(*, fast: bool = False) -> Section:
    """Validation loss against seconds of training, on the example's data."""
    peers = [OURS, BASELINE, "sklearn_", "torch_", "jax_"]
    case = {
        "sizes": [0, 64, 32, 16, 1],
        "dtype": "float32",
        "optimizer": "adam",
        "batch": 256,
        "epochs": 4 if fast else 15,
    }
    curves: dict[str, list[list[float]]] = {}
    with Pool(peers) as pool:
        for peer, worker in pool.workers.items():
            if peer != CONTROL and "skip" not in worker.ask(task="curve", case=case | {"epochs": 1}):
                worker.ask(measure=True)  # compiles what is to be compiled
                worker.ask(task="curve", case=case)
                curves[peer] = worker.ask(measure=True)["times"]
    lines = [
        "### Accuracy at equal time",
        "",
        "Adult, 64-32-16-1, Adam, batch 256: seconds of training, the engine loaded",
        "",
    ]
    lines += ["| | seconds for the epochs | least validation loss | after seconds |", "|---|---|---|---|"]
    for peer, points in curves.items():
        loss, at = min((loss, at) for at, loss in points)
        lines.append(f"| {TITLES[peer]} | {points[-1][0]:.2f} | {loss:.4f} | {at:.2f} |")
    return [{"task": "adult", "case": case, "curves": curves}], "\n".join(lines) + "\n"


def growth(*, fast: bool = False) -> Section:
    """Microseconds per step, when one of rows, features, width and depth grows."""
    base = {"dtype": "float32", "optimizer": "adam", "batch": 256, "least": 0.02}
    axes: dict[str, list[tuple[int, list[int], int]]] = {
        "rows": [(n, MAIN, n) for n in (1_000, 10_000, 100_000)],
        "features": [(d, [d, 64, 32, 16, 1], 10_000) for d in (10, 100, 1_000)],
        "width": [(w, [100, w, w, 1], 10_000) for w in (16, 64, 256)],
        "depth": [(k, [100, *[64] * k, 1], 10_000) for k in (1, 4, 16)],
    }
    results = []
    with Pool([OURS, BASELINE, "sklearn_", "torch_", "jax_"]) as pool:
        for axis, points in axes.items():
            for value, sizes, rows in points[:2] if fast else points:
                result = pool.compare("train", base | {"sizes": sizes, "rows": rows, "epochs_per_fit": 1}, rounds=3)
                results.append(result | {"axis": axis, "value": value})
    table = text(
        "Growth, batch 256, float32, Adam: microseconds a step", results, lambda r: f"{r['axis']} {r['value']:,}"
    )
    return results, table


def estimators(*, fast: bool = False) -> Section:
    """Seconds of one ``fit`` of scikit-learn's perceptron and of ours."""
    from .estimators import measure

    return measure(fast=fast)


ALL = {
    **{"startup": startup, "train": train, "threads": threads, "predict": predict, "sparse": sparse},
    "sequences": sequences,
    **{"adult": adult, "estimators": estimators, "growth": growth},
}
