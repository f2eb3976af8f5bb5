"""Check a softmax classifier as it stands in many a notebook: one function that returns the loss and the gradient."""

import numpy as np

import nnprofile as nn


def softmax_loss(W: np.ndarray, X: np.ndarray, y: np.ndarray, reg: float) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy with L2 regularisation, and its gradient with respect to W."""
    scores = X.dot(W)
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean() + reg * np.sum(W * W)
    p[np.arange(len(y)), y] -= 1
    dW = X.T.dot(p) / len(y) + reg * W  # the bug: the value has no 1/2, so this lacks a 2
    return loss, dW


def main() -> nn.GradCheckReport:
    """Check it, and print the report."""
    rng = np.random.default_rng(0)
    W, X, y = rng.normal(size=(5, 4)), rng.normal(size=(7, 5)), rng.integers(0, 4, 7)
    report = nn.check_function(lambda W: softmax_loss(W, X, y, 0.1)[0], lambda W: softmax_loss(W, X, y, 0.1)[1], W)
    print(report)
    return report


if __name__ == "__main__":
    main()
