"""Two real QEMUs, relays between them, and a link that can be cut."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from commands import PATIENCE, Command, Environment, relay, wait_until
from guest import MIB, SEVERAL_ROUNDS, Guest
from qemus import INSTALLED, QEMU

DATA_AT = 4 * MIB


def migrate(source: Guest, uri: str, *, dirty: bool) -> dict[str, object]:
    """Migrate in several rounds if the guest keeps dirtying its memory; what query-migrate says in the end."""
    source.migrate(uri)
    if dirty:
        source.wait_rounds(3, PATIENCE)
        source.converge()
    return source.wait_migration(PATIENCE)


def set_up(source: Guest, channels: int, method: str = "none", *, dirty: bool = False) -> None:
    source.set_migration(channels, method, **SEVERAL_ROUNDS if dirty else {})
    if dirty:
        source.wait_dirtied(PATIENCE)


def is_gone(pid: int) -> bool:
    """Return True if a child process has ended."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


class Cut:
    """A link between two unix sockets that can be cut: each connection through it is two threads that copy.

    Attributes
    ----------
    passed : int
        Bytes that have gone from the one that connects to the one that listens.
    begun : set of socket
        The connections on which some have: before that, the one that listens cannot know what was cut.
    """

    def __init__(self, listen: Path, connect: Path) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(listen))
        self._server.listen(16)
        self._connect = connect
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.passed = 0
        self.begun: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __len__(self) -> int:
        return len(self._pairs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for number in range(len(self)):
            self.cut(number)
        for thread in self._threads:
            thread.join()
        for pair in self._pairs:
            for sock in pair:
                sock.close()
        self._server.close()

    def cut(self, number: int) -> None:
        """Cut one connection, in the order in which they came."""
        for sock in self._pairs[number]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._connect))
            self._pairs.append((near, far))
            for pair in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._copy, args=(*pair, pair[0] is near)))
                self._threads[-1].start()

    def _copy(self, source: socket.socket, target: socket.socket, forward: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
                self.passed += len(data) * forward
                if forward:
                    self.begun.add(source)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            # One side has gone altogether, which the other has to see, as it would without this between them.
            for sock in (source, target):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


class Way:
    """A source, a destination, and two relays between them, each on a unix socket; both QEMUs use the return path.

    Parameters
    ----------
    folder : Path
        For sockets and the guests' memory.
    firmware : Path
        Of both guests.
    data : Path, optional
        A part of the source's RAM.
    channels : int
        Number of multifd channels.
    encode : str
        Method between the relays.
    between : str
        Address between the relays; a unix socket by default.
    first, second : tuple of str
        More options of the source's relay, and of the destination's.
    cut : {"", "a", "b", "c"}
        The link that the test will cut: at the source, between the relays, or at the destination.
    dirty : bool
        The guest keeps dirtying its memory, and the migration does not complete before `Guest.converge`.
    environment : mapping, optional
        Of the relays.
    qemu : QEMU
        Of both guests.
    source_more : tuple of str
        More arguments of the source's QEMU.
    guest, destination : mapping
        Further parameters of both guests, and those of the destination that differ.
    capabilities : sequence of str
        Capabilities to turn on in both, besides return-path.
    listen : str
        Address of the source's relay; a unix socket by default.
    relays : bool
        False: the QEMUs are connected directly.
    """

    first: Command
    second: Command

    def __init__(
        self,
        folder: Path,
        firmware: Path,
        data: Path | None = None,
        *,
        channels: int = 2,
        encode: str = "qpl",
        between: str = "",
        first: tuple[str, ...] = (),
        second: tuple[str, ...] = (),
        cut: str = "",
        dirty: bool = False,
        environment: Environment = None,
        qemu: QEMU = INSTALLED,
        source_more: tuple[str, ...] = (),
        guest: Mapping[str, Any] = MappingProxyType({}),
        destination: Mapping[str, Any] = MappingProxyType({}),
        capabilities: Sequence[str] = (),
        listen: str = "",
        relays: bool = True,
    ) -> None:
        self._channels = channels
        self._dirty = dirty
        self._cut = cut
        self._folder = folder
        # What listens at the place that can be cut gets another name.
        self._at = {place: f"{folder}/{place}-hidden" if place == cut else f"{folder}/{place}" for place in "abc"}
        self._stack = contextlib.ExitStack()
        memory = (data, DATA_AT) if data is not None else None
        here = {"qemu": qemu, "more": source_more, **guest}
        there = {"qemu": qemu, **guest, **destination}
        self.source = Guest(folder, "source", firmware=firmware, data=memory, **here)
        self.destination = Guest(folder, "destination", firmware=firmware, incoming=True, paused=True, **there)
        self._capabilities = ("return-path", *capabilities)
        self.link: Cut | None = None
        self._relays = relays
        middle = (between or f"unix:{folder}/b", between or f"unix:{self._at['b']}")
        near = listen or f"unix:{self._at['a']}"
        self._first = partial(relay, near, middle[0], "none", encode, *first, environment=environment)
        self._second = partial(relay, middle[1], f"unix:{folder}/c", encode, "none", *second, environment=environment)
        self.uri = listen or (f"unix:{folder}/a" if relays else f"unix:{folder}/c")

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for guest in (self.source, self.destination):
                stack.enter_context(guest)
                guest.set_capabilities(*self._capabilities)
            set_up(self.source, self._channels, dirty=self._dirty)
            set_up(self.destination, self._channels)
            self.destination.listen(f"unix:{self._at['c']}")
            if self._relays:
                self.second = stack.enter_context(self._second())
                self.first = stack.enter_context(self._first())
            if self._cut:
                place = self._cut
                self.link = stack.enter_context(Cut(self._folder / place, Path(self._at[place])))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def assert_that_the_source_failed_and_runs(self) -> None:
        """The source reports a failed migration, and its guest goes on.

        QEMU 7.2 may then leave its main connection open for ever when a channel was cut between packets, with and
        without relays: the thread that waits for the return path keeps the socket alive after its descriptor was
        closed. That QEMU is killed here, as a destination cannot know.
        """
        assert self.source.wait_migration(PATIENCE)["status"] == "failed"
        assert self.source.status() == "running"
        assert self.source.is_running_and_dirtying(PATIENCE)
        try:
            wait_until(lambda: is_gone(self.destination.pid), "the destination to end", 5)
        except TimeoutError:
            os.kill(self.source.pid, signal.SIGKILL)

    def assert_that_both_relays_failed(self) -> None:
        """Both end with exit status 1 and a message."""
        for each in (self.first, self.second):
            status, line, said = each.finish_relay()
            assert (status, line["ended"]) == (1, "failed")
            assert said.splitlines()[-1].startswith("numcodecs-qpl: error: ")


def received_sha256(out: Path, form: str) -> str:
    if form == "raw":
        return hashlib.sha256((out / "m.bin").read_bytes()).hexdigest()
    import zarr

    array = zarr.open_group(out / "ram.zarr", mode="r")["m"]
    assert isinstance(array, zarr.Array)
    pages = array[:]
    assert getattr(pages, "shape", None) == (4096, 4096)
    return hashlib.sha256(bytes(memoryview(pages).cast("B"))).hexdigest()  # type: ignore[arg-type]


def assert_that_it_arrives(way: Way, *, dirty: bool) -> list[dict[str, Any]]:
    """RAM is equal and the guest runs; the relays' lines of JSON."""
    lines = []
    assert migrate(way.source, way.uri, dirty=dirty)["status"] == "completed"
    assert way.destination.wait_migration(PATIENCE)["status"] == "completed"
    assert way.source.ram_sha256() == way.destination.ram_sha256()
    for each in (way.first, way.second):
        status, line, said = each.finish_relay()
        assert (status, said) == (0, "")
        assert line["ended"] == "complete"
        assert line["pages"]["normal"] > (4000 if dirty else 400)
        lines.append(line)
    way.destination.cont()
    assert way.destination.is_running_and_dirtying(PATIENCE if dirty else 0.2) == dirty
    return lines
