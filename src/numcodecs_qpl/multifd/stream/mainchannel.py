"""The main channel: guest memory's blocks, the rounds, and the device state.

The format was read in QEMU's ``migration/savevm.c``, ``migration/ram.c`` and ``migration/migration.c`` (7.2 to 11.0),
and checked on recorded streams of 7.2.22 and 11.0.92. All integers are big-endian.
"""

from __future__ import annotations

import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.stream import returnpath
from numcodecs_qpl.multifd.stream.savevm import (
    COMMAND,
    CONFIGURATION,
    END,
    FOOTER,
    FULL,
    OPEN_RETURN_PATH,
    PART,
    PING,
    START,
    Configuration,
    SavevmReader,
)
from numcodecs_qpl.multifd.stream.vmdescription import DescriptionFinder

RAM_VERSION = 4
MAX_BLOCKS = 4096
EARLY_DEVICE = "virtio-mem-device-early"
EARLY_DEVICE_VERSION = 1
MAX_BITMAP = 16 * 2**20
"""Upper limit of virtio-mem's bitmap in bytes: it has a bit for each block, of at least 1 MiB on x86."""
PIECE = 64 * 1024  # bytes of device state to pass on at a time

ZERO, MEM_SIZE, PAGE, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
XBZRLE, HOOK, COMPRESS_PAGE, MULTIFD_FLUSH = 0x40, 0x80, 0x100, 0x200
"""Flags of a record of RAM (``RAM_SAVE_FLAG_*``)."""

FOLLOWED_CAPABILITIES = {"multifd", "return-path", "switchover-ack", "validate-uuid"}
"""Capabilities accepted in the configuration. QEMU 7.2 to 11.1 lists only ``x-ignore-shared`` and ``mapped-ram``."""


def _meaning(flags: int) -> str:
    names = {XBZRLE: "xbzrle", HOOK: "RDMA", COMPRESS_PAGE: "compress"}
    known = (f"of {name} (turn it off in the source)" for flag, name in names.items() if flags & flag)
    return next(known, "which is not defined (is --page-size the guest's?)")


@dataclass(frozen=True)
class Framing:
    """Framing of guest memory in a stream. A destination with the same machine type reads no other framing.

    Attributes
    ----------
    ram_section : int
        Number of the section ``ram``.
    footers : bool
        True if each section ends with a footer.
    flush_records : bool
        True if a record MULTIFD_FLUSH ends a round, False if the end of each section does (machine types up to 8.0).
    early_bytes : int
        Bytes of device state before guest memory.
    """

    ram_section: int
    footers: bool
    flush_records: bool
    early_bytes: int


class RAMSink(ABC):
    """Consumer of the main channel."""

    @abstractmethod
    def configure(self, configuration: Configuration) -> None:
        """Take the configuration section, which comes first."""

    @abstractmethod
    def add_block(self, name: str, used_length: int) -> None:
        """Take a RAM block; all RAM blocks come before pages and device state."""

    @abstractmethod
    def fill_page(self, block: str, offset: int, byte: int) -> None:
        """Take a page whose bytes are all `byte`."""

    @abstractmethod
    def put_page(self, block: str, offset: int, page: bytes) -> None:
        """Take a page that came over the main channel."""

    @abstractmethod
    def sync(self) -> None:
        """Take the end of a round; return when all channels have reached it."""

    @abstractmethod
    def knows_switchover_ack(self) -> bool:
        """Return True if the multifd channels show that the source knows the reply SWITCHOVER_ACK."""

    @abstractmethod
    def device_state(self, data: bytes) -> None:
        """Take the next bytes of device state: whole sections before guest memory, or bytes after it."""


@dataclass
class MainChannel:
    """Reader of the main channel, which passes its content to a `RAMSink`.

    Attributes
    ----------
    reader : SavevmReader
        The stream after the magic.
    sink : RAMSink
        The consumer.
    reply : callable
        ``reply(data)`` sends bytes back, if the source opens the return path.
    return_path : bool
        True if the source has opened the return path.
    """

    reader: SavevmReader
    sink: RAMSink
    reply: Callable[[bytes], None]
    return_path: bool = False
    _ram_section: int | None = None
    _block: str | None = None
    _flush_ends_rounds: bool = False
    _acknowledged: bool = False
    _machine: str = ""
    _block_count: int = 0
    _footers: bool = False
    _early_bytes: int = 0

    @property
    def framing(self) -> Framing:
        """Framing of guest memory; known after `run`."""
        return Framing(self._ram_section or 0, self._footers, self._flush_ends_rounds, self._early_bytes)

    def run(self) -> list[str]:
        """Read until everything has come; return the names of the devices.

        Raises
        ------
        MultiFDError
            If the stream is damaged, ends too early, or uses an unsupported feature.
        """
        self.reader.check_version()
        while not self._section():
            pass
        return self._devices()

    def finish(self) -> None:
        """Confirm on the return path, if it is open, that everything is stored, and wait for the end of the stream.

        Raises
        ------
        MultiFDError
            If more bytes follow.
        """
        if self.return_path:
            self.reply(returnpath.message(returnpath.SHUT, bytes(4)))
        if self.reader.stream.read(1):
            raise MultiFDError("more bytes follow the description of the device state; expected the end of the stream")

    # ---- Sections ----

    def _section(self) -> bool:
        # Return True after the end of guest memory.
        kind = self.reader.u8()
        if kind == CONFIGURATION:
            self._configuration()
        elif kind == COMMAND:
            self._command()
        elif kind == START:
            self._start()
        elif kind == FULL:
            self._early_device()
        elif kind in (PART, END):
            section = self.reader.u32()
            if section != self._ram_section:
                raise MultiFDError(f"section {section} has not been started")
            self._ram()
            self._footer(section)
        else:
            raise MultiFDError(f"a section of type {kind:#04x} comes before the end of guest memory")
        return kind == END

    def _configuration(self) -> None:
        found = self.reader.configuration()
        unknown = [name for name in found.capabilities or [] if name not in FOLLOWED_CAPABILITIES]
        if unknown:
            raise MultiFDError(
                f"the source has turned on {', '.join(map(repr, unknown))}, which cannot be followed: turn it off "
                "there (QMP migrate-set-capabilities) and migrate again"
            )
        self._machine = found.machine
        self.sink.configure(found)

    def _command(self) -> None:
        command, data = self.reader.command()
        if command == OPEN_RETURN_PATH:
            self.return_path = True
        elif command == PING and self.return_path:
            self.reply(returnpath.message(returnpath.PONG, data))

    def _start(self) -> None:
        section = self.reader.u32()
        name = self.reader.string()
        self.reader.u32()  # the instance
        version = self.reader.u32()
        if name != "ram" or version != RAM_VERSION or self._ram_section is not None:
            raise MultiFDError(
                f"section {name!r}, version {version}, cannot be followed; one section 'ram' of version 4 can: turn "
                "off what else the source migrates (block migration, dirty bitmaps)"
            )
        self._ram_section = section
        self._ram()
        self._footer(section)

    def _early_device(self) -> None:
        # Of the devices that come before guest memory, only virtio-mem (QEMU's hw/virtio/virtio-mem.c) has a known
        # length: address, region size and block size (u64), node (u32), plugged size (u64), and a bit for each block,
        # in u64 words.
        section = self.reader.u32()
        name = self.reader.string()
        instance, version = self.reader.u32(), self.reader.u32()
        if name.rpartition("/")[2] != EARLY_DEVICE or version != EARLY_DEVICE_VERSION:
            raise MultiFDError(
                f"the device {name!r}, version {version}, comes before guest memory, and its length is not known: "
                "remove the device from the guest (QMP device_del) and migrate again"
            )
        sizes = self.reader.read(36)
        region, block = struct.unpack_from(">QQ", sizes, 8)
        words = -(-region // (64 * block)) if block else 0
        if not 0 < words <= MAX_BITMAP // 8:
            raise MultiFDError(f"the device {name!r} has {region} bytes in blocks of {block}: the stream is damaged")
        bitmap = self.reader.read(8 * words)
        text = name.encode()
        head = struct.pack(">BIB", FULL, section, len(text)) + text + struct.pack(">II", instance, version)
        whole = head + sizes + bitmap + self._footer(section)
        self._early_bytes += len(whole)
        self.sink.device_state(whole)

    def _footer(self, section: int) -> bytes:
        # Return the footer's bytes; machines without footers have none.
        if self.reader.next_type() != FOOTER:
            return b""
        self._footers = True
        kind, number = self.reader.u8(), self.reader.u32()
        if number != section:
            raise MultiFDError(f"the footer of section {number} follows section {section}")
        return struct.pack(">BI", kind, number)

    # ---- Guest memory ----

    def _ram(self) -> None:
        while True:
            record = self.reader.u64()
            offset = record & ~(self.reader.page_size - 1)
            flags = record & (self.reader.page_size - 1)
            if flags == EOS:
                break
            if flags == MEM_SIZE:
                self._blocks(offset)
            elif flags == MULTIFD_FLUSH:
                self._flush_ends_rounds = True
                self._end_round()
            elif flags & ~CONTINUE in (ZERO, PAGE):
                self._page(offset, flags)
            else:
                raise MultiFDError(f"a record of RAM with flags {flags:#x}, {_meaning(flags)}, cannot be followed")
        # Machine types up to 8.0 have no flush records: each end of a section ends a round. The others have a flush
        # record in the first section.
        if not self._flush_ends_rounds:
            self._end_round()

    def _end_round(self) -> None:
        # With switchover-ack (QEMU 8.1) the source continues to send until it has this reply. The stream does not show
        # that the capability is on. If it is off, the source ignores the reply, but QEMU up to 8.0 fails on it; flush
        # records come from 8.1 on. Machine types from 11.1 on count the replies that they wait for. Without
        # passed-through devices they wait for none, and fail on one.
        self.sink.sync()
        version = re.search(r"-(\d+)\.(\d+)$", self._machine)
        may_wait = version is not None and (int(version[1]), int(version[2])) < (11, 1)
        known = may_wait and (self._flush_ends_rounds or self.sink.knows_switchover_ack())
        if self.return_path and known and not self._acknowledged:
            self._acknowledged = True
            self.reply(returnpath.message(returnpath.SWITCHOVER_ACK))

    def _blocks(self, total: int) -> None:
        while total > 0:
            name = self.reader.string()
            used_length = self.reader.u64()
            self._block_count += 1
            if self._block_count > MAX_BLOCKS:
                raise MultiFDError(f"more than {MAX_BLOCKS} RAM blocks: the stream is damaged")
            if not 0 < used_length <= total:
                raise MultiFDError(
                    f"RAM block {name!r} has {used_length} bytes; {total} are left (or the list has more in it than it "
                    f"should: postcopy-ram with huge pages and ignore-shared cannot be followed)",
                    field="used_length",
                )
            self.sink.add_block(name, used_length)
            total -= used_length

    def _page(self, offset: int, flags: int) -> None:
        if not flags & CONTINUE:
            self._block = self.reader.string()
        if self._block is None:
            raise MultiFDError("a page is in the RAM block named last, but none was named: the stream is damaged")
        if flags & ZERO:
            self.sink.fill_page(self._block, offset, self.reader.u8())
        else:
            self.sink.put_page(self._block, offset, self.reader.read(self.reader.page_size))

    # ---- Device state ----

    def _devices(self) -> list[str]:
        # Only the description at the end has the lengths of the devices. The source may keep the connection open until
        # the reply, so the end must be found without reading beyond it.
        description = DescriptionFinder()
        while True:
            data = self.reader.stream.read1(PIECE)
            if not data:
                raise MultiFDError("the source ended before the description of the device state")
            self.sink.device_state(data)
            devices = description.add(data)
            if devices is not None:
                return devices
