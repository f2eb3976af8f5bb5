"""Step 4, train: the document's network, Dense 64-32-16-1 with ReLU, by Adam, until the validation loss stops falling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

import nnprofile as nn

from .features import ENCODINGS, Encoder
from .preprocess import Table

HIDDEN = (64, 32, 16)


@dataclass(frozen=True)
class Model:
    """What is deployed: how records become features, the network, and from what probability on it says yes."""

    encoder: Encoder
    net: nn.Sequential
    history: nn.History
    encoding: str
    threshold: float = 0.5
    bands: tuple[float, ...] = ()  # see profiles.py
    mean_shares: tuple[float, ...] = ()  # see reasons.py

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the probability of yes for each record, shape (n_records,)."""
        logits = self.net.predict(self.encoder.transform(frame))
        return LOSS.link.forward(logits)[0][:, 0].astype(float)


LOSS = nn.SigmoidCrossEntropy()


def build(in_features: int, dropout: float, rng: np.random.Generator) -> nn.Sequential:
    """Return the network of the document's section 5.2, its last sigmoid left to the loss, with dropout between."""
    layers: list[nn.Layer] = []
    for width in HIDDEN:
        layers += [nn.Dense(in_features, width, initializer=nn.initializers.he_normal), nn.ReLU(), nn.Dropout(dropout)]
        in_features = width
    return nn.Sequential([*layers, nn.Dense(in_features, 1)], rng=rng, dtype=np.float32)


def train(
    table: Table,
    fit: np.ndarray,
    validate: np.ndarray,
    *,
    seed: int = 0,
    n_epochs: int = 100,
    class_weight: str | None = None,
    progress: bool = False,
) -> Model:
    """Train one network an encoding on the rows ``fit``, and return the one with the lowest loss on the rows ``validate``."""
    candidates = []
    for name, encoding in ENCODINGS.items():
        rng = np.random.default_rng(seed)
        encoder = Encoder.fit(table.frame.iloc[fit], table.kinds, table.y[fit], encoding)
        x_fit, x_validate = (encoder.transform(table.frame.iloc[rows]) for rows in (fit, validate))
        net = build(x_fit.shape[1], encoding.dropout, rng)
        history = nn.fit(
            *(net, LOSS, nn.Adam(0.001, weight_decay=0.3), x_fit, table.y[fit]),
            n_epochs=n_epochs,
            batch_size=256 if len(fit) > 5000 else 64,
            rng=rng,
            validation_data=(x_validate, table.y[validate]),
            class_weight=class_weight,
            early_stopping=nn.EarlyStopping(patience=10),
            progress=progress,
        )
        if history.stop_reason == "interrupted":  # a half-trained model is not for use
            raise KeyboardInterrupt
        candidates.append(Model(encoder, net, history, name))
    return min(candidates, key=lambda model: min(model.history["val_loss"]))
