"""Does the certificate keep its word? Inject errors of a known size in random directions, and count those that are missed."""

from __future__ import annotations

import numpy as np

from nnprofile.gradcheck.judge import MISSED, N_DIRECTIONS, Judge
from nnprofile.gradcheck.reference import Subject, careful


def calibrate(*, n_checks: int = 2000, n: int = 3000, cancelling: bool = False) -> str:
    """Return a table: errors of some multiples of the certificate, the promised and the observed share that is missed.

    The function is a sum of exponentials; or, cancelling, a logistic regression whose rows come in pairs x and -x of the same
    class, at weights of about 1e-8, where the gradient is a hundred-millionth of its summands.
    """
    rng = np.random.default_rng(0)
    if cancelling:
        half = rng.normal(size=(20, n))
        rows, classes = np.concatenate([half, -half]), np.tile(rng.integers(0, 2, 20), 2)
        x = 1e-8 * rng.normal(size=n)

        def output(arrays: list[np.ndarray]) -> np.ndarray:
            z = rows @ arrays[0]
            return (np.log1p(np.exp(z)) - classes * z).sum()

        def pullback(arrays: list[np.ndarray], dy: np.ndarray) -> list[np.ndarray | None]:
            return [dy * ((1 / (1 + np.exp(-(rows @ arrays[0]))) - classes) @ rows)]

    else:
        x, weights = rng.normal(size=n), rng.normal(size=n)

        def output(arrays: list[np.ndarray]) -> np.ndarray:
            return (weights * np.exp(arrays[0] / 3)).sum()

        def pullback(arrays: list[np.ndarray], dy: np.ndarray) -> list[np.ndarray | None]:
            return [dy * weights * np.exp(arrays[0] / 3) / 3]

    with careful():
        judge = Judge(Subject(["x"], [x], output, pullback), np.ones(()), rng)
        verdict = judge.all()[0]
        right = verdict.yours
        certificate = verdict.row.certificate * float(np.linalg.norm(right))
        lines = [
            f"{n_checks} checks of each size, of a gradient of {n} elements by {N_DIRECTIONS} directions, with an error in a "
            f"random direction{', in a sum that cancels' if cancelling else ''}; the certificate is "
            f"{verdict.row.certificate:.1e} of the gradient's norm.",
            "",
            "| size of the error | missed, promised at most | missed, observed |",
            "|---|---|---|",
        ]
        for multiple in (0.25, 0.5, 0.75, 1.0, 1.5):
            missed = 0
            for _ in range(n_checks):
                e = rng.normal(size=n)
                verdict.yours = right + e * (multiple * certificate / np.linalg.norm(e))
                gaps, _, tolerances = judge.compare(verdict, [rng.normal(size=n) for _ in range(N_DIRECTIONS)])
                missed += bool((gaps <= tolerances).all())
            bound = min(1.0, MISSED * multiple**-N_DIRECTIONS)
            lines.append(f"| {multiple:g} of the certificate | {bound:.2g} | {missed / n_checks:.4f} |")
    return "\n".join(lines)
