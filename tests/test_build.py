"""The build: what is linked, and what is said where libqpl can't be had."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from numcodecs_qpl._core import _batch, _jobs

ROOT = Path(__file__).parents[1]
FETCH = ROOT / "tools/fetch_libqpl.py"


def tool(name: str) -> str:
    """Path of a program that the tests need."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not on this machine")
    if found is None:
        pytest.skip(f"{name} is not on this machine")
    return found


def fetch(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FETCH), "--into", str(folder / "into"), "--floor", "1.5.0", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path if path is not None else os.environ["PATH"]},
        timeout=600,
    )


@pytest.mark.parametrize("extension", [_jobs, _batch])
def test_the_extension_needs_no_libqpl_and_no_libaccel_config(extension: object) -> None:
    file = str(extension.__file__)  # type: ignore[attr-defined]
    dynamic = subprocess.run([tool("readelf"), "-d", file], capture_output=True, text=True, check=True).stdout
    needed = [line for line in dynamic.splitlines() if "NEEDED" in line]
    assert needed
    assert not [line for line in needed if "qpl" in line or "accel" in line]


def test_importing_the_package_imports_no_zarr_and_nothing_of_the_demo() -> None:
    code = "import sys, numcodecs_qpl; print(sorted({'zarr', 'rich', 'h5py', 'pvlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_licence_of_what_is_linked_in_comes_along() -> None:
    files = importlib.metadata.files("numcodecs-qpl") or []
    texts = [file.read_text() for file in files if "licenses" in file.parts]
    assert any("The numcodecs-qpl developers" in text for text in texts)
    assert any("Intel Corporation" in text for text in texts)


def test_without_apt_the_fetch_says_so_in_one_line(tmp_path: Path) -> None:
    done = fetch(tmp_path, path="/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "libqpl-dev through apt: apt-get is not on this machine\n"


def unpacked(folder: Path, version: str) -> Path:
    """A folder like an unpacked libqpl-dev."""
    header = folder / "usr/include/qpl/c_api/project_version.h"
    header.parent.mkdir(parents=True)
    header.write_text(f'#define QPL_VERSION "{version}"\n')
    return folder


def test_an_unpacked_package_that_is_too_old_or_not_whole_is_refused(tmp_path: Path) -> None:
    old = unpacked(tmp_path / "old", "1.4.0")
    assert "libqpl 1.4.0 from" in fetch(tmp_path, "--unpacked", str(old)).stderr
    assert "is older than 1.5.0" in fetch(tmp_path, "--unpacked", str(old)).stderr
    part = unpacked(tmp_path / "part", "1.10.0")
    assert f"no usr/lib/**/libqpl.a below {part}" in fetch(tmp_path, "--unpacked", str(part)).stderr
    assert "project_version.h" in fetch(tmp_path, "--unpacked", str(tmp_path / "none")).stderr


def test_configuring_without_libqpl_stops_with_what_was_looked_for_and_three_ways_on(tmp_path: Path) -> None:
    meson = tool("meson")
    tool("cython")
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "tests"))
    done = subprocess.run(
        [meson, "setup", str(tmp_path / "build"), str(source), "-Dqpl=system"],
        capture_output=True,
        text=True,
        env={**os.environ, "PKG_CONFIG_LIBDIR": str(tmp_path)},
        timeout=300,
    )
    message = done.stdout[done.stdout.index("ERROR: ") :]
    assert done.returncode
    for part in ("libqpl was not found", "Looked for: pkg-config knows no qpl >= 1.5.0", "  1. ", "  2. ", "  3. "):
        assert part in message
