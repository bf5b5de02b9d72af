"""zarr from end to end: an array of 64 MiB in chunks of 1 MiB, written and read whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from cases import MIB, chunk
from pytest_benchmark.fixture import BenchmarkFixture
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.storage import LocalStore, MemoryStore

from numcodecs_qpl.bench.data import DTYPES
from numcodecs_qpl.zarr import QPL

SIZE = 64 * MIB
ARRAYS = ("float32 field", "int16 field")
CODECS: dict[str, Any] = {
    "QPL()": QPL(),
    "GzipCodec(level=1)": GzipCodec(level=1),
    "ZstdCodec(level=1)": ZstdCodec(level=1),
    "BloscCodec()": BloscCodec(),
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("data_set", ARRAYS)
@pytest.mark.parametrize("store_name", ["MemoryStore", "LocalStore"])
@pytest.mark.parametrize("operation", ["write", "read"])
def test_zarr(
    benchmark: BenchmarkFixture, operation: str, store_name: str, data_set: str, name: str, tmp_path: Path
) -> None:
    values = np.frombuffer(chunk(data_set, SIZE), DTYPES[data_set])
    store = MemoryStore() if store_name == "MemoryStore" else LocalStore(tmp_path)
    array = zarr.create_array(
        store, shape=values.shape, chunks=(MIB // values.itemsize,), dtype=values.dtype, compressors=CODECS[name]
    )
    array[:] = values
    if not np.array_equal(np.asarray(array[:]), values):
        raise RuntimeError(f"{name} does not give back what was written")
    encoded = array.nbytes_stored()
    benchmark.group = f"{operation}, {data_set}, {store_name}"
    benchmark.extra_info |= {
        "operation": operation,
        "codec": name,
        "store": store_name,
        "data": data_set,
        "size": SIZE,
        "encoded": encoded,
        "ratio": SIZE / encoded,
    }
    if operation == "write":
        benchmark(array.__setitem__, slice(None), values)
    else:
        benchmark(array.__getitem__, slice(None))
