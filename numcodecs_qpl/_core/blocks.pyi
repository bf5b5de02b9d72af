from array import array
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

from numcodecs_qpl._core.writer import BytesWriter

_Bytes: TypeAlias = Buffer | NDArray[Any]  # NumPy's stubs have no __buffer__ before Python 3.12
_Int64s: TypeAlias = NDArray[np.int64] | array[int]

def compress_blocks(
    src: _Bytes, block_size: int, *, dynamic: bool, checksum: str = "", head: bytes = b"", index: bool = False
) -> tuple[BytesWriter, int, int]: ...
def compress_stream(src: _Bytes, level: int, *, checksum: str, head: bytes) -> tuple[BytesWriter, int, int]: ...
def decompress_blocks(
    src: _Bytes, offsets: _Int64s, lengths: _Int64s, dst: _Bytes, sizes: _Int64s, *, final: bool, checksum: str
) -> list[int] | None: ...
def decompress_stream(
    src: _Bytes, start: int, out: _Bytes | None, at: int, guess: int, checksum: str
) -> tuple[int, int, int, bytes | None]: ...
