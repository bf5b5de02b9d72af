"""One connection: bytes in, bytes out, and how it ends.

A connection's two directions may be used by two threads at once. `Connection.abort` may be called from any thread, and
wakes whoever waits.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from functools import partial

from numcodecs_qpl.multifd.errors import PeerClosedError

UNIX_BUFFER = 1 << 20  # bytes
IOV_MAX = 1024  # Linux's limit of buffers in a call (limits.h)


class Connection:
    """A stream socket.

    Parameters
    ----------
    sock : socket.socket
        Connected; it is this object's from now on.
    name : str
        Who is at the other end, for messages.

    Attributes
    ----------
    received, sent : int
        Bytes so far.
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        sock.settimeout(None)
        self._name = name
        self._socket = sock
        self.received = 0
        self.sent = 0
        if sock.family == socket.AF_UNIX:
            # A packet then goes in one piece, where the default has the sender sleep four times: 75 us, not 176.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def read_some(self, view: memoryview) -> int:
        """Read what is there, at least one byte, into `view`; 0 where the stream has ended.

        Raises
        ------
        PeerClosedError
            If the connection broke.
        """
        return self._count(lambda: self._socket.recv_into(view))

    def read_into(self, views: Sequence[memoryview]) -> None:
        """Fill `views`, one after the other.

        Raises
        ------
        PeerClosedError
            If the stream ends before; its message says how much was missing.
        """
        total = sum(view.nbytes for view in views)
        done = 0
        for view in views:
            while view.nbytes:
                size = self._fill(view)
                if not size:
                    raise PeerClosedError(f"{self._name} ended; {total - done} of {total} bytes were missing")
                done += size
                view = view[size:]

    def _fill(self, view: memoryview) -> int:
        return self._count(lambda: self._socket.recv_into(view, 0, socket.MSG_WAITALL))

    def _count(self, receive: Callable[[], int]) -> int:
        try:
            size = receive()
        except OSError as error:
            raise PeerClosedError(f"the connection to {self._name} broke: {error.strerror or error}") from error
        self.received += size
        return size

    def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send `buffers`, one after the other.

        Raises
        ------
        PeerClosedError
            If the other side has closed, or the connection broke.
        """
        left = [memoryview(buffer).cast("B") for buffer in buffers]
        try:
            while left:
                size = self._socket.sendmsg(left[:IOV_MAX])
                self.sent += size
                while left and size >= len(left[0]):
                    size -= len(left.pop(0))
                if size:
                    left[0] = left[0][size:]
        except OSError as error:
            raise PeerClosedError(f"{self._name} takes no more: {error.strerror or error}") from error

    def end(self) -> None:
        """Tell the other side that no more comes; it may still send."""
        with contextlib.suppress(OSError):  # it is gone already
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """End both directions at once, in the middle of whatever is going on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; no thread may be using the connection."""
        self._socket.close()


class TLSConnection(Connection):
    """A stream socket within TLS.

    Parameters
    ----------
    sock : ssl.SSLSocket
        Connected, its handshake done.
    name : str
        Who is at the other end, for messages.
    """

    def __init__(self, sock: ssl.SSLSocket, name: str) -> None:
        super().__init__(sock, name)
        sock.setblocking(False)
        self._tls = sock
        # OpenSSL's object must not be used by two threads at once; none of its calls waits, so neither does the lock.
        self._lock = threading.Lock()

    def read_some(self, view: memoryview) -> int:
        """Read what is there, at least one byte, into `view`; 0 where TLS itself says that the stream has ended."""
        return self._count(lambda: self._do(lambda: self._tls.recv_into(view)))

    def _fill(self, view: memoryview) -> int:
        return self.read_some(view)

    def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send `buffers`, one after the other."""
        for buffer in buffers:
            self._send_all(memoryview(buffer).cast("B"))

    def _send_all(self, view: memoryview) -> None:
        try:
            while view:
                size = self._do(partial(self._tls.send, view))
                self.sent += size
                view = view[size:]
        except OSError as error:
            raise PeerClosedError(f"{self._name} takes no more: {error.strerror or error}") from error

    def end(self) -> None:
        """Say good-bye in TLS's way, without waiting for the other side's."""
        # What is suppressed is that the other side's good-bye has not come yet, or that it is gone already.
        with contextlib.suppress(OSError, ValueError), self._lock:
            self._tls.unwrap()
        # SSLSocket.shutdown would forget the TLS state, and reading may go on.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._tls, socket.SHUT_WR)

    def abort(self) -> None:
        """End both directions at once; without a good-bye, so that nobody takes it for the end."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._tls, socket.SHUT_RDWR)

    def _do(self, call: Callable[[], int]) -> int:
        while True:
            try:
                with self._lock:
                    return call()
            except ssl.SSLWantReadError:
                select_for = select.POLLIN
            except ssl.SSLWantWriteError:
                select_for = select.POLLOUT
            poll = select.poll()
            poll.register(self._tls, select_for)
            poll.poll()


def connection_of(sock: socket.socket, name: str) -> Connection:
    """A connection on a connected socket, within TLS if the socket is."""
    return TLSConnection(sock, name) if isinstance(sock, ssl.SSLSocket) else Connection(sock, name)
