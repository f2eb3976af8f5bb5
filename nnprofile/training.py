"""The only training loop: shuffle, cut into mini-batches, forward, loss, backward, step; again.

A *runner* does the steps of one chunk, and ``fit`` does everything around them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from ._session import HalfStep, Snapshot, interrupts, progress_bar
from .contract import (
    Array,
    Layer,
    Loss,
    Optimizer,
    apply,
    check_filled,
    is_sparse,
    n_rows,
    numbers_of,
    take,
)
from .engine import check_choice, choose_backend, is_chain, predictor, runner, twin_maker
from .history import Best, DivergenceError, EarlyStopping, History
from .layers import Dense
from .layers.walk import chain
from .objectives import Objective, other_targets, total_weight
from .ragged import Ragged
from .validation import (
    all_finite,
    as_class_weights,
    as_input,
    as_numbers,
    check_number,
    check_rng,
    check_size,
    fitted_inside,
    weights_of,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Metrics = Mapping[str, Callable[[Any, Array], float]]
    Callback = Callable[[int, dict[str, float], Layer], object]
    # (the rows of an epoch, in order; rng) -> piece by piece, the objective of each step done, and the step's weight; it
    # stops after a step whose objective or parameters are not finite, and gives that one a value that is not
    Runner = Callable[[Array, np.random.Generator], Generator[tuple[Array, Array]]]
    Parts = Callable[[], tuple[Objective, Optimizer]]


def fit(
    net: Layer,
    loss: Loss,
    optimizer: Optimizer,
    x: Any,
    y: ArrayLike,
    *,
    n_epochs: int,
    batch_size: int = 32,
    rng: np.random.Generator,
    validation_data: tuple[Any, ...] | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: Mapping[Any, float] | str | None = None,
    l2: float = 0.0,
    metrics: Metrics | None = None,
    callbacks: Sequence[Callback] = (),
    early_stopping: EarlyStopping | None = None,
    shuffle: bool = True,
    engine: str = "auto",
    n_threads: int = 1,
    progress: bool = False,
) -> History:
    """Train ``net`` in place by mini-batches, each epoch in a new order.

    A step is: J, dJ = objective(...); optimizer.step(net.params, dJ). The last batch of an epoch may be smaller.
    The same rng state gives the same bits. A second call with the same optimizer goes on where the first ended.

    Parameters
    ----------
    net, loss, optimizer
    x : array or scipy.sparse CSR matrix, shape (n_samples, n_features); or Ragged; or a tuple of these for Parallel
        A Ragged holds sequences: ``batch_size`` counts them.
    y : array, or Ragged
        As the loss takes it. A Ragged where the network gives a row for each event: a target for each.
    n_epochs : int
    batch_size : int, default 32
    rng : numpy.random.Generator
        Draws each epoch's permutation, then what the layers draw.
    validation_data : (x, y) or (x, y, sample_weight), optional
        Its loss, without ``l2`` and ``class_weight``, is taken in inference mode after each epoch, as "val_loss".
    sample_weight : array, shape (n_samples,), or Ragged, optional
        Not negative. Of targets on events, a sequence's weight is that of each of its events, or a Ragged holds one for each.
        A batch whose weights are all 0, or without events, is skipped.
    class_weight : mapping of label to weight, or "balanced", optional
        Multiplied into ``sample_weight``. "balanced": n_samples / (n_classes * count of the class).
    l2 : float, default 0.0
        The L2 term of ``objective``, whose n is that of the mini-batch.
    metrics : mapping of name to function (y_true, prediction) -> number, optional
        Taken in inference mode after each epoch, on x as "name" and on the validation data as "val_name".
        ``prediction`` is ``loss.link`` applied to the output, shape (n_samples, n_outputs): probabilities, for a loss on
        logits. ``y_true`` is as it was passed, so for labels of shape (n_samples,) an accuracy is
        ``lambda t, p: ((p[:, 0] > 0.5) == t).mean()``.
    callbacks : sequence of function (epoch, logs, net) -> object
        Called after each epoch; a true return value stops the run.
    early_stopping : EarlyStopping, optional
    shuffle : bool, default True
        False: every epoch takes the rows in their order. Then ``rng`` draws only for the layers.
    engine : "auto", "numpy" or "numba", default "auto"
        Which backend runs the steps: NumPy, or the compiled engine, equal to rounding. "auto" takes the engine where it knows the
        network and the work, as estimated, is worth starting it: some seconds. ``use_engine`` says otherwise for all in a
        ``with`` block. See docs/engine.md.
    n_threads : int, default 1
        How many threads share the rows of a batch where the engine runs whole steps, from some 1,000 rows on; the bits do not
        depend on it. Elsewhere it changes nothing: there BLAS has threads of its own.
    progress : bool, default False
        Show a progress bar (tqdm's, if it is installed) on standard error. Otherwise ``fit`` is silent.

    Returns
    -------
    History
        "loss" is the mean over the epoch of J as it was trained. Ctrl-C ends the run after the step it came in, and
        the history has ``stop_reason`` "interrupted".

    Raises
    ------
    ValueError
        If an argument is not as above; nothing has been changed then.
    DivergenceError
        If J or the parameters are not finite. Network and optimizer are back at the start of that epoch.

    Examples
    --------
    >>> from nnprofile import SGD, Dense, Sequential, SigmoidCrossEntropy, Tanh
    >>> x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    >>> rng = np.random.default_rng(0)
    >>> net = Sequential([Dense(2, 4), Tanh(), Dense(4, 1)], rng=rng)
    >>> history = fit(net, SigmoidCrossEntropy(), SGD(0.5), x, y, n_epochs=1000, batch_size=4, rng=rng)
    >>> (net.predict(x)[:, 0] > 0).astype(int).tolist()
    [0, 1, 1, 0]
    """
    check_arguments(net, loss, optimizer, engine, metrics, callbacks, early_stopping)
    n_epochs, batch_size = check_size(n_epochs, "n_epochs"), check_size(batch_size, "batch_size")
    l2, n_threads = check_number(l2, "l2"), check_size(n_threads, "n_threads")
    check_rng(rng)
    check_filled(net)
    if not isinstance(shuffle, bool):
        raise ValueError(f"shuffle must be True or False, got {shuffle!r}")
    data = Data(net, loss, x, y, sample_weight)
    weight = weights_for(data, class_weight, y)
    validation = None if validation_data is None else validation_of(net, loss, validation_data)
    watch = early_stopping or EarlyStopping(monitor="loss" if validation is None else "val_loss")
    check_monitor(watch, metrics, has_validation=validation is not None)
    optimizer.prepare(net.params)

    rows = (data.x, data.y, weight, batch_size)
    run, forward, parts = backend(engine, net, loss, optimizer, rows, l2, n_threads, n_epochs)

    def run_epoch(n_interrupts: Callable[[], int]) -> tuple[Array, Array]:
        order = rng.permutation(data.n_samples) if shuffle else np.arange(data.n_samples)
        return _epoch(run, order, rng, n_interrupts)

    def measure() -> dict[str, float]:
        logs = data.scores(forward, metrics)
        if validation is not None:
            logs |= {f"val_{name}": value for name, value in validation.scores(forward, metrics, parts()[0]).items()}
        return logs

    best = Best(watch, History(), restores=early_stopping is not None)
    with progress_bar(n_epochs if progress else 0) as show:
        start = Snapshot(net, optimizer, None if l2 else _columns_in_use(net, data.x))
        return _epochs(net, optimizer, n_epochs, run_epoch, measure, best, [*callbacks], show, start)


def _epochs(
    net: Layer,
    optimizer: Optimizer,
    n_epochs: int,
    run_epoch: Callable[[Callable[[], int]], tuple[Array, Array]],
    measure: Callable[[], dict[str, float]],
    best: Best,
    callbacks: list[Callback],
    show: Callable[[Mapping[str, float]], None],
    start: Snapshot,
) -> History:
    """Run the epochs, and what comes between them: logs, the best state so far, callbacks, early stopping, Ctrl-C."""
    history = best.history
    with interrupts() as n_interrupts:
        try:
            for epoch in range(n_epochs):
                if epoch:  # callbacks may have changed something
                    start.take(net, optimizer)
                values, weights = run_epoch(n_interrupts)
                if not np.isfinite(values[-1]):
                    start.restore(net, optimizer)
                    raise DivergenceError(
                        f"epoch {epoch}, step {len(values) - 1}: the loss, a parameter or a moment is not finite; "
                        "the network is back at the start of the epoch. Try a smaller learning rate, or scale the features",
                        history,
                    )
                if n_interrupts():
                    raise KeyboardInterrupt

                logs = {"loss": mean_objective(values, weights)} | measure()
                history.append(logs)
                best.note(net, optimizer)
                show(logs)

                stop = any([callback(epoch, logs, net) for callback in callbacks])  # noqa: C419  (each is called)
                if n_interrupts():
                    raise KeyboardInterrupt
                if stop:
                    history.stop_reason = "callback"
                    break
                if best.is_long_ago():
                    history.stop_reason = "early_stopping"
                    break
        except KeyboardInterrupt as interrupt:
            if isinstance(interrupt, HalfStep):
                start.restore(net, optimizer)
            if n_interrupts() > 1:
                raise
            history.stop_reason = "interrupted"
            return history
    if best.state is not None:
        best.state.restore(net, optimizer)
    return history


def backend(
    name: str,
    net: Layer,
    loss: Loss,
    optimizer: Optimizer,
    rows: tuple[Any, Any, Any, int],
    l2: float,
    n_threads: int,
    n_epochs: int,
    *,
    are_all: bool = True,
) -> tuple[Runner, Callable[[Any], Any], Parts]:
    """Return what runs steps on rows (x, y, weights, how many in a batch), what predicts, and what both work with.

    Whether these ``are_all`` rows: see ``engine.runner``.
    """
    x = rows[0]

    def plain() -> tuple[Objective, Optimizer]:
        return Objective(net, loss, l2, trusted=True), optimizer

    def by_layers(parts: Parts) -> tuple[Runner, Callable[[Any], Any], Parts]:
        return _runner(parts, *rows), lambda x: apply(parts()[0].net, x)[0], parts

    def compiled() -> tuple[Runner, Callable[[Any], Any], Parts]:
        if is_chain(net, x):
            return runner(net, loss, optimizer, *rows, l2, n_threads, are_all=are_all), predictor(net), plain
        twin = twin_maker(net, loss, optimizer)

        def parts() -> tuple[Objective, Optimizer]:
            net, loss, optimizer = twin()
            return Objective(net, loss, l2, trusted=True), optimizer

        return by_layers(parts)

    return choose_backend(name, compiled, net, x, n_epochs=n_epochs, batch_size=rows[3]) or by_layers(plain)


def mean_objective(values: Array, weights: Array) -> float:
    """Return the mean of the steps' objectives, each with its step's weight."""
    share = weights / (weights.max() or 1.0)
    return float(np.dot(values, share) / (share.sum() or 1.0))


def _columns_in_use(net: Layer, x: Any) -> Array | None:
    """Return the columns of a sparse x for a first Dense layer that hold a number somewhere; None where most of them do."""
    if not is_sparse(x) or type(next(chain(net))[0]) is not Dense:
        return None
    in_use = np.zeros(x.shape[1], bool)
    in_use[x.indices[: x.indptr[-1]]] = True
    columns = np.flatnonzero(in_use)
    return columns if 2 * columns.size <= in_use.size else None


def _epoch(run: Runner, order: Array, rng: np.random.Generator, n_interrupts: Callable[[], int]) -> tuple[Array, Array]:
    """Run the steps of one epoch, until Ctrl-C or divergence; return the objective of each and its weight."""
    pieces = []
    with closing(run(order, rng)) as running:
        for piece in running:
            pieces.append(piece)
            if n_interrupts() or not np.isfinite(piece[0][-1]):
                break
    values, weights = zip(*pieces, strict=True)
    return np.concatenate(values), np.concatenate(weights)


def _runner(parts: Parts, x: Any, y: Any, weight: Any, batch_size: int) -> Runner:
    """Return the reference runner, which the engine's must equal; ``parts`` are asked for in each epoch."""

    def step(objective: Objective, optimizer: Optimizer, rows: Array, rng: np.random.Generator) -> tuple[float, float]:
        t, w, params = take(y, rows), None if weight is None else take(weight, rows), objective.net.params
        value, grads = objective.value_and_gradient(take(x, rows), t, w, rng)
        total = total_weight(rows, t, w)
        if np.isfinite(value) and total:
            try:
                optimizer.step(params, grads)
            except KeyboardInterrupt:  # from a handler that is not ours
                raise HalfStep from None
            if not all(map(all_finite, (params.vector, *optimizer.state.values()))):
                value = np.nan
        return float(value), total

    def run(order: Array, rng: np.random.Generator) -> Generator[tuple[Array, Array]]:
        objective, optimizer = parts()
        for first in range(0, len(order), batch_size):
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # divergence becomes an error of ours
                value, total = step(objective, optimizer, order[first : first + batch_size], rng)
            yield np.array([value]), np.array([total])

    return run


class Data:
    """Rows behind the gate, and what is measured on them."""

    def __init__(self, net: Layer, loss: Loss, x: Any, y: Any, sample_weight: Any = None, name: str = "") -> None:
        self.x = as_input(x, net, f"{name}x")
        self.n_samples = n_rows(self.x)
        if self.n_samples == 0:
            raise ValueError(f"{name}x must have at least one row, got none")
        first = apply(net, take(self.x, _extremes(self.x)))[0]
        if isinstance(y, Ragged) != isinstance(first, Ragged):
            raise ValueError(f"{name}y: {other_targets(first, y)}" if name else other_targets(first, y))
        self.y_true = numbers_of(y) if is_sparse(numbers_of(y)) else np.array(numbers_of(y))
        self.link = loss.link
        targets = loss.targets(numbers_of(y), numbers_of(first).shape[1])
        if targets.dtype.kind == "f" and not is_sparse(targets):
            as_numbers(targets, net.params.dtype, f"{name}y")  # finite in the dtype in which it will be used
        self.y: Any = Ragged.of(targets, y.offsets) if isinstance(y, Ragged) else targets
        if n_rows(self.y) != self.n_samples:
            raise ValueError(f"{name}x has {self.n_samples} rows, y has {n_rows(self.y)}")
        if isinstance(y, Ragged) and (other := next(_sequences(self.x)).difference(y)):
            raise ValueError(f"{name}y must have a target for each event of {name}x: {other}")
        self.weight = None if sample_weight is None else weights_of(sample_weight, self.y, f"{name}sample_weight")

    def scores(
        self, forward: Callable[[Any], Array], metrics: Metrics | None, objective: Objective | None = None
    ) -> dict[str, float]:
        """Return the loss, if its objective is given, and the metrics, in inference mode."""
        found = {}
        with np.errstate(over="ignore", invalid="ignore"):
            if objective is not None and not metrics and objective.is_in_blocks(self.y):
                return {"loss": float(objective.value(self.x, self.y, self.weight))}
            if objective is not None or metrics:
                y_pred = numbers_of(forward(self.x))
            if objective is not None:
                t, w = numbers_of(self.y), numbers_of(self.weight)
                found["loss"] = float(objective.loss.forward(y_pred, t, w)[0])
            if metrics:
                prediction, _ = self.link.forward(y_pred)
        return found | {name: float(metric(self.y_true, prediction)) for name, metric in (metrics or {}).items()}


def _sequences(x: Any) -> Iterator[Ragged]:
    """Yield the parts of x that are made of sequences."""
    for part in x if isinstance(x, tuple) else (x,):
        if isinstance(part, tuple):
            yield from _sequences(part)
        elif isinstance(part, Ragged):
            yield part


def _extremes(x: Any) -> Array:
    """Return rows of which a forward pass tells what it would refuse of all: the longest, the ids at the ends, unequal ones."""
    rows, parts = {0}, list(_sequences(x))
    for part in parts:
        rows.add(int(part.lengths.argmax()))
        unequal = np.flatnonzero(part.lengths != parts[0].lengths)
        rows |= set(unequal[:1].tolist())
        if part.values.dtype.kind == "i" and part.n_events:
            ends = [int(part.values.argmax()), int(part.values.argmin())]
            rows |= set((np.searchsorted(part.offsets, ends, side="right") - 1).tolist())
    rows |= {row for ids in _ids(x) for row in (int(ids.argmax()), int(ids.argmin()))}
    return np.array(sorted(rows))


def _ids(x: Any) -> Iterator[Array]:
    """Yield the arrays of ids among the parts of x."""
    if isinstance(x, tuple):
        for part in x:
            yield from _ids(part)
    elif isinstance(x, np.ndarray) and x.dtype.kind == "i":
        yield x


def weights_for(data: Data, class_weight: Mapping[Any, float] | str | None, y: Any) -> Any:
    """Return the weight of each target, None if all weigh the same."""
    if data.weight is None and class_weight is None:
        return None
    weight = numbers_of(data.weight)
    with np.errstate(over="ignore"):
        if class_weight is not None:
            weight = as_class_weights(class_weight, numbers_of(y)) * (1 if weight is None else weight)
        if not np.isfinite(weight.sum()):
            raise ValueError("the sum of sample_weight, times class_weight, must be finite; got too large weights")
    return Ragged.of(weight, data.y.offsets) if isinstance(data.y, Ragged) else weight


def validation_of(net: Layer, loss: Loss, validation_data: tuple[Any, ...]) -> Data:
    """Return what the epochs are judged on, behind the gate."""
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
        raise ValueError(
            f"validation_data must be (x, y) or (x, y, sample_weight), got {type(validation_data).__name__}"
        )
    x, y, *weight = validation_data
    data = Data(net, loss, x, y, weight[0] if weight else None, "validation ")
    if isinstance(data.y, Ragged) and not data.y.n_events:
        raise ValueError("validation y must have at least one event, got none")
    return data


def check_monitor(watch: EarlyStopping, metrics: Metrics | None, *, has_validation: bool) -> None:
    """Raise a ValueError unless a run with these logs what is monitored."""
    known = ["loss", *(metrics or ())]
    known += [f"val_{name}" for name in known] if has_validation else []
    if watch.monitor not in known:
        more = "" if has_validation else "; with validation_data also val_loss, and val_ of each metric"
        raise ValueError(
            f"EarlyStopping monitors {watch.monitor!r}, but this run logs {', '.join(sorted(known))}{more}"
        )


def check_arguments(
    net: object,
    loss: object,
    optimizer: object,
    engine: str,
    metrics: object,
    callbacks: object,
    early_stopping: object,
) -> None:
    """Raise a ValueError if one is of another kind than it must be."""
    expected: list[tuple[object, type, str]] = [
        (net, Layer, "net"),
        (loss, Loss, "loss"),
        (optimizer, Optimizer, "optimizer"),
    ]
    if early_stopping is not None:
        expected.append((early_stopping, EarlyStopping, "early_stopping"))
    for value, kind, name in expected:
        if not isinstance(value, kind):
            hint = f"; did you mean {value.__name__}()?" if isinstance(value, type) else ""
            if name == "net" and (model := fitted_inside(value)):
                hint = f"; {model}.fit(X, y) trains an estimator, fit({model}.network_, ...) its network"
            raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r}{hint}")
    check_choice(engine)
    if metrics is not None and not (isinstance(metrics, Mapping) and all(map(callable, metrics.values()))):
        raise ValueError(f"metrics must map names to functions (y_true, prediction) -> number, got {metrics!r}")
    for name in metrics or ():
        if name == "loss" or str(name).startswith("val_"):
            raise ValueError(
                f"metrics must not be named {name!r}: 'loss' and 'val_...' are names that fit gives itself"
            )
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise ValueError(f"callbacks must be a sequence of functions (epoch, logs, net), got {callbacks!r}")
