"""Importing this module calls `numcodecs_qpl.enable`, so that no code has to: ``import numcodecs_qpl.enabled``.

It is what ``--preload`` of dask's workers wants. Codec objects that arrive from processes without `enable` are of
numcodecs' and zarr's own classes, so these are served, too, as by ``enable(instances=True)``. With a zarr that does not
allow it, a RuntimeWarning tells the reason, and codecs that are made afterwards are served.
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType

from numcodecs_qpl import serve


class _Module(ModuleType):
    """The module takes the name of the function `enabled` in the package: it can be called as that."""

    def __call__(self) -> tuple[str, ...]:
        """Names of the codec ids that are served, as `numcodecs_qpl.enabled` gives them."""
        return serve.enabled()


sys.modules[__name__].__class__ = _Module
try:
    serve.enable(instances=True)
except RuntimeError as error:
    warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    serve.enable()
