"""A process for one library: it takes cases on standard input, measures when told, and answers on standard output.

python -m benchmarks.worker LIBRARY       (``harness`` starts it; lines of JSON both ways)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import resource
import sys
from typing import Any


def main() -> None:
    """Answer each line: {"task", "case"} prepares, {"measure"} measures, {"forget"} frees; the end of input ends it."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print what they like elsewhere
    measure: Any = None

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    try:
        peer = importlib.import_module(f"benchmarks.peers.{sys.argv[1]}")
    except Exception as error:
        answer(skip=f"{type(error).__name__}: {error}".splitlines()[0])
        return
    answer(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "measure" in request:
                answer(times=measure(), peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            elif "forget" in request:
                measure = None
                answer(ready=True)
            elif not hasattr(peer, request["task"]):
                answer(skip="does not do this")
            else:
                measure = getattr(peer, request["task"])(request["case"])
                answer(ready=True)
        except Exception as error:
            answer(skip=f"{type(error).__name__}: {error}".splitlines()[0][:200])


with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
    main()
