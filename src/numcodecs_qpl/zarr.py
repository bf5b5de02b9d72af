"""Codecs for zarr v3: QPL, and this package's implementation of zarr's core codec gzip.

For zarr v2, `numcodecs_qpl.QPL` itself is the compressor.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

# zarr 3.0.0 to 3.4.2 import this module whenever they look for gzip, even if they use none of its classes. An
# ImportError would leave zarr without gzip. So only public names of zarr are imported here.
try:
    from zarr.abc.codec import BytesBytesCodec
    from zarr.codecs import GzipCodec as ZarrsGzipCodec
    from zarr.registry import get_codec_class
except ImportError as error:
    needed = 'numcodecs_qpl.zarr needs zarr 3.1.6 or later: pip install "zarr>=3.1.6"'
    raise ImportError(f"{needed} ({error})") from error

from numcodecs_qpl import codec, serve
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.containers import ContainerName

if TYPE_CHECKING:
    from typing import Self

    from numcodecs.abc import Codec
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer
    from zarr.core.common import JSON

__all__ = ["QPL", "GzipCodec"]

_NAME = "numcodecs_qpl.qpl"
"""The codec's name in zarr format 3; `pyproject.toml` and ``docs/zarr-extensions`` repeat it."""


class _ByCodec(BytesBytesCodec):
    """A bytes-to-bytes codec that works through a numcodecs codec, ``_codec``, in threads."""

    _codec: Codec

    def _encode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return chunk_spec.prototype.buffer.from_bytes(self._codec.encode(chunk_bytes.as_numpy_array()))

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return chunk_spec.prototype.buffer.from_bytes(self._codec.decode(chunk_bytes.as_numpy_array()))

    async def _encode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer | None:
        return await asyncio.to_thread(self._encode_sync, chunk_bytes, chunk_spec)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)


@dataclass(frozen=True)
class QPL(_ByCodec):
    """`numcodecs_qpl.QPL` as a zarr v3 codec, named ``numcodecs_qpl.qpl`` in the metadata.

    Parameters
    ----------
    container, block_size, huffman
        As for `numcodecs_qpl.QPL`; an invalid value raises the same error.

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

    container: ContainerName
    block_size: int
    huffman: Huffman

    def __init__(
        self,
        *,
        container: ContainerName = "gzip",
        block_size: int = codec.DEFAULT_BLOCK_SIZE,
        huffman: Huffman = "dynamic",
    ) -> None:
        checked = codec.QPL(container, block_size, huffman)
        for name in ("container", "block_size", "huffman"):
            object.__setattr__(self, name, getattr(checked, name))

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Make the codec from its entry in ``zarr.json``."""
        from zarr.core.common import parse_named_configuration

        _, configuration = parse_named_configuration(data, _NAME, require_configuration=False)
        return cls(**(configuration or {}))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, JSON]:
        """Return the codec's entry in ``zarr.json``: its name and parameters."""
        configuration = self._codec.get_config()
        del configuration["id"]
        return {"name": _NAME, "configuration": configuration}

    __repr__ = codec.QPL.__repr__

    @cached_property
    def _codec(self) -> codec.QPL:
        return codec.QPL(self.container, self.block_size, self.huffman)

    def compute_encoded_size(self, _input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Raise NotImplementedError, as every compressor of zarr does: the size is not known in advance."""
        raise NotImplementedError


class _FromRegistry:
    """Placeholder for a class in a pickle. Unpickling returns the class that zarr's registry has for the codec."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return get_codec_class, (self.name,)


class GzipCodec(_ByCodec, ZarrsGzipCodec):
    """Replacement for zarr's core codec ``gzip``, with the same metadata; the two compare equal.

    `numcodecs_qpl.enable` chooses it. The environment variable ``ZARR_CODECS__GZIP=numcodecs_qpl.zarr.GzipCodec``, or
    the same in zarr's configuration, chooses it too. zarr finds it by an entry point in the group ``zarr.codecs.gzip``.
    Levels are as in `numcodecs_qpl.serve.GZip`.
    """

    def __init__(self, *, level: int = 5) -> None:
        super().__init__(level=level)
        serve.warn_of_zarrs()

    @cached_property
    def _codec(self) -> serve.GZip:
        return serve.GZip(self.level)

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        # This is wrong if another codec comes between this one and the array; a wrong size costs time only.
        dtype = chunk_spec.dtype
        native = dtype if isinstance(dtype, np.dtype) else dtype.to_native_dtype()  # numpy's in zarr 3.0
        self._codec.expect(math.prod(chunk_spec.shape) * native.itemsize)
        return super()._decode_sync(chunk_bytes, chunk_spec)

    def __eq__(self, other: object) -> bool:
        return self.level == other.level if isinstance(other, ZarrsGzipCodec) else NotImplemented

    __hash__ = ZarrsGzipCodec.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return object.__new__, (_FromRegistry("gzip"),), {"level": self.level}

    # Without these, `copy` would call the function of `__reduce__` without pickling its arguments.

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self
