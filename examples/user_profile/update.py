"""Keep the model up to date, month by month, as labels become known, and see whether that was worth it.

python -m examples.user_profile.update [--launch 1997-06-30] [--seed 0]

The task is its own: who buys within the next 30 days? Each month every customer is scored first; only then is learned what
has become known since. The same launch model, frozen, and a model retrained from nothing go through the same months.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import nnprofile as nn

from .collect import CollectError, cdnow
from .features import Encoder, Encoding
from .orders import MONTH as HORIZON
from .orders import clean_log, customers, month_ends
from .train import LOSS, build

ENCODING = Encoding(
    leaves=4, min_share=0.02, indicators=False, dropout=0.2
)  # the same people month after month: few bins
HELD_BACK = 10  # one customer in so many is never learned from
CAPACITY = 20_000  # older rows that are kept for replay
ENCODER_ROWS = 50_000  # are enough to find the edges of bins
TOLERANCE = 0.002  # by how much, in log loss, an update may be worse on held-back rows
N_JUDGING = 3  # months of held-back rows judge an update


@dataclass(frozen=True)
class Rows:
    """Customers on a date, or on several, and whether each bought within the 30 days after it."""

    frame: pd.DataFrame  # the index is the customer
    y: np.ndarray

    def take(self, which: np.ndarray) -> Rows:
        """Return some of the rows, by a mask or by number."""
        return Rows(self.frame.iloc[np.flatnonzero(which) if which.dtype == bool else which], self.y[which])

    @staticmethod
    def join(parts: Iterable[Rows]) -> Rows:
        """Return the rows of all parts, one after the other."""
        parts = list(parts)
        return Rows(pd.concat([p.frame for p in parts]), np.concatenate([p.y for p in parts]))


def rows_of(log: pd.DataFrame, date: pd.Timestamp) -> Rows:
    """Return every customer known by ``date``, described by what was known then."""
    return Rows(*customers(log, date, HORIZON))


def held_back(index: pd.Index) -> np.ndarray:
    """Return who is held back, by a hash of the customer: always the same ones."""
    return np.array([_is_held_back(str(customer)) for customer in index], bool)


@cache
def _is_held_back(customer: str) -> bool:
    return zlib.crc32(customer.encode()) % HELD_BACK == 0


@dataclass
class Learner:
    """A model that goes on learning: network, optimizer with its moments, generator, and a sample of the rows learned."""

    encoder: Encoder
    net: nn.Sequential
    optimizer: nn.Adam
    rng: np.random.Generator
    sample: Rows
    lots: (
        np.ndarray
    )  # one a row of the sample, drawn once; the rows with the lowest are kept: a uniform sample, whatever comes

    @classmethod
    def from_scratch(cls, rows: Rows, held: Rows, *, seed: int = 0, n_epochs: int = 20) -> Learner:
        """Train a new model on ``rows``, until the loss on ``held`` stops falling."""
        rng = np.random.default_rng(seed)
        some = rows.take(rng.permutation(len(rows.y))[:ENCODER_ROWS])
        kinds = dict.fromkeys(rows.frame, "number")
        encoder = Encoder.fit(some.frame, kinds, some.y, ENCODING)
        x = encoder.transform(rows.frame)
        net = build(x.shape[1], ENCODING.dropout, rng)
        optimizer = nn.Adam(0.001, weight_decay=0.3)
        history = nn.fit(
            net,
            LOSS,
            optimizer,
            x,
            rows.y,
            n_epochs=n_epochs,
            batch_size=min(1024, max(32, len(x) // 100)),
            rng=rng,
            validation_data=(encoder.transform(held.frame), held.y) if len(held.y) else None,
            early_stopping=nn.EarlyStopping(patience=2, monitor="val_loss" if len(held.y) else "loss"),
        )
        if history.stop_reason == "interrupted":
            raise KeyboardInterrupt
        lots = rng.random(len(rows.y))
        kept = np.argsort(lots)[:CAPACITY]
        return cls(encoder, net, optimizer, rng, rows.take(kept), lots[kept])

    def learn(self, rows: Rows) -> Learner:
        """Return a model that has also learned ``rows``, once, among as many older ones; this one stays as it is.

        Few rows come among more older ones, so that a step is never made of a handful.
        """
        new = copy.deepcopy(self)
        new.optimizer.learning_rate = 0.0002
        n_older = max(len(rows.y), 256 - len(rows.y))
        older = new.sample.take(new.rng.permutation(len(new.sample.y))[:n_older])
        both = Rows.join([rows, older])
        history = nn.fit(
            new.net,
            LOSS,
            new.optimizer,
            new.encoder.transform(both.frame),
            both.y,
            n_epochs=1,
            batch_size=256,
            rng=new.rng,
        )
        if history.stop_reason == "interrupted":
            raise KeyboardInterrupt
        lots = np.concatenate([new.lots, new.rng.random(len(rows.y))])
        kept = np.argsort(lots, kind="stable")[:CAPACITY]
        new.sample, new.lots = Rows.join([new.sample, rows]).take(kept), lots[kept]
        return new

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the probability of a purchase within 30 days, shape (n_rows,)."""
        return self._proba(self.encoder.transform(frame))

    def score_one(self, values: Mapping[str, float]) -> float:
        """Return the probability of one row, without a table."""
        return float(self._proba(self.encoder.row(values)[None])[0])

    def _proba(self, x: np.ndarray) -> np.ndarray:
        return LOSS.link.forward(self.net.predict(x).astype(float))[0][:, 0]


@dataclass(frozen=True)
class Verdict:
    """Whether an update is promoted, and the log losses on held-back rows it was judged by, before and after it."""

    promoted: bool
    newest: tuple[float, float]  # in the month it learned from
    believed: tuple[float, float]  # in the months before, whose labels were believed already


def judge(current: Learner, updated: Learner, newest: Rows, believed: Rows) -> Verdict:
    """Compare an update with the current model on held-back rows; one that is worse on either set is refused.

    Worse: by more than the tolerance and two standard errors of the mean difference. Wrong labels are wrong in the held-back
    rows of their month too, so the newest month would praise what it should catch; the months before, rightly labelled, do not.
    A few wrong labels do little harm, and pass (see ``Backtest.drills``). Without rows of months believed nothing is promoted.
    """
    pairs, promoted = [], len(believed.y) > 0
    for rows in (newest, believed):
        before, after = (losses(model, rows) for model in (current, updated))
        worse = after - before
        chance = 2 * worse.std() / max(len(worse), 1) ** 0.5 if len(worse) else 0.0
        promoted = promoted and not (len(worse) and worse.mean() > TOLERANCE + chance)
        pairs.append((before.mean(), after.mean()) if len(worse) else (float("nan"), float("nan")))
    return Verdict(bool(promoted), *pairs)


def losses(model: Learner, rows: Rows) -> np.ndarray:
    """Return the cross-entropy of each row."""
    if not len(rows.y):
        return np.empty(0)
    p = model.predict_proba(rows.frame)
    return -np.where(rows.y == 1, np.log(p), np.log1p(-p))


@dataclass(frozen=True)
class Month:
    """What happened at the end of one month."""

    date: pd.Timestamp
    n_customers: int
    share: float  # of yes
    loss: dict[str, float]  # of "frozen", "incremental", "retrained"
    auc: dict[str, float]
    drift: pd.Series  # of each column, since launch
    learned: list[pd.Timestamp]  # the months whose labels became known
    seconds: dict[str, float]  # of "incremental" and "retrained"
    verdict: Verdict | None  # on the update; None if no label had become known
    drill: Verdict | None  # on an update from the same labels, flipped

    @property
    def said(self) -> str:
        """What became of the update, in words."""
        if self.verdict is None:
            return "the log ends" if self.learned else "no label became known"
        return "promoted" if self.verdict.promoted else "refused"


@dataclass(frozen=True)
class Backtest:
    """All months after the launch."""

    launch: pd.Timestamp
    months: list[Month]
    drills: list[tuple[float, Verdict]]  # share of labels flipped in the last month learned -> the verdict

    def difference(self, other: str) -> tuple[float, float, float]:
        """Return the mean over months of incremental minus ``other``, in log loss, and its 95 % interval.

        Without the first month, in which nothing has been learned. The interval is a bootstrap of whole months: customers of
        one month share its season. It is that of these models; another seed trains others.
        """
        d = np.array([month.loss["incremental"] - month.loss[other] for month in self.months[1:]])
        draws = np.random.default_rng(0).integers(0, len(d), (10_000, len(d)))
        low, high = np.quantile(d[draws].mean(axis=1), [0.025, 0.975])
        return float(d.mean()), float(low), float(high)

    def relative(self, other: str) -> float:
        """Return the mean of incremental minus ``other``, as a share of the mean log loss of ``other``."""
        return self.difference(other)[0] / float(np.mean([month.loss[other] for month in self.months[1:]]))

    def seconds(self, which: str) -> float:
        """Return the processor's time that all months with new labels took."""
        return sum(month.seconds[which] for month in self.months)


def backtest(
    log: pd.DataFrame,
    launch: pd.Timestamp,
    *,
    n_epochs: int = 20,
    seed: int = 0,
    each: Callable[..., Iterable[Any]] = map,
) -> Backtest:
    """Go through the months after ``launch``: score everyone, then learn what has become known.

    The models that are retrained from nothing depend on no other, and are made by ``each``, which may be the ``map`` of a pool.
    """
    ends = month_ends(log)
    all_rows = {end: rows_of(log, end) for end in ends}
    held = {end: held_back(rows.frame.index) for end, rows in all_rows.items()}

    def to_learn(months: list[pd.Timestamp]) -> Rows:
        return Rows.join(all_rows[month].take(~held[month]) for month in months)

    def to_judge(months: list[pd.Timestamp]) -> Rows:
        return Rows.join(all_rows[month].take(held[month]) for month in months)

    def known(now: pd.Timestamp) -> list[pd.Timestamp]:
        return [end for end in ends if end + HORIZON <= now]

    believed = known(launch)
    if not believed or launch >= ends[-1]:
        raise ValueError(
            f"on {launch:%Y-%m-%d} no label is known, or no month follows; "
            f"the log has labels from {ends[0]:%Y-%m-%d} to {ends[-1]:%Y-%m-%d}"
        )
    later = [end for end in ends if end > launch]
    news = {
        now: [month for month in known(now) if month not in known(before)] for before, now in pairwise([launch, *later])
    }

    @threadpool_limits.wrap(limits=1)
    def retrain(now: pd.Timestamp) -> tuple[Learner, float]:
        months, started = known(now), time.thread_time()
        model = Learner.from_scratch(to_learn(months), to_judge(months[-N_JUDGING:]), seed=seed, n_epochs=n_epochs)
        return model, time.thread_time() - started

    retraining = iter(each(retrain, [launch, *(now for now in later[:-1] if news[now])]))
    frozen, _ = next(retraining)
    incremental = retrained = frozen
    drift = Drift(to_learn(believed).frame)
    months: list[Month] = []
    last = None
    for now in tqdm(later, desc="months", unit="month"):
        rows = all_rows[now]
        models = {"frozen": frozen, "incremental": incremental, "retrained": retrained}
        proba = {name: model.predict_proba(rows.frame) for name, model in models.items()}
        new = news[now]
        seconds, verdict, drill = {"incremental": 0.0, "retrained": 0.0}, None, None
        if new and now != ends[-1]:  # after the last month, no customer would be scored with it
            last = (incremental, to_learn(new), to_judge(new), to_judge(believed[1 - N_JUDGING :]))
            started = time.thread_time()
            updated, verdict = _update(*last)
            seconds["incremental"] = time.thread_time() - started
            drill = _drill(*last, 1.0)
            if verdict.promoted:
                incremental = updated
                believed = believed + new
            retrained, seconds["retrained"] = next(retraining)
        months.append(
            Month(
                now,
                len(rows.y),
                float(rows.y.mean()),
                {name: float(log_loss(rows.y, p, labels=[0, 1])) for name, p in proba.items()},
                {
                    name: float(roc_auc_score(rows.y, p)) if 0 < rows.y.mean() < 1 else np.nan
                    for name, p in proba.items()
                },
                drift(rows.frame),
                new,
                seconds,
                verdict,
                drill,
            )
        )
    drills = [] if last is None else [(share, _drill(*last, share)) for share in (0.02, 0.05, 0.1, 0.3)]
    return Backtest(launch, months, drills)


def _update(current: Learner, rows: Rows, newest: Rows, believed: Rows) -> tuple[Learner, Verdict]:
    updated = current.learn(rows)
    return updated, judge(current, updated, newest, believed)


def _drill(current: Learner, rows: Rows, newest: Rows, believed: Rows, share: float) -> Verdict:
    """Return the verdict on an update from rows of which a share has the wrong label, among the held-back ones too."""
    return _update(current, _flipped(rows, share), _flipped(newest, share), believed)[1]


def _flipped(rows: Rows, share: float) -> Rows:
    return Rows(rows.frame, np.where(np.random.default_rng(0).random(len(rows.y)) < share, 1 - rows.y, rows.y))


class Drift:
    """The population stability index of each column: sum over bins of (q - p) log(q / p), p then and q now.

    The bins are tenths of ``then``, and one for missing values; half a row is added to each. Below 0.1 is calm, above 0.25 is
    usually called a shift.
    """

    def __init__(self, then: pd.DataFrame, n_bins: int = 10) -> None:
        self.bins: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name in then:
            x = then[name].to_numpy(float)
            known = x[~np.isnan(x)]
            edges = np.unique(np.quantile(known, np.linspace(0, 1, n_bins + 1)[1:-1])) if len(known) else known
            self.bins[name] = edges, _shares(x, edges)

    def __call__(self, now: pd.DataFrame) -> pd.Series:
        """Return the index of each column."""
        found = {}
        for name, (edges, p) in self.bins.items():
            q = _shares(now[name].to_numpy(float), edges)
            found[name] = float(((q - p) * np.log(q / p)).sum())
        return pd.Series(found)


def _shares(x: np.ndarray, edges: np.ndarray) -> np.ndarray:
    bins = np.where(np.isnan(x), len(edges) + 1, np.searchsorted(edges, x))
    counts = np.bincount(bins, minlength=len(edges) + 2) + 0.5
    return counts / counts.sum()


def text_table(found: Backtest) -> str:
    """Return the months for a terminal."""
    lines = [
        f"month by month since {found.launch:%Y-%m-%d}: log loss of 'buys within 30 days', before anything is learned"
    ]
    lines.append(f"{'':12}{'bought':>8}{'frozen':>9}{'incremental':>13}{'retrained':>11}   update")
    for month in found.months:
        said = month.said
        if month.drill is not None:
            said += f" (with flipped labels: {'PROMOTED' if month.drill.promoted else 'refused'})"
        lines.append(
            f"{month.date:%Y-%m-%d}  {month.share:8.1%}{month.loss['frozen']:9.4f}{month.loss['incremental']:13.4f}"
            f"{month.loss['retrained']:11.4f}   {said}"
        )
    for other in ("frozen", "retrained"):
        mean, low, high = found.difference(other)
        lines.append(
            f"incremental minus {other}: {mean:+.4f}, 95 % interval over months but the first {low:+.4f} to {high:+.4f}"
        )
    ours, theirs = found.seconds("incremental"), found.seconds("retrained")
    if found.drills:
        said = ", ".join(
            f"{share:.0%}: {'promoted' if v.promoted else 'refused'} ({v.believed[1] - v.believed[0]:+.4f})"
            for share, v in found.drills
        )
        lines.append(f"the last update with so many labels flipped (what it does to the months before): {said}")
    lines.append(f"processor seconds: all updates {ours:.1f}, all retrainings {theirs:.1f}: {ours / theirs:.0%}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Go through the months of the CDNOW log, and print them."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.user_profile.update", description="Month by month on CDNOW."
    )
    parser.add_argument(
        "--launch", type=pd.Timestamp, metavar="DATE", help="when the first model is trained (default 1997-06-30)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args(arguments)
    try:
        with threadpool_limits(1):
            raw = cdnow()
            launch = options.launch or pd.Timestamp(raw.log.launch)
            print(text_table(backtest(clean_log(raw)[0], launch, seed=options.seed)))
    except (CollectError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
