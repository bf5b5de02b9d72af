"""Checks of what a caller passes in: bytes, numbers, names."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_BLOCK = 2**31 - 1
"""Bytes of the largest block: ISA-L and libqpl count in 32 bits, and half of that fits into a signed int."""

MAX_LEVEL = 9
"""The highest level of zlib, and of its codecs in numcodecs and zarr; 0 is the lowest."""

HUFFMAN = {"fixed": False, "dynamic": True}
"""Whether the tables are made for each block, by name."""


def as_bytes(buffer: Any, name: str) -> memoryview:
    """Bytes of any contiguous buffer or array, without a copy.

    Raises
    ------
    TypeError
        If `buffer` has no buffer, or holds Python objects.
    ValueError
        If it is not contiguous.
    """
    if type(buffer) is bytes:
        return memoryview(buffer)
    try:
        view = memoryview(buffer)
        if "O" not in view.format:  # objects may be fields of a structure
            return view.cast("B")
    except (TypeError, ValueError):
        pass
    return _unusual_bytes(buffer, name)


def _unusual_bytes(buffer: Any, name: str) -> memoryview:
    """The same of what `memoryview` cannot cast: other byte orders, dtypes of NumPy's own, F order, size zero."""
    try:
        array = np.asarray(buffer if isinstance(buffer, np.ndarray) else memoryview(buffer))
    except (TypeError, ValueError, RuntimeError):  # NumPy raises the last for structures that it cannot read
        raise TypeError(f"{name} is of type {type(buffer).__name__}; a buffer or an array is required") from None
    if array.dtype.hasobject:
        raise TypeError(f"{name} holds Python objects; bytes or an array of numbers is required")
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        raise ValueError(f"{name} is not contiguous; pass a copy: numpy.ascontiguousarray({name})")
    if not array.nbytes:
        return memoryview(bytearray() if array.flags.writeable else b"")
    return array.reshape(-1, order="A").view(np.uint8).data


def as_writable_bytes(buffer: Any, name: str) -> memoryview:
    """Bytes of a buffer to be written to; see `as_bytes`. ValueError if it is read-only."""
    view = as_bytes(buffer, name)
    if view.readonly:
        raise ValueError(f"{name} is read-only; a writable buffer is required")
    return view


def as_index(value: Any, name: str, least: int, most: int) -> int:
    """`value` as a Python int: any integer, as `operator.index` takes them, but not a bool.

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If it is not in ``least <= value <= most``.
    """
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be an integer") from None
    if not least <= number <= most:
        raise ValueError(f"{name} is {number}; it must be {least} to {most}")
    return number


def as_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """`value` as a Python string, if it is one of `choices`; else a ValueError that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    return str(value)


def is_dynamic(huffman: Any) -> bool:
    """Whether `huffman` asks for dynamic tables; ValueError if it is neither word."""
    return HUFFMAN[as_choice(huffman, "huffman", tuple(HUFFMAN))]


def check_page_size(page_size: Any) -> int:
    """`page_size` as an int; an error unless it is 2 to `MAX_BLOCK`."""
    return as_index(page_size, "page_size", 2, MAX_BLOCK)


def as_lengths(lengths: Any) -> NDArray[np.int64]:
    """Lengths of pages as an array of int64, shape (pages,); TypeError if they are not integers."""
    try:
        array = np.asarray(lengths)
    except ValueError:  # lists of different lengths in a list
        raise TypeError(f"lengths is {lengths!r}; a list of integers is required") from None
    if not array.size:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"lengths is of shape {array.shape} and type {array.dtype}; a list of integers is required")
    return np.ascontiguousarray(array, np.int64)


def as_lengths_to_fill(lengths: Any) -> memoryview:
    """Memory for lengths of pages, to be written to: a contiguous row of uint32.

    Raises
    ------
    TypeError
        If `lengths` has no buffer, or another type or number of dimensions.
    ValueError
        If it is not contiguous, or read-only.
    """
    try:
        view = memoryview(lengths)
    except (TypeError, ValueError):
        raise TypeError(f"lengths is of type {type(lengths).__name__}; an array of uint32 is required") from None
    if view.format != "I" or view.ndim != 1:
        raise TypeError(f"lengths has {view.ndim} dimensions of format {view.format!r}; an array of uint32 is required")
    if not view.contiguous:
        raise ValueError("lengths is not contiguous; an array of its own is required")
    if view.readonly:
        raise ValueError("lengths is read-only; a writable array is required")
    return view


def check_no_overlap(source: Any, target: Any, target_name: str, source_name: str) -> None:
    """Raise a ValueError if two buffers of bytes share memory: a block would be overwritten before it is read."""
    if np.may_share_memory(np.frombuffer(source, np.uint8), np.frombuffer(target, np.uint8)):
        raise ValueError(f"{target_name} overlaps {source_name}; pass memory of its own")
