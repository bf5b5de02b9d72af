"""Accepts the connections of one migration, and refuses all others.

QEMU opens one main connection and the multifd channels, all to one address. The first four bytes tell which is which:
the main channel's magic (``QEMU_VM_FILE_MAGIC`` in QEMU's ``migration/qemu-file-types.h``), or multifd's.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from numcodecs_qpl.multifd import wire
from numcodecs_qpl.multifd.connecting import HANDSHAKE_SECONDS
from numcodecs_qpl.multifd.connection import Connection
from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.listener import Listener
from numcodecs_qpl.multifd.threads import NoThreadError, start

MAIN_MAGIC = b"QEVM"
MULTIFD_MAGIC = wire.MAGIC.to_bytes(4, "big")
TLS_HANDSHAKE = 0x16
"""The first byte of a client that speaks TLS (RFC 8446, section 5.1)."""
MAX_STRANGERS = 256
"""Connections that may be open at one time without having been taken: as many as the largest migration has."""

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""Errors of accept that go away when something else is closed."""
RETRY_SECONDS = 0.2


@dataclass(frozen=True)
class Arrival:
    """A connection that has identified itself by its first bytes.

    Attributes
    ----------
    connection : Connection
        The bytes after `head` are still unread.
    head : bytes
        Its first bytes: the main channel's magic, or the 64 bytes that open a multifd channel.
    initial : InitialPacket or None
        The 64 bytes, unpacked; None for the main channel.
    """

    connection: Connection
    head: bytes
    initial: wire.InitialPacket | None


@dataclass(eq=False)
class _Stranger:
    """A connection that has not identified itself yet.

    Attributes
    ----------
    sock : socket.socket
        Accepted.
    deadline : float
        When its first bytes must have come, TLS's handshake included.
    heard : bool
        True once they have come, while the connection waits for its turn.
    reason : str
        Why it was turned away while its thread waited for its first bytes.
    """

    sock: socket.socket
    deadline: float
    heard: bool = False
    reason: str = ""

    def turn_away(self, reason: str) -> None:
        """Wake its thread, which reports `reason`."""
        self.reason = self.reason or reason
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class Intake:
    """Accepts connections in a thread of its own until it is closed.

    The first connection that speaks the protocol comes from the migration's source. Connections of another process
    (over a unix socket) or of another host are turned away. So are connections that break the protocol, that come a
    second time, or that have not identified themselves after `HANDSHAKE_SECONDS`. Beyond `MAX_STRANGERS` a new
    connection takes the place of the oldest one, as a source identifies itself at once.

    Parameters
    ----------
    listener : Listener
        Where connections come in; closed with this object.
    take : callable
        ``take(arrival)`` is called for one arrival after the other. It raises `MultiFDError` to refuse the arrival.
    refused : callable
        ``refused(reason)`` is told of each that was turned away.
    failed : callable
        ``failed(error)`` is told that no thread could be started for a connection, which ends the migration.
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
        self._peer: object = None
        self._strangers: list[_Stranger] = []
        """The oldest one first."""
        self._closing = threading.Event()
        self._introductions: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, name="intake")

    def start(self) -> None:
        """Begin to accept."""
        start(self._thread)

    def close(self) -> None:
        """Accept no more, and turn away the connections that have not been taken. `take` is not called after this."""
        # First all that makes the threads end, then the waiting, which a signal may interrupt.
        with self._lock:
            self._closing.set()
            for stranger in self._strangers:
                stranger.turn_away("")
        self._listener.close()
        with contextlib.suppress(RuntimeError):  # not started, or a signal came meanwhile: it finds the listener closed
            self._thread.join()
        for thread in self._introductions:
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                sock = self._listener.accept(self._turn_away_late())
            except TimeoutError:
                continue
            except OSError as error:
                if self._closing.is_set():
                    return
                if error.errno in EXHAUSTED:
                    # The connection stays in the queue, and accept would fail again at once.
                    self._closing.wait(RETRY_SECONDS)
                continue  # else that one has gone before it was accepted
            stranger = _Stranger(sock, time.monotonic() + HANDSHAKE_SECONDS)
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
        """Turn away the strangers that are late; returns the seconds until the next one will be."""
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
            peer = _peer(stranger.sock)
            connection = self._listener.greet(stranger.sock, "the source")
            head = _hear(connection)
            initial = None if head == MAIN_MAGIC else wire.unpack_initial(head)
            with self._lock:
                if stranger.reason:
                    raise MultiFDError(stranger.reason)
                stranger.heard = True
            with self._taking:
                if self._closing.is_set():
                    raise MultiFDError("it came too late")
                if self._peer not in (None, peer):
                    raise MultiFDError(f"it comes from {peer}, the migration from {self._peer}")
                self._take(Arrival(connection, head, initial))
                self._peer = peer
        except NoThreadError as error:
            stranger.sock.close()
            self._failed(error)
        except (OSError, MultiFDError) as error:
            self._turn_away(stranger.sock, stranger.reason or str(error))
        finally:
            with self._lock, contextlib.suppress(ValueError):  # another one may have its place
                self._strangers.remove(stranger)

    def _turn_away(self, sock: socket.socket, reason: str) -> None:
        # Report the reason before closing, so that a peer which sees EOF can rely on the log.
        if not self._closing.is_set():
            self._refused(reason)
        sock.close()


def _peer(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return f"process {struct.unpack('3i', credentials)[0]}"
    return str(sock.getpeername()[0])


def _hear(connection: Connection) -> bytes:
    head = memoryview(bytearray(wire.INITIAL_SIZE))
    heard = 0
    for size in (len(MAIN_MAGIC), wire.INITIAL_SIZE):
        while heard < size:
            more = connection.read_some(head[heard:size])
            if not more:
                raise MultiFDError(f"it closed after {heard} bytes, before it identified itself")
            heard += more
            _check_magic(bytes(head[: min(heard, len(MAIN_MAGIC))]))
        if head[:heard] == MAIN_MAGIC:
            break
    return bytes(head[:heard])


def _check_magic(begun: bytes) -> None:
    if MAIN_MAGIC.startswith(begun) or MULTIFD_MAGIC.startswith(begun):
        return
    tls = begun[0] == TLS_HANDSHAKE
    hint = ". It is TLS: listen at tls:HOST:PORT, or turn off tls-creds in the source" if tls else ""
    raise MultiFDError(
        f"0x{begun.hex()}; the main channel begins with 0x{MAIN_MAGIC.hex()}, a multifd channel with "
        f"0x{MULTIFD_MAGIC.hex()}{hint}",
        field="magic",
    )
