"""The flow chart: collect -> preprocess -> features -> train -> evaluate -> deploy, for each data set."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from . import collect, deploy, evaluate, features, preprocess, train

FAST_ROWS = 4000


def main(arguments: list[str] | None = None) -> int:
    """Run the example; return the exit status."""
    options = _parse(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        found, sections = {}, []
        for raw in _collect(options):
            started = time.perf_counter()
            table = _preprocess(raw, options.keep)
            if options.fast:
                table = _some_rows(table)
            # Threads do not pay for matrices of this size, and waiting for each other they suffer on a busy machine.
            with threadpool_limits(1):
                results = _measure(table, options)
            found[table.name] = evaluate.values(results)
            sections.append(_section(raw, table, results, found[table.name]))
            print(f"\n{evaluate.text_table(table.name, found[table.name])}")
            print(
                f"saved, loaded in a fresh process: {deploy.check_in_fresh_process(options.out / table.name / 'model')}"
            )
            print(f"({time.perf_counter() - started:.0f} seconds)", flush=True)
    except (collect.CollectError, preprocess.PreprocessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write to {options.out}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    evaluate.write_metrics(options.out / "metrics.json", found)
    evaluate.write_report(options.out / "report.html", sections)
    print(f"\nmetrics  {options.out / 'metrics.json'}\nreport   {options.out / 'report.html'}")
    for name in found:
        print(
            f"model    {options.out / name / 'model'}   (python -m examples.user_profile.deploy that-folder --example)"
        )
    return 0


def _collect(options: argparse.Namespace) -> list[collect.Raw]:
    if options.csv is not None:
        return [collect.csv_file(options.csv, options.target, options.positive)]
    sources = {"adult": collect.adult, "cdnow": collect.cdnow}
    return [source() for name, source in sources.items() if options.data in (name, "all")]


def _preprocess(raw: collect.Raw, keep: Sequence[str] = ()) -> preprocess.Table:
    print(f"{raw.name}: {raw.about}")
    is_log = raw.target not in raw.frame  # a purchase log: its target is made from what happens later
    table = features.customers(preprocess.clean_log(raw), raw) if is_log else preprocess.clean(raw, keep)
    kinds = list(table.kinds.values())
    print(
        f"  {len(table.y)} records, {kinds.count('number')} numbers, {kinds.count('category')} categories, "
        f"{kinds.count('code')} that may be either; {table.positive!r} is true of {table.y.mean():.1%}"
    )
    for name, why in table.notes.items():
        print(f"  {name}: {why}")
    return table


def _some_rows(table: preprocess.Table) -> preprocess.Table:
    rows = np.random.default_rng(0).permutation(len(table.y))[:FAST_ROWS]
    return dataclasses.replace(table, frame=table.frame.iloc[rows].reset_index(drop=True), y=table.y[rows])


def _measure(table: preprocess.Table, options: argparse.Namespace) -> list[evaluate.SplitResult]:
    """Train and evaluate on every split; deploy the first split's network."""
    splits = preprocess.splits(table)[: 2 if options.fast else None]
    results = []
    for k, (fit, validate, test) in enumerate(tqdm(splits, desc=table.name, unit="split")):
        networks = []
        for seed in range(options.seeds):
            model = train.train(
                *(table, fit, validate),
                seed=1000 * k + seed,
                n_epochs=15 if options.fast else 100,
                class_weight="balanced" if options.balanced else None,
                progress=options.progress,
            )
            proba = model.predict_proba(table.frame.iloc[validate])
            networks.append(dataclasses.replace(model, threshold=evaluate.best_threshold(table.y[validate], proba)))
        results.append(evaluate.evaluate(table, fit, validate, test, networks))
        if k == 0:
            deploy.save(options.out / table.name / "model", networks[0], table)
    return results


def _section(
    raw: collect.Raw, table: preprocess.Table, results: list[evaluate.SplitResult], found: dict
) -> dict[str, object]:
    return {
        "name": table.name,
        "about": table.about,
        "target": raw.target,
        "positive": table.positive,
        "n_rows": len(table.y),
        "n_columns": len(table.kinds),
        "share": float(table.y.mean()),
        "n_splits": len(results),
        "found": found,
        "differences": evaluate.differences(found),
        "pictures": evaluate.pictures(results),
        "notes": table.notes,
    }


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.user_profile", description=__doc__)
    parser.add_argument("--data", choices=("adult", "cdnow", "all"), default="all")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a table of your own, one record a line")
    parser.add_argument("--target", metavar="COLUMN", help="its column with two values, to be predicted")
    parser.add_argument("--positive", metavar="VALUE", help="which of the two is the yes")
    parser.add_argument(
        "--keep", metavar="COLUMN", action="append", default=[], help="not an identifier; may be repeated"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("out"))
    parser.add_argument("--seeds", type=int, metavar="N", default=1, help="networks a split, their metrics averaged")
    parser.add_argument("--fast", action="store_true", help="4,000 rows, 2 splits, 15 epochs: to see that it runs")
    parser.add_argument("--balanced", action="store_true", help="weight both classes equally in training")
    parser.add_argument("--progress", action="store_true", help="show a bar for every training, with its losses")
    options = parser.parse_args(arguments)
    if (options.csv is None) != (options.target is None):
        parser.error("--csv and --target go together")
    if options.csv is None and (options.positive is not None or options.keep):
        parser.error("--positive and --keep go with --csv")
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
