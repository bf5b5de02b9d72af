"""QPL for zarr v3, and zarr's own gzip codec served by us.

For zarr v2, `numcodecs_qpl.QPL` itself is the compressor.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

try:
    from zarr.abc.codec import BytesBytesCodec
    from zarr.codecs import GzipCodec
    from zarr.core.buffer.cpu import as_numpy_array_wrapper
    from zarr.core.common import parse_named_configuration
except ImportError as error:
    needed = 'numcodecs_qpl.zarr needs zarr 3.1.6 or later: pip install "numcodecs-qpl[zarr]"'
    raise ImportError(f"{needed} ({error})") from error

from numcodecs_qpl import codec

if TYPE_CHECKING:
    from typing import Self

    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer
    from zarr.core.common import JSON

__all__ = ["QPL", "disable_gzip", "enable_gzip"]


@dataclass(frozen=True)
class QPL(BytesBytesCodec):
    """`numcodecs_qpl.QPL` as a zarr v3 codec, named ``numcodecs.qpl`` in the metadata.

    Parameters
    ----------
    container, block_size, huffman
        As for `numcodecs_qpl.QPL`; a wrong one raises the same error.

    Examples
    --------
    >>> import numpy as np
    >>> import zarr
    >>> from numcodecs_qpl.zarr import QPL
    >>> data = np.arange(10_000).reshape(100, 100)
    >>> array = zarr.create_array({}, data=data, chunks=(50, 50), compressors=QPL(container="zlib"))
    >>> bool((array[:] == data).all())
    True
    """

    is_fixed_size = False

    container: str
    block_size: int
    huffman: str

    def __init__(
        self,
        *,
        container: str = "gzip",
        block_size: int = codec.DEFAULT_BLOCK_SIZE,
        huffman: str = "dynamic",
    ) -> None:
        checked = codec.QPL(container, block_size, huffman)
        for name in ("container", "block_size", "huffman"):
            object.__setattr__(self, name, getattr(checked, name))

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Make the codec from its entry in ``zarr.json``."""
        _, configuration = parse_named_configuration(data, "numcodecs.qpl", require_configuration=False)
        return cls(**codec.without_level(configuration or {}))

    def to_dict(self) -> dict[str, JSON]:
        """The codec's entry in ``zarr.json``: its name and what shapes the bytes."""
        configuration = self._codec.get_config()
        del configuration["id"]
        return {"name": "numcodecs.qpl", "configuration": configuration}

    @cached_property
    def _codec(self) -> codec.QPL:
        return codec.QPL(self.container, self.block_size, self.huffman)

    def _encode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return as_numpy_array_wrapper(self._codec.encode, chunk_bytes, chunk_spec.prototype)

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return as_numpy_array_wrapper(self._codec.decode, chunk_bytes, chunk_spec.prototype)

    async def _encode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_bytes, chunk_spec)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    def compute_encoded_size(self, _input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Not to be known beforehand: raises NotImplementedError, as zarr wants of a compressor."""
        raise NotImplementedError


_SEAM = "_gzip_codec"
"""The attribute of zarr's GzipCodec that does its work, in zarr 3.1.6 and 3.4.2."""

_switch = threading.Lock()
_zarrs_own: Any = None


def enable_gzip() -> None:
    """Let zarr's core ``gzip`` codec run on this package, in this process, both ways.

    Every zarr reads the output. Chunks of any gzip are read. Arrays that are already open switch too. The codec's
    level stays in the metadata but is ignored: QPL has one level. Calling this again changes nothing. Worker processes
    (dask, multiprocessing) have to call it themselves. Chunks that are written may have up to 2**31 - 1 bytes, and
    format 2 keeps numcodecs' gzip.

    Raises
    ------
    RuntimeError
        If this zarr's GzipCodec is not made as those that this was written for.
    """
    global _zarrs_own
    with _switch:
        if _zarrs_own is not None:
            return
        if not isinstance(vars(GzipCodec).get(_SEAM), cached_property):
            raise RuntimeError(
                f"zarr {version('zarr')}'s GzipCodec cannot be served by numcodecs-qpl: it has no {_SEAM}, as those of "
                "zarr 3.1.6 to 3.4.2 have; take one of these versions, or numcodecs_qpl.zarr.QPL"
            )
        _zarrs_own = vars(GzipCodec)[_SEAM]
        # One for all: what it learns of a producer of gzip helps with every array. A property, which wins over what
        # instances have cached of zarr's own.
        ours = codec.QPL()
        setattr(GzipCodec, _SEAM, property(lambda self: ours))


def disable_gzip() -> None:
    """Give zarr's core ``gzip`` codec back to zarr. Calling this without `enable_gzip` changes nothing."""
    global _zarrs_own
    with _switch:
        if _zarrs_own is not None:
            setattr(GzipCodec, _SEAM, _zarrs_own)
            _zarrs_own = None
