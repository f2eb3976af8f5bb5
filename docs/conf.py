"""Sphinx configuration. Formulas become MathML when the pages are built, so a page needs no script and no network."""

from __future__ import annotations

import html
import logging
import os
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
nb_execution_mode = "force"  # every cell runs at every build, and an error stops it
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_mime_priority_overrides = [("html", "image/png", 1)]
# The kernels that run the cells are quiet, and know nothing of the user's own configuration.
_ipython = tempfile.TemporaryDirectory()
(Path(_ipython.name) / "profile_default").mkdir()
(Path(_ipython.name) / "profile_default" / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n")
os.environ["IPYTHONDIR"] = _ipython.name
logging.getLogger("traitlets").setLevel(logging.WARNING)

math_eqref_format = "eq. {number}"
exclude_patterns = ["_build", "kinds.md"]
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
    number = f'<span class="eqno">({node["number"]})</span>' if node.get("number") else ""
    anchor = f' id="{html.escape(node["ids"][0])}"' if node.get("ids") else ""
    self.body.append(f'<div class="math"{anchor}>{number}{convert(node.astext(), display="block")}</div>\n')
    raise nodes.SkipNode


def _write_explorers(app: Any, exception: Exception | None) -> None:
    """Put the explorer's examples beside the pages, which open from the file system as they do."""
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir) / "explorer"
        folder.mkdir(exist_ok=True)
        for key, preset in PRESETS.items():
            preset.trace().to_html(folder / f"{key}.html", preset=preset)


def setup(app: Any) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("build-finished", _write_explorers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
