"""PROXY headers: a relay marks the connections of a migration with the same unique id, for the next relay.

The format is version 2 of the PROXY protocol (HAProxy's ``doc/proxy-protocol.txt``, section 2.2), in front of the
connection's own bytes. Only one of its fields is used, the unique id: type 0x05 in section 2.2.5. The header is needed
because QEMU's main channel has no field that names the guest, and over TCP all connections of a relay come from the
same host.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from numcodecs_qpl.multifd.errors import MultiFDError

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VERSION_AND_COMMAND = 0x21
"""Version 2, command PROXY."""
MAX_REST = 536
"""Upper limit of the length field. The addresses need at most 216 bytes, a unique id 131 with its type and length."""
ADDRESS_SIZES = {0x0: 0, 0x1: 12, 0x2: 36, 0x3: 216}
"""Size of the addresses in bytes, by family: unspecified, IPv4, IPv6, unix."""
UNIQUE_ID = 0x05
MAX_UNIQUE_ID = 128

_FIXED = struct.Struct(">12sBBH")
_FIELD = struct.Struct(">BH")


def pack(unique_id: bytes) -> bytes:
    """Pack a header without addresses, with a unique id of 1 to 128 bytes."""
    field = _FIELD.pack(UNIQUE_ID, len(unique_id)) + unique_id
    return _FIXED.pack(SIGNATURE, VERSION_AND_COMMAND, 0, len(field)) + field


def read_unique_id(read: Callable[[int], bytes]) -> bytes:
    """Read a header and return its unique id.

    Parameters
    ----------
    read : callable
        ``read(size)`` returns the next `size` bytes.

    Raises
    ------
    MultiFDError
        If the bytes are not a header of version 2 with the command PROXY, or it has no unique id.
    """
    fixed = read(_FIXED.size)
    signature, command, family, size = _FIXED.unpack(fixed)
    if signature != SIGNATURE or command != VERSION_AND_COMMAND or family >> 4 not in ADDRESS_SIZES or size > MAX_REST:
        raise MultiFDError(
            f"0x{fixed.hex()}; expected the signature 0x{SIGNATURE.hex()}, then 0x{VERSION_AND_COMMAND:02x} (version "
            f"2, command PROXY), an address family from 0 to 3, and a length up to {MAX_REST}",
            field="PROXY header",
        )
    fields = read(size)[ADDRESS_SIZES[family >> 4] :]
    while len(fields) >= _FIELD.size:
        kind, length = _FIELD.unpack_from(fields)
        value, fields = fields[_FIELD.size : _FIELD.size + length], fields[_FIELD.size + length :]
        if kind == UNIQUE_ID and 1 <= len(value) == length <= MAX_UNIQUE_ID:
            return value
    raise MultiFDError(
        "it has no unique id, which tells migrations apart; the sender needs that option (a relay: --send-proxy)",
        field="PROXY header",
    )
