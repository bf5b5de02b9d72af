"""Checks of arguments: bytes, numbers, names."""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from numcodecs_qpl._core.types import Huffman

Choice = TypeVar("Choice", bound=str)

MAX_BLOCK = 2**31 - 1
"""Bytes of the largest block: ISA-L and libqpl count in 32 bits, and half of that fits into a signed int."""

MAX_LEVEL = 9
"""The highest level of zlib, and of its codecs in numcodecs and zarr; 0 is the lowest."""

HUFFMAN: dict[Huffman, bool] = {"fixed": False, "dynamic": True}
"""Choices of `huffman`: True if tables are made for each block."""


def unusual_bytes(buffer: Any, name: str, writable: bool) -> memoryview:
    """Return the bytes of an object that has no C-contiguous buffer or may hold Python objects; see `Memory`."""
    try:
        array = np.asarray(buffer if isinstance(buffer, np.ndarray) else memoryview(buffer))
    except (TypeError, ValueError, RuntimeError):  # NumPy raises RuntimeError for structures that it cannot read
        raise TypeError(f"{name} is of type {type(buffer).__name__}; a buffer or an array is required") from None
    if array.dtype.hasobject:
        raise TypeError(f"{name} holds Python objects; bytes or an array of numbers is required")
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        advice = "contiguous memory, and copy from it" if writable else f"a copy: numpy.ascontiguousarray({name})"
        raise ValueError(f"{name} is not contiguous; pass {advice}")
    if not array.nbytes:
        return memoryview(bytearray() if array.flags.writeable else b"")
    return array.reshape(-1, order="A").view(np.uint8).data


def as_index(value: Any, name: str, least: int, most: int) -> int:
    """Return `value` as a Python int. Any type with ``__index__`` is accepted, except bool.

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If `value` is not in ``least <= value <= most``.
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


def as_choice(value: Any, name: str, choices: Collection[Choice]) -> Choice:
    """Return the element of `choices` that equals `value`; ValueError with the list of choices if none does."""
    for choice in choices:
        if isinstance(value, str) and value == choice:
            return choice
    raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def is_dynamic(huffman: Any) -> bool:
    """Return True if `huffman` is "dynamic", False if it is "fixed"; ValueError if it is neither."""
    return HUFFMAN[as_choice(huffman, "huffman", HUFFMAN)]


def check_page_size(page_size: Any) -> int:
    """Return `page_size` as an int; ValueError or TypeError unless it is an integer from 2 to `MAX_BLOCK`."""
    return as_index(page_size, "page_size", 2, MAX_BLOCK)


def as_lengths(lengths: Any) -> NDArray[np.int64] | memoryview:
    """Return lengths of pages as an array of int64, shape (pages,); TypeError if they are not integers.

    A memoryview of uint32 is returned unchanged.
    """
    if isinstance(lengths, memoryview) and lengths.format == "I" and lengths.ndim == 1 and lengths.contiguous:
        return lengths
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
    """Return a view of `lengths` to write to; TypeError or ValueError unless it is contiguous, writable, 1-d uint32."""
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
