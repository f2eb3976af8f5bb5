"""How much privacy training spends: Rényi differential privacy of noisy sums over Poisson samples.

A step that adds noise of deviation z C to a sum of gradients, each of norm C at most, over rows drawn with probability q, has the
Rényi divergence of order a

    R_a = log E[((1 - q) + q exp((2 t - 1) / (2 z^2)))^a] / (a - 1),   t ~ N(0, z^2),

steps add up, and R_a means (epsilon, delta) with epsilon = R_a + log(1 - 1/a) - log(delta a) / (a - 1)
(docs/privacy.md, eq. 79-80).

References
----------
Mironov, Talwar and Zhang (2019), "Rényi differential privacy of the sampled Gaussian mechanism", section 3.
Canonne, Kamath and Steinke (2020), "The discrete Gaussian for differential privacy", proposition 12.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import log, log1p

import numpy as np

from ..contract import Array, Spent
from ..validation import check_number, check_size

ORDERS = np.array([*np.arange(1.1, 11, 0.1), *range(11, 64), *(2.0**k for k in range(7, 15))])
MARGIN = 1.005  # others bound fractional orders, or leave some out, by up to 0.4 %: ours shall be no lower than theirs
_MOST_NOISE = 1e4
_LITTLE = 0.1  # noise, below which the bound without sampling is as good


def epsilon_of(ledger: Iterable[Spent], delta: float) -> float:
    """Return the epsilon of all runs together, at this delta.

    Examples
    --------
    >>> round(epsilon_of([Spent(noise=1.0, rate=0.01, n_steps=1000)], 1e-5), 2)
    2.11
    """
    delta = check_number(delta, "delta", below=1.0, positive=True)
    total = np.zeros(len(ORDERS))
    for spent in ledger:
        check_number(spent.noise, "noise")
        _check_rate(spent.rate)
        check_size(spent.n_steps, "n_steps", least=0)
        if spent.n_steps and spent.rate:
            if not spent.noise:
                return float("inf")
            total += spent.n_steps * renyi(spent.noise, spent.rate)
    if not total.any():
        return 0.0
    found = total + np.log1p(-1 / ORDERS) - np.log(delta * ORDERS) / (ORDERS - 1)
    return float(max(0.0, MARGIN * found.min()))


@lru_cache(maxsize=256)
def renyi(noise: float, rate: float) -> Array:
    """Return the Rényi divergences of a step, one for each of ``ORDERS``."""
    if rate == 1 or noise < _LITTLE:
        return ORDERS / (2 * noise**2)
    return np.array([_log_moment(noise, rate, order) / (order - 1) for order in ORDERS])


def _log_moment(z: float, q: float, a: float) -> float:
    """Return the log of the expectation, summed at points so close that the sum is exact: the integrand is analytic."""
    t = np.arange(-12 * z, a + 12 * z, z / 5)
    log_mixture = np.logaddexp(log1p(-q), log(q) + (2 * t - 1) / (2 * z * z))
    exponent = a * log_mixture - t * t / (2 * z * z)
    largest = exponent.max()
    return float(max(0.0, largest + np.log(np.exp(exponent - largest).sum() / 5) - 0.5 * log(2 * np.pi)))


def noise_for(epsilon: float, delta: float, rate: float, n_steps: int) -> float:
    """Return the least noise with which so many steps spend epsilon at most.

    Raises
    ------
    ValueError
        If no noise up to 10,000 is enough.
    """
    epsilon = check_number(epsilon, "epsilon", positive=True)
    n_steps = check_size(n_steps, "n_steps")
    if not _check_rate(rate):
        raise ValueError("rate must be more than 0")

    def spends(noise: float) -> float:
        return epsilon_of([Spent(noise, rate, n_steps)], delta)

    if spends(_MOST_NOISE) > epsilon:
        raise ValueError(
            f"epsilon={epsilon} needs noise of more than {_MOST_NOISE:.0f} times the clip in {n_steps} steps"
        )
    low, high = 0.0, 1.0
    while spends(high) > epsilon:
        low, high = high, min(2 * high, _MOST_NOISE)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if spends(middle) <= epsilon else (middle, high)
    return high


def _check_rate(rate: float) -> float:
    """Return a probability; raise a ValueError if it is none."""
    if not 0 <= check_number(rate, "rate") <= 1:
        raise ValueError(f"rate must be from 0 to 1, got {rate}")
    return rate
