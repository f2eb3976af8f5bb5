"""The command line: check a layer, or two functions, without writing a line; see a step of backpropagation.

python -m nnprofile check my_layer.py:MyLayer --shape 7,5
python -m nnprofile check my_functions.py:f,grad --shape 7,5 --shape 5
python -m nnprofile selftest
python -m nnprofile trace --example mazur --out mazur.html
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import inspect
import io
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

_WIDTHS = (
    "in_features",
    "n_features",
    "in_dim",
    "input_dim",
    "in_size",
    "input_size",
    "in_channels",
    "n_in",
    "d_in",
    "width",
    "dim",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0 if all is right, 1 if something is wrong, 2 if the command was."""
    from .tracing.presets import PRESETS

    parser = argparse.ArgumentParser(
        prog="python -m nnprofile", description="Check hand-written gradients, and see backpropagation."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="check a layer, or a function and its gradient")
    check.add_argument("target", help="FILE.py:Layer, or FILE.py:f,grad; or a module's name in place of the file's")
    check.add_argument("--shape", action="append", required=True, help="of x, such as 7,5; once an argument for f,grad")
    check.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="an argument of the layer's constructor"
    )
    check.add_argument(
        "--integers", type=int, metavar="N", help="x holds integers below N (embeddings), not normal numbers"
    )
    check.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    check.add_argument("--seed", type=int, default=0)
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.add_argument("--html", type=Path, metavar="FILE", help="also write the report as a page")
    selftest = commands.add_parser("selftest", help="prove that the checker catches what it should on this machine")
    selftest.add_argument("--seeds", type=int, default=1)
    show = commands.add_parser("trace", help="show one training step of an example, each number with its formula")
    show.add_argument("--example", choices=list(PRESETS), default="document")
    show.add_argument(
        "--out", type=Path, metavar="FILE", help="page.html, or .txt, .md, .tex; without it: text, printed"
    )
    show.add_argument("--digits", type=int, default=6, help="in text (a page has them all)")
    arguments = parser.parse_args(argv)
    try:
        return {"check": _check, "selftest": _selftest, "trace": _trace}[arguments.command](arguments)
    except (ValueError, OSError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except Exception as error:  # out of the user's own code
        traceback.print_exc()
        print(f"{parser.prog}: could not {arguments.command}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _check(arguments: argparse.Namespace) -> int:
    from .gradcheck import check_function, check_layer

    place, _, names = arguments.target.rpartition(":")
    if not place:
        raise ValueError(f"the target must be FILE.py:Name, got {arguments.target!r}")
    module = _load(place)
    found = [_attribute(module, name) for name in names.split(",")]
    rng = np.random.default_rng(arguments.seed)
    xs = [_draw(rng, _shape(text), arguments) for text in arguments.shape]
    ready = not isinstance(found[0], type) and callable(getattr(found[0], "forward", None))
    if arguments.set and (len(found) == 2 or ready):
        raise ValueError("--set is for the constructor of a layer; there is none to call here")
    if len(found) == 2:
        report = check_function(*found, *xs, seed=arguments.seed)
    elif len(found) == 1 and len(xs) == 1:
        layer = found[0] if ready else _build(found[0], xs[0], rng, arguments)
        report = check_layer(layer, xs[0], seed=arguments.seed)
    else:
        raise ValueError("give one layer and one --shape, or f,grad and a --shape for each argument")
    print(json.dumps(report.to_dict(), indent=1, allow_nan=False) if arguments.json else report)
    if arguments.html:
        arguments.html.write_text(report.to_html(), encoding="utf-8")
    return 0 if report.ok else 1


def _selftest(arguments: argparse.Namespace) -> int:
    from .gradcheck import selftest

    result = selftest(n_seeds=arguments.seeds)
    print(result)
    return 0 if result.ok else 1


def _trace(arguments: argparse.Namespace) -> int:
    from .tracing.presets import PRESETS

    preset, out = PRESETS[arguments.example], arguments.out
    if not 1 <= arguments.digits <= 17:
        raise ValueError(f"--digits must be 1 .. 17, got {arguments.digits}")
    writers = {".html": "to_html", ".txt": "to_text", ".md": "to_markdown", ".tex": "to_latex"}
    if out is not None and out.suffix.lower() not in writers:
        raise ValueError(f"--out must end in {', '.join(writers)}, got {out}")
    found = preset.trace()
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that knows no subscripts shows question marks
        print(found.to_text(digits=arguments.digits), end="")
    elif out.suffix.lower() == ".html":
        found.to_html(out, preset=preset)
    else:
        out.write_text(getattr(found, writers[out.suffix.lower()])(digits=arguments.digits), encoding="utf-8")
    if out is not None:
        print(f"{preset.title}: {out}")
    return 0


def _load(place: str) -> ModuleType:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place)
    if not path.is_file():
        raise ValueError(f"there is no file {place}")
    sys.path.insert(0, str(path.resolve().parent))  # its neighbours, as if it were run
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _attribute(module: ModuleType, name: str) -> Any:
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"{module.__name__} has no {name!r}; it has {', '.join(known) or 'nothing to call'}")
    return getattr(module, name)


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(",") if part.strip())
    except ValueError:
        raise ValueError(f"a shape is whole numbers with commas between, such as 7,5; got {text!r}") from None


def _draw(rng: np.random.Generator, shape: tuple[int, ...], arguments: argparse.Namespace) -> Any:
    if arguments.integers is not None:
        return rng.integers(0, arguments.integers, shape)
    return rng.normal(size=shape).astype(arguments.dtype)


def _build(maker: Any, x: Any, rng: np.random.Generator, arguments: argparse.Namespace) -> Any:
    """Call the constructor with what was set, a generator for ``rng``, and x's width for what is called like it."""
    given = {}
    for text in arguments.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set takes NAME=VALUE, got {text!r}")
        try:
            given[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given[name] = value
    try:
        parameters = inspect.signature(maker).parameters
    except ValueError:
        parameters = {}  # type: ignore[assignment]
    positional = []
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or name in given:
            continue
        if name == "rng":
            given[name] = rng
        elif parameter.default is parameter.empty:
            if name not in _WIDTHS or not x.ndim:
                raise ValueError(f"{maker.__name__} needs {name!r}: pass it with --set {name}=...")
            given[name] = x.shape[-1]
        if parameter.kind is parameter.POSITIONAL_ONLY and name in given:
            positional.append(given.pop(name))
    unknown = [name for name in given if name not in parameters]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise ValueError(f"{maker.__name__} takes {', '.join(parameters) or 'no arguments'}, not {', '.join(unknown)}")
    return maker(*positional, **given)


if __name__ == "__main__":
    sys.exit(main())
