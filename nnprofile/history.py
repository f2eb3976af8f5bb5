"""What a run of training went through: its history, the best epoch so far, and when to stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf

from ._session import Snapshot
from .contract import Configured, Layer, Optimizer
from .validation import check_number, check_size


class DivergenceError(ValueError):
    """The loss or the parameters became infinite or NaN; the network is as it was at the start of that epoch.

    Attributes
    ----------
    history : History
        Of the epochs before.
    """

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


class History(Mapping[str, list[float]]):
    """What a run of ``fit`` went through: name -> one number an epoch.

    Attributes
    ----------
    best_epoch : int
        Index of the epoch with the lowest validation loss (loss, without validation data; or as EarlyStopping
        monitors); -1 before the first.
    stop_reason : str
        "n_epochs", "early_stopping", "callback" or "interrupted".
    """

    def __init__(self) -> None:
        self.columns: dict[str, list[float]] = {}
        self.best_epoch = -1
        self.stop_reason = "n_epochs"

    def append(self, logs: Mapping[str, float]) -> None:
        """Add one epoch."""
        for name, value in logs.items():
            self.columns.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> list[float]:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        n_epochs = len(next(iter(self.columns.values()), []))
        return f"History({n_epochs} epochs of {list(self)}, best_epoch={self.best_epoch}, stop_reason={self.stop_reason!r})"


class EarlyStopping(Configured):
    """Stop when ``monitor`` has not improved for ``patience`` epochs, and go back to the best epoch.

    Parameters and optimizer state of the best epoch are restored however the run ends, except by Ctrl-C or an error.
    It keeps nothing between runs: every ``fit`` starts afresh, from where the one before went back to.

    Parameters
    ----------
    patience : int, default 10
        Epochs without improvement before the run stops.
    min_delta : float, default 0.0
        How much better counts as an improvement.
    monitor : str, default "val_loss"
        A name in the logs: "val_loss", "loss", or a metric, with "val" and an underscore before it if on validation data.
    mode : "min" or "max", default "min"
        Whether less or more is better.
    """

    config_names = ("patience", "min_delta", "monitor", "mode")

    def __init__(
        self, *, patience: int = 10, min_delta: float = 0.0, monitor: str = "val_loss", mode: str = "min"
    ) -> None:
        self.patience = check_size(patience, "patience")
        self.min_delta = check_number(min_delta, "min_delta")
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        self.monitor, self.mode = monitor, mode


class Best:
    """The best epoch of a run, as ``watch`` monitors it, and, if it is to be gone back to, its state."""

    def __init__(self, watch: EarlyStopping, history: History, *, restores: bool) -> None:
        self.watch, self.history, self.restores = watch, history, restores
        self.score = inf
        self.state: Snapshot | None = None

    def note(self, net: Layer, optimizer: Optimizer) -> None:
        """Look at the last epoch of the history."""
        epoch, value = len(self.history["loss"]) - 1, self.history[self.watch.monitor][-1]
        score = value if self.watch.mode == "min" else -value
        if score < self.score - (self.watch.min_delta if self.history.best_epoch >= 0 else 0):
            self.score, self.history.best_epoch = score, epoch
            self.state = Snapshot(net, optimizer) if self.restores else None

    def is_long_ago(self) -> bool:
        """Tell whether the run is to stop."""
        n_since = len(self.history["loss"]) - 1 - self.history.best_epoch
        return self.restores and n_since >= self.watch.patience
