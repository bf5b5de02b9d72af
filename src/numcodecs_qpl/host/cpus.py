"""CPUs for this process."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """Return the number of CPUs that this process may run on; all CPUs of the host if the system sets no limit."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
