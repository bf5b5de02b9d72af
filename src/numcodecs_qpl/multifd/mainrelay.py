"""Relaying of the main channel: unchanged, in both directions. The relay reads it to follow the migration."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from numcodecs_qpl.multifd.errors import MultiFDError, PeerClosedError, RefusedError
from numcodecs_qpl.multifd.pair import Pair
from numcodecs_qpl.multifd.stream.opening import read_opening
from numcodecs_qpl.multifd.stream.returnpath import Confirmation
from numcodecs_qpl.multifd.stream.savevm import SavevmReader
from numcodecs_qpl.multifd.stream.vmdescription import DescriptionFinder

PIECE = 64 * 1024  # bytes to pass on at a time
LOOK_THERE = (
    "; look at what the QEMU (or the relay) there wrote: a QEMU refuses a uuid or a number of multifd-channels "
    "other than its own"
)
NO_RETURN_PATH = (
    "the source has not opened the return path: if the destination refuses the guest's devices, the source says that "
    "the migration has completed, and no guest runs. Turn on return-path in both QEMUs (QMP migrate-set-capabilities)"
)


class MainRelay:
    """Relay of the main channel, with a thread for each direction.

    Parameters
    ----------
    page_size : int
        Bytes in a page of the guest.
    warned : callable
        ``warned(text)`` is called if the source has not opened the return path.

    Attributes
    ----------
    return_path : bool or None
        True if the destination will confirm; None if that cannot be known.
    passed_on : bool
        True if the whole channel has gone to the next hop, up to the description that ends it.
    confirmed : bool
        True if the destination has reported on the return path that it has loaded the guest.
    """

    def __init__(self, page_size: int, warned: Callable[[str], None]) -> None:
        self.return_path: bool | None = False
        self.passed_on = False
        self.confirmed = False
        self._page_size = page_size
        self._warned = warned
        self._description = DescriptionFinder()

    def forward(self, pair: Pair) -> None:
        """Pass on the source's direction until its end.

        Raises
        ------
        MultiFDError
            If the source ends too early or announces a migration that relays refuse, or a connection breaks.
        """
        passing = _PassedOn(pair, self._find_end)
        self.return_path = read_opening(SavevmReader(io.BufferedReader(passing), self._page_size)).return_path
        if self.return_path is False:
            self._warned(NO_RETURN_PATH)
        piece = bytearray(PIECE)
        while passing.readinto(piece):
            pass
        if not self.passed_on:
            raise PeerClosedError(
                "the source ended before the description of the device state: the migration has failed"
            )

    def back(self, pair: Pair) -> None:
        """Pass on the return path until its end.

        Raises
        ------
        MultiFDError
            If the destination refuses the guest, breaks the protocol, or a connection breaks.
        """
        confirmation = Confirmation()
        for data in pair.onward.pieces(PIECE):
            confirmation.add(data)
            if confirmation.came and not self.passed_on:
                raise MultiFDError(
                    f"{pair.onward.name} confirmed that it has loaded the guest before the source had sent everything"
                    f"{LOOK_THERE}"
                )
            self.confirmed = confirmation.came
            pair.source.send([data])
        if not self.passed_on:
            raise RefusedError(
                f"{pair.onward.name} ended the main connection before the source had sent everything{LOOK_THERE}"
            )
        if self.return_path and not self.confirmed:
            raise RefusedError(
                f"{pair.onward.name} ended the main connection and has not confirmed that it has loaded the guest"
                f"{LOOK_THERE}"
            )

    def _find_end(self, data: memoryview) -> None:
        self.passed_on = self._description.add(data) is not None


class _PassedOn(io.RawIOBase):
    """Stream of the source's bytes. Bytes that are read from it have been passed on.

    Parameters
    ----------
    pair : Pair
        The connections.
    note : callable
        ``note(data)`` is called with each piece before it is passed on.
    """

    def __init__(self, pair: Pair, note: Callable[[memoryview], None]) -> None:
        self._pair = pair
        self._note = note

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        view = view[: self._pair.source.read_some(view)]
        if view:
            self._note(view)
            self._pair.onward.send([view])
        return len(view)
