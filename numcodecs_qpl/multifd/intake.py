"""Taking the connections of one migration, and nobody else's.

QEMU opens one main connection and the multifd channels, all to one address. The first four bytes tell which is which:
the main channel's magic (``QEMU_VM_FILE_MAGIC`` in QEMU's ``migration/qemu-file-types.h``), or multifd's.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

from numcodecs_qpl.multifd import wire
from numcodecs_qpl.multifd.address import HANDSHAKE_SECONDS, Listener
from numcodecs_qpl.multifd.connection import Connection
from numcodecs_qpl.multifd.errors import MultiFDError

MAIN_MAGIC = b"QEVM"
MAX_STRANGERS = 32
"""Connections that may be open at one time without having said what they are."""


@dataclass(frozen=True)
class Arrival:
    """A connection that has said what it is.

    Attributes
    ----------
    connection : Connection
        The rest of what it says is still in there.
    head : bytes
        What it said: the main channel's magic, or the 64 bytes that open a multifd channel.
    initial : InitialPacket or None
        The latter, unpacked; None for the main channel.
    """

    connection: Connection
    head: bytes
    initial: wire.InitialPacket | None


class Intake:
    """Accepts connections in a thread of its own until it is closed.

    Who comes first and speaks the protocol is the migration's source; what comes from another process (over a unix
    socket) or another host is turned away, as is what says nothing, or nonsense, or comes a second time.

    Parameters
    ----------
    listener : Listener
        Where they come; closed with this.
    take : callable
        ``take(arrival)`` is called for one arrival after the other. It raises `MultiFDError` for one that is not
        wanted, and is then done with it.
    refused : callable
        ``refused(reason)`` is told of each that was turned away.
    """

    def __init__(self, listener: Listener, take: Callable[[Arrival], None], refused: Callable[[str], None]) -> None:
        self._listener = listener
        self._take = take
        self._refused = refused
        self._lock = threading.Lock()
        self._peer: object = None
        self._strangers: set[socket.socket] = set()
        self._closed = False
        self._introductions: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, name="intake")

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def close(self) -> None:
        """Accept no more, and turn away whoever has not said what it is; `take` is not called any more then."""
        self._closed = True
        self._listener.close()
        with contextlib.suppress(RuntimeError):  # not started, or a signal came meanwhile: it finds the listener closed
            self._thread.join()  # from here on nobody else comes
        with self._lock:
            for sock in self._strangers:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._introductions:
            thread.join()

    def _run(self) -> None:
        while True:
            try:
                sock = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                continue  # that one has gone before it was accepted
            if len(self._strangers) >= MAX_STRANGERS:
                self._turn_away(sock, f"{MAX_STRANGERS} connections have not said yet what they are")
                continue
            with self._lock:
                self._strangers.add(sock)
            self._introductions = [thread for thread in self._introductions if thread.is_alive()]
            self._introductions.append(threading.Thread(target=self._introduce, args=(sock,), name="introduction"))
            self._introductions[-1].start()

    def _introduce(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(HANDSHAKE_SECONDS)
            peer = _peer(sock)
            connection = self._listener.greet(sock, "the source")
            head = _hear(connection)
            sock.settimeout(None)
            initial = None if head == MAIN_MAGIC else wire.unpack_initial(head)
            with self._lock:
                if self._peer not in (None, peer):
                    raise MultiFDError(f"it comes from {peer}, the migration from {self._peer}")
                self._take(Arrival(connection, head, initial))
                self._peer = peer
        except (OSError, MultiFDError) as error:
            self._turn_away(sock, str(error))
        finally:
            with self._lock:
                self._strangers.discard(sock)

    def _turn_away(self, sock: socket.socket, reason: str) -> None:
        # First the word, then the end: whoever sees a connection end can rely on its reason having been told.
        if not self._closed:
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
                raise MultiFDError(f"it closed after {heard} bytes, before saying what it is")
            heard += more
        if head[:heard] == MAIN_MAGIC:
            break
    return bytes(head[:heard])
