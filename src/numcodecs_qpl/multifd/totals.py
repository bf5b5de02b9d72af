"""Statistics of a service: sums over its migrations, ended and running."""

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
"""Outcomes of a migration. "unknown": everything was passed on, and then the destination stopped answering."""
DURATIONS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Upper bounds in seconds of the first elements of `Durations.counts`; the last element counts longer migrations."""


@dataclass
class Durations:
    """Histogram of the durations of migrations.

    Attributes
    ----------
    counts : list of int
        Migrations in each interval. An interval ends at the element of ``DURATIONS`` with the same index.
    seconds : float
        Sum of all durations.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(DURATIONS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a migration."""
        self.counts[bisect_left(DURATIONS, seconds)] += 1
        self.seconds += seconds


@dataclass(frozen=True)
class Failure:
    """End of an incomplete migration.

    Attributes
    ----------
    migration : int
        Number of the migration.
    at : float
        Time of its end, in seconds since the epoch.
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
        Running migrations.
    ended : Counter of (str, str)
        Ended migrations, by outcome and cause; the cause is empty without an error.
    refused : int
        Refused connections.
    bytes_in, bytes_out, packets, normal_pages, zero_pages : int
        Sums of `Relay.statistics`, over ended and running migrations.
    durations : dict of Durations
        By outcome.
    last_failure : Failure or None
        The latest failure.
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
        """Add a migration's bytes, packets and pages."""
        self.bytes_in += statistics["bytes_in"]
        self.bytes_out += statistics["bytes_out"]
        self.packets += statistics["packets"]
        self.normal_pages += statistics["pages"]["normal"]
        self.zero_pages += statistics["pages"]["zero"]


@dataclass(frozen=True, eq=False)
class Migration:
    """A running migration.

    Attributes
    ----------
    number : int
        Number of the migration, from 1, over all routes.
    route : str
        Name of its route.
    statistics : callable
        ``statistics()`` returns its present statistics, in the form of `Relay.statistics`.
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
        Running migrations, with their statistics, which are included in the sums.
    """

    routes: dict[str, RouteTotals]
    running: list[tuple[Migration, dict[str, Any]]]


class Totals:
    """Sums over the migrations of a service.

    A snapshot counts each byte exactly once. A lock is held while a migration moves from running to ended, and while
    all are summed up.

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
        """Count a migration that begins; pass the result to `end` later."""
        with self._lock:
            migration = Migration(next(self._numbers), route, statistics)
            self._running.append(migration)
            self._routes[route].running += 1
        return migration

    def end(self, migration: Migration, outcome: str, error: BaseException | None = None) -> dict[str, Any]:
        """Count a migration that has ended, after the end of all its threads; return its statistics.

        Parameters
        ----------
        migration : Migration
            Result of `begin`.
        outcome : {"complete", "failed", "unknown", "terminated"}
            Outcome of the migration.
        error : BaseException, optional
            Reason if it is not complete.
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
        """Count a refused connection."""
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
