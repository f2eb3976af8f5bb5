"""Run scikit-learn's own tests of its multi-layer perceptrons on ours: python tests/run_scikit_learns_tests.py

The file of the installed scikit-learn is read, one import in it replaced, and handed to pytest. Two tests are left out: they set
or call private attributes of scikit-learn's implementation.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

LEFT_OUT = {
    "test_fit": "sets coefs_, _coef_grads, _intercept_velocity and the like, and goes on from them",
    "test_gradient": "calls _loss_grad_lbfgs",
}
THEIRS = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
OURS = "from nnprofile import MLPClassifier, MLPRegressor"


def main() -> int:
    """Return pytest's exit status."""
    source = metadata.distribution("scikit-learn").locate_file("sklearn/neural_network/tests/test_mlp.py")
    text = Path(str(source)).read_text("utf-8")
    if text.count(THEIRS) != 1:
        raise SystemExit(f"{source} does not import its estimators as expected")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test_mlp.py"
        path.write_text(text.replace(THEIRS, OURS), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "sklearn.conftest",
            "-c",
            "/dev/null",
        ]
        command += [f"--rootdir={folder}", *(f"--deselect={path}::{name}" for name in LEFT_OUT)]
        command += [f"--deselect=test_mlp.py::{name}" for name in LEFT_OUT]
        return subprocess.run([*command, str(path)], cwd=Path(__file__).parents[1], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
