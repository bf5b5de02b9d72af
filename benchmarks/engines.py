"""Both engines side by side: ISA-L, which does the work in builds without libqpl, against libqpl's software path.

    python benchmarks/engines.py [--rounds 15]

It prints a table for ``docs/isal.md``. The engines take turns, and each figure is of medians: how many times as fast
ISA-L is as libqpl's software path, and how many times as large what it writes is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from numcodecs_qpl import _core, set_path
from numcodecs_qpl._core import _isal_batch
from numcodecs_qpl.bench.data import DATA_SETS

SIZE = 8 << 20
BLOCK = 65536
PAGE = 4096
ENGINES: tuple[Any, Any] = (_core, _isal_batch)


class Blocks:
    """Blocks of 64 KiB there and back."""

    def __init__(self, engine: Any, data: bytes, level: int, dynamic: bool) -> None:
        self._engine = engine
        self._src = np.frombuffer(data, np.uint8)
        self._choice = {"level": level, "dynamic": dynamic}
        self._count = -(-len(data) // BLOCK)
        self._encoded = np.zeros(self._count * _core.compress_bound(BLOCK), np.uint8)
        self._sizes = np.minimum(BLOCK, len(data) - BLOCK * np.arange(self._count))
        self._decoded = np.zeros(len(data) + engine.OUTPUT_SLACK, np.uint8)
        self.encode()
        self.size = int(self._lengths.sum())
        self.decode()
        if not np.array_equal(self._decoded[: len(data)], self._src):
            raise RuntimeError("the data was not read back")

    def encode(self) -> None:
        """Compress all blocks."""
        self._offsets, self._lengths, _ = self._engine.compress_blocks(self._src, self._encoded, BLOCK, **self._choice)

    def decode(self) -> None:
        """Inflate them."""
        lengths = self._lengths.astype(np.int64)
        self._engine.decompress_blocks(self._encoded, self._offsets, lengths, self._decoded, self._sizes)


class Pages:
    """Guest pages there and back."""

    def __init__(self, engine: Any, data: bytes, huffman: str) -> None:
        self._engine = engine
        self._huffman = huffman
        self._src = np.frombuffer(data, np.uint8)
        self._lengths = np.zeros(len(data) // PAGE, np.uint32)
        self._payload = np.zeros(len(data), np.uint8)
        self._decoded = np.zeros(len(data), np.uint8)
        self.encode()
        self.decode()
        if not np.array_equal(self._decoded, self._src):
            raise RuntimeError("the pages were not read back")

    def encode(self) -> None:
        """Compress all pages."""
        self.size = self._engine.compress_pages_into(self._src, self._lengths, self._payload, PAGE, self._huffman)

    def decode(self) -> None:
        """Inflate them."""
        self._engine.decompress_pages(self._payload[: self.size], self._lengths, PAGE, out=self._decoded)


def seconds(work: Callable[[], None]) -> float:
    """What one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(engines: Sequence[Blocks | Pages], rounds: int) -> str:
    """Three cells: speed of compressing and of decompressing, and size; each the second engine against the first."""
    cells = []
    for works in ([engine.encode for engine in engines], [engine.decode for engine in engines]):
        times = [[seconds(work) for work in works] for _ in range(rounds)]
        by_libqpl, by_isal = (statistics.median(column) for column in zip(*times, strict=True))
        cells.append(f"{by_libqpl / by_isal:.2f}")
    return " | ".join([*cells, f"{engines[1].size / engines[0].size:.2f}"])


def main() -> None:
    """Command line of this program."""
    parser = argparse.ArgumentParser(description="Compare the two engines.")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed (default 15)")
    rounds = parser.parse_args().rounds
    if _core.ENGINE != "libqpl":
        parser.error("this build has no libqpl to compare with")
    set_path("software")
    print("| what | data | compressing | decompressing | size |\n| --- | --- | --- | --- | --- |")
    for name, make in DATA_SETS.items():
        data = make(SIZE)
        for level, dynamic in ((1, True), (3, True), (1, False)):
            blocks = [Blocks(engine, data, level, dynamic) for engine in ENGINES]
            what = f"blocks of 64 KiB, level {level}, {'dynamic' if dynamic else 'fixed'} tables"
            print(f"| {what} | {name} | {compare(blocks, rounds)} |", flush=True)
        for huffman in ("fixed", "dynamic"):
            pages = [Pages(engine, data, huffman) for engine in ENGINES]
            print(f"| pages of 4 KiB, {huffman} tables | {name} | {compare(pages, rounds)} |", flush=True)


if __name__ == "__main__":
    main()
