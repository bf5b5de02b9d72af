"""Receiving one migration like QEMU's destination, and storing the guest's memory and device state."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np

from numcodecs_qpl.multifd.channel import PacketMemory, RecvChannel
from numcodecs_qpl.multifd.errors import MAIN, MultiFDError, PeerClosedError
from numcodecs_qpl.multifd.folder.writer import Output
from numcodecs_qpl.multifd.ram import RAMFile
from numcodecs_qpl.multifd.stream import wire
from numcodecs_qpl.multifd.stream.mainchannel import Framing, MainChannel, RAMSink
from numcodecs_qpl.multifd.stream.rounds import Rounds
from numcodecs_qpl.multifd.stream.savevm import Configuration, SavevmReader
from numcodecs_qpl.multifd.threads import start
from numcodecs_qpl.multifd.transport.connection import Connection
from numcodecs_qpl.multifd.transport.intake import Arrival, Intake, OneSource
from numcodecs_qpl.multifd.transport.listener import Listener
from numcodecs_qpl.multifd.transport.silence import Silence

DISKS = "must be as they were when the guest was stopped: no disk is in this folder"
TICK = 0.1  # seconds between two checks for traffic


@dataclass
class Counts:
    """Counts of received packets and pages.

    Attributes
    ----------
    packets : int
        Packets over all multifd channels, except device state.
    normal_pages, zero_pages : int
        Pages that came with their bytes, and pages of zeros, on all channels.
    zero_pages_in_packets : int
        Pages of zeros that came over multifd channels.
    pages_again : int
        Pages that came more than once.
    last_packet_num : int
        The highest packet number; -1 before the first packet.
    """

    packets: int = 0
    normal_pages: int = 0
    zero_pages: int = 0
    zero_pages_in_packets: int = 0
    pages_again: int = 0
    last_packet_num: int = -1


class Receiver(RAMSink):
    """Receiver of one migration.

    Parameters
    ----------
    listener : Listener
        Listening socket; closed by `run`.
    output : Output
        Output folder; completed or discarded by `run`.
    channels : int
        Number of multifd channels: the source's ``multifd-channels``.
    page_size : int
        Bytes in a page of the guest.
    uuid : UUID, optional
        UUID of the guest (QEMU's ``-uuid``, zeros without it). By default any is accepted; all channels must have the
        same.
    timeout : float
        Seconds without bytes on any connection after which the migration fails, from the first connection on.
    refused : callable
        ``refused(reason)`` is called for each refused connection.

    Attributes
    ----------
    counts : Counts
        Packets and pages so far.
    blocks : dict of str to RAMFile
        Guest memory, by name.
    """

    def __init__(
        self,
        listener: Listener,
        output: Output,
        channels: int,
        *,
        page_size: int = 4096,
        uuid: UUID | None = None,
        timeout: float = 60.0,
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.counts = Counts()
        self.blocks: dict[str, RAMFile] = {}
        self._output = output
        self._channels = channels
        self._page_size = page_size
        self._uuid = uuid
        self._uuid_source = "--uuid says"
        self._timeout = timeout
        self._intake = Intake(listener, OneSource(self._take), refused, self._fail)
        self._rounds = Rounds({MAIN, *range(channels)}, self._check_round)
        self._connections: dict[int | str, Connection] = {}
        self._threads: list[threading.Thread] = []
        self._running: set[int | str] = {MAIN, *range(channels)}
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._started: float | None = None
        self._configuration = Configuration("")
        self._methods: set[str] = set()
        self._devices: list[str] = []
        self._channels_have_state = False
        self._keeps = False  # the output is closed
        self._kept: dict[str, Any] | None = None  # the manifest, once the output is complete
        self._framing = Framing(0, footers=False, flush_records=False, early_bytes=0)
        self._is_recent = False

    def run(self) -> dict[str, Any]:
        """Receive; return the manifest.

        Raises
        ------
        MultiFDError
            If the stream breaks the protocol, ends too early, or does not come. The output is then empty.
        OSError
            If the output cannot be written.
        """
        with contextlib.ExitStack() as stack:  # if a signal interrupts one callback, the others still run
            stack.callback(self._output.discard)
            stack.callback(self._stop)
            stack.callback(self._intake.close)
            self._intake.start()
            self._wait()
            return self._kept or self._keep()

    def _keep(self) -> dict[str, Any]:
        self._keeps = True
        manifest = self._manifest(time.monotonic() - (self._started or 0.0))
        self._output.complete(manifest)
        self._kept = manifest
        return manifest

    def bytes_received(self) -> int:
        """Return the number of received bytes, on all connections."""
        return sum(connection.received for connection in list(self._connections.values()))

    def _wait(self) -> None:
        silence = Silence()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._error or not self._running, TICK)
                if self._error is not None:
                    raise self._error
                if not self._running:
                    return
            if silence.measure(self.bytes_received(), begun=bool(self._connections)) > self._timeout:
                if self._kept:
                    return
                raise MultiFDError(f"nothing came for {self._timeout:g} s; {self._missing()}")

    def _missing(self) -> str:
        missing = sorted(str(party) for party in {MAIN, *range(self._channels)} - set(self._connections))
        if not missing:
            return "all connections are there"
        return (
            f"of the main channel and {self._channels} multifd channels, these did not connect: {', '.join(missing)} "
            "(is multifd on in the source, with as many multifd-channels?)"
        )

    def _stop(self) -> None:
        self._rounds.abort()
        for connection in self._connections.values():
            connection.abort()
        for thread in self._threads:
            thread.join()
        for connection in self._connections.values():
            connection.close()

    # ---- Connections ----

    def _take(self, arrival: Arrival) -> None:
        if arrival.initial is None:
            party: int | str = MAIN
        else:
            party = arrival.initial.id
            if arrival.initial.id >= self._channels:
                raise MultiFDError(
                    f"{party}, but {self._channels} channels are expected: as many as the source's multifd-channels",
                    field="id",
                    channel=party,
                )
        if party in self._connections:
            raise MultiFDError("it is connected already", channel=party)
        if arrival.initial is not None:
            self._agree_on_uuid(arrival.initial.uuid, party, f"channel {party} has")
        if self._started is None:
            self._started = time.monotonic()
        self._connections[party] = arrival.connection
        thread = threading.Thread(target=self._guard, args=(party, arrival.connection), name=f"{party}")
        self._threads.append(start(thread))

    def _agree_on_uuid(self, uuid: UUID, party: int | str, source: str) -> None:
        with self._changed:
            if self._uuid is None:
                self._uuid, self._uuid_source = uuid, source
        if self._uuid != uuid:
            raise MultiFDError(f"{uuid}, but {self._uuid_source} {self._uuid}", field="uuid", channel=party)

    def _guard(self, party: int | str, connection: Connection) -> None:
        error: Exception | None = None
        try:
            if isinstance(party, int):
                self._receive_channel(party, connection)
            else:
                self._receive_main(connection)
        except Exception as caught:  # any error: `run` raises it, because no thread waits for this one
            if not (self._kept and isinstance(caught, PeerClosedError)):  # the source may end in any way then
                error = caught
            if isinstance(error, MultiFDError):
                error.locate(party)
        with self._changed:
            self._running.discard(party)
            self._fail(error)
        self._rounds.leave(party)

    def _fail(self, error: Exception | None) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()

    def _receive_main(self, connection: Connection) -> None:
        stream = io.BufferedReader(_Incoming(connection))
        main = MainChannel(SavevmReader(stream, self._page_size), self, lambda data: connection.send([data]))
        self._devices = main.run()
        self._framing = main.framing
        # After the confirmation, the source discards the guest and ends the connections. So the guest must be on the
        # disk first. If channels carry device state, only their ends show that all of it has come.
        if main.return_path and not self._channels_have_state:
            self._keep()
        main.finish()

    def _receive_channel(self, party: int, connection: Connection) -> None:
        channel = RecvChannel(connection, party, self._page_size)
        memory = PacketMemory(self._page_size)
        try:
            while (packet := channel.read()) is not None:
                self._receive_packet(channel, packet, party, memory)
        except MultiFDError as error:
            channel.locate(error)
            raise
        finally:
            channel.close()

    def _receive_packet(
        self, channel: RecvChannel, packet: wire.Packet | wire.DeviceStatePacket, party: int, memory: PacketMemory
    ) -> None:
        if self._keeps and (isinstance(packet, wire.DeviceStatePacket) or packet.normal_pages or packet.zero_pages):
            raise MultiFDError("it comes after the end of the main channel: the output lacks it")
        if isinstance(packet, wire.DeviceStatePacket):
            self._channels_have_state = True
            self._output.device_state(wire.pack_device_state(packet), party)
            channel.read_device_state(packet, lambda data: self._output.device_state(data, party))
        else:
            again = 0
            if packet.normal_pages or packet.zero_pages:
                block = self._block(packet.ramblock)
                block.check(packet.offsets)
                channel.read_pages(packet, memory.pages_of(packet))
                again = block.put(packet.normal, memory.view) + block.put_zeros(packet.zero)
                self._agree_on(channel.method)
            with self._changed:
                self.counts.packets += 1
                self.counts.normal_pages += packet.normal_pages
                self.counts.zero_pages += packet.zero_pages
                self.counts.zero_pages_in_packets += packet.zero_pages
                self.counts.pages_again += again
                self.counts.last_packet_num = max(self.counts.last_packet_num, packet.packet_num)
            self._is_recent |= packet.sync and not packet.pages_alloc
        if packet.sync:
            self._rounds.arrive(party)

    def _agree_on(self, method: str) -> None:
        self._methods.add(method)
        if len(self._methods) > 1:
            raise MultiFDError(
                f"the channels have different methods: {', '.join(sorted(self._methods))}", field="flags"
            )

    def _check_round(self) -> None:
        # From 9.0 on, QEMU numbers its packets without gaps. Before, no packet had zero pages.
        counts = self.counts
        numbered = counts.last_packet_num + 1
        if "qpl" in self._methods and counts.zero_pages_in_packets and counts.packets < numbered:
            raise MultiFDError(
                f"{numbered - counts.packets} of {numbered} packets are missing. QEMU 9.1.0 and 9.2.0 with qpl leave "
                "out the headers of packets that have only zero pages (fixed in 10.0): migrate from 10.0 or later, or "
                "with another multifd-compression",
                field="packet_num",
            )

    # ---- Content of the main channel ----

    def configure(self, configuration: Configuration) -> None:
        """Store the source's configuration; its uuid must be that of the channels."""
        self._configuration = configuration
        if configuration.uuid is not None:
            self._agree_on_uuid(configuration.uuid, MAIN, "the main channel has")

    def add_block(self, name: str, used_length: int) -> None:
        """Create the file of a RAM block."""
        if name in self.blocks:
            raise MultiFDError(f"RAM block {name!r} comes twice")
        if used_length < self._page_size or used_length % self._page_size:
            raise MultiFDError(
                f"RAM block {name!r} has {used_length} bytes, not a whole number of pages of {self._page_size}",
                field="used_length",
            )
        self.blocks[name] = self._output.add_block(name, used_length)

    def fill_page(self, block: str, offset: int, byte: int) -> None:
        """Fill a page with one byte."""
        if byte:
            self.put_page(block, offset, bytes([byte]) * self._page_size)
            return
        target, offsets = self._place(block, offset)
        self._count_page(target.put_zeros(offsets), zero=True)

    def put_page(self, block: str, offset: int, page: bytes) -> None:
        """Write a page to its place."""
        target, offsets = self._place(block, offset)
        self._count_page(target.put(offsets, memoryview(page)), zero=False)

    def sync(self) -> None:
        """Wait for the multifd channels."""
        self._rounds.arrive(MAIN)

    def knows_switchover_ack(self) -> bool:
        """Return True if a SYNC had no room for pages, as since QEMU 9.2."""
        return self._is_recent

    def device_state(self, data: bytes) -> None:
        """Store device state unchanged."""
        self._output.device_state(data)

    def _place(self, block: str, offset: int) -> tuple[RAMFile, wire.Offsets]:
        target = self._block(block)
        offsets = np.array([offset], np.uint64)
        target.check(offsets)
        return target, offsets

    def _count_page(self, again: int, *, zero: bool) -> None:
        with self._changed:
            self.counts.normal_pages += not zero
            self.counts.zero_pages += zero
            self.counts.pages_again += again

    def _block(self, name: str) -> RAMFile:
        if name not in self.blocks:
            raise MultiFDError(f"unknown RAM block {name!r}", field="ramblock")
        return self.blocks[name]

    def _manifest(self, seconds: float) -> dict[str, Any]:
        counts = self.counts
        configuration = self._configuration
        subsections = {
            "capabilities": configuration.capabilities,
            "target_page_bits": configuration.target_page_bits,
            "uuid": configuration.uuid and str(configuration.uuid),
        }
        received = {str(party): connection.received for party, connection in sorted(self._connections.items(), key=str)}
        return {
            "machine": configuration.machine,
            "configuration": {name: value for name, value in subsections.items() if value is not None},
            "uuid": str(self._uuid or UUID(int=0)),
            "main_channel": asdict(self._framing),
            "methods": sorted(self._methods),
            "channels": self._channels,
            "rounds": self._rounds.passed,
            "packets": counts.packets,
            "pages": {
                "normal": counts.normal_pages,
                "zero": counts.zero_pages,
                "sent_again": counts.pages_again,
            },
            "bytes_on_the_wire": {**received, "total": sum(received.values())},
            "seconds": round(seconds, 3),
            "devices": self._devices,
            "disks": DISKS,
        }


class _Incoming(io.RawIOBase):
    """Received bytes of a connection, for `io.BufferedReader`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.read_some(memoryview(buffer))
