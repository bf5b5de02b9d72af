"""Sockets that systemd passes, and messages to systemd: sd_listen_fds(3) and sd_notify(3), without libsystemd.

Both protocols are small and stable. The libraries do not fit: systemd-python has to be compiled against libsystemd,
sdnotify has had no release since 2017, and neither sdnotify nor systemd-watchdog takes sockets.
"""

from __future__ import annotations

import logging
import os
import socket
import time

from numcodecs_qpl.multifd.errors import MultiFDError

FIRST_FD = 3
"""Number of the first passed file (SD_LISTEN_FDS_START)."""

_log = logging.getLogger(__name__)


def listen_sockets() -> list[tuple[str, socket.socket]]:
    """Take the sockets that systemd has passed to this process, and the variables that describe them.

    Child processes inherit neither the sockets nor the variables.

    Returns
    -------
    list of (str, socket.socket)
        Each socket with its name in the socket unit (FileDescriptorName=), in the units' order. Empty if none was
        passed to this process, or they have been taken already.

    Raises
    ------
    MultiFDError
        If the variables contradict each other, or a passed file is not a socket.
    """
    pid, count, names = (os.environ.pop(name, None) for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or count is None:
        return []  # the variables belong to a parent process
    if not count.isdecimal():
        raise MultiFDError(f"LISTEN_FDS is {count!r}; expected the number of sockets that were passed")
    fds = range(FIRST_FD, FIRST_FD + int(count))
    named = ["unknown"] * len(fds) if names is None else names.split(":")
    if len(named) != len(fds):
        raise MultiFDError(f"LISTEN_FDNAMES is {names!r}; expected {len(fds)} names, as LISTEN_FDS is {count}")
    return [(name, _socket(name, fd)) for name, fd in zip(named, fds, strict=True)]


def _socket(name: str, fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        return socket.socket(fileno=fd)
    except OSError as error:
        raise MultiFDError(
            f"file {fd} ({name!r}), which was passed as a socket, cannot be used: {error.strerror}"
        ) from error


def notify(**assignments: str | int) -> bool:
    """Tell systemd the state of this service, as in ``notify(READY=1, STATUS="no migration")``.

    Parameters
    ----------
    **assignments : str or int
        The variables of sd_notify(3). A line break in a text becomes a space.

    Returns
    -------
    bool
        True if the message was sent; False without NOTIFY_SOCKET, or on an error, which is logged and does not stop the
        service.
    """
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return False
    state = "\n".join(f"{name}={' '.join(str(value).splitlines())}" for name, value in assignments.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(f"\0{where[1:]}" if where.startswith("@") else where)  # "@" marks an abstract socket
            sock.sendall(state.encode())
    except OSError as error:
        _log.warning("cannot tell systemd the state, at NOTIFY_SOCKET=%s: %s", where, error.strerror or error)
        return False
    return True


def notify_reloading() -> bool:
    """Tell systemd that the configuration is being read again; ``notify(READY=1)`` reports the end."""
    return notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
