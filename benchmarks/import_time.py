"""Measure what ``import nnprofile`` costs, in multiples of ``import numpy``: fresh processes, taken in turn, medians.

python benchmarks/import_time.py            (exit status 1 if it is more than 1.3)
"""

from __future__ import annotations

import compileall
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy

import nnprofile

N_RUNS, LIMIT = 21, 1.3
CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(module: str) -> float:
    """Import the module in a fresh process and return how long it took."""
    return float(subprocess.run([sys.executable, "-c", CODE.format(module)], capture_output=True, check=True).stdout)


# As an installer does; a checkout would otherwise be compiled at every import where bytecode must not be written.
compileall.compile_dir(Path(nnprofile.__file__).parent, quiet=2)
times: dict[str, list[float]] = {"numpy": [], "nnprofile": []}
for _ in range(N_RUNS):
    for name, found in times.items():
        found.append(seconds(name))
base, ours = median(times["numpy"]), median(times["nnprofile"])
print(
    f"Python {platform.python_version()}, numpy {numpy.__version__}, nnprofile {nnprofile.__version__}; {N_RUNS} runs each"
)
print(
    f"import numpy {1000 * base:.1f} ms, import nnprofile (numpy included) {1000 * ours:.1f} ms: {ours / base:.2f} times"
)
sys.exit(ours / base > LIMIT)
