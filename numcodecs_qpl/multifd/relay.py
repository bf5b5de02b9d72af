"""Stands between two QEMUs, or between a QEMU and another relay, and recodes the pages on their way.

Each connection that comes is opened onward, by one thread, which no other waits for. The main channel passes untouched
both ways; of a multifd channel each packet is decoded with one method and encoded with another. A thread has one
direction of one connection: it reads a packet, then writes it, and so what is in memory is one packet a channel,
however slow the far side is.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from numcodecs_qpl import _core
from numcodecs_qpl.multifd import wire
from numcodecs_qpl.multifd.address import Abort, Address, Listener, TLSFiles, connect
from numcodecs_qpl.multifd.channel import RecvChannel, SendChannel
from numcodecs_qpl.multifd.connection import Connection
from numcodecs_qpl.multifd.errors import MultiFDError, PeerClosedError
from numcodecs_qpl.multifd.intake import Arrival, Intake
from numcodecs_qpl.multifd.methods import MigrationParameters, MultiFDPages, SendParams, get_ops
from numcodecs_qpl.multifd.ram import RAMBlock
from numcodecs_qpl.multifd.threads import start
from numcodecs_qpl.multifd.vmdescription import DescriptionFinder

MAIN = "main"
PIECE = 64 * 1024  # bytes that are passed on at a time where nothing is recoded
TICK = 0.1  # seconds between two looks at whether a signal came
SILENT_SECONDS = 10.0  # after which the operator is told of what is missing
LOOK_THERE = (
    "; look at what the QEMU (or the relay) there wrote: a QEMU refuses a uuid or a number of multifd-channels "
    "other than its own"
)
OPENER_SECONDS = 1.0  # how long the end waits for name resolution, which nothing can interrupt


@dataclass
class RelayCounts:
    """What has passed so far, over the multifd channels.

    Attributes
    ----------
    packets : int
        Packets, without those of device state.
    normal_pages, zero_pages : int
        Pages that passed with their bytes, and those that are all zeros.
    """

    packets: int = 0
    normal_pages: int = 0
    zero_pages: int = 0


@dataclass
class _Pair:
    """A connection that came, and the one that it was opened onward with."""

    source: Connection
    onward: Connection
    source_ended: bool = False

    def abort(self) -> None:
        self.source.abort()
        self.onward.abort()

    def close(self) -> None:
        self.source.close()
        self.onward.close()


class _PacketMemory(RAMBlock):
    """Memory for the pages of one packet, one after the other from its beginning."""

    def __init__(self, page_size: int) -> None:
        super().__init__("", wire.PACKET_SIZE, page_size, bytearray(wire.PACKET_SIZE))
        self._places = np.arange(len(self.pages), dtype=np.uint64) * np.uint64(page_size)

    def pages_of(self, packet: wire.Packet) -> MultiFDPages:
        return MultiFDPages(self, self._places[: packet.normal_pages], packet.zero)

    def runs(self, offsets: wire.Offsets) -> list[memoryview]:
        return [self.view[: len(offsets) * self.page_size]] if len(offsets) else []


class Relay:
    """Relays one migration.

    Parameters
    ----------
    listener : Listener
        Where the migration comes; closed by `run`.
    onward : Address
        Where it goes.
    decode, encode : str
        The methods of the packets that come, and of those that go.
    parameters : MigrationParameters, optional
        Settings of the latter.
    tls : TLSFiles, optional
        For an `onward` of kind "tls".
    page_size : int
        Bytes in a page of the guest.
    timeout : float
        Seconds after which it is an error that nothing passes on any connection. They count from the first connection
        on.
    link_timeout : int
        Seconds after which a TCP connection breaks whose far host acknowledges nothing.
    refused : callable
        ``refused(reason)`` is told of each connection that was turned away.
    warned : callable
        ``warned(text)`` is told once of what is missing, if nothing passes for ten seconds or nothing was recoded.

    Attributes
    ----------
    counts : RelayCounts
        What has passed so far.
    """

    def __init__(
        self,
        listener: Listener,
        onward: Address,
        decode: str,
        encode: str,
        *,
        parameters: MigrationParameters | None = None,
        tls: TLSFiles | None = None,
        page_size: int = 4096,
        timeout: float = 600.0,
        link_timeout: int = 120,
        refused: Callable[[str], None] = lambda reason: None,
        warned: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.counts = RelayCounts()
        self._decode = decode
        self._encode = get_ops(encode)
        self._parameters = parameters or MigrationParameters()
        self._page_size = page_size
        self._timeout = timeout
        self._link_timeout = link_timeout
        self._warned = warned
        self._warned_once = False
        self._path = _core.path_in_force()
        self._abort = Abort()
        self._connect = partial(connect, onward, tls, self._abort)
        self._intake = Intake(listener, self._take, refused, self._fail)
        # A daemon: name resolution may keep it longer than the process should live.
        self._opener = threading.Thread(target=self._open_waiting, name="opener", daemon=True)
        self._waiting: list[Arrival] = []  # not opened onward yet; the main connection is the first
        self._initial: dict[int, wire.InitialPacket] = {}
        self._pairs: dict[int | str, _Pair] = {}
        self._threads: list[threading.Thread] = []
        self._running = 0  # directions of the connections that have come, of those that wait too
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._main_came = False
        self._ended = False
        self._complete = False  # all that matters of the main channel has come
        self._started = 0.0
        self._cpu_started = 0.0

    def run(self) -> None:
        """Relay until every connection has ended, on both sides.

        Raises
        ------
        MultiFDError
            If a packet breaks the protocol, the far side cannot be reached, a connection broke, nothing passed for
            `timeout`, or the source ended before the migration was complete. Whatever is raised, all connections were
            ended before.
        """
        try:
            start(self._opener)
            self._intake.start()
            quiet_since, seen = time.monotonic(), 0
            while not self._over():
                if self._received() > seen or not self._running:
                    quiet_since, seen = time.monotonic(), self._received()
                elif time.monotonic() - quiet_since > self._timeout:
                    raise MultiFDError(f"nothing passed for {self._timeout:g} s; {self._missing()}")
                elif time.monotonic() - quiet_since > SILENT_SECONDS and not self._complete:
                    self._warn_once(f"nothing has passed for {SILENT_SECONDS:g} s; {self._missing()}")
            if self._error is None and not self._initial:
                self._warn_once(f"nothing was recoded; {self._missing()}")
        finally:
            # First of all, so that both QEMUs know at once.
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            self._abort()
            for pair in self._pairs.values():
                pair.abort()
            self._intake.close()
            with contextlib.suppress(RuntimeError):  # it was not started
                self._opener.join(OPENER_SECONDS)
            for arrival in self._waiting:
                arrival.connection.close()
            for thread in self._threads:
                thread.join()
            for pair in self._pairs.values():
                pair.close()
        if self._error is not None:
            raise self._error

    def _over(self) -> bool:
        """Wait a little; return True if all has come to its end."""
        # Not for ever: a signal that another thread takes, or that comes just before the wait, does not wake this one.
        with self._changed:
            return bool(
                self._changed.wait_for(lambda: self._error or (self._main_came and not self._running), timeout=TICK)
            )

    def _missing(self) -> str:
        """Likely causes of silence, and what to do."""
        if not self._main_came:
            return "the source has opened no main connection: look at what it wrote"
        if not self._initial:
            return (
                "the source has opened no multifd channel: turn multifd on in both QEMUs (migrate-set-capabilities), "
                "with the same multifd-channels"
            )
        return (
            f"multifd channels that the source has opened: {len(self._initial)}. A destination that expects more waits "
            "for them: set multifd-channels to the same number in both QEMUs"
        )

    def _warn_once(self, text: str) -> None:
        if not self._warned_once:
            self._warned_once = True
            self._warned(text)

    def _received(self) -> int:
        return sum(pair.source.received + pair.onward.received for pair in list(self._pairs.values()))

    def statistics(self) -> dict[str, Any]:
        """What was done.

        Returns
        -------
        dict
            ``"packets"``; ``"pages"``: ``"normal"`` and ``"zero"`` ones in packets; ``"bytes_in"``, ``"bytes_out"``:
            what came from the source and went onward, on all connections; ``"ratio"``: the former over the latter;
            ``"seconds"`` since the main connection came; ``"cpu_seconds"`` of this process in these; ``"path"`` that
            was in force when the relay was made, and the ``"blocks"`` (pages) that each path has compressed and
            decompressed.
        """
        pairs = list(self._pairs.values())
        bytes_in = sum(pair.source.received for pair in pairs)
        bytes_out = sum(pair.onward.sent for pair in pairs)
        done = _core.stats()
        return {
            "packets": self.counts.packets,
            "pages": {"normal": self.counts.normal_pages, "zero": self.counts.zero_pages},
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "ratio": round(bytes_in / bytes_out, 4) if bytes_out else None,
            "seconds": round(time.monotonic() - self._started, 3) if self._main_came else 0.0,
            "cpu_seconds": round(time.process_time() - self._cpu_started, 3) if self._main_came else 0.0,
            "path": self._path,
            "blocks": {path: done[path] for path in ("hardware", "software", "fallback")},
        }

    # ---- Connections ----

    def _take(self, arrival: Arrival) -> None:
        initial = arrival.initial
        with self._changed:
            if initial is None:
                if self._main_came:
                    raise MultiFDError("a connection for it is there already", channel=MAIN)
                self._started = time.monotonic()
                self._cpu_started = time.process_time()
                self._main_came = True
                # QEMU up to 7.2 takes the first connection for the main one.
                self._waiting.insert(0, arrival)
            else:
                if initial.id in self._initial:
                    raise MultiFDError("a connection for it is there already", channel=initial.id)
                if any(other.uuid != initial.uuid for other in self._initial.values()):
                    raise MultiFDError(
                        f"{initial.uuid} is not that of the other channels", field="uuid", channel=initial.id
                    )
                self._initial[initial.id] = initial
                self._waiting.append(arrival)
            self._running += 2
            self._changed.notify_all()

    def _open_waiting(self) -> None:
        """Open onward what has come: the main connection, then the others in the order that they came."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or (self._main_came and self._waiting))
                if self._ended:
                    return
                arrival = self._waiting[0]
            party = MAIN if arrival.initial is None else arrival.initial.id
            try:
                self._open(party, arrival)
            except Exception as error:  # of whatever kind: `run` raises it, and nobody waits for this thread
                self._fail(error, party)
                return

    def _open(self, party: int | str, arrival: Arrival) -> None:
        try:
            pair = _Pair(arrival.connection, self._connect())
        except MultiFDError as error:
            if party == MAIN:
                raise
            raise MultiFDError(
                f"{error.reason}. The main connection was accepted there: look at what the QEMU there wrote, and set "
                "multifd-channels to the same number in both QEMUs"
            ) from error
        pair.onward.advice = LOOK_THERE
        forward = self._pass_main if arrival.initial is None else partial(self._recode, arrival.initial.id)
        with self._changed:
            if self._ended:
                pair.close()
                return
            self._waiting.pop(0)
            for connection in (pair.source, pair.onward):
                connection.limit_silence(self._link_timeout)
            self._pairs[party] = pair
            for work in (partial(forward, head=arrival.head), self._pass_back):
                thread = threading.Thread(target=self._guard, args=(work, pair, party), name=f"{party}")
                self._threads.append(start(thread))

    def _guard(self, work: Callable[[_Pair], None], pair: _Pair, party: int | str) -> None:
        try:
            work(pair)
        except Exception as error:  # of whatever kind: `run` raises it, and nobody waits for this thread
            # On a multifd channel the far side has nothing to say, and once it has all pages it may close before the
            # source does. On the main channel even a late reset means that it did not take all that it was sent.
            done = party != MAIN and (pair.source_ended or self._complete)
            if not (work == self._pass_back and done):
                self._fail(error, party)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _fail(self, error: Exception, party: int | str | None = None) -> None:
        if isinstance(error, MultiFDError) and party is not None:
            error.locate(party)
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()

    # ---- Bytes ----

    def _pass_main(self, pair: _Pair, head: bytes) -> None:
        pair.onward.send([head])
        description = DescriptionFinder()
        piece = memoryview(bytearray(PIECE))
        while size := pair.source.read_some(piece):
            self._complete = description.add(piece[:size]) is not None
            pair.onward.send([piece[:size]])
        pair.source_ended = True
        pair.onward.end()
        if not self._complete:
            raise PeerClosedError(
                "the source ended before the description of the device state: the migration has failed"
            )

    def _pass_back(self, pair: _Pair) -> None:
        piece = memoryview(bytearray(PIECE))
        while size := pair.onward.read_some(piece):
            pair.source.send([piece[:size]])
        pair.source.end()

    def _recode(self, party: int, pair: _Pair, head: bytes) -> None:
        pair.onward.send([head])
        page_count = wire.pages_in_packet(self._page_size)
        memory = _PacketMemory(self._page_size)
        params = SendParams(party, self._page_size, page_count, self._parameters)
        recv = RecvChannel(pair.source, party, self._page_size, self._decode)
        send = SendChannel(pair.onward, params, self._encode)
        try:
            while (packet := recv.read()) is not None:
                if isinstance(packet, wire.DeviceStatePacket):
                    pair.onward.send([wire.pack_device_state(packet)])
                    recv.read_device_state(packet, lambda data: pair.onward.send([data]))
                    continue
                pages = memory.pages_of(packet)
                if packet.normal_pages or packet.zero_pages:
                    recv.read_pages(packet, pages)
                try:
                    send.send(recv.header, packet, pages)
                except PeerClosedError:
                    # QEMU up to 7.2 sends packets of nothing, also after the last SYNC, when the destination may go.
                    if packet.normal_pages or packet.zero_pages or packet.flags & wire.FLAG_SYNC:
                        raise
                with self._changed:
                    self.counts.packets += 1
                    self.counts.normal_pages += packet.normal_pages
                    self.counts.zero_pages += packet.zero_pages
        except MultiFDError as error:
            recv.locate(error)
            raise
        finally:
            recv.close()
            send.close()
        pair.source_ended = True
        pair.onward.end()
