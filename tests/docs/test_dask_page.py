"""docs/dask.md: its programs are run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import zarr
from pages import blocks

PAGE = Path(__file__).parents[2] / "docs/dask.md"
DASK, XARRAY, LOADER = [code.text for code in blocks(PAGE) if code.language == "python"]
(PRELOAD,) = re.findall(r"--preload (\S+)`", PAGE.read_text())

# What the page says of a fork amid threads, word for word.
(IGNORED,) = re.findall(r'filterwarnings\("ignore", "(.*?)", DeprecationWarning\)', PAGE.read_text())
SILENCED = f"""import warnings
warnings.filterwarnings("ignore", "{IGNORED}", DeprecationWarning)
"""


def run(program: str, folder: Path) -> list[str]:
    """Run a program of the page in a folder; the lines that it printed."""
    path = folder / "program.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", path], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def compressors(store: Path) -> list[str]:
    array = zarr.open_array(store, mode="r")
    assert array.nchunks_initialized == array.nchunks
    return [type(codec).__name__ for codec in array.compressors]


@pytest.mark.timeout(180)
def test_the_program_for_dask_runs_and_tells_what_each_worker_did(tmp_path: Path) -> None:
    mean, *counts = run(DASK, tmp_path)
    assert float(mean) == pytest.approx(24.5, abs=0.05)
    assert len(counts) == 2
    done = [sum(map(int, re.findall(r"'compressed': (\d+)", line))) for line in counts]
    # 16 chunks of 2,000,000 bytes: in 31 blocks each by our codec, and in one piece by gzip
    assert sum(done) == 16 * 31 + 16
    assert compressors(tmp_path / "a.zarr") == ["QPL"]
    assert compressors(tmp_path / "b.zarr") == ["GzipCodec"]


def test_the_preload_text_names_the_module_that_the_program_has_workers_preload() -> None:
    assert f'"distributed.worker.preload": ["{PRELOAD}"]' in DASK


def test_the_program_for_xarray_runs(tmp_path: Path) -> None:
    assert run(XARRAY, tmp_path) == ["0.0"]
    assert compressors(tmp_path / "a.zarr/t") == ["QPL"]
    assert compressors(tmp_path / "b.zarr/t") == ["GzipCodec"]


@pytest.mark.timeout(180)
def test_the_program_for_forked_loaders_runs_with_the_warning_silenced_as_the_page_says(tmp_path: Path) -> None:
    assert run(SILENCED + LOADER, tmp_path) == []
