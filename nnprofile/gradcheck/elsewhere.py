"""Look at other points, where a gradient that is right at the given one may be wrong: other batches, other parameters.

Layers are handed over as ``__init__`` made them: a gain of 1, a bias of 0. An error that is proportional to gain - 1, or to
the bias, is nothing there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array
from .diagnosis import Context, diagnose
from .foreign import ForeignError
from .functions import FunctionProcedure
from .judge import Judge
from .procedures import LayerProcedure, LossProcedure, ObjectiveProcedure, Procedure
from .reference import H, Subject, rms
from .report import Finding

if TYPE_CHECKING:
    from .check import Check

LARGEST = 100_000  # elements of x
LAYERS, FUNCTIONS = (
    0.3,
    1e-2,
)  # how far parameters of layers, and arguments of functions, are moved, in shares of their size
OFF = 1e-8  # of the size of the terms: smaller errors are for the point itself


def look_elsewhere(check: Check, p: Procedure, layer: str) -> None:
    """Add a finding for each kind of point at which the gradient is wrong, and write down the points."""
    for text, kind, x, point in _points(check, p):
        _look(check, p, layer, text, kind, x, point)


def _points(check: Check, p: Procedure) -> Iterator[tuple[str, str, Array | None, list[Array]]]:
    """Yield (what it is, kind of finding, x if it is another, values of all tensors)."""
    if isinstance(p, LossProcedure):
        return
    if isinstance(p, FunctionProcedure):
        moved = _moved(check, p.point, FUNCTIONS, careful=True)
        if moved is not None:
            yield "other arguments", "point", None, moved
        else:
            note = "no argument could be moved without leaving what it seems to be (labels, shares): only this point was checked"
            check.report.findings.append(Finding("point", "", "", note, "note"))
        return
    assert isinstance(p, LayerProcedure)
    arrays = [a.astype(np.float64) for a in p.model.arrays]
    x = p.x.astype(np.float64) if p.has_x else p.x
    if arrays and (moved := _moved(check, arrays, LAYERS, careful=False)) is not None:
        yield "other parameters", "point", None, [x, *moved] if p.has_x else moved
    if isinstance(p, ObjectiveProcedure) or p.x.ndim < 2 or len(p.x) < 1 or p.x.size > LARGEST:
        return
    n = len(p.x)
    batches = [("an x three times as large", 3 * x)] if p.has_x else []
    batches += [("a batch of one row", x[:1]), ("the rows in another order", x[check.rng.permutation(n)])]
    batches += [("each row twice", np.repeat(x, 2, axis=0))]
    for text, other in batches:
        if other.shape != x.shape or not np.array_equal(other, x):
            yield text, "batch", other, [other, *arrays] if p.has_x else arrays


def _moved(check: Check, arrays: list[Array], share: float, *, careful: bool) -> list[Array] | None:
    """Return arrays that differ by a share of their size; None if none may be moved."""
    out = [_move(a.astype(np.float64), share, check.rng, careful=careful) for a in arrays]
    return None if all(a is None for a in out) else [b if a is None else a for a, b in zip(out, arrays, strict=True)]


def _move(a: Array, share: float, rng: np.random.Generator, *, careful: bool) -> Array | None:
    """Return an array near a, of the same signs; None if it seems to be one of labels, or of shares that sum to 1."""
    if not a.size or (careful and _is_special(a)):
        return None
    noise = rng.normal(size=a.shape)
    if careful and a.ndim == 2 and a.shape[0] == a.shape[1] > 1 and np.array_equal(a, a.T):
        noise = (noise + noise.T) / 2
    zeros = share * (rms(a) or 1.0) * noise
    return np.where(a == 0, zeros, a * np.exp(share * noise))


def _is_special(a: Array) -> bool:
    """Tell whether a seems to be labels, a mask, one-hot rows, or shares."""
    if np.isin(a, (0, 1)).all() and 0 < a.mean() < 1:
        return True
    return bool(a.ndim and a.shape[-1] > 1 and (a >= 0).all() and np.allclose(a.sum(axis=-1), 1, atol=1e-6))


def _look(check: Check, p: Procedure, layer: str, text: str, kind: str, x: Array | None, point: list[Array]) -> None:
    """Compare <J t, dy> with <t, J' dy> at another point, along one direction of all tensors; if they differ, judge it."""
    kept: tuple[Any, list[Array]] = (p.x, p.point) if isinstance(p, LayerProcedure) else (None, p.point)
    p.point = point
    if isinstance(p, LayerProcedure) and x is not None:
        p.x = x
    try:
        y = np.asarray(p.run(p.copies(point))[0])
        if not np.isfinite(y).all() or y.dtype.kind != "f" or (x is not None and y.shape[:1] != x.shape[:1]):
            return  # out of the domain, or not a function of a batch
        dy = check.rng.normal(size=y.shape) if p.takes_cotangent else np.ones(y.shape)
        try:
            grads = p.run(p.copies(point), dy)[1]
        except ForeignError as error:
            finding = Finding("raises", layer, "", f"with {text}, backward raises {error}")
            check.report.findings.append(finding)
            return
        check.report.points.append(text)
        if not _agrees(p, point, dy, grads, check.rng):
            _judge(check, p, layer, text, kind, dy)
    except ForeignError:  # the layer may refuse such a batch, or such numbers
        return
    finally:
        p.point = kept[1]
        if isinstance(p, LayerProcedure):
            p.x = kept[0]
        p.problems = {}


def _agrees(p: Procedure, point: list[Array], dy: Array, grads: list[Array | None], rng: np.random.Generator) -> bool:
    """Tell whether the gradients fit the complex step along one direction; False if complex numbers do not pass."""
    t = [np.zeros(a.shape) if g is None else rng.normal(size=a.shape) for a, g in zip(point, grads, strict=True)]
    try:
        moved = np.asarray(p.run([a + 1j * H * s for a, s in zip(point, t, strict=True)])[0])
    except ForeignError:
        return False
    if not np.iscomplexobj(moved) or not np.isfinite(moved).all():
        return False
    right = float((moved.imag / H * dy).sum())
    parts = [0.0 if g is None else float((g * s).sum()) for g, s in zip(grads, t, strict=True)]
    size = sum(0.0 if g is None else float(np.abs(g * s).sum()) for g, s in zip(grads, t, strict=True))
    return bool(abs(sum(parts) - right) <= OFF * (size + abs(right)))


def _judge(check: Check, p: Procedure, layer: str, text: str, kind: str, dy: Array) -> None:
    """Judge all gradients at this point, and say what is wrong."""
    subject = Subject(p.names, p.point, p.output, p.pullback)
    judge = Judge(subject, dy, check.rng, full=200)
    verdicts = judge.all()
    wrong = [v for v in verdicts if v.row.verdict == "wrong" and v.row.error > 1e-7]
    if not wrong:
        return
    names = ", ".join(v.row.tensor for v in wrong)
    message = f"{names}: wrong with {text}, though right for the {'batch' if kind == 'batch' else 'values'} given"
    if kind == "point" and check.explains:
        context = Context(procedure=p, judge=judge, verdicts=tuple(verdicts))
        found, why = diagnose(wrong[0], context)
        kind = kind if found == "term" else found
        message += f": {why}"
    check.report.findings.append(Finding(kind, layer, wrong[0].row.tensor, message, unexplained=wrong[0].unexplained))
