"""Files: exact round trips, strict reading, atomic writing, and the other reader of the same layout."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnprofile as nn
from nnprofile import modelfile
from nnprofile.safetensors import digest_of

from .files import write as written
from .layer_examples import BETWEEN, layers

X = np.random.default_rng(1).normal(size=(30, 2))
Y = (X[:, 0] > 0).astype(float)


def parts(dtype: Any = np.float64) -> tuple[nn.Sequential, nn.Loss, nn.Optimizer, np.random.Generator]:
    rng = np.random.default_rng(0)
    inner = nn.Sequential([nn.Dense(3, 2), nn.ReLU()], rng=None)
    net = nn.Sequential([nn.Dense(2, 3), nn.Tanh(), inner, nn.Dropout(0.1), nn.Dense(2, 1)], rng=rng, dtype=dtype)
    return net, nn.SigmoidCrossEntropy(), nn.Adam(nn.CosineDecay(0.05, n_steps=100, warmup=2), weight_decay=0.01), rng


def train(net: nn.Sequential, loss: nn.Loss, optimizer: nn.Optimizer, rng: np.random.Generator) -> None:
    nn.fit(net, loss, optimizer, X, Y, n_epochs=2, batch_size=8, rng=rng)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "make", [None, lambda: nn.SGD(0.1), lambda: nn.SGD(nn.StepDecay(0.1, every=3), momentum=0.9, nesterov=True)]
)
def test_resumed_training_equals_training_never_interrupted(tmp_path: Path, dtype: Any, make: Any) -> None:
    net, loss, optimizer, rng = parts(dtype)
    optimizer = make() if make else optimizer
    train(net, loss, optimizer, rng)
    nn.save(net, tmp_path / "a", loss=loss, optimizer=optimizer, rng=rng)
    saved = nn.load(tmp_path / "a")
    assert saved.loss is not None and saved.optimizer is not None and saved.rng is not None
    assert repr(saved[:3]) == repr((net, loss, optimizer)) and saved.net.params.dtype == dtype
    train(net, loss, optimizer, rng)
    train(saved.net, saved.loss, saved.optimizer, saved.rng)
    assert saved.net.params.vector.tobytes() == net.params.vector.tobytes()
    for name, moment in optimizer.state.items():
        assert saved.optimizer.state[name].tobytes() == moment.tobytes()
    assert saved.optimizer.n_steps == optimizer.n_steps
    nn.save(net, tmp_path / "a", loss=loss, optimizer=optimizer, rng=rng)
    nn.save(saved.net, tmp_path / "b", loss=saved.loss, optimizer=saved.optimizer, rng=saved.rng)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_network_alone(tmp_path: Path) -> None:
    net = parts()[0]
    nn.save(net, tmp_path / "a")
    saved = nn.load(str(tmp_path / "a"))
    assert saved[1:] == (None, None, None)
    np.testing.assert_array_equal(saved.net.predict(X), net.predict(X))
    nn.save(nn.Sequential([nn.ReLU()], rng=None), tmp_path / "b")  # nothing to keep but the architecture
    assert repr(nn.load(tmp_path / "b").net) == "Sequential([ReLU()])"
    nn.save(net, tmp_path / "c", optimizer=nn.Adam())  # an optimizer that has not stepped
    assert nn.load(tmp_path / "c").optimizer.state == {}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_bit_generator(tmp_path: Path, name: str) -> None:
    rng = np.random.Generator(getattr(np.random, name)(3))
    rng.random(7, dtype=np.float32)  # leaves half a word in the buffer
    nn.save(parts()[0], tmp_path / "a", rng=rng)
    saved = nn.load(tmp_path / "a").rng
    assert saved is not None
    assert saved.random(5, dtype=np.float32).tolist() == rng.random(5, dtype=np.float32).tolist()
    assert saved.integers(1 << 60, size=20).tolist() == rng.integers(1 << 60, size=20).tolist()


@pytest.mark.parametrize("loss", [nn.Huber(0.3), *(cls() for cls in nn.losses.LOSSES)], ids=repr)
def test_every_layer_and_loss(tmp_path: Path, loss: nn.Loss) -> None:
    net = nn.Sequential([*layers(BETWEEN), nn.Exp(), nn.Dense(3, 2)], rng=np.random.default_rng(0))
    nn.save(net, tmp_path / "a", loss=loss)
    saved = nn.load(tmp_path / "a")
    assert repr(saved.net) == repr(net) and repr(saved.loss) == repr(loss)


@pytest.mark.parametrize(("name", "key"), [("Philox", "buffer_pos"), ("MT19937", "pos")])
@pytest.mark.parametrize("value", [-1, -(10**8), 10**8])
def test_positions_outside_a_generators_buffer(tmp_path: Path, name: str, key: str, value: int) -> None:
    nn.save(parts()[0], tmp_path / "a", rng=np.random.Generator(getattr(np.random, name)(3)))
    rewrite(
        tmp_path / "a",
        lambda h, a, d: a["rng"].update({key: value}) if key in a["rng"] else a["rng"]["state"].update({key: value}),
    )
    with pytest.raises(nn.ModelFileError, match=f"{key} is {value}"):
        nn.load(tmp_path / "a")


class Tanh(nn.Layer):
    """A layer of one's own with a name of the library's."""


class Forgetful(nn.Tanh):
    """A layer of one's own that does not say what it was made of."""

    def __init__(self, gain: float) -> None:
        self.gain = gain


class Mine(nn.Tanh):
    """A layer of one's own."""

    config_names = ("gain",)

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain


def test_layers_of_ones_own(tmp_path: Path) -> None:
    nn.save(nn.Sequential([nn.Dense(2, 2), Mine(2.0)], rng=np.random.default_rng(0)), tmp_path / "a")
    with pytest.raises(
        nn.ModelFileError, match=r"layer class 'Mine' is not known; if it is yours, load\(path, layers=\[Mine\]\)"
    ):
        nn.load(tmp_path / "a")
    for wrong in (Mine(1.0), [nn.Tanh], ["Mine"], [Mine, Mine]):
        with pytest.raises(ValueError, match="layers must be classes of layers") as error:
            nn.load(tmp_path / "a", layers=wrong)  # type: ignore[arg-type]
        assert not isinstance(error.value, nn.ModelFileError)
    layer = nn.load(tmp_path / "a", layers=[Mine]).net.layers[1]
    assert isinstance(layer, Mine) and layer.gain == 2.0


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    net, loss, optimizer, _ = parts()
    path = tmp_path / "a"
    nn.save(net, path)
    before = path.read_bytes()

    class Odd(nn.HalfSquaredError):
        pass

    with pytest.raises(ValueError, match="cannot save loss Odd"):
        nn.save(net, path, loss=Odd())
    with pytest.raises(ValueError, match="cannot save learning_rate"):
        nn.save(net, path, optimizer=nn.SGD(lambda step: 0.1))
    with pytest.raises(ValueError, match="must be plain numbers and text"):
        nn.save(nn.Sequential([Mine(np.ones(2))], rng=None), path)  # type: ignore[arg-type]
    train(net, loss, optimizer, np.random.default_rng(0))
    with pytest.raises(ValueError, match="this Adam has stepped"):
        nn.save(nn.Sequential([nn.Dense(2, 1)], rng=np.random.default_rng(0)), path, optimizer=optimizer)
    net.params["0.b"][1] = np.inf
    with pytest.raises(ValueError, match=r"0\.b holds NaN or infinity"):
        nn.save(net, path)
    with pytest.raises(ValueError, match="has no values|NaN"):
        nn.save(nn.Sequential([nn.Dense(2, 1)], rng=None), path)

    class Special(nn.Sequential):
        pass

    with pytest.raises(ValueError, match="Tanh is the name of a layer of the library"):
        nn.save(nn.Sequential([Tanh()], rng=None), path)
    complex_net = parts()[0]
    with pytest.raises(ValueError, match="float64 or float32, not complex128"):
        nn.save(complex_net.with_params(nn.Parameters(complex_net.params.layout, complex_net.params.vector + 0j)), path)
    double = nn.Adam()
    nn.fit(parts()[0], loss, double, X, Y, n_epochs=1, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="this Adam keeps m in float64, got float32"):
        nn.save(parts(np.float32)[0], path, optimizer=double)
    with pytest.raises(ValueError, match="make it anew"):
        nn.save(nn.Sequential([Forgetful(2)], rng=None), path)
    special = Special([nn.Dense(2, 1)], rng=np.random.default_rng(0))
    for whole in (special, nn.Sequential([special], rng=None)):
        with pytest.raises(ValueError, match="subclass"):
            nn.save(whole, path)
    with pytest.raises(ValueError, match="must be a Sequential"):
        nn.save(nn.Dense(2, 1), path)  # type: ignore[arg-type]
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small file with everything in it."""
    net = nn.Sequential([nn.Dense(1, 1), nn.ReLU()], rng=np.random.default_rng(0), dtype=np.float32)
    optimizer, rng = nn.SGD(0.5, momentum=0.5), np.random.default_rng(0)
    nn.fit(net, nn.Huber(), optimizer, X[:, :1], Y, n_epochs=1, rng=rng)
    nn.save(net, tmp_path / "a", loss=nn.Huber(), optimizer=optimizer, rng=rng)
    return tmp_path / "a"


def test_every_flipped_bit_is_found(small: Path) -> None:
    content = small.read_bytes()
    target = small.with_name("flipped")
    header_end = 8 + int.from_bytes(content[:8], "little")
    for i in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[i] ^= 1 << bit
            if i < header_end and chr(content[i]).isspace() and chr(changed[i]).isspace():
                continue  # white space of the header for other white space
            target.write_bytes(changed)
            with pytest.raises(nn.ModelFileError):
                nn.load(target)


def test_every_truncation_and_growth_is_found(small: Path) -> None:
    content = small.read_bytes()
    target = small.with_name("cut")
    for n in range(len(content)):
        target.write_bytes(content[:n])
        with pytest.raises(nn.ModelFileError):
            nn.load(target)
    for more in (b"\0", b" ", b"\n", b"x" * 8, content):
        target.write_bytes(content + more)
        with pytest.raises(nn.ModelFileError):
            nn.load(target)


def rewrite(path: Path, change: Any, *, sign: bool = True) -> None:
    """Change the header or architecture of a file, and give it a valid digest again: an adversary, not an accident."""
    content = path.read_bytes()
    n = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + n]), content[8 + n :]
    architecture = json.loads(header["__metadata__"]["nnprofile"])
    data = change(header, architecture, data) or data
    if sign and "__metadata__" in header and "nnprofile" in header["__metadata__"]:
        text = json.dumps(architecture)
        packed = {
            name: (e["dtype"], e["shape"], data[e["data_offsets"][0] : e["data_offsets"][1]])
            for name, e in header.items() if name != "__metadata__"
        }  # fmt: skip
        header["__metadata__"] |= {"nnprofile": text, "sha256": digest_of(text, packed)}
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + data)


ADVERSARIES: dict[str, Any] = {
    "version": lambda h, a, d: a.update(format_version=2),
    "unknown key": lambda h, a, d: a.update(code="import os"),
    "metadata key": lambda h, a, d: h["__metadata__"].update(more="x"),
    "no metadata": lambda h, a, d: h.pop("__metadata__") and None,
    "class": lambda h, a, d: a["network"][0].update({"class": "os.system"}),
    "base class": lambda h, a, d: a["network"][1].update({"class": "Layer"}),
    "argument": lambda h, a, d: a["network"][1].update(x=1),
    "huge": lambda h, a, d: a["network"][0].update(in_features=10**9, out_features=10**9),
    "many": lambda h, a, d: a["network"].extend([{"class": "Dense", "in_features": 1, "out_features": 1}] * 9),
    "extra argument": lambda h, a, d: a["network"][0].update(initializer="os.system"),
    "float size": lambda h, a, d: a["network"][0].update(in_features=1.0),
    "negative": lambda h, a, d: a["network"][0].update(in_features=-1),
    "dtype": lambda h, a, d: a.update(dtype="float64"),
    "odd dtype": lambda h, a, d: a.update(dtype="object"),
    "no network": lambda h, a, d: a.update(network=[]),
    "network type": lambda h, a, d: a.update(network={"class": "Dense"}),
    "steps": lambda h, a, d: a["optimizer"].update(n_steps=-1),
    "no steps": lambda h, a, d: a["optimizer"].pop("n_steps") and None,
    "fraction of a step": lambda h, a, d: a["optimizer"].update(n_steps=0.5),
    "loss": lambda h, a, d: a["loss"].update({"class": "SGD"}),
    "schedule": lambda h, a, d: a["optimizer"].update(learning_rate={"class": "Adam"}),
    "generator": lambda h, a, d: a["rng"].update(bit_generator="Generator"),
    "state": lambda h, a, d: a["rng"].update(state={"state": 1}),
    "negative state": lambda h, a, d: a["rng"]["state"].update(state=-1),
    "even inc": lambda h, a, d: a["rng"]["state"].update(inc=0),
    "not a flag": lambda h, a, d: a["rng"].update(has_uint32=7),
    "steps are true": lambda h, a, d: a["optimizer"].update(n_steps=True),
    "endless steps": lambda h, a, d: a["optimizer"].update(n_steps=10**400),
    "version is true": lambda h, a, d: a.update(format_version=True),
    "huge state": lambda h, a, d: a["rng"]["state"].update(state=2**200),
    "no moments": lambda h, a, d: a["optimizer"].update(momentum=0.0),
    "tensor dtype": lambda h, a, d: h["0.W"].update(dtype="I32"),
    "tensor shape": lambda h, a, d: h["0.W"].update(shape=[1]),
    "huge shape": lambda h, a, d: h["0.W"].update(shape=[1 << 62, 1 << 62]),
    "bool shape": lambda h, a, d: h["0.W"].update(shape=[True, True]),
    "overlap": lambda h, a, d: h["0.b"].update(data_offsets=[0, 4]),
    "three offsets": lambda h, a, d: h["0.b"].update(data_offsets=[4, 8, 8]),
    "tensor key": lambda h, a, d: h["0.b"].update(more=1),
    "stranger": lambda h, a, d: h.update({"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
    "nan": lambda h, a, d: b"\xff" * len(d),
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_adversaries_with_a_validdigest_of(small: Path, name: str) -> None:
    rewrite(small, lambda h, a, d: None)
    nn.load(small)  # the rewriting itself does no harm
    rewrite(small, ADVERSARIES[name])
    with pytest.raises(nn.ModelFileError):
        nn.load(small)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"null", b"{", b"[" * 100_000, b'{"a":{},"a":{}}', b'{"__metadata__":{"nnprofile":"{}","sha256":"\\ud800"}}',
     b'{"__metadata__":{"nnprofile":NaN}}', b'{"x":{"data_offsets":[0,1e999]}}', b"9" * 5000, b"\xff\xfe", b'{"__metadata__":1}'],
)  # fmt: skip
def test_headers_that_are_not_ours(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(nn.ModelFileError, match="is not a model file of this library"):
        nn.load(tmp_path / "a")
    (tmp_path / "a").write_bytes((10**15).to_bytes(8, "little") + header)
    with pytest.raises(nn.ModelFileError, match="header of 1000000000000000 bytes"):
        nn.load(tmp_path / "a")


def test_missing_files_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nn.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"no.folder'$"):
        nn.save(parts()[0], tmp_path / "no" / "folder")


def test_a_failed_write_leaves_the_old_file(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = small.read_bytes()
    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, broken, lambda *_: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(OSError, match="disk full"):
                nn.save(parts()[0], small)
        assert small.read_bytes() == before and os.listdir(small.parent) == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="permissions and links as POSIX has them")
def test_permissions_and_links(small: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(small.stat().st_mode) == 0o666 & ~mask
    small.chmod(0o600)
    nn.save(parts()[0], small)
    assert stat.S_IMODE(small.stat().st_mode) == 0o600
    with pytest.raises(IsADirectoryError):
        nn.save(parts()[0], small.parent)
    link = small.with_name("link")
    link.symlink_to(small)
    nn.save(parts()[0], link)
    assert link.is_symlink() and repr(nn.load(small).net) == repr(parts()[0])


def test_the_safetensors_package_reads_ours_and_we_read_what_it_rewrites(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    from safetensors.numpy import load_file, save_file

    net, loss, optimizer, rng = parts(np.float32)
    train(net, loss, optimizer, rng)
    nn.save(net, tmp_path / "a", loss=loss, optimizer=optimizer, rng=rng)
    tensors = load_file(tmp_path / "a")
    for name, value in net.params.items():
        np.testing.assert_array_equal(tensors[name], value)
    with safetensors.safe_open(tmp_path / "a", "numpy") as file:
        metadata = file.metadata()
    save_file(dict(reversed(tensors.items())), tmp_path / "b", metadata)
    saved = nn.load(tmp_path / "b")
    np.testing.assert_array_equal(saved.net.params.vector, net.params.vector)
    assert saved.rng is not None and saved.rng.random() == rng.random()
    assert (int.from_bytes((tmp_path / "a").read_bytes()[:8], "little") + 8) % 8 == 0


FILES = {
    "format_1.json": "073cab5ec77f21c4025f5660fcea8ba9eb02a39f2218ad41c84b0d4af2f3a2c9",
    "format_1_estimator.safetensors": "e84787750fd245823c30f7245b02d2cf84d926adba1e1b48971fda04b514b208",
    "format_1_float32.safetensors": "920c7f419a0d2cee5e9204007f15b827102e716a503fcf12725a045e261b3dfe",
    "format_1_float64.safetensors": "32af636a517b351a8bde2c5f680a76ac270f372282b8c54bacb2e7b2b6f28cab",
}


def test_kept_files_are_the_first_ones() -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in written.FOLDER.glob("format_*")}
    assert found == FILES


@pytest.mark.parametrize("version", range(1, modelfile.FORMAT_VERSION + 1))
def test_files_of_every_format_version_are_read_and_go_on(version: int) -> None:
    """They were written once, by ``tests/files/write.py``, and are never written again."""
    x, y, texts = written.rows()
    said = json.loads((written.FOLDER / f"format_{version}.json").read_text(encoding="utf-8"))
    for name, (built, loss, optimizer) in written.networks().items():
        saved = nn.load(written.FOLDER / f"format_{version}_{name}.safetensors")
        assert repr(saved.net) == repr(built) and repr(saved.loss) == repr(loss) and saved.net.params.dtype == name
        assert saved.optimizer is not None and saved.rng is not None and saved.loss is not None
        assert saved.optimizer.config().keys() == optimizer.config().keys() and saved.optimizer.n_steps == 9
        tolerance = 1e-12 if name == "float64" else 1e-5
        np.testing.assert_allclose(saved.net.predict(x), said[name], rtol=tolerance)
        y_true = y[:, : saved.net.out_features]
        run = (saved.net, saved.loss, saved.optimizer, x, y_true)
        nn.fit(*run, n_epochs=1, batch_size=4, rng=saved.rng, engine="numpy")
        np.testing.assert_allclose(saved.net.predict(x), said[f"{name}, one epoch later"], rtol=tolerance)
    model = nn.MLPClassifier.load(written.FOLDER / f"format_{version}_estimator.safetensors")
    assert model.class_weight == {"b": 2.0} and model.classes_.tolist() == ["b", "c", "ä"]
    np.testing.assert_allclose(model.predict_proba(x), said["estimator"], rtol=1e-12)
    np.testing.assert_allclose(
        model.partial_fit(x, texts).predict_proba(x), said["estimator, one epoch later"], rtol=1e-12
    )
