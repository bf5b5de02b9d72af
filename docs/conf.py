"""Sphinx builds the site of the documentation from this folder: ``make docs``, into build/docs.

Nothing is fetched while it builds, and what it builds fetches nothing from other sites.
"""

from __future__ import annotations

from numpydoc.xref import DEFAULT_LINKS

import numcodecs_qpl

project = "numcodecs-qpl"
author = "The numcodecs-qpl developers"
version = release = numcodecs_qpl.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",  # for its role, autolink
    "sphinxcontrib.programoutput",
]
html_theme = "furo"
html_title = f"{project} {version}"
html_show_copyright = False
html_show_sourcelink = False
highlight_language = "none"

myst_heading_anchors = 3

# The docstrings' types say what the annotations say, in words.
autodoc_typehints = "none"
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
        "numcodecs_qpl.devices": ("WorkQueue",),
        "numcodecs_qpl.multifd": ("MigrationParameters", "MultiFDError", "MultiFDPages", "RAMBlock"),
        "numcodecs_qpl.multifd.access": ("Access",),
        "numcodecs_qpl.multifd.address": ("Address",),
        "numcodecs_qpl.multifd.listener": ("Listener",),
        "numcodecs_qpl.multifd.output": ("Output",),
        "numcodecs_qpl.multifd.ram": ("RAMFile",),
        "numcodecs_qpl.multifd.receiver": ("Counts",),
        "numcodecs_qpl.multifd.relay": ("RelayCounts",),
        "numcodecs_qpl.multifd.tlsfiles": ("TLSFiles",),
        "numcodecs_qpl.multifd.totals": ("Durations", "Failure", "Migration", "RouteTotals"),
    }.items()
    for name in names
}

# `name` is a link where it names something that can be imported, and slanted where it names a parameter.
default_role = "autolink"
# What others document is named, and not linked: no inventories are fetched.
nitpick_ignore_regex = [("py:.*", r"(numcodecs|numpy|zarr)\..*")]
