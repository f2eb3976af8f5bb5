"""Training on more rows than memory holds, and on other machines: shard by shard, in rounds of pure tasks.

A *shard* names a piece of the data: a path, a partition, a range of rows. ``read(shard)`` returns its rows. One *stream* reads
shard after shard and trains as ``fit`` does. Several *replicas*, each with shards of its own, train from the same parameters
for some steps, a *round*; then their parameters are averaged, always in the same order. A round is a list of tasks for ``map``,
whoever provides it: a task that is run twice, or elsewhere, gives the same bits. (docs/scale.md)

Read the modules in this order: stream, rounds, checkpoint, summary.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._session import HalfStep, interrupts, progress_bar
from ..contract import Layer, Loss, Optimizer, check_filled, n_rows
from ..engine import choose_backend, is_chain, runner, twin_maker
from ..history import Best, EarlyStopping, History
from ..objectives import Objective
from ..training import backend, check_arguments, check_monitor, mean_objective, validation_of
from ..validation import check_number, check_rng, check_size
from .checkpoint import Checkpoint
from .rounds import Run, joined
from .stream import Job, as_shards, rows_of
from .summary import Column as Column
from .summary import Summary as Summary
from .summary import summarize as summarize

if TYPE_CHECKING:
    from ..training import Callback, Metrics
    from .rounds import Map
    from .stream import Read

AVERAGES = ("parameters", "gradients")


def fit_shards(
    net: Layer,
    loss: Loss,
    optimizer: Optimizer,
    shards: Iterable[Any],
    read: Read,
    *,
    n_epochs: int,
    batch_size: int = 32,
    rng: np.random.Generator,
    n_replicas: int = 1,
    steps_per_round: int = 100,
    average: str = "parameters",
    map: Map = map,  # noqa: A002  (the name of what it stands for)
    validation_data: tuple[Any, ...] | None = None,
    class_weight: Mapping[Any, float] | None = None,
    l2: float = 0.0,
    metrics: Metrics | None = None,
    callbacks: Sequence[Callback] = (),
    early_stopping: EarlyStopping | None = None,
    shuffle: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 10.0,
    engine: str = "auto",
    n_threads: int = 1,
    progress: bool = False,
) -> History:
    """Train ``net`` in place on rows that are read shard by shard, here or by whoever ``map`` gives tasks to.

    With one replica, ``fit``'s steps on the shards' rows in their order, batches across the borders of shards included: with
    ``shuffle=False`` the same bits. With R replicas each has every R-th shard, and a round is: R copies take
    ``steps_per_round`` steps each; w = sum_r n_r w_r / sum_r n_r, and the same for the moments, where n_r is the weight of the
    rows that copy r has seen. The result depends on R, as on the batch size, and not on how many workers there are.

    Parameters
    ----------
    net, loss, optimizer
    shards : sequence
        Names of pieces of the data. With several replicas they are sent to the workers: keep them short.
    read : function shard -> (x, y) or (x, y, sample_weight)
        As ``fit`` takes them. Called again in each epoch, and in each round of a replica: it must return the same rows.
        It is sent to the workers as well: for processes, a function of a module.
    n_epochs, batch_size, rng, validation_data, l2, metrics, callbacks, early_stopping, engine, n_threads, progress
        As ``fit`` has them; metrics are taken on the validation data alone.
    n_replicas : int, default 1
        1: nothing is sent anywhere.
    steps_per_round : int, default 100
        Of each replica. More: fewer rounds, and replicas that drift further apart.
    average : "parameters" or "gradients", default "parameters"
        "gradients": a round is one step, along the mean gradient of R batches; ``steps_per_round`` is not read.
    map : function (f, tasks) -> results, in any order, default Python's own
        ``f`` and tasks can be pickled where ``net``, ``loss``, ``optimizer`` and ``read`` can.
    class_weight : mapping of label to weight, optional
        "balanced" would take a pass over all shards: ``summarize`` counts them.
    shuffle : bool, default True
        Shards in a new order in each epoch, and rows in a new order inside their shard.
    checkpoint : path, optional
        A file for the state after a round: written when the last is ``checkpoint_seconds`` old, and at the end. Where it
        exists, the run goes on from it, to the same bits as if it had never stopped: what callbacks keep to themselves is not in
        it. ``load`` reads it too: the network of the last epoch.
    checkpoint_seconds : float, default 10

    Returns
    -------
    History
        As of ``fit``; "loss" is the mean over all steps of all replicas.

    Raises
    ------
    ValueError
        If an argument, or what ``read`` returns, is not as above; the message names the shard.
    DivergenceError
        If J or the parameters are not finite. Network, optimizer and rng are back at the start of the round, as after any
        error inside of one.

    Examples
    --------
    >>> from nnprofile import SGD, Dense, MeanSquaredError, Sequential
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(100, 2))
    >>> net = Sequential([Dense(2, 1)], rng=rng)
    >>> def read(first):
    ...     rows = x[first : first + 30]
    ...     return rows, rows @ [1, 2]
    >>> history = fit_shards(net, MeanSquaredError(), SGD(0.1), [0, 30, 60, 90], read, n_epochs=9, rng=rng)
    >>> net.params["0.W"].round(2).ravel().tolist()
    [1.0, 2.0]
    """
    check_arguments(net, loss, optimizer, engine, metrics, callbacks, early_stopping)
    check_rng(rng)
    check_filled(net)
    shards = as_shards(shards)
    if metrics and validation_data is None:
        raise ValueError("metrics are taken on validation_data; give that too")
    if checkpoint is not None and not isinstance(checkpoint, (str, os.PathLike)):
        raise ValueError(f"checkpoint must be a path, got {checkpoint!r:.200}")
    _check_choices(read, map, average, shuffle, class_weight)
    n_epochs, n_replicas = check_size(n_epochs, "n_epochs"), check_size(n_replicas, "n_replicas")
    n_steps = check_size(steps_per_round, "steps_per_round")
    if n_replicas > len(shards):
        raise ValueError(f"n_replicas must be at most the number of shards, {len(shards)}, got {n_replicas}")
    job = Job(
        loss=loss,
        shards=shards,
        read=read,
        batch_size=check_size(batch_size, "batch_size"),
        l2=check_number(l2, "l2"),
        class_weight=class_weight,
        has_weights=False,
        shuffle=shuffle,
        seed=int(rng.integers(1 << 32)) if shuffle or n_replicas > 1 else 0,
        engine=engine,
        n_threads=check_size(n_threads, "n_threads"),
    )
    validation = None if validation_data is None else validation_of(net, loss, validation_data)
    watch = early_stopping or EarlyStopping(monitor="loss" if validation is None else "val_loss")
    check_monitor(watch, metrics if validation else None, has_validation=validation is not None)
    checkpoint_seconds = check_number(checkpoint_seconds, "checkpoint_seconds")
    job, forward, parts = _look_at(job, net, optimizer, n_epochs)
    optimizer.prepare(net.params)

    def measure() -> dict[str, float]:
        found = {} if validation is None else validation.scores(forward, metrics, parts()[0])
        return {f"val_{name}": value for name, value in found.items()}

    run = Run(job, net, optimizer, rng, n_replicas, n_steps, average, map)
    best = Best(watch, run.history, restores=early_stopping is not None)
    file = None if checkpoint is None else Checkpoint(checkpoint, checkpoint_seconds, run, best)
    with progress_bar(n_epochs if progress else 0) as show:
        return _epochs(run, n_epochs, measure, best, [*callbacks], show, file)


def _epochs(
    run: Run,
    n_epochs: int,
    measure: Callable[[], dict[str, float]],
    best: Best,
    callbacks: list[Callback],
    show: Callable[[Mapping[str, float]], None],
    file: Checkpoint | None,
) -> History:
    """Run rounds, and what comes between epochs, as ``fit`` does."""
    history = run.history
    with interrupts() as n_interrupts:
        try:
            while run.epoch < n_epochs and history.stop_reason == "n_epochs":
                while not all(run.ended):
                    run.go_on(n_interrupts)
                    if file is not None:
                        file.write()
                    if n_interrupts():
                        raise KeyboardInterrupt
                epoch, logs = run.epoch, {"loss": mean_objective(*joined(run.steps))} | measure()
                history.append(logs)
                best.note(run.net, run.optimizer)
                show(logs)
                run.begin(epoch + 1)
                if any([callback(epoch, logs, run.net) for callback in callbacks]):  # noqa: C419  (each is called)
                    history.stop_reason = "callback"
                elif best.is_long_ago():
                    history.stop_reason = "early_stopping"
                if file is not None:
                    file.write()
                if n_interrupts():
                    raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            if n_interrupts() > 1:
                raise
            history.stop_reason = "interrupted"
            if file is not None and not isinstance(interrupt, HalfStep):
                file.write(now=True)
            return history
    if file is not None:
        file.write(now=True)
    if best.state is not None:
        best.state.restore(run.net, run.optimizer)
    return history


def _look_at(
    job: Job, net: Layer, optimizer: Optimizer, n_epochs: int
) -> tuple[Job, Callable[[Any], Any], Callable[[], tuple[Objective, Optimizer]]]:
    """Read the first shard that has rows: whether there are weights, and which backend is worth it; and what predicts."""
    for i, shard in enumerate(job.shards):
        first = job.read(shard)
        job = job._replace(has_weights=isinstance(first, tuple) and len(first) == 3)
        rows = rows_of(job, i, 0, net, first)
        if len(rows.order):
            break
    else:
        raise ValueError("the shards must have at least one row, got none")
    known = (rows.x, rows.y, rows.weight, min(job.batch_size, n_rows(rows.x)))

    def compiled() -> Any:
        if is_chain(net, rows.x):
            return runner(net, job.loss, optimizer, *known, job.l2, job.n_threads)
        return twin_maker(net, job.loss, optimizer)

    n = n_epochs * len(job.shards)
    found = choose_backend(job.engine, compiled, net, rows.x, n_epochs=n, batch_size=job.batch_size)
    job = job._replace(engine="numpy" if found is None else "numba")
    _, forward, parts = backend(job.engine, net, job.loss, optimizer, known, job.l2, job.n_threads, 1)
    return job, forward, parts


def _check_choices(read: Any, call: Any, average: Any, shuffle: Any, class_weight: Any) -> None:
    for name, value in {"read": read, "map": call}.items():
        if not callable(value):
            raise ValueError(f"{name} must be a function, got {value!r:.200}")
    if not isinstance(average, str) or average not in AVERAGES:
        raise ValueError(f"average must be 'parameters' or 'gradients', got {average!r:.200}")
    if not isinstance(shuffle, bool):
        raise ValueError(f"shuffle must be True or False, got {shuffle!r:.200}")
    if class_weight is not None and not isinstance(class_weight, Mapping):
        advice = "; count the labels with summarize, and give a mapping" if isinstance(class_weight, str) else ""
        raise ValueError(f"class_weight must be a mapping of label to weight, got {class_weight!r:.200}{advice}")
