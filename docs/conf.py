"""Sphinx configuration. Formulas become MathML when the pages are built, so a page needs no script and no network."""

from __future__ import annotations

import html
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

import nnprofile
from nnprofile.tracing.presets import PRESETS

project = "nnprofile"
author = "The nnprofile developers"
copyright = f"2026, {author}"  # noqa: A001  (Sphinx's name)
release = version = nnprofile.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "deflist"]
nb_execution_mode = "force"  # every cell runs at every build
nb_execution_raise_on_error = False  # an error fails the build (-W --keep-going) when all pages are written
nb_execution_timeout = -1  # a busy machine is slow, and a slow page must not take the others with it
nb_mime_priority_overrides = [("html", "image/png", 1)]
# The kernels that run the cells are quiet, and know nothing of the user's own configuration.
_ipython = tempfile.TemporaryDirectory()
(Path(_ipython.name) / "profile_default").mkdir()
(Path(_ipython.name) / "profile_default" / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n")
os.environ["IPYTHONDIR"] = _ipython.name
logging.getLogger("traitlets").setLevel(logging.WARNING)

math_eqref_format = "eq. {number}"
# Sphinx begins at 1 on each page; these go on where those of backprop.md, and of each other, end.
FIRST_EQUATION = {"sequences": 45, "scale": 71, "privacy": 74}
exclude_patterns = ["_build", "kinds.md"]
# `sphinx-build -t course`: the mathematics alone, which needs no data set and none of the libraries that are compared.
NOT_OF_THE_COURSE = (
    "researcher",
    "engineer",
    "contract",
    "gradcheck",
    "engine",
    "estimators",
    "export",
    "example",
    "recommendation",
    "scale",
    "privacy",
)
if tags.has("course"):  # noqa: F821  (Sphinx puts it there)
    exclude_patterns += [f"{page}.md" for page in (*NOT_OF_THE_COURSE, "benchmarks", "model_file", "api")]
    suppress_warnings = ["toc.excluded", "toc.not_readable", "myst.xref_missing"]
html_theme = "furo"
html_title = "nnprofile"
html_static_path = ["_static"]
html_css_files = ["math.css"]
html_math_renderer = "mathml"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
nitpicky = False


def _inline(self: Any, node: nodes.math) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(self: Any, node: nodes.math_block) -> None:
    first = FIRST_EQUATION.get(self.builder.current_docname, 1)
    number = f'<span class="eqno">({first + int(node["number"]) - 1})</span>' if node.get("number") else ""
    anchor = f' id="{html.escape(node["ids"][0])}"' if node.get("ids") else ""
    self.body.append(f'<div class="math"{anchor}>{number}{convert(node.astext(), display="block")}</div>\n')
    raise nodes.SkipNode


def _write_explorers(app: Any) -> None:
    """Put the explorer's examples beside the pages before any page is built."""
    if app.builder.format == "html":
        folder = Path(app.outdir) / "explorer"
        folder.mkdir(parents=True, exist_ok=True)
        for key, preset in PRESETS.items():
            preset.trace().to_html(folder / f"{key}.html", preset=preset)


def _link_explorers(app: Any, page: str, source: list[str]) -> None:
    """Make a link of `out/xor.html`, which `make page` writes: in a clone it is a file, here a page beside this one."""
    up = "../" * page.count("/")
    source[0] = re.sub(r"`out/(\w+)\.html`", rf'<a href="{up}explorer/\1.html">out/\1.html</a>', source[0])


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("builder-inited", _write_explorers)
    app.connect("source-read", _link_explorers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
