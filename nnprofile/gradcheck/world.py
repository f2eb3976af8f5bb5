"""Call other people's objects again and again as if each time were the first: same state, same random numbers.

The caller's objects are copied, or, where that is impossible, put back as they were.
"""

from __future__ import annotations

import copy
import functools
import os
import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from ..contract import Array, Parameters
from .foreign import ForeignError, foreign
from .tree import leaves, rebuild

_ATOMS = (
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    ModuleType,
    BuiltinFunctionType,
    np.dtype,
    np.generic,
    np.ufunc,
)
_RANDOM = (np.random.Generator, np.random.RandomState)
_LIBRARY, _OURS = os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__))
MAX_BYTES = 1 << 28  # of arrays that are kept to be put back


def _parts(value: Any) -> list[Any]:
    """Return what a value holds."""
    if isinstance(value, Parameters):
        return [value.vector]
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return (
            cells
            + defaults
            + list(vars(value).values())
            + [v for names in _globals_of(value) for v in names[1].values()]
        )
    if isinstance(value, type):  # a user's own: its attributes, and what its methods use
        return [v.__func__ if isinstance(v, (staticmethod, classmethod)) else v for v in vars(value).values()]
    held = [getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
    if hasattr(value, "__dict__"):
        held += list(vars(value).values())
    return [*held, type(value)] if _is_own(type(value)) else held


def _globals_of(function: FunctionType) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield (namespace, what of it the function names): of its module, and of other modules of the user's."""
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names |= set(code.co_names)
        codes += [const for const in code.co_consts if isinstance(const, CodeType)]
    if not _is_own(function) and not any(isinstance(function.__globals__.get(name), _RANDOM) for name in names):
        return
    space = function.__globals__
    found = {name: space[name] for name in names if name in space}
    yield space, {name: value for name, value in found.items() if _is_data(value)}
    for value in found.values():
        if isinstance(value, ModuleType) and _is_own(value):
            inner = vars(value)
            yield inner, {name: inner[name] for name in names if name in inner and _is_data(inner[name])}


def _is_data(value: Any) -> bool:
    """Tell whether a global may be changed, or may lead to what is changed."""
    if isinstance(value, ModuleType):
        return False
    return (
        _is_own(value)
        if isinstance(value, (type, FunctionType))
        else not isinstance(value, BuiltinFunctionType | np.ufunc)
    )


@functools.cache
def _is_foreign_file(path: str) -> bool:
    return "site-packages" in path or "dist-packages" in path or path.startswith(_LIBRARY) or path.startswith(_OURS)


def _is_own(thing: Any) -> bool:
    """Tell whether a function, a class or a module is the user's, and not a library's."""
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or name in ("builtins", "__builtin__"):
        return isinstance(thing, FunctionType)
    path = getattr(module, "__file__", None)
    return not _is_foreign_file(path) if isinstance(path, str) else name not in sys.builtin_module_names


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
        if isinstance(value, _ATOMS) or id(value) in seen or (isinstance(value, type) and not _is_own(value)):
            continue
        seen.add(id(value))
        yield value
        if not isinstance(value, (np.ndarray, *_RANDOM)):
            stack.extend(_parts(value))


class _Snapshot:
    """What objects held at one time: (what, how much of it is named, what it held)."""

    def __init__(self, objects: tuple[Any, ...]) -> None:
        self.saved: list[tuple[Any, Any]] = []
        room = MAX_BYTES
        for value in walk(*objects):
            if isinstance(value, np.ndarray):
                if value.flags.writeable and value.dtype != object and value.nbytes <= room:
                    room -= value.nbytes
                    self.saved.append((value, value.copy()))
                if hasattr(value, "__dict__"):
                    self.saved.append((vars(value), dict(vars(value))))
            elif isinstance(value, dict | list | set | deque):
                self.saved.append((value, copy.copy(value)))
            elif isinstance(value, random.Random):
                self.saved.append((value, value.getstate()))
            elif isinstance(value, FunctionType):
                self.saved += [(_Names(space), named) for space, named in _globals_of(value)]
                self.saved += [(cell, cell.cell_contents) for cell in value.__closure__ or () if _is_filled(cell)]
                self.saved.append((vars(value), dict(vars(value))))
            elif isinstance(value, type):
                named = {n: v for n, v in vars(value).items() if not n.startswith("__") and not callable(v)}
                self.saved.append((_Attributes(value), named))
            elif not isinstance(value, MethodType | functools.partial):
                slots = [n for n in getattr(type(value), "__slots__", ()) if isinstance(n, str) and hasattr(value, n)]
                if slots and not isinstance(value, Parameters):
                    self.saved.append((_Attributes(value), {n: getattr(value, n) for n in slots}))
                if hasattr(value, "__dict__"):
                    self.saved.append((vars(value), dict(vars(value))))
        self.moving: set[int] = set()  # those that were seen to change

    def observe(self) -> bool:
        """Note what has changed since; tell whether anything has."""
        self.moving |= {k for k, (value, then) in enumerate(self.saved) if _has_changed(value, then)}
        return bool(self.moving)

    def restore(self, everything: bool = False) -> None:
        """Put back what was seen to change, or everything that has."""
        for k, (value, then) in enumerate(self.saved):
            if k in self.moving or (everything and _has_changed(value, then)):
                _put_back(value, then)


class _Names:
    """Some names of a namespace."""

    def __init__(self, space: dict[str, Any]) -> None:
        self.space = space


class _Attributes:
    """Some attributes of a class, or slots of an object."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner


def _has_changed(value: Any, then: Any) -> bool:
    if isinstance(value, np.ndarray):
        return bool(value.tobytes() != then.tobytes())
    if isinstance(value, random.Random):
        return bool(value.getstate() != then)
    if isinstance(value, CellType):
        return not _is_filled(value) or value.cell_contents is not then
    if isinstance(value, _Names):
        return any(value.space.get(name, _NOTHING) is not old for name, old in then.items())
    if isinstance(value, _Attributes):
        return any(
            getattr(value.owner, name, _NOTHING) is not old for name, old in then.items() if not _is_descriptor(old)
        )
    if len(value) != len(then):
        return True
    if isinstance(value, dict):
        return any(key not in value or value[key] is not old for key, old in then.items())
    if isinstance(value, set):
        return bool(value != then)
    return any(a is not b for a, b in zip(value, then, strict=True))


def _put_back(value: Any, then: Any) -> None:
    if isinstance(value, np.ndarray):
        value[...] = then
    elif isinstance(value, random.Random):
        value.setstate(then)
    elif isinstance(value, CellType):
        value.cell_contents = then
    elif isinstance(value, _Names):
        value.space.update(then)
    elif isinstance(value, _Attributes):
        for name, old in then.items():
            if not _is_descriptor(old):
                setattr(value.owner, name, old)
    elif isinstance(value, list):
        value[:] = then
    else:
        value.clear()
        (value.extend if isinstance(value, deque) else value.update)(then)


def _is_descriptor(value: Any) -> bool:
    return hasattr(type(value), "__get__") or isinstance(value, (staticmethod, classmethod, property))


_NOTHING = object()


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
        self.print_options = np.get_printoptions()
        self.given = self._states(objects)
        self.objects = _deepcopied(objects, _views_of(objects)) if copied else objects
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
        self.is_stateful = self.snapshot.observe()

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
        self.snapshot.restore(everything=True)
        self._rewind(self.states)
        self._rewind(self.given)
        if np.get_printoptions() != self.print_options:
            np.set_printoptions(**self.print_options)


def copied(value: Any) -> Any:
    """Return a copy, or, of what cannot be copied, the value itself."""
    return _deepcopied(value, {})


def _deepcopied(value: Any, memo: dict[int, Any]) -> Any:
    try:
        with foreign():
            return copy.deepcopy(value, memo)
    except ForeignError:  # locks, open files, foreign memory
        return value


@contextmanager
def untouched(*objects: Any) -> Iterator[None]:
    """Leave all that these objects lead to as it is, whatever calls do to it."""
    world = World(*objects, copied=False)
    try:
        yield
    finally:
        world.close()


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
        if there is not None and _same(there, here):  # nothing tells the ways apart: the values are not used at this x
            self.way = next((way for way in self.ways if self._try(way, values, call) is not None), self.way)

    def _try(self, way: Any, values: list[Array], call: Any) -> Any:
        try:
            with way(values) as obj:
                return call(obj)
        except ForeignError:
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
            params = Parameters(params.layout, vector)
        else:
            params = rebuild(params, iter(values))
        with foreign():
            twin = self.obj.with_params(params)
        yield twin

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
            text = "its parameters can only be written in place, which takes no complex numbers"
            raise ForeignError(TypeError(text))
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
