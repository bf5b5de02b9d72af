"""zarr's own gzip served by us: what does not change, what others wrote and read, where it ends."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import GzipCodec

import numcodecs_qpl
from numcodecs_qpl import CorruptDataError
from numcodecs_qpl.zarr import disable_gzip, enable_gzip

DATA = np.cumsum(np.random.default_rng(6).integers(-3, 4, (120, 130)), axis=1, dtype="i4")


@pytest.fixture
def served() -> Iterator[None]:
    """zarr's gzip codec runs on us."""
    enable_gzip()
    yield
    disable_gzip()


def blocks_done() -> int:
    return numcodecs_qpl.stats()["software"]["compressed"]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("shards", [None, (60, 130)])
def test_what_served_gzip_wrote_is_read_by_plain_zarr_afterwards(tmp_path: Path, shards: Any) -> None:
    before = blocks_done()
    zarr.create_array(tmp_path, data=DATA, chunks=(30, 65), shards=shards, compressors=GzipCodec())
    assert blocks_done() == before + 8
    disable_gzip()
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)
    assert blocks_done() == before + 8


@pytest.mark.usefixtures("served")
def test_pythons_gzip_reads_a_chunk_that_served_gzip_wrote(tmp_path: Path) -> None:
    data = np.arange(300_000, dtype="<i4")
    by_name: Any = {"name": "gzip", "configuration": {"level": 9}}
    zarr.create_array(tmp_path, data=data, chunks=data.shape, compressors=by_name)
    stored = (tmp_path / "c/0").read_bytes()
    assert gzip.decompress(stored) == data.tobytes()
    member = zlib.decompressobj(wbits=31)  # stops at the first member's end
    assert member.decompress(stored) == data.tobytes()
    assert member.eof
    assert member.unused_data == b""


@pytest.mark.usefixtures("served")
def test_served_gzip_reads_several_members_of_another_producer(tmp_path: Path) -> None:
    zarr.create_array(tmp_path, data=DATA, chunks=DATA.shape, compressors=GzipCodec())
    halves = DATA.tobytes()[:30_000], DATA.tobytes()[30_000:]
    (tmp_path / "c/0/0").write_bytes(b"".join(gzip.compress(half) for half in halves))
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)


@pytest.mark.usefixtures("served")
def test_a_damaged_chunk_is_an_error_in_served_gzip(tmp_path: Path) -> None:
    zarr.create_array(tmp_path, data=DATA, chunks=DATA.shape, compressors=GzipCodec())
    chunk = tmp_path / "c/0/0"
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunk.write_bytes(damaged)
    with pytest.raises(CorruptDataError):
        zarr.open_array(tmp_path, mode="r")[:]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("shape", [(), (0,), (1,)])
def test_served_gzip_holds_arrays_of_one_or_no_elements(shape: tuple[int, ...]) -> None:
    array = zarr.create_array({}, data=np.full(shape, 5.5), compressors=GzipCodec())
    assert np.array_equal(array[...], np.full(shape, 5.5))


def test_serving_changes_no_codec_to_look_at() -> None:
    disable_gzip()
    codec = GzipCodec(level=5)
    plain = codec.to_dict(), hash(codec), pickle.dumps(codec)
    enable_gzip()
    try:
        assert (codec.to_dict(), hash(codec), pickle.dumps(codec)) == plain
        assert codec == pickle.loads(plain[2]) == GzipCodec(level=5)
        assert type(codec) is zarr.codecs.GzipCodec
    finally:
        disable_gzip()


def test_disabling_gives_zarr_back_what_it_had(tmp_path: Path) -> None:
    disable_gzip()
    own = vars(GzipCodec)["_gzip_codec"]
    assert isinstance(own, cached_property)
    codec = GzipCodec(level=7)
    for _ in range(2):
        enable_gzip()
        enable_gzip()
        served: Any = codec._gzip_codec
        assert isinstance(served, numcodecs_qpl.QPL)
        disable_gzip()
        disable_gzip()
        assert vars(GzipCodec)["_gzip_codec"] is own
        assert codec._gzip_codec == numcodecs.GZip(7)


def test_threads_that_switch_at_once_leave_zarr_as_it_was() -> None:
    disable_gzip()
    own = vars(GzipCodec)["_gzip_codec"]
    array = zarr.create_array({}, data=DATA, chunks=(30, 65), compressors=GzipCodec())

    def switch_and_read(turn: int) -> bool:
        (enable_gzip if turn % 2 else disable_gzip)()
        return np.array_equal(array[:], DATA)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(switch_and_read, range(100)))
    disable_gzip()
    assert vars(GzipCodec)["_gzip_codec"] is own


@pytest.mark.usefixtures("served")
def test_another_process_is_not_served_until_it_asks() -> None:
    code = "import sys; from zarr.codecs import GzipCodec; print(type(GzipCodec()._gzip_codec).__name__)"
    words = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout == "GZip\n"


@pytest.mark.usefixtures("served")
def test_the_gzip_of_format_2_stays_numcodecs_own() -> None:
    before = blocks_done()
    array = zarr.create_array({}, data=DATA, chunks=DATA.shape, compressors=numcodecs.GZip(1), zarr_format=2)
    assert np.array_equal(array[:], DATA)
    assert blocks_done() == before


@pytest.mark.usefixtures("served")
def test_served_gzip_refuses_a_chunk_of_2_gib() -> None:
    chunk = np.zeros(2**31, "u1")  # never touched, so no memory is behind it
    served: Any = GzipCodec()._gzip_codec
    with pytest.raises(ValueError, match="2147483647"):
        served.encode(chunk)


def test_no_entry_point_takes_the_name_of_zarrs_gzip() -> None:
    ours = [point for point in entry_points(group="zarr.codecs") if point.value.startswith("numcodecs_qpl")]
    assert [point.name for point in ours] == ["numcodecs.qpl"]
