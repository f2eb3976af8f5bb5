"""Step 6, deploy: two plain files, the network and the encoding, that score a record in a fresh process, without pickle.

python -m examples.user_profile.deploy FOLDER --record '{"age": 39, "workclass": "State-gov", ...}'
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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nnprofile as nn

from .features import MISSING_TEXT, Encoder
from .preprocess import LARGEST, MISSING, Table
from .profiles import N_REASONS, bands
from .reasons import reasons
from .train import LOSS, Model

NETWORK, PROFILE = "network.safetensors", "profile.json"
N_SAMPLES = 100
TOLERANCE = 1e-6  # of a probability, in float32


class RecordError(ValueError):
    """A record to score does not have the fields it should; the message names them."""


@dataclass(frozen=True)
class Profiler:
    """The deployed model: scores records given as mappings, their fields checked by name."""

    model: Model
    positive: str
    samples: list[dict[str, Any]]  # made-up records and their scores

    def score(self, records: list[Mapping[str, Any]]) -> np.ndarray:
        """Return the probability of yes for each record.

        Raises
        ------
        RecordError
            If a field is unknown, missing, or of the wrong type. A value that is not known is None (in JSON: null).
        """
        return self.model.predict_proba(self.frame(records))

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

    def frame(self, records: list[Mapping[str, Any]]) -> pd.DataFrame:
        """Return the records as a typed table.

        Raises
        ------
        RecordError
            As ``score``.
        """
        records = list(records)
        columns = {column["name"]: column["kind"] for column in self.model.encoder.columns}
        records = [_as_read(record) for record in records]
        for i, record in enumerate(records):
            _check_record(i, record, columns)
        frame = pd.DataFrame(records, columns=list(columns), dtype=object)
        for name, kind in columns.items():
            if kind != "category":
                frame[name] = frame[name].astype(float)
        return frame


def save(folder: Path, model: Model, table: Table) -> None:
    """Write network and profile into ``folder``, with made-up records and their scores for ``check``: nobody's own record."""
    folder.mkdir(parents=True, exist_ok=True)
    nn.save(model.net, folder / NETWORK, loss=LOSS)
    records = made_up_records(model.encoder, N_SAMPLES)
    scores = Profiler(model, table.positive, []).score(records).tolist()
    profile = {
        "network_sha256": _sha256(folder / NETWORK),
        "about": table.about,
        "positive": table.positive,
        "threshold": model.threshold,
        "bands": model.bands,
        "encoding": model.encoding,
        "encoder": model.encoder.to_json(),
        "samples": [{"record": r, "score": s} for r, s in zip(records, scores, strict=True)],
    }
    scratch = folder / f"{PROFILE}.tmp"
    scratch.write_text(json.dumps(profile, allow_nan=False), encoding="utf-8")
    os.replace(scratch, folder / PROFILE)


def made_up_records(encoder: Encoder, n: int) -> list[dict[str, Any]]:
    """Draw records from what the encoder knows, column by column: known categories, middles of bins; some are missing."""
    rng = np.random.default_rng(0)
    records: list[dict[str, Any]] = []
    for i in range(n):
        record: dict[str, Any] = {}
        for column in encoder.columns:
            known = [c for c in column.get("categories", []) if c != MISSING_TEXT]
            edges = column.get("edges", [])
            if i % 10 == 9 and rng.random() < 0.5:
                value = None
            elif column["kind"] == "category":
                value = str(rng.choice(known)) if known else None
            elif column["kind"] == "code" and known:
                value = float(rng.choice(known))
            else:
                k = rng.integers(max(len(edges) - 1, 1))
                value = round((edges[k] + edges[k + 1]) / 2, 2) if edges else column["median"]
            record[column["name"]] = value
        records.append(record)
    return records


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
    model = Model(encoder, net, nn.History(), profile["encoding"], profile["threshold"], bands)
    return Profiler(model, profile["positive"], profile["samples"])


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


def _as_read(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record as training would have read it: text without white space around it, words for missing as None."""
    if not isinstance(record, Mapping):
        return record
    text = {name: value.strip() for name, value in record.items() if isinstance(value, str)}
    return {**record, **{name: None if value.lower() in MISSING else value for name, value in text.items()}}


def _check_record(i: int, record: object, columns: Mapping[str, str]) -> None:
    if not isinstance(record, Mapping):
        raise RecordError(f"record {i} must be an object of names and values, got {type(record).__name__}")
    missing, unknown = columns.keys() - record.keys(), record.keys() - columns.keys()
    if missing or unknown:
        raise RecordError(f"record {i}: missing fields {sorted(missing)}, unknown fields {sorted(map(str, unknown))}")
    for name, kind in columns.items():
        value = record[name]
        if value is None:
            continue
        if kind == "category" and not isinstance(value, str):
            raise RecordError(f"record {i}: {name} must be text or null, got {value!r}")
        number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
        number = number and abs(value) < LARGEST
        if kind != "category" and not number:
            raise RecordError(f"record {i}: {name} must be a number or null, got {value!r}")
        if kind == "code" and value != int(value):
            raise RecordError(f"record {i}: {name} must be a whole number or null, got {value!r}")


def main(arguments: list[str] | None = None) -> int:
    """Score a record, or check the files."""
    parser = argparse.ArgumentParser(prog="python -m examples.user_profile.deploy", description="Score a user record.")
    parser.add_argument("folder", type=Path, help="where the model was saved: OUT/NAME/model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--record", metavar="JSON", help="one record, as a JSON object; - reads it from standard input")
    what.add_argument("--check", action="store_true", help="score the stored samples and compare")
    what.add_argument("--onnx", type=Path, metavar="FILE", help="write encoding and network as one ONNX file")
    what.add_argument("--example", action="store_true", help="print a made-up record to start from")
    options = parser.parse_args(arguments)
    try:
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
    except (ImportError, ValueError, OSError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(answer, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
