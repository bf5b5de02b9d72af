"""Snapshots of a guest that share the files of equal chunks."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import PATIENCE, Command, wait_until
from guest import Guest
from handmade import PAGE, SYNC, Channel, Feed, Migration, pages_of, receive
from misuse import misuse
from programs import give_up, need
from received import (
    CHUNK,
    PACKET,
    array_of,
    change,
    flip,
    main_channel,
    main_pages,
    mode_of,
    received,
    sent_again,
    stored,
)
from streams import Replay
from way import DATA_AT, migrate

from numcodecs_qpl.cli import main
from numcodecs_qpl.multifd.folder.reader import ReceivedFolder

COUNT = 4 * CHUNK
"""Pages of the guest. The last chunk is all zeros at first."""
RAM = [*pages_of(8, COUNT - CHUNK), *[bytes(PAGE)] * CHUNK]
FIRST = {0, 1, 2}
"""Chunks that the first snapshot stores."""


def connections(ram: list[bytes]) -> list[bytes]:
    """A migration of this memory over one channel; `main_pages` tells what arrives."""
    channel = Channel(0, "none")
    channel.send(0, {}, flags=SYNC)
    for start in range(0, len(ram), PACKET):
        numbers = [number for number in range(start, start + PACKET) if number not in (150, 151)]
        normal = {number: ram[number] for number in numbers if any(ram[number])}
        channel.send(0, normal, [number for number in numbers if number not in normal])
    for _ in range(2):
        channel.send(0, {}, flags=SYNC)
    return [main_channel(len(ram)), bytes(channel.content)]


def snapshot(folder: Path, ram: list[bytes], like: Path | None = None) -> Path:
    """Receive this memory; return where it is."""
    folder.mkdir()
    outcome = receive(folder, connections(ram), output="zarr", channels=1, like=like)
    assert outcome.error is None
    return outcome.out


def chunk(out: Path, number: int) -> Path:
    return out / f"ram.zarr/m/c.{number}.0"


def shared(first: Path, second: Path) -> set[int]:
    """The chunks that are one file in both."""
    both = stored(first) & stored(second)
    return {number for number in both if chunk(first, number).samefile(chunk(second, number))}


def changed(ram: list[bytes], *numbers: int) -> list[bytes]:
    """The memory with other content in these pages."""
    new = ram.copy()
    for number in numbers:
        new[number] = pages_of(9, COUNT)[number]
    return new


def check(out: Path, ram: list[bytes]) -> None:
    """All of the snapshot is whole, and it has this memory."""
    with ReceivedFolder(out) as whole:
        whole.verify()
    assert array_of(out) == b"".join(main_pages(ram))


# ---- What is shared ---------------------------------------------------------------------------------------------


def test_equal_chunks_are_stored_once_and_others_are_not_shared(folder: Path) -> None:
    first = snapshot(folder / "a", RAM)
    ram = changed(RAM, CHUNK + 7, 3 * CHUNK)
    second = snapshot(folder / "b", ram, first)
    assert (stored(first), stored(second)) == (FIRST, {0, 1, 2, 3})
    assert shared(first, second) == {0, 2}
    assert {chunk(second, number).stat().st_nlink for number in (1, 3)} == {1}
    check(first, RAM)
    check(second, ram)
    assert {mode_of(path) for path in second.rglob("*") if path.is_file()} == {0o600}


def test_a_chunk_that_has_become_zeros_is_not_stored(folder: Path) -> None:
    first = snapshot(folder / "a", RAM)
    ram = [*RAM[:CHUNK], *[bytes(PAGE)] * (3 * CHUNK)]
    second = snapshot(folder / "b", ram, first)
    assert stored(second) == {0, 150 // CHUNK}
    assert shared(first, second) == {0}
    check(second, ram)


def test_ten_snapshots_of_a_guest_that_does_not_change_share_all_chunks(folder: Path) -> None:
    out = snapshot(folder / "0", RAM)
    for number in range(1, 10):
        out = snapshot(folder / f"{number}", RAM, out)
    assert {chunk(out, number).stat().st_nlink for number in FIRST} == {10}
    check(out, RAM)


def test_a_snapshot_is_whole_when_those_before_it_are_removed(folder: Path) -> None:
    first = snapshot(folder / "a", RAM)
    ram = changed(RAM, CHUNK)
    second = snapshot(folder / "b", ram, first)
    assert shared(first, second)
    shutil.rmtree(first)
    check(second, ram)
    again = sent_again(second, folder / "c", 2)
    assert again.ram() == b"".join(main_pages(ram))


@pytest.mark.parametrize("zero", [False, True])
def test_a_shared_chunk_that_changes_before_the_migration_ends_leaves_the_earlier_snapshot_as_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, zero: bool
) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.folder.writer.LAG", 0)
    first = snapshot(folder / "a", RAM)
    opening, content = connections(RAM)
    channel = Channel(0, "none")
    ram = RAM.copy()
    if zero:
        channel.send(0, {}, range(CHUNK, 2 * CHUNK))
        ram[CHUNK : 2 * CHUNK] = [bytes(PAGE)] * CHUNK
    else:
        ram = changed(RAM, CHUNK + 5)
        channel.send(0, {CHUNK + 5: ram[CHUNK + 5]})
    end = content[-2 * 1344 :]
    (folder / "b").mkdir()
    feed = Feed(folder / "b", channels=1, like=first)
    replay = Replay(feed.path, [opening])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(feed.path))
        sock.sendall(content[: -len(end)])
        wait_until(lambda: chunk(first, 1).stat().st_nlink == 2, "the chunk to be shared")
        sock.sendall(bytes(channel.content[64:]) + end)
        sock.shutdown(socket.SHUT_WR)
        outcome = feed.finish()
    replay.join()
    assert outcome.error is None
    assert shared(first, outcome.out) == {0, 2}
    check(first, RAM)
    check(outcome.out, ram)


def test_a_page_is_shared_only_at_its_own_place(folder: Path) -> None:
    first = snapshot(folder / "a", RAM)
    ram = [*RAM[:CHUNK], *RAM[2 * CHUNK : 3 * CHUNK], *RAM[CHUNK : 2 * CHUNK], *RAM[3 * CHUNK :]]
    second = snapshot(folder / "b", ram, first)
    assert shared(first, second) == {0}
    check(second, ram)


# ---- Earlier snapshots that cannot give a chunk -------------------------------------------------------------------


CHUNK_DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda path: flip(path, 9000),
    "a flipped bit of the checksum": lambda path: flip(path, path.stat().st_size - 6),
    "a file that ends too early": lambda path: os.truncate(path, 9000),
    "an empty file": lambda path: os.truncate(path, 0),
    "no file": Path.unlink,
    "other bytes with the same checksum": lambda path: path.write_bytes(b"x" * 9000 + path.read_bytes()[-8:]),
}


@pytest.mark.parametrize("damage", CHUNK_DAMAGE)
def test_a_damaged_chunk_is_not_shared(folder: Path, damage: str) -> None:
    first = snapshot(folder / "a", RAM)
    CHUNK_DAMAGE[damage](chunk(first, 1))
    second = snapshot(folder / "b", RAM, first)
    assert shared(first, second) == {0, 2}
    check(second, RAM)


def test_two_contents_with_one_checksum_are_not_shared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = snapshot(folder / "a", RAM)
    trailer = int.from_bytes(chunk(first, 1).read_bytes()[-8:-4], "little")
    monkeypatch.setattr("numcodecs_qpl.multifd.folder.reader.crc32", lambda data: trailer)
    ram = changed(RAM, CHUNK + 9)
    second = snapshot(folder / "b", ram, first)
    assert 1 not in shared(first, second)
    assert array_of(second) == b"".join(main_pages(ram))


@pytest.mark.parametrize("number", [errno.EMLINK, errno.ENOENT])
def test_a_chunk_that_cannot_be_linked_to_is_stored(folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    first = snapshot(folder / "a", RAM)
    link = Path.hardlink_to

    def refuse(path: Path, target: Path) -> None:
        if target == chunk(first, 1):
            raise OSError(number, os.strerror(number))
        link(path, target)

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    second = snapshot(folder / "b", RAM, first)
    assert shared(first, second) == {0, 2}
    check(second, RAM)


def test_a_migration_that_fails_leaves_nothing_but_the_earlier_snapshot(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numcodecs_qpl.multifd.folder.writer.LAG", 0)
    first = snapshot(folder / "a", RAM)
    opening, content = connections(RAM)
    (folder / "b").mkdir()
    feed = Feed(folder / "b", channels=1, like=first)
    replay = Replay(feed.path, [opening])
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(feed.path))
        sock.sendall(content[:-700])
        wait_until(lambda: chunk(first, 2).stat().st_nlink == 2, "a chunk to be shared")
    outcome = feed.finish()
    replay.join()
    assert outcome.error is not None
    assert not outcome.out.exists()
    assert {path.stat().st_nlink for path in first.rglob("*") if path.is_file()} == {1}
    check(first, RAM)


# ---- The command ------------------------------------------------------------------------------------------------


def words(folder: Path, like: Path, form: str = "zarr") -> list[str]:
    listen = ["--listen", f"unix:{folder}/s", "--channels", "1"]
    return ["receive", *listen, "--output", f"{folder}/out", "--format", form, "--like", f"{like}"]


def test_the_command_tells_how_many_chunks_are_shared(folder: Path) -> None:
    first = snapshot(folder / "a", RAM)
    with Command(*words(folder, first)) as receiver:
        Replay(folder / "s", connections(changed(RAM, CHUNK))).join()
        done = receiver.finish()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1:] == [f"2 of 3 chunks are links to {first}"]
    assert shared(first, folder / "out") == {0, 2}


def refused(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], like: Path) -> str:
    """The message of a command that must not listen, and leaves nothing."""

    def listen(_: object) -> None:
        raise AssertionError("it listens")

    monkeypatch.setattr("numcodecs_qpl.cli.receive.Listener", listen)
    assert main(words(folder, like)) == 1
    assert not (folder / "out").exists()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("numcodecs-qpl: error: ")
    return said.err


def incomplete(out: Path) -> None:
    """Make the folder of a receiver that was killed."""
    (out / "incomplete-x").mkdir()
    (out / "manifest.json").rename(out / "incomplete-x/manifest.json")


FOLDER_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "not there": (shutil.rmtree, "does not exist; expected a folder that receive has written"),
    "incomplete": (incomplete, "manifest.json is missing"),
    "half a manifest": (lambda out: (out / "manifest.json").write_text('{"machine": '), "is damaged, or of"),
    "no blocks": (lambda out: change(out, blocks=[]), "is damaged, or of"),
}


@pytest.mark.parametrize("damage", FOLDER_DAMAGE)
def test_an_earlier_folder_that_is_not_whole_is_an_error_before_it_listens(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    first = snapshot(folder / "a", RAM)
    harm, message = FOLDER_DAMAGE[damage]
    harm(first)
    assert message in refused(folder, monkeypatch, capsys, first)


def test_an_earlier_folder_of_the_format_raw_is_an_error_before_it_listens(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = received(folder / "a", Migration("none").connections)
    assert "has the format raw" in refused(folder, monkeypatch, capsys, first)


def test_an_earlier_folder_with_other_pages_is_an_error_before_it_listens(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = received(folder / "a", Migration("none").connections, "zarr")
    block = {"name": "m", "used_length": 16384, "page_size": 16384, "crc32": 0}
    change(first, blocks=[block])
    assert "has pages of 16384 bytes; expected 4096 bytes" in refused(folder, monkeypatch, capsys, first)


def test_an_earlier_folder_of_another_user_is_an_error_before_it_listens(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = snapshot(folder / "a", RAM)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert f"belongs to another user (uid {owner})" in refused(folder, monkeypatch, capsys, first)


def test_an_earlier_folder_on_another_file_system_is_an_error_before_it_listens(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == folder.stat().st_dev:
        give_up("/dev/shm is not a file system of its own")
    first = snapshot(folder / "a", RAM)
    there = memory / f"snapshots-{os.getpid()}"
    shutil.copytree(first, there)
    try:
        said = refused(folder, monkeypatch, capsys, there)
    finally:
        shutil.rmtree(there)
    assert f"cannot share chunks with {there}: Invalid cross-device link" in said


def test_raw_files_cannot_be_shared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--like needs --format zarr" in misuse(capsys, *words(folder, folder / "a", "raw"))


# ---- Guests of real QEMUs -----------------------------------------------------------------------------------------


def test_a_guest_goes_on_after_each_snapshot_and_the_second_is_restored_without_the_first(
    folder: Path, firmware: dict[bool, Path], data: Path
) -> None:
    need("qemu-system-x86_64", "nasm")
    hashes = []
    with Guest(folder, "a", firmware=firmware[True], data=(data, DATA_AT)) as source:
        source.set_migration(2)
        source.wait_dirtied(PATIENCE)
        source.set_capabilities("return-path")
        for name, more in (("first", []), ("second", ["--like", f"{folder}/first"])):
            out = ["--channels", "2", "--output", f"{folder}/{name}", "--format", "zarr"]
            source.stop()  # QEMU 7.2 under TCG misses pages of a guest that runs on since an earlier migration
            with Command("receive", "--listen", f"unix:{folder}/s", *out, *more) as receiver:
                assert migrate(source, f"unix:{folder}/s", dirty=False)["status"] == "completed"
                assert receiver.finish().returncode == 0
            hashes.append(source.ram_sha256())
            source.cont()
            assert source.is_running_and_dirtying(PATIENCE)
    assert hashes[0] != hashes[1]
    links = [path.stat().st_nlink for path in (folder / "second").rglob("*") if path.is_file()]
    assert 2 in links
    shutil.rmtree(folder / "first")
    with Guest(folder, "b", firmware=firmware[True], incoming=True, paused=True) as destination:
        destination.set_migration(2)
        destination.listen(f"unix:{folder}/s")
        command = ["numcodecs-qpl", "send", f"{folder}/second", "--connect", f"unix:{folder}/s", "--channels", "2"]
        subprocess.run(command, check=True, timeout=PATIENCE)
        assert destination.wait_migration(PATIENCE)["status"] == "completed"
        assert destination.ram_sha256() == hashes[1]
        destination.cont()
        assert destination.is_running_and_dirtying(PATIENCE)
