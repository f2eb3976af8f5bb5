"""The other checkers, each as its users would call it, with its defaults, on the same forward and backward.

Each takes a Problem and says whether it is content. A framework's checker gets the NumPy code wrapped as its own custom
function, which is how one would check NumPy code with it. None can see a training step, or a contract between calls.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass
class Problem:
    """y = output(arrays), and gradients = pullback(arrays, dy), all flat lists of float64 arrays."""

    arrays: list[Array]
    output: Callable[[list[Array]], Array]
    pullback: Callable[[list[Array], Array], list[Array | None]]

    def gradients(self, arrays: list[Array], dy: Array) -> list[Array]:
        """Return the gradients, zeros where there is none."""
        found = self.pullback(arrays, dy)
        return [np.zeros(a.shape) if g is None else np.asarray(g) for g, a in zip(found, arrays, strict=True)]

    def scalar(self) -> tuple[Callable[[Array], float], Callable[[Array], Array], Array]:
        """Return (f, grad, x0) of one flat vector: the cotangent is drawn, as a user would have to."""
        sizes = np.cumsum([a.size for a in self.arrays])[:-1]
        shapes = [a.shape for a in self.arrays]
        y = np.asarray(self.output(self.arrays))
        dy = np.random.default_rng(0).normal(size=y.shape) if y.size > 1 else np.ones(y.shape)

        def split(v: Array) -> list[Array]:
            return [part.reshape(shape).copy() for part, shape in zip(np.split(v, sizes), shapes, strict=True)]

        def f(v: Array) -> Any:
            return (dy * self.output(split(v))).sum()

        def grad(v: Array) -> Array:
            return np.concatenate([np.ravel(g) for g in self.gradients(split(v), dy)])

        return f, grad, np.concatenate([np.ravel(a) for a in self.arrays])


def torch_gradcheck(problem: Problem, *, fast: bool) -> bool:
    """torch.autograd.gradcheck, with its default eps, atol and rtol."""
    import torch

    torch.set_num_threads(1)

    class Wrapped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.arrays = [t.detach().numpy().copy() for t in tensors]
            return torch.from_numpy(np.array(problem.output(ctx.arrays), float))

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            grads = problem.gradients(ctx.arrays, dy.detach().numpy().copy())
            return tuple(torch.from_numpy(np.array(g, float)) for g in grads)

    inputs = [torch.from_numpy(a.copy()).requires_grad_() for a in problem.arrays]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(torch.autograd.gradcheck(Wrapped.apply, inputs, fast_mode=fast, raise_exception=False))


def jax_check_grads(problem: Problem, *, x64: bool) -> bool:
    """jax.test_util.check_grads, reverse mode, first order, default tolerances."""
    import jax
    import jax.numpy as jnp
    from jax.test_util import check_grads

    with jax.enable_x64(x64):
        kind = jnp.float64 if x64 else jnp.float32
        y = np.asarray(problem.output(problem.arrays))
        out = jax.ShapeDtypeStruct(y.shape, kind)
        specs = tuple(jax.ShapeDtypeStruct(a.shape, kind) for a in problem.arrays)

        def wide(arrays: Any) -> list[Array]:
            return [np.array(a, np.float64) for a in arrays]

        @jax.custom_vjp
        def f(*arrays: Any) -> Any:
            return jax.pure_callback(lambda *a: np.asarray(problem.output(wide(a)), kind), out, *arrays)

        def forward(*arrays: Any) -> Any:
            return f(*arrays), arrays

        def backward(arrays: Any, dy: Any) -> Any:
            def call(dy: Any, *a: Any) -> Any:
                return tuple(np.asarray(g, kind) for g in problem.gradients(wide(a), np.array(dy, np.float64)))

            return jax.pure_callback(call, specs, dy, *arrays)

        f.defvjp(forward, backward)
        try:
            check_grads(f, tuple(jnp.asarray(a, kind) for a in problem.arrays), order=1, modes=["rev"])
        except AssertionError:
            return False
    return True


def autograd_check_grads(problem: Problem) -> bool:
    """autograd.test_util.check_grads, reverse mode, first order."""
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    @primitive
    def f(*arrays: Any) -> Any:
        return np.asarray(problem.output(list(arrays)))

    def rule(k: int) -> Any:
        return lambda answer, *arrays: lambda dy: problem.gradients(list(arrays), np.asarray(dy))[k]

    defvjp(f, *[rule(k) for k in range(len(problem.arrays))])
    try:
        check_grads(f, modes=["rev"], order=1)(*problem.arrays)
    except AssertionError:
        return False
    return True


def scipy_check_grad(problem: Problem) -> bool:
    """scipy.optimize.check_grad, which returns a number: content below 1e-6."""
    from scipy.optimize import check_grad

    f, grad, x = problem.scalar()
    return bool(check_grad(f, grad, x) < 1e-6)


def statsmodels_fprime(problem: Problem, *, complex_step: bool) -> bool:
    """Statsmodels' approx_fprime (centred) or approx_fprime_cs, compared by numpy.allclose."""
    from statsmodels.tools.numdiff import approx_fprime, approx_fprime_cs

    f, grad, x = problem.scalar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = approx_fprime_cs(x, f) if complex_step else approx_fprime(x, f, centered=True)
    return bool(np.allclose(np.ravel(found), grad(x)))


OPPONENTS: dict[str, Callable[[Problem], bool]] = {
    "torch gradcheck": lambda p: torch_gradcheck(p, fast=False),
    "torch, fast": lambda p: torch_gradcheck(p, fast=True),
    "jax, x64": lambda p: jax_check_grads(p, x64=True),
    "jax, float32": lambda p: jax_check_grads(p, x64=False),
    "autograd": autograd_check_grads,
    "scipy": scipy_check_grad,
    "statsmodels": lambda p: statsmodels_fprime(p, complex_step=False),
    "statsmodels, complex": lambda p: statsmodels_fprime(p, complex_step=True),
}
