"""Accepting the connections of migrations, and refusing all others.

QEMU opens one main connection and the multifd channels, all to one address. The first four bytes identify a connection:
the main channel's magic (``QEMU_VM_FILE_MAGIC`` in QEMU's ``migration/qemu-file-types.h``), or multifd's. A relay may
send a PROXY header first, which identifies the migration.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.stream import proxy, wire
from numcodecs_qpl.multifd.threads import NoThreadError, start
from numcodecs_qpl.multifd.transport.connecting import HANDSHAKE_SECONDS
from numcodecs_qpl.multifd.transport.connection import Connection
from numcodecs_qpl.multifd.transport.listener import Listener

MAIN_MAGIC = b"QEVM"
MULTIFD_MAGIC = wire.MAGIC.to_bytes(4, "big")
PROXY_MAGIC = proxy.SIGNATURE[:4]
MAGIC_SIZE = 4  # bytes
TLS_HANDSHAKE = 0x16
"""The first byte of a TLS client (RFC 8446, section 5.1)."""
MAX_STRANGERS = 256
"""Most connections that may be open at one time before they are taken: the number of the largest migration."""

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Errors of accept that end when other files are closed."""
RETRY_SECONDS = 0.2


@dataclass(frozen=True)
class Origin:
    """Origin of a connection. Two migrations at a time need different origins.

    Attributes
    ----------
    peer : str
        The process at the other end of a unix socket, or the host.
    unique_id : bytes
        The migration's id in the PROXY header; empty without a header.
    is_certain : bool
        True if connections of two migrations at once cannot come from here: it is one process, or has a unique id.
    """

    peer: str
    unique_id: bytes = b""
    is_certain: bool = True

    def __str__(self) -> str:
        """Return a text for messages."""
        return f"{self.peer} (PROXY unique id {self.unique_id.hex()})" if self.unique_id else self.peer


@dataclass(frozen=True)
class Arrival:
    """A connection that has identified itself by its first bytes.

    Attributes
    ----------
    origin : Origin
        Origin of the connection.
    connection : Connection
        The bytes after `head` are still unread.
    head : bytes
        The first bytes: the main channel's magic, or the 64 opening bytes of a multifd channel.
    initial : InitialPacket or None
        The 64 bytes, unpacked; None for the main channel.
    number : int
        Position in the order of accepting. Connections may identify themselves in another order.
    """

    origin: Origin
    connection: Connection
    head: bytes
    initial: wire.InitialPacket | None
    number: int


class OneSource:
    """Filter for the connections of one source, the source of the first connection.

    Parameters
    ----------
    take : callable
        ``take(arrival)`` is called for each connection from that source.
    """

    def __init__(self, take: Callable[[Arrival], None]) -> None:
        self._take = take
        self._origin: Origin | None = None

    def __call__(self, arrival: Arrival) -> None:
        """Take a connection; MultiFDError if it comes from another source or `take` raises it."""
        if self._origin not in (None, arrival.origin):
            raise MultiFDError(f"it comes from {arrival.origin}, the migration from {self._origin}")
        self._take(arrival)
        self._origin = arrival.origin


@dataclass(eq=False)
class _Stranger:
    """A connection that has not identified itself yet.

    Attributes
    ----------
    sock : socket.socket
        The accepted socket.
    deadline : float
        Time by which its first bytes must have come, TLS's handshake included.
    number : int
        Position in the order of accepting.
    heard : bool
        True if the first bytes have come and the connection waits for its turn.
    reason : str
        Reason of the refusal, if it was refused while its thread waited for the first bytes.
    """

    sock: socket.socket
    deadline: float
    number: int
    heard: bool = False
    reason: str = ""

    def turn_away(self, reason: str) -> None:
        """Refuse the connection: wake its thread, which reports `reason`."""
        self.reason = self.reason or reason
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Intake:
    """Thread that accepts connections until it is closed.

    A connection is refused if it breaks the protocol, or does not identify itself within `HANDSHAKE_SECONDS`. Beyond
    `MAX_STRANGERS`, a new connection replaces the oldest one, because a source identifies itself immediately.

    Parameters
    ----------
    listener : Listener
        The listening socket; closed with this object.
    take : callable
        ``take(arrival)`` is called for one arrival after the other. It raises `MultiFDError` to refuse the arrival.
    refused : callable
        ``refused(reason)`` is called for each refused connection.
    failed : callable
        ``failed(error)`` is called if no thread could be started for a connection, which is then closed.
    """

    def __init__(
        self,
        listener: Listener,
        take: Callable[[Arrival], None],
        refused: Callable[[str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._listener = listener
        self._take = take
        self._refused = refused
        self._taking = threading.Lock()
        self._failed = failed
        self._lock = threading.Lock()
        self._strangers: list[_Stranger] = []
        """Connections in the order of their age, the oldest first."""
        self._closing = threading.Event()
        self._introductions: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, name="intake")

    def start(self) -> None:
        """Start to accept."""
        start(self._thread)

    def close(self) -> None:
        """Stop accepting, and refuse the connections that have not been taken. `take` is not called afterwards."""
        # End all threads before waiting for them, because a signal may interrupt the wait.
        with self._lock:
            self._closing.set()
            for stranger in self._strangers:
                stranger.turn_away("")
        self._listener.close()
        with contextlib.suppress(RuntimeError):  # not started: it will find the listener closed
            self._thread.join()
        for thread in self._introductions:
            thread.join()

    def _run(self) -> None:
        numbers = itertools.count()
        while True:
            try:
                sock = self._listener.accept(self._turn_away_late())
            except TimeoutError:
                continue
            except OSError as error:
                if self._closing.is_set():
                    return
                if error.errno in EXHAUSTED:
                    # The connection stays in the queue, so accept would fail again immediately.
                    self._closing.wait(RETRY_SECONDS)
                continue  # else the client has closed before the connection was accepted
            stranger = _Stranger(sock, time.monotonic() + HANDSHAKE_SECONDS, next(numbers))
            if not self._find_place(stranger):
                self._turn_away(sock, f"{MAX_STRANGERS} connections wait to be taken")
                continue
            self._introductions = [thread for thread in self._introductions if thread.is_alive()]
            try:
                thread = threading.Thread(target=self._introduce, args=(stranger,), name="introduction")
                self._introductions.append(start(thread))
            except NoThreadError as error:
                with self._lock:
                    self._strangers.remove(stranger)
                sock.close()
                self._failed(error)

    def _turn_away_late(self) -> float | None:
        """Refuse the strangers that are late; return the seconds until the next one is late."""
        now = time.monotonic()
        with self._lock:
            silent = [stranger for stranger in self._strangers if not stranger.heard]
            for stranger in silent:
                if stranger.deadline <= now:
                    stranger.turn_away(f"it has not identified itself within {HANDSHAKE_SECONDS:g} s")
            return min((stranger.deadline - now for stranger in silent if stranger.deadline > now), default=None)

    def _find_place(self, stranger: _Stranger) -> bool:
        with self._lock:
            if self._closing.is_set():
                return False
            if len(self._strangers) >= MAX_STRANGERS:
                oldest = next((other for other in self._strangers if not other.heard), None)
                if oldest is None:
                    return False
                oldest.turn_away(f"{MAX_STRANGERS} connections have come after it, and it has not identified itself")
                self._strangers.remove(oldest)
            self._strangers.append(stranger)
        return True

    def _introduce(self, stranger: _Stranger) -> None:
        try:
            process = _process(stranger.sock)
            peer = f"process {process}" if process is not None else str(stranger.sock.getpeername()[0])
            connection = self._listener.greet(stranger.sock, "the source")
            unique_id, head = _hear(connection)
            initial = None if head == MAIN_MAGIC else wire.unpack_initial(head)
            with self._lock:
                if stranger.reason:
                    raise MultiFDError(stranger.reason)
                stranger.heard = True
            with self._taking:
                if self._closing.is_set():
                    raise MultiFDError("it came too late")
                origin = Origin(peer, unique_id, is_certain=bool(process or unique_id))
                self._take(Arrival(origin, connection, head, initial, stranger.number))
        except NoThreadError as error:
            stranger.sock.close()
            self._failed(error)
        except (OSError, MultiFDError) as error:
            self._turn_away(stranger.sock, stranger.reason or str(error))
        finally:
            with self._lock, contextlib.suppress(ValueError):  # it may have been removed already
                self._strangers.remove(stranger)

    def _turn_away(self, sock: socket.socket, reason: str) -> None:
        # Report the reason before closing, so that a peer which sees EOF can rely on the log.
        if not self._closing.is_set():
            self._refused(reason)
        sock.close()


def _process(sock: socket.socket) -> int | None:
    """Return the process at the other end of a unix socket, 0 for one in another PID namespace; None for TCP."""
    if sock.family != socket.AF_UNIX:
        return None
    process: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return process


def _hear(connection: Connection) -> tuple[bytes, bytes]:
    """Read the first bytes: the unique id of a PROXY header (empty without one), and the connection's own bytes."""
    beginning = _Beginning(connection)
    unique_id = b""
    if beginning.magic(MAIN_MAGIC, MULTIFD_MAGIC, PROXY_MAGIC) == PROXY_MAGIC:
        unique_id = proxy.read_unique_id(beginning.read)
    magic = beginning.magic(MAIN_MAGIC, MULTIFD_MAGIC)
    return unique_id, beginning.read(len(magic) if magic == MAIN_MAGIC else wire.INITIAL_SIZE)


class _Beginning:
    """Reader of the first bytes of a connection, which never reads beyond the requested bytes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._heard = 0
        self._ahead = b""

    def magic(self, *expected: bytes) -> bytes:
        """Return the next four bytes, which `read` returns again.

        Raises
        ------
        MultiFDError
            At the first byte that differs from every magic number in `expected`.
        """
        while len(self._ahead) < MAGIC_SIZE:
            self._ahead += self._some(MAGIC_SIZE - len(self._ahead))
            if not any(magic.startswith(self._ahead) for magic in expected):
                raise _wrong_magic(self._ahead)
        return self._ahead

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        data, self._ahead = self._ahead, b""
        while len(data) < size:
            data += self._some(size - len(data))
        return data

    def _some(self, size: int) -> bytes:
        data = memoryview(bytearray(size))
        read = self._connection.read_some(data)
        if not read:
            raise MultiFDError(f"it closed after {self._heard} bytes, before it identified itself")
        self._heard += read
        return bytes(data[:read])


def _wrong_magic(begun: bytes) -> MultiFDError:
    tls = begun[0] == TLS_HANDSHAKE
    hint = ". It is TLS: listen at tls:HOST:PORT, or turn off tls-creds in the source" if tls else ""
    return MultiFDError(
        f"0x{begun.hex()}; the main channel begins with 0x{MAIN_MAGIC.hex()}, a multifd channel with "
        f"0x{MULTIFD_MAGIC.hex()}{hint}",
        field="magic",
    )
