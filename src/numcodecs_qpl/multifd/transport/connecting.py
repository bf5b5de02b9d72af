"""Connecting to an end point, with a deadline, and abortable from another thread."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import threading
import time
from typing import Any

from numcodecs_qpl.multifd.errors import PeerClosedError, UnreachableError
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.connection import Connection
from numcodecs_qpl.multifd.transport.tls import greet

HANDSHAKE_SECONDS = 30.0
"""Time limit of connecting, of TLS's handshake, and of a new connection's first bytes."""
TICK = 0.1  # seconds between two looks at whether connecting was aborted


class Abort:
    """Switch that ends a `connect` from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._called = False
        self._socket: socket.socket | None = None

    def __call__(self) -> None:
        """End the current attempt, and every later one, with an error."""
        with self._lock:
            self._called = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # wakes TLS's handshake

    def watch(self, sock: socket.socket) -> None:
        """Set the socket of the attempt that begins."""
        with self._lock:
            self._socket = sock

    def check(self) -> None:
        """Raise ConnectionAbortedError if `abort` was called."""
        if self._called:
            raise ConnectionAbortedError(errno.ECONNABORTED, "connecting was aborted")

    def succeed(self) -> None:
        """Release the socket of a successful attempt, so that aborting does not end it; raise as `check` does."""
        with self._lock:
            self.check()
            self._socket = None


def connect(address: Address, context: ssl.SSLContext | None = None, abort: Abort | None = None) -> Connection:
    """Connect to `address`.

    Parameters
    ----------
    address : Address
        The far end.
    context : ssl.SSLContext, optional
        Required for a "tls" address, and only there; `tls_context` makes it.
    abort : Abort, optional
        ``abort()`` in another thread ends this within 0.1 s, except during name resolution.

    Raises
    ------
    UnreachableError
        If the far end does not answer or, with TLS, its certificate is rejected.
    MultiFDError
        If `tls` is required but missing, or its files cannot be used.
    """
    if (address.kind == "tls") != (context is not None):
        raise ValueError(f"{address}: a TLS context is for addresses of the kind tls, which need one")
    abort = abort or Abort()
    deadline = time.monotonic() + HANDSHAKE_SECONDS
    try:
        sock = _connected(address, abort, deadline)
        try:
            connection = greet(sock, str(address), context, address.host, deadline)
            abort.succeed()
        except (OSError, PeerClosedError):
            sock.close()
            raise
    except (OSError, PeerClosedError) as error:
        reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
        no_listener = isinstance(error, ConnectionRefusedError | FileNotFoundError)
        hint = " (nothing listens there: start the far end first)" if no_listener else ""
        raise UnreachableError(f"cannot connect to {address}: {reason or error}{hint}") from error
    return connection


def _connected(address: Address, abort: Abort, deadline: float) -> socket.socket:
    if address.kind == "unix":
        return _connected_to(socket.AF_UNIX, address.path, abort, deadline)
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    *others, last = [(family, where) for family, _, _, _, where in found]
    for family, where in others:
        with contextlib.suppress(OSError):
            return _connected_to(family, where, abort, deadline)
    return _connected_to(*last, abort, deadline)


def _connected_to(family: socket.AddressFamily, where: Any, abort: Abort, deadline: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        abort.watch(sock)
        sock.setblocking(False)
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        while code := sock.connect_ex(where):
            if code not in (errno.EAGAIN, errno.EINPROGRESS, errno.EALREADY):
                raise OSError(code, os.strerror(code))
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"it has not accepted for {HANDSHAKE_SECONDS:g} s")
            abort.check()
            if code == errno.EAGAIN:  # the queue of a unix socket is full, and poll does not wait for that
                time.sleep(TICK)
            else:
                poll.poll(TICK * 1000)
        sock.setblocking(True)
    except OSError:
        sock.close()
        raise
    return sock
