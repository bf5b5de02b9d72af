"""Connections that a relay has taken from its source, until they are opened onward."""

from __future__ import annotations

from uuid import UUID

from numcodecs_qpl.multifd.errors import MAIN, MultiFDError
from numcodecs_qpl.multifd.stream import wire
from numcodecs_qpl.multifd.transport.intake import Arrival


class Arrivals:
    """Connections of one migration.

    It has no lock of its own: a relay holds its lock around each use.

    Attributes
    ----------
    main_came : bool
        True if the source has opened the main connection.
    uuids : dict of int to UUID
        The guest's uuid in the opening bytes of each channel, by the channel's id.
    waiting : list of Arrival
        Connections that are not open onward yet, the main connection first.
    """

    def __init__(self) -> None:
        self.main_came = False
        self.uuids: dict[int, UUID] = {}
        self.waiting: list[Arrival] = []

    def add(self, arrival: Arrival) -> None:
        """Add a connection.

        Raises
        ------
        MultiFDError
            If the migration has such a connection, or is another guest's.
        """
        initial = arrival.initial
        if initial is None:
            if self.main_came:
                raise MultiFDError("it is connected already", channel=MAIN)
            self._drop([each for each in self._dead_channels() if each.number < arrival.number])
            self.main_came = True
            # QEMU up to 7.2 takes the first connection for the main one.
            self.waiting.insert(0, arrival)
            return
        if self.contradiction(initial) and not self.main_came:
            self._drop(self._dead_channels())
        if error := self.contradiction(initial):
            raise error
        self.uuids[initial.id] = initial.uuid
        self.waiting.append(arrival)

    def contradiction(self, initial: wire.InitialPacket) -> MultiFDError | None:
        """Return the error of a channel that cannot be of this migration, or None."""
        if initial.id in self.uuids:
            return MultiFDError("it is connected already", channel=initial.id)
        if any(uuid != initial.uuid for uuid in self.uuids.values()):
            return MultiFDError(f"{initial.uuid} is not that of the other channels", field="uuid", channel=initial.id)
        return None

    def have_hung_up(self) -> bool:
        """Return True if the source has ended the waiting main connection, or all channels before it came."""
        decisive = [each for each in self.waiting if (each.initial is None) == self.main_came]
        return all(each.connection.has_hung_up() for each in decisive)

    def _dead_channels(self) -> list[Arrival]:
        """Return the closed channels that wait for the main connection.

        If the source then opens its main connection, or the same channel again, they belong to an earlier migration
        that failed: QEMU opens the main connection first.
        """
        return [each for each in self.waiting if each.initial is not None and each.connection.has_hung_up()]

    def _drop(self, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            arrival.connection.close()
            self.waiting.remove(arrival)
            if arrival.initial is not None:
                del self.uuids[arrival.initial.id]
