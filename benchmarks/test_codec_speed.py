"""The codec, the libraries in C and the peers, on the same chunks in one run."""

from __future__ import annotations

import pytest
from cases import EVERY_DATA_SET, EVERY_SIZE, KIB, MIB, OTHER_CONTAINERS, Contender, chunk, size_name
from pytest_benchmark.fixture import BenchmarkFixture

from numcodecs_qpl._core import path_in_force

CASES = [
    pytest.param(name, data_set, size, id=f"{name}-{data_set}-{size_name(size)}")
    for size in (4 * KIB, 64 * KIB, MIB, 16 * MIB)
    for data_set in EVERY_DATA_SET
    for name in (*EVERY_SIZE, *(OTHER_CONTAINERS if size == MIB else ()))
]


def contender(name: str, data_set: str, size: int) -> Contender:
    return {**EVERY_SIZE, **OTHER_CONTAINERS}[name](chunk(data_set, size))


def describe(benchmark: BenchmarkFixture, operation: str, name: str, data_set: str, size: int, encoded: int) -> None:
    """Store beside the times what was measured; `size` and `encoded` in bytes."""
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
