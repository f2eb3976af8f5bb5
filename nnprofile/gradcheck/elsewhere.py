"""Look at other points, where a gradient that is right at the given one may be wrong: other batches, other parameters.

Layers are handed over as ``__init__`` made them: a gain of 1, a bias of 0. An error that is proportional to gain - 1, or to
the bias, is nothing there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, n_rows, numbers_of, take
from ..ragged import Ragged
from .diagnosis import Context, diagnose
from .foreign import ForeignError
from .functions import FunctionProcedure
from .judge import Judge
from .procedures import LayerProcedure, LossProcedure, ObjectiveProcedure, Procedure
from .reference import H, Subject, rms
from .report import Finding
from .tree import constants, leaves, rebuild

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


def _points(check: Check, p: Procedure) -> Iterator[tuple[str, str, Any, list[Array]]]:
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
    inputs = [a.astype(np.float64) for a in p.point[: p.n_inputs]]
    if arrays and (moved := _moved(check, arrays, LAYERS, careful=False)) is not None:
        yield "other parameters", "point", None, [*inputs, *moved]
    x = rebuild(p.x, iter(inputs))
    if isinstance(p, ObjectiveProcedure) or not _is_batch(x) or sum(a.size for a in inputs) > LARGEST:
        return
    n, row = n_rows(x), "sequence" if isinstance(x, Ragged) else "row"
    batches = [("an x three times as large", rebuild(x, (3 * a for a in inputs)))] if inputs else []
    longest = int(x.lengths.argmax()) if isinstance(x, Ragged) else 0
    batches += [(f"a batch of one {row}", take(x, slice(longest, longest + 1)))]
    batches += [(f"the {row}s in another order", take(x, check.rng.permutation(n)))]
    batches += [(f"each {row} twice", take(x, np.repeat(np.arange(n), 2)))]
    for text, other in batches:
        values = [a for _, a in leaves(other)]
        if [a.tobytes() for a in values] != [a.tobytes() for a in inputs] or not values:
            yield text, "batch", other, [*values, *arrays]


def _is_batch(x: Any) -> bool:
    """Tell whether x is of rows or sequences, of the same number in each part."""
    if isinstance(x, tuple):
        return all(map(_is_batch, x)) and len({n_rows(part) for part in x}) == 1
    is_batch = isinstance(x, Ragged) or np.ndim(x) >= (1 if constants(x) and np.asarray(x).dtype.kind in "iu" else 2)
    return is_batch and n_rows(x) > 0


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


def _look(check: Check, p: Procedure, layer: str, text: str, kind: str, x: Any, point: list[Array]) -> None:
    """Compare <J t, dy> with <t, J' dy> at another point, along one direction of all tensors; if they differ, judge it."""
    kept: tuple[Any, list[Array]] = (p.x, p.point) if isinstance(p, LayerProcedure) else (None, p.point)
    p.point = point
    if isinstance(p, LayerProcedure) and x is not None:
        p.x = x
    try:
        y = np.asarray(p.run(p.copies(point))[0])
        if not np.isfinite(y).all() or y.dtype.kind != "f" or (x is not None and y.shape[:1] not in _lengths(x)):
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


def _lengths(x: Any) -> list[tuple[int]]:
    """Return of how many rows the y of such a batch may be: one a row, or one an event."""
    part = x[0] if isinstance(x, tuple) else x
    return [(n_rows(x),), (len(numbers_of(part)),)]


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
