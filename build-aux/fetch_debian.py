"""Get libraries out of Debian's packages, through apt, into a folder of the build.

Meson calls this for the libraries that pkg-config does not know. Nothing is installed and root is not needed: apt works
on a private state below the build folder, with the machine's own mirror and keyring, so it verifies each package as
usual. The result is cached: a second call returns at once.

For each library, in the order of the arguments, three lines are printed: the include folder, the file to link, and a
description. With --sources one line is printed: the folder with the library's source. If a library cannot be had,
standard error has one line for it: its name, a tab and the reason. The exit code is then 1.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Debian's builds want these symbols of glibc 2.38. The older functions differ only in not knowing C23's "0b".
NEWER_GLIBC = {"__isoc23_strtol": "strtol", "__isoc23_strtoll": "strtoll"}
# Suites whose source archives are accepted too: not every mirror has those of the newest.
OLDER_SUITES = ("trixie",)
TIMEOUT = 300


class Library(NamedTuple):
    """Source of a library, and the files to take from its packages."""

    packages: tuple[str, ...]
    suites: tuple[str, ...]
    floor: str
    """Lowest version that is accepted."""
    file: str
    """The file to link: a static library, or a shared one under the name that the dynamic linker looks for."""


LIBRARIES = {
    "libisal": Library(("libisal-dev", "libisal2"), ("forky", "sid"), "2.30", "libisal.so.2"),
    "libdeflate": Library(("libdeflate-dev",), ("forky", "sid"), "1.14", "libdeflate.a"),
    # 1.5.0 is the first version with a pkg-config file, and QEMU's floor too.
    "qpl": Library(("libqpl-dev",), ("forky", "sid"), "1.5.0", "libqpl.a"),
}
"""All that a build may need, by the name that pkg-config has for it."""


class FetchError(Exception):
    """Return a failed attempt and its reason, in one line."""


def run(*command: str | Path, folder: Path | None = None) -> str:
    """Return the standard output of a command run in `folder`, or raise FetchError with its first error."""
    program = str(command[0])
    if shutil.which(program) is None:
        raise FetchError(f"{program} is not on this machine")
    try:
        words = [str(word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, cwd=folder)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{program} gave no answer in {TIMEOUT} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        # apt begins its errors with "E:", the most telling one first. Other programs put theirs last.
        errors = [line for line in lines if line.startswith("E:")] or lines[-1:]
        raise FetchError(f"{program}: {errors[0]}")
    return done.stdout


def mirrors() -> list[str]:
    """Base URIs of the package repositories that this machine's apt uses, likely Debian archives first."""
    uris = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    return sorted(dict.fromkeys(uris), key=lambda uri: not uri.rstrip("/").endswith("/debian"))


class PrivateApt:
    """An apt state of our own, below a folder, for one suite of one mirror.

    Unless `installed`, apt takes it that the machine has no package at all: an install downloads every dependency.
    """

    def __init__(self, folder: Path, uri: str, suite: str, kind: str, *, installed: bool = True) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("lists/partial", "cache/archives/partial", "parts"):
            (folder / name).mkdir(parents=True)
        sources = folder / "sources.list"
        sources.write_text(f"{kind} [signed-by={KEYRING}] {uri} {suite} main\n")
        self._options = [
            f"-o{key}={value}"
            for key, value in {
                "Dir::State::Lists": folder / "lists",
                "Dir::Cache": folder / "cache",
                "Dir::Etc::SourceList": sources,
                "Dir::Etc::SourceParts": folder / "parts",
                "APT::Sandbox::User": "root",
                "APT::Update::Error-Mode": "any",
            }.items()
        ]
        if not installed:
            status = folder / "status"
            status.touch()
            self._options.append(f"-oDir::State::Status={status}")
        self("update")

    def __call__(self, *command: str, folder: Path | None = None) -> None:
        """Run apt-get in `folder`."""
        run("apt-get", *self._options, "-qq", *command, folder=folder)


def download(wanted: Iterable[str], folder: Path, *, sources: bool = False) -> dict[str, str]:
    """Download the packages of libraries, or their sources, into a folder for each, `folder`/NAME, verified by apt.

    A library comes from the first mirror and suite that has all its packages. Returns why the others could not be had.
    """
    left = list(wanted)
    if not KEYRING.exists():
        return dict.fromkeys(left, f"{KEYRING} is missing (package debian-archive-keyring)")
    try:
        uris = mirrors()
    except FetchError as error:
        return dict.fromkeys(left, str(error))
    suites = {name: LIBRARIES[name].suites + (OLDER_SUITES if sources else ()) for name in left}
    tried: dict[str, list[str]] = {name: [] for name in left}
    for uri in uris:
        for suite in dict.fromkeys(suite for name in left for suite in suites[name]):
            here = [name for name in left if suite in suites[name]]
            if not here:
                continue
            try:
                apt = PrivateApt(folder / "apt", uri, suite, "deb-src" if sources else "deb")
            except FetchError as error:
                for name in here:
                    tried[name].append(f"{suite}: {error}")
                continue
            for name in here:
                target = folder / name
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir(parents=True)
                packages = LIBRARIES[name].packages
                try:
                    if sources:
                        # Without Debian's changes, which are about packaging.
                        apt("source", "--download-only", "--tar-only", packages[0], folder=target)
                    else:
                        apt("download", *packages, folder=target)
                except FetchError as error:
                    tried[name].append(f"{suite}: {error}")
                    continue
                left.remove(name)
    shutil.rmtree(folder / "apt", ignore_errors=True)
    return {name: "; ".join(tried[name]) or "apt knows no package repository (apt-get update first?)" for name in left}


def found_in(root: Path, pattern: str) -> Path | None:
    """Return the first file below the library folders of `root` that fits, or None."""
    return next(iter(sorted(root.glob(f"usr/lib/**/{pattern}"))), None)


def unpack(names: Iterable[str], into: Path) -> dict[str, str]:
    """Download libraries and unpack them into `into`/root, beside what is there. Returns why some could not be had."""
    packages = into / "packages"
    failed = download(names, packages)
    root, fresh = into / "root", into / "root.new"
    # The folder is replaced as a whole: a build that is interrupted here leaves no half of a package.
    shutil.rmtree(fresh, ignore_errors=True)
    if root.exists():
        shutil.copytree(root, fresh, symlinks=True)
    for name in names:
        if name not in failed:
            for package in sorted((packages / name).glob("*.deb")):
                run("dpkg-deb", "-x", package, fresh)
    shutil.rmtree(packages, ignore_errors=True)
    if fresh.exists():
        shutil.rmtree(root, ignore_errors=True)
        fresh.rename(root)
    return failed


def version_in(root: Path, name: str) -> str:
    """Version of a library in `root`, by its pkg-config file."""
    file = found_in(root, f"pkgconfig/{name}.pc")
    if file is None:
        raise FetchError(f"usr/lib/**/pkgconfig/{name}.pc is missing below {root}")
    for line in file.read_text().splitlines():
        if line.startswith("Version:"):
            return line.partition(":")[2].strip()
    raise FetchError(f"{file} has no Version")


def at_least(version: str, floor: str) -> bool:
    """Compare dotted version numbers."""
    return [int(part) for part in version.split(".")] >= [int(part) for part in floor.split(".")]


def take(name: str, root: Path, into: Path, origin: str) -> tuple[Path, Path, str]:
    """Copy a library out of `root` into `into`; return the include folder, the copy and a description."""
    library = LIBRARIES[name]
    version = version_in(root, name)
    if not at_least(version, library.floor):
        raise FetchError(f"version {version} {origin} is older than {library.floor}")
    found = found_in(root, library.file)
    if found is None:
        raise FetchError(f"usr/lib/**/{library.file} is missing below {root}")
    target = into / library.file
    if found.suffix == ".a":
        run("objcopy", *(f"--redefine-sym={new}={old}" for new, old in NEWER_GLIBC.items()), found, target)
        how = "linked statically"
    else:
        shutil.copyfile(found, target)
        how = "installed beside the extensions"
    return root / "usr/include", target, f"{version}, {origin}, {how}"


def fetch(names: list[str], into: Path, unpacked: Path | None) -> tuple[list[tuple[Path, Path, str]], dict[str, str]]:
    """Get libraries, and return what was found of each and why others could not be had."""
    into.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    if unpacked is None:
        missing = [name for name in names if found_in(into / "root", f"pkgconfig/{name}.pc") is None]
        try:
            failed = (
                {name: f"through apt: {reason}" for name, reason in unpack(missing, into).items()} if missing else {}
            )
        except FetchError as error:
            failed = dict.fromkeys(missing, str(error))
    found = []
    for name in names:
        if name in failed:
            continue
        origin = f"from {unpacked}" if unpacked else f"from Debian's {' and '.join(LIBRARIES[name].packages)}"
        try:
            found.append(take(name, unpacked or into / "root", into, origin))
        except FetchError as error:
            failed[name] = str(error)
    return found, failed


def fetch_sources(names: list[str], into: Path) -> tuple[list[Path], dict[str, str]]:
    """Get the sources of libraries; return the folder of each, and why others could not be had."""
    folders = {name: into / "sources" / name for name in names}
    missing = [name for name in names if not folders[name].exists()]
    failed = {}
    if missing:
        archives = into / "archives"
        failed = {
            name: f"source, through apt: {reason}" for name, reason in download(missing, archives, sources=True).items()
        }
        for name in missing:
            if name in failed:
                continue
            fresh = folders[name].with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            try:
                for archive in (archives / name).glob("*.orig.tar.*"):
                    run("tar", "-x", "--strip-components=1", "-f", archive, "-C", fresh)
            except FetchError as error:
                failed[name] = str(error)
                continue
            fresh.rename(folders[name])
        shutil.rmtree(archives, ignore_errors=True)
    return [folders[name] for name in names if name not in failed], failed


def main() -> int:
    """Command line of this script; the exit code says whether every library was had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", action="store_true", help="print name, lowest version and packages of each library")
    what.add_argument("--into", type=Path, help="folder for the result")
    parser.add_argument(
        "--unpacked", default="", metavar="DIR", help="take the libraries from unpacked packages in DIR"
    )
    parser.add_argument("--sources", action="store_true", help="get the sources, for a build with other compiler flags")
    parser.add_argument("names", metavar="NAME", nargs="*", choices=[[], *LIBRARIES], help=", ".join(LIBRARIES))
    options = parser.parse_args()
    if options.table:
        for name, library in LIBRARIES.items():
            print(name, library.floor, " ".join(library.packages), sep="\t")
        return 0
    unpacked = Path(options.unpacked).resolve() if options.unpacked else None
    into = options.into.resolve()
    if options.sources:
        folders, failed = fetch_sources(options.names, into)
        print(*folders, sep="\n")
    else:
        found, failed = fetch(options.names, into, unpacked)
        for lines in found:
            print(*lines, sep="\n")
    for name, reason in failed.items():
        print(name, reason, sep="\t", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
