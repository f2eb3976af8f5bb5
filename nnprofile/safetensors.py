"""Bytes of a file: the layout of safetensors, written whole or not at all, and read strictly.

8 bytes of header length, a JSON header, raw little-endian numbers; the header's metadata hold one text of the caller's, and
the sha256 of it all.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .contract import Array

if TYPE_CHECKING:
    Path = str | os.PathLike[str]

MAX_HEADER = 1_000_000
DTYPES = {"F64": "<f8", "F32": "<f4"}


class ModelFileError(ValueError):
    """The file is not a whole, unchanged model file of a known version."""


def digest_of(architecture: str, tensors: Mapping[str, tuple[str, list[int], bytes]]) -> str:
    """Return the sha256 over architecture, names, dtypes, shapes and bytes, whatever their order in the file."""
    import hashlib
    import json

    digest = hashlib.sha256()
    index = [[name, dtype, list(shape)] for name, (dtype, shape, _) in sorted(tensors.items())]
    digest.update(json.dumps([architecture, index]).encode())
    for _, (_, _, raw) in sorted(tensors.items()):
        digest.update(raw)
    return digest.hexdigest()


def write(path: Path | BinaryIO, architecture: str, tensors: Mapping[str, Array]) -> None:
    """Write a text and arrays of numbers, all of them or nothing."""
    import json

    packed = {}
    for name, tensor in tensors.items():
        dtype = next(code for code, kind in DTYPES.items() if np.dtype(kind).itemsize == tensor.dtype.itemsize)
        packed[name] = (dtype, list(tensor.shape), tensor.astype(DTYPES[dtype]).tobytes())
    header: dict[str, Any] = {"__metadata__": {"nnprofile": architecture, "sha256": digest_of(architecture, packed)}}
    end = 0
    for name, (dtype, shape, raw) in packed.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(raw)]}
        end += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of 8, as safetensors has it
    if len(text) > MAX_HEADER:
        raise ValueError(f"the description of this network takes {len(text)} bytes, more than {MAX_HEADER}")
    write_whole(path, b"".join([len(text).to_bytes(8, "little"), text, *(raw for _, _, raw in packed.values())]))


def write_whole(path: Path | BinaryIO, content: bytes) -> None:
    """Write all of ``content`` to a path, or to a binary file where it stands.

    Raises
    ------
    ValueError
        If it is neither.
    OSError
        If it cannot be written.
    """
    if isinstance(path, (str, os.PathLike)):
        write_atomically(os.fsdecode(path), content)
    elif hasattr(path, "write"):
        _write_open(path, content)
    else:
        raise ValueError(f"path must be a path or a binary file, such as io.BytesIO(), got {_shown(path)}")


def _write_open(file: BinaryIO, content: bytes) -> None:
    left = memoryview(content)
    while left:
        try:
            n = file.write(left)
        except TypeError as error:
            raise ValueError(f"{source_name(file)} is not a binary file; open it with mode 'wb': {error}") from None
        if n == 0 or (n is None and isinstance(file, io.RawIOBase)):  # it takes no more, and does not wait
            raise OSError(f"{source_name(file)} has taken {len(content) - len(left)} of {len(content)} bytes")
        left = left[n:] if isinstance(n, int) else left[:0]  # a raw file may take a part; others may return None


def source_name(path: Any) -> str:
    """Return what messages call the place of a file: its path, or what holds it."""
    if isinstance(path, (bytes, bytearray, memoryview)):
        return f"a buffer of {len(path)} bytes"
    if isinstance(path, (str, os.PathLike)):
        return os.fsdecode(path)
    name = getattr(path, "name", None)
    return str(name) if isinstance(name, (str, int)) and name != "" else type(path).__name__


def _shown(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    return repr(value) if value is None or isinstance(value, (int, float)) else type(value).__name__


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the file, then rename: a reader sees the old file or the new one. Its permissions stay."""
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{os.fspath(path)!r} is a folder")
    if os.path.exists(target) and not os.path.isfile(target):  # a device or a pipe, which a rename would replace
        raise OSError(f"{os.fspath(path)!r} is no regular file")
    scratch = f"{target}.{os.getpid()}-{os.urandom(4).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(scratch, flags, 0o666)
    except OSError as error:
        error.filename = os.fspath(path)  # which the caller knows
        raise
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            os.chmod(scratch, os.stat(target).st_mode & 0o7777)
        os.replace(scratch, target)
    except BaseException:
        os.unlink(scratch)
        raise
    if os.name == "posix":  # the new name must survive a power failure too
        folder = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def parse(text: str) -> Any:
    """Return what strict JSON holds: no key twice, no NaN or infinity."""
    import json

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise ValueError(f"duplicate keys in {keys}")
        return dict(pairs)

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} in the header")

    return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)


def read(path: Path | bytes | BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Return the JSON header and the bytes behind it."""
    if isinstance(path, (bytes, bytearray, memoryview)):
        return _read_open(io.BytesIO(path), source_name(path))
    if isinstance(path, (str, os.PathLike)):
        with open(path, "rb") as file:
            return _read_open(file, source_name(path))
    if not hasattr(path, "read"):
        raise ValueError(f"path must be a path, bytes or a binary file, got {_shown(path)}")
    return _read_open(path, source_name(path))


def _read_open(file: BinaryIO, where: str) -> tuple[dict[str, Any], bytes]:
    start = _take(file, 8, where)
    length = int.from_bytes(start, "little")
    if len(start) < 8:
        raise ModelFileError(f"{where} is not a model file of this library: it holds {len(start)} bytes")
    if length > MAX_HEADER:
        raise ModelFileError(f"{where} is not a model file of this library: it names a header of {length} bytes")
    text = _take(file, length, where)
    try:
        header = parse(text.decode())
        offsets = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
        end = max((offset[1] for offset in offsets), default=0)
        data = _take(file, end + 1, where)
        if len(data) != end:
            held = f"{8 + length + len(data)}" if len(data) < end else "more"
            raise ValueError(f"it should hold {8 + length + end} bytes and holds {held}")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{where} is not a model file of this library: {error}") from error
    return header, data


def _take(file: BinaryIO, n: int, where: str) -> bytes:
    """Return the next n bytes, or those that are left; a raw file or a socket may give fewer at a time."""
    pieces, n_left = [], n
    while n_left > 0:
        piece = file.read(min(n_left, 1 << 20))
        if not isinstance(piece, bytes):
            raise ValueError(f"{where} is not a binary file; open it with mode 'rb'")
        if not piece:
            break
        pieces.append(piece)
        n_left -= len(piece)
    return b"".join(pieces)


def unpack(header: dict[str, Any], data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """Return name -> (dtype, shape, bytes), after checking that the tensors fill the data without gap or overlap."""
    packed = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        check_keys(entry, {"dtype", "shape", "data_offsets"})
        (start, stop), shape, dtype = entry["data_offsets"], entry["shape"], entry["dtype"]
        if not all(type(number) is int and number >= 0 for number in (start, stop, *shape)):
            raise ValueError(f"{name}: shape {shape} at {[start, stop]}")
        if start != end or stop - start != prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
            raise ValueError(f"{name}: {dtype} of shape {shape} does not lie at {[start, stop]}, after {end}")
        packed[name] = (dtype, shape, data[start:stop])
        end = stop
    if end != len(data):
        raise ValueError(f"the tensors end at {end}, the data at {len(data)}")
    return packed


def check_keys(mapping: Any, required: set[str], optional: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Raise a ValueError unless a mapping has all of the required keys, and no other but the optional ones."""
    if not isinstance(mapping, dict) or not required <= mapping.keys() <= required | optional:
        raise ValueError(f"expected the keys {sorted(required)}, got {sorted(mapping)}")
