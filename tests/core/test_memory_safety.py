"""Reads and writes stay within the caller's buffers, for all data and sizes."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hostile import spilling

import numcodecs_qpl
from numcodecs_qpl import QPL
from numcodecs_qpl._core import compress_pages_into
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import ContainerName

RNG = np.random.default_rng(11)
PATIENCE = 120.0
"""Seconds after which a script that should have ended has not."""


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = numcodecs_qpl.get_threads()
    numcodecs_qpl.set_threads(request.param)
    yield request.param
    numcodecs_qpl.set_threads(before)


def run(script: str, *arguments: str) -> None:
    """Run a script in a process of its own: a wrong access ends it with a signal."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- Bytes after the output -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[140_000, 1], [140_000, 1, 1, 1], [140_000, 7], [140_000, 1, 140_000, 1], [9, 1, 1]])
@pytest.mark.usefixtures("threads")
def test_members_that_spill_change_no_byte_after_out(sizes: list[int]) -> None:
    parts = [RNG.bytes(size) for size in sizes]
    data = b"".join(parts)
    chunk = spilling(parts)
    assert gzip.decompress(chunk) == data
    for _ in range(10):
        memory = np.full(len(data) + 64, 0xAA, np.uint8)
        QPL().decode(chunk, memory[: len(data)])
        assert memory[: len(data)].tobytes() == data
        assert set(memory[len(data) :].tolist()) == {0xAA}
        assert QPL().decode(chunk) == data


def test_members_that_spill_change_no_byte_of_another_thread() -> None:
    """The first thread does a member of 8 MB and one of a byte, while the second does the other two."""
    parts = [RNG.bytes(size) for size in (8_000_000, 1, 3000, 3000)]
    data = b"".join(parts)
    chunk = spilling(parts)
    before = numcodecs_qpl.get_threads()
    numcodecs_qpl.set_threads(2)
    try:
        for _ in range(10):
            assert QPL().decode(chunk) == data
    finally:
        numcodecs_qpl.set_threads(before)


# ---- Large outputs of the exact size ----------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["zlib", "deflate", "gzip"])
def test_a_large_out_of_exactly_the_right_size_is_filled(container: ContainerName) -> None:
    run(
        """
import sys
import numpy as np
from numcodecs_qpl import QPL
data = np.arange(4 << 20, dtype="u4").view("u1")
codec = QPL(container=sys.argv[1], block_size=2**31 - 1)
encoded = codec.encode(data)
for room in (1 << 20, 16 << 20):
    encoded = codec.encode(data[:room])
    out = np.empty(room, "u1")
    codec.decode(encoded, out=out)
    assert np.array_equal(out, data[:room])
""",
        container,
    )


def test_several_large_members_are_inflated_by_two_threads() -> None:
    run("""
import numpy as np
import numcodecs_qpl
from numcodecs_qpl import QPL
numcodecs_qpl.set_threads(2)
data = np.arange(12 << 20, dtype="u4").view("u1")
codec = QPL(block_size=12 << 20)
encoded = codec.encode(data)
assert codec.decode(encoded) == data.tobytes()
out = np.empty(len(data), "u1")
codec.decode(encoded, out=out)
assert np.array_equal(out, data)
""")


# ---- Incompressible input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("huffman", ["dynamic", "fixed"])
@pytest.mark.parametrize("container", ["zlib", "deflate", "gzip"])
def test_noise_of_any_size_is_written_in_one_stream(container: ContainerName, huffman: Huffman) -> None:
    """Stored blocks always fit."""
    codec = QPL(container=container, block_size=2**31 - 1, huffman=huffman)
    data = RNG.bytes(40 << 20)
    encoded = codec.encode(data)
    assert len(encoded) < len(data) * 1.001
    assert zlib.decompress(encoded, {"gzip": 31, "zlib": 15, "deflate": -15}[container]) == data
    assert codec.decode(encoded) == data
    out = bytearray(len(data))
    codec.decode(encoded, out)
    assert out == data


# ---- Buffers that overlap ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 1, 4096, 69_999])
@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_an_out_that_overlaps_buf_is_refused(container: ContainerName, shift: int) -> None:
    codec = QPL(container=container)
    data = RNG.integers(0, 4, 70_000, np.uint8)
    encoded = np.frombuffer(codec.encode(data), np.uint8)
    memory = np.zeros(len(data) + len(encoded), np.uint8)
    buf = memory[shift : shift + len(encoded)]
    buf[:] = encoded
    with pytest.raises(ValueError, match="out overlaps buf"):
        codec.decode(buf, memory[: len(data)])
    assert np.array_equal(buf, encoded)


@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_an_out_that_touches_buf_is_filled(container: ContainerName) -> None:
    codec = QPL(container=container)
    data = RNG.integers(0, 4, 70_000, np.uint8)
    encoded = np.frombuffer(codec.encode(data), np.uint8)
    memory = np.zeros(2 * len(data) + len(encoded), np.uint8)
    buf = memory[len(data) : len(data) + len(encoded)]
    buf[:] = encoded
    for out in (memory[: len(data)], memory[len(data) + len(encoded) :]):
        codec.decode(buf, out)
        assert np.array_equal(out, data)
        assert np.array_equal(buf, encoded)


def test_an_empty_out_overlaps_nothing() -> None:
    memory = np.frombuffer(QPL().encode(b""), np.uint8).copy()
    out = memory[5:5]
    assert QPL().decode(memory, out) is out


@pytest.mark.parametrize("shift", [0, 1, 4096, 16 * 4096 - 1])
def test_pages_are_not_inflated_over_their_payload(shift: int) -> None:
    pages = RNG.integers(0, 4, 16 * 4096, np.uint8)
    lengths, payload = numcodecs_qpl.compress_pages(pages)
    memory = np.zeros(len(pages) + len(payload), np.uint8)
    source = memory[shift : shift + len(payload)]
    source[:] = np.frombuffer(payload, np.uint8)
    with pytest.raises(ValueError, match="out overlaps payload"):
        numcodecs_qpl.decompress_pages(source, lengths, out=memory[: len(pages)])
    assert source.tobytes() == payload


@pytest.mark.parametrize("shift", [0, 1, 4096, 16 * 4096 - 1])
def test_pages_are_not_compressed_over_themselves(shift: int) -> None:
    content = RNG.integers(0, 4, 16 * 4096, np.uint8)
    memory = np.zeros(2 * len(content), np.uint8)
    pages = memory[shift : shift + len(content)]
    pages[:] = content
    with pytest.raises(ValueError, match="payload overlaps buffer"):
        compress_pages_into(pages, np.empty(16, np.uint32), memory[: len(content)])
    assert np.array_equal(pages, content)
