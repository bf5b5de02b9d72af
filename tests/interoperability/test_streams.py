"""Other implementations read our streams, and we read theirs."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import numpy as np
import peers
import pytest
from peers import CONTAINERS, HUFFMANS, STREAM_PEERS, Container, Huffman, Peer

from numcodecs_qpl import QPL
from numcodecs_qpl.codec import DEFAULT_BLOCK_SIZE

RNG = np.random.default_rng(11)
SIZES = (0, 1, 100, 4096, 65536, 65537, (1 << 18) + 12_345)
CONTENTS: dict[str, bytes] = {}
for size in SIZES:
    CONTENTS[f"text {size}"] = RNG.choice(np.frombuffer(b"abcd efgh\n", "u1"), size).tobytes()
    CONTENTS[f"noise {size}"] = RNG.bytes(size)
CONTENTS["far matches"] = RNG.bytes(30_000) * 3
"""Distances of 30,000 bytes, in what others write."""
BLOCK_SIZES = (4096, DEFAULT_BLOCK_SIZE)


@functools.cache
def ours(container: Container, huffman: Huffman) -> dict[tuple[str, int], bytes]:
    """Return our streams, by the name of the content and the block size."""
    return {
        (name, block_size): bytes(QPL(container=container, block_size=block_size, huffman=huffman).encode(data))
        for name, data in CONTENTS.items()
        for block_size in BLOCK_SIZES
    }


@pytest.mark.parametrize("huffman", HUFFMANS)
@pytest.mark.parametrize(
    ("peer", "container"),
    [pytest.param(peer, container, id=f"{peer.name}-{container}") for peer in STREAM_PEERS for container in peer.reads],
)
def test_a_peer_reads_every_stream_that_we_write(peer: Peer, container: Container, huffman: Huffman) -> None:
    streams = ours(container, huffman)
    found = peer.read(container, [(stream, len(CONTENTS[name])) for (name, _), stream in streams.items()])
    wrong = [key for key, data in zip(streams, found, strict=True) if data != CONTENTS[key[0]]]
    assert not wrong


@pytest.mark.parametrize(
    ("peer", "container", "level"),
    [
        pytest.param(peer, container, level, id=f"{peer.name}-{container}-{level}")
        for peer in STREAM_PEERS
        for container, levels in peer.writes.items()
        for level in levels
    ],
)
def test_we_read_every_stream_that_a_peer_writes(peer: Peer, container: Container, level: Any) -> None:
    codec = QPL(container=container)
    # pgzip writes no member for empty content: nothing at all, which is not a stream.
    contents = {name: data for name, data in CONTENTS.items() if data or peer.name != "pgzip"}
    for (name, data), encoded in zip(contents.items(), peer.write(container, level, [*contents.values()]), strict=True):
        assert codec.decode(encoded) == data, name
        out = bytearray(len(data))
        codec.decode(encoded, out)
        assert out == data, name


@pytest.mark.parametrize("content", ["text 65537", "noise 65536"])
def test_pgzip_refuses_every_extra_field_but_its_own(content: str) -> None:
    """pgzip 0.4.0 inflates the rest of another subfield, BGZF's included. If this fails, add pgzip to the readers."""
    pgzip = peers.module("pgzip")
    bgzip = next(peer for peer in STREAM_PEERS if peer.name == "bgzip")
    data = CONTENTS[content]
    for encoded in (bytes(QPL().encode(data)), *bgzip.write("gzip", "-l 6", [data])):
        with pytest.raises(zlib.error):
            pgzip.decompress(encoded)


def test_every_container_has_peers_in_both_directions() -> None:
    for container in CONTAINERS:
        assert [peer for peer in STREAM_PEERS if container in peer.reads]
        assert [peer for peer in STREAM_PEERS if container in peer.writes]
