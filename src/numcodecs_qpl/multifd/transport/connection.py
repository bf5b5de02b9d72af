"""A connection: reading, sending, and ending it.

Two threads may use a connection's two directions at once. Its `abort` may be called from any thread, and wakes a thread
that waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Sequence

from numcodecs_qpl.multifd.errors import NoAnswerError, PeerClosedError

UNIX_BUFFER = 1 << 20  # bytes
NO_ANSWER = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}
"""Errors of a dead link; the other side may not notice them."""
PIECE = 64 * 1024  # bytes to drop at a time
IOV_MAX = 1024  # Linux's limit of buffers in a call (limits.h)


class Connection:
    """A stream socket.

    Parameters
    ----------
    sock : socket.socket
        Connected; this object closes it.
    name : str
        Name of the other end, for messages.

    Attributes
    ----------
    name : str
        Name of the other end.
    advice : str
        Advice at the end of messages about a broken connection.
    pace : callable
        ``pace(size)`` is called before `size` bytes are sent, and waits until they may be sent.
    received, sent : int
        Bytes so far.
    """

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.name = name
        self.advice = ""
        self.pace: Callable[[int], object] = lambda size: None
        self._socket = sock
        self.received = 0
        self.sent = 0
        if sock.family == socket.AF_UNIX:
            # With this buffer a packet is sent in one piece, in 75 us. With the default, the sender sleeps four times,
            # and a packet takes 176 us.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER)
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def limit_silence(self, seconds: int) -> None:
        """Break the connection when the far host has acknowledged or accepted nothing for `seconds`.

        An idle link is probed after half of that time. A unix socket has no link, so nothing changes.
        """
        if self._socket.family == socket.AF_UNIX:
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, max(1, seconds // 2)),
            (socket.TCP_KEEPINTVL, max(1, seconds // 6)),
            (socket.TCP_KEEPCNT, 3),
            # In milliseconds. Keepalive does not probe while data is unacknowledged.
            (socket.TCP_USER_TIMEOUT, seconds * 1000),
        ):
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._socket.fileno()

    def has_hung_up(self) -> bool:
        """Return True if the other side has ended its direction, read or unread, or this side has closed."""
        if self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLRDHUP)
        return bool(poll.poll(0))

    def read_some(self, view: memoryview) -> int:
        """Read the available bytes, at least one, into `view`; return 0 at the end of the stream.

        Raises
        ------
        PeerClosedError
            If the connection broke.
        """
        try:
            size = self._socket.recv_into(view)
        except OSError as error:
            raise self._broken(error) from error
        self.received += size
        return size

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Read until the stream ends, in pieces of at most `size` bytes. All pieces use the same memory.

        Raises
        ------
        PeerClosedError
            If the connection broke.
        """
        piece = memoryview(bytearray(size))
        while True:
            self._wait()
            read = self.read_some(piece)
            if not read:
                return
            yield piece[:read]

    def _wait(self) -> None:
        """Wait until there is something to read."""
        # Linux (6.18) wakes a thread that waits in recv on a unix socket whenever the other side has read bytes that
        # were sent on it. In a relay this happens about twice a packet, and takes 30 us. A thread in poll is not woken.
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.poll()

    def read_into(self, views: Sequence[memoryview]) -> None:
        """Fill `views`, one after the other.

        Raises
        ------
        PeerClosedError
            If the stream ends early. The message has the number of missing bytes.
        """
        for number, view in enumerate(views):
            rest = view
            while rest.nbytes:
                size = self._fill(rest)
                if not size:
                    missing = rest.nbytes + sum(later.nbytes for later in views[number + 1 :])
                    total = sum(each.nbytes for each in views)
                    raise PeerClosedError(f"{self.name} ended; {missing} of {total} bytes were missing")
                rest = rest[size:]

    def _fill(self, view: memoryview) -> int:
        try:
            size = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
        except OSError as error:
            raise self._broken(error) from error
        self.received += size
        return size

    def _broken(self, error: OSError) -> PeerClosedError:
        kind = NoAnswerError if error.errno in NO_ANSWER else PeerClosedError
        return kind(f"the connection to {self.name} broke: {error.strerror or error}{self.advice}")

    def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Send `buffers`, one after the other.

        Raises
        ------
        PeerClosedError
            If the other side has closed, or the connection broke.
        """
        self.sent += self._transmit(buffers)

    def _transmit(self, buffers: Sequence[bytes | bytearray | memoryview]) -> int:
        left = [memoryview(buffer).cast("B") for buffer in buffers]
        total = sum(map(len, left))
        self.pace(total)
        try:
            while left:
                size = self._socket.sendmsg(left[:IOV_MAX])
                while left and size >= len(left[0]):
                    size -= len(left.pop(0))
                if size:
                    left[0] = left[0][size:]
        except OSError as error:
            kind = NoAnswerError if error.errno in NO_ANSWER else PeerClosedError
            raise kind(f"{self.name} takes no more: {error.strerror or error}{self.advice}") from error
        return total

    def end(self) -> None:
        """End the sending direction; the other side may still send."""
        with contextlib.suppress(OSError):  # the other side has closed already
            self._socket.shutdown(socket.SHUT_WR)

    def stop_reading(self) -> None:
        """End the reading direction after the bytes that have arrived, and wake a thread that waits for more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """End both directions immediately, in mid-stream."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; no thread may be using the connection."""
        self._socket.close()

    def reset(self) -> None:
        """Close the socket with a reset (TCP), so that the other side sees an error instead of an orderly end.

        A unix socket has no reset: the other side sees the end of the stream.
        """
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def discard(connections: Collection[Connection], timeout: float) -> None:
    """Read and drop what has come on `connections`, or what comes first within `timeout` seconds.

    Parameters
    ----------
    connections : collection of Connection
        No thread reads them. Those with TLS cannot be used for anything else after this.
    timeout : float
        In seconds.
    """
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    for descriptor, _ in poll.poll(timeout * 1000):
        with contextlib.suppress(OSError):  # it broke
            os.read(descriptor, PIECE)
