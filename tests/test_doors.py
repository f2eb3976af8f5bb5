"""Each function that takes a network says what to call when it is given an estimator, and each layer what it must return."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnprofile as nn
from nnprofile import modelfile

sklearn = pytest.importorskip("sklearn")

from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import PolynomialFeatures, StandardScaler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
Y = (X[:, 0] > 0).astype(int)
LOSS = nn.SigmoidCrossEntropy()


def mlp() -> nn.MLPClassifier:
    return nn.MLPClassifier(2, max_iter=100, n_iter_no_change=1, tol=1e9, random_state=0)  # stops at once


MODELS: dict[str, Any] = {
    "model": mlp().fit(X, Y),
    "model[-1]": make_pipeline(StandardScaler(), mlp()).fit(X, Y),
    "model.best_estimator_": GridSearchCV(mlp(), {"alpha": [0, 1]}, cv=2).fit(X, Y),
    "model.best_estimator_[-1]": GridSearchCV(
        make_pipeline(StandardScaler(), mlp()), {"mlpclassifier__alpha": [0, 1]}, cv=2
    ).fit(X, Y),
}
DOORS: dict[str, tuple[Any, str]] = {
    "freeze": (lambda m: nn.freeze(m), "freeze({m}.network_, {m}.loss_function_)"),
    "save": (lambda m: nn.save(m, io.BytesIO()), "{m}.save(path)"),
    "fit": (
        lambda m: nn.fit(m, LOSS, nn.Adam(), X, Y, n_epochs=1, rng=np.random.default_rng(0)),
        "fit({m}.network_, ...)",
    ),
    "trace": (lambda m: nn.trace(m, LOSS, X[:2], Y[:2]), "pass {m}.network_ and {m}.loss_function_"),
    "check_network": (lambda m: nn.check_network(m, LOSS, X[:2], Y[:2]), "check {m}.network_ with {m}.loss_function_"),
}


@pytest.mark.parametrize("way", MODELS)
@pytest.mark.parametrize("door", DOORS)
def test_the_way_from_an_estimator_to_its_network(way: str, door: str) -> None:
    call, says = DOORS[door]
    with pytest.raises(ValueError, match=re.escape(says.format(m=way))):
        call(MODELS[way])
    found = eval(way, {"model": MODELS[way]})  # what the message names is there
    assert isinstance(found.network_, nn.Sequential) and isinstance(found.loss_function_, nn.Loss)


def test_the_way_from_a_pipeline_to_an_export() -> None:
    steps = make_pipeline(PolynomialFeatures(1, include_bias=False), mlp())
    search = GridSearchCV(steps, {"mlpclassifier__alpha": [0, 1]}, cv=2)
    models = {"model[-1]": steps.fit(X, Y), "model.best_estimator_[-1]": search.fit(X, Y)}
    for way, model in models.items():
        with pytest.raises(
            ValueError, match=re.escape(f"to_c({way}, path) writes its last step: apply the steps before")
        ):
            nn.to_c(model, io.BytesIO(), name="m")
        whole = way.removesuffix("[-1]")
        with pytest.raises(
            ValueError, match=re.escape(f"register_converters() and then skl2onnx.to_onnx({whole}, X[:1])")
        ):
            nn.to_onnx(model)
    for export in (nn.to_onnx, lambda m: nn.to_c(m, io.BytesIO(), name="m")):
        with pytest.raises(ValueError, match=r"export model\.best_estimator_$"):
            export(MODELS["model.best_estimator_"])
        with pytest.raises(ValueError, match=r"export model\.best_estimator_$"):  # scalers become part of the network
            export(MODELS["model.best_estimator_[-1]"])
    nn.to_c(MODELS["model.best_estimator_[-1]"].best_estimator_, io.BytesIO(), name="m")


def test_files_in_memory(tmp_path: Path) -> None:
    model = MODELS["model"]
    net, buffer = model.network_, io.BytesIO()
    nn.save(net, buffer, loss=LOSS, optimizer=nn.Adam(), rng=np.random.default_rng(1))
    path = tmp_path / "net"
    nn.save(net, path, loss=LOSS, optimizer=nn.Adam(), rng=np.random.default_rng(1))
    content = buffer.getvalue()
    assert content == path.read_bytes()
    for source in (content, bytearray(content), memoryview(content), io.BytesIO(content), path, str(path)):
        saved = nn.load(source)
        assert saved.net.params == net.params and saved.loss is not None and saved.rng is not None
    with path.open("rb", buffering=0) as raw:
        assert nn.load(raw).net.params == net.params
    buffer = io.BytesIO()
    model.save(buffer)
    for source in (buffer.getvalue(), io.BytesIO(buffer.getvalue())):
        np.testing.assert_array_equal(nn.MLPClassifier.load(source).predict_proba(X), model.predict_proba(X))
    out = io.BytesIO()
    nn.to_c(model, out, name="m")
    nn.to_c(model, tmp_path / "m.h")
    assert out.getvalue() == (tmp_path / "m.h").read_bytes()


class Trickle(io.RawIOBase):
    """A file that takes and gives a few bytes at a time, as a socket may."""

    def __init__(self, content: bytes = b"") -> None:
        self.content, self.at = bytearray(content), 0

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.content += bytes(piece[:7])
        return min(7, len(piece))

    def read(self, n: int = -1) -> bytes:
        piece = bytes(self.content[self.at : self.at + min(n, 5)])
        self.at += len(piece)
        return piece


def test_a_file_that_takes_a_few_bytes_at_a_time() -> None:
    net, file = MODELS["model"].network_, Trickle()
    nn.save(net, file)
    assert nn.load(bytes(file.content)).net.params == net.params
    assert nn.load(Trickle(bytes(file.content))).net.params == net.params


def test_what_is_no_file_is_blamed(tmp_path: Path) -> None:
    model = MODELS["model"]
    for bad in (None, 5, b"abc", [], 1.5):
        for save in (lambda p: nn.save(model.network_, p), model.save, lambda p: nn.to_c(model, p, name="m")):
            with pytest.raises(ValueError, match=r"^path must be a path or a binary file, such as io.BytesIO\(\), got"):
                save(bad)
    for bad in (None, 5, [], 1.5):
        for load in (nn.load, nn.MLPClassifier.load):
            with pytest.raises(ValueError, match="^path must be a path, bytes or a binary file, got"):
                load(bad)
    with pytest.raises(ValueError, match="StringIO is not a binary file; open it with mode 'wb'"):
        model.save(io.StringIO())
    nn.save(model.network_, tmp_path / "net")
    with (tmp_path / "net").open(encoding="latin-1") as text, pytest.raises(ValueError, match="open it with mode 'rb'"):
        nn.load(text)


def test_damaged_bytes_are_described_and_not_printed() -> None:
    buffer = io.BytesIO()
    nn.save(MODELS["model"].network_, buffer)
    content = buffer.getvalue()
    for bad in (content[:-1], content + b"1", content[:40], b"", b"\x01" * 50, content[:-1] + b"\xff"):
        for source in (bad, io.BytesIO(bad)):
            with pytest.raises(nn.ModelFileError, match="is not a model file of this library") as caught:
                nn.load(source)
            assert len(str(caught.value)) < 250
    with pytest.raises(nn.ModelFileError, match="holds no MLPClassifier: it holds no estimator"):
        nn.MLPClassifier.load(content)


class Full(io.RawIOBase):
    """A file that takes 3 bytes, and then no more, without waiting."""

    def __init__(self, then: int | None) -> None:
        self.n, self.then = 0, then

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int | None:
        self.n += 1
        return 3 if self.n == 1 else self.then


@pytest.mark.parametrize("then", [None, 0])
def test_a_file_that_takes_no_more(then: int | None) -> None:
    with pytest.raises(OSError, match="Full has taken 3 of "):
        nn.save(MODELS["model"].network_, Full(then))


def test_files_of_before_stay_readable() -> None:
    """Arguments that are refused now were in range once."""
    model = mlp().fit(X, Y)
    file = io.BytesIO()
    model.save(file)
    for name, value in (("learning_rate_init", 0), ("epsilon", 0), ("verbose", "x")):
        text = file.getvalue()
        old = _with(text, name, value)
        assert getattr(nn.MLPClassifier.load(old), name) == value


def _with(content: bytes, name: str, value: Any) -> bytes:
    """Return a file as if it had been saved with another argument."""
    model = nn.MLPClassifier.load(content)
    setattr(model, name, value)
    strict = nn.MLPClassifier._check_parameters
    try:
        nn.MLPClassifier._check_parameters = lambda self, strict=True: None  # type: ignore[method-assign]
        file = io.BytesIO()
        model.save(file)
    finally:
        nn.MLPClassifier._check_parameters = strict  # type: ignore[method-assign]
    return file.getvalue()


def test_labels_that_a_file_cannot_hold_are_refused_at_save() -> None:
    for dtype in ("M8[ns]", "M8[D]", "m8[s]"):
        model = mlp().fit(X, Y.astype(dtype))
        with pytest.raises(ValueError, match="the attribute classes_ cannot be saved: an array of"):
            model.save(io.BytesIO())


def test_other_wrappers_and_things_that_are_no_estimators() -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import BaggingClassifier
    from sklearn.feature_selection import SelectFromModel

    for wrapper, way in (
        (BaggingClassifier(mlp()), "model.estimator"),
        (CalibratedClassifierCV(mlp()), "model.estimator"),
        (SelectFromModel(mlp()).set_params(estimator=mlp()), "model.estimator"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"freeze({way}.network_, {way}.loss_function_)")):
            nn.freeze(wrapper)  # type: ignore[arg-type]
    trace = nn.trace(MODELS["model"].network_, LOSS, X[:2], Y[:2])
    for other in (trace, object(), {"steps": []}, nn.freeze):
        with pytest.raises(ValueError, match="net must be of type Layer, got .*[^)]$|net must be of type Layer"):
            nn.freeze(other)  # type: ignore[arg-type]


def test_a_refused_model_writes_nothing() -> None:
    model = MODELS["model"]
    net = nn.load(_bytes(model.network_)).net
    net.params.vector[0] = np.nan
    for save in (lambda file: nn.save(net, file), lambda file: nn.to_c(net, file, name="m")):
        file = io.BytesIO()
        with pytest.raises(ValueError, match="NaN|finite"):
            save(file)
        assert file.getvalue() == b""


def _bytes(net: nn.Sequential) -> bytes:
    file = io.BytesIO()
    modelfile.save(net, file)
    return file.getvalue()


class OnlyDx(nn.Layer):
    """A layer whose backward returns dx alone: of two rows, dx would unpack as if it were a pair."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.tanh(x), np.tanh(x)

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * (1 - cache * cache)


class PlainMapping(OnlyDx):
    """A layer whose gradients are a dict."""

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * (1 - cache * cache), {}


class Three(OnlyDx):
    """A layer that returns one thing too many."""

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * (1 - cache * cache), nn.Parameters({}), None


class NoParameters(OnlyDx):
    """A layer with a parameter for which it returns no gradient."""

    def __init__(self) -> None:
        self.params = nn.Parameters({"a": (1,)}, np.ones(1))

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * (1 - cache * cache), nn.Parameters({})


class NoDx(OnlyDx):
    """A layer that returns no dx."""

    def backward(self, dy: Any, cache: Any) -> Any:
        return None, nn.Parameters({})


class NumberForDx(OnlyDx):
    """A layer that returns a number for dx."""

    def backward(self, dy: Any, cache: Any) -> Any:
        return 3.0, nn.Parameters({})


@pytest.mark.parametrize("kind", [NoDx, NumberForDx])
def test_a_dx_that_is_no_array_is_named(kind: Any) -> None:
    net = nn.Sequential([nn.Dense(2, 2), kind(), nn.Dense(2, 1)], rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=rf"{kind.__name__}\(\)\.backward"):
        nn.fit(net, LOSS, nn.Adam(), X, Y, n_epochs=1, rng=np.random.default_rng(0))
    assert not nn.check_layer(kind(), X[:3]).ok and not nn.check_network(net, LOSS, X[:3], Y[:3]).ok


def test_a_bare_layer_that_forgets_its_cache_is_named_by_freeze() -> None:
    layer = OnlyY()
    layer.in_features = layer.out_features = 2  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"OnlyY\(\).forward must return \(y, cache\)"):
        nn.freeze(layer)(X[:2])


@pytest.mark.parametrize("kind", [OnlyDx, PlainMapping, Three])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_backward_must_return_dx_and_grads(kind: Any, n: int) -> None:
    net = nn.Sequential([nn.Dense(2, 2), kind(), nn.Dense(2, 1)], rng=np.random.default_rng(0))
    x, y = X[:n], Y[:n]
    says = rf"{kind.__name__}\(\).*(must return|; return) \(dx, grads\) with grads = Parameters\(\{{\}}\)"
    with pytest.raises(ValueError, match=says):
        nn.fit(net, LOSS, nn.Adam(), x, y, n_epochs=1, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=says):
        nn.trace(net, LOSS, x, y)
    report = nn.check_layer(kind(), x)
    assert not report.ok and re.search(says, report.errors[0].message)
    report = nn.check_network(net, LOSS, x, y)
    assert not report.ok and report.errors[0].layer == "1" and re.search(says, report.errors[0].message)
    assert not any("each layer is right by itself" in finding.message for finding in report.findings)


def test_a_gradient_that_is_missing_is_missed() -> None:
    report = nn.check_layer(NoParameters(), X[:3])
    assert not report.ok and report.errors[0].tensor == "a"


class OnlyY(OnlyDx):
    """A layer whose forward returns y alone."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.tanh(x)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_forward_must_return_y_and_cache(n: int) -> None:
    net = nn.Sequential([OnlyY(), nn.Dense(2, 1)], rng=np.random.default_rng(0))
    for call in (
        lambda: net.predict(X[:n]),
        lambda: net.forward(X[:n]),
        lambda: nn.trace(net, LOSS, X[:n], Y[:n]),
        lambda: nn.check_layer(OnlyY(), X[:n]),
        lambda: nn.fit(net, LOSS, nn.Adam(), X[:n], Y[:n], n_epochs=1, rng=np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match=r"OnlyY\(\).forward must return \(y, cache\), got"):
            call()


def test_a_network_needs_rng() -> None:
    with pytest.raises(TypeError, match=r"Sequential needs rng: pass rng=numpy.random.default_rng\(0\) .* or rng=None"):
        nn.Sequential([nn.Dense(2, 3)])
    with pytest.raises(
        ValueError, match=r"layers must be a sequence of layers, Sequential\(\[...\], rng=...\), got Dense"
    ):
        nn.Sequential(nn.Dense(2, 3), rng=None)  # type: ignore[arg-type]


def test_an_index_of_paths_may_be_a_number() -> None:
    trace = nn.trace(MODELS["model"].network_, LOSS, X[:2], Y[:2])
    assert trace.paths("b1", 0) == trace.paths("b1", (0,)) == trace.paths("b1", np.int64(0)) == trace.paths("b1", [0])
    for bad in (2, -1, "a", 0.0, None, True, (0, 0), ()):
        with pytest.raises(ValueError, match=r"b1 has shape \(2,\): its index is j, each from 0; got"):
            trace.paths("b1", bad)  # type: ignore[arg-type]
    for bad in (0, (0,), (0, 5), (0, 0.0)):
        with pytest.raises(ValueError, match=r"W1 has shape \(2, 2\): its index is i, j, each from 0; got"):
            trace.paths("W1", bad)  # type: ignore[arg-type]
