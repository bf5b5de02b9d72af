"""The receiver, given fields that are wrong: each is an error that says where, or does no harm."""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any, NamedTuple

import pytest
import zstandard
from handmade import (
    CONTINUE,
    DESCRIPTION,
    DEVICE_STATE,
    HEADER,
    MEM_SIZE,
    METHODS,
    PAGE,
    PAGE_RECORD,
    PAGES,
    ZERO,
    Migration,
    bounded_memory,
    device_state,
    early_device,
    failure,
    header,
    named,
    run,
    u32,
    u64,
)

from numcodecs_qpl.multifd import MultiFDError

pytestmark = pytest.mark.timeout(300)


# ---- Fields of a packet -----------------------------------------------------------------------------------------


TOP = 2**32 - 1
LAST = (PAGES - 1) * PAGE
OTHERS = [page * PAGE for page in (130, 131, 129, 132, 133)]
DAMAGED = 1  # the packet of channel 1 that is changed: pages 128, 130, 131 and, all zeros, 129, 132, 133


@pytest.mark.parametrize(
    ("field", "value", "blamed"),
    [
        *[("magic", value, "magic") for value in (0, 0x11223345, TOP)],
        *[("version", value, "version") for value in (0, 2, TOP)],
        *[
            ("flags", value, "flags")
            for value in (0x80, 0x06, 0x0C, 0x3E, 0x10, 0x20, 1 << 31, TOP, TOP - DEVICE_STATE)
        ],
        *[("pages_alloc", value, "pages_alloc") for value in (129, TOP)],
        *[("pages_alloc", value, "normal_pages") for value in (0, 2)],
        *[("pages_alloc", value, "zero_pages") for value in (3, 5)],
        *[("normal_pages", value, "normal_pages") for value in (129, 1 << 31, TOP)],
        *[("zero_pages", value, "zero_pages") for value in (126, TOP - 2, TOP)],
        *[("next_packet_size", value, "next_packet_size") for value in (0, 3 * PAGE + 1025, 1 << 31, TOP)],
        *[("ramblock", value, "ramblock") for value in (b"", b"n", b"m" * 256, b"\xff", b"M")],
        *[
            ("offsets", [value, *OTHERS], "offset")
            for value in (1, LAST + 1, LAST + PAGE, 1 << 32, 2**63, 2**64 - PAGE, 2**64 - 1)
        ],
        ("offsets", [130 * PAGE, *OTHERS], "offset"),
        ("offsets", [128 * PAGE, *OTHERS[:-1], 130 * PAGE], "offset"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_field_is_an_error_that_names_channel_packet_and_field(
    method: str, field: str, value: Any, blamed: str
) -> None:
    error = failure(changed(Migration(method), **{field: value}))
    assert (error.channel, error.packet, error.field) == (1, DAMAGED, blamed)
    assert str(error).startswith(f"channel 1, packet {DAMAGED}: {blamed}: ")


def changed(source: Migration, payload: bytes | None = None, **change: Any) -> list[bytes]:
    """The connections, with fields of one packet changed, or its payload and its size."""
    packet = source.channels[1].packets[DAMAGED]
    whole = packet.payload if payload is None else payload
    fields = {"flags": METHODS[source.method], "next_packet_size": len(whole), "packet_num": 4, **change}
    head = header(normal=[128, 130, 131], zero=[129, 132, 133], **fields)
    main, first, second = source.connections
    return [main, first, second[: packet.start] + head + whole + second[packet.start + HEADER + len(packet.payload) :]]


@pytest.mark.parametrize(
    "change", [{}, {"pages_alloc": 6}, {"ramblock": b"m\0rest"}, {"ramblock": b"m" + b"\0\xff" * 9}]
)
@pytest.mark.parametrize("method", METHODS)
def test_a_field_at_its_limit_is_no_error(method: str, change: dict[str, Any]) -> None:
    source = Migration(method)
    assert run(changed(source, **change)).blocks == {"m": source.ram}


@pytest.mark.parametrize("method", METHODS)
def test_the_last_page_of_a_block_is_within_it(method: str) -> None:
    source = Migration(method)
    ram = run(changed(source, offsets=[LAST, *OTHERS])).blocks["m"]
    assert ram[LAST:] == source.channels[1].packets[DAMAGED].normal[128]
    assert ram[:LAST] == source.ram[:LAST]


@pytest.mark.parametrize(("method", "size"), [("none", 3 * PAGE - 1), ("qpl", 14), ("qpl", 3 * PAGE + 13)])
def test_a_payload_that_no_such_pages_can_have_is_an_error(method: str, size: int) -> None:
    error = failure(changed(Migration(method), next_packet_size=size))
    assert (error.channel, error.packet, error.field) == (1, DAMAGED, "next_packet_size")


@pytest.mark.parametrize("other", METHODS)
@pytest.mark.parametrize("method", METHODS)
def test_a_packet_of_another_method_is_an_error(method: str, other: str) -> None:
    source = Migration(method)
    packet = source.channels[1].packets[DAMAGED + 1]
    main, first, second = source.connections
    at = packet.start + 8
    connections = [main, first, second[:at] + u32(METHODS[other]) + second[at + 4 :]]
    if method == other:
        assert run(connections).blocks == {"m": source.ram}
    else:
        error = failure(connections)
        assert (error.channel, error.packet, error.field) == (1, DAMAGED + 1, "flags")


def test_channels_of_different_methods_are_an_error() -> None:
    error = failure([*Migration("none").connections[:2], Migration("qpl").connections[2]])
    assert error.field == "flags"
    assert "the channels have different methods: none, qpl" in str(error)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("number", [2**64 - 1, 1000])
def test_a_packet_that_is_missing_is_seen_where_qemu_is_known_to_leave_it_out(method: str, number: int) -> None:
    source = Migration(method)
    outcome = run(changed(source, packet_num=number))
    if method == "qpl":
        assert isinstance(outcome.error, MultiFDError)
        assert outcome.error.field == "packet_num"
        assert "QEMU 9.1.0 and 9.2.0" in str(outcome.error)
    else:
        assert outcome.blocks == {"m": source.ram}


@pytest.mark.parametrize("method", METHODS)
def test_a_packet_of_pages_that_says_it_is_device_state_is_an_error(method: str) -> None:
    error = failure(changed(Migration(method), flags=DEVICE_STATE))
    assert (error.channel, error.packet, error.field) == (1, DAMAGED + 1, "magic")


@pytest.mark.parametrize(
    ("state", "blamed"),
    [
        (device_state(b"v" * 256, b""), "idstr"),
        (device_state(b"\xff", b""), "idstr"),
        (device_state(b"vfio", b"", flags=DEVICE_STATE | 0x80), "flags"),
        (device_state(b"vfio", b"state", size=4), "magic"),
    ],
)
def test_a_wrong_packet_of_device_state_is_an_error_that_names_the_field(state: bytes, blamed: str) -> None:
    main, first, second = Migration("none").connections
    error = failure([main, first, second[:64] + state + second[64:]])
    assert (error.channel, error.field) == (1, blamed)


# ---- Payloads ---------------------------------------------------------------------------------------------------


def deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -12)
    return deflate.compress(data) + deflate.flush()


GOOD = deflated(bytes(PAGE))


@pytest.mark.parametrize(
    ("lengths", "streams"),
    [
        ([0, len(GOOD), len(GOOD)], [GOOD, GOOD]),
        ([PAGE + 1, len(GOOD), len(GOOD)], [GOOD, GOOD, GOOD]),
        ([TOP, 1, 1], [GOOD, GOOD, GOOD]),
        ([2**31, 2**31, 3 * len(GOOD)], [GOOD, GOOD, GOOD]),
        ([len(GOOD), len(GOOD), len(GOOD) - 1], [GOOD, GOOD, GOOD]),
        ([len(GOOD), len(GOOD), len(GOOD) + 1], [GOOD, GOOD, GOOD]),
        ([len(GOOD) + 1, len(GOOD) - 1, len(GOOD)], [GOOD, GOOD, GOOD]),
        ([len(GOOD), len(GOOD), 9], [GOOD, GOOD, b"\xff" * 9]),
        *[
            ([len(GOOD), len(bad), len(GOOD)], [GOOD, bad, GOOD])
            for bad in (
                deflated(bytes(PAGE - 1)),
                deflated(bytes(PAGE + 1)),
                deflated(bytes(100 * PAGE)),
                deflated(b""),
            )
        ],
        ([len(GOOD), len(GOOD) - 1, len(GOOD)], [GOOD, GOOD[:-1], GOOD]),
    ],
)
def test_a_wrong_payload_of_qpl_is_an_error(lengths: list[int], streams: list[bytes]) -> None:
    payload = b"".join([*map(u32, lengths), *streams])
    error = failure(changed(Migration("qpl"), payload))
    assert (error.channel, error.packet, error.field) == (1, DAMAGED, "payload")


def zlib_stream(data: bytes, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    stream = zlib.compressobj(9)
    return stream.compress(data) + stream.flush(mode)


def zstd_stream(data: bytes, mode: int = zstandard.COMPRESSOBJ_FLUSH_BLOCK) -> bytes:
    stream = zstandard.ZstdCompressor(level=1).compressobj()
    return stream.compress(data) + stream.flush(mode)


@pytest.mark.parametrize(
    ("method", "payload"),
    [
        ("zlib", zlib_stream(bytes(3 * PAGE - 1))),
        ("zlib", zlib_stream(bytes(3 * PAGE + 1))),
        ("zlib", zlib_stream(bytes(11 << 20))),
        ("zlib", zlib_stream(bytes(3 * PAGE), zlib.Z_FINISH)),
        ("zlib", zlib_stream(bytes(3 * PAGE))[:-8]),
        ("zlib", b"\xff" * 100),
        ("zstd", zstd_stream(bytes(3 * PAGE - 1))),
        ("zstd", zstd_stream(bytes(3 * PAGE + 1))),
        ("zstd", zstd_stream(bytes(100 << 20))),
        ("zstd", zstd_stream(bytes(3 * PAGE))[:-3]),
        ("zstd", b"\xff" * 100),
    ],
)
def test_a_wrong_payload_of_a_stream_is_an_error_and_takes_no_memory(method: str, payload: bytes) -> None:
    connections = changed(Migration(method), payload)
    with bounded_memory():
        error = failure(connections)
    assert (error.channel, error.packet, error.field) == (1, DAMAGED, "payload")


# ---- The main channel -------------------------------------------------------------------------------------------


LENGTH = PAGES * PAGE


class Wrong(NamedTuple):
    """A part of the main channel and what stands there instead."""

    part: str
    value: bytes
    message: str


@pytest.mark.parametrize(
    "wrong",
    [
        *[Wrong("version", u32(version), "version: .*; expected 3") for version in (0, 2, 4, TOP)],
        *[Wrong("configuration", bytes([kind]), "a section of type 0x") for kind in (0, 5, 6, 0x7E, 0xFF)],
        *[Wrong("configuration", bytes([kind]), "has not been started") for kind in (2, 3)],
        *[Wrong("machine length", u32(size), f"a length of {size}; expected at most 256") for size in (257, TOP)],
        Wrong(
            "machine", b"pc-q35\x05" + named(b"configuration/x") + u32(1), "has an unknown subsection 'configuration/x'"
        ),
        Wrong("machine", b"pc-q35\x05" + named(b"configuration/capabilities") + u32(1) + u32(TOP), "a length of"),
        Wrong("return path", b"\x08" + struct.pack(">HH", 3, 16) + bytes(16), "the source has postcopy-ram turned on"),
        *[
            Wrong("return path", b"\x08" + struct.pack(">HH", number, 0), f"the source has {name} turned on")
            for numbers, name in (((4, 5, 6, 7, 9, 10), "postcopy-ram"), ((8,), "x-colo"))
            for number in numbers
        ],
        *[Wrong("start", bytes([kind]), "a section of type 0x") for kind in (0, 6, 0xFF)],
        Wrong("start", b"\x04", "the device 'ram', version 4, comes before guest memory, and its length is not known"),
        Wrong("start", early_device(version=2), "the device '.*virtio-mem-device-early', version 2, comes before"),
        Wrong("start", early_device(name=b"x-virtio-mem-device-early"), "the device 'x-.*', version 1, comes before"),
        *[
            Wrong("start", early_device(region=region, block=block), f"has {region} bytes in blocks of {block}: the st")
            for region, block in ((0, 1), (1, 0), (2**64 - 1, 1), (2**27 + 1, 1))
        ],
        Wrong("start", early_device(region=2**27, block=1)[:-7], "the source ended"),
        Wrong("start", early_device(footer=8), "the footer of section 8 follows section 7"),
        Wrong("start name", named(b"block"), "section 'block', version 4, cannot be followed"),
        Wrong("start name", named(b"\xff"), r"the name b'\\xff' is not UTF-8"),
        *[Wrong("start version", u32(version), "cannot be followed") for version in (0, 3, 5, TOP)],
        Wrong("mem size", u64(LENGTH + PAGE | MEM_SIZE), "used_length: RAM block"),
        Wrong("mem size", u64(LENGTH - PAGE | MEM_SIZE), "used_length: RAM block 'm' has"),
        Wrong("mem size", u64(2**64 - PAGE | MEM_SIZE), "RAM block"),
        Wrong("block name", named(b"m\xff"), "is not UTF-8"),
        Wrong("block name", named(b"m") + u64(PAGE) + named(b"m"), "RAM block 'm' comes twice|used_length"),
        *[Wrong("used_length", u64(size), "used_length: RAM block 'm' has") for size in (0, LENGTH + 1, 2**64 - 1)],
        Wrong("used_length", u64(LENGTH - 9) + named(b"n") + u64(9), "not a whole number of pages"),
        Wrong("used_length", u64(9) + named(b"n") + u64(LENGTH - 9), "not a whole number of pages"),
        *[
            Wrong("flush", u64(flags), f"flags {flags & 0xFFF:#x}, .*, cannot be followed")
            for flags in (0, 1, 6, 0x0A, 0x18, 0x40, 0x80, 0x100, 0x210, 0x400, 0xFFF, 2**64 - 1)
        ],
        Wrong("flush", u64(CONTINUE | PAGE_RECORD), "a page is in the RAM block named last, but none was named"),
        Wrong("flush", u64(CONTINUE | ZERO), "a page is in the RAM block named last, but none was named"),
        *[Wrong("footer id", u32(section), "the footer of section") for section in (0, 1, 3, TOP)],
        *[Wrong("part id", u32(section), "has not been started") for section in (0, 3, TOP)],
        *[Wrong("end id", u32(section), "has not been started") for section in (0, 3, TOP)],
        Wrong("part", b"\x01", "section '.*', version .*, cannot be followed|ended"),
        Wrong("part", b"\x04", "the device '.*', version .*, comes before guest memory|ended|is not UTF-8"),
        Wrong("end", b"\x04", "the device '.*', version .*, comes before guest memory|ended|is not UTF-8"),
        *[Wrong("page", u64(at | PAGE_RECORD), "offset: .* is beyond") for at in (LENGTH, 2**63, 2**64 - PAGE)],
        *[Wrong("fill", u64(at | ZERO | CONTINUE), "offset: .* is beyond") for at in (LENGTH, 2**64 - PAGE)],
        *[Wrong("page block", named(name), "ramblock: unknown RAM block") for name in (b"", b"n", b"m\0", b"x" * 255)],
        Wrong("page block", named(b"\xc3"), "is not UTF-8"),
        Wrong("eof", b"\x01", "before the description of the device state"),
        Wrong("description", b"\x05", "before the description of the device state"),
        *[
            Wrong("description length", u32(len(DESCRIPTION) + more), "before the description of the device state")
            for more in (-1, 1, -len(DESCRIPTION), 2**31)
        ],
        *[
            Wrong(
                "description text",
                text.ljust(len(DESCRIPTION) - 1) + b"}",
                "before the description of the device state",
            )
            for text in (b"", b"{", b'{"devices": 1', b'{"devices": [1]', b'{"devices": [{}]', b'["devices"', b"\xff{")
        ],
        Wrong("description text", DESCRIPTION + b"x", "before the description|more bytes follow the description"),
    ],
    ids=lambda wrong: f"{wrong.part}-{wrong.value[:12].hex()}",
)
def test_a_wrong_record_on_the_main_channel_is_an_error_that_says_so(wrong: Wrong) -> None:
    source = Migration("none")
    source.main[wrong.part] = wrong.value
    error = failure(source.connections)
    assert error.channel == "main"
    assert re.search(f"main channel: .*({wrong.message})", str(error)), str(error)
    assert error.field is None or f"{error.field}: " in wrong.message or error.field == "used_length"


@pytest.mark.parametrize("name", [b"n", b"", b"m\0", b"x" * 200])
def test_pages_in_a_block_that_is_not_there_are_an_error(name: bytes) -> None:
    source = Migration("none")
    source.main["block name"] = named(name)
    error = failure(source.connections)
    assert error.field == "ramblock"
    assert "unknown RAM block 'm'" in str(error)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_a_description_that_is_nested_deeply_is_an_error(depth: int) -> None:
    source = Migration("none")
    text = b'{"devices": ' + b"[" * depth + b"]" * depth + b"}"
    source.main["description length"], source.main["description text"] = u32(len(text)), text
    assert "before the description of the device state" in str(failure(source.connections))
