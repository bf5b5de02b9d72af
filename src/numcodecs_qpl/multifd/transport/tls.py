"""A TLS connection whose two directions end independently.

`ssl.SSLSocket` cannot do that: its ``unwrap`` waits for the other side and loses what it still sends, and two threads
cannot use it. Here TLS works on memory, under a lock that is not held while a thread waits for the network.
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

PIECE = 256 * 1024  # bytes to read, and to encrypt, at a time
RECORD = 16 * 1024  # most bytes in a TLS record (RFC 8446, section 5.1)


class TLSConnection(Connection):
    """A stream socket within TLS.

    Parameters
    ----------
    sock : socket.socket
        Connected; this object closes it.
    name : str
        Name of the other end, for messages.
    context : ssl.SSLContext
        Context of this side, server or client.
    server_hostname : str, optional
        At a client: the host name that the server's certificate must have.

    Attributes
    ----------
    received, sent : int
        Bytes so far, without TLS's overhead.
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
        """Do TLS's handshake. This must be the first call.

        Parameters
        ----------
        deadline : float, optional
            End of the time for the handshake, by `time.monotonic`.

        Raises
        ------
        OSError
            If the handshake fails.
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
                    self._transmit([self._outgoing.read()])  # TLS's alert, which tells the other side the reason
                if error.reason == "WRONG_VERSION_NUMBER":  # OpenSSL's name for bytes that are not a TLS record
                    raise PeerClosedError(f"{self.name} does not speak TLS") from error
                raise
            else:
                break
        self._transmit([self._outgoing.read()])
        self._socket.settimeout(None)

    def _take_in(self) -> None:
        """Wait for bytes, and pass them to TLS."""
        try:
            size = self._socket.recv_into(self._encrypted)
        except OSError as error:
            raise self._broken(error) from error
        if not size:
            raise PeerClosedError(f"the connection to {self.name} broke: it ended without TLS's good-bye")
        with self._lock:
            self._incoming.write(self._encrypted[:size])

    def read_some(self, view: memoryview) -> int:
        """Read the available bytes, at least one, into `view`; return 0 after TLS's close_notify.

        Raises
        ------
        PeerClosedError
            If the connection broke, or ended without a close_notify.
        """
        self._decrypt()  # bytes that came with the handshake
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
        """Decrypt all bytes that have come: the rest would be lost when this side sends its close_notify."""
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
        except ssl.SSLZeroReturnError:  # raised instead of returning b"" if this side has sent its close_notify
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
        """Send TLS's close_notify, without waiting for the other side's."""
        with self._lock:
            with contextlib.suppress(ssl.SSLError):  # the other side's close_notify has not come yet
                self._tls.unwrap()
            encrypted = self._outgoing.read()
        with contextlib.suppress(PeerClosedError):  # the other side has closed already
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
        Context of this side, server or client; None without TLS.
    host : str, optional
        At a client: the host name that the server's certificate must have.
    deadline : float, optional
        End of the time for the handshake, by `time.monotonic`.

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
