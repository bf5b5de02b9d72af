"""Received guests: what is in their folders, how a folder is damaged, and how a guest is sent again."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from handmade import MEM_SIZE, PAGE, Feed, Migration, Outcome, pages_of, receive, u64

from numcodecs_qpl.multifd.folder.reader import ReceivedFolder
from numcodecs_qpl.multifd.sender import Sender
from numcodecs_qpl.multifd.transport.address import Address

CHUNK = 64
"""Pages in a chunk."""
PACKET = 128
"""Pages in a packet."""


def main_channel(pages: int) -> bytes:
    """A main channel of a guest with so many pages in one block, and three rounds."""
    parts = Migration("none").main
    parts["mem size"], parts["used_length"] = u64(pages * PAGE | MEM_SIZE), u64(pages * PAGE)
    del parts["return path"]  # a guest that was confirmed is kept, also when a signal comes after that
    return b"".join(parts.values())


def main_pages(ram: list[bytes]) -> list[bytes]:
    """The RAM with the two pages that came over the main channel."""
    changed = ram.copy()
    changed[150], changed[151] = pages_of(3, 1)[0], b"\x07" * PAGE
    return changed


def array_of(out: Path) -> bytes:
    array = zarr.open_group(out / "ram.zarr", mode="r")["m"]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:]).tobytes()


def stored(out: Path) -> set[int]:
    """The chunks of the block that have a file."""
    return {int(path.name.split(".")[1]) for path in out.glob("**/ram.zarr/m/c.*.0")}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def received(folder: Path, connections: list[bytes], form: str = "raw") -> Path:
    folder.mkdir()
    outcome = receive(folder, connections, output=form)
    assert outcome.error is None
    return outcome.out


def sent_again(guest: Path, folder: Path, channels: int, method: str = "none", form: str = "raw") -> Outcome:
    """Send a received guest to a receiver."""
    folder.mkdir()
    feed = Feed(folder, channels=channels, output=form)
    with ReceivedFolder(guest) as source:
        source.verify()
        sender = Sender(source, Address("unix", path=str(feed.path)), channels=channels, method=method)
        sender.run()
        pages = sum(block.used_length // PAGE for block in source.blocks)
    outcome = feed.finish()
    assert outcome.error is None
    assert outcome.manifest is not None
    assert sender.counts.normal_pages + sender.counts.zero_pages == pages
    assert outcome.manifest["pages"] == {
        "normal": sender.counts.normal_pages,
        "zero": sender.counts.zero_pages,
        "sent_again": 0,
    }
    return outcome


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def change(guest: Path, **values: Any) -> None:
    path = guest / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def ram_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "out" / "m.bin").read_bytes()).hexdigest()
