"""Files that are written whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path beside this one to write to; it takes its place when all is written, and goes if that fails.

    Raises
    ------
    OSError
        If the path is a folder, or there is no folder for it.
    """
    if path.is_dir():
        raise OSError(f"{path} is a folder: name a file")
    if not path.parent.is_dir():
        raise OSError(f"{path} cannot be written: {path.parent} is no folder")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        yield scratch
        mask = os.umask(0)
        os.umask(mask)
        scratch.chmod(0o666 & ~mask)  # mkstemp's files are for their owner alone
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
