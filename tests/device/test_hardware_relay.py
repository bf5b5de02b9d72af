"""The relay on the emulated IAA: every page on it, or in software with a reason; and what its failure looks like."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import emulated_iaa
import pytest
from commands import receive, relay
from received import ram_sha256
from sink import Sink, packets_of
from streams import NAMES, Replay, method_of, recording

from numcodecs_qpl.multifd.mainrelay import NO_RETURN_PATH
from numcodecs_qpl.multifd.stream import wire

IDLE, DIRTY = "qemu-11.0.92-none", "qemu-11.0.92-none-dirty"
BUSY = "QPL_STS_QUEUES_ARE_BUSY_ERR"
FAILED = "QPL_STS_INTL_INVALID_UR_CA_RESPONSE"
TIMEOUT = "QPL_STS_INTL_HARDWARE_TIMEOUT"
NOTHING = {"compressed": 0, "decompressed": 0}
ANY_FAULT = [
    "any:60000:1:read_fault",
    "any:60000:2:write_fault",
    "any:20000:3:error:13",
    "any:20000:4:status:16",
    "any:20000:5:status:19",
    "any:20000:6:status:32",
    "any:5000:7:busy:500",
]


@pytest.fixture
def sink(folder: Path) -> Iterator[Sink]:
    made = Sink(folder / "end")
    yield made
    made.close()


def on(path: str, **settings: int | str | list[str]) -> dict[str, str]:
    """The environment of a command that runs on the emulated IAA."""
    return {**emulated_iaa.environment(**settings), "NUMCODECS_QPL_PATH": path}


def compressed_pages(connections: list[bytes]) -> int:
    """Pages of a stream of method qpl that are not there as they were."""
    count = 0
    for content in connections[1:]:
        at = wire.INITIAL_SIZE
        for packet in packets_of(content):
            at += 1344
            lengths = struct.unpack_from(f">{packet.normal_pages}I", content, at)
            count += sum(length < 4096 for length in lengths)
            at += packet.payload_size
    return count


def through_two_relays(
    folder: Path, name: str, first: dict[str, str], second: dict[str, str], *more: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recording, recoded and given back: RAM is equal; the lines of JSON."""
    source = recording(name)
    with (
        receive(folder) as end,
        relay(f"unix:{folder}/b", f"unix:{folder}/end", "qpl", "none", environment=second) as back,
        relay(f"unix:{folder}/a", f"unix:{folder}/b", "none", "qpl", *more, environment=first) as there,
    ):
        Replay(folder / "a", source.connections).join()
        lines = []
        for each in (there, back):
            status, line, said = each.finish_relay()
            assert (status, line["ended"], said) == (0, "complete", "")
            lines.append(line)
        assert end.finish().returncode == 0
    assert ram_sha256(folder) == source.meta["ram_sha256"]
    return lines[0], lines[1]


def assert_each_page_has_one_path(line: dict[str, Any], operation: str, pages: int) -> None:
    """Done once, on hardware or, with a reason, in software."""
    blocks = line["blocks"]
    assert blocks["hardware"][operation] + blocks["software"][operation] == pages
    assert sum(blocks["fallback"].values()) == blocks["software"][operation]


# ---- Every page on it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "huffman"), [(IDLE, "dynamic"), (DIRTY, "fixed"), ("qemu-7.2.22-none-dirty", "dynamic")]
)
def test_the_device_compresses_all_pages_and_inflates_all_that_were_not_sent_as_they_are(
    folder: Path, name: str, huffman: str
) -> None:
    source = recording(name)
    words = ("none", "qpl", "--huffman", huffman)
    with (
        contextlib.closing(Sink(folder / "between")) as sink,
        relay(f"unix:{folder}/a", f"unix:{folder}/between", *words, environment=on("hardware")) as first,
    ):
        Replay(folder / "a", source.connections).join()
        sent = first.finish_relay()[1]
    normal = sent["pages"]["normal"]
    assert normal == sum(packet.normal_pages for content in source.channels for packet in packets_of(content))
    assert sent["path"] == "hardware"
    assert sent["blocks"] == {
        "hardware": {"compressed": normal, "decompressed": 0},
        "software": NOTHING,
        "fallback": {},
    }
    between = [bytes(content) for content in sink.contents]
    inflated = compressed_pages(between)
    assert normal // 2 < inflated < normal
    with (
        receive(folder) as end,
        relay(f"unix:{folder}/b", f"unix:{folder}/end", "qpl", "none", environment=on("hardware")) as second,
    ):
        Replay(folder / "b", between).join()
        returned = second.finish_relay()[1]
        assert end.finish().returncode == 0
    assert returned["blocks"] == {
        "hardware": {"compressed": 0, "decompressed": inflated},
        "software": NOTHING,
        "fallback": {},
    }
    assert ram_sha256(folder) == source.meta["ram_sha256"]


def test_two_relays_on_the_emulated_iaa_give_back_what_one_of_them_recoded(folder: Path) -> None:
    sent, returned = through_two_relays(folder, DIRTY, on("hardware"), on("hardware", size=8, queues=2))
    assert sent["bytes_out"] == returned["bytes_in"] < sent["bytes_in"] == returned["bytes_out"]
    assert sent["path"] == returned["path"] == "hardware"
    assert sent["blocks"]["software"] == returned["blocks"]["software"] == NOTHING


@pytest.mark.parametrize("name", [name for name in NAMES if method_of(name) == "qpl"])
def test_the_device_inflates_the_pages_that_a_real_qemu_compressed(folder: Path, name: str) -> None:
    source = recording(name)
    with (
        receive(folder) as end,
        relay(f"unix:{folder}/in", f"unix:{folder}/end", "qpl", "none", environment=on("hardware")) as middle,
    ):
        Replay(folder / "in", source.connections).join()
        status, line, said = middle.finish_relay()
        assert (status, said) == (0, "")
        assert end.finish().returncode == 0
    assert ram_sha256(folder) == source.meta["ram_sha256"]
    assert line["blocks"]["hardware"]["decompressed"] == compressed_pages(source.connections) > 100
    assert line["blocks"]["software"] == NOTHING


@pytest.mark.parametrize("name", [name for name in NAMES if method_of(name) == "qpl"])
def test_receive_takes_what_a_real_qemu_compressed_on_the_emulated_iaa(folder: Path, name: str) -> None:
    source = recording(name)
    with receive(folder, environment=on("hardware")) as end:
        Replay(folder / "end", source.connections).join()
        done = end.finish()
    assert (done.returncode, done.stderr) == (0, "")
    assert ram_sha256(folder) == source.meta["ram_sha256"]


def test_receive_on_a_device_that_fails_is_an_error_and_leaves_nothing(folder: Path) -> None:
    environment = on("hardware", fault="decompress:50:1:failing")
    with receive(folder, environment=environment) as end:
        Replay(folder / "end", recording("qemu-11.0.92-qpl").connections).join()
        done = end.finish()
    assert done.returncode == 1
    assert f"libqpl status 332, {FAILED}" in done.stderr
    assert not (folder / "out").exists()


# ---- Hardware where it can, software where not ------------------------------------------------------------------


def test_with_a_queue_of_one_descriptor_both_paths_work_and_the_reason_is_told(folder: Path) -> None:
    slow = on("auto", size=1, engines=1, job_us=300)
    sent, returned = through_two_relays(folder, IDLE, slow, slow)
    for line, operation in ((sent, "compressed"), (returned, "decompressed")):
        assert line["path"] == "hardware"
        assert line["blocks"]["hardware"][operation] > 0
        assert line["blocks"]["software"][operation] > 0
        assert list(line["blocks"]["fallback"]) == [BUSY]
    assert_each_page_has_one_path(sent, "compressed", sent["pages"]["normal"])
    assert line["blocks"]["fallback"][BUSY] == line["blocks"]["software"]["decompressed"]


@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
def test_whatever_fails_at_random_ram_is_equal(folder: Path, huffman: str) -> None:
    faulty = on("auto", size=8, random=ANY_FAULT)
    sent, returned = through_two_relays(folder, DIRTY, faulty, faulty, "--huffman", huffman)
    assert_each_page_has_one_path(sent, "compressed", sent["pages"]["normal"])
    for line in (sent, returned):
        assert {"QPL_STS_INVALID_BLOCK_TYPE", "QPL_STS_INTL_UNSUPPORTED_OPCODE", FAILED} <= set(
            line["blocks"]["fallback"]
        )
    assert sent["blocks"]["hardware"]["compressed"] > sent["pages"]["normal"] // 20
    fallbacks = sum(returned["blocks"]["fallback"].values())
    assert fallbacks == returned["blocks"]["software"]["decompressed"] > 0


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_device_that_is_lost_leaves_the_rest_to_software(folder: Path, which: str) -> None:
    operation = "compressed" if which == "first" else "decompressed"
    lost = on("auto", fault=f"{operation.removesuffix('ed')}:200:1:lost")
    paths = (lost, on("hardware")) if which == "first" else (on("hardware"), lost)
    line = through_two_relays(folder, DIRTY, *paths)[which == "second"]
    blocks = line["blocks"]
    assert 100 < blocks["hardware"][operation] < 200
    assert blocks["fallback"][TIMEOUT] > 0
    assert set(blocks["fallback"]) <= {TIMEOUT, BUSY}
    # What came after these 8 s was no fallback: by then the path was software.
    assert line["path"] == "hardware"  # as it was at first
    assert blocks["software"][operation] > sum(blocks["fallback"].values()) + 500
    assert 8 <= line["seconds"] < 16  # both channels wait at once


# ---- Hardware or nothing ----------------------------------------------------------------------------------------


def failed_relay(folder: Path, encode: str, fault: str) -> subprocess.CompletedProcess[str]:
    """Relay to or from qpl, on a device that fails; the source sees the end of each connection."""
    decode, name = ("none", DIRTY) if encode == "qpl" else ("qpl", "qemu-11.0.92-qpl-dirty")
    environment = on("hardware", fault=f"any:100:1:{fault}")
    with relay(f"unix:{folder}/in", f"unix:{folder}/end", decode, encode, environment=environment) as middle:
        Replay(folder / "in", recording(name).connections).join()
        return middle.finish()


@pytest.mark.usefixtures("sink")
@pytest.mark.parametrize(("encode", "fault"), [("qpl", "failing"), ("none", "failing"), ("none", "status:32")])
def test_a_device_that_fails_ends_all_and_libqpls_status_is_told_in_one_line(
    folder: Path, encode: str, fault: str
) -> None:
    done = failed_relay(folder, encode, fault)
    assert done.returncode == 1
    told = done.stderr.removeprefix(f"warning: {NO_RETURN_PATH}\n")
    assert told.startswith("numcodecs-qpl: error: ")
    assert told.count("\n") == 1
    assert f"libqpl status 332, {FAILED}" in told
    line = json.loads(done.stdout)
    assert line["ended"] == "failed"
    assert line["error"] in told
    assert line["blocks"]["software"] == NOTHING
    assert 0 < sum(line["blocks"]["hardware"].values()) < line["pages"]["normal"] + 2 * 128


@pytest.mark.usefixtures("sink")
def test_a_device_that_is_lost_ends_all_and_the_line_is_still_written(folder: Path) -> None:
    done = failed_relay(folder, "qpl", "lost")
    assert done.returncode == 1
    assert TIMEOUT in done.stderr
    assert json.loads(done.stdout)["ended"] == "failed"
