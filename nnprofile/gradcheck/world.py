"""Call other people's objects again and again as if each time were the first: same state, same random numbers.

The caller's objects are copied, or, where that is impossible, put back as they were.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..contract import Array, Parameters
from .tree import leaves, rebuild

_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, ModuleType, np.dtype, np.generic)
_RANDOM = (np.random.Generator, np.random.RandomState)


def _parts(value: Any) -> list[Any]:
    """Return what a value holds."""
    if isinstance(value, Parameters):
        return [value.vector]
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        named = [value.__globals__.get(name) for name in value.__code__.co_names]
        return cells + [v for v in named if isinstance(v, _RANDOM)] + list(value.__defaults__ or ())
    if hasattr(value, "__dict__") and not isinstance(value, type):
        methods = [getattr(type(value), name, None) for name in ("forward", "backward", "__call__")]
        named = [m.__globals__.get(n) for m in methods if isinstance(m, FunctionType) for n in m.__code__.co_names]
        globals_ = [v for v in named if isinstance(v, _RANDOM)]
    else:
        globals_ = []
    slots = globals_ + [getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
    return [*vars(value).values(), *slots] if hasattr(value, "__dict__") else slots


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def walk(*values: Any) -> Iterator[Any]:
    """Yield all that is reachable from these values, each once."""
    seen: set[int] = set()
    stack = list(values)
    while stack and len(seen) < 100_000:
        value = stack.pop()
        if isinstance(value, _ATOMS) or id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if not isinstance(value, (np.ndarray, *_RANDOM)):
            stack.extend(_parts(value))


class _Snapshot:
    """What objects held at one time."""

    def __init__(self, objects: tuple[Any, ...]) -> None:
        self.saved: list[tuple[Any, Any]] = []
        for value in walk(*objects):
            if isinstance(value, np.ndarray):
                if value.flags.writeable and value.dtype != object:
                    self.saved.append((value, value.copy()))
            elif isinstance(value, dict | list):
                self.saved.append((value, copy.copy(value)))
            elif hasattr(value, "__dict__") and not isinstance(value, FunctionType | MethodType | functools.partial):
                self.saved.append((vars(value), dict(vars(value))))

    def changed(self) -> bool:
        for value, then in self.saved:
            if isinstance(value, np.ndarray):
                if value.tobytes() != then.tobytes():
                    return True
            elif len(value) != len(then):
                return True
            elif isinstance(value, dict):
                if any(key not in value or value[key] is not v for key, v in then.items()):
                    return True
            elif any(a is not b for a, b in zip(value, then, strict=True)):
                return True
        return False

    def restore(self) -> None:
        for value, then in self.saved:
            if isinstance(value, np.ndarray):
                value[...] = then
            elif isinstance(value, dict):
                value.clear()
                value.update(then)
            else:
                value[:] = then


class World:
    """Objects whose state and random numbers are put back by ``reset``, and, for the caller, by ``close``.

    Attributes
    ----------
    objects : tuple
        Copies of the caller's, or his own where they cannot be copied.
    is_stateful, is_random : bool
        Whether ``observe`` saw them change, or draw.
    """

    def __init__(self, *objects: Any, copied: bool = True) -> None:
        self.global_states = np.random.get_state(), random.getstate()
        self.given = self._states(objects)
        try:
            self.objects = copy.deepcopy(objects, _views_of(objects)) if copied else objects
        except Exception:  # locks, open files, foreign memory
            self.objects = objects
        self.states = self._states(self.objects)
        self.snapshot = _Snapshot(self.objects)
        self.is_stateful = self.is_random = False

    @staticmethod
    def _states(objects: tuple[Any, ...]) -> list[tuple[Any, Any]]:
        found = [value for value in walk(*objects) if isinstance(value, _RANDOM)]
        bits = [
            value.bit_generator if isinstance(value, np.random.Generator) else value._bit_generator for value in found
        ]
        return [(bit, copy.deepcopy(bit.state)) for bit in bits]

    def _has_drawn(self) -> bool:
        now = np.random.get_state(), random.getstate()
        same = all(np.array_equal(a, b) for a, b in zip(now[0], self.global_states[0], strict=True))
        drawn = any(repr(bit.state) != repr(state) for bit, state in self.states)
        return not same or now[1] != self.global_states[1] or drawn

    def random_state(self) -> str:
        """Return the state of all generators, global ones among them."""
        legacy: Any = np.random.get_state()
        return repr((legacy[1].tobytes(), legacy[2], random.getstate(), [bit.state for bit, _ in self.states]))

    def observe(self) -> None:
        """Look once, after a first call, whether anything has changed that must be put back each time."""
        self.is_random = self.is_random or self._has_drawn()
        self.is_stateful = self.is_stateful or self.snapshot.changed()

    def reset(self) -> None:
        """Put back what ``observe`` saw changing."""
        if self.is_random:
            self._rewind(self.states)
        if self.is_stateful:
            self.snapshot.restore()

    def rewind(self) -> None:
        """Put back the state of all generators."""
        self._rewind(self.states)

    def _rewind(self, states: list[tuple[Any, Any]]) -> None:
        np.random.set_state(self.global_states[0])
        random.setstate(self.global_states[1])
        for bit, state in states:
            bit.state = state

    def close(self) -> None:
        """Leave everything of the caller's as it was found."""
        self.snapshot.restore()
        self._rewind(self.states)
        self._rewind(self.given)


def _views_of(objects: tuple[Any, ...]) -> dict[int, Any]:
    """Return a memo for deepcopy in which arrays that share memory have copies that do."""
    roots: dict[int, tuple[Array, Array]] = {}
    memo: dict[int, Any] = {}
    for array in walk(*objects):
        if not isinstance(array, np.ndarray) or array.base is None or array.dtype == object:
            continue
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        if root is array or not (root.flags.c_contiguous or root.flags.f_contiguous) or type(array) is not np.ndarray:
            continue
        _, twin = roots.setdefault(id(root), (root, root.copy(order="K")))
        memo[id(root)] = twin
        offset = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
        flat = twin.reshape(-1, order="A")  # no copy: it is contiguous
        memo[id(array)] = np.ndarray(array.shape, array.dtype, buffer=flat, offset=offset, strides=array.strides)
    return memo


class Model:
    """An object with ``params``, which can be called with other parameters, and, if it lets them pass, complex ones.

    Three ways, each tried against the last: ``with_params`` of the contract; replacing the arrays wherever the object
    keeps them; writing into them, which takes no complex numbers.
    """

    def __init__(self, obj: Any) -> None:
        self.obj = obj
        self.tree = getattr(obj, "params", {})
        if not isinstance(self.tree, Mapping):
            raise ValueError(f"{describe(obj)}.params must be a mapping of names to arrays, got {self.tree!r}")
        pairs = list(leaves(self.tree))
        self.names = [name for name, _ in pairs]
        for name, value in pairs:
            if not isinstance(value, np.ndarray):
                raise ValueError(
                    f"the parameter {name} is {value!r}: make it an array, np.array({value!r}), that can be changed"
                )
        self.arrays = [array for _, array in pairs]
        self.structure = rebuild(self.tree, iter([array.copy() for array in self.arrays]))  # while others are put in
        places: dict[Any, str] = {}
        for name, array in pairs:
            if array.size and (first := places.setdefault(_address(array), name)) != name:
                raise ValueError(
                    f"{first} and {name} are the same array: a tied parameter has one name, and one gradient, the sum"
                )
        self.ways = [self._twin, self._replaced, self._written]
        self.way = self._written
        self.places: list[tuple[Any, Any]] | None = None

    def choose(self, call: Any, rng: np.random.Generator) -> None:
        """Find the first way that gives ``call(obj)`` the same result as writing into the arrays does."""
        if not self.arrays:
            return
        values = [a * (1 + 2e-3 * rng.random(a.shape)) + 1e-3 * rng.normal(size=a.shape) for a in self.arrays]
        values = [v.astype(a.dtype) for v, a in zip(values, self.arrays, strict=True)]
        here, there = call(self.obj), self._try(self._written, values, call)
        for way in self.ways:
            result = self._try(way, values, call)
            works = there is not None and not _same(there, here)  # else: they are copies of what is used, or not used
            if result is not None and (_same(result, there) if works else not _same(result, here)):
                self.way = way
                return

    def _try(self, way: Any, values: list[Array], call: Any) -> Any:
        try:
            with way(values) as obj:
                return call(obj)
        except Exception:
            return None

    @contextmanager
    def bound(self, values: list[Array]) -> Iterator[Any]:
        """Give an object that reads these values."""
        if all(a is b for a, b in zip(values, self.arrays, strict=True)):
            yield self.obj
        else:
            with self.way(values) as obj:
                yield obj

    @contextmanager
    def _twin(self, values: list[Array]) -> Iterator[Any]:
        params = self.tree
        dtype = np.result_type(*values)
        if isinstance(params, Parameters):
            vector = np.concatenate([v.ravel() for v in values]).astype(dtype, copy=False)
            yield self.obj.with_params(Parameters(params.layout, vector))
        else:
            yield self.obj.with_params(rebuild(params, iter(values)))

    @contextmanager
    def _replaced(self, values: list[Array]) -> Iterator[Any]:
        targets = {_address(a): v for a, v in zip(self.arrays, values, strict=True)}
        if self.places is None:
            self.places = list(self._find(set(targets)))
        places = [(holder, key, holder[key]) for holder, key in self.places]
        try:
            for holder, key, value in places:
                holder[key] = targets[_address(value)]
            yield self.obj
        finally:
            for holder, key, value in places:
                holder[key] = value

    def _find(self, addresses: set[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield (dict or list, key) wherever the object keeps one of these arrays."""
        for holder in walk(self.obj):
            if hasattr(holder, "__dict__") and not isinstance(holder, FunctionType | MethodType):
                holder = vars(holder)
            if isinstance(holder, dict | list):
                pairs: Any = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
                yield from ((holder, k) for k, v in pairs if isinstance(v, np.ndarray) and _address(v) in addresses)

    @contextmanager
    def _written(self, values: list[Array]) -> Iterator[Any]:
        if any(np.iscomplexobj(v) for v in values):
            raise TypeError("its parameters can only be written in place, which takes no complex numbers")
        saved = [a.copy() for a in self.arrays]
        try:
            for array, value in zip(self.arrays, values, strict=True):
                array[...] = value
            yield self.obj
        finally:
            for array, value in zip(self.arrays, saved, strict=True):
                array[...] = value


def _address(array: Array) -> tuple[Any, ...]:
    where = array.__array_interface__
    return where["data"][0], array.shape, array.strides, array.dtype.str


def _same(a: Any, b: Any) -> bool:
    return a is not None and b is not None and np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


def describe(obj: object) -> str:
    """Name an object in a message, in at most 80 characters."""
    name = getattr(obj, "__name__", None)
    text = name if isinstance(name, str) else repr(obj)
    if " object at 0x" in text:
        text = type(obj).__name__
    return text if len(text) <= 80 else f"{text[:76]} ..."
