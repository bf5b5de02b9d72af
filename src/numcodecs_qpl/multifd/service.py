"""Relaying of many migrations, sequential and concurrent.

The origin of a connection identifies its migration: the process at the other end of a unix socket, or the unique id in
a PROXY header. Over TCP without that header, only the host is known, and QEMU's main channel has no field that names
the guest. So a second migration from a host is refused while one of that host runs at the same address. A wrong guess
could join one guest's device state to another guest's memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from numcodecs_qpl.multifd.errors import MultiFDError, OutcomeUnknownError, SettingsError, StoppedError
from numcodecs_qpl.multifd.relay import Relay
from numcodecs_qpl.multifd.threads import NoThreadError, start
from numcodecs_qpl.multifd.totals import COMPLETE, FAILED, TERMINATED, UNKNOWN, Migration, Totals
from numcodecs_qpl.multifd.transport.connecting import HANDSHAKE_SECONDS
from numcodecs_qpl.multifd.transport.intake import Arrival, Intake, Origin
from numcodecs_qpl.multifd.transport.listener import Listener

DEAD_CHANNEL_SECONDS = 5.0
"""Time for the main connection to identify itself after its channels, even if the source has closed them.

A source may have sent a whole small guest by then. It opens the main connection first.
"""
LAST_ONES = "this relay ends when its migrations have ended, and takes no new one"
TICK = 0.1  # seconds between two checks for signals

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gate:
    """A listener, and the factory of the relays for its migrations.

    Attributes
    ----------
    listener : Listener
        Closed by the service.
    make_relay : callable
        ``make_relay(warned)`` returns a new `numcodecs_qpl.multifd.relay.Relay` with that callback for warnings.
    """

    listener: Listener
    make_relay: Callable[[Callable[[str], None]], Relay]

    @property
    def route(self) -> str:
        """Name of the route in the log and in the totals: the listener's address."""
        return str(self.listener.address)


@dataclass(eq=False)
class _Passage:
    """The relay of a migration, or of channels whose main connection has not come.

    Attributes
    ----------
    route : str
        Name of the route of its connections.
    origin : Origin
        Origin of its connections.
    relay : Relay
        The relay.
    migration : Migration or None
        Entry in the totals, from the main connection on.
    began : float
        Time of its first connection, by `time.monotonic`.
    """

    route: str
    origin: Origin
    relay: Relay
    migration: Migration | None = None
    began: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        """Return its name in the log."""
        what = f"migration {self.migration.number}" if self.migration else "channels"
        return f"{what} at {self.route} from {self.origin}"


class Service:
    """Service that relays the migrations of several listeners.

    Parameters
    ----------
    gates : sequence of Gate
        The listeners.
    totals : Totals
        Statistics, by the listeners' addresses.
    max_migrations : int
        Most migrations at one time; more are refused.
    """

    def __init__(self, gates: Sequence[Gate], totals: Totals, max_migrations: int) -> None:
        self._totals = totals
        self._max_migrations = max_migrations
        self._intakes = [
            Intake(gate.listener, partial(self._take, gate), partial(self._refuse, gate), partial(self._refuse, gate))
            for gate in gates
        ]
        self._changed = threading.Condition()
        self._taking: dict[tuple[str, Origin], _Passage] = {}
        self._threads: dict[_Passage, threading.Thread] = {}
        self._stopping = False

    def run(self, check: Callable[[], None] = lambda: None) -> None:
        """Relay until `drain` was called and all migrations have ended.

        Parameters
        ----------
        check : callable
            ``check()`` is called ten times a second. Its exceptions end all migrations.
        """
        try:
            for intake in self._intakes:
                intake.start()
            while not self._is_drained():
                check()
        finally:
            self._stop()

    def drain(self) -> None:
        """Refuse new migrations, and let `run` return when the running ones have ended."""
        with self._changed:
            self._totals.draining = True
            self._changed.notify_all()

    def running(self) -> int:
        """Return the number of running migrations."""
        with self._changed:
            return sum(passage.migration is not None for passage in self._threads)

    def _is_drained(self) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._totals.draining and not self._threads, TICK)

    def _stop(self) -> None:
        self._stopping = True
        for intake in self._intakes:
            intake.close()
        with self._changed:
            threads = list(self._threads.values())
        for thread in threads:
            thread.join()

    # ---- Connections ----

    def _take(self, gate: Gate, arrival: Arrival) -> None:
        is_main = arrival.initial is None
        if arrival.initial is not None and not arrival.initial.uuid.int and not arrival.origin.is_certain:
            # Another guest's channel could not be told from this one's.
            raise SettingsError(
                f"the guest has no uuid, and other guests may come from {arrival.origin} too: start both QEMUs with "
                "the same -uuid, or, if a relay connects, start that relay with --send-proxy"
            )
        with self._changed:
            passage = self._taking.get((gate.route, arrival.origin))
            begins = arrival.initial is None or (passage is not None and passage.relay.is_of_another(arrival.initial))
            if passage is not None and passage.migration is not None and begins:
                if passage.relay.has_lost_source():
                    passage = None  # the source tries again, before the relay has noticed that its connections ended
                elif is_main:
                    raise MultiFDError(
                        f"another migration from {arrival.origin} runs here: use another address for it, or, if a "
                        "relay connects, start that relay with --send-proxy"
                    )
            if passage is None:
                passage = self._begin(gate, arrival.origin)
            passage.relay.take(arrival)
            if is_main:
                passage.migration = self._totals.begin(gate.route, passage.relay.statistics)
                log.info("%s: began", passage)

    def _begin(self, gate: Gate, origin: Origin) -> _Passage:
        if self._totals.draining:
            raise MultiFDError(LAST_ONES)
        if len(self._threads) >= self._max_migrations:
            raise MultiFDError(f"{self._max_migrations} migrations run, which is the limit (--max-migrations)")
        passage = _Passage(gate.route, origin, gate.make_relay(lambda text: log.warning("%s: %s", passage, text)))
        thread = threading.Thread(target=self._carry, args=(passage,), name="migration")
        self._threads[passage] = thread
        try:
            start(thread)
        except NoThreadError:
            del self._threads[passage]
            raise
        self._taking[gate.route, origin] = passage
        return passage

    def _refuse(self, gate: Gate, reason: object) -> None:
        self._totals.refuse(gate.route)
        log.warning("refused a connection at %s: %s", gate.route, reason)

    # ---- The thread of a migration ----

    def _carry(self, passage: _Passage) -> None:
        error: Exception | None = None
        try:
            passage.relay.run(partial(self._check, passage), partial(self._take_no_more, passage))
        except Exception as caught:  # of any kind: no thread waits for this one
            error = caught
        with self._changed:  # after a main connection that is just being taken
            if passage.migration is None:
                log.warning("%s: closed: %s", passage, error)
            else:
                outcome = _outcome(error)
                _log_end(passage, outcome, error, self._totals.end(passage.migration, outcome, error))
            del self._threads[passage]
            self._changed.notify_all()

    def _check(self, passage: _Passage) -> None:
        if self._stopping:
            raise StoppedError("the relay was stopped")
        relay, age = passage.relay, time.monotonic() - passage.began
        is_late = age > HANDSHAKE_SECONDS
        if not relay.main_came and (is_late or (age > DEAD_CHANNEL_SECONDS and relay.has_lost_source())):
            raise MultiFDError("the source has opened no main connection")
        if not relay.main_came and self._totals.draining:
            raise MultiFDError(LAST_ONES)
        if is_late and (pattern := relay.waits_for_uuid()):
            raise SettingsError(
                f"no multifd channel came within {HANDSHAKE_SECONDS:g} s, and {pattern} needs the guest's uuid: turn "
                "multifd on in both QEMUs (QMP migrate-set-capabilities), or name a socket without {uuid}"
            )

    def _take_no_more(self, passage: _Passage) -> None:
        with self._changed:
            if self._taking.get((passage.route, passage.origin)) is passage:
                del self._taking[passage.route, passage.origin]


def _outcome(error: Exception | None) -> str:
    if isinstance(error, StoppedError):
        return TERMINATED
    if isinstance(error, OutcomeUnknownError):
        return UNKNOWN
    return COMPLETE if error is None else FAILED


def _log_end(passage: _Passage, outcome: str, error: Exception | None, statistics: dict[str, Any]) -> None:
    log.log(
        logging.ERROR if error else logging.INFO,
        "%s: %s; %d pages, %d zero pages; %.1f MB came, %.1f MB went, in %.1f s",
        passage,
        f"{outcome}: {error}" if error else outcome,
        statistics["pages"]["normal"],
        statistics["pages"]["zero"],
        statistics["bytes_in"] / 1e6,
        statistics["bytes_out"] / 1e6,
        statistics["seconds"],
        exc_info=None if error is None or isinstance(error, MultiFDError) else error,
    )
