"""Names and sizes in the folder of a received guest, shared by the writer and the reader."""

from __future__ import annotations

from urllib.parse import quote

MANIFEST = "manifest.json"
DEVICE_STATE = "device-state"
MAIN_DEVICE_STATE = f"{DEVICE_STATE}.bin"
CHUNK_PAGES = 64
"""Pages in a chunk of a zarr array, and in a unit of verification: 256 KiB for pages of 4 KiB."""
ZARR_GROUP = "ram.zarr"
ZARR_SEPARATOR = "."
"""Separator of the numbers in the name of a chunk's file. With "/", each chunk would have a folder of its own."""


def raw_file(block: str) -> str:
    """Return the path of a RAM block's memory in a folder of the format raw."""
    return f"{quote(block, safe='')}.bin"


def zarr_array(block: str) -> str:
    """Return the path of a RAM block's array in a folder of the format zarr."""
    return f"{ZARR_GROUP}/{quote(block, safe='')}"


def zarr_chunk(block: str, chunk: int) -> str:
    """Return the path of a chunk of that array."""
    return f"{zarr_array(block)}/{ZARR_SEPARATOR.join(('c', str(chunk), '0'))}"
