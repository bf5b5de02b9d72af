"""The recorded migrations of ``tests/data``, and how to replay one."""

from __future__ import annotations

import json
import socket
import tarfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).parents[1] / "data/streams.tar.xz"
NAMES = [
    "qemu-11.0.92-none",
    "qemu-11.0.92-none-dirty",
    "qemu-11.0.92-qpl",
    "qemu-11.0.92-qpl-dirty",
    "qemu-11.0.92-zlib",
    "qemu-11.0.92-zstd",
    "qemu-7.2.22-none",
    "qemu-7.2.22-none-dirty",
    "qemu-7.2.22-zlib",
    "qemu-7.2.22-zstd",
]


class Recording:
    """One recorded migration.

    Attributes
    ----------
    connections : list of bytes
        What the source wrote on each connection; the main one is the first.
    meta : dict
        What ``meta.json`` says.
    """

    def __init__(self, connections: list[bytes], meta: dict[str, Any]) -> None:
        self.connections = connections
        self.meta = meta

    @property
    def main(self) -> bytes:
        """The main channel."""
        return self.connections[0]

    @property
    def channels(self) -> list[bytes]:
        """The multifd channels."""
        return self.connections[1:]


@cache
def recording(name: str) -> Recording:
    """The recording of that name."""
    return _recordings()[name]


@cache
def _recordings() -> dict[str, Recording]:
    files: dict[str, dict[str, bytes]] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                path = Path(member.name)
                files.setdefault(path.parent.name, {})[path.name] = file.read()
    return {
        name: Recording(
            [content for file, content in sorted(found.items()) if file.startswith("conn")],
            json.loads(found["meta.json"]),
        )
        for name, found in files.items()
    }


class Replay:
    """Plays a source: writes to connections of its own what it is given, each in a thread, then waits for their ends.

    Parameters
    ----------
    path : Path
        The unix socket to connect to.
    connections : list of bytes
        What to write on each; the connections are opened in this order.
    """

    def __init__(self, path: Path, connections: list[bytes]) -> None:
        self._sockets = []
        self._threads = []
        for content in connections:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            self._sockets.append(sock)
            self._threads.append(threading.Thread(target=self._play, args=(sock, content)))
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _play(sock: socket.socket, content: bytes) -> None:
        with sock:
            try:
                sock.sendall(content)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
            except OSError:
                pass  # the other side had enough, which is for the test to judge

    def join_main(self) -> None:
        """Wait until the other side has closed the main connection."""
        self._threads[0].join()

    def join(self) -> None:
        """Wait until the other side has closed all connections."""
        for thread in self._threads:
            thread.join()


def method_of(name: str) -> str:
    return name.split("-")[2]
