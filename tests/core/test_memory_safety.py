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
from process import with_threads

from numcodecs_qpl import QPL
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import ContainerName

RNG = np.random.default_rng(11)
PATIENCE = 120.0
"""Seconds after which a script that should have ended has not."""


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with with_threads(request.param):
        yield request.param


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
    with with_threads(2):
        for _ in range(10):
            assert QPL().decode(chunk) == data


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
