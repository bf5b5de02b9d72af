"""Measure the goals that the project has set itself, and say which are met.

Whoever is compared runs in turns, round after round, and the medians are compared: what else the machine does meets
them all alike. Everything runs on libqpl's software path, in C as in Python. Numbers are ratios of speed, unless they
say otherwise; the range beside one is that of the middle half of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import memory
import numcodecs
from contenders import KIB, MIB, Contender, chunk, codec, raw, size_name
from raw_qpl import RawQpl, libqpl_version

from numcodecs_qpl import QPL, compress_pages, decompress_pages, set_path, set_threads
from numcodecs_qpl._core import compress_bound
from numcodecs_qpl.bench.data import DATA_SETS
from numcodecs_qpl.bench.host import cpu_model
from numcodecs_qpl.codec import DEFAULT_BLOCK_SIZE
from numcodecs_qpl.containers.gzip import HEADER, TRAILER

PAGE = 4 * KIB
PAGES = 128
THREADS_CHUNK = 16 * MIB
MEMORY_CHUNK = 64 * MIB
CALLS = 100_000
LEAST_ROUNDS = 15
LEAST_TIME = 0.002
"""Seconds that one timing takes at least: short calls are repeated."""


class Row(NamedTuple):
    """A goal and what was measured; `needed` and `measured` as they are printed, `met` None where nothing was set."""

    goal: str
    case: str
    needed: str
    measured: str
    met: bool | None


class Times:
    """Seconds that each of several functions takes, measured in turns for `seconds` in all."""

    def __init__(self, functions: dict[str, Callable[[], object]], seconds: float) -> None:
        repeats = {name: max(1, int(LEAST_TIME / _once(function, 1))) for name, function in functions.items()}
        self._seconds: dict[str, list[float]] = {name: [] for name in functions}
        order = list(functions)
        end = time.perf_counter() + seconds
        rounds = 0
        while rounds < LEAST_ROUNDS or time.perf_counter() < end:
            for name in order:
                self._seconds[name].append(_once(functions[name], repeats[name]))
            order.append(order.pop(0))
            rounds += 1

    def speed(self, name: str, of: str) -> float:
        """How many times as fast `name` is as `of`, by their medians."""
        return median(self._seconds[of]) / median(self._seconds[name])

    def text(self, name: str, of: str) -> str:
        """`speed`, and the range of the middle half of the rounds."""
        by_round = [peer / own for own, peer in zip(self._seconds[name], self._seconds[of], strict=True)]
        low, _, high = quantiles(by_round, n=4)
        return f"{self.speed(name, of):.2f} ({low:.2f} to {high:.2f})"

    def row(self, goal: str, case: str, least: float, name: str, of: str) -> Row:
        """The goal that `name` is at least `least` times as fast as `of`."""
        return Row(goal, case, f"{least:.2f}", self.text(name, of), self.speed(name, of) >= least)


def _once(function: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def against_c(seconds: float) -> Iterator[Row]:
    """Encoding and decoding of 1 MiB at 0.95 of libqpl in a loop in C, with blocks of the same size."""
    for block_size in (MIB, 64 * KIB):
        for data_set in DATA_SETS:
            data = chunk(data_set, MIB)
            limit = raw(data, block_size=block_size)
            qpl = QPL(block_size=block_size)
            ours = codec(qpl, data)
            encode = Times({"us": ours.encode, "C": limit.encode}, seconds)
            decode = Times({"us": ours.decode, "into out": into_out(qpl, data), "C": limit.decode}, seconds)
            goal = f"1 MiB, members of {size_name(block_size)}, against C"
            yield encode.row(goal, f"encode, {data_set}", 0.95, "us", "C")
            yield decode.row(goal, f"decode, {data_set}", 0.95, "us", "C")
            yield decode.row(goal, f"decode into out, {data_set}", 0.95, "into out", "C")


def into_out(qpl: QPL, data: bytes) -> Callable[[], object]:
    """Decoding of `data` into memory that is there already."""
    return partial(qpl.decode, qpl.encode(data), bytearray(b"\xff") * len(data))


def pages_against_c(seconds: float) -> Iterator[Row]:
    """A batch of pages at 0.90 of the same loop in C."""
    goal = f"{PAGES} pages of 4 KiB, against C"
    for huffman in ("fixed", "dynamic"):
        for data_set in DATA_SETS:
            data = chunk(data_set, PAGES * PAGE)
            loop = RawQpl(data, PAGE, dynamic=huffman == "dynamic", pages=True)
            lengths, payload = compress_pages(data, PAGE, huffman)
            inflate = partial(decompress_pages, payload, lengths, PAGE)
            target = bytearray(b"\xff") * len(data)
            encode = Times({"us": partial(compress_pages, data, PAGE, huffman), "C": loop.encode}, seconds)
            decode = Times({"us": inflate, "into out": partial(inflate, out=target), "C": loop.decode}, seconds)
            yield encode.row(goal, f"compress, {huffman}, {data_set}", 0.90, "us", "C")
            yield decode.row(goal, f"decompress, {huffman}, {data_set}", 0.90, "us", "C")
            yield decode.row(goal, f"decompress into out, {huffman}, {data_set}", 0.90, "into out", "C")


def two_threads(seconds: float) -> Iterator[Row]:
    """Two threads at 1.8 times one, and what two threads of the loop in C reach on this machine at that moment."""
    goal = f"{size_name(THREADS_CHUNK)}, 2 threads against 1"
    with ThreadPoolExecutor(1) as executor:
        for data_set in DATA_SETS:
            data = chunk(data_set, THREADS_CHUNK)
            ours = codec(QPL(), data)
            halves = (raw(data[: len(data) // 2]), raw(data[len(data) // 2 :]))
            for operation in ("encode", "decode"):
                one, other = (operation_of(half, operation) for half in halves)
                run = operation_of(ours, operation)
                times = Times(
                    {
                        "us, 1": partial(with_threads, 1, run),
                        "C, 1": partial(one_after_other, one, other),
                        "us, 2": partial(with_threads, 2, run),
                        "C, 2": partial(side_by_side, executor, one, other),
                    },
                    seconds,
                )
                yield times.row(goal, f"{operation}, {data_set}", 1.8, "us, 2", "us, 1")
                yield Row(goal, f"{operation}, {data_set}: C loops", "", times.text("C, 2", "C, 1"), None)
    set_threads(1)


def operation_of(measured: Contender, operation: str) -> Callable[[], object]:
    """Its `encode` or `decode`."""
    return measured.encode if operation == "encode" else measured.decode


def with_threads(count: int, function: Callable[[], object]) -> None:
    """Call with `count` threads in force."""
    set_threads(count)
    function()


def one_after_other(one: Callable[[], object], other: Callable[[], object]) -> None:
    """Call both in this thread."""
    one()
    other()


def side_by_side(executor: ThreadPoolExecutor, one: Callable[[], object], other: Callable[[], object]) -> None:
    """Call one in this thread and the other in the executor's."""
    helper = executor.submit(other)
    one()
    helper.result()


def against_zlib(seconds: float) -> Iterator[Row]:
    """1 MiB in one thread: twice as fast as numcodecs.Zlib(1), 1.4 times decoding."""
    goal = "1 MiB, against numcodecs.Zlib(1)"
    for data_set in DATA_SETS:
        data = chunk(data_set, MIB)
        ours, peer = codec(QPL(), data), codec(numcodecs.Zlib(1), data)
        yield Times({"us": ours.encode, "Zlib": peer.encode}, seconds).row(
            goal, f"encode, {data_set}", 2.0, "us", "Zlib"
        )
        yield Times({"us": ours.decode, "Zlib": peer.decode}, seconds).row(
            goal, f"decode, {data_set}", 1.4, "us", "Zlib"
        )


def peak_memory() -> Iterator[Row]:
    """Memory of a process's first call: at the most the largest output there can be, and 1 MiB for each thread."""
    goal = f"{size_name(MEMORY_CHUNK)}, memory above the input"
    members = MEMORY_CHUNK // DEFAULT_BLOCK_SIZE
    largest = members * (HEADER.size + compress_bound(DEFAULT_BLOCK_SIZE) + TRAILER.size)
    chunks = {name: chunk(name, MEMORY_CHUNK) for name in DATA_SETS}
    chunks["random bytes"] = random.Random(1).randbytes(MEMORY_CHUNK)
    for name, data in chunks.items():
        encoded = QPL().encode(data)
        for threads in (1, 2):
            for operation, source, output in (
                ("encode", data, largest),
                ("decode", encoded, MEMORY_CHUNK),
                ("decode into out", encoded, 0),
            ):
                limit = output + threads * MIB
                taken, code = memory.peak(operation, source, threads=threads)
                case = f"{operation}, {name}, {threads} thread{'s' * (threads > 1)}"
                text = f"{taken / MIB:.2f} MiB, and {code / MIB:.2f} of code"
                yield Row(goal, case, f"{limit / MIB:.2f} MiB", text, taken <= limit)


def memory_growth() -> Iterator[Row]:
    """No growth: less than a byte a call."""
    grown = memory.growth(CALLS)
    goal = f"growth in {CALLS:,} calls"
    yield Row(goal, "encode and decode of 4 KiB", f"< {CALLS / 1000:.0f} kB", f"{grown / 1000:.0f} kB", grown < CALLS)


def machine() -> str:
    """What this ran on, in one line."""
    python = platform.python_version()
    return f"{cpu_model()}, {os.cpu_count()} CPUs, Python {python}, libqpl {libqpl_version()}, software path"


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each comparison (default: 3)")
    parser.add_argument("--json", type=Path, help="file to write the table to as well")
    options = parser.parse_args()
    set_path("software")
    print(f"{machine()}\n\n| goal | case | needed | measured | met |\n| --- | --- | --- | --- | --- |")
    rows = []
    for measure in (
        partial(against_c, options.seconds),
        partial(pages_against_c, options.seconds),
        partial(two_threads, 2 * options.seconds),
        partial(against_zlib, options.seconds),
        peak_memory,
        memory_growth,
    ):
        for row in measure():
            verdict = {True: "yes", False: "**no**", None: ""}[row.met]
            print("|", " | ".join((*row[:4], verdict)), "|", flush=True)
            rows.append(row._asdict())
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
