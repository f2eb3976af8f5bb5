"""Whatever is passed in either works as its user expects, or raises a ValueError that says what and why; nothing is modified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn

from .layer_examples import BETWEEN, layers


def network(dtype: Any = np.float64, width: int = 2) -> nn.Sequential:
    return nn.Sequential([nn.Dense(width, 3), nn.ReLU(), nn.Dense(3, 1)], rng=np.random.default_rng(0), dtype=dtype)


def fit(x: Any, y: Any, net: nn.Sequential | None = None, loss: nn.Loss | None = None, **options: Any) -> nn.History:
    settings = {"n_epochs": 2, "batch_size": 4, "rng": np.random.default_rng(0)} | options
    return nn.fit(net or network(), loss or nn.SigmoidCrossEntropy(), nn.Adam(), x, y, **settings)


X, Y = np.random.default_rng(1).normal(size=(6, 2)), np.array([0, 1, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (X[0], r"x must have shape \(n_samples, 2\), got \(2,\); for one row pass x\[None, :\]"),
        (X[None], r"must have shape \(n_samples, 2\), got \(1, 6, 2\)"),
        (X[:, :1], r"must have shape \(n_samples, 2\), got \(6, 1\)"),
        (5.0, r"got \(\)"),
        (np.full((6, 2), np.nan), r"x must be finite in float64, got x\[0, 0\] = nan"),
        (np.where(np.eye(6, 2), np.inf, 0), r"x\[0, 0\] = inf"),
        (X.astype(object), "real numbers, got dtype object"),
        ([["a", "b"]] * 6, "real numbers, got str in column 0"),
        (X.astype(complex), "complex128"),
        ([[1, 2], [3]], "must be an array of numbers"),
        (X.astype("datetime64[s]"), "datetime64"),
        (None, "real numbers"),
    ],
)
def test_bad_x(x: Any, says: str) -> None:
    net = network()
    before = net.params.vector.copy()
    with pytest.raises(ValueError, match=says):
        net.predict(x)
    with pytest.raises(ValueError, match=says):
        fit(x, Y, net)
    with pytest.raises(ValueError, match="^validation x must"):
        fit(X, Y, net, validation_data=(x, Y))
    np.testing.assert_array_equal(net.params.vector, before)


@pytest.mark.parametrize(
    ("y", "loss", "says"),
    [
        (Y[:5], None, "x has 6 rows, y has 5"),
        (np.stack([Y, Y], 1), None, r"y_true must have shape \(n_samples, 1\) or \(n_samples,\), got \(6, 2\)"),
        (Y[None], None, r"got \(1, 6\)"),
        (Y + 1, None, r"must lie in \[0, 1\], got 2"),
        (-Y, nn.BinaryCrossEntropy(), r"must lie in \[0, 1\], got -1"),
        (np.where(Y, np.nan, 0.0), None, r"y_true\[1\] = nan"),
        (np.where(Y, np.inf, 0.0), nn.MeanSquaredError(), r"y_true\[1\] = inf"),
        (["yes"] * 6, None, "real numbers"),
        (Y.astype(object), None, "dtype object"),
        ([], None, "y has 0"),
        (0, None, r"got \(\)"),
        (Y * 1j, nn.MeanSquaredError(), "complex"),
    ],
)
def test_bad_y(y: Any, loss: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fit(X, y, loss=loss)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        ([0, 1, 2, 3], r"labels must be whole numbers in 0 \.\. 2, got 3"),
        ([0, 1, -1, 0], "got -1"),
        ([0, 0.5, 1, 2], r"got 0\.5"),
        (np.full((4, 3), 0.5), "sum to 1, got row 0"),
        (np.array([[2.0, -1.0, 0.0]] * 4), "got row 0"),
        (np.zeros((4, 2)), r"\(n_samples,\) with labels, or \(n_samples, 3\) with probabilities, got \(4, 2\)"),
        ([[["a"]]], "real numbers"),
    ],
)
def test_bad_labels_for_softmax(y: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        nn.SoftmaxCrossEntropy().forward(np.zeros((4, 3)), y)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_epochs": 0}, "n_epochs must be an integer of at least 1, got 0"),
        ({"n_epochs": 1.5}, r"got 1\.5"),
        ({"batch_size": 0}, "batch_size"),
        ({"rng": 0}, "Generator"),
        ({"l2": -1.0}, "l2 must be a number at least 0"),
        ({"l2": float("nan")}, "l2"),
        ({"sample_weight": -np.ones(6)}, "must not be negative, got -1"),
        ({"sample_weight": np.ones(5)}, r"must have shape \(6,\), one weight a sample, got \(5,\)"),
        ({"sample_weight": np.full(6, np.nan)}, "finite"),
        ({"class_weight": "balance"}, "'balanced', got 'balance'"),
        ({"class_weight": {0: 1.0}}, r"must name every label in y; it names \[0\], not \[1\]"),
        ({"class_weight": {"0": 1.0, "1": 2.0}}, "must name every label"),
        ({"class_weight": {0: 1.0, 1: -2.0}}, r"class_weight\[1\]"),
        ({"class_weight": 3}, "mapping or 'balanced'"),
        ({"validation_data": X}, r"must be \(x, y\)"),
        ({"validation_data": (X, Y[:3])}, "validation x has 6 rows, y has 3"),
        ({"validation_data": (X[:0], Y[:0])}, "at least one row"),
        ({"engine": "fast"}, "engine must be 'auto', 'numpy' or 'numba'"),
        ({"engine": "torch"}, "got 'torch'"),
        ({"early_stopping": nn.EarlyStopping()}, "monitors 'val_loss', but this run logs"),
        ({"early_stopping": 5}, "early_stopping must be of type EarlyStopping, got 5"),
        ({"early_stopping": nn.EarlyStopping}, r"did you mean EarlyStopping\(\)"),
        ({"metrics": ["accuracy"]}, "metrics must map names"),
        ({"metrics": {"loss": len}}, "must not be named 'loss'"),
        ({"metrics": {"val_acc": len}}, "must not be named 'val_acc'"),
        ({"sample_weight": np.full(6, 1e308)}, "must be finite; got too large weights"),
        ({"class_weight": {0: 1e308, 1: 1}, "sample_weight": np.full(6, 10.0)}, "got too large weights"),
        ({"callbacks": print}, "callbacks must be a sequence"),
    ],
)
def test_bad_options(options: Any, says: str) -> None:
    net = network()
    before = net.params.vector.copy()
    with pytest.raises(ValueError, match=says):
        fit(X, Y, net, **options)
    np.testing.assert_array_equal(net.params.vector, before)


def test_objects_of_the_wrong_kind(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"loss must be of type Loss, got .* did you mean HalfSquaredError\(\)"):
        nn.fit(network(), nn.HalfSquaredError, nn.Adam(), X, Y, n_epochs=1, rng=rng)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="optimizer must be of type Optimizer"):
        nn.fit(network(), nn.HalfSquaredError(), "adam", X, Y, n_epochs=1, rng=rng)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        nn.fit(network(), nn.HalfSquaredError(), nn.Adam(), X, Y, n_epochs=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        nn.fit(network(), nn.HalfSquaredError(), nn.Adam(), X, Y, n_epoch=1, rng=rng)  # type: ignore[call-arg]
    for make in (
        lambda: nn.SGD(-1),
        lambda: nn.SGD(0.1, momentum=1.0),
        lambda: nn.SGD(0.1, nesterov=True),
        lambda: nn.Adam(beta1=1.0),
        lambda: nn.Adam(epsilon=0.0),
        lambda: nn.Adam(lazy=1),  # type: ignore[arg-type]
        lambda: nn.CosineDecay(1.0, n_steps=5, warmup=5),
        lambda: nn.EarlyStopping(mode="down"),
        lambda: nn.Huber(0.0),
        lambda: nn.LeakyReLU(1.0),
        lambda: nn.SGD("fast"),
    ):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="must|needs"):
            make()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(
    kind=st.sampled_from(["list", "int", "bool", "float32", "float64", "fortran", "strided", "read-only", "csr", "coo"])
)
def test_forms_of_the_same_numbers_give_the_same_network(dtype: Any, kind: str) -> None:
    x = np.random.default_rng(2).integers(0, 2, (7, 2)).astype(float)
    y = np.arange(7) % 2
    wide = np.repeat(x, 2, axis=1)
    forms: dict[str, Any] = {
        "list": x.tolist(), "int": x.astype(int), "bool": x.astype(bool), "float32": x.astype(np.float32), "float64": x,
        "fortran": np.asfortranarray(x), "strided": wide[:, ::2], "read-only": x.copy(),
        "csr": scipy.sparse.csr_matrix(x), "coo": scipy.sparse.coo_array(x),
    }  # fmt: skip
    form = forms[kind]
    if kind == "read-only":
        form.flags.writeable = False
    kept = form.toarray() if hasattr(form, "toarray") else np.array(form)
    expected, net = network(dtype), network(dtype)
    fit(x, y, expected)
    fit(form, y.tolist() if kind == "list" else y[:, None], net, sample_weight=[1] * 7)
    np.testing.assert_allclose(net.params.vector, expected.params.vector, rtol=1e-4 if dtype is np.float32 else 1e-9)
    assert net.params.dtype == dtype and net.predict(form).dtype == dtype
    np.testing.assert_array_equal(form.toarray() if hasattr(form, "toarray") else np.array(form), kept)


@given(n=st.integers(0, 3), i=st.integers(1, 3), o=st.integers(1, 3), dtype=st.sampled_from([np.float64, np.float32]))
def test_zero_rows_and_width_one(n: int, i: int, o: int, dtype: Any) -> None:
    made = [
        nn.Dense(i, 1),
        *layers(BETWEEN, 1),
        nn.Dense(1, o),
        nn.Softmax(),
    ]
    net = nn.Sequential(made, rng=np.random.default_rng(0), dtype=dtype)
    x = np.ones((n, i), dtype)
    assert net.predict(x).shape == (n, o) and net.predict(x).dtype == dtype
    y, cache = net.forward(x, np.random.default_rng(0))
    dx, grads = net.backward(np.ones_like(y), cache)
    assert dx.shape == x.shape and dx.dtype == dtype and grads.dtype == dtype
    if n == 0:
        for loss in (nn.MeanSquaredError(), nn.SigmoidCrossEntropy(), nn.SoftmaxCrossEntropy()):
            with pytest.raises(ValueError, match="at least one row"):
                loss.forward(y, np.zeros((0, o)))
        with pytest.raises(ValueError, match="at least one row"):
            fit(np.ones((0, 2)), [])


def test_numbers_too_large_for_float32() -> None:
    with pytest.raises(ValueError, match=r"finite in float32, got x\[0, 1\] = 1e\+300"):
        network(np.float32).predict([[0, 1e300]])
    with pytest.raises(ValueError, match="finite in float32"):
        network(np.float32).predict(scipy.sparse.csr_matrix([[0, 1e300]]))
    with pytest.raises(ValueError, match="got nan"):
        network().predict(scipy.sparse.csr_matrix([[0, np.nan]]))
    with pytest.raises(ValueError, match="complex"):
        network().predict(scipy.sparse.csr_matrix([[0, 1j]]))


@pytest.mark.parametrize(
    "layer", [nn.Dense(2, 2, rng=np.random.default_rng(0)), nn.ReLU(), nn.Softmax(), nn.Dropout(0.1)], ids=repr
)
def test_backward_rejects_a_cotangent_of_another_shape(layer: nn.Layer) -> None:
    _, cache = layer.forward(np.ones((3, 2)))
    for shape in ((3, 1), (1, 2), (2,), (3, 3)):
        with pytest.raises(ValueError, match="dy must have the output's shape"):
            layer.backward(np.ones(shape), cache)


def test_dense_says_what_it_takes(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"Dense\(2, 3\) takes x of shape \(n_samples, 2\), got \(4, 5\)"):
        nn.Dense(2, 3, rng=rng).forward(np.ones((4, 5)))


def test_predict_returns_memory_of_its_own(rng: np.random.Generator) -> None:
    for layer in (nn.Identity(), nn.Dropout(0.3)):
        x = np.ones((2, 2))
        y = nn.Sequential([layer], rng=rng).predict(x)
        y[:] = 7
        assert (x == 1).all()
