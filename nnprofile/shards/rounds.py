"""Rounds: replicas train, each from the same parameters, and meet at the mean (docs/scale.md, eq. 71-72).

What a replica does in a round is a pure function of its task, so it may run anywhere, and twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._session import Snapshot
from ..contract import Array, Layer, Optimizer
from ..history import DivergenceError, History
from ..objectives import Objective, penalty, total_weight
from ..validation import all_finite
from .stream import Job, Position, Stream, draws_for

if TYPE_CHECKING:
    Map = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]


class Task(NamedTuple):
    """What a replica does in a round."""

    job: Job
    net: Layer
    optimizer: Optimizer
    epoch: int
    replica: int
    visits: list[int]
    position: Position
    n_steps: int
    draws: tuple[int, ...]  # of the layers


class Done(NamedTuple):
    """What came of a task."""

    replica: int
    vector: Array  # parameters, or the gradient of a batch
    moments: dict[str, Array]
    n_steps: int  # of the optimizer
    values: Array
    totals: Array
    position: Position
    has_ended: bool


def train(task: Task) -> Done:
    """Train a copy of the network on a replica's next batches."""
    net, optimizer = deepcopy((task.net, task.optimizer))
    stream = Stream(task.job, net, task.epoch, task.visits, task.position)
    values, totals = joined(list(stream.steps(optimizer, task.n_steps, draws_for(*task.draws))))
    vector = net.params.vector.copy()
    return Done(
        task.replica, vector, optimizer.state, optimizer.n_steps, values, totals, stream.position, stream.has_ended
    )


def differentiate(task: Task) -> Done:
    """Return the gradient on a replica's next batch, without the L2 term."""
    net = deepcopy(task.net)
    stream = Stream(task.job, net, task.epoch, task.visits, task.position)
    vector, values, totals = np.zeros_like(net.params.vector), np.zeros(0), np.zeros(0)
    if found := stream.ahead(1):
        x, y, weight = found[0].taken(found[1], task.job.batch_size)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            objective = Objective(net, task.job.loss, trusted=True)
            value, grads = objective.value_and_gradient(x, y, weight, draws_for(*task.draws))
        vector, values, totals = grads.vector, np.array([float(value)]), np.array([total_weight(x, y, weight)])
        stream.done(1)
    return Done(task.replica, vector, {}, task.optimizer.n_steps, values, totals, stream.position, stream.has_ended)


def joined(pieces: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return all objectives, and all weights."""
    if not pieces:
        return np.zeros(0), np.zeros(0)
    values, totals = zip(*pieces, strict=True)
    return np.concatenate(values), np.concatenate(totals)


def _mean(arrays: Iterable[Array], shares: Array) -> Array:
    """Return the weighted mean, summed in float64 and in the order given."""
    total: Any = 0.0
    for share, a in zip(shares, arrays, strict=True):
        total = total + share * a.astype(np.float64)
    return np.asarray(total)


class Run:
    """Where a run is, and how it goes on by a round."""

    def __init__(
        self,
        job: Job,
        net: Layer,
        optimizer: Optimizer,
        rng: np.random.Generator,
        n_replicas: int,
        n_steps: int,
        average: str,
        call: Map,
    ) -> None:
        self.job, self.net, self.optimizer, self.rng = job, net, optimizer, rng
        self.n_replicas, self.n_steps, self.average, self.map = n_replicas, n_steps, average, call
        self.history, self.start = History(), Snapshot(net, optimizer)
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.epoch, self.round = epoch, 0
        self.stream: Stream | None = None
        self.positions, self.ended = [Position()] * self.n_replicas, [False] * self.n_replicas
        self.steps: list[tuple[Array, Array]] = []  # objectives and weights

    def visits(self) -> list[list[int]]:
        """Return the shards of each replica, in the order in which it reads them."""
        n = len(self.job.shards)
        order = draws_for(self.job.seed, 0, self.epoch).permutation(n) if self.job.shuffle else np.arange(n)
        return [order[r :: self.n_replicas].tolist() for r in range(self.n_replicas)]

    def go_on(self, n_interrupts: Callable[[], int]) -> None:
        """Make a round, or nothing at all."""
        self.start.take(self.net, self.optimizer)
        drawn = self.rng.bit_generator.state
        try:
            pieces = self._along_the_stream(n_interrupts) if self.n_replicas == 1 else self._in_tasks()
        except BaseException:
            self.start.restore(self.net, self.optimizer)
            self.rng.bit_generator.state = drawn
            raise
        if any(not np.isfinite(values).all() for values, _ in pieces):
            self.start.restore(self.net, self.optimizer)
            raise DivergenceError(
                f"epoch {self.epoch}, round {self.round}: the loss, a parameter or a moment is not finite; the network is back "
                "at the start of the round. Try a smaller learning rate, or scale the features",
                self.history,
            )
        self.steps += pieces
        self.round += 1

    def _along_the_stream(self, n_interrupts: Callable[[], int]) -> list[tuple[Array, Array]]:
        """Take the next steps here."""
        if self.stream is None:
            self.stream = Stream(self.job, self.net, self.epoch, self.visits()[0], self.positions[0])
        pieces = []
        for piece in self.stream.steps(self.optimizer, self.n_steps, self.rng):
            pieces.append(piece)
            if n_interrupts():
                break
        self.positions, self.ended = [self.stream.position], [self.stream.has_ended]
        return pieces

    def _in_tasks(self) -> list[tuple[Array, Array]]:
        """Let every replica that has rows left take its steps, and average what comes back."""
        visits, active = self.visits(), [r for r, ended in enumerate(self.ended) if not ended]
        common = (self.job, self.net, self.optimizer, self.epoch)
        tasks = [
            Task(*common, r, visits[r], self.positions[r], self.n_steps, (self.job.seed, 2, self.epoch, self.round, r))
            for r in active
        ]
        results = self.map(differentiate if self.average == "gradients" else train, tasks)
        found = list(results) if isinstance(results, Iterable) else []
        if not all(isinstance(done, Done) for done in found) or sorted(done.replica for done in found) != active:
            raise ValueError(f"map must return the result of each of {len(tasks)} tasks, got {results!r:.200}")
        found.sort(key=lambda done: done.replica)  # in whichever order they came
        moved = [done for done in found if done.totals.sum() > 0]
        pieces = [(done.values, done.totals) for done in found]
        if moved and all(np.isfinite(values).all() for values, _ in pieces):
            totals = np.array([done.totals.sum() for done in moved])
            pieces = (
                self._step_along(moved, totals) if self.average == "gradients" else self._meet(moved, totals, pieces)
            )
        for r, done in zip(active, found, strict=True):
            self.positions[r], self.ended[r] = done.position, done.has_ended
        return pieces

    def _meet(self, moved: list[Done], totals: Array, pieces: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
        """Go to the mean of the copies."""
        shares, dtype = totals / totals.sum(), self.net.params.dtype
        self.net.params.vector = _mean((done.vector for done in moved), shares).astype(dtype)
        for name, moment in self.optimizer.state.items():
            moment[...] = _mean((done.moments[name] for done in moved), shares)
        self.optimizer.n_steps = max(done.n_steps for done in moved)
        return pieces

    def _step_along(self, moved: list[Done], totals: Array) -> list[tuple[Array, Array]]:
        """Take one step along the mean gradient, which is that of all their rows as one batch."""
        params, total = self.net.params, totals.sum()
        value = sum(share * done.values[0] for share, done in zip(totals / total, moved, strict=True))
        grads = params.of(_mean((done.vector for done in moved), totals / total).astype(params.dtype))
        if self.job.l2:
            matrices = [params[name] for name in params.matrices()]
            value += penalty(matrices, self.job.l2 / total)
            for name, W in zip(params.matrices(), matrices, strict=True):
                grads[name] += (self.job.l2 / total) * W
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self.optimizer.step(params, grads)
        if not all(map(all_finite, (params.vector, *self.optimizer.state.values()))):
            value = np.nan
        return [(np.array([value]), np.array([total]))]
