"""Measure zarr with its own gzip and zlib codecs, and with those that `numcodecs_qpl.enable` serves.

Both sides take turns, round after round, and their medians are compared. An array of 256 MiB of float32 is written and
read in chunks of 2 MiB, by zarr's default threads. Files are in the page cache. "Share of time" is that of this
package: 0.5 is half the time of zarr's own codec. The range beside it is that of the middle half of the rounds.

The parts of reading by reference take turns, too. They are in CPU seconds, as threads overlap in the time of the clock,
and the least of all rounds: the rest is a difference, and the noise of medians is larger than it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numcodecs
import numpy as np
import xarray as xr
import zarr
from cases import chunk
from goals import for_each, machine
from timing import spread

from numcodecs_qpl import demo, netcdf, set_path, set_threads
from numcodecs_qpl.comparison import Side, in_turns

LENGTH = 8192
CHUNKS = (512, 1024)

BY_REFERENCE, STORES, WRITING = 0.6, 0.55, 0.6
"""Goals: shares of the time of zarr's own codecs."""

Array = np.ndarray[Any, np.dtype[Any]]


class Row(NamedTuple):
    """A comparison and its goal.

    Attributes
    ----------
    work, codec : str
        What is done, and the codec that the metadata names.
    size : int
        Bytes of the data.
    encoded : tuple of int or None
        Bytes in the store, of zarr's own codec and of ours; None for reading.
    target : float
        The largest share of the time that reaches the goal.
    share : tuple of float
        Median, and the middle half of the rounds.
    wall, cpu : tuple of float
        Medians in seconds, of zarr's own codec and of ours.
    """

    work: str
    codec: str
    size: int
    encoded: tuple[int, int] | None
    target: float
    share: tuple[float, float, float]
    wall: tuple[float, float]
    cpu: tuple[float, float]

    @property
    def reached(self) -> bool:
        """Return True if the share is small enough, and so is what was written."""
        return self.share[0] <= self.target and (self.encoded is None or self.encoded[1] <= self.encoded[0])

    def cells(self) -> list[str]:
        """Cells of the table, in the order of `HEAD`."""
        sizes = "" if self.encoded is None else f"{self.encoded[1] / self.encoded[0]:.3f}"
        return [
            self.work,
            self.codec,
            f"≤ {self.target:.2f}",
            "{:.2f} ({:.2f} to {:.2f})".format(*self.share),
            "{:.0f}/{:.0f}".format(*(self.size / seconds / 1e6 for seconds in self.wall)),
            "{:.2f}/{:.2f}".format(*self.cpu),
            sizes,
            "yes" if self.reached else "**no**",
        ]


HEAD = [
    "work",
    "codec",
    "target",
    "share of time",
    "MB/s, zarr's/ours",
    "CPU s, zarr's/ours",
    "share of size",
    "reached",
]


class Part(NamedTuple):
    """A part of reading by reference, and the CPU seconds of it with zarr's own codecs and with ours."""

    name: str
    own: float
    served: float

    def cells(self) -> list[str]:
        """Cells of the table, in the order of `PARTS_HEAD`."""
        return [self.name, f"{self.own:.2f}", f"{self.served:.2f}"]


PARTS_HEAD = ["part", "CPU s, zarr's", "CPU s, ours"]


def row(
    work: str, codec: str, size: int, target: float, sides: tuple[Side, Side], encoded: tuple[int, int] | None = None
) -> Row:
    """Compare the medians."""
    own, served = sides
    if own.blocks or not served.blocks:
        raise RuntimeError(
            f"{work}, {codec}: {own.blocks} blocks by this package before enable(), {served.blocks} after"
        )
    wall, cpu = (median(own.wall), median(served.wall)), (median(own.cpu), median(served.cpu))
    return Row(work, codec, size, encoded, target, (wall[1] / wall[0], *spread(served.wall, own.wall)), wall, cpu)


def field() -> Array:
    """A float32 field of 256 MiB."""
    return np.frombuffer(chunk("float32 field", 4 * LENGTH**2), "<f4").reshape(LENGTH, LENGTH)


def same(expected: Array, found: Array) -> None:
    """Raise an error if the arrays differ."""
    if not np.array_equal(expected, found):
        raise RuntimeError("what was read is not what was written")


def same_dataset(expected: xr.Dataset, found: xr.Dataset) -> None:
    """Raise an error if a variable differs."""
    for name, variable in expected.data_vars.items():
        same(variable.values, found[name].values)


def by_reference(folder: Path, rounds: int) -> Iterator[Row]:
    """NetCDF4 files, through references: the field, and the demo's file."""
    files: dict[str, tuple[xr.Dataset, dict[str, tuple[int, ...]]]] = {
        "a float32 field": (xr.Dataset({"field": (("y", "x"), field())}), {"field": CHUNKS}),
        "the demo's file": (demo.dataset(demo.load(quick=False), demo.SIDE), demo.NETCDF_CHUNKS),
    }
    for name, (dataset, chunks) in files.items():
        path = folder / f"{name}.nc"
        netcdf.write(path, dataset, chunks)
        work = partial(netcdf.read, netcdf.references(path))
        sides = in_turns(work, partial(same_dataset, dataset), rounds=rounds)
        yield row(f"read NetCDF4 by reference: {name}", "zlib 4, shuffle", dataset.nbytes, BY_REFERENCE, sides)


def stores(folder: Path, rounds: int) -> Iterator[Row]:
    """zarr's stores of level 5, read whole."""
    values = field()
    codecs: list[tuple[str, Literal[2, 3], Any]] = [
        ("v2 gzip 5", 2, numcodecs.GZip(5)),
        ("v2 zlib 5", 2, numcodecs.Zlib(5)),
        ("v3 gzip 5", 3, gzip(5)),
    ]
    for name, zarr_format, compressor in codecs:
        path = folder / f"{name}.zarr"
        array = zarr.create_array(
            path, shape=values.shape, dtype=values.dtype, chunks=CHUNKS, zarr_format=zarr_format, compressors=compressor
        )
        array[...] = values
        sides = in_turns(partial(read, path), partial(same, values), rounds=rounds)
        yield row("read a store", name, values.nbytes, STORES, sides)


def gzip(level: int) -> dict[str, Any]:
    """zarr's core gzip by its name. `enable` does not serve an instance that was made by hand."""
    return {"name": "gzip", "configuration": {"level": level}}


def read(path: Path) -> Array:
    """Open an array, and read all of it."""
    return np.asarray(zarr.open_array(path, mode="r")[...])


def writing(folder: Path, rounds: int) -> Iterator[Row]:
    """zarr's core gzip, written."""
    values = field()
    for level in (1, 5):
        sizes: list[int] = []
        work = partial(write, folder / f"written-{level}.zarr", values, level)
        sides = in_turns(work, partial(note_size, sizes), rounds=rounds)
        same(values, read(folder / f"written-{level}.zarr"))
        yield row("write a store", f"v3 gzip {level}", values.nbytes, WRITING, sides, (sizes[0], sizes[1]))


def note_size(sizes: list[int], array: Any) -> None:
    """Append the bytes that an array has in its store."""
    sizes.append(array.nbytes_stored())


def write(path: Path, values: Array, level: int) -> Any:
    """Make a new store in the place of the one before, and write all of it."""
    array = zarr.create_array(
        path, shape=values.shape, dtype=values.dtype, chunks=CHUNKS, compressors=gzip(level), overwrite=True
    )
    array[...] = values
    return array


def parts(folder: Path, rounds: int) -> Iterator[Part]:
    """Measure the parts of reading a float32 field by reference."""
    path = folder / "a float32 field.nc"
    references = netcdf.references(path)
    places = netcdf.chunk_places(references, "field")
    zlib = partial(numcodecs.get_codec, {"id": "zlib"})
    shuffle = numcodecs.Shuffle(4)
    stored = list(_read_chunks(path, places))
    shuffled = [zlib().decode(one) for one in stored]

    works: dict[str, Callable[[], object]] = {
        "inflating": lambda: for_each(zlib().decode, stored),
        "numcodecs' Shuffle": lambda: for_each(shuffle.decode, shuffled),
        "reading the file": lambda: sum(map(len, _read_chunks(path, places))),
        "all": partial(netcdf.read, references),
    }
    taken = [[in_turns(work, lambda _: None, rounds=1) for work in works.values()] for _ in range(rounds)]
    own, served = (
        [min(sides[which].cpu[0] for sides in each) for each in zip(*taken, strict=True)] for which in (0, 1)
    )
    rest = "the rest: zarr, references, xarray"
    for name, *cpu in zip([*works, rest], [*own, _rest(own)], [*served, _rest(served)], strict=True):
        yield Part(name, *cpu)


def _rest(cpu: list[float]) -> float:
    """CPU seconds of the last, which is all, above the sum of the others."""
    *parts, everything = cpu
    return everything - sum(parts)


def _read_chunks(path: Path, places: list[tuple[int, int]]) -> Iterator[bytes]:
    with path.open("rb") as file:
        for offset, length in places:
            file.seek(offset)
            yield file.read(length)


def line(cells: list[str]) -> None:
    """Print a row of a table in Markdown."""
    print("|", " | ".join(cells), "|", flush=True)


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of which the median is taken (default: 7)")
    parser.add_argument("--json", type=Path, help="file to write the tables to as well")
    options = parser.parse_args()
    set_path("software")
    set_threads(1)
    print(f"{machine()}\n")
    rows, shares = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        line(HEAD)
        line(["---"] * len(HEAD))
        for measure in (by_reference, stores, writing):
            for done in measure(folder, options.rounds):
                line(done.cells())
                rows.append(done)
        print()
        line(PARTS_HEAD)
        line(["---"] * len(PARTS_HEAD))
        for part in parts(folder, options.rounds):
            line(part.cells())
            shares.append(part)
    if options.json:
        tables = {"rows": [one._asdict() for one in rows], "parts": [one._asdict() for one in shares]}
        options.json.write_text(json.dumps({"machine": machine(), **tables}, indent=1))


if __name__ == "__main__":
    main()
