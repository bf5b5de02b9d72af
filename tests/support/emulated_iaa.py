"""The emulated IAA of ``tests/iaa``: libqpl's hardware path, unmodified, on a software device.

What runs on it proves our own branches and the format of what comes out. It says nothing about an IAA's speed.

libqpl looks for devices once a process and finds the library by ``LD_LIBRARY_PATH``: tests run scripts in processes of
their own, and in these `Device` tells the device what to do.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Final

from numcodecs_qpl import _core
from numcodecs_qpl._core.iaa import set_timeout

FOLDER_VARIABLE: Final = "NUMCODECS_QPL_EMULATED_IAA"
"""Environment variable with the folder that holds the library."""

LIBRARY: Final = "libaccel-config.so.1"
BUILT_IN: Final = Path(__file__).parents[2] / "build/make/tests/iaa"

PATIENCE = 60.0
"""Seconds after which a script that should have ended has not."""


class Opcode(IntEnum):
    """Operations of a descriptor."""

    NOOP = 0x00
    DECOMPRESS = 0x42
    COMPRESS = 0x43


class Fate(IntEnum):
    """Fate of a queue."""

    SERVED = 0
    LOST = 1  # nothing is read from it, and nothing completes
    FAILING = 2  # every descriptor completes with status 0x20, which libqpl calls 332
    REFUSED = 3  # every submission fails: libqpl says 5, queues busy


def folder() -> Path:
    """Folder of the library; without it the test is skipped, and in CI it fails."""
    found = Path(os.environ.get(FOLDER_VARIABLE, BUILT_IN)).absolute()
    if _core.libqpl_version() is None or not (found / LIBRARY).exists():
        # Scripts that run on the device import this module too. Importing pytest would double their CPU time.
        import pytest
        from engine import NO_LIBQPL

        if _core.libqpl_version() is None:
            pytest.skip(NO_LIBQPL)
        reason = (
            f"no {LIBRARY} in {found}: build with -Csetup-args=-Demulated_iaa=true (make dev does), "
            f"or set {FOLDER_VARIABLE}"
        )
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


def environment(**settings: int | str | Iterable[str]) -> dict[str, str]:
    """Environment variables with which a process finds the emulated IAA.

    Parameters
    ----------
    **settings
        ``devices`` (1 by default), ``queues`` of each (1), ``size`` of a queue in descriptors (64), ``engines`` of each
        device (8), ``max_transfer`` in bytes (2 MiB), ``numa_node`` of all devices (none), ``job_us``, the microseconds
        that a job takes at least (0).
        ``fault`` and ``random``: one or several texts, as `Device.fault` and `Device.random_fault` take them.
    """
    words = []
    for name, value in settings.items():
        several = [value] if isinstance(value, int | str) else list(value)
        words += [f"{name}={one}" for one in several]
    path = [str(folder()), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, path)),
        "EMULATED_IAA": ",".join(words),
        "PYTHONPATH": str(Path(__file__).parent),
    }


def start(script: str, *arguments: str, **settings: int | str | Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run a Python script on the emulated IAA, whatever comes of it. It can import this module."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env=environment(**settings),
        timeout=PATIENCE,
    )


def run(script: str, *arguments: str, **settings: int | str | Iterable[str]) -> str:
    """Run a Python script on the emulated IAA, and return its output; a failure of the script fails the test."""
    done = start(script, *arguments, **settings)
    if done.returncode:
        import pytest

        pytest.fail(f"the script ended with {done.returncode}:\n{done.stderr}", pytrace=False)
    return done.stdout


class Device:
    """The emulated IAA of this process: faults, full queues, and what was served.

    Its library is the one that libqpl loads, so that this works in a process with `environment` only.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.emulated_iaa_served.restype = ctypes.c_long

    def fault(self, text: str) -> None:
        """Let descriptors fail: ``OPERATION:NTH:TIMES:ACTION[:NUMBER]``.

        The NTH descriptor of the OPERATION (compress, decompress, any) from now, 1 is the next one, and those after
        it, TIMES in all. libqpl submits again after a page fault, so that 2 faults in a row reach its caller.

        ACTION is ``read_fault`` or ``write_fault`` (page faults), ``status:N`` or ``error:N`` (a completion status, an
        analytics error's code), ``hang`` (it never completes), ``busy:N`` (all queues are full from before it
        completes, for N microseconds or, with 0, until `set_busy` ends it), or what becomes of all queues of the
        device that has it: ``lost``, ``failing``, ``refused``.

        Raises
        ------
        ValueError
            If the text says none of that, or there are 16 faults already.
        """
        if self._library.emulated_iaa_fault(text.encode()):
            raise ValueError(f"invalid fault {text!r}, or more faults than supported")

    def random_fault(self, text: str) -> None:
        """Let descriptors fail at random: ``OPERATION:PER_MILLION:SEED:ACTION[:NUMBER]``; see `fault`."""
        if self._library.emulated_iaa_random_fault(text.encode()):
            raise ValueError(f"invalid fault {text!r}, or more faults than supported")

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._library.emulated_iaa_clear_faults()

    def hold(self, on: bool) -> None:
        """Take nothing from the queues: descriptors wait."""
        self._library.emulated_iaa_hold(int(on))

    def set_busy(self, on: bool) -> None:
        """Have all queues full, so that no submission succeeds."""
        self._library.emulated_iaa_busy(int(on))

    def vanish(self, device: int, queue: int, fate: Fate) -> None:
        """Let a queue go away."""
        if self._library.emulated_iaa_vanish(device, queue, int(fate)):
            raise ValueError(f"there is no queue {queue} of device {device}")

    def served(self, opcode: Opcode, device: int = 0, queue: int = 0) -> int:
        """Descriptors of an operation that a queue has completed; -1 if there is no such queue."""
        return int(self._library.emulated_iaa_served(device, queue, int(opcode)))

    def waiting(self, device: int = 0, queue: int = 0) -> int:
        """Descriptors that wait in a queue; -1 if there is no such queue."""
        return int(self._library.emulated_iaa_waiting(device, queue))

    def give_up_after(self, seconds: float) -> None:
        """Set the time after which the package calls the devices lost if no block is done; the default is 8 s."""
        set_timeout(seconds)

    @property
    def working(self) -> int:
        """Descriptors that engines work on now."""
        return int(self._library.emulated_iaa_working())

    @property
    def most_working(self) -> int:
        """The most descriptors that were worked on at once."""
        return int(self._library.emulated_iaa_most_working())
