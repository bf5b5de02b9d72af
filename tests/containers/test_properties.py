"""Properties that hold for any content, size and configuration, by hypothesis."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from process import with_threads

from numcodecs_qpl import QPL, CorruptDataError, compress_pages, decompress_pages
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import ContainerName


@pytest.fixture(autouse=True, scope="module", params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    with with_threads(request.param):
        yield


@st.composite
def contents(draw: st.DrawFn, size: int | None = None) -> bytes:
    """Data of one of the kinds that deflate treats differently, of sizes that lie around its limits."""
    if size is None:
        limit = draw(st.sampled_from([0, 1, 258, 4096, 32768, 65535, 65536, 131070, 150_000]))
        size = max(0, limit + draw(st.integers(-20, 20)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "letters", "runs", "walk", "far", "mixed"]))
    if kind == "noise":
        return rng.bytes(size)
    if kind == "letters":
        return rng.choice(np.frombuffer(b"abcd efgh", "u1"), size).tobytes()
    if kind == "runs":
        return np.repeat(rng.integers(0, 256, size // 50 + 1, dtype="u1"), 50).tobytes()[:size]
    if kind == "walk":
        return np.cumsum(rng.integers(-1, 2, size), dtype="u1").tobytes()
    if kind == "far":
        return (rng.bytes(draw(st.integers(4000, 9000))) * (size // 4000 + 1))[:size]
    return (rng.bytes(size // 3) + bytes(size // 3) + b"some words " * size)[:size]


@st.composite
def codecs(draw: st.DrawFn) -> QPL:
    container: ContainerName = draw(st.sampled_from(["gzip", "zlib", "deflate"]))
    block_size = draw(st.sampled_from([512, 4096, 65535, 65536, 10**6]))
    huffman: Huffman = draw(st.sampled_from(["dynamic", "fixed"]))
    return QPL(container, block_size, huffman)


READ_WITHOUT_US = {"gzip": 31, "zlib": 15, "deflate": -15}


@given(codecs(), contents())
def test_what_goes_in_comes_out_of_ours_and_of_zlib(codec: QPL, data: bytes) -> None:
    encoded = codec.encode(data)
    assert codec.decode(encoded) == data
    out = bytearray(len(data))
    codec.decode(encoded, out)
    assert out == data
    if codec.container == "gzip":
        assert gzip.decompress(encoded) == data
    else:
        assert zlib.decompress(encoded, READ_WITHOUT_US[codec.container]) == data


@given(codecs(), contents())
def test_encoding_adds_no_more_than_what_the_format_needs(codec: QPL, data: bytes) -> None:
    blocks = -(-len(data) // codec.block_size)
    stored = len(data) + 5 * (len(data) // 65535 + 2 * blocks)
    index = 10 + 4 * blocks  # of gzip, beside RFC 1952's 18 bytes
    assert len(codec.encode(data)) <= stored + 18 + index + len(b"\x03\x00")


@given(codecs(), contents(), st.integers(0, 9), st.sampled_from([9, 12, 15]))
def test_what_zlib_writes_comes_out(codec: QPL, data: bytes, level: int, window: int) -> None:
    wbits = {"gzip": window + 16, "zlib": window, "deflate": -window}[codec.container]
    encoded = zlib.compress(data, level, wbits)
    assert codec.decode(encoded) == data
    assert codec.decode(encoded) == data


@given(codecs(), st.binary(max_size=300), st.booleans())
def test_junk_is_an_error_or_what_zlib_reads_too(codec: QPL, junk: bytes, headed: bool) -> None:
    if headed:
        junk = {"gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\xff", "zlib": b"\x48\x0d", "deflate": b""}[codec.container] + junk
    try:
        got = codec.decode(junk)
    except CorruptDataError:
        return
    inflater = zlib.decompressobj(READ_WITHOUT_US[codec.container])
    assert inflater.decompress(junk) == got
    assert inflater.eof
    assert not inflater.unused_data.strip(b"\0")


@st.composite
def pages(draw: st.DrawFn) -> tuple[bytes, int]:
    page_size = draw(st.sampled_from([2, 3, 64, 512, 4096, 16384, 65536]))
    parts = draw(st.lists(contents(page_size), max_size=20))
    return b"".join(parts), page_size


@given(pages(), st.sampled_from(["fixed", "dynamic"]))
def test_pages_come_back_and_none_grows(given_pages: tuple[bytes, int], huffman: Huffman) -> None:
    data, page_size = given_pages
    lengths, payload = compress_pages(data, page_size, huffman)
    assert lengths.shape == (len(data) // page_size,)
    assert all(0 < length <= page_size for length in lengths)
    assert lengths.sum() == len(payload)
    assert decompress_pages(payload, lengths, page_size) == data


@given(pages(), st.data())
def test_pages_with_a_lie_are_an_error_or_pages(given_pages: tuple[bytes, int], choices: st.DataObject) -> None:
    data, page_size = given_pages
    lengths, payload = compress_pages(data, page_size)
    lies: list[Any] = lengths.tolist()
    if not lies:
        return
    where = choices.draw(st.integers(0, len(lies) - 1))
    lies[where] += choices.draw(st.integers(-5000, 5000))
    damaged = bytearray(payload)
    damaged[choices.draw(st.integers(0, len(payload) - 1))] ^= choices.draw(st.integers(0, 255))
    try:
        got = decompress_pages(bytes(damaged), lies, page_size)
    except CorruptDataError as error:
        assert "page" in str(error) or "lengths add up" in str(error)  # noqa: PT017
    else:
        assert lies == lengths.tolist()
        assert len(got) == len(data)
