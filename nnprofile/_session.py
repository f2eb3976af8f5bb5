"""Around a run of training: a state to go back to, Ctrl-C between steps, and a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .contract import Array, Layer, Optimizer
from .optimizers import leaves_rows_alone


class HalfStep(KeyboardInterrupt):
    """Ctrl-C in the middle of an optimizer's step: nothing but the start of the epoch is whole."""


class Snapshot:
    """A copy of parameters and optimizer state, to go back to.

    ``rows``: of the first matrix, if a step can give no other row of it a gradient. Only these are copied, as long as the
    optimizer leaves the others alone: a million features make half a gigabyte.
    """

    def __init__(self, net: Layer, optimizer: Optimizer, rows: Array | None = None) -> None:
        self.rows = rows
        self.copies: dict[str, Array] = {}  # by the names of the moments; of the parameters, with no name
        self.take(net, optimizer)

    def take(self, net: Layer, optimizer: Optimizer) -> None:
        """Copy them anew, into the same memory."""
        self.n_steps = optimizer.n_steps
        self.taken, self.shape = np.empty(0, np.int64), (0, 1)
        if self.rows is not None and leaves_rows_alone(optimizer):
            n_rows, n_columns = next(iter(net.params.layout.values()))
            self.taken, self.shape = self.rows, (n_rows, n_columns)
        for name, a in _arrays(net, optimizer).items():
            matrix, rest = self._parts(a)
            copy = self.copies.get(name)
            if copy is None or copy.size != self.taken.size * self.shape[1] + rest.size:
                copy = self.copies[name] = np.empty(self.taken.size * self.shape[1] + rest.size, a.dtype)
            n = copy.size - rest.size
            np.take(matrix, self.taken, axis=0, out=copy[:n].reshape(self.taken.size, self.shape[1]), mode="clip")
            copy[n:] = rest

    def restore(self, net: Layer, optimizer: Optimizer) -> None:
        """Copy them back."""
        optimizer.n_steps = self.n_steps
        arrays = _arrays(net, optimizer)
        for name, copy in self.copies.items():
            matrix, rest = self._parts(arrays[name])
            n = copy.size - rest.size
            matrix[self.taken] = copy[:n].reshape(self.taken.size, self.shape[1])
            rest[:] = copy[n:]

    def _parts(self, a: Array) -> tuple[Array, Array]:
        """Return the first matrix, or no row of it, and all that is not copied by rows."""
        n = self.shape[0] * self.shape[1]
        return a[:n].reshape(self.shape), a[n:]


def _arrays(net: Layer, optimizer: Optimizer) -> dict[str, Array]:
    """Return the moments by name, and the parameters."""
    return {"": net.params.vector, **optimizer.state}


@contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """Count Ctrl-C instead of raising it, so that a step is done or not done; the second one is raised.

    Only where Python's own handler is in force, and for the time of the run.
    """
    import signal
    import threading

    count = 0

    def note(signum: int, frame: Any) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: count
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def progress_bar(n_epochs: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield a function that shows an epoch's logs: on tqdm's bar, or on a line of its own where tqdm is missing."""
    if not n_epochs:
        yield lambda logs: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        done = 0

        def show(logs: Mapping[str, float]) -> None:
            nonlocal done
            done += 1
            values = "  ".join(f"{name} {value:.4g}" for name, value in logs.items())
            print(f"epoch {done}/{n_epochs}  {values}", file=sys.stderr, flush=True)

        yield show
        return
    with tqdm(total=n_epochs, unit="epoch", leave=True) as bar:

        def advance(logs: Mapping[str, float]) -> None:
            bar.set_postfix({name: f"{value:.4g}" for name, value in logs.items()}, refresh=False)
            bar.update()

        yield advance
