"""What a right number at one point does not show: overwritten inputs, stale caches, state, chance, and memory layouts.

Each contract is a few calls; each finding says which one was broken, and by what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..contract import Array, ContractError
from .foreign import ForeignError, foreign
from .functions import FunctionProcedure
from .procedures import LayerProcedure, Procedure
from .report import Finding
from .sequences import check_sequences
from .tree import leaves

Gradients = list[Array | None]


class Contracts:
    """The contracts of one procedure at its point; ``findings`` after ``check``."""

    def __init__(self, procedure: Procedure, dy: Array, rng: np.random.Generator, layer: str = "") -> None:
        self.p, self.dy, self.rng, self.layer = procedure, dy, rng, layer
        self.findings: list[Finding] = []
        self.longest = max([dy.size, *(a.size for a in procedure.point)])

    def add(self, kind: str, message: str, tensor: str = "", severity: str = "error") -> None:
        """Note a broken contract."""
        self.findings.append(Finding(kind, self.layer, tensor, message, severity))

    def close(self, a: Array, b: Array) -> bool:
        """Tell whether two results of the same computation agree, up to the order in which sums are taken."""
        return _close(a, b, size=float(np.abs(self.dy).max(initial=0.0)), longest=self.longest)

    def run(self, dy: Array, **how: Any) -> tuple[Array, Gradients]:
        """Run the procedure on copies."""
        return self.p.run(self.p.copies(self.p.point), dy.copy(), **how)

    def check(self) -> Gradients | None:
        """Check all; return the gradients, or None if backward raised an error."""
        try:
            y, grads = self.run(self.dy)
        except ForeignError as error:
            self.raised(error)
            return None
        self.p.world.observe()
        self.p.world.reset()
        for tensor, (kind, message) in self.p.problems.items():
            self.add(kind, message, tensor)
        self.check_dtypes(y, grads)
        if not self.check_repetition(y, grads):
            self.p.copying = True
            return grads
        self.check_inputs()
        self.p.copying = any(f.kind == "mutation" for f in self.findings)
        if self.check_draws():
            return grads
        if not self.p.keeps_state:
            self.check_stale(grads)
        if isinstance(self.p, LayerProcedure) and self.p.takes_cotangent and not self.p.keeps_state:
            self.check_twice(grads)
            self.check_memory()
            self.check_generator()
            self.check_output(grads)
            for finding in check_sequences(self.p, self.dy, self.close):
                self.add(*finding)
        if self.p.takes_cotangent and self.dy.size:
            self.check_linear(grads)
            self.check_layouts(grads)
        return grads

    def raised(self, foreign_error: ForeignError) -> None:
        """Report an error out of backward."""
        error = foreign_error.error
        if isinstance(error, ContractError):
            self.add("contract", str(error))
            return
        text = f"{type(error).__name__}: {error}"
        hint = ""
        if "read-only" in text:
            self.add("mutation", f"backward writes into its input: {text}")
            return
        if "shape" in text or "broadcast" in text or "dimension" in text or "size" in text:
            hint = "; a missing transpose, or a sum over the wrong axis?"
        self.add("shape" if hint else "raises", f"backward raised {text}{hint}")

    def check_dtypes(self, y: Array, grads: Gradients) -> None:
        """Gradients have the dtype of what they are gradients of."""
        for name, value, grad in zip(self.p.names, self.p.point, grads, strict=True):
            if grad is None or grad.dtype.kind not in "fc" or name in self.p.problems:
                continue
            if grad.dtype.kind == "c":
                self.add("dtype", f"{name} is {value.dtype}, its gradient is complex", name)
            elif grad.dtype.itemsize < min(value.dtype.itemsize, 8):
                self.add("float32", f"{name} is {value.dtype}, its gradient only {grad.dtype}: digits are lost", name)
            elif grad.dtype != value.dtype and len({a.dtype for a in self.p.point}) == 1:
                strict = isinstance(self.p, LayerProcedure) and y.dtype == value.dtype
                severity = "error" if strict else "note"
                self.add("dtype", f"{name} is {value.dtype}, its gradient {grad.dtype}", name, severity)

    def check_repetition(self, y: Array, grads: Gradients) -> bool:
        """The same call gives the same result."""
        again_y, again = self.run(self.dy)
        self.p.world.observe()
        self.p.world.reset()
        if not self.close(again_y, y):
            size = _gap(again_y, y)
            self.add(
                "nondeterministic",
                f"forward is not deterministic: two calls with the same input and the same random state differ by {size:.1e}; "
                "draw random numbers from the rng that is passed, not from a new one",
            )
            return False
        for name, a, b in zip(self.p.names, again, grads, strict=True):
            if a is not None and b is not None and not self.close(a, b):
                if self.close(a, 2 * b):
                    self.add(
                        "accumulate",
                        f"the gradient of {name} doubles at the second call: it adds to an earlier one",
                        name,
                    )
                else:
                    self.add(
                        "nondeterministic",
                        f"the gradient of {name} is not deterministic: the same call gives another one, off by {_gap(a, b):.1e}; "
                        "is a random mask drawn again in backward?",
                        name,
                    )
                return False
        return True

    def check_inputs(self) -> None:
        """Neither forward nor backward writes into inputs, parameters or dy."""
        n = self.p.n_inputs
        arrays, dy = self.p.copies(self.p.point), self.dy.copy()
        before = [a.copy() for a in arrays]
        seen: set[str] = set()

        def look(who: str) -> None:
            for name, a, b in zip(self.p.names, arrays, before, strict=True):
                if name not in seen and a.tobytes() != b.tobytes():
                    seen.add(name)
                    if name not in self.p.names[:n]:
                        text = f"{who} changes the parameter {name}: a step inside backward, or an update in place?"
                        self.add("updated-weights" if who == "backward" else "mutation", text, name)
                    else:
                        self.add("mutation", f"{who} overwrites its input {name}", name)

        try:
            self.p.run(arrays, dy, between=lambda _: look("forward"))
            look("backward")
            if dy.tobytes() != self.dy.tobytes():
                self.add("mutation", "backward overwrites dy, which the caller may still need")
            for name in self.p.overwritten():
                self.add("mutation", f"forward or backward overwrites {name}", name)
        except ForeignError as error:
            self.raised(error)
        for a, b in zip(arrays[n:], before[n:], strict=True):
            if a.tobytes() != b.tobytes():
                a[...] = b

    def check_draws(self) -> bool:
        """Backward draws no random numbers; tell whether it does. A function's gradient must draw again: what f has drawn."""
        if isinstance(self.p, FunctionProcedure) and self.p.draws_again:
            return False
        states = []
        self.run(self.dy, between=lambda _: states.append(self.p.random_state()))
        if not states or states[0] == self.p.random_state():
            return False
        self.add("mask", "backward draws random numbers: a mask must be drawn in forward, and kept in the cache")
        return True

    def check_stale(self, grads: Gradients) -> None:
        """A second forward, with other numbers and in another mode, does not change what backward returns."""
        p = self.p
        refused = False

        def again(obj: Any) -> None:
            nonlocal refused
            try:
                p.another_forward(obj, [np.flip(a).copy() * a.dtype.type(0.9) for a in p.point])
            except ForeignError:  # numbers outside of its domain, which is no fault of backward
                refused = True

        try:
            _, after = self.run(self.dy, between=again)
            p.world.observe()  # running statistics, say, that this moved
            p.world.reset()
        except ForeignError as error:
            if not refused:
                self.add("stale-cache", f"after a second forward, backward raises {error}")
            return
        for name, a, b in zip(p.names, after, grads, strict=True):
            if a is not None and b is not None and not self.close(a, b):
                if p.returns_cache:
                    self.add(
                        "stale-cache",
                        f"a second forward changes the gradient of {name}: the cache is kept in the object, or is memory that "
                        "the next forward overwrites",
                        name,
                    )
                else:
                    self.add(
                        "stale-cache",
                        f"the gradient of {name} is that of the last call of f, not of grad's own arguments",
                        name,
                        "note",
                    )
                return

    def check_twice(self, grads: Gradients) -> None:
        """Backward can be called again with the same cache."""
        p = self.p
        assert isinstance(p, LayerProcedure)
        with p.bound(p.copies(p.point)) as (obj, x):
            _, cache = p._forward(obj, x)
            try:
                p.backward(obj, self.dy.copy(), cache)
                again = p.backward(obj, self.dy.copy(), cache)
            except ForeignError as error:
                self.add(
                    "backward-twice",
                    f"the second backward raises {error}: the cache is used up",
                )
                return
            p.count(self.dy)
            p.n_backward += 1
        for name, a, b in zip(p.names, again, grads, strict=True):
            if a is not None and b is not None and not self.close(a, b):
                if self.close(a, 2 * b):
                    text = f"the second backward returns twice the gradient of {name}: it adds to the first one"
                    self.add("accumulate", text, name)
                else:
                    text = f"the second backward returns another gradient of {name}: the first one changes the cache"
                    self.add("backward-twice", text, name)
                return

    def check_memory(self) -> None:
        """Worth knowing: whether the next backward overwrites what this one returned."""
        p = self.p
        assert isinstance(p, LayerProcedure)
        with p.bound(p.copies(p.point)) as (obj, x):
            _, cache = p._forward(obj, x)
            try:
                with foreign():
                    arrays = [a for _, a in leaves(list(obj.backward(self.dy.copy(), cache)))]
                    kept = [np.array(a) for a in arrays]
                    obj.backward(-self.dy, cache)
            except ForeignError:  # a cache that serves only once, which check_twice has reported
                return
            p.count(self.dy)
            p.n_backward += 1
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays, kept, strict=True)):
            self.add(
                "shared-gradient", "the next backward overwrites the gradients that this one returned", severity="note"
            )

    def check_generator(self) -> None:
        """Worth knowing: whether what forward draws is drawn from the rng that is passed."""
        p = self.p
        if not isinstance(p, LayerProcedure) or p.generator is None or not p.world.is_random:
            return
        p.world.is_random = False  # the global generator is not put back
        outputs = [np.array(p.run(p.copies(p.point))[0]) for _ in range(2)]
        p.world.is_random = True
        if self.close(*outputs):
            return
        text = "forward draws from the global generator, though rng is passed: the same rng gives other results"
        self.add("nondeterministic", text, severity="note")

    def check_output(self, grads: Gradients) -> None:
        """Worth knowing: whether the cache is the very array that forward returned."""
        try:
            _, after = self.run(self.dy, spoil=True)
        except ForeignError:
            after = []
        if not all(a is None or b is None or self.close(a, b) for a, b in zip(after, grads, strict=False)):
            self.add(
                "shared-output",
                "the cache shares memory with the y that forward returned: overwriting y changes the gradient",
                severity="note",
            )

    def check_linear(self, grads: Gradients) -> None:
        """Backward is linear in dy: 0 gives 0, powers of two scale exactly, sums add."""
        other = self.rng.permutation(self.dy.ravel()).reshape(self.dy.shape)
        tests: list[tuple[str, Array, Callable[[int], Array]]] = [
            ("0 * dy", 0 * self.dy, lambda k: 0 * _known(grads[k])),
            ("1024 * dy", 1024 * self.dy, lambda k: 1024 * _known(grads[k])),
            ("-dy / 1024", -self.dy / 1024, lambda k: -_known(grads[k]) / 1024),
        ]
        try:
            found = [(name, self.run(dy)[1], expected) for name, dy, expected in tests]
            apart, together = self.run(other)[1], self.run(self.dy + other)[1]
        except ForeignError as error:
            self.raised(error)
            return
        found.append(("dy + dy'", together, lambda k: _known(grads[k]) + _known(apart[k])))
        for name, got, expected in found:
            for k, tensor in enumerate(self.p.names):
                g = got[k]
                if g is None or grads[k] is None or not np.isfinite(_known(grads[k])).all():
                    continue
                size = np.abs(_known(grads[k])) + (0.0 if apart[k] is None else np.abs(_known(apart[k])))
                share = {"1024 * dy": 1024.0, "-dy / 1024": 1 / 1024}.get(name, 1.0)
                # A clipped or forgotten dy is plain to see; rounding, where large terms cancel, may be, a little.
                loose = max(1e-7, 1e3 * float(np.finfo(g.dtype).eps))
                bound = loose * share * (float(np.max(size, initial=0.0)) + 1e-5 * float(np.abs(self.dy).max()))
                if float(np.abs(g - expected(k)).max(initial=0.0)) > bound:
                    text = "backward(0) is not 0" if name == "0 * dy" else f"backward({name}) does not follow"
                    self.add(
                        "nonlinear",
                        f"backward is not linear in dy: {text}, for {tensor}; is dy left out, or clipped?",
                        tensor,
                    )
                    return

    def check_layouts(self, grads: Gradients) -> None:
        """The layout of dy in memory does not matter."""
        dy = self.dy
        if dy.ndim < 1 or not dy.size:
            return
        wide = np.repeat(dy, 2, axis=-1)
        row = dy[:1]
        broadcast = np.broadcast_to(row, dy.shape)
        frozen = dy.copy()
        frozen.flags.writeable = False
        plain: Gradients | None = None
        for name, arranged in (
            ("Fortran-ordered", np.asfortranarray(dy)),
            ("strided", wide[..., ::2]),
            ("read-only", frozen),
            ("broadcast", broadcast),
        ):
            try:
                got = self.p.run(self.p.copies(self.p.point), arranged)[1]
                if name == "broadcast":
                    plain = self.run(broadcast.copy())[1]
            except ForeignError as error:
                if "read-only" in str(error):
                    self.raised(error)
                elif not any(f.kind == "mutation" for f in self.findings):
                    self.add("memory-layout", f"backward raises {type(error).__name__} for a {name} dy: {error}")
                return
            expected = grads if plain is None else plain
            for tensor, a, b in zip(self.p.names, got, expected, strict=True):
                if a is not None and b is not None and not self.close(a, b):
                    self.add(
                        "memory-layout",
                        f"a {name} dy gives another gradient of {tensor} than its contiguous copy",
                        tensor,
                    )
                    return


def _known(grad: Array | None) -> Array:
    assert grad is not None
    return grad


def _gap(a: Array, b: Array) -> float:
    with np.errstate(all="ignore"):
        return float(np.nanmax(np.abs(a - b), initial=0.0)) if a.shape == b.shape else np.inf


def _close(a: Array, b: Array, *, size: float, longest: int) -> bool:
    if a.shape != b.shape:
        return False
    if a.size == 0 or a.tobytes() == b.tobytes():
        return True
    eps = float(np.finfo(a.dtype).eps) if a.dtype.kind in "fc" else 1e-16
    eps *= max(1.0, longest / 1000)  # of long sums
    terms = np.abs(b)
    top = terms[np.isfinite(terms)].max(initial=0.0)
    with np.errstate(all="ignore"):
        near = np.abs(a - b) <= 1e3 * eps * (terms + top) + 64 * eps * size + 1e-300
    return bool((near | (np.isnan(a) & np.isnan(b)) | (a == b)).all())
