"""Compare two builds of the package: by another compiler, with other options, or with CPython's limited API.

It makes small calls, where a build's own cost shows, and calls on one large chunk. The builds take turns, a process
each, on the software path. CPU time is noisy where a machine is shared. valgrind's instruction counts are not, but
valgrind has no AVX-512.

Each build is a folder made by ``pip install --no-deps --target FOLDER WHEEL``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from timing import seconds_of

import numcodecs_qpl
from numcodecs_qpl import compress_pages, decompress_pages
from numcodecs_qpl.bench.data import float32_field

PAGE = 4096
RUNS = 5
COUNTED = 1000
"""Calls whose instructions are counted."""


def small_cases() -> dict[str, tuple[Callable[[], object], int]]:
    """Make the calls to compare, each with the number of calls to time."""
    numcodecs_qpl.set_path("software")
    pages = float32_field(128 * PAGE)
    page = pages[:PAGE]
    codec = numcodecs_qpl.QPL()
    lengths, payload = compress_pages(pages)
    one_length, one_payload = compress_pages(page)
    encoded_page = codec.encode(page)
    return {
        "compress_pages, 1 page": (lambda: compress_pages(page), 1000),
        "decompress_pages, 1 page": (lambda: decompress_pages(one_payload, one_length), 1000),
        "compress_pages, 128 pages": (lambda: compress_pages(pages), 30),
        "decompress_pages, 128 pages": (lambda: decompress_pages(payload, lengths), 30),
        "QPL.encode, 4 KiB": (lambda: codec.encode(page), 1000),
        "QPL.decode, 4 KiB": (lambda: codec.decode(encoded_page), 1000),
    }


def large_cases() -> dict[str, tuple[Callable[[], object], int]]:
    """The same for a chunk."""
    codec = numcodecs_qpl.QPL()
    chunk = float32_field(1 << 24)
    encoded = codec.encode(chunk)
    return {
        "QPL.encode, 16 MiB": (lambda: codec.encode(chunk), 1),
        "QPL.decode, 16 MiB": (lambda: codec.decode(encoded), 1),
    }


def measure() -> dict[str, float]:
    """CPU seconds of a call of each case: the least of a few runs."""
    took = {}
    for name, (call, times) in (small_cases() | large_cases()).items():
        took[name] = min(seconds_of(call, times, time.process_time) for _ in range(RUNS))
    return took


def ask(build: Path, *arguments: str, under: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run this script on a build."""
    return subprocess.run(
        [*under, sys.executable, __file__, str(build), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(build), "PYTHONHASHSEED": "0"},
    )


def instructions(build: Path, case: str) -> float:
    """Instructions of a call: what COUNTED more of them add to those of the process."""
    valgrind = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    few, many = (ask(build, "--calls", str(calls), "--case", case, under=valgrind) for calls in (10, COUNTED + 10))
    counts = [int(re.findall(r"Collected : (\d+)", done.stderr)[0]) for done in (few, many)]
    return (counts[1] - counts[0]) / COUNTED


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", metavar="FOLDER", type=Path, nargs="+", help="a build; the second to the first")
    parser.add_argument("--rounds", type=int, default=9, help="processes for each build (default: %(default)s)")
    parser.add_argument("--instructions", action="store_true", help="count the instructions of calls on 4 KiB instead")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    builds = [build.resolve() for build in options.builds]
    if len(builds) == 1:  # as `ask` runs it
        assert Path(numcodecs_qpl.__file__).is_relative_to(builds[0])
        if options.case is None:
            print(json.dumps(measure()))
        else:
            call, _ = small_cases()[options.case]
            for _ in range(options.calls):
                call()
        return
    if options.instructions:
        for case in [name for name in small_cases() if "128" not in name]:
            first, second = (instructions(build, case) for build in builds)
            print(f"{case:28} {first:9.0f} {second:9.0f} instructions, {second / first:.3f}")
        return
    rounds = []
    for number in range(options.rounds):
        turn = builds if number % 2 == 0 else builds[::-1]
        took = {build: json.loads(ask(build).stdout) for build in turn}
        rounds.append([took[build] for build in builds])
    for case in rounds[0][0]:
        first, second = (median(one[i][case] for one in rounds) for i in range(2))
        ratio = median(one[1][case] / one[0][case] for one in rounds)
        print(f"{case:28} {first * 1e6:9.1f} {second * 1e6:9.1f} µs, {ratio:.3f}")


if __name__ == "__main__":
    main()
