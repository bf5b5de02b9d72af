"""A small migration made by hand, with struct and other people's compressors; and a receiver to feed it to."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import struct
import tempfile
import threading
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import zstandard
from commands import PATIENCE
from streams import Replay

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.folder.reader import ReceivedFolder
from numcodecs_qpl.multifd.folder.writer import MAX_DEVICE_STATE, OUTPUTS, ZarrOutput
from numcodecs_qpl.multifd.receiver import Receiver
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.listener import Listener

PAGE = 4096
PAGES = 160
MEMORY_LIMIT = 24 << 20
"""Bytes that a run of the receiver may take."""
HEADER = 1344
SYNC, DEVICE_STATE = 0x01, 0x40
METHODS = {"none": 0x00, "zlib": 0x02, "zstd": 0x04, "qpl": 0x08}
ZERO, MEM_SIZE, PAGE_RECORD, EOS, CONTINUE, FLUSH = 0x02, 0x04, 0x08, 0x10, 0x20, 0x200
DESCRIPTION = b'{"page_size": 4096, "devices": [{"name": "cpu"}]}'


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    return struct.pack(">Q", number)


def named(name: bytes) -> bytes:
    return bytes([len(name)]) + name


@functools.cache
def pages_of(seed: int, count: int) -> Sequence[bytes]:
    """Pages that compress to about a half."""
    rng = random.Random(seed)
    return tuple(bytes(rng.choices(range(16), k=PAGE)) for _ in range(count))


def initial(channel: int, **change: Any) -> bytes:
    """The 64 bytes that open a channel."""
    values = {"magic": 0x11223344, "version": 1, "uuid": UUID(int=0), **change}
    return struct.pack(">II16sB39x", values["magic"], values["version"], values["uuid"].bytes, channel)


def header(*, normal: Sequence[int] = (), zero: Sequence[int] = (), **change: Any) -> bytes:
    """A packet's header; `normal` and `zero` are numbers of pages, `change` sets a field to whatever it says."""
    offsets = [number * PAGE for number in (*normal, *zero)]
    values = {
        "magic": 0x11223344,
        "version": 1,
        "flags": 0,
        "pages_alloc": 128 if offsets else 0,
        "normal_pages": len(normal),
        "next_packet_size": 0,
        "packet_num": 0,
        "zero_pages": len(zero),
        "ramblock": b"m" if offsets else b"",
        "offsets": offsets,
        **change,
    }
    *fields, where = values.values()
    return (struct.pack(">IIIIIIQI28x256s", *fields) + b"".join(map(u64, where))).ljust(HEADER, b"\0")


def device_state(idstr: bytes, data: bytes, *, flags: int = DEVICE_STATE, size: int | None = None) -> bytes:
    """A packet of device state."""
    length = len(data) if size is None else size
    return struct.pack(">III256sII", 0x11223344, 1, flags, idstr, 7, length) + data


def early_device(
    name: bytes = b"0000:00:01.0/virtio-mem-device-early",
    *,
    version: int = 1,
    region: int = 65 << 21,
    block: int = 2 << 20,
    footer: int = 7,
) -> bytes:
    """virtio-mem's section that comes before guest memory, whose first block alone is plugged; its id is 7."""
    head = b"\x04" + u32(7) + named(name) + u32(0) + u32(version)
    state = struct.pack(">QQQIQ", 4 << 30, region, block, 0, block)
    words = -(-region // block // 64) if block else 0
    return head + state + (u64(1) + bytes(8 * (words - 1)) if 0 < words < 1 << 20 else b"") + b"\x7e" + u32(footer)


class Encoder:
    """Encoder of a channel's pages into payloads; zlib and zstd keep their stream over the packets."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._zlib = zlib.compressobj(1)
        self._zstd = zstandard.ZstdCompressor(level=1).compressobj()

    def payload(self, pages: Sequence[bytes]) -> bytes:
        whole = b"".join(pages)
        if self._method == "zlib":
            return self._zlib.compress(whole) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        if self._method == "zstd":
            return self._zstd.compress(whole) + self._zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if self._method == "qpl":
            packed = [self._deflate(page) for page in pages]
            return b"".join(u32(len(page)) for page in packed) + b"".join(packed)
        return whole

    @staticmethod
    def _deflate(page: bytes) -> bytes:
        deflate = zlib.compressobj(6, zlib.DEFLATED, -12)
        packed = deflate.compress(page) + deflate.flush()
        return packed if len(packed) < PAGE else page


@dataclass
class Sent:
    """A packet on a channel: where it begins, and what it has."""

    start: int
    normal: dict[int, bytes]
    header: bytes
    payload: bytes


@dataclass
class Channel:
    """One channel as it is being made."""

    id: int
    method: str
    block: bytes = b"m"
    content: bytearray = field(default_factory=bytearray)
    packets: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.encoder = Encoder(self.method)
        self.content += initial(self.id)

    def send(self, number: int, normal: dict[int, bytes], zero: Sequence[int] = (), flags: int = 0) -> None:
        payload = self.encoder.payload(list(normal.values())) if normal else b""
        flags |= METHODS[self.method] if normal or zero else 0
        head = header(normal=list(normal), zero=zero, flags=flags, next_packet_size=len(payload), packet_num=number)
        if normal or zero:
            head = head[:64] + self.block.ljust(256, b"\0") + head[320:]
        self.packets.append(Sent(len(self.content), normal, head, payload))
        self.content += head + payload


class Migration:
    """Three rounds over two channels, with pages sent again, zero ones, and two pages on the main channel.

    Parameters
    ----------
    method : str
        Of the channels.
    block : bytes
        Name of the RAM block; ``m`` unless told.

    Attributes
    ----------
    ram : bytes
        What the RAM block is in the end.
    main : dict of str to bytes
        The main channel, part by part.
    channels : list of Channel
        The multifd channels.
    """

    def __init__(self, method: str, block: bytes = b"m") -> None:
        self.method = method
        self.channels = [Channel(0, method, block), Channel(1, method, block)]
        pages = [bytes(PAGE)] * PAGES
        numbers = iter(range(1000))
        old, new = pages_of(1, 140), pages_of(2, 3)
        a, b = self.channels

        def put(channel: Channel, normal: dict[int, bytes], zero: Sequence[int] = ()) -> None:
            channel.send(next(numbers), normal, zero)
            for number, page in normal.items():
                pages[number] = page

        def end_round() -> None:
            for channel in self.channels:
                channel.send(next(numbers), {}, flags=SYNC)

        end_round()
        put(a, {number: old[number] for number in range(128)})
        put(b, {number: old[number] for number in (128, 130, 131)}, [129, 132, 133])
        put(b, {}, [134, 135])
        put(a, {139: old[139]})
        end_round()
        put(b, {0: new[0], 128: new[1]})
        put(a, {129: new[2]})
        end_round()
        pages[150] = pages_of(3, 1)[0]
        pages[151] = bytes([7]) * PAGE
        self.ram = b"".join(pages)
        self.main = _main(block, PAGES * PAGE, pages[150])

    @property
    def connections(self) -> list[bytes]:
        """Return the bytes of each connection, the main one first."""
        return [b"".join(self.main.values()), *(bytes(channel.content) for channel in self.channels)]


def _main(block: bytes, length: int, page: bytes) -> dict[str, bytes]:
    section = u32(2)
    return {
        "magic": b"QEVM",
        "version": u32(3),
        "configuration": b"\x07",
        "machine length": u32(6),
        "machine": b"pc-q35",
        "return path": b"\x08" + struct.pack(">HH", 1, 0),
        "start": b"\x01",
        "start id": section,
        "start name": named(b"ram"),
        "start instance": u32(0),
        "start version": u32(4),
        "mem size": u64(length | MEM_SIZE),
        "block name": named(block),
        "used_length": u64(length),
        "flush": u64(FLUSH),
        "eos": u64(EOS),
        "footer": b"\x7e",
        "footer id": section,
        "part": b"\x02",
        "part id": section,
        "page": u64(150 * PAGE | PAGE_RECORD),
        "page block": named(block),
        "page content": page,
        "fill": u64(151 * PAGE | ZERO | CONTINUE),
        "fill byte": b"\x07",
        "flush 2": u64(FLUSH),
        "eos 2": u64(EOS),
        "footer 2": b"\x7e" + section,
        "end": b"\x03",
        "end id": section,
        "flush 3": u64(FLUSH),
        "eos 3": u64(EOS),
        "footer 3": b"\x7e" + section,
        "devices": b"\x04" + u32(3) + named(b"cpu") + u32(0) + u32(1) + bytes(range(200)) + b"\x7e" + u32(3),
        "eof": b"\x00",
        "description": b"\x06",
        "description length": u32(len(DESCRIPTION)),
        "description text": DESCRIPTION,
    }


@dataclass
class Outcome:
    """End of a run of the receiver."""

    out: Path
    manifest: dict[str, Any] | None = None
    error: Exception | None = None
    refused: list[str] = field(default_factory=list)
    blocks: dict[str, bytes] = field(default_factory=dict)

    def ram(self, block: str = "m") -> bytes:
        """The block's file."""
        return (self.out / f"{block}.bin").read_bytes()


class Feed:
    """A receiver in a thread, and connections to it that the test opens.

    Parameters
    ----------
    folder : Path
        Gets a socket and the output.
    name, out : str
        Names of the socket and of the output's folder.
    page_size : int
        Bytes in a page that the receiver expects.
    like : Path, optional
        An earlier snapshot, for the output zarr.
    options
        Of the receiver.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "s",
        out: str = "out",
        channels: int = 2,
        output: str = "raw",
        max_device_state: int = MAX_DEVICE_STATE,
        page_size: int = PAGE,
        like: Path | None = None,
        **options: Any,
    ) -> None:
        self.path = folder / name
        self.outcome = Outcome(folder / out)
        make = partial(ZarrOutput, earlier=ReceivedFolder(like)) if like else OUTPUTS[output]
        made = make(self.outcome.out, page_size, max_device_state)
        listener = Listener(Address("unix", path=str(self.path)))
        options = {"timeout": PATIENCE, "refused": self.outcome.refused.append, "page_size": page_size, **options}
        self.receiver = Receiver(listener, made, channels, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome.manifest = self.receiver.run()
        except Exception as error:  # whatever it is, it is the test's to judge
            self.outcome.error = error

    def finish(self) -> Outcome:
        """Wait for the end, which comes within a bounded time."""
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive(), "the receiver hangs"
        return self.outcome


def receive(folder: Path, connections: list[bytes], **options: Any) -> Outcome:
    """Feed whole connections to a receiver."""
    feed = Feed(folder, **options)
    replay = Replay(feed.path, connections)
    outcome = feed.finish()
    replay.join()
    return outcome


def packets_of(content: bytes) -> Iterator[tuple[int, dict[str, int], list[int]]]:
    """Yield the start of each packet of a channel, its numbers, and its pages' offsets."""
    names = ("magic", "version", "flags", "pages_alloc", "normal_pages", "next_packet_size", "packet_num", "zero_pages")
    at = 64
    while at < len(content):
        fields = dict(zip(names, struct.unpack_from(">IIIIIIQI", content, at), strict=True))
        count = fields["normal_pages"] + fields["zero_pages"]
        yield at, fields, list(struct.unpack_from(f">{count}Q", content, at + 320))
        at += HEADER + (fields["next_packet_size"] if fields["normal_pages"] else 0)
    assert at == len(content)


def run(connections: list[bytes], **options: Any) -> Outcome:
    """Receive into a folder of its own; what holds for every end is checked here."""
    threads = threading.active_count()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outcome = receive(folder, connections, **options)
        assert threading.active_count() <= threads, "a thread is left"
        assert not list(folder.rglob("incomplete-*"))
        assert not (folder / "s").exists()
        if outcome.error is None:
            assert outcome.manifest is not None
            outcome.blocks = {
                block["name"]: (outcome.out / block["file"]).read_bytes() for block in outcome.manifest["blocks"]
            }
            assert all(
                len(outcome.blocks[block["name"]]) == block["used_length"] for block in outcome.manifest["blocks"]
            )
            assert json.loads((outcome.out / "manifest.json").read_text()) == outcome.manifest
        else:
            assert isinstance(outcome.error, MultiFDError), repr(outcome.error)
            assert str(outcome.error)
            assert not outcome.out.exists()
    return outcome


def failure(connections: list[bytes], **options: Any) -> MultiFDError:
    """The error that a run ends with."""
    error = run(connections, **options).error
    assert isinstance(error, MultiFDError), "it ended well"
    return error


def cut(connections: list[bytes], number: int, at: int) -> list[bytes]:
    """The connections, one of which ends at `at`."""
    return [content[:at] if party == number else content for party, content in enumerate(connections)]


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Make sure that what is done within takes little memory of its own; guest memory is in files."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY_LIMIT
    finally:
        tracemalloc.stop()
