"""xarray datasets in zarr stores: with our codec, and with gzip that a process without us reads."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import programs
import pytest
import xarray as xr
import zarr
from zarr.codecs import GzipCodec

import numcodecs_qpl
import numcodecs_qpl.zarr

RNG = np.random.default_rng(9)
DATA = xr.Dataset(
    {
        "t": (("time", "y", "x"), np.cumsum(RNG.integers(-3, 4, (6, 60, 70)), axis=1, dtype="i2"), {"units": "K"}),
        "p": (("y", "x"), RNG.normal(size=(60, 70))),
    },
    coords={"y": np.arange(60.0), "x": np.arange(70.0)},
)
CODECS: dict[str, tuple[Any, Literal[2, 3]]] = {
    "v3": (numcodecs_qpl.zarr.QPL(), 3),
    "v2": (numcodecs_qpl.QPL(), 2),
    "gzip": (GzipCodec(), 3),
}

READ_WITHOUT_US = """
import sys
import numpy as np, xarray as xr

data = xr.open_zarr(sys.argv[1])
np.savez(sys.argv[2], **{str(name): data[name].values for name in data.variables})
"""

# xarray consolidates metadata by default, of which zarr says that format 3 does not have it yet.
pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part:UserWarning")


@pytest.fixture(autouse=True)
def served() -> Iterator[None]:
    """zarr's gzip codec runs on us."""
    numcodecs_qpl.enable(instances=True)
    yield
    numcodecs_qpl.disable()


def compressed() -> int:
    return numcodecs_qpl.stats()["software"]["compressed"]


def encoding(name: str) -> dict[str, Any]:
    return {str(variable): {"compressors": CODECS[name][0]} for variable in DATA.variables}


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("chunks", [{}, {"time": 2, "y": 25}], ids=["whole", "dask"])
@pytest.mark.parametrize("name", CODECS)
def test_a_dataset_is_written_and_read_back_the_same(
    tmp_path: Path, name: str, chunks: dict[str, int], consolidated: bool
) -> None:
    data = DATA.chunk(chunks) if chunks else DATA
    before = compressed()
    data.to_zarr(tmp_path, zarr_format=CODECS[name][1], encoding=encoding(name), consolidated=consolidated)
    # t, p and two coordinates: a chunk each where they are whole, else 3 by 3 of t and 3 of p.
    assert compressed() - before == (9 + 3 + 2 if chunks else 4)
    assert (zarr.open_group(tmp_path, mode="r").metadata.consolidated_metadata is not None) == consolidated
    with xr.open_zarr(tmp_path, consolidated=consolidated) as back:
        xr.testing.assert_identical(back.load(), DATA)


@pytest.mark.parametrize("name", CODECS)
def test_a_dataset_that_was_read_keeps_the_codec_when_it_is_written_again(tmp_path: Path, name: str) -> None:
    codec, zarr_format = CODECS[name]
    DATA.to_zarr(tmp_path / "first", zarr_format=zarr_format, encoding=encoding(name))
    with xr.open_zarr(tmp_path / "first") as first:
        first.to_zarr(tmp_path / "second", zarr_format=zarr_format)
    array: Any = zarr.open_array(tmp_path / "second/t", mode="r")
    assert array.compressors == (codec,)
    assert np.array_equal(array[:], DATA.t)


def test_from_format_3_to_2_the_encoding_has_to_be_dropped(tmp_path: Path) -> None:
    DATA.to_zarr(tmp_path / "first", zarr_format=3, encoding=encoding("v3"))
    with xr.open_zarr(tmp_path / "first") as first:
        with pytest.raises(ValueError, match="format 2"):
            first.to_zarr(tmp_path / "refused", zarr_format=2)
        first.drop_encoding().to_zarr(tmp_path / "second", zarr_format=2, encoding=encoding("v2"))
    with xr.open_zarr(tmp_path / "second") as second:
        xr.testing.assert_identical(second.load(), DATA)


def test_a_process_without_the_package_reads_the_gzip_that_we_served(tmp_path: Path) -> None:
    DATA.chunk({"time": 2, "y": 25}).to_zarr(tmp_path / "store", encoding=encoding("gzip"))
    words = [*programs.python_without_us(tmp_path / "site"), "-c", READ_WITHOUT_US]
    words += [str(tmp_path / "store"), str(tmp_path / "read.npz")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(tmp_path / "read.npz") as read:
        assert set(read) == set(DATA.variables)
        assert all(np.array_equal(read[name], DATA[name]) for name in DATA.variables)
