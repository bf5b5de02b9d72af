"""First bytes of formats, so that an error can name the format that was found."""

from __future__ import annotations

GZIP = b"\x1f\x8b\x08"
"""ID1, ID2 and CM = deflate (RFC 1952, 2.3.1)."""

ZSTANDARD = b"\x28\xb5\x2f\xfd"
"""RFC 8878, 3.1.1."""

_FOREIGN = {
    GZIP: "gzip does: container='gzip' reads it",
    ZSTANDARD: "Zstandard does, which QPL does not read",
}


def is_zlib(header: bytes) -> bool:
    """Return True for a zlib header (RFC 1950, 2.2): deflate, a window of at most 32 KiB, and a valid check."""
    return header[0] & 15 == 8 and header[0] >> 4 <= 7 and int.from_bytes(header, "big") % 31 == 0


def looks_like(data: bytes) -> str:
    """Return a clause that names the format of `data` and the container to use; an empty string if unknown."""
    for beginning, what in _FOREIGN.items():
        if data.startswith(beginning):
            return f", as {what}"
    if len(data) >= 2 and is_zlib(data[:2]):
        return ", as zlib does: container='zlib' reads it"
    return ""
