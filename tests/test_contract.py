"""Parameters, ownership, and copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnprofile as nn

from .layer_examples import EXAMPLES, Example, layers

COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))]
COPY_IDS = ["copy", "deepcopy", "pickle"]


def nested(rng: np.random.Generator) -> nn.Sequential:
    inner = nn.Sequential([nn.Dense(4, 4), nn.Tanh(), nn.Dense(4, 3)], rng=None)
    return nn.Sequential([nn.Dense(2, 4), nn.ReLU(), inner, nn.Dropout(0.2), nn.Dense(3, 1)], rng=rng)


def test_names_shapes_and_one_vector(rng: np.random.Generator) -> None:
    net = nested(rng)
    assert list(net.params) == ["0.W", "0.b", "2.0.W", "2.0.b", "2.2.W", "2.2.b", "4.W", "4.b"]
    assert net.params.vector.shape == (2 * 4 + 4 + 4 * 4 + 4 + 4 * 3 + 3 + 3 + 1,)
    net.params.vector[:] = np.arange(net.params.vector.size)
    assert net.layers[2].layers[2].params["b"].tolist() == net.params["2.2.b"].tolist() == [44, 45, 46]
    assert np.shares_memory(net.layers[2].layers[2].params.vector, net.params.vector)
    assert net.params.sub("2").sub("2")["b"].tolist() == [44, 45, 46]
    assert net.params.sub("2.").vector.size == 4 * 4 + 4 + 4 * 3 + 3
    zeros = net.params.like()
    assert zeros.layout == net.params.layout and not zeros.vector.any()


def test_assignment_copies_into_the_view(rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.Dense(2, 3)], rng=rng)
    view = net.params.vector
    net.params["0.b"] = [1, 2, 3]
    net.params["0.b"] *= 2
    net.params.vector -= 1
    assert view[-3:].tolist() == net.layers[0].params["b"].tolist() == [1, 3, 5]
    for wrong in ([1, 2], 1.0, [[1, 2, 3]]):
        with pytest.raises(ValueError, match=r"0\.b has shape \(3,\)"):
            net.params["0.b"] = wrong
    with pytest.raises(ValueError, match="complex128"):
        net.params["0.b"] = [1j, 0, 0]
    with pytest.raises(ValueError, match="vector has shape"):
        net.params.vector = np.zeros(3)
    with pytest.raises(ValueError, match="needs"):
        nn.Parameters({"W": (2, 2)}, np.zeros(3))
    with pytest.raises(ValueError, match="side by side"):
        nn.Parameters({"0.a": (1,), "1.a": (1,), "0.b": (1,)}, np.zeros(3)).sub("0")
    with pytest.raises(KeyError):
        net.params["1.W"]


def test_a_layer_belongs_to_one_network(rng: np.random.Generator) -> None:
    dense = nn.Dense(2, 2)
    with pytest.raises(ValueError, match=r"layer 2, Dense\(2, 2\), is layer 0 of this network too"):
        nn.Sequential([dense, nn.ReLU(), dense], rng=rng)
    nn.Sequential([dense, nn.ReLU()], rng=rng)  # the failed try has bound nothing
    with pytest.raises(ValueError, match=r"layer 1, Dense\(2, 2\), is bound already, as layer 0 of Sequential"):
        nn.Sequential([nn.ReLU(), dense], rng=rng)
    with pytest.raises(ValueError, match="is bound already"):
        nn.Sequential([nn.Sequential([dense], rng=None)], rng=rng)
    relu = nn.ReLU()
    nn.Sequential([relu, copy.deepcopy(dense), relu], rng=rng)  # nothing to share, nothing to forbid


def test_layers_without_and_with_values(rng: np.random.Generator) -> None:
    empty, own, mixed = nn.Dense(2, 3), nn.Dense(3, 3, rng=rng), nn.Dense(3, 1)
    assert empty.params["W"].shape == (2, 3)
    with pytest.raises(ValueError, match="has no values"):
        empty.forward(np.zeros((1, 2)))
    mixed.params["W"] = [[1], [2], [3]]
    kept = own.params.vector.copy()
    net = nn.Sequential([empty, own, mixed], rng=rng)
    assert np.isfinite(net.params.vector).all()
    np.testing.assert_array_equal(net.params.sub("1").vector, kept)
    assert net.params["2.W"].tolist() == [[1], [2], [3]] and net.params["2.b"].tolist() == [0]
    with pytest.raises(ValueError, match="has no values"):
        nn.Sequential([nn.Dense(2, 2)], rng=None).predict([[1, 2]])


def test_rng_is_required_and_a_generator() -> None:
    with pytest.raises(TypeError):
        nn.Sequential([nn.Dense(1, 1)])  # type: ignore[call-arg]
    for wrong in (0, np.random.RandomState(0)):
        with pytest.raises(ValueError, match=r"numpy\.random\.Generator"):
            nn.Sequential([nn.Dense(1, 1)], rng=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"numpy\.random\.Generator"):
            nn.Dense(1, 1, rng=wrong)  # type: ignore[arg-type]


def test_with_params_reads_other_numbers(rng: np.random.Generator) -> None:
    net = nested(rng)
    other = nn.Parameters(net.params.layout, net.params.vector * (1 + 0j))
    twin = net.with_params(other)
    x = rng.normal(size=(3, 2))
    assert twin.forward(x)[0].dtype == complex
    np.testing.assert_allclose(twin.forward(x)[0].real, net.predict(x))
    with pytest.raises(ValueError, match="is bound already"):
        nn.Sequential([twin.layers[0]], rng=rng)  # it would leave the twin with half its parameters
    other.vector *= 0
    assert not twin.forward(x)[0].any() and net.predict(x).any()
    with pytest.raises(ValueError, match="parameters"):
        net.with_params(nn.Parameters({"W": (1,)}))
    with pytest.raises(ValueError, match="parameters"):
        nn.Dense(1, 1).with_params(nn.Parameters({"W": (1,)}))


@pytest.mark.parametrize("make_copy", COPIES, ids=COPY_IDS)
@pytest.mark.parametrize(
    "make_optimizer", [lambda: nn.Adam(0.01), lambda: nn.SGD(0.1, momentum=0.9)], ids=["adam", "sgd"]
)
def test_copies_train_on_as_if_nothing_had_happened(make_copy: Callable[[Any], Any], make_optimizer: Any) -> None:
    x = np.random.default_rng(1).normal(size=(20, 2))
    y, loss = x[:, :1] - x[:, 1:], nn.HalfSquaredError()

    def train(parts: Any) -> Any:
        net, optimizer, rng = parts
        nn.fit(net, loss, optimizer, x, y, n_epochs=3, batch_size=8, rng=rng)
        return net, optimizer, rng

    def start() -> Any:
        rng = np.random.default_rng(0)
        return train((nested(rng), make_optimizer(), rng))

    expected = train(start())[0].params.vector
    original = start()
    before = original[0].params.vector.copy()
    copied = (*map(make_copy, original[:2]), copy.deepcopy(original[2]))
    assert not np.shares_memory(copied[0].params.vector, original[0].params.vector)
    assert np.shares_memory(copied[0].layers[2].layers[0].params.vector, copied[0].params.vector)
    train(copied)
    np.testing.assert_array_equal(copied[0].params.vector, expected)
    np.testing.assert_array_equal(original[0].params.vector, before)
    np.testing.assert_array_equal(train(original)[0].params.vector, expected)


@pytest.mark.parametrize("make_copy", COPIES, ids=COPY_IDS)
def test_a_copied_layer_is_free(make_copy: Callable[[Any], Any], rng: np.random.Generator) -> None:
    net = nested(rng)
    layer = make_copy(net.layers[0])
    np.testing.assert_array_equal(layer.params.vector, net.layers[0].params.vector)
    layer.params["b"] = np.ones(4)
    assert not net.params["0.b"].any()
    nn.Sequential([layer, make_copy(net.layers[2])], rng=None).predict(np.ones((1, 2)))


def test_a_network_and_its_layer_stay_together_in_one_pickle(rng: np.random.Generator) -> None:
    net = nested(rng)
    layer, again = pickle.loads(pickle.dumps((net.layers[0], net)))
    again.params["0.b"] = np.arange(4.0)
    assert layer.params["b"].tolist() == [0, 1, 2, 3]


def test_reprs_can_be_evaluated(rng: np.random.Generator) -> None:
    for obj in (
        *layers(),
        nn.Huber(2.0),
        nn.SGD(0.1, momentum=0.5),
        nn.EarlyStopping(patience=3),
    ):
        assert repr(eval(repr(obj), vars(nn))) == repr(obj)
    assert repr(nested(rng)).startswith(
        "Sequential([Dense(2, 4), ReLU(), Sequential([Dense(4, 4), Tanh(), Dense(4, 3)])"
    )
    assert "0.W: (2, 4)" in repr(nested(rng).params)


def test_bad_layers(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        nn.Sequential([], rng=rng)
    with pytest.raises(ValueError, match="layer 1 must be a Layer"):
        nn.Sequential([nn.ReLU(), nn.ReLU], rng=rng)  # type: ignore[list-item]
    for dtype in (np.float16, int, "foo", None):
        with pytest.raises(ValueError, match="float64 or float32"):
            nn.Sequential([nn.ReLU()], rng=rng, dtype=dtype)
    for dtype in ("float32", "f4", np.dtype(np.float32), np.float32):
        assert nn.Sequential([nn.Dense(1, 1)], rng=rng, dtype=dtype).params.dtype == np.float32
    for make in (lambda: nn.Dense(0, 1), lambda: nn.Dense(1, 2.0), lambda: nn.Dense(True, 1)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="features must be an integer of at least 1"):
            make()
    for rate in (1.0, -0.1, float("nan"), "0.1", True):
        with pytest.raises(ValueError, match="rate must be a number"):
            nn.Dropout(rate)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_normal"])
def test_initializers_have_the_stated_variance(name: str, rng: np.random.Generator) -> None:
    W = getattr(nn.initializers, name)(300, 200, rng)
    expected = {"glorot": 2 / 500, "he": 2 / 300, "lecun": 1 / 300}[name.split("_")[0]]
    assert W.shape == (300, 200)
    assert abs(W.mean()) < 5 * np.sqrt(expected / W.size)
    assert W.var() == pytest.approx(expected, rel=0.03)
    assert not nn.initializers.zeros(2, 3, rng).any()


def test_same_seed_same_numbers_in_both_dtypes() -> None:
    nets = [nn.Sequential([nn.Dense(3, 2)], rng=np.random.default_rng(0), dtype=d) for d in (np.float64, np.float32)]
    np.testing.assert_array_equal(nets[0].params.vector.astype(np.float32), nets[1].params.vector)


def test_parameters_taken_before_binding_stay_connected(rng: np.random.Generator) -> None:
    layer = nn.Dense(2, 1, rng=rng)
    params = layer.params
    net = nn.Sequential([nn.Sequential([layer], rng=None)], rng=rng)
    params["b"] = [7]
    assert net.params["0.0.b"].tolist() == [7] and layer.params is params


def test_outputs_may_be_changed_before_backward(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 2))
    for layer in (example.make(2) for example in EXAMPLES):
        layer.initialize(rng)
        dy = rng.normal(size=layer.forward(x)[0].shape)
        y, cache = layer.forward(x)
        expected = layer.backward(dy, cache)[0]
        y -= 1
        np.testing.assert_array_equal(layer.backward(dy, cache)[0], expected)


def test_whole_numbers_and_lists_mean_floats(rng: np.random.Generator) -> None:
    for layer in (example.make(2) for example in EXAMPLES):
        layer.initialize(rng)
        expected, cache = layer.forward(np.array([[0.0, 3.0]]), np.random.default_rng(0))
        dx = layer.backward(np.ones(expected.shape), cache)[0]
        for x in ([[0, 3]], np.array([[0, 3]]), np.array([[0, 3]], np.uint8)):
            y, cache = layer.forward(x, np.random.default_rng(0))  # type: ignore[arg-type]
            np.testing.assert_array_equal(y, expected)
            np.testing.assert_array_equal(layer.backward(np.ones(expected.shape, int).tolist(), cache)[0], dx)  # type: ignore[arg-type]


def test_widths_that_do_not_fit_are_named_at_once(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"layer 2, Dense\(5, 1\), takes 5 features, but the layers before it give 4"):
        nn.Sequential([nn.Dense(2, 4), nn.ReLU(), nn.Dense(5, 1)], rng=rng)
    net = nn.Sequential(
        [nn.Dropout(0.1), nn.Sequential([nn.Dense(2, 4), nn.Softmax()], rng=None), nn.Dense(4, 1)], rng=rng
    )
    assert (net.in_features, net.out_features) == (2, 1)
    with pytest.raises(ValueError, match="takes 3 features"):
        nn.Sequential([copy.copy(net), nn.Dense(3, 1)], rng=rng)

    class Doubled(nn.Layer):
        """A layer that says nothing of its width."""

    assert nn.Sequential([Doubled(), nn.Dense(3, 1)], rng=rng).in_features is None
    with pytest.raises(ValueError, match=r"did you mean ReLU\(\.\.\.\)"):
        nn.Sequential([nn.ReLU], rng=rng)  # type: ignore[list-item]


def test_gradients_of_another_layout_are_refused(rng: np.random.Generator) -> None:
    class Lost(nn.Dense):
        """Forgets to sum the bias's gradient, or to return any."""

        grads: Any = None

        def backward(self, dy: Any, cache: Any) -> Any:
            return dy, self.grads

    swapped = nn.Parameters({"b": (2,), "W": (2, 2)}, np.ones(6))
    for grads in ({}, nn.Parameters({}), swapped, nn.Parameters({"W": (2, 2), "b": (1,)}, np.ones(5))):
        layer = Lost(2, 2)
        layer.grads = grads
        net = nn.Sequential([layer], rng=rng)
        y, cache = net.forward(np.ones((1, 2)))
        with pytest.raises(ValueError, match="its backward returned the gradients"):
            net.backward(y, cache)
    with pytest.raises(ValueError, match="both Parameters"):
        nn.SGD(0.1).step(net.params, {})  # type: ignore[arg-type]


def test_half_a_set_of_values_is_none(rng: np.random.Generator) -> None:
    layer = nn.Dense(2, 1)
    layer.params["W"] = [[1], [2]]
    with pytest.raises(ValueError, match="has no values"):
        layer.forward(np.ones((1, 2)))


def test_sparse_input_needs_a_dense_layer_first() -> None:
    sparse = pytest.importorskip("scipy.sparse").csr_array(np.ones((2, 2)))
    for layer in (nn.ReLU(), nn.Sigmoid(), nn.Softmax(), nn.Dropout(0.1), nn.Identity()):
        with pytest.raises(ValueError, match="sparse x is taken by Dense alone"):
            layer.forward(sparse)


def test_twins_have_parameters_of_their_own(rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.Dense(2, 2)], rng=rng)
    layer = net.layers[0]
    nn.Sequential([layer.with_params(layer.params)], rng=None)
    assert np.shares_memory(layer.params.vector, net.params.vector)
    p = layer.params
    pair = nn.Sequential([layer.with_params(p), layer.with_params(p)], rng=None)
    pair.params.vector = np.arange(12.0)
    assert pair.layers[0].params.vector.tolist() == [0, 1, 2, 3, 4, 5]
    twin = net.with_params(net.params)
    nn.Sequential([net], rng=None)
    assert np.shares_memory(twin.layers[0].params.vector, twin.params.vector)


def test_deep_nesting_is_no_burden() -> None:
    net: nn.Layer = nn.ReLU()
    for _ in range(60):
        net = nn.Sequential([net], rng=None)
    assert nn.Sequential([net, nn.Dense(2, 1)], rng=np.random.default_rng(0)).predict([[1, 2]]).shape == (1, 1)


def test_layers_inside_layers_are_refused(rng: np.random.Generator) -> None:
    class Residual(nn.Layer):
        """y = x + f(x), with f a layer that nobody binds."""

        def __init__(self, inner: nn.Layer) -> None:
            self.inner, self.params = inner, inner.params

    with pytest.raises(ValueError, match="holds another layer"):
        nn.Sequential([Residual(nn.Dense(2, 2))], rng=rng)


def test_gradients_have_the_widest_dtype(rng: np.random.Generator) -> None:
    class Narrow(nn.Dense):
        """Returns float32 gradients."""

        def backward(self, dy: Any, cache: Any) -> Any:
            dx, grads = super().backward(dy, cache)
            return dx, nn.Parameters(grads.layout, grads.vector.astype(np.float32))

    net = nn.Sequential([nn.Dense(2, 2), Narrow(2, 1)], rng=rng)
    y, cache = net.forward(np.ones((1, 2)))
    assert net.backward(y, cache)[1].dtype == np.float64


def test_parameters_compare_by_value(rng: np.random.Generator) -> None:
    net = nn.Sequential([nn.Dense(2, 2)], rng=rng)
    other = copy.deepcopy(net)
    assert net.params == other.params
    other.params["0.b"] = [1, 2]
    assert net.params != other.params and net.params != {}


def test_arguments_of_constructors() -> None:
    for make in (
        lambda: nn.SGD(10**400),
        lambda: nn.SGD(0.1, momentum=0.5, nesterov="no"),  # type: ignore[arg-type]
        lambda: nn.Dense(1, 1, initializer="he"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="must be"):
            make()
    params = nn.Parameters({"W": (1, 1)}, np.ones(1))
    with pytest.raises(ValueError, match="learning rate of step 0 is inf"):
        nn.SGD(lambda step: 1e308**2).step(params, params.like())


def test_whether_there_are_values_is_a_flag_of_each_name(rng: np.random.Generator) -> None:
    layer = nn.Dense(2, 1)
    assert not layer.params.filled and layer.params.unfilled() == ["W", "b"]
    layer.params["W"][:] = 1.0  # in place: nobody is told
    with pytest.raises(ValueError, match=r"has no values for \['W', 'b'\].*mark_filled"):
        layer.forward(np.ones((1, 2)))
    layer.params.mark_filled("W")
    assert layer.params.unfilled() == ["b"]
    net = nn.Sequential([nn.ReLU(), nn.Sequential([layer], rng=None)], rng=None)
    for twin in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.with_params(net.params)):
        assert twin.params.unfilled() == ["1.0.b"] == [f"1.0.{name}" for name in twin.params.sub("1.0").unfilled()]
    for fails in (
        lambda: nn.freeze(net),
        lambda: nn.save(net, "nowhere"),
        lambda: nn.fit(net, nn.HalfSquaredError(), nn.SGD(0.1), np.ones((1, 2)), np.ones(1), n_epochs=1, rng=rng),
    ):
        with pytest.raises(ValueError, match=r"has no values for \['1\.0\.b'\]"):
            fails()
    net.params.sub("1")["0.b"] = [0.5]  # seen by all that name this memory
    assert net.params.filled and layer.params.filled and net.layers[1].params.filled
    assert net.predict([[1, 2]]).tolist() == [[3.5]]
    other = nn.Dense(2, 1)
    other.params.vector = [1, 2, 3]
    assert other.params.filled and other.params.like().filled and nn.Parameters({"W": (1, 1)}, np.zeros(1)).filled
    kept = nn.Dense(2, 1)
    net = nn.Sequential([kept], rng=rng)
    assert kept.params.filled and net.params.filled
    kept.params["b"] = [np.nan]  # a number like any other: what has diverged has values
    assert np.isnan(net.predict([[1, 2]])).all()


def test_matrices_are_what_decays(rng: np.random.Generator) -> None:
    params = nn.Parameters({"g": (3,), "U": (2, 3), "0.E": (4, 1), "K": (2, 1, 1), "W": (2,)})
    assert params.matrices() == ["U", "0.E", "K"]
    params.vector = np.ones(len(params.vector))
    nn.SGD(0.1, weight_decay=1.0).step(params, params.like())
    assert {name: float(params[name].ravel()[0]) for name in params} == {"g": 1, "U": 0.9, "0.E": 0.9, "K": 0.9, "W": 1}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: repr(example.make(3)))
def test_gradients_are_those_of_backward_without_dx(example: Example, rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3))
    alone = example.make(3)
    alone.initialize(rng)
    nested = nn.Sequential([nn.Concatenate([example.make(3), nn.Residual([nn.Dense(3, 3), nn.Tanh()])])], rng=rng)
    for layer in (alone, nested):
        y, cache = layer.forward(x, np.random.default_rng(0))
        dy = rng.normal(size=y.shape)
        np.testing.assert_array_equal(layer.gradients(dy, cache).vector, layer.backward(dy, cache)[1].vector)
        with pytest.raises(ValueError, match="shape"):
            layer.gradients(dy[:2], cache)


def test_gradients_of_a_dense_whose_backward_is_anothers(rng: np.random.Generator) -> None:
    class Doubled(nn.Dense):
        def backward(self, dy: Any, cache: Any) -> Any:
            return super().backward(2 * dy, cache)

    layer = Doubled(2, 2, rng=rng)
    y, cache = layer.forward(rng.normal(size=(3, 2)))
    np.testing.assert_array_equal(layer.gradients(y, cache).vector, layer.backward(y, cache)[1].vector)


def test_widths_of_branches_that_are_known_in_part(rng: np.random.Generator) -> None:
    parts = [nn.Parallel([nn.Dense(2, 1), nn.Tanh()]), nn.Parallel([nn.Tanh(), nn.Dense(2, 2)])]
    both = nn.Concatenate(parts)
    assert both.in_features == (2, 2)
    with pytest.raises(ValueError, match="take one x"):
        nn.Concatenate([nn.Dense(2, 1), nn.Dense(3, 1)])


def test_a_gradient_that_is_zero_throughout_is_right() -> None:
    class Cube(nn.Layer):
        def forward(self, x: Any, rng: Any = None) -> Any:
            return x * x * x, x

        def backward(self, dy: Any, cache: Any) -> Any:
            return dy * 3 * cache * cache, nn.Parameters({})

    assert nn.check_layer(Cube(), np.zeros((2, 2))).ok
