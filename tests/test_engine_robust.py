"""Whatever a machine lacks, everything works, at worst slower, with at most one warning: each case in a process of its own."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRAIN = """
import warnings, sys, os
import numpy as np
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import nnprofile as nn
    from nnprofile import engine
    def job(name, n_epochs=2):
        rng = np.random.default_rng(0)
        net = nn.Sequential([nn.Dense(3, 4), nn.Tanh(), nn.Dense(4, 1)], rng=rng)
        x = rng.normal(size=(40, 3))
        nn.fit(net, nn.SigmoidCrossEntropy(), nn.Adam(), x, (x[:, :1] > 0), n_epochs=n_epochs, batch_size=4, rng=rng, engine=name)
        return net, x
    by_numpy, x = job("numpy")
    engine.WORTH_IT = 0.0
    by_auto, _ = job("auto")
    again, _ = job("auto")
    frozen = nn.freeze(by_auto, nn.SigmoidCrossEntropy())
    assert np.allclose(by_auto.params.vector, by_numpy.params.vector, rtol=1e-9)
    assert np.array_equal(by_auto.params.vector, again.params.vector)
    assert np.allclose(frozen(x), nn.Sigmoid().forward(by_numpy.predict(x))[0])
print(len(caught), frozen.compiled, *[str(w.message) for w in caught], sep="|")
"""
pytestmark = pytest.mark.slow


def run(code: str, root: Path = ROOT, **environment: str | None) -> list[str]:
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in environ.items() if value is not None},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.strip().split("|")


@pytest.fixture
def copy_of_the_package(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "nnprofile", tmp_path / "nnprofile", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def without(module: str) -> str:
    return (
        f"""
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == {module!r} else find_spec(name, package)
"""
        + TRAIN
    )


def test_as_it_should_be() -> None:
    assert run(TRAIN + "print('', nn.warmup(), sep='|')") == ["0", "True\n", "True"]


@pytest.mark.parametrize("module", ["numba", "scipy"])
def test_a_package_is_missing(module: str) -> None:
    n_warnings, compiled, warning, ready = run(without(module) + "print('', nn.warmup(), sep='|')")
    assert (n_warnings, compiled, ready) == ("1", "False", "False")
    assert warning.strip() == f"{module} is not installed; nnprofile works without its compiled engine, slower"


def test_numba_is_broken(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise SystemError('initialization failed')")
    n_warnings, compiled, warning = run(TRAIN, PYTHONPATH=str(tmp_path))
    assert (n_warnings, compiled) == ("1", "False") and "SystemError: initialization failed" in warning


def test_compilation_is_switched_off() -> None:
    n_warnings, compiled, warning = run(TRAIN, NUMBA_DISABLE_JIT="1")
    assert (n_warnings, compiled) == ("1", "False") and warning.startswith("compilation is switched off")


def test_nothing_can_be_kept_on_disk(copy_of_the_package: Path) -> None:
    """A read-only tree (here: a file is in the way) and no home: compiled once a process, with one warning."""
    (copy_of_the_package / "nnprofile" / "engine" / "__pycache__").write_text("in the way")
    n_warnings, compiled, warning = run(
        TRAIN, copy_of_the_package, HOME="/dev/null", XDG_CACHE_HOME=None, NUMBA_CACHE_DIR=None
    )
    assert (n_warnings, compiled) == ("1", "True") and "set NUMBA_CACHE_DIR" in warning


def test_a_read_only_tree_is_cached_in_the_home_directory(copy_of_the_package: Path, tmp_path: Path) -> None:
    (copy_of_the_package / "nnprofile" / "engine" / "__pycache__").write_text("in the way")
    home = tmp_path / "home"
    home.mkdir()
    for _ in range(2):
        assert run(TRAIN, copy_of_the_package, HOME=str(home), XDG_CACHE_HOME=None)[:2] == ["0", "True"]
    assert list(home.rglob("*.nbc"))


def test_no_home_at_all(copy_of_the_package: Path) -> None:
    assert run(TRAIN, copy_of_the_package, HOME=None)[:2] == ["0", "True"]


def test_damaged_cache_files_are_replaced(tmp_path: Path) -> None:
    assert run(TRAIN, NUMBA_CACHE_DIR=str(tmp_path))[0] == "0"
    files = list(tmp_path.rglob("*.nb?"))
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    for keep in (0, 1, 40):  # bytes of each file
        for path in files:
            path.write_bytes(path.read_bytes()[:keep])
        assert run(TRAIN, NUMBA_CACHE_DIR=str(tmp_path)) == ["0", "True"]
        assert all(path.stat().st_size > 100 for path in files)


def test_a_change_in_any_file_of_the_engine_makes_the_cache_old(copy_of_the_package: Path) -> None:
    assert run(TRAIN, copy_of_the_package)[0] == "0"
    activations = copy_of_the_package / "nnprofile" / "engine" / "activations.py"
    text = activations.read_text()
    assert "y[i], slope[i] = tanh_parts(y[i])" in text
    activations.write_text(text.replace("y[i], slope[i] = tanh_parts(y[i])", "y[i], slope[i] = like(y, 1), like(y, 1)"))
    changed = (
        TRAIN[: TRAIN.index("    assert np.allclose(by_auto")]
        + "print(by_auto.params.vector[0] == by_numpy.params.vector[0])"
    )
    assert run(changed, copy_of_the_package) == ["False"]


def test_a_processor_without_fma(tmp_path: Path) -> None:
    found = run(TRAIN, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path))
    assert found == ["0", "True"]


def test_fork_after_use() -> None:
    """A child goes on training and scoring, also with threads; so do the parent's own."""
    found = run(
        TRAIN
        + """
rows = np.random.default_rng(0).normal(size=(20_000, 3))
whole = frozen(rows, n_threads=2)
sys.stdout.flush()
child = os.fork()
ok = np.array_equal(frozen(rows, n_threads=2), whole) and np.array_equal(job("auto")[0].params.vector, by_auto.params.vector)
if child == 0:
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
print("|", ok, "|", os.waitstatus_to_exitcode(status), sep="")
"""
    )
    assert [part.strip() for part in found[-2:]] == ["True", "0"]


def test_many_threads_at_the_very_first_use(tmp_path: Path) -> None:
    code = """
    import threading
    import numpy as np
    import nnprofile as nn
    found, errors = [], []
    start = threading.Barrier(4)
    def work():
        try:
            rng = np.random.default_rng(0)
            net = nn.Sequential([nn.Dense(3, 4), nn.ReLU(), nn.Dense(4, 1)], rng=rng, dtype=np.float32)
            x = rng.normal(size=(64, 3))
            start.wait()
            nn.fit(net, nn.MeanSquaredError(), nn.SGD(0.1), x, x[:, 0], n_epochs=3, rng=rng, engine="numba")
            found.append(nn.freeze(net)(x))
        except Exception as error:
            errors.append(error)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not errors, errors
    print(len(found), all(np.array_equal(f, found[0]) for f in found), sep="|")
    """
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path)) == ["4", "True"]


def test_small_work_never_loads_numba() -> None:
    code = """
    import sys
    import numpy as np
    import nnprofile as nn
    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(2, 4), nn.Tanh(), nn.Dense(4, 1)], rng=rng)
    x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
    nn.fit(net, nn.SigmoidCrossEntropy(), nn.SGD(0.5), x, y, n_epochs=1000, batch_size=4, rng=rng)
    before = "numba" in sys.modules
    nn.fit(net, nn.SigmoidCrossEntropy(), nn.SGD(0.5), np.tile(x, (10_000, 1)), np.tile(y, 10_000), n_epochs=20, rng=rng)
    print(before, "numba" in sys.modules, sep="|")
    """
    assert run(code) == ["False", "True"]


def test_an_interrupt_of_a_long_epoch_comes_soon() -> None:
    """Ctrl-C from outside, in an epoch of half a minute: the run ends within a second or two, and its state is whole."""
    code = """
    import os, signal, threading, time
    import numpy as np
    import nnprofile as nn
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nn.warmup()
    rng = np.random.default_rng(0)
    net = nn.Sequential([nn.Dense(100, 64), nn.ReLU(), nn.Dense(64, 1)], rng=rng)
    x = rng.normal(size=(2000, 100))
    rows = np.tile(x, (200, 1))
    optimizer = nn.SGD(1e-5)
    pressed = []
    def press():
        pressed.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(1.0, press)
    timer.start()
    history = nn.fit(net, nn.MeanSquaredError(), optimizer, rows, rows[:, 0], n_epochs=100, batch_size=1, rng=rng, engine="numba")
    late = time.perf_counter() - pressed[0]
    print(history.stop_reason, 0 < optimizer.n_steps < 100 * len(rows), late < 2.0, sep="|")
    """
    assert run(code) == ["interrupted", "True", "True"]


def packed(folder: Path, kind: str) -> Path:
    """Return the package as somebody ships it: in a zip, or as bytecode alone."""
    source = folder / "source"
    shutil.copytree(ROOT / "nnprofile", source / "nnprofile", ignore=shutil.ignore_patterns("__pycache__"))
    if kind != "zip":
        assert compileall.compile_dir(source, quiet=1, legacy=True)
        for path in source.rglob("*.py"):
            path.unlink()
    if kind == "bytecode":
        return source
    return Path(shutil.make_archive(str(folder / kind.replace(" ", "_")), "zip", source))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "bytecode", "zip of bytecode"])
def test_machine_code_of_a_package_without_sources_on_disk_is_kept(kind: str, tmp_path: Path) -> None:
    where, kept = packed(tmp_path, kind), tmp_path / "kept"
    kept.mkdir()
    code = f"import sys; sys.path.insert(0, {str(where)!r})\n" + FREEZE
    names = []
    for _ in range(2):
        assert run(code, tmp_path, NUMBA_CACHE_DIR=str(kept)) == ["True", str(where)]
        names.append({path: path.stat().st_mtime_ns for path in kept.rglob("*.nb?")})
    assert names[0] and names[0] == names[1], "the second process compiles nothing"
    if kind == "zip":  # another version in the same place
        source = tmp_path / "source"
        losses = source / "nnprofile" / "engine" / "losses.py"
        losses.write_text(losses.read_text() + "\n# changed\n")
        shutil.make_archive(str(tmp_path / "zip"), "zip", source)
        run(code, tmp_path, NUMBA_CACHE_DIR=str(kept))
        assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.nb?")} != names[1]


FREEZE = """
import numpy as np, nnprofile as nn
net = nn.Sequential([nn.Dense(2, 1)], rng=np.random.default_rng(0))
score = nn.freeze(net)
score([[1.0, 2.0]])
print(score.compiled, nn.__file__.partition("/nnprofile/")[0], sep="|")
"""


def test_a_stamp_covers_all_modules_and_is_never_that_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    from nnprofile.engine import cache

    stamp = cache._stamp.__wrapped__
    first, content = stamp(), cache._content
    names = []
    monkeypatch.setattr(cache, "_content", lambda name: names.append(name) or content(name))
    assert stamp() == first
    modules = {path.stem for path in (ROOT / "nnprofile" / "engine").glob("*.py")} - {"__init__"}
    assert set(names) == {"nnprofile.engine", *(f"nnprofile.engine.{module}" for module in modules)}
    for changed in names[:]:
        monkeypatch.setattr(cache, "_content", lambda name, changed=changed: content(name) + b"#" * (name == changed))
        assert stamp() != first, changed
    monkeypatch.setattr(cache.pkgutil, "iter_modules", lambda path: [])
    with pytest.raises(ImportError, match="can be read"):
        stamp()
