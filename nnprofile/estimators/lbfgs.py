"""L-BFGS: SciPy minimizes the objective of all rows; here are its value and its gradient, by the engine or by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract import Array, Loss
from ..engine import choose_backend, differentiator
from ..layers import Sequential
from ..objectives import Objective

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
    engine: str,
    n_threads: int,
    **options: Any,
) -> Any:
    """Move the parameters of ``net`` to a minimum of ``scale`` times the objective; return SciPy's OptimizeResult.

    ``engine`` and ``n_threads`` are as ``fit`` takes them; ``options`` are those of SciPy's L-BFGS-B.
    """
    from scipy.optimize import minimize

    y = loss.targets(y, net.out_features)  # type: ignore[arg-type]
    given = (net, loss, x, y, weight, l2, n_threads)
    objective = Objective(net, loss, l2, trusted=True)
    by_engine = choose_backend(
        engine, lambda: differentiator(*given), net, x, n_epochs=options["maxiter"], batch_size=x.shape[0]
    )

    def value_and_gradient(vector: Array) -> tuple[float, Array]:
        if not np.isfinite(vector).all():
            return np.inf, np.zeros_like(vector)
        net.params.vector[...] = vector
        if by_engine is not None:
            value, gradient = by_engine()
        else:
            value, grads = objective.in_pieces(x, y, weight, _PIECE)
            gradient = grads.vector
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
