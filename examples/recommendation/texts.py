"""Items without a purchase: their description, in words, tells which others they are like.

A text becomes a row of a sparse matrix: each word is hashed to one of its columns, so that no vocabulary is kept, and counts by
how rare it is among items. An item is then taken for a mixture of the known ones whose words are most like its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np
from scipy.sparse import csr_array, diags_array, vstack

from .candidates import SOME, largest

N_WORDS = 2**14
NEAREST = 20
_WORD = re.compile(r"[^\W_]+")


def words(texts: Sequence[str]) -> csr_array:
    """Return how often each word is in each text, by the word's hash, shape (n_texts, N_WORDS)."""
    found = [[crc32(word.encode()) % N_WORDS for word in _WORD.findall(text.casefold())] for text in texts]
    row = np.repeat(np.arange(len(texts)), [len(hashes) for hashes in found])
    column = np.array([h for hashes in found for h in hashes], int)
    matrix = csr_array((np.ones(len(row)), (row, column)), shape=(len(texts), N_WORDS))
    matrix.sum_duplicates()
    return matrix


def nearest(texts: Sequence[str], known: Sequence[str], n: int = NEAREST) -> csr_array:
    """Return how much each text is like its nearest known ones, weights of sum 1 (0 where no word is shared), float32.

    How alike two texts are is the cosine of their words, each counted by log((1 + n_texts) / (1 + texts with it)) + 1.
    """
    old, new = words(known), words(texts)
    rarity = np.log((1 + len(known)) / (1 + np.bincount(old.indices, minlength=N_WORDS))) + 1
    old, new = (csr_array(counts @ diags_array(rarity)) for counts in (old, new))
    norm = np.maximum(np.sqrt(old.multiply(old).sum(axis=1)), 1e-12)  # that of the new one falls out of the weights
    across, parts = csr_array((diags_array(1 / norm) @ old).T), [csr_array((0, len(known)))]
    for start in range(0, len(texts), SOME):
        cosine = (new[start : start + SOME] @ across).toarray()
        kept = np.zeros_like(cosine)
        best = largest(cosine, n)
        np.put_along_axis(kept, best, np.take_along_axis(cosine, best, axis=1), axis=1)
        parts.append(csr_array(kept / np.maximum(kept.sum(axis=1, keepdims=True), 1e-12)))
    return csr_array(vstack(parts), dtype=np.float32)
