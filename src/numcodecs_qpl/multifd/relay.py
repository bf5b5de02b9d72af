"""Relaying of a migration between two QEMUs, or between a QEMU and another relay, and recoding of its pages.

One thread connects to the next hop for each incoming connection, and no other thread waits for it. The main channel
passes unchanged in both directions. Each packet of a multifd channel is decoded with one method and encoded with
another. A thread serves one direction of one connection: it reads a packet, then writes it. So memory holds one packet
of each channel, however slow the far side is.

QEMU writes a SYNC to each channel before it writes the end of the round to the main channel. A destination that has
read this end waits for the SYNCs, in QEMU 7.2 for ever. So a failed migration ends in this order: first the main
channel, then each multifd channel, after all bytes that the source has sent on it.

The relay does not break a multifd channel before the source has closed it. A source's QEMU 7.2 or 10.0 may wait for
ever for a channel that broke, and can never migrate again. So a failed relay goes on to take channels, and drops the
bytes that it cannot pass on.
"""

from __future__ import annotations

import contextlib
import secrets
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from numcodecs_qpl import _core
from numcodecs_qpl.multifd.arrivals import Arrivals
from numcodecs_qpl.multifd.errors import MAIN, MultiFDError, NoAnswerError, OutcomeUnknownError, PeerClosedError
from numcodecs_qpl.multifd.hooks import MigrationParameters, get_ops
from numcodecs_qpl.multifd.mainrelay import LOOK_THERE, PIECE, MainRelay
from numcodecs_qpl.multifd.pair import Pair, fail
from numcodecs_qpl.multifd.recode import Recoding
from numcodecs_qpl.multifd.stream import proxy, wire
from numcodecs_qpl.multifd.threads import start
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.connecting import Abort, connect
from numcodecs_qpl.multifd.transport.connection import Connection, discard
from numcodecs_qpl.multifd.transport.intake import Arrival, Intake, OneSource
from numcodecs_qpl.multifd.transport.listener import Listener
from numcodecs_qpl.multifd.transport.silence import Silence
from numcodecs_qpl.multifd.transport.throttle import Throttle

TICK = 0.1  # seconds between two checks for signals
SILENT_SECONDS = 10.0  # after which the operator is warned
LOOK_FOR_THE_GUEST = (
    "Everything had been passed on, and the guest may run at the destination: ask the QEMU there (QMP query-status) "
    "before you let the source's guest run"
)
DELIVERY_SECONDS = 5.0
"""Time for a failed migration to deliver the bytes that the source has sent; then the source is cut off."""
SETUP_SECONDS = 1.0
"""Time after the main connection in which the source of a failed migration may open its first channel."""
OPENER_SECONDS = 1.0  # time that the end waits for name resolution, which cannot be interrupted


@dataclass
class RelayCounts:
    """Counts of the multifd channels.

    Attributes
    ----------
    packets : int
        Packets, except device state.
    normal_pages, zero_pages : int
        Pages that passed with their bytes, and pages of zeros.
    """

    packets: int = 0
    normal_pages: int = 0
    zero_pages: int = 0


class Relay:
    """Relay of one migration.

    Parameters
    ----------
    onward : Address or callable
        End point of the next hop. If it depends on the guest, ``onward(uuid)`` returns it, or raises MultiFDError.
    decode, encode : str
        Methods of incoming and of outgoing packets.
    parameters : MigrationParameters, optional
        Settings of `encode`.
    tls : ssl.SSLContext, optional
        For an `onward` of kind "tls".
    send_proxy : bool
        True if each connection onward begins with a PROXY header, which identifies this migration.
    throttle : Throttle, optional
        Limit of the rate of sent bytes.
    page_size : int
        Bytes in a page of the guest.
    timeout : float
        Seconds without bytes on any connection after which the migration fails, from the first connection on.
    link_timeout : int
        Seconds after which a TCP connection breaks if its far host acknowledges nothing.
    warned : callable
        ``warned(text)`` is called if the source has not opened the return path, and once with the likely cause if
        nothing passes for ten seconds or nothing was recoded.

    Attributes
    ----------
    counts : RelayCounts
        Packets and pages so far.
    """

    def __init__(
        self,
        onward: Address | Callable[[UUID], Address],
        decode: str,
        encode: str,
        *,
        parameters: MigrationParameters | None = None,
        tls: ssl.SSLContext | None = None,
        send_proxy: bool = False,
        throttle: Throttle | None = None,
        page_size: int = 4096,
        timeout: float = 600.0,
        link_timeout: int = 120,
        warned: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.counts = RelayCounts()
        self._recoding = Recoding(decode, get_ops(encode), parameters or MigrationParameters(), page_size)
        self._main = MainRelay(page_size, warned)
        self._timeout = timeout
        self._link_timeout = link_timeout
        self._warned = warned
        self._warned_once = False
        self._path = _core.path_in_force()
        self._abort = Abort()
        self._onward = onward
        self._tls = tls
        self._proxy_header = proxy.pack(secrets.token_bytes(16)) if send_proxy else b""
        self._throttle = throttle
        # A daemon thread: name resolution may outlast the process.
        self._opener = threading.Thread(target=self._open_waiting, name="opener", daemon=True)
        self._arrivals = Arrivals()
        self._pairs: dict[int | str, Pair] = {}
        self._running = 0  # directions of the pairs
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._ended = threading.Event()
        self._closed = False  # `take` takes no more
        self._started = 0.0  # until the main connection has come
        self._cpu_started = 0.0

    def run(self, check: Callable[[], None] = lambda: None, closed: Callable[[], None] = lambda: None) -> None:
        """Relay until every connection has ended, on both sides.

        Parameters
        ----------
        check : callable
            ``check()`` is called ten times a second. Its exceptions end the migration. A signal handler should not
            raise by itself, because it could interrupt code that holds a lock or ends connections.
        closed : callable
            ``closed()`` is called once, when `take` begins to refuse connections.

        Raises
        ------
        OutcomeUnknownError
            If everything was passed on, and then the destination stopped answering.
        MultiFDError
            If a packet breaks the protocol, the far side cannot be reached, or a connection broke. Also if nothing
            passed for `timeout`, the source ended too early, or the destination refused the guest. All connections
            have ended when an exception is raised.
        """
        finished = False
        try:
            start(self._opener)
            silence = Silence()
            while not self._over():
                check()
                silent = silence.measure(self._received(), begun=self._is_running())
                if silent > self._timeout:
                    self.fail(NoAnswerError(f"nothing passed for {self._timeout:g} s; {self._missing()}"))
                    break
                if silent > SILENT_SECONDS and not self._main.passed_on:
                    self._warn_once(f"nothing has passed for {SILENT_SECONDS:g} s; {self._missing()}")
            if self._error is None and not self._arrivals.uuids:
                self._warn_once(f"nothing was recoded; {self._missing()}")
            finished = self._error is None and not self._is_running()
        finally:
            self._close(finished, closed)
        if self._error is None or self._main.confirmed:  # the confirmation may have come while connections were ended
            return
        if isinstance(self._error, NoAnswerError) and self._main.passed_on:
            raise OutcomeUnknownError(f"{self._error}. {LOOK_FOR_THE_GUEST}") from self._error
        raise self._error

    def _close(self, finished: bool, closed: Callable[[], None]) -> None:
        try:
            with self._changed:
                self._ended.set()
                self._changed.notify_all()
            self._abort()
            with contextlib.suppress(RuntimeError):  # it was not started
                self._opener.join(OPENER_SECONDS)
            if not finished:
                self._deliver()
            with self._changed:
                self._closed = True
            closed()
            for arrival in self._arrivals.waiting:
                arrival.connection.reset()
        finally:
            if finished:
                for pair in self._pairs.values():
                    pair.close()
            else:
                fail(self._pairs.values())

    def _deliver(self) -> None:
        """Pass on, or drop, the bytes of the source until it has closed its connections."""
        # A source closes its channels when its main connection breaks. Where everything was passed on, it closes them
        # by itself, as soon as the destination has everything.
        may_open_more = not self.has_lost_source()
        if self._error is not None or not self._main.passed_on:
            self._break_main()
        deadline, first_by = time.monotonic() + DELIVERY_SECONDS, self._started + SETUP_SECONDS
        while (now := time.monotonic()) < deadline:
            left = self._left()
            awaited = may_open_more and not self._arrivals.uuids and now < first_by
            if not (left or awaited or any(pair.passes_forward() for pair in self._pairs.values())):
                break
            discard(left, TICK)

    def _break_main(self) -> None:
        if MAIN in self._pairs:
            fail([self._pairs[MAIN]])
        with self._changed:
            for arrival in self._arrivals.waiting:
                if arrival.initial is None:
                    arrival.connection.reset()

    def _left(self) -> list[Connection]:
        """Return the connections that the source has not closed and that nothing reads any more."""
        with self._changed:
            waiting = [arrival.connection for arrival in self._arrivals.waiting]
        broken = [pair.source for pair in self._pairs.values() if not pair.passes_forward()]
        return [connection for connection in waiting + broken if not connection.has_hung_up()]

    def _over(self) -> bool:
        """Wait a little; return True if all connections have ended."""
        # With a time limit: a signal in another thread, or just before the wait, does not wake this thread.
        with self._changed:
            return bool(
                self._changed.wait_for(lambda: self._error or (self.main_came and not self._is_running()), timeout=TICK)
            )

    def _is_running(self) -> bool:
        """Return True while there is a connection that waits or a direction that has not ended."""
        with self._changed:
            return bool(self._running or self._arrivals.waiting)

    def _missing(self) -> str:
        """Return the likely cause of silence, and what to do."""
        if not self.main_came:
            return "the source has opened no main connection: look at what it wrote"
        if not self._arrivals.uuids:
            return (
                "the source has opened no multifd channel: turn multifd on in both QEMUs (migrate-set-capabilities), "
                "with the same multifd-channels"
            )
        return (
            f"multifd channels that the source has opened: {len(self._arrivals.uuids)}. A destination that expects "
            "more waits for them: set multifd-channels to the same number in both QEMUs"
        )

    def _warn_once(self, text: str) -> None:
        if not self._warned_once:
            self._warned_once = True
            self._warned(text)

    def _received(self) -> int:
        return sum(pair.source.received + pair.onward.received for pair in list(self._pairs.values()))

    def statistics(self) -> dict[str, Any]:
        """Return the present statistics of the migration.

        Returns
        -------
        dict
            ``"return_path"``: the source has opened it (None: not known); ``"passed_on"``: all of the main channel has
            gone to the next hop; ``"confirmed"``: the destination has reported on the return path that it has loaded
            everything; ``"packets"``; ``"pages"``: ``"normal"`` and ``"zero"`` ones in packets; ``"bytes_in"``,
            ``"bytes_out"``: bytes that came from the source and that went onward, on all connections; ``"ratio"``:
            ``bytes_in`` divided by ``bytes_out``; ``"seconds"`` since the main connection came.
        """
        pairs = list(self._pairs.values())
        bytes_in = sum(pair.source.received for pair in pairs)
        bytes_out = sum(pair.onward.sent for pair in pairs)
        return {
            "return_path": self._main.return_path,
            "passed_on": self._main.passed_on,
            "confirmed": self._main.confirmed,
            "packets": self.counts.packets,
            "pages": {"normal": self.counts.normal_pages, "zero": self.counts.zero_pages},
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "ratio": round(bytes_in / bytes_out, 4) if bytes_out else None,
            "seconds": round(time.monotonic() - self._started, 3) if self._started else 0.0,
        }

    def process_statistics(self) -> dict[str, Any]:
        """Return the present statistics of the process, which may have other migrations too.

        Returns
        -------
        dict
            ``"cpu_seconds"`` since the main connection came; ``"path"`` that was in force when the relay was made, and
            the ``"blocks"`` (pages) that each path has compressed and decompressed.
        """
        done = _core.stats()
        return {
            "cpu_seconds": round(time.process_time() - self._cpu_started, 3) if self._started else 0.0,
            "path": self._path,
            "blocks": {path: done[path] for path in ("hardware", "software", "fallback")},
        }

    # ---- Connections ----

    def take(self, arrival: Arrival) -> None:
        """Take a connection of the source.

        Raises
        ------
        MultiFDError
            If the migration has ended, has such a connection, or is another guest's.
        """
        initial = arrival.initial
        with self._changed:
            if self._closed or (self._ended.is_set() and (initial is None or self._arrivals.contradiction(initial))):
                raise MultiFDError("the migration has ended")
            self._arrivals.add(arrival)
            if initial is None:
                self._cpu_started = time.process_time()
                self._started = time.monotonic()
            self._changed.notify_all()

    @property
    def main_came(self) -> bool:
        """Return True if the source has opened the main connection."""
        return self._arrivals.main_came

    def has_lost_source(self) -> bool:
        """Return True if the source has ended the main connection, or all its channels if it has no main connection.

        Bytes that the source has sent may not have passed yet.
        """
        with self._changed:
            if MAIN in self._pairs:
                return self._pairs[MAIN].source.has_hung_up()
            return self._arrivals.have_hung_up()

    def is_of_another(self, initial: wire.InitialPacket) -> bool:
        """Return True if a channel cannot be of this migration: it has that channel, or another guest's."""
        with self._changed:
            return self._arrivals.contradiction(initial) is not None

    def _open_waiting(self) -> None:
        """Open the waiting connections onward: the main connection, then the others in the order of their arrival."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended.is_set() or self._can_open())
                if self._ended.is_set():
                    return
                arrival = self._arrivals.waiting[0]
            party = MAIN if arrival.initial is None else arrival.initial.id
            try:
                self._open(party, arrival)
            except Exception as error:  # of any kind: `run` raises it, as no thread waits for this one
                self.fail(error, party)
                return

    def waits_for_uuid(self) -> str:
        """Return the address onward if it depends on the guest and no channel has named the guest, or else ""."""
        return "" if isinstance(self._onward, Address) or self._arrivals.uuids else str(self._onward)

    def _can_open(self) -> bool:
        return self.main_came and bool(self._arrivals.waiting) and not self.waits_for_uuid()

    def _address(self) -> Address:
        if isinstance(self._onward, Address):
            return self._onward
        with self._changed:
            uuid = next(iter(self._arrivals.uuids.values()))
        return self._onward(uuid)

    def _open(self, party: int | str, arrival: Arrival) -> None:
        try:
            pair = Pair(arrival.connection, connect(self._address(), self._tls, self._abort))
        except MultiFDError as error:
            if party == MAIN:
                raise
            raise type(error)(
                f"{error.reason}. The main connection was accepted there: look at what the QEMU there wrote, and set "
                "multifd-channels to the same number in both QEMUs"
            ) from error
        pair.onward.advice = LOOK_THERE
        if self._throttle is not None:
            pair.onward.pace = partial(self._throttle.wait, stop=self._ended)
        if arrival.initial is None:
            forward, back = self._main.forward, self._main.back
        else:
            forward, back = partial(self._recode, arrival.initial.id), self._return
        with self._changed:
            if self._ended.is_set():
                pair.onward.close()
                return
            del self._arrivals.waiting[0]
            for connection in (pair.source, pair.onward):
                connection.limit_silence(self._link_timeout)
            self._pairs[party] = pair
            head = self._proxy_header + arrival.head
            for work in (partial(self._pass_forward, forward, head), partial(self._pass_back, back)):
                thread = threading.Thread(target=self._guard, args=(work, pair, party), name=f"{party}")
                pair.threads.append(start(thread))
                self._running += 1

    def _guard(self, work: Callable[[Pair], None], pair: Pair, party: int | str) -> None:
        try:
            work(pair)
        except Exception as error:  # of any kind: `run` raises it, as no thread waits for this one
            self.fail(error, party)
            if self._main.confirmed:
                pair.abort()  # or the source might wait until its bytes are read
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def fail(self, error: Exception, party: int | str | None = None) -> None:
        """End the migration with `error`, which `run` raises, unless it has ended already."""
        if isinstance(error, MultiFDError) and party is not None:
            error.locate(party)
        with self._changed:
            # The guest is there once the destination has confirmed it, and connections that this relay ends break.
            if self._error is None and not self._ended.is_set() and not self._main.confirmed:
                self._error = error
            self._changed.notify_all()

    # ---- Bytes ----

    @staticmethod
    def _pass_forward(passing: Callable[[Pair], None], head: bytes, pair: Pair) -> None:
        pair.onward.send([head])
        passing(pair)
        pair.source_ended = True
        pair.onward.end()

    def _pass_back(self, passing: Callable[[Pair], None], pair: Pair) -> None:
        passing(pair)
        if not self._ended.is_set():  # a pair that fails is reset
            pair.source.end()

    def _recode(self, channel: int, pair: Pair) -> None:
        self._recoding.run(channel, pair, self._count)

    def _count(self, packet: wire.Packet) -> None:
        with self._changed:
            self.counts.packets += 1
            self.counts.normal_pages += packet.normal_pages
            self.counts.zero_pages += packet.zero_pages

    def _return(self, pair: Pair) -> None:
        try:
            for data in pair.onward.pieces(PIECE):
                pair.source.send([data])
        except PeerClosedError:
            # A destination sends nothing on a multifd channel. Once it has all pages it may close the channel
            # before the source does.
            if not (pair.source_ended or self._main.passed_on):
                raise


def relay_one(
    relay: Relay,
    listener: Listener,
    refused: Callable[[str], None] = lambda reason: None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Relay the migration whose first connection comes to `listener`, and refuse the connections of others.

    Parameters
    ----------
    relay : Relay
        The relay to run.
    listener : Listener
        Closed when the relay refuses further connections.
    refused : callable
        ``refused(reason)`` is called for each refused connection.
    check : callable
        As for `Relay.run`, whose exceptions are raised.
    """
    intake = Intake(listener, OneSource(relay.take), refused, relay.fail)
    try:
        intake.start()
        relay.run(check, intake.close)
    finally:
        intake.close()
