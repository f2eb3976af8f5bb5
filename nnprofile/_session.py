"""Around a run of training: a state to go back to, Ctrl-C between steps, and a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .contract import Layer, Optimizer


class HalfStep(KeyboardInterrupt):
    """Ctrl-C in the middle of an optimizer's step: nothing but the start of the epoch is whole."""


class Snapshot:
    """A copy of parameters and optimizer state, to go back to."""

    def __init__(self, net: Layer, optimizer: Optimizer) -> None:
        self.vector = np.empty_like(net.params.vector)
        self.moments = {name: np.empty_like(moment) for name, moment in optimizer.state.items()}
        self.take(net, optimizer)

    def take(self, net: Layer, optimizer: Optimizer) -> None:
        """Copy them anew, into the same memory: a million features make that half a gigabyte."""
        self.n_steps = optimizer.n_steps
        self.vector[:] = net.params.vector
        for name, moment in self.moments.items():
            moment[:] = optimizer.state[name]

    def restore(self, net: Layer, optimizer: Optimizer) -> None:
        """Copy them back."""
        net.params.vector = self.vector
        optimizer.n_steps = self.n_steps
        for name, moment in self.moments.items():
            optimizer.state[name][:] = moment


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
