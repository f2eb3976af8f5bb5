"""One check under way: what has been found, what it has cost, and how a gradient is judged."""

from __future__ import annotations

import copy
import time
from typing import TypeVar

import numpy as np

from ..contract import Array
from ..validation import check_size
from .contracts import Contracts
from .diagnosis import Context, diagnose
from .elsewhere import look_elsewhere
from .foreign import ForeignError
from .judge import Judge, Verdict
from .procedures import BudgetSpent, Procedure
from .reference import Subject
from .report import KAPPA, Finding, GradCheckReport, Row

# What makes numbers wrong is reported before the numbers; what shows only later, after them.
_FIRST = frozenset(
    (
        "contract",
        "raises",
        "shape",
        "missing",
        "dtype",
        "mutation",
        "accumulate",
        "nondeterministic",
        "mask",
        "updated-weights",
        "alone",
        "empty",
        "causal",
    )
)
SECONDS = 1.0  # that a check with its diagnosis may take in any case
TOO_DEAR = "wrong; more evaluations may tell what it is: raise budget="
_VAGUE = ("handover", "elements", "float32", "epsilon", "term")  # said last of several tensors
P = TypeVar("P", bound=Procedure)


class Check:
    """One check under way: counts, time, rows and findings."""

    def __init__(self, subject: str, seed: int, *, explain: bool = True, budget: int | None = None) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
        self.start = time.perf_counter()
        self.report = GradCheckReport(subject, seed=int(seed))
        self.procedures: list[Procedure] = []
        self.explains = explain
        self.budget = None if budget is None else check_size(budget, "budget", least=0)
        # Not default_rng(seed): the caller may have drawn x from that, and dy must know nothing of x.
        self.rng = np.random.default_rng([0x6E6E, int(seed)])

    def register(self, p: P) -> P:
        """Return the procedure, whose evaluations count from here on."""
        self.procedures.append(p)
        return p

    def done(self) -> GradCheckReport:
        """Finish: one finding a bug, errors before notes."""
        report = self.report
        seen: set[tuple[str, str, str]] = set()
        findings = []
        for f in report.findings:
            key = (f.kind, f.layer, f.tensor)
            if key not in seen:
                seen.add(key)
                findings.append(f)
        report.findings = sorted(findings, key=lambda f: f.severity != "error")
        report.n_forward = sum(p.n_forward for p in self.procedures)
        report.n_backward = sum(p.n_backward for p in self.procedures)
        report.seconds = time.perf_counter() - self.start
        return report

    def judge(
        self,
        p: Procedure,
        *,
        layer: str = "",
        suffix: str = "",
        context: Context | None = None,
        explain: bool = True,
    ) -> list[Verdict] | None:
        """Check contracts and gradients of one procedure; add findings, and return the verdicts."""
        point = [a.astype(np.float64) for a in p.point]
        y = np.asarray(p.run(p.copies(p.point))[0])
        p.world.observe()
        p.world.reset()
        if y.dtype.kind != "f" or not np.isfinite(y).all():
            raise ValueError(
                f"{self.report.subject}: forward must return finite real numbers here, got "
                + (f"dtype {y.dtype}" if y.dtype.kind != "f" else "inf or nan")
            )
        dy = self.rng.normal(size=y.shape) if p.takes_cotangent else np.ones(y.shape)
        contracts = Contracts(p, dy.astype(y.dtype), self.rng, layer)
        grads = contracts.check()
        first = [f for f in contracts.findings if f.kind in _FIRST]
        last = [f for f in contracts.findings if f.kind not in _FIRST]
        if grads is None or any(f.kind == "nondeterministic" for f in first):
            self.report.findings += first + last
            return None
        subject = Subject(p.names, point, p.output, p.pullback)
        judge = Judge(subject, dy, self.rng, longest=p.longest)
        verdicts = judge.all()
        self.report.findings += first
        context = context or Context()
        context.procedure, context.judge = p, judge
        context.verdicts = tuple(verdicts)
        for verdict in verdicts:
            verdict.row.tensor += suffix
        self.report.rows += [verdict.row for verdict in verdicts]
        if explain:
            self.explain(verdicts, context, layer)
        self.report.findings += last
        self._single(p, judge, verdicts, dy, layer)
        if (
            explain
            and all(v.row.verdict == "right" for v in verdicts)
            and not any(f.severity == "error" for f in contracts.findings)
        ):
            look_elsewhere(self, p, layer)
        return verdicts

    def explain(self, verdicts: list[Verdict], context: Context, layer: str) -> None:
        """Add a finding for each gradient that is not simply right."""
        wrong, spent = [], False
        p = context.procedure
        n = sum(q.n_forward for q in self.procedures)
        extra = context.judge.extra if context.judge is not None else 0
        # What few evaluations tell is told on a slow machine too.
        most = max(2 * n - 3 * extra, n // 4) if self.budget is None else self.budget

        def spend() -> None:
            used = sum(q.n_forward for q in self.procedures) - n
            if used >= most and (self.budget is not None or time.perf_counter() - self.start > SECONDS):
                raise BudgetSpent

        if p is not None:
            p.spend = spend
        for verdict in verdicts:
            row = verdict.row
            if row.verdict == "wrong":
                kind, message = "term", "wrong; explain=True says how" if not self.explains else TOO_DEAR
                if self.explains and not spent:
                    try:
                        kind, message = diagnose(verdict, context)
                    except BudgetSpent:
                        spent = True
                text = f"{row.tensor}: {message}"
                wrong.append(Finding(kind, layer, row.tensor, text, unexplained=verdict.unexplained))
            elif row.verdict == "subgradient":
                text = f"{row.tensor}: the point lies on a kink; the gradient there is an element of the subgradient"
                self.report.findings.append(Finding("kink", layer, row.tensor, text, "note"))
            elif row.verdict == "unclear":
                text = f"{row.tensor}: the reference is too inaccurate here to judge ({row.accuracy:.1e})"
                self.report.findings.append(Finding("unclear", layer, row.tensor, text, "note"))
        if p is not None:
            p.spend = None
        right = [v.row.tensor for v in verdicts if v.row.verdict == "right"]
        for f in wrong:
            if f.kind == "term" and right:
                f.message += f" (right: {', '.join(right)})"
        # One bug may spoil several tensors, and be plain to see in one of them.
        self.report.findings += sorted(wrong, key=lambda f: _VAGUE.index(f.kind) if f.kind in _VAGUE else -1)

    def _single(self, p: Procedure, judge: Judge, verdicts: list[Verdict], dy: Array, layer: str) -> None:
        """Judge code in the caller's lower precision against the same code in float64."""
        kinds = {a.dtype for a in p.point if a.dtype.itemsize < 8}
        if not kinds:
            return
        eps = max(float(np.finfo(kind).eps) for kind in kinds)
        y = np.asarray(p.run(p.copies(p.point))[0])
        low = dy.astype(y.dtype)
        base = p.run(p.copies(p.point), low.copy())[1]
        runs = []
        for _ in range(4):
            constants = copy.copy(p)
            shaken = [(a * (1 + eps * self.rng.choice((-1, 1), a.shape))).astype(a.dtype) for a in p.point]
            constants.shake_constants(eps, self.rng)
            try:
                runs.append(constants.run(shaken, low.copy())[1])
            except ForeignError:  # out of the function's domain
                continue
        # What rounding the inputs alone does to the right gradient: the same points, in float64.
        exact = p.run([a.astype(np.float64) for a in p.point], low.astype(np.float64))[1]
        if not runs:
            return
        for verdict in verdicts:
            g, right = base[verdict.k], exact[verdict.k]
            if (
                g is None
                or right is None
                or verdict.row.verdict not in ("right", "subgradient")
                or g.dtype.itemsize >= 8
            ):
                continue
            moves = [np.abs(r[verdict.k] - g) for r in runs if r[verdict.k] is not None]
            moved = np.max(moves, axis=0).astype(float)
            noise = np.maximum(moved, np.sqrt((moved**2).mean()) if moved.size else 0.0) + eps * np.abs(right) + 1e-44
            noise = np.maximum(noise, eps * max(1.0, judge.longest / 1000) * np.abs(right))
            noise = np.maximum(noise, eps / 8 * judge.size_at_smaller(verdict.k))  # constants are rounded too
            gap = np.abs(g.astype(float) - right)
            if (
                np.isfinite(g).all() and (gap > KAPPA / 8 * noise).any()
            ):  # a sum of terms that cancel is right to their rounding
                noise = np.maximum(noise, eps * judge.terms(verdict.k))
            ratio = float((gap / noise).max(initial=0.0)) if np.isfinite(g).all() else np.inf
            top = float(np.abs(right).max(initial=0.0))
            row = Row(
                f"{verdict.row.tensor} ({p.point[verdict.k].dtype})",
                g.shape,
                "the same code in float64",
                checked=f"all {g.size} elements",
                accuracy=verdict.row.accuracy,
                error=float(gap.max(initial=0.0)) / top if top else 0.0,
                noise_ratio=ratio,
                certificate=KAPPA * float(np.linalg.norm(noise)) / (float(np.linalg.norm(right)) or 1.0),
                verdict="wrong" if ratio > KAPPA else "right",
            )
            self.report.rows.append(row)
            if row.verdict == "wrong":
                text = (
                    f"{row.tensor}: right in float64, but in {p.point[verdict.k].dtype} it is off by "
                    f"{row.error / eps:.2g} units in the last place of the largest element: overflow, or cancellation?"
                )
                self.report.findings.append(Finding("float32", layer, verdict.row.tensor, text))
