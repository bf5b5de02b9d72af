"""HTTP server for the state of a service: ``/metrics`` for Prometheus, ``/status`` as JSON.

Both are computed for each request. A status file would have to be written continually, and would still show "running"
after a crash.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from numcodecs_qpl import _core
from numcodecs_qpl.cli.common import missing
from numcodecs_qpl.multifd.errors import MultiFDError
from numcodecs_qpl.multifd.threads import start
from numcodecs_qpl.multifd.totals import Failure, RouteTotals, Totals
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.listener import Listener

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

NO_NAME = ("", 0)
"""Placeholder for the address of a client, which wsgiref requires and this module does not use."""
RETRY_SECONDS = 0.2
SILENT_SECONDS = 2.0
"""Time after which a silent client is dropped, because other clients wait meanwhile."""

_log = logging.getLogger(__name__)


class Monitor:
    """Server of ``/metrics`` and ``/status``.

    It answers one request at a time, in one thread, so clients cannot use up threads that migrations need.

    Parameters
    ----------
    where : Address or socket.socket
        As for `Listener`, without TLS.
    totals : Totals
        The sums of the service.
    routes : mapping
        Description of each route, by its name, as ``{"out": {"from": "none", "to": "qpl"}}``.

    Attributes
    ----------
    address : Address
        Address of the listener.

    Raises
    ------
    MultiFDError
        If prometheus-client is not installed, or it cannot listen there.
    """

    def __init__(self, where: Address | socket.socket, totals: Totals, routes: Mapping[str, Mapping[str, str]]) -> None:
        if missing("prometheus_client"):
            raise MultiFDError("metrics need prometheus-client: pip install prometheus-client")
        if isinstance(where, Address) and where.kind == "tls":
            raise MultiFDError(f"metrics cannot be served at {where}: expected unix:PATH or tcp:HOST:PORT")
        self._listener = Listener(where)
        self.address = self._listener.address
        self._server = _Server(self.address, _application(totals, routes))
        self._closing = threading.Event()
        # A daemon thread: a slow client must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Start to answer requests."""
        start(self._thread)

    def close(self) -> None:
        """Stop answering."""
        self._closing.set()
        self._listener.close()
        if self._thread.ident is not None:
            self._thread.join(SILENT_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                sock = self._listener.accept()
            except OSError:  # the listener was closed, or the limit of open files is reached
                self._closing.wait(RETRY_SECONDS)
                continue
            try:
                self._server.finish_request(sock, NO_NAME)
            except Exception:  # any error: the next request may succeed
                _log.debug("a request for metrics failed", exc_info=True)
            finally:
                self._server.shutdown_request(sock)


class _Server(WSGIServer):
    """Server object that wsgiref's handler requires; `Monitor` accepts the connections."""

    def __init__(self, address: Address, application: WSGIApplication) -> None:
        super().__init__(NO_NAME, _Handler, bind_and_activate=False)
        self.socket.close()
        self.server_name, self.server_port = str(address), address.port
        self.setup_environ()
        self.set_app(application)


class _Handler(WSGIRequestHandler):
    timeout = SILENT_SECONDS

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002, its name in the base class
        """Log nothing: requests come every few seconds."""


def _application(totals: Totals, routes: Mapping[str, Mapping[str, str]]) -> WSGIApplication:
    from prometheus_client import make_wsgi_app

    from numcodecs_qpl.cli.metrics import registry

    metrics: WSGIApplication = make_wsgi_app(registry(totals, routes))

    def application(environ: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, respond)
        if environ["PATH_INFO"] == "/status":
            respond("200 OK", [("Content-Type", "application/json")])
            return [f"{json.dumps(status(totals, routes))}\n".encode()]
        respond("404 Not Found", [("Content-Type", "text/plain")])
        return [b"There are /metrics and /status.\n"]

    return application


def status(totals: Totals, routes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Return the state of a service, for JSON.

    Returns
    -------
    dict
        ``"draining"``: true if no new migration is accepted; ``"path"`` in force; ``"blocks"`` as in
        `numcodecs_qpl.stats`; ``"routes"``: by name, the description of a route, the sums over its migrations,
        and its ``"last_failure"``; ``"migrations"``: the running ones, each with its ``"number"``, its ``"route"`` and
        its statistics.
    """
    snapshot = totals.snapshot()
    return {
        "draining": totals.draining,
        "path": _core.path_in_force(),
        "blocks": _core.stats(),
        "routes": {name: {**routes[name], **_sums(route)} for name, route in snapshot.routes.items()},
        "migrations": [
            {
                "number": migration.number,
                "route": migration.route,
                **statistics,
            }
            for migration, statistics in snapshot.running
        ],
    }


def _sums(route: RouteTotals) -> dict[str, Any]:
    return {
        "running": route.running,
        "ended": [
            {"outcome": outcome, "cause": cause or None, "count": count}
            for (outcome, cause), count in route.ended.items()
        ],
        "refused_connections": route.refused,
        "bytes_in": route.bytes_in,
        "bytes_out": route.bytes_out,
        "ratio": round(route.bytes_in / route.bytes_out, 4) if route.bytes_out else None,
        "packets": route.packets,
        "pages": {"normal": route.normal_pages, "zero": route.zero_pages},
        "last_failure": route.last_failure and _failure(route.last_failure),
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {**vars(failure), "at": datetime.fromtimestamp(failure.at, UTC).isoformat(timespec="seconds")}
