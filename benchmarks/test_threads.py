"""Threads that share the blocks of one chunk of 16 MiB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cases import MIB, chunk, codec
from pytest_benchmark.fixture import BenchmarkFixture

from numcodecs_qpl import QPL, get_threads, set_threads
from numcodecs_qpl.bench.data import DATA_SETS


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Number of threads in force during the benchmark."""
    before = get_threads()
    set_threads(request.param)
    yield request.param
    set_threads(before)


@pytest.mark.parametrize("data_set", DATA_SETS)
@pytest.mark.parametrize("operation", ["encode", "decode"])
def test_threads(benchmark: BenchmarkFixture, operation: str, data_set: str, threads: int) -> None:
    measured = codec(QPL(), chunk(data_set, 16 * MIB))
    benchmark.group = f"{operation}, {data_set}, 16 MiB, by threads"
    benchmark.extra_info |= {
        "operation": operation,
        "threads": threads,
        "data": data_set,
        "size": 16 * MIB,
        "encoded": measured.encoded_size,
        "ratio": 16 * MIB / measured.encoded_size,
    }
    benchmark(measured.encode if operation == "encode" else measured.decode)
