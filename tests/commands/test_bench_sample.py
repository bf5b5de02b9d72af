"""The chunks that the bench takes from files and zarr stores, and what it says where there are none to take."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import pytest
import zarr
from zarr.abc.codec import ArrayBytesCodec
from zarr.codecs import BytesCodec, GzipCodec, TransposeCodec
from zarr.registry import register_codec

from numcodecs_qpl.bench.contenders import contenders
from numcodecs_qpl.bench.data import DATA_SETS
from numcodecs_qpl.bench.errors import BenchError
from numcodecs_qpl.bench.sample import MOST, SMALL, Chunk, as_items, made_here, of_file, size_text, spread
from numcodecs_qpl.bench.store import of_store


def values(count: int, dtype: str = "<i4") -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(1, 1000, count).astype(dtype)


def joined(chunks: list[Chunk]) -> bytes:
    return b"".join(chunk.tobytes() for chunk in chunks)


def create(path: Path, data: npt.NDArray[Any], chunks: tuple[int, ...], **more: Any) -> zarr.Array[Any]:
    array = zarr.create_array(path, data=data, chunks=chunks, **more)
    assert isinstance(array, zarr.Array)
    return array


# ---- Spreading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10, 97, 1000, 4096])
def test_every_index_comes_once(count: int) -> None:
    assert sorted(spread(count)) == list(range(count))


@pytest.mark.parametrize("taken", [2, 5, 16, 100])
def test_every_beginning_is_spread_evenly(taken: int) -> None:
    chosen = sorted(itertools.islice(spread(10_000), taken))
    gaps = np.diff([*chosen, chosen[0] + 10_000])
    assert gaps.max() < 2 * 10_000 / taken
    assert gaps.min() > 0.3 * 10_000 / taken


def test_a_beginning_is_not_in_step_with_the_rows_of_a_grid() -> None:
    chosen = list(itertools.islice(spread(96), 14))
    assert {index % 8 for index in chosen} == set(range(8))


@pytest.mark.parametrize(("size", "text"), [(1, "1 byte"), (5, "5 bytes"), (1024, "1 KiB"), (1536 << 10, "1.5 MiB")])
def test_sizes_are_told_as_people_say_them(size: int, text: str) -> None:
    assert size_text(size) == text


# ---- Built-in data ------------------------------------------------------------------------------


def test_the_built_in_sets_are_numbers_and_text_in_chunks() -> None:
    samples = made_here(3000, 1000)
    assert [sample.name for sample in samples] == [f"{name} (made here)" for name in DATA_SETS]
    assert [sample.chunks[0].dtype.str for sample in samples] == ["<f4", "<i2", "|u1"]
    for sample, make in zip(samples, DATA_SETS.values(), strict=True):
        assert joined(sample.chunks) == make(3000)
        assert [chunk.nbytes for chunk in sample.chunks] == [1000] * 3


def test_a_chunk_size_that_is_no_multiple_of_the_numbers_gives_bytes() -> None:
    assert made_here(1001, 1001)[0].chunks[0].dtype == np.dtype("u1")


# ---- Files --------------------------------------------------------------------------------------


def test_a_small_file_is_taken_whole(tmp_path: Path) -> None:
    data = os.urandom(2500)
    (tmp_path / "file").write_bytes(data)
    sample = of_file(tmp_path / "file", 10_000, 1000)
    assert [chunk.nbytes for chunk in sample.chunks] == [1000, 1000, 500]
    assert joined(sample.chunks) == data
    assert str(sample) == "file: all of it, 2.5 kB, in chunks of up to 1000 bytes"


def test_of_a_large_file_evenly_spread_pieces_are_taken_and_that_is_told(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    (tmp_path / "file").write_bytes(data)
    sample = of_file(tmp_path / "file", 200_000, 1000)
    places = [data.index(chunk.tobytes()) for chunk in sample.chunks]
    assert len(places) == 200
    assert places == sorted(places)
    assert max(np.diff(places)) <= 10_000
    assert str(sample) == (
        "file: 200 of 1,000 chunks, spread evenly: 200.0 kB of 1.0 MB, in chunks of up to 1000 bytes"
    )


def test_of_an_npy_file_the_numbers_are_taken(tmp_path: Path) -> None:
    data = values(1000, "<i4").reshape(10, 100)
    np.save(tmp_path / "data.npy", data)
    sample = of_file(tmp_path / "data.npy", 10_000, 1002)
    assert [chunk.nbytes for chunk in sample.chunks] == [1000] * 4
    assert sample.chunks[0].dtype == data.dtype
    assert joined(sample.chunks) == data.tobytes()


def test_an_npy_file_in_fortrans_order_is_taken_as_it_lies(tmp_path: Path) -> None:
    data = np.asfortranarray(values(400_000).reshape(1000, 400))
    np.save(tmp_path / "data.npy", data)
    assert joined(of_file(tmp_path / "data.npy", MOST, 1 << 20).chunks) == data.tobytes("F")


@pytest.mark.parametrize(
    ("dtype", "items"),
    [("<f8", "<f8"), (">f4", ">f4"), ("<c16", "<c16"), ("?", "|b1"), ("M8[s]", "<i8"), ("<U3", "<u4"), ("S5", "|u1")],
)
def test_every_dtype_becomes_numbers_of_its_item_size(dtype: str, items: str) -> None:
    data = values(12, "<i4").astype(dtype) if dtype != "M8[s]" else values(12, "<i8").view(dtype)
    found = as_items(data.reshape(3, 4))
    assert found.dtype == np.dtype(items)
    assert found.tobytes() == data.tobytes()


def test_records_become_bytes() -> None:
    data = np.zeros(7, [("a", "<i4"), ("b", "<f8")])
    assert as_items(data).dtype == np.dtype("u1")
    assert as_items(data).nbytes == data.nbytes


@pytest.mark.parametrize(
    ("name", "content", "command"),
    [
        ("data.csv.gz", gzip.compress(b"a", mtime=0), "gzip -dc {}/data.csv.gz > {}/data.csv"),
        ("data", gzip.compress(b"a", mtime=0), "gzip -dc {}/data > {}/data.content"),
        ("data.zst", numcodecs.Zstd().encode(b"a"), "zstd -dc {}/data.zst > {}/data"),
        ("data.xz", lzma.compress(b"a"), "xz -dc {}/data.xz > {}/data"),
        ("data.bz2", bz2.compress(b"a"), "bzip2 -dc {}/data.bz2 > {}/data"),
        ("data.lz4", b"\x04\x22\x4d\x18", "lz4 -dc {}/data.lz4 > {}/data"),
        ("data.npz", b"PK\x03\x04", "unzip {}/data.npz"),
        ("data.7z", b"7z\xbc\xaf\x27\x1c", "7z x {}/data.7z"),
    ],
)
def test_a_compressed_file_is_refused_with_the_command_that_decompresses_it(
    tmp_path: Path, name: str, content: bytes, command: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BenchError, match="is compressed already, with ") as caught:
        of_file(tmp_path / name, 1000, 1000)
    assert str(caught.value).endswith(f"decompress it, and measure the result: `{command.format(tmp_path, tmp_path)}`")


def test_the_command_that_decompresses_a_file_quotes_its_name(tmp_path: Path) -> None:
    (tmp_path / "my data.gz").write_bytes(gzip.compress(bytes(1000)))
    with pytest.raises(BenchError) as caught:
        of_file(tmp_path / "my data.gz", 1000, 1000)
    command = str(caught.value).split("`")[1]
    subprocess.run(command, shell=True, check=True)
    assert (tmp_path / "my data").read_bytes() == bytes(1000)


@pytest.mark.parametrize("beginning", [b"P", b"\x1f\x8b\x07", b"BZ"])
def test_a_file_that_begins_like_a_compressed_one_is_measured(tmp_path: Path, beginning: bytes) -> None:
    (tmp_path / "file").write_bytes(beginning + bytes(SMALL))
    assert of_file(tmp_path / "file", 1000, 1000).notes == ()


def test_an_array_whose_values_look_like_a_compressed_file_is_measured(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.frombuffer(gzip.compress(os.urandom(SMALL)), "u1"))
    assert of_file(tmp_path / "data.npy", 1000, 1000).notes == ()


def test_an_hdf5_file_is_measured_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "file.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(SMALL))
    (note,) = of_file(tmp_path / "file.nc", 1000, 1000).notes
    assert note.startswith("This file is HDF5 (as netCDF 4 is), and may be compressed inside.")


@pytest.mark.parametrize(("size", "notes"), [(SMALL - 1, 1), (SMALL, 0)])
def test_little_data_is_measured_with_a_note(tmp_path: Path, size: int, notes: int) -> None:
    (tmp_path / "file").write_bytes(bytes(size))
    found = of_file(tmp_path / "file", 1000, 1000).notes
    assert [note.partition(":")[0] for note in found] == ["This is little data"] * notes


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match=r"the file .*/file is empty: give one with data"):
        of_file(tmp_path / "file", 1000, 1000)


def test_an_empty_array_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros((3, 0)))
    with pytest.raises(BenchError, match=r"the array .*/data.npy is empty"):
        of_file(tmp_path / "data.npy", 1000, 1000)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r".*/missing does not exist: give a file, or the folder of a zarr store"):
        of_file(tmp_path / "missing", 1000, 1000)


def test_a_device_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"/dev/null is neither a file nor a folder"):
        of_file(Path("/dev/null"), 1000, 1000)


HEADER = b"\x93NUMPY\x01\x00"
with io.BytesIO() as file_in_memory:
    np.lib.format.write_array(file_in_memory, values(10), (2, 0))
    GOOD = file_in_memory.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        HEADER,
        HEADER + b"\x08\x00{'shape'",
        b"\x93NUMPY\x09\x09" + bytes(200),
        b"\x93NUMPY\x02\x01" + GOOD[8:],
    ],
)
def test_a_file_that_is_called_npy_and_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.npy").write_bytes(content)
    with pytest.raises(BenchError) as caught:
        of_file(tmp_path / "data.npy", 1000, 1000)
    assert str(caught.value) == (
        f"{tmp_path}/data.npy is not a .npy file, or its header is damaged. To measure its bytes, rename it"
    )


def test_an_npy_file_of_objects_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.array([1, "a"], object), allow_pickle=True)
    with pytest.raises(BenchError, match=r"data.npy holds Python objects. Save it with a dtype of numbers: array.ast"):
        of_file(tmp_path / "data.npy", 1000, 1000)


def test_a_truncated_npy_file_is_told_with_both_sizes(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", values(1000, "<f8"))
    with (tmp_path / "data.npy").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(
        BenchError, match=r"is truncated: its array has 8,000 bytes, and 4,872 are there. Save it again"
    ):
        of_file(tmp_path / "data.npy", 1000, 1000)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_an_npy_file_of_any_version_is_measured(tmp_path: Path, version: tuple[int, int]) -> None:
    data = values(1000)
    with (tmp_path / "data.npy").open("wb") as file:
        np.lib.format.write_array(file, data, version)
    assert joined(of_file(tmp_path / "data.npy", 10_000, 1000).chunks) == data.tobytes()


@pytest.mark.parametrize("dtype", ["V3000000", "S3000000", "U700000"])
def test_items_larger_than_a_chunk_are_cut(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "data.npy", np.zeros(2, dtype))
    sample = of_file(tmp_path / "data.npy", 1 << 20, 1 << 18)
    assert {chunk.nbytes for chunk in sample.chunks} == {1 << 18}
    assert sample.total_bytes == 2 * np.dtype(dtype).itemsize


def test_a_name_that_is_no_text_and_a_path_without_a_name_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    path.write_bytes(b"data")
    assert of_file(path, 10, 10).name == "caf\N{REPLACEMENT CHARACTER}"
    create(tmp_path / "a.zarr", values(8), (4,))
    monkeypatch.chdir(tmp_path / "a.zarr")
    assert of_store(Path(), 1000).name == "a.zarr"


# ---- zarr stores --------------------------------------------------------------------------------


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("compressors", [None, "auto"])
def test_of_an_array_its_chunks_are_taken_decoded(tmp_path: Path, zarr_format: Any, compressors: Any) -> None:
    data = values(64).reshape(8, 8)
    create(tmp_path / "a.zarr", data, (4, 8), zarr_format=zarr_format, compressors=compressors)
    sample = of_store(tmp_path / "a.zarr", 10_000)
    assert joined(sample.chunks) == data.tobytes()
    assert [chunk.size for chunk in sample.chunks] == [32, 32]
    assert sample.chunks[0].dtype == data.dtype
    assert (sample.name, sample.notes) == ("a.zarr", ())


def test_a_chunk_at_the_edge_is_filled_up_as_it_is_in_the_store(tmp_path: Path) -> None:
    data = values(25).reshape(5, 5)
    create(tmp_path / "a.zarr", data, (3, 3), compressors=None, fill_value=7)
    stored = [(tmp_path / "a.zarr/c" / place).read_bytes() for place in ("0/0", "0/1", "1/0", "1/1")]
    assert joined(of_store(tmp_path / "a.zarr", 10_000).chunks) == b"".join(stored)


def test_an_array_in_fortrans_order_gives_chunks_as_they_are_in_the_store(tmp_path: Path) -> None:
    create(tmp_path / "a.zarr", values(20).reshape(4, 5), (4, 5), zarr_format=2, compressors=None, order="F")
    assert joined(of_store(tmp_path / "a.zarr", 10_000).chunks) == (tmp_path / "a.zarr/0.0").read_bytes()


def test_of_a_sharded_array_the_inner_chunks_are_taken(tmp_path: Path) -> None:
    data = values(64)
    create(tmp_path / "a.zarr", data, (8,), shards=(32,))
    sample = of_store(tmp_path / "a.zarr", 10_000)
    assert [chunk.size for chunk in sample.chunks] == [8] * 8
    assert joined(sample.chunks) == data.tobytes()


def test_an_array_of_one_number_has_one_chunk(tmp_path: Path) -> None:
    create(tmp_path / "a.zarr", np.array(5, "<i4"), ())
    assert joined(of_store(tmp_path / "a.zarr", 10_000).chunks) == np.array(5, "<i4").tobytes()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_of_a_group_all_arrays_are_taken_at_every_depth(tmp_path: Path, zarr_format: Any) -> None:
    group = zarr.create_group(tmp_path / "g.zarr", zarr_format=zarr_format)
    group.create_array("b/c", data=values(16, "<i2"), chunks=(8,))
    group.create_array("a", data=values(8, "<f8"), chunks=(8,))
    sample = of_store(tmp_path / "g.zarr", 10_000)
    assert [chunk.dtype.str for chunk in sample.chunks] == ["<f8", "<i2", "<i2"]
    assert (sample.total_chunks, sample.total_bytes) == (3, 8 * 8 + 16 * 2)


def test_of_a_large_array_evenly_spread_chunks_are_taken_and_that_is_told(tmp_path: Path) -> None:
    data = np.arange(1, 10_001, dtype="<i4")
    create(tmp_path / "a.zarr", data, (100,))
    sample = of_store(tmp_path / "a.zarr", 10 * 400 + 399)
    assert [chunk.size for chunk in sample.chunks] == [100] * 10
    starts = [int(chunk[0]) for chunk in sample.chunks]
    assert max(np.diff(starts)) <= 2000
    assert str(sample).startswith("a.zarr: 10 of 100 chunks, spread evenly: 4.0 kB of 40.0 kB,")


def test_a_chunk_that_is_larger_than_the_sample_is_taken_all_the_same(tmp_path: Path) -> None:
    create(tmp_path / "a.zarr", values(200), (100,))
    assert [chunk.size for chunk in of_store(tmp_path / "a.zarr", 10).chunks] == [100]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_chunks_that_are_not_stored_are_no_part_of_the_sample(tmp_path: Path, zarr_format: Any) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(100,), chunks=(10,), dtype="<f4", fill_value=np.nan, zarr_format=zarr_format
    )
    data = values(10, "<f4")
    array[30:40] = data
    array[90:] = np.nan
    sample = of_store(tmp_path / "a.zarr", 10_000)
    assert joined(sample.chunks) == data.tobytes()
    assert sample.notes == ("9 more chunks hold only fill values and are left out: zarr does not store them.",)


def test_a_store_without_any_chunk_is_told(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(100,), chunks=(10,), dtype="<f4")
    with pytest.raises(
        BenchError, match=r"a.zarr has nothing to measure: 10 of 10 chunks, spread evenly, hold only fill values"
    ):
        of_store(tmp_path / "a.zarr", 10_000)


def test_records_in_a_store_are_bytes(tmp_path: Path) -> None:
    data = np.ones(8, [("a", "<i4"), ("b", "<f8")])
    create(tmp_path / "a.zarr", data, (8,), zarr_format=2)
    assert joined(of_store(tmp_path / "a.zarr", 10_000).chunks) == data.tobytes()


def unusual(path: Path) -> None:
    """A group of arrays that cannot be measured."""
    group = zarr.create_group(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group.create_array("words", shape=(3,), dtype=str)
    group.create_array("empty", shape=(0, 3), dtype="<f4")
    group.create_array("huge", shape=(1 << 28,), chunks=(1 << 28,), dtype="<f4")


def test_a_group_that_has_nothing_to_measure_is_told_with_the_reason_of_each_array(tmp_path: Path) -> None:
    unusual(tmp_path / "g.zarr")
    with pytest.raises(BenchError) as caught:
        of_store(tmp_path / "g.zarr", 10_000)
    assert str(caught.value) == (
        f"the zarr store {tmp_path}/g.zarr has nothing to measure. "
        "empty is left out: its shape (0, 3) has no elements. "
        "huge is left out: its chunks have 1024 MiB, and 256 MiB are the limit here. "
        "words is left out: it holds objects or text of variable length."
    )


def test_what_cannot_be_measured_is_left_out_and_told(tmp_path: Path) -> None:
    unusual(tmp_path / "g.zarr")
    data = values(10)
    zarr.open_group(tmp_path / "g.zarr").create_array("good", data=data)
    sample = of_store(tmp_path / "g.zarr", 10_000)
    assert joined(sample.chunks) == data.tobytes()
    assert [note.partition(" ")[0] for note in sample.notes] == ["empty", "huge", "words"]


def test_a_group_without_arrays_is_told(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "g.zarr")
    with pytest.raises(BenchError, match=r"g.zarr has nothing to measure. It has no arrays."):
        of_store(tmp_path / "g.zarr", 10_000)


def test_a_folder_that_is_no_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match=r"is a folder, and not a zarr store: give a file, or the folder of a zarr"):
        of_store(tmp_path, 10_000)


@pytest.mark.parametrize("metadata", ["{", '{"zarr_format": 3, "node_type": "array"}'])
def test_metadata_that_zarr_cannot_read_is_told(tmp_path: Path, metadata: str) -> None:
    (tmp_path / "zarr.json").write_text(metadata)
    with pytest.raises(BenchError, match=r"^the zarr store .* cannot be read: \w+: "):
        of_store(tmp_path, 10_000)


def test_a_chunk_that_cannot_be_read_is_told_with_its_place(tmp_path: Path) -> None:
    create(tmp_path / "a.zarr", values(64).reshape(8, 8), (4, 4))
    (tmp_path / "a.zarr/c/1/0").write_bytes(b"damage")
    with pytest.raises(BenchError, match=r"^chunk \(1, 0\) of a.zarr cannot be read: \w+: "):
        of_store(tmp_path / "a.zarr", 10_000)


# ---- Filters ------------------------------------------------------------------------------------

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")

DELTA: dict[str, Any] = {"dtype": "<f8", "astype": "<f4"}
SCALE: dict[str, Any] = {"offset": 0, "scale": 1, "dtype": "<f8", "astype": "<i2"}


def v3(name: str, **configuration: Any) -> dict[str, Any]:
    """A codec of numcodecs' as format 3 has it."""
    return {"name": f"numcodecs.{name}", "configuration": configuration}


def stays(names: str) -> str:
    return f"a.zarr: these filters stay. They are applied before every codec, and are not timed: {names}."


@pytest.mark.parametrize(
    ("filters", "item_size", "names"),
    [
        ([numcodecs.Delta(**DELTA)], 4, "delta"),
        ([numcodecs.FixedScaleOffset(**SCALE)], 2, "fixedscaleoffset"),
        ([numcodecs.FixedScaleOffset(**SCALE), numcodecs.Delta("<i2")], 2, "fixedscaleoffset, delta"),
        ([numcodecs.Shuffle(4)], 1, "shuffle"),
        ([numcodecs.FixedScaleOffset(**SCALE), numcodecs.Shuffle(8)], 1, "fixedscaleoffset, shuffle"),
        ([numcodecs.Shuffle(8), numcodecs.Fletcher32()], 1, "shuffle, fletcher32"),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_in_format_2_chunks_are_what_the_filters_make_of_them(
    tmp_path: Path, filters: list[Any], item_size: int, names: str, order: Any
) -> None:
    data = values(64, "<f8").reshape(8, 8)
    create(tmp_path / "a.zarr", data, (4, 8), zarr_format=2, filters=filters, compressors=None, order=order)
    sample = of_store(tmp_path / "a.zarr", 10_000)
    assert joined(sample.chunks) == b"".join((tmp_path / "a.zarr" / name).read_bytes() for name in ("0.0", "1.0"))
    assert sample.item_sizes == {item_size}
    assert sample.notes == (stays(names),)


@pytest.mark.parametrize(
    ("more", "item_size", "names"),
    [
        ({"filters": [v3("delta", **DELTA)]}, 4, "numcodecs.delta"),
        ({"filters": [v3("fixedscaleoffset", **SCALE)]}, 2, "numcodecs.fixedscaleoffset"),
        ({"filters": [TransposeCodec(order=(1, 0))]}, 8, "transpose"),
        ({"filters": [TransposeCodec(order=(1, 0))], "serializer": BytesCodec(endian="big")}, 8, "transpose"),
        (
            {"filters": [v3("fixedscaleoffset", **SCALE), v3("delta", dtype="<i2")]},
            2,
            "numcodecs.fixedscaleoffset, numcodecs.delta",
        ),
        (
            {"filters": [v3("delta", **DELTA)], "compressors": v3("shuffle", elementsize=8)},
            1,
            "numcodecs.delta, shuffle",
        ),
        ({"compressors": v3("shuffle", elementsize=2)}, 1, "shuffle"),
    ],
    ids=str,
)
def test_in_format_3_chunks_are_what_the_chain_makes_of_them(
    tmp_path: Path, more: dict[str, Any], item_size: int, names: str
) -> None:
    data = values(64, "<f8").reshape(8, 8)
    create(tmp_path / "a.zarr", data, (4, 8), **({"compressors": None} | more))
    sample = of_store(tmp_path / "a.zarr", 10_000)
    assert joined(sample.chunks) == b"".join((tmp_path / "a.zarr/c" / name).read_bytes() for name in ("0/0", "1/0"))
    assert sample.item_sizes == {item_size}
    assert sample.notes == (stays(names),)


def test_a_filter_that_makes_chunks_smaller_makes_the_whole_smaller(tmp_path: Path) -> None:
    data = values(64, "<f8")
    create(tmp_path / "a.zarr", data, (8,), zarr_format=2, filters=[numcodecs.FixedScaleOffset(**SCALE)])
    sample = of_store(tmp_path / "a.zarr", 200)
    assert (sample.total_bytes, sample.total_chunks) == (128, 8)


@pytest.mark.parametrize(
    "more",
    [
        {"zarr_format": 2, "filters": [numcodecs.Shuffle(4)], "compressors": numcodecs.Zlib()},
        {"compressors": [v3("shuffle", elementsize=4), GzipCodec()]},
        {"compressors": [v3("shuffle"), GzipCodec()]},
        {"compressors": [v3("shuffle", elementsize=4), GzipCodec()], "shards": (32,)},
    ],
    ids=str,
)
def test_a_final_shuffle_is_left_to_the_rows_with_shuffle(tmp_path: Path, more: dict[str, Any]) -> None:
    data = values(64)
    create(tmp_path / "a.zarr", data, (8,), **more)
    sample = of_store(tmp_path / "a.zarr", 10_000)
    assert joined(sample.chunks) == data.tobytes()
    assert sample.item_sizes == {4}
    assert sample.notes == ("a.zarr: the filter shuffle is applied in the rows with shuffle, and in no others.",)


def test_filters_before_a_final_shuffle_are_applied(tmp_path: Path) -> None:
    data = values(64, "<f8")
    scale, shuffle = numcodecs.FixedScaleOffset(**SCALE), numcodecs.Shuffle(2)
    create(tmp_path / "a.zarr", data, (64,), zarr_format=2, filters=[scale, shuffle])
    sample = of_store(tmp_path / "a.zarr", 10_000)
    assert joined(sample.chunks) == data.astype("<i2").tobytes()
    assert sample.notes == (
        "a.zarr: the filter shuffle is applied in the rows with shuffle, and in no others.",
        stays("fixedscaleoffset"),
    )


@pytest.mark.parametrize("item_size", [1, 2, 4])
def test_bytes_that_a_store_has_shuffled_are_not_shuffled_again(tmp_path: Path, item_size: int) -> None:
    create(tmp_path / "a.zarr", values(64), (8,), zarr_format=2, filters=[numcodecs.Shuffle(item_size)])
    sample = of_store(tmp_path / "a.zarr", 10_000)
    names = {one.name for one in contenders(sample.largest, sample.item_sizes)}
    assert ("shuffle + zstd 1" in names) == ("the filter shuffle is applied in the rows" in sample.notes[0])
    assert ("shuffle + zstd 1" in names) == (item_size == 4)


def test_the_same_filters_of_several_arrays_are_told_once(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr", zarr_format=2)
    for name in ("a", "b", "c"):
        filters = [numcodecs.Delta("<i4")] if name != "b" else None
        group.create_array(name, data=values(8), chunks=(8,), filters=filters)
    sample = of_store(tmp_path / "g.zarr", 10_000)
    assert sample.notes == (stays("delta").replace("a.zarr", "a, c"),)
    assert sample.chunks[1].tobytes() == values(8).tobytes() != sample.chunks[0].tobytes()


class DecodeOnly(numcodecs.abc.Codec):  # type: ignore[misc]
    """A filter as programs have it that only read."""

    codec_id = "decode only"

    def encode(self, buf: Any) -> Any:
        """Fail."""
        raise NotImplementedError("reads, and does not write")

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Change nothing."""
        return buf


def test_a_filter_that_cannot_be_applied_is_told_and_values_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(numcodecs.registry.codec_registry, DecodeOnly.codec_id, DecodeOnly)
    data = values(16)
    create(tmp_path / "a.zarr", data, (8,), zarr_format=2, compressors=None)
    metadata = tmp_path / "a.zarr/.zarray"
    metadata.write_text(metadata.read_text().replace('"filters": null', '"filters": [{"id": "decode only"}]'))
    sample = of_store(tmp_path / "a.zarr", 10_000)
    assert joined(sample.chunks) == data.tobytes()
    assert sample.notes == (
        "a.zarr: these filters fail and are not applied: decode only (NotImplementedError: reads, and does not write).",
    )


class Reversed(ArrayBytesCodec):
    """A serializer that is not zarr's."""

    is_fixed_size = True

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return chunk_spec.prototype.buffer.from_bytes(chunk_data.as_ndarray_like().tobytes()[::-1])

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        found = np.frombuffer(chunk_data.to_bytes()[::-1], chunk_spec.dtype.to_native_dtype())
        return chunk_spec.prototype.nd_buffer.from_numpy_array(found.reshape(chunk_spec.shape))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """As many bytes as before."""
        return input_byte_length

    def to_dict(self) -> Any:
        """Its name."""
        return {"name": "reversed", "configuration": {}}

    @classmethod
    def from_dict(cls, data: Any) -> Any:
        """Make one."""
        return cls()


@pytest.mark.parametrize("filters", [None, [v3("delta", dtype="<i4")]], ids=["alone", "filtered"])
def test_a_serializer_that_is_not_plain_bytes_is_not_applied_and_that_is_told(tmp_path: Path, filters: Any) -> None:
    register_codec("reversed", Reversed)
    data = values(16)
    create(tmp_path / "a.zarr", data, (8,), serializer=Reversed(), filters=filters, compressors=None)
    create(tmp_path / "b.zarr", data, (8,), filters=filters, compressors=None)
    sample = of_store(tmp_path / "a.zarr", 10_000)
    assert joined(sample.chunks) == joined(of_store(tmp_path / "b.zarr", 10_000).chunks)
    assert sample.notes[0] == "a.zarr: the serializer reversed is not applied."
