"""Read a text character by character, and say what has been learnt: a GRU that predicts the next character.

python -m examples.characters [FILE] [--epochs N]

Without a file it reads the library's own derivation, docs/sequences.md. It trains on eight tenths, and the ninth says when to
stop; what it has learnt is told in bits per character of the last, beside two counts: of characters, and of pairs of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import nnprofile as nn

TEXT = Path(__file__).parents[1] / "docs" / "sequences.md"
LENGTH = 64  # characters of a sequence
Ids = np.ndarray


def sequences(ids: Ids) -> tuple[nn.Ragged, nn.Ragged]:
    """Cut a text into sequences; return them, and the character after each of theirs: a target for each event."""
    offsets = np.append(np.arange(0, len(ids) - 1, LENGTH), len(ids) - 1)
    return nn.Ragged(ids[:-1], offsets), nn.Ragged(ids[1:], offsets)


def train(ids: Ids, n_ids: int, n_epochs: int, seed: int = 0) -> tuple[nn.Sequential, nn.History]:
    """Train on eight tenths of a text, until the ninth gets no better."""
    rng = np.random.default_rng(seed)
    cut, end = len(ids) * 8 // 10, len(ids) * 9 // 10
    layers = [nn.Embedding(n_ids, 32), nn.Dropout(0.1), nn.GRU(32, 96), nn.Dropout(0.2), nn.Dense(96, n_ids)]
    net = nn.Sequential(layers, rng=rng, dtype=np.float32)
    history = nn.fit(
        net,
        nn.SoftmaxCrossEntropy(),
        nn.Adam(0.005),
        *sequences(ids[:cut]),
        n_epochs=n_epochs,
        batch_size=16,
        rng=rng,
        validation_data=sequences(ids[cut:end]),
        early_stopping=nn.EarlyStopping(patience=3),
    )
    return net, history


def counted(ids: Ids, n_ids: int) -> tuple[float, float]:
    """Return the bits per character that counts of characters, and of pairs, need for the last tenth."""
    cut = len(ids) * 9 // 10
    single = np.bincount(ids[:cut], minlength=n_ids) + 1.0
    pairs = np.zeros((n_ids, n_ids))
    np.add.at(pairs, (ids[: cut - 1], ids[1:cut]), 1)
    pairs += single / single.sum()  # where a pair is new, the single character's share
    p1, p2 = single / single.sum(), pairs / pairs.sum(axis=1, keepdims=True)
    rest = ids[cut:]
    return float(-np.log2(p1[rest[1:]]).mean()), float(-np.log2(p2[rest[:-1], rest[1:]]).mean())


def written(net: nn.Sequential, start: Ids, n: int, rng: np.random.Generator, temperature: float = 0.7) -> Ids:
    """Go on with a text: draw a character from the prediction, and look at it as the next event."""
    ids = list(start)
    for _ in range(n):
        seen = np.array(ids[-LENGTH:])
        logits = net.predict(nn.Ragged(seen, [0, len(seen)])).values[-1].astype(float) / temperature
        p = np.exp(logits - logits.max())
        ids.append(int(rng.choice(len(p), p=p / p.sum())))
    return np.array(ids)


def main(arguments: list[str] | None = None) -> None:
    """Train, and print what was learnt."""
    parser = argparse.ArgumentParser(prog="python -m examples.characters", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=TEXT)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args(arguments)
    text = options.file.read_text("utf-8")
    letters, ids = np.unique(list(text), return_inverse=True)
    if len(ids) < 20 * LENGTH:
        parser.error(f"{options.file} has {len(ids)} characters; at least {20 * LENGTH} are needed")
    print(f"{options.file.name}: {len(ids)} characters, {len(letters)} different ones")
    net, history = train(ids, len(letters), options.epochs)
    single, pairs = counted(ids, len(letters))
    x, y = sequences(ids[len(ids) * 9 // 10 :])
    learnt = nn.SoftmaxCrossEntropy().forward(net.predict(x).values, y.values)[0] / np.log(2)
    print(
        f"bits per character, unseen tenth: {single:.2f} by counts, {pairs:.2f} by counts of pairs, {learnt:.2f} by the GRU"
    )
    print(
        f"after {history.best_epoch + 1} epochs of {net.params.vector.size} parameters, it goes on like this, after the bar:\n"
    )
    text = letters[written(net, ids[:LENGTH], 300, np.random.default_rng(1))]
    print("".join(text[:LENGTH]) + "|" + "".join(text[LENGTH:]))


if __name__ == "__main__":
    main()
