"""Parts of QEMU's migration stream that both the relay and the receiver read: numbers, strings, and the opening.

The format was read in QEMU's ``migration/savevm.c`` and ``migration/migration.c`` (7.2 to 11.1). All integers are
big-endian.
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
"""Commands (``MIG_CMD_*``). Those from POSTCOPY_ADVISE to RECV_BITMAP change the format of the stream."""


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
    """The configuration section; None for a missing subsection.

    Attributes
    ----------
    machine : str
        The machine type of the source.
    capabilities : list of str or None
        Capabilities that must be on at both sides.
    target_page_bits : int or None
        Binary logarithm of the guest's page size. Sent by machines whose page size can vary (Arm).
    uuid : UUID or None
        UUID of the guest. Sent if ``validate-uuid`` is on.
    """

    machine: str
    capabilities: list[str] | None = None
    target_page_bits: int | None = None
    uuid: UUID | None = None

    def pack(self) -> bytes:
        """Return the section, including its type."""
        parts = [u8(CONFIGURATION), u32(len(self.machine.encode())), self.machine.encode()]
        if self.target_page_bits is not None:
            parts += [_subsection("target-page-bits"), u32(self.target_page_bits)]
        if self.capabilities is not None:
            parts += [_subsection("capabilities"), u32(len(self.capabilities)), *map(string, self.capabilities)]
        if self.uuid is not None:
            parts += [_subsection("uuid"), self.uuid.bytes]
        return b"".join(parts)


class UnknownPartError(MultiFDError):
    """The stream has a part of unknown length, so the next part cannot be found."""


class SavevmReader:
    """Reader of numbers, strings and sections of the opening.

    Parameters
    ----------
    stream : io.BufferedReader
        The stream after the magic.
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
            If it is another version than this module supports.
        """
        version = self.u32()
        if version != VERSION:
            raise MultiFDError(f"{version}; expected {VERSION}", field="version")

    def configuration(self) -> Configuration:
        """Read the configuration section, whose type has been read.

        Raises
        ------
        UnknownPartError
            If it has a subsection that QEMU 11.1 does not have.
        MultiFDError
            If it is damaged, or the guest's page size differs from the reader's.
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
                raise UnknownPartError(f"the configuration has an unknown subsection {name!r}")
        bits = found.target_page_bits
        if bits is not None and self.page_size != 1 << min(bits, 63):
            raise SettingsError(f"the guest's pages have 2**{bits} bytes; expected {self.page_size}: set --page-size")
        return found

    def command(self) -> tuple[int, bytes]:
        """Read a command, whose section type has been read; return its number and its data.

        Raises
        ------
        MultiFDError
            If the command starts postcopy or COLO, which are not supported.
        """
        command, size = self.u16(), self.u16()
        data = self.read(size)
        # With dirty-bitmaps but without postcopy-ram, QEMU sends POSTCOPY_ADVISE without data, which has no effect.
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
            If the stream ends early.
        """
        data = self.stream.read(size)
        if len(data) < size:
            raise PeerClosedError(
                f"the source ended before the end of the migration; {size - len(data)} of {size} bytes were missing"
            )
        return data

    def next_type(self) -> int:
        """Return the type of the next section without reading it; -1 at the end of the stream."""
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
            If it exceeds `limit`, or the stream ends early.
        """
        value = int.from_bytes(self.read(4), "big")
        if value > limit:
            raise MultiFDError(f"a length of {value}; expected at most {limit}: the stream is damaged")
        return value

    def u64(self) -> int:
        """Read a number of 64 bits."""
        return int.from_bytes(self.read(8), "big")

    def string(self) -> str:
        """Read a string of at most 255 bytes.

        Raises
        ------
        MultiFDError
            If it is not UTF-8, or the stream ends early.
        """
        data = self.read(self.u8())
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise MultiFDError(f"the name {data!r} is not UTF-8") from None
