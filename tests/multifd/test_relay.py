"""The relay, with recorded migrations for a source and our receiver for a destination."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import trustme
from commands import PATIENCE, Command, free_port, is_listening, receive, relay, tls, wait_until
from handmade import Feed
from misuse import misuse
from network import Network, inside
from programs import need
from received import ram_sha256
from relays import RunningRelay, run_in_process
from sink import Sink, packets_of
from streams import NAMES, Recording, Replay, method_of, recording
from tls_files import issue

from numcodecs_qpl.cli import main
from numcodecs_qpl.multifd import MultiFDError
from numcodecs_qpl.multifd.mainrelay import NO_RETURN_PATH
from numcodecs_qpl.multifd.relay import Relay, relay_one
from numcodecs_qpl.multifd.stream import wire
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.listener import Listener

METHODS = ["none", "zlib", "zstd", "qpl"]
TLS = {"--tls-cert": "a.pem", "--tls-key": "a.key", "--tls-ca": "ca.pem"}
IDLE = recording("qemu-11.0.92-none")
BEGINNINGS = "the main channel begins with 0x5145564d, a multifd channel with 0x11223344"


# ---- What arrives -----------------------------------------------------------------------------------------------


def every_pair_of_methods() -> list[tuple[str, str]]:
    """A recording for each pair of methods; the recordings of one method take turns, so that each occurs."""
    turns = {method: itertools.cycle([name for name in NAMES if method_of(name) == method]) for method in METHODS}
    return [(next(turns[decode]), encode) for decode in METHODS for encode in METHODS]


@pytest.mark.parametrize(("name", "encode"), every_pair_of_methods())
def test_every_recording_arrives_in_every_method(folder: Path, name: str, encode: str) -> None:
    source = recording(name)
    end = Feed(folder)
    middle = RunningRelay(folder, method_of(name), encode, end=end.path.name)
    Replay(folder / "in", source.connections).join()
    assert middle.finish() == ""
    outcome = end.finish()
    assert outcome.error is None
    assert ram_sha256(folder) == source.meta["ram_sha256"]
    manifest, line = outcome.manifest, middle.relay.statistics()
    assert manifest is not None
    assert manifest["methods"] == [encode]
    assert line["packets"] == manifest["packets"]
    assert line["bytes_in"] == sum(len(content) for content in source.connections)
    assert line["bytes_out"] == manifest["bytes_on_the_wire"]["total"]
    state = (folder / "out" / "device-state.bin").read_bytes()
    assert state
    assert source.main.endswith(state)


def test_two_relays_give_back_what_one_of_them_recoded(folder: Path) -> None:
    source = recording("qemu-7.2.22-none-dirty")
    with (
        receive(folder) as end,
        relay(f"unix:{folder}/b", f"unix:{folder}/end", "qpl", "none") as second,
        relay(f"unix:{folder}/a", f"unix:{folder}/b", "none", "qpl", "--huffman", "dynamic") as first,
    ):
        Replay(folder / "a", source.connections).join()
        sent, returned = first.finish_relay()[1], second.finish_relay()[1]
        assert end.finish().returncode == 0
    assert ram_sha256(folder) == source.meta["ram_sha256"]
    assert sent["bytes_out"] == returned["bytes_in"] < sent["bytes_in"] == returned["bytes_out"]
    assert sent["blocks"]["software"]["compressed"] == sent["pages"]["normal"] == returned["pages"]["normal"]
    assert sent["ratio"] == round(sent["bytes_in"] / sent["bytes_out"], 4) > 2


@pytest.fixture
def sink(folder: Path) -> Iterator[Sink]:
    made = Sink(folder / "end")
    yield made
    made.close()


@pytest.mark.parametrize("name", ["qemu-11.0.92-none-dirty", "qemu-7.2.22-none-dirty"])
def test_everything_but_method_and_size_of_a_packet_stays_as_it_was(folder: Path, sink: Sink, name: str) -> None:
    source = recording(name)
    middle = RunningRelay(folder, "none", "qpl")
    Replay(folder / "in", source.connections).join()
    assert middle.finish() == ""
    assert bytes(sink.contents[0]) == source.main
    came = {wire.unpack_initial(content[:64]).id: content for content in source.channels}
    went = {wire.unpack_initial(content[:64]).id: bytes(content) for content in sink.contents[1:]}
    assert came.keys() == went.keys()
    for channel in came:
        assert came[channel][:64] == went[channel][:64]
        pairs = list(zip(packets_of(came[channel]), packets_of(went[channel]), strict=True))
        assert len(pairs) > 5
        for before, after in pairs:
            has_pages = bool(before.normal_pages or before.zero_pages)
            assert after.flags == before.flags | (wire.FLAG_QPL if has_pages else 0)
            assert (after.next_packet_size > 0) == (before.normal_pages > 0)
            for field in ("pages_alloc", "normal_pages", "zero_pages", "packet_num", "ramblock"):
                assert getattr(after, field) == getattr(before, field)
            assert np.array_equal(after.offsets, before.offsets)


def test_packets_of_device_state_pass_as_they_are(folder: Path, sink: Sink) -> None:
    state = wire.pack_device_state(wire.DeviceStatePacket(wire.FLAG_DEVICE_STATE, "vfio", 3, 200_000))
    state += bytes(range(250)) * 800
    channels = [content[:64] + state + content[64:] for content in IDLE.channels]
    middle = RunningRelay(folder, "none", "none")
    Replay(folder / "in", [IDLE.main, *channels]).join()
    assert middle.finish() == ""
    assert sorted(map(bytes, sink.contents[1:])) == sorted(channels)


def test_what_the_destination_says_on_the_main_channel_reaches_the_source(folder: Path, sink: Sink) -> None:
    middle = RunningRelay(folder, "none", "qpl")
    with socket.socket(socket.AF_UNIX) as source:
        source.connect(f"{folder}/in")
        source.sendall(IDLE.main[:100])
        wait_until(lambda: sink.contents and len(sink.contents[0]) == 100, "the main channel")
        sink.sockets[0].sendall(b"\x00\x02\x00\x04pong")
        assert source.recv(100) == b"\x00\x02\x00\x04pong"
    middle.finish()


def test_the_main_connection_is_opened_onward_first_though_a_channel_came_before_it(folder: Path, sink: Sink) -> None:
    middle = RunningRelay(folder, "none", "qpl")
    channels = Replay(folder / "in", IDLE.channels)
    time.sleep(0.3)
    assert not sink.contents
    main = Replay(folder / "in", [IDLE.main])
    main.join()
    channels.join()
    assert middle.finish() == ""
    assert sink.contents[0].startswith(b"QEVM")


# ---- How it ends ------------------------------------------------------------------------------------------------


class Source:
    """A source under the test's hand: connections that are written to step by step."""

    def __init__(self, path: Path) -> None:
        self.sockets = []
        for _ in IDLE.connections:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            sock.settimeout(PATIENCE)
            self.sockets.append(sock)

    def ended(self) -> list[bool]:
        """Wait for the end of each connection; whether it came."""
        return [self._ends(sock) for sock in self.sockets]

    def close_channels_when_main_ends(self) -> None:
        """Wait for the end of the main connection, then close the channels, as QEMU does."""
        assert self._ends(self.sockets[0])
        for sock in self.sockets[1:]:
            sock.close()

    @staticmethod
    def _ends(sock: socket.socket) -> bool:
        try:
            return sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def middle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunningRelay:
    """A relay that does not wait long for a source that closes nothing."""
    monkeypatch.setattr("numcodecs_qpl.multifd.relay.DELIVERY_SECONDS", 0.5)
    return RunningRelay(folder, "none", "qpl")


@pytest.fixture
def source(folder: Path, middle: RunningRelay) -> Iterator[Source]:
    """A source of that relay."""
    made = Source(folder / "in")
    yield made
    made.close()


def begin(source: Source, sink: Sink) -> None:
    """Open all connections of a migration; each comes half-way through its first packet."""
    for sock, content in zip(source.sockets, IDLE.connections, strict=True):
        sock.sendall(content[:500])
    wait_until(lambda: len(sink.contents) == 3, "all connections")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_end_of_one_connection_of_the_source_ends_all(
    middle: RunningRelay, source: Source, sink: Sink, which: int
) -> None:
    begin(source, sink)
    source.sockets[which].close()
    assert "the source ended" in middle.finish()
    others = [sock for number, sock in enumerate(source.sockets) if number != which]
    assert all(Source._ends(sock) for sock in others)
    wait_until(lambda: all(sock.fileno() < 0 for sock in sink.sockets), "the end at the destination")


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_destination_that_breaks_a_connection_ends_all(
    middle: RunningRelay, source: Source, sink: Sink, which: int
) -> None:
    begin(source, sink)
    sink.sockets[which].shutdown(socket.SHUT_RDWR)
    sink.sockets[which].close()
    # In the direct case too a source learns of it with the next bytes that it sends.
    for sock, content in zip(source.sockets, IDLE.connections, strict=True):
        with contextlib.suppress(OSError):
            sock.sendall(content[500:])
            sock.sendall(content[500:])
    error = middle.finish()
    assert re.search(r"takes no more|broke|ended the main connection before|expected 0x11223344", error)
    assert source.ended() == [True] * 3


def test_a_packet_that_breaks_the_protocol_ends_all_and_is_named(
    middle: RunningRelay, source: Source, sink: Sink
) -> None:
    copy = bytearray(IDLE.channels[1])
    second = 64 + 1344 + wire.unpack(IDLE.channels[1][64 : 64 + 1344], 4096).payload_size
    struct.pack_into(">I", copy, second + 16, 129)
    broken = bytes(copy)
    for sock, content in zip(source.sockets, [IDLE.main[:500], IDLE.channels[0][:500], broken], strict=True):
        with contextlib.suppress(OSError):  # it is not read to its end
            sock.sendall(content)
    error = middle.finish()
    assert source.ended() == [True] * 3
    channel = wire.unpack_initial(IDLE.channels[1][:64]).id
    assert re.match(rf"channel {channel}, packet 1: normal_pages: 129 is more than", error)


def test_a_packet_of_another_method_than_was_said_is_an_error(folder: Path, sink: Sink) -> None:
    source = recording("qemu-11.0.92-zlib")
    middle = RunningRelay(folder, "zstd", "qpl")
    Replay(folder / "in", source.connections).join()
    assert "flags: the packet is of method 'zlib'; expected 'zstd'" in middle.finish()


def test_a_main_channel_that_ends_too_early_is_a_failed_migration(folder: Path, sink: Sink) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl") as middle:
        Replay(folder / "in", [IDLE.main[:-1], *IDLE.channels]).join()
        status, line, said = middle.finish_relay()
    assert (status, line["ended"]) == (1, "failed")
    assert line["error"] in said
    assert "before the description of the device state" in said
    assert bytes(sink.contents[0]) == IDLE.main[:-1]


@pytest.mark.parametrize("flags", [0, wire.FLAG_SYNC], ids=["nothing", "a SYNC"])
def test_a_destination_may_close_a_channel_before_packets_of_nothing_come(folder: Path, sink: Sink, flags: int) -> None:
    """As QEMU 7.2's does, whose source still sends some; but a SYNC is not nothing."""
    late = wire.pack(wire.Packet(flags, 128, 0, 4096, 999, 0, "", np.zeros(0, np.uint64)), 128)
    middle = RunningRelay(folder, "none", "none")
    source = Source(folder / "in")
    for sock, content in zip(source.sockets, IDLE.connections, strict=True):
        sock.sendall(content)
    wait_until(lambda: sorted(map(bytes, sink.contents)) == sorted(IDLE.connections), "everything")
    for sock in sink.sockets[1:]:
        sock.shutdown(socket.SHUT_RDWR)
    for sock in source.sockets[1:]:
        with contextlib.suppress(OSError):  # after a failure nobody takes it
            sock.sendall(late)
    for sock in source.sockets:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    assert bool(middle.finish()) == bool(flags)
    source.close()


def test_a_destination_that_goes_without_reading_all_of_the_main_channel_is_a_failed_migration(folder: Path) -> None:
    whole = b"QEVM" + bytes([0, 0, 0, 3, 0, 0, 0, 0]) + b'\x00\x06\x00\x00\x00\x0e{"devices":[]}'
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/end")
        server.listen(16)
        middle = RunningRelay(folder, "none", "qpl")
        source = Source(folder / "in")
        source.sockets[0].sendall(whole)
        source.sockets[0].shutdown(socket.SHUT_WR)
        destination, _ = server.accept()
        wait_until(lambda: destination.recv(100, socket.MSG_PEEK) == whole, "all of the main channel")
        destination.close()
        error = middle.finish()
        source.close()
    assert f"main channel: the connection to unix:{folder}/end broke" in error


def test_a_destination_that_nobody_listens_at_is_told_and_the_source_is_let_go(folder: Path) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/nobody", "none", "qpl") as middle:
        source = Source(folder / "in")
        source.sockets[0].sendall(IDLE.main)
        status, _, said = middle.finish_relay()
        assert status == 1
        assert (
            f"main channel: cannot connect to unix:{folder}/nobody: No such file or directory (nothing listens there: "
            "start the far end first)"
        ) in said
        assert source.ended() == [True] * 3
        source.close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_all_and_the_line_is_still_written(
    folder: Path, sink: Sink, number: signal.Signals, status: int
) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl") as middle:
        source = Source(folder / "in")
        begin(source, sink)
        middle.signal(number)
        source.close_channels_when_main_ends()
        returncode, line, said = middle.finish_relay()
        source.close()
    assert (returncode, said) == (status, "")
    assert line["ended"] == {143: "terminated", 130: "interrupted"}[status]
    wait_until(lambda: all(sock.fileno() < 0 for sock in sink.sockets), "the end at the destination")
    assert not (folder / "in").exists()


@pytest.fixture(params=["unix", "tcp", "tls"])
def silent(request: pytest.FixtureRequest, folder: Path, certificates: Path) -> Iterator[list[str]]:
    """Options of a relay whose far end does not answer: its queue is full, or it never speaks TLS."""
    with contextlib.ExitStack() as stack:
        family = socket.AF_UNIX if request.param == "unix" else socket.AF_INET
        where = f"{folder}/end" if request.param == "unix" else ("127.0.0.1", 0)
        server = stack.enter_context(socket.socket(family))
        server.bind(where)
        server.listen(0)
        if request.param == "tls":
            yield ["--connect", f"tls:127.0.0.1:{server.getsockname()[1]}", *tls(certificates, "here")]
            return
        for _ in range(4):
            sock = stack.enter_context(socket.socket(family))
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        yield ["--connect", f"unix:{where}" if request.param == "unix" else f"tcp::{server.getsockname()[1]}"]


def test_a_signal_ends_a_relay_whose_far_end_does_not_answer(folder: Path, silent: list[str]) -> None:
    with Command("relay", "--listen", f"unix:{folder}/in", *silent, "--from", "none", "--to", "qpl") as middle:
        source = Source(folder / "in")
        for sock, content in zip(source.sockets, IDLE.connections, strict=True):
            sock.sendall(content[:500])
        time.sleep(0.5)
        middle.signal(signal.SIGTERM)
        signalled = time.monotonic()
        assert Source._ends(source.sockets[0])
        source.close()
        done = middle.finish()
        assert time.monotonic() - signalled < 2
    assert (done.returncode, done.stderr) == (143, "")
    assert json.loads(done.stdout)["seconds"] > 0.4


def test_others_are_heard_while_the_far_end_does_not_answer(folder: Path, silent: list[str]) -> None:
    with Command("relay", "--listen", f"unix:{folder}/in", *silent, "--from", "none", "--to", "qpl") as middle:
        source = Source(folder / "in")
        source.sockets[0].sendall(IDLE.main[:500])
        source.sockets[1].sendall(b"GET / HTTP/1.1\r\n" + bytes(64))
        source.sockets[1].settimeout(5)
        assert Source._ends(source.sockets[1])
        source.close()
        middle.signal(signal.SIGTERM)
        assert "refused a connection: magic" in middle.finish().stderr


def test_channels_are_opened_onward_in_the_order_that_they_came(folder: Path, sink: Sink) -> None:
    middle = RunningRelay(folder, "none", "qpl")
    source = Source(folder / "in")
    openings = [content[:64] for content in IDLE.channels]
    for sock, opening in zip(source.sockets[1:], openings, strict=True):
        sock.sendall(opening)
        time.sleep(0.3)
    source.sockets[0].sendall(IDLE.main[:500])
    wait_until(lambda: len(sink.contents) == 3 and all(sink.contents), "all connections")
    source.close()
    middle.finish()
    assert [bytes(content) for content in sink.contents[1:]] == openings


@pytest.mark.parametrize("which", range(11))
def test_a_thread_that_cannot_be_started_ends_the_run_and_all_connections(
    folder: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.relay.DELIVERY_SECONDS", 0.5)  # this source closes nothing
    middle = Relay(Address("unix", f"{folder}/end"), "none", "qpl")
    runner, raised = run_in_process(partial(relay_one, middle, Listener(Address("unix", f"{folder}/in"))))
    source = Source(folder / "in")
    start, count = threading.Thread.start, itertools.count()

    def limited(thread: threading.Thread) -> None:
        if "(" not in thread.name and next(count) == which:  # the others are the test's own
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    start(runner)
    for sock, content in zip(source.sockets, IDLE.connections, strict=True):
        with contextlib.suppress(OSError):
            sock.sendall(content[:500])
    runner.join(PATIENCE)
    assert not runner.is_alive()
    assert re.search("cannot start a thread: can't start new thread. Raise the limit", str(raised[0]))
    assert isinstance(raised[0], MultiFDError)
    assert source.ended() == [True] * 3
    source.close()
    wait_until(lambda: sink.ends == len(sink.sockets), "the end at the destination")


def test_a_signal_before_anybody_came_ends_it_too(folder: Path) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl") as middle:
        middle.signal(signal.SIGTERM)
        status, line, said = middle.finish_relay()
    assert (status, line["ended"], line["seconds"], said) == (143, "terminated", 0.0, "")


def test_the_line_is_written_to_a_file_too(folder: Path, sink: Sink) -> None:
    stats = folder / "stats.json"
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl", "--stats", str(stats)) as middle:
        Replay(folder / "in", IDLE.connections).join()
        line = middle.finish_relay()[1]
    assert json.loads(stats.read_text()) == line
    assert line["path"] == "software"
    assert line["pages"] == {"normal": 455, "zero": 3723}
    assert 0 < line["cpu_seconds"] < line["seconds"] + 5
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_stats_that_cannot_be_written_are_an_error(folder: Path, sink: Sink) -> None:
    stats = folder / "absent" / "stats.json"
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl", "--stats", str(stats)) as middle:
        Replay(folder / "in", IDLE.connections).join()
        status, line, said = middle.finish_relay()
    assert (status, line["ended"]) == (1, "complete")
    assert said == f"numcodecs-qpl: error: {stats} cannot be written: No such file or directory\n"


@pytest.mark.parametrize(("stream", "status"), [("2", 0), ("1", 1)], ids=["stderr", "stdout"])
def test_a_migration_passes_and_is_counted_though_what_is_said_cannot_be_written(
    folder: Path, stream: str, status: int
) -> None:
    stats = folder / "stats.json"
    words = ["--listen", f"unix:{folder}/in", "--connect", f"unix:{folder}/end", "--from", "none", "--to", "qpl"]
    prefix = ["sh", "-c", f'exec "$@" {stream}>/dev/full', "sh"]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/end")
        server.listen(16)
        with Command("relay", *words, "--stats", str(stats), prefix=prefix) as middle:
            replay = Replay(folder / "in", [IDLE.main])  # without multifd, which is a warning at the end
            with server.accept()[0] as destination:
                while destination.recv(1 << 16):
                    pass
            assert middle.finish().returncode == status
            replay.join()
    assert json.loads(stats.read_text())["ended"] == "complete"


# ---- What stands still ------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with data on its way"])
def test_relays_end_when_the_link_between_them_was_cut(folder: Path, sink: Sink, busy: bool) -> None:
    need("ip")
    with Network() as network:
        between = f"tcp:{network.destination_address}:{network.port()}"
        ways = ((between, f"unix:{folder}/end", network.destination), (f"unix:{folder}/in", between, network.source))
        with contextlib.ExitStack() as stack:
            relays = [
                stack.enter_context(
                    Command(
                        *("relay", "--listen", listen, "--connect", connect, "--from", "none", "--to", "none"),
                        *("--link-timeout", "3"),
                        prefix=inside(namespace),
                    )
                )
                for listen, connect, namespace in ways
            ]
            source = Source(folder / "in")
            for sock, content in zip(source.sockets, IDLE.connections, strict=True):
                sock.sendall(content[:500])
            wait_until(lambda: sorted(map(len, sink.contents)) == [64, 64, 500], "all connections")
            network.cut()
            if busy:
                source.sockets[0].sendall(IDLE.main[500:5000])
            started = time.monotonic()
            source.close_channels_when_main_ends()
            for middle in relays:
                status, line, said = middle.finish_relay()
                assert (status, line["ended"]) == (1, "failed")
                assert "broke: Connection timed out" in said
            assert 2 < time.monotonic() - started < 10
            source.close()


def test_a_migration_on_which_nothing_passes_ends_after_the_timeout(folder: Path, sink: Sink) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl", "--timeout", "2") as middle:
        time.sleep(2.5)  # nobody has come: this does not count
        source = Source(folder / "in")
        for size in range(100, 400, 100):
            source.sockets[0].sendall(IDLE.main[size - 100 : size])
            time.sleep(1)
        last = time.monotonic()
        status, line, said = middle.finish_relay()
        assert 0.5 < time.monotonic() - last < 5
        assert source.ended() == [True] * 3
        source.close()
    assert (status, line["ended"]) == (1, "failed")
    assert "nothing passed for 2 s" in said


@pytest.mark.parametrize(
    ("those", "message"),
    [
        ([0], "the source has opened no multifd channel: turn multifd on in both QEMUs (migrate-set-capabilities)"),
        (
            [0, 1],
            "multifd channels that the source has opened: 1. A destination that expects more waits for them: set ",
        ),
        ([1, 2], "the source has opened no main connection: look at what it wrote"),
    ],
    ids=["multifd is off at the source", "fewer channels than the destination expects", "no main connection"],
)
def test_silence_is_told_with_its_cause_once_and_then_ends_the_run(
    folder: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch, those: list[int], message: str
) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.relay.SILENT_SECONDS", 0.5)
    monkeypatch.setattr("numcodecs_qpl.multifd.relay.DELIVERY_SECONDS", 0.5)  # this source closes nothing
    warnings: list[str] = []
    middle = RunningRelay(folder, "none", "qpl", timeout=1.5, warned=warnings.append)
    source = Source(folder / "in")
    for number in those:
        source.sockets[number].sendall(IDLE.connections[number][:500])
    error = middle.finish()
    source.close()
    warnings = [warning for warning in warnings if warning != NO_RETURN_PATH]
    assert [warning.startswith(f"nothing has passed for 0.5 s; {message}") for warning in warnings] == [True]
    assert error.startswith(f"nothing passed for 1.5 s; {message}")


def test_a_migration_without_multifd_passes_with_a_warning(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/end")
        server.listen(16)
        with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl") as middle:
            replay = Replay(folder / "in", [IDLE.main])
            with server.accept()[0] as destination:
                while destination.recv(1 << 16):
                    pass
            status, line, said = middle.finish_relay()
            replay.join()
    assert (status, line["ended"], line["ratio"]) == (0, "complete", 1.0)
    assert said == (
        "warning: nothing was recoded; the source has opened no multifd channel: turn multifd on in both QEMUs "
        "(migrate-set-capabilities), with the same multifd-channels\n"
    )


def test_a_channel_that_the_destination_refuses_is_told_with_where_to_look(
    middle: RunningRelay, source: Source, sink: Sink
) -> None:
    source.sockets[0].sendall(IDLE.main[:500])
    source.sockets[1].sendall(IDLE.channels[0][:64])
    wait_until(lambda: len(sink.contents) == 2 and len(sink.contents[1]) == 64, "the channel")
    sink.sockets[1].shutdown(socket.SHUT_RDWR)
    sink.sockets[1].close()
    with contextlib.suppress(OSError):
        source.sockets[1].sendall(IDLE.channels[0][64:])
    assert re.search(
        r"(takes no more|broke): .*; look at what the QEMU \(or the relay\) there wrote: a QEMU refuses",
        middle.finish(),
    )


def test_a_channel_that_the_destination_has_no_place_for_is_told_with_where_to_look(
    folder: Path, middle: RunningRelay, source: Source, sink: Sink
) -> None:
    source.sockets[0].sendall(IDLE.main[:500])
    wait_until(lambda: len(sink.contents) == 1, "the main connection")
    sink.stop_listening()
    source.sockets[1].sendall(IDLE.channels[0][:64])
    error = middle.finish()
    channel = wire.unpack_initial(IDLE.channels[0][:64]).id
    assert f"channel {channel}: cannot connect to unix:{folder}/end: Connection refused" in error
    assert "The main connection was accepted there: look at what the QEMU there wrote, and set multifd-" in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "qemu-7.2.22-none",
            "pages_alloc: the packet is of 128 pages, .* expected 32 pages of 16384 bytes: set --page-size 4096",
        ),
        (
            "qemu-11.0.92-none",
            r"expected 0x11223344, multifd's magic number \(is --page-size the guest's\?\)",
        ),
    ],
    ids=["a first packet with pages", "a first packet without"],
)
def test_a_page_size_that_is_not_the_guests_is_named(folder: Path, sink: Sink, name: str, message: str) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl", "--page-size", "16384") as middle:
        Replay(folder / "in", recording(name).connections).join()
        status, line, said = middle.finish_relay()
    assert (status, line["ended"]) == (1, "failed")
    assert re.search(rf"{message}$", said, re.MULTILINE), said


# ---- Who may come -----------------------------------------------------------------------------------------------


def test_a_unix_socket_is_for_its_owner_alone_and_goes_at_the_end(folder: Path, sink: Sink) -> None:
    path = folder / "in"
    with relay(f"unix:{path}", f"unix:{folder}/end", "none", "qpl") as middle:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        Replay(path, IDLE.connections).join()
        assert middle.finish_relay()[0] == 0
    assert not path.exists()


def test_tcp_without_a_host_is_loopback_alone(folder: Path, sink: Sink) -> None:
    port = free_port()
    with relay(f"tcp::{port}", f"unix:{folder}/end", "none", "qpl"):
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        assert [line[1] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"] == [
            f"0100007F:{port:04X}"
        ]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (IDLE.main[:50], "main channel: it is connected already"),
        (IDLE.channels[0][:64], r"channel \d+: it is connected already"),
        (
            wire.pack_initial(wire.InitialPacket(UUID(int=7), 9)),
            "channel 9: uuid: .* is not that of the other channels",
        ),
        (
            b"GET / HTTP/1.1\r\n" + bytes(64),
            f"magic: 0x47455420; {BEGINNINGS}",
        ),
        (b"\x11\x22", "it closed after 2 bytes"),
    ],
)
def test_a_stranger_is_turned_away_and_the_migration_goes_on(
    folder: Path, middle: RunningRelay, source: Source, sink: Sink, what: bytes, message: str
) -> None:
    begin(source, sink)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(PATIENCE)
        stranger.connect(f"{folder}/in")
        stranger.sendall(what)
        stranger.shutdown(socket.SHUT_WR)
        assert Source._ends(stranger)
    finish_source(source, 500)
    assert middle.finish() == ""
    (reason,) = middle.refused
    assert re.match(message, reason)
    assert len(sink.contents) == 3
    assert bytes(sink.contents[0]) == IDLE.main


def finish_source(source: Source, at: int, of: Recording = IDLE) -> None:
    def play(sock: socket.socket, content: bytes) -> None:
        sock.sendall(content[at:])
        sock.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=play, args=pair) for pair in zip(source.sockets, of.connections, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_connections_of_another_process_are_turned_away(folder: Path, sink: Sink) -> None:
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl") as middle:
        source = Source(folder / "in")
        source.sockets[0].sendall(IDLE.main[:500])
        wait_until(lambda: len(sink.contents) == 1, "the main connection")
        # This process is one; a second relay that connects to the first is another.
        with relay(f"unix:{folder}/other", f"unix:{folder}/in", "none", "none") as other:
            replay = Replay(folder / "other", IDLE.connections)
            status = other.finish_relay()[0]
            replay.join()
        assert status == 1
        middle.signal(signal.SIGTERM)
        said = middle.finish_relay()[2]
        source.close()
    assert re.search(rf"refused a connection: it comes from process {other.pid}, the migration from process \d+", said)
    assert len(sink.contents) == 1


def test_a_second_relay_at_the_same_place_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(Listener(Address("unix", f"{folder}/in"))):
        words = ["--listen", f"unix:{folder}/in", "--connect", "tcp::9", "--from", "none", "--to", "qpl"]
        assert main(["relay", *words]) == 1
        assert "Address already in use" in capsys.readouterr().err
        assert is_listening(f"unix:{folder}/in")


# ---- Memory -----------------------------------------------------------------------------------------------------


def test_a_destination_that_reads_nothing_stops_the_source_and_not_the_memory(folder: Path) -> None:
    offsets = np.arange(128, dtype=np.uint64) * np.uint64(4096)
    page_data = np.random.default_rng(0).bytes(wire.PACKET_SIZE)
    packet = wire.pack(wire.Packet(0, 128, 128, wire.PACKET_SIZE, 0, 0, "m", offsets), 128) + page_data
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{folder}/end")
    server.listen(16)
    with server, relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl") as middle:
        source = Source(folder / "in")
        source.sockets[0].sendall(IDLE.main[:500])
        source.sockets[1].sendall(IDLE.channels[0][:64])
        sent = 0
        source.sockets[1].settimeout(2)
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += source.sockets[1].send(packet[sent % len(packet) :])
        assert sent < 16 << 20
        assert resident(middle.pid) < 160 << 20
        source.close()


def resident(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


# ---- TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two relays' certificates of one authority, and one of another."""
    folder = tmp_path_factory.mktemp("tls")
    ours = trustme.CA()
    for name in ("here", "there"):
        issue(folder, ours, name)
    issue(folder, trustme.CA(), "stranger", "strangers-ca.pem")
    return folder


def test_two_relays_speak_tls_with_each_other(folder: Path, certificates: Path) -> None:
    source = recording("qemu-11.0.92-none-dirty")
    between = f"tls:127.0.0.1:{free_port()}"
    with (
        receive(folder) as end,
        relay(between, f"unix:{folder}/end", "qpl", "none", *tls(certificates, "there")) as second,
        relay(f"unix:{folder}/in", between, "none", "qpl", *tls(certificates, "here")) as first,
    ):
        Replay(folder / "in", source.connections).join()
        for middle in (first, second):
            status, line, said = middle.finish_relay()
            assert (status, line["ended"], said) == (0, "complete", "")
        assert end.finish().returncode == 0
    assert ram_sha256(folder) == source.meta["ram_sha256"]


def test_a_relay_without_a_certificate_of_the_authority_is_turned_away(folder: Path, certificates: Path) -> None:
    between = f"tls:127.0.0.1:{free_port()}"
    with (
        relay(between, f"unix:{folder}/end", "qpl", "none", *tls(certificates, "there")) as second,
        relay(f"unix:{folder}/in", between, "none", "qpl", *tls(certificates, "stranger")) as first,
    ):
        Replay(folder / "in", IDLE.connections).join()
        assert first.finish_relay()[0] == 1
        second.signal(signal.SIGTERM)
        status, line, said = second.finish_relay()
    assert (status, line["bytes_in"]) == (143, 0)
    assert "refused a connection" in said
    assert "certificate verify failed" in said


def test_a_relay_does_not_connect_to_one_whose_certificate_is_not_of_the_authority(
    folder: Path, certificates: Path
) -> None:
    between = f"tls:127.0.0.1:{free_port()}"
    with (
        relay(between, f"unix:{folder}/end", "qpl", "none", *tls(certificates, "stranger"), "--no-verify-peer"),
        relay(f"unix:{folder}/in", between, "none", "qpl", *tls(certificates, "here")) as first,
    ):
        Replay(folder / "in", IDLE.connections).join()
        status, _, said = first.finish_relay()
    assert status == 1
    assert "certificate verify failed" in said


def test_plain_bytes_at_a_tls_listener_are_turned_away(folder: Path, certificates: Path) -> None:
    port = free_port()
    with relay(f"tls:127.0.0.1:{port}", f"unix:{folder}/end", "qpl", "none", *tls(certificates, "there")) as middle:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as stranger:
            stranger.sendall(IDLE.main[:5000])
            assert Source._ends(stranger)
        wait_until(lambda: is_listening(f"tls:127.0.0.1:{port}"), "it to go on listening")
        middle.signal(signal.SIGTERM)
        assert "refused a connection" in middle.finish_relay()[2]


def test_a_tls_connection_that_is_cut_is_no_clean_end(folder: Path, sink: Sink, certificates: Path) -> None:
    between = f"tls:127.0.0.1:{free_port()}"
    with (
        relay(between, f"unix:{folder}/end", "qpl", "none", *tls(certificates, "there")) as second,
        relay(f"unix:{folder}/in", between, "none", "qpl", *tls(certificates, "here")) as first,
    ):
        source = Source(folder / "in")
        for sock, content in zip(source.sockets, IDLE.connections, strict=True):
            sock.sendall(content[:64])
        wait_until(lambda: len(sink.contents) == 3, "all connections")
        first.signal(signal.SIGKILL)
        status, line, said = second.finish_relay()
        assert source.ended() == [True] * 3
        source.close()
    assert (status, line["ended"]) == (1, "failed")
    assert "broke" in said


# ---- The line that it listens -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["relay", "--connect", "tcp::1", "--from", "none", "--to", "qpl"],
        ["receive", "--channels", "1", "--output", "out"],
    ],
    ids=["relay", "receive"],
)
def test_a_line_on_stderr_tells_that_it_listens_without_a_terminal_too(folder: Path, words: list[str]) -> None:
    command = ["numcodecs-qpl", *words, "--listen", f"unix:{folder}/s"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"listening at unix:{folder}/s\n"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{folder}/s")
        process.terminate()


# ---- Usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--listen": "udp:1"}, "invalid address 'udp:1'"),
        ({"--connect": "tcp:host"}, "invalid address 'tcp:host'"),
        ({"--from": "xbzrle"}, "invalid choice: 'xbzrle'"),
        ({"--timeout": "0"}, "invalid number '0': expected a number of seconds above 0"),
        ({"--link-timeout": "0"}, "invalid number '0': expected a whole number of seconds from 1 to 32767"),
        ({"--link-timeout": "32768"}, "invalid number '32768': expected a whole number of seconds from 1 to 32767"),
        ({"--page-size": "1000"}, "page_size is 1000; it must be a power of two"),
        ({"--listen": "tls::1"}, "tls:127.0.0.1:1 needs --tls-cert, --tls-key and --tls-ca"),
        ({"--connect": "tls::1", "--tls-cert": "a.pem"}, "tls:127.0.0.1:1 needs --tls-cert, --tls-key and --tls-ca"),
        (TLS, "neither address is of that kind"),
        ({"--to": "zlib", "--huffman": "fixed"}, "--huffman is for --to qpl; it has no effect on zlib"),
        *[
            ({**TLS, "--connect": "tls::1", option: ""}, "are for --listen tls:HOST:PORT")
            for option in ("--verify-peer", "--no-verify-peer")
        ],
    ],
)
def test_a_wrong_word_on_the_command_line_is_exit_status_2(
    capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    assert message in misuse_of_relay(capsys, change)


def misuse_of_relay(capsys: pytest.CaptureFixture[str], change: dict[str, str]) -> str:
    words = {"--listen": "unix:/nowhere/a", "--connect": "tcp::1", "--from": "none", "--to": "qpl", **change}
    return misuse(capsys, "relay", *[word for pair in words.items() for word in pair if word])


@pytest.mark.parametrize(
    ("listen", "connect"),
    [
        ("tcp:127.0.0.1:9", "tcp::9"),
        ("tcp:localhost:9", "tcp:127.0.0.1:9"),
        ("tcp:0.0.0.0:9", "tcp:127.0.0.1:9"),
        ("tcp:127.0.0.1:9", "tls:127.0.0.1:9"),
        ("tcp:127.0.0.1:9", "tcp:0.0.0.0:9"),
        ("tcp:127.0.0.1:9", "tcp:[::ffff:127.0.0.1]:9"),
        ("unix:/nowhere/a", "unix:/nowhere/../nowhere/a"),
        ("unix:/proc/self/cwd/a", "unix:a"),
    ],
)
def test_a_relay_that_would_connect_to_itself_is_exit_status_2(
    capsys: pytest.CaptureFixture[str], listen: str, connect: str
) -> None:
    files = TLS if connect.startswith("tls") else {}
    assert "are the same socket" in misuse_of_relay(capsys, {"--listen": listen, "--connect": connect, **files})


@pytest.mark.parametrize(
    ("command", "variable", "word"),
    [
        ("relay", "NUMCODECS_QPL_THREADS", "abc"),
        ("receive", "NUMCODECS_QPL_PATH", "gpu"),
        ("relay", "NUMCODECS_QPL_NUMA", "-1"),
    ],
)
def test_a_wrong_variable_is_exit_status_2_before_anybody_can_connect(
    folder: Path, command: str, variable: str, word: str
) -> None:
    environment = {**os.environ, variable: word}
    if command == "relay":
        program = relay(f"unix:{folder}/in", f"unix:{folder}/end", "none", "qpl", environment=environment)
    else:
        program = receive(folder, environment=environment)
    done = program.finish()
    assert (done.returncode, done.stdout) == (2, "")
    assert f"numcodecs-qpl {command}: error: {variable} is " in done.stderr
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--listen", "unix:/nowhere/a"], "cannot listen on unix:/nowhere/a: No such file or directory"),
        (
            ["--listen", "tls::1", "--tls-cert", "/no.pem", "--tls-key", "/no.key", "--tls-ca", "/ca.pem"],
            "TLS cannot use /no.pem: No such file or directory",
        ),
    ],
)
def test_what_cannot_work_is_told_before_anybody_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    words = ["--listen", f"unix:{tmp_path}/a", "--connect", "tcp::2", "--from", "none", "--to", "qpl", *more]
    assert main(["relay", *words]) == 1
    assert message in capsys.readouterr().err
