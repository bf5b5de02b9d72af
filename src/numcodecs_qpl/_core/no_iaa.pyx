"""The interface of `iaa.pyx` in a build without libqpl: no device."""

from libc.stdint cimport int32_t, uint32_t

from numcodecs_qpl._core.block cimport Block, Task

cdef void do_on_device(
    const Task *task, Block *blocks, Py_ssize_t count, int32_t numa_id, bint patient, Place place, void *context
) noexcept nogil:
    pass  # never called, as init_status() never returns 0


cdef void note_fallback(uint32_t reason) noexcept nogil:
    pass


cpdef object init_status():
    """Return None: a build without libqpl cannot look for a device."""
    return None


cpdef str taken_away():
    """Return an empty string: there was no device."""
    return ""


def status_name(status: int) -> str:
    """Return libqpl's name for a status number: always unknown here."""
    return "unknown status"


def libqpl_version() -> None:
    """Return None: libqpl is not linked."""


def stats() -> dict[str, dict[str, int]]:
    """Return the counts of fallbacks and of full queues: none."""
    return {"fallback": {}, "queues": {"full": 0}}


def reset_stats() -> None:
    """Set the counts of `stats` to zero."""


def set_timeout(seconds: float) -> None:
    """Set the time after which the devices count as lost: without effect here."""
