"""L-BFGS: SciPy minimizes the objective of all rows; here are its value and its gradient, by the engine or by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import engine
from ..contract import Array, Loss
from ..layers import Sequential

_PIECE = 1024  # rows at a time, whose numbers stay in the cache


def lbfgs(
    net: Sequential,
    loss: Loss,
    x: Any,
    y: Array,
    weight: Array | None,
    *,
    l2: float,
    scale: float,
    path: str,
    **options: Any,
) -> Any:
    """Move the parameters of ``net`` to a minimum of ``scale`` times the objective; return SciPy's OptimizeResult.

    ``path`` is "auto", "numpy" or "numba", as ``fit``'s ``engine``; ``options`` are those of SciPy's L-BFGS-B.
    """
    from scipy.optimize import minimize

    y = loss.targets(y, net.out_features)  # type: ignore[arg-type]
    given = (net, loss, x, y, weight, l2)
    by_engine = engine.made(
        *(path, lambda: engine.differentiator(*given), net, x), n_epochs=options["maxiter"], batch_size=x.shape[0]
    )

    def value_and_gradient(vector: Array) -> tuple[float, Array]:
        if not np.isfinite(vector).all():
            return np.inf, np.zeros_like(vector)
        net.params.vector[...] = vector
        value, gradient = differentiate(*given) if by_engine is None else by_engine()
        return scale * value, scale * gradient.astype(np.float64)

    before = net.params.vector.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        found = minimize(
            value_and_gradient,
            net.params.vector.astype(np.float64),
            method="L-BFGS-B",
            jac=True,
            options=options,
        )
    net.params.vector[...] = found.x if np.isfinite(found.x).all() else before
    return found


def differentiate(
    net: Sequential, loss: Loss, x: Any, y: Array, weight: Array | None, l2: float
) -> tuple[float, Array]:
    """Return J and dJ as ``objective`` does, piece by piece, and without dx of the first layer, which nobody needs."""
    n_samples = x.shape[0]
    total = float(n_samples if weight is None else weight.sum()) or 1.0
    J = 0.0
    grads = net.params.like(np.float64)
    first, rest = net.layers[0], net.layers[1:]
    for start in range(0, n_samples, _PIECE):
        rows = slice(start, start + _PIECE)
        w = None if weight is None else weight[rows]
        share = (len(y[rows]) if w is None else float(w.sum())) / total
        if share == 0:
            continue
        z, cache = first.forward(x[rows])
        caches = [cache]
        for layer in rest:
            z, cache = layer.forward(z)
            caches.append(cache)
        value, cache = loss.forward(z, y[rows], w)
        J += share * float(value)
        dz = share * loss.backward(cache)
        for layer, place, cache in zip(rest[::-1], net._places[:0:-1], caches[:0:-1], strict=True):
            dz, layer_grads = layer.backward(dz, cache)  # type: ignore[assignment]
            grads.vector[place] += layer_grads.vector
        grads["0.W"] += caches[0].T @ dz
        grads["0.b"] += dz.sum(axis=0)
    if l2:
        for name in net.params.matrices():
            W = net.params[name]
            J += l2 / (2 * total) * float((W * W).sum())
            grads[name] += (l2 / total) * W
    return J, grads.vector
