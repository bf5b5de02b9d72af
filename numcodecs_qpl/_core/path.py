"""Where blocks run: the process's settings, and what libqpl says to the wish for hardware."""

from __future__ import annotations

import os

from numcodecs_qpl._core.engine import NO_WORK_QUEUES, device_was_lost, probe_hardware, status_name
from numcodecs_qpl._core.errors import QplError

PATH_VARIABLE = "NUMCODECS_QPL_PATH"
PATH_SETTINGS = ("auto", "hardware", "software")

NUMA_VARIABLE = "NUMCODECS_QPL_NUMA"
NUMA_POLICIES = {"socket": -1, "node": -2, "any": -3}
"""libqpl's ``QPL_DEVICE_NUMA_ID_SOCKET``, ``_CURRENT`` and ``_ANY`` (``qpl/c_api/defs.h``)."""

FORKED = (
    "this process was forked from one that had opened the devices, and they serve that one alone: start workers with "
    "multiprocessing's spawn or forkserver"
)
LOST = (
    "a device stopped answering while this process used it: look at it with `numcodecs-qpl info` and in the kernel's "
    "log, and start a new process"
)

NO_LIBQPL = "this build has no libqpl and does everything on ISA-L: an IAA needs one with libqpl, on x86-64 Linux"

_ADVICE = {
    "QPL_STS_INIT_HW_NOT_SUPPORTED": "this libqpl was built without the hardware path",
    "QPL_STS_INIT_LIBACCEL_NOT_FOUND": "install libaccel-config (Debian: apt-get install libaccel-config1)",
    "QPL_STS_INIT_LIBACCEL_ERROR": "libaccel-config could not read the devices: is the idxd driver loaded?",
    "QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE": (
        "no IAA work queue is enabled, shared and open to this user: set one up with accel-config"
    ),
}

_path: str | None = None
_numa: str | int | None = None
_init_status: int | None = None  # None: libqpl was not asked yet
_taken_away = ""


def hardware_init_status() -> int | None:
    """Status with which libqpl answers the wish for a hardware job: 0 where an IAA can be used, None without libqpl.

    Asked once a process: libqpl itself looks for devices only once. Where they were open, but serve this process no
    more (it was forked, or one of them has stopped answering), it is that of a system without work queues.
    """
    global _init_status
    if _init_status is None:
        _init_status = probe_hardware()
    if _init_status == 0 and device_was_lost():
        take_hardware_away(LOST)
    return _init_status


def hardware_advice(status: int | None) -> str:
    """What to do about an init status of the hardware path, in one sentence."""
    if status is None:
        return NO_LIBQPL
    if _taken_away and status == NO_WORK_QUEUES:
        return _taken_away
    return _ADVICE.get(status_name(status), "see libqpl's list of status codes")


def take_hardware_away(why: str) -> None:
    """Have no hardware path in this process from here on; `why` is what `hardware_advice` says then."""
    global _init_status, _taken_away
    _init_status = NO_WORK_QUEUES
    _taken_away = why


def set_path(path: str) -> None:
    """Choose where blocks run, for this process.

    Parameters
    ----------
    path : {"auto", "hardware", "software"}
        "hardware" is an IAA or an error; "software" is libqpl's software path, or ISA-L in a build without libqpl;
        "auto" (the default, or what the environment variable ``NUMCODECS_QPL_PATH`` says) is an IAA where one can be
        used, else software, which also does each block that the IAA does not do.

    Raises
    ------
    ValueError
        For any other word.
    QplError
        For "hardware" where libqpl finds no usable device, or there is no libqpl; the setting stays as it was.
    """
    global _path
    if path not in PATH_SETTINGS:
        raise ValueError(f"path is {path!r}; it must be one of {', '.join(PATH_SETTINGS)}")
    if path == "hardware":
        _require_hardware()
    _path = path


def get_path() -> str:
    """The setting of `set_path`: "auto", "hardware" or "software"."""
    global _path
    if _path is None:
        # Not at import: dask gives a worker its variables after it has imported the main module, and this with it.
        _path = os.environ.get(PATH_VARIABLE, "auto")
    return _path


def path_in_force() -> str:
    """Where the next block runs: "hardware" or "software".

    Raises
    ------
    ValueError
        If ``NUMCODECS_QPL_PATH`` held none of the three words.
    QplError
        If the setting is "hardware" and no device can be used.
    """
    path = get_path()
    if path == "software":
        return "software"
    if path == "auto":
        return "hardware" if hardware_init_status() == 0 else "software"
    if path != "hardware":
        raise ValueError(f"{PATH_VARIABLE} is {path!r}; it must be one of {', '.join(PATH_SETTINGS)}")
    _require_hardware()
    return "hardware"


def _require_hardware() -> None:
    status = hardware_init_status()
    if status != 0:
        name = None if status is None else status_name(status)
        raise QplError(f"the hardware path cannot be used: {hardware_advice(status)}", status, name)


def set_numa(policy: str | int) -> None:
    """Choose the devices by where they are, for this process.

    Parameters
    ----------
    policy : {"socket", "node", "any"} or int
        The devices of the socket that the calling thread runs on (the default, or what the environment variable
        ``NUMCODECS_QPL_NUMA`` says), those of its NUMA node, all of them, or those of the NUMA node with that number:
        libqpl's ``numa_id``. Where there is no such device, blocks are done in software, or fail if the path setting is
        "hardware".

    Raises
    ------
    ValueError
        For any other word or number.
    """
    global _numa
    _check_numa(policy, "numa")
    _numa = policy


def get_numa() -> str | int:
    """The setting of `set_numa`.

    Raises
    ------
    ValueError
        If nothing was set and ``NUMCODECS_QPL_NUMA`` is none of these.
    """
    global _numa
    if _numa is None:
        word = os.environ.get(NUMA_VARIABLE, "socket")
        policy = int(word) if word.isdecimal() else word
        _check_numa(policy, NUMA_VARIABLE)
        _numa = policy
    return _numa


def numa_id() -> int:
    """The setting of `set_numa` as libqpl's ``numa_id``."""
    policy = get_numa()
    return NUMA_POLICIES[policy] if isinstance(policy, str) else policy


def _check_numa(policy: str | int, what: str) -> None:
    is_word = isinstance(policy, str) and policy in NUMA_POLICIES
    is_node = isinstance(policy, int) and not isinstance(policy, bool) and 0 <= policy < 2**31
    if not (is_word or is_node):
        raise ValueError(f"{what} is {policy!r}; it must be {', '.join(NUMA_POLICIES)} or the number of a NUMA node")


def _after_fork_in_child() -> None:
    """Let go of the devices that the parent has opened.

    libqpl would not look for them anew, and a queue that was opened before serves the parent's address space alone
    (Linux does not hand its mapping down either: ``VM_DONTCOPY`` in ``drivers/dma/idxd/cdev.c``).
    """
    if _init_status == 0:
        take_hardware_away(FORKED)


os.register_at_fork(after_in_child=_after_fork_in_child)
