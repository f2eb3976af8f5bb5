"""Set test rows aside, so that no person is on both sides: neither a person with several rows, nor a near-copy of one.

A score is only as of people never seen if they were never seen. So rows of one person stay together, as do records that agree
in all but a few columns; and where time orders the records, the last part of it is the test.
"""

from __future__ import annotations

import re
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
FEWEST = 4  # columns, at least, that records may be near-copies
DIFFERENT = 0.45  # of the columns may differ in near-copies
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
    people, notes = np.arange(len(table.y)) if table.groups else _equal_rows(table), []
    if table.alone:
        notes.append("no rows are of the same person, as asked: if some are, scores are of people that were seen")
    for name in table.groups:
        people = _merged(people, _codes(table.identifiers[name]))
        notes.append(f"rows of one {name!r} stay together")
    if not table.groups and not table.alone and (found := _who(table)):
        name, groups, why = found
        people = _merged(people, groups)
        notes.append(f"rows of one {name!r} {why}: they stay together, as if of one person (--group {name!r}, or none)")
    if table.groups or len(notes) > table.alone:
        notes[-1] += f": {len(table.y)} rows of {people.max() + 1} people"
    apart, n_near = people, 0
    if table.columns:  # else each row is a customer of a log
        near, n_near, agree, chance = _near_copies(table)
        people = _merged(people, near)
        if n_near > max(10, MENTION * len(table.y)):
            notes.append(
                f"{n_near} records look like another: most columns are equal, and {agree:.0%} of these pairs agree in the label "
                f"({chance:.0%} by chance). In case they are copies, they stay together, on one side of each split"
            )
    if table.when is not None:
        split = _by_time(table, people)
        gone = len(table.y) - sum(map(len, split))
        notes.append(
            f"the test is the last {len(split[2])} rows in time; {gone} earlier rows of the same people are left out"
        )
        return Plan([split], people, notes, n_near, in_time=True)
    return Plan(folds(table, people), people, notes, n_near, apart if n_near else None)


def splits(table: Table) -> list[Split]:
    """Return the splits of ``plan``."""
    return plan(table).splits


def _equal_rows(table: Table) -> np.ndarray:
    """Return, for each row, the number of its content; of its own, where equal rows are different people."""
    content = pd.util.hash_pandas_object(table.frame, index=False).to_numpy()
    _, first, group = np.unique(content, return_index=True, return_inverse=True)
    if min(np.bincount(table.y[first], minlength=2)) < 2 * N_SPLITS:
        return np.arange(len(table.y))
    large = np.bincount(group)[group] > LARGE * len(table.y)
    return np.unique(np.where(large, len(group) + np.arange(len(group)), group), return_inverse=True)[1]


def _codes(values: pd.Series) -> np.ndarray:
    """Return a number for each value, and one of its own for each that is missing."""
    codes = pd.factorize(values)[0]
    return np.where(codes < 0, codes.max(initial=0) + 1 + np.arange(len(codes)), codes)


def _merged(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return groups in which rows are together that are in either."""
    n, m = int(one.max()) + 1, int(other.max()) + 1
    graph = coo_array((np.ones(len(one)), (one, n + other)), shape=(n + m, n + m))
    return np.unique(connected_components(graph, directed=False)[1][one], return_inverse=True)[1]


def folds(table: Table, people: np.ndarray) -> list[Split]:
    """Return the splits, in which each group is on one side; a group counts as a yes if it has more of them than most."""
    sizes = np.bincount(people)
    label = table.y[np.unique(people, return_index=True)[1]]  # of the first row
    if sizes.mean() > 1.5:
        label = (np.bincount(people, weights=table.y) / sizes > table.y.mean()).astype(int)
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
    """Return the first part of time to fit, then the rows to validate, then the test; no person of the test is in the others."""
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


_PLACE = re.compile(
    r"city|town|state|region|country|zip|post|lat|lon|lng|geo|store|branch|shop|place|stadt|ort|land|城市|地区|省|город|регион"
)


def _who(table: Table) -> tuple[str, np.ndarray, str] | None:
    """Return a column whose values are persons with several rows: name, groups, and how it shows.

    Either its rows have the same label far more often than chance, or other columns are the same within its values, as the
    age of a customer is. Places are none: a town has one postcode too.
    """
    candidates = {column.name: table.frame[next(iter(column.features()))] for column in table.columns}
    candidates = {**candidates, **{name: table.identifiers[name] for name in table.identifiers}}
    codes = {name: _codes(series) for name, series in candidates.items() if not _PLACE.search(name.lower())}
    codes = {name: code for name, code in codes.items() if len(np.unique(code)) >= 10}
    best: tuple[int, str, str] | None = None
    for name, code in codes.items():
        sizes = np.bincount(code)
        sizes = sizes[sizes > 0]
        if len(sizes) < 50 or len(code) < 1.05 * len(sizes) or sizes.max() > LARGE * len(code):
            continue
        named = name in table.identifiers
        same = [other for other in codes if other != name and _is_constant(code, codes[other])]
        why = "have the same label far more often than chance" if _one_label(code, table.y) else ""
        if len(same) >= (1 if named else 2):
            why = f"have the same {' and '.join(map(repr, same[:2]))}"
        if why and (best is None or len(sizes) > best[0]):
            best = len(sizes), name, why
    return None if best is None else (best[1], codes[best[1]], best[2])


def _is_constant(code: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether a column is the same within nearly all values of another that have several rows, and not by chance."""
    sizes = np.bincount(code)
    pairs = np.unique(np.stack([code, other], axis=1), axis=0)
    distinct = np.bincount(pairs[:, 0], minlength=len(sizes))
    several = sizes > 1
    share = np.bincount(other) / len(other)
    by_chance = (
        float((share[:, None] ** np.minimum(sizes[several], 9)).sum(axis=0).mean()) if several.sum() >= 20 else 1.0
    )
    return bool(by_chance < 0.2 and (distinct[several] == 1).mean() > 0.9 and len(share) <= several.size)


def _one_label(code: np.ndarray, y: np.ndarray) -> bool:
    """Tell whether rows of one value have one label, far more often than chance."""
    p, sizes = y.mean(), np.bincount(code)
    yes = np.bincount(code, weights=y)
    several = sizes >= 2
    if several.sum() < 20 or sizes.sum() < 2 * (sizes > 0).sum():
        return False
    same = ((yes == 0) | (yes == sizes))[several]
    expected = ((1 - p) ** sizes + p**sizes)[several]
    z = (same.sum() - expected.sum()) / np.sqrt((expected * (1 - expected)).sum() + 1e-9)
    return bool(same.mean() >= 0.95 and z > 8)


def _near_copies(table: Table) -> tuple[np.ndarray, int, float, float]:
    """Return groups of near-copies, how many records have one, how often their labels agree, and would by chance.

    Records that agree in more than half of the columns, in values so rare together that no two would by chance. They are
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
