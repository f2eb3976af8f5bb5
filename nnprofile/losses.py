"""Losses say in one number how wrong the predictions are; their gradient is where backpropagation starts.

Each loss states its l for one sample and dl / dy_pred; the weighted mean over samples is written once, in ``MeanLoss``.
What is fused for accuracy (sigmoid or softmax with cross-entropy) is one loss on logits, and its gradient is exact as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .contract import Array, Cache, Layer, Loss, floating, is_sparse
from .functions import log1p, sigmoid, softplus
from .layers import Exp, Identity, Sigmoid, Softmax
from .validation import as_features, as_numbers, as_weights, check_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class MeanLoss(Loss):
    """L = sum_n w_n l_n / sum_n w_n, so dL / dy_pred_n = (w_n / sum w) * dl_n / dy_pred_n; without weights, w = 1
    (docs/backprop.md, eq. 9, 20).

    If all weights are 0, L and its gradient are 0. A sample of weight 0 is ignored, even if its l is infinite.
    A subclass writes ``sample_losses``, returning l of shape (n_samples,), and dl of shape (n_samples, n_outputs).
    """

    @property
    def link(self) -> Layer:
        """Identity: y_pred is the prediction."""
        return Identity()

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return each sample's loss and its derivative, (l, dl)."""
        raise NotImplementedError(f"{type(self).__name__} has no sample_losses")

    def targets(self, y_true: ArrayLike, n_outputs: int) -> Array:
        """Return ``y_true`` with shape (n_samples, n_outputs); (n_samples,) will do for one output.

        Raises
        ------
        ValueError
            If shape or values are wrong.
        """
        return _as_rows(as_numbers(y_true, np.float64, "y_true"), n_outputs)

    def forward(
        self, y_pred: ArrayLike, y_true: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[Any, Cache]:
        """Return ``(L, cache)``; L is a scalar of y_pred's dtype.

        Parameters
        ----------
        y_pred : Array, shape (n_samples, n_outputs), or (n_samples,) for one output
        y_true : Array
            As ``targets`` takes it.
        sample_weight : Array, shape (n_samples,), optional
            Not negative.

        Raises
        ------
        ValueError
            If shapes differ, there are no rows, a weight is negative, or a target is out of range.
        """
        y_pred = floating(y_pred)
        if y_pred.ndim not in (1, 2) or y_pred.shape[0] == 0:
            raise ValueError(f"y_pred must have shape (n_samples, n_outputs) with at least one row, got {y_pred.shape}")
        rows = y_pred.reshape(len(y_pred), -1)
        y_true = self.targets(y_true, rows.shape[1])
        value, dl = self._of_targets(
            rows, y_true, None if sample_weight is None else as_weights(sample_weight, len(rows))
        )
        return value, dl.reshape(y_pred.shape)

    def of_targets(self, y_pred: Array, targets: Array, sample_weight: Array | None = None) -> tuple[Any, Cache]:
        """Return what ``forward`` does, of rows and of what ``targets`` returned: nothing is looked at again."""
        if type(self).forward is not MeanLoss.forward:  # somebody's own
            return self.forward(y_pred, targets, sample_weight)
        return self._of_targets(y_pred, targets, sample_weight)

    def _of_targets(self, rows: Array, y_true: Array, w: Array | None) -> tuple[Any, Array]:
        if y_true.shape[0] != len(rows):
            raise ValueError(f"y_true has {y_true.shape[0]} rows, y_pred has {len(rows)}")
        if y_true.dtype.kind == "f":
            y_true = y_true.astype(rows.real.dtype, copy=False)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # inf and NaN are answers here
            l, dl = self.sample_losses(rows, y_true)
            if w is None:
                value, dl = l.mean(), dl / len(l)
            else:
                share = w / (w.max() or 1.0)  # around the largest, so that no sum overflows; all 0: everything is 0
                share = (share / (share.sum() or 1.0)).astype(rows.real.dtype)
                value = np.where(share == 0, 0, share * l).sum()
                dl = np.where(share[:, None] == 0, 0, share[:, None] * dl)
        return value, dl

    def backward(self, cache: Cache) -> Array:
        """Return dL / dy_pred, with the shape of y_pred."""
        return cache.copy()  # type: ignore[no-any-return]


class MeanSquaredError(MeanLoss):
    """l_n = 1/k sum_j (y_nj - t_nj)^2 over k outputs: the mean over all elements, as in Keras and PyTorch.

    dl_n / dy_nj = 2/k (y_nj - t_nj) (docs/backprop.md, eq. 11).

    Examples
    --------
    >>> loss = MeanSquaredError()
    >>> value, cache = loss.forward([[1.0, 2.0]], [[0.0, 0.0]])
    >>> float(value), loss.backward(cache).tolist()
    (2.5, [[1.0, 2.0]])
    """

    formula = {"l": "sum(j, (y - t)**2) / K", "slope": "2 * (y - t) / K"}

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return l = mean(d^2, axis=1) and dl = 2 d / k, with d = y_pred - y_true."""
        d = y_pred - y_true
        return (d * d).mean(axis=1), 2 * d / d.shape[1]


class HalfSquaredError(MeanLoss):
    """l_n = 1/2 sum_j (y_nj - t_nj)^2: the textbooks' loss, a sum over outputs, averaged over samples.

    dl_n / dy_nj = y_nj - t_nj: the 1/2 is there so that no factor 2 is (docs/backprop.md, eq. 10).

    Examples
    --------
    >>> loss = HalfSquaredError()
    >>> value, cache = loss.forward([[1.0, 2.0]], [[0.0, 0.0]])
    >>> float(value), loss.backward(cache).tolist()
    (2.5, [[1.0, 2.0]])
    """

    formula = {"l": "sum(j, (y - t)**2) / 2", "slope": "y - t"}

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return l = sum(d^2, axis=1) / 2 and dl = d, with d = y_pred - y_true."""
        d = y_pred - y_true
        return (d * d).sum(axis=1) / 2, d


class MeanAbsoluteError(MeanLoss):
    """``l_n = 1/k sum_j |y_nj - t_nj|``, dl_n / dy_nj = sign(y_nj - t_nj) / k, and 0 (a subgradient) where they are equal.

    See docs/backprop.md, eq. 12.

    Examples
    --------
    >>> loss = MeanAbsoluteError()
    >>> value, cache = loss.forward([[1.0, -2.0]], [[0.0, 0.0]])
    >>> float(value), loss.backward(cache).tolist()
    (1.5, [[0.5, -0.5]])
    """

    formula = {"l": "sum(j, abs(y - t)) / K", "slope": "sign(y - t) / K"}

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return l = mean(sign * d, axis=1) and dl = sign / k, with d = y_pred - y_true."""
        d = y_pred - y_true
        sign = np.sign(d.real)
        return (sign * d).mean(axis=1), sign / d.shape[1]


class Huber(MeanLoss):
    """l_n = 1/k sum_j h(y_nj - t_nj): a parabola near 0, straight lines beyond ``delta``.

    With the derivative d, or delta * sign(d) (docs/backprop.md, eq. 13)::

        h(d) = d^2 / 2                      where |d| <= delta
        h(d) = delta * (|d| - delta / 2)    elsewhere

    Parameters
    ----------
    delta : float, default 1.0
        Greater than 0, in the units of y.

    References
    ----------
    Huber (1964), "Robust estimation of a location parameter".

    Examples
    --------
    >>> loss = Huber(1.0)
    >>> value, cache = loss.forward([[0.5, -3.0]], [[0.0, 0.0]])
    >>> float(value), loss.backward(cache).tolist()
    (1.3125, [[0.25, -0.5]])
    """

    config_names = ("delta",)
    formula = {
        "l": "sum(j, (abs(y - t) <= delta) * ((y - t)**2 / 2) + (abs(y - t) > delta) * (delta * (abs(y - t) - delta / 2))) / K",
        "slope": "((abs(y - t) <= delta) * (y - t) + (abs(y - t) > delta) * (delta * sign(y - t))) / K",
    }

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = check_number(delta, "delta", positive=True)

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return l = mean(h(d), axis=1) and dl = h'(d) / k, with d = y_pred - y_true."""
        d = y_pred - y_true
        sign = np.sign(d.real)
        near = sign * d.real <= self.delta
        h = np.where(near, d * d / 2, self.delta * (sign * d - self.delta / 2))
        return h.mean(axis=1), np.where(near, d, self.delta * sign) / d.shape[1]


class BinaryCrossEntropy(MeanLoss):
    """l_n = -1/k sum_j [t log p + (1 - t) log(1 - p)] for probabilities p = y_nj and targets t = t_nj in [0, 1].

    dl_n / dp = ((1 - t) / (1 - p) - t / p) / k. A term whose factor t or 1 - t is 0 is 0, whatever its logarithm: so the
    loss is finite for p in {0, 1} if p = t, and +inf otherwise. For training prefer SigmoidCrossEntropy, which never
    meets an infinity (docs/backprop.md, eq. 14).

    Examples
    --------
    >>> loss = BinaryCrossEntropy()
    >>> value, cache = loss.forward([0.5, 1.0], [1, 1])
    >>> round(float(value), 6), loss.backward(cache).tolist()
    (0.346574, [-1.0, -0.5])
    """

    formula = {
        "l": "-sum(j, t * log(y) + (1 - t) * log(1 - y)) / K",
        "slope": "((1 - t) / (1 - y) - t / y) / K",
    }

    def targets(self, y_true: ArrayLike, n_outputs: int) -> Array:
        """Return ``y_true``, in [0, 1], with shape (n_samples, n_outputs)."""
        return _in_unit_interval(super().targets(y_true, n_outputs))

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return l and dl, averaged over outputs."""
        p, t = y_pred, y_true
        outside = (p.real < 0) | (p.real > 1)
        if outside.any():
            raise ValueError(no_probability(self, p.real[outside][0]))
        l = -np.where(t == 0, 0, t * np.log(p)) - np.where(t == 1, 0, (1 - t) * log1p(-p))
        dl = np.where(t == 1, 0, (1 - t) / (1 - p)) - np.where(t == 0, 0, t / p)
        return l.mean(axis=1), dl / p.shape[1]


class SigmoidCrossEntropy(MeanLoss):
    """l_n = -1/k sum_j [t log s(z) + (1 - t) log(1 - s(z))] for logits z = y_nj and targets t in [0, 1].

    With log s(z) = -softplus(-z) and 1 - s(z) = s(-z)::

        l  = (t softplus(-z) + (1 - t) softplus(z)) / k
        dl = ((1 - t) s(z) - t s(-z)) / k  =  (s(z) - t) / k

    The middle form loses no digits where s(z) is nearly t (docs/backprop.md, eq. 15).

    Examples
    --------
    >>> loss = SigmoidCrossEntropy()
    >>> value, cache = loss.forward([0.0, 1000.0], [1, 0])
    >>> round(float(value), 6), loss.backward(cache).tolist()
    (500.346574, [-0.25, 0.5])
    """

    formula = {
        "p": "1 / (1 + exp(-y))",
        "l": "sum(j, t * log(1 + exp(-y)) + (1 - t) * log(1 + exp(y))) / K",
        "slope": "(p - t) / K",
    }

    @property
    def link(self) -> Layer:
        """Sigmoid: it turns logits into probabilities."""
        return Sigmoid()

    def targets(self, y_true: ArrayLike, n_outputs: int) -> Array:
        """Return ``y_true``, in [0, 1], with shape (n_samples, n_outputs)."""
        return _in_unit_interval(super().targets(y_true, n_outputs))

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return l and dl, averaged over outputs."""
        z, t = y_pred, y_true
        s, one_minus_s = sigmoid(z)
        l = np.where(t == 0, 0, t * softplus(-z)) + np.where(t == 1, 0, (1 - t) * softplus(z))  # 0 * inf is 0 here
        return l.mean(axis=1), ((1 - t) * s - t * one_minus_s) / z.shape[1]


class SoftmaxCrossEntropy(MeanLoss):
    """l_n = -sum_j t_nj log p_nj with p = softmax(z) for logits z; targets are labels c (t = 1[j = c]) or rows of probabilities.

    A CSR matrix of targets holds sets: the weights of a row's elements, divided by their sum, are its t.

    With -log p_j = log(sum_k exp(z_k)) - z_j and the sum taken around the largest logit::

        dl_n / dz_nj = p_nj - t_nj  =  (1 - t_nj) p_nj - t_nj (1 - p_nj)

    The last form, with 1 - p of the largest logit summed from the others, loses no digits where p is nearly t
    (docs/backprop.md, eq. 16).

    Examples
    --------
    >>> loss = SoftmaxCrossEntropy()
    >>> value, cache = loss.forward([[0.0, 0.0]], [1])
    >>> round(float(value), 6), loss.backward(cache).tolist()
    (0.693147, [[0.5, -0.5]])
    """

    formula = {
        "p": "exp(y) / sum(k, exp(y[n, k]))",
        "l": "sum(j, t * (log(sum(k, exp(y[n, k]))) - y))",
        "slope": "sum(k, t[n, k]) * p - t",
        "l of labels": "log(sum(k, exp(y[n, k]))) - sum(j, t * y)",  # whose t are 1 and 0, and sum to 1 exactly
        "slope of labels": "p - t",
    }

    @property
    def link(self) -> Layer:
        """Softmax: it turns logits into probabilities."""
        return Softmax()

    def targets(self, y_true: ArrayLike, n_outputs: int) -> Array:
        """Return rows of probabilities, shape (n_samples, n_outputs), as float64, or labels, shape (n_samples,), as int64.

        Raises
        ------
        ValueError
            If labels are not whole numbers in 0 .. n_outputs - 1, or rows are negative or do not sum to 1, or a set is empty.
        """
        if is_sparse(y_true):
            return _as_shares(y_true, n_outputs)  # type: ignore[no-any-return]
        y = as_numbers(y_true, np.float64, "y_true")
        if y.ndim == 2 and y.shape[1] == n_outputs > 1:
            if (y < 0).any() or (abs(y.sum(axis=1) - 1) > 1e-5).any():
                bad = int(np.argmax((y < 0).any(axis=1) | (abs(y.sum(axis=1) - 1) > 1e-5)))
                raise ValueError(f"rows of y_true must be probabilities that sum to 1, got row {bad}: {y[bad]}")
            return y
        y = _as_rows(y, 1, f"(n_samples,) with labels, or (n_samples, {n_outputs}) with probabilities")[:, 0]
        wrong = (y != np.floor(y)) | (y < 0) | (y >= n_outputs)
        if wrong.any():
            hint = "; with one output there is one class, and two classes take SigmoidCrossEntropy or two outputs"
            raise ValueError(
                f"labels must be whole numbers in 0 .. {n_outputs - 1}, got {y[wrong][0]:g}{hint if n_outputs == 1 else ''}"
            )
        return y.astype(np.int64)

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return l and dl."""
        rows, top = np.arange(len(y_pred)), y_pred.real.argmax(axis=1)
        z = y_pred - y_pred[rows, top][:, None]
        p = np.exp(z)
        p[rows, top] = 0
        others = p.sum(axis=1, keepdims=True)  # sum_k exp(z_k) without the largest, which is 1
        p[rows, top] = 1
        p /= 1 + others
        log_sum, rest = log1p(others), others / (1 + others)
        if y_true.ndim == 1:  # labels: t is 1 in one place
            at = rows, y_true
            missing = np.where(y_true == top, rest[:, 0], 1 - p[at])
            l = log_sum[:, 0] - z[at]
            p[at] = -missing
            return l, p
        t = y_true.toarray() if is_sparse(y_true) else y_true  # type: ignore[attr-defined]
        one_minus_p = 1 - p
        one_minus_p[rows, top] = rest[:, 0]
        l = np.where(t == 0, 0, t * (log_sum - z)).sum(axis=1)  # a masked class, z = -inf, is ignored
        return l, (t.sum(axis=1, keepdims=True) - t) * p - t * one_minus_p


class PoissonLoss(MeanLoss):
    """l_n = sum_j [t log(t / r) + r - t] for logarithms z = y_nj of rates r = exp(z), and counts t = t_nj >= 0.

    dl_n / dz_nj = r - t: half the deviance of a Poisson model, 0 where every rate is its count (docs/backprop.md, eq. 41).

    Examples
    --------
    >>> loss = PoissonLoss()
    >>> value, cache = loss.forward([0.0, 0.0], [0, 2])
    >>> round(float(value), 6), loss.backward(cache).tolist()
    (0.693147, [0.5, -0.5])
    """

    formula = {"p": "exp(y)", "l": "sum(j, t * log(t) - t * y + exp(y) - t)", "slope": "p - t"}

    @property
    def link(self) -> Layer:
        """Exp: it turns logarithms into rates."""
        return Exp()

    def targets(self, y_true: ArrayLike, n_outputs: int) -> Array:
        """Return ``y_true``, not negative, with shape (n_samples, n_outputs)."""
        t = super().targets(y_true, n_outputs)
        if (t < 0).any():
            raise ValueError(f"targets must not be negative, got {t[t < 0][0]:g}")
        return t

    def sample_losses(self, y_pred: Array, y_true: Array) -> tuple[Array, Array]:
        """Return l and dl."""
        z, t = y_pred, y_true
        d = np.where(t > 0, z - np.log(np.where(t > 0, t, 1)), 0)  # r = t exp(d)
        near = (t > 0) & (d.real < 1) & (d.real > -1)  # where r - t would lose digits
        above = np.where(near, t * np.expm1(np.where(near, d, 0)), np.exp(z) - t)
        return (above - t * d).sum(axis=1), above


LOSSES: tuple[type[Loss], ...] = (
    *(MeanSquaredError, HalfSquaredError, MeanAbsoluteError, Huber),
    *(BinaryCrossEntropy, SigmoidCrossEntropy, SoftmaxCrossEntropy, PoissonLoss),
)  # the registry: what a model file may name


def no_probability(loss: Loss, p: Any) -> str:
    """Return what is to be said of a prediction that is no probability."""
    return f"{loss!r} takes probabilities in [0, 1], got {p}; for logits use SigmoidCrossEntropy"


def _as_rows(y: Array, n_outputs: int, expected: str = "") -> Array:
    if y.shape == (len(y) if y.ndim else 0,) and n_outputs == 1:
        y = y[:, None]
    if y.ndim != 2 or y.shape[1] != n_outputs:
        expected = expected or (f"(n_samples, {n_outputs})" + (" or (n_samples,)" if n_outputs == 1 else ""))
        raise ValueError(f"y_true must have shape {expected}, got {y.shape}")
    return y


def _as_shares(sets: Any, n_outputs: int) -> Any:
    """Return CSR rows that sum to 1."""
    rows = as_features(sets, np.float64, n_outputs, "y_true")
    total = np.asarray(rows.sum(axis=1)).ravel()
    if (rows.data < 0).any() or (total <= 0).any():
        bad = "a weight is negative" if (rows.data < 0).any() else f"row {int(np.argmax(total <= 0))} is empty"
        raise ValueError(f"rows of a sparse y_true must be sets, of weights above 0; {bad}")
    rows = rows.copy()
    rows.data /= np.repeat(total, np.diff(rows.indptr))
    return rows


def _in_unit_interval(t: Array) -> Array:
    outside = (t < 0) | (t > 1)
    if outside.any():
        raise ValueError(f"targets must lie in [0, 1], got {t[outside][0]:g}")
    return t
