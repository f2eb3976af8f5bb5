"""The flow chart: collect -> events -> candidates, pairs -> train -> evaluate -> recommend, report.

python -m examples.recommendation
python -m examples.recommendation --log FILE --customer C --date D --amount A --product P [--text T] [--catalogue FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ..user_profile.collect import CollectError, Log
from ..user_profile.columns import PreprocessError, Types
from ..user_profile.options import ROLES, add_columns, check_columns
from . import attributes, campaigns, collect, evaluate, report, train, visits
from .events import RARE, Events
from .recommend import Recommender, write_everyone

CUTOFFS = (91, 61, 31)  # days before the end, each a test of its own
SEEDS = (0, 1)
N_EXAMPLES = 3
FEWEST_ITEMS = 2 * evaluate.TOP


def main(arguments: list[str] | None = None) -> int:
    """Run the example; return the exit status."""
    options, types = _parse(arguments)
    started = time.perf_counter()
    if options.out.exists() and not options.out.is_dir():
        print(f"error: --out {options.out} is a file; name a folder", file=sys.stderr)
        return 2
    try:
        # Threads do not pay for matrices of this size, and waiting for each other they suffer on a busy machine.
        with threadpool_limits(1):
            _run(options, types)
    except (CollectError, PreprocessError, train.TooLittle, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing more is written", file=sys.stderr)
        return 130
    print(f"report: {options.out / 'report.html'} ({time.perf_counter() - started:.0f} seconds in all)")
    return 0


def _run(options: argparse.Namespace, types: Types) -> None:
    if options.log:
        columns = Log(date=next(iter(types.orders())), **{name: getattr(options, name) for name in ROLES})
        purchases = collect.of_log(
            options.log, columns, types, options.text, options.catalogue, encoding=options.encoding
        )
    else:
        purchases = collect.journey()
    print(f"{purchases.name}: {purchases.about}")
    for line in purchases.notes:
        print(f"  {line}")
    if not len(purchases.frame):
        raise PreprocessError("no purchase is left: all lines are returns, or without a product")
    log = Events.of(purchases.frame)
    try:
        events = log.common(options.rare)
    except ValueError as error:
        raise PreprocessError(f"{error}; see --rare") from error
    if len(events.items) < FEWEST_ITEMS:
        raise PreprocessError(
            f"{len(events.items)} items were bought on {options.rare} days of customers or more; to rank them takes "
            f"{FEWEST_ITEMS}: see --rare"
        )
    days = _days(events, 1 if options.fast else len(CUTOFFS))
    about = _about(purchases, log, events)
    print(
        "  {n_purchases:,} purchases of {n_items:,} items by {n_people:,} customers in {n_all_days} days".format(
            **about
        )
    )
    if about["n_rare"]:
        print(
            f"  {about['n_rare']:,} more items were bought on fewer than {options.rare} days of customers, and are left out"
        )
    seeds, n_networks = ((0,), 1) if options.fast else (SEEDS, train.N_NETWORKS)
    found = evaluate.measure(log, days, seeds, rare=options.rare, n_networks=n_networks)
    _print_measured(found)
    about |= report.measured(found) | {"picture": report.picture(found), "fast": options.fast, "n_networks": n_networks}
    about["cold"] = (
        report.cold(evaluate.hidden(log, purchases.texts, days[-1], rare=options.rare)) if purchases.texts else []
    )
    _print_table("items of which the texts alone are known", ["ranked by", "NDCG@10"], about["cold"])
    about["more"] = [visits.section(events, purchases.frame, n_networks=n_networks)]
    if not options.log:
        about["more"] += [part.section(events, n_networks=n_networks) for part in (campaigns, attributes)]
    for section in about["more"]:
        if not section["tables"]:
            print(f"\n{section['title']}: {' '.join(section['texts'])}")
        for table in section["tables"]:
            _print_table(f"{section['title']}. {table['caption']}", table["head"], table["rows"])
    shop = Recommender.fit(log, texts=purchases.texts, rare=options.rare, n_networks=n_networks)
    options.out.mkdir(parents=True, exist_ok=True)
    shop.save(options.out / f"{purchases.name}.recommender.npz")
    write_everyone(shop, options.out / f"{purchases.name}.recommendations.csv")
    about["examples"] = [] if options.log else _examples(shop)  # the page shows none of a user's own customers
    report.write(options.out, about)
    print(f"\nmodel, and {report.K} new items for every customer: {options.out / purchases.name}.*")


def _days(events: Events, n: int) -> list[int]:
    """Return the days at which the future is known, and enough of the past to teach by."""
    enough = max(train.EARLIER) + train.AHEAD
    days = [events.end - before for before in CUTOFFS[-n:] if events.end - before >= enough]
    if not days:
        raise PreprocessError(f"{events.end} days are too short: {enough + CUTOFFS[-1]} are needed")
    return days


def _about(purchases: collect.Purchases, log: Events, events: Events) -> dict[str, Any]:
    rare = len(log.items) - len(events.items)
    return {
        "name": purchases.name,
        "about": purchases.about,
        "notes": [*purchases.notes, *([f"{rare:,} items that were bought too rarely are left out"] if rare else [])],
        "n_purchases": len(events),
        "n_items": len(events.items),
        "n_rare": rare,
        "n_people": len(events.customers),
        "n_all_days": events.end,
    }


def _print_measured(found: evaluate.Measured) -> None:
    n, metrics = len(found.days), evaluate.METRICS
    for task, what in train.TASKS.items():
        rival = found.rival(task)
        for suffix in ("", evaluate.ONE_TRIP):
            rows = [
                [
                    name,
                    *(f"{found.mean(task + suffix, name, m):.4f}" for m in metrics),
                    f"{found.coverage(task + suffix, name):.0f}",
                ]
                for name in found.methods(task + suffix)
            ]
            head = ["", *metrics.values(), "items in tops"]
            _print_table(f"{task}{suffix}: {what}; {n} cut-off{'s' * (n > 1)}", head, rows)
            if suffix:
                continue
            for name in ("", *evaluate.ACTIVITY):
                mean, error = found.gain(task, rival, name)
                if mean != mean:
                    continue
                print(f"  NDCG@10 of the network minus that of {rival}, {name or 'all'}: {mean:+.4f} ± {error:.4f}")
            if n > 2:
                last = [found.mean(task, evaluate.NETWORK, m, last=2) for m in ("ndcg", "f1")]
                mean, error = found.gain(task, rival, last=2)
                tops = found.coverage(task, evaluate.NETWORK, last=2)
                print(
                    f"  the last two cut-offs: NDCG@10 {last[0]:.4f}, F1@10 {last[1]:.4f}, {tops:.0f} items in tops",
                    end=", ",
                )
                print(f"and {mean:+.4f} ± {error:.4f}")


def _print_table(caption: str, head: list[str], rows: list[Any]) -> None:
    if not rows:
        return
    cells = [head, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    print(f"\n{caption}")
    for row in cells:
        print(
            "  "
            + "  ".join(f"{c:{w}}" if k == 0 else f"{c:>{w}}" for k, (c, w) in enumerate(zip(row, widths, strict=True)))
        )


def _examples(shop: Recommender) -> list[dict[str, Any]]:
    """Return what speaks for the first new items of one customer: who made the middle number of trips."""
    n_trips = shop.log.n_trips()
    customer = shop.log.customers[np.argsort(n_trips, kind="stable")[len(n_trips) // 2]]
    found = []
    for item in shop.recommend([customer], N_EXAMPLES)[0]:
        why = shop.why(item.name, customer=customer)
        shares = [(f"they bought {name}", share) for name, share in why.purchases.items()]
        shares += [("how popular it is", why.popularity), ("how often they come", why.trips)]
        shares = sorted(shares, key=lambda pair: -abs(pair[1]))
        others = why.itself + sum(share for _, share in shares[5:])
        largest = max(abs(share) for _, share in shares)
        n_others = len(why.purchases) - sum(what.startswith("they bought") for what, _ in shares[:5])
        about = {"shares": shares[:5], "others": others, "n_others": n_others, "largest": largest}
        found.append(item._asdict() | about)
    return found


def _parse(arguments: list[str] | None) -> tuple[argparse.Namespace, Types]:
    parser = argparse.ArgumentParser(
        prog="python -m examples.recommendation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="orders of your own, a line an article")
    log = parser.add_argument_group("columns of your log")
    add_columns(log)
    log.add_argument(
        "--date", metavar="COLUMN", action="append", default=[], help="of dates; COLUMN=dmy, =mdy and =ymd too"
    )
    log.add_argument("--text", metavar="COLUMN", action="append", default=[], help="says something of the product")
    log.add_argument(
        "--catalogue", type=Path, metavar="FILE", help="products, bought or not, with --product and --text"
    )
    log.add_argument("--missing", metavar="WORD", action="append", default=[], help="a value that means: not known")
    log.add_argument("--decimal", choices=(".", ","), default="", help="the decimal mark, where numbers do not show it")
    log.add_argument("--encoding", metavar="NAME", help="of the files, where it is not recognised")
    parser.add_argument(
        "--rare", type=int, metavar="N", default=RARE, help=f"leave out items bought on fewer customers' days ({RARE})"
    )
    parser.add_argument("--fast", action="store_true", help="one cut-off, one network: to see that it runs")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("out/recommendation"))
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name) for name in ROLES}
    types = Types(date=options.date, missing=options.missing, decimal=options.decimal)
    if options.log is None:
        if any([*given.values(), *options.date, *options.text, options.catalogue]):
            parser.error("columns and --catalogue are of a log, which --log names")
    else:
        check_columns(parser, types.orders(), given)
        if not given["product"]:
            parser.error("--log needs --product COLUMN: what is to be recommended")
        if options.catalogue and not options.text:
            parser.error("--catalogue is for texts: name their columns by --text")
    if options.rare < 1:
        parser.error("--rare must be at least 1")
    return options, types


if __name__ == "__main__":
    sys.exit(main())
