"""What does the work: libqpl where the package was built with it, else ISA-L.

The build decides, not what can be imported: an extension that is there and does not load is an error, never a reason to
work otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import isal

from numcodecs_qpl._core._built import WITH_LIBQPL

# One engine's functions are those of the other: type checkers see libqpl's.
if TYPE_CHECKING or WITH_LIBQPL:
    from numcodecs_qpl._core import _jobs as _engine
else:
    from numcodecs_qpl._core import _isal as _engine

ENGINE = "libqpl" if WITH_LIBQPL else "ISA-L"

NO_WORK_QUEUES = _engine.NO_WORK_QUEUES
device_was_lost = _engine.device_was_lost
probe_hardware = _engine.probe_hardware
reset_stats = _engine.reset_stats
stats = _engine.stats
status_name = _engine.status_name


def libqpl_version() -> str | None:
    """Version of the libqpl that is linked in; None where none is."""
    return _engine.libqpl_version()


def engine_version() -> str:
    """The library that does the work, and its version: ISA-L comes with PyPI's ``isal``."""
    return f"libqpl {libqpl_version()}" if WITH_LIBQPL else f"isal {isal.__version__}"
