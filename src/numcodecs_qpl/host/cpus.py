"""CPUs for this process."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """Number of CPUs that this process may run on; all of the host's if the system does not limit it."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
