"""Step 7, recommend: the best items for customers, known or never seen, with probabilities; one file holds all of it.

A recommendation is of two kinds: "next", what will be in the next trip, and "new", what was never bought and will be within
a month.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

import nnprofile as nn

from .events import Events
from .pairs import Pairs
from .train import LOSS, TASKS, Ranker, blocks, train

VERSION = 1


class RecommendationError(ValueError):
    """What was asked for cannot be recommended; the message says why."""


@dataclass(frozen=True)
class Recommender:
    """What is known on a day, and the networks that rank by it."""

    pairs: Pairs
    ranker: Ranker

    @classmethod
    def fit(cls, events: Events, day: int | None = None, *, seed: int = 0) -> Recommender:
        """Learn from all events before ``day``, by default from all."""
        day = int(events.day.max()) + 1 if day is None else day
        return cls(Pairs.of(events, day), train(events, day, seed=seed))

    def recommend(
        self,
        customers: Sequence[str],
        k: int = 10,
        *,
        task: str = "new",
        exclude_bought: bool = False,
        allow: Collection[str] | None = None,
        block: Collection[str] = (),
    ) -> list[list[tuple[str, float]]]:
        """Return the ``k`` best items of each customer, with their probabilities, the best first.

        Raises
        ------
        RecommendationError
            If a customer, an item or the task is not known.
        """
        place = {name: i for i, name in enumerate(self.pairs.history.customers)}
        if unknown := [name for name in customers if name not in place]:
            raise RecommendationError(f"customers {unknown[:3]} are not known; for_items takes what they bought")
        rows = np.array([place[name] for name in customers], int)
        return self._best(self.pairs, rows, k, task, exclude_bought, allow, block)

    def for_items(
        self, items: Sequence[str], k: int = 10, *, task: str = "new", **lists: Collection[str]
    ) -> list[tuple[str, float]]:
        """Return the best items for a customer never seen, who has just bought these, all in one trip."""
        history = self.pairs.history
        bought = np.flatnonzero(self._mask(items))
        once = Events(
            *(np.array(["(new)"], object), history.items, np.zeros(len(bought), int), bought),
            *(np.full(len(bought), self.pairs.day - 1), history.first),
        )
        return self._best(self.pairs.of_others(once), np.array([0]), k, task, False, **lists)[0]  # type: ignore[arg-type]

    def _best(
        self,
        pairs: Pairs,
        rows: np.ndarray,
        k: int,
        task: str,
        exclude_bought: bool,
        allow: Collection[str] | None = None,
        block: Collection[str] = (),
    ) -> list[list[tuple[str, float]]]:
        if task not in TASKS or k < 1:
            raise RecommendationError(f"task must be one of {TASKS}, and k at least 1; got {task!r} and {k}")
        never = self._mask(block)
        if allow is not None:
            never |= ~self._mask(allow)
        names, found = pairs.history.items, []
        for _, some in blocks(rows):
            bought = pairs.bought(some)
            z = self.ranker.logits(task, pairs.features(some), bought)
            z[never[None] | (bought & exclude_bought)] = -np.inf
            order = np.argsort(-z, axis=1, kind="stable")[:, :k]
            for scores, best in zip(z, order, strict=True):
                best = best[np.isfinite(scores[best])]
                found.append([(str(names[i]), float(1 / (1 + np.exp(-scores[i])))) for i in best])
        return found

    def _mask(self, items: Collection[str]) -> np.ndarray:
        place = {name: i for i, name in enumerate(self.pairs.history.items)}
        if unknown := [name for name in items if name not in place]:
            raise RecommendationError(f"items {unknown[:3]} are not known")
        mask = np.zeros(len(place), bool)
        mask[[place[name] for name in items]] = True
        return mask

    def save(self, path: Path | str) -> None:
        """Write everything into one file, without pickle: names, purchases, weights and networks."""
        pairs, arrays = self.pairs, {"version": np.array(VERSION), "first": np.array(str(self.pairs.history.first))}
        history = pairs.history
        arrays |= {"customers": history.customers.astype(str), "items": history.items.astype(str)}
        arrays |= {"customer": history.customer, "item": history.item, "day": history.day, "today": np.array(pairs.day)}
        arrays |= {"known": pairs.items, "mean": self.ranker.mean, "scale": self.ranker.scale}
        arrays |= {f"weights {k}": weights for k, weights in enumerate(pairs.weights)}
        for task, net in self.ranker.nets.items():
            buffer = io.BytesIO()
            nn.save(net, buffer, loss=LOSS)
            arrays[f"network {task}"] = np.frombuffer(buffer.getvalue(), np.uint8)
        path = Path(path)
        scratch = path.with_name(f"{path.name}.tmp")
        with scratch.open("wb") as file:
            np.savez_compressed(file, **arrays)
        scratch.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> Recommender:
        """Read what ``save`` wrote.

        Raises
        ------
        RecommendationError
            If it is not such a file.
        """
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as a:
                if int(a["version"]) != VERSION:
                    raise RecommendationError(f"{path} is of version {int(a['version'])}, and {VERSION} is read")
                names = [a[name].astype(object) for name in ("customers", "items")]
                history = Events(*names, a["customer"], a["item"], a["day"], pd.Timestamp(str(a["first"])))
                weights = tuple(a[f"weights {k}"] for k in range(2))
                nets = {task: nn.load(a[f"network {task}"].tobytes()).net for task in TASKS}
                pairs = Pairs._describe(history, int(a["today"]), a["known"], weights)
                return cls(pairs, Ranker(a["mean"], a["scale"], nets))
        except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
            if isinstance(error, RecommendationError):
                raise
            raise RecommendationError(f"{path} is no file of a recommender: {error}") from error
