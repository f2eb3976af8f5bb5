"""The options that say which columns of a log of orders are which, for each command that reads one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

ROLES = {
    "customer": "who ordered",
    "amount": "what the line cost; less than 0 is a return",
    "price": "of one piece, in place of --amount: times --quantity",
    "quantity": "how many pieces",
    "product": "which article",
}


def add_columns(group: argparse._ArgumentGroup) -> None:
    """Add the options; --date has its place elsewhere, since it may say an order too."""
    for name, meaning in ROLES.items():
        group.add_argument(f"--{name}", metavar="COLUMN", default="", help=meaning)


def check_columns(parser: argparse.ArgumentParser, dates: Mapping[str, str], given: Mapping[str, str]) -> None:
    """End the command with a message unless there is a customer, one date, and an amount or a price, each a column."""
    if len(dates) != 1 or not given["customer"]:
        parser.error("--log needs --customer COLUMN, --date COLUMN (or COLUMN=dmy), and --amount COLUMN")
    if bool(given["amount"]) == bool(given["price"]) or (given["price"] and not given["quantity"]):
        parser.error("--log needs --amount COLUMN, what a line cost; or --price COLUMN and --quantity COLUMN")
    roles = [*dates, *filter(None, (given[name] for name in ROLES))]
    if len(set(roles)) < len(roles):
        parser.error(f"one column cannot be two things: {', '.join(sorted({r for r in roles if roles.count(r) > 1}))}")
