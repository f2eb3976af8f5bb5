"""What holds of a layer that mixes events: a sequence is computed alone, may be empty, and sees no later event if it says so.

A gradient that is right keeps all of it, if forward does; a wrong one that breaks it is named by ``diagnosis.events``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..contract import Array, n_rows, take
from ..ragged import Ragged
from .foreign import ForeignError
from .procedures import LayerProcedure

Found = tuple[str, str]  # kind, message
Close = Callable[[Array, Array], bool]  # whether two results of one computation agree
MOST = 8  # sequences that are looked at by themselves


def check_sequences(p: LayerProcedure, dy: Array, close: Close) -> Iterator[Found]:
    """Yield what is broken, for a layer in inference mode."""
    first = next((part for part in _parts(p.x) if isinstance(part, Ragged)), None)
    if first is None or p.generator is not None or not getattr(p.world.objects[0], "mixes_events", False):
        return
    y, _ = p.run(p.copies(p.point))
    where = first.offsets if p.gives_events else np.arange(len(first) + 1)  # sequence i is y[where[i]:where[i + 1]]
    for check in (_alone, _empty, _causal):
        try:
            yield from check(p, y, where, dy, close)
        except ForeignError as error:
            kind, what = _SAID[check]
            yield kind, f"{what}, {type(error.error).__name__} is raised: {error.error}"


def _alone(p: LayerProcedure, y: Array, where: Array, dy: Array, close: Close) -> Iterator[Found]:
    for i in range(min(n_rows(p.x), MOST)):
        with p.at(take(p.x, slice(i, i + 1))) as point:
            own, _ = p.run(p.copies(point), dy[where[i] : where[i + 1]].copy())
        if not close(own, y[where[i] : where[i + 1]]):
            yield (
                "alone",
                f"sequence {i} by itself gives another y than among the others: is a state carried over between them?",
            )
            return


def _empty(p: LayerProcedure, y: Array, where: Array, dy: Array, close: Close) -> Iterator[Found]:
    with p.at(_around(p.x)) as point:
        more, _ = p.run(p.copies(point))
        p.run(p.copies(point), np.ones(more.shape))
        n_in_front = (len(more) - len(y)) // 2
        if not close(more[n_in_front : n_in_front + len(y)], y):
            yield "empty", "with an empty sequence in front and behind, the others have another y"
            return
    with p.at(_without_events(p.x)) as point:
        none, _ = p.run(p.copies(point))
        p.run(p.copies(point), np.ones(none.shape))
    if not np.isfinite(none).all():
        yield "empty", "of sequences without events, y is not finite"


def _causal(p: LayerProcedure, y: Array, where: Array, dy: Array, close: Close) -> Iterator[Found]:
    if not (getattr(p.world.objects[0], "causal", False) and p.gives_events and p.n_inputs == 1 and len(y)):
        return
    late = places(where)[0] >= np.repeat(np.maximum(np.diff(where) // 2, 1), np.diff(where))
    arrays = p.copies(p.point)
    arrays[0][late] = 1 - 2 * arrays[0][late]
    if not close(p.run(arrays)[0][~late], y[~late]):
        yield "causal", "y changes with later events, though the layer says that it is causal: is a mask missing?"


_SAID = {
    _alone: ("alone", "for a sequence by itself"),
    _empty: ("empty", "with empty sequences"),
    _causal: ("causal", ""),
}


def places(offsets: Array) -> tuple[Array, Array]:
    """Return of each event which it is in its sequence, counted from the front and from the end."""
    lengths = np.diff(offsets)
    front = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    return front, np.repeat(lengths, lengths) - 1 - front


def _parts(x: Any) -> Iterator[Any]:
    for part in x if isinstance(x, tuple) else (x,):
        yield from _parts(part) if isinstance(part, tuple) else (part,)


def _around(x: Any) -> Any:
    """Return x with an empty sequence in front and behind; of rows, the first and the last again."""
    if isinstance(x, tuple):
        return tuple(map(_around, x))
    if isinstance(x, Ragged):
        return Ragged.of(x.values, np.concatenate([x.offsets[:1], x.offsets, x.offsets[-1:]]))
    return np.concatenate([x[:1], x, x[-1:]])


def _without_events(x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(map(_without_events, x))
    return Ragged.of(x.values[:0], np.zeros_like(x.offsets)) if isinstance(x, Ragged) else x
