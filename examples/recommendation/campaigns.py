"""Who redeems a coupon of the next campaign, from what was known before it started: of The Complete Journey, which has coupons.

Learned from the campaigns that ended by day 210, measured on later ones; those that run past the year's end are left out, since
not all who redeem are known. Who was sent a campaign was the shop's choice: this is response, and not what a campaign changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from . import classify
from .collect import journey_lines, journey_table
from .events import Events
from .reductions import WINDOW, Reductions, beside

FIT, TEST = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 27), (13, 14, 16, 17, 18, 19)
LEARNED_BY = 210  # day
SETTINGS = classify.Settings(dropout=0.1, decay=0.3, n_epochs=40, batch_size=64)
COLUMNS = {
    "money": "money in 90 days",
    "discount": "share of discounts in it",
    "coupons": "lines bought with a coupon in 90 days",
    "redeemed": "coupons of earlier campaigns redeemed",
    "rate": "share of earlier campaigns answered",
    "own": "lines in 90 days of products of this campaign",
    "own_share": "share of money for these",
    "large": "whether it is a large campaign (type A)",
}


def table(lines: pd.DataFrame, first: pd.Timestamp, campaigns: tuple[int, ...]) -> pd.DataFrame:
    """Return ``COLUMNS``, the campaign, its first day and the answer, a row a campaign and household with 3 trips before."""
    about = journey_table("campaign_descriptions").set_index("campaign_id")
    start = (about["start_date"] - first).dt.days
    sent, coupons = journey_table("campaigns"), journey_table("coupons")
    used = journey_table("coupon_redemptions")
    used["day"] = (used["redemption_date"] - first).dt.days
    day, found = (lines["date"] - first).dt.days, []
    for campaign in campaigns:
        began = start[campaign]
        before = lines[day < began].assign(day=day[day < began])
        recent = before[before["day"] >= began - WINDOW]
        own = recent[recent["product_id"].isin(coupons.loc[coupons["campaign_id"] == campaign, "product_id"])]
        earlier, past = used[used["day"] < began], sent[sent["campaign_id"].map(start) < began]
        by = recent.groupby("household_id")
        known = pd.DataFrame(
            {
                "trips": before.groupby("household_id")["day"].nunique(),
                "money": by["sales_value"].sum(),
                "saved": by["retail_disc"].sum(),
                "coupons": (recent["coupon_disc"] > 0).groupby(recent["household_id"]).sum(),
                "redeemed": earlier.groupby("household_id").size(),
                "answered": earlier.groupby("household_id")["campaign_id"].nunique(),
                "received": past.groupby("household_id").size(),
                "own": own.groupby("household_id").size(),
                "own_money": own.groupby("household_id")["sales_value"].sum(),
            }
        )
        k = known.reindex(sent.loc[sent["campaign_id"] == campaign, "household_id"]).fillna(0)
        columns = pd.DataFrame(
            {
                **{name: np.log1p(k[name]) for name in ("money", "coupons", "redeemed", "own")},
                "discount": k["saved"] / (k["money"] + k["saved"]).clip(lower=1),
                "rate": (k["answered"] + 0.1) / (k["received"] + 1),
                "own_share": (k["own_money"] / k["money"].clip(lower=1)).clip(0, 1),
                "large": float(about.loc[campaign, "campaign_type"] == "Type A"),
                "campaign": campaign,
                "day": began,
                "yes": k.index.isin(used.loc[used["campaign_id"] == campaign, "household_id"]).astype(int),
            }
        )
        found.append(columns[k["trips"] >= 3])
    return pd.concat(found)


def section(events: Events, *, n_networks: int) -> dict[str, Any]:
    """Return what is measured, for the report."""
    lines, _ = journey_lines(["retail_disc", "coupon_disc"])
    fit, test = (table(lines, events.first, which) for which in (FIT, TEST))
    y, y_test, who = fit["yes"].to_numpy(), test["yes"].to_numpy(), test.index.to_numpy()
    reductions, tried = Reductions.fit(events, LEARNED_BY), []
    place = {name: i for i, name in enumerate(events.customers)}
    for part in (fit, test):
        reduced = [
            reductions.before(int(rows["day"].iloc[0]), np.array([place[str(name)] for name in rows.index]))
            for _, rows in part.groupby("campaign", sort=False)
        ]
        both = {name: np.concatenate([r[name] for r in reduced]) for name in reduced[0]}
        tried.append(beside(part[list(COLUMNS)].to_numpy(float), both))
    x, x_test = (part["columns"] for part in tried)
    rows = []
    for name in ("money", "own", "rate", "coupons"):
        score = test[name].to_numpy()
        rows.append([*classify.row(f"one column: {COLUMNS[name]}", y_test, score, probabilities=False, top=True), ""])
    rows.append([*classify.row("boosting", y_test, classify.boosting(x, y, x_test), top=True), ""])
    linear = classify.logistic(x, y, x_test)
    rows.append([*classify.row("logistic regression", y_test, linear, top=True), ""])
    first = None
    for name in tried[0]:
        p = classify.networks(tried[0][name], y, tried[1][name], SETTINGS, n=n_networks)
        first = p if first is None else first
        moved = "" if p is first else "{:+.4f} ± {:.4f}".format(*classify.difference(y_test, who, p, first))
        rows.append([*classify.row(f"network: {name}", y_test, p, top=True), moved])
    return {
        "title": "Who redeems a coupon of the next campaign",
        "texts": [
            f"From {len(COLUMNS)} columns of what was known before a campaign: learned from {len(FIT)} campaigns that ended by "
            f"day {LEARNED_BY} ({len(y):,} households sent one, {y.mean():.1%} redeemed), measured on {len(TEST)} later ones "
            f"({len(y_test):,}, {y_test.mean():.1%}). What was redeemed before tells nearly all of it; that a household buys the "
            "campaign's products adds little. The shop chose whom to send it to, and there is no group that was left alone: this "
            "is who responds, not whom a campaign moves.",
        ],
        "tables": [
            {
                "caption": "The top tenth: the share of those who redeem among the tenth with the highest scores.",
                "head": ["", "AUC", "log loss", "top tenth", "AUC, difference"],
                "rows": rows,
            }
        ],
    }
