"""A batch of guest pages, of the size that a migration has: 128 pages of 4 KiB."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from cases import KIB, Contender, chunk
from pytest_benchmark.fixture import BenchmarkFixture
from raw import Engine, RawDeflate, RawInflate

from numcodecs_qpl import compress_pages, decompress_pages
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.bench.data import DATA_SETS

PAGE = 4 * KIB
PAGES = 128


def in_c(data: bytes, huffman: Huffman, engine: Engine) -> Contender:
    deflate = RawDeflate(engine, data, PAGE, dynamic=huffman == "dynamic", pages=True)
    return Contender(deflate, RawInflate.of(engine, deflate, data, PAGE, pages=True), deflate.size)


def in_python(data: bytes, huffman: Huffman) -> Contender:
    lengths, payload = compress_pages(data, PAGE, huffman)
    if decompress_pages(payload, lengths, PAGE) != data:
        raise RuntimeError("decompress_pages does not give back what was put in")
    return Contender(
        partial(compress_pages, data, PAGE, huffman), partial(decompress_pages, payload, lengths, PAGE), len(payload)
    )


PAGE_FUNCTIONS: dict[str, Callable[[bytes, Huffman], Contender]] = {
    "libqpl in C": partial(in_c, engine="libqpl"),
    "ISA-L in C": partial(in_c, engine="ISA-L"),
    "compress_pages, decompress_pages": in_python,
}


@pytest.mark.parametrize("name", PAGE_FUNCTIONS)
@pytest.mark.parametrize("data_set", DATA_SETS)
@pytest.mark.parametrize("huffman", ["fixed", "dynamic"])
@pytest.mark.parametrize("operation", ["encode", "decode"])
def test_pages(benchmark: BenchmarkFixture, operation: str, huffman: Huffman, data_set: str, name: str) -> None:
    data = chunk(data_set, PAGES * PAGE)
    measured = PAGE_FUNCTIONS[name](data, huffman)
    benchmark.group = f"{operation}, {data_set}, {huffman}, {PAGES} pages"
    benchmark.extra_info |= {
        "operation": operation,
        "codec": name,
        "huffman": huffman,
        "data": data_set,
        "size": len(data),
        "encoded": measured.encoded_size,
        "ratio": len(data) / measured.encoded_size,
    }
    benchmark(measured.encode if operation == "encode" else measured.decode)
