"""End of a migration in a relay, and the relay's report, seen from a source and a destination in the test."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
import trustme
from commands import PATIENCE, free_port, relay, tls, wait_until
from handmade import DESCRIPTION, u32
from relays import RunningRelay, run_in_process
from streams import recording
from tls_files import issue

from numcodecs_qpl.multifd.errors import MultiFDError, OutcomeUnknownError
from numcodecs_qpl.multifd.mainrelay import NO_RETURN_PATH
from numcodecs_qpl.multifd.relay import LOOK_FOR_THE_GUEST, Relay, relay_one
from numcodecs_qpl.multifd.stream import wire
from numcodecs_qpl.multifd.stream.returnpath import PONG, SHUT, message
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.connection import UNIX_BUFFER
from numcodecs_qpl.multifd.transport.listener import Listener

IDLE = recording("qemu-11.0.92-none")
DIRTY = recording("qemu-11.0.92-none-dirty")
OPEN_RETURN_PATH = b"\x08" + struct.pack(">HH", 1, 0)
END = b"\x00\x06" + u32(len(DESCRIPTION)) + DESCRIPTION
CONFIRMATION = message(PONG, bytes(4)) + message(SHUT, bytes(4))


def main_channel(*, return_path: bool) -> bytes:
    """The shortest main channel that is whole."""
    return b"QEVM" + u32(3) + OPEN_RETURN_PATH * return_path + END


class Ends:
    """A source's connections to ``in`` and a destination that listens at ``end``, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(f"{folder}/end")
        self._server.listen(16)
        self._server.settimeout(PATIENCE)
        self._sockets = [self._server]

    def connect(self) -> socket.socket:
        """Open a connection of the source."""
        return self._keep(socket.socket(socket.AF_UNIX), f"{self._folder}/in")

    def accept(self) -> socket.socket:
        """Accept one at the destination."""
        return self._keep(self._server.accept()[0])

    def _keep(self, sock: socket.socket, path: str = "") -> socket.socket:
        self._sockets.append(sock)
        sock.settimeout(PATIENCE)
        if path:
            sock.connect(path)
        return sock

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@pytest.fixture
def ends(folder: Path) -> Iterator[Ends]:
    made = Ends(folder)
    yield made
    made.close()


def read(sock: socket.socket, size: int) -> bytes:
    """Read `size` bytes, or less if the stream ends."""
    content = b""
    while len(content) < size and (more := sock.recv(size - len(content))):
        content += more
    return content


def read_whole(sock: socket.socket) -> bytes:
    """All that comes until the stream ends or breaks."""
    content = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(1 << 16):
            content += more
    return bytes(content)


# ---- The verdict ----------------------------------------------------------------------------------------------


def test_a_source_without_a_return_path_is_a_warning_and_nothing_is_confirmed(folder: Path, ends: Ends) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl") as middle:
        source = ends.connect()
        source.sendall(main_channel(return_path=False))
        source.shutdown(socket.SHUT_WR)
        destination = ends.accept()
        assert read_whole(destination) == main_channel(return_path=False)
        destination.close()
        done = middle.finish()
    assert done.returncode == 0
    assert f"warning: {NO_RETURN_PATH}\n" in done.stderr
    assert '"ended": "complete"' in done.stdout
    assert '"return_path": false, "passed_on": true, "confirmed": false' in done.stdout


def test_a_destination_that_confirms_is_a_complete_migration(folder: Path, ends: Ends) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl") as middle:
        source = ends.connect()
        source.sendall(main_channel(return_path=True))
        destination = ends.accept()
        assert read(destination, len(main_channel(return_path=True))) == main_channel(return_path=True)
        destination.sendall(CONFIRMATION)
        destination.shutdown(socket.SHUT_WR)
        assert read_whole(source) == CONFIRMATION
        source.close()
        assert read_whole(destination) == b""
        done = middle.finish()
    assert done.returncode == 0
    assert NO_RETURN_PATH not in done.stderr
    assert '"return_path": true, "passed_on": true, "confirmed": true' in done.stdout


def test_what_breaks_after_the_confirmation_does_not_fail_the_migration(folder: Path, ends: Ends) -> None:
    middle = RunningRelay(folder, "none", "none")
    sources = [ends.connect() for _ in range(2)]
    sources[0].sendall(main_channel(return_path=True))
    sources[1].sendall(IDLE.channels[0][:64])
    main, channel = ends.accept(), ends.accept()
    assert read(main, len(main_channel(return_path=True))) == main_channel(return_path=True)
    main.sendall(CONFIRMATION)
    assert sources[0].recv(100) == CONFIRMATION
    channel.close()
    with contextlib.suppress(OSError):  # it is not read to its end
        sources[1].sendall(IDLE.channels[0][64:])
    for source in sources:
        source.close()
    main.close()
    assert middle.finish() == ""
    assert middle.relay.statistics()["confirmed"]


@pytest.mark.parametrize(
    ("size", "reply", "error"),
    [
        (-1, message(PONG, bytes(4)), "ended the main connection before the source had sent everything"),
        (0, message(PONG, bytes(4)), "ended the main connection and has not confirmed that it has loaded the guest"),
        (0, message(SHUT, u32(1)), "ended the main connection and has not confirmed that it has loaded the guest"),
    ],
    ids=["too early", "without a confirmation", "with a failure"],
)
def test_a_destination_that_ends_without_a_confirmation_has_refused(
    folder: Path, ends: Ends, size: int, reply: bytes, error: str
) -> None:
    whole = main_channel(return_path=True)
    content = whole[: len(whole) + size]
    middle = RunningRelay(folder, "none", "qpl")
    source = ends.connect()
    source.sendall(content)
    destination = ends.accept()
    wait_until(lambda: destination.recv(1000, socket.MSG_PEEK) == content, "all of it")
    destination.recv(1000)
    destination.sendall(reply)
    destination.close()
    assert f"main channel: unix:{folder}/end {error}; look at what the QEMU" in middle.finish()
    assert read_whole(source) == reply
    assert not middle.relay.statistics()["confirmed"]


def test_a_confirmation_that_comes_too_early_is_a_failure_and_is_not_passed_on(folder: Path, ends: Ends) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl") as middle:
        source = ends.connect()
        source.sendall(main_channel(return_path=True)[:-1])
        ends.accept().sendall(CONFIRMATION)
        assert read_whole(source) == b""
        status, line, said = middle.finish_relay()
    assert (status, line["ended"], line["passed_on"], line["confirmed"]) == (1, "failed", False, False)
    assert f"unix:{folder}/end confirmed that it has loaded the guest before the source had sent everything" in said


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_a_late_refusal_is_a_failure_for_the_relay_before_it_too(folder: Path, ends: Ends, kind: str) -> None:
    """Without a return path, and though the source has sent everything: the destination closes without reading it."""
    between = f"{kind}:127.0.0.1:{free_port()}"
    authority = trustme.CA()
    for name in ("here", "there"):
        issue(folder, authority, name)
    first, second = (tls(folder, name) if kind == "tls" else [] for name in ("here", "there"))
    with (
        relay(between, f"unix:{folder}/end", "none", "none", *second) as there,
        relay(f"unix:{folder}/in", between, "none", "none", *first) as here,
    ):
        source = ends.connect()
        source.sendall(main_channel(return_path=False))
        source.shutdown(socket.SHUT_WR)
        destination = ends.accept()
        whole = main_channel(return_path=False)
        wait_until(lambda: destination.recv(1000, socket.MSG_PEEK) == whole, "all of it")
        destination.close()
        for each in (there, here):
            status, line, said = each.finish_relay()
            assert (status, line["ended"]) == (1, "failed"), said
            assert "main channel: the connection to" in said


def test_a_destination_that_does_not_answer_after_everything_is_not_called_a_failure(folder: Path, ends: Ends) -> None:
    middle = Relay(Address("unix", f"{folder}/end"), "none", "qpl", timeout=0.5)
    runner, raised = run_in_process(partial(relay_one, middle, Listener(Address("unix", f"{folder}/in"))))
    runner.start()
    source = ends.connect()
    source.sendall(main_channel(return_path=True))
    runner.join(PATIENCE)
    assert isinstance(raised[0], OutcomeUnknownError)
    assert str(raised[0]).startswith("nothing passed for 0.5 s; ")
    assert str(raised[0]).endswith(LOOK_FOR_THE_GUEST)


def test_postcopy_is_refused_by_name_before_guest_memory(folder: Path, ends: Ends) -> None:
    advise = b"\x08" + struct.pack(">HHQQ", 3, 16, 4096, 4096)
    middle = RunningRelay(folder, "none", "qpl")
    source = ends.connect()
    source.sendall(b"QEVM" + u32(3) + OPEN_RETURN_PATH + advise)
    error = middle.finish()
    assert read_whole(source) == b""
    assert not middle.relay.statistics()["passed_on"]
    assert "main channel: the source has postcopy-ram turned on" in error
    assert "turn postcopy-ram off in both QEMUs (QMP migrate-set-capabilities) and migrate again" in error


# ---- What was taken is delivered ----------------------------------------------------------------------------------


def end_main(source: list[socket.socket], middle: Relay) -> None:
    source[0].close()


def break_main(source: list[socket.socket], middle: Relay) -> None:
    middle.fail(MultiFDError("as if this relay had failed by itself"))


@pytest.mark.parametrize("act", [end_main, break_main])
def test_what_the_source_has_sent_on_the_channels_is_delivered_when_the_migration_fails(
    folder: Path, ends: Ends, act: Callable[[list[socket.socket], Relay], None]
) -> None:
    """The destination does not read before the relay has failed, and the sockets have no room for all of it."""
    assert all(len(content) > 3 * UNIX_BUFFER for content in DIRTY.channels)
    middle = RunningRelay(folder, "none", "none")
    source = [ends.connect() for _ in DIRTY.connections]
    source[0].sendall(DIRTY.main[:500])

    def send(sock: socket.socket, content: bytes) -> None:
        sock.sendall(content)
        sock.shutdown(socket.SHUT_WR)

    senders = [threading.Thread(target=send, args=pair) for pair in zip(source[1:], DIRTY.channels, strict=True)]
    for sender in senders:
        sender.start()
    destination = [ends.accept() for _ in DIRTY.connections]
    time.sleep(0.2)
    act(source, middle.relay)
    wait_until(lambda: middle.relay._error is not None, "the failure")
    contents: dict[int, bytes] = {}
    readers = [
        threading.Thread(target=lambda at=at: contents.update({at: read_whole(destination[at])})) for at in (1, 2)
    ]
    for reader in readers:
        reader.start()
    for thread in (*readers, *senders):
        thread.join(PATIENCE)
    assert middle.finish()
    assert sorted(contents.values()) == sorted(DIRTY.channels)


def open_with_channels(ends: Ends, count: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """A source's main connection in mid-migration and `count` channels of it, and the same at the destination."""
    source = [ends.connect() for _ in range(1 + count)]
    source[0].sendall(IDLE.main[:500])
    for number, sock in enumerate(source[1:]):
        sock.sendall(wire.pack_initial(wire.InitialPacket(UUID(int=0), number)))
    destination = [ends.accept() for _ in source]
    for sock in destination[1:]:
        assert len(read(sock, wire.INITIAL_SIZE)) == wire.INITIAL_SIZE
    return source, destination


def test_channels_that_the_source_does_not_read_are_ended_within_one_second_all_together(
    folder: Path, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.relay.DELIVERY_SECONDS", 0.1)
    middle = RunningRelay(folder, "none", "none")
    source, destination = open_with_channels(ends, 4)
    for sock in destination[1:]:
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while True:
                sock.sendall(bytes(UNIX_BUFFER))
    source[0].close()
    started = time.monotonic()
    error = middle.finish()
    assert time.monotonic() - started < 2.5
    assert "the source ended before the description of the device state" in error


def test_a_signal_after_a_failure_changes_neither_the_verdict_nor_the_delivery(folder: Path, ends: Ends) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "none") as middle:
        source, destination = open_with_channels(ends, 1)
        source[0].close()
        assert read_whole(destination[0]) == IDLE.main[:500]
        middle.signal(signal.SIGTERM)
        time.sleep(0.5)
        header = wire.pack_device_state(wire.DeviceStatePacket(wire.FLAG_DEVICE_STATE, "device", 0, 0))
        source[1].sendall(header)
        source[1].close()
        assert read_whole(destination[1]) == header
        status, line, said = middle.finish_relay()
    assert (status, line["ended"]) == (1, "failed")
    assert "the source ended before the description of the device state" in said


def test_a_source_that_goes_on_sending_is_ended_after_the_time_for_delivery(
    folder: Path, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.relay.DELIVERY_SECONDS", 0.5)
    middle = RunningRelay(folder, "none", "none")
    source = [ends.connect() for _ in range(2)]
    source[0].sendall(IDLE.main[:500])
    source[1].sendall(IDLE.channels[0][:64])
    destination = [ends.accept() for _ in range(2)]
    assert read(destination[1], 64) == IDLE.channels[0][:64]
    source[0].close()
    started = time.monotonic()
    assert read_whole(destination[1]) == b""
    error = middle.finish()
    assert 0.4 < time.monotonic() - started < 4
    assert read_whole(source[1]) == b""
    assert "the source ended before the description of the device state" in error


# ---- The source closes its channels first -------------------------------------------------------------------------


def send_more_than_buffers_hold(sock: socket.socket) -> None:
    """Send packets without pages. It times out if the other side reads no more."""
    packet = wire.pack_device_state(wire.DeviceStatePacket(wire.FLAG_DEVICE_STATE, "device", 0, 0))
    sock.sendall(packet * (4 * UNIX_BUFFER // len(packet)))


def test_a_source_whose_next_hop_is_missing_closes_its_channels_first(folder: Path, ends: Ends) -> None:
    """Its second channel comes after its main connection has ended."""
    middle = RunningRelay(folder, "none", "none", end="nobody")
    source = [ends.connect() for _ in range(2)]
    source[1].sendall(IDLE.channels[0][:64])
    source[0].sendall(IDLE.main[:500])
    assert read_whole(source[0]) == b""
    source.append(ends.connect())
    source[2].sendall(IDLE.channels[1][:64])
    for sock in source[1:]:
        send_more_than_buffers_hold(sock)
    ends.close()
    assert f"main channel: cannot connect to unix:{folder}/nobody" in middle.finish()
    assert not middle.refused


def test_a_source_closes_a_channel_first_that_the_destination_has_broken(folder: Path, ends: Ends) -> None:
    middle = RunningRelay(folder, "none", "none")
    source, destination = open_with_channels(ends, 2)
    destination[1].close()
    with contextlib.suppress(OSError):  # it notices that at the next packet
        send_more_than_buffers_hold(source[1])
    assert read_whole(source[0]) == b""
    send_more_than_buffers_hold(source[1])
    ends.close()
    assert "channel " in middle.finish()


@pytest.mark.parametrize("channels", [0, 1])
def test_a_source_that_closes_nothing_is_ended_in_time(
    folder: Path, ends: Ends, monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.relay.DELIVERY_SECONDS", 2.0)
    middle = RunningRelay(folder, "none", "none", end="nobody")
    source = [ends.connect() for _ in range(1 + channels)]
    for sock, content in zip(source, IDLE.connections, strict=False):
        sock.sendall(content[:64])
    started = time.monotonic()
    error = middle.finish()
    assert time.monotonic() - started < 4
    assert "cannot connect to" in error
    assert [read_whole(sock) for sock in source] == [b""] * len(source)


def test_a_new_main_connection_is_not_taken_by_a_migration_that_ends(folder: Path, ends: Ends) -> None:
    middle = RunningRelay(folder, "none", "none", end="nobody")
    source = [ends.connect() for _ in range(2)]
    source[1].sendall(IDLE.channels[0][:64])
    source[0].sendall(IDLE.main[:64])
    assert read_whole(source[0]) == b""
    for content in (IDLE.main, IDLE.channels[0]):
        late = ends.connect()
        late.sendall(content[:64])
        assert read_whole(late) == b""
    ends.close()
    assert "cannot connect to" in middle.finish()
    assert middle.refused == ["the migration has ended"] * 2
