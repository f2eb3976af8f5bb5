"""Save a network to one safe file, with loss, optimizer and random state, and read it back bit for bit.

The layout is that of safetensors: 8 bytes of header length, a JSON header, raw little-endian numbers. The architecture is
one JSON string in its metadata. Names are looked up in a fixed registry; nothing is imported or executed from a file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np

from . import optimizers
from .contract import Array, Configured, Layer, Loss, Optimizer, check_filled
from .layers import COMPOSITES, LAYERS, Residual, Sequential
from .layers.compose import Composite
from .losses import LOSSES
from .validation import fitted_inside

if TYPE_CHECKING:
    Path = str | os.PathLike[str]

FORMAT_VERSION = 1
MAX_HEADER = 1_000_000
DTYPES = {"F64": "<f8", "F32": "<f4"}
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_LIMITS = {"pos": 624, "buffer_pos": 4, "has_uint32": 1, "uinteger": (1 << 32) - 1}
_NAMES = {cls.__name__ for cls in (*COMPOSITES, *LAYERS)}
_OPTIMIZERS = (optimizers.SGD, optimizers.Adam)
_SCHEDULES = (optimizers.StepDecay, optimizers.ExponentialDecay, optimizers.CosineDecay)


class ModelFileError(ValueError):
    """The file is not a whole, unchanged model file of a known version."""


class Saved(NamedTuple):
    """What ``load`` returns; what was not saved is None."""

    net: Sequential
    loss: Loss | None
    optimizer: Optimizer | None
    rng: np.random.Generator | None


def save(
    net: Sequential,
    path: Path | BinaryIO,
    *,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    rng: np.random.Generator | None = None,
) -> None:
    """Write ``net``, and what else is given, to ``path``: all of it, or nothing.

    ``path`` is a path, or a binary file that is open for writing, such as ``io.BytesIO()``.

    Training resumed from a file that holds network, optimizer and rng equals training never interrupted, bit for bit.
    Layers of your own are saved by class name and ``config()``; ``load`` is then told their classes.

    Raises
    ------
    ValueError
        If a parameter is not finite, a part cannot be described (a loss or schedule of your own), or ``path`` is neither
        a path nor a binary file.
    OSError
        If the file cannot be written; an earlier file at ``path`` is then as it was.

    Examples
    --------
    >>> import tempfile
    >>> from nnprofile import Dense, SigmoidCrossEntropy
    >>> net = Sequential([Dense(3, 1)], rng=np.random.default_rng(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(net, folder + "/model.safetensors", loss=SigmoidCrossEntropy())
    ...     saved = load(folder + "/model.safetensors")
    >>> bool((saved.net.params.vector == net.params.vector).all()), saved.loss
    (True, SigmoidCrossEntropy())
    """
    save_with(None, net, path, loss=loss, optimizer=optimizer, rng=rng)


def save_with(
    estimator: Mapping[str, Any] | None,
    net: Sequential,
    path: Path | BinaryIO,
    *,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    rng: np.random.Generator | None = None,
    curves: Mapping[str, Array] | None = None,
) -> None:
    """Write what ``save`` writes, and what an estimator says of itself: plain numbers, texts, lists and mappings.

    ``curves``, of a number an epoch, may be longer than a header: they are written as float64 arrays.
    """
    import json

    if type(net) is not Sequential:
        model = fitted_inside(net)
        hint = f"; {model}.save(path) saves an estimator, save({model}.network_, path) its network" if model else ""
        raise ValueError(f"net must be a Sequential (subclasses cannot be saved), got {net!r}{hint}")
    if net.params.dtype not in (np.dtype(np.float64), np.dtype(np.float32)):
        raise ValueError(f"a file holds float64 or float32, not {net.params.dtype}")
    check_filled(net)
    tensors: dict[str, Array] = dict(net.params.items())
    architecture: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "dtype": str(net.params.dtype),
        "network": _describe_network(net),
    }
    if loss is not None:
        architecture["loss"] = _describe(loss, LOSSES, "loss")
    if optimizer is not None:
        optimizer.check(net.params)
        architecture["optimizer"] = _describe(optimizer, _OPTIMIZERS, "optimizer") | {"n_steps": optimizer.n_steps}
        tensors |= {f"optimizer.{name}": moment for name, moment in optimizer.state.items()}
    if rng is not None:
        architecture["rng"] = _describe_rng(rng)
    if estimator is not None:
        architecture["estimator"] = estimator
        tensors |= {f"estimator.{name}": np.asarray(curve, np.float64) for name, curve in (curves or {}).items()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity; such a network is not saved")
    described = json.dumps(architecture, separators=(",", ":"), allow_nan=False)
    _write(path, described, tensors)


def load(path: Path | bytes | BinaryIO, *, layers: Iterable[type[Layer]] = ()) -> Saved:
    """Read a file that ``save`` wrote.

    Parameters
    ----------
    path : path, bytes or binary file
        Bytes are the content of a file, not a name; an open file is read from where it stands to its end.
    layers : classes of your own that the network uses
        Made anew as ``cls(**config)``.

    Raises
    ------
    ModelFileError
        If anything in the file is not as ``save`` wrote it. Nothing is half-loaded.
    OSError
        If the file cannot be read.
    """
    return load_with(path, layers=layers)[0]


def load_with(
    path: Path | bytes | BinaryIO, *, layers: Iterable[type[Layer]] = ()
) -> tuple[Saved, dict[str, Any] | None, dict[str, Array]]:
    """Read what ``save_with`` wrote: network and the like, what the estimator said of itself, if one was saved, and curves."""
    known: dict[str, type[Layer]] = {cls.__name__: cls for cls in LAYERS}
    for cls in layers if isinstance(layers, Iterable) else (layers,):
        if not (isinstance(cls, type) and issubclass(cls, Layer)) or cls.__name__ in known or cls.__name__ in _NAMES:
            raise ValueError(f"layers must be classes of layers with names of their own, got {cls!r}")
        known[cls.__name__] = cls
    header, data = _read(path)
    try:
        return _restore(header, data, known)
    except ModelFileError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError, RecursionError) as error:
        raise ModelFileError(f"{source_name(path)} is not a model file of this library: {error}") from error


def _describe(obj: Configured, known: tuple[type, ...], what: str) -> dict[str, Any]:
    if type(obj) not in known:
        raise ValueError(
            f"cannot save {what} {obj!r}: only {', '.join(cls.__name__ for cls in known)} have a place in the file"
        )
    config = obj.config()
    if callable(config.get("learning_rate")):
        config["learning_rate"] = _describe(config["learning_rate"], _SCHEDULES, "learning_rate")
    return {"class": type(obj).__name__, **config}


def _describe_network(net: Composite) -> list[dict[str, Any]]:
    described = []
    for layer in net.children:
        if type(layer) in COMPOSITES:
            described.append({"class": type(layer).__name__, "layers": _describe_network(cast(Composite, layer))})
        elif isinstance(layer, Composite):
            raise ValueError(f"cannot save {type(layer).__name__}, a subclass of a composite, such as Sequential")
        elif type(layer).__name__ in _NAMES and type(layer) not in LAYERS:
            raise ValueError(f"cannot save {layer!r}: {type(layer).__name__} is the name of a layer of the library")
        else:
            config = layer.config()
            if type(layer) not in LAYERS:
                _check_config(layer, config)
            described.append({"class": type(layer).__name__, **config})
    return described


def _check_config(layer: Layer, config: dict[str, Any]) -> None:
    """Refuse a layer that ``load`` could not make again."""
    import json

    try:
        made = _make(type(layer), json.loads(json.dumps(config)))
    except TypeError as error:
        raise ValueError(
            f"cannot save {layer!r}: its config() must be plain numbers and text, and make it anew: {error}"
        ) from error
    if made.params.layout != layer.params.layout:
        raise ValueError(f"cannot save {layer!r}: its config() makes a layer of other parameters, {made.params}")


def _describe_rng(rng: np.random.Generator) -> dict[str, Any]:
    state: Any = rng.bit_generator.state
    if state["bit_generator"] not in BIT_GENERATORS:
        raise ValueError(f"cannot save a generator on {state['bit_generator']}; known are {', '.join(BIT_GENERATORS)}")
    return _plain(state)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """Return a bit generator's state with lists for arrays and ints for NumPy's scalars."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _digest(architecture: str, tensors: Mapping[str, tuple[str, list[int], bytes]]) -> str:
    """Return the sha256 over architecture, names, dtypes, shapes and bytes, whatever their order in the file."""
    import hashlib
    import json

    digest = hashlib.sha256()
    index = [[name, dtype, list(shape)] for name, (dtype, shape, _) in sorted(tensors.items())]
    digest.update(json.dumps([architecture, index]).encode())
    for _, (_, _, raw) in sorted(tensors.items()):
        digest.update(raw)
    return digest.hexdigest()


def _write(path: Path | BinaryIO, architecture: str, tensors: Mapping[str, Array]) -> None:
    import json

    packed = {}
    for name, tensor in tensors.items():
        dtype = next(code for code, kind in DTYPES.items() if np.dtype(kind).itemsize == tensor.dtype.itemsize)
        packed[name] = (dtype, list(tensor.shape), tensor.astype(DTYPES[dtype]).tobytes())
    header: dict[str, Any] = {"__metadata__": {"nnprofile": architecture, "sha256": _digest(architecture, packed)}}
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


def _parse(text: str) -> Any:
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


def _read(path: Path | bytes | BinaryIO) -> tuple[dict[str, Any], bytes]:
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
        header = _parse(text.decode())
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


def _restore(
    header: dict[str, Any], data: bytes, known: Mapping[str, type[Layer]]
) -> tuple[Saved, dict[str, Any] | None, dict[str, Array]]:
    metadata = header.pop("__metadata__")
    _keys(metadata, {"nnprofile", "sha256"})
    packed = _unpack(header, data)
    if metadata["sha256"] != _digest(metadata["nnprofile"], packed):
        raise ValueError("its sha256 does not agree with its content")
    tensors = {name: np.frombuffer(raw, DTYPES[dtype]).reshape(shape) for name, (dtype, shape, raw) in packed.items()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity")

    architecture = _parse(metadata["nnprofile"])
    if type(architecture["format_version"]) is not int or architecture["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format version {architecture['format_version']!r}; this library reads {FORMAT_VERSION}")
    _keys(architecture, {"format_version", "dtype", "network"}, {"loss", "optimizer", "rng", "estimator"})
    if architecture["dtype"] not in ("float64", "float32"):
        raise ValueError(f"dtype {architecture['dtype']!r}")
    n_numbers = sum(tensor.size for tensor in tensors.values())
    if _n_numbers(architecture["network"], known) > n_numbers:
        raise ValueError(f"the architecture needs more numbers than the {n_numbers} in the file")
    net = _build_network(architecture["network"], known, architecture["dtype"])
    for name, shape in net.params.layout.items():
        _check_tensor(tensors, name, shape, net.params.dtype)
        net.params[name] = tensors.pop(name)

    loss = _build(architecture["loss"], LOSSES) if "loss" in architecture else None
    optimizer = None
    if "optimizer" in architecture:
        config = dict(architecture["optimizer"])
        n_steps = config.pop("n_steps")
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = _build(config["learning_rate"], _SCHEDULES)
        optimizer = _build(config, _OPTIMIZERS)
        optimizer.n_steps = n_steps
        if type(n_steps) is not int or not 0 <= n_steps < 1 << 63:
            raise ValueError(f"an optimizer after {n_steps!r} steps")
        if n_steps or any(name.startswith("optimizer.") for name in tensors):
            optimizer.prepare(net.params)
        for name, moment in optimizer.state.items():
            _check_tensor(tensors, f"optimizer.{name}", moment.shape, net.params.dtype)
            moment[:] = tensors.pop(f"optimizer.{name}")
    rng = _build_rng(architecture["rng"]) if "rng" in architecture else None
    curves = {}
    if "estimator" in architecture:
        names = [name for name in tensors if name.startswith("estimator.")]
        curves = {name.removeprefix("estimator."): tensors.pop(name) for name in names}
    if tensors:
        raise ValueError(f"tensors {sorted(tensors)} belong to nothing")
    return Saved(net, loss, optimizer, rng), architecture.get("estimator"), curves


def _keys(mapping: Any, required: set[str], optional: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    if not isinstance(mapping, dict) or not required <= mapping.keys() <= required | optional:
        raise ValueError(f"expected the keys {sorted(required)}, got {sorted(mapping)}")


def _unpack(header: dict[str, Any], data: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    """Return name -> (dtype, shape, bytes), after checking that the tensors fill the data without gap or overlap."""
    packed = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        _keys(entry, {"dtype", "shape", "data_offsets"})
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


def _check_tensor(tensors: Mapping[str, Array], name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, the architecture says {dtype} {shape}")


def _build(described: Mapping[str, Any], known: tuple[type, ...]) -> Any:
    config = dict(described)
    name = config.pop("class")
    for cls in known:
        if cls.__name__ == name:
            return _make(cls, config)
    raise ValueError(f"{name!r} is none of {', '.join(cls.__name__ for cls in known)}")


def _make(cls: type[Any], config: Mapping[str, Any]) -> Any:
    made = cls(**config)
    if made.config().keys() != config.keys():
        raise ValueError(f"{cls.__name__} is described by {sorted(made.config())}, got {sorted(config)}")
    return made


def _n_numbers(described: list[Mapping[str, Any]], known: Mapping[str, type[Layer]]) -> int:
    """Return how many numbers the layers need, before any memory is asked for."""
    size, composites = 0, {cls.__name__ for cls in COMPOSITES}
    for entry in described:
        config = dict(entry)
        name = config.pop("class")
        if name in composites:
            size += _n_numbers(config["layers"], known)
        elif name in known:
            size += sum(map(prod, known[name].shapes(**config).values()))
    return size


def _build_network(described: list[Mapping[str, Any]], known: Mapping[str, type[Layer]], dtype: str) -> Sequential:
    return Sequential(_build_layers(described, known), rng=None, dtype=dtype)


def _build_layers(described: list[Mapping[str, Any]], known: Mapping[str, type[Layer]]) -> list[Layer]:
    composites = {cls.__name__: cls for cls in COMPOSITES}
    built: list[Layer] = []
    for entry in described:
        config = dict(entry)
        name = config.pop("class")
        if name in composites:
            _keys(config, {"layers"})
            inner = _build_layers(config["layers"], known)
            if name == "Residual" and len(inner) != 1:
                raise ValueError(f"Residual holds one layer, got {len(inner)}")
            if name == "Sequential":
                built.append(Sequential(inner, rng=None))
            else:
                built.append(Residual(inner[0]) if name == "Residual" else composites[name](inner))
        elif name in known:
            built.append(_make(known[name], config))
        else:
            raise ValueError(f"layer class {name!r} is not known; if it is yours, load(path, layers=[{name}])")
    return built


def _build_rng(described: Mapping[str, Any]) -> np.random.Generator:
    name = described["bit_generator"]
    if name not in BIT_GENERATORS:
        raise ValueError(f"bit generator {name!r}")
    bit_generator = getattr(np.random, name)(0)
    state = bit_generator.state
    if _shape_of(described) != _shape_of(_plain(state)):
        raise ValueError(f"the state of a {name} has another form")
    _check_state(described)
    if name.startswith("PCG64") and described["state"]["inc"] % 2 == 0:
        raise ValueError(f"a {name}'s inc is odd, got {described['state']['inc']}")
    bit_generator.state = _with_arrays(described, state)
    return np.random.Generator(bit_generator)


def _with_arrays(value: Any, like: Any) -> Any:
    """Return what ``_plain`` was made from: lists become arrays again, of the type of those in ``like``."""
    if isinstance(like, Mapping):
        return {key: _with_arrays(value[key], item) for key, item in like.items()}
    return np.asarray(value, like.dtype) if isinstance(like, np.ndarray) else value


def _check_state(state: Mapping[str, Any]) -> None:
    """Refuse positions outside their buffers, which NumPy takes and later reads at."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            _check_state(value)
        elif isinstance(value, int) and not 0 <= value <= _LIMITS.get(name, 1 << 128):
            raise ValueError(f"a generator's {name} is {value}")


def _shape_of(value: Any) -> Any:
    """Return nested keys and lengths, with types for leaves: the form of a state."""
    if isinstance(value, Mapping):
        return {key: _shape_of(item) for key, item in value.items()}
    return len(value) if isinstance(value, list) else type(value).__name__
