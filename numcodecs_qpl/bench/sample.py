"""The chunks that are measured: of a file, or made here; those of a zarr store come from `numcodecs_qpl.bench.store`.

A sample is spread evenly over the data and has a size that fits into memory.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from numcodecs_qpl.bench.data import DATA_SETS, DTYPES
from numcodecs_qpl.bench.errors import BenchError
from numcodecs_qpl.containers.beginnings import GZIP, ZSTANDARD

MIB = 1 << 20

CHUNK_SIZE = MIB
"""Bytes of a chunk where the data has no chunks of its own."""

MOST = 256 * MIB
"""Bytes of the largest sample, and so of the largest chunk."""

GOLDEN = (math.sqrt(5) - 1) / 2

COMPRESSED = {
    GZIP[:2]: "gzip",
    b"PK\x03\x04": "zip",
    ZSTANDARD: "zstd",
    b"\x89HDF\r\n\x1a\n": "HDF5 (netCDF 4 is that too)",
}
"""By its first bytes: a file that is compressed already, or may be inside."""

Chunk = npt.NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Chunks to measure, and what they are of.

    Attributes
    ----------
    name : str
        The data's name, as titles have it.
    chunks : list of ndarray
        One-dimensional and contiguous, as the codec gets them. Their item size is what shuffle goes by.
    total_chunks, total_bytes : int
        Of the whole data, uncompressed.
    notes : tuple of str
        What was left out, or is not as the user may think: sentences.
    """

    name: str
    chunks: list[Chunk]
    total_chunks: int
    total_bytes: int
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the chunks, uncompressed."""
        return sum(chunk.nbytes for chunk in self.chunks)

    @property
    def largest(self) -> int:
        """Bytes of the largest chunk."""
        return max(chunk.nbytes for chunk in self.chunks)

    @property
    def item_sizes(self) -> frozenset[int]:
        """Bytes of the chunks' items."""
        return frozenset(chunk.itemsize for chunk in self.chunks)

    def __str__(self) -> str:
        if len(self.chunks) == self.total_chunks:
            part = f"all of it, {self.size / 1e6:,.2f} MB"
        else:
            part = f"{len(self.chunks):,} of {self.total_chunks:,} chunks, spread evenly: {self.size / 1e6:,.1f} of "
            part += f"{self.total_bytes / 1e6:,.1f} MB"
        return f"{self.name}: {part}, in chunks of up to {size_text(self.largest)}"


def name_of(path: Path) -> str:
    """The last part of a path, with bytes that are no UTF-8 replaced."""
    return os.fsencode(path.absolute().name).decode(errors="replace")


def size_text(size: int) -> str:
    """A number of bytes as people say it."""
    for unit, name in ((MIB, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} bytes"


def spread(count: int) -> Iterator[int]:
    """Every index below `count` once, in an order of which each beginning is spread evenly.

    Steps of the golden section, round and round: the gaps that such a beginning leaves have at most three sizes, none
    far from the others (the three-gap theorem). Halving again and again would be as even, but in step with the grid of
    an array that has, say, eight chunks in a row.
    """
    seen: set[int] = set()
    at = 0.0
    while len(seen) < count:
        index = int(at * count)
        if index not in seen:
            seen.add(index)
            yield index
        at = (at + GOLDEN) % 1


def as_items(array: npt.NDArray[Any]) -> Chunk:
    """`array` flat, in its own order of memory, as numbers of its item size that every codec takes."""
    flat = array.reshape(-1, order="A")
    if flat.dtype.kind in "biufc":
        return flat
    # Dates are integers and text is code points; what is left, as records are, is bytes.
    item = {"M": "i8", "m": "i8", "U": f"{flat.dtype.byteorder}u4"}.get(flat.dtype.kind, "u1")
    return flat.view(item)


def made_here(sample_size: int, chunk_size: int) -> list[Sample]:
    """The built-in data sets, of `sample_size` bytes each."""
    count = max(1, sample_size // chunk_size)
    samples = []
    for name, make in DATA_SETS.items():
        data = np.frombuffer(make(count * chunk_size), "u1")
        pieces = [data[index * chunk_size :][:chunk_size] for index in range(count)]
        samples.append(
            Sample(f"{name} (made here)", [_as_dtype(piece, DTYPES[name]) for piece in pieces], count, data.nbytes)
        )
    return samples


def _as_dtype(piece: Chunk, dtype: str) -> Chunk:
    return piece.view(dtype) if piece.nbytes % np.dtype(dtype).itemsize == 0 else piece


def of_file(path: Path, sample_size: int, chunk_size: int) -> Sample:
    """Pieces of a file: of a .npy file's array, and of any other file's bytes.

    Raises
    ------
    BenchError
        If it can't be read or has nothing to measure.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise BenchError(f"{path} is neither a file nor a folder: give a file, or the folder of a zarr store")
        data, what = (_of_npy(path), "array") if path.suffix == ".npy" else (_of_bytes(path), "file")
        if data.size == 0:
            raise BenchError(f"the {what} {path} is empty: give one with data")
        items = max(1, chunk_size // data.itemsize)
        total = -(-data.size // items)
        wanted = min(total, max(1, sample_size // (items * data.itemsize)))
        taken = sorted(index for index, _ in zip(spread(total), range(wanted), strict=False))
        chunks = [np.array(data[index * items : (index + 1) * items]) for index in taken]
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}") from error
    return Sample(name_of(path), chunks, total, data.nbytes, tuple(_notes(data[:8].tobytes())))


def _notes(beginning: bytes) -> Iterator[str]:
    for first, name in COMPRESSED.items():
        if beginning.startswith(first):
            yield (
                f"This file is {name}, and may be compressed already: what is measured is its bytes as they are. For "
                "the data in it, give that as a .npy file or a zarr store."
            )


def _of_bytes(path: Path) -> Chunk:
    return np.memmap(path, "u1", "r") if path.stat().st_size else np.empty(0, "u1")


def _of_npy(path: Path) -> Chunk:
    try:
        # Of an empty array there is nothing to map.
        mode: Any = None if path.stat().st_size < MIB else "r"
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BenchError(
            f"{path} is no .npy file that can be measured ({error}): by another name it is taken as bytes"
        ) from error
    return as_items(np.asarray(array))
