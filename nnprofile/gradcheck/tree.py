"""Name the arrays in nested dicts, lists and tuples, so that the rest of the checker sees one flat list of them.

A *leaf* is an array (or a number) of floats: what one can differentiate by. Everything else is a constant. A Ragged stands for
its values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..contract import Array, Parameters, numbers_of
from ..ragged import Ragged
from .foreign import ForeignError, foreign


def is_leaf(value: object) -> bool:
    """Tell whether this is an array or a number of floats."""
    if isinstance(value, np.ndarray):
        return bool(value.dtype.kind == "f")
    return isinstance(value, float | np.floating)


def is_branch(value: object) -> bool:
    """Tell whether this holds further values."""
    return isinstance(value, Mapping | list | tuple)


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, leaf), depth first; names are joined by dots."""
    tree = numbers_of(tree)
    if is_leaf(tree):
        yield name, tree
    elif is_branch(tree):
        for key, value in items(tree):
            yield from leaves(value, f"{name}.{key}" if name else str(key))


def penalised(params: Any) -> set[str]:
    """Return the names that decay and the L2 term touch: our matrices; of other people's, what is called W."""
    if isinstance(params, Parameters):
        return set(params.matrices())
    return {name for name, _ in leaves(params) if name.rpartition(".")[2] == "W"}


def items(tree: Any) -> list[tuple[Any, Any]]:
    """Return (key, value) of a mapping, (field, value) of a named tuple, (index, value) of another sequence."""
    if isinstance(tree, Mapping):
        return list(tree.items())
    return list(zip(tree._fields, tree, strict=True)) if hasattr(tree, "_fields") else list(enumerate(tree))


def rebuild(tree: Any, values: Iterator[Array]) -> Any:
    """Return the same tree with other leaves, taken in the order of ``leaves``."""
    if is_leaf(tree):
        value = next(values)
        return value if isinstance(tree, np.ndarray) else value[()]
    if isinstance(tree, Ragged):
        return Ragged.of(rebuild(tree.values, values), tree.offsets)
    if isinstance(tree, Parameters):
        parts = [next(values) for _ in tree]
        vector = np.concatenate([np.ravel(part) for part in parts]) if parts else tree.vector
        return Parameters(tree.layout, vector)
    if isinstance(tree, Mapping):
        new = {key: rebuild(value, values) for key, value in tree.items()}
        return new if type(tree) is dict else _like(tree, new)
    if isinstance(tree, list | tuple):
        parts = [rebuild(value, values) for value in tree]
        if hasattr(tree, "_fields"):  # a named tuple
            return type(tree)(*parts)
        return parts if isinstance(tree, list) else tuple(parts)
    return tree.copy() if isinstance(tree, np.ndarray) else tree


def _like(tree: Mapping[Any, Any], new: dict[Any, Any]) -> Any:
    try:
        with foreign():
            return type(tree)(new)  # type: ignore[call-arg]
    except ForeignError:  # an exotic mapping
        return new


def fresh(tree: Any) -> Any:
    """Return the same tree with copies of its leaves."""
    return rebuild(tree, (np.array(leaf) for _, leaf in leaves(tree)))


def constants(tree: Any) -> list[Array]:
    """Return the arrays of what is no float: labels, ids."""
    tree = numbers_of(tree)
    if isinstance(tree, np.ndarray):
        return [] if is_leaf(tree) else [tree]
    return [a for _, part in items(tree) for a in constants(part)] if is_branch(tree) else []


def pick(grads: Any, tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, what ``grads`` holds there) for each leaf of ``tree``; ``Missing`` where it holds nothing."""
    tree = numbers_of(tree)
    if is_leaf(tree) or grads is Missing:
        yield from ((inner, grads) for inner, _ in leaves(tree, name))
    elif is_branch(tree):
        for position, (key, value) in enumerate(items(tree)):
            inner = f"{name}.{key}" if name else str(key)
            if any(True for _ in leaves(value)):
                yield from pick(_get(grads, key, position), value, inner)


class _Missing:
    """Stands for a gradient that was not returned."""

    def __repr__(self) -> str:
        return "nothing"


Missing = _Missing()


def _get(grads: Any, key: Any, position: int) -> Any:
    if isinstance(grads, Mapping):
        if isinstance(grads, Parameters):
            return grads[key] if key in grads.layout else Missing
        return grads.get(key, grads.get(f"d{key}", Missing))
    if (isinstance(grads, Sequence) and not isinstance(grads, str)) or (isinstance(grads, np.ndarray) and grads.ndim):
        return grads[position] if position < len(grads) else Missing
    return None if grads is None else Missing


def extra_names(grads: Any, tree: Any, name: str = "") -> list[str]:
    """Return the names in ``grads`` that ``tree`` does not have, at any depth."""
    if not (isinstance(grads, Mapping) and isinstance(tree, Mapping)):
        return []
    if tree and all(key in grads or f"d{key}" in grads for key in tree) and any(f"d{key}" in grads for key in tree):
        return []  # {"dW": ..., "dZ": ...}: the gradients of what is between belong to no parameter
    found = []
    for key, grad in grads.items():
        inner = f"{name}.{key}" if name else str(key)
        found += extra_names(grad, tree[key], inner) if key in tree else [inner]
    return found
