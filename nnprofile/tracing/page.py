"""The explorer: one HTML file that shows a traced step, its check, its paths, and what known bugs do to it.

Every number in it is made here or in the library; the page's script looks numbers up, puts them into formulas and draws.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from html import escape
from importlib.resources import files
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Layer, Loss
from ..formulas.expression import PLAIN, Expression, flat
from ..objectives import objective
from ..validation import check_size
from .bugs import applicable
from .large import MAX_CELLS, blocks
from .paths import MAX_PATHS, blocking, n_paths, owner, paths, total
from .record import Link, Record
from .recorder import record
from .text import KEPT, gives, left_out, summary, to_text, verdict

if TYPE_CHECKING:
    from .presets import Preset

MAX_LISTED = 4096  # paths in the page
MAX_BROKEN = 20_000  # parameters: a larger network would take minutes to break and train
N_STEPS = 200  # of training, right and with a bug


def to_html(
    found: Record,
    *,
    title: str | None = None,
    preset: Preset | None = None,
    break_it: bool = True,
    n_steps: int = N_STEPS,
) -> str:
    """Return the page.

    Parameters
    ----------
    found : Trace
    title : str, optional
        The heading; by default the preset's title, or the network and its loss.
    preset : Preset, optional
        Its title, story and printed numbers.
    break_it : bool, default True
        Also trace the step with each known bug that the network can have, and train ``n_steps`` steps with it.
    n_steps : int, default 200
    """
    data = page_data(found, title=title, preset=preset, break_it=break_it, n_steps=n_steps)
    folder = files(__package__)
    style, script, body = ((folder / f"explorer.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html"))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "POLICY": policy,
        "TITLE": escape(data["title"]),
        "TEXT": escape(to_text(found, digits=6, max_elements=64)),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    # In one pass, so that a placeholder in somebody's text stays text.
    return re.sub(f"%({'|'.join(parts)})%", lambda place: parts[place[1]], body)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page_data(
    found: Record,
    *,
    title: str | None = None,
    preset: Preset | None = None,
    break_it: bool = True,
    n_steps: int = N_STEPS,
) -> Any:
    """Return all that the page shows, as JSON takes it."""
    if title is not None and not (isinstance(title, str) and title.strip()):
        raise ValueError(f"title must be a string that is not empty, got {title!r}")
    check_size(n_steps, "n_steps", least=0)
    if preset is not None and not hasattr(preset, "intro"):
        raise ValueError(f"preset must be one of nnprofile.tracing.presets.PRESETS, got {preset!r}")
    small = found.net.params.vector.size <= MAX_BROKEN
    n_steps = n_steps if small else 0
    base = _side(found, n_steps)
    cells = {name: q["cells"] for name, q in base["quantities"].items() if "cells" in q}
    data: dict[str, Any] = {
        "title": title or (preset.title if preset else found.title),
        "intro": preset.intro if preset else "One training step, from the library's own numbers.",
        "about": found.title if title or preset else "",
        "cap": f"Arrays of more than {MAX_CELLS} elements are shown in blocks, each with its largest element. Networks of more "
        f"than {MAX_BROKEN:,} parameters are neither broken nor trained here.",
        "steps": [
            {"title": step.title, "phase": step.phase, "why": PLAIN.matrix(step.why), "names": step.names}
            for step in found.steps
        ],
        "columns": _columns(found),
        "edges": _edges(found),
        "base": base,
        "diagnosis": diagnosis(found),
        "paths": _paths(found),
        "variants": [],
        "printed": [],
        "keptText": KEPT,
        "errata": list(preset.errata) if preset else [],
    }
    if preset:
        data["printed"] = [
            {
                "label": c.label,
                "here": c.here,
                "printed": c.printed,
                "ours": c.ours,
                "agrees": c.agrees,
                "note": "" if c.agrees else f"{c.units:,.1f} units of the last digit. {c.note}",
            }
            for c in preset.compare(found)
        ]
    if break_it and small:
        x, y, weights, rng = found.data
        for bug, net, loss in applicable(found.net, found.loss, x, found.optimizer, found.l2):
            step = (net, loss, x, y, found.optimizer, found.l2, found.frozen)
            broken = record(*step, sample_weight=weights, rng=rng, kind=Record)
            if broken.ok:
                continue  # it changes nothing here
            side = _side(broken, n_steps, cells)
            changed = {name: q for name, q in side["quantities"].items() if q != base["quantities"].get(name)}
            data["variants"].append(
                {**side, "key": bug.key, "title": bug.title, "story": bug.story, "quantities": changed}
            )
        if not data["variants"]:
            data["cap"] += (
                " No known bug is tried on this network: they need a Sequential of the library's layers, not nested."
            )
    return data


def _side(found: Record, n_steps: int, cells: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what differs between the right step and one with a bug."""
    return {
        "quantities": {name: _quantity(found, name, (cells or {}).get(name)) for name in found},
        "curve": _curve(found, n_steps) if found.optimizer is not None and n_steps else None,
        "bad": found.wrong + found.unclear,
        "summary": summary(found),
    }


def _quantity(found: Record, name: str, cells: list[list[int]] | None = None) -> dict[str, Any]:
    """Return a quantity; of a large one the largest element of each block, or the ``cells`` that another side shows."""
    q = found[name]
    element = q.formula.element
    out: dict[str, Any] = {
        "symbol": PLAIN.name(name),
        "shape": list(q.value.shape),
        "shapeText": q.shape_text,
        "axes": list(q.axes),
        "index": list(q.index[: q.value.ndim]),
        "role": q.role,
        "matrix": PLAIN.matrix(q.formula.matrix),
        "equation": q.formula.equation,
        "why": PLAIN.matrix(q.formula.why),
        "parameter": q.parameter,
    }
    if element is not None:
        out["tokens"] = element.tokens()
    if q.value.size <= MAX_CELLS:
        indices = list(np.ndindex(q.value.shape))
    else:
        cut = blocks(q.value, None if q.check is None else q.check.wrong)
        indices = [tuple(cell) for cell in cells] if cells else [index for *_, index in cut]
        out["blocks"] = [{"start": a, "stop": b, "rms": _rms(q.value, a, b)} for a, b, _ in cut]
        out["leftOut"] = left_out(q, MAX_CELLS, "shown in blocks")
        out["cells"] = [list(index) for index in indices]
    out["values"] = [_plain(q.value[index]) for index in indices]
    if q.check is not None:
        out["method"] = q.check.method
        out["reference"] = [_plain(q.check.reference[index]) for index in indices]
        out["says"] = [q.check.says(index) for index in indices]
        out["wrong"] = [k for k, index in enumerate(indices) if q.check.wrong[index]]
        out["verdict"] = verdict(q)
    if element is not None:

        def lookup(other: str, index: tuple[int, ...]) -> float:
            return float(found[other].value[index])

        out["kept"] = [k for k, index in enumerate(indices) if not gives(q, index, lookup)]
    if element is not None and (q.value.size > MAX_CELLS or _is_long(found, element)):
        out["resolved"] = [_resolved(found, element, dict(zip(q.index, index, strict=False))) for index in indices]
    return out


def _is_long(found: Record, element: Expression) -> bool:
    """Tell whether a formula has sums to be abridged, or looks into arrays that are shown in blocks."""

    def search(tokens: list[Any]) -> bool:
        return any(
            (token[0] == "s" and (token[2] > 16 or search(token[3])))
            or (token[0] == "r" and found[token[1]].value.size > MAX_CELLS)
            for token in tokens
            if not isinstance(token, str)
        )

    return search(element.tokens())


def _resolved(found: Record, element: Expression, at: dict[str, int]) -> list[Any]:
    """Return the tokens of one element, with the values in them."""

    def lookup(name: str, index: tuple[int, ...]) -> float:
        return float(found[name].value[index])

    tokens = flat(element.abridged(at, lookup).tokens(), at)
    return [[*t, _plain(lookup(t[1], tuple(t[2])))] if not isinstance(t, str) and t[0] == "r" else t for t in tokens]


def _rms(value: Array, start: list[int], stop: list[int]) -> Any:
    part = value[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].astype(float)
    return _plain(np.sqrt((part * part).mean()))


def _paths(found: Record) -> dict[str, Any]:
    """Return, for each element of each parameter, its paths: [sample, units, factors, contribution]; and their sum."""
    out: dict[str, Any] = {}
    listed = 0
    for name, q in list(found.items()):
        if q.role != "parameter":
            continue
        link = owner(found, name)
        barrier = link if name not in link.starts else blocking(found, name)
        if barrier is not None:
            out[name] = {"why": _no_paths(name, barrier)}
            continue
        each = n_paths(found, name)
        if each > MAX_PATHS or listed + each * q.value.size > MAX_LISTED:
            out[name] = {
                "why": f"{each} paths lead from each element to the loss: too many to list. Click through the gradients."
            }
            continue
        listed += each * q.value.size
        rows = []
        for index in np.ndindex(q.value.shape):
            ways = paths(found, name, index)
            rows.append(
                {
                    "sum": _plain(total(ways)),
                    "ways": [
                        [
                            way.sample,
                            way.units,
                            [[f.name, f.index] if f.name else [f.symbol, _plain(f.value)] for f in way.factors],
                            _plain(way.contribution),
                        ]
                        for way in ways
                    ],
                }
            )
        out[name] = {"rows": rows}
    return out


def _no_paths(name: str, link: Link) -> str:
    """Say why the paths from a parameter are not listed."""
    symbol, x, y = (PLAIN.name(part) for part in (name, link.x, link.y))
    if name in link.parameters:
        return f"{symbol} belongs to the layer from {x} to {y}, which has no formulas here; the gradient beside it is checked."
    return f"The paths from {symbol} lead through the layer from {x} to {y}, which mixes elements and has no formulas here."


def diagnosis(found: Record) -> list[str]:
    """Return what the gradient checker says of a step whose gradients are wrong; nothing of a right one."""
    from ..gradcheck import check_network

    if not found.wrong:
        return []
    x, y, weights, rng = found.data
    loss: Any = found.loss if weights is None else _Weighted(found.loss, weights)
    l2 = found.l2 if weights is None else found.l2 * len(x) / float(weights.sum())
    try:
        report = check_network(found.net, loss, x, y, l2, rng=rng)
    except ValueError:  # numbers that are not finite, say: then there is nothing to compare
        return []
    return [finding.message for finding in report.errors]


class _Weighted:
    """A loss with these sample weights."""

    def __init__(self, loss: Loss, weights: Array) -> None:
        self.loss, self.weights = loss, weights

    def forward(self, y_pred: Array, y_true: Any) -> tuple[Any, Any]:
        return self.loss.forward(y_pred, y_true, self.weights)

    def backward(self, cache: Any) -> Array:
        return self.loss.backward(cache)


def _columns(found: Record) -> list[dict[str, Any]]:
    """Return the columns of the network's picture: the inputs, and each layer that has parameters or another width."""
    size = sum(_width(found, name) for name in found.inputs)
    columns: list[dict[str, Any]] = [{"label": "inputs", "names": list(found.inputs), "size": size, "b": ""}]
    for link in found.links:
        seen = {name: column for column in columns for name in column["names"]}
        if link.y in seen:
            continue  # the other end of a join
        if link.kind != "dense" and not link.parameters and _width(found, link.y) == seen[link.x]["size"]:
            seen[link.x]["names"].append(link.y)
            continue
        bias = next((name for name in link.parameters if name != link.local), "") if link.kind == "dense" else ""
        label = PLAIN.name(found[link.y].axes[-1])
        columns.append({"label": label, "names": [link.y], "size": _width(found, link.y), "b": bias})
    return columns


def _width(found: Record, name: str) -> int:
    shape = found[name].value.shape
    return int(shape[-1]) if len(shape) > 1 else 1  # ids


def _edges(found: Record) -> list[dict[str, Any]]:
    """Return the lines of the picture: those of each dense layer, between the columns of what goes in and comes out."""
    place = {name: k for k, column in enumerate(_columns(found)) for name in column["names"]}
    return [
        {"W": link.local, "from": place[link.x], "to": place[link.y]} for link in found.links if link.kind == "dense"
    ]


def _curve(found: Record, n_steps: int) -> list[Any] | None:
    """Return the objective before each step of training on this batch, as the trace trains; it ends where it diverges."""
    net, loss = copy.deepcopy(found.net), found.loss
    optimizer = copy.deepcopy(found.optimizer)
    assert optimizer is not None
    x, y, weights, rng = found.data
    rng = copy.deepcopy(rng)
    values: list[Any] = []
    with np.errstate(all="ignore"):
        for _ in range(n_steps + 1):
            value, grads = _objective(net, loss, x, y, weights, found.l2, rng)
            values.append(_rounded(value))
            if values[-1] is None:
                break
            kept = {name: net.params[name].copy() for name in found.frozen}
            optimizer.step(net.params, grads)
            for name, old in kept.items():
                net.params[name] = old
    return values if len(values) > 1 else None  # not finite from the first step on: nothing to draw


def _objective(net: Layer, loss: Loss, x: Array, y: Any, weights: Any, l2: float, rng: Any) -> tuple[Any, Any]:
    try:
        return objective(net, loss, x, y, sample_weight=weights, l2=l2, rng=rng)
    except ValueError:  # parameters that have diverged
        return np.nan, None


def _rounded(value: Any) -> float | None:
    return float(f"{value:.6g}") if isfinite(value) else None


def _plain(value: Any) -> Any:
    """Return a number as JSON takes it; what is not finite as a word."""
    value = float(value)
    if isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 1e6 else value
    return {"nan": "NaN", "inf": "∞", "-inf": "−∞"}[str(value)]
