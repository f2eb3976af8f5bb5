"""Step 4, train: the document's network, Dense 64-32-16-1 with ReLU, by Adam, until the validation loss stops falling.

Several of them, which differ by their seed, err in different ways, and their average less than each. It is one network again:
side by side, without a weight between them, but for the last layer, which takes their mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

import nnprofile as nn

from .features import ENCODINGS, Encoder, telling
from .preprocess import Table

HIDDEN = (64, 32, 16)
N_NETWORKS = 4
MANY, FEW = 8, 2 / 3  # of so many columns only this share tells something: the others may be noise
LOSS = nn.SigmoidCrossEntropy()


@dataclass(frozen=True)
class Model:
    """What is deployed: how records become features, the networks, and from what probability on it says yes."""

    encoder: Encoder
    nets: tuple[nn.Sequential, ...]  # whose logits are averaged
    history: nn.History  # of the first
    encoding: str
    threshold: float = 0.5
    bands: tuple[float, ...] = ()  # see profiles.py
    mean_shares: tuple[float, ...] = ()  # see reasons.py

    @cached_property
    def net(self) -> nn.Sequential:
        """The average, as one network."""
        return self.nets[0] if len(self.nets) == 1 else average(self.nets)

    def single(self, k: int = 0) -> Model:
        """Return the model of one of the networks alone."""
        return replace(self, nets=(self.nets[k],))

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the probability of yes for each record, shape (n_records,)."""
        return self.of_features(self.encoder.transform(frame))

    def of_features(self, x: np.ndarray) -> np.ndarray:
        """Return the probability of yes for each row of features."""
        return LOSS.link.forward(self.net.predict(x))[0][:, 0].astype(float)


def build(in_features: int, dropout: float, rng: np.random.Generator) -> nn.Sequential:
    """Return the network of the document's section 5.2, its last sigmoid left to the loss, with dropout between."""
    return dense_stack(in_features, HIDDEN, rng, dropout)


def dense_stack(
    in_features: int, hidden: tuple[int, ...], rng: np.random.Generator, dropout: float = 0.0
) -> nn.Sequential:
    """Return Dense layers of these widths, ReLU after each, and one of a single output."""
    layers: list[nn.Layer] = []
    for width in hidden:
        layers += [nn.Dense(in_features, width, initializer=nn.initializers.he_normal), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        in_features = width
    return nn.Sequential([*layers, nn.Dense(in_features, 1)], rng=rng, dtype=np.float32)


def average(nets: tuple[nn.Sequential, ...]) -> nn.Sequential:
    """Return one network whose output is the mean of theirs, which differ in nothing but their numbers.

    The first layers side by side, [W_1 W_2 ...]; blocks on the diagonal in between; the last ones on top of each other, each
    divided by their number.
    """
    *hidden, last = [[net.layers[k] for net in nets] for k in range(len(nets[0].layers))]
    layers, values = [], []
    for k, same in enumerate(hidden):
        if not isinstance(same[0], nn.Dense):
            layers.append(same[0])
            continue
        weights = [layer.params["W"] for layer in same]
        W = np.hstack(weights) if k == 0 else block_diag(*weights)
        layers.append(nn.Dense(*W.shape))
        values += [W, np.concatenate([layer.params["b"] for layer in same])]
    W = np.vstack([layer.params["W"] for layer in last]) / len(nets)
    values += [W, np.mean([layer.params["b"] for layer in last], axis=0)]
    net = nn.Sequential([*layers, nn.Dense(*W.shape)], rng=np.random.default_rng(0), dtype=nets[0].params.vector.dtype)
    net.params.vector[...] = np.concatenate([value.ravel() for value in values])
    return net


def train(
    table: Table,
    fit: np.ndarray,
    validate: np.ndarray,
    *,
    seed: int = 0,
    n_networks: int = N_NETWORKS,
    n_epochs: int = 100,
    class_weight: str | None = None,
    progress: bool = False,
) -> Model:
    """Train a network for each encoding on the rows ``fit``, then more like the one with the lowest loss on ``validate``.

    Where most columns tell nothing, as far as these rows show, each encoding is also tried without them.
    """
    choices = [table.kinds]
    few = telling(table, fit)
    if len(table.kinds) >= MANY and len(few) <= FEW * len(table.kinds):
        choices.append(few)

    def one(encoder: Encoder, name: str, x: list[np.ndarray], seed: int) -> Model:
        rng = np.random.default_rng(seed)
        net = build(x[0].shape[1], ENCODINGS[name].dropout, rng)
        history = nn.fit(
            net,
            LOSS,
            nn.Adam(0.002, weight_decay=1.0),
            x[0],
            table.y[fit],
            n_epochs=n_epochs,
            batch_size=256 if len(fit) > 5000 else 64,
            rng=rng,
            validation_data=(x[1], table.y[validate]),
            class_weight=class_weight,
            early_stopping=nn.EarlyStopping(patience=10),
            progress=progress,
        )
        if history.stop_reason == "interrupted":  # a half-trained model is not for use
            raise KeyboardInterrupt
        return Model(encoder, (net,), history, name)

    best: tuple[Model, list[np.ndarray]] | None = None
    for kinds in choices:
        for name, encoding in ENCODINGS.items():
            encoder = Encoder.fit(table.frame.iloc[fit], kinds, table.y[fit], encoding)
            x = [encoder.transform(table.frame.iloc[rows]) for rows in (fit, validate)]
            model = one(encoder, name, x, seed)
            if best is None or min(model.history["val_loss"]) < min(best[0].history["val_loss"]):
                best = model, x
    assert best is not None
    first, x = best
    others = [one(first.encoder, first.encoding, x, seed + k).nets for k in range(1, n_networks)]
    return replace(first, nets=sum(others, first.nets))
