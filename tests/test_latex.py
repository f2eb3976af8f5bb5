"""LaTeX of a trace: every word of every formula, fractions, matrices, lines that fit, and what pdflatex says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile.formulas.expression import Constant, Quantities, Square, Sum, call
from nnprofile.tracing.latex import LATEX, LINE, escaped, matrix_rows, pieces_of, rows, width
from nnprofile.tracing.presets import PRESETS

from .layer_examples import KINKED, layers

SEED = 0
PREAMBLE = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage[utf8]{inputenc}\usepackage{amsmath,amssymb}"


def net(*layers: nn.Layer) -> nn.Sequential:
    return nn.Sequential(list(layers), rng=np.random.default_rng(SEED))


class My_Layer(nn.Layer):  # noqa: N801  (what LaTeX would take for a subscript)
    """A wrong one of a reader's own."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.tanh(x), np.tanh(x)

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * (1 + cache * cache), nn.Parameters({})


def traces() -> dict[str, nn.Trace]:
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(4, 3))
    made = {
        "softmax": (net(nn.Dense(3, 4), nn.Softmax()), nn.MeanSquaredError(), np.eye(4), nn.SGD(0.1)),
        "leaky ReLU": (
            net(nn.Dense(3, 3), *layers(KINKED), nn.Dense(3, 1)),
            nn.HalfSquaredError(),
            x[:, 0],
            nn.Adam(),
        ),
        "20 parameters": (
            net(nn.Dense(3, 3), nn.Tanh(), nn.Dense(3, 2)),
            nn.SoftmaxCrossEntropy(),
            [0, 1, 1, 0],
            nn.SGD(0.1, momentum=0.9),
        ),
        "many columns": (
            net(nn.Dense(3, 20), nn.Sigmoid(), nn.Dense(20, 15)),
            nn.SoftmaxCrossEntropy(),
            [0, 14, 3, 2],
            nn.SGD(0.1),
        ),
        "losses": (
            net(nn.Dense(3, 2), nn.Identity()),
            nn.Huber(1.0),
            x[:, :2] * 3,
            nn.SGD(0.1, momentum=0.9, nesterov=True),
        ),
        "decay": (
            net(nn.Dense(3, 2), nn.Sigmoid()),
            nn.BinaryCrossEntropy(),
            np.eye(4)[:, :2],
            nn.Adam(weight_decay=0.1),
        ),
        "odd names": (
            net(
                nn.Dense(3, 2),
                type("Odd_Name_100pct", (My_Layer,), {})(),
                type("双曲正切", (My_Layer,), {})(),
                nn.Dense(2, 1),
            ),
            nn.Huber(0.3),
            x[:, 0],
            nn.Adam(0.1),
        ),
        "wrong": (net(nn.Dense(3, 2), My_Layer(), nn.Dense(2, 1)), nn.SigmoidCrossEntropy(), [0, 1, 1, 0], nn.SGD(0.1)),
        "absolute": (
            net(nn.Dense(3, 2), nn.Softmax(), nn.Dense(2, 2)),
            nn.MeanAbsoluteError(),
            np.ones((4, 2)),
            nn.SGD(0.1),
        ),
    }
    found = {name: nn.trace(n, loss, x, y, optimizer) for name, (n, loss, y, optimizer) in made.items()}
    n, loss, y, _ = made["20 parameters"]
    found["weights and L2"] = nn.trace(n, loss, x, y, nn.SGD(0.1), 0.3, sample_weight=[1, 2, 0.5, 1])
    found["saturated"] = nn.trace(
        net(nn.Dense(3, 2), nn.Tanh(), nn.Dense(2, 1)), nn.SigmoidCrossEntropy(), 30 * x, [0, 1, 1, 0]
    )
    return found | {key: preset.trace() for key, preset in PRESETS.items()}


TRACES = traces()


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("{y} = softmax({z1})", r"y = \operatorname{softmax}(z_{1})"),
        ("{a1} = lrelu({z1})", r"a_{1} = \operatorname{lrelu}(z_{1})"),
        ("{a1} = relu({z1})", r"a_{1} = \operatorname{relu}(z_{1})"),
        ("{s1} = lrelu′({z1})", r"s_{1} = \operatorname{lrelu}'(z_{1})"),
        ("{s1} = σ′({z1})", r"s_{1} = \sigma '(z_{1})"),
        ("{dx} = {dy} {W1}ᵀ", r"dx = dy W_{1}^\top"),
        ("{L} = 1/N Σ_n {l}", r"L = \frac{1}{N} \sum_n l"),
        ("{L} = (Σ_n {w} {l}) / Σw", r"L = \frac{\sum_n w l}{\sum w}"),
        ("{dy} = ∂{L}/∂{y}", r"dy = \frac{\partial L}{\partial y}"),
        ("{R} = λ/(2 N) Σ W²", r"R = \frac{\lambda }{2 N} \sum  W^2"),
        ("{l} = −1/K Σ_j [{t} log {p}]", r"l = -\frac{1}{K} \sum_j [t \log p]"),
        ("{l} = ½ Σ_j ({y} − {t})²", r"l = \tfrac{1}{2} \sum_j (y - t)^2"),
        (
            "{W1+} = {W1} − η ({mW1+}/(1 − β₁ᵗ)) / (sqrt({vW1+}/(1 − β₂ᵗ)) + ε)",
            r"W_{1}^{+} = W_{1} - \eta  \frac{\frac{mW_{1}^{+}}{1 - \beta_1^t}}"
            r"{\sqrt{\frac{vW_{1}^{+}}{1 - \beta_2^t}} + \varepsilon }",
        ),
        ("{dz1} = MySigmoid.backward({da1})", r"dz_{1} = \text{MySigmoid}.\text{backward}(da_{1})"),
        ("{dW1} from My_Dense.backward({da1})", r"dW_{1} \text{ from } \text{My\_Dense}.\text{backward}(da_{1})"),
        ("{a1} = 双曲正切({z1})", r"a_{1} = \text{????}(z_{1})"),
    ],
)
def test_formulas_of_whole_arrays(text: str, latex: str) -> None:
    assert LATEX.matrix(text) == latex


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("1e−08", r"1 \cdot 10^{-8}"),
        ("−5.14e−05", r"-5.14 \cdot 10^{-5}"),
        ("2.5e+300", r"2.5 \cdot 10^{300}"),
        ("−0.5", "-0.5"),
    ],
)
def test_numbers(text: str, latex: str) -> None:
    assert LATEX.number(text) == latex
    squared = pieces_of(Square(Quantities("x")["n"]), {"n": 0}, lambda n, i: 1e-8, lambda v: "1e−08")
    assert squared == [r"(1 \cdot 10^{-8})^2"]


def test_formulas_of_elements() -> None:
    x, W = Quantities("x"), Quantities("W1")
    e = -Sum("i", 2, x["n", "i"] * W["i", "j"]) / 2 + Square(1 - x["n", "j"]) * call("max", x["n", "j"], 0)
    assert (
        "".join(pieces_of(e))
        == r"\frac{-(\sum_{i} x_{n,i} \cdot (W_{1})_{i,j})}{2} + (1 - x_{n,j})^2 \cdot \max(x_{n,j}, 0)"
    )
    values = {"x": np.array([[-1.0, 2.0]]), "W1": np.array([[3.0], [-4.0]])}
    numbers = pieces_of(e, {"n": 0, "j": 0}, lambda n, i: float(values[n][i]), lambda v: f"{v:g}".replace("-", "−"))
    assert "".join(numbers) == r"\frac{-(-1 \cdot 3 + 2 \cdot (-4))}{2} + (1 - (-1))^2 \cdot \max(-1, 0)"
    assert "".join(pieces_of(call(">", x["n", "j"], 0) + call("abs", Constant("δ", 1.0)))) == (
        r"[x_{n,j} > 0] + \lvert \delta \rvert "
    )


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("digits", [6, 17])
def test_what_is_written_is_latex(name: str, digits: int) -> None:
    latex = re.sub("^%.*\n", "", TRACES[name].to_latex(digits=digits), flags=re.MULTILINE)
    assert latex.isascii()
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    assert latex.count(r"\begin{align*}") == latex.count(r"\end{align*}") > 10
    assert r"soft\max" not in latex and r"l\operatorname" not in latex and r"\\max" not in latex
    assert r"\frac{" in latex and r"\begin{pmatrix}" in latex
    for formula in re.findall(r"\\begin\{align\*\}\n(.*?)\n\\end\{align\*\}", latex, re.DOTALL):
        for line in formula.split(" \\\\\n"):
            if "pmatrix" not in line and "WRONG" not in line:  # in a smaller type
                assert width(line.replace("&", "")) <= LINE + 25, line


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_a_line_breaks_before_it_is_too_wide(values: list[float]) -> None:
    terms = [f" + {value:.17g}" for value in values]
    found = rows("(dW_{1})_{0,0}", terms, "0.5", r"\text{right}")
    assert "".join(found).count("&") == len(found)
    assert all(width(row.replace("&", "")) <= LINE + 15 for row in found)
    joined = re.sub(r"&?\\quad |\{\}|&|\s", "", "".join(found))
    assert joined == re.sub(r"\s", "", "(dW_{1})_{0,0}=" + "".join(terms) + r"=0.5\text{right}")


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 6))
def test_a_matrix_is_cut_into_blocks_of_columns(n_columns: int, n_rows: int, exponent: int) -> None:
    value = np.arange(n_rows * n_columns).reshape(n_rows, n_columns) * 10.0**exponent
    found = matrix_rows("W1", value, lambda v: f"{v:g}")
    numbers = [re.search(r"\\begin\{pmatrix\} (.*) \\end", row)[1] for row in found]  # type: ignore[index]
    assert all(text.split(r" \\ ")[0].count("&") < 10 for text in numbers)
    cells = [[row.split(" & ") for row in text.split(r" \\ ")] for text in numbers]
    assert [[LATEX.number(f"{v:g}") for v in row] for row in value] == [
        [cell for block in cells for cell in block[r]] for r in range(n_rows)
    ]


@given(st.text(max_size=20))
def test_any_text_is_escaped(text: str) -> None:
    latex = escaped(text)
    bare = re.sub(r"\\[%#&_{}$]|\$.*?\$|\\text\w+\{\}", "", latex)
    assert not re.search(r"[%#&_{}$~^\\<>]", bare)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex: the LaTeX is not compiled")
@pytest.mark.parametrize("name", TRACES)
def test_pdflatex(name: str, tmp_path: Path) -> None:
    for digits in (6, 17):
        text = TRACES[name].to_latex(digits=digits)
        (tmp_path / "step.tex").write_text(
            f"{PREAMBLE}\\begin{{document}}\n{text}\\end{{document}}\n", encoding="utf-8"
        )
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "step.tex"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        log = done.stdout.decode(errors="replace")
        assert done.returncode == 0, log[-2000:]
        overfull = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
        assert max(overfull, default=0.0) <= 20, (digits, overfull)
