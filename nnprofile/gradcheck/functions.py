"""Two plain functions, f and its derivative, whatever form that has: recognised by names, number of arguments, and shapes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any

import numpy as np

from ..contract import Array
from .foreign import ForeignError, foreign
from .procedures import Between, Procedure
from .stateful import methods_of_one
from .tree import Missing, extra_names, is_branch, items, leaves, pick, rebuild
from .world import World, describe

# What people call dy: tells where it goes.
COTANGENTS = frozenset(
    (
        *("dy", "dout", "d_out", "dz", "da", "dh", "dl", "dL", "dloss", "dvalues", "delta", "g", "gy", "gz", "gout"),
        *("grad", "grad_y", "grad_out", "grad_output", "grad_outputs", "gradient", "upstream", "upstream_grad"),
        *("ct", "cot", "cotangent", "cotangents", "v", "vec", "ybar", "y_bar", "bar"),
    )
)


CACHES = frozenset(("cache", "ctx", "saved", "memory", "tape", "context", "residuals"))


class FunctionProcedure(Procedure):
    """Two plain functions, f(*args) and its derivative.

    Attributes
    ----------
    form : str
        What grad returns: "gradient" (of a number), "cotangent" (a vector-Jacobian product), "cache" (one of dy and what f
        has returned beside y), "derivative" (elementwise), "Jacobian", or "gradient and Hessian" (of each sample).
    notes : list of str
        What was taken for what.
    """

    returns_cache = False

    def __init__(
        self,
        f: Callable[..., Any],
        grad: Any,
        args: tuple[Any, ...],
        wrt: Any = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if grad is True:  # as scipy's jac=True: f returns both
            both = f
            f = _named(lambda *a, **k: both(*a, **k)[0], both)
            grad = _named(lambda *a, **k: both(*a, **k)[1], both)
        if not callable(f) or not callable(grad):
            raise ValueError(f"check_function takes two functions and their arguments, got {f!r} and {grad!r}")
        # Two methods of one object are those of its copy; what a function refers to cannot be copied, and is put back.
        self.world = World(f, grad, copied=isinstance(f, MethodType) and isinstance(grad, MethodType))
        self.f, self.grad = self.world.objects
        self.args, self.only_dy, self.kwargs = args, False, dict(kwargs or {})
        self.form, self.transposed, self.misshapen = "gradient", False, ""
        self.first: bool | None = None
        self.notes: list[str] = []
        self.extra: list[str] = []
        self.labels = _labels(f, args)
        self.tree = dict(zip(self.labels, args, strict=True))
        self.selected = self._select(wrt)
        try:
            self._name_leaves()
            self.world.observe()
            y = self._y(self.f(*self.arguments(self.copies(self.point)), **self.kwargs))
            self.world.observe()
            self.world.reset()
            self._find_form(y, wrt is not None)
        except BaseException:
            self.world.close()
            raise

    def _select(self, wrt: Any) -> list[int]:
        """Return the numbers of the arguments to differentiate by."""
        floats = [i for i, a in enumerate(self.args) if any(True for _ in leaves(a))]
        if wrt is None:
            return floats
        wanted = [wrt] if isinstance(wrt, (str, int)) else list(wrt)
        found: list[Any] = [self.labels.index(w) if w in self.labels else w for w in wanted]
        bad = [w for w, i in zip(wanted, found, strict=True) if isinstance(i, bool) or i not in floats]
        if bad or not found:
            raise ValueError(
                f"wrt must name arguments of floats, of {', '.join(self.labels[i] for i in floats) or 'none'}; got {wrt!r}"
            )
        return sorted(found)

    def _name_leaves(self) -> None:
        """Name the tensors, which are the leaves of the selected arguments."""
        pairs = [pair for i in self.selected for pair in leaves({self.labels[i]: self.args[i]})]
        if len(self.args) == 1 and is_branch(self.args[0]):
            pairs = [(name.removeprefix(f"{self.labels[0]}."), leaf) for name, leaf in pairs]
        if not pairs:
            raise ValueError(
                f"{describe(self.f)} got no argument of floats, so there is nothing to differentiate by; "
                f"got {', '.join(_kind(a) for a in self.args) or 'no arguments'}"
            )
        self.names = [name for name, _ in pairs]
        self.point = [np.asarray(leaf) for _, leaf in pairs]

    # -- what grad returns

    def _find_form(self, y: Array, chosen: bool) -> None:
        """Find out how grad is called, and what it returns."""
        n, size = len(self.args), y.size
        names, required, is_open, known = _positional(self.grad)
        takes_n = len(required) <= n and (len(names) >= n or is_open)
        takes_more = len(required) <= n + 1 and (len(names) >= n + 1 or is_open)
        if takes_n and len(names) > n and names[n] not in COTANGENTS and not is_open:
            takes_more = False  # an option: grad(x, alpha=1.0)
        if is_open and takes_n and takes_more and not self._takes_cotangent(y):
            takes_more = False
        leads = bool(names) and names[0] in COTANGENTS and names[0] not in self.tree
        if self._has_cache(names, required):
            self.form, self.takes_cotangent = "cache", True
        elif takes_more and leads:
            self.form, self.first = "cotangent", True
        elif takes_more and not (size == 1 and takes_n) and known:
            self.form = "cotangent"
            if len(names) > n and names[n] in COTANGENTS:
                self.first = False
            elif names[1 : n + 1] == self.labels or names[:n] == self.labels:
                self.first = names[:n] != self.labels
        elif size == 1 and takes_n:
            self._find_derivative(y, chosen)
        elif (
            len(names) == 1
            and not takes_more
            and (leads or (size != 1 and methods_of_one(self.f, self.grad) is not None))
        ):
            self.form, self.only_dy = "cotangent", True
        elif takes_n:
            self._find_derivative(y, chosen)
        elif len(required) < len(self.selected) or not names:
            raise ValueError(
                f"{describe(self.grad)} must take {n} arguments, as {describe(self.f)} does, or a cotangent too"
            )
        else:
            raise ValueError(
                f"{describe(self.f)} returns {size} numbers, so {describe(self.grad)} must take a cotangent of their "
                f"shape before or after its {n} arguments: grad(dy, *args); or return the derivative: grad(*args)"
            )
        self.takes_cotangent = self.form in ("cotangent", "cache", "derivative", "Jacobian")
        if self.form == "cotangent" and not self.only_dy and not chosen and len(self.selected) > 1:
            self._try_constants(y)

    def _takes_cotangent(self, y: Array) -> bool:
        """Tell whether grad(*args), which says nothing of its arguments, can be called with a cotangent beside those of f."""
        args, before, kept = self.arguments(self.copies(self.point)), self.first, self.form
        try:
            with foreign():
                out = self.f(*args, **self.kwargs)
            self.form = "cotangent"
            self._call_grad(args, out, self._unflat(out, np.ones(y.shape, y.dtype)))
        except ForeignError:  # it cannot, whatever the reason
            return False
        else:
            return True
        finally:
            self.first, self.form = before, kept
            self.world.reset()

    def _try_constants(self, y: Array) -> None:
        args, before = self.arguments(self.copies(self.point)), self.first
        try:
            with foreign():
                out = self.f(*args, **self.kwargs)
            self._take_constants(self._call_grad(args, out, self._unflat(out, np.ones(y.shape, y.dtype))))
        except ForeignError:  # which the contracts report
            return
        finally:
            self.first = before
            self.world.reset()

    def _has_cache(self, names: list[str], required: list[str]) -> bool:
        """Tell whether f returns (y, cache) and grad takes (dy, cache), as in CS231n's exercises."""
        if len(required) != 2 or not (names[1] in CACHES or (names[0] in COTANGENTS and len(self.args) != 1)):
            return False
        out = self.f(*self.arguments(self.copies(self.point)), **self.kwargs)
        self.world.reset()
        found = isinstance(out, tuple) and len(out) == 2 and not hasattr(out, "_fields")
        return found and isinstance(out[0], np.ndarray | np.floating) and np.asarray(out[0]).dtype.kind == "f"

    def _find_derivative(self, y: Array, chosen: bool) -> None:
        """Of a grad of the same arguments as f: tell by shapes what it returns, and by which arguments."""
        try:
            out = self._returned(self.arguments(self.copies(self.point)))
        except ForeignError:  # which the contracts report
            return
        finally:
            self.world.reset()
        if not chosen:
            self._take_constants(out)
        only = self.args[self.selected[0]]
        single = (
            len(self.selected) == 1 and isinstance(only, (np.ndarray, float, np.floating, list)) and not is_branch(only)
        )
        pair = single and np.ndim(only) and isinstance(out, (tuple, list)) and len(out) == 2
        if pair and all(np.shape(part) == np.shape(only) for part in out):
            self.form = "gradient and Hessian"
            self.notes.append(
                f"grad returns two arrays of the shape of {self.names[0]}: taken for gradient and Hessian, sample by sample"
            )
            return
        if (y.size == 1 and y.ndim == 0) or (not single and y.size == 1):
            if single and np.ndim(only) == 1 and np.shape(out) == (len(only), len(only)) and len(only) > 1:
                raise ValueError(
                    f"grad returned a matrix of shape {np.shape(out)}, as a Hessian is; check it against the gradient: "
                    "check_function(gradient, hessian, x)"
                )
            return
        parts = [out] if len(self.selected) == 1 else list(out) if isinstance(out, (tuple, list)) else [out]
        if single and np.shape(out) == self.point[0].shape == y.shape:
            self.form = "derivative"
            self.notes.append("grad takes no cotangent: taken for the elementwise derivative of f")
        elif all(np.size(part) == y.size * np.size(a) for part, a in zip(parts, self.point, strict=False)):
            self.form = "Jacobian"
            self.notes.append("grad takes no cotangent: taken for the Jacobian matrix of f")
        elif y.size != 1:
            self.form = "Jacobian"
            shapes = ", ".join(str(np.shape(part)) for part in parts)
            self.misshapen = (
                f"f returns an array of shape {y.shape}, so grad must take a cotangent of its shape, grad(dy, *args), or return "
                f"an elementwise derivative or a Jacobian matrix; it returned shape {shapes}: summed, or without a part?"
            )

    def _take_constants(self, out: Any) -> None:
        """Differentiate by the first arguments only, if there are no gradients of the others, as scipy's check_grad does."""
        n, first = len(self.selected), self.args[self.selected[0]]
        if n == 1:
            return
        if not isinstance(out, (tuple, list, Mapping)):
            n = 1
        elif isinstance(out, Mapping):
            keys = (
                {key for key in out for name in (key, str(key).removeprefix("d")) if name in first}
                if isinstance(first, Mapping)
                else ()
            )
            n = 1 if keys and not set(out) <= set(self.tree) else n
        elif len(out) < n and len(out) != len(self.args):
            shapes = [np.shape(self.args[i]) for i in self.selected]
            rest = [self.args[i] for i in self.selected[len(out) :]]
            if [np.shape(part) for part in out] == shapes[: len(out)] and all(np.ndim(a) == 0 for a in rest):
                n = len(out)
        if n == len(self.selected):
            return
        taken, others = ([self.labels[i] for i in some] for some in (self.selected[:n], self.selected[n:]))
        self.selected = self.selected[:n]
        self._name_leaves()
        self.notes.append(
            f"grad returns {n} gradient{'s' * (n > 1)}: taken for {', '.join(taken)}; {', '.join(others)} "
            f"{'is a constant' if len(others) == 1 else 'are constants'} (wrt= names others)"
        )

    @property
    def draws_again(self) -> bool:
        """Whether grad computes f anew, and so must draw again what f has drawn; of a cotangent f has gone before."""
        return self.form not in ("cotangent", "cache")

    @foreign()
    def _returned(self, args: tuple[Any, ...]) -> Any:
        """Call grad with f's arguments, and such keywords as it takes."""
        return self.grad(*args, **_taken(self.grad, self.kwargs))

    @foreign()
    def _call_grad(self, args: tuple[Any, ...], out: Any, dy: Any) -> Any:
        if self.draws_again and self.world.is_random:
            self.world.rewind()  # it draws what f has drawn
        if self.form == "cache":
            return self.grad(dy, out[1])
        if self.form == "gradient and Hessian":
            return self._returned(args)[0]
        if self.form != "cotangent":
            return self._returned(args)
        keywords = _taken(self.grad, self.kwargs)
        if self.only_dy:  # f has kept what it needs
            return self.grad(dy)
        if self.first is None:
            try:
                with foreign():
                    return self.grad(dy, *args, **keywords)
            except ForeignError:
                found = self.grad(*args, dy, **keywords)
                self.first = False
                return found
        return self.grad(dy, *args, **keywords) if self.first else self.grad(*args, dy, **keywords)

    def _pulled(self, grads: Any, dy: Array) -> Any:
        """Return dy times a derivative or a Jacobian."""
        if self.misshapen:
            raise ValueError(self.misshapen)
        parts = list(grads) if isinstance(grads, (tuple, list)) and len(self.selected) > 1 else [grads]
        out: list[Array] = []
        for part, value in zip(parts, self.point, strict=False):
            matrix = np.asarray(part)
            if self.form == "derivative":
                out.append(dy * matrix)
                continue
            m, n = dy.size, value.size
            turned = self.transposed if m == n else matrix.shape in ((n, m), value.shape + dy.shape)
            J = matrix.reshape(n, m).T if turned else matrix.reshape(m, n)
            out.append((dy.ravel() @ J).reshape(value.shape))
        return out[0] if len(self.selected) == 1 else tuple(out)

    # -- calls

    def arguments(self, arrays: list[Array]) -> tuple[Any, ...]:
        """Return the arguments, with these arrays as the leaves of those that are differentiated by."""
        values = iter(arrays)
        chosen = set(self.selected)
        return tuple(
            next(iter(rebuild({self.labels[i]: a}, values).values())) if i in chosen else _copied(a)
            for i, a in enumerate(self.args)
        )

    @foreign()
    def run(
        self, arrays: list[Array], dy: Array | None = None, *, between: Between | None = None, spoil: bool = False
    ) -> tuple[Array, list[Array | None]]:
        """Return (y, gradients); y is one vector if f returns several arrays."""
        self.count(dy)
        self.world.reset()
        args = self.arguments(arrays)
        self.passed = {name: a for name, a in zip(self.tree, args, strict=True) if isinstance(a, np.ndarray)}
        out = self.f(*args, **self.kwargs)
        y = self._y(out)
        if dy is None:
            return y, []
        if between:
            between(None)
        grads = self._call_grad(args, out, self._unflat(out, dy))
        if self.form in ("derivative", "Jacobian"):
            grads = self._pulled(grads, np.asarray(dy))
        pairs = list(self._paired(grads))
        if all(grad is None for _, grad in pairs):  # None claims nothing; but then nothing is left to check
            pairs = [(name, Missing) for name, _ in pairs]
        found = self.gathered(pairs, self.extra)
        return y, found if self.takes_cotangent else [None if g is None else g * dy for g in found]

    def overwritten(self) -> list[str]:
        """Look at arguments that are arrays of no floats."""
        return [k for k, a in self.passed.items() if a.dtype.kind != "f" and a.tobytes() != self.tree[k].tobytes()]

    @foreign()
    def another_forward(self, obj: Any, other: list[Array]) -> None:
        """Call f with other numbers."""
        self.f(*self.arguments(other), **self.kwargs)

    def _y(self, out: Any) -> Array:
        if self.form == "cache":
            return np.asarray(out[0])
        if self.form == "gradient and Hessian":
            return np.asarray(np.sum(out))  # of a loss for each sample, or of their sum
        return self._flat(out)

    def _paired(self, grads: Any) -> Iterator[tuple[str, Any]]:
        """Yield (name, gradient) for each leaf; grads for all arguments, or for those that are differentiated by."""
        labels = [self.labels[i] for i in self.selected]
        if isinstance(grads, dict) and labels and set(labels) <= set(grads) <= set(self.tree):
            given = {label: grads[label] for label in labels}
        elif len(self.args) == 1 or (len(labels) == 1 and not isinstance(grads, tuple | list)):
            only = self.args[self.selected[0]]
            if isinstance(grads, tuple) and len(grads) == 1 and not (isinstance(only, tuple) and len(only) == 1):
                grads = grads[0]
            given = {labels[0]: grads}
        elif not isinstance(grads, tuple | list):
            raise ValueError(
                f"{describe(self.grad)} must return one gradient for each of the {len(labels)} arguments that hold "
                f"floats ({', '.join(labels)}), got {describe(grads)}; for some of them only, name these: wrt="
            )
        else:
            parts = list(grads)
            places = list(range(len(self.args))) if len(parts) == len(self.args) else self.selected
            given = dict.fromkeys(labels, Missing)
            given |= {self.labels[i]: part for i, part in zip(places, parts, strict=False) if self.labels[i] in given}
            if len(parts) > len(places):
                text = f"{len(parts)} gradients were returned, for {len(labels)} arguments that hold floats"
                self.problems.setdefault("", ("unexpected", text))
        self.extra = [n for i in self.selected for n in extra_names(given[self.labels[i]], self.args[i])]
        found = [pair for i in self.selected for pair in pick(given[self.labels[i]], self.args[i])]
        yield from ((name, grad) for name, (_, grad) in zip(self.names, found, strict=True))

    def _flat(self, out: Any) -> Array:
        if not is_branch(out):
            return np.asarray(out)
        parts = [np.ravel(part) for part in _numbers(out)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _unflat(self, out: Any, dy: Array) -> Any:
        if not is_branch(out) or self.form == "cache":
            return dy
        position = 0

        def take(tree: Any) -> Any:
            nonlocal position
            if is_branch(tree):
                parts = {key: take(value) for key, value in items(tree)}
                if isinstance(tree, dict):
                    return parts
                return type(tree)(*parts.values()) if hasattr(tree, "_fields") else type(tree)(parts.values())
            array = np.asarray(tree)
            if array.dtype.kind not in "fc":
                return None
            part = dy[position : position + array.size].reshape(array.shape)
            position += array.size
            return part

        return take(out)


def _numbers(tree: Any) -> Iterator[Array]:
    if is_branch(tree):
        for _, value in items(tree):
            yield from _numbers(value)
    elif np.asarray(tree).dtype.kind in "fc":
        yield np.asarray(tree)


def _kind(a: Any) -> str:
    return f"an array of {a.dtype}" if isinstance(a, np.ndarray) else type(a).__name__


def _labels(f: Callable[..., Any], args: tuple[Any, ...]) -> list[str]:
    """Name the arguments as f does."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"arg{i}" for i in range(len(args))]


def _named(function: Callable[..., Any], like: Any) -> Callable[..., Any]:
    """Return a function with the name and the signature of another."""
    function.__name__ = describe(like)
    function.__wrapped__ = like  # type: ignore[attr-defined]
    return function


def _positional(function: Any) -> tuple[list[str], list[str], bool, bool]:
    """Return (names of the positional arguments, those without a default, whether there may be more, whether it is known)."""
    if isinstance(function, np.ufunc):
        names = [f"x{k}" for k in range(function.nin)]
        return names, names, False, True
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [], [], True, True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional if p.default is p.empty]
    return [p.name for p in positional], required, any(p.kind == p.VAR_POSITIONAL for p in parameters), True


def _taken(function: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords that a function takes."""
    if not keywords:
        return {}
    parameters = inspect.signature(function).parameters
    if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        return dict(keywords)
    return {name: value for name, value in keywords.items() if name in parameters}


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
