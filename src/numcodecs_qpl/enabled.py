"""Call of `numcodecs_qpl.enable` on import: ``import numcodecs_qpl.enabled``.

Dask workers take this module with ``--preload``. Codec objects that arrive from processes without `enable` belong to
the classes of numcodecs and zarr. They are served too, as with ``enable(instances=True)``. If the installed zarr does
not allow this, a RuntimeWarning gives the reason, and only codecs that are made afterwards are served.
"""

from __future__ import annotations

import sys
import warnings
from types import ModuleType

from numcodecs_qpl import serve


class _Module(ModuleType):
    """Callable module: it replaces the function `enabled` in the package, which has the same name."""

    def __call__(self) -> tuple[str, ...]:
        """Return the codec ids that are served, like the function `numcodecs_qpl.enabled`."""
        return serve.enabled()


sys.modules[__name__].__class__ = _Module
try:
    serve.enable(instances=True)
except RuntimeError as error:
    warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    serve.enable()
