"""What training shard by shard costs, and what averaging does to the loss: the figures of docs/scale.md.

python -m benchmarks.scale [memory] [workers] [averaging] [engines] [--fast]
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import nnprofile as nn

D, BATCH = 25, 256
LOSS = nn.SigmoidCrossEntropy()


def rows(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return customers made up: a score of few numbers and a product of two, with noise."""
    rng = np.random.default_rng([7, seed])
    x = rng.standard_normal((n, D), np.float32)
    logit = x[:, :8].sum(axis=1) / 2 + x[:, 0] * x[:, 1] - np.abs(x[:, 2]) + np.sin(3 * x[:, 3])
    return x, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float32)


def write(folder: Path, n_shards: int, n_rows: int) -> list[Path]:
    """Write files of two arrays, x and y."""
    paths = [folder / f"{i:04}.npz" for i in range(n_shards)]
    for i, path in enumerate(paths):
        x, y = rows(i, n_rows)
        np.savez(path, x=x, y=y)
    return paths


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a shard's rows."""
    with np.load(path) as arrays:
        return arrays["x"], arrays["y"]


def network(seed: int = 0) -> nn.Sequential:
    """Return the document's 64-32-16-1."""
    layers: list[nn.Layer] = []
    for a, b in ((D, 64), (64, 32), (32, 16)):
        layers += [nn.Dense(a, b, initializer=nn.initializers.he_normal), nn.ReLU()]
    return nn.Sequential([*layers, nn.Dense(16, 1)], rng=np.random.default_rng(seed), dtype=np.float32)


def digest(net: nn.Sequential) -> str:
    """Return what tells apart networks that differ in a bit."""
    return hashlib.sha256(net.params.vector.tobytes()).hexdigest()[:16]


# -- a data set ten times the memory


def within(folder: Path, limit: int) -> None:
    """Train, evaluate and score with so many MB above what the imports and the engine take; print the peak."""
    import resource

    paths = sorted(folder.glob("*.npz"))
    train, held = paths[:-10], paths[-10:]
    net, common = network(), {"batch_size": BATCH, "shuffle": False, "engine": "numba", "n_epochs": 1}
    x, y = rows(0, 4 * BATCH)
    nn.fit(network(), LOSS, nn.Adam(), x, y, rng=np.random.default_rng(0), **common)
    nn.freeze(net, LOSS)(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + limit * 2**20,) * 2)
    start = perf_counter()
    nn.fit_shards(net, LOSS, nn.Adam(), train, read, rng=np.random.default_rng(0), **common)
    trained = perf_counter() - start
    scores, loss = nn.freeze(net, LOSS), []
    for path in held:
        x, y = read(path)
        loss.append(LOSS.forward(net.predict(x), y[:, None])[0])
        np.save(path.with_suffix(".scores.npy"), scores(x))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{digest(net)} loss {np.mean(loss):.5f} peak {peak:.0f} MB of {limit} allowed; training {trained:.1f} s")


def at_once(folder: Path) -> None:
    """Train on one array of all rows."""
    x, y = map(np.concatenate, zip(*map(read, sorted(folder.glob("*.npz"))[:-10]), strict=True))
    net, start = network(), perf_counter()
    nn.fit(
        net,
        LOSS,
        nn.Adam(),
        x,
        y,
        n_epochs=1,
        batch_size=BATCH,
        shuffle=False,
        engine="numba",
        rng=np.random.default_rng(0),
    )
    print(f"{digest(net)} {x.nbytes / 2**20:.0f} MB at once; training {perf_counter() - start:.1f} s")


def memory(folder: Path, *, fast: bool) -> None:
    """Compare the two, each in a process of its own."""
    n_shards, n_rows = (22, 50_000) if fast else (110, 200_000)
    paths = write(folder, n_shards, n_rows)
    size = sum(path.stat().st_size for path in paths) / 2**20
    print(f"{n_shards * n_rows:,} rows in {n_shards} files of {size / n_shards:.0f} MB: {size:,.0f} MB", flush=True)
    for name in ("within", "at_once"):
        subprocess.run([sys.executable, "-m", "benchmarks.scale", "--part", name, str(folder)], check=True)
    for path in folder.glob("*.np[yz]"):
        path.unlink()


# -- workers


@contextmanager
def processes(n: int) -> Iterator[Any]:
    """Yield the map of a pool of fresh processes, all of them started."""
    with ProcessPoolExecutor(n, get_context("spawn")) as pool:
        list(pool.map(_ready, range(4 * n)))
        yield pool.map


def _ready(_: int) -> None:
    import time

    nn.engine.kernels()
    time.sleep(0.3)


def workers(folder: Path, *, fast: bool) -> None:
    """Rows a second of rounds in one and in two processes, in turn; what is moved in a round."""
    n_shards, n_rows = (8, 20_000) if fast else (16, 100_000)
    paths = write(folder, n_shards, n_rows)
    options: Any = {"batch_size": BATCH, "n_replicas": 4, "steps_per_round": n_rows // BATCH, "engine": "numba"}
    sent: list[int] = []

    def counted(call: Any, f: Any, tasks: Any) -> Any:
        done = list(call(f, tasks))
        sent.append(len(pickle.dumps(list(tasks))) + len(pickle.dumps(done)))
        return done

    def once(call: Any, n_epochs: int) -> tuple[float, str]:
        net, start = network(), perf_counter()
        nn.fit_shards(
            net, LOSS, nn.Adam(), paths, read, n_epochs=n_epochs, rng=np.random.default_rng(0), map=call, **options
        )
        return perf_counter() - start, digest(net)

    once(partial(counted, map), 1)
    speeds: dict[int, list[float]] = {1: [], 2: []}
    bits = set()
    with processes(1) as one, processes(2) as two:
        once(one, 1), once(two, 1)
        for _ in range(2 if fast else 5):
            for n, call in ((1, one), (2, two)):
                seconds, found = once(call, 2)
                speeds[n].append(2 * n_shards * n_rows / seconds)
                bits.add(found)
    medians = {n: float(np.median(found)) for n, found in speeds.items()}
    print(
        f"rows a second: {medians[1]:,.0f} in one process, {medians[2]:,.0f} in two: {medians[2] / medians[1]:.2f} times"
    )
    print(f"{np.mean(sent) / 1000:.0f} kB moved in a round of 4 tasks; {len(bits)} result of all runs")


# -- what averaging costs


def averaging(folder: Path, *, fast: bool) -> None:
    """Loss on rows apart, against rows and against steps in sequence, three seeds."""
    n_shards, n_rows, seeds = (32, 4_000, 1) if fast else (64, 16_000, 3)
    paths = write(folder, n_shards, n_rows)
    x, y = rows(10_000, 30_000)
    ways: dict[str, dict[str, Any]] = {
        "one stream, rate 0.001": {"rate": 0.001},
        "one stream, rate 0.003": {"rate": 0.003},
        "2 replicas, 100 steps, 0.001": {"rate": 0.001, "n_replicas": 2},
        "8 replicas, 100 steps, 0.001": {"rate": 0.001, "n_replicas": 8},
        "8 replicas, 100 steps, 0.003": {"rate": 0.003, "n_replicas": 8},
        "8 replicas, 20 steps, 0.003": {"rate": 0.003, "n_replicas": 8, "steps_per_round": 20},
        "8 replicas, gradients, 0.003": {"rate": 0.003, "n_replicas": 8, "average": "gradients"},
    }
    print(
        "| | steps in sequence | loss at a quarter of the rows | at half | at all | seconds |\n|---|---|---|---|---|---|"
    )
    for name, way in ways.items():
        losses, seconds, n_steps = [], [], 0
        for seed in range(seeds):
            found, options = [], dict(way)
            net, optimizer = network(seed), nn.Adam(options.pop("rate"))
            parts = [paths[: n_shards // 4], paths[n_shards // 4 : n_shards // 2], paths[n_shards // 2 :]]
            start = perf_counter()
            for part in parts:  # each row once
                common = {"n_epochs": 1, "batch_size": BATCH, "engine": "numba", "rng": np.random.default_rng(seed)}
                nn.fit_shards(net, LOSS, optimizer, part, cached, **common, **options)
                found.append(LOSS.forward(net.predict(x), y[:, None])[0])
            seconds.append(perf_counter() - start)
            losses.append(found)
            n_steps = optimizer.n_steps
        mean, spread = np.mean(losses, axis=0), np.ptp(losses, axis=0)
        cells = [f"{m:.4f} ± {s / 2:.4f}" for m, s in zip(mean, spread, strict=True)]
        print(f"| {name} | {n_steps:,} | {' | '.join(cells)} | {np.median(seconds):.1f} |", flush=True)


_kept: dict[Path, Any] = {}


def cached(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a shard once: what a run does that has memory for its shards."""
    if path not in _kept:
        _kept[path] = read(path)
    return _kept[path]  # type: ignore[no-any-return]


# -- who runs the tasks


def engines(folder: Path, *, fast: bool) -> None:
    """Milliseconds of a round of four tasks that do next to nothing, and what each engine takes on the disk."""
    payload = [network() for _ in range(4)]
    print("| | a round of 4 tasks, ms: least, median | installed, MB |\n|---|---|---|")
    for name, make in ENGINES.items():
        try:
            with make() as call:
                times = []
                for _ in range(5 if fast else 20):
                    start = perf_counter()
                    assert len(list(call(_same, payload))) == 4
                    times.append(1000 * (perf_counter() - start))
        except ImportError:
            continue
        print(
            f"| {name} | {min(times[1:]):.1f}, {np.median(times[1:]):.1f} | {_size(PACKAGES.get(name, ()))} |",
            flush=True,
        )


def _same(net: nn.Sequential) -> nn.Sequential:
    return net


def _size(names: Iterable[str]) -> str:
    files = [file for name in names for file in metadata.files(name) or ()]
    return f"{sum(Path(str(file.locate())).stat().st_size for file in files if Path(str(file.locate())).exists()) / 1e6:.0f}"


@contextmanager
def _here() -> Iterator[Any]:
    yield map


@contextmanager
def _threads() -> Iterator[Any]:
    with ThreadPoolExecutor(2) as pool:
        yield pool.map


@contextmanager
def _joblib() -> Iterator[Any]:
    from joblib import Parallel, delayed

    with Parallel(2) as pool:
        yield lambda f, tasks: pool(delayed(f)(task) for task in tasks)


@contextmanager
def _dask() -> Iterator[Any]:
    from distributed import Client

    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        yield lambda f, tasks: client.gather(client.map(f, tasks, pure=False))


@contextmanager
def _ray() -> Iterator[Any]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    yield lambda f, tasks: ray.get([ray.remote(f).remote(task) for task in tasks])
    ray.shutdown()


@contextmanager
def _spark() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.pyspark.python", sys.executable).getOrCreate()
    context = session.sparkContext
    yield lambda f, tasks: context.parallelize(tasks, len(tasks)).map(f).collect()
    session.stop()


ENGINES: dict[str, Callable[[], Any]] = {
    "Python's map": _here,
    "threads": _threads,
    "processes (concurrent.futures)": partial(processes, 2),
    "joblib": _joblib,
    "Dask": _dask,
    "Ray": _ray,
    "Spark": _spark,
}
PACKAGES = {"joblib": ("joblib",), "Dask": ("dask", "distributed"), "Ray": ("ray",), "Spark": ("pyspark",)}
PARTS = {"memory": memory, "workers": workers, "averaging": averaging, "engines": engines}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--fast", action="store_true", help="small data")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, place = options.part[0], Path(options.part[1])
        within(place, 200) if name == "within" else at_once(place)
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in options.parts or PARTS:
        print(f"\n{name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](Path(folder), fast=options.fast)


if __name__ == "__main__":
    main()
