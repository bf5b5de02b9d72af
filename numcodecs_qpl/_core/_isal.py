"""ISA-L's door, through PyPI's ``isal``: one block in or out, and the counts. It does what `_jobs` does with libqpl.

What it writes an IAA can read: its matches reach no farther back than the 4 KiB of history that an IAA has.
"""

from __future__ import annotations

from typing import Final

from isal import igzip_lib, isal_zlib

from numcodecs_qpl._core.counts import Counts

WINDOW_BITS = 12
"""Two to this power is the farthest that a match reaches back: 4096 bytes."""

_STORED_BLOCK = 65535
_EMPTY = b"\x03\x00"
"""An empty final block with fixed codes, the shortest stream: as in `_jobs`."""

_LEVEL = 3
"""The level of ISA-L's whose streams are as large as libqpl's of level 1, and of blocks of 64 KiB mostly the same bytes
(seen with ISA-L 2.32.1 and libqpl 1.9.0). None of its levels gains more with so small a window, and those below 3 miss
much of what repeats far apart; they are about as fast."""

_FIXED_TABLES_LEVEL = 0
"""The one level of ISA-L's that has deflate's fixed tables; ``isal`` has them from its version 1.9 on."""

_counts = Counts()


def deflate(block: memoryview, dynamic: bool) -> bytes:
    """Compress one block, with Huffman tables made for it or with deflate's fixed ones."""
    if not len(block):
        return _EMPTY
    if dynamic:
        stream = igzip_lib.compress(block, _LEVEL, igzip_lib.COMP_DEFLATE, hist_bits=WINDOW_BITS)
    else:
        compressor = isal_zlib.compressobj(
            _FIXED_TABLES_LEVEL, isal_zlib.DEFLATED, -WINDOW_BITS, strategy=isal_zlib.Z_FIXED
        )
        stream = compressor.compress(block) + compressor.flush()
    # Of noise ISA-L makes more than `compress_bound` says.
    return stream if len(stream) <= _stored_size(len(block)) else _store(block)


def _stored_size(size: int) -> int:
    return size + 5 * -(-size // _STORED_BLOCK)


def _store(block: memoryview) -> bytes:
    """`block` in stored blocks (RFC 1951, 3.2.4)."""
    pieces: list[bytes | memoryview] = []
    for start in range(0, len(block), _STORED_BLOCK):
        piece = block[start : start + _STORED_BLOCK]
        size = len(piece)
        final = start + size == len(block)
        pieces += [bytes([final]), size.to_bytes(2, "little"), (size ^ 0xFFFF).to_bytes(2, "little"), piece]
    return b"".join(pieces)


def inflate(stream: memoryview, room: int) -> tuple[bytes, int, str]:
    """Inflate one stream.

    Returns
    -------
    inflated : bytes
        What came out, whole or not; one byte more than `room` where the stream goes on after so many.
    read : int
        Bytes of `stream` used.
    fault : str
        What is wrong with the stream; empty where nothing is.
    """
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    try:
        inflated = inflater.decompress(stream, room + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub declares an instance
        return b"", 0, str(error)
    if not inflater.eof and len(inflated) <= room:
        return inflated, len(stream), "it is truncated"
    return inflated, len(stream) - len(inflater.unused_data), ""


# ---- What can be seen -------------------------------------------------------------------------------------------

NO_WORK_QUEUES: Final = None
"""libqpl alone knows devices, and has numbers for what is wrong with them."""


def probe_hardware() -> None:
    """None instead of libqpl's status: there is none to ask."""


def device_was_lost() -> bool:
    """Return False: there is no device to lose."""
    return False


def status_name(status: int) -> str:
    """That nothing is known of libqpl's numbers."""
    return "unknown status"


def libqpl_version() -> None:
    """None: no libqpl is linked in."""


def note_blocks(operation: str, count: int) -> None:
    """Count blocks that were "compressed" or "decompressed"."""
    _counts.add(operation, count)


def stats() -> dict[str, dict[str, int]]:
    """Blocks done by this process since it began (or forked), or since `reset_stats`; the keys are those of libqpl's.

    All of them are counted as ``"software"``.
    """
    return {
        "hardware": {"compressed": 0, "decompressed": 0},
        "software": {"compressed": 0, "decompressed": 0} | _counts.seen(),
        "fallback": {},
        "queues": {"full": 0},
        "pool": {"made": 0, "idle": 0},
    }


def reset_stats() -> None:
    """Set the counts of `stats` to zero."""
    _counts.clear()
