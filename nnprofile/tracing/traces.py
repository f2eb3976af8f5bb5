"""``trace``: one training step, with all that can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Layer, Loss, Optimizer
from .page import to_html
from .paths import ChainPath, paths
from .record import Record
from .recorder import record
from .text import to_latex, to_markdown, to_table, to_text

if TYPE_CHECKING:
    from .presets import Preset


class Trace(Record):
    """A recorded step, as text, Markdown, LaTeX or a page, and with its paths. A mapping from names to quantities.

    Its attributes are those of ``Record``.
    """

    def paths(self, name: str, index: int | Sequence[int]) -> list[ChainPath]:
        """Return every path from one element of a parameter to the loss; see ``nnprofile.tracing.paths``.

        ``index`` is a tuple, (i, j) of a weight, or a number, j of a bias.
        """
        return paths(self, name, index)

    def to_text(self, *, digits: int = 6, max_elements: int = 64) -> str:
        """Return the step as plain text: formulas, shapes, numbers, and the check beside each gradient.

        A quantity with more than ``max_elements`` elements is summed up, and its largest elements are shown.
        """
        return to_text(self, digits=digits, max_elements=max_elements)

    def to_markdown(self, *, digits: int = 6, max_elements: int = 64) -> str:
        """Return the same as Markdown, with formulas in LaTeX between dollars."""
        return to_markdown(self, digits=digits, max_elements=max_elements)

    def to_latex(self, *, digits: int = 6, max_elements: int = 64) -> str:
        r"""Return the same as LaTeX, to ``\input`` into homework; it needs amsmath and amssymb."""
        return to_latex(self, digits=digits, max_elements=max_elements)

    def to_html(
        self,
        path: str | Path | None = None,
        *,
        title: str | None = None,
        preset: Preset | None = None,
        break_it: bool = True,
        n_steps: int = 200,
    ) -> str:
        """Return the page that shows the step, one file that needs nothing else; write it to ``path`` if there is one.

        ``title`` is its heading; ``preset`` adds its story and its printed numbers; ``break_it`` the known bugs that the network
        can have; the page shows ``n_steps`` steps of training, right and with each bug.
        """
        page = to_html(self, title=title, preset=preset, break_it=break_it, n_steps=n_steps)
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page

    def _repr_html_(self) -> str:
        return to_table(self)

    def __str__(self) -> str:
        return self.to_text()


def trace(
    net: Layer,
    loss: Loss,
    x: Any,
    y: Any,
    optimizer: Optimizer | None = None,
    l2: float = 0.0,
    frozen: str | Sequence[str] = (),
    *,
    sample_weight: Any = None,
    rng: np.random.Generator | None = None,
) -> Trace:
    """Record one training step of ``net`` on the batch x, y: eq. 1-36 of docs/backprop.md with the numbers in.

    Parameters
    ----------
    net : Layer
        Not changed. A layer without known formulas is shown with its values and checks alone.
    loss : Loss
    x : Array, shape (n_samples, n_features); or Ragged; or a tuple of these
    y : Array
        As the loss takes it. A Ragged, where the network gives a row for each event.
    optimizer : Optimizer, optional
        Not changed: a copy takes the step. Without one there is no update.
    l2 : float, default 0.0
        As in ``fit``: l2 / (2 n) * sum W^2 belongs to the objective J.
    frozen : str or sequence of str
        Names, ``"0.b"``, or patterns, ``"*.b"``, of parameters that the update leaves alone.
    sample_weight : Array, shape (n_samples,), optional
    rng : numpy.random.Generator, optional
        Training mode, for layers that draw. Not changed: a copy draws.

    Returns
    -------
    Trace
        A mapping from names to quantities, with ``to_text``, ``to_markdown``, ``to_latex`` and ``to_html``.

    Raises
    ------
    ValueError
        If x, y, the weights or a name in ``frozen`` do not fit.

    Examples
    --------
    >>> from nnprofile import SGD, Dense, HalfSquaredError, Sequential
    >>> net = Sequential([Dense(1, 1)], rng=None)
    >>> net.params["0.W"], net.params["0.b"] = [[2.0]], [1.0]
    >>> step = trace(net, HalfSquaredError(), [[3.0]], [[5.0]], SGD(0.1))
    >>> step["dW1"].value.tolist(), step["dW1"].check.digits.tolist(), round(float(step["W1+"].value[0, 0]), 12)
    ([[6.0]], [[16.0]], 1.4)
    """
    return record(net, loss, x, y, optimizer, l2, frozen, sample_weight=sample_weight, rng=rng, kind=Trace)
