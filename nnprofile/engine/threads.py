"""Threads that share a step: its batch is cut into groups of rows, and whoever is free takes the next group.

The thread that calls ``train`` publishes a step and waits for its end; the others wait for the next one, spinning for some
microseconds and then letting others run. What a group computes goes to its own place, and is added up in the order of the
groups: the bits are the same for any number of threads, one included.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .elementary import HELPER, IS_X86

MOST = 16  # groups of a batch
FEWEST_ROWS = 512  # of a group
_LINE = 8  # numbers of the state between two that different threads write

# What is in the state: the next group, with the number of groups and of the step; how many groups are done; whether to stop.
_NEXT, _DONE, _STOP = 0, _LINE, 2 * _LINE
# Of the step: its place in ``order``, its rows, and the uniforms before it.
START, SIZE, DRAWN = 3 * _LINE, 3 * _LINE + 1, 3 * _LINE + 2
_INDEX_BITS = 16


class Crew(NamedTuple):
    """What the threads share."""

    state: np.ndarray  # int64
    values: np.ndarray  # float64, of each group: its part of the loss
    refused: np.ndarray  # float64, of each group: the first value outside [0, 1]


def new_crew() -> Crew:
    """Return what threads share, at rest."""
    return Crew(np.zeros(4 * _LINE, np.int64), np.zeros(MOST), np.zeros(MOST))


def end(crew: Crew) -> None:
    """Let all that wait return."""
    crew.state[_STOP] = 1


def begin(crew: Crew) -> None:
    """Let threads wait for steps."""
    crew.state[[_NEXT, _DONE, _STOP]] = 0


def rows_of_group(n_batch: int, n_block: int) -> int:
    """Return how many rows are in a group, whole blocks, for batches of so many rows."""
    n = max(FEWEST_ROWS, -(-n_batch // MOST))
    return -(-n // n_block) * n_block


def _place(context, builder, kind, array, index):
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


@intrinsic
def _read(typing, a, i):
    """Return a[i], and see all that was written before it."""

    def emit(context, builder, signature, args):
        return builder.load_atomic(_place(context, builder, a, *args), "acquire", 8)

    return types.int64(a, types.int64), emit


@intrinsic
def _write(typing, a, i, value):
    """Write a[i], so that who reads it sees all that was written before it."""

    def emit(context, builder, signature, args):
        builder.store_atomic(args[2], _place(context, builder, a, args[0], args[1]), "release", 8)
        return context.get_dummy_value()

    return types.void(a, types.int64, types.int64), emit


@intrinsic
def _add(typing, a, i, value):
    """Add to a[i], and return what it was."""

    def emit(context, builder, signature, args):
        return builder.atomic_rmw("add", _place(context, builder, a, args[0], args[1]), args[2], "acq_rel")

    return types.int64(a, types.int64, types.int64), emit


@intrinsic
def _pause(typing, lets_others_run):
    """Wait for some cycles, or let the system run another thread on this core."""

    def emit(context, builder, signature, args):
        nothing = ir.FunctionType(ir.VoidType(), [])
        if IS_X86:
            builder.call(cgutils.get_or_insert_function(builder.module, nothing, "llvm.x86.sse2.pause"), [])
        if os.name == "posix":
            with builder.if_then(args[0]):
                kind = ir.FunctionType(ir.IntType(32), [])
                builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(types.boolean), emit


@njit(**HELPER)
def publish(crew, n_groups, start, size, n_drawn):
    """Offer the groups of a step; its gradients must have a place each, and parameters and shares be as they are to be read."""
    state = crew.state
    state[START], state[SIZE], state[DRAWN] = start, size, n_drawn
    _write(state, _DONE, 0)
    step = (_read(state, _NEXT) >> (2 * _INDEX_BITS)) + 1
    _write(state, _NEXT, (step << (2 * _INDEX_BITS)) + (n_groups << _INDEX_BITS))


@njit(**HELPER)
def next_group(crew):
    """Return the number of a group that nobody has taken, or -1."""
    if not _is_open(_read(crew.state, _NEXT)):
        return -1
    taken = _add(crew.state, _NEXT, 1)
    return taken & ((1 << _INDEX_BITS) - 1) if _is_open(taken) else -1


@njit(**HELPER)
def _is_open(n):
    return n & ((1 << _INDEX_BITS) - 1) < (n >> _INDEX_BITS) & ((1 << _INDEX_BITS) - 1)


@njit(**HELPER)
def finish(crew):
    """Say that a group is done."""
    _add(crew.state, _DONE, 1)


@njit(**HELPER)
def wait_for_all(crew, n_groups):
    """Return when all groups of the step are done, whether they are: not, if a thread has failed."""
    n_turns = 0
    while _read(crew.state, _DONE) < n_groups:
        if _read(crew.state, _STOP) != 0:
            return False
        n_turns += 1
        _pause(n_turns % 1024 == 0)
    return True


@njit(**HELPER)
def wait_for_a_group(crew):
    """Return the number of a group, as soon as there is one; or -1 at the end."""
    n_turns = 0
    while _read(crew.state, _STOP) == 0:
        group = next_group(crew)
        if group >= 0:
            return group
        n_turns += 1
        _pause(n_turns % 1024 == 0)
    return -1


@njit(**HELPER)
def stop(crew):
    """Let all that wait return."""
    _write(crew.state, _STOP, 1)
