"""The receiver, fed with damaged migrations: it ends with an error, or with the right RAM."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import subprocess
from functools import cache
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
import zarr
from commands import Command, wait_until
from handmade import (
    HEADER,
    MEM_SIZE,
    METHODS,
    PAGE,
    PAGES,
    SYNC,
    Migration,
    Outcome,
    bounded_memory,
    cut,
    device_state,
    failure,
    header,
    initial,
    named,
    packets_of,
    receive,
    run,
    u32,
    u64,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import Replay, recording

from numcodecs_qpl.multifd import MultiFDError

pytestmark = pytest.mark.timeout(300)

SMALLEST = ["qemu-11.0.92-none", "qemu-11.0.92-qpl", "qemu-7.2.22-zlib", "qemu-7.2.22-zstd"]
QUIET = 0.2
"""Seconds to wait for a connection that was turned away and never comes."""


def check_error_or(ram: bytes, outcome: Outcome) -> None:
    """Either it failed, or all is well."""
    assert outcome.error is not None or outcome.blocks["m"] == ram


# ---- Connections that end too early -----------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "number"), [("none", 0), ("zlib", 1), ("zstd", 0), ("qpl", 1)])
def test_a_channel_that_ends_too_early_is_an_error_that_says_what_is_missing(method: str, number: int) -> None:
    source = Migration(method)
    whole = source.connections[1 + number]
    for packet in source.channels[number].packets:
        assert "the stream has a SYNC that" in str(failure(cut(source.connections, 1 + number, packet.start)))
        within = {1, 11, 12, 13, 320, HEADER - 1}
        if packet.payload:
            within |= {HEADER, HEADER + 1, HEADER + len(packet.payload) // 2, HEADER + len(packet.payload) - 1}
        for at in within:
            error = failure(cut(source.connections, 1 + number, packet.start + at))
            assert error.channel == number
            assert "bytes were missing" in str(error)
    check_error_or(source.ram, run(cut(source.connections, 1 + number, len(whole))))


@pytest.mark.parametrize("within", [0, 1])
def test_a_main_channel_that_ends_too_early_is_an_error(within: int) -> None:
    source = Migration("none")
    at = 0
    for name, part in source.main.items():
        if at >= len(source.main["magic"]) and (within == 0 or len(part) > 1):
            error = failure(cut(source.connections, 0, at + within))
            assert error.channel == "main", name
            assert "the source ended" in str(error)
        at += len(part)


@pytest.mark.parametrize(("number", "at"), [(0, 0), (0, 3), (1, 0), (1, 4), (1, 63)])
def test_a_connection_that_ends_before_it_says_what_it_is_is_turned_away(number: int, at: int) -> None:
    outcome = run(cut(Migration("none").connections, number, at), timeout=QUIET)
    assert outcome.refused == [f"it closed after {at} bytes, before it identified itself"]
    party = "main" if number == 0 else number - 1
    assert f"these did not connect: {party} (is multifd on" in str(outcome.error)


@pytest.mark.parametrize("name", ["qemu-11.0.92-qpl", "qemu-7.2.22-zlib"])
def test_a_recording_that_is_cut_is_an_error_or_nothing_was_lost(name: str) -> None:
    source = recording(name)
    for number, channel in enumerate(source.channels, 1):
        for at, fields, _ in packets_of(channel):
            check_error_or(ram_of(name), run(cut(source.connections, number, at)))
            if fields["normal_pages"]:
                check_error_or(
                    ram_of(name), run(cut(source.connections, number, at + HEADER + fields["next_packet_size"] // 2))
                )
    for at in (100, 200, 1000, len(source.main) // 2, len(source.main) - 1):
        assert failure(cut(source.connections, 0, at)).channel == "main"


@cache
def ram_of(name: str) -> bytes:
    """RAM block ``m`` of a recording."""
    return run(recording(name).connections).blocks["m"]


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("number", [0, 1])
def test_a_sync_too_few_or_too_many_is_an_error(number: int, twice: bool) -> None:
    source = Migration("none")
    del source.main["return path"]  # a confirmation would not wait for a SYNC after the last round
    for packet in source.channels[number].packets:
        if not packet.normal and packet.header[11] == SYNC:
            connections = source.connections
            content = connections[1 + number]
            rest = content[packet.start + (0 if twice else HEADER) :]
            connections[1 + number] = content[: packet.start] + (packet.header if twice else b"") + rest
            # Without the first one a page may come before the blocks are known.
            assert re.search("the stream has a SYNC that|unknown RAM block 'm'", str(failure(connections)))


# ---- Bits that flip ---------------------------------------------------------------------------------------------


def flipped(connections: list[bytes], flips: list[tuple[int, int, int]]) -> list[bytes]:
    """The connections with bits turned over after their openings: of which connection, at which byte, which bit."""
    changed = [bytearray(content) for content in connections]
    for number, at, bit in flips:
        opening = 64 if number else 4
        changed[number][opening + at % (len(changed[number]) - opening)] ^= 1 << bit
    return [bytes(content) for content in changed]


FLIPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1 << 40), st.integers(0, 7)), min_size=1, max_size=3)
QUICK = settings(deadline=None, derandomize=True, max_examples=50, database=None)
THOROUGH = settings(QUICK, max_examples=160)


@QUICK
@given(st.sampled_from(SMALLEST), FLIPS)
def test_flipped_bits_of_a_recording_do_no_harm(name: str, flips: list[tuple[int, int, int]]) -> None:
    outcome = run(flipped(recording(name).connections, flips))
    assert outcome.error is not None or len(outcome.blocks) == 6


@THOROUGH
@given(st.sampled_from(list(METHODS)), FLIPS)
def test_flipped_bits_do_no_harm(method: str, flips: list[tuple[int, int, int]]) -> None:
    outcome = run(flipped(Migration(method).connections, flips))
    assert outcome.error is not None or [len(ram) for ram in outcome.blocks.values()] == [PAGES * PAGE]


@THOROUGH
@given(st.sampled_from(list(METHODS)), st.data(), st.integers(0, 400), st.integers(0, 7))
def test_flipped_bits_of_a_header_do_no_harm(method: str, data: st.DataObject, at: int, bit: int) -> None:
    source = Migration(method)
    starts = [(channel.id + 1, packet.start) for channel in source.channels for packet in channel.packets]
    number, start = data.draw(st.sampled_from(starts))
    outcome = run(flipped(source.connections, [(number, start - 64 + at, bit)]))
    assert outcome.error is not None or [len(ram) for ram in outcome.blocks.values()] == [PAGES * PAGE]


@pytest.mark.parametrize("number", [0, 1])
def test_a_flipped_bit_of_an_opening_has_the_connection_turned_away(number: int) -> None:
    source = Migration("none")
    for at in (0, 3) if number == 0 else (0, 3, 4, 7, 8, 23, 24):
        connections = source.connections
        content = bytearray(connections[number])
        content[at] ^= 0x80
        connections[number] = bytes(content)
        outcome = run(connections, timeout=QUIET, uuid=UUID(int=0))
        assert len(outcome.refused) == 1
        assert f"these did not connect: {'main' if number == 0 else 0}" in str(outcome.error)


@THOROUGH
@given(st.sampled_from(["none", "qpl"]), st.data(), st.integers(0, 1 << 40), st.integers(0, 7))
def test_flipped_bits_of_a_payload_reach_no_other_page(method: str, data: st.DataObject, at: int, bit: int) -> None:
    source = Migration(method)
    sent = [(channel.id + 1, packet) for channel in source.channels for packet in channel.packets if packet.normal]
    number, packet = data.draw(st.sampled_from(sent))
    where = packet.start - 64 + HEADER + at % len(packet.payload)
    outcome = run(flipped(source.connections, [(number, where, bit)]))
    if outcome.error is None:
        ram = outcome.blocks["m"]
        wrong = {page for page in range(PAGES) if ram[page * PAGE :][:PAGE] != source.ram[page * PAGE :][:PAGE]}
        assert wrong <= set(packet.normal)


@pytest.mark.parametrize("opening", [b"QEVM", b"QEVM" + u32(3), b"QEVM" + u32(3) + b"\x01", initial(1)])
def test_random_bytes_for_a_connection_are_an_error(opening: bytes) -> None:
    source = Migration("qpl")

    @QUICK
    @given(st.binary(max_size=3000))
    def check(content: bytes) -> None:
        connections = source.connections
        connections[2 if opening == initial(1) else 0] = opening + content
        failure(connections)

    check()


@settings(QUICK, max_examples=12)
@given(st.lists(st.binary(max_size=200), max_size=6))
def test_nothing_but_random_bytes_is_turned_away(contents: list[bytes]) -> None:
    main = Migration("none").connections[0]
    outcome = run([main, *contents], timeout=QUIET)
    assert outcome.error is not None
    assert len(outcome.refused) <= len(contents)


# ---- Memory and room --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_payload_said_to_be_huge_takes_no_memory(method: str) -> None:
    main, first, second = Migration(method).connections
    head = header(normal=range(128), flags=METHODS[method], next_packet_size=2**32 - 1)
    with bounded_memory():
        assert failure([main, first, second[: 64 + HEADER] + head]).field == "next_packet_size"


def test_device_state_said_to_be_huge_takes_no_memory() -> None:
    source = Migration("none")
    del source.main["return path"]  # a confirmation would not wait for what follows the last round
    main, first, second = source.connections
    with bounded_memory():
        error = failure([main, first, second + device_state(b"vfio", bytes(1 << 20), size=2**32 - 1)])
    assert "bytes were missing" in str(error)


@pytest.mark.parametrize("length", [1 << 62, 1 << 50, (1 << 64) - PAGE])
def test_a_block_that_there_is_no_room_for_is_an_error_before_anything_is_taken(length: int) -> None:
    source = Migration("none")
    source.main["mem size"], source.main["used_length"] = u64(length | MEM_SIZE), u64(length)
    with bounded_memory():
        error = failure(source.connections)
    assert f"RAM block 'm' has {length} bytes, but only" in str(error)


def test_blocks_that_there_is_no_room_for_together_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=PAGES * PAGE * 3 // 2))
    source = Migration("none")
    source.main["mem size"] = u64(2 * PAGES * PAGE | MEM_SIZE)
    source.main["used_length"] += named(b"n") + u64(PAGES * PAGE)
    assert "are free in" in str(failure(source.connections))


def test_blocks_without_end_are_an_error_though_no_record_has_too_many() -> None:
    source = Migration("none")
    source.main["used_length"] += b"".join(
        u64(2500 * PAGE | MEM_SIZE)
        + b"".join(named(b"%d" % number) + u64(PAGE) for number in range(start, start + 2500))
        for start in (0, 2500)
    )
    with bounded_memory():
        assert "more than 4096 RAM blocks" in str(failure(source.connections))


# ---- A disk that is full ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["raw", "zarr"])
@pytest.mark.parametrize("method", METHODS)
def test_a_page_that_the_disk_has_no_room_for_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, output: str
) -> None:
    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if offset == 139 * PAGE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(data)

    monkeypatch.setattr(os, "pwrite", pwrite)
    error = receive(folder, Migration(method).connections, output=output).error
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    assert not (folder / "out").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("before a page", "cannot write to .*/out: No space left on device; make room there, or give another --output"),
        ("before device state", "cannot write to .*/out: No space left on device"),
        ("before the source ends too early", "main channel: the source ended before the description"),
    ],
)
def test_a_disk_that_others_have_filled_ends_the_command_with_an_error(tmp_path: Path, when: str, message: str) -> None:
    source = recording("qemu-11.0.92-none-dirty")
    in_ram = when == "before a page"
    at = 50_000 if in_ram else len(source.main) - 100
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "small", small], check=True)
    try:
        words = ["--listen", f"unix:{tmp_path}/s", "--channels", "2", "--output", f"{small}/out"]
        with Command("receive", *words) as receiver, socket.socket(socket.AF_UNIX) as main:
            main.connect(f"{tmp_path}/s")
            main.sendall(source.main[:at])
            channels = [Replay(tmp_path / "s", source.channels[:1] if in_ram else source.channels)]
            wait_until(lambda: list(small.glob(f"out/*/{'m' if in_ram else 'device-state'}.bin")), "the output")
            with (small / "others").open("wb", 0) as others, contextlib.suppress(OSError):
                while others.write(bytes(PAGE)):
                    pass
            if in_ram:
                channels.append(Replay(tmp_path / "s", source.channels[1:]))
            with contextlib.suppress(OSError):
                main.sendall(b"" if when.endswith("early") else source.main[at:])
                main.shutdown(socket.SHUT_WR)
            done = receiver.finish()
            for channel in channels:
                channel.join()
        assert done.returncode == 1
        assert re.search(message, done.stderr)
        assert "Traceback" not in done.stderr
        assert [path.name for path in small.iterdir()] == ["others"]
    finally:
        subprocess.run(["umount", small], check=True)


# ---- Device state -----------------------------------------------------------------------------------------------


def test_device_state_is_bounded_over_all_channels() -> None:
    main, *channels = Migration("none").connections
    state = device_state(b"vfio", bytes(100_000))
    connections = [main, *(channel[:64] + state + channel[64:] for channel in channels)]
    kept = 2 * len(state)
    assert "the device state has more than" in str(failure(connections, max_device_state=kept))
    in_devices = len(main) - main.index(b"\x04" + u32(3) + named(b"cpu"))
    assert run(connections, max_device_state=kept + in_devices).error is None
    assert failure(connections, max_device_state=kept + in_devices - 1)


def test_the_command_has_an_option_for_more_device_state(folder: Path) -> None:
    main, *channels = Migration("none").connections
    large = [main, *(channel[:64] + device_state(b"vfio", bytes(1 << 20)) + channel[64:] for channel in channels)]
    words = ["--listen", f"unix:{folder}/s", "--channels", "2", "--output", f"{folder}/out", "--max-device-state"]
    with Command("receive", *words, "1") as receiver:
        Replay(folder / "s", large).join()
        done = receiver.finish()
    assert done.returncode == 1
    assert "the device state has more than 1048576 bytes" in done.stderr
    assert "raise --max-device-state" in done.stderr
    with Command("receive", *words, "3") as receiver:
        Replay(folder / "s", large).join()
        assert receiver.finish().returncode == 0


# ---- Names ------------------------------------------------------------------------------------------------------


NAMES_TO_FEAR = [b"", b".", b"..", b"../x", b"/", b"a/b", b"a\nb", b"__x", b"c", b"zarr.json", b"manifest", b"%2F"]
NAMES_TO_FEAR += ["\u00e4\u2028".encode(), b"x" * 240, b" "]


@pytest.mark.parametrize("output", ["raw", "zarr"])
@pytest.mark.parametrize("name", NAMES_TO_FEAR)
def test_a_blocks_name_leads_nowhere_else(tmp_path: Path, name: bytes, output: str) -> None:
    source = Migration("none", name)
    outcome = receive(tmp_path, source.connections, output=output)
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}
    if outcome.error is None:
        assert outcome.manifest is not None
        assert [block["name"] for block in outcome.manifest["blocks"]] == [name.decode()]
        entry = outcome.manifest["blocks"][0]
        if output == "raw":
            assert (outcome.out / entry["file"]).read_bytes() == source.ram
        else:
            array = zarr.open_array(outcome.out / entry["array"], mode="r")
            assert np.asarray(array[:]).tobytes() == source.ram
    else:
        assert isinstance(outcome.error, (MultiFDError, OSError)), repr(outcome.error)


@pytest.mark.parametrize("name", [b"device-state", b"device-state-channel-1"])
def test_a_block_and_the_device_state_do_not_share_a_file(tmp_path: Path, name: bytes) -> None:
    source = Migration("none", name)
    main, first, second = source.connections
    at = 64 + HEADER
    state = device_state(b"vfio", b"state")
    outcome = receive(tmp_path, [main, first, second[:at] + state + second[at:]])
    if outcome.error is None:
        manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
        assert (tmp_path / "out" / manifest["blocks"][0]["file"]).read_bytes() == source.ram
        assert manifest["blocks"][0]["file"] not in [entry["file"] for entry in manifest["device_state"]]
    else:
        assert isinstance(outcome.error, MultiFDError)
        assert not (tmp_path / "out").exists()
