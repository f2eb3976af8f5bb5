"""A table that outgrows memory, or one machine: a folder of files, of which a process holds one at a time.

python -m examples.user_profile --files FOLDER --target COLUMN [--map processes | dask] [--replicas N]

Columns are understood, and the encoder is fitted, on a uniform sample of the rows; the network trains on all of them, file by
file; scores and the test's figures are made file by file too. To which part a row belongs, its own text says: copies are never
on both sides, whatever file they are in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nnprofile as nn

from . import amounts, deploy, doubts, evaluate, preprocess, reading, train
from .collect import CollectError, Raw, column_of
from .features import ENCODINGS, Encoder
from .target import as_one_value
from .values import Column

SAMPLE, HELD = 20_000, 10_000  # rows to understand the columns by, and to stop by
PARTS = {"fit": (0, 69), "validate": (69, 80), "test": (80, 100)}  # per cent
N_BINS = 10_000  # of probabilities, to find the area under the curve without holding them
KINDS = (".parquet", ".csv", ".tsv", ".txt", ".gz", ".xlsx")

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Source:
    """How a file becomes rows of text, and which of them belong to a part."""

    group: str = ""  # rows of one value of it stay together
    encoding: str | None = None

    def read(self, path: Path, part: str = "") -> pd.DataFrame:
        """Return the rows of a part, or all of them."""
        file = reading.read(path, self.encoding, every_record=True)
        frame = pd.DataFrame(file.records, columns=file.names, dtype=object).apply(lambda column: column.str.strip())
        if not part:
            return frame
        return frame[self.is_in(part, frame, path)]

    def is_in(self, part: str, frame: pd.DataFrame, path: Path) -> np.ndarray:
        """Tell which rows of a file belong to a part: each row's own text says."""
        low, high = PARTS[part]
        keys = frame[column_of(list(frame), self.group, path)] if self.group else frame.agg("\x1f".join, axis=1)
        lots = np.array([int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) % 100 for key in keys])
        found: np.ndarray = (lots >= low) & (lots < high)
        return found


@dataclass(frozen=True)
class Answer:
    """Which text of the target is the yes."""

    name: str
    yes: str  # as one value; or a comparison, such as ">500"
    number: amounts.Numbers | None = None  # how a number is read, for a comparison
    missing: frozenset[str] = frozenset()  # words that count as missing, in lower case, beside those of MISSING

    def of(self, text: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Return 0 and 1, and of which rows that is known."""
        words = text.str.lower().str.replace(r"\.0+$", "", regex=True)
        known = ~words.isin(amounts.MISSING | self.missing).to_numpy(bool)
        if self.number is None:
            return (as_one_value(text) == self.yes).to_numpy(int), known
        numbers = text.map(self.number).to_numpy(float)
        operator, limit = re.fullmatch(r"([<>]=?)\s*(.+)", self.yes).groups()  # type: ignore[union-attr]
        compare = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}[operator]
        return compare(numbers, self.number(limit)).astype(int), known & ~np.isnan(numbers)


@dataclass(frozen=True)
class Reader:
    """A shard's rows as the network takes them: (features, yes or no)."""

    source: Source
    columns: tuple[Column, ...]
    encoder: Encoder
    answer: Answer
    part: str = "fit"

    def __call__(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Read the rows of the part."""
        text = self.source.read(path, self.part)
        y, known = self.answer.of(text[self.answer.name])
        return self.encoder.transform(typed(text[known], self.columns)), y[known]


def typed(text: pd.DataFrame, columns: Iterable[Column]) -> pd.DataFrame:
    """Return the columns as the sample was read, each value by itself: no file is read in a way of its own."""
    parts: dict[str, pd.Series] = {}
    for column in columns:
        parts |= column.read(text[column.name])
    return pd.DataFrame(parts, index=text.index)


def files_in(folder: Path) -> list[Path]:
    """Return the tables in a folder, by name.

    Raises
    ------
    CollectError
        If there is none.
    """
    files = folder.glob("*") if folder.is_dir() else []
    found = sorted(f for f in files if f.suffix.lower() in KINDS and f.name[0] not in ".~" and f.stat().st_size)
    if not found:
        raise CollectError(f"{folder} is no folder with tables ({', '.join(KINDS)})")
    return found


@contextmanager
def workers(name: str, n: int) -> Iterator[Map]:
    """Yield what runs tasks: here, in processes of this machine, or on a Dask cluster, here too if none is set up."""
    if name == "here":
        yield map
    elif name == "processes":
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        with ProcessPoolExecutor(n, get_context("spawn")) as pool:
            yield pool.map
    else:
        try:
            from distributed import Client
        except ImportError as error:
            raise CollectError("--map dask needs Dask's workers: python -m pip install distributed") from error
        with Client(n_workers=n, threads_per_worker=1, dashboard_address=None) as client:
            yield lambda f, tasks: client.gather(client.map(f, list(tasks), pure=False))


def run(
    folder: Path,
    target: str,
    positive: str | None,
    out: Path,
    *,
    types: preprocess.Types | None = None,
    encoding: str | None = None,
    map_name: str = "here",
    n_replicas: int = 1,
    n_epochs: int = 20,
) -> dict[str, dict[str, float]]:
    """Train, evaluate, save and score; return the figures of the network of all rows, and of one of the sample alone.

    A run that is cut off goes on where it was: ``out`` has its state. One on other files, or with another answer, begins anew.

    Raises
    ------
    CollectError, PreprocessError, ValueError
        If there are no files, they cannot be read, have not the same columns, or hold too few rows.
    """
    files, types = files_in(folder), types or preprocess.Types()
    if n_replicas > len(files):
        raise CollectError(f"--replicas must be at most the number of files, {len(files)}, got {n_replicas}")
    source = Source(types.group if types.group != "none" else "", encoding)
    with workers(map_name, max(2, n_replicas)) as call:
        sampled = nn.summarize(files, partial(source.read, part="fit"), map=call, sample_size=SAMPLE)
        held = nn.summarize(files, partial(source.read, part="validate"), map=call, sample_size=HELD)
        print(f"{folder.name}: {len(files)} files; {sampled.n_rows:,} rows to fit, {held.n_rows:,} to validate")
        table, fit, validate, answer = understood(sampled, held, target, positive, types, folder)
        small = train.train(table, fit, validate, n_networks=1)
        if counts := sampled[answer.name].counts:
            is_known = answer.of(pd.Series([*counts], dtype=object))[1]
            n_unknown = sum(n for n, known in zip(counts.values(), is_known, strict=True) if not known)
            print(f"  {answer.name}: {n_unknown:,} of the rows to fit have no answer, and are left out")
        print(
            f"encoder and first network: of {len(fit):,} rows, {len(table.kinds)} columns, encoding {small.encoding!r}"
        )

        reader = Reader(source, table.columns, small.encoder, answer)
        valid = small.encoder.transform(table.frame.iloc[validate]), table.y[validate]
        rng = np.random.default_rng(0)
        net = train.build(valid[0].shape[1], ENCODINGS[small.encoding].dropout, rng)
        out.mkdir(parents=True, exist_ok=True)
        history = nn.fit_shards(
            net,
            train.LOSS,
            nn.Adam(0.002, weight_decay=1.0),
            files,
            reader,
            n_epochs=n_epochs,
            batch_size=256,
            rng=rng,
            n_replicas=n_replicas,
            map=call,
            validation_data=valid,
            early_stopping=nn.EarlyStopping(patience=3),
            checkpoint=out / f"run-{_state(files, reader, n_replicas)}.safetensors",
        )
        if history.stop_reason == "interrupted":
            raise KeyboardInterrupt
        model = replace(small, nets=(net,), history=history)
        model = replace(model, threshold=evaluate.best_threshold(valid[1], model.of_features(valid[0])))
        deploy.save(out / "model", model, table)
        (out / "scores").mkdir(exist_ok=True)
        judge = partial(scored, reader=replace(reader, part=""), models=(model, small), out=out / "scores")
        counts = sum(call(judge, files), start=np.zeros((2, 2, N_BINS)))
    found = {name: figures(count) for name, count in zip(("all rows", "the sample"), counts, strict=True)}
    for name, values in found.items():
        n = f"{values['n']:,.0f} test rows"
        print(f"network of {name:10}  AUC {values['roc_auc']:.4f}  log loss {values['log_loss']:.4f}  ({n})")
    print(f"epochs {len(history['loss'])}; model {out / 'model'}; scores of each file {out / 'scores'}")
    return found


def _state(files: list[Path], reader: Reader, n_replicas: int) -> str:
    """Return what tells apart runs on other files, with another answer or encoder: they have states of their own."""
    known = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    text = json.dumps(
        [known, reader.answer.name, reader.answer.yes, reader.source.group, reader.encoder.to_json(), n_replicas]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def understood(
    sampled: nn.shards.Summary,
    held: nn.shards.Summary,
    target: str,
    positive: str | None,
    types: preprocess.Types,
    folder: Path,
) -> tuple[preprocess.Table, np.ndarray, np.ndarray, Answer]:
    """Return the typed sample without what tells the answer, its rows to fit and to validate, and what the answer is."""
    frames = [pd.DataFrame({n: a.astype(str) for n, a in s.sample.items()}, dtype=object) for s in (sampled, held)]
    frame = pd.concat(frames, ignore_index=True)
    name = column_of(list(frame), target, folder)
    about = f"{folder.name}: a uniform sample of {len(frame):,} rows"
    raw = Raw(folder.name, frame, name, positive, about)
    table = preprocess.clean(raw, types=types)
    first = np.asarray(table.frame.index) <= len(frames[0])
    fit, validate = np.flatnonzero(first), np.flatnonzero(~first)
    for part, rows in (("fit", fit), ("validate", validate)):
        if len(np.unique(table.y[rows])) < 2:
            raise CollectError(
                f"no yes, or no no, is among the {len(rows)} rows to {part}: there are too few rows, or groups"
            )
    for suspect in doubts.suspects(table, (fit, validate, validate), types.keep):
        print(f"warning: {suspect}")
        if not suspect.kept:
            table = table.without([suspect.name])
    for note in table.notes.items():
        print(f"  {note[0]}: {note[1]}")
    missing = frozenset(word.lower() for word in types.missing)
    if positive is not None and re.match(r"[<>]", positive.strip()):
        way = amounts.numbers(frame[name][frame[name] != ""].value_counts().to_dict(), types.decimal)
        assert way is not None  # the table was made by it
        return table, fit, validate, Answer(name, positive.strip(), way[0], missing)
    return table, fit, validate, Answer(name, as_one_value(pd.Series([table.positive]))[0], None, missing)


def scored(path: Path, reader: Reader, models: tuple[train.Model, ...], out: Path) -> np.ndarray:
    """Write the scores of a file's rows; return of its test rows how many of each answer each model gives which probability."""
    text = reader.source.read(path)
    is_test = reader.source.is_in("test", text, path)
    x = reader.encoder.transform(typed(text, reader.columns))
    probabilities = [model.of_features(x) for model in models]
    table = pd.DataFrame({"record": np.arange(1, len(text) + 1), "probability": probabilities[0]})
    table["answer"] = np.where(probabilities[0] >= models[0].threshold, "yes", "no")
    deploy.write_csv(table, out / f"{path.name}.csv")
    y, known = reader.answer.of(text[reader.answer.name])
    rows = np.flatnonzero(known & is_test)
    counts = np.zeros((len(models), 2, N_BINS))
    for count, probability in zip(counts, probabilities, strict=True):
        bins = np.minimum((probability[rows] * N_BINS).astype(int), N_BINS - 1)
        np.add.at(count, (y[rows], bins), 1)
    return counts


def figures(count: np.ndarray) -> dict[str, float]:
    """Return the figures of a model, from the counts of probabilities for each answer: those of one bin count as its middle."""
    no, yes = count
    below = np.cumsum(no) - no
    middle = (np.arange(N_BINS) + 0.5) / N_BINS
    n = count.sum()
    pairs = no.sum() * yes.sum()
    return {
        "n": float(n),
        "roc_auc": float((yes * (below + no / 2)).sum() / pairs) if pairs else float("nan"),
        "log_loss": float(-(yes * np.log(middle) + no * np.log1p(-middle)).sum() / n) if n else float("nan"),
    }
