"""Which film is rated next: GRU, convolution and attention beside simple methods, on MovieLens-100k.

python -m benchmarks.movies [--models GRU ...] [--seeds 3]

The data are read from an installed RecBole (pip install --no-deps recbole==1.2.1), whose wheel holds them. They may be used for
research only: nothing of them is stored here, nor a model that was trained on them. Each user's last film is the test, the one
before it the validation; all 1,682 films are ranked, but those that the user has rated before. Ratings of the same second keep
the order of the file.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from time import perf_counter
from typing import Any

import numpy as np

import nnprofile as nn
from nnprofile.contract import apply

SHA256 = "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
WIDTH, LENGTH, TOP = 64, 50, 10
RATES = {
    "GRU": 0.002,
    "convolution": 0.002,
    "attention": 0.001,
}  # of 0.001 and 0.002, what is better for the last but one film


def histories() -> tuple[list[np.ndarray], int]:
    """Return each user's films, by time, and how many films there are."""
    try:
        files = distribution("recbole").files or []
    except PackageNotFoundError:
        raise SystemExit("needs RecBole's data: pip install --no-deps recbole==1.2.1") from None
    content = next(f for f in files if f.name == "ml-100k.inter").read_binary()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SystemExit("ml-100k.inter is another file than that of recbole 1.2.1")
    rows = np.array([line.split("\t") for line in content.decode().splitlines()[1:]])
    user, film = (np.unique(rows[:, k], return_inverse=True)[1] for k in (0, 1))
    order = np.lexsort((np.arange(len(rows)), rows[:, 3].astype(float), user))
    ends = np.cumsum(np.bincount(user))[:-1]
    return np.split(film[order], ends), int(film.max()) + 1


def measure(scores: np.ndarray, seen: list[np.ndarray], target: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Return HR@10, NDCG@10, and the latter for each user; ties count half."""
    scores = scores.copy()
    for n, films in enumerate(seen):
        scores[n, films] = -np.inf
    own = scores[np.arange(len(target)), target][:, None]
    rank = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    gain = np.where(rank < TOP, 1 / np.log2(rank + 2), 0)
    return float((rank < TOP).mean()), float(gain.mean()), gain


def counts(seen: list[np.ndarray], n: int) -> np.ndarray:
    """Return users x films."""
    out = np.zeros((len(seen), n))
    for row, films in zip(out, seen, strict=True):
        row[films] = 1
    return out


def popularity(train: list[np.ndarray], seen: list[np.ndarray], n: int) -> np.ndarray:
    """Return how often each film was rated."""
    return np.tile(counts(train, n).sum(axis=0), (len(seen), 1))


def markov(train: list[np.ndarray], seen: list[np.ndarray], n: int, window: int = 5) -> np.ndarray:
    """Return how often each film came within five behind the last ones, and a little of its popularity."""
    moves, popular = np.zeros((n, n)), counts(train, n).sum(axis=0)
    for films in train:
        for gap in range(1, window + 1):
            np.add.at(moves, (films[:-gap], films[gap:]), 1 / gap)
    moves /= moves.sum(axis=1, keepdims=True) + 10
    out = [sum(moves[f] / k for k, f in enumerate(films[: -window - 1 : -1], start=1)) for films in seen]
    return np.array(out) + 1e-3 * popular / popular.sum()


def ease(train: list[np.ndarray], seen: list[np.ndarray], n: int, lam: float = 500.0, last: int = 10) -> np.ndarray:
    """Return EASE's scores (Steck 2019) of each user's last ten films."""
    X = counts(train, n)
    P = np.linalg.inv(X.T @ X + lam * np.eye(n))
    B = -P / np.diag(P)
    np.fill_diagonal(B, 0)
    return counts([films[-last:] for films in seen], n) @ B


def attention_block() -> list[nn.Layer]:
    """Return a pre-norm Transformer block."""
    return [
        nn.Residual([nn.LayerNorm(WIDTH), nn.SelfAttention(WIDTH, 2), nn.Dropout(0.3)]),
        nn.Residual([nn.LayerNorm(WIDTH), nn.Dense(WIDTH, WIDTH), nn.GELU(), nn.Dense(WIDTH, WIDTH), nn.Dropout(0.3)]),
    ]


MODELS: dict[str, Callable[[], list[Any]]] = {
    "GRU": lambda: [nn.Dropout(0.3), nn.GRU(WIDTH, WIDTH), nn.Dropout(0.3), nn.Dense(WIDTH, WIDTH)],
    "convolution": lambda: [
        nn.Dropout(0.3),
        *(
            nn.Residual([nn.LayerNorm(WIDTH), nn.Conv1D(WIDTH, WIDTH, 3, dilation=d), nn.GELU(), nn.Dropout(0.3)])
            for d in (1, 2, 4, 8)
        ),
        nn.Dropout(0.3),
        nn.Dense(WIDTH, WIDTH),
    ],
    "attention": lambda: [
        nn.PositionalEmbedding(LENGTH, WIDTH),
        nn.Dropout(0.3),
        *attention_block(),
        *attention_block(),
        nn.LayerNorm(WIDTH),
    ],
}


def chunks(films: list[np.ndarray]) -> tuple[nn.Ragged, nn.Ragged]:
    """Cut histories into sequences of at most fifty films, with the film behind each."""
    x, y = [], []
    for own in films:
        for end in range(len(own) - 1, 0, -LENGTH):
            start = max(0, end - LENGTH)
            x.append(own[start:end])
            y.append(own[start + 1 : end + 1])
    return nn.Ragged.from_list(x), nn.Ragged.from_list(y)


def network(model: str, n: int, rng: np.random.Generator) -> nn.Sequential:
    """Return a tied network, whose vectors start small: then all films are alike at first."""
    net = nn.Sequential([nn.Tied(nn.Embedding(n, WIDTH), MODELS[model]())], rng=None, dtype=np.float32)
    for name, shape in net.params.layout.items():
        if name.endswith(".E"):  # of films, and of places
            net.params[name] = rng.normal(0, 0.02, shape)
    net.initialize(rng)
    return net


def scores(net: nn.Sequential, seen: list[np.ndarray]) -> np.ndarray:
    """Return the logits behind each history."""
    x = nn.Ragged.from_list([films[-LENGTH:] for films in seen])
    tied: Any = net.layers[0]
    embedded, _ = apply(tied.children[0], x)
    h, _ = apply(tied.children[1], embedded)
    return tied.head.forward(nn.LastEvent().forward(h)[0])[0]


def learned(
    model: str, films: list[np.ndarray], n: int, seed: int, n_epochs: int, patience: int
) -> tuple[np.ndarray, int, float]:
    """Train without the last two films; return test scores of the epoch that is best for the last but one, it, and seconds."""
    train, validation, test = [f[:-2] for f in films], [f[-2] for f in films], [f[:-1] for f in films]
    rng = np.random.default_rng(seed)
    net, optimizer = network(model, n, rng), nn.Adam(RATES[model])
    x, y = chunks(train)
    best, best_epoch, kept, spent = -1.0, 0, net.params.vector.copy(), 0.0
    for epoch in range(n_epochs):
        start = perf_counter()
        nn.fit(net, nn.SoftmaxCrossEntropy(), optimizer, x, y, n_epochs=1, batch_size=32, rng=rng)
        spent += perf_counter() - start
        found = measure(scores(net, train), train, np.array(validation))[1]
        if found > best:
            best, best_epoch, kept = found, epoch, net.params.vector.copy()
        elif epoch - best_epoch >= patience:
            break
    net.params.vector = kept
    return scores(net, test), best_epoch + 1, spent / (epoch + 1)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.movies", description=__doc__)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--patience", type=int, default=12)
    options = parser.parse_args()
    films, n = histories()
    target, before = np.array([f[-1] for f in films]), [f[:-1] for f in films]
    print(f"{len(films)} users, {n} films; standard error of NDCG@10 about 0.008\n")
    print("| method | HR@10 | NDCG@10 | seconds |\n|---|---|---|---|")
    for name, method in (("popularity", popularity), ("Markov chain", markov), ("EASE, last ten films", ease)):
        start = perf_counter()
        hits, gain, _ = measure(method(before, before, n), before, target)
        print(f"| {name} | {hits:.3f} | {gain:.4f} | {perf_counter() - start:.1f} |", flush=True)
    for model in options.models:
        rows = []
        for seed in range(options.seeds):
            z, epoch, seconds = learned(model, films, n, seed, options.epochs, options.patience)
            rows.append(measure(z, before, target)[:2])
            print(
                f"| {model}, seed {seed} | {rows[-1][0]:.3f} | {rows[-1][1]:.4f} | epoch {epoch}, {seconds:.1f} each |",
                flush=True,
            )
        hits, gain = np.mean(rows, axis=0)
        print(f"| **{model}, mean** | **{hits:.3f}** | **{gain:.4f}** | |", flush=True)


if __name__ == "__main__":
    main()
