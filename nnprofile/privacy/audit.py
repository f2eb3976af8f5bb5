"""Measure whether training is as private as it claims: canaries in one run, of anybody's code.

A canary is a row whose only number that is not 0 stands in a column of its own, so that nothing but the canary and the noise
moves the weights of that column. Half of the canaries, by lot, are trained on; then it is guessed, from the weights, which. If
training is (epsilon, delta)-private, a guess is right with a probability of at most e^epsilon / (1 + e^epsilon), near enough; so
many right guesses prove an epsilon (docs/privacy.md, eq. 81-82).

References
----------
Steinke, Nasr and Jagielski (2023), "Privacy auditing with one (1) training run", theorem 5.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import Array
from ..validation import check_number, check_rng, check_size

_MOST = 60.0  # epsilon
N_LEAST = 20  # canaries, with which something can be proved
N_BLANK = 64  # columns in which no row has a number: what moves their weights is the noise
UNSEEN = (
    "A bound proves wrong, never right. What it cannot see: batches that are shuffled instead of drawn, a divisor that depends "
    "on the rows, an encoder or a choice of settings that has seen them, noise that can be drawn again."
)


@dataclass(frozen=True)
class PrivacyAudit:
    """What an audit found.

    Attributes
    ----------
    claimed_epsilon, delta : float
    lower_bound : float
        Epsilon is more than that, with the confidence asked for.
    n_right, n_guesses : int
        Of the guesses that prove most.
    without_noise : list of int
        Which of the arrays move hardly differently in two runs, as if no noise were added to them. Small ones, of one number, are
        seen by chance only.
    is_repeated : bool
        Two runs were the same to the bit: whoever can run it again can take the noise away.
    """

    claimed_epsilon: float
    delta: float
    confidence: float
    lower_bound: float
    n_right: int
    n_guesses: int
    without_noise: list[int]
    is_repeated: bool = False

    @property
    def passed(self) -> bool:
        """Whether nothing contradicts the claim."""
        return self.lower_bound <= self.claimed_epsilon and not self.without_noise

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        found = (
            f"{self.n_right} of {self.n_guesses} guesses about canaries were right: epsilon is at least {self.lower_bound:.2f}, "
            f"with {100 * self.confidence:.6g}% confidence; the claim is {self.claimed_epsilon:g} at delta={self.delta:g}"
        )
        lines = [f"{found}: {'WRONG' if self.lower_bound > self.claimed_epsilon else 'no contradiction'}."]
        if self.without_noise:
            lines.append(f"WRONG: no noise on the arrays {self.without_noise} (0 are the weights of the first layer).")
        if self.is_repeated:
            lines.append("Two runs are the same to the bit, so noise on the other arrays could not be looked for.")
        return "\n".join([*lines, UNSEEN])

    __repr__ = __str__


def check_private(
    fit: Callable[[Array, Array], tuple[Any, Any]],
    claimed_epsilon: float,
    *,
    delta: float = 1e-5,
    n_features: int = 8,
    n_rows: int = 2000,
    n_canaries: int = 2000,
    n_outputs: int = 1,
    scale: float = 30.0,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> PrivacyAudit:
    """Find how private a training function is at most, in one run of it.

    With m canaries, half of them trained on, and r guesses, each right with p = e^eps / (1 + e^eps) at most (eq. 81-82),

        P[v right or more] <= beta + 2 m delta alpha,   beta = P[Bin(r, p) >= v],   alpha = max_i P[v - i <= Bin(r, p) < v] / i.

    The bound is the largest epsilon that this excludes, for the best of a few numbers r of guesses, all of them allowed for.

    Parameters
    ----------
    fit : function (x, y) -> (before, after)
        Anybody's training on rows x, float64 of shape (n, n_features + n_canaries + 64), with answers y, 0 or 1: the parameters
        before and after it, each as a list of arrays, of which the first are the weights of the first layer, a row for each
        column of x; or these weights alone. It is called once, and once more if it returns more than the weights.
    claimed_epsilon, delta : float
        What the training is said to spend on these rows.
    n_features, n_rows : int
        Of the rows beside the canaries.
    n_canaries : int, default 2000
        m. More can prove more: 2,000 prove an epsilon of 5.7 at most.
    n_outputs : int, default 1
        More than 1: y holds classes.
    scale : float, default 30
        The number in a canary's column. Large, so that its gradient is mostly by the weights of that column.
    confidence : float, default 0.95
    rng : numpy.random.Generator
        Draws rows, and which canaries are in.

    Returns
    -------
    PrivacyAudit
        Prints the measured bound beside the claim, and what such an audit cannot see.

    Raises
    ------
    ValueError
        If an argument, or what ``fit`` returns, is not as above.

    Examples
    --------
    >>> def no_noise(x, y):
    ...     before = np.zeros((x.shape[1], 1))
    ...     return before, before + x.T @ (y - 0.5)[:, None]
    >>> audit = check_private(no_noise, 3.0, rng=np.random.default_rng(0))
    >>> audit.passed, round(audit.lower_bound, 1)
    (False, 5.7)
    """
    claimed, delta = check_number(claimed_epsilon, "claimed_epsilon"), check_number(delta, "delta", below=1.0)
    confidence = check_number(confidence, "confidence", below=1.0, positive=True)
    n_features, n_rows, m = (
        check_size(value, name, least=least)
        for name, value, least in (
            ("n_features", n_features, 1),
            ("n_rows", n_rows, 1),
            ("n_canaries", n_canaries, N_LEAST),
        )
    )
    n_outputs, scale = check_size(n_outputs, "n_outputs"), check_number(scale, "scale", positive=True)
    check_rng(rng)
    if not callable(fit):
        raise ValueError(f"fit must be a function (x, y) -> (before, after), got {fit!r:.200}")

    n_columns = n_features + m + N_BLANK
    x, canaries = np.zeros((n_rows, n_columns)), np.zeros((m, n_columns))
    x[:, :n_features] = rng.normal(size=(n_rows, n_features))
    canaries[np.arange(m), n_features + np.arange(m)] = scale
    classes = max(2, n_outputs)
    y = np.clip(np.floor((x[:, 0] / 3 + 0.5) * classes), 0, classes - 1).astype(int)
    labels, is_in = rng.integers(0, classes, m), rng.random(m) < 0.5
    order = rng.permutation(n_rows + int(is_in.sum()))
    rows, answers = np.concatenate([x, canaries[is_in]])[order], np.concatenate([y, labels[is_in]])[order]

    start, moved = _moves(fit(rows.copy(), answers.copy()), n_columns)
    own = slice(n_features, n_features + m)
    scores = _scores(start[own], moved[0][own], labels)
    bound, n_right, n_guesses = _lower_bound(scores, is_in, delta, 1 - confidence)
    blank = moved[0][n_features + m :]
    quiet, is_repeated = [] if blank.any() else [0], False
    if len(moved) > 1 and blank.any():
        _, again = _moves(fit(rows.copy(), answers.copy()), n_columns)
        is_repeated = bool((moved[0] == again[0]).all())
        quiet += [] if is_repeated else _without_noise(moved, again, blank)
    return PrivacyAudit(claimed, delta, confidence, bound, n_right, n_guesses, quiet, is_repeated)


def _moves(found: Any, n_columns: int) -> tuple[Array, list[Array]]:
    """Return the weights of the first layer before, and how far each array moved."""
    try:
        before, after = found
    except (TypeError, ValueError):
        raise ValueError(f"fit must return (before, after), got {type(found).__name__}") from None
    before, after = (list(part) if isinstance(part, (list, tuple)) else [part] for part in (before, after))
    try:
        moved = [np.asarray(b, float) - np.asarray(a, float) for a, b in zip(before, after, strict=True)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"before and after must be arrays of numbers, of the same shapes: {error}") from None
    if not all(np.isfinite(a).all() for a in moved):
        raise ValueError("fit returned parameters that are not finite: nothing can be said of them")
    if not moved or moved[0].ndim != 2 or len(moved[0]) != n_columns:
        shape = moved[0].shape if moved else None
        raise ValueError(
            f"the first array must be weights with a row for each of {n_columns} columns of x, got shape {shape}"
        )
    return np.asarray(before[0], float), moved


def _scores(before: Array, moved: Array, labels: Array) -> Array:
    """Return how far each canary's weights went the way in which others' went: far, if it was trained on.

    Others of its label, and, for each weight, of the same sign before: a ReLU lets only some of them learn.
    """
    scores = np.zeros(len(moved))
    for label in np.unique(labels):
        own = labels == label
        for side in (before > 0, before <= 0):
            some = side & own[:, None]
            way = (moved * some).sum(axis=0) / np.maximum(1, some.sum(axis=0))
            scores += np.where(some, moved, 0) @ way
    return scores


def _lower_bound(scores: Array, is_in: Array, delta: float, p: float) -> tuple[float, int, int]:
    """Return the largest epsilon that the guesses exclude, and the guesses."""
    m, best = len(scores), (0.0, 0, 0)
    order = np.argsort(scores)
    tries = sorted({max(2, int(share * m) // 2 * 2) for share in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)})
    for r in tries:
        n_right = int(is_in[order[m - r // 2 :]].sum() + (~is_in[order[: r // 2]]).sum())
        found = _excluded(m, r, n_right, delta, p / len(tries))
        if found >= best[0]:
            best = found, n_right, r
    return best


def _excluded(m: int, r: int, v: int, delta: float, p: float) -> float:
    """Return the largest epsilon under which v right guesses of r, about m canaries, have a probability of at most p."""
    low, high = 0.0, 1.0
    if _probability(m, r, v, delta, low) > p:
        return 0.0
    while _probability(m, r, v, delta, high) <= p and high < _MOST:
        low, high = high, high + 1
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability(m, r, v, delta, middle) <= p else (low, middle)
    return low


def _probability(m: int, r: int, v: int, delta: float, epsilon: float) -> float:
    """Return beta + 2 m delta alpha of theorem 5.2."""
    from scipy.stats import binom

    right = 1 / (1 + np.exp(-epsilon))
    beta = float(binom.sf(v - 1, r, right))
    if not v:
        return min(1.0, beta)
    below = np.cumsum(binom.pmf(np.arange(v - 1, -1, -1), r, right))  # P[v - i <= Bin < v], i = 1 .. v
    return min(1.0, beta + 2 * m * delta * float((below / np.arange(1, v + 1)).max()))


def _without_noise(one: Sequence[Array], other: Sequence[Array], blank: Array) -> list[int]:
    """Return which arrays move, and differ between two runs by less than a fifth of what noise as on the blank columns would do.

    Noise makes the sum of squares of a difference, in units of its variance, at least a chi-square of as many degrees.
    """
    from scipy.stats import chi2

    variance = 2 * float((blank * blank).mean())  # of the difference of two runs, a coordinate
    quiet = []
    for k, (a, b) in enumerate(zip(one, other, strict=True)):
        apart = float(((a - b) ** 2).sum())
        if k and a.any() and apart <= variance * min(chi2.ppf(1e-4, a.size), a.size / 25):
            quiet.append(k)
    return quiet
