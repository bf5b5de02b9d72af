"""The demo, on a part of its data, and what it says when something is wrong."""

import gzip
import io
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from programs import environment
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ZstdCodec

import numcodecs_qpl
from numcodecs_qpl import _core, cli, demo, enable, netcdf, stats
from numcodecs_qpl._core.types import Stats
from numcodecs_qpl.cli import common
from numcodecs_qpl.cli.demo import DEMO_NEEDS
from numcodecs_qpl.host.devices import path_names
from numcodecs_qpl.zarr import QPL

PROGRAM = Path(sys.executable).with_name("numcodecs-qpl")
NAMES = [case.name for case in demo.cases()]


def run(*arguments: str | Path) -> int:
    """Run the command in this process: its exit status."""
    return cli.main(["demo", "--quick", *map(str, arguments)])


STORES = ["codec", "ratio", "stored MB", "write MB/s", "read MB/s"]
REFERENCES = ["chunks are inflated by", "seconds", "MB/s", "CPU seconds"]


def rows(text: str, head: list[str]) -> dict[str, list[float]]:
    """The numbers beside each name in the table with that head."""
    tables: dict[str, dict[str, list[float]]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            if name in (STORES[0], REFERENCES[0]):
                table = tables["|".join([name, *cells])] = {}
            else:
                table[name] = [float(cell.replace(",", "")) for cell in cells]
    return tables["|".join(head)]


def spoil(monkeypatch: pytest.MonkeyPatch, folder: str, change: Callable[[bytes], bytes]) -> None:
    """Let the store of that name have its second chunk changed as soon as it is written."""
    write = demo.write

    def write_and_spoil(path: Path, data: demo.Maps, codec: BytesBytesCodec | None) -> None:
        write(path, data, codec)
        if path.name == folder:
            chunk = path / "c/0/0/1"
            chunk.write_bytes(change(chunk.read_bytes()))

    monkeypatch.setattr(demo, "write", write_and_spoil)


@pytest.fixture
def qpl_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the other codecs out."""
    monkeypatch.setattr(demo, "cases", lambda: [demo.Case("QPL", "qpl.zarr", QPL())])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "stores"


@pytest.fixture(scope="module")
def result(stores: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "demo", "--quick", "--store", stores], env=environment(), capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def whole() -> demo.Maps:
    return demo.load(quick=False)


def test_a_piped_demo_succeeds_without_noise(result: subprocess.CompletedProcess[str]) -> None:
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout


def test_the_demo_fits_80_columns(result: subprocess.CompletedProcess[str]) -> None:
    said = [line for line in result.stdout.splitlines() if not line.startswith("The stores and the NetCDF4 file are")]
    assert max(map(len, said)) <= 80


def test_the_demo_shows_ratio_size_and_speed_of_every_codec(result: subprocess.CompletedProcess[str]) -> None:
    table = rows(result.stdout, STORES)
    assert list(table) == NAMES
    assert "gzip level 5 (zarr's default)" in table
    size = np.prod(demo.QUICK) / demo.MB
    for name, (ratio, stored, write_speed, read_speed) in table.items():
        assert ratio * stored == pytest.approx(size, rel=0.1), name
        assert (ratio > 4) == (name != "no compression")
        assert write_speed > 0
        assert read_speed > 0


def test_the_demo_claims_equality_bit_for_bit(result: subprocess.CompletedProcess[str]) -> None:
    assert f"Bit for bit: all {len(NAMES)} stores were read back as the array that was written." in result.stdout


def test_the_stores_that_are_kept_hold_the_array(result: subprocess.CompletedProcess[str], stores: Path) -> None:
    assert f"The stores and the NetCDF4 file are in {stores}." in result.stdout
    data = demo.load(quick=True)
    for case in demo.cases():
        np.testing.assert_array_equal(np.asarray(zarr.open_array(stores / case.folder, mode="r")[...]), data)


def test_the_demo_says_which_path_ran(result: subprocess.CompletedProcess[str]) -> None:
    path = "IAA" if _core.hardware_init_status() == 0 else path_names([])["software"]
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("QPL ran on "))
    compressed, decompressed = re.findall(rf"the {path} \((\d+) blocks compressed, (\d+) decompressed\)", line)[0]
    assert int(compressed) == 72, "4 chunks of 18 blocks of 64 KiB"
    assert int(decompressed) == (72 if path == "IAA" else 4), "in software, one thread inflates a chunk in one piece"


def test_the_chunk_that_the_demo_reads_with_gzip_is_the_arrays(
    result: subprocess.CompletedProcess[str], stores: Path
) -> None:
    said = re.search(
        r"gzip module turned (\S+) \(([\d,]+) bytes\) into the ([\d,]+) bytes", " ".join(result.stdout.split())
    )
    assert said is not None
    stored = (stores / said[1]).read_bytes()
    assert len(stored) == int(said[2].replace(",", ""))
    inflated = gzip.decompress(stored)
    assert len(inflated) == int(said[3].replace(",", ""))
    assert inflated == demo.load(quick=True)[:1, :1080, :1080].tobytes()


def test_the_whole_atlas_is_twelve_maps_of_which_a_quick_run_takes_a_part(whole: demo.Maps) -> None:
    assert whole.shape == (12, 2160, 4320)
    assert whole.dtype == np.dtype("u1")
    months, lines, columns = demo.QUICK
    np.testing.assert_array_equal(demo.load(quick=True), whole[:months, :lines, :columns])


def test_gzip_in_the_table_is_zarrs_own_even_if_it_was_served_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted: dict[str, int] = {}
    write = demo.write

    def write_and_count(path: Path, data: demo.Maps, codec: BytesBytesCodec | None) -> None:
        write(path, data, codec)
        counted[path.name] = stats()["software"]["compressed"]

    monkeypatch.setattr(demo, "write", write_and_count)
    enable(instances=True)
    assert run() == 0
    assert {name for name, blocks in counted.items() if blocks} == {"qpl.zarr"}


# ---- By reference -------------------------------------------------------------------------------


def test_the_demo_shows_time_and_speed_of_reading_by_reference_before_and_after_enable(
    result: subprocess.CompletedProcess[str],
) -> None:
    table = rows(result.stdout, REFERENCES)
    assert list(table) == ["numcodecs", "numcodecs-qpl, after enable()"]
    size = demo.dataset(demo.load(quick=True), demo.QUICK_SIDE).nbytes / demo.MB
    for seconds, speed, cpu in table.values():
        assert size / (seconds + 0.005) - 0.5 <= speed
        assert seconds <= 0.005 or speed <= size / (seconds - 0.005) + 0.5
        assert cpu > 0


def test_the_demo_shows_that_every_chunk_of_the_netcdf4_file_was_served_after_enable_and_none_before(
    result: subprocess.CompletedProcess[str],
) -> None:
    said = " ".join(result.stdout.splitlines())
    # Two maps of two chunks, and two chunks of the field. Chunks of zlib are inflated in software, in one piece.
    name = path_names([])["software"]
    assert (
        "Of 6 chunks, this package inflated 0 before enable(). After it, they were read on "
        f"the {name} (0 blocks compressed, 6 decompressed)."
    ) in said
    assert "Bit for bit: each time, all values were read as they were written." in said


def test_the_netcdf4_file_that_is_kept_has_zlib_4_and_shuffle_in_chunks_of_1_to_4_mib(
    result: subprocess.CompletedProcess[str], stores: Path
) -> None:
    assert result.returncode == 0
    data = demo.dataset(demo.load(quick=True), demo.QUICK_SIDE)
    with h5py.File(stores / demo.NETCDF) as file:
        for name, values in data.data_vars.items():
            variable = file[name]
            assert (variable.compression, variable.compression_opts, variable.shuffle) == ("gzip", 4, True)
            assert 1 << 20 <= np.prod(variable.chunks) * variable.dtype.itemsize <= 4 << 20
            np.testing.assert_array_equal(variable[...], values)


def test_the_whole_netcdf4_file_is_of_the_atlas_and_a_float32_field_and_has_200_mb_at_least(
    monkeypatch: pytest.MonkeyPatch, whole: demo.Maps
) -> None:
    monkeypatch.setattr(demo, "float32_field", bytes)  # zeros, as only its size matters here
    data = demo.dataset(whole, demo.SIDE)
    assert {name: variable.dtype for name, variable in data.data_vars.items()} == {
        "turbidity": np.dtype("u1"),
        "field": np.dtype("<f4"),
    }
    assert data.nbytes >= 200 * demo.MB


@pytest.mark.usefixtures("qpl_alone")
def test_a_variable_that_is_read_as_something_else_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = netcdf.read

    def read_and_spoil(references: netcdf.References) -> xr.Dataset:
        found = read(references)
        found["field"][-1, -1] += 1
        return found

    monkeypatch.setattr(netcdf, "read", read_and_spoil)
    assert run() == 1
    said = capsys.readouterr()
    assert said.err == "numcodecs-qpl: error: NetCDF4: field was not read back as it was written\n"
    assert "each time, all values were read" not in said.out


@pytest.mark.usefixtures("qpl_alone")
def test_a_damaged_netcdf4_file_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write = netcdf.write

    def write_and_spoil(path: Path, dataset: xr.Dataset, chunks: dict[str, tuple[int, ...]]) -> None:
        write(path, dataset, chunks)
        ((offset, length), *_) = netcdf.chunk_places(netcdf.references(path), "field")
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes(length))

    monkeypatch.setattr(netcdf, "write", write_and_spoil)
    assert run() == 1
    said = capsys.readouterr()
    assert said.err.startswith("numcodecs-qpl: error: NetCDF4: reading failed: ")
    assert said.err.count("\n") == 1


# ---- Folders ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("qpl_alone")
def test_a_temporary_folder_is_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run() == 0
    assert "The stores and the NetCDF4 file are in" not in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_between_two_steps_and_the_temporary_folder_is_removed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, number: signal.Signals
) -> None:
    """If it ended a step of zarr, threads would write while the folder is removed, and asyncio would warn later."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write, written = demo.write, []

    def signalled(path: Path, data: demo.Maps, codec: BytesBytesCodec | None) -> None:
        signal.raise_signal(number)
        write(path, data, codec)
        written.append(path)

    monkeypatch.setattr(demo, "write", signalled)
    assert run() == 128 + number
    assert len(written) == 1
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_a_temporary_folder_is_removed_after_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spoil(monkeypatch, "qpl.zarr", lambda chunk: chunk[:-1])
    assert run() == 1
    assert list(tmp_path.iterdir()) == []


# ---- What goes wrong ----------------------------------------------------------------------------


def test_a_store_that_reads_back_something_else_is_told_with_its_codec_and_chunk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, "none.zarr", lambda chunk: chunk[:-1] + bytes([chunk[-1] ^ 1]))
    assert run() == 1
    said = capsys.readouterr()
    assert said.err == ("numcodecs-qpl: error: no compression: chunk (0, 0, 1) was not read back as it was written\n")
    assert "Bit for bit" not in said.out


@pytest.mark.parametrize("case", [case for case in demo.cases() if case.codec is not None], ids=lambda case: case.name)
def test_a_damaged_store_is_told_with_its_codec(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: demo.Case
) -> None:
    spoil(monkeypatch, case.folder, lambda chunk: chunk[: len(chunk) // 2])
    assert run() == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"numcodecs-qpl: error: {case.name}: ")
    assert said.err.count("\n") == 1
    assert "Bit for bit" not in said.out


@pytest.mark.parametrize("at", [(0, 0, 0), (0, 1079, 1080), (1, 0, 2159), (1, 1079, 0)])
def test_the_first_chunk_that_differs_is_found(at: tuple[int, int, int]) -> None:
    data = demo.load(quick=True)
    found = data.copy()
    found[1:, :, :1080] ^= 255
    found[at] ^= 1
    assert demo.first_difference(data, found) == min((1, 0, 0), (at[0], at[1] // 1080, at[2] // 1080))
    assert demo.first_difference(data, data.copy()) is None


def test_chunks_that_pythons_gzip_does_not_read_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "cases", lambda: [demo.Case("not gzip", "not-gzip.zarr", ZstdCodec())])
    assert run() == 1
    assert "Python's gzip cannot read chunk (0, 0, 0) of not-gzip.zarr" in capsys.readouterr().err


@pytest.mark.usefixtures("qpl_alone")
def test_chunks_that_pythons_gzip_reads_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decompress = gzip.decompress
    monkeypatch.setattr(gzip, "decompress", lambda stored: decompress(stored)[:-1])
    assert run() == 1
    assert "as something else than was written" in capsys.readouterr().err


def test_a_package_that_is_missing_is_told_with_the_command_that_installs_it() -> None:
    code = "import sys; sys.modules['xarray'] = None; from numcodecs_qpl.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "numcodecs-qpl: error: the demo needs xarray: pip install xarray\n"


def test_all_packages_that_are_missing_are_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in DEMO_NEEDS:
        monkeypatch.setitem(sys.modules, package, None)
    assert run() == 1
    names = " ".join(DEMO_NEEDS)
    assert capsys.readouterr() == (
        "",
        f"numcodecs-qpl: error: the demo needs {', '.join(DEMO_NEEDS)}: pip install {names}\n",
    )


def test_a_package_of_the_wrong_version_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The command imports the demo anew.
    monkeypatch.delattr(numcodecs_qpl, "demo")
    monkeypatch.delitem(sys.modules, "numcodecs_qpl.demo")
    monkeypatch.setitem(sys.modules, "zarr.abc.codec", None)
    assert run() == 1
    said = capsys.readouterr().err
    assert said.startswith("numcodecs-qpl: error: an installed package cannot be used (")
    assert said.endswith(f"): pip install --upgrade {' '.join(DEMO_NEEDS)}\n")


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "thesis").write_text("precious")
    assert run("--store", tmp_path) == 1
    said = f"numcodecs-qpl: error: {tmp_path} is not empty; give a new or an empty folder\n"
    assert capsys.readouterr() == ("", said)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_file_in_place_of_the_folder_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run("--store", tmp_path / "file") == 1
    said = f"numcodecs-qpl: error: {tmp_path}/file is not a folder; give a new or an empty folder\n"
    assert capsys.readouterr() == ("", said)


def test_a_folder_that_cannot_be_made_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run("--store", tmp_path / "file" / "stores") == 1
    said = f"numcodecs-qpl: error: {tmp_path}/file/stores cannot be used: Not a directory; give another folder\n"
    assert capsys.readouterr() == ("", said)


def test_hardware_that_is_forced_and_missing_is_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none_usable() -> str:
        raise _core.QplError("no device")

    monkeypatch.setattr(common, "path_in_force", none_usable)
    assert run() == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("numcodecs-qpl: error: the hardware path cannot be used: ")
    assert said.err.endswith("unset NUMCODECS_QPL_PATH to use software, or see `numcodecs-qpl info`\n")


def test_pvlib_without_its_atlas_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "pvlib").mkdir()
    (tmp_path / "pvlib" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert run() == 1
    assert f"pvlib's atlas cannot be read from {tmp_path}/pvlib/data/LinkeTurbidities.h5" in capsys.readouterr().err


# ---- Paths and terminals ------------------------------------------------------------------------


def test_what_ran_where_is_told_with_what_hardware_did_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "path_names", lambda found: {"hardware": "IAA", "software": "software path"})
    counts: Stats = {
        "hardware": {"compressed": 1000, "decompressed": 990},
        "software": {"compressed": 7, "decompressed": 0},
        "fallback": {"QPL_STS_QUEUES_ARE_BUSY_ERR": 7},
        "queues": {"full": 0},
    }
    assert demo._where(counts) == (
        "the IAA (1,000 blocks compressed, 990 decompressed), and the software path (7 blocks compressed, "
        "0 decompressed); 7 blocks that hardware did not do (QPL_STS_QUEUES_ARE_BUSY_ERR)"
    )


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("terminal", "bar"), [("xterm-256color", True), ("dumb", False)])
@pytest.mark.usefixtures("qpl_alone")
def test_a_terminal_that_can_show_it_gets_a_progress_bar_beside_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: str, bar: bool
) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", terminal)
    assert run() == 0
    assert list(rows(capsys.readouterr().out, STORES)) == ["QPL"]
    assert ("%" in shown.getvalue()) == bar
    assert bar or shown.getvalue() == ""
