"""Programs that tests need besides Python's packages, and the environment that ours is run in."""

from __future__ import annotations

import os
import shutil

import pytest

PACKAGES = {"ip": "iproute2", "nasm": "nasm", "openssl": "openssl", "qemu-system-x86_64": "qemu-system-x86"}
"""By program: the Debian package that has it, one of .ci/apt-packages."""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, without what may set the program's path and threads or the output's buffer."""
    unwanted = ("NUMCODECS_QPL_", "PYTHONUNBUFFERED")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(unwanted)}
    return kept | {"PYTHONWARNINGS": "error"} | changes


def need(*programs: str) -> None:
    """Skip the module that calls this where one of `programs` is missing; in CI that is a failure."""
    missing = [PACKAGES[program] for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"programs are missing: apt-get install --no-install-recommends {' '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)
