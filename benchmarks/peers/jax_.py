"""JAX with the whole epoch in one jitted scan: NumPy's permutation, bias corrections outside, all buffers donated."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import adult, cases
from benchmarks.cases import Case

jax.config.update("jax_enable_x64", True)
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def _logits(params: Any, x: Any, activation: str | None = None) -> Any:
    for i, (W, b) in enumerate(params):
        x = x @ W + b
        if i < len(params) - 1:
            x = jnp.tanh(x) if activation == "tanh" else jnp.maximum(x, 0)
    return x


def _loss(params: Any, x: Any, y: Any, activation: str | None = None) -> Any:
    z = _logits(params, x, activation)
    if z.shape[1] == 1:
        z = z[:, 0]
        return jnp.mean(jnp.logaddexp(jnp.zeros((), z.dtype), z) - y * z)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1))


def _move(case: Case, params: Any, moments: Any, grads: Any, rates: Any) -> Any:
    tree = jax.tree.map
    if case["optimizer"] == "sgd":
        return tree(lambda p, g: p - rates[0] * g, params, grads), moments
    m = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, moments[0], grads)
    v = tree(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, moments[1], grads)
    return tree(lambda p, m, v: p - rates[0] * m / (jnp.sqrt(v * rates[1]) + EPSILON), params, m, v), (m, v)


def _rates(case: Case, t: int, n: int) -> np.ndarray:
    steps = t + np.arange(1, n + 1)
    if case["optimizer"] == "sgd":
        return np.full((n, 2), 0.01, case["dtype"])
    return np.stack([0.001 / (1 - BETA1**steps), 1 / (1 - BETA2**steps)], 1).astype(case["dtype"])


@functools.cache
def _compiled(optimizer: str, activation: str | None) -> Any:
    """Return the jitted epoch: compiled once for each shape of its arguments."""
    case = {"optimizer": optimizer}

    def epoch(params: Any, moments: Any, x: Any, y: Any, index: Any, rates: Any) -> Any:
        def step(carry: Any, now: Any) -> Any:
            params, moments = carry
            rows, rate = now
            value, grads = jax.value_and_grad(_loss)(params, x[rows], y[rows], activation)
            return _move(case, params, moments, grads, rate), value

        return jax.lax.scan(step, (params, moments), (index, rates))

    return jax.jit(epoch, donate_argnums=(0, 1))


class _Epoch:
    def __init__(self, case: Case, x: np.ndarray, y: np.ndarray) -> None:
        self.case, self.t, self.rng = case, 0, np.random.default_rng(2)
        self.x = jnp.asarray(x)
        self.y = jnp.asarray(y.astype(case["dtype"]) if case["sizes"][-1] == 1 else y.astype(np.int32))
        self.params = [(jnp.asarray(W), jnp.asarray(b)) for W, b in cases.weights(case)]
        zeros = jax.tree.map(jnp.zeros_like, self.params)
        self.moments = () if case["optimizer"] == "sgd" else (zeros, jax.tree.map(jnp.zeros_like, self.params))

        self.run = _compiled(case["optimizer"], case.get("activation"))

    def __call__(self) -> None:
        case, batch = self.case, self.case["batch"]
        order = self.rng.permutation(case["rows"]).astype(np.int32)
        n_whole = case["rows"] // batch
        parts = [order[: n_whole * batch].reshape(n_whole, batch)]
        if n_whole * batch < len(order):
            parts.append(order[None, n_whole * batch :])
        for index in parts:
            (self.params, self.moments), values = self.run(
                self.params, self.moments, self.x, self.y, index, _rates(case, self.t, len(index))
            )
            self.t += len(index)
        np.asarray(values)
        assert self.params[0][0].dtype == case["dtype"]


def train(case: Case) -> Any:
    """Microseconds per step."""
    return cases.per_step(case, _Epoch(case, *cases.data(case)))


def sparse(case: Case) -> Any:
    """Microseconds per step of SGD: the gradient of the gathered rows only, scattered into W in place."""
    if case["optimizer"] != "sgd":
        raise NotImplementedError("JAX has no sparse Adam")
    x, y = cases.sparse_data(case)
    columns = jnp.asarray(x.indices.reshape(case["rows"], -1))
    labels = jnp.asarray(y.astype(np.float32))
    (W, b), *rest = [(jnp.asarray(W), jnp.asarray(b)) for W, b in cases.weights(case)]
    rng = np.random.default_rng(2)

    def value(gathered: Any, b: Any, rest: Any, y: Any) -> Any:
        return _loss(rest, jnp.maximum(gathered.sum(1) + b, 0), y)  # every value is 1

    def epoch(W: Any, b: Any, rest: Any, columns: Any, labels: Any, index: Any) -> Any:
        def step(carry: Any, rows: Any) -> Any:
            W, b, rest = carry
            at = columns[rows]
            l, (dg, db, drest) = jax.value_and_grad(value, (0, 1, 2))(W[at], b, rest, labels[rows])
            rest = jax.tree.map(lambda p, g: p - 0.01 * g, rest, drest)
            return (W.at[at].add(-0.01 * dg), b - 0.01 * db, rest), l

        return jax.lax.scan(step, (W, b, rest), index)

    run = jax.jit(epoch, donate_argnums=(0, 1, 2))
    state = [W, b, rest]

    def one() -> None:
        index = rng.permutation(case["rows"]).astype(np.int32).reshape(-1, case["batch"])
        state[:], values = run(*state, columns, labels, index)
        np.asarray(values)

    return cases.per_step(case, one)


def predict(case: Case) -> Any:
    """Microseconds per call, from NumPy to NumPy."""
    params = [(jnp.asarray(W), jnp.asarray(b)) for W, b in cases.weights(case)]
    x, _ = cases.data(case)
    run = jax.jit(lambda x: jax.nn.sigmoid(_logits(params, x)))
    return cases.per_call(lambda: np.asarray(run(x)))


def curve(case: Case) -> Any:
    """Seconds and validation loss after each epoch."""
    x, y, x_val, y_val = adult.data()
    case = case | {"sizes": [x.shape[1], *case["sizes"][1:]], "rows": len(x)}
    epoch = _Epoch(case, x, y)
    return adult.clock(
        case, epoch, lambda: adult.validation_loss(np.asarray(_logits(epoch.params, x_val))[:, 0], y_val)
    )


def _cell(kind: str, n: int, params: Any, state: Any, a: Any) -> Any:
    """Return the state after a step: h, and for an LSTM the cell."""
    U, c = params["U"], params["c"]
    u = state[0] @ U + c
    if kind == "RNN":
        return (jnp.tanh(a + u),)
    if kind == "GRU":
        r, z = jax.nn.sigmoid(a[:, :n] + u[:, :n]), jax.nn.sigmoid(a[:, n : 2 * n] + u[:, n : 2 * n])
        new = jnp.tanh(a[:, 2 * n :] + r * u[:, 2 * n :])
        return ((1 - z) * new + z * state[0],)
    i, f, g, o = jnp.split(a + u, 4, axis=1)
    cell = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def _recurrence(kind: str, params: Any, x: Any) -> Any:
    """Return all h of padded sequences, (length, n, features)."""
    n = x.shape[2]
    a = x @ params["W"] + params["b"]
    start = tuple(jnp.zeros(x.shape[1:], x.dtype) for _ in range(2 if kind == "LSTM" else 1))

    def step(state: Any, now: Any) -> Any:
        state = _cell(kind, n, params, state, now)
        return state, state[0]

    return jax.lax.scan(step, start, a)[1]


def _normalized(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def _block(heads: int, params: Any, x: Any) -> Any:
    n, T, f = x.shape
    qkv = _normalized(x) @ params["W"] + params["b"]
    q, k, v = jnp.moveaxis(qkv.reshape(n, T, 3, heads, f // heads), (2, 3), (0, 2))
    s = jnp.where(jnp.tri(T, dtype=bool), q @ jnp.swapaxes(k, -1, -2) / (f // heads) ** 0.5, -jnp.inf)
    x = x + jnp.moveaxis(jax.nn.softmax(s) @ v, 1, 2).reshape(n, T, f) @ params["V"] + params["c"]
    h = jnp.maximum(_normalized(x) @ params["V1"] + params["c"], 0)
    return x + h @ params["V2"] + params["c"]


def sequences(case: Case) -> Any:
    """Microseconds of forward and backward on one batch, padded, jitted as a whole."""
    n, kind, lengths = cases.WIDTH, case["kind"], cases.lengths(case)
    values, dvalues = cases.events(case)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32) / 8)  # noqa: E731
    if kind == "softmax":
        labels = jnp.asarray(np.random.default_rng(0).integers(0, case["items"], len(values)))
        params = {"W": draw(n, case["items"]), "b": draw(case["items"])}

        def value(params: Any, x: Any) -> Any:
            z = _normalized(x) @ params["W"] + params["b"]
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), labels[:, None], 1))

        learn, x = jax.jit(jax.value_and_grad(value, (0, 1))), jnp.asarray(values)
        return cases.per_call(lambda: jax.block_until_ready(learn(params, x)))
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}.get(kind, 3)
    params = {"W": draw(n, gates * n), "U": draw(n, gates * n), "b": draw(gates * n), "c": draw(gates * n)}
    if kind == "attention":
        params = {"W": draw(n, 3 * n), "b": draw(3 * n), "c": draw(n)} | {
            name: draw(n, n) for name in ("V", "V1", "V2")
        }
    if kind == "convolution":
        params = {"W": draw(3, n, n), "b": draw(n)}
    padded = []
    for a in (values, dvalues):
        out = np.zeros((len(lengths), lengths.max(), n), np.float32)
        out[np.arange(lengths.max()) < lengths[:, None]] = a
        padded.append(jnp.asarray(out if kind in ("attention", "convolution") else out.transpose(1, 0, 2)))
    x, dy = padded

    def run(params: Any, x: Any) -> Any:
        if kind == "attention":
            return _block(case["heads"], params, x)
        if kind == "convolution":
            wide = jnp.pad(x, ((0, 0), (2, 0), (0, 0)))
            return sum(wide[:, k : k + x.shape[1]] @ params["W"][k] for k in range(3)) + params["b"]
        return _recurrence(kind, params, x)

    def both(params: Any, x: Any, dy: Any) -> Any:
        y, back = jax.vjp(run, params, x)
        return y, back(dy)

    learn = jax.jit(both)
    return cases.per_call(lambda: jax.block_until_ready(learn(params, x, dy)))
