"""zarr on the emulated IAA: every block of ours on it, and stores that the software path reads and writes too."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import emulated_iaa
import numpy as np
import pytest
import zarr
from zarr.codecs import GzipCodec

import numcodecs_qpl
import numcodecs_qpl.zarr

PREAMBLE = """
import json, sys
import numcodecs_qpl, numpy as np, zarr
import numcodecs_qpl.zarr
from zarr.codecs import GzipCodec

numcodecs_qpl.set_path("hardware")
store = sys.argv[1]
data = np.cumsum(np.random.default_rng(7).integers(-3, 4, (240, 260)), axis=1, dtype="i4")

def blocks():
    return list(numcodecs_qpl.stats()["hardware"].values())

def assert_hardware_alone(streams=0):
    # Software inflated so many streams without an index of ours.
    seen = numcodecs_qpl.stats()
    assert seen["software"] == {"compressed": 0, "decompressed": streams}, seen
    assert not seen["fallback"], seen
"""
DATA = np.cumsum(np.random.default_rng(7).integers(-3, 4, (240, 260)), axis=1, dtype="i4")
CHUNKS = (100, 130)
CONFIGS: list[tuple[dict[str, Any], int]] = [
    ({}, 6),  # blocks: one of each of the 6 chunks, of 52,000 bytes
    ({"block_size": 4096}, 6 * 13),
    ({"huffman": "fixed"}, 6),
    ({"container": "zlib"}, 6),
    ({"container": "zlib", "block_size": 4096}, 6 * 13),
]
READ_WITHOUT_US: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "zlib": zlib.decompress}


@pytest.fixture(autouse=True)
def software() -> Iterator[None]:
    """In this process nothing runs on hardware."""
    before = numcodecs_qpl.get_path()
    numcodecs_qpl.set_path("software")
    yield
    numcodecs_qpl.set_path(before)


def on_hardware(script: str, store: Path, *arguments: str) -> None:
    emulated_iaa.run(PREAMBLE + script, str(store), *arguments, size=8)


def chunk(store: Path, zarr_format: int) -> bytes:
    """The one in the middle of the first row."""
    return (store / ("c/0/1" if zarr_format == 3 else "0.1")).read_bytes()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_all_blocks_are_done_on_it_and_read_back_there_in_software_and_without_us(
    tmp_path: Path, zarr_format: Literal[2, 3]
) -> None:
    codec: Any = {2: numcodecs_qpl.QPL, 3: numcodecs_qpl.zarr.QPL}[zarr_format]
    for number, (config, _) in enumerate(CONFIGS):
        zarr.create_array(
            tmp_path / f"software-{number}",
            data=DATA,
            chunks=CHUNKS,
            compressors=codec(**config),
            zarr_format=zarr_format,
        )
    on_hardware(
        f"""
codec = {{2: numcodecs_qpl.QPL, 3: numcodecs_qpl.zarr.QPL}}[{zarr_format}]
for number, (config, expected) in enumerate(json.loads(sys.argv[2])):
    numcodecs_qpl.reset_stats()
    name = f"{{store}}/hardware-{{number}}"
    zarr.create_array(name, data=data, chunks={CHUNKS}, compressors=codec(**config), zarr_format={zarr_format})
    assert blocks() == [expected, 0], config
    assert_hardware_alone()
    streams = 6 if config.get("container") == "zlib" else 0
    for name in (name, f"{{store}}/software-{{number}}"):
        numcodecs_qpl.reset_stats()
        assert np.array_equal(zarr.open_array(name, mode="r")[:], data), (name, config)
        assert blocks() == [0, 0 if streams else expected], (name, config)
        assert_hardware_alone(streams)
""",
        tmp_path,
        json.dumps(CONFIGS),
    )
    for number, (config, _) in enumerate(CONFIGS):
        store = tmp_path / f"hardware-{number}"
        assert np.array_equal(zarr.open_array(store, mode="r")[:], DATA)
        stored = READ_WITHOUT_US[config.get("container", "gzip")](chunk(store, zarr_format))
        assert np.array_equal(np.frombuffer(stored, "i4").reshape(CHUNKS), DATA[:100, 130:])


def test_a_sharded_array_is_written_and_read_on_it(tmp_path: Path) -> None:
    on_hardware(
        """
array = zarr.create_array(store, data=data, chunks=(40, 26), shards=(120, 130), compressors=numcodecs_qpl.zarr.QPL())
assert blocks() == [60, 0]
assert np.array_equal(array[:], data)
assert blocks() == [60, 60]
assert_hardware_alone()
""",
        tmp_path,
    )
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)


def test_served_gzip_is_written_and_read_on_it_and_read_by_plain_zarr(tmp_path: Path) -> None:
    on_hardware(
        f"""
numcodecs_qpl.enable(instances=True)
zarr.create_array(store, data=data, chunks={CHUNKS}, compressors=GzipCodec(level=7))
assert blocks() == [6, 0]
assert np.array_equal(zarr.open_array(store, mode="r")[:], data)
assert blocks() == [6, 6]
assert_hardware_alone()
""",
        tmp_path,
    )
    stored = chunk(tmp_path, 3)
    member = zlib.decompressobj(wbits=31)
    assert np.array_equal(np.frombuffer(member.decompress(stored), "i4").reshape(CHUNKS), DATA[:100, 130:])
    assert (member.eof, member.unused_data) == (True, b"")
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)  # zarr's own codec


def test_served_gzip_on_it_reads_what_served_gzip_wrote_in_software(tmp_path: Path) -> None:
    numcodecs_qpl.enable(instances=True)
    try:
        zarr.create_array(tmp_path, data=DATA, chunks=CHUNKS, compressors=GzipCodec())
    finally:
        numcodecs_qpl.disable()
    on_hardware(
        """
numcodecs_qpl.enable(instances=True)
assert np.array_equal(zarr.open_array(store, mode="r")[:], data)
assert blocks() == [0, 0]  # software writes no index
assert_hardware_alone(streams=6)
""",
        tmp_path,
    )


def test_where_a_device_fails_an_array_is_not_written_in_software_instead(tmp_path: Path) -> None:
    on_hardware(
        """
from emulated_iaa import Device, Fate

device = Device()
assert numcodecs_qpl._core.hardware_init_status() == 0
array = zarr.create_array(store, shape=data.shape, dtype="i4", chunks=data.shape, compressors=numcodecs_qpl.zarr.QPL())
device.vanish(0, 0, Fate.FAILING)
try:
    array[:] = data
except numcodecs_qpl.QplError as error:
    assert error.name == "QPL_STS_INTL_INVALID_UR_CA_RESPONSE"
else:
    raise AssertionError("no error")
device.vanish(0, 0, Fate.SERVED)
array[:] = data
assert np.array_equal(array[:], data)
assert_hardware_alone()
""",
        tmp_path,
    )
    assert np.array_equal(zarr.open_array(tmp_path, mode="r")[:], DATA)
