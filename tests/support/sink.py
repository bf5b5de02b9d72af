"""A destination that keeps what it is sent, and the packets in that."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

from commands import PATIENCE

from numcodecs_qpl.multifd.stream import wire


class Sink:
    """A destination that writes down what comes on each connection, and closes them when the three have ended."""

    def __init__(self, path: Path) -> None:
        self._ended = threading.Barrier(3, action=self._close_all)
        self.contents: list[bytearray] = []
        self.sockets: list[socket.socket] = []
        self.ends = 0  # of the connections' streams
        self._closed = False
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self.sockets.append(sock)
            if self._closed:  # it came while `close` went over the others
                sock.close()
            self.contents.append(bytearray())
            threading.Thread(target=self._read, args=(sock, self.contents[-1]), daemon=True).start()

    def _read(self, sock: socket.socket, content: bytearray) -> None:
        with contextlib.suppress(OSError):
            while more := sock.recv(1 << 16):
                content += more
        self.ends += 1
        with contextlib.suppress(threading.BrokenBarrierError):
            self._ended.wait(PATIENCE)

    def _close_all(self) -> None:
        for sock in self.sockets:
            sock.close()

    def stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def close(self) -> None:
        self._closed = True
        self.stop_listening()
        self._ended.abort()
        self._close_all()


def packets_of(content: bytes) -> list[wire.Packet]:
    packets = []
    at = wire.INITIAL_SIZE
    while at < len(content):
        packets.append(wire.unpack(content[at : at + 1344], 4096))
        at += 1344 + packets[-1].payload_size
    assert at == len(content)
    return packets
