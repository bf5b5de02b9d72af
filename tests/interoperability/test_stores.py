"""Other implementations of zarr read stores whose chunks are ours, and we read the chunks of theirs."""

from __future__ import annotations

import base64
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import peers
import pytest
import zarr
from peers import HUFFMANS, Container, Huffman
from zarr.codecs import GzipCodec

import numcodecs_qpl
from numcodecs_qpl import QPL
from numcodecs_qpl.codec import DEFAULT_BLOCK_SIZE

Array = npt.NDArray[Any]

DATA: Array = np.cumsum(np.random.default_rng(13).integers(-3, 4, (200, 600)), axis=1, dtype="<i4")
CHUNKS = (100, 300)
"""Chunks of 120,000 bytes: two blocks of the default size, the second one shorter."""
GDAL_WITH_ZARR_3 = (3, 12)
"""3.10.3, the newest that rasterio has for Python 3.11, refuses every zarr 3 store; 3.12.1 reads them."""


@dataclass(frozen=True)
class Format:
    """A version of zarr and the codec that its metadata names."""

    version: int
    container: Container

    @property
    def compressor(self) -> Any:
        if self.version == 3:
            return GzipCodec()
        return numcodecs.GZip() if self.container == "gzip" else numcodecs.Zlib()

    def __str__(self) -> str:
        return f"v{self.version} {self.container}"


V2_GZIP, V2_ZLIB, V3_GZIP = FORMATS = (Format(2, "gzip"), Format(2, "zlib"), Format(3, "gzip"))


def chunks_of(folder: Path, version: int) -> Iterator[tuple[Path, bytes]]:
    """Find the file of each chunk of `DATA`, and the bytes that it holds uncompressed."""
    for row, column in itertools.product(range(2), range(2)):
        file = folder / (f"c/{row}/{column}" if version == 3 else f"{row}.{column}")
        rows, columns = (slice(at * size, (at + 1) * size) for at, size in zip((row, column), CHUNKS, strict=True))
        yield file, DATA[rows, columns].tobytes()


def tensorstore_spec(folder: Path, version: int) -> dict[str, Any]:
    kvstore = {"driver": "file", "path": f"{folder}/"}
    return {"driver": "zarr3" if version == 3 else "zarr", "kvstore": kvstore}


def zarrs_pipeline() -> Any:
    """Let zarr run on zarrs; `strict` makes what zarrs cannot do an error instead of a fallback."""
    peers.module("zarrs")
    return zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True})


# ---- They read ours ---------------------------------------------------------------------------------------------


def read_tensorstore(folder: Path, version: int) -> Array:
    opened = peers.module("tensorstore").open(tensorstore_spec(folder, version)).result()
    return np.asarray(opened.read().result())


def read_zarrs(folder: Path, version: int) -> Array:
    with zarrs_pipeline():
        array = zarr.open_array(folder, mode="r", zarr_format=3 if version == 3 else 2)
        assert type(array.async_array.codec_pipeline).__module__.startswith("zarrs")
        return np.asarray(array[:])


def read_gdal(folder: Path, version: int) -> Array:
    rasterio = peers.module("rasterio")
    gdal = rasterio.__gdal_version__
    if version == 3 and tuple(map(int, gdal.split(".")[:2])) < GDAL_WITH_ZARR_3:
        pytest.skip(f"GDAL {gdal} cannot read any zarr 3 store: it does not know the codec 'bytes'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(f'ZARR:"{folder}"') as dataset:
            return np.asarray(dataset.read(1))


def read_zarrita(folder: Path, _version: int) -> Array:
    printed = base64.b64decode(peers.node("store.mjs", str(folder)))
    return np.frombuffer(printed, DATA.dtype).reshape(DATA.shape)


def read_zarr(folder: Path, _version: int) -> Array:
    return np.asarray(zarr.open_array(folder, mode="r")[:])


READERS: dict[str, tuple[Callable[[Path, int], Array], Sequence[Format]]] = {
    "tensorstore": (read_tensorstore, FORMATS),
    "zarrs": (read_zarrs, FORMATS),
    "GDAL": (read_gdal, FORMATS),
    "zarrita": (read_zarrita, FORMATS),
    "zarr": (read_zarr, FORMATS),
}


@pytest.mark.parametrize("block_size", [4096, DEFAULT_BLOCK_SIZE])
@pytest.mark.parametrize("huffman", HUFFMANS)
@pytest.mark.parametrize(
    ("reader", "form"),
    [pytest.param(name, form, id=f"{name}-{form}") for name, (_, forms) in READERS.items() for form in forms],
)
def test_a_peer_reads_a_store_whose_chunks_are_ours(
    tmp_path: Path, reader: str, form: Format, huffman: Huffman, block_size: int
) -> None:
    array = zarr.create_array(
        tmp_path,
        shape=DATA.shape,
        dtype=DATA.dtype,
        chunks=CHUNKS,
        compressors=form.compressor,
        fill_value=0,
        zarr_format=3 if form.version == 3 else 2,
    )
    array[:] = DATA
    codec = QPL(container=form.container, block_size=block_size, huffman=huffman)
    for file, content in chunks_of(tmp_path, form.version):
        assert file.is_file()
        file.write_bytes(codec.encode(content))
    assert np.array_equal(READERS[reader][0](tmp_path, form.version), DATA)


@pytest.mark.parametrize("reader", ["tensorstore", "zarrs", "zarrita"])
def test_a_peer_reads_shards_that_zarrs_gzip_wrote_through_us(tmp_path: Path, reader: str) -> None:
    before = numcodecs_qpl.stats()["software"]["compressed"]
    with numcodecs_qpl.enable(instances=True):
        zarr.create_array(tmp_path, data=DATA, chunks=(50, 100), shards=CHUNKS, compressors=GzipCodec())
    assert numcodecs_qpl.stats()["software"]["compressed"] == before + 24
    assert np.array_equal(READERS[reader][0](tmp_path, 3), DATA)


# ---- We read theirs ---------------------------------------------------------------------------------------------


def write_tensorstore(folder: Path, form: Format, level: int) -> Path:
    if form.version == 3:
        grid = {"name": "regular", "configuration": {"chunk_shape": CHUNKS}}
        codecs = [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "gzip", "configuration": {"level": level}},
        ]
        metadata = {"shape": DATA.shape, "data_type": "int32", "chunk_grid": grid, "codecs": codecs}
    else:
        compressor = {"id": form.container, "level": level}
        metadata = {"shape": DATA.shape, "dtype": "<i4", "chunks": CHUNKS, "compressor": compressor}
    spec = {**tensorstore_spec(folder, form.version), "metadata": metadata, "create": True}
    peers.module("tensorstore").open(spec).result().write(DATA).result()
    return folder


def write_zarrs(folder: Path, _form: Format, level: int) -> Path:
    with zarrs_pipeline():
        zarr.create_array(folder, data=DATA, chunks=CHUNKS, compressors=GzipCodec(level=level))
    return folder


def write_gdal(folder: Path, form: Format, level: int) -> Path:
    rasterio = peers.module("rasterio")
    options = {
        "COMPRESS": form.container.upper(),
        f"{form.container.upper()}_LEVEL": level,
        "BLOCKSIZE": ",".join(map(str, CHUNKS)),
    }
    height, width = DATA.shape
    with rasterio.open(
        folder,
        "w",
        driver="Zarr",
        width=width,
        height=height,
        count=1,
        dtype="int32",
        transform=rasterio.Affine(1, 0, 10, 0, -1, 20),  # without one, rasterio warns
        **options,
    ) as dataset:
        dataset.write(DATA, 1)
    return folder / folder.name  # a group with one array


WRITERS: dict[str, tuple[Callable[[Path, Format, int], Path], Sequence[Format]]] = {
    "tensorstore": (write_tensorstore, FORMATS),
    "zarrs": (write_zarrs, (V3_GZIP,)),
    "GDAL": (write_gdal, (V2_GZIP, V2_ZLIB)),
}


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize(
    ("writer", "form"),
    [pytest.param(name, form, id=f"{name}-{form}") for name, (_, forms) in WRITERS.items() for form in forms],
)
def test_we_read_the_chunks_of_a_peers_store(tmp_path: Path, writer: str, form: Format, level: int) -> None:
    folder = WRITERS[writer][0](tmp_path / "store", form, level)
    codec = QPL(container=form.container)
    for file, content in chunks_of(folder, form.version):
        assert codec.decode(file.read_bytes()) == content
        out = bytearray(len(content))
        codec.decode(file.read_bytes(), out)
        assert out == content
