"""The main channel: guest memory's blocks, the rounds, and the device state.

Read in QEMU's ``migration/savevm.c``, ``migration/ram.c`` and ``migration/migration.c`` (7.2 to 11.0), and checked on
recorded streams of 7.2.22 and 11.0.92. All integers are big-endian.
"""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.vmdescription import DescriptionFinder

MAGIC = b"QEVM"
VERSION = 3
RAM_VERSION = 4
MAX_BLOCKS = 4096
EARLY_DEVICE = "virtio-mem-device-early"
EARLY_DEVICE_VERSION = 1
MAX_BITMAP = 16 * 2**20
"""Bytes of virtio-mem's bitmap: a bit for each of its blocks, which have 1 MiB at least on x86."""
PIECE = 64 * 1024  # bytes of device state that are handed on at a time

EOF, START, PART, END, FULL, SUBSECTION, VMDESCRIPTION, CONFIGURATION, COMMAND = range(9)
FOOTER = 0x7E
"""Types of section (``QEMU_VM_*``)."""

ZERO, MEM_SIZE, PAGE, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
XBZRLE, HOOK, COMPRESS_PAGE, MULTIFD_FLUSH = 0x40, 0x80, 0x100, 0x200
"""Flags of a record of RAM (``RAM_SAVE_FLAG_*``)."""

OPEN_RETURN_PATH, PING, POSTCOPY_ADVISE, PACKAGED, ENABLE_COLO, RECV_BITMAP = 1, 2, 3, 7, 9, 10
"""Commands (``MIG_CMD_*``). From POSTCOPY_ADVISE to RECV_BITMAP they change what the stream is."""

REPLY_SHUT, REPLY_PONG, REPLY_SWITCHOVER_ACK = 1, 2, 7
"""What the destination says on the return path (``MIG_RP_MSG_*``)."""

FOLLOWED_CAPABILITIES = {"multifd", "return-path", "switchover-ack", "validate-uuid"}
"""Capabilities that may be in the configuration. QEMU 7.2 to 11.1 lists only ``x-ignore-shared`` and ``mapped-ram``."""


def _meaning(flags: int) -> str:
    names = {XBZRLE: "xbzrle", HOOK: "RDMA", COMPRESS_PAGE: "compress"}
    known = (f"of {name} (turn it off in the source)" for flag, name in names.items() if flags & flag)
    return next(known, "which is not defined (is --page-size the guest's?)")


@dataclass
class Configuration:
    """The configuration section; None stands for a subsection that did not come.

    Attributes
    ----------
    machine : str
        The machine type of the source.
    capabilities : list of str or None
        Capabilities that both sides need to have turned on.
    target_page_bits : int or None
        The guest's page size is 2 to the power of this. Comes from machines whose page size can vary (Arm).
    uuid : UUID or None
        The guest's. Comes where ``validate-uuid`` is on.
    """

    machine: str
    capabilities: list[str] | None = None
    target_page_bits: int | None = None
    uuid: UUID | None = None


class RAMSink(ABC):
    """Who is told of what comes over the main channel."""

    @abstractmethod
    def configure(self, configuration: Configuration) -> None:
        """The configuration section, which comes first."""

    @abstractmethod
    def add_block(self, name: str, used_length: int) -> None:
        """A RAM block; all of them come before anything else."""

    @abstractmethod
    def fill_page(self, block: str, offset: int, byte: int) -> None:
        """A page that is all one byte."""

    @abstractmethod
    def put_page(self, block: str, offset: int, page: bytes) -> None:
        """A page that came over this channel."""

    @abstractmethod
    def sync(self) -> None:
        """The end of a round; returns when all channels are there."""

    @abstractmethod
    def knows_switchover_ack(self) -> bool:
        """Return True if the multifd channels show that the source knows the reply SWITCHOVER_ACK."""

    @abstractmethod
    def device_state(self, data: bytes) -> None:
        """The next bytes of device state: whole sections before guest memory, and all that follows it."""


@dataclass
class MainChannel:
    """Reads the main channel and tells a `RAMSink` what is in it.

    Attributes
    ----------
    stream : io.BufferedReader
        What follows the magic.
    sink : RAMSink
        Who is told.
    reply : callable
        ``reply(data)`` sends bytes back, if the source opens the return path.
    page_size : int
        Bytes in a page of the guest.
    """

    stream: io.BufferedReader[Any]
    sink: RAMSink
    reply: Callable[[bytes], None]
    page_size: int
    _ram_section: int | None = None
    _block: str | None = None
    _flush_ends_rounds: bool = False
    _return_path: bool = False
    _acknowledged: bool = False
    _block_count: int = 0

    def run(self) -> list[str]:
        """Read the whole stream; returns the names of its devices.

        Raises
        ------
        MultiFDError
            If it is damaged, ends too early, or holds what cannot be followed.
        """
        version = self._u32()
        if version != VERSION:
            raise MultiFDError(f"{version}; only version {VERSION} is known", field="version")
        while not self._section():
            pass
        devices = self._devices()
        if self._return_path:
            self.reply(struct.pack(">HHI", REPLY_SHUT, 4, 0))
        if self.stream.read(1):
            raise MultiFDError("something follows the description of the device state")
        return devices

    # ---- Sections ----

    def _section(self) -> bool:
        # Returns True after the end of guest memory.
        kind = self._u8()
        if kind == CONFIGURATION:
            self._configuration()
        elif kind == COMMAND:
            self._command()
        elif kind == START:
            self._start()
        elif kind == FULL:
            self._early_device()
        elif kind in (PART, END):
            section = self._u32()
            if section != self._ram_section:
                raise MultiFDError(f"section {section} has not been started")
            self._ram()
            self._footer(section)
        else:
            raise MultiFDError(f"a section of type {kind:#04x} comes before the end of guest memory")
        return kind == END

    def _configuration(self) -> None:
        found = Configuration(self._read(self._u32(limit=256)).decode(errors="replace"))
        while self._next() == SUBSECTION:
            self._u8()
            name = self._string()
            self._u32()  # its version
            if name == "configuration/capabilities":
                found.capabilities = [self._string() for _ in range(self._u32(limit=256))]
            elif name == "configuration/target-page-bits":
                found.target_page_bits = self._u32()
            elif name == "configuration/uuid":
                found.uuid = UUID(bytes=self._read(16))
            else:
                raise MultiFDError(f"the configuration has a part {name!r}, which is not known")
        unknown = [name for name in found.capabilities or [] if name not in FOLLOWED_CAPABILITIES]
        if unknown:
            raise MultiFDError(
                f"the source has turned on {', '.join(unknown)}, which cannot be followed: turn it off there "
                "(QMP migrate-set-capabilities) and migrate again"
            )
        bits = found.target_page_bits
        if bits is not None and self.page_size != 1 << min(bits, 63):
            raise MultiFDError(
                f"the guest's pages have 2**{bits} bytes, but {self.page_size} are expected: set --page-size"
            )
        self.sink.configure(found)

    def _command(self) -> None:
        command, size = self._u16(), self._u16()
        data = self._read(size)
        if command == OPEN_RETURN_PATH:
            self._return_path = True
        elif command == PING:
            if self._return_path:
                self.reply(struct.pack(">HH", REPLY_PONG, size) + data)
        elif POSTCOPY_ADVISE <= command <= RECV_BITMAP:
            raise MultiFDError(
                f"command {command} belongs to postcopy or COLO, which cannot be followed: turn it off in the source"
            )

    def _start(self) -> None:
        section = self._u32()
        name = self._string()
        self._u32()  # the instance
        version = self._u32()
        if name != "ram" or version != RAM_VERSION or self._ram_section is not None:
            raise MultiFDError(
                f"section {name!r}, version {version}, cannot be followed; one section 'ram' of version 4 can: turn "
                "off what else the source migrates (block migration, dirty bitmaps)"
            )
        self._ram_section = section
        self._ram()
        self._footer(section)

    def _early_device(self) -> None:
        # Of the devices that come before guest memory, virtio-mem (QEMU's hw/virtio/virtio-mem.c) tells its length:
        # address, region size and block size (u64), node (u32), plugged size (u64), and a bit for each block, in
        # u64 words.
        section = self._u32()
        name = self._string()
        instance, version = self._u32(), self._u32()
        if name.rpartition("/")[2] != EARLY_DEVICE or version != EARLY_DEVICE_VERSION:
            raise MultiFDError(
                f"the device {name!r}, version {version}, comes before guest memory, and its length is not known: "
                "remove the device from the guest (QMP device_del) and migrate again"
            )
        sizes = self._read(36)
        region, block = struct.unpack_from(">QQ", sizes, 8)
        words = -(-region // (64 * block)) if block else 0
        if not 0 < words <= MAX_BITMAP // 8:
            raise MultiFDError(f"the device {name!r} has {region} bytes in blocks of {block}: the stream is damaged")
        bitmap = self._read(8 * words)
        text = name.encode()
        head = struct.pack(">BIB", FULL, section, len(text)) + text + struct.pack(">II", instance, version)
        self.sink.device_state(head + sizes + bitmap + self._footer(section))

    def _footer(self, section: int) -> bytes:
        # Returns it as it came; machines without footers have none.
        if self._next() != FOOTER:
            return b""
        kind, number = self._u8(), self._u32()
        if number != section:
            raise MultiFDError(f"the footer of section {number} follows section {section}")
        return struct.pack(">BI", kind, number)

    # ---- Guest memory ----

    def _ram(self) -> None:
        while True:
            record = self._u64()
            offset = record & ~(self.page_size - 1)
            flags = record & (self.page_size - 1)
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
        # Machine types up to 8.0 have no flush records: there each end of a section ends a round. The others have one
        # in the first section.
        if not self._flush_ends_rounds:
            self._end_round()

    def _end_round(self) -> None:
        # With switchover-ack (QEMU 8.1) the source goes on sending until it has this reply. Nothing in the stream tells
        # that the capability is on. A source that has it off ignores the reply, but QEMU up to 8.0 fails on it. Flush
        # records come from 8.1 on.
        self.sink.sync()
        known = self._flush_ends_rounds or self.sink.knows_switchover_ack()
        if self._return_path and known and not self._acknowledged:
            self._acknowledged = True
            self.reply(struct.pack(">HH", REPLY_SWITCHOVER_ACK, 0))

    def _blocks(self, total: int) -> None:
        while total > 0:
            name = self._string()
            used_length = self._u64()
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
            self._block = self._string()
        if self._block is None:
            raise MultiFDError("a page is in the RAM block named last, but none was named: the stream is damaged")
        if flags & ZERO:
            self.sink.fill_page(self._block, offset, self._u8())
        else:
            self.sink.put_page(self._block, offset, self._read(self.page_size))

    # ---- Device state ----

    def _devices(self) -> list[str]:
        # Only their description, at the very end, tells how long the devices are. The source may keep the connection
        # open until we answer, so the end must be found without reading beyond it.
        description = DescriptionFinder()
        while True:
            data = self.stream.read1(PIECE)
            if not data:
                raise MultiFDError("the source ended before the description of the device state")
            self.sink.device_state(data)
            devices = description.add(data)
            if devices is not None:
                return devices

    # ---- Bytes ----

    def _read(self, size: int) -> bytes:
        data = self.stream.read(size)
        if len(data) < size:
            raise MultiFDError(f"the source ended; {size - len(data)} of {size} bytes were missing")
        return data

    def _next(self) -> int:
        data = self.stream.peek(1)
        return data[0] if data else -1

    def _u8(self) -> int:
        return self._read(1)[0]

    def _u16(self) -> int:
        return int.from_bytes(self._read(2), "big")

    def _u32(self, limit: int = 2**32) -> int:
        value = int.from_bytes(self._read(4), "big")
        if value > limit:
            raise MultiFDError(f"a length of {value} where at most {limit} can stand: the stream is damaged")
        return value

    def _u64(self) -> int:
        return int.from_bytes(self._read(8), "big")

    def _string(self) -> str:
        data = self._read(self._u8())
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise MultiFDError(f"the name {data!r} is not UTF-8") from None
