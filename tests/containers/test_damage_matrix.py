"""Every container, producer, engine and damage: the verdict is that of an independent reader, and no byte is wrong.

``tests/support/damage.py`` makes the inputs and checks them; ``tests/support/oracle.py`` is the independent reader.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import damage
import emulated_iaa
import model
import oracle
import pytest
from process import with_threads

from numcodecs_qpl import QPL, CorruptDataError
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import ContainerName

PROGRAM = Path(__file__).parents[1] / "support/damage.py"
TIMEOUT = 500
TRAILER = {"gzip": 8, "zlib": 4, "deflate": 0}


@pytest.fixture(autouse=True)
def number_of_threads() -> Iterator[None]:
    with with_threads():
        yield


# Several threads read a gzip chunk by its index. The other containers have none.
@pytest.mark.parametrize(("container", "threads"), [("gzip", 1), ("gzip", 2), ("zlib", 1), ("deflate", 2)])
def test_every_damage_gets_the_verdict_of_an_independent_reader(container: ContainerName, threads: int) -> None:
    counts = damage.run(container, threads)
    assert counts["accepted"] > 100
    assert counts["refused"] > 1000
    # Each of these is a stream that RFC 1951 does not define; most flips are not.
    assert counts["ill-formed"] < counts.total() / 50


def test_every_damage_gets_the_same_verdict_on_the_emulated_iaa() -> None:
    """With the path setting "auto", and gzip, whose blocks the index tells. tools/test_sanitized.sh has the rest.

    That is "hardware", in all containers, with four threads.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", str(PROGRAM), "--path", "auto", "gzip"],
        env=emulated_iaa.environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("gzip, 1 threads:")


@pytest.mark.parametrize("container", oracle.READERS)
@pytest.mark.parametrize("huffman", ["dynamic", "fixed"])
@pytest.mark.parametrize("block_size", [1, 64, 300, 65536])
def test_what_is_written_is_what_the_format_says(container: ContainerName, huffman: Huffman, block_size: int) -> None:
    for data in (damage.TEXT, damage.NOISE, bytes(1000), b"\0\0\xff\xff" * 40, b"x", b"", damage.LARGE[:70_000]):
        if len(data) > 1000 * block_size:
            continue
        chunk = QPL(container=container, block_size=block_size, huffman=huffman).encode(data)
        assert oracle.READERS[container](chunk) == data
        if container == "gzip":
            layout = model.Layout(chunk)
            assert layout.trailer == struct.pack("<II", zlib.crc32(data), len(data))
            if data:
                assert layout.block_size == block_size
            for piece, part in zip(layout.pieces, model.split(data, block_size), strict=True):
                assert model.check_blocks(piece + model.END, part, block_size) == [piece]
        else:
            head = {"zlib": b"\x48\x0d", "deflate": b""}[container]
            assert chunk.startswith(head)
            end = len(chunk) - TRAILER[container]
            model.check_blocks(chunk[len(head) : end], data, block_size)


def refusal(container: ContainerName, damaged: bytes) -> str:
    """The message of the error."""
    with pytest.raises(CorruptDataError) as caught:
        QPL(container=container).decode(damaged)
    return str(caught.value)


@pytest.mark.parametrize("container", oracle.READERS)
def test_the_error_names_the_first_byte_that_must_not_follow(container: ContainerName) -> None:
    chunk = QPL(container=container, block_size=64).encode(damage.TEXT)
    for zeros in (0, 1, 7, 8, 300):
        for junk in (b"x", b"junk", chunk[-4:].replace(b"\0", b"j")):
            message = refusal(container, chunk + bytes(zeros) + junk)
            assert re.search(rf"\bbyte {len(chunk) + zeros}\b", message), message


@pytest.mark.parametrize("container", oracle.READERS)
def test_the_error_says_that_a_cut_stream_is_truncated(container: ContainerName) -> None:
    chunk = QPL(container=container, block_size=64).encode(damage.TEXT)
    for length in (0, 1, 2, len(chunk) // 2, len(chunk) - 1):
        assert "truncated" in refusal(container, chunk[:length])


def test_the_error_names_the_member_and_both_checksums() -> None:
    first, second = QPL(block_size=64).encode(damage.TEXT), QPL(block_size=64).encode(damage.NOISE)
    at = len(first)
    damaged = first + second[:-8] + bytes(4) + second[-4:]
    crc = f"{zlib.crc32(damage.NOISE):08x}"
    assert re.search(rf"member 1 at byte {at}\b.*CRC-32 {crc}\b.*\b00000000\b", refusal("gzip", damaged))
    damaged = first + second[:-4] + b"\1\0\0\0"
    assert re.search(rf"member 1 at byte {at}\b.*\b150 bytes\b.*\b1\b", refusal("gzip", damaged))
    assert re.search(rf"\bbyte {at}\b.*truncated", refusal("gzip", first + second[:-9]))
    assert re.search(
        rf"\bbyte {at}\b.*reserved flags: 0x24", refusal("gzip", first + second[:3] + b"\x24" + second[4:])
    )


def test_the_error_names_both_checksums_of_zlib() -> None:
    chunk = QPL(container="zlib", block_size=64).encode(damage.TEXT)
    adler = f"{zlib.adler32(damage.TEXT):08x}"
    assert re.search(rf"Adler-32 {adler}\b.*\b00000001\b", refusal("zlib", chunk[:-4] + b"\0\0\0\1"))
