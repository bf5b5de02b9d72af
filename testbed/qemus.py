"""The QEMUs that tests migrate guests between: Debian bookworm's from PATH, trixie's, and Debian's newest."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from programs import give_up

FOLDER = Path(__file__).parents[1] / "build/make/qemu"
FETCH = Path(__file__).parents[1] / "build-aux/fetch_qemu.py"
FETCH_TIMEOUT = 1800


@dataclass(frozen=True)
class QEMU:
    """A QEMU, and the command that starts it, with its folders of data."""

    name: str
    command: tuple[str, ...]

    @functools.cached_property
    def version(self) -> str:
        """The version, such as "10.0.13"."""
        printed = subprocess.run([*self.command, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"version ([\d.]+)", printed)
        assert found, printed
        return found[1]


INSTALLED = QEMU("7.2", ("qemu-system-x86_64",))
NAMES = ("7.2", "10.0", "newest")


def qemu(name: str, architecture: str = "x86_64") -> QEMU:
    """Return one of NAMES; skip the test that calls this if it cannot be had, in CI fail. Only newest has aarch64."""
    if name == INSTALLED.name:
        return INSTALLED
    if reason := _fetch(name):
        give_up(f"QEMU {name}: {reason}")
    usr = FOLDER / name / "usr"
    # The packages are not installed: their libraries are loaded by their own ld.so, and QEMU has to be told its data.
    (loader,) = usr.glob("lib/*/ld-linux-*")
    data = [usr / "share/qemu", usr / "share/seabios"]
    return QEMU(
        name,
        (
            *(str(loader), "--library-path", str(loader.parent), str(usr / "bin" / f"qemu-system-{architecture}")),
            *(argument for folder in data for argument in ("-L", str(folder))),
        ),
    )


@functools.cache
def _fetch(name: str) -> str:
    """Fetch a QEMU unless it is there; return the reason if that fails. Other processes that fetch are waited for."""
    command = [sys.executable, str(FETCH), "--into", str(FOLDER), name]
    # The tool imports what lies beside it, which conftest.py turns off for all that tests start.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT, env=environment)
    except subprocess.TimeoutExpired:
        return f"not fetched within {FETCH_TIMEOUT} s"
    if not ended.returncode:
        return ""
    failed, _, reason = ended.stderr.partition("\t")
    assert failed == name, ended.stderr
    return reason.strip()
