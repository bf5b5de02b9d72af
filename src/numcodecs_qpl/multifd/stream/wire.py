"""Format of a multifd channel, as bytes and as dataclasses. Pure functions, no input or output.

The layout was read in QEMU's ``migration/multifd.h`` (versions 7.2 to 11.0) and checked on recorded streams of 7.2.22
and 11.0.92. All integers are big-endian. Up to 8.2, a packet's header has zero bytes in place of ``zero_pages``, and
pages of zeros are sent on the main channel. So one layout reads and writes both versions.
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
"""Bytes of guest memory in a full packet: page_count times the page size."""
PAGE_SIZES = {4096, 8192, 16384, 65536}
"""Page sizes of QEMU's guests, in bytes."""
STREAM_SLACK = 1024
"""Most bytes by which a packet's part of a zlib or zstd stream may exceed its pages: 5 for each 16 KiB, and a flush."""

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
NAME_SIZE = 256  # bytes of a name in a header, including the final zero
_HEADER = struct.Struct(f">IIIIIIQI28x{NAME_SIZE}s")
_U32 = struct.Struct(">I")
_DEVICE_STATE = struct.Struct(f">III{NAME_SIZE}sII")

INITIAL_SIZE = _INITIAL.size
START_SIZE = _START.size
"""The beginning of both kinds of packet: magic, version, flags."""
DEVICE_STATE_SIZE = _DEVICE_STATE.size


@dataclass(slots=True)
class InitialPacket:
    """The 64 opening bytes of a multifd channel.

    Attributes
    ----------
    uuid : UUID
        UUID of the guest (QEMU's ``-uuid``); all zeros without that option.
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
        Bytes after the header. If ``normal_pages`` is 0, nothing follows and this has no meaning: QEMU 7.2 leaves the
        size of the previous packet.
    packet_num : int
        Number of the packet over all channels.
    zero_pages : int
        Pages that are all zeros, from QEMU 9.0 on.
    ramblock : str
        Name of the RAM block; empty if the packet has no pages.
    offsets : ndarray of uint64, shape (normal_pages + zero_pages,)
        Offsets of the pages in the block, in bytes: first the normal pages, then the zero pages.
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
        """True if this packet ends a round."""
        return bool(self.flags & FLAG_SYNC)

    @property
    def payload_size(self) -> int:
        """Bytes that follow the header; 0 without normal pages."""
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
        """True if this packet ends a round."""
        return bool(self.flags & FLAG_SYNC)


def pages_in_packet(page_size: int) -> int:
    """Return QEMU's page_count, the number of pages in a full packet.

    Raises
    ------
    ValueError
        If `page_size` is not a power of two of at most 512 KiB.
    """
    if not 0 < page_size <= PACKET_SIZE or page_size & (page_size - 1):
        raise ValueError(f"page_size is {page_size}; it must be a power of two of at most {PACKET_SIZE}")
    return PACKET_SIZE // page_size


def header_size(page_count: int) -> int:
    """Return the size in bytes of the header of a packet with room for `page_count` pages: 1344 for 128."""
    return _HEADER.size + 8 * page_count


def payload_limits(flags: int, normal_pages: int, page_size: int) -> tuple[int, int]:
    """Return the smallest and largest size of a payload of `normal_pages`, with the method in `flags`.

    ``none`` has the pages. ``qpl`` and ``uadk`` have a length of four bytes for each page, and pages that did not grow.
    The others have a stream, whose flush and stored blocks add a little to incompressible data.
    """
    whole = normal_pages * page_size
    method = flags & METHOD_MASK
    if method == 0:
        return whole, whole
    if method in (FLAG_QPL, FLAG_UADK):
        return 5 * normal_pages, 4 * normal_pages + whole
    return 1, whole + STREAM_SLACK


def pack_initial(packet: InitialPacket) -> bytes:
    """Pack the opening bytes of a channel."""
    return _INITIAL.pack(MAGIC, VERSION, packet.uuid.bytes, packet.id)


def unpack_initial(data: Bytes) -> InitialPacket:
    """Unpack the 64 opening bytes of a channel.

    Raises
    ------
    MultiFDError
        For another magic or version.
    """
    magic, version, uuid, channel = _INITIAL.unpack(data)
    _check_start(magic, version)
    return InitialPacket(UUID(bytes=uuid), channel)


def unpack_flags(data: Bytes) -> int:
    """Unpack a packet's flags from its first 12 bytes. They identify the kind of its header.

    Raises
    ------
    MultiFDError
        For another magic or version, or undefined flags.
    """
    magic, version, flags = _START.unpack_from(data)
    # With another page size, the previous packet's header has another length.
    _check_start(magic, version, " (is --page-size the guest's?)")
    if flags & ~(FLAG_SYNC | METHOD_MASK | FLAG_DEVICE_STATE):
        raise MultiFDError(f"{flags:#x} has unknown bits", field="flags")
    if flags & METHOD_MASK not in METHOD_NAMES:
        raise MultiFDError(f"{flags:#x} names two methods", field="flags")
    return int(flags)


def pack(packet: Packet, page_count: int) -> bytes:
    """Pack a header of ``header_size(page_count)`` bytes.

    Raises
    ------
    ValueError
        If the header has no room for the name or the offsets.
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
    """Unpack a header of pages, with all checks that do not need the RAM blocks.

    Parameters
    ----------
    data : bytes
        ``header_size(pages_in_packet(page_size))`` bytes.
    page_size : int
        Bytes in a page of the guest.

    Raises
    ------
    MultiFDError
        For another magic or version, unknown flags, or counts that are too large. Also for a block name without an end,
        and for a payload that is too small or too large for its pages. Offsets must be multiples of the page size, and
        different from each other.
    """
    page_count = pages_in_packet(page_size)
    flags = unpack_flags(data)
    _, _, _, alloc, normal, size, number, zero, name = _HEADER.unpack_from(data)
    other = PACKET_SIZE // alloc if alloc else page_size
    if alloc * other == PACKET_SIZE and other != page_size and other in PAGE_SIZES:
        raise SettingsError(
            f"the packet is of {alloc} pages, as with pages of {other} bytes; expected {page_count} pages of "
            f"{page_size} bytes: set --page-size {other}",
            field="pages_alloc",
        )
    if alloc > page_count:
        raise MultiFDError(f"{alloc} is more than the {page_count} pages of a packet", field="pages_alloc")
    if normal > alloc:
        raise MultiFDError(f"{normal} is more than the {alloc} of pages_alloc", field="normal_pages")
    if zero > alloc - normal:
        raise MultiFDError(
            f"{zero} and {normal} normal pages are more than the {alloc} of pages_alloc", field="zero_pages"
        )
    least, most = payload_limits(flags, normal, page_size)
    if normal and not least <= size <= most:
        raise MultiFDError(f"{size} bytes for {normal} pages; expected {least} to {most}", field="next_packet_size")
    offsets = np.empty(normal + zero, np.uint64)
    if not read_offsets(memoryview(data)[_HEADER.size :], offsets, page_size):
        _check_offsets(offsets, page_size)
    return Packet(flags, alloc, normal, size, number, zero, _text(name, "ramblock"), offsets)


def repack(header: bytearray, flags: int, next_packet_size: int) -> None:
    """Change the method and the payload's size in a header; the other fields are unchanged."""
    _U32.pack_into(header, 8, flags)
    _U32.pack_into(header, 20, next_packet_size)


def pack_device_state(packet: DeviceStatePacket) -> bytes:
    """Pack the header of a packet of device state.

    Raises
    ------
    ValueError
        If the header has no room for the name.
    """
    return _DEVICE_STATE.pack(
        MAGIC, VERSION, packet.flags, _name(packet.idstr), packet.instance_id, packet.next_packet_size
    )


def unpack_device_state(data: Bytes) -> DeviceStatePacket:
    """Unpack the 276 bytes of a header of device state.

    Raises
    ------
    MultiFDError
        For another magic or version, unknown flags, or a name without an end.
    """
    flags = unpack_flags(data)
    _, _, _, name, instance, size = _DEVICE_STATE.unpack(data)
    return DeviceStatePacket(flags, _text(name, "idstr"), instance, size)


def _name(text: str) -> bytes:
    name = text.encode()
    if len(name) >= NAME_SIZE or b"\0" in name:
        raise ValueError(f"invalid name {text!r}: expected at most {NAME_SIZE - 1} bytes, none of them 0")
    return name


def _check_start(magic: int, version: int, hint: str = "") -> None:
    if magic != MAGIC:
        raise MultiFDError(f"{magic:#010x}; expected {MAGIC:#010x}, multifd's magic number{hint}", field="magic")
    if version != VERSION:
        raise MultiFDError(f"{version}; expected {VERSION}", field="version")


def _text(padded: bytes, name: str) -> str:
    text, end, _ = padded.partition(b"\0")
    if not end:
        raise MultiFDError(f"the {len(padded)} bytes contain no zero, which ends a name", field=name)
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
