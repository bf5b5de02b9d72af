"""Reading of a folder that `Output` has written: manifest, guest memory and device state."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from uuid import UUID
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from numcodecs_qpl import codec
from numcodecs_qpl._core import QplError
from numcodecs_qpl.host.cpus import usable_cpus
from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.folder.checksum import ChunkedCRC32
from numcodecs_qpl.multifd.folder.layout import CHUNK_PAGES, MAIN_DEVICE_STATE, MANIFEST, raw_file, zarr_chunk
from numcodecs_qpl.multifd.stream.mainchannel import Framing
from numcodecs_qpl.multifd.stream.savevm import Configuration
from numcodecs_qpl.multifd.stream.wire import Offsets, pages_in_packet

PIECE = 1 << 20  # bytes of device state that are read at a time
BATCH = 64  # chunks to verify between two checks for signals


class StoredBlock(ABC):
    """A RAM block in a folder.

    Attributes
    ----------
    name : str
        QEMU's name of the block (idstr).
    used_length, page_size, crc32 : int
        Values of the manifest.
    chunks : int
        Number of chunks. Each has 64 pages; the last may have fewer.
    """

    def __init__(self, folder: Path, entry: dict[str, Any]) -> None:
        self.folder = folder
        self.name = str(entry["name"])
        self.used_length = int(entry["used_length"])
        self.page_size = int(entry["page_size"])
        self.crc32 = int(entry["crc32"])
        pages_in_packet(self.page_size)
        if self.used_length < self.page_size or self.used_length % self.page_size:
            raise ValueError(f"RAM block {self.name!r} has {self.used_length} bytes")
        self._pages = self.used_length // self.page_size
        self.chunks = -(-self._pages // CHUNK_PAGES)

    def offsets(self, chunk: int) -> Offsets:
        """Return the offsets of a chunk's pages in the block, in bytes."""
        first = chunk * CHUNK_PAGES
        return np.arange(first, first + self._size(chunk), dtype=np.uint64) * np.uint64(self.page_size)

    def read(self, chunk: int) -> NDArray[np.uint8] | None:
        """Read the pages of a chunk, shape (pages, page_size); None if the chunk is known to be all zeros.

        Raises
        ------
        MultiFDError
            If they are missing or damaged.
        """
        try:
            return self._read(chunk)
        except (OSError, QplError, ValueError) as error:
            raise MultiFDError(f"RAM block {self.name!r} in {self.folder} cannot be read: {error}") from error

    @abstractmethod
    def _read(self, chunk: int) -> NDArray[np.uint8] | None:
        """Read a chunk, as `read` does; raises OSError, QplError or ValueError."""

    def verify(self, threads: ThreadPoolExecutor, check: Callable[[], None]) -> None:
        """Read the whole block and compare its checksum. An exception of ``check()`` ends this soon.

        Raises
        ------
        MultiFDError
            If the block differs from the received one.
        """
        found = ChunkedCRC32(self.used_length, CHUNK_PAGES * self.page_size)

        def check_chunk(chunk: int) -> None:
            pages = self.read(chunk)
            if pages is not None:
                found.put(chunk, pages.data)

        for start in range(0, self.chunks, BATCH):
            for _ in threads.map(check_chunk, range(start, min(start + BATCH, self.chunks))):
                pass  # an error is raised here
            check()
        if found.value() != self.crc32:
            raise MultiFDError(f"RAM block {self.name!r} in {self.folder} is damaged: its CRC-32 is another one")

    @abstractmethod
    def close(self) -> None:
        """Close the open files."""

    def _size(self, chunk: int) -> int:
        # Return the number of pages in a chunk.
        return min(CHUNK_PAGES, self._pages - chunk * CHUNK_PAGES)


class RawBlock(StoredBlock):
    """A RAM block in a file."""

    def __init__(self, folder: Path, entry: dict[str, Any]) -> None:
        super().__init__(folder, entry)
        self._file = (folder / raw_file(self.name)).open("rb", buffering=0)
        size = os.fstat(self._file.fileno()).st_size
        if size != self.used_length:
            self.close()
            raise MultiFDError(f"{folder / raw_file(self.name)} has {size} bytes; expected {self.used_length}")

    def _read(self, chunk: int) -> NDArray[np.uint8] | None:
        start = chunk * CHUNK_PAGES * self.page_size
        pages = np.empty((self._size(chunk), self.page_size), np.uint8)
        if self._is_hole(start, pages.nbytes):
            return None
        if os.preadv(self._file.fileno(), [pages.data], start) < pages.nbytes:
            raise OSError("its file ends too early")
        return pages

    def _is_hole(self, start: int, size: int) -> bool:
        try:
            return os.lseek(self._file.fileno(), start, os.SEEK_DATA) >= start + size
        except OSError:  # no data follows
            return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ZarrBlock(StoredBlock):
    """A RAM block in an array of the zarr group. Its chunks are read without zarr."""

    _codec = codec.QPL()

    def path(self, chunk: int) -> Path:
        """Return the path of a chunk's file, which does not exist if the chunk is all zeros."""
        return self.folder / zarr_chunk(self.name, chunk)

    def equals(self, chunk: int, pages: NDArray[np.uint8]) -> bool:
        """Return True if a chunk's file contains `pages`, byte for byte; False if it is missing or damaged."""
        try:
            encoded = self.path(chunk).read_bytes()
            # Compare the CRC-32 in gzip's trailer first: decompression takes more than half the time of compression.
            is_likely = encoded[-8:-4] == crc32(pages.data).to_bytes(4, "little")
            return is_likely and np.array_equal(self._decode(encoded), pages)
        except (OSError, QplError, ValueError):
            return False

    def _read(self, chunk: int) -> NDArray[np.uint8] | None:
        try:
            encoded = self.path(chunk).read_bytes()
        except FileNotFoundError:  # a chunk of zeros is not stored
            return None
        return self._decode(encoded)[: self._size(chunk)]

    def _decode(self, encoded: bytes) -> NDArray[np.uint8]:
        pages = np.empty((min(CHUNK_PAGES, self._pages), self.page_size), np.uint8)
        self._codec.decode(encoded, pages)
        return pages

    def close(self) -> None:
        """Do nothing: no file is open between two reads."""


BLOCKS = {"raw": RawBlock, "zarr": ZarrBlock}


class ReceivedFolder:
    """A folder with a received migration.

    Parameters
    ----------
    path : Path
        The folder.

    Attributes
    ----------
    path : Path
        The folder.
    configuration : Configuration
        Configuration section of the source.
    framing : Framing
        Framing of guest memory in the source's stream.
    uuid : UUID
        UUID of the guest.
    devices : list of str
        Names of the guest's devices.
    disks : str
        Required state of the guest's disks.
    format : str
        "raw" or "zarr".
    page_size : int
        Bytes in a page of the guest.
    blocks : list of StoredBlock
        Guest memory.

    Raises
    ------
    MultiFDError
        If the manifest or a file of the folder is missing, or the manifest is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: list[StoredBlock] = []
        try:
            self._load(json.loads((path / MANIFEST).read_text()))
        except FileNotFoundError as error:
            self.close()
            if not path.exists():
                raise MultiFDError(f"{path} does not exist; expected a folder that receive has written") from error
            raise MultiFDError(
                f"{error.filename} is missing: {path} was not received by this version, or not completely"
            ) from error
        except OSError as error:
            self.close()
            raise MultiFDError(f"{path} cannot be read: {error.strerror or error}") from error
        except MultiFDError:
            self.close()
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.close()
            raise MultiFDError(
                f"{path / MANIFEST} is damaged, or of another version: {type(error).__name__}: {error}"
            ) from error

    def _load(self, manifest: dict[str, Any]) -> None:
        found = manifest["configuration"]
        capabilities, bits, uuid = (found.get(key) for key in ("capabilities", "target_page_bits", "uuid"))
        self.configuration = Configuration(manifest["machine"], capabilities, bits, UUID(uuid) if uuid else None)
        self.configuration.pack()  # raises an error if it is invalid
        self.framing = Framing(**manifest["main_channel"])
        self.uuid = UUID(manifest["uuid"])
        self.devices = [str(name) for name in manifest["devices"]]
        self.disks = str(manifest["disks"])
        self._device_state = {str(entry["file"]): int(entry["crc32"]) for entry in manifest["device_state"]}
        self.format = str(manifest["format"])
        for entry in manifest["blocks"]:
            self.blocks.append(BLOCKS[self.format](self.path, entry))
        (self.page_size,) = {block.page_size for block in self.blocks}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for block in self.blocks:
            block.close()

    def verify(self, check: Callable[[], None] = lambda: None) -> None:
        """Read everything and compare checksums.

        Parameters
        ----------
        check : callable
            ``check()`` is called many times. Its exceptions end the verification.

        Raises
        ------
        MultiFDError
            If anything differs from the received data.
        """
        for name, expected in self._device_state.items():
            found = 0
            for piece in self.device_state(name):
                found = crc32(piece, found)
                check()
            if found != expected:
                raise MultiFDError(f"{self.path / name} is damaged: its CRC-32 is another one")
        with ThreadPoolExecutor(usable_cpus()) as threads:
            for block in self.blocks:
                block.verify(threads, check)

    def channel_files(self) -> list[str]:
        """Return the names of the files with device state that came over multifd channels."""
        return [name for name in self._device_state if name != MAIN_DEVICE_STATE]

    def device_state(self, name: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """Read a file of device state from `start` on, piece by piece: `size` bytes, or to the end.

        Raises
        ------
        MultiFDError
            If the file cannot be read.
        """
        try:
            with (self.path / name).open("rb") as file:
                file.seek(start)
                left = os.fstat(file.fileno()).st_size - start if size is None else size
                while left > 0 and (piece := file.read(min(PIECE, left))):
                    yield piece
                    left -= len(piece)
        except OSError as error:
            raise MultiFDError(f"{self.path / name} cannot be read: {error.strerror or error}") from error
