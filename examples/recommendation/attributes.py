"""A warning: how much purchases betray. From what a household buys, its age and its children can be guessed.

Nothing in this example uses these guesses; they say what a list of purchases gives away of people who never told.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import svds
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import normalize

from . import classify
from .collect import journey_table
from .events import Events

N_COMPONENTS, N_FOLDS, N_REPEATS = 48, 5, 3
PENALTY = 100.0
SETTINGS = classify.Settings(dropout=0.3, decay=1.0, n_epochs=30, batch_size=64)


def section(events: Events, *, n_networks: int) -> dict[str, Any]:
    """Return what is measured, for the report."""
    who = journey_table("demographics")
    # A household's purchases have length 1: what it buys, not how much.
    U, s, _ = svds(normalize(events.matrix().log1p()), N_COMPONENTS, random_state=0)
    place = {name: i for i, name in enumerate(events.customers)}
    x = (U * s)[[place[str(name)] for name in who["household_id"]]]
    x = (x - x.mean(axis=0)) / x.std()  # one scale for all: small components stay small
    rows = []
    for name, yes in {
        "somebody over 55": who["age"].isin(["55-64", "65+"]),
        "children": who["kids_count"] != "0",
    }.items():
        y = yes.to_numpy(int)
        found = {"logistic regression": np.zeros((N_REPEATS, len(y))), "network": np.zeros((N_REPEATS, len(y)))}
        for repeat in range(N_REPEATS):
            for a, b in StratifiedKFold(N_FOLDS, shuffle=True, random_state=repeat).split(x, y):
                found["logistic regression"][repeat, b] = classify.logistic(x[a], y[a], x[b], PENALTY, scale=False)
                found["network"][repeat, b] = classify.networks(x[a], y[a], x[b], SETTINGS, n=n_networks, scale=False)
        cells = []
        for p in found.values():
            _, error = classify.difference(y, np.arange(len(y)), p.mean(axis=0), np.zeros(len(y)))
            cells.append(f"{np.mean([roc_auc_score(y, one) for one in p]):.3f} ± {error:.3f}")
        rows.append([name, f"{y.mean():.0%}", *cells])
    return {
        "title": "A warning: what purchases betray",
        "warning": True,
        "texts": [
            f"Of {len(who)} households it is known who lives there. From what they bought in the year, age and children can be "
            "guessed, without anybody having told (0.5 is chance, 1 is certainty). A list of purchases, and a file of this "
            "recommender, is personal data also where it holds no such column; a recommendation made from it may show what a "
            "person has not told those who look over their shoulder. Nothing here uses these guesses, and nothing should.",
        ],
        "tables": [
            {
                "caption": f"AUC, {N_FOLDS} folds of households, {N_REPEATS} times; standard error over households.",
                "head": ["in the household", "share", *found],
                "rows": rows,
            }
        ],
    }
