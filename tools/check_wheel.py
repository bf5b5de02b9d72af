"""Check the contents of an sdist and of the wheels that were built from it.

An sdist has the files that git has. A wheel has the package's Python files, its compiled extensions, ISA-L's shared
library, all licences and a correct RECORD, and no other files. The extensions need only what the platform tag promises
and the ISA-L beside them, which $ORIGIN is their only search path for. They export their init function only.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path, PurePosixPath

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/numcodecs_qpl"
NOT_COMPILED = {"no_iaa"}
"""Cython sources that are not built into these wheels: they replace the module `iaa` where libqpl is not linked."""

ISAL = "libisal.so.2"
"""ISA-L's shared library, which lies beside the extensions."""

SYSTEM_LIBRARIES = {"ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6", "libstdc++.so.6"}
"""Libraries that an extension may need: those that the manylinux policies leave to the system."""


def differences(found: set[str], expected: set[str]) -> Iterator[str]:
    """Names that are missing, and names that should not be there."""
    yield from (f"{name} is missing" for name in sorted(expected - found))
    yield from (f"{name} should not be there" for name in sorted(found - expected))


def wrong_in_sdist(path: Path) -> Iterator[str]:
    """Problems of an sdist."""
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-tree", "-r", "-z", "--name-only", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    )
    top = path.name.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        found = {member.name for member in archive if not member.isdir()}
    yield from differences(found, {f"{top}/{name}" for name in (*listing.stdout.split("\0")[:-1], "PKG-INFO")})


def expected_files(wheel_name: str) -> set[str]:
    """Names of all files that a wheel of this name should have."""
    name, version, python, *_ = wheel_name.split("-")
    info = f"{name}-{version}.dist-info"
    licences = [ROOT / "LICENSE", *(ROOT / "LICENSES").iterdir()]
    modules = [file for file in PACKAGE.rglob("*.pyx") if file.stem not in NOT_COMPILED]
    suffix = f".cpython-{python.removeprefix('cp')}-x86_64-linux-gnu.so"
    return {
        *(f"{info}/{file}" for file in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")),
        *(f"{info}/licenses/{file.relative_to(ROOT)}" for file in licences),
        *(
            str(file.relative_to(PACKAGE.parent))
            for file in PACKAGE.rglob("*")
            if file.suffix in {".py", ".pyi", ".typed"}
        ),
        *(str(file.relative_to(PACKAGE.parent).with_suffix(suffix)) for file in modules),
        f"{PACKAGE.name}/_core/{ISAL}",
    }


def wrong_in_record(archive: zipfile.ZipFile, record: str) -> Iterator[str]:
    """Problems of RECORD, which has each file's SHA-256 and size."""
    rows = list(csv.reader(io.StringIO(archive.read(record).decode())))
    files = {name for name in archive.namelist() if not name.endswith("/")}
    yield from (f"RECORD: {problem}" for problem in differences({row[0] for row in rows}, files))
    for name, digest, size in rows:
        if name == record or name not in files:
            continue
        data = archive.read(name)
        actual = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        if (digest, size) != (f"sha256={actual}", str(len(data))):
            yield f"RECORD has {digest}, {size} bytes of {name}, which is sha256={actual}, {len(data)} bytes"


def wrong_in_library(name: str, data: bytes, glibc: tuple[int, ...]) -> Iterator[str]:
    """Problems of an extension, or of the ISA-L beside it, that is to run on the version `glibc`."""
    elf = ELFFile(io.BytesIO(data))
    file = PurePosixPath(name).name
    needed: set[str] = set()
    paths: set[str] = set()
    kept = {"DT_NEEDED": needed, "DT_RPATH": paths, "DT_RUNPATH": paths}
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                kind = tag.entry.d_tag
                if kind in kept:
                    kept[kind].add(getattr(tag, kind.removeprefix("DT_").lower()))
        if isinstance(section, GNUVerNeedSection):
            for library, versions in section.iter_versions():
                for version in versions:
                    number = re.fullmatch(r"GLIBC_([0-9.]+)", version.name)
                    if number and tuple(int(part) for part in number[1].split(".")) > glibc:
                        yield f"{name} wants {version.name} of {library.name}"
        if isinstance(section, SymbolTableSection) and section.name == ".dynsym" and file != ISAL:
            shown = {symbol.name for symbol in section.iter_symbols() if symbol["st_shndx"] != "SHN_UNDEF"}
            init = f"PyInit_{file.partition('.')[0]}"
            yield from (f"{name}: symbol {problem}" for problem in differences(shown, {init}))
    yield from (f"{name} needs {library}" for library in sorted(needed - SYSTEM_LIBRARIES - {ISAL}))
    expected = {"$ORIGIN"} if ISAL in needed else set()
    if paths != expected:
        yield f"{name} has the search paths {sorted(paths)}, expected: {sorted(expected)}"


def wrong_in_wheel(path: Path) -> Iterator[str]:
    """Problems of a wheel."""
    name, version, *tag = path.stem.split("-")
    platform = re.fullmatch(r"manylinux_(\d+)_(\d+)_x86_64", tag[-1])
    if platform is None:
        yield f"{'-'.join(tag)} is not a manylinux tag"
        return
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path) as archive:
        files = {file for file in archive.namelist() if not file.endswith("/")}
        yield from differences(files, expected_files(path.stem))
        yield from wrong_in_record(archive, f"{info}/RECORD")
        for file in sorted(files):
            data = archive.read(file)
            if file.endswith((".so", f"/{ISAL}")):
                yield from wrong_in_library(file, data, (int(platform[1]), int(platform[2])))
            elif "/licenses/" in file and data != (ROOT / file.partition("/licenses/")[2]).read_bytes():
                yield f"{file} is not the text of this checkout"
        tags = message_from_bytes(archive.read(f"{info}/WHEEL")).get_all("Tag")
        metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
    if tags != ["-".join(tag)]:
        yield f"WHEEL has the tags {tags}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for field, key in {"Name": "name", "Version": "version", "License-Expression": "license"}.items():
        if metadata[field] != project[key]:
            yield f"METADATA: {field} is {metadata[field]}, not {project[key]}"
    # auditwheel's policies have the symbol versions of libstdc++ that the tag allows.
    show = [sys.executable, "-m", "auditwheel", "show", str(path)]
    verdict = " ".join(subprocess.run(show, capture_output=True, text=True, check=True).stdout.split())
    if f'consistent with the following platform tag: "{tag[-1]}"' not in verdict:
        yield f"auditwheel says: {verdict}"


def main() -> int:
    """Command line of this script; the exit code says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="an sdist (.tar.gz) or a wheel")
    bad = False
    for path in parser.parse_args().files:
        problems = list((wrong_in_sdist if path.name.endswith(".tar.gz") else wrong_in_wheel)(path))
        print(f"{path.name}: {'as it should be' if not problems else ''}")
        for problem in problems:
            print(f"  {problem}", file=sys.stderr)
        bad = bad or bool(problems)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
