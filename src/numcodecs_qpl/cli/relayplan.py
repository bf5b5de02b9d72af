"""Routes, TLS and settings that the options of ``numcodecs-qpl relay`` describe."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Sequence
from uuid import UUID

from numcodecs_qpl.cli.migration import tls_files
from numcodecs_qpl.cli.systemd import listen_sockets
from numcodecs_qpl.multifd import MigrationParameters, MultiFDError
from numcodecs_qpl.multifd.relay import Relay
from numcodecs_qpl.multifd.routes import GuestAddress, Route, make_routes, parse_listen
from numcodecs_qpl.multifd.transport.access import Access
from numcodecs_qpl.multifd.transport.address import Address
from numcodecs_qpl.multifd.transport.listener import OWNER_ONLY, Listener
from numcodecs_qpl.multifd.transport.throttle import Throttle
from numcodecs_qpl.multifd.transport.tlsfiles import tls_context

SYSTEMD, SYSTEMD_TLS = "systemd", "systemd-tls"
"""Words for ``--listen``: the sockets that systemd passes, without TLS and with it."""
BYTES_PER_MBIT = 1_000_000 / 8


class Plan:
    """Factory of the listeners and the relays that the options describe.

    Parameters
    ----------
    arguments : argparse.Namespace
        The options. An invalid one is a usage error.
    command : argparse.ArgumentParser
        Reports usage errors.

    Attributes
    ----------
    routes : list of Route
        One without ``--serve``.

    Raises
    ------
    MultiFDError
        If the TLS files, or the sockets that systemd has passed, cannot be used.
    """

    def __init__(self, arguments: argparse.Namespace, command: argparse.ArgumentParser) -> None:
        self._arguments = arguments
        try:
            self.routes = make_routes(_places(arguments.listen), arguments.connect)
        except ValueError as error:
            if isinstance(error, MultiFDError):
                raise
            command.error(str(error))
        if len(self.routes) > 1 and not arguments.serve:
            command.error(f"--listen {arguments.listen} stands for {len(self.routes)} addresses; use --serve for them")
        self._example = _example(self.routes[0].onward)
        listens = [route.listen for route in self.routes[:1] if isinstance(route.listen, Address)]
        self._tls = tls_files(
            arguments,
            command,
            *[*listens, self._example],
            also=arguments.listen == SYSTEMD_TLS,
            verify_peer=arguments.verify_peer is not False,
        )
        here = {str(route.listen) for route in self.routes}
        if loop := next((route for route in self.routes if route.is_loop() or str(route.onward) in here), None):
            command.error(f"--listen {arguments.listen} and --connect {loop.onward} are the same socket")
        self._context = tls_context(self._example, self._tls, server=False)
        limit = arguments.max_bandwidth
        self._throttle = Throttle(limit * BYTES_PER_MBIT) if limit else None

    def listener(self, route: Route) -> Listener:
        """Open the listener of a route; raise MultiFDError as `Listener` does."""
        arguments = self._arguments
        if not isinstance(route.listen, Address):
            return Listener(route.listen, self._tls if arguments.listen == SYSTEMD_TLS else None)
        access = Access(
            OWNER_ONLY.mode if arguments.socket_mode is None else arguments.socket_mode,
            arguments.socket_owner,
            arguments.socket_group,
        )
        return Listener(route.listen, self._tls, access)

    def description(self, route: Route) -> dict[str, str]:
        """Return the description of a route, for its metrics and its status."""
        return {"onward": str(route.onward), "from": self._arguments.decode, "to": self._arguments.encode}

    def relay(self, route: Route, warned: Callable[[str], None]) -> Relay:
        """Make the relay of a migration."""
        arguments = self._arguments
        return Relay(
            route.onward,
            arguments.decode,
            arguments.encode,
            parameters=MigrationParameters(huffman=arguments.huffman or "fixed"),
            tls=self._context,
            send_proxy=arguments.send_proxy,
            throttle=self._throttle,
            page_size=arguments.page_size,
            timeout=arguments.timeout,
            link_timeout=arguments.link_timeout,
            warned=warned,
        )

    def reload_tls(self) -> None:
        """Read the TLS files again, for the connections onward of later migrations.

        Raises
        ------
        MultiFDError
            If they cannot be used. The old ones then stay in use.
        """
        self._context = tls_context(self._example, self._tls, server=False)


def _example(onward: Address | GuestAddress) -> Address:
    return onward if isinstance(onward, Address) else onward(UUID(int=1))


def _places(listen: str) -> Sequence[tuple[str, Address | socket.socket]]:
    if listen not in (SYSTEMD, SYSTEMD_TLS):
        return parse_listen(listen)
    sockets = listen_sockets()
    if not sockets:
        raise ValueError(f"--listen {listen} needs sockets from systemd (LISTEN_FDS), and none was passed")
    return sockets
