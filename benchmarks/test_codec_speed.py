"""The codec, libqpl itself and the peers, on the same chunks in one run."""

from __future__ import annotations

import pytest
from contenders import EVERY_SIZE, KIB, MIB, ONE_STREAM, Contender, chunk, size_name
from pytest_benchmark.fixture import BenchmarkFixture

from numcodecs_qpl._core import path_in_force
from numcodecs_qpl.bench.data import DATA_SETS

CASES = [
    pytest.param(name, data_set, size, id=f"{name}-{data_set}-{size_name(size)}")
    for size in (4 * KIB, 64 * KIB, MIB, 16 * MIB)
    for data_set in DATA_SETS
    for name in (*EVERY_SIZE, *(ONE_STREAM if size == MIB else ()))
]


def contender(name: str, data_set: str, size: int) -> Contender:
    return {**EVERY_SIZE, **ONE_STREAM}[name](chunk(data_set, size))


def describe(benchmark: BenchmarkFixture, operation: str, name: str, data_set: str, size: int, encoded: int) -> None:
    """Put beside the times what they are of; `size` and `encoded` in bytes."""
    benchmark.group = f"{operation}, {data_set}, {size_name(size)}"
    benchmark.extra_info |= {
        "operation": operation,
        "codec": name,
        "data": data_set,
        "size": size,
        "encoded": encoded,
        "ratio": size / encoded,
        "path": path_in_force(),
    }


@pytest.mark.parametrize(("name", "data_set", "size"), CASES)
def test_encode(benchmark: BenchmarkFixture, name: str, data_set: str, size: int) -> None:
    measured = contender(name, data_set, size)
    describe(benchmark, "encode", name, data_set, size, measured.encoded_size)
    benchmark(measured.encode)


@pytest.mark.parametrize(("name", "data_set", "size"), CASES)
def test_decode(benchmark: BenchmarkFixture, name: str, data_set: str, size: int) -> None:
    measured = contender(name, data_set, size)
    describe(benchmark, "decode", name, data_set, size, measured.encoded_size)
    benchmark(measured.decode)
