"""Statistics of columns that memory does not hold: counted shard by shard, merged in order (docs/scale.md, eq. 73)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Array, is_sparse
from ..tables import column_names
from ..validation import check_size
from .stream import as_shards, draws_for, name_of

if TYPE_CHECKING:
    from .rounds import Map


@dataclass(frozen=True)
class Column:
    """What is known of a column.

    Attributes
    ----------
    kind : "number", "category", or "missing" where there is no value
    n, n_missing, n_infinite : int
        Rows with a value that the statistics are of; with none (None, NaN, NA); with an infinite one.
    mean, variance, minimum, maximum : float
        Of numbers; the variance is the mean square distance from the mean. NaN without numbers.
    counts : dict of value to int, or None
        Of categories, as text, and of whole numbers and truth values; None where more values differ than ``max_categories``.
    sample : array
        Those of its values that are in the sample of rows; of numbers as float64, with NaN for none.
    """

    kind: str
    n: int
    n_missing: int
    n_infinite: int = 0
    mean: float = np.nan
    variance: float = np.nan
    minimum: float = np.nan
    maximum: float = np.nan
    counts: dict[Any, int] | None = None
    sample: Array = field(default_factory=lambda: np.empty(0), repr=False)

    def quantile(self, q: Any) -> Any:
        """Return quantiles of the sampled numbers, in between linear; those of 0 and 1 are the extremes of all rows.

        Of k sampled numbers the rank of a quantile q is off by about sqrt(q (1 - q) / k).
        """
        if self.kind != "number":
            raise ValueError(f"a column of kind {self.kind!r} has no quantiles")
        if not self.n:
            raise ValueError("a column without a finite number has no quantiles")
        q, known = np.asarray(q, float), self.sample[np.isfinite(self.sample)]
        found = np.quantile(known if len(known) else [self.minimum, self.maximum], q)
        return np.where(q == 0, self.minimum, np.where(q == 1, self.maximum, found))[()]

    def edges(self, n_bins: int) -> Array:
        """Return the edges of bins with about as many rows each: fewer bins, where many rows have one value."""
        return np.unique(self.quantile(np.linspace(0, 1, check_size(n_bins, "n_bins") + 1)))


class Summary(Mapping[Any, Column]):
    """Columns by name, the number of rows, and a sample of rows: uniform, without repetition, in the order of the shards.

    Attributes
    ----------
    n_rows : int
    sample : dict of name to array
        The sampled rows, column by column: what an encoder that wants a table in memory is fitted on.
    """

    def __init__(self, n_rows: int, columns: dict[Any, Column], lots: Array) -> None:
        self.n_rows, self.columns, self.lots = n_rows, columns, lots

    @property
    def sample(self) -> dict[Any, Array]:
        """The sampled rows, column by column."""
        return {name: column.sample for name, column in self.columns.items()}

    def __getitem__(self, name: Any) -> Column:
        return self.columns[name]

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        lines = [f"Summary of {self.n_rows:,} rows, {len(self.lots):,} of them sampled"]
        for name, c in self.columns.items():
            known = f"{len(c.counts)} values" if c.counts is not None else "many values"
            if c.kind == "number":
                known = f"mean {c.mean:.6g}, deviation {c.variance**0.5:.6g}, from {c.minimum:.6g} to {c.maximum:.6g}"
            lines.append(f"  {name}: {c.kind}, {known}, {c.n_missing:,} missing")
        return "\n".join(lines)


def summarize(
    shards: Iterable[Any],
    read: Callable[[Any], Any],
    *,
    map: Map = map,  # noqa: A002  (the name of what it stands for)
    sample_size: int = 20_000,
    max_categories: int = 10_000,
    seed: int = 0,
) -> Summary:
    """Count what the shards hold: what an encoder needs to know, without all rows in memory.

    Two parts with n_a and n_b numbers, means m_a, m_b and sums of squares S_a, S_b about them have together
    m = m_a + (m_b - m_a) n_b / n and S = S_a + S_b + (m_b - m_a)^2 n_a n_b / n, n = n_a + n_b. For the sample each row
    draws a lot, and the ``sample_size`` lowest of all shards stay. Everything is the same for any number of workers.

    Parameters
    ----------
    shards : sequence
        Names of pieces of the data.
    read : function shard -> table
        A mapping of names to columns, a data frame (pandas, polars, Arrow), or an array of shape (n_rows, n_columns), whose
        columns are called 0, 1, ...; every shard has the same.
    map : function (f, tasks) -> results, in any order, default Python's own
    sample_size : int, default 20000
    max_categories : int, default 10000
        Columns of more different values have no counts.
    seed : int, default 0
        Of the lots.

    Returns
    -------
    Summary
        A mapping of names to ``Column``.

    Raises
    ------
    ValueError
        If shards are of different columns, or a column holds what is neither numbers nor text, or both; it is named.

    References
    ----------
    Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", eq. 2.1.

    Examples
    --------
    >>> parts = [{"age": [20, 30], "city": ["Rome", None]}, {"age": [40], "city": ["Rome"]}]
    >>> found = summarize(range(2), lambda i: parts[i])
    >>> found.n_rows, found["age"].mean, found["city"].counts, found["city"].n_missing
    (3, 30.0, {'Rome': 2}, 1)
    """
    shards = as_shards(shards)
    k, limit = check_size(sample_size, "sample_size"), check_size(max_categories, "max_categories")
    for name, value in {"read": read, "map": map}.items():
        if not callable(value):
            raise ValueError(f"{name} must be a function, got {value!r:.200}")
    count = partial(_count, read, k, limit, check_size(seed, "seed", least=0))
    results, early = map(count, list(enumerate(shards))), dict[int, Summary]()
    whole: Summary | None = None
    n_done = 0
    for part in results if isinstance(results, Iterable) else ():
        if not isinstance(part, tuple) or len(part) != 2 or not isinstance(part[1], Summary):
            raise ValueError(f"map must return the result of each task, got {part!r:.200}")
        early[part[0]] = part[1]
        while n_done in early:  # merged in the order of the shards, in whichever order they come
            part = early.pop(n_done)
            whole = part if whole is None else _merged(whole, part, k, limit, name_of(shards, n_done))
            n_done += 1
    if whole is None or n_done != len(shards) or early:
        raise ValueError(f"map must return the result of each of {len(shards)} tasks, once, got {n_done}")
    return whole


def _count(read: Callable[[Any], Any], k: int, limit: int, seed: int, task: tuple[int, Any]) -> tuple[int, Summary]:
    """Summarise a shard; return its number as well."""
    i, shard = task
    where = name_of([shard], 0) if isinstance(shard, str) else f"shard {i}"
    columns = _columns(read(shard), where)
    sizes = {name: len(column) for name, column in columns.items()}
    n = next(iter(sizes.values()), 0)
    if set(sizes.values()) - {n}:
        raise ValueError(f"{where}: the columns must have as many rows each, got {sizes}")
    lots = draws_for(seed, 3, 0, i).random(n)
    lowest = np.sort(np.argpartition(lots, k)[:k]) if n > k else np.arange(n)
    found = {name: _column(values, lowest, limit, f"{where}, column {name!r}") for name, values in columns.items()}
    return i, Summary(n, found, lots[lowest])


def _columns(table: Any, where: str) -> dict[Any, Array]:
    """Return the columns of a table as arrays."""
    if isinstance(table, Mapping):
        columns = list(table.items())
    elif (names := column_names(table)) is not None:
        columns = [(name, table.column(k) if hasattr(table, "column") else table[name]) for k, name in enumerate(names)]
        if len(set(names)) < len(names):
            raise ValueError(f"{where}: two columns have one name, of {names}")
    elif getattr(table, "ndim", 0) == 2 and not is_sparse(table):
        columns = [(k, table[:, k]) for k in range(table.shape[1])]
    else:
        kind = type(table).__name__
        raise ValueError(f"{where}: read must return a table: a mapping, a data frame or a 2-D array, got {kind}")
    if not columns:
        raise ValueError(f"{where}: the table has no columns")
    return {name: _as_array(column, f"{where}, column {name!r}") for name, column in columns}


def _as_array(column: Any, where: str) -> Array:
    """Return a column's values, None where they are masked; those of a list as they are, not made alike."""
    if hasattr(column, "type") and hasattr(column.type, "value_type") and hasattr(column, "cast"):
        column = column.cast(column.type.value_type)  # of Arrow's dictionaries missing values are lost otherwise
    if isinstance(column, np.ma.MaskedArray):
        mask, column = np.ma.getmaskarray(column), np.array(column.data, object)
        column[mask] = None
    if isinstance(column, (list, tuple)):
        found = np.empty(len(column), object)
        found[:] = column
        return found
    found = np.asarray(column)
    if found.ndim != 1:
        raise ValueError(f"{where} must hold one value a row, got {type(column).__name__} of shape {found.shape}")
    return found


def _column(a: Array, lowest: Array, limit: int, where: str) -> Column:
    """Summarise a column of a shard; ``lowest`` are the sampled rows."""
    if a.dtype.kind in "fiub":
        return _numbers(a.astype(np.float64), a, lowest, limit)
    if a.dtype.kind not in "OUST":
        raise ValueError(f"{where} must hold numbers or text, got {a.dtype}: make one of it in read")
    a = a.astype(object)
    missing = np.array([_is_missing(value) for value in a], bool)
    kinds = {type(value) for value in a[~missing]}
    if not kinds:
        return Column("missing", 0, len(a), counts={}, sample=np.full(len(lowest), None, object))
    if all(issubclass(kind, (bool, int, float, np.number, np.bool_)) for kind in kinds):
        try:
            return _numbers(np.where(missing, np.nan, a).astype(np.float64), a, lowest, limit)
        except (OverflowError, TypeError) as error:
            raise ValueError(f"{where} must hold numbers of float64: {error}") from None
    if not all(issubclass(kind, (str, bytes)) for kind in kinds):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"{where} must hold numbers or text, got {names}: make one of them in read")
    text = np.empty(len(a), object)
    text[~missing] = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in a[~missing]]
    counts = dict(sorted(Counter(text[~missing].tolist()).items()))
    known = counts if len(counts) <= limit else None
    return Column("category", int((~missing).sum()), int(missing.sum()), counts=known, sample=text[lowest])


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, (float, np.floating)) and value != value)
    )


def _numbers(a: Array, given: Array, lowest: Array, limit: int) -> Column:
    """Summarise numbers, NaN where there is none; ``given`` are the same, of a type in which none is rounded."""
    missing, finite = np.isnan(a), np.isfinite(a)
    found, n = a[finite], int(finite.sum())
    n_missing = int(missing.sum())
    rest = {"n_missing": n_missing, "n_infinite": len(a) - n - n_missing, "sample": a[lowest]}
    if not n:
        return Column("number" if n_missing < len(a) else "missing", 0, counts={}, **rest)  # type: ignore[arg-type]
    counts: dict[Any, int] | None = None
    if (found == np.floor(found)).all():
        exact = given[finite]
        if exact.dtype == object:
            counts = dict(sorted(Counter(map(int, exact)).items()))
        else:
            values, times = np.unique(exact, return_counts=True)
            counts = {int(value): int(time) for value, time in zip(values, times, strict=True)}
        counts = counts if len(counts) <= limit else None
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(found.mean())
        return Column(
            "number",
            n,
            mean=mean,
            variance=float(((found - mean) ** 2).mean()),
            minimum=float(found.min()),
            maximum=float(found.max()),
            counts=counts,
            **rest,  # type: ignore[arg-type]
        )


def _merged(a: Summary, b: Summary, k: int, limit: int, where: str) -> Summary:
    """Return the summary of the rows of both; ``where`` names those of b."""
    if set(a.columns) != set(b.columns):
        raise ValueError(
            f"all shards must have the same columns; {where} has {list(b.columns)}, those before {list(a.columns)}"
        )
    lots = np.concatenate([a.lots, b.lots])
    lowest = np.sort(np.argpartition(lots, k)[:k]) if len(lots) > k else np.arange(len(lots))
    columns = {name: _both(a[name], b[name], lowest, limit, f"{where}, column {name!r}") for name in a}
    return Summary(a.n_rows + b.n_rows, columns, lots[lowest])


def _both(a: Column, b: Column, lowest: Array, limit: int, where: str) -> Column:
    """Return what is known of a column in both parts."""
    kinds = {a.kind, b.kind} - {"missing"}
    if len(kinds) > 1:
        raise ValueError(f"{where} is a {b.kind}, and a {a.kind} in the shards before")
    kind = kinds.pop() if kinds else "missing"
    none: Any = np.nan if kind == "number" else None
    samples = [np.full(len(c.sample), none) if c.kind == "missing" else c.sample for c in (a, b)]
    sample = np.concatenate(samples)[lowest]
    counts: dict[Any, int] | None = None
    if a.counts is not None and b.counts is not None:
        counts = dict(sorted({v: a.counts.get(v, 0) + b.counts.get(v, 0) for v in a.counts | b.counts}.items()))
        counts = counts if len(counts) <= limit else None
    n = a.n + b.n
    both = replace(
        a,
        kind=kind,
        n=n,
        n_missing=a.n_missing + b.n_missing,
        n_infinite=a.n_infinite + b.n_infinite,
        counts=counts,
        sample=sample,
    )
    if kind != "number" or not a.n or not b.n:
        known = a if a.n else b
        return replace(both, mean=known.mean, variance=known.variance, minimum=known.minimum, maximum=known.maximum)
    with np.errstate(over="ignore", invalid="ignore"):
        share, apart = b.n / n, b.mean - a.mean
        variance = (1 - share) * a.variance + share * b.variance + np.square(apart) * share * (1 - share)
        return replace(
            both,
            mean=a.mean + apart * share,
            variance=float(variance),
            minimum=min(a.minimum, b.minimum),
            maximum=max(a.maximum, b.maximum),
        )
