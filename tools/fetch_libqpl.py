"""Get Debian's libqpl-dev through apt, into a folder of the build, and make it linkable here.

Called by meson when pkg-config knows no libqpl. Nothing is installed and no root is needed: apt works on a
private state below the build folder, with the machine's own mirror and keyring, so the package is verified
as any other. The result is cached: a second call returns at once.

Prints three lines: the include folder, the static library, and what it is.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "libqpl-dev"
SUITES = ("forky", "sid")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The two symbols of glibc 2.38 in Debian's build; older ones are the same functions without C23's "0b".
NEWER_GLIBC = {"__isoc23_strtol": "strtol", "__isoc23_strtoll": "strtoll"}
TIMEOUT = 300


class FetchError(Exception):
    """What was tried and why it did not work, in one line."""


def run(*command: str | Path) -> str:
    """Run a command; its standard output, or FetchError with what it said last."""
    program = str(command[0])
    if shutil.which(program) is None:
        raise FetchError(f"{program} is not on this machine")
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{program} gave no answer in {TIMEOUT} s") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise FetchError(f"{program}: {lines[-1]}")
    return done.stdout


def mirrors() -> list[str]:
    """Base URIs of the package repositories that this machine's apt uses, likely Debian archives first."""
    uris = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    return sorted(dict.fromkeys(uris), key=lambda uri: not uri.rstrip("/").endswith("/debian"))


def download(folder: Path) -> Path:
    """Download the newest libqpl-dev that a mirror of this machine offers, verified by apt."""
    if not KEYRING.exists():
        raise FetchError(f"{KEYRING} is missing (package debian-archive-keyring)")
    tried = []
    for uri in mirrors():
        for suite in SUITES:
            state = folder / "apt"
            shutil.rmtree(state, ignore_errors=True)
            for name in ("lists/partial", "cache/archives/partial", "parts"):
                (state / name).mkdir(parents=True)
            sources = state / "sources.list"
            sources.write_text(f"deb [signed-by={KEYRING}] {uri} {suite} main\n")
            options = [
                f"-o{key}={value}"
                for key, value in {
                    "Dir::State::Lists": state / "lists",
                    "Dir::Cache": state / "cache",
                    "Dir::Etc::SourceList": sources,
                    "Dir::Etc::SourceParts": state / "parts",
                    "APT::Sandbox::User": "root",
                    "APT::Update::Error-Mode": "any",
                }.items()
            ]
            try:
                run("apt-get", *options, "-qq", "update")
                subprocess_folder = folder / "download"
                shutil.rmtree(subprocess_folder, ignore_errors=True)
                subprocess_folder.mkdir()
                run("env", "-C", subprocess_folder, "apt-get", *options, "-qq", "download", PACKAGE)
            except FetchError as error:
                tried.append(f"{suite}: {error}")
                continue
            finally:
                shutil.rmtree(state, ignore_errors=True)
            return next(subprocess_folder.glob(f"{PACKAGE}_*.deb"))
    raise FetchError("; ".join(tried) or "apt knows no package repository (apt-get update first?)")


def static_library(unpacked: Path, folder: Path) -> Path:
    """Copy libqpl.a out of an unpacked package, linkable on glibc older than 2.38 too."""
    found = sorted(unpacked.glob("usr/lib/**/libqpl.a"))
    if not found:
        raise FetchError(f"no usr/lib/**/libqpl.a below {unpacked}")
    target = folder / "libqpl.a"
    renames = [f"--redefine-sym={new}={old}" for new, old in NEWER_GLIBC.items()]
    run("objcopy", *renames, found[0], target)
    return target


def version_of(include: Path) -> str:
    """Version of the libqpl whose headers are in `include`."""
    header = include / "qpl/c_api/project_version.h"
    if not header.exists():
        raise FetchError(f"no {header}")
    for line in header.read_text().splitlines():
        if line.startswith("#define QPL_VERSION "):
            return line.split('"')[1]
    raise FetchError(f"{header} names no QPL_VERSION")


def at_least(version: str, floor: str) -> bool:
    """Compare dotted version numbers."""
    return [int(part) for part in version.split(".")] >= [int(part) for part in floor.split(".")]


def fetch(into: Path, unpacked: Path | None, floor: str) -> tuple[Path, Path, str]:
    """Include folder, static library and description of a libqpl that is at least `floor`."""
    into.mkdir(parents=True, exist_ok=True)
    origin = f"from {unpacked}"
    if unpacked is None:
        unpacked = into / "root"
        origin = f"Debian's {PACKAGE}"
        if not unpacked.exists():
            package = download(into)
            fresh = into / "root.new"
            shutil.rmtree(fresh, ignore_errors=True)
            run("dpkg-deb", "-x", package, fresh)
            fresh.rename(unpacked)
    include = unpacked / "usr/include"
    version = version_of(include)
    if not at_least(version, floor):
        raise FetchError(f"libqpl {version} {origin} is older than {floor}")
    return include, static_library(unpacked, into), f"{version}, {origin}, linked statically"


def main() -> int:
    """Command line of this script; the exit code says whether libqpl was had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="folder for the result")
    parser.add_argument("--unpacked", default="", help="an unpacked package to take instead")
    parser.add_argument("--floor", required=True, help="least version that is good enough")
    options = parser.parse_args()
    unpacked = Path(options.unpacked).resolve() if options.unpacked else None
    try:
        print(*fetch(options.into, unpacked, options.floor), sep="\n")
    except FetchError as error:
        print(f"{PACKAGE} through apt: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
