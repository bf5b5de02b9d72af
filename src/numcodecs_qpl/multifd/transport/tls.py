"""A connection within TLS, each of whose directions ends on its own.

`ssl.SSLSocket` can't do that: its ``unwrap`` waits for, and spoils, what the other side still sends, and it cannot be
used by two threads. Here TLS works on memory, under a lock that is not held while waiting for the network.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Sequence

from numcodecs_qpl.multifd.errors import PeerClosedError
from numcodecs_qpl.multifd.transport.connection import Connection

PIECE = 256 * 1024  # bytes that are read, and that are encrypted, at a time
RECORD = 16 * 1024  # bytes within a TLS record, at most (RFC 8446, section 5.1)


class TLSConnection(Connection):
    """A stream socket within TLS.

    Parameters
    ----------
    sock : socket.socket
        Connected; it is this object's from now on.
    name : str
        Name of the other end, for messages.
    context : ssl.SSLContext
        Of the side that this is.
    server_hostname : str, optional
        At a client: whose certificate the server has to have.

    Attributes
    ----------
    received, sent : int
        Bytes so far, as they are outside TLS.
    """

    def __init__(
        self, sock: socket.socket, name: str, context: ssl.SSLContext, server_hostname: str | None = None
    ) -> None:
        super().__init__(sock, name)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._lock = threading.Lock()
        self._encrypted = memoryview(bytearray(PIECE))
        self._ready = memoryview(b"")
        self._peer_ended = False
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )

    def shake_hands(self, deadline: float | None = None) -> None:
        """Do TLS's handshake, before anything else.

        Parameters
        ----------
        deadline : float, optional
            When all of it must be done, by `time.monotonic`.

        Raises
        ------
        OSError
            If it fails.
        PeerClosedError
            If the connection breaks, or the bytes are not TLS.
        """
        while True:
            if deadline is not None:
                self._socket.settimeout(max(0.001, deadline - time.monotonic()))  # 0 would not wait at all
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._transmit([self._outgoing.read()])
                self._take_in()
            except ssl.SSLError as error:
                with contextlib.suppress(PeerClosedError):
                    self._transmit([self._outgoing.read()])  # it says to the other side what is wrong
                if error.reason == "WRONG_VERSION_NUMBER":  # OpenSSL's name for bytes that are not a TLS record
                    raise PeerClosedError(f"{self.name} does not speak TLS") from error
                raise
            else:
                break
        self._transmit([self._outgoing.read()])
        self._socket.settimeout(None)

    def _take_in(self) -> None:
        """Wait for bytes, and hand them to TLS."""
        try:
            size = self._socket.recv_into(self._encrypted)
        except OSError as error:
            raise self._broken(error) from error
        if not size:
            raise PeerClosedError(f"the connection to {self.name} broke: it ended without TLS's good-bye")
        with self._lock:
            self._incoming.write(self._encrypted[:size])

    def read_some(self, view: memoryview) -> int:
        """Read what is there, at least one byte, into `view`; 0 where TLS itself says that the stream has ended.

        Raises
        ------
        PeerClosedError
            If the connection broke, or ended without TLS saying so.
        """
        self._decrypt()  # what came along with the handshake
        while not self._ready and not self._peer_ended:
            self._take_in()
            self._decrypt()
        size = min(len(view), len(self._ready))
        view[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        self.received += size
        return size

    def _wait(self) -> None:
        """Do nothing: bytes may have been decrypted already, and `read_some` waits for others."""

    def _fill(self, view: memoryview) -> int:
        return self.read_some(view)

    def _decrypt(self) -> None:
        """Decrypt all that is there: what is left would be lost when this side says good-bye."""
        if self._ready or self._peer_ended:
            return
        pieces = []
        try:
            with self._lock:
                while piece := self._tls.read(RECORD):
                    pieces.append(piece)
            self._peer_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # instead of nothing, where this side has said good-bye before
            self._peer_ended = True
        except ssl.SSLError as error:
            raise PeerClosedError(f"the connection to {self.name} broke: {error}") from error
        self._ready = memoryview(b"".join(pieces))

    def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send `buffers`, one after the other.

        Raises
        ------
        PeerClosedError
            If the other side has closed, or the connection broke.
        """
        left = memoryview(b"".join(buffers))
        while left:
            with self._lock:
                size = self._tls.write(left[:PIECE])
                encrypted = self._outgoing.read()
            self._transmit([encrypted])
            self.sent += size
            left = left[size:]

    def end(self) -> None:
        """Say good-bye in TLS's way, without waiting for the other side's."""
        with self._lock:
            with contextlib.suppress(ssl.SSLError):  # the other side's has not come yet
                self._tls.unwrap()
            encrypted = self._outgoing.read()
        with contextlib.suppress(PeerClosedError):  # it is gone already
            self._transmit([encrypted])
        super().end()


def greet(
    sock: socket.socket,
    name: str,
    context: ssl.SSLContext | None,
    host: str | None = None,
    deadline: float | None = None,
) -> Connection:
    """Return the connection on a connected socket, after TLS's handshake if there is a `context`.

    Parameters
    ----------
    sock : socket.socket
        Connected.
    name : str
        Name of the other end, for messages.
    context : ssl.SSLContext or None
        Of the side that this is; None without TLS.
    host : str, optional
        At a client: whose certificate the server has to have.
    deadline : float, optional
        When the handshake must be done, by `time.monotonic`.

    Raises
    ------
    OSError, PeerClosedError
        If the handshake fails.
    """
    if context is None:
        return Connection(sock, name)
    connection = TLSConnection(sock, name, context, host)
    connection.shake_hands(deadline)
    return connection
