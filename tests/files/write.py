"""Write the files of the present format version, once, when a version is new; those that are there stay for ever.

python -m tests.files.write
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import nnprofile as nn
from nnprofile.modelfile import FORMAT_VERSION

FOLDER = Path(__file__).parent


def networks() -> dict[str, tuple[nn.Sequential, nn.Loss, nn.Optimizer]]:
    """Return networks with layers of all kinds, nested; losses, optimizers and schedules."""
    rng = np.random.default_rng(1)
    inner = nn.Sequential([nn.Dense(4, 3), nn.Tanh(), nn.Dropout(0.25)], rng=rng)
    layers = [nn.Dense(3, 5), nn.ReLU(), nn.Dense(5, 4), nn.LeakyReLU(0.1), inner, nn.Dense(3, 3), nn.Sigmoid()]
    small = [nn.Dense(3, 4), nn.Identity(), nn.Dense(4, 2), nn.Softmax()]
    return {
        "float32": (
            nn.Sequential(layers, rng=rng, dtype=np.float32),
            nn.Huber(0.5),
            nn.Adam(nn.CosineDecay(0.01, n_steps=50, warmup=5), weight_decay=0.1, lazy=True),
        ),
        "float64": (
            nn.Sequential(small, rng=rng),
            nn.MeanSquaredError(),
            nn.SGD(nn.StepDecay(0.1, every=4), momentum=0.9, nesterov=True),
        ),
    }


def rows() -> tuple[Any, Any, Any]:
    """Return x, numbers y, and texts."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 3)).round(2)
    return x, rng.uniform(size=(12, 3)).round(2), np.array(["ä", "b", "c"])[x.argmax(axis=1)]


def main() -> None:
    """Write networks in the middle of training, an estimator, and what they say, into files that must not exist yet."""
    x, y, texts = rows()
    said = {}
    for name, (net, loss, optimizer) in networks().items():
        rng = np.random.default_rng(3)
        nn.fit(net, loss, optimizer, x, y[:, : net.out_features], n_epochs=3, batch_size=4, rng=rng, engine="numpy")
        path = FOLDER / f"format_{FORMAT_VERSION}_{name}.safetensors"
        assert not path.exists(), path
        nn.save(net, path, loss=loss, optimizer=optimizer, rng=rng)
        said[name] = net.predict(x).tolist()
        nn.fit(net, loss, optimizer, x, y[:, : net.out_features], n_epochs=1, batch_size=4, rng=rng, engine="numpy")
        said[f"{name}, one epoch later"] = net.predict(x).tolist()
    model = nn.MLPClassifier((4,), batch_size=4, random_state=0, class_weight={"b": 2.0}, engine="numpy")
    for _ in range(2):
        model.partial_fit(x, texts)
    path = FOLDER / f"format_{FORMAT_VERSION}_estimator.safetensors"
    assert not path.exists(), path
    model.save(path)
    said["estimator"] = model.predict_proba(x).tolist()
    said["estimator, one epoch later"] = model.partial_fit(x, texts).predict_proba(x).tolist()
    path = FOLDER / f"format_{FORMAT_VERSION}.json"
    assert not path.exists(), path
    path.write_text(json.dumps(said, indent=0), encoding="utf-8")


if __name__ == "__main__":
    main()
