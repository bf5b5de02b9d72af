"""dask with one worker process and with two: an array written to a zarr store and read from it, by codec.

Two clusters, whose workers have one thread each, and the codecs take turns, round after round; the medians of the
rounds are compared. The data is in the workers' memory before a write, and stays there after a read, so that what is
timed is the codec, zarr, dask's scheduling and the file system. Everything runs on the software path.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import dask.array as da
import numpy as np
import zarr
from cases import MIB, chunk
from distributed import Client, LocalCluster
from goals import machine
from report import markdown
from timing import seconds_of
from zarr.codecs import GzipCodec, ZstdCodec

import numcodecs_qpl
from numcodecs_qpl.zarr import QPL

SIZE = 128 * MIB
CHUNK = 4 * MIB
DTYPES = {"float32 field": "<f4", "int16 field": "<i2"}
PROCESSES = (1, 2)
CODECS: dict[str, Any] = {
    "QPL()": QPL(),
    "GzipCodec(level=1), served": GzipCodec(level=1),
    "GzipCodec(level=1)": GzipCodec(level=1),
    "ZstdCodec(level=1)": ZstdCodec(level=1),
}

Operation = Literal["write", "read"]


class Case(NamedTuple):
    """Work to time."""

    codec: str
    processes: int
    operation: Operation


def first_of(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The first element: all that leaves the worker of a chunk that it has read."""
    return block[:1]


def in_workers(values: np.ndarray[Any, Any], step: int, client: Client) -> da.Array:
    """An array in chunks of `step` elements, which the workers have in equal parts."""
    parts = client.scatter([values[start : start + step] for start in range(0, len(values), step)])
    array: da.Array = da.concatenate([da.from_delayed(part, (step,), values.dtype) for part in parts])
    return array


def timed(case: Case, client: Client, held: da.Array, store: Path) -> float:
    """Seconds that a case takes."""
    serve = partial(numcodecs_qpl.enable, instances=True)
    client.run(serve if case.codec.endswith("served") else numcodecs_qpl.disable)
    array: Any = zarr.open_array(store, mode="r+")
    if case.operation == "write":
        work = da.store(held, array, lock=False, compute=False)
    else:
        work = da.from_zarr(array).map_blocks(first_of, chunks=(1,), dtype=array.dtype)
    return seconds_of(lambda: client.compute(work).result())


def measure(data_set: str, clients: dict[int, Client], folder: Path, rounds: int) -> tuple[dict[Case, float], Any]:
    """By case: the median of its seconds; and by codec: the ratio."""
    values = np.frombuffer(chunk(data_set, SIZE), DTYPES[data_set])
    chunks = (CHUNK // values.itemsize,)
    held = {count: in_workers(values, chunks[0], client) for count, client in clients.items()}
    ratios = {}
    stores = {}
    for name, codec in CODECS.items():
        stores[name] = folder / f"{data_set} {name}.zarr"
        array = zarr.create_array(
            stores[name], shape=values.shape, dtype=values.dtype, chunks=chunks, compressors=codec
        )
        for count, client in clients.items():
            timed(Case(name, count, "write"), client, held[count], stores[name])
            if not np.array_equal(np.asarray(array[:]), values):
                raise RuntimeError(f"{name}, written by {count} processes, does not give back what was written")
        ratios[name] = SIZE / array.nbytes_stored()
    seconds: dict[Case, list[float]] = defaultdict(list)
    order = [(name, count) for name in CODECS for count in PROCESSES]
    for _ in range(rounds):
        for name, count in order:
            for operation in ("write", "read"):
                case = Case(name, count, operation)
                seconds[case].append(timed(case, clients[count], held[count], stores[name]))
        order.append(order.pop(0))
    return {case: median(times) for case, times in seconds.items()}, ratios


def table(medians: dict[Case, float], ratios: dict[str, float]) -> str:
    """Speeds with one process and with two, how many times as fast two are, and how many times zarr's gzip."""
    rows = []
    for name in CODECS:
        cells = [name, f"{ratios[name]:.2f}"]
        for operation in ("write", "read"):
            one, two = (medians[Case(name, count, operation)] for count in PROCESSES)
            own = medians[Case("GzipCodec(level=1)", 2, operation)]
            cells += [f"{SIZE / one / 1e6:.0f}", f"{SIZE / two / 1e6:.0f}", f"{one / two:.2f}", f"{own / two:.2f}"]
        rows.append(cells)
    columns = ("{}, 1", "{}, 2", "2 against 1", "against gzip")
    head = ["", "ratio", *(column.format(operation) for operation in ("write", "read") for column in columns)]
    return markdown(head, rows)


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of which the median is taken (default: 9)")
    options = parser.parse_args()
    environment = {"NUMCODECS_QPL_PATH": "software"}
    numcodecs_qpl.set_path("software")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clients = {}
        for count in PROCESSES:
            cluster = LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0", env=environment)
            clients[count] = stack.enter_context(Client(stack.enter_context(cluster)))
        print(f"Machine: {machine()}. Load before: {os.getloadavg()[0]:.1f}.")
        for data_set in DTYPES:
            print(f"\n{data_set}:\n\n{table(*measure(data_set, clients, folder, options.rounds))}", end="", flush=True)
        print(f"\nLoad after: {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
