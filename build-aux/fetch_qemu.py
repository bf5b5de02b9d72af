"""Get QEMUs out of newer Debian suites, through apt, into a folder: tests migrate guests between versions of QEMU.

Nothing is installed and root is not needed, see fetch_debian.py. Each QEMU is unpacked with all libraries it depends
on, glibc too, because it needs newer ones than the machine may have. It is then started through its own ld.so. What is
there already is kept; processes that run this at the same time wait for each other.

For each name, in the order of the arguments, a line is printed: the name, a tab and the folder with the unpacked
packages. If a QEMU cannot be had, standard error has one line for it: its name, a tab and the reason. The exit code is
then 1.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
from pathlib import Path

from fetch_debian import KEYRING, FetchError, PrivateApt, mirrors, run

SUITES = {"10.0": ("trixie",), "newest": ("forky", "sid")}
"""By name: the Debian suites that have it, in the order in which they are tried."""
PACKAGES = {"10.0": ("qemu-system-x86",), "newest": ("qemu-system-x86", "qemu-system-arm")}


def fetch(name: str, into: Path) -> Path:
    """Return the folder of a QEMU's unpacked packages, `into`/NAME, which is downloaded if it does not exist."""
    root, fresh, state = into / name, into / f"{name}.new", into / f"{name}.apt"
    if root.exists():
        return root
    if not KEYRING.exists():
        raise FetchError(f"{KEYRING} is missing (package debian-archive-keyring)")
    tried = []
    for uri in mirrors():
        for suite in SUITES[name]:
            try:
                apt = PrivateApt(state, uri, suite, "deb", installed=False)
                apt("install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES[name])
                # The folder appears as a whole: when this is interrupted, the next call begins anew.
                shutil.rmtree(fresh, ignore_errors=True)
                for package in sorted(state.glob("cache/archives/*.deb")):
                    run("dpkg-deb", "-x", package, fresh)
                fresh.rename(root)
            except FetchError as error:
                tried.append(f"{suite}: {error}")
            else:
                return root
            finally:
                shutil.rmtree(state, ignore_errors=True)
    raise FetchError("; ".join(tried) or "apt knows no package repository (apt-get update first?)")


def main() -> int:
    """Command line of this script; the exit code says whether every QEMU was had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True, help="folder for the result")
    parser.add_argument("names", metavar="NAME", nargs="+", choices=SUITES, help=", ".join(SUITES))
    options = parser.parse_args()
    into = options.into.resolve()
    into.mkdir(parents=True, exist_ok=True)
    failed = False
    with (into / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in options.names:
            try:
                print(name, fetch(name, into), sep="\t")
            except FetchError as error:
                print(name, f"through apt: {error}", sep="\t", file=sys.stderr)
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
