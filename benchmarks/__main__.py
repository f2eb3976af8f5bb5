"""Run the benchmarks: python -m benchmarks [SUITE ...] [--fast] [--out FOLDER].

Prints each table when it is there; writes results.json, results.md and results.png to the folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import suites
from .harness import versions


def _in_words(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _sections(done: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the sections; one that was measured elsewhere, or with other versions than the first, says so."""
    for part in done:
        others = {k: v for k, v in part["versions"].items() if done[0]["versions"].get(k) != v}
        yield part["section"] + (f"\nMeasured with {_in_words(others)}.\n" if others else "")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure nnprofile and its peers, side by side."
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(suites.ALL)}; default: all")
    parser.add_argument("--fast", action="store_true", help="a few cases of each")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    options = parser.parse_args()
    unknown = set(options.suites) - set(suites.ALL)
    if unknown:
        parser.error(f"there is no suite {', '.join(sorted(unknown))}; there are {', '.join(suites.ALL)}")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    record = json.loads(file.read_text()) if file.exists() else {}
    print(
        _in_words(versions()),
        "one thread and one core, unless it says otherwise; medians of rounds in which all take turns",
        "",
        sep="\n",
    )
    for name in options.suites or suites.ALL:
        start = time.perf_counter()
        results, section = suites.ALL[name](fast=options.fast)
        print(section, f"({name}: {time.perf_counter() - start:.0f} s)\n", sep="\n", flush=True)
        record[name] = {"versions": versions(), "results": results, "section": section}
        file.write_text(json.dumps(record, indent=1) + "\n")
    done = [record[name] for name in suites.ALL if name in record]
    (options.out / "results.md").write_text("\n\n".join([_in_words(done[0]["versions"]), *_sections(done)]))
    try:
        from . import picture
    except ImportError as error:
        print(f"no picture: {error}")
    else:
        picture.draw(record, options.out / "results.png")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
