"""Compile a function once and keep the machine code on disk; where that can't be, compile it once a process.

Numba's cache looks only at the file of the function that is called, raises where no directory is writable, and stumbles
over a truncated file. Here the stamp covers every file of the engine, and a cache that can't be read or written is no
more than slower.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import marshal
import os
import pkgutil
import sys
import warnings
from typing import Any

from numba import njit
from numba.core import caching


@functools.cache
def _stamp() -> str:
    """Return a hash of all modules of the engine, in a folder or a zip, as sources or as bytecode.

    A change in one makes all machine code old. Without a module to read there is no stamp, and nothing is kept.
    """
    package = sys.modules[__package__]
    names = sorted(f"{__package__}.{module.name}" for module in pkgutil.iter_modules(package.__path__))
    if not names:
        raise ImportError(f"no module of {__package__} can be read")
    digest = hashlib.sha256()
    for name in (__package__, *names):
        digest.update(name.encode() + hashlib.sha256(_content(name)).digest())
    return digest.hexdigest()


def _content(name: str) -> bytes:
    """Return the bytes of a module's file, or its code where it has none, as in a frozen executable."""
    spec: Any = importlib.util.find_spec(name)
    try:
        return spec.loader.get_data(spec.origin)
    except (AttributeError, OSError, TypeError):
        return marshal.dumps(spec.loader.get_code(name))


class _Stamped:
    _has_place: Any

    """What our locators have in common: our stamp, and no need of a source file on disk."""

    def get_source_stamp(self):
        return _stamp()

    def get_disambiguator(self):
        return "engine"

    @classmethod
    def from_function(cls, py_func, py_file):
        if not cls._has_place(py_file):
            return None
        locator: Any = cls(py_func, py_file)  # type: ignore[call-arg]
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator


# Where each locator may look: in the user's directory if there is one, beside the sources, in the user's cache.
_PLACES = {
    "UserProvidedCacheLocator": lambda py_file: bool(caching.config.CACHE_DIR),
    "InTreeCacheLocator": lambda py_file: os.path.isdir(os.path.dirname(py_file)),
    "UserWideCacheLocator": lambda py_file: True,
}


def _locator(name):
    """Return Numba's class, with our stamp; its names began with an underscore before Numba 0.61."""
    theirs = getattr(caching, name, None) or getattr(caching, f"_{name}")
    return type(name, (_Stamped, theirs), {"_has_place": staticmethod(_PLACES[name])})


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes = [_locator(name) for name in _PLACES]


class _Cache(caching.FunctionCache):
    _impl_class = _Implementation

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged file: compile again
            return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception:
            try:
                self.flush()  # a damaged index: begin a new one
                super().save_overload(sig, data)
            except Exception:
                _warn(_NO_DIRECTORY)


_NO_DIRECTORY = "no directory can be written to that would keep it; set NUMBA_CACHE_DIR to one that can"


@functools.cache  # once a process, not once a function
def _warn(reason) -> None:
    warnings.warn(f"each process compiles the engine anew: {reason}", RuntimeWarning, stacklevel=2)


def compiled(function):
    """Compile ``function`` for Python to call, when it is first called."""
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher._cache = _Cache(function)
    except ImportError as error:
        _warn(str(error))
    except Exception:
        _warn(_NO_DIRECTORY)
    return dispatcher
