"""Compile a function once and keep the machine code on disk; where that can't be, compile it once a process.

Numba's cache looks only at the file of the function that is called, raises where no directory is writable, and stumbles
over a truncated file. Here the stamp covers every file of the engine, and a cache that can't be read or written is no
more than slower.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from pathlib import Path

from numba import njit
from numba.core import caching


def _stamp() -> str:
    """Return a hash of all files of the engine: a change in one makes all machine code old."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Stamped:
    def get_source_stamp(self):
        return _stamp()

    def get_disambiguator(self):
        return "engine"


def _locator(name):
    """Return Numba's class, with our stamp; its names began with an underscore before Numba 0.61."""
    theirs = getattr(caching, name, None) or getattr(caching, f"_{name}")
    return type(name, (_Stamped, theirs), {})


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes = [
        _locator(name) for name in ("UserProvidedCacheLocator", "InTreeCacheLocator", "UserWideCacheLocator")
    ]


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
                _warn()


@functools.cache  # once a process, not once a function
def _warn() -> None:
    warnings.warn(
        "no directory can be written to that would keep the compiled engine, so each process compiles it anew; set "
        "NUMBA_CACHE_DIR to one that can",
        RuntimeWarning,
        stacklevel=2,
    )


def compiled(function):
    """Compile ``function`` for Python to call, when it is first called."""
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher._cache = _Cache(function)
    except Exception:
        _warn()
    return dispatcher
