"""Second derivatives, by the complex step through a gradient: exact to rounding, one evaluation for each product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..contract import Parameters
from .foreign import handed_over
from .procedures import ObjectiveProcedure
from .reference import H, careful
from .tree import leaves, pick, rebuild
from .world import describe, untouched


def hvp(grad: Callable[[Any], Any], x: Any, v: Any) -> Any:
    """Return the Hessian-vector product H v = Im grad(x + i h v) / h, with h = 1e-30.

    The Hessian is that of the function whose gradient ``grad`` is; its error is that of one evaluation of ``grad``, about
    1e-15. A gradient that has been checked gives a Hessian that is right; and its product with v is what a double backward
    should give, so that ``check_function(grad, double_backward, x)`` checks one.

    Parameters
    ----------
    grad : function
        x -> gradient, of the same structure as x; complex numbers must pass through it. For a network, ``gradient_of``
        makes one of ``net``, ``loss`` and data.
    x, v : array, or nested dicts, lists and tuples of arrays; or Parameters
        Of one structure.

    Returns
    -------
    array, or the same structure

    Raises
    ------
    ValueError
        If v does not match x, or complex numbers do not pass through ``grad``.

    References
    ----------
    Pearlmutter (1994), "Fast exact multiplication by the Hessian"; Squire and Trapp (1998), "Using complex variables to
    estimate derivatives of real functions".

    Examples
    --------
    >>> hvp(lambda x: 3 * x**2, np.array([1.0, 2.0]), np.array([1.0, 10.0])).tolist()  # of sum(x^3)
    [6.0, 120.0]
    """
    here, along = [np.asarray(a) for _, a in leaves(x)], [np.asarray(a) for _, a in pick(v, x)]
    if [a.shape for a in here] != [a.shape for a in along] or not here:
        raise ValueError(
            f"v must have the structure of x, {[a.shape for a in here]}, and both hold floats; got {[a.shape for a in along]}"
        )
    with careful(), untouched(grad):
        return _product(grad, x, here, along)


def _product(grad: Callable[[Any], Any], x: Any, here: list[Any], along: list[Any]) -> Any:
    with careful():
        try:
            out = grad(rebuild(x, iter([a + 1j * H * t for a, t in zip(here, along, strict=True)])))
        except (TypeError, np.exceptions.ComplexWarning) as error:
            raise ValueError(f"complex numbers do not pass through {describe(grad)}: {error}") from error
    parts = [np.asarray(part) for _, part in pick(out, x)]
    if [a.shape for a in parts] != [a.shape for a in here]:
        raise ValueError(
            f"grad must return the structure of x, {[a.shape for a in here]}, got {[a.shape for a in parts]}"
        )
    if not all(np.iscomplexobj(a) for a in parts):
        raise ValueError(f"complex numbers do not pass through {describe(grad)}: real ones come out")
    found = np.concatenate([np.ravel(a.imag) / H for a in parts])
    with careful():
        steps = [_difference(grad, x, here, along, h) for h in (1e-4, 1e-6)]
    if all(np.linalg.norm(found - step) > 1e-3 * (np.linalg.norm(found) + np.linalg.norm(step)) for step in steps):
        raise ValueError(
            f"differences of {describe(grad)} contradict the complex step: is there an abs, norm, var, std, conj or .real in it? "
            "Write x * np.sign(x.real) for abs(x), and (x * x).sum() for its norm's square"
        )
    return rebuild(x, iter([(a.imag / H).astype(b.dtype, copy=False) for a, b in zip(parts, here, strict=True)]))


def _difference(grad: Callable[[Any], Any], x: Any, here: list[Any], along: list[Any], h: float) -> Any:
    """Return (grad(x + h v) - grad(x - h v)) / 2h, flat, with h a share of the size of x over that of v."""
    size = max((float(np.abs(a).max(initial=0.0)) for a in here), default=0.0) or 1.0
    h *= size / (max((float(np.abs(t).max(initial=0.0)) for t in along), default=0.0) or 1.0)
    ends = [grad(rebuild(x, iter([a + s * h * t for a, t in zip(here, along, strict=True)]))) for s in (1, -1)]
    ahead, behind = (np.concatenate([np.ravel(a) for _, a in pick(end, x)]) for end in ends)
    return (ahead - behind) / (2 * h)


def gradient_of(net: Any, loss: Any, x: Any, y: Any, l2: float = 0.0) -> Callable[[Any], Any]:
    """Return the function params -> gradients of the objective J = L(net(x), y) + l2 / (2 n) sum W^2, for ``hvp``.

    Parameters
    ----------
    net, loss, x, y, l2
        As ``check_network`` takes them; the network is copied.

    Returns
    -------
    function
        Of Parameters, or of a mapping like ``net.params``; returns the same.

    Raises
    ------
    ValueError
        If the objects do not have the methods of the contract.

    Examples
    --------
    >>> from nnprofile import Dense, HalfSquaredError, Sequential
    >>> net = Sequential([Dense(2, 1)], rng=np.random.default_rng(0))
    >>> grad = gradient_of(net, HalfSquaredError(), np.ones((3, 2)), np.zeros((3, 1)))
    >>> v = net.params.like()
    >>> v["0.b"] = [1]
    >>> round(float(hvp(grad, net.params, v)["0.b"][0]), 12)  # d^2 J / db^2
    1.0
    """
    p = ObjectiveProcedure(net, loss, x, y, l2)
    with careful():
        p.prepare(np.random.default_rng(0))

    def grad(params: Any) -> Any:
        values = [np.asarray(a) for a in _complex_leaves(params)]
        with handed_over():
            grads = p.run([*p.point[: p.n_inputs], *values], np.ones(()))[1][p.n_inputs :]
        if isinstance(params, Parameters):
            vector = np.concatenate([np.ravel(np.asarray(g)) for g in grads])
            return Parameters(params.layout, vector)
        return rebuild(p.model.structure, iter([np.asarray(g) for g in grads]))

    return grad


def _complex_leaves(tree: Any) -> list[Any]:
    if isinstance(tree, np.ndarray | np.generic | float | complex):
        return [np.asarray(tree)]
    parts = list(tree.values()) if hasattr(tree, "values") else list(tree)
    return [leaf for part in parts for leaf in _complex_leaves(part)]
