"""Causes of errors, by which a service counts its failures."""

from __future__ import annotations

import errno
import io
import re
import socket
import struct
import threading
from collections.abc import Callable

import pytest
from handmade import header, u32

from numcodecs_qpl.multifd.errors import (
    DeviceError,
    MultiFDError,
    NoAnswerError,
    OutcomeUnknownError,
    PeerClosedError,
    SettingsError,
    UnreachableError,
    cause_of,
)
from numcodecs_qpl.multifd.hooks import RecvParams, check_method
from numcodecs_qpl.multifd.stream import wire
from numcodecs_qpl.multifd.stream.opening import read_opening
from numcodecs_qpl.multifd.stream.savevm import SavevmReader
from numcodecs_qpl.multifd.threads import NoThreadError, start
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.connecting import connect
from numcodecs_qpl.multifd.transport.connection import Connection


def read_stream(stream: bytes) -> None:
    read_opening(SavevmReader(io.BufferedReader(io.BytesIO(stream)), 4096))


def another_page_size() -> None:
    wire.unpack(header(normal=[0], pages_alloc=32, flags=8, next_packet_size=100), 4096)


def another_method() -> None:
    check_method(RecvParams(0, lambda views: None, flags=2), 8)


def postcopy() -> None:
    read_stream(u32(3) + b"\x08" + struct.pack(">HHQQ", 3, 16, 4096, 4096))


def guest_of_large_pages() -> None:
    configuration = b"\x07" + u32(1) + b"m" + b"\x05"
    name = b"configuration/target-page-bits"
    read_stream(u32(3) + configuration + bytes([len(name)]) + name + u32(1) + u32(16))


def junk() -> None:
    wire.unpack_initial(bytes(64))


def nobody_there() -> None:
    connect(Address("unix", path="/nowhere/s"))


def closed() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        Connection(ours, "peer").read_into([memoryview(bytearray(4))])


def closed_in_the_opening() -> None:
    read_stream(u32(3) + b"\x08\0")


class DeadLink(socket.socket):
    """A socket whose link has died."""

    def recv_into(self, *arguments: object) -> int:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")


def dead_link() -> None:
    with DeadLink(socket.AF_UNIX) as sock:
        Connection(sock, "peer").read_some(memoryview(bytearray(4)))


def no_thread() -> None:
    thread = threading.Thread()
    thread.start()
    start(thread)  # Thread.start raises what it raises where the system has no room


@pytest.mark.parametrize(
    ("fail", "kind", "cause"),
    [
        (junk, MultiFDError, "protocol"),
        (another_page_size, SettingsError, "settings"),
        (another_method, SettingsError, "settings"),
        (postcopy, SettingsError, "settings"),
        (guest_of_large_pages, SettingsError, "settings"),
        (nobody_there, UnreachableError, "unreachable"),
        (closed, PeerClosedError, "connection"),
        (closed_in_the_opening, PeerClosedError, "connection"),
        (dead_link, NoAnswerError, "no_answer"),
        (no_thread, NoThreadError, "resources"),
    ],
)
def test_an_error_has_the_cause_of_what_went_wrong(
    fail: Callable[[], None], kind: type[MultiFDError], cause: str
) -> None:
    with pytest.raises(MultiFDError) as caught:
        fail()
    assert type(caught.value) is kind
    assert cause_of(caught.value) == cause


def test_other_causes() -> None:
    assert cause_of(OutcomeUnknownError("the destination does not answer")) == "no_answer"
    assert cause_of(DeviceError("the device failed")) == "device"
    assert cause_of(KeyError("a fault of ours")) == "internal"


def test_causes_are_few_words_that_prometheus_takes_as_they_are() -> None:
    kinds = [MultiFDError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.cause for kind in kinds} == {
        "protocol",
        "settings",
        "device",
        "unreachable",
        "connection",
        "no_answer",
        "refused",
        "resources",
        "stopped",
    }
    assert all(re.fullmatch("[a-z_]+", kind.cause) for kind in kinds)
