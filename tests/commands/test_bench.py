"""The bench: a small run of everything, its picture, and what it says when something is wrong."""

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import emulated_iaa
import numcodecs
import numpy as np
import programs
import pytest
import zarr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from misuse import misuse
from terminal import on_terminal

import numcodecs_qpl.zarr
from numcodecs_qpl import _core, cli
from numcodecs_qpl.bench import contenders, run, table
from numcodecs_qpl.bench.contenders import Contender
from numcodecs_qpl.bench.files import FORMAT
from numcodecs_qpl.bench.measure import Measured, Result, measure
from numcodecs_qpl.bench.plot import figure
from numcodecs_qpl.bench.sample import Sample
from numcodecs_qpl.bench.verdict import judge
from numcodecs_qpl.host.devices import Device, path_names
from numcodecs_qpl.times import Times

PROGRAM = Path(sys.executable).with_name("numcodecs-qpl")

SOFTWARE = path_names([])["software"]
"""The bench's name for the path that its tests run on."""

DEVICE = Device("iax1", "enabled", 0, "0x100", True, ())

OURS = ["QPL", "QPL zlib", "QPL deflate"]
PEERS = ["gzip 1", "gzip 6", "zlib 1", *(f"isal gzip {level}" for level in range(4))]
PEERS += ["zstd 1", "zstd 3", "zstd 9", "lz4", "blosc lz4", "blosc zstd 1"]
SHUFFLED = ["shuffle + QPL", "shuffle + gzip 1", "shuffle + zstd 1"]
OF_NUMBERS = ["blosc lz4, no shuffle", "blosc zstd 1, no shuffle", *SHUFFLED]
"""Rows that there are only where items have several bytes."""


def environment(**changes: str) -> dict[str, str]:
    return programs.environment(**({"NUMCODECS_QPL_PATH": "software"} | changes))


def bench(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "bench", *arguments], env=environment(**changes), capture_output=True, text=True, timeout=120
    )


def here(*arguments: str | Path) -> int:
    """Run the command in this process: its exit status."""
    return cli.main(["bench", *map(str, arguments)])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two codecs measured only."""
    some = [one for one in contenders.contenders(1, {2}) if one.name in ("QPL", "gzip 1")]
    monkeypatch.setattr(run, "contenders", lambda *_: some)


def numbers(count: int) -> Any:
    return np.random.default_rng(1).integers(0, 50, count).astype("<u2")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "numbers.npy"
    np.save(path, numbers(100_000))
    return path


@pytest.fixture(scope="module")
def result(file: Path) -> subprocess.CompletedProcess[str]:
    outputs = ("--json", file.with_name("bench.json"), "--plot", file.with_name("bench.png"))
    return bench(file, "--quick", "--chunk-size", "80K", *outputs)


@pytest.fixture(scope="module")
def facts(file: Path, result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert result.returncode == 0
    return dict(json.loads(file.with_name("bench.json").read_text()))


def rows(text: str) -> dict[str, list[str]]:
    """The cells beside each codec in the table: its columns are as wide as the dashes below their heads."""
    lines = text.splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("----"))
    ends = list(itertools.accumulate(len(dashes) + 1 for dashes in lines[rule].split(" ")))
    table = itertools.takewhile(bool, lines[rule + 1 :])
    cells = [[line[start:end].strip() for start, end in itertools.pairwise([0, *ends])] for line in table]
    return {name: others for name, *others in cells}


# ---- A run --------------------------------------------------------------------------------------


def test_a_piped_run_succeeds_without_noise(result: subprocess.CompletedProcess[str]) -> None:
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout


def test_the_text_fits_80_columns(result: subprocess.CompletedProcess[str]) -> None:
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(("terminal", "used"), [(60, 80), (80, 80), (90, 90), (300, 100)])
def test_the_text_is_as_wide_as_the_terminal_within_limits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: int, used: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(terminal))
    times = Times([1.0], [1.0])
    results = [Result(one, 3000, 1000, None, times, times) for one in contenders.contenders(1, {2})]
    table.show(Measured(SAMPLE, results, {}), judge([one.figures() for one in results]))
    assert used - 10 < max(map(len, capsys.readouterr().out.splitlines())) <= used


def test_the_files_that_were_written_are_named(file: Path, result: subprocess.CompletedProcess[str]) -> None:
    folder = file.parent
    assert result.stdout.endswith(f"wrote {folder}/bench.json\nwrote {folder}/bench.png\n")


@pytest.mark.usefixtures("few")
def test_a_picture_beside_json_on_stdout_is_named_on_stderr(
    capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    assert here(file, "--quick", "--json", "--plot", tmp_path / "bench.svg") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["format"] == FORMAT
    assert said.err == f"wrote {tmp_path}/bench.svg\n"


def test_the_text_says_what_was_measured_and_where(result: subprocess.CompletedProcess[str]) -> None:
    said = " ".join(result.stdout.split())
    assert re.search(rf"CPUs?; {re.escape(_core.engine_versions())}, {SOFTWARE}\.", said)
    assert "numbers.npy: all of it, 200.0 kB, in chunks of up to 80 KiB" in result.stdout
    assert "Medians of 3 rounds, which typically differ by " in " ".join(result.stdout.split())


def test_everyone_is_in_the_table_with_ratio_speed_and_cpu_time(result: subprocess.CompletedProcess[str]) -> None:
    found = rows(result.stdout)
    assert [name for name in found if "threads" not in name] == [*OURS, *PEERS, *OF_NUMBERS]
    for name, (ratio, *speeds_and_times, front, gzip, in_zarr) in found.items():
        assert 0.9 < float(ratio) < 4, name
        assert all(float(number.replace(",", "")) > 0 for number in speeds_and_times), name
        assert {front, in_zarr} <= {"*", "", "-"}
        assert (front == "-") == bool(re.search("threads|deflate", name)), name
        kinds = {"*": r"QPL(, \d threads)?|(isal )?gzip \d", "s": r"shuffle \+ (QPL|gzip 1)"}
        assert gzip == next((mark for mark, kind in kinds.items() if re.fullmatch(kind, name)), ""), name
        assert (in_zarr == "*") == (not name.startswith("isal"))


def test_threads_are_measured_where_there_are_several_cpus_and_blocks(facts: dict[str, Any]) -> None:
    cpus = min(8, len(os.sched_getaffinity(0)))
    several = [one["name"] for one in facts["data_sets"][0]["results"] if one["threads"] > 1]
    names = ["QPL", "blosc lz4", "blosc zstd 1"] if cpus > 1 else []
    assert several == [f"{name}, {cpus} threads" for name in names]


def test_threads_are_not_measured_where_a_chunk_is_one_block() -> None:
    assert {one.threads for one in contenders.contenders(65536, {2})} == {1}


def test_without_items_of_several_bytes_nothing_is_shuffled() -> None:
    names = {one.name for one in contenders.contenders(1000, {1})}
    assert names == {*OURS, *PEERS}


@pytest.mark.parametrize(("sizes", "written"), [({2}, "2"), ({1, 8}, "dtype.itemsize")])
def test_shuffle_goes_by_the_items_of_each_chunk(sizes: set[int], written: str) -> None:
    everyone = [one for one in contenders.contenders(1000, sizes) if one.name in SHUFFLED]
    assert len(everyone) == 3
    for one, size in itertools.product(everyone, sizes):
        chunk = np.frombuffer(bytes(range(80)), f"u{size}")
        stored = one.write(chunk)
        assert bytes(one.decode(stored)) == chunk.view("u1").reshape(-1, size).T.tobytes()
        assert bytes(one.read(stored, size)) == chunk.tobytes()
        assert one.chain == f"numcodecs.Shuffle(elementsize={written}), {one.call}"


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")
def test_zarr_writes_what_was_measured_with_the_arguments_that_are_told(zarr_format: Any) -> None:
    data = numbers(10_000)
    for one in contenders.contenders(1000, {2}):
        if one.zarr_arguments is None:
            assert one.name.startswith("isal")
            continue
        names = {"numcodecs": numcodecs, "numcodecs_qpl": numcodecs_qpl, "zarr": zarr}
        arguments = eval(f"dict({one.zarr_arguments[zarr_format]})", names)
        store: dict[str, Any] = {}
        zarr.create_array(store, data=data, chunks=data.shape, zarr_format=zarr_format, **arguments)
        stored = store["0" if zarr_format == 2 else "c/0"].to_bytes()
        assert len(stored) == len(one.write(data)), one.name
        assert bytes(one.read(stored, 2)) == data.tobytes(), one.name


@pytest.mark.parametrize(("wall", "told"), [(1.0, False), (1.05, False), (1.2, True)])
def test_a_busy_host_is_told(capsys: pytest.CaptureFixture[str], wall: float, told: bool) -> None:
    times = Times([wall, wall], [1.0, 1.0])
    results = [Result(plain("gzip 1", gzip=True), 3000, 1000, None, times, times)]
    table.show(Measured(SAMPLE, results, {}), judge([one.figures() for one in results]))
    assert ("Other programs were busy: a second of work waited 0.2 s for a CPU." in capsys.readouterr().out) == told


def test_the_noise_is_the_typical_difference_between_rounds() -> None:
    calm, wild = Times([1.0, 1.02, 0.98], [1.0] * 3), Times([1.0, 3.0, 0.1], [1.0] * 3)
    for encode, decode, noise in ((calm, calm, 0.02), (wild, wild, 0.9), (calm, wild, 0.46)):
        done = Measured(SAMPLE, [Result(plain("any"), 3000, 1000, None, encode, decode)], {})
        assert done.noise == pytest.approx(noise)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("noise", "shown"), [(0.42, "42%"), (0.004, "less than 1%")])
def test_a_run_with_noise_is_judged_with_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: Path,
    tmp_path: Path,
    noise: float,
    shown: str,
) -> None:
    monkeypatch.setattr(Measured, "noise", noise)
    assert here(file, "--quick", "--json", str(tmp_path / "bench.json")) == 0
    out = capsys.readouterr().out
    assert f"which typically differ by {shown}." in " ".join(out.split())
    assert ("The rounds differ by 42%" in out) == (noise == 0.42)
    assert json.loads((tmp_path / "bench.json").read_text())["data_sets"][0]["noise"] == noise


def test_the_verdict_follows_the_table(result: subprocess.CompletedProcess[str], facts: dict[str, Any]) -> None:
    data_set = facts["data_sets"][0]
    assert [name for name, cells in rows(result.stdout).items() if cells[5] == "*"] == data_set["verdict"]["front"]
    said = " ".join(result.stdout.replace("\n- ", "\n").split())
    assert data_set["verdict"]["sentences"]
    assert all(sentence in said for sentence in data_set["verdict"]["sentences"])


def test_the_text_tells_how_zarr_writes_what_is_chosen_and_nothing_else(
    result: subprocess.CompletedProcess[str], facts: dict[str, Any]
) -> None:
    data_set = facts["data_sets"][0]
    chosen = {
        name for choice in data_set["verdict"]["choices"].values() for name in (choice["zarr"], choice["as_good"])
    }
    expected = [
        f"{one['name']}, format {zarr_format}: {arguments}"
        for one in data_set["results"]
        if one["name"] in chosen
        for zarr_format, arguments in one["zarr_arguments"].items()
    ]
    _, _, told = result.stdout.partition("wrote ")[0].partition("The arguments of zarr.create_array for them:\n- ")
    assert [" ".join(line.split()) for line in told.split("\n- ")] == expected
    assert len(expected) >= 2


def test_the_document_is_complete(facts: dict[str, Any]) -> None:
    assert list(facts) == ["format", "host", "path", "data_sets"]
    assert facts["format"] == FORMAT
    assert set(facts["host"]) == {"cpu", "cpus", "load_average", "kernel", "versions"}
    assert facts["host"]["versions"]["numcodecs-qpl"] == numcodecs_qpl.__version__
    assert facts["host"]["versions"]["libqpl"] == _core.libqpl_version()
    assert facts["host"]["versions"]["isal"] == version("isal")
    assert facts["path"] == {"setting": "software", "in_force": "software", "name": SOFTWARE}
    (data_set,) = facts["data_sets"]
    assert (data_set["name"], data_set["bytes"], data_set["chunks"]) == ("numbers.npy", 200_000, 3)
    assert data_set["sample"] == {"bytes": 200_000, "chunks": 3, "largest_chunk": 80 << 10}
    assert (data_set["notes"], data_set["left_out"]) == ([], {})
    for one in data_set["results"]:
        assert one["ratio"] == pytest.approx(200_000 / one["encoded_bytes"])
        for operation in ("encode", "decode"):
            times = one[operation]
            assert len(times["wall"]) == len(times["cpu"]) == 3
            assert times["MB_per_s"] == pytest.approx(0.2 / sorted(times["wall"])[1])
            assert times["cpu_s_per_GB"] == pytest.approx(sorted(times["cpu"])[1] / 0.0002)


def test_the_document_says_what_was_done_on_which_path(facts: dict[str, Any]) -> None:
    for one in facts["data_sets"][0]["results"]:
        if one["family"] == "QPL":
            assert (one["path"], one["on"]) == ("software", "CPU")
            assert one["blocks"]["hardware"] == {"compressed": 0, "decompressed": 0}
            assert one["blocks"]["software"]["compressed"] == 5
        else:
            assert (one["path"], one["blocks"]) == (None, {})


@pytest.mark.parametrize("setting", ["auto", "hardware"])
def test_the_table_has_all_of_its_cells_in_80_columns_where_names_are_longest(
    emulated: dict[str, subprocess.CompletedProcess[str]], setting: str
) -> None:
    text = emulated[setting].stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


@pytest.mark.usefixtures("few")
def test_json_without_a_file_is_printed_in_place_of_text(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert here(file, "--quick", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["format"] == FORMAT
    assert said.err == ""


def test_without_data_the_built_in_sets_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert here("--quick", "--sample", "128K", "--chunk-size", "32K") == 0
    said = capsys.readouterr()
    names = re.findall(r"^(.*) \(made here\): all of it", said.out, re.M)
    assert (names, said.err) == (["float32 field", "int16 field", "text"], "")


@pytest.mark.usefixtures("few")
def test_a_zarr_store_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=numbers(10_000), chunks=(1000,))
    assert here(tmp_path / "a.zarr", "--quick") == 0
    said = capsys.readouterr()
    assert "a.zarr: all of it, 20.0 kB, in chunks of up to 1.953 KiB" in said.out
    assert said.err == ""


def test_the_settings_of_the_process_are_kept(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def settings() -> tuple[Any, ...]:
        blosc = numcodecs.blosc
        return _core.get_path(), _core.get_threads(), blosc.use_threads, blosc.get_nthreads()

    before = settings()
    assert here(file, "--quick") == 0
    assert settings() == before


# ---- Measuring ----------------------------------------------------------------------------------


def plain(name: str, **more: Any) -> Contender:
    """A contender that keeps chunks as they are."""
    return Contender(name, "none", "zstd", lambda chunk: chunk.tobytes(), bytes, **more)


SAMPLE = Sample("made up", [numbers(1000), numbers(500)], 2, 3000)


def measured(*everyone: Contender, seconds: float = 0, least_rounds: int = 1) -> tuple[Measured, list[str]]:
    told: list[str] = []
    done = measure(
        SAMPLE,
        list(everyone),
        seconds=seconds,
        least_rounds=least_rounds,
        announce=lambda name, turns: told.append(name),
    )
    return done, told


def test_contenders_take_turns_and_none_is_always_behind_the_same_one() -> None:
    _, told = measured(plain("a"), plain("b"), plain("c"), least_rounds=3)
    assert told == ["a", "b", "c", "a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_there_are_as_many_rounds_as_the_time_is_long() -> None:
    done, _ = measured(plain("a"), seconds=0.05)
    assert len(done.results[0].encode.wall) > 10


def test_figures_are_medians_of_the_rounds() -> None:
    times = Times([1.0, 2.0, 9.0], [0.5, 4.0, 0.4])
    figures = Result(plain("a"), 4_000_000, 1_000_000, None, times, times).figures()
    assert (figures.ratio, figures.encode, figures.decode) == (4, 2, 2)
    assert (figures.encode_cpu, figures.decode_cpu) == (125, 125)


def test_waiting_is_no_cpu_time() -> None:
    def encode(chunk: Any) -> bytes:
        time.sleep(0.05)
        return bytes(chunk.tobytes())

    done, _ = measured(replace(plain("sleeper"), encode=encode))
    (result,) = done.results
    assert result.encode.wall[0] >= 0.1
    assert result.encode.cpu[0] < 0.5 * result.encode.wall[0]


def test_cpu_time_is_that_of_all_threads() -> None:
    def burn() -> None:
        while time.thread_time() < 0.02:
            pass

    def encode(chunk: Any) -> bytes:
        worker = threading.Thread(target=burn)
        worker.start()
        worker.join()
        return bytes(chunk.tobytes())

    done, _ = measured(replace(plain("threads"), encode=encode))
    assert done.results[0].encode.cpu[0] >= 0.04


@pytest.mark.parametrize(
    "wrong", [lambda data: data[:-1] + b"?", lambda data: data[:-1], lambda data: data + b"?", lambda data: b""]
)
def test_a_chunk_that_does_not_come_back_is_told_with_contender_and_place(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: Path,
    tmp_path: Path,
    wrong: Callable[[bytes], bytes],
) -> None:
    honest = contenders.contenders
    seen = itertools.count(1)

    def decode(data: bytes) -> bytes:
        return wrong(data) if next(seen) == 2 else data

    monkeypatch.setattr(run, "contenders", lambda *of: [*honest(*of), replace(plain("broken"), decode=decode)])
    outputs = ["--json", f"{tmp_path}/a.json", "--plot", f"{tmp_path}/a.png"]
    assert here(file, "--quick", "--chunk-size", "80K", *outputs) == 1
    said = capsys.readouterr()
    assert said.err == (
        "numcodecs-qpl: error: broken, chunk 2 of 3 of numbers.npy: the decoded chunk differs from the original\n"
    )
    assert "What to choose" not in said.out
    assert list(tmp_path.iterdir()) == []


def test_a_contender_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    def decode(data: bytes) -> bytes:
        raise RuntimeError("no such block")

    monkeypatch.setattr(run, "contenders", lambda *_: [replace(plain("broken"), decode=decode)])
    assert here(file, "--quick") == 1
    assert capsys.readouterr().err == (
        "numcodecs-qpl: error: broken, chunk 1 of 1 of numbers.npy: RuntimeError: no such block\n"
    )


def test_ours_that_fails_on_the_software_path_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    def encode(chunk: Any) -> bytes:
        raise _core.QplError("out of order")

    monkeypatch.setattr(run, "contenders", lambda *_: [replace(plain("QPL"), encode=encode, path="software")])
    assert here(file, "--quick") == 1
    assert capsys.readouterr().err == "numcodecs-qpl: error: QPL failed: out of order\n"


# ---- The picture --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture() -> Figure:
    """A picture of what may be measured on a host with an IAA, with points that crowd."""
    rng = np.random.default_rng(3)
    everyone = [*contenders.contenders(1 << 20, {2})]
    everyone += [replace(one, name=f"{one.name}, IAA", on="IAA") for one in everyone if one.ours and one.threads == 1]
    results = []
    for number, one in enumerate(everyone):
        seconds = 0.003 * (1 + number % 4) * rng.uniform(0.9, 1.1)
        results.append(
            Result(one, 3000, 1000 + 30 * (number % 5), None, Times([seconds], [seconds]), Times([0.001], [0]))
        )
    done = Measured(SAMPLE, results, {})
    return figure([(done, judge([one.figures() for one in results]))] * 2)


def shown(panel: Axes) -> list[Annotation]:
    return [one for one in panel.texts if isinstance(one, Annotation)]


def test_every_panel_says_ratio_speed_and_direction(picture: Figure) -> None:
    assert len(picture.axes) == 4
    for number, panel in enumerate(picture.axes):
        assert panel.get_xscale() == "log"
        assert panel.get_xlabel().startswith(("encode: MB/s", "decode: MB/s")[number % 2])
        assert (panel.get_ylabel() != "") == (number % 2 == 0)
    assert "ratio" in picture.axes[0].get_ylabel()


def test_the_picture_names_data_and_host(picture: Figure) -> None:
    assert picture.axes[0].get_title("left") == str(SAMPLE)
    title = picture.get_suptitle()
    assert "CPU" in title
    assert _core.engine_versions() in title


def test_every_point_has_its_label_and_ours_stand_out(picture: Figure) -> None:
    for panel in picture.axes:
        labels = {label.get_text(): label for label in shown(panel)}
        assert {*PEERS, *OF_NUMBERS} <= set(labels)
        assert {"QPL", "QPL, IAA", "shuffle + QPL, IAA"} <= set(labels)
        assert not any("deflate" in name or "QPL zlib" in name for name in labels)
        for name, label in labels.items():
            assert (label.get_fontweight() == "bold") == ("QPL" in name)


@pytest.mark.parametrize("dpi", [100, 72, 200])
def test_no_label_lies_on_another_one_or_outside_of_its_panel(picture: Figure, dpi: int) -> None:
    picture.set_dpi(dpi)  # that of an .svg file is 72
    picture.draw_without_rendering()
    for panel in picture.axes:
        boxes = {label.get_text(): Text.get_window_extent(label) for label in shown(panel)}
        edge = panel.get_window_extent()
        for (name, box), (other, other_box) in itertools.combinations(boxes.items(), 2):
            assert not box.overlaps(other_box), (name, other)
        for name, box in boxes.items():
            assert edge.containsx(box.x0), name
            assert edge.containsx(box.x1), name
            assert edge.containsy(box.y0), name
            assert edge.containsy(box.y1), name


def test_no_label_lies_on_a_point(picture: Figure) -> None:
    picture.draw_without_rendering()
    for panel in picture.axes:
        points = [
            point for marks in panel.collections for point in panel.transData.transform(np.asarray(marks.get_offsets()))
        ]
        for label in shown(panel):
            box = Text.get_window_extent(label)
            assert not any(box.contains(*point) for point in points), label.get_text()


def test_a_picture_can_be_without_ours() -> None:
    times = Times([1.0], [1.0])
    results = [Result(one, 3000, 1000, None, times, times) for one in contenders.contenders(1, {2}) if not one.ours]
    drawn = figure([(Measured(SAMPLE, results, {}), judge([one.figures() for one in results]))])
    assert {label.get_text() for label in shown(drawn.axes[0])} == {*PEERS, *OF_NUMBERS} - {"shuffle + QPL"}


def test_a_plot_file_is_a_png_and_nothing_is_left_beside_it(
    file: Path, result: subprocess.CompletedProcess[str]
) -> None:
    assert result.returncode == 0
    content = file.with_name("bench.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert b"IEND" in content[-12:]
    assert {path.name for path in file.parent.iterdir()} == {"numbers.npy", "bench.json", "bench.png"}


@pytest.mark.parametrize(("suffix", "beginning"), [(".svg", b"<?xml"), (".pdf", b"%PDF")])
@pytest.mark.usefixtures("few")
def test_a_plot_is_of_the_kind_that_its_name_tells(file: Path, tmp_path: Path, suffix: str, beginning: bytes) -> None:
    path = tmp_path / f"plot{suffix}"
    assert here(file, "--quick", "--plot", path) == 0
    assert path.read_bytes().startswith(beginning)


# ---- Honesty about hardware ---------------------------------------------------------------------


@pytest.mark.parametrize(("shown", "label"), [([], "emulated IAA"), ([DEVICE], "IAA")])
def test_only_what_linux_shows_is_called_an_iaa(
    monkeypatch: pytest.MonkeyPatch, shown: list[Device], label: str
) -> None:
    monkeypatch.setattr(contenders, "devices", lambda: shown)
    monkeypatch.setattr(contenders, "path_in_force", lambda: "hardware")
    monkeypatch.setattr(contenders, "get_path", lambda: "auto")
    everyone = {one.name: one for one in contenders.contenders(1, {2})}
    assert everyone[f"QPL, {label}"].judged == bool(shown)
    assert everyone["QPL, software path"].judged


def test_a_device_that_is_lost_on_the_way_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    calls = itertools.count(1)

    def encode(chunk: Any) -> bytes:
        if next(calls) > 1:
            raise _core.QplError("the device is gone")
        return bytes(chunk.tobytes())

    monkeypatch.setattr(run, "contenders", lambda *_: [replace(plain("QPL, IAA"), encode=encode)])
    assert here(file, "--quick") == 1
    assert capsys.readouterr().err == "numcodecs-qpl: error: the device is gone\n"


def test_wrong_data_from_a_device_is_no_reason_to_leave_it_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    def decode(data: bytes) -> bytes:
        raise _core.CorruptDataError("the checksum is wrong")

    device = replace(plain("QPL, IAA"), decode=decode, path="hardware")
    monkeypatch.setattr(Contender, "settle", lambda self: None)
    monkeypatch.setattr(run, "contenders", lambda *_: [device])
    assert here(file, "--quick") == 1
    assert capsys.readouterr().err == "numcodecs-qpl: error: QPL, IAA failed: the checksum is wrong\n"


@pytest.fixture(scope="module")
def emulated(file: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """Return the output of bench on the emulated IAA, by the path setting."""
    done = {}
    for setting in ("auto", "hardware"):
        changes = emulated_iaa.environment() | {"NUMCODECS_QPL_PATH": setting}
        done[setting] = bench(file, "--quick", "--chunk-size", "80K", **changes)
        assert (done[setting].returncode, done[setting].stderr) == (0, "")
    return done


def test_an_emulated_iaa_is_called_that_and_never_an_iaa(
    emulated: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    for done in emulated.values():
        assert "QPL, emulated IAA" in rows(done.stdout)
        said = " ".join(done.stdout.split())
        assert "IAA" not in said.replace("emulated IAA", "").replace("nothing of an IAA's speed", "")


def test_rows_of_an_emulated_iaa_are_not_judged(emulated: dict[str, subprocess.CompletedProcess[str]]) -> None:
    said = " ".join(emulated["auto"].stdout.split())
    assert "its rows show that the path works, and nothing of an IAA's speed" in said
    for name, cells in rows(emulated["auto"].stdout).items():
        assert (cells[5] == "-") == bool(re.search("emulated|threads|deflate", name)), name
    assert "emulated" not in said.partition("What to choose")[2]


def test_both_paths_are_measured_and_told_apart_where_both_can_be_used(
    emulated: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    names = {name for name in rows(emulated["auto"].stdout) if "QPL" in name and "threads" not in name}
    assert names == {
        *(f"{name}, software path" for name in (*OURS, "shuffle + QPL")),
        *(f"{name}, emulated IAA" for name in (*OURS, "shuffle + QPL")),
    }


def test_hardware_that_is_forced_is_measured_alone_and_nothing_is_said_of_ours(
    emulated: dict[str, subprocess.CompletedProcess[str]],
) -> None:
    names = {name for name in rows(emulated["hardware"].stdout) if "QPL" in name and "threads" not in name}
    assert names == {f"{name}, emulated IAA" for name in (*OURS, "shuffle + QPL")}
    assert "- QPL itself is not judged" in emulated["hardware"].stdout


def test_what_a_device_cannot_do_is_left_out_and_told(file: Path) -> None:
    changes = emulated_iaa.environment(max_transfer=1 << 15) | {"NUMCODECS_QPL_PATH": "hardware"}
    done = bench(file, "--quick", "--chunk-size", "80K", **changes)
    assert done.returncode == 0
    assert not any("QPL" in name for name in rows(done.stdout))
    said = " ".join(done.stdout.split())
    for name in (*OURS, "shuffle + QPL"):
        assert f"{name}, emulated IAA is left out: the device failed on block 0 of 2" in said


def test_blocks_that_hardware_left_to_software_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    counts = _core.stats()
    counts["fallback"] = {"QPL_STS_QUEUES_ARE_BUSY_ERR": 7}
    times = Times([1.0], [1.0])
    ours = replace(plain("QPL, IAA", gzip=True), family="QPL")
    results = [Result(ours, 3000, 1000, counts, times, times), Result(plain("gzip 1"), 3000, 1000, None, times, times)]
    table.show(Measured(SAMPLE, results, {}), judge([one.figures() for one in results]))
    said = capsys.readouterr().out
    assert "QPL, IAA: 7 blocks were done in software (QPL_STS_QUEUES_ARE_BUSY_ERR)." in said


def test_hardware_that_is_forced_and_missing_is_told_before_any_work(file: Path) -> None:
    if _core.hardware_init_status() == 0:
        pytest.skip('this machine has an IAA, so that the path setting "hardware" is no problem here')
    result = bench(file, "--quick", NUMCODECS_QPL_PATH="hardware")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("numcodecs-qpl: error: the hardware path cannot be used: ")


@pytest.mark.parametrize("variable", ["NUMCODECS_QPL_PATH", "NUMCODECS_QPL_THREADS"])
def test_a_setting_that_means_nothing_is_told_before_any_work(file: Path, variable: str) -> None:
    result = bench(file, "--quick", **{variable: "junk"})
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"numcodecs-qpl: error: {variable} is 'junk'; it must be ")


# ---- What goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_data_that_cannot_be_measured_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").touch()
    assert here(tmp_path / name, "--quick") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("numcodecs-qpl: error: ")
    assert said.err.count("\n") == 1


def test_a_folder_that_is_no_store_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert here(tmp_path, "--quick") == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"numcodecs-qpl: error: {tmp_path} is a folder, and not a zarr store: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--junk",),
        ("a", "b"),
        ("--sample", "0"),
        ("--sample", "257M"),
        ("--chunk-size", "1G"),
        ("--seconds", "0"),
        ("--seconds", "nan"),
        ("--quick", "--seconds", "5"),
        ("--plot", "plot.jpg"),
        ("--plot",),
    ],
)
def test_a_wrong_command_line_is_told_with_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert misuse(capsys, "bench", *arguments).startswith("usage: numcodecs-qpl")


def test_a_chunk_size_for_a_folder_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "a zarr store has chunks of its own" in misuse(capsys, "bench", str(tmp_path), "--chunk-size", "64K")


@pytest.mark.parametrize("name", ["data.npy", "data.json"])
def test_data_that_stands_where_json_wants_its_file_is_not_overwritten(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    data = tmp_path / name
    data.write_bytes(b'{"precious": 1}')
    if data.suffix == ".npy":  # the command line alone shows that it is data
        said = misuse(capsys, "bench", "--quick", "--json", str(data))
    else:
        assert here("--quick", "--json", data) == 1
        out, said = capsys.readouterr()
        assert out == ""
    assert "put the data before --json" in said
    assert data.read_bytes() == b'{"precious": 1}'


def test_the_data_is_not_overwritten_by_the_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "data.png").write_bytes(b"precious")
    misuse(capsys, "bench", f"{tmp_path}/data.png", "--quick", "--plot", f"{tmp_path}/./data.png")
    assert (tmp_path / "data.png").read_bytes() == b"precious"


@pytest.mark.usefixtures("few")
def test_a_document_may_be_written_anew(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.json"
    for _ in range(2):
        assert here(file, "--quick", "--json", path) == 0
    assert json.loads(path.read_text())["format"] == FORMAT


@pytest.mark.parametrize("arguments", [("--json", "no/bench.json"), ("--plot", "no/bench.png")])
def test_an_output_that_cannot_be_written_is_told_before_any_work(
    capsys: pytest.CaptureFixture[str], file: Path, arguments: tuple[str, ...]
) -> None:
    assert here(file, "--quick", *arguments) == 1
    said = f"numcodecs-qpl: error: {arguments[1]} cannot be written: the folder no does not exist\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.usefixtures("few")
def test_an_output_that_fails_leaves_what_was_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: Path, tmp_path: Path
) -> None:
    def fail(self: Figure, path: Path, **more: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "plot.png").write_bytes(b"before")
    monkeypatch.setattr(Figure, "savefig", fail)
    assert here(file, "--quick", "--plot", f"{tmp_path}/plot.png") == 1
    assert f"{tmp_path}/plot.png cannot be written: No space left on device" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]
    assert (tmp_path / "plot.png").read_bytes() == b"before"


# ---- What has to be installed -------------------------------------------------------------------


def without(*packages: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({packages!r}))\n"
        f"from numcodecs_qpl.cli import main\nsys.exit(main(['bench', *{arguments!r}]))"
    )
    return subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)


def test_what_is_missing_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for package in ("rich", "matplotlib", "zarr"):
        monkeypatch.setitem(sys.modules, package, None)
    assert here(tmp_path, "--plot", "plot.png") == 1
    said = "numcodecs-qpl: error: this needs rich, matplotlib, zarr: pip install rich matplotlib zarr\n"
    assert capsys.readouterr() == ("", said)


def test_a_package_of_the_wrong_version_is_told_with_the_command_that_installs_it(file: Path) -> None:
    result = without("rich.progress", arguments=[str(file), "--quick"])
    assert result.returncode == 1
    assert result.stderr.startswith("numcodecs-qpl: error: an installed package cannot be used (")
    assert result.stderr.endswith("): pip install --upgrade rich\n")


def test_a_file_without_a_plot_needs_none_of_these_and_without_isal_its_rows_are_left_out_and_that_is_told(
    file: Path,
) -> None:
    result = without("isal", "matplotlib", "zarr", arguments=[str(file), "--quick"])
    assert (result.returncode, result.stderr) == (0, "")
    names = [name for name in rows(result.stdout) if "threads" not in name]
    assert names == [*OURS, *(name for name in PEERS if not name.startswith("isal")), *OF_NUMBERS]
    assert "ISA-L's gzip is left out: it needs the package isal (pip install isal)." in result.stdout


# ---- Terminals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("terminal", "bar"), [("xterm-256color", True), ("dumb", False)])
def test_a_terminal_that_can_show_it_gets_a_progress_bar_beside_the_output(
    file: Path, terminal: str, bar: bool
) -> None:
    output, seen = on_terminal([PROGRAM, "bench", file, "--quick"], environment(TERM=terminal))
    assert "QPL" in rows(output)
    assert (b"%" in seen) == bar
    assert bar or seen == b""
