"""Cost of small blocks: 1 MiB in blocks of 4 KiB and more, against a single block."""

from __future__ import annotations

import pytest
from cases import KIB, MIB, chunk, codec, size_name
from pytest_benchmark.fixture import BenchmarkFixture

from numcodecs_qpl import QPL
from numcodecs_qpl.bench.data import DATA_SETS


@pytest.mark.parametrize("operation", ["encode", "decode"])
@pytest.mark.parametrize("data_set", DATA_SETS)
@pytest.mark.parametrize("block_size", [4 * KIB << shift for shift in range(9)], ids=size_name)
def test_block_size(benchmark: BenchmarkFixture, block_size: int, data_set: str, operation: str) -> None:
    measured = codec(QPL(block_size=block_size), chunk(data_set, MIB))
    benchmark.group = f"{operation}, {data_set}, by block size"
    benchmark.extra_info |= {
        "operation": operation,
        "block_size": block_size,
        "data": data_set,
        "size": MIB,
        "encoded": measured.encoded_size,
        "ratio": MIB / measured.encoded_size,
    }
    benchmark(measured.encode if operation == "encode" else measured.decode)
