"""Containers of raw deflate: gzip with an index, zlib, bare deflate.

A container is a module with a pair of functions. To add one, write the module and name it in `CONTAINERS`.
``__init__.pyi`` has the functions' signatures.
"""

from typing import Literal

from numcodecs_qpl.containers import deflate, gzip, zlib
from numcodecs_qpl.containers.streams import Reader

__all__ = ["CONTAINERS", "ContainerName", "Reader"]

ContainerName = Literal["gzip", "zlib", "deflate"]

CONTAINERS = {"gzip": gzip, "zlib": zlib, "deflate": deflate}
