"""The border between this package and the code that it checks: errors from there are ``ForeignError``, and no others.

What may be refused (other numbers, other batches, complex ones) is tried, and only a ForeignError is an answer. Every other
error is a fault of this package, and must not pass for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ForeignError(Exception):
    """An error of the code that is checked: it raised it, or returned what it must not.

    Attributes
    ----------
    error : Exception
        As it was raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.error = error


@contextmanager
def foreign() -> Iterator[None]:
    """Turn an error of a block, or of a function that this decorates, into a ForeignError."""
    try:
        yield
    except ForeignError:
        raise
    except Exception as error:
        raise ForeignError(error) from error


@contextmanager
def handed_over() -> Iterator[None]:
    """Raise the error inside a ForeignError: the caller of a check gets that of their own code."""
    error = None
    try:
        yield
    except ForeignError as foreign_error:
        error = foreign_error.error
    if error is not None:
        raise error
