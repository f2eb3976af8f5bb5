"""Rows that are read shard by shard: one shard in memory, and batches that may begin in one and end in the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..contract import Array, Layer, Loss, Optimizer, join, take
from ..training import Data, backend, weights_for

if TYPE_CHECKING:
    from ..training import Runner

    Read = Callable[[Any], tuple[Any, ...]]


class Job(NamedTuple):
    """What stays the same in a run."""

    loss: Loss
    shards: list[Any]
    read: Read
    batch_size: int
    l2: float
    class_weight: Mapping[Any, float] | None
    has_weights: bool  # read returns (x, y, sample_weight)
    shuffle: bool
    seed: int  # of orders, and of what the layers of a replica draw
    engine: str  # "numpy" or "numba"
    n_threads: int


class Position(NamedTuple):
    """The first row that has not been trained on: of which shard, counted as they are visited, and which of its rows."""

    visit: int = 0
    row: int = 0


class Rows:
    """Rows in memory, behind the gate, and what trains on them."""

    def __init__(self, job: Job, x: Any, y: Any, weight: Any, order: Array, n_batch: int) -> None:
        self.job, self.x, self.y, self.weight, self.order, self.n_batch = job, x, y, weight, order, n_batch
        self.run: Runner | None = None

    def steps(
        self, net: Layer, optimizer: Optimizer, at: int, n_steps: int, rng: np.random.Generator
    ) -> Generator[tuple[Array, Array]]:
        """Run steps on the rows from ``at`` on, in their order; yield objectives and weights, piece by piece."""
        if self.run is None:
            job, rows = self.job, (self.x, self.y, self.weight, self.n_batch)
            parts = (job.engine, net, job.loss, optimizer, rows, job.l2, job.n_threads)
            self.run = backend(*parts, 1, are_all=False)[0]
        return self.run(self.order[at : at + n_steps * self.n_batch], rng)

    def taken(self, at: int, n: int) -> tuple[Any, Any, Any]:
        """Return n rows from ``at`` on."""
        chosen = self.order[at : at + n]
        return tuple(None if part is None else take(part, chosen) for part in (self.x, self.y, self.weight))  # type: ignore[return-value]


class Stream:
    """The batches of an epoch of one replica, whose rows may lie in several shards; it holds one shard at a time."""

    def __init__(self, job: Job, net: Layer, epoch: int, visits: list[int], position: Position) -> None:
        self.job, self.net, self.epoch, self.visits = job, net, epoch, visits
        self.position, self.has_ended = position, not visits
        self.here, self.n_kept = position, 0
        self.kept: list[Any] = []
        self.shard: Rows | None = None
        self.batch: Rows | None = None  # one that has been put together

    def ahead(self, n_steps: int) -> tuple[Rows, int, int] | None:
        """Return rows, where the next batch starts in them, and how many batches they hold, up to n_steps; None at the end."""
        size = self.job.batch_size
        while not self.has_ended and self.batch is None:
            if self.shard is None:
                self.shard = rows_of(self.job, self.visits[self.here.visit], self.epoch, self.net)
            n_left = len(self.shard.order) - self.here.row
            if not self.n_kept and n_left >= size:
                return self.shard, self.here.row, min(n_steps, n_left // size)
            n = min(n_left, size - self.n_kept)
            if n:
                self.kept.append(self.shard.taken(self.here.row, n))
                self.n_kept, self.here = self.n_kept + n, Position(self.here.visit, self.here.row + n)
            is_last = self.here.visit == len(self.visits) - 1
            if self.n_kept == size or (is_last and self.n_kept):
                self._put_together()
            elif is_last:
                self.has_ended = True
            else:
                self.shard, self.here = None, Position(self.here.visit + 1, 0)
        return None if self.batch is None else (self.batch, 0, 1)

    def _put_together(self) -> None:
        """Make a batch of the rows that are kept."""
        try:
            x, y, weight = (None if parts[0] is None else join(list(parts)) for parts in zip(*self.kept, strict=True))
        except (ValueError, TypeError) as error:
            name = name_of(self.job.shards, self.visits[self.here.visit])
            raise ValueError(f"{name} has rows, or targets, of another kind than the shard before: {error}") from error
        are_all = self.position == Position() and self.n_kept < self.job.batch_size
        n_batch = self.n_kept if are_all else self.job.batch_size  # as ``fit`` has it where all rows are one batch
        self.batch = Rows(self.job, x, y, weight, np.arange(self.n_kept), n_batch)

    def done(self, n_steps: int) -> None:
        """Note that these batches have been trained on."""
        visit, row = self.here
        row += 0 if self.batch else n_steps * self.job.batch_size
        if self.shard is not None and row == len(self.shard.order):
            self.has_ended = visit == len(self.visits) - 1
            self.shard, visit, row = None, visit + 1, 0
        self.batch, self.kept, self.n_kept = None, [], 0
        self.here = self.position = Position(visit, row)

    def steps(self, optimizer: Optimizer, n_steps: int, rng: np.random.Generator) -> Generator[tuple[Array, Array]]:
        """Run up to so many steps; yield objectives and weights, piece by piece. It stops after one that is not finite."""
        while n_steps and (found := self.ahead(n_steps)):
            rows, at, n = found
            for values, totals in rows.steps(self.net, optimizer, at, n, rng):
                n_steps -= len(values)
                self.done(len(values))
                yield values, totals
                if not np.isfinite(values[-1]):
                    return


def rows_of(job: Job, shard: int, epoch: int, net: Layer, found: Any = None) -> Rows:
    """Read a shard, unless it has been, and look at it as ``fit`` looks at its rows."""
    name = name_of(job.shards, shard)
    found = job.read(job.shards[shard]) if found is None else found
    if not isinstance(found, tuple) or len(found) not in (2, 3):
        raise ValueError(f"read must return (x, y) or (x, y, sample_weight), got {type(found).__name__} of {name}")
    x, y, *weight = found
    if bool(weight) != job.has_weights:
        raise ValueError(f"read must return sample weights of all shards or of none; {name} is unlike the first")
    n = _length(y)
    if n == _length(x[0] if isinstance(x, tuple) and x else x) == 0:
        return Rows(job, None, None, None, np.arange(0), job.batch_size)
    try:
        data = Data(net, job.loss, x, y, weight[0] if weight else None)
        weights = weights_for(data, job.class_weight, y)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    order = draws_for(job.seed, 1, epoch, shard).permutation(n) if job.shuffle else np.arange(n)
    return Rows(job, data.x, data.y, weights, order, job.batch_size)


def _length(a: Any) -> int:
    """Return how many rows there are, of something that may be none of the library's kinds."""
    return int(a.shape[0]) if getattr(a, "shape", ()) else len(a) if hasattr(a, "__len__") else -1


def name_of(shards: list[Any], i: int) -> str:
    """Say which shard it is, by its name if that is a short one."""
    named = isinstance(shards[i], (str, os.PathLike, int))
    return f"shard {i} ({shards[i]})" if named else f"shard {i}"


def draws_for(seed: int, *numbers: int) -> np.random.Generator:
    """Return a generator for this purpose, epoch, and so on: the same on any machine, whatever was drawn before."""
    return np.random.default_rng([seed, *numbers, *[0] * (4 - len(numbers))])


def as_shards(shards: Any) -> list[Any]:
    """Return the names of the pieces as a list; raise a ValueError if they are none."""
    is_one = isinstance(shards, (str, bytes, os.PathLike)) or getattr(shards, "shape", None) == ()
    if is_one or not isinstance(shards, Iterable):
        raise ValueError(f"shards must be a sequence of names of pieces of the data, got {shards!r:.200}")
    found = list(shards)
    if not found:
        raise ValueError("shards must name at least one piece of the data, got none")
    return found
