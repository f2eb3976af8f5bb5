"""Code of other libraries as plain functions, so that ``check_function`` can judge it. Nothing is imported until it is used."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np


def from_torch(function: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return (f, backward) of a ``torch.autograd.Function``: ``check_function(*from_torch(MyFunction), x, w)``.

    Parameters
    ----------
    function : subclass of torch.autograd.Function, or any function of tensors that autograd can go through
        Arguments that are arrays become tensors; the others are passed as they are.

    Returns
    -------
    f : function (*arrays) -> array
    backward : function (dy, *arrays) -> tuple
        None for arguments that are not arrays of floats.
    """
    import torch

    is_function = isinstance(function, type) and issubclass(function, torch.autograd.Function)
    call = function.apply if is_function else function

    def tensors(args: tuple[Any, ...], *, track: bool) -> list[Any]:
        out = []
        for a in args:
            if isinstance(a, np.ndarray | np.generic):
                t = torch.from_numpy(np.array(a))
                out.append(t.requires_grad_() if track and t.is_floating_point() else t)
            else:
                out.append(a)
        return out

    def numpy(out: Any) -> Any:
        return tuple(map(numpy, out)) if isinstance(out, tuple | list) else out.detach().resolve_conj().numpy()

    def f(*args: Any) -> Any:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)  # what is drawn is drawn again in backward
            return numpy(call(*tensors(args, track=False)))

    def backward(dy: Any, *args: Any) -> tuple[Any, ...]:
        inputs = tensors(args, track=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            out = call(*inputs)
        outs, dys = (out, dy) if isinstance(out, tuple | list) else ((out,), (dy,))
        tracked = [t for t in inputs if isinstance(t, torch.Tensor) and t.requires_grad]
        pairs = [(o, torch.from_numpy(np.array(d))) for o, d in zip(outs, dys, strict=True) if o.requires_grad]
        grads = iter(torch.autograd.grad([o for o, _ in pairs], tracked, [d for _, d in pairs], allow_unused=True))
        found = [next(grads) if any(t is s for s in tracked) else None for t in inputs]
        return tuple(
            None if not any(t is s for s in tracked) else np.zeros(t.shape) if g is None else g.detach().numpy().copy()
            for t, g in zip(inputs, found, strict=True)
        )

    f.__name__ = getattr(function, "__name__", type(function).__name__)
    try:
        parameters = list(inspect.signature(function.forward if is_function else function).parameters.values())
        f.__signature__ = inspect.Signature(parameters[1:] if is_function else parameters)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        pass  # the arguments have numbers, not names
    return f, backward
