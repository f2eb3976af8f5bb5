"""A trained network for scoring: what does not change is prepared once, so that a row costs a few microseconds.

It holds its own copy of the parameters, nothing changes it, and any number of threads may call it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import engine
from .contract import Array, Layer, Loss, Parameters, apply, check_filled, is_sparse, n_rows, numbers_of, take
from .ragged import Ragged
from .tables import as_real
from .validation import as_features, as_input, check_shape, check_size, fitted_inside

_PIECE = 8192  # rows at a time: what is converted is a piece, and a thread takes one after the other


class FrozenNetwork:
    """Score rows: ``frozen(x)`` is ``loss.link`` applied to ``net.predict(x)``, as both were when it was made by ``freeze``.

    A row's prediction does not depend on the rows beside it, nor on ``n_threads``: to the bit where the engine computes it, but
    for layers so large that BLAS multiplies them; to rounding where NumPy does, as of sequences.

    Attributes
    ----------
    in_features, out_features : int or None
        The widths of x and of the prediction; None, if no layer fixes it.
    dtype : data type
        Of the prediction. An x of this dtype, in C order and writable, is read where it lies; others are converted.
    compiled : bool
        Whether the compiled engine does the work, or NumPy.
    """

    __slots__ = ("_link", "_net", "_runs", "_score", "_score_csr", "compiled", "dtype", "in_features", "out_features")

    in_features: Any
    out_features: int | None
    dtype: np.dtype[Any]
    compiled: bool
    _net: Layer
    _runs: Layer  # by NumPy, or compiled layer by layer
    _link: Layer | None
    _score: Callable[[Any, int, Array], Any] | None
    _score_csr: Callable[[Any, int, Array], Any] | None

    def __init__(self, net: Layer, link: Layer | None) -> None:
        score = score_csr = twin = None
        net = net.with_params(Parameters(net.params.layout, net.params.vector.copy()))
        try:
            try:
                score, score_csr = engine.scorer(net, link)
            except engine.Unknown:
                twin = engine.scoring_twin(net)
        except engine.Unknown:
            pass
        except engine.Unavailable as reason:
            engine.warn_once(reason)
        for name, value in {
            "_net": net,
            "_link": link,
            "_score": score,
            "_score_csr": score_csr,
            "_runs": twin or net,
            "compiled": score is not None or twin is not None,
            "dtype": net.params.dtype,
            "in_features": getattr(net, "in_features", None),
            "out_features": getattr(net, "out_features", None),
        }.items():
            object.__setattr__(self, name, value)

    def __call__(self, x: Any, out: Array | None = None, *, n_threads: int = 1) -> Any:
        """Return the predictions for finite x, shape (n_samples, out_features); a Ragged, if the network gives events.

        Parameters
        ----------
        x : array or scipy.sparse CSR matrix, shape (n_samples, n_features); or Ragged; or a tuple of these for Parallel
        out : Array, shape (n_samples, out_features), optional
            Where to write them, and what is returned: of ``dtype``, in C order. Without it, a new array.
        n_threads : int, default 1
            How many threads share the rows, from some thousands of rows on.

        Raises
        ------
        ValueError
            If x has another rank or width, is not made of real numbers, or is not finite, or ``out`` has another form.
        """
        # The usual case comes first and asks little: a check costs as much as a layer.
        score, dtype = self._score, self.dtype
        if out is None and n_threads == 1 and score is not None and type(x) is np.ndarray and x.dtype is dtype:
            shape = x.shape
            if len(shape) == 2 and shape[1] == self.in_features and x.flags.carray:
                out = np.empty((shape[0], self.out_features), dtype)  # type: ignore[arg-type]
                if score(x, 0, out):
                    return out
                out = None
        return self._score_all(x, out, check_size(n_threads, "n_threads"))

    def _score_all(self, x: Any, out: Array | None, n_threads: int) -> Any:
        if isinstance(x, Ragged | tuple) or self._net.mixes_events or self._net.takes != "numbers":
            return self._score_parts(as_input(x, self._net), out, n_threads)
        if not is_sparse(x):
            x = as_real(x, "x")
        elif x.format != "csr":
            x = x.tocsr()
        check_shape(x.shape, self.in_features)
        if x.shape[0] <= _PIECE:
            x = as_features(x, self.dtype, self.in_features)
        width = self.out_features
        if width is None:
            width = self._forward(as_features(x[:1], self.dtype, self.in_features)).shape[1]
        shape = (x.shape[0], width)
        if out is None:
            out = np.empty(shape, self.dtype)
        else:
            self._check_out(out, shape)
            if isinstance(x, np.ndarray) and np.may_share_memory(x, out):
                x = x.copy()

        in_place = isinstance(x, np.ndarray) and engine.is_contiguous(x, self.dtype) and x.shape[1] == self.in_features

        def score(first: int) -> None:
            part = out[first : first + _PIECE]
            if in_place and self._score is not None and self._score(x, first, part):
                return
            rows = as_features(x[first : first + _PIECE], self.dtype, self.in_features, first_row=first)
            if self._score is None or self._score_csr is None:
                part[...] = self._forward(rows)
            elif is_sparse(rows):
                self._score_csr(rows, 0, part)
            else:
                self._score(engine.as_contiguous(rows, self.dtype), 0, part)

        _on_each_piece(score, x.shape[0], n_threads)
        return out

    def _score_parts(self, x: Any, out: Array | None, n_threads: int) -> Any:
        """Return the predictions for what is no matrix: ids, sequences, a tuple."""
        if isinstance(x, Ragged) and not self._net.mixes_events and self._net.takes == "numbers":
            return Ragged.of(self._score_all(x.values, out, n_threads), x.offsets)
        parts = _on_each_piece(lambda i: self._forward(take(x, slice(i, i + _PIECE))), n_rows(x), n_threads)
        y = np.concatenate([numbers_of(part) for part in parts])
        if out is not None:
            self._check_out(out, y.shape)
            out[...] = y
            y = out
        if not isinstance(parts[0], Ragged):
            return y
        lengths = np.concatenate([part.lengths for part in parts])
        return Ragged.of(y, np.concatenate([[0], np.cumsum(lengths)]))

    def _check_out(self, out: Any, shape: tuple[int, ...]) -> None:
        if not isinstance(out, np.ndarray) or out.shape != shape or not engine.is_contiguous(out, self.dtype):
            found = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ValueError(f"out must be a writable {self.dtype} array of shape {shape} in C order, got {found}")

    def _forward(self, x: Any) -> Any:
        """Return link(net(x)), layer by layer."""
        y, _ = apply(self._runs, x)
        return y if self._link is None else apply(self._link, y)[0]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a FrozenNetwork does not change; set {name} of the network, and freeze it again")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a FrozenNetwork does not change; it keeps {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenNetwork, (self._net, self._link)

    def __repr__(self) -> str:
        link = "" if self._link is None else f", link={self._link!r}"
        return f"FrozenNetwork({self._net!r}{link}, {self.dtype})"


def _on_each_piece(f: Callable[[int], Any], n: int, n_threads: int) -> list[Any]:
    """Return f of the first row of each piece, in order."""
    firsts = range(0, max(n, 1), _PIECE)
    if n_threads == 1 or len(firsts) == 1:
        return [f(first) for first in firsts]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(n_threads, len(firsts))) as pool:
        return list(pool.map(f, firsts))


def freeze(net: Layer, loss: Loss | None = None) -> FrozenNetwork:
    """Return a copy of ``net`` for scoring, immutable and safe to call from many threads.

    Where the compiled engine knows the network, it is loaded now (see ``warmup``), and a row costs a few microseconds;
    otherwise NumPy does the work.

    Parameters
    ----------
    net : Layer
    loss : Loss, optional
        Its link is applied to the output: for a loss on logits, predictions are probabilities. Without it, they are
        ``net.predict(x)``.

    Raises
    ------
    ValueError
        If ``net`` is no layer, ``loss`` no loss, or a parameter has no finite value.

    Examples
    --------
    >>> from nnprofile import Dense, Sequential, SigmoidCrossEntropy
    >>> net = Sequential([Dense(2, 1)], rng=None)
    >>> net.params.vector = [1.0, 1.0, 0.0]
    >>> score = freeze(net, SigmoidCrossEntropy())
    >>> score([[0.5, -0.5], [100.0, 0.0]]).tolist()
    [[0.5], [1.0]]
    """
    for value, kind, name in ((net, Layer, "net"), (loss, Loss, "loss")):
        if not (isinstance(value, kind) or (value is None and name == "loss")):
            hint = ""
            if name == "net" and (model := fitted_inside(value)):
                hint = f"; of a fitted estimator use freeze({model}.network_, {model}.loss_function_)"
            raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r}{hint}")
    check_filled(net)
    if not np.isfinite(net.params.vector).all():
        raise ValueError(f"{net!r} has parameters without a finite value: has it diverged? Train it before freeze")
    return FrozenNetwork(net, None if loss is None else loss.link)
