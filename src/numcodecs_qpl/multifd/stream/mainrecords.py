"""Bytes of the main channel, apart from device state: the opening, and the sections and records of guest memory.

`MainChannel` reads them, and so does QEMU's destination (``migration/savevm.c``, ``migration/ram.c``, 7.2 to 11.1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from numcodecs_qpl.multifd.stream.mainchannel import (
    CONTINUE,
    EOS,
    MEM_SIZE,
    MULTIFD_FLUSH,
    PAGE,
    RAM_VERSION,
    ZERO,
    Framing,
)
from numcodecs_qpl.multifd.stream.savevm import (
    COMMAND,
    END,
    FOOTER,
    MAGIC,
    OPEN_RETURN_PATH,
    START,
    VERSION,
    Configuration,
    string,
    u8,
    u16,
    u32,
    u64,
)
from numcodecs_qpl.multifd.stream.wire import Offsets


def opening(configuration: Configuration) -> bytes:
    """Return the opening. It requests a confirmation on the return path that everything was loaded."""
    # Machine types up to 2.2 have no configuration section.
    section = configuration.pack() if configuration.machine else b""
    return MAGIC + u32(VERSION) + section + u8(COMMAND) + u16(OPEN_RETURN_PATH) + u16(0)


def start_ram(framing: Framing, blocks: dict[str, int], *, multifd: bool) -> bytes:
    """Return the section that begins guest memory: names and lengths of blocks, and the end of the first round."""
    head = u8(START) + u32(framing.ram_section) + string("ram") + u32(0) + u32(RAM_VERSION)
    listed = [string(name) + u64(used_length) for name, used_length in blocks.items()]
    return head + u64(sum(blocks.values()) | MEM_SIZE) + b"".join(listed) + end_ram(framing, multifd=multifd)


def last_ram(framing: Framing) -> bytes:
    """Return the beginning of the section that ends guest memory; pages follow, and `end_ram`."""
    return u8(END) + u32(framing.ram_section)


def end_ram(framing: Framing, *, multifd: bool) -> bytes:
    """Return the end of a section of guest memory; with multifd, it ends a round."""
    flush = u64(MULTIFD_FLUSH) if multifd and framing.flush_records else b""
    return flush + u64(EOS) + (u8(FOOTER) + u32(framing.ram_section) if framing.footers else b"")


def page_records(block: str, offsets: Offsets, pages: NDArray[np.uint8]) -> bytes:
    """Return a record for each page, with its bytes; `pages` has the shape (len(offsets), page_size)."""
    return _records(block, offsets, PAGE, pages)


def zero_records(block: str, offsets: Offsets) -> bytes:
    """Return a record for each of some pages that are all zeros."""
    return _records(block, offsets, ZERO, np.zeros((len(offsets), 1), np.uint8))


def _records(block: str, offsets: Offsets, flag: int, contents: NDArray[np.uint8]) -> bytes:
    # The first record names the block, because records of another block may have come before.
    if not len(offsets):
        return b""
    rest = np.empty(len(offsets) - 1, [("record", ">u8"), ("content", np.uint8, contents.shape[1])])
    rest["record"] = offsets[1:] | np.uint64(flag | CONTINUE)
    rest["content"] = contents[1:]
    return b"".join([u64(int(offsets[0]) | flag), string(block), contents[0].tobytes(), rest.tobytes()])
