"""Every route to chunks of gzip and zlib is served after one line, and no longer after `disable`."""

from __future__ import annotations

import json
import operator
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import programs
import pytest
import xarray as xr
from distributed import Client
from routes import COUNT, DATA, READERS, ROUTES, open_array

import numcodecs_qpl

NO_SPECIFICATION = "ignore:Numcodecs codecs are not in the Zarr version 3 specification"
"""A warning of zarr 3.1.6 for every codec whose name begins with numcodecs."""

pytestmark = [pytest.mark.filterwarnings(f"{NO_SPECIFICATION}:UserWarning"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each route, with the array that numcodecs, zarr and h5py wrote."""
    assert numcodecs_qpl.enabled() == ()
    made = {name: tmp_path_factory.mktemp(name) for name in ROUTES}
    for name, route in ROUTES.items():
        route.write(made[name])
    return made


def done() -> int:
    return numcodecs_qpl.stats()["software"]["decompressed"]


# ---- In a process -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ROUTES)
def test_a_route_is_served_by_enable_until_disable(folders: dict[str, Path], name: str, reader: str) -> None:
    def served() -> int:
        before = done()
        assert np.array_equal(READERS[reader](ROUTES[name].open(folders[name])), DATA)
        return done() - before

    assert served() == 0
    with numcodecs_qpl.enable():
        assert served() == COUNT
        numcodecs_qpl.disable()
        assert served() == 0


@pytest.mark.parametrize("name", ["kerchunk", "virtualizarr", "icechunk"])
def test_references_name_the_codecs_of_hdf5_in_a_file_of_theirs(folders: dict[str, Path], name: str) -> None:
    array = open_array(ROUTES[name].open(folders[name]))
    codecs = [repr(codec) for codec in [*array.filters, *array.compressors]]
    assert len(codecs) == 2
    assert re.search(r"Shuffle\(.*elementsize.*2", codecs[0])
    assert re.search(r"Zlib\(.*level.*4", codecs[1])
    assert not [path for path in folders[name].rglob("*") if path.is_file() and path.stat().st_size > 10_000][1:]


READ = """
import json, pathlib, sys
import numcodecs_qpl; numcodecs_qpl.enable()
import numpy as np
import routes

folders = {name: pathlib.Path(folder) for name, folder in json.loads(sys.argv[1]).items()}

def served():
    found = {}
    for name, folder in folders.items():
        for reader, read in routes.READERS.items():
            values = read(routes.ROUTES[name].open(folder))
            assert np.array_equal(values, routes.DATA), (name, reader)
            found[f"{name} {reader}"] = numcodecs_qpl.stats()["software"]["decompressed"]
            numcodecs_qpl.reset_stats()
    return found

before = served()
numcodecs_qpl.disable()
print(json.dumps([before, served()]))
"""


def program_environment() -> dict[str, str]:
    """The environment of programs that import `routes`; icechunk warns of local storage in its log."""
    warnings = f"error,{NO_SPECIFICATION}"
    path = str(Path(__file__).parents[1] / "support")
    return programs.environment(PYTHONWARNINGS=warnings, PYTHONPATH=path, ICECHUNK_LOG="error")


def test_a_program_is_served_by_one_line_until_disable(folders: dict[str, Path]) -> None:
    """Before it imports zarr. The workers below import the module; tests/codec/test_serve.py has zarr's variable."""
    arguments = json.dumps({name: str(folder) for name, folder in folders.items()})
    words = [sys.executable, "-c", READ, arguments]
    printed = subprocess.run(
        words, capture_output=True, text=True, check=True, timeout=120, env=program_environment()
    ).stdout
    counts = {f"{name} {reader}": COUNT for name in ROUTES for reader in READERS}
    assert json.loads(printed) == [counts, dict.fromkeys(counts, 0)]


# ---- In a cluster -----------------------------------------------------------------------------------------------

MODULE = "numcodecs_qpl.enabled"


@contextmanager
def running(*words: str) -> Iterator[None]:
    """A program, which is killed in the end: those of dask take their time to end by themselves."""
    with subprocess.Popen(words, env=program_environment()) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client that is not served itself, of a worker that is."""
    options = ["--dashboard-address", ":0", "--host", "127.0.0.1", "--scheduler-file", str(tmp_path / "scheduler.json")]
    with (
        running("dask", "scheduler", "--port", "0", *options),
        running("dask", "worker", "--nthreads", "1", "--no-nanny", *options, "--preload", MODULE),
        Client(scheduler_file=str(tmp_path / "scheduler.json")) as client,
    ):
        client.wait_for_workers(1, timeout=120)
        yield client


def served_by_the_worker(client: Client, folders: dict[str, Path]) -> dict[str, set[int]]:
    """Chunks that this package inflated for each route: of zarr's array and of xarray's."""
    found: dict[str, set[int]] = {name: set() for name in ROUTES}
    before = done()
    for name, route in ROUTES.items():
        # Neither leaves this process with a codec of ours.
        array = open_array(route.open(folders[name]))
        blocks = xr.open_zarr(route.open(folders[name]), chunks={}, consolidated=False).t.data
        for read in (
            partial(client.submit, operator.getitem, array, slice(None), pure=False),
            partial(client.compute, blocks),
        ):
            client.run(numcodecs_qpl.reset_stats)
            assert np.array_equal(read().result(), DATA)
            (counts,) = client.run(numcodecs_qpl.stats).values()
            found[name].add(counts["software"]["decompressed"])
    assert done() == before
    return found


def test_arrays_of_a_client_that_is_not_served_are_served_in_a_worker_until_disable(
    client: Client, folders: dict[str, Path]
) -> None:
    assert served_by_the_worker(client, folders) == {name: {COUNT} for name in ROUTES}
    client.run(numcodecs_qpl.disable)
    assert served_by_the_worker(client, folders) == {name: {0} for name in ROUTES}


LOCAL_CLUSTER = """
from distributed import Client, LocalCluster
import numcodecs_qpl

if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        cluster.scale(2)
        client.wait_for_workers(2)
        print(numcodecs_qpl.enabled(), *client.run(numcodecs_qpl.enabled).values())
"""


def test_the_variable_serves_the_workers_of_a_local_cluster_the_first_and_a_later_one() -> None:
    served = ("gzip", "zlib")
    printed = programs.run_python(LOCAL_CLUSTER, DASK_DISTRIBUTED__WORKER__PRELOAD=f'["{MODULE}"]').stdout
    assert printed == f"() {served} {served}\n"
