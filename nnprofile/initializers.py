"""First values of the weights, drawn so that signals neither die nor explode on their way through the layers.

An initializer is a function ``(fan_in, fan_out, rng) -> Array of shape (fan_in, fan_out)``; biases start at zero.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .contract import Array


def glorot_uniform(fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """Draw from U(-a, a) with a = sqrt(6 / (fan_in + fan_out)): variance 2 / (fan_in + fan_out).

    References
    ----------
    Glorot and Bengio (2010), "Understanding the difficulty of training deep feedforward neural networks", eq. 16.
    """
    limit = sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, (fan_in, fan_out))


def glorot_normal(fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """Draw from N(0, 2 / (fan_in + fan_out)), where the second number is the variance (Glorot and Bengio 2010, eq. 12)."""
    return rng.normal(0.0, sqrt(2 / (fan_in + fan_out)), (fan_in, fan_out))


def he_uniform(fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """Draw from U(-a, a) with a = sqrt(6 / fan_in): variance 2 / fan_in, which ReLU's missing half needs."""
    limit = sqrt(6 / fan_in)
    return rng.uniform(-limit, limit, (fan_in, fan_out))


def he_normal(fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """Draw from N(0, 2 / fan_in), where the second number is the variance.

    References
    ----------
    He, Zhang, Ren and Sun (2015), "Delving deep into rectifiers", eq. 10.
    """
    return rng.normal(0.0, sqrt(2 / fan_in), (fan_in, fan_out))


def lecun_normal(fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """Draw from N(0, 1 / fan_in), where the second number is the variance (LeCun et al. 1998, "Efficient BackProp", eq. 16)."""
    return rng.normal(0.0, sqrt(1 / fan_in), (fan_in, fan_out))


def zeros(fan_in: int, fan_out: int, rng: np.random.Generator) -> Array:
    """Return zeros. All units of a hidden layer then stay equal: for linear models and demonstrations."""
    return np.zeros((fan_in, fan_out))
