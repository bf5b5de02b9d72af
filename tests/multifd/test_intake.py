"""Taking connections, and turning away those that do not say what they are."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from commands import PATIENCE, wait_until
from handmade import initial
from tls_files import issue

from numcodecs_qpl.multifd.transport import intake
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.connecting import HANDSHAKE_SECONDS
from numcodecs_qpl.multifd.transport.intake import Arrival, Intake
from numcodecs_qpl.multifd.transport.listener import Listener
from numcodecs_qpl.multifd.transport.tlsfiles import TLSFiles


class Interrupted(threading.Event):
    """What `threading.Thread.start` waits for, if Ctrl-C comes between the thread's first steps and its saying so."""

    def wait(self, timeout: float | None = None) -> bool:
        super().wait(timeout)
        raise KeyboardInterrupt

    def is_set(self) -> bool:
        return False


def test_an_intake_whose_start_was_interrupted_can_be_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Arrival] = []
    refused: list[str] = []
    failures: list[Exception] = []
    intake = Intake(Listener(Address("unix", f"{folder}/s")), taken.append, refused.append, failures.append)
    monkeypatch.setattr(intake._thread, "_started", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        intake.start()
    intake.close()
    assert not (folder / "s").exists()
    assert (taken, refused, failures) == ([], [], [])


# ---- Strangers --------------------------------------------------------------------------------------------------


class RunningIntake:
    """An intake, what it took and what it refused."""

    def __init__(self, tls: TLSFiles | None = None) -> None:
        self.taken: list[Arrival] = []
        self.refused: list[str] = []
        self.failures: list[Exception] = []
        self.listener = Listener(Address("tls" if tls else "tcp", host="127.0.0.1"), tls)
        self.port = self.listener.address.port
        self._intake = Intake(self.listener, self.taken.append, self.refused.append, self.failures.append)
        self._sockets = contextlib.ExitStack()
        self._intake.start()

    def connect(self, said: bytes = b"") -> socket.socket:
        sock = self._sockets.enter_context(socket.create_connection(("127.0.0.1", self.port), PATIENCE))
        sock.sendall(said)
        return sock

    def close(self) -> None:
        self._sockets.close()
        self._intake.close()
        for arrival in self.taken:
            arrival.connection.close()


@pytest.fixture
def running() -> Iterator[RunningIntake]:
    opened = RunningIntake()
    yield opened
    opened.close()


@pytest.fixture
def tls(tmp_path: Path) -> TLSFiles:
    return replace(issue(tmp_path, trustme.CA()), verify_peer=False)


def drip(sock: socket.socket, content: bytes, pause: float = 0.05) -> float:
    """Send a byte now and then until the other side closes; returns how long it took."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        for byte in itertools.chain(content, itertools.repeat(0)):
            assert time.monotonic() - began < PATIENCE
            sock.send(bytes([byte]))
            time.sleep(pause)
    return time.monotonic() - began


HELLO = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03"  # a record of TLS that has room for many more bytes


def test_a_stranger_that_sends_a_byte_now_and_then_keeps_no_place(
    running: RunningIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "HANDSHAKE_SECONDS", 0.5)
    # The 64 bytes take 3.2 s, and each of them comes in good time.
    assert 0.4 < drip(running.connect(), initial(0)) < 2.5
    wait_until(lambda: running.refused, "the reason")
    assert running.refused == ["it has not identified itself within 0.5 s"]
    assert running.taken == []


def test_a_tls_handshake_that_goes_on_for_ever_keeps_no_place(tls: TLSFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "HANDSHAKE_SECONDS", 0.5)
    running = RunningIntake(tls)
    try:
        assert 0.4 < drip(running.connect(), HELLO) < 2.5
        wait_until(lambda: running.refused, "the reason")
        assert running.refused == ["it has not identified itself within 0.5 s"]
    finally:
        running.close()


def test_handshake_and_first_words_have_one_deadline(tls: TLSFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "HANDSHAKE_SECONDS", 3.0)
    running = RunningIntake(tls)
    context = ssl.create_default_context(cafile=tls.ca)
    try:
        began = time.monotonic()
        raw = running.connect()
        time.sleep(2)
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
            drip(sock, initial(0), 0.2)
        assert 2.5 < time.monotonic() - began < 5
        wait_until(lambda: running.refused, "the reason")
        assert running.refused == ["it has not identified itself within 3 s"]
    finally:
        running.close()


def test_who_was_taken_has_no_deadline_any_more(running: RunningIntake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "HANDSHAKE_SECONDS", 0.5)
    sock = running.connect(b"QEVM")
    wait_until(lambda: running.taken, "the main connection")
    drip(running.connect(), initial(0))  # until a deadline that came later is over
    sock.sendall(b"x")
    view = memoryview(bytearray(1))
    assert running.taken[0].connection.read_some(view) == 1
    assert bytes(view) == b"x"


@pytest.mark.parametrize("said", [b"G", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"QEMU", b"\x11\x22\x33\x45"])
def test_a_first_word_that_cannot_be_right_is_refused_at_once(running: RunningIntake, said: bytes) -> None:
    sock = running.connect(said)
    sock.settimeout(HANDSHAKE_SECONDS / 3)
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(1) == b""
    (reason,) = running.refused
    assert reason.startswith(f"magic: 0x{said[:4].hex()}; the main channel begins with 0x5145564d, a multifd channel")
    assert reason.endswith(": listen at tls:HOST:PORT, or turn off tls-creds in the source") == (said[0] == 0x16)


def test_a_new_connection_takes_the_place_of_the_oldest_that_says_nothing(
    running: RunningIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_STRANGERS", 4)
    oldest, *others = (running.connect() for _ in range(4))
    running.connect(b"QEVM")
    assert oldest.recv(1) == b""
    wait_until(lambda: running.taken and running.refused, "the main connection, and the reason")
    assert running.refused == ["4 connections have come after it, and it has not identified itself"]
    for channel, other in enumerate(others):
        other.sendall(initial(channel))
    wait_until(lambda: len(running.taken) == 4, "the others")


# ---- Resources --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_an_intake_that_has_no_descriptors_left_waits_and_goes_on(
    running: RunningIntake, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tries = itertools.count()

    def exhausted(timeout: float | None = None) -> socket.socket:
        next(tries)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(running.listener, "accept", exhausted)
        with contextlib.suppress(ConnectionResetError):
            running.connect(b"G").recv(1)  # wakes it from the accept that it was in
        time.sleep(1)
        assert 2 <= next(tries) <= 10
    running.connect(b"QEVM")
    wait_until(lambda: running.taken, "the main connection")
