"""Loaders as torch's DataLoader makes them: forked workers that read an array while the parent goes on using it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import zarr
from process import with_threads
from zarr.codecs import GzipCodec
from zarr.core import codec_pipeline
from zarr.storage import ZipStore

import numcodecs_qpl
import numcodecs_qpl.zarr

DATA = np.cumsum(np.random.default_rng(4).integers(-3, 4, (24, 100, 130)), axis=1, dtype="i4")
CODECS: dict[str, Any] = {"QPL": numcodecs_qpl.zarr.QPL(block_size=10_000), "gzip": GzipCodec()}
PIPELINES = [name for name in ("BatchedCodecPipeline", "FusedCodecPipeline") if hasattr(codec_pipeline, name)]
WORKERS = 3

BLOCKS = {"QPL": 8, "gzip": 2}
"""By codec: blocks of a sample, which is two chunks. One thread inflates a chunk in one piece."""
CHUNKS = 2

Array = Any
FORK: Final = multiprocessing.get_context("fork")

pytestmark = [
    # Only a deadlock takes that long.
    pytest.mark.timeout(120),
    # Python 3.12 and later warn of forks while threads run: that these work is the point.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
]


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    with with_threads(request.param):
        yield


@pytest.fixture(params=PIPELINES)
def pipeline(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each codec pipeline that the installed zarr has."""
    with zarr.config.set({"codec_pipeline.path": f"zarr.core.codec_pipeline.{request.param}"}):
        yield


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a codec; gzip is served by us."""
    numcodecs_qpl.enable(instances=True)
    yield request.param
    numcodecs_qpl.disable()


@pytest.fixture
def array(codec: str, tmp_path: Path) -> Array:
    """`DATA` in a store, opened by the parent, which has read it."""
    zarr.create_array(tmp_path, data=DATA, chunks=(1, 60, 130), compressors=CODECS[codec])
    opened = zarr.open_array(tmp_path, mode="r")
    assert np.array_equal(opened[:], DATA)
    return opened


def decompressed() -> int:
    return numcodecs_qpl.stats()["software"]["decompressed"]


def load(array: Array, indices: Any, samples: Any) -> None:
    """Work of a worker until it receives None."""
    while (index := indices.get()) is not None:
        before = decompressed()
        sample = array[index]
        samples.put((index, sample, decompressed() - before))


class Loader:
    """Forked workers that take indices from one queue and put samples into another."""

    def __init__(self, array: Array) -> None:
        self._indices, self._samples = FORK.SimpleQueue(), FORK.SimpleQueue()
        arguments = (array, self._indices, self._samples)
        self._workers = [FORK.Process(target=load, args=arguments, daemon=True) for _ in range(WORKERS)]
        for worker in self._workers:
            worker.start()

    def epoch(self, order: np.ndarray[Any, Any], blocks: int) -> None:
        """Have every sample loaded, and see that it is the right one, of so many blocks that the worker inflated."""
        for index in order:
            self._indices.put(int(index))
        seen = set()
        if numcodecs_qpl.get_threads() == 1:
            blocks = CHUNKS
        for _ in order:
            index, sample, inflated = self._samples.get()
            assert np.array_equal(sample, DATA[index])
            assert inflated == blocks
            seen.add(index)
        assert seen == set(order.tolist())

    def close(self) -> None:
        for _ in self._workers:
            self._indices.put(None)
        for worker in self._workers:
            worker.join()
        assert [worker.exitcode for worker in self._workers] == [0] * WORKERS


@contextmanager
def parent_reads_too(array: Array) -> Iterator[None]:
    """Three threads of the parent read the array meanwhile."""
    stop = threading.Event()

    def read(index: int) -> int:
        count = 0
        while not stop.is_set():
            assert np.array_equal(array[index], DATA[index])
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        reads = [pool.submit(read, index) for index in range(3)]
        try:
            yield
        finally:
            stop.set()
        assert all(result.result() for result in reads)


@pytest.mark.usefixtures("pipeline")
def test_workers_forked_anew_for_each_epoch_load_every_sample_while_the_parent_reads(array: Array, codec: str) -> None:
    rng = np.random.default_rng(0)
    with parent_reads_too(array):
        for _ in range(4):
            loader = Loader(array)
            loader.epoch(rng.permutation(len(DATA)), BLOCKS[codec])
            loader.close()


def test_workers_that_stay_load_every_sample_of_every_epoch_while_the_parent_reads(array: Array, codec: str) -> None:
    rng = np.random.default_rng(0)
    with parent_reads_too(array):
        loader = Loader(array)
        for _ in range(4):
            loader.epoch(rng.permutation(len(DATA)), BLOCKS[codec])
        loader.close()


def test_workers_read_a_zip_store_that_each_opens_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with ZipStore(path, mode="w") as store:
        zarr.create_array(store, data=DATA, chunks=(1, 60, 130), compressors=CODECS["QPL"])

    class Opened:
        """An array that is opened at its first use."""

        def __init__(self) -> None:
            self._array: Any = None

        def __getitem__(self, index: int) -> Any:
            if self._array is None:
                self._array = zarr.open_array(ZipStore(path, mode="r"), mode="r")
            return self._array[index]

    loader = Loader(Opened())
    loader.epoch(np.arange(len(DATA)), BLOCKS["QPL"])
    loader.close()
