"""The return path: messages from the destination to the source on the main connection. The source opens it.

A message is a type, a length (both u16, big-endian) and the data (QEMU's ``migration/migration.c``, 7.2 to 11.1).
"""

from __future__ import annotations

import struct

HEAD = struct.Struct(">HH")
SHUT, PONG, SWITCHOVER_ACK = 1, 2, 7
"""Types of message (``MIG_RP_MSG_*``)."""


def message(kind: int, data: bytes = b"") -> bytes:
    """Return the bytes of a message."""
    return HEAD.pack(kind, len(data)) + data


class Confirmation:
    """The destination's last message, SHUT with a status of 0: it has loaded everything.

    Attributes
    ----------
    came : bool
        True if it has come.
    """

    def __init__(self) -> None:
        self.came = False
        self._left = bytearray()

    def add(self, data: bytes | memoryview) -> None:
        """Add the next bytes from the destination."""
        self._left += data
        while len(self._left) >= HEAD.size:
            kind, size = HEAD.unpack_from(self._left)
            if len(self._left) < HEAD.size + size:
                return
            body = self._left[HEAD.size : HEAD.size + size]
            del self._left[: HEAD.size + size]
            if kind == SHUT:
                self.came = size == 4 and not any(body)
