"""The flow chart: collect -> preprocess -> features -> train -> evaluate -> deploy, for each data set.

Then what the scores say of people, and, for a purchase log, the months and the live model.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from . import (
    collect,
    deploy,
    doubts,
    evaluate,
    live,
    orders,
    preprocess,
    private,
    profiles,
    reasons,
    report,
    scale,
    spend,
    splits,
    targeting,
    train,
    update,
)
from .options import ROLES, add_columns, check_columns

FAST_ROWS = 4000
N_ANSWERS = 200
LOST = 180  # days without a purchase: a customer who is away for longer cannot be warned of
KINDS = (("number", "numbers"), ("category", "categories"), ("code", "whole numbers that may be names"))


def main(arguments: list[str] | None = None) -> int:
    """Run the example; return the exit status."""
    options = _parse(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        if options.files is not None:
            return _files(options)
        found, sections = {}, []
        for raw in _collect(options):
            started = time.perf_counter()
            table, shop = _log(raw, options.types) if raw.log else (_preprocess(raw, options.types), None)
            _describe(table)
            if options.private is not None:
                codebook = private.read_codebook(options.codebook) if options.codebook else private.ADULT
                try:
                    with threadpool_limits(1):
                        out = options.out / table.name / "private"
                        private.run(table, codebook, options.private, out, fast=options.fast)
                except ValueError as error:  # an epsilon that no noise is enough for
                    raise collect.CollectError(str(error)) from error
                continue
            if options.fast:
                table = _some_rows(table)
            # Threads do not pay for matrices of this size, and waiting for each other they suffer on a busy machine.
            with threadpool_limits(1):
                section = _one(raw, table, shop, options)
            found[table.name] = section["found"]
            sections.append(section)
            print(f"({time.perf_counter() - started:.0f} seconds)", flush=True)
        if options.private is not None:
            return 0
        evaluate.write_metrics(options.out / "metrics.json", found)
        report.write_report(options.out / "report.html", sections)
    except (collect.CollectError, preprocess.PreprocessError, live.LiveError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write to {options.out}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    lives = [section["name"] for section in sections if section["live"]]
    print(f"\nmetrics   {options.out / 'metrics.json'}\nreport    {options.out / 'report.html'}")
    for name in found:
        folder = options.out / name
        print(f"profiles  {folder / 'profiles.csv'}")
        if (folder / "now.csv").exists():
            print(f"now       {folder / 'now.csv'}   (what to expect of each customer from the log's last day on)")
        print(f"model     {folder / 'model'}   (python -m examples.user_profile.deploy that-folder --example)")
        if name in lives:
            print(f"live      {folder / 'live'}   (python -m examples.user_profile.live that-folder --status)")
    return 0


def _files(options: argparse.Namespace) -> int:
    """Do what can be done file by file."""
    out = options.out / options.files.name
    try:
        with threadpool_limits(1):
            scale.run(
                options.files,
                options.target,
                options.positive,
                out,
                types=options.types,
                encoding=options.encoding,
                map_name=options.map,
                n_replicas=options.replicas,
                n_epochs=3 if options.fast else 20,
            )
    except ValueError as error:  # files that are not alike, or the state of another run
        raise collect.CollectError(str(error)) from error
    return 0


@dataclasses.dataclass(frozen=True)
class Shop:
    """A log of orders, how its lines are read, and what is asked of it."""

    log: pd.DataFrame
    reader: orders.Reader
    question: orders.Question


def _one(raw: collect.Raw, table: preprocess.Table, shop: Shop | None, options: argparse.Namespace) -> dict[str, Any]:
    """Do everything for one data set, and return its section of the report."""
    folder = options.out / table.name
    table, plan, doubtful = _plan(table, options)
    parts = plan.splits[: 2 if options.fast else None]
    models, results, profiled = _measure(table, parts, options, is_log=raw.log is not None)
    found = evaluate.values(results)
    print(f"\n{evaluate.text_table(table.name, found)}")

    model, test = models[0], parts[0][2]
    people = profiled[0]
    best = max(float(np.mean(scores["roc_auc"])) for scores in found.values())
    more = doubts.of_scores(best, table, list(people.importance.index))
    for line in more:
        print(f"warning: {line}")
    doubtful += more
    print(f"profiles of the {len(test)} people of the first test set; the shares add up to {people.completeness:.0e}")
    print(f"what moves scores most: {', '.join(people.importance.index[:3])}")
    actions = [] if raw.to_teach or len(test) < profiles.K else _actions(raw, table, parts[0], results[0], options)
    for action in actions:
        print(f"{action['title']}: {_in_words(action['outcomes']['network'])}")
    if actions:
        for one, (_, _, rows) in zip(profiled, parts, strict=True):
            one.people["action"] = _one_action_each(
                _aims(raw, table, table.frame.iloc[rows], options), one.people, options
            )
    everyone = pd.concat([one.people for one in profiled])  # each by a model that has not seen them
    _write_profiles(folder / "profiles.csv", table, everyone.sort_index(kind="stable"))
    with ThreadPoolExecutor(1) as pool:
        spending = (
            pool.submit(threadpool_limits.wrap(limits=1)(_spend), table, shop, parts[0], model, options)
            if shop
            else None
        )
        section = _section(raw, table, shop, parts, model, results, people, actions, options)
        section["spend"] = spending.result() if spending else None
    if shop:
        section["spend"]["picture"] = report.picture_of_action(*section["spend"].pop("of_picture"), _business(options))
        print(section["spend"]["said"])
        doubtful += filter(None, [section["spend"]["doubt"]])
        now = _now(shop, model, section["spend"].pop("model"))
        if actions:
            frame, _ = orders.customers(shop.log, shop.log["date"].max())
            now = _with_actions(now, _aims(raw, table, frame, options), options)
        deploy.write_csv(now.reset_index(), folder / "now.csv")
    curve = evaluate.learning_curve(table, parts[0], model, 15 if options.fast else 100)
    section |= {"curve": curve} | {
        "doubts": doubtful,
        "plan": plan.notes,
        "in_time": plan.in_time,
        "sample": options.fast,
    }
    print(f"saved, loaded in a fresh process: {deploy.check_in_fresh_process(folder / 'model')}")
    if shop and shop.question.launch:
        months, lived = _in_time(table, shop, folder / "live", options)
        print(f"\n{update.text_table(months)}")
        for line in _passed(months, table):
            print(f"warning: {line}")
            doubtful.append(line)
        print(lived["said"])
        section |= {"months": _months(months, shop.log), "live": lived}
        section["pictures"] |= {"months": report.picture_of_months(months), "drift": report.picture_of_drift(months)}
    report.write_card(folder / "model" / "model_card.md", section)  # with all doubts
    return section


def _spend(
    table: preprocess.Table, shop: Shop, split: splits.Split, model: train.Model, options: argparse.Namespace
) -> dict[str, Any]:
    """Return how well it is known what each customer of the test set spends, and what acting on that would have brought."""
    (fit, validate, test), days = split, shop.question.horizon.days
    amount = spend.spent(shop.log, table.frame.index, shop.question.cutoff, shop.question.horizon)
    n_epochs = 15 if options.fast else 100
    found = spend.train(table, amount, fit, validate, model, n_networks=options.networks, n_epochs=n_epochs)
    expected = {"network": found.expected(table.frame.iloc[test]), **spend.others(table, amount, fit, test, days)}
    measured = {name: spend.measure(amount[test], values) for name, values in expected.items()}
    low, high = found.interval(expected["network"])
    inside = float(((amount[test] >= low) & (amount[test] <= high)).mean())
    business, worth = _business(options), options.margin / options.value
    acted = {name: worth * values for name, values in expected.items()}
    outcomes = {name: targeting.outcome(worth * amount[test], values, business) for name, values in acted.items()}
    said = [
        f"money spent within {days} days, {amount[test].mean():.2f} on average (expected over spent, mean absolute error, "
    ]
    said[0] += "share of the money spent by the tenth of highest expectation):"
    for name, m in measured.items():
        said.append(f"  {name:20} {m['total']:10.2f} {m['error']:14,.2f} {m['top']:7.1%}")
    doubt = ""
    if (largest := amount.max() / max(amount.sum(), 1e-9)) > 0.2:
        doubt = f"one customer spent {largest:.0%} of all the money: no average of it means much"
        said.append(f"warning: {doubt}")
    said.append(f"  {inside:.0%} spent within the interval that is to hold {spend.INSIDE:.0%} at least")
    said.append(f"Targeting by money: {_in_words(outcomes['network'])}")
    return {
        **{
            "model": found,
            "measured": measured,
            "inside": inside,
            "asked": spend.INSIDE,
            "days": days,
            "top": spend.TOP,
        },
        **{"mean": float(amount[test].mean()), "calibration": spend.calibration(amount[test], expected["network"])},
        **{"outcomes": outcomes, "margin": options.margin, "of_picture": (worth * amount[test], acted)},
        **{"said": "\n".join(said), "doubt": doubt},
    }


def _now(shop: Shop, model: train.Model, found: spend.Spend) -> pd.DataFrame:
    """Return what is to be expected of every customer from the log's last day on."""
    frame, _ = orders.customers(shop.log, shop.log["date"].max())
    proba, expected = model.predict_proba(frame), found.expected(frame)
    low, high = found.interval(expected)
    today = dataclasses.replace(model, bands=profiles.band_edges(proba))  # their place among all today
    now = pd.DataFrame({"probability": proba, "band": profiles.bands(today, proba)}, index=frame.index)
    now["segment"] = profiles.segments(frame, float(frame["amount"].quantile(0.8)))
    return now.assign(expected=expected.round(2), low=low.round(2), high=high.round(2))


def _in_time(
    table: preprocess.Table, shop: Shop, folder: Path, options: argparse.Namespace
) -> tuple[update.Backtest, dict[str, Any]]:
    """Go through the months, and live through the last one, at the same time."""
    assert shop.question.launch is not None
    log, launch = shop.log, shop.question.launch
    if options.fast and len(table.frame) == FAST_ROWS:  # a sample
        log = log[log["customer"].isin(table.frame.index)].reset_index(drop=True)
    with ThreadPoolExecutor(2) as pool:
        lived = pool.submit(threadpool_limits.wrap(limits=1)(_rehearse), folder, log, shop.reader)
        months = update.backtest(log, launch, n_epochs=5 if options.fast else 20, each=pool.map)
        return months, lived.result()


def _passed(found: update.Backtest, table: preprocess.Table) -> list[str]:
    """Say so if updates from wrong labels would have passed."""
    passed = [month.drill.promoted for month in found.months if month.drill is not None]
    n_held = int(update.held_back(table.frame.index).sum())
    return [
        f"of {len(passed)} updates from labels that were all wrong, {sum(passed)} would have passed: "
        f"the {n_held} customers who are held back are too few to judge by, so look at each month yourself"
    ] * any(passed)


def _collect(options: argparse.Namespace) -> list[collect.Raw]:
    if options.csv is not None:
        return [collect.csv_file(options.csv, options.target, options.positive, encoding=options.encoding)]
    if options.log is not None:
        return [collect.log_file(options.log, options.columns, encoding=options.encoding)]
    sources = {"cdnow": collect.cdnow, "adult": collect.adult, "journey": collect.journey}
    return [sources[name]() for name in (("cdnow", "adult") if options.data == "all" else (options.data,))]


def _preprocess(raw: collect.Raw, types: preprocess.Types | None = None) -> preprocess.Table:
    print(f"{raw.name}: {raw.about}")
    return preprocess.clean(raw, types=types)


def _log(raw: collect.Raw, types: preprocess.Types) -> tuple[preprocess.Table, Shop]:
    """Return a log of orders as a table of its customers, whose target is made from what happens later."""
    print(f"{raw.name}: {raw.about}")
    log, reader, notes = orders.clean_log(raw, types)
    question = orders.question(log, raw.log)
    for line in (*notes, *question.notes):
        print(f"  {line}")
    frame, y = orders.customers(log, question.cutoff, question.horizon)
    kinds = dict.fromkeys(frame, "number")
    notes = {"(log)": "; ".join((*notes, *question.notes))} if notes or question.notes else {}
    table = preprocess.Table(raw.name, frame, y, kinds, raw.positive or "yes", raw.about, notes)
    return table, Shop(log, reader, question)


def _describe(table: preprocess.Table) -> None:
    kinds = list(table.kinds.values())
    print(
        f"  {len(table.y)} records, {kinds.count('number')} numbers, {kinds.count('category')} categories, "
        f"{kinds.count('code')} that may be either; {table.positive!r} is true of {table.y.mean():.1%}"
    )
    for name, why in table.notes.items():
        if name != "(log)":  # said already
            print(f"  {name}: {why}")


def _some_rows(table: preprocess.Table) -> preprocess.Table:
    rows = np.random.default_rng(0).permutation(len(table.y))[:FAST_ROWS]
    if len(rows) < len(table.y):
        print(f"  --fast: a sample of {len(rows):,} of the {len(table.y):,} records, in all that follows")
    return dataclasses.replace(
        table,
        frame=table.frame.iloc[rows],
        y=table.y[rows],
        identifiers=table.identifiers.iloc[rows] if len(table.identifiers) else table.identifiers,
        when=None if table.when is None else table.when[rows],
    )


def _plan(table: preprocess.Table, options: argparse.Namespace) -> tuple[preprocess.Table, splits.Plan, list[str]]:
    """Return the table without the columns that tell the answer, the splits, and what is doubtful, which is printed too."""
    plan = splits.plan(table)
    found = doubts.suspects(table, plan.splits[0], options.types.keep)
    gone = [suspect.name for suspect in found if not suspect.kept]
    if len(gone) == len(table.columns):  # nothing would remain
        found, gone = [dataclasses.replace(suspect, kept=True) for suspect in found], []
    said = [str(suspect) for suspect in found]
    names = [suspect.name for suspect in found]
    if names and len(names) < len(table.columns):
        aucs = doubts.with_them(table, table.without(names), plan.splits[0])
        what = f"without {', '.join(gone)}" if gone else "with them"
        said.append(
            f"with {', '.join(names)} boosting has an AUC of {aucs[0]:.4f}, without {aucs[1]:.4f}: what follows is {what}"
        )
    if gone:
        table = table.without(gone)
        plan = splits.plan(table)  # rows that only these columns told apart are equal now
    for column in table.columns:
        if alike := [name for name in gone if len(name) > 4 and column.name.lower().startswith(name.lower())]:
            said.append(
                f"{column.name} is called like {alike[0]}, which was left out: is it known before the answer is?"
            )
    if plan.exact is not None and plan.n_near > 0.01 * len(table.y):
        apart = dataclasses.replace(plan, splits=splits.folds(table, plan.exact))
        aucs = doubts.effect_of_copies(table, apart.splits, plan.splits)
        said.append(
            f"with near-copies on both sides boosting would have an AUC of {aucs[0]:.4f}, with each on one side {aucs[1]:.4f}"
        )
    for line in (*plan.notes, *(f"warning: {line}" for line in said)):
        print(f"  {line}")
    return table, plan, said


def _measure(
    table: preprocess.Table, parts: list[splits.Split], options: argparse.Namespace, *, is_log: bool
) -> tuple[list[train.Model], list[evaluate.SplitResult], list[profiles.Profiles]]:
    """Train, evaluate and profile the test rows of every split, two at a time; deploy the first split's network."""

    @threadpool_limits.wrap(limits=1)  # OpenMP has a limit for each thread
    def one(k: int) -> tuple[train.Model, evaluate.SplitResult, profiles.Profiles]:
        fit, validate, test = parts[k]
        model = train.train(
            table,
            fit,
            validate,
            seed=1000 * k,
            n_networks=options.networks,
            n_epochs=15 if options.fast else 100,
            class_weight="balanced" if options.balanced else None,
            progress=options.progress,
        )
        proba = model.predict_proba(table.frame.iloc[validate])
        threshold, bands = evaluate.best_threshold(table.y[validate], proba), profiles.band_edges(proba)
        model = dataclasses.replace(model, threshold=threshold, bands=bands)
        model = reasons.against_people(model, table.frame.iloc[fit])
        result = evaluate.evaluate(table, fit, validate, test, model)
        return model, result, profiles.make(table, model, fit, test, is_log=is_log)

    with ThreadPoolExecutor(2) as pool:
        done = list(tqdm(pool.map(one, range(len(parts))), total=len(parts), desc=table.name, unit="split"))
    models, results, profiled = map(list, zip(*done, strict=True))
    deploy.save(options.out / table.name / "model", models[0], table)
    return models, results, profiled


def _actions(
    raw: collect.Raw,
    table: preprocess.Table,
    split: tuple[np.ndarray, ...],
    result: evaluate.SplitResult,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Return what acting on the scores would have brought: on the yes or the no; for a purchase log, targeting and churn."""
    business, test = _business(options), split[2]
    asked = _aims(raw, table, table.frame.iloc[test], options)
    column, rule = evaluate.one_column(table, *split)
    models = {name: result.proba[name] for name in evaluate.BESIDE} | {"one_column": rule}
    found = []
    for title, text, who, yes in asked:
        y = (result.y if yes else 1 - result.y)[who]
        proba = {name: (p if yes else 1 - p)[who] for name, p in models.items()}
        expected = np.full(len(test), -np.inf)
        expected[who] = business.expected(proba["network"])
        found.append(
            {
                **{"title": title, "text": text, "examples": options.examples, "column": column, "expected": expected},
                "outcomes": {name: targeting.outcome(y, p, business) for name, p in proba.items()},
                "if_success": [
                    (other, targeting.outcome(y, proba["network"], other))
                    for share in (0.5, 1, 2)
                    if (success := business.success * share) <= 1
                    for other in [dataclasses.replace(business, success=success)]
                ],
                "picture": report.picture_of_action(y, proba, business),
            }
        )
    return found


def _business(options: argparse.Namespace) -> targeting.Business:
    return targeting.Business(options.cost, options.value, options.success)


def _aims(
    raw: collect.Raw, table: preprocess.Table, people: pd.DataFrame, options: argparse.Namespace
) -> list[tuple[str, str, np.ndarray, bool]]:
    """Return the actions to think about: (title, at whom it is aimed, who of the people may be chosen, whether at the yes)."""
    everyone = np.ones(len(people), bool)
    if raw.log:
        again = ((people["days_with_purchase"] >= 2) & (people["days_since_last"] <= LOST)).to_numpy()
        churn = f"It is aimed at those who will not come back, of the customers who came twice, and within the last {LOST} days."
        return [
            ("Targeting", "It is aimed at customers who will buy again.", everyone, True),
            ("Churn warning", churn, again, False),
        ]
    yes = options.act_on == "yes"
    whose = f"It is aimed at those whose “{raw.target}” is {'' if yes else 'not '}“{table.positive}”."
    return [("Targeting", whose, everyone, yes)]


def _one_action_each(
    aims: list[tuple[str, str, np.ndarray, bool]], people: pd.DataFrame, options: argparse.Namespace
) -> np.ndarray:
    """Return the action with the greatest expected gain for each person, "" if none pays."""
    proba, business = people["probability"].to_numpy(), _business(options)
    expected = np.stack(
        [np.where(who, business.expected(proba if yes else 1 - proba), -np.inf) for _, _, who, yes in aims]
    )
    titles = np.array([title.lower() for title, *_ in aims], object)
    return np.where(expected.max(axis=0) >= 0, titles[expected.argmax(axis=0)], "")


def _with_actions(
    now: pd.DataFrame, aims: list[tuple[str, str, np.ndarray, bool]], options: argparse.Namespace
) -> pd.DataFrame:
    """Return the customers with the action that pays most for each, and what it is expected to gain, the most first.

    Who is targeted is worth the money that is expected of them, as far as it is earned; who is warned of, ``--value``.
    """
    business, money = _business(options), options.success * options.margin * now["expected"].to_numpy() - options.cost
    gains = [
        np.where(who, money if yes else business.expected(1 - now["probability"].to_numpy()), -np.inf)
        for _, _, who, yes in aims
    ]
    best = np.stack(gains).max(axis=0)
    titles = np.array([title.lower() for title, *_ in aims], object)
    now = now.assign(action=np.where(best >= 0, titles[np.stack(gains).argmax(axis=0)], ""))
    return now.assign(gain=np.maximum(best, 0).round(2)).sort_values("gain", ascending=False, kind="stable")


def _write_profiles(path: Path, table: preprocess.Table, people: pd.DataFrame) -> None:
    """Write a line for each person, with the identifiers of the file, for spreadsheets."""
    named = table.identifiers.loc[people.index] if len(table.identifiers.columns) else table.identifiers
    out = people.reset_index()
    for k, name in enumerate(named, 1):
        out.insert(k, deploy.free(name), named[name].to_numpy())
    deploy.write_csv(out, path)


def _in_words(found: targeting.Outcome) -> str:
    return (
        f"acting on {found.n_acted} of {found.n} would have brought {found.gain:.0f} (± {found.interval:.0f}), "
        f"on all {found.gain_all:.0f}, at the best threshold in hindsight {found.gain_best:.0f}"
    )


def _months(found: update.Backtest, log: pd.DataFrame) -> dict[str, Any]:
    drills = [month.drill for month in found.months if month.drill is not None]
    return {
        "launch": f"{found.launch:%Y-%m-%d}",
        "frozen": found.difference("frozen"),
        "retrained": found.difference("retrained"),
        "relative": found.relative("frozen"),
        **{"seconds": found.seconds("incremental"), "seconds_retrained": found.seconds("retrained")},
        "joined": _joined(log),
        "n_drills": len(drills),
        "caught": sum(not drill.promoted for drill in drills),
        "drills": [(share, v.promoted, v.believed[1] - v.believed[0]) for share, v in found.drills],
        "rows": [
            {
                **{"date": f"{m.date:%Y-%m-%d}", "share": m.share, "loss": m.loss},
                **{"said": m.said, "drill": "–" if m.drill is None else "promoted" if m.drill.promoted else "refused"},
            }
            for m in found.months
        ],
    }


def _joined(log: pd.DataFrame) -> str:
    """Return the day by which nearly all customers had bought for the first time, "" if that is late in the log."""
    first, last = log["date"].min(), log["date"].max()
    joined = log.groupby("customer")["date"].min().quantile(0.95)
    return f"{joined:%Y-%m-%d}" if joined - first < (last - first) / 3 else ""


def _rehearse(folder: Path, log: pd.DataFrame, reader: orders.Reader) -> dict[str, Any]:
    """Live through the log's last month: feedback on some customers, then the month's purchases, then one is forgotten."""
    eve = orders.month_ends(log)[-1]
    scratch = folder.with_name("live.rehearsal")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        return _live_through(scratch, folder, log, reader, eve)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _live_through(
    scratch: Path, folder: Path, log: pd.DataFrame, reader: orders.Reader, eve: pd.Timestamp
) -> dict[str, Any]:
    by_then = log["date"] <= eve
    store = live.Store.create(scratch, log[by_then].reset_index(drop=True), reader)
    told_on = log.loc[by_then, "date"].max()  # the shop may be closed on the eve itself
    rows = update.rows_of(log, told_on)
    told = list(zip(rows.frame.index, rows.y, strict=True))[:N_ANSWERS]
    store.add_feedback(*({"customer": c, "date": f"{told_on:%Y-%m-%d}", "bought": bool(b)} for c, b in told))
    batch = store.learn()
    verdicts = store.add_purchases(log[~by_then].reset_index(drop=True))
    started = time.perf_counter()
    removed = store.forget(max((c for c, _ in told), key=lambda c: rows.frame.at[c, "purchases"]))
    seconds = time.perf_counter() - started
    said = (
        f"live: {len(told)} answers {'learned' if batch['learned'] else 'refused'}; "
        + "".join(f"{month} {'learned' if verdict.promoted else 'refused'}; " for month, verdict in verdicts)
        + f"one customer forgotten ({removed['purchases']} purchases), trained anew in {seconds:.1f} s (a rehearsal)"
    )
    shutil.rmtree(scratch)
    kept = folder.exists()  # it may have learned by now
    if kept:
        said += f"\n{folder} is there already, and was left as it is"
    else:  # what is kept knows everybody, and has been told nothing
        live.Store.create(scratch, log, reader)
        scratch.rename(folder)
    return {
        **{"said": said, "n_answers": len(told), "batch": batch, "eve": f"{eve:%Y-%m-%d}"},
        **{"months": [(month, verdict.promoted) for month, verdict in verdicts], "seconds": seconds, "kept": kept},
    }


def _section(
    raw: collect.Raw,
    table: preprocess.Table,
    shop: Shop | None,
    parts: list[splits.Split],
    model: train.Model,
    results: list[evaluate.SplitResult],
    people: profiles.Profiles,
    actions: list[dict[str, Any]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return all that the report and the model card say of a data set."""
    found, (fit, _, test) = evaluate.values(results), parts[0]
    y, proba = table.y[test], people.people["probability"].to_numpy()
    cards = profiles.cards(table, people, fit, test)
    segments = people.people.get("segment")
    meaning = orders.MEANING if raw.log else {}
    top = list(people.importance.index[:10])
    lost = evaluate.shuffled(table, model, test, top) if len(test) >= profiles.K else {}
    lift = targeting.lift(y, proba, profiles.cuts(people.people["band"].to_numpy()))

    def by(labels: pd.Series, names: Sequence[str]) -> list[dict[str, Any]]:
        return profiles.groups(labels.to_numpy(), y, proba, model.threshold, list(names))

    title = f"{table.name}: whose “{raw.target}” is “{table.positive}”?"
    if shop:
        title = f"{table.name}: who buys again within {shop.question.horizon.days} days?"
    return {
        **{"name": table.name, "about": table.about, "target": raw.target, "positive": table.positive},
        "title": raw.title or title,
        **{"sha256": raw.sha256, "n_rows": len(table.y), "n_columns": len(table.kinds), "notes": table.notes},
        "columns": {said: names for kind, said in KINDS if (names := [n for n, k in table.kinds.items() if k == kind])},
        **{"share": float(table.y.mean()), "n_splits": len(results), "sizes": [f"{len(part):,}" for part in parts[0]]},
        **{"found": found, "differences": evaluate.differences(found), "spread": evaluate.spreads(found)},
        "auc": {name: float(np.mean(found[name]["roc_auc"])) for name in found},
        **{"network": repr(model.nets[0]), "n_networks": len(model.nets), "encoding": model.encoding},
        **{"threshold": model.threshold, "unused": deploy.unused(model, table)},
        **{"lift": lift, "top": min(lift, key=lambda row: abs(row["share"] - 0.1), default=None)},
        "bands": by(people.people["band"], profiles.BANDS),
        "segments": None if segments is None else by(segments, profiles.SEGMENTS),
        "by_column": profiles.groups_of_columns(table, people, fit, test, model.threshold),
        **{"importance": list(people.importance.index), "completeness": people.completeness, "n_test": len(test)},
        **{"average": float(1 / (1 + np.exp(-people.average))), "mean_proba": float(proba.mean()), "cards": cards},
        **{"n_actions": None if "action" not in people.people else int((people.people["action"] != "").sum())},
        **{"both": int((np.stack([a["expected"] for a in actions]) >= 0).all(axis=0).sum()) if len(actions) > 1 else 0},
        "largest": max((abs(reason["moved"]) for card in cards for reason in card["reasons"]), default=1.0),
        **{"actions": actions, "business": _business(options)},
        **{"meaning": meaning, "shuffled": [(name, float(people.importance[name]), lost[name]) for name in lost]},
        "enough": len(test) >= profiles.K,
        "pictures": report.pictures(results[0]),
        "best": {
            name: (min if name == "brier" else max)(found, key=lambda model, name=name: np.mean(found[model][name]))
            for name in evaluate.METRICS
        },
        "use": "To learn and to compare methods; not to decide about anyone."
        if raw.to_teach
        else "To rank people by the probability of a yes, and to say which columns moved it; not to decide about anyone unseen.",
        "limits": _limits(table, y, proba, balanced=options.balanced),
        "stored": STORED if actions else STORED.replace(", and the action that would pay", ""),
        **{"months": None, "live": None},
    }


STORED = (
    "profiles.csv has a line for each person, by record number and the file's own identifiers, or by customer, scored by a "
    "network that has not seen them, with the values that moved the score, and the action that would pay: personal data. "
    "The model's folder has no record, but names of columns, categories seen five times or more, and edges of bins, the "
    "outermost of which are values of training rows. A live folder has all purchases and answers. The report and the model "
    "card have aggregates, and ranges of values."
)


def _limits(table: preprocess.Table, y: np.ndarray, proba: np.ndarray, *, balanced: bool) -> list[str]:
    limits = [
        f"On the first test set {y.mean():.1%} are a yes, and the mean probability is {proba.mean():.1%}: on average it promises "
        f"{100 * abs(proba.mean() - y.mean()):.1f} percentage points too {'much' if proba.mean() > y.mean() else 'little'}.",
        "Measured on people of the same source and time; others, and later ones, may differ.",
        "A reason is what the model used, not a cause: changing the value need not change the person.",
        "Where groups differ in the tables by group, so will whatever is decided by these scores.",
    ]
    if balanced:
        limits.append("Trained with balanced classes: the probabilities are too high for the rarer class.")
    rarer = int(min(table.y.sum(), len(table.y) - table.y.sum()))
    if rarer < 100:
        limits.append(f"Only {rarer} people of the rarer kind: all figures are rough.")
    elif len(table.y) < 2000:
        limits.append(f"Only {len(table.y)} people: differences between models, and between groups, are mostly chance.")
    return limits


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.user_profile", description=__doc__)
    parser.add_argument("--data", choices=("adult", "cdnow", "journey", "all"), default="all")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a table of your own, one record a line")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="orders of your own, a line an order or an article of one"
    )
    parser.add_argument(
        "--files",
        "--parquet",
        type=Path,
        metavar="FOLDER",
        help="a table in many files, of which one is in memory at a time",
    )
    parser.add_argument(
        "--private", type=float, metavar="EPSILON", help="train with differential privacy, on what --codebook says"
    )
    parser.add_argument(
        "--codebook", type=Path, metavar="FILE", help="JSON: of each column the edges of bins, or the names"
    )
    parser.add_argument("--map", choices=("here", "processes", "dask"), default="here", help="who reads those files")
    parser.add_argument("--replicas", type=int, metavar="N", default=1, help="copies of the network that share them")
    parser.add_argument(
        "--target", metavar="COLUMN", help="the column to be predicted: yes and no, two values, or see --positive"
    )
    parser.add_argument(
        "--positive", metavar="VALUE", help="the value that is the yes, all others the no; or '>500', for a number"
    )
    parser.add_argument("--blank-is-no", action="store_true", help="an empty target is a no")
    parser.add_argument(
        "--encoding", metavar="NAME", help="of the file, where it is not recognised: gb18030, cp1251 ..."
    )
    log = parser.add_argument_group("columns of your log, with --date, and what is asked of it")
    add_columns(log)
    log.add_argument("--cutoff", metavar="DATE", default="", help="customers are known by then (default: chosen)")
    log.add_argument(
        "--horizon", type=int, metavar="DAYS", default=0, help="do they buy again within? (default: chosen)"
    )
    types = parser.add_argument_group("columns of your file; each may be repeated")
    for name, meaning in (
        ("keep", "not an identifier, and not too good to be true"),
        ("drop", "to be left out"),
        ("number", "of numbers"),
        ("category", "of names, whatever they look like"),
        ("date", "of dates; COLUMN=dmy, =mdy and =ymd say which comes first"),
    ):
        types.add_argument(f"--{name}", metavar="COLUMN", action="append", default=[], help=meaning)
    types.add_argument("--missing", metavar="WORD", action="append", default=[], help="a value that means: not known")
    types.add_argument(
        "--decimal", choices=(".", ","), default="", help="the decimal mark, where numbers do not show it"
    )
    types.add_argument("--group", metavar="COLUMN", default="", help="whose rows are of one person; none: no column is")
    types.add_argument("--time", metavar="COLUMN", default="", help="orders the records: the last fifth is the test")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("out"))
    parser.add_argument(
        "--networks", type=int, metavar="N", default=train.N_NETWORKS, help=f"to average (default {train.N_NETWORKS})"
    )
    parser.add_argument("--fast", action="store_true", help="4,000 rows, 2 splits, 15 epochs: to see that it runs")
    parser.add_argument("--balanced", action="store_true", help="weight both classes equally in training")
    parser.add_argument("--progress", action="store_true", help="show a bar for every training, with its losses")
    business = parser.add_argument_group("figures of business")
    business.add_argument("--cost", type=float, metavar="X", help="of acting on one person (default 1)")
    business.add_argument("--value", type=float, metavar="X", help="of one who responds (default 30)")
    business.add_argument("--success", type=float, metavar="SHARE", help="of those aimed at who respond (default 0.1)")
    business.add_argument(
        "--margin", type=float, metavar="SHARE", help="of the money spent that is earned (default 0.3)"
    )
    business.add_argument("--act-on", choices=("yes", "no"), default="yes", help="whom it is aimed at, for a table")
    options = parser.parse_args(arguments)
    given = {
        name: getattr(options, name) for name in ("cost", "value", "success") if getattr(options, name) is not None
    }
    options.examples = not given
    if options.margin is not None and not 0 < options.margin <= 1:
        parser.error(f"--margin must be above 0 and at most 1, got {options.margin}")
    options.margin = 0.3 if options.margin is None else options.margin
    try:
        vars(options).update(dataclasses.asdict(targeting.Business(**given)))
    except ValueError as error:
        parser.error(f"--{error}")
    if options.csv is not None and options.files is not None:
        parser.error("--csv is one file, --files a folder of them: one of the two")
    is_table = options.csv is not None or options.files is not None
    if is_table != (options.target is not None):
        parser.error("--csv, or --files, and --target go together")
    if options.private is not None and not (
        0 < options.private < 1000 and (options.codebook or options.data == "adult")
    ):
        parser.error("--private EPSILON, more than 0, goes with --codebook FILE, or with --data adult, which has one")
    if (options.codebook and options.private is None) or (
        options.private is not None and (options.files or options.log)
    ):
        parser.error("--codebook goes with --private, and --private with --csv or --data adult")
    if options.files is None and (options.map != "here" or options.replicas != 1):
        parser.error("--map and --replicas go with --files")
    if options.replicas < 1:
        parser.error("--replicas must be at least 1")
    if options.files is not None and (options.blank_is_no or options.balanced or options.time):
        parser.error("--blank-is-no, --balanced and --time are not for --files")
    named = {field.name: getattr(options, field.name) for field in dataclasses.fields(preprocess.Types)}
    options.types = preprocess.Types(**named)
    said = any(named.values()) or options.encoding
    if not is_table and (options.positive is not None or options.act_on != "yes" or (said and not options.log)):
        parser.error("--positive, --act-on and all that is said of columns go with --csv")
    options.columns = _columns_of_log(parser, options)
    if options.networks < 1:
        parser.error("--networks must be at least 1")
    return options


def _columns_of_log(parser: argparse.ArgumentParser, options: argparse.Namespace) -> collect.Log | None:
    """Return which columns of the log are which."""
    names = (*ROLES, "cutoff", "horizon")
    given = {name: getattr(options, name) for name in names}
    if options.log is None:
        if any(given.values()):
            parser.error(
                f"{', '.join(f'--{name}' for name, value in given.items() if value)}: of a log, which --log names"
            )
        return None
    if options.csv is not None:
        parser.error("--csv is a table with a line a customer, --log one with a line an order: one of them")
    for name in ("keep", "drop", "number", "category", "group", "time", "blank_is_no"):
        if getattr(options, name):
            parser.error(
                f"--{name.replace('_', '-')} is for --csv; a log has --customer, --date, --amount, --quantity and --product"
            )
    check_columns(parser, options.types.orders(), given)
    if not 0 <= given["horizon"] <= 36500:
        parser.error("--horizon must be a number of days")
    if given["cutoff"]:
        try:
            given["cutoff"] = f"{pd.to_datetime(given['cutoff'], format='%Y-%m-%d'):%Y-%m-%d}"
        except ValueError:
            parser.error(f"--cutoff must be written as 2024-06-30, got {given['cutoff']}")
    (date,) = options.types.orders()
    return collect.Log(date=date, **given)


if __name__ == "__main__":
    sys.exit(main())
