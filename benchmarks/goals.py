"""Measure the goals that the project has set itself, and print which ones are reached.

All sides of a comparison run in turns, round after round, and their medians are compared: other work of the machine
slows all of them alike. Everything runs on the software path, in one thread where nothing else is said. A figure is a
ratio of speeds if it has no unit. The range beside it is that of the middle half of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from statistics import geometric_mean
from typing import NamedTuple

import memory
import raw
from cases import ATLAS, EVERY_DATA_SET, KIB, MIB, Contender, chunk, codec, functions, size_name
from cases import raw as in_c
from isal import isal_zlib
from raw import RawDeflate, RawInflate
from timing import Turns

from numcodecs_qpl import QPL, compress_pages, decompress_pages, set_path, set_threads
from numcodecs_qpl._core import engine_versions
from numcodecs_qpl._core.types import Huffman
from numcodecs_qpl.bench.data import DATA_SETS
from numcodecs_qpl.bench.host import cpu_model

BLOCK = 64 * KIB
PAGE = 4 * KIB
PAGES = 128
SMALL_CHUNKS = 16
THREADS_CHUNK = 16 * MIB
MEMORY_CHUNK = 64 * MIB
FRAMING = 64 * KIB
"""Bytes by which the largest output may exceed its input of `MEMORY_CHUNK`: stored blocks, their ends, the index."""

CALLS = 100_000

GZIP = 16
"""Added to the binary logarithm of the window, it makes isal_zlib write and read gzip."""


class Row(NamedTuple):
    """A goal and its measured figure.

    Attributes
    ----------
    measure, case : str
        Names of the comparison and of its data.
    target, measured : str
        As they are printed.
    value : float
        The measured figure.
    reached : bool or None
        None where there is no target.

    """

    measure: str
    case: str
    target: str
    measured: str
    value: float
    reached: bool | None


class Times(Turns):
    """Functions measured in turns, and the goals for them."""

    def row(self, measure: str, case: str, least: float | None, name: str, of: str) -> Row:
        """Make the goal that `name` is at least `least` times as fast as `of`."""
        speed, low, high = self.speed(name, of)
        return _row(measure, case, least, speed, f" ({low:.2f} to {high:.2f})")


def _row(measure: str, case: str, least: float | None, value: float, beside: str = "", digits: int = 2) -> Row:
    """Make the goal that a figure is at least `least`."""
    target = "" if least is None else f"{least:.{digits}f}"
    return Row(measure, case, target, f"{value:.{digits}f}{beside}", value, None if least is None else value >= least)


def _mean(rows: list[Row], least: float) -> Row:
    """Make the goal that the geometric mean of rows of one measure is at least `least`."""
    return _row(rows[0].measure, "geometric mean", least, geometric_mean(row.value for row in rows))


def against_libqpl(seconds: float) -> Iterator[Row]:
    """Encoding in blocks of 64 KiB against libqpl in C: speed and ratio."""
    measure = "1 MiB in blocks of 64 KiB, against libqpl in C"
    for data_set in EVERY_DATA_SET:
        data = chunk(data_set, MIB)
        ours, limit = codec(QPL(block_size=BLOCK), data), in_c(data, "libqpl", block_size=BLOCK)
        times = Times({"ours": ours.encode, "libqpl": limit.encode}, seconds)
        speed, ratio = (1.5, 1.1) if data_set == ATLAS else (1.1, 0.985)
        yield times.row(measure, f"encode, {data_set}", speed, "ours", "libqpl")
        gain = limit.encoded_size / ours.encoded_size
        sizes = f" ({MIB / ours.encoded_size:.3f} to {MIB / limit.encoded_size:.3f})"
        yield _row(measure, f"ratio, {data_set}", ratio, gain, sizes, digits=3)


def encoding(seconds: float) -> Iterator[Row]:
    """Encoding of 1 MiB against isal_zlib and against ISA-L in C."""
    measure = "1 MiB, encode"
    for data_set in EVERY_DATA_SET:
        data = chunk(data_set, MIB)
        times = Times(
            {
                "ours": codec(QPL(), data).encode,
                "no checksum": codec(QPL(container="deflate"), data).encode,
                "isal_zlib": partial(isal_zlib.compress, data, 1, 12 + GZIP),
                "ISA-L": in_c(data, "ISA-L", block_size=BLOCK).encode,
            },
            seconds,
        )
        yield times.row(f"{measure}, against isal_zlib level 1, 4 KiB window", data_set, 1.0, "ours", "isal_zlib")
        against_c = f"{measure}, against ISA-L in C without a checksum"
        yield times.row(against_c, data_set, 0.95, "ours", "ISA-L")
        yield times.row(against_c, f'{data_set}, QPL(container="deflate")', None, "no checksum", "ISA-L")


def decoding(seconds: float) -> Iterator[Row]:
    """Decoding of 1 MiB against isal_zlib: chunks of this package, and of zlib."""
    gunzip = partial(isal_zlib.decompress, wbits=15 + GZIP)
    own, foreign = QPL(), QPL(container="zlib")
    zlib5 = partial(zlib.compress, level=5)
    for measure, encode, decode, peer, mean, each in (
        ("1 MiB, decode of our chunks, against isal_zlib", own.encode, own.decode, gunzip, 1.0, 0.85),
        ("1 MiB, decode of zlib level 5, against isal_zlib", zlib5, foreign.decode, isal_zlib.decompress, 1.15, 1.0),
    ):
        rows = []
        for data_set in EVERY_DATA_SET:
            data = chunk(data_set, MIB)
            times = Times(
                {"ours": functions(encode, decode, data).decode, "isal": functions(encode, peer, data).decode}, seconds
            )
            rows.append(times.row(measure, data_set, each, "ours", "isal"))
            yield rows[-1]
        yield _mean(rows, mean)


def small_chunks(seconds: float) -> Iterator[Row]:
    """Chunks of 4 KiB against isal_zlib, a call for each. They are spread over 1 MiB: single ones may be constant."""
    measure = f"{SMALL_CHUNKS} chunks of 4 KiB, against isal_zlib level 1, 4 KiB window"
    gunzip = partial(isal_zlib.decompress, wbits=15 + GZIP)
    for data_set in EVERY_DATA_SET:
        data = chunk(data_set, MIB)
        plain = [data[start : start + PAGE] for start in range(0, MIB, MIB // SMALL_CHUNKS)]
        qpl = QPL()
        encoded = [bytes(qpl.encode(one)) for one in plain]
        if [qpl.decode(one) for one in encoded] != plain or [gunzip(one) for one in encoded] != plain:
            raise RuntimeError(f"4 KiB of {data_set} do not come back")
        peer = partial(isal_zlib.compress, level=1, wbits=12 + GZIP)
        encode = Times({"ours": partial(for_each, qpl.encode, plain), "isal": partial(for_each, peer, plain)}, seconds)
        yield encode.row(measure, f"encode, {data_set}", 0.9, "ours", "isal")
        decode = Times(
            {"ours": partial(for_each, qpl.decode, encoded), "isal": partial(for_each, gunzip, encoded)}, seconds
        )
        yield decode.row(measure, f"decode, {data_set}", 0.9, "ours", "isal")


def for_each(function: Callable[[bytes], object], chunks: list[bytes]) -> None:
    """Call the function with each chunk."""
    for one in chunks:
        function(one)


def pages(seconds: float) -> Iterator[Row]:
    """A batch of pages against libqpl in C. Both inflate the same streams."""
    measure = f"{PAGES} pages of 4 KiB, against libqpl in C"
    goals: dict[Huffman, float | None] = {"dynamic": 1.05, "fixed": None}
    for huffman, least in goals.items():
        for data_set in EVERY_DATA_SET:
            data = chunk(data_set, PAGES * PAGE)
            lengths, payload = compress_pages(data, PAGE, huffman)
            limit = RawDeflate("libqpl", data, PAGE, dynamic=huffman == "dynamic", pages=True)
            inflate = RawInflate("libqpl", payload, lengths, data, PAGE, pages=True)
            encode = Times({"ours": partial(compress_pages, data, PAGE, huffman), "libqpl": limit}, seconds)
            decode = Times({"ours": partial(decompress_pages, payload, lengths, PAGE), "libqpl": inflate}, seconds)
            yield encode.row(measure, f"compress, {huffman}, {data_set}", least, "ours", "libqpl")
            yield decode.row(measure, f"decompress, {huffman}, {data_set}", least, "ours", "libqpl")


def two_threads(seconds: float) -> Iterator[Row]:
    """Two threads against one, and what two threads of ISA-L in C reach on this machine at that moment."""
    measure = f"{size_name(THREADS_CHUNK)}, 2 threads against 1"
    with ThreadPoolExecutor(1) as executor:
        for data_set in EVERY_DATA_SET:
            data = chunk(data_set, THREADS_CHUNK)
            ours = codec(QPL(), data)
            halves = [in_c(half, "ISA-L") for half in (data[: len(data) // 2], data[len(data) // 2 :])]
            for operation in ("encode", "decode"):
                one, other = (operation_of(half, operation) for half in halves)
                run = operation_of(ours, operation)
                times = Times(
                    {
                        "ours, 1": partial(with_threads, 1, run),
                        "C, 1": partial(one_after_other, one, other),
                        "ours, 2": partial(with_threads, 2, run),
                        "C, 2": partial(side_by_side, executor, one, other),
                    },
                    2 * seconds,
                    threads=True,
                )
                yield times.row(measure, f"{operation}, {data_set}", 1.8, "ours, 2", "ours, 1")
                yield times.row(measure, f"{operation}, {data_set}: ISA-L in C", None, "C, 2", "C, 1")
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


def memory_above_input(_: float) -> Iterator[Row]:
    """Memory of a process's first call: at most its largest possible output, and 1 MiB for each thread.

    The process does not grow either: by less than a byte a call.
    """
    measure = f"{size_name(MEMORY_CHUNK)}, memory above the input"
    chunks = {name: chunk(name, MEMORY_CHUNK) for name in DATA_SETS}
    chunks["random bytes"] = random.Random(1).randbytes(MEMORY_CHUNK)
    for name, data in chunks.items():
        encoded = bytes(QPL().encode(data))
        for threads in (1, 2):
            for operation, source, output in (
                ("encode", data, MEMORY_CHUNK + FRAMING),
                ("decode", encoded, MEMORY_CHUNK),
                ("decode into out", encoded, 0),
            ):
                limit = output + threads * MIB
                taken, code = memory.peak(operation, source, threads=threads)
                case = f"{operation}, {name}, {threads} thread{'s' * (threads > 1)}"
                text = f"{taken / MIB:.2f} MiB (and {code / MIB:.2f} of code)"
                yield Row(measure, case, f"≤ {limit / MIB:.2f} MiB", text, taken / MIB, taken <= limit)
    grown = memory.growth(CALLS)
    measure = f"growth in {CALLS:,} calls"
    target, text = f"< {CALLS / 1000:.0f} kB", f"{grown / 1000:.0f} kB"
    yield Row(measure, "encode and decode of 4 KiB", target, text, grown / 1000, grown < CALLS)


def machine() -> str:
    """Describe in one line where this ran. libqpl's software path has kernels of its own for AVX-512."""
    libraries = ", ".join(f"{engine} {raw.version(engine)}" for engine in raw.ENGINES)
    return (
        f"{cpu_model()} ({'with' if has_avx512() else 'without'} AVX-512), {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}, software path; the package: {engine_versions()}; the loops in C: "
        f"{libraries}; PyPI's isal {package_version('isal')}"
    )


def has_avx512() -> bool:
    """Return True if Linux reports AVX-512 for this machine."""
    try:
        return " avx512f " in Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False


MEASURES: dict[str, Callable[[float], Iterator[Row]]] = {
    "libqpl": against_libqpl,
    "encode": encoding,
    "decode": decoding,
    "small": small_chunks,
    "pages": pages,
    "threads": two_threads,
    "memory": memory_above_input,
}


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*", choices=[[], *MEASURES], help="some measures only (default: all)")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each comparison (default: 3)")
    parser.add_argument("--cpu-time", action="store_true", help="measure CPU time, except that of two threads")
    parser.add_argument("--json", type=Path, help="file to write the table to as well")
    options = parser.parse_args()
    if options.cpu_time:
        Times.clock = staticmethod(time.process_time)
    set_path("software")
    set_threads(1)
    print(f"{machine()}\n\n| measure | case | target | measured | reached |\n| --- | --- | --- | --- | --- |")
    rows = []
    for name in options.measures or MEASURES:
        for row in MEASURES[name](options.seconds):
            verdict = {True: "yes", False: "**no**", None: ""}[row.reached]
            print("|", " | ".join((row.measure, row.case, row.target, row.measured, verdict)), "|", flush=True)
            rows.append(row._asdict())
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
