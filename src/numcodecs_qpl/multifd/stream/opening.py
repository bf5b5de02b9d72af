"""The opening of the main channel: all that comes before guest memory. It shows whether a confirmation will come."""

from __future__ import annotations

from dataclasses import dataclass

from numcodecs_qpl.multifd.stream.savevm import COMMAND, CONFIGURATION, OPEN_RETURN_PATH, SavevmReader, UnknownPartError


@dataclass
class Opening:
    """Content of the opening.

    Attributes
    ----------
    return_path : bool or None
        True if the source has opened the return path: the destination will confirm that it has loaded everything. None
        if a part of the opening is unknown.
    """

    return_path: bool | None = False


def read_opening(reader: SavevmReader) -> Opening:
    """Read the opening; the stream's position is then before the first section of a device or of guest memory.

    Raises
    ------
    MultiFDError
        If the opening is damaged, ends too early, or announces postcopy or COLO.
    """
    opening = Opening()
    reader.check_version()
    try:
        while (kind := reader.next_type()) in (CONFIGURATION, COMMAND):
            reader.u8()
            if kind == CONFIGURATION:
                reader.configuration()
            elif reader.command()[0] == OPEN_RETURN_PATH:
                opening.return_path = True
    except UnknownPartError:
        opening.return_path = None
    return opening
