"""zarr v2, with `numcodecs_qpl.QPL` as the compressor: groups, gaps in the data, other processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from numcodecs_qpl import QPL, CorruptDataError
from numcodecs_qpl.containers import ContainerName

DATA = np.cumsum(np.random.default_rng(4).integers(-3, 4, (120, 130)), axis=1, dtype="i4")


def create(store: Path | dict[str, Any], **settings: Any) -> Any:
    return zarr.create_array(store, zarr_format=2, **({"compressors": QPL()} | settings))


def test_a_group_of_arrays_in_every_container_reads_back_from_disk(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path, zarr_format=2)
    containers: list[ContainerName] = ["gzip", "zlib", "deflate"]
    for container in containers:
        inner = group.create_group(container)
        inner.create_array("a", data=DATA, chunks=(50, 40), compressors=QPL(container=container))
    again = zarr.open_group(tmp_path, mode="r")
    for container in containers:
        array: Any = again[f"{container}/a"]
        assert array.compressors == (QPL(container=container),)
        assert np.array_equal(array[:], DATA)


@pytest.mark.parametrize("fill_value", [0, -7, None])
def test_a_missing_v2_chunk_reads_as_the_fill_value(tmp_path: Path, fill_value: int | None) -> None:
    create(tmp_path, data=DATA, chunks=(50, 40), fill_value=fill_value)
    (tmp_path / "1.2").unlink()
    array: Any = zarr.open_array(tmp_path, mode="r")[:]
    expected = DATA.copy()
    expected[50:100, 80:120] = fill_value or 0
    if fill_value is None:  # then zarr promises nothing about it
        array[50:100, 80:120] = 0
    assert np.array_equal(array, expected)


def test_part_of_a_v2_chunk_can_be_written(tmp_path: Path) -> None:
    array = create(tmp_path, data=DATA, chunks=(50, 40))
    array[45:55, 35:45] = -1
    expected = DATA.copy()
    expected[45:55, 35:45] = -1
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], expected)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0)])
def test_v2_arrays_of_one_or_no_elements_read_back(shape: tuple[int, ...]) -> None:
    assert np.array_equal(create({}, data=np.full(shape, 5.5))[...], np.full(shape, 5.5))


def test_filters_stand_before_the_codec(tmp_path: Path) -> None:
    create(tmp_path, data=DATA, chunks=(50, 40), filters=[numcodecs.Delta(dtype="i4")])
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)


@pytest.mark.parametrize("block_size", [1, 2**31 - 1])
def test_a_v2_array_reads_back_whatever_the_block_size(block_size: int) -> None:
    data = DATA[:20, :30]
    assert np.array_equal(create({}, data=data, chunks=(10, 10), compressors=QPL(block_size=block_size))[:], data)


@pytest.mark.parametrize("container", ["gzip", "zlib"])
def test_a_flipped_bit_in_a_v2_chunk_is_an_error(tmp_path: Path, container: ContainerName) -> None:
    create(tmp_path, data=DATA, chunks=(50, 40), compressors=QPL(container=container))
    chunk = tmp_path / "1.2"
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 16
    chunk.write_bytes(damaged)
    with pytest.raises(CorruptDataError):
        zarr.open_array(tmp_path, mode="r")[:]


def test_a_fresh_process_that_imports_only_zarr_reads_a_v2_store(tmp_path: Path) -> None:
    create(tmp_path, data=DATA, chunks=(50, 40))
    code = "import sys, zarr; print(int(zarr.open_array(sys.argv[1], mode='r')[:].sum()))"
    words = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout == f"{DATA.sum()}\n"
