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

import numpy as np
from numpy.typing import NDArray

from numcodecs_qpl import codec
from numcodecs_qpl.cpus import usable_cpus
from numcodecs_qpl.files import sync, sync_all
from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.ram import RAMFile
from numcodecs_qpl.multifd.writeback import WriteBack

MANIFEST = "manifest.json"
DEVICE_STATE = "device-state"
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
MAX_DEVICE_STATE = 1 << 30
"""Bytes of device state unless told otherwise. A machine without passed-through devices has a few MB."""
CHUNK_PAGES = 256
"""Pages in a chunk of a zarr array: 1 MiB for pages of 4 KiB."""
LAG = 64
"""Chunks that wait for the rest of their pages, or for newer ones: those that changed last."""


class Output(ABC):
    """A folder that fills while a migration comes in.

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
        self._blocks: dict[str, RAMFile] = {}
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
            changed = partial(self._changed, name)
            self._blocks[name] = RAMFile(name, used_length, self._page_size, file, changed)
        except (OSError, ValueError) as error:
            raise MultiFDError(f"no place for RAM block {name!r}: {error}") from error
        return self._blocks[name]

    @abstractmethod
    def _block_file(self, name: str, used_length: int) -> IO[bytes]:
        """An empty file without a buffer, for a block's memory; ValueError or OSError if there can be none."""

    @abstractmethod
    def _changed(self, name: str, numbers: NDArray[np.int64]) -> None:
        """Take notice that pages of a block have changed."""

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
        name = f"{DEVICE_STATE}.bin" if channel is None else f"{DEVICE_STATE}-channel-{channel}.bin"
        if name not in self._device_files:
            self._device_files[name] = (self._work / name).open("wb")
        self._device_files[name].write(data)

    def complete(self, manifest: dict[str, Any]) -> None:
        """Move everything to its place, after all has come, and add the output's part to `manifest`.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        for file in self._files():
            file.close()
        manifest["format"] = self.format
        manifest["device_state"] = sorted(self._device_files)
        manifest["blocks"] = [_entry(block, **self._where(block.name)) for block in self._blocks.values()]
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

    @abstractmethod
    def _where(self, name: str) -> dict[str, str]:
        """Place of a block: its kind, and its path in the folder."""

    def _files(self) -> list[IO[bytes] | RAMFile]:
        return [*self._device_files.values(), *self._blocks.values()]

    def discard(self) -> None:
        """Remove everything, unless `complete` came to its end."""
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
        return (self._work / _file_name(name)).open("x+b", buffering=0)

    def _changed(self, name: str, numbers: NDArray[np.int64]) -> None:
        pass  # the file that the pages came to is the result

    def _where(self, name: str) -> dict[str, str]:
        return {"file": _file_name(name)}


class ZarrOutput(Output):
    """``ram.zarr``: a group with an array for each RAM block, of shape [pages, page size], compressed with QPL.

    A chunk has 256 pages; one that is all zeros is not stored. Pages come to a temporary file. Threads, one for each
    CPU, compress from there the chunks that have not changed for a while, and again those that change after that.
    """

    format = "zarr"
    GROUP = "ram.zarr"

    def __init__(self, folder: Path, page_size: int, max_device_state: int = MAX_DEVICE_STATE) -> None:
        super().__init__(folder, page_size, max_device_state)
        import zarr

        self._group = zarr.create_group(self._work / self.GROUP, zarr_format=3)
        self._codec = codec.QPL()
        self._chunks = WriteBack(self._store, usable_cpus(), LAG)

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
            # What `_store` writes; zarr's configuration may have other defaults.
            filters=None,
            compressors=QPL(),
            chunk_key_encoding={"name": "default", "separator": "/"},
            attributes={"name": name},
        )
        return tempfile.TemporaryFile(buffering=0, dir=self._work)

    def _changed(self, name: str, numbers: NDArray[np.int64]) -> None:
        self._chunks.changed((name, chunk) for chunk in np.unique(numbers // CHUNK_PAGES).tolist())

    def _store(self, key: tuple[str, int]) -> None:
        name, chunk = key
        block = self._blocks[name]
        data = np.zeros((min(CHUNK_PAGES, len(block.received)), self._page_size), np.uint8)
        block.read(chunk * CHUNK_PAGES, data)
        path = self._work / self._where(name)["array"] / "c" / f"{chunk}" / "0"
        if data.any():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._codec.encode(data))
        else:
            path.unlink(missing_ok=True)

    def complete(self, manifest: dict[str, Any]) -> None:
        """Compress what is left, and move everything to its place."""
        self._chunks.finish()
        super().complete(manifest)

    def discard(self) -> None:
        """End the threads, and remove everything, unless `complete` came to its end."""
        self._chunks.stop()
        super().discard()

    def _where(self, name: str) -> dict[str, str]:
        return {"array": f"{self.GROUP}/{quote(name, safe='')}"}


OUTPUTS: dict[str, Callable[[Path, int, int], Output]] = {"raw": RawOutput, "zarr": ZarrOutput}


def _file_name(block: str) -> str:
    return f"{quote(block, safe='')}.bin"


def _entry(block: RAMFile, **where: str) -> dict[str, Any]:
    return {
        "name": block.name,
        "used_length": block.used_length,
        "page_size": block.page_size,
        "pages_received": int(np.count_nonzero(block.received)),
        **where,
    }
