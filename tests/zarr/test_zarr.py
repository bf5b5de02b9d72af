"""zarr v2 and v3, in the pipelines that the installed zarr has."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import pytest
import zarr
from programs import run_python
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.core import codec_pipeline
from zarr.core.buffer import default_buffer_prototype

import numcodecs_qpl
from numcodecs_qpl import CorruptDataError
from numcodecs_qpl.containers import ContainerName
from numcodecs_qpl.zarr import QPL

RNG = np.random.default_rng(3)
DATA = np.cumsum(RNG.integers(-3, 4, (120, 130)), axis=1, dtype="i4")
CONFIGS: list[dict[str, Any]] = [
    {},
    {"block_size": 1000},
    {"huffman": "fixed"},
    {"container": "zlib"},
    {"container": "deflate"},
]
READ_WITHOUT_US: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zlib": zlib.decompress,
    "deflate": lambda stored: zlib.decompress(stored, -15),
}

ZARR = tuple(int(part) for part in zarr.__version__.split(".")[:2])
PIPELINES = [name for name in ("BatchedCodecPipeline", "FusedCodecPipeline") if hasattr(codec_pipeline, name)]


@pytest.fixture(params=PIPELINES)
def pipeline(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each codec pipeline that the installed zarr has."""
    with zarr.config.set({"codec_pipeline.path": f"zarr.core.codec_pipeline.{request.param}"}):
        yield request.param


def chunk_files(store: Path) -> list[Path]:
    return sorted(
        file for file in store.rglob("*") if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs")
    )


def test_both_pipelines_are_tested_where_zarr_has_both() -> None:
    assert len(PIPELINES) == (2 if ZARR >= (3, 4) else 1)


# ---- v2 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_v2_array_reads_back_and_so_do_its_chunks_without_us(
    tmp_path: Path, config: dict[str, Any], order: Any
) -> None:
    codec = numcodecs_qpl.QPL(**config)
    zarr.create_array(tmp_path, data=DATA, chunks=(50, 40), compressors=codec, zarr_format=2, order=order)
    array = zarr.open_array(tmp_path, mode="r")
    assert np.array_equal(array[:], DATA)
    assert array.compressors == (codec,)
    assert json.loads((tmp_path / ".zarray").read_text())["compressor"] == codec.get_config()
    stored = READ_WITHOUT_US[codec.container]((tmp_path / "1.2").read_bytes())
    assert np.array_equal(np.frombuffer(stored, "i4").reshape((50, 40), order=order), DATA[50:100, 80:120])


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "<f8", "c16", "?", "M8[s]", "S5"])
def test_a_v2_array_of_any_dtype_reads_back(dtype: str) -> None:
    data = np.frombuffer(RNG.bytes(16 * 1000), "u1").reshape(20, -1)
    typed: npt.NDArray[Any] = (data % 2).astype("?") if dtype == "?" else data.view("u8").astype(dtype)
    array = zarr.create_array({}, data=typed, chunks=(7, 33), compressors=numcodecs_qpl.QPL(), zarr_format=2)
    assert np.array_equal(array[:], typed)


def test_numcodecs_own_gzip_reads_a_v2_store_of_ours_when_the_metadata_names_it(tmp_path: Path) -> None:
    zarr.create_array(tmp_path, data=DATA, chunks=(50, 40), compressors=numcodecs_qpl.QPL(), zarr_format=2)
    metadata = json.loads((tmp_path / ".zarray").read_text())
    metadata["compressor"] = numcodecs.GZip(1).get_config()
    (tmp_path / ".zarray").write_text(json.dumps(metadata))
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)


# ---- v3 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.usefixtures("pipeline")
def test_a_v3_array_reads_back_and_so_do_its_chunks_without_us(tmp_path: Path, config: dict[str, Any]) -> None:
    zarr.create_array(tmp_path, data=DATA, chunks=(50, 40), compressors=QPL(**config))
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)
    read = READ_WITHOUT_US[config.get("container", "gzip")]
    stored = np.frombuffer(read((tmp_path / "c/1/2").read_bytes()), "<i4").reshape(50, 40)
    assert np.array_equal(stored, DATA[50:100, 80:120])


@pytest.mark.usefixtures("pipeline")
def test_a_sharded_array_reads_back_whole_and_in_part(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path, data=DATA, chunks=(10, 10), shards=(60, 50), compressors=QPL())
    assert len(chunk_files(tmp_path)) == 6
    assert np.array_equal(array[:], DATA)
    assert np.array_equal(array[33:71, 47:52], DATA[33:71, 47:52])
    array[5:17, 12] = 7
    assert np.all(zarr.open_array(tmp_path)[5:17, 12] == 7)


@pytest.mark.usefixtures("pipeline")
@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec disables partial reads")
def test_a_shard_as_a_whole_can_be_compressed(tmp_path: Path) -> None:
    inner = ShardingCodec(chunk_shape=(10, 10), codecs=[BytesCodec()])
    zarr.create_array(tmp_path, data=DATA, chunks=(60, 50), serializer=inner, compressors=QPL())
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)


@pytest.mark.usefixtures("pipeline")
def test_parts_are_written_into_chunks_that_are_there() -> None:
    array = zarr.create_array({}, shape=DATA.shape, dtype="i4", chunks=(50, 40), compressors=QPL(), fill_value=-1)
    assert np.all(array[:] == -1)
    array[10:60, 30:50] = DATA[10:60, 30:50]
    assert np.array_equal(array[10:60, 30:50], DATA[10:60, 30:50])
    assert np.all(array[60:] == -1)
    assert array.nchunks_initialized == 4


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0)])
def test_arrays_of_one_or_no_elements_read_back(shape: tuple[int, ...]) -> None:
    array = zarr.create_array({}, data=np.full(shape, 5.5), compressors=QPL())
    assert np.array_equal(array[...], np.full(shape, 5.5))


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("container", ["gzip", "zlib", "deflate"])
def test_a_damaged_chunk_is_an_error_and_not_other_data(tmp_path: Path, container: ContainerName) -> None:
    zarr.create_array(tmp_path, data=DATA, chunks=(50, 40), compressors=QPL(container=container))
    chunk = tmp_path / "c/1/2"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    with pytest.raises(CorruptDataError, match=r"truncated|damaged"):
        zarr.open_array(tmp_path, mode="r")[:]


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize(("zarr_format", "codec"), [(2, numcodecs_qpl.QPL()), (3, QPL())])
def test_many_threads_may_write_and_read_one_array(zarr_format: Any, codec: Any) -> None:
    array = zarr.create_array(
        {}, shape=(64, 1000), dtype="i8", chunks=(4, 1000), compressors=codec, zarr_format=zarr_format
    )

    def fill(row: int) -> bool:
        array[4 * row : 4 * row + 4] = row
        return bool(np.all(array[4 * row : 4 * row + 4] == row))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fill, list(range(16)) * 4))
    assert np.array_equal(array[:, 0], np.repeat(np.arange(16), 4))


def test_a_fresh_process_finds_the_codec_by_its_name(tmp_path: Path) -> None:
    code = """
import sys, numpy as np, zarr
array = zarr.open_array(sys.argv[1], mode="r")
print(type(array.compressors[0]).__module__, int(array[:].sum()))
codec = {"name": "numcodecs_qpl.qpl", "configuration": {"block_size": 1000}}
zarr.create_array(sys.argv[2], data=array[:], chunks=(9, 9), compressors=codec)
"""
    zarr.create_array(tmp_path / "a", data=DATA, chunks=(50, 40), compressors=QPL(block_size=1000))
    assert run_python(code, tmp_path / "a", tmp_path / "b").stdout == f"numcodecs_qpl.zarr {DATA.sum()}\n"
    again = zarr.open_array(tmp_path / "b", mode="r")
    assert again.compressors == (QPL(block_size=1000),)
    assert np.array_equal(again[:], DATA)


def test_a_batch_of_chunks_goes_both_ways_and_what_is_missing_stays_missing() -> None:
    codec = QPL()
    prototype = default_buffer_prototype()
    spec: Any = SimpleNamespace(prototype=prototype)  # the part of zarr's ArraySpec that a bytes codec is for
    chunks = [prototype.buffer.from_bytes(RNG.bytes(n)) for n in (10, 5000)]

    async def there_and_back() -> list[Any]:
        encoded = await codec.encode([(chunks[0], spec), (None, spec), (chunks[1], spec)])
        return list(await codec.decode([(chunk, spec) for chunk in encoded]))

    first, missing, last = asyncio.run(there_and_back())
    assert missing is None
    assert [first.to_bytes(), last.to_bytes()] == [chunk.to_bytes() for chunk in chunks]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_v3_codec_survives_json_and_pickle_and_equals_itself(config: dict[str, Any]) -> None:
    codec = QPL(**config)
    codec._codec.encode(b"x")
    for again in (QPL.from_dict(json.loads(json.dumps(codec.to_dict()))), pickle.loads(pickle.dumps(codec))):
        assert again == codec
        assert hash(again) == hash(codec)
        assert again._codec == codec._codec
    assert codec != QPL(block_size=12345)
    assert codec.to_dict() == {"name": "numcodecs_qpl.qpl", "configuration": _without_id(numcodecs_qpl.QPL(**config))}


def _without_id(codec: numcodecs_qpl.QPL) -> dict[str, Any]:
    return {key: value for key, value in codec.get_config().items() if key != "id"}


def test_a_v3_codec_is_an_immutable_dataclass() -> None:
    codec = QPL(container="zlib", block_size=4096)
    with pytest.raises(dataclasses.FrozenInstanceError, match="container"):
        codec.container = "gzip"  # type: ignore[misc]
    changed = dataclasses.replace(codec, container="deflate")
    assert changed == QPL(container="deflate", block_size=4096)
    assert changed != codec
    assert {codec, QPL(container="zlib", block_size=4096)} == {codec}


def test_a_name_alone_is_the_default_codec_and_another_name_is_refused() -> None:
    assert QPL.from_dict({"name": "numcodecs_qpl.qpl"}) == QPL()
    with pytest.raises(ValueError, match=r"numcodecs_qpl\.qpl"):
        QPL.from_dict({"name": "gzip", "configuration": {}})


def test_a_v3_codec_refuses_what_the_numcodecs_codec_refuses() -> None:
    with pytest.raises(ValueError, match="container is 'zip'; it must be one of"):
        QPL(container="zip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="block_size is 0; it must be 1 to 2147483647"):
        QPL(container="zlib", block_size=0)


def test_without_zarr_the_import_says_what_to_install() -> None:
    code = """
import sys
sys.modules["zarr"] = None
import numcodecs_qpl
try:
    import numcodecs_qpl.zarr
except ImportError as error:
    print(error)
"""
    assert 'pip install "zarr>=3.1.6"' in run_python(code).stdout
