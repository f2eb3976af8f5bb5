"""Set test rows aside, so that nobody is on both sides: neither a person with several rows, nor a near-copy of one.

A score is only as of people never seen if they were never seen. So rows of one person stay together, as do records that agree
in all but a few columns; and where time orders the records, the last part of it is the test.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedKFold

from .preprocess import PreprocessError, Table

N_SPLITS = 5
LARGE = 0.1  # of all rows are equal: no accident, and half a test set
N_LOOKS = 60  # random choices of columns in which near-copies are looked for
FEWEST = 6  # columns, at least, that records may be near-copies
DIFFERENT = 0.25  # of the columns may differ in near-copies
MENTION = 0.005  # of the records are near-copies, before it is said
LAST = 0.2  # of the records, in order of time, are the test set

Split = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """The splits into rows to fit, to validate and to test, and what they keep together."""

    splits: list[Split]
    people: np.ndarray  # of each row, the number of its group: rows of one person, copies, and near-copies
    notes: list[str] = field(default_factory=list)
    n_near: int = 0  # records that are near-copies, and no exact ones
    exact: np.ndarray | None = None  # the groups without near-copies, to say what those change
    in_time: bool = False


def plan(table: Table) -> Plan:
    """Return 5 splits of 69, 11 and 20 % of the rows, or one in order of time.

    Where there are hardly any different rows (two or three columns with a few values each), or one row makes up a large
    share, equal rows are different people, and are split as such.

    Raises
    ------
    PreprocessError
        If there are too few people of a kind.
    """
    exact, notes = _equal_rows(table), []
    people = exact
    if table.group:
        people = _merged(exact, pd.factorize(table.identifiers[table.group])[0])
        notes.append(f"rows of one {table.group!r} stay together: {len(table.y)} rows of {people.max() + 1} people")
    elif found := _told_by_the_label(table):
        name, people = found[0], _merged(exact, found[1])
        notes.append(
            f"rows of one {name!r} have the same label far more often than chance: they stay together, as if of one person; "
            f"--group {name!r} says so, and leaves it out of the traits, --group none splits them"
        )
    apart, n_near = people, 0
    if table.columns:  # else each row is a customer of a log
        near, n_near, agree, chance = _near_copies(table)
        people = _merged(people, near)
        if n_near > max(10, MENTION * len(table.y)):
            notes.append(
                f"{n_near} records agree with another in all but a few columns, and {agree:.0%} of these pairs in the label "
                f"({chance:.0%} by chance): near-copies stay together, on one side of each split"
            )
    if table.when is not None:
        return Plan([_by_time(table, people)], people, notes, n_near, apart, in_time=True)
    return Plan(folds(table, people), people, notes, n_near, apart if n_near else None)


def splits(table: Table) -> list[Split]:
    """Return the splits of ``plan``."""
    return plan(table).splits


def _equal_rows(table: Table) -> np.ndarray:
    """Return, for each row, the number of its content; of its own, where equal rows are different people."""
    content = pd.util.hash_pandas_object(table.frame, index=False).to_numpy()
    _, first, group = np.unique(content, return_index=True, return_inverse=True)
    few = min(np.bincount(table.y[first], minlength=2)) < 2 * N_SPLITS
    return np.arange(len(table.y)) if few or np.bincount(group).max() > LARGE * len(table.y) else group


def _merged(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return groups in which rows are together that are in either."""
    n, m = int(one.max()) + 1, int(other.max()) + 1
    graph = coo_array((np.ones(len(one)), (one, n + other)), shape=(n + m, n + m))
    return np.unique(connected_components(graph, directed=False)[1][one], return_inverse=True)[1]


def folds(table: Table, people: np.ndarray) -> list[Split]:
    """Return the splits, in which each group is on one side; a group counts as a yes if it has more of them than most."""
    share = np.bincount(people, weights=table.y) / np.bincount(people)
    label = (share > table.y.mean()).astype(int)
    least = 2 * N_SPLITS
    counts = np.bincount(label, minlength=2)
    if min(counts) < least:
        raise PreprocessError(
            f"{table.name} has {counts} people of no and yes: too few, {least} of each are needed to train and to test"
        )
    found = []
    for k, (learn, test) in enumerate(StratifiedKFold(N_SPLITS, shuffle=True, random_state=0).split(label, label)):
        fit, validate = next(StratifiedKFold(7, shuffle=True, random_state=k).split(learn, label[learn]))
        found.append(tuple(np.flatnonzero(np.isin(people, part)) for part in (learn[fit], learn[validate], test)))
    return found


def _by_time(table: Table, people: np.ndarray) -> Split:
    """Return the first part of time to fit, then the rows to validate, then the test; nobody of the test is in the others."""
    assert table.when is not None
    order = np.argsort(table.when, kind="stable")
    n = len(order)
    at = table.when[order[[int((1 - LAST) * 6 / 7 * n), int((1 - LAST) * n)]]]
    test = table.when >= at[1]
    seen = np.isin(people, people[test])
    fit, validate = (table.when < at[0]) & ~seen, (table.when >= at[0]) & ~test & ~seen
    for what, rows in (("to fit", fit), ("to validate", validate), ("to test", test)):
        if min(np.bincount(table.y[rows], minlength=2)) < N_SPLITS:
            raise PreprocessError(
                f"{table.name}: the rows {what}, in order of time, hold fewer than {N_SPLITS} of no or of yes"
            )
    return np.flatnonzero(fit), np.flatnonzero(validate), np.flatnonzero(test)


def _told_by_the_label(table: Table) -> tuple[str, np.ndarray] | None:
    """Return a column whose values group rows of one label, as an identifier of persons does, and the groups."""
    p = table.y.mean()
    best: tuple[float, str, np.ndarray] | None = None
    for column in table.columns:
        name = next(iter(column.features()))
        codes = pd.factorize(table.frame[name], use_na_sentinel=False)[0]
        sizes = np.bincount(codes)
        if (
            not (len(sizes) >= FEWEST and len(codes) / len(sizes) >= 2 and sizes.max() <= LARGE * len(codes))
            or len(sizes) < 50
        ):
            continue
        yes = np.bincount(codes, weights=table.y)
        several = sizes >= 2
        same = (yes == 0) | (yes == sizes)
        expected = (1 - p) ** sizes + p**sizes
        if same[several].mean() < 0.95:
            continue
        z = (same[several].sum() - expected[several].sum()) / np.sqrt((expected * (1 - expected))[several].sum() + 1e-9)
        if z > 8 and (best is None or len(sizes) > len(np.unique(best[2]))):
            best = z, name, codes
    return None if best is None else (best[1], best[2])


def _near_copies(table: Table) -> tuple[np.ndarray, int, float, float]:
    """Return groups of near-copies, how many records have one, how often their labels agree, and would by chance.

    Records that agree in all but a quarter of the columns, in values so rare together that no two would by chance. They are
    found by random choices of columns: who agrees in one of these is compared in all.
    """
    n, alone = len(table.y), np.arange(len(table.y))
    names = [next(iter(column.features())) for column in table.columns]
    codes = np.stack([pd.factorize(table.frame[name], use_na_sentinel=False)[0] for name in names], axis=1)
    codes = codes[:, codes.max(axis=0, initial=0) > 0]
    if codes.shape[1] < FEWEST or n < 50:
        return alone, 0, 0.0, 0.0
    rng = np.random.default_rng(0)
    shares = [np.bincount(column) / n for column in codes.T]
    rarity = np.stack([-np.log(share)[column] for share, column in zip(shares, codes.T, strict=True)], axis=1)
    tells = np.array([-np.log((share**2).sum()) for share in shares])
    enough = np.log(n * n / 2)
    marks = np.stack([rng.integers(0, 2**63, column.max() + 1)[column] for column in codes.T], axis=1)
    pairs: set[tuple[int, int]] = set()
    for _ in range(N_LOOKS):
        order = rng.permutation(codes.shape[1])
        k = int(np.searchsorted(np.cumsum(tells[order]), enough)) + 1
        if k > (1 - DIFFERENT) * codes.shape[1]:
            continue
        key = np.bitwise_xor.reduce(marks[:, order[:k]] * (2 * order[:k] + 1), axis=1)
        by = np.argsort(key, kind="stable")
        same = np.flatnonzero(key[by[1:]] == key[by[:-1]])
        a, b = by[same], by[same + 1]
        agree = codes[a] == codes[b]
        far = (~agree).sum(axis=1) > max(1, int(DIFFERENT * codes.shape[1]))
        sure = (rarity[a] * agree).sum(axis=1) > enough + np.log(100)
        exact = agree.all(axis=1)
        pairs.update(zip(a[~far & sure & ~exact].tolist(), b[~far & sure & ~exact].tolist(), strict=True))
    if not pairs:
        return alone, 0, 0.0, 0.0
    a, b = np.array(sorted(pairs)).T
    groups = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(n, n)), directed=False)[1]
    if np.bincount(groups).max() > LARGE * n:  # records that all resemble each other are no copies
        return alone, 0, 0.0, 0.0
    p = table.y.mean()
    return groups, len(np.unique([a, b])), float((table.y[a] == table.y[b]).mean()), float(p * p + (1 - p) ** 2)
