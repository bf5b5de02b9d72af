"""Starting threads, with an error if the system allows no more."""

from __future__ import annotations

import threading

from numcodecs_qpl.multifd.errors import MultiFDError


class NoThreadError(MultiFDError):
    """A thread could not be started. This ends the migration, because its connection would stall."""

    cause = "resources"


def start(thread: threading.Thread) -> threading.Thread:
    """Start `thread`, and return it.

    Raises
    ------
    NoThreadError
        If the system's limits do not allow another thread.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThreadError(
            f"cannot start a thread: {error}. Raise the limit of processes (`ulimit -u`, pids.max of the cgroup) or of "
            "memory"
        ) from error
    return thread
