"""What ``import nnprofile`` costs and needs, each in a process of its own; and that its names are the documented ones."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nnprofile as nn

from .layer_examples import SEQUENCES, layers

ROOT = Path(__file__).parents[1]
PUBLIC = {
    *nn.layers.__all__,
    *("MeanSquaredError", "HalfSquaredError", "MeanAbsoluteError", "Huber"),
    *("BinaryCrossEntropy", "SigmoidCrossEntropy", "SoftmaxCrossEntropy", "PoissonLoss"),
    *("SGD", "Adam", "StepDecay", "ExponentialDecay", "CosineDecay"),
    *(
        "fit",
        "objective",
        "History",
        "EarlyStopping",
        "DivergenceError",
    ),
    *("freeze", "FrozenNetwork", "warmup", "use_engine"),
    *("check_function", "check_layer", "check_loss", "check_network", "check_step", "GradCheckReport", "hvp"),
    *("trace", "Trace"),
    *("MLPClassifier", "MLPRegressor"),
    *("to_onnx", "to_c"),
    *("fit_shards", "summarize", "fit_private", "check_private"),
    *("save", "load", "Saved", "ModelFileError", "Layer", "Loss", "Optimizer", "Parameters", "Ragged", "initializers"),
}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_adds_only_our_own_modules_to_numpys() -> None:
    """No scipy, no numba, none of the standard library's slower modules, and no numpy.random before it is needed."""
    added = run(
        """
        import sys, numpy
        before = set(sys.modules)
        import nnprofile
        print(*sorted(name for name in set(sys.modules) - before if not name.startswith("nnprofile")))
        """
    ).split()
    assert set(added) <= {"copy", "org", "org.python", "org.python.core", "__future__", "contextlib"}


def test_only_numpy_is_needed() -> None:
    """Every other third-party import fails, and training, saving, loading still work."""
    run(
        """
        import sys
        class Nothing:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {"scipy", "numba", "llvmlite", "tqdm", "sklearn", "pandas", "safetensors"}:
                    raise ImportError(name)
        sys.meta_path.insert(0, Nothing())
        import numpy as np, nnprofile as nn, tempfile, os
        rng = np.random.default_rng(0)
        net = nn.Sequential([nn.Dense(2, 3), nn.ReLU(), nn.Dense(3, 1)], rng=rng)
        nn.fit(net, nn.SigmoidCrossEntropy(), nn.Adam(), [[0, 1], [1, 0]], [0, 1], n_epochs=2, rng=rng, progress=True)
        from nnprofile.functions import erfc
        assert erfc(np.array([0.0, np.inf], np.float32)).tolist() == [1.0, 0.0]
        with tempfile.TemporaryDirectory() as folder:
            nn.save(net, os.path.join(folder, "a"), rng=rng)
            assert (nn.load(os.path.join(folder, "a")).net.params.vector == net.params.vector).all()
        """
    )


def test_nothing_process_wide_changes() -> None:
    run(
        """
        import os, signal, warnings
        import numpy as np
        before = dict(os.environ), np.geterr(), list(warnings.filters), signal.getsignal(signal.SIGINT), np.get_printoptions()
        import nnprofile as nn
        rng = np.random.default_rng(0)
        net = nn.Sequential([nn.Dense(1, 1)], rng=rng)
        nn.fit(net, nn.MeanSquaredError(), nn.SGD(0.1), [[1]], [1], n_epochs=1, rng=rng)
        after = dict(os.environ), np.geterr(), list(warnings.filters), signal.getsignal(signal.SIGINT), np.get_printoptions()
        assert before == after
        """
    )


def test_the_public_names_are_the_documented_ones() -> None:
    modules = {path.stem for path in (ROOT / "nnprofile").iterdir()}
    assert {name for name in dir(nn) if not name.startswith("_")} - modules == PUBLIC - {"initializers"} | {
        "TYPE_CHECKING"
    }
    assert all(hasattr(nn, name) for name in PUBLIC) and not hasattr(nn, "relu")
    documented = (ROOT / "docs" / "api.md").read_text()
    assert "automodule:: nnprofile.layers" in documented
    missing = [name for name in PUBLIC - {*nn.layers.__all__} if name not in documented]
    assert not missing


def test_every_public_layer_is_in_the_registry_and_has_its_example() -> None:
    public = {cls for cls in vars(nn).values() if isinstance(cls, type) and issubclass(cls, nn.Layer)}
    composites = set(nn.layers.COMPOSITES)
    examples = {type(layer) for layer in layers()} | {type(make()) for make, _ in SEQUENCES} - composites
    assert examples == set(nn.layers.LAYERS) == public - {nn.Layer, *composites}
    assert {cls.__name__ for cls in (*nn.layers.LAYERS, *composites)} == set(nn.layers.__all__)
    assert {loss for loss in vars(nn).values() if isinstance(loss, type) and issubclass(loss, nn.Loss)} == {
        nn.Loss,
        *nn.losses.LOSSES,
    }


def test_the_wheel_holds_every_package() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in (ROOT / "nnprofile").rglob("__init__.py")
    }
    assert set(listed) == folders


def test_imports_point_one_way() -> None:
    """The order of the reading list in ``nnprofile/__init__.py`` is the order of imports: no module looks ahead."""
    order = [
        "parameters",
        "tables",
        "ragged",
        "contract",
        "initializers",
        "validation",
        "functions",
        "formulas",
        "layers",
        "losses",
        "optimizers",
        "objectives",
        "engine",
        "_session",
        "history",
        "training",
        "frozen",
        "safetensors",
        "modelfile",
        "shards",
        "privacy",
        "gradcheck",
        "tracing",
        "estimators",
        "export",
    ]
    package = ROOT / "nnprofile"
    found = [path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert {path.stem for path in found} - {"__init__", "__main__"} == set(order)
    for name in order:
        files = [(path, "from ..") for path in (package / name).glob("*.py")] or [(package / f"{name}.py", "from .")]
        for path, outside in files:
            for line in map(str.strip, path.read_text().splitlines()):
                if line.startswith(outside):
                    module, _, names = line.removeprefix(outside).partition(" import ")
                    for used in [module] if module else names.split(", "):
                        if used == "__version__":
                            continue
                        assert order.index(used.partition(".")[0]) < order.index(name), f"{path.name}: {line}"


def test_only_the_engine_knows_numba() -> None:
    for path in (ROOT / "nnprofile").rglob("*.py"):
        if path.parent.name != "engine":
            assert not re.search(r"^ *(from|import) (numba|llvmlite)", path.read_text(), re.M), path
