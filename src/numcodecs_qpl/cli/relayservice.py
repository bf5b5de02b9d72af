"""``numcodecs-qpl relay --serve``: a relay of many migrations."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import logging
import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from numcodecs_qpl.cli.common import OK
from numcodecs_qpl.cli.logs import configure
from numcodecs_qpl.cli.monitor import Monitor
from numcodecs_qpl.cli.signals import Terminated
from numcodecs_qpl.cli.systemd import notify, notify_reloading
from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.service import Gate, Service
from numcodecs_qpl.multifd.totals import Totals

if TYPE_CHECKING:
    from numcodecs_qpl.cli.relayplan import Plan
    from numcodecs_qpl.multifd.transport.address import Address
    from numcodecs_qpl.multifd.transport.listener import Listener

M_ARENA_MAX = -8
"""Number of the option in mallopt(3)."""

log = logging.getLogger(__name__)


def run_service(plan: Plan, max_migrations: int, metrics: Address | None) -> int:
    """Relay migrations until a signal comes, and return the exit status.

    Raises
    ------
    MultiFDError
        If it cannot listen.
    Terminated
        After a second signal, which has ended the migrations that ran.
    """
    configure()
    _use_one_heap()
    with contextlib.ExitStack() as stack:
        stack.callback(notify, STOPPING=1)
        listeners = [stack.enter_context(contextlib.closing(plan.listener(route))) for route in plan.routes]
        gates = [
            Gate(listener, partial(plan.relay, route)) for listener, route in zip(listeners, plan.routes, strict=True)
        ]
        totals = Totals(gate.route for gate in gates)
        service = Service(gates, totals, max_migrations)
        signals = stack.enter_context(_Signals(lambda: _drain(service), lambda: _reload(plan, listeners)))
        if metrics is not None:
            described = {gate.route: plan.description(route) for gate, route in zip(gates, plan.routes, strict=True)}
            monitor = stack.enter_context(contextlib.closing(Monitor(metrics, totals, described)))
            monitor.start()
            log.info("metrics and status at %s", monitor.address)
        for gate, route in zip(gates, plan.routes, strict=True):
            log.info("listening at %s for %s", gate.route, route.onward)
        notify(READY=1)
        service.run(_each(signals.check, _Status(service).tell))
    return OK


def _use_one_heap() -> None:
    """Make all threads use one heap.

    By default glibc gives threads several heaps, and keeps free memory in each. The memory of a relay then grew by 7 MB
    over 320 migrations. With one heap it stayed within 0.2 MB (glibc 2.36).
    """
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _each(*calls: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        for each in calls:
            each()

    return call


def _drain(service: Service) -> None:
    service.drain()
    count = service.running()
    log.info("taking no new migration; %d still %s", count, "runs" if count == 1 else "run")
    notify(STOPPING=1)


def _reload(plan: Plan, listeners: list[Listener]) -> None:
    notify_reloading()
    try:
        plan.reload_tls()
        for listener in listeners:
            listener.reload_tls()
    except MultiFDError as error:
        log.error("kept the TLS files that were read before: %s", error)
    else:
        log.info("read the TLS files again")
    notify(READY=1)


class _Status:
    """Reporter of the number of running migrations to systemd."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._told = -1

    def tell(self) -> None:
        """Send the number if it has changed."""
        count = self._service.running()
        if count != self._told:
            notify(STATUS=f"migrations that run: {count}")
            self._told = count


class _Signals:
    """Signal handling: the first SIGTERM or SIGINT calls `drain`, the second raises Terminated, SIGHUP calls `reload`.

    Signals wait until `check` is called.
    """

    def __init__(self, drain: Callable[[], None], reload: Callable[[], None]) -> None:
        self._drain = drain
        self._reload = reload
        self._draining = False
        self._waiting: collections.deque[int] = collections.deque()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, lambda came, frame: self._waiting.append(came))
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Act on the signals that have come."""
        while self._waiting:
            number = self._waiting.popleft()
            if number == signal.SIGHUP:
                self._reload()
            elif self._draining:
                raise Terminated(number)
            else:
                self._draining = True
                self._drain()
