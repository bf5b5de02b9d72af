"""What a service has done: sums over its migrations, those that have ended and those that run."""

from __future__ import annotations

import copy
import itertools
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from numcodecs_qpl.multifd.errors import cause_of

COMPLETE, FAILED, UNKNOWN, TERMINATED = "complete", "failed", "unknown", "terminated"
"""Outcomes of a migration. "unknown": all was passed on, and the destination did not answer any more."""
DURATIONS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds by which migrations are sorted, as `Durations.counts` has them; longer ones are in one more place."""


@dataclass
class Durations:
    """Distribution of how long migrations took.

    Attributes
    ----------
    counts : list of int
        How many took at most as long as the same place of ``DURATIONS`` says, and longer than the one before.
    seconds : float
        Sum over all of them.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATIONS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a migration."""
        self.counts[bisect_left(DURATIONS, seconds)] += 1
        self.seconds += seconds


@dataclass(frozen=True)
class Failure:
    """The end of a migration that is not complete.

    Attributes
    ----------
    migration : int
        Its number.
    at : float
        Seconds since the epoch, when it ended.
    outcome, cause, error : str
        One of the outcomes; the cause of the error, and its text.
    """

    migration: int
    at: float
    outcome: str
    cause: str
    error: str


@dataclass
class RouteTotals:
    """Sums over the migrations of a route.

    Attributes
    ----------
    running : int
        Migrations that run.
    ended : Counter of (str, str)
        Migrations that have ended, by outcome and cause; the cause is empty where there was no error.
    refused : int
        Connections that were turned away.
    bytes_in, bytes_out, packets, normal_pages, zero_pages : int
        As `Relay.statistics` has them, over the migrations that have ended and those that run.
    durations : dict of Durations
        By outcome.
    last_failure : Failure or None
        The latest one.
    """

    running: int = 0
    ended: Counter[tuple[str, str]] = field(default_factory=lambda: Counter({(COMPLETE, ""): 0}))
    refused: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    packets: int = 0
    normal_pages: int = 0
    zero_pages: int = 0
    durations: dict[str, Durations] = field(default_factory=lambda: {COMPLETE: Durations()})
    last_failure: Failure | None = None

    def add(self, statistics: dict[str, Any]) -> None:
        """Add what a migration has passed."""
        self.bytes_in += statistics["bytes_in"]
        self.bytes_out += statistics["bytes_out"]
        self.packets += statistics["packets"]
        self.normal_pages += statistics["pages"]["normal"]
        self.zero_pages += statistics["pages"]["zero"]


@dataclass(frozen=True, eq=False)
class Migration:
    """A migration that runs.

    Attributes
    ----------
    number : int
        Counted from 1, over all routes.
    route : str
        Name of its route.
    statistics : callable
        ``statistics()`` is what it has done so far, as `Relay.statistics` returns it.
    """

    number: int
    route: str
    statistics: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Snapshot:
    """All sums at one moment.

    Attributes
    ----------
    routes : dict of RouteTotals
        By the route's name.
    running : list of (Migration, dict)
        The migrations that run, with what they have done so far. It is part of the sums.
    """

    routes: dict[str, RouteTotals]
    running: list[tuple[Migration, dict[str, Any]]]


class Totals:
    """Sums over the migrations of a service.

    No byte is missing in a snapshot, and none is counted twice: one lock is held while a migration goes from those that
    run to those that have ended, and while all are summed up.

    Parameters
    ----------
    routes : iterable of str
        Names of the routes.

    Attributes
    ----------
    draining : bool
        True if the service takes no new migration.
    """

    def __init__(self, routes: Iterable[str]) -> None:
        self.draining = False
        self._lock = threading.Lock()
        self._routes = {route: RouteTotals() for route in routes}
        self._running: list[Migration] = []
        self._numbers = itertools.count(1)

    def begin(self, route: str, statistics: Callable[[], dict[str, Any]]) -> Migration:
        """Count a migration that begins; `end` has to be called with what is returned."""
        with self._lock:
            migration = Migration(next(self._numbers), route, statistics)
            self._running.append(migration)
            self._routes[route].running += 1
        return migration

    def end(self, migration: Migration, outcome: str, error: BaseException | None = None) -> dict[str, Any]:
        """Count a migration that has ended, after all of its threads have; return its statistics.

        Parameters
        ----------
        migration : Migration
            From `begin`.
        outcome : {"complete", "failed", "unknown", "terminated"}
            How it ended.
        error : BaseException, optional
            Why it is not complete.
        """
        cause = "" if error is None else cause_of(error)
        with self._lock:
            statistics = migration.statistics()
            self._running.remove(migration)
            totals = self._routes[migration.route]
            totals.running -= 1
            totals.add(statistics)
            totals.ended[outcome, cause] += 1
            totals.durations.setdefault(outcome, Durations()).add(statistics["seconds"])
            if error is not None:
                totals.last_failure = Failure(migration.number, time.time(), outcome, cause, str(error))
        return statistics

    def refuse(self, route: str) -> None:
        """Count a connection that was turned away."""
        with self._lock:
            self._routes[route].refused += 1

    def snapshot(self) -> Snapshot:
        """Sum up."""
        with self._lock:
            routes = copy.deepcopy(self._routes)
            running = [(migration, migration.statistics()) for migration in self._running]
        for migration, statistics in running:
            routes[migration.route].add(statistics)
        return Snapshot(routes, running)
