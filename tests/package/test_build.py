"""The build: what is linked, and the messages about missing libraries."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from numcodecs_qpl import _core

ROOT = Path(__file__).parents[2]
FETCH = ROOT / "build-aux/fetch_debian.py"
FETCH_QEMU = ROOT / "build-aux/fetch_qemu.py"
BUILD_TOOLS = {"cc", "cython", "meson"}
WITHOUT_COMPILER = "NUMCODECS_QPL_WITHOUT_COMPILER"
"""Environment variable that is set where there is to be nothing that builds, by tools/without_compiler.sh."""
LICENCE_WORDS = {
    "LICENSE": "The numcodecs-qpl developers",
    "libdeflate.txt": "The above copyright notice and this permission notice shall be",
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


def fetch(
    folder: Path, *arguments: str, path: str | None = None, tool: Path = FETCH
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tool), "--into", str(folder / "into"), *arguments],
        capture_output=True,
        text=True,
        # The tools import each other, which conftest.py turns off for all that tests start.
        env={**os.environ, "PATH": path if path is not None else os.environ["PATH"], "PYTHONSAFEPATH": ""},
        timeout=600,
    )


CORE = Path(_core.__file__).parent
EXTENSIONS = sorted(CORE.parent.rglob(f"*{EXTENSION_SUFFIXES[0]}"))


def dynamic(file: Path, tag: str) -> list[str]:
    """Values of a tag in the dynamic section of a library."""
    section = subprocess.run([tool("readelf"), "-d", str(file)], capture_output=True, text=True, check=True).stdout
    return re.findall(rf"\({tag}\).*\[(.*)\]", section)


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda file: file.name)
def test_an_extension_needs_no_libqpl_libdeflate_or_libaccel_config(extension: Path) -> None:
    needed = dynamic(extension, "NEEDED")
    assert needed
    assert not [name for name in needed if re.search("qpl|deflate|accel", name)]


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda file: file.name)
def test_an_extension_finds_the_isal_beside_it_and_searches_nowhere_else(extension: Path) -> None:
    beside = (CORE / "libisal.so.2").exists() and "libisal.so.2" in dynamic(extension, "NEEDED")
    assert dynamic(extension, "RUNPATH") + dynamic(extension, "RPATH") == ["$ORIGIN"] * beside


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda file: file.name)
def test_an_extension_shows_nothing_but_its_init_function(extension: Path) -> None:
    # With visible symbols, another version of a library in the process could be called in place of the linked one.
    command = [tool("nm"), "-D", "--defined-only", str(extension)]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"(\S+)$", symbols, re.MULTILINE) == [f"PyInit_{extension.name.partition('.')[0]}"]


def test_a_compiled_module_leaves_its_short_name_to_others(tmp_path: Path) -> None:
    for short in ("arguments", "blocks", "deflate"):
        (tmp_path / f"{short}.py").write_text("mine = True\n")
    code = (
        f"import sys, numcodecs_qpl; sys.path.insert(0, {str(tmp_path)!r}); import arguments, blocks, deflate; "
        "print(arguments.mine, blocks.mine, deflate.mine)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True True\n"
    for name in ("numcodecs_qpl._core.arguments", "numcodecs_qpl._core.blocks", "numcodecs_qpl.containers.deflate"):
        assert importlib.import_module(name).__name__ == name


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
    for word in ("libdeflate", "libqpl", "ISA-L", "BSD-3-Clause", "`LICENSES/`"):
        assert word in line


def test_without_apt_the_fetch_has_one_line_for_each_library_that_is_missing(tmp_path: Path) -> None:
    done = fetch(tmp_path, "libisal", "qpl", path="/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    reason = "through apt: apt-get is not on this machine"
    assert done.stderr == f"libisal\t{reason}\nqpl\t{reason}\n"


def test_a_qemu_is_fetched_only_if_it_is_not_there_yet(tmp_path: Path) -> None:
    there = tmp_path / "into/10.0"
    there.mkdir(parents=True)
    done = fetch(tmp_path, "10.0", "newest", path="/nonexistent", tool=FETCH_QEMU)
    assert (done.returncode, done.stdout) == (1, f"10.0\t{there}\n")
    assert done.stderr == "newest\tthrough apt: apt-get is not on this machine\n"


FLOORS = {"libisal": "2.30", "libdeflate": "1.14", "qpl": "1.5.0"}


def unpacked(folder: Path, name: str, version: str) -> Path:
    """A folder like an unpacked development package, without the library itself."""
    file = folder / f"usr/lib/x86_64-linux-gnu/pkgconfig/{name}.pc"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"Name: {name}\nVersion: {version}\n")
    return folder


def test_the_fetch_has_one_table_with_the_lowest_version_of_each_library() -> None:
    done = subprocess.run([sys.executable, str(FETCH), "--table"], capture_output=True, text=True, check=True)
    table = (line.split("\t") for line in done.stdout.splitlines())
    assert {name: floor for name, floor, _ in table} == FLOORS


@pytest.mark.parametrize("name", FLOORS)
def test_an_unpacked_package_that_is_too_old_or_not_whole_is_refused(tmp_path: Path, name: str) -> None:
    old = unpacked(tmp_path / "old", name, "1.4.9")
    done = fetch(tmp_path, name, "--unpacked", str(old))
    assert done.returncode
    assert done.stderr == f"{name}\tversion 1.4.9 from {old} is older than {FLOORS[name]}\n"
    part = unpacked(tmp_path / "part", name, "20.0")
    assert re.search(
        rf"usr/lib/\*\*/\S+ is missing below {part}", fetch(tmp_path, name, "--unpacked", str(part)).stderr
    )
    empty = tmp_path / "empty"
    assert f"{name}.pc is missing below {empty}" in fetch(tmp_path, name, "--unpacked", str(empty)).stderr


def source_in(folder: Path) -> Path:
    """A copy of what the build needs: meson writes into its source folder."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "tests"))
    return source


def configure(folder: Path, *choices: str) -> subprocess.CompletedProcess[str]:
    """Configure a build where pkg-config knows nothing."""
    meson = tool("meson")
    tool("cython")
    return subprocess.run(
        [sys.executable, meson, "setup", str(folder / "build"), str(source_in(folder)), *choices],
        capture_output=True,
        text=True,
        env={**os.environ, "PKG_CONFIG_LIBDIR": str(folder), "PKG_CONFIG_PATH": ""},
        timeout=300,
    )


def test_configuring_without_the_libraries_names_each_one_and_the_ways_on(tmp_path: Path) -> None:
    done = configure(tmp_path, "-Dsoftware_libraries=system", "-Dqpl=system")
    assert done.returncode
    message = done.stdout[done.stdout.index("ERROR: ") :]
    parts = [
        "Libraries are missing:",
        "  ISA-L >= 2.30: pkg-config does not know libisal >= 2.30",
        "  libdeflate >= 1.14: pkg-config does not know libdeflate >= 1.14",
        "apt-get install libisal-dev libisal2 libdeflate-dev",
        "Homebrew or conda-forge: isa-l libdeflate",
        "  1. ",
        "  2. ",
        "  3. ",
        "-Ddebian_root=DIR",
        "  libqpl >= 1.5.0: pkg-config does not know qpl >= 1.5.0",
        "  4. ",
        "-Dqpl=disabled",
    ]
    for part in parts:
        assert part in message


def test_a_folder_of_packages_that_has_no_libqpl_is_named_in_the_message(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    done = configure(tmp_path, f"-Ddebian_root={empty}")
    assert done.returncode
    for name in ("libisal", "libdeflate", "qpl"):
        assert f": usr/lib/**/pkgconfig/{name}.pc is missing below {empty}" in done.stdout


@pytest.mark.parametrize(("system", "cpu"), [("linux", "aarch64"), ("darwin", "x86_64")])
def test_a_host_other_than_linux_on_x86_64_is_not_asked_for_libqpl(tmp_path: Path, system: str, cpu: str) -> None:
    host = tmp_path / "host.ini"
    machine = {"system": system, "cpu_family": cpu, "cpu": cpu, "endian": "little"}
    binaries = {"c": tool("cc"), "cython": tool("cython")}
    lines = [f"{name} = '{word}'\n" for name, word in machine.items()]
    host.write_text(
        "".join(["[host_machine]\n", *lines, "[binaries]\n"] + [f"{a} = '{b}'\n" for a, b in binaries.items()])
    )
    done = configure(tmp_path, "-Dsoftware_libraries=system", "--cross-file", str(host))
    assert f"libqpl: not used, as it exists for linux on x86_64 only and this is {system} on {cpu}" in done.stdout
    message = done.stdout[done.stdout.index("ERROR: ") :]
    assert "ISA-L >= 2.30" in message
    assert "libqpl" not in message


def test_an_emulated_iaa_without_libqpl_is_refused(tmp_path: Path) -> None:
    done = configure(tmp_path, "-Dqpl=disabled", "-Demulated_iaa=true")
    assert done.returncode
    assert "The emulated IAA is for libqpl, and this build has none" in done.stdout
