"""The fast path: the mathematics of the layers, compiled. The only importer of Numba, and this file is its only door.

``runner`` does the steps of an epoch as NumPy's runner in ``training`` does them, ``predictor`` a whole prediction. Numba
is imported when the first of them is made, never before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, Layer, Loss, Optimizer, is_sparse
from ..layers import Dense
from ..losses import MeanSquaredError
from ..network import Sequential
from ..optimizers import SGD
from .program import DENSE, KIND, N_IN, N_OUT, PLAIN, Program, compile_network, compile_rule
from .program import Unknown as Unknown

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import DTypeLike

    Score = Callable[[Any, int, Array], Any]

# What a step costs on the NumPy path, roughly: a layer's calls 40 us, a multiply-add 0.1 ns, a parameter's update 8 ns.
_LAYER, _MULTIPLY_ADD, _UPDATE = 40e-6, 0.1e-9, 8e-9
WORTH_IT = 2.0  # seconds on the NumPy path; compiling takes some ten seconds once, and loading half of one per process
CHUNK = 0.05  # seconds in one compiled call: an interrupt waits for its end
_FAST = 2e10  # multiply-adds a second at the least, to cut chunks by


class Unavailable(ValueError):
    """There is no compiled engine in this process; the message says why."""


def kernels() -> ModuleType:
    """Return the module of compiled functions.

    Raises
    ------
    Unavailable
        If Numba, or SciPy, whose BLAS it calls, is missing or broken, or compilation is switched off.
    """
    from importlib.util import find_spec

    for name in ("numba", "scipy"):
        if find_spec(name) is None:
            raise Unavailable(f"{name} is not installed")
    try:
        import numba

        if not numba.config.DISABLE_JIT:
            from . import steps

            return steps
    except Exception as error:  # an installation can be broken in many ways, and none may keep a network from training
        raise Unavailable(f"numba can't be used: {type(error).__name__}: {error}") from error
    raise Unavailable("compilation is switched off by NUMBA_DISABLE_JIT")


def is_worth_it(net: Layer, x: Any, *, n_epochs: int, batch_size: int) -> bool:
    """Tell whether so much training is worth loading the engine, and the engine knows the network.

    By estimated work alone, whatever is loaded or compiled already, so that a job gives the same bits each time.
    """
    try:
        program = compile_network(net, net.params.dtype, sparse=is_sparse(x))
    except Unknown:
        return False
    n_steps = n_epochs * -(-x.shape[0] // batch_size)
    step = len(program.table) * _LAYER + net.params.vector.size * _UPDATE
    seconds = n_steps * step + n_epochs * x.shape[0] * _multiply_adds(program, x) * _MULTIPLY_ADD
    return bool(seconds > WORTH_IT)


def _multiply_adds(program: Program, x: Any) -> float:
    """Return how many a row takes, forward and backward."""
    dense = program.table[program.table[:, KIND] == DENSE]
    sizes = dense[:, N_IN] * dense[:, N_OUT]
    if is_sparse(x):
        sizes[0] = x.nnz / max(x.shape[0], 1) * dense[0, N_OUT]
    return 3.0 * float(sizes.sum())


def runner(
    net: Layer, loss: Loss, optimizer: Optimizer, x: Any, y: Array, weight: Array | None, batch_size: int, l2: float
) -> Callable[[Array, np.random.Generator], Generator[tuple[Array, Array]]]:
    """Return a function that runs the steps of an epoch; it keeps no reference to a parameter or a moment.

    Raises
    ------
    Unknown
        If there is a layer, loss or optimizer that the engine does not know.
    Unavailable
        If there is no engine.
    """
    dtype = net.params.dtype
    program = compile_network(net, dtype, sparse=is_sparse(x))
    rule = compile_rule(loss, optimizer, y, l2)
    steps = kernels()
    none = np.empty(0, dtype)
    data = steps.Data(
        none if is_sparse(x) else plain(x, dtype).ravel(),
        csr(x, dtype),
        plain(y, dtype).ravel() if y.dtype.kind == "f" else none,
        plain(y, np.int64) if y.dtype.kind == "i" else np.empty(0, np.int64),
        np.empty(0) if weight is None else plain(weight, np.float64),
    )
    no_slots = np.empty(0, np.int32)
    slots = steps.Slots(no_slots, no_slots, no_slots, np.ones(1), np.empty(0))
    compact = is_sparse(x) and l2 == 0 and (rule.update == PLAIN or rule.lazy)
    if compact:
        n_features = x.shape[1]
        row_sizes = np.sort(np.diff(data.csr.indptr))[::-1]
        n_numbers = int(row_sizes[:batch_size].sum())  # in a batch, at most
        slots = steps.Slots(
            np.full(n_features, -1, np.int32),
            np.empty(min(n_features, n_numbers), np.int32),
            np.empty(n_numbers, np.int32),
            np.ones(1),
            np.ones(n_features),
        )
    work = steps.work_for(program, rule, slots, net.params.vector.size, batch_size, dtype)
    step = 1e-6 + (batch_size * _multiply_adds(program, x) + net.params.vector.size) / _FAST
    n_in_chunk = max(1, int(CHUNK / step))

    def run(order: Array, rng: np.random.Generator) -> Generator[tuple[Array, Array]]:
        vector = net.params.vector
        m, v = optimizer.state.get("m", none), optimizer.state.get("v", none)
        first = 0
        try:
            while first < len(order):
                n_left = -(-(len(order) - first) // batch_size)
                rates = _learning_rates(optimizer, min(n_in_chunk, n_left))
                rows = order[first : first + len(rates) * batch_size]
                uniforms = rng.random(len(rows) * program.n_uniforms, dtype=np.float32)
                values, totals, done = np.empty(len(rates)), np.empty(len(rates)), np.zeros(2, np.int64)
                try:
                    refused = steps.train(
                        program,
                        rule,
                        data,
                        slots,
                        work,
                        vector,
                        m,
                        v,
                        rows,
                        batch_size,
                        rates,
                        optimizer.n_steps,
                        uniforms,
                        values,
                        totals,
                        done,
                    )
                finally:  # also when Ctrl-C is raised here: the updates are made
                    optimizer.n_steps += int(done[0])
                if refused:
                    loss.forward(np.array([[refused]], dtype), [[0]])  # says what is wrong with it
                yield values[: done[1]], totals[: done[1]]
                first += len(rows)
        finally:
            if compact:
                steps.settle(vector, program.table[0, N_OUT], slots)

    return run


def _learning_rates(optimizer: Optimizer, n: int) -> Array:
    """Return the learning rates of the next ``n`` updates, or of those before the first that is none."""
    if not callable(optimizer.learning_rate):
        return np.full(n, optimizer.learning_rate_at(optimizer.n_steps))
    rates: list[float] = []
    for i in range(n):
        try:
            rates.append(optimizer.learning_rate_at(optimizer.n_steps + i))
        except Exception:
            if not rates:
                raise
            break
    return np.array(rates)


def predictor(net: Layer, *, sparse: bool) -> Callable[[Any], Array]:
    """Return a function from x to the raw output, in inference mode, with the parameters as they are when it is called.

    Raises
    ------
    Unknown, Unavailable
        As ``runner``.
    """
    n_outputs = compile_network(net, net.params.dtype, sparse=sparse).table[-1, N_OUT]
    kernels()

    def predict(x: Any) -> Array:
        score, score_csr = scorer(net, None)
        out = np.empty((x.shape[0], n_outputs), net.params.dtype)
        if sparse:
            score_csr(x, 0, out)
        else:
            score(plain(x, net.params.dtype), 0, out)
        return out

    return predict


def scorer(net: Layer, link: Layer | None) -> tuple[Score, Score]:
    """Return functions (x, first, out), for plain arrays and for CSR matrices, that write link(net(x)) to ``out``.

    Of the rows of x from ``first`` on, as many as ``out`` has. They return whether x is finite.

    Raises
    ------
    Unknown, Unavailable
        As ``runner``.
    """
    dtype = net.params.dtype
    program = compile_network(net, dtype, link=link)
    steps = kernels()
    fixed = (program.table, program.numbers, program.n_block, program.n_widest, net.params.vector)

    def score_csr(x: Any, first: int, out: Array) -> Any:
        return steps.infer_csr(*fixed, csr(x, dtype), first, out)

    return partial(steps.infer, *fixed), score_csr


def plain(a: Array, dtype: DTypeLike) -> Array:
    """Return ``a`` as the kernels are compiled for it: in C order and writable; a copy, where it is not."""
    return np.require(a, dtype, ["C", "W"])


def csr(x: Any, dtype: DTypeLike) -> Any:
    """Return the arrays of a CSR matrix as the kernels read them; empty ones for a dense x.

    Raises
    ------
    ValueError
        If an index lies outside the matrix: the kernels would read what is not theirs.
    """
    steps = kernels()
    if not is_sparse(x):
        return steps.Csr(np.empty(0, dtype), np.empty(0, np.int32), np.empty(0, np.int64))
    indptr, indices = x.indptr, x.indices
    inside = len(indptr) == x.shape[0] + 1 and indptr[0] == 0 and (np.diff(indptr) >= 0).all()
    inside = inside and indptr[-1] <= min(len(indices), len(x.data))
    if not inside or (len(indices) and not (indices.min() >= 0 and indices.max() < x.shape[1])):
        raise ValueError(f"the CSR matrix x of shape {x.shape} has indices outside of it")
    return steps.Csr(plain(x.data, dtype), plain(indices, np.int32), plain(indptr, np.int64))


def warmup() -> bool:
    """Compile the engine for float64 and float32, and keep it on disk: for the build of a container, or a server's start.

    The first call takes some tens of seconds; a later process loads what the first one kept, in half a second. Where
    there is no engine it warns, and the library works without.

    Returns
    -------
    bool
        Whether there is a compiled engine.
    """
    rng = np.random.default_rng(0)
    try:
        kernels()
        from scipy.sparse import csr_array

        for dtype in (np.float64, np.float32):
            x, y = np.zeros((2, 1), dtype), np.zeros((2, 1))
            net = Sequential([Dense(1, 1)], rng=rng, dtype=dtype)
            run = runner(net, MeanSquaredError(), SGD(0.0), x, y, None, 2, 0.0)
            list(run(np.arange(2), rng))
            predictor(net, sparse=False)(x)
            predictor(net, sparse=True)(csr_array(x))
            no_slots = np.empty(0, np.int32)
            slots = kernels().Slots(no_slots, no_slots, no_slots, np.ones(1), np.ones(1))
            kernels().settle(net.params.vector, 1, slots)
    except Unavailable as reason:
        warn_once(reason)
        return False
    return True


_has_warned = False


def warn_once(reason: Unavailable) -> None:
    """Say, once a process, that work that the engine would do is done by NumPy."""
    global _has_warned
    if not _has_warned:
        _has_warned = True
        warnings.warn(f"{reason}; nnprofile works without its compiled engine, slower", RuntimeWarning, stacklevel=3)
