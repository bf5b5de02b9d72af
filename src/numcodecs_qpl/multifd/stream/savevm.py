"""QEMU's migration stream as far as the relay and the receiver read it alike: numbers, strings, and its opening.

Read in QEMU's ``migration/savevm.c`` and ``migration/migration.c`` (7.2 to 11.1). All integers are big-endian.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from numcodecs_qpl.multifd.errors import MultiFDError, PeerClosedError, SettingsError

MAGIC = b"QEVM"
VERSION = 3

EOF, START, PART, END, FULL, SUBSECTION, VMDESCRIPTION, CONFIGURATION, COMMAND = range(9)
FOOTER = 0x7E
"""Types of section (``QEMU_VM_*``)."""

OPEN_RETURN_PATH, PING, POSTCOPY_ADVISE, PACKAGED, ENABLE_COLO, RECV_BITMAP = 1, 2, 3, 7, 8, 10
"""Commands (``MIG_CMD_*``). From POSTCOPY_ADVISE to RECV_BITMAP they change what the stream is."""


def u8(number: int) -> bytes:
    """Write a number of 8 bits."""
    return number.to_bytes(1, "big")


def u16(number: int) -> bytes:
    """Write a number of 16 bits."""
    return number.to_bytes(2, "big")


def u32(number: int) -> bytes:
    """Write a number of 32 bits."""
    return number.to_bytes(4, "big")


def u64(number: int) -> bytes:
    """Write a number of 64 bits."""
    return number.to_bytes(8, "big")


def string(text: str) -> bytes:
    """Write a string of at most 255 bytes."""
    data = text.encode()
    return u8(len(data)) + data


def _subsection(name: str) -> bytes:
    return u8(SUBSECTION) + string(f"configuration/{name}") + u32(1)  # its version


@dataclass
class Configuration:
    """The configuration section; None stands for a subsection that did not come.

    Attributes
    ----------
    machine : str
        The machine type of the source.
    capabilities : list of str or None
        Capabilities that both sides need to have turned on.
    target_page_bits : int or None
        The guest's page size is 2 to the power of this. Comes from machines whose page size can vary (Arm).
    uuid : UUID or None
        The guest's. Comes where ``validate-uuid`` is on.
    """

    machine: str
    capabilities: list[str] | None = None
    target_page_bits: int | None = None
    uuid: UUID | None = None

    def pack(self) -> bytes:
        """Return the section, its type included."""
        parts = [u8(CONFIGURATION), u32(len(self.machine.encode())), self.machine.encode()]
        if self.target_page_bits is not None:
            parts += [_subsection("target-page-bits"), u32(self.target_page_bits)]
        if self.capabilities is not None:
            parts += [_subsection("capabilities"), u32(len(self.capabilities)), *map(string, self.capabilities)]
        if self.uuid is not None:
            parts += [_subsection("uuid"), self.uuid.bytes]
        return b"".join(parts)


class UnknownPartError(MultiFDError):
    """The stream has a part of unknown length, so that the parts after it cannot be found."""


class SavevmReader:
    """Reads numbers, strings and sections of the opening.

    Parameters
    ----------
    stream : io.BufferedReader
        The stream, from behind the magic on.
    page_size : int
        Bytes in a page of the guest.
    """

    def __init__(self, stream: io.BufferedReader[Any], page_size: int) -> None:
        self.stream = stream
        self.page_size = page_size

    def check_version(self) -> None:
        """Read the version, which comes first.

        Raises
        ------
        MultiFDError
            If it is not the version that this module knows.
        """
        version = self.u32()
        if version != VERSION:
            raise MultiFDError(f"{version}; only version {VERSION} is known", field="version")

    def configuration(self) -> Configuration:
        """Read the configuration section, whose type has been read.

        Raises
        ------
        UnknownPartError
            If it has a subsection that QEMU 11.1 does not have.
        MultiFDError
            If it is damaged, or the guest's page size is another one.
        """
        found = Configuration(self.read(self.u32(limit=256)).decode(errors="replace"))
        while self.next_type() == SUBSECTION:
            self.u8()
            name = self.string()
            self.u32()  # its version
            if name == "configuration/capabilities":
                found.capabilities = [self.string() for _ in range(self.u32(limit=256))]
            elif name == "configuration/target-page-bits":
                found.target_page_bits = self.u32()
            elif name == "configuration/uuid":
                found.uuid = UUID(bytes=self.read(16))
            else:
                raise UnknownPartError(f"the configuration has a part {name!r}, which is not known")
        bits = found.target_page_bits
        if bits is not None and self.page_size != 1 << min(bits, 63):
            raise SettingsError(
                f"the guest's pages have 2**{bits} bytes, but {self.page_size} are expected: set --page-size"
            )
        return found

    def command(self) -> tuple[int, bytes]:
        """Read a command, whose section type has been read; return its number and its data.

        Raises
        ------
        MultiFDError
            If the command makes a stream that cannot be carried or followed: postcopy or COLO.
        """
        command, size = self.u16(), self.u16()
        data = self.read(size)
        # With dirty-bitmaps and without postcopy-ram, QEMU sends POSTCOPY_ADVISE too, without data. It changes nothing.
        if POSTCOPY_ADVISE <= command <= RECV_BITMAP and (command, size) != (POSTCOPY_ADVISE, 0):
            capability = "x-colo" if command == ENABLE_COLO else "postcopy-ram"
            raise SettingsError(
                f"the source has {capability} turned on (command {command} in its stream), which is not supported: "
                f"turn {capability} off in both QEMUs (QMP migrate-set-capabilities) and migrate again"
            )
        return command, data

    def read(self, size: int) -> bytes:
        """Read `size` bytes.

        Raises
        ------
        MultiFDError
            If the stream ends before.
        """
        data = self.stream.read(size)
        if len(data) < size:
            raise PeerClosedError(f"the source ended; {size - len(data)} of {size} bytes were missing")
        return data

    def next_type(self) -> int:
        """Return the type of the section that comes next without reading it; -1 at the end of the stream."""
        data = self.stream.peek(1)
        return data[0] if data else -1

    def u8(self) -> int:
        """Read a number of 8 bits."""
        return self.read(1)[0]

    def u16(self) -> int:
        """Read a number of 16 bits."""
        return int.from_bytes(self.read(2), "big")

    def u32(self, limit: int = 2**32) -> int:
        """Read a number of 32 bits.

        Raises
        ------
        MultiFDError
            If it is above `limit`, or the stream ends before.
        """
        value = int.from_bytes(self.read(4), "big")
        if value > limit:
            raise MultiFDError(f"a length of {value} where at most {limit} can stand: the stream is damaged")
        return value

    def u64(self) -> int:
        """Read a number of 64 bits."""
        return int.from_bytes(self.read(8), "big")

    def string(self) -> str:
        """Read a string of at most 255 bytes.

        Raises
        ------
        MultiFDError
            If it is not UTF-8, or the stream ends before.
        """
        data = self.read(self.u8())
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise MultiFDError(f"the name {data!r} is not UTF-8") from None
