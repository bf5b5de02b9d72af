from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Buffer

_Bytes: TypeAlias = Buffer | NDArray[Any]  # NumPy's stubs have no __buffer__ before Python 3.12
_UInt32s: TypeAlias = NDArray[np.uint32]
_Int64s: TypeAlias = NDArray[np.int64]

OUTPUT_SLACK: Final[int]

class BytesWriter:
    def __init__(self, capacity: int) -> None: ...
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def resize(self, capacity: int) -> None: ...
    def finish(self, size: int) -> bytes: ...

def compress_blocks(
    src: _Bytes,
    dst: _Bytes,
    block_size: int,
    *,
    level: int,
    dynamic: bool,
    head: int = 0,
    tail: int = 0,
) -> tuple[_Int64s, _UInt32s, _UInt32s]: ...
def decompress_blocks(
    src: _Bytes, offsets: _Bytes, lengths: _Bytes, dst: _Bytes, sizes: _Bytes
) -> tuple[list[int], list[int], list[int], list[int]]: ...
def decompress_stream(src: _Bytes, guess: int, limit: int) -> bytes: ...
def compress_pages_into(
    buffer: _Bytes, lengths: _UInt32s, payload: _Bytes, page_size: int = 4096, huffman: str = "fixed"
) -> int: ...
def decompress_pages(payload: _Bytes, lengths: ArrayLike, page_size: int = 4096, out: Any = None) -> Any: ...
