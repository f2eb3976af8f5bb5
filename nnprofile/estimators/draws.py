"""What an estimator draws at random: the first weights as scikit-learn does, the rest by a generator of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract import Array


def generator(random_state: Any) -> Any:
    """Return who draws the first weights: from None (NumPy's global one), a seed, a RandomState or a Generator."""
    if random_state is None or random_state is np.random:
        return np.random.mtrand._rand
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool) and random_state >= 0:
        return np.random.RandomState(random_state)  # scikit-learn's
    if isinstance(random_state, (np.random.RandomState, np.random.Generator)):
        return random_state
    raise ValueError(f"{random_state!r} cannot be used to seed a numpy.random.RandomState instance")


def training_generator(random_state: Any, draws: Any) -> np.random.Generator:
    """Return who draws in training: seeded as asked, or by the one who has drawn the weights."""
    if isinstance(draws, np.random.Generator):
        return draws
    return np.random.default_rng(
        int(random_state) if isinstance(random_state, (int, np.integer)) else int(draws.randint(2**31 - 1))
    )


def stratified(index: Array, counts: Array, n_held: int, rng: np.random.Generator) -> Array:
    """Return rows to hold back, of each class its share, and one at least but never all."""
    n_held = max(n_held, len(counts))
    share = np.clip(np.round(counts * n_held / counts.sum()).astype(int), 1, counts - 1)
    order = rng.permutation(len(index))
    return np.concatenate([order[index[order] == k][: share[k]] for k in range(len(counts))])
