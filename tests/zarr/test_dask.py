"""dask arrays in a cluster of worker processes: written, read, with settings of their own, and killed meanwhile."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import emulated_iaa
import numpy as np
import pytest
import workers
import zarr
from distributed import Client, KilledWorker, LocalCluster
from zarr.codecs import GzipCodec

import numcodecs_qpl
import numcodecs_qpl.zarr

DATA = np.cumsum(np.random.default_rng(3).integers(-3, 4, (240, 260)), axis=1, dtype="i4")
CHUNKS = (60, 65)
CODECS: dict[str, tuple[Any, Literal[2, 3]]] = {
    "v3": (numcodecs_qpl.zarr.QPL(), 3),
    "v2": (numcodecs_qpl.QPL(), 2),
    "gzip": (GzipCodec(), 3),
}

# Whatever hangs here would hang for ever: dask has no time limits of its own for most of it.
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes, with settings as docs/dask.md gives them."""
    environment = {"NUMCODECS_QPL_PATH": "software", "NUMCODECS_QPL_THREADS": "2", "NUMCODECS_QPL_NUMA": "any"}
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=":0", env=environment) as made:
        yield made


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as made:
        made.wait_for_workers(2)
        made.register_worker_callbacks(partial(numcodecs_qpl.enable, instances=True))
        made.run(numcodecs_qpl.reset_stats)
        yield made


def create(folder: Path, name: str) -> zarr.Array[Any]:
    codec, zarr_format = CODECS[name]
    return zarr.create_array(
        folder, shape=DATA.shape, dtype=DATA.dtype, chunks=CHUNKS, compressors=codec, zarr_format=zarr_format
    )


def blocks(client: Client) -> list[dict[str, int]]:
    """Return the counts of each worker on the software path."""
    return [counts["software"] for counts in client.run(numcodecs_qpl.stats).values()]


@pytest.mark.parametrize("name", CODECS)
def test_worker_processes_write_and_read_an_array(client: Client, tmp_path: Path, name: str) -> None:
    da.from_array(DATA, chunks=CHUNKS).to_zarr(create(tmp_path, name))
    assert sum(counts["compressed"] for counts in blocks(client)) == 16
    assert np.array_equal(da.from_zarr(tmp_path).compute(), DATA)
    assert sum(counts["decompressed"] for counts in blocks(client)) == 16
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)
    chunk = (tmp_path / ("1.2" if name == "v2" else "c/1/2")).read_bytes()
    assert gzip.decompress(chunk) == DATA[60:120, 130:195].tobytes()


def test_both_workers_take_part(client: Client, tmp_path: Path) -> None:
    target = create(tmp_path, "v3")
    halves = np.s_[:120, :], np.s_[120:, :]
    addresses = list(client.scheduler_info()["workers"])
    tasks = [
        client.submit(target.__setitem__, half, DATA[half], workers=[address])
        for half, address in zip(halves, addresses, strict=True)
    ]
    client.gather(tasks)
    assert [counts["compressed"] for counts in blocks(client)] == [8, 8]
    assert np.array_equal(target[:], DATA)


def test_a_worker_killed_amid_a_write_costs_neither_a_chunk_nor_its_successor_the_settings(
    client: Client, tmp_path: Path
) -> None:
    source = zarr.create_array(tmp_path / "source", data=DATA, chunks=CHUNKS, compressors=numcodecs_qpl.zarr.QPL())
    target = create(tmp_path / "target", "gzip")
    target[:] = -1  # so that a chunk that is not written again shows
    before = set(client.run(os.getpid).values())
    client.run(numcodecs_qpl.set_numa, "node")
    client.run(workers.die_amid_a_write, tmp_path / "marker")
    (da.from_zarr(source) + 1).to_zarr(target)
    assert (tmp_path / "marker").exists()
    assert np.array_equal(target[:], DATA + 1)
    assert np.array_equal(da.from_zarr(target).compute(), DATA + 1)
    assert list((tmp_path / "target").rglob("*.partial"))  # what was half written lies there under another name

    client.wait_for_workers(2)
    after = client.run(os.getpid)
    assert len(before & set(after.values())) == 1
    for address, found in client.run(workers.settings).items():
        # What `run` did holds for the processes of that moment alone.
        numa = "node" if after[address] in before else "any"
        assert found == workers.Settings("software", 2, numa, True)


def test_where_a_task_is_given_up_every_chunk_is_the_old_or_the_new_one(
    cluster: LocalCluster, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    target = create(tmp_path / "target", "v3")
    target[:] = -1
    client.run(workers.die_amid_a_write, tmp_path / "marker")
    with pytest.raises(KilledWorker):
        da.from_array(DATA, chunks=CHUNKS).to_zarr(target)
    seen = set()
    for row in range(0, 240, 60):
        for column in range(0, 260, 65):
            here = np.s_[row : row + 60, column : column + 65]
            (state,) = [text for text, whole in (("old", -1), ("new", DATA[here])) if np.all(target[here] == whole)]
            seen.add(state)
    assert "old" in seen


def test_a_worker_uses_the_devices_beside_its_parent_which_has_them_open() -> None:
    emulated_iaa.run(
        """
import sys
import dask, dask.array as da, numpy as np, zarr
from distributed import Client, LocalCluster
import numcodecs_qpl
from numcodecs_qpl.zarr import QPL

assert numcodecs_qpl.QPL().encode(b"abc")  # the devices are open in the parent before there are workers
assert numcodecs_qpl.stats()["hardware"]["compressed"] == 1
data = np.cumsum(np.random.default_rng(7).integers(-3, 4, (240, 260)), axis=1, dtype="i4")
for method in "spawn", "forkserver":
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": method}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", env={"NUMCODECS_QPL_PATH": "hardware"}
        ) as cluster,
        Client(cluster) as client,
    ):
        target = zarr.create_array({}, shape=data.shape, dtype="i4", chunks=(60, 65), compressors=QPL())
        def there_and_back():
            target[:] = data
            return np.array_equal(target[:], data)
        assert client.submit(there_and_back).result()
        (counts,) = client.run(numcodecs_qpl.stats).values()
        assert counts["hardware"] == {"compressed": 16, "decompressed": 16}, counts
        assert counts["software"] == {"compressed": 0, "decompressed": 0}, counts
        assert not counts["fallback"], counts
"""
    )


def test_importing_the_package_does_not_import_dask_or_xarray() -> None:
    code = "import sys, numcodecs_qpl, numcodecs_qpl.zarr; print({'dask', 'distributed', 'xarray'} & set(sys.modules))"
    words = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout == "set()\n"
