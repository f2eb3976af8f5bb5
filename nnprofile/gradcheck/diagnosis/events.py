"""Hypotheses about events: what goes wrong where a gradient is handed back through time, or from sequence to sequence."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np

from ...contract import take
from ...ragged import Ragged
from ..procedures import LayerProcedure
from ..reference import H
from ..sequences import places
from .facts import Diagnosis, Facts
from .places import rearranged, shifted
from .scale import slice_scale

MOST = 64  # sequences, or events, that are looked at one by one


def _layer(f: Facts) -> tuple[LayerProcedure, Ragged] | None:
    """Return how the layer is called, and x, if it is of sequences, and y has a row for each event."""
    p = f.context.procedure
    if not isinstance(p, LayerProcedure) or not isinstance(p.x, Ragged) or not p.takes_cotangent or not p.x.n_events:
        return None
    mixes = getattr(p.world.objects[0], "mixes_events", False)
    return (p, p.x) if mixes and p.gives_events and f.dy.ndim == 2 else None


def _is_x(f: Facts, p: LayerProcedure) -> bool:
    return f.full and f.verdict.k < p.n_inputs


def crossed(f: Facts) -> Diagnosis | None:
    """Of each sequence by itself the gradient is right."""
    p = f.context.procedure
    if not isinstance(p, LayerProcedure) or not isinstance(p.x, Ragged) or not p.takes_cotangent or not f.full:
        return None
    n, where = len(p.x), p.x.offsets if p.gives_events else np.arange(len(p.x) + 1)
    if not 1 < n <= MOST or where[-1] != len(f.dy):
        return None
    parts = []
    for i in range(n):
        with p.at(take(p.x, slice(i, i + 1))) as point:
            own = p.run(p.copies(point), f.dy[where[i] : where[i + 1]].copy())[1][f.verdict.k]
        if own is None:
            return None
        parts.append(own)
    if f.right_is(np.concatenate(parts) if f.verdict.k < p.n_inputs else np.sum(parts, axis=0)):
        return slice_scale(f) or (
            "alone",
            "right for each sequence by itself, and wrong for all together: something is carried over the boundary between "
            "them, such as h or dh",
        )
    return None


def boundary_events(f: Facts) -> Diagnosis | None:
    """The first or the last event of each sequence is not counted, or alone is."""
    found, jacobian = _layer(f), f.verdict.jacobian
    if found is None or jacobian is None or found[1].lengths.max() < 2:
        return None
    parts = (jacobian * f.dy).sum(axis=2)
    for which, place in zip(("first", "last"), places(found[1].offsets), strict=True):
        if f.fits(parts[:, place > 0].sum(axis=1)):
            return "samples", f"dy of the {which} event of each sequence is not counted: a loop that is off by one"
        if f.fits(parts[:, place == 0].sum(axis=1)):
            return (
                "samples",
                f"dy of the {which} event of each sequence only: = where += belongs, or a loop that keeps one",
            )
    return None


def truncated(f: Facts) -> Diagnosis | None:
    """Of the Jacobian of y by x, only what is no more than some steps apart, or the same event."""
    found, jacobian = _layer(f), f.verdict.jacobian
    if found is None or jacobian is None or not _is_x(f, found[0]):
        return None
    blocks = (jacobian.reshape(*f.shape, *f.dy.shape) * f.dy).sum(axis=3)  # (event of x, feature, event of y)
    at = np.arange(len(f.dy))
    gap = np.abs(at - at[:, None])
    for most in range(min(int(found[1].lengths.max()) - 1, 8)):
        if f.fits((blocks * (gap <= most)[:, None, :]).sum(axis=2)):
            if most == 0:
                return (
                    "handover",
                    "each event's own part only: the gradient of the state is not handed back from step to step",
                )
            return "handover", f"nothing that comes from more than {most} events later: the gradient is truncated"
    return None


def looks_ahead(f: Facts) -> Diagnosis | None:
    """The dx of an event takes from the dy of earlier ones, which forward does not let see it."""
    found = _layer(f)
    if found is None or not _is_x(f, found[0]) or len(f.dy) > MOST or not getattr(found[0].model.obj, "causal", False):
        return None
    p, ahead, behind = found[0], np.zeros(f.shape), np.zeros(f.shape)
    for t in range(len(f.dy)):
        dy = np.zeros_like(f.dy)
        dy[t] = f.dy[t]
        part = p.run(p.copies(p.point), dy)[1][f.verdict.k]
        if part is None:
            return None
        behind[: t + 1] += part[: t + 1]
        ahead[t + 1 :] += part[t + 1 :]
    if f.right_is(behind):
        return (
            "causal",
            "right without what dx of an event takes from the dy of earlier ones: the mask is missing in backward",
        )
    if np.abs(ahead).max() > 1e-6 * f.size and shifted(f) is None:
        return (
            "causal",
            "dx of an event takes from the dy of earlier ones, which do not see it: a mask is missing in backward",
        )
    return None


def one_gate(f: Facts) -> Diagnosis | None:
    """Of columns that lie side by side for several gates, those of some gates are wrong, here or within one step."""
    found = _layer(f)
    if found is None or not f.full or f.verdict.k < found[0].n_inputs:
        return None
    p, width = found[0], f.dy.shape[1]
    n, rest = divmod(f.shape[-1], width)
    if rest or n < 2:
        return None
    gates = getattr(type(p.model.obj), "gates", None) or tuple(range(n))
    for where, (right, yours) in (
        ("", (f.as_tensor(f.right), f.as_tensor(f.yours))),
        (", within one step", _one_event(f, *found)),
    ):
        off = np.abs(right - yours).reshape(-1, n * width).max(axis=0) > 1e-7 * np.abs(right).max(initial=0.0)
        if ((share := off.reshape(n, width).mean(axis=1)) % 1).any():  # some of a gate's columns: not the gate
            continue
        off = share > 0
        blocks = [np.split(a, n, axis=-1) for a in (yours, right)]
        for order in permutations(range(n)) if off.any() else ():
            if all(np.allclose(blocks[0][i], blocks[1][j], rtol=1e-9, atol=0) for i, j in enumerate(order)):
                return "order", f"the gates in another order, {order}{where}"
        if off.any() and not off.all():
            wrong = np.broadcast_to(np.repeat(off, width), f.shape)
            ratio = yours[wrong & (right != 0)] / right[wrong & (right != 0)]
            names = ", ".join(str(gate) for gate, is_off in zip(gates, off, strict=False) if is_off)
            names = f"gate {names}" + (f" (of 0 to {n - 1})" if gates == tuple(range(n)) else "")
            if ratio.size > 1 and np.ptp(ratio) <= 1e-7 * abs(ratio[0]):
                return (
                    "slice-scale",
                    f"{ratio[0]:.4g} times the right one in the columns of {names}, right in the others{where}",
                )
            return (
                "gate",
                f"wrong in the columns of {names}, right in the others{where}",
            )
    return None


def _one_event(f: Facts, p: LayerProcedure, x: Ragged) -> tuple[Any, Any]:
    """Return the right and the claimed gradient of the tensor where x is one event, the first."""
    start, k, jacobian = int(x.offsets[:-1][x.lengths > 0][0]), f.verdict.k, f.verdict.jacobian
    with p.at(Ragged.of(x.values[start : start + 1], np.arange(2))) as point:
        dy = f.dy[start : start + 1]
        yours = p.run(p.copies(point), dy.copy())[1][k]
        if jacobian is not None and getattr(
            p.world.objects[0], "causal", False
        ):  # then the first event's y is what it was
            right = (jacobian[:, start] * dy[0]).sum(axis=1).reshape(f.shape)
            right = right[start : start + 1] if k < p.n_inputs else right
            return right, right if yours is None else yours
        right = np.zeros(point[k].shape)
        for i in np.ndindex(right.shape):
            moved = point[k].astype(complex)
            moved[i] += 1j * H
            right[i] = (p.run([moved if j == k else a for j, a in enumerate(p.copies(point))])[0].imag / H * dy).sum()
    return right, right if yours is None else yours


def handed_over(f: Facts) -> Diagnosis | None:
    """Of the first event of each sequence alone, the gradient is right; of more, wrong."""
    found = _layer(f)
    if found is None or not f.full or found[1].lengths.max() < 2 or f.value.size > MOST * MOST:
        return None
    right, yours = _one_event(f, *found)
    if np.abs(right - yours).max(initial=0.0) <= 1e-9 * max(np.abs(right).max(initial=0.0), f.size):
        return rearranged(f) or (
            "handover",
            "right for one event, wrong for more: what goes back between events (dh, dc, dS of a softmax) is lost or wrong",
        )
    return None


def first_step(f: Facts) -> Diagnosis | None:
    """With one event a sequence, forward does not react to the tensor, and yours is not 0."""
    found = _layer(f)
    if found is None or f.verdict.k < found[0].n_inputs:
        return None
    p, x = found
    starts = x.offsets[:-1][x.lengths > 0]
    with p.at(Ragged.of(x.values[starts], np.arange(len(starts) + 1))) as point:
        y, grads = p.run(p.copies(point), f.dy[starts].copy())
        moved = [a + 1 if k == f.verdict.k else a for k, a in enumerate(point)]
        same = np.array_equal(p.run(p.copies(moved))[0], y)
    claimed = grads[f.verdict.k]
    if same and claimed is not None and claimed.any():
        return (
            "first-step",
            "not 0 with one event a sequence, where the state before is 0: the state after the step is taken for it, or h[-1]",
        )
    return None
