"""What a check costs, of a right and of a wrong gradient: python -m benchmarks.gradcheck.evaluations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import nnprofile as nn

Array = Any
Case = tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + exp(-z))."""
    return 1 / (1 + np.exp(-z))


def lstm(bug: str = "") -> Case:
    """Make an LSTM of 4 units over 5 steps of 3 inputs, with outputs: 143 parameters."""
    rng = np.random.default_rng(0)
    h, d, steps = 4, 3, 5
    p = {"W": rng.normal(size=(h + d, 4 * h)) / 2, "b": np.zeros(4 * h), "V": rng.normal(size=(h, d)), "c": np.zeros(d)}
    x, t = rng.normal(size=(steps, d)), rng.normal(size=(steps, d))

    def forward(p: Array) -> Any:
        state, cell, loss, kept = np.zeros(h), np.zeros(h), 0.0, []
        for n in range(steps):
            seen = np.concatenate([state, x[n]])
            z = seen @ p["W"] + p["b"]
            f, i, o, g = (*(sigmoid(z[k * h : (k + 1) * h]) for k in range(3)), np.tanh(z[3 * h :]))
            before, cell = cell, f * cell + i * g
            state = o * np.tanh(cell)
            off = state @ p["V"] + p["c"] - t[n]
            loss = loss + (off * off).sum() / 2
            kept.append((seen, f, i, o, g, before, cell, state, off))
        return loss, kept

    def grad(p: Array) -> Any:
        grads = {name: np.zeros_like(value) for name, value in p.items()}
        d_state, d_cell = np.zeros(h), np.zeros(h)
        for seen, f, i, o, g, before, cell, state, off in reversed(forward(p)[1]):
            grads["V"] += np.outer(state, off)
            grads["c"] += off
            ds = off @ p["V"].T + (0 if bug == "dh is not handed on" else d_state)
            dc = d_cell + ds * o * (1 - np.tanh(cell) ** 2)
            df = dc * before * (f if bug == "f for f (1 - f)" else f * (1 - f))
            dz = np.concatenate([df, dc * g * i * (1 - i), ds * np.tanh(cell) * o * (1 - o), dc * i * (1 - g * g)])
            grads["W"] += np.outer(seen, dz)
            grads["b"] += dz
            d_state, d_cell = (dz @ p["W"].T)[:h], dc * f
        return grads

    return (lambda p: forward(p)[0]), (lambda p: grad(p)), (p,)


def char_rnn(bug: str = "") -> Case:
    """Make a character RNN of 100 units, 60 characters and 25 steps: 22,160 parameters."""
    rng = np.random.default_rng(0)
    h, v, steps = 100, 60, 25
    shapes = {"Wxh": (v, h), "Whh": (h, h), "Why": (h, v), "bh": (h,), "by": (v,)}
    p = {name: 0.05 * rng.normal(size=shape) for name, shape in shapes.items()}
    inputs, targets = rng.integers(0, v, steps), rng.integers(0, v, steps)

    def forward(p: Array) -> Any:
        states, loss, offs = [np.zeros(h)], 0.0, []
        for n in range(steps):
            states.append(np.tanh(p["Wxh"][inputs[n]] + states[-1] @ p["Whh"] + p["bh"]))
            e = np.exp(states[-1] @ p["Why"] + p["by"])
            probabilities = e / e.sum()
            loss = loss - np.log(probabilities[targets[n]])
            off = probabilities.copy()
            off[targets[n]] -= 1
            offs.append(off)
        return loss, states, offs

    def grad(p: Array) -> Any:
        _, states, offs = forward(p)
        grads, following = {name: np.zeros_like(value) for name, value in p.items()}, np.zeros(h)
        for n in reversed(range(steps)):
            state = states[n + 1]
            grads["Why"] += np.outer(state, offs[n])
            grads["by"] += offs[n]
            dz = (offs[n] @ p["Why"].T + following) * (1 - state * state)
            grads["Wxh"][inputs[n]] += dz
            grads["Whh"] += np.outer(states[n], dz)
            grads["bh"] += dz
            following = 0 if bug == "dh is not handed on" else dz @ p["Whh"].T
        return {k: np.clip(g, -0.1, 0.1) for k, g in grads.items()} if bug == "np.clip" else grads

    return (lambda p: forward(p)[0]), (lambda p: grad(p)), (p,)


def convolution(bug: str = "") -> Case:
    """Make a convolution of four loops, 2 images of 8 x 8 x 3, 4 kernels of 3 x 3, padded."""
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(2, 8, 8, 3)), rng.normal(size=(3, 3, 3, 4)), rng.normal(size=4)

    def forward(x: Array, w: Array, b: Array) -> Array:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        y = np.zeros((2, 8, 8, 4), np.result_type(x, w, b))
        for n, i, j, k in np.ndindex(*y.shape):
            y[n, i, j, k] = (padded[n, i : i + 3, j : j + 3] * w[..., k]).sum() + b[k]
        return y

    def backward(dy: Array, x: Array, w: Array, b: Array) -> Any:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        dx, dw = np.zeros_like(padded), np.zeros_like(w)
        for n, i, j, k in np.ndindex(*dy.shape):
            dx[n, i : i + 3, j : j + 3] += w[..., k] * dy[n, i, j, k]
            part = padded[n, i : i + 3, j : j + 3] * dy[n, i, j, k]
            dw[..., k] = part if bug == "dW is assigned" else dw[..., k] + part
        crop = 0 if bug == "the padding is cropped at one side" else 1
        return dx[:, crop : crop + 8, crop : crop + 8], dw, dy.sum(axis=(0, 1, 2))

    return forward, backward, (x, w, b)


CASES: dict[str, tuple[Callable[[str], Case], tuple[str, ...]]] = {
    "LSTM, 143 parameters": (lstm, ("", "f for f (1 - f)", "dh is not handed on")),
    "character RNN, 22,160 parameters": (char_rnn, ("", "dh is not handed on", "np.clip")),
    "convolution by loops": (convolution, ("", "dW is assigned", "the padding is cropped at one side")),
}


def table() -> str:
    """Return the table, in Markdown."""
    lines = ["| code | bug | found | evaluations | times the right one | s |", "|---|---|---|---|---|---|"]
    for name, (make, bugs) in CASES.items():
        base = 0
        for bug in bugs:
            report = nn.check_function(*make(bug)[:2], *make(bug)[2])
            n = report.n_forward + report.n_backward
            base = base or n
            assert report.ok == (not bug), report
            kinds = ", ".join(sorted({f.kind for f in report.errors}))
            lines.append(f"| {name} | {bug or 'none'} | {kinds} | {n:,} | {n / base:.1f} | {report.seconds:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
