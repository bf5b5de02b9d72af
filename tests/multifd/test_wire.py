"""The bytes of multifd: golden ones, recorded ones, any by hypothesis, and those that break a rule."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import NAMES, recording

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.channel import RecvChannel
from numcodecs_qpl.multifd.errors import PeerClosedError
from numcodecs_qpl.multifd.stream import wire
from numcodecs_qpl.multifd.stream.offsets import read_offsets
from numcodecs_qpl.multifd.transport.connection import Connection

PAGE = 4096
COUNT = 128
HEADER = 1344
METHOD_FLAGS = [0, 2, 4, 8, 0x10, 0x20]
NO_END = b"n" * 256


def put(size: int, fields: dict[int, tuple[str, Any]]) -> bytes:
    """Zeros but for `fields`: at each offset a struct format, big-endian, and its value."""
    data = bytearray(size)
    for at, (layout, value) in fields.items():
        struct.pack_into(f">{layout}", data, at, value)
    return bytes(data)


def golden(**change: Any) -> bytes:
    """A packet of two normal pages and one of zeros, by the table of the format."""
    now = {
        "magic": 0x11223344,
        "version": 1,
        "flags": 8,
        "pages_alloc": 128,
        "normal_pages": 2,
        "next_packet_size": 5000,
        "packet_num": 0x1_0000_0002,
        "zero_pages": 1,
        "ramblock": b"pc.ram",
        "offsets": [0x1000, 0x7FFF_F000, 0x3000],
        **change,
    }
    numbers = ["magic", "version", "flags", "pages_alloc", "normal_pages", "next_packet_size"]
    fields = {4 * at: ("I", now[name]) for at, name in enumerate(numbers)}
    fields |= {24: ("Q", now["packet_num"]), 32: ("I", now["zero_pages"]), 64: ("256s", now["ramblock"])}
    return put(HEADER, fields | {320 + 8 * at: ("Q", offset) for at, offset in enumerate(now["offsets"])})


def golden_device_state(**change: Any) -> bytes:
    now = {"magic": 0x11223344, "version": 1, "flags": 0x41, "idstr": b"vfio", **change}
    fields = {0: ("I", now["magic"]), 4: ("I", now["version"]), 8: ("I", now["flags"]), 12: ("256s", now["idstr"])}
    return put(276, {**fields, 268: ("I", 7), 272: ("I", 99)})


def pages(count: int) -> list[int]:
    return [page * PAGE for page in range(count)]


# ---- Golden bytes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [4096, 16384, 65536])
@pytest.mark.parametrize("theirs", [4096, 16384, 65536])
def test_a_packet_of_another_page_size_is_told_with_that_size(ours: int, theirs: int) -> None:
    count = wire.pages_in_packet(theirs)
    packet = wire.pack(wire.Packet(0, count, 1, theirs, 0, 0, "m", np.zeros(1, np.uint64)), 128)
    if ours == theirs:
        assert wire.unpack(packet, ours).pages_alloc == count
        return
    with pytest.raises(MultiFDError, match=rf"^pages_alloc: .*: set --page-size {theirs}$"):
        wire.unpack(packet, ours)


def test_the_opening_is_64_bytes_as_documented() -> None:
    uuid = UUID("00112233-4455-6677-8899-aabbccddeeff")
    expected = put(64, {0: ("I", 0x11223344), 4: ("I", 1), 8: ("16s", uuid.bytes), 24: ("B", 201)})
    assert wire.pack_initial(wire.InitialPacket(uuid, 201)) == expected
    assert wire.unpack_initial(expected) == wire.InitialPacket(uuid, 201)


def test_a_header_of_qemu_9_on_has_its_fields_where_documented() -> None:
    packet = wire.unpack(golden(), PAGE)
    assert packet == wire.Packet(8, 128, 2, 5000, 0x1_0000_0002, 1, "pc.ram")
    assert (packet.normal.tolist(), packet.zero.tolist()) == ([0x1000, 0x7FFF_F000], [0x3000])
    assert wire.pack(packet, COUNT) == golden()


def test_a_header_up_to_qemu_8_has_zeros_where_zero_pages_came_later() -> None:
    offsets = np.array([0x1000, 0x2000], np.uint64)
    expected = golden(flags=1, next_packet_size=2 * PAGE, zero_pages=0, offsets=offsets.tolist())
    packet = wire.Packet(1, 128, 2, 2 * PAGE, 0x1_0000_0002, ramblock="pc.ram", offsets=offsets)
    assert wire.pack(packet, COUNT) == expected
    assert wire.unpack(expected, PAGE) == packet
    assert packet.sync


def test_a_sync_alone_is_zeros_but_for_four_fields() -> None:
    expected = put(HEADER, {0: ("I", 0x11223344), 4: ("I", 1), 8: ("I", 1), 24: ("Q", 3)})
    assert wire.pack(wire.Packet(1, 0, 0, 0, 3), COUNT) == expected
    assert wire.unpack(expected, PAGE) == wire.Packet(1, 0, 0, 0, 3)


def test_a_header_of_device_state_has_its_fields_where_documented() -> None:
    packet = wire.DeviceStatePacket(0x41, "vfio", 7, 99)
    assert wire.pack_device_state(packet) == golden_device_state()
    assert wire.unpack_device_state(golden_device_state()) == packet
    assert packet.sync


def test_changing_method_and_size_changes_eight_bytes_of_a_header() -> None:
    header = bytearray(golden(offsets=pages(COUNT)))
    wire.repack(header, 2, 77)
    assert header == golden(offsets=pages(COUNT), flags=2, next_packet_size=77)


@pytest.mark.parametrize(
    ("page_size", "page_count", "size"), [(4096, 128, 1344), (65536, 8, 384), (524288, 1, 328), (1024, 512, 4416)]
)
def test_a_header_has_room_for_half_a_mebibyte_of_pages(page_size: int, page_count: int, size: int) -> None:
    assert wire.pages_in_packet(page_size) == page_count
    assert wire.header_size(page_count) == size


@pytest.mark.parametrize("page_size", [-4096, 0, 3, 4095, 4097, 1 << 20])
def test_a_page_size_that_no_guest_has_is_an_error(page_size: int) -> None:
    with pytest.raises(ValueError, match=f"page_size is {page_size}; it must be a power of two"):
        wire.pages_in_packet(page_size)


# ---- Recorded bytes ---------------------------------------------------------------------------------------------


def recorded(name: str) -> Iterator[bytes]:
    """Every header of a recording's channels."""
    for content in recording(name).channels:
        at = 64
        while at < len(content):
            yield content[at : at + HEADER]
            normal, size = struct.unpack_from(">II", content, at + 16)
            at += HEADER + (size if normal else 0)
        assert at == len(content)


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_packet_comes_out_as_it_was(name: str) -> None:
    headers = list(recorded(name))
    assert len(headers) > 10
    flag = METHOD_FLAGS[["none", "zlib", "zstd", "qpl"].index(name.split("-")[2])]
    for header in headers:
        packet = wire.unpack(header, PAGE)
        used = 320 + 8 * len(packet.offsets)
        # Up to 8.2 QEMU leaves offsets of earlier packets behind those of this one.
        assert wire.pack(packet, COUNT) == header[:used].ljust(HEADER, b"\0")
        assert name.startswith("qemu-7") or not any(header[used:])
        same = bytearray(header)
        wire.repack(same, packet.flags, packet.next_packet_size)
        assert same == header
        assert packet.flags & wire.METHOD_MASK in ((flag,) if packet.normal_pages else (0, flag))


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_opening_comes_out_as_it_was(name: str) -> None:
    openings = [content[:64] for content in recording(name).channels]
    assert sorted(wire.unpack_initial(opening).id for opening in openings) == [0, 1]
    assert [wire.pack_initial(wire.unpack_initial(opening)) for opening in openings] == openings


# ---- Any bytes --------------------------------------------------------------------------------------------------

U32 = st.integers(0, 2**32 - 1)


def texts() -> st.SearchStrategy[str]:
    letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    return st.text(letters, max_size=255).filter(lambda text: len(text.encode()) < 256)


@st.composite
def packets(draw: st.DrawFn) -> tuple[wire.Packet, int]:
    page_size = draw(st.sampled_from([1024, 4096, 16384, 524288]))
    # As many pages as packets of another page size have are taken for these.
    others = {524288 // size for size in wire.PAGE_SIZES - {page_size}}
    alloc = draw(st.integers(0, 524288 // page_size).filter(lambda count: count not in others))
    normal = draw(st.integers(0, alloc))
    zero = draw(st.integers(0, alloc - normal))
    flags = draw(st.sampled_from(METHOD_FLAGS))
    least, most = wire.payload_limits(flags, normal, page_size)
    size = draw(st.integers(least, most) if normal else U32)
    some = st.integers(0, 2**64 // page_size - 1)
    numbers = draw(st.lists(some, min_size=normal + zero, max_size=normal + zero, unique=True))
    offsets = np.array([number * page_size for number in numbers], np.uint64)
    number = draw(st.integers(0, 2**64 - 1))
    flags |= draw(st.sampled_from([0, wire.FLAG_SYNC]))
    return wire.Packet(flags, alloc, normal, size, number, zero, draw(texts()), offsets), page_size


@given(packets())
def test_any_packet_comes_back(drawn: tuple[wire.Packet, int]) -> None:
    packet, page_size = drawn
    data = wire.pack(packet, 524288 // page_size)
    assert len(data) == wire.header_size(524288 // page_size)
    back = wire.unpack(data, page_size)
    assert back == packet
    assert np.array_equal(back.normal, packet.offsets[: packet.normal_pages])
    assert np.array_equal(back.zero, packet.offsets[packet.normal_pages :])
    assert back.payload_size == (packet.next_packet_size if packet.normal_pages else 0)


@given(st.uuids(), st.integers(0, 255))
def test_any_opening_comes_back(uuid: UUID, channel: int) -> None:
    packet = wire.InitialPacket(uuid, channel)
    assert wire.unpack_initial(wire.pack_initial(packet)) == packet


@given(st.sampled_from([0x40, 0x41]), texts(), U32, U32)
def test_any_packet_of_device_state_comes_back(flags: int, idstr: str, instance: int, size: int) -> None:
    packet = wire.DeviceStatePacket(flags, idstr, instance, size)
    assert wire.unpack_device_state(wire.pack_device_state(packet)) == packet


@given(st.binary(min_size=HEADER - 8, max_size=HEADER - 8), st.booleans())
def test_any_other_header_is_an_error_with_a_field(data: bytes, headed: bool) -> None:
    head = struct.pack(">II", 0x11223344, 1) if headed else data[:8]
    try:
        packet = wire.unpack(head + data, PAGE)
    except MultiFDError as error:
        assert error.field is not None  # noqa: PT017
    else:
        assert packet.normal_pages + packet.zero_pages <= packet.pages_alloc <= COUNT


# ---- Limits -----------------------------------------------------------------------------------------------------

ACCEPTED: list[dict[str, Any]] = [
    {"pages_alloc": 128},
    {"pages_alloc": 3},
    {"normal_pages": 128, "zero_pages": 0, "next_packet_size": 128 * 5, "offsets": pages(128)},
    {"normal_pages": 0, "zero_pages": 128, "offsets": pages(128)},
    {"normal_pages": 127, "zero_pages": 1, "next_packet_size": 9999, "offsets": pages(128)},
    {"normal_pages": 0, "next_packet_size": 2**32 - 1},
    {"ramblock": b"n" * 255},
    {"ramblock": "né".encode()},
    {"flags": 0x21},
    {"offsets": [2**64 - PAGE, 0, PAGE]},
    {"offsets": [3 * PAGE, 2 * PAGE, PAGE]},
    *({"flags": flags, "next_packet_size": 2 * PAGE} for flags in METHOD_FLAGS),
    {"flags": 8, "next_packet_size": 2 * 5},
    {"flags": 8, "next_packet_size": 2 * (4 + PAGE)},
    {"flags": 2, "next_packet_size": 1},
    {"flags": 4, "next_packet_size": 2 * PAGE + wire.STREAM_SLACK},
]


@pytest.mark.parametrize("change", ACCEPTED, ids=str)
def test_a_packet_at_a_limit_is_accepted(change: dict[str, Any]) -> None:
    wire.unpack(golden(**change), PAGE)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("magic", {"magic": 0x11223345}),
    ("version", {"version": 0}),
    ("version", {"version": 2}),
    ("flags", {"flags": 0x80}),
    ("flags", {"flags": 0x8000_0008}),
    ("flags", {"flags": 0x0A}),
    ("flags", {"flags": 0x3E}),
    ("pages_alloc", {"pages_alloc": 129}),
    ("pages_alloc", {"pages_alloc": 2**32 - 1}),
    ("normal_pages", {"pages_alloc": 1}),
    ("normal_pages", {"normal_pages": 129}),
    ("normal_pages", {"normal_pages": 2**32 - 1}),
    ("zero_pages", {"pages_alloc": 2}),
    ("zero_pages", {"zero_pages": 127}),
    ("zero_pages", {"zero_pages": 2**32 - 1}),
    ("next_packet_size", {"flags": 0, "next_packet_size": 2 * PAGE - 1}),
    ("next_packet_size", {"flags": 0, "next_packet_size": 2 * PAGE + 1}),
    ("next_packet_size", {"flags": 8, "next_packet_size": 2 * 5 - 1}),
    ("next_packet_size", {"flags": 8, "next_packet_size": 2 * (4 + PAGE) + 1}),
    ("next_packet_size", {"flags": 2, "next_packet_size": 0}),
    ("next_packet_size", {"flags": 2, "next_packet_size": 2 * PAGE + wire.STREAM_SLACK + 1}),
    ("next_packet_size", {"flags": 4, "next_packet_size": 2**32 - 1}),
    ("ramblock", {"ramblock": NO_END}),
    ("ramblock", {"ramblock": b"\xff"}),
    ("offset", {"offsets": [1, 0, PAGE]}),
    ("offset", {"offsets": [0, PAGE, PAGE + 2048]}),
    ("offset", {"offsets": [2**64 - 1, 0, PAGE]}),
    ("offset", {"offsets": [PAGE, PAGE, 0]}),
    ("offset", {"offsets": [PAGE, 0, PAGE]}),
]


@pytest.mark.parametrize(("field", "change"), REFUSED, ids=str)
def test_a_packet_beyond_a_limit_is_an_error_that_names_the_field(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(MultiFDError) as caught:
        wire.unpack(golden(**change), PAGE)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_offsets_behind_the_last_page_are_not_looked_at() -> None:
    packet = wire.unpack(golden(offsets=[0, PAGE, 2 * PAGE, 0, 1, 1]), PAGE)
    assert packet.offsets.tolist() == [0, PAGE, 2 * PAGE]


@pytest.mark.parametrize(
    ("offsets", "usual"),
    [
        ([], True),
        ([0], True),
        ([PAGE - 1], False),
        ([0, PAGE, 7 * PAGE, 2**64 - PAGE], True),
        ([0, PAGE, PAGE], False),
        ([PAGE, 0], False),
        ([0, PAGE + 1, 2 * PAGE], False),
        ([0, 2**63 + PAGE // 2], False),
    ],
)
def test_offsets_are_read_and_those_that_ascend_by_whole_pages_are_told_from_others(
    offsets: list[int], usual: bool
) -> None:
    read = np.empty(len(offsets), np.uint64)
    assert read_offsets(struct.pack(f">{len(offsets)}Q", *offsets) + b"more", read, PAGE) is usual
    assert read.tolist() == offsets


def test_fewer_bytes_than_the_offsets_have_are_an_error() -> None:
    with pytest.raises(ValueError, match="data has 23 bytes; 3 offsets have 24"):
        read_offsets(bytes(23), np.empty(3, np.uint64), PAGE)


@pytest.mark.parametrize(
    ("field", "change"),
    [("magic", {"magic": 0}), ("version", {"version": 2}), ("flags", {"flags": 0xC0}), ("idstr", {"idstr": NO_END})],
)
def test_a_packet_of_device_state_that_is_wrong_is_an_error(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(MultiFDError) as caught:
        wire.unpack_device_state(golden_device_state(**change))
    assert caught.value.field == field


@pytest.mark.parametrize(("at", "field"), [(0, "magic"), (4, "version")])
def test_an_opening_that_is_wrong_is_an_error(at: int, field: str) -> None:
    opening = bytearray(wire.pack_initial(wire.InitialPacket(UUID(int=0), 0)))
    struct.pack_into(">I", opening, at, 2)
    with pytest.raises(MultiFDError) as caught:
        wire.unpack_initial(opening)
    assert caught.value.field == field


# The format has no byte for them: packing must not cut a name, or write a header of another size.
@pytest.mark.parametrize("name", ["n" * 256, "é" * 128, "a\0b"])
def test_a_name_that_would_not_come_back_cannot_be_packed(name: str) -> None:
    with pytest.raises(ValueError, match=r"name|ramblock|256"):
        wire.pack(wire.Packet(0, 0, 0, 0, 0, ramblock=name), COUNT)


def test_more_pages_than_a_header_has_room_for_cannot_be_packed() -> None:
    offsets = np.arange(129, dtype=np.uint64) * np.uint64(PAGE)
    with pytest.raises(ValueError, match="129"):
        wire.pack(wire.Packet(0, 128, 0, 0, 0, 129, "r", offsets), COUNT)


# ---- Where it happened ------------------------------------------------------------------------------------------


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, RecvChannel]]:
    """Yield a socket for a channel's bytes, and the channel."""
    ours, theirs = socket.socketpair()
    connection = Connection(theirs, "the source")
    channel = RecvChannel(connection, 5, PAGE)
    yield ours, channel
    channel.close()
    ours.close()
    connection.close()


@pytest.mark.parametrize("before", [0, 1, 3])
def test_an_error_names_channel_and_packet(ends: tuple[socket.socket, RecvChannel], before: int) -> None:
    source, channel = ends
    source.sendall(golden(normal_pages=0) * before + golden(pages_alloc=129))
    for _ in range(before):
        assert channel.read() is not None
    with pytest.raises(MultiFDError) as caught:
        channel.read()
    channel.locate(caught.value)
    assert (caught.value.channel, caught.value.packet, caught.value.field) == (5, before, "pages_alloc")
    assert str(caught.value).startswith(f"channel 5, packet {before}: pages_alloc: 129 is more")


@pytest.mark.parametrize("kind", ["pages", "device state"])
@pytest.mark.parametrize("size", [1, 4, 11, 12, 13, 63, 275])
def test_a_header_that_is_cut_is_an_error(ends: tuple[socket.socket, RecvChannel], kind: str, size: int) -> None:
    source, channel = ends
    source.sendall((golden() if kind == "pages" else golden_device_state())[:size])
    source.shutdown(socket.SHUT_WR)
    with pytest.raises(PeerClosedError, match=r"the source ended; .* bytes were missing") as caught:
        channel.read()
    channel.locate(caught.value)
    assert caught.value.channel == 5


def test_an_end_before_a_header_is_the_end(ends: tuple[socket.socket, RecvChannel]) -> None:
    source, channel = ends
    source.sendall(golden(normal_pages=0) + golden_device_state())
    source.shutdown(socket.SHUT_WR)
    assert isinstance(channel.read(), wire.Packet)
    assert isinstance(channel.read(), wire.DeviceStatePacket)
    assert channel.read() is None


def test_what_is_known_of_the_place_of_an_error_is_kept() -> None:
    error = MultiFDError("wrong", field="flags", channel="main")
    error.locate(3, 4)
    assert (error.channel, error.packet) == ("main", 4)
    assert str(error) == "main channel, packet 4: flags: wrong"
