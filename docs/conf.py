"""Sphinx builds the site of the documentation from this folder: ``make docs``, into build/docs.

Nothing is fetched while it builds, and what it builds fetches nothing from other sites.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Literal, get_origin

from numpydoc.xref import DEFAULT_LINKS
from sphinx.application import Sphinx

import numcodecs_qpl
from numcodecs_qpl._core import types

project = "numcodecs-qpl"
author = "The numcodecs-qpl developers"
version = release = numcodecs_qpl.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",  # for its role, autolink
    "sphinx.ext.intersphinx",
    "sphinxcontrib.programoutput",
]
html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sourcelink = False
highlight_language = "none"

myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
# Types of ours are links; those of Python and NumPy, whose pages are elsewhere, stay words.
numpydoc_xref_aliases = {name: name for name in DEFAULT_LINKS} | {
    name: f"{module}.{name}"
    for module, names in {
        "numcodecs_qpl": ("CorruptDataError", "QplError"),
        "numcodecs_qpl.host.devices": ("WorkQueue",),
        "numcodecs_qpl.multifd": ("MigrationParameters", "MultiFDError", "MultiFDPages", "RAMBlock"),
        "numcodecs_qpl.multifd.transport.access": ("Access",),
        "numcodecs_qpl.multifd.transport.address": ("Address",),
        "numcodecs_qpl.multifd.transport.listener": ("Listener",),
        "numcodecs_qpl.multifd.folder.writer": ("Output",),
        "numcodecs_qpl.multifd.ram": ("RAMFile",),
        "numcodecs_qpl.multifd.receiver": ("Counts",),
        "numcodecs_qpl.multifd.relay": ("RelayCounts",),
        "numcodecs_qpl.multifd.routes": ("GuestAddress", "Route"),
        "numcodecs_qpl.multifd.service": ("Gate",),
        "numcodecs_qpl.multifd.transport.tlsfiles": ("TLSFiles",),
        "numcodecs_qpl.multifd.totals": ("Durations", "Failure", "Migration", "RouteTotals"),
    }.items()
    for name in names
}

# `name` is a link where it names something that can be imported, and slanted where it names a parameter.
default_role = "autolink"
# The inventories have only the names that are used here, by hand, so that a build fetches nothing.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "inventories/python.txt"),
    "numpy": ("https://numpy.org/doc/stable/", "inventories/numpy.txt"),
}
# Other names of other packages are not linked, nor are names of types: codec.md explains them, and JSON is zarr's. What
# Sphinx makes of a field's annotation is a word or a piece of one, such as `dict[str`.
nitpick_ignore_regex = [
    ("py:.*", r"(numcodecs|numpy|np|zarr)\..*|BufferLike|NDArray|Out|Stats|JSON|numcodecs_qpl.serve.Enabled"),
    ("py:class", r"[\w.]+\[.*|array"),
]

# Names in the stubs, by what signatures have in their place.
NAMES = {
    "np": "numpy",
    "ArrayLike": "numpy.typing.ArrayLike",
    "NDArray": "numpy.typing.NDArray",
    **{name: str(value).removeprefix("typing.") for name, value in vars(types).items() if get_origin(value) is Literal},
}


def signature_of_stub(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str] | None:
    """Signatures of a function in Cython, from its stub: Cython keeps no annotations of arguments."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    if what != "function" or type(obj).__name__ != "cython_function_or_method" or not module or not module.__file__:
        return None
    stub = Path(module.__file__).with_name(module.__name__.rpartition(".")[2] + ".pyi")
    found = [
        f"({ast.unparse(node.args)}) -> {ast.unparse(node.returns) if node.returns else None}"
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == name.rpartition(".")[2]
    ]
    return re.sub(r"\w+", lambda word: NAMES.get(word[0], word[0]), f"\n{name}".join(found)), ""


def setup(app: Sphinx) -> None:
    """Connect the functions of this file."""
    app.connect("autodoc-process-signature", signature_of_stub)
