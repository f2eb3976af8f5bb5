"""What leaves Python says what the library says: ONNX graphs run by ONNX Runtime, headers compiled by a C compiler."""

from __future__ import annotations

import copy
import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile import MLPClassifier, MLPRegressor, to_c, to_onnx
from nnprofile.export.layers import NODES, ROW_FUNCTIONS, without_form
from nnprofile.functions import erfc

from .layer_examples import BETWEEN, SEQUENCES, layers

COMPILER = shutil.which("cc") or shutil.which("gcc")
CXX = shutil.which("c++") or shutil.which("g++")
HAS_ONNX = importlib.util.find_spec("onnx") is not None
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
FLAGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-std=c99", "-O2"]

LOSSES = [None, nn.MeanSquaredError(), nn.SigmoidCrossEntropy(), nn.SoftmaxCrossEntropy()]


@pytest.fixture(scope="module")
def ort() -> Any:
    pytest.importorskip("onnx")
    return pytest.importorskip("onnxruntime")


def run_onnx(ort: Any, model: Any, x: Any) -> list[Any]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"X": x} if not isinstance(x, dict) else x)  # type: ignore[no-any-return]


class Compiled:
    """A header's functions."""

    def __init__(self, header: Path, dtype: Any, folder: Path, *, classes: bool = False) -> None:
        name = header.stem
        T = "double" if dtype == np.float64 else "float"
        source = folder / f"{name}.c"
        source.write_text(
            f'#include "{header}"\n#include "{header}"\n'
            f"void score(const {T} *x, long n, {T} *y);\n"
            f"void score(const {T} *x, long n, {T} *y) {{ long i; for (i = 0; i < n; ++i) "
            f"{name}_score(x + i * {name.upper()}_N_FEATURES, y + i * {name.upper()}_N_OUTPUTS); }}\n"
            + (f"int place(const {T} *x);\nint place(const {T} *x) {{ return {name}_class(x); }}\n" if classes else "")
            + (f"extern const void *labels;\nconst void *labels = {name}_classes;\n" if classes else "")
        )
        # A name of its own for each: a library of a name that is loaded already would be taken for that one.
        library = folder / f"{name}-{hashlib.sha256(header.read_bytes()).hexdigest()}.so"
        command = [COMPILER or "cc", *FLAGS, "-shared", "-fPIC", str(source), "-o", str(library), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr
        self.library, self.dtype = ctypes.CDLL(str(library)), dtype

    def score(self, x: Any, n_outputs: int) -> Any:
        x = np.ascontiguousarray(x, self.dtype)
        y = np.full((len(x), n_outputs), np.nan, self.dtype)
        self.library.score(x.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(len(x)), y.ctypes.data_as(ctypes.c_void_p))
        return y

    def places(self, x: Any) -> list[int]:
        x = np.ascontiguousarray(x, self.dtype)
        return [self.library.place(row.ctypes.data_as(ctypes.c_void_p)) for row in x]


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Sequential, nn.Loss | None, Any]:
    """A network of any form, with a loss or without, and rows for it: some large, perhaps none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    widths = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    some = st.lists(st.sampled_from(BETWEEN), max_size=2)
    made = layers(draw(some), widths[0])
    for a, b in pairwise(widths):
        made += [nn.Dense(a, b), *layers(draw(some), b)]
    if draw(st.booleans()) and len(made) > 2:
        made[1:] = [nn.Sequential(made[1:], rng=None)]
    net = nn.Sequential(made, rng=rng, dtype=draw(st.sampled_from([np.float64, np.float32])))
    net.params.vector = net.params.vector + 0.3 * rng.normal(size=net.params.vector.size)
    x = rng.normal(size=(draw(st.integers(0, 5)), widths[0])) * draw(st.sampled_from([0.1, 1.0, 30.0]))
    return net, draw(st.sampled_from(LOSSES)), x.astype(net.params.dtype)


def prediction(net: nn.Sequential, loss: nn.Loss | None, x: Any) -> Any:
    y = net.predict(x)
    return y if loss is None else loss.link.forward(y)[0]


def agrees(y: Any, net: nn.Sequential, loss: nn.Loss | None, x: Any) -> None:
    """Float64 to 1e-12; float32 is at most four times as far from float64 as NumPy, where that is more than rounding."""
    said = prediction(net, loss, x)
    assert y.shape == said.shape and y.dtype == said.dtype == net.params.dtype
    if net.params.dtype == np.float64:
        np.testing.assert_allclose(y, said, rtol=1e-12, atol=1e-12)
        return
    twin = nn.Sequential([copy.deepcopy(net)], rng=None, dtype=np.float64)
    exact = prediction(twin, loss, x.astype(np.float64))
    size = max(1.0, np.abs(exact).max(initial=0.0))
    noise = np.abs(said - exact).max(initial=0.0)
    assert np.abs(y - exact).max(initial=0.0) <= 4 * noise + 4e-7 * size * (1 + np.abs(x).max(initial=0.0))


@given(networks())
def test_onnx_agrees_with_the_library(ort: Any, case: tuple[nn.Sequential, nn.Loss | None, Any]) -> None:
    net, loss, x = case
    agrees(run_onnx(ort, to_onnx(net, loss=loss), x)[0], net, loss, x)


@needs_compiler
@settings(max_examples=40)
@given(networks())
def test_c_agrees_with_the_library(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[nn.Sequential, nn.Loss | None, Any]
) -> None:
    net, loss, x = case
    folder = tmp_path_factory.mktemp("c")
    to_c(net, folder / "model.h", loss=loss)
    agrees(Compiled(folder / "model.h", net.params.dtype, folder).score(x, net.out_features or 0), net, loss, x)


def test_small_probabilities_keep_their_digits(ort: Any, tmp_path: Path) -> None:
    """ONNX's own Sigmoid is 0 where one in a million million is right, and orders no rare events."""
    for dtype, rtol in ((np.float64, 1e-14), (np.float32, 1e-6)):
        net = nn.Sequential([nn.Dense(1, 1)], rng=None, dtype=dtype)
        net.params.vector = [1.0, 0.0]
        x = np.array([[-80.0], [-30.0], [-5.0], [0.0], [5.0], [30.0], [1000.0], [-1000.0]], dtype)
        said = prediction(net, nn.SigmoidCrossEntropy(), x)
        y = run_onnx(ort, to_onnx(net, loss=nn.SigmoidCrossEntropy()), x)[0]
        np.testing.assert_allclose(y, said, rtol=rtol)
        if COMPILER:
            to_c(net, tmp_path / "p.h", loss=nn.SigmoidCrossEntropy())
            np.testing.assert_allclose(Compiled(tmp_path / "p.h", dtype, tmp_path).score(x, 1), said, rtol=rtol)


# Estimators.

X = np.random.default_rng(0).normal(size=(60, 3))
PLACES = np.where(X[:, 0] > 0.3, 2, np.where(X[:, 1] > 0, 1, 0))
TEXTS = np.array(["low", 'mid"?\\/', "höch\n"])
MODELS = {
    "two texts": (MLPClassifier, TEXTS[np.minimum(PLACES, 1)], {}),
    "three texts": (MLPClassifier, TEXTS[PLACES], {}),
    "two numbers": (MLPClassifier, PLACES.clip(0, 1) * 10 - 3, {}),
    "three numbers": (MLPClassifier, PLACES * 7 - 7, {}),
    "whole floats": (MLPClassifier, PLACES * 2.0, {}),
    "bools": (MLPClassifier, PLACES > 0, {}),
    "objects": (MLPClassifier, TEXTS[PLACES].astype(object), {}),
    "objects that are numbers": (MLPClassifier, PLACES.astype(object), {}),
    "one class": (MLPClassifier, np.full(60, 4), {}),
    "labels": (MLPClassifier, (X[:, :2] > 0).astype(int), {}),
    "loss on probabilities": (MLPClassifier, PLACES, {"loss": nn.MeanSquaredError()}),
    "two by a loss on probabilities": (MLPClassifier, PLACES > 0, {"loss": nn.BinaryCrossEntropy()}),
    "dropout": (MLPClassifier, PLACES, {"dropout": 0.3, "activation": "logistic", "solver": "adam"}),
    "number": (MLPRegressor, X[:, 0] ** 2, {"activation": "tanh"}),
    "numbers": (MLPRegressor, X[:, :2] ** 2, {"activation": "identity"}),
    "counts": (MLPRegressor, PLACES, {"loss": "poisson"}),
}


def fitted(name: str, dtype: Any = np.float64) -> Any:
    kind, y, more = MODELS[name]
    settings = {"hidden_layer_sizes": (5, 4), "solver": "lbfgs", "max_iter": 15, "random_state": 0} | more
    return kind(**settings).fit(X.astype(dtype), y)


pytestmark = pytest.mark.filterwarnings("ignore:lbfgs failed to converge", "ignore:Stochastic Optimizer")
dtypes = pytest.mark.parametrize("dtype", [np.float64, np.float32])


@dtypes
@pytest.mark.parametrize("name", MODELS)
def test_estimators_as_onnx(name: str, dtype: Any, ort: Any, tmp_path: Path) -> None:
    model, tolerance = fitted(name, dtype), 1e-12 if dtype == np.float64 else 1e-6
    proto = to_onnx(model, tmp_path / "m.onnx")
    found = run_onnx(ort, (tmp_path / "m.onnx").read_bytes(), X.astype(dtype))
    names = [output.name for output in proto.graph.output]
    if isinstance(model, MLPRegressor):
        assert names == ["variable"]
        said = model.predict(X.astype(dtype)).reshape(60, -1)
        np.testing.assert_allclose(found[0], said, rtol=10 * tolerance, atol=10 * tolerance)
        return
    label, probabilities = found
    assert names == ["label", "probabilities"] and probabilities.dtype == dtype
    said = model.predict_proba(X.astype(dtype))
    assert probabilities.shape == said.shape and label.shape == model.predict(X).shape
    np.testing.assert_allclose(probabilities, said, rtol=tolerance, atol=tolerance)
    if label.ndim == 2:
        np.testing.assert_array_equal(label, said > 0.5)
    else:
        assert label.tolist() == model.predict(X.astype(dtype)).tolist()
        assert label.dtype in (np.int64, object)
    if "loss" not in name:
        (logits,) = run_onnx(ort, to_onnx(model, outputs="logits"), X.astype(dtype))
        np.testing.assert_allclose(logits, model.network_.predict(X.astype(dtype)), rtol=0, atol=20 * tolerance)
    empty = run_onnx(ort, proto, X[:0].astype(dtype))
    assert [len(part) for part in empty] == [0, 0]


@needs_compiler
@dtypes
@pytest.mark.parametrize("name", MODELS)
def test_estimators_as_c(name: str, dtype: Any, tmp_path: Path) -> None:
    model, tolerance = fitted(name, dtype), 1e-12 if dtype == np.float64 else 1e-6
    to_c(model, tmp_path / "shop_1.h")
    x = X.astype(dtype)
    has_classes = isinstance(model, MLPClassifier) and model.predict(X).ndim == 1
    compiled = Compiled(tmp_path / "shop_1.h", dtype, tmp_path, classes=has_classes)
    said = model.predict_proba(x) if isinstance(model, MLPClassifier) else model.predict(x).reshape(60, -1)
    y = compiled.score(x, said.shape[1])
    np.testing.assert_allclose(y, said, rtol=10 * tolerance, atol=10 * tolerance)
    if not has_classes:
        assert "_class(" not in (tmp_path / "shop_1.h").read_text()
        return
    n, text = max(2, len(model.classes_)), isinstance(model.classes_.tolist()[0], str)
    kind = ctypes.c_char_p if text else ctypes.c_long
    labels = ctypes.cast(ctypes.c_void_p.in_dll(compiled.library, "labels"), ctypes.POINTER(kind * n)).contents
    known = [label.decode() if isinstance(label, bytes) else label for label in labels]
    assert [known[k] for k in compiled.places(x)] == model.predict(x).tolist()


@needs_compiler
@pytest.mark.skipif(CXX is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("standard", ["c++98", "c++20"])
def test_the_header_is_cpp_too(standard: str, tmp_path: Path) -> None:
    to_c(fitted("three texts"), tmp_path / "m.h")
    (tmp_path / "m.cpp").write_text(
        '#include "m.h"\nint main() { double x[M_N_FEATURES] = {1, 2, 3}; return m_class(x) > 2; }\n'
    )
    command = [CXX or "c++", "-Wall", "-Wextra", "-Werror", f"-std={standard}", "m.cpp", "-o", "m"]
    subprocess.run(command, check=True, cwd=tmp_path)
    subprocess.run([tmp_path / "m"], check=True)


@needs_compiler
def test_c_calls_nothing_but_exp_and_tanh(tmp_path: Path) -> None:
    """No allocation, no printing, nothing that could fail: the object file asks the linker for mathematics only."""
    net = nn.Sequential([nn.Dense(3, 4), nn.Tanh(), nn.Dense(4, 3)], rng=np.random.default_rng(0))
    to_c(net, tmp_path / "m.h", loss=nn.SoftmaxCrossEntropy())
    (tmp_path / "m.c").write_text(
        '#include "m.h"\nvoid f(const double *x, double *y);\nvoid f(const double *x, double *y) { m_score(x, y); }\n'
    )
    subprocess.run([COMPILER or "cc", *FLAGS, "-c", "m.c"], check=True, cwd=tmp_path)
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("needs nm")
    undefined = subprocess.run([nm, "-u", "m.o"], check=True, cwd=tmp_path, capture_output=True, text=True).stdout
    assert set(undefined.split()) - {"U"} == {"exp", "tanh"}


def test_a_network_in_another_dtype(ort: Any, tmp_path: Path) -> None:
    model = fitted("three numbers")
    _, probabilities = run_onnx(ort, to_onnx(model, dtype="float32"), X.astype(np.float32))
    assert probabilities.dtype == np.float32 and np.abs(probabilities - model.predict_proba(X)).max() < 1e-5
    to_c(model, tmp_path / "m.h", dtype=np.float32)
    text = (tmp_path / "m.h").read_text()
    assert "double" not in text and "expf(" in text
    for wrong in (np.float16, int, "text"):
        with pytest.raises(ValueError, match="dtype must be float64 or float32"):
            to_onnx(model, dtype=wrong)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-44, 1e-50, 5e-324])
def test_rows_without_variance_in_float32(epsilon: float, ort: Any, tmp_path: Path) -> None:
    net, x = net_of(nn.LayerNorm(3, epsilon)), np.full((2, 3), 7, np.float32)
    outputs = [net.predict(x), *run_onnx(ort, to_onnx(net, dtype="float32"), x)]
    if COMPILER:
        to_c(net, tmp_path / "flat.h", dtype="float32")
        outputs.append(Compiled(tmp_path / "flat.h", np.float32, tmp_path).score(x, 3))
    assert not np.any(outputs)


@dtypes
@pytest.mark.parametrize("name", [name for name in MODELS if name != "one class" and "objects" not in name])
def test_skl2onnx_pipelines(name: str, dtype: Any, ort: Any) -> None:
    skl2onnx, pipeline = pytest.importorskip("skl2onnx"), pytest.importorskip("sklearn.pipeline")
    from sklearn.preprocessing import StandardScaler

    nn.export.register_converters()
    nn.export.register_converters()  # again changes nothing
    kind, y, more = MODELS[name]
    settings = {"hidden_layer_sizes": (5,), "solver": "lbfgs", "max_iter": 15, "random_state": 0} | more
    pipe = pipeline.make_pipeline(StandardScaler(), kind(**settings)).fit(X.astype(dtype), y)
    x, tolerance = X.astype(dtype), 1e-12 if dtype == np.float64 else 2e-6
    options = {id(pipe[-1]): {"zipmap": False}} if kind is MLPClassifier else None
    found = run_onnx(ort, skl2onnx.to_onnx(pipe, x[:1], options=options), x)
    if kind is MLPRegressor:
        said = pipe.predict(x).reshape(60, -1)
        np.testing.assert_allclose(found[0], said, rtol=10 * tolerance, atol=10 * tolerance)
        return
    said = pipe.predict_proba(x)
    np.testing.assert_allclose(found[1], said, rtol=tolerance, atol=tolerance)
    assert found[0].tolist() == pipe.predict(x).tolist() and found[1].dtype == dtype
    if found[0].ndim == 1 and dtype == np.float32:  # ZipMap takes no other
        (_, maps) = run_onnx(ort, skl2onnx.to_onnx(pipe, x[:1]), x)
        assert list(maps[0]) == pipe.classes_.tolist()
        np.testing.assert_allclose([list(row.values()) for row in maps], said, atol=tolerance)
        places, _ = run_onnx(
            ort, skl2onnx.to_onnx(pipe, x[:1], options={id(pipe[-1]): {"nocl": True, "zipmap": False}}), x
        )
        assert pipe.classes_[places].tolist() == pipe.predict(x).tolist()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_ensembles_by_skl2onnx(n_classes: int, ort: Any) -> None:
    """Those that ask an estimator for its probabilities ask ours for the same."""
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import BaggingClassifier, StackingClassifier
    from sklearn.model_selection import GridSearchCV

    nn.export.register_converters()
    x, y = X.astype(np.float32), PLACES.clip(0, n_classes - 1)
    base = MLPClassifier(4, solver="lbfgs", max_iter=15, random_state=0)
    for model in (
        CalibratedClassifierCV(base, cv=2),
        BaggingClassifier(base, n_estimators=2, random_state=0),
        StackingClassifier([("a", base)], final_estimator=base, cv=2),
        GridSearchCV(base, {"alpha": [0.1, 1.0]}, cv=2),
    ):
        model.fit(x, y)
        label, probabilities = run_onnx(ort, skl2onnx.to_onnx(model, x[:1], options={"zipmap": False}), x)
        np.testing.assert_allclose(probabilities, model.predict_proba(x), rtol=0, atol=2e-6)
        np.testing.assert_array_equal(label, model.predict(x))


# What can go wrong.


class Squares(nn.Layer):
    """A layer of one's own."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return x * x, x

    def backward(self, dy: Any, cache: Any) -> Any:
        return 2 * dy * cache, nn.Parameters({})


def net_of(*layers: nn.Layer) -> nn.Sequential:
    return nn.Sequential(layers, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("model", "more", "says"),
    [
        (3, {}, "only a network, an MLPClassifier or an MLPRegressor can be exported, got 3"),
        (net_of(nn.Dense(1, 1), Squares()), {}, "Squares.* can't be exported; .*Dense, Dropout, .*Exp, .* can"),
        (net_of(nn.ReLU()), {}, "no layer says how many features x has"),
        (nn.Sequential([nn.Dense(1, 1)], rng=None), {}, "has no values"),
        (net_of(nn.Dense(1, 1)), {"loss": "mse"}, "loss must be of type Loss"),
        (MLPClassifier(), {}, "not fitted"),
    ],
)
def test_what_cannot_be_exported(model: Any, more: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "m.h"
    for export in (to_c, to_onnx):
        path.write_text("as it was")
        with pytest.raises(ValueError, match=says):
            export(model, path, **more)
        assert path.read_text() == "as it was" and list(tmp_path.iterdir()) == [path]


def test_what_else_cannot_be_exported(tmp_path: Path) -> None:
    model = fitted("three numbers")
    with pytest.raises(ValueError, match="loss is for networks"):
        to_c(model, tmp_path / "m.h", loss=nn.MeanSquaredError())
    odd = MLPClassifier(3, max_iter=1).fit(X, PLACES * 1e300)
    with pytest.raises(ValueError, match="labels must be texts or whole numbers of 64 bits"):
        to_c(odd, tmp_path / "m.h")
    large = net_of(nn.Dense(1, 1))
    large.params.vector = [1e200, 0]
    with pytest.raises(ValueError, match="without a finite value in float32"):
        to_c(large, tmp_path / "m.h", dtype=np.float32)
    for name in ("", "1st", "a-b", "schön", "_m", "m.n"):
        with pytest.raises(ValueError, match="is not a valid C identifier"):
            to_c(model, tmp_path / "m.h", name=name)
    with pytest.raises(ValueError, match=r"'my-model' is not a valid C identifier; pass name="):
        to_c(model, tmp_path / "my-model.h")
    assert list(tmp_path.iterdir()) == []
    to_c(model, tmp_path / "my-model.h", name="mine")
    assert "mine_score(" in (tmp_path / "my-model.h").read_text()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is no regular file"):
        to_c(model, tmp_path / "pipe", name="pipe")
    with pytest.raises(OSError, match="no/such"):
        to_c(model, "no/such/folder.h")


def test_a_softmax_of_one_has_one_label(ort: Any) -> None:
    for net, loss in ((net_of(nn.Dense(2, 1), nn.Softmax()), None), (net_of(nn.Dense(2, 1)), nn.SoftmaxCrossEntropy())):
        label, p = run_onnx(ort, to_onnx(net, loss=loss, outputs=["label", "probabilities"]), X[:, :2])
        assert label.tolist() == [0] * 60 and p.tolist() == [[1.0]] * 60


@needs_compiler
def test_headers_say_what_they_are(tmp_path: Path) -> None:
    """Labels beyond 32 bits, a comment inside of the comment, and the stack of all functions."""
    places = np.array([5_000_000_000, 1, 2])[PLACES]
    model = MLPClassifier((), solver="lbfgs", max_iter=5, class_weight={1: 2.0, "/* x */": 1.0}).fit(X, places)
    to_c(model, tmp_path / "m.h")
    assert "const long long m_classes[] = {1LL, 2LL, 5000000000LL};" in (tmp_path / "m.h").read_text()
    assert "24 bytes on the stack" in (tmp_path / "m.h").read_text()
    assert np.isfinite(Compiled(tmp_path / "m.h", np.float64, tmp_path, classes=True).score(X, 3)).all()


def test_every_weight_is_the_number_itself(tmp_path: Path) -> None:
    for dtype, kind in ((np.float32, np.uint32), (np.float64, np.uint64)):
        bits = np.random.default_rng(0).integers(0, np.iinfo(kind).max, 3000, kind).view(dtype)
        net = nn.Sequential([nn.Dense(1, 500)], rng=None, dtype=dtype)
        net.params.vector = bits[np.isfinite(bits)][:1000]
        with np.printoptions(legacy="1.13", precision=2):
            to_c(net, tmp_path / "m.h")
        lists = re.findall(r"_[Wb]0\[\] = \{(.*?)\};", (tmp_path / "m.h").read_text(), re.DOTALL)
        texts = [text.strip().removesuffix("f") for part in lists for text in part.split(",")]
        np.testing.assert_array_equal(np.array(texts, dtype), net.params.vector)


def test_several_inputs_are_refused_in_skl2onnx() -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    nn.export.register_converters()
    kind = skl2onnx.common.data_types.FloatTensorType
    with pytest.raises(ValueError, match="takes one input of all features, got 2"):
        skl2onnx.to_onnx(fitted("number"), initial_types=[("a", kind([None, 1])), ("b", kind([None, 2]))])


def test_old_opsets_of_skl2onnx(ort: Any) -> None:
    skl2onnx, onnx = pytest.importorskip("skl2onnx"), pytest.importorskip("onnx")
    nn.export.register_converters()
    for name in ("bools", "three texts", "labels"):
        model = fitted(name)
        options = {id(model): {"zipmap": False}}
        for opset in (11, 12, 13, 18):
            proto = skl2onnx.to_onnx(model, X[:1], target_opset=opset, options=options)
            onnx.checker.check_model(proto)
            np.testing.assert_allclose(run_onnx(ort, proto, X)[1], model.predict_proba(X), rtol=1e-12, atol=1e-12)


def test_outputs_are_named_ones(ort: Any) -> None:
    regression, classes = net_of(nn.Dense(2, 2)), net_of(nn.Dense(2, 3), nn.Softmax())
    for model, loss, wrong in (
        (regression, None, "label"),
        (regression, None, "logits"),
        (classes, None, "logits"),
        (fitted("number"), None, "probabilities"),
        (fitted("loss on probabilities"), None, "logits"),
        (regression, None, []),
        (classes, None, ["label", "label"]),
        (classes, None, [["label"]]),
        (classes, None, 3),
    ):
        with pytest.raises(ValueError, match="outputs must be some of"):
            to_onnx(model, loss=loss, outputs=wrong)
    x = np.random.default_rng(1).normal(size=(9, 2))
    label, p = run_onnx(ort, to_onnx(classes, outputs=("label", "probabilities")), x)
    np.testing.assert_array_equal(label, classes.predict(x).argmax(axis=1))
    np.testing.assert_allclose(p, classes.predict(x), rtol=1e-13)
    label, logits = run_onnx(ort, to_onnx(regression, loss=nn.SigmoidCrossEntropy(), outputs=["label", "logits"]), x)
    np.testing.assert_array_equal(label, regression.predict(x) > 0)
    np.testing.assert_allclose(logits, regression.predict(x), rtol=1e-13)


def test_every_layer_of_the_library_has_a_form() -> None:
    """Or does nothing when it predicts."""
    assert [layer for layer in layers() if without_form(layer, ROW_FUNCTIONS) is not None] == []
    over_time = [make() for make, _ in SEQUENCES]
    assert [layer for layer in (*layers(), *over_time) if without_form(layer, NODES) is not None] == []


@st.composite
def branching(draw: st.DrawFn) -> tuple[nn.Sequential, Any]:
    """A network with branches nested up to three deep, on an array or on a tuple, and rows for it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def some(width: int) -> list[nn.Layer]:
        return layers(draw(st.lists(st.sampled_from(BETWEEN), max_size=2)), width)

    def branch(depth: int, width: int) -> tuple[Any, int]:
        kind = draw(st.sampled_from(["chain", "residual", "concatenate", "nothing"] if depth else ["chain", "nothing"]))
        if kind == "nothing":
            return some(width) or [nn.Identity()], width
        if kind == "chain":
            out = draw(st.integers(1, 4))
            return [*some(width), nn.Dense(width, out), *some(out)], out
        if kind == "residual":
            inner, out = branch(depth - 1, width)
            return [
                *some(width),
                nn.Residual([*inner, nn.Dense(out, width)] if out != width else inner),
                *some(width),
            ], width
        parts, widths = zip(*(branch(depth - 1, width) for _ in range(draw(st.integers(1, 3)))), strict=True)
        return [nn.Concatenate(parts), *some(sum(widths))], sum(widths)

    widths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    made, outs = zip(*(branch(2, width) for width in widths), strict=True)
    several = draw(st.booleans())
    chain: list[Any] = [nn.Parallel(made)] if several else [*made[0]]
    out = sum(outs) if several else outs[0]
    if draw(st.booleans()):
        chain += [nn.Dense(out, 2), *some(2)]
    chain = [nn.Dense(widths[0], widths[0]), *chain] if not several else chain  # which says how wide x is
    try:
        net = nn.Sequential(chain, rng=rng, dtype=draw(st.sampled_from([np.float64, np.float32])))
        assume(None not in np.ravel([net.in_features]))
    except ValueError:
        assume(False)
        raise
    net.params.vector = net.params.vector + 0.3 * rng.normal(size=net.params.vector.size)
    n = draw(st.integers(1, 4))
    x = tuple(rng.normal(size=(n, width)).astype(net.params.dtype) for width in widths)
    return net, x if several else x[0]


def in_double(net: nn.Sequential, x: Any) -> Any:
    twin = nn.Sequential([copy.deepcopy(net)], rng=None, dtype=np.float64)
    return twin.predict(tuple(part.astype(float) for part in x) if isinstance(x, tuple) else x.astype(float))


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], max_examples=60)
@given(branching())
def test_branches_as_onnx(ort: Any, case: tuple[nn.Sequential, Any]) -> None:
    net, x = case
    given = {f"X{i}": part for i, part in enumerate(x)} if isinstance(x, tuple) else x
    y, tolerance = run_onnx(ort, to_onnx(net), given)[0], 1e-11 if net.params.dtype == np.float64 else 1e-3
    np.testing.assert_allclose(y, in_double(net, x), rtol=tolerance, atol=tolerance)


@needs_compiler
@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], max_examples=40)
@given(branching())
def test_branches_as_c(tmp_path_factory: pytest.TempPathFactory, case: tuple[nn.Sequential, Any]) -> None:
    net, x = case
    folder = tmp_path_factory.mktemp("c")
    to_c(net, folder / "model.h")
    rows = np.hstack(x) if isinstance(x, tuple) else x
    expected = in_double(net, x)
    y = Compiled(folder / "model.h", net.params.dtype, folder).score(rows, expected.shape[1])
    tolerance = 1e-11 if net.params.dtype == np.float64 else 1e-3
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("scaler", ["StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scalers_before_a_network_become_part_of_it(scaler: str, dtype: Any, ort: Any, tmp_path: Path) -> None:
    preprocessing, pipeline = pytest.importorskip("sklearn.preprocessing"), pytest.importorskip("sklearn.pipeline")
    x = X * [3.0, 0.1, 20.0] + [5.0, -1.0, 100.0]
    steps = [getattr(preprocessing, scaler)(), preprocessing.MaxAbsScaler(), "passthrough"]
    model = pipeline.make_pipeline(*steps, MLPClassifier(8, max_iter=30, random_state=0)).fit(x, PLACES)
    before = model[-1].network_.params.vector.copy()
    expected, tolerance = model.predict_proba(x), 1e-12 if dtype is np.float64 else 2e-5
    label, p = run_onnx(ort, to_onnx(model, dtype=dtype), x.astype(dtype))
    np.testing.assert_allclose(p, expected, rtol=tolerance, atol=tolerance)
    assert (label == model.predict(x)).mean() > 0.98
    to_c(model, tmp_path / "p.h", dtype=dtype)
    if COMPILER:
        compiled = Compiled(tmp_path / "p.h", dtype, tmp_path, classes=True)
        np.testing.assert_allclose(compiled.score(x, 3), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(model[-1].network_.params.vector, before)


def test_other_pipelines_are_refused(tmp_path: Path) -> None:
    preprocessing, pipeline = pytest.importorskip("sklearn.preprocessing"), pytest.importorskip("sklearn.pipeline")
    for step in (preprocessing.MinMaxScaler(clip=True), preprocessing.PolynomialFeatures(2)):
        model = pipeline.make_pipeline(step, MLPClassifier(4, max_iter=5, random_state=0)).fit(X, PLACES)
        for export in (to_c, to_onnx):
            with pytest.raises(ValueError, match=r"(?s)can be exported, got Pipeline.*; .*model\[-1\]"):
                export(model, tmp_path / "m.h")


def test_packages_are_asked_for_only_when_they_are_needed(tmp_path: Path) -> None:
    code = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"onnx", "skl2onnx", "sklearn"}:
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
import numpy as np, nnprofile as nn
net = nn.Sequential([nn.Dense(1, 1)], rng=np.random.default_rng(0))
nn.to_c(net, sys.argv[1])
for call, package in ((lambda: nn.to_onnx(net, "x"), "onnx"), (nn.export.register_converters, "skl2onnx")):
    try:
        call()
    except ImportError as error:
        assert str(error).endswith(f'needs the package {package}: pip install "nnprofile[onnx]"'), error
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "m.h")], check=True)
    assert re.match(r"/\* m: written by nnprofile", (tmp_path / "m.h").read_text())


class OfUsers(nn.layers.activations.Elementwise):
    """y = f(x) by NumPy, with a formula beside it."""

    def __init__(self, f: Any, text: str, **settings: float) -> None:
        self.f, self.formula = f, {"y": text, "slope": "1"}  # type: ignore[misc]
        vars(self).update(settings)

    def forward(self, x: Any, rng: Any = None) -> Any:
        with np.errstate(all="ignore"):
            return self.f(np.asarray(x, float)), x

    def __copy__(self) -> OfUsers:
        return self

    def __deepcopy__(self, memo: Any) -> OfUsers:
        return self


FORMULAS = {
    "-alpha * x": (lambda x: 0.5 * x, {"alpha": -0.5}),
    "sign(x) / ((x > 0) + (x <= 0) + (x > -9))": (lambda x: np.sign(x) / (2.0 + 0 * x), {}),
    "max(0, max(x, -x) - 1)": (lambda x: np.maximum(np.abs(x) - 1, 0), {}),
    "max(exp(x), 1 + x)**2 - (1 - (x - 2))": (lambda x: np.exp(x) ** 2 - (3 - x), {}),
    "abs(x) * tanh(-x / 3) + erfc(x)": (lambda x: np.abs(x) * np.tanh(-x / 3) + erfc(x), {}),
    "log(1 + exp(x)) - sqrt(x**2 + 1)": (lambda x: np.log1p(np.exp(x)) - np.sqrt(x * x + 1), {}),
}


@needs_compiler
@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_of_users_are_written(text: str, ort: Any, tmp_path: Path) -> None:
    f, settings = FORMULAS[text]
    net = nn.Sequential([nn.Dense(1, 1), OfUsers(f, text, **settings)], rng=None)
    net.params.vector = [1.0, 0.0]
    x = np.array([[-2.0], [-0.5], [0.0], [0.7], [3.0]])
    np.testing.assert_allclose(run_onnx(ort, to_onnx(net), x)[0], f(x), rtol=1e-12, atol=1e-12)
    to_c(net, tmp_path / "u.h")
    compiled = Compiled(tmp_path / "u.h", np.float64, tmp_path)
    np.testing.assert_allclose(compiled.score(x, 1), f(x), rtol=1e-12, atol=1e-12)
    assert np.isnan(compiled.score(np.array([[np.nan]]), 1)).all()  # NaN in, NaN out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2 * x", "does not give what its forward does"),
        ("x[0, 0]", "no function of"),
        ("x[n]", "no function of"),
        ("x[i, j]", "no 'i'"),
        ("exp(x, y=1)", "a formula has no"),
        ("max(x, 0, 1)", "a formula has no"),
        ("max()", "a formula has no"),
        ("2", "no function of"),
        ("x +", "no formula"),
        ("-" * 3000 + "x", "no formula"),
        ("y * x", "neither a quantity nor a number"),
        ("__import__('os')", "a formula has no"),
    ],
)
def test_formulas_that_cannot_be_written(text: str, says: str, tmp_path: Path) -> None:
    net = nn.Sequential([nn.Dense(1, 1), OfUsers(lambda x: x * 1.0, text)], rng=np.random.default_rng(0))
    for export in (to_c, to_onnx) if HAS_ONNX else (to_c,):
        with pytest.raises(ValueError, match=re.escape(says)):
            export(net, tmp_path / "u")
    assert not list(tmp_path.iterdir())


def test_subclasses_are_not_taken_for_their_base(tmp_path: Path, ort: Any) -> None:
    class Double(nn.Identity):
        formula = {"y": "2 * x", "slope": "2"}

        def forward(self, x: Any, rng: Any = None) -> Any:
            return 2 * np.asarray(x), x

    class Halved(nn.Dropout):
        def forward(self, x: Any, rng: Any = None) -> Any:
            return x * 0.5, np.full_like(x, 0.5)

    class Half(nn.Residual):
        def _forward(self, x: Any, run: Any) -> Any:
            y, cache = run(0, x)
            return x + y / 2, cache

    class Renamed(nn.Residual):
        pass

    x = np.random.default_rng(1).normal(size=(4, 2))
    for layer in (Double(), Renamed(nn.Dense(2, 2))):
        net = nn.Sequential([nn.Dense(2, 2), layer], rng=np.random.default_rng(0))
        np.testing.assert_allclose(run_onnx(ort, to_onnx(net), x)[0], net.predict(x), rtol=1e-12)
    for layer in (Halved(0.5), Half(nn.Dense(2, 2))):
        net = nn.Sequential([nn.Dense(2, 2), layer], rng=np.random.default_rng(0))
        for export in (to_c, to_onnx):
            with pytest.raises(ValueError, match="can't be exported"):
                export(net, tmp_path / "u")


@needs_compiler
def test_odd_networks_as_c(tmp_path: Path) -> None:
    deep: Any = nn.Dense(1, 1)
    for _ in range(24):  # as many arrays at once
        deep = nn.Residual([nn.Dense(1, 1), deep])
    parts = nn.Parallel([nn.Dense(1, 1), nn.Parallel([nn.Dense(1, 1), nn.Dense(1, 1)])])
    for k, layer in enumerate((deep, [nn.LayerNorm(2), nn.ReLU()], parts)):
        net = nn.Sequential([layer], rng=np.random.default_rng(0))
        width = 1 if k == 0 else 2 if k == 1 else 3
        rows = np.random.default_rng(1).normal(size=(4, width))
        x: Any = (rows[:, :1], (rows[:, 1:2], rows[:, 2:])) if k == 2 else rows
        expected = net.predict(x)
        to_c(net, tmp_path / f"odd{k}.h")
        y = Compiled(tmp_path / f"odd{k}.h", np.float64, tmp_path).score(rows, expected.shape[1])
        np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("scaler", "flag"),
    [
        ("StandardScaler", "with_std"),
        ("StandardScaler", "with_mean"),
        ("RobustScaler", "with_centering"),
        ("RobustScaler", "with_scaling"),
    ],
)
def test_scalers_obey_their_flags(scaler: str, flag: str, ort: Any) -> None:
    preprocessing, pipeline = pytest.importorskip("sklearn.preprocessing"), pytest.importorskip("sklearn.pipeline")
    x = X * [3.0, 0.1, 20.0] + [5.0, -1.0, 100.0]
    steps = getattr(preprocessing, scaler)(), MLPClassifier(4, max_iter=30, random_state=0)
    model = pipeline.make_pipeline(*steps).fit(x, PLACES)
    model[0].set_params(**{flag: False})  # after it was fitted
    np.testing.assert_allclose(run_onnx(ort, to_onnx(model), x)[1], model.predict_proba(x), rtol=1e-9, atol=1e-12)


def test_a_pipeline_of_float32_in_float64(ort: Any) -> None:
    """The product of scaler and weights is taken, and kept, in float64."""
    preprocessing, pipeline = pytest.importorskip("sklearn.preprocessing"), pytest.importorskip("sklearn.pipeline")
    x = (1000 + 0.01 * X).astype(np.float32)
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), MLPClassifier(4, max_iter=30, random_state=0)).fit(
        x, PLACES
    )
    z = (x.astype(float) - model[0].mean_) / model[0].scale_
    net = nn.Sequential([copy.deepcopy(model[-1].network_)], rng=None)
    exact = nn.SoftmaxCrossEntropy().link.forward(net.predict(z))[0]
    p = run_onnx(ort, to_onnx(model, dtype="float64"), x.astype(float))[1]
    np.testing.assert_allclose(p, exact, rtol=1e-9)


# -- sequences: in ONNX one a call, in C one event a call

OVER_TIME: dict[str, Any] = {
    "RNN": lambda: [nn.RNN(3, 4)],
    "GRU": lambda: [nn.GRU(3, 4)],
    "LSTM": lambda: [nn.LSTM(3, 4)],
    "dilated": lambda: [nn.Conv1D(3, 4, 3, dilation=2), nn.ReLU()],
    "centred": lambda: [nn.Conv1D(3, 4, 3, causal=False)],
    "attention": lambda: [nn.Dense(3, 4), nn.SelfAttention(4, 2)],
    "attention both ways": lambda: [nn.Dense(3, 4), nn.SelfAttention(4, 2, causal=False)],
    "last": lambda: [nn.GRU(3, 4), nn.LastEvent(), nn.Dense(4, 2)],
    "mean": lambda: [nn.PositionalEmbedding(9, 3), nn.MeanOverEvents()],
    "max": lambda: [nn.Dense(3, 4), nn.MaxOverEvents(), nn.Dense(4, 2)],
    "Transformer": lambda: [
        nn.Embedding(6, 4),
        nn.PositionalEmbedding(9, 4),
        nn.Residual([nn.LayerNorm(4), nn.SelfAttention(4, 2)]),
        nn.Residual([nn.LayerNorm(4), nn.Dense(4, 8), nn.GELU(), nn.Dense(8, 4)]),
        nn.Concatenate([nn.LastEvent(), nn.MaxOverEvents()]),
        nn.Dense(8, 3),
    ],
    "tied": lambda: [nn.Tied(nn.Embedding(6, 4), [nn.Residual(nn.GRU(4, 4)), nn.LSTM(4, 4)])],
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", OVER_TIME)
def test_sequences_in_onnx(ort: Any, name: str, dtype: Any, rng: np.random.Generator) -> None:
    net = nn.Sequential(OVER_TIME[name](), rng=rng, dtype=dtype)
    net.params.vector = (net.params.vector + 0.2 * rng.normal(size=net.params.vector.size)).astype(dtype)
    model = to_onnx(net)
    used = {node.op_type for node in model.graph.node}
    if name in ("GRU", "LSTM", "RNN"):
        assert (name if dtype is np.float32 else "Scan") in used
    for n in (5, 1, 9, 0):
        x = rng.integers(0, 6, n) if net.takes == "ids" else rng.normal(size=(n, 3)).astype(dtype)
        expected = net.predict(nn.Ragged(x, [0, n]))
        expected = expected.values if isinstance(expected, nn.Ragged) else expected
        found = run_onnx(ort, model, x)[0]
        assert found.dtype == dtype and found.shape == expected.shape
        close = {"rtol": 1e-12, "atol": 1e-14} if dtype is np.float64 else {"rtol": 1e-4, "atol": 1e-6}
        np.testing.assert_allclose(found, expected, **close)


def test_several_inputs_some_of_them_sequences_in_onnx(ort: Any, rng: np.random.Generator) -> None:
    parts = nn.Parallel([[nn.Embedding(6, 4), nn.GRU(4, 4), nn.LastEvent()], nn.Embedding(3, 2), nn.Dense(5, 3)])
    net = nn.Sequential([parts, nn.Tanh(), nn.Dense(9, 2)], rng=rng)
    x = (rng.integers(0, 6, 4), np.array([2]), rng.normal(size=(1, 5)))
    found = run_onnx(ort, to_onnx(net, loss=nn.SoftmaxCrossEntropy()), {f"X{i}": part for i, part in enumerate(x)})[0]
    expected = nn.freeze(net, nn.SoftmaxCrossEntropy())((nn.Ragged(x[0], [0, 4]), *x[1:]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    together = nn.Sequential([nn.Parallel([nn.Embedding(6, 2), nn.Dense(3, 2)]), nn.GRU(4, 3)], rng=rng)
    events = (rng.integers(0, 6, 4), rng.normal(size=(4, 3)))
    found = run_onnx(ort, to_onnx(together), {f"X{i}": part for i, part in enumerate(events)})[0]
    expected = together.predict(tuple(nn.Ragged(part, [0, 4]) for part in events)).values
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("ids", [False, True])
def test_a_gru_in_c_follows_the_events(dtype: Any, ids: bool, tmp_path: Path, rng: np.random.Generator) -> None:
    layers = [nn.Embedding(6, 3)] if ids else [nn.Dense(3, 3), nn.Tanh()]
    layers += [nn.Residual([nn.LayerNorm(3), nn.GRU(3, 3)]), nn.GRU(3, 4), nn.Concatenate([nn.Dense(4, 2), nn.Tanh()])]
    net = nn.Sequential([*layers, nn.LastEvent(), nn.Dense(6, 2)], rng=rng, dtype=dtype)
    net.params.vector = (net.params.vector + 0.2 * rng.normal(size=net.params.vector.size)).astype(dtype)
    header = tmp_path / "live.h"
    to_c(net, header, loss=nn.SoftmaxCrossEntropy())
    text = header.read_text()
    assert "#define LIVE_N_STATE 7\n" in text and "zeros before the first event" in text
    T, x_kind = ("double" if dtype is np.float64 else "float"), "long" if ids else None
    given = "long *x" if ids else f"const {T} *x"
    one = "x[i]" if ids else "x + i * LIVE_N_FEATURES"
    (tmp_path / "m.c").write_text(
        f'#include "live.h"\nvoid follow({given}, int n, {T} *state, {T} *y);\n'
        f"void follow({given}, int n, {T} *state, {T} *y) {{ int i; for (i = 0; i < n; ++i) "
        f"live_score({one}, state, y + i * LIVE_N_OUTPUTS); }}\n"
    )
    command = [COMPILER or "cc", *FLAGS, "-shared", "-fPIC", "m.c", "-o", "m.so", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    follow, n = ctypes.CDLL(str(tmp_path / "m.so")).follow, 7
    x = rng.integers(0, 6, n) if x_kind else rng.normal(size=(n, 3)).astype(dtype)
    state, y = np.zeros(7, dtype), np.empty((n, 2), dtype)
    follow(*(ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in (x, n, state, y)))
    prefixes = nn.Ragged.from_list([x[: t + 1] for t in range(n)])
    expected = nn.freeze(net, nn.SoftmaxCrossEntropy())(prefixes)
    np.testing.assert_allclose(y, expected, rtol=1e-12 if dtype is np.float64 else 1e-4)


@needs_compiler
@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Dense(3, 16), nn.Tanh(), nn.GRU(16, 1)],
        lambda: [nn.Dense(3, 8), nn.GRU(8, 2), nn.LastEvent()],
        lambda: [nn.Residual(nn.GRU(3, 3)), nn.GRU(3, 1)],
        lambda: [nn.Dense(3, 9), nn.Sequential([nn.Tanh(), nn.GRU(9, 2)], rng=None)],
    ],
)
def test_nothing_is_written_behind_y(layers: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    net = nn.Sequential(layers(), rng=rng)
    to_c(net, tmp_path / "m.h")
    (tmp_path / "m.c").write_text(
        '#include "m.h"\nvoid one(const double *x, double *s, double *y);\n'
        "void one(const double *x, double *s, double *y) { m_score(x, s, y); }\n"
    )
    subprocess.run([COMPILER or "cc", *FLAGS, "-shared", "-fPIC", "m.c", "-o", "m.so", "-lm"], check=True, cwd=tmp_path)
    x, state, y = rng.normal(size=3), np.zeros(64), np.full(64, 7.0)
    ctypes.CDLL(str(tmp_path / "m.so")).one(*(ctypes.c_void_p(a.ctypes.data) for a in (x, state, y)))
    expected = net.predict(nn.Ragged(x[None], [0, 1]))
    expected = (expected.values if isinstance(expected, nn.Ragged) else expected)[0]
    np.testing.assert_allclose(y[: len(expected)], expected, rtol=1e-12)
    assert (y[len(expected) :] == 7).all()


def test_onnx_refuses_what_the_library_refuses(ort: Any, rng: np.random.Generator) -> None:
    for layer, x in ((nn.Embedding(4, 2), np.array([-1])), (nn.Embedding(4, 2), np.array([4]))):
        with pytest.raises(Exception, match="out of data bounds"):
            run_onnx(ort, to_onnx(nn.Sequential([layer], rng=rng)), x)
    for longest in (1, 2):
        net = nn.Sequential([nn.PositionalEmbedding(longest, 2)], rng=rng)
        with pytest.raises(Exception, match="cannot be reshaped"):
            run_onnx(ort, to_onnx(net), np.ones((3, 2)))


@needs_compiler
def test_sequences_that_c_has_no_form_for(tmp_path: Path, rng: np.random.Generator) -> None:
    for layer in (nn.LSTM(3, 3), nn.SelfAttention(3, 1), nn.MeanOverEvents(), nn.Conv1D(3, 3, 2)):
        with pytest.raises(ValueError, match=r"can't be exported; Dense, .*GRU.* can"):
            to_c(nn.Sequential([layer], rng=rng), tmp_path / "a.h")
    several = nn.Sequential([nn.Parallel([nn.Embedding(6, 2), nn.Dense(3, 2)]), nn.GRU(4, 3)], rng=rng)
    with pytest.raises(ValueError, match="ids or of numbers, not of both"):
        to_c(several, tmp_path / "a.h")
    assert not list(tmp_path.iterdir())
