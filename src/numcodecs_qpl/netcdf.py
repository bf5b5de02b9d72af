"""Reading of a NetCDF4 file through zarr: references by kerchunk, opened with xarray.

The demo and the benchmarks use this module. It needs the extra "demo".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from kerchunk.hdf import SingleHdf5ToZarr

LEVEL = 4
"""zlib's level in the file, the one that most archives of NetCDF4 files use."""

References = dict[str, Any]
"""Metadata of a zarr format 2 group, and for each chunk its file, offset and length."""


def write(path: Path, dataset: xr.Dataset, chunks: Mapping[str, tuple[int, ...]]) -> None:
    """Write a NetCDF4 file whose variables are shuffled and compressed with zlib, in chunks of the given shapes."""
    compression = {"zlib": True, "complevel": LEVEL, "shuffle": True}
    encoding = {name: {**compression, "chunksizes": shape} for name, shape in chunks.items()}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)


def references(path: Path) -> References:
    """List the places of the chunks in the file."""
    with path.open("rb") as file:
        found: References = SingleHdf5ToZarr(file, url=str(path), inline_threshold=0).translate()
    return found


def chunk_places(references: References, variable: str) -> list[tuple[int, int]]:
    """Return the offset and length of each chunk of a variable."""
    chunks = references["refs"].items()
    return [(place[1], place[2]) for key, place in chunks if key.startswith(f"{variable}/") and isinstance(place, list)]


def read(references: References) -> xr.Dataset:
    """Open the references with xarray and read every variable.

    zarr reads the chunks with its own threads: without ``chunks=None``, kerchunk's engine uses dask if it is installed.
    """
    options = {"chunks": None}
    with xr.open_dataset(references, engine="kerchunk", open_dataset_options=options) as dataset:  # type: ignore[arg-type]
        return dataset.load()
