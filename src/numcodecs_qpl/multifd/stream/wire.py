"""What goes over a multifd channel, as bytes and as dataclasses. Pure functions, no input or output.

The layout was read in QEMU's ``migration/multifd.h`` (versions 7.2 to 11.0) and checked on recorded streams of 7.2.22
and 11.0.92. All integers are big-endian. Up to 8.2 a packet's header has no ``zero_pages``: zero stands there, and
pages of zeros travel on the main channel. So one layout reads and writes both generations.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from numcodecs_qpl.multifd.errors import MultiFDError, SettingsError
from numcodecs_qpl.multifd.stream.offsets import read_offsets

Offsets: TypeAlias = NDArray[np.uint64]
Bytes: TypeAlias = bytes | bytearray | memoryview

MAGIC = 0x11223344
VERSION = 1
PACKET_SIZE = 512 * 1024
"""Bytes of guest memory that a packet is for: page_count is this over the page size."""
PAGE_SIZES = {4096, 8192, 16384, 65536}
"""Bytes in a page of the guests that QEMU knows."""
STREAM_SLACK = 1024
"""Bytes by which a packet's part of a zlib or zstd stream may be larger than its pages: 5 bytes for each 16 KiB, and a
flush."""

FLAG_SYNC = 0x01
FLAG_ZLIB = 0x02
FLAG_ZSTD = 0x04
FLAG_QPL = 0x08
FLAG_UADK = 0x10
FLAG_QATZIP = 0x20
FLAG_DEVICE_STATE = 0x40
METHOD_MASK = FLAG_ZLIB | FLAG_ZSTD | FLAG_QPL | FLAG_UADK | FLAG_QATZIP
METHOD_NAMES = {
    0: "none",
    FLAG_ZLIB: "zlib",
    FLAG_ZSTD: "zstd",
    FLAG_QPL: "qpl",
    FLAG_UADK: "uadk",
    FLAG_QATZIP: "qatzip",
}
"""Bits of ``flags``; the method ``none`` has no bit of its own."""

_INITIAL = struct.Struct(">II16sB39x")
_START = struct.Struct(">III")
NAME_SIZE = 256  # bytes that a name has in a header, its end included
_HEADER = struct.Struct(f">IIIIIIQI28x{NAME_SIZE}s")
_U32 = struct.Struct(">I")
_DEVICE_STATE = struct.Struct(f">III{NAME_SIZE}sII")

INITIAL_SIZE = _INITIAL.size
START_SIZE = _START.size
"""Bytes that both kinds of packet begin with: magic, version, flags."""
DEVICE_STATE_SIZE = _DEVICE_STATE.size


@dataclass(slots=True)
class InitialPacket:
    """The 64 bytes that a multifd channel opens with.

    Attributes
    ----------
    uuid : UUID
        The guest's (QEMU's ``-uuid``); all zeros where none was given.
    id : int
        Number of the channel, 0 to channels - 1.
    """

    uuid: UUID
    id: int


@dataclass(slots=True)
class Packet:
    """The header of a packet of pages.

    Attributes
    ----------
    flags : int
        SYNC, and the bit of the method.
    pages_alloc : int
        Pages that the sender has room for.
    normal_pages : int
        Pages whose bytes follow.
    next_packet_size : int
        Bytes after the header. Where ``normal_pages`` is 0 nothing follows, whatever stands here: QEMU 7.2 leaves the
        size of the packet before.
    packet_num : int
        Number of the packet over all channels.
    zero_pages : int
        Pages that are all zeros, from QEMU 9.0 on.
    ramblock : str
        Name of the RAM block; empty if the packet has no pages.
    offsets : ndarray of uint64, shape (normal_pages + zero_pages,)
        Where in the block the pages are, in bytes: the normal ones', then the zero ones'.
    """

    flags: int
    pages_alloc: int
    normal_pages: int
    next_packet_size: int
    packet_num: int
    zero_pages: int = 0
    ramblock: str = ""
    offsets: Offsets = field(default_factory=lambda: np.empty(0, np.uint64), compare=False)

    @property
    def sync(self) -> bool:
        """True if a round ends with this packet."""
        return bool(self.flags & FLAG_SYNC)

    @property
    def payload_size(self) -> int:
        """Bytes that really follow the header."""
        return self.next_packet_size if self.normal_pages else 0

    @property
    def normal(self) -> Offsets:
        """Offsets of the pages whose bytes follow."""
        return self.offsets[: self.normal_pages]

    @property
    def zero(self) -> Offsets:
        """Offsets of the pages that are all zeros."""
        return self.offsets[self.normal_pages :]


@dataclass(slots=True)
class DeviceStatePacket:
    """The header of a packet of device state (QEMU 10.0 on); ``next_packet_size`` bytes follow."""

    flags: int
    idstr: str
    instance_id: int
    next_packet_size: int

    @property
    def sync(self) -> bool:
        """True if a round ends with this packet."""
        return bool(self.flags & FLAG_SYNC)


def pages_in_packet(page_size: int) -> int:
    """QEMU's page_count: pages that fit into a packet.

    Raises
    ------
    ValueError
        If `page_size` is not a power of two of at most 512 KiB.
    """
    if not 0 < page_size <= PACKET_SIZE or page_size & (page_size - 1):
        raise ValueError(f"page_size is {page_size}; it must be a power of two of at most {PACKET_SIZE}")
    return PACKET_SIZE // page_size


def header_size(page_count: int) -> int:
    """Bytes of the header of a packet with room for `page_count` pages: 1344 for 128."""
    return _HEADER.size + 8 * page_count


def payload_limits(flags: int, normal_pages: int, page_size: int) -> tuple[int, int]:
    """The least and the most bytes that a payload of `normal_pages` can have, by the method in `flags`.

    ``none`` has the pages; ``qpl`` and ``uadk`` have four bytes of length for each and pages that did not grow; the
    others have a stream, whose flush and stored blocks add a little to data that cannot be compressed.
    """
    whole = normal_pages * page_size
    method = flags & METHOD_MASK
    if method == 0:
        return whole, whole
    if method in (FLAG_QPL, FLAG_UADK):
        return 5 * normal_pages, 4 * normal_pages + whole
    return 1, whole + STREAM_SLACK


def pack_initial(packet: InitialPacket) -> bytes:
    """The opening of a channel."""
    return _INITIAL.pack(MAGIC, VERSION, packet.uuid.bytes, packet.id)


def unpack_initial(data: Bytes) -> InitialPacket:
    """The opening of a channel from its 64 bytes.

    Raises
    ------
    MultiFDError
        For another magic or version.
    """
    magic, version, uuid, channel = _INITIAL.unpack(data)
    _check_start(magic, version)
    return InitialPacket(UUID(bytes=uuid), channel)


def unpack_flags(data: Bytes) -> int:
    """The flags of a packet from its first 12 bytes: they tell which of the two headers it has.

    Raises
    ------
    MultiFDError
        For another magic or version, or flags that are not defined.
    """
    magic, version, flags = _START.unpack_from(data)
    # The header of the packet before has another length where the page size is another.
    _check_start(magic, version, " (is --page-size the guest's?)")
    if flags & ~(FLAG_SYNC | METHOD_MASK | FLAG_DEVICE_STATE):
        raise MultiFDError(f"{flags:#x} has bits that are not known", field="flags")
    if flags & METHOD_MASK not in METHOD_NAMES:
        raise MultiFDError(f"{flags:#x} names two methods", field="flags")
    return int(flags)


def pack(packet: Packet, page_count: int) -> bytes:
    """A header of ``header_size(page_count)`` bytes.

    Raises
    ------
    ValueError
        If it has no room for the name or the offsets.
    """
    if len(packet.offsets) > page_count:
        raise ValueError(f"{len(packet.offsets)} offsets; a header has room for {page_count}")
    head = _HEADER.pack(
        MAGIC,
        VERSION,
        packet.flags,
        packet.pages_alloc,
        packet.normal_pages,
        packet.next_packet_size,
        packet.packet_num,
        packet.zero_pages,
        _name(packet.ramblock),
    )
    return (head + packet.offsets.astype(">u8").tobytes()).ljust(header_size(page_count), b"\0")


def unpack(data: Bytes, page_size: int) -> Packet:
    """A header of pages, checked as far as it can be without knowing the RAM blocks.

    Parameters
    ----------
    data : bytes
        ``header_size(pages_in_packet(page_size))`` bytes.
    page_size : int
        Bytes in a page of the guest.

    Raises
    ------
    MultiFDError
        For another magic or version, unknown flags, counts that are larger than what they count in, a block name that
        does not end, a payload larger than that many pages can have, offsets that are not multiples of the page size,
        or one that comes twice.
    """
    page_count = pages_in_packet(page_size)
    flags = unpack_flags(data)
    _, _, _, alloc, normal, size, number, zero, name = _HEADER.unpack_from(data)
    other = PACKET_SIZE // alloc if alloc else page_size
    if alloc * other == PACKET_SIZE and other != page_size and other in PAGE_SIZES:
        raise SettingsError(
            f"the packet is of {alloc} pages, as where pages have {other} bytes; expected are {page_count} pages of "
            f"{page_size} bytes: set --page-size {other}",
            field="pages_alloc",
        )
    if alloc > page_count:
        raise MultiFDError(f"{alloc} is more than the {page_count} pages of a packet", field="pages_alloc")
    if normal > alloc:
        raise MultiFDError(f"{normal} is more than the {alloc} of pages_alloc", field="normal_pages")
    if zero > alloc - normal:
        raise MultiFDError(
            f"{zero} and {normal} normal ones are more than the {alloc} of pages_alloc", field="zero_pages"
        )
    least, most = payload_limits(flags, normal, page_size)
    if normal and not least <= size <= most:
        raise MultiFDError(f"{size} bytes for {normal} pages, which have {least} to {most}", field="next_packet_size")
    offsets = np.empty(normal + zero, np.uint64)
    if not read_offsets(memoryview(data)[_HEADER.size :], offsets, page_size):
        _check_offsets(offsets, page_size)
    return Packet(flags, alloc, normal, size, number, zero, _text(name, "ramblock"), offsets)


def repack(header: bytearray, flags: int, next_packet_size: int) -> None:
    """Change the method and the payload's size in a header, and nothing else of it."""
    _U32.pack_into(header, 8, flags)
    _U32.pack_into(header, 20, next_packet_size)


def pack_device_state(packet: DeviceStatePacket) -> bytes:
    """The header of a packet of device state.

    Raises
    ------
    ValueError
        If it has no room for the name.
    """
    return _DEVICE_STATE.pack(
        MAGIC, VERSION, packet.flags, _name(packet.idstr), packet.instance_id, packet.next_packet_size
    )


def unpack_device_state(data: Bytes) -> DeviceStatePacket:
    """The header of a packet of device state from its 276 bytes.

    Raises
    ------
    MultiFDError
        For another magic or version, unknown flags, or a name that does not end.
    """
    flags = unpack_flags(data)
    _, _, _, name, instance, size = _DEVICE_STATE.unpack(data)
    return DeviceStatePacket(flags, _text(name, "idstr"), instance, size)


def _name(text: str) -> bytes:
    name = text.encode()
    if len(name) >= NAME_SIZE or b"\0" in name:
        raise ValueError(f"{text!r} is not a valid name: it may have {NAME_SIZE - 1} bytes, none of them 0")
    return name


def _check_start(magic: int, version: int, hint: str = "") -> None:
    if magic != MAGIC:
        raise MultiFDError(
            f"{magic:#010x}, not the {MAGIC:#010x} that a multifd channel begins with{hint}", field="magic"
        )
    if version != VERSION:
        raise MultiFDError(f"{version}; only version {VERSION} is known", field="version")


def _text(padded: bytes, name: str) -> str:
    text, end, _ = padded.partition(b"\0")
    if not end:
        raise MultiFDError(f"the {len(padded)} bytes have no end", field=name)
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise MultiFDError(f"{text!r} is not UTF-8", field=name) from None


def _check_offsets(offsets: Offsets, page_size: int) -> None:
    misplaced = np.flatnonzero(offsets & np.uint64(page_size - 1))
    if misplaced.size:
        page = misplaced[0]
        raise MultiFDError(f"{offsets[page]} (page {page}) is not a multiple of {page_size}", field="offset")
    in_order = np.sort(offsets)
    twice = np.flatnonzero(in_order[1:] == in_order[:-1])
    if twice.size:
        raise MultiFDError(f"{in_order[twice[0]]} comes twice", field="offset")
