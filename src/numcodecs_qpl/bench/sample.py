"""Chunks to measure, from a file or generated. `numcodecs_qpl.bench.store` has those of a zarr store.

A sample is spread evenly over the data and fits into memory.
"""

from __future__ import annotations

import math
import os
import shlex
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
"""Bytes of a chunk, for data without chunks."""

MOST = 256 * MIB
"""Upper limit of a sample in bytes, and so of a chunk."""

NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # version 3 differs in the encoding of field names only
}
"""Functions that read the header of a .npy file, by its version."""

GOLDEN = (math.sqrt(5) - 1) / 2

SMALL = 64 << 10
"""Bytes below which the overhead of a call exceeds the codec's work."""

COMPRESSED = {
    GZIP: ("gzip", "gzip -dc {file} > {content}"),
    b"PK\x03\x04": ("zip", "unzip {file}"),
    ZSTANDARD: ("zstd", "zstd -dc {file} > {content}"),
    b"\xfd7zXZ\0": ("xz", "xz -dc {file} > {content}"),
    b"BZh": ("bzip2", "bzip2 -dc {file} > {content}"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc {file} > {content}"),
    b"7z\xbc\xaf\x27\x1c": ("7z", "7z x {file}"),
}
"""Formats of compressed files by their first bytes, and the commands that decompress them."""

HDF5 = b"\x89HDF\r\n\x1a\n"
"""First bytes of HDF5, and so of netCDF 4."""

Chunk = npt.NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Chunks to measure, and facts about the whole data.

    Attributes
    ----------
    name : str
        Name of the data, for titles.
    chunks : list of ndarray
        Input of the codec: one-dimensional and contiguous. Shuffle uses the item size.
    total_chunks, total_bytes : int
        Size of the whole data, uncompressed.
    notes : tuple of str
        Sentences on omitted parts, and other remarks.
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
            part = f"all of it, {_decimal(self.size)}"
        else:
            part = f"{len(self.chunks):,} of {self.total_chunks:,} chunks, spread evenly: {_decimal(self.size)} of "
            part += _decimal(self.total_bytes)
        return f"{self.name}: {part}, in chunks of up to {size_text(self.largest)}"


def name_of(path: Path) -> str:
    """Return the last part of a path, with bytes that are not UTF-8 replaced."""
    return os.fsencode(path.absolute().name).decode(errors="replace")


def size_text(size: int) -> str:
    """Format a number of bytes in KiB or MiB."""
    for unit, name in ((MIB, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return _bytes(size)


def _decimal(size: int) -> str:
    """Format a number of bytes in kB or MB, in units of 1000 as for speeds."""
    for unit, name in ((10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return _bytes(size)


def _bytes(size: int) -> str:
    return f"{size} byte{'s' * (size != 1)}"


def spread(count: int) -> Iterator[int]:
    """Yield every index below `count` once, in an order in which every prefix is spread evenly.

    The step is the golden section. The gaps in a prefix have at most three similar sizes (the three-gap theorem).
    Repeated halving would be as even, but would always hit the same columns of an array with, say, eight chunks in a
    row.
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
    """Return `array` flat, in its memory order, as numbers that every codec accepts."""
    flat = array.reshape(-1, order="A")
    if flat.dtype.kind in "biufc":
        return flat
    # Dates are integers, and text is code points. Others, such as records, become bytes.
    item = {"M": "i8", "m": "i8", "U": f"{flat.dtype.byteorder}u4"}.get(flat.dtype.kind, "u1")
    return flat.view(item)


def made_here(sample_size: int, chunk_size: int) -> list[Sample]:
    """Make the built-in data sets, of `sample_size` bytes each."""
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
    """Take pieces of a file: of the array in a .npy file, or of the bytes of another file.

    Raises
    ------
    BenchError
        If the file cannot be read, is compressed, or has no data.
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
    except FileNotFoundError as error:
        raise BenchError(f"{path} does not exist: give a file, or the folder of a zarr store") from error
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}") from error
    return Sample(name_of(path), chunks, total, data.nbytes, tuple(_notes(path, data)))


def _notes(path: Path, data: Chunk) -> Iterator[str]:
    if path.suffix != ".npy" and data[: len(HDF5)].tobytes() == HDF5:
        yield (
            "This file is HDF5 (as netCDF 4 is), and may be compressed inside. Its bytes are measured as they are. To "
            "measure its data, save that as a .npy file or a zarr store."
        )
    if data.nbytes < SMALL:
        yield "This is little data: the speeds are those of a call more than those of a codec."


def _of_bytes(path: Path) -> Chunk:
    if not path.stat().st_size:
        return np.empty(0, "u1")
    data = np.memmap(path, "u1", "r")
    beginning = data[:8].tobytes()
    for first, (name, command) in COMPRESSED.items():
        if beginning.startswith(first):
            content = path.with_suffix("") if path.suffix else path.with_suffix(".content")
            how = command.format(file=shlex.quote(str(path)), content=shlex.quote(str(content)))
            raise BenchError(
                f"{path} is compressed already, with {name}: decompress it, and measure the result: `{how}`"
            )
    return data


def _of_npy(path: Path) -> Chunk:
    with path.open("rb") as file:
        try:
            shape, _, dtype = NPY_HEADERS[np.lib.format.read_magic(file)](file)
        except OSError:
            raise
        except Exception as error:  # NumPy 2.4 also raises errors of Python's parser
            raise BenchError(
                f"{path} is not a .npy file, or its header is damaged. To measure its bytes, rename it"
            ) from error
        header_size = file.tell()
    if dtype.hasobject:
        raise BenchError(f"{path} holds Python objects. Save it with a dtype of numbers: array.astype(float)")
    wanted, found = math.prod(shape) * dtype.itemsize, path.stat().st_size - header_size
    if found < wanted:
        raise BenchError(f"{path} is truncated: its array has {wanted:,} bytes, and {found:,} are there. Save it again")
    if not wanted:
        return np.empty(0, "u1")
    return as_items(np.asarray(np.load(path, mmap_mode="r" if wanted >= MIB else None, allow_pickle=False)))
