"""What is too good to be true: columns that alone tell the answer, copies on both sides, and scores that are nearly perfect.

Such columns are mostly known only after the fact (a reason for leaving, a refund), or another coding of the answer. They are
left out of the model unless they are kept by name, and the score with them is told beside the score without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from . import evaluate
from .preprocess import Table

ALONE = 0.98  # AUC of a single column, from which on it decides alone
NEARLY = 0.955  # from which on it is named, and kept
IN_STEP = 0.9  # difference of the shares of yes and no that are missing
PERFECT = 0.98  # AUC that calls for a second look
FEW = 100  # of the rarer kind: figures are rough


@dataclass(frozen=True)
class Suspect:
    """A column of the file that tells the answer alone."""

    name: str
    auc: float
    why: str
    kept: bool = False

    def __str__(self) -> str:
        what = "Kept" if self.kept else f"Left out (--keep {self.name!r} uses it)"
        return (
            f"{self.name}: {self.why}; alone it has an AUC of {self.auc:.4f}. Is it known before the answer is? {what}"
        )


def suspects(table: Table, split: tuple[np.ndarray, ...], keep: Sequence[str] = ()) -> list[Suspect]:
    """Return the columns of the file that alone rank the rows that were not fitted (nearly) perfectly."""
    fit, *others = split
    rows = np.concatenate(others)
    y = table.y[rows]
    if min(np.bincount(y, minlength=2)) < 5:
        return []
    alone = evaluate.each_column(table, fit, rows)
    found = []
    for column in table.columns:
        features = list(column.features())
        auc, gap = max(alone[name] for name in features), _gap(table, features[0])
        decides = auc >= ALONE or abs(gap) >= IN_STEP or _only_for_one(table, features[0])
        if decides or auc >= NEARLY:
            why = _why(table, features, gap)
            found.append(Suspect(column.name, max(auc, (1 + abs(gap)) / 2), why, column.name in keep or not decides))
    return sorted(found, key=lambda suspect: -suspect.auc)


def _only_for_one(table: Table, name: str) -> bool:
    """Tell whether a column is filled for one answer only, and for many of its people, as what happens after the fact is."""
    there = table.frame[name].notna().to_numpy()
    if there.all() or there.sum() < 30:
        return False
    share = float(table.y[there].mean())
    answer = table.y == (share > 0.5)
    return max(share, 1 - share) > 0.99 and bool(there[answer].mean() > 0.3) and bool(answer.mean() < 0.9)


def _gap(table: Table, name: str) -> float:
    """Return the share of the no that are missing in a column, minus that of the yes."""
    missing = table.frame[name].isna().to_numpy()
    return float(missing[table.y == 0].mean() - missing[table.y == 1].mean())


def _why(table: Table, features: list[str], gap: float) -> str:
    if abs(gap) >= IN_STEP or _only_for_one(table, features[0]):
        return (
            f"it is there for {'a yes' if gap > 0 else 'a no'}, and missing for the other: known only after the fact?"
        )
    values = table.frame[features[0]]
    if values.nunique() <= 20:
        purity = pd.crosstab(values.fillna("(missing)"), table.y).max(axis=1).sum() / len(table.y)
        if purity > 0.99:
            return "each of its values has one answer: the answer in another coding, or known only after the fact?"
    score = table.kinds[features[0]] != "category" and values.min() >= 0 and values.max() <= 1 and values.nunique() > 20
    return "a number from 0 to 1: the score of another model?" if score else "it alone tells the answer, or nearly"


def with_them(table: Table, without: Table, split: tuple[np.ndarray, ...]) -> tuple[float, float]:
    """Return the AUC of boosting with all columns, and without the suspects, on the test rows of one split."""
    return tuple(_boosting(one, split) for one in (table, without))  # type: ignore[return-value]


def _boosting(table: Table, split: tuple[np.ndarray, ...]) -> float:
    fit, _, test = split
    return float(roc_auc_score(table.y[test], evaluate.boosting(table, fit, test)))


def effect_of_copies(
    table: Table, apart: list[tuple[np.ndarray, ...]], together: list[tuple[np.ndarray, ...]]
) -> tuple[float, float]:
    """Return the AUC of boosting with near-copies on both sides, and on one side: means over two splits."""
    return tuple(float(np.mean([_boosting(table, split) for split in some[:2]])) for some in (apart, together))  # type: ignore[return-value]


def of_scores(auc: float, table: Table, importance: Sequence[str]) -> list[str]:
    """Return what the reader must know before the figures."""
    found = []
    if auc >= PERFECT:
        found.append(
            f"an AUC of {auc:.4f} is too good to be believed unseen: ask of {', '.join(importance[:3])}, which move scores most, "
            "whether they are known before the answer is"
        )
    rarer = int(min(table.y.sum(), len(table.y) - table.y.sum()))
    if rarer < FEW:
        found.append(
            f"only {rarer} people of the rarer kind: all figures are rough, and none of them is to be relied on"
        )
    elif auc < 0.55:
        found.append(f"an AUC of {auc:.2f} is hardly better than chance: these columns do not tell the answer")
    return found
