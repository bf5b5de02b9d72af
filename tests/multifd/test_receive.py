"""The receiver and its command, with recorded migrations and one made by hand."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID
from zlib import crc32

import numpy as np
import pytest
import zarr
from commands import PATIENCE, Command, wait_until
from handmade import (
    DESCRIPTION,
    DEVICE_STATE,
    EOS,
    FLUSH,
    HEADER,
    METHODS,
    PAGE,
    SYNC,
    ZERO,
    Channel,
    Feed,
    Migration,
    device_state,
    early_device,
    failure,
    initial,
    named,
    packets_of,
    pages_of,
    receive,
    u32,
    u64,
)
from misuse import misuse
from received import mode_of
from streams import NAMES, Recording, Replay, recording

from numcodecs_qpl.cli import main
from numcodecs_qpl.multifd.folder.writer import RawOutput
from numcodecs_qpl.multifd.receiver import DISKS

IDLE = recording("qemu-11.0.92-none")
BEGINNINGS = "the main channel begins with 0x5145564d, a multifd channel with 0x11223344"
OURS = UUID("12345678-9abc-def0-1234-56789abcdef0")


def command(folder: Path, *more: str, channels: int = 2, prefix: Sequence[str] = ()) -> Command:
    words = ["--listen", f"unix:{folder}/s", "--channels", str(channels), "--output", f"{folder}/out"]
    return Command("receive", *words, *more, prefix=prefix)


def failed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Message of a command that fails before it listens."""
    assert main(["receive", *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "out" / "manifest.json").read_text())
    return manifest


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


# ---- What is told -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qemu-7.2.22-none", "qemu-11.0.92-none"])
@pytest.mark.parametrize("page_size", ["16384", "65536"])
def test_a_page_size_that_is_not_the_guests_is_named(folder: Path, name: str, page_size: str) -> None:
    with command(folder, "--page-size", page_size) as receiver:
        Replay(folder / "s", recording(name).connections).join()
        done = receiver.finish()
    assert done.returncode == 1
    assert "--page-size" in done.stderr


def test_tls_of_a_qemu_is_refused_by_its_name(folder: Path) -> None:
    with command(folder) as receiver, socket.socket(socket.AF_UNIX) as source:
        source.settimeout(PATIENCE)
        source.connect(f"{folder}/s")
        source.sendall(b"\x16\x03\x01\x02\x00\x01" + bytes(64))
        with contextlib.suppress(ConnectionResetError):
            assert source.recv(1) == b""
        receiver.signal(signal.SIGTERM)
        said = receiver.finish().stderr
    assert said.startswith("refused a connection: magic: 0x16")
    assert said.endswith("It is TLS: listen at tls:HOST:PORT, or turn off tls-creds in the source\n")


# ---- What is kept -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "output"), list(zip(NAMES, itertools.cycle(["raw", "zarr"]), strict=False)))
def test_every_recording_becomes_its_ram_and_a_manifest(folder: Path, name: str, output: str) -> None:
    source = recording(name)
    outcome = receive(folder, source.connections, output=output)
    assert (outcome.error, outcome.refused) == (None, [])
    manifest = manifest_of(folder)
    assert ram_of(folder, manifest) == source.meta["ram_sha256"]
    check_manifest(manifest.copy(), source, output)
    state = (folder / "out" / "device-state.bin").read_bytes()
    assert state == source.main[end_of_ram(source.main) :]
    files = [block["file"] for block in manifest["blocks"]] if output == "raw" else ["ram.zarr"]
    assert {path.name for path in (folder / "out").iterdir()} == {"manifest.json", "device-state.bin", *files}
    assert not (folder / "s").exists()


@pytest.mark.parametrize("output", ["raw", "zarr"])
def test_the_command_tells_what_it_has_received(folder: Path, output: str) -> None:
    with command(folder, "--format", output) as receiver:
        Replay(folder / "s", IDLE.connections).join()
        done = receiver.finish()
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"{folder}/out: 6 RAM blocks; \d+ pages, \d+ zero ones, \d+ of them sent again; \d+ bytes in [\d.]+ s\n",
        done.stdout,
    )
    assert manifest_of(folder)["format"] == output
    assert ram_of(folder, manifest_of(folder)) == IDLE.meta["ram_sha256"]


@pytest.mark.parametrize("output", ["raw", "zarr"])
@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_what_is_kept_is_the_owners_alone_whatever_the_umask_allows(folder: Path, umask: int, output: str) -> None:
    before = os.umask(umask)
    try:
        feed = Feed(folder, output=output)
        with open_connections(folder, [IDLE.main], 50_000) as sockets:
            wait_until(lambda: list((folder / "out").glob("incomplete-*/*")), "the main channel")
            (work,) = (folder / "out").iterdir()
            assert {mode_of(folder / "out"), mode_of(work)} == {0o700}
            rest = Replay(folder / "s", IDLE.channels)
            finish_connections(sockets, [IDLE.main], 50_000)
            assert feed.finish().error is None
            rest.join()
    finally:
        os.umask(before)
    kept = list((folder / "out").rglob("*"))
    assert {mode_of(path) for path in kept if path.is_file()} == {0o600}
    assert {mode_of(path) for path in [folder / "out", *kept] if path.is_dir()} == {0o700}


def ram_of(folder: Path, manifest: dict[str, Any]) -> str:
    block = manifest["blocks"][0]
    if "file" in block:
        return hashlib.sha256((folder / "out" / block["file"]).read_bytes()).hexdigest()
    group, _, name = block["array"].partition("/")
    array = array_of(zarr.open_group(folder / "out" / group, mode="r"), name)
    return hashlib.sha256(np.asarray(array[:]).tobytes()).hexdigest()


def ram_section(main: bytes) -> bytes:
    """The number of the section, as it stands in the stream."""
    section = re.search(rb"\x01(....)\x03ram", main, re.DOTALL)
    assert section is not None
    return section[1]


def end_of_ram(main: bytes) -> int:
    """Offset of the device state: after the last record of RAM and the footer of its section."""
    last = u64(EOS) + b"\x7e" + ram_section(main)
    return main.rindex(last) + len(last)


def description_of(main: bytes) -> bytes:
    """Return the text after EOF, the byte 06 and the length, which ends the stream."""
    marks = [mark.end() for mark in re.finditer(rb"\x00\x06(?=....\{)", main, re.DOTALL)]
    return next(main[at + 4 :] for at in marks if at + 4 + int.from_bytes(main[at : at + 4]) == len(main))


def check_manifest(manifest: dict[str, Any], source: Recording, output: str) -> None:
    packets = [packet for channel in source.channels for packet in packets_of(channel)]
    in_ram = manifest["pages"]
    assert in_ram["normal"] == sum(fields["normal_pages"] for _, fields, _ in packets)
    assert in_ram["zero"] == source.meta["ram"]["duplicate"]
    assert in_ram["normal"] + in_ram["zero"] - in_ram["sent_again"] == source.meta["ram"]["total"] // PAGE
    if not source.meta["qemu"]["major"] < 9:
        assert in_ram["zero"] == sum(fields["zero_pages"] for _, fields, _ in packets)
    described = json.loads(description_of(source.main))
    wire = {str(channel[24]): len(channel) for channel in source.channels}
    seconds = manifest.pop("seconds")
    assert 0 < seconds < PATIENCE
    del manifest["pages"]
    blocks = manifest.pop("blocks")
    size = source.main[12]
    assert manifest == {
        "machine": source.main[13 : 13 + size].decode(),
        "configuration": {},
        "uuid": str(UUID(int=0)),
        "main_channel": {
            "ram_section": int.from_bytes(ram_section(source.main)),
            "footers": True,
            "flush_records": source.meta["qemu"]["major"] > 7,
            "early_bytes": 0,
        },
        "methods": [source.meta["method"]],
        "channels": source.meta["channels"],
        "rounds": sum(fields["flags"] & SYNC for _, fields, _ in packets_of(source.channels[0])),
        "packets": len(packets),
        "bytes_on_the_wire": {"main": len(source.main), **wire, "total": sum(map(len, source.connections))},
        "devices": [device["name"] for device in described["devices"]],
        "format": output,
        "device_state": [{"file": "device-state.bin", "crc32": crc32(source.main[end_of_ram(source.main) :])}],
        "disks": DISKS,
    }
    lengths = {"m": 16 << 20, "/rom@etc/acpi/tables": 0x20000, "pc.rom": 0x20000, "pc.bios": 0x10000}
    lengths |= {"/rom@etc/table-loader": 0x1000, "/rom@etc/acpi/rsdp": 0x1000}
    assert {block["name"]: block["used_length"] for block in blocks} == lengths
    assert all(block["pages_received"] * block["page_size"] == block["used_length"] for block in blocks)
    assert all(0 <= block["crc32"] < 1 << 32 for block in blocks)


def test_the_zarr_group_is_of_our_codec_and_stores_no_chunk_of_zeros(folder: Path) -> None:
    outcome = receive(folder, IDLE.connections, output="zarr")
    assert outcome.manifest is not None
    group = zarr.open_group(outcome.out / "ram.zarr", mode="r")
    assert {str(array.attrs["name"]) for _, array in group.arrays()} == {
        block["name"] for block in outcome.manifest["blocks"]
    }
    for entry in outcome.manifest["blocks"]:
        array = array_of(group, entry["array"].partition("/")[2])
        assert (array.shape, array.dtype) == ((entry["used_length"] // PAGE, PAGE), np.dtype(np.uint8))
        codecs = json.loads((outcome.out / entry["array"] / "zarr.json").read_text())["codecs"]
        assert "numcodecs_qpl.qpl" in [codec["name"] for codec in codecs]
    ram = np.asarray(array_of(group, "m")[:])
    chunk = array_of(group, "m").chunks[0]
    stored = {int(path.name.split(".")[1]) for path in (outcome.out / "ram.zarr" / "m").glob("c.*.0")}
    assert stored == {number for number in range(len(ram) // chunk) if ram[number * chunk :][:chunk].any()}
    assert 0 < len(stored) < len(ram) // chunk


def test_zarr_alone_reads_the_group(folder: Path) -> None:
    source = Migration("none")
    outcome = receive(folder, source.connections, output="zarr")
    program = "import sys, zarr; sys.stdout.buffer.write(zarr.open_group(sys.argv[1], mode='r')['m'][:].tobytes())"
    done = subprocess.run([sys.executable, "-c", program, outcome.out / "ram.zarr"], capture_output=True, check=True)
    assert done.stdout == source.ram


def test_pages_of_zeros_are_holes_in_raw_files(folder: Path) -> None:
    outcome = receive(folder, recording("qemu-11.0.92-qpl").connections)
    status = (outcome.out / "m.bin").stat()
    assert status.st_size == 16 << 20
    assert status.st_blocks * 512 < 4 << 20


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("output", ["raw", "zarr"])
def test_a_migration_made_by_hand_arrives(folder: Path, method: str, output: str) -> None:
    source = Migration(method)
    outcome = receive(folder, source.connections, output=output)
    assert (outcome.error, outcome.refused) == (None, [])
    assert outcome.manifest is not None
    assert outcome.manifest["methods"] == [method]
    assert outcome.manifest["pages"] == {"normal": 137, "zero": 5, "sent_again": 3}
    assert outcome.manifest["blocks"][0]["pages_received"] == 139
    assert ram_of(folder, outcome.manifest) == hashlib.sha256(source.ram).hexdigest()


def test_a_connection_that_comes_late_or_in_another_order_is_no_matter(folder: Path) -> None:
    source = Migration("qpl")
    feed = Feed(folder)
    later = Replay(feed.path, [source.connections[2]])
    wait_until(lambda: feed.receiver.counts.packets, "the second channel's first packet")
    first = Replay(feed.path, [source.connections[1], source.connections[0]])
    outcome = feed.finish()
    for replay in (later, first):
        replay.join()
    assert outcome.error is None
    assert outcome.ram() == source.ram


@pytest.mark.parametrize("part", ["start", "part"])
@pytest.mark.parametrize("blocks", [1, 64, 65, 1000])
def test_virtio_mem_that_comes_before_guest_memory_is_kept(folder: Path, blocks: int, part: str) -> None:
    source = Migration("none")
    early = early_device(region=blocks << 21)
    source.main[part] = early + source.main[part]
    outcome = receive(folder, source.connections)
    assert outcome.error is None
    assert outcome.ram() == source.ram
    assert outcome.manifest is not None
    assert outcome.manifest["main_channel"]["early_bytes"] == len(early)
    kept = (outcome.out / "device-state.bin").read_bytes()
    assert kept == early + source.main["devices"] + b"\0\x06" + u32(len(DESCRIPTION)) + DESCRIPTION


@pytest.mark.parametrize("method", METHODS)
def test_packets_of_device_state_are_kept_for_each_channel(folder: Path, method: str) -> None:
    source = Migration(method)
    main, first, second = source.connections
    states = [device_state(b"vfio", bytes(range(250)) * 800), device_state(b"vfio", b""), device_state(b"b", b"end")]
    outcome = receive(folder, [main, first[:64] + states[0] + first[64:] + states[2], second + states[1]])
    assert outcome.manifest is not None
    assert [entry["file"] for entry in outcome.manifest["device_state"]] == [
        "device-state-channel-0.bin",
        "device-state-channel-1.bin",
        "device-state.bin",
    ]
    assert [entry["crc32"] for entry in outcome.manifest["device_state"][:2]] == [
        crc32(states[0] + states[2]),
        crc32(states[1]),
    ]
    assert (outcome.out / "device-state-channel-0.bin").read_bytes() == states[0] + states[2]
    assert (outcome.out / "device-state-channel-1.bin").read_bytes() == states[1]
    assert outcome.manifest["packets"] == 12
    assert outcome.ram() == source.ram


def test_a_packet_of_device_state_can_end_a_round(folder: Path) -> None:
    source = Migration("none")
    state = device_state(b"vfio", b"state", flags=DEVICE_STATE | SYNC)
    first = bytes(source.channels[0].content[: -len(source.channels[0].packets[-1].header)])
    outcome = receive(folder, [source.connections[0], first + state, source.connections[2]])
    assert outcome.manifest is not None
    assert outcome.manifest["rounds"] == 3
    assert outcome.ram() == source.ram


# ---- Rounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", ["channel 1", "main"])
@pytest.mark.parametrize("method", METHODS)
def test_an_older_copy_that_comes_late_does_not_win_over_the_next_rounds(folder: Path, method: str, ahead: str) -> None:
    old, new = pages_of(11, 1)[0], pages_of(12, 1)[0]
    slow, fast = Channel(0, method), Channel(1, method)
    slow.send(0, {5: old})
    slow.send(1, {}, flags=SYNC)
    fast.send(2, {}, flags=SYNC)
    main = Migration(method).main
    del main["flush 2"], main["flush 3"]  # one round, and what follows it
    del main["return path"]  # a confirmation would not wait for what follows the last round
    if ahead == "main":
        main["end id"] += u64(5 * PAGE | ZERO) + named(b"m") + b"\x09"
        new = b"\x09" * PAGE
    else:
        fast.send(3, {5: new})
    feed = Feed(folder)
    quick = Replay(feed.path, [b"".join(main.values()), bytes(fast.content)])
    with socket.socket(socket.AF_UNIX) as late:
        late.connect(str(feed.path))
        late.sendall(slow.content[:64])
        wait_until(lambda: feed.receiver.counts.packets == 1, "the quick channel's SYNC")
        wait_until(lambda: feed.receiver.blocks, "the main channel")
        time.sleep(0.3)  # for whoever does not wait at the end of the round, as it should
        assert feed.receiver.counts.normal_pages == 0
        late.sendall(slow.content[64:])
        late.shutdown(socket.SHUT_WR)
        outcome = feed.finish()
    quick.join()
    assert outcome.error is None
    assert outcome.ram()[5 * PAGE : 6 * PAGE] == new
    assert outcome.manifest is not None
    assert outcome.manifest["pages"]["sent_again"] == 1


@pytest.mark.parametrize(("flushes", "rounds"), [(False, 3), (True, 3)])
def test_a_round_ends_with_a_section_where_there_are_no_flush_records(folder: Path, flushes: bool, rounds: int) -> None:
    source = Migration("none")
    if not flushes:
        for name in ("flush", "flush 2", "flush 3"):
            assert source.main.pop(name) == u64(FLUSH)
    outcome = receive(folder, source.connections)
    assert outcome.manifest is not None
    assert outcome.manifest["rounds"] == rounds
    assert outcome.ram() == source.ram


ACK = struct.pack(">HH", 7, 0)
CONFIRMATION = struct.pack(">HHI", 1, 4, 0)


@pytest.mark.parametrize(
    ("machine", "flushes", "alloc", "acknowledged"),
    [
        (b"pc-q35-11.0", True, 128, ACK),
        (b"pc-i440fx-7.2", False, 0, ACK),
        (b"pc-q35-7.2", False, 128, b""),
        (b"pc-q35-11.1", True, 0, b""),
        (b"isapc", True, 0, b""),
    ],
    ids=[
        "machine type from 8.1 on",
        "older machine type on QEMU from 9.2 on",
        "QEMU up to 8.0",
        "from 11.1 on",
        "other",
    ],
)
def test_the_return_path_is_answered(
    folder: Path, machine: bytes, flushes: bool, alloc: int, acknowledged: bytes
) -> None:
    source = Migration("none")
    source.main["machine length"], source.main["machine"] = u32(len(machine)), machine
    source.main["return path"] += b"\x08" + struct.pack(">HH", 2, 4) + b"ping"
    if not flushes:
        for name in ("flush", "flush 2", "flush 3"):
            del source.main[name]
    for channel in source.channels:
        for packet in channel.packets:
            if packet.header[11] & SYNC:
                channel.content[packet.start + 12 : packet.start + 16] = u32(alloc)
    expected = struct.pack(">HH4s", 2, 4, b"ping") + acknowledged
    feed = Feed(folder)
    channels = Replay(feed.path, source.connections[1:])
    with socket.socket(socket.AF_UNIX) as main:
        main.settimeout(PATIENCE)
        main.connect(str(feed.path))
        end = source.connections[0].index(source.main["page content"])  # the source sends on, until it has the reply
        main.sendall(source.connections[0][:end])
        assert said(main, len(expected)) == expected
        main.sendall(source.connections[0][end:])
        assert said(main, 8) == CONFIRMATION
        main.shutdown(socket.SHUT_WR)
        outcome = feed.finish()
    channels.join()
    assert outcome.error is None


@pytest.mark.parametrize("output", ["raw", "zarr"])
def test_the_source_has_its_confirmation_when_the_guest_is_on_the_disk(folder: Path, output: str) -> None:
    source = Migration("qpl")
    feed = Feed(folder, output=output)
    with connected(feed.path, source.connections) as sockets:
        assert said(sockets[0], 8) == CONFIRMATION
        assert (feed.outcome.out / "manifest.json").exists()
        sockets[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # however it ends
    outcome = feed.finish()
    assert outcome.error is None
    assert outcome.manifest == json.loads((outcome.out / "manifest.json").read_text())


def test_the_source_has_no_confirmation_of_what_cannot_be_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(output: RawOutput, manifest: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RawOutput, "complete", full)
    source = Migration("qpl")
    feed = Feed(folder)
    with connected(feed.path, source.connections) as sockets:
        assert said(sockets[0], 8) == b""
    outcome = feed.finish()
    assert isinstance(outcome.error, OSError)
    assert not outcome.out.exists()


def test_what_comes_after_the_confirmation_is_an_error_and_what_was_kept_stays(folder: Path) -> None:
    source = Migration("none")
    feed = Feed(folder)
    with connected(feed.path, source.connections) as sockets:
        assert said(sockets[0], 8) == CONFIRMATION
        sockets[1].sendall(device_state(b"vfio", b"late"))
        outcome = feed.finish()
    assert str(outcome.error) == (
        "channel 0, packet 6: it comes after the end of the main channel: the output lacks it"
    )
    assert outcome.ram() == source.ram


def test_a_source_that_stays_after_its_confirmation_does_not_spoil_the_guest(folder: Path) -> None:
    source = Migration("none")
    feed = Feed(folder, timeout=0.5)
    with connected(feed.path, source.connections) as sockets:
        assert said(sockets[0], 8) == CONFIRMATION
        outcome = feed.finish()
    assert outcome.error is None
    assert outcome.ram() == source.ram


@contextlib.contextmanager
def connected(path: Path, contents: list[bytes]) -> Iterator[list[socket.socket]]:
    """Connections that have sent their contents and stay open."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in contents]
        for sock in sockets:
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
        with ThreadPoolExecutor(len(sockets)) as senders:
            list(senders.map(lambda sock, content: sock.sendall(content), sockets, contents))
        yield sockets


def said(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


# ---- Who may come -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (IDLE.main[:50], "main channel: it is connected already"),
        (initial(0), "channel 0: it is connected already"),
        (initial(2), "channel 2: id: 2, but 2 channels are expected: as many as the source's multifd-channels"),
        (initial(255), "channel 255: id: 255, but 2 channels are expected: as many as the source's multifd-channels"),
        (initial(1, uuid=OURS), f"channel 1: uuid: {OURS}, but channel 0 has {UUID(int=0)}"),
        (initial(1, version=2), "version: 2; expected 1"),
        (
            initial(1, magic=0x11223345),
            f"magic: 0x11223345; {BEGINNINGS}",
        ),
        (
            b"GET / HTTP/1.1\r\n" + bytes(64),
            f"magic: 0x47455420; {BEGINNINGS}",
        ),
        (b"QEV", "it closed after 3 bytes, before it identified itself"),
        (initial(1)[:63], "it closed after 63 bytes, before it identified itself"),
        (b"", "it closed after 0 bytes, before it identified itself"),
    ],
)
def test_a_stranger_is_turned_away_and_the_migration_goes_on(folder: Path, what: bytes, message: str) -> None:
    feed = Feed(folder)
    with open_connections(folder, [IDLE.main, IDLE.channels[0]], 500) as sockets:
        # A stranger that is taken before the channel would be the guest's, and the channel the stranger.
        wait_until(lambda: feed.receiver.bytes_received() > 500, "both connections")
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(PATIENCE)
            stranger.connect(f"{folder}/s")
            stranger.sendall(what)
            stranger.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
        rest = Replay(folder / "s", [IDLE.channels[1]])
        finish_connections(sockets, [IDLE.main, IDLE.channels[0]], 500)
        outcome = feed.finish()
        rest.join()
    assert (outcome.error, outcome.refused) == (None, [message])
    assert ram_of(folder, manifest_of(folder)) == IDLE.meta["ram_sha256"]


@contextlib.contextmanager
def open_connections(folder: Path, contents: list[bytes], until: int) -> Iterator[list[socket.socket]]:
    """Connections, one after the other, on which the beginnings of `contents` were sent."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in contents]
        for sock, content in zip(sockets, contents, strict=True):
            sock.connect(f"{folder}/s")
            sock.sendall(content[:until])
        yield sockets


def finish_connections(sockets: list[socket.socket], contents: list[bytes], since: int) -> None:
    def play(sock: socket.socket, content: bytes) -> None:
        sock.sendall(content[since:])
        sock.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=play, args=pair) for pair in zip(sockets, contents, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("uuid", [None, OURS])
def test_a_guest_with_a_uuid_is_accepted_whether_it_is_expected_or_not(folder: Path, uuid: UUID | None) -> None:
    outcome = receive(folder, with_uuid(IDLE.connections), uuid=uuid)
    assert (outcome.error, outcome.refused) == (None, [])
    assert manifest_of(folder)["uuid"] == str(OURS)
    assert ram_of(folder, manifest_of(folder)) == IDLE.meta["ram_sha256"]


def with_uuid(connections: list[bytes]) -> list[bytes]:
    main, *channels = connections
    return [main, *(content[:8] + OURS.bytes + content[24:] for content in channels)]


def test_a_guest_with_another_uuid_than_the_option_is_refused(folder: Path) -> None:
    other = UUID(int=7)
    with command(folder, "--uuid", str(other)) as receiver:
        channels = Replay(folder / "s", with_uuid(IDLE.connections)[1:])
        channels.join()
        Replay(folder / "s", [IDLE.main[:50]]).join()
        done = receiver.finish()
    assert done.returncode == 1
    for channel in (0, 1):
        assert f"refused a connection: channel {channel}: uuid: {OURS}, but --uuid says {other}\n" in done.stderr
    assert not (folder / "out").exists()


def subsection(name: bytes, content: bytes) -> bytes:
    return b"\x05" + named(b"configuration/" + name) + u32(1) + content


def test_the_subsections_of_the_configuration_are_in_the_manifest(folder: Path) -> None:
    source = Migration("none")
    source.main["machine"] += (
        subsection(b"target-page-bits", u32(12))
        + subsection(b"capabilities", u32(2) + named(b"multifd") + named(b"validate-uuid"))
        + subsection(b"uuid", OURS.bytes)
    )
    outcome = receive(folder, with_uuid(source.connections))
    assert outcome.manifest is not None
    assert outcome.manifest["machine"] == "pc-q35"
    assert outcome.manifest["configuration"] == {
        "capabilities": ["multifd", "validate-uuid"],
        "target_page_bits": 12,
        "uuid": str(OURS),
    }
    assert outcome.ram() == source.ram


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            subsection(b"capabilities", u32(2) + named(b"multifd") + named(b"x-ignore-shared")),
            "the source has turned on 'x-ignore-shared', which cannot be followed: turn it off there "
            "(QMP migrate-set-capabilities) and migrate again",
        ),
        (
            subsection(b"capabilities", u32(2) + named(b"mapped-ram") + named(b"x-new")),
            "the source has turned on 'mapped-ram', 'x-new', which cannot be followed: turn it off there "
            "(QMP migrate-set-capabilities) and migrate again",
        ),
        (
            subsection(b"target-page-bits", u32(16)),
            "the guest's pages have 2**16 bytes; expected 4096: set --page-size",
        ),
        (
            subsection(b"target-page-bits", u32(2**32 - 1)),
            "the guest's pages have 2**4294967295 bytes; expected 4096: set --page-size",
        ),
    ],
)
def test_what_the_configuration_names_and_cannot_be_followed_is_refused_by_name(part: bytes, message: str) -> None:
    source = Migration("none")
    source.main["machine"] += part
    assert str(failure(source.connections)) == f"main channel: {message}"


def test_a_configuration_of_another_guest_than_the_channels_is_an_error(folder: Path) -> None:
    source = Migration("none")
    source.main["machine"] += subsection(b"uuid", OURS.bytes)
    feed = Feed(folder)
    channels = Replay(feed.path, source.connections[1:])
    wait_until(lambda: feed.receiver.counts.packets, "a channel")
    main = Replay(feed.path, source.connections[:1])
    error = feed.finish().error
    for replay in (channels, main):
        replay.join()
    assert re.fullmatch(rf"main channel: uuid: {OURS}, but channel [01] has {UUID(int=0)}", str(error))


ASK = r"\(is multifd on in the source, with as many multifd-channels\?\)"


@pytest.mark.parametrize(
    ("connections", "message"),
    [
        ([IDLE.main], f"of the main channel and 2 multifd channels, these did not connect: 0, 1 {ASK}"),
        ([IDLE.channels[0]], rf"of the main channel and 2 multifd channels, these did not connect: \d, main {ASK}"),
        ([*IDLE.connections], "all connections are there"),
    ],
)
def test_a_source_that_says_nothing_more_is_an_error_after_the_timeout(
    folder: Path, connections: list[bytes], message: str
) -> None:
    with (
        command(folder, "--timeout", "0.7") as receiver,
        open_connections(folder, connections, HEADER),
    ):
        done = receiver.finish()
    assert done.returncode == 1
    assert re.search(rf"error: nothing came for 0.7 s; {message}\n$", done.stderr)
    assert not (folder / "out").exists()


def test_a_main_channel_of_another_version_is_an_error(folder: Path) -> None:
    outcome = receive(folder, [b"QEVM" + struct.pack(">I", 2) + IDLE.main[8:], *IDLE.channels])
    assert str(outcome.error) == "main channel: version: 2; expected 3"
    assert not outcome.out.exists()


# ---- Usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "status", "output", "exists"),
    [
        (signal.SIGTERM, 143, "raw", False),
        (signal.SIGINT, 130, "raw", True),
        (signal.SIGHUP, 129, "zarr", False),
        (signal.SIGTERM, 143, "zarr", True),
    ],
)
def test_a_signal_ends_it_and_leaves_nothing(
    folder: Path, number: signal.Signals, status: int, output: str, exists: bool
) -> None:
    if exists:
        (folder / "out").mkdir()
    with command(folder, "--format", output) as receiver, open_connections(folder, IDLE.connections, 50_000):
        wait_until(lambda: list((folder / "out").glob("incomplete-*/device-state.bin")) or receiving(folder), "a start")
        receiver.signal(number)
        done = receiver.finish()
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    assert (folder / "out").exists() == exists
    assert {path.name for path in folder.rglob("*")} <= {"out"}


SIGNALLED = """
import itertools, pkgutil, signal, sys
from numcodecs_qpl.cli import main

def signalled(function, nth, number):
    calls = itertools.count(1)
    def wrapped(*arguments, **more):
        result = function(*arguments, **more)
        if next(calls) == nth:
            signal.raise_signal(number)
        return result
    return wrapped

for moment in sys.argv[1].split():
    name, nth, number = moment.split(",")
    where, _, attribute = name.rpartition(".")
    owner = pkgutil.resolve_name(where)
    setattr(owner, attribute, signalled(getattr(owner, attribute), int(nth), int(number)))
sys.exit(main(sys.argv[3:]))
"""
LISTENS, CLOSES = "socket.socket.listen", "numcodecs_qpl.multifd.transport.listener.Listener.close"
STARTS = "numcodecs_qpl.multifd.transport.intake.Intake.start"
MOVES, REMOVES = "pathlib.Path.rename", "shutil.rmtree"


def signalled(*moments: tuple[str, int, signal.Signals]) -> list[str]:
    """Prefix of a command to which signals come: after which function, after which of its calls, and which signal."""
    return [sys.executable, "-c", SIGNALLED, " ".join(f"{name},{nth},{number:d}" for name, nth, number in moments)]


def program(folder: Path, name: str, prefix: Sequence[str]) -> Command:
    if name == "receive":
        return command(folder, prefix=prefix)
    words = ["--listen", f"unix:{folder}/s", "--connect", f"unix:{folder}/t", "--from", "none", "--to", "qpl"]
    return Command("relay", *words, prefix=prefix)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", [LISTENS, STARTS], ids=["listens", "starts"])
@pytest.mark.parametrize("name", ["receive", "relay"])
def test_a_signal_at_the_very_beginning_ends_it_too(
    folder: Path, name: str, moment: str, number: signal.Signals
) -> None:
    done = program(folder, name, signalled((moment, 1, number))).finish()
    assert done.returncode == 128 + number
    assert "Traceback" not in done.stderr
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("receive", signal.SIGTERM),
        ("receive", signal.SIGHUP),
        ("relay", signal.SIGINT),
        ("relay", signal.SIGTERM),
    ],
)
def test_later_signals_do_not_interrupt_the_cleaning_up(folder: Path, name: str, number: signal.Signals) -> None:
    later = signalled((CLOSES, 1, signal.SIGTERM), (REMOVES, 1, signal.SIGINT))
    with program(folder, name, later) as running, socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(f"{folder}/s")
        running.signal(number)
        began = time.monotonic()
        done = running.finish()
    assert time.monotonic() - began < 3
    assert done.returncode == 128 + number
    assert "Traceback" not in done.stderr
    assert done.stdout.count('{"ended": ') == (name == "relay")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("number", "moved", "exists"),
    [
        (signal.SIGTERM, 1, False),
        (signal.SIGINT, 5, True),
        (signal.SIGTERM, 8, True),
        (signal.SIGINT, 8, False),
    ],
)
def test_a_signal_while_the_output_is_moved_leaves_nothing(
    folder: Path, number: signal.Signals, moved: int, exists: bool
) -> None:
    """There are eight files; the manifest is the last one."""
    if exists:
        (folder / "out").mkdir()
    with command(folder, prefix=signalled((MOVES, moved, number))) as receiver:
        source = Replay(folder / "s", IDLE.connections)
        done = receiver.finish()
        source.join()
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert {path.name for path in folder.rglob("*")} == ({"out"} if exists else set())


def test_a_signal_that_the_process_was_started_to_ignore_stays_ignored(folder: Path) -> None:
    with command(folder, prefix=["nohup"]) as receiver:
        receiver.signal(signal.SIGHUP)
        Replay(folder / "s", IDLE.connections).join()
        assert receiver.finish().returncode == 0


def receiving(folder: Path) -> bool:
    """Return True if the receiver has taken a connection: from then on, a signal has to clean up."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return sum(line.endswith(f" {folder}/s") for line in lines) > 3


WRONG_NUMBERS = ["", " 1", "1_0", "+1", "\u0664", "9" * 5000]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--channels", "0"], "invalid number '0': expected a whole number of channels from 1 to 255"),
        (["--channels", "256"], "invalid number '256': expected a whole number of channels from 1 to 255"),
        (["--channels", "two"], "invalid number 'two': expected a whole number of channels from 1 to 255"),
        (["--listen", "tcp:a..b:1"], "invalid address 'tcp:a..b:1'"),
        (["--listen", "tcp:ä..b:1"], "invalid address 'tcp:ä..b:1'"),
        (["--listen", "udp:1"], "invalid address 'udp:1'"),
        (["--listen", "tcp:host:65536"], "invalid address 'tcp:host:65536'"),
        (["--timeout", "0"], "invalid number '0': expected a number of seconds above 0"),
        (["--max-device-state", "0"], "invalid number '0': expected a whole number of MiB from 1 to 1048576"),
        (["--max-device-state", "2.5"], "invalid number '2.5': expected a whole number of MiB from 1 to 1048576"),
        (["--timeout", "nan"], "invalid number 'nan': expected a number of seconds above 0"),
        (["--uuid", "1234"], "invalid uuid '1234': expected 32 hexadecimal digits, with or without hyphens"),
        (["--format", "hdf5"], "invalid choice: 'hdf5'"),
        (["--page-size", "1000"], "page_size is 1000; it must be a power of two"),
        *[
            (["--page-size", text], f"invalid number {text!r}: expected a whole number of bytes from 1 to 524288")
            for text in WRONG_NUMBERS
        ],
        *[
            (["--channels", text], f"invalid number {text!r}: expected a whole number of channels from 1 to 255")
            for text in WRONG_NUMBERS
        ],
        (["--listen", "tls::1"], "--listen cannot be tls:HOST:PORT for receive"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_exit_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    words = ["--listen", f"unix:{tmp_path}/s", "--channels", "2", "--output", f"{tmp_path}/out", *more]
    assert message in misuse(capsys, "receive", *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("unix:/nowhere/s", "cannot listen on unix:/nowhere/s: No such file or directory"),
        ("unix:/" + "s" * 120, "AF_UNIX path too long"),
        ("tcp:no-such-host.invalid:1", "cannot listen on tcp:no-such-host.invalid:1"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_told_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listen: str, message: str
) -> None:
    said = failed(capsys, "--listen", listen, "--channels", "1", "--output", f"{tmp_path}/out")
    assert message in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("output", ["raw", "zarr"])
def test_a_folder_that_has_something_in_it_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "mine").write_text("mine")
    words = ["--listen", f"unix:{folder}/s", "--channels", "2", "--output", f"{folder}/out", "--format", output]
    said = f"numcodecs-qpl: error: {folder}/out is not empty; expected a new or empty folder\n"
    assert failed(capsys, *words) == said
    assert [path.name for path in folder.rglob("*")] == ["out", "mine"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("file", "{} is not a folder; expected a new or empty folder"),
        ("file/out", "cannot write to {}: Not a directory"),
    ],
)
def test_a_folder_that_cannot_be_made_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], where: str, message: str
) -> None:
    (folder / "file").write_text("")
    said = failed(capsys, "--listen", f"unix:{folder}/s", "--channels", "2", "--output", f"{folder}/{where}")
    assert said == f"numcodecs-qpl: error: {message.format(folder / where)}\n"


def test_a_socket_that_nobody_listens_on_any_more_is_replaced_and_another_file_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(f"{folder}/s")
    assert receive(folder, IDLE.connections).error is None
    (folder / "s").write_text("mine")
    words = ["--listen", f"unix:{folder}/s", "--channels", "2", "--output", f"{folder}/more"]
    reason = "a file that is not a socket is there; give another path, or remove it"
    assert failed(capsys, *words) == f"numcodecs-qpl: error: cannot listen on unix:{folder}/s: {reason}\n"
    assert (folder / "s").read_text() == "mine"
    assert not (folder / "more").exists()


def test_an_empty_folder_is_filled(folder: Path) -> None:
    (folder / "out").mkdir()
    assert receive(folder, IDLE.connections).error is None
    assert ram_of(folder, manifest_of(folder)) == IDLE.meta["ram_sha256"]
