"""The state of a run in one file: written after a round, read where it exists."""

from __future__ import annotations

import hashlib
import os
from time import monotonic
from typing import Any

from ..history import Best
from ..layers import COMPOSITES, LAYERS
from ..layers.compose import every
from ..losses import LOSSES
from ..modelfile import load_with, save_with
from .rounds import Run, joined
from .stream import Position


class Checkpoint:
    """The file of a run: a model file, with the place where the run is."""

    def __init__(self, path: str | os.PathLike[str], seconds: float, run: Run, best: Best) -> None:
        self.path, self.seconds, self.run, self.best, self.written = path, seconds, run, best, monotonic()
        self.kind = _kind_of(run, best)
        if os.path.exists(path):
            self.read()
        else:
            self.write(now=True)

    def write(self, *, now: bool = False) -> None:
        """Write the state, if the last one is old enough."""
        if not now and monotonic() - self.written < self.seconds:
            return
        run, history = self.run, self.run.history
        values, totals = joined(run.steps)
        curves = {"values": values, "totals": totals}
        if self.best.state is not None:
            curves |= {f"best.{name}": copy for name, copy in self.best.state.copies.items()}
        place = {
            "run": self.kind,
            "epoch": run.epoch,
            "round": run.round,
            "positions": [list(position) for position in run.positions],
            "ended": run.ended,
            "seed": run.job.seed,
            "engine": run.job.engine,
            "history": {name: [value.hex() for value in column] for name, column in history.items()},
            "stop_reason": history.stop_reason,
            "best_n_steps": 0 if self.best.state is None else self.best.state.n_steps,
        }
        loss = run.job.loss if type(run.job.loss) in LOSSES else None
        net: Any = run.net
        save_with({"shards": place}, net, self.path, loss=loss, optimizer=run.optimizer, rng=run.rng, curves=curves)
        self.written = monotonic()

    def read(self) -> None:
        """Go to where the file is."""
        run, best = self.run, self.best
        own = {type(layer) for layer in every(run.net)} - {*LAYERS, *COMPOSITES}
        saved, described, curves = load_with(self.path, layers=own)
        place = (described or {}).get("shards")
        if place is None:
            raise ValueError(f"{os.fspath(self.path)} is a model file, but no checkpoint of fit_shards")
        if differing := [name for name, value in self.kind.items() if place["run"].get(name) != value]:
            what = ", ".join(differing)
            raise ValueError(
                f"{os.fspath(self.path)} is the checkpoint of another run: it differs in {what}; remove it to begin anew"
            )
        assert saved.optimizer is not None and saved.rng is not None
        run.net.params.vector, run.optimizer.n_steps = saved.net.params.vector, saved.optimizer.n_steps
        for name in run.optimizer.config_names:  # callbacks may have changed them
            setattr(run.optimizer, name, getattr(saved.optimizer, name))
        for name, moment in run.optimizer.state.items():
            moment[...] = saved.optimizer.state[name]
        run.rng.bit_generator.state = saved.rng.bit_generator.state
        run.job = run.job._replace(seed=place["seed"], engine=place["engine"])
        columns = {name: [float.fromhex(value) for value in column] for name, column in place["history"].items()}
        for epoch in range(place["epoch"]):
            run.history.append({name: column[epoch] for name, column in columns.items()})
            best.note(run.net, run.optimizer)
        if best.state is not None:
            best.state.n_steps = place["best_n_steps"]
            for name, copy in best.state.copies.items():
                copy[...] = curves[f"best.{name}"]
        run.begin(place["epoch"])
        run.round, run.ended = place["round"], place["ended"]
        run.positions = [Position(*position) for position in place["positions"]]
        run.steps = [(curves["values"], curves["totals"])] if curves["values"].size else []
        if place["stop_reason"] in ("early_stopping", "callback"):
            run.history.stop_reason = place["stop_reason"]


def _kind_of(run: Run, best: Best) -> dict[str, Any]:
    """Return what a run must have in common with one that goes on from its checkpoint."""
    job = run.job
    names = [str(shard) if isinstance(shard, (str, os.PathLike, int)) else "" for shard in job.shards]
    return {
        "shards": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "network": f"{run.net!r}, {run.net.params.dtype}",
        "loss": repr(job.loss),
        "optimizer": repr(run.optimizer),
        "batch_size": job.batch_size,
        "l2": job.l2,
        "class_weight": repr(sorted((job.class_weight or {}).items(), key=repr)),
        "shuffle": job.shuffle,
        "n_replicas": run.n_replicas,
        "steps_per_round": run.n_steps,
        "average": run.average,
        "early_stopping": best.restores,
        "monitor": best.watch.monitor,
        "rng": type(run.rng.bit_generator).__name__,
    }
