"""The filters of a zarr array, which are applied before the codec. This module needs zarr."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numcodecs
import numpy as np
import zarr
from numcodecs.compat import ensure_ndarray_like
from zarr.codecs import BytesCodec
from zarr.codecs.numcodecs import Shuffle

from numcodecs_qpl.bench.sample import Chunk, as_items

ITEMS = {2: "u2", 4: "u4", 8: "u8", 16: "c16"}
"""Number types that every codec accepts, by size in bytes."""

Apply = Callable[[Chunk], Chunk]
"""Function of a chunk's values, in its shape, that returns the codec's input."""


def filters_of(array: zarr.Array[Any]) -> tuple[Apply, list[str]]:
    """Return a function that applies the array's filters to a chunk, and remarks on them.

    A final shuffle with the items' size is not applied: the rows with shuffle measure it, and a chunk must not be
    shuffled twice.
    """
    remarks = []
    if array.serializer is not None and not isinstance(array.serializer, BytesCodec):
        remarks.append(f"the serializer {_name(array.serializer)} is not applied.")
    before, shuffle = _split(array)
    if not before and shuffle is None:
        return as_items, remarks
    names = [_name(one) for one in before]
    apply: Apply = partial(_filtered, array, before)
    zeros = np.zeros(array.chunks, array.dtype, order=array.order)
    try:
        item_size = apply(zeros).itemsize
        if shuffle is not None and shuffle.elementsize == item_size > 1:
            remarks.append("the filter shuffle is applied in the rows with shuffle, and in no others.")
        elif shuffle is not None:
            names.append(_name(shuffle))
            apply = partial(_shuffled, apply, shuffle)
            apply(zeros)
    except Exception as error:  # every codec has errors of its own
        reason = f"{type(error).__name__}: {error}"
        return as_items, [*remarks, f"these filters fail and are not applied: {', '.join(names)} ({reason})."]
    if names:
        remarks.append(
            f"these filters stay. They are applied before every codec, and are not timed: {', '.join(names)}."
        )
    return apply, remarks


def _name(codec: Any) -> str:
    """Return a codec's name in the metadata."""
    return str(codec.codec_id if isinstance(codec, numcodecs.abc.Codec) else codec.to_dict()["name"])


def _split(array: zarr.Array[Any]) -> tuple[Sequence[Any], numcodecs.Shuffle | None]:
    """Return the filters before a final shuffle, and the shuffle or None."""
    if array.metadata.zarr_format == 2:
        *before, last = array.filters or [None]
        return (before, last) if isinstance(last, numcodecs.Shuffle) else (array.filters, None)
    # In format 3, shuffle works on bytes and comes before the compressor.
    first = next(iter(array.compressors), None)
    if not isinstance(first, Shuffle):
        return array.filters, None
    return array.filters, numcodecs.get_codec(first.codec_config)


def _filtered(array: zarr.Array[Any], filters: Sequence[Any], chunk: Chunk) -> Chunk:
    if array.metadata.zarr_format == 2:
        for one in filters:
            chunk = ensure_ndarray_like(one.encode(chunk))
        return as_items(chunk)
    if not filters:
        return as_items(chunk)
    # In format 3, zarr applies the filters when it writes the chunk to a temporary array without a compressor.
    store: dict[str, Any] = {}
    alone = zarr.create_array(
        store,
        shape=chunk.shape,
        chunks=chunk.shape,
        dtype=array.dtype,
        filters=filters,
        serializer=array.serializer if isinstance(array.serializer, BytesCodec) else "auto",
        compressors=None,
        config={"write_empty_chunks": True},
    )
    alone[...] = chunk
    (stored,) = (value.to_bytes() for name, value in store.items() if name != "zarr.json")
    item_size, rest = divmod(len(stored), chunk.size)
    return np.frombuffer(stored, "u1" if rest else ITEMS.get(item_size, "u1"))


def _shuffled(apply: Apply, shuffle: numcodecs.Shuffle, chunk: Chunk) -> Chunk:
    shuffled: Chunk = shuffle.encode(apply(chunk))
    return shuffled
