"""Step 6, deploy: two plain files, the network and the encoding, that score a record in a fresh process, without pickle.

python -m examples.user_profile.deploy FOLDER --record '{"age": 39, "workclass": "State-gov", ...}'
python -m examples.user_profile.deploy FOLDER --csv new.csv --out scored.csv [--id COLUMN]
python -m examples.user_profile.deploy FOLDER --check
python -m examples.user_profile.deploy FOLDER --onnx model.onnx
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nnprofile as nn

from . import reading
from .columns import common_mark
from .features import MISSING_TEXT, Encoder
from .preprocess import Table
from .profiles import N_REASONS, bands
from .reasons import reasons
from .train import LOSS, Model
from .values import Column, as_date

NETWORK, PROFILE = "network.safetensors", "profile.json"
N_SAMPLES = 100
TOLERANCE = 1e-6  # of a probability, in float32


class RecordError(ValueError):
    """A record to score does not have the fields it should; the message names them."""


@dataclass(frozen=True)
class Profiler:
    """The deployed model: scores records given as mappings, their fields checked by name, and files as training read them.

    A field is a column of the file that the model was trained on; of a purchase log, a column that was made from it.
    """

    model: Model
    positive: str
    samples: list[dict[str, Any]]  # made-up records and their scores
    columns: tuple[Column, ...]

    @cached_property
    def frozen(self) -> nn.FrozenNetwork:
        """The network, ready to score single rows."""
        return nn.freeze(self.model.net, LOSS)

    def score(self, records: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """Return the probability of yes for each record.

        Raises
        ------
        RecordError
            If a field is unknown, missing, or of the wrong type. A value that is not known is None (in JSON: null).
        """
        return self.model.predict_proba(self.frame(records))

    def score_one(self, record: Mapping[str, Any]) -> float:
        """Return the probability of yes for one record, without a table: the same number, sooner.

        Raises
        ------
        RecordError
            As ``score``.
        """
        return float(self.frozen(self.model.encoder.row(self._values(0, record))[None])[0, 0])

    def profile(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is said of one person: probability, answer, band, and the columns that moved the log-odds most."""
        frame = self.frame([record])
        probability = self.model.predict_proba(frame)
        shares, _, _ = reasons(self.model, frame)
        strongest = shares.iloc[0].sort_values(key=np.abs, ascending=False)[:N_REASONS]
        return {
            "probability": float(probability[0]),
            "threshold": self.model.threshold,
            "answer": bool(probability[0] >= self.model.threshold),
            "of": self.positive,
            "band": str(bands(self.model, probability)[0]),
            "reasons": {str(name): round(float(share), 4) for name, share in strongest.items()},
        }

    def frame(self, records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        """Return the records as a typed table.

        Raises
        ------
        RecordError
            As ``score``.
        """
        rows = [self._values(i, record) for i, record in enumerate(records)]
        kinds = {name: kind for column in self.columns for name, kind in column.features().items()}
        frame = pd.DataFrame(rows, columns=list(kinds), dtype=object)
        return frame.astype({name: float for name, kind in kinds.items() if kind != "category"})

    def table(self, file: reading.File, named: Sequence[str] = ()) -> tuple[pd.DataFrame, list[str]]:
        """Return the records of a file as a typed table, and what is worth saying: columns not used, values not read.

        Columns that are ``named`` are used in another way.

        Raises
        ------
        RecordError
            If columns are missing, or values cannot be read; it names them.
        """
        missing = [column.name for column in self.columns if column.name not in file.names]
        if missing:
            raise RecordError(f"the file has no columns {missing}, which the model needs; it has {file.names}")
        text = pd.DataFrame(file.records, columns=file.names, dtype=object).apply(lambda column: column.str.strip())
        counts = {column.name: text[column.name].value_counts().to_dict() for column in self.columns}
        decimal = common_mark(counts) if file.delimiter else "."  # typed cells have a point
        columns, parts, said = [], {}, []
        for column in self.columns:
            try:
                own, note = column.for_file(counts[column.name], decimal)
            except ValueError as error:
                raise RecordError(f"{column.name}: {error}") from None
            columns.append(own)
            said += [f"{column.name}: {note}"] if note else []
        aged = [column for column in columns if column.has_age()]
        moved = max((column.latest(counts[column.name]) - column.as_of for column in aged), default=0.0)
        if moved > 0:
            day = as_date(aged[0].as_of + moved)
            said.append(f"dates are counted to {day}, the latest of this file ({as_date(aged[0].as_of)} in training)")
        for column in columns:
            later = replace(column, moved=max(moved, 0.0)) if column.has_age() else column
            parts |= later.read(text[column.name])
        said += self._as_known(parts)
        used = {column.name for column in self.columns}
        extra = [name for name in file.names if name not in used | set(named)]
        return pd.DataFrame(parts), [*said, *([f"not used: {', '.join(extra)}"] if extra else [])]

    def _as_known(self, parts: dict[str, pd.Series]) -> list[str]:
        """Say which categories were not seen in training; where most differ in case only, write them as then."""
        said = []
        for column in self.model.encoder.columns:
            name, known = column["name"], set(column.get("categories", [])) - {MISSING_TEXT}
            if column["kind"] != "category" or not known:
                continue
            folded = {text.casefold(): text for text in known}
            unseen, n = ~parts[name].dropna().isin(known), parts[name].notna().sum()
            if len(folded) == len(known) and unseen.sum() > 0.5 * n:
                as_then = parts[name].str.casefold().map(folded)
                if as_then.notna().any():
                    said.append(f"{name}: written in another case than in training, and taken as then")
                    parts[name] = as_then.fillna(parts[name])
                    unseen = ~parts[name].dropna().isin(known)
            if unseen.sum() > 0.1 * n:
                first = parts[name].dropna()[unseen].iloc[0]
                said.append(
                    f"{name}: {unseen.sum()} of {n} values, such as {first!r}, were rare in training or not seen"
                )
        return said

    def _values(self, i: int, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the typed values of one record."""
        if not isinstance(record, Mapping):
            raise RecordError(f"record {i} must be an object of names and values, got {type(record).__name__}")
        names = self._names
        if record.keys() != names:
            missing, unknown = sorted(names - record.keys()), sorted(map(str, record.keys() - names))
            raise RecordError(f"record {i}: missing fields {missing}, unknown fields {unknown}")
        found: dict[str, Any] = {}
        for column in self.columns:
            try:
                found.update(zip(self._features[column.name], column.of(record[column.name]), strict=True))
            except ValueError as error:
                raise RecordError(f"record {i}: {column.name} {error}") from None
        return found

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns)

    @cached_property
    def _features(self) -> dict[str, tuple[str, ...]]:
        return {column.name: tuple(column.features()) for column in self.columns}


def save(folder: Path, model: Model, table: Table) -> None:
    """Write network and profile into ``folder``, with made-up records and their scores for ``check``: no customer's record."""
    folder.mkdir(parents=True, exist_ok=True)
    model = replace(model, nets=(model.net,))
    nn.save(model.net, folder / NETWORK, loss=LOSS)
    gone = unused(model, table)
    columns = table.columns or tuple(Column(name, kind) for name, kind in table.kinds.items())
    columns = tuple(column for column in columns if column.name not in gone)
    records = made_up_records(model.encoder, columns, N_SAMPLES)
    scores = Profiler(model, table.positive, [], columns).score(records).tolist()
    profile = {
        "network_sha256": _sha256(folder / NETWORK),
        "about": table.about,
        "positive": table.positive,
        "threshold": model.threshold,
        "bands": model.bands,
        "mean_shares": model.mean_shares,
        "encoding": model.encoding,
        "encoder": model.encoder.to_json(),
        "columns": [column.to_json() for column in columns],
        "identifiers": list(table.identifiers),
        "samples": [{"record": r, "score": s} for r, s in zip(records, scores, strict=True)],
    }
    scratch = folder / f"{PROFILE}.tmp"
    scratch.write_text(json.dumps(profile, allow_nan=False, ensure_ascii=False), encoding="utf-8")
    os.replace(scratch, folder / PROFILE)


def unused(model: Model, table: Table) -> list[str]:
    """Return the columns of the table that the model does without, since they tell nothing."""
    known = {column["name"] for column in model.encoder.columns}
    every = {column.name: set(column.features()) for column in table.columns} or {name: {name} for name in table.kinds}
    return [name for name, features in every.items() if not features & known]


def made_up_records(encoder: Encoder, columns: Sequence[Column], n: int) -> list[dict[str, Any]]:
    """Draw records from what the encoder knows, column by column: known categories, middles of bins; some are missing."""
    rng = np.random.default_rng(0)
    known = {column["name"]: column for column in encoder.columns}
    return [{column.name: _made_up(column, known, i, rng) for column in columns} for i in range(n)]


def _made_up(column: Column, known: Mapping[str, dict[str, Any]], i: int, rng: np.random.Generator) -> Any:
    """Return a value of a column: of a date, one whose age is the middle of a bin."""
    of = known[next(iter(column.features()))]
    categories = [c for c in of.get("categories", []) if c != MISSING_TEXT]
    edges = of.get("edges", [])
    if i % 10 == 9 and rng.random() < 0.5:
        return None
    if of["kind"] == "category":
        return str(rng.choice(categories)) if categories else None
    if of["kind"] == "code" and categories:
        return float(rng.choice(categories))
    k = rng.integers(max(len(edges) - 1, 1))
    value = round((edges[k] + edges[k + 1]) / 2, 2) if edges else of["median"]
    return column.written(value) if column.kind == "date" else value


def load(folder: Path) -> Profiler:
    """Read what ``save`` wrote.

    Raises
    ------
    ValueError
        If the two files do not belong together, or one is not what ``save`` wrote.
    """
    profile = json.loads((folder / PROFILE).read_text(encoding="utf-8"))
    if profile["network_sha256"] != _sha256(folder / NETWORK):
        raise ValueError(f"{folder}: {PROFILE} was written for another {NETWORK}")
    encoder = Encoder(**profile["encoder"])
    net, bands = nn.load(folder / NETWORK).net, tuple(profile["bands"])
    if "columns" not in profile:
        raise ValueError(f"{folder} was written by an earlier version: train it anew")
    shares = tuple(profile["mean_shares"])
    model = Model(encoder, (net,), nn.History(), profile["encoding"], profile["threshold"], bands, shares)
    columns = tuple(Column.from_json(state) for state in profile["columns"])
    return Profiler(model, profile["positive"], profile["samples"], columns)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(folder: Path) -> float:
    """Return the largest difference between the stored scores and those of the files, loaded anew."""
    profiler = load(folder)
    scores = profiler.score([sample["record"] for sample in profiler.samples])
    return float(np.abs(scores - [sample["score"] for sample in profiler.samples]).max())


def check_in_fresh_process(folder: Path) -> str:
    """Run ``check`` as its own process and return what it prints."""
    command = [sys.executable, "-m", "examples.user_profile.deploy", str(folder), "--check"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def score_file(folder: Path, path: Path, out: Path, *, identifier: str = "", encoding: str | None = None) -> list[str]:
    """Score every record of a file, and write record, identifiers, probability, answer and band; return what is worth saying.

    Raises
    ------
    CollectError, RecordError
        If the file cannot be read as a table, or has not the columns of the model. Nothing is written then.
    """
    profiler = load(folder)
    file = reading.read(path, encoding, every_record=True)
    identifiers = json.loads((folder / PROFILE).read_text(encoding="utf-8")).get("identifiers", [])
    if identifier and identifier not in file.names:
        raise RecordError(f"--id: the file has no column {identifier!r}; it has {file.names}")
    named = [identifier] if identifier else [name for name in identifiers if name in file.names]
    frame, said = profiler.table(file, named)
    proba = profiler.model.predict_proba(frame)
    scored = pd.DataFrame({free(name): [record[file.names.index(name)] for record in file.records] for name in named})
    scored.insert(0, "record", np.arange(1, len(proba) + 1))
    scored["probability"], scored["answer"] = proba, np.where(proba >= profiler.model.threshold, "yes", "no")
    scored["band"] = bands(profiler.model, proba)
    write_csv(scored, out)
    return [f"{out}: {len(proba)} records scored, of {profiler.positive!r}", *file.notes, *said]


def free(name: str) -> str:
    """Return the name of an identifier beside the columns of scores, which it may have."""
    return f"{name} (file)" if name in ("record", "customer", "probability", "answer", "band", "action") else name


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table so that spreadsheets read it right: UTF-8 with its mark, and no text that they would run as a formula."""

    def harmless(value: object) -> object:
        return (
            f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t") and not _is_number(value) else value
        )

    scratch = path.with_name(f"{path.name}.tmp")
    table = table.assign(**{name: table[name].map(harmless) for name in table if table[name].dtype.kind not in "iufb"})
    table.to_csv(scratch, index=False, float_format="%.6g", encoding="utf-8-sig")
    os.replace(scratch, path)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Score a record, or check the files."""
    parser = argparse.ArgumentParser(prog="python -m examples.user_profile.deploy", description="Score a user record.")
    parser.add_argument("folder", type=Path, help="where the model was saved: OUT/NAME/model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--record", metavar="JSON", help="one record, as a JSON object; - reads it from standard input")
    what.add_argument(
        "--csv", type=Path, metavar="FILE", help="score every record of a file with the columns of training"
    )
    what.add_argument("--check", action="store_true", help="score the stored samples and compare")
    what.add_argument("--onnx", type=Path, metavar="FILE", help="write encoding and network as one ONNX file")
    what.add_argument("--example", action="store_true", help="print a made-up record to start from")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where --csv writes the scores")
    parser.add_argument(
        "--id",
        default="",
        metavar="COLUMN",
        help="to write beside each score; by default that of training",
    )
    parser.add_argument("--encoding", metavar="NAME", help="of the file, where it is not recognised")
    options = parser.parse_args(arguments)
    if (options.csv is None) != (options.out is None):
        parser.error("--csv and --out go together")
    try:
        if options.csv:
            for line in score_file(
                options.folder, options.csv, options.out, identifier=options.id, encoding=options.encoding
            ):
                print(line)
            return 0
        if options.check:
            error = check(options.folder)
            print(f"the largest difference to the stored scores is {error:.1e}")
            return 0 if error < TOLERANCE else 1
        profiler = load(options.folder)
        if options.example:
            print(json.dumps(profiler.samples[0]["record"]))
            return 0
        if options.onnx:
            from . import export

            scratch = options.onnx.with_name(f"{options.onnx.name}.tmp")
            export.to_onnx(profiler.model, scratch)
            error = export.difference(scratch, profiler)
            if error >= TOLERANCE:
                scratch.unlink()
                print(f"error: not written: it would differ by {error:.1e} on the stored samples", file=sys.stderr)
                return 1
            os.replace(scratch, options.onnx)
            print(f"{options.onnx}: its largest difference on the stored samples is {error:.1e}")
            return 0
        record = json.loads(sys.stdin.read() if options.record == "-" else options.record)
        answer = profiler.profile(record)
    except (
        ImportError,
        ValueError,
        OSError,
        reading.CollectError,
        KeyError,
        TypeError,
        IndexError,
        OverflowError,
        RecursionError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(answer, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
