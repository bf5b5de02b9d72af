"""Sources and receivers of recorded migrations, for relays that stay."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from commands import PATIENCE
from handmade import Feed
from streams import recording

UUIDS = [UUID(int=number) for number in range(1, 9)]
PLAY = """
import os
import pickle
import sys
from pathlib import Path
from streams import Replay
Replay(Path(sys.argv[1]), pickle.load(sys.stdin.buffer)).join_main()
os._exit(0)
"""
IDLE = recording("qemu-11.0.92-none")
MAIN = IDLE.main[:500]


class Source:
    """A process of its own that plays a recorded migration, with a uuid of its own.

    As QEMU does, it closes the channels when the main connection has ended.
    """

    def __init__(self, path: Path, name: str, uuid: UUID) -> None:
        main, *channels = recording(name).connections
        self._process = subprocess.Popen(
            [sys.executable, "-c", PLAY, str(path)],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            pickle.dump([main, *[each[:8] + uuid.bytes + each[24:] for each in channels]], stdin)

    def join(self) -> None:
        """Wait for its end."""
        assert self._process.wait(PATIENCE) == 0


@contextlib.contextmanager
def receiving(folder: Path, uuid: UUID) -> Iterator[Feed]:
    """A receiver for one guest, at the socket that has its uuid."""
    yield Feed(folder, name=str(uuid), out=f"{uuid}.out", uuid=uuid)


def assert_that_it_arrived(end: Feed, folder: Path, uuid: UUID, name: str) -> None:
    outcome = end.finish()
    assert (outcome.error, outcome.refused) == (None, [])
    ram = (folder / f"{uuid}.out" / "m.bin").read_bytes()
    assert hashlib.sha256(ram).hexdigest() == recording(name).meta["ram_sha256"]


@contextlib.contextmanager
def connected(*contents: bytes, path: Path) -> Iterator[list[socket.socket]]:
    """Connections of this process that have sent something."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in contents]
        for sock, content in zip(socks, contents, strict=True):
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            sock.sendall(content)
        yield socks
