"""Sockets that listen."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from numcodecs_qpl.multifd.address import Address
from numcodecs_qpl.multifd.connection import Connection
from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.tls import greet
from numcodecs_qpl.multifd.tlsfiles import TLSFiles, tls_context

BACKLOG = 64


class Listener:
    """A listening socket.

    Parameters
    ----------
    address : Address
        End point to listen at. A unix socket is made with mode 0600. It replaces a socket that has no listener any
        more.
    tls : TLSFiles, optional
        Needed for a "tls" address.

    Attributes
    ----------
    address : Address
        The same, with the port that the system chose.

    Raises
    ------
    MultiFDError
        If it cannot listen there.
    """

    def __init__(self, address: Address, tls: TLSFiles | None = None) -> None:
        self._context = tls_context(address, tls, server=True)
        try:
            if address.kind == "unix":
                self._socket = _listen_on_unix(address.path)
            else:
                family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
                self._socket = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
                address = Address(address.kind, host=address.host, port=self._socket.getsockname()[1])
        except OSError as error:
            raise MultiFDError(f"cannot listen on {address}: {error.strerror or error}") from error
        self.address = address

    def accept(self, timeout: float | None = None) -> socket.socket:
        """Wait for the next connection; TimeoutError after `timeout` seconds, another OSError once `close` was called.

        The connection itself has no time-out.
        """
        self._socket.settimeout(timeout)
        return self._socket.accept()[0]

    def greet(self, sock: socket.socket, name: str) -> Connection:
        """Return the connection on an accepted socket, after TLS's handshake if this is a "tls" address.

        Raises
        ------
        OSError, PeerClosedError
            If the handshake fails.
        """
        return greet(sock, name, self._context)  # the intake has the deadline

    def close(self) -> None:
        """Stop listening, and remove a unix socket's file."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in accept
        if self._socket.fileno() >= 0 and self.address.kind == "unix":
            Path(self.address.path).unlink(missing_ok=True)
        self._socket.close()


def _listen_on_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        _remove_abandoned(path)
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_abandoned(path: str) -> None:
    if not os.path.lexists(path) or not stat.S_ISSOCK(os.lstat(path).st_mode):
        return  # bind reports a file that is not a socket
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a listener with a full queue would keep it waiting
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except BlockingIOError:
            pass  # bind reports that the socket is in use
