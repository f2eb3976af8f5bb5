"""Measure libraries side by side: a process each, pinned to the same core, taking turns; medians over the rounds.

A control, a large BLAS product, takes its turn too: its spread tells whether the machine was disturbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
OURS, BASELINE, CONTROL = "nnprofile_", "numpy_", "control"
TITLES = {
    "nnprofile_": "nnprofile",
    "numpy_": "nnprofile, NumPy path",
    "sklearn_": "scikit-learn",
    "torch_": "PyTorch",
    "torch_compile": "PyTorch, compiled",
    "jax_": "JAX, one scan",
    "keras_": "Keras",
    "onnx_": "ONNX Runtime",
    "onnx_bound": "ONNX Runtime, bound",
}
VERSIONS = (
    *("numpy", "scipy", "numba", "nnprofile", "scikit-learn", "torch", "jax", "keras", "tensorflow", "tensorflow-cpu"),
    "onnxruntime",
)


def environment(n_threads: int) -> dict[str, str]:
    """Return an environment in which every library keeps to so many threads."""
    n = str(n_threads)
    names = (
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    )
    eigen = "" if n_threads > 1 else "--xla_cpu_multi_thread_eigen=false"
    return {
        **os.environ,
        **dict.fromkeys(names, n),
        "XLA_FLAGS": eigen,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }


class Worker:
    """A library in a process of its own, on the first ``n_threads`` cores that this process may use."""

    def __init__(self, peer: str, n_threads: int = 1) -> None:
        cores = sorted(os.sched_getaffinity(0))[:n_threads]
        self.peer = peer
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", peer],
            cwd=ROOT,
            env=environment(n_threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        self.missing: str | None = None
        self.missing = self._answer().get("skip")

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer."""
        if self.missing:
            return {"skip": self.missing}
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer will say that it has ended
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.missing = f"ended with status {self.process.wait()}"
            return {"skip": self.missing}
        return json.loads(line)

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Pool:
    """Libraries that take turns on the same cases, and the control with them."""

    def __init__(self, peers: list[str], n_threads: int = 1) -> None:
        self.n_threads = n_threads
        self.workers = {peer: Worker(peer, n_threads) for peer in (*peers, CONTROL)}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()

    def compare(
        self, task: str, case: dict[str, Any], *, rounds: int = 5, only: tuple[str, ...] | None = None
    ) -> dict[str, Any]:
        """Return for each library the median over rounds, its spread, and its peak memory in MB; or why it was skipped."""
        found: dict[str, Any] = {}
        times: dict[str, list[list[float]]] = {}
        for peer, worker in self.workers.items():
            if only is not None and peer not in (*only, CONTROL):
                continue
            control = peer == CONTROL
            found[peer] = worker.ask(
                task="blas" if control else task, case={"dtype": case["dtype"]} if control else case
            )
            if "skip" not in found[peer]:
                times[peer] = []
        for _ in range(rounds):
            for peer in [*times]:
                if self.n_threads > 1:  # threads of the one before still spin on the second core
                    time.sleep(0.5)
                answer = self.workers[peer].ask(measure=True)
                if "skip" in answer:
                    found[peer] = answer
                    del times[peer]
                    continue
                times[peer].append(answer["times"])
                found[peer] = {"peak_mb": round(answer["peak"])}
        for peer, rounds_of in times.items():
            self.workers[peer].ask(forget=True)
            each = [float(np.median(part)) for part in rounds_of]
            found[peer] |= {
                "median": float(np.median(each)),
                "least": min(each),
                "most": max(each),
                "p99": float(np.percentile(np.concatenate(rounds_of), 99)),
            }
        return {"task": task, "case": case, "threads": self.n_threads, "found": found}


def versions() -> dict[str, str]:
    """Return what was measured, and on what."""
    found = {"python": platform.python_version(), "machine": _processor(), "system": platform.system()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = fields.get("flags", "").split()
    widest = next((flag for flag in ("avx512f", "avx2", "avx", "sse2") if flag in flags), "")
    return f"{fields.get('model name', platform.machine())}, {len(os.sched_getaffinity(0))} cores, {widest}"


def text(title: str, results: list[dict[str, Any]], label: Any, *, unit: str = "us") -> str:
    """Return a Markdown table: one row a case, one column a library, and how many times faster we are than each."""
    peers = [p for p in TITLES if any("median" in r["found"].get(p, {}) for r in results)]
    lines = [f"### {title}", "", f"| {unit} | " + " | ".join(TITLES[p] for p in peers) + " | control, GFLOP/s |"]
    lines.append("|---" * (len(peers) + 2) + "|")
    for result in results:
        found, cells = result["found"], []
        ours = found.get(OURS, {}).get("median")
        for peer in peers:
            value = found.get(peer, {}).get("median")
            if value is None:
                cells.append("")
            elif peer == OURS or not ours:
                cells.append(f"**{number(value)}**" if peer == OURS else number(value))
            else:
                cells.append(f"{number(value)} ({value / ours:.{2 if value < 9.95 * ours else 0}f}x)")
        control = found[CONTROL]
        cells.append(f"{control['median']:.0f} ({control['least']:.0f} to {control['most']:.0f})")
        lines.append(f"| {label(result)} | " + " | ".join(cells) + " |")
    skipped = {TITLES[p]: r["found"][p]["skip"] for r in results for p in TITLES if "skip" in r["found"].get(p, {})}
    skipped = {name: why for name, why in skipped.items() if why not in ("does not do this",)}
    lines += ["", *(f"{name} was skipped: {why}" for name, why in skipped.items())]
    return "\n".join(lines).rstrip() + "\n"


def number(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
