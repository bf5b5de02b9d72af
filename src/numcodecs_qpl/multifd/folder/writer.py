"""Output of a received migration: a folder of files, or of a zarr group, and a manifest.

Everything is written to a subfolder whose name begins with ``incomplete-``, and moves to its place at the end. The
manifest moves last, and shows that the rest is complete. Guest memory contains secrets: folders have mode 0700 and
files 0600, with any umask.
"""

from __future__ import annotations

import contextlib
import json
import os
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
from numcodecs_qpl.files import sync, sync_all
from numcodecs_qpl.host.cpus import usable_cpus
from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.folder.checksum import ChunkedCRC32
from numcodecs_qpl.multifd.folder.layout import (
    CHUNK_PAGES,
    DEVICE_STATE,
    MAIN_DEVICE_STATE,
    MANIFEST,
    ZARR_GROUP,
    ZARR_SEPARATOR,
    raw_file,
    zarr_array,
    zarr_chunk,
)
from numcodecs_qpl.multifd.folder.reader import ReceivedFolder, ZarrBlock
from numcodecs_qpl.multifd.folder.writeback import WriteBack
from numcodecs_qpl.multifd.ram import RAMFile

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
MAX_DEVICE_STATE = 1 << 30
"""Default limit of device state, in bytes. A machine without passed-through devices has a few MB."""
LAG = 256
"""Number of most recently changed chunks that wait, for the rest of their pages or for newer ones."""
NOTHING, FILE, LINK = range(3)
"""Ways to store a chunk: not at all if it is all zeros, a new file, a hard link to an earlier snapshot's file."""


class Output(ABC):
    """A folder that is written while a migration comes in.

    Threads, one for each CPU, compute the checksums of chunks that have not changed for a while. A chunk that changes
    later is computed again.

    Parameters
    ----------
    folder : Path
        A new or empty folder. A new one gets mode 0700; an empty one keeps its mode.
    page_size : int
        Bytes in a page of the guest.
    max_device_state : int
        Limit of the device state in bytes, over all channels.

    Raises
    ------
    MultiFDError
        If `folder` is not empty, or cannot be created.
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
                raise MultiFDError(f"{folder} is not empty; expected a new or empty folder")
            self._work = Path(tempfile.mkdtemp(prefix="incomplete-", dir=folder))
        except FileExistsError as error:
            raise MultiFDError(f"{folder} is not a folder; expected a new or empty folder") from error
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
        """Create a file of zeros for a RAM block.

        Raises
        ------
        MultiFDError
            If the disk has no room for this block and the earlier ones, or the file cannot be created.
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
            raise MultiFDError(f"cannot make a file for RAM block {name!r}: {error}") from error
        self._checksums[name] = ChunkedCRC32(used_length, CHUNK_PAGES * self._page_size)
        self._blocks[name] = block
        return block

    @abstractmethod
    def _block_file(self, name: str, used_length: int) -> IO[bytes]:
        """Return an empty, unbuffered file for a block's memory; ValueError or OSError if it cannot be created."""

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
        """Store a chunk's content, unless the file that pages are written to is the result."""

    def device_state(self, data: bytes | memoryview, channel: int | None = None) -> None:
        """Add to the device state, of the main channel or of a multifd one.

        Raises
        ------
        MultiFDError
            If it exceeds the limit.
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
        """Move everything to its place, after all data has come, and add the output's part to `manifest`.

        Raises
        ------
        OSError
            If a file cannot be written.
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
        self._moved.append(name)  # before the move, because a signal may come between the two
        (self._work / name).rename(self._folder / name)

    def _made_private(self) -> Iterator[Path]:
        for path in self._work.rglob("*"):
            # Until here, the mode of the enclosing folder (mkdtemp) has protected them.
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
        """Return the place of a block: its kind, and its path in the folder."""

    def _files(self) -> list[IO[bytes] | RAMFile]:
        return [*self._device_files.values(), *self._blocks.values()]

    def discard(self) -> None:
        """End the threads, and remove everything unless `complete` has returned."""
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
            raise ValueError("its file would have the name of the device state's file")
        return (self._work / raw_file(name)).open("x+b", buffering=0)

    def _keep(self, name: str, chunk: int, data: NDArray[np.uint8]) -> None:
        pass

    def _where(self, name: str) -> dict[str, str]:
        return {"file": raw_file(name)}


class ZarrOutput(Output):
    """``ram.zarr``: a group with an array for each RAM block, of shape [pages, page size], compressed with QPL.

    A chunk that is all zeros is not stored. Pages are written to a temporary file. The threads that compute checksums
    also compress chunks from it.

    Parameters
    ----------
    folder, page_size, max_device_state
        As for `Output`.
    earlier : ReceivedFolder, optional
        A snapshot of the same guest. If a chunk equals the chunk at the same place there, it becomes a hard link to it.
        The snapshots do not depend on each other: a file exists until its last link is removed.

    Raises
    ------
    MultiFDError
        As for `Output`, or if links to the chunks of `earlier` are impossible.
    """

    format = "zarr"

    def __init__(
        self,
        folder: Path,
        page_size: int,
        max_device_state: int = MAX_DEVICE_STATE,
        earlier: ReceivedFolder | None = None,
    ) -> None:
        super().__init__(folder, page_size, max_device_state)
        self._earlier: dict[str, ZarrBlock] = {}
        self._kept: dict[str, NDArray[np.uint8]] = {}  # by block, for each chunk: not kept, a file, a link
        self._codec = codec.QPL()
        try:
            if earlier is not None:
                self._check(earlier)
                self._earlier = {block.name: block for block in earlier.blocks if isinstance(block, ZarrBlock)}
            import zarr

            self._group = zarr.create_group(self._work / ZARR_GROUP, zarr_format=3)
        except BaseException:
            self.discard()
            raise

    def _check(self, earlier: ReceivedFolder) -> None:
        if earlier.format != self.format:
            raise MultiFDError(
                f"{earlier.path} has the format {earlier.format}, so it has no chunks that could be shared; give a "
                "folder that was received with --format zarr"
            )
        if earlier.page_size != self._page_size:
            raise MultiFDError(
                f"{earlier.path} has pages of {earlier.page_size} bytes; expected {self._page_size} bytes: give "
                "an earlier snapshot of the same guest"
            )
        manifest = earlier.path / MANIFEST
        if (owner := manifest.stat().st_uid) != os.geteuid():
            # The owner of a file can read and change it, even in this user's folder.
            raise MultiFDError(
                f"{earlier.path} belongs to another user (uid {owner}), who could read this guest's memory too; "
                "receive as that user, or without --like"
            )
        trial = self._work / "trial"
        try:
            trial.hardlink_to(manifest)
            trial.unlink()
        except OSError as error:
            raise MultiFDError(
                f"{self._folder} cannot share chunks with {earlier.path}: {error.strerror or error}; both folders must "
                "be on the same file system, which must have hard links"
            ) from error

    def _block_file(self, name: str, used_length: int) -> IO[bytes]:
        from numcodecs_qpl.zarr import QPL

        pages = used_length // self._page_size
        # Create the array now, so that a name that zarr cannot use is an error before all pages have come.
        self._group.create_array(
            quote(name, safe=""),
            shape=(pages, self._page_size),
            chunks=(min(CHUNK_PAGES, pages), self._page_size),
            dtype=np.uint8,
            fill_value=0,
            # Set the format that `_keep` writes; zarr's configuration may have other defaults.
            filters=None,
            compressors=QPL(),
            chunk_key_encoding={"name": "default", "separator": ZARR_SEPARATOR},
            attributes={"name": name},
        )
        self._kept[name] = np.zeros(-(-pages // CHUNK_PAGES), np.uint8)
        return tempfile.TemporaryFile(buffering=0, dir=self._work)

    def _keep(self, name: str, chunk: int, data: NDArray[np.uint8]) -> None:
        path = self._work / zarr_chunk(name, chunk)
        path.unlink(missing_ok=True)  # never overwrite it: it may be a link, and belong to other snapshots too
        kept = NOTHING
        if data.any():
            kept = LINK if self._link(name, chunk, data, path) else FILE
        if kept == FILE:
            path.write_bytes(self._codec.encode(data))
        self._kept[name][chunk] = kept

    def _link(self, name: str, chunk: int, data: NDArray[np.uint8], path: Path) -> bool:
        earlier = self._earlier.get(name)
        if earlier is None or not earlier.equals(chunk, data):
            return False
        try:
            path.hardlink_to(earlier.path(chunk))
        except OSError:  # the earlier snapshot was removed meanwhile, or the file has the maximum number of links
            return False
        return True

    def chunks_kept(self) -> tuple[int, int]:
        """Return the number of stored chunks, and the number of links to the earlier snapshot among them."""
        counts = [np.bincount(kept, minlength=LINK + 1) for kept in self._kept.values()]
        return sum(int(count[FILE] + count[LINK]) for count in counts), sum(int(count[LINK]) for count in counts)

    def _where(self, name: str) -> dict[str, str]:
        return {"array": zarr_array(name)}


OUTPUTS: dict[str, Callable[[Path, int, int], Output]] = {"raw": RawOutput, "zarr": ZarrOutput}
