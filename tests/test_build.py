"""The build: what is linked, and what is said where libqpl can't be had."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from engine import needs_libqpl

ROOT = Path(__file__).parents[1]
FETCH = ROOT / "tools/fetch_libqpl.py"
BUILD_TOOLS = {"cython", "meson"}
WITHOUT_COMPILER = "NUMCODECS_QPL_WITHOUT_COMPILER"
"""Environment variable that is set where there is to be nothing that builds, by tools/without_compiler.sh."""
LICENCE_WORDS = {
    "LICENSE": "The numcodecs-qpl developers",
    "libqpl.txt": "The above copyright notice and this permission notice shall be included",
    "isa-l.txt": "Redistributions in binary form must reproduce the above copyright",
}


def tool(name: str) -> str:
    """Path of a program that the tests need."""
    found = shutil.which(name)
    if found is None and name in BUILD_TOOLS and os.environ.get(WITHOUT_COMPILER):
        pytest.skip(f"{name} is not here, as {WITHOUT_COMPILER} says")
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


@needs_libqpl
@pytest.mark.parametrize("extension", ["_jobs", "_batch"])
def test_the_extension_needs_no_libqpl_and_no_libaccel_config(extension: str) -> None:
    file = str(importlib.import_module(f"numcodecs_qpl._core.{extension}").__file__)
    dynamic = subprocess.run([tool("readelf"), "-d", file], capture_output=True, text=True, check=True).stdout
    needed = [line for line in dynamic.splitlines() if "NEEDED" in line]
    assert needed
    assert not [line for line in needed if "qpl" in line or "accel" in line]


@needs_libqpl
@pytest.mark.parametrize("extension", ["_jobs", "_batch"])
def test_the_extension_shows_nothing_but_its_init_function(extension: str) -> None:
    # Another libqpl in the process, of another version, would else be called in place of the one that is linked in.
    file = str(importlib.import_module(f"numcodecs_qpl._core.{extension}").__file__)
    symbols = subprocess.run([tool("nm"), "-D", "--defined-only", file], capture_output=True, text=True, check=True)
    assert re.findall(r"(\S+)$", symbols.stdout, re.MULTILINE) == [f"PyInit_{Path(file).name.partition('.')[0]}"]


@pytest.mark.parametrize("name", ["arguments", "blocks"])
def test_a_compiled_module_leaves_its_short_name_to_others(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("mine = True\n")
    code = f"import sys, numcodecs_qpl; sys.path.insert(0, {str(tmp_path)!r}); import {name}; print({name}.mine)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert importlib.import_module(f"numcodecs_qpl._core.{name}").__name__ == f"numcodecs_qpl._core.{name}"


def test_importing_the_package_imports_no_zarr_and_nothing_of_the_demo() -> None:
    code = "import sys, numcodecs_qpl; print(sorted({'zarr', 'rich', 'h5py', 'pvlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_licences_of_all_that_is_linked_in_come_along_and_metadata_and_readme_name_them() -> None:
    files = importlib.metadata.files("numcodecs-qpl") or []
    texts = {file.name: file.read_text() for file in files if "licenses" in file.parts}
    assert texts == {file.name: file.read_text() for file in (ROOT / "LICENSE", *(ROOT / "LICENSES").iterdir())}
    for name, words in LICENCE_WORDS.items():
        assert words in texts[name]
    assert importlib.metadata.metadata("numcodecs-qpl")["License-Expression"] == "MIT AND BSD-3-Clause"
    readme = (ROOT / "README.md").read_text().splitlines()
    line = next(line for line in readme if line.startswith("MIT licence"))
    for word in ("libqpl", "ISA-L", "BSD-3-Clause", "`LICENSES/`"):
        assert word in line


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


def source_in(folder: Path) -> Path:
    """A copy of what the build needs: meson writes into its source folder."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "tests"))
    return source


def test_configuring_without_libqpl_stops_with_what_was_looked_for_and_four_ways_on(tmp_path: Path) -> None:
    meson = tool("meson")
    tool("cython")
    done = subprocess.run(
        [meson, "setup", str(tmp_path / "build"), str(source_in(tmp_path)), "-Dqpl=system"],
        capture_output=True,
        text=True,
        env={**os.environ, "PKG_CONFIG_LIBDIR": str(tmp_path)},
        timeout=300,
    )
    message = done.stdout[done.stdout.index("ERROR: ") :]
    assert done.returncode
    for part in (
        "libqpl was not found",
        "Looked for: pkg-config knows no qpl >= 1.5.0",
        "  1. ",
        "  2. ",
        "  3. ",
        "  4. ",
    ):
        assert part in message


HOSTS = {"linux": "aarch64", "darwin": "aarch64", "freebsd": "x86_64"}


@pytest.mark.parametrize("system", ["disabled", *HOSTS])
def test_the_build_without_libqpl_needs_no_compiler_and_installs_python_alone(tmp_path: Path, system: str) -> None:
    meson = tool("meson")
    choice = ["-Dqpl=disabled"]
    if system != "disabled":
        host = tmp_path / "host.ini"
        machine = {"system": system, "cpu_family": HOSTS[system], "cpu": HOSTS[system], "endian": "little"}
        host.write_text("[host_machine]\n" + "".join(f"{name} = '{word}'\n" for name, word in machine.items()))
        choice = ["--cross-file", str(host)]
    nothing = {"PATH": "/nonexistent", "HOME": str(tmp_path)}
    plain = ["--backend=none", "--prefix=/usr", "-Dpython.bytecompile=-1"]
    for command in (
        ["setup", *plain, str(tmp_path / "build"), str(source_in(tmp_path)), *choice],
        ["install", "-C", str(tmp_path / "build"), "--no-rebuild", "--destdir", str(tmp_path / "installed")],
    ):
        # Not by its own first line, which may look for python in PATH.
        subprocess.run([sys.executable, meson, *command], env=nothing, check=True, capture_output=True, timeout=300)
    files = [path for path in (tmp_path / "installed").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".py", ".pyi", ".typed"}
    (built,) = (path for path in files if path.name == "_built.py")
    assert "WITH_LIBQPL = False" in built.read_text()
    package = built.parents[1]
    installed = {str(path.relative_to(package)) for path in files if path.suffix == ".py"}
    sources = {str(path.relative_to(ROOT / "numcodecs_qpl")) for path in (ROOT / "numcodecs_qpl").rglob("*.py")}
    assert installed == sources | {"_core/_built.py"}


def test_an_emulated_iaa_without_libqpl_is_refused(tmp_path: Path) -> None:
    choices = ["-Dqpl=disabled", "-Demulated_iaa=true"]
    done = subprocess.run(
        [sys.executable, tool("meson"), "setup", str(tmp_path / "build"), str(source_in(tmp_path)), *choices],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode
    assert "The emulated IAA is for libqpl, and this build has none" in done.stdout
