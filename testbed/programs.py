"""Programs that tests need besides Python's packages, and the environment that ours is run in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

import pytest

PACKAGES = {
    "bgzip": "tabix",
    "igzip": "isal",
    "ip": "iproute2",
    "nasm": "nasm",
    "openssl": "openssl",
    "pigz": "pigz",
    "qemu-system-x86_64": "qemu-system-x86",
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
}
"""By program: the Debian package that has it, one of .ci/apt-packages."""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, without what may set the program's path and threads or the output's buffer."""
    unwanted = ("NUMCODECS_QPL_", "PYTHONUNBUFFERED")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(unwanted)}
    return kept | {"PYTHONWARNINGS": "error"} | changes


def run_python(
    code: str, *arguments: object, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a new process, in which warnings are errors; `environment` is added to ours."""
    words = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.run(words, env=variables, capture_output=True, text=True, check=check, timeout=120)


def python_without_us(folder: Path) -> list[str]:
    """Command of a Python that has every installed package but this one; `folder` is filled with links to them."""
    site = Path(sysconfig.get_path("purelib"))
    folder.mkdir()
    for installed in site.iterdir():
        if not installed.name.startswith("numcodecs_qpl"):
            (folder / installed.name).symlink_to(installed)
    return ["env", f"PYTHONPATH={folder}", sys.executable, "-S", "-W", "error"]


def missing(*programs: str) -> str:
    """Return how to get those of `programs` that this machine lacks; empty if it lacks none."""
    packages = [PACKAGES[program] for program in programs if shutil.which(program) is None]
    return f"programs are missing: apt-get install --no-install-recommends {' '.join(packages)}" if packages else ""


def give_up(reason: str, *, module: bool = False) -> NoReturn:
    """Skip the test, or the whole module, that lacks a tool; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=module)


def need(*programs: str) -> None:
    """Skip the module that calls this where one of `programs` is missing; in CI that is a failure."""
    reason = missing(*programs)
    if reason:
        give_up(reason, module=True)
