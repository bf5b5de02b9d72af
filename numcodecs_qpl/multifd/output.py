"""Output of a received migration: a folder of files, or of a zarr group, and a manifest.

All is written into a subfolder whose name begins with ``incomplete-``. When everything is there, it moves to its place.
The manifest moves last, and shows that the rest is complete. Guest memory holds secrets: folders have mode
0700 and files 0600, whatever the umask allows.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from numcodecs_qpl import codec
from numcodecs_qpl.cpus import usable_cpus
from numcodecs_qpl.files import sync, sync_all
from numcodecs_qpl.multifd.checksum import ChunkedCRC32
from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.ram import RAMFile
from numcodecs_qpl.multifd.writeback import WriteBack

MANIFEST = "manifest.json"
DEVICE_STATE = "device-state"
MAIN_DEVICE_STATE = f"{DEVICE_STATE}.bin"
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
MAX_DEVICE_STATE = 1 << 30
"""Bytes of device state unless told otherwise. A machine without passed-through devices has a few MB."""
CHUNK_PAGES = 256
"""Pages in a chunk, a zarr array's as well as those that are checked at a time: 1 MiB for pages of 4 KiB."""
ZARR_GROUP = "ram.zarr"
LAG = 64
"""Chunks that wait for the rest of their pages, or for newer ones: those that changed last."""


def raw_file(block: str) -> str:
    """Path of a RAM block's memory in a folder of the format raw."""
    return f"{quote(block, safe='')}.bin"


def zarr_array(block: str) -> str:
    """Path of a RAM block's array in a folder of the format zarr."""
    return f"{ZARR_GROUP}/{quote(block, safe='')}"


def zarr_chunk(block: str, chunk: int) -> str:
    """Path of a chunk of that array."""
    return f"{zarr_array(block)}/c/{chunk}/0"


class Output(ABC):
    """A folder that fills while a migration comes in.

    Threads, one for each CPU, compute the checksums of chunks that have not changed for a while, and again of those
    that change after that.

    Parameters
    ----------
    folder : Path
        A new or empty folder. A new one gets mode 0700; an empty one keeps its mode.
    page_size : int
        Bytes in a page of the guest.
    max_device_state : int
        Bytes of device state that are kept, over all channels; more of it is an error.

    Raises
    ------
    MultiFDError
        If `folder` is not empty, or cannot be made.
    """

    format: str

    def __init__(self, folder: Path, page_size: int, max_device_state: int = MAX_DEVICE_STATE) -> None:
        self._folder = folder
        self._page_size = page_size
        self._max_device_state = max_device_state
        self._is_new = not folder.exists()
        try:
            folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise MultiFDError(f"{folder} is not empty; a new or empty folder is needed")
            self._work = Path(tempfile.mkdtemp(prefix="incomplete-", dir=folder))
        except OSError as error:
            raise MultiFDError(f"cannot write to {folder}: {error.strerror or error}") from error
        self._announced = 0
        self._device_files: dict[str, IO[bytes]] = {}
        self._device_checksums: dict[str, int] = {}
        self._blocks: dict[str, RAMFile] = {}
        self._checksums: dict[str, ChunkedCRC32] = {}
        self._chunks = WriteBack(self._store, usable_cpus(), LAG)
        self._device_state = 0
        self._moved: list[str] = []
        self._complete = False
        self._lock = threading.Lock()

    def add_block(self, name: str, used_length: int) -> RAMFile:
        """Make a file for a RAM block, all zeros.

        Raises
        ------
        MultiFDError
            If there is not that much room, for it and for those before it, or its file cannot be made.
        """
        free = shutil.disk_usage(self._work).free - self._announced
        if used_length > free:
            raise MultiFDError(
                f"RAM block {name!r} has {used_length} bytes, but only {free} are free in {self._folder}"
            )
        self._announced += used_length
        try:
            file = self._block_file(name, used_length)
            block = RAMFile(name, used_length, self._page_size, file, partial(self._changed, name))
        except (OSError, ValueError) as error:
            raise MultiFDError(f"no place for RAM block {name!r}: {error}") from error
        self._checksums[name] = ChunkedCRC32(used_length, CHUNK_PAGES * self._page_size)
        self._blocks[name] = block
        return block

    @abstractmethod
    def _block_file(self, name: str, used_length: int) -> IO[bytes]:
        """An empty file without a buffer, for a block's memory; ValueError or OSError if there can be none."""

    def _changed(self, name: str, numbers: NDArray[np.int64]) -> None:
        self._chunks.changed((name, chunk) for chunk in np.unique(numbers // CHUNK_PAGES).tolist())

    def _store(self, key: tuple[str, int]) -> None:
        name, chunk = key
        block = self._blocks[name]
        start = chunk * CHUNK_PAGES
        data = np.zeros((min(CHUNK_PAGES, len(block.received)), self._page_size), np.uint8)
        block.read(start, data)
        self._checksums[name].put(chunk, data[: len(block.received) - start].data)
        self._keep(name, chunk, data)

    @abstractmethod
    def _keep(self, name: str, chunk: int, data: NDArray[np.uint8]) -> None:
        """Keep a chunk's content, if the file that pages come to is not what is kept."""

    def device_state(self, data: bytes | memoryview, channel: int | None = None) -> None:
        """Add to the device state, of the main channel or of a multifd one.

        Raises
        ------
        MultiFDError
            If there is more of it than allowed.
        OSError
            If it cannot be written.
        """
        with self._lock:  # each channel has a thread
            self._device_state += len(data)
            if self._device_state > self._max_device_state:
                raise MultiFDError(
                    f"the device state has more than {self._max_device_state} bytes; if the source's devices have that "
                    "much, raise --max-device-state"
                )
        name = MAIN_DEVICE_STATE if channel is None else f"{DEVICE_STATE}-channel-{channel}.bin"
        if name not in self._device_files:
            self._device_files[name] = (self._work / name).open("wb")
            self._device_checksums[name] = 0
        self._device_files[name].write(data)
        self._device_checksums[name] = crc32(data, self._device_checksums[name])

    def complete(self, manifest: dict[str, Any]) -> None:
        """Move everything to its place, after all has come, and add the output's part to `manifest`.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        self._chunks.finish()
        for file in self._files():
            file.close()
        manifest["format"] = self.format
        manifest["device_state"] = [
            {"file": name, "crc32": crc} for name, crc in sorted(self._device_checksums.items())
        ]
        manifest["blocks"] = [self._entry(block) for block in self._blocks.values()]
        whole = self._work / MANIFEST
        whole.write_text(json.dumps(manifest, indent=2) + "\n")
        sync_all(self._made_private())
        for path in self._work.iterdir():
            if path != whole:
                self._move(path.name)
        sync(self._folder)
        self._move(MANIFEST)
        sync(self._folder)
        self._complete = True
        self._work.rmdir()

    def _move(self, name: str) -> None:
        self._moved.append(name)  # first, as a signal may come between the two
        (self._work / name).rename(self._folder / name)

    def _made_private(self) -> Iterator[Path]:
        for path in self._work.rglob("*"):
            # Until here the folder around them, made by mkdtemp, has kept others out.
            path.chmod(PRIVATE_FOLDER if path.is_dir() else PRIVATE_FILE)
            yield path

    def _entry(self, block: RAMFile) -> dict[str, Any]:
        return {
            "name": block.name,
            "used_length": block.used_length,
            "page_size": block.page_size,
            "pages_received": int(np.count_nonzero(block.received)),
            "crc32": self._checksums[block.name].value(),
            **self._where(block.name),
        }

    @abstractmethod
    def _where(self, name: str) -> dict[str, str]:
        """Place of a block: its kind, and its path in the folder."""

    def _files(self) -> list[IO[bytes] | RAMFile]:
        return [*self._device_files.values(), *self._blocks.values()]

    def discard(self) -> None:
        """End the threads, and remove everything, unless `complete` came to its end."""
        self._chunks.stop()
        for file in self._files():
            with contextlib.suppress(OSError):  # the disk may be full
                file.close()
        if not self._complete:
            for name in reversed(self._moved):  # the manifest first
                with contextlib.suppress(OSError):  # it was not moved
                    (self._folder / name).rename(self._work / name)
        shutil.rmtree(self._work, ignore_errors=True)
        if self._is_new:
            with contextlib.suppress(OSError):
                self._folder.rmdir()


class RawOutput(Output):
    """``<block>.bin`` for each RAM block: its memory, byte for byte. Pages that are all zeros are holes."""

    format = "raw"

    def _block_file(self, name: str, used_length: int) -> IO[bytes]:
        if name.startswith(DEVICE_STATE):
            raise ValueError("its file would have a name that is the device state's")
        return (self._work / raw_file(name)).open("x+b", buffering=0)

    def _keep(self, name: str, chunk: int, data: NDArray[np.uint8]) -> None:
        pass

    def _where(self, name: str) -> dict[str, str]:
        return {"file": raw_file(name)}


class ZarrOutput(Output):
    """``ram.zarr``: a group with an array for each RAM block, of shape [pages, page size], compressed with QPL.

    A chunk has 256 pages; one that is all zeros is not stored. Pages come to a temporary file, from which chunks are
    compressed where their checksums are computed.
    """

    format = "zarr"

    def __init__(self, folder: Path, page_size: int, max_device_state: int = MAX_DEVICE_STATE) -> None:
        super().__init__(folder, page_size, max_device_state)
        import zarr

        self._group = zarr.create_group(self._work / ZARR_GROUP, zarr_format=3)
        self._codec = codec.QPL()

    def _block_file(self, name: str, used_length: int) -> IO[bytes]:
        from numcodecs_qpl.zarr import QPL

        pages = used_length // self._page_size
        # Now, so that a name that zarr cannot use is an error before all pages have come.
        self._group.create_array(
            quote(name, safe=""),
            shape=(pages, self._page_size),
            chunks=(min(CHUNK_PAGES, pages), self._page_size),
            dtype=np.uint8,
            fill_value=0,
            # What `_keep` writes; zarr's configuration may have other defaults.
            filters=None,
            compressors=QPL(),
            chunk_key_encoding={"name": "default", "separator": "/"},
            attributes={"name": name},
        )
        return tempfile.TemporaryFile(buffering=0, dir=self._work)

    def _keep(self, name: str, chunk: int, data: NDArray[np.uint8]) -> None:
        path = self._work / zarr_chunk(name, chunk)
        if data.any():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._codec.encode(data))
        else:
            path.unlink(missing_ok=True)

    def _where(self, name: str) -> dict[str, str]:
        return {"array": zarr_array(name)}


OUTPUTS: dict[str, Callable[[Path, int, int], Output]] = {"raw": RawOutput, "zarr": ZarrOutput}
