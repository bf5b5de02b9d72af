"""Write the tables of docs/benchmarks.md from the figures of the benchmarks, of `goals.py` and of `served.py`.

    pytest benchmarks -c benchmarks/pytest.ini --benchmark-json=build/benchmarks.json
    python benchmarks/goals.py --json build/goals-1.json
    python benchmarks/served.py --json build/served.json
    python benchmarks/report.py build/benchmarks.json build/goals-*.json --served build/served.json \\
        --into docs/benchmarks.md

Without ``--into`` the tables are printed.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cases import size_name
from served import HEAD, PARTS_HEAD, Part, Row

BEGIN = "<!-- The rest is written by benchmarks/report.py. -->\n"

WRITING = ("encode", "write")


class Cell(NamedTuple):
    """Figures of one case: MB/s (10**6 bytes a second) of uncompressed bytes, by the median, and ratio."""

    speeds: dict[str, float]
    ratio: float

    def __str__(self) -> str:
        return "/".join(f"{self.speeds[name]:.0f}" for name in sorted(self.speeds, key=_writing_first))


def _writing_first(operation: str) -> bool:
    return operation not in WRITING


def speed_and_ratio(cell: Cell, _: Cell) -> str:
    """A table's cell: speeds there and back, and ratio."""
    return f"{cell}, {cell.ratio:.2f}"


def speed_and_gain(cell: Cell, first: Cell) -> str:
    """A table's cell: speeds there and back, and how many times those of the first row they are."""
    gains = [cell.speeds[name] / first.speeds[name] for name in sorted(cell.speeds, key=_writing_first)]
    return f"{cell}; {'/'.join(f'{gain:.2f}' for gain in gains)}"


def ratio_and_loss(cell: Cell, last: Cell) -> str:
    """A table's cell: ratio, how much less that is than in the last row, and speeds there and back."""
    return f"{cell.ratio:.3f}, −{100 * (1 - cell.ratio / last.ratio):.1f} %, {cell}"  # noqa: RUF001


class Table(NamedTuple):
    """A table: its measurements, how they give rows and columns, and how a cell is written.

    Attributes
    ----------
    heading, text : str
        Printed above the table.
    module : str
        The file of the benchmarks.
    row, column : callable
        From a benchmark's ``extra_info`` to the head of its row and column.
    cell : callable
        ``cell(cell, reference) -> str``; the reference is of row `reference` in the same column.
    reference : int
        Index of a row.

    """

    heading: str
    text: str
    module: str
    row: Callable[[dict[str, Any]], str]
    column: Callable[[dict[str, Any]], str]
    cell: Callable[[Cell, Cell], str]
    reference: int = 0


def codec_table(size: int) -> Table:
    """The codecs at one chunk size in bytes."""
    return Table(
        f"Chunks of {size_name(size)}",
        "Encode/decode in MB/s, and ratio.",
        "test_codec_speed.py",
        lambda info: info["codec"] if info["size"] == size else "",
        lambda info: info["data"],
        speed_and_ratio,
    )


TABLES = [
    Table(
        "Ratio by block size",
        "1 MiB in blocks of `block_size` bytes: ratio, how much less that is than in a single block, and encode/decode "
        "in MB/s.",
        "test_block_size.py",
        lambda info: size_name(info["block_size"]),
        lambda info: info["data"],
        ratio_and_loss,
        -1,
    ),
    *(codec_table(size) for size in (4 << 10, 64 << 10, 1 << 20, 16 << 20)),
    Table(
        "Pages",
        "128 pages of 4 KiB in one call: compress/decompress in MB/s, and ratio.",
        "test_pages.py",
        lambda info: f"{info['huffman']}: {info['codec']}",
        lambda info: info["data"],
        speed_and_ratio,
    ),
    Table(
        "Threads",
        "One chunk of 16 MiB by `QPL()`: encode/decode in MB/s, and how many times those of one thread they are.",
        "test_threads.py",
        lambda info: str(info["threads"]),
        lambda info: info["data"],
        speed_and_gain,
    ),
    Table(
        "zarr",
        "An array of 64 MiB in chunks of 1 MiB, all of it: write/read in MB/s, and ratio.",
        "test_zarr_speed.py",
        lambda info: info["codec"],
        lambda info: f"{info['data']}, {info['store']}",
        speed_and_ratio,
    ),
]


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def benchmark_table(table: Table, benchmarks: list[dict[str, Any]]) -> str:
    """One table of pytest-benchmark's measurements, with its heading; nothing if none belong to it."""
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    columns: dict[str, None] = {}
    for benchmark in benchmarks:
        info = benchmark["extra_info"]
        if benchmark["fullname"].split("::")[0].endswith(table.module) and table.row(info):
            found[table.row(info)][table.column(info)][info["operation"]] = benchmark
            columns[table.column(info)] = None
    if not found:
        return ""
    cells = {
        row: {column: _cell(measured) for column, measured in by_column.items()} for row, by_column in found.items()
    }
    reference = list(cells.values())[table.reference]
    rows = (
        [row, *(table.cell(by_column[column], reference[column]) for column in columns)]
        for row, by_column in cells.items()
    )
    return f"## {table.heading}\n\n{table.text}\n\n{markdown(['', *columns], rows)}\n"


def _cell(measured: dict[str, dict[str, Any]]) -> Cell:
    """From the benchmarks of one thing, by operation."""
    speeds = {
        operation: benchmark["extra_info"]["size"] / benchmark["stats"]["median"] / 1e6
        for operation, benchmark in measured.items()
    }
    return Cell(speeds, next(iter(measured.values()))["extra_info"]["ratio"])


def goal_table(runs: list[list[dict[str, Any]]]) -> str:
    """The goals, with the figures of each run."""
    rows = []
    for same in zip(*runs, strict=True):
        goal = same[0]
        figures = "; ".join(run["measured"].partition(" (")[0] for run in same)
        verdict = "" if goal["reached"] is None else f"{sum(run['reached'] for run in same)} of {len(same)}"
        rows.append([goal["measure"], goal["case"], goal["target"], figures, verdict])
    text = (
        "Measured by `benchmarks/goals.py`, with one figure for each run of it. A figure without a unit is how many "
        "times as fast, or how many times the ratio."
    )
    return f"## Goals\n\n{text}\n\n{markdown(['measure', 'case', 'target', 'measured', 'reached'], rows)}\n"


def served_tables(measured: dict[str, Any]) -> str:
    """Comparisons of zarr's own codecs with those that `enable` serves, and the parts of one of them."""
    rows = [Row(**row).cells() for row in measured["rows"]]
    parts = [Part(**part).cells() for part in measured["parts"]]
    return (
        "## zarr's own gzip and zlib codecs, and ours after `enable()`\n\n"
        "Measured by `benchmarks/served.py`, with zarr's default threads: 256 MiB of float32 in chunks of 2 MiB, and "
        "the demo's NetCDF4 file. A share below 1 means that this package takes less. The page cache has the files.\n\n"
        f"{markdown(HEAD, rows)}\n"
        "The parts of reading the float32 field by reference, in CPU seconds of all threads, the least of all "
        "rounds, each measured by itself.\n\n"
        f"{markdown(PARTS_HEAD, parts)}\n"
    )


def report(benchmarks: Path, goals: list[Path], served: Path | None) -> Iterator[str]:
    """The parts of the generated text."""
    measured = json.loads(benchmarks.read_text())
    runs = [json.loads(path.read_text()) for path in goals]
    if runs:
        yield f"Machine: {runs[0]['machine']}; {measured['datetime'][:10]}.\n\n"
        yield goal_table([run["rows"] for run in runs])
    if served is not None:
        yield served_tables(json.loads(served.read_text()))
    for table in TABLES:
        yield benchmark_table(table, measured["benchmarks"])


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", type=Path, help="what pytest --benchmark-json wrote")
    parser.add_argument("goals", type=Path, nargs="*", help="what goals.py --json wrote, of each run")
    parser.add_argument("--served", type=Path, help="what served.py --json wrote")
    parser.add_argument("--into", type=Path, help="page whose tables to write anew")
    options = parser.parse_args()
    text = "".join(report(options.benchmarks, options.goals, options.served)).rstrip() + "\n"
    if options.into is None:
        print(text, end="")
        return
    before, begin, _ = options.into.read_text().partition(BEGIN)
    if not begin:
        raise SystemExit(f"{options.into} has no line {BEGIN.strip()}")
    options.into.write_text(f"{before}{begin}\n{text}")


if __name__ == "__main__":
    main()
