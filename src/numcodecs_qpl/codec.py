"""QPL, the numcodecs codec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self, overload

from numcodecs.abc import Codec

from numcodecs_qpl._core import HUFFMAN, MAX_BLOCK, Memory
from numcodecs_qpl._core.arguments import as_choice, as_index
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import CONTAINERS, ContainerName, Reader

if TYPE_CHECKING:
    from numcodecs_qpl._core.types import BufferLike, Out

DEFAULT_BLOCK_SIZE = 65536
"""The smallest power of two that costs less than 1 % of ratio on the benchmark data (see the table in
``docs/benchmarks.md``)."""

_DRAFT_LEVELS = (1, 3)
"""Levels in configs of the draft of 0.1.0. They have no effect."""


class QPL(Codec):  # type: ignore[misc]
    """Deflate, on an In-Memory Analytics Accelerator (IAA) if the machine has one, else in software.

    Any gzip, zlib or inflate implementation reads its output. It reads gzip, zlib and deflate data of any producer. A
    codec is immutable.

    Parameters
    ----------
    container : {"gzip", "zlib", "deflate"}
        Format around the deflate stream: gzip (RFC 1952), zlib (RFC 1950), or none (RFC 1951). Bare deflate has no
        checksum, so some damage is not detected. Only gzip has an index of its blocks, so only gzip is inflated on an
        IAA or by several threads.
    block_size : int
        Uncompressed bytes in a block, 1 to 2**31 - 1. Blocks are compressed independently, so threads and hardware
        queues work on them in parallel. The output is always one stream. The default is 65536.
    huffman : {"dynamic", "fixed"}
        Huffman tables made for each block, or deflate's fixed ones, which compress less.

    Notes
    -----
    With fixed tables, software writes the same bytes for the same input, with any number of threads and in any process.
    With dynamic tables, about one block in 4,000 has different, equally valid bytes from one process to the next
    (ISA-L 2.31.1). The path and the number of threads are not part of the configuration: see `numcodecs_qpl.set_path`
    and `numcodecs_qpl.set_threads`.

    Examples
    --------
    >>> import gzip
    >>> import numpy as np
    >>> from numcodecs_qpl import QPL
    >>> data = np.arange(100_000, dtype="i4")
    >>> encoded = QPL().encode(data)
    >>> gzip.decompress(encoded) == data.tobytes()
    True
    """

    # The public name, in repr and in zarr's errors: `numcodecs_qpl.zarr.QPL` is another class.
    __module__ = "numcodecs_qpl"

    codec_id = "qpl"

    def __init__(
        self,
        container: ContainerName = "gzip",
        block_size: int = DEFAULT_BLOCK_SIZE,
        huffman: Huffman = "dynamic",
    ) -> None:
        self.container: Final = as_choice(container, "container", CONTAINERS)
        self.block_size: Final = as_index(block_size, "block_size", 1, MAX_BLOCK)
        self.huffman: Final = as_choice(huffman, "huffman", HUFFMAN)
        self._reader: Final = Reader()  # this comes last: afterwards `__setattr__` refuses

    def __setattr__(self, name: str, value: object) -> None:
        if "_reader" in self.__dict__:
            raise AttributeError(f"{name} cannot be set, as a codec is immutable; make another one: QPL(...)")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} cannot be deleted, as a codec is immutable; make another one: QPL(...)")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make the codec from its config; the `level` of 0.1.0's draft, 1 or 3, is ignored."""
        config = dict(config)
        level = config.pop("level", _DRAFT_LEVELS[0])
        if type(level) is not int or level not in _DRAFT_LEVELS:
            raise ValueError(
                f"level is {level!r}; QPL has no levels, and its draft had {_DRAFT_LEVELS[0]} and {_DRAFT_LEVELS[1]}"
            )
        return cls(**config)

    def encode(self, buf: BufferLike) -> bytes:
        """Compress a chunk.

        Parameters
        ----------
        buf : buffer-like
            Any contiguous array or buffer of up to 2**31 - 1 bytes.

        Returns
        -------
        bytes

        Raises
        ------
        TypeError
            If `buf` is an object array, or not a buffer.
        ValueError
            If `buf` is not contiguous or too large.
        QplError
            If the path setting is "hardware" and the device fails or cannot be used.
        """
        src = Memory(buf, "buf")
        if len(src) > MAX_BLOCK:
            raise ValueError(f"buf has {len(src)} bytes; QPL writes chunks of up to {MAX_BLOCK}: take smaller chunks")
        return CONTAINERS[self.container].encode(src, HUFFMAN[self.huffman], self.block_size)

    @overload
    def decode(self, buf: BufferLike, out: None = None) -> bytes: ...

    @overload
    def decode(self, buf: BufferLike, out: Out) -> Out: ...

    def decode(self, buf: BufferLike, out: Out | None = None) -> bytes | Out:
        """Inflate a chunk.

        Parameters
        ----------
        buf : buffer-like
            Output of `encode`, or data of another producer in the same container.
        out : buffer-like, optional
            A writable, contiguous array or buffer of exactly the inflated size, to be filled in place.

        Returns
        -------
        bytes, or `out` if given

        Raises
        ------
        CorruptDataError
            If the data is damaged, truncated, or of another container. It is a ValueError. The content of `out` is
            then undefined.
        TypeError, ValueError
            If `buf` or `out` is of an unsupported kind, they overlap, or `out` is of another size. Nothing is written
            outside of `out`.
        """
        src = Memory(buf, "buf")
        if out is None:
            return CONTAINERS[self.container].decode(src, None, self._reader)
        target = Memory(out, "out", True)
        target.check_apart(src)
        CONTAINERS[self.container].decode(src, target, self._reader)
        return out

    def get_config(self) -> dict[str, Any]:
        """Return a dict of the codec's id and parameters, for `numcodecs.get_codec`."""
        return {
            "id": self.codec_id,
            "container": self.container,
            "block_size": self.block_size,
            "huffman": self.huffman,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.container, self.block_size, self.huffman)

    def __repr__(self) -> str:
        return (
            f"{type(self).__module__}.{type(self).__qualname__}("
            f"container={self.container!r}, block_size={self.block_size}, huffman={self.huffman!r})"
        )
