"""Fixtures and settings of all tests."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command
from hypothesis import settings

# Programs that tests start must take the installed package, not the source folder they are started in.
os.environ["PYTHONSAFEPATH"] = "1"
# And those of the environment that pytest is of, also where that is not an active one.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

# A shell makes background programs ignore Ctrl-C, and nohup makes them ignore SIGHUP. The programs that tests start
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Hundreds of commands would import the same. tests/commands and many others start the program itself.
Command.fork = True

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name leaves room for a uuid: a unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# These two import inside: environments that run a part of the tests only are without qemu.qmp.
@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 MiB of what the RAM of a guest at work may look like."""
    from guest import make_data

    path = tmp_path_factory.mktemp("data") / "data"
    make_data(path, 2)
    return path


@pytest.fixture(scope="session")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A firmware that halts, and one that keeps dirtying 4 to 12 MiB."""
    from guest import build_firmware

    folder = tmp_path_factory.mktemp("firmware")
    return {dirty: build_firmware(folder, dirty) for dirty in (False, True)}
