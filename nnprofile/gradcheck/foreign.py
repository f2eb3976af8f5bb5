"""The border between this package and the code that it checks: errors from there are ``ForeignError``, and no others.

What may be refused (other numbers, other batches, complex ones) is tried, and only a ForeignError is an answer. Every other
error is a fault of this package, and must not pass for one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


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


class foreign:  # noqa: N801  (it is used as a function is)
    """Turn an error of a block, or of a function that this decorates, into a ForeignError.

    It is crossed at each evaluation: a generator with contextlib's would be a tenth of the time of a check.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ForeignError):
            raise ForeignError(error) from error

    def __call__(self, function: F) -> F:
        """Return the function with its errors turned."""

        @functools.wraps(function)
        def inside(*args: Any, **options: Any) -> Any:
            try:
                return function(*args, **options)
            except ForeignError:
                raise
            except Exception as error:
                raise ForeignError(error) from error

        return inside  # type: ignore[return-value]


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
