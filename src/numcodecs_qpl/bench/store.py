"""Chunks of a zarr store, complete and after the store's filters, like the codec's input. It needs zarr."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from numcodecs_qpl.bench.errors import BenchError
from numcodecs_qpl.bench.filters import Apply, filters_of
from numcodecs_qpl.bench.sample import MOST, Chunk, Sample, name_of, size_text, spread

MOST_LOOKS = 4096
"""Most chunks that are read to find stored ones."""


@dataclass
class _Arrays:
    """Arrays of a store to measure, each with its filters, and remarks on them."""

    arrays: list[tuple[str, zarr.Array[Any], Apply]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, array: zarr.Array[Any]) -> None:
        """Add an array, or a note with the reason for its omission."""
        if np.dtype(array.dtype).hasobject or array.dtype.kind == "T":
            self.notes.append(f"{name} is left out: it holds objects or text of variable length.")
        elif array.size == 0:
            self.notes.append(f"{name} is left out: its shape {array.shape} has no elements.")
        elif _chunk_bytes(array) > MOST:
            size = size_text(_chunk_bytes(array))
            self.notes.append(f"{name} is left out: its chunks have {size}, and {size_text(MOST)} are the limit here.")
        else:
            apply, remarks = filters_of(array)
            self.arrays.append((name, array, apply))
            for remark in remarks:
                self.remarks.setdefault(remark, []).append(name)


def of_store(path: Path, sample_size: int) -> Sample:
    """Take chunks of the zarr array in the folder `path`, or of all arrays of the group there.

    Chunks with only fill values are left out: zarr does not store them.

    Raises
    ------
    BenchError
        If the store cannot be read or has no data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about formats and codecs; the store is only read
        try:
            found = _open(path)
            return _sample(path, found, sample_size)
        except BenchError:
            raise
        except Exception as error:  # every store and codec has errors of its own
            raise BenchError(f"the zarr store {path} cannot be read: {type(error).__name__}: {error}") from error


def _open(path: Path) -> _Arrays:
    try:
        root = zarr.open(path, mode="r")
    except FileNotFoundError as error:
        raise BenchError(
            f"{path} is a folder, and not a zarr store: give a file, or the folder of a zarr array or group"
        ) from error
    found = _Arrays()
    if isinstance(root, zarr.Array):
        found.add(name_of(path), root)
    else:
        for name, array in sorted(root.members(max_depth=None)):
            if isinstance(array, zarr.Array):
                found.add(name, array)
    if not found.arrays:
        what = " ".join(found.notes) or "It has no arrays."
        raise BenchError(f"the zarr store {path} has nothing to measure. {what}")
    return found


def _sample(path: Path, found: _Arrays, sample_size: int) -> Sample:
    counts = [math.prod(_grid(array)) for _, array, _ in found.arrays]
    sizes = [_chunk_bytes(array) for _, array, _ in found.arrays]
    total = sum(counts)
    ends = np.cumsum(counts)
    taken: dict[int, Chunk] = {}
    size = empty = 0
    for index, _ in zip(spread(total), range(MOST_LOOKS), strict=False):
        which = int(np.searchsorted(ends, index, side="right"))
        name, array, apply = found.arrays[which]
        if taken and size + sizes[which] > sample_size:
            break
        number = index - int(ends[which]) + counts[which]
        chunk = _chunk(name, array, np.unravel_index(number, _grid(array)))
        if chunk is None:
            empty += 1
            continue
        taken[index] = apply(chunk)
        sizes[which] = taken[index].nbytes
        size += sizes[which]
    if not taken:
        raise BenchError(
            f"the zarr store {path} has nothing to measure: {empty:,} of {total:,} chunks, spread evenly, hold only "
            "fill values"
        )
    notes = found.notes + [f"{', '.join(names)}: {remark}" for remark, names in found.remarks.items()]
    if empty:
        notes.append(f"{empty:,} more chunks hold only fill values and are left out: zarr does not store them.")
    whole = sum(count * of_chunk for count, of_chunk in zip(counts, sizes, strict=True))
    return Sample(name_of(path), [taken[index] for index in sorted(taken)], total, whole, tuple(notes))


def _chunk(name: str, array: zarr.Array[Any], at: tuple[np.intp, ...]) -> Chunk | None:
    """Return the values of the chunk at that place of the grid; None if all are fill values."""
    region = tuple(
        slice(int(i) * size, min(length, (int(i) + 1) * size))
        for i, size, length in zip(at, array.chunks, array.shape, strict=True)
    )
    fill = np.zeros((), array.dtype) if array.fill_value is None else np.asarray(array.fill_value, array.dtype)
    # The store pads a chunk at the edge.
    chunk = np.full(array.chunks, fill, array.dtype, order=array.order)
    try:
        chunk[tuple(slice(0, part.stop - part.start) for part in region)] = array[region]
    except Exception as error:  # every store and codec has errors of its own
        place = ", ".join(map(str, at))
        raise BenchError(f"chunk ({place}) of {name} cannot be read: {type(error).__name__}: {error}") from error
    if chunk.tobytes() == fill.tobytes() * chunk.size:
        return None
    return chunk


def _grid(array: zarr.Array[Any]) -> tuple[int, ...]:
    return tuple(-(-length // size) for length, size in zip(array.shape, array.chunks, strict=True))


def _chunk_bytes(array: zarr.Array[Any]) -> int:
    return math.prod(array.chunks) * int(array.dtype.itemsize)
