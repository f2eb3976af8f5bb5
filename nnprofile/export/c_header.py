"""``to_c``: a network or an estimator as one C header, without a library, an allocation, or a warning."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..contract import Array, Layer, Loss
from ..layers import GRU, Dense, Embedding, LastEvent, LayerNorm, Parallel, Residual, Sequential
from ..layers.compose import is_open, kind_of
from ..layers.walk import chain
from ..safetensors import write_whole
from .layers import DO_NOTHING, EVENT_FUNCTIONS, ROW_FUNCTIONS, c_expression, expression_of
from .source import Source, n_outputs, source_of

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_PER_LINE = 5
_STATE = """\
   Of a sequence, event by event: state holds what is remembered, {n} numbers, zeros before the first event; it is changed.
   What is written is the prediction after this event. """
_HELPERS = {
    "dense": """\
/* y = x W + b, with W row by row: n_out numbers lead from x[0] to all y, the next from x[1]. */
static inline void {name}_dense(const {T} *x, int n_in, const {T} *W, const {T} *b, int n_out, {T} *y)
{{
    int i, j;
    for (j = 0; j < n_out; ++j) y[j] = b[j];
    for (i = 0; i < n_in; ++i, W += n_out)
        for (j = 0; j < n_out; ++j) y[j] += x[i] * W[j];
}}
""",
    "layer_norm": """\
/* y_j = g_j (y_j - m) / sqrt(v + epsilon) + b_j, in place, with the mean m and the variance v of all y. */
static inline void {name}_layer_norm({T} *y, int n, const {T} *g, const {T} *b, {T} epsilon)
{{
    {T} m = 0, v = 0;
    int j;
    for (j = 0; j < n; ++j) m += y[j];
    m /= n;
    for (j = 0; j < n; ++j) v += (y[j] - m) * (y[j] - m);
    v = sqrt{f}(v / n + epsilon);
    for (j = 0; j < n; ++j) y[j] = g[j] * ((y[j] - m) / v) + b[j];
}}
""",
    "gru": """\
/* One event of a GRU: h = (1 - z) m + z h, with r, z = 1 / (1 + exp(-a - u)), m = tanh(a + r u), a = x W + b, u = h U + c, three
   gates of n numbers each. a is memory for 6 n numbers. */
static inline void {name}_gru(
    const {T} *x, int n_in, const {T} *W, const {T} *b, const {T} *U, const {T} *c, int n, {T} *h, {T} *a)
{{
    {T} *u = a + 3 * n;
    int j;
    {name}_dense(x, n_in, W, b, 3 * n, a);
    {name}_dense(h, n, U, c, 3 * n, u);
    for (j = 0; j < n; ++j) {{
        {T} r = 1 / (1 + exp{f}(-a[j] - u[j])), z = 1 / (1 + exp{f}(-a[n + j] - u[n + j]));
        h[j] = (1 - z) * tanh{f}(a[2 * n + j] + r * u[2 * n + j]) + z * h[j];
    }}
}}
""",
    "softmax": """\
/* y_j = exp(y_j) / sum_k exp(y_k), in place; the largest is taken off first, so that nothing overflows. */
static inline void {name}_softmax({T} *y, int n)
{{
    {T} top = y[0], total = 0;
    int j;
    for (j = 1; j < n; ++j)
        if (y[j] > top) top = y[j];
    for (j = 0; j < n; ++j) total += y[j] = exp{f}(y[j] - top);
    for (j = 0; j < n; ++j) y[j] /= total;
}}
""",
}


def to_c(
    model: Any,
    path: str | os.PathLike[str] | BinaryIO,
    *,
    loss: Loss | None = None,
    name: str | None = None,
    dtype: DTypeLike | None = None,
) -> None:
    """Write a network or an estimator as one C header: static functions without allocation, for C99 and C++.

    For a model called ``name`` it defines::

        NAME_N_FEATURES, NAME_N_OUTPUTS              how many numbers go in and out
        void NAME_score(const double *x, double *y)  one row: link(net(x)); of a classifier, all probabilities
        int NAME_class(const double *x)              of a classifier of one label a row: the place of its label in
        NAME_classes[]                               the labels: long (long long, from 2^31 on) or const char *

    with ``float`` for a network of float32. A network on sequences, of which GRU, Embedding and LastEvent can be written,
    becomes a function of one event and a state, for scores that follow what a customer does::

        NAME_N_STATE                                             how many numbers it remembers
        void NAME_score(const double *x, double *state, double *y)   one event: state is changed; y is the prediction after it

    with ``long x``, where events are ids. The numbers are those of the library to rounding. The functions may be called
    from many threads; they check nothing: x must have NAME_N_FEATURES finite numbers, and y lie elsewhere. On the stack they
    need one or two rows of the widest layer, and one of outputs; the header says how many bytes. Names must differ by more
    than their case. Each source file that includes the header has its own copy of the weights.

    Parameters
    ----------
    model : Layer, MLPClassifier, MLPRegressor, or a Pipeline of scalers and one of these
        StandardScaler, MinMaxScaler, MaxAbsScaler and RobustScaler become part of the first Dense. The parts of a tuple x lie
        one behind the other in a row.
    path : path or binary file
        Written whole or not at all.
    loss : Loss, optional
        Of a network: its link is applied to the output, as by ``freeze``.
    name : str, optional
        By default the file's name without its extension; an open file may have none.
    dtype : float64 or float32, optional
        Of the numbers in the header; by default that of the network.

    Raises
    ------
    ValueError
        If the model is none of these, a layer has no form in C, a parameter is not finite, or the name is not a valid C
        identifier.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from nnprofile import Dense, ReLU, Sequential
    >>> net = Sequential([Dense(1, 1), ReLU()], rng=None)
    >>> net.params.vector = [2.0, 0.5]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     to_c(net, folder + "/tiny.h")
    ...     text = pathlib.Path(folder, "tiny.h").read_text()
    >>> print(text[text.index("static inline void tiny_score"):])
    static inline void tiny_score(const double *x, double *y)
    {
        int i;
        tiny_dense(x, 1, tiny_W0, tiny_b0, 1, y);
        for (i = 0; i < 1; ++i) y[i] = y[i] <= 0.0 ? 0.0 : y[i];
    }
    <BLANKLINE>
    #endif
    <BLANKLINE>
    """
    source = source_of(model, loss, dtype, "to_c")
    if name is None:
        given = path if isinstance(path, (str, os.PathLike)) else str(getattr(path, "name", ""))
        name = os.path.splitext(os.path.basename(os.fspath(given)))[0]
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"{name!r} is not a valid C identifier; pass name=: letters, digits and _, a letter first")
    with np.printoptions(legacy=False):  # whose shorter float32 would be another number
        text = "".join(_header(source, name, repr(model)))
    write_whole(path, text.encode("ascii"))


def _header(source: Source, name: str, described: str) -> Iterator[str]:
    """Yield the pieces of the file."""
    from .. import __version__

    binary = source.is_binary
    T, f = ("double", "") if source.dtype == np.float64 else ("float", "f")
    n_written = 2 if binary else source.n_outputs
    widths = flat_widths(source.n_features)
    if "ids" in widths and len(widths) > 1:
        raise ValueError(f"to_c writes networks of ids or of numbers, not of both; got a tuple of {source.n_features}")
    n_features = 1 if "ids" in widths else sum(widths)
    body = _Body(source, name, f)
    arrays, lines = body.arrays, body.lines
    shown = described if len(described) <= 200 else f"{described[:200]}..."
    shown = re.sub(r"\*/|/\*|[^ -~]", "?", shown)
    stack = (sum(arrays.values()) + (0 if source.labels is None else n_written)) * source.dtype.itemsize
    yield f"""\
/* {name}: written by nnprofile {__version__} from
   {shown}
   For C99 or C++. It needs <math.h>, {stack} bytes on the stack for arrays, and nothing else. */
#ifndef NNPROFILE_{name.upper()}_H
#define NNPROFILE_{name.upper()}_H

#include <math.h>

#define {name.upper()}_N_FEATURES {n_features}
#define {name.upper()}_N_OUTPUTS {n_written}
{f"#define {name.upper()}_N_STATE {body.n_state}{chr(10)}" if body.n_state else ""}
"""
    kinds = {(ROW_FUNCTIONS | EVENT_FUNCTIONS).get(type(layer)) for layer in body.written}
    kinds |= {"dense"} if "gru" in kinds else set()
    for k, layer in enumerate(body.weighted):
        for part in layer.params:
            yield f"static const {T} {name}_{part}{k}[] = {_numbers(layer.params[part].astype(source.dtype))};\n"
    for helper, text in _HELPERS.items():
        if helper in kinds:
            yield "\n" + text.format(name=name, T=T, f=f)

    means = "the probability of each class" if source.is_classifier else "the prediction"
    row = "one row" if not source.net.mixes_events else "one event"
    x = f"{row} x, {n_features} numbers," if "ids" not in widths else f"{row}, the id x,"
    to = f"y, {n_written} number{'s' * (n_written > 1)}, which x does not overlap"
    state = _STATE.format(n=body.n_state) if body.n_state else ""
    given = ["long x" if "ids" in widths else f"const {T} *x", *[f"{T} *state"] * bool(body.n_state), f"{T} *y"]
    yield f"""
/* Write {means} of {x} to {to}.{f"{chr(10)}{state}" if state else " "}*/
static inline void {name}_score({", ".join(given)})
{{
"""
    if arrays:
        yield f"    {T} {', '.join(f'{array}[{width}]' for array, width in sorted(arrays.items()))};\n"
    if any("[i]" in line for line in lines):
        yield "    int i;\n"
    yield from (f"    {line}\n" for line in lines)
    yield "    y[1] = y[0];\n    y[0] = 1 - y[1];\n}\n" if binary else "}\n"
    if source.labels is not None:
        yield from _labels(source.labels, name, T, n_written, binary=binary)
    yield "\n#endif\n"


class _Body:
    """The lines of the score function, and the arrays on the stack that they need.

    A layer is given where its x lies; one that changes numbers in place may do so where no other layer reads them.
    """

    def __init__(self, source: Source, name: str, f: str) -> None:
        self.source, self.name, self.f = source, name, f
        self.arrays: dict[str, int] = {}
        self.lines: list[str] = []
        self.free: list[str] = []
        self.kept = {"x"}  # what must stay as it is
        self.written: list[Layer] = []
        self.weighted: list[Layer] = []
        self.n_state = 0
        steps = [*(layer for layer, _ in chain(source.net)), *source.link]
        makes = (Dense, GRU, Embedding)  # that write where they are told; all others change what is there
        last = max((i for i, layer in enumerate(steps) if isinstance(layer, makes) or is_open(layer)), default=-1)
        at, width = self.given("x", source.n_features), source.n_features
        for i, layer in enumerate(steps):
            at, width = self.write(layer, at, width, "y" if i == last else None)
        if at != "y":
            self.each(width, f"y[i] = {at}[i]")

    def given(self, at: str, widths: Any) -> Any:
        """Return where x lies: of a tuple, where its parts do."""
        if not isinstance(widths, tuple):
            return at
        starts = np.cumsum([0, *(sum(flat_widths(width)) for width in widths)])
        return tuple(
            self.given(f"({at} + {start})" if start else at, width)
            for start, width in zip(starts, widths, strict=False)
        )

    def take(self, width: int) -> str:
        """Return an array of so many numbers."""
        name = self.free.pop(0) if self.free else _array_name(len(self.arrays))
        self.arrays[name] = max(self.arrays.get(name, 0), width)
        return name

    def release(self, at: str) -> None:
        """Let an array be used again, if it is one, and nothing reads it any more."""
        if at in self.arrays and at not in self.kept:
            self.free = sorted({*self.free, at})

    def write(self, layer: Layer, at: Any, width: Any, to: str | None = None) -> tuple[str, int]:
        """Write a layer; return where y lies, which is ``to``, if that is given, and its width."""
        if is_open(layer):
            return self.branches(layer, at, width, to)
        if isinstance(layer, Dense):
            goal = to or self.take(layer.out_features)
            k, name = self.numbered(layer), self.name
            self.lines.append(f"{name}_dense({at}, {width}, {name}_W{k}, {name}_b{k}, {layer.out_features}, {goal});")
            self.release(at)
            return goal, layer.out_features
        if isinstance(layer, GRU):
            return self.gru(layer, at, width, to)
        if isinstance(layer, Embedding):
            goal, k = to or self.take(layer.features), self.numbered(layer)
            self.each(layer.features, f"{goal}[i] = {self.name}_E{k}[{at} * {layer.features} + i]")
            return goal, layer.features
        if type(layer) in (*DO_NOTHING, LastEvent):
            return at, width
        if at not in (*self.arrays, "y") or at in self.kept:
            goal = self.take(width)
            self.each(width, f"{goal}[i] = {at}[i]")
            at = goal
        self.in_place(layer, at, width)
        return at, width

    def gru(self, layer: GRU, at: str, width: int, to: str | None) -> tuple[str, int]:
        """Write a GRU, whose h lies in the state."""
        n, k, name = layer.out_features, self.numbered(layer), self.name
        memory, goal = self.take(6 * n), to or self.take(n)
        h = f"(state + {self.n_state})" if self.n_state else "state"
        self.n_state += n
        W, b, U, c = (f"{name}_{part}{k}" for part in ("W", "b", "U", "c"))
        self.lines.append(f"{name}_gru({at}, {width}, {W}, {b}, {U}, {c}, {n}, {h}, {memory});")
        self.each(n, f"{goal}[i] = {h}[i]")
        self.release(memory)
        self.release(at)
        return goal, n

    def in_place(self, layer: Layer, at: str, width: int) -> None:
        """Write a layer that changes numbers where they are."""
        self.written.append(layer)
        name, number = self.name, self.number
        if isinstance(layer, LayerNorm):
            k = self.numbered(layer)
            epsilon = number(layer.epsilon_in(self.source.dtype))
            self.lines.append(f"{name}_layer_norm({at}, {width}, {name}_g{k}, {name}_b{k}, {epsilon});")
        elif type(layer) in ROW_FUNCTIONS:
            self.lines.append(f"{name}_{ROW_FUNCTIONS[type(layer)]}({at}, {width});")
        else:
            self.each(width, f"{at}[i] = {c_expression(expression_of(layer), f'{at}[i]', number, self.f)}")

    def branches(self, layer: Layer, at: Any, width: Any, to: str | None) -> tuple[str, int]:
        """Write a composite."""
        if kind_of(layer) is Sequential:
            for child in layer.children:
                at, width = self.write(child, at, width)
            if to is not None:
                self.each(width, f"{to}[i] = {at}[i]")
                self.release(at)
            return to or at, width
        mine = {at} - self.kept if isinstance(at, str) else set()
        self.kept |= mine
        if kind_of(layer) is Residual:
            end, _ = self.write(layer.children[0], at, width)
            goal = to or (end if end != at and end in self.arrays else self.take(width))
            self.each(width, f"{goal}[i] = {at}[i] + {end}[i]")
            ends, total = [end], width
        else:
            total = n_outputs(layer, width)
            goal, start, ends = to or self.take(total), 0, []
            given = at if kind_of(layer) is Parallel else [at] * len(layer.children)
            widths = width if kind_of(layer) is Parallel else [width] * len(layer.children)
            for child, part, n in zip(layer.children, given, widths, strict=True):
                end, n_end = self.write(child, part, n)
                self.each(n_end, f"{goal}[{start} + i] = {end}[i]" if start else f"{goal}[i] = {end}[i]")
                start += n_end
                if end != part:
                    self.release(end)
        self.kept -= mine
        for one in (*ends, *([at] if isinstance(at, str) else ())):
            if one != goal:
                self.release(one)
        return goal, total

    def numbered(self, layer: Layer) -> int:
        """Note a layer with parameters; return its number."""
        self.weighted.append(layer)
        if layer not in self.written:
            self.written.append(layer)
        return len(self.weighted) - 1

    def each(self, width: int, line: str) -> None:
        """Write a line for each number of a row."""
        self.lines.append(f"for (i = 0; i < {width}; ++i) {line};")

    def number(self, value: float) -> str:
        """Return a number in the header's dtype."""
        with np.errstate(over="ignore"):
            rounded = self.source.dtype.type(value)
        if not np.isfinite(rounded):
            raise ValueError(f"a layer's setting, {value}, has no finite value in {self.source.dtype}")
        return f"({_number(rounded)})" if rounded < 0 else _number(rounded)


def _array_name(k: int) -> str:
    return "abcdefgh"[k] if k < 8 else f"a{k}"


def flat_widths(widths: Any) -> list[Any]:
    """Return the widths of all parts of x."""
    return [n for part in widths for n in flat_widths(part)] if isinstance(widths, tuple) else [widths]


def _labels(labels: Array, name: str, T: str, n_outputs: int, *, binary: bool) -> Iterator[str]:
    """Yield the classes, and the function that says which."""
    values = labels.tolist()
    if labels.dtype == object:
        kind, items = "const char *const", [_text(label) for label in values]
    elif max(map(abs, values)) < 1 << 31:  # a long may have no more
        kind, items = "const long", [f"{label}L" for label in values]
    else:
        kind, items = "const long long", [f"{label}LL" for label in values]
    yield f"""
static {kind} {name}_classes[] = {{{", ".join(items)}}};

/* Return the place in {name}_classes of the label of one row x. */
static inline int {name}_class(const {T} *x)
{{
    {T} p[{n_outputs}];
"""
    if binary:
        yield f"    {name}_score(x, p);\n    return p[1] > ({T})0.5;\n}}\n"
    else:
        yield f"""\
    int j, best = 0;
    {name}_score(x, p);
    for (j = 1; j < {n_outputs}; ++j)
        if (p[j] > p[best]) best = j;
    return best;
}}
"""


def _numbers(a: Array) -> str:
    """Return a list for C, with the fewest digits that give each number back."""
    texts = [_number(number) for number in a.ravel()]
    lines = [", ".join(texts[i : i + _PER_LINE]) for i in range(0, len(texts), _PER_LINE)]
    return "{" + ",\n    ".join(lines) + "}"


def _number(number: Any) -> str:
    text = repr(number.item()) if number.dtype == np.float64 else str(number)
    return text + ("f" if number.dtype == np.float32 else "")


def _text(label: str) -> str:
    """Return a string of C: bytes of UTF-8 outside of ASCII, quotes and the like in octal."""
    plain = set(b" -_.,;:()<>=+/&") | {b for b in range(128) if chr(b).isalnum()}
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in label.encode()) + '"'
