"""Trial of the hardware path: it runs blocks and compares each result with its input.

A caller cannot choose a work queue. So enough blocks for every queue are in flight at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from numcodecs_qpl import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numcodecs_qpl._core.types import Huffman

PAGE = 4096
BLOCKS_A_QUEUE = 32


@dataclass(frozen=True)
class Trial:
    """Result of one kind of work.

    Attributes
    ----------
    work : str
        Kind of work: compress or inflate, and the tables.
    blocks, on_hardware : int
        Blocks of 4 KiB that were tried, and those that ran on hardware.
    wrong : int
        Blocks with a wrong result.
    error : str or None
        Error of the hardware.
    """

    work: str
    blocks: int
    on_hardware: int
    wrong: int
    error: str | None

    @property
    def passed(self) -> bool:
        """True if hardware did every block, and every result is correct."""
        return self.error is None and self.on_hardware == self.blocks and not self.wrong

    def as_json(self) -> dict[str, Any]:
        """Return the trial as a JSON object."""
        return {**asdict(self), "passed": self.passed}


def probe(queues: int) -> list[Trial]:
    """Compress with fixed and with dynamic tables, and inflate both, on hardware alone.

    This resets the counts of the process (`numcodecs_qpl.stats`). The path setting is "hardware" during the call.

    Parameters
    ----------
    queues : int
        Work queues to reach, at least 1.

    Raises
    ------
    QplError
        If no device can be used.
    """
    count = BLOCKS_A_QUEUE * max(1, queues)
    data = np.random.default_rng(0).integers(0, 16, count * PAGE, np.uint8)
    setting = _core.get_path()
    _core.set_path("hardware")
    try:
        return [trial for huffman in _core.HUFFMAN for trial in _both_ways(data, huffman)]
    finally:
        _core.set_path(setting)


def _both_ways(data: NDArray[np.uint8], huffman: Huffman) -> list[Trial]:
    pages = data.reshape(-1, PAGE)
    lengths, payload = np.full(len(pages), PAGE, np.uint32), data.copy()

    def compress() -> int:
        _core.compress_pages_into(data, lengths, payload, PAGE, huffman)
        starts = np.cumsum(lengths) - lengths
        streams = [payload[start : start + length] for start, length in zip(starts, lengths, strict=True)]
        return sum(_inflated(stream) != page.tobytes() for stream, page in zip(streams, pages, strict=True))

    def inflate() -> int:
        found = np.frombuffer(_core.decompress_pages(payload[: lengths.sum()], lengths, PAGE), np.uint8)
        return int((found.reshape(pages.shape) != pages).any(axis=1).sum())

    return [
        _trial(f"compress, {huffman} tables", "compressed", len(pages), compress),
        _trial(f"inflate, {huffman} tables", "decompressed", len(pages), inflate),
    ]


def _trial(
    work: str, counter: Literal["compressed", "decompressed"], blocks: int, count_wrong: Callable[[], int]
) -> Trial:
    _core.reset_stats()
    wrong, error = 0, None
    try:
        wrong = count_wrong()
    except _core.QplError as failure:
        error = str(failure)
    return Trial(work, blocks, _core.stats()["hardware"][counter], wrong, error)


def _inflated(stream: NDArray[np.uint8]) -> bytes:
    if len(stream) == PAGE:
        return stream.tobytes()  # a page that does not get smaller is copied
    try:
        return zlib.decompress(stream.tobytes(), -15)
    except zlib.error:
        return b""
