"""Routes by which zarr comes to chunks of gzip and zlib: stores of its formats, and references to a NetCDF4 file.

The programs of a test import this module by its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numcodecs
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import GzipCodec

DATA = np.cumsum(np.random.default_rng(12).integers(-3, 4, (120, 130)), axis=1, dtype="i2")
CHUNKS = (40, 65)
COUNT = 6
"""Chunks of `DATA`."""


class Route(NamedTuple):
    """A way to the array ``t`` of `DATA`.

    Attributes
    ----------
    write : callable
        Makes it in a folder, by whatever serves the process's codecs.
    open : callable
        Finds in the same folder what zarr and xarray open, in any process.
    """

    write: Callable[[Path], object]
    open: Callable[[Path], Any] = lambda folder: folder / "store"


def store(codec: Any, zarr_format: Any) -> Route:
    """A store of zarr's own."""

    def write(folder: Path) -> None:
        encoding = {"t": {"compressors": codec, "chunks": CHUNKS}}
        dataset().to_zarr(folder / "store", zarr_format=zarr_format, encoding=encoding, consolidated=False)

    return Route(write)


def dataset() -> xr.Dataset:
    return xr.Dataset({"t": (("y", "x"), DATA)})


def write_netcdf(folder: Path) -> Path:
    from numcodecs_qpl import netcdf  # not above: programs read before they import the package

    path = folder / "t.nc"
    netcdf.write(path, dataset(), {"t": CHUNKS})
    return path


def write_kerchunk(folder: Path) -> None:
    from numcodecs_qpl import netcdf

    (folder / "references.json").write_text(json.dumps(netcdf.references(write_netcdf(folder))))


def open_kerchunk(folder: Path) -> Any:
    from kerchunk.utils import refs_as_store

    return refs_as_store(json.loads((folder / "references.json").read_text()))


def open_virtualizarr(folder: Path) -> Any:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr.parsers import HDFParser

    url = (folder / "t.nc").as_uri()
    return HDFParser()(url, ObjectStoreRegistry({"file://": LocalStore()}))


def write_icechunk(folder: Path) -> None:
    write_netcdf(folder)
    session = icechunk_repository(folder).writable_session("main")
    open_virtualizarr(folder).to_virtual_dataset().vz.to_icechunk(session.store)
    session.commit("references")


def icechunk_repository(folder: Path) -> Any:
    import icechunk

    prefix = folder.as_uri() + "/"
    # icechunk 1.1.21, for Python 3.11, takes None for a container that needs no credentials. 2.x warns of it.
    access = getattr(icechunk.credentials, "LocalFileSystemAccess", None)
    config = icechunk.RepositoryConfig.default()
    container = icechunk.VirtualChunkContainer(prefix, icechunk.local_filesystem_store(str(folder)))
    config.set_virtual_chunk_container(container)
    return icechunk.Repository.open_or_create(
        icechunk.local_filesystem_storage(str(folder / "store")),
        config=config,
        authorize_virtual_chunk_access=icechunk.containers_credentials({prefix: access}),
    )


def open_icechunk(folder: Path) -> Any:
    return icechunk_repository(folder).readonly_session("main").store


ROUTES = {
    "v2-zlib": store(numcodecs.Zlib(5), 2),
    "v2-gzip": store(numcodecs.GZip(5), 2),
    "v3-gzip": store(GzipCodec(), 3),
    "v3-numcodecs.zlib": store({"name": "numcodecs.zlib", "configuration": {"level": 5}}, 3),
    "v3-numcodecs.gzip": store({"name": "numcodecs.gzip", "configuration": {"level": 5}}, 3),
    "kerchunk": Route(write_kerchunk, open_kerchunk),
    "virtualizarr": Route(write_netcdf, open_virtualizarr),
    "icechunk": Route(write_icechunk, open_icechunk),
}


def open_array(opened: Any) -> Any:
    """Open what a route opens by zarr."""
    return zarr.open_group(opened, mode="r")["t"]


READERS: dict[str, Callable[[Any], Any]] = {
    "zarr": lambda opened: open_array(opened)[:],
    "xarray": lambda opened: xr.open_zarr(opened, chunks=None, consolidated=False).t.values,
    "dask": lambda opened: xr.open_zarr(opened, chunks={}, consolidated=False).t.values,
}
"""Ways to the values of an array that a route opens; that of dask is in threads."""
