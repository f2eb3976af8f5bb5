"""The fast path: the mathematics of the layers, compiled. The only importer of Numba, and this file is its only door.

Of a chain of layers of rows, ``runner`` does the steps of an epoch as NumPy's runner in ``training`` does them, and
``predictor`` a whole prediction. Of any other network, ``compiled`` makes a twin, whose layers are compiled one by one. Numba
is imported when the first of them is made, never before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..contract import SPARSE_IS_FOR_DENSE, Array, Layer, Loss, Optimizer, is_sparse, n_rows
from ..layers import Dense, Embedding, Sequential, Tied
from ..layers.compose import every
from ..layers.recurrent import Recurrent
from ..losses import MeanSquaredError, no_probability
from ..optimizers import SGD
from ..ragged import Ragged
from ..validation import all_finite
from .program import DENSE, KIND, MOMENTS, N_IN, N_OUT, TWINNED, Program, Rule, compile_network, compile_rule
from .program import Unknown as Unknown

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import DTypeLike

    Score = Callable[[Any, int, Array], Any]

Made = TypeVar("Made")

# What a step costs on the NumPy path, roughly: a layer's calls 40 us, a multiply-add 0.1 ns, a parameter's update 8 ns;
# to pick a row and its target 300 ns, and each number that a layer puts out, forward and backward, 3 ns.
_LAYER, _MULTIPLY_ADD, _UPDATE, _ROW, _OUTPUT = 40e-6, 0.1e-9, 8e-9, 300e-9, 3e-9
WORTH_IT = 2.0  # seconds on the NumPy path; compiling takes fifteen once, and loading half of one per process
WORTH_THREADS = 1e-3  # seconds of work in a compiled call: to start threads takes a tenth of it
CHUNK = 0.05  # seconds in one compiled call: an interrupt waits for its end
_MOST_FEATURES = 2**31 - 1  # of a sparse x: its indices are int32


CHOICES = ("auto", "numpy", "numba")
_chosen: ContextVar[str] = ContextVar("nnprofile_engine", default="auto")


@contextmanager
def use_engine(name: str) -> Iterator[None]:
    """Choose what "auto" means for all that is done inside ``with``: for searches, whose fits have no argument for it.

    It holds for this context (``contextvars``): neither for other threads nor for other processes. An ``engine=`` other than
    "auto" goes before it.

    Parameters
    ----------
    name : "auto", "numpy" or "numba"
        As ``fit`` takes it; under "numpy" ``freeze`` scores by NumPy too.

    Raises
    ------
    ValueError
        If it is another name.
    """
    check_choice(name)
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def check_choice(name: object) -> None:
    """Raise a ValueError unless this is the name of an engine."""
    if name not in CHOICES:
        raise ValueError(f"engine must be 'auto', 'numpy' or 'numba', got {name!r}")


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


def is_chain(net: Layer, x: Any) -> bool:
    """Tell whether the steps of this network on this x can be compiled as a whole."""
    try:
        check_rows(x)
        compile_network(net, net.params.dtype, sparse=is_sparse(x))
    except Unknown:
        return False
    return True


def is_worth_it(net: Layer, x: Any, *, n_epochs: int, batch_size: int) -> bool:
    """Tell whether so much training is worth loading the engine, and the engine knows the network.

    By estimated work alone, whatever is loaded or compiled already, so that a job gives the same bits each time.
    """
    n_steps = n_epochs * -(-n_rows(x) // batch_size)
    if is_chain(net, x):
        program = compile_network(net, net.params.dtype, sparse=is_sparse(x))
        of_row = _ROW + _OUTPUT * int(program.table[:, N_OUT].sum()) + _MULTIPLY_ADD * _multiply_adds(program, x)
        n_layers, work = len(program.table), n_rows(x) * of_row
    elif any(type(layer) in TWINNED for layer in every(net)):
        n_layers, multiply_adds = _work_of_events(net, x)
        work = multiply_adds * _MULTIPLY_ADD
    else:
        return False
    step = n_layers * _LAYER + net.params.vector.size * _UPDATE
    return bool(n_steps * step + n_epochs * work > WORTH_IT)


def _work_of_events(net: Layer, x: Any) -> tuple[int, float]:
    """Return how many layers run in a step, recurrent ones once for each event of the longest sequence; and the multiply-adds."""
    parts = list(_parts(x))
    n_events = max(len(part.values) if isinstance(part, Ragged) else part.shape[0] for part in parts)
    longest = max((int(part.lengths.max(initial=0)) for part in parts if isinstance(part, Ragged)), default=1)
    found = [layer for layer in every(net) if not layer.children and not isinstance(layer, Embedding)]
    sizes = sum(layer.params[name].size for layer in found for name in layer.params.matrices())
    sizes += sum(layer.params["0.E"].size for layer in every(net) if isinstance(layer, Tied))
    return sum(longest if isinstance(layer, Recurrent) else 1 for layer in found), 3.0 * n_events * sizes


def _parts(x: Any) -> Iterator[Any]:
    if isinstance(x, tuple):
        for part in x:
            yield from _parts(part)
    else:
        yield x


def compiled(net: Layer) -> Layer:
    """Return a twin of ``net`` that computes what it does, on the same parameters, with the layers compiled that can be.

    For networks of sequences, and those that branch: a layer at a time, as in NumPy. Training one trains the other.

    Raises
    ------
    ValueError
        If the engine knows none of its layers, or there is no engine in this process.

    Examples
    --------
    >>> from nnprofile import GRU, Ragged
    >>> net = Sequential([GRU(1, 2)], rng=np.random.default_rng(0))
    >>> x = Ragged(np.array([[1.0], [0.5]]), [0, 2])
    >>> np.allclose(compiled(net).forward(x)[0].values, net.forward(x)[0].values)
    True
    """
    twin: Layer = twin_maker(net)()[0]
    return twin


def twin_maker(net: Layer, *others: Loss | Optimizer) -> Callable[[], list[Any]]:
    """Return a function that makes twins of a network, losses and optimizers as they are when it is called, in one memory.

    Raises
    ------
    Unknown
        If no layer has a kernel, or the dtype has none.
    Unavailable
        As ``kernels``.
    """
    kernels()
    from .memory import Memory
    from .twins import twin_of, twin_of_other

    memory = Memory(net.params.dtype)
    twin_of(net, memory)
    return lambda: [twin_of(net, memory), *(twin_of_other(other, memory) for other in others)]


def check_rows(x: Any, y: Any = None) -> None:
    """Raise Unknown unless x is an array or a CSR matrix, and y an array."""
    if isinstance(x, Ragged | tuple):
        raise Unknown(f"these steps take rows, an array or a CSR matrix x, got {type(x).__name__}")
    if is_sparse(y):
        raise Unknown("the engine takes an array of targets, got a sparse y")


def choose_backend(
    name: str, make: Callable[[], Made], net: Layer, x: Any, *, n_epochs: int, batch_size: int
) -> Made | None:
    """Return the compiled backend, which ``make`` makes, or None to use NumPy.

    ``name`` is "auto", "numpy" or "numba". Where the engine would be worth it and cannot be had, there is a warning.

    Raises
    ------
    ValueError
        If the engine is asked for by name, and ``make`` raises Unknown or Unavailable.
    """
    name = _chosen.get() if name == "auto" else name
    if name == "numba" or (name == "auto" and is_worth_it(net, x, n_epochs=n_epochs, batch_size=batch_size)):
        try:
            return make()
        except (Unknown, Unavailable) as reason:
            if name == "numba":
                raise ValueError(f"engine='numba' is not possible: {reason}") from None
            if isinstance(reason, Unavailable):
                warn_once(reason)
    return None


def _multiply_adds(program: Program, x: Any) -> float:
    """Return how many a row takes, forward and backward."""
    dense = program.table[program.table[:, KIND] == DENSE]
    sizes = (dense[:, N_IN] * dense[:, N_OUT]).astype(float)
    if is_sparse(x):
        sizes[0] = x.nnz / max(x.shape[0], 1) * dense[0, N_OUT]
    return 3.0 * float(sizes.sum())


def runner(
    net: Layer,
    loss: Loss,
    optimizer: Optimizer,
    x: Any,
    y: Array,
    weight: Array | None,
    batch_size: int,
    l2: float,
    n_threads: int = 1,
    *,
    are_all: bool = True,
) -> Callable[[Array, np.random.Generator], Generator[tuple[Array, Array]]]:
    """Return a function that runs the steps of an epoch; it keeps no reference to a parameter or a moment.

    If these ``are_all`` rows, a batch is no larger than they; if not, a step of fewer rows is one of a batch of that size.

    Raises
    ------
    Unknown
        If there is a layer, loss, optimizer or form of parameters that the engine does not know.
    Unavailable
        If there is no engine.
    """
    check_rows(x, y)
    dtype, batch_size = net.params.dtype, min(batch_size, n_rows(x)) if are_all else batch_size
    compile_network(net, dtype, sparse=is_sparse(x))
    compile_rule(loss, optimizer, y, l2)
    if not is_contiguous(net.params.vector, dtype):
        raise Unknown("the engine takes parameters in one piece of memory that can be written to")
    if is_sparse(x) and x.shape[1] > _MOST_FEATURES:
        raise Unknown(f"the engine takes sparse x of at most {_MOST_FEATURES} features, got {x.shape[1]}")
    steps = kernels()
    data, rows_of_csr = _data(x, y, weight, dtype), csr(x, dtype) if is_sparse(x) else None
    memory: dict[Any, Any] = {}  # of a step, for the kind of rule that it is; made anew if a callback changes that
    n_in_chunk = 1
    # Rows of W that never occur are never looked at.
    is_finite = not is_sparse(x) or all_finite(net.params.vector)

    def run(order: Array, rng: np.random.Generator) -> Generator[tuple[Array, Array]]:
        nonlocal n_in_chunk
        if not is_finite:
            yield np.array([np.nan]), np.ones(1)
            return
        # What a callback has changed since the last epoch counts, as it does on the NumPy path.
        program = compile_network(net, dtype, sparse=is_sparse(x))
        rule = compile_rule(loss, optimizer, y, l2)
        vector, (m, v) = net.params.vector, _moments(net, optimizer, rule)
        kind = rule.update, rule.lazy
        if kind not in memory:
            memory.clear()
            slots = steps.slots_for(rule, rows_of_csr, x.shape[1], batch_size)
            work = steps.work_for(program, rule, slots, vector.size, batch_size, dtype, is_csr=is_sparse(x))
            memory[kind] = slots, work, _in_threads(work, n_threads)
        slots, work, train = memory[kind]
        slots.squares[:] = -1.0
        first = 0
        try:
            while first < len(order):
                n_left = -(-(len(order) - first) // batch_size)
                rates = _learning_rates(optimizer, min(n_in_chunk, n_left))
                rows = order[first : first + len(rates) * batch_size]
                uniforms = rng.random(len(rows) * program.n_uniforms, dtype=np.float32)
                values, totals, done = np.empty(len(rates)), np.empty(len(rates)), np.zeros(2, np.int64)
                n_before, start = int(optimizer.n_steps), perf_counter()
                try:
                    refused = train(
                        (program, rule, data, rows_of_csr, slots),
                        (vector, m, v, rows, batch_size, rates, n_before, uniforms, values, totals, done),
                    )
                finally:  # also when Ctrl-C is raised here: the updates are made
                    optimizer.n_steps = n_before + int(done[0])
                if refused:
                    raise ValueError(no_probability(loss, refused))
                yield values[: done[1]], totals[: done[1]]
                first += len(rows)
                n_that_fit = int(CHUNK * len(rates) / (perf_counter() - start))
                n_in_chunk = max(1, min(n_that_fit, 4 * n_in_chunk))
        finally:
            if work.is_compact:
                steps.finish_decay(vector, program.table[0, N_OUT], slots)

    return run


def _in_threads(work: Any, n_threads: int) -> Callable[[tuple[Any, ...], tuple[Any, ...]], Any]:
    """Return a function that does what ``steps.train`` does, in as many threads as there are groups of rows for."""
    from threading import Thread

    steps, n_groups = kernels(), work.grads.size // work.n_grads
    crew = steps.threads.new_crew()
    others = [steps.with_own_blocks(work) for _ in range(min(n_threads, n_groups) - 1)]

    work_of_last = 0.0  # seconds, of all threads

    def train(program: tuple[Any, ...], rows: tuple[Any, ...]) -> Any:
        nonlocal work_of_last
        failures: list[BaseException] = []

        def help_with(other: Any) -> None:
            try:
                steps.train(*program, other, crew, True, *rows)
            except BaseException as error:
                failures.append(error)
                steps.threads.end(crew)  # whoever waits for this thread's rows would wait for ever

        helpers = others if work_of_last > WORTH_THREADS else []
        helping = [Thread(target=help_with, args=(other,), daemon=True) for other in helpers]
        start = perf_counter()
        try:  # what a signal's handler raises must leave no thread waiting
            steps.threads.begin(crew)
            for thread in helping:
                thread.start()
            refused = steps.train(*program, work, crew, False, *rows)
        finally:
            steps.threads.end(crew)
            for thread in helping:
                if thread.is_alive():
                    thread.join()
        work_of_last = (perf_counter() - start) * (1 + len(helping))
        if failures:
            raise failures[0]
        return refused

    return train


def differentiator(
    net: Layer, loss: Loss, x: Any, y: Array, weight: Array | None, l2: float, n_threads: int = 1
) -> Callable[[], tuple[float, Array]]:
    """Return a function that computes the objective of all rows and its gradient, where the parameters are just then.

    It is a step of the kernel for training, with a learning rate of 0, which leaves its gradient behind.

    Raises
    ------
    Unknown, Unavailable
        As ``runner``; or x is sparse, whose steps need no such gradient.
    """
    check_rows(x, y)
    dtype, n_samples = net.params.dtype, x.shape[0]
    if is_sparse(x):
        raise Unknown("the engine differentiates for plain arrays x only")
    program, rule = compile_network(net, dtype), compile_rule(loss, SGD(0.0), y, l2)
    if program.n_uniforms:
        raise Unknown("the engine differentiates networks without Dropout only")
    steps = kernels()
    data, none, rows = _data(x, y, weight, dtype), np.empty(0, dtype), np.arange(n_samples)
    slots = steps.slots_for(rule, None, x.shape[1], n_samples)
    work = steps.work_for(program, rule, slots, net.params.vector.size, n_samples, dtype, is_csr=False)
    train, one, none_drawn = _in_threads(work, n_threads), np.zeros(1), np.empty(0, np.float32)

    def differentiate() -> tuple[float, Array]:
        vector, value = as_contiguous(net.params.vector, dtype).copy(), np.empty(1)
        refused = train(
            (program, rule, data, None, slots),
            (vector, none, none, rows, n_samples, one, 0, none_drawn, value, one.copy(), np.zeros(2, np.int64)),
        )
        if refused:
            raise ValueError(no_probability(loss, refused))
        return float(value[0]), work.grads[: vector.size].copy()

    return differentiate


def _data(x: Any, y: Array, weight: Array | None, dtype: DTypeLike) -> Any:
    """Return rows, targets and weights as the kernels read them."""
    steps, none = kernels(), np.empty(0, dtype)
    return steps.Data(
        none if is_sparse(x) else as_contiguous(x, dtype).ravel(),
        as_contiguous(y, dtype).ravel() if y.dtype.kind == "f" else none,
        as_contiguous(y, np.int64) if y.dtype.kind == "i" else np.empty(0, np.int64),
        np.empty(0) if weight is None else as_contiguous(weight, np.float64),
    )


def _moments(net: Layer, optimizer: Optimizer, rule: Rule) -> tuple[Array, Array]:
    """Return the moments m and v, empty where the rule has none.

    Raises
    ------
    ValueError
        If they, or the parameters, are not as the kernels read and write them.
    """
    dtype, names = net.params.dtype, MOMENTS[rule.update]
    found = {name: optimizer.state.get(name) for name in names}
    for name, a in {"the vector of parameters": net.params.vector, **found}.items():
        if a is None or a.shape != net.params.vector.shape or not is_contiguous(a, dtype):
            raise ValueError(
                f"{optimizer!r} needs {name} as a writable array of {net.params.vector.shape} {dtype} in one piece; "
                "make a new optimizer where its moments have been changed"
            )
    none = np.empty(0, dtype)
    return found.get("m", none), found.get("v", none)  # type: ignore[return-value]


def _learning_rates(optimizer: Optimizer, n: int) -> Array:
    """Return the learning rates of the next ``n`` updates, up to the first invalid one."""
    if not callable(optimizer.learning_rate):
        return np.full(n, optimizer.learning_rate_at(optimizer.n_steps), np.float64)
    rates: list[float] = []
    for i in range(n):
        try:
            rates.append(optimizer.learning_rate_at(optimizer.n_steps + i))
        except Exception:
            if not rates:
                raise
            break
    return np.array(rates)


def predictor(net: Layer) -> Callable[[Any], Array]:
    """Return a function from x to the raw output, in inference mode, with the parameters as they are when it is called.

    Raises
    ------
    Unknown, Unavailable
        As ``runner``.
    """
    n_outputs = compile_network(net, net.params.dtype).table[-1, N_OUT]
    kernels()

    def predict(x: Any) -> Array:
        score, score_csr = scorer(net, None)
        out = np.empty((x.shape[0], n_outputs), net.params.dtype)
        if is_sparse(x):
            score_csr(x, 0, out)
        else:
            score(as_contiguous(x, net.params.dtype), 0, out)
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
    _check_scoring()
    dtype = net.params.dtype
    program = compile_network(net, dtype, link=link)
    steps = kernels()
    if not is_contiguous(net.params.vector, dtype):
        raise Unknown("the engine takes parameters in one piece of memory that can be written to")
    fixed = (program.table, program.numbers, program.n_block, program.n_widest, net.params.vector)

    def score_csr(x: Any, first: int, out: Array) -> Any:
        if program.table[0, KIND] != DENSE:
            raise ValueError(SPARSE_IS_FOR_DENSE)
        return steps.infer_csr(*fixed, csr(x, dtype), first, out)

    return partial(steps.infer, *fixed), score_csr


def scoring_twin(net: Layer) -> Layer:
    """Return ``compiled(net)``, for networks that have no ``scorer``.

    Raises
    ------
    Unknown, Unavailable
        As ``scorer``.
    """
    _check_scoring()
    return compiled(net)


def _check_scoring() -> None:
    if _chosen.get() == "numpy":
        raise Unknown("use_engine('numpy') is in force")


def as_contiguous(a: Array, dtype: DTypeLike) -> Array:
    """Return ``a`` as the kernels are compiled for it: in C order and writable; a copy, where it is not."""
    return np.require(a, dtype, ["C", "A", "W"])


def is_contiguous(a: Array, dtype: DTypeLike) -> bool:
    """Tell whether the kernels can read and write ``a`` where it lies."""
    return a.dtype == dtype and a.dtype.isnative and a.flags.carray


def csr(x: Any, dtype: DTypeLike) -> Any:
    """Return the arrays of a CSR matrix as the kernels read them.

    Raises
    ------
    ValueError
        If an index lies outside the matrix: the kernels would read what is not theirs.
    """
    indptr, n_features = x.indptr, x.shape[1]
    n = int(indptr[-1]) if len(indptr) else -1  # behind them the arrays may have room to spare
    inside = len(indptr) == x.shape[0] + 1 and indptr[0] == 0 and bool((np.diff(indptr) >= 0).all())
    inside = inside and n <= min(len(x.indices), len(x.data)) and n_features <= _MOST_FEATURES
    indices = x.indices[: max(n, 0)]
    if not inside or (n and not (indices.min() >= 0 and indices.max() < n_features)):
        raise ValueError(f"the CSR matrix x of shape {x.shape} has indices outside of it, or too many features")
    return kernels().Csr(
        as_contiguous(x.data[:n], dtype), as_contiguous(indices, np.int32), as_contiguous(indptr, np.int64)
    )


KINDS = ("dense", "sparse", "sequences")


def warmup(kinds: Iterable[str] = ("dense", "sparse")) -> bool:
    """Compile the engine for float64 and float32, and keep it on disk: for the build of a container, or a server's start.

    The first call takes half a minute or more; a later process loads what the first one kept, in a fraction of a second. Where
    there is no engine it warns, and the library works without.

    Parameters
    ----------
    kinds : of "dense", "sparse" and "sequences", default the first two
        Whole steps and scoring on arrays, those on CSR rows, and the layers of networks that mix events or branch.

    Returns
    -------
    bool
        Whether there is a compiled engine.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    kinds = list(kinds) if isinstance(kinds, Iterable) and not isinstance(kinds, str) else [kinds]
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"kinds must be of {', '.join(map(repr, KINDS))}, got {unknown[0]!r}")
    try:
        kernels()
        for dtype in (np.float64, np.float32):
            for kind in kinds:
                _use(kind, dtype)
    except Unavailable as reason:
        warn_once(reason)
        return False
    return True


def _use(kind: str, dtype: Any) -> None:
    """Do all there is of a kind once, on the smallest data."""
    rng = np.random.default_rng(0)
    if kind == "sequences":
        from .twins import use_all

        use_all(dtype)
        return
    from scipy.sparse import csr_array

    x, y = np.zeros((2, 1), dtype), np.zeros((2, 1))
    net = Sequential([Dense(1, 1)], rng=rng, dtype=dtype)
    features = x if kind == "dense" else csr_array(x)
    list(runner(net, MeanSquaredError(), SGD(0.0), features, y, None, 2, 0.0)(np.arange(2), rng))
    predictor(net)(features)


_has_warned = False


def warn_once(reason: Unavailable) -> None:
    """Say, once a process, that work that the engine would do is done by NumPy."""
    global _has_warned
    if not _has_warned:
        _has_warned = True
        warnings.warn(f"{reason}; nnprofile works without its compiled engine, slower", RuntimeWarning, stacklevel=3)
