"""QPL, the numcodecs codec."""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray

from numcodecs_qpl._core import HUFFMAN, MAX_BLOCK, check_apart
from numcodecs_qpl.containers import CONTAINERS, Reader

DEFAULT_BLOCK_SIZE = 65536
"""The smallest power of two that costs under 1 % of ratio on the benchmark data (the table is in
``docs/format.md``)."""

LEVELS = (1, 3)
"""The two levels that libqpl has; 3 is done in software only."""


class QPL(Codec):  # type: ignore[misc]
    """Deflate through libqpl: on an In-Memory Analytics Accelerator where there is one, else in software.

    What it writes is standard: any gzip, zlib or inflate reads it without this package. What it reads is any gzip
    member, zlib stream or deflate stream, of whatever producer.

    Parameters
    ----------
    level : {1, 3}
        libqpl's two compression levels. 3 is smaller, takes three to five times as long, and never runs on hardware;
        in a build without libqpl it is 1.
    container : {"gzip", "zlib", "deflate"}
        What stands around the deflate streams: gzip (RFC 1952) of one or more members, zlib (RFC 1950), or nothing
        (RFC 1951: no checksum, so damage may go unseen).
    block_size : int, optional
        Uncompressed bytes in a gzip member, 1 to 2**31 - 1; 65536 if not given. Members are independent of each
        other: they are what threads and hardware queues work on side by side. The other containers are one stream and
        take none.
    huffman : {"dynamic", "fixed"}
        Huffman tables made for each block, or deflate's fixed ones: larger and, in software, not faster.

    Notes
    -----
    The same input and configuration give the same bytes, whatever the threads or the process. Where the work runs is
    no part of the configuration: see `numcodecs_qpl.set_path` and `numcodecs_qpl.set_threads`.

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

    codec_id = "qpl"

    def __init__(
        self,
        level: int = 1,
        container: str = "gzip",
        block_size: int | None = None,
        huffman: str = "dynamic",
    ) -> None:
        if isinstance(level, bool) or level not in LEVELS:
            raise ValueError(f"level is {level!r}; it must be {LEVELS[0]} or {LEVELS[1]}")
        if container not in CONTAINERS:
            raise ValueError(f"container is {container!r}; it must be one of {', '.join(CONTAINERS)}")
        if huffman not in HUFFMAN:
            raise ValueError(f"huffman is {huffman!r}; it must be one of {', '.join(HUFFMAN)}")
        if CONTAINERS[container].blocks:
            block_size = _checked_block_size(block_size)
        elif block_size is not None:
            raise ValueError(
                f"block_size is {block_size!r}, but only gzip has blocks: container {container!r} is one stream"
            )
        self.level = level
        self.container = container
        self.block_size = block_size
        self.huffman = huffman
        self._reader = Reader()

    def encode(self, buf: Any) -> bytes:
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
            If `buf` is an object array or no buffer.
        ValueError
            If `buf` is not contiguous or too large.
        QplError
            If the hardware path is forced and cannot be used, or libqpl fails.
        """
        return CONTAINERS[self.container].encode(
            _bytes_of(buf),
            level=self.level,
            dynamic=HUFFMAN[self.huffman],
            block_size=self.block_size,
        )

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Inflate a chunk.

        Parameters
        ----------
        buf : buffer-like
            What `encode` returned, or data of another producer in the same container.
        out : buffer-like, optional
            A writable, contiguous array or buffer of exactly the inflated size, to be filled in place.

        Returns
        -------
        bytes, or `out` if given

        Raises
        ------
        CorruptDataError
            If the data is damaged, truncated, or not of this codec's container. It is a ValueError. `out` is then
            undefined.
        TypeError, ValueError
            If `buf` or `out` is of a kind that cannot be used, or `out` is of another size or overlaps `buf`. Nothing
            is written outside of it.
        """
        src = _bytes_of(buf)
        decode = CONTAINERS[self.container].decode
        if out is None:
            return decode(src, None, self._reader)
        target = _bytes_of(out)
        if target.readonly:
            raise ValueError("out is read-only; a writable buffer is needed")
        if type(buf) is not bytes:
            check_apart(target, src, "out", "buf")
        decode(src, target, self._reader)
        return out

    def get_config(self) -> dict[str, Any]:
        """What shapes the bytes, for `numcodecs.get_codec`."""
        config: dict[str, Any] = {
            "id": self.codec_id,
            "level": self.level,
            "container": self.container,
            "huffman": self.huffman,
        }
        if self.block_size is not None:
            config["block_size"] = self.block_size
        return config

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.level, self.container, self.block_size, self.huffman)

    def __repr__(self) -> str:
        settings = [f"level={self.level}", f"container={self.container!r}"]
        if self.block_size is not None:
            settings.append(f"block_size={self.block_size}")
        settings.append(f"huffman={self.huffman!r}")
        return f"{type(self).__name__}({', '.join(settings)})"


def _checked_block_size(block_size: int | None) -> int:
    if block_size is None:
        return DEFAULT_BLOCK_SIZE
    if isinstance(block_size, bool) or not isinstance(block_size, int):
        raise TypeError(f"block_size is {block_size!r}; it must be a whole number")
    if not 1 <= block_size <= MAX_BLOCK:
        raise ValueError(f"block_size is {block_size}; it must be 1 to {MAX_BLOCK}")
    return block_size


def _bytes_of(buf: Any) -> memoryview:
    """The bytes of any contiguous buffer, as numcodecs' own codecs take them, without a copy."""
    if type(buf) is bytes and len(buf) <= MAX_BLOCK:
        return memoryview(buf)
    array = ensure_contiguous_ndarray(buf, max_buffer_size=MAX_BLOCK)
    return memoryview(array.view(np.uint8))
