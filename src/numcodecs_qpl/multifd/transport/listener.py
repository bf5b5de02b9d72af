"""Listening sockets."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shlex
import socket
import stat
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.transport.access import Access
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.connection import Connection
from numcodecs_qpl.multifd.transport.tls import greet
from numcodecs_qpl.multifd.transport.tlsfiles import TLSFiles, tls_context

BACKLOG = 64
OWNER_ONLY = Access()


class Listener:
    """A listening socket.

    Parameters
    ----------
    where : Address or socket.socket
        Address to listen at; a unix socket replaces one without a listener. Or a listening socket, as systemd passes
        it: this object closes it, but does not remove a unix socket's file.
    tls : TLSFiles, optional
        Required for a "tls" address. With these, a listening TCP socket uses TLS.
    access : Access
        Mode and owner of a unix socket that this object creates.

    Attributes
    ----------
    address : Address
        Address of the listener, with the port that the system chose.

    Raises
    ------
    MultiFDError
        If it cannot listen there, or the socket is not a listening stream socket.
    """

    def __init__(
        self, where: Address | socket.socket, tls: TLSFiles | None = None, access: Access = OWNER_ONLY
    ) -> None:
        self._made_here = isinstance(where, Address)
        self.address = where if isinstance(where, Address) else _address_of(where, tls)
        self._tls = tls
        self._context = tls_context(self.address, tls, server=True)
        try:
            # Wakes a thread that waits in `accept`. A shutdown would end the socket for systemd too. A thread
            # may be about to wait, so this is closed together with the object.
            self._closed = os.eventfd(0)
            weakref.finalize(self, os.close, self._closed)
            self._socket = _listen(where, access) if isinstance(where, Address) else where
        except OSError as error:
            # Python adds to the text of an error of bind, and getaddrinfo has numbers of its own.
            number = error.errno or 0
            reason = os.strerror(number) if number in errno.errorcode else error.strerror or error
            raise MultiFDError(f"cannot listen on {self.address}: {reason}") from error
        if self.address.kind != "unix":
            self.address = replace(self.address, port=self._socket.getsockname()[1])
        self._socket.setblocking(False)
        self._fd = self._socket.fileno()
        self._lock = threading.Lock()

    def accept(self, timeout: float | None = None) -> socket.socket:
        """Wait for the next connection; TimeoutError after `timeout` seconds, another OSError after `close`.

        The connection itself has no time limit.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._closed, select.POLLIN)
        poll.register(self._fd, select.POLLIN)
        while poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
            with self._lock, contextlib.suppress(BlockingIOError):  # the client has closed already
                return self._socket.accept()[0]
        raise TimeoutError

    def greet(self, sock: socket.socket, name: str) -> Connection:
        """Return the connection on an accepted socket; with a "tls" address, do TLS's handshake first.

        Raises
        ------
        OSError, PeerClosedError
            If the handshake fails.
        """
        return greet(sock, name, self._context)  # the intake enforces a deadline

    def reload_tls(self) -> None:
        """Read the TLS files again, for later connections.

        Raises
        ------
        MultiFDError
            If they cannot be used. The old ones then stay in use.
        """
        self._context = tls_context(self.address, self._tls, server=True)

    def close(self) -> None:
        """Stop listening, and remove the file of a unix socket that this object created."""
        with self._lock:
            os.eventfd_write(self._closed, 1)
            try:
                if self._made_here and self._socket.fileno() >= 0 and self.address.kind == "unix":
                    Path(self.address.path).unlink(missing_ok=True)
            finally:
                self._socket.close()


def _listen(address: Address, access: Access) -> socket.socket:
    if address.kind == "unix":
        return _listen_on_unix(address.path, access)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)


def _listen_on_unix(path: str, access: Access) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        _remove_abandoned(path)
        before = os.umask(0o777 & ~access.first_mode)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        try:
            access.give(path)
            sock.listen(BACKLOG)  # before this, every connection is refused
        except OSError:
            Path(path).unlink()
            raise
    except OSError:
        sock.close()
        raise
    return sock


def _remove_abandoned(path: str) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError("a file that is not a socket is there; give another path, or remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a listener with a full queue would keep it waiting
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        except BlockingIOError:
            pass  # bind reports that the socket is in use
        except PermissionError as error:
            raise PermissionError(
                f"user {os.geteuid()} may not connect to the socket that is there, to see whether it is in use. If no "
                f"process listens on it, remove it: rm {shlex.quote(path)}"
            ) from error


def _address_of(sock: socket.socket, tls: TLSFiles | None) -> Address:
    """Return the address of a listening socket."""
    kinds = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
    listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family not in kinds or not listens:
        raise MultiFDError(
            f"cannot listen on the socket that was passed ({sock.family.name}, {sock.type.name}): expected a unix or "
            "TCP socket that listens (in systemd's socket unit: ListenStream=)"
        )
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        return Address("tcp" if tls is None else "tls", host=name[0], port=name[1])
    if not isinstance(name, str) or not name:
        raise MultiFDError(
            f"cannot listen on the socket that was passed, {name!r}: abstract unix sockets have no owner and no mode, "
            "and are not supported; give it a path"
        )
    return Address("unix", path=name)
