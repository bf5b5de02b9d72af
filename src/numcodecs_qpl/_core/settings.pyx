"""The settings of the process: the path that blocks take, and the number of threads."""

import os

from numcodecs_qpl._core.iaa cimport init_status, taken_away

from numcodecs_qpl._core import iaa
from numcodecs_qpl._core.arguments import as_choice, as_index
from numcodecs_qpl._core.errors import QplError

THREADS_VARIABLE = "NUMCODECS_QPL_THREADS"
MAX_THREADS = 256
"""The most threads that `spread.c` starts for one call."""

PATH_VARIABLE = "NUMCODECS_QPL_PATH"
PATH_SETTINGS = ("auto", "hardware", "software")

NUMA_VARIABLE = "NUMCODECS_QPL_NUMA"
NUMA_POLICIES = {"socket": -1, "node": -2, "any": -3}
"""libqpl's ``QPL_DEVICE_NUMA_ID_SOCKET``, ``_CURRENT`` and ``_ANY`` (``qpl/c_api/defs.h``)."""
MAX_NODE = 2**31 - 1
"""libqpl's ``numa_id`` is an int32."""

NO_LIBQPL = (
    "this build has no libqpl and runs in software. For an IAA, build it with libqpl, on x86-64 Linux and without "
    "-Dqpl=disabled"
)
_TAKEN_AWAY = {
    "forked": (
        "this process was forked from one that had opened the devices, and they serve that one alone: start workers "
        "with multiprocessing's spawn or forkserver"
    ),
    "lost": (
        "a device stopped answering while this process used it: look at it with `numcodecs-qpl info` and in the "
        "kernel's log, and start a new process"
    ),
}
_ADVICE = {
    "QPL_STS_INIT_HW_NOT_SUPPORTED": "this libqpl was built without the hardware path",
    "QPL_STS_INIT_LIBACCEL_NOT_FOUND": "install libaccel-config (Debian: apt-get install libaccel-config1)",
    "QPL_STS_INIT_LIBACCEL_ERROR": "libaccel-config could not read the devices: is the idxd driver loaded?",
    "QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE": (
        "no IAA work queue is enabled, shared and open to this user: set one up with accel-config"
    ),
}

# Values that were set, or read from the environment at the first use. They are not read at import: dask sets a worker's
# variables after the worker has imported the main module, and this package with it.
cdef int threads_setting = 0
cdef str path_setting = None
cdef object numa_setting = None


def set_threads(count) -> None:
    """Spread each batch of blocks over `count` threads, for this process.

    The default is the environment variable ``NUMCODECS_QPL_THREADS``, or 1 if it is unset or empty, because zarr and
    dask already call from threads of their own. The result does not depend on the number of threads.

    Raises
    ------
    TypeError, ValueError
        If `count` is not an integer, or not 1 to `MAX_THREADS`.
    """
    global threads_setting
    threads_setting = as_index(count, "threads", 1, MAX_THREADS)


cpdef int get_threads() except -1:
    """Return the number of threads that share a batch.

    Raises
    ------
    ValueError
        If nothing was set and ``NUMCODECS_QPL_THREADS`` is not a number from 1 to `MAX_THREADS`.
    """
    global threads_setting
    if not threads_setting:
        word = os.environ.get(THREADS_VARIABLE) or "1"
        if not is_number(word):
            raise ValueError(f"{THREADS_VARIABLE} is {word!r}; it must be a number from 1 to {MAX_THREADS}")
        threads_setting = as_index(int(word), THREADS_VARIABLE, 1, MAX_THREADS)
    return threads_setting


cdef bint is_number(str word):
    return word.isascii() and word.isdecimal() and len(word) <= 10  # int() has a limit of its own


def hardware_advice(status) -> str:
    """Return advice for an init status of the hardware path, in one sentence."""
    if status is None:
        return NO_LIBQPL
    name = iaa.status_name(status)
    if name == "QPL_STS_INIT_WORK_QUEUES_NOT_AVAILABLE" and taken_away():
        return _TAKEN_AWAY[taken_away()]
    return _ADVICE.get(name, "see libqpl's list of status codes")


def set_path(path) -> None:
    """Choose where blocks run, for this process.

    Parameters
    ----------
    path : {"auto", "hardware", "software"}
        "hardware" runs blocks on an IAA; a device that fails is an error. "software" runs them on ISA-L and libdeflate.
        "auto" runs them on an IAA if one can be used, else in software; software also does each block that the IAA
        refuses. The default is the environment variable ``NUMCODECS_QPL_PATH``, or "auto" if it is unset or empty.
        With every setting, software inflates streams without this package's index, because a device cannot tell where a
        stream ends. It also inflates data that a device refuses, because a device follows distances up to 4096 bytes
        only.

    Raises
    ------
    ValueError
        If `path` is none of these.
    QplError
        If `path` is "hardware" and libqpl finds no usable device, or the build has no libqpl. The setting does not
        change.
    """
    global path_setting
    cdef str choice = as_choice(path, "path", PATH_SETTINGS)
    if choice == "hardware":
        require_hardware()
    path_setting = choice


cpdef str get_path():
    """Return the setting of `set_path`: "auto", "hardware" or "software".

    Raises
    ------
    ValueError
        If nothing was set and ``NUMCODECS_QPL_PATH`` is none of these.
    """
    global path_setting
    if path_setting is None:
        path_setting = as_choice(os.environ.get(PATH_VARIABLE) or "auto", PATH_VARIABLE, PATH_SETTINGS)
    return path_setting


cpdef str path_in_force():
    """Return the path that the next block takes: "hardware" or "software".

    Raises
    ------
    ValueError
        If ``NUMCODECS_QPL_PATH`` is wrong.
    QplError
        If the setting is "hardware" and no device can be used.
    """
    cdef str path = get_path()
    if path == "hardware":
        require_hardware()
    elif path == "auto" and init_status() != 0:
        return "software"
    return "software" if path == "software" else "hardware"


cdef int require_hardware() except -1:
    status = init_status()
    if status != 0:
        name = None if status is None else iaa.status_name(status)
        reason = f"{hardware_advice(status)}; `numcodecs-qpl info` shows if this machine has an IAA"
        raise QplError(f"the hardware path cannot be used: {reason}", status, name)
    return 0


def set_numa(policy) -> None:
    """Choose the devices by their NUMA node, for this process.

    Parameters
    ----------
    policy : {"socket", "node", "any"} or int
        "socket": the devices of the calling thread's socket. "node": those of its NUMA node. "any": all devices. A
        number: those of the NUMA node with this number. This is libqpl's ``numa_id``. The default is the environment
        variable ``NUMCODECS_QPL_NUMA``, or "socket" if it is unset or empty. If no device matches, blocks run in
        software, or fail if the path setting is "hardware".

    Raises
    ------
    TypeError, ValueError
        If `policy` is none of these.
    """
    global numa_setting
    numa_setting = checked_numa(policy, "numa")


def get_numa() -> str | int:
    """Return the setting of `set_numa`.

    Raises
    ------
    ValueError
        If nothing was set and ``NUMCODECS_QPL_NUMA`` is none of these.
    """
    global numa_setting
    if numa_setting is None:
        word = os.environ.get(NUMA_VARIABLE) or "socket"
        numa_setting = checked_numa(int(word) if is_number(word) else word, NUMA_VARIABLE)
    return numa_setting


cdef int32_t numa_id() except? 0:
    policy = get_numa()
    return NUMA_POLICIES[policy] if isinstance(policy, str) else policy


cdef object checked_numa(object policy, str name):
    if isinstance(policy, str):
        if policy not in NUMA_POLICIES:
            raise ValueError(
                f"{name} is {policy!r}; it must be {', '.join(NUMA_POLICIES)} or the number of a NUMA node"
            )
        return policy
    return as_index(policy, name, 0, MAX_NODE)


def check_settings() -> None:
    """Check all settings of the process, including the environment variables, before work begins.

    Raises
    ------
    TypeError, ValueError, QplError
        As `path_in_force`, `get_numa` and `get_threads` do.
    """
    get_threads()
    get_numa()
    path_in_force()
