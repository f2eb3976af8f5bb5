"""What an estimator draws at random: the first weights as scikit-learn does, the rest by a generator of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..contract import Array


def generator(random_state: Any) -> Any:
    """Return the generator of the first weights: from None (NumPy's global one), a seed, a RandomState or a Generator."""
    if random_state is None or random_state is np.random:
        return np.random.mtrand._rand
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool) and random_state >= 0:
        return np.random.RandomState(random_state)  # scikit-learn's
    if isinstance(random_state, (np.random.RandomState, np.random.Generator)):
        return random_state
    raise ValueError(f"{random_state!r} cannot be used to seed a numpy.random.RandomState instance")


def training_generator(random_state: Any, draws: Any) -> np.random.Generator:
    """Return the generator used in training: seeded as asked, or from the generator of the first weights."""
    if isinstance(draws, np.random.Generator):
        return draws
    return np.random.default_rng(
        int(random_state) if isinstance(random_state, (int, np.integer)) else int(draws.randint(2**31 - 1))
    )


def held_back(
    n_samples: int, fraction: float, labels: Array | None, shown: Callable[[Array], list[str]], rng: np.random.Generator
) -> Array:
    """Return a mask of the rows to validate with: a share of all, or, given labels, of each class.

    Raises
    ------
    ValueError
        If a class has one row only, or one of the two parts would be too small; ``shown`` says what labels are called.
    """
    n_held = int(np.ceil(fraction * n_samples))
    if labels is None:
        held = rng.permutation(n_samples)[:n_held]
    else:
        classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
        few = classes[counts < 2]
        if len(few):
            raise ValueError(
                f"The least populated classes in y have only 1 member, which is too few: each needs one to fit and one to "
                f"validate. Classes with too few members are: {shown(few)}"
            )
        held = stratified(index, counts, n_held, rng)
    if len(held) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    mask = np.zeros(n_samples, bool)
    mask[held] = True
    if mask.all():
        raise ValueError("The training set is empty. Decrease 'validation_fraction'.")
    return mask


def stratified(index: Array, counts: Array, n_held: int, rng: np.random.Generator) -> Array:
    """Return rows to hold back, of each class its share, and one at least but never all."""
    n_held = max(n_held, len(counts))
    share = np.clip(np.round(counts * n_held / counts.sum()).astype(int), 1, counts - 1)
    order = rng.permutation(len(index))
    return np.concatenate([order[index[order] == k][: share[k]] for k in range(len(counts))])
