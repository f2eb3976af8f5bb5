"""Run the exam: python -m benchmarks.gradcheck [--seeds N] [--sizes 0 1 2] [--out FOLDER].

Every bug and every trap of ``tests.gradcheck.corpus``, for each seed and size, checked by nnprofile and by the
packages that are installed. Prints the table, and writes it with all outcomes.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from nnprofile.gradcheck.functions import FunctionProcedure
from nnprofile.gradcheck.procedures import LayerProcedure, LossProcedure, ObjectiveProcedure, ValueProcedure
from nnprofile.gradcheck.reference import careful
from nnprofile.gradcheck.stateful import StatefulValue
from tests.gradcheck.corpus import BUGS, TRAPS, Case, Trial
from tests.gradcheck.exam import run

from .calibration import calibrate
from .opponents import OPPONENTS, Problem

PACKAGES = ("numpy", "torch", "jax", "autograd", "scipy", "statsmodels")


def problem_of(trial: Trial) -> Problem | None:
    """Return the trial as functions of arrays; None for a training step."""
    p: Any
    if trial.check == "layer":
        layer, x = trial.args
        p = LayerProcedure(layer, x, np.random.default_rng(1))
        p.prepare(np.random.default_rng(0))
    elif trial.check == "loss":
        p = LossProcedure(*trial.args)
    elif trial.check == "network" and trial.args[1] is None:
        net, _, x, t = trial.args
        adapter = StatefulValue(net, "loss", "gradient", (t,))
        adapter.learn(x)
        p = ValueProcedure(adapter, x)
        p.prepare(np.random.default_rng(0))
    elif trial.check == "network":
        p = ObjectiveProcedure(*trial.args, l2=0.0)
        p.prepare(np.random.default_rng(0))
    elif trial.check == "function":
        p = FunctionProcedure(trial.args[0], trial.args[1], trial.args[2:])
    else:
        return None
    p.run(p.copies(p.point))
    p.world.observe()

    def output(arrays: list[Any]) -> Any:
        return p.run(p.copies(arrays))[0]

    def pullback(arrays: list[Any], dy: Any) -> Any:
        p.problems.clear()
        grads = p.run(p.copies(arrays), np.array(dy))[1]
        if p.problems:
            raise ValueError(f"{p.problems}")  # a shape that the framework would refuse
        return grads

    return Problem([a.astype(np.float64) for a in p.point], output, pullback)


def content(check: Any, trial: Trial) -> bool | None:
    """Tell whether a checker is content; an error is not; None if it cannot look at such a thing."""
    try:
        with careful():
            problem = problem_of(trial)
            return None if problem is None else check(problem)
    except Exception:
        return False


def examine(case: Case, seed: int, size: int, names: list[str]) -> list[dict[str, Any]]:
    """Return one outcome for each checker."""
    start = time.perf_counter()
    ours = run(case, seed, size)
    rows = [
        {
            "checker": "nnprofile",
            "found": ours.detected,
            "layer": ours.right_layer if ours.layer else None,
            "diagnosis": ours.diagnosed,
            "kind": ours.report.errors[0].kind if ours.report.errors else None,
            "evaluations": ours.report.n_forward + ours.report.n_backward,
            "seconds": time.perf_counter() - start,
        }
    ]
    for name in names:
        trial = case.make(np.random.default_rng([seed, size]), size)
        start = time.perf_counter()
        verdict = content(OPPONENTS[name], trial)
        rows.append(
            {
                "checker": name,
                "found": verdict is False,
                "seconds": time.perf_counter() - start,
                "able": verdict is not None,
            }
        )
    return [
        {
            "case": case.name,
            "trap": not case.kinds,
            "contract": case.contract,
            "check": case.make(np.random.default_rng([seed, size]), size).check,
            "seed": seed,
            "size": size,
            **row,
        }
        for row in rows
    ]


def table(outcomes: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    by: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for outcome in outcomes:
        by[outcome["checker"]].append(outcome)

    def share(flags: list[Any]) -> str:
        return f"{100 * sum(map(bool, flags)) / len(flags):.1f} %" if flags else "–"

    lines = [
        "| checker | bugs found | bugs in the numbers | layer | diagnosis | false alarms | evaluations, median | ms, median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in by.items():
        bugs, traps = [r for r in rows if not r["trap"]], [r for r in rows if r["trap"]]
        numbers = [r for r in bugs if not r["contract"] and r["check"] != "step"]
        ours = name == "nnprofile"
        cells = [
            f"**{name}**" if ours else name,
            share([r["found"] for r in bugs]),
            share([r["found"] for r in numbers]),
            share([r["layer"] for r in bugs if ours and r["layer"] is not None]),
            share([r["diagnosis"] for r in bugs if ours]),
            f"{sum(r['found'] for r in traps)} of {len(traps)}",
            f"{np.median([r['evaluations'] for r in rows]):.0f}" if ours else "–",
            f"{1e3 * np.median([r['seconds'] for r in rows]):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    ours = [r for r in by["nnprofile"] if not r["trap"]]
    vague = sum(r["kind"] == "term" for r in ours)
    lines += ["", f'Of nnprofile\'s {len(ours)} diagnoses {vague} say no more than "a term is missing or wrong".']
    return "\n".join(lines)


def versions() -> str:
    """Return what was compared."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"Python {platform.python_version()}, {', '.join(found)}"


def main() -> None:
    """Examine, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradcheck", description="Examine gradient checkers.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", default="", help="cases whose names hold this, without the calibration")
    parser.add_argument("--out", type=Path, default=Path("out/gradcheck"))
    options = parser.parse_args()
    names = []
    for name, check in OPPONENTS.items():
        try:
            check(Problem([np.ones(2)], lambda a: (a[0] ** 2).sum(), lambda a, dy: [2 * a[0] * dy]))
            names.append(name)
        except ImportError:
            print(f"{name}: not installed")
    cases = [case for case in (*BUGS, *TRAPS) if options.only in case.name]
    outcomes = [
        row
        for case in cases
        for seed in range(options.seeds)
        for size in options.sizes
        for row in examine(case, seed, size, names)
    ]
    n_bugs, n_traps = sum(bool(c.kinds) for c in cases), sum(not c.kinds for c in cases)
    head = f"{versions()}. {n_bugs} bugs and {n_traps} traps, {options.seeds} seeds, {len(options.sizes)} sizes each."
    studies = [] if options.only else [calibrate(), calibrate(cancelling=True)]
    text = "\n\n".join([head, table(outcomes), *studies])
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gradcheck.md").write_text(text + "\n", encoding="utf-8")
    (options.out / "gradcheck.json").write_text(json.dumps(outcomes) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
