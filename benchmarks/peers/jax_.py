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


def _logits(params: Any, x: Any) -> Any:
    for i, (W, b) in enumerate(params):
        x = x @ W + b
        if i < len(params) - 1:
            x = jnp.maximum(x, 0)
    return x


def _loss(params: Any, x: Any, y: Any) -> Any:
    z = _logits(params, x)
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
def _compiled(optimizer: str) -> Any:
    """Return the jitted epoch: compiled once for each shape of its arguments."""
    case = {"optimizer": optimizer}

    def epoch(params: Any, moments: Any, x: Any, y: Any, index: Any, rates: Any) -> Any:
        def step(carry: Any, now: Any) -> Any:
            params, moments = carry
            rows, rate = now
            value, grads = jax.value_and_grad(_loss)(params, x[rows], y[rows])
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

        self.run = _compiled(case["optimizer"])

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
