"""PROXY headers."""

from __future__ import annotations

import io
import struct

import pytest

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.stream import proxy

ID = bytes(range(16))
FIELD = b"\x05\x00\x10" + ID


def header(fields: bytes, *, command: int = 0x21, family: int = 0x00, size: int | None = None) -> bytes:
    return proxy.SIGNATURE + struct.pack(">BBH", command, family, len(fields) if size is None else size) + fields


def read(data: bytes) -> bytes:
    stream = io.BytesIO(data + b"QEVM")
    found = proxy.read_unique_id(stream.read)
    assert stream.read() == b"QEVM"
    return found


def test_a_header_is_as_the_protocol_has_it() -> None:
    assert proxy.pack(ID) == header(FIELD)
    assert len(proxy.pack(ID)) == 35


@pytest.mark.parametrize(("family", "size"), [(0x00, 0), (0x11, 12), (0x21, 36), (0x31, 216)])
def test_addresses_are_skipped(family: int, size: int) -> None:
    assert read(header(bytes(size) + FIELD, family=family)) == ID


def test_other_fields_are_skipped() -> None:
    assert read(header(b"\x03\x00\x04\x01\x02\x03\x04" + FIELD + b"\x04\x00\x01\x00")) == ID


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"\x05",
        b"\x05\x00\x00",
        b"\x05\x00\x81" + bytes(129),
        b"\x05\x00\x20" + ID,
        b"\x05\xff\xff" + ID,
        b"\x02\x00\x10" + ID,
    ],
    ids=["nothing", "a part of a field", "empty", "too long", "cut off", "far too long", "another field"],
)
def test_a_header_without_a_usable_unique_id_is_refused(fields: bytes) -> None:
    with pytest.raises(MultiFDError, match=r"^PROXY header: it has no unique id, which tells migrations apart; "):
        read(header(fields))


@pytest.mark.parametrize(
    "data",
    [
        header(FIELD, command=0x20),
        header(FIELD, command=0x11),
        header(FIELD, family=0x41),
        header(b"", size=537),
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
    ],
    ids=["command LOCAL", "version 1 in the format of 2", "unknown family", "too long", "version 1"],
)
def test_another_header_is_refused(data: bytes) -> None:
    with pytest.raises(MultiFDError, match=r"^PROXY header: 0x[0-9a-f]{32}; expected the signature 0x0d0a0d0a000d0a51"):
        read(data)
