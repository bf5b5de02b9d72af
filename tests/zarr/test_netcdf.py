"""A NetCDF4 file by reference: what is written, where its chunks are, and how xarray reads them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from numcodecs_qpl import enable, netcdf, reset_stats, stats

DATA = xr.Dataset(
    {
        "t": (("time", "y", "x"), np.random.default_rng(3).integers(0, 9, (2, 40, 60)).astype("<f4")),
        "p": (("y", "x"), np.arange(2400, dtype="u1").reshape(40, 60)),
    }
)
CHUNKS = {"t": (1, 20, 60), "p": (40, 30)}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("netcdf") / "data.nc"
    netcdf.write(path, DATA, CHUNKS)
    return path


def test_xarrays_own_netcdf_reader_reads_the_file_as_it_was_written(file: Path) -> None:
    with xr.open_dataset(file, engine="h5netcdf") as found:
        xr.testing.assert_equal(found.load(), DATA)
        for name, shape in CHUNKS.items():
            encoding = found[name].encoding
            assert encoding["chunksizes"] == shape
            assert (encoding["zlib"], encoding["complevel"], encoding["shuffle"]) == (True, 4, True)


def test_the_places_are_those_of_the_zlib_streams_of_the_shuffled_chunks(file: Path) -> None:
    places = netcdf.chunk_places(netcdf.references(file), "t")
    content = file.read_bytes()
    chunks = [DATA["t"].values[time, y : y + 20] for time in range(2) for y in (0, 20)]
    shuffled = [np.frombuffer(chunk.tobytes(), "u1").reshape(-1, 4).T.tobytes() for chunk in chunks]
    assert [zlib.decompress(content[offset : offset + length]) for offset, length in places] == shuffled


def test_the_references_are_read_as_what_was_written(file: Path) -> None:
    xr.testing.assert_equal(netcdf.read(netcdf.references(file)), DATA)


def test_reading_by_reference_is_served_after_enable_and_only_then(file: Path) -> None:
    references = netcdf.references(file)
    reset_stats()
    with enable():
        found = netcdf.read(references)
    xr.testing.assert_equal(found, DATA)
    assert stats()["software"]["decompressed"] == 4 + 2
    netcdf.read(references)
    assert stats()["software"]["decompressed"] == 4 + 2


def test_zarr_reads_with_its_own_threads_even_where_dask_is_installed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("dask was asked to read")

    monkeypatch.setattr("dask.array.from_array", refuse)
    xr.testing.assert_equal(netcdf.read(netcdf.references(file)), DATA)
