"""The zarr v3 codec: what a frozen codec owes, the async interface, damage and gaps, other processes."""

from __future__ import annotations

import asyncio
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import zarr
from zarr.core import codec_pipeline
from zarr.storage import LocalStore

import numcodecs_qpl
from numcodecs_qpl import CorruptDataError
from numcodecs_qpl.containers import ContainerName
from numcodecs_qpl.zarr import QPL

DATA = np.cumsum(np.random.default_rng(5).integers(-3, 4, (120, 130)), axis=1, dtype="i4")
PIPELINES = [name for name in ("BatchedCodecPipeline", "FusedCodecPipeline") if hasattr(codec_pipeline, name)]


@pytest.fixture(params=PIPELINES)
def pipeline(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each codec pipeline that the installed zarr has."""
    with zarr.config.set({"codec_pipeline.path": f"zarr.core.codec_pipeline.{request.param}"}):
        yield request.param


def test_the_pipeline_that_is_asked_for_is_the_one_that_runs(pipeline: str) -> None:
    array = zarr.create_array({}, data=DATA, chunks=(50, 40), compressors=QPL())
    assert type(array.async_array.codec_pipeline).__name__ == pipeline
    assert np.array_equal(array[:], DATA)


def test_importing_the_package_does_not_import_zarr() -> None:
    code = "import sys, numcodecs_qpl; print('zarr' in sys.modules)"
    words = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout == "False\n"


def test_the_encoded_size_is_not_to_be_known_beforehand() -> None:
    spec: Any = None
    assert not QPL.is_fixed_size
    with pytest.raises(NotImplementedError):
        QPL().compute_encoded_size(100, spec)


def test_equal_codecs_are_one_key_and_others_are_not() -> None:
    assert len({QPL(), QPL(block_size=65536), QPL(block_size=3), QPL(container="zlib")}) == 3


def test_the_reprs_of_the_two_codecs_tell_them_apart_and_make_them_again() -> None:
    for codec, name in (
        (QPL(container="zlib"), "numcodecs_qpl.zarr.QPL"),
        (numcodecs_qpl.QPL("zlib"), "numcodecs_qpl.QPL"),
    ):
        assert repr(codec) == f"{name}(container='zlib', block_size=65536, huffman='dynamic')"
        assert eval(repr(codec), {"numcodecs_qpl": numcodecs_qpl}) == codec


@pytest.mark.parametrize(
    ("codec", "zarr_format", "name"),
    [(numcodecs_qpl.QPL(), 3, "numcodecs_qpl.QPL"), (QPL(), 2, "numcodecs_qpl.zarr.QPL")],
)
def test_zarrs_error_about_a_codec_for_the_other_format_has_its_public_name(
    codec: Any, zarr_format: Any, name: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"Got <class '{re.escape(name)}'> instead\."):
        zarr.create_array({}, data=DATA, compressors=[codec], zarr_format=zarr_format)


@pytest.mark.parametrize(("codec", "zarr_format"), [(numcodecs_qpl.QPL(), 2), (QPL(), 3)], ids=["v2", "v3"])
def test_zarrs_error_without_the_package_is_in_the_troubleshooting(
    tmp_path: Path, codec: Any, zarr_format: Any
) -> None:
    store = tmp_path / "store"
    zarr.create_array(store, data=DATA, compressors=codec, zarr_format=zarr_format)
    code = """
import sys, zarr
try:
    zarr.open_array(sys.argv[1])
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
    words = [*programs.python_without_us(tmp_path / "site"), "-c", code, str(store)]
    error = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    page = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text()
    name, _, text = error.partition(": ")
    assert name == "UnknownCodecError"
    assert text.partition(" Register")[0].strip() in page


def test_unknown_configuration_in_the_metadata_is_refused() -> None:
    with pytest.raises(TypeError, match="window"):
        QPL.from_dict({"name": "numcodecs_qpl.qpl", "configuration": {"window": 12}})


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("sharded", [False, True])
def test_a_missing_v3_chunk_reads_as_the_fill_value(tmp_path: Path, sharded: bool) -> None:
    shards = (100, 80) if sharded else None
    zarr.create_array(tmp_path, data=DATA, chunks=(50, 40), shards=shards, compressors=QPL(), fill_value=-9)
    (tmp_path / "c/1/1").unlink()
    expected = DATA.copy()
    expected[(slice(100, 120), slice(80, 130)) if sharded else (slice(50, 100), slice(40, 80))] = -9
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], expected)


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("container", ["gzip", "zlib"])
def test_no_flipped_bit_in_a_v3_chunk_gives_other_data(tmp_path: Path, container: ContainerName) -> None:
    data = DATA[:20, :20]
    zarr.create_array(tmp_path, data=data, chunks=data.shape, compressors=QPL(container=container))
    chunk = tmp_path / "c/0/0"
    whole = chunk.read_bytes()
    noticed = 0
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        chunk.write_bytes(damaged)
        try:
            read = zarr.open_array(tmp_path, mode="r")[:]
        except ValueError:  # of CorruptDataError, or of zarr where the size is another
            noticed += 1
        else:
            assert np.array_equal(read, data)  # an idle header byte: time, system
    assert noticed > len(whole) // 7 * 0.9


@pytest.mark.usefixtures("pipeline")
def test_a_damaged_chunk_in_a_shard_is_an_error_and_its_neighbours_read(tmp_path: Path) -> None:
    zarr.create_array(tmp_path, data=DATA[:100, :80], chunks=(50, 40), shards=(100, 80), compressors=QPL())
    shard = tmp_path / "c/0/0"
    damaged = bytearray(shard.read_bytes())
    damaged[100] ^= 255  # in the first chunk's stream
    shard.write_bytes(damaged)
    array = zarr.open_array(tmp_path, mode="r")
    assert np.array_equal(array[50:100, 40:80], DATA[50:100, 40:80])
    with pytest.raises(CorruptDataError):
        array[:50, :40]


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("block_size", [1, 2**31 - 1])
def test_a_v3_array_reads_back_whatever_the_block_size(block_size: int) -> None:
    data = DATA[:20, :30]
    array = zarr.create_array({}, data=data, chunks=(10, 10), compressors=QPL(block_size=block_size))
    assert np.array_equal(array[:], data)


@pytest.mark.usefixtures("pipeline")
def test_writes_and_reads_may_run_side_by_side_in_one_event_loop(tmp_path: Path) -> None:
    async def fill_and_read() -> list[Any]:
        array = await zarr.api.asynchronous.create_array(
            LocalStore(tmp_path), shape=DATA.shape, dtype="i4", chunks=(10, 130), compressors=QPL()
        )
        rows = [slice(start, start + 10) for start in range(0, 120, 10)]
        await asyncio.gather(*(array.setitem(row, DATA[row]) for row in rows))
        return list(await asyncio.gather(*(array.getitem(row) for row in rows)))

    assert np.array_equal(np.concatenate(asyncio.run(fill_and_read())), DATA)


def test_an_array_pickles_with_its_codec(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path, data=DATA, chunks=(50, 40), compressors=QPL(huffman="fixed"))
    again = pickle.loads(pickle.dumps(array))
    assert again.compressors == (QPL(huffman="fixed"),)
    assert np.array_equal(again[:], DATA)


def test_a_spawned_worker_reads_the_array_it_is_sent(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path, data=DATA, chunks=(50, 40), compressors=QPL())
    code = "import pickle, sys; print(int(pickle.load(sys.stdin.buffer)[:].sum()))"
    words = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(words, input=pickle.dumps(array), capture_output=True, check=True, timeout=120)
    assert int(done.stdout) == DATA.sum()
