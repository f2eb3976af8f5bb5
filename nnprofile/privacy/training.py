"""Differentially private training: Poisson samples, clipped gradients, Gaussian noise, a public divisor.

A step draws each of N rows with probability q = B / N, and moves along (sum_n min(1, C / norm(g_n)) g_n + z C N(0, I)) / B,
where B is the *expected* size of a batch (docs/privacy.md, eq. 74-75; Abadi et al. 2016, algorithm 1).
"""

from __future__ import annotations

import secrets
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .._session import Snapshot
from ..contract import Array, Layer, Loss, Optimizer, Spent, apply, check_filled, n_rows, take
from ..history import DivergenceError, History
from ..layers.compose import every
from ..objectives import Objective
from ..training import Data, check_arguments, validation_of
from ..validation import all_finite, check_number, check_rng, check_size
from .accountant import epsilon_of, noise_for
from .clipping import check_layers, check_loss_of, clipped_sum

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

REFUSED = {
    "n_epochs": "an epoch is no unit of privacy: give n_steps, of Poisson samples",
    "batch_size": "batches of a fixed size have another, worse, guarantee: give expected_batch_size",
    "shuffle": "the guarantee is of Poisson sampling; shuffled batches have no known tight one",
    "early_stopping": "to stop by the private rows' loss tells of them; choose n_steps, or stop by public_validation afterwards",
    "validation_data": "losses of private rows tell of them; give public rows as public_validation",
    "metrics": "metrics of private rows tell of them; measure on public rows afterwards",
    "callbacks": "states in between are noisy too, but what a callback decides by the rows is not covered",
    "class_weight": "weights made of counts tell of the rows, and a weight changes how far a row can move the sum",
    "sample_weight": "a weight changes how far a row can move the sum; every row is clipped to the same length",
    "l2": "use the optimizer's weight_decay, which reads no rows",
    "engine": "private steps run on NumPy; see docs/privacy.md for what that costs",
    "n_threads": "private steps run on NumPy, whose BLAS has threads of its own",
}
N_LOSSES = 20  # of public rows, in a run


class PrivacyWarning(UserWarning):
    """What was asked for voids the guarantee, or weakens it."""


class PrivateHistory(History):
    """What a run of private training spent; no loss of a private row is in it.

    Attributes
    ----------
    epsilon, delta : float
        What the network has spent in all its private runs, this one included, on the assumption that they saw the same rows.
    noise : float
        The deviation of the noise over the clip, z.
    rate : float
        The probability with which a row is drawn, q.
    n_steps : int
    clip, expected_batch_size : float, int
    ledger : tuple of Spent
        All private runs of the network.
    """

    def __init__(self, ledger: tuple[Spent, ...], delta: float, clip: float, expected_batch_size: int) -> None:
        super().__init__()
        self.ledger, self.delta, self.clip, self.expected_batch_size = ledger, delta, clip, expected_batch_size
        self.noise, self.rate, self.n_steps = ledger[-1]
        self.epsilon = epsilon_of(ledger, delta)
        self.stop_reason = "n_steps"

    def __repr__(self) -> str:
        runs = f" in {len(self.ledger)} runs" if len(self.ledger) > 1 else ""
        spent = f"epsilon={self.epsilon:.4g} at delta={self.delta:g}{runs}"
        return f"PrivateHistory({spent}; {self.n_steps} steps, rate={self.rate:.4g}, noise={self.noise:.4g}, clip={self.clip:g})"


def fit_private(
    net: Layer,
    loss: Loss,
    optimizer: Optimizer,
    x: Any,
    y: ArrayLike,
    *,
    epsilon: float,
    delta: float,
    clip: float,
    expected_batch_size: int,
    n_steps: int,
    rng: np.random.Generator | None = None,
    public_validation: tuple[Any, ...] | None = None,
    **refused: Any,
) -> PrivateHistory:
    """Train ``net`` in place so that no row can be told from it: (epsilon, delta)-differential privacy.

    A step is (eq. 75): n ~ Binomial(N, q), a subset S of n rows; G = sum_(n in S) min(1, C / norm(g_n)) g_n + z C N(0, I);
    optimizer.step(params, G / B). The noise z is the least with which ``n_steps`` steps spend epsilon, by Rényi divergences.

    What is promised: had any one of the N rows had no part in any sum, every statement about the trained parameters would be at
    most e^epsilon times as probable or improbable, but for delta. N is public: q and z are made of it. It covers the parameters,
    and all that is computed from them; not what else was made of the rows: an encoder fitted on them, a choice between runs.

    Parameters
    ----------
    net : Layer
        Of Dense, LayerNorm, Embedding, PositionalEmbedding, layers without parameters, and composites of these.
    loss : Loss of the library
    optimizer : Optimizer
    x, y
        The private rows, as ``fit`` takes them. A sequence of a Ragged counts as one row.
    epsilon, delta : float
        What this run may spend. delta: far less than 1 / N.
    clip : float
        C, the length to which each row's gradient is cut.
    expected_batch_size : int
        B, the public divisor; q = B / N.
    n_steps : int
    rng : numpy.random.Generator, optional
        Draws rows, noise, and what layers draw. By default one that the operating system's secrets seed. Whoever knows the
        state of another can take the noise away: a warning says so. For tests.
    public_validation : (x, y) or (x, y, sample_weight), optional
        Rows that are public: their loss is in the history as "val_loss", up to 20 times in the run.

    Returns
    -------
    PrivateHistory
        The privacy spent. ``net.ledger`` keeps it, and that of each layer of ``net``; further calls add to it, and ``save``
        writes it into the file.

    Raises
    ------
    ValueError
        If an argument is not as above, a layer's or a loss's gradients cannot be clipped row by row, or an argument of ``fit``
        is given that would tell of the rows; the message says why.
    DivergenceError
        If the parameters are not finite: network and optimizer are as before the call. That steps were made counts as spent.

    Examples
    --------
    >>> import nnprofile as nn
    >>> draws = np.random.default_rng(0)
    >>> x = draws.normal(size=(2000, 3))
    >>> net = nn.Sequential([nn.Dense(3, 1)], rng=draws)
    >>> spent = fit_private(
    ...     net, nn.SigmoidCrossEntropy(), nn.SGD(1.0), x, x[:, 0] > 0,
    ...     epsilon=2, delta=1e-5, clip=1.0, expected_batch_size=200, n_steps=100)
    >>> round(spent.epsilon, 2), bool(((net.predict(x)[:, 0] > 0) == (x[:, 0] > 0)).mean() > 0.8)
    (2.0, True)
    """
    for name in refused:
        if name in REFUSED:
            raise ValueError(f"private training takes no {name}: {REFUSED[name]}")
        raise TypeError(f"fit_private() got an unexpected keyword argument {name!r}")
    check_arguments(net, loss, optimizer, "numpy", None, (), None)
    check_filled(net)
    check_layers(net)
    check_loss_of(loss)
    clip = check_number(clip, "clip", positive=True)
    n_batch, n_steps = check_size(expected_batch_size, "expected_batch_size"), check_size(n_steps, "n_steps")
    data = Data(net, loss, x, y)
    if n_batch > data.n_samples:
        raise ValueError(f"expected_batch_size must be at most the {data.n_samples} rows, got {n_batch}")
    delta = check_number(delta, "delta", below=1.0, positive=True)
    if delta * data.n_samples > 1:
        warnings.warn(
            f"delta={delta:g} is more than 1 / {data.n_samples}: it would allow to publish a row",
            PrivacyWarning,
            stacklevel=2,
        )
    rate = n_batch / data.n_samples
    noise = noise_for(epsilon, delta, rate, n_steps)
    public = None if public_validation is None else validation_of(net, loss, public_validation)
    if rng is not None:
        check_rng(rng)
        warnings.warn(
            "whoever knows the state of rng can take the noise away: give none, but in tests",
            PrivacyWarning,
            stacklevel=2,
        )
    optimizer.prepare(net.params)
    history = PrivateHistory((*net.ledger, Spent(noise, rate, n_steps)), delta, clip, n_batch)
    before = Snapshot(net, optimizer)
    for layer in every(net):  # spent, whatever happens
        layer.ledger = history.ledger
    try:
        _run(net, loss, optimizer, data, history, rng or np.random.default_rng(secrets.randbits(256)), public)
    except BaseException:
        before.restore(net, optimizer)
        raise
    return history


def _run(
    net: Layer,
    loss: Loss,
    optimizer: Optimizer,
    data: Data,
    history: PrivateHistory,
    rng: np.random.Generator,
    public: Data | None,
) -> None:
    """Make the steps."""
    n = min(N_LOSSES, history.n_steps)
    at = set(np.linspace(history.n_steps / n, history.n_steps, n).round().astype(int).tolist())
    for step in range(1, history.n_steps + 1):
        gradient = private_gradient(net, loss, data.x, data.y, history, rng)
        with np.errstate(over="ignore", invalid="ignore"):
            optimizer.step(net.params, net.params.of(gradient.astype(net.params.dtype)))
        if not all(map(all_finite, (net.params.vector, *optimizer.state.values()))):
            raise DivergenceError(
                f"step {step}: a parameter is not finite; the network is as before. Try a smaller learning rate",
                history,
            )
        if public is not None and step in at:
            found = public.scores(lambda x: apply(net, x)[0], None, Objective(net, loss, trusted=True))
            history.append({"val_loss": found["loss"]})


def private_gradient(
    net: Layer, loss: Loss, x: Any, y: Any, history: PrivateHistory, rng: np.random.Generator
) -> Array:
    """Return the noisy sum of clipped gradients over a Poisson sample, divided by the expected size of it (eq. 75)."""
    n_drawn = rng.binomial(n_rows(x), history.rate)
    rows = rng.choice(n_rows(x), n_drawn, replace=False, shuffle=False)  # given their number, all subsets are as likely
    total, _ = clipped_sum(net, loss, take(x, rows), take(y, rows), history.clip, rng)
    total.vector += history.noise * history.clip * rng.standard_normal(total.vector.size)
    found: Array = total.vector / history.expected_batch_size
    return found
