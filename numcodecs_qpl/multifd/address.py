"""Addresses of end points, and the sockets that listen at them or connect to them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import select
import shlex
import socket
import ssl
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numcodecs_qpl.multifd.connection import Connection
from numcodecs_qpl.multifd.errors import MultiFDError, PeerClosedError
from numcodecs_qpl.multifd.tls import TLSConnection

LOOPBACK = "127.0.0.1"
HANDSHAKE_SECONDS = 30.0
"""How long connecting, TLS's handshake, and a new connection's first words may take."""
BACKLOG = 64
MAX_PORT = 65535
ANY_IPV4 = "0.0.0.0"  # noqa: S104, as it is compared and not bound
TICK = 0.1  # seconds between two looks at whether connecting was aborted


@dataclass(frozen=True)
class Address:
    """An end point.

    Attributes
    ----------
    kind : {"unix", "tcp", "tls"}
        "tls" is TLS over TCP.
    path : str
        Path of the unix socket.
    host : str
        A name or a number.
    port : int
        1 to 65535, or 0 to listen on a port that the system chooses.
    """

    kind: str
    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        """Return the text for `parse_address`, with a path's unprintable characters escaped: it goes to terminals."""
        if self.kind == "unix":
            path = (each if each.isprintable() else each.encode("unicode_escape").decode() for each in self.path)
            return f"unix:{''.join(path)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}:{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse ``unix:PATH``, ``tcp:HOST:PORT`` or ``tls:HOST:PORT``.

    Without a host (``tcp::PORT``) it is the loopback address. An IPv6 number, and nothing else, stands in brackets.

    Raises
    ------
    ValueError
        If `text` is not an address of these kinds.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return Address(kind, path=_checked_path(text, rest))
    host, colon, port = rest.rpartition(":")
    if kind not in ("tcp", "tls") or not colon:
        raise ValueError(f"invalid address {text!r}: expected unix:PATH, tcp:HOST:PORT or tls:HOST:PORT")
    return Address(kind, host=_checked_host(text, host), port=_checked_port(text, port))


def _checked_path(text: str, path: str) -> str:
    if path.startswith("@"):
        raise ValueError(
            f"invalid address {text!r}: abstract unix sockets have no owner and no mode, and are not supported; "
            f"expected unix:PATH (for a file of that name unix:./{path})"
        )
    if not path or "\0" in path:
        raise ValueError(f"invalid address {text!r}: expected unix:PATH, with the path of a socket")
    return path


def _checked_host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        number, percent, zone = host[1:-1].partition("%")
        if not _is_ipv6(number) or bool(percent) != bool(zone) or not zone.isprintable():
            raise ValueError(f"invalid address {text!r}: expected the number of an IPv6 host in the brackets")
        return host[1:-1]
    if ":" in host:
        raise ValueError(f"invalid address {text!r}: expected an IPv6 number in brackets, as in tcp:[::1]:4444")
    # The socket module encodes names so. "[" and "]" are not among the characters of a name.
    with contextlib.suppress(UnicodeError):
        if re.fullmatch(r"[A-Za-z0-9._-]*", host.encode("idna").decode()):
            return host or LOOPBACK
    raise ValueError(f"invalid address {text!r}: expected the name or the number of a host")


def _checked_port(text: str, port: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= MAX_PORT:
        raise ValueError(f"invalid address {text!r}: expected a port from 1 to {MAX_PORT}")
    return int(port)


def _is_ipv6(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):  # ValueError for a NUL, and for what is not ASCII
        return False
    return True


@dataclass(frozen=True)
class TLSFiles:
    """Our certificate in TLS and the authorities that we trust: files in PEM format.

    Attributes
    ----------
    cert, key : Path
        Our certificate (with those between it and the authority's, if any) and its key.
    ca : Path
        Certificates of the authorities, one of which must have issued the other side's certificate.
    verify_peer : bool
        True if a listener asks for the other side's certificate. The connecting side always does.
    """

    cert: Path
    key: Path
    ca: Path
    verify_peer: bool = True

    def context(self, *, server: bool) -> ssl.SSLContext:
        """TLS 1.2 or later for one side.

        Raises
        ------
        MultiFDError
            If a file cannot be read or has other content, or others can read or change the key.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # whatever Python and OpenSSL are configured to allow
        if server:
            context.verify_mode = ssl.CERT_REQUIRED if self.verify_peer else ssl.CERT_NONE
            # A client that only sends would never read the tickets, and closing with bytes unread resets the
            # connection.
            context.num_tickets = 0
        using = f"{self.cert} and {self.key}"
        try:
            _check_key(self.key)
            context.load_cert_chain(self.cert, self.key, password=self._refuse_passphrase)
            using = str(self.ca)
            context.load_verify_locations(self.ca)
        except OSError as error:  # ssl's own errors are of this kind too
            raise MultiFDError(f"TLS cannot use {using}: {error.strerror or error}") from error
        return context

    def _refuse_passphrase(self) -> str:
        # OpenSSL would ask at the terminal, and wait there while signals wait too.
        raise MultiFDError(
            f"TLS refuses the key {self.key}: it is encrypted with a passphrase; write it without one "
            f"(`openssl pkey -in {shlex.quote(str(self.key))} -out FILE`) and protect the file by its mode, 0600"
        )


def _check_key(key: Path) -> None:
    status = key.stat()
    # A key of root's that a group can read is how Debian's ssl-cert shares one.
    allowed = 0o640 if status.st_uid == 0 else 0o600
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 & ~allowed:
        raise MultiFDError(
            f"TLS refuses the key {key}: others can read or change it (mode {mode:04o}); run "
            f"`chmod 600 {shlex.quote(str(key))}`"
        )


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
        return _greet(sock, name, self._context)  # the intake has the deadline

    def close(self) -> None:
        """Stop listening, and remove a unix socket's file."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in accept
        if self._socket.fileno() >= 0 and self.address.kind == "unix":
            Path(self.address.path).unlink(missing_ok=True)
        self._socket.close()


class Abort:
    """Ends a `connect` from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._called = False
        self._socket: socket.socket | None = None

    def __call__(self) -> None:
        """End the attempt that is going on, and every later one, with an error."""
        with self._lock:
            self._called = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # wakes TLS's handshake

    def watch(self, sock: socket.socket) -> None:
        """Name the socket of the attempt that begins."""
        with self._lock:
            self._socket = sock

    def check(self) -> None:
        """Raise ConnectionAbortedError if `abort` was called."""
        if self._called:
            raise ConnectionAbortedError(errno.ECONNABORTED, "connecting was aborted")

    def succeed(self) -> None:
        """Leave the socket of an attempt that has succeeded alone from now on; raise as `check` does."""
        with self._lock:
            self.check()
            self._socket = None


def connect(address: Address, tls: TLSFiles | None = None, abort: Abort | None = None) -> Connection:
    """Connect to `address`.

    Parameters
    ----------
    address : Address
        The far end.
    tls : TLSFiles, optional
        Needed for a "tls" address.
    abort : Abort, optional
        ``abort()`` in another thread ends this within a tenth of a second, name resolution excepted.

    Raises
    ------
    MultiFDError
        If the far end does not answer or, with TLS, its certificate is not accepted.
    """
    context = tls_context(address, tls, server=False)
    abort = abort or Abort()
    deadline = time.monotonic() + HANDSHAKE_SECONDS
    try:
        sock = _connected(address, abort, deadline)
        try:
            connection = _greet(sock, str(address), context, address.host, deadline)
            abort.succeed()
        except (OSError, PeerClosedError):
            sock.close()
            raise
    except (OSError, PeerClosedError) as error:
        reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
        no_listener = isinstance(error, ConnectionRefusedError | FileNotFoundError)
        hint = " (nothing listens there: start the far end first)" if no_listener else ""
        raise MultiFDError(f"cannot connect to {address}: {reason or error}{hint}") from error
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
            if code == errno.EAGAIN:  # the queue of a unix socket is full: poll cannot tell when there is room
                time.sleep(TICK)
            else:
                poll.poll(TICK * 1000)
        sock.setblocking(True)
    except OSError:
        sock.close()
        raise
    return sock


def _greet(
    sock: socket.socket,
    name: str,
    context: ssl.SSLContext | None,
    host: str | None = None,
    deadline: float | None = None,
) -> Connection:
    if context is None:
        return Connection(sock, name)
    connection = TLSConnection(sock, name, context, host)
    connection.shake_hands(deadline)
    return connection


def is_same_socket(listen: Address, onward: Address) -> bool:
    """Return True if connecting to `onward` reaches the listener at `listen`."""
    if "unix" in (listen.kind, onward.kind):
        return listen.kind == onward.kind and os.path.realpath(listen.path) == os.path.realpath(onward.path)
    if listen.port != onward.port:
        return False
    here = _numbers(listen.host)
    # A listener at every IPv6 address takes no IPv4 connections: socket.create_server sets IPV6_V6ONLY.
    return any(
        number in here or (("::" if ":" in number else ANY_IPV4) in here and _is_here(number))
        for number in map(_reached, _numbers(onward.host))
    )


def _reached(number: str) -> str:
    """Return the number of the host that connecting to `number` reaches."""
    if number in (ANY_IPV4, "::"):
        return LOOPBACK if number == ANY_IPV4 else "::1"
    mapped = ipaddress.IPv6Address(number).ipv4_mapped if ":" in number else None
    return str(mapped or number)


def _numbers(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:  # listening and connecting report it
        return set()


def _is_here(number: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in number else socket.AF_INET) as sock:
            sock.bind((number, 0))
    except OSError:
        return False
    return True


def tls_context(address: Address, tls: TLSFiles | None, *, server: bool) -> ssl.SSLContext | None:
    """Make the TLS context for `address`; None if it is not of the kind "tls".

    Raises
    ------
    MultiFDError
        If `tls` is missing, or its files cannot be used.
    """
    if address.kind != "tls":
        return None
    if tls is None:
        raise MultiFDError(f"{address} needs a certificate, its key and an authority's certificate")
    return tls.context(server=server)


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
