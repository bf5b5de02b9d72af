"""Sending a received guest to a QEMU that waits for a migration, like a source.

Each page is sent once. A page with content goes over any free multifd channel, or over the main channel if multifd is
off. Pages of zeros go over the main channel, which every QEMU reads. They have to be sent, because a new QEMU's memory
contains firmware.
"""

from __future__ import annotations

import itertools
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from numcodecs_qpl.multifd.channel import SendChannel
from numcodecs_qpl.multifd.errors import MAIN, MultiFDError, NoAnswerError, OutcomeUnknownError, PeerClosedError
from numcodecs_qpl.multifd.folder.layout import MAIN_DEVICE_STATE
from numcodecs_qpl.multifd.folder.reader import ReceivedFolder, StoredBlock
from numcodecs_qpl.multifd.hooks import MigrationParameters, MultiFDMethods, MultiFDPages, SendParams, get_ops
from numcodecs_qpl.multifd.ram import RAMBlock
from numcodecs_qpl.multifd.stream import mainrecords, wire
from numcodecs_qpl.multifd.stream.returnpath import Confirmation
from numcodecs_qpl.multifd.stream.rounds import Rounds
from numcodecs_qpl.multifd.threads import start
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.connecting import Abort, connect
from numcodecs_qpl.multifd.transport.connection import Connection
from numcodecs_qpl.multifd.transport.silence import Silence

TICK = 0.1  # seconds between two checks for traffic
PIECE = 4096  # bytes of the return path to read at a time
LOOK_THERE = (
    "; look at what the QEMU there wrote. It needs the guest's machine type, memory and devices, and the same "
    "multifd-channels and multifd-compression"
)
LOOK_FOR_THE_GUEST = (
    "Everything had been sent, and the guest may run: ask the QEMU there (QMP query-status) before you restore the "
    "guest elsewhere"
)


@dataclass
class SentCounts:
    """Counts of sent pages.

    Attributes
    ----------
    normal_pages, zero_pages : int
        Pages sent with their bytes, and pages of zeros.
    """

    normal_pages: int = 0
    zero_pages: int = 0


class Sender:
    """Sender that restores one guest.

    Parameters
    ----------
    folder : ReceivedFolder
        The guest, verified.
    onward : Address
        Address of the waiting QEMU.
    channels : int
        Number of multifd channels: the QEMU's ``multifd-channels``, or 0 if its multifd is off.
    method : str
        The QEMU's ``multifd-compression``.
    parameters : MigrationParameters, optional
        Settings of the method.
    tls : ssl.SSLContext, optional
        For an `onward` of kind "tls".
    timeout : float
        Seconds without bytes on any connection after which the migration fails.
    link_timeout : int
        Seconds after which a TCP connection breaks if its far host acknowledges nothing.

    Attributes
    ----------
    counts : SentCounts
        Pages so far.

    Raises
    ------
    MultiFDError
        If device state came over multifd channels, and `channels` is 0.
    """

    def __init__(
        self,
        folder: ReceivedFolder,
        onward: Address,
        *,
        channels: int = 0,
        method: str = "none",
        parameters: MigrationParameters | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = 600.0,
        link_timeout: int = 120,
    ) -> None:
        if folder.channel_files() and not channels:
            raise MultiFDError(
                f"{folder.path} has device state that came over multifd channels and needs at least one: set --channels"
            )
        self.counts = SentCounts()
        self._folder = folder
        self._channels = channels
        self._ops = get_ops(method)
        self._parameters = parameters or MigrationParameters()
        self._timeout = timeout
        self._link_timeout = link_timeout
        self._abort = Abort()
        self._connect = partial(connect, onward, tls, self._abort)
        self._connections: dict[int | str, Connection] = {}
        self._threads: list[threading.Thread] = []
        self._running: set[int | str] = {MAIN, *range(channels)}
        self._rounds = Rounds({MAIN, *range(channels)}, lambda: None)
        self._work = self._chunks()
        self._packets = itertools.count()
        self._main_lock = threading.Lock()
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._stopped = False
        self._all_sent = False
        self._confirmation = Confirmation()

    def run(self, check: Callable[[], None] = lambda: None) -> None:
        """Send everything, and wait until the QEMU has loaded it.

        Parameters
        ----------
        check : callable
            ``check()`` is called ten times a second. An exception of it ends all connections.

        Raises
        ------
        OutcomeUnknownError
            If everything was sent, and then the QEMU stopped answering.
        MultiFDError
            If the QEMU cannot be reached, does not accept the guest, or ends.
        """
        try:
            self._start(MAIN, self._send_main)
            self._wait(check)
        except NoAnswerError as error:
            if self._all_sent:
                raise OutcomeUnknownError(f"{error}. {LOOK_FOR_THE_GUEST}") from error
            raise
        finally:
            self._stop()

    def bytes_sent(self) -> int:
        """Return the number of sent bytes, on all connections."""
        return sum(connection.sent for connection in list(self._connections.values()))

    # ---- Connections and threads ----

    def _add(self, party: int | str) -> Connection:
        try:
            connection = self._connect()
        except MultiFDError as error:
            if party == MAIN:
                raise
            raise MultiFDError(f"{error}. The main connection was accepted there{LOOK_THERE}") from error
        connection.advice = LOOK_THERE
        connection.limit_silence(self._link_timeout)
        with self._changed:
            self._connections[party] = connection
            if self._stopped:
                connection.abort()
        return connection

    def _start(self, party: int | str, work: Callable[[], None]) -> None:
        self._threads.append(start(threading.Thread(target=self._guard, args=(party, work), name=f"{party}")))

    def _guard(self, party: int | str, work: Callable[[], None]) -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as caught:  # any error: `run` raises it, because no thread waits for this one
            error = caught
            if isinstance(error, MultiFDError):
                error.locate(party)
        with self._changed:
            self._running.discard(party)
            if self._error is None and not self._confirmation.came:
                self._error = error
            self._changed.notify_all()
        if error is not None:
            self._rounds.leave(party)

    def _wait(self, check: Callable[[], None]) -> None:
        silence = Silence()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._error or not self._running, TICK)
                if self._error is not None:
                    raise self._error
                if self._confirmation.came or not self._running:
                    return
            check()
            connections = list(self._connections.values())
            passed = sum(connection.sent + connection.received for connection in connections)
            if silence.measure(passed, begun=bool(connections)) > self._timeout:
                raise NoAnswerError(
                    f"nothing passed for {self._timeout:g} s. A QEMU that expects more multifd-channels than "
                    f"{self._channels} waits for them{LOOK_THERE}"
                )

    def _stop(self) -> None:
        self._abort()
        self._rounds.abort()
        with self._changed:
            self._stopped = True
        for connection in list(self._connections.values()):
            if self._confirmation.came:
                connection.end()
            else:
                connection.abort()
        for thread in self._threads:  # the first one, of the main channel, starts the others
            thread.join()
        for connection in self._connections.values():
            connection.close()

    # ---- Content of the connections ----

    def _open(self) -> Connection:
        main = self._add(MAIN)
        # Send this immediately: QEMU reads other connections only after the magic of the first.
        main.send([mainrecords.opening(self._folder.configuration)])
        for number in range(self._channels):
            connection = self._add(number)
            connection.send([wire.pack_initial(wire.InitialPacket(self._folder.uuid, number))])
            self._start(number, partial(self._send_channel, number, connection))
        return main

    def _send_main(self) -> None:
        main = self._open()
        folder, framing, multifd = self._folder, self._folder.framing, self._channels > 0
        lengths = {block.name: block.used_length for block in folder.blocks}
        main.send([*folder.device_state(MAIN_DEVICE_STATE, 0, framing.early_bytes)])
        main.send([mainrecords.start_ram(framing, lengths, multifd=multifd), mainrecords.last_ram(framing)])
        self._rounds.arrive(MAIN)
        if not multifd:
            self._send_pages(self._put_on_main)
        self._rounds.arrive(MAIN)
        main.send([mainrecords.end_ram(framing, multifd=multifd)])
        self._rounds.arrive(MAIN)
        for piece in folder.device_state(MAIN_DEVICE_STATE, framing.early_bytes):
            main.send([piece])
        self._all_sent = True
        for data in main.pieces(PIECE):
            self._confirmation.add(data)
            if self._confirmation.came:
                return
        raise PeerClosedError(f"{main.name} has not confirmed that it has loaded the guest{LOOK_THERE}")

    def _send_channel(self, number: int, connection: Connection) -> None:
        channel = _Channel(connection, number, self._folder.page_size, self._parameters, self._ops, self._packets)
        try:
            channel.sync()
            self._rounds.arrive(number)
            self._send_pages(channel.send)
            channel.sync()
            self._rounds.arrive(number)
        finally:
            channel.close()
        for name in self._folder.channel_files()[number :: self._channels]:
            for piece in self._folder.device_state(name):
                connection.send([piece])
        self._rounds.arrive(number)

    def _send_pages(self, send: Callable[[str, wire.Offsets, NDArray[np.uint8]], None]) -> None:
        """Send all chunks: pages of zeros over the main channel, the others with `send`."""
        while (work := self._take()) is not None:
            block, chunk = work
            offsets = block.offsets(chunk)
            pages = block.read(chunk)
            is_zero = np.ones(len(offsets), np.bool_) if pages is None else ~pages.any(axis=1)
            if is_zero.any():
                with self._main_lock:
                    self._connections[MAIN].send([mainrecords.zero_records(block.name, offsets[is_zero])])
            if pages is not None and not is_zero.all():
                send(block.name, offsets[~is_zero], pages[~is_zero])
            with self._changed:
                self.counts.zero_pages += int(np.count_nonzero(is_zero))
                self.counts.normal_pages += int(np.count_nonzero(~is_zero))

    def _put_on_main(self, block: str, offsets: wire.Offsets, pages: NDArray[np.uint8]) -> None:
        self._connections[MAIN].send([mainrecords.page_records(block, offsets, pages)])

    def _take(self) -> tuple[StoredBlock, int] | None:
        with self._changed:
            return next(self._work, None)

    def _chunks(self) -> Iterator[tuple[StoredBlock, int]]:
        for block in self._folder.blocks:
            for chunk in range(block.chunks):
                yield block, chunk


class _Channel:
    """A multifd channel and its packets.

    Parameters
    ----------
    connection : Connection
        The connection, to which the 64 opening bytes have been sent.
    number, page_size, parameters, ops
        As for `SendParams` and `SendChannel`.
    packets : iterator of int
        Numbers of the packets.
    """

    def __init__(
        self,
        connection: Connection,
        number: int,
        page_size: int,
        parameters: MigrationParameters,
        ops: MultiFDMethods,
        packets: Iterator[int],
    ) -> None:
        self._page_size = page_size
        self._page_count = wire.pages_in_packet(page_size)
        self._channel = SendChannel(connection, SendParams(number, page_size, self._page_count, parameters), ops)
        self._packets = packets

    def sync(self) -> None:
        """End a round."""
        self._send(wire.Packet(wire.FLAG_SYNC, 0, 0, 0, next(self._packets)), MultiFDPages())

    def send(self, block: str, offsets: wire.Offsets, pages: NDArray[np.uint8]) -> None:
        """Send pages, in several packets if necessary."""
        memory = RAMBlock(block, pages.nbytes, self._page_size, pages)
        places = np.arange(len(pages), dtype=np.uint64) * np.uint64(self._page_size)
        for at in range(0, len(pages), self._page_count):
            here = offsets[at : at + self._page_count]
            packet = wire.Packet(0, self._page_count, len(here), 0, next(self._packets), 0, block, here)
            self._send(packet, MultiFDPages(memory, places[at : at + self._page_count]))

    def _send(self, packet: wire.Packet, pages: MultiFDPages) -> None:
        self._channel.send(bytearray(wire.pack(packet, self._page_count)), packet, pages)

    def close(self) -> None:
        """Release the method's state."""
        self._channel.close()
