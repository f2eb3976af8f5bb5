"""Save a network to one safe file, with loss, optimizer and random state, and read it back bit for bit.

The layout is that of safetensors: 8 bytes of header length, a JSON header, raw little-endian numbers. The architecture is
one JSON string in its metadata. Names are looked up in a fixed registry; nothing is imported or executed from a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np

from . import optimizers
from .contract import Array, Configured, Layer, Loss, Optimizer, Spent, check_filled
from .layers import COMPOSITES, LAYERS, Residual, Sequential, Tied
from .layers.compose import Composite, every
from .losses import LOSSES
from .safetensors import DTYPES, ModelFileError, check_keys, digest_of, parse, read, source_name, unpack, write
from .validation import fitted_inside

if TYPE_CHECKING:
    Path = str | os.PathLike[str]

FORMAT_VERSION = 1
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_LIMITS = {"pos": 624, "buffer_pos": 4, "has_uint32": 1, "uinteger": (1 << 32) - 1}
_N_LAYERS = {Residual.__name__: 1, Tied.__name__: 2}  # that a constructor takes one by one; others take a list
_NAMES = {cls.__name__ for cls in (*COMPOSITES, *LAYERS)}
_OPTIMIZERS = (optimizers.SGD, optimizers.Adam)
_SCHEDULES = (optimizers.StepDecay, optimizers.ExponentialDecay, optimizers.CosineDecay)


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
    """Write what ``save`` writes, and the description of an estimator: plain numbers, texts, lists and mappings.

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
    if net.ledger:
        if rng is not None:
            raise ValueError(
                "the state of a generator may hold the noise of private training, and is not saved beside its result: save the "
                "network without it; of an estimator, save(model.network_, path)"
            )
        architecture["privacy"] = [list(spent) for spent in net.ledger]
    if rng is not None:
        architecture["rng"] = _describe_rng(rng)
    if estimator is not None:
        architecture["estimator"] = estimator
        tensors |= {f"estimator.{name}": np.asarray(curve, np.float64) for name, curve in (curves or {}).items()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity; such a network is not saved")
    described = json.dumps(architecture, separators=(",", ":"), allow_nan=False)
    write(path, described, tensors)


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
    """Read what ``save_with`` wrote: network and the like, the description of an estimator, if one was saved, and curves."""
    known: dict[str, type[Layer]] = {cls.__name__: cls for cls in LAYERS}
    for cls in layers if isinstance(layers, Iterable) else (layers,):
        if not (isinstance(cls, type) and issubclass(cls, Layer)) or cls.__name__ in known or cls.__name__ in _NAMES:
            raise ValueError(f"layers must be classes of layers with names of their own, got {cls!r}")
        known[cls.__name__] = cls
    header, data = read(path)
    try:
        return _restore(header, data, known)
    except ModelFileError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError, RecursionError) as error:
        raise ModelFileError(f"{source_name(path)} is not a model file of this library: {error}") from error


def _describe(obj: Configured, known: tuple[type, ...], what: str) -> dict[str, Any]:
    if type(obj) not in known:
        raise ValueError(f"cannot save {what} {obj!r}: only {', '.join(cls.__name__ for cls in known)} can be saved")
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


def _restore(
    header: dict[str, Any], data: bytes, known: Mapping[str, type[Layer]]
) -> tuple[Saved, dict[str, Any] | None, dict[str, Array]]:
    metadata = header.pop("__metadata__")
    check_keys(metadata, {"nnprofile", "sha256"})
    packed = unpack(header, data)
    if metadata["sha256"] != digest_of(metadata["nnprofile"], packed):
        raise ValueError("its sha256 does not agree with its content")
    tensors = {name: np.frombuffer(raw, DTYPES[dtype]).reshape(shape) for name, (dtype, shape, raw) in packed.items()}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity")

    architecture = parse(metadata["nnprofile"])
    if type(architecture["format_version"]) is not int or architecture["format_version"] != FORMAT_VERSION:
        raise ValueError(f"format version {architecture['format_version']!r}; this library reads {FORMAT_VERSION}")
    check_keys(
        architecture, {"format_version", "dtype", "network"}, {"loss", "optimizer", "rng", "estimator", "privacy"}
    )
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
    ledger = tuple(_build_spent(entry) for entry in architecture.get("privacy", ()))
    for layer in every(net):
        layer.ledger = ledger
    curves = {}
    if "estimator" in architecture:
        names = [name for name in tensors if name.startswith("estimator.")]
        curves = {name.removeprefix("estimator."): tensors.pop(name) for name in names}
    if tensors:
        raise ValueError(f"tensors {sorted(tensors)} belong to nothing")
    return Saved(net, loss, optimizer, rng), architecture.get("estimator"), curves


def _build_spent(entry: Any) -> Spent:
    noise, rate, n_steps = entry
    known = type(noise) is float and type(rate) is float and type(n_steps) is int
    if not (known and noise >= 0 and 0 <= rate <= 1 and n_steps >= 0):
        raise ValueError(f"{entry!r} is no run of private training")
    return Spent(noise, rate, n_steps)


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
    composites: dict[str, Any] = {cls.__name__: cls for cls in COMPOSITES}
    built: list[Layer] = []
    for entry in described:
        config = dict(entry)
        name = config.pop("class")
        if name in composites:
            check_keys(config, {"layers"})
            inner = _build_layers(config["layers"], known)
            if name in _N_LAYERS and len(inner) != _N_LAYERS[name]:
                raise ValueError(f"{name} holds {_N_LAYERS[name]} layers, got {len(inner)}")
            if name == "Sequential":
                built.append(Sequential(inner, rng=None))
            else:
                built.append(composites[name](*inner) if name in _N_LAYERS else composites[name](inner))
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
