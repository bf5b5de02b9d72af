"""The command ``numcodecs-qpl demo``: a real array through zarr, and a NetCDF4 file read by reference.

The module needs the extra "demo"; `numcodecs_qpl.cli` checks that before the import.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from rich import box
from rich.console import Console
from rich.table import Table
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from numcodecs_qpl import disable, netcdf, reset_stats, stats
from numcodecs_qpl._core import path_in_force
from numcodecs_qpl.bench.data import float32_field
from numcodecs_qpl.comparison import Side, in_turns
from numcodecs_qpl.host.cpus import usable_cpus
from numcodecs_qpl.host.devices import devices, path_names
from numcodecs_qpl.progress import progress_bar
from numcodecs_qpl.text import wrapped
from numcodecs_qpl.zarr import QPL

if TYPE_CHECKING:
    from numcodecs_qpl._core.types import Stats

MB = 10**6

CHUNKS = (1, 1080, 1080)
"""Months, rows, columns of a chunk: 1.17 MB, an eighth of the world in one month."""

QUICK = (2, 1080, 2160)
"""Months, rows, columns of the array in a quick run."""

SIDE, QUICK_SIDE = 5400, 1080
"""Rows and columns of the float32 field in the NetCDF4 file: 117 MB, and 5 MB in a quick run."""

NETCDF = "atlas-and-field.nc"
NETCDF_CHUNKS = {"turbidity": CHUNKS, "field": (540, 1080)}
"""Name of the NetCDF4 file, and the chunks of its variables. Those of the field have 2.33 MB."""

ROUNDS = 3
"""Rounds of each codec. The fastest counts, because the first round may start threads and import modules."""

Maps = npt.NDArray[np.uint8]


class DemoError(Exception):
    """An expected failure, with a message for the user: the fault, and what to do."""


@dataclass(frozen=True)
class Case:
    """A codec to measure, and the folder of its store. Without a codec, chunks are stored uncompressed."""

    name: str
    folder: str
    codec: BytesBytesCodec | None


@dataclass(frozen=True)
class Result:
    """Result of a case: bytes in the store's files, the shortest times, and the counts of `stats` in one round."""

    case: Case
    stored: int
    write_time: float
    read_time: float
    counts: Stats


def cases() -> list[Case]:
    """Return QPL and zarr's own codecs."""
    return [
        Case("QPL", "qpl.zarr", QPL()),
        Case("gzip level 1", "gzip-1.zarr", GzipCodec(level=1)),
        Case("gzip level 5 (zarr's default)", "gzip-5.zarr", GzipCodec()),
        Case("zstd level 1", "zstd-1.zarr", ZstdCodec(level=1)),
        Case("blosc (default settings)", "blosc.zarr", BloscCodec()),
        Case("no compression", "none.zarr", None),
    ]


def run(store: Path | None, *, quick: bool, check: Callable[[], None] = lambda: None) -> None:
    """Write the array with every codec, read it back, compare, and print the results; then read by reference.

    Parameters
    ----------
    store : Path or None
        A new or empty folder for the stores and the NetCDF4 file, which stay there; None for a temporary one.
    quick : bool
        Take a small part of the array.
    check : callable
        ``check()`` is called between the steps. Its exceptions end the demo. A signal handler should not raise by
        itself, because zarr's threads would go on to write files while the folder is removed.

    Raises
    ------
    DemoError
        If any step fails, or an array that is read back differs from the one that was written.
    """
    with _folder(store) as folder:
        disable()  # the table compares with zarr's own gzip
        data = load(quick)
        _introduce(data, quick)
        results = _try_all(Path(folder), data, check)
        _report(results, data)
        _prove_gzip(Path(folder) / results[0].case.folder, data)
        _by_reference(Path(folder) / NETCDF, dataset(data, QUICK_SIDE if quick else SIDE), check)
        if store is not None:
            print(f"\nThe stores and the NetCDF4 file are in {store}.")


def load(quick: bool) -> Maps:
    """Return the Linke turbidity atlas in pvlib's package as (month, row from the north, column from the west)."""
    spec = importlib.util.find_spec("pvlib")  # importing it takes seconds, and only its file is needed
    folders = spec.submodule_search_locations if spec else None
    path = Path(*(folders or ["pvlib"])[:1], "data", "LinkeTurbidities.h5")
    months, rows, columns = QUICK if quick else (None, None, None)
    try:
        with h5py.File(path) as file:
            maps = file["LinkeTurbidity"][:rows, :columns, :months]
    except (OSError, KeyError) as error:
        raise DemoError(f"pvlib's atlas cannot be read from {path}: {error}") from error
    # pvlib stores the months of a place together. In zarr, one map for each month is usual.
    return np.ascontiguousarray(np.moveaxis(maps, -1, 0))


def dataset(atlas: Maps, side: int) -> xr.Dataset:
    """Return the atlas, and a float32 field of `side` rows and columns."""
    field = np.frombuffer(float32_field(4 * side * side), "<f4").reshape(side, side)
    return xr.Dataset({"turbidity": (("month", "latitude", "longitude"), atlas), "field": (("y", "x"), field)})


def write(path: Path, data: Maps, codec: BytesBytesCodec | None) -> None:
    """Write `data` to a new zarr store."""
    array = zarr.create_array(path, shape=data.shape, dtype=data.dtype, chunks=CHUNKS, compressors=codec)
    array[...] = data


def read(path: Path) -> Maps:
    """Return the whole array of a zarr store."""
    return np.asarray(zarr.open_array(path, mode="r")[...])


def first_difference(data: Maps, found: Maps) -> tuple[int, ...] | None:
    """Return the index of the first chunk in which `found` differs from `data`, or None."""
    for chunk, region in chunks_of(data):
        if not np.array_equal(data[region], found[region]):
            return chunk
    return None


def chunks_of(data: Maps) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Yield the index and region of every chunk."""
    counts = [-(-length // size) for length, size in zip(data.shape, CHUNKS, strict=True)]
    for chunk in itertools.product(*map(range, counts)):
        yield chunk, tuple(slice(i * size, (i + 1) * size) for i, size in zip(chunk, CHUNKS, strict=True))


def _folder(store: Path | None) -> AbstractContextManager[str]:
    if store is None:
        return tempfile.TemporaryDirectory(prefix="numcodecs-qpl-")
    try:
        store.mkdir(parents=True, exist_ok=True)
        empty = not any(store.iterdir())
    except FileExistsError as error:
        raise DemoError(f"{store} is not a folder; give a new or an empty folder") from error
    except OSError as error:
        raise DemoError(f"{store} cannot be used: {error.strerror}; give another folder") from error
    if not empty:
        raise DemoError(f"{store} is not empty; give a new or an empty folder")
    return nullcontext(str(store))


def _introduce(data: Maps, quick: bool) -> None:
    months, rows, columns = data.shape
    what = "A part of the Linke turbidity atlas" if quick else "The Linke turbidity atlas"
    print(
        wrapped(
            f"{what} (how hazy the air is; from PyPI's pvlib): {months} monthly maps of {rows} x {columns} bytes, "
            f"{data.nbytes / MB:.1f} MB. Each codec writes them to a zarr store of its own, which is read back and "
            "compared."
        ),
        flush=True,
    )


def _try_all(folder: Path, data: Maps, check: Callable[[], None]) -> list[Result]:
    todo = cases()
    with _progress(2 * ROUNDS * len(todo), check) as announce:
        return [_try(case, folder / case.folder, data, announce) for case in todo]


@contextmanager
def _progress(total: int, check: Callable[[], None]) -> Iterator[Callable[[str], None]]:
    """Show a bar; call the yielded function when each of `total` steps begins."""
    steps = itertools.count()
    with progress_bar() as progress:
        task = progress.add_task("", total=total)

        def announce(what: str) -> None:
            check()
            progress.update(task, description=what, completed=next(steps))

        yield announce


def _try(case: Case, path: Path, data: Maps, announce: Callable[[str], None]) -> Result:
    write_times, read_times = [], []
    for _ in range(ROUNDS):
        if path.exists():
            shutil.rmtree(path)
        reset_stats()
        with _step(f"{case.name}: writing", announce):
            start = time.perf_counter()
            write(path, data, case.codec)
            write_times.append(time.perf_counter() - start)
        with _step(f"{case.name}: reading", announce):
            start = time.perf_counter()
            found = read(path)
            read_times.append(time.perf_counter() - start)
        chunk = first_difference(data, found)
        if chunk is not None:
            raise DemoError(f"{case.name}: chunk {chunk} was not read back as it was written")
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Result(case, stored, min(write_times), min(read_times), stats())


@contextmanager
def _step(what: str, announce: Callable[[str], None]) -> Iterator[None]:
    announce(what)
    try:
        yield
    except Exception as error:  # every codec has errors of its own
        raise DemoError(f"{what} failed: {type(error).__name__}: {error}") from error


def _report(results: list[Result], data: Maps) -> None:
    print()
    _print_table(
        ["codec", "ratio", "stored MB", "write MB/s", "read MB/s"],
        [
            [
                result.case.name,
                f"{data.nbytes / result.stored:.2f}",
                f"{result.stored / MB:.1f}",
                f"{data.nbytes / MB / result.write_time:,.0f}",
                f"{data.nbytes / MB / result.read_time:,.0f}",
            ]
            for result in results
        ],
    )
    cpus = usable_cpus()
    print(
        wrapped(
            "ratio: size of the array / size of the store. MB: 10**6 bytes, in MB/s those of the array. Speeds are the "
            f"best of {ROUNDS} with {cpus} CPU{'s' * (cpus != 1)}. They include zarr and the files, so they are not a "
            "benchmark."
        )
    )
    print(f"\nBit for bit: all {len(results)} stores were read back as the array that was written.")
    for result in results:
        if isinstance(result.case.codec, QPL):
            print(wrapped(f"{result.case.name} ran on {_where(result.counts)}."))
    if path_in_force() == "software":
        print("`numcodecs-qpl info` shows if this machine has an IAA, and how to use it.")


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table of names and numbers."""
    name, *numbers = head
    table = Table(name, box=box.ASCII2)
    for heading in numbers:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def _where(counts: Stats) -> str:
    """Describe the work of each path."""
    places = [
        f"the {name} ({blocks['compressed']:,} blocks compressed, {blocks['decompressed']:,} decompressed)"
        for path, name in path_names(devices()).items()
        if (blocks := counts[path])["compressed"] or blocks["decompressed"]
    ]
    reasons = [f"{blocks:,} blocks that hardware did not do ({name})" for name, blocks in counts["fallback"].items()]
    return ", and ".join(places) + "".join(f"; {reason}" for reason in reasons)


def _prove_gzip(store: Path, data: Maps) -> None:
    """Read a chunk that QPL wrote with Python's gzip module only."""
    chunk, region = next(chunks_of(data))
    key = "/".join(["c", *map(str, chunk)])
    stored = (store / key).read_bytes()
    try:
        found = gzip.decompress(stored)
    except (EOFError, OSError, zlib.error) as error:
        raise DemoError(f"Python's gzip cannot read chunk {chunk} of {store.name}: {error}") from error
    if found != data[region].tobytes():
        raise DemoError(f"Python's gzip reads chunk {chunk} of {store.name} as something else than was written")
    print(
        wrapped(
            f"Any gzip implementation reads it: Python's gzip module turned {store.name}/{key} ({len(stored):,} bytes) "
            f"into the {len(found):,} bytes that were written."
        )
    )


def _by_reference(path: Path, data: xr.Dataset, check: Callable[[], None]) -> None:
    """Read the data by reference from a NetCDF4 file, before and after `enable`, and print the results."""
    size = data.nbytes / MB
    print()
    print(
        wrapped(
            f"The atlas and a float32 field, {size:.1f} MB, in a NetCDF4 file (zlib level {netcdf.LEVEL}, shuffle). "
            "kerchunk lists the places of the chunks in the file, and xarray reads them through zarr."
        ),
        flush=True,
    )

    def read() -> xr.Dataset:
        with _step("NetCDF4: reading", announce):
            return netcdf.read(references)

    def compare(found: xr.Dataset) -> None:
        for name, variable in data.data_vars.items():
            if not np.array_equal(found[name], variable):
                raise DemoError(f"NetCDF4: {name} was not read back as it was written")

    with _progress(1 + 2 * ROUNDS, check) as announce:
        with _step("NetCDF4: writing", announce):
            netcdf.write(path, data, NETCDF_CHUNKS)
            references = netcdf.references(path)
        own, served = in_turns(read, compare, rounds=ROUNDS)

    def row(codecs: str, side: Side) -> list[str]:
        return [codecs, f"{min(side.wall):.2f}", f"{size / min(side.wall):,.0f}", f"{min(side.cpu):.2f}"]

    print()
    _print_table(
        ["chunks are inflated by", "seconds", "MB/s", "CPU seconds"],
        [row("numcodecs", own), row("numcodecs-qpl, after enable()", served)],
    )
    share = min(served.wall) / min(own.wall)
    print(wrapped(f"After numcodecs_qpl.enable(), reading took {share:.2f} times as long, by the best of {ROUNDS}."))
    print("Bit for bit: each time, all values were read as they were written.")
    chunks = sum(len(netcdf.chunk_places(references, str(name))) for name in data.data_vars)
    print(
        wrapped(
            f"Of {chunks:,} chunks, this package inflated {own.blocks:,} before enable(). After it, they were read on "
            f"{_where(served.counts)}."
        )
    )
