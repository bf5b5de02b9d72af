from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numcodecs_qpl._core.types import BufferLike, Huffman, Out

def compress_pages(
    buffer: BufferLike, page_size: int = 4096, huffman: Huffman = "fixed"
) -> tuple[NDArray[np.uint32], bytes]: ...
def compress_pages_into(
    buffer: BufferLike,
    lengths: NDArray[np.uint32] | memoryview,
    payload: BufferLike,
    page_size: int = 4096,
    huffman: Huffman = "fixed",
) -> int: ...
@overload
def decompress_pages(payload: BufferLike, lengths: ArrayLike, page_size: int = 4096, out: None = None) -> bytes: ...
@overload
def decompress_pages(payload: BufferLike, lengths: ArrayLike, page_size: int, out: Out) -> Out: ...
@overload
def decompress_pages(payload: BufferLike, lengths: ArrayLike, page_size: int = 4096, *, out: Out) -> Out: ...
