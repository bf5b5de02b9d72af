from typing import Any, Final, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Buffer

_UInt32s: TypeAlias = NDArray[np.uint32]
_Int64s: TypeAlias = NDArray[np.int64]

MAX_BLOCK: Final[int]
OUTPUT_SLACK: Final[int]
HUFFMAN: Final[dict[str, bool]]

class BytesWriter:
    def __init__(self, capacity: int) -> None: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def resize(self, capacity: int) -> None: ...
    def finish(self, size: int) -> bytes: ...

def compress_bound(size: int) -> int: ...
def compress_blocks(
    src: Buffer,
    dst: Buffer,
    block_size: int,
    *,
    level: int,
    dynamic: bool,
    head: int = 0,
    tail: int = 0,
) -> tuple[_Int64s, _UInt32s, _UInt32s]: ...
def decompress_blocks(
    src: Buffer, offsets: _Int64s, lengths: _Int64s, dst: Buffer, sizes: _Int64s
) -> tuple[_UInt32s, _UInt32s, _UInt32s, _Int64s]: ...
def decompress_stream(src: Buffer, guess: int, limit: int) -> bytes: ...
def compress_pages(buffer: Buffer, page_size: int = 4096, huffman: str = "fixed") -> tuple[_UInt32s, bytes]: ...
@overload
def decompress_pages(payload: Buffer, lengths: ArrayLike, page_size: int = 4096, out: None = None) -> bytes: ...
@overload
def decompress_pages(payload: Buffer, lengths: ArrayLike, page_size: int = 4096, *, out: Any) -> Any: ...
