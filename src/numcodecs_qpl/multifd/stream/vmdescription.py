"""The description of the device state, which ends QEMU's migration stream.

The state of the devices has no length field. It ends with a byte 00 (``QEMU_VM_EOF``), a byte 06
(``QEMU_VM_VMDESCRIPTION``), a length (u32, big-endian) and as many bytes of JSON (QEMU's ``migration/savevm.c``, 7.2 to
11.0).
"""

from __future__ import annotations

import json

MARK = b"\x00\x06"
HEAD_SIZE = len(MARK) + 4
LIMIT = 4 * 2**20
"""Upper limit of a description in bytes; 44 thousand are usual."""


class DescriptionFinder:
    """Search for the description at the end of a stream, piece by piece, without reading beyond it."""

    def __init__(self) -> None:
        self._tail = bytearray()

    def add(self, data: bytes | memoryview) -> list[str] | None:
        """Add the next piece; return the names of the devices if a complete description ends it, else None."""
        self._tail += data
        if len(self._tail) > 2 * (HEAD_SIZE + LIMIT):
            del self._tail[: -HEAD_SIZE - LIMIT]
        if not self._tail.endswith(b"}"):
            return None
        # JSON has no control characters, so only bytes of the length can be mistaken for the mark.
        at = len(self._tail)
        for _ in range(HEAD_SIZE):
            at = self._tail.rfind(MARK[1:], 0, at)
            if at < 1:
                break
            size = int.from_bytes(self._tail[at + 1 : at + 5], "big")
            if size <= LIMIT and self._tail[at - 1 : at + 1] == MARK and at + 5 + size == len(self._tail):
                return _device_names(bytes(self._tail[at + 5 :]))
        return None


def _device_names(text: bytes) -> list[str] | None:
    try:
        return [str(device["name"]) for device in json.loads(text)["devices"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
