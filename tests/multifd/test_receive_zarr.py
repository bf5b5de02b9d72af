"""The receiver's memory, and the chunks of a zarr group that it compresses while pages come."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from commands import PATIENCE, Command, is_listening, wait_until
from handmade import (
    PAGE,
    SYNC,
    Channel,
    Feed,
    Migration,
    Outcome,
    header,
    initial,
    pages_of,
    receive,
)
from received import CHUNK, PACKET, array_of, main_channel, main_pages, stored
from streams import Replay

from numcodecs_qpl import QPL, QplError
from numcodecs_qpl.cli import main
from numcodecs_qpl.multifd.folder import writer
from numcodecs_qpl.multifd.receiver import Receiver

MB = 1 << 20
PAGES = 256
"""Pages in a MiB."""

pytestmark = pytest.mark.timeout(300)


def compressing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "write-back"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks do not wait for more pages."""
    monkeypatch.setattr(writer, "LAG", 0)


# ---- Memory -----------------------------------------------------------------------------------------------------


PEAK = """
import sys
from pathlib import Path
from numcodecs_qpl.cli import main
status = main(sys.argv[1:])
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
sys.exit(status)
"""


def send_guest(folder: Path, filled: int, empty: int) -> Replay:
    """Send a guest that has so many MiB of data, then so many of zeros; returns its main connection."""
    control = Replay(folder / "s", [main_channel((filled + empty) * PAGES)])
    data = b"".join(pages_of(4, PACKET))
    with socket.socket(socket.AF_UNIX) as channel, contextlib.suppress(BrokenPipeError):
        channel.connect(f"{folder}/s")
        channel.sendall(initial(0) + header(flags=SYNC))
        for start in range(0, (filled + empty) * PAGES, PACKET):
            numbers = range(start, start + PACKET)
            if start < filled * PAGES:
                channel.sendall(header(normal=numbers, next_packet_size=len(data)) + data)
            else:
                channel.sendall(header(zero=numbers))
        channel.sendall(2 * header(flags=SYNC))
    return control


def peak_of_a_guest(folder: Path, form: str, filled: int, empty: int, more: Sequence[str] = ()) -> int:
    """The most bytes of RSS that receiving a guest takes; what comes out is checked."""
    folder.mkdir(parents=True)
    words = ["receive", "--listen", f"unix:{folder}/s", "--channels", "1", "--output", f"{folder}/out", *more]
    with subprocess.Popen(
        [sys.executable, "-c", PEAK, *words, "--format", form], stdout=subprocess.PIPE, text=True
    ) as receiver:
        wait_until(lambda: is_listening(f"unix:{folder}/s", receiver.pid), "it to listen")
        control = send_guest(folder, filled, empty)
        said, _ = receiver.communicate(timeout=4 * PATIENCE)
        control.join()
    assert receiver.returncode == 0
    data = b"".join(pages_of(4, PACKET))
    if form == "zarr":
        array = zarr.open_group(folder / "out" / "ram.zarr", mode="r")["m"]
        assert isinstance(array, zarr.Array)
        last = np.asarray(array[(filled - 1) * PAGES : (filled + 1) * PAGES]).tobytes()
        assert stored(folder / "out") == set(range(filled * PAGES // CHUNK))
    else:
        with (folder / "out" / "m.bin").open("rb") as file:
            file.seek((filled - 1) * MB)
            last = file.read(2 * MB)
    assert last == 2 * data + bytes(MB)
    return int(said.split()[-1]) * 1024


def check_that_memory_does_not_grow(folder: Path, form: str, like: Path | None = None) -> None:
    """Receive a small guest and a large one, each like an earlier one of the same size if there is one."""
    peaks = []
    for name, filled, empty in (("small", 64, 64), ("large", 256, 2048)):
        more = ["--like", f"{like}/{name}/out"] if like else []
        peaks.append(peak_of_a_guest(folder / name, form, filled, empty, more))
    assert peaks[1] - peaks[0] < 8 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_memory_does_not_grow_with_the_guest(folder: Path) -> None:
    check_that_memory_does_not_grow(folder, "raw")


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_memory_does_not_grow_with_the_guest_and_with_the_chunks_that_are_shared(folder: Path) -> None:
    check_that_memory_does_not_grow(folder / "first", "zarr")
    check_that_memory_does_not_grow(folder / "second", "zarr", like=folder / "first")
    for name in ("small", "large"):
        # Pages of the first MiB come over both connections, in any order.
        assert (folder / "second" / name / "out/ram.zarr/m/c.4.0").stat().st_nlink == 2


# ---- Chunks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.usefixtures("at_once")
def test_a_chunk_that_is_stored_is_stored_again_when_pages_of_it_come_again(folder: Path, zero: bool) -> None:
    old, new = pages_of(5, PAGES), pages_of(6, 1)[0]
    first, second = Channel(0, "none"), Channel(1, "none")
    first.send(0, {}, flags=SYNC)
    first.send(1, {number: old[number] for number in range(PACKET)})
    first.send(2, {number: old[number] for number in range(PACKET, PAGES) if number not in (150, 151)})
    before = len(first.content)
    if zero:
        first.send(3, {}, range(PACKET))
        first.send(4, {}, range(PACKET, PAGES))
    else:
        first.send(3, {5: new})
    for channel, count in ((first, 2), (second, 3)):
        for number in range(count):
            channel.send(5 + number, {}, flags=SYNC)
    feed = Feed(folder, output="zarr")
    others = Replay(feed.path, [main_channel(PAGES), bytes(second.content)])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(feed.path))
        sock.sendall(first.content[:before])
        wait_until(lambda: 0 in stored(feed.outcome.out), "the chunk")
        # The main channel sends two of the pages in this round, and must not do so after the zeros.
        wait_until(lambda: feed.receiver.counts.normal_pages == PAGES, "all pages")
        sock.sendall(first.content[before:])
        sock.shutdown(socket.SHUT_WR)
        outcome = feed.finish()
    others.join()
    assert outcome.error is None
    ram = [bytes(PAGE)] * PAGES if zero else main_pages([*old[:5], new, *old[6:]])
    assert array_of(outcome.out) == b"".join(ram)
    assert stored(outcome.out) == (set() if zero else {0, 1, 2, 3})
    assert not compressing()


@pytest.mark.parametrize(("method", "lag"), [("none", 0), ("none", 64), ("zlib", 1), ("zstd", 64), ("qpl", 0)])
def test_the_newest_copy_of_each_page_is_stored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, lag: int
) -> None:
    monkeypatch.setattr(writer, "LAG", lag)
    pages, rng = 12 * CHUNK - 50, random.Random(lag)
    ram = [bytes(PAGE)] * pages
    contents = pages_of(7, 50)
    channels = [Channel(0, method), Channel(1, method)]
    free = [number for number in range(pages) if number not in (150, 151)]

    def end_round() -> None:
        for channel in channels:
            channel.send(0, {}, flags=SYNC)

    end_round()
    for turn in range(2):
        for channel in channels:
            # In a round each page is sent by one channel only; the order of its packets is that of their channel.
            own = [number for number in free if (number // 8 + turn) % 2 == channel.id]
            for _ in range(25):
                chosen = rng.sample(own, rng.randrange(2, PACKET))
                zeros, normal = chosen[: len(chosen) // 3], chosen[len(chosen) // 3 :]
                channel.send(0, {number: rng.choice(contents) for number in normal}, zeros)
                for number in zeros:
                    ram[number] = bytes(PAGE)
                for number, page in channel.packets[-1].normal.items():
                    ram[number] = page
        end_round()
    outcome = receive(folder, [main_channel(pages), *(bytes(channel.content) for channel in channels)], output="zarr")
    # The two pages of the main channel come in the round between.
    assert outcome.error is None
    assert array_of(outcome.out) == b"".join(main_pages(ram))


def test_a_page_of_zeros_is_neither_read_nor_compressed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[int] = set()
    real = os.preadv

    def preadv(fd: int, buffers: list[Any], offset: int) -> int:
        size = real(fd, buffers, offset)
        read.update(range(offset // PAGE, (offset + size) // PAGE))
        return size

    monkeypatch.setattr(os, "preadv", preadv)
    channel = Channel(0, "none")
    channel.send(0, {}, flags=SYNC)
    channel.send(0, {300: pages_of(5, 1)[0]}, range(10))
    channel.send(0, {}, range(8 * CHUNK, 8 * CHUNK + PACKET))
    for _ in range(2):
        channel.send(0, {}, flags=SYNC)
    outcome = receive(folder, [main_channel(12 * CHUNK), bytes(channel.content)], output="zarr", channels=1)
    assert outcome.error is None
    assert read == {150, 151, 300}
    assert stored(outcome.out) == {150 // CHUNK, 300 // CHUNK}


@pytest.mark.parametrize("setting", [{"default_zarr_format": 2}, {"array.write_empty_chunks": True}])
def test_the_group_does_not_depend_on_zarrs_settings(folder: Path, setting: dict[str, Any]) -> None:
    source = Migration("none")
    with zarr.config.set(setting):
        outcome = receive(folder, source.connections, output="zarr")
    assert outcome.error is None
    assert array_of(outcome.out) == source.ram


@pytest.mark.parametrize("form", ["raw", "zarr"])
def test_everything_is_on_the_disk_before_the_manifest_has_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    synced: set[int] = set()
    before: set[int] = set()
    fsync, rename = os.fsync, Path.rename

    def sync(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        fsync(fd)

    def move(path: Path, target: Path) -> Path:
        if path.name == "manifest.json":
            before.update(synced)
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", move)
    outcome = receive(folder, Migration("none").connections, output=form)
    assert outcome.error is None
    assert {path.stat().st_ino for path in [outcome.out, *outcome.out.rglob("*")]} <= before


# ---- Ends -------------------------------------------------------------------------------------------------------


def fail_with(error: Exception) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


def check_nothing_is_left(outcome: Outcome) -> None:
    assert not outcome.out.exists()
    assert not compressing()


@pytest.mark.parametrize("lag", [0, 64])
def test_a_chunk_that_the_disk_has_no_room_for_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lag: int
) -> None:
    monkeypatch.setattr(writer, "LAG", lag)
    monkeypatch.setattr(Path, "write_bytes", fail_with(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    outcome = receive(folder, Migration("none").connections, output="zarr")
    assert isinstance(outcome.error, OSError)
    assert outcome.error.errno == errno.ENOSPC
    check_nothing_is_left(outcome)


@pytest.mark.usefixtures("at_once")
def test_a_chunk_that_cannot_be_stored_ends_a_migration_that_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", fail_with(OSError(errno.EIO, "Input/output error")))
    feed = Feed(folder, output="zarr", channels=1)
    control = Replay(feed.path, [main_channel(PAGES)])
    data = pages_of(5, 1)[0]
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(feed.path))
        channel.sendall(initial(0) + header(flags=SYNC))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not feed.outcome.error:
                channel.sendall(header(normal=[1], next_packet_size=PAGE) + data)
        outcome = feed.finish()
    control.join()
    assert isinstance(outcome.error, OSError)
    assert outcome.error.errno == errno.EIO
    check_nothing_is_left(outcome)


def test_a_device_that_fails_is_told_without_a_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Receiver, "run", fail_with(QplError("the device failed on block 1 of 16")))
    words = ["receive", "--listen", f"unix:{folder}/s", "--channels", "1", "--output", f"{folder}/out"]
    assert main([*words, "--format", "zarr"]) == 1
    listening, *said = capsys.readouterr().err.splitlines()
    assert listening == f"listening at unix:{folder}/s"
    assert said == ["numcodecs-qpl: error: the device failed on block 1 of 16"]
    assert not list(folder.iterdir())


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a chunk is being compressed, which takes a while then."""
    begun = threading.Event()
    real = QPL.encode

    def encode(codec: QPL, data: Any) -> bytes:
        begun.set()
        threading.Event().wait(0.3)
        return real(codec, data)

    monkeypatch.setattr(QPL, "encode", encode)
    return begun


@pytest.mark.usefixtures("at_once")
def test_a_source_that_ends_while_chunks_are_compressed_leaves_nothing(folder: Path, slow: threading.Event) -> None:
    """The source ends in mid-packet, as soon as a chunk is being compressed."""
    feed = Feed(folder, output="zarr", channels=1)
    control = Replay(feed.path, [main_channel(PAGES)])
    channel = Channel(0, "none")
    channel.send(0, {}, flags=SYNC)
    channel.send(1, dict(enumerate(pages_of(5, PACKET))))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(feed.path))
        sock.sendall(channel.content + header(flags=SYNC)[:700])
        assert slow.wait(PATIENCE)
    outcome = feed.finish()
    control.join()
    assert "bytes were missing" in str(outcome.error)
    check_nothing_is_left(outcome)


def test_a_signal_while_chunks_are_compressed_leaves_nothing(folder: Path) -> None:
    words = ["--listen", f"unix:{folder}/s", "--channels", "1", "--output", f"{folder}/out", "--format", "zarr"]
    with Command("receive", *words) as receiver:
        control = send_guest(folder, filled=256, empty=0)
        wait_until(lambda: stored(folder / "out"), "a chunk")
        receiver.signal(signal.SIGTERM)
        done = receiver.finish()
        control.join()
    assert done.returncode == 143
    assert "Traceback" not in done.stderr
    assert not list(folder.iterdir())
