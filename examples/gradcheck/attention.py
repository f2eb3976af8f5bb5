"""Check an attention layer with nested parameters: a class of one's own, with dicts in dicts."""

from typing import Any

import numpy as np

import nnprofile as nn


class Attention:
    """y = softmax(q k' / sqrt(d)) v, for x of shape (n_samples, n_steps, n_features)."""

    def __init__(self, n_features: int, d: int, rng: np.random.Generator, *, scaled: bool = True) -> None:
        self.d, self.scaled = d, scaled  # whether backward knows of 1 / sqrt(d)
        self.params = {name: {"W": rng.normal(size=(n_features, d)), "b": rng.normal(size=d)} for name in "qkv"}

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return y and what backward needs."""
        q, k, v = (x @ self.params[name]["W"] + self.params[name]["b"] for name in "qkv")
        s = q @ k.swapaxes(1, 2) / np.sqrt(self.d)
        e = np.exp(s - s.max(axis=2, keepdims=True))
        a = e / e.sum(axis=2, keepdims=True)
        return a @ v, (x, q, k, v, a)

    def backward(self, dy: np.ndarray, cache: Any) -> tuple[np.ndarray, Any]:
        """Return dx, and the gradients in the structure of params."""
        x, q, k, v, a = cache
        da = dy @ v.swapaxes(1, 2)
        ds = a * (da - (da * a).sum(axis=2, keepdims=True))
        if self.scaled:
            ds = ds / np.sqrt(self.d)
        d = {"q": ds @ k, "k": ds.swapaxes(1, 2) @ q, "v": a.swapaxes(1, 2) @ dy}
        dx = sum(d[name] @ self.params[name]["W"].T for name in "qkv")
        rows = x.reshape(-1, x.shape[2]).T
        return dx, {n: {"W": rows @ d[n].reshape(-1, self.d), "b": d[n].sum(axis=(0, 1))} for n in "qkv"}


def main() -> list[nn.GradCheckReport]:
    """Check the right one and the wrong one, and print the reports."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4))
    reports = [nn.check_layer(Attention(4, 5, rng, scaled=scaled), x) for scaled in (True, False)]
    print(*reports, sep="\n\n")
    return reports


if __name__ == "__main__":
    main()
