"""The parts of the main channel that the relay reads: its opening, and the destination's confirmation."""

from __future__ import annotations

import io
import struct

import pytest
from handmade import named, u32

from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.stream.opening import read_opening
from numcodecs_qpl.multifd.stream.returnpath import PONG, SHUT, Confirmation, message
from numcodecs_qpl.multifd.stream.savevm import SavevmReader

VERSION = u32(3)
CONFIGURATION = b"\x07" + u32(6) + b"pc-q35"
RETURN_PATH = b"\x08" + struct.pack(">HH", 1, 0)
PING = b"\x08" + struct.pack(">HHI", 2, 4, 1)
POSTCOPY = b"\x08" + struct.pack(">HHQQ", 3, 16, 4096, 4096)
RAM = b"\x01" + u32(2) + named(b"ram")


def opening(stream: bytes) -> tuple[bool | None, bytes]:
    """The return path, and what comes after the opening."""
    buffered = io.BufferedReader(io.BytesIO(stream))
    return read_opening(SavevmReader(buffered, 4096)).return_path, buffered.read()


@pytest.mark.parametrize(
    ("before", "return_path"),
    [
        (b"", False),
        (CONFIGURATION, False),
        (CONFIGURATION + PING, False),
        (CONFIGURATION + RETURN_PATH + PING, True),
        (CONFIGURATION + b"\x08" + struct.pack(">HH", 3, 0) + RETURN_PATH, True),
        (RETURN_PATH, True),
        (CONFIGURATION + b"\x05" + named(b"configuration/uuid") + u32(1) + bytes(16) + RETURN_PATH, True),
        (
            CONFIGURATION + b"\x05" + named(b"configuration/capabilities") + u32(1) + u32(1) + named(b"mapped-ram"),
            False,
        ),
    ],
    ids=["nothing", "configuration", "ping", "all", "dirty bitmaps", "old machine", "uuid", "capabilities"],
)
def test_the_return_path_is_found_and_the_opening_ends_before_guest_memory(
    before: bytes, return_path: bool | None
) -> None:
    assert opening(VERSION + before + RAM) == (return_path, RAM)


def test_whether_there_is_a_return_path_is_not_known_after_an_unknown_part() -> None:
    unknown = CONFIGURATION + b"\x05" + named(b"configuration/new") + u32(1) + bytes(40) + RETURN_PATH
    assert opening(VERSION + unknown + RAM)[0] is None


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (u32(4), "version: 4; expected 3"),
        (VERSION + CONFIGURATION[:-1], "the source ended before the end of the migration; 1 of 6 bytes were missing"),
        (VERSION + CONFIGURATION + RETURN_PATH + POSTCOPY, "has postcopy-ram turned on"),
        (VERSION + CONFIGURATION + b"\x08" + struct.pack(">HH", 8, 0), "turn x-colo off in both QEMUs"),
        (
            VERSION + CONFIGURATION + b"\x05" + named(b"configuration/target-page-bits") + u32(1) + u32(14),
            r"the guest's pages have 2\*\*14 bytes; expected 4096: set --page-size",
        ),
    ],
    ids=["version", "cut", "postcopy", "COLO", "page size"],
)
def test_an_opening_that_cannot_be_relayed_is_an_error(stream: bytes, message: str) -> None:
    with pytest.raises(MultiFDError, match=message):
        opening(stream)


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("messages", "came"),
    [
        (message(PONG, bytes(4)), False),
        (message(PONG, bytes(4)) + message(SHUT, bytes(4)), True),
        (message(SHUT, bytes(4))[:-1], False),
        (message(SHUT, u32(1)), False),
        (message(SHUT), False),
        (message(PONG, message(SHUT, bytes(4))), False),
    ],
    ids=["pong", "all is well", "cut", "failure", "no status", "within another message"],
)
def test_only_the_message_that_all_is_well_is_a_confirmation(messages: bytes, came: bool, size: int) -> None:
    confirmation = Confirmation()
    for at in range(0, len(messages), size):
        confirmation.add(messages[at : at + size])
    assert confirmation.came is came
