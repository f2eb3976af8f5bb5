"""What people buy, in few numbers: principal components (a sparse SVD) and topics (LDA), fitted without any answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import svds
from sklearn.decomposition import LatentDirichletAllocation

from .events import Events

WINDOW = 90  # days
N_COMPONENTS, N_TOPICS = 32, 20


@dataclass(frozen=True)
class Reductions:
    """Of the number of days in ``WINDOW`` on which each customer bought each item."""

    events: Events
    components: np.ndarray
    topics: LatentDirichletAllocation

    @classmethod
    def fit(cls, events: Events, day: int) -> Reductions:
        """Learn from what was bought before ``day``."""
        events = events.of_items(events.before(day).common().items)
        recent = events.within(day - WINDOW, day).matrix().log1p()
        _, _, components = svds(recent, min(N_COMPONENTS, min(recent.shape) - 1), random_state=0)
        topics = LatentDirichletAllocation(
            N_TOPICS,
            **{"learning_method": "online", "max_iter": 3, "batch_size": 256, "max_doc_update_iter": 30},
            **{"doc_topic_prior": 0.1, "random_state": 0},
        ).fit(events.before(day).matrix())
        return cls(events, components, topics)

    def before(self, day: int, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the components and the topics of some customers' purchases in the days before ``day``."""
        recent = self.events.within(day - WINDOW, day).matrix()[rows]
        return {"components": recent.log1p() @ self.components.T, "topics": self.topics.transform(recent)}


def beside(columns: np.ndarray, reduced: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what is tried: the columns, with each reduction, and each reduction alone."""
    n = {"components": "32 components", "topics": "20 topics"}
    return {
        "columns": columns,
        **{f"columns and {n[name]}": np.hstack([columns, x]) for name, x in reduced.items()},
        **{f"{n[name]} alone": x for name, x in reduced.items()},
    }
