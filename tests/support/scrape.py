"""Read a service's metrics and status over HTTP."""

from __future__ import annotations

import http.client
import socket
from contextlib import closing

from commands import PATIENCE

from numcodecs_qpl.multifd.transport.address import Address


def connected(address: Address) -> socket.socket:
    """A connection, over which nothing has been said."""
    if address.kind != "unix":
        return socket.create_connection((address.host, address.port), timeout=PATIENCE)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(address.path)
    return sock


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = connected(Address("unix", path=self.path))


def get(address: Address, page: str) -> tuple[int, str | None, str]:
    """Status, content type and text of a page."""
    http_connection = (
        UnixConnection(address.path)
        if address.kind == "unix"
        else http.client.HTTPConnection(address.host, address.port, timeout=PATIENCE)
    )
    with closing(http_connection) as connection:
        connection.request("GET", page)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read().decode()
