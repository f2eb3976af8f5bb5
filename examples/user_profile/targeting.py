"""What acting on the scores would have brought, in the business's own figures.

An action (a coupon, a call) is aimed at those of whom something is true: those who will buy, or those who will leave. It costs
the same for everyone, and brings something only where it is true.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Business:
    """What an action costs, and what it brings: ``success`` of those it is aimed at respond, each worth ``value``."""

    cost: float = 1.0
    value: float = 30.0
    success: float = 0.1

    def __post_init__(self) -> None:
        for name, low, high in (("cost", 0, np.inf), ("value", 0, np.inf), ("success", 0, 1)):
            if not (low < getattr(self, name) <= high and np.isfinite(getattr(self, name))):
                raise ValueError(
                    f"{name} must be above 0{' and at most 1' if high == 1 else ''}, got {getattr(self, name)}"
                )

        if not self.success * self.value > 0 or not np.isfinite(self.threshold):
            raise ValueError("success times value is too small")

    @property
    def threshold(self) -> float:
        """The probability p from which on an action pays on average: p * success * value >= cost. Above 1, it never does."""
        return self.cost / (self.success * self.value)

    def expected(self, proba: np.ndarray) -> np.ndarray:
        """Return what acting on each person brings on average, by the probability that the action's aim is true of them."""
        return self.success * self.value * proba - self.cost

    def gains(self, y: np.ndarray) -> np.ndarray:
        """Return what acting on each person brings, on average over who responds."""
        return self.success * self.value * y - self.cost


@dataclass(frozen=True)
class Outcome:
    """What acting on everyone with a probability of at least the threshold would have brought, on these people."""

    n: int
    n_acted: int
    gain: float
    interval: (
        float  # half the width of the 95 % interval of the gain: chance in who these people are, and in who responds
    )
    gain_all: float  # of acting on everyone
    gain_best: float  # of the best threshold, known only afterwards
    best_threshold: float


def outcome(y: np.ndarray, proba: np.ndarray, business: Business) -> Outcome:
    """Return what the threshold that follows from cost and value would have brought.

    ``y`` is 1 for those the action is aimed at, ``proba`` their probability. If those who respond are worth different sums, both
    are in multiples of ``value``: ``y`` what each was worth, ``proba`` what was expected.
    """
    acted = proba >= business.threshold
    gains = business.gains(y) * acted
    responding = business.value**2 * business.success * (1 - business.success) * (y**2 * acted).sum()
    interval = 1.96 * (len(y) * gains.var() + responding) ** 0.5
    order, total = _totals(business.gains(y), proba)
    best = int(np.argmax(total))
    best_threshold = float(proba[order[best - 1]]) if best else float("inf")
    n_acted = int(acted.sum())
    return Outcome(
        len(y),
        n_acted,
        float(gains.sum()),
        float(interval),
        float(business.gains(y).sum()),
        float(total[best]),
        best_threshold,
    )


def curves(y: np.ndarray, proba: np.ndarray, business: Business) -> dict[str, np.ndarray]:
    """Return, acting on the highest scores first: the share acted on, the share of the aimed-at reached (gain), and money.

    Points are at 0 and wherever the score changes: people of equal score are acted on together.
    """
    order, money = _totals(business.gains(y), proba)
    reached = np.concatenate([[0], np.cumsum(y[order])])
    at = np.concatenate([[0], np.flatnonzero(np.diff(proba[order])) + 1, [len(y)]])
    return {"acted": at / len(y), "reached": reached[at] / max(reached[-1], 1), "money": money[at]}


def lift(y: np.ndarray, proba: np.ndarray, sizes: list[int]) -> list[dict[str, float]]:
    """Return, for the ``sizes`` people with the highest scores: the share of yes, times the average, share of all yes."""
    yes = among_equals(y, proba)[np.argsort(-proba, kind="stable")]
    found = []
    for n in sizes:
        share = yes[:n].mean()
        found.append(
            {"share": n / len(y), "n": n, "yes": share, "lift": share / y.mean(), "reached": yes[:n].sum() / y.sum()}
        )
    return found


def among_equals(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Return for each person the mean of y over all with the same score: their order in the file means nothing."""
    _, group = np.unique(proba, return_inverse=True)
    return (np.bincount(group, y) / np.bincount(group))[group]


def _totals(gains: np.ndarray, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of falling scores, and the gain of acting on the first 0, 1, 2, ...; -inf within equal scores."""
    order = np.argsort(-proba, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(gains[order])])
    within = np.concatenate([[False], np.diff(proba[order]) == 0, [False]])
    return order, np.where(within, -np.inf, total)
